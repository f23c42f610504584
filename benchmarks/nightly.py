"""The product's main job on simulated shops: loading and building a history, then one night on it.

Everything runs as a user runs it: `metrics load`, `metrics backfill`, `metrics nightly`, each a process of its own. The
reference is a bare `dbt build` of the same models over the same window on the same build file, as one types it; the
first of two is left out, because it parses the project.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Stopwatch, measure_call, measure_command, ratio
from benchmarks.table import Benchmark, Table, count, seconds

UNTIL = date(2025, 11, 21)
DAYS = int(os.environ.get("BENCHMARK_DAYS", "100"))
SCALES = tuple(float(scale) for scale in os.environ.get("BENCHMARK_SCALES", "1,4,16").split(","))
HISTORY_SCALE = 0.25
HISTORIES = (DAYS, DAYS * 4, DAYS * 16)
SEED = 11


@dataclass(frozen=True)
class Shop:
    """One shop, measured."""

    label: str
    orders: int
    sessions: int
    rows_of_the_day: int
    history: Measurement
    night: Measurement
    dbt: Measurement


def run_growth(folder: Path, repeat: int) -> Table:
    """Shops of growing volume over the same days."""
    shops = [_measure(folder / f"scale-{scale:g}", f"{scale / SCALES[0]:g}×", scale, DAYS, repeat) for scale in SCALES]
    first, last = shops[0], shops[-1]
    per_row = (last.night.cpu_seconds / last.rows_of_the_day) / (first.night.cpu_seconds / first.rows_of_the_day)
    return _table(
        shops,
        f"{DAYS} days each. Per row of the day a night of the largest shop costs {per_row:.2f} × that of the smallest.",
    )


def run_history(folder: Path, repeat: int) -> Table:
    """The same shop with longer and longer histories."""
    shops = [
        _measure(folder / f"days-{days}", f"{days // HISTORIES[0]}×, {days} days", HISTORY_SCALE, days, repeat)
        for days in HISTORIES
    ]
    first, last = shops[0], shops[-1]
    per_row = (last.night.cpu_seconds / last.rows_of_the_day) / (first.night.cpu_seconds / first.rows_of_the_day)
    return _table(
        shops,
        f"The same day after {HISTORIES[-1] // HISTORIES[0]} times the history costs {ratio(last.night, first.night):.2f} × "
        f"the CPU, {per_row:.2f} × per row of the day (the shop has grown by then).",
    )


def _table(shops: list[Shop], reading: str) -> Table:
    return Table(
        (
            "shop",
            "orders",
            "sessions",
            "rows of the day",
            "load and backfill, CPU s",
            "peak MB",
            "night, CPU s",
            "peak MB",
            "bare dbt build, CPU s",
            "night ÷ dbt",
        ),
        [
            (
                shop.label,
                count(shop.orders),
                count(shop.sessions),
                count(shop.rows_of_the_day),
                seconds(shop.history.cpu_seconds),
                f"{shop.history.peak_mb:.0f}",
                seconds(shop.night.cpu_seconds),
                f"{shop.night.peak_mb:.0f}",
                seconds(shop.dbt.cpu_seconds),
                f"{ratio(shop.night, shop.dbt):.2f}×",
            )
            for shop in shops
        ],
        reading,
    )


def _measure(folder: Path, label: str, scale: float, days: int, repeat: int) -> Shop:
    folder.mkdir(parents=True)
    environment = {"METRICS_HOME": str(folder / "home")}
    source = folder / "source"
    measure_call("benchmarks.nightly:simulate_shop", folder=str(source), scale=scale, days=days)
    load = measure_command(_metrics("load", "simulator", str(source)), environment=environment)
    before = UNTIL - timedelta(days=1)
    backfill = measure_command(
        _metrics("backfill", "--to", (before - timedelta(days=1)).isoformat()), environment=environment
    )
    # The second of two nights is a night like any other: the first one after a backfill prepares dbt anew.
    measure_command(_metrics("nightly", "--day", before.isoformat()), environment=environment)
    night = measure_command(_metrics("nightly", "--day", UNTIL.isoformat()), environment=environment)
    called = measure_call("benchmarks.nightly:dbt_command", home=environment["METRICS_HOME"]).figures
    dbt = measure_command(called["command"], repeat=max(2, repeat), environment=called["environment"])
    figures = measure_call("benchmarks.nightly:count_rows", home=environment["METRICS_HOME"]).figures
    history = Measurement(
        load.cpu_seconds + backfill.cpu_seconds,
        load.wall_seconds + backfill.wall_seconds,
        max(load.peak_mb, backfill.peak_mb),
    )
    return Shop(label, figures["orders"], figures["sessions"], figures["rows_of_the_day"], history, night, dbt)


def _metrics(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("metrics")), *arguments, "--json"]


def simulate_shop(_: Stopwatch, folder: str, scale: float, days: int) -> dict[str, Any]:
    """Write the shop's files, not measured."""
    from metrics_pipeline.sources.simulator import simulate

    return dict(simulate(Path(folder), seed=SEED, scale=scale, days=days, until=UNTIL).rows)


