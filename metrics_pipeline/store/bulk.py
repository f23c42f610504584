"""Many rows at once, as columns. SQLite takes them one by one fast enough, when nothing stands between the columns and
its driver; PostgreSQL gets them by COPY (through a temporary table where rows are to be replaced), because a statement for
each row of an upsert is a round trip of its own (20,000 rows: 13 s against 0.3 s). A PostgreSQL driver without COPY gets
one JSON value per statement.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection

CHUNK = 5_000
"""Rows of one JSON value, and bound values of one IN list: below the limits of SQLite (32,766) and PostgreSQL (65,535)."""
ROWS = 10_000
"""Rows that are held as tuples at a time, between columns and a driver."""
FEW = 200
"""Up to so many rows a COPY is not worth its statements."""

T = TypeVar("T")
Columns = Mapping[str, Any]
"""A list or a numpy array of equal length for each column."""


def insert_rows(
    connection: Connection, table: sa.Table, rows: Iterable[tuple[Any, ...]], *, replace: bool = False
) -> None:
    """Insert named tuples whose fields are columns; with `replace`, a row whose primary key exists is replaced."""
    listed = list(rows)
    if listed:
        names: tuple[str, ...] = listed[0]._fields  # type: ignore[attr-defined]
        write_columns(connection, table, dict(zip(names, zip(*listed, strict=True), strict=True)), replace=replace)


def write_columns(
    connection: Connection,
    table: sa.Table,
    columns: Columns,
    *,
    replace: bool = False,
    ignore: bool = False,
    fixed: Collection[str] = (),
) -> None:
    """Insert rows given as columns, lists or numpy arrays; NaN and NaT are NULL.

    A row whose primary key exists is replaced (`replace`), but for the columns that never change (`fixed`: the database
    then leaves their indexes alone); one that any unique constraint refuses is left out (`ignore`).
    """
    count = len(next(iter(columns.values())))
    if not count:
        return
    insert = f"INSERT INTO {table.name} ({', '.join(columns)})"
    then = _on_conflict(table, columns, fixed) if replace else "ON CONFLICT DO NOTHING" if ignore else ""
    if connection.dialect.name == "sqlite":
        values = [_sqlite_values(table.c[name], column) for name, column in columns.items()]
        sql = f"{insert} VALUES ({', '.join('?' * len(columns))}) {then}"
        rows = zip(*values, strict=True)
        while some := list(islice(rows, ROWS)):
            connection.exec_driver_sql(sql, some)
    elif count > FEW and hasattr(_cursor(connection), "copy_expert"):
        _copy(connection, table, columns, insert, then)
    else:
        _insert_json(connection, table, columns, insert, then)


def read_columns(connection: Connection, query: sa.Select[Any]) -> Iterator[dict[str, Any]]:
    """The answer in parts of some rows, as one sequence per column, as the driver gives them: times are text on SQLite."""
    result = connection.execute(query)
    names, cursor = list(result.keys()), result.cursor
    while cursor is not None and (rows := cursor.fetchmany(ROWS)):
        yield dict(zip(names, zip(*rows, strict=True), strict=True))
    result.close()


def read_rows(connection: Connection, query: sa.Select[Any], record: Callable[[Iterable[Any]], T]) -> Iterator[T]:
    """The answer as records (`NamedTuple._make`), as SQLAlchemy would give them, but each distinct time is made once.

    Without JSON columns, and flags that are never NULL.
    """
    columns = list(query.selected_columns)
    made: dict[tuple[bool, Any], datetime | None] = {}
    for part in read_columns(connection, query):
        values = [
            _datetimes(value, column, made)
            if _is_time(column)
            else map(bool, value)
            if isinstance(column.type, sa.Boolean)
            else value
            for column, value in zip(columns, part.values(), strict=True)
        ]
        yield from map(record, zip(*values, strict=True))


def _datetimes(
    values: Sequence[Any], column: sa.ColumnElement[Any], made: dict[tuple[bool, Any], datetime | None]
) -> list[datetime | None]:
    is_instant = not isinstance(column.type, sa.DateTime)
    for value in set(values):
        if (is_instant, value) not in made:
            time = datetime.fromisoformat(value) if isinstance(value, str) else value
            made[is_instant, value] = time.replace(tzinfo=UTC) if time is not None and is_instant else time
    return [made[is_instant, value] for value in values]


def chunks(items: Collection[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some


def among(connection: Connection, column: sa.ColumnElement[Any], values: Collection[str]) -> sa.ColumnElement[bool]:
    """The condition that a text column has one of these values: they go as one JSON text.

    A bound value for each costs SQLAlchemy and the driver more than the database needs to find it (20,000: 0.4 s of CPU).
    """
    given: sa.ColumnElement[Any] = sa.literal(_json(list(values)))
    if connection.dialect.name == "sqlite":
        listed = sa.func.json_each(given)
    else:
        listed = sa.func.jsonb_array_elements_text(sa.cast(given, JSONB))
    return column.in_(sa.select(listed.table_valued(sa.column("value", sa.Text)).c.value))


def _on_conflict(table: sa.Table, names: Iterable[str], fixed: Collection[str]) -> str:
    keys = [column.name for column in table.primary_key]
    replaced = ", ".join(f"{name} = excluded.{name}" for name in names if name not in (*keys, *fixed))
    return f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {replaced}"


def _is_time(column: sa.ColumnElement[Any]) -> bool:
    return isinstance(column.type, sa.DateTime) or isinstance(getattr(column.type, "impl", None), sa.DateTime)


def _sqlite_values(column: sa.Column[Any], values: Any) -> list[Any]:
    """What SQLAlchemy's own types would bind. NaN needs no care: SQLite stores it as NULL (sqlite.org, "NaN")."""
    if _is_time(column):
        return _texts(values)
    if isinstance(column.type, sa.JSON):
        return [_json(value) for value in values]
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _texts(values: Any) -> list[str | None]:
    """Times as the database keeps them, UTC or shop-local without a zone, to the microsecond; each distinct one once."""
    if hasattr(values, "dtype"):
        import numpy as np

        distinct, place = np.unique(values, return_inverse=True)
        made = [_text(value) for value in distinct.astype("datetime64[us]").tolist()]
        return [made[position] for position in place.tolist()]
    known: dict[Any, str | None] = {value: _text(value) for value in set(values)}
    return [known[value] for value in values]


