"""What users of Alertmanager expect of a tree of routes, on examples of its manual put in this shop's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metrics_pipeline.routing.decide import Inhibitor, Source
from metrics_pipeline.routing.durations import format_duration, parse_duration
from metrics_pipeline.routing.tree import group_key, group_labels, match, trace
from tests.routing.builders import make_routing

TREE = """
route:
  receiver: everyone
  group_wait: 45s
  group_by: [alertname]
  routes:
    - match: {owner: sales}
      receiver: sales
      routes:
        - match: {stage: testing}
          receiver: sandbox
          group_by: ['...']
        - match: {stage: live}
          receiver: sales-room
          group_wait: 1m
          continue: true
        - match_re: {stage: "li.*", metric: ".*"}
          receiver: sales-phone
          group_wait: 30s
          group_interval: 5m
          repeat_interval: 1h
          group_by: [metric]
    - matchers: ['owner=~"growth|marketing"', 'severity!="yellow"']
      group_by: [owner, region]
      group_wait: 2m
      receiver: growth
    - matchers: [ team = "role" ]
      group_by: [role]
      routes:
        - matchers: ['{stage="testing"}']
          receiver: sandbox
          routes:
            - matchers: ['wait = long']
              group_wait: 2m
receivers:
  - {name: everyone, channels: [file]}
  - {name: sales, channels: [file]}
  - {name: sandbox, channels: [file]}
  - {name: sales-room, channels: [file]}
  - {name: sales-phone, channels: [file]}
  - {name: growth, channels: [file]}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    routing = make_routing(tmp_path_factory.mktemp("tree"), TREE)
    assert routing.problems == ()
    return routing.root


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"owner": "sales"}, [("sales", 45, ["alertname"])]),
        ({"owner": "sales", "stage": "unknown"}, [("sales", 45, ["alertname"])]),
        ({"owner": "sales", "stage": "testing"}, [("sandbox", 45, ["..."])]),
        ({"owner": "sales", "stage": "live"}, [("sales-room", 60, ["alertname"]), ("sales-phone", 30, ["metric"])]),
        ({"owner": "growth", "severity": "red"}, [("growth", 120, ["owner", "region"])]),
        ({"owner": "growth", "severity": "yellow"}, [("everyone", 45, ["alertname"])]),
        ({"team": "role"}, [("everyone", 45, ["role"])]),
        ({"team": "role", "stage": "testing"}, [("sandbox", 45, ["role"])]),
        ({"team": "role", "stage": "testing", "wait": "long"}, [("sandbox", 120, ["role"])]),
        ({}, [("everyone", 45, ["alertname"])]),
    ],
)
def test_the_deepest_match_takes_the_alert_and_continue_goes_on(root, labels, expected):
    found = match(root, labels)
    assert [(one.receiver, one.timing.group_wait.total_seconds(), list(one.group_by)) for one in found] == expected


def test_times_that_are_left_out_are_inherited_and_the_rest_are_alertmanagers(root):
    [node] = match(root, {"owner": "sales"})
    assert (node.timing.group_interval, node.timing.repeat_interval) == (timedelta(minutes=5), timedelta(hours=4))
    phone = match(root, {"owner": "sales", "stage": "live"})[1]
    assert phone.timing.repeat_interval == timedelta(hours=1)


def test_group_by_all_is_inherited_until_somebody_says_otherwise(tmp_path):
    routing = make_routing(
        tmp_path,
        """
        route:
          receiver: r
          routes:
            - matchers: [owner=sales]
              group_by: ['...']
              routes:
                - matchers: [severity=red]
                - matchers: [severity=yellow]
                  group_by: [metric]
        receivers: [{name: r, channels: [file]}]
        """,
    )
    parent = routing.root.children[0]
    assert [one.group_by for one in (parent, *parent.children)] == [("...",), ("...",), ("metric",)]


def test_routes_are_named_by_their_matchers(root):
    [node] = match(root, {"owner": "sales", "stage": "testing"})
    assert node.id == '{}/{owner="sales"}/{stage="testing"}'
    assert len({one.id for one in root.walk()}) == len(list(root.walk()))


def test_one_group_for_each_value_of_the_labels_that_are_there(root):
    [node] = match(root, {"owner": "growth", "severity": "red", "region": "华东"})
    assert group_labels(node, {"owner": "growth", "region": "华东", "metric": "gmv"}) == {
        "owner": "growth",
        "region": "华东",
    }
    assert group_labels(node, {"owner": "growth"}) == {"owner": "growth"}
    assert group_key(node, {"owner": "growth", "region": "a"}) != group_key(node, {"owner": "growth", "region": "b"})


def test_severity_is_no_part_of_a_group_of_all_labels(root):
    [node] = match(root, {"owner": "sales", "stage": "testing"})
    yellow, red = ({"owner": "sales", "severity": tier} for tier in ("yellow", "red"))
    assert group_key(node, yellow) == group_key(node, red)


