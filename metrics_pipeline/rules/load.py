"""Rule files → rules, with everything that is wrong with them at once.

A rule has the keys of `_defaults.yml`, its group's `defaults` and its own, the later before the earlier; labels and
annotations are put together. A bad rule is a `Problem` and is left out; it never stops the others. Files whose name
begins with `_` (defaults, routes, people) and `*.test.yml` (tests beside rules) are not rule files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from metrics_pipeline.nearest import nearest
from metrics_pipeline.rules.catalogue import Catalogue
from metrics_pipeline.rules.lint import Finding, findings, set_findings
from metrics_pipeline.rules.model import (
    COMPOSITE,
    Annotations,
    Condition,
    DefaultsFile,
    Group,
    MinChange,
    MinSample,
    NoData,
    Override,
    RecoverIf,
    Rule,
    RuleFile,
    Variant,
    yaml_keys,
)
from metrics_pipeline.rules.seeds import Seeds
from metrics_pipeline.yaml_values import MarkedYAMLError, YAMLError, plain, read_yaml

_NESTED: Mapping[str, type[BaseModel]] = {
    "min_sample": MinSample,
    "min_change": MinChange,
    "no_data": NoData,
    "recover_if": RecoverIf,
    "annotations": Annotations,
}
_MERGED = ("labels", "annotations")
DEFAULTS_NAME = "_defaults.yml"
_PLACEHOLDERS: Mapping[str, Any] = {
    "alert": "unnamed_rule",
    "why": "-",
    "why_zh": "-",
    "metric": "-",
    "owner": "-",
    "labels": {"scenario": "-"},
    "annotations": {"summary": "-", "summary_zh": "-"},
    "yellow_if": "outside 1e300",
}
"""What stands for a key that cannot be read, so that the others can be checked all the same."""
_ENTRIES: Mapping[str, type[BaseModel]] = {
    "overrides": Override,
    "promotions": Variant,
    **dict.fromkeys(COMPOSITE, Condition),
}
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


def load_rules(directory: Path, catalogue: Catalogue, seeds: Seeds | None = None) -> RuleSet:
    """Read and lint every rule file of a folder, in the order of their names.

    `catalogue` is the whole metric library, not narrowed to what this installation has: a rule on a metric or slice
    that is absent here is valid and evaluates to `unknown`. With `seeds` the events that rules name and the targets
    they need are checked, too. Never raises for what is in the files; a missing folder is a problem too.
    """
    if not directory.is_dir():
        problem = Problem(
            directory, 0, None, "this folder of rules does not exist", "create it or set METRICS_RULES_DIR"
        )
        return RuleSet((), (problem,))
    rules: list[Rule] = []
    problems: list[Problem] = []
    defaults = _defaults(directory / DEFAULTS_NAME, problems)
    for path in sorted((*directory.glob("*.yml"), *directory.glob("*.yaml"))):
        if not path.name.startswith("_") and not path.stem.endswith(".test"):
            _File(path, problems, catalogue=catalogue, seeds=seeds, defaults=defaults, rules=rules).read()
    legible = _without_duplicates(rules, problems)
    count = -1
    while count != len(problems):  # a rule that falls takes those with it that look at it
        count = len(problems)
        broken = {problem.rule for problem in problems if problem.rule}
        for rule, finding in set_findings(legible, broken):
            assert rule.file is not None
            line = _line_of(rule.origins.get(finding.key, ""), rule.line)
            problem = Problem(rule.file, line, rule.id, finding.message, finding.mend)
            if problem not in problems:
                problems.append(problem)
    broken = {problem.rule for problem in problems if problem.rule}
    usable = tuple(rule for rule in legible.values() if rule.id not in broken)
    return RuleSet(usable, tuple(sorted(problems, key=_position)))


def _without_duplicates(rules: Iterable[Rule], problems: list[Problem]) -> dict[str, Rule]:
    """Rules by id; two of one id are both left out."""
    seen: dict[str, Rule] = {}
    duplicated: set[str] = set()
    for rule in rules:
        former = seen.setdefault(rule.id, rule)
        if former is rule:
            continue
        duplicated.add(rule.id)
        assert rule.file is not None
        message = f"two rules have this id; the other is {former.file}:{former.line}"
        problems.append(Problem(rule.file, rule.line, rule.id, message, "rename one of them"))
    return {rule.id: rule for rule in seen.values() if rule.id not in duplicated}


def _line_of(origin: str, default: int) -> int:
    line = origin.rpartition(":")[2]
    return int(line) if line.isdigit() else default


def _position(problem: Problem) -> tuple[str, int, str]:
    return str(problem.file), problem.line, problem.message


@dataclass(frozen=True)
class _Layer:
    """Keys of a rule from one place: the defaults of all rules, of a group, or the rule itself."""

    content: Mapping[str, Any]
    path: Path

    def line(self, key: str, default: int = 1) -> int:
        return _key_line(self.content, key, default)


def _defaults(path: Path, problems: list[Problem]) -> _Layer:
    """What `_defaults.yml` says; nothing when it is not there."""
    if not path.exists():
        return _Layer({}, path)
    file = _Text(path, problems)
    content = file.content()
    if content is None:
        return _Layer({}, path)
    defaults = content.get("defaults") if isinstance(content, dict) else None
    if not isinstance(defaults, dict):
        file.report(1, None, "there is no `defaults:` mapping", "begin with defaults: and rule keys below it")
        return _Layer({}, path)
    file.unknown_keys(content, DefaultsFile.model_fields, None)
    file.unknown_keys(defaults, yaml_keys(), None)
    return _Layer(defaults, path)


class _Text:
    """One file of YAML, and what is wrong with it."""

    def __init__(self, path: Path, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems

    def content(self) -> Any:
        """The parsed content; None, and a problem, when it cannot be read."""
        try:
            return read_yaml(self.path.read_text("utf-8")) or {}
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
            text = " ".join(part for part in (error.context, error.problem) if part).splitlines()[0]
            self.report(line, None, f"this is not valid YAML: {text}", "mend the YAML at this line")
        except (YAMLError, UnicodeDecodeError, OSError) as error:
            self.report(1, None, f"cannot be read: {str(error).splitlines()[0]}", "write it as YAML in UTF-8")
        return None

    def unknown_keys(self, content: Any, known: Iterable[str], rule: str | None) -> None:
        names = list(known)
        for key in content:
            if key not in names:
                guess = nearest(str(key), names) or f"; the keys are {', '.join(names)}"
                self.report(_key_line(content, key), rule, f"key {key!r} is not known{guess}", "rename or remove it")

    def report(self, line: int, rule: str | None, message: str, mend: str, path: Path | None = None) -> None:
        self.problems.append(Problem(path or self.path, line, rule, message, mend))


class _File(_Text):
    """One rule file on its way into rules and problems."""

    def __init__(
        self,
        path: Path,
        problems: list[Problem],
        *,
        catalogue: Catalogue,
        seeds: Seeds | None,
        defaults: _Layer,
        rules: list[Rule],
    ) -> None:
        super().__init__(path, problems)
        self._catalogue = catalogue
        self._seeds = seeds
        self._defaults = defaults
        self._rules = rules

    def read(self) -> None:
        content = self.content()
        if content is None:
            return
        if not isinstance(content, dict) or "groups" not in content:
            self.report(1, None, "there is no `groups:` list", "begin with groups: [{name: …, rules: […]}]")
            return
        self.unknown_keys(content, RuleFile.model_fields, None)
        for index, group in enumerate(self._list(content, "groups", None)):
            self._group(group, _item_line(content["groups"], index))

    def _group(self, group: Any, line: int) -> None:
        if not isinstance(group, dict):
            self.report(line, None, "a group must be a mapping", "write name: and rules: below it")
            return
        self.unknown_keys(group, Group.model_fields, None)
        name = group.get("name")
        if not isinstance(name, str) or not name:
            self.report(line, None, "the group has no name", "add name: to it")
        defaults = group.get("defaults") or {}
        if not isinstance(defaults, dict):
            self.report(
                _key_line(group, "defaults"), None, "defaults must be a mapping of rule keys", "write key: value"
            )
            defaults = {}
        self.unknown_keys(defaults, yaml_keys(), None)
        for index, raw in enumerate(self._list(group, "rules", None)):
            layers = (
                self._defaults,
                _Layer(defaults, self.path),
                _Layer(raw if isinstance(raw, dict) else {}, self.path),
            )
            self._rule(raw, layers, str(name), _item_line(group["rules"], index))

    def _list(self, content: Any, key: str, rule: str | None) -> list[Any]:
        value = content.get(key)
        if isinstance(value, list):
            return value
        self.report(_key_line(content, key), rule, f"{key} must be a list", "begin each entry with -")
        return []

    def _rule(self, raw: Any, layers: Sequence[_Layer], group: str, line: int) -> None:
        if not isinstance(raw, dict):
            self.report(line, None, "a rule must be a mapping", "begin it with - alert: <id>")
            return
        name = str(raw.get("alert") or "") or None
        self.unknown_keys(raw, yaml_keys(), name)
        for key, model in _NESTED.items():
            if isinstance(raw.get(key), dict):
                self.unknown_keys(raw[key], model.model_fields, name)
        merged, origins = _resolved(layers, line)
        own = {"group": group, "file": self.path, "line": line, "origins": origins}
        try:
            rule = Rule.model_validate({**merged, **own})
        except ValidationError as error:
            self._invalid(error, layers, line, name)
            broken = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
            for finding in self._findings_despite(merged, broken, own):
                self._found(finding, layers, line, name)
            return
        for finding in findings(rule, self._catalogue, self._seeds):
            self._found(finding, layers, line, name)
        self._rules.append(rule)  # with its problems: what is wrong between rules is told as well

    def _findings_despite(self, merged: Mapping[str, Any], broken: set[str], own: Mapping[str, Any]) -> list[Finding]:
        """What is wrong with the keys that can be read, of a rule with others that cannot."""
        legible = {key: value for key, value in merged.items() if key not in broken}
        stand_ins = {key: value for key, value in _PLACEHOLDERS.items() if key not in legible}
        if legible.get("red_if") is not None:
            stand_ins.pop("yellow_if", None)
        try:
            rule = Rule.model_validate({**stand_ins, **legible, **own})
        except ValidationError:  # two keys that do not go together: said already
            return []
        absent = {*broken, *stand_ins}
        return [one for one in findings(rule, self._catalogue, self._seeds) if one.key not in absent]

    def _found(self, finding: Finding, layers: Sequence[_Layer], line: int, name: str | None) -> None:
        layer = _layer_of(layers, finding.key)
        at = line if layer is None else layer.line(finding.key, line)
        self.report(at, name, finding.message, finding.mend, None if layer is None else layer.path)

    def _invalid(self, error: ValidationError, layers: Sequence[_Layer], line: int, name: str | None) -> None:
        said: set[tuple[str, int]] = set()
        for detail in error.errors():
            steps = list(detail["loc"])
            layer = _layer_of(layers, str(steps[0])) if steps else None
            path, at = (self.path, line) if layer is None else (layer.path, _place(layer.content, steps, line))
            message, mend = _said(detail)
            if (message, at) not in said:
                said.add((message, at))
                self.report(at, name, message, mend, path)


def _resolved(layers: Sequence[_Layer], line: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of a rule over all layers, and where each is from, as `file:line`."""
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        for key in yaml_keys():
            if key not in layer.content:
                continue
            value = plain(layer.content[key])
            if isinstance(value, dict) and key in _NESTED:
                value = {inner: one for inner, one in value.items() if inner in _NESTED[key].model_fields}
            origin = f"{layer.path}:{layer.line(key, line)}"
            if key in _MERGED and isinstance(value, dict):
                of_key = layer.content[key]
                origins |= {f"{key}.{inner}": f"{layer.path}:{_key_line(of_key, inner)}" for inner in value}
                if isinstance(merged.get(key), dict):
                    value = {**merged[key], **value}
            merged[key] = value
            origins[key] = origin
    return merged, origins


