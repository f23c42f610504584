"""The one SQL statement that judges all rules on all slices in all periods, and the small relations it reads.

    values      published metric values (Parquet)
    rules       one row per rule: thresholds, bounds, due time, what it is about       (`Relations`)
    specs       one row per distinct metric × dimension × grain × expression           (rules that ask the same share it)
    wanted      which values are read: metric, grain, dimension, version, span
    periods     the tested periods
    events      promotion days;  former_events: the same day of the last such event

The same text serves one period of a night and the weeks of a replay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from metrics_pipeline.detection import change, quantile, seasonal
from metrics_pipeline.detection.promotions import NO_BASELINE, WIDENING, PromotionDay, former_days
from metrics_pipeline.rules.expression import Expression, Threshold
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.warehouse.read import MetricState

SEEN_DAYS = 28
"""A slice with a value in these days is expected to have one; later it counts as gone."""
_EPOCH = date(1970, 1, 1)
_PERIOD = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
_SPECIAL = "*"
"""Member of the verdict of a sliced rule that has no slices at all."""

COLUMNS = (
    "rule", "metric", "dimension", "member", "grain", "period_start", "value", "numerator", "denominator", "sample",
    "observed", "baseline", "lower", "upper", "yellow_bound", "red_bound", "tier", "reason", "rule_hash",
    "metric_version", "data_version", "evaluated_at", "run_id",
)  # fmt: skip
"""Columns of an evaluation, in this order (docs/architecture.md, Evaluations)."""
KEY = ("rule", "member", "period_start", "rule_hash", "metric_version", "data_version")
"""What makes an evaluation the same one."""


@dataclass(frozen=True)
class Span:
    """Shop-local [start, until): the tested periods are those that begin in it."""

    start: datetime
    until: datetime

    def pieces(self, days: int) -> list[Span]:
        """The span in consecutive pieces of at most `days` days: a replay in bounded memory."""
        found: list[Span] = []
        start = self.start
        while start < self.until:
            until = min(datetime.combine(start.date() + timedelta(days=days), datetime.min.time()), self.until)
            found.append(Span(start, until))
            start = until
        return found


@dataclass(frozen=True)
class Relations:
    """The relations of the statement besides the values, and what the statement's text depends on."""

    tables: Mapping[str, pa.Table]
    families: frozenset[str]
    probabilities: tuple[float, ...]
    reads: tuple[Span, ...]
    """Spans of values that are needed, for choosing files."""
    dimensions: frozenset[str]


@dataclass
class _Columns:
    """Rows of a relation, column by column."""

    schema: dict[str, pa.DataType]
    values: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, **row: Any) -> None:
        for name in self.schema:
            self.values.setdefault(name, []).append(row[name])

    def table(self) -> pa.Table:
        schema = pa.schema(list(self.schema.items()))
        return pa.table({name: self.values.get(name, []) for name in self.schema}, schema=schema)


def relations(
    rules: Sequence[Rule],
    metrics: Mapping[str, MetricState],
    promotions: Sequence[PromotionDay],
    span: Span,
) -> Relations:
    """What the statement needs to know of these rules, metrics and periods."""
    specs: dict[_Asked, int] = {}
    for rule in rules:
        specs.setdefault(_asked(rule), len(specs))
    former = {
        day: before
        for day, before in former_days(promotions).items()
        if span.start.date() <= day < span.until.date() + timedelta(days=1)
    }
    keys = _Keys()
    tables = {
        "rules": _rules(rules, specs, metrics, keys),
        "specs": _specs(specs, keys),
        "change_offsets": _change_offsets(specs),
        "periods": _periods(span),
        "events": _events(promotions),
        "former_events": _former_events(former),
    }
    wanted = _Wanted(metrics, span, keys)
    for metric, dimension, grain, expression, sample in specs:
        wanted.want(metric, grain, dimension, max(SEEN_DAYS, _lookback_days(expression)))
        if expression.promotions == "last_event" and expression.family == "band":
            wanted.want_former(metric, grain, dimension, former.values())
        if sample is not None:
            wanted.want(sample[0], grain, dimension, SEEN_DAYS)
    tables["wanted"], reads = wanted.result()
    return Relations(
        tables,
        frozenset(spec.expression.family for spec in specs),
        tuple(sorted({spec.expression.probability for spec in specs if spec.expression.family == "quantile"})),
        reads,
        frozenset(rule.dimension for rule in rules),
    )


