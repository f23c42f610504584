from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from shop import NOW, Shop, day, make_rule, weekly_wave

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.rules.evaluate import Evaluations, evaluate, latest_verdicts, read_evaluations
from metrics_pipeline.rules.statement import COLUMNS


def judge(shop: Shop, tmp_path: Path, *rules, start=None, until=None, now=NOW, **extra) -> Evaluations:
    published = shop.publish(tmp_path / "published")
    last = max(shop.complete_until.values())
    until = until or last
    start = start or until - timedelta(days=1)
    return evaluate(published, rules, start, until, evaluated_at=now, run_id="run-1", **extra)


def only(result: Evaluations) -> pd.Series:
    frame = result.frame()
    assert len(frame) == 1, frame
    return frame.iloc[0]


def test_value_beyond_red_is_red_with_bounds(tmp_path):
    row = only(
        judge(Shop().add("orders_paid", [100.0] * 5 + [20.0]), tmp_path, make_rule(yellow_if="< 50", red_if="< 25"))
    )
    assert (row.tier, row.reason, row.observed, row.yellow_bound, row.red_bound) == ("red", "breach", 20.0, 50.0, 25.0)
    assert (row.metric_version, row.run_id, row.rule_hash != "") == ("v1", "run-1", True)
    assert list(judge(Shop().add("orders_paid", [1.0]), tmp_path, make_rule()).frame().columns) == list(COLUMNS)


@pytest.mark.parametrize(
    ("threshold", "tier"),
    [("< 50", "ok"), ("<= 50", "yellow"), ("> 50", "ok"), (">= 50", "yellow"), ("outside 50", "ok")],
)
def test_a_value_at_the_threshold_breaches_only_inclusive_ones(tmp_path, threshold, tier):
    assert only(judge(Shop().add("orders_paid", [50.0]), tmp_path, make_rule(yellow_if=threshold))).tier == tier


@pytest.mark.parametrize(
    ("observed", "tier", "holds"),
    [(0.13, "red", "red"), (0.12, "yellow", "red"), (0.10, "yellow", "red"), (0.099, "yellow", "yellow"),
     (0.08, "ok", "yellow"), (0.07, "ok", "yellow"), (0.069, "ok", "none")],
)  # fmt: skip
def test_a_tier_holds_until_its_own_recovery(tmp_path, observed, tier, holds):
    rule = make_rule(yellow_if="> 0.08", red_if="> 0.12", recover_if={"yellow": "< 0.07", "red": "< 0.1"})
    row = only(judge(Shop().add("orders_paid", [observed]), tmp_path, rule))
    assert (row.tier, row.holds) == (tier, holds)


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        ({"yellow_if": "outside 4", "recover_if": {"yellow": "inside 3"}}, {4.5: 1, 3.5: 1, 3: 0, -3: 0, -3.1: 1}),
        ({"yellow_if": "outside 4", "recover_if": {"yellow": "inside 3"}, "direction": "rise"}, {3.5: 1, -3.5: 0}),
        ({"yellow_if": "< 2", "recover_if": {"yellow": "> 4"}}, {1: 1, 4: 1, 4.1: 0}),
        ({"yellow_if": "< 2", "recover_if": {"yellow": ">= 4"}}, {3.9: 1, 4: 0}),
        ({"yellow_if": "> 2"}, {2: 0, 2.1: 1}),
    ],
)
def test_what_holds_depends_on_the_side(tmp_path, keys, holds):
    rules = [make_rule(**keys), make_rule(alert="other", yellow_if="> 99", recover_if={"yellow": "< 98"})]
    for value, expected in holds.items():
        frame = judge(Shop().add("orders_paid", [value]), tmp_path / str(value), *rules).frame().set_index("rule")
        assert (frame.loc["orders_low"].holds == "yellow") == bool(expected), value


