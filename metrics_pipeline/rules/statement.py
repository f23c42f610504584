"""The one SQL statement that judges all rules on all slices in all periods, and the small relations it reads.

    values      published metric values (Parquet)
    rules       one row per rule: thresholds, bounds, due time, what it is about       (`Relations`)
    specs       one row per distinct metric × dimension × grain × expression           (rules that ask the same share it)
    wanted      which values are read: metric, grain, dimension, version, span
    periods     the tested periods
    events      promotion days of the whole shop;  former_events: the same day of the last such event
    event_where promotion days of some slices
    override_where, promotion_days, promotion_where: which slices and days have other thresholds
    reference_values: targets and benchmarks with their days

The same text serves one period of a night and the weeks of a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from metrics_pipeline.detection import change, event, quantile, references, seasonal, share
from metrics_pipeline.detection.promotions import (
    ANY_PROMOTION,
    NO_BASELINE,
    WIDENING,
    Affects,
    PromotionDay,
    former_days,
)
from metrics_pipeline.detection.references import FILES, Reference, digest_of
from metrics_pipeline.forecasting import judged as foreseen
from metrics_pipeline.rules import anomaly
from metrics_pipeline.rules.expression import FORESEEN, Expression, Threshold
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.past_incidents import PastIncident
from metrics_pipeline.warehouse.quoting import literal
from metrics_pipeline.warehouse.read import MetricState

SEEN_DAYS = 28
"""A slice with a value in these days is expected to have one; later it counts as gone."""
_DAY_MINUTES = 24 * 60
_EPOCH = date(1970, 1, 1)
_PERIOD = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
_BETWEEN_EVENTS = 400
"""Days after which every event that returns has returned, on whatever calendar."""
_SERIES = 1 << 32
"""A series is key × this + member, so that a row of history has one number to be joined by."""
_SPECIAL = "*"
"""Member of the verdict of a sliced rule that has no slices at all."""

OF_RULE = ("rule", "metric", "dimension", "grain", "rule_hash", "metric_version")
"""Columns of an evaluation that are the same in all verdicts of a rule."""
NUMBERS = (
    "value", "numerator", "denominator", "sample", "observed", "baseline", "lower", "upper", "yellow_bound", "red_bound",
)  # fmt: skip
"""Columns of an evaluation that are numbers; each may be absent."""
COLUMNS = (
    "rule", "metric", "dimension", "member", "grain", "period_start", *NUMBERS, "tier", "reason", "holds", "rule_hash",
    "metric_version", "data_version", "evaluated_at", "run_id",
)  # fmt: skip
"""Columns of an evaluation, in this order (docs/architecture.md, Evaluations)."""
TIERS = ("ok", "yellow", "red", "no_data", "unknown")
REASONS = (
    "ok", "breach", "late", "not_due", "missing_slice", "null_value", "min_sample", "no_baseline", "new_definition",
    "min_change", "muted", "not_event", "absent", "error",
)  # fmt: skip
HOLDS = ("none", "yellow", "red")
KEY = ("rule", "member", "period_start", "rule_hash", "metric_version", "data_version")
"""What makes an evaluation the same one."""


Feature = Literal["recovery", "variants", "composite", "slice_events", "incidents"]
"""recovery: some rule recovers at other thresholds than it fires at · variants: some rule has overrides or promotions ·
composite: the rules look at verdicts and not at values · slice_events: some promotion is of some slices only ·
incidents: some periods are known to be of past incidents."""


@dataclass(frozen=True)
class Span:
    """Shop-local [start, until): the tested periods are those that begin in it."""

    start: datetime
    until: datetime

    def split(self, moments: Iterable[datetime]) -> list[Span]:
        """The span cut at those of the moments that lie in it."""
        cuts = sorted({moment for moment in moments if self.start < moment < self.until})
        return [Span(*pair) for pair in zip([self.start, *cuts], [*cuts, self.until], strict=True)]

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
    features: frozenset[Feature] = frozenset()
    """What some rule uses beyond the plain case; the text of the statement has it only then."""
    anomalies: tuple[anomaly.Asked, ...] = ()
    """Specs whose baselines are learned outside the statement, which joins them as `anomaly_found`."""
    forecasts: tuple[foreseen.Ask, ...] = ()
    """What is asked of the future; whoever runs the statement provides the relation `forecasts`."""


@dataclass
class _Columns:
    """Rows of a relation, and the types of its columns."""

    schema: dict[str, pa.DataType]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, **row: Any) -> None:
        self.rows.append(row)

    def table(self) -> pa.Table:
        columns = {name: [row[name] for row in self.rows] for name in self.schema}
        return pa.table(columns, schema=pa.schema(list(self.schema.items())))


def relations(
    rules: Sequence[Rule],
    metrics: Mapping[str, MetricState],
    promotions: Sequence[PromotionDay],
    span: Span,
    *,
    numbers: Sequence[int] | None = None,
    set_numbers: Sequence[Reference] = (),
    incidents: Sequence[PastIncident] = (),
) -> Relations:
    """What the statement needs to know of these rules, metrics and periods.

    `set_numbers`: targets and benchmarks. `incidents`: those known when the span begins. `numbers`: of the rules, default from 0 on. Either all rules are composite or none is; freshness rules ask no series.
    """
    numbered = list(zip(range(len(rules)) if numbers is None else numbers, rules, strict=True))
    specs: dict[_Asked, int] = {}
    spec_of_rule = [specs.setdefault(_asked(rule), len(specs)) for rule in rules]
    former = {
        day: before
        for day, before in former_days(promotions).items()
        if span.start.date() <= day < span.until.date() + timedelta(days=1)
    }
    keys = _Keys()
    tables = {
        "rules": _rules(numbered, spec_of_rule, metrics, keys),
        "specs": _specs(specs, keys),
        "change_offsets": _change_offsets(specs),
        "periods": _periods(span),
        "events": _events(promotions),
        "event_where": _event_where(specs, promotions, keys, span),
        "former_events": _former_events(former),
        "override_where": _override_where(numbered),
        "promotion_days": _promotion_days(numbered, promotions, span),
        "promotion_where": _promotion_where(numbered, promotions, span),
    }
    wanted = _Wanted(metrics, span, keys)
    learned = _Wanted(metrics, span, keys)
    for metric, dimension, grain, expression, sample in specs:
        if expression.family == "anomaly":
            learned.want(metric, grain, dimension, anomaly.LOOKBACK_DAYS[grain])
        own_days = 0 if expression.family == "anomaly" else _lookback_days(expression, grain)
        wanted.want(metric, grain, dimension, max(SEEN_DAYS, own_days))
        if expression.promotions == "last_event" and expression.family == "band":
            wanted.want_former(metric, grain, dimension, former.values(), days=seasonal.lookback_days(1))
        if expression.family == "event":
            wanted.want_former(metric, grain, dimension, former.values(), days=0)
        if expression.family == "share":
            parent = expression.parent or "all"
            wanted.want(metric, grain, parent, max(SEEN_DAYS, _lookback_days(expression, grain)))
        if sample is not None:
            wanted.want(sample[0], grain, dimension, SEEN_DAYS)
    tables["wanted"], reads = wanted.result()
    if any(spec.expression.family == "anomaly" for spec in specs):
        tables["anomaly_wanted"], more = learned.result()
        reads = tuple(_disjoint([*reads, *more]))
    tables["reference_values"] = _reference_values(set_numbers, keys)
    tables["incident_periods"] = _incident_periods(incidents, keys)
    return Relations(
        tables,
        frozenset(spec.expression.family for spec in specs),
        tuple(sorted({spec.expression.probability for spec in specs if spec.expression.family == "quantile"})),
        reads,
        frozenset(rule.dimension for rule in rules)
        | {spec.expression.parent or "all" for spec in specs if spec.expression.family == "share"},
        _features(rules, promotions, tables["incident_periods"]),
        tuple(
            anomaly.Asked(number, keys.number(metric, grain, dimension), grain, dimension, expression, metric)
            for (metric, dimension, grain, expression, _), number in specs.items()
            if expression.family == "anomaly"
        ),
        tuple(_ask(spec, number) for spec, number in specs.items() if spec.expression.family in FORESEEN),
    )


def ruleset(
    rules: Sequence[Rule], metrics: Mapping[str, MetricState], references: Sequence[Reference] = (), *, first: int = 0
) -> pa.Table:
    """`rule_no` (from `first` on) and the columns `OF_RULE` of each rule, which the statement leaves to whoever wants the text."""
    hashes = _hashes(rules, references)
    columns = _Columns({"rule_no": pa.int32(), **dict.fromkeys(OF_RULE, pa.string())})
    for number, rule in enumerate(rules, start=first):
        state = metrics.get(rule.metric)
        columns.add(
            rule_no=number,
            rule=rule.id,
            metric=rule.metric,
            dimension=rule.dimension,
            grain=rule.grain,
            rule_hash=hashes[rule.id],
            metric_version=state.definition_version if state is not None else "",
        )
    return columns.table()


def _hashes(rules: Sequence[Rule], references: Sequence[Reference]) -> dict[str, str]:
    """Rule → hash of all that decides its verdicts: also the targets it is compared with, and the rules it looks at."""
    by_id = {rule.id: rule for rule in rules}
    found: dict[str, str] = {}

    def hash_of(rule: Rule, seen: frozenset[str]) -> str:
        if rule.id not in found:
            parts = [hash_of(by_id[name], seen | {rule.id}) for name in rule.references if name in by_id.keys() - seen]
            if (kind := rule.expr.reference) is not None:
                parts.append(digest_of(references, kind, rule.metric, rule.dimension))
            found[rule.id] = (
                hashlib.sha256(" ".join([rule.rule_hash, *parts]).encode()).hexdigest()[:12]
                if parts
                else rule.rule_hash
            )
        return found[rule.id]

    for rule in rules:
        hash_of(rule, frozenset())
    return found


def statement(values: str, needed: Relations, composed: str = "") -> str:
    """The SELECT over all rules × slices × periods.

    `values`: a table expression with the published columns. `needed`: what the rules ask for; a detector or feature
    that nobody asks is left out of the text. `composed`: the SQL of composite rules, of which `needed` is then. The connection has the `TYPES`. Parameter `$evaluated_at`: shop-local moment.

    Columns: `rule_no`, the measured `COLUMNS`, then `severity`: how far the observed number lies beyond the first
    threshold (below 0 = on the good side); it orders the slices of one rule.
    """
    families, probabilities, features = needed.families, needed.probabilities, needed.features
    common = {"series_no": _SERIES_NO, "day_no": _DAY_NO, "wanted_values": _WANTED_VALUES.format(values=values)}
    by_slice, with_incidents = "slice_events" in features, "incidents" in features
    detectors = {
        "change": change.CTES,
        "event": event.CTES,
        "reference": references.CTES.format(series=_SERIES),
        "share": share.CTES.format(series=_SERIES),
        "quantile": quantile.ctes(probabilities),
        "band": f"{_BAND_POINTS.format(**common)},\n{_BAND_EVENTS[by_slice]},\n{seasonal.CTES}",
        "anomaly": _ANOMALY.format(series=_SERIES),
        "forecast": foreseen.CTES.format(series=_SERIES),
    }
    wanted = {"reference" if family in FILES else "forecast" if family in FORESEEN else family for family in families}
    asked = [family for family in detectors if family in wanted]
    judged = "\n    UNION ALL BY NAME\n".join(_JUDGED_BY.get(family, _JUDGED).format(family=family) for family in asked)
    parts = [
        _KNOWN.format(
            values=values,
            seen_days=SEEN_DAYS,
            series=_SERIES,
            slice_events=_SLICE_EVENTS.format(series=_SERIES) if by_slice else "",
            is_event=(_IS_EVENT_OF_SLICE if by_slice else _IS_EVENT) + (_IS_INCIDENT if with_incidents else ""),
            join_slice_events=(_JOIN_SLICE_EVENTS.format(**common) if by_slice else "")
            + (_JOIN_INCIDENTS if with_incidents else ""),
            **common,
        ),
        *(detectors[family] for family in asked),
        f"judged AS (\n{judged or _NOTHING_JUDGED}\n)",
        *([composed] if "composite" in features else ()),
        *([_VARIANTS] if "variants" in features else ()),
        *([_SLICE_PROMOTIONS] if {"variants", "slice_events"} <= features else ()),
        _verdicts(features, families),
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

    def known(self, metric: str, grain: str, dimension: str) -> int | None:
        """The number, when something asks for these values."""
        return self._numbers.get((metric, grain, dimension))


def _ask(spec: _Asked, number: int) -> foreseen.Ask:
    expression = spec.expression
    side = expression.family if expression.family == "stockout" else expression.side
    return foreseen.Ask(
        number, spec.metric, spec.dimension, expression.window_days, side, expression.bound, spec.sample
    )


def _verdicts(features: frozenset[Feature], families: frozenset[str]) -> str:
    """The end of the statement: thresholds, reasons and tiers, with what the features add."""
    is_composite, has_variants = "composite" in features, "variants" in features
    joins, chosen = _JOIN_VARIANTS, _CHOSEN.format(promotion="d.promotion_no")
    if "slice_events" in features:
        joins, chosen = joins + _JOIN_SLICE_PROMOTIONS, _CHOSEN.format(promotion=_FIRST_PROMOTION)
    holds = _HOLDS_AS_TIER
    if is_composite:
        holds = _HOLDS.replace("observed", "holds_rank")
    elif "recovery" in features:
        holds = _HOLDS
    observed, scale, columns = _OBSERVED, "v.scale", ""
    learned = "anomaly" in families
    if learned:
        observed, scale, columns = (
            f"CASE WHEN family = 'anomaly' THEN rarity ELSE {observed} END",
            _LEARNED_SCALE,
            _LEARNED,
        )
    if families & FORESEEN:
        observed = f"CASE WHEN family IN ('forecast', 'stockout') THEN foreseen ELSE {observed} END"
        scale, columns = f"{scale}, v.foreseen", f"{columns}, j.foreseen"
    if is_composite:
        observed, scale = "rank::DOUBLE", "NULL::DOUBLE AS scale, c.rank, c.holds_rank"
    return _VERDICTS.format(
        holds=holds,
        observed=observed,
        scale=scale,
        learned=columns,
        lower="coalesce(low, baseline - width * scale)" if learned else "baseline - width * scale",
        upper="coalesce(high, baseline + width * scale)" if learned else "baseline + width * scale",
        yellow_bound=_bound("yellow", learned=learned),
        red_bound=_bound("red", learned=learned),
        of_rule=(_JOIN_COMPOSED if is_composite else "") + (joins if has_variants else ""),
        chosen=chosen if has_variants else "",
        muted="WHEN is_muted THEN 'muted'::reason_word\n            " if has_variants else "",
        not_event=_NOT_EVENT if "event" in families else "",
    )


def _bound(tier: str, *, learned: bool) -> str:
    """SQL: the value at which the observed number would be at the tier's threshold, on the side of the observed one."""
    threshold = f"""CASE
        WHEN {tier}_above IS NULL OR ({tier}_below IS NOT NULL AND observed < ({tier}_above + {tier}_below) / 2)
            THEN {tier}_below
        ELSE {tier}_above
    END"""
    plain = f"coalesce(baseline, 0) + scale * {threshold}"
    return (
        f"CASE WHEN family = 'anomaly' THEN {_LEARNED_BOUND.format(t=threshold)} ELSE {plain} END" if learned else plain
    )


