"""Days on which a campaign of the shop's own begins or has just ended, of the slices of its ad channel.

Between them the level of the channel is the campaign's, and baselines follow it within a week; so a campaign is in the
calendar on its first `START_DAYS` days and on the `END_DAYS` after it, phase `campaign`. Campaigns without a pause,
longer than `LONGEST_DAYS`, are how the channel ordinarily is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.warehouse.campaigns import Campaign

START_DAYS = 3
END_DAYS = 2
LONGEST_DAYS = 60
MARKET = "own"


def campaign_days(campaigns: Iterable[Campaign]) -> Iterator[PromotionDay]:
    """The days of these campaigns; `day_in_event` counts from the first day."""
    for one in campaigns:
        length = (one.ends_on - one.starts_on).days + 1
        if length > LONGEST_DAYS:
            continue
        for position in sorted({*range(min(START_DAYS, length)), *range(length, length + END_DAYS)}):
            yield PromotionDay(
                one.starts_on + timedelta(days=position), f"campaign_{one.id}", one.name, one.name, position, "campaign",
                MARKET, (("ad_channel", (one.ad_channel,)),), "campaigns",
            )  # fmt: skip
