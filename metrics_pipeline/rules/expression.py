"""The two small languages of a rule: what is observed (`expr`) and when it is bad (`yellow_if`, `red_if`, `recover_if`).

Both parse into frozen values and print back to the same text, so the canonical text can be hashed, shown and edited.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal[
    "value", "change", "event", "target", "benchmark", "share", "quantile", "band", "anomaly", "forecast", "stockout",
    "freshness",
]  # fmt: skip
Promotions = Literal["widen", "last_event", "ordinary"]
Pattern = Literal["point", "drift", "together", "completeness"]
TOGETHER = ("together", "completeness")
"""Patterns of several metrics of a slice, by days."""
Operator = Literal[">", ">=", "<", "<=", "outside", "inside"]

FORESEEN = frozenset({"forecast", "stockout"})
"""Families whose observed number is made outside the statement, from the days up to each tested one."""
GRAMMAR = (
    "value | pct_change(7d) | pct_change(7d, over=4) | pct_change(last_event) | vs_target() | vs_benchmark() "
    "| share_of_parent() | share_of_parent(region) | share_of_parent(7d) | quantile(90d, 0.99) "
    "| band(seasonal) | band(seasonal, weeks=8, k=4, promotions=widen) "
    "| anomaly() | anomaly(budget=1/month, red=1/year) | anomaly(drift, budget=1/quarter, red=1/year) "
    "| anomaly(together) | completeness() "
    "| forecast(7d) | forecast(7d, below=target) | forecast(7d, above=1000) | stockout(3d) | stockout(lead) | freshness()"
)
LAST_EVENT = "last_event"
DEFAULT_BUDGET, DEFAULT_RED_BUDGET = "1/month", "1/year"
BUDGET_DAYS: Mapping[str, float] = {"day": 1.0, "week": 7.0, "month": 30.4375, "quarter": 91.3125, "year": 365.25}
"""Units of a budget of false alarms, in days."""
DEFAULT_WEEKS = 8
TARGET = "target"
LEAD = "lead"
MOST_AHEAD = 28
"""Days ahead that a forecast is asked for at most."""
_HOURS = {"h": 1, "d": 24, "w": 168}


class ExpressionError(ValueError):
    """Text that is no expression or threshold; the message says what was expected."""


@dataclass(frozen=True)
class Expression:
    """What a rule observes about a value. Fields that a family does not use keep their defaults."""

    family: Family
    lag_hours: int = 0
    """change, share: distance to the period compared with, hours (24 = yesterday, 168 = same weekday); of a share 0 = the
    share itself, not its change."""
    over: int = 1
    """change: the baseline is the median of this many such periods, each `lag_hours` before the last."""
    window_days: int = 0
    """quantile: days of history before the tested period; forecast, stockout: days ahead (stockout: 0 = the lead time)."""
    probability: float = 0.0
    """quantile: which quantile, 0 < p < 1."""
    weeks: int = 0
    """band: same weekdays (and same hours) of this many weeks make the expectation."""
    width: float | None = None
    """band: half-width of the drawn band in robust standard deviations; None = the yellow threshold."""
    promotions: Promotions = "widen"
    """band: what a promotion day of the calendar means for the tested period."""
    pattern: Pattern = "point"
    """anomaly: one value that is far from what was expected, many that are a little on one side, metrics of a slice that
    do not go together; completeness: data that are not what they seem."""
    budget: str = ""
    """anomaly: false alarms that a slice may have, e.g. `1/month`; where the observed number is 1."""
    red_budget: str = ""
    """anomaly: the same where the observed number is 2."""
    parent: str = ""
    """share: the dimension of the outer slice, one of the rule's own; empty = the total."""

    side: Literal["", "below", "above"] = ""
    """forecast: the observed number is the chance to lie on this side of `bound`; empty = what is expected itself."""
    bound: float | None = None
    """forecast: mean per day, in the metric's unit; None with a side = the target of the seed."""

    @property
    def has_baseline(self) -> bool:
        """Whether the value is compared with another one in its own unit."""
        return self.family not in ("value", "freshness", "forecast", "stockout") and not (
            self.family == "share" and not self.lag_hours
        )

    @property
    def reference(self) -> Literal["target", "benchmark"] | None:
        """Which seed it is compared with; None = with none."""
        if self.family == "forecast":
            return "target" if self.side and self.bound is None else None
        return "target" if self.family == "target" else "benchmark" if self.family == "benchmark" else None

    def __str__(self) -> str:
        return _TEXTS[self.family](self)


