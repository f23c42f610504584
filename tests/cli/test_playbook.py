"""`metrics playbook`, and the playbook in `metrics rules lint`."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import PROJECT_ROOT
from tests.store.databases import new_home


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An installation with a folder of rules of its own."""
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    monkeypatch.setenv("COLUMNS", "200")
    rules = tmp_path / "rules"
    rules.mkdir()
    for name in ("_playbook.yml", "_people.yml", "_routes.yml"):
        shutil.copy(PROJECT_ROOT / "alert_rules" / name, rules / name)
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    return rules


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def test_the_starter_playbook_is_sound_and_listed(folder):
    code, out = run("playbook", "lint", "--json")
    found = json.loads(out)
    assert (code, found["problems"]) == (0, [])
    listed = json.loads(run("playbook", "list", "--json")[1])
    assert [one["id"] for one in listed] == found["entries"]
    assert {"restock", "pause_ad_channel", "fix_tracking"} <= set(found["entries"])
    assert "暂停广告渠道" in run("playbook", "list")[1]


def test_a_mistake_ends_both_lints_with_its_place(folder):
    own = folder / "_playbook_own.yml"
    own.write_text((folder / "_playbook.yml").read_text("utf-8").replace("ad_spend up]", "ad_spent up]"), "utf-8")
    code, out = run("playbook", "lint")
    assert code == 1
    assert f"{own}:" in out
    assert "did you mean 'ad_spend'" in out
    code, out = run("rules", "lint")
    assert code == 1
    assert f"{own}:" in out


def test_the_schema_is_json(folder):
    code, out = run("playbook", "schema")
    assert code == 0
    assert "entries" in json.loads(out)["properties"]
