"""What every value should have been: level × weekday × event, corrected by what the peers do, followed day by day.

Each series has a level and a place in the week (both logs), followed period by period by a robust Kalman filter, so that
every past residual is one a night would have seen (no residual knows its own value). Per period:

1. *Expected* = exp(level + week[slot] + lift of the event). The lift of a day of an event (2nd day of double 11) is what
   it was the last times in the same group, less what few observations allow; never seen, it is that of the phase.
   Every series answers to its group's lift in its own strength (learned, near 1).
2. *Peers*: the common movement of the group, from robust weighted residuals of the other series, is forgiven to each:
   a promotion nobody entered raises all of them. It is used as far as it is significant.
3. *Noise* = the variance of counts, shares or averages (`counts.py`) + the series' own overdispersion + what is not known
   of level, week and lift + what event days add. The residual is z = 2 (√(value / expected) − 1) / √noise: on the square
   root counts and amounts are nearly symmetric, a half as far as a double (Freeman & Tukey, 1950).
4. *Learning*: z is bounded at 2.5, so an incident hardly moves anything; after a week beyond it the filter lets go of
   the old level. Values that are excluded or missing teach nothing; event days teach lifts more than levels.

A group that falls together is not forgiven: `shock` is the group's own movement against its own past, which
`baseline.py` judges downwards only, since nobody runs a promotion that makes everything fall; upwards it cannot be told
from a sale that nobody entered.

Method: extended Kalman filter with a log link and a bounded score (Masreliez, 1975; West & Harrison, 1997, ch. 14);
positive-part shrinkage of the group's movement (James & Stein, 1961). The loop is over periods, each step over all
series of a block of groups that fits a processor's cache; 32-bit numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metrics_pipeline.detection.counts import relative_noise
from metrics_pipeline.detection.interface import (
    NO_EVENT,
    NO_GROUP,
    PHASES,
    BoolArray,
    Calendar,
    IntArray,
    Panel,
)

Single = npt.NDArray[np.float32]

BOUND = np.float32(2.5)
BLOCK = 8192
"""Series that are followed together; a group is never cut."""
_LOUD = 0.15
"""Log movement of a group (event or not) from which it says how strongly its series answer."""
_KNOWN = 14
"""Values after which a series may speak for its group."""
_LIFT_BOUND = 3.0
_LOG_BOUND = np.float32(2.5)


@dataclass(frozen=True)
class Tuning:
    """Numbers of the filter; found on development seeds of `benchmarks/quality`, and none is of a single series."""

    memory: float = 0.15
    """Movement of the level from day to day as a share of the series' ordinary noise."""
    least_move: float = 0.005
    """The same at least, log."""
    week_move: float = 0.006
    """Movement of a slot of the week from week to week, log."""
    week_spread: float = 0.3
    """How far a slot may be from the mean before anything is known, log."""
    first_noise: float = 0.12
    scale_memory: float = 1 / 60
    """Share of the newest value in the overdispersion."""
    strength_spread: float = 0.3
    """How differently series of one group answer to a promotion."""
    lift_spread: float = 0.3
    """How much the lift of an event differs from that of the last time, as a share of it."""
    event_noise: float = 0.2
    """First guess of the noise that an event adds, as a share of its lift."""
    drift_memory: float = 0.08
    let_go_after: int = 12
    """Periods beyond the bound after which the level is taken to be another one."""
    let_go: float = 0.1


@dataclass(frozen=True)
class Walk:
    """What the filter saw in each period before that period's value taught it anything; (n_series, n_periods)."""

    z: Single
    """Standardised residuals after peers; NaN where missing."""
    drift: Single
    """Exponentially weighted mean of the bounded z, in its standard deviations if they were independent."""
    shock: Single
    """The movement of the series' group in its own standard deviations, 0 where it has no peers."""
    expected: Single
    """In the unit of the value; NaN before the first one."""
    spread: Single
    """Standard deviation as a share of the expectation."""
    seen: IntArray
    """Values learned from before this period."""


def walk(panel: Panel, calendar: Calendar, tuning: Tuning | None = None) -> Walk:
    """Follow all series through all periods. What a series is found to be depends on its group and on nothing else."""
    group = panel.group.copy()
    lonely = group == NO_GROUP
    group[lonely] = group.max(initial=NO_GROUP) + 1 + np.arange(int(lonely.sum()))
    order = np.argsort(group, kind="stable")
    shape = panel.numerator.shape
    out = Walk(*(np.full(shape, np.nan, dtype=np.float32) for _ in range(5)), seen=np.zeros(shape, dtype=np.int64))
    for rows in _blocks(group[order]):
        _Block(panel, calendar, tuning or Tuning(), order[rows], group[order[rows]]).follow(out)
    return out


