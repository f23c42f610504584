"""Campaigns on ad channels: always-on ones per quarter, one per promotion, and what they cost each day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.incidents import Incident
from metrics_pipeline.sources.simulator.market import AD_CHANNEL_SHARE, AD_CHANNEL_ZH, AD_CHANNELS, AD_COST_PER_CLICK
from metrics_pipeline.sources.simulator.rows import Array, Rows

PAID_SHARE = 0.30
"""Share of sessions that come from a campaign on an ordinary day."""
_PROMOTION_EXTRA = 0.08
_CLICKS_PER_SESSION = 1.12


@dataclass(frozen=True)
class Campaign:
    """One campaign: day numbers are relative to the first simulated day and may lie outside of it."""

    id: str
    name: str
    ad_channel: int
    first: int
    last: int
    share: float
    """Share of all sessions it brings on each of its days."""


def make_campaigns(year: Year) -> tuple[Campaign, ...]:
    """All campaigns of the simulated time, by first day: two per ad channel and quarter, one per ad channel and promotion."""
    found: list[Campaign] = []
    end = year.first + timedelta(days=len(year.traffic) - 1)
    begin = date(year.first.year, (year.first.month - 1) // 3 * 3 + 1, 1)
    while begin <= end:
        following = date(begin.year + begin.month // 10, (begin.month + 2) % 12 + 1, 1)
        quarter = f"{begin.year}Q{(begin.month + 2) // 3}"
        first, last = (begin - year.first).days, (following - year.first).days - 1
        for number, channel in enumerate(AD_CHANNELS):
            for code, zh, part in (("BRAND", "品牌", 0.4), ("GOODS", "商品", 0.6)):
                share = PAID_SHARE * float(AD_CHANNEL_SHARE[number]) * part
                found.append(
                    Campaign(
                        f"{quarter}-{code}-{channel}",
                        f"{quarter} {AD_CHANNEL_ZH[number]}{zh}推广",
                        number,
                        first,
                        last,
                        share,
                    )
                )
        begin = following
    for occasion in year.occasions:
        if not occasion.is_promotion or occasion.id.startswith("member_day"):
            continue
        first, last = (occasion.starts_on - year.first).days, (occasion.ends_on - year.first).days
        for number, channel in enumerate(AD_CHANNELS):
            share = _PROMOTION_EXTRA * float(AD_CHANNEL_SHARE[number])
            name = f"{occasion.on.year}{occasion.zh} {AD_CHANNEL_ZH[number]}"
            found.append(Campaign(f"{occasion.id.upper()}-{channel}", name, number, first, last, share))
    return tuple(sorted(found, key=lambda c: (c.first, c.id)))


def campaign_weights(campaigns: tuple[Campaign, ...], first: int, last: int) -> Array:
    """Share of each day's sessions per campaign, shape (days, campaigns); rows sum to less than one."""
    weights = np.zeros((last - first + 1, len(campaigns)))
    for number, campaign in enumerate(campaigns):
        weights[max(campaign.first - first, 0) : max(campaign.last + 1 - first, 0), number] = campaign.share
    return weights


def make_spend(
    rng: np.random.Generator, campaigns: tuple[Campaign, ...], *, first: int, last: int, sessions: Array, sales: Array,
    incidents: tuple[Incident, ...],
) -> Rows:  # fmt: skip
    """The table ad_spend, coded, by day.

    `sessions`, `sales`: sessions and cents of orders that each campaign brought, shape (days, campaigns).
    """
    weights = campaign_weights(campaigns, first, last)
    day, number = np.nonzero(weights)
    channel = np.array([c.ad_channel for c in campaigns])[number]
    n = len(day)
    clicks = sessions[day, number] * _CLICKS_PER_SESSION * rng.lognormal(0, 0.04, n)
    cost = AD_COST_PER_CLICK[channel] * rng.lognormal(0, 0.05, n)
    claimed = sales[day, number] * rng.uniform(0.96, 1.12, n)
    for burn in (i for i in incidents if i.kind == "ad_burn"):
        hit = (channel == burn.members[0]) & (day + first >= burn.first) & (day + first <= burn.last)
        clicks = np.where(hit, clicks * burn.magnitude**0.7, clicks)
        cost = np.where(hit, cost * burn.magnitude**0.3, cost)
    clicks = np.round(clicks).astype(np.int64)
    return {
        "spent_on": (day + first).astype(np.int32),
        "ad_channel": channel.astype(np.int8),
        "campaign_id": number.astype(np.int16),
        "impressions": clicks * rng.integers(32, 55, n),
        "clicks": clicks,
        "spend_amount": np.round(clicks * cost * 100).astype(np.int64),
        "attributed_amount": np.round(claimed).astype(np.int64),
    }


def planned_budget(campaign: Campaign, expected_sessions: Array) -> int:
    """Budget in cents, rounded to a thousand yuan; `expected_sessions`: of the shop per day, shape (days,)."""
    days = expected_sessions[max(campaign.first, 0) : max(campaign.last + 1, 0)]
    usual = float(days.mean()) if len(days) else float(expected_sessions[0])
    length = campaign.last - campaign.first + 1
    spend = usual * length * campaign.share * _CLICKS_PER_SESSION * float(AD_COST_PER_CLICK[campaign.ad_channel])
    return max(round(spend / 1000), 1) * 100_000
