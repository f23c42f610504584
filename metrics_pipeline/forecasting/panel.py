"""A panel: many series of one metric over the same days, as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.days import day_numbers
from metrics_pipeline.warehouse.quoting import literal

if TYPE_CHECKING:
    import duckdb

    from metrics_pipeline.warehouse.read import MetricState, Published

Floats = NDArray[np.float64]

HISTORY_DAYS = 800
"""Most days that are read: two years, so that a promotion has been seen before."""


@dataclass(frozen=True)
class Panel:
    """Values in the metric's unit: shape (series, days), NaN = missing."""

    members: tuple[str, ...]
    first: date
    values: Floats

    @property
    def last(self) -> date:
        return self.first + timedelta(days=self.values.shape[1] - 1)

    def until(self, days: int) -> Panel:
        """The first `days` days of it."""
        return Panel(self.members, self.first, self.values[:, :days])

    def of(self, members: Sequence[str]) -> Panel:
        """Some series, in this order."""
        at = {member: number for number, member in enumerate(self.members)}
        return Panel(tuple(members), self.first, self.values[[at[member] for member in members]])


def empty_panel(first: date) -> Panel:
    """A panel without series."""
    return Panel((), first, np.empty((0, 1)))


def panel_of(members: Any, days: Any, values: Any, *, until: date) -> Panel:
    """Columns of rows (member, day, value), of Arrow or NumPy, as a panel that ends the day before `until`."""
    if len(members) == 0:
        return empty_panel(until - timedelta(days=1))
    names, rows = _numbered(members)
    stamps = np.asarray(days, "datetime64[D]")
    first = stamps.min().astype(object)
    matrix = np.full((len(names), (until - first).days), np.nan)
    matrix[rows, day_numbers(days, first)] = np.asarray(values, float)
    return Panel(tuple(str(name) for name in names), first, matrix)


def _numbered(members: Any) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """The names in order, and the number of each row's name."""
    import pyarrow as pa

    column = members if isinstance(members, pa.ChunkedArray) else pa.chunked_array([pa.array(members, pa.string())])
    encoded = column.combine_chunks().dictionary_encode()
    names, place = np.unique(encoded.dictionary.to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    return names, place[encoded.indices.to_numpy()]


def read_panel(
    published: Published, metric: str, dimension: str, *, until: datetime | None = None, days: int = HISTORY_DAYS
) -> Panel:
    """The daily values of every slice up to `until` (default: all that is complete), of the current definition.

    `published` decides what its reader may see; values that are not shown exactly are not there.
    """
    state = published.metrics[metric]
    end = min(filter(None, (until, state.complete_until)), default=None)
    if end is None:
        return empty_panel(date(1970, 1, 1))
    import duckdb

    with duckdb.connect() as con:
        files = published.files(end - timedelta(days=days), end, dimension=dimension)
        return query_panel(con, published.relation(files), state, metric, dimension, until=end, days=days)


def query_panel(
    con: duckdb.DuckDBPyConnection,
    values: str,
    state: MetricState,
    metric: str,
    dimension: str,
    *,
    until: datetime,
    days: int = HISTORY_DAYS,
) -> Panel:
    """The same, from `values`, a table expression with the published columns."""
    found = con.sql(
        f"""SELECT member, CAST(period_start AS DATE) AS day, value FROM {values}
        WHERE metric = {literal(metric)} AND dimension = {literal(dimension)} AND grain = 'day'
            AND definition_version = {literal(state.definition_version)} AND value IS NOT NULL AND isfinite(value)
            AND period_start >= {literal(until - timedelta(days=days))} AND period_start < {literal(until)}"""
    ).to_arrow_table()
    return panel_of(found["member"], found["day"], found["value"], until=until.date())