def statement(values: str, families: Collection[str], probabilities: Sequence[float] = ()) -> str:
    """The SELECT over all rules × slices × periods.

    `values`: a table expression with the published columns. `families`, `probabilities`: what the rules ask for; a
    detector that nobody asks is left out of the text. Parameter `$evaluated_at`: shop-local moment.

    Columns: `COLUMNS` up to `metric_version`, then `severity`: how far the observed number lies beyond the first
    threshold (below 0 = on the good side); it orders the slices of one rule.
    """
    detectors = {"change": change.CTES, "quantile": quantile.ctes(probabilities), "band": seasonal.CTES}
    asked = [family for family in detectors if family in families]
    judged = "\n    UNION ALL\n".join(f"    SELECT * FROM {family}_judged" for family in asked) or _NOTHING_JUDGED
    parts = [
        _POINTS.format(values=values, seen_days=SEEN_DAYS),
        *(detectors[family] for family in asked),
        f"judged AS (\n{judged}\n)",
        _VERDICTS,
    ]
    return "WITH\n" + ",\n".join(part.strip() for part in parts)


class _Asked(NamedTuple):
    """What a spec is: rules that agree in this share their computation."""

    metric: str
    dimension: str
    grain: str
    expression: Expression
    """Without the drawn width of a band, which changes nothing that is computed."""
    sample: tuple[str, float] | None
    """Sample metric and least value: which slices are looked at."""