def test_without_a_recovery_a_tier_holds_as_long_as_it_is(tmp_path):
    shop = Shop().add("orders_paid", [100.0, 40.0, 10.0, None])
    late = make_rule(alert="late", no_data={"then": "red"})
    small = make_rule(alert="small", expr="pct_change(1d)", yellow_if="< 0", min_change={"absolute": 1000})
    for extra in ((), (make_rule(alert="other", yellow_if="> 99", recover_if={"yellow": "< 98"}),)):
        rules = (make_rule(yellow_if="< 50", red_if="< 20"), late, small, *extra)
        frame = judge(shop, tmp_path / str(len(rules)), *rules, start=day(0), until=day(4)).frame()
        frame = frame[frame.rule != "other"]
        assert set(zip(frame.tier, frame.holds, strict=True)) == {
            ("ok", "none"), ("yellow", "yellow"), ("red", "red"), ("no_data", "none"),
        }  # fmt: skip


def test_evaluations_of_an_earlier_release_can_be_read(tmp_path):
    shop, folder = Shop().add("orders_paid", [20.0, 20.0]), tmp_path / "evaluations"
    published = shop.publish(tmp_path / "published")
    keys = {"evaluated_at": NOW, "run_id": "one", "evaluations_dir": folder}
    (path,) = evaluate(published, [make_rule()], day(0), day(1), **keys).paths
    pq.write_table(pq.read_table(path).drop_columns(["holds"]), path)
    evaluate(published, [make_rule()], day(0), day(2), **keys | {"run_id": "two"})
    frame = latest_verdicts(folder, {("orders_low", "all", "all")}, start=day(0))
    assert frame.holds.fillna("").tolist() == ["", "yellow"]
    with duckdb.connect() as con:
        read_evaluations(con, folder)
        assert con.execute("SELECT count(*), count(holds) FROM evaluations").fetchone() == (2, 1)


def test_direction_narrows_a_two_sided_threshold(tmp_path):
    shop = Shop().add("orders_paid", [-60.0])
    rules = [make_rule(alert=f"rule_{d}", yellow_if="outside 50", direction=d) for d in ("rise", "fall", "both")]
    tiers = judge(shop, tmp_path, *rules).frame().set_index("rule").tier
    assert dict(tiers) == {"rule_rise": "ok", "rule_fall": "yellow", "rule_both": "yellow"}


def test_change_compares_with_the_same_weekday(tmp_path):
    row = only(
        judge(
            Shop().add("orders_paid", [100.0] * 7 + [60.0]),
            tmp_path,
            make_rule(expr="pct_change(7d)", yellow_if="< -0.3"),
        )
    )
    assert (row.tier, row.baseline, row.yellow_bound) == ("yellow", 100.0, pytest.approx(70.0))
    assert row.observed == pytest.approx(-0.4)


def test_change_over_four_weeks_needs_three_of_them(tmp_path):
    rule = make_rule(expr="pct_change(7d, over=4)", yellow_if="> 1")
    weeks = [100.0] * 21
    assert only(judge(Shop().add("orders_paid", [*weeks, 500.0]), tmp_path / "a", rule)).baseline == 100.0
    assert only(judge(Shop().add("orders_paid", [*weeks[:14], 500.0]), tmp_path / "b", rule)).reason == "no_baseline"


def test_change_from_zero_has_no_baseline(tmp_path):
    row = only(
        judge(Shop().add("orders_paid", [0.0, 5.0]), tmp_path, make_rule(expr="pct_change(1d)", yellow_if="> 0.5"))
    )
    assert (row.tier, row.reason) == ("no_data", "no_baseline")
    assert pd.isna(row.observed)


def test_quantile_of_history_excludes_the_tested_point(tmp_path):
    values = [float(n % 10) + 10 for n in range(40)]
    rule = make_rule(expr="quantile(90d, 0.9)", yellow_if="> 0.5")
    row = only(judge(Shop().add("orders_paid", [*values, 1000.0]), tmp_path, rule))
    assert row.baseline == pytest.approx(pd.Series(values).quantile(0.9))
    assert row.tier == "yellow"


