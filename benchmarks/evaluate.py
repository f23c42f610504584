"""Judging rules: one night of 300,000 rule × slice pairs and more, against SQL written by hand for the same verdicts.

The reference is what somebody writes who knows the rules, the dimensions and the night and hard-codes them all: one
query in a bare DuckDB over the same Parquet, without versions, promotions, hours, other thresholds or other nights. It
gives the same rows with the same value, sample, observed number, baseline, bounds, tier and reason (only the hash of
the rule is empty) and writes them to Parquet. Before anything is measured the two are compared row by row.

The data has what a night has: values that are missing, null or not due yet, slices that closed and slices that are new.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.measure import Stopwatch, measure_call, ratio
from benchmarks.metric_values import ALL_TIME, LAST_DAY, LOADED_AT, METRICS, metric_tables, write_build_file
from benchmarks.table import Benchmark, Table, count, milliseconds, seconds
from metrics_pipeline.rules.evaluate import Evaluations, evaluate
from metrics_pipeline.rules.expression import parse_expression
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.statement import NUMBERS
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.quoting import parquet
from metrics_pipeline.warehouse.read import MetricState, Published

DAYS, SKUS = 120, 2000
BY_SKU = 12
DIMENSIONS = ("all", "region", "channel", "region|channel", "segment", "category", "category|region")
SAMPLE = {"metric": "metric_01", "gte": 20000}
LATE = "metric_39"
"""Its last day is not complete."""
SIMPLE: tuple[dict[str, Any], ...] = (
    {"expr": "value", "yellow_if": "> 99000", "red_if": "> 99900"},
    {"expr": "value", "yellow_if": "< 1000"},
    {"expr": "value", "yellow_if": "> 50000"},
    {"expr": "value", "yellow_if": "< 50000", "min_sample": SAMPLE},
    {"expr": "pct_change(1d)", "yellow_if": "> 3"},
    {"expr": "pct_change(1d)", "yellow_if": "< -0.9"},
    {"expr": "pct_change(7d)", "yellow_if": "> 3", "red_if": "> 30"},
    {"expr": "pct_change(7d)", "yellow_if": "< -0.9", "min_sample": SAMPLE},
    {"expr": "quantile(60d, 0.95)", "yellow_if": "> 0.02"},
    {"expr": "quantile(60d, 0.95)", "yellow_if": "> 0.04"},
    {"expr": "quantile(60d, 0.95)", "yellow_if": "< -0.98"},
)
"""What every metric is asked in every dimension; two thresholds on one expression are two rules."""
BAND: tuple[dict[str, Any], ...] = (
    {"expr": "band(seasonal)", "yellow_if": "outside 4"},
    {"expr": "band(seasonal)", "yellow_if": "outside 6"},
)
CASES = (("thresholds, changes, quantiles", "simple"), ("seasonal band", "band"))
NOW = datetime(2026, 1, 1, 2, tzinfo=UTC)
_COMPARED = (
    ("member", "metric", "dimension", "grain", "period_start", "tier", "reason", "holds", "metric_version"),
    NUMBERS,
)
"""Texts and numbers of a verdict; numbers may differ in the last digits (medians and sums in another order)."""


def run(folder: Path, repeat: int) -> Table:
    """Both sets of rules, each beside its reference."""
    build, published = folder / "build.duckdb", folder / "published"
    write_build_file(build, days=DAYS, skus=SKUS)
    measure_call("benchmarks.evaluate:prepared", build=str(build), published=str(published))
    lines = []
    for label, case in CASES:
        measure_call("benchmarks.evaluate:compared", published=str(published), case=case)
        ours = measure_call("benchmarks.evaluate:night", repeat=repeat, published=str(published), case=case)
        hand = measure_call("benchmarks.evaluate:reference", repeat=repeat, published=str(published), case=case)
        told = measure_call("benchmarks.evaluate:summaries", repeat=repeat, published=str(published), case=case)
        lines.append(
            (
                label,
                count(ours.figures["pairs"]),
                seconds(ours.cpu_seconds),
                seconds(ours.wall_seconds),
                f"{ours.peak_mb:.0f}",
                seconds(hand.cpu_seconds),
                f"{ratio(ours, hand):.1f}×",
                milliseconds(told.cpu_seconds),
            )
        )
    return Table(
        ("one night", "rule × slice", "CPU s", "wall s", "peak MB", "by hand, CPU s", "ratio", "summaries, CPU ms"),
        lines,
        "By hand: one query for exactly these rules and this night, its rows compared with the verdicts and equal, written "
        "to Parquet, too. Summaries: counts and worst slice of every rule.",
    )


def prepared(_: Stopwatch, build: str, published: str) -> None:
    """Publish the build file with what a night has: holes, nulls, closed and new slices, a metric that is late."""
    with duckdb.connect(build) as con:
        for number in range(METRICS):
            table = f"base.metric_{number:02d}"
            last, closed, new = (f"TIMESTAMP '{LAST_DAY - timedelta(days=days)} 00:00:00'" for days in (0, 40, 20))
            con.execute(f"UPDATE {table} SET value = NULL WHERE period_start = {last} AND hash(member, 1) % 89 = 0")
            con.execute(f"DELETE FROM {table} WHERE period_start = {last} AND hash(member, 2) % 97 = 0")
            con.execute(
                f"DELETE FROM {table} WHERE dimension = 'sku' AND period_start > {closed} AND hash(member, 3) % 53 = 0"
            )
            con.execute(
                f"DELETE FROM {table} WHERE dimension = 'sku' AND period_start < {new} AND hash(member, 4) % 47 = 0"
            )
    tables = metric_tables()
    late = MetricState("abcdef123456", datetime.combine(LAST_DAY, datetime.min.time()))
    tables[LATE] = MetricTables(tables[LATE].tables, late)
    publish(Path(build), Path(published), tables=tables, window=ALL_TIME, run_id="benchmark", now=LOADED_AT)


def night(watch: Stopwatch, published: str, case: str) -> dict[str, Any]:
    """Judge the last day and write the evaluations."""
    rules, version = _rules(case), Published.open(Path(published))
    _judge(version, rules[:1], None)
    with tempfile.TemporaryDirectory() as folder, watch:
        result = _judge(version, rules, Path(folder))
    return {"pairs": result.rows}


def summaries(watch: Stopwatch, published: str, case: str) -> None:
    """What the checks ask of a night that was judged."""
    result = _judge(Published.open(Path(published)), _rules(case), None)
    with watch:
        result.summary()


def reference(watch: Stopwatch, published: str, case: str) -> None:
    """The same verdicts in one query, for this night only, to Parquet."""
    query = _by_hand(Published.open(Path(published)), case)
    with tempfile.TemporaryDirectory() as folder, watch, duckdb.connect() as con:
        con.execute(f"COPY ({query}) TO '{folder}/verdicts.parquet' (FORMAT parquet, COMPRESSION zstd)")


def compared(_: Stopwatch, published: str, case: str) -> None:
    """Raises when the reference and the evaluation differ in any row."""
    version = Published.open(Path(published))
    texts, numbers = _COMPARED
    different = " OR ".join(
        [f"h.{name} IS DISTINCT FROM o.{name}" for name in texts]
        + [
            f"(h.{name} IS NULL) <> (o.{name} IS NULL) OR abs(h.{name} - o.{name}) > 1e-9 * greatest(1, abs(o.{name}))"
            for name in numbers
        ]
    )
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as con:
        ours = _judge(version, _rules(case), Path(folder))
        con.execute(f"CREATE TABLE hand AS {_by_hand(version, case)}")
        con.execute(f"CREATE TABLE ours AS SELECT * FROM {parquet(ours.paths)}")
        rows = con.execute(
            f"""SELECT o.rule, h.rule, o.member, h.member, o.reason, h.reason, o.observed, h.observed, o.baseline, h.baseline
            FROM ours AS o FULL JOIN hand AS h ON h.rule = o.rule AND h.member = o.member
            WHERE o.rule IS NULL OR h.rule IS NULL OR {different}"""
        ).fetchall()
        reasons = con.execute("SELECT count(*), count(DISTINCT reason) FROM ours").fetchone()
    if rows or reasons is None or reasons[0] != ours.rows:
        raise AssertionError(f"{case}: {len(rows)} rows differ from the reference, e.g. {rows[:3]}")


def _judge(version: Published, rules: list[Rule], folder: Path | None) -> Evaluations:
    until = LAST_DAY + timedelta(days=1)
    return evaluate(version, rules, LAST_DAY, until, evaluated_at=NOW, run_id="benchmark", evaluations_dir=folder)


def _by_hand(version: Published, case: str) -> str:
    query, since = (_SIMPLE_BY_HAND, 60) if case == "simple" else (_BAND_BY_HAND, 63)
    files = version.files(LAST_DAY - timedelta(days=since), LAST_DAY + timedelta(days=1))
    return query.format(
        values=parquet(files),
        night=f"TIMESTAMP '{LAST_DAY} 00:00:00'",
        late=LATE,
        sample=SAMPLE["metric"],
        gte=SAMPLE["gte"],
        verdict=_VERDICT_BY_HAND.format(night=f"TIMESTAMP '{LAST_DAY} 00:00:00'", data_version=version.version),
    )


def _rules(case: str) -> list[Rule]:
    found = []
    for number in range(METRICS):
        for dimension in (*DIMENSIONS, *(("sku",) if number < BY_SKU else ())):
            for position, asked in enumerate(SIMPLE if case == "simple" else BAND):
                found.append(
                    Rule.model_validate(
                        {
                            "alert": f"metric_{number:02d}_{dimension.replace('|', '_')}_{position}",
                            "why": "Benchmark.",
                            "why_zh": "基准。",
                            "metric": f"metric_{number:02d}",
                            "by": [] if dimension == "all" else dimension.split("|"),
                            "owner": "benchmark",
                            "labels": {"scenario": "benchmark"},
                            "annotations": {"summary": "Benchmark.", "summary_zh": "基准。"},
                            **asked,
                            "expr": str(parse_expression(asked["expr"])),
                        }
                    )
                )
    return found


_VERDICT_BY_HAND = """
SELECT
    metric || '_' || replace(dimension, '|', '_') || '_' || position AS rule, metric, dimension, member, 'day' AS grain,
    {night} AS period_start, value, numerator, denominator, sample, observed, baseline, baseline - width * scale AS lower,
    baseline + width * scale AS upper, coalesce(baseline, 0) + scale * yellow AS yellow_bound,
    coalesce(baseline, 0) + scale * red AS red_bound,
    CASE
        WHEN reason = 'breach' THEN CASE WHEN observed > red THEN 'red' ELSE 'yellow' END
        WHEN reason IN ('ok', 'min_sample') THEN 'ok'
        ELSE 'no_data'
    END AS tier,
    reason, CASE WHEN reason <> 'breach' THEN 'none' WHEN observed > red THEN 'red' ELSE 'yellow' END AS holds,
    '' AS rule_hash, 'abcdef123456' AS metric_version, '{data_version}' AS data_version,
    TIMESTAMP '2026-01-01 02:00:00' AS evaluated_at, 'benchmark' AS run_id
