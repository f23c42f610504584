"""The interface every source implements, and the words around it: span, coverage, batch.

A source says what it provides, up to when each table is complete, and hands out batches as DuckDB queries whose
columns are those of the raw contract (`contract.yml`). It never writes to the warehouse: `warehouse/load.py` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol


class SourceError(ValueError):
    """Input that a source cannot use: names file, line or column, what was expected and what to do."""


EARLIEST_CLOCK = date(2000, 1, 1)
"""An event before this is a clock error (an epoch zero, a two-digit year), not history."""

_HINTS = ("Possible fix", "Possible Solution", "The search space", "LINE 1:", "Did you mean", "  file =")


def words_of(error: Exception) -> str:
    """What a DuckDB error says about unreadable input, on one line.

    Without its hints, which speak to programmers, and without the offending line, which may hold personal data.
    """
    lines = []
    for line in str(error).splitlines():
        if line.startswith(_HINTS):
            break
        if line.strip() and not line.startswith("Original Line:"):
            lines.append(line.strip())
    return " ".join(lines)


@dataclass(frozen=True)
class Span:
    """A half-open stretch of time [start, until), UTC, naive datetimes."""

    start: datetime
    until: datetime


@dataclass(frozen=True)
class Batch:
    """Rows of one table that arrive together; loading the same batch twice changes nothing."""

    table: str
    batch_id: str
    """Stable name of the batch: same content, same id (e.g. `simulator/orders/2025-11`)."""
    query: str
    """A DuckDB SELECT that yields the rows; columns by contract name, types may still be text."""
    parameters: tuple[object, ...] = ()


@dataclass(frozen=True)
class Absence:
    """A table, or `table.column`, that a source cannot provide, and why (shown wherever a metric is absent)."""

    reason_en: str
    reason_zh: str


@dataclass(frozen=True)
class SourceInfo:
    name: str
    timezone: str
    """IANA name of the shop's clock."""
    currency: str
    absent: Mapping[str, Absence] = field(default_factory=dict)
    """`table` or `table.column` → why it is not there."""


class Source(Protocol):
    """A system that delivers raw tables."""

    @property
    def info(self) -> SourceInfo: ...

    def coverage(self, table: str) -> tuple[Span, ...]:
        """The spans for which this table is complete ("loaded up to" is the last `until`); () when absent."""
        ...

    def batches(self, table: str, window: Span) -> Iterable[Batch]:
        """Batches with every row whose clock lies in `window`, plus rows of any age that arrived within it.

        Dimension tables are delivered whole.
        """
        ...
