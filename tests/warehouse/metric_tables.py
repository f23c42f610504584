"""Builders for the publishing tests: a small build file with metric tables of the contract."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb

from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import MetricState
from metrics_pipeline.warehouse.window import Window

OCTOBER = Window(date(2025, 10, 1), date(2025, 11, 1))
NOVEMBER = Window(date(2025, 11, 1), date(2025, 12, 1))
LAST_NIGHTS = Window(date(2025, 11, 8), date(2025, 11, 12))
ALL_TIME = Window(date(2000, 1, 1), date(2100, 1, 1))
FIRST_NIGHT = datetime(2025, 11, 12, 2, 30)


class Row(NamedTuple):
    period_start: datetime
    value: float | None
    dimension: str = "all"
    member: str = "all"
    grain: str = "day"
    numerator: float | None = None
    denominator: float | None = None
    definition_version: str = "v1"


def night(number: int) -> datetime:
    """The moment of the nth nightly run."""
    return FIRST_NIGHT + timedelta(days=number)


def state(definition_version: str = "v1", complete_until: datetime | None = None) -> MetricState:
    return MetricState(definition_version, complete_until or datetime(2025, 11, 12))


def write_metric(con: duckdb.DuckDBPyConnection, table: str, rows: Iterable[Row]) -> None:
    """Make `table` ("base.gmv") hold exactly these rows; a row's numerator is its value unless it says otherwise."""
    con.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.', maxsplit=1)[0]}")
    con.execute(
        f"CREATE OR REPLACE TABLE {table} (period_start TIMESTAMP, grain VARCHAR, dimension VARCHAR, member VARCHAR, "
        "numerator DOUBLE, denominator DOUBLE, value DOUBLE, definition_version VARCHAR)"
    )
    values = [
        (
            row.period_start,
            row.grain,
            row.dimension,
            row.member,
            row.value if row.numerator is None else row.numerator,
            row.denominator,
            row.value,
            row.definition_version,
        )
        for row in rows
    ]
    if values:
        con.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)


def daily(first: date, days: int, value: float, dimension: str = "all", member: str = "all") -> list[Row]:
    """The same value on each of `days` days."""
    start = datetime(first.year, first.month, first.day)
    return [Row(start + timedelta(days=day), value, dimension, member) for day in range(days)]


def publish_the_same_number_for_ever(published_dir: Path, first: int) -> None:
    """Version n has the value n everywhere, in both months, all metrics and both parts, and n as definition version."""
    metrics = ("gmv", "orders_paid", "refund_rate")
    number = first
    with duckdb.connect() as con:
        while True:
            for metric in metrics:
                rows = [
                    row
                    for dimension, member in (("all", "all"), ("region", "华北"), ("sku", "S1"), ("sku", "S2"))
                    for row in daily(date(2025, 10, 20), 23, float(number), dimension, member)
                ]
                write_metric(con, f"base.{metric}", rows)
            publish(
                con,
                published_dir,
                tables={metric: MetricTables((f"base.{metric}",), state(str(number))) for metric in metrics},
                window=ALL_TIME,
                run_id=f"run-{number}",
                now=FIRST_NIGHT + timedelta(seconds=number),
                keep_versions=2,
            )
            number += 1


if __name__ == "__main__":
    publish_the_same_number_for_ever(Path(sys.argv[1]), int(sys.argv[2]))
