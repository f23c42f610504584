"""Who watches the watchman: what is wrong with alerting itself, read from the store.

Here: findings, each with since when. Not here: how they are told (`orchestration.alarms`), or when one looks
(`orchestration.watchdog`). An alert that is not evaluated, or not delivered, looks like peace; so silence is judged, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.tables import outbox, processed_evaluations

NO_EVALUATION = "evaluation"
STALE_DATA = "data"
CHANNEL = "channel:"
SENSOR = "sensor:"

EVALUATED_WITHIN = timedelta(hours=26)
"""A night and two hours: a nightly job that takes longer has not worked."""
DATA_WITHIN = timedelta(hours=36)
"""How old the end of the newest complete day may be: the next night's job and a morning to mend it."""
DELIVERED_WITHIN = timedelta(minutes=30)
"""How long a message may wait after its time has come, retries included."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with alerting itself."""

    subject: str
    """`evaluation`, `data`, `channel:<name>` or `sensor:<name>`; one alarm each."""
    since: datetime
    """Aware."""
    summary_en: str
    summary_zh: str


def look(connection: Connection, *, now: datetime, complete_until: datetime | None, zone: ZoneInfo) -> list[Finding]:
    """Everything that is wrong at `now` (aware).

    `complete_until`: shop-local end of the newest complete period that is published, None before the first one. An
    installation that never evaluated anything is not in use, and nothing is wrong with it.
    """
    findings: list[Finding] = []
    last = connection.execute(sa.select(sa.func.max(processed_evaluations.c.processed_at))).scalar_one_or_none()
    if last is not None and now - last > EVALUATED_WITHIN:
        findings.append(
            Finding(
                NO_EVALUATION,
                last,
                f"No rule has been evaluated since {_clock(last, zone)}: a breach would go unnoticed.",
                f"自 {_clock(last, zone)} 起没有任何规则被评估：异常将无人知晓。",
            )
        )
    if complete_until is not None:
        end = complete_until.replace(tzinfo=zone)
        if now - end > DATA_WITHIN:
            findings.append(
                Finding(
                    STALE_DATA,
                    end,
                    f"The newest complete day ended {_clock(end, zone)}: alerts judge old data.",
                    f"最新完整数据截至 {_clock(end, zone)}：告警依据的是旧数据。",
                )
            )
    return [*findings, *_stuck_channels(connection, now=now, zone=zone)]


def subjects_of(findings: Iterable[Finding]) -> set[str]:
    """The subjects that have a finding."""
    return {finding.subject for finding in findings}


def failing(name: str, *, ticks: int, since: datetime, error: str, zone: ZoneInfo) -> Finding:
    """The finding of a sensor or schedule whose last ticks all failed. `error`: its own words."""
    return Finding(
        f"{SENSOR}{name}",
        since,
        f"The last {ticks} ticks of {name} failed, since {_clock(since, zone)}; what it starts or tells is left undone: {error}",
        f"{name} 自 {_clock(since, zone)} 起连续 {ticks} 次执行失败，由它触发或通知的事都未发生：{error}",
    )


def _stuck_channels(connection: Connection, *, now: datetime, zone: ZoneInfo) -> list[Finding]:
    """Channels whose messages wait for too long or were given up within the last day."""
    waits = sa.and_(
        outbox.c.state.in_(("queued", "leased")), outbox.c.attempts > 0, outbox.c.created_at < now - DELIVERED_WITHIN
    )
    dead = sa.and_(outbox.c.state == "dead", outbox.c.created_at > now - timedelta(days=1))
    rows: Sequence[Any] = connection.execute(
        sa.select(
            outbox.c.receiver,
            sa.func.min(outbox.c.created_at),
            sa.func.count(),
            sa.func.sum(sa.case((outbox.c.state == "dead", 1), else_=0)),
        )
        .where(sa.or_(waits, dead))
        .group_by(outbox.c.receiver)
    ).all()
    channels: dict[str, list[tuple[datetime, int, int]]] = {}
    for receiver, since, count, given_up in rows:
        channels.setdefault(str(receiver).partition(":")[0], []).append((since, count, given_up))
    findings = []
    for channel, found in sorted(channels.items()):
        since = min(one[0] for one in found)
        count, given_up = sum(one[1] for one in found), sum(one[2] for one in found)
        findings.append(
            Finding(
                f"{CHANNEL}{channel}",
                since,
                f"Channel {channel} delivers nothing: {count} messages since {_clock(since, zone)}, {given_up} of them "
                "given up. `metrics channels test` shows the vendor's answer.",
                f"渠道 {channel} 无法送达：自 {_clock(since, zone)} 起 {count} 条消息，其中 {given_up} 条已放弃。"
                "运行 `metrics channels test` 可查看平台返回。",
            )
        )
    return findings


def _clock(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M")
