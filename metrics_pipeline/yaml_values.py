"""YAML files that people write: values that know their lines, so that a problem can be named with its place.

YAML 1.2 (`on` is a text, `09:00` is a text, a key stands once), read by libyaml: ten times as fast as a round-trip
parser, which took two CPU seconds of every command. Who changes such a file and keeps its comments uses ruamel.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml
from yaml import MarkedYAMLError, YAMLError

__all__ = ["MarkedMapping", "MarkedSequence", "MarkedYAMLError", "Places", "YAMLError", "plain", "read_yaml"]


@dataclass
class Places:
    """Where a mapping or sequence and its parts stand: lines and columns from 0."""

    line: int
    col: int
    _parts: dict[Any, tuple[int, int]] = field(default_factory=dict)

    def key(self, name: Any) -> tuple[int, int]:
        """Line and column of a key. Raises `KeyError`."""
        return self._parts[name]

    def item(self, index: Any) -> tuple[int, int]:
        """Line and column of an item. Raises `KeyError`."""
        return self._parts[index]


class MarkedMapping(dict[Any, Any]):
    """A mapping of a file."""

    lc: Places


class MarkedSequence(list[Any]):
    """A sequence of a file."""

    lc: Places


def read_yaml(text: str) -> Any:
    """The one document of a text: mappings and sequences with `lc`, plain scalars; None when it is empty.

    Raises `MarkedYAMLError` (with `problem_mark`) or `YAMLError`.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader of our own
    except MarkedYAMLError as error:
        last = max(len(text.rstrip().splitlines()) - 1, 0)
        if error.problem_mark is not None and error.problem_mark.line > last:  # something is open at the end
            error.problem_mark = yaml.Mark(error.problem_mark.name, len(text), last, 0, None, 0)
        raise


def plain(value: Any, key: Callable[[Any], Any] = str) -> Any:
    """The same without places. `key`: what becomes of keys; default text."""
    if isinstance(value, dict):
        return {key(name): plain(inner, key) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, key) for inner in value]
    return value


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The safe loader with the scalars of YAML 1.2 and with places."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}
    yaml_constructors: ClassVar[dict[Any, Any]] = dict(yaml.SafeLoader.yaml_constructors)


_SCALARS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    (
        "tag:yaml.org,2002:timestamp",
        r"\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?(?:[Tt]|[ \t]+)\d\d?:\d\d:\d\d(?:\.\d*)?(?:[ \t]*(?:Z|[-+]\d\d?(?::\d\d)?))?",
        "0123456789",
    ),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: Any, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)


def _mapping(loader: Any, node: yaml.MappingNode) -> Iterator[MarkedMapping]:
    result = MarkedMapping()
    result.lc = Places(node.start_mark.line, node.start_mark.column)
    yield result
    own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    seen: set[Hashable] = set()
    for key in own:
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, Hashable):
            raise yaml.constructor.ConstructorError(
                "while constructing a mapping",
                node.start_mark,
                "found a key that is a list or a mapping",
                key.start_mark,
            )
        if name in seen:
            raise yaml.constructor.ConstructorError(
                "while constructing a mapping", node.start_mark, f'found duplicate key "{name}"', key.start_mark
            )
        seen.add(name)
    loader.flatten_mapping(node)
    for key, value in node.value:
        name = loader.construct_object(key, deep=True)
        result.lc._parts[name] = (key.start_mark.line, key.start_mark.column)
        result[name] = loader.construct_object(value, deep=True)


def _sequence(loader: Any, node: yaml.SequenceNode) -> Iterator[MarkedSequence]:
    result = MarkedSequence()
    result.lc = Places(node.start_mark.line, node.start_mark.column)
    yield result
    for index, item in enumerate(node.value):
        result.lc._parts[index] = (item.start_mark.line, item.start_mark.column)
        result.append(loader.construct_object(item, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:merge", lambda _, node: node.value)  # `<<` that is no key
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
