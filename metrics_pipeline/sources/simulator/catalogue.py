"""What the shop sells: SKUs with a long tail of popularity, prices, suppliers, and the one warehouse that stocks each.

A shopper half of the time takes what the nearest warehouse has (it is listed first, with next-day delivery), so a
warehouse mostly serves its own regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.sources.simulator.market import (
    CATEGORIES,
    STYLES,
    WAREHOUSE_OF_REGION,
    WAREHOUSE_SHARE,
    WAREHOUSES,
)
from metrics_pipeline.sources.simulator.rows import Array, stream

SKUS_AT_SCALE_ONE = 20_800
_TAIL_EXPONENT = 0.88
_LOCAL_CHOICE = 0.5
_NEVER_LISTED_AGAIN = 0.03
_MONTHLY_DRIFT = 0.16


def sku_count(scale: float) -> int:
    """Number of SKUs: grows with the fourth root above scale 1, shrinks quickly below (small shops have few)."""
    growth: float = scale ** (0.25 if scale >= 1 else 0.75)
    return max(120, round(SKUS_AT_SCALE_ONE * growth))


@dataclass(frozen=True)
class Catalogue:
    """All SKUs, column-wise, shape (skus,) each. Money in cents."""

    category: Array
    warehouse: Array
    weight: Array
    """Long-run share of order lines, sums to one."""
    list_price: Array
    unit_cost: Array
    lead_days: Array
    supplier: Array
    listed_day: Array
    """Day number of listing relative to the first simulated day; negative = before."""
    is_active: Array
    style: Array
    ranking: Array
    """SKUs on sale from the start, best sellers first."""

    @property
    def size(self) -> int:
        return len(self.weight)

    def code(self, sku: int) -> str:
        """Product id as it appears in the tables."""
        return f"SKU{sku:08d}"

    def names(self) -> list[str]:
        """Display names, shape (skus,)."""
        names = []
        for sku, (category, style) in enumerate(zip(self.category.tolist(), self.style.tolist(), strict=True)):
            c = CATEGORIES[category]
            brand, goods, adjective = c.brands[style % 4], c.goods[style // 4 % 6], STYLES[style // 24 % 10]
            names.append(f"{brand}{adjective}{goods} {sku % 97 + 1}号")
        return names


def make_catalogue(seed: int, scale: float) -> Catalogue:
    """The catalogue of one shop, the same for a seed and scale."""
    rng = stream(seed, "catalogue")
    n = sku_count(scale)
    shares = np.array([c.share for c in CATEGORIES])
    category = rng.choice(len(CATEGORIES), n, p=shares)
    warehouse = rng.choice(len(WAREHOUSES), n, p=WAREHOUSE_SHARE)
    rank = rng.permutation(n)
    weight = (rank + 1.5) ** -_TAIL_EXPONENT * rng.lognormal(0, 0.15, n)
    # Best sellers are cheap: the top of the list is milk and tissues, not tablets.
    median = np.array([c.median_price for c in CATEGORIES])[category]
    spread = np.array([c.price_spread for c in CATEGORIES])[category]
    price = median * np.exp(rng.normal(0, 1, n) * spread - 0.25 * (rank < 0.01 * n))
    price = np.maximum(np.round(price) - 0.1, 4.9)
    cost = price * np.clip(np.array([c.cost_ratio for c in CATEGORIES])[category] * rng.normal(1, 0.06, n), 0.25, 0.92)
    supplier = category * 24 + rng.integers(0, 24, n)
    lead = np.clip(rng.gamma(4.0, 2.1, 24 * len(CATEGORIES)), 3, 21).round()[supplier]
    listed = np.where(rng.random(n) < 0.10, rng.integers(20, 380, n), -rng.integers(30, 1200, n))
    listed[rank < 60] = -rng.integers(200, 1200, int((rank < 60).sum()))
    retired = (rng.random(n) < _NEVER_LISTED_AGAIN) & (rank >= 60)
    listed[retired] = -rng.integers(400, 1200, int(retired.sum()))
    weight[retired] = 0.0
    for number, share in enumerate(shares):
        mine = category == number
        if mine.any() and weight[mine].sum() > 0:
            weight[mine] *= share / weight[mine].sum()
    weight /= weight.sum()
    best = np.argsort(-np.where(listed < 0, weight, 0), kind="stable")
    return Catalogue(
        category=category.astype(np.int16),
        warehouse=warehouse.astype(np.int16),
        weight=weight,
        list_price=np.round(price * 100).astype(np.int64),
        unit_cost=np.round(cost * 100).astype(np.int64),
        lead_days=lead.astype(np.int64),
        supplier=supplier.astype(np.int64),
        listed_day=listed.astype(np.int64),
        is_active=~retired,
        style=rng.integers(0, 240, n),
        ranking=best,
    )


@dataclass(frozen=True)
class Shelf:
    """The demand for each SKU in one month and the means to draw from it."""

    weight: Array
    """Share of order lines this month, shape (skus,), sums to one."""
    _order: Array
    _cumulative: Array
    _bounds: Array

    def draw(self, rng: np.random.Generator, region: Array) -> Array:
        """One SKU for each shopper of `region` (coded, shape (n,)); result int32, shape (n,)."""
        n = len(region)
        here = WAREHOUSE_OF_REGION[region]
        local = rng.random(n, dtype=np.float32) < _LOCAL_CHOICE
        low = np.where(local, self._bounds[here], 0.0)
        high = np.where(local, self._bounds[here + 1], self._cumulative[-1])
        at = low + rng.random(n) * (high - low)
        position = np.searchsorted(self._cumulative, at, side="right")
        return np.asarray(self._order[np.minimum(position, len(self._order) - 1)])


def make_shelf(catalogue: Catalogue, season: Array, day: int, seed: int, month: int) -> Shelf:
    """The shelf of the month that starts on day number `day`; `season`: factor per category, shape (categories,)."""
    drift = np.exp(stream(seed, "taste", month).normal(0, _MONTHLY_DRIFT, catalogue.size))
    weight = catalogue.weight * season[catalogue.category] * drift * (catalogue.listed_day < max(day, 1))
    weight = weight / weight.sum()
    order = np.argsort(catalogue.warehouse, kind="stable")
    cumulative = np.cumsum(weight[order])
    ends = np.searchsorted(catalogue.warehouse[order], np.arange(len(WAREHOUSES) + 1))
    bounds = np.concatenate([[0.0], cumulative])[ends]
    return Shelf(weight, order.astype(np.int32), cumulative, bounds)
