"""From published values to leaves with expectations: the views of a metric that a cause is looked for in.

A view is one published slice set (`region|channel`) whose members add up to the slice that was asked about. Of
overlapping sets the finer ones are taken: what `region` could show, `region|channel` shows too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.diagnosis.expectation import (
    LEAST_HISTORY,
    expected_counts,
    expected_rates,
    expected_total,
    ordinary_days,
)
from metrics_pipeline.diagnosis.search import Leaves, Noise, fit_noise
from metrics_pipeline.warehouse.quoting import is_one_of, literal

if TYPE_CHECKING:
    from metrics_pipeline.warehouse.read import Published

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

HISTORY_DAYS, HISTORY_WEEKS = 56, 26
NOISE_DAYS = 14
_ADDS_UP = 0.05
"""Part of the total by which the members of a view may miss it."""


class Asked(NamedTuple):
    """What is looked at: a metric's slice in a period."""

    metric: str
    slice: tuple[tuple[str, str], ...]
    grain: str
    period: datetime


@dataclass(frozen=True)
class Wanted:
    """Which values are read: whole slice sets for what is searched, single slices for what stands below and beside it."""

    sets: frozenset[tuple[str, str]]
    """(metric, dimension)"""
    slices: frozenset[tuple[str, str, str]]
    """(metric, dimension, member)"""

    @classmethod
    def of(
        cls,
        asked: Iterable[tuple[str, Mapping[str, str]]],
        beside: Mapping[str, Iterable[str]],
        slice_sets: Mapping[str, Iterable[str]],
    ) -> Wanted:
        """For slices that are looked at: `beside` them other metrics, `slice_sets`: those that each metric has."""
        sets: set[tuple[str, str]] = set()
        slices: set[tuple[str, str, str]] = set()
        for metric, slice_ in asked:
            for name in {metric, *beside[metric]}:
                for dimension in {"all", *slice_sets[name]}:
                    names = _names(dimension)
                    if set(names) == set(slice_):
                        slices.add((name, dimension, "|".join(slice_[one] for one in names) or "all"))
                    elif name == metric and set(names) > set(slice_):
                        sets.add((name, dimension))
        return cls(frozenset(sets), frozenset(slices))

    @property
    def sql(self) -> str:
        """A condition on rows of values; first by slice set, as files keep no statistics of a choice between two conditions."""
        either = is_one_of("metric, dimension", self.sets), is_one_of("metric, dimension, member", self.slices)
        of_either = is_one_of("metric, dimension", {*self.sets, *(one[:2] for one in self.slices)})
        return f"{of_either} AND ({' OR '.join(either)})"


def _names(dimension: str) -> list[str]:
    return [] if dimension == "all" else dimension.split("|")


@dataclass(frozen=True)
class Table:
    """Values of one metric and slice set over the history and the period: the last row is the period."""

    dimensions: tuple[str, ...]
    """Those that the asked slice does not fix."""
    members: tuple[tuple[str, ...], ...]
    codes: Ints
    numerator: Floats
    """(days, leaves); NaN = no row."""
    denominator: Floats | None
    """(days, leaves) of a ratio."""


@dataclass(frozen=True)
class Track:
    """The series of one slice and what it should have been in the period."""

    days: tuple[datetime, ...]
    """Without gaps, the last is the period."""
    numerator: Floats
    denominator: Floats | None
    ordinary: NDArray[np.bool_]
    """Of the days before the period: those the expectation was made from."""
    expected: float | None
    """None = too little history."""
    spread: float
    """Relative standard deviation of ordinary days around their expectation (median based)."""

    @property
    def value(self) -> Floats:
        """The metric's values; NaN where there is none."""
        if self.denominator is None:
            return self.numerator
        found: Floats = np.divide(
            self.numerator,
            self.denominator,
            out=np.full(len(self.numerator), np.nan),
            where=np.nan_to_num(self.denominator) > 0,
        )
        return found

    @property
    def observed(self) -> float | None:
        value = float(self.value[-1])
        return None if np.isnan(value) else value


