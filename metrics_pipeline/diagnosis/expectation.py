"""What leaves should have been: same weekday, pooled where leaves are small. Arrays only.

A leaf of a few events a day has no weekday pattern of its own that could be seen; its members have. So the total gets
its level and weekday index by medians, members their share of the total on the same weekdays, and leaves their
share within (one pass of raking, Deming and Stephan 1940). Rates of leaves are shrunk to what their members' rates make
of the overall rate, by as many events as the leaves are seen to differ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL_PERIODS = 14
LEAST_HISTORY = 7
"""Fewer periods of history are no ground for an expectation."""
_OUTLYING = 5.0
"""Median absolute deviations (scaled) beyond which a past day is an incident and no history."""


def ordinary_days(totals: Floats, slots: Ints) -> NDArray[np.bool_]:
    """Which past days look ordinary: within five deviations of the median of their slot (weekday), relative to the level.

    `totals`: (days,) oldest first; `slots`: (days,) which days are alike. At least half of the days stay.
    """
    if len(totals) < 4:
        return np.ones(len(totals), dtype=bool)
    level = np.median(totals)
    relative = totals / level if level > 0 else totals
    index = {slot: np.median(relative[slots == slot]) for slot in np.unique(slots)}
    residual = relative - np.array([index[slot] for slot in slots])
    spread = max(1.4826 * float(np.median(np.abs(residual))), 0.02)
    found: NDArray[np.bool_] = np.abs(residual) <= _OUTLYING * spread
    return found if found.mean() >= 0.5 else np.ones(len(totals), dtype=bool)


def expected_total(totals: Floats, slots: Ints, slot: int) -> float:
    """The next value of a total: the recent level times the index of its slot, both by medians."""
    level = float(np.median(totals))
    if level <= 0:
        return max(level, 0.0)
    own = {one: float(np.median(totals[slots == one])) / level for one in np.unique(slots)}
    recent = np.array([total / max(own[one], 1e-9) for total, one in zip(totals, slots, strict=True)])[-LEVEL_PERIODS:]
    return float(np.median(recent)) * own.get(slot, 1.0)


def expected_counts(history: Floats, codes: Ints, sizes: tuple[int, ...], slots: Ints, slot: int) -> Floats:
    """What each leaf should have now.

    `history`: (days, leaves) oldest first, ordinary days only; `codes`: (leaves, dimensions); `slots`: (days,) the weekday
    of each day; `slot`: of the day that is judged.
    """
    totals = history.sum(axis=1)
    total = expected_total(totals, slots, slot)
    base = history.mean(axis=0)
    if base.sum() <= 0 or total <= 0:
        return np.zeros(history.shape[1])
    expected = base * (total / base.sum())
    alike = slots == slot
    if alike.sum() >= 3:
        days = history[alike]
        day_totals = np.maximum(totals[alike], 1e-12)
        for at, size in enumerate(sizes):
            shares = np.stack(
                [np.bincount(codes[:, at], day, size) / whole for day, whole in zip(days, day_totals, strict=True)]
            )
            wanted = np.median(shares, axis=0) * total
            seen = np.bincount(codes[:, at], expected, size)
            counts = np.bincount(codes[:, at], days.sum(axis=0), size)
            trust = counts / (counts + 100.0)  # a member of a few events keeps the share of all days
            factor = np.divide(wanted, seen, out=np.ones(size), where=seen > 0)
            expected = expected * (1.0 + trust * (factor - 1.0))[codes[:, at]]
        expected *= total / expected.sum()
    return np.asarray(expected, dtype=np.float64)


def expected_rates(
    events: Floats, exposure: Floats, codes: Ints, sizes: tuple[int, ...], *, most: float | None = 1.0
) -> Floats:
    """The rate of each leaf from its history: its own, shrunk to what its members' rates make of the overall rate.

    `events`, `exposure`: (leaves,) sums over the history; `most`: the largest possible rate, None where there is none.
    """
    if exposure.sum() <= 0:
        return np.zeros(len(events))
    rate = np.full(len(events), max(float(events.sum()) / float(exposure.sum()), 0.0))
    for _ in range(3):
        for at, size in enumerate(sizes):
            seen = np.bincount(codes[:, at], events, size)
            wanted = np.bincount(codes[:, at], exposure * rate, size)
            rate = rate * ((np.maximum(seen, 0.0) + 1.0) / (wanted + 1.0))[codes[:, at]]
    if most is not None:
        rate = np.minimum(rate, most)
    prior = _prior_events(events, exposure * rate)
    wanted = exposure * rate
    return np.where(rate > 0, rate * (np.maximum(events, 0.0) + prior) / (wanted + prior), 0.0)


def _prior_events(events: Floats, wanted: Floats) -> float:
    """How many events of the members' rate weigh as much as the leaf's own: 1 / variance of the true ratios (moments)."""
    use = wanted >= 1.0
    if use.sum() < 5:
        return 5.0
    e = wanted[use]
    weight = e / (1.0 + 0.05 * e)
    excess = float((weight * ((events[use] / e - 1.0) ** 2 - 1.0 / e)).sum() / weight.sum())
    return float(np.clip(1.0 / max(excess, 1e-6), 0.5, 200.0))
