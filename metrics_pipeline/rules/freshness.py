"""Freshness: hours since the moment up to which a metric is complete.

It is a fact about a metric now, not about a period, so there is one verdict per rule, for the newest period that has
ended; older periods were judged in their own time, and a replay has nothing to say. No series is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from metrics_pipeline.rules.composite import Numbered
from metrics_pipeline.rules.expression import Threshold
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.warehouse.read import MetricState

_STEP = {"day": timedelta(days=1), "hour": timedelta(hours=1)}


def verdicts(
    rules: Sequence[Numbered],
    metrics: Mapping[str, MetricState],
    now: datetime,
    start: datetime,
    until: datetime,
) -> list[dict[str, Any]]:
    """Rows of verdicts with the columns that are known; `now` and the span are shop-local."""
    if now == datetime.max:
        return []
    found = []
    for number, rule in rules:
        end = min(now, until)
        hour = 0 if rule.grain == "day" else end.hour
        newest = end.replace(hour=hour, minute=0, second=0, microsecond=0) - _STEP[rule.grain]
        if newest >= start:
            found.append({"rule_no": number, "member": "all", "period_start": newest, **_verdict(rule, metrics, now)})
    return found


def _verdict(rule: Rule, metrics: Mapping[str, MetricState], now: datetime) -> dict[str, Any]:
    state = metrics.get(rule.metric)
    if state is None or state.is_absent:
        return {"tier": "unknown", "reason": "absent", "holds": "none"}
    if state.complete_until is None:
        lost = "no_data" if rule.no_data.then == "zero" else rule.no_data.then
        return {"tier": lost, "reason": "late", "holds": lost if lost in ("yellow", "red") else "none"}
    hours = (now - state.complete_until) / timedelta(hours=1)
    tiers = {"red": rule.red_if, "yellow": rule.yellow_if}
    recoveries = {"red": rule.recover_if.red, "yellow": rule.recover_if.yellow}
    tier = next((name for name, bound in tiers.items() if bound is not None and bound.holds(hours)), "ok")
    holds = next((name for name, bound in tiers.items() if _keeps(bound, recoveries[name], hours)), "none")
    bounds = [bound.high for bound in (rule.yellow_if or rule.red_if,) if bound is not None]
    return {
        "observed": hours,
        "tier": tier,
        "reason": "ok" if tier == "ok" else "breach",
        "holds": holds,
        "severity": hours - bounds[0],
    }


def _keeps(trigger: Threshold | None, recovery: Threshold | None, hours: float) -> bool:
    if trigger is None:
        return False
    return trigger.holds(hours) if recovery is None else not recovery.holds(hours)
