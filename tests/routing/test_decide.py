"""Whom an alert goes to: recipients, mutes, owners, inhibition."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metrics_pipeline.routing.decide import Inhibitor, Recipient, Source, direct
from metrics_pipeline.routing.model import InhibitRule
from tests.routing.builders import NOON, make_routing

ROUTES = """
route:
  receiver: owner
  group_by: [alertname]
  routes:
    - matchers: [severity=red]
      receiver: duty
      active_time_intervals: [not-sunday]
      escalation: [{after: 30m, receiver: boss}, {after: 10m, receiver: owner}]
      continue: true
    - matchers: [scenario=orders]
      receiver: room
      mute_time_intervals: [lunch, siesta]
receivers:
  - {name: owner, owner: true, channels: [file, smtp]}
  - {name: duty, rotations: [duty], channels: [sms, ops], quiet_hours: true}
  - {name: room, teams: [sales]}
  - {name: boss, people: [wang], send_resolved: false}
time_intervals:
  - name: lunch
    time_intervals: [{times: [{start_time: "12:00", end_time: "13:00"}], location: Asia/Shanghai}]
  - name: siesta
    time_intervals: [{times: [{start_time: "13:00", end_time: "14:00"}], location: Local}]
  - name: not-sunday
    time_intervals: [{weekdays: ['monday:saturday'], location: Asia/Shanghai}]
