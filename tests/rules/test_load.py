from __future__ import annotations

import json
import shutil
import sys
from datetime import date
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).parent))
from shop import make_catalogue, make_rule

from metrics_pipeline.alerts.cards import policy_of
from metrics_pipeline.alerts.state import Policy
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import RuleSet, load_rules
from metrics_pipeline.rules.model import rule_schema, yaml_keys
from metrics_pipeline.rules.seeds import Seeds, read_seeds
from metrics_pipeline.settings import PROJECT_ROOT

RULE = {
    "alert": "orders_low",
    "why": "Orders pay the bills.",
    "why_zh": "订单是收入来源。",
    "metric": "orders_paid",
    "yellow_if": "< 50",
    "red_if": "< 20",
    "owner": "sales",
    "labels": {"scenario": "sales_drop"},
    "annotations": {"summary": "Few orders.", "summary_zh": "订单过少。"},
}


SEEDS = Seeds(
    (), (Reference("target", "orders_paid", "all", "all", date(2025, 1, 1), date.max, 9.0),), {"618", "double_11"}
)


def load(tmp_path: Path, *rules: dict, defaults: dict | None = None) -> RuleSet:
    lines = ["groups:", "  - name: orders_daily"]
    if defaults:
        lines.append(f"    defaults: {json.dumps(defaults)}")
    lines.append("    rules:")
    for rule in rules:
        for number, (key, value) in enumerate(rule.items()):
            lines.append(f"      {'-' if number == 0 else ' '} {key}: {json.dumps(value, ensure_ascii=False)}")
    (tmp_path / "orders.yml").write_text("\n".join(lines), "utf-8")
    return load_rules(tmp_path, make_catalogue(), SEEDS)


def changed(**keys: object) -> dict:
    return {key: value for key, value in {**RULE, **keys}.items() if value is not None}


def test_a_rule_knows_its_file_line_and_dimension(tmp_path):
    loaded = load(tmp_path, RULE, changed(alert="by_two", by=["region", "channel"]))
    assert loaded.problems == ()
    first, second = loaded.rules
    assert (first.id, first.dimension, first.group, first.line) == ("orders_low", "all", "orders_daily", 4)
    assert (second.dimension, second.line, second.file) == ("region|channel", 4 + len(RULE), tmp_path / "orders.yml")
    assert loaded["by_two"] is second
    with pytest.raises(KeyError, match="did you mean 'by_two'"):
        loaded["by_tow"]


