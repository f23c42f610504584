"""The model of the night: exponential smoothing, promotions taken away and put back, conformal intervals.

1. The history is put on a scale where promotions add (`scale`), smoothed without event days, lifts are learned
   (`lifts`), and the whole history is smoothed again without the lifts.
2. Errors of the last half year, 1 … H days ahead, each divided by its series' own mean error *of the other half* of
   those weeks, are pooled by volume class: their quantiles at each distance are the intervals (split conformal with a
   local scale: Lei et al., 2018), whole vectors of them are the paths, which keep that an error of tomorrow is also
   one of the day after.
3. On promotion days what the lift itself does not know is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting import lifts
from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.lifts import Ahead, Lifts
from metrics_pipeline.forecasting.scale import Scale
from metrics_pipeline.forecasting.smoothing import States, nan_mean, smooth

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

MODEL = "ets_ana_1"
"""Name and version of the model; stored with every forecast."""
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
MIN_VALUES = 28
"""Values without which a series has no forecast."""
GONE_DAYS = 14
"""A series without a value for so long has none either."""
PATHS = 400
_ERROR_DAYS = 182
_ERROR_STEP = 3
"""Origins of errors are so many days apart: all weekdays, a third of the work."""
_CLASSES = 5
_SPARSE = 0.3
"""Share of zeros from which a series is of a class of its own."""
_LEAST_ERRORS = 400
"""Errors of a class; with fewer it takes those of the whole panel."""
_PRIOR_ERRORS = 15.0
_FAR = 20.0
"""Most mean errors that one error counts for: beside a year without any, a single spike would be a million of them."""


@dataclass(frozen=True)
class Forecast:
    """What is expected of the `horizon` days after the history; rows of series without a forecast are NaN."""

    scale: Scale
    centre: Floats
    """(series, horizon), on the scale of smoothing."""
    error: Floats
    """(series,): mean error of a series, on that scale."""
    of_class: NDArray[np.int64]
    quantile_table: Floats
    """(classes, horizon, levels): quantiles of errors in units of `error`."""
    vectors: tuple[Floats, ...]
    """Of each class: (some, horizon), whole vectors of such errors."""
    ahead: Ahead
    levels: tuple[float, ...]
    model: str = MODEL

    @property
    def horizon(self) -> int:
        return int(self.centre.shape[1])

    @cached_property
    def quantiles(self) -> Floats:
        """(series, horizon, levels), in the metric's unit."""
        inside = self.quantile_table[self.of_class] * self.error[:, None, None]
        outside = np.sqrt(self.ahead.common_spread**2 + self.ahead.own_spread**2)
        normal = np.array([NormalDist().inv_cdf(level) for level in self.levels])
        middle = inside[:, :, [self.levels.index(0.5)]] if 0.5 in self.levels else 0.0
        spread = inside - middle
        wide = np.sign(normal) * np.sqrt(spread**2 + (outside[:, :, None] * normal) ** 2) + middle
        chosen = np.where(outside[:, :, None] > 0, wide, inside)
        found = self.scale.back(self.centre[:, :, None] + chosen)
        return np.asarray(np.maximum.accumulate(found, axis=2))

    @cached_property
    def mean(self) -> Floats:
        """(series, horizon), in the metric's unit."""
        found = np.full(self.centre.shape, np.nan)
        for start in range(0, len(found), 512):
            part = np.arange(start, min(start + 512, len(found)))
            found[part] = self.paths(part, count=200).mean(axis=1)
        return found

    @property
    def median(self) -> Floats:
        """(series, horizon), in the metric's unit."""
        return np.asarray(self.quantiles[:, :, self.levels.index(0.5)])

    def paths(self, rows: Sequence[int] | NDArray[np.int64] | None = None, count: int = PATHS, seed: int = 0) -> Floats:
        """Possible courses of some series: (rows, count, horizon), in the metric's unit."""
        chosen = np.arange(len(self.centre)) if rows is None else np.asarray(rows, np.int64)
        rng = np.random.default_rng(seed)
        found = np.empty((len(chosen), count, self.horizon))
        shared = rng.standard_normal((count, 1)) * self.ahead.common_spread
        for number, pool in enumerate(self.vectors):
            mine = np.flatnonzero(self.of_class[chosen] == number)
            if not len(mine):
                continue
            at = rng.integers(len(pool), size=(1 if len(mine) > 64 else len(mine), count))
            errors = pool[at] * self.error[chosen[mine], None, None]
            own = rng.standard_normal((len(mine), count, 1)) * self.ahead.own_spread[chosen[mine], None, :]
            found[mine] = self.centre[chosen[mine], None, :] + errors + shared + own
        return self.scale.back(found)

    def chance_below(self, rows: NDArray[np.int64], days: int, bounds: Floats) -> Floats:
        """Chance that the mean of the first `days` days lies below each bound (rows,), in the metric's unit."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), 512):
            part = slice(start, start + 512)
            totals = self.paths(rows[part])[:, :, :days].mean(axis=2)
            found[part] = (totals < bounds[part, None]).mean(axis=1)
        return np.asarray(np.where(np.isfinite(self.error[rows]), found, np.nan))


@dataclass(frozen=True)
class Fit:
    """What was learned of a history; `ahead` makes the forecast. The global model builds on it."""

    scale: Scale
    values: Floats
    """On the scale of smoothing, without lifts."""
    states: States
    lifts: Lifts
    calendar: Days
    """The days of the history and those ahead."""
    known: NDArray[np.bool_]
    """(series,): has enough values, and recent ones."""
    of_class: NDArray[np.int64]

    @property
    def days(self) -> int:
        return int(self.values.shape[1])


def fit(values: Floats, calendar: Days) -> Fit:
    """Learn a history. `values`: (series, days) in the metric's unit; `calendar`: from its first day to beyond its last."""
    count, days = values.shape
    history = calendar.until(days)
    scale = Scale.of(values)
    scaled = scale.to(values)
    masked = smooth(np.where(history.is_event, np.nan, scaled))
    noise = _noise(scaled, masked, history)
    learned = lifts.learn(scaled, masked, history, noise)
    cleaned = scaled - learned.learned
    states = smooth(cleaned)
    finite = np.isfinite(values)
    recent = finite[:, -GONE_DAYS:].any(axis=1) if days else np.zeros(count, bool)
    known = (finite.sum(axis=1) >= MIN_VALUES) & recent
    return Fit(scale, cleaned, states, learned, calendar, known, _classes(values, known))


