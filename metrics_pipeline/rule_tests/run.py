"""Running a file of tests: worlds, nights, and the comparison with what was expected."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metrics_pipeline.alerts.cards import card_of
from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.rule_tests.load import load_tests
from metrics_pipeline.rule_tests.model import Expectation, ExpectedMessage, RuleTest
from metrics_pipeline.rule_tests.night import (
    STEPS,
    Line,
    Night,
    SentMessage,
    fresh_store,
    routing_with,
    run_night,
    states,
)
from metrics_pipeline.rule_tests.world import Clock, Epoch, clock_of, epochs
from metrics_pipeline.rules.load import Problem
from metrics_pipeline.rules.model import Rule

JUDGED = ("ok", "yellow", "red")


@dataclass(frozen=True)
class Difference:
    """One thing that was not as expected."""

    night: int
    """0 = the test as a whole."""
    what: str
    """`tiers of 华北`, `states`, `messages`."""
    expected: str
    found: str
    detail: str = ""

    def __str__(self) -> str:
        where = f"night {self.night}: " if self.night else ""
        return f"{where}{self.what}: expected {self.expected}, was {self.found}{f' ({self.detail})' if self.detail else ''}"


@dataclass
class Outcome:
    """What one test did."""

    path: Path
    line: int
    test: RuleTest
    tiers: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(rule, member) → tier of each night's own verdict; `_` where there is none."""
    states: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    """(rule, member) → state after each night."""
    messages: dict[int, list[SentMessage]] = field(default_factory=dict)
    """Night → what was sent; nights without a message have none."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.test.name

    @property
    def passed(self) -> bool:
        return not self.differences

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "file": str(self.path),
            "line": self.line,
            "passed": self.passed,
            "differences": [vars(one) for one in self.differences],
            "tiers": {_label(key, self.test): " ".join(words) for key, words in sorted(self.tiers.items())},
            "states": {_label(key, self.test): " ".join(words) for key, words in sorted(self.states.items())},
            "messages": {str(night): [str(one) for one in sent] for night, sent in sorted(self.messages.items())},
        }

    def report(self) -> str:
        """What was not as expected, and the whole story under it."""
        lines = [f"{self.path}:{self.line}: {self.name}"]
        lines += [f"  {one}" for one in self.differences]
        for title, found in (("tiers", self.tiers), ("states", self.states)):
            lines += [
                f"    {title} of {_label(key, self.test)}: {' '.join(words)}" for key, words in sorted(found.items())
            ]
        lines += [f"    night {night}: {one}" for night, sent in sorted(self.messages.items()) for one in sent]
        return "\n".join(lines)


@dataclass(frozen=True)
class FileOutcome:
    """What a file of tests did."""

    path: Path
    outcomes: tuple[Outcome, ...]
    problems: tuple[Problem, ...]
    """Tests that cannot be run."""

    @property
    def passed(self) -> bool:
        return not self.problems and all(one.passed for one in self.outcomes)


def run_file(
    path: Path,
    rules: Mapping[str, Rule],
    metrics: Mapping[str, Metric],
    *,
    only: str | None = None,
    every_night: bool = False,
) -> FileOutcome:
    """Run every test of a file.

    `rules`: those that can be used, by id; `metrics`: the library. `only`: tests whose name contains this. `every_night`: publish and judge each night on its
    own, as an installation does, instead of joining those in which nothing old changes; slower, and the same.
    """
    tests = load_tests(path, rules, tuple(STEPS))
    chosen = [one for one in zip(tests.tests, tests.lines, strict=True) if only is None or only in one[0].name]
    outcomes = [Outcome(path, line, test) for test, line in chosen]
    by_clock: dict[Clock, list[Outcome]] = {}
    for outcome in outcomes:
        by_clock.setdefault(clock_of(outcome.test, rules), []).append(outcome)
    with tempfile.TemporaryDirectory(prefix="rule_tests_") as folder:
        for number, (clock, together) in enumerate(by_clock.items()):
            _run_together(Path(folder) / str(number), clock, together, rules, metrics, every_night=every_night)
    for outcome in outcomes:
        outcome.differences += _differences(outcome)
    return FileOutcome(path, tuple(outcomes), tests.problems)


def _run_together(
    folder: Path,
    clock: Clock,
    outcomes: Sequence[Outcome],
    rules: Mapping[str, Rule],
    metrics: Mapping[str, Metric],
    *,
    every_night: bool,
) -> None:
    found = list(epochs(clock, [one.test for one in outcomes], rules, folder / "published", every_night=every_night))
    for number, outcome in enumerate(outcomes):
        of_test = [rules[name] for name in outcome.test.rule_ids]
        cards = {rule.id: card_of(rule, metrics[rule.metric]) for rule in of_test}
        line, routing = Line(), routing_with(outcome.test.repeat)
        with fresh_store(folder, f"store-{number}") as store:
            for epoch in found:
                for number_of_night in range(epoch.first, min(epoch.last, outcome.test.nights) + 1):
                    night = Night(
                        store=store,
                        number=number_of_night,
                        now=clock.now(number_of_night),
                        cards=cards,
                        rule=outcome.test.rule,
                        line=line,
                        routing=routing,
                    )
                    _tell(outcome, epoch.rows[number], night, clock, epoch)


def _tell(outcome: Outcome, rows: Sequence[dict[str, Any]], night: Night, clock: Clock, epoch: Epoch) -> None:
    period, test = clock.period(night.number), outcome.test
    restated = night.number == epoch.first
    evaluated_at = night.now.replace(tzinfo=None)
    told = [
        {**row, "evaluated_at": evaluated_at}
        for row in rows
        if row["period_start"] == period or (restated and row["period_start"] < period)
    ]
    own = {(row["rule"], row["member"]): row for row in told if row["period_start"] == period}
    sent = run_night(night, [row for row in told if row["reason"] != "absent"], test.steps.get(night.number, ()))
    if sent:
        outcome.messages[night.number] = sent
    _note(outcome.tiers, {key: row["tier"] for key, row in own.items()}, night.number)
    _note(outcome.states, states(night.store), night.number)
    for expectation in _expectations(test):
        for member, words in expectation.tiers.items():
            if night.number > len(words) or words[night.number - 1] == "*":
                continue
            key = _only(expectation.rule, member, outcome.tiers)
            row = own.get(key)
            was = row["tier"] if row else "_"
            if was != words[night.number - 1]:
                what = f"tier of {_label(key, test)}"
                outcome.differences.append(Difference(night.number, what, words[night.number - 1], was, _facts(row)))


def _note(lines: dict[tuple[str, str], list[str]], words: Mapping[tuple[str, str], str], night: int) -> None:
    for key in words:
        lines.setdefault(key, ["_"] * (night - 1))
    for key, line in lines.items():
        line.append(words.get(key, "_"))


def _differences(outcome: Outcome) -> list[Difference]:
    test, found = outcome.test, []
    for expectation in _expectations(test):
        for member, words in expectation.states.items():
            key = _only(expectation.rule, member, outcome.states)
            line = outcome.states.get(key, [])
            for night, (expected, was) in enumerate(zip(words, [*line, *["_"] * len(words)], strict=False), start=1):
                if expected not in ("*", was):
                    found.append(Difference(night, f"state of {_label(key, test)}", expected, was))
    for night in sorted({*test.messages, *outcome.messages}):
        found += _message_differences(night, test, outcome.messages.get(night, []))
    if not any(word in JUDGED for words in outcome.tiers.values() for word in words) and not test.tiers:
        found.append(
            Difference(0, "verdicts", "at least one that could be judged", "none", "write tiers if this is meant")
        )
    return found


def _message_differences(night: int, test: RuleTest, sent: Sequence[SentMessage]) -> list[Difference]:
    left = list(sent)
    found = []
    for expected in test.messages.get(night, ()):
        match = next((one for one in left if _is_as(expected, one, test)), None)
        if match is None:
            found.append(Difference(night, "message", str(expected), "; ".join(map(str, sent)) or "none"))
        else:
            left.remove(match)
    found += [Difference(night, "message", "no other", str(one)) for one in left]
    return found


def _is_as(expected: ExpectedMessage, one: SentMessage, test: RuleTest) -> bool:
    return (
        one.rule == (expected.rule or test.rule)
        and one.reason == expected.reason
        and expected.tier in (None, one.tier)
        and (expected.slices is None or sorted(expected.slices) == list(one.slices))
    )


def _expectations(test: RuleTest) -> list[Expectation]:
    return [Expectation(rule=test.rule, tiers=test.tiers, states=test.states), *test.also]


def _only(rule: str, member: str, known: Mapping[tuple[str, str], Any]) -> tuple[str, str]:
    """The key of a slice; without a member the only one of its rule, else the total."""
    if member:
        return rule, member
    of_rule = [key for key in known if key[0] == rule]
    return of_rule[0] if len(of_rule) == 1 else (rule, "all")


def _label(key: tuple[str, str], test: RuleTest) -> str:
    rule, member = key
    name = rule if len(test.rule_ids) > 1 else ""
    return f"{name} {'' if member == 'all' else member}".strip() or "the total"


def _facts(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    names = ("reason", "value", "observed", "baseline", "sample")
    shown = [(name, row[name]) for name in names if row[name] is not None]
    return ", ".join(f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown)
