"""`metrics routes` as a person uses it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from tests.routing.builders import write
from tests.store.databases import new_home


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))

    def invoke(*arguments: str):
        return CliRunner().invoke(app, ["routes", *arguments])

    return invoke


def test_the_tree_is_shown_with_who_is_on_call(run):
    result = run("show")
    assert result.exit_code == 0, result.output
    assert "{} owner  by alertname" in result.output
    assert "on call in on-call: duty" in result.output
    assert json.loads(run("show", "--json").stdout)["routes"]["receiver"] == "owner"


def test_an_alert_is_followed_to_its_recipients(run):
    result = run("test", "--rule", "gmv_anomaly", "--label", "severity=red", "--at", "2026-11-11T23:30")
    assert result.exit_code == 0, result.output
    assert "to file" in result.output
    assert "2026-11-11 23:30" in result.output
    assert "not acknowledged after 1h: on-call" in result.output
    found = json.loads(run("test", "--label", "severity=red", "--json").stdout)
    assert found["destinations"][0]["recipients"][0]["to"] == "file"
    assert found["trace"][0] == {"route": "{}", "matched": True, "failed": None, "chosen": True}


@pytest.mark.parametrize(("alarm", "label"), [("pipeline_failed", "job=nightly"), ("alerting_down", "part=data")])
def test_an_alarm_about_the_pipeline_is_followed_like_an_alert(run, alarm, label):
    found = json.loads(run("test", "--rule", alarm, "--label", label, "--json").stdout)
    assert {"alertname": alarm, "severity": "red", "scenario": "pipeline", "owner": "data"}.items() <= found[
        "labels"
    ].items()
    assert [one["receiver"] for one in found["destinations"]] == ["on-call"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--label", "severity"], "is not NAME=VALUE"),
        (["--at", "noon"], "is not a time"),
        (["--rule", "gmv_anomly"], "did you mean 'gmv_anomaly'"),
    ],
)
def test_wrong_usage_is_told(run, arguments, text):
    result = run("test", *arguments)
    assert result.exit_code == 2
    assert text in result.output


def test_problems_are_shown_and_lint_shows_them_too(run, tmp_path, monkeypatch):
    folder = write(tmp_path / "rules", "route: {receiver: nobody}\nreceivers: [{name: r, channels: [file]}]\n")
    monkeypatch.setenv("METRICS_RULES_DIR", str(folder))
    result = run("show")
    assert result.exit_code == 1
    assert "_routes.yml:1: receiver 'nobody' is not defined" in result.output
    linted = CliRunner().invoke(app, ["rules", "lint"])
    assert linted.exit_code == 1
    assert "receiver 'nobody' is not defined" in linted.output
    assert json.loads(run("schema").stdout)["title"] == "RoutesFile"
