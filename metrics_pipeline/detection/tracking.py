"""What every value should have been: level × weekday × event, corrected by what the peers do, followed day by day.

Each series has a level and a place in the week (both logs), followed period by period by a robust Kalman filter, so that
every past residual is one a night would have seen (no residual knows its own value). Per period:

1. *Expected* = exp(level + week[slot] + lift of the event). The lift of a day of an event (2nd day of double 11) is what
   it was the last times in the same group, less what few observations allow; never seen, it is that of the phase.
   Every series answers to its group's lift in its own strength (learned, near 1).
2. *Peers*: the common movement of the group, from robust weighted residuals of the other series, is forgiven to each:
   a promotion nobody entered raises all of them. It is used as far as it is significant.
3. *Noise* = the variance of counts, shares or averages (`counts.py`) + the series' own overdispersion + what is not known
   of level, week and lift + what event days add. The residual z is the value / expectation on a power scale (Box & Cox,
   1964) in units of the noise: the square root where the noise is that of counts, the logarithm where it is the
   series' own, and in between as both have their part. There it is symmetric: a half is as far as a double.
4. *Learning*: z is bounded at 2.5, so an incident hardly moves anything; after a week beyond it the filter lets go of
   the old level. A place in the week learns what the peers do, too, as far as it is not known yet: the hours of a day go
   up and down together in a whole group, and what is forgiven every day is no noise. What a group does twice in a row in
   the same place, and was not expected, puts that place in doubt. Values that are excluded or missing teach nothing;
   event days teach lifts more than levels.

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

from metrics_pipeline.detection.counts import Floats, relative_noise
from metrics_pipeline.detection.interface import (
    NO_EVENT,
    NO_GROUP,
    PHASES,
    BoolArray,
    Calendar,
    FloatArray,
    IntArray,
    Panel,
)
from metrics_pipeline.detection.promotions import WIDENING

BOUND = np.float32(2.5)
BLOCK = 16384
"""Series that are followed together; a group is never cut."""
_LOUD = 0.15
"""Log movement of a group (event or not) from which it says how strongly its series answer."""
_FLUSHED = 32
"""Periods that are kept before they are put into their rows: while they are still in the cache."""
_KNOWN = 14
"""Values after which a series may speak for its group."""
_LIFT_BOUND = 3.0
_FIRST_DOUBT = np.array([WIDENING.get(name, 0.0) for name in PHASES], dtype=np.float32)
"""By phase: what a day may bring that has never been seen, nor one like it, as a share of the expectation; half of it once
there was one of its phase."""
_FOLLOWED = np.float32(0.06)
"""Most of a common movement that levels follow in one period, log: a sale is over tomorrow."""
_TAUGHT = np.float32(1.5)
"""Standard deviations of a place in the week that a common movement may move it at once; beyond them it is loud."""
_TWICE = np.float32(0.15)
"""Log movement of a group in the same place of two weeks from which that place is not known."""
_STREAK = np.float32(4)
LEAST_POWER = np.float32(0.02)
_LOG_BOUND = np.float32(2.5)
"""Log distance that is as far as any, of a series and of a group: where all answer weakly, a little would be a great movement."""


@dataclass(frozen=True)
class Tuning:
    """Numbers of the filter; found on development seeds of `benchmarks/quality`, and none is of a single series."""

    memory: float = 0.09
    """Movement of the level from day to day as a share of the series' ordinary noise."""
    least_move: float = 0.005
    """The same at least, log."""
    week_move: float = 0.006
    """Movement of a slot of the week from week to week, log."""
    week_spread: float = 0.3
    """How far a slot may be from the mean before anything is known, log."""
    first_noise: float = 0.12
    scale_memory: float = 1 / 80
    """Share of the newest value in the overdispersion."""
    strength_spread: float = 0.3
    """How differently series of one group answer to a promotion."""
    lift_spread: float = 0.3
    """How much the lift of an event differs from that of the last time, as a share of it."""
    event_noise: float = 0.09
    """First guess of the noise that an event adds, as a share of its lift: how differently the series of a group answer."""
    event_margin: float = 0.02
    """What an event day adds to the noise in any case, log."""
    event_noise_alone: float = 0.2
    event_margin_alone: float = 0.05
    """The same of series without peers, which nobody says what this year's event is like."""
    drift_memory: float = 0.08
    """Share of the newest residual in the long mean of residuals, of a day; of an hour it is less."""
    streak_memory: float = 0.3
    """The same in the short one, of a period."""
    event_drift: float = 0.85
    """How much residuals of event days count in these means: they hang together."""
    let_go_after: int = 12
    """Periods beyond the bound after which the level is taken to be another one."""
    let_go: float = 0.1


