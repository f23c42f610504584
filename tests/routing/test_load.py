"""Problems of routes and people: all at once, each with its line and its mend; nothing is ever lost."""

from __future__ import annotations

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.routing.load import load_routing
from metrics_pipeline.routing.model import routes_schema
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT
from tests.routing.builders import CHANNELS, NOON, PEOPLE, make_routing

GOOD = """
route:
  receiver: everyone
  group_by: [alertname]
  routes:
    - matchers: [severity=red]
      receiver: duty
      mute_time_intervals: [lunch]
receivers:
  - {name: everyone, channels: [file]}
  - {name: duty, rotations: [duty]}
time_intervals:
  - name: lunch
    time_intervals: [{times: [{start_time: "12:00", end_time: "13:00"}]}]
"""


def problems(folder, routes=GOOD, people=PEOPLE, *, with_rules=False) -> str:
    found = make_routing(folder, routes, people, with_rules=with_rules).problems
    lines = {name: (folder / name).read_text("utf-8").splitlines() for name in ("_routes.yml", "_people.yml")}
    for problem in found:
        if problem.file.name in lines:
            assert 1 <= problem.line <= len(lines[problem.file.name])
        assert problem.mend
    return "\n".join(
        f"{problem.file.name}:{problem.line} «{lines[problem.file.name][problem.line - 1].strip()}» {problem.message}"
        for problem in found
        if problem.file.name in lines
    )


def test_a_good_file_has_no_problems(tmp_path):
    assert problems(tmp_path) == ""


def test_the_files_of_the_project_have_no_problems_and_rules_do_not_read_them():
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    rules = load_rules(PROJECT_ROOT / "alert_rules", catalogue)
    assert rules.problems == ()
    assert not any(rule.file.name.startswith("_") for rule in rules.rules)
    routing = load_routing(
        PROJECT_ROOT / "alert_rules", channels=CHANNELS, rules=rules.rules, metrics=catalogue.metrics
    )
    assert routing.problems == ()
    assert {rule.owner for rule in rules.rules} <= set(routing.directory.ids)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("receiver: duty", "receiver: dutty", ["«receiver: dutty» receiver 'dutty' is not defined — did you mean 'duty'?"]),
        ("channels: [file]", "channels: [fille]", ["channel 'fille' is not configured — did you mean 'file'?"]),
        ("rotations: [duty]", "rotations: [sales]", ["rotations: 'sales' is not in _people.yml"]),
        ("rotations: [duty]", "people: [lii]", ["people: 'lii' is not in _people.yml — did you mean 'li'?"]),
        ("mute_time_intervals: [lunch]", "mute_time_intervals: [launch]", ["time interval 'launch' is not defined"]),
        ("mute_time_intervals: [lunch]", "group_wait: 1m", ["no route uses time interval 'lunch'"]),
        ("receiver: everyone", "receivr: everyone", ["«receivr: everyone» key 'receivr' is not known — did you mean 'receiver'?"]),
        ("matchers: [severity=red]", "matchers: [severity]", ["expected =, !=, =~ or !~"]),
        ("matchers: [severity=red]", "matchers: ['severity=~\"[\"']", ["is not a regular expression"]),
        ("receiver: duty", "receiver: duty\n      group_wait: 5", ["'5' is not a duration"]),
        ('end_time: "13:00"', 'end_time: "25:00"', ["is not a time of day"]),
        ("{name: duty, rotations: [duty]}", "{name: duty}", ["receiver 'duty' reaches nobody"]),
        ("receiver: duty", "receiver: everyone", ["nobody uses receiver 'duty'"]),
        ("{name: duty, rotations: [duty]}", "{name: duty, people: [li]}\n  - {name: duty, people: [li]}", ["two of the receivers"]),
        ("  group_by: [alertname]\n", "  group_by: [alertname]\n  matchers: [severity=red]\n", ["root route has matchers"]),
        ("  group_by: [alertname]\n", "  mute_time_intervals: [lunch]\n", ["root route cannot be mute"]),
        ("  group_by: [alertname]\n", "  continue: true\n", ["no siblings"]),
        ("  group_by: [alertname]\n", "  group_by: ['...', region]\n", ["'...' stands for all labels"]),
        ("  receiver: everyone\n", "", ["the root route has no receiver"]),
        ("receivers:", "limits: {per_chanel: {count: 1, per: 1m}}\nreceivers:", ["'per_chanel' is not known — did you mean"]),
        ("receivers:", "fallback: nobody\nreceivers:", ["receiver 'nobody' is not defined"]),
        ("receivers:", "drills: [{from: 2026-01-05T10:30, every: 1w, receiver: x}]\nreceivers:", ["receiver 'x' is not defined"]),
        ("receivers:", "drills: [{from: 2026-01-05T10:30, every: 90m}]\nreceivers:", ["whole days"]),
        ("receivers:", "drills: [{from: 2026-01-05T10:30, every: 0}]\nreceivers:", ["drills.0.every"]),
        ("receivers:", "drills: [{from: tomorrow, every: 1w}]\nreceivers:", ["is not a time"]),
        ("receivers:", "drills: [{from: 2026-01-05T10:30Z, every: 1w}]\nreceivers:", ["on the shop's clock"]),
        ("receivers:", "drills: [{from: 2026-01-05T10:30, every: 1w, for: 0s}]\nreceivers:", ["last for a while"]),
        ("receivers:", "escalation: [{after: 1h, receiver: x}]\nreceivers:", ["receiver 'x' is not defined"]),
    ],
)  # fmt: skip
def test_a_mistake_in_the_routes_is_told_with_its_line(tmp_path, old, new, expected):
    assert old in GOOD
    text = problems(tmp_path, GOOD.replace(old, new, 1))
    assert all(part in text for part in expected), text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("members: [li, han]}\nbus", "members: []}\nbus", ["rotation 'duty' has no members"]),
        ("members: [li, han], ch", "members: [lee], ch", ["'lee' is no person of this file"]),
        ("owner: sales,", "owner: salez,", ["trade: owner 'salez' is not in this file — did you mean 'sales'?"]),
        ("- {id: wang", "- {id: li", ["two entries have the id 'li'"]),
        ("channels: [sales_room]", "channels: [sale_room]", ["channel 'sale_room' is not configured"]),
        ("period: 1w", "period: 1h", ["whole days"]),
        ("language: en", "language: fr", ["'zh' or 'en'"]),
        ("members: [li, han]}\nbus", "members: [li], overrides: [{from: 2026-01-02, until: 2026-01-01, person: x}]}\nbus",
         ["the override ends before it begins", "'x' is no person"]),
    ],
)  # fmt: skip
def test_a_mistake_in_the_people_is_told_with_its_line(tmp_path, old, new, expected):
    assert old in PEOPLE
    text = problems(tmp_path, GOOD, PEOPLE.replace(old, new, 1))
    assert all(part in text for part in expected), text


