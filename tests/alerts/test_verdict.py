"""Verdicts from frames, and cards from rules."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import pytest

from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.alerts.verdict import verdicts_of_columns, verdicts_of_frame
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.settings import PROJECT_ROOT
from tests.alerts.builders import make_verdict


def test_a_frame_gives_its_verdicts_with_absences_as_none():
    expected = [make_verdict("red"), make_verdict("no_data", 1)]
    frame = pd.DataFrame([one._asdict() for one in expected])
    frame["evaluated_at"] = frame["evaluated_at"].dt.tz_localize(None)
    assert frame["value"].isna().tolist() == [False, True]
    assert verdicts_of_frame(frame) == expected


def test_text_times_and_infinities_are_taken():
    columns = {name: [value] for name, value in make_verdict("red")._asdict().items()}
    columns |= {"period_start": ["2025-11-11"], "evaluated_at": ["2025-11-12T08:00:00+08:00"], "value": [float("inf")]}
    [verdict] = verdicts_of_columns(columns)
    assert (verdict.period_start, verdict.value) == (datetime(2025, 11, 11), None)
    assert verdict.evaluated_at == datetime(2025, 11, 12, tzinfo=UTC)


def test_missing_columns_and_unknown_tiers_are_named():
    frame = pd.DataFrame([make_verdict()._asdict()])
    with pytest.raises(ValueError, match="lack the columns tier, data_version"):
        verdicts_of_frame(frame.drop(columns=["tier", "data_version"]))
    with pytest.raises(ValueError, match="unknown tier 'purple'; expected one of no_data, ok"):
        verdicts_of_frame(frame.assign(tier="purple"))


def test_a_card_says_what_the_rule_and_its_metric_say():
    rule = Rule.model_validate(
        {
            "alert": "refund_rate_surge",
            "why": "Refunds eat margin.",
            "why_zh": "退款侵蚀利润。",
            "metric": "refund_rate",
            "by": "region",
            "yellow_if": "> 0.08",
            "for": 2,
            "owner": "after-sales",
            "labels": {"scenario": "refund_surge"},
            "annotations": {"summary": "High.", "summary_zh": "偏高。"},
        }
    )
    metrics = Catalogue.read(PROJECT_ROOT / "dbt_project").metrics
    card = cards_of([rule], metrics, currency="USD")["refund_rate_surge"]
    assert (card.name_zh, card.unit, card.currency, card.policy.hold) == ("退款率", "ratio", "USD", 2)
    assert (card.asset_key, card.expression, card.red_if) == (("operational", "refund_rate"), "value", "")
    assert card.yellow_if == "> 0.08"
    assert card.annotations == {"summary": "High.", "summary_zh": "偏高。"}
