"""Shelves with a known future: two kinds, so that no figure rests on one way of making them up.

`simulated`: the project's own simulator (its files, read as the pipeline would): reorder points with a plan that lags
behind taste, one delivery in seven late.
`invented`: not shaped like the model: SKU levels wander as an AR(1), some go viral for days, promotions lift each SKU
differently, lead times are log-normal around what is agreed with a late tail, deliveries come in two parts, orders are
placed on some weekdays only, and counts of stock are corrected now and then.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.forecasting.panel import Panel, panel_of
from metrics_pipeline.forecasting.supply import Shelf, Term, shelf_of

LAST = date(2025, 12, 20)
"""The judged days include 11-11, 12-12 and the dips after them."""
LATE = 1 / 7


@dataclass(frozen=True)
class Shelves:
    """What is seen day by day; the truth is what the later days show."""

    shelf: Shelf
    promotions: tuple[PromotionDay, ...]


def invented(seed: int, skus: int = 1000, days: int = 420) -> Shelves:
    """A shop of SKUs that sell 1 to 60 pieces a day."""
    rng = np.random.default_rng(seed)
    first = LAST - timedelta(days=days - 1)
    promotions = _sales(first, days + 30)
    kind = {day.date: day for day in promotions}
    dates = [first + timedelta(days=number) for number in range(days)]
    shop = np.array([_lift(kind.get(day)) for day in dates])
    shop = 1 + (shop - 1) * rng.lognormal(0, 0.15, days)
    category = rng.integers(0, 8, skus)
    season = np.cumsum(rng.normal(0, 0.012, (8, days)), axis=1)[category]
    level = np.zeros((skus, days))
    now = np.zeros(skus)
    for day in range(days):
        now = 0.985 * now + rng.normal(0, 0.05, skus)
        level[:, day] = now
    viral = np.zeros((skus, days))
    for sku, start in zip(rng.integers(0, skus, skus // 4), rng.integers(0, days, skus // 4), strict=True):
        viral[sku, start : start + int(rng.integers(3, 9))] = rng.uniform(0.4, 1.1)
    week = np.array([0.95, 0.92, 0.93, 0.97, 1.02, 1.12, 1.09])[[day.weekday() for day in dates]]
    base = np.exp(rng.normal(1.3, 1.0, skus)).clip(0.6, 60)
    own = rng.lognormal(0, 0.35, (skus, 1))
    mean = base[:, None] * np.exp(season + level + viral) * week * (1 + (shop - 1) * own)
    wanted = rng.poisson(mean * rng.gamma(5, 1 / 5, mean.shape))
    lead = np.clip(rng.gamma(4.0, 2.1, skus), 3, 21).round()
    seen = _supply(rng, wanted, base, lead, shop)
    names = tuple(f"S{number:05d}" for number in range(skus))
    terms = {name: Term(f"c{category[row]}", None, float(lead[row]), None, None) for row, name in enumerate(names)}
    hand, ordered, sold = (Panel(names, first, one) for one in seen)
    demand = np.stack([sold.values[category == number].sum(axis=0) for number in range(8)])
    return Shelves(
        shelf_of(hand, ordered, sold, Panel(tuple(f"c{n}" for n in range(8)), first, demand), terms), promotions
    )


def _supply(
    rng: np.random.Generator, wanted: np.ndarray, base: np.ndarray, lead: np.ndarray, shop: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buyers who look at the last four weeks, know of promotions about half, and order on Mondays, Wednesdays and Fridays."""
    skus, days = wanted.shape
    cover = rng.uniform(1.15, 1.6, skus)
    hand = np.ceil(base * (lead + 8))
    ordered = np.zeros(skus)
    coming = np.zeros((days + 90, skus))
    on_hand, on_order, sold = (np.zeros((skus, days)) for _ in range(3))
    ahead = np.concatenate([np.cumsum(shop), np.cumsum(np.ones(60)) + shop.sum()])
    for day in range(days):
        hand += coming[day]
        ordered -= coming[day]
        sold[:, day] = np.minimum(wanted[:, day], hand)
        hand = hand - sold[:, day]
        corrected = rng.random(skus) < 0.002
        hand = np.where(corrected, np.floor(hand * rng.uniform(0.6, 1.05, skus)), hand)
        if day % 7 in (0, 2, 4):
            recent = sold[:, max(day - 27, 0) : day + 1].mean(axis=1) if day >= 7 else base
            soon = (ahead[np.minimum(day + lead.astype(int), len(ahead) - 1)] - ahead[day]) / lead
            rate = recent * (0.5 + 0.5 * soon)
            short = hand + ordered < rate * (lead + 1.5) * cover + 2.0 * np.sqrt(rate * lead)
            for sku in np.flatnonzero(short):
                size = np.ceil(max(rate[sku] * (lead[sku] + 8) * cover[sku] - hand[sku] - ordered[sku], 1))
                late = rng.geometric(0.17) + 2 if rng.random() < LATE else 0
                wait = int(np.clip(round(lead[sku] * rng.lognormal(0, 0.06)) + late, 1, 60))
                part = size if rng.random() < 0.85 else np.ceil(size * 0.6)
                coming[day + wait, sku] += part
                coming[min(day + wait + 3, days + 89), sku] += size - part
                ordered[sku] += size
        on_hand[:, day], on_order[:, day] = hand, ordered
    return on_hand, on_order, sold