def routes(*children: str) -> str:
    lines = "\n".join(f"    - {child}" for child in children)
    return f"route:\n  receiver: r\n  routes:\n{lines}\nreceivers: [{{name: r, channels: [file]}}]\n"


@pytest.mark.parametrize(
    "children",
    [
        ["{matchers: [severity=red]}", "{matchers: [severity=red, owner=sales]}"],
        ["{receiver: r}", "{matchers: [owner=sales]}"],
        ["{matchers: ['owner=~\"sales|growth\"']}", "{matchers: [owner=sales]}"],
        ["{matchers: ['region=~\".*\"']}", "{matchers: [region=华北]}"],
        ["{matchers: [severity=red]}", "{matchers: [severity=yellow]}", "{matchers: [owner=sales]}"],
        ["{matchers: [severity!=yellow]}", "{matchers: [severity=red]}"],
        ["{matchers: ['region!=\"\"']}", "{matchers: ['region=~\"华.+\"']}"],
        ["{matchers: ['alertname=~\"gmv.*\"']}", "{matchers: [metric=refund_rate, alertname=gmv_anomaly]}"],
        ["{matchers: [severity=red, severity=yellow]}"],
    ],
)
def test_a_route_that_no_alert_reaches_is_found(tmp_path, children):
    text = problems(tmp_path, routes(*children), with_rules=True)
    assert text.count("no alert") == 1, text
    assert children[-1].removeprefix("{")[:20] in text


