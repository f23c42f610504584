"""The promotion calendar as arrays: one entry for each day of a stretch of history and of what comes after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.detection.promotions import PromotionDay

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

KINDS = ("main", "holiday", "after", "presale", "season", "campaign", "before", "workday")
"""Kinds of day, in the order in which one is chosen where events overlap."""
ORDINARY = -1


@dataclass(frozen=True)
class Days:
    """Consecutive days; every array has shape (days,)."""

    first: date
    event: Ints
    """Number of the event, `ORDINARY` = none."""
    position: Ints
    """Day in the event; 0 = its main date."""
    kind: Ints
    """Index into `KINDS`, `ORDINARY` = an ordinary day."""
    names: tuple[str, ...]
    """Event ids by number."""

    @property
    def count(self) -> int:
        return len(self.event)

    @property
    def is_event(self) -> Bools:
        return np.asarray(self.event != ORDINARY)

    @property
    def weekday(self) -> Ints:
        """0 = Monday."""
        return np.asarray((self.first.weekday() + np.arange(self.count)) % 7)

    def until(self, end: int) -> Days:
        """The first `end` days."""
        return Days(self.first, self.event[:end], self.position[:end], self.kind[:end], self.names)

    @classmethod
    def of(cls, promotions: Iterable[PromotionDay], first: date, count: int) -> Days:
        """The days of the calendar within [first, first + count); those that are about some slices only are left out."""
        event, position, kind = (np.full(count, ORDINARY, np.int64) for _ in range(3))
        inside: list[tuple[int, PromotionDay]] = []
        for day in promotions:
            number = (day.date - first).days
            if 0 <= number < count and day.kind in KINDS and not getattr(day, "affects", ()):
                inside.append((number, day))
        names = tuple(sorted({day.event for _, day in inside}))
        numbers = {name: number for number, name in enumerate(names)}
        for number, day in inside:
            of_kind = KINDS.index(day.kind)
            if kind[number] == ORDINARY or of_kind < kind[number]:
                event[number], position[number], kind[number] = numbers[day.event], day.day_in_event, of_kind
        return cls(first, event, position, kind, names)

    @classmethod
    def ordinary(cls, first: date, count: int) -> Days:
        """Days without any event."""
        return cls.of((), first, count)


def occurrences(days: Days) -> Ints:
    """Number of the occurrence each event day belongs to (shape (days,)), `ORDINARY` on other days.

    Days of one event that lie within 60 days of each other are one occurrence; another year is another one.
    """
    found = np.full(days.count, ORDINARY, np.int64)
    number = 0
    for event in range(len(days.names)):
        at = np.flatnonzero(days.event == event)
        if not len(at):
            continue
        begins = np.concatenate([[0], np.cumsum(np.diff(at) > 60)])
        found[at] = number + begins
        number += int(begins[-1]) + 1
    return found


def day_numbers(dates: Sequence[Any], first: date) -> Ints:
    """Dates (numpy days or pandas timestamps) as numbers from `first`."""
    return np.asarray((np.asarray(dates, "datetime64[D]") - np.datetime64(first, "D")).astype(np.int64))
