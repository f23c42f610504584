"""Text as SQL: what has to be inside a statement because DuckDB takes no parameter there (paths, names)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path


def literal(value: str | date | datetime | None) -> str:
    """A SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
    if isinstance(value, date):
        return f"TIMESTAMP '{value.isoformat()} 00:00:00'"
    return "'" + value.replace("'", "''") + "'"


def is_one_of(columns: str, rows: Iterable[Sequence[str]]) -> str:
    """A condition: these columns (`metric, dimension`) together are one of these rows.

    Said of each column first, as a single column is looked up in the statistics of Parquet files.
    """
    given = sorted(set(map(tuple, rows)))
    if not given:
        return "false"
    names = columns.split(", ")
    of_each = [
        f"{name} IN ({', '.join(map(literal, sorted(set(of_one))))})"
        for name, of_one in zip(names, zip(*given, strict=True), strict=True)
    ]
    together = ", ".join(f"({', '.join(map(literal, row))})" for row in given)
    return f"({' AND '.join([*of_each, f'({columns}) IN ({together})'])})"


def identifier(name: str) -> str:
    """A quoted name."""
    return '"' + name.replace('"', '""') + '"'


def parquet(paths: Iterable[Path]) -> str:
    """`read_parquet([…])` over exactly these files; never a glob, so names with `*` or `[` are read as they are."""
    names = ", ".join(literal(str(path)) for path in paths)
    return f"read_parquet([{names}], hive_partitioning = false)"
