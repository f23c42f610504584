"""`metrics access`: from an open installation to a closed one, and back."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import PROJECT_ROOT
from tests.store.databases import new_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("METRICS_USER", "li")
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text(
        "people:\n  - {id: li, name_zh: 李雷}\n  - {id: wang}\nteams:\n  - {id: sales, members: [wang]}\n"
        "business_lines:\n  - {id: trade, owner: wang}\n"
    )
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    assert PROJECT_ROOT not in tmp_path.parents
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["access", *arguments])


def answer(*arguments: str):
    return json.loads(run(*arguments, "--json").stdout)


def test_a_grant_is_given_explained_and_revoked_and_all_of_it_is_on_record(home, monkeypatch):
    assert answer("enable", "--admin", "li")["enabled"] is True
    given = answer("grant", "position:sales", "--metric", "gmv", "--slice", "region=华北,华东", "--reason", "北区")
    assert given["slices"] == {"region": ["华北", "华东"]} and given["granted_by"] == "li"
    assert answer("why", "wang", "gmv", "region=华北")["grant"] == given["id"]
    assert answer("why", "wang", "gmv")["level"] == "denied"
    assert [one["metric"] for one in answer("show", "wang")["reads"]] == ["gmv"]
    assert run("revoke", str(given["id"]), "--reason", "moved").exit_code == 0
    assert answer("why", "wang", "gmv", "region=华北")["level"] == "denied"
    monkeypatch.setenv("METRICS_USER", "wang")
    refused = run("grant", "wang", "--all", "--reason", "please")
    assert refused.exit_code == 1 and "wang may not administer" in refused.output
    monkeypatch.setenv("METRICS_USER", "li")
    log = json.loads(CliRunner().invoke(app, ["audit", "list", "--json"]).stdout)["entries"]
    assert [(one["actor"], one["action"], one["outcome"]) for one in reversed(log)] == [
        ("li", "access.enable", "done"),
        ("li", "grant.add", "done"),
        ("li", "grant.revoke", "done"),
        ("wang", "denied.administer", "denied"),
    ]


def test_who_left_a_team_in_the_file_has_lost_its_grants_at_once(home):
    run("enable", "--admin", "li")
    run("grant", "position:sales", "--metric", "gmv", "--reason", "x")
    assert answer("why", "wang", "gmv")["level"] == "exact"
    file = home / "rules" / "_people.yml"
    file.write_text(file.read_text().replace("members: [wang]", "members: []"))
    assert answer("why", "wang", "gmv")["level"] == "denied"


def test_the_last_administrator_cannot_be_locked_out(home):
    given = answer("enable", "--admin", "li")["grant"]["id"]
    refused = run("revoke", str(given), "--reason", "x")
    assert refused.exit_code == 1 and "the last one" in refused.output


def test_what_is_given_lets_compute_what_is_not_and_that_is_said(home):
    run("enable", "--admin", "li")
    given = run("grant", "wang", "--all", "--reason", "x", "--level", "hidden")
    assert "can be computed" not in given.output
    given = run("grant", "wang", "--metric", "profit_margin", "--level", "exact", "--reason", "x")
    assert "gross_profit is not given, and can be computed from profit_margin, paid_amount" in given.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("enable", "--admin", "lee"), "there is no person 'lee'"),
        (("grant", "li", "--reason", "x"), "say of which metrics"),
        (("grant", "li", "--metric", "gmw", "--reason", "x"), "did you mean 'gmv'"),
        (("grant", "li", "--all", "--action", "fly", "--reason", "x"), "is not known"),
        (("grant", "li", "--metric", "gmv", "--action", "audit", "--reason", "x"), "give them with --all"),
        (("grant", "li", "--all", "--slice", "regio=华北", "--reason", "x"), "there is no dimension 'regio'"),
        (("grant", "li", "--all", "--slice", "region=", "--reason", "x"), "names no member"),
        (("grant", "team:sales", "--all", "--reason", "x"), "is nobody"),
        (("grant", "li", "--all", "--level", "all", "--reason", "x"), "hidden, banded or exact"),
        (("why", "li", "gmv", "华北"), "is not a slice"),
        (("database-roles", "--prefix", "a; DROP"), "is not a name"),
    ],
)
def test_wrong_usage_is_told_in_one_line(home, arguments, said):
    found = run(*arguments)
    assert found.exit_code == 2 and said in " ".join(found.output.split())