def simulated(seed: int, scale: float = 0.6, days: int = 420) -> Shelves:
    """A shop of the simulator, from the files that the pipeline loads."""
    from metrics_pipeline.rules.seeds import read_seeds
    from metrics_pipeline.settings import PROJECT_ROOT
    from metrics_pipeline.sources.simulator import simulate

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        simulate(source, seed=seed, scale=scale, days=days, until=LAST)
        return Shelves(_read(source), read_seeds(PROJECT_ROOT / "dbt_project", "Asia/Shanghai").promotions)


def _read(source: Path) -> Shelf:
    def files(table: str) -> str:
        return f"read_parquet('{source}/{table}/*.parquet', union_by_name = true, hive_partitioning = false)"

    with duckdb.connect() as con:
        stock = con.execute(
            f"SELECT product_id, snapshot_on, sum(on_hand), sum(on_order) FROM {files('inventory_snapshots')} GROUP BY ALL"
        ).fetchnumpy()
        sold = con.execute(
            f"""SELECT i.product_id, CAST(i.ordered_at + INTERVAL 8 HOUR AS DATE) AS day, sum(i.quantity)
            FROM {files("order_items")} AS i
            WHERE i.order_id IN (SELECT order_id FROM {files("payments")} WHERE is_successful) GROUP BY ALL"""
        ).fetchnumpy()
        products = con.execute(
            f"SELECT product_id, category, supplier, lead_time_days FROM {files('products')}"
        ).fetchall()
    until = LAST + timedelta(days=1)
    columns = list(stock)
    hand, ordered = (panel_of(stock[columns[0]], stock[columns[1]], stock[columns[at]], until=until) for at in (2, 3))
    names = list(sold)
    units = panel_of(sold[names[0]], sold[names[1]], sold[names[2]], until=until)
    busy = {
        name
        for name, row in zip(units.members, np.nan_to_num(units.values[:, -200:]).sum(axis=1), strict=True)
        if row >= 100
    }
    hand, ordered = (
        hand.of([m for m in hand.members if m in busy]),
        ordered.of([m for m in ordered.members if m in busy]),
    )
    terms = {row[0]: Term(row[1], row[2], float(row[3]), None, None) for row in products}
    categories = sorted({row[1] for row in products})
    of_category = np.stack(
        [np.nansum(units.values[[terms[m].category == name for m in units.members]], axis=0) for name in categories]
    )
    return shelf_of(hand, ordered, units, Panel(tuple(categories), units.first, of_category), terms)


def _sales(first: date, count: int) -> tuple[PromotionDay, ...]:
    found = []
    for number in range(count):
        day = first + timedelta(days=number)
        for event, month, on, before, after in (
            ("double_11", 11, 11, 3, 6),
            ("618", 6, 18, 3, 5),
            ("double_12", 12, 12, 1, 3),
        ):
            position = (day - date(day.year, month, on)).days
            if -before <= position <= after:
                kind = "main" if position == 0 else "presale" if position < 0 else "after"
                found.append(PromotionDay(day, event, event, event, position, kind, "global"))
    return tuple(found)


def _lift(day: PromotionDay | None) -> float:
    if day is None:
        return 1.0
    strong = {"double_11": 1.0, "618": 0.8, "double_12": 0.5}[day.event]
    return {"main": 1 + 1.8 * strong, "presale": 1 + 0.3 * strong, "after": 1 - 0.25 * strong}[day.kind]
