"""What answers suggest: each method on alerts made for it, and what none of them may do."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

from metrics_pipeline.followup.methods import Judged, scale_of, suggestions
from metrics_pipeline.rules.expression import parse_threshold

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import make_rule

CALM = make_rule(expr="band(seasonal)", yellow_if="< -4", red_if="< -7", by=["region"])


def judged(*alerts: tuple, rule=CALM, **more) -> Judged:
    """Alerts as (outcome, strength, other keys …)."""
    rows = [
        {
            "key": f"{n}", "dimension": "region", "member": "华北", "outcome": outcome, "worst_tier": "yellow",
            "strength": float(strength), "run": 1, "sample": 100.0, "event": "", **(more[0] if more else {}),
        }
        for n, (outcome, strength, *more) in enumerate(alerts)
    ]  # fmt: skip
    return Judged(rule, pd.DataFrame(rows), **more)


def kinds(found) -> list[str]:
    return [one.kind for one in found]


def test_a_threshold_never_passes_a_true_alert():
    found = suggestions(judged(*[("false", 4.2)] * 8, ("true", 6), ("true", 9)))
    assert kinds(found) == ["threshold"]
    bound = parse_threshold(found[0].changes["yellow_if"])
    assert -6 < bound.low <= -4.2


def test_where_true_and_unneeded_alerts_look_alike_no_threshold_is_proposed():
    assert suggestions(judged(*[("false", 6)] * 5, ("true", 4.2), ("true", 4.4))) == []


def test_red_moves_along_when_yellow_would_pass_it():
    found = suggestions(judged(*[("false", 8)] * 20, ("true", 20), ("true", 25)))
    yellow, red = (parse_threshold(found[0].changes[name]) for name in ("yellow_if", "red_if"))
    assert red.beyond(yellow) and yellow.low < -8


def test_a_bound_goes_no_further_than_the_noise_it_removes_is_worth():
    """Of twenty unneeded alerts two are far out: to do without them too would risk more than they cost."""
    noise = [("false", 4 + n / 20) for n in range(1, 19)] + [("false", 9.5), ("false", 9.6)]
    [found] = suggestions(judged(*noise, ("true", 10), ("true", 12)))
    assert -5.5 < parse_threshold(found.changes["yellow_if"]).low < -4.9
    assert found.facts["missed"] < 0.2


def test_without_a_true_alert_the_loudest_noise_is_still_told():
    found = suggestions(judged(*[("false", 4 + n / 20) for n in range(1, 19)], ("false", 9.6)))
    assert kinds(found) == ["threshold"] and parse_threshold(found[0].changes["yellow_if"]).low > -6


def test_short_alerts_that_were_unneeded_suggest_a_longer_for():
    found = suggestions(judged(*[("false", 6)] * 9, *[("true", 4.5, {"run": 3})] * 3))
    assert [(one.kind, one.changes) for one in found] == [("for", {"for": 2})]
    assert "1 period(s) later" in found[0].why


def test_small_samples_suggest_a_larger_one():
    rule = make_rule(expr="band(seasonal)", yellow_if="< -4", min_sample={"metric": "orders_paid", "gte": 50})
    alerts = [("false", 6, {"sample": 60})] * 6 + [("true", 4.5, {"sample": 400})] * 3
    [found] = suggestions(judged(*alerts, rule=rule))
    assert found.kind == "min_sample" and 60 < found.changes["min_sample"]["gte"] < 400


def test_a_slice_that_is_always_wrong_is_muted_and_overrides_stay():
    rule = make_rule(
        expr="band(seasonal)",
        yellow_if="< -4",
        by=["region"],
        overrides=[{"where": {"region": "华南"}, "yellow_if": "< -6"}],
    )
    alerts = [("false", 6, {"member": "西北"})] * 40 + [("true", 4.5)] * 3
    [found] = suggestions(judged(*alerts, rule=rule))
    assert found.changes == {
        "overrides": [{"where": {"region": "西北"}, "mute": True}, {"where": {"region": ["华南"]}, "yellow_if": "< -6"}]
    }


def test_alerts_on_promotion_days_that_nobody_needed_suggest_a_mute_of_these_days():
    alerts = [("expected", 6, {"event": "main"})] * 3 + [("true", 4.5)] * 3
    found = suggestions(judged(*alerts, event_days={"main": 0.03}))
    assert [one.changes for one in found if one.kind == "promotions"] == [{"promotions": {"main": {"mute": True}}}]
    alerts.append(("true", 9, {"event": "main"}))
    assert "promotions" not in kinds(suggestions(judged(*alerts, event_days={"main": 0.03})))


def test_red_that_was_never_true_becomes_yellow():
    alerts = [("false", 8, {"worst_tier": "red"})] * 3 + [("true", 4.5)] * 3
    assert [one.changes for one in suggestions(judged(*alerts)) if one.kind == "tier"] == [{"red_if": None}]


@pytest.mark.parametrize("outcomes", [["true"] * 9, ["false"] * 4, ["true"] * 8 + ["false"]])
def test_a_rule_that_is_right_or_hardly_answered_is_left_alone(outcomes):
    assert suggestions(judged(*[(one, 4.2 if one == "false" else 9) for one in outcomes])) == []


@pytest.mark.parametrize("text", ["> 0.08", "<= -0.3", "outside 4", "outside -3..5"])
def test_a_scale_gives_back_its_own_threshold(text):
    threshold = parse_threshold(text)
    scale = scale_of(threshold)
    assert scale.threshold(scale.bound) == threshold
    assert scale_of(parse_threshold("outside 3..5")) is None


def test_a_rule_with_a_budget_of_false_alarms_gets_a_smaller_one():
    rule = make_rule(
        expr="anomaly(budget=1/week, red=1/year)", yellow_if="outside 1", red_if="outside 2", by=["region"]
    )
    noise = [("false", 1 + n / 40) for n in range(1, 13)]
    [found] = suggestions(judged(*noise, ("true", 2.4), ("true", 3), rule=rule))
    # 1/month is as rare as 1 + log(30.4 / 7) / log(365 / 7) = 1.37: beyond the loudest noise (1.3), far from what was true
    assert (found.kind, found.changes) == ("budget", {"expr": "anomaly(budget=1/month, red=1/year)"})
    assert found.facts["at"] == pytest.approx(1.37, abs=0.01)
