"""`metrics library site` as a person uses it."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from metrics_pipeline.cli.app import app
from tests.store.databases import new_home

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import Shop


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["library", "site", *arguments])


def test_the_site_is_written_and_what_is_confidential_is_said(home):
    shop = Shop().add("gmv", [1234.0] * 10, first=date(2025, 9, 1)).add("gross_profit", [4321.0] * 10)
    shop.publish(home / "warehouse" / "published")
    result = run("--json")
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    site = home / "site"
    assert told["folder"] == str(site)
    assert "gross_profit" in told["withheld"] and "gmv" not in told["withheld"]
    assert "1,234 CNY" in (site / "metrics" / "gmv.html").read_text()
    assert "4,321" not in (site / "metrics" / "gross_profit.html").read_text()
    assert told["files"] == sum(1 for path in site.rglob("*") if path.is_file()) - 1
    assert "cost_of_goods" in run().stdout


def test_a_folder_of_others_is_wrong_usage(home, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    result = run("--out", str(tmp_path / "mine"))
    assert result.exit_code == 2
    assert "name an empty folder" in result.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_before_anything_is_published_there_are_definitions_only(home, tmp_path):
    result = run("--out", str(tmp_path / "site"))
    assert result.exit_code == 0, result.stderr
    assert "Nothing is published yet" in result.stdout
    assert (tmp_path / "site" / "metrics" / "refund_rate.html").exists()


@pytest.fixture
def people(home, tmp_path, monkeypatch):
    """li administers; wang may read and export gmv and exactly the gross profit, refund_rate only in one region."""
    monkeypatch.setenv("METRICS_USER", "li")
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text("people: [{id: li}, {id: wang}]\n", "utf-8")
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    shop = Shop().add("gmv", [1234.0] * 10).add("gross_profit", [4321.0] * 10).add("refund_rate", [(7.0, 120.0)] * 10)
    for member, value in (("华北", 0.0625), ("华南", 0.0975)):
        shop.add("refund_rate", [value] * 10, dimension="region", member=member)
    shop.add("orders_paid", [5678.0] * 10).publish(home / "warehouse" / "published")
    for arguments in (
        ["enable", "--admin", "li"],
        ["grant", "wang", "--metric", "gmv", "--metric", "gross_profit", "--level", "exact", "--reason", "x"],
        ["grant", "wang", "--metric", "refund_rate", "--slice", "region=华北", "--reason", "x"],
    ):
        done = CliRunner().invoke(app, ["access", *arguments])
        assert done.exit_code == 0, done.output
    return home


def test_a_person_gets_what_their_grants_give_and_no_other_name(people):
    result = run("--person", "wang", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["withheld"] == ["refund_rate"]
    site = people / "site"
    assert {path.stem for path in (site / "metrics").iterdir()} == {"gmv", "gross_profit", "refund_rate"}
    assert "1,234 CNY" in (site / "metrics" / "gmv.html").read_text()
    assert "4,321 CNY" in (site / "metrics" / "gross_profit.html").read_text()
    page = (site / "metrics" / "refund_rate.html").read_text()
    assert "You may not see the totals of this metric" in page and "5.8%" not in page
    assert '华北</td><td class="n">6.2%' in page
    assert "华南" not in page and "9.8%" not in page
    told = "".join(path.read_text() for path in site.rglob("*.html"))
    assert "5,678" not in told
    assert not [name for name in ("orders_paid", "refunded_orders", "new_buyer_amount") if name in told]


def test_who_may_not_export_makes_no_site_and_who_does_not_administer_none_of_others(people, monkeypatch):
    monkeypatch.setenv("METRICS_USER", "wang")
    refused = run()
    assert refused.exit_code == 1 and "wang may not export" in refused.stderr
    assert CliRunner().invoke(app, ["library", "export"]).exit_code == 1
    assert CliRunner().invoke(app, ["library", "import", str(Path(__file__))]).exit_code == 1
    monkeypatch.setenv("METRICS_USER", "li")
    given = ["access", "grant", "wang", "--action", "export", "--metric", "gmv", "--reason", "x"]
    assert CliRunner().invoke(app, given).exit_code == 0
    monkeypatch.setenv("METRICS_USER", "wang")
    own = run("--person", "wang", "--json")
    assert own.exit_code == 0, own.output
    assert json.loads(own.stdout)["withheld"] == ["gross_profit", "refund_rate"]
    assert "华北" not in (people / "site" / "metrics" / "refund_rate.html").read_text()
    others = run("--person", "li")
    assert others.exit_code == 1 and "wang may not administer" in others.stderr
    refused = CliRunner().invoke(app, ["library", "export", "gmv"])
    assert refused.exit_code == 1 and "new_buyer_amount" not in refused.output
    hidden = CliRunner().invoke(app, ["library", "export", "orders_paid"])
    assert hidden.exit_code == 2 and "there is no metric 'orders_paid'" in hidden.stderr
    monkeypatch.setenv("METRICS_USER", "li")
    assert run("--person", "wong").exit_code == 2
    log = json.loads(CliRunner().invoke(app, ["audit", "list", "--json"]).stdout)["entries"]
    assert {("wang", "denied.export"), ("wang", "denied.administer"), ("wang", "library.site")} <= {
        (one["actor"], one["action"]) for one in log
    }
