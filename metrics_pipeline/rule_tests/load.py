"""Test files → tests, with everything that is wrong with them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metrics_pipeline.nearest import nearest
from metrics_pipeline.rule_tests.model import Acknowledgement, RuleTest, RuleTestFile
from metrics_pipeline.rules.load import Problem
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.yaml_values import MarkedYAMLError, YAMLError, plain, read_yaml

PATTERN = "*.test.yml"


@dataclass(frozen=True)
class TestsOfFile:
    """The tests of one file that can be run, and what is wrong with the others."""

    __test__ = False

    path: Path
    tests: tuple[RuleTest, ...]
    lines: tuple[int, ...]
    """Line of each test."""
    problems: tuple[Problem, ...]


def find_test_files(directory: Path) -> list[Path]:
    """The test files beside the rules of a folder, by name."""
    return sorted(directory.glob(PATTERN))


def load_tests(path: Path, rules: Mapping[str, Rule], steps: Sequence[str] = ()) -> TestsOfFile:
    """Read one test file; a test that cannot be run is a problem and stops only itself.

    `rules`: the rules that can be used, by id. `steps`: names of the steps that are known.
    """
    problems: list[Problem] = []

    def report(line: int, name: str | None, message: str, mend: str) -> None:
        problems.append(Problem(path, line, name, message, mend))

    content = _content(path, report)
    if content is None:
        return TestsOfFile(path, (), (), tuple(problems))
    if not isinstance(content, dict) or not isinstance(content.get("tests"), list):
        report(1, None, "there is no `tests:` list", "begin with tests: [{name: …, rule: …, series: […]}]")
        return TestsOfFile(path, (), (), tuple(problems))
    for key in content:
        if key not in RuleTestFile.model_fields:
            report(_line(content, [key]), None, f"key {key!r} is not known", "remove it; a test file has tests: only")
    found: list[tuple[RuleTest, int]] = []
    names: dict[str, int] = {}
    for index, raw in enumerate(content["tests"]):
        line = int(content["tests"].lc.item(index)[0]) + 1
        name = str(raw.get("name")) if isinstance(raw, dict) and raw.get("name") else None
        before = len(problems)
        if not isinstance(raw, dict):
            report(line, None, "a test must be a mapping", "begin it with - name: <what is true>")
            continue
        try:
            test = RuleTest.model_validate(plain(raw, key=lambda name: name))
        except ValidationError as error:
            for detail in error.errors():
                key = ".".join(str(step) for step in detail["loc"]) or "test"
                known = RuleTest.model_fields if len(detail["loc"]) == 1 else {}
                guess = nearest(key, known) if detail["type"] == "extra_forbidden" else ""
                message = f"{key}: {detail['msg']}{guess}"
                report(_line(raw, list(detail["loc"]), line), name, message, "see docs/rules.md, Tests")
            continue
        for key, message, mend in _findings(test, rules, steps):
            report(_line(raw, [key], line), name, message, mend)
        if test.name in names:
            report(
                line, name, f"two tests have this name; the other is in line {names[test.name]}", "rename one of them"
            )
        names.setdefault(test.name, line)
        if len(problems) == before:
            found.append((test, line))
    return TestsOfFile(path, tuple(test for test, _ in found), tuple(line for _, line in found), tuple(problems))


def _content(path: Path, report: Any) -> Any:
    try:
        return read_yaml(path.read_text("utf-8")) or {}
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        text = " ".join(part for part in (error.context, error.problem) if part).splitlines()[0]
        report(line, None, f"this is not valid YAML: {text}", "mend the YAML at this line")
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        report(1, None, f"cannot be read: {str(error).splitlines()[0]}", "write it as YAML in UTF-8")
    return None


def _findings(test: RuleTest, rules: Mapping[str, Rule], steps: Sequence[str]) -> list[tuple[str, str, str]]:
    """Key, message and mend of everything that stops this test."""
    used = [rules[name] for name in test.rule_ids if name in rules]
    found = []
    for name in test.rule_ids:
        if name not in rules:
            mend = "write the id of a rule that `metrics rules lint` accepts"
            found.append(("rule", f"there is no rule {name!r} that can be used{nearest(name, rules)}", mend))
    if len({rule.grain for rule in used}) > 1:
        found.append(("rules", "rules per day and per hour share no night", "write a test for each grain"))
    for rule in used:
        found += _lacking(rule, test)
    keys = [(series.metric, series.dimension, series.member) for series in test.series]
    if len(set(keys)) < len(keys):
        found.append(("series", "two series are of the same slice", "write their values into one"))
    for night, of_night in test.steps.items():
        for name in (name for step in of_night for name in step if name not in steps):
            message = f"night {night}: step {name!r} is not known{nearest(name, steps)}"
            found.append(("steps", message, f"use one of: {', '.join(steps) or 'none is known yet'}"))
    found += _pointless_steps(test)
    for sent in (one for messages in test.messages.values() for one in messages):
        if sent.rule is not None and sent.rule not in test.rule_ids:
            found.append(("messages", f"{sent.rule!r} is no rule of this test", f"use {', '.join(test.rule_ids)}"))
    return found


def _pointless_steps(test: RuleTest) -> list[tuple[str, str, str]]:
    """Acknowledgements that can change nothing in this test."""
    found = []
    given = [(night, one) for night, of_night in test.steps.items() for step in of_night for one in step.values()]
    for night, ack in ((night, one) for night, one in given if isinstance(one, Acknowledgement)):
        rule = ack.rule or test.rule
        members = {series.member for series in test.series}
        if rule not in test.rule_ids:
            mend = f"use one of: {', '.join(test.rule_ids)}"
            found.append(("steps", f"night {night}: ack: {rule!r} is no rule of this test", mend))
        if ack.member is not None and ack.member not in members:
            guess = nearest(ack.member, members)
            mend = f"use one of: {', '.join(sorted(members))}"
            found.append(("steps", f"night {night}: ack: there is no series of {ack.member!r}{guess}", mend))
        if test.repeat is None:
            message = f"night {night}: ack changes nothing here, for nothing is said again"
            found.append(("steps", message, "add repeat: 1d to the test"))
    return found


def _lacking(rule: Rule, test: RuleTest) -> list[tuple[str, str, str]]:
    """Rules and series that a rule needs and the test does not have."""
    found = [
        ("rule", f"{rule.id} looks at {part}, which is not in this test", f"add rules: [{part}]")
        for part in rule.references
        if part not in test.rule_ids
    ]
    given = {(series.metric, series.dimension) for series in test.series}
    for metric in (rule.metric, *([rule.min_sample.metric] if rule.min_sample else [])):
        if (metric, rule.dimension) not in given and rule.expr.family != "freshness":
            message = f"{rule.id} needs {metric} by {rule.dimension}, of which there is no series"
            found.append(("series", message, f"add a series of {metric}"))
    return found


def _line(content: Any, steps: list[int | str], default: int = 1) -> int:
    """The line of the innermost thing that these steps lead to."""
    at = default
    for step in steps:
        marks: Any = getattr(content, "lc", None)
        if isinstance(content, dict):
            key = next((known for known in content if str(known) == str(step)), None)
            if key is None:
                break
            at, content = int(marks.key(key)[0]) + 1, content[key]
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            at, content = int(marks.item(step)[0]) + 1, content[step]
        else:
            break
    return at
