"""Which members of which dimensions explain a change: likelihood ratio over cuboids, greedy, then revised.

A leaf is one combination of members with what was observed (v) and expected (f); of a ratio v is the numerator and f
the denominator times the expected rate. The noise of a leaf is fitted: var = phi f + tau2 f^2. The hypothesis of an
element is that all its leaves moved by one factor k. With the weights w = f / var,

    k = sum(w v) / sum(w f)      gain = 2 S (k ln k - k + 1) - 2 ln(elements of the cuboid) - layer_price * layer

where S = sum(w f): twice the log-likelihood ratio of counts whose noise is the fitted one (S = sum f, the Poisson
deviance, where var = f; S (k - 1)^2 near k = 1). The best element explains its leaves (f becomes k f), and so on.
Then each found element is taken back and looked for anew with the others in place: a parent that stood in for two of
its children gives way to them.

An element has up to three dimensions. Leaves may lie in several views (`region|channel` and `category|region`),
each the whole of the change cut in its own way; elements of all views compete, and what is explained in one view is
taken out of the others by the margins of the dimensions they share.

All group-bys are `np.bincount` over one array of element numbers. Cost: elements and leaves times cuboids.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What a search holds to. The defaults were chosen on generated cases with seeds of their own (docs/quality.md)."""

    layers: int = 3
    least_share: float = 0.05
    """Of the change: what an element must carry, with the same sign."""
    layer_price: float = 2.0
    elements_price: float = 2.0
    least_gain: float = 12.0
    least_part: float = 0.01
    """Of the gain of all elements: what each must add."""
    most_causes: int = 8
    rounds: int = 2
    """How often found elements are looked for anew."""
    openings: tuple[float, ...] = (0.0,)
    """Exponents on the share of the change that the first element carries; each opens a search of its own."""
    cause_price: float = 0.05
    """Part of the explained likelihood that one element more costs, when searches are compared."""
    candidates: int = 10
    """Of every opening: how many elements are tried for an added part of the exposure."""
    telling: float = 30.0
    """Counts (in units of the noise) an element needs to tell how members move on ordinary days."""
    short_history: int = 14
    """Periods of history below which how members wobble is hardly known: then `least_part` and `layer_price` are at least the next two.
    Chosen on one half of the real cases and judged on the other (docs/quality.md)."""
    short_part: float = 0.2
    short_price: float = 6.0

    def for_history(self, periods: int | None) -> Settings:
        """The same for so many periods of history; None = not known, which changes nothing."""
        if periods is None or periods >= self.short_history:
            return self
        part, price = max(self.least_part, self.short_part), max(self.layer_price, self.short_price)
        return replace(self, least_part=part, layer_price=price)


@dataclass(frozen=True)
class Noise:
    """var = phi f + tau2 f^2"""

    phi: float
    tau2: float
    periods: int | None = None
    """Of history that it was fitted to."""

    def variance(self, expected: Floats) -> Floats:
        return self.phi * expected + self.tau2 * expected**2


@dataclass(frozen=True)
class Leaves:
    """One view of the change: leaves over some dimensions."""

    dimensions: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    """Of each dimension."""
    codes: Ints
    """(leaves, dimensions): index of the member."""
    observed: Floats
    """(leaves,) in the metric's unit; of a ratio the numerator."""
    expected: Floats
    """(leaves,) likewise; of a ratio the denominator times the expected rate."""
    exposure: Floats | None = None
    """(leaves,) the denominator of a share of events; with it an element may also be one where a part of what did not
    happen before happens now: f becomes f + a (exposure - f)."""
    noise: Noise | None = None
    """Of ordinary days, where history shows it; None = fitted to these leaves."""

    def within(self, element: Sequence[tuple[str, str]]) -> NDArray[np.bool_]:
        """Which leaves lie in an element of dimensions of this view."""
        inside = np.ones(len(self.observed), dtype=bool)
        for dimension, member in element:
            at = self.dimensions.index(dimension)
            inside &= self.codes[:, at] == self.members[at].index(member)
        return inside


@dataclass(frozen=True)
class Found:
    """One element that explains a part of the change."""

    element: tuple[tuple[str, str], ...]
    """Dimension and member, in the order of the view; () = everything."""
    view: int
    factor: float
    """By which its leaves moved beyond what other elements explain."""
    gain: float
    confidence: float
    contribution: float
    """To observed minus expected of all leaves; leaves of several elements count for the first that explained them."""