FROM reasoned"""

_SIMPLE_BY_HAND = """
WITH series AS (
    SELECT
        metric, dimension, member, bool_or(period_start = {night}) AS is_there,
        max(value) FILTER (WHERE period_start = {night}) AS value,
        max(numerator) FILTER (WHERE period_start = {night}) AS numerator,
        max(denominator) FILTER (WHERE period_start = {night}) AS denominator,
        max(value) FILTER (WHERE period_start = {night} - INTERVAL 1 DAY) AS yesterday,
        max(value) FILTER (WHERE period_start = {night} - INTERVAL 7 DAY) AS week_ago,
        max(value) FILTER (WHERE period_start >= {night} - INTERVAL 28 DAY) AS most,
        quantile_cont(value, 0.95) FILTER (WHERE period_start < {night}) AS high,
        count(value) FILTER (WHERE period_start < {night}) AS history
    FROM {values}
    WHERE grain = 'day' AND period_start >= {night} - INTERVAL 60 DAY
        AND NOT (metric = '{late}' AND period_start >= {night})
    GROUP BY ALL
    HAVING max(period_start) >= {night} - INTERVAL 28 DAY
),
rules (position, family, is_above, yellow, red, has_sample) AS (
    VALUES
        (0, 'value', TRUE, 99000, 99900, FALSE), (1, 'value', FALSE, 1000, NULL, FALSE),
        (2, 'value', TRUE, 50000, NULL, FALSE), (3, 'value', FALSE, 50000, NULL, TRUE),
        (4, 'day', TRUE, 3, NULL, FALSE), (5, 'day', FALSE, -0.9, NULL, FALSE),
        (6, 'week', TRUE, 3, 30, FALSE), (7, 'week', FALSE, -0.9, NULL, TRUE),
        (8, 'high', TRUE, 0.02, NULL, FALSE), (9, 'high', TRUE, 0.04, NULL, FALSE), (10, 'high', FALSE, -0.98, NULL, FALSE)
),
pairs AS (
    SELECT
        s.*, r.*, NULL AS width,
        CASE
            WHEN s.value IS NULL OR family = 'value' THEN NULL
            WHEN family = 'day' THEN nullif(yesterday, 0)
            WHEN family = 'week' THEN nullif(week_ago, 0)
            WHEN history >= 28 THEN nullif(high, 0)
        END AS baseline
    FROM series AS s
    CROSS JOIN rules AS r
),
observed AS (
    SELECT
        p.*, CASE WHEN p.has_sample THEN m.value ELSE p.denominator END AS sample,
        CASE WHEN p.family = 'value' THEN 1 ELSE abs(p.baseline) END AS scale,
        CASE WHEN p.family = 'value' THEN p.value ELSE (p.value - p.baseline) / abs(p.baseline) END AS observed
    FROM pairs AS p
    LEFT JOIN series AS m ON m.metric = '{sample}' AND m.dimension = p.dimension AND m.member = p.member
    WHERE NOT p.has_sample OR m.most >= {gte}
),
reasoned AS (
    SELECT
        *,
        CASE
            WHEN metric = '{late}' THEN 'not_due'
            WHEN NOT is_there THEN 'missing_slice'
            WHEN value IS NULL THEN 'null_value'
            WHEN has_sample AND (sample IS NULL OR sample < {gte}) THEN 'min_sample'
            WHEN observed IS NULL THEN 'no_baseline'
            WHEN CASE WHEN is_above THEN observed > yellow ELSE observed < yellow END THEN 'breach'
            ELSE 'ok'
        END AS reason
    FROM observed
)
{verdict}"""

_BAND_BY_HAND = """
WITH series AS (
    SELECT
        metric, dimension, member, row_number() OVER () AS series_no, bool_or(period_start = {night}) AS is_there,
        max(value) FILTER (WHERE period_start = {night}) AS value,
        max(numerator) FILTER (WHERE period_start = {night}) AS numerator,
        max(denominator) FILTER (WHERE period_start = {night}) AS denominator
    FROM {values}
    WHERE grain = 'day' AND period_start >= {night} - INTERVAL 28 DAY
        AND NOT (metric = '{late}' AND period_start >= {night})
    GROUP BY ALL
),
history AS MATERIALIZED (
    SELECT
        s.series_no, date_diff('day', v.period_start, {night}) % 7 AS weekday,
        (date_diff('day', v.period_start, {night}) - 1) // 7 AS week,
        CASE WHEN v.denominator > 0 THEN v.numerator ELSE v.value END AS n,
        CASE WHEN v.denominator > 0 THEN v.denominator ELSE 1 END AS d
    FROM {values} AS v
    JOIN series AS s ON s.metric = v.metric AND s.dimension = v.dimension AND s.member = v.member
    WHERE v.grain = 'day' AND v.period_start >= {night} - INTERVAL 63 DAY AND v.period_start < {night}
        AND v.value IS NOT NULL AND s.value IS NOT NULL
),
weeks AS (
    SELECT
        series_no, week, CASE WHEN avg(n) >= 10 THEN median(n / d) ELSE sum(n) / sum(d) END AS level, sum(n) AS events,
        sum(d) AS exposure
    FROM history
    GROUP BY series_no, week
    HAVING count(*) >= 3
),
levels AS (
    SELECT
        series_no, min_by(level, week) AS level, min_by(events, week) AS events, min_by(exposure, week) AS exposure,
        list(level ORDER BY week)[2] AS earlier_level, count(*) FILTER (WHERE week > 0) < 4 AS is_young
    FROM weeks
    GROUP BY series_no
    HAVING min(week) <= 4
),
known AS (
    SELECT h.*, l.is_young, h.d * CASE WHEN l.is_young THEN l.level ELSE w.level END AS expected
    FROM history AS h
    JOIN levels AS l ON l.series_no = h.series_no
    LEFT JOIN weeks AS w ON w.series_no = h.series_no AND w.week = h.week + 1
    WHERE h.week < 8 AND (l.is_young OR w.level IS NOT NULL)
),
weekdays AS (
    SELECT
        series_no, weekday,
        CASE WHEN avg(expected) >= 10 THEN median(n / nullif(expected, 0)) ELSE (sum(n) + 1) / (sum(expected) + 1) END AS i,
        sum(n / nullif(expected, 0)) AS summed, sum(n) AS events, sum(d) AS exposure, count(*) AS history
    FROM known
    GROUP BY series_no, weekday
),
spread AS (
    SELECT
        k.series_no, count(*) AS residuals,
        coalesce(
            median(
                abs(
                    k.n / nullif(
                        k.expected * CASE
                            WHEN k.is_young THEN (w.summed - k.n / nullif(k.expected, 0)) / nullif(w.history - 1, 0) ELSE w.i
                        END, 0
                    ) - 1
                )
            ), 0
        ) AS residual,
        bool_and(k.n = floor(k.n)) AS is_whole, bool_and(k.n <= k.d) AS is_share
    FROM known AS k
    JOIN weekdays AS w ON w.series_no = k.series_no AND w.weekday = k.weekday
    GROUP BY k.series_no
),
expected AS (
    SELECT
        s.*, s.denominator > 0 IS TRUE AS is_ratio, CASE WHEN s.denominator > 0 THEN s.denominator ELSE 1 END AS d,
        l.level * w.i AS expected, p.is_whole, p.is_share,
        greatest(
            1.4826 * p.residual * CASE WHEN l.is_young THEN 1 ELSE 1 + 1.0 / w.history END,
            CASE WHEN l.is_young THEN 0 ELSE 0.5 * abs(coalesce(l.earlier_level, l.level) / nullif(l.level, 0) - 1) END,
            0.03 * CASE
                WHEN s.denominator > 0 AND p.is_share THEN greatest(least(1, 1 / nullif(l.level * w.i, 0) - 1), 0) ELSE 1
            END
        ) AS relative, 1 / (l.events + 1) + 1 / (w.events + 1) AS of_events, 1 / l.exposure + 1 / w.exposure AS of_exposure
    FROM series AS s
    LEFT JOIN (levels AS l
        JOIN weekdays AS w ON w.series_no = l.series_no AND w.weekday = 0
        JOIN spread AS p ON p.series_no = l.series_no)
        ON l.series_no = s.series_no AND l.level >= 0 AND l.exposure > 0 AND w.exposure > 0
        AND w.history >= CASE WHEN l.is_young THEN 3 ELSE 4 END AND p.residuals >= 14
),
judged AS (
    SELECT
        metric, dimension, member, is_there, value, numerator, denominator, denominator AS sample, expected AS baseline,
        nullif(
            greatest(
                relative * expected,
                CASE
                    WHEN is_ratio AND is_share
                        THEN sqrt(expected * greatest(1 - expected, 0) * (1 / d + of_exposure) + 1 / (d * d))
                    WHEN is_ratio AND is_whole
                        THEN sqrt(greatest(expected, power(expected, 2)) * (1 / d + of_exposure) + 1 / (d * d))
                    WHEN is_ratio THEN expected * sqrt(1 / d + of_exposure)
                    WHEN is_whole THEN sqrt(expected + 1 + power(expected, 2) * of_events)
                    ELSE 0
                END
            ), 0
        ) AS scale
    FROM expected
),
observed AS (
    SELECT *, (value - baseline) / scale AS observed
    FROM judged
    CROSS JOIN (VALUES (0, 4.0), (1, 6.0)) AS rules (position, width)
),
reasoned AS (
    SELECT
        *, CASE WHEN observed < 0 THEN -width ELSE width END AS yellow, NULL AS red,
        CASE
            WHEN metric = '{late}' THEN 'not_due'
            WHEN NOT is_there THEN 'missing_slice'
            WHEN value IS NULL THEN 'null_value'
            WHEN observed IS NULL THEN 'no_baseline'
            WHEN abs(observed) > width THEN 'breach'
            ELSE 'ok'
        END AS reason
    FROM observed
)
{verdict}"""


BENCHMARK = Benchmark(
    "evaluate",
    "Judging rules",
    f"{METRICS} metrics in {len(DIMENSIONS)} dimensions and {BY_SKU} of them by {SKUS} SKUs, {DAYS} days of daily values; "
    "the last day is judged by all rules in one statement, in a process that has judged one rule before (imports).",
    run,
)