class Values:
    """The values of some metrics around one period, read once. What its reader may not see is not there."""

    def __init__(
        self,
        published: Published,
        wanted: Wanted,
        grain: str,
        period: datetime,
        *,
        quiet: Iterable[datetime] = (),
        span: int = 1,
        over: Mapping[str, str] | None = None,
    ) -> None:
        """`quiet`: days that are no history, such as promotions; kept when the period itself is one.

        `over`: metrics that are written as an expression over another metric (ROI over ad spend) → that metric: they are taken
        apart as ratios to it are.

        `span`: 1, or 7 for the week that ends with the period's day, against the weeks before it; the days of a metric
        are then added up, which only counts, amounts and ratios of such may be.
        """
        self.grain, self.period, self.span = grain, period, span
        steps = HISTORY_DAYS if span == 1 else HISTORY_WEEKS
        self.days = tuple(period - timedelta(days=back * span) for back in range(steps, -1, -1))
        left_out = {day.date() for day in quiet}
        self._usable = np.array([span > 1 or day.date() not in left_out for day in self.days[:-1]], dtype=bool)
        if not self._usable.any():
            self._usable[:] = True
        self.slots = np.array([day.weekday() if span == 1 else 0 for day in self.days], dtype=np.int64)
        first = self.days[0] - timedelta(days=span - 1)
        with published.connect(first.date(), period.date() + timedelta(days=1)) as con:
            frame = con.execute(
                f"""
                SELECT metric, dimension, member,
                    {len(self.days) - 1} - date_diff('day', period_start, {literal(period)}) // {span} AS at,
                    sum(CASE WHEN denominator IS NULL THEN value ELSE numerator END) AS numerator,
                    sum(denominator) AS denominator
                FROM metric_values
                WHERE {wanted.sql} AND grain = {literal(grain)}
                    AND hour(period_start) = {period.hour} AND period_start <= {literal(period)}
                    AND period_start >= {literal(first)}
                GROUP BY ALL
                """
            ).df()
        self._frames = {
            (str(name), str(of)): some for (name, of), some in frame.groupby(["metric", "dimension"], sort=False)
        }

        for name, below in (over or {}).items():
            self._divide(name, below)

    def _divide(self, metric: str, below: str) -> None:
        """Give the values of a metric the denominator that its formula has, where both are known."""
        for (name, dimension), frame in self._frames.items():
            other = self._frames.get((below, dimension))
            if name != metric or other is None or frame["denominator"].notna().any():
                continue
            given = other.set_index(["member", "at"])["numerator"]
            denominator = given.reindex(list(zip(frame["member"], frame["at"], strict=True))).to_numpy(dtype=float)
            self._frames[name, dimension] = frame.assign(
                denominator=denominator, numerator=frame["numerator"].to_numpy(dtype=float) * denominator
            )

    def slice_sets(self, metric: str) -> list[str]:
        """Slice sets of which there are values."""
        return [dimension for name, dimension in self._frames if name == metric]

    def learn_until(self, day: date) -> bool:
        """Take only what was before a day for history, when that is enough: what goes on since then is no expectation."""
        before = self._usable & np.array([one.date() < day for one in self.days[:-1]], dtype=bool)
        if before.sum() < 2 * LEAST_HISTORY:
            return False
        self._usable = before
        return True

    def track(self, metric: str, slice_: Sequence[tuple[str, str]]) -> Track | None:
        """The series of a slice; None when nothing is published of it (or shown)."""
        wanted = dict(slice_)
        for dimension in self.slice_sets(metric):
            names = _names(dimension)
            if set(names) != set(wanted):
                continue
            frame = self._frames[metric, dimension]
            member = "|".join(wanted[name] for name in names) or "all"
            frame = frame[frame["member"] == member]
            if frame.empty:
                return None
            rows = frame["at"].to_numpy()
            numerator = np.full(len(self.days), np.nan)
            numerator[rows] = frame["numerator"].to_numpy(dtype=float)
            denominator = None
            if frame["denominator"].notna().any():
                denominator = np.full(len(self.days), np.nan)
                denominator[rows] = frame["denominator"].to_numpy(dtype=float)
            return self._track(numerator, denominator)
        return None

    def table(self, metric: str, dimension: str, slice_: Sequence[tuple[str, str]]) -> Table | None:
        """The leaves of a slice set within a slice; None when the set does not contain the slice or holds nothing more."""
        names = dimension.split("|")
        wanted = dict(slice_)
        if dimension == "all" or not set(wanted) < set(names) or (metric, dimension) not in self._frames:
            return None
        frame = self._frames[metric, dimension]
        parts = frame["member"].str.split("|", expand=True) if len(names) > 1 else frame[["member"]]
        parts.columns = names
        inside = np.ones(len(frame), dtype=bool)
        for name, member in wanted.items():
            inside &= (parts[name] == member).to_numpy()
        free = [name for name in names if name not in wanted]
        frame, parts = frame[inside], parts[inside]
        if frame.empty:
            return None
        members, columns = [], []
        for name in free:
            codes, known = _numbers(parts[name].astype(str).to_numpy())
            members.append(known)
            columns.append(codes)
        sizes = tuple(map(len, members))
        number = np.ravel_multi_index(columns, sizes)
        leaves, at = np.unique(number, return_inverse=True)
        rows = frame["at"].to_numpy()
        numerator = np.full((len(self.days), len(leaves)), np.nan)
        numerator[rows, at] = frame["numerator"].to_numpy(dtype=float)
        denominator = None
        if frame["denominator"].notna().any():
            denominator = np.full_like(numerator, np.nan)
            denominator[rows, at] = frame["denominator"].to_numpy(dtype=float)
        codes = np.stack(np.unravel_index(leaves, sizes), axis=1).astype(np.int64)
        return Table(tuple(free), tuple(members), codes, numerator, denominator)

    def _track(self, numerator: Floats, denominator: Floats | None) -> Track:
        value = numerator if denominator is None else numerator / np.where(denominator > 0, denominator, np.nan)
        past, slots = value[:-1], self.slots[:-1]
        known = np.flatnonzero(np.isfinite(past) & self._usable)
        ordinary = np.zeros(len(past), dtype=bool)
        if len(known) < LEAST_HISTORY:
            return Track(self.days, numerator, denominator, ordinary, None, 0.0)
        ordinary[known[ordinary_days(past[known], slots[known])]] = True
        expected = expected_total(past[ordinary], slots[ordinary], int(self.slots[-1]))
        spread = _spread(past[ordinary], slots[ordinary])
        return Track(self.days, numerator, denominator, ordinary, expected, spread)


