"""What the shelves tell: stock, demand freed of sold-out days, deliveries under way and how late suppliers are.

From daily snapshots of stock on hand and on order and from units sold, per SKU:

- received and ordered pieces of each day, from what the two counts did;
- deliveries under way with their age, first in first out;
- how late deliveries come, against the lead time of the product, from every order that can be matched to its receipt;
- the rate of demand: the SKU's share of its category's sales over the recent past. A day that ended sold out is no
  witness of demand unless it sold more than expected: it is left out of numerator and denominator (censored).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.panel import Panel, empty_panel

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STOCK, ON_ORDER, SOLD = "stock_on_hand", "stock_on_order", "units_sold"
SKU_HISTORY_DAYS = 150
DEFAULT_LEAD_DAYS = 7.0
"""Lead time of a product that states none, where no product states one."""
LATE_CHANCE = 1 / 7
"""Share of late deliveries, until the shop's own are known."""
MOST_LATE = 40
"""Days after which a delivery is not waited for any more."""
_PRIOR_DELIVERIES = 30.0
_LATE_FROM, _LATE_STEP = 3, 0.2
_SHARE_HALF_LIFE = 20.0
_LONG_HALF_LIFE = 60.0
_PRIOR_UNITS = 3.0
"""Units' worth of the long-run share in the recent one."""


class Term(NamedTuple):
    """What is agreed for one SKU; None = not stated."""

    category: str | None = None
    supplier: str | None = None
    lead_days: float | None = None
    safety_stock: float | None = None
    pack_size: int | None = None


@dataclass(frozen=True)
class Shelf:
    """SKUs over the same days; matrices have shape (skus, days), NaN = no snapshot."""

    skus: tuple[str, ...]
    first: date
    on_hand: Floats
    on_order: Floats
    sold: Floats
    """0 on days with a snapshot and no sale."""
    lead_days: Floats
    """(skus,), at least 1."""
    terms: tuple[Term, ...]
    demand: Panel
    """Units sold by category, or of the whole shop: the rhythm that SKUs share. Ends on the same day; usually begins earlier."""
    group: Ints
    """(skus,): row of `demand`."""

    @property
    def last(self) -> date:
        return self.first + timedelta(days=self.on_hand.shape[1] - 1)

    def until(self, days: int) -> Shelf:
        """As it was after its first `days` days."""
        cut = self.on_hand.shape[1] - days
        kept = self.demand.values.shape[1] - cut
        return Shelf(
            self.skus, self.first, self.on_hand[:, :days], self.on_order[:, :days], self.sold[:, :days],
            self.lead_days, self.terms, self.demand.until(kept), self.group,
        )  # fmt: skip


def shelf_of(stock: Panel, on_order: Panel, sold: Panel, demand: Panel, terms: Mapping[str, Term]) -> Shelf:
    """Put the panels of `stock_on_hand`, `stock_on_order` and `units_sold` by SKU on the same SKUs and days."""
    days = stock.values.shape[1]
    hand = stock.values
    ordered, units = (_aligned(panel, stock) for panel in (on_order, sold))
    known = np.isfinite(hand)
    ordered = np.where(known, np.nan_to_num(ordered), np.nan)
    units = np.where(known | np.isfinite(units), np.nan_to_num(units), np.nan)
    of_sku = tuple(terms.get(sku, Term()) for sku in stock.members)
    stated = [term.lead_days for term in of_sku if term.lead_days is not None]
    usual = float(np.median(stated)) if stated else DEFAULT_LEAD_DAYS
    lead = np.array([usual if term.lead_days is None else term.lead_days for term in of_sku])
    if len(demand.members) <= 1:
        group = np.zeros(len(of_sku), np.int64)
    else:
        rows = {member: row for row, member in enumerate(demand.members)}
        group = np.array([rows.get(term.category or "unknown", 0) for term in of_sku], np.int64)
    if not demand.members:
        demand = Panel(("all",), stock.first, np.nansum(units, axis=0, keepdims=True) if days else np.zeros((1, 1)))
    if demand.last > stock.last:
        demand = demand.until(demand.values.shape[1] - (demand.last - stock.last).days)
    return Shelf(
        stock.members, stock.first, hand, ordered, units, np.maximum(np.round(lead), 1.0), of_sku, demand, group
    )


def _aligned(panel: Panel, like: Panel) -> Floats:
    """Values of another panel on the members and days of this one; NaN where it has none."""
    found = np.full(like.values.shape, np.nan)
    rows = {member: row for row, member in enumerate(panel.members)}
    pairs = [(row, rows[member]) for row, member in enumerate(like.members) if member in rows]
    if not pairs:
        return found
    offset = (panel.first - like.first).days
    start, end = max(offset, 0), min(offset + panel.values.shape[1], like.values.shape[1])
    if start < end:
        mine, theirs = (np.array(side) for side in zip(*pairs, strict=True))
        found[mine, start:end] = panel.values[theirs, start - offset : end - offset]
    return found


