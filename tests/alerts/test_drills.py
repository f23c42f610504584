"""Drills go the way of real alerts, and nothing real knows of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa

from metrics_pipeline.alerts.apply import retire_rules
from metrics_pipeline.alerts.drills import (
    NAMELESS,
    DrillError,
    end_drills,
    is_drill_over,
    is_drill_scheduled,
    start_drill,
    start_scheduled,
    waiting_ends,
)
from metrics_pipeline.alerts.listing import current_alerts
from metrics_pipeline.alerts.work_orders import WorkOrderError, count_feedback, give_feedback
from metrics_pipeline.store.tables import alert_instances, incidents, transitions, work_orders
from tests.alerts.builders import make_card
from tests.alerts.desk import START, Desk

RULE = "refund_rate_surge"
DRILL = f"drill:{RULE}"
ROUTES = """
route:
  receiver: room
  group_by: [alertname]
  group_wait: 0s
  group_interval: 0s
  repeat_interval: 4h
  routes:
    - matchers: ['alertname="refund_rate_surge"', 'region="华北"']
      receiver: refunds
receivers:
  - {name: room, channels: [file]}
  - {name: refunds, channels: [ops]}
  - {name: boss, channels: [sales_room]}
escalation:
  - {after: 60m, receiver: boss}
inhibit_rules:
  - source_matchers: ['alertname="refund_rate_surge"', 'severity="red"']
    target_matchers: ['severity="yellow"']
"""


@pytest.fixture
def desk(store, tmp_path) -> Desk:
    return Desk(store, tmp_path, ROUTES)


def drill(desk: Desk, member: str = "华北", **changes):
    card = desk.cards[RULE]
    return start_drill(desk.store, card, desk.routing, now=desk.now, dimension="region", member=member, **changes)


def end(desk: Desk) -> list[str]:
    return end_drills(desk.store, desk.routing, now=desk.now)


def test_a_drill_goes_where_the_routes_of_its_rule_lead(desk):
    drill(desk)
    drill(desk, "华东")
    assert desk.said("ops") == ["first new"]
    assert [(one.rule.id, one.rule.is_drill, one.tier) for one in desk.notices("ops")] == [(DRILL, True, "red")]
    assert desk.said("file") == ["first new"]


def test_it_ends_when_it_is_acknowledged_and_the_end_says_who_did_and_how_soon(desk):
    drill(desk)
    assert not is_over(desk)
    desk.at(minutes=7).ack(DRILL)
    assert is_over(desk)
    desk.at(minutes=8)
    assert end(desk) == [f"{DRILL}{{region=华北}}"]
    assert end(desk) == []
    assert desk.said("ops") == ["first new", "all_resolved resolved"]
    texts = desk.notices("ops")[-1].rule.annotations
    assert texts["summary"] == "The drill is over: li acknowledged it at 10:07, 7 min after it began."
    assert texts["summary_zh"] == "演练结束：li 于 10:07 确认，用时 7 分钟。"


def test_nobody_acknowledges_it_so_it_escalates_and_ends_by_itself(desk):
    drill(desk, lasts=timedelta(minutes=90))
    desk.wait(minutes=85)
    assert desk.times("sales_room") == [(60, "unacknowledged")]
    assert end(desk) == []
    desk.at(minutes=90)
    assert len(end(desk)) == 1
    assert [desk.said(one)[-1] for one in ("ops", "sales_room")] == ["all_resolved resolved"] * 2
    assert "nobody acknowledged it" in desk.notices("ops")[-1].rule.annotations["summary"]


def test_an_acknowledged_drill_does_not_escalate(desk):
    drill(desk)
    desk.at(minutes=10).ack(DRILL)
    desk.wait(minutes=100)
    assert desk.said("sales_room") == []


def test_it_is_told_by_itself_and_the_real_alert_knows_nothing_of_it(desk):
    drill(desk)
    desk.at(minutes=5).tick("red", members=("华北",))
    assert desk.said("ops") == ["first new", "first new"]
    desk.at(minutes=6).ack(DRILL)
    end(desk)
    assert [one.instance for one in current_alerts(desk.store)] == [f"{RULE}{{region=华北}}"]
    assert [(one.rule.id, one.reason) for one in desk.notices("ops")] == [
        (DRILL, "first"),
        (RULE, "first"),
        (DRILL, "all_resolved"),
    ]
    with desk.store.reading() as connection:
        real = connection.execute(sa.select(alert_instances.c.tier).where(alert_instances.c.rule == RULE)).scalars()
        assert list(real) == ["red"]


def test_it_mutes_nothing_and_joins_no_incident(desk):
    desk.route(ROUTES + "incidents: true\n")
    drill(desk)
    desk.tick("yellow", members=("华东",))
    assert desk.said("file") == ["first new"]
    with desk.store.reading() as connection:
        assert connection.execute(sa.select(incidents)).all() == []


def test_it_opens_no_order_leaves_no_transition_and_takes_no_feedback(desk):
    started = drill(desk)
    with desk.store.reading() as connection:
        assert connection.execute(sa.select(work_orders)).all() == []
        assert connection.execute(sa.select(transitions)).all() == []
    episode = f"{started.instance}@2025-11-12T10:00"
    with pytest.raises(WorkOrderError, match="is a drill"):
        give_feedback(desk.store, episode, is_useful=True, reason="", who="li", now=desk.now)
    assert count_feedback(desk.store) == []


def test_it_outlives_the_rule_files(desk):
    drill(desk)
    retire_rules(desk.store, {"gmv_drop"}, now=desk.now, receivers=desk.routing)
    assert desk.said() == ["first new"]


def test_a_silence_holds_it_back_and_it_says_so(desk):
    desk.silence(f'alertname="{RULE}"')
    started = drill(desk)
    assert (started.queued, [(one.receiver, one.reason) for one in started.held]) == ((), [("ops", "silence")])


def test_one_of_a_slice_at_a_time(desk):
    drill(desk)
    with pytest.raises(DrillError, match="goes on"):
        drill(desk)
    desk.at(minutes=1).ack(DRILL)
    end(desk)
    assert drill(desk).queued
    with pytest.raises(DrillError, match="last"):
        drill(desk, "华东", lasts=timedelta())


def test_it_goes_to_one_receiver_when_asked_to(desk):
    card = make_card()
    start_drill(desk.store, card, desk.routing.only("boss"), now=START, dimension="region", member="华北")
    assert [one.receiver for one in desk.notices()] == ["sales_room"]


def test_a_drill_of_no_rule_goes_to_the_root(desk):
    started = start_drill(desk.store, NAMELESS, desk.routing, now=START)
    assert started.instance == "drill:drill{all=all}"
    assert [one.receiver for one in desk.notices()] == ["file"]


def test_two_slices_of_one_rule_end_each_in_its_own_time_and_words(desk):
    drill(desk, lasts=timedelta(minutes=90))
    drill(desk, "华东", lasts=timedelta(minutes=30))
    desk.at(minutes=10).ack(f"{DRILL}{{region=华北}}")
    assert end(desk) == [f"{DRILL}{{region=华北}}"]
    desk.at(minutes=29)
    assert end(desk) == []
    desk.at(minutes=30)
    assert end(desk) == [f"{DRILL}{{region=华东}}"]
    last = [desk.notices(one)[-1].rule.annotations["summary"] for one in ("ops", "file")]
    assert ["li acknowledged it" in last[0], "nobody acknowledged it" in last[1]] == [True, True]


def test_what_is_said_of_a_drill_is_not_said_of_another_that_goes_on(desk):
    drill(desk)
    drill(desk, "华东")
    desk.at(minutes=10).ack(f"{DRILL}{{region=华北}}")
    end(desk)
    desk.wait(minutes=65)
    [reminded] = [one for one in desk.notices("sales_room") if one.reason == "unacknowledged"]
    assert "is over" not in reminded.rule.annotations.get("summary", "")


SCHEDULED = (
    ROUTES
    + """
