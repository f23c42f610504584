"""Stores for tests: a new SQLite file, or a database of its own on the PostgreSQL of this machine.

A test kills processes, never the machine, so no commit has to wait for the disk. The schema is migrated once per process
and copied from there; what migrating does is tested in test_database and test_carry_over, on databases that begin empty.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from metrics_pipeline.store import Store
from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.tables import metadata

POSTGRES = os.environ.get("METRICS_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/test")


@cache
def sqlite_template() -> Path:
    """An empty store with the schema of now, to be copied."""
    folder = Path(tempfile.mkdtemp(prefix="metrics_store_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    store = open_url(f"sqlite:///{folder / 'store.db'}")
    with store.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    return folder / "store.db"


def new_home(home: Path) -> Path:
    """The folder of an installation with an empty store in it: the first command there migrates nothing."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sqlite_template(), home / "store.db")
    return home


@contextmanager
def sqlite_store(folder: Path) -> Iterator[Store]:
    if not (folder / "store.db").exists():
        new_home(folder)
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
def postgres_url(*, template: str = "template1") -> Iterator[str]:
    """The URL of a new database, dropped afterwards; skips where there is no server or no driver."""
    name = f"metrics_{uuid.uuid4().hex[:12]}"
    try:
        admin = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
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


@cache
def postgres_template() -> str:
    """The name of a database with the schema of now, to be copied; dropped when this process ends."""
    held = postgres_url()
    url = held.__enter__()
    atexit.register(held.__exit__, None, None, None)
    open_url(url).close()  # nobody may be connected to a template
    return str(sa.engine.make_url(url).database)


@cache
def _shared_postgres() -> tuple[str, sa.Engine]:
    """The URL of a database that the tests of this process use one after the other, and who empties it."""
    held = postgres_url(template=postgres_template())
    url = held.__enter__()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    atexit.register(held.__exit__, None, None, None)
    return url, engine


@contextmanager
def emptied_postgres_store() -> Iterator[Store]:
    """A store in a database that is emptied afterwards: creating and dropping one costs ten times as much.

    For tests that leave the schema as it is.
    """
    url, engine = _shared_postgres()
    store = open_url(url)
    try:
        yield store
    finally:
        store.close()
        with engine.connect() as connection:
            _empty(connection)


def _empty(connection: sa.Connection) -> None:
    """Delete every row, restart every sequence; whoever is still connected was left by a killed process."""
    connection.execute(
        sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
    names = [name for name in metadata.tables if name != "alembic_version"]
    some = " UNION ALL ".join(f"SELECT '{name}' WHERE EXISTS (SELECT 1 FROM {name})" for name in names)
    connection.execute(sa.text("SET session_replication_role = replica"))  # else the audit log keeps its rows
    for name in list(connection.execute(sa.text(some)).scalars()):
        connection.execute(sa.text(f"DELETE FROM {name}"))
    used = sa.text(
        "SELECT quote_ident(sequencename) FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
    )
    for sequence in list(connection.execute(used).scalars()):
        connection.execute(sa.text(f"ALTER SEQUENCE {sequence} RESTART"))


@contextmanager
def postgres_store() -> Iterator[Store]:
    with postgres_url(template=postgres_template()) as url:
        store = open_url(url)
        try:
            yield store
        finally:
            store.close()
