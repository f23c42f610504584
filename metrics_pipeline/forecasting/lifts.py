"""What promotions and holidays add, learned from the days of the calendar that have been seen.

The lift of an event day is its distance, on the scale of smoothing, to the level that the ordinary days before and
after it let expect. It is made of what all series of the panel have in common on that day (a median), and of how one
series answers to that kind of day (shrunk toward the common answer by its noise). A day ahead takes the lift of the same day of the same event in other
years; where it has not been seen, of the same kind of day of that event, then of any event; and what an event under way
has shown so far is carried on. Each step down the list is less certain, and the interval says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.days import KINDS, ORDINARY, Days, occurrences
from metrics_pipeline.forecasting.smoothing import States, nan_mean, nan_median

Floats = NDArray[np.float64]

YEAR_SHARE, YEAR_LEAST = 0.2, 0.05
"""How far the lift of a day is from that of the same day a year before (standard deviation, log): this share of the lift, as a
sale that doubles everything can miss by more than one that adds a tenth, and at least so much; until the panel shows it."""
KIND_SPREAD = {
    "main": 0.35, "holiday": 0.20, "after": 0.12, "presale": 0.18, "season": 0.10, "campaign": 0.18, "before": 0.10,
    "workday": 0.10,
}  # fmt: skip
"""The same, when only other events of the kind have been seen."""
UNSEEN_SPREAD = {
    "main": 0.60, "holiday": 0.25, "after": 0.20, "presale": 0.30, "season": 0.15, "campaign": 0.25, "before": 0.15,
    "workday": 0.15,
}  # fmt: skip
"""The same, when no day of the kind has been seen."""
_LEAST_PAIRS = 4
_EARLIEST = 14
"""Days of history without which an event day has no level to be compared with."""
_AFTER_ALPHA = 0.3


@dataclass(frozen=True)
class Ahead:
    """What the days ahead get: `lift` and `own_spread` (series, ahead), `common_spread` (ahead,); the spreads are standard deviations."""

    lift: Floats
    common_spread: Floats
    own_spread: Floats


@dataclass(frozen=True)
class Lifts:
    """What was learned from the history of a panel."""

    days: Days
    """Of the history."""
    common: Floats
    """(days,); NaN on ordinary days."""
    own: Floats
    """(series, kinds): how a series differs from the common lift on days of each kind."""
    own_spread: Floats
    """(kinds,): what is left of the differences."""
    spread: dict[str, float]
    """Kind → how many times `year_spread` the same day differed between the years."""

    @property
    def learned(self) -> Floats:
        """(series, days): what to take away from the history; 0 on ordinary days."""
        own = np.concatenate([self.own, np.zeros((len(self.own), 1))], axis=1)
        return np.asarray(np.where(np.isfinite(self.common), np.nan_to_num(self.common) + own[:, self.days.kind], 0.0))

    def ahead(self, calendar: Days, horizon: int) -> Ahead:
        """Lifts of the `horizon` days after the history. `calendar`: the days of the history and those ahead."""
        start = self.days.count
        lift = np.zeros((len(self.own), horizon))
        common = np.zeros(horizon)
        own = np.zeros((len(self.own), horizon))
        drift = self._drift(calendar)
        number = occurrences(calendar)
        for step in range(horizon):
            at = start + step
            if calendar.event[at] == ORDINARY:
                continue
            level, common[step] = self._expected(calendar, at, number)
            kind = int(calendar.kind[at])
            lift[:, step] = level + drift.get(int(number[at]), 0.0) + self.own[:, kind]
            own[:, step] = self.own_spread[kind]
        return Ahead(lift, common, own)

    def _expected(self, calendar: Days, at: int, number: NDArray[np.int64]) -> tuple[float, float]:
        """The common lift of a day of the calendar from other days, and how uncertain it is."""
        start = self.days.count
        kind = KINDS[calendar.kind[at]]
        seen = np.isfinite(self.common) & (np.arange(start) != at)
        same_event = (calendar.event[:start] == calendar.event[at]) & seen
        elsewhere = number[:start] != number[at]
        exact = same_event & (calendar.position[:start] == calendar.position[at]) & elsewhere
        if exact.any():
            level = float(self.common[exact].mean())
            return level, self.spread[kind] * year_spread(level) * float(np.sqrt(1 + 1 / exact.sum()))
        same_kind = calendar.kind[:start] == calendar.kind[at]
        within = same_event & same_kind & (np.abs(calendar.position[:start] - calendar.position[at]) <= 3)
        if within.any():
            level = float(self.common[within].mean())
            return level, 1.4 * self.spread[kind] * year_spread(level)
        other = same_kind & seen
        if other.any():
            return float(np.median(self.common[other])), KIND_SPREAD[kind]
        return 0.0, UNSEEN_SPREAD[kind]

    def _drift(self, calendar: Days) -> dict[int, float]:
        """Occurrence that is under way → how its days so far differ from what was to be expected of them."""
        number = occurrences(calendar)
        start = self.days.count
        found: dict[int, float] = {}
        for current in set(number[start:].tolist()) - {ORDINARY}:
            here = np.flatnonzero((number[:start] == current) & np.isfinite(self.common))[-7:]
            gaps = [
                self.common[at] - self._expected(calendar, int(at), number)[0]
                for at in here
                if (
                    (number[:start] != current)
                    & (calendar.event[:start] == calendar.event[at])
                    & (calendar.position[:start] == calendar.position[at])
                    & np.isfinite(self.common)
                ).any()
            ]
            if gaps:
                found[current] = float(np.mean(gaps)) * len(gaps) / (len(gaps) + 3)
        return found


def learn(values: Floats, masked: States, days: Days, noise: Floats) -> Lifts:
    """Learn from a history on the scale of smoothing.

    `values`: (series, days). `masked`: smoothed without event days. `noise`: (series,), standard deviation of a day.
    """
    count = len(values)
    at = np.flatnonzero(days.is_event & (np.arange(days.count) >= _EARLIEST))
    common = np.full(days.count, np.nan)
    own = np.zeros((count, len(KINDS)))
    own_spread = np.zeros(len(KINDS))
    if len(at) and count:
        level = _level_around(values, masked, days)
        raw = values[:, at] - level[:, at] - masked.season[:, at]
        common[at] = _centre(raw, noise)
        rest = raw - common[at]
        for kind in range(len(KINDS)):
            of_kind = rest[:, days.kind[at] == kind]
            if count >= 5 and of_kind.shape[1]:
                own[:, kind], own_spread[kind] = _own(of_kind, noise)
    return Lifts(days, common, own, own_spread, _spreads(common, days))


def _centre(raw: Floats, noise: Floats) -> Floats:
    """Common lift of each day, (days,): a median, of few series a mean weighted by their noise."""
    if len(raw) >= 5:
        calm = noise <= np.median(noise) if len(raw) >= 20 else np.ones(len(raw), bool)
        return nan_median(np.ascontiguousarray(raw[calm].T))
    weight = np.where(np.isfinite(raw), 1 / np.maximum(noise, 1e-6)[:, None] ** 2, 0.0)
    total = weight.sum(axis=0)
    return np.asarray(np.where(total > 0, (np.nan_to_num(raw) * weight).sum(axis=0) / np.maximum(total, 1e-12), np.nan))


def _own(rest: Floats, noise: Floats) -> tuple[Floats, float]:
    """Each series' own difference on days of one kind, shrunk, and the spread of what is left between the days."""
    known = np.isfinite(rest).sum(axis=1)
    mean = np.nan_to_num(nan_mean(rest, axis=1))
    error = noise**2 / np.maximum(known, 1)
    between = max(float(np.var(mean) - error.mean()), 0.0)
    shrunk = mean * between / np.maximum(between + error, 1e-12)
    shrunk = np.where(known > 0, shrunk, 0.0)
    left = rest - shrunk[:, None]
    excess = float(np.nanmean(left**2 - noise[:, None] ** 2)) if np.isfinite(left).any() else 0.0
    return shrunk, float(np.sqrt(np.clip(excess, 0.0, 0.25)))


