"""`forecast(...)` and `stockout(...)` as rules judge them: only what was known at the end of the judged day."""

from __future__ import annotations

import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metrics_pipeline.detection.references import Reference
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.lint import findings
from metrics_pipeline.rules.replay import replay
from metrics_pipeline.rules.seeds import Seeds

sys.path.insert(0, str(Path(__file__).parent))
from shop import FIRST, NOW, FakeCatalogue, FakeMetric, Shop, make_catalogue, make_rule

DAYS = 120
LAST = FIRST + timedelta(days=DAYS - 1)


def weekly_wave(days: int, level: float = 100.0, growth: float = 0.0, seed: int = 1) -> list[float]:
    rng = np.random.default_rng(seed)
    week = np.array([1.0, 0.95, 0.9, 1.0, 1.05, 1.3, 1.2])
    at = np.arange(days)
    return (level * np.exp(growth * at) * week[at % 7] * rng.normal(1, 0.03, days)).round(2).tolist()


def judge(published, rules, day, days=1, **given):
    found = evaluate(published, rules, day, day + timedelta(days=days), evaluated_at=NOW, run_id="r", **given)
    assert not found.errors
    return found.frame()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    shop = Shop().add("orders_paid", weekly_wave(DAYS))
    for region, growth in (("华北", 0.0), ("华南", -0.01)):
        shop.add("orders_paid", weekly_wave(DAYS, 300, growth), dimension="region", member=region)
    return shop.publish(tmp_path_factory.mktemp("published"))


def test_the_expected_mean_per_day_is_observed(published):
    row = judge(published, [make_rule(expr="forecast(7d)", yellow_if="< 50", red_if="< 20")], LAST).iloc[0]
    assert row.observed == pytest.approx(np.mean(weekly_wave(DAYS)[-28:]), rel=0.05)
    assert (row.tier, row.reason, row.yellow_bound, row.red_bound) == ("ok", "ok", 50, 20)
    assert np.isnan(row.baseline)


@pytest.mark.parametrize(("bound", "least", "most"), [(60, 0.0, 0.02), (105, 0.05, 0.95), (160, 0.98, 1.0)])
def test_the_chance_to_lie_below_a_number_is_observed(published, bound, least, most):
    row = judge(published, [make_rule(expr=f"forecast(7d, below={bound})", yellow_if="> 0.8")], LAST).iloc[0]
    assert least <= row.observed <= most
    assert row.tier == ("yellow" if bound == 160 else "ok")
    assert np.isnan(row.yellow_bound)  # a chance is no bound in the metric's unit
    assert row.baseline == pytest.approx(105, rel=0.1)


def test_below_and_above_are_each_other_s_rest(published):
    rules = [make_rule(alert=side, expr=f"forecast(5d, {side}=104)", yellow_if="> 0.99") for side in ("below", "above")]
    found = judge(published, rules, LAST).set_index("rule").observed
    assert found["below"] + found["above"] == pytest.approx(1)


def test_the_target_of_the_seed_is_compared_with_per_member(published):
    rule = make_rule(by=["region"], expr="forecast(7d, below=target)", yellow_if="> 0.8")
    targets = [
        Reference("target", "orders_paid", "region", "*", date.min, date.max, 250.0),
        Reference("target", "orders_paid", "region", "华北", date.min, date.max, 450.0),
    ]
    found = judge(published, [rule], LAST, references=targets).set_index("member")
    assert found.tier.to_dict() == {"华北": "yellow", "华南": "yellow"}
    lower = [targets[0], Reference("target", "orders_paid", "region", "华北", date.min, date.max, 200.0)]
    changed = judge(published, [rule], LAST, references=lower).set_index("member")
    assert changed.tier["华北"] == "ok"
    assert changed.rule_hash["华北"] != found.rule_hash["华北"]


def test_without_a_target_there_is_no_verdict(published):
    row = judge(published, [make_rule(expr="forecast(7d, below=target)", yellow_if="> 0.8")], LAST).iloc[0]
    assert (row.tier, row.reason) == ("no_data", "no_baseline")


def test_a_day_is_judged_by_what_was_known_at_its_end(tmp_path):
    rules = [
        make_rule(expr="forecast(7d)", yellow_if="< 50"),
        make_rule(alert="chance", expr="forecast(7d, below=90)", yellow_if="> 0.5"),
    ]
    day = FIRST + timedelta(days=99)
    then = Shop().add("orders_paid", weekly_wave(100)).publish(tmp_path / "then")
    later = Shop().add("orders_paid", [*weekly_wave(100), *([5.0] * 30)]).publish(tmp_path / "later")
    for of_rule in ("orders_low", "chance"):
        one, other = (judge(published, rules, day).set_index("rule").observed[of_rule] for published in (then, later))
        assert one == other


