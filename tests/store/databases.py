"""Stores for tests: a new SQLite file, or a database of its own on the PostgreSQL of this machine.

A test kills processes, never the machine, so no commit has to wait for the disk.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.store import Store
from metrics_pipeline.store.database import open_url

POSTGRES = os.environ.get("METRICS_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/test")


@contextmanager
def sqlite_store(folder: Path) -> Iterator[Store]:
    store = open_url(f"sqlite:///{folder / 'store.db'}")
    store.close()

    @sa.event.listens_for(store.engine, "connect")
    def _without_waiting_for_the_disk(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    try:
        yield store
    finally:
        store.close()


@contextmanager
def postgres_url() -> Iterator[str]:
    """The URL of a new database, dropped afterwards; skips where there is no server or no driver."""
    name = f"metrics_{uuid.uuid4().hex[:12]}"
    try:
        admin = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
            connection.execute(sa.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    except ModuleNotFoundError as error:
        pytest.skip(f"no PostgreSQL driver: {error.name} is not installed")
    except sa.exc.OperationalError as error:
        pytest.skip(f"no PostgreSQL at {POSTGRES}: {str(error.orig).strip().splitlines()[0]}")
    try:
        yield sa.engine.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def postgres_store() -> Iterator[Store]:
    with postgres_url() as url:
        store = open_url(url)
        try:
            yield store
        finally:
            store.close()