@pytest.mark.parametrize(
    "children",
    [
        ["{matchers: [severity=red], continue: true}", "{matchers: [severity=red, owner=sales]}"],
        ["{matchers: [severity=red, owner=sales]}", "{matchers: [severity=red]}"],
        ["{matchers: [owner=growth]}", "{matchers: ['owner=~\"sales|growth\"']}"],
        ["{matchers: ['region=~\".+\"']}", "{matchers: [owner=sales]}"],
        ["{matchers: [region=华北]}", "{matchers: [region=华东]}"],
        ["{matchers: [severity=red, owner=sales]}", "{matchers: [severity=yellow]}", "{matchers: [owner=sales]}",
         "{matchers: [owner=growth]}"],
    ],
)  # fmt: skip
def test_a_route_that_some_alert_may_reach_is_left_alone(tmp_path, children):
    text = problems(tmp_path, routes(*children), with_rules=True)
    if children[-1] == "{matchers: [owner=growth]}":
        assert "[owner=sales]}» no alert reaches" in text, "red and yellow are all there is"
    else:
        assert "no alert" not in text


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ("{matchers: [regoin=华北]}", "no rule has the label 'regoin' — did you mean 'region'?"),
        ("{matchers: [severity=critical]}", 'severity="critical" matches no rule'),
        ("{matchers: ['metric=~\"profit\"']}", 'metric=~"profit" matches no rule'),
        ("{matchers: [scenario=stok]}", "did you mean 'stock'?"),
        ("{group_by: [cluster]}", "no rule has the label 'cluster'"),
    ],
)
def test_a_label_or_value_that_no_rule_has_is_found(tmp_path, child, expected):
    text = problems(tmp_path, routes(child), with_rules=True)
    assert expected in text.replace(" — did you mean 'gmv'?", ""), text


@pytest.mark.parametrize(
    ("drill", "expected"),
    [
        ("rule: gmv_anomali", "there is no rule 'gmv_anomali' — did you mean 'gmv_anomaly'?"),
        ("rule: gmv_anomaly, slice: {region: 华北}", "rule gmv_anomaly has no slices"),
        ("rule: refund_rate_surge_by_region", "rule refund_rate_surge_by_region has slices by region"),
        ("slice: {region: 华北}", "a drill of no rule has no slices"),
    ],
)
def test_a_drill_of_what_there_is_not_is_found(tmp_path, drill, expected):
    text = problems(tmp_path, GOOD + f"drills: [{{from: 2026-01-05T10:30, every: 1w, {drill}}}]\n", with_rules=True)
    assert expected in text
    right = "rule: refund_rate_surge_by_region, slice: {region: 华北}"
    assert (
        problems(tmp_path, GOOD + f"drills: [{{from: 2026-01-05T10:30, every: 1w, {right}}}]\n", with_rules=True) == ""
    )


def test_inhibition_on_a_label_that_no_rule_has_is_found(tmp_path):
    text = problems(
        tmp_path, GOOD + "inhibit_rules:\n  - {source_matchers: [severity=red], target_matchers: [cluster=a], equal: [node]}\n",
        with_rules=True,
    )  # fmt: skip
    assert "no rule has the label 'cluster'" in text
    assert "no rule has the label 'node', so this rule never mutes anything" in text


def test_an_owner_whom_nobody_knows_is_told_at_the_rule(tmp_path):
    found = make_routing(tmp_path, GOOD, with_rules=True).problems
    [one, *_] = [problem for problem in found if problem.rule == "gmv_anomaly"] or [None]
    assert one is None, "sales is a team"
    texts = [str(problem) for problem in found]
    assert any("owner 'growth' is in no entry of _people.yml" in text and "traffic.yml:" in text for text in texts)


@pytest.mark.parametrize("routes_text", ["route: [", "- 1", "", "receivers: []", "route: {receiver: r}\nfoo: 1"])
def test_a_file_that_cannot_be_used_loses_no_alert(tmp_path, routes_text):
    routing = make_routing(tmp_path, routes_text)
    assert routing.problems
    [found] = routing.decide({"alertname": "x", "severity": "red"}, NOON)
    assert [one.key for one in found.recipients] == ["file", "smtp:everybody@shop.example"]


def test_no_files_are_no_problem(tmp_path):
    routing = load_routing(tmp_path, channels=CHANNELS)
    assert routing.problems == ()
    [found] = routing.decide({"alertname": "x"}, NOON)
    assert [one.key for one in found.recipients] == ["file", "smtp:everybody@shop.example"]


def test_all_problems_come_at_once_in_the_order_of_the_file(tmp_path):
    text = (
        GOOD.replace("receiver: duty", "receiver: a")
        .replace("rotations: [duty]", "people: [b]")
        .replace("[file]", "[c]")
    )
    lines = [problem.line for problem in make_routing(tmp_path, text).problems]
    assert len(lines) >= 4
    assert lines == sorted(lines)


def test_the_schema_documents_every_key():
    schema = routes_schema()
    assert {"route", "receivers", "inhibit_rules", "time_intervals", "limits", "fallback"} <= schema[
        "properties"
    ].keys()
    assert "continue" in schema["$defs"]["Route"]["properties"]
