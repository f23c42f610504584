"""The calendar-aware baseline: one value against what it should have been, in units of how rare that is for its series.

The expectation, its spread and the residuals come from `tracking.py`, their probability from `calibration.py`. A group
that falls together is judged as a group (`Walk.shock`): each of its falling series gets the group's probability when that is
the lower one. Both are looked at, so the smaller p-value counts twice.

Stated behaviour
- *cold start, new slice*: fewer than `LEAST` values → `no_baseline`; from then on by the group's tails, then its own.
- *pause*: no value for four weeks → `paused` until a week of values is there again.
- *sparse, zero-heavy*: a count with an expectation near 0 has a spread above it, so a 0 is never an alarm; a rise is.
- *never moved*: no spread is below 1 % of the expectation.
- *negative values* (a margin below 0): the model is multiplicative; the series has no baseline from then on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.detection.calibration import Tails, tails
from metrics_pipeline.detection.interface import NO_GROUP, BoolArray, Calendar, FloatArray, IntArray, Judgement, Panel
from metrics_pipeline.detection.tracking import Tuning, Walk, walk

LEAST = {"day": 28, "hour": 24 * 21}
"""Values before the first judgement, by grain."""
WARM_UP = {"day": 28, "hour": 24 * 21}
"""Periods of a panel whose residuals are not used for calibration."""
PAUSE_DAYS, BACK_DAYS = 28, 7
JUDGED, NO_VALUE, NO_BASELINE, PAUSED = range(4)
_TWO_LOOKS = float(np.log(2))


@dataclass(frozen=True)
class Surprise:
    """How rare tested values are; all arrays (n_series, n_tested)."""

    value: FloatArray
    """−ln p; NaN where not judged."""
    is_above: BoolArray
    """Whether it is a rise."""
    expected: FloatArray
    spread: FloatArray
    """Standard deviation as a share of the expectation."""
    power: FloatArray
    """As of `Walk`."""
    quantile: FloatArray
    scale: FloatArray
    reason: IntArray

    def bounds(self, surprise: float) -> tuple[FloatArray, FloatArray]:
        """The values that are exactly this surprising, below and above the expectation."""
        size = Tails(self.quantile, self.scale).size_at(surprise + _TWO_LOOKS)
        return self._value_at(-size), self._value_at(size)

    def _value_at(self, z: FloatArray) -> FloatArray:
        power = self.power
        x = 1 + (z - (1 - power) / 2 * np.minimum(self.spread, 2.0)) * self.spread * power
        return np.where(self.reason == JUDGED, np.maximum(x, 0.0) ** (1 / power) * self.expected, np.nan)


@dataclass(frozen=True)
class Baseline:
    """The detector; `level` is the p-value at which the band of its judgements is drawn."""

    level: float = 1 / 30
    tuning: Tuning | None = None

    def judge(self, panel: Panel, calendar: Calendar, tested: slice) -> Judgement:
        """Judge these columns, each by those before it."""
        found = point_surprise(panel, walk(panel, calendar, tested, self.tuning, with_means=False))
        lower, upper = found.bounds(-np.log(self.level))
        judged = found.reason == JUDGED
        expected = np.where(judged, found.expected, np.nan)
        return Judgement(expected, lower, upper, np.exp(-found.value), found.reason)


def point_surprise(panel: Panel, seen: Walk) -> Surprise:
    """How rare each tested value is, by its own past and its group's."""
    grain = grain_of(panel)
    warm = WARM_UP[grain]
    tested = seen.tested
    columns = range(tested.start, tested.stop)
    shape = (panel.n_series, len(columns))
    alone = np.full(len(seen.shock), NO_GROUP)
    value, quantile, scale = (np.full(shape, np.nan) for _ in range(3))
    for n, column in enumerate(columns):
        past = slice(min(warm, column), column)
        own = tails(seen.z[:, past], panel.group)
        z, moved = seen.z[:, column].astype(np.float64), seen.shock[:, column].astype(np.float64)
        shock = moved[seen.group]
        falls = (shock < 0) & (z + shock < 0)
        of_group = np.where(falls, tails(seen.shock[:, past], alone).surprise(moved)[seen.group], 0.0)
        value[:, n] = np.maximum(np.maximum(own.surprise(z), of_group) - _TWO_LOOKS, 0.0)
        quantile[:, n], scale[:, n] = own.quantile, own.scale
    reason = reasons(panel, seen)
    expected = seen.expected.astype(np.float64)
    return Surprise(
        np.where(reason == JUDGED, value, np.nan),
        panel.value[:, tested] >= expected,
        expected,
        seen.spread.astype(np.float64),
        seen.power.astype(np.float64),
        quantile,
        scale,
        reason,
    )


def reasons(panel: Panel, seen: Walk) -> IntArray:
    """(n_series, n_tested): why a value is judged or not, by the codes of `REASONS`."""
    per_day = 24 if grain_of(panel) == "hour" else 1
    value, count, tested = panel.value, seen.seen, seen.tested
    found = np.full(count.shape, JUDGED, dtype=np.int64)
    pause, back = PAUSE_DAYS * per_day, BACK_DAYS * per_day
    first = max(tested.start - pause, 0)
    before = np.cumsum(np.isfinite(value[:, first : tested.stop]), axis=1, dtype=np.int32)
    before = np.concatenate([np.zeros((len(before), 1), np.int32), before], axis=1)
    for n, column in enumerate(range(tested.start, tested.stop)):
        now, a_week, four_weeks = (before[:, max(column - days, first) - first] for days in (0, back, pause))
        is_back = (now - a_week < back // 2) & (a_week == four_weeks)
        found[is_back & (count[:, n] > now - four_weeks) & (column > pause), n] = PAUSED
    found[~np.isfinite(seen.z[:, tested]) | (count < LEAST[grain_of(panel)])] = NO_BASELINE
    found[~np.isfinite(value[:, tested])] = NO_VALUE
    return found


def grain_of(panel: Panel) -> str:
    """day or hour, by the slots of the week."""
    return "hour" if int(panel.slot.max(initial=0)) > 6 else "day"