@dataclass(frozen=True)
class Walk:
    """What the filter saw in each period before that period's value taught it anything."""

    tested: slice
    """The columns of the panel for which the last five are kept."""
    z: Floats
    """(n_series, n_periods): standardised residuals after peers; NaN where missing."""
    drift: Floats
    """(n_series, n_periods): exponentially weighted mean of the bounded z over weeks, in its standard deviations if they
    were independent."""
    streak: Floats
    """(n_series, n_periods): the same of a few periods."""
    shock: Floats
    """(n_groups, n_periods): the movement of each group in its own standard deviations, 0 where it has fewer than two series."""
    group: IntArray
    """(n_series,): row of `shock`."""
    expected: Floats
    """(n_series, n_tested): in the unit of the value; NaN before the first one."""
    spread: Floats
    """(n_series, n_tested): standard deviation as a share of the expectation."""
    power: Floats
    """(n_series, n_tested): of the scale on which z is measured: 0.5 the square root, near 0 the logarithm."""
    seen: Floats
    """(n_series, n_tested): values learned from before this period."""


def walk(
    panel: Panel, calendar: Calendar, tested: slice, tuning: Tuning | None = None, *, with_means: bool = True
) -> Walk:
    """Follow all series through all periods up to the last tested one.

    What a series is found to be depends on its group and on nothing else. Without means, `drift` and `streak` are not kept.
    """
    group = panel.group.copy()
    lonely = group == NO_GROUP
    group[lonely] = group.max(initial=NO_GROUP) + 1 + np.arange(int(lonely.sum()))
    groups, number = np.unique(group, return_inverse=True)
    order = np.argsort(number, kind="stable")
    is_sorted = bool((order == np.arange(len(order))).all())
    n, until = panel.n_series, tested.stop
    z = np.empty((n, until), dtype=np.float32)
    drift, streak = (np.empty((n, until if with_means else 0), dtype=np.float32) for _ in range(2))
    expected, spread, power, seen = (np.empty((n, until - tested.start), dtype=np.float32) for _ in range(4))
    shock = np.empty((len(groups), until), dtype=np.float32)
    out = Walk(tested, z, drift, streak, shock, number.astype(np.int64), expected, spread, power, seen)
    value = panel.value
    for cut in _blocks(number[order]):
        rows = cut if is_sorted else order[cut]
        _Block(panel, value, calendar, tuning or Tuning(), rows, number[rows]).follow(out)
    return out


def _within(values: Floats, low: Floats | np.float32 | float, high: Floats | np.float32 | float) -> Floats:
    """`numpy.clip`, by what is fastest: it is slow with arrays for bounds, and minimum and maximum are with numbers."""
    if isinstance(low, np.ndarray):
        return np.minimum(np.maximum(values, low), high)
    return np.clip(values, low, high)


def _blocks(group: IntArray) -> list[slice]:
    """Cuts between groups, about every `BLOCK` series."""
    starts = np.flatnonzero(np.diff(group, prepend=group[:1] - 1))
    cuts = [0]
    for start in starts.tolist():
        if start - cuts[-1] >= BLOCK:
            cuts.append(start)
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(group)], strict=True) if b > a]


@dataclass(frozen=True)
class _Now:
    """One period of a block: (n_series,); `shock`, `common` and `predicted` (n_groups,)."""

    judged: BoolArray
    learns: BoolArray
    expected: Floats
    spread: Floats
    power: Floats
    z: Floats
    bounded: Floats
    shock: Floats
    ratio: Floats
    """Log of the value against the expectation without any event."""
    forgiven: Floats
    """What the peers do beyond the predicted lift."""
    moved: Floats
    """Lift and what is forgiven."""
    noise: Floats
    """Variance of the value if it is an ordinary one, its expectation's included."""
    common: Floats
    is_heard: BoolArray
    """(n_groups,): whether any series could speak for its group."""
    predicted: Floats


