"""What is wrong with rules, beyond the shape of a single key: one check per function, all problems at once.

Every check takes a rule (and the catalogue) and yields findings `(key, message, mend)`; `load.py` adds file and line.
What two rules are needed for is in `set_findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from metrics_pipeline.detection.promotions import ANY_PROMOTION, WIDENING
from metrics_pipeline.detection.quantile import MIN_VALUES
from metrics_pipeline.detection.references import FILES
from metrics_pipeline.detection.seasonal import MIN_SAME_SLOT
from metrics_pipeline.forecasting.supply import STOCK
from metrics_pipeline.nearest import nearest
from metrics_pipeline.rules.catalogue import Catalogue, MetricInfo, slices_of
from metrics_pipeline.rules.composite import cycle_of
from metrics_pipeline.rules.expression import FORESEEN, TOGETHER, Threshold
from metrics_pipeline.rules.model import COMPOSITE, Override, Rule, Variant
from metrics_pipeline.rules.seeds import Seeds

WORK_ORDER = "work_order"
"""The label that says from which tier an alert opens a work order."""


class Finding(NamedTuple):
    """One thing that is wrong with a rule."""

    key: str
    """Key of the rule file it is about."""
    message: str
    mend: str


def findings(rule: Rule, catalogue: Catalogue, seeds: Seeds | None = None) -> list[Finding]:
    """Everything that is wrong with this rule. Without `seeds` names of events and the existence of targets are not checked."""
    metric = catalogue.metrics.get(rule.metric)
    found = [finding for check in _CHECKS for finding in check(rule)]
    found += _metric_is_known(rule, catalogue)
    if metric is not None:
        found += [finding for check in _METRIC_CHECKS for finding in check(rule, metric)]
    if rule.min_sample is not None:
        found += _sample_is_known(rule, catalogue)
    for name, variant in _variants(rule):
        found += _variant_findings(rule, name, variant, metric)
    if seeds is not None:
        found += [*_events_are_known(rule, seeds.events), *_reference_exists(rule, seeds)]
    return found


def set_findings(rules: Mapping[str, Rule], broken: Collection[str]) -> list[tuple[Rule, Finding]]:
    """What is wrong between rules: references of composites to rules that are unknown, broken, of another grain, or back to
    themselves. `rules`: all that can be read; `broken`: ids of those, and of others, that cannot be used."""
    found: list[tuple[Rule, Finding]] = []
    references = {rule.id: rule.references for rule in rules.values()}
    for rule in rules.values():
        key = next((name for name in COMPOSITE if getattr(rule, "none_of" if name == "not" else name)), "")
        for name in rule.references:
            other = rules.get(name)
            if other is None or (name in broken and name != rule.id and not cycle_of(rule.id, references)):
                what = "has problems of its own" if name in broken else f"does not exist{nearest(name, rules)}"
                mend = "mend that rule first" if name in broken else "write the id of a rule"
                found.append((rule, Finding(key, f"rule {name!r}, at which it looks, {what}", mend)))
            elif other.grain != rule.grain:
                message = f"rule {name!r} is per {other.grain}, this one per {rule.grain}: they share no period"
                found.append((rule, Finding(key, message, "look at rules of the same grain")))
        if way := cycle_of(rule.id, references):
            message = f"looks at itself: {' → '.join(way)}"
            found.append((rule, Finding(key, message, "take one rule out of the circle")))
    return found


def _metric_is_known(rule: Rule, catalogue: Catalogue) -> Iterator[Finding]:
    if rule.metric not in catalogue.metrics:
        yield Finding(
            "metric",
            f"metric {rule.metric!r} is not in the metric library{nearest(rule.metric, catalogue.metrics)}",
            "write a metric id of the library, or define the metric there first",
        )


def _dimension_is_known(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    slices = slices_of(metric, rule.grain)
    if rule.dimension in slices or rule.grain not in metric.grains:
        return
    if (turned := "|".join(reversed(rule.by))) in slices:
        yield Finding(
            "by", f"{metric.id} has the pair {turned}, not {rule.dimension}", f"write by: [{turned.replace('|', ', ')}]"
        )
        return
    yield Finding(
        "by",
        f"{metric.id} has no values by {rule.dimension} per {rule.grain}{nearest(rule.dimension, slices)}",
        f"use one of: {', '.join(slices)}",
    )


def _grain_is_known(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    if rule.grain not in metric.grains:
        yield Finding("grain", f"{metric.id} has no values by {rule.grain}", f"use one of: {', '.join(metric.grains)}")


def _sample_is_known(rule: Rule, catalogue: Catalogue) -> Iterator[Finding]:
    assert rule.min_sample is not None
    sample = catalogue.metrics.get(rule.min_sample.metric)
    if sample is None:
        name = rule.min_sample.metric
        yield Finding(
            "min_sample",
            f"sample metric {name!r} is not in the metric library{nearest(name, catalogue.metrics)}",
            "write a metric id of the library",
        )
    elif rule.dimension not in slices_of(sample, rule.grain):
        yield Finding(
            "min_sample",
            f"{sample.id} has no values by {rule.dimension} per {rule.grain}, so no slice would ever be judged",
            "take a sample metric with the rule's own dimension and grain",
        )


def _red_beyond_yellow(rule: Rule) -> Iterator[Finding]:
    if rule.yellow_if is not None and rule.red_if is not None and not rule.red_if.beyond(rule.yellow_if):
        yield Finding(
            "red_if",
            f'red "{rule.red_if}" does not lie beyond yellow "{rule.yellow_if}" in the same direction',
            "make red the stricter of the two, on the same side",
        )


def _recovery_inside(rule: Rule) -> Iterator[Finding]:
    for tier, trigger, recovery in (
        ("yellow", rule.yellow_if, rule.recover_if.yellow),
        ("red", rule.red_if, rule.recover_if.red),
    ):
        if recovery is None:
            continue
        if trigger is None:
            yield Finding(
                "recover_if", f"recover_if has {tier}, but there is no {tier}_if", f"remove it or add {tier}_if"
            )
        elif not recovery.recovers(trigger):
            yield Finding(
                "recover_if",
                f'recovery of {tier} "{recovery}" does not lie inside "{trigger}"',
                "recover on the healthy side of the threshold, e.g. > 0.08 recovers at < 0.07, outside 4 at inside 3",
            )
    yellow = rule.recover_if.yellow or rule.yellow_if
    if rule.recover_if.yellow is None and rule.recover_if.red is not None and yellow is not None:
        if _is_harder(rule.recover_if.red, yellow):
            yield Finding(
                "recover_if",
                f'red recovers at "{rule.recover_if.red}", when yellow "{yellow}" is over already',
                "let red recover before yellow does, or give yellow a recovery of its own",
            )
        return
    low, high = rule.recover_if.yellow, rule.recover_if.red
    if low is not None and high is not None and low.side == high.side and low.side != "within" and high.beyond(low):
        yield Finding(
            "recover_if",
            f'red recovers at "{high}", which is harder than the end of the whole alert at "{low}"',
            "red must recover before yellow does",
        )


def _is_harder(recovery: Threshold, trigger: Threshold) -> bool:
    """Whether there are numbers that no longer trigger, but have not recovered."""
    match trigger.side:
        case "up":
            return recovery.high < trigger.high
        case "down":
            return recovery.low > trigger.low
        case _:
            return recovery.low > trigger.low or recovery.high < trigger.high


def _thresholds_trigger(rule: Rule) -> Iterator[Finding]:
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is None:
            continue
        if threshold.side == "within":
            yield Finding(key, f'"{threshold}" is a recovery, not a trigger', "use outside, >, >=, < or <=")
        elif (rule.direction, threshold.side) in {("rise", "down"), ("fall", "up")}:
            yield Finding(
                key,
                f'can never fire: direction is {rule.direction}, but "{threshold}" looks the other way',
                "remove direction or turn the threshold round",
            )


def _reachable(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    """Counts and shares are never below 0; money, scores and returns may be."""
    if metric.unit in ("currency", "score") or (metric.unit == "ratio" and not _is_share(metric)):
        return
    if rule.condition:
        return
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is None:
            continue
        if rule.expr.family in _RELATIVE and threshold.side == "down" and threshold.low <= -1:
            yield Finding(
                key,
                f'can never fire: nothing falls by more than all of it, so {rule.expr} is never "{threshold}"',
                "write the fall as a share between -1 and 0, e.g. < -0.3",
            )


def _enough_history(rule: Rule) -> Iterator[Finding]:
    expr = rule.expr
    if expr.family == "band" and expr.weeks < MIN_SAME_SLOT:
        yield Finding(
            "expr",
            f"can never fire: a band needs {MIN_SAME_SLOT} same weekdays of history and weeks={expr.weeks} never has them",
            f"use weeks={MIN_SAME_SLOT} or more (default 8)",
        )
    if expr.family == "quantile" and expr.window_days < MIN_VALUES:
        yield Finding(
            "expr",
            f"can never fire: a quantile needs {MIN_VALUES} values and {expr.window_days} days never have them",
            f"use a window of {MIN_VALUES}d or more",
        )


def _lag_fits_grain(rule: Rule) -> Iterator[Finding]:
    if rule.grain == "day" and rule.expr.lag_hours % 24:
        yield Finding(
            "expr", f"{rule.expr} looks back by hours, but the rule is per day", "use days (1d, 7d) or grain: hour"
        )


def _change_has_baseline(rule: Rule) -> Iterator[Finding]:
    if rule.min_change is not None and not rule.expr.has_baseline:
        yield Finding(
            "min_change",
            f"min_change compares with a baseline, and expr: {rule.expr} has none, so it would never fire",
            "remove min_change or use pct_change, quantile or band",
        )


def _zero_has_no_baseline(rule: Rule) -> Iterator[Finding]:
    if rule.no_data.then == "zero" and (rule.expr.family != "value" or rule.condition):
        yield Finding(
            "no_data",
            f"then: zero reads a missing row as 0, but the history of {rule.expr} would still lack those zeros",
            "use expr: value, or another then",
        )


def _share_bounds(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    is_part = rule.expr.family == "share" and not rule.expr.lag_hours and metric.unit not in ("ratio", "score")
    if rule.condition or not (is_part or (rule.expr.family == "value" and _is_share(metric))):
        return
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is not None and _above_all(threshold):
            yield Finding(
                key,
                f"can never fire: {'the part of its parent' if is_part else metric.id} is a share between 0 and 1 and "
                f'never "{threshold}"',
                "write shares as 0.08, not as 8 %",
            )


def _composite_has_its_own_shape(rule: Rule) -> Iterator[Finding]:
    if rule.condition is None:
        return
    if rule.expr.family != "value":
        yield Finding(
            "expr", f"a composite rule looks at verdicts and has no expr, but there is {rule.expr}", "remove expr"
        )
    if not (rule.all_of or rule.any_of):
        yield Finding(
            "not",
            "would fire whenever all is well: there is nothing but not",
            "add all_of or any_of with what must breach",
        )
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is None:
            continue
        if threshold.holds(0):
            yield Finding(
                key, f'"{threshold}" holds at 0, when all is well', "observed is 0, 1 (yellow) or 2 (red); write >= 1"
            )
        elif not (threshold.holds(1) or threshold.holds(2)):
            yield Finding(key, f'can never fire: observed is 0, 1 or 2 and never "{threshold}"', "write >= 1 or >= 2")


def _forecast_is_per_day(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family in FORESEEN and rule.grain != "day":
        yield Finding(
            "expr", f"forecasts are per day, but the rule is per {rule.grain}", "use grain: day, or another expr"
        )


def _chance_bounds(rule: Rule) -> Iterator[Finding]:
    is_chance = rule.expr.family == "stockout" or (rule.expr.family == "forecast" and rule.expr.side)
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is None or not is_chance or rule.condition:
            continue
        if _above_all(threshold):
            yield Finding(
                key, f'can never fire: a chance lies between 0 and 1 and is never "{threshold}"', 'write e.g. "> 0.8"'
            )
        elif threshold.side == "down" and threshold.low <= 0:
            yield Finding(key, f'can never fire: a chance is never "{threshold}"', 'write e.g. "> 0.8"')


def _stockout_is_of_stock(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family == "stockout" and (rule.metric != STOCK or rule.dimension != "sku"):
        yield Finding(
            "expr",
            f"{rule.expr} is about {STOCK} by sku, but the rule is about {rule.metric} by {rule.dimension}",
            f"write metric: {STOCK} and by: [sku]",
        )


def _share_has_a_parent(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family != "share":
        return
    if not rule.by:
        yield Finding("expr", f"the total has no parent, but expr is {rule.expr}", "add by, or use another expr")
    elif rule.expr.parent and rule.expr.parent not in rule.by:
        yield Finding(
            "expr",
            f"the parent {rule.expr.parent!r} is no dimension of this rule{nearest(rule.expr.parent, rule.by)}",
            f"write share_of_parent() for the total{', or one of ' + ', '.join(rule.by) if len(rule.by) > 1 else ''}",
        )
    elif rule.by == (rule.expr.parent,):
        yield Finding(
            "expr", "a slice is all of itself, so its share is always 1", "write share_of_parent() for the total"
        )


def _parent_is_known(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    parent = rule.expr.parent or "all"
    if rule.expr.family == "share" and rule.by and parent not in slices_of(metric, rule.grain):
        yield Finding(
            "expr",
            f"{metric.id} has no values by {parent} per {rule.grain}, of which a slice would be a part",
            f"use one of: {', '.join(slices_of(metric, rule.grain))}",
        )


def _freshness_is_of_the_metric(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family != "freshness":
        return
    for key, is_given in (
        ("by", rule.by),
        ("min_sample", rule.min_sample),
        ("overrides", rule.overrides),
        ("promotions", rule.promotions),
    ):
        if is_given:
            yield Finding(key, f"freshness is of the whole metric and has no {key}", f"remove {key}")
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is not None and threshold.side != "up":
            yield Finding(
                key,
                f'"{threshold}" would fire on a metric that is fresh',
                'write the hours that are too many, e.g. "> 36"',
            )


def _references_are_per_day(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family in FILES and rule.grain != "day":
        yield Finding(
            "expr",
            f"targets and benchmarks are per day, but the rule is per {rule.grain}",
            "use grain: day, or another expr",
        )


def _reference_exists(rule: Rule, seeds: Seeds) -> Iterator[Finding]:
    family = rule.expr.reference
    if family is not None and not any(
        (one.kind, one.metric, one.dimension) == (family, rule.metric, rule.dimension) for one in seeds.references
    ):
        yield Finding(
            "expr",
            f"can never fire: {FILES[family]} has no row for {rule.metric} by {rule.dimension}",
            "add a row to that seed; member * is for every member",
        )


def _events_are_known(rule: Rule, events: Collection[str]) -> Iterator[Finding]:
    known = {*events, *WIDENING, ANY_PROMOTION}
    for name in rule.promotions:
        if name not in known:
            yield Finding(
                "promotions",
                f"{name!r} is no event or phase of the promotion calendar{nearest(name, known)}",
                f"use one of: {', '.join(sorted(known))}",
            )


def _together_is_per_day(rule: Rule) -> Iterator[Finding]:
    if rule.expr.pattern in TOGETHER and rule.grain == "hour":
        yield Finding("grain", f"{rule.expr} looks at whole days", "remove grain: hour")


def _freshness_is_over_when_it_is_over(rule: Rule) -> Iterator[Finding]:
    if rule.expr.family == "freshness" and rule.keep_firing_for:
        yield Finding(
            "keep_firing_for",
            "freshness is over when the data are there: to go on firing would only be late",
            "remove keep_firing_for",
        )


def _work_order_can_be_opened(rule: Rule) -> Iterator[Finding]:
    tier = rule.labels.get(WORK_ORDER)
    if tier is None or tier == "never":
        return
    if tier not in ("red", "yellow"):
        words = ("red", "yellow", "never")
        yield Finding(
            "labels", f"{WORK_ORDER}: {tier!r} is no tier{nearest(tier, words)}", f"use one of: {', '.join(words)}"
        )
    elif tier == "red" and not any(one.red_if is not None for one in _as_judged(rule)):
        yield Finding(
            "labels",
            f"{WORK_ORDER}: red opens no work order, for there is no red_if",
            f"write {WORK_ORDER}: yellow, or give a red_if",
        )


def _as_judged(rule: Rule) -> list[Rule]:
    """The rule, and what overrides and promotions make of it."""
    return [rule, *(rule.varied(variant) for _, variant in _variants(rule))]


def _variants(rule: Rule) -> list[tuple[str, Variant]]:
    overrides = [(f"overrides[{n}]", override) for n, override in enumerate(rule.overrides)]
    return [*overrides, *((f"promotions.{name}", variant) for name, variant in rule.promotions.items())]


def _variant_findings(rule: Rule, name: str, variant: Variant, metric: MetricInfo | None) -> Iterator[Finding]:
    """The checks of thresholds, on the rule as the variant makes it; what is wrong with the rule itself is not said again."""
    if not variant.changes:
        return
    key = name.partition("[")[0].partition(".")[0]
    varied = rule.varied(variant)
    if varied.yellow_if is None and varied.red_if is None and not variant.mute:
        yield Finding(key, f"{name} leaves no threshold", "give one, or write mute: true")
    known = {finding for check in _VARIED for finding in check(rule)}
    found = [finding for check in _VARIED for finding in check(varied)]
    if metric is not None:
        known |= {finding for check in _VARIED_METRIC for finding in check(rule, metric)}
        found += [finding for check in _VARIED_METRIC for finding in check(varied, metric)]
    for finding in found:
        if finding not in known:
            yield Finding(key, f"{name}: {finding.message}", finding.mend)


def _overrides_can_match(rule: Rule) -> Iterator[Finding]:
    for number, override in enumerate(rule.overrides):
        if unknown := [dimension for dimension in override.where if dimension not in rule.by]:
            yield Finding(
                "overrides",
                f"overrides[{number}] is for {unknown[0]}, by which this rule is not sliced{nearest(unknown[0], rule.by)}",
                f"use {', '.join(rule.by)}" if rule.by else "add by to the rule, or remove the override",
            )
        for earlier_number, earlier in enumerate(rule.overrides[:number]):
            if _covers(earlier, override):
                yield Finding(
                    "overrides",
                    f"overrides[{number}] is never used: overrides[{earlier_number}] matches all its slices first",
                    "write the narrower one first",
                )
    if ANY_PROMOTION in rule.promotions and list(rule.promotions)[-1] != ANY_PROMOTION:
        yield Finding("promotions", "what stands after `any` is never used", "write any last")


def _covers(wide: Override, narrow: Override) -> bool:
    return all(
        set(narrow.where.get(dimension, ())) <= set(members) and dimension in narrow.where
        for dimension, members in wide.where.items()
    )


def _is_share(metric: MetricInfo) -> bool:
    """By the style of the library a `_rate` or `_share` is a ratio between 0 and 1."""
    return metric.unit == "ratio" and metric.id.endswith(("_rate", "_share"))


def _above_all(threshold: Threshold) -> bool:
    return (threshold.operator == ">" and threshold.high >= 1) or (threshold.operator == ">=" and threshold.high > 1)


_CHECKS: tuple[Callable[[Rule], Iterator[Finding]], ...] = (
    _red_beyond_yellow,
    _recovery_inside,
    _thresholds_trigger,
    _enough_history,
    _lag_fits_grain,
    _change_has_baseline,
    _zero_has_no_baseline,
    _composite_has_its_own_shape,
    _share_has_a_parent,
    _freshness_is_of_the_metric,
    _references_are_per_day,
    _forecast_is_per_day,
    _chance_bounds,
    _stockout_is_of_stock,
    _overrides_can_match,
    _together_is_per_day,
    _freshness_is_over_when_it_is_over,
    _work_order_can_be_opened,
)
_METRIC_CHECKS: tuple[Callable[[Rule, MetricInfo], Iterator[Finding]], ...] = (
    _dimension_is_known,
    _grain_is_known,
    _share_bounds,
    _reachable,
    _parent_is_known,
)
_VARIED = (
    _red_beyond_yellow,
    _recovery_inside,
    _thresholds_trigger,
    _change_has_baseline,
    _composite_has_its_own_shape,
)
"""What a variant can break."""
_VARIED_METRIC = (_share_bounds, _reachable)
_RELATIVE = ("change", "quantile", "event", "target", "benchmark")
"""Families whose observed number is a relative distance: -1 = nothing is left."""