drills:
  - {from: 2025-11-12T10:30, every: 1w, for: 30m}
  - {from: 2025-11-05T10:30, every: 2w, rule: refund_rate_surge, slice: {region: 华北}, severity: yellow, receiver: boss}
  - {from: 2025-11-12T10:30, every: 7d, rule: no_such_rule}
"""
)


def begin(desk: Desk) -> list[str]:
    with desk.store.reading() as connection:
        is_due = is_drill_scheduled(connection, desk.routing.drills, desk.now, desk.routing.local)
    begun = [one.instance for one in start_scheduled(desk.store, desk.routing, now=desk.now)]
    assert is_due == bool(begun)
    return begun


def test_a_drill_begins_by_itself_at_its_times_and_once(desk):
    desk.route(SCHEDULED)
    desk.tick("ok", members=("华北",))  # the rule is known from its first night on
    seen = {}
    for minutes in (29, 30, 31, 60, 61, 90, 24 * 60, 7 * 24 * 60 + 29, 7 * 24 * 60 + 45, 7 * 24 * 60 + 46):
        desk.at(minutes=minutes)
        end(desk)
        if begun := begin(desk):
            seen[minutes] = begun
    assert seen == {30: ["drill:drill{all=all}"], 7 * 24 * 60 + 45: ["drill:drill{all=all}", f"{DRILL}{{region=华北}}"]}
    assert [one.tier for one in desk.notices("sales_room")] == ["yellow"]


def test_a_drill_whose_time_is_long_past_waits_for_the_next_one(desk):
    desk.route(SCHEDULED)
    assert begin(desk.at(minutes=95)) == []
    assert begin(desk.at(days=7, minutes=89)) == ["drill:drill{all=all}"]


def is_over(desk: Desk) -> bool:
    with desk.store.reading() as connection:
        return is_drill_over(connection, desk.now)


@pytest.mark.parametrize(
    ("more", "reason", "minutes"),
    [("", "wait", 20), ("limits: {per_channel: {count: 1, per: 2h}, red: {count: 1, per: 2h}}", "limit", 120)],
)
def test_who_is_told_of_the_end_later_and_when_is_known(desk, more, reason, minutes):
    times = "group_wait: 0s, group_interval: 20m" if reason == "wait" else "group_wait: 0s, group_interval: 0s"
    desk.route(f"route: {{receiver: room, {times}}}\nreceivers: [{{name: room, channels: [file]}}]\n{more}\n")
    drill(desk)
    desk.at(minutes=1)
    ended = end_drills(desk.store, desk.routing, now=desk.now, at_once=True)
    [later] = waiting_ends(desk.store, ended)
    assert (later.instance, later.receiver, later.reason) == (ended[0], "file", reason)
    assert abs(later.until - START - timedelta(minutes=minutes)) < timedelta(seconds=1)
    desk.wait(minutes=minutes)
    assert desk.times("file")[-1][0] == minutes
    assert waiting_ends(desk.store, ended) == []
