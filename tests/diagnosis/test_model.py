import json
from dataclasses import replace
from datetime import date, datetime

import pytest

from metrics_pipeline.diagnosis.model import (
    Cause,
    Coinciding,
    Control,
    Diagnosis,
    Pyramid,
    PyramidStep,
    Since,
    UnreadableDiagnosis,
)


def make_diagnosis() -> Diagnosis:
    return Diagnosis(
        metric="gmv",
        slice={},
        grain="day",
        period=datetime(2026, 3, 4),
        observed=80.0,
        expected=100.0,
        expectation="same_weekday",
        change=-20.0,
        direction="down",
        verdict="single_cause",
        causes=(Cause({"region": "华东", "channel": "app"}, 2, 10.0, 28.0, -18.0, 0.9, None, None, 40.0, 0.99),),
        unexplained=-2.0,
        pyramid=Pyramid(
            (
                PyramidStep("orders_paid", 8.0, 10.0, -20.5, 1.025, "down"),
                PyramidStep("average_order_value", 10.0, 10.0, 0.5, -0.025, "up"),
            ),
            0.0,
            "log_change",
        ),
        coinciding=(
            Coinciding(
                "deploy_note",
                "note:3",
                "支付网关升级",
                "Payment gateway upgraded",
                date(2026, 3, 4),
                date(2026, 3, 4),
                {},
            ),
        ),
        since=Since(date(2026, 3, 4), 0.9),
        controls=(
            Control("unique_visitors", {}, 1000.0, 1003.0, 0.05),
            Control("gmv", {"region": "华北"}, 30, 30, 0.1),
        ),
        searched=("region|channel",),
        reason_zh="",
        reason_en="",
        data_version="v",
        computed_at=datetime(2026, 3, 5, 1),
        cpu_seconds=0.01,
    )


def test_a_diagnosis_survives_the_way_through_json():
    made = make_diagnosis()
    assert Diagnosis.from_json(json.dumps(made.to_json(), ensure_ascii=False)) == made
    without = replace(made, since=None, causes=(), observed=None)
    assert Diagnosis.from_json(without.to_json()) == without


def test_evidence_has_a_word_for_each_finding_and_none_for_what_is_absent():
    evidence = make_diagnosis().evidence()
    assert evidence["cause.dimension"] == ("region", "channel")
    assert evidence["cause.top"] == ("region=华东|channel=app",)
    assert evidence["pyramid.top"] == ("orders_paid",)
    assert evidence["pyramid.metric"] == ("orders_paid",)
    assert evidence["pyramid.direction"] == ("orders_paid:down",)
    assert evidence["coinciding.kind"] == ("deploy_note",)
    assert evidence["control.metric"] == ("unique_visitors",)
    assert evidence["control.member"] == ("region=华北",)
    assert "slice.member" not in evidence
    assert "cause.effect" not in evidence


def test_the_effect_of_a_ratio_is_the_larger_one():
    made = make_diagnosis()
    by_mix = replace(made.causes[0], rate_effect=-2.0, mix_effect=-16.0)
    assert replace(made, causes=(by_mix,)).evidence()["cause.effect"] == ("mix",)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"verdict": "weather"}, "verdict is 'weather'"), ({"period": "noon"}, "noon"), ({"causes": [{}]}, "argument")],
)
def test_json_that_is_no_diagnosis_is_refused_in_a_line(change, said):
    with pytest.raises(UnreadableDiagnosis, match=said):
        Diagnosis.from_json({**make_diagnosis().to_json(), **change})


def test_a_missing_field_is_named():
    document = make_diagnosis().to_json()
    del document["pyramid"]
    with pytest.raises(UnreadableDiagnosis, match="'pyramid' is missing"):
        Diagnosis.from_json(document)