def fit_noise(observed: Floats, expected: Floats, periods: int | None = None) -> Noise:
    """Fit phi and tau2 to the squared residuals by weighted least squares.

    Left out is what lies beyond three deviations, each widened by one event (phi): among leaves that expect 0.05 events,
    the one with 1 is ordinary, and without it only zeros would be left. The weights know that squares of rare events vary more.
    """
    use = expected > 0
    v, f = observed[use], expected[use]
    if len(f) < 3:
        return Noise(1.0, 0.0, periods)
    square = (v - f) ** 2
    floor = 1e-9 * float(f.max())
    phi, tau2 = max(float(square.sum() / f.sum()), floor), 0.0
    typical = float(np.median(square / f)) / 0.455
    if np.median(f) > 5.0 * typical:  # leaves of many events: half of them may be part of the incident
        phi = max(min(phi, typical), floor)
    for _ in range(8):
        variance = phi * f + tau2 * f * f
        weight = (square <= 9.0 * (variance + phi * phi)) / (variance * (variance + phi * phi))
        aa, ab, bb = (weight * f * f).sum(), (weight * f**3).sum(), (weight * f**4).sum()
        ya, yb = (weight * f * square).sum(), (weight * f * f * square).sum()
        determinant = aa * bb - ab * ab
        fitted = phi, tau2
        phi, tau2 = float(ya / max(aa, 1e-300)), 0.0
        if determinant > 1e-9 * aa * bb:
            both = (ya * bb - yb * ab) / determinant, (yb * aa - ya * ab) / determinant
            if both[1] > 0:
                phi, tau2 = max(float(both[0]), floor), float(both[1])
        phi = max(phi, floor)
        if abs(phi - fitted[0]) < 0.01 * phi and abs(tau2 - fitted[1]) < 0.01 * tau2 + 1e-9:
            break
    return Noise(phi, tau2, periods)


class _View:
    """Leaves with the numbers of their elements in every cuboid."""

    def __init__(self, leaves: Leaves, taken: set[frozenset[str]], layers: int) -> None:
        self.leaves = leaves
        sizes = [len(members) for members in leaves.members]
        several = [at for at, members in enumerate(leaves.members) if len(members) > 1]
        count = len(several)
        self.cuboids: list[tuple[int, ...]] = []
        self.first: list[int] = []
        numbers: list[Ints] = []
        at = 0
        for layer in range(1, min(layers, count) + 1):
            for chosen in itertools.combinations(several, layer):
                key = frozenset(leaves.dimensions[one] for one in chosen)
                if key in taken:
                    continue
                taken.add(key)
                number = leaves.codes[:, chosen[0]].astype(np.int64)
                for one in chosen[1:]:
                    number = number * sizes[one] + leaves.codes[:, one]
                size = math.prod(sizes[one] for one in chosen)
                if size > 4 * len(number) + 1024:
                    _, number = np.unique(number, return_inverse=True)
                    size = int(number.max()) + 1 if len(number) else 0
                self.cuboids.append(chosen)
                self.first.append(at)
                numbers.append(number + at)
                at += size
        self.numbers = np.stack(numbers) if numbers else np.empty((0, len(leaves.observed)), dtype=np.int64)
        self.count = at
        self.layer = np.zeros(at, dtype=np.int64)
        self.cuboid_of = np.zeros(at, dtype=np.int64)
        present = np.bincount(self.numbers.ravel(), minlength=at) > 0
        self.elements = np.zeros(at)
        bounds = [*self.first, at]
        for index, chosen in enumerate(self.cuboids):
            part = slice(bounds[index], bounds[index + 1])
            self.layer[part] = len(chosen)
            self.cuboid_of[part] = index
            self.elements[part] = max(int(present[part].sum()), 1)

    def sums(self, weights: Floats, rows: Ints | None = None) -> Floats:
        """Sum of a weight per leaf over every element; `rows`: of these leaves only, in the order of the weights."""
        numbers = self.numbers if rows is None else self.numbers[:, rows]
        found: Floats = np.bincount(numbers.ravel(), np.tile(weights, len(numbers)), minlength=self.count).astype(
            np.float64
        )
        return found

    def element(self, number: int) -> tuple[tuple[tuple[str, str], ...], Ints]:
        """The element of a number, and its leaves."""
        index = int(self.cuboid_of[number])
        rows = np.flatnonzero(self.numbers[index] == number)
        leaf = rows[0]
        chosen = self.cuboids[index]
        names = tuple(
            (self.leaves.dimensions[at], self.leaves.members[at][self.leaves.codes[leaf, at]]) for at in chosen
        )
        return names, rows


