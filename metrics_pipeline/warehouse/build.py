"""The private build file: the one place that opens it, and the schema `raw` inside it.

DuckDB's file lock is two-way: while one process has the file open for writing nobody else can open it at all, and an
open reader in another process makes the writer fail. So the file is opened for as short as possible, only here, and
only by the one writer; everybody else reads published versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection
from tenacity import RetryError, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from metrics_pipeline.sources.contract import Contract, load_contract

LOCK_WAIT_SECONDS = 60.0
"""How long a run waits for another one to leave the file: longer than a nightly step, shorter than a person's patience."""
MEMORY_LIMIT = "4GB"
"""A laptop's share. Loads are batched by month, so 20 M orders stay below it; DuckDB spills beside the file beyond it."""


class BuildError(RuntimeError):
    """The build file cannot be used; the message names the file and the mend."""


class BuildLocked(BuildError):
    """Another process kept the build file open for longer than the bounded wait."""


_BOOKKEEPING = (
    "CREATE SCHEMA IF NOT EXISTS raw",
    "CREATE TABLE IF NOT EXISTS raw._coverage (table_name VARCHAR, covered_from TIMESTAMP, covered_until TIMESTAMP)",
    "CREATE TABLE IF NOT EXISTS raw._windows (table_name VARCHAR, loaded_from TIMESTAMP, loaded_until TIMESTAMP)",
    "CREATE TABLE IF NOT EXISTS raw._loads"
    " (batch_id VARCHAR, table_name VARCHAR, source VARCHAR, rows_read BIGINT, rows_accepted BIGINT,"
    " rows_unchanged BIGINT, rows_duplicate BIGINT, rows_quarantined BIGINT, clock_min TIMESTAMP,"
    " clock_max TIMESTAMP, loaded_at TIMESTAMP)",
    "ALTER TABLE raw._loads ADD COLUMN IF NOT EXISTS rows_clockless BIGINT DEFAULT 0",
    "CREATE TABLE IF NOT EXISTS raw._quarantine"
    " (table_name VARCHAR, batch_id VARCHAR, row_key VARCHAR, reason VARCHAR, row_json VARCHAR,"
    " quarantined_at TIMESTAMP)",
    "CREATE TABLE IF NOT EXISTS raw._touched (table_name VARCHAR, day DATE, loaded_at TIMESTAMP)",
)


@contextmanager
def connect_build(
    path: Path, read_only: bool = False, *, wait_seconds: float = LOCK_WAIT_SECONDS
) -> Iterator[DuckDBPyConnection]:
    """Open the build file (made with its folder when absent) and close it on leaving. The session clock is UTC.

    Waits up to `wait_seconds` for another process to let go of the file, then raises `BuildLocked`; a file that is
    missing (when `read_only`) or that is not a DuckDB file raises `BuildError`.
    """
    con = _open(path, read_only, wait_seconds)
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        # Rows keep no order of their own; without it inserts need half the memory and a sixth less CPU.
        con.execute("SET preserve_insertion_order = false")
        yield con
    finally:
        con.close()


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, duckdb.IOException) and "lock" in str(error).lower()


def _open(path: Path, read_only: bool, wait_seconds: float) -> DuckDBPyConnection:
    if read_only and not path.exists():
        raise BuildError(f"{path}: there is no build file yet; load data first (`metrics load` or `metrics demo`)")
    path.parent.mkdir(parents=True, exist_ok=True)
    attempts = Retrying(
        retry=retry_if_exception(_is_locked),
        stop=stop_after_delay(wait_seconds),
        wait=wait_exponential_jitter(initial=0.1, max=2.0),
    )
    try:
        return attempts(duckdb.connect, str(path), read_only=read_only)
    except RetryError as error:
        holder = str(error.last_attempt.exception()).splitlines()[0]
        raise BuildLocked(
            f"{path}: still open in another process after {wait_seconds:.0f} s ({holder}). "
            "Only one run may write at a time: wait for it to end, or close the program that has the file open."
        ) from None
    except duckdb.ConnectionException:
        raise BuildError(
            f"{path}: is open in this process already, for {'writing' if read_only else 'reading only'}; "
            "leave that `connect_build` first"
        ) from None
    except duckdb.Error as error:
        raise BuildError(
            f"{path}: cannot be opened as the build file ({str(error).splitlines()[0]}). "
            "When the file is damaged, move it away and load again: it holds nothing that the sources do not."
        ) from None


def ensure_raw_schema(con: DuckDBPyConnection, contract: Contract | None = None) -> None:
    """Make schema `raw` with every contract table and the bookkeeping tables; add columns the contract gained.

    Raises `BuildError` when a column of the file has another type than the contract says.
    """
    contract = contract or load_contract()
    for statement in _BOOKKEEPING:
        con.execute(statement)
    for table in contract.tables:
        con.execute(table.create_statement())
    found: dict[tuple[str, str], str] = {
        (table_name, column_name): data_type
        for table_name, column_name, data_type in con.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns()"
            " WHERE schema_name = 'raw' AND database_name = current_database()"
        ).fetchall()
    }
    for table in contract.tables:
        wanted = {column.name: column.duckdb_type for column in table.columns} | table.load_columns
        for name, wanted_type in wanted.items():
            data_type = found.get((table.name, name))
            if data_type is None:
                con.execute(f"ALTER TABLE raw.{table.name} ADD COLUMN {name} {wanted_type}")
            elif data_type != wanted_type:
                raise BuildError(
                    f"raw.{table.name}.{name} is {data_type} in the build file, {wanted_type} in the "
                    "contract. Move the build file away and load again, or change the contract back."
                )
