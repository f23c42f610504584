from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.warehouse import history
from metrics_pipeline.warehouse.manifest import Version
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import Published
from tests.warehouse.metric_tables import ALL_TIME, LAST_NIGHTS, NOVEMBER, Row, daily, night, state, write_metric

TABLE = "operational.refund_rate"
ONE_DAY = datetime(2025, 11, 10)


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def publish_rows(con: duckdb.DuckDBPyConnection, directory: Path, rows: list[Row], number: int) -> Version:
    write_metric(con, TABLE, rows)
    return publish(
        con,
        directory,
        tables={"refund_rate": MetricTables((TABLE,), state())},
        window=LAST_NIGHTS if number else ALL_TIME,
        run_id=f"run-{number}",
        now=night(number),
    )


def values_as_of(directory: Path, moment: datetime, dimension: str = "all", member: str = "all") -> list[float | None]:
    frame = Published.open(directory).series("refund_rate", dimension, member, as_of=moment)
    return [None if value != value else value for value in frame["value"]]


def test_a_value_is_read_as_it_was_known(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    for number, value in enumerate((0.10, 0.12, 0.12, 0.11)):
        publish_rows(con, tmp_path, [Row(ONE_DAY, value)], number)
    a_minute = timedelta(minutes=1)
    assert values_as_of(tmp_path, night(0) - a_minute) == []
    assert values_as_of(tmp_path, night(0)) == [0.10]
    assert values_as_of(tmp_path, night(1) - a_minute) == [0.10]
    assert values_as_of(tmp_path, night(2)) == [0.12]
    assert values_as_of(tmp_path, night(9)) == [0.11]
    changes = Published.open(tmp_path).changes("refund_rate")
    assert changes["value"].tolist() == [0.10, 0.12, 0.11]
    assert changes["run_id"].tolist() == ["run-0", "run-1", "run-3"]


def test_a_value_comes_with_the_definition_that_made_it(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1)], 0)
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1, definition_version="v2")], 1)
    published = Published.open(tmp_path)
    for moment, version, run in ((night(0), "v1", "run-0"), (night(1), "v2", "run-1")):
        frame = published.series("refund_rate", as_of=moment)
        assert frame[["value", "definition_version", "run_id"]].to_numpy().tolist() == [[0.1, version, run]]


def test_a_vanished_value_is_recorded_and_may_come_back(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    other = Row(ONE_DAY + timedelta(days=1), 0.3)
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1), other], 0)
    publish_rows(con, tmp_path, [other], 1)
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1), other], 2)
    assert [values_as_of(tmp_path, night(number)) for number in range(3)] == [[0.1, 0.3], [0.3], [0.1, 0.3]]
    gone = Published.open(tmp_path).changes("refund_rate", until=ONE_DAY + timedelta(days=1)).iloc[1]
    assert gone[["numerator", "denominator", "value"]].isna().all()
    assert gone["definition_version"] == "v1"


def test_a_month_may_vanish_as_a_whole(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1)], 0)
    version = publish_rows(con, tmp_path, [], 1)
    assert version.values == ()
    assert version.changed_rows == 1
    assert values_as_of(tmp_path, night(1)) == []
    assert values_as_of(tmp_path, night(0)) == [0.1]
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1)], 2)
    assert [values_as_of(tmp_path, night(number)) for number in range(3)] == [[0.1], [], [0.1]]


def test_a_ratio_over_nothing_is_a_value_that_is_null_not_a_vanished_one(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1)], 0)
    publish_rows(con, tmp_path, [Row(ONE_DAY, None, numerator=0.0, denominator=0.0)], 1)
    assert values_as_of(tmp_path, night(1)) == [None]


