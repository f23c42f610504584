"""Label matchers: `severity="red"`, `region!="华北"`, `metric=~"orders_.*"`, `owner!~"growth|marketing"`.

The two syntaxes of Alertmanager and their order are kept (its "fallback mode", docs/configuration of Alertmanager,
Label matchers): UTF-8 matchers first, classic ones where that fails, and the classic reading where the two disagree. A
label that an alert lacks counts as the empty text; a regular expression must match the whole value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

Operator = Literal["=", "!=", "=~", "!~"]

_RESERVED: Final = frozenset("{}!=~,\\\"'`")
_CLASSIC: Final = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(=~|=|!=|!~)\s*(.*?)\s*", re.DOTALL)
_OPERATORS: Final[tuple[Operator, ...]] = ("=~", "!~", "!=", "=")
_NOT_PORTABLE: Final = re.compile(r"\(\?(?:[=!(]|<[=!])|\\[1-9]|\\z|\[\[:|\\p")
"""What Python's expressions have and RE2's lack (or the other way round), so that a file means the same in both."""
_ESCAPES: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}
EXAMPLE: Final = 'severity="red", metric=~"orders_.*", region!="华北"'


class MatcherError(ValueError):
    """A text that is no matcher; the message says where and what was expected."""


@dataclass(frozen=True)
class Matcher:
    """One condition on one label."""

    name: str
    operator: Operator
    value: str

    def __post_init__(self) -> None:
        if self.is_regex:
            _compiled(self.value)

    @property
    def is_regex(self) -> bool:
        return self.operator in ("=~", "!~")

    @property
    def is_negative(self) -> bool:
        return self.operator in ("!=", "!~")

    def accepts(self, value: str) -> bool:
        """Whether a value of the label fulfils the condition; an absent label is the empty text."""
        found = _compiled(self.value).fullmatch(value) is not None if self.is_regex else value == self.value
        return found != self.is_negative

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels fulfils the condition."""
        return self.accepts(labels.get(self.name, ""))

    def __str__(self) -> str:
        name = self.name if _is_plain(self.name) else _quoted(self.name)
        return f"{name}{self.operator}{_quoted(self.value)}"


