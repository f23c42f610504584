"""A message that tries a channel: a made-up alert that says in its first words that it is a test."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from metrics_pipeline.alerts.notice import Counts, Notice, Point, RuleCard, Series, Slice

RULE = "channel_test"
DAYS = 28


def make_test_notice(channel: str, *, key: str, now: datetime, period: datetime) -> Notice:
    """A red test alert for one channel. `key` makes it one of its kind; `now`: aware; `period`: shop-local, naive."""
    points = tuple(_point(period, number) for number in range(DAYS))
    worst = Slice(
        instance=f"{RULE}{{channel={channel}}}",
        dimension="all",
        member="all",
        change="new",
        tier="red",
        since=period,
        value=0.132,
        observed=0.132,
        baseline=0.05,
        lower=0.03,
        upper=0.07,
        yellow_bound=0.08,
        red_bound=0.12,
    )
    return Notice(
        key=key,
        receiver=channel,
        sequence=1,
        reason="first",
        tier="red",
        created_at=now,
        period=period,
        grain="day",
        rule=RuleCard(
            id=RULE,
            metric=RULE,
            name_zh="测试消息，不是报警",
            name_en="Test message, no alert",
            unit="ratio",
            why="Somebody tries this channel; nothing has to be done.",
            why_zh="有人在测试这个渠道，无需处理。",
            owner=channel,
            yellow_if="> 0.08",
            red_if="> 0.12",
            annotations={
                "summary": "The numbers are made up; this only shows that the channel works.",
                "summary_zh": "数字是虚构的，只用来说明渠道可用。",
            },
        ),
        counts=Counts(new=1, firing=1, red=1),
        slices=(worst,),
        series=Series(points, 0.08, 0.12),
    )


def _point(period: datetime, number: int) -> Point:
    middle = 0.05 + 0.005 * math.sin(number / 7 * 2 * math.pi)
    value = 0.132 if number == DAYS - 1 else middle
    return Point(period - timedelta(days=DAYS - 1 - number), value, middle - 0.02, middle + 0.02)
