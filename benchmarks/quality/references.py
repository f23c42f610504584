"""Detectors we compare with, each as its users would set it up; scores (n_series, judged days), higher = worse."""

from __future__ import annotations

import warnings

import numpy as np

from metrics_pipeline.detection.interface import NO_EVENT, Calendar, FloatArray, Panel

_WEEKS = 8


def seasonal_mad(panel: Panel, calendar: Calendar | None, first: int) -> FloatArray:
    """Distance to the median of the same weekday of eight weeks in MADs; with a calendar its days are no baseline and
    are judged five times as wide."""
    value = panel.value.copy()
    judged = value.copy()
    widening = np.ones_like(value)
    if calendar is not None:
        is_event = calendar.event[calendar.category] != NO_EVENT
        value[is_event] = np.nan
        widening[is_event] = 5.0
    scores = np.full((panel.n_series, panel.n_periods - first), np.nan)
    with np.errstate(all="ignore"), _quiet():
        for day in range(first, panel.n_periods):
            same = value[:, day - 7 * _WEEKS : day : 7]
            middle = np.nanmedian(same, axis=1)
            recent = value[:, day - 7 * _WEEKS : day]
            by_weekday = recent.reshape(len(recent), _WEEKS, 7)
            spread = 1.4826 * np.nanmedian(
                np.abs(by_weekday - np.nanmedian(by_weekday, axis=1, keepdims=True)), axis=(1, 2)
            )
            floor = 0.03 * np.abs(middle) + 1e-9
            scores[:, day - first] = np.abs(judged[:, day] - middle) / (np.maximum(spread, floor) * widening[:, day])
    return scores


def smoothing(panel: Panel, calendar: Calendar | None, first: int) -> FloatArray:
    """Residuals of Holt-Winters' additive smoothing of log values (ETS(A,N,A), α 0.2, γ 0.1), in their own EWM deviation;
    with a calendar, values of its days are left out of the smoothing and judged five times as wide."""
    log = np.log(panel.value + _half(panel))
    n, days = log.shape
    is_event = np.zeros((n, days), bool) if calendar is None else calendar.event[calendar.category] != NO_EVENT
    start = log[:, :28].reshape(n, 4, 7)
    with np.errstate(all="ignore"), _quiet():
        level = np.nanmedian(log[:, :56], axis=1)
        season = np.nan_to_num(np.nanmedian(start, axis=1) - level[:, None])
    level = np.nan_to_num(level)
    deviation = np.full(n, 0.2)
    scores = np.full((n, days), np.nan)
    for day in range(days):
        expected = level + season[:, day % 7]
        residual = log[:, day] - expected
        scores[:, day] = np.abs(residual) / (deviation * np.where(is_event[:, day], 5.0, 1.0))
        learn = np.isfinite(log[:, day]) & ~is_event[:, day]
        bounded = np.clip(np.nan_to_num(residual), -3 * deviation, 3 * deviation)
        level = np.where(learn, level + 0.2 * bounded, level)
        season[:, day % 7] += np.where(learn, 0.1 * bounded, 0)
        deviation = np.where(learn, np.sqrt(0.98 * deviation**2 + 0.02 * bounded**2 + 1e-8), deviation)
    return scores[:, first:]


def isolation_forest(panel: Panel, first: int) -> FloatArray:
    """scikit-learn's forest per series on six features (log value, changes to yesterday, last week and the weekly median,
    weekday, day of year), fitted on the first year; a fifth of a second a series."""
    from sklearn.ensemble import IsolationForest

    log = np.log(panel.value + _half(panel))
    scores = np.full((panel.n_series, panel.n_periods - first), np.nan)
    days = np.arange(panel.n_periods)
    for row in range(panel.n_series):
        x = log[row]
        with np.errstate(all="ignore"), _quiet():
            weekly = np.array([np.nanmedian(x[max(d - 28, 0) : d]) if d else np.nan for d in days])
        features = np.column_stack(
            [x, x - np.roll(x, 1), x - np.roll(x, 7), x - weekly, panel.slot, np.sin(2 * np.pi * days / 365.25)]
        )
        whole = np.isfinite(features).all(axis=1) & (days >= 28)
        train = whole & (days < first)
        if train.sum() < 60:
            continue
        forest = IsolationForest(n_estimators=50, random_state=0).fit(features[train])
        judged = np.flatnonzero(whole & (days >= first))
        scores[row, judged - first] = -forest.score_samples(features[judged])
    return scores


def _half(panel: Panel) -> FloatArray:
    """Half an event, in the unit of the value."""
    return np.asarray(0.5 / (panel.denominator if panel.denominator is not None else np.ones_like(panel.numerator)))


def _quiet() -> warnings.catch_warnings[None]:
    """Medians of nothing are NaN, and that is what they shall be."""
    return warnings.catch_warnings(action="ignore")
