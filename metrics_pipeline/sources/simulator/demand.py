"""Traffic and the wish to buy, one month at a time: sessions, product views and intended order lines.

Sessions are Poisson counts per hour, channel and region around the calendar's expectation, with day-level noise per
channel and region, so that counts are wider than Poisson as they are in a shop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.catalogue import Shelf
from metrics_pipeline.sources.simulator.incidents import Incident
from metrics_pipeline.sources.simulator.market import (
    CHANNEL_BOUNCE,
    CHANNEL_CONVERSION,
    CHANNEL_SHARE,
    CHANNELS,
    REGION_SHARE,
    REGIONS,
)
from metrics_pipeline.sources.simulator.rows import DAY, NONE, Array

SESSIONS_PER_DAY = 9_220
"""Of an ordinary day of the first week at scale 1."""
ORDERS_PER_SESSION = 0.1268
"""Share of visits that become an order on an ordinary day, before sold-out SKUs are taken away."""
_DAY_NOISE = 0.03
_PROMOTION_WAITS, _PROMOTION_LULL = 0.92, 0.93
_LONGEST_VISIT = 2400
_OWN_INTENT, _AD_INTENT = 1.045, 0.87
"""Factors on conversion: visits from ads come with less intent than those who came by themselves."""
_AROUND_DAYS = 2
"""Days before and after a small promotion that feel it."""


@dataclass(frozen=True)
class Visits:
    """The sessions of one month, by time; every array has shape (sessions,)."""

    at: Array
    """UTC seconds."""
    day: Array
    region: Array
    channel: Array
    campaign: Array
    """Campaign number or -1."""
    pages: Array
    is_bounced: Array
    is_converting: Array
    """Wants to order; becomes an order when something of it is in stock."""
    is_tracked: Array
    """False: the visit happened but no session was recorded."""
    is_doubled: Array
    """The session was recorded a second time under a new id."""
    is_bot: Array


@dataclass(frozen=True)
class Intents:
    """What the converting sessions want, one row per line, by order time."""

    visit: Array
    """Position of the session in `Visits`, shape (lines,)."""
    at: Array
    day: Array
    sku: Array
    quantity: Array


@dataclass
class _Expectation:
    """What one month brings before chance: shapes (days, hours, channels, regions) and (days, channels, regions)."""

    people: Array
    bots: Array
    willing: Array
    """Factor on the wish to order."""
    lost: Array
    """Share of sessions that are not recorded."""
    doubled: Array


def _expect(
    rng: np.random.Generator, year: Year, *, first: int, last: int, scale: float, incidents: tuple[Incident, ...]
) -> _Expectation:
    days = last - first + 1
    span = slice(first, last + 1)
    rhythm = np.swapaxes(year.hours[span], 1, 2)[:, :, :, None] * CHANNEL_SHARE[:, None] * REGION_SHARE
    people = SESSIONS_PER_DAY * scale * year.traffic[span, None, None, None] * rhythm
    people = people * rng.lognormal(0, _DAY_NOISE, (days, 1, len(CHANNELS), 1))
    people = people * rng.lognormal(0, _DAY_NOISE, (days, 1, 1, len(REGIONS)))
    places = (days, len(CHANNELS), len(REGIONS))
    found = _Expectation(people, np.zeros_like(people), np.ones(places), np.zeros(places), np.zeros(places, bool))
    for incident in incidents:
        for number in range(max(incident.first - _AROUND_DAYS, first), min(incident.last + _AROUND_DAYS, last) + 1):
            _disturb(found, incident, number, number - first)
    return found


def _disturb(found: _Expectation, incident: Incident, number: int, day: int) -> None:
    """Apply one incident to day number `number`, the month's day `day`."""
    where = _slice_of(incident)
    place, hours = (day, *where), (day, slice(None), *where)
    active = incident.covers(number)
    if incident.kind == "promotion":
        before = number < incident.first
        found.people[hours] *= 1 + incident.magnitude if active else _PROMOTION_WAITS if before else _PROMOTION_LULL
        found.willing[place] *= 1 + incident.magnitude / 4 if active else 1.0
    elif not active:
        return
    elif incident.kind == "sales_drop":
        stays = 1 - incident.magnitude
        found.people[hours] *= stays**0.35
        found.willing[place] *= stays**0.65
    elif incident.kind == "bot_traffic":
        found.bots[hours] += found.people[hours].mean(axis=0) * incident.magnitude
    elif incident.kind == "tracking_loss":
        found.lost[place] = incident.magnitude
    elif incident.kind == "double_tracking":
        found.doubled[place] = True


