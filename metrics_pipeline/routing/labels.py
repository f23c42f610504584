"""The labels of an alert: what matchers, groups and inhibition see.

Fixed: `alertname` (rule id), `severity` (yellow, red), `metric`, `layer`, `business_line`, `owner` (of the
rule), `metric_owner`, `grain`. Then the rule's own labels (`scenario` and others), and one label per dimension of the
slice: `region="华东"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Metric
    from metrics_pipeline.routing.people import Directory
    from metrics_pipeline.rules.model import Rule

SEVERITY: Final = "severity"
SEVERITIES: Final = ("yellow", "red")
FIXED: Final = (
    "alertname",
    SEVERITY,
    "metric",
    "layer",
    "business_line",
    "owner",
    "metric_owner",
    "grain",
)
PIPELINE: Final[Mapping[str, str]] = {"pipeline_failed": "job", "alerting_down": "part"}
"""Alarms about the pipeline itself → the label that says of what."""
DRILL: Final = "drill"
"""Label of drills: the id of the rule that is drilled. It is part of every group, so a drill is told by itself."""

NAMELESS_DRILL: Final[Mapping[str, str]] = {"alertname": "drill", "scenario": "drill"}
"""Labels of a drill that is of no rule."""


def pipeline_labels(alertname: str) -> dict[str, str]:
    """The labels that all alarms of this name share, but for the severity, which is red.

    They belong to the team `data` and the business line `platform`. Raises `KeyError` when there is no such alarm.
    """
    assert PIPELINE[alertname]
    shared = {"scenario": "pipeline", "owner": "data", "business_line": "platform", "grain": "hour"}
    return {"alertname": alertname, **shared}


def rule_labels(rule: Rule, metric: Metric, directory: Directory) -> dict[str, str]:
    """The labels that all alerts of a rule share: all but the severity and the slice. Empty ones are left out."""
    fixed = {
        "alertname": rule.id,
        "metric": metric.id,
        "layer": metric.layer,
        "business_line": directory.line_of(metric.id, metric.category, metric.business_line),
        "owner": rule.owner,
        "metric_owner": metric.owner,
        "grain": rule.grain,
    }
    return {name: value for name, value in {**rule.labels, **fixed}.items() if value}


def slice_labels(dimension: str, member: str) -> dict[str, str]:
    """`('region|channel', '华北|app')` → `{'region': '华北', 'channel': 'app'}`; {} for the total."""
    if dimension in ("all", ""):
        return {}
    names = dimension.split("|")
    members = member.split("|", len(names) - 1)
    return dict(zip(names, members, strict=False))


def alert_labels(shared: Mapping[str, str], dimension: str, member: str, severity: str) -> dict[str, str]:
    """The labels of one alert: those of its rule, of its slice, and its tier."""
    return {**shared, **slice_labels(dimension, member), SEVERITY: severity}