class _Block:
    """The state of the filter for some whole groups."""

    def __init__(  # noqa: PLR0917
        self,
        panel: Panel,
        value: FloatArray,
        calendar: Calendar,
        tuning: Tuning,
        rows: IntArray | slice,
        group: IntArray,
    ) -> None:
        self.tuning, self.rows, n = tuning, rows, len(group)
        self.first_group = int(group[0])
        self.slot = panel.slot.tolist()
        self.day_length = 24 if max(self.slot, default=0) > 6 else 1
        _, self.starts, self.of = np.unique(group, return_index=True, return_inverse=True)
        self.n_groups = len(self.starts)
        self.sizes = np.bincount(self.of)
        self.has_peers = self.sizes > 1
        self.value = np.ascontiguousarray(value[rows].T, dtype=np.float32)
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
        self.common_before = np.zeros((len(self.week), self.n_groups), np.float32)
        self.visited = np.zeros(self.week.shape, dtype=bool)
        self.own = np.full(n, tuning.first_noise**2, np.float32)
        self.strength = np.ones(n, np.float32)
        self.strength_weight = np.full(n, 1 / tuning.strength_spread**2, np.float32)
        self.run = np.zeros(n, np.float32)
        self.seen = np.zeros(n, np.float32)
        self.long = np.float32(tuning.drift_memory / self.day_length**0.5)
        self.short = np.float32(tuning.streak_memory)
        self.drift = np.zeros(n, np.float32)
        self.streak = np.zeros(n, np.float32)
        self.group_variance = np.full(self.n_groups, 0.03**2, np.float32)
        self.event_noise = (
            np.where(self.has_peers, tuning.event_noise, tuning.event_noise_alone).astype(np.float32) ** 2
        )
        self.event_margin = (
            np.where(self.has_peers, tuning.event_margin, tuning.event_margin_alone).astype(np.float32) ** 2
        )
        self.nothing = np.zeros(self.n_groups, np.float32)
        self._events(calendar)

    def _kinds(self) -> None:
        """Which noise a series has in each period, by the values up to it; a series that was below 0 has no more values."""
        with np.errstate(invalid="ignore"):
            if np.nanmin(self.value, initial=0) < 0:
                self.there &= ~np.logical_or.accumulate(self.value < 0, axis=0)
                self.usable = self.usable & self.there
            events = self.value if self.exposure is None else self.value * self.exposure
            is_broken = np.abs(events - np.rint(events)) > 1e-6 * events
            self.all_counts = self.exposure is None and not is_broken.any()
            if self.all_counts:
                return
            is_ratio = np.zeros(self.there.shape, bool) if self.exposure is None else self.exposure > 1
            above = is_ratio & (self.value > 1)
        self.is_whole = ~np.logical_or.accumulate(is_broken, axis=0)
        self.is_share = np.logical_or.accumulate(is_ratio, axis=0) & ~np.logical_or.accumulate(above, axis=0)

    def _events(self, calendar: Calendar) -> None:
        """Numbers for the days of events, and what is known of each in each group."""
        category = calendar.category[self.rows][self.starts]
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
        first, until = out.tested.start, out.tested.stop
        with_means = bool(out.drift.shape[1])
        names = ("z", "drift", "streak") if with_means else ("z",)
        always = {name: np.empty((_FLUSHED, len(self.of)), np.float32) for name in names}
        shock = out.shock[self.first_group : self.first_group + self.n_groups]
        means = (("drift", self.drift, self.long), ("streak", self.streak, self.short))
        spreads = {name: np.float32((memory / (2 - memory)) ** 0.5) for name, _, memory in means}
        with np.errstate(invalid="ignore"):
            for period in range(until):
                if period >= first:
                    out.seen[self.rows, period - first] = self.seen
                now = self._step(period, with_means=with_means)
                at = period % _FLUSHED
                always["z"][at] = np.where(now.judged, now.z, np.nan)
                for name, mean, _ in means if with_means else ():  # updated in place by `_step`
                    always[name][at] = np.where(now.judged, mean / spreads[name], np.nan)
                shock[:, period] = now.shock
                if period >= first:
                    out.expected[self.rows, period - first] = np.where(self.begun, now.expected, np.nan)
                    out.spread[self.rows, period - first] = now.spread
                    out.power[self.rows, period - first] = now.power
                if at == _FLUSHED - 1 or period == until - 1:
                    for name, kept in always.items():
                        getattr(out, name)[self.rows, period - at : period + 1] = kept[: at + 1].T

    def _step(self, period: int, *, with_means: bool) -> _Now:
        """See a period, and then learn from it; the means of residuals cost a tenth, and not everybody asks for them."""
        exposure = None if self.exposure is None else np.where(self.there[period], self.exposure[period], np.float32(1))
        half = np.float32(0.5) if exposure is None else np.float32(0.5) / np.maximum(exposure, np.float32(1e-6))
        self._begin(self.value[period], self.usable[period] & ~self.begun, half)
        if self.day_length > 1:
            self._like_yesterday(self.slot[period], self.usable[period] & self.begun)
        now = self._look(period, exposure, half)
        if with_means:
            weight = now.learns * self._each(
                np.where(self.is_event[:, period], np.float32(self.tuning.event_drift), np.float32(1))
            )
            self.drift += self.long * (weight * now.bounded - now.learns * self.drift)
            self.streak += self.short * (weight * _within(now.z, -_STREAK, _STREAK) - now.learns * self.streak)
        self._learn(period, now)
        return now

    def _look(self, period: int, exposure: Floats | None, half: Floats | np.float32) -> _Now:
        """Expectation, peers, noise and residual of every series, by what was learned before."""
        slot = self.slot[period]
        judged, learns = self.there[period] & self.begun, self.usable[period] & self.begun
        before = np.exp(self.level + self.week[slot])
        unsure = self.level_variance + self.week_variance[slot]
        is_event = self.has_event[period]
        lift: Floats | np.float32 = np.float32(0)
        more: Floats | np.float32 = np.float32(0)
        event_of, predicted, doubt = self.is_event[:, period], self.nothing, self.nothing
        if is_event:
            predicted, doubt = self._predicted(period, event_of)
            lift = self._each(predicted)
            before = before * np.exp(self.strength * lift)
            more = np.float32(0.02) * np.repeat(event_of, self.sizes)
        noise = self._noise(period, before, exposure)
        total = noise + unsure

        value = np.where(judged, self.value[period], before)
        ratio = _within(np.log((value + half) / (before + half)), -_LOG_BOUND, _LOG_BOUND)
        weight = (learns & (self.seen >= _KNOWN)) / (total + more)
        common, information, others, behind = self._common(ratio, weight, np.sqrt(total) * BOUND)
        shown = np.maximum(1 - 1 / np.maximum(others * others * behind, np.float32(1e-6)), 0)
        forgiven = others * shown
        moved = lift + forgiven
        expected = before * np.exp(self.strength * forgiven)

        answer_noise = self._each(self.event_noise) * moved * moved
        variance = total + answer_noise + moved * moved / self.strength_weight
        variance += (shown > 0) / np.maximum(behind, 1)
        if is_event:
            variance += np.where(behind > 0, 0, (self._each(doubt) * self.strength) ** 2)
            variance += self._each(self.event_margin * event_of)
        spread = np.sqrt(variance)
        power = np.maximum(np.float32(0.5) - np.float32(0.5) * self.own / noise, LEAST_POWER)
        z = np.expm1(power * (ratio - self.strength * forgiven)) / (power * spread)
        z += (1 - power) / 2 * np.minimum(spread, 2)
        speakers = np.add.reduceat(weight > 0, self.starts, dtype=np.int32)
        group_spread = np.sqrt(self.group_variance + 1 / np.maximum(information, 1e-6) + doubt * doubt)
        return _Now(
            judged=judged,
            learns=learns,
            expected=expected,
            spread=spread,
            power=power,
            z=z,
            bounded=judged * _within(z, -BOUND, BOUND),
            shock=np.where(speakers > 1, common / group_spread, 0),
            is_heard=speakers > 0,
            ratio=ratio + self.strength * lift,
            forgiven=forgiven,
            moved=moved,
            noise=total + answer_noise,
            common=common,
            predicted=predicted,
        )

    def _learn(self, period: int, now: _Now) -> None:
        """Levels, weeks and noise follow what was seen; event days teach lifts and strengths."""
        t, slot, learns = self.tuning, self.slot[period], now.learns
        doubted = self._doubt_place(slot, self.has_peers & ~self.is_event[:, period], now.common)
        week_variance = self.week_variance[slot]
        most = _TAUGHT * np.sqrt(week_variance)
        loud = np.abs(now.moved) >= np.maximum(most, _LOUD)
        taught = self.strength * _within(now.forgiven, -most, most)
        calm = learns & ~loud
        followed = self.strength * _within(now.forgiven, -_FOLLOWED, _FOLLOWED)
        gain = learns / (now.noise + doubted)
        event_of = self.is_event[:, period]
        if self.has_event[period]:
            on_event = np.repeat(event_of, self.sizes)
            loud |= on_event & (np.abs(now.moved) >= _LOUD)
            calm = learns & ~loud & ~on_event
            taught = np.where(on_event, 0, taught)
            followed = np.where(on_event, 0, followed)
            gain *= np.where(on_event, np.float32(0.5), np.float32(1))
            self._learn_lifts(period, event_of, now)
        if loud.any():
            self._learn_strength(learns & loud, now)
        usual = np.minimum(now.common * now.common, 9 * self.group_variance) - self.group_variance
        self.group_variance += ~event_of * (np.float32(0.03) * usual)

        pull = now.bounded * now.spread
        level_gain = gain * self.level_variance
        self.level += _within(level_gain * (pull + followed), -1, 1)
        self.run += learns * np.where(np.abs(now.bounded) >= BOUND, np.float32(1), -np.minimum(self.run, 1))
        move = (self.own * t.memory**2 + t.least_move**2) / self.day_length
        move += (learns & (self.run >= t.let_go_after * self.day_length**0.5)) * np.float32(t.let_go**2)
        self.level_variance += self.begun * (move - level_gain * self.level_variance)

        week_gain = gain * week_variance * (np.float32(0.25) + np.float32(0.75) * calm)
        self.week[slot] += _within(week_gain * (pull + taught), -1, 1)
        self.week_variance[slot] += t.week_move**2 - week_gain * week_variance

        known = self.seen - len(self.week)  # before each slot has been seen once, residuals are ignorance and not noise
        rate = (calm & (known >= 0)) * np.maximum(1 / (np.maximum(known, 0) + 8), t.scale_memory / self.day_length**0.5)
        surprise = now.judged * (np.minimum(now.z * now.z, 9) - 1)
        self.own = _within(self.own + rate * surprise * now.spread * now.spread, 0.01**2, 4.0)
        self.seen += learns

    def _doubt_place(self, slot: int, is_ordinary: BoolArray, common: Floats) -> Floats | np.float32:
        """Put a place in the week in doubt where a group was as much beside it the week before: variance added, (n_series,)."""
        before = self.common_before[slot]
        twice = np.where(is_ordinary & (before * common > 0), np.minimum(np.abs(before), np.abs(common)), 0)
        self.common_before[slot] = np.where(is_ordinary, common, before)
        if not (twice >= _TWICE).any():
            return np.float32(0)
        doubt = (self.strength * self._each(np.where(twice >= _TWICE, twice, 0))) ** 2
        added = np.maximum(doubt - self.week_variance[slot], 0)
        self.week_variance[slot] += added
        return np.asarray(added)

    def _begin(self, value: Floats, fresh: BoolArray, half: Floats | np.float32) -> None:
        """A series begins at its first value, unsure of it by its own noise."""
        if fresh.any():
            start = np.where(fresh, np.maximum(value, 0), 0) + half
            self.level = np.where(fresh, np.log(start), self.level)
            self.level_variance = np.where(fresh, np.float32(0.34), self.level_variance)
            self.begun |= fresh

    def _like_yesterday(self, slot: int, learns: BoolArray) -> None:
        """An hour of the week that was never seen begins as the same hour of the day before."""
        before = (slot - self.day_length) % len(self.week)
        fresh = ~self.visited[slot] & self.visited[before]
        if fresh.any():
            self.week[slot] = np.where(fresh, self.week[before], self.week[slot])
            self.week_variance[slot] = np.where(fresh, np.float32(0.15**2), self.week_variance[slot])
        self.visited[slot] |= learns

    def _noise(self, period: int, expected: Floats, exposure: Floats | None) -> Floats:
        if self.all_counts:
            return np.asarray(1 / np.maximum(expected, np.float32(0.05)) + self.own)
        ones = np.ones_like(expected) if exposure is None else exposure
        earlier = max(period - 1, 0)
        own = relative_noise(expected, ones, self.is_whole[earlier], self.is_share[earlier])
        return np.asarray(own + self.own, dtype=np.float32)

    def _predicted(self, period: int, is_event: BoolArray) -> tuple[Floats, Floats]:
        """Log lift of each group's event, and its standard deviation; (n_groups,), 0 where there is no event."""
        rows = np.arange(self.n_groups)
        number, phase = self.lift_no[:, period], self.phase[:, period]
        seen = self.lift_seen[rows, number]
        share = seen / (seen + np.float32(0.3))
        predicted = share * self.lift[rows, number] + (1 - share) * self.phase_lift[rows, phase]
        like_it = np.minimum(self.phase_seen[rows, phase], 1)
        first = np.where(seen > 0, np.float32(0), _FIRST_DOUBT[phase] ** 2 / (1 + 3 * like_it))
        doubt = np.sqrt((self.tuning.lift_spread * predicted) ** 2 + first + np.float32(0.04**2))
        return np.where(is_event, predicted, 0), np.where(is_event, doubt, 0).astype(np.float32)

    def _each(self, of_groups: Floats) -> Floats:
        """(n_groups,) → (n_series,): to repeat costs a fifth of an index."""
        return np.repeat(of_groups, self.sizes)

    def _common(self, ratio: Floats, weight: Floats, bound: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Movement of each group and the weight behind it; the same without the series itself, for each series."""
        starts = self.starts
        by = weight * self.strength
        square = by * self.strength
        information = np.add.reduceat(square, starts)
        least = np.maximum(information, np.float32(1e-6))
        common = np.add.reduceat(by * _within(ratio, np.float32(-0.7), np.float32(0.7)), starts) / least
        for _ in range(2):
            center = self.strength * self._each(common)
            bounded = by * (center + _within(ratio - center, -bound, bound))
            common = np.add.reduceat(bounded, starts) / least
        whole = self._each(information)
        rest = whole - square
        rest *= rest > 1e-4 * whole
        others = (whole * self._each(common) - bounded) / np.maximum(rest, np.float32(1e-6)) * (rest > 0)
        return _within(common, -_LOG_BOUND, _LOG_BOUND), information, _within(others, -_LOG_BOUND, _LOG_BOUND), rest

    def _learn_lifts(self, period: int, is_event: BoolArray, now: _Now) -> None:
        """The lift of a day of an event is what the group did; earlier times count half as much each."""
        rows = np.flatnonzero(is_event & now.is_heard)
        number, phase = self.lift_no[rows, period], self.phase[rows, period]
        total = _within(now.predicted[rows] + now.common[rows], -_LIFT_BOUND, _LIFT_BOUND)
        seen = 0.5 * self.lift_seen[rows, number]
        self.lift[rows, number] = (seen * self.lift[rows, number] + total) / (seen + 1)
        self.lift_seen[rows, number] = seen + 1
        seen = 0.9 * self.phase_seen[rows, phase]
        self.phase_lift[rows, phase] = (seen * self.phase_lift[rows, phase] + total) / (seen + 1)
        self.phase_seen[rows, phase] = seen + 1

    def _learn_strength(self, loud: BoolArray, now: _Now) -> None:
        """How strongly each series answers to its group (recursive least squares), and how much noise answers have."""
        moved = now.moved
        exact = loud / (now.noise + np.float32(0.02))
        self.strength_weight += exact * moved * moved
        most = np.abs(moved) / 2
        miss = _within(now.ratio - self.strength * moved, -most, most)
        step = exact * moved * miss / self.strength_weight
        self.strength = _within(self.strength + step, 0, 2.5)
        number = np.add.reduceat(loud.astype(np.float32), self.starts)
        surprise = np.add.reduceat(np.where(loud, now.bounded * now.bounded / 0.94 - 1, 0), self.starts)
        rate = np.float32(0.1) * number / (number + 10)
        change = np.exp(rate * surprise / np.maximum(number, 1))
        self.event_noise = _within(self.event_noise * change, 0.05**2, 0.6**2)