def make_visits(
    rng: np.random.Generator, year: Year, *, first: int, last: int, first_second: int, scale: float,
    incidents: tuple[Incident, ...], campaign_weights: Array,
) -> Visits:  # fmt: skip
    """The visits of days `first`…`last` (inclusive); `first_second`: start of day number 0 in UTC seconds.

    `campaign_weights`: share of each day's sessions that each campaign brings, shape (days of the month, campaigns).
    """
    expected = _expect(rng, year, first=first, last=last, scale=scale, incidents=incidents)
    people, robots = rng.poisson(expected.people), rng.poisson(expected.bots)
    cells = (people + robots).ravel()
    n = int(cells.sum())
    width = len(CHANNELS) * len(REGIONS)
    cell = np.repeat(np.arange(len(cells), dtype=np.int32), cells)
    is_bot = np.zeros(n, bool)
    if robots.any():
        rank = np.arange(n) - (np.cumsum(cells) - cells)[cell]
        is_bot = rank < robots.ravel()[cell]
    local: Array = (cell // width).astype(np.int64) * 3600 + rng.integers(0, 3600, n, dtype=np.int32)
    order = np.argsort(local, kind="stable")
    local, cell, is_bot = local[order], cell[order], is_bot[order]
    place = cell % width
    channel, region = (place // len(REGIONS)).astype(np.int8), (place % len(REGIONS)).astype(np.int8)
    day = local // DAY
    slot = day * width + place
    chance = rng.random(n, dtype=np.float32)
    is_bounced = (chance < CHANNEL_BOUNCE[channel]) | is_bot
    conversion = year.conversion[first : last + 1, None, None]
    rate = ORDERS_PER_SESSION * conversion * CHANNEL_CONVERSION[:, None] * expected.willing
    campaign = _campaigns(rng, day, campaign_weights)
    intent = np.where(campaign == NONE, _OWN_INTENT, _AD_INTENT)
    is_tracked = np.ones(n, bool)
    if expected.lost.any():
        is_tracked = rng.random(n) >= expected.lost.ravel()[slot]
    return Visits(
        at=first_second + first * DAY + local,
        day=(first + day).astype(np.int32),
        region=region,
        channel=channel,
        campaign=np.where(is_bot, NONE, campaign).astype(np.int16),
        pages=np.where(is_bounced, 1, 2 + rng.geometric(0.24, n)).astype(np.int16),
        is_bounced=is_bounced,
        is_converting=(chance > 1 - rate.ravel()[slot] * intent) & ~is_bounced,
        is_tracked=is_tracked,
        is_doubled=expected.doubled.ravel()[slot],
        is_bot=is_bot,
    )


def _slice_of(incident: Incident) -> tuple[slice | int, slice | int]:
    """(channel, region) index of the incident's slice."""
    everything = slice(None)
    if incident.dimension == "channel":
        return incident.members[0], everything
    if incident.dimension == "region":
        return everything, incident.members[0]
    return everything, everything


def _campaigns(rng: np.random.Generator, day: Array, weights: Array) -> Array:
    """Campaign number of each session or -1; `day` ascending from 0, shape (n,)."""
    found = np.full(len(day), NONE, np.int16)
    chance = rng.random(len(day), dtype=np.float32)
    edges = np.searchsorted(day, np.arange(len(weights) + 1))
    for number, row in enumerate(weights):
        here = slice(edges[number], edges[number + 1])
        position = np.searchsorted(np.cumsum(row), chance[here], side="right")
        found[here] = np.where(position < len(row), position, NONE)
    return found


def make_intents(rng: np.random.Generator, visits: Visits, shelf: Shelf, first_second: int) -> Intents:
    """The lines that converting sessions want to order, sorted by order time, within the shop day of the visit."""
    visit = np.flatnonzero(visits.is_converting)
    n = len(visit)
    until_midnight = first_second + (visits.day[visit].astype(np.int64) + 1) * DAY - visits.at[visit]
    think = np.minimum(rng.lognormal(5.6, 0.8, n), _LONGEST_VISIT)
    think = np.where(think < until_midnight, think, rng.random(n) * (until_midnight - 1))
    at = visits.at[visit] + np.minimum(think.astype(np.int64), until_midnight - 1)
    order = np.argsort(at, kind="stable")
    visit, at = visit[order], at[order]
    lines = rng.choice(np.array([1, 2, 3, 4, 5]), n, p=[0.62, 0.23, 0.09, 0.04, 0.02])
    row = np.repeat(np.arange(n), lines)
    sku = shelf.draw(rng, visits.region[visit[row]])
    quantity = rng.choice(np.array([1, 2, 3, 5]), len(row), p=[0.84, 0.11, 0.035, 0.015])
    return Intents(visit[row], at[row], visits.day[visit[row]], sku, quantity.astype(np.int16))


@dataclass(frozen=True)
class Views:
    """Product pages seen, by time; shape (views,) each."""

    visit: Array
    number: Array
    """Running number within the session."""
    at: Array
    sku: Array


def make_views(rng: np.random.Generator, visits: Visits, intents: Intents, shelf: Shelf) -> Views:
    """About one product page per session; who wants to order has seen the first product of the order."""
    n = len(visits.at)
    chance = rng.random(n, dtype=np.float32)
    seen = np.where(visits.is_bounced, chance < 0.45, 1 + (chance < 0.26) + (chance < 0.10) + (chance < 0.03))
    seen = np.where(visits.is_tracked & ~visits.is_bot, seen, 0)
    visit = np.repeat(np.arange(n, dtype=np.int32), seen)
    begins = np.cumsum(seen) - seen
    number = np.arange(len(visit)) - begins[visit]
    sku = shelf.draw(rng, visits.region[visit])
    if len(intents.visit):
        lead = np.flatnonzero(np.concatenate([[True], intents.visit[1:] != intents.visit[:-1]]))
        wanted = intents.visit[lead]
        recorded = seen[wanted] > 0
        sku[begins[wanted[recorded]]] = intents.sku[lead[recorded]]
    at = visits.at[visit] + number * 45 + rng.integers(0, 40, len(visit), dtype=np.int32)
    order = np.argsort(at, kind="stable")
    return Views(visit[order], number[order], at[order], sku[order])