class _Keys:
    """Numbers for metric × grain × dimension, so that values are joined by a number and not by three texts."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str, str], int] = {}

    def number(self, metric: str, grain: str, dimension: str) -> int:
        return self._numbers.setdefault((metric, grain, dimension), len(self._numbers))


def _asked(rule: Rule) -> _Asked:
    sample = (rule.min_sample.metric, rule.min_sample.gte) if rule.min_sample is not None else None
    return _Asked(rule.metric, rule.dimension, rule.grain, replace(rule.expr, width=None), sample)


def _lookback_days(expression: Expression) -> int:
    match expression.family:
        case "value":
            return 0
        case "change":
            return -(-expression.lag_hours * expression.over // 24)
        case "quantile":
            return expression.window_days
        case "band":
            return seasonal.lookback_days(expression.weeks)


def _rules(
    rules: Sequence[Rule], specs: Mapping[_Asked, int], metrics: Mapping[str, MetricState], keys: _Keys
) -> pa.Table:
    bounds = {
        f"{tier}_{side}{suffix}": kind
        for tier in ("yellow", "red")
        for side in ("above", "below")
        for suffix, kind in (("", pa.float64()), ("_counts", pa.bool_()))
    }
    columns = _Columns(
        {
            "rule": pa.string(), "rule_hash": pa.string(), "spec_no": pa.int32(), "key_no": pa.int32(), "metric": pa.string(),
            "dimension": pa.string(), "grain": pa.string(), "metric_version": pa.string(), "is_absent": pa.bool_(),
            "last_start": pa.timestamp("us"), "due_minutes": pa.int32(), "no_data_tier": pa.string(), "missing_is_zero": pa.bool_(),
            "has_sample": pa.bool_(), "sample_gte": pa.float64(), "change_absolute": pa.float64(),
            "change_relative": pa.float64(), "width": pa.float64(), **bounds,
        }
    )  # fmt: skip
    for rule in rules:
        state = metrics.get(rule.metric)
        is_absent = state is None or state.absent_en is not None or state.absent_zh is not None
        columns.add(
            rule=rule.id,
            rule_hash=rule.rule_hash,
            spec_no=specs[_asked(rule)],
            key_no=keys.number(rule.metric, rule.grain, rule.dimension),
            metric=rule.metric,
            dimension=rule.dimension,
            grain=rule.grain,
            metric_version=state.definition_version if state is not None else "",
            is_absent=is_absent,
            last_start=_last_start(state, rule.grain),
            due_minutes=int(rule.due_after.total_seconds() // 60),
            no_data_tier="no_data" if rule.no_data.then == "zero" else rule.no_data.then,
            missing_is_zero=rule.no_data.then == "zero",
            has_sample=rule.min_sample is not None,
            sample_gte=rule.min_sample.gte if rule.min_sample else None,
            change_absolute=rule.min_change.absolute if rule.min_change else None,
            change_relative=rule.min_change.relative if rule.min_change else None,
            width=_width(rule),
            **_bounds("yellow", rule.yellow_if, rule.direction),
            **_bounds("red", rule.red_if, rule.direction),
        )
    return columns.table()


def _bounds(tier: str, threshold: Threshold | None, direction: str) -> dict[str, float | bool | None]:
    """A threshold as two one-sided bounds; `_counts` says whether the bound itself already breaches."""
    above = below = None
    if threshold is not None and threshold.side in ("up", "both") and direction != "fall":
        above = threshold.high
    if threshold is not None and threshold.side in ("down", "both") and direction != "rise":
        below = threshold.low
    counts = threshold is not None and threshold.operator in (">=", "<=")
    return {
        f"{tier}_above": above,
        f"{tier}_above_counts": counts,
        f"{tier}_below": below,
        f"{tier}_below_counts": counts,
    }


def _width(rule: Rule) -> float | None:
    """Half-width of the drawn band, in scales; None where the family draws none."""
    if rule.expr.family != "band":
        return None
    threshold = rule.yellow_if or rule.red_if
    assert threshold is not None
    return rule.expr.width or max(abs(threshold.low), abs(threshold.high))


def _last_start(state: MetricState | None, grain: str) -> datetime | None:
    if state is None or state.complete_until is None:
        return None
    return state.complete_until - _PERIOD[grain]


def _specs(specs: Mapping[_Asked, int], keys: _Keys) -> pa.Table:
    columns = _Columns(
        {
            "spec_no": pa.int32(), "key_no": pa.int32(), "grain": pa.string(), "family": pa.string(),
            "window_days": pa.int32(), "probability": pa.float64(), "weeks": pa.int32(), "promotions": pa.string(),
            "least_values": pa.int32(), "sample_key_no": pa.int32(), "sample_gte": pa.float64(),
        }
    )  # fmt: skip
    for (metric, dimension, grain, expression, sample), number in specs.items():
        columns.add(
            spec_no=number,
            key_no=keys.number(metric, grain, dimension),
            grain=grain,
            family=expression.family,
            window_days=expression.window_days,
            probability=expression.probability,
            weeks=expression.weeks,
            promotions=expression.promotions,
            least_values=change.least_values(expression.over),
            sample_key_no=keys.number(sample[0], grain, dimension) if sample is not None else None,
            sample_gte=sample[1] if sample is not None else None,
        )
    return columns.table()


def _change_offsets(specs: Mapping[_Asked, int]) -> pa.Table:
    columns = _Columns({"spec_no": pa.int32(), "offset_hours": pa.int32()})
    for spec, number in specs.items():
        if spec.expression.family == "change":
            for step in range(1, spec.expression.over + 1):
                columns.add(spec_no=number, offset_hours=spec.expression.lag_hours * step)
    return columns.table()


def _periods(span: Span) -> pa.Table:
    columns = _Columns(
        {
            "grain": pa.string(),
            "period_start": pa.timestamp("us"),
            "period_end": pa.timestamp("us"),
            "day_no": pa.int32(),
        }
    )
    for grain, step in _PERIOD.items():
        start = span.start.replace(minute=0, second=0, microsecond=0)
        if grain == "day":
            start = start.replace(hour=0)
        while start < span.until:
            if start >= span.start:
                columns.add(grain=grain, period_start=start, period_end=start + step, day_no=_day_no(start.date()))
            start += step
    return columns.table()


def _events(promotions: Sequence[PromotionDay]) -> pa.Table:
    columns = _Columns({"day_no": pa.int32(), "widening": pa.float64(), "is_excluded": pa.bool_()})
    widest: dict[date, float] = {}
    for day in promotions:
        widest[day.date] = max(widest.get(day.date, 0.0), WIDENING[day.kind])
    excluded = {day.date for day in promotions if day.kind in NO_BASELINE}
    for on, widening in widest.items():
        columns.add(day_no=_day_no(on), widening=widening, is_excluded=on in excluded)
    return columns.table()


def _former_events(former: Mapping[date, date]) -> pa.Table:
    columns = _Columns({"day_no": pa.int32(), "former_day_no": pa.int32()})
    for day, before in former.items():
        columns.add(day_no=_day_no(day), former_day_no=_day_no(before))
    return columns.table()


def _day_no(day: date) -> int:
    return (day - _EPOCH).days


class _Wanted:
    """Which values are read: per metric, grain and dimension one span up to the tested periods, and former events."""

    def __init__(self, metrics: Mapping[str, MetricState], span: Span, keys: _Keys) -> None:
        self._metrics = metrics
        self._span = span
        self._keys = keys
        self._days: dict[tuple[str, str, str], int] = {}
        self._former: dict[tuple[str, str, str], set[date]] = {}

    def want(self, metric: str, grain: str, dimension: str, days: int) -> None:
        key = (metric, grain, dimension)
        self._days[key] = max(self._days.get(key, 0), days)

    def want_former(self, metric: str, grain: str, dimension: str, days: Any) -> None:
        self._former.setdefault((metric, grain, dimension), set()).update(days)

    def result(self) -> tuple[pa.Table, tuple[Span, ...]]:
        columns = _Columns(
            {
                "key_no": pa.int32(), "metric": pa.string(), "grain": pa.string(), "dimension": pa.string(),
                "metric_version": pa.string(), "since": pa.timestamp("us"), "until": pa.timestamp("us"), "last_start": pa.timestamp("us"),
            }
        )  # fmt: skip
        reads: set[Span] = set()
        for key, days in self._days.items():
            metric, grain, dimension = key
            state = self._metrics.get(metric)
            if state is None or state.complete_until is None:
                continue
            first = self._span.start - timedelta(days=days)
            recent = Span(first.replace(hour=0, minute=0, second=0, microsecond=0), self._span.until)
            former = [
                Span(_midnight(day) - timedelta(days=seasonal.lookback_days(1)), _midnight(day) + timedelta(days=1))
                for day in self._former.get(key, ())
            ]
            for piece in _disjoint([recent, *former]):
                reads.add(piece)
                columns.add(
                    key_no=self._keys.number(*key),
                    metric=metric,
                    grain=grain,
                    dimension=dimension,
                    metric_version=state.definition_version,
                    since=piece.start,
                    until=piece.until,
                    last_start=_last_start(state, grain),
                )
        return columns.table(), tuple(sorted(reads, key=lambda span: (span.start, span.until)))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time())


def _disjoint(spans: Sequence[Span]) -> list[Span]:
    """The same moments, each in one span only: no value is read twice."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].until:
            merged[-1] = Span(merged[-1].start, max(merged[-1].until, span.until))
        else:
            merged.append(span)
    return merged


