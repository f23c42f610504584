"""`metrics alerts drill` as a person uses it, to the file it is sent to."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.cli.app import app
from metrics_pipeline.orchestration.delivery_job import is_time_due, queue_due
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import open_store
from tests.store.databases import new_home

INSTANCE = "drill:refund_rate_surge_by_region{region=华北}"
DRILL = ("alerts", "drill", "--rule", "refund_rate_surge_by_region", "--slice", "region=华北")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str):
        return CliRunner().invoke(app, [*arguments])

    return invoke


def test_a_drill_is_begun_sent_acknowledged_and_ended_by_the_delivery_job(run):
    result = run(*DRILL, "--send")
    assert result.exit_code == 0, result.output
    assert "metrics alerts ack drill:refund_rate_surge_by_region --by <name>" in result.output
    assert "sent" in result.output
    settings = load_settings()
    [page] = settings.messages_dir.glob("*-drill-refund_rate_surge_by_region-*.html")
    assert "演练" in page.read_text("utf-8")
    [listed] = json.loads(run("alerts", "list", "--json").stdout)
    assert (listed["instance"], listed["tier"]) == (INSTANCE, "red")
    assert run("alerts", "ack", "drill:refund_rate_surge_by_region", "--by", "li").exit_code == 0
    store = open_store(settings)
    later = datetime.now(UTC) + timedelta(minutes=6)
    assert is_time_due(store, settings, now=later)
    queue_due(settings, store, now=later)
    assert not is_time_due(store, settings, now=later)
    store.close()
    assert "nothing" in run("alerts", "list").output
    shown = json.loads(run("alerts", "show", INSTANCE, "--json").stdout)
    assert [one["reason"] for one in shown["messages"]] == ["first", "all_resolved"]


def test_a_drill_is_ended_by_hand(run):
    started = json.loads(run(*DRILL, "--receiver", "on-call", "--for", "30m", "--json").stdout)
    assert (started["drill"], started["told"], started["held"]) == (INSTANCE, ["file"], [])
    found = json.loads(run("alerts", "drill", "--end", "--json").stdout)
    assert (found["ended"], [(one["to"], one["why"]) for one in found["later"]]) == ([INSTANCE], [("file", "wait")])
    assert "No drill goes on." in run("alerts", "drill", "--end").output


def test_an_end_that_waits_for_the_interval_of_its_group_says_until_when(run):
    begun = datetime.now(UTC)
    assert run(*DRILL, "--send").exit_code == 0
    result = run("alerts", "drill", "--end", "--send")
    assert f"Ended: {INSTANCE}." in result.output
    assert "Sent" not in result.output
    assert "Told of the end later" in result.output
    settings = load_settings()
    [clock] = re.findall(r"file +wait +(\S+ \S+)", result.output)
    told_at = datetime.fromisoformat(clock).replace(tzinfo=settings.zone)
    assert timedelta(minutes=3) < told_at - begun < timedelta(minutes=6)
    store = open_store(settings)
    queue_due(settings, store, now=told_at + timedelta(minutes=1))
    assert [one.reason for one in notifications(store)] == ["all_resolved", "first"]
    store.close()


def test_a_scheduled_drill_is_begun_by_the_delivery_job(run, tmp_path):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_routes.yml").write_text(
        "route: {receiver: room, group_wait: 0s}\nreceivers: [{name: room, channels: [file]}]\ndrills: [{from: 2026-01-05T10:30, every: 1w}]\n",
        "utf-8",
    )
    settings = load_settings().model_copy(update={"rules_dir": rules})
    store = open_store(settings)
    try:
        monday = datetime(2026, 1, 12, 10, 30, tzinfo=settings.zone)
        assert not is_time_due(store, settings, now=monday - timedelta(minutes=1))
        assert is_time_due(store, settings, now=monday)
        assert len(queue_due(settings, store, now=monday)) == 1
        assert not is_time_due(store, settings, now=monday + timedelta(minutes=1))
        queue_due(settings, store, now=monday + timedelta(hours=2))
        assert [one.reason for one in notifications(store)] == ["all_resolved", "first"]
        assert is_time_due(store, settings, now=monday + timedelta(days=7))
        (rules / "_routes.yml").write_text("route: [", "utf-8")
        assert not is_time_due(store, settings, now=monday + timedelta(days=7)), "such a file begins nothing"
    finally:
        store.close()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--rule", "refund_rate_surge_by_region"), "give --slice region=…"),
        (("--rule", "refund_rate_surge", "--slice", "region=华北"), "has no slices; give no --slice"),
        (("--rule", "refund_rate_surg"), "did you mean 'refund_rate_surge'"),
        (("--slice", "region=华北"), "needs the --rule"),
        (("--severity", "orange"), "red or yellow"),
        (("--receiver", "on-cal"), "did you mean 'on-call'"),
        (("--for", "soon"), "is not a duration"),
        (("--for", "0s"), "longer time"),
    ],
)
def test_wrong_usage_is_told(run, arguments, text):
    result = run("alerts", "drill", *arguments)
    assert result.exit_code == 2, result.output
    assert text in result.output