def test_quantile_needs_twenty_eight_values(tmp_path):
    rule = make_rule(expr="quantile(90d, 0.9)", yellow_if="> 0.5")
    assert only(judge(Shop().add("orders_paid", [10.0] * 27 + [99.0]), tmp_path / "a", rule)).reason == "no_baseline"
    assert only(judge(Shop().add("orders_paid", [10.0] * 28 + [99.0]), tmp_path / "b", rule)).reason == "breach"


BAND = make_rule(expr="band(seasonal)", yellow_if="outside 4", red_if="outside 6")


def test_band_with_the_shortest_history_can_fire(tmp_path):
    row = only(judge(Shop().add("orders_paid", [*weekly_wave(21), 900.0]), tmp_path, BAND))
    assert (row.tier, row.reason) == ("red", "breach")


def test_band_needs_three_same_weekdays(tmp_path):
    row = only(judge(Shop().add("orders_paid", [*weekly_wave(20), 900.0]), tmp_path, BAND))
    assert (row.tier, row.reason) == ("no_data", "no_baseline")


@pytest.mark.parametrize("expr", ["band(seasonal)", "pct_change(7d, over=4)", "quantile(60d, 0.9)"])
def test_the_tested_point_is_not_in_its_own_baseline(tmp_path, expr):
    rule = make_rule(expr=expr, yellow_if="> 1")
    baselines = {
        only(judge(Shop().add("orders_paid", [*weekly_wave(70), last]), tmp_path / str(last), rule)).baseline
        for last in (0.0, 180.0, 1e9)
    }
    assert len(baselines) == 1


def test_baseline_holds_only_values_of_the_same_definition(tmp_path):
    shop = Shop().add("orders_paid", [9000.0] * 40, version="v0")
    shop.add("orders_paid", [100.0] * 7 + [60.0], first=day(40), version="v1")
    rules = [
        make_rule(alert="changed", expr="pct_change(7d)", yellow_if="< -0.3"),
        make_rule(alert="band_of_it", expr="band(seasonal)", yellow_if="outside 4"),
    ]
    frame = judge(shop, tmp_path, *rules).frame().set_index("rule")
    assert frame.loc["changed"].baseline == 100.0
    assert frame.loc["band_of_it"].reason == "new_definition"


def test_a_metric_that_waits_for_its_window_is_late_so_much_later(tmp_path):
    shop = Shop().add("orders_paid", [100.0] * 10)
    published = shop.publish(tmp_path / "published")
    metrics = {name: replace(state, settle_days=2) for name, state in published.metrics.items()}
    waiting = replace(published, manifest=replace(published.manifest, metrics=metrics))
    rule = make_rule(yellow_if="< 50", no_data={"due": "09:30"})
    due = datetime(2025, 1, 17, 9, 30, tzinfo=UTC)
    for versions, now, reason in (
        (published, due, "late"),
        (waiting, due, "not_due"),
        (waiting, due + timedelta(days=2), "late"),
        (waiting, due + timedelta(days=2, minutes=-1), "not_due"),
    ):
        found = evaluate(versions, [rule], day(10), day(11), evaluated_at=now, run_id="run", zone=ZoneInfo("UTC"))
        assert only(found).reason == reason


def test_incomplete_periods_are_neither_judged_nor_baseline(tmp_path):
    shop = Shop().add("orders_paid", [100.0] * 10 + [1.0])
    shop.complete_until["orders_paid"] = datetime.combine(day(10), datetime.min.time())
    rule = make_rule(yellow_if="< 50", no_data={"due": "09:30"})
    shanghai = ZoneInfo("Asia/Shanghai")
    early = datetime(2025, 1, 17, 1, 29, tzinfo=UTC)  # 09:29 in Shanghai
    for now, reason in ((early, "not_due"), (early + timedelta(minutes=1), "late")):
        row = only(judge(shop, tmp_path / reason, rule, start=day(10), until=day(11), now=now, zone=shanghai))
        assert (row.tier, row.reason) == ("no_data", reason)
        assert pd.isna(row.value)
    change = make_rule(expr="pct_change(1d)", yellow_if="< -0.5")
    shop.add("orders_paid", [100.0], first=day(11))
    shop.complete_until["orders_paid"] = datetime.combine(day(10), datetime.min.time())
    assert only(judge(shop, tmp_path / "change", change, start=day(11), until=day(12))).reason == "late"