def terms_of(table: pa.Table | None) -> dict[str, Term]:
    """SKU → what is agreed, from the published table of products."""
    if table is None:
        return {}
    return {
        row["sku"]: Term(row["category"], row["supplier"], row["lead_days"], row["safety_stock"], row["pack_size"])
        for row in table.to_pylist()
    }


@dataclass(frozen=True)
class Flows:
    """Pieces of each day, (skus, days)."""

    received: Floats
    ordered: Floats
    use: float
    """Pieces that leave the shelf per unit sold: orders that were never paid take from it, too."""


def flows(shelf: Shelf) -> Flows:
    """What came in and what was ordered, from what the counts did from one day to the next."""
    hand, ordered, sold = shelf.on_hand, np.nan_to_num(shelf.on_order), np.nan_to_num(shelf.sold)
    step = np.nan_to_num(np.diff(hand, axis=1, prepend=hand[:, :1]))
    order_step = np.diff(ordered, axis=1, prepend=0.0)
    calm = (step <= 0) & (order_step >= 0) & (hand > 0) & (sold > 0)
    use = float(np.clip(-step[calm].sum() / max(sold[calm].sum(), 1.0), 0.8, 1.5)) if calm.any() else 1.0
    came = (step > 0) | (order_step < 0)
    received = np.where(came, np.maximum(np.maximum(step + use * sold, -order_step), 0.0), 0.0)
    received[:, 0] = 0.0
    placed = np.maximum(order_step + received, 0.0)
    placed[:, 0] = 0.0
    return Flows(received, np.where(placed >= 1, placed, 0.0), use)


@dataclass(frozen=True)
class Lateness:
    """How many days after its lead time a delivery comes: chance of each delay from 0 to `MOST_LATE`."""

    chance: Floats
    matched: int
    """Deliveries it was learned from."""

    @property
    def on_time(self) -> float:
        return float(self.chance[0])

    def arrival(self, overdue: Ints, draws: Floats) -> Ints:
        """Days until a delivery comes that is `overdue` days past its lead time (below 0: not yet due), from uniform draws.

        Shapes broadcast. 1 = tomorrow.
        """
        cumulative = np.cumsum(self.chance)
        gone = np.where(overdue >= 0, np.concatenate([[0.0], cumulative])[np.clip(overdue + 1, 0, MOST_LATE + 1)], 0.0)
        left = gone + draws * (1 - gone)
        delay = np.searchsorted(cumulative, np.minimum(left, cumulative[-1] - 1e-12))
        return np.asarray(np.maximum(delay - overdue, 1), np.int64)


def lateness(shelf: Shelf, moved: Flows) -> Lateness:
    """Match receipts to orders, first in first out, and pool the delays; a prior of 30 deliveries stands in for few."""
    prior = np.zeros(MOST_LATE + 1)
    prior[0] = 1 - LATE_CHANCE
    tail = (1 - _LATE_STEP) ** np.arange(MOST_LATE - _LATE_FROM)
    prior[_LATE_FROM + 1 :] = LATE_CHANCE * tail / tail.sum()
    days = shelf.on_hand.shape[1]
    opening = np.nan_to_num(shelf.on_order[:, 0])
    placed = np.cumsum(moved.ordered, axis=1)
    came = np.cumsum(moved.received, axis=1) - opening[:, None]
    sku, day = np.nonzero((moved.received > 0) & (came > 0.5))
    counts = np.zeros(MOST_LATE + 1)
    if len(sku):
        apart = float(placed[:, -1].max() + came.max() + 10) * 2
        flat = (placed + np.arange(len(placed))[:, None] * apart).ravel()
        wanted = np.minimum(came[sku, day], placed[sku, -1]) - 0.5 + sku * apart
        order_day = np.searchsorted(flat, wanted) - sku * days
        delay = day - order_day - shelf.lead_days[sku]
        fits = (order_day > 0) & (order_day < day) & (delay >= -2) & (delay <= MOST_LATE)
        counts = np.bincount(np.maximum(delay[fits], 0).astype(np.int64), minlength=MOST_LATE + 1)[
            : MOST_LATE + 1
        ].astype(float)
    chance = counts + _PRIOR_DELIVERIES * prior
    chance[-1] += 1e-3
    return Lateness(chance / chance.sum(), int(counts.sum()))


def under_way(shelf: Shelf, moved: Flows, most: int = 4) -> tuple[Floats, Ints]:
    """Deliveries that have not come by the last day: pieces and days since the order, each (skus, most)."""
    days = shelf.on_hand.shape[1]
    open_now = np.nan_to_num(shelf.on_order[:, -1])
    back = moved.ordered[:, ::-1]
    later = np.cumsum(back, axis=1) - back
    part = np.clip(open_now[:, None] - later, 0.0, back)
    rest = np.maximum(open_now - part.sum(axis=1), 0.0)
    part = np.concatenate([part, rest[:, None]], axis=1)
    top = np.argsort(-part, axis=1, kind="stable")[:, :most]
    pieces = np.take_along_axis(part, top, axis=1)
    # what was ordered before the history began is thought to be due now: its age is not known
    age = np.where(top == days, np.minimum(shelf.lead_days[:, None], days), top)
    return pieces, np.asarray(age, np.int64)


