"""Which version the values of which days carry: a metric's version as a function of the day. Pure.

A definition changes on a day: periods before it keep the former definition and its version, for ever. What is made of
the metric changes its version with it, on the same day, and what looks back (a moving sum) has a version of its own
for the days on which it sees values of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True)
class VersionSpan:
    """The days before `until` that no earlier span has; shop-local."""

    until: date | None
    """First day that it is no longer for; None = open."""
    version: str


def version_on(spans: Sequence[VersionSpan], day: date) -> str:
    """The version of the values of a day. `spans` are in order and the last one is open."""
    return next(span.version for span in spans if span.until is None or day < span.until)


def versions_within(spans: Sequence[VersionSpan], first: date, last: date) -> tuple[str, ...]:
    """The versions of the days `first` to `last`, in order, each once."""
    found: dict[str, None] = {}
    start = date.min
    for span in spans:
        if start <= last and (span.until is None or first < span.until):
            found[span.version] = None
        start = span.until or date.max
    return tuple(found)


def boundaries(spans: Iterable[VersionSpan], reach_days: int = 0) -> set[date]:
    """The days on which something that looks back `reach_days` days changes its version."""
    days = [span.until for span in spans if span.until is not None]
    return {*days, *(day + timedelta(days=reach_days) for day in days)}


def joined(spans: Iterable[VersionSpan]) -> tuple[VersionSpan, ...]:
    """The same days with neighbours of one version put together."""
    found: list[VersionSpan] = []
    for span in spans:
        if found and found[-1].version == span.version:
            found[-1] = span
        else:
            found.append(span)
    return tuple(found)
