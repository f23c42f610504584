"""One global model over all series: gradient boosting of what smoothing gets wrong.

A series alone does not know that after a week below its expectation the next days tend to stay below, that Mondays
after a long weekend are weak, or that sparse series return to their mean; a thousand series together do. The median
of the smoothing's error, 1 … H days ahead and in units of the series' own error, is learned by quantile regression trees
(scikit-learn's `HistGradientBoostingRegressor(loss="quantile")`; Meinshausen, 2006, for the idea of quantiles of trees)
from what was known at past origins, and added to the forecast. Intervals are conformal again, on the errors that are
left; each half of the series is corrected by the trees of the *other* half, so these errors are out of sample.

It costs about ten times the model of the night; docs/quality.md says what it brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.ets import (
    LEVELS,
    Fit,
    Floats,
    Forecast,
    Singles,
    conformal,
    error_origins,
    errors_ahead,
    fit,
    mean_error,
)
from metrics_pipeline.forecasting.smoothing import WEEK, nan_mean

MODEL = "boosted_ets_1"
ROWS = 120_000
"""Rows a tree model learns from; more bring nothing."""
LEAST_SERIES = 30
"""Fewer series have nothing to learn from each other: the forecast is that of smoothing alone."""
_EVERY = 3
"""Every such origin of the errors is used: neighbours say the same."""
_TREES = {"max_iter": 80, "learning_rate": 0.08, "max_leaf_nodes": 24, "min_samples_leaf": 200, "early_stopping": False}


def forecast(values: Floats, calendar: Days, horizon: int, levels: Sequence[float] = LEVELS, seed: int = 0) -> Forecast:
    """As `ets.forecast`, corrected by the global model."""
    learned = fit(values, calendar)
    ahead = learned.lifts.ahead(calendar, horizon)
    last = learned.days - 1
    base = np.stack([learned.states.expected(last, step) for step in range(1, horizon + 1)], axis=1)
    centre = np.where(learned.known[:, None], base + ahead.lift, np.nan)
    errors = errors_ahead(learned, horizon)
    if learned.known.sum() < LEAST_SERIES:
        return conformal(learned, centre, errors, ahead, levels=tuple(levels), model=MODEL)
    correction, left, unit = _corrected(learned, errors, horizon, seed)
    moved = np.where(learned.known[:, None], centre + correction * unit[:, None], np.nan)
    return conformal(learned, moved, left, ahead, levels=tuple(levels), model=MODEL)


def _corrected(learned: Fit, errors: Singles, horizon: int, seed: int) -> tuple[Floats, Singles, Floats]:
    """What to add to each forecast in units of the series' error (series, horizon), the errors that are left, the units."""
    # first: the limit is set for what is loaded
    from sklearn.ensemble import HistGradientBoostingRegressor
    from threadpoolctl import threadpool_limits

    chosen = list(range(len(error_origins(learned.days, horizon))))[::-_EVERY][::-1]
    origins = [error_origins(learned.days, horizon)[number] for number in chosen]
    kept = errors[:, chosen, :]
    unit = mean_error(np.abs(kept), learned.of_class)
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(learned.values)) % 2
    last = learned.days - 1
    known = [_features(learned, origin, horizon, unit) for origin in origins]
    now = _features(learned, last, horizon, unit)
    correction = np.zeros((len(learned.values), horizon))
    left = kept.copy()
    with threadpool_limits(1):  # threads that wait for each other cost more than they bring
        for number in (0, 1):
            model = HistGradientBoostingRegressor(loss="quantile", quantile=0.5, random_state=0, **_TREES)
            _train(model, known, kept / unit[:, None, None], np.flatnonzero((half == number) & learned.known), rng)
            other = half != number
            correction[other] = model.predict(now[other].reshape(-1, now.shape[-1])).reshape(-1, horizon)
            for at, features in enumerate(known):
                said = model.predict(features[other].reshape(-1, features.shape[-1])).reshape(-1, horizon)
                left[other, at] -= (said * unit[other, None]).astype(np.float32)
    return correction, left, unit


def _train(
    model: Any, known: list[Singles], targets: Singles | Floats, rows: NDArray[np.int64], rng: np.random.Generator
) -> None:
    features = np.stack([one[rows] for one in known], axis=1)
    goal = targets[rows]
    at = np.flatnonzero(np.isfinite(goal.ravel()))
    if len(at) > ROWS:
        at = rng.choice(at, ROWS, replace=False)
    model.fit(features.reshape(-1, features.shape[-1])[at], np.clip(goal.ravel()[at], -8, 8))


def _features(learned: Fit, origin: int, horizon: int, unit: Floats) -> Singles:
    """What is known after day `origin` of each series and day ahead: (series, horizon, features)."""
    states, values = learned.states, learned.values
    first = max(origin - 4 * WEEK, WEEK)
    span = range(first, origin + 1)
    expected = np.stack([states.expected(day - 1, 1) for day in span], axis=1)
    rest = (values[:, first : origin + 1] - expected) / unit[:, None]
    level = states.level
    of_series = np.stack(
        [
            nan_mean(rest[:, -3:], axis=1),
            nan_mean(rest[:, -WEEK:], axis=1),
            nan_mean(rest, axis=1),
            (level[:, origin] - level[:, max(origin - WEEK, 0)]) / unit,
            (level[:, origin] - level[:, max(origin - 4 * WEEK, 0)]) / unit,
            (level[:, origin] - level[:, max(origin - 26 * WEEK, 0)]) / unit,
            unit,
            level[:, origin],
            states.alpha,
            learned.of_class.astype(float),
        ],
        axis=1,
    )
    weekday = (learned.calendar.weekday[origin] + np.arange(1, horizon + 1)) % WEEK
    ahead = np.arange(1, horizon + 1)
    calm = np.flatnonzero(~learned.calendar.is_event[: origin + 1])
    since = origin - calm[-1] if len(calm) else 60
    events = learned.calendar.is_event[max(origin - 2 * WEEK, 0) : origin + 1].mean()
    of_day = np.stack([ahead, weekday, np.full(horizon, since), np.full(horizon, events)], axis=1)
    last_week = np.stack(
        [
            rest[:, -1 - (WEEK - 1 - (step - 1) % WEEK)] if rest.shape[1] >= WEEK else np.full(len(values), np.nan)
            for step in range(1, horizon + 1)
        ],
        axis=1,
    )
    found = np.empty((len(values), horizon, of_series.shape[1] + of_day.shape[1] + 1), np.float32)
    found[:, :, : of_series.shape[1]] = of_series[:, None, :]
    found[:, :, of_series.shape[1] : -1] = of_day
    found[:, :, -1] = last_week
    return found


__all__ = ["MODEL", "forecast"]