def test_null_is_never_zero(tmp_path):
    row = only(
        judge(
            Shop().add("refund_rate", [(1.0, 10.0), (0.0, 0.0)]),
            tmp_path,
            make_rule(metric="refund_rate", yellow_if="< 0.01"),
        )
    )
    assert (row.tier, row.reason) == ("no_data", "null_value")


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_null(tmp_path, broken):
    row = only(judge(Shop().add("orders_paid", [10.0, broken]), tmp_path, make_rule(yellow_if="> 1")))
    assert (row.tier, row.reason) == ("no_data", "null_value")


def test_nothing_at_all_is_never_zero(tmp_path):
    shop = Shop().add("orders_paid", [10.0] * 40 + ["missing"] * 35)
    row = only(judge(shop, tmp_path, make_rule(yellow_if="< 5")))
    assert (row.tier, row.reason) == ("no_data", "missing_slice")


def test_a_vanished_slice_is_missing_for_four_weeks(tmp_path):
    shop = Shop().add("orders_paid", [100.0] * 41, dimension="region", member="华北")
    shop.add("orders_paid", [100.0] * 12, dimension="region", member="华南")
    rule = make_rule(by=["region"])
    frame = judge(shop, tmp_path, rule, start=day(12), until=day(41)).frame()
    south = frame[frame.member == "华南"]
    assert set(zip(south.tier, south.reason, strict=True)) == {("no_data", "missing_slice")}
    assert south.value.isna().all()
    assert [south.period_start.min(), south.period_start.max()] == [pd.Timestamp(day(12)), pd.Timestamp(day(39))]
    assert (frame[frame.member == "华北"].tier == "ok").all()


def test_no_data_then_raises_only_what_is_due(tmp_path):
    shop = Shop().add("orders_paid", [100.0, "missing", 100.0])
    rule = make_rule(no_data={"then": "red"})
    frame = judge(shop, tmp_path, rule, start=day(1), until=day(4), now=datetime(2025, 1, 9, 1, tzinfo=UTC)).frame()
    assert list(zip(frame.tier, frame.reason, strict=True)) == [
        ("red", "missing_slice"),
        ("ok", "ok"),
        ("no_data", "not_due"),
    ]


def test_an_absent_metric_is_unknown(tmp_path):
    shop = Shop(absent={"refund_rate"}).add("orders_paid", [10.0])
    for metric in ("refund_rate", "never_built"):
        row = only(judge(shop, tmp_path / metric, make_rule(metric=metric)))
        assert (row.tier, row.reason) == ("unknown", "absent")


def test_an_absent_dimension_is_unknown(tmp_path):
    row = only(judge(Shop().add("orders_paid", [10.0]), tmp_path, make_rule(by=["channel"])))
    assert (row.member, row.tier, row.reason) == ("*", "unknown", "absent")


def test_a_small_sample_is_quiet(tmp_path):
    shop = Shop()
    for member, samples in (
        ("big", [300.0, 300.0]),
        ("small", [250.0, 10.0]),
        ("gone", [250.0, "missing"]),
        ("tiny", [9.0, 9.0]),
    ):
        shop.add("refund_rate", [(50.0, 100.0)] * 2, dimension="region", member=member)
        shop.add("orders_paid", samples, dimension="region", member=member)
    rule = make_rule(
        metric="refund_rate", by=["region"], yellow_if="> 0.1", min_sample={"metric": "orders_paid", "gte": 200}
    )
    frame = judge(shop, tmp_path, rule).frame().set_index("member")
    assert dict(frame.reason) == {"big": "breach", "small": "min_sample", "gone": "min_sample"}
    assert dict(frame.tier) == {"big": "yellow", "small": "ok", "gone": "ok"}
    assert frame.loc["big"]["sample"] == 300.0


