"""What follows a paid order: parcels with a promise, refunds, complaints."""

from __future__ import annotations

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.catalogue import Catalogue
from metrics_pipeline.sources.simulator.incidents import Incident
from metrics_pipeline.sources.simulator.market import (
    CARRIERS,
    CATEGORIES,
    COMPLAINT_TOPICS,
    LATE_TOPIC,
    QUALITY_TOPIC,
    REFUND_REASONS,
    WAREHOUSE_OF_REGION,
    WAREHOUSES,
)
from metrics_pipeline.sources.simulator.orders import Orders
from metrics_pipeline.sources.simulator.rows import DAY, NEVER, NONE, Array, Rows

_LATE_SHARE = 0.045
_NEAR_PROMISE_DAYS, _FAR_PROMISE_DAYS = 3, 5
_LOST_PARCELS = 0.0008
_COMPLAINT_SHARE = 0.0066
_COMPLAINT_OF_LATE = 0.09
_TOPIC_SHARE = np.array([0.16, 0.28, 0.20, 0.14, 0.12, 0.10])
_REASON_SHARE = np.array([0.34, 0.20, 0.14, 0.14, 0.08, 0.10])
_REASON_OF_QUALITY = REFUND_REASONS.index("质量问题")


def make_refunds(
    rng: np.random.Generator, orders: Orders, *, paid_at: Array, catalogue: Catalogue, first_second: int, incidents: tuple[Incident, ...]
) -> tuple[Rows, Array]:  # fmt: skip
    """Refund rows (money back some days after payment, once per order) and per order its time or `NEVER`."""
    n = len(orders.at)
    category = catalogue.category[orders.line_sku[orders.first_line]]
    rate = np.array([c.refund_rate for c in CATEGORIES])[category]
    day = (paid_at - first_second) // DAY
    lag = 0.08 + rng.gamma(1.5, 3.6, n)
    reason = rng.choice(len(REFUND_REASONS), n, p=_REASON_SHARE).astype(np.int8)
    chance = rng.random(n)
    is_refunded = chance < rate
    quick = 0.05 + rng.gamma(2.0, 0.25, n)
    for surge in (i for i in incidents if i.kind == "refund_surge"):
        hit = (category == surge.members[0]) & (day >= surge.first) & (day <= surge.last)
        extra = hit & ~is_refunded & (chance < rate * surge.magnitude)
        is_refunded |= extra
        # A wrong price or a bad lot is noticed at once.
        lag = np.where(extra, quick, lag)
        reason[extra] = _REASON_OF_QUALITY
    is_refunded &= paid_at != NEVER
    refunded_at = np.where(is_refunded, paid_at + (lag * DAY).astype(np.int64), NEVER)
    single = np.bincount(orders.line_order, minlength=n) == 1
    is_partial = ~single & (rng.random(n) < 0.55)
    first = orders.first_line
    line_amount = orders.line_price[first] * orders.line_quantity[first]
    part = line_amount * (orders.items - orders.discount) // np.maximum(orders.items, 1)
    which = np.flatnonzero(is_refunded)
    which = which[np.argsort(refunded_at[which], kind="stable")]
    amount = np.where(is_partial, part, orders.payable)
    named = np.where(single | is_partial, orders.line_sku[first], NONE)
    rows = {
        "refund_id": orders.number[which],
        "refunded_at": refunded_at[which],
        "order_id": orders.number[which],
        "ordered_at": orders.at[which],
        "product_id": named[which],
        "amount": amount[which],
        "reason": reason[which],
    }
    whole = np.where(is_refunded & ~is_partial, refunded_at, NEVER)
    return rows, whole