def forecast(values: Floats, calendar: Days, horizon: int, levels: Sequence[float] = LEVELS) -> Forecast:
    """Mean, quantiles and paths of the `horizon` days after `values` (series, days; NaN = missing).

    `calendar` covers the history and the days ahead.
    """
    learned = fit(values, calendar)
    last = learned.days - 1
    ahead = learned.lifts.ahead(calendar, horizon)
    base = np.stack([learned.states.expected(last, step) for step in range(1, horizon + 1)], axis=1)
    centre = np.where(learned.known[:, None], base + ahead.lift, np.nan)
    errors = errors_ahead(learned, horizon)
    return conformal(learned, centre, errors, ahead, levels=tuple(levels), model=MODEL)


def errors_ahead(learned: Fit, horizon: int) -> Singles:
    """Errors of ordinary days at past origins, (series, origins, horizon); NaN where nothing is to be compared."""
    origins = error_origins(learned.days, horizon)
    ordinary = np.where(learned.calendar.until(learned.days).is_event, np.nan, learned.values)
    padded = np.concatenate([ordinary, np.full((len(ordinary), horizon), np.nan)], axis=1)
    found = np.empty((len(ordinary), len(origins), horizon), np.float32)
    for number, origin in enumerate(origins):
        for step in range(1, horizon + 1):
            found[:, number, step - 1] = padded[:, origin + step] - learned.states.expected(origin, step)
    return found


