"""Rule files → rules, with everything that is wrong with them at once.

A bad rule is a `Problem` and is left out; it never stops the others. Files whose name begins with `_` (routes, people)
and `*.test.yml` (tests beside rules) are not rule files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from metrics_pipeline.rules.catalogue import Catalogue
from metrics_pipeline.rules.lint import findings, nearest
from metrics_pipeline.rules.model import (
    Annotations,
    Group,
    MinChange,
    MinSample,
    NoData,
    RecoverIf,
    Rule,
    RuleFile,
    yaml_keys,
)

_NESTED: Mapping[str, type[BaseModel]] = {
    "min_sample": MinSample,
    "min_change": MinChange,
    "no_data": NoData,
    "recover_if": RecoverIf,
    "annotations": Annotations,
}
_MERGED = ("labels", "annotations")
_MENDS = {
    "missing": "add it to the rule or to the group's defaults",
    "string_too_short": "write a text",
    "string_pattern_mismatch": "write it as the description of the key says (metrics rules schema)",
}


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a rule file."""

    file: Path
    line: int
    rule: str | None
    """Id of the rule; None when it is about the file or group."""
    message: str
    mend: str

    def __str__(self) -> str:
        subject = f"{self.rule}: " if self.rule else ""
        return f"{self.file}:{self.line}: {subject}{self.message}; {self.mend}"


@dataclass(frozen=True)
class RuleSet:
    """The rules that can be used, and what is wrong with the others."""

    rules: tuple[Rule, ...]
    problems: tuple[Problem, ...]

    def __getitem__(self, rule_id: str) -> Rule:
        """A rule by its id. Raises `KeyError` that names the nearest one."""
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise KeyError(f"no rule {rule_id!r}{nearest(rule_id, (rule.id for rule in self.rules))}")


def load_rules(directory: Path, catalogue: Catalogue) -> RuleSet:
    """Read and lint every rule file of a folder, in the order of their names.

    `catalogue` is the whole metric library, not narrowed to what this installation has: a rule on a metric or slice
    that is absent here is valid and evaluates to `unknown`. Never raises for what is in the files; a missing folder
    is a problem too.
    """
    if not directory.is_dir():
        problem = Problem(
            directory, 0, None, "this folder of rules does not exist", "create it or set METRICS_RULES_DIR"
        )
        return RuleSet((), (problem,))
    rules: list[Rule] = []
    problems: list[Problem] = []
    for path in sorted((*directory.glob("*.yml"), *directory.glob("*.yaml"))):
        if not path.name.startswith("_") and not path.stem.endswith(".test"):
            _File(path, catalogue, rules, problems).read()
    seen: dict[str, Rule] = {}
    unique: list[Rule] = []
    for rule in rules:
        former = seen.setdefault(rule.id, rule)
        if former is rule:
            unique.append(rule)
            continue
        assert rule.file is not None
        problems.append(
            Problem(
                rule.file,
                rule.line,
                rule.id,
                f"two rules have this id; the other is {former.file}:{former.line}",
                "rename one of them",
            )
        )
    duplicated = {problem.rule for problem in problems if problem.message.startswith("two rules have this id")}
    return RuleSet(tuple(rule for rule in unique if rule.id not in duplicated), tuple(sorted(problems, key=_position)))


def _position(problem: Problem) -> tuple[str, int, str]:
    return str(problem.file), problem.line, problem.message


