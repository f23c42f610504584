"""The scale on which series are smoothed: logarithms, where a promotion multiplies; as they are, where values are negative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.forecasting.smoothing import nan_mean

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """One entry for each series."""

    is_log: NDArray[np.bool_]
    shift: Floats
    """Added before the logarithm: 0, or what a zero needs."""
    unit: Floats
    """Mean size of a value; the unit of series that are not taken as logarithms."""

    @classmethod
    def of(cls, values: Floats) -> Scale:
        """Choose by the history: logarithms unless a value is negative, with a shift where zeros occur."""
        known = np.isfinite(values)
        lowest = np.where(known, values, np.inf).min(axis=1, initial=np.inf)
        mean = np.nan_to_num(nan_mean(np.abs(values), axis=1))
        whole = ~(known & (np.nan_to_num(values) != np.floor(np.nan_to_num(values)))).any(axis=1)
        shift = np.where(lowest > 0, 0.0, np.where(whole, 0.5, 0.05 * mean + 1e-12))
        return cls(lowest >= 0, np.where(lowest >= 0, shift, 0.0), np.where(mean > 0, mean, 1.0))

    def to(self, values: Floats) -> Floats:
        """(series, …) in the metric's unit → on the scale of smoothing."""
        shape = (-1,) + (1,) * (values.ndim - 1)
        with np.errstate(all="ignore"):
            logs = np.log(values + self.shift.reshape(shape))
        return np.asarray(np.where(self.is_log.reshape(shape), logs, values / self.unit.reshape(shape)))

    def back(self, scaled: Floats) -> Floats:
        """And back; counts and money do not become negative."""
        shape = (-1,) + (1,) * (scaled.ndim - 1)
        raised = np.maximum(np.exp(np.minimum(scaled, 60.0)) - self.shift.reshape(shape), 0.0)
        return np.asarray(np.where(self.is_log.reshape(shape), raised, scaled * self.unit.reshape(shape)))