class _State:
    """The views as they look with some elements explained."""

    def __init__(self, views: Sequence[_View], noises: Sequence[Noise]) -> None:
        self.views, self.noises = views, noises
        self.spread = np.zeros(4)
        self.expected = [view.leaves.expected.copy() for view in views]
        self.sums: list[tuple[Floats, Floats, Floats]] = []
        for view, noise, expected in zip(views, noises, self.expected, strict=True):
            self.sums.append(tuple(view.sums(one) for one in _terms(view.leaves.observed, expected, noise)))  # type: ignore[arg-type]

    def move_to(self, expected: Sequence[Floats]) -> None:
        """Set the expectations; sums change by what differs."""
        for at, (view, noise, old, new) in enumerate(
            zip(self.views, self.noises, self.expected, expected, strict=True)
        ):
            rows = np.flatnonzero(old != new)
            if len(rows) == 0:
                continue
            v = view.leaves.observed
            if len(rows) * 2 > len(v):
                self.sums[at] = tuple(view.sums(one) for one in _terms(v, new, noise))  # type: ignore[assignment]
            else:
                before, after = _terms(v[rows], old[rows], noise), _terms(v[rows], new[rows], noise)
                self.sums[at] = tuple(  # type: ignore[assignment]
                    total + view.sums(b - a, rows) for total, a, b in zip(self.sums[at], before, after, strict=True)
                )
        self.expected = list(expected)

    def best(
        self, settings: Settings, change: float, opening: float = 0.0
    ) -> tuple[int, int, float, float, float, bool] | None:
        """View, element number, factor, gain, and the gain of the next best element; None when none is worth it."""
        found: list[tuple[float, int, int, float, bool]] = []
        second = 0.0
        for at, (view, (wv, wf, difference)) in enumerate(zip(self.views, self.sums, strict=True)):
            if not view.count:
                continue
            raw, sure, factor = _gains(wv, wf, view, self.spread, settings)
            usable = (sure >= settings.least_gain) & (
                difference * math.copysign(1.0, change) >= settings.least_share * abs(change)
            )
            if not usable.any():
                continue
            if view.leaves.exposure is not None and change > 0:
                raw, factor, added = self._with_added(
                    at, raw=raw, factor=factor, usable=usable, share=difference / change, settings=settings
                )
            else:
                added = np.zeros(0, dtype=np.int64)
            weighed = raw * np.clip(difference / change, 0.0, 1.0) ** opening if opening else raw
            gain = np.where(usable, weighed, -np.inf)
            number = int(np.argmax(gain))
            found.append((float(gain[number]), at, number, float(factor[number]), number in added))
            if len(gain) > 1:
                second = max(second, float(np.partition(gain, -2)[-2]))
        if not found:
            return None
        found.sort(reverse=True)
        gain_, at, number, factor_, is_added = found[0]
        if len(found) > 1:
            second = max(second, found[1][0])
        return at, number, factor_, gain_, second, is_added

    def _with_added(
        self, at: int, *, raw: Floats, factor: Floats, usable: NDArray[np.bool_], share: Floats, settings: Settings
    ) -> tuple[Floats, Floats, Ints]:
        """The same with the gain by an added part of the exposure, for the elements most likely to be the best by it."""
        view, noise, f = self.views[at], self.noises[at], self.expected[at]
        v, d = view.leaves.observed, view.leaves.exposure
        assert d is not None
        raw, factor, added = raw.copy(), factor.copy(), []
        candidates: set[int] = set()
        for power in (0.0, 2.0):
            weighed = np.where(usable, raw * np.clip(share, 0.0, 1.0) ** power, -np.inf)
            candidates |= set(np.argsort(weighed)[-settings.candidates :].tolist())
        for number in sorted(candidates):
            if not usable[number] or factor[number] <= 1.0:
                continue
            rows = np.flatnonzero(self.views[at].numbers[view.cuboid_of[number]] == number)
            part, gain = _added_part(v[rows], f[rows], d[rows], noise)
            price = (
                settings.elements_price * math.log(view.elements[number]) + settings.layer_price * view.layer[number]
            )
            if gain - price > raw[number]:
                raw[number], factor[number] = gain - price, part
                added.append(number)
        return raw, factor, np.array(added, dtype=np.int64)