def _layer_of(layers: Sequence[_Layer], key: str) -> _Layer | None:
    """The place a key is from; None when nobody gives it."""
    return next((layer for layer in reversed(layers) if key in layer.content), None)


def _place(content: Any, steps: Sequence[int | str], line: int) -> int:
    """The line of the innermost thing that these steps lead to."""
    at = line
    for step in steps:
        if isinstance(content, dict):
            key = next((known for known in content if str(known) == str(step)), None)
            if key is None:
                break
            at, content = _key_line(content, key, at), content[key]
        elif isinstance(content, list) and isinstance(step, int) and step < len(content):
            at, content = _item_line(content, step), content[step]
        else:
            break
    return at


def _said(detail: ErrorDetails) -> tuple[str, str]:
    """What is wrong, and the mend, of one finding of pydantic."""
    steps = [str(step) for step in detail["loc"]]
    key = ".".join(steps)
    mend = _MENDS.get(detail["type"], "write it as shown")
    if steps and steps[0] in COMPOSITE:
        return (
            f"{'.'.join(steps[:2])}: this is neither a rule id nor a condition",
            "write a rule id, or all_of, any_of, not",
        )
    match detail["type"]:
        case "missing":
            return f"{key} is missing", mend
        case "extra_forbidden":
            known = list(_ENTRIES[steps[0]].model_fields) if steps[0] in _ENTRIES else []
            guess = nearest(steps[-1], known) or f"; the keys are {', '.join(known)}"
            return f"{'.'.join(steps[:-1])}: key {steps[-1]!r} is not known{guess}", "rename or remove it"
        case "expression" | "threshold" | "labels" | "min_change" | "variant" | "condition":
            return (f"{key}: {detail['msg']}" if key else detail["msg"]), mend
    given = detail["input"]
    shown = given if isinstance(given, str | int | float | bool) else type(given).__name__
    return f"{key}: {detail['msg']}, not {shown!r}", mend


def _key_line(content: Any, key: str, default: int = 1) -> int:
    """Line of a key of a mapping; of the mapping itself, or the default, when it is not there."""
    marks = getattr(content, "lc", None)
    if marks is None:
        return default
    try:
        return int(marks.key(key)[0]) + 1
    except (KeyError, TypeError, AttributeError):
        return default if default > 1 else int(marks.line or 0) + 1


def _item_line(content: Any, index: int) -> int:
    return int(content.lc.item(index)[0]) + 1
