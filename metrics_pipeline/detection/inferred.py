"""Promotions nobody entered: days on which most series rise together and come back, inferred from the series themselves.

Of each series and day the ratio to the median of the same weekday in the four weeks on either side is taken; a day is a
candidate when three fifths of at least `LEAST_SERIES` peers rose by more than two of their own standard deviations, and
the median of them by more than three of its own and at least a tenth. Candidates of at most `LONGEST` days after which
the level is back are a promotion in shape; what stays is a level shift. A day on which everything is twice as much and
nothing varies is a duplicate load; a day after one on which little came is the rest of that day. Thin series are not asked. Who is asked: all series of the shop, and those of each category apart, so a
promotion of one category is found as such. `recurring` finds the rule by which such days return.

The history is looked at from both sides, so this is no detector of a night; it proposes what a person may enter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.detection.interface import BoolArray, FloatArray
from metrics_pipeline.detection.medians import TO_DEVIATION, nanmedian
from metrics_pipeline.detection.promotions import Affects

LEAST_SERIES = 5
LEAST_SHARE = 0.6
LEAST_LIFT = 1.1
RISEN = 2.0
"""Standard deviations of a series from which it has risen."""
TOGETHER = 3.0
"""The same of the median of all."""
NOISIEST = 0.35
"""Spread of log(value / expected) from which a series is too thin to say anything."""
HELD_UP = 0.6
"""Where the day before brought less than this, a rise is what had been held up: payments that are approved again."""
LONGEST = 10
SIDE_DAYS = 3
"""Days before and after in which people who wait, or have bought, show."""
SIDE_DIP = 0.97
DUPLICATE_SPREAD = 0.03
LEAST_VALUES = 3
"""Same weekdays without which nothing is expected."""
_WEEKS = (-4, -3, -2, -1, 1, 2, 3, 4)


@dataclass(frozen=True)
class Inferred:
    """A stretch of days that looks like a promotion, and why."""

    first: date
    last: date
    peak: date
    affects: Affects
    lift: float
    """Median of value / expected on the peak."""
    agreeing: int
    """Series that rose on the peak, of `series`."""
    series: int
    before: float
    """Median of value / expected in the days before and after."""
    after: float

    @property
    def phases(self) -> dict[str, tuple[int, int]]:
        """The phases it would have in the calendar, in days from the peak."""
        first, last = (self.first - self.peak).days, (self.last - self.peak).days
        found = {"main": (first, last)}
        if self.before < SIDE_DIP:
            found = {"before": (first - 1, first - 1), **found}
        if self.after < SIDE_DIP:
            found["after"] = (last + 1, last + SIDE_DAYS)
        return found


@dataclass(frozen=True)
class Proposal:
    """Inferred stretches that return by one rule, as an entry of the calendar."""

    event: str
    falls_on: tuple[str, ...]
    affects: Affects
    seen: tuple[Inferred, ...]

    @property
    def phases(self) -> dict[str, tuple[int, int]]:
        """Of the strongest of them."""
        return max(self.seen, key=lambda one: one.lift).phases

    @property
    def evidence(self) -> tuple[str, str]:
        """What speaks for it, in Chinese and English."""
        best = max(self.seen, key=lambda one: one.lift)
        lift = np.median([one.lift for one in self.seen])
        days = ", ".join(one.peak.isoformat() for one in self.seen[-6:])
        often = "once" if len(self.seen) == 1 else f"{len(self.seen)} times"
        return (
            f"{len(self.seen)} 次（{days}）：{best.series} 个序列中 {best.agreeing} 个同时上升，中位数 ×{lift:.2f}，前 ×{best.before:.2f}，后 ×{best.after:.2f}",
            f"{often} ({days}): {best.agreeing} of {best.series} series rose together, median ×{lift:.2f}; "
            f"×{best.before:.2f} before, ×{best.after:.2f} after",
        )


def infer(values: FloatArray, first: date, known: BoolArray, groups: Mapping[Affects, Sequence[int]]) -> list[Inferred]:
    """Stretches of days that look like promotions and are in no calendar, by date.

    `values`: (n_series, n_days) from `first` on, NaN = missing. `known`: (n_days,) days of the calendar. `groups`: which
    rows are asked together; `()` is the whole shop, and what it explains is not asked of the others again.
    """
    if not len(values):
        return []
    logs = _log_ratios(values, known)
    spread = TO_DEVIATION * nanmedian(np.abs(logs), 1)
    logs[~(spread <= NOISIEST)] = np.nan
    risen = logs > RISEN * np.maximum(spread, 0.03)[:, None]
    found: list[Inferred] = []
    explained = known.copy()
    for affects in sorted(groups, key=len):
        rows = np.asarray(groups[affects], dtype=np.int64)
        stretches = _stretches(logs[rows], risen[rows], explained)
        found += [_described(logs[rows], risen[rows], first, affects, one) for one in stretches]
        if not affects:
            for start, stop, _ in stretches:
                explained[start : stop + 1] = True
    return sorted(found, key=lambda one: (one.first, one.affects))


def recurring(found: Sequence[Inferred]) -> list[Proposal]:
    """The inferred stretches by the rule on which they return: a day of every month, of every year, or once."""
    proposals: list[Proposal] = []
    for affects in sorted({one.affects for one in found}):
        left = [one for one in found if one.affects == affects]
        suffix = "".join("_" + re.sub(r"[^a-z0-9]+", "", "".join(members).lower()) for _, members in affects).rstrip(
            "_"
        )
        for day in sorted({one.peak.day for one in left}):
            same = [one for one in left if one.peak.day == day]
            if len({(one.peak.year, one.peak.month) for one in same}) >= 3:
                dates = sorted({f"{one.peak:%m-%d}" for one in same})
                rule = (f"monthly {day}",) if _is_every_month(same, left) else tuple(dates)
                proposals.append(Proposal(f"monthly_{day}{suffix}", rule, affects, tuple(same)))
                left = [one for one in left if one not in same]
        for text in sorted({f"{one.peak:%m-%d}" for one in left}):
            same = [one for one in left if f"{one.peak:%m-%d}" == text]
            if len(same) >= 2:
                proposals.append(Proposal(f"yearly_{text.replace('-', '_')}{suffix}", (text,), affects, tuple(same)))
                left = [one for one in left if one not in same]
        for one in left:
            event = f"sale_{one.peak:%Y_%m_%d}{suffix}"
            proposals.append(Proposal(event, (one.peak.isoformat(),), affects, (one,)))
    return proposals


def _is_every_month(same: Sequence[Inferred], found: Sequence[Inferred]) -> bool:
    """Whether a day was seen in nine of ten months between the first and the last time."""
    months = [one.peak.year * 12 + one.peak.month for one in same]
    return len(set(months)) >= 0.9 * (max(months) - min(months) + 1)


def _log_ratios(values: FloatArray, known: BoolArray) -> FloatArray:
    """log of value / median of the same weekday around; NaN without at least three of them."""
    positive = np.where(values > 0, values, np.nan)
    ordinary = np.where(known, np.nan, positive)
    n = values.shape[1]
    around = np.full((len(_WEEKS), *values.shape), np.nan)
    for number, week in enumerate(_WEEKS):
        shift = 7 * week
        if abs(shift) < n:
            source, target = slice(max(shift, 0), n + min(shift, 0)), slice(max(-shift, 0), n + min(-shift, 0))
            around[number, :, target] = ordinary[:, source]
    enough = np.isfinite(around).sum(axis=0) >= LEAST_VALUES
    expected = np.where(enough, nanmedian(around, 0), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.log(positive / expected))


def _stretches(logs: FloatArray, risen: BoolArray, known: BoolArray) -> list[tuple[int, int, int]]:
    """(first, last, peak) columns of the runs of candidate days that end as they began."""
    seen = np.isfinite(logs).sum(axis=0)
    together = nanmedian(logs, 0)
    own = TO_DEVIATION * float(nanmedian(np.abs(together - nanmedian(together[None, :], 1))[None, :], 1)[0])
    with np.errstate(invalid="ignore"):
        share = risen.sum(axis=0) / np.maximum(seen, 1)
        is_up = (seen >= LEAST_SERIES) & (share >= LEAST_SHARE) & (together >= np.log(LEAST_LIFT)) & ~known
        is_up &= together > TOGETHER * max(own, 0.01)
        spread = nanmedian(np.abs(logs - together), 0)
    is_up &= ~((np.abs(together - np.log(2)) < 0.05) & (spread < DUPLICATE_SPREAD))
    days = np.flatnonzero(is_up)
    found = []
    for run in np.split(days, np.flatnonzero(np.diff(days) > 2) + 1) if days.size else []:
        first, last = int(run[0]), int(run[-1])
        after = together[last + 1 : last + 1 + SIDE_DAYS]
        peak = int(first + np.nanargmax(together[first : last + 1]))
        before = logs[
            risen[:, peak], max(first - 1, 0) : first
        ]  # of those that rose: payments fall and come back, visits do not
        back = not np.isfinite(after).any() or np.nanmedian(after) < together[peak] / 3
        held_up = bool(np.isfinite(before).any() and np.nanmedian(before) < np.log(HELD_UP))
        if last - first < LONGEST and back and not held_up:
            found.append((first, last, peak))
    return found


def _described(
    logs: FloatArray, risen: BoolArray, first: date, affects: Affects, days: tuple[int, int, int]
) -> Inferred:
    start, stop, peak = days

    def ratio(columns: slice) -> float:
        part = logs[:, columns]
        return float(np.exp(np.nanmedian(part))) if np.isfinite(part).any() else 1.0

    return Inferred(
        first=first + timedelta(days=start),
        last=first + timedelta(days=stop),
        peak=first + timedelta(days=peak),
        affects=affects,
        lift=ratio(slice(peak, peak + 1)),
        agreeing=int(risen[:, peak].sum()),
        series=int(np.isfinite(logs[:, peak]).sum()),
        before=ratio(slice(max(start - 1, 0), start)),
        after=ratio(slice(stop + 1, stop + 1 + SIDE_DAYS)),
    )