def dbt_command(_: Stopwatch, home: str) -> dict[str, Any]:
    """The bare dbt call for the window that the night had."""
    from metrics_pipeline.settings import load_settings
    from metrics_pipeline.warehouse.manifest import read_current
    from metrics_pipeline.warehouse.transform import dbt_environment

    settings = load_settings({"METRICS_HOME": home})
    current = read_current(settings.published_dir)
    if current is None:
        raise RuntimeError(f"{settings.published_dir}: the night published nothing")
    project = str(settings.dbt_project_dir)
    command = [
        str(Path(sys.executable).with_name("dbt")),
        "build",
        *("--project-dir", project, "--profiles-dir", project),
        *("--target-path", str(settings.home / "bare"), "--log-path", str(settings.home / "bare")),
        *("--exclude-resource-type", "unit_test"),
        *("--event-time-start", current.window.start.isoformat()),
        *("--event-time-end", current.window.until.isoformat()),
    ]
    return json.loads(json.dumps({"command": command, "environment": dbt_environment(settings, current.window)}))  # type: ignore[no-any-return]


def count_rows(_: Stopwatch, home: str) -> dict[str, Any]:
    """Rows of the shop, and of its last day over all raw event tables."""
    from metrics_pipeline.settings import load_settings
    from metrics_pipeline.sources.contract import load_contract
    from metrics_pipeline.warehouse.build import connect_build

    with connect_build(load_settings({"METRICS_HOME": home}).build_path, read_only=True) as con:

        def number(sql: str) -> int:
            row = con.execute(sql).fetchone()
            return int(row[0]) if row else 0

        # Shanghai's day in UTC; dates are shop days already.
        start, until = f"TIMESTAMP '{UNTIL - timedelta(days=1)} 16:00'", f"TIMESTAMP '{UNTIL} 16:00'"
        of_the_day = 0
        for table in load_contract().tables:
            if table.clock is None:
                continue
            is_date = table.column(table.clock).type == "date"
            where = f"= DATE '{UNTIL}'" if is_date else f">= {start} AND {table.clock} < {until}"
            of_the_day += number(f"SELECT count(*) FROM raw.{table.name} WHERE {table.clock} {where}")
        return {
            "orders": number("SELECT count(*) FROM raw.orders"),
            "sessions": number("SELECT count(*) FROM raw.sessions"),
            "rows_of_the_day": of_the_day,
        }


GROWTH = Benchmark(
    "nightly",
    "The night, as the shop grows",
    "Simulated shops of growing volume: `metrics load` and `metrics backfill` of the history, then `metrics nightly`, and "
    "a bare `dbt build` of the same models and window. Another size: `BENCHMARK_SCALES=2.5,10,40 BENCHMARK_DAYS=400`.",
    run_growth,
)
HISTORY = Benchmark(
    "history",
    "The night, as history grows",
    f"One shop (scale {HISTORY_SCALE}) after longer and longer histories; otherwise as above.",
    run_history,
)
