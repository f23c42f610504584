"""Judging rules: one night of 300,000 rule × slice pairs and more, against SQL written by hand for the same question.

The reference reads the same Parquet in a bare DuckDB and knows nothing of completeness, versions, missing slices,
samples, bounds or reasons. For thresholds, changes and quantiles it must come to the same breaches, and is checked.
The band's reference is the plain one, same-weekday median and MAD without level or noise floor: another question.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.measure import Stopwatch, measure_call, ratio
from benchmarks.metric_values import LAST_DAY, METRICS, write_build_file
from benchmarks.table import Benchmark, Table, count, seconds
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.expression import parse_expression
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.warehouse.quoting import parquet
from metrics_pipeline.warehouse.read import Published

DAYS, SKUS = 120, 2000
BY_SKU = 12
DIMENSIONS = ("all", "region", "channel", "region|channel", "segment", "category", "category|region")
SIMPLE = (
    ("value", "> 99000"),
    ("value", "< 1000"),
    ("value", "> 50000"),
    ("value", "< 50000"),
    ("pct_change(1d)", "> 3"),
    ("pct_change(1d)", "< -0.9"),
    ("pct_change(7d)", "> 3"),
    ("pct_change(7d)", "< -0.9"),
    ("quantile(60d, 0.95)", "> 0.02"),
    ("quantile(60d, 0.95)", "> 0.04"),
    ("quantile(60d, 0.95)", "< -0.98"),
)
"""What every metric is asked in every dimension; two thresholds on one expression are two rules."""
BAND = (("band(seasonal)", "outside 4"), ("band(seasonal)", "outside 6"))
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)


def run(folder: Path, repeat: int) -> Table:
    """Both sets of rules, each beside its reference."""
    build, published = folder / "build.duckdb", folder / "published"
    write_build_file(build, days=DAYS, skus=SKUS)
    measure_call("benchmarks.publish:load", build=str(build), published=str(published))
    lines = []
    for label, case in (("thresholds, changes, quantiles", "simple"), ("seasonal band", "band")):
        ours = measure_call("benchmarks.evaluate:night", repeat=repeat, published=str(published), case=case)
        hand = measure_call("benchmarks.evaluate:reference", repeat=repeat, published=str(published), case=case)
        if case == "simple" and ours.figures["breaches"] != hand.figures["breaches"]:
            raise AssertionError(f"not the same verdicts: {ours.figures} against {hand.figures}")
        lines.append(
            (
                label,
                count(ours.figures["pairs"]),
                seconds(ours.cpu_seconds),
                seconds(ours.wall_seconds),
                f"{ours.peak_mb:.0f}",
                seconds(hand.cpu_seconds),
                f"{ratio(ours, hand):.1f}×",
            )
        )
    return Table(
        ("one night", "rule × slice", "CPU s", "wall s", "peak MB", "by hand, CPU s", "ratio"),
        lines,
        "The difference is what the reference leaves out: every verdict as a row with value, baseline, bounds, reason and "
        "versions, compared with what is recorded and written to Parquet.",
    )


def night(watch: Stopwatch, published: str, case: str) -> dict[str, Any]:
    """Judge the last day and write the evaluations."""
    rules = _rules(case)
    version = Published.open(Path(published))
    until = LAST_DAY + timedelta(days=1)
    evaluate(version, rules[:1], LAST_DAY, until, evaluated_at=NOW, run_id="imports")
    with tempfile.TemporaryDirectory() as folder, watch:
        result = evaluate(
            version, rules, LAST_DAY, until, evaluated_at=NOW, run_id="benchmark", evaluations_dir=Path(folder)
        )
    return {"pairs": result.rows, "breaches": sum(rule.yellow for rule in result.summary())}


def reference(watch: Stopwatch, published: str, case: str) -> dict[str, Any]:
    """The same question in one query, for this night only."""
    files = Published.open(Path(published)).files(LAST_DAY - timedelta(days=63))
    query = (_SIMPLE_BY_HAND if case == "simple" else _BAND_BY_HAND).format(
        values=parquet(files), night=f"TIMESTAMP '{LAST_DAY} 00:00:00'"
    )
    with watch, duckdb.connect() as con:
        row = con.execute(query).fetchone()
    assert row is not None
    return {"breaches": int(row[0])}


def _rules(case: str) -> list[Rule]:
    asked = SIMPLE if case == "simple" else BAND
    template = Rule.model_validate(
        {
            "alert": "template",
            "why": "Benchmark.",
            "why_zh": "基准。",
            "metric": "metric_00",
            "yellow_if": "> 1",
            "owner": "benchmark",
            "labels": {"scenario": "benchmark"},
            "annotations": {"summary": "Benchmark.", "summary_zh": "基准。"},
        }
    )
    found = []
    for number in range(METRICS):
        for dimension in (*DIMENSIONS, *(("sku",) if number < BY_SKU else ())):
            for position, (expr, threshold) in enumerate(asked):
                found.append(
                    Rule.model_validate(
                        {
                            **template.model_dump(mode="json", by_alias=True),
                            "alert": f"metric_{number:02d}_{dimension.replace('|', '_')}_{position}",
                            "metric": f"metric_{number:02d}",
                            "by": [] if dimension == "all" else dimension.split("|"),
                            "expr": str(parse_expression(expr)),
                            "yellow_if": threshold,
                        }
                    )
                )
    return found


_SIMPLE_BY_HAND = """
WITH known AS (
    SELECT metric, dimension, member, period_start, value
    FROM {values}
    WHERE grain = 'day' AND period_start >= {night} - INTERVAL 60 DAY AND value IS NOT NULL
),
series AS (
    SELECT
        metric, dimension, member,
        max(value) FILTER (WHERE period_start = {night}) AS today,
        max(value) FILTER (WHERE period_start = {night} - INTERVAL 1 DAY) AS yesterday,
        max(value) FILTER (WHERE period_start = {night} - INTERVAL 7 DAY) AS week_ago,
        quantile_cont(value, 0.95) FILTER (WHERE period_start < {night}) AS high
    FROM known
    GROUP BY ALL
)
SELECT
    count(*) FILTER (WHERE today > 99000) + count(*) FILTER (WHERE today < 1000)
    + count(*) FILTER (WHERE today > 50000) + count(*) FILTER (WHERE today < 50000)
    + count(*) FILTER (WHERE today / nullif(yesterday, 0) - 1 > 3)
    + count(*) FILTER (WHERE today / nullif(yesterday, 0) - 1 < -0.9)
    + count(*) FILTER (WHERE today / nullif(week_ago, 0) - 1 > 3)
    + count(*) FILTER (WHERE today / nullif(week_ago, 0) - 1 < -0.9)
    + count(*) FILTER (WHERE today / nullif(high, 0) - 1 > 0.02)
    + count(*) FILTER (WHERE today / nullif(high, 0) - 1 > 0.04)
    + count(*) FILTER (WHERE today / nullif(high, 0) - 1 < -0.98)
FROM series"""

_BAND_BY_HAND = """
WITH weekdays AS (
    SELECT metric, dimension, member, period_start, value
    FROM {values}
    WHERE grain = 'day' AND period_start >= {night} - INTERVAL 56 DAY
        AND dayofweek(period_start) = dayofweek({night}) AND value IS NOT NULL
),
series AS (
    SELECT
        metric, dimension, member,
        max(value) FILTER (WHERE period_start = {night}) AS today,
        median(value) FILTER (WHERE period_start < {night}) AS expected,
        mad(value) FILTER (WHERE period_start < {night}) AS deviation
    FROM weekdays
    GROUP BY ALL
)
SELECT
    count(*) FILTER (WHERE abs(today - expected) / nullif(1.4826 * deviation, 0) > 4)
    + count(*) FILTER (WHERE abs(today - expected) / nullif(1.4826 * deviation, 0) > 6)
FROM series"""


BENCHMARK = Benchmark(
    "evaluate",
    "Judging rules",
    f"{METRICS} metrics in {len(DIMENSIONS)} dimensions and {BY_SKU} of them by {SKUS} SKUs, {DAYS} days of daily values; "
    "the last day is judged by all rules in one statement, in a process that has judged one rule before (imports).",
    run,
)
