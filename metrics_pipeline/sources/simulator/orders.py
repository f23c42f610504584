"""From sold lines to orders and payments: prices, discounts, freight, attempts to pay.

Money is in cents and exact: the lines of an order add up to its `items_amount`, and every attempt to pay is for
items − discount + freight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.catalogue import Catalogue
from metrics_pipeline.sources.simulator.customers import CustomerBook
from metrics_pipeline.sources.simulator.demand import Intents, Visits
from metrics_pipeline.sources.simulator.incidents import Incident
from metrics_pipeline.sources.simulator.market import PAYMENT_METHODS, PAYMENT_SHARE, PAYMENT_SUCCESS
from metrics_pipeline.sources.simulator.rows import DAY, NEVER, NONE, Array, Rows, concatenate

_FREE_FREIGHT_FROM = 9_900
_FREIGHTS = np.array([600, 800, 1000, 1200])
_ABANDONED = 0.031
"""Share of orders for which nobody tries to pay."""
_RETRIES, _RETRIES_IN_OUTAGE = 0.62, 0.35
_SWITCHES = 0.3
"""Share of second attempts with another method."""


@dataclass(frozen=True)
class Orders:
    """The orders of one month by time, shape (orders,) each, and their lines, shape (lines,) each. Money in cents."""

    number: Array
    at: Array
    day: Array
    visit: Array
    region: Array
    channel: Array
    campaign: Array
    customer: Array
    segment: Array
    method: Array
    items: Array
    discount: Array
    freight: Array
    line_order: Array
    """Position of each line's order."""
    line_number: Array
    line_sku: Array
    line_quantity: Array
    line_price: Array
    first_line: Array
    """Position of each order's first line."""

    @property
    def payable(self) -> Array:
        return np.asarray(self.items - self.discount + self.freight)


def make_orders(
    rng: np.random.Generator, first_number: int, *, visits: Visits, intents: Intents, is_sold: Array, catalogue: Catalogue,
    year: Year, book: CustomerBook,
) -> Orders:  # fmt: skip
    """The orders that the sold lines make; their numbers begin with `first_number`."""
    at, day, visit = intents.at[is_sold], intents.day[is_sold], intents.visit[is_sold]
    sku, quantity = intents.sku[is_sold], intents.quantity[is_sold].astype(np.int64)
    lines = len(visit)
    begins = np.flatnonzero(np.concatenate([[True], visit[1:] != visit[:-1]])) if lines else np.empty(0, np.int64)
    n = len(begins)
    length = np.diff(np.concatenate([begins, [lines]])).astype(np.int64)
    line_order = np.repeat(np.arange(n), length)
    markdown = year.discount[day] * rng.uniform(0.5, 1.5, lines) + 0.03 * (rng.random(lines) < 0.2)
    price = np.maximum(np.round(catalogue.list_price[sku] * (1 - np.clip(markdown, 0, 0.6)) / 10) * 10, 100).astype(
        np.int64
    )
    items = np.bincount(line_order, price * quantity, n).astype(np.int64)
    order_day = day[begins]
    season = year.discount[order_day]
    has_coupon = rng.random(n) < 0.14 + 3.2 * season
    discount = (items * np.where(has_coupon, rng.uniform(0.04, 0.11, n), 0)).astype(np.int64) // 10 * 10
    freight = np.where(items - discount >= _FREE_FREIGHT_FROM, 0, _FREIGHTS[rng.integers(0, len(_FREIGHTS), n)])
    owner = visit[begins]
    region, channel = visits.region[owner], visits.channel[owner]
    customer, segment = (
        book.assign(rng, at[begins], region, channel) if n else (np.empty(0, np.int32), np.empty(0, np.int8))
    )
    return Orders(
        number=first_number + np.arange(n),
        at=at[begins],
        day=order_day,
        visit=owner,
        region=region,
        channel=channel,
        campaign=visits.campaign[owner],
        customer=customer,
        segment=segment,
        method=rng.choice(len(PAYMENT_METHODS), n, p=PAYMENT_SHARE).astype(np.int8),
        items=items,
        discount=discount,
        freight=freight,
        line_order=line_order,
        line_number=np.arange(lines) - np.repeat(begins, length) + 1,
        line_sku=sku,
        line_quantity=quantity,
        line_price=price,
        first_line=begins,
    )