def _blocks(group: IntArray) -> list[slice]:
    """Cuts between groups, about every `BLOCK` series."""
    starts = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
    cuts = [0]
    for start in starts.tolist():
        if start - cuts[-1] >= BLOCK:
            cuts.append(start)
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(group)], strict=True) if b > a]


class _Block:
    """The state of the filter for some whole groups."""

    def __init__(self, panel: Panel, calendar: Calendar, tuning: Tuning, rows: IntArray, group: IntArray) -> None:
        self.tuning, self.rows, n = tuning, rows, len(rows)
        self.slot = panel.slot.tolist()
        self.day_length = 24 if max(self.slot, default=0) > 6 else 1
        _, self.starts, self.of = np.unique(group, return_index=True, return_inverse=True)
        self.n_groups = len(self.starts)
        self.value = np.ascontiguousarray(panel.value[rows].T, dtype=np.float32)
        self.exposure = (
            None if panel.denominator is None else np.ascontiguousarray(panel.denominator[rows].T, dtype=np.float32)
        )
        self.there = np.isfinite(self.value)
        self.usable = self.there if panel.excluded is None else self.there & ~panel.excluded[rows].T
        self._kinds()
        self.level = np.zeros(n, np.float32)
        self.level_variance = np.zeros(n, np.float32)
        self.begun = np.zeros(n, dtype=bool)
        self.week = np.zeros((max(self.slot, default=0) + 1, n), np.float32)
        self.week_variance = np.full(self.week.shape, tuning.week_spread**2, np.float32)
        self.own = np.full(n, tuning.first_noise**2, np.float32)
        self.strength = np.ones(n, np.float32)
        self.strength_weight = np.full(n, 1 / tuning.strength_spread**2, np.float32)
        self.run = np.zeros(n, np.float32)
        self.seen = np.zeros(n, np.float32)
        self.drift = np.zeros(n, np.float32)
        self.group_variance = np.full(self.n_groups, 0.03**2, np.float32)
        self.event_noise = np.full(self.n_groups, tuning.event_noise**2, np.float32)
        self._events(calendar)

    def _kinds(self) -> None:
        """Which noise a series has in each period, by the values before it; only where there are ratios or amounts."""
        exposure = self.exposure
        events = self.value.astype(np.float64) * (1.0 if exposure is None else exposure)
        with np.errstate(invalid="ignore"):
            broken = self.there & (np.abs(events - np.round(events)) > 1e-5 * np.maximum(np.abs(events), 1))
            above = self.there & (self.value > 1)
        is_ratio = np.zeros(self.there.shape, bool) if exposure is None else self.there & (exposure > 1)
        self.all_counts = not broken.any() and not is_ratio.any()
        if not self.all_counts:
            self.is_whole = ~np.logical_or.accumulate(broken, axis=0)
            ever = np.logical_or.accumulate(is_ratio, axis=0)
            self.is_share = ever & ~np.logical_or.accumulate(above & is_ratio, axis=0)
        with np.errstate(invalid="ignore"):
            negative = np.logical_or.accumulate(self.value < 0, axis=0)
        self.there &= ~negative
        self.usable = self.usable & self.there

    def _events(self, calendar: Calendar) -> None:
        """Numbers for the days of events, and what is known of each in each group."""
        category = calendar.category[self.rows[self.starts]]
        event, inside = calendar.event[category], calendar.day_in_event[category]
        self.phase = calendar.phase[category]
        self.is_event = event != NO_EVENT
        self.has_event = self.is_event.any(axis=0)
        keys = np.where(self.is_event, event * 10_000 + inside + 5_000, -1)
        known, numbers = np.unique(keys, return_inverse=True)
        self.lift_no = numbers.reshape(keys.shape)
        self.lift = np.zeros((self.n_groups, len(known)), np.float32)
        self.lift_seen = np.zeros_like(self.lift)
        self.phase_lift = np.zeros((self.n_groups, len(PHASES)), np.float32)
        self.phase_seen = np.zeros_like(self.phase_lift)

    def follow(self, out: Walk) -> None:
        """Walk through all periods and put what was seen into the rows of `out`."""
        names = ("z", "drift", "shock", "expected", "spread")
        kept = {name: np.empty(self.value.shape, np.float32) for name in names}
        seen = np.empty(self.value.shape, np.float32)
        with np.errstate(invalid="ignore"):
            for period in range(len(self.value)):
                seen[period] = self.seen
                for name, values in zip(names, self._step(period), strict=True):
                    kept[name][period] = values
        for name in names:
            getattr(out, name)[self.rows] = kept[name].T
        out.seen[self.rows] = seen.T

    def _step(self, period: int) -> tuple[Single, Single, Single, Single, Single]:
        t, of, slot = self.tuning, self.of, self.slot[period]
        there, usable = self.there[period], self.usable[period]
        exposure = None if self.exposure is None else np.where(there, self.exposure[period], np.float32(1))
        half = np.float32(0.5) if exposure is None else 0.5 / np.maximum(exposure, np.float32(1e-6))
        self._begin(self.value[period], there & usable & ~self.begun, half)
        judged, learns = there & self.begun, usable & self.begun

        week, week_variance = self.week[slot], self.week_variance[slot]
        before = np.exp(np.clip(self.level + week, -30, 40))
        unsure = self.level_variance + week_variance
        is_event = self.has_event[period]
        if is_event:
            of_event = self.is_event[:, period]
            predicted, doubt = self._predicted(period, of_event)
            lift = predicted[of]
            before = before * np.exp(self.strength * lift)
        noise = self._noise(period, before, exposure)
        total = noise + unsure

        value = np.where(judged, self.value[period], before)
        ratio = np.clip(np.log((value + half) / (before + half)), -_LOG_BOUND, _LOG_BOUND)
        weight = (learns & (self.seen >= _KNOWN)) / (total + 0.02 * of_event[of] if is_event else total)
        common, information, others, behind = self._common(ratio, weight.astype(np.float32), np.sqrt(total) * BOUND)
        has_peers = behind > 0
        shown = np.maximum(1 - 1 / np.maximum(others * others * behind, np.float32(1e-6)), 0)
        forgiven = others * shown
        moved = lift + forgiven if is_event else forgiven
        expected = before * np.exp(self.strength * forgiven)
        answer_noise = self.event_noise[of] * moved * moved
        variance = total + answer_noise + moved * moved / self.strength_weight
        variance += np.where(has_peers, (shown > 0) / np.maximum(behind, 1), 0)
        if is_event:
            variance += np.where(has_peers, 0, (doubt[of] * self.strength) ** 2)
        spread = np.sqrt(variance)

        z = 2 * (np.sqrt(value / expected) - 1) / spread + np.minimum(spread, 2) / 4
        bounded = np.where(judged, np.clip(z, -BOUND, BOUND), 0)
        z = np.where(judged, z, np.nan)
        memory = t.drift_memory / self.day_length**0.5
        self.drift += learns * (memory * (bounded - self.drift))
        group_spread = np.sqrt(self.group_variance + 1 / np.maximum(information, 1e-6) + (doubt**2 if is_event else 0))
        shock = np.where(has_peers, (common / group_spread)[of], 0)
        seen = (
            z,
            np.where(judged, self.drift / np.float32((memory / (2 - memory)) ** 0.5), np.nan),
            np.where(judged, shock, np.nan),
            np.where(self.begun, expected, np.nan),
            spread,
        )

        loud = np.abs(moved) >= _LOUD
        calm = learns & ~loud
        followed = self.strength * np.clip(forgiven, -0.06, 0.06)
        gain = learns / (total + answer_noise)
        if is_event:
            on_event = of_event[of]
            calm &= ~on_event
            followed = np.where(on_event, 0, followed)
            gain *= np.where(on_event, np.float32(0.5), np.float32(1))
            self._learn_lifts(period, of_event, common, predicted)
        if loud.any():
            answer = ratio + self.strength * lift if is_event else ratio
            self._learn_strength(learns & loud, answer, moved, total, bounded)
        quiet = slice(None) if not is_event else ~of_event
        self.group_variance[quiet] += 0.03 * (
            np.minimum(common * common, 9 * self.group_variance) - self.group_variance
        )[quiet]
        pull = bounded * spread
        level_gain = gain * self.level_variance
        self.level += np.clip(level_gain * (pull + followed), -1, 1)
        beyond = np.abs(bounded) >= BOUND
        self.run += learns * np.where(beyond, np.float32(1), -np.minimum(self.run, 1))
        move = (self.own * t.memory**2 + t.least_move**2) / self.day_length
        move += (learns & (self.run >= t.let_go_after * self.day_length**0.5)) * np.float32(t.let_go**2)
        self.level_variance += self.begun * (move - level_gain * self.level_variance)
        week_gain = gain * week_variance * np.where(calm, np.float32(1), np.float32(0.25))
        self.week[slot] += week_gain * pull
        self.week_variance[slot] += t.week_move**2 - week_gain * week_variance
        rate = calm * np.maximum(1 / (self.seen + 4), t.scale_memory / self.day_length**0.5)
        surprise = np.minimum(np.where(judged, z * z, 1), 9) - 1
        self.own = np.clip(self.own + rate * surprise * variance, 0.01**2, 4.0).astype(np.float32)
        self.seen += learns
        return seen

    def _begin(self, value: Single, fresh: BoolArray, half: Single | np.float32) -> None:
        """A series begins at its first value, unsure of it by its own noise."""
        if fresh.any():
            start = np.where(fresh, np.maximum(value, 0), 0) + half
            self.level = np.where(fresh, np.log(start), self.level)
            self.level_variance = np.where(fresh, np.float32(0.34), self.level_variance)
            self.begun |= fresh

    def _noise(self, period: int, expected: Single, exposure: Single | None) -> Single:
        if self.all_counts:
            return np.asarray(1 / np.maximum(expected, np.float32(0.05)) + self.own)
        ones = np.ones_like(expected) if exposure is None else exposure
        earlier = max(period - 1, 0)
        own = relative_noise(expected, ones, self.is_whole[earlier], self.is_share[earlier])
        return np.asarray(own + self.own, dtype=np.float32)

    def _predicted(self, period: int, is_event: BoolArray) -> tuple[Single, Single]:
        """Log lift of each group's event, and its standard deviation; (n_groups,), 0 where there is no event."""
        rows = np.arange(self.n_groups)
        number, phase = self.lift_no[:, period], self.phase[:, period]
        seen = self.lift_seen[rows, number]
        share = seen / (seen + np.float32(0.3))
        predicted = share * self.lift[rows, number] + (1 - share) * self.phase_lift[rows, phase]
        first = np.where(seen > 0, np.float32(0), np.float32(0.2**2))
        doubt = np.sqrt((self.tuning.lift_spread * predicted) ** 2 + first + np.float32(0.04**2))
        return np.where(is_event, predicted, 0), np.where(is_event, doubt, 0).astype(np.float32)

    def _common(self, ratio: Single, weight: Single, bound: Single) -> tuple[Single, Single, Single, Single]:
        """Movement of each group and the weight behind it; the same without the series itself, for each series."""
        of, starts = self.of, self.starts
        by = weight * self.strength
        square = by * self.strength
        information = np.add.reduceat(square, starts)
        least = np.maximum(information, np.float32(1e-6))
        common = np.add.reduceat(by * np.clip(ratio, np.float32(-0.7), np.float32(0.7)), starts) / least
        for _ in range(2):
            center = self.strength * common[of]
            bounded = by * (center + np.clip(ratio - center, -bound, bound))
            common = np.add.reduceat(bounded, starts) / least
        whole = information[of]
        rest = whole - square
        rest *= rest > 1e-4 * whole
        others = (whole * common[of] - bounded) / np.maximum(rest, np.float32(1e-6)) * (rest > 0)
        return common, information, others, rest

    def _learn_lifts(self, period: int, is_event: BoolArray, common: Single, predicted: Single) -> None:
        rows = np.flatnonzero(is_event)
        number, phase = self.lift_no[rows, period], self.phase[rows, period]
        total = np.clip(predicted[rows] + common[rows], -_LIFT_BOUND, _LIFT_BOUND)
        seen = 0.5 * self.lift_seen[rows, number]
        self.lift[rows, number] = (seen * self.lift[rows, number] + total) / (seen + 1)
        self.lift_seen[rows, number] = seen + 1
        seen = 0.9 * self.phase_seen[rows, phase]
        self.phase_lift[rows, phase] = (seen * self.phase_lift[rows, phase] + total) / (seen + 1)
        self.phase_seen[rows, phase] = seen + 1

    def _learn_strength(self, loud: BoolArray, answer: Single, moved: Single, noise: Single, bounded: Single) -> None:
        """How strongly each series answers to its group (recursive least squares), and how much noise answers have."""
        exact = loud / (noise + np.float32(0.02))
        self.strength_weight += exact * moved * moved
        most = np.abs(moved) / 2
        miss = np.clip(answer - self.strength * moved, -most, most)
        step = exact * moved * miss / self.strength_weight
        self.strength = np.clip(self.strength + step, 0, 2.5).astype(np.float32)
        number = np.add.reduceat(loud.astype(np.float32), self.starts)
        surprise = np.add.reduceat(np.where(loud, bounded * bounded / 0.94 - 1, 0), self.starts)
        rate = 0.1 * number / (number + 10)
        change = np.exp(rate * surprise / np.maximum(number, 1))
        self.event_noise = np.clip(self.event_noise * change, 0.05**2, 0.6**2).astype(np.float32)
