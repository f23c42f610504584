"""Dying between any two steps, and what is left then."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from metrics_pipeline.store import Store
from metrics_pipeline.store.tables import metadata


class Crash(Exception):
    """The process is gone."""


def dump(store: Store, *, tables: set[str] | None = None) -> dict[str, list[str]]:
    """Every row of every table (or of these), without the number of the row."""
    with store.reading() as connection:
        return {
            table.name: sorted(
                map(str, connection.execute(sa.select(*(column for column in table.columns if column.name != "id"))))
            )
            for table in metadata.sorted_tables
            if tables is None or table.name in tables
        }


def wipe(store: Store) -> None:
    """Empty all tables."""
    with store.writing() as connection:
        for table in metadata.sorted_tables:
            connection.execute(sa.delete(table))


def crash_at(store: Store, step: int, act: Callable[[], object]) -> bool:
    """Do `act`, but die before its n-th statement or commit; False when it has fewer steps and came to its end."""
    seen = 0

    def strike(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            raise Crash

    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(store.engine, event, strike)
    try:
        act()
    except Crash:
        return True
    finally:
        for event in ("before_cursor_execute", "commit"):
            sa.event.remove(store.engine, event, strike)
    return False
