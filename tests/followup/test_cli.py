"""`metrics rules quality|propose` and `metrics proposals` as a person uses them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.store import open_store
from tests.followup.history import Shop, alerts, answer, ground, live, rules_folder

DAYS = 130
SMALL = {92: 141, 96: 144, 104: 139, 108: 146, 116: 142, 120: 148}
LARGE = {100: 88, 112: 95, 124: 70}
TESTS = """\
tests:
  - name: a large dip is told
    rule: few_orders
    series: [{metric: orders_placed, history: 200x5, values: 200 100 200}]
    tiers: ok yellow ok
    messages: {2: first yellow, 3: all_resolved}
"""
SMALL_DIP = """\
  - name: a small dip is told
    rule: few_orders
    series: [{metric: orders_placed, history: 200x5, values: 200 145}]
    tiers: ok yellow
    messages: {2: first yellow}
"""


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """An installation whose one rule was answered; the clock of its store is that of its nights."""
    home = tmp_path_factory.mktemp("home")
    values = [200.0 + n % 7 for n in range(DAYS)]
    for at, value in {**SMALL, **LARGE}.items():
        values[at] = float(value)
    published = Shop().add("orders_placed", values).publish(home / "warehouse" / "published")
    rules = rules_folder(home / "rules", 'yellow_if: "< 150"', 'red_if: "< 60"')
    (rules / "orders.test.yml").write_text(TESTS + SMALL_DIP, "utf-8")
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    store = open_store(load_settings({"METRICS_HOME": str(home)}))
    live(store, ground(rules, catalogue, published), 90, DAYS - 1)
    answer(store, alerts(store), {**dict.fromkeys(SMALL, "false"), **dict.fromkeys(LARGE, "true")})
    store.close()
    return home


@pytest.fixture
def home(lived, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(lived))
    monkeypatch.setenv("METRICS_RULES_DIR", str(lived / "rules"))
    monkeypatch.setenv("COLUMNS", "200")
    return lived


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_quality_is_a_table_and_json(home):
    code, out, _ = run("rules", "quality", "--since", "2025-01-01")
    assert code == 0 and "few_orders" in out and "33% (14%–60%)" in out
    found = json.loads(run("rules", "quality", "--since", "2025-01-01", "--json")[1])
    assert [(one["rule"], one["true"], one["false"]) for one in found["rules"]] == [("few_orders", 3, 6)]
    assert run("rules", "quality", "--since", "soon")[0] == 2


def test_the_way_from_answers_to_a_changed_rule(home):
    assert "metrics proposals make" in run("proposals")[1]
    code, out, _ = run("proposals", "make", "--days", 730)
    assert code == 0 and "1 new proposals" in out and "9 → 3" in out
    code, out, _ = run("proposals", "show", 1)
    assert code == 0
    for word in ('+        yellow_if: "< 130"', "a week before", "2025-05-02T00:00", "6 of 6", "不必要"):
        assert word in out
    code, _, err = run("proposals", "accept", 1, "--why", "six quiet weeks")
    assert (
        code == 1
        and "a small dip is told" in err
        and "no longer hold" in err
        and f"{home}/rules/orders.test.yml" in err
    )
    (home / "rules" / "orders.test.yml").write_text(TESTS, "utf-8")
    code, out, _ = run("proposals", "accept", 1, "--why", "six quiet weeks")
    assert code == 0 and '+        yellow_if: "< 130"' in out
    assert 'yellow_if: "< 130"' in (home / "rules" / "orders.yml").read_text("utf-8")
    assert run("proposals", "accept", 1, "--why", "again")[0] == 0
    assert (
        run("proposals", "reject", 1, "--why", "no")[2] == f"proposal 1 is accepted by {load_settings().user} already\n"
    )
    assert "measured when seven days" in run("proposals", "show", 1)[1]
    [row] = json.loads(run("proposals", "list", "--all", "--json")[1])
    assert (row["state"], row["note"], row["changes"]) == ("accepted", "six quiet weeks", {"yellow_if": "< 130"})


def test_an_unknown_proposal_is_told_in_a_line(home):
    assert run("proposals", "show", 99) == (1, "", "there is no proposal 99; `metrics proposals list` shows them\n")


def test_a_new_rule_is_proposed_from_history_with_as_many_alerts_as_asked_for(home):
    code, out, _ = run(
        "rules", "propose", "orders_placed", "--a-month", 2, "--days", 60, "--name", "orders_off", "--json"
    )
    assert code == 0, out
    drafts = json.loads(out)
    assert [one["source"] for one in drafts] == ["history"]
    assert 1.0 <= drafts[0]["a_month"] <= 4.5
    text = rules_folder(home / "drafts").joinpath("orders.yml")
    text.write_text(
        f"groups:\n  - name: drafts\n    rules:\n{drafts[0]['yaml'].replace(chr(10), chr(10) + '    ').rstrip()}\n",
        "utf-8",
    )
    code, out, _ = run("rules", "lint", home / "drafts", "--json")
    assert [one for one in json.loads(out)["problems"] if one["rule"] == "orders_off"] == []
    code, _, err = run("rules", "propose", "gmv")
    assert code == 1 and "no values" in err


RATES = [0.9 - 0.001 * (n % 7) - (0.02 * (1 + n % 4) if n % 9 == 4 else 0.0) for n in range(DAYS)]
"""The share of orders that are paid: about 0.9, and lower on a day in nine."""


@pytest.fixture(scope="module")
def proposed(tmp_path_factory):
    """The drafts for the share of orders that are paid, by source, over the last ninety days."""
    home = tmp_path_factory.mktemp("measured")
    Shop().add("payment_conversion_rate", RATES).publish(home / "warehouse" / "published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METRICS_HOME", str(home))
        code, out, err = run("rules", "propose", "payment_conversion_rate", "--a-month", 1, "--days", 90, "--json")
    assert code == 0, err
    return {one["source"]: one for one in json.loads(out)}


@pytest.mark.parametrize(
    ("source", "expression", "level"), [("target", "vs_target()", 0.88), ("benchmark", "vs_benchmark()", 0.85)]
)
def test_a_new_rule_is_proposed_from_target_and_benchmark(proposed, tmp_path, source, expression, level):
    draft = proposed[source]
    text = draft["yaml"].replace("\n", "\n    ").rstrip()
    (tmp_path / "drafts.yml").write_text(f"groups:\n  - name: drafts\n    rules:\n    {text}\n", "utf-8")
    ruleset = load_rules(tmp_path, Catalogue.read(PROJECT_ROOT / "dbt_project"))
    assert ruleset.problems == ()
    [rule] = ruleset.rules
    assert (rule.id, str(rule.expr)) == (f"payment_conversion_rate_off_{source}", expression)
    bounds = [float(str(one).removeprefix("< ")) for one in (rule.yellow_if, rule.red_if)]
    assert bounds[1] < bounds[0] <= -0.01  # it is better to be above: only falls, and red lies beyond yellow
    beyond = [rate / level - 1 < bounds[0] for rate in RATES[-90:]]
    assert sum(beyond) <= 9  # a bound that is crossed on more than a tenth of the days is no alert
    assert draft["alerts"] == sum(beyond) > 0  # no two of these days follow each other: each is an alert of its own
    assert draft["a_month"] <= 2