@dataclass(frozen=True)
class View:
    """Leaves of one slice set, ready to be searched; of a ratio with the weights of the leaves."""

    leaves: Leaves
    exposure: Floats | None = None
    """Of a ratio: the denominators."""
    expected_exposure: Floats | None = None
    """Of a ratio: what the denominators should have been, to the scale of the observed total."""
    rate: Floats | None = None
    """Of a ratio: the expected rates. Weighed by the expected denominators they give the expected ratio."""
    shift: float = 0.0
    """What was added to all rates so that none is negative (ROI: 1); contributions know nothing of it."""

    @property
    def name(self) -> str:
        return "|".join(self.leaves.dimensions)

    @property
    def mix(self) -> Floats:
        """Of a ratio: what each leaf's changed weight made of it; sums to the mix effect of all."""
        assert self.exposure is not None
        assert self.expected_exposure is not None
        assert self.rate is not None
        now, before = (one / max(float(one.sum()), 1e-300) for one in (self.exposure, self.expected_exposure))
        return np.asarray((now - before) * (self.rate - float((before * self.rate).sum())))


def views_of(values: Values, asked: Asked, track: Track) -> list[View]:
    """The views of a slice that add up to it, the finest first."""
    if track.expected is None or track.observed is None:
        return []
    found: list[View] = []
    for dimension in sorted(values.slice_sets(asked.metric), key=lambda name: (-name.count("|"), name)):
        table = values.table(asked.metric, dimension, asked.slice)
        if table is None or any(set(table.dimensions) <= set(one.leaves.dimensions) for one in found):
            continue
        view = _view(table, track, values.slots)
        if view is not None:
            found.append(view)
    return found