def error_origins(days: int, horizon: int) -> list[int]:
    """Day numbers of the origins at which errors are looked at, the last half year's, oldest first."""
    first = max(days - _ERROR_DAYS, min(2 * MIN_VALUES, days // 2))
    return list(range(first, days - 1, _ERROR_STEP)) or [max(days - 2, 0)]


def conformal(
    learned: Fit, centre: Floats, errors: Singles | Floats, ahead: Ahead, *, levels: tuple[float, ...], model: str
) -> Forecast:
    """A forecast with the intervals that past errors (series, origins, horizon) let expect."""
    horizon = centre.shape[1]
    classes = learned.of_class
    size = np.abs(errors[:, :, : min(7, horizon)])
    origins = errors.shape[1]
    halves = (slice(0, origins // 2), slice(origins // 2, origins))
    scores = np.empty_like(errors)
    whole = mean_error(size, classes)
    for mine, other in (halves, halves[::-1]):
        measured = mean_error(size[:, other], classes)
        scores[:, mine] = np.clip(errors[:, mine] / measured[:, None, None], -_FAR, _FAR)
    scores[~learned.known] = np.nan
    tables, vectors = [], []
    everything = _pool(scores)
    for number in range(_CLASSES):
        own = _pool(scores[classes == number])
        pool = own if len(own) >= _LEAST_ERRORS else everything
        if not len(pool):
            pool = np.random.default_rng(0).standard_normal((400, horizon)) * 1.25
        table = np.zeros((horizon, len(levels)))
        seen = np.isfinite(pool).any(axis=0)  # a short history has no errors of far days
        table[seen] = np.nanquantile(pool[:, seen], levels, axis=0).T
        tables.append(table)
        step = max(len(pool) // 20000, 1)
        vectors.append(_filled(pool[::step]))
    error = np.where(learned.known, whole, np.nan)
    quantiles = np.maximum.accumulate(np.stack(tables), axis=2)
    return Forecast(learned.scale, centre, error, classes, quantiles, tuple(vectors), ahead, levels, model)


def _pool(scores: Singles | Floats) -> Floats:
    """Vectors of errors of which at least half are there, (some, horizon)."""
    flat = scores.reshape(-1, scores.shape[-1])
    return np.asarray(flat[np.isfinite(flat).sum(axis=1) * 2 >= flat.shape[1]], np.float64)


def _filled(pool: Floats) -> Floats:
    """Missing entries take the error of the nearest earlier (else later) distance: errors of one origin go together."""
    found = pool.copy()
    for step in range(1, found.shape[1]):
        found[:, step] = np.where(np.isfinite(found[:, step]), found[:, step], found[:, step - 1])
    for step in range(found.shape[1] - 2, -1, -1):
        found[:, step] = np.where(np.isfinite(found[:, step]), found[:, step], found[:, step + 1])
    return np.nan_to_num(found)


def mean_error(size: Floats, classes: NDArray[np.int64]) -> Floats:
    """Mean absolute error of each series, held toward that of its class: (series,), above 0."""
    flat = size.reshape(len(size), -1).astype(float)
    known = np.isfinite(flat).sum(axis=1)
    own = np.nan_to_num(nan_mean(flat, axis=1))
    of_class = np.ones(_CLASSES)
    for number in range(_CLASSES):
        here = (classes == number) & (known > 0)
        if here.any():
            of_class[number] = max(float(np.median(own[here])), 1e-6)
    return np.asarray(np.maximum((own * known + of_class[classes] * _PRIOR_ERRORS) / (known + _PRIOR_ERRORS), 1e-6))


def _noise(scaled: Floats, states: States, history: Days) -> Floats:
    """Standard deviation of a day around what was expected, one week ahead or less; (series,)."""
    expected = (
        np.stack([states.expected(day, 1) for day in range(history.count - 1)], axis=1)
        if history.count > 1
        else scaled[:, :0]
    )
    rest = np.where(history.is_event[1:], np.nan, scaled[:, 1:] - expected)[:, 14:]
    spread = 1.2533 * np.nan_to_num(nan_mean(np.abs(rest), axis=1))
    return np.asarray(np.maximum(spread, 1e-4))


def _classes(values: Floats, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Volume class of each series: quarters by mean value, and one for those that are often 0."""
    with np.errstate(all="ignore"):
        mean = np.nan_to_num(nan_mean(np.abs(values[:, -8 * 7 :]), axis=1))
    zeros = nan_mean(np.where(np.isfinite(values), values == 0, np.nan), axis=1)
    found = np.zeros(len(values), np.int64)
    if known.any():
        bounds = np.quantile(mean[known], [0.25, 0.5, 0.75])
        found = np.searchsorted(bounds, mean, side="right").astype(np.int64)
    found[np.nan_to_num(zeros) > _SPARSE] = _CLASSES - 1
    return found
