"""`metrics diagnose` and `metrics notes` on a published shop, open and under a policy."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import Installation, write_installation
from tests.diagnosis.conftest import LAST, catalogue, world

__all__ = ["catalogue", "world"]
DAY = f"{LAST:%Y-%m-%d}"


@pytest.fixture
def home(world, tmp_path, monkeypatch):
    shutil.copytree(world.published.directory, tmp_path / "warehouse" / "published")
    write_installation(tmp_path, Installation())
    monkeypatch.setenv("METRICS_HOME", str(tmp_path))
    monkeypatch.setenv("METRICS_USER", "li")
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text("people:\n  - {id: li}\n  - {id: wang}\n")
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_a_diagnosis_is_shown_drawn_and_given_as_json(home, tmp_path):
    picture = tmp_path / "why.png"
    shown = run("diagnose", "orders_paid", "--date", DAY, "--plot", str(picture))
    assert shown.exit_code == 0, shown.output
    assert "地区=华东 · 渠道=app" in shown.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(run("diagnose", "orders_paid", "--date", DAY, "--json").stdout)
    assert found["causes"][0]["elements"] == {"region": "华东", "channel": "app"}
    assert found["evidence"]["cause.top"] == ["region=华东|channel=app"]


def test_a_note_of_the_day_stands_beside_the_change(home):
    assert run("notes", "add", "gateway 4.2", "--on", DAY, "--slice", "region=华东").exit_code == 0
    [note] = json.loads(run("notes", "list", "--json").stdout)["notes"]
    assert (note["text"], note["from"], note["slice"]) == ("gateway 4.2", DAY, "region=华东")
    found = json.loads(run("diagnose", "orders_paid", "--date", DAY, "--json").stdout)
    assert [one["id"] for one in found["coinciding"] if one["kind"] == "deploy_note"] == ["note:1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("diagnose", "orders_payed"), "orders_paid"),
        (("diagnose", "orders_paid", "--slice", "华东"), "DIMENSION=MEMBER"),
        (("diagnose", "orders_paid", "--slice", "colour=red"), "no dimension 'colour'"),
        (("diagnose", "orders_paid", "--plot", "why.gif"), ".png or .svg"),
        (("diagnose", "orders_paid", "--week", "--hour", "3"), "exclude each other"),
        (("notes", "add", "x", "--kind", "rumour"), "deploy_note"),
        (("notes", "add", "x", "--on", "2025-03-02", "--until", "2025-03-01"), "is before"),
    ],
)
def test_wrong_usage_is_told_in_a_line(home, arguments, said):
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert said in answer.output
    assert "Traceback" not in answer.output


def test_who_may_see_one_region_is_told_of_that_region_alone(home, monkeypatch):
    assert run("access", "enable", "--admin", "li").exit_code == 0
    given = run("access", "grant", "wang", "--all", "--slice", "region=华东", "--reason", "r")
    assert given.exit_code == 0, given.output
    monkeypatch.setenv("METRICS_USER", "wang")
    inside = run("diagnose", "orders_paid", "--date", DAY, "--json")
    assert inside.exit_code == 0, inside.output
    found = json.loads(inside.stdout)
    assert found["slice"] == {"region": "华东"}
    assert [one["elements"] for one in found["causes"]] == [{"channel": "app"}]
    assert "华北" not in inside.output
    refused = run("diagnose", "orders_paid", "--date", DAY, "--slice", "region=华北")
    assert refused.exit_code == 1
    assert "无权限" in refused.output
