"""One episode, one work order; people say what came of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.work_orders import (
    CLOSE_REASONS,
    CLOSE_WORDS,
    WorkOrderError,
    assign_order,
    close_order,
    count_feedback,
    give_feedback,
    list_feedback,
    list_orders,
    show_order,
)
from tests.alerts.builders import NOW, RECEIVERS, make_card, make_verdict

EPISODE = "refund_rate_surge{region=华北}@2025-11-11T00:00"


def tick(store, *verdicts, now=NOW, card=None, **options):
    cards = {"refund_rate_surge": card or make_card()}
    return apply_verdicts(store, verdicts, cards, receivers=RECEIVERS, now=now, **options)


def open_and(store, act=None):
    tick(store, make_verdict("red"))
    return act(store) if act else show_order(store, EPISODE, now=NOW).order


def test_a_red_episode_opens_one_order_for_the_owner(store):
    assert tick(store, make_verdict("red")).orders == (EPISODE,)
    assert tick(store, make_verdict("red", v=2)).orders == ()
    assert tick(store, make_verdict("red", 1)).orders == ()
    [view] = list_orders(store, now=NOW)
    order = view.order
    assert (order.episode, order.tier, order.state, order.assignee) == (EPISODE, "red", "open", "after-sales")
    assert (order.due_at - order.opened_at, view.is_overdue) == (timedelta(hours=24), False)
    assert order.links == {"runbook": "https://wiki.example/refunds", "asset": "operational/refund_rate"}
    assert list_orders(store, now=NOW + timedelta(hours=25))[0].is_overdue


@pytest.mark.parametrize(
    ("label", "tiers", "orders"),
    [
        (None, ["yellow", "yellow"], []),
        (None, ["yellow", "red"], ["red"]),
        ("red", ["yellow"], []),
        ("yellow", ["yellow"], ["yellow"]),
        ("yellow", ["yellow", "red"], ["red"]),
        ("never", ["red"], []),
    ],
)
def test_the_rule_says_from_which_tier_an_order_is_opened(store, label, tiers, orders):
    card = make_card(labels={"scenario": "refund_surge", **({"work_order": label} if label else {})})
    for number, tier in enumerate(tiers):
        tick(store, make_verdict(tier, number), card=card)
    assert [view.order.tier for view in list_orders(store, now=NOW)] == orders


def test_a_backfill_opens_no_order_but_the_next_night_does(store):
    assert tick(store, make_verdict("red"), silent=True).orders == ()
    assert tick(store, make_verdict("red", 1)).orders == (EPISODE,)


def test_an_order_outlives_its_alert(store):
    open_and(store)
    tick(store, make_verdict("ok", 1))
    assert [view.order.state for view in list_orders(store, now=NOW)] == ["open"]


def test_an_order_is_assigned_and_closed_with_a_reason_and_a_note(store):
    order = open_and(store)
    later = NOW + timedelta(hours=2)
    view = assign_order(store, str(order.id), "王芳", who="li", now=later, due_at=NOW + timedelta(hours=5))
    assert (view.order.state, view.order.assignee, view.order.due_at) == ("assigned", "王芳", NOW + timedelta(hours=5))
    assign_order(store, str(order.id), "王芳", who="li", now=later)
    view = close_order(store, EPISODE, "fixed", "换了快递", who="王芳", now=later)
    assert (view.order.state, view.order.closed_by, view.order.close_note) == ("closed", "王芳", "换了快递")
    assert [event.what for event in view.events] == ["opened", "assigned", "closed"]
    assert view.as_json()["events"][2]["detail"] == "fixed: 换了快递"
    assert list_orders(store, now=NOW) == []
    assert len(list_orders(store, now=NOW, states=["closed"])) == 1


def test_the_same_close_again_changes_nothing(store):
    open_and(store)
    once = close_order(store, EPISODE, "fixed", "done", who="li", now=NOW)
    assert close_order(store, EPISODE, "fixed", "done", who="li", now=NOW + timedelta(hours=1)) == once
    assert len(list_feedback(store)) == 1


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda store: close_order(store, EPISODE, "whatever", "x", who="li", now=NOW), "unknown reason 'whatever'; use one of fixed, false_alarm"),
        (lambda store: close_order(store, EPISODE, "fixed", "  ", who="li", now=NOW), "needs a note"),
        (lambda store: close_order(store, "77", "fixed", "x", who="li", now=NOW), "there is no order '77'"),
        (lambda store: assign_order(store, EPISODE, " ", who="li", now=NOW), "give a name"),
        (lambda store: give_feedback(store, "none@2025", is_useful=True, reason="", who="li", now=NOW), "there is no episode"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(store, act, said):
    with pytest.raises(WorkOrderError, match=said):
        open_and(store, act)


def test_a_closed_order_is_not_closed_otherwise_nor_assigned(store):
    open_and(store)
    close_order(store, EPISODE, "fixed", "done", who="li", now=NOW)
    with pytest.raises(WorkOrderError, match="was closed by li as fixed already"):
        close_order(store, EPISODE, "false_alarm", "no", who="wang", now=NOW)
    with pytest.raises(WorkOrderError, match="is closed"):
        assign_order(store, EPISODE, "wang", who="li", now=NOW)


def test_an_episode_that_begins_again_opens_its_order_again(store):
    open_and(store)
    close_order(store, EPISODE, "data_problem", "double load", who="li", now=NOW)
    tick(store, make_verdict("red", 1))
    assert list_orders(store, now=NOW) == []
    tick(store, make_verdict("ok", 1, v=3000))
    tick(store, make_verdict("red", 1, v=6000))
    view = show_order(store, EPISODE, now=NOW)
    assert view.order.state == "open"
    assert [event.what for event in view.events] == ["opened", "closed", "reopened"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [("fixed", [True]), ("false_alarm", [False]), ("expected", [False]), ("duplicate", []), ("data_problem", [])],
)
def test_closing_is_feedback_where_it_says_something_of_the_rule(store, reason, said):
    open_and(store)
    close_order(store, EPISODE, reason, "looked into it", who="li", now=NOW)
    assert [one.is_useful for one in list_feedback(store, episode=EPISODE)] == said


def test_the_last_word_of_each_person_counts(store):
    open_and(store)
    for who, useful, reason in [("li", False, "too late"), ("wang", True, ""), ("li", True, "right")]:
        give_feedback(store, EPISODE, is_useful=useful, reason=reason, who=who, now=NOW)
    assert len(list_feedback(store)) == 3
    [count] = count_feedback(store)
    assert (count.rule, count.useful, count.not_useful, count.reasons) == ("refund_rate_surge", 2, 0, {"right": 1})
    assert count_feedback(store, rule="other") == []


def test_every_close_reason_has_its_words():
    assert set(CLOSE_WORDS) == set(CLOSE_REASONS)