def _text(value: datetime | None) -> str | None:
    return None if value is None else _plain(value).isoformat(sep=" ", timespec="microseconds")


def _plain(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _cursor(connection: Connection) -> Any:
    """A cursor of the driver, in the same transaction."""
    return connection.connection.cursor()


def _copy(connection: Connection, table: sa.Table, columns: Columns, insert: str, then: str) -> None:
    listed = ", ".join(columns)
    target = f"new_{table.name}" if then else table.name
    if then:
        connection.exec_driver_sql(f"CREATE TEMP TABLE {target} AS SELECT {listed} FROM {table.name} LIMIT 0")
    with _cursor(connection) as cursor:
        cursor.copy_expert(f"COPY {target} ({listed}) FROM STDIN WITH (FORMAT csv)", _csv(table, columns))
    if then:
        connection.exec_driver_sql(f"{insert} SELECT {listed} FROM {target} {then}")
        connection.exec_driver_sql(f"DROP TABLE {target}")


def _csv(table: sa.Table, columns: Columns) -> io.BytesIO:
    """The rows as CSV in which NULL is nothing and the empty text is quoted."""
    import pyarrow as pa
    from pyarrow import csv

    arrays = {}
    for name, values in columns.items():
        column = table.c[name]
        if _is_time(column):
            arrays[name] = pa.array(_texts(values), pa.string())
        elif isinstance(column.type, sa.JSON):
            arrays[name] = pa.array([_json(value) for value in values], pa.string())
        else:
            kind = pa.string() if isinstance(column.type, sa.Text) else None
            arrays[name] = pa.array(values, kind, from_pandas=True)
    stream = io.BytesIO()
    csv.write_csv(pa.table(arrays), stream, csv.WriteOptions(include_header=False))
    stream.seek(0)
    return stream


def _insert_json(connection: Connection, table: sa.Table, columns: Columns, insert: str, then: str) -> None:
    names = tuple(columns)
    typed = ", ".join(f"{name} {table.c[name].type.compile(connection.dialect)}" for name in names)
    rows = f"SELECT {', '.join(names)} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS row_({typed})"
    statement = sa.text(f"{insert} {rows} {then}")
    values = [_json_values(table.c[name], column) for name, column in columns.items()]
    for some in chunks([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]):
        connection.execute(statement, {"rows": _json(some)})


def _json_values(column: sa.Column[Any], values: Any) -> list[Any]:
    if _is_time(column):
        return list(_texts(values))
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [None if isinstance(value, float) and value != value else value for value in listed]  # noqa: PLR0124
