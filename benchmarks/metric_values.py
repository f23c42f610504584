"""A synthetic build file of metric tables, for the benchmarks of publishing, reading and evaluating.

40 metrics by day in total, by region, channel, segment, category and two pairs (148 slices each), 20 of them by hour
in total and by region, 12 of them by SKU.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.measure import Stopwatch, measure_call
from metrics_pipeline.warehouse.publish import MetricTables
from metrics_pipeline.warehouse.read import MetricState
from metrics_pipeline.warehouse.window import Window

LAST_DAY = date(2025, 12, 31)
NIGHT = Window(LAST_DAY - timedelta(days=3), LAST_DAY + timedelta(days=1))
ALL_TIME = Window(date(2000, 1, 1), date(2100, 1, 1))
LOADED_AT = datetime(2026, 1, 1, 2)
METRICS, HOURLY, BY_SKU = 40, 20, 12

_SLICES = {
    "all": 1,
    "region": 7,
    "channel": 5,
    "region|channel": 35,
    "segment": 4,
    "category": 12,
    "category|region": 84,
}


def write_build_file(path: Path, *, days: int, skus: int) -> int:
    """Write `days` days up to `LAST_DAY`, in a process of its own; returns the number of rows."""
    return int(measure_call("benchmarks.metric_values:written", path=str(path), days=days, skus=skus).figures["rows"])


def restate_night(path: Path) -> None:
    """Change a quarter of the daily values of `NIGHT`, as late data does, in a process of its own."""
    measure_call("benchmarks.metric_values:restated", path=str(path))


def written(_: Stopwatch, path: str, days: int, skus: int) -> dict[str, int]:
    """The work of `write_build_file`."""
    start = datetime.combine(LAST_DAY - timedelta(days=days - 1), datetime.min.time())
    with duckdb.connect(path) as con:
        con.execute("CREATE SCHEMA base; CREATE SCHEMA hourly")
        for number in range(METRICS):
            slices = _SLICES | ({"sku": skus} if number < BY_SKU else {})
            _write(con, f"base.metric_{number:02d}", seed=number, start=start, grain="day", periods=days, slices=slices)
            if number < HOURLY:
                _write(
                    con,
                    f"hourly.metric_{number:02d}",
                    seed=number,
                    start=start,
                    grain="hour",
                    periods=days * 24,
                    slices={"all": 1, "region": 7},
                )
        row = con.execute(
            "SELECT sum(estimated_size) FROM duckdb_tables() WHERE schema_name IN ('base', 'hourly')"
        ).fetchone()
    assert row is not None
    return {"rows": int(row[0])}


def restated(_: Stopwatch, path: str) -> None:
    """The work of `restate_night`."""
    with duckdb.connect(path) as con:
        for number in range(METRICS):
            con.execute(
                f"UPDATE base.metric_{number:02d} SET numerator = numerator + 1, value = value + 1 "
                "WHERE period_start >= $1 AND period_start < $2 AND hash(member, period_start) % 4 = 0",
                [NIGHT.start, NIGHT.until],
            )


def metric_tables() -> dict[str, MetricTables]:
    """What `publish` is told of the build file."""
    return {
        f"metric_{number:02d}": MetricTables(
            (f"base.metric_{number:02d}", *((f"hourly.metric_{number:02d}",) if number < HOURLY else ())),
            MetricState("abcdef123456", datetime.combine(LAST_DAY, datetime.min.time()) + timedelta(days=1)),
        )
        for number in range(METRICS)
    }


def _write(
    con: duckdb.DuckDBPyConnection,
    table: str,
    *,
    seed: int,
    start: datetime,
    grain: str,
    periods: int,
    slices: dict[str, int],
) -> None:
    members = " UNION ALL ".join(
        f"SELECT '{dimension}' AS dimension, "
        + ("'all'" if dimension == "all" else f"'{dimension} ' || member_number")
        + f" AS member FROM range({size}) AS members (member_number)"
        for dimension, size in slices.items()
    )
    is_ratio = seed % 3 == 0
    con.execute(
        f"""
        CREATE TABLE {table} AS
        WITH slices AS ({members}),
        amounts AS (
            SELECT TIMESTAMP '{start}' + to_{grain}s(CAST(period AS INTEGER)) AS period_start, dimension, member,
                   (hash(period, member, {seed}) % 100000)::DOUBLE AS numerator,
                   {f"(1 + hash(member, period, {seed}) % 100000)::DOUBLE" if is_ratio else "NULL::DOUBLE"} AS denominator
            FROM range({periods}) AS periods (period), slices
        )
        SELECT period_start, '{grain}' AS grain, dimension, member, numerator, denominator,
               {"numerator / denominator" if is_ratio else "numerator"} AS value, 'abcdef123456' AS definition_version
        FROM amounts
        ORDER BY period_start
        """
    )