@dataclass(frozen=True)
class Threshold:
    """A region of the observed number, e.g. `> 0.08`, `<= -0.3`, `outside 4` (= outside -4..4), `inside -3..3`."""

    operator: Operator
    low: float
    high: float
    """Equal to `low` for the one-sided operators."""

    def __str__(self) -> str:
        if self.operator in ("outside", "inside"):
            if self.low == -self.high:
                return f"{self.operator} {_number_text(self.high)}"
            return f"{self.operator} {_number_text(self.low)}..{_number_text(self.high)}"
        return f"{self.operator} {_number_text(self.low)}"

    @property
    def side(self) -> Literal["up", "down", "both", "within"]:
        """Where the region lies: above a number, below one, outside a range, or within one."""
        if self.operator == "outside":
            return "both"
        if self.operator == "inside":
            return "within"
        return "up" if self.operator in (">", ">=") else "down"

    def holds(self, observed: float) -> bool:
        """Whether the observed number lies in the region. The SQL of `statement.py` says the same, set-wise."""
        match self.operator:
            case ">":
                return observed > self.high
            case ">=":
                return observed >= self.high
            case "<":
                return observed < self.low
            case "<=":
                return observed <= self.low
            case "outside":
                return observed < self.low or observed > self.high
            case "inside":
                return self.low <= observed <= self.high

    def beyond(self, other: Threshold) -> bool:
        """Whether this region lies strictly inside `other`'s, on the same side: what red must be to yellow."""
        if self.side != other.side or self.side == "within":
            return False
        match self.side:
            case "up":
                return self.high > other.high
            case "down":
                return self.low < other.low
            case _:
                return self.low <= other.low and self.high >= other.high and self != other

    def recovers(self, trigger: Threshold) -> bool:
        """Whether this region lies on the healthy side of `trigger` and does not overlap it: what `recover_if` must do."""
        match trigger.side:
            case "up":
                strict = self.operator == "<" or trigger.operator == ">"
                return self.side == "down" and (self.high < trigger.high or (strict and self.high == trigger.high))
            case "down":
                strict = self.operator == ">" or trigger.operator == "<"
                return self.side == "up" and (self.low > trigger.low or (strict and self.low == trigger.low))
            case "both":
                return self.side == "within" and self.low >= trigger.low and self.high <= trigger.high
            case "within":
                return False


def parse_expression(text: str) -> Expression:
    """Read `expr`.

    Raises `ExpressionError` that names the part that is wrong and the forms that are known.
    """
    match = re.fullmatch(r"\s*([a-z_]+)\s*(?:\((.*)\))?\s*", text)
    if match is None:
        raise ExpressionError(f"{text!r} is not an expression; write one of: {GRAMMAR}")
    name, inside = match.groups()
    positional, named = _arguments(text, inside or "")
    if name in _BARE:
        _no_more(text, positional, named)
        return Expression(_BARE[name])
    if name not in _PARSERS:
        raise ExpressionError(f"{text!r}: {name!r} is not known; write one of: {GRAMMAR}")
    return _PARSERS[name](text, positional, named)


def per_day(budget: str) -> float:
    """A budget such as `1/month` as false alarms a day."""
    number, unit = budget.split("/")
    return float(number) / BUDGET_DAYS[unit]


def parse_threshold(text: str) -> Threshold:
    """Read a threshold such as `> 0.08`, `< -0.3`, `outside 4`, `outside -3..5`.

    Raises `ExpressionError` that says what was expected.
    """
    match = re.fullmatch(r"\s*(>=|<=|>|<|outside\b|inside\b)\s*(\S+?)(?:\s*\.\.\s*(\S+))?\s*", text)
    if match is None:
        raise ExpressionError(f'{text!r} is not a threshold; write e.g. "> 0.08", "< -0.3", "outside 4"')
    operator, first, second = match.groups()
    number = _number(text, first)
    if operator in ("outside", "inside"):
        if second is None:
            if number <= 0:
                raise ExpressionError(f"{text!r}: one number means -number..number and must be above 0")
            return Threshold("outside" if operator == "outside" else "inside", -number, number)
        high = _number(text, second)
        if high <= number:
            raise ExpressionError(f"{text!r}: the first number must be below the second")
        return Threshold("outside" if operator == "outside" else "inside", number, high)
    if second is not None:
        raise ExpressionError(f'{text!r}: a range goes with outside or inside, e.g. "outside -3..5"')
    one_sided: dict[str, Operator] = {">": ">", ">=": ">=", "<": "<", "<=": "<="}
    return Threshold(one_sided[operator], number, number)