@pytest.mark.parametrize(
    ("keys", "line_of", "parts"),
    [
        ({"yelow_if": "< 3"}, "yelow_if", ["'yelow_if' is not known", "did you mean 'yellow_if'"]),
        ({"metric": "order_paid"}, "metric", ["not in the metric library", "did you mean 'orders_paid'"]),
        ({"by": ["regoin"]}, "by", ["no values by regoin", "did you mean 'region'"]),
        ({"by": ["channel", "region"]}, "by", ["has the pair region|channel", "by: [region, channel]"]),
        ({"grain": "hour", "by": ["region"]}, "by", ["no values by region per hour"]),
        ({"grain": "week"}, "grain", ["'day' or 'hour'"]),
        ({"red_if": "< 60"}, "red_if", ["does not lie beyond yellow"]),
        ({"red_if": "> 100"}, "red_if", ["does not lie beyond yellow"]),
        ({"recover_if": {"yellow": "> 40"}}, "recover_if", ["does not lie inside"]),
        ({"recover_if": {"yelow": "> 60"}}, "yelow", ["did you mean 'yellow'"]),
        ({"recover_if": {"yellow": "> 60", "red": "> 70"}}, "recover_if", ["red must recover before yellow"]),
        ({"expr": "bnad(seasonal)"}, "expr", ["'bnad' is not known", "band(seasonal)"]),
        ({"yellow_if": "under 5"}, "yellow_if", ["not a threshold"]),
        ({"owner": None}, "alert", ["owner is missing"]),
        ({"why_zh": None}, "alert", ["why_zh is missing"]),
        ({"annotations": {"summary": "Few."}}, "annotations", ["annotations.summary_zh is missing"]),
        ({"labels": {"team": "x"}}, "alert", ["labels need a scenario"]),
        ({"yellow_if": None, "red_if": None}, "alert", ["give yellow_if, red_if or both"]),
        ({"min_sample": {"metric": "orders_payed", "gte": 10}}, "min_sample", ["did you mean 'orders_paid'"]),
        ({"min_sample": {"metric": "orders_paid", "gte": 0}}, "gte", ["min_sample.gte"]),
        ({"min_change": {"absolute": 5}}, "min_change", ["never fire"]),
        ({"for": 0}, "for", ["for: ", "greater than or equal to 1"]),
        ({"keep_firing_for": -1}, "keep_firing_for", ["keep_firing_for: ", "greater than or equal to 0"]),
        ({"keep_firng_for": 2}, "keep_firng_for", ["did you mean 'keep_firing_for'"]),
        ({"expr": "freshness()", "yellow_if": "> 30", "red_if": None, "keep_firing_for": 2}, "keep_firing_for", ["would only be late"]),
        ({"labels": {"scenario": "x", "work_order": "yelow"}}, "labels", ["'yelow' is no tier", "did you mean 'yellow'"]),
        ({"labels": {"scenario": "x", "work_order": "red"}, "red_if": None}, "labels", ["opens no work order", "no red_if"]),
        ({"no_data": {"due": "9:30"}}, "due", ["no_data.due"]),
        ({"no_data": {"then": "zero"}, "expr": "pct_change(1d)"}, "no_data", ["expr: value"]),
        ({"direction": "rise"}, "yellow_if", ["can never fire"]),
        ({"expr": "band(seasonal, weeks=3)"}, "expr", ["can never fire", "4 same weekdays"]),
        ({"expr": "quantile(14d, 0.1)"}, "expr", ["can never fire", "28 values"]),
        ({"expr": "pct_change(7d)", "yellow_if": "< -1", "red_if": None}, "yellow_if", ["can never fire"]),
        ({"expr": "pct_change(3h)"}, "expr", ["per day"]),
        ({"metric": "refund_rate", "yellow_if": "> 8", "red_if": None}, "yellow_if", ["can never fire", "0.08"]),
        ({"recover_if": {"red": "> 60"}}, "recover_if", ["yellow", "over already"]),
        ({"expr": "vs_goal()"}, "expr", ["'vs_goal' is not known", "vs_target()"]),
        ({"expr": "vs_target()", "yellow_if": "< -1", "red_if": None}, "yellow_if", ["can never fire"]),
        ({"expr": "vs_target()", "metric": "gmv"}, "expr", ["metric_targets.csv has no row for gmv by all"]),
        ({"expr": "vs_benchmark()"}, "expr", ["industry_benchmarks.csv has no row"]),
        ({"expr": "vs_target()", "grain": "hour"}, "expr", ["per day"]),
        ({"expr": "share_of_parent()"}, "expr", ["the total has no parent"]),
        ({"expr": "share_of_parent(channel)", "by": ["region"]}, "expr", ["'channel' is no dimension of this rule"]),
        ({"expr": "share_of_parent(region)", "by": ["region"]}, "expr", ["always 1"]),
        ({"expr": "share_of_parent()", "by": ["region"], "yellow_if": "> 1", "red_if": None}, "yellow_if", ["share between"]),
        ({"expr": "share_of_parent(x, 7d, 3)"}, "expr", ["'3' is not a parameter"]),
        ({"expr": "freshness()", "yellow_if": "> 3", "red_if": None, "by": ["region"]}, "by", ["whole metric"]),
        ({"expr": "freshness()"}, "yellow_if", ["fire on a metric that is fresh"]),
        ({"overrides": [{"where": {"region": "a"}, "yellow_if": "< 3"}]}, "overrides", ["region, by which this rule is not"]),
        ({"by": ["region"], "overrides": [{"where": {"regoin": "a"}, "mute": True}]}, "overrides", ["did you mean 'region'"]),
        ({"by": ["region"], "overrides": [{"where": {"region": "a"}}]}, "overrides", ["give yellow_if"]),
        ({"by": ["region"], "overrides": [{"where": {"region": "a"}, "yelow_if": "< 3"}]}, "overrides", ["did you mean 'yellow_if'"]),
        ({"by": ["region"], "overrides": [{"where": {"region": "a"}, "red_if": "> 3"}]}, "overrides", ["overrides[0]: red", "does not lie beyond"]),
        ({"by": ["region"], "overrides": [{"where": {"region": "a"}, "red_if": None, "yellow_if": None}]}, "overrides", ["leaves no threshold"]),
        (
            {"by": ["region"], "overrides": [{"where": {"region": ["a", "b"]}, "mute": True}, {"where": {"region": "b"}, "mute": True}]},
            "overrides",
            ["overrides[1] is never used"],
        ),
        ({"promotions": {"619": "mute"}}, "promotions", ["'619' is no event", "did you mean '618'"]),
        ({"promotions": {"any": "mute", "618": "mute"}}, "promotions", ["after `any`"]),
        ({"promotions": {"618": {"red_if": "< 60"}}}, "promotions", ["promotions.618: red"]),
        ({"promotions": {"618": "quiet"}}, "promotions", ["promotions.618"]),
        ({"all_of": ["another_rle"]}, "all_of", ["'another_rle'", "did you mean 'another_rule'"]),
        ({"all_of": ["orders_low"], "yellow_if": ">= 1", "red_if": ">= 2"}, "all_of", ["orders_low → orders_low"]),
        ({"all_of": ["another_rule"], "expr": "pct_change(1d)"}, "expr", ["has no expr"]),
        ({"not": ["another_rule"]}, "not", ["whenever all is well"]),
        ({"all_of": ["another_rule"], "yellow_if": "> 2", "red_if": None}, "yellow_if", ["can never fire", "0, 1 or 2"]),
        ({"all_of": ["another_rule"]}, "yellow_if", ["holds at 0"]),
        ({"any_of": [{"al_of": ["another_rule"]}]}, "any_of", ["neither a rule id nor a condition"]),
        ({"all_of": ["another_rule"], "grain": "hour"}, "all_of", ["share no period"]),
    ],
)  # fmt: skip
def test_lint_names_the_line_and_the_mend(tmp_path, keys, line_of, parts):
    loaded = load(tmp_path, changed(**keys), changed(alert="another_rule"))
    assert [rule.id for rule in loaded.rules] == ["another_rule"], "a bad rule stops only itself"
    text = "\n".join(map(str, loaded.problems))
    assert all(part in text for part in parts), text
    source = (tmp_path / "orders.yml").read_text("utf-8").splitlines()
    assert any(line_of in source[problem.line - 1] for problem in loaded.problems), text
    assert all(str(problem).startswith(f"{tmp_path / 'orders.yml'}:{problem.line}: ") for problem in loaded.problems)
    assert all(problem.rule == "orders_low" and problem.mend for problem in loaded.problems)