def test_a_rule_whose_slices_never_had_the_sample_still_has_a_verdict(tmp_path):
    shop = Shop().add("refund_rate", [(5.0, 10.0)], dimension="region", member="a")
    shop.add("orders_paid", [10.0], dimension="region", member="a")
    rule = make_rule(metric="refund_rate", by=["region"], min_sample={"metric": "orders_paid", "gte": 200})
    row = only(judge(shop, tmp_path, rule))
    assert (row.member, row.tier, row.reason) == ("*", "ok", "min_sample")


def test_no_row_is_zero_only_where_the_rule_says_so(tmp_path):
    shop = Shop().add("orders_paid", [9.0, "missing", "missing"], dimension="region", member="a")
    shop.add("orders_paid", [9.0] * 2, dimension="region", member="b")
    shop.complete_until["orders_paid"] = datetime.combine(day(2), datetime.min.time())
    rule = make_rule(by=["region"], yellow_if="> 5", no_data={"then": "zero"})
    frame = judge(shop, tmp_path, rule, start=day(0), until=day(3)).frame()
    rows = frame[frame.member == "a"]
    assert list(zip(rows.tier, rows.reason, strict=True)) == [("yellow", "breach"), ("ok", "ok"), ("no_data", "late")]
    assert rows.value.iloc[1] == 0.0


def test_a_small_change_is_quiet(tmp_path):
    shop = Shop().add("orders_paid", [10.0, 16.0])
    bounds = {"absolute": 10}, {"absolute": 5}, {"relative": 0.7}
    rules = [
        make_rule(alert=f"rule_{n}", expr="pct_change(1d)", yellow_if="> 0.5", min_change=b)
        for n, b in enumerate(bounds)
    ]
    assert list(judge(shop, tmp_path, *rules).frame().reason) == ["min_change", "breach", "min_change"]


def test_a_small_slice_is_quiet_in_the_band(tmp_path):
    counts = [float(n % 3) for n in range(70)]
    assert only(judge(Shop().add("orders_paid", [*counts, 5.0]), tmp_path / "a", BAND)).tier == "ok"
    rates = [(float(n % 2), 6.0) for n in range(70)]
    row = only(
        judge(
            Shop().add("refund_rate", [*rates, (3.0, 5.0)]),
            tmp_path / "b",
            make_rule(metric="refund_rate", expr="band(seasonal)", yellow_if="outside 4"),
        )
    )
    assert row.tier == "ok"


def test_a_history_without_variance_has_a_floor(tmp_path):
    flat = [1000.5] * 70
    assert (
        only(
            judge(
                Shop().add("gmv", [*flat, 1010.5]),
                tmp_path / "a",
                make_rule(metric="gmv", expr="band(seasonal)", yellow_if="outside 4"),
            )
        ).tier
        == "ok"
    )
    assert (
        only(
            judge(
                Shop().add("gmv", [*flat, 2000.5]),
                tmp_path / "b",
                make_rule(metric="gmv", expr="band(seasonal)", yellow_if="outside 4"),
            )
        ).tier
        == "yellow"
    )


def test_the_band_follows_growth_and_a_level_shift(tmp_path):
    growing = weekly_wave(120, growth=0.01)
    frame = judge(Shop().add("orders_paid", growing), tmp_path / "a", BAND, start=day(60)).frame()
    assert set(frame.tier) == {"ok"}
    shifted = weekly_wave(80) + [value * 2 for value in weekly_wave(60)]
    shifted = [*weekly_wave(140)[:80], *[v * 2 for v in weekly_wave(140)[80:]]]
    frame = judge(Shop().add("orders_paid", shifted), tmp_path / "b", BAND, start=day(80)).frame()
    assert frame.tier.iloc[0] == "red"
    assert set(frame.tier.iloc[7:]) == {"ok"}


