"""What to order, how much and by when, so that a SKU stays in stock with the wanted certainty.

Order-up-to with a service level (Silver, Pyke & Thomas, Inventory and Production Management, chapter 7), on the drawn
demand: the quantity brings stock and deliveries under way up to the wanted quantile of the demand until the delivery
*after* this one could come (lead time + the days between two orders), in whole packs. It has to be ordered so long
before the first day on which the chance to be sold out passes 1 - service level as the delivery takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.forecasting.stockout import Risk
from metrics_pipeline.forecasting.supply import Shelf

SERVICE_LEVEL = 0.95


@dataclass(frozen=True)
class Replenishment:
    """A proposed order of one SKU."""

    sku: str
    supplier: str | None
    quantity: int
    """Pieces, whole packs."""
    pack_size: int
    order_by: date
    """Last day on which the order still comes in time; the day after the origin when it is late already."""
    is_late: bool
    """Even an order of tomorrow may come after the SKU is sold out."""
    arrives_on: date
    """When it comes if it is ordered on `order_by` and not late."""
    on_hand: int
    on_order: int
    expected_demand: float
    """Mean units over lead time and review."""
    chance: float
    """Chance to be sold out before an order of tomorrow comes."""


def propose(risk: Risk, shelf: Shelf, *, service_level: float = SERVICE_LEVEL) -> list[Replenishment]:
    """One proposal for each SKU that needs one within the horizon, the most pressing first: by the day, then by the demand that is
    likely not to be met."""
    if not risk.skus:
        return []
    lead = np.clip(risk.lead_days, 1, risk.horizon).astype(np.int64)
    wanted = np.quantile(risk.cover_demand, service_level, axis=1)
    missing = wanted - risk.on_hand - risk.on_order
    pack = np.array([max(term.pack_size or 1, 1) for term in shelf.terms])
    quantity = np.ceil(np.maximum(missing, 0.0) / pack) * pack
    breached = risk.chance > 1 - service_level
    needed = breached.any(axis=1) & (quantity > 0) & np.isfinite(risk.chance[:, 0])
    first = breached.argmax(axis=1) + 1
    slack = first - lead
    within = risk.within(0)
    found = [
        Replenishment(
            sku=risk.skus[row],
            supplier=shelf.terms[row].supplier,
            quantity=int(quantity[row]),
            pack_size=int(pack[row]),
            order_by=risk.origin + timedelta(days=max(int(slack[row]), 1)),
            is_late=bool(slack[row] < 1),
            arrives_on=risk.origin + timedelta(days=max(int(slack[row]), 1) + int(lead[row])),
            on_hand=int(risk.on_hand[row]),
            on_order=int(risk.on_order[row]),
            expected_demand=float(risk.cover_demand[row].mean()),
            chance=float(within[row]),
        )
        for row in np.flatnonzero(needed)
    ]
    return sorted(found, key=lambda one: (one.order_by, -one.chance * one.expected_demand, one.sku))
