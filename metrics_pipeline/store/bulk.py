"""Many rows at once. SQLite takes them one by one fast enough; PostgreSQL gets them as one JSON value per statement,
because its drivers send each row of an upsert on a round trip of its own (20,000 rows: 13 s against 1 s)."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Connection, Dialect

CHUNK = 5_000
"""Rows of one statement, and bound values of one IN list: below the limits of SQLite (32,766) and PostgreSQL (65,535)."""

T = TypeVar("T")


class Row(Protocol):
    """A named tuple whose fields are columns."""

    def _asdict(self) -> dict[str, Any]: ...


def insert_rows(connection: Connection, table: sa.Table, rows: Iterable[Row], *, replace: bool = False) -> None:
    """Insert all rows; with `replace`, a row whose primary key exists is replaced. The rows are of one kind."""
    values = [row._asdict() for row in rows]
    if not values:
        return
    if connection.dialect.name == "sqlite":
        connection.execute(_sqlite_insert(table, replace), values)
        return
    statement = _postgresql_insert(table, tuple(values[0]), replace, connection.dialect)
    for some in chunks(values):
        connection.execute(statement, {"rows": json.dumps(some, default=_plain, ensure_ascii=False, allow_nan=False)})


def chunks(items: Collection[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def _sqlite_insert(table: sa.Table, replace: bool) -> sa.Insert:
    insert = sqlite.insert(table)
    if not replace:
        return insert
    keys = [column.name for column in table.primary_key]
    replaced = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    return insert.on_conflict_do_update(index_elements=keys, set_=replaced)


@lru_cache(maxsize=64)
def _postgresql_insert(table: sa.Table, names: tuple[str, ...], replace: bool, dialect: Dialect) -> sa.TextClause:
    listed = ", ".join(names)
    typed = ", ".join(f"{name} {table.c[name].type.compile(dialect)}" for name in names)
    sql = f"INSERT INTO {table.name} ({listed}) SELECT {listed} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row_({typed})"
    if replace:
        keys = [column.name for column in table.primary_key]
        replaced = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
        sql += f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {replaced}"
    return sa.text(sql)


def _plain(value: Any) -> str:
    """A time as the database keeps it: instants in UTC, both kinds without a zone (see `tables.Instant`)."""
    if not isinstance(value, datetime):
        raise TypeError(f"cannot write a {type(value).__name__} in bulk; expected text, numbers or times")
    return (value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)).isoformat()
