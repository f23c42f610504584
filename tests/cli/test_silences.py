"""`metrics silences` and `metrics alerts ack|snooze|held` as a person uses them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.cli.app import app
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import open_store
from tests.alerts.builders import make_card, make_verdict
from tests.store.databases import new_home

RULE = "refund_rate_surge"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))

    def invoke(*arguments: str):
        return CliRunner().invoke(app, [*arguments])

    return invoke


def fire(tier: str = "red", period: int = 0) -> None:
    settings = load_settings()
    store = open_store(settings)
    apply_verdicts(
        store, [make_verdict(tier, period)], {RULE: make_card()}, receivers=routing_of(settings), now=datetime.now(UTC)
    )
    store.close()


def test_a_silence_is_shown_before_it_holds_listed_and_ended(run):
    fire()
    options = ("--for", "2h", "--by", "li", "--reason", "已知")
    shown = run("silences", "add", f"alertname={RULE}", *options, "--preview", "--json")
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert (found["silence"], [one["instance"] for one in found["mutes"]]) == (None, [f"{RULE}{{region=华北}}"])
    assert "silence 1 until" in run("silences", "add", f"alertname={RULE}", "region=华北", *options).stdout
    [listed] = json.loads(run("silences", "list", "--json").stdout)
    assert (listed["status"], listed["matchers"]) == ("active", f'{{alertname="{RULE}",region="华北"}}')
    assert run("silences", "expire", "1", "--by", "li").exit_code == 0
    assert run("silences", "expire", "1", "--by", "li").exit_code == 1
    assert json.loads(run("silences", "list", "--json").stdout) == []
    assert "expired" in run("silences", "list", "--all").stdout


def test_what_is_held_back_is_shown_with_its_reason(run):
    run("silences", "add", f"alertname={RULE}", "--for", "2h", "--by", "li", "--reason", "x")
    fire()
    [held] = json.loads(run("alerts", "held", "--json").stdout)
    assert (held["instance"], held["receiver"], held["reason"]) == (f"{RULE}{{region=华北}}", "file", "silence")
    assert "silence" in run("alerts", "held").stdout


@pytest.mark.parametrize("verb", ["ack", "snooze"])
def test_an_open_alert_is_taken_on_by_rule_alert_or_episode(run, verb):
    assert run("alerts", verb, RULE, "--by", "li", "--for", "1h").exit_code == 1
    fire()
    for subject in (RULE, f"{RULE}{{region=华北}}", f"{RULE}{{region=华北}}@2025-11-11T00:00"):
        result = run("alerts", verb, subject, "--by", "li", "--for", "1h", "--json")
        assert json.loads(result.stdout)["episodes"] == [f"{RULE}{{region=华北}}@2025-11-11T00:00"]


def test_an_acknowledgement_holds_as_long_as_the_routes_say(run):
    fire()
    assert "1 acknowledged until" in run("alerts", "ack", RULE, "--by", "li").stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("silences", "add", "x=y", "--by", "li", "--reason", "r"), "--for 2h"),
        (("silences", "add", "x=y", "--by", "li", "--reason", "r", "--for", "2"), "is not a duration"),
        (("silences", "add", "x=y", "--by", "li", "--reason", "r", "--until", "2020-01-01"), "later end"),
        (("silences", "add", "x", "--by", "li", "--reason", "r", "--for", "2h"), "expected =, !=, =~ or !~"),
        (("silences", "add", "x=~.*", "--by", "li", "--reason", "r", "--for", "2h"), "not every alert"),
        (("alerts", "snooze", "x", "--by", "li", "--until", "noon"), "is not a time"),
    ],
)
def test_wrong_usage_is_told(run, arguments, text):
    result = run(*arguments)
    assert result.exit_code == 2
    assert text in result.output