def _view(table: Table, track: Track, slots: Ints) -> View | None:
    numerator, total, shift = np.nan_to_num(table.numerator), np.nan_to_num(track.numerator), 0.0
    if table.denominator is not None and track.denominator is not None and (numerator < 0).any():
        shift = 1.0
        numerator = numerator + np.nan_to_num(table.denominator)
        total = total + np.nan_to_num(track.denominator)
    now, past = numerator[-1], numerator[:-1][track.ordinary]
    whole, before = float(total[-1]), float(total[:-1][track.ordinary].sum())
    if not (_adds_up(now.sum(), whole) and _adds_up(past.sum(), before)) or len(now) < 2:
        return None
    sizes = tuple(map(len, table.members))
    assert track.expected is not None
    if table.denominator is None or track.denominator is None:
        expected = expected_counts(past, table.codes, sizes, slots[:-1][track.ordinary], int(slots[-1]))
        if expected.sum() <= 0 or (expected < 0).any():
            return None
        expected = expected * (track.expected * (now.sum() / whole if whole else 1.0) / expected.sum())
        noise = _noise_of_counts(past)
        return View(Leaves(table.dimensions, table.members, table.codes, now, expected, None, noise))
    denominator = np.nan_to_num(table.denominator)
    exposure, past_exposure = denominator[-1], denominator[:-1][track.ordinary]
    events, seen = past.sum(axis=0), past_exposure.sum(axis=0)
    if (events < 0).any() or seen.sum() <= 0 or events.sum() <= 0:
        return None
    is_share = bool((past <= past_exposure + 1e-9).all() and (now <= exposure + 1e-9).all())
    unit = 1.0 if is_share else max(float(events.sum() / seen.sum()), 1e-12)
    rate = unit * expected_rates(events / unit, seen, table.codes, sizes, most=1.0 if is_share else None)
    weight = expected_counts(past_exposure, table.codes, sizes, slots[:-1][track.ordinary], int(slots[-1]))
    if weight.sum() <= 0:
        return None
    weight = weight / weight.sum()
    rate = rate * ((track.expected + shift) / max(float((weight * rate).sum()), 1e-300))
    if is_share:
        rate = np.minimum(rate, 1.0)
    noise = fit_noise(past[-NOISE_DAYS:].ravel(), (past_exposure[-NOISE_DAYS:] * rate).ravel(), len(past))
    leaves = Leaves(
        table.dimensions,
        table.members,
        table.codes,
        now,
        exposure * rate,
        np.maximum(exposure, now) if is_share else None,
        noise,
    )
    return View(leaves, exposure, weight * float(exposure.sum()), rate, shift)


def _noise_of_counts(past: Floats) -> Noise:
    """From ordinary days: leaves against their share of the day's total."""
    days = past[-NOISE_DAYS:]
    share = past.sum(axis=0) / max(float(past.sum()), 1e-300)
    return fit_noise(days.ravel(), (days.sum(axis=1, keepdims=True) * share).ravel(), len(past))


def _spread(values: Floats, slots: Ints) -> float:
    """Relative standard deviation around level and weekday, by the median of absolute residuals."""
    level = float(np.median(values))
    if level == 0:
        return 1.0
    index = {one: float(np.median(values[slots == one])) for one in np.unique(slots)}
    residual = np.array([value - index[slot] for value, slot in zip(values, slots, strict=True)]) / level
    return max(1.4826 * float(np.median(np.abs(residual))) * 1.1, 0.005)


def _adds_up(total: float, whole: float) -> bool:
    return abs(total - whole) <= _ADDS_UP * max(abs(whole), 1e-12)


def _numbers(texts: NDArray[np.object_]) -> tuple[Ints, tuple[str, ...]]:
    known, codes = np.unique(texts.astype(str), return_inverse=True)
    return codes.astype(np.int64), tuple(map(str, known))