@dataclass(frozen=True)
class Payments:
    """Attempts as coded rows, and per order (shape (orders,)) when it was paid: UTC seconds, or `NEVER`."""

    rows: Rows
    paid_at: Array


def make_payments(
    rng: np.random.Generator, orders: Orders, first_second: int, incidents: tuple[Incident, ...]
) -> Payments:
    """Up to two attempts per order; at most one succeeds and it is the last."""
    n = len(orders.at)
    outages = [i for i in incidents if i.kind == "payment_outage"]
    tries = rng.random(n) >= _ABANDONED
    first_at = orders.at + 15 + np.minimum(rng.lognormal(4.2, 0.9, n), 1500).astype(np.int64)
    failing = _failing(outages, orders.method, first_at, first_second)
    first_ok = tries & (rng.random(n) < PAYMENT_SUCCESS[orders.method] * (1 - failing))
    retries = tries & ~first_ok & (rng.random(n) < np.where(failing > 0, _RETRIES_IN_OUTAGE, _RETRIES))
    other = (orders.method + 1 + (rng.random(n) < 0.4)) % 2
    method = np.where(rng.random(n) < _SWITCHES, other, orders.method).astype(np.int8)
    second_at = first_at + 30 + np.minimum(rng.lognormal(5.3, 0.8, n), 3600).astype(np.int64)
    failing = _failing(outages, method, second_at, first_second)
    second_ok = retries & (rng.random(n) < 0.84 * (1 - failing))
    rows = concatenate(
        [
            {
                "payment_id": orders.number[which] * 10 + attempt,
                "order_id": orders.number[which],
                "paid_at": at[which],
                "ordered_at": orders.at[which],
                "payment_method": used[which],
                "is_successful": ok[which],
                "amount": orders.payable[which],
            }
            for attempt, which, at, used, ok in (
                (1, tries, first_at, orders.method, first_ok),
                (2, retries, second_at, method, second_ok),
            )
        ]
    )
    return Payments(rows, np.where(first_ok, first_at, np.where(second_ok, second_at, NEVER)))


def _failing(outages: list[Incident], method: Array, at: Array, first_second: int) -> Array:
    """Share of attempts that an outage makes fail, shape (attempts,)."""
    failing = np.zeros(len(at))
    for outage in outages:
        begin, end = outage.hours or (0, 24)
        local = at - first_second
        hour = local % DAY // 3600
        hit = (method == outage.members[0]) & (local // DAY >= outage.first) & (local // DAY <= outage.last)
        failing[hit & (hour >= begin) & (hour < end)] = outage.magnitude
    return failing


def order_rows(orders: Orders, session: Array) -> tuple[Rows, Rows]:
    """The tables orders and order_items, coded; `session`: number of each order's session or -1, shape (orders,)."""
    head = {
        "order_id": orders.number,
        "ordered_at": orders.at,
        "customer_id": orders.customer,
        "session_id": np.where(session < 0, NONE, session),
        "region": orders.region,
        "channel": orders.channel,
        "segment": orders.segment,
        "campaign_id": orders.campaign,
        "payment_method": orders.method,
        "items_amount": orders.items,
        "discount_amount": orders.discount,
        "freight_amount": orders.freight,
    }
    lines = {
        "order_id": orders.number[orders.line_order],
        "line_no": orders.line_number.astype(np.int16),
        "ordered_at": orders.at[orders.line_order],
        "product_id": orders.line_sku,
        "quantity": orders.line_quantity.astype(np.int16),
        "unit_price": orders.line_price,
    }
    return head, lines
