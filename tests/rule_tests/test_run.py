from __future__ import annotations

import shutil
from pathlib import Path

import jsonschema
import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rule_tests import find_test_files, run_file
from metrics_pipeline.rule_tests.model import STEP_KEYS, RuleTestFile
from metrics_pipeline.rule_tests.night import STEPS
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT

CATALOGUE = Catalogue.read(PROJECT_ROOT / "dbt_project")
RULES = """
groups:
  - name: small
    defaults:
      why: Because.
      why_zh: 因为。
      owner: sales
      labels: {scenario: sales_drop}
      annotations: {summary: Few., summary_zh: 少。}
    rules:
      - {alert: few_orders, metric: orders_paid, yellow_if: "< 50", red_if: "< 20", no_data: {due: "09:00"}}
      - {alert: few_by_region, metric: orders_paid, by: [region], yellow_if: "< 50", overrides: [{where: {region: 西北}, yellow_if: "< 10"}]}
      - {alert: below_target, metric: orders_paid, expr: vs_target(), yellow_if: "< -0.2"}
      - {alert: stale_orders, metric: orders_paid, expr: freshness(), yellow_if: "> 30"}
      - {alert: few_and_late, metric: orders_paid, all_of: [few_orders], not: below_target}
      - {alert: mute_on_sale, metric: orders_paid, yellow_if: "< 50", promotions: {double_11: mute}}
      - {alert: low_hour, metric: orders_placed, grain: hour, yellow_if: "< 5"}
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "small.yml").write_text(RULES, "utf-8")
    ruleset = load_rules(tmp_path, CATALOGUE)
    assert ruleset.problems == ()
    rules = {rule.id: rule for rule in ruleset.rules}

    def run(text: str, **options):
        path = tmp_path / "small.test.yml"
        path.write_text(text, "utf-8")
        return run_file(path, rules, CATALOGUE.metrics, **options)

    return run


def story(rule: str = "few_orders", values: str = "100 40 100", **keys: str) -> str:
    lines = [f"  - name: {keys.pop('name', 'a story')}", f"    rule: {rule}"]
    series = keys.pop("series", f"[{{metric: orders_paid, values: {values}}}]")
    lines += [f"    series: {series}", *(f"    {key}: {value}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


def only(result):
    assert result.problems == ()
    (outcome,) = result.outcomes
    return outcome


def test_what_is_expected_passes(run):
    outcome = only(
        run(
            "tests:\n"
            + story(tiers="ok yellow ok", states="ok yellow ok", messages="{2: first yellow, 3: all_resolved}")
        )
    )
    assert outcome.passed, outcome.report()
    assert [str(one) for sent in outcome.messages.values() for one in sent] == [
        "few_orders: first yellow", "few_orders: all_resolved yellow",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({}, "night 2: message: expected no other, was few_orders: first yellow"),
        ({"messages": "{2: first yellow}"}, "night 3: message: expected no other, was few_orders: all_resolved yellow"),
        (
            {"messages": "{2: first red, 3: all_resolved}"},
            "night 2: message: expected first red, was few_orders: first",
        ),
        ({"messages": "{1: first, 2: first, 3: all_resolved}"}, "night 1: message: expected first, was none"),
        ({"tiers": "ok red"}, "night 2: tier of the total: expected red, was yellow (reason breach, value 40"),
        ({"states": "ok yellow yellow"}, "night 3: state of the total: expected yellow, was ok"),
    ],
)
def test_anything_else_fails_and_says_what_it_was(run, keys, told):
    outcome = only(run("tests:\n" + story(**keys)))
    assert not outcome.passed
    assert told in outcome.report()
    assert "tiers of the total: ok yellow ok" in outcome.report()
    assert outcome.as_json()["passed"] is False


def test_a_test_in_which_nothing_is_judged_fails(run):
    outcome = only(run("tests:\n" + story(values="_ _ _")))
    assert "at least one that could be judged" in outcome.report()


def test_tests_of_one_file_do_not_see_each_other(run):
    text = "tests:\n" + "".join(
        story(name=f"number {n}", values=f"100 {value} 100", tiers=f"ok {tier} ok", messages=messages)
        for n, (value, tier, messages) in enumerate(
            [
                (40, "yellow", "{2: first, 3: all_resolved}"),
                (10, "red", "{2: first red, 3: all_resolved}"),
                (90, "ok", "{}"),
            ]
        )
    )
    assert run(text).passed


def test_slices_overrides_and_the_slices_of_a_message(run):
    series = (
        "[{metric: orders_paid, slice: {region: 华北}, values: 100 40 40}, "
        "{metric: orders_paid, slice: {region: 西北}, values: 100 40 5}]"
    )
    outcome = only(
        run(
            "tests:\n"
            + story(
                "few_by_region", series=series, tiers="{华北: ok yellowx2, 西北: okx2 yellow}",
                messages="{2: {reason: first, slices: [华北]}, 3: {reason: new_alerts, slices: [西北]}}",
            )
        )
    )  # fmt: skip
    assert outcome.passed, outcome.report()


def test_targets_composites_and_promotions_come_from_the_test(run):
    text = (
        "tests:\n"
        + story(
            "few_and_late", "100 40 40", rules="[few_orders, below_target]",
            references="[{metric: orders_paid, amount: 45}]", tiers="ok yellow yellow",
            messages="{2: ['few_and_late: first', 'few_orders: first yellow']}",
        )
        + story("mute_on_sale", "100 40 40", name="muted", promotions="{2: {event: double_11}}", tiers="ok ok yellow",
                states="ok ok yellow", messages="{3: first}")
    )  # fmt: skip
    result = run(text)
    assert result.passed, "\n".join(one.report() for one in result.outcomes)


def test_a_muted_night_ends_no_alert(run):
    outcome = only(
        run(
            "tests:\n"
            + story("mute_on_sale", "40 90 40", promotions="{2: {}}", states="yellowx3", messages="{1: first}")
        )
    )
    assert outcome.passed, outcome.report()


def test_late_values_depend_on_the_clock(run):
    series = "[{metric: orders_paid, values: 100 stale 100, restated: {3: {2: 40}}}]"
    early = story(series=series, name="early", tiers="ok no_data ok", states="ok ok ok")
    late = story(series=series, name="late", clock='"10:00"', tiers="ok no_data ok", states="ok no_data ok")
    result = run("tests:\n" + early + late)
    assert result.passed, "\n".join(one.report() for one in result.outcomes)


def test_freshness_on_the_virtual_clock(run):
    outcome = only(
        run(
            "tests:\n"
            + story(
                "stale_orders", "100 stale stale 100", tiers="ok ok yellow ok", messages="{3: first, 4: all_resolved}"
            )
        )
    )
    # 02:00 after the first night without values is 26 hours, after the second 50
    assert outcome.passed, outcome.report()


def test_hours_are_nights_of_hourly_rules(run):
    series = "[{metric: orders_placed, values: 9x23 4 9}]"
    outcome = only(
        run(
            "tests:\n"
            + story("low_hour", series=series, tiers="okx24 yellow ok", messages="{25: first, 26: all_resolved}")
        )
    )
    assert outcome.passed, outcome.report()


def test_joined_nights_say_what_every_night_said(tmp_path):
    rules = {rule.id: rule for rule in load_rules(PROJECT_ROOT / "alert_rules", CATALOGUE).rules}
    path = PROJECT_ROOT / "alert_rules" / "delivery.test.yml"
    joined = run_file(path, rules, CATALOGUE.metrics)
    single = run_file(path, rules, CATALOGUE.metrics, every_night=True)
    assert [one.as_json() for one in joined.outcomes] == [one.as_json() for one in single.outcomes]


def test_a_step_is_taken_before_the_night_is_told(run, monkeypatch):
    seen = []
    monkeypatch.setitem(STEPS, "note", lambda night, details: seen.append((night.number, night.now, details)))
    outcome = only(run("tests:\n" + story(values="100 100", steps="{2: [{note: {who: me}}]}")))
    assert outcome.passed
    assert [(number, details) for number, _, details in seen] == [(2, {"who": "me"})]
    assert f"{seen[0][1]:%Y-%m-%d %H:%M}" == "2025-03-05 02:00"


def test_what_somebody_took_on_is_not_said_again_until_that_is_over_but_worse_news_are(run):
    outcome = only(
        run(
            "tests:\n"
            + story(
                values="100 40x2 15 40x2 100", repeat="1d", steps="{3: [{ack: {by: li, for: 4d}}]}",
                tiers="ok yellowx3 red yellowx3 ok",
                messages="{2: first yellow, 5: escalated red, 7: repeat yellow, 8: repeat yellow, 9: all_resolved}",
            )
        )
    )  # fmt: skip
    assert outcome.passed, outcome.report()


def test_one_slice_that_is_taken_on_leaves_the_others_to_be_said_again(run):
    series = ", ".join(
        f"{{metric: orders_paid, slice: {{region: {one}}}, values: 100 40x2}}" for one in ("华北", "华东")
    )
    outcome = only(
        run(
            "tests:\n"
            + story(
                "few_by_region", series=f"[{series}]", repeat="1d", steps="{3: [{ack: {for: 9d, member: 华东}}], 4: [{ack: {for: 9d, member: 华北}}]}",
                messages="{2: first yellow, 3: repeat yellow}",
            )
        )
    )  # fmt: skip
    assert outcome.passed, outcome.report()


def test_what_a_channel_did_not_take_comes_when_it_is_up_again_in_its_order(run):
    outcome = only(
        run(
            "tests:\n"
            + story(
                values="100 40 15 100 100", steps="{2: [{channel_down: {}}], 3: [channel_down: true]}",
                states="ok yellow red ok ok", messages="{4: [first yellow, escalated red, all_resolved]}",
            )
        )
    )  # fmt: skip
    assert outcome.passed, outcome.report()
    assert [one.reason for one in outcome.messages[4]] == ["first", "escalated", "all_resolved"]


def test_the_schema_of_test_files_knows_the_steps():
    schema = RuleTestFile.model_json_schema(by_alias=True)
    steps = schema["$defs"]["RuleTest"]["properties"]["steps"]["additionalProperties"]["items"]
    given = {"tests": [{"name": "x", "rule": "y", "series": [], "steps": {"2": [{"ack": {"for": "1d"}}]}}]}
    assert set(steps["properties"]) == set(STEPS) == set(STEP_KEYS)
    validator = jsonschema.Draft202012Validator(steps)
    assert validator.is_valid(given["tests"][0]["steps"]["2"][0])
    assert not validator.is_valid({"ack": {}})
    assert not validator.is_valid({"akc": {"for": "1d"}})


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tests: [", ["not valid YAML"]),
        ("groups: []", ["no `tests:`"]),
        ("tests: [x]", ["must be a mapping"]),
        ("tests: []\nrules: []", ["key 'rules' is not known"]),
        (f"tests:\n{story('few_ordrs')}", [":3: a story: there is no rule 'few_ordrs'", "did you mean 'few_orders'"]),
        (f"tests:\n{story(values='10o')}", [":4: a story: series.0.values", "'10o' is no value"]),
        (f"tests:\n{story(tiers='ok orange')}", [":5: a story: tiers", "'orange' is not known"]),
        (f"tests:\n{story(tiers='okx9')}", ["9 nights, but the series have 3"]),
        (f"tests:\n{story(messages='{9: first}')}", ["there is no night 9"]),
        (f"tests:\n{story(messages='{2: firts}')}", ["messages"]),
        (f"tests:\n{story(messages='{2: a b c}')}", ["first red"]),
        (f"tests:\n{story(tires='ok')}", ["tires", "did you mean 'tiers'"]),
        (f"tests:\n{story(steps='{2: [{akc: {for: 1d}}]}')}", ["step 'akc' is not known", "did you mean 'ack'"]),
        (f"tests:\n{story(steps='{2: [{ack: me}]}')}", ["night 2: ack: "]),
        (f"tests:\n{story(steps='{2: [{ack: {}}]}')}", ["night 2: ack.for: Field required"]),
        (f"tests:\n{story(steps='{2: [{ack: {for: 2 days}}]}')}", ["ack.for: '2 days' is not a duration"]),
        (f"tests:\n{story(steps='{2: [{ack: {for: 1d}}]}')}", ["ack changes nothing here", "add repeat: 1d"]),
        (f"tests:\n{story(repeat='1d', steps='{2: [{ack: {for: 1d, rule: x}}]}')}", ["'x' is no rule of this test"]),
        (f"tests:\n{story(repeat='1d', steps='{2: [{ack: {for: 1d, member: x}}]}')}", ["there is no series of 'x'"]),
        (f"tests:\n{story(steps='{2: [{channel_down: {since: x}}]}')}", ["night 2: channel_down.since"]),
        (f"tests:\n{story(repeat='daily')}", ["repeat: 'daily' is not a duration"]),
        (f"tests:\n{story('few_and_late')}", ["looks at few_orders, which is not in this test"]),
        (f"tests:\n{story('few_by_region')}", ["needs orders_paid by region"]),
        (f"tests:\n{story()}{story()}", ["two tests have this name"]),
        (
            f"tests:\n{story(series='[{metric: orders_paid, values: 1 2, restated: {1: {2: 5}}}]')}",
            ["cannot be restated"],
        ),
        (
            f"tests:\n{story(series='[{metric: orders_paid, values: 1}, {metric: orders_paid, values: 2}]')}",
            ["same slice"],
        ),
        (f"tests:\n{story('few_orders', rules='[low_hour]')}", ["share no night"]),
        (f"tests:\n{story(messages='{2: [other_rule: first]}')}", ["messages"]),
    ],
)
def test_a_test_that_cannot_run_is_a_problem_with_its_line(run, text, parts):
    result = run(text)
    assert not result.passed
    told = "\n".join(map(str, result.problems))
    assert all(part in told for part in parts), told
    assert "small.test.yml:" in told


def test_test_files_lie_beside_the_rules(tmp_path):
    shutil.copy(PROJECT_ROOT / "alert_rules" / "stock.test.yml", tmp_path / "b.test.yml")
    (tmp_path / "a.yml").write_text("groups: []", "utf-8")
    assert find_test_files(tmp_path) == [tmp_path / "b.test.yml"]
    assert len(find_test_files(Path(PROJECT_ROOT / "alert_rules"))) == 9