def test_a_key_that_cannot_be_read_does_not_hide_the_others(tmp_path):
    loaded = load(tmp_path, changed(yellow_if="under 5", metric="order_paid", **{"for": 0}, by=["regoin"]))
    text = "\n".join(map(str, loaded.problems))
    assert all(part in text for part in ("'under 5'", "'order_paid'", "for: ")), text
    assert "unnamed" not in text


def test_a_composite_goes_with_the_rule_it_needs(tmp_path):
    bad = changed(alert="part_rule", metric="nothing")
    whole = changed(alert="whole_rule", all_of=["part_rule"], yellow_if=">= 1", red_if=">= 2")
    top = changed(alert="top_rule", all_of=["whole_rule"], yellow_if=None, red_if=None)
    loaded = load(tmp_path, bad, whole, top, changed(alert="another_rule"))
    assert [rule.id for rule in loaded.rules] == ["another_rule"]
    text = "\n".join(map(str, loaded.problems))
    assert "'part_rule', at which it looks, has problems of its own" in text
    assert "'whole_rule', at which it looks, has problems of its own" in text


def test_defaults_come_from_the_file_the_group_and_the_rule(tmp_path):
    (tmp_path / "_defaults.yml").write_text(
        "defaults:\n  owner: everybody\n  for: 3\n  labels: {scenario: sales_drop, team: a}\n", "utf-8"
    )
    bare = {key: value for key, value in RULE.items() if key not in ("owner", "labels")}
    loaded = load(tmp_path, bare, changed(alert="own_rule"), defaults={"for": 2, "labels": {"team": "b"}})
    assert loaded.problems == ()
    rule = loaded["orders_low"]
    assert (rule.owner, rule.hold, rule.labels) == ("everybody", 2, {"scenario": "sales_drop", "team": "b"})
    origins = {key: origin.removeprefix(f"{tmp_path}/") for key, origin in rule.origins.items()}
    assert {key: origins[key] for key in ("owner", "for", "labels.scenario", "labels.team", "metric")} == {
        "owner": "_defaults.yml:2", "for": "orders.yml:3", "labels.scenario": "_defaults.yml:4",
        "labels.team": "orders.yml:3", "metric": "orders.yml:8",
    }  # fmt: skip
    assert "grain" not in origins, "nobody gives it"
    assert loaded["own_rule"].owner == "sales"


