"""Reading published values: opening, one series, one series as it was known, all slices of a month in SQL."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Stopwatch, measure_call
from benchmarks.metric_values import LAST_DAY, LOADED_AT, NIGHT, restate_night, write_build_file
from benchmarks.table import Benchmark, Table, count, milliseconds
from metrics_pipeline.warehouse.read import Published

SHORT, LONG = 90, 90 * 16
SKUS = 1000
TIMES = 20

CASES = {
    "open the current version": "open_current",
    "a region's series, all days": "region_series",
    "the same as of a past moment": "region_series_as_of",
    "the total by hour, last 90 days": "hourly_series",
    "a SKU's series, all days": "sku_series",
    "all slices of all metrics, last 4 days, in SQL": "last_days",
}


def run(folder: Path, repeat: int) -> Table:
    """All cases on 90 days and on sixteen times as many, with one restated night on top."""
    rows = {}
    for days in (SHORT, LONG):
        build, published = folder / f"{days}.duckdb", folder / f"published-{days}"
        rows[days] = write_build_file(build, days=days, skus=SKUS)
        measure_call("benchmarks.publish:load", build=str(build), published=str(published))
        restate_night(build)
        measure_call("benchmarks.publish:night", build=str(build), published=str(published), number=1)
    lines = []
    for label, case in CASES.items():
        short, long = (
            measure_call("benchmarks.read:read", repeat=repeat, case=case, published=str(folder / f"published-{days}"))
            for days in (SHORT, LONG)
        )
        lines.append(
            (
                label,
                milliseconds(short.cpu_seconds / TIMES),
                milliseconds(long.cpu_seconds / TIMES),
                milliseconds(long.wall_seconds / TIMES),
                count(long.figures["rows"]),
            )
        )
    return Table(
        ("reading", f"CPU ms, {SHORT} days", f"CPU ms, {LONG} days", "wall ms", "rows read"),
        lines,
        f"{count(rows[SHORT])} and {count(rows[LONG])} values. Months outside the bounds are not opened, nor are the SKU "
        "files for any other dimension.",
    )


def read(watch: Stopwatch, case: str, published: str) -> dict[str, Any]:
    """One case, `TIMES` times after one that is not counted (it pays for imports)."""
    function = globals()[case]
    directory = Path(published)
    rows = function(directory)
    with watch:
        for _ in range(TIMES):
            function(directory)
    return {"rows": rows}


def open_current(directory: Path) -> int:
    """Read `CURRENT` and the manifest."""
    return len(Published.open(directory).metrics)


def region_series(directory: Path) -> int:
    """One region of one metric by day."""
    return len(Published.open(directory).series("metric_05", "region", "region 3"))


def region_series_as_of(directory: Path) -> int:
    """The same before the restated night."""
    as_of = LOADED_AT + timedelta(hours=1)
    return len(Published.open(directory).series("metric_05", "region", "region 3", as_of=as_of))


def hourly_series(directory: Path) -> int:
    """The total of one metric by hour over 90 days."""
    return len(Published.open(directory).series("metric_05", grain="hour", start=LAST_DAY - timedelta(days=89)))


def sku_series(directory: Path) -> int:
    """One SKU of one metric by day."""
    return len(Published.open(directory).series("metric_05", "sku", "sku 77"))


def last_days(directory: Path) -> int:
    """What an evaluation reads: all metrics and slices of the last days, aggregated."""
    with Published.open(directory).connect(start=NIGHT.start) as con:
        row = con.execute(
            "SELECT sum(n) FROM (SELECT metric, dimension, member, count(*) AS n, avg(value) AS mean FROM metric_values "
            "WHERE grain = 'day' AND period_start >= $1 GROUP BY ALL)",
            [NIGHT.start],
        ).fetchone()
    assert row is not None
    return int(row[0])


BENCHMARK = Benchmark(
    "read",
    "Reading",
    f"Published values of the publishing benchmark, each read {TIMES} times in a warm process, opening the version and "
    "a DuckDB every time.",
    run,
)
