"""Which alerts are one incident: the pyramid decides.

When a metric breaches and so does a metric it is made of, in the same period and compatible slices, the lower one is a
cause that is seen twice. An alert hangs on the highest such alert above it; what hangs together is one incident, and its top
is the headline. The same metric on a finer slice hangs on its coarser one, and an hour on its day. Hours that go on over midnight
are of each day they breached in. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from metrics_pipeline.routing.labels import slice_labels

LAYERS: Final[Mapping[str, int]] = {"base": 0, "operational": 1, "strategic": 2}
MOST_DAYS: Final = 7
"""So many days back an alert by the hour meets one by the day: no day is judged for the first time later than that."""
_RANK: Final[Mapping[str, int]] = {"yellow": 1, "red": 2}


class Firing(NamedTuple):
    """One alert that fires, as far as lineage goes."""

    episode: str
    rule: str
    metric: str
    layer: str
    dimension: str
    member: str
    grain: str
    period: datetime
    """The newest period with data, shop-local."""
    tier: str
    since: datetime
    """The first breaching period."""


def period_key(grain: str, period: datetime, other: str) -> datetime:
    """What must be equal for two periods to be the same: the hour between hours, else the day."""
    if grain == "hour" and other == "hour":
        return period
    return period.replace(hour=0, minute=0, second=0, microsecond=0)


def headlines(firing: Iterable[Firing], upstream: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Episode → episode of its incident's headline (its own for the headline); alerts that stand alone are left out.

    `upstream`: metric → every metric it is made of, directly or not.
    """
    by_rule: dict[tuple[str, str, str], list[Firing]] = defaultdict(list)
    for one in firing:
        by_rule[one.rule, one.dimension, one.grain].append(one)
    tops = {key: some[0] for key, some in by_rule.items()}
    above: dict[str, Firing] = {}
    for key, lower in by_rule.items():
        for other, upper in by_rule.items():
            if other != key and _is_above(tops[other], tops[key], upstream):
                _hang(lower, upper, above)
    found: dict[str, str] = {}
    for episode, parent in above.items():
        top = parent
        while top.episode in above:
            top = above[top.episode]
        found[episode] = top.episode
        found[top.episode] = top.episode
    return found


def _is_above(upper: Firing, lower: Firing, upstream: Mapping[str, Collection[str]]) -> bool:
    """Whether alerts of one rule can be the headline of those of another. A strict order: no alert is above itself."""
    if upper.metric == lower.metric:
        coarse, fine = _names(upper.dimension), _names(lower.dimension)
        return coarse < fine or (coarse == fine and (upper.grain, lower.grain) == ("day", "hour"))
    return lower.metric in upstream.get(upper.metric, ())


def _hang(lower: Sequence[Firing], upper: Sequence[Firing], above: dict[str, Firing]) -> None:
    """Hang each lower alert on the best upper one of the same period and a compatible slice, unless it hangs higher."""
    first, other = lower[0], upper[0]
    shared = sorted(_names(first.dimension) & _names(other.dimension))
    index: dict[tuple[datetime, tuple[str, ...]], Firing] = {}
    for one in upper:
        members = _members(one, shared)
        for period in _periods(one, first.grain):
            held = index.get((period, members))
            if held is None or _order(one) > _order(held):
                index[period, members] = one
    for one in lower:
        members = _members(one, shared)
        for period in _periods(one, other.grain):
            found = index.get((period, members))
            if found is not None and (one.episode not in above or _order(found) > _order(above[one.episode])):
                above[one.episode] = found


def _periods(one: Firing, other: str) -> list[datetime]:
    """The periods in which an alert can meet those of the other grain: hours meet each day from their first to their newest."""
    newest = period_key(one.grain, one.period, other)
    if one.grain == other:
        return [newest]
    first = min(newest, period_key(one.grain, one.since, other))
    return [newest - timedelta(days=back) for back in range(min((newest - first).days, MOST_DAYS) + 1)]


def _order(one: Firing) -> tuple[int, int, int, str]:
    """The higher layer, then the coarser slice, then the worse tier."""
    return LAYERS.get(one.layer, 0), -len(_names(one.dimension)), _RANK.get(one.tier, 0), one.episode


def _names(dimension: str) -> frozenset[str]:
    return frozenset() if dimension in ("all", "") else frozenset(dimension.split("|"))


def _members(one: Firing, names: Sequence[str]) -> tuple[str, ...]:
    labels = slice_labels(one.dimension, one.member)
    return tuple(labels.get(name, "") for name in names)


def is_coarser(dimension: str, member: str, labels: Mapping[str, str]) -> bool:
    """Whether a slice contains the slice with these labels: itself, a coarser one, or the total."""
    return all(labels.get(name) == value for name, value in slice_labels(dimension, member).items())