def _level_around(values: Floats, masked: States, days: Days) -> Floats:
    """Level of each day from the ordinary days before and after it, by their distance; (series, days)."""
    before = masked.level
    ordinary = np.where(days.is_event, np.nan, values - masked.season)
    after = np.full_like(before, np.nan)
    now = np.full(len(values), np.nan)
    for day in range(days.count - 1, -1, -1):
        after[:, day] = now
        seen = ordinary[:, day]
        moved = np.where(np.isfinite(now), now + _AFTER_ALPHA * (seen - now), seen)
        now = np.where(np.isfinite(seen), moved, now)
    calm = np.flatnonzero(~days.is_event)
    number = np.arange(days.count)
    left = np.searchsorted(calm, number, side="right") - 1
    right = np.searchsorted(calm, number, side="left")
    since = np.where(left >= 0, number - calm[np.maximum(left, 0)], 60) if len(calm) else np.full(days.count, 60)
    until = np.where(right < len(calm), calm[np.minimum(right, len(calm) - 1)] - number, 60) if len(calm) else since
    weight = np.where(since + until > 0, since / np.maximum(since + until, 1), 0.0)
    return np.asarray(np.where(np.isfinite(after), (1 - weight) * before + weight * after, before))


def year_spread(lift: float) -> float:
    """Standard deviation between the lifts of the same day in two years, before the panel shows it."""
    return float(np.hypot(YEAR_LEAST, YEAR_SHARE * lift))


def _spreads(common: Floats, days: Days) -> dict[str, float]:
    """Kind → spread between years in units of `year_spread`, from the days that were seen at least twice, held toward 1."""
    found = {}
    for number, kind in enumerate(KINDS):
        squares = []
        of_kind = np.flatnonzero((days.kind == number) & np.isfinite(common))
        keys: dict[tuple[int, int], list[float]] = {}
        for at in of_kind:
            keys.setdefault((int(days.event[at]), int(days.position[at])), []).append(float(common[at]))
        for seen in keys.values():
            squares += [((b - a) / year_spread((a + b) / 2)) ** 2 / 2 for a, b in pairwise(seen)]
        weight = len(squares) / (len(squares) + _LEAST_PAIRS)
        found[kind] = float(np.sqrt(weight * np.mean(squares) + 1 - weight)) if squares else 1.0
    return found
