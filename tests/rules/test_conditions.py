"""Conditions beyond thresholds on one series: references, shares, events, freshness, overrides, promotions, composites."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop import NOW, Shop, day, make_rule

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.rules.composite import cycle_of, stages, with_parts
from metrics_pipeline.rules.evaluate import Evaluations, evaluate
from metrics_pipeline.rules.model import COMPOSITE_THRESHOLDS, Rule
from metrics_pipeline.rules.replay import replay


def judge(shop: Shop, tmp_path: Path, *rules, start=None, until=None, now=NOW, **extra) -> Evaluations:
    published = shop.publish(tmp_path / "published")
    until = until or max(shop.complete_until.values())
    start = start or until - timedelta(days=1)
    return evaluate(published, rules, start, until, evaluated_at=now, run_id="run-1", **extra)


def by_member(result: Evaluations, rule: str = "orders_low") -> pd.DataFrame:
    frame = result.frame()
    return frame[frame.rule == rule].set_index("member")


def regions(**values: list) -> Shop:
    shop = Shop()
    for member, series in values.items():
        shop.add("orders_paid", series, dimension="region", member=member)
    return shop


def target(amount: float, member: str = "all", dimension: str = "all", kind: str = "target", since=0, until=None):
    last = date.max if until is None else day(until)
    return Reference(kind, "orders_paid", dimension, member, day(since), last, amount)


# -- targets and benchmarks ----------------------------------------------------------------------------------------


def test_a_target_is_the_one_valid_on_the_day(tmp_path):
    shop = Shop().add("orders_paid", [80.0, 80.0, 80.0])
    rule = make_rule(expr="vs_target()", yellow_if="< -0.1")
    targets = [target(100, until=1), target(50, since=2)]
    frame = judge(shop, tmp_path, rule, start=day(0), until=day(3), references=targets).frame()
    assert frame.observed.round(6).tolist() == [-0.2, -0.2, 0.6]
    assert frame.baseline.tolist() == [100, 100, 50]
    assert frame.yellow_bound.tolist() == [90, 90, 45]
    assert frame.tier.tolist() == ["yellow", "yellow", "ok"]


def test_a_members_own_target_comes_before_the_one_for_every_member(tmp_path):
    shop = regions(a=[80.0], b=[80.0])
    rule = make_rule(by=["region"], expr="vs_target()", yellow_if="< -0.1")
    targets = [target(100, "*", "region"), target(80, "b", "region"), target(1, "all")]
    found = by_member(judge(shop, tmp_path, rule, references=targets))
    assert found.baseline.to_dict() == {"a": 100, "b": 80}


def test_without_a_target_nothing_can_be_judged(tmp_path):
    shop = regions(a=[80.0], b=[80.0])
    rule = make_rule(by=["region"], expr="vs_target()", yellow_if="< -0.1")
    found = by_member(judge(shop, tmp_path, rule, references=[target(100, "a", "region")]))
    assert found.reason.to_dict() == {"a": "breach", "b": "no_baseline"}


def test_targets_and_benchmarks_do_not_mix(tmp_path):
    rules = [
        make_rule(alert="of_target", expr="vs_target()", yellow_if="< 0"),
        make_rule(alert="of_benchmark", expr="vs_benchmark()", yellow_if="< 0"),
    ]
    given = [target(100), target(10, kind="benchmark")]
    frame = judge(Shop().add("orders_paid", [50.0]), tmp_path, *rules, references=given).frame().set_index("rule")
    assert frame.observed.to_dict() == {"of_target": -0.5, "of_benchmark": 4.0}


def test_another_target_is_another_evaluation(tmp_path):
    shop = Shop().add("orders_paid", [50.0])
    rules = [make_rule(expr="vs_target()", yellow_if="< 0"), make_rule(alert="plain")]
    first, second = (
        judge(shop, tmp_path / str(amount), *rules, references=[target(amount)]).frame().set_index("rule").rule_hash
        for amount in (100, 90)
    )
    assert first["orders_low"] != second["orders_low"]
    assert first["plain"] == second["plain"] == rules[1].rule_hash


# -- the same promotion last year ----------------------------------------------------------------------------------


def event_day(n: int, event: str = "double_11", kind: str = "main", position: int = 0) -> PromotionDay:
    return PromotionDay(day(n), event, event, event, position, kind, "CN")


def test_a_promotion_is_compared_with_the_last_one(tmp_path):
    values = [100.0] * 400
    values[5], values[6], values[380], values[381] = 1000.0, 500.0, 600.0, 500.0
    calendar = [
        event_day(5),
        event_day(6, position=1),
        event_day(380),
        event_day(381, position=1),
        event_day(390, "new"),
    ]
    rule = make_rule(expr="pct_change(last_event)", yellow_if="< -0.3")
    shop = Shop().add("orders_paid", values)
    frame = judge(shop, tmp_path, rule, start=day(379), until=day(392), promotions=calendar).frame()
    assert frame.tier.tolist()[:4] == ["ok", "yellow", "ok", "ok"]
    assert frame.reason.tolist() == ["not_event", "breach", "ok", *["not_event"] * 8, "no_baseline", "not_event"]
    assert frame.observed.tolist()[1:3] == pytest.approx([-0.4, 0.0])


# -- shares --------------------------------------------------------------------------------------------------------


def test_a_share_is_of_the_total_or_of_the_outer_slice(tmp_path):
    shop = Shop().add("orders_paid", [200.0])
    for region, channel, value in (("n", "app", 60.0), ("n", "web", 20.0), ("s", "app", 120.0)):
        shop.add("orders_paid", [value], dimension="region|channel", member=f"{region}|{channel}")
    for region, value in (("n", 80.0), ("s", 120.0)):
        shop.add("orders_paid", [value], dimension="region", member=region)
    rules = [
        make_rule(alert="of_total", by=["region", "channel"], expr="share_of_parent()", yellow_if="< 0.2"),
        make_rule(alert="of_region", by=["region", "channel"], expr="share_of_parent(region)", yellow_if="< 0.3"),
    ]
    result = judge(shop, tmp_path, *rules)
    assert by_member(result, "of_total").observed.to_dict() == pytest.approx({"n|app": 0.3, "n|web": 0.1, "s|app": 0.6})
    inner = by_member(result, "of_region")
    assert inner.observed.to_dict() == pytest.approx({"n|app": 0.75, "n|web": 0.25, "s|app": 1.0})
    assert inner.yellow_bound["n|web"] == pytest.approx(24.0)
    assert inner.tier.to_dict() == {"n|app": "ok", "n|web": "yellow", "s|app": "ok"}


def test_the_change_of_a_share_forgives_what_moves_everything(tmp_path):
    shop = regions(a=[50.0] * 7 + [25.0], b=[50.0] * 7 + [10.0]).add("orders_paid", [100.0] * 7 + [50.0])
    rule = make_rule(by=["region"], expr="share_of_parent(7d)", yellow_if="< -0.3", min_change={"absolute": 5})
    found = by_member(judge(shop, tmp_path, rule))
    assert found.observed.to_dict() == pytest.approx({"a": 0.0, "b": -0.6})
    assert found.baseline.to_dict() == pytest.approx({"a": 25.0, "b": 25.0})
    assert found.tier.to_dict() == {"a": "ok", "b": "yellow"}


def test_a_parent_of_zero_has_no_shares(tmp_path):
    shop = regions(a=[0.0]).add("orders_paid", [0.0])
    found = by_member(judge(shop, tmp_path, make_rule(by=["region"], expr="share_of_parent()", yellow_if="< 0.5")))
    assert found.reason["a"] == "no_baseline"


# -- freshness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hour", "tier", "holds"), [(10, "ok", "none"), (30, "ok", "yellow"), (37, "yellow", "yellow"), (80, "red", "red")]
)
def test_freshness_counts_hours_since_the_metric_is_complete(tmp_path, hour, tier, holds):
    shop = Shop().add("orders_paid", [100.0] * 3)
    rule = make_rule(expr="freshness()", yellow_if="> 36", red_if="> 72", recover_if={"yellow": "< 24"})
    now = datetime.combine(day(3), datetime.min.time()) + timedelta(hours=hour)
    frame = judge(shop, tmp_path, rule, make_rule(alert="other"), start=day(0), until=day(7), now=now).frame()
    frame = frame[frame.rule == "orders_low"]
    assert len(frame) == 1, "a fact about now has one verdict"
    row = frame.iloc[0]
    assert (row.observed, row.tier, row.holds) == (hour, tier, holds)
    assert row.period_start == pd.Timestamp(now).floor("D") - pd.Timedelta(days=1)


def test_freshness_of_a_metric_that_never_was_complete(tmp_path):
    shop = Shop().add("orders_paid", [1.0])
    shop.absent.add("gone")
    shop.complete_until["orders_paid"] = None  # type: ignore[assignment]
    rules = [
        make_rule(expr="freshness()", yellow_if="> 36"),
        make_rule(alert="absent", metric="gone", expr="freshness()"),
    ]
    frame = judge(shop, tmp_path, *rules, start=day(0), until=day(1)).frame().set_index("rule")
    assert frame.tier.to_dict() == {"orders_low": "no_data", "absent": "unknown"}


def test_freshness_has_no_replay(tmp_path):
    shop = Shop().add("orders_paid", [100.0] * 3).publish(tmp_path / "published")
    found = replay(shop, [make_rule(expr="freshness()", yellow_if="> 1")], day(0), day(3))
    assert found.rules[0].judged == 0


# -- overrides and promotions --------------------------------------------------------------------------------------


def test_the_first_override_that_matches_counts(tmp_path):
    shop = regions(a=[60.0], b=[60.0], c=[60.0], d=[60.0])
    overrides = [
        {"where": {"region": ["a", "x"]}, "yellow_if": "< 70"},
        {"where": {"region": "a"}, "yellow_if": "< 10"},
        {"where": {"region": "b"}, "red_if": "< 65"},
        {"where": {"region": "c"}, "mute": True},
    ]
    found = by_member(
        judge(shop, tmp_path, make_rule(by=["region"], overrides=overrides), make_rule(alert="plain", by="region"))
    )
    assert found.tier.to_dict() == {"a": "yellow", "b": "red", "c": "ok", "d": "ok"}
    assert found.reason.to_dict() == {"a": "breach", "b": "breach", "c": "muted", "d": "ok"}
    assert found.yellow_bound.fillna(-1).to_dict() == {"a": 70, "b": 50, "c": 50, "d": 50}


def test_an_override_of_a_pair_matches_all_its_parts(tmp_path):
    shop = Shop()
    for member in ("n|app", "n|web", "s|app", "app|n"):
        shop.add("orders_paid", [60.0], dimension="region|channel", member=member)
    rule = make_rule(
        by=["region", "channel"],
        overrides=[
            {"where": {"region": "n", "channel": ["app", "web2"]}, "yellow_if": "< 70"},
            {"where": {"channel": "app"}, "red_if": "< 70"},
        ],
    )
    assert by_member(judge(shop, tmp_path, rule)).tier.to_dict() == {
        "n|app": "yellow", "n|web": "ok", "s|app": "red", "app|n": "ok",
    }  # fmt: skip


def test_a_changed_threshold_drops_the_recovery_that_belonged_to_it(tmp_path):
    shop = regions(a=[55.0], b=[55.0])
    rule = make_rule(
        by=["region"], recover_if={"yellow": "> 60"}, overrides=[{"where": {"region": "b"}, "yellow_if": "< 40"}]
    )
    found = by_member(judge(shop, tmp_path, rule))
    assert found.holds.to_dict() == {"a": "yellow", "b": "none"}


def test_promotion_days_have_their_own_thresholds(tmp_path):
    shop = Shop().add("orders_paid", [60.0] * 5)
    calendar = [event_day(1), event_day(2, "618", "presale"), event_day(3, "618", "main"), event_day(9)]
    rule = make_rule(promotions={"double_11": "mute", "main": {"yellow_if": "< 70"}, "any": {"red_if": "< 80"}})
    frame = judge(shop, tmp_path, rule, start=day(0), until=day(5), promotions=calendar).frame()
    assert list(zip(frame.tier, frame.reason, strict=True)) == [
        ("ok", "ok"), ("ok", "muted"), ("red", "breach"), ("yellow", "breach"), ("ok", "ok"),
    ]  # fmt: skip


def test_promotions_come_on_top_of_overrides(tmp_path):
    shop = regions(a=[60.0, 60.0], b=[60.0, 60.0])
    rule = make_rule(
        by=["region"],
        overrides=[{"where": {"region": "a"}, "yellow_if": "< 70"}],
        promotions={"double_11": {"red_if": "< 65"}},
    )
    frame = judge(shop, tmp_path, rule, start=day(0), until=day(2), promotions=[event_day(1)]).frame()
    tiers = {(row.member, row.period_start.day - 6): row.tier for row in frame.itertuples()}
    assert tiers == {("a", 0): "yellow", ("a", 1): "red", ("b", 0): "ok", ("b", 1): "red"}


def test_a_promotion_of_one_category_varies_the_rule_for_that_category_only(tmp_path):
    shop = Shop()
    for member in ("美妆|app", "美妆|web", "服饰|app"):
        shop.add("orders_paid", [60.0, 60.0], dimension="category|channel", member=member)
    shop.add("orders_paid", [60.0, 60.0])
    only = {"affects": (("category", ("美妆",)), ("channel", ("app",)))}
    calendar = [replace(event_day(1), **only), event_day(1, "618", "presale")]
    rules = [
        make_rule(by=["category", "channel"], promotions={"double_11": "mute", "618": {"yellow_if": "< 70"}}),
        make_rule(alert="total", promotions={"double_11": "mute"}),
    ]
    frame = judge(shop, tmp_path, *rules, start=day(0), until=day(2), promotions=calendar).frame()
    last = frame[frame.period_start == frame.period_start.max()].set_index("member").reason
    assert last.to_dict() == {"美妆|app": "muted", "美妆|web": "breach", "服饰|app": "breach", "all": "ok"}
    assert set(frame[frame.period_start == frame.period_start.min()].reason) == {"ok"}


def test_a_promotion_of_one_category_leaves_the_baseline_of_that_category_only(tmp_path):
    values = [100.0] * 7 + [300.0]
    shop = Shop()
    for member in ("美妆", "服饰"):
        shop.add("orders_paid", values, dimension="category", member=member)
    calendar = [replace(event_day(0), affects=(("category", ("美妆",)),))]
    rule = make_rule(by=["category"], expr="pct_change(7d)", yellow_if="> 1")
    assert by_member(judge(shop, tmp_path, rule, promotions=calendar)).reason.to_dict() == {
        "美妆": "no_baseline", "服饰": "breach",
    }  # fmt: skip


def test_missing_data_is_told_on_muted_days_too(tmp_path):
    shop = Shop().add("orders_paid", [60.0, "missing"])
    rule = make_rule(promotions={"any": "mute"})
    row = judge(shop, tmp_path, rule, promotions=[event_day(1)]).frame().iloc[0]
    assert (row.tier, row.reason) == ("no_data", "missing_slice")


# -- composites ----------------------------------------------------------------------------------------------------


TIERS = {"ok": 100.0, "yellow": 40.0, "red": 10.0, None: None}


def composite(tmp_path: Path, a: str | None, b: str | None, **condition: object) -> tuple[str, str]:
    shop = Shop().add("orders_paid", [1000.0]).add("one", [TIERS[a]]).add("two", [TIERS[b]])
    parts = [make_rule(alert=f"of_{m}", metric=m, yellow_if="< 50", red_if="< 20") for m in ("one", "two")]
    whole = rule_of(condition)
    frame = judge(shop, tmp_path / f"{a}{b}", whole, *parts).frame().set_index("rule")
    return frame.loc["whole"].tier, frame.loc["whole"].reason


def rule_of(condition: dict[str, object], **keys: object) -> Rule:
    return make_rule(alert="whole", **{**COMPOSITE_THRESHOLDS, **keys}, **condition)


def kleene(values: list[int | None], *, lowest: bool) -> int | None:
    """By hand: what the known values decide whatever the unknown ones are; None when they do not."""
    worlds = itertools.product(*[[0, 1, 2] if value is None else [value] for value in values])
    outcomes = {min(world) if lowest else max(world) for world in worlds}
    known = [value for value in values if value is not None]
    if len(outcomes) == 1:
        return outcomes.pop()
    return max(known, default=0) or None if not lowest else None


@pytest.mark.parametrize("a", ["ok", "yellow", "red", None])
@pytest.mark.parametrize("b", ["ok", "yellow", "red", None])
def test_composites_follow_three_valued_logic(tmp_path, a, b):
    ranks = {"ok": 0, "yellow": 1, "red": 2, None: None}
    words = {0: ("ok", "ok"), 1: ("yellow", "breach"), 2: ("red", "breach"), None: ("no_data", "no_baseline")}
    both, turned = [ranks[a], ranks[b]], None if ranks[b] is None else (2 if ranks[b] == 0 else 0)
    cases = {
        "all": ({"all_of": ["of_one", "of_two"]}, kleene(both, lowest=True)),
        "any": ({"any_of": ["of_one", "of_two"]}, kleene(both, lowest=False)),
        "and_not": ({"all_of": ["of_one"], "not": "of_two"}, kleene([ranks[a], turned], lowest=True)),
        "nested": ({"all_of": ["of_one", {"not": [{"any_of": ["of_two"]}]}]}, kleene([ranks[a], turned], lowest=True)),
    }
    for name, (condition, expected) in cases.items():
        assert composite(tmp_path / name, a, b, **condition) == words[expected], name


def test_a_composite_sees_compatible_slices(tmp_path):
    shop = Shop()
    for channel, value in (("app", 1.0), ("web", 2.0)):
        shop.add("orders_paid", [100.0], dimension="channel", member=channel)
        shop.add("one", [10.0 if channel == "app" else 100.0], dimension="channel", member=channel)
        for region in ("n", "s"):
            low = value == 2.0 and region == "s"
            shop.add("two", [40.0 if low else 100.0], dimension="region|channel", member=f"{region}|{channel}")
    shop.add("three", [40.0]).add("four", [100.0], dimension="region", member="n").add(
        "four", [10.0], dimension="region", member="s"
    )
    parts = [
        make_rule(alert="own", metric="one", by=["channel"], yellow_if="< 50", red_if="< 20"),
        make_rule(alert="finer", metric="two", by=["region", "channel"], yellow_if="< 50", red_if="< 20"),
        make_rule(alert="total", metric="three", yellow_if="< 50", red_if="< 20"),
        make_rule(alert="across", metric="four", by=["region"], yellow_if="< 50", red_if="< 20"),
    ]
    tiers = {}
    for part in parts:
        whole = rule_of({"all_of": [part.id]}, by=["channel"])
        tiers[part.id] = by_member(judge(shop, tmp_path / part.id, *parts, whole), "whole").tier.to_dict()
    assert tiers == {
        "own": {"app": "red", "web": "ok"},
        "finer": {"app": "ok", "web": "yellow"},
        "total": {"app": "yellow", "web": "yellow"},
        "across": {"app": "red", "web": "red"},
    }


def test_composites_of_composites_and_their_own_thresholds(tmp_path):
    shop = Shop().add("orders_paid", [10.0, 40.0, 100.0])
    rules = [
        rule_of({"any_of": ["middle"]}, yellow_if=None, red_if=">= 1"),
        make_rule(alert="middle", all_of=["base"], yellow_if=">= 1", red_if=">= 2"),
        make_rule(alert="base", yellow_if="< 50", red_if="< 20"),
    ]
    frame = judge(shop, tmp_path, *rules, start=day(0), until=day(3)).frame()
    tiers = {rule: group.tier.tolist() for rule, group in frame.groupby("rule")}
    assert tiers == {"whole": ["red", "red", "ok"], "middle": ["red", "yellow", "ok"], "base": ["red", "yellow", "ok"]}
    whole = frame[frame.rule == "whole"]
    assert whole.observed.tolist() == [2, 1, 0]
    assert whole.value.tolist() == [10, 40, 100]
    assert whole.red_bound.isna().all()


def test_a_composite_holds_as_long_as_its_parts_hold(tmp_path):
    shop = Shop().add("orders_paid", [40.0, 60.0, 80.0])
    base = make_rule(alert="base", yellow_if="< 50", recover_if={"yellow": "> 70"})
    frame = judge(shop, tmp_path, base, rule_of({"all_of": ["base"]}), start=day(0), until=day(3)).frame()
    whole = frame[frame.rule == "whole"]
    assert list(zip(whole.tier, whole.holds, strict=True)) == [("yellow", "yellow"), ("ok", "yellow"), ("ok", "none")]


def test_a_composite_whose_part_is_not_in_the_run_is_open(tmp_path):
    row = judge(Shop().add("orders_paid", [1.0]), tmp_path, rule_of({"all_of": ["elsewhere"]})).frame().iloc[0]
    assert (row.tier, row.reason) == ("no_data", "no_baseline")


def test_a_composite_with_a_broken_part_is_judged_without_it(tmp_path, monkeypatch):
    shop = Shop().add("orders_paid", [10.0]).add("bad", [10.0])
    broken = make_rule(alert="broken", metric="bad", expr="quantile(90d, 0.5)", yellow_if="< 1")
    broken = broken.model_copy(update={"expr": broken.expr.__class__("quantile", window_days=90, probability=7.0)})
    result = judge(shop, tmp_path, broken, make_rule(alert="base"), rule_of({"any_of": ["broken", "base"]}))
    frame = result.frame().set_index("rule")
    assert list(result.errors) == ["broken"]
    assert frame.reason.to_dict() == {"broken": "error", "base": "breach", "whole": "breach"}


def test_parts_come_before_the_whole():
    rules = [rule_of({"all_of": ["middle"]}), make_rule(alert="middle", any_of=["base"]), make_rule(alert="base")]
    assert [[rule.id for _, rule in stage] for stage in stages(list(enumerate(rules)))] == [["middle"], ["whole"]]
    assert [rule.id for rule in with_parts([rules[0]], rules)] == ["whole", "middle", "base"]
    assert [rule.id for rule in with_parts([rules[2]], rules)] == ["base"]
    assert cycle_of("a", {"a": ["b"], "b": ["c", "b"], "c": ["a"]}) == ("a", "b", "c", "a")
    assert cycle_of("a", {"a": ["b"], "b": ["b"]}) == ()


def test_a_changed_part_is_a_changed_whole(tmp_path):
    shop = Shop().add("orders_paid", [10.0])
    hashes = {
        judge(shop, tmp_path / bound, make_rule(alert="base", yellow_if=f"< {bound}"), rule_of({"all_of": ["base"]}))
        .frame().set_index("rule").rule_hash["whole"]
        for bound in ("50", "60")
    }  # fmt: skip
    assert len(hashes) == 2


def test_replay_runs_composites_over_pieces(tmp_path):
    values = [100.0] * 60
    values[40] = values[41] = 10.0
    shop = Shop().add("orders_paid", values).publish(tmp_path / "published")
    found = replay(shop, [make_rule(alert="base"), rule_of({"all_of": ["base"]})], day(0), day(60))
    assert {(one.rule, one.first_breach) for one in found.episodes} == {
        (rule, datetime.combine(day(40), datetime.min.time())) for rule in ("base", "whole")
    }


def test_a_composite_says_what_it_observes():
    rule = rule_of({"all_of": ["one_rule", {"any_of": ["two_rule", "three_rule"]}], "not": "four_rule"})
    assert rule.observes == "all of one_rule, (any of two_rule, three_rule) and none of four_rule"
    assert make_rule(expr="pct_change(7d)").observes == "pct_change(7d)"
