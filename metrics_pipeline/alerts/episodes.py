"""Episodes of a tick: begun, carried on, ended, and found in the past. From first breaching period to the end of an alert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.state import RANK, episode_key
from metrics_pipeline.store import alerts as repository
from metrics_pipeline.store.instances import (
    TIERS,
    Flags,
    Indices,
    InstanceColumns,
    Numbers,
    datetimes,
)
from metrics_pipeline.store.records import Episode, Reason, Tier

HISTORY = "history"
"""Close reason of an episode that was only found later, in a period that was no longer the newest."""


@dataclass
class Episodes:
    """The episodes that a tick may touch: the open ones of its rules, and those it begins."""

    now: datetime
    by_key: dict[str, Episode]
    opened: set[str] = field(default_factory=set)
    reopened: set[str] = field(default_factory=set)
    """Of those begun, the ones that may be stored already: they do not begin with a period that was never judged."""
    touched: set[str] = field(default_factory=set)

    @property
    def closed(self) -> set[str]:
        """Ended in this tick."""
        return {key for key in self.touched if self.by_key[key].closed_at is not None}

    def worsen(self, instances: InstanceColumns, slots: Indices, *, again: Flags) -> None:
        """Open the episodes of these firing instances, or carry them on. `again`: by a period that was judged before."""
        columns = (
            instances.episode_keys(slots),
            instances.key[slots],
            instances.rule[slots],
            datetimes(instances.episode_period[slots]),
            datetimes(instances.data_period[slots]),
            instances.tier[slots].tolist(),
            instances.value[slots].tolist(),
            _excess(instances, slots).tolist(),
            (again | (instances.breaches[slots] != 1)).tolist(),
        )
        for key, instance, rule, first, period, rank, number, beyond, is_old in zip(*columns, strict=True):
            if key is None or first is None or period is None:
                raise ValueError(f"{instance} fires without an episode")
            tier, value = TIERS[rank], None if number != number else number  # noqa: PLR0124
            episode = self.by_key.get(key)
            if episode is None:
                self.opened.add(key)
                if is_old:
                    self.reopened.add(key)
                episode = Episode(key, instance, rule, first, period, self.now, None, None, tier, value, beyond)
            worse = (rank, beyond) >= (RANK[episode.worst_tier], episode.worst_excess or 0.0)
            self.by_key[key] = episode._replace(
                last_period=max(period, episode.last_period),
                closed_at=None,
                close_reason=None,
                worst_tier=tier if worse else episode.worst_tier,
                worst_value=value if worse else episode.worst_value,
                worst_excess=beyond if worse else episode.worst_excess,
            )
            self.touched.add(key)

    def close(self, key: str, reason: Reason) -> None:
        """End an episode."""
        self.by_key[key] = self.by_key[key]._replace(closed_at=self.now, close_reason=reason)
        self.touched.add(key)

    def join_reopened(self, connection: Connection) -> None:
        """An episode that a restatement closed and another one opens again keeps its beginning; it is told anew."""
        for key, old in repository.episodes_by_key(connection, self.reopened).items():
            new = self.by_key[key]
            self.by_key[key] = new._replace(
                opened_at=old.opened_at, first_period=min(old.first_period, new.first_period)
            )


class PastVerdict(NamedTuple):
    """A verdict of a period older than what was judged."""

    instance: str
    rule: str
    period: datetime
    tier: Tier
    value: float | None


def episodes_of_the_past(
    connection: Connection, past: Sequence[PastVerdict], known: Mapping[str, Episode], now: datetime
) -> list[Episode]:
    """Old periods that newly breach: closed episodes, told to nobody. `past` is in the order of the periods.

    Periods that lie within an episode that is known (stored, or one of `known`) are no news.
    """
    breaching = {one.instance for one in past if one.tier != "none"}
    if not breaching:
        return []
    spans = repository.episode_spans(connection, breaching)
    for episode in known.values():
        if episode.instance in breaching:
            spans.setdefault(episode.instance, []).append((episode.first_period, episode.last_period))
    found: dict[str, Episode] = {}
    running: dict[str, Episode] = {}
    for one in past:
        if one.tier == "none":
            running.pop(one.instance, None)
            continue
        if any(first <= one.period <= last for first, last in spans.get(one.instance, ())):
            continue
        run = running.get(one.instance)
        if run is None:
            key = episode_key(one.instance, one.period)
            run = Episode(
                key, one.instance, one.rule, one.period, one.period, now, now, HISTORY, one.tier, one.value, None
            )
        worse = RANK[one.tier] > RANK[run.worst_tier]
        running[one.instance] = found[run.key] = run._replace(
            last_period=one.period,
            worst_tier=one.tier if worse else run.worst_tier,
            worst_value=one.value if worse else run.worst_value,
        )
    return list(found.values())


def excess_of(value: Numbers, yellow: Numbers, red: Numbers) -> Numbers:
    """How far beyond its yellow (else red) bound each value lies, as a share of the bound; 0 where there is none."""
    bound = np.where(np.isnan(yellow), red, yellow)
    beyond: Numbers = np.abs(value - bound) / np.where(bound == 0, 1.0, np.abs(bound))
    return np.nan_to_num(beyond, nan=0.0)


def _excess(instances: InstanceColumns, slots: Indices) -> Numbers:
    return excess_of(instances.value[slots], instances.yellow_bound[slots], instances.red_bound[slots])


def touched_of(episodes: Episodes) -> Iterable[Episode]:
    """What of them is to be written."""
    return (episodes.by_key[key] for key in sorted(episodes.touched))