def test_the_trace_says_which_matcher_failed(root):
    steps = trace(root, {"owner": "growth", "severity": "yellow"})
    failed = {step.receiver: step.failed for step in steps if not step.matched}
    assert failed["sales"] == 'owner="sales"'
    assert failed["growth"] == 'severity!="yellow"'
    assert [step.receiver for step in steps if step.chosen] == ["everyone"]


MANUAL = """
route:
  receiver: default-receiver
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 4h
  group_by: [cluster, alertname]
  routes:
  - receiver: database-pager
    group_wait: 10s
    matchers:
    - service=~"mysql|cassandra"
  - receiver: frontend-pager
    group_by: [product, environment]
    matchers:
    - team="frontend"
  - receiver: dev-pager
    matchers:
      - service="inhouse-service"
    mute_time_intervals:
      - offhours
      - holidays
    continue: true
  - receiver: on-call-pager
    matchers:
      - service="inhouse-service"
    active_time_intervals:
      - offhours
      - holidays
inhibit_rules:
- source_matchers: [ alertname="DatacenterDown" ]
  target_matchers: [ alertname!="DatacenterDown" ]
  equal: [ cluster ]
time_intervals:
- name: offhours
  time_intervals:
  - times: [{start_time: '17:00', end_time: '24:00'}]
    weekdays: ['monday:friday']
  - times: [{start_time: '00:00', end_time: '09:00'}]
    weekdays: ['monday:friday']
  - weekdays: ['saturday', 'sunday']
- name: holidays
  time_intervals:
  - {days_of_month: ['25:26'], months: ['december']}
receivers:
- {name: default-receiver, channels: [file]}
- {name: database-pager, channels: [ops]}
- {name: frontend-pager, channels: [sales_room]}
- {name: dev-pager, channels: [smtp]}
- {name: on-call-pager, people: [li], channels: [sms]}
"""
"""The example of a tree in Alertmanager's manual (Configuration, route), checked against its text of 2025; the receivers, the
intervals that it names and the inhibition are this shop's."""


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    routing = make_routing(tmp_path_factory.mktemp("manual"), MANUAL)
    assert routing.problems == ()
    return routing


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"alertname": "x"}, [("default-receiver", 30, ["cluster", "alertname"])]),
        ({"service": "cassandra"}, [("database-pager", 10, ["cluster", "alertname"])]),
        ({"service": "mysql", "team": "frontend"}, [("database-pager", 10, ["cluster", "alertname"])]),
        ({"service": "mysql-proxy"}, [("default-receiver", 30, ["cluster", "alertname"])]),
        ({"team": "frontend"}, [("frontend-pager", 30, ["product", "environment"])]),
        ({"service": "inhouse-service"}, [("dev-pager", 30, ["cluster", "alertname"]), ("on-call-pager", 30, ["cluster", "alertname"])]),
    ],
)  # fmt: skip
def test_the_example_of_alertmanagers_manual_leads_where_its_users_expect(manual, labels, expected):
    found = match(manual.root, labels)
    assert [(one.receiver, one.timing.group_wait.total_seconds(), list(one.group_by)) for one in found] == expected
    assert {(one.timing.group_interval, one.timing.repeat_interval) for one in found} == {
        (timedelta(minutes=5), timedelta(hours=4))
    }


@pytest.mark.parametrize(
    ("at", "sends"),
    [
        ("2026-11-11T09:00", ["dev-pager"]),
        ("2026-11-11T16:59", ["dev-pager"]),
        ("2026-11-11T17:00", ["on-call-pager"]),
        ("2026-11-12T08:59", ["on-call-pager"]),
        ("2026-11-14T12:00", ["on-call-pager"]),
        ("2026-12-25T12:00", ["on-call-pager"]),
    ],
)
def test_its_days_go_to_one_pager_and_its_nights_and_holidays_to_the_other(manual, at, sends):
    found = manual.decide({"service": "inhouse-service"}, datetime.fromisoformat(at).replace(tzinfo=UTC))
    assert [one.receiver for one in found if one.mute is None] == sends


def test_an_inhibition_mutes_the_other_alerts_of_the_cluster_only(manual):
    down = {"alertname": "DatacenterDown", "cluster": "a", "severity": "red"}
    inhibitor = Inhibitor(manual.inhibit_rules, [Source("down", down)])
    assert inhibitor.by_whom("x", {"alertname": "Latency", "cluster": "a"}) == "down"
    assert inhibitor.by_whom("x", {"alertname": "Latency", "cluster": "b"}) is None
    assert inhibitor.by_whom("x", {"alertname": "DatacenterDown", "cluster": "a"}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("1d", 86400), ("1w2d", 777600), ("500ms", 0.5), ("0", 0), ("0s", 0)],
)
def test_durations_are_written_as_in_alertmanager(text, seconds):
    assert parse_duration(text).total_seconds() == seconds
    assert parse_duration(format_duration(parse_duration(text))) == parse_duration(text)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m5", "1m1h", "-5m", "5M", "99999999999y", "999999999y"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"write"):
        parse_duration(text)
