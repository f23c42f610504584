"""What a person needs to know of a shelf that may empty: when, how sure that is, and what to order by when.

One row per SKU in danger, kept beside the stored stock-out forecast of a night: the figures of `metrics stockout`, for
messages and advice, which open no warehouse. Light to import: whoever sends messages reads it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

if TYPE_CHECKING:
    import pyarrow as pa

    from metrics_pipeline.forecasting.replenish import Replenishment
    from metrics_pipeline.forecasting.stockout import Risk

LEAST_CHANCE = 0.05
"""Chance to be sold out before an order could come from which a SKU is in danger; one that has to be ordered is, anyway."""

Need = Literal["order", "late", "waiting", ""]
"""order = an order of today still comes in time; late = it does not; waiting = what is under way suffices; '' = nothing."""


class Outlook(NamedTuple):
    """One SKU."""

    sku: str
    origin: date
    """Last day that was known."""
    on_hand: int
    on_order: int
    per_day: float
    """Mean demand of the coming week."""
    lead_days: int
    chance: float
    """To be sold out before an order placed now would come."""
    sold_out_on: date | None
    """First day by which it is sold out rather than not; None: none of the coming three weeks."""
    quantity: int
    """Pieces to order, whole packs; 0 = none."""
    pack_size: int
    order_by: date | None
    arrives_on: date | None
    supplier: str
    is_late: bool

    @property
    def need(self) -> Need:
        """What there is to do."""
        if self.quantity:
            return "late" if self.is_late else "order"
        return "waiting" if self.on_order else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives it back."""
        return {name: value.isoformat() if isinstance(value, date) else value for name, value in self._asdict().items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`. Raises `KeyError` or `TypeError` when it is none."""
        days = {
            name: None if data[name] is None else date.fromisoformat(data[name])
            for name in ("origin", "sold_out_on", "order_by", "arrives_on")
        }
        return cls(**{**data, **days})


def outlooks(risk: Risk, orders: Iterable[Replenishment]) -> list[Outlook]:
    """The SKUs in danger, in the order of `risk`."""
    by_sku = {one.sku: one for one in orders}
    within, empty_on = risk.within(0), risk.sold_out_on()
    found = []
    for row, sku in enumerate(risk.skus):
        order = by_sku.get(sku)
        if order is None and not within[row] >= LEAST_CHANCE:
            continue
        found.append(
            Outlook(
                sku=sku,
                origin=risk.origin,
                on_hand=int(risk.on_hand[row]),
                on_order=int(risk.on_order[row]),
                per_day=round(float(risk.expected[row, :7].mean()), 3),
                lead_days=int(risk.lead_days[row]),
                chance=round(float(within[row]), 4),
                sold_out_on=empty_on[row],
                quantity=order.quantity if order else 0,
                pack_size=order.pack_size if order else 1,
                order_by=order.order_by if order else None,
                arrives_on=order.arrives_on if order else None,
                supplier=(order.supplier if order else None) or "",
                is_late=order.is_late if order else False,
            )
        )
    return found


def table_of(found: Sequence[Outlook]) -> pa.Table:
    """The rows that are stored; the columns are the fields."""
    import pyarrow as pa

    days, counts = (
        ("origin", "sold_out_on", "order_by", "arrives_on"),
        ("on_hand", "on_order", "lead_days", "quantity", "pack_size"),
    )
    kinds = {
        **dict.fromkeys(("sku", "supplier"), pa.string()),
        **dict.fromkeys(days, pa.date32()),
        **dict.fromkeys(counts, pa.int64()),
        **dict.fromkeys(("per_day", "chance"), pa.float64()),
        "is_late": pa.bool_(),
    }
    schema = pa.schema([(name, kinds[name]) for name in Outlook._fields])
    return pa.Table.from_pylist([one._asdict() for one in found], schema=schema)


def of_table(table: pa.Table) -> dict[str, Outlook]:
    """SKU → its outlook."""
    return {row["sku"]: Outlook(**row) for row in table.select(list(Outlook._fields)).to_pylist()}
