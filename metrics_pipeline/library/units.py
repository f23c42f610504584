"""Units of formulas: what may be added, what a product or a ratio is in, and whether a declared unit fits it.

A unit is a product of powers of `currency`, `days` and nouns that are counted (orders, people …); `ratio` and `score`
are pure numbers. A count per count is a rate and so a pure number, whatever is counted; an amount per count is written
with the unit of the amount, as people do (average order value: currency).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.library.formula import Input, Negative, Node, Number, Operation, formula_text

_PURE = frozenset({"ratio", "score"})
_NO_NOUN = frozenset({"currency", "days"})


class UnitClash(ValueError):
    """Things that cannot be added, or a unit that cannot be; the message names both sides."""


@dataclass(frozen=True)
class Unit:
    """Powers of what it is made of, sorted; () = a pure number."""

    powers: tuple[tuple[str, int], ...] = ()

    @classmethod
    def declared(cls, text: str) -> Unit:
        """The unit that a definition names."""
        return cls() if text in _PURE else cls(((text, 1),))

    def times(self, other: Unit, sign: int = 1) -> Unit:
        """The unit of a product; of a ratio with `sign` −1."""
        powers = dict(self.powers)
        for name, power in other.powers:
            powers[name] = powers.get(name, 0) + sign * power
        return Unit(tuple(sorted((name, power) for name, power in powers.items() if power)))

    @property
    def kind(self) -> tuple[int, int, int]:
        """Powers of money, of things counted, of days: what must be equal where two things are added."""
        powers = dict(self.powers)
        counted = sum(power for name, power in self.powers if name not in _NO_NOUN)
        return powers.get("currency", 0), counted, powers.get("days", 0)

    def fits(self, declared: str) -> bool:
        """Whether a metric in this unit may be declared so: days are pure numbers too (pieces ÷ pieces a day)."""
        wanted = Unit.declared(declared)
        if declared in _PURE or declared == "days":
            return self.kind == (0, 0, 0) or (declared == "days" and self == wanted)
        if declared == "currency":
            money, counted, days = self.kind
            return money == 1 and days == 0 and (counted == 0 or (counted == -1 and len(self.powers) == 2))
        return dict(self.powers).get(declared) == 1 and self.kind in ((0, 1, 0), (0, 0, 0)) and len(self.powers) <= 2

    def __str__(self) -> str:
        over = [_power(name, power) for name, power in self.powers if power > 0]
        under = [_power(name, -power) for name, power in self.powers if power < 0]
        if not under:
            return " × ".join(over) or "a pure number"
        return f"{' × '.join(over) or '1'} per {' × '.join(under)}"


def unit_of(node: Node, inputs: Mapping[str, Unit]) -> Unit:
    """The unit of a formula whose inputs have these units.

    Raises `UnitClash` where different kinds are added or subtracted.
    """
    match node:
        case Number():
            return Unit()
        case Input(name):
            return inputs[name]
        case Negative(of):
            return unit_of(of, inputs)
        case Operation("*" | "/" as sign, left, right):
            return unit_of(left, inputs).times(unit_of(right, inputs), -1 if sign == "/" else 1)
        case Operation(sign, left, right):
            one, other = unit_of(left, inputs), unit_of(right, inputs)
            if one.kind != other.kind:
                verb = "adds" if sign == "+" else "subtracts"
                raise UnitClash(f"{verb} {_side(left, one)} and {_side(right, other)}")
            return one


def mixed_nouns(node: Node, inputs: Mapping[str, Unit]) -> tuple[str, str] | None:
    """Two different things that a formula adds up (orders and people), or None; rates of any things may be added."""
    match node:
        case Negative(of):
            return mixed_nouns(of, inputs)
        case Operation(sign, left, right):
            if sign in "+-":
                one, other = unit_of(left, inputs), unit_of(right, inputs)
                if one != other and one.kind == (0, 1, 0):
                    return str(one), str(other)
            return mixed_nouns(left, inputs) or mixed_nouns(right, inputs)
        case _:
            return None


def _side(node: Node, unit: Unit) -> str:
    text = formula_text(node)
    return f"{text} ({unit})" if isinstance(node, Input | Number) else f"({text}) ({unit})"


def _power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"
