from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.build import BuildError
from metrics_pipeline.warehouse.manifest import Version
from metrics_pipeline.warehouse.publish import (
    GRACE_SECONDS,
    MetricTables,
    PublishError,
    collect_garbage,
    publish,
)
from metrics_pipeline.warehouse.read import MetricState, Published
from metrics_pipeline.warehouse.window import Window
from tests.warehouse import metric_tables
from tests.warehouse.metric_tables import (
    ALL_TIME,
    FIRST_NIGHT,
    LAST_NIGHTS,
    OCTOBER,
    Row,
    daily,
    night,
    state,
    write_metric,
)

GMV = {"gmv": MetricTables(("strategic.gmv",), state())}


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        write_metric(connection, "strategic.gmv", two_months(100.0))
        yield connection


def two_months(value: float) -> list[Row]:
    """23 days over October and November, in total, by region and by SKU."""
    return [
        row
        for dimension, member in (
            ("all", "all"),
            ("region", "华北"),
            ("region", "华东"),
            ("sku", "S1"),
            ("category|sku", "茶|S1"),
        )
        for row in daily(date(2025, 10, 20), 23, value, dimension, member)
    ]


def published_rows(directory: Path) -> list[Any]:
    with Published.open(directory).connect() as reader:
        return reader.execute("SELECT * FROM metric_values ORDER BY ALL").fetchall()


def publish_gmv(
    con: duckdb.DuckDBPyConnection | Path, directory: Path, window: Window = ALL_TIME, number: int = 0, **options: Any
) -> Version:
    options = {"tables": GMV, "run_id": f"run-{number}", "now": night(number), **options}
    return publish(con, directory, window=window, **options)