class _File:
    """One rule file on its way into rules and problems."""

    def __init__(self, path: Path, catalogue: Catalogue, rules: list[Rule], problems: list[Problem]) -> None:
        self._path = path
        self._catalogue = catalogue
        self._rules = rules
        self._problems = problems

    def read(self) -> None:
        try:
            content = YAML(typ="rt").load(self._path.read_text("utf-8"))
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
            text = " ".join(part for part in (error.context, error.problem) if part).splitlines()[0]
            self._report(line, None, f"this is not valid YAML: {text}", "mend the YAML at this line")
            return
        except (YAMLError, UnicodeDecodeError, OSError) as error:
            self._report(1, None, f"cannot be read: {str(error).splitlines()[0]}", "write it as YAML in UTF-8")
            return
        if not isinstance(content, dict) or "groups" not in content:
            self._report(1, None, "there is no `groups:` list", "begin with groups: [{name: …, rules: […]}]")
            return
        self._unknown_keys(content, RuleFile.model_fields, None)
        for index, group in enumerate(self._list(content, "groups", None)):
            self._group(group, _item_line(content["groups"], index))

    def _group(self, group: Any, line: int) -> None:
        if not isinstance(group, dict):
            self._report(line, None, "a group must be a mapping", "write name: and rules: below it")
            return
        self._unknown_keys(group, Group.model_fields, None)
        name = group.get("name")
        if not isinstance(name, str) or not name:
            self._report(line, None, "the group has no name", "add name: to it")
        defaults = group.get("defaults") or {}
        if not isinstance(defaults, dict):
            self._report(
                _key_line(group, "defaults"), None, "defaults must be a mapping of rule keys", "write key: value"
            )
            defaults = {}
        self._unknown_keys(defaults, yaml_keys(), None)
        for index, raw in enumerate(self._list(group, "rules", None)):
            self._rule(raw, defaults, str(name), _item_line(group["rules"], index))

    def _list(self, content: Any, key: str, rule: str | None) -> list[Any]:
        value = content.get(key)
        if isinstance(value, list):
            return value
        self._report(_key_line(content, key), rule, f"{key} must be a list", "begin each entry with -")
        return []

    def _rule(self, raw: Any, defaults: Mapping[str, Any], group: str, line: int) -> None:
        if not isinstance(raw, dict):
            self._report(line, None, "a rule must be a mapping", "begin it with - alert: <id>")
            return
        name = str(raw.get("alert") or "") or None
        before = len(self._problems)
        self._unknown_keys(raw, yaml_keys(), name)
        known = yaml_keys()
        merged = {key: value for key, value in {**defaults, **raw}.items() if key in known}
        for key in _MERGED:
            if isinstance(defaults.get(key), dict) and isinstance(raw.get(key), dict):
                merged[key] = {**defaults[key], **raw[key]}
        for key, model in _NESTED.items():
            if isinstance(merged.get(key), dict):
                self._unknown_keys(raw.get(key) if isinstance(raw.get(key), dict) else {}, model.model_fields, name)
                merged[key] = {inner: value for inner, value in merged[key].items() if inner in model.model_fields}
        try:
            rule = Rule.model_validate({**_plain(merged), "group": group, "file": self._path, "line": line})
        except ValidationError as error:
            for detail in error.errors():
                self._invalid(raw, line, name, detail)
            return
        for finding in findings(rule, self._catalogue):
            self._report(_key_line(raw, finding.key, line), name, finding.message, finding.mend)
        if len(self._problems) == before:
            self._rules.append(rule)

    def _invalid(self, raw: Any, line: int, name: str | None, detail: ErrorDetails) -> None:
        place: Any = raw
        at = line
        for step in detail["loc"]:
            if not isinstance(place, dict) or step not in place:
                break
            at = _key_line(place, str(step), at)
            place = place[step]
        key = ".".join(str(step) for step in detail["loc"]) or None
        match detail["type"]:
            case "missing":
                message = f"{key} is missing"
            case "expression" | "threshold" | "labels" | "min_change":
                message = detail["msg"] if key is None else f"{key}: {detail['msg']}"
            case _:
                shown = (
                    detail["input"]
                    if isinstance(detail["input"], str | int | float | bool)
                    else type(detail["input"]).__name__
                )
                message = f"{key}: {detail['msg']}, not {shown!r}"
        self._report(at, name, message, _MENDS.get(detail["type"], "write it as shown"))

    def _unknown_keys(self, content: Any, known: Iterable[str], rule: str | None) -> None:
        names = list(known)
        for key in content:
            if key not in names:
                guess = nearest(str(key), names) or f"; the keys are {', '.join(names)}"
                self._report(_key_line(content, key), rule, f"key {key!r} is not known{guess}", "rename or remove it")

    def _report(self, line: int, rule: str | None, message: str, mend: str) -> None:
        self._problems.append(Problem(self._path, line, rule, message, mend))


def _key_line(content: Any, key: str, default: int = 1) -> int:
    """Line of a key of a round-trip mapping; of the mapping itself, or the default, when it is not there."""
    marks = getattr(content, "lc", None)
    if marks is None:
        return default
    try:
        return int(marks.key(key)[0]) + 1
    except (KeyError, TypeError, AttributeError):
        return default if default > 1 else int(marks.line or 0) + 1


def _item_line(content: Any, index: int) -> int:
    return int(content.lc.item(index)[0]) + 1


def _plain(value: Any) -> Any:
    """Round-trip YAML values as plain ones."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
