"""What an ordinary day brings, without a model: the median of the same weekday of six weeks, moved by the latest level.

For detectors that look at many metrics of a slice at once and need no band of their own.
"""

from __future__ import annotations

import numpy as np

from metrics_pipeline.detection.interface import FloatArray
from metrics_pipeline.detection.medians import nanmedian

WEEKS = 6
LEAST_WEEKS = 3
LEVEL_DAYS = 14
HISTORY_DAYS = 7 * WEEKS + LEVEL_DAYS
"""Days before a day that its expectation depends on."""


def expected(values: FloatArray) -> FloatArray:
    """(…, n_days) of daily values, NaN = missing or no baseline → the same shape, each day by the days before it.

    NaN where fewer than three of the six same weekdays are known. The level is the median of value / same-weekday median
    of the fourteen days before; 1 where none of them is known.
    """
    base = _same_weekday(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(base > 0, values / base, np.nan)
    n = values.shape[-1]
    padded = np.concatenate([np.full((*values.shape[:-1], LEVEL_DAYS), np.nan), ratio], axis=-1)
    level = nanmedian(np.lib.stride_tricks.sliding_window_view(padded, LEVEL_DAYS, axis=-1)[..., :n, :])
    return np.asarray(base * np.where(np.isfinite(level) & (level > 0), level, 1.0))


def _same_weekday(values: FloatArray) -> FloatArray:
    past = np.full((WEEKS, *values.shape), np.nan)
    for week in range(1, WEEKS + 1):
        if 7 * week < values.shape[-1]:
            past[week - 1, ..., 7 * week :] = values[..., : -7 * week]
    enough = np.isfinite(past).sum(axis=0) >= LEAST_WEEKS
    return np.where(enough, nanmedian(past, 0), np.nan)
