"""A second opinion on one slice's metrics together: an isolation forest, with what each metric contributes.

Each metric may lie within its own band while they do not go together: visits up, orders down, refunds up, each by a
little. A day of a slice is a point; its features are the distance of every metric from what was expected, in its own
robust standard deviations, and the distance of every metric from what the others do that day. In these units slices
are alike, so there is one forest for all slices of a dimension and not one for each (Liu, Ting & Zhou, 2008;
scikit-learn, 200 trees of 256 days). The score of the day is turned into a probability against the scores of the past days: by
rank, and beyond the 20 highest by an exponential tail.

What a metric contributes is what the score loses when that metric is put to what was expected and the others are left:
shares that add up to 1. As a detector of its own the forest is weak (`docs/quality.md`); it is for confirmation.

Stated behaviour: fewer than `LEAST_DAYS` days with an expectation of a slice, or fewer than `LEAST_ROWS` days of all
slices, or less than two metrics on the day → no opinion (NaN). A metric that is missing, or zero on more than a
fifth of the days, is taken as expected. Days of the calendar that are no
baseline are not learned from; a tested day is scored by the same forest, whatever day it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metrics_pipeline.detection.interface import BoolArray, FloatArray
from metrics_pipeline.detection.medians import TO_DEVIATION, nanmedian
from metrics_pipeline.detection.same_weekday import expected

TREES = 200
SAMPLE = 256
MOST_ROWS = 20_000
LEAST_DAYS = 28
LEAST_ROWS = 200
LEAST_NOISE = 0.02
FARTHEST = 12.0
"""Standard deviations beyond which a day is only far."""
MOST_ZEROS = 0.2
"""Share of days at zero from which a series has no level to be far from, and is left out."""
TAIL = 20


@dataclass(frozen=True)
class Opinion:
    """What the forest says of a day; n_slices rows."""

    p_value: FloatArray
    """(n_slices,): how often a past day scored at least as high; NaN = no opinion."""
    score: FloatArray
    """(n_slices,): the score of the forest, 0.5 is ordinary."""
    contribution: FloatArray
    """(n_metrics, n_slices): share of each metric in what is odd; NaN = no opinion."""
    distance: FloatArray
    """(n_metrics, n_slices): standard deviations from what was expected, with sign."""
    expected: FloatArray
    """(n_metrics, n_slices)"""


def isolation(values: FloatArray, now: int, *, is_baseline: BoolArray | None = None, seed: int = 0) -> Opinion:
    """Judge column `now` of every slice by the days before it.

    `values`: (n_metrics, n_slices, n_days), NaN = missing. `is_baseline`: (n_days,) days that may be learned from.
    Raises `ValueError` for a column that is not there.
    """
    if not 0 <= now < values.shape[2]:
        raise ValueError(f"column {now} is none of the {values.shape[2]} of the series")
    history = History.of(values[:, :, : now + 1], None if is_baseline is None else is_baseline[: now + 1])
    return history.opinion(history.learned(now, seed=seed), now)


@dataclass(frozen=True)
class Forest:
    """What was learned from the days before one: it judges that day and, in a replay, those of its month."""

    trees: Any
    """None where there was too little to learn from; then there is no opinion."""
    noise: FloatArray
    """(n_metrics, n_slices): robust standard deviation of log(value / expected); NaN for what is zero too often."""
    past: FloatArray
    """Scores of the days that were learned from."""
    enough: BoolArray
    """(n_slices,): which slices had enough days."""


@dataclass(frozen=True)
class History:
    """Values with what was expected of each, every day by the days before it."""

    values: FloatArray
    expected: FloatArray
    logs: FloatArray
    """log(value / expected)"""
    is_baseline: BoolArray

    @classmethod
    def of(cls, values: FloatArray, is_baseline: BoolArray | None = None) -> History:
        """(n_metrics, n_slices, n_days) values, and (n_days,) which days may be learned from; default all."""
        may = np.ones(values.shape[2], dtype=bool) if is_baseline is None else is_baseline
        forecast = expected(np.where(may, values, np.nan))
        with np.errstate(invalid="ignore", divide="ignore"):
            logs = np.log((values + 0.5) / (forecast + 0.5))
        return cls(values, forecast, np.where(np.isfinite(logs), logs, np.nan), may)

    def learned(self, until: int, *, days: int | None = None, seed: int = 0) -> Forest:
        """A forest of the `days` before column `until`; None = of all there are."""
        past = slice(0 if days is None else max(until - days, 0), until)
        logs, values = self.logs[:, :, past], np.nan_to_num(self.values[:, :, past])
        zeros = np.sum(self.values[:, :, past] == 0, axis=2) / np.maximum(
            np.isfinite(self.values[:, :, past]).sum(axis=2), 1
        )
        spread = TO_DEVIATION * nanmedian(np.abs(logs))
        whole = np.all(values == np.floor(values), axis=2)
        with np.errstate(invalid="ignore"):
            counted = np.where(whole, np.sqrt(1 / (nanmedian(self.expected[:, :, past]) + 1)), 0.0)
        noise = np.where(zeros > MOST_ZEROS, np.nan, np.fmax(np.fmax(spread, counted), LEAST_NOISE))
        distances = self._distances(noise, past)
        known = (np.isfinite(distances).sum(axis=0) >= 2) & self.is_baseline[past]  # (n_slices, n_days)
        enough = known.sum(axis=1) >= LEAST_DAYS
        rows = np.nan_to_num(distances)[:, known].T
        if rows.shape[0] < LEAST_ROWS or not enough.any():
            return Forest(None, noise, np.empty(0), np.zeros(enough.shape, dtype=bool))
        if rows.shape[0] > MOST_ROWS:
            rows = rows[np.random.default_rng(seed).choice(rows.shape[0], MOST_ROWS, replace=False)]
        trees = _trees(rows, seed)
        return Forest(trees, noise, _scores(trees, rows), enough)

    def opinion(self, forest: Forest, now: int) -> Opinion:
        """What a forest says of the day of column `now`."""
        distance = self._distances(forest.noise, slice(now, now + 1))[:, :, 0]
        enough = forest.enough & (np.isfinite(distance).sum(axis=0) >= 2)
        n_metrics, n_slices = distance.shape
        score, p_value = np.full(n_slices, np.nan), np.full(n_slices, np.nan)
        share = np.full(distance.shape, np.nan)
        if enough.any():
            rows = np.nan_to_num(distance[:, enough]).T
            score[enough] = _scores(forest.trees, rows)
            p_value[enough] = _p_values(score[enough], forest.past)
            without = np.vstack([_without(rows, metric) for metric in range(n_metrics)])
            left = _scores(forest.trees, without).reshape(n_metrics, -1)
            lost = np.maximum(score[enough] - left, 0)
            total = lost.sum(axis=0)
            share[:, enough] = np.divide(lost, total, out=np.zeros_like(lost), where=total > 0)
        return Opinion(p_value, score, share, distance, self.expected[:, :, now])

    def _distances(self, noise: FloatArray, days: slice) -> FloatArray:
        return np.asarray(np.clip(self.logs[:, :, days] / noise[:, :, None], -FARTHEST, FARTHEST))


def _features(rows: FloatArray) -> FloatArray:
    """(n, n_metrics) → (n, 2 × n_metrics): each metric, and each against the mean of the others."""
    others = (rows.sum(axis=1, keepdims=True) - rows) / max(rows.shape[1] - 1, 1)
    return np.hstack([rows, rows - others])


def _without(rows: FloatArray, metric: int) -> FloatArray:
    rows = rows.copy()
    rows[:, metric] = 0.0
    return rows


def _trees(rows: FloatArray, seed: int) -> Any:
    from sklearn.ensemble import IsolationForest

    trees = IsolationForest(n_estimators=TREES, max_samples=min(SAMPLE, rows.shape[0]), random_state=seed)
    return trees.fit(_features(rows))


def _scores(trees: Any, rows: FloatArray) -> FloatArray:
    return np.asarray(-trees.score_samples(_features(rows)), dtype=np.float64)


def _p_values(score: FloatArray, past: FloatArray) -> FloatArray:
    """Rank among past scores; beyond the highest few an exponential tail with their mean excess."""
    ordered = np.sort(past)
    n = ordered.size
    rank = (n - np.searchsorted(ordered, score, side="left") + 1) / (n + 1)
    threshold = ordered[-TAIL]
    excess = max(float((ordered[-TAIL:] - threshold).mean()), 1e-6)
    tail = TAIL / n * np.exp(-(score - threshold) / excess)
    return np.where(score > threshold, np.minimum(tail, rank), rank)