def _added_part(v: Floats, f: Floats, d: Floats, noise: Noise) -> tuple[float, float]:
    """The part of the exposure that was added, and twice its log-likelihood ratio: Newton's steps from the moment's value."""
    g = np.maximum(d - f, 0.0)
    weight = 1.0 / (noise.phi + noise.tau2 * f)
    part = max(float((weight * (v - f)).sum() / max((weight * g).sum(), 1e-12)), 0.0)
    for _ in range(4):
        now = np.maximum(f + part * g, 1e-12)
        slope, curve = (weight * g * (v / now - 1.0)).sum(), (weight * g * g * v / now**2).sum()
        part = min(max(part + float(slope / max(curve, 1e-300)), 0.2 * part), 1.0)
    now = np.maximum(f + part * g, 1e-12)
    return part, float(2.0 * (weight * (v * np.log(now / np.maximum(f, 1e-12)) - now + f)).sum())


def _fit_spread(state: _State, settings: Settings) -> Floats:
    """Per layer: the relative deviation that elements show beyond the noise of their leaves (days move members, too).

    The root of median((k - 1)^2 / (1 / S + spread^2)) = 0.455, over elements with enough counts to tell.
    """
    spread = np.zeros(settings.layers + 1)
    for layer in range(1, settings.layers + 1):
        squares, inverses = [], []
        for view, (wv, wf, _) in zip(state.views, state.sums, strict=True):
            use = (view.layer == layer) & (wf > settings.telling)
            squares.append((wv[use] / wf[use] - 1.0) ** 2)
            inverses.append(1.0 / wf[use])
        square, inverse = np.concatenate(squares), np.concatenate(inverses)
        if len(square) < 5 or np.median(square / inverse) <= 0.455:
            continue
        low, high = 0.0, float(np.median(square)) / 0.455
        for _ in range(16):
            middle = (low + high) / 2.0
            low, high = (middle, high) if np.median(square / (inverse + middle)) > 0.455 else (low, middle)
        spread[layer] = math.sqrt(high)
    return spread


def _terms(observed: Floats, expected: Floats, noise: Noise) -> tuple[Floats, Floats, Floats]:
    weight = 1.0 / (noise.phi + noise.tau2 * expected)
    return weight * observed, weight * expected, observed - expected


