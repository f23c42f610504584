"""Verdicts, cards and ticks with boring defaults."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from metrics_pipeline.alerts import RuleCard, Verdict
from metrics_pipeline.alerts.state import Policy

DAY = datetime(2025, 11, 11)
NOW = datetime(2025, 11, 12, 2, 40, tzinfo=UTC)
RECEIVERS = ("file",)


def day(offset: int) -> datetime:
    return DAY + timedelta(days=offset)


def make_verdict(tier: str = "ok", period: int | datetime = 0, **changes) -> Verdict:
    """A daily verdict of refund_rate by region; `period` counts days from 2025-11-11. `v` is the data version."""
    start = day(period) if isinstance(period, int) else period
    version = changes.pop("v", 1)
    reason = {"yellow": "breach", "red": "breach", "no_data": "missing_slice", "unknown": "error"}.get(tier, "ok")
    value = {"ok": 0.03, "yellow": 0.09, "red": 0.132}.get(tier)
    fields = {
        "rule": "refund_rate_surge",
        "metric": "refund_rate",
        "dimension": "region",
        "member": "华北",
        "grain": "day",
        "period_start": start,
        "tier": tier,
        "reason": reason,
        "rule_hash": "r1",
        "metric_version": "m1",
        "data_version": f"v{version}",
        "evaluated_at": datetime(2025, 11, 1, tzinfo=UTC) + timedelta(days=(start - DAY).days, minutes=version),
        "value": value,
        "observed": value,
        "yellow_bound": 0.08,
        "red_bound": 0.12,
        "sample": 420.0,
        "run_id": f"run-{version}",
    }
    return Verdict(**{**fields, **changes})


def make_card(rule: str = "refund_rate_surge", **changes) -> RuleCard:
    fields = {
        "id": rule,
        "metric": "refund_rate",
        "name_zh": "退款率",
        "name_en": "Refund rate",
        "unit": "ratio",
        "why": "Refunds eat margin and predict complaints.",
        "why_zh": "退款侵蚀利润，并预示客诉。",
        "owner": "after-sales",
        "yellow_if": "> 0.08",
        "red_if": "> 0.12",
        "labels": {"scenario": "refund_surge"},
        "annotations": {
            "summary": "Refunds are far above normal.",
            "summary_zh": "退款率明显偏高。",
            "runbook": "https://wiki.example/refunds",
        },
        "asset_key": ("operational", "refund_rate"),
        "policy": Policy(),
    }
    return RuleCard(**{**fields, **changes})