def test_hours_are_compared_with_the_same_hour_of_the_same_weekday(tmp_path):
    profile = [5.0, 2.0, 1.0, 1.0, 2.0, 5.0, 20.0, 40.0] + [100.0] * 12 + [80.0, 60.0, 30.0, 10.0]
    values = [v * (2 if d % 7 >= 5 else 1) for d in range(70) for v in profile]
    values[-24 + 3] = 100.0  # noon's traffic at three in the night
    rule = make_rule(grain="hour", expr="band(seasonal)", yellow_if="outside 4")
    frame = judge(Shop().add("orders_paid", values, grain="hour"), tmp_path, rule, start=day(69), until=day(70)).frame()
    assert len(frame) == 24
    assert list(frame[frame.tier == "yellow"].period_start.dt.hour) == [3]


def event(n: int, kind: str = "main") -> PromotionDay:
    return PromotionDay(day(n), "sale", "促销", "Sale", 0, kind, "CN")


def test_promotions_widen_the_tested_day_and_leave_the_baseline(tmp_path):
    values = weekly_wave(100)
    values[93] = 900.0
    shop = Shop().add("orders_paid", values)
    with_event = judge(shop, tmp_path / "a", BAND, start=day(93), promotions=[event(93)]).frame()
    assert with_event.tier.iloc[0] == "ok"
    ordinary = make_rule(expr="band(seasonal, promotions=ordinary)", yellow_if="outside 4")
    assert judge(shop, tmp_path / "b", ordinary, start=day(93), promotions=[event(93)]).frame().tier.iloc[0] == "yellow"
    change = make_rule(expr="pct_change(1d)", yellow_if="< -0.3")
    assert (
        judge(shop, tmp_path / "c", change, start=day(94), until=day(95), promotions=[event(93)]).frame().reason.iloc[0]
        == "no_baseline"
    )


def test_a_promotion_of_one_region_widens_the_band_of_that_region_only(tmp_path):
    values = weekly_wave(100)
    values[93] = 900.0
    shop = Shop()
    for member in ("a", "b"):
        shop.add("orders_paid", values, dimension="region", member=member)
    rule = make_rule(by=["region"], expr="band(seasonal)", yellow_if="outside 4")
    only_a = replace(event(93), affects=(("region", ("a",)),))
    frame = judge(shop, tmp_path, rule, start=day(93), until=day(94), promotions=[only_a, event(92, "after")]).frame()
    assert frame.set_index("member").tier.to_dict() == {"a": "ok", "b": "yellow"}


def test_a_promotion_is_compared_with_the_last_one(tmp_path):
    rule = make_rule(expr="band(seasonal, promotions=last_event)", yellow_if="outside 3")
    events = [event(80), event(500)]
    tiers = {}
    for name, lift in (("same", 3.0), ("weak", 0.9)):
        values = weekly_wave(501)
        values[80] *= 3
        values[500] *= lift
        row = only(judge(Shop().add("orders_paid", values), tmp_path / name, rule, promotions=events))
        tiers[name] = (row.tier, round(row.baseline / 200, 1))
    assert tiers["same"][0] == "ok"
    assert tiers["weak"] == ("ok", tiers["same"][1])
    assert tiers["same"][1] > 2.5


