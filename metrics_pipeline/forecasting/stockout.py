"""The chance that a SKU is sold out, day by day: demand, deliveries and their lateness drawn many times.

Each draw is one course of the coming days for all SKUs: the sales of the categories (a path of the forecast, promotions
included, with the overdispersion of days, shared by all SKUs of the category), the SKU's share of them (uncertain, and
drifting), counts around it, and for every delivery under way the day on which it comes, given how old its order is and
how late this shop's suppliers are. A SKU counts as sold out on a day that ends with less than one piece.

Given the course, pieces leave a shelf as a Poisson process, and a shelf is empty when its last piece has left. The time of
the n-th event of a Poisson process of rate one is Gamma(n) distributed, and a delivery of m pieces puts it off by another
Gamma(m) (Kingman, Poisson Processes, 1993, section 4.1): a draw or two say on which day the course gets there, where
following the shelf takes one for every day.

No order is assumed that has not been placed: the chance says what happens if nobody acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.ets import forecast
from metrics_pipeline.forecasting.supply import Demand, Shelf, demand_of, flows, lateness, select, under_way

Floats = NDArray[np.float64]

MODEL = "stock_draws_2"
DRAWS = 200
HORIZON = 21
REVIEW_DAYS = 7
"""Days between two orders of a SKU."""
_MIN_DAYS = 14
"""Days of snapshots without which nothing is said."""
_BLOCK = 1024
"""Shelves that are drawn at a time: what they take stays in the cache."""


@dataclass(frozen=True)
class Risk:
    """What may become of each SKU after the day `origin`; arrays of (skus,) or (skus, horizon)."""

    skus: tuple[str, ...]
    origin: date
    on_hand: Floats
    on_order: Floats
    lead_days: Floats
    chance: Floats
    """(skus, horizon): sold out at the end of some day up to this one."""
    expected: Floats
    """(skus, horizon): mean demand of each day."""
    cover_demand: NDArray[np.float32]
    """(skus, draws): demand until the delivery after one of tomorrow could come; what a replenishment is made of."""
    on_time: float
    """Share of deliveries that come within their lead time."""

    @property
    def horizon(self) -> int:
        return int(self.chance.shape[1])

    def within(self, days: int) -> Floats:
        """Chance to be sold out within `days` days; 0 = within the SKU's own lead time."""
        if days:
            return np.asarray(self.chance[:, min(days, self.horizon) - 1])
        at = np.clip(self.lead_days, 1, self.horizon).astype(np.int64) - 1
        return np.asarray(self.chance[np.arange(len(at)), at])

    def sold_out_on(self, probability: float = 0.5) -> list[date | None]:
        """First day on which the chance reaches `probability`; None = not within the horizon."""
        reached = self.chance >= probability
        return [self.origin + timedelta(days=int(one.argmax()) + 1) if one.any() else None for one in reached]


def risk(
    shelf: Shelf,
    promotions: Sequence[PromotionDay] = (),
    *,
    horizon: int = HORIZON,
    draws: int = DRAWS,
    seed: int = 0,
    skus: Sequence[str] | None = None,
) -> Risk:
    """The chances after the last day of `shelf`, of all its SKUs or of some; suppliers are known from all of them."""
    everything, shelf = shelf, shelf if skus is None else select(shelf, skus)
    count = len(shelf.skus)
    if not count or shelf.on_hand.shape[1] < _MIN_DAYS:
        nothing = np.full((count, horizon), np.nan)
        last = np.nan_to_num(shelf.on_hand[:, -1]), np.nan_to_num(shelf.on_order[:, -1])
        return Risk(shelf.skus, shelf.last, *last, shelf.lead_days, nothing, nothing,
                    np.zeros((count, draws), np.float32), 1.0)  # fmt: skip
    rng = np.random.default_rng(seed)
    moved = flows(everything)
    late = lateness(everything, moved)
    moved = moved if skus is None else flows(shelf)
    pieces, age = under_way(shelf, moved)
    overdue = age - shelf.lead_days[:, None].astype(np.int64)
    demand = demand_of(shelf)
    paths = _paths(shelf, promotions, rng, horizon=horizon, draws=draws)
    courses = (paths * _noise_of_days(demand.dispersion, paths.shape, rng)).astype(np.float32)
    rate = _rates(demand, moved.use, draws, rng)
    stock = np.nan_to_num(shelf.on_hand[:, -1])
    cover = np.clip(shelf.lead_days + REVIEW_DAYS, 1, horizon).astype(np.int64)
    deliveries = np.count_nonzero(pieces, axis=1)  # the largest come first
    chance, expected = np.empty((count, horizon)), np.empty((count, horizon))
    cover_demand = np.empty((count, draws), np.float32)
    for number, course in enumerate(courses):
        of_group = np.flatnonzero(shelf.group == number)
        expected[of_group] = rate[of_group] @ paths[number] / draws
        so_far = np.cumsum(course, axis=1)
        cover_demand[of_group] = rng.poisson(rate[of_group] * so_far[:, cover[of_group] - 1].T)
        in_turn = of_group[np.argsort(deliveries[of_group], kind="stable")]
        for start in range(0, len(in_turn), _BLOCK):
            block = in_turn[start : start + _BLOCK]
            most = int(deliveries[block[-1]])
            comes = late.arrival(overdue[block, None, :most], rng.random((len(block), draws, most)))
            chance[block] = _sold_out(stock[block], rate[block], so_far, pieces[block, :most], comes, rng=rng)
    known = np.isfinite(shelf.on_hand[:, -1])
    return Risk(
        shelf.skus, shelf.last, stock, np.nan_to_num(shelf.on_order[:, -1]), shelf.lead_days,
        np.where(known[:, None], chance, np.nan), expected, cover_demand, late.on_time,
    )  # fmt: skip


