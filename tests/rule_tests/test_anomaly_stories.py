"""Stories of rules with `anomaly(...)`: what is learned from a history in promtool notation, up to the message."""

from __future__ import annotations

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rule_tests import run_file
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT

RULES = """
groups:
  - name: learned
    defaults:
      why: Because.
      why_zh: 因为。
      owner: sales
      labels: {scenario: order_anomaly}
      annotations: {summary: Unusual., summary_zh: 异常。}
    rules:
      - {alert: unusual, metric: orders_paid, by: [region], expr: "anomaly(budget=1/month, red=1/year)", direction: fall}
      - {alert: drifting, metric: orders_paid, expr: "anomaly(drift, budget=1/quarter, red=1/year)"}
"""
WEEKS = " ".join(["400 404 396 408 392 480 470"] * 12)
"""84 nights up to 0, which is a Sunday: the week of a shop, every week the same."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rules")
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    (folder / "learned.yml").write_text(RULES, "utf-8")
    ruleset = load_rules(folder, catalogue)
    assert ruleset.problems == ()

    def run(text: str, **options):
        path = folder / "learned.test.yml"
        path.write_text(text, "utf-8")
        result = run_file(path, {rule.id: rule for rule in ruleset.rules}, catalogue.metrics, **options)
        assert result.problems == ()
        return result.outcomes

    return run


def slices(north: str, others: str = "400 404 396") -> str:
    series = [("华北", north), *((name, others) for name in ("华东", "华南", "西南"))]
    return "".join(
        f"      - {{metric: orders_paid, slice: {{region: {name}}}, history: {WEEKS}, values: {values}}}\n"
        for name, values in series
    )


STORIES = f"""
tests:
  - name: a region that falls alone is told and ends
    rule: unusual
    series:
{slices("400 150 396")}    tiers: {{华北: ok red ok, 华东: ok ok ok}}
    states: {{华北: ok red ok, 华东: ok ok ok}}
    messages: {{2: {{reason: first, tier: red, slices: [华北]}}, 3: all_resolved}}

  - name: a rise is no fall
    rule: unusual
    series:
{slices("400 900 396")}    tiers: {{华北: ok ok ok}}

  - name: what all regions do together is a sale nobody entered
    rule: unusual
    series:
{slices("400 800 396", "400 808 396")}    tiers: {{华北: ok ok ok, 华东: ok ok ok}}

  - name: some percent less every day is told after days
    rule: drifting
    series:
      - {{metric: orders_paid, history: {WEEKS}, values: 388 388 376 384 365 442 428}}
    tiers: ok ok ok ok ok yellow yellow
    states: ok ok ok ok ok yellow yellow
    messages: {{6: first yellow}}

  - name: one low day is no drift
    rule: drifting
    series:
      - {{metric: orders_paid, history: {WEEKS}, values: 400 364 396 408 392 480 470}}
    tiers: ok ok ok ok ok ok ok
"""


@pytest.mark.parametrize("every_night", [False, True])
def test_the_stories_hold(run, every_night):
    for outcome in run(STORIES, every_night=every_night):
        assert outcome.passed, outcome.report()


def test_a_wrong_expectation_fails(run):
    [outcome] = run(
        f"tests:\n  - name: wrong\n    rule: unusual\n    series:\n{slices('400 150 396')}    tiers: {{华北: ok ok ok}}\n"
    )
    assert not outcome.passed
    assert "expected ok, was red" in outcome.report()
