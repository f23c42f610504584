from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import NotPublished, Published, UnknownMetric
from tests.warehouse.metric_tables import ALL_TIME, FIRST_NIGHT, LAST_NIGHTS, Row, daily, night, state, write_metric

COLUMNS = ["member", "period_start", "numerator", "denominator", "value", "definition_version"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three months of gmv in total, by region, by hour and by SKU."""
    with duckdb.connect() as con:
        rows = [
            row
            for dimension, member, value in (
                ("all", "all", 30.0),
                ("region", "华北", 10.0),
                ("region", "it's", 20.0),
                ("sku", "S1", 5.0),
            )
            for row in daily(date(2025, 9, 20), 53, value, dimension, member)
        ]
        write_metric(con, "strategic.gmv", rows)
        write_metric(
            con, "hourly.gmv_hourly", [Row(datetime(2025, 11, 11, hour), 1.0, grain="hour") for hour in range(24)]
        )
        publish(
            con,
            tmp_path,
            tables={"gmv": MetricTables(("strategic.gmv", "hourly.gmv_hourly"), state())},
            window=ALL_TIME,
            run_id="load",
            now=night(0),
        )
    return tmp_path


def test_a_series_is_one_member_of_one_dimension_by_day(directory: Path) -> None:
    frame = Published.open(directory).series("gmv", "region", "it's")
    assert list(frame.columns) == COLUMNS
    assert frame["value"].tolist() == [20.0] * 53
    assert frame["period_start"].iloc[0] == datetime(2025, 9, 20)
    assert frame["period_start"].is_monotonic_increasing
    assert set(frame["definition_version"]) == {"v1"}


def test_without_a_member_a_series_has_all_of_them(directory: Path) -> None:
    frame = Published.open(directory).series("gmv", "region", None, start=date(2025, 11, 11))
    assert frame[["member", "value"]].to_numpy().tolist() == [["it's", 20.0], ["华北", 10.0]]


def test_bounds_are_half_open_and_may_be_moments(directory: Path) -> None:
    published = Published.open(directory)
    assert len(published.series("gmv", start=date(2025, 10, 30), until=date(2025, 11, 2))) == 3
    hours = published.series("gmv", grain="hour", start=datetime(2025, 11, 11, 5), until=datetime(2025, 11, 11, 8))
    assert [moment.hour for moment in hours["period_start"]] == [5, 6, 7]


def test_files_are_those_of_the_months_that_meet_the_bounds(directory: Path) -> None:
    published = Published.open(directory)

    def months(start: date | None, until: date | None) -> set[str]:
        return {path.parent.name for path in published.files(start, until)}

    assert months(None, None) == {"month=2025-09", "month=2025-10", "month=2025-11"}
    assert months(date(2025, 10, 31), date(2025, 11, 1)) == {"month=2025-10"}
    assert months(date(2025, 10, 31), date(2025, 11, 2)) == {"month=2025-10", "month=2025-11"}
    assert months(date(2025, 12, 1), None) == set()
    assert all(path.is_absolute() and path.exists() for path in published.files())


def test_a_region_series_does_not_open_the_sku_files(directory: Path) -> None:
    published = Published.open(directory)
    for path in published.files(dimension="sku"):
        path.unlink()
    assert len(published.series("gmv", "region", "华北")) == 53
    assert len(published.series("gmv", "region", "华北", as_of=night(1))) == 53
    with pytest.raises(duckdb.IOException):
        published.series("gmv", "sku", "S1")


def test_a_connection_sees_exactly_the_files_of_the_version(directory: Path) -> None:
    stray = next((directory / "values").rglob("series-*.parquet"))
    stray.with_name("series-stray.parquet").write_bytes(stray.read_bytes())
    with Published.open(directory).connect() as con:
        assert con.execute("SELECT count(*) FROM metric_values").fetchone() == (53 * 4 + 24,)
        assert con.execute("SELECT count(*), count(DISTINCT run_id) FROM metric_history").fetchone() == (53 * 4 + 24, 1)
    with Published.open(directory).connect(date(2025, 11, 1), date(2025, 12, 1)) as con:
        assert con.execute("SELECT min(period_start) FROM metric_values").fetchone() == (datetime(2025, 11, 1),)


def test_an_opened_version_stays_what_it_is_while_newer_ones_are_published(directory: Path) -> None:
    held = Published.open(directory)
    with duckdb.connect() as con:
        write_metric(con, "strategic.gmv", daily(date(2025, 11, 8), 4, 1.0))
        publish(
            con,
            directory,
            tables={"gmv": MetricTables(("strategic.gmv",), state("v2"))},
            window=LAST_NIGHTS,
            run_id="night",
            now=night(1),
        )
    assert held.series("gmv", start=date(2025, 11, 8))["value"].tolist() == [30.0] * 4
    newer = Published.open(directory)
    assert newer.series("gmv", start=date(2025, 11, 8))["value"].tolist() == [1.0] * 4
    assert (held.metrics["gmv"].definition_version, newer.metrics["gmv"].definition_version) == ("v1", "v2")
    assert newer.version != held.version
    assert newer.created_at - held.created_at == timedelta(days=1)


def test_an_unknown_metric_is_an_error_that_names_the_known_ones(directory: Path) -> None:
    with pytest.raises(UnknownMetric, match="'gvm' is not published; published metrics: gmv"):
        Published.open(directory).series("gvm")


def test_nothing_published_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotPublished, match="run `metrics demo`, or `metrics load` and then `metrics nightly`"):
        Published.open(tmp_path / "nowhere")


def test_a_pointer_to_nothing_and_a_damaged_manifest_say_what_to_do(directory: Path) -> None:
    path = manifest.version_path(directory, Published.open(directory).version)
    path.write_text(path.read_text("utf-8")[:-9], "utf-8")
    with pytest.raises(NotPublished, match=r"is not a readable manifest: .*; publish again"):
        Published.open(directory)
    path.unlink()
    with pytest.raises(NotPublished, match="names a version whose manifest is gone"):
        Published.open(directory)


def test_a_manifest_of_another_format_is_refused(directory: Path) -> None:
    path = manifest.version_path(directory, Published.open(directory).version)
    path.write_text(path.read_text("utf-8").replace('"format":1', '"format":2'), "utf-8")
    with pytest.raises(NotPublished, match="format Input should be 1"):
        Published.open(directory)


def test_a_reader_that_loses_the_race_with_removal_takes_the_newer_version(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = manifest.read_version, []

    def gone_at_first(path: Path) -> manifest.Version:
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(manifest, "read_version", gone_at_first)
    assert Published.open(directory).created_at == FIRST_NIGHT


@pytest.fixture(scope="module")
def imported() -> set[str]:
    code = "import sys, metrics_pipeline.warehouse.read; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["pandas", "dagster", "dbt", "great_expectations", "pyarrow"])
def test_importing_the_reader_stays_light(imported: set[str], module: str) -> None:
    assert module not in imported