def _change(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    if len(positional) != 1:
        raise ExpressionError(f"{text!r}: give one distance, e.g. pct_change(1d) or pct_change(7d)")
    if positional[0] == LAST_EVENT:
        _no_more(text, [], named)
        return Expression("event")
    over = _whole(text, "over", named.pop("over", "1"), least=1, most=26)
    _no_more(text, [], named, known=("over",))
    return Expression("change", lag_hours=_duration_hours(text, positional[0]), over=over)


def _quantile(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    if len(positional) != 2:
        raise ExpressionError(f"{text!r}: give a window and a quantile, e.g. quantile(90d, 0.99)")
    _no_more(text, [], named)
    hours = _duration_hours(text, positional[0])
    probability = _number(text, positional[1])
    if hours % 24:
        raise ExpressionError(f"{text!r}: the window is in days (d) or weeks (w)")
    if not 0 < probability < 1:
        raise ExpressionError(f"{text!r}: a quantile lies between 0 and 1, e.g. 0.99")
    return Expression("quantile", window_days=hours // 24, probability=probability)


def _band(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    if positional != ["seasonal"]:
        raise ExpressionError(f"{text!r}: the band that is known is band(seasonal)")
    weeks = _whole(text, "weeks", named.pop("weeks", str(DEFAULT_WEEKS)), least=1, most=52)
    width: float | None = None
    if (given := named.pop("k", None)) is not None:
        width = _number(text, given)
        if width <= 0:
            raise ExpressionError(f"{text!r}: k must be above 0")
    promotions = named.pop("promotions", "widen")
    _no_more(text, [], named, known=("weeks", "k", "promotions"))
    match promotions:
        case "widen" | "last_event" | "ordinary":
            return Expression("band", weeks=weeks, width=width, promotions=promotions)
    raise ExpressionError(f"{text!r}: promotions is widen, last_event or ordinary, not {promotions!r}")


def _anomaly(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    known: dict[str, Pattern] = {"point": "point", "drift": "drift", "together": "together"}
    if len(positional) > 1 or (positional and positional[0] not in known):
        raise ExpressionError(
            f"{text!r}: what is looked for is point or drift or together, e.g. anomaly(drift, budget=1/quarter)"
        )
    pattern = known[positional[0]] if positional else "point"
    budget = _budget(text, "budget", named.pop("budget", DEFAULT_BUDGET))
    red = _budget(text, "red", named.pop("red", DEFAULT_RED_BUDGET))
    _no_more(text, [], named, known=("budget", "red"))
    if per_day(red) >= per_day(budget):
        raise ExpressionError(f"{text!r}: red={red} is no rarer than budget={budget}; red is the stricter of the two")
    return Expression("anomaly", pattern=pattern, budget=budget, red_budget=red)


def _completeness(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    _no_more(text, positional, named)
    return Expression("anomaly", pattern="completeness", budget=DEFAULT_BUDGET, red_budget=DEFAULT_RED_BUDGET)


def _budget(text: str, name: str, value: str) -> str:
    match = re.fullmatch(r"([1-9][0-9]{0,2})\s*/\s*([a-z]+)", value)
    if match is None or match[2] not in BUDGET_DAYS:
        raise ExpressionError(
            f"{text!r}: {name} is a number of false alarms per {', '.join(BUDGET_DAYS)}, e.g. 1/month, not {value!r}"
        )
    if int(match[1]) / BUDGET_DAYS[match[2]] > 0.5:
        raise ExpressionError(f"{text!r}: {name}={value} is more than one false alarm in two days; e.g. 1/month")
    return f"{match[1]}/{match[2]}"


def _forecast(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    if len(positional) != 1:
        raise ExpressionError(f"{text!r}: give how far ahead, e.g. forecast(7d) or forecast(7d, below=target)")
    ahead = _days_ahead(text, positional[0])
    sides = {name: named.pop(name) for name in ("below", "above") if name in named}
    _no_more(text, [], named, known=("below", "above"))
    if len(sides) > 1:
        raise ExpressionError(f"{text!r}: give below or above, not both")
    for side, bound in sides.items():
        number = None if bound == TARGET else _number(text, bound)
        return Expression("forecast", window_days=ahead, side="below" if side == "below" else "above", bound=number)
    return Expression("forecast", window_days=ahead)


def _stockout(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    if len(positional) != 1:
        raise ExpressionError(f"{text!r}: give how far ahead, e.g. stockout(3d), or stockout(lead) for the lead time")
    _no_more(text, [], named)
    return Expression("stockout", window_days=0 if positional[0] == LEAD else _days_ahead(text, positional[0]))


def _days_ahead(text: str, duration: str) -> int:
    hours = _duration_hours(text, duration)
    if hours % 24 or hours > 24 * MOST_AHEAD:
        raise ExpressionError(f"{text!r}: forecasts reach 1d to {MOST_AHEAD}d ahead, in days (d) or weeks (w)")
    return hours // 24


def _share(text: str, positional: list[str], named: dict[str, str]) -> Expression:
    rest = list(positional)
    parent = rest.pop(0) if rest and re.fullmatch(r"[a-z][a-z_]*", rest[0]) else ""
    lag = _duration_hours(text, rest.pop(0)) if rest else 0
    _no_more(text, rest, named)
    return Expression("share", lag_hours=lag, parent=parent)


def _arguments(text: str, inside: str) -> tuple[list[str], dict[str, str]]:
    positional: list[str] = []
    named: dict[str, str] = {}
    for part in inside.split(",") if inside.strip() else []:
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign:
            if named:
                raise ExpressionError(f"{text!r}: write {key!r} before the named parameters")
            positional.append(key)
        elif key in named:
            raise ExpressionError(f"{text!r}: {key!r} is given twice")
        else:
            named[key] = value
    return positional, named


def _no_more(text: str, positional: list[str], named: dict[str, str], known: tuple[str, ...] = ()) -> None:
    for extra in [*positional, *named]:
        allowed = f"; it takes {', '.join(known)}" if known else ""
        raise ExpressionError(f"{text!r}: {extra!r} is not a parameter of it{allowed}")


def _duration_hours(text: str, duration: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,4})([hdw])", duration)
    if match is None:
        raise ExpressionError(f"{text!r}: {duration!r} is not a duration; write e.g. 1d, 7d, 2w or 24h")
    return int(match[1]) * _HOURS[match[2]]


def _duration_text(hours: int) -> str:
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"


def _whole(text: str, name: str, value: str, *, least: int, most: int) -> int:
    if re.fullmatch(r"[0-9]{1,4}", value) is None or not least <= int(value) <= most:
        raise ExpressionError(f"{text!r}: {name} is a whole number from {least} to {most}, not {value!r}")
    return int(value)


def _number(text: str, value: str) -> float:
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", value) is None:
        mend = "; rates are between 0 and 1, never percent" if value.endswith("%") else ""
        raise ExpressionError(f"{text!r}: {value!r} is not a number{mend}")
    number = float(value)
    if not math.isfinite(number):
        raise ExpressionError(f"{text!r}: {value!r} is too large")
    return number


def _number_text(number: float) -> str:
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _change_text(change: Expression) -> str:
    over = f", over={change.over}" if change.over != 1 else ""
    return f"pct_change({_duration_text(change.lag_hours)}{over})"


def _share_text(share: Expression) -> str:
    lag = _duration_text(share.lag_hours) if share.lag_hours else ""
    return f"share_of_parent({', '.join(part for part in (share.parent, lag) if part)})"


def _anomaly_text(one: Expression) -> str:
    if one.pattern == "completeness":
        return "completeness()"
    pattern = f"{one.pattern}, " if one.pattern != "point" else ""
    return f"anomaly({pattern}budget={one.budget}, red={one.red_budget})"


def _band_text(band: Expression) -> str:
    width = f", k={_number_text(band.width)}" if band.width is not None else ""
    return f"band(seasonal, weeks={band.weeks}{width}, promotions={band.promotions})"


def _forecast_text(one: Expression) -> str:
    bound = TARGET if one.bound is None else _number_text(one.bound)
    return f"forecast({one.window_days}d{f', {one.side}={bound}' if one.side else ''})"


_BARE: Mapping[str, Family] = {
    "value": "value",
    "vs_target": "target",
    "vs_benchmark": "benchmark",
    "freshness": "freshness",
}
_PARSERS: Mapping[str, Callable[[str, list[str], dict[str, str]], Expression]] = {
    "pct_change": _change,
    "quantile": _quantile,
    "band": _band,
    "anomaly": _anomaly,
    "completeness": _completeness,
    "share_of_parent": _share,
    "forecast": _forecast,
    "stockout": _stockout,
}
_TEXTS: Mapping[Family, Callable[[Expression], str]] = {
    "value": lambda _: "value",
    "change": _change_text,
    "event": lambda _: f"pct_change({LAST_EVENT})",
    "target": lambda _: "vs_target()",
    "benchmark": lambda _: "vs_benchmark()",
    "share": _share_text,
    "quantile": lambda one: f"quantile({one.window_days}d, {_number_text(one.probability)})",
    "band": _band_text,
    "anomaly": _anomaly_text,
    "forecast": _forecast_text,
    "stockout": lambda one: f"stockout({f'{one.window_days}d' if one.window_days else LEAD})",
    "freshness": lambda _: "freshness()",
}