@pytest.mark.parametrize("tier", ["red", "yellow", "never"])
def test_the_label_work_order_takes_its_words(tmp_path, tier):
    assert load(tmp_path, changed(labels={"scenario": "x", "work_order": tier})).problems == ()


def test_a_red_of_some_slices_is_enough_for_a_work_order(tmp_path):
    override = {"where": {"region": "a"}, "red_if": "< 10"}
    keys = {"by": ["region"], "red_if": None, "overrides": [override]}
    assert load(tmp_path, changed(labels={"scenario": "x", "work_order": "red"}, **keys)).problems == ()


def test_a_rule_that_keeps_firing_is_another_rule_and_one_that_does_not_keeps_its_hash(tmp_path):
    plain, at_default = load(tmp_path, RULE, changed(alert="same_rule", keep_firing_for=0)).rules
    (patient,) = load(tmp_path, changed(keep_firing_for=2)).rules
    assert plain.rule_hash == at_default.rule_hash != patient.rule_hash
    assert policy_of(patient) == Policy(hold=1, keep_firing_for=2)


@pytest.mark.parametrize(
    ("text", "part"),
    [("owner: x", "no `defaults:`"), ("defaults: {ower: x}", "'ower' is not known"), ("defaults: [", "not valid YAML")],
)
def test_broken_defaults_are_a_problem_of_their_file(tmp_path, text, part):
    (tmp_path / "_defaults.yml").write_text(text, "utf-8")
    loaded = load(tmp_path, RULE)
    assert part in str(loaded.problems[0])
    assert loaded.problems[0].file.name == "_defaults.yml"
    assert [rule.id for rule in loaded.rules] == ["orders_low"]


def test_a_bad_default_is_told_where_it_stands(tmp_path):
    (tmp_path / "_defaults.yml").write_text("defaults:\n  owner: x\n  grain: week\n", "utf-8")
    (problem,) = load(tmp_path, RULE).problems
    assert (problem.file.name, problem.line, problem.rule) == ("_defaults.yml", 3, "orders_low")


def test_the_shipped_rules_fit_the_schema():
    yaml = YAML(typ="safe")
    validator = jsonschema.Draft202012Validator(rule_schema())
    for path in (PROJECT_ROOT / "alert_rules").glob("[a-z]*.yml"):
        if not path.stem.endswith(".test"):
            assert [error.message for error in validator.iter_errors(yaml.load(path.read_text("utf-8")))] == []
    bad = {"groups": [{"name": "x", "rules": [{**RULE, "yelow_if": "< 3"}]}]}
    assert "yelow_if" in next(validator.iter_errors(bad)).message
    good = {
        **RULE,
        "any_of": ["a_rule", {"not": ["b_rule"]}],
        "promotions": {"618": "mute", "main": {"yellow_if": "< 3"}},
        "overrides": [{"where": {"region": ["a"]}, "red_if": None}],
    }
    assert list(validator.iter_errors({"groups": [{"name": "x", "defaults": {"for": 2}, "rules": [good]}]})) == []


def test_all_problems_come_at_once(tmp_path):
    loaded = load(
        tmp_path,
        changed(metric="nothing", red_if="> 3", owner="", extra=1),
        changed(alert="Bad Id"),
        changed(alert="third", by=["x"]),
    )
    assert len(loaded.problems) >= 4
    assert loaded.rules == ()


