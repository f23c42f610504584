"""Stock of each SKU: sales take from it, suppliers fill it up, and what is sold out cannot be sold.

Reorder point and order size follow the expected demand over the lead time, promotions included; one delivery in seven
is late, and taste drifts faster than the plan: that is where ordinary stock-outs come from. Those of best sellers are
noted, so that they can be labelled like the planned ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.catalogue import Catalogue, Shelf
from metrics_pipeline.sources.simulator.demand import ORDERS_PER_SESSION, SESSIONS_PER_DAY, Intents
from metrics_pipeline.sources.simulator.incidents import Incident
from metrics_pipeline.sources.simulator.rows import Array, Rows, concatenate, stream

_UNITS_PER_ORDER = 1.61 * 1.24
_REVIEW_DAYS = 9
_HORIZON = 64
"""Longest wait for a delivery, days; the ring of outstanding deliveries has this length."""
_LATE_CHANCE = 1 / 7
BEST_SELLER_UNITS = 20
"""Units a day, on average of the last four weeks, from which a SKU that is sold out is worth a label."""
_SALES_DAYS = 28
_WITHHELD_DAYS = 10
"""Days before a planned stock-out from which the supplier no longer delivers."""


@dataclass(frozen=True)
class Filled:
    """Which intended lines are sold (mask, shape (lines,)) and the stock at the end of each day, as coded rows."""

    is_sold: Array
    snapshots: Rows


@dataclass(frozen=True)
class SoldOut:
    """A best seller without stock at the end of each day `first`…`last` (day numbers), though nobody planned it."""

    sku: int
    first: int
    last: int


class StockRoom:
    """Stock on hand and on order of every SKU, carried from day to day."""

    def __init__(
        self, seed: int, scale: float, year: Year, catalogue: Catalogue, incidents: tuple[Incident, ...]
    ) -> None:
        self._seed = seed
        self._year = year
        self._catalogue = catalogue
        self._incidents = [i for i in incidents if i.kind == "stock_out"]
        self._ahead = np.concatenate([[0.0], np.cumsum(year.demand)])
        self._units = SESSIONS_PER_DAY * scale * ORDERS_PER_SESSION * _UNITS_PER_ORDER
        self._on_order = np.zeros(catalogue.size, np.int64)
        self._arriving = np.zeros((_HORIZON, catalogue.size), np.int32)
        rate = catalogue.weight * self._units
        self.safety_stock = np.ceil(1.1 * np.sqrt(rate * catalogue.lead_days) + 0.9 * rate + 1).astype(np.int64)
        rng = stream(seed, "opening stock")
        lead = catalogue.lead_days + _REVIEW_DAYS * rng.random(catalogue.size)
        self._on_hand = np.ceil(self.safety_stock + rate * lead * 1.1 + rng.poisson(1.0, catalogue.size)).astype(
            np.int64
        )
        # Remnants of what is no longer bought.
        self._on_hand = np.where(catalogue.is_active, self._on_hand, rng.poisson(3.0, catalogue.size))
        self._planned = catalogue.weight.copy()
        self._sold = np.zeros((_SALES_DAYS, catalogue.size), np.int32)
        self._sold_lately = np.zeros(catalogue.size, np.int64)
        self._empty: dict[int, list[int]] = {}
        """SKU → days, ascending, without stock at their end: best sellers, outside planned incidents."""

    def fill(self, first: int, last: int, month: int, intents: Intents, shelf: Shelf) -> Filled:
        """Sell, receive and reorder through days `first`…`last` (inclusive)."""
        skus = self._catalogue.size
        key = intents.day.astype(np.int64) * skus + intents.sku
        order = np.argsort(key, kind="stable")
        sorted_key, quantity = key[order], intents.quantity[order].astype(np.int64)
        running = np.cumsum(quantity)
        begins = np.flatnonzero(np.concatenate([[True], sorted_key[1:] != sorted_key[:-1]])) if len(order) else order
        before = running[begins] - quantity[begins]
        wanted = running - np.repeat(before, np.diff(np.concatenate([begins, [len(order)]])))
        sku = intents.sku[order]
        edges = np.searchsorted(intents.day[order], np.arange(first, last + 2))
        is_sold = np.zeros(len(order), bool)
        rng = stream(self._seed, "suppliers", month)
        days: list[Rows] = []
        for day in range(first, last + 1):
            self._receive(day)
            here = slice(edges[day - first], edges[day - first + 1])
            sold = wanted[here] <= self._on_hand[sku[here]]
            is_sold[order[here]] = sold
            taken = np.bincount(sku[here][sold], quantity[here][sold], skus).astype(np.int64)
            self._on_hand -= taken
            self._note_empty(day, taken)
            self._reorder(day, rng)
            days.append(self._snapshot(day))
        # The buyers plan with what they saw, not with what comes.
        self._planned = 0.5 * self._planned + 0.5 * shelf.weight
        return Filled(is_sold, concatenate(days))

    def sold_out(self, until: int) -> list[SoldOut]:
        """Stock-outs of best sellers up to the end of day `until` that no incident planned, by first day and SKU."""
        found = []
        for sku, days in self._empty.items():
            known = np.array([day for day in days if day <= until], np.int64)
            for run in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
                if len(run):
                    found.append(SoldOut(sku, int(run[0]), int(run[-1])))
        return sorted(found, key=lambda one: (one.first, one.sku))

    def _note_empty(self, day: int, taken: Array) -> None:
        is_best = self._sold_lately >= BEST_SELLER_UNITS * _SALES_DAYS
        planned = {i.members[0] for i in self._incidents if i.first - 1 <= day <= i.last}
        for sku in np.flatnonzero(is_best & (self._on_hand <= 0)).tolist():
            if sku not in planned:
                self._empty.setdefault(sku, []).append(day)
        slot = self._sold[day % _SALES_DAYS]
        self._sold_lately += taken - slot
        slot[:] = taken

    def _receive(self, day: int) -> None:
        arrived = self._arriving[day % _HORIZON]
        held = [i for i in self._incidents if i.first - _WITHHELD_DAYS <= day <= i.last]
        for incident in held:
            late = incident.members[0]
            release = (incident.last + 1) % _HORIZON
            if release != day % _HORIZON:
                self._arriving[release, late] += arrived[late]
                arrived[late] = 0
        self._on_hand += arrived
        self._on_order -= arrived
        arrived[:] = 0
        for incident in held:
            hot = incident.members[0]
            if day >= incident.first:
                self._on_hand[hot] = 0
            else:
                self._run_down(incident, hot, day)

    def _run_down(self, incident: Incident, hot: int, day: int) -> None:
        """Let the stock of `hot` last until the incident begins, and not much longer: parts of withheld deliveries fill a gap."""
        rate = self._planned[hot] * self._units
        ahead = rate * (self._ahead[min(incident.first, len(self._ahead) - 1)] - self._ahead[day])
        today = rate * (self._ahead[day + 1] - self._ahead[day])
        most = int(np.ceil(ahead + 3 * np.sqrt(ahead)))
        least = int(np.ceil(min(ahead, 2 * today) + 4 * np.sqrt(today))) + 1
        missing = max(least - int(self._on_hand[hot]), 0)
        release = (incident.last + 1) % _HORIZON
        part = min(missing, int(self._arriving[release, hot]))
        self._arriving[release, hot] -= part
        self._on_order[hot] -= part
        self._on_hand[hot] = min(int(self._on_hand[hot]) + missing, max(most, least))

    def _reorder(self, day: int, rng: np.random.Generator) -> None:
        lead = self._catalogue.lead_days
        rate = self._planned * self._units
        end = len(self._ahead) - 1
        now = self._ahead[min(day + 1, end)]
        usual = self._year.demand[day]
        soon = self._between(day + 1, lead, now, usual)
        later = self._between(day + 1, lead + _REVIEW_DAYS, now, usual)
        position = self._on_hand + self._on_order
        short = position < rate * soon * 1.08 + self.safety_stock
        short &= self._catalogue.is_active & (self._catalogue.listed_day <= day) & (rate > 0)
        which = np.flatnonzero(short)
        if not len(which):
            return
        amount = np.ceil(rate[which] * later[which] * 1.1 + self.safety_stock[which] - position[which]).astype(np.int64)
        amount = np.maximum(amount, 1)
        late = rng.random(len(which)) < _LATE_CHANCE
        wait = lead[which] + np.where(late, 3 + rng.geometric(0.2, len(which)), 0)
        self._on_order[which] += amount
        self._arriving[(day + np.minimum(wait, _HORIZON - 1)) % _HORIZON, which] += amount.astype(np.int32)

    def _between(self, day: int, lead: Array, now: float, usual: float) -> Array:
        """Expected demand in ordinary days over the next `lead` days, shape (skus,); beyond the calendar as on an ordinary day."""
        end = len(self._ahead) - 1
        target = day + lead
        known = self._ahead[np.minimum(target, end)] - now
        return np.asarray(known + np.maximum(target - end, 0) * usual)

    def _snapshot(self, day: int) -> Rows:
        listed = np.flatnonzero(self._catalogue.listed_day <= day)
        return {
            "snapshot_on": np.full(len(listed), day, np.int32),
            "product_id": listed.astype(np.int32),
            "warehouse": self._catalogue.warehouse[listed].astype(np.int8),
            "on_hand": self._on_hand[listed].astype(np.int32),
            "on_order": self._on_order[listed].astype(np.int32),
        }
