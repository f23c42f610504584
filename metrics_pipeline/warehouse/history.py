"""What was known when: every value that ever changed, append-only, with the moment, the run and the definition.

A publish compares each month it rewrites with the month as published before and records new, different and vanished
values. A value is vanished when numerator, denominator and value are all NULL. Nothing is ever removed or changed;
small files of one month are merged from time to time, row for row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path

import duckdb

from metrics_pipeline.warehouse.manifest import KEY, HistoryFile
from metrics_pipeline.warehouse.quoting import literal, parquet

HISTORY_COLUMNS = (
    "metric",
    "period_start",
    "grain",
    "dimension",
    "member",
    "numerator",
    "denominator",
    "value",
    "definition_version",
    "computed_at",
    "run_id",
)
MERGE_ABOVE = 8
"""Files of one part of one month above which they are merged: a month in progress gets one every night."""

ROUNDING = 1e-12
"""Relative difference below which a value is the same: sums of doubles depend on the order of their rows in the last
digit (rolling sums do, by the window they were computed in), and a re-run must change nothing."""

_NUMBERS = ("numerator", "denominator", "value")
_WRITE = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720)"


def write_changes(
    con: duckdb.DuckDBPyConnection,
    former: Path | None,
    new: Path | None,
    target: Path,
    *,
    computed_at: datetime,
    run_id: str,
) -> int:
    """Write to `target` how one part of one month differs from the former one; returns the number of rows.

    `former` and `new` are values files, None = no rows. Without differences an empty file is left at `target`. A number
    is different from `ROUNDING` on.
    """
    if former is None and new is None:
        raise ValueError("nothing to compare: neither a former nor a new file")
    keys = ", ".join(KEY)
    differs = " OR ".join(
        f"(n.{number} IS DISTINCT FROM f.{number} AND NOT coalesce("
        f"abs(n.{number} - f.{number}) <= {ROUNDING} * least(abs(n.{number}), abs(f.{number})), false))"
        for number in _NUMBERS
    )
    return _copy(
        con,
        f"""
        SELECT {keys}, n.numerator, n.denominator, n.value,
               coalesce(n.definition_version, f.definition_version) AS definition_version,
               {literal(computed_at)} AS computed_at, {literal(run_id)} AS run_id
        FROM (SELECT *, true AS is_there FROM {_rows(new, former)}) AS n
        FULL JOIN (SELECT *, true AS is_there FROM {_rows(former, new)}) AS f USING ({keys})
        WHERE n.is_there IS NULL OR f.is_there IS NULL
            OR n.definition_version IS DISTINCT FROM f.definition_version OR {differs}
        """,
        target,
    )


def merge(con: duckdb.DuckDBPyConnection, files: Sequence[Path], target: Path) -> int:
    """Write all rows of history files of one part of one month into one file; returns the number of rows."""
    return _copy(con, f"SELECT * FROM {parquet(files)}", target)


def history_sql(published_dir: Path, files: Iterable[HistoryFile]) -> str:
    """A query over the rows of these history files, with the columns `HISTORY_COLUMNS`."""

    def stamp(file: HistoryFile) -> tuple[datetime, str]:
        return (file.computed_at or datetime.min, file.run_id or "")

    parts = []
    for (computed_at, run_id), group in groupby(sorted(files, key=stamp), key=stamp):
        source = parquet(published_dir / file.path for file in group)
        stamped = run_id or computed_at != datetime.min
        own = (
            "computed_at, run_id"
            if not stamped
            else f"{literal(computed_at)} AS computed_at, {literal(run_id)} AS run_id"
        )
        parts.append(f"SELECT {', '.join(HISTORY_COLUMNS[:-2])}, {own} FROM {source}")
    if not parts:
        return f"SELECT {', '.join(HISTORY_COLUMNS)} FROM ({EMPTY_HISTORY})"
    return "\nUNION ALL\n".join(parts)


EMPTY_VALUES = (
    "SELECT ''::VARCHAR AS metric, NULL::TIMESTAMP AS period_start, ''::VARCHAR AS grain, ''::VARCHAR AS dimension, "
    "''::VARCHAR AS member, NULL::DOUBLE AS numerator, NULL::DOUBLE AS denominator, NULL::DOUBLE AS value, "
    "''::VARCHAR AS definition_version WHERE false"
)
"""A query with the columns of published values and no rows."""

EMPTY_HISTORY = f"SELECT *, NULL::TIMESTAMP AS computed_at, ''::VARCHAR AS run_id FROM ({EMPTY_VALUES})"


def known_as_of_sql(history: str, where: str, as_of: datetime) -> str:
    """A query: the values of `history` (a query) that satisfy `where`, as they were known at `as_of` (UTC)."""
    return f"""
        SELECT * FROM ({history})
        WHERE ({where}) AND computed_at <= {literal(as_of)}
        QUALIFY row_number() OVER (PARTITION BY {", ".join(KEY)} ORDER BY computed_at DESC) = 1
            AND NOT (numerator IS NULL AND denominator IS NULL AND value IS NULL)
        """


def _rows(file: Path | None, other: Path | None) -> str:
    """The rows of a values file; without one, no rows of the same shape."""
    if file is not None:
        return parquet([file])
    assert other is not None
    return f"(SELECT * FROM {parquet([other])} LIMIT 0)"


def _copy(con: duckdb.DuckDBPyConnection, query: str, target: Path) -> int:
    columns, order = ", ".join(HISTORY_COLUMNS), ", ".join((*KEY, "computed_at"))
    row = con.execute(
        f"COPY (SELECT {columns} FROM ({query}) ORDER BY {order}) TO {literal(str(target))} {_WRITE}"
    ).fetchone()
    assert row is not None
    return int(row[0])
