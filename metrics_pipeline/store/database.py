"""Opening the store: engine, schema, transactions.

SQLite runs in WAL mode with explicit transactions: a writer takes the write lock at `BEGIN IMMEDIATE`, so that what it
read is still true when it writes. On PostgreSQL an advisory lock per purpose does the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from metrics_pipeline.settings import Settings
from metrics_pipeline.store.anchor import Anchor
from metrics_pipeline.store.migrations import HEAD, KNOWN

BUSY_SECONDS = 60
"""How long a SQLite connection waits for another writer: longer than the slowest transaction (a storm of alerts)."""


class StoreError(RuntimeError):
    """The store cannot be opened; the message says why and what to do. It never contains a password."""


@dataclass(frozen=True)
class Store:
    """The operational store of one installation, migrated and ready. Build it with `open_store`."""

    engine: Engine
    audit_head: Path | None = None
    """Where the head of the audit log is kept beside the database; None = nowhere."""

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view of the store; nothing is written."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, purpose: str = "write") -> Iterator[Connection]:
        """One transaction, committed at the end of the block, rolled back on any error.

        Two blocks of the same `purpose` never overlap, in this or any other process.
        """
        anchor = Anchor(self.audit_head)
        options = {"metrics_write": True, "metrics_anchor": anchor}
        with self.engine.connect().execution_options(**options) as connection, connection.begin():
            if not self.is_sqlite:
                advisory_lock(connection, purpose)
            yield connection
        anchor.keep()

    def close(self) -> None:
        """Give back all connections."""
        self.engine.dispose()


def open_store(settings: Settings) -> Store:
    """Open the store of an installation, creating or migrating its schema.

    Raises `StoreError` when the URL, the driver, the server or the schema version is not usable.
    """
    return open_url(settings.database_url, audit_head=settings.audit_head_file)


def open_url(url: str, *, audit_head: Path | None = None) -> Store:
    """Open (and migrate) the store at a SQLAlchemy URL. Raises `StoreError`."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            "METRICS_STORE_URL is not a database URL; expected e.g. postgresql+psycopg2://user:password@host/database"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.get_backend_name() == "sqlite" and parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    try:
        engine = _engine(parsed)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{shown} needs the Python package {error.name!r}; install it or unset METRICS_STORE_URL to use SQLite"
        ) from None
    except NoSuchModuleError:
        raise StoreError(f"{shown}: unknown kind of database; use sqlite or postgresql") from None
    store = Store(engine, audit_head)
    try:
        _migrate(store, shown)
    except DBAPIError as error:
        store.close()
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        raise StoreError(f"{shown} cannot be opened: {reason}. Check the URL and that the server accepts it.") from None
    except BaseException:
        store.close()
        raise
    return store


def _engine(url: URL) -> Engine:
    options: dict[str, Any] = {"json_serializer": _to_json, "pool_pre_ping": True}
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, **options)
    engine = sa.create_engine(url, **options, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver would otherwise begin and commit on its own, around DDL for one
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("metrics_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def advisory_lock(connection: Connection, purpose: str) -> None:
    """Wait for, and hold until the transaction ends, PostgreSQL's lock of a purpose."""
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(:space, :purpose)"),
        {"space": 0x6D657472, "purpose": zlib.crc32(purpose.encode()) & 0x7FFFFFFF},
    )


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _migrate(store: Store, shown: str) -> None:
    with store.reading() as connection:
        if (revision := _revision(connection)) == HEAD:  # the usual case costs no import of Alembic
            return
    if revision is not None and revision not in KNOWN:
        raise StoreError(
            f"{shown} was written by a newer release (schema {revision}, this one knows {HEAD}); upgrade the package"
        )
    from alembic import command
    from alembic.config import Config

    with store.writing("migrate") as connection:
        if _revision(connection) == HEAD:  # another process was faster
            return
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
