"""Rolling origins: the history is cut at earlier days, forecast from there, and compared with what came.

Scores, over all series, origins and days ahead with a value:
- MASE: mean absolute error of the median ÷ mean absolute week-over-week change of the history (Hyndman & Koehler, 2006);
- scaled pinball: mean quantile loss, twice, ÷ the same change; below it is better;
- coverage: share of values inside the 80 % interval, also on days of the calendar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.ets import LEVELS, forecast
from metrics_pipeline.forecasting.smoothing import WEEK, nan_mean

Floats = NDArray[np.float64]
Forecaster = Callable[[Floats, Days, int], Floats]
"""(values, calendar, horizon) → quantiles (series, horizon, levels)."""

INTERVAL = (0.1, 0.9)
ORIGINS, APART = 4, 14


@dataclass(frozen=True)
class Score:
    """How forecasts did."""

    mase: float
    pinball: float
    coverage: float
    """Of the 80 % interval."""
    coverage_events: float
    """Of it, on days of the calendar; NaN where there was none."""
    values: int
    """Values that were compared."""


@dataclass(frozen=True)
class Trial:
    """Forecasts from one origin and what came; arrays (series, horizon[, levels])."""

    origin: int
    quantiles: Floats
    actual: Floats
    is_event: NDArray[np.bool_]
    scale: Floats
    """(series,): mean absolute week-over-week change of the history."""


def quantiles_of(values: Floats, calendar: Days, horizon: int) -> Floats:
    """The model of the night as a `Forecaster`."""
    return forecast(values, calendar, horizon).quantiles


def trial(values: Floats, calendar: Days, origin: int, horizon: int, forecaster: Forecaster = quantiles_of) -> Trial:
    """Forecast from the first `origin` days of `values` alone."""
    known = values[:, :origin]
    steps = np.abs(known[:, WEEK:] - known[:, :-WEEK])
    scale = nan_mean(steps[:, -26 * WEEK :], axis=1)
    made = forecaster(known, calendar.until(origin + horizon), horizon)
    return Trial(
        origin, made, values[:, origin : origin + horizon], calendar.is_event[origin : origin + horizon],
        np.where(scale > 0, scale, np.nan),
    )  # fmt: skip


def backtest(
    values: Floats, calendar: Days, horizon: int, origins: Sequence[int], forecaster: Forecaster = quantiles_of
) -> Score:
    """Scores over these origins (numbers of known days)."""
    return score([trial(values, calendar, origin, horizon, forecaster) for origin in origins])


def origins_of(days: int, horizon: int, count: int = ORIGINS, apart: int = APART, least: int = 56) -> list[int]:
    """The last `count` origins of a history, oldest first; fewer where it is short."""
    last = days - horizon
    return [origin for origin in range(last - (count - 1) * apart, last + 1, apart) if origin >= least]


def score(trials: Sequence[Trial], levels: Sequence[float] = LEVELS) -> Score:
    """The scores over trials; NaN where nothing could be compared."""
    errors, losses, insides, on_events = [], [], [], []
    low, high, middle = (list(levels).index(level) for level in (*INTERVAL, 0.5))
    for one in trials:
        known = np.isfinite(one.actual) & np.isfinite(one.quantiles[:, :, middle]) & np.isfinite(one.scale)[:, None]
        scale = np.broadcast_to(one.scale[:, None], one.actual.shape)[known]
        actual, made = one.actual[known], one.quantiles[known]
        errors.append(np.abs(actual - made[:, middle]) / scale)
        gap = actual[:, None] - made
        loss = np.maximum(np.array(levels) * gap, (np.array(levels) - 1) * gap).mean(axis=1)
        losses.append(2 * loss / scale)
        inside = (actual >= made[:, low]) & (actual <= made[:, high])
        insides.append(inside)
        on_events.append(inside[np.broadcast_to(one.is_event, one.actual.shape)[known]])
    everything = [np.concatenate(found) if found else np.empty(0) for found in (errors, losses, insides, on_events)]
    mase, pinball, coverage, events = (float(np.mean(found)) if len(found) else float("nan") for found in everything)
    return Score(mase, pinball, coverage, events, len(everything[0]))
