"""Similar past episodes: by metric, place, direction, size and onset; a distance that can be read out.

distance = 0.35 metric + 0.30 place + 0.15 direction + 0.10 size + 0.10 onset, each part between 0 and 1:

    metric      0 the same metric · 0.5 one is made of the other · 1 neither
    place       1 − (shared elements ÷ all elements), halfway mended by shared dimensions: another member of the same
                dimension is 0.5 away, the same member 0. Elements are `dimension=member` of the slice and of the causes found
    direction   0 the same · 0.5 not known · 1 opposite
    size        |ln of the ratio of the two relative changes (each plus 1)| ÷ ln 4, at most 1; 0.5 when one is not known
    onset       difference in days between the change's first day and the first breach ÷ 7, at most 1; 0.5 when not known

similarity = 1 − distance; from `LEAST` on an episode counts as similar. Set-based: all episodes of a night against all past
ones are a few matrix operations; a part of the past is taken at a time, so that memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32]

WEIGHTS: Final[Mapping[str, float]] = {"metric": 0.35, "place": 0.30, "direction": 0.15, "size": 0.10, "onset": 0.10}
LEAST: Final = 0.6
"""Similarity from which on an episode is told as similar and counts for what helped."""
CELLS: Final = 4_000_000
"""Pairs of episodes that are compared at a time."""
_UNKNOWN: Final = 0.5
_QUADRUPLE: Final = float(np.log(4.0))
_WEEK: Final = 7.0


@dataclass(frozen=True)
class Case:
    """One episode as it is compared."""

    metric: str
    direction: str = ""
    change: float | None = None
    onset_days: float | None = None
    elements: frozenset[str] = frozenset()
    """`dimension=member`"""


@dataclass(frozen=True)
class Similar:
    """A past episode that resembles one of now."""

    position: int
    """In the past cases that were given."""
    similarity: float
    parts: Mapping[str, float]
    """The distance by its parts, each 0 to 1."""


@dataclass(frozen=True)
class Cases:
    """Many cases as columns."""

    cases: Sequence[Case]

    @cached_property
    def metrics(self) -> NDArray[Any]:
        return np.array([one.metric for one in self.cases], dtype=object)

    @cached_property
    def directions(self) -> Numbers:
        signs = {"up": 1.0, "down": -1.0}
        return np.array([signs.get(one.direction, 0.0) for one in self.cases], dtype=np.float32)

    @cached_property
    def sizes(self) -> Numbers:
        """ln(1 + |relative change|); NaN where it is not known."""
        return np.log1p(np.abs(_floats(one.change for one in self.cases)))

    @cached_property
    def onsets(self) -> Numbers:
        return _floats(one.onset_days for one in self.cases)

    def incidence(self, words: Mapping[str, int], *, dimensions: bool) -> tuple[Numbers, Numbers]:
        """Which of some elements (or dimensions) each case has, and how many it has in all."""
        sets = [
            frozenset(element.partition("=")[0] for element in one.elements) if dimensions else one.elements
            for one in self.cases
        ]
        found = np.zeros((len(sets), len(words)), dtype=np.float32)
        pairs = [(row, words[word]) for row, some in enumerate(sets) for word in some if word in words]
        if pairs:
            rows, columns = zip(*pairs, strict=True)
            found[list(rows), list(columns)] = 1.0
        return found, np.array([len(some) for some in sets], dtype=np.float32)


def similar(
    now: Sequence[Case],
    past: Sequence[Case],
    related: Mapping[str, frozenset[str]],
    *,
    most: int = 3,
    least: float = LEAST,
) -> list[list[Similar]]:
    """For each case of now the past ones that resemble it, the most similar first and of equals the first given.

    `related`: metric → metrics it is made of. `most`: so many of each.
    """
    if not now or not past:
        return [[] for _ in now]
    size = max(1, CELLS // len(now))
    found: list[list[Similar]] = [[] for _ in now]
    current = Cases(now)
    for start in range(0, len(past), size):
        parts = distances(current, Cases(past[start : start + size]), related)
        total = np.round(1.0 - sum(WEIGHTS[name] * matrix for name, matrix in parts.items()), 4)
        best = np.argsort(-total, axis=1, kind="stable")[:, :most]
        for row, columns in enumerate(best):
            found[row] += [
                Similar(
                    start + int(column),
                    round(float(total[row, column]), 4),
                    {name: round(float(matrix[row, column]), 3) for name, matrix in parts.items()},
                )
                for column in columns[total[row, columns] >= least]
            ]
    return [sorted(some, key=lambda one: (-one.similarity, one.position))[:most] for some in found]


def distances(now: Cases, past: Cases, related: Mapping[str, frozenset[str]]) -> dict[str, Numbers]:
    """The parts of the distance between each case of now (rows) and of the past (columns)."""
    return {
        "metric": _metric(now.metrics, past.metrics, related),
        "place": (_apart(now, past, dimensions=False) + _apart(now, past, dimensions=True)) / np.float32(2),
        "direction": np.where(
            (now.directions[:, None] == 0) | (past.directions[None, :] == 0),
            np.float32(_UNKNOWN),
            np.abs(now.directions[:, None] - past.directions[None, :]) / 2,
        ),
        "size": _scaled(now.sizes, past.sizes, _QUADRUPLE),
        "onset": _scaled(now.onsets, past.onsets, _WEEK),
    }


def _metric(now: NDArray[Any], past: NDArray[Any], related: Mapping[str, frozenset[str]]) -> Numbers:
    names, codes = np.unique(np.concatenate([now, past]).astype(str), return_inverse=True)
    table = np.ones((len(names), len(names)), dtype=np.float32)
    place = {name: index for index, name in enumerate(names.tolist())}
    for name, below in related.items():
        for other in below:
            if name in place and other in place:
                table[place[name], place[other]] = table[place[other], place[name]] = 0.5
    np.fill_diagonal(table, 0.0)
    found: Numbers = table[codes[: len(now)][:, None], codes[len(now) :][None, :]]
    return found


def _apart(now: Cases, past: Cases, *, dimensions: bool) -> Numbers:
    """1 − shared ÷ all; two totals share all they have."""
    words: dict[str, int] = {}
    for one in now.cases:
        for element in one.elements:
            words.setdefault(element.partition("=")[0] if dimensions else element, len(words))
    mine, my_count = now.incidence(words, dimensions=dimensions)
    theirs, their_count = past.incidence(words, dimensions=dimensions)
    shared = mine @ theirs.T
    union = my_count[:, None] + their_count[None, :] - shared
    found: Numbers = np.where(union > 0, 1 - shared / np.maximum(union, 1), 0).astype(np.float32)
    return found


def _scaled(now: Numbers, past: Numbers, scale: float) -> Numbers:
    gap = np.abs(now[:, None] - past[None, :]) / np.float32(scale)
    found: Numbers = np.where(np.isnan(gap), np.float32(_UNKNOWN), np.minimum(gap, 1)).astype(np.float32)
    return found


def _floats(values: Iterable[float | None]) -> Numbers:
    return np.array([np.nan if one is None else one for one in values], dtype=np.float32)
