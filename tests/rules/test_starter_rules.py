"""The stories beside the shipped rules, and that no rule is without them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rule_tests import Outcome, find_test_files, load_tests, run_file
from metrics_pipeline.rule_tests.night import STEPS
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.settings import PROJECT_ROOT

DIRECTORY = PROJECT_ROOT / "alert_rules"
CATALOGUE = Catalogue.read(PROJECT_ROOT / "dbt_project")
RULES = {rule.id: rule for rule in load_rules(DIRECTORY, CATALOGUE).rules}
TESTS = [
    (path, test.name) for path in find_test_files(DIRECTORY) for test in load_tests(path, RULES, tuple(STEPS)).tests
]


@cache
def outcomes(path: Path) -> dict[str, Outcome]:
    result = run_file(path, RULES, CATALOGUE.metrics)
    assert [str(problem) for problem in result.problems] == []
    return {one.name: one for one in result.outcomes}


@pytest.mark.parametrize(("path", "name"), TESTS, ids=[f"{path.stem}: {name}" for path, name in TESTS])
def test_story(path, name):
    outcome = outcomes(path)[name]
    assert outcome.passed, outcome.report()


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_every_rule_fires_is_quiet_and_ends(rule: Rule):
    assert rule.file is not None
    of_rule = [one for one in outcomes(rule.file.with_suffix(".test.yml")).values() if one.test.rule == rule.id]
    sent = [[message.reason for messages in one.messages.values() for message in messages] for one in of_rule]
    assert any("first" in reasons for reasons in sent), "no test in which it fires"
    assert any("all_resolved" in reasons for reasons in sent), "no test in which it ends"
    quiet = [one for one, reasons in zip(of_rule, sent, strict=True) if not reasons and one.test.tiers]
    assert quiet, "no test in which something unusual happens and it is quiet"