def test_a_first_publish_stores_nothing_twice(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    publish_rows(con, tmp_path, daily(date(2025, 10, 20), 20, 0.1), 0)
    assert not (tmp_path / "history").exists()
    assert values_as_of(tmp_path, night(0)) == [0.1] * 20


def test_a_night_without_changes_adds_nothing(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    rows = daily(date(2025, 11, 1), 5, 0.1)
    first = publish_rows(con, tmp_path, rows, 0)
    second = publish_rows(con, tmp_path, [*rows, Row(ONE_DAY, 0.2)], 1)
    again = publish_rows(con, tmp_path, [*rows, Row(ONE_DAY, 0.2)], 2)
    assert (first.changed_rows, second.changed_rows) == (5, 1)
    assert again == second


@pytest.mark.parametrize(
    ("former", "new", "is_change"),
    [
        (0.1 + 0.2, 0.3, False),
        (1e9, 1e9 + 1e-6, False),
        (1e9, 1e9 + 1, True),
        (0.0, 1e-15, True),
        (0.1, 0.1000001, True),
        (0.1, None, True),
        (None, 0.1, True),
        (float("inf"), float("inf"), False),
        (0.1, float("nan"), True),
    ],
)
def test_the_last_digit_of_a_sum_is_not_a_change(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, former: float | None, new: float | None, is_change: bool
) -> None:
    first = publish_rows(con, tmp_path, [Row(ONE_DAY, former, numerator=1.0)], 0)
    second = publish_rows(con, tmp_path, [Row(ONE_DAY, new, numerator=1.0)], 1)
    assert (second != first) is is_change


def test_sku_history_is_kept_too(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    publish_rows(con, tmp_path, [Row(ONE_DAY, 1.0, "sku", "S1"), Row(ONE_DAY, 3.0, "category|sku", "茶|S1")], 0)
    publish_rows(con, tmp_path, [Row(ONE_DAY, 2.0, "sku", "S1"), Row(ONE_DAY, 3.0, "category|sku", "茶|S1")], 1)
    assert values_as_of(tmp_path, night(0), "sku", "S1") == [1.0]
    assert values_as_of(tmp_path, night(1), "sku", "S1") == [2.0]
    assert values_as_of(tmp_path, night(1), "category|sku", "茶|S1") == [3.0]


def test_a_metric_that_left_the_library_can_be_read_as_of_a_day_it_was_there(
    con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    publish_rows(con, tmp_path, [Row(ONE_DAY, 0.1)], 0)
    publish(con, tmp_path, tables={}, window=NOVEMBER, run_id="run-1", now=night(1))
    assert values_as_of(tmp_path, night(0)) == [0.1]
    assert values_as_of(tmp_path, night(1)) == []


def test_many_small_files_of_a_month_are_merged_row_for_row(con: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    nights = 3 * history.MERGE_ABOVE
    for number in range(nights):
        version = publish_rows(con, tmp_path, [Row(ONE_DAY, float(number))], number)
        assert len(version.history) <= history.MERGE_ABOVE + 1
    changes = Published.open(tmp_path).changes("refund_rate")
    assert changes["value"].tolist() == [float(number) for number in range(nights)]
    assert changes["run_id"].tolist() == [f"run-{number}" for number in range(nights)]


@pytest.mark.parametrize("seed", range(4))
def test_any_past_moment_reads_back_as_it_was_published(
    con: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Random changes, disappearances, returns and definition changes over two months, against plain snapshots."""
    monkeypatch.setattr(history, "MERGE_ABOVE", 2)
    chance = random.Random(seed)
    slices = [("all", "all"), ("region", "华北"), ("sku", "S1"), ("sku", "S2")]
    days = [datetime(2025, 10, 29) + timedelta(days=day) for day in range(6)]
    table: dict[tuple[datetime, str, str], Row] = {}
    snapshots: list[dict[tuple[datetime, str, str], Row]] = []
    for number in range(12):
        for day in days:
            for dimension, member in slices:
                key, dice = (day, dimension, member), chance.random()
                if dice < 0.15:
                    table.pop(key, None)
                elif dice < 0.5:
                    value = None if dice < 0.2 else float(chance.randint(0, 3))
                    table[key] = Row(
                        day,
                        value,
                        dimension,
                        member,
                        numerator=0.0,
                        denominator=0.0,
                        definition_version=chance.choice(["v1", "v2"]),
                    )
        write_metric(con, TABLE, table.values())
        publish(
            con,
            tmp_path,
            tables={"refund_rate": MetricTables((TABLE,), state())},
            window=ALL_TIME,
            run_id=f"run-{number}",
            now=night(number),
        )
        snapshots.append(dict(table))
    published = Published.open(tmp_path)
    for number, snapshot in enumerate(snapshots):
        for dimension, member in slices:
            frame = published.series("refund_rate", dimension, member, as_of=night(number) + timedelta(hours=1))
            found = {
                (
                    row.period_start.to_pydatetime(),
                    None if row.value != row.value else row.value,
                    row.definition_version,
                )
                for row in frame.itertuples()
            }
            assert found == {
                (day, row.value, row.definition_version)
                for (day, *slice_), row in snapshot.items()
                if tuple(slice_) == (dimension, member)
            }
