"""Slow drift, both ways: many small residuals on the same side, which no single day would show.

Exponentially weighted means of the bounded residuals (EWMA charts: Roberts, 1959), one over about four weeks of days and one
over a few days, each are calibrated like the residuals themselves, against the past of the same mean in the same series: where residuals hang together, the mean wanders and an alarm needs more.
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
        found = drift_surprise(panel, walk(panel, calendar, tested, self.tuning))
        nothing = np.full(found.value.shape, np.nan)
        expected = np.where(found.reason == JUDGED, found.expected, np.nan)
        return Judgement(expected, nothing, nothing, np.exp(-found.value), found.reason)


def drift_surprise(panel: Panel, seen: Walk) -> Surprise:
    """How rare the recent mean residual of each series is for it; `is_above` says where it drifts."""
    warm = WARM_UP[grain_of(panel)]
    columns = range(seen.tested.start, seen.tested.stop)
    value = np.full((panel.n_series, len(columns)), np.nan)
    is_above = np.zeros(value.shape, dtype=bool)
    for n, column in enumerate(columns):
        past = slice(min(warm, column), column)
        long, short = (
            tails(mean[:, past], panel.group).surprise(mean[:, column].astype(np.float64))
            for mean in (seen.drift, seen.streak)
        )
        value[:, n] = np.fmax(long, short)
        is_above[:, n] = np.where(short > long, seen.streak[:, column], seen.drift[:, column]) > 0
    reason = reasons(panel, seen)
    nothing = np.full(value.shape, np.nan)
    return Surprise(
        np.where(reason == JUDGED, value, np.nan),
        is_above,
        seen.expected.astype(np.float64),
        seen.spread.astype(np.float64),
        nothing,
        nothing,
        nothing,
        reason,
    )
