from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.warehouse.build import BuildError, BuildLocked, connect_build, ensure_raw_schema


def test_the_schema_has_every_contract_table_and_the_bookkeeping(tmp_path: Path) -> None:
    with connect_build(tmp_path / "warehouse" / "build.duckdb") as con:
        ensure_raw_schema(con)
        ensure_raw_schema(con)
        tables = {
            row[0] for row in con.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw'").fetchall()
        }
        assert {*load_contract().table_names, "_coverage", "_loads", "_quarantine", "_touched"} <= tables
        assert con.execute("SELECT current_setting('TimeZone')").fetchone() == ("UTC",)


def test_a_column_the_contract_gained_is_added(tmp_path: Path) -> None:
    with connect_build(tmp_path / "build.duckdb") as con:
        ensure_raw_schema(con)
        con.execute("ALTER TABLE raw.orders DROP COLUMN freight_amount")
        ensure_raw_schema(con)
        assert con.execute("SELECT freight_amount FROM raw.orders").fetchall() == []


def test_another_column_type_is_an_error_with_its_mend(tmp_path: Path) -> None:
    with connect_build(tmp_path / "build.duckdb") as con:
        ensure_raw_schema(con)
        con.execute("ALTER TABLE raw.orders ALTER freight_amount TYPE VARCHAR")
        with pytest.raises(
            BuildError, match=r"raw\.orders\.freight_amount is VARCHAR .* DECIMAL\(18,4\) in the contract"
        ):
            ensure_raw_schema(con)


def test_reading_a_file_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(BuildError, match="no build file yet; load data first"),
        connect_build(tmp_path / "b.duckdb", True),
    ):
        pass


def test_a_file_of_another_kind_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "build.duckdb"
    path.write_text("not a database, but long enough to look at " * 200)
    with pytest.raises(BuildError, match="move it away and load again"), connect_build(path):
        pass


def test_a_locked_file_is_waited_for_and_then_named(tmp_path: Path) -> None:
    path = tmp_path / "build.duckdb"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import duckdb, sys; c = duckdb.connect({str(path)!r}); print('open', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BuildLocked, match="still open in another process"), connect_build(path, wait_seconds=0.3):
            pass
    finally:
        holder.communicate(b"")
    with connect_build(path) as con:
        assert con.execute("SELECT 1").fetchone() == (1,)


def test_a_second_opening_in_another_mode_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "build.duckdb"
    with (
        connect_build(path),
        pytest.raises(BuildError, match="open in this process already"),
        connect_build(path, True),
    ):
        pass
