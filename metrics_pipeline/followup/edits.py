"""A rule file with some keys of one rule changed: comments, order and quotes stay as they are.

The change is tried in a copy of the folder: the same lint that reads the installation's rules reads it there, so that nothing is
written that would not be read again.
"""

from __future__ import annotations

import difflib
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import Problem, RuleSet, load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.seeds import Seeds
from metrics_pipeline.yaml_values import plain

KEYS: Final = (
    "expr", "yellow_if", "red_if", "recover_if", "for", "keep_firing_for", "min_sample", "min_change", "overrides", "promotions",
)  # fmt: skip
"""Keys of a rule that a proposal may change."""
_TEXTS: Final = ("annotations", "labels", "no_data", "owner")
"""Keys before which a new one is put."""


class EditError(ValueError):
    """A change that cannot be made to the rule files; the message says what to do."""


@dataclass(frozen=True)
class Edit:
    """A rule as it is and as it would be, and its file."""

    path: Path
    former: str
    text: str
    before: Rule
    after: Rule
    ruleset: RuleSet
    """All rules as they would be."""

    @property
    def is_written(self) -> bool:
        """Whether the file has the change already."""
        return self.text == self.former

    def diff(self) -> str:
        """What changes in the file, as a unified diff."""
        lines = (self.former.splitlines(keepends=True), self.text.splitlines(keepends=True))
        return "".join(difflib.unified_diff(*lines, f"a/{self.path.name}", f"b/{self.path.name}", n=2))


def edit_rule(rules_dir: Path, catalogue: Catalogue, seeds: Seeds, rule: str, changes: Mapping[str, Any]) -> Edit:
    """The file of a rule with these keys (None takes one away). Raises `EditError` with what lint finds."""
    if wrong := [name for name in changes if name not in KEYS]:
        raise EditError(f"{', '.join(wrong)} cannot be changed by a proposal; there are: {', '.join(KEYS)}")
    known = load_rules(rules_dir, catalogue, seeds)
    before = rule_of(known, rule)
    assert before.file is not None
    former = before.file.read_text("utf-8")
    text = _edited(former, rule, changes, inherited=_inherited(before, former, rule))
    with trial(rules_dir, before.file, text) as folder:
        ruleset = load_rules(folder, catalogue, seeds)
    if fresh := [one for one in ruleset.problems if not _is_known(one, known, folder, rules_dir)]:
        raise EditError(_told(fresh, folder, rules_dir))
    return Edit(before.file, former, text, before, rule_of(ruleset, rule), ruleset)


def rule_of(ruleset: RuleSet, rule: str) -> Rule:
    """A rule that can be used, by its id. Raises `EditError`."""
    try:
        return ruleset[rule]
    except KeyError as error:
        own = "; ".join(str(one) for one in ruleset.problems if one.rule == rule)
        raise EditError(own or f"{error.args[0]}; `metrics rules lint` lists all") from None


@contextmanager
def trial(rules_dir: Path, path: Path, text: str) -> Iterator[Path]:
    """A copy of the folder in which a file has another text."""
    with tempfile.TemporaryDirectory(prefix="rules_") as scratch:
        folder = Path(scratch) / rules_dir.name
        shutil.copytree(rules_dir, folder)
        (folder / path.relative_to(rules_dir)).write_text(text, "utf-8")
        yield folder


def write(edit: Edit) -> None:
    """Replace the file atomically. Raises `EditError` when it was changed meanwhile or cannot be written."""
    try:
        if edit.path.read_text("utf-8") != edit.former:
            raise EditError(f"{edit.path.name} was changed meanwhile; look at the proposal again")
        part = edit.path.with_name(f".{edit.path.name}.part")
        part.write_text(edit.text, "utf-8")
        part.replace(edit.path)
    except OSError as error:
        raise EditError(f"{edit.path} cannot be written ({error.strerror}); nothing was changed") from None


def flow(value: Any) -> Any:
    """A value as it is written in rule files: texts that look like something else in quotes, mappings in one line."""
    if isinstance(value, Mapping):
        found = CommentedMap({_quoted(str(name)): flow(one) for name, one in value.items()})
        found.fa.set_flow_style()
        return found
    if isinstance(value, list | tuple):
        listed = CommentedSeq([flow(one) for one in value])
        if all(isinstance(one, Mapping) for one in value):
            return listed
        listed.fa.set_flow_style()
        return listed
    return _quoted(value) if isinstance(value, str) else value


def _quoted(text: str) -> str:
    plainly = text.replace("_", "").isalpha() and text not in ("true", "false", "null", "yes", "no", "on", "off")
    return text if plainly else DoubleQuotedScalarString(text)


def _edited(former: str, rule: str, changes: Mapping[str, Any], *, inherited: frozenset[str]) -> str:
    yaml = yaml_of_files()
    document = yaml.load(former)
    untouched = dumped(yaml, document)
    entry = _entry(document, rule)
    for name, value in changes.items():
        if value is None and name not in inherited:
            entry.pop(name, None)
        elif name in entry:
            if plain(entry[name]) != plain(value):
                entry[name] = flow(value)
        else:
            place = next((n for n, key in enumerate(entry) if key in _TEXTS), len(entry))
            entry.insert(place, name, flow(value))
    return _merged(former, untouched, dumped(yaml, document))


def _entry(document: Any, rule: str) -> Any:
    """The mapping of a rule in a file."""
    rules = (one for group in document["groups"] for one in group["rules"])
    return next(one for one in rules if isinstance(one, Mapping) and one.get("alert") == rule)


def _inherited(rule: Rule, text: str, name: str) -> frozenset[str]:
    """Keys that the rule has from defaults: they are taken away by null, not by leaving them out."""
    entry = _entry(yaml_of_files().load(text), name)
    return frozenset(key for key in rule.origins if key not in entry)


def yaml_of_files() -> YAML:
    """A parser and writer that keeps comments, quotes and the layout of the shipped files."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def dumped(yaml: YAML, document: Any) -> str:
    """A document as text."""
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _merged(former: str, untouched: str, changed: str) -> str:
    """The change `untouched` → `changed` made to `former`: where the writer lays a file out otherwise, its lines stay.

    Falls back to `changed` where a changed line is one that is laid out otherwise.
    """
    if untouched == former:
        return changed
    own, base, new = (text.splitlines(keepends=True) for text in (former, untouched, changed))
    place: dict[int, int] = {}
    for mine, theirs, size in difflib.SequenceMatcher(None, own, base, autojunk=False).get_matching_blocks():
        place |= {theirs + n: mine + n for n in range(size)}
    place[len(base)] = len(own)
    for tag, start, end, first, last in reversed(
        difflib.SequenceMatcher(None, base, new, autojunk=False).get_opcodes()
    ):
        if tag == "equal":
            continue
        if any(n not in place for n in range(start, end)) or (start not in place and start - 1 not in place):
            return changed
        at = place[start] if start in place else place[start - 1] + 1
        own[at : at + (end - start)] = new[first:last]
    return "".join(own)


def _is_known(problem: Problem, known: RuleSet, folder: Path, rules_dir: Path) -> bool:
    """Whether it was wrong before the change."""
    file = rules_dir / problem.file.relative_to(folder) if problem.file.is_relative_to(folder) else problem.file
    return any((one.file, one.rule, one.message) == (file, problem.rule, problem.message) for one in known.problems)


def _told(problems: list[Problem], folder: Path, rules_dir: Path) -> str:
    return "\n".join(str(one).replace(str(folder), str(rules_dir)) for one in problems)
