"""Runbooks against the rules and the metric library: what on-call reads at night must exist and be right."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.sources.contract import load_contract

RUNBOOKS = PROJECT_ROOT / "docs" / "runbooks"
FILES = {path.stem: path for path in sorted(RUNBOOKS.glob("*.md")) if path.name != "README.md"}
RULE_IDS = {
    rule_id
    for path in (PROJECT_ROOT / "alert_rules").glob("*.yml")
    for rule_id in re.findall(r"^ *- alert: (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}
"""Read without the loader: tests are named at collection, which should cost nothing."""
OF_RULES = sorted(FILES.keys() & RULE_IDS)
CHINESE = re.compile(r"[\u4e00-\u9fff]")
IN_CODE = re.compile(r"`([^`\n]+)`")
IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)+")
RAW_ASSET = re.compile(r"raw/(\w+)")


@cache
def catalogue() -> Catalogue:
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@cache
def rules() -> dict[str, Rule]:
    return {rule.id: rule for rule in load_rules(PROJECT_ROOT / "alert_rules", catalogue()).rules}


@cache
def known_words() -> frozenset[str]:
    """What an identifier in a runbook may be, beside a metric."""
    tables = load_contract().tables
    return frozenset(
        [
            *catalogue().metrics,
            *rules(),
            *(name for metric in catalogue().metrics.values() for name in metric.dimension_columns),
            *(table.name for table in tables),
            *(column.name for table in tables for column in table.columns),
        ]
    )


def halves(path: Path) -> tuple[str, str]:
    """English and Chinese part."""
    parts = re.split(r"^## 中文$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(parts) == 2, f"{path.name}: one heading `## 中文` parts English from Chinese"
    return parts[0], parts[1]


def code(text: str) -> list[str]:
    return IN_CODE.findall(text)


def commands(text: str) -> list[str]:
    return [words for words in code(text) if words.startswith("metrics ") and "<" not in words]


def problem_of(command: str) -> str | None:
    """Why a `metrics value` command would answer nothing; None when it would."""
    words = shlex.split(command)
    metric = catalogue().metrics.get(words[2])
    if words[1] != "value":
        return "only `metrics value` is expected here"
    if metric is None:
        return f"no metric {words[2]}"
    if len(words) % 2 == 0:
        return "an option lacks its value"
    options = dict(zip(words[3::2], words[4::2], strict=True))
    if unknown := options.keys() - {"--by", "--from", "--grain", "--member"}:
        return f"options {', '.join(sorted(unknown))}"
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", options.get("--from", "")):
        return "--from YYYY-MM-DD is missing"
    slices = metric.hour_slices if options.get("--grain") == "hour" else metric.slices
    wanted = options.get("--by", "all")
    return None if wanted in slices else f"{metric.id} has no {options.get('--grain', 'day')} slice {wanted}"


def test_every_rule_has_a_runbook():
    assert rules()
    assert not rules().keys() - FILES.keys(), "write docs/runbooks/<rule id>.md"


def test_the_link_of_every_rule_leads_somewhere():
    broken = {}
    for rule in rules().values():
        path, _, anchor = (rule.annotations.runbook or "").partition("#")
        file = PROJECT_ROOT / path
        if not file.is_file() or (anchor and f"## {anchor}\n" not in file.read_text(encoding="utf-8")):
            broken[rule.id] = rule.annotations.runbook
    assert not broken


def test_every_rule_links_to_its_own_runbook():
    assert {rule.id: rule.annotations.runbook for rule in rules().values()} == {
        rule_id: f"docs/runbooks/{rule_id}.md" for rule_id in rules()
    }


def test_every_runbook_belongs_to_a_rule():
    linked = {Path((rule.annotations.runbook or "").partition("#")[0]).stem for rule in rules().values()}
    assert not FILES.keys() - rules().keys() - linked


@pytest.mark.parametrize("name", [*OF_RULES, "README"])
class TestEachRunbook:
    def test_is_in_english_and_chinese(self, name):
        english, chinese = halves(RUNBOOKS / f"{name}.md")
        if name != "README":  # its first line links to the Chinese part
            assert not CHINESE.search(english)
            assert CHINESE.search(chinese.strip().splitlines()[0])
        assert len(CHINESE.findall(chinese)) > 200

    def test_says_the_same_in_both(self, name):
        english, chinese = halves(RUNBOOKS / f"{name}.md")
        assert commands(english) == commands(chinese)
        for mark in (r"^\d\. ", r"^- ", r"^\*\*", r"^\|"):
            assert len(re.findall(mark, english, re.M)) == len(re.findall(mark, chinese, re.M)), mark

    def test_names_only_what_exists(self, name):
        text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
        identifiers = {word for word in code(text) if IDENTIFIER.fullmatch(word)}
        if name == "README":
            identifiers -= {"rows_read", "rows_accepted", "rows_quarantined", "complete_until_utc", "touched_days"}
            identifiers -= {"raw_contract"}
        assert not identifiers - known_words()
        tables = {table.name for table in load_contract().tables} | {"hourly_arrivals"}
        assert {found for words in code(text) for found in RAW_ASSET.findall(words)} <= tables


@pytest.mark.parametrize("name", OF_RULES)
class TestEachRulesRunbook:
    def test_has_commands_that_answer(self, name):
        english, _ = halves(FILES[name])
        found = commands(english)
        assert len(found) >= 3
        assert {command: why for command in found if (why := problem_of(command))} == {}

    def test_asks_for_one_sku_by_member(self, name):
        english, _ = halves(FILES[name])
        for command in commands(english):
            assert "--member" not in command or '--by sku --member "$SKU"' in command

    def test_names_metric_slice_and_owner_of_its_rule(self, name):
        rule = rules()[name]
        for half in halves(FILES[name]):
            first = next(line for line in half.splitlines() if line.startswith("**"))
            assert f"`{rule.metric}`" in first
            assert all(f"`{dimension}`" in first for dimension in rule.by)
            assert re.search(rf"(Owner: |负责人：)`{re.escape(rule.owner)}`", half)

    def test_is_short_enough_for_the_night(self, name):
        assert 25 <= len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 45


def test_no_two_runbooks_give_the_same_advice():
    said: dict[str, set[str]] = {}
    for name, path in FILES.items():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(("**", "- ")) and line.strip("*- "):
                said.setdefault(line, set()).add(name)
    headings = {line for line, names in said.items() if re.fullmatch(r"\*\*[^*]+\*\*", line)}
    repeated = {line: names for line, names in said.items() if len(names) > 1 and line not in headings}
    assert not repeated, "what two runbooks say alike belongs into README.md"
