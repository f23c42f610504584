"""What is wrong with rules, beyond the shape of a single key: one check per function, all problems at once.

Every check takes a rule (and the catalogue) and yields findings `(key, message, mend)`; `load.py` adds file and line.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from metrics_pipeline.detection.quantile import MIN_VALUES
from metrics_pipeline.detection.seasonal import MIN_SAME_SLOT
from metrics_pipeline.rules.catalogue import Catalogue, MetricInfo, slices_of
from metrics_pipeline.rules.expression import Threshold
from metrics_pipeline.rules.model import Rule


class Finding(NamedTuple):
    """One thing that is wrong with a rule."""

    key: str
    """Key of the rule file it is about."""
    message: str
    mend: str


def nearest(word: str, known: Iterable[str]) -> str:
    """` — did you mean 'x'?` or an empty text."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" — did you mean {close[0]!r}?" if close else ""


def findings(rule: Rule, catalogue: Catalogue) -> list[Finding]:
    """Everything that is wrong with this rule."""
    metric = catalogue.metrics.get(rule.metric)
    found = [finding for check in _CHECKS for finding in check(rule)]
    found += _metric_is_known(rule, catalogue)
    if metric is not None:
        found += [finding for check in _METRIC_CHECKS for finding in check(rule, metric)]
    if rule.min_sample is not None:
        found += _sample_is_known(rule, catalogue)
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
    low, high = rule.recover_if.yellow, rule.recover_if.red
    if low is not None and high is not None and low.side == high.side and low.side != "within" and high.beyond(low):
        yield Finding(
            "recover_if",
            f'red recovers at "{high}", which is harder than the end of the whole alert at "{low}"',
            "red must recover before yellow does",
        )


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
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is None:
            continue
        if rule.expr.family in ("change", "quantile") and threshold.side == "down" and threshold.low <= -1:
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
    if rule.min_change is not None and rule.expr.family == "value":
        yield Finding(
            "min_change",
            "min_change compares with a baseline, and expr: value has none, so it would never fire",
            "remove min_change or use pct_change, quantile or band",
        )


def _zero_has_no_baseline(rule: Rule) -> Iterator[Finding]:
    if rule.no_data.then == "zero" and rule.expr.family != "value":
        yield Finding(
            "no_data",
            f"then: zero reads a missing row as 0, but the history of {rule.expr} would still lack those zeros",
            "use expr: value, or another then",
        )


def _share_bounds(rule: Rule, metric: MetricInfo) -> Iterator[Finding]:
    if rule.expr.family != "value" or not _is_share(metric):
        return
    for key, threshold in (("yellow_if", rule.yellow_if), ("red_if", rule.red_if)):
        if threshold is not None and _above_all(threshold):
            yield Finding(
                key,
                f'can never fire: {metric.id} is a share between 0 and 1 and never "{threshold}"',
                "write shares as 0.08, not as 8 %",
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
)
_METRIC_CHECKS: tuple[Callable[[Rule, MetricInfo], Iterator[Finding]], ...] = (
    _dimension_is_known,
    _grain_is_known,
    _share_bounds,
    _reachable,
)
