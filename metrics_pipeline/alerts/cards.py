"""Rule and metric → the card that notices carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.state import Policy

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Metric
    from metrics_pipeline.rules.model import Rule


def cards_of(rules: Iterable[Rule], metrics: Mapping[str, Metric], *, currency: str = "CNY") -> dict[str, RuleCard]:
    """One card per rule by rule id. Raises `KeyError` for a rule whose metric the library lacks (lint refuses those)."""
    return {
        rule.id: card_of(rule, metrics[rule.metric], currency=currency, upstream=upstream_of(rule.metric, metrics))
        for rule in rules
    }


def card_of(rule: Rule, metric: Metric, *, currency: str = "CNY", upstream: tuple[str, ...] = ()) -> RuleCard:
    """What people are told about this rule. `currency`: of the installation; `upstream`: what the metric is made of."""
    hourly = rule.grain == "hour"
    return RuleCard(
        id=rule.id,
        metric=rule.metric,
        name_zh=metric.name_zh,
        name_en=metric.name_en,
        unit=metric.unit,
        currency=currency,
        why=rule.why,
        why_zh=rule.why_zh,
        owner=rule.owner,
        expression=rule.observes,
        yellow_if="" if rule.yellow_if is None else str(rule.yellow_if),
        red_if="" if rule.red_if is None else str(rule.red_if),
        labels=dict(rule.labels),
        annotations={name: text for name, text in rule.annotations.model_dump().items() if text},
        asset_key=("hourly", metric.id) if hourly else (metric.layer, metric.id),
        policy=policy_of(rule),
        layer=metric.layer,
        category=metric.category,
        business_line=metric.business_line,
        metric_owner=metric.owner,
        sensitivity=metric.sensitivity,
        upstream=upstream,
        kind="composite"
        if rule.condition is not None
        else "freshness"
        if rule.expr.family == "freshness"
        else "metric",
        parts=rule.references,
    )


def upstream_of(metric: str, metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """Every metric that a metric is made of, directly or not, in the order of their names."""
    found: set[str] = set()
    waiting = list(metrics[metric].inputs) if metric in metrics else []
    while waiting:
        name = waiting.pop()
        if name not in found and name in metrics:
            found.add(name)
            waiting += metrics[name].inputs
    return tuple(sorted(found))


def policy_of(rule: Rule) -> Policy:
    """How patient the rule is."""
    return Policy(hold=rule.hold, keep_firing_for=rule.keep_firing_for)