def test_two_rules_with_one_id_are_both_refused(tmp_path):
    loaded = load(tmp_path, RULE, changed(yellow_if="< 60"), changed(alert="other"))
    assert [rule.id for rule in loaded.rules] == ["other"]
    assert "two rules have this id" in str(loaded.problems[0])
    assert "orders.yml:4" in str(loaded.problems[0])


def test_group_defaults_are_merged(tmp_path):
    defaults = {"owner": "ops", "labels": {"scenario": "stock", "team": "a"}, "grain": "day"}
    bare = {key: value for key, value in RULE.items() if key not in ("owner", "labels")}
    loaded = load(tmp_path, bare, changed(alert="own", owner="me", labels={"scenario": "x"}), defaults=defaults)
    assert loaded.problems == ()
    assert loaded["orders_low"].labels == {"scenario": "stock", "team": "a"}
    assert (loaded["own"].owner, loaded["own"].labels) == ("me", {"scenario": "x", "team": "a"})
    assert "'ower' is not known" in str(load(tmp_path, RULE, defaults={"ower": "x"}).problems[0])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("groups: [", "not valid YAML"),
        ("groups:\n  - name: a\n    name: b\n", "not valid YAML"),
        ("rules: []", "no `groups:`"),
        ("groups:\n  - name: a\n", "rules must be a list"),
        ("groups:\n  - rules: []\n", "has no name"),
        ("groups:\n  - name: a\n    rules: [x]\n", "must be a mapping"),
        ("", "no `groups:`"),
        ("- 1", "no `groups:`"),
    ],
)
def test_a_broken_file_is_a_problem_not_a_crash(tmp_path, text, part):
    (tmp_path / "broken.yml").write_text(text, "utf-8")
    problems = load_rules(tmp_path, make_catalogue()).problems
    assert part in str(problems[0])
    assert problems[0].line >= 1


def test_other_files_are_not_rules(tmp_path):
    for name in ("_routes.yml", "orders.test.yml", "notes.txt"):
        (tmp_path / name).write_text("nonsense: [", "utf-8")
    assert load_rules(tmp_path, make_catalogue()) == RuleSet((), ())
    assert "does not exist" in str(load_rules(tmp_path / "nowhere", make_catalogue()).problems[0])


def test_the_hash_changes_with_the_verdict_only():
    rule = make_rule()
    assert make_rule(owner="other", why="x", alert="renamed").rule_hash == rule.rule_hash
    different = [
        make_rule(yellow_if="< 51"),
        make_rule(expr="pct_change(1d)"),
        make_rule(by=["region"]),
        make_rule(**{"for": 2}),
        make_rule(no_data={"then": "red"}),
    ]
    assert len({rule.rule_hash, *(other.rule_hash for other in different)}) == 6


def test_the_schema_documents_every_key():
    properties = rule_schema()["$defs"]["Rule"]["properties"]
    assert set(properties) == set(yaml_keys())
    assert all(value.get("description") or "$ref" in value for value in properties.values())


def test_the_shipped_rules_are_clean():
    project = PROJECT_ROOT / "dbt_project"
    loaded = load_rules(PROJECT_ROOT / "alert_rules", Catalogue.read(project), read_seeds(project, "Asia/Shanghai"))
    assert [str(problem) for problem in loaded.problems] == []
    assert {rule.scenario for rule in loaded.rules} >= {
        "stock", "order_anomaly", "complaint_rate", "campaign_roi", "traffic_pressure", "refund_surge", "sales_drop",
        "payment_conversion",
    }  # fmt: skip
    for rule in loaded.rules:
        assert rule.yellow_if is not None
        assert rule.red_if is not None
        runbook = rule.annotations.runbook
        assert runbook is not None
        assert (PROJECT_ROOT / runbook).is_file(), runbook


def test_broken_shipped_rules_do_not_hide_the_others(tmp_path):
    shutil.copytree(PROJECT_ROOT / "alert_rules", tmp_path / "rules")
    (tmp_path / "rules" / "zz.yml").write_text("groups: [{name: z, rules: [{alert: bad}]}]", "utf-8")
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    assert len(load_rules(tmp_path / "rules", catalogue).rules) == len(
        load_rules(PROJECT_ROOT / "alert_rules", catalogue).rules
    )
