"""Exponential smoothing with an additive week (ANA), of all series at once.

    expected_t = level_{t-1} + season_{t-7}
    level_t    = level_{t-1} + alpha * error_t
    season_t   = season_{t-7} + gamma * error_t          error_t = value_t - expected_t

A missing value has no error: level and season stay. An error beyond `CLIP` robust deviations of the series moves the
state as one at that distance, so that an outage does not become the new level in one day. Parameters are chosen per
series from a grid by the squared errors of one step ahead, with a pull toward what suits the whole panel: a short
series borrows. Method: Hyndman et al., Forecasting with Exponential Smoothing (2008), ETS(A,N,A).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WEEK = 7
ALPHAS = (0.02, 0.05, 0.1, 0.18, 0.3, 0.45, 0.65)
GAMMAS = (0.0, 0.02, 0.06, 0.15)
CLIP = 4.0
PULL = 20.0
"""So many days' worth of the panel's opinion on the parameters."""
_BURN_IN = 14
_FIRST_WEEKS = 8
"""Weeks from which the first season is taken."""
_CHUNK = 256
"""Series of a pass: the states of all grid points stay in the processor's cache."""


@dataclass(frozen=True)
class States:
    """What is known after each day, and the errors one step ahead; every array has shape (series, days)."""

    level: Floats
    season: Floats
    """Season of the day's own weekday, after the day."""
    alpha: Floats
    """(series,)"""
    gamma: Floats

    def expected(self, day: int, ahead: int) -> Floats:
        """What day `day` + `ahead` should bring, known after `day`; shape (series,)."""
        return np.asarray(self.level[:, day] + self.season[:, season_day(day, ahead)])


def season_day(day: int, ahead: int) -> int:
    """The last day up to `day` with the weekday of `day` + `ahead`; before the seventh day, the day itself."""
    return max(day - WEEK + 1 + (ahead - 1) % WEEK, 0)


def smooth(values: Floats) -> States:
    """Smooth all series. `values`: (series, days), NaN = missing; a series needs one value."""
    count, days = values.shape
    grid = [(alpha, gamma) for alpha in ALPHAS for gamma in GAMMAS]
    alphas, gammas = (np.array([pair[side] for pair in grid]) for side in (0, 1))
    level, season, clip = _beginning(values)
    losses = np.empty((count, len(grid)))
    seen = np.isfinite(values[:, _BURN_IN:]).sum(axis=1)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        losses[part] = _losses(values[part], (level[part], season[part], clip[part]), alphas, gammas)
    log_loss = np.log(np.maximum(losses, 1e-12) / np.maximum(seen, 1)[:, None])
    log_loss -= log_loss.min(axis=1, keepdims=True)
    best = np.argmin(seen[:, None] * log_loss + PULL * log_loss.mean(axis=0), axis=1)
    alpha, gamma = alphas[best], gammas[best]
    levels, seasons = np.empty((count, days)), np.empty((count, days))
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        levels[part], seasons[part] = _states(
            values[part], (level[part], season[part], clip[part]), alpha[part], gamma[part]
        )
    return States(levels, seasons, alpha, gamma)


_Begin = tuple[Floats, Floats, Floats]


def _beginning(values: Floats) -> _Begin:
    """First level (series,), first season (series, 7) by day number mod 7, and the largest error that counts (series,)."""
    count, days = values.shape
    early = values[:, : min(days, WEEK * _FIRST_WEEKS)]
    season = np.zeros((count, WEEK))
    with np.errstate(all="ignore"):
        centre = nan_median(early)
        if days >= 2 * WEEK:
            weeks = early.shape[1] // WEEK
            by_week = early[:, : weeks * WEEK].reshape(count, weeks, WEEK)
            of_week = nan_mean(by_week, axis=2)[:, :, None]
            of_day = nan_median(np.swapaxes(by_week - of_week, 1, 2).reshape(count * WEEK, weeks)).reshape(count, WEEK)
            known = np.isfinite(by_week).sum(axis=1)
            season = np.where(known >= 2, np.nan_to_num(of_day), 0.0) * known / (known + 1)
            season -= season.mean(axis=1, keepdims=True)
        first = values[:, : 2 * WEEK]
        first = first - season[:, np.arange(first.shape[1]) % WEEK]
        level = nan_median(first)
        level = np.where(np.isfinite(level), level, centre)
        level = np.where(np.isfinite(level), level, np.nan_to_num(nan_median(values)))
        steps = np.abs(values[:, WEEK:] - values[:, :-WEEK]) if days > WEEK else np.abs(values - centre[:, None])
        spread = 1.4826 * nan_median(steps) / np.sqrt(2)
        wide = np.sqrt(nan_mean(steps**2, axis=1) / 2)
    clip = CLIP * np.maximum(np.nan_to_num(spread), 0.3 * np.nan_to_num(wide))
    return level, season, np.where(clip > 0, clip, np.inf)


def _losses(values: Floats, begin: _Begin, alphas: Floats, gammas: Floats) -> Floats:
    """Sum of squared (clipped) errors after the burn-in, (series, grid)."""
    level, season, clip = begin
    days = values.shape[1]
    levels = np.repeat(level[:, None], len(alphas), axis=1)
    seasons = np.repeat(season.T[:, :, None], len(alphas), axis=2)
    total = np.zeros_like(levels)
    limit = clip[:, None]
    for day in range(days):
        slot = seasons[day % WEEK]
        error = values[:, day, None] - levels - slot
        np.nan_to_num(error, copy=False)
        np.clip(error, -limit, limit, out=error)
        if day >= _BURN_IN:
            total += error * error
        levels += alphas * error
        slot += gammas * error
    return total


def _states(values: Floats, begin: _Begin, alpha: Floats, gamma: Floats) -> tuple[Floats, Floats]:
    level, season, clip = begin
    count, days = values.shape
    levels, seasons = np.empty((count, days)), np.empty((count, days))
    now, slots = level.copy(), season.copy()
    for day in range(days):
        slot = day % WEEK
        error = np.nan_to_num(values[:, day] - now - slots[:, slot])
        error = np.clip(error, -clip, clip)
        now = now + alpha * error
        slots[:, slot] += gamma * error
        levels[:, day], seasons[:, day] = now, slots[:, slot]
    return levels, seasons


def nan_mean(values: Floats, axis: int) -> Floats:
    """Mean of what is there; NaN where nothing is, without a warning."""
    known = np.isfinite(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0.0).sum(axis=axis)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def nan_median(values: Floats) -> Floats:
    """Median along the last axis of what is there (NaN sorts last); (n, m) → (n,)."""
    if values.shape[-1] == 0:
        return np.full(values.shape[0], np.nan)
    ordered = np.sort(values, axis=-1)
    count = np.isfinite(ordered).sum(axis=-1)
    rows = np.arange(len(ordered))
    low, high = np.maximum((count - 1) // 2, 0), np.maximum(count // 2, 0)
    high = np.minimum(high, values.shape[-1] - 1)
    return np.asarray(np.where(count > 0, (ordered[rows, low] + ordered[rows, high]) / 2, np.nan))
