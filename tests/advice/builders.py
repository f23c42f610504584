"""Alerts, diagnoses and evidence with boring defaults."""

from __future__ import annotations

from datetime import date, datetime

from metrics_pipeline.advice.evidence import AlertFacts, Evidence
from metrics_pipeline.diagnosis.model import Cause, Coinciding, Control, Diagnosis, Pyramid, PyramidStep
from metrics_pipeline.forecasting.outlook import Outlook

PERIOD = datetime(2025, 11, 20)


def make_alert(metric: str = "ad_spend", direction: str = "up", **changes) -> AlertFacts:
    fields = {
        "episode": "ad_spend_surge_by_ad_channel{ad_channel=search}@2025-11-20T00:00",
        "rule": "ad_spend_surge_by_ad_channel",
        "metric": metric,
        "dimension": "ad_channel",
        "member": "search",
        "grain": "day",
        "tier": "red",
        "direction": direction,
        "period": PERIOD,
        "observed": 52_000.0,
        "expected": 12_000.0,
    }
    return AlertFacts(**{**fields, **changes})


def make_total(metric: str, direction: str, **changes) -> AlertFacts:
    changes = {"dimension": "all", "member": "all", **changes}
    return make_alert(
        metric, direction, **{"rule": metric, "episode": f"{metric}{{all=all}}@2025-11-20T00:00", **changes}
    )


def make_cause(elements: dict[str, str], share: float = 0.8, confidence: float = 0.9, **changes) -> Cause:
    fields = {
        "elements": elements,
        "layer": len(elements),
        "observed": 40.0,
        "expected": 100.0,
        "contribution": -60.0 * share,
        "share": share,
        "rate_effect": None,
        "mix_effect": None,
        "gain": 50.0,
        "confidence": confidence,
    }
    return Cause(**{**fields, **changes})


def make_step(metric: str, direction: str = "down", share: float = 0.7) -> PyramidStep:
    return PyramidStep(metric, 0.5, 0.9, -40.0, share, direction)


def make_diagnosis(metric: str = "gmv", direction: str = "down", **changes) -> Diagnosis:
    fields = {
        "metric": metric,
        "slice": {},
        "grain": "day",
        "period": PERIOD,
        "observed": 40.0,
        "expected": 100.0,
        "expectation": "same_weekday",
        "change": -60.0,
        "direction": direction,
        "verdict": "single_cause",
        "causes": (),
        "unexplained": 0.0,
        "pyramid": Pyramid((), 0.0, "none"),
        "coinciding": (),
        "since": None,
        "controls": (),
        "searched": ("region",),
        "reason_zh": "",
        "reason_en": "",
        "data_version": "v1",
        "computed_at": datetime(2025, 11, 21, 2),
        "cpu_seconds": 0.01,
    }
    steps = changes.pop("steps", ())
    pyramid = {"pyramid": Pyramid(tuple(steps), 0.0, "log_change")} if steps else {}
    return Diagnosis(**{**fields, **pyramid, **changes})


def make_coinciding(kind: str, **changes) -> Coinciding:
    day = PERIOD.date()
    return Coinciding(**{"kind": kind, "id": f"{kind}-1", "what_zh": "某事", "what_en": "something", "starts_on": day,
                         "ends_on": day, "elements": {}, **changes})  # fmt: skip


def make_control(metric: str) -> Control:
    return Control(metric, {}, 1000.0, 1005.0, 0.1)


def make_outlook(sku: str = "SKU-7", **changes) -> Outlook:
    fields = {
        "sku": sku, "origin": PERIOD.date(), "on_hand": 34, "on_order": 0, "per_day": 12.3, "lead_days": 5, "chance": 0.82,
        "sold_out_on": date(2025, 11, 23), "quantity": 240, "pack_size": 24, "order_by": date(2025, 11, 21),
        "arrives_on": date(2025, 11, 26), "supplier": "Acme", "is_late": False,
    }  # fmt: skip
    return Outlook(**{**fields, **changes})


def make_evidence(kind: str, strength: float = 0.8, **changes) -> Evidence:
    return Evidence(kind, strength, **changes)
