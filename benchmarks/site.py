"""The catalogue site of a thousand metrics: reading all that the pages say, and writing them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.measure import ROOT, Stopwatch, measure_call
from benchmarks.metric_values import ALL_TIME, LAST_DAY, LOADED_AT
from benchmarks.table import Benchmark, Table, count, seconds
from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.seeds import read_seeds
from metrics_pipeline.site.content import gather
from metrics_pipeline.site.folder import replace_folder
from metrics_pipeline.site.pages import site_files
from metrics_pipeline.store.database import Store, open_url
from metrics_pipeline.store.tables import alert_instances, episodes, metric_versions
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import MetricState, Published

SIZES = (100, 1000)
DAYS = 400
REGIONS = 30
EPISODES = 20
"""Of every rule."""


def run(folder: Path, repeat: int) -> Table:
    """The site of a hundred and of a thousand metrics."""
    lines = []
    for metrics in SIZES:
        here = folder / str(metrics)
        here.mkdir()
        prepared = measure_call("benchmarks.site:prepare", folder=str(here), metrics=metrics)
        read, write = (
            measure_call(f"benchmarks.site:{name}", repeat=repeat, folder=str(here), metrics=metrics)
            for name in ("read", "write")
        )
        lines.append(
            (
                f"{metrics:,} metrics",
                count(prepared.figures["values"]),
                count(prepared.figures["episodes"]),
                seconds(read.cpu_seconds),
                seconds(write.cpu_seconds),
                seconds(read.wall_seconds + write.wall_seconds),
                f"{write.peak_mb:.0f}",
                f"{write.figures['bytes'] / 1e6:.0f}",
            )
        )
    return Table(
        (
            "site", "published values", "episodes", "reading, CPU s", "writing, CPU s", "both, wall s", "peak MB",
            "MB of pages",
        ),
        lines,
        "Reading is one query for the values of all metrics, one for their versions and three of the store; the limit for "
        "a thousand metrics is 30 s.",
    )  # fmt: skip


def prepare(_: Stopwatch, folder: str, metrics: int) -> dict[str, Any]:
    """Published values of every metric in total and by region, one rule each, episodes, two recorded versions."""
    home = Path(folder)
    catalogue = wide_catalogue(metrics)
    first = LAST_DAY - timedelta(days=DAYS - 1)
    with duckdb.connect(str(home / "build.duckdb")) as con:
        con.execute("CREATE SCHEMA base")
        names = [name for name, metric in catalogue.metrics.items() if metric.sensitivity != "confidential"]
        for number, name in enumerate(names):
            con.execute(
                f"""CREATE TABLE base.{name} AS
                SELECT TIMESTAMP '{first}' + to_days(day::INTEGER) AS period_start, 'day' AS grain,
                       if(place = 0, 'all', 'region') AS dimension, if(place = 0, 'all', 'region ' || place) AS member,
                       (hash(day, place, {number}) % 100000)::DOUBLE AS numerator, NULL::DOUBLE AS denominator,
                       numerator AS value, 'abcdef123456' AS definition_version
                FROM range({DAYS}) AS days (day), range({REGIONS + 1}) AS places (place)"""
            )
        until = datetime.combine(LAST_DAY, datetime.min.time()) + timedelta(days=1)
        tables = {name: MetricTables((f"base.{name}",), MetricState("abcdef123456", until)) for name in names}
        publish(con, home / "published", tables=tables, window=ALL_TIME, run_id="benchmark", now=LOADED_AT)
    store = open_store(home)
    instances, told = zip(*_alerts(wide_rules(catalogue)), strict=True)
    at = datetime(2025, 1, 1, tzinfo=UTC)
    recorded = [
        {
            "metric": name, "number": number, "version": f"{number:012}", "digest": "d", "definition": {}, "who": "li",
            "diff": {"formula": ["a", "b"]}, "at": at, "why": "a reason of a few words",
        }
        for name in catalogue.metrics
        for number in (1, 2)
    ]  # fmt: skip
    with store.writing("benchmark") as connection:
        connection.execute(alert_instances.insert(), list(instances))
        connection.execute(episodes.insert(), list(told))
        connection.execute(metric_versions.insert(), recorded)
    store.close()
    return {"values": len(names) * DAYS * (REGIONS + 1), "episodes": len(told)}


def read(watch: Stopwatch, folder: str, metrics: int) -> None:
    """Gather the content."""
    _content(watch, Path(folder), metrics)


def write(watch: Stopwatch, folder: str, metrics: int) -> dict[str, Any]:
    """Render and write what `read` gathers."""
    content = _content(Stopwatch(), Path(folder), metrics)
    site = Path(folder) / "site"
    with watch:
        replace_folder(site, site_files(content))
    return {"bytes": sum(path.stat().st_size for path in site.rglob("*") if path.is_file())}


def _content(watch: Stopwatch, home: Path, metrics: int) -> Any:
    catalogue = wide_catalogue(metrics)
    rules = wide_rules(catalogue)
    seeds = read_seeds(ROOT / "dbt_project", "Asia/Shanghai")
    store = open_store(home)
    try:
        with watch:
            return gather(
                catalogue,
                published=Published.open(home / "published"),
                rules=rules,
                store=store,
                promotions=seeds.promotions,
                currency="CNY",
                withheld={name for name, one in catalogue.metrics.items() if one.sensitivity == "confidential"},
            )
    finally:
        store.close()


def open_store(home: Path) -> Store:
    """The store of the benchmark."""
    return open_url(f"sqlite:///{home / 'store.db'}")


def wide_catalogue(metrics: int) -> Catalogue:
    """The starter catalogue with copies of its metrics, each copy made of the copies of its inputs, up to a number."""
    starter = Catalogue.read(ROOT / "dbt_project")
    found: dict[str, Metric] = dict(starter.metrics)
    definitions = list(starter.definitions.metrics)
    copy = 0
    while len(found) < metrics:
        copy += 1
        for name, metric in list(starter.metrics.items())[: metrics - len(found)]:
            found[f"{name}_{copy}"] = replace(
                metric,
                id=f"{name}_{copy}",
                inputs=tuple(f"{one}_{copy}" for one in metric.inputs),
                formula=_renamed(metric, copy),
            )
        definitions += [one.model_copy(update={"id": f"{one.id}_{copy}"}) for one in starter.definitions.metrics]
    return Catalogue(found, replace(starter.definitions, metrics=tuple(definitions)))


def _renamed(metric: Metric, copy: int) -> str:
    """The formula in the ids of the copied inputs."""
    if not metric.inputs:
        return metric.formula
    return re.sub(rf"\b({'|'.join(metric.inputs)})\b", rf"\g<1>_{copy}", metric.formula)


def wide_rules(catalogue: Catalogue) -> list[Rule]:
    """One rule for every metric, by region."""
    seeds = read_seeds(ROOT / "dbt_project", "Asia/Shanghai")
    starter = Catalogue.read(ROOT / "dbt_project")
    pattern = load_rules(ROOT / "alert_rules", starter, seeds)["refund_rate_surge_by_region"]
    return [pattern.model_copy(update={"alert": f"rule_{name}", "metric": name}) for name in catalogue.metrics]


def _alerts(rules: list[Rule]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    days = [datetime(2025, 1, 1) + timedelta(days=10 * n) for n in range(EPISODES + 1)]
    for rule in rules:
        for number, (start, end) in enumerate(pairwise(days)):
            key = f"{rule.id}/region {number}"
            at = start.replace(tzinfo=UTC)
            yield (
                {
                    "key": key, "rule": rule.id, "dimension": "region", "member": f"region {number}", "grain": "day",
                    "state": "ok", "tier": "none", "reason": "ok", "rule_hash": "h", "metric_version": "v",
                    "data_version": "d", "evaluated_at": at,
                },
                {
                    "key": f"{key}/1", "instance": key, "rule": rule.id, "first_period": start, "last_period": end,
                    "opened_at": at, "closed_at": at, "worst_tier": "red", "worst_value": 42.0,
                },
            )  # fmt: skip


BENCHMARK = Benchmark(
    "site",
    "The catalogue site",
    f"`metrics library site` of copies of the starter metrics: {DAYS} days in total and by {REGIONS} regions, a rule with "
    f"{EPISODES} episodes and two recorded versions of each.",
    run,
)