def test_a_replay_says_what_the_nights_said(published):
    rule = make_rule(by=["region"], expr="forecast(7d, below=200)", yellow_if="> 0.6")
    start = FIRST + timedelta(days=60)
    nights = [judge(published, [rule], start + timedelta(days=step)) for step in range(0, 60, 4)]
    breached = {
        (row.member, row.period_start) for night in nights for row in night.itertuples() if row.tier == "yellow"
    }
    found = replay(published, [rule], start, start + timedelta(days=60)).episodes
    assert {episode.member for episode in found} == {"华南"} == {member for member, _ in breached}
    first = min(day for _, day in breached)
    assert timedelta(0) <= first - found[0].fired_at.replace(tzinfo=None) <= timedelta(days=4)


def test_other_rules_are_judged_beside_it(published):
    rules = [
        make_rule(alert="first_one", yellow_if="> 50"),
        make_rule(alert="second_one", expr="forecast(3d)", yellow_if="> 50"),
        make_rule(alert="third_one", expr="pct_change(7d)", yellow_if="outside 0.5"),
        make_rule(alert="both_of", yellow_if=">= 1", all_of=["first_one", "second_one"]),
    ]
    assert judge(published, rules, LAST).set_index("rule").tier.to_dict() == {
        "first_one": "yellow", "second_one": "yellow", "third_one": "ok", "both_of": "yellow",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"expr": "forecast(7d)", "grain": "hour"}, "per day"),
        ({"expr": "forecast(7d, below=5)", "yellow_if": "> 1.5"}, "between 0 and 1"),
        ({"expr": "forecast(7d, below=5)", "yellow_if": "< 0"}, "never"),
        ({"expr": "forecast(7d, below=target)", "yellow_if": "> 0.8"}, "metric_targets.csv"),
        ({"expr": "stockout(3d)", "yellow_if": "> 0.8"}, "stock_on_hand by sku"),
        ({"expr": "forecast(7d)", "min_change": {"relative": 0.1}}, "baseline"),
    ],
)
def test_what_cannot_be_foreseen_is_said_by_lint(keys, word):
    found = findings(make_rule(**keys), make_catalogue(), Seeds((), (), frozenset()))
    assert any(word in finding.message for finding in found)


OF_STOCK = {"metric": "stock_on_hand", "by": ["sku"], "alert": "stock_out_soon"}


class TestStockOut:
    @pytest.fixture(scope="class")
    def shelves(self, tmp_path_factory):
        """Three SKUs that sell about ten a day: one has plenty, one runs out in two days, one gets a delivery tomorrow."""
        rng = np.random.default_rng(2)
        days = 60
        shop = Shop()
        sold = {name: rng.poisson(10, days).astype(float) for name in ("PLENTY", "EMPTY", "COMING")}
        for name, end in (("PLENTY", 400.0), ("EMPTY", 18.0), ("COMING", 18.0)):
            stock = end + np.cumsum(sold[name][::-1])[::-1] - sold[name]
            ordered = np.where((np.arange(days) >= days - 4) & (name == "COMING"), 200.0, 0.0)
            shop.add("stock_on_hand", stock.tolist(), dimension="sku", member=name)
            shop.add("stock_on_order", ordered.tolist(), dimension="sku", member=name)
            shop.add("units_sold", sold[name].tolist(), dimension="sku", member=name)
        shop.add("units_sold", sum(sold.values()).tolist())
        folder = tmp_path_factory.mktemp("shelves")
        published = shop.publish(folder)
        (folder / "attributes").mkdir()
        terms = {
            "sku": list(sold), "category": [None] * 3, "supplier": ["s"] * 3, "lead_days": [5.0] * 3,
            "safety_stock": [10.0] * 3, "pack_size": pa.array([6, 6, 6], pa.int32()),
        }  # fmt: skip
        pq.write_table(pa.table(terms), folder / "attributes" / "products.parquet")
        return published, FIRST + timedelta(days=days - 1)

    def test_stock_deliveries_and_demand_decide(self, shelves):
        published, last = shelves
        rule = make_rule(**OF_STOCK, expr="stockout(4d)", yellow_if="> 0.5", red_if="> 0.8")
        found = judge(published, [rule], last).set_index("member")
        assert found.tier.to_dict() == {"PLENTY": "ok", "EMPTY": "red", "COMING": "ok"}
        assert found.observed["PLENTY"] == 0 and found.observed["COMING"] < 0.45

    def test_the_lead_time_of_the_product_is_looked_ahead(self, shelves):
        published, last = shelves
        rule = make_rule(**OF_STOCK, expr="stockout(lead)", yellow_if="> 0.5")
        assert judge(published, [rule], last).set_index("member").tier["EMPTY"] == "yellow"

    def test_only_skus_with_the_sample_are_looked_at(self, shelves):
        published, last = shelves
        rule = make_rule(
            **OF_STOCK, expr="stockout(4d)", yellow_if="> 0.5", min_sample={"metric": "units_sold", "gte": 1000}
        )
        assert set(judge(published, [rule], last).reason) == {"min_sample"}

    def test_lint_takes_it(self):
        catalogue = FakeCatalogue({"stock_on_hand": FakeMetric("stock_on_hand", slices=("all", "sku"))})
        assert findings(make_rule(**OF_STOCK, expr="stockout(lead)", yellow_if="> 0.5"), catalogue) == []