def _gains(wv: Floats, wf: Floats, view: _View, spread: Floats, settings: Settings) -> tuple[Floats, Floats, Floats]:
    """Gain by the noise of leaves, gain where days move members too, factor: per element.

    The first ranks (of nested elements both are on the same footing), the second says whether there is anything to rank.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(wf > 1e-9, np.maximum(wv, 0.0) / wf, 1.0)
        each = 2.0 * (np.where(factor > 0, factor * np.log(factor), 0.0) - factor + 1.0)
    each = np.where(wf > 1e-9, each, 0.0)
    price = settings.elements_price * np.log(view.elements) + settings.layer_price * view.layer
    return wf * each - price, wf / (1.0 + wf * spread[view.layer] ** 2) * each - price, factor


@dataclass
class _Explained:
    view: int
    number: int
    element: tuple[tuple[str, str], ...]
    rows: Ints
    factor: float
    gain: float
    second: float
    is_added: bool

    def move(self, expected: Floats, exposure: Floats | None) -> Floats:
        """The expectations of its leaves with it in place."""
        if self.is_added and exposure is not None:
            return expected + self.factor * np.maximum(exposure - expected, 0.0)
        return expected * self.factor


def search(views: Sequence[Leaves], settings: Settings = Settings()) -> tuple[Found, ...]:
    """The elements that explain observed minus expected, the largest contribution first; () when none stands out."""
    taken: set[frozenset[str]] = set()
    prepared = [_View(one, taken, settings.layers) for one in views]
    change = _change(views)
    if change == 0 or not any(view.count for view in prepared):
        return ()
    known = [one.noise.periods for one in views if one.noise is not None and one.noise.periods is not None]
    settings = settings.for_history(min(known, default=None))
    explained: list[_Explained] = []
    level = 1.0
    for _ in range(1 if all(one.noise for one in views) else 2):
        expected = _expected(prepared, explained, level)
        noises = [
            view.leaves.noise or fit_noise(view.leaves.observed, f) for view, f in zip(prepared, expected, strict=True)
        ]
        state = _State(prepared, noises)
        if explained:
            state.move_to(expected)
            state.spread = _fit_spread(state, settings)
            state.move_to([view.leaves.expected for view in prepared])
        explained, level = _greedy(state, settings, change)
    return _attributed(prepared, explained, change)


def _greedy(state: _State, settings: Settings, change: float) -> tuple[list[_Explained], float]:
    """The best of several searches, then every element looked for anew with the others in place."""
    start, spread = state.expected, state.spread
    tried: dict[tuple[int, int], tuple[float, list[_Explained], float, Floats]] = {}
    for opening in settings.openings:
        state.move_to(start)
        state.spread = spread
        first = _best(state, settings, change, opening)
        if first is None or (first.view, first.number) in tried:
            continue
        explained, level = _grow(state, *_refit(state, [first], 1.0), settings, change)
        score = _explained_likelihood(state) * (1.0 - settings.cause_price) ** (len(explained) - 1)
        tried[first.view, first.number] = score, explained, level, state.spread
    if not tried:
        state.move_to(start)
        return [], 1.0
    _, explained, level, state.spread = max(tried.values(), key=lambda one: one[0])
    state.move_to(_expected(state.views, explained, level))
    for _ in range(settings.rounds):
        before = {(one.view, one.number) for one in explained}
        for one in list(explained):
            others = [other for other in explained if (other.view, other.number) != (one.view, one.number)]
            if len(others) == len(explained):
                continue
            others, level = _refit(state, others, level)
            again = _best(state, settings, change)
            explained, level = _refit(state, others if again is None else [*others, again], level)
        explained, level = _grow(state, explained, level, settings, change)
        if {(one.view, one.number) for one in explained} == before:
            break
    if explained and _is_everywhere(state, len(explained), settings):
        return _beyond_all(state, settings, change)
    return explained, level


def _beyond_all(state: _State, settings: Settings, change: float) -> tuple[list[_Explained], float]:
    """Everything moved: the elements that moved further than the rest."""
    level = _whole_factor(state.views[0])
    state.move_to(_expected(state.views, [], level))
    state.spread = _fit_spread(state, settings)
    first = _best(state, settings, change)
    if first is None:
        return [], level
    return _grow(state, *_refit(state, [first], level), settings, change)


def _whole_factor(view: _View) -> float:
    return float(view.leaves.observed.sum()) / max(float(view.leaves.expected.sum()), 1e-300)


def _is_everywhere(state: _State, count: int, settings: Settings) -> bool:
    """Whether one factor for everything explains nearly as much as what was found."""
    found, now = _explained_likelihood(state), state.expected
    flat = [view.leaves.expected * _whole_factor(view) for view in state.views]
    state.expected = flat
    everywhere = _explained_likelihood(state)
    state.expected = now
    return everywhere >= found * (1.0 - settings.cause_price) ** count


def _grow(
    state: _State, explained: list[_Explained], level: float, settings: Settings, change: float
) -> tuple[list[_Explained], float]:
    while explained and len(explained) < settings.most_causes:
        state.spread = _fit_spread(state, settings)
        found = _best(state, settings, change)
        if found is None or any((one.view, one.number) == (found.view, found.number) for one in explained):
            break
        if found.gain < settings.least_part * _explained_likelihood(state):
            break
        explained, level = _refit(state, [*explained, found], level)
    return explained, level


def _explained_likelihood(state: _State) -> float:
    """Twice the gain in log-likelihood of the expectations as they stand over those at the start, best view."""
    found = 0.0
    for view, noise, now in zip(state.views, state.noises, state.expected, strict=True):
        v, f = view.leaves.observed, view.leaves.expected
        use = (f > 0) & (now > 0)
        weight = 1.0 / (noise.phi + noise.tau2 * f[use])
        found = max(found, float(2.0 * (weight * (v[use] * np.log(now[use] / f[use]) - now[use] + f[use])).sum()))
    return found


def _refit(state: _State, explained: list[_Explained], level: float) -> tuple[list[_Explained], float]:
    """The common level of what no element touches, then every factor anew with the others in place."""
    if not explained:
        state.move_to(_expected(state.views, explained, 1.0))
        return explained, 1.0
    home = explained[0].view
    leaves = state.views[home].leaves
    free = np.ones(len(leaves.observed), dtype=bool)
    for one in explained:
        if one.view == home:
            free[one.rows] = False
    seen = float(leaves.expected[free].sum())
    level = float(leaves.observed[free].sum()) / seen if seen > 0.05 * float(leaves.expected.sum()) else 1.0
    level = min(max(level, 0.2), 5.0)
    for at, one in enumerate(explained):
        others = explained[:at] + explained[at + 1 :]
        expected = _expected(state.views, others, level)[one.view][one.rows]
        observed, exposure = state.views[one.view].leaves.observed[one.rows], state.views[one.view].leaves.exposure
        if one.is_added and exposure is not None:
            factor = _added_part(observed, expected, exposure[one.rows], state.noises[one.view])[0]
        else:
            wv, wf, _ = _terms(observed, expected, state.noises[one.view])
            factor = max(float(wv.sum() / max(wf.sum(), 1e-12)), 1e-3)
        explained = [*explained[:at], replace(one, factor=factor), *explained[at + 1 :]]
    state.move_to(_expected(state.views, explained, level))
    return explained, level


def _best(state: _State, settings: Settings, change: float, opening: float = 0.0) -> _Explained | None:
    found = state.best(settings, change, opening)
    if found is None:
        return None
    at, number, factor, gain, second, is_added = found
    element, rows = state.views[at].element(number)
    return _Explained(at, number, element, rows, max(factor, 1e-3), gain, second, is_added)


def _expected(views: Sequence[_View], explained: Sequence[_Explained], level: float = 1.0) -> list[Floats]:
    """The expectations of every view with these elements explained."""
    expected = [view.leaves.expected * level for view in views]
    for one in explained:
        home, before = views[one.view].leaves, expected[one.view]
        after = before.copy()
        after[one.rows] = one.move(before[one.rows], None if home.exposure is None else home.exposure[one.rows])
        for at, view in enumerate(views):
            if at == one.view:
                continue
            if {name for name, _ in one.element} <= set(view.leaves.dimensions):
                inside = view.leaves.within(one.element)
                expected[at] = np.where(inside, one.move(expected[at], view.leaves.exposure), expected[at])
            else:
                expected[at] = expected[at] * _margin_ratio(home, before, after, view.leaves)
        expected[one.view] = after
    return expected


def _margin_ratio(home: Leaves, before: Floats, after: Floats, other: Leaves) -> Floats:
    """Per leaf of another view: by what its shared margin changed at home."""
    shared = [name for name in other.dimensions if name in home.dimensions]
    number = np.zeros(len(before), dtype=np.int64)
    number_other = np.zeros(len(other.observed), dtype=np.int64)
    size = 1
    for name in shared:
        members = home.members[home.dimensions.index(name)]
        position = {member: at for at, member in enumerate(members)}
        translate = np.array([position.get(one, len(members)) for one in other.members[other.dimensions.index(name)]])
        number = number * (len(members) + 1) + home.codes[:, home.dimensions.index(name)]
        number_other = number_other * (len(members) + 1) + translate[other.codes[:, other.dimensions.index(name)]]
        size *= len(members) + 1
    was, is_ = np.bincount(number, before, size), np.bincount(number, after, size)
    ratio = np.divide(is_, was, out=np.ones(size), where=was > 0)
    return ratio[number_other]


def _change(views: Sequence[Leaves]) -> float:
    """Observed minus expected in the view that covers most."""
    return max(
        ((float(one.expected.sum()), float((one.observed - one.expected).sum())) for one in views), default=(0.0, 0.0)
    )[1]


def _attributed(views: Sequence[_View], explained: Sequence[_Explained], change: float) -> tuple[Found, ...]:
    """Contributions: what the factor made of the expectation, and of each leaf the rest to its most specific element."""
    final = _expected(views, explained)
    owner = [np.full(len(view.leaves.observed), -1) for view in views]
    for at in sorted(range(len(explained)), key=lambda at: len(explained[at].element)):
        owner[explained[at].view][explained[at].rows] = at
    found: list[Found] = []
    running = [view.leaves.expected.copy() for view in views]
    for at, one in enumerate(explained):
        exposure = views[one.view].leaves.exposure
        before = running[one.view][one.rows]
        after = one.move(before, None if exposure is None else exposure[one.rows])
        moved = (after - before).sum()
        running[one.view][one.rows] = after
        own = one.rows[owner[one.view][one.rows] == at]
        rest = (views[one.view].leaves.observed[own] - final[one.view][own]).sum()
        confidence = 1.0 / (1.0 + math.exp(-min(max(one.gain - one.second, 0.0) / 2.0, 50.0)))
        found.append(Found(one.element, one.view, one.factor, one.gain, confidence, float(moved + rest)))
    return tuple(sorted(found, key=lambda one: -one.contribution * math.copysign(1.0, change)))
