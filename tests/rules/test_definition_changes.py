"""Rules over a change of a metric's definition: baselines never mix versions, verdicts name theirs."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop import NOW, Shop, day, make_rule

from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.replay import replay

CHANGE_7D = {"expr": "pct_change(7d)", "yellow_if": "< -0.3"}


def changed_shop(days_after: int, *, before: float = 9000.0, after: float = 100.0) -> Shop:
    """40 days of one definition, then another one, which gives quite other numbers."""
    shop = Shop().add("orders_paid", [before] * 40, version="old")
    return shop.add("orders_paid", [after] * days_after, first=day(40), version="new")


def judged(shop: Shop, tmp_path: Path, *rules, start, until):
    published = shop.publish(tmp_path / "published")
    return evaluate(published, rules, start, until, evaluated_at=NOW, run_id="run").frame()


def test_each_day_is_judged_by_the_definition_it_has(tmp_path):
    frame = judged(
        changed_shop(3), tmp_path, make_rule(yellow_if="< 50"), make_rule(alert="relative", **CHANGE_7D),
        start=day(38), until=day(43),
    )  # fmt: skip
    assert len(frame) == 10
    plain = frame[frame.rule == "orders_low"]
    assert plain.metric_version.tolist() == ["old", "old", "new", "new", "new"]
    assert plain.value.tolist() == [9000.0, 9000.0, 100.0, 100.0, 100.0]
    assert set(plain.reason) == {"ok"}
    relative = frame[frame.rule == "relative"]
    assert relative.reason.tolist() == ["ok", "ok", *["new_definition"] * 3]
    assert relative.tier.tolist() == ["ok", "ok", *["no_data"] * 3]
    assert relative.baseline.tolist()[:2] == [9000.0, 9000.0]
    assert relative.baseline.isna().tolist()[2:] == [True] * 3


def test_once_there_is_history_of_its_own_a_value_is_judged_again(tmp_path):
    shop = changed_shop(8)
    frame = judged(shop, tmp_path, make_rule(**CHANGE_7D), start=day(46), until=day(48))
    assert frame.reason.tolist() == ["new_definition", "ok"]
    assert frame.baseline.tolist()[1] == 100.0


def test_a_lack_of_history_that_no_change_explains_has_the_plain_reason(tmp_path):
    shop = Shop().add("orders_paid", [100.0] * 40, version="old")
    shop.add("orders_paid", ["missing", *[100.0] * 19, "missing", *[100.0] * 7], first=day(40), version="new")
    frame = judged(shop, tmp_path, make_rule(**CHANGE_7D), start=day(67), until=day(68))
    assert frame.reason.tolist() == ["no_baseline"]


@pytest.mark.parametrize("expr", ["band(seasonal)", "pct_change(1d)", "quantile(28d, 0.9)", "pct_change(7d, over=3)"])
def test_no_detector_compares_with_another_definition(tmp_path, expr):
    rule = make_rule(expr=expr, yellow_if="< -0.5")
    frame = judged(changed_shop(1), tmp_path, rule, start=day(39), until=day(41))
    assert frame.reason.tolist() == ["ok", "new_definition"]


def test_a_composite_and_a_sample_see_the_change_too(tmp_path):
    shop = changed_shop(2)
    shop.add("sessions", [500.0] * 42)
    rules = [
        make_rule(alert="relative", **CHANGE_7D),
        make_rule(alert="by_sample", metric="sessions", min_sample={"metric": "orders_paid", "gte": 1000}, yellow_if="< 900"),
        make_rule(alert="both", expr="value", yellow_if=">= 1", red_if=">= 2", any_of=["relative", "by_sample"]),
    ]  # fmt: skip
    frame = judged(shop, tmp_path, *rules, start=day(39), until=day(41)).set_index(["rule", "period_start"])
    assert frame.loc["by_sample"].reason.tolist() == ["breach", "min_sample"]
    assert frame.loc["by_sample"].metric_version.tolist() == ["v1", "v1"]
    assert frame.loc["both"].tier.tolist() == ["yellow", "no_data"]
    assert frame.loc["both"].metric_version.tolist() == ["old", "new"]


def test_a_replay_over_a_change_has_no_false_alarm(tmp_path):
    published = changed_shop(20).publish(tmp_path / "published")
    found = replay(published, [make_rule(**CHANGE_7D)], day(10), day(60))
    (one,) = found.rules
    assert (one.judged, one.yellow, one.red) == (50 - 7, 0, 0)


def test_a_version_without_a_change_is_judged_in_one_piece(tmp_path):
    published = Shop().add("orders_paid", [100.0] * 10).publish(tmp_path / "published")
    state = published.metrics["orders_paid"]
    assert state.at(state.complete_until - timedelta(days=3)) is state
    assert state.version_since is None
