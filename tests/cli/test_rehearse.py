"""`metrics alerts rehearse` as a person uses it."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from tests.store.databases import new_home

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import Shop, day


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop whose orders fall on day 50."""
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    monkeypatch.setenv("COLUMNS", "200")
    values = [200.0] * 70
    values[50] = 60.0
    Shop().add("orders_placed", values).publish(tmp_path / "home" / "warehouse" / "published")
    return tmp_path


def run(*arguments: object):
    return CliRunner().invoke(app, ["alerts", "rehearse", *map(str, arguments)])


def test_messages_are_listed_and_counted_and_nothing_else_happens(home):
    days = ("--from", day(45), "--to", day(60))
    result = run(*days, "--json", "--out", home / "out")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(one["rule"], one["reason"]) for one in found["messages"] if one["reason"] != "unacknowledged"] == [
        ("orders_anomaly", "first"),
        ("orders_anomaly", "all_resolved"),
    ]
    assert found["messages"][0]["at"] == f"{day(51)} 03:00:00"
    assert found["messages"][0]["slices"][0]["value"] == 60.0
    assert found["summary"]["median"] == 0
    assert found["told"][0]["ended_at"] == f"{day(52)} 03:00:00"
    assert len(list((home / "out").rglob("*.html"))) == len(found["messages"])
    with sqlite3.connect(home / "home" / "store.db") as store:  # opened to ask who may see what
        for table in ("alert_instances", "transitions", "outbox"):
            assert store.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    assert not (home / "home" / "messages").exists()


def test_the_table_shows_value_and_expectation(home):
    result = run("--from", day(45), "--to", day(60), "--rule", "orders_anomaly", "--ack", "03:30", "--at", "03:15")
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if " first " in line)
    assert line.split() == [f"{day(51)}", "03:15", "first", "red", "orders_anomaly", "total", "60", "/", "200", "file"]
    assert "unacknowledged" not in result.stdout


def with_rule(home: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    rules = home / "rules"
    rules.mkdir()
    keys = f"alert: few_orders, why: w, why_zh: 因, metric: orders_placed, expr: value, red_if: '< 100', owner: sales{more}"
    (rules / "orders.yml").write_text(f"groups: [{{name: g, rules: [{{{keys}}}]}}]\n", "utf-8")
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))


def test_a_rule_over_plain_values_shows_no_expectation(home, monkeypatch):
    with_rule(
        home,
        monkeypatch,
        ", labels: {scenario: orders}, annotations: {summary: s, summary_zh: 要, runbook: docs/runbooks/orders_anomaly.md}",
    )
    result = run("--from", day(45), "--to", day(60))
    assert result.exit_code == 0, result.output
    line = next(line for line in result.stdout.splitlines() if " first " in line)
    assert line.split()[-3:] == ["total", "60", "file"]


def test_rules_none_of_which_can_be_used_are_told_with_their_lines(home, monkeypatch):
    with_rule(home, monkeypatch)
    result = run("--from", day(45), "--to", day(60))
    assert result.exit_code == 1, result.output
    assert "orders.yml:1: few_orders: annotations is missing" in result.stderr and "no usable rule" in result.stderr


def test_wrong_words_are_wrong_usage(home):
    days = ("--from", day(45), "--to", day(60))
    assert "did you mean 'orders_anomaly'" in run(*days, "--rule", "orders_anomly").stderr
    assert "write it as 09:30" in run(*days, "--ack", "morning").stderr
    assert run("--from", day(50), "--to", day(40)).exit_code == 2