_POINTS = """
-- values of the current definition and of complete periods only.
known AS MATERIALIZED (
    SELECT w.key_no, v.member, v.period_start, v.numerator, v.denominator, v.value
    FROM {values} AS v
    JOIN wanted AS w
        ON w.metric = v.metric AND w.grain = v.grain AND w.dimension = v.dimension
        AND w.metric_version = v.definition_version
        AND v.period_start >= w.since AND v.period_start < w.until AND v.period_start <= w.last_start
),
series AS MATERIALIZED (
    SELECT k.key_no, k.member, s.grain, row_number() OVER () AS series_no
    FROM (SELECT DISTINCT key_no, member FROM known) AS k
    JOIN (SELECT DISTINCT key_no, grain FROM specs) AS s ON s.key_no = k.key_no
),
points AS MATERIALIZED (
    SELECT
        s.series_no, k.period_start, k.numerator, k.denominator,
        CASE WHEN isfinite(k.value) THEN k.value END AS value,
        CASE
            WHEN NOT isfinite(k.value) THEN NULL
            WHEN k.denominator > 0 AND k.numerator IS NOT NULL THEN k.numerator
            ELSE k.value
        END AS n,
        CASE WHEN k.denominator > 0 AND k.numerator IS NOT NULL THEN k.denominator ELSE 1 END AS d,
        k.denominator > 0 AND k.numerator IS NOT NULL AS is_ratio,
        date_diff('day', DATE '1970-01-01', CAST(k.period_start AS DATE)) AS day_no,
        CASE WHEN s.grain = 'hour' THEN extract(hour FROM k.period_start) ELSE 0 END AS slot_hour,
        s.grain, coalesce(e.is_excluded, FALSE) AS is_event
    FROM known AS k
    JOIN series AS s ON s.key_no = k.key_no AND s.member = k.member
    LEFT JOIN events AS e ON e.day_no = date_diff('day', DATE '1970-01-01', CAST(k.period_start AS DATE))
),
-- every slice that had a value in the last four weeks is expected in the tested period.
expected AS MATERIALIZED (
    SELECT s.series_no, s.key_no, s.member, due.period_start, due.period_end
    FROM (
        SELECT DISTINCT seen.series_no, p.period_start, p.period_end
        FROM (
            SELECT series_no, grain, day_no FROM points WHERE grain = 'day'
            UNION ALL
            SELECT DISTINCT series_no, grain, day_no FROM points WHERE grain = 'hour'
        ) AS seen
        JOIN periods AS p ON p.grain = seen.grain AND seen.day_no BETWEEN p.day_no - {seen_days} AND p.day_no
    ) AS due
    JOIN series AS s ON s.series_no = due.series_no
),
-- a rule with a sample looks at the slices that had it in these weeks, not at thousands that never do.
sampled AS MATERIALIZED (
    SELECT DISTINCT seen.spec_no, seen.member, p.period_start
    FROM (
        SELECT DISTINCT
            spec.spec_no, spec.grain, k.member, date_diff('day', DATE '1970-01-01', CAST(k.period_start AS DATE)) AS day_no
        FROM specs AS spec
        JOIN known AS k ON k.key_no = spec.sample_key_no
        WHERE k.value >= spec.sample_gte
    ) AS seen
    JOIN periods AS p ON p.grain = seen.grain AND seen.day_no BETWEEN p.day_no - {seen_days} AND p.day_no
),
asked AS MATERIALIZED (
    SELECT spec.spec_no, spec.family, spec.sample_key_no, e.series_no, e.member, e.period_start, e.period_end
    FROM specs AS spec
    JOIN expected AS e ON e.key_no = spec.key_no
    LEFT JOIN sampled AS s
        ON s.spec_no = spec.spec_no AND s.member = e.member AND s.period_start = e.period_start
    WHERE spec.sample_key_no IS NULL OR s.spec_no IS NOT NULL
),
current_points AS MATERIALIZED (
    SELECT p.*
    FROM points AS p
    JOIN periods AS t ON t.grain = p.grain AND t.period_start = p.period_start
),
tested AS MATERIALIZED (
    SELECT a.spec_no, a.series_no, a.period_start, p.day_no, p.slot_hour, p.grain, p.value, p.n, p.d, p.is_ratio
    FROM asked AS a
    JOIN current_points AS p ON p.series_no = a.series_no AND p.period_start = a.period_start
    WHERE p.value IS NOT NULL AND a.family <> 'value'
)"""