def _paths(
    shelf: Shelf, promotions: Sequence[PromotionDay], rng: np.random.Generator, *, horizon: int, draws: int
) -> Floats:
    """Courses of the sales of each category, (groups, draws, horizon)."""
    panel = shelf.demand
    calendar = Days.of(promotions, panel.first, panel.values.shape[1] + horizon)
    paths = forecast(panel.values, calendar, horizon).paths(count=draws, seed=int(rng.integers(1 << 31)))
    usual = np.nanmean(panel.values[:, -28:], axis=1)[:, None, None]
    return np.nan_to_num(np.where(np.isfinite(paths), paths, usual))


def _noise_of_days(dispersion: float, shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """How days differ beyond Poisson: gamma of mean 1 and this variance, over the draws exactly 1 on average."""
    found = rng.gamma(1 / dispersion, dispersion, shape)
    return np.asarray(found / found.mean(axis=1, keepdims=True))


def _rates(demand: Demand, use: float, draws: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The SKU's share of its category's course in each draw, in pieces that leave the shelf: (skus, draws)."""
    shape = (len(demand.share), draws)
    found = rng.standard_gamma(np.broadcast_to(demand.weight[:, None], shape), dtype=np.float32)
    found *= np.exp(rng.standard_normal(shape, np.float32) * np.float32(demand.drift))
    found *= (demand.share * use / demand.weight * np.exp(-(demand.drift**2) / 2))[:, None].astype(np.float32)
    return np.asarray(found, np.float32)


def _sold_out(
    stock: Floats,
    rate: NDArray[np.float32],
    so_far: NDArray[np.float32],
    pieces: Floats,
    comes: NDArray[np.int64],
    *,
    rng: np.random.Generator,
) -> Floats:
    """Chance that each shelf was sold out at the end of some day up to each one, (skus, horizon).

    rate: (skus, draws). so_far: (draws, horizon), the course added up. pieces: (skus, deliveries), comes: the days on which
    they do, (skus, draws, deliveries).
    """
    draws = rate.shape[1]
    pace = np.maximum(rate, np.float32(1e-9))

    def leaves(shelf: Floats) -> NDArray[np.float32]:
        """How far the course has to get until so many more pieces have left."""
        count = np.broadcast_to(shelf[:, None], rate.shape)
        return np.asarray(rng.standard_gamma(count, dtype=np.float32) / pace)

    last = leaves(np.floor(stock))
    later = [(comes[:, :, number].astype(np.int8), leaves(of_one)) for number, of_one in enumerate(pieces.T)]
    is_out, chance = np.zeros(rate.shape, bool), np.empty((len(stock), so_far.shape[1]))
    for step, reached in enumerate(so_far.T):
        for day, more in later:
            last += more * (day == step + 1)
        is_out |= reached >= last
        chance[:, step] = np.count_nonzero(is_out, axis=1) / draws
    return chance
