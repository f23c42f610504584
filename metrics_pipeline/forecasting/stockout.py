"""The chance that a SKU is sold out, day by day: demand, deliveries and their lateness drawn many times.

Each draw is one course of the coming days for all SKUs: the sales of the categories (a path of the forecast, promotions
included, shared by all SKUs of the category), the SKU's share of them (uncertain, and drifting), counts around it with
their overdispersion, and for every delivery under way the day on which it comes, given how old its order is and how
late this shop's suppliers are. A SKU counts as sold out on a day that ends with less than one piece.

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
from metrics_pipeline.forecasting.supply import Shelf, demand_of, flows, lateness, select, under_way

Floats = NDArray[np.float64]

MODEL = "stock_draws_1"
DRAWS = 200
HORIZON = 21
_MIN_DAYS = 14
"""Days of snapshots without which nothing is said."""


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
    lost: Floats
    """(skus,): mean units that cannot be sold within the horizon."""
    demand: Floats
    """(skus, draws, horizon): demand, added up day by day; what a replenishment is made of."""
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
        return Risk(shelf.skus, shelf.last, *last, shelf.lead_days, nothing, nothing, nothing[:, 0],
                    np.zeros((count, draws, horizon)), 1.0)  # fmt: skip
    rng = np.random.default_rng(seed)
    moved = flows(everything)
    late = lateness(everything, moved)
    moved = moved if skus is None else flows(shelf)
    pieces, age = under_way(shelf, moved)
    wanted = _demand(shelf, promotions, moved.use, rng, horizon=horizon, draws=draws)
    overdue = age - shelf.lead_days[:, None].astype(np.int64)
    luck = rng.random((count, draws, pieces.shape[1]))
    coming = np.flatnonzero(pieces.any(axis=1))  # most shelves wait for nothing
    comes = late.arrival(overdue[coming, None, :], luck[coming])
    known = np.isfinite(shelf.on_hand[:, -1])
    stock = np.repeat(np.nan_to_num(shelf.on_hand[:, -1])[:, None], draws, axis=1)
    is_out = np.zeros((count, draws), bool)
    chance = np.empty((count, horizon))
    lost = np.zeros(count)
    for step in range(horizon):
        stock[coming] += (pieces[coming, None, :] * (comes == step + 1)).sum(axis=2)
        today = wanted[:, :, step]
        lost += np.maximum(today - stock, 0.0).mean(axis=1)
        stock = np.maximum(stock - today, 0.0)
        is_out |= stock < 1
        chance[:, step] = is_out.mean(axis=1)
    return Risk(
        shelf.skus, shelf.last, np.nan_to_num(shelf.on_hand[:, -1]), np.nan_to_num(shelf.on_order[:, -1]),
        shelf.lead_days, np.where(known[:, None], chance, np.nan), wanted.mean(axis=1), lost,
        np.cumsum(wanted, axis=2), late.on_time,
    )  # fmt: skip


def _demand(
    shelf: Shelf, promotions: Sequence[PromotionDay], use: float, rng: np.random.Generator, *, horizon: int, draws: int
) -> NDArray[np.float32]:
    """Pieces that would leave the shelf, (skus, draws, horizon)."""
    panel = shelf.demand
    calendar = Days.of(promotions, panel.first, panel.values.shape[1] + horizon)
    made = forecast(panel.values, calendar, horizon)
    paths = made.paths(count=draws, seed=int(rng.integers(1 << 31)))
    paths = np.where(np.isfinite(paths), paths, np.nanmean(panel.values[:, -28:], axis=1)[:, None, None])
    paths = np.nan_to_num(paths)
    demand = demand_of(shelf)
    certain = rng.gamma(demand.weight[:, None], 1 / demand.weight[:, None], (len(shelf.skus), draws))
    moving = np.exp(rng.standard_normal((len(shelf.skus), draws)) * demand.drift - demand.drift**2 / 2)
    rate = (demand.share[:, None] * certain * moving * use).astype(np.float32)
    found = np.empty((len(shelf.skus), draws, horizon), np.float32)
    shape = 1 / demand.dispersion
    for step in range(horizon):
        mean = rate * paths[shelf.group, :, step]
        found[:, :, step] = rng.poisson(mean * rng.gamma(shape, 1 / shape, mean.shape))
    return found
