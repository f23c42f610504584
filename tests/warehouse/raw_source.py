"""A source made of SQL literals, for tests of loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from metrics_pipeline.sources.source import Batch, SourceInfo, Span

WINDOW = Span(datetime(2025, 11, 1), datetime(2025, 12, 1))
NOW = datetime(2025, 12, 1, 2, 0)


@dataclass
class LiteralSource:
    """Each table's batches as queries (or batches); complete for `WINDOW` unless told otherwise."""

    queries: Mapping[str, str | list[Batch]]
    spans: tuple[Span, ...] = (WINDOW,)
    info: SourceInfo = field(default=SourceInfo("literal", "Asia/Shanghai", "CNY"))

    def coverage(self, table: str) -> tuple[Span, ...]:
        return self.spans if table in self.queries else ()

    def batches(self, table: str, window: Span) -> Iterable[Batch]:
        given = self.queries.get(table, [])
        return [Batch(table, f"literal/{table}", given)] if isinstance(given, str) else given


def orders_query(*rows: str) -> str:
    """Rows as `id, 'clock', amount` SQL literals → a query with the required columns of orders and an amount."""
    return (
        "SELECT id AS order_id, clock AS ordered_at, 'c1' AS customer_id, amount AS items_amount FROM (VALUES "
        + ", ".join(f"({row})" for row in rows)
        + ") AS given(id, clock, amount)"
    )
