"""promtool's notation for series, and the same idea for words.

    100            a value                       5/100      a ratio: numerator / denominator
    100x3          100 100 100 100               5/100x2    5/100 5/100 5/100
    100+10x3       100 110 120 130               100-10x2   100 90 80
    _  _x3         no row for this slice         null       a row without a value
    stale stalex2  the metric is not complete: its night comes without it

As in promtool `axn` and `a+bxn` are a and n more, while `_xn` (and nullxn, stalexn) are n. Words (`ok red okx3`) are
repeated like `_`.

Source: Prometheus, Unit testing for rules, `<series>` (expanding notation).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

MOST = 100_000
"""Values of one series: a slip of the keyboard must not fill the memory."""
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VALUE = re.compile(rf"({_NUMBER})(?:/({_NUMBER}))?(?:([-+](?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?(?:x(\d+))?")
_WORD = re.compile(r"(_|null|stale)(?:x(\d+))?")

Absence = Literal["missing", "null", "stale"]
_ABSENCES: dict[str, Absence] = {"_": "missing", "null": "null", "stale": "stale"}


class NotationError(ValueError):
    """Text that is no series; the message names the part and what was expected."""


@dataclass(frozen=True)
class Sample:
    """One period of a series."""

    value: float | None = None
    """None with an absence; with a denominator the numerator divided by it (None when that is 0)."""
    numerator: float | None = None
    denominator: float | None = None
    absence: Absence | None = None


def parse_series(text: str) -> list[Sample]:
    """The periods of a series. Raises `NotationError`."""
    found: list[Sample] = []
    for part in str(text).split():
        found += _samples(part)
        if len(found) > MOST:
            raise NotationError(f"{part!r}: more than {MOST:,} values in one series; write fewer")
    return found


def parse_words(text: str, known: Collection[str]) -> list[str]:
    """`ok red okx3` as single words. Raises `NotationError` for one that is not known."""
    found: list[str] = []
    for part in str(text).split():
        match = re.fullmatch(r"(.+?)(?:x(\d+))?", part)
        word, times = (match[1], match[2]) if match else (part, None)
        if word not in known:
            raise NotationError(f"{word!r} is not known; write {', '.join(sorted(known))}, repeated as okx3")
        if len(found) + int(times or 1) > MOST:
            raise NotationError(f"{part!r}: more than {MOST:,} words; write fewer")
        found += [word] * int(times or 1)
    return found


def series_text(samples: list[Sample]) -> str:
    """A series one by one, without anything repeated: `parse_series` gives it back."""
    return " ".join(_text(sample) for sample in samples)


def _samples(part: str) -> list[Sample]:
    if match := _WORD.fullmatch(part):
        return [Sample(absence=_ABSENCES[match[1]])] * _times(part, match[2], 1)
    match = _VALUE.fullmatch(part)
    if match is None:
        raise NotationError(f"{part!r} is no value; write 100, 100x6, 100+5x6, 5/100, _, _x3, null or stale")
    first, denominator, step, times = match.groups()
    if step is not None and times is None:
        raise NotationError(f"{part!r}: a step needs a number of repeats, e.g. {part}x3")
    if denominator is not None and step is not None:
        raise NotationError(f"{part!r}: a ratio has no step; write its values one by one")
    count = 1 + _times(part, times, 0)
    start, by = float(first), float(step or 0)
    return [_sample(part, start + n * by, denominator) for n in range(count)]


def _times(part: str, times: str | None, default: int) -> int:
    if times is None:
        return default
    if int(times) > MOST:
        raise NotationError(f"{part!r}: more than {MOST:,} values in one series; write fewer")
    return int(times)


def _sample(part: str, number: float, denominator: str | None) -> Sample:
    if not math.isfinite(number):
        raise NotationError(f"{part!r} is too large")
    if denominator is None:
        return Sample(number, number)
    below = float(denominator)
    if not math.isfinite(below):
        raise NotationError(f"{part!r} is too large")
    return Sample(number / below if below else None, number, below)


def _text(sample: Sample) -> str:
    if sample.absence is not None:
        return next(text for text, absence in _ABSENCES.items() if absence == sample.absence)
    return repr(sample.numerator) if sample.denominator is None else f"{sample.numerator!r}/{sample.denominator!r}"
