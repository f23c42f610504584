"""What every array detector takes and yields: many series at once, one calendar, tested periods → judgements.

A detector sees a `Panel` (series × periods), a `Calendar` (what kind of day each period is) and which columns are
tested; it yields a `Judgement` of arrays with one row for each series. It never loops over series in Python. A tested
column is judged by the columns before it, and by what the *other* series do in it: nothing later is looked at, so a
judgement of yesterday is the same today, and a replay says what a night would have said.

Missing values are NaN and are no zeros. `rules/anomaly.py` makes panels from published values; benchmarks make their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NO_EVENT = -1
NO_GROUP = -1
PHASES = ("none", "presale", "main", "after", "season", "holiday", "before", "campaign", "workday")
"""What a day is within its event, by the codes of `Calendar.phase`; the phases of the calendar (`promotions.PHASES`)."""
REASONS = ("judged", "no_value", "no_baseline", "paused")
"""Why a tested value has a judgement or none, by the codes of `Judgement.reason`: nothing to judge, too little history,
and back after a pause in which the level was lost."""
DAYS_OF_WEEK, HOURS_OF_WEEK = 7, 168


@dataclass(frozen=True)
class Panel:
    """Series side by side over the same consecutive periods."""

    numerator: FloatArray
    """(n_series, n_periods): the value itself, or the numerator of a ratio; NaN = missing."""
    slot: IntArray
    """(n_periods,): place of each period in the week: weekday 0–6 for days, hour of the week 0–167 for hours."""
    group: IntArray
    """(n_series,): series of the same number are peers (same metric, members of one dimension); `NO_GROUP` = has none."""
    denominator: FloatArray | None = None
    """(n_series, n_periods) for ratios: the exposure of each value; None = values are counts or amounts."""
    excluded: BoolArray | None = None
    """(n_series, n_periods): values nobody may learn from — past incidents, other definitions of the metric. They may
    still be tested."""

    def __post_init__(self) -> None:
        shape = self.numerator.shape
        if len(shape) != 2:
            raise ValueError(f"numerator is {len(shape)}-dimensional; expected series × periods")
        for name, found, wanted in (
            ("slot", self.slot.shape, shape[1:]),
            ("group", self.group.shape, shape[:1]),
            ("denominator", None if self.denominator is None else self.denominator.shape, shape),
            ("excluded", None if self.excluded is None else self.excluded.shape, shape),
        ):
            if found is not None and found != wanted:
                raise ValueError(f"{name} has shape {found}; numerator {shape} needs {wanted}")

    @property
    def n_series(self) -> int:
        """Number of rows."""
        return int(self.numerator.shape[0])

    @property
    def n_periods(self) -> int:
        """Number of columns."""
        return int(self.numerator.shape[1])

    @property
    def value(self) -> FloatArray:
        """(n_series, n_periods): what a person sees; NaN where missing or where the denominator is 0."""
        if self.denominator is None:
            return self.numerator
        found = np.full(self.numerator.shape, np.nan)
        np.divide(self.numerator, self.denominator, out=found, where=self.denominator > 0)
        return found

    @property
    def history_length(self) -> IntArray:
        """(n_series,): how many values each series has."""
        return np.asarray(np.isfinite(self.value).sum(axis=1), dtype=np.int64)


@dataclass(frozen=True)
class Calendar:
    """Which day of which event each period lies in, for each category of series (a promotion may be for some only)."""

    event: IntArray
    """(n_categories, n_periods): number of the event, the same every year; `NO_EVENT` on ordinary days."""
    day_in_event: IntArray
    """(n_categories, n_periods): 0 = the event's main date, negative before it: what aligns years."""
    phase: IntArray
    """(n_categories, n_periods): index into `PHASES`."""
    category: IntArray
    """(n_series,): the row of the arrays above that holds for each series."""

    def __post_init__(self) -> None:
        if not self.event.shape == self.day_in_event.shape == self.phase.shape:
            raise ValueError("event, day_in_event and phase differ in shape; each is categories × periods")

    @classmethod
    def empty(cls, n_series: int, n_periods: int) -> Calendar:
        """A calendar without events."""
        nothing = np.zeros((1, n_periods), dtype=np.int64)
        return cls(nothing + NO_EVENT, nothing, nothing, np.zeros(n_series, dtype=np.int64))


@dataclass(frozen=True)
class Judgement:
    """What a detector says of each series (rows) in each tested period (columns); NaN where `reason` is not `judged`."""

    expected: FloatArray
    """In the unit of the value."""
    lower: FloatArray
    """Bounds of the band at the detector's own level; in the unit of the value."""
    upper: FloatArray
    p_value: FloatArray
    """How often an ordinary period of this series is at least as far from what was expected, on either side: 1/30 of a
    daily series = about once a month."""
    reason: IntArray
    """Index into `REASONS`."""


class Detector(Protocol):
    """Anything that judges a panel."""

    def judge(self, panel: Panel, calendar: Calendar, tested: slice) -> Judgement:
        """Judge these columns of the panel, each by those before it.

        `tested` has a start and a stop and no step. The arrays of the result have n_series × (stop - start) entries.
        """
        ...
