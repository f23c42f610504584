"""Dying between any two steps, and what is left then."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from metrics_pipeline.store import Store
from metrics_pipeline.store.tables import metadata

APPEND_ONLY = {"audit_log", "audit_checkpoints"}


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
            if (tables is None or table.name in tables) and table.name not in APPEND_ONLY
        }


def wipe(store: Store) -> None:
    """Empty all tables but those that refuse it."""
    with store.writing() as connection:
        for table in metadata.sorted_tables:
            if table.name in APPEND_ONLY:
                continue
            connection.execute(sa.delete(table))


def crash_at(store: Store, step: int, act: Callable[[], object]) -> bool:
    """Do `act`, but die before its n-th statement or commit; False when it has fewer steps and came to its end."""

    def die() -> None:
        raise Crash

    try:
        with _before_step(store, step, die):
            act()
    except Crash:
        return True
    return False


def killed_at(store: Store, step: int, act: Callable[[], object]) -> bool:
    """Do `act` in a process of its own that is killed before its n-th statement or commit; False when it came to its end."""
    store.close()  # no connection has two owners
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with _before_step(store, step, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), f"the process ended with {status}"
    return status != 0


@contextmanager
def _before_step(store: Store, step: int, strike: Callable[[], None]) -> Iterator[None]:
    """`strike` before the n-th statement or commit of the block."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == step:
            strike()

    for event in ("before_cursor_execute", "commit"):
        sa.event.listen(store.engine, event, count)
    try:
        yield
    finally:
        for event in ("before_cursor_execute", "commit"):
            sa.event.remove(store.engine, event, count)
