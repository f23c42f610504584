"""The formula of a derived metric: numbers, metric ids, `+ - * /`, parentheses and a leading minus. Nothing else.

A text is parsed into a small tree, and only the tree is written back, so no SQL can pass. A division by what may be 0
has no value there: `a / b` is written as `a / nullif(b, 0)`, which is also how dbt and MetricFlow must read it, and
`nullif(…, 0)` may be typed as a divisor and nowhere else.

Formulas are compared as polynomials over metric ids with exact coefficients, so order, spacing, parentheses and equal
constants (0.5 and .50) do not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

GRAMMAR = "numbers, metric ids, + - * /, parentheses"
MAX_LENGTH = 2000
_MAX_DEPTH = 60
_MAX_TERMS = 400
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?![\w.]))|(?P<name>[a-z][a-z0-9_]*)|(?P<sign>[-+*/(),]))"
)


class FormulaError(ValueError):
    """Text that is no formula; the message says what was found where, and what may stand there."""


@dataclass(frozen=True)
class Number:
    """A constant, as it was written."""

    text: str

    @property
    def value(self) -> Fraction:
        return Fraction(self.text)


@dataclass(frozen=True)
class Input:
    """A metric (or the alias of one)."""

    name: str


@dataclass(frozen=True)
class Negative:
    """A leading minus."""

    of: Node


@dataclass(frozen=True)
class Operation:
    """Two formulas and what is done with them."""

    sign: Literal["+", "-", "*", "/"]
    left: Node
    right: Node


Node = Number | Input | Negative | Operation


def parse_formula(text: str) -> Node:
    """Read a formula. Raises `FormulaError`."""
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"a formula of {len(text)} characters is too long; the limit is {MAX_LENGTH}")
    return _Parser(text).parse()


def formula_text(node: Node, name: Callable[[str], str] = str) -> str:
    """The formula as SQL and as its canonical text, with as few parentheses as it needs; `name` renames the inputs."""
    return _text(node, name, as_sql=True)


def readable_text(node: Node, name: Callable[[str], str] = str) -> str:
    """The formula for people: `×`, `÷` and `−`, and without `nullif`."""
    text = _text(node, name, as_sql=False)
    return text.replace(" * ", " × ").replace(" / ", " ÷ ").replace(" - ", " − ")


def input_names(node: Node) -> tuple[str, ...]:
    """The inputs in the order in which they first appear."""
    return tuple(dict.fromkeys(one.name for one in _walk(node) if isinstance(one, Input)))


def divisors(node: Node) -> tuple[Node, ...]:
    """What is divided by, constants left out."""
    return tuple(
        one.right for one in _walk(node) if isinstance(one, Operation) and one.sign == "/" and input_names(one.right)
    )


# -- comparing -----------------------------------------------------------------------------------------------------

Monomial = tuple[tuple[str, int], ...]
"""Atom and exponent, sorted by atom; () = the constant."""
Polynomial = Mapping[Monomial, Fraction]
"""Monomial → coefficient, none of them 0."""


def polynomial(node: Node, inputs: Mapping[str, Polynomial]) -> dict[Monomial, Fraction]:
    """The formula multiplied out, with each input replaced by its own polynomial (`atom(name)` for a leaf).

    A divisor that is a sum becomes an atom of its own. Raises `FormulaError` when there would be too many terms.
    """
    match node:
        case Number():
            return _without_zeros({(): node.value})
        case Input(name):
            return dict(inputs[name])
        case Negative(of):
            return {key: -value for key, value in polynomial(of, inputs).items()}
        case Operation("+" | "-" as sign, left, right):
            return _added(polynomial(left, inputs), polynomial(right, inputs), -1 if sign == "-" else 1)
        case Operation("*", left, right):
            return _multiplied(polynomial(left, inputs), polynomial(right, inputs))
        case Operation(_, left, right):
            return _multiplied(polynomial(left, inputs), _inverse(polynomial(right, inputs)))


def atom(name: str) -> dict[Monomial, Fraction]:
    """The polynomial that is one atom."""
    return {((name, 1),): Fraction(1)}


def normal_text(terms: Polynomial) -> str:
    """One text for all formulas with the same polynomial."""
    return " + ".join(
        f"{value}*{'*'.join(f'{name}^{power}' for name, power in key) or '1'}" for key, value in sorted(terms.items())
    )


def linear_parts(terms: Polynomial) -> dict[str, Fraction] | None:
    """Atom → coefficient when the polynomial is a weighted sum without a constant; None when it is not."""
    if not terms or any(len(key) != 1 or key[0][1] != 1 for key in terms):
        return None
    return {key[0][0]: value for key, value in terms.items()}


def _added(left: Polynomial, right: Polynomial, sign: int) -> dict[Monomial, Fraction]:
    found = dict(left)
    for key, value in right.items():
        found[key] = found.get(key, Fraction(0)) + sign * value
    return _without_zeros(found)


def _multiplied(left: Polynomial, right: Polynomial) -> dict[Monomial, Fraction]:
    if len(left) * len(right) > _MAX_TERMS:
        raise FormulaError("a formula of so many products of sums cannot be compared; split it into several metrics")
    found: dict[Monomial, Fraction] = {}
    for one, factor in left.items():
        for other, weight in right.items():
            powers = dict(one)
            for name, power in other:
                powers[name] = powers.get(name, 0) + power
            key = tuple(sorted((name, power) for name, power in powers.items() if power))
            found[key] = found.get(key, Fraction(0)) + factor * weight
    return _without_zeros(found)


def _inverse(terms: Polynomial) -> dict[Monomial, Fraction]:
    if not terms:
        raise FormulaError("divides by what is always 0")
    if len(terms) == 1:
        ((key, value),) = terms.items()
        return {tuple((name, -power) for name, power in key): 1 / value}
    lead = terms[min(terms)]
    return {((f"({normal_text({key: value / lead for key, value in terms.items()})})", -1),): 1 / lead}


def _without_zeros(terms: Polynomial) -> dict[Monomial, Fraction]:
    return {key: value for key, value in terms.items() if value}


# -- reading and writing -------------------------------------------------------------------------------------------


def _walk(node: Node) -> Iterator[Node]:
    yield node
    match node:
        case Negative(of):
            yield from _walk(of)
        case Operation(_, left, right):
            yield from _walk(left)
            yield from _walk(right)


_RANKS = {"+": 1, "-": 1, "*": 2, "/": 2}


def _text(node: Node, name: Callable[[str], str], *, as_sql: bool) -> str:
    match node:
        case Number(text):
            return text
        case Input(of):
            return name(of)
        case Negative(of):
            inner = _text(of, name, as_sql=as_sql)
            return f"-({inner})" if isinstance(of, Operation | Negative) else f"-{inner}"
        case Operation(sign, left, right):
            before = _inside(left, _RANKS[sign], name, as_sql=as_sql)
            if as_sql and sign == "/" and input_names(right):
                return f"{before} / nullif({_text(right, name, as_sql=True)}, 0)"
            # a - (b + c) and a / (b * c) keep their parentheses, and so does a + (b - c): sums of doubles have an order
            return f"{before} {sign} {_inside(right, _RANKS[sign] + 1, name, as_sql=as_sql)}"


def _inside(node: Node, rank: int, name: Callable[[str], str], *, as_sql: bool) -> str:
    text = _text(node, name, as_sql=as_sql)
    is_looser = isinstance(node, Operation) and _RANKS[node.sign] < rank
    return f"({text})" if is_looser or isinstance(node, Negative) else text


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def _split(self) -> Iterator[tuple[str, str, int]]:
        """Kind, text and column (from 1) of each token, `end` last."""
        if (column := self._text.find("--")) >= 0:
            raise FormulaError(
                f"'--' at column {column + 1} begins a comment in SQL; put a space or parentheses between"
            )
        position = 0
        end = len(self._text.rstrip())
        while position < end:
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                start = position + len(self._text[position:]) - len(self._text[position:].lstrip())
                raise FormulaError(
                    f"{self._text[start : start + 12]!r} at column {start + 1} is not allowed; "
                    f"a formula is made of {GRAMMAR}"
                )
            yield match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1
            position = match.end()
        yield "end", "the end", end + 1

    def parse(self) -> Node:
        node = self._sum()
        if self._kind != "end":
            self._fail("an operator or the end")
        return node

    @property
    def _kind(self) -> str:
        kind, text, _ = self._tokens[self._next]
        return text if kind == "sign" else kind

    def _take(self, kind: str, wanted: str) -> str:
        if self._kind != kind:
            self._fail(wanted)
        text = self._tokens[self._next][1]
        self._next += 1
        return text

    def _fail(self, wanted: str) -> None:
        _, text, column = self._tokens[self._next]
        raise FormulaError(f"{text!r} at column {column}: expected {wanted}; a formula is made of {GRAMMAR}")

    def _sum(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise FormulaError(f"parentheses are nested more than {_MAX_DEPTH} deep; split it into several metrics")
        node = self._product()
        while self._kind in ("+", "-"):
            sign: Literal["+", "-"] = "+" if self._take(self._kind, "") == "+" else "-"
            node = Operation(sign, node, self._product())
        self._depth -= 1
        return node

    def _product(self) -> Node:
        node = self._signed()
        while self._kind in ("*", "/"):
            if self._take(self._kind, "") == "*":
                node = Operation("*", node, self._signed())
            else:
                node = Operation("/", node, self._divisor())
        return node

    def _divisor(self) -> Node:
        column = self._tokens[self._next][2]
        node = self._guarded() if self._tokens[self._next][1] == "nullif" else self._signed()
        if isinstance(node, Number) and not node.value:
            raise FormulaError(f"division by 0 at column {column}")
        return node

    def _guarded(self) -> Node:
        self._next += 1
        self._take("(", "( after nullif")
        node = self._sum()
        self._take(",", ", 0 in nullif")
        if self._take("number", "0 in nullif") != "0":
            raise FormulaError("nullif is known only as `nullif(…, 0)`")
        self._take(")", ")")
        return node

    def _signed(self) -> Node:
        if self._kind == "-":
            self._next += 1
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise FormulaError(f"more than {_MAX_DEPTH} signs and parentheses are nested")
            node = Negative(self._signed())
            self._depth -= 1
            return node
        return self._single()

    def _single(self) -> Node:
        match self._kind:
            case "(":
                self._next += 1
                node = self._sum()
                self._take(")", "an operator or )")
                return node
            case "number":
                return Number(self._take("number", "a number"))
            case _:
                if self._tokens[self._next][1] == "nullif":
                    raise FormulaError("nullif may only stand where something is divided by it")
                return Input(self._take("name", "a number, a metric id or ("))