@dataclass(frozen=True)
class Demand:
    """The demand of each SKU as a share of its category's; arrays (skus,)."""

    share: Floats
    weight: Floats
    """Units behind the share: how sure it is."""
    drift: float
    """Standard deviation (log) of how shares move within two weeks, over all SKUs."""
    dispersion: float
    """Variance of a day beyond Poisson, as a factor on the squared mean."""


def demand_of(shelf: Shelf, days: int | None = None) -> Demand:
    """Shares of the recent past, censored days left out, from the first `days` days (default: all)."""
    count = shelf.on_hand.shape[1] if days is None else days
    share, weight = _shares(shelf, count)
    drift, dispersion = _spread(shelf, count)
    return Demand(share, weight, drift, dispersion)


def _shares(shelf: Shelf, days: int) -> tuple[Floats, Floats]:
    sold, witness, of_group = _witnesses(shelf, days)
    age = np.arange(days)[::-1]
    found = []
    for half_life in (_LONG_HALF_LIFE, _SHARE_HALF_LIFE):
        weight = 0.5 ** (age / half_life) * witness
        found.append(((weight * sold).sum(axis=1), (weight * of_group).sum(axis=1)))
    (long_sold, long_all), (sold_lately, all_lately) = found
    usual = (long_sold + 0.02) / np.maximum(long_all + 1.0, 1.0)
    prior = _PRIOR_UNITS / np.maximum(usual, 1e-9)
    return (sold_lately + _PRIOR_UNITS) / (all_lately + prior), sold_lately + _PRIOR_UNITS


def _witnesses(shelf: Shelf, days: int) -> tuple[Floats, Floats, Floats]:
    """Units sold, whether the day tells the demand (1 or 0), and the category's sales; each (skus, days)."""
    sold, hand = np.nan_to_num(shelf.sold[:, :days]), shelf.on_hand[:, :days]
    ends = shelf.demand.values.shape[1] - (shelf.on_hand.shape[1] - days)
    series = np.nan_to_num(shelf.demand.values[:, max(ends - days, 0) : ends])
    if series.shape[1] < days:
        series = np.concatenate([np.zeros((len(series), days - series.shape[1])), series], axis=1)
    of_group = series[shelf.group]
    usual = sold.sum(axis=1, keepdims=True) / np.maximum(of_group.sum(axis=1, keepdims=True), 1.0)
    is_out = ~(hand > 0)
    tells = (~is_out | (sold > usual * of_group)) & np.isfinite(hand)
    return sold, tells.astype(float), of_group


def _spread(shelf: Shelf, days: int, ahead: int = 14) -> tuple[float, float]:
    """How shares of `ahead` days ago have held since, beyond the noise of counts."""
    if days < 3 * ahead:
        return 0.2, 0.15
    share, weight = _shares(shelf, days - ahead)
    sold, witness, of_group = _witnesses(shelf, days)
    recent = slice(days - ahead, days)
    expected_daily = share[:, None] * of_group[:, recent] * witness[:, recent]
    expected, actual = expected_daily.sum(axis=1), (sold * witness)[:, recent].sum(axis=1)
    thick = (expected >= 10) & (weight >= 10)
    if thick.sum() < 20:
        return 0.2, 0.15
    gap = np.log((actual[thick] + 0.5) / (expected[thick] + 0.5))
    noise = np.median(1 / expected[thick] + 1 / weight[thick])
    drift = float(np.sqrt(np.clip((1.4826 * np.median(np.abs(gap - np.median(gap)))) ** 2 - noise, 0.05**2, 0.5**2)))
    scaled = expected_daily[thick] * (actual[thick] / expected[thick])[:, None]
    rest = (sold[thick][:, recent] - scaled) ** 2 * witness[thick][:, recent]
    dispersion = float((rest.sum() - scaled.sum()) / max((scaled**2).sum(), 1.0))
    return drift, float(np.clip(dispersion, 0.02, 0.6))


def empty_shelf(until: datetime) -> Shelf:
    """No SKU at all."""
    panel = empty_panel(until.date())
    return shelf_of(panel, panel, panel, panel, {})


def select(shelf: Shelf, skus: Sequence[str]) -> Shelf:
    """Some SKUs, in this order."""
    rows = {sku: row for row, sku in enumerate(shelf.skus)}
    at = [rows[sku] for sku in skus]
    return Shelf(
        tuple(skus), shelf.first, shelf.on_hand[at], shelf.on_order[at], shelf.sold[at], shelf.lead_days[at],
        tuple(shelf.terms[row] for row in at), shelf.demand, shelf.group[at],
    )  # fmt: skip
