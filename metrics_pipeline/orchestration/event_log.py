"""Dagster's event log in one SQLite file, with a pooled connection and batched writes.

Here: how events are stored. Not here: what they say, and where the file is (`instance`).

The stock storage opens a new engine and connection for each event and has no batch write: 80 assets × 30 days took
62 s, with this class 4.8 s (400 days: 16 s). PostgreSQL's storage does the same two things already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from dagster import DagsterEventType, EventLogEntry
from dagster._core.events import ASSET_CHECK_EVENTS
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.event_log.schema import AssetKeyTable, SqlEventLogStorageTable
from sqlalchemy.engine import Connection, Engine

BUSY_SECONDS = 60


class PooledSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """`ConsolidatedSqliteEventLogStorage` that keeps its connections and writes batches in one transaction."""

    @cached_property
    def _engine(self) -> Engine:
        engine = sa.create_engine(self._conn_string, connect_args={"timeout": BUSY_SECONDS})

        @sa.event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            # With a write-ahead log NORMAL loses at most the last events at a power cut, never the file.
            connection.execute("PRAGMA synchronous = NORMAL")

        return engine

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @cached_property
    def _tables(self) -> set[str]:
        with self._connect() as connection:
            return set(sa.inspect(connection).get_table_names())

    def has_table(self, table_name: str) -> bool:
        """Whether the file has the table; read once, because the schema only changes in `upgrade`."""
        return table_name in self._tables

    @cached_property
    def _asset_columns(self) -> set[str]:
        with self._connect() as connection:
            return {str(column["name"]) for column in sa.inspect(connection).get_columns(AssetKeyTable.name)}

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        """Asked with each event of an asset; read once, because the schema only changes in `upgrade`."""
        return column_name in self._asset_columns

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one asset (the materializations of a range of partitions) in one transaction.

        Only the last one can be the newest of its asset, so only that one updates the index of assets.
        """
        types = {event.get_dagster_event().event_type for event in events}
        keys = {event.get_dagster_event().asset_key for event in events}
        if len(keys) > 1 or types & (ASSET_CHECK_EVENTS | {DagsterEventType.ASSET_FAILED_TO_MATERIALIZE}):
            for event in events:
                self.store_event(event)
            return
        table = SqlEventLogStorageTable
        with self._connect() as connection:
            rows = connection.execute(
                table.insert().returning(table.c.id, sort_by_parameter_order=True),
                [self._event_to_row(event) for event in events],
            )
            ids = [row[0] for row in rows]
            self._store_asset_event_tags(connection, events, ids)
            self._store_asset_event(connection, events[-1], ids[-1])

    def dispose(self) -> None:
        """Give back the connections."""
        super().dispose()  # type: ignore[no-untyped-call]
        self._engine.dispose()
