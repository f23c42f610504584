"""A library of a thousand metrics: lint and compile, dbt's parse, loading into Dagster; and the answer of as-of."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Stopwatch, measure_call
from benchmarks.metric_values import LAST_DAY, LOADED_AT, restate_night, write_build_file
from benchmarks.table import Benchmark, Table, count, milliseconds, seconds

SIZES = (100, 1000)
DAYS = 400
TIMES = 20
LIMIT_SECONDS = 10
AS_OF_MILLISECONDS = 100


def run(folder: Path, repeat: int) -> Table:
    """A hundred and a thousand metrics, and one series as it was known, with the definition that made it."""
    lines = []
    for metrics in SIZES:
        project = folder / f"dbt-{metrics}"
        write_project(project, metrics)
        checked, parsed, loaded = (
            measure_call(
                f"benchmarks.library:{name}",
                repeat=repeat if name == "check" else 1,
                project=str(project),
                home=str(folder / f"home-{metrics}"),
            )
            for name in ("check", "parse", "load")
        )
        figures = checked.figures
        lines.append(
            (
                f"{count(figures['metrics'])} metrics",
                seconds(figures["read"]), seconds(figures["lint"]), seconds(figures["compile"]),
                seconds(checked.wall_seconds), seconds(parsed.wall_seconds), seconds(loaded.wall_seconds),
            )
        )  # fmt: skip
    build, published = folder / "build.duckdb", folder / "published"
    write_build_file(build, days=DAYS, skus=1000)
    measure_call("benchmarks.publish:load", build=str(build), published=str(published))
    restate_night(build)
    measure_call("benchmarks.publish:night", build=str(build), published=str(published), number=1)
    asked = measure_call(
        "benchmarks.library:as_of",
        repeat=repeat,
        published=str(published),
        store=str(folder / "store.db"),
        project=str(folder / f"dbt-{SIZES[-1]}"),
    )
    wall, cpu = asked.wall_seconds / TIMES, asked.cpu_seconds / TIMES
    return Table(
        ("library", "reading, s", "lint, s", "compile, s", "lint and compile, wall s", "dbt parse, wall s", "Dagster load, wall s"),
        lines,
        f"The limit for lint and compile of a thousand metrics is {LIMIT_SECONDS} s. What was shown of one day, as it was known "
        f"at a moment ({DAYS} days of history, versions of a thousand metrics in the store), with the definition that made "
        f"it: {milliseconds(cpu)} ms CPU and {milliseconds(wall)} ms wall each; the limit is {AS_OF_MILLISECONDS} ms.",
    )  # fmt: skip


def write_project(project: Path, metrics: int) -> None:
    """The starter project with as many more ratios of pairs of counts as make up the number."""
    shutil.copytree(ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.compile import write_files

    catalogue = Catalogue.read(project)
    counts = [one.id for one in catalogue.metrics.values() if one.layer == "base" and "region" in one.slices]
    taken = {one.formula for one in catalogue.metrics.values()}
    pairs = [(a, b, n) for n in (1, 2, 3, 5, 7) for a in counts for b in counts if a != b and f"{a} / {b}" not in taken]
    for number, (a, b, n) in enumerate(pairs[: metrics - len(catalogue.metrics)]):
        text = f"""metrics:
  - name: made_{number}
    label: "Made {number}"
    description: "{n} times {a} per {b}, in the same day, number {number}."
    type: derived
    type_params:
      expr: {n} * {a} / {b}
      metrics:
        - name: {a}
        - name: {b}
    config:
      meta:
        name_zh: 造{number}
        definition_zh: "当日 {n} 倍 {a} ÷ {b},第 {number} 个。"
        unit: ratio
        direction: neutral
        stage: conversion
        category: order
        owner: data
        business_line: platform
        sensitivity: internal
        refresh: [nightly]
        freshness_hours: 30
"""
        (project / "models" / "operational" / f"made_{number}.yml").write_text(text, "utf-8")
    write_files(Catalogue.read(project))


def check(watch: Stopwatch, project: str, home: str) -> dict[str, Any]:
    """Read, lint and compile."""
    import time

    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.compile import generated_files
    from metrics_pipeline.library.lint import lint_catalogue

    with watch:
        marks = [time.perf_counter()]
        catalogue = Catalogue.read(Path(project))
        marks.append(time.perf_counter())
        lint_catalogue(catalogue)
        marks.append(time.perf_counter())
        files = generated_files(catalogue)
        marks.append(time.perf_counter())
    steps = [end - begin for begin, end in pairwise(marks)]
    return {
        "metrics": len(catalogue.metrics),
        "files": len(files),
        **dict(zip(("read", "lint", "compile"), steps, strict=True)),
    }


def parse(watch: Stopwatch, project: str, home: str) -> dict[str, Any]:
    """dbt's own parse of the whole project, without a cache."""
    from metrics_pipeline.warehouse.transform import ensure_manifest

    settings = _settings(project, home)
    with watch:
        path = ensure_manifest(settings)
    return {"bytes": path.stat().st_size}


def load(watch: Stopwatch, project: str, home: str) -> dict[str, Any]:
    """The code location of the pipeline, with the manifest that is there."""
    with watch:
        from metrics_pipeline.orchestration.pipeline import build_pipeline_definitions
        from metrics_pipeline.orchestration.resources import Project

        definitions = build_pipeline_definitions(Project.open(_settings(project, home)))
        assets = len(definitions.resolve_asset_graph().get_all_asset_keys())
    return {"assets": assets}


def as_of(watch: Stopwatch, published: str, store: str, project: str) -> dict[str, Any]:
    """One day of one metric as it was known, and the recorded definition that made it, from opening on."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.recording import record
    from metrics_pipeline.library.versions import read_targets, states
    from metrics_pipeline.store.database import open_url
    from metrics_pipeline.store.metric_versions import versions_of
    from metrics_pipeline.warehouse.read import Published

    opened = open_url(f"sqlite:///{store}")
    with opened.writing() as connection:
        record(
            connection,
            states(Catalogue.read(Path(project)), read_targets(Path(project))),
            now=datetime(2025, 1, 1, tzinfo=UTC),
        )
    metric = next(iter(Published.open(Path(published)).metrics))
    day = LAST_DAY - timedelta(days=30)

    def ask() -> int:
        found = Published.open(Path(published)).series(
            metric, start=day, until=day + timedelta(days=1), as_of=LOADED_AT
        )
        with opened.reading() as connection:
            versions_of(connection, "refund_rate")
        return len(found)

    ask()  # imports
    with watch:
        rows = [ask() for _ in range(TIMES)]
    opened.close()
    return {"rows": sum(rows)}


def _settings(project: str, home: str) -> Any:
    from metrics_pipeline.settings import Installation, Settings, write_installation

    installation = Installation(seed=7, scale=0.01)
    write_installation(Path(home), installation)
    return Settings(home=Path(home), installation=installation, dbt_project_dir=Path(project))


BENCHMARK = Benchmark(
    "library",
    "The library, as metrics are added",
    "The starter metrics and as many made-up ratios as make a hundred and a thousand: reading all definitions, lint, and "
    "generating all models; dbt's parse without a cache; the code location of the pipeline with the manifest prepared.",
    run,
)
