"""Advice rests on evidence: with it, ranked by it, gone without it."""

from __future__ import annotations

import json
import random

import pytest

from metrics_pipeline.advice.evidence import Evidence, Firing, evidence_of
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.playbook import Entry
from metrics_pipeline.advice.recommend import Advice, Record, recommend, strength, supporting
from metrics_pipeline.advice.text import advice_text, order_text
from metrics_pipeline.settings import PROJECT_ROOT
from tests.advice.builders import (
    make_alert,
    make_cause,
    make_coinciding,
    make_control,
    make_diagnosis,
    make_outlook,
    make_step,
    make_total,
)

STARTER = load_playbook(PROJECT_ROOT / "alert_rules").entries

SHELF = make_alert("stock_cover_days", "down", dimension="sku", member="SKU-7")
SCENARIOS = {
    "a best seller is about to be sold out": (
        evidence_of(SHELF, None, (), {"SKU-7": make_outlook()}),
        "restock",
        "SKU-7",
    ),
    "what is under way will do": (
        evidence_of(SHELF, None, (), {"SKU-7": make_outlook(on_order=500, quantity=0, order_by=None, arrives_on=None)}),
        "chase_delivery",
        "SKU-7",
    ),
    "a best seller is about to be sold out and nothing is foreseen of it": (
        evidence_of(SHELF, None, (), {"SKU-8": make_outlook("SKU-8")}),
        "transfer_stock",
        "SKU-7",
    ),
    "an empty shelf takes the sales and can be filled": (
        evidence_of(
            make_total("units_sold", "down"),
            make_diagnosis("units_sold", coinciding=(make_coinciding("stock_out", elements={"sku": "SKU-9"}),)),
            (),
            {"SKU-9": make_outlook("SKU-9", on_hand=0, is_late=True)},
        ),
        "restock",
        "SKU-9",
    ),
    "empty shelves take the sales": (
        evidence_of(
            make_total("units_sold", "down"), make_diagnosis("units_sold", coinciding=(make_coinciding("stock_out"),))
        ),
        "restock_lost_sales",
        "",
    ),
    "an ad channel burns money": (evidence_of(make_alert(), None), "pause_ad_channel", "search"),
    "an ad channel makes the margin fall": (
        evidence_of(
            make_total("profit_margin", "down"), make_diagnosis("profit_margin", steps=(make_step("ad_spend", "up"),))
        ),
        "cut_ad_spend",
        "",
    ),
    "a product page is broken": (
        evidence_of(
            make_total("units_sold", "down"),
            make_diagnosis("units_sold", causes=(make_cause({"sku": "SKU-7"}),), controls=(make_control("product_views"),)),
        ),
        "fix_product_page",
        "SKU-7",
    ),
    "a warehouse is late": (
        evidence_of(make_alert("late_delivery_rate", "up", dimension="warehouse|region", member="华北仓|华北"), None),
        "relieve_warehouse",
        "华北仓",
    ),
    "complaints surge": (evidence_of(make_total("complaint_rate", "up"), None), "staff_customer_service", "total"),
    "a promotion runs": (
        evidence_of(make_total("gmv", "up"), make_diagnosis("gmv", "up", coinciding=(make_coinciding("promotion"),))),
        "promotion_budget",
        "",
    ),
    "a payment method is down": (
        evidence_of(
            make_total("gmv", "down"),
            make_diagnosis(causes=(make_cause({"payment_method": "alipay"}),), steps=(make_step("payment_conversion_rate"),)),
        ),
        "switch_payment_method",
        "alipay",
    ),
    "payments fail by one method": (
        evidence_of(
            make_total("payment_conversion_rate", "down", observed=0.61, expected=0.93),
            None,
            [Firing("payment_conversion_rate", "payment_method", "alipay", "yellow", "down", 0.09, 0.93)],
        ),
        "switch_payment_method",
        "alipay",
    ),
    "payments take the sales": (
        evidence_of(
            make_alert("orders_paid", "down", dimension="region", member="华北"),
            None,
            [Firing("payment_conversion_rate", "all", "all", "red", "down", 0.61, 0.93)],
        ),
        "payments_take_sales",
        "payment conversion",
    ),
    "refunds of a category surge": (
        evidence_of(make_alert("refunded_orders", "up", dimension="category", member="美妆"), None),
        "review_category_refunds",
        "美妆",
    ),
    "tracking is lost": (
        evidence_of(
            make_alert("sessions", "down", dimension="channel", member="app"),
            make_diagnosis("sessions", slice={"channel": "app"}, controls=(make_control("orders_placed"),)),
        ),
        "fix_tracking",
        "app",
    ),
    "bots flood a channel": (
        evidence_of(
            make_alert("sessions", "up", dimension="channel", member="web"),
            None,
            [Firing("bounce_rate", "channel", "web", "red", "up", 0.8, 0.4)],
        ),
        "block_bots",
        "web",
    ),
    "data are late": (
        evidence_of(
            make_total("orders_paid", "down"), make_diagnosis("orders_paid", coinciding=(make_coinciding("data_problem"),))
        ),
        "wait_for_data",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_scenario_of_the_shop_has_its_advice_first(scenario):
    evidence, entry, named = SCENARIOS[scenario]
    first = recommend(evidence, STARTER.values())[0]
    assert first.entry == entry
    assert named in first.action_en
    assert "{" not in first.action_zh + first.action_en + first.effect_zh + first.effect_en


def test_an_order_is_told_with_quantity_packs_supplier_and_dates():
    [first, *_] = recommend(evidence_of(SHELF, None, (), {"SKU-7": make_outlook()}), STARTER.values())
    assert order_text(first, "zh") == "：最迟 2025-11-21 向 Acme 订 240 件（整箱 24 件），约 2025-11-26 到货"
    assert "SKU-7 现有 34 件，在途 0 件，日销约 12 件，新单到货前断货概率 82%，预计 2025-11-23 断货" in advice_text(
        first, "zh"
    )
    assert "by 2025-11-21" in advice_text(first, "en") and "82% likely to be empty" in advice_text(first, "en")
    late = make_outlook(is_late=True, on_hand=0, pack_size=1, supplier="")
    [first, *_] = recommend(evidence_of(SHELF, None, (), {"SKU-7": late}), STARTER.values())
    assert order_text(first, "zh") == "：立即订 240 件，约 2025-11-26 到货，晚于断货：同时催在途、调拨"
    assert "已断货" in advice_text(first, "zh") and "sold out about" not in advice_text(first, "en")


def test_a_shelf_is_kept_as_evidence_with_all_its_figures():
    [one] = [one for one in evidence_of(SHELF, None, (), {"SKU-7": make_outlook()}) if one.kind == "supply"]
    assert one.strength == 0.82
    assert Evidence.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_any_piece_of_its_evidence_an_advice_is_gone(scenario):
    evidence, _, _ = SCENARIOS[scenario]
    for advice in recommend(evidence, STARTER.values(), most=100):
        assert set(advice.evidence) <= set(evidence)
        for piece in advice.evidence:
            left = recommend([one for one in evidence if one != piece], STARTER.values(), most=100)
            assert not any(one.entry == advice.entry and one.evidence == advice.evidence for one in left)
            others = [one for one in evidence if one != piece and one.kind == piece.kind]
            if not others and not (
                piece.kind in ("slice", "cause", "part")
                and any(one.kind in ("slice", "cause", "part") for one in evidence if one != piece)
            ):
                assert advice.entry not in {one.entry for one in left}


def _random_evidence(rng: random.Random) -> list[Evidence]:
    metrics = ["gmv", "sessions", "orders_placed", "ad_spend", "payment_conversion_rate", "units_sold", "bounce_rate"]
    dimensions = {"sku": "SKU-1", "region": "华北", "channel": "app", "ad_channel": "search", "warehouse": "华东仓"}
    kinds = ["alert", "slice", "cause", "part", "pyramid", "also", "still", "verdict", "coinciding", "supply"]
    words = ["order", "waiting", "promotion", "stock_out", "data_problem", "deploy_note", "single_cause", "site_wide"]
    found = [Evidence("alert", 1.0, rng.choice(metrics), direction=rng.choice(["up", "down"]))] * rng.randint(0, 1)
    for _ in range(rng.randint(0, 9)):
        elements = tuple(rng.sample(sorted(dimensions.items()), rng.randint(0, 2)))
        found.append(
            Evidence(
                rng.choice(kinds), rng.random(), rng.choice(metrics), elements, rng.choice(["up", "down", ""]),
                rng.random(), rng.random(), rng.random(), rng.choice(words),
            )
        )  # fmt: skip
    return found


def _holds(entry: Entry, evidence: list[Evidence]) -> bool:
    """Whether every part of a condition has evidence, said a second time and without search for the strongest."""
    when = entry.when

    def moved(kind: str, signals: tuple[tuple[str, str], ...]) -> list[Evidence]:
        return [
            one
            for one in evidence
            if one.kind == kind and any(one.metric == m and way in ("", one.direction) for m, way in signals)
        ]

    alerts = [one for one in moved("alert", when.alert) if not when.change or abs(one.change or 0.0) >= when.change]
    needs = [bool(alerts)]
    if when.cause:
        inside = alerts and set(when.cause.dimension) <= set(dict(alerts[0].elements))
        needs.append(
            any(
                one.kind in (("slice", "part") if inside else ("slice", "part", "cause"))
                and (one.kind == "part" or one.share >= when.cause.share)
                and set(when.cause.dimension) <= set(dict(one.elements))
                for one in evidence
            )
        )
    if when.pyramid:
        needs.append(any(one.share >= when.pyramid.share for one in moved("pyramid", when.pyramid.metric)))
    if when.also:
        needs.append(bool(moved("also", when.also)))
    if when.still:
        needs.append(any(one.kind == "still" and one.metric in when.still for one in evidence))
    for kind, words in (("verdict", when.verdict), ("coinciding", when.coinciding), ("supply", when.supply)):
        if words:
            needs.append(any(one.kind == kind and one.word in words for one in evidence))
    return all(needs)


def test_what_is_advised_is_what_has_evidence_for_every_part_of_its_condition():
    rng = random.Random(5)
    advised = 0
    for _ in range(400):
        evidence = _random_evidence(rng)
        found = {one.entry for one in recommend(evidence, STARTER.values(), most=1000)}
        assert found == {entry.id for entry in STARTER.values() if _holds(entry, evidence)}
        advised += len(found)
    assert advised > 60  # the samples are not all silent


def test_taking_evidence_away_never_gives_new_advice():
    rng = random.Random(6)
    for _ in range(200):
        evidence = _random_evidence(rng)
        before = {one.entry for one in recommend(evidence, STARTER.values(), most=1000)}
        for index in range(len(evidence)):
            left = evidence[:index] + evidence[index + 1 :]
            assert {one.entry for one in recommend(left, STARTER.values(), most=1000)} <= before


def test_stronger_evidence_comes_first():
    causes = (make_cause({"ad_channel": "search"}, share=0.7), make_cause({"ad_channel": "social"}, share=0.3))
    evidence = evidence_of(make_total("ad_spend", "up"), make_diagnosis("ad_spend", "up", causes=causes))
    found = [one.action_en for one in recommend(evidence, STARTER.values()) if one.entry == "pause_ad_channel"]
    assert [("search" in one, "social" in one) for one in found] == [(True, False), (False, True)]


def test_what_helped_before_comes_before_what_did_not():
    evidence = evidence_of(
        make_total("gmv", "down"),
        make_diagnosis(causes=(make_cause({"region": "华北"}), make_cause({"channel": "app"}))),
    )
    plain = [one.entry for one in recommend(evidence, STARTER.values())]
    assert {"regional_sales", "channel_sales"} <= set(plain)
    for better, worse in (("regional_sales", "channel_sales"), ("channel_sales", "regional_sales")):
        records = {better: Record(6.0, 6.0, 6, 6), worse: Record(6.0, 0.0, 6, 0)}
        ranked = [one.entry for one in recommend(evidence, STARTER.values(), records=records)]
        assert ranked.index(better) < ranked.index(worse)


def test_one_lucky_case_does_not_rule_the_list():
    lucky, proven = Record(1.0, 1.0, 1, 1), Record(20.0, 17.0, 20, 17)
    assert 0.5 < lucky.expectation < proven.expectation < 0.85


def test_evidence_adds_up_without_reaching_certainty():
    one = Evidence("alert", 1.0)
    assert strength([one]) == 0.5
    assert strength([one]) < strength([one, one]) < strength([one, one, one]) < 1.0
    assert strength([]) == 0.0


def test_an_alert_on_another_slice_is_no_evidence():
    alert = make_alert("sessions", "up", dimension="channel", member="web")
    other = Firing("bounce_rate", "channel", "app", "red", "up")
    assert [one.kind for one in evidence_of(alert, None, [other])] == ["alert", "slice"]
    total = Firing("bounce_rate", "all", "all", "red", "up")
    assert [one.kind for one in evidence_of(alert, None, [total])] == ["alert", "slice", "also"]


def test_a_condition_on_the_size_of_the_change_is_kept():
    entry = STARTER["pause_ad_channel"]
    picky = entry.model_copy(update={"when": entry.when.model_copy(update={"change": 2.0})})
    assert supporting(picky.when, evidence_of(make_alert(observed=52_000.0, expected=12_000.0), None))
    assert not supporting(picky.when, evidence_of(make_alert(observed=20_000.0, expected=12_000.0), None))
    assert not supporting(picky.when, evidence_of(make_alert(observed=20_000.0, expected=None), None))


def test_advice_comes_back_from_its_json():
    import json

    for evidence, _, _ in SCENARIOS.values():
        for advice in recommend(evidence, STARTER.values(), records={"restock": Record(1.5, 1.0, 2, 1)}):
            assert Advice.from_json(json.loads(json.dumps(advice.to_json()))) == advice


def test_the_same_words_of_two_entries_are_said_once():
    alert = make_alert("bounce_rate", "up", dimension="channel", member="web")
    beside = Firing("sessions", "channel", "web", "red", "up", 900.0, 500.0)
    found = recommend(
        evidence_of(
            alert,
            make_diagnosis("bounce_rate", "up", slice={"channel": "web"}, steps=(make_step("bounced_sessions", "up"),)),
            [beside],
        ),
        STARTER.values(),
    )
    actions = [one.action_en for one in found]
    assert len(actions) == len(set(actions))
    assert found[0].entry in {"block_bots", "block_bots_of_channel"} and "channel web" in actions[0]