_NOTHING_JUDGED = "    SELECT spec_no, series_no, period_start, NULL::DOUBLE AS baseline, NULL::DOUBLE AS scale FROM tested WHERE FALSE"
_VERDICTS = f"""
samples AS (
    SELECT k.key_no, k.member, k.period_start, k.value
    FROM known AS k
    WHERE k.key_no IN (SELECT sample_key_no FROM specs) AND k.period_start IN (SELECT period_start FROM periods)
),
-- what is the same for all rules that ask the same.
valued AS (
    SELECT
        a.*, p.series_no IS NOT NULL AS is_there, p.value, p.numerator, p.denominator, j.baseline,
        CASE WHEN a.family = 'value' THEN 1 ELSE nullif(j.scale, 0) END AS scale,
        CASE WHEN a.sample_key_no IS NULL THEN p.denominator ELSE s.value END AS sample
    FROM asked AS a
    LEFT JOIN current_points AS p ON p.series_no = a.series_no AND p.period_start = a.period_start
    LEFT JOIN judged AS j
        ON j.spec_no = a.spec_no AND j.series_no = a.series_no AND j.period_start = a.period_start
    LEFT JOIN samples AS s
        ON s.key_no = a.sample_key_no AND s.member = a.member AND s.period_start = a.period_start
),
measured AS (
    SELECT *, CASE WHEN family = 'value' THEN value ELSE (value - baseline) / scale END AS observed
    FROM (
        SELECT
            r.*, v.family, v.member, v.period_start, v.period_end, v.numerator, v.denominator, v.baseline, v.scale,
            v.sample, v.is_there OR r.missing_is_zero AS has_row,
            CASE
                WHEN NOT v.is_there AND r.missing_is_zero AND v.period_start <= r.last_start THEN 0 ELSE v.value
            END AS value
        FROM rules AS r
        JOIN valued AS v ON v.spec_no = r.spec_no
        WHERE NOT r.is_absent
    ) AS of_rule
),
breached AS (
    SELECT
        m.*,
        coalesce(
            observed > yellow_above OR (yellow_above_counts AND observed = yellow_above), FALSE
        ) OR coalesce(observed < yellow_below OR (yellow_below_counts AND observed = yellow_below), FALSE) AS is_yellow,
        coalesce(
            observed > red_above OR (red_above_counts AND observed = red_above), FALSE
        ) OR coalesce(observed < red_below OR (red_below_counts AND observed = red_below), FALSE) AS is_red,
        coalesce(abs(value - baseline) < change_absolute, FALSE)
        OR coalesce(abs(value - baseline) < change_relative * abs(baseline), FALSE) AS is_small
    FROM measured AS m
),
reasoned AS (
    SELECT
        b.*,
        CASE
            WHEN last_start IS NULL OR period_start > last_start THEN
                CASE
                    WHEN $evaluated_at >= period_end + due_minutes * INTERVAL '1 minute' THEN 'late' ELSE 'not_due'
                END
            WHEN NOT has_row THEN 'missing_slice'
            WHEN value IS NULL THEN 'null_value'
            WHEN has_sample AND (sample IS NULL OR sample < sample_gte) THEN 'min_sample'
            WHEN observed IS NULL THEN 'no_baseline'
            WHEN NOT is_yellow AND NOT is_red THEN 'ok'
            WHEN is_small THEN 'min_change'
            ELSE 'breach'
        END AS reason
    FROM breached AS b
),
-- every rule has a verdict for every period, also where there is no slice to judge.
without_slice AS (
    SELECT
        r.*, p.period_start,
        CASE WHEN r.dimension = 'all' THEN 'all' ELSE '{_SPECIAL}' END AS member,
        CASE
            WHEN r.is_absent THEN 'absent'
            WHEN p.period_start <= r.last_start AND EXISTS (
                SELECT 1 FROM expected AS e WHERE e.key_no = r.key_no AND e.period_start = p.period_start
            ) THEN 'min_sample'
            WHEN r.dimension <> 'all' AND r.last_start IS NOT NULL THEN 'absent'
            WHEN p.period_start <= r.last_start THEN 'missing_slice'
            WHEN $evaluated_at >= p.period_end + r.due_minutes * INTERVAL '1 minute' THEN 'late'
            ELSE 'not_due'
        END AS reason
    FROM rules AS r
    JOIN periods AS p ON p.grain = r.grain
    WHERE r.is_absent OR NOT EXISTS (
        SELECT 1 FROM asked AS a WHERE a.spec_no = r.spec_no AND a.period_start = p.period_start
    )
)
SELECT
    rule, metric, dimension, member, grain, period_start, value, numerator, denominator, sample, observed, baseline,
    baseline - width * scale AS lower, baseline + width * scale AS upper,
    coalesce(baseline, 0) + scale * CASE
        WHEN yellow_above IS NULL OR (yellow_below IS NOT NULL AND observed < (yellow_above + yellow_below) / 2)
            THEN yellow_below
        ELSE yellow_above
    END AS yellow_bound,
    coalesce(baseline, 0) + scale * CASE
        WHEN red_above IS NULL OR (red_below IS NOT NULL AND observed < (red_above + red_below) / 2) THEN red_below
        ELSE red_above
    END AS red_bound,
    CASE
        WHEN reason = 'breach' THEN CASE WHEN is_red THEN 'red' ELSE 'yellow' END
        WHEN reason IN ('ok', 'min_sample', 'min_change') THEN 'ok'
        WHEN reason IN ('late', 'missing_slice', 'null_value') THEN no_data_tier
        ELSE 'no_data'
    END AS tier,
    reason, rule_hash, metric_version,
    greatest(
        observed - coalesce(yellow_above, red_above), coalesce(yellow_below, red_below) - observed
    ) AS severity
FROM reasoned
UNION ALL
SELECT
    rule, metric, dimension, member, grain, period_start, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    CASE
        WHEN reason = 'absent' THEN 'unknown'
        WHEN reason = 'min_sample' THEN 'ok'
        WHEN reason IN ('late', 'missing_slice') THEN no_data_tier
        ELSE 'no_data'
    END,
    reason, rule_hash, metric_version, NULL
FROM without_slice
"""
