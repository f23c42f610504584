"""One tick: the verdicts of a night on many slices, applied to the alerts of a shop, persistence included.

20 rules by SKU; every slice has an instance before the measured tick. What is measured is `apply_verdicts` alone: reading
the instances, the state machine, episodes, transitions, work orders, messages to two receivers, and the commit.

On PostgreSQL (`tick-postgresql`, only when named) the server is the one that METRICS_TEST_POSTGRES names, by default one on this
machine; each case makes a database of its own there and drops it. CPU is the client's, wall time includes the server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement, Stopwatch, measure_call, ratio
from benchmarks.table import Benchmark, Table, count, seconds

SLICES = (25_000, 100_000, 400_000)
RULES = 20
BREACHING = 5
"""Every fifth slice breaches: 20,000 of 100,000."""
BUDGET = 5.0
"""CPU seconds for 100,000 slices."""
SERVER = os.environ.get("METRICS_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/test")
DAY = datetime(2026, 11, 11)
NOW = datetime(2026, 11, 12, 2, 40, tzinfo=UTC)
NIGHTS: Mapping[str, tuple[str, ...]] = {
    "quiet night": ("quiet",),
    "the same night again": ("quiet", "again"),
    "a fifth of the slices breach": ("quiet", "breach"),
    "all of them recover": ("quiet", "breach", "quiet"),
}
"""What happens after the night that made the instances; the last one is measured."""


def run(folder: Path, repeat: int) -> Table:
    """Every scenario at three sizes."""
    return _table(folder, repeat, SLICES, server="")


def run_postgresql(folder: Path, repeat: int) -> Table:
    """Every scenario on PostgreSQL."""
    return _table(folder, repeat, SLICES, server=SERVER)


def _table(folder: Path, repeat: int, sizes_of: tuple[int, int, int], *, server: str) -> Table:
    lines = []
    measured: dict[tuple[str, int], Measurement] = {}
    for name in NIGHTS:
        for slices in sizes_of:
            home = folder / f"{slices}-{len(measured)}"
            home.mkdir()
            measured[name, slices] = measure_call(
                "benchmarks.tick:tick", repeat=repeat, folder=str(home), scenario=name, slices=slices, server=server
            )
        small, middle, large = (measured[name, slices] for slices in sizes_of)
        lines.append(
            (
                name,
                *(seconds(one.cpu_seconds) for one in (small, middle, large)),
                f"{ratio(middle, small):.1f}×, {ratio(large, middle):.1f}×",
                seconds(middle.wall_seconds),
                f"{middle.peak_mb:.0f}",
                f"{large.peak_mb:.0f}",
                f"{middle.figures['transitions']:,}",
                f"{middle.figures['messages']}",
            )
        )
    worst = max(measured[name, sizes_of[1]].cpu_seconds for name in NIGHTS)
    sizes = [count(slices) for slices in sizes_of]
    return Table(
        (
            "tick",
            *(f"CPU s, {size}" for size in sizes),
            "growth at 4×",
            f"wall s, {sizes[1]}",
            f"peak MB, {sizes[1]}",
            f"peak MB, {sizes[2]}",
            "transitions",
            "messages",
        ),
        lines,
        f"At most {seconds(worst)} CPU seconds for {sizes[1]} slices, where {BUDGET:g} are allowed. A tick reads and writes "
        "its instances once, as columns; objects are made for transitions and open alerts only. Peak memory includes the "
        "night itself as an Arrow table and the libraries.",
    )


def tick(watch: Stopwatch, folder: str, scenario: str, slices: int, server: str = "") -> dict[str, Any]:
    """Prepare a store, apply the nights of the scenario, measure the last one. `server`: on PostgreSQL; '' = SQLite."""
    from metrics_pipeline.alerts import RuleCard, apply_verdicts
    from metrics_pipeline.store.database import open_url

    cards = {f"rule_{number}": RuleCard(f"rule_{number}", "stock_cover_days") for number in range(RULES)}
    nights = ("quiet", *NIGHTS[scenario])
    with _on_server(server) if server else _in_folder(folder) as url:
        store = open_url(url)
        number, table = 0, None
        for position, night in enumerate(nights):
            if night != "again":
                number, table = number + 1, verdicts(night, number, slices)
            options = {"receivers": ("file", "smtp:ops@shop"), "now": NOW + timedelta(days=number)}
            if position < len(nights) - 1:
                apply_verdicts(store, table, cards, **options)
                continue
            with watch:
                report = apply_verdicts(store, table, cards, **options)
        store.close()
    return {"transitions": sum(report.transitions.values()), "messages": len(report.notifications)}


@contextmanager
def _in_folder(folder: str) -> Iterator[str]:
    import tempfile

    with tempfile.TemporaryDirectory(dir=folder) as home:
        yield f"sqlite:///{home}/store.db"


@contextmanager
def _on_server(server: str) -> Iterator[str]:
    """The URL of a new database, dropped afterwards."""
    import sqlalchemy as sa

    name = f"metrics_bench_{uuid.uuid4().hex[:8]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    try:
        yield sa.engine.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


def verdicts(night: str, number: int, slices: int) -> Any:
    """The evaluations of one night as an Arrow table, as `rules.evaluate` gives them."""
    import numpy as np
    import pyarrow as pa

    every = np.arange(slices)
    breaching = (every % BREACHING == 0) & (night == "breach")
    rule = pa.DictionaryArray.from_arrays((every // BREACHING) % RULES, [f"rule_{one}" for one in range(RULES)])
    instant = (NOW + timedelta(days=number)).replace(tzinfo=None)

    def same(word: str) -> Any:
        return pa.DictionaryArray.from_arrays(np.zeros(slices, dtype=np.int32), [word])

    value = np.where(breaching, 1.5 + every / slices, 12.0)
    return pa.table(
        {
            "rule": rule,
            "metric": same("stock_cover_days"),
            "dimension": same("sku"),
            "member": pa.array([f"sku-{one:06}" for one in every.tolist()]),
            "grain": same("day"),
            "period_start": pa.array(np.full(slices, np.datetime64(DAY + timedelta(days=number), "us"))),
            "tier": pa.array(np.where(breaching, "red", "ok")),
            "reason": pa.array(np.where(breaching, "breach", "ok")),
            "rule_hash": same("4f0c1d2e3a4b"),
            "metric_version": same("1"),
            "data_version": same(f"v{number}"),
            "evaluated_at": pa.array(np.full(slices, np.datetime64(instant, "us"))),
            "run_id": same(f"run-{number}"),
            "value": value,
            "observed": value,
            "yellow_bound": np.full(slices, 7.0),
            "red_bound": np.full(slices, 3.0),
            "sample": np.full(slices, 40.0),
        }
    )


BENCHMARK = Benchmark(
    "tick",
    "A tick of the alerts",
    f"The verdicts of one night, one for each slice of {RULES} rules by SKU, applied to a SQLite store that knows all of "
    "them: instances read, advanced and written, episodes, transitions, work orders and the messages to two receivers, "
    "committed.",
    run,
)
POSTGRESQL = Benchmark(
    "tick-postgresql",
    "A tick of the alerts on PostgreSQL",
    "The same on PostgreSQL on the same machine, through psycopg2; rows go there by COPY. CPU seconds are those of the client, "
    "wall time includes the server.",
    run_postgresql,
    on_request="a PostgreSQL server (METRICS_TEST_POSTGRES)",
)
