"""Publishing metric tables: the first load, one night on a short and on a long history, and a night run twice."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Stopwatch, measure_call, ratio
from benchmarks.metric_values import ALL_TIME, LOADED_AT, NIGHT, metric_tables, restate_night, write_build_file
from benchmarks.table import Benchmark, Table, count, seconds
from metrics_pipeline.warehouse.publish import publish

SHORT, LONG = 90, 90 * 16
SKUS = 1000


def run(folder: Path, repeat: int) -> Table:
    """All cases on 90 days and on sixteen times as many."""
    measured: dict[int, tuple[Measurement, Measurement, Measurement]] = {}
    rows: dict[int, int] = {}
    for days in (SHORT, LONG):
        build, published = folder / f"{days}.duckdb", folder / f"published-{days}"
        rows[days] = write_build_file(build, days=days, skus=SKUS)
        first = measure_call(
            "benchmarks.publish:first_load", repeat=1 if days == LONG else repeat, build=str(build), folder=str(folder)
        )
        measure_call("benchmarks.publish:load", build=str(build), published=str(published))
        again = measure_call("benchmarks.publish:night", repeat=repeat, build=str(build), published=str(published))
        nights = []
        for number in range(1, repeat + 1):
            restate_night(build)
            nights.append(
                measure_call("benchmarks.publish:night", build=str(build), published=str(published), number=number)
            )
        measured[days] = (first, min(nights, key=lambda night: night.cpu_seconds), again)
    labels = ("first load, all months", "one night, a quarter of 4 days changed", "the same night again")
    return Table(
        ("publishing", f"CPU s, {SHORT} days", f"CPU s, {LONG} days", "growth", "wall s", "peak MB", "changed values"),
        [
            (
                label,
                seconds(short.cpu_seconds),
                seconds(long.cpu_seconds),
                f"{ratio(long, short):.1f}×",
                seconds(long.wall_seconds),
                f"{long.peak_mb:.0f}",
                count(long.figures["changed"]),
            )
            for label, short, long in zip(labels, measured[SHORT], measured[LONG], strict=True)
        ],
        f"{count(rows[SHORT])} and {count(rows[LONG])} values. A night costs the months it touches, not the history; "
        f"{count(rows[LONG])} values are {measured[LONG][0].figures['megabytes']:.0f} MB of Parquet, and their history "
        "is the same files.",
    )


def first_load(watch: Stopwatch, build: str, folder: str) -> dict[str, Any]:
    """Publish everything into an empty folder."""
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        return _publish(watch, build, empty, 0)


def load(_: Stopwatch, build: str, published: str) -> dict[str, Any]:
    """Publish everything, not measured."""
    return _publish(Stopwatch(), build, published, 0)


def night(watch: Stopwatch, build: str, published: str, number: int = 0) -> dict[str, Any]:
    """Publish the last four days on what is published already."""
    return _publish(watch, build, published, number)


def _publish(watch: Stopwatch, build: str, published: str, number: int) -> dict[str, Any]:
    target = Path(published)
    is_first = not (target / "CURRENT").exists()
    run_id = f"run-{number}"
    with watch:
        version = publish(
            Path(build),
            target,
            tables=metric_tables(),
            window=ALL_TIME if is_first else NIGHT,
            run_id=run_id,
            now=LOADED_AT + timedelta(days=number),
        )
    is_new = is_first or (version.run_id == run_id and number > 0)
    return {
        "changed": version.changed_rows if is_new else 0,
        "megabytes": sum(file.bytes for file in version.values) / 1e6,
    }


BENCHMARK = Benchmark(
    "publish",
    "Publishing",
    "Metric tables of a synthetic build file → a published version: 40 metrics in 148 slices by day, 20 of them by hour, "
    f"12 of them for {SKUS} SKUs.",
    run,
)