def make_shipments(
    rng: np.random.Generator, orders: Orders, *, paid_at: Array, returned_at: Array, catalogue: Catalogue, year: Year,
    first_second: int, incidents: tuple[Incident, ...],
) -> tuple[Rows, Array]:  # fmt: skip
    """One parcel per paid order and warehouse, and per order when the customer knew it was late, or `NEVER`.

    An order refunded before it left is not sent.
    """
    paid = paid_at[orders.line_order] != NEVER
    pair = np.unique(orders.line_order[paid] * len(WAREHOUSES) + catalogue.warehouse[orders.line_sku[paid]])
    order, warehouse = pair // len(WAREHOUSES), pair % len(WAREHOUSES)
    number = np.arange(len(pair)) - np.searchsorted(order, order)
    region = orders.region[order]
    n = len(pair)
    near = WAREHOUSE_OF_REGION[region] == warehouse
    start = paid_at[order]
    paid_day = np.clip((start - first_second) // DAY, 0, len(year.lateness) - 1)
    lateness = year.lateness[paid_day]
    promise_days = np.where(near, _NEAR_PROMISE_DAYS, _FAR_PROMISE_DAYS) + (lateness > 1.6)
    promised_day = paid_day + promise_days
    promised = first_second + promised_day * DAY + 22 * 3600
    handling = np.minimum(rng.lognormal(2.35, 0.55, n) * 3600, (promised - start) * 0.55).astype(np.int64)
    shipped = start + np.maximum(handling, 900)
    late_share = _LATE_SHARE * lateness
    slower = np.zeros(n)
    for delay in (i for i in incidents if i.kind == "warehouse_delay"):
        hit = (warehouse == delay.members[0]) & (region == delay.members[1])
        hit &= (promised_day >= delay.first) & (promised_day <= delay.last)
        late_share = np.where(hit, np.maximum(late_share, delay.magnitude), late_share)
        slower[hit] = 1.0
    is_late = rng.random(n) < late_share
    in_time = shipped + ((promised - shipped) * rng.uniform(0.25, 0.98, n)).astype(np.int64)
    overdue = promised + 1800 + ((rng.exponential(1.0, n) + slower * rng.uniform(0, 2.5, n)) * DAY).astype(np.int64)
    delivered = np.where(is_late, overdue, in_time)
    # A parcel that is still in the van after ten at night comes the next morning.
    delivered = np.where(rng.random(n) < _LOST_PARCELS, NEVER, delivered)
    is_sent = (returned_at[order] == NEVER) | (returned_at[order] > shipped)
    which = np.flatnonzero(is_sent)
    known_late = np.full(len(orders.at), NEVER)
    known_late[order[is_sent & is_late]] = promised[is_sent & is_late]
    rows = {
        "shipment_id": orders.number[order[which]] * 10 + number[which],
        "order_id": orders.number[order[which]],
        "promised_at": promised[which],
        "shipped_at": shipped[which],
        "delivered_at": delivered[which],
        "warehouse": warehouse[which].astype(np.int8),
        "region": region[which],
        "carrier": rng.choice(len(CARRIERS), n, p=[0.25, 0.3, 0.25, 0.2]).astype(np.int8)[which],
    }
    return rows, known_late


def make_complaints(
    rng: np.random.Generator, orders: Orders, known_late: Array, first_second: int, incidents: tuple[Incident, ...]
) -> Rows:
    """At most one complaint per order: about the goods within days, about lateness after the promise, or in a surge."""
    n = len(orders.at)
    first = orders.first_line
    chance = rng.random(n)
    topic = rng.choice(len(COMPLAINT_TOPICS), n, p=_TOPIC_SHARE).astype(np.int8)
    at = orders.at + ((0.05 + rng.gamma(2.0, 1.8, n)) * DAY).astype(np.int64)
    complains = chance < _COMPLAINT_SHARE
    sku = orders.line_sku[first].astype(np.int64)
    late = (known_late != NEVER) & ~complains & (rng.random(n) < _COMPLAINT_OF_LATE)
    at = np.where(late, known_late + rng.integers(600, 2 * DAY, n), at)
    topic[late] = LATE_TOPIC
    sku = np.where(late, NONE, sku)
    complains |= late
    wish, moment = rng.random(n), rng.random(n)
    for surge in (i for i in incidents if i.kind == "complaint_surge"):
        begin, end = first_second + surge.first * DAY, first_second + (surge.last + 1) * DAY
        bought = np.unique(orders.line_order[orders.line_sku == surge.members[0]])
        near = (orders.at[bought] >= begin - 6 * DAY) & (orders.at[bought] < end - 4 * 3600)
        bought = bought[near & (wish[bought] < surge.magnitude)]
        earliest = np.maximum(orders.at[bought] + 3 * 3600, begin)
        at[bought] = earliest + ((end - earliest) * moment[bought]).astype(np.int64)
        topic[bought] = QUALITY_TOPIC
        sku[bought] = surge.members[0]
        complains[bought] = True
    which = np.flatnonzero(complains)
    which = which[np.argsort(at[which], kind="stable")]
    return {
        "complaint_id": orders.number[which],
        "complained_at": at[which],
        "order_id": orders.number[which],
        "product_id": sku[which],
        "region": orders.region[which],
        "channel": orders.channel[which],
        "topic": topic[which],
    }