def test_published_values_are_the_metric_tables(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    write_metric(con, "hourly.gmv_hourly", [Row(datetime(2025, 11, 1, 13), 7.0, grain="hour")])
    write_metric(con, "operational.refund_rate", [Row(datetime(2025, 11, 1), None, numerator=0.0, denominator=0.0)])
    tables = {
        "gmv": MetricTables(("strategic.gmv", "hourly.gmv_hourly"), state()),
        "refund_rate": MetricTables(("operational.refund_rate",), state("v7")),
    }
    version = publish_gmv(con, tmp_path, tables=tables)
    expected = con.execute(
        "SELECT 'gmv' AS metric, * FROM strategic.gmv UNION ALL SELECT 'gmv', * FROM hourly.gmv_hourly "
        "UNION ALL SELECT 'refund_rate', * FROM operational.refund_rate"
    ).fetchall()
    columns = "metric, period_start, grain, dimension, member, numerator, denominator, value, definition_version"
    with Published.open(tmp_path).connect() as reader:
        assert set(reader.execute(f"SELECT {columns} FROM metric_values").fetchall()) == set(expected)
    assert version.changed_rows == len(expected) == 23 * 5 + 2
    assert Published.open(tmp_path).metrics["refund_rate"] == state("v7")


def test_the_build_file_may_be_given_as_a_path(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    build = tmp_path / "build.duckdb"
    with duckdb.connect(build) as file:
        write_metric(file, "strategic.gmv", two_months(100.0))
    from_path = publish_gmv(build, tmp_path / "path")
    assert from_path.values == publish_gmv(con, tmp_path / "connection").values


def test_a_night_rewrites_only_its_months_and_shares_the_other_files(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = publish_gmv(con, tmp_path)
    con.execute("UPDATE strategic.gmv SET value = 1, numerator = 1")
    second = publish_gmv(con, tmp_path, LAST_NIGHTS, number=1)
    for month, shared in ((date(2025, 10, 1), True), (date(2025, 11, 1), False)):
        former, latter = ({f.path for f in v.values if f.month == month} for v in (first, second))
        assert (former == latter) is shared
        assert len(latter) == 2
    assert {row[7] for row in published_rows(tmp_path)} == {1.0, 100.0}
    assert second.changed_rows == 11 * 5


def test_only_the_part_that_changed_is_written_anew(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first = publish_gmv(con, tmp_path)
    con.execute("UPDATE strategic.gmv SET value = 1 WHERE dimension = 'category|sku' AND period_start >= '2025-11-01'")
    second = publish_gmv(con, tmp_path, LAST_NIGHTS, number=1)
    changed = [file for file in second.values if file not in first.values]
    assert [(file.part, file.month.month) for file in changed] == [("sku", 11)]


def test_the_same_values_again_make_no_new_version(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first = publish_gmv(con, tmp_path)
    files = sorted(tmp_path.rglob("*"))
    con.execute("CREATE OR REPLACE TABLE strategic.gmv AS SELECT * FROM strategic.gmv ORDER BY random()")
    assert publish_gmv(con, tmp_path, number=1) == first
    assert sorted(tmp_path.rglob("*")) == files


def test_the_same_values_in_other_bytes_make_no_new_version(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish_gmv(con, tmp_path)
    monkeypatch.setattr("metrics_pipeline.warehouse.publish._WRITE", "(FORMAT parquet, COMPRESSION snappy)")
    assert publish_gmv(con, tmp_path, number=1) == first


def test_a_changed_state_alone_is_a_new_version_with_the_same_files(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = publish_gmv(con, tmp_path)
    later = {"gmv": MetricTables(("strategic.gmv",), state(complete_until=datetime(2025, 11, 13)))}
    second = publish_gmv(con, tmp_path, LAST_NIGHTS, number=1, tables=later)
    assert second.id != first.id
    assert (second.values, second.history, second.changed_rows) == (first.values, first.history, 0)
    assert Published.open(tmp_path).metrics["gmv"].complete_until == datetime(2025, 11, 13)


def test_an_absent_metric_has_its_reason_and_no_values(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    absent = MetricState("v1", absent_en="the source has no ad spend", absent_zh="数据源没有广告花费")
    publish_gmv(con, tmp_path, tables={**GMV, "ad_spend": MetricTables((), absent)})
    published = Published.open(tmp_path)
    assert published.metrics["ad_spend"] == absent
    assert published.series("ad_spend").empty
    assert not published.series("gmv").empty


def test_only_the_slices_that_the_source_can_tell_apart_are_published(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    write_metric(
        con,
        "base.orders_paid",
        [*daily(date(2025, 11, 1), 2, 5.0), *daily(date(2025, 11, 1), 2, 5.0, "channel", "unknown")],
    )
    tables = {"orders_paid": MetricTables(("base.orders_paid",), state(), dimensions=("all", "region"))}
    publish_gmv(con, tmp_path, tables=tables)
    with Published.open(tmp_path).connect() as reader:
        assert reader.execute("SELECT DISTINCT dimension FROM metric_values").fetchall() == [("all",)]


def test_a_publication_of_nothing_can_be_read(tmp_path: Path) -> None:
    absent = MetricTables((), MetricState("v1", absent_en="no", absent_zh="无"))
    with duckdb.connect() as con:
        publish_gmv(con, tmp_path, tables={"gmv": absent})
    assert published_rows(tmp_path) == []
    assert Published.open(tmp_path).series("gmv", as_of=night(3)).empty


def test_files_are_sorted_by_key_and_sku_rows_are_apart(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    version = publish_gmv(con, tmp_path)
    for file in version.values:
        rows = con.execute(
            "SELECT metric, grain, dimension, member, period_start FROM read_parquet($1)", [str(tmp_path / file.path)]
        ).fetchall()
        assert rows == sorted(rows)
        assert {"sku" in row[2] for row in rows} == {file.part == "sku"}
        assert {row[4].date().replace(day=1) for row in rows} == {file.month}


def test_every_wrong_table_is_named_at_once_and_nothing_is_published(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    con.execute("CREATE TABLE strategic.arpu AS SELECT 1 AS value, 'day' AS grain")
    tables = {
        **GMV,
        "arpu": MetricTables(("strategic.arpu",), state()),
        "profit_margin": MetricTables(("strategic.profit_margin",), state()),
        "complaints": MetricTables((), state()),
    }
    with pytest.raises(PublishError) as error:
        publish_gmv(con, tmp_path, tables=tables)
    message = str(error.value)
    assert "arpu lacks period_start, dimension, member, numerator, denominator, definition_version" in message
    assert "no table strategic.profit_margin" in message
    assert "complaints names no table" in message
    assert not (tmp_path / "CURRENT").exists()


def test_two_rows_for_one_key_are_refused(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    con.execute("INSERT INTO strategic.gmv SELECT * FROM strategic.gmv WHERE member = '华北' LIMIT 1")
    with pytest.raises(PublishError, match="metric gmv: 2 rows for region = 华北, day 2025-10-20"):
        publish_gmv(con, tmp_path)
    assert not (tmp_path / "CURRENT").exists()


def test_a_missing_build_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no build file yet; load data first"):
        publish_gmv(tmp_path / "build.duckdb", tmp_path / "published")


def test_only_one_publishes_at_a_time(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    publish_gmv(con, tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,fcntl.LOCK_EX); print('held',flush=True); "
            "sys.stdin.read()",
            str(tmp_path / ".lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        holder.stdout.readline()
        with pytest.raises(PublishError, match="another publish"):
            publish_gmv(con, tmp_path, number=1)
        holder.stdin.close()
    publish_gmv(con, tmp_path, number=1)


def test_a_current_version_that_is_gone_is_explained_to_writer(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    version = publish_gmv(con, tmp_path)
    manifest.version_path(tmp_path, version.id).unlink()
    with pytest.raises(PublishError, match="remove that file and publish all of history anew"):
        publish_gmv(con, tmp_path, number=1)
    manifest.current_path(tmp_path).unlink()
    assert publish_gmv(con, tmp_path, number=1).values == version.values


def test_the_clock_of_versions_never_runs_backwards(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    first = publish_gmv(con, tmp_path)
    con.execute("UPDATE strategic.gmv SET value = 1")
    second = publish_gmv(con, tmp_path, now=(FIRST_NIGHT - timedelta(days=9)).replace(tzinfo=UTC), run_id="r")
    assert second.created_at > first.created_at
    assert (Published.open(tmp_path).series("gmv", as_of=second.created_at)["value"] == 1).all()


# ── old versions ────────────────────────────────────────────────────────────────────────────────────────────────


def publish_nights(con: duckdb.DuckDBPyConnection, directory: Path, nights: int, **options: Any) -> list[Version]:
    versions = []
    for number in range(nights):
        write_metric(con, "strategic.gmv", two_months(float(number)))
        versions.append(publish_gmv(con, directory, LAST_NIGHTS if number else ALL_TIME, number, **options))
    return versions


def age(directory: Path, seconds: float) -> None:
    """Make everything in the folder look older."""
    for path in directory.rglob("*"):
        stat = path.stat()
        os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def test_old_versions_go_but_nothing_that_a_reader_may_hold(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    versions = publish_nights(con, tmp_path, 5)
    assert collect_garbage(tmp_path, keep_versions=2) == []  # all were current within the hour

    age(tmp_path, GRACE_SECONDS + 1)
    held = Published.open(tmp_path)  # of the fifth night
    write_metric(con, "strategic.gmv", two_months(99.0))
    newest = publish_gmv(con, tmp_path, LAST_NIGHTS, number=5, keep_versions=1)
    left = {path.stem for path in (tmp_path / "versions").iterdir()}
    assert left == {versions[-1].id, newest.id}  # the former one was replaced just now
    assert len(held.series("gmv")) == 23

    needed = newest.paths() | versions[-1].paths()
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")} == needed

    age(tmp_path, GRACE_SECONDS + 1)
    collect_garbage(tmp_path, keep_versions=1)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")} == newest.paths()
    assert Published.open(tmp_path).series("gmv", as_of=night(2)).value.tolist()[-1] == 2.0


def test_the_last_versions_are_kept_whole(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    versions = publish_nights(con, tmp_path, 6)
    age(tmp_path, GRACE_SECONDS + 1)
    collect_garbage(tmp_path, keep_versions=3)
    for number in (3, 4, 5):
        path = manifest.version_path(tmp_path, versions[number].id)
        old = Published(tmp_path, manifest.read_version(path))
        assert old.series("gmv", start=date(2025, 11, 8))["value"].unique().tolist() == [float(number)]
    assert not manifest.version_path(tmp_path, versions[2].id).exists()


# ── killed at any point ─────────────────────────────────────────────────────────────────────────────────────────


class Killed(BaseException):
    pass


def test_a_publish_that_dies_at_any_step_leaves_a_complete_version(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_gmv(con, tmp_path)
    before = published_rows(tmp_path)
    write_metric(con, "strategic.gmv", two_months(200.0))
    for step in range(200):
        with monkeypatch.context() as patch:
            die_at(patch, step)
            try:
                publish_gmv(con, tmp_path, number=1)
            except Killed:
                pass
            else:
                break
        rows = published_rows(tmp_path)
        if rows != before:  # died after CURRENT was replaced: published, and whole
            assert {row[7] for row in rows} == {200.0}
            write_metric(con, "strategic.gmv", two_months(200.0 + step))
            publish_gmv(con, tmp_path, number=2 + step)
            write_metric(con, "strategic.gmv", two_months(100.0))
            publish_gmv(con, tmp_path, number=3 + step)
            write_metric(con, "strategic.gmv", two_months(200.0))
            before = published_rows(tmp_path)
    assert step > 10, "the publish was interrupted at every one of its steps"
    assert {row[7] for row in published_rows(tmp_path)} == {200.0}
    versions = {path.stem for path in (tmp_path / "versions").iterdir()}
    assert versions == {version.id for version in chain(tmp_path)}, "a manifest nobody saw was left behind"
    assert not (tmp_path / ".staging").exists()


def chain(directory: Path) -> Iterator[Version]:
    version = manifest.read_current(directory)
    while version is not None:
        yield version
        path = version.previous and manifest.version_path(directory, version.previous)
        version = manifest.read_version(path) if path else None


def die_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Die before the nth rename, fsync or statement."""
    remaining = [step]

    def mortal(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if remaining[0] == 0:
                raise Killed
            remaining[0] -= 1
            return function(*arguments, **options)

        return call

    patch.setattr(Path, "replace", mortal(Path.replace))
    patch.setattr(os, "fsync", mortal(os.fsync))


@pytest.mark.slow
def test_a_polling_reader_never_errs_while_publishing_is_killed_again_and_again(tmp_path: Path) -> None:
    random_moments = random.Random(7)
    seen: list[int] = []
    problems: list[BaseException] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.is_set():
            try:
                seen.append(read_one_number(tmp_path))
            except BaseException as error:
                problems.append(error)
                return

    reader = threading.Thread(target=poll)
    first = 1
    for _ in range(8):
        with writer(tmp_path, first) as process:
            wait_for_a_version_after(tmp_path, first - 1)
            if not reader.is_alive() and not problems:
                reader.start()
            time.sleep(random_moments.uniform(0.0, 0.5))
            process.send_signal(signal.SIGKILL)
        first = read_one_number(tmp_path) + 1
    stop.set()
    reader.join()
    assert not problems, repr(problems[0])
    assert seen == sorted(seen), "a reader went back to an older version"
    assert len(set(seen)) > 5
    with duckdb.connect() as con:
        write_metric(con, "strategic.gmv", two_months(5.0))
        publish_gmv(con, tmp_path, number=9999)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "CURRENT", "versions", "values", "history"}
    assert len(list((tmp_path / "versions").iterdir())) == len(list(chain(tmp_path)))


def writer(directory: Path, first: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", metric_tables.__name__, str(directory), str(first)], cwd=PROJECT_ROOT
    )


def wait_for_a_version_after(directory: Path, number: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        version = manifest.read_current(directory)
        if version is not None and int(version.run_id.removeprefix("run-")) > number:
            return
        time.sleep(0.02)
    raise AssertionError("the writer published nothing")


def read_one_number(directory: Path) -> int:
    """The number all values of the current version have; any other value in it is a torn read."""
    published = Published.open(directory)
    with published.connect() as con:
        values = con.execute("SELECT min(value), max(value), count(*) FROM metric_values").fetchone()
    number = float(published.manifest.run_id.removeprefix("run-"))
    assert values == (number, number, 23 * 4 * 3)
    assert {float(state.definition_version) for state in published.metrics.values()} == {number}
    return int(number)


def test_the_window_of_a_month_is_whole_however_little_of_it_was_rebuilt(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    publish_gmv(con, tmp_path, OCTOBER)
    assert {row[1].month for row in published_rows(tmp_path)} == {10}
    publish_gmv(con, tmp_path, Window(date(2025, 11, 11), date(2025, 11, 12)), number=1)
    assert len(published_rows(tmp_path)) == 23 * 5
