"""`metrics audit`."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import audit, open_store
from tests.store.databases import new_home

NOW = datetime(2026, 11, 11, 8, tzinfo=UTC)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("METRICS_USER", "li")
    store = open_store(Settings(home=tmp_path))
    with store.writing() as connection:
        for metric in ("gmv", "profit_margin", "arpu"):
            audit.record(connection, audit.Caller("wang", "cli", "x"), "metric.read", metric, now=NOW)
    store.close()
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["audit", *arguments])


def test_the_log_is_listed_in_pages(home):
    page = json.loads(run("list", "--limit", "2", "--json").stdout)
    assert [one["subject"] for one in page["entries"]] == ["arpu", "profit_margin"]
    rest = json.loads(run("list", "--limit", "2", "--before", str(page["next"]), "--json").stdout)
    assert [one["subject"] for one in rest["entries"]] == ["gmv"] and rest["next"] is None
    assert "profit_margin" in run("list", "--subject", "profit_margin").stdout
    assert json.loads(run("list", "--from", "2026-11-12", "--json").stdout)["entries"] == []


def test_verify_names_the_row_that_was_edited(home):
    assert "3 rows, unbroken. Head: 3:" in run("verify").stdout
    with sqlite3.connect(home / "store.db") as database:
        database.execute("DROP TRIGGER audit_log_keeps_rows")
        database.execute("UPDATE audit_log SET subject = 'gmv' WHERE sequence = 2")
    found = run("verify")
    assert found.exit_code == 1 and "broken at row 2: it was edited" in found.output


def test_retention_is_recorded_under_the_name_of_who_asked(home):
    assert "3 rows removed" in run("prune", "--before", "2026-11-12").stdout
    [act] = json.loads(run("list", "--json").stdout)["entries"]
    assert (act["actor"], act["action"]) == ("li", "audit.prune")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--from", "yesterday"), "is not a time"),
        (("list", "--outcome", "lost"), "write done or denied"),
        (("verify", "--head", "abc"), "is not a head"),
        (("prune", "--before", "2999-01-01"), "is to come"),
    ],
)
def test_wrong_usage_is_told_in_one_line(home, arguments, said):
    found = run(*arguments)
    assert found.exit_code == 2 and said in found.output
