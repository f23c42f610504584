"""A shop of 18,000 leaves with planted causes: counts and ratios, 8 weeks of history, noise that is not the model's.

Leaves are combinations of five dimensions with shares from Dirichlet weights and lognormal interactions. Every day has a
weekday, a slow drift, a shock of the whole shop, a wobble of every member, and gamma overdispersed Poisson counts (binomial
events for ratios), so no element keeps exactly to its expectation. A cause moves the rate of one element of one to three
dimensions that holds 1 to 40 % of the shop, and at least 1 % of the shop and eight deviations of its own Poisson
noise; all causes of a case together at least 2 % of the shop, since a diagnosis is asked for when something was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.diagnosis.expectation import expected_counts, expected_rates, ordinary_days
from metrics_pipeline.diagnosis.search import Leaves, fit_noise

Floats = NDArray[np.float64]
NAMES = ("region", "channel", "category", "payment_method", "segment")
SIZES = (6, 5, 10, 5, 12)
DAYS = 56
NOISE_DAYS = 7
Element = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Case:
    """One day to be explained, and what was planted."""

    kind: str
    layer: int
    leaves: Leaves
    truth: frozenset[Element]


def absolute(rng: np.random.Generator, layer: int, count: int, sizes: tuple[int, ...] = SIZES) -> Case:
    """A count (orders): `count` causes of `layer` dimensions, none for a quiet day."""
    codes, share = _shape(rng, sizes)
    total = float(rng.choice([20_000, 60_000, 200_000])) * np.prod(sizes) / np.prod(SIZES)
    week, drift = 1 + 0.14 * rng.standard_normal(7), np.exp(np.cumsum(rng.normal(0, 0.005, DAYS + 1)))

    def day(at: int) -> Floats:
        level = share * total * week[at % 7] * drift[at] * rng.lognormal(0, 0.006)
        for place, size in enumerate(sizes):
            level = level * rng.lognormal(0, 0.003, size)[codes[:, place]]
        return level * rng.gamma(20.0, 0.05, len(level))

    history = np.stack([rng.poisson(day(at)) for at in range(DAYS)]).astype(float)
    now = day(DAYS)
    factor, truth = _causes(rng, codes, now, layer=layer, count=count, sizes=sizes, rises=2.0)
    observed = rng.poisson(now * factor).astype(float)
    slots = np.arange(DAYS) % 7
    kept = ordinary_days(history.sum(axis=1), slots)
    expected = expected_counts(history[kept], codes, sizes, slots[kept], DAYS % 7)
    recent = history[-NOISE_DAYS:]
    usual = history.mean(axis=0) / history.mean(axis=0).sum()
    noise = fit_noise(recent.ravel(), (recent.sum(axis=1, keepdims=True) * usual).ravel())
    leaves = Leaves(NAMES, _members(sizes), codes, observed, expected, None, noise)
    return Case("quiet" if not count else "absolute", layer, leaves, truth)


def ratio(rng: np.random.Generator, layer: int, count: int, *, mix: bool = False) -> Case:
    """A conversion rate: causes move rates; with `mix` only a member's traffic doubles to quadruples."""
    codes, share = _shape(rng, SIZES)
    total = float(rng.choice([400_000, 1_000_000, 2_000_000]))
    rate = 0.04 * rng.lognormal(0, 0.15, len(codes))
    for place, size in enumerate(SIZES):
        rate = rate * rng.lognormal(0, 0.25, size)[codes[:, place]]
    rate, week = np.minimum(rate, 0.5), 1 + 0.14 * rng.standard_normal(7)

    def sessions(at: int) -> Floats:
        level = share * total * week[at % 7] * rng.lognormal(0, 0.02)
        return rng.poisson(level * rng.gamma(20.0, 0.05, len(level))).astype(float)

    def orders(visits: Floats, rates: Floats) -> Floats:
        rates = rates * rng.lognormal(0, 0.005)
        for place, size in enumerate(SIZES):
            rates = rates * rng.lognormal(0, 0.003, size)[codes[:, place]]
        return rng.binomial(visits.astype(np.int64), np.minimum(rates * rng.gamma(200, 0.005, len(rates)), 1)).astype(
            float
        )

    visits = np.stack([sessions(at) for at in range(28)])
    bought = np.stack([orders(one, rate) for one in visits])
    now = sessions(28)
    factor, truth = _causes(rng, codes, now * rate, layer=layer, count=count, sizes=SIZES, rises=1.0)
    if mix:
        place = int(rng.integers(len(SIZES)))
        grown = codes[:, place] == rng.integers(SIZES[place])
        now = np.where(grown, rng.poisson(now * rng.uniform(2, 4)), now).astype(float)
    observed = orders(now, rate * factor)
    usual = expected_rates(bought.sum(axis=0), visits.sum(axis=0), codes, SIZES)
    noise = fit_noise(bought[-NOISE_DAYS:].ravel(), (visits[-NOISE_DAYS:] * usual).ravel())
    leaves = Leaves(NAMES, _members(SIZES), codes, observed, now * usual, now, noise)
    return Case("mix" if mix else "quiet ratio" if not count else "ratio", layer, leaves, truth)


def _shape(rng: np.random.Generator, sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], Floats]:
    codes = np.indices(sizes).reshape(len(sizes), -1).T.astype(np.int64)
    share = rng.lognormal(0, 0.5, len(codes))
    for place, size in enumerate(sizes):
        share = share * rng.dirichlet(np.full(size, 2.0))[codes[:, place]]
    return codes, share / share.sum()


def _members(sizes: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{name[0]}{at}" for at in range(size)) for name, size in zip(NAMES, sizes, strict=True))


def _causes(
    rng: np.random.Generator,
    codes: NDArray[np.int64],
    level: Floats,
    *,
    layer: int,
    count: int,
    sizes: tuple[int, ...],
    rises: float,
) -> tuple[Floats, frozenset[Element]]:
    """A factor per leaf, and the elements; of layer 0 they have one to three dimensions each. 7 of 10 cases fall."""
    falls = rng.random() < 0.7
    whole, members = level.sum(), _members(sizes)
    for _ in range(20_000):
        chosen: list[tuple[frozenset[tuple[int, int]], NDArray[np.bool_], float]] = []
        for _ in range(400):
            if len(chosen) == count:
                break
            places = sorted(rng.choice(len(sizes), layer or int(rng.integers(1, 4)), replace=False))
            one = frozenset((int(place), int(rng.integers(sizes[place]))) for place in places)
            rows = np.logical_and.reduce([codes[:, place] == member for place, member in one])
            part, effect = float(level[rows].sum()), float(rng.uniform(0.25, 0.9))
            is_seen = effect * part >= max(0.01 * whole, 8 * np.sqrt(part))
            if (
                0.01 * whole <= part <= 0.4 * whole
                and is_seen
                and not any(one <= old or old <= one for old, _, _ in chosen)
            ):
                chosen.append((one, rows, effect))
        if len(chosen) == count and (not count or sum(e * level[r].sum() for _, r, e in chosen) >= 0.02 * whole):
            break
    else:
        raise RuntimeError(f"no {count} causes of layer {layer} fit this shop")
    factor = np.ones(len(codes))
    for _, rows, effect in chosen:
        factor = np.where(rows, factor * (1 - effect if falls else 1 + rises * effect), factor)
    truth = frozenset(
        frozenset((NAMES[place], members[place][member]) for place, member in one) for one, _, _ in chosen
    )
    return factor, truth
