"""One episode, one work order; people say what came of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.story import story_of
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
from tests.routing.builders import make_routing

YELLOW = make_card(labels={"scenario": "refund_surge", "work_order": "yellow"})
UI = "https://dagster.shop/"
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
    assert view.links(UI) == {
        **order.links,
        "check": "https://dagster.shop/assets/operational/refund_rate?view=checks&checkDetail=refund_rate_surge",
    }
    assert view.as_json(UI)["links"] == view.links(UI)
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
    assert view.as_json(UI)["events"][2]["detail"] == "fixed: 换了快递"
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


# -- many at once ----------------------------------------------------------------------------------------------------


def storm(count: int, tier: str = "red", period: int = 0, *, first: int = 0, **changes):
    """Verdicts of so many slices; the last one is the worst."""
    return [
        make_verdict(tier, period, member=f"m{number:05}", value=0.2 + number / 1e5, **changes)
        for number in range(first, first + count)
    ]


def episode(number: int, period: str = "2025-11-11") -> str:
    return f"refund_rate_surge{{region=m{number:05}}}@{period}T00:00"


def test_up_to_twenty_slices_that_begin_together_have_an_order_each(store):
    assert len(tick(store, *storm(20)).orders) == 20
    assert [view.order.slices for view in list_orders(store, now=NOW)] == [1] * 20


def test_more_slices_that_begin_together_share_one_order_at_the_worst(store):
    assert tick(store, *storm(21)).orders == (episode(20),)
    [view] = list_orders(store, now=NOW)
    assert (view.order.episode, view.order.slices, view.order.assignee) == (episode(20), 21, "after-sales")
    shown = {number: show_order(store, episode(number), now=NOW) for number in range(21)}
    assert {one.order.id for one in shown.values()} == {view.order.id}, "each episode leads to it"
    assert shown[0].episodes == (episode(20), *(episode(number) for number in range(20)))
    assert story_of(store, episode(3), now=NOW).orders[0].order.id == view.order.id


def test_a_storm_of_twenty_thousand_slices_is_one_order(store):
    assert len(tick(store, *storm(20_000)).orders) == 1
    assert list_orders(store, now=NOW)[0].order.slices == 20_000


def test_a_joint_order_is_opened_once_whatever_is_run_again(store):
    tick(store, *storm(30))
    for number in range(1, 3):
        assert tick(store, *storm(30, v=number + 1)).orders == ()
        assert tick(store, *storm(30, period=number)).orders == ()
    assert [view.order.slices for view in list_orders(store, now=NOW)] == [30]
    assert [event.what for event in show_order(store, episode(0), now=NOW).events] == ["opened"]


def test_what_comes_to_an_open_joint_order_joins_it(store):
    tick(store, *storm(30, "yellow"), card=YELLOW)
    assert tick(store, *storm(30, "yellow", v=2), *storm(2, first=30, v=2), card=YELLOW).orders == ()
    view = show_order(store, episode(31), now=NOW)
    assert (view.order.slices, view.order.tier) == (32, "red")
    assert [(event.what, event.detail) for event in view.events[1:]] == [("joined", "2 more"), ("escalated", "red")]


def test_each_period_and_each_rule_has_its_own(store):
    cards = {name: make_card(name) for name in ("refund_rate_surge", "other")}
    batch = [*storm(30), *storm(25, rule="other")]
    apply_verdicts(store, batch, cards, receivers=RECEIVERS, now=NOW)
    apply_verdicts(store, storm(22, period=1, first=100), cards, receivers=RECEIVERS, now=NOW)
    found = [(view.order.rule, view.order.slices) for view in list_orders(store, now=NOW)]
    assert sorted(found) == [("other", 25), ("refund_rate_surge", 22), ("refund_rate_surge", 30)]


def test_a_joint_order_turns_red_once(store):
    tick(store, *storm(30, "yellow"), card=YELLOW)
    assert list_orders(store, now=NOW)[0].order.tier == "yellow"
    tick(store, *storm(10, period=1), *storm(20, "yellow", 1, first=10), card=YELLOW)
    tick(store, *storm(30, period=2), card=YELLOW)
    view = show_order(store, episode(0), now=NOW)
    assert view.order.tier == "red"
    assert [event.what for event in view.events] == ["opened", "escalated"]


def test_the_end_of_all_its_alerts_closes_no_joint_order(store):
    tick(store, *storm(30))
    tick(store, *storm(30, "ok", 1))
    assert [view.order.state for view in list_orders(store, now=NOW)] == ["open"]


def test_a_closed_joint_order_is_opened_again_with_one_of_its_episodes(store):
    tick(store, *storm(30))
    close_order(store, episode(7), "fixed", "done", who="li", now=NOW)
    assert tick(store, *storm(30, period=1)).orders == ()
    assert list_orders(store, now=NOW) == []
    tick(store, *storm(30, "ok", 1, v=2), *storm(30, "ok", 0, v=2))
    tick(store, *storm(3, "red", 0, v=3), *storm(3, "red", 1, v=3))
    assert [view.order.slices for view in list_orders(store, now=NOW)] == [30]


def test_the_routes_say_how_many_are_many(store, tmp_path):
    routing = make_routing(
        tmp_path, "route: {receiver: room}\nreceivers: [{name: room, channels: [file]}]\nlimits: {work_orders: 2}\n"
    )
    cards = {"refund_rate_surge": make_card()}
    assert len(apply_verdicts(store, storm(3), cards, receivers=routing, now=NOW).orders) == 1
