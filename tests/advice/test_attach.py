"""Advice of what fires, kept with its episodes; what was done, whether it helped, and what that changes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from metrics_pipeline.advice.attach import advise_on_diagnosis, attach
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.outcome import DAYS, Handlings
from metrics_pipeline.advice.text import advice_text
from metrics_pipeline.advice.told import told_of
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.work_orders import close_order, give_feedback, show_order
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store import advice as rows
from tests.advice.builders import make_cause, make_diagnosis, make_outlook
from tests.alerts.builders import NOW, RECEIVERS, make_card, make_verdict
from tests.store.databases import sqlite_store

ENTRIES = load_playbook(PROJECT_ROOT / "alert_rules").entries
CARD = make_card(
    "refunds_by_category",
    metric="refunded_orders",
    name_zh="退款订单数",
    name_en="Refunded orders",
    unit="orders",
    expression="band(seasonal)",
    yellow_if="> 4",
    red_if="> 8",
)
METRICS = {"refunded_orders": SimpleNamespace(name_zh="退款订单数", name_en="Refunded orders", unit="orders")}
CARDS = {CARD.id: CARD}


@pytest.fixture
def store(tmp_path):
    with sqlite_store(tmp_path) as opened:
        yield opened


def verdict(tier="red", period=0, member="美妆", **changes):
    numbers = {"value": 90.0, "baseline": 30.0, "observed": 9.0} if tier in ("yellow", "red") else {"value": 30.0}
    fields = {"rule": CARD.id, "metric": "refunded_orders", "dimension": "category", "member": member, **numbers}
    return make_verdict(tier, period, **{**fields, **changes})


def at(day: int):
    return NOW + timedelta(days=day)


def night(store, *verdicts, day=0, diagnoses=None):
    apply_verdicts(store, verdicts, CARDS, receivers=RECEIVERS, now=at(day))
    return advised(store, CARDS, day=day, diagnoses=diagnoses)


def advised(store, cards=CARDS, *, day=0, diagnoses=None):
    with store.writing("alerts") as connection:
        return attach(connection, ENTRIES.values(), METRICS, cards, diagnoses=diagnoses, now=at(day))


def told(store, key, day=0):
    with store.reading() as connection:
        return told_of(connection, [key], now=at(day)).get(key)


def episode(period=0, member="美妆"):
    return f"{CARD.id}{{category={member}}}@2025-11-{11 + period:02d}T00:00"


def test_what_fires_gets_its_advice_with_its_figures(store):
    assert night(store, verdict()) == (episode(),)
    [first] = told(store, episode()).advice
    assert first.entry == "review_category_refunds"
    assert first.action_zh.startswith("核查 美妆 类目")
    assert told(store, episode()).lines("zh") == [
        "核查 美妆 类目的退款原因：批次质量、描述、物流损坏；暂停问题批次（after-sales）。"
        "依据：退款订单数（品类=美妆）90（预期 30，+200.0%）。"
    ]
    assert "90 (30 expected, +200.0%)" in told(store, episode()).lines("en")[0]


def test_a_second_run_changes_nothing(store):
    night(store, verdict())
    assert night(store, verdict(), day=0) == ()
    order = show_order(store, episode(), now=at(1))
    assert [one.what for one in order.events] == ["opened", "advised"]
    assert advised(store, day=1) == ()


def test_the_work_order_says_what_to_do_first(store):
    night(store, verdict())
    event = show_order(store, episode(), now=at(0)).events[-1]
    assert (event.what, event.who) == ("advised", "system")
    assert "核查 美妆" in event.detail
    assert "review_category_refunds" in event.detail


def test_a_diagnosis_adds_its_causes(store):
    found = make_diagnosis(
        "refunded_orders", "up", slice={"category": "美妆"}, observed=90.0, expected=30.0, change=60.0,
        causes=(make_cause({"sku": "SKU-9"}, contribution=50.0),),
    )  # fmt: skip
    night(store, verdict(), diagnoses={episode(): found})
    entries = {one.entry: one for one in told(store, episode()).advice}
    assert "SKU-9" in entries["stop_defective_product"].action_en
    assert "品类=美妆 · SKU=SKU-9 解释变化的 80%，40" in " ".join(told(store, episode()).lines("zh"))
    with store.reading() as connection:
        row = rows.advice_of(connection, [episode()])[episode()]
    assert row.elements == ["category=美妆", "sku=SKU-9"]
    assert row.data_version == "v1"


def handled(store, day, *, action="review_category_refunds", recovers=True, helped=None):
    """A past episode that began on `day`: red, an action, and gone or not a day later."""
    night(store, verdict(period=day), day=day)
    close_order(store, episode(day), "fixed", "batch stopped", who="li", now=at(day), action=action, helped=helped)
    night(store, verdict("ok" if recovers else "red", day + 1), day=day + 1)


def test_similar_episodes_are_told_with_what_was_done_and_whether_it_helped(store):
    handled(store, 0)
    night(store, verdict(period=10), day=10)
    found = told(store, episode(10), day=10)
    [like] = found.similar
    assert (like.episode, like.similarity) == (episode(0), 0.95)  # the onset of neither is known
    assert like.handling.helped is True
    assert found.memory("zh") == [
        "2025-11-11 refunds_by_category（品类=美妆，相似度 95%）；处理：review_category_refunds；已修复：batch stopped；有效"
    ]
    assert found.memory("en")[0].endswith("fixed: batch stopped; it helped")
    assert found.advice[0].record.cases == 1
    assert found.advice[0].record.cases_helped == 1
    assert "相似情况用过 1 次，1 次有效" in found.lines("zh")[0]


def test_an_episode_is_not_like_one_that_came_later(store):
    night(store, verdict(period=0), verdict(period=0, member="食品"))
    assert told(store, episode(0)).similar == ()


def test_an_alert_that_fires_on_was_not_helped(store):
    handled(store, 0, recovers=False)
    with store.reading() as connection:
        [after, late] = [
            Handlings.read(connection, [episode(0)], now=at(0) + wait).by_episode[episode(0)].helped
            for wait in (DAYS - timedelta(hours=1), DAYS)
        ]
    assert (after, late) == (None, False)


def test_an_alert_that_comes_back_at_once_was_not_helped(store):
    handled(store, 0)
    night(store, verdict(period=2), day=2)
    with store.reading() as connection:
        assert Handlings.read(connection, [episode(0)], now=at(9)).by_episode[episode(0)].helped is False


def test_before_the_days_are_over_nothing_is_known(store):
    handled(store, 0)
    with store.reading() as connection:
        assert Handlings.read(connection, [episode(0)], now=at(2)).by_episode[episode(0)].helped is None


def test_what_a_person_says_counts_more_than_what_became_of_it(store):
    handled(store, 0, helped=False)
    with store.reading() as connection:
        [done] = Handlings.read(connection, [episode(0)], now=at(9)).by_episode[episode(0)].done
    assert (done.helped, done.said) == (False, True)


def test_a_false_alarm_says_nothing_of_the_action(store):
    handled(store, 0)
    give_feedback(store, episode(0), is_useful=False, reason="price test", who="wang", now=at(1))
    with store.reading() as connection:
        assert Handlings.read(connection, [episode(0)], now=at(9)).by_episode[episode(0)].helped is None


def test_what_helped_in_similar_cases_moves_up(store):
    causes = (make_cause({"sku": "SKU-9"}, contribution=30.0),)
    found = make_diagnosis("refunded_orders", "up", slice={"category": "美妆"}, causes=causes)

    def ranked(day):
        night(store, verdict(period=day), day=day, diagnoses={episode(day): found})
        return [one.entry for one in told(store, episode(day), day=day).advice]

    before = ranked(0)
    assert before.index("stop_defective_product") == 0  # more evidence
    night(store, verdict("ok", 1), day=1)
    for day in (2, 4, 6, 8, 10):
        handled(store, day, action="review_category_refunds", helped=True)
        with store.writing("alerts") as connection:
            rows.add_action(
                connection,
                rows.ActionRow(episode(day), CARD.id, "stop_defective_product", "li", at(day), "", helped=False),
            )
    after = ranked(18)
    assert after.index("review_category_refunds") < after.index("stop_defective_product")


def test_a_diagnosis_alone_has_advice_and_a_memory_and_writes_nothing(store):
    handled(store, 0)
    causes = (make_cause({"sku": "SKU-9"}, contribution=30.0),)
    found = make_diagnosis(
        "refunded_orders", "up", slice={"category": "美妆"}, causes=causes, period=datetime(2025, 11, 21)
    )
    with store.reading() as connection:
        said = advise_on_diagnosis(connection, found, ENTRIES.values(), METRICS, CARDS, now=at(10))
        assert list(rows.advice_of(connection, [episode(0)])) == [episode(0)]
    assert [(one.entry, one.record.cases_helped) for one in said.advice] == [
        ("review_category_refunds", 1),
        ("stop_defective_product", 0),
    ]
    assert [one.episode for one in said.similar] == [episode(0)]
    with store.reading() as connection:
        quiet = make_diagnosis("refunded_orders", "none")
        assert advise_on_diagnosis(connection, quiet, ENTRIES.values(), METRICS, CARDS, now=at(10)).advice == ()


def test_alerts_without_a_metric_get_no_advice(store):
    card = make_card("pipeline_failed:nightly", metric="", kind="alarm")
    apply_verdicts(store, [make_verdict("red", rule=card.id, metric="")], {card.id: card}, receivers=RECEIVERS, now=NOW)
    assert advised(store, {card.id: card}) == ()


def test_a_stock_out_alert_is_advised_to_order_what_is_foreseen_and_its_work_order_says_so(store, tmp_path):
    card = make_card(
        "stock_out_soon_by_sku", metric="stock_on_hand", name_zh="库存量", name_en="Stock on hand", unit="pieces",
        expression="stockout(lead)", yellow_if="> 0.3", red_if="> 0.7",
    )  # fmt: skip
    one = make_verdict(
        "red", 0, rule=card.id, metric="stock_on_hand", dimension="sku", member="SKU-7", value=34.0, baseline=0.0,
        observed=0.75, red_bound=None, yellow_bound=None,
    )  # fmt: skip
    other = one._replace(member="SKU-9", tier="yellow", observed=0.4)
    apply_verdicts(store, [one, other], {card.id: card}, receivers=RECEIVERS, now=NOW)
    outlooks = {sku: make_outlook(sku) for sku in ("SKU-7", "SKU-9")}
    with store.writing("alerts") as connection:
        keys = attach(connection, ENTRIES.values(), METRICS, {card.id: card}, outlooks=outlooks, now=NOW)
    [key] = [one for one in keys if "SKU-7" in one]
    deliver_due(store, {"file": FileChannel(tmp_path / "messages")}, now=NOW + timedelta(minutes=6))
    [message] = (tmp_path / "messages").glob("*.json")
    assert "其他切片: 补货 SKU-9：最迟 2025-11-21 向 Acme 订 240 件" in json.loads(message.read_text("utf-8"))["text"]
    first, *_ = told(store, key).advice
    assert first.entry == "restock"
    assert "新单到货前断货概率 75%" in advice_text(first, "zh")  # the chance that the rule judged
    [event] = [one for one in show_order(store, key, now=NOW).events if one.what == "advised"]
    assert "补货 SKU-7：最迟 2025-11-21 向 Acme 订 240 件" in event.detail
    assert "order 240 (packs of 24) from Acme by 2025-11-21" in event.detail