quiet_hours: {times: [{start_time: "22:00", end_time: "08:00"}]}
fallback: duty
"""


@pytest.fixture
def routing(tmp_path):
    found = make_routing(tmp_path, ROUTES)
    assert found.problems == ()
    return found


def keys(destination) -> list[str]:
    return [one.key for one in destination.recipients]


def test_the_owner_of_the_rule_then_of_the_metric_then_of_the_line(routing):
    for labels in (
        {"owner": "sales", "metric_owner": "after-sales"},
        {"owner": "nobody", "metric_owner": "sales"},
        {"owner": "nobody", "business_line": "trade"},
    ):
        [found] = routing.decide(labels, NOON)
        assert keys(found) == ["file", "smtp:li@shop.example", "smtp:han@shop.example", "sales_room"]
    [found] = routing.decide({"owner": "after-sales"}, NOON)
    assert keys(found) == ["file", "smtp:everybody@shop.example"], "no mail address: the channel's own"


def test_a_room_calls_people_by_its_own_ids_and_a_phone_rings(routing):
    labels = {"severity": "red", "owner": "sales"}
    duty, _ = (*routing.decide(labels, NOON), None)
    assert duty.recipients == (Recipient("ops", "", ("han",), language="en"),), "Han has no phone"
    duty, _ = (*routing.decide(labels, NOON - timedelta(days=7)), None)
    assert duty.recipients == (
        Recipient("sms", "13800000001", ("li",), language="zh"),
        Recipient("ops", "", ("li",), ("dt-li",), "zh"),
    )


def test_a_team_is_reached_in_its_own_room(routing):
    [found] = routing.decide({"scenario": "orders"}, NOON + timedelta(hours=5))
    assert found.recipients == (Recipient("sales_room", "", ("li", "han"), ("13800000001", "ou_han")),)


def test_people_without_a_channel_are_reached_where_they_can_be(routing):
    assert [one.key for one in routing.recipients_of("boss", {}, NOON)] == [
        "smtp:everybody@shop.example",
        "sms:13800000003",
    ]


def test_who_reaches_nobody_is_replaced_by_the_fallback(tmp_path):
    routing = make_routing(
        tmp_path,
        """
        route: {receiver: ghost}
        receivers: [{name: ghost, channels: [sms]}, {name: net, channels: [file]}]
        fallback: net
        """,
    )
    [found] = routing.decide({}, NOON)
    assert (keys(found), found.fell_back) == (["file"], True)


def test_mutes_follow_one_another_and_say_why(routing):
    [found] = routing.decide({"scenario": "orders"}, NOON + timedelta(minutes=5))
    assert found.mute is not None
    assert (found.muted_until, found.mute.reason) == (NOON + timedelta(hours=2), "the route is mute in lunch")
    assert "lunch" in found.mute.reason_zh
    [found] = routing.decide({"scenario": "orders"}, NOON + timedelta(hours=2))
    assert found.mute is None


def test_yellow_waits_for_the_morning_and_red_does_not(routing):
    night = NOON + timedelta(hours=11)
    [found] = routing.decide({"severity": "yellow"}, night)
    assert found.mute is not None
    assert (found.muted_until, found.mute.reason) == (datetime(2026, 11, 12, 0, 0, tzinfo=UTC), "quiet hours")
    assert [one.mute for one in routing.decide({"severity": "red"}, night)] == [None]


def test_an_active_route_waits_for_its_time(routing):
    sunday = datetime(2026, 11, 15, 4, tzinfo=UTC)
    [found, *_] = routing.decide({"severity": "red"}, sunday)
    assert found.muted_until == datetime(2026, 11, 15, 16, tzinfo=UTC), "Monday, midnight in Shanghai"


def test_steps_of_escalation_come_in_order_and_may_be_a_routes_own(routing):
    [red, *_] = routing.decide({"severity": "red"}, NOON)
    assert [(step.after, step.receiver) for step in red.escalation] == [
        (timedelta(minutes=10), "owner"),
        (timedelta(minutes=30), "boss"),
    ]


def test_what_a_decision_depends_on(routing, tmp_path):
    assert routing.routing_labels == {
        "alertname",
        "severity",
        "drill",
        "scenario",
        "owner",
        "metric_owner",
        "business_line",
    }
    alone = make_routing(
        tmp_path / "alone", "route: {receiver: r, group_by: ['...']}\nreceivers: [{name: r, channels: [file]}]"
    )
    assert alone.routing_labels is None


def test_direct_tells_everybody_at_once():
    [found] = direct(["file", "smtp:a@b", "smtp:c@d"]).decide({"alertname": "x"}, NOON)
    assert keys(found) == ["file", "smtp:a@b", "smtp:c@d"]
    assert found.group_key == '{}:{alertname="x"}'
    assert not found.timing.group_wait


def rule(**keys) -> InhibitRule:
    return InhibitRule.model_validate(keys)


RED, YELLOW = {"severity": "red"}, {"severity": "yellow"}
PAIR = rule(source_matchers=['alertname="gmv"'], target_matchers=['alertname="orders"'], equal=["region"])


@pytest.mark.parametrize(
    ("source", "target", "muted"),
    [
        ({**RED, "alertname": "gmv", "region": "华北"}, {**YELLOW, "alertname": "orders", "region": "华北"}, True),
        ({**RED, "alertname": "gmv", "region": "华北"}, {**RED, "alertname": "orders", "region": "华北"}, True),
        ({**RED, "alertname": "gmv", "region": "华北"}, {**YELLOW, "alertname": "orders", "region": "华东"}, False),
        ({**YELLOW, "alertname": "gmv", "region": "华北"}, {**RED, "alertname": "orders", "region": "华北"}, False),
        ({**RED, "alertname": "gmv"}, {**YELLOW, "alertname": "orders"}, False),
        ({**RED, "alertname": "gmv"}, {**YELLOW, "alertname": "orders", "region": "华北"}, False),
        ({**RED, "alertname": "other", "region": "华北"}, {**YELLOW, "alertname": "orders", "region": "华北"}, False),
    ],
)
def test_a_source_mutes_its_targets_but_yellow_never_red_and_absent_is_not_equal(source, target, muted):
    assert (Inhibitor([PAIR], [Source("s", source)]).by_whom("t", target) is not None) == muted


def test_an_alert_mutes_neither_itself_nor_its_like():
    both = rule(source_matchers=["metric=gmv"], target_matchers=["metric=gmv"], equal=["metric"])
    gmv = {**RED, "metric": "gmv"}
    inhibitor = Inhibitor([both], [Source("a", gmv), Source("b", gmv)])
    assert inhibitor.by_whom("a", gmv) is None


def test_the_old_spelling_of_inhibition_is_read():
    old = rule(source_match={"severity": "red"}, target_match_re={"severity": "yel.*"}, equal=["metric"])
    inhibitor = Inhibitor([old], [Source("a", {**RED, "metric": "gmv"})])
    assert inhibitor.by_whom("b", {**YELLOW, "metric": "gmv"}) == "a"
