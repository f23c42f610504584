from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop import make_catalogue, make_rule

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import RuleSet, load_rules
from metrics_pipeline.rules.model import rule_schema, yaml_keys
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


def load(tmp_path: Path, *rules: dict, defaults: dict | None = None) -> RuleSet:
    lines = ["groups:", "  - name: orders_daily"]
    if defaults:
        lines.append(f"    defaults: {json.dumps(defaults)}")
    lines.append("    rules:")
    for rule in rules:
        for number, (key, value) in enumerate(rule.items()):
            lines.append(f"      {'-' if number == 0 else ' '} {key}: {json.dumps(value, ensure_ascii=False)}")
    (tmp_path / "orders.yml").write_text("\n".join(lines), "utf-8")
    return load_rules(tmp_path, make_catalogue())


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
        ({"no_data": {"due": "9:30"}}, "due", ["no_data.due"]),
        ({"no_data": {"then": "zero"}, "expr": "pct_change(1d)"}, "no_data", ["expr: value"]),
        ({"direction": "rise"}, "yellow_if", ["can never fire"]),
        ({"expr": "band(seasonal, weeks=3)"}, "expr", ["can never fire", "4 same weekdays"]),
        ({"expr": "quantile(14d, 0.1)"}, "expr", ["can never fire", "28 values"]),
        ({"expr": "pct_change(7d)", "yellow_if": "< -1", "red_if": None}, "yellow_if", ["can never fire"]),
        ({"expr": "pct_change(3h)"}, "expr", ["per day"]),
        ({"metric": "refund_rate", "yellow_if": "> 8", "red_if": None}, "yellow_if", ["can never fire", "0.08"]),
    ],
)
def test_lint_names_the_line_and_the_mend(tmp_path, keys, line_of, parts):
    loaded = load(tmp_path, changed(**keys), changed(alert="another_rule"))
    assert [rule.id for rule in loaded.rules] == ["another_rule"], "a bad rule stops only itself"
    text = "\n".join(map(str, loaded.problems))
    assert all(part in text for part in parts), text
    source = (tmp_path / "orders.yml").read_text("utf-8").splitlines()
    assert any(line_of in source[problem.line - 1] for problem in loaded.problems), text
    assert all(str(problem).startswith(f"{tmp_path / 'orders.yml'}:{problem.line}: ") for problem in loaded.problems)
    assert all(problem.rule == "orders_low" and problem.mend for problem in loaded.problems)


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
    loaded = load_rules(PROJECT_ROOT / "alert_rules", Catalogue.read(PROJECT_ROOT / "dbt_project"))
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
