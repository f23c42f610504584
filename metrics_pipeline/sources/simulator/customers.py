"""Who buys: new accounts, and those who come back.

A returning order is by someone who ordered in the same region some weeks earlier: it points to an earlier order at a
log-normal distance in time, from which nobody has come back yet, and takes its buyer. So the number of orders of a buyer
is about geometric and about half of all orders are repeat orders, without a loop over customers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.sources.simulator.market import (
    CHANNEL_RETURNING,
    CHANNEL_SHARE,
    CITIES,
    REGION_SHARE,
    REGIONS,
    SEGMENTS,
)
from metrics_pipeline.sources.simulator.rows import DAY, NEVER, Array, Rows, stream

RETURNING_SHARE = 0.47
_HISTORY_DAYS = 150
_MEMORY_DAYS = 300
_MEDIAN_GAP_DAYS, _GAP_SPREAD = 30.0, 0.9
_DORMANT_DAYS = 110
_LOYAL_ORDERS, _VIP_ORDERS = 2, 4
_NEW_DAYS = 30
"""A buyer of one order counts as new for so long in the customer dimension."""

NEW, ACTIVE, LOYAL, VIP, DORMANT = range(len(SEGMENTS))


def segment_of(orders: Array, days_since: Array) -> Array:
    """Coded segment of buyers with `orders` earlier orders, the last of them `days_since` days ago; int8."""
    found = np.full(len(orders), ACTIVE, np.int8)
    found[orders >= _LOYAL_ORDERS] = LOYAL
    found[orders >= _VIP_ORDERS] = VIP
    found[days_since > _DORMANT_DAYS] = DORMANT
    found[orders == 0] = NEW
    return found


@dataclass
class _Log:
    """Orders of one region by time: when, by whom, and how many the buyer had made with it."""

    at: Array
    customer: Array
    count: Array
    is_open: Array
    """Nobody has come back from this order yet."""


class CustomerBook:
    """All accounts so far; grows month by month."""

    def __init__(self, seed: int, first_second: int, orders_per_day: float) -> None:
        """`first_second`: start of the simulation, UTC seconds; `orders_per_day`: of an ordinary early day."""
        self._region = np.empty(1024, np.int8)
        self._registered = np.empty(1024, np.int64)
        self._orders = np.zeros(1024, np.int32)
        self._last = np.full(1024, NEVER, np.int64)
        self.count = 0
        rng = stream(seed, "earlier customers")
        empty = np.empty(0, np.int64)
        self._logs = [_Log(empty, empty.astype(np.int32), empty.astype(np.int32), empty.astype(bool)) for _ in REGIONS]
        start = first_second - _HISTORY_DAYS * DAY
        for region, share in enumerate(REGION_SHARE):
            n = max(8, round(orders_per_day * share * _HISTORY_DAYS))
            at = np.sort(rng.integers(start, first_second, n))
            channel = rng.choice(len(CHANNEL_SHARE), n, p=CHANNEL_SHARE)
            self.assign(rng, at, np.full(n, region, np.int8), channel)

    def assign(self, rng: np.random.Generator, at: Array, region: Array, channel: Array) -> tuple[Array, Array]:
        """Buyer and segment of each order; `at` ascending UTC seconds, all shape (n,).

        New accounts are made as needed. Returns (customer numbers int32, coded segments int8).
        """
        customer, is_open = np.empty(len(at), np.int32), np.empty(len(at), bool)
        for number, log in enumerate(self._logs):
            mine = np.flatnonzero(region == number)
            if len(mine):
                chance = RETURNING_SHARE * CHANNEL_RETURNING[channel[mine]]
                customer[mine], is_open[mine] = self._choose(rng, log, at[mine], chance, number)
        prior, since = self._count(customer, at)
        for number, log in enumerate(self._logs):
            mine = np.flatnonzero(region == number)
            if len(mine):
                fresh = np.searchsorted(log.at, at[-1] - _MEMORY_DAYS * DAY)
                log.at = np.concatenate([log.at[fresh:], at[mine]])
                log.customer = np.concatenate([log.customer[fresh:], customer[mine]])
                log.count = np.concatenate([log.count[fresh:], prior[mine] + 1])
                log.is_open = np.concatenate([log.is_open[fresh:], is_open[mine]])
        return customer, segment_of(prior, since)

    def recognise(self, rng: np.random.Generator, at: Array, region: Array) -> tuple[Array, Array]:
        """Known buyers who merely look around: (customer numbers, coded segments), shape (n,); `at` ascending."""
        n = len(at)
        customer, segment = np.empty(n, np.int32), np.empty(n, np.int8)
        for number, log in enumerate(self._logs):
            mine = np.flatnonzero(region == number)
            if not len(mine):
                continue
            now = np.searchsorted(log.at, at[mine])
            back = rng.random(len(mine), dtype=np.float32) ** 1.6 * len(log.at)
            pick = np.maximum(now - 1 - back.astype(np.int64), 0)
            customer[mine] = log.customer[pick]
            segment[mine] = segment_of(log.count[pick], (at[mine] - log.at[pick]) / DAY)
        return customer, segment

    def rows(self, until: int) -> Rows:
        """The customer dimension as known at `until` (UTC seconds)."""
        n = self.count
        registered = self._registered[:n]
        since = np.where(self._last[:n] == NEVER, 0, until - self._last[:n]) / DAY
        region, orders = self._region[:n], self._orders[:n]
        number = np.arange(n)
        cities = np.cumsum([0, *(len(names) for names in CITIES)])
        width = np.diff(cities)[region]
        return {
            "customer_id": number,
            "registered_at": registered,
            "region": region,
            "city": cities[region] + np.minimum(number * 2_654_435_761 % 1_000_003 * width // 1_000_003, width - 1),
            "segment": segment_of(np.where((orders == 1) & (since <= _NEW_DAYS), 0, orders), since),
            "email": number,
            "phone": number,
        }

    def _choose(
        self, rng: np.random.Generator, log: _Log, at: Array, chance: Array, region: int
    ) -> tuple[Array, Array]:
        """Buyers of the orders of one region (who ordered some weeks before, or new accounts), and which stay open."""
        candidates = np.flatnonzero(log.is_open)
        old, n = len(candidates), len(at)
        times = np.concatenate([log.at[candidates], at])
        own = np.arange(old, old + n)
        returns = (rng.random(n) < chance) & (own > 0)
        gap = np.maximum(np.exp(rng.normal(np.log(_MEDIAN_GAP_DAYS), _GAP_SPREAD, n)), 0.4) * DAY
        target = at - gap.astype(np.int64)
        # Before the memory begins there is nothing to point to: spread those over what is remembered.
        beyond = target < times[0]
        if beyond.any():
            target[beyond] = times[0] + (rng.random(int(beyond.sum())) * (at[beyond] - times[0])).astype(np.int64)
        wanted = np.searchsorted(times, target[returns], side="right") - 1
        # One return per earlier order: equal wishes move on to the next free order, as long as it is earlier.
        order = np.argsort(wanted, kind="stable")
        steps = np.arange(len(order))
        wanted[order] = np.maximum.accumulate(wanted[order] - steps) + steps
        parent = np.arange(old + n)
        parent[own[returns]] = np.clip(wanted, 0, own[returns] - 1)
        is_open = np.ones(old + n, bool)
        is_open[parent[own[returns]]] = False
        log.is_open[candidates] = is_open[:old]
        while True:
            grand = parent[parent]
            if np.array_equal(grand, parent):
                break
            parent = grand
        fresh = np.flatnonzero(parent[old:] == own)
        everyone = np.concatenate([log.customer[candidates], np.empty(n, np.int32)])
        waited = np.where(
            rng.random(len(fresh)) < 0.7, rng.integers(60, 3600, len(fresh)), rng.exponential(9 * DAY, len(fresh))
        )
        everyone[old + fresh] = self._register(at[fresh] - waited.astype(np.int64), region)
        return np.asarray(everyone[parent[old:]]), is_open[old:]

    def _register(self, registered: Array, region: int) -> Array:
        first, self.count = self.count, self.count + len(registered)
        if self.count > len(self._region):
            room = max(self.count, 2 * len(self._region))
            more = room - len(self._region)
            self._region = np.concatenate([self._region, np.empty(more, np.int8)])
            self._registered = np.concatenate([self._registered, np.empty(more, np.int64)])
            self._orders = np.concatenate([self._orders, np.zeros(more, np.int32)])
            self._last = np.concatenate([self._last, np.full(more, NEVER, np.int64)])
        self._region[first : self.count] = region
        self._registered[first : self.count] = registered
        return np.arange(first, self.count, dtype=np.int32)

    def _count(self, customer: Array, at: Array) -> tuple[Array, Array]:
        """Earlier orders of each order's buyer, and days since the last of them; updates the book."""
        n = len(customer)
        order = np.argsort(customer, kind="stable")
        sorted_customer = customer[order]
        begins = np.flatnonzero(np.concatenate([[True], sorted_customer[1:] != sorted_customer[:-1]]))
        length = np.diff(np.concatenate([begins, [n]]))
        rank = np.arange(n) - np.repeat(begins, length)
        before = np.empty(n, np.int64)
        before[1:] = at[order][:-1]
        buyers = sorted_customer[begins]
        before[begins] = self._last[buyers]
        prior, since = np.empty(n, np.int32), np.empty(n)
        prior[order] = self._orders[sorted_customer] + rank
        with np.errstate(over="ignore"):
            since[order] = np.where(before == NEVER, 0.0, (at[order] - np.where(before == NEVER, 0, before)) / DAY)
        self._orders[buyers] += length.astype(np.int32)
        self._last[buyers] = at[order][begins + length - 1]
        return prior, since
