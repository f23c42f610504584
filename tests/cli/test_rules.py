"""`metrics rules` as a person uses it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import PROJECT_ROOT
from tests.store.databases import new_home

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import FIRST, Shop, day

GOOD = """tests:
  - name: half of it is told
    rule: orders_anomaly
    series: [{metric: orders_placed, history: 200x55, values: 200 80 200}]
    messages: {2: first red, 3: all_resolved}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    rules = tmp_path / "rules"
    rules.mkdir()
    shutil.copy(PROJECT_ROOT / "alert_rules" / "orders.yml", rules)
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    return tmp_path


@pytest.fixture
def run(home):
    return lambda *arguments: CliRunner().invoke(app, ["rules", *map(str, arguments)])


def test_a_rule_is_shown_with_where_its_keys_come_from(run, home):
    (home / "rules" / "_defaults.yml").write_text("defaults:\n  direction: both\n", "utf-8")
    found = json.loads(run("show", "orders_drop_hourly", "--json").stdout)
    keys = {row["key"]: row for row in found["keys"]}
    assert keys["grain"]["value"] == "hour"
    assert keys["grain"]["from"].rpartition(":")[0].endswith("orders.yml")
    assert keys["direction"]["from"].endswith("_defaults.yml:2")
    assert keys["no_data"]["from"].rpartition(":")[0].endswith("orders.yml")
    assert keys["min_sample"]["from"] == "default"
    assert "labels.scenario" in keys
    assert run("show", "orders_anomly").exit_code == 2
    assert "orders_anomaly" in run("show", "orders_anomly").stderr


def test_a_rule_that_cannot_be_used_shows_its_problems(run, home):
    (home / "rules" / "bad.yml").write_text("groups: [{name: bad, rules: [{alert: bad_rule, metric: gmw}]}]", "utf-8")
    result = run("show", "bad_rule")
    assert result.exit_code == 1
    assert "bad.yml:1: bad_rule: " in result.stderr


def test_tests_pass_and_fail_with_an_exit_code(run, home):
    path = home / "rules" / "orders.test.yml"
    path.write_text(GOOD, "utf-8")
    result = run("test")
    assert result.exit_code == 0, result.output
    assert "1 passed, 0 failed, 0 problems" in result.output
    path.write_text(GOOD.replace("first red", "first yellow"), "utf-8")
    result = run("test", path)
    assert result.exit_code == 1
    assert f"{path}:2: half of it is told" in result.output
    assert "expected first yellow, was orders_anomaly: first red" in result.output
    found = json.loads(run("test", "--json").stdout)
    assert (found["passed"], found["failed"], found["tests"][0]["differences"][0]["night"]) == (0, 1, 2)
    assert run("test", "--name", "nothing like it").exit_code == 0


def test_tests_that_cannot_run_are_problems(run, home):
    (home / "rules" / "orders.test.yml").write_text(GOOD.replace("orders_anomaly", "orders_anomly"), "utf-8")
    for verb in ("test", "lint"):
        result = run(verb)
        assert result.exit_code == 1
        assert "orders.test.yml:3: half of it is told: there is no rule 'orders_anomly'" in result.output
    assert run("test", home / "none.test.yml").exit_code == 2


def test_without_tests_it_says_what_to_do(run):
    result = run("test")
    assert result.exit_code == 0
    assert "write some beside the rules" in result.output


def test_lint_knows_the_events_of_the_calendar(run, home):
    text = (home / "rules" / "orders.yml").read_text("utf-8")
    (home / "rules" / "orders.yml").write_text(
        text.replace('min_change: {relative: 0.25}', 'min_change: {relative: 0.25}\n        promotions: {"619": mute}', 1), "utf-8"
    )  # fmt: skip
    result = run("lint")
    assert result.exit_code == 1
    assert "'619' is no event or phase" in result.output


@pytest.mark.parametrize("of", ["rules", "tests"])
def test_the_schemas_are_printed(run, of):
    assert json.loads(run("schema", "--of", of).stdout)["$defs"]
    assert run("schema", "--of", "routes").exit_code == 2


def test_a_replay_tells_weeks_scores_and_draws_a_page(run, home):
    values = [200.0] * 70
    values[50] = 60.0
    Shop().add("orders_placed", values).publish(home / "home" / "warehouse" / "published")
    labels = home / "labels.jsonl"
    labels.write_text(
        json.dumps(
            {
                "id": "one", "kind": "drop", "scenario": "order_anomaly", "metrics": ["orders_placed"], "dimension": "all",
                "member": "all", "starts_on": str(day(50)), "ends_on": str(day(50)),
            }
        ),
        "utf-8",
    )  # fmt: skip
    days = ("--from", FIRST, "--to", day(69), "--rule", "orders_anomaly", "--labels", labels)
    found = json.loads(run("replay", *days, "--html", home / "out" / "replay.html", "--json").stdout)
    assert [week["firings"] for week in found["weeks"] if week["firings"]] == [{"orders_anomaly": 1}]
    assert (found["scores"][0]["recall"], found["scores"][0]["precision"], found["missed"]) == (1.0, 1.0, [])
    page = (home / "out" / "replay.html").read_text("utf-8")
    assert "orders_anomaly" in page
    result = run("replay", *days, "--weeks", "--alerts")
    assert result.exit_code == 0
    assert "Firings per week" in result.output
    assert "Not judged" not in result.output
    silent = run("replay", "--from", "2031-01-01", "--to", "2031-01-31", "--rule", "orders_anomaly")
    assert silent.exit_code == 0
    assert "Not judged, for want of values in these days: orders_anomaly" in silent.output
    assert run("replay", "--from", day(3), "--to", day(1)).exit_code == 2


def test_a_replay_without_a_usable_rule_says_what_is_wrong(run, home):
    Shop().add("orders_placed", [200.0] * 70).publish(home / "home" / "warehouse" / "published")
    days = ("--from", day(50), "--to", day(69))
    (home / "rules" / "bad.yml").write_text("groups: [{name: bad, rules: [{alert: bad_rule, metric: gmw}]}]", "utf-8")
    beside_others = run("replay", *days, "--rule", "orders_anomaly")
    assert beside_others.exit_code == 0
    assert "bad.yml:1: bad_rule: " in beside_others.stderr
    assert (
        json.loads(run("replay", *days, "--rule", "orders_anomaly", "--json").stdout)["problems"][0]["rule"]
        == "bad_rule"
    )
    named = run("replay", *days, "--rule", "bad_rule")
    assert (named.exit_code, "bad.yml:1: bad_rule: " in named.stderr) == (1, True)
    (home / "rules" / "orders.yml").unlink()
    alone = run("replay", *days)
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert "bad.yml:1: bad_rule: " in alone.stderr
    (home / "rules" / "bad.yml").unlink()
    empty = run("replay", *days, "--json")
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert f"there is no usable rule in {home / 'rules'}" in empty.stderr