def test_a_rerun_writes_nothing_new(tmp_path):
    published = Shop().add("orders_paid", [100.0] * 59 + [20.0]).publish(tmp_path / "published")
    folder = tmp_path / "evaluations"
    first = evaluate(published, [make_rule()], day(20), day(60), evaluated_at=NOW, run_id="one", evaluations_dir=folder)
    files = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    assert {path.parent.name for path in files} == {"month=2025-01", "month=2025-02", "month=2025-03"}
    assert set(first.paths) == set(files)
    again = evaluate(
        published,
        [make_rule()],
        day(20),
        day(60),
        evaluated_at=NOW + timedelta(days=3),
        run_id="two",
        evaluations_dir=folder,
    )
    assert again.paths == ()
    assert again.rows == first.rows
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    changed = evaluate(
        published, [make_rule(yellow_if="< 40")], day(59), day(60), evaluated_at=NOW, run_id="x", evaluations_dir=folder
    )
    assert len(changed.paths) == 1
    with published.connect() as con:
        read_evaluations(con, folder)
        assert con.execute("SELECT count(*), count(DISTINCT run_id) FROM evaluations").fetchone() == (41, 2)


def test_a_late_value_is_recorded_after_it_was_not_due(tmp_path):
    published = Shop().add("orders_paid", [100.0]).publish(tmp_path / "published")
    folder = tmp_path / "evaluations"
    for hour, count in ((1, 1), (2, 1), (10, 2), (11, 2)):
        evaluate(
            published,
            [make_rule()],
            day(1),
            day(2),
            evaluated_at=datetime(2025, 1, 8, hour),
            run_id=str(hour),
            evaluations_dir=folder,
        )
        assert len(list(folder.rglob("*.parquet"))) == count


def test_a_rule_that_breaks_stops_only_itself(tmp_path):
    good = make_rule(expr="quantile(30d, 0.5)", yellow_if="> 0.5")
    broken = good.model_copy(
        update={"alert": "broken", "expr": type(good.expr)("quantile", window_days=30, probability=7.0)}
    )
    result = judge(Shop().add("orders_paid", [10.0] * 40 + [99.0]), tmp_path, good, broken)
    frame = result.frame().set_index("rule")
    assert frame.loc["orders_low"].tier == "yellow"
    assert (frame.loc["broken"].tier, frame.loc["broken"].reason) == ("unknown", "error")
    assert "broken" in result.errors
    assert [summary.tier for summary in result.summary()] == ["yellow", "unknown"]


def test_summary_and_worst(tmp_path):
    shop = Shop()
    for member, value in (("a", 100.0), ("b", 40.0), ("c", 20.0), ("d", 45.0), ("e", None)):
        shop.add("orders_paid", [value], dimension="region", member=member)
    result = judge(
        shop,
        tmp_path,
        make_rule(by=["region"], yellow_if="< 50", red_if="< 25"),
        make_rule(alert="never_there", metric="nothing"),
    )
    first, second = result.summary()
    assert (first.evaluated, first.yellow, first.red, first.no_data, first.worst_member, first.worst_value) == (
        4,
        2,
        1,
        1,
        "c",
        20.0,
    )
    assert (second.tier, second.unknown, second.worst_member) == ("unknown", 1, None)
    assert list(result.worst("orders_low", 3).member) == ["c", "b", "d"]
    assert list(result.breaches().member) == ["b", "c", "d"]
    assert "WITH" in result.sql


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    low=st.integers(0, 60),
    more=st.integers(1, 60),
    family=st.sampled_from(["value", "band(seasonal)", "pct_change(7d)", "quantile(60d, 0.5)"]),
)
def test_raising_a_threshold_never_raises_more_alerts(tmp_path_factory, low, more, family):
    values = [v * (1 + (n % 11) / 10) for n, v in enumerate(weekly_wave(100))]
    scale = 10 if family == "value" else 0.05
    rules = [
        make_rule(alert=name, expr=family, yellow_if=f"> {bound * scale}")
        for name, bound in (("lower", low), ("higher", low + more))
    ]
    frame = judge(Shop().add("orders_paid", values), tmp_path_factory.mktemp("t"), *rules, start=day(60)).frame()
    fired = {name: set(rows[rows.tier == "yellow"].period_start) for name, rows in frame.groupby("rule")}
    assert fired["higher"] <= fired["lower"]