def match_all(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether the labels fulfil every condition."""
    return all(matcher.matches(labels) for matcher in matchers)


def show_matchers(matchers: Iterable[Matcher]) -> str:
    """`{a="b",c!="d"}`, sorted."""
    return "{" + ",".join(sorted(map(str, matchers))) + "}"


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """All matchers of a text: one, or several between commas, in braces or not. Raises `MatcherError`."""
    try:
        modern = _Modern(text).read()
    except MatcherError as error:
        try:
            return _classic(text)
        except MatcherError:
            raise MatcherError(f"{error}; write it as {EXAMPLE}") from None
    try:
        classic = _classic(text)
    except MatcherError:
        return modern
    return modern if modern == classic else classic


class _Modern:
    """A reader of UTF-8 matchers."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def read(self) -> tuple[Matcher, ...]:
        found: list[Matcher] = []
        braced = self._takes("{")
        while not self._ends(braced):
            found.append(self._matcher())
            if not self._takes(","):
                if not self._ends(braced):
                    raise self._error("expected a comma or the end")
                break
        if not braced and not found:
            raise MatcherError("there is no matcher in an empty text")
        if braced and not self._takes("}"):
            raise self._error("expected the closing brace }")
        self._skip()
        if self._at < len(self._text):
            raise self._error("expected the end")
        return tuple(found)

    def _matcher(self) -> Matcher:
        name = self._word("a label name")
        operator = next((one for one in _OPERATORS if self._takes(one)), None)
        if operator is None:
            raise self._error("expected =, !=, =~ or !~")
        return Matcher(name, operator, self._word("a label value"))

    def _ends(self, braced: bool) -> bool:
        self._skip()
        return self._at >= len(self._text) or (braced and self._text[self._at] == "}")

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def _takes(self, token: str) -> bool:
        self._skip()
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def _word(self, what: str) -> str:
        self._skip()
        start = self._at
        if self._text.startswith('"', start):
            return self._string()
        while self._at < len(self._text) and not (self._text[self._at].isspace() or self._text[self._at] in _RESERVED):
            self._at += 1
        if self._at == start:
            raise self._error(f"expected {what}")
        return self._text[start : self._at]

    def _string(self) -> str:
        """A string in double quotes with the escapes of a Go string literal."""
        start = self._at
        self._at += 1
        found = bytearray()
        while self._at < len(self._text):
            sign = self._text[self._at]
            self._at += 1
            if sign == '"':
                try:
                    return found.decode()
                except UnicodeDecodeError:
                    raise self._error("the escapes of this string are not UTF-8") from None
            if sign == "\n":
                break
            found += self._escape() if sign == "\\" else sign.encode("utf-8", "replace")
        self._at = start
        raise self._error("this double quote is never closed")

    def _escape(self) -> bytes:
        rest = self._text[self._at :]
        if rest[:1] in _ESCAPES:
            self._at += 1
            return bytes([_ESCAPES[rest[0]]])
        if octal := re.match(r"[0-3][0-7]{2}", rest):
            self._at += 3
            return bytes([int(octal[0], 8)])
        if byte := re.match(r"x([0-9a-fA-F]{2})", rest):
            self._at += 3
            return bytes([int(byte[1], 16)])
        if point := re.match(r"u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})", rest):
            number = int(point[1] or point[2], 16)
            if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF:
                self._at += len(point[0])
                return chr(number).encode()
        raise self._error("this is no escape; write a backslash as \\\\")

    def _error(self, expected: str) -> MatcherError:
        return MatcherError(f"{self._text!r}, character {self._at + 1}: {expected}")


def _classic(text: str) -> tuple[Matcher, ...]:
    """Classic matchers: tolerant of what stands in a value, but not of a brace without the other."""
    text = text.strip()
    if text.startswith("{") != text.endswith("}"):
        raise MatcherError(f"{text!r} has one brace without the other")
    parts: list[str] = []
    part = ""
    quoted = escaped = False
    for sign in text.removeprefix("{").removesuffix("}"):
        if sign == "," and not quoted:
            parts.append(part)
            part = ""
            continue
        if sign == '"' and not escaped:
            quoted = not quoted
        escaped = sign == "\\" and not escaped
        part += sign
    if part.strip():
        parts.append(part)
    if not parts:
        raise MatcherError("there is no matcher in an empty text")
    return tuple(_classic_matcher(one) for one in parts)


def _classic_matcher(text: str) -> Matcher:
    found = _CLASSIC.fullmatch(text)
    if found is None:
        raise MatcherError(f"{text!r} is not a matcher")
    name, operator, raw = found.groups()
    quoted = raw.startswith('"')
    body = raw[1:] if quoted else raw
    value = ""
    escaped = False
    for index, sign in enumerate(body):
        if escaped:
            escaped = False
            value += {"n": "\n", '"': '"', "\\": "\\"}.get(sign, "\\" + sign)
        elif sign == "\\" and index < len(body) - 1:
            escaped = True
        elif sign == '"':
            if not quoted or index < len(body) - 1:
                raise MatcherError(f'{raw!r} has a double quote inside; write it as \\"')
            quoted = False
        else:
            value += sign
    if quoted:
        raise MatcherError(f"{raw!r} begins with a double quote that is never closed")
    return Matcher(name, operator, value)  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    if strange := _NOT_PORTABLE.search(pattern.replace("\\\\", "")):
        raise MatcherError(
            f"the regular expression {pattern!r} uses {strange[0]}, which not every engine reads alike; "
            "write it without look-around, back-references and named classes"
        )
    try:
        return re.compile(pattern, re.DOTALL)
    except (re.error, OverflowError) as error:
        raise MatcherError(f"{pattern!r} is not a regular expression: {error}") from None


def _is_plain(name: str) -> bool:
    return bool(name) and not any(sign in _RESERVED or sign.isspace() for sign in name)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
