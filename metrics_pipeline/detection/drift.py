"""Slow drift, both ways: many small residuals on the same side, which no single day would show.

The exponentially weighted mean of the bounded residuals (EWMA chart: Roberts, 1959; memory of about four weeks of days)
is calibrated like the residuals themselves, against the past of the same mean in the same series: where residuals hang together, the mean wanders and an alarm needs more.
What all peers do is not in the residuals: a drift of the whole group is seen in its total.

A drift is not about one value, so it has no band: `lower` and `upper` are NaN, `expected` is the baseline's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.detection.baseline import JUDGED, WARM_UP, Surprise, grain_of, reasons
from metrics_pipeline.detection.calibration import tails
from metrics_pipeline.detection.interface import Calendar, Judgement, Panel
from metrics_pipeline.detection.tracking import Tuning, Walk, walk


@dataclass(frozen=True)
class Drift:
    """The detector."""

    tuning: Tuning | None = None

    def judge(self, panel: Panel, calendar: Calendar, tested: slice) -> Judgement:
        """Judge these columns, each by those before it."""
        found = drift_surprise(panel, walk(panel, calendar, self.tuning), tested)
        nothing = np.full(found.value.shape, np.nan)
        expected = np.where(found.reason == JUDGED, found.expected, np.nan)
        return Judgement(expected, nothing, nothing, np.exp(-found.value), found.reason)


def drift_surprise(panel: Panel, seen: Walk, tested: slice) -> Surprise:
    """How rare the recent mean residual of each series is for it; `is_above` says where it drifts."""
    warm = WARM_UP[grain_of(panel)]
    columns = range(tested.start, tested.stop)
    value = np.full((panel.n_series, len(columns)), np.nan)
    for n, column in enumerate(columns):
        own = tails(seen.drift[:, min(warm, column) : column], panel.group)
        value[:, n] = own.surprise(seen.drift[:, column].astype(np.float64))
    reason = reasons(panel, seen, tested)
    nothing = np.full(value.shape, np.nan)
    return Surprise(
        np.where(reason == JUDGED, value, np.nan),
        seen.drift[:, tested] > 0,
        seen.expected[:, tested].astype(np.float64),
        seen.spread[:, tested].astype(np.float64),
        nothing,
        nothing,
        reason,
    )
