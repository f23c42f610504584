from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.rules.anomaly import _calendar
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import verdict_pieces

sys.path.insert(0, str(Path(__file__).parent))

from shop import FIRST, NOW, Shop
from shop import make_rule as make_any_rule

DAYS = 120
WEEK = np.array([1.0, 0.95, 0.9, 1.0, 1.1, 1.3, 1.2])


def weekly_wave(seed: int, days: int = DAYS, mean: float = 400.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.poisson(mean * WEEK[np.arange(days) % 7]).astype(float)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Six regions; 华北 falls by half on the last day, and all of them double on day 100."""
    shop = Shop()
    for n, region in enumerate(("华北", "华东", "华南", "西北", "西南", "东北")):
        values = weekly_wave(10 + n)
        values[100] *= 2
        if n == 0:
            values[-1] *= 0.5
        shop.add("orders_paid", values.tolist(), dimension="region", member=region)
    return shop.publish(tmp_path_factory.mktemp("published"))


def make_rule(**keys):
    return make_any_rule(**{"yellow_if": "outside 1", "red_if": "outside 2", "metric": "orders_paid", **keys})


def judged(published, rule, day, **others):
    on = FIRST + timedelta(days=day)
    frame = evaluate(published, [rule], on, on + timedelta(days=1), evaluated_at=NOW, run_id="r", **others).frame()
    return frame.set_index("member")


def test_a_fall_of_one_slice_is_red_within_its_own_bounds(shop):
    rows = judged(shop, make_rule(by="region", expr="anomaly()"), DAYS - 1)
    fallen = rows.loc["华北"]
    assert (fallen["tier"], fallen["reason"]) == ("red", "breach")
    assert fallen["observed"] < -2
    assert fallen["value"] < fallen["red_bound"] < fallen["yellow_bound"] < fallen["baseline"] < fallen["upper"]
    assert fallen["lower"] == pytest.approx(fallen["yellow_bound"])
    assert set(rows.drop("华北")["tier"]) == {"ok"}


def test_what_all_slices_do_is_forgiven_to_each(shop):
    rows = judged(shop, make_rule(by="region", expr="anomaly()"), 100)
    assert set(rows["tier"]) == {"ok"}
    assert (rows["baseline"] > 650).all()


def test_a_replay_says_what_each_night_would_have_said(shop):
    rule = make_rule(by="region", expr="anomaly(budget=1/week, red=1/month)")
    first, until = FIRST + timedelta(days=80), FIRST + timedelta(days=DAYS)
    at_once = evaluate(shop, [rule], first, until, evaluated_at=NOW, run_id="r").frame()
    replayed = [table for _, table in verdict_pieces(shop, [rule], first, until, errors={})]
    assert sum(table.num_rows for table in replayed) == len(at_once)
    for day in (85, 101, 119):
        night = judged(shop, rule, day)
        of_day = at_once[at_once["period_start"].dt.date == FIRST + timedelta(days=day)].set_index("member")
        for member in night.index:
            assert night.loc[member, "observed"] == pytest.approx(of_day.loc[member, "observed"], rel=1e-3, abs=1e-3)


def test_other_rules_do_not_change_a_verdict(shop):
    rule = make_rule(by="region", expr="anomaly()")
    other = make_rule(alert="other_rule", by="region", expr="anomaly(drift)")
    on = FIRST + timedelta(days=DAYS - 1)
    both = evaluate(shop, [rule, other], on, on + timedelta(days=1), evaluated_at=NOW, run_id="r").frame()
    alone = judged(shop, rule, DAYS - 1)
    of_rule = both[both["rule"] == rule.id].set_index("member")
    assert of_rule["observed"].to_dict() == pytest.approx(alone["observed"].to_dict(), rel=1e-3)
    assert both[both["rule"] == "other_rule"]["lower"].isna().all()


def test_a_young_series_has_no_baseline(shop):
    rows = judged(shop, make_rule(by="region", expr="anomaly()"), 20)
    assert set(rows["reason"]) == {"no_baseline"}


def test_thresholds_of_an_anomaly_are_its_budgets_unless_given():
    keys = make_rule(expr="anomaly(budget=1/week, red=1/quarter)").model_dump(mode="json", by_alias=True)
    rule = Rule.model_validate({name: keys[name] for name in keys.keys() - {"yellow_if", "red_if"}})
    assert (str(rule.yellow_if), str(rule.red_if)) == ("outside 1", "outside 2")


def test_a_new_definition_has_no_history_yet(tmp_path):
    shop = Shop()
    shop.add("orders_paid", weekly_wave(1, 60).tolist())
    shop.add("orders_paid", weekly_wave(2, 20).tolist(), first=FIRST + timedelta(days=60), version="v2")
    rows = judged(shop.publish(tmp_path), make_rule(expr="anomaly()"), 79)
    assert rows.loc["all", "reason"] == "new_definition"


def test_a_promotion_is_judged_by_its_last_one(tmp_path):
    """The total has no peers: what it knows of the event is from the year before."""
    days = 420
    values = weekly_wave(3, days)
    event = [40, 405]
    values[event] *= 2.2
    published = Shop().add("orders_paid", values.tolist()).publish(tmp_path)
    promotions = [PromotionDay(FIRST + timedelta(days=day), "sale", "大促", "Sale", 0, "main", "own") for day in event]
    rule = make_rule(expr="anomaly()")
    known = judged(published, rule, 405, promotions=promotions).loc["all"]
    unknown = judged(published, rule, 405).loc["all"]
    assert known["tier"] == "ok"
    assert unknown["tier"] == "red"


def test_hours_are_judged_by_the_hour_of_the_week(tmp_path):
    random = np.random.default_rng(5)
    hours = np.arange(24 * 60)
    day = 1 + 0.8 * np.sin(2 * np.pi * (hours % 24 - 6) / 24)
    values = random.poisson(300 * day * WEEK[hours // 24 % 7]).astype(float)
    values[-5] *= 0.2
    published = Shop().add("orders_paid", values.tolist(), grain="hour").publish(tmp_path)
    on = FIRST + timedelta(days=59)
    rule = make_rule(grain="hour", expr="anomaly()")
    rows = evaluate(published, [rule], on, on + timedelta(days=1), evaluated_at=NOW, run_id="r").frame()
    assert rows[rows["tier"] == "red"]["period_start"].dt.hour.tolist() == [19]


def test_every_slice_has_the_calendar_of_the_events_that_are_about_it():
    first = date(2025, 3, 1)
    days = np.arange(np.datetime64(first), np.datetime64(first) + 30)
    promotions = [
        PromotionDay(first + timedelta(days=at), name, name, name, 0, "main", "own", affects)
        for at, name, affects in (
            (3, "whole", ()),
            (9, "toys", (("category", frozenset({"toys"})),)),
            (17, "north", (("region", frozenset({"north"})),)),
            (23, "toys_north", (("category", frozenset({"toys"})), ("region", frozenset({"north"})))),
        )
    ]
    dimensions = {0: "all", 1: "category", 2: "sku", 3: "category|region", 4: "region"}
    slices = [(0, "all"), (2, "A1"), (2, "A2"), (1, "toys"), (1, "food"), (4, "north"), (4, "south")]
    slices += [(3, f"{category}|{region}") for category in ("toys", "food") for region in ("north", "south")]
    long = SimpleNamespace(members=[member for _, member in slices], key_of=np.array([key for key, _ in slices]))
    found = _calendar(long, dimensions, promotions, days)
    for row, (key, member) in zip(found.category, slices, strict=True):
        about = {one.event for one in promotions if one.is_about(dimensions[key], member)}
        names = sorted(one.event for one in promotions)
        assert {names[number] for number in found.event[row] if number >= 0} == about, (dimensions[key], member)