def _features(
    rules: Sequence[Rule], promotions: Sequence[PromotionDay], incident_periods: pa.Table
) -> frozenset[Feature]:
    found: set[Feature] = set()
    if any(rule.condition for rule in rules):
        found.add("composite")
    if any(rule.overrides or rule.promotions for rule in rules):
        found.add("variants")
    own = [rule.recover_if for rule in rules]
    varied = [one.recover_if for rule in rules for one in (*rule.overrides, *rule.promotions.values())]
    if any(recovery.yellow or recovery.red for recovery in (*own, *varied)):
        found.add("recovery")
    if any(day.affects for day in promotions):
        found.add("slice_events")
    if incident_periods.num_rows:
        found.add("incidents")
    return frozenset(found)


def _asked(rule: Rule) -> _Asked:
    sample = (rule.min_sample.metric, rule.min_sample.gte) if rule.min_sample is not None else None
    expression = rule.expr if rule.expr.width is None else replace(rule.expr, width=None)
    return _Asked(rule.metric, rule.dimension, rule.grain, expression, sample)


def read_days(rule: Rule) -> int:
    """How many days before a period are read to judge it, former events aside."""
    return max(SEEN_DAYS, _lookback_days(rule.expr, rule.grain))


def _lookback_days(expression: Expression, grain: str) -> int:
    match expression.family:
        case "value" | "event" | "target" | "benchmark" | "freshness" | "forecast" | "stockout":
            return 0
        case "share":
            return -(-expression.lag_hours // 24)
        case "change":
            return -(-expression.lag_hours * expression.over // 24)
        case "quantile":
            return expression.window_days
        case "anomaly":
            return anomaly.LOOKBACK_DAYS[grain]
        case "band":
            return seasonal.lookback_days(expression.weeks)


def _rules(
    rules: Sequence[tuple[int, Rule]],
    spec_of_rule: Sequence[int],
    metrics: Mapping[str, MetricState],
    keys: _Keys,
) -> pa.Table:
    """One row per rule, and one for each way in which its overrides and promotions change it."""
    bounds = {
        f"{tier}_{side}{suffix}": kind
        for tier in ("yellow", "red", "yellow_holds", "red_holds")
        for side in ("above", "below")
        for suffix, kind in (("", pa.float64()), ("_counts", pa.bool_()))
    }
    columns = _Columns(
        {
            "rule_no": pa.int32(), "spec_no": pa.int32(), "key_no": pa.int64(), "is_total": pa.bool_(), "grain": pa.string(), "is_absent": pa.bool_(),
            "last_start": pa.timestamp("us"), "new_until": pa.timestamp("us"), "due_minutes": pa.int32(), "no_data_tier": pa.string(), "missing_is_zero": pa.bool_(),
            "has_sample": pa.bool_(), "sample_gte": pa.float64(), "change_absolute": pa.float64(),
            "change_relative": pa.float64(), "width": pa.float64(), "override_no": pa.int32(), "promotion_no": pa.int32(),
            "is_muted": pa.bool_(), **bounds,
        }
    )  # fmt: skip
    for (number, rule), spec_no in zip(rules, spec_of_rule, strict=True):
        state = metrics.get(rule.metric)
        common = {
            "rule_no": number,
            "spec_no": spec_no,
            "key_no": keys.number(rule.metric, rule.grain, rule.dimension),
            "is_total": rule.dimension == "all",
            "grain": rule.grain,
            "is_absent": state is None or state.absent_en is not None or state.absent_zh is not None,
            "last_start": _last_start(state, rule.grain),
            "new_until": _new_until(state, rule),
            "due_minutes": int(rule.due_after.total_seconds() // 60)
            + (state.settle_days * _DAY_MINUTES if state else 0),
            "no_data_tier": "no_data" if rule.no_data.then == "zero" else rule.no_data.then,
            "missing_is_zero": rule.no_data.then == "zero",
            "has_sample": rule.min_sample is not None,
            "sample_gte": rule.min_sample.gte if rule.min_sample else None,
        }
        for override_no, override in enumerate((None, *rule.overrides)):
            for promotion_no, promotion in enumerate((None, *rule.promotions.values())):
                own = rule.varied(override, promotion) if override or promotion else rule
                columns.add(
                    **common,
                    override_no=override_no,
                    promotion_no=promotion_no,
                    is_muted=any(one is not None and one.mute for one in (override, promotion)),
                    change_absolute=own.min_change.absolute if own.min_change else None,
                    change_relative=own.min_change.relative if own.min_change else None,
                    width=_width(own),
                    **_bounds("yellow", own.yellow_if, rule.direction),
                    **_bounds("red", own.red_if, rule.direction),
                    **_holding("yellow_holds", own.yellow_if, own.recover_if.yellow, rule.direction),
                    **_holding("red_holds", own.red_if, own.recover_if.red, rule.direction),
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


def _holding(
    name: str, trigger: Threshold | None, recovery: Threshold | None, direction: str
) -> dict[str, float | bool | None]:
    """Where a tier has not recovered yet: what `recovery` leaves, else what triggers it. Shaped as by `_bounds`."""
    if recovery is None or trigger is None:
        return _bounds(name, trigger, direction)
    above = recovery.high if recovery.side in ("down", "within") and direction != "fall" else None
    below = recovery.low if recovery.side in ("up", "within") and direction != "rise" else None
    counts = recovery.operator in ("<", ">")  # recovered below 0.07: at 0.07 it is not
    return {
        f"{name}_above": above,
        f"{name}_above_counts": counts,
        f"{name}_below": below,
        f"{name}_below_counts": counts,
    }


def _width(rule: Rule) -> float | None:
    """Half-width of the drawn band, in scales; None where the family draws none."""
    if rule.expr.family != "band":
        return None
    threshold = rule.yellow_if or rule.red_if
    if threshold is None:  # a variant that is muted
        return None
    return rule.expr.width or max(abs(threshold.low), abs(threshold.high))


def _new_until(state: MetricState | None, rule: Rule) -> datetime | None:
    """First moment from which a missing baseline is not for a change of the metric's definition; None = never is."""
    if state is None or state.version_since is None or rule.condition is not None:
        return None
    days = _BETWEEN_EVENTS if rule.expr.family == "event" else _lookback_days(rule.expr, rule.grain)
    return state.version_since + timedelta(days=days)


def _last_start(state: MetricState | None, grain: str) -> datetime | None:
    if state is None or state.complete_until is None:
        return None
    return state.complete_until - _PERIOD[grain]


def _specs(specs: Mapping[_Asked, int], keys: _Keys) -> pa.Table:
    columns = _Columns(
        {
            "spec_no": pa.int64(), "key_no": pa.int64(), "grain": pa.string(), "family": pa.string(),
            "window_days": pa.int32(), "probability": pa.float64(), "weeks": pa.int32(), "promotions": pa.string(),
            "lag_hours": pa.int32(), "parent_key_no": pa.int64(), "parent_part": pa.int32(),
            "least_values": pa.int32(), "sample_no": pa.int32(), "sample_key_no": pa.int64(), "sample_gte": pa.float64(),
        }
    )  # fmt: skip
    samples: dict[tuple[tuple[str, float], str, str], int] = {}
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
            sample_no=samples.setdefault((sample, grain, dimension), len(samples)) if sample is not None else None,
            lag_hours=expression.lag_hours,
            parent_key_no=keys.number(metric, grain, expression.parent or "all")
            if expression.family == "share"
            else None,
            parent_part=dimension.split("|").index(expression.parent) + 1 if expression.parent else 0,
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
            "is_hourly": pa.bool_(),
            "period_no": pa.int32(),
            "period_start": pa.timestamp("us"),
            "period_end": pa.timestamp("us"),
            "day_no": pa.int32(),
            "slot_hour": pa.int8(),
        }
    )
    number = 0
    for grain, step in _PERIOD.items():
        start = span.start.replace(minute=0, second=0, microsecond=0)
        if grain == "day":
            start = start.replace(hour=0)
        while start < span.until:
            if start >= span.start:
                columns.add(
                    grain=grain,
                    is_hourly=grain == "hour",
                    period_no=number,
                    period_start=start,
                    period_end=start + step,
                    day_no=_day_no(start.date()),
                    slot_hour=start.hour,
                )
                number += 1
            start += step
    return columns.table()


def _events(promotions: Sequence[PromotionDay]) -> pa.Table:
    columns = _Columns({"day_no": pa.int32(), "widening": pa.float64(), "is_excluded": pa.bool_()})
    for on, widening, is_excluded in _widest((day.date, day) for day in promotions if not day.affects):
        columns.add(day_no=_day_no(on), widening=widening, is_excluded=is_excluded)
    return columns.table()


def _widest(days: Iterable[tuple[date, PromotionDay]]) -> Iterator[tuple[date, float, bool]]:
    """Each day with the widest tolerance of its events, and whether one of them keeps it out of baselines."""
    found: dict[date, tuple[float, bool]] = {}
    for on, day in days:
        widening, is_excluded = found.get(on, (0.0, False))
        found[on] = max(widening, WIDENING[day.kind]), is_excluded or day.kind in NO_BASELINE
    return ((on, *one) for on, one in found.items())


def _event_where(specs: Mapping[_Asked, int], promotions: Sequence[PromotionDay], keys: _Keys, span: Span) -> pa.Table:
    """Promotion days of some slices: a row per member of each part of each key that has all the parts."""
    columns = _Columns(
        {
            "key_no": pa.int64(), "event_no": pa.int32(), "part_no": pa.int32(), "parts": pa.int32(),
            "member": pa.string(), "day_no": pa.int32(), "widening": pa.float64(), "is_excluded": pa.bool_(),
        }
    )  # fmt: skip
    first = span.start.date() - timedelta(
        days=max([SEEN_DAYS, *(_lookback_days(one.expression, one.grain) for one in specs)])
    )
    days: dict[Affects, list[PromotionDay]] = {}
    for day in promotions:
        if day.affects and first <= day.date <= span.until.date():
            days.setdefault(day.affects, []).append(day)
    asked = sorted({(metric, grain, dimension) for metric, dimension, grain, *_ in specs})
    event_no = 0
    for affects, own in days.items():
        for on, widening, is_excluded in _widest((day.date, day) for day in own):
            event_no += 1
            for key in asked:
                for part_no, member in _parts_of(affects, key[2].split("|")):
                    columns.add(
                        key_no=keys.number(*key), event_no=event_no, part_no=part_no, parts=len(affects),
                        member=member, day_no=_day_no(on), widening=widening, is_excluded=is_excluded,
                    )  # fmt: skip
    return columns.table()


def _incident_periods(incidents: Sequence[PastIncident], keys: _Keys) -> pa.Table:
    """The periods of these incidents, for the series that are asked: `key_no, member, period_start`, each once."""
    columns = _Columns({"key_no": pa.int64(), "member": pa.string(), "period_start": pa.timestamp("us")})
    found = set()
    for one in incidents:
        key = keys.known(one.metric, one.grain, one.dimension)
        if key is not None:
            count = (one.last_period - one.first_period) // _PERIOD[one.grain] + 1
            found |= {(key, one.member, one.first_period + n * _PERIOD[one.grain]) for n in range(count)}
    for key, member, start in sorted(found):
        columns.add(key_no=key, member=member, period_start=start)
    return columns.table()


def _parts_of(affects: Affects, dimensions: Sequence[str]) -> list[tuple[int, str]]:
    """(number of the part, member) of every member that is named; nothing when some dimension is not sliced by."""
    if any(name not in dimensions for name, _ in affects):
        return []
    return [(dimensions.index(name) + 1, member) for name, members in affects for member in members]


def _former_events(former: Mapping[date, date]) -> pa.Table:
    columns = _Columns({"day_no": pa.int32(), "former_day_no": pa.int32()})
    for day, before in former.items():
        columns.add(day_no=_day_no(day), former_day_no=_day_no(before))
    return columns.table()


def _override_where(rules: Sequence[tuple[int, Rule]]) -> pa.Table:
    """Which members the overrides are for: one row per member of each part of the slice."""
    columns = _Columns(
        {
            "rule_no": pa.int32(),
            "override_no": pa.int32(),
            "part_no": pa.int32(),
            "parts": pa.int32(),
            "member": pa.string(),
        }
    )
    for number, rule in rules:
        for override_no, override in enumerate(rule.overrides, start=1):
            for dimension, members in override.where.items():
                for member in dict.fromkeys(members):
                    columns.add(
                        rule_no=number,
                        override_no=override_no,
                        part_no=rule.by.index(dimension) + 1,
                        parts=len(override.where),
                        member=member,
                    )
    return columns.table()


def _promotion_days(rules: Sequence[tuple[int, Rule]], promotions: Sequence[PromotionDay], span: Span) -> pa.Table:
    """Which variant of each rule the promotion days of the span get: the first whose event, phase or `any` is today."""
    columns = _Columns({"rule_no": pa.int32(), "day_no": pa.int32(), "promotion_no": pa.int32()})
    names = _names(day for day in promotions if not day.affects and _is_in(span, day))
    for number, rule in rules:
        for on, chosen in _chosen(rule, names):
            columns.add(rule_no=number, day_no=_day_no(on), promotion_no=chosen)
    return columns.table()


def _promotion_where(rules: Sequence[tuple[int, Rule]], promotions: Sequence[PromotionDay], span: Span) -> pa.Table:
    """The same of promotions of some slices: one row per member of each part, as `_override_where`."""
    columns = _Columns(
        {
            "rule_no": pa.int32(), "day_no": pa.int32(), "promotion_no": pa.int32(), "event_no": pa.int32(),
            "part_no": pa.int32(), "parts": pa.int32(), "member": pa.string(),
        }
    )  # fmt: skip
    own = [day for day in promotions if day.affects and _is_in(span, day)]
    for event_no, affects in enumerate(dict.fromkeys(day.affects for day in own)):
        names = _names(day for day in own if day.affects == affects)
        for number, rule in rules:
            for on, chosen in _chosen(rule, names):
                for part_no, member in _parts_of(affects, rule.by):
                    columns.add(
                        rule_no=number, day_no=_day_no(on), promotion_no=chosen, event_no=event_no, part_no=part_no,
                        parts=len(affects), member=member,
                    )  # fmt: skip
    return columns.table()


def _is_in(span: Span, day: PromotionDay) -> bool:
    return span.start.date() <= day.date <= span.until.date()


def _names(days: Iterable[PromotionDay]) -> dict[date, set[str]]:
    """Date → what a rule may call it."""
    names: dict[date, set[str]] = {}
    for day in days:
        names.setdefault(day.date, {ANY_PROMOTION}).update((day.event, day.kind))
    return names


def _chosen(rule: Rule, names: Mapping[date, set[str]]) -> Iterator[tuple[date, int]]:
    """Date → number of the first variant of the rule that is for it."""
    for on, of_day in names.items() if rule.promotions else ():
        number = next((n for n, name in enumerate(rule.promotions, start=1) if name in of_day), None)
        if number is not None:
            yield on, number


def _reference_values(references: Sequence[Reference], keys: _Keys) -> pa.Table:
    columns = _Columns(
        {
            "kind": pa.string(), "key_no": pa.int64(), "member": pa.string(), "from_day_no": pa.int32(),
            "to_day_no": pa.int32(), "amount": pa.float64(),
        }
    )  # fmt: skip
    for one in references:
        columns.add(
            kind=one.kind,
            key_no=keys.number(one.metric, "day", one.dimension),
            member=one.member,
            from_day_no=_day_no(one.valid_from),
            to_day_no=_day_no(one.valid_to),
            amount=one.amount,
        )
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
        self._former: dict[tuple[str, str, str], dict[date, int]] = {}

    def want(self, metric: str, grain: str, dimension: str, days: int) -> None:
        key = (metric, grain, dimension)
        self._days[key] = max(self._days.get(key, 0), days)

    def want_former(self, metric: str, grain: str, dimension: str, dates: Iterable[date], *, days: int) -> None:
        """These dates, and as many days before each."""
        former = self._former.setdefault((metric, grain, dimension), {})
        for day in dates:
            former[day] = max(former.get(day, 0), days)

    def result(self) -> tuple[pa.Table, tuple[Span, ...]]:
        columns = _Columns(
            {
                "key_no": pa.int64(), "metric": pa.string(), "grain": pa.string(), "is_hourly": pa.bool_(), "dimension": pa.string(),
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
                Span(_midnight(day) - timedelta(days=before), _midnight(day) + timedelta(days=1))
                for day, before in self._former.get(key, {}).items()
            ]
            for piece in _disjoint([recent, *former]):
                reads.add(piece)
                columns.add(
                    key_no=self._keys.number(*key),
                    metric=metric,
                    grain=grain,
                    is_hourly=grain == "hour",
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


_KNOWN = """
members AS MATERIALIZED (
    SELECT member, row_number() OVER () AS member_no FROM (SELECT DISTINCT member FROM {values})
),
{slice_events}-- values of the current definition and of complete periods only; a series is one member of one key, and a number:
-- everything after this is joined and grouped by numbers, and only as wide as the history has to be.
known AS MATERIALIZED (
    SELECT
        CAST(w.key_no AS INTEGER) AS key_no, {series_no} AS series_no, v.period_start,
        v.numerator, v.denominator, CASE WHEN isfinite(v.value) THEN v.value END AS value, {day_no} AS day_no,
        CAST(CASE WHEN w.is_hourly THEN extract(hour FROM v.period_start) ELSE 0 END AS TINYINT) AS slot_hour,
        w.is_hourly, {is_event} AS is_event
    {wanted_values}
    LEFT JOIN events AS e ON e.day_no = {day_no}{join_slice_events}
),
current_values AS MATERIALIZED (
    SELECT series_no, period_start, numerator, denominator, value
    FROM known
    WHERE period_start IN (SELECT period_start FROM periods)
),
-- every slice that had a value in the last four weeks is expected in the tested period.
expected AS MATERIALIZED (
    SELECT
        row_number() OVER () AS expected_no, due.*, p.period_start, m.member,
        v.series_no IS NOT NULL AS is_there, v.value, v.numerator, v.denominator
    FROM (
        SELECT DISTINCT seen.series_no, p.period_no
        FROM (
            SELECT series_no, is_hourly, day_no FROM known WHERE NOT is_hourly
            UNION ALL
            SELECT DISTINCT series_no, is_hourly, day_no FROM known WHERE is_hourly
        ) AS seen
        JOIN periods AS p
            ON p.is_hourly = seen.is_hourly AND seen.day_no BETWEEN p.day_no - {seen_days} AND p.day_no
    ) AS due
    JOIN periods AS p ON p.period_no = due.period_no
    JOIN members AS m ON m.member_no = due.series_no % {series}
    LEFT JOIN current_values AS v ON v.series_no = due.series_no AND v.period_start = p.period_start
),
-- a rule with a sample looks at the slices that had it in these weeks, not at thousands that never do.
sampled AS MATERIALIZED (
    SELECT DISTINCT s.sample_no, seen.series_no % {series} AS member_no, p.period_no
    FROM (SELECT DISTINCT sample_no, sample_key_no, sample_gte FROM specs WHERE sample_no IS NOT NULL) AS s
    JOIN known AS seen ON seen.key_no = s.sample_key_no AND seen.value >= s.sample_gte
    JOIN periods AS p
        ON p.is_hourly = seen.is_hourly AND seen.day_no BETWEEN p.day_no - {seen_days} AND p.day_no
),
-- what is the same for all rules that ask the same.
asked AS MATERIALIZED (
    SELECT
        spec.spec_no * {series} + e.expected_no AS ask_no, spec.spec_no, spec.family, e.expected_no, e.series_no,
        e.period_no, e.period_start, e.value, e.numerator, e.denominator,
        CASE WHEN spec.sample_no IS NULL THEN e.denominator ELSE sample.value END AS sample
    FROM specs AS spec
    JOIN expected AS e ON e.series_no // {series} = spec.key_no
    LEFT JOIN sampled AS s
        ON s.sample_no = spec.sample_no AND s.member_no = e.series_no % {series} AND s.period_no = e.period_no
    LEFT JOIN current_values AS sample
        ON sample.series_no = spec.sample_key_no * {series} + e.series_no % {series}
        AND sample.period_start = e.period_start
    WHERE spec.sample_no IS NULL OR s.sample_no IS NOT NULL
),
tested AS MATERIALIZED (
    SELECT
        a.ask_no, a.spec_no, a.series_no, a.period_start, p.day_no, p.slot_hour,
        CASE WHEN a.denominator > 0 AND a.numerator IS NOT NULL THEN a.denominator ELSE 1 END AS d,
        coalesce(a.denominator > 0 AND a.numerator IS NOT NULL, FALSE) AS is_ratio
    FROM asked AS a
    JOIN periods AS p ON p.period_no = a.period_no
    WHERE a.value IS NOT NULL AND a.family <> 'value'
)"""
_WANTED_VALUES = """FROM {values} AS v
    JOIN wanted AS w
        ON w.metric = v.metric AND w.grain = v.grain AND w.dimension = v.dimension
        AND w.metric_version = v.definition_version
        AND v.period_start >= w.since AND v.period_start < w.until AND v.period_start <= w.last_start
    JOIN members AS m ON m.member = v.member"""
_IS_EVENT = "coalesce(e.is_excluded, FALSE)"
_IS_EVENT_OF_SLICE = "coalesce(e.is_excluded, FALSE) OR coalesce(own.is_excluded, FALSE)"
_SLICE_EVENTS = """-- promotions of some slices: which series they are about.
slice_events AS MATERIALIZED (
    SELECT series_no, day_no, max(widening) AS widening, bool_or(is_excluded) AS is_excluded
    FROM (
        SELECT
            w.key_no * {series} + m.member_no AS series_no, w.day_no, any_value(w.widening) AS widening,
            any_value(w.is_excluded) AS is_excluded
        FROM event_where AS w
        JOIN members AS m ON string_split(m.member, '|')[w.part_no] = w.member
        GROUP BY w.key_no, w.event_no, w.day_no, m.member_no
        HAVING count(*) = any_value(w.parts)
    ) AS matching
    GROUP BY series_no, day_no
),
"""
_JOIN_SLICE_EVENTS = """
    LEFT JOIN slice_events AS own ON own.series_no = {series_no} AND own.day_no = {day_no}"""
_IS_INCIDENT = " OR i.key_no IS NOT NULL"
_JOIN_INCIDENTS = """
    LEFT JOIN incident_periods AS i
        ON i.key_no = w.key_no AND i.member = v.member AND i.period_start = v.period_start"""
_SERIES_NO = f"w.key_no * {_SERIES} + m.member_no"
_DAY_NO = "CAST(date_diff('day', DATE '1970-01-01', CAST(v.period_start AS DATE)) AS INTEGER)"

_BAND_POINTS = """
-- what the band reads: numerator and denominator of every value, or the value and 1.
points AS MATERIALIZED (
    SELECT
        series_no, day_no, slot_hour, CASE WHEN is_hourly THEN 'hour' ELSE 'day' END AS grain, is_event,
        CASE WHEN denominator > 0 AND numerator IS NOT NULL THEN numerator ELSE value END AS n,
        CASE WHEN denominator > 0 AND numerator IS NOT NULL THEN denominator ELSE 1 END AS d
    FROM known
    WHERE value IS NOT NULL AND key_no IN (SELECT key_no FROM specs WHERE family = 'band')
)"""
_BAND_EVENTS = {
    False: """-- how wide the band of a day is at least: promotions of the whole shop.
tested_events AS (
    SELECT t.spec_no, t.series_no, t.day_no, e.widening
    FROM (SELECT DISTINCT spec_no, series_no, day_no FROM tested) AS t
    JOIN events AS e ON e.day_no = t.day_no
)""",
    True: """-- how wide the band of a day is at least: promotions of the whole shop and of the slice.
tested_events AS (
    SELECT t.spec_no, t.series_no, t.day_no, greatest(e.widening, own.widening) AS widening
    FROM (SELECT DISTINCT spec_no, series_no, day_no FROM tested) AS t
    LEFT JOIN events AS e ON e.day_no = t.day_no
    LEFT JOIN slice_events AS own ON own.series_no = t.series_no AND own.day_no = t.day_no
    WHERE e.day_no IS NOT NULL OR own.day_no IS NOT NULL
)""",
}
_JUDGED = "    SELECT ask_no, baseline, scale FROM {family}_judged"
_JUDGED_BY = {
    "forecast": "    SELECT ask_no, baseline, scale, foreseen FROM forecast_judged",
    "band": """    SELECT t.ask_no, b.baseline, b.scale
    FROM band_judged AS b
    JOIN tested AS t ON t.spec_no = b.spec_no AND t.series_no = b.series_no AND t.period_start = b.period_start""",
    "anomaly": "    SELECT ask_no, baseline, scale, rarity, low, high, low_red, high_red FROM anomaly_judged",
}
_ANOMALY = """
-- anomaly: learned from the series' own past and its peers before this statement (rules/anomaly.py).
anomaly_judged AS (
    SELECT t.ask_no, f.baseline, NULL::DOUBLE AS scale, f.observed AS rarity, f.low, f.high, f.low_red, f.high_red
    FROM tested AS t
    JOIN specs AS s ON s.spec_no = t.spec_no AND s.family = 'anomaly'
    JOIN members AS m ON m.member_no = t.series_no % {series}
    JOIN anomaly_found AS f ON f.spec_no = t.spec_no AND f.member = m.member AND f.period_start = t.period_start
)"""
_LEARNED = ", j.rarity, j.low, j.high, j.low_red, j.high_red"
_LEARNED_SCALE = "v.scale, v.rarity, v.low, v.high, v.low_red, v.high_red"
_LEARNED_BOUND = """(
        SELECT CASE
            WHEN t >= 1 THEN high + (t - 1) * (high_red - high)
            WHEN t >= 0 THEN baseline + t * (high - baseline)
            WHEN t >= -1 THEN baseline - t * (low - baseline)
            ELSE low + (-1 - t) * (low_red - low)
        END
        FROM (SELECT {t} AS t) AS at_threshold
    )"""
"""The observed number is 1 at `high`, 2 at `high_red` (−1 and −2 at `low`, `low_red`), and straight in between."""
_NOTHING_JUDGED = "    SELECT ask_no, NULL::DOUBLE AS baseline, NULL::DOUBLE AS scale FROM tested WHERE FALSE"


WORDS = {"tier_word": TIERS, "reason_word": REASONS, "holds_word": HOLDS}
"""Types of the columns of words, to be made on the connection: compared, kept and handed over as small numbers."""
TYPES = ";\n".join(
    f"CREATE TYPE {name} AS ENUM ({', '.join(literal(word) for word in words)})" for name, words in WORDS.items()
)
_HOLDS_AS_TIER = """CASE tier
        WHEN 'red' THEN 'red'::holds_word WHEN 'yellow' THEN 'yellow'::holds_word ELSE 'none'::holds_word
    END"""
_HOLDS = f"""CASE
        WHEN reason NOT IN ('breach', 'ok') THEN {_HOLDS_AS_TIER}
        WHEN observed > red_holds_above OR (red_holds_above_counts AND observed = red_holds_above)
            OR observed < red_holds_below OR (red_holds_below_counts AND observed = red_holds_below) THEN 'red'::holds_word
        WHEN observed > yellow_holds_above OR (yellow_holds_above_counts AND observed = yellow_holds_above)
            OR observed < yellow_holds_below OR (yellow_holds_below_counts AND observed = yellow_holds_below) THEN 'yellow'::holds_word
        ELSE 'none'::holds_word
    END"""
"""The highest tier whose recovery the observation has not met: what an alert that already fires would keep. A change
that is too small to count (min_change) holds nothing."""
_OBSERVED = "CASE WHEN family = 'value' THEN value ELSE (value - coalesce(baseline, 0)) / scale END"
_JOIN_COMPOSED = """
        LEFT JOIN composed AS c ON c.rule_no = r.rule_no AND c.expected_no = v.expected_no"""
_VARIANTS = """
-- which override a slice gets, and (promotion_days) which variant a day gets; 0 is the rule as it is.
slice_override AS MATERIALIZED (
    SELECT rule_no, member, min(override_no) AS override_no
    FROM (
        SELECT w.rule_no, w.override_no, m.member
        FROM override_where AS w
        JOIN members AS m ON string_split(m.member, '|')[w.part_no] = w.member
        GROUP BY w.rule_no, w.override_no, m.member
        HAVING count(*) = min(w.parts)
    ) AS matching
    GROUP BY rule_no, member
)"""
_JOIN_VARIANTS = """
        LEFT JOIN slice_override AS o ON o.rule_no = r.rule_no AND o.member = e.member
        LEFT JOIN promotion_days AS d ON d.rule_no = r.rule_no AND d.day_no = p.day_no"""
_SLICE_PROMOTIONS = """
slice_promotion AS MATERIALIZED (
    SELECT rule_no, member, day_no, min(promotion_no) AS promotion_no
    FROM (
        SELECT w.rule_no, w.day_no, w.event_no, m.member, min(w.promotion_no) AS promotion_no
        FROM promotion_where AS w
        JOIN members AS m ON string_split(m.member, '|')[w.part_no] = w.member
        GROUP BY w.rule_no, w.day_no, w.event_no, m.member
        HAVING count(*) = min(w.parts)
    ) AS matching
    GROUP BY rule_no, member, day_no
)"""
_JOIN_SLICE_PROMOTIONS = """
        LEFT JOIN slice_promotion AS q ON q.rule_no = r.rule_no AND q.member = e.member AND q.day_no = p.day_no"""
_FIRST_PROMOTION = "least(d.promotion_no, q.promotion_no)"
_CHOSEN = " AND r.override_no = coalesce(o.override_no, 0) AND r.promotion_no = coalesce({promotion}, 0)"
_NOT_EVENT = """WHEN observed IS NULL AND family = 'event' AND date_diff('day', DATE '1970-01-01', CAST(period_start AS DATE))
                NOT IN (SELECT day_no FROM events) THEN 'not_event'::reason_word
            """
_VERDICTS = f"""
valued AS (
    SELECT a.*, j.baseline, CASE WHEN a.family = 'value' THEN 1 ELSE nullif(j.scale, 0) END AS scale{{learned}}
    FROM asked AS a
    LEFT JOIN judged AS j ON j.ask_no = a.ask_no
),
measured AS (
    SELECT *, {{observed}} AS observed
    FROM (
        SELECT
            r.*, v.family, e.member, v.period_start, p.period_end, v.numerator, v.denominator, v.baseline, {{scale}},
            v.sample, e.is_there OR r.missing_is_zero AS has_row,
            CASE
                WHEN NOT e.is_there AND r.missing_is_zero AND v.period_start <= r.last_start THEN 0 ELSE v.value
            END AS value
        FROM rules AS r
        JOIN valued AS v ON v.spec_no = r.spec_no
        JOIN expected AS e ON e.expected_no = v.expected_no
        JOIN periods AS p ON p.period_no = v.period_no{{of_rule}}
        WHERE NOT r.is_absent{{chosen}}
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
                    WHEN $evaluated_at >= period_end + due_minutes * INTERVAL '1 minute' THEN 'late'::reason_word ELSE 'not_due'::reason_word
                END
            WHEN NOT has_row THEN 'missing_slice'::reason_word
            WHEN value IS NULL THEN 'null_value'::reason_word
            {{muted}}WHEN has_sample AND (sample IS NULL OR sample < sample_gte) THEN 'min_sample'::reason_word
            {{not_event}}WHEN observed IS NULL AND period_start < new_until THEN 'new_definition'::reason_word
            WHEN observed IS NULL THEN 'no_baseline'::reason_word
            WHEN NOT is_yellow AND NOT is_red THEN 'ok'::reason_word
            WHEN is_small THEN 'min_change'::reason_word
            ELSE 'breach'::reason_word
        END AS reason
    FROM breached AS b
),
-- every rule has a verdict for every period, also where there is no slice to judge.
without_slice AS (
    SELECT
        r.*, p.period_start,
        CASE WHEN r.is_total THEN 'all' ELSE '{_SPECIAL}' END AS member,
        CASE
            WHEN r.is_absent THEN 'absent'::reason_word
            WHEN p.period_start <= r.last_start AND EXISTS (
                SELECT 1 FROM expected AS e WHERE e.series_no // {_SERIES} = r.key_no AND e.period_start = p.period_start
            ) THEN 'min_sample'::reason_word
            WHEN NOT r.is_total AND r.last_start IS NOT NULL THEN 'absent'::reason_word
            WHEN p.period_start <= r.last_start THEN 'missing_slice'::reason_word
            WHEN $evaluated_at >= p.period_end + r.due_minutes * INTERVAL '1 minute' THEN 'late'::reason_word
            ELSE 'not_due'::reason_word
        END AS reason
    FROM rules AS r
    JOIN periods AS p ON p.grain = r.grain
    WHERE r.override_no = 0 AND r.promotion_no = 0 AND (
        r.is_absent OR NOT EXISTS (
            SELECT 1 FROM asked AS a WHERE a.spec_no = r.spec_no AND a.period_start = p.period_start
        )
    )
)
SELECT
    rule_no, member, period_start, value, numerator, denominator, sample, observed, baseline,
    {{lower}} AS lower, {{upper}} AS upper,
    {{yellow_bound}} AS yellow_bound,
    {{red_bound}} AS red_bound,
    CASE
        WHEN reason = 'breach' THEN CASE WHEN is_red THEN 'red'::tier_word ELSE 'yellow'::tier_word END
        WHEN reason IN ('ok', 'min_sample', 'min_change', 'muted', 'not_event') THEN 'ok'::tier_word
        WHEN reason IN ('late', 'missing_slice', 'null_value') THEN no_data_tier::tier_word
        ELSE 'no_data'::tier_word
    END AS tier,
    reason,
    {{holds}} AS holds,
    greatest(
        observed - coalesce(yellow_above, red_above), coalesce(yellow_below, red_below) - observed
    ) AS severity
FROM reasoned
UNION ALL
SELECT
    rule_no, member, period_start, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
    CASE
        WHEN reason = 'absent' THEN 'unknown'::tier_word
        WHEN reason = 'min_sample' THEN 'ok'::tier_word
        WHEN reason IN ('late', 'missing_slice') THEN no_data_tier::tier_word
        ELSE 'no_data'::tier_word
    END AS tier,
    reason, {_HOLDS_AS_TIER}, NULL
FROM without_slice
"""
