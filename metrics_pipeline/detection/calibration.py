"""A residual → how rare it is for this series: its own past residuals decide, not a normal distribution.

Below the 0.9 quantile q of past |z| the probability follows the past itself; beyond it the tail is exponential,
p = 0.1 exp(-(|z| - q)/s), with s from the median excess over q, so that past incidents, which are among the excesses, do
not make it fat (peaks over threshold: Pickands, 1975; median excess = s ln 2). Series with a short past lean on their
group, and a small group on what series are usually like.

How rare is said as surprise = -ln p: 3.4 is once a month of days, 5.9 once a year.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metrics_pipeline.detection.counts import Floats
from metrics_pipeline.detection.interface import NO_GROUP, BoolArray, FloatArray, IntArray

TAIL = 0.1
USUAL, USUAL_EXCESS = 1.65, 0.45
"""Quantile and median excess of a normal residual, a little widened: what is assumed before anything is known."""
LEAN, LEAN_TAIL, LEAN_GROUP = 60.0, 20.0, 5.0
"""How many values (values beyond q) the group counts in each series, and how many series the usual counts in a group."""
MOST = 700.0
"""Largest surprise."""


@dataclass(frozen=True)
class Tails:
    """Quantile and tail of past |z|, one of each for every series."""

    quantile: FloatArray
    scale: FloatArray

    def surprise(self, z: FloatArray) -> FloatArray:
        """−ln p of each residual, at most `MOST`; NaN stays NaN."""
        size = np.abs(z)
        inside = -np.log(np.maximum(1 - (1 - TAIL) * np.minimum(size / self.quantile, 1), TAIL))
        beyond = np.maximum(size - self.quantile, 0) / self.scale
        return np.asarray(np.minimum(inside + beyond, MOST))

    def size_at(self, surprise: float) -> FloatArray:
        """|z| at which the surprise is this: the inverse of `surprise`."""
        inside = (1 - np.exp(-min(surprise, -np.log(TAIL)))) / (1 - TAIL)
        return np.asarray(self.quantile * inside + self.scale * max(surprise + np.log(TAIL), 0.0))


def tails(past: Floats, group: IntArray) -> Tails:
    """Learn from past residuals (n_series, n_past), NaN = none; `group` (n_series,) as in `Panel`."""
    n, columns = past.shape
    if columns == 0:
        return Tails(np.full(n, USUAL), np.full(n, USUAL_EXCESS / np.log(2)))
    size = np.sort(np.abs(past), axis=1)  # NaN last
    count = np.isfinite(size).sum(axis=1)
    rows = np.arange(n)
    at = np.clip(((1 - TAIL) * count).astype(np.int64), 0, columns - 1)
    middle = np.clip((at + count) // 2, 0, np.maximum(count - 1, 0))
    beyond = count - at
    own = np.where(count > 0, size[rows, at].astype(np.float64), USUAL)
    excess = np.where(beyond >= 5, size[rows, middle] - own, USUAL_EXCESS)
    usual = _of_group(np.clip(own, 0.5, 4.0), count > 0, group, USUAL)
    usual_excess = _of_group(np.clip(excess, 0.1, 2.0), beyond >= 5, group, USUAL_EXCESS)
    quantile = (count * own + LEAN * usual) / (count + LEAN)
    scale = (beyond * excess + LEAN_TAIL * usual_excess) / (beyond + LEAN_TAIL) / np.log(2)
    return Tails(np.maximum(quantile, 0.3), np.maximum(scale, 0.1))


def _of_group(values: FloatArray, known: BoolArray, group: IntArray, usual: float) -> FloatArray:
    """Mean of each series' group, leaning on `usual` where the group is small."""
    of = group - NO_GROUP  # series without peers share place 0, and lean on what is usual only
    weight = known & (group != NO_GROUP)
    total = np.bincount(of, weights=np.where(weight, values, 0.0))
    number = np.bincount(of, weights=weight)
    return np.asarray(((total + LEAN_GROUP * usual) / (number + LEAN_GROUP))[of])
