"""Who is to know of what: the episodes of a tick → pairs of episode and receiver, in groups.

By level, not by edge: every alert that fires in the newest due period is looked up in the routes again, so a new receiver hears
of what still fires, and nothing that was once suppressed stays so. What was told keeps its group until its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.holds import Labeller
from metrics_pipeline.alerts.incidents import GROUP, assign_incidents, close_incidents
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.tick import Tick
from metrics_pipeline.routing.decide import Destination, Routing
from metrics_pipeline.routing.labels import SEVERITY
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import NEVER_TOLD, Group, Pair
from metrics_pipeline.store.records import Instance


@dataclass(frozen=True)
class Addressed:
    """What a tick made of the pairs."""

    groups: frozenset[str]
    """Groups in which something may have to be told."""
    eased: frozenset[str]
    """Alerts that went from red to yellow."""


def address(connection: Connection, tick: Tick, routing: Routing, cards: Mapping[str, RuleCard]) -> Addressed:
    """Bring the pairs of a tick's episodes to what the routes say now; the rows are written."""
    eased = frozenset(row.instance for row in tick.transitions if row.reason == "de_escalate")
    due = [
        one
        for one in tick.instances.values()
        if one.state == "firing" and one.episode is not None and one.key in tick.due
    ]
    concerned = {one.episode for one in due if one.episode} | tick.closed | tick.opened
    concerned |= {one.episode for key in eased if (one := tick.instances[key]).episode}
    book = _Book(now=tick.now)
    for pair in rows.pairs_of_episodes(connection, concerned):
        if pair.episode in tick.opened and pair.end_notification is not None:
            continue  # it ended, the end was told, and a restatement begins it again: it is told anew
        book.pairs.setdefault(pair.episode, {})[pair.receiver] = pair
    for key in eased:  # told at red, now yellow: the next red is news again
        instance = tick.instances[key]
        for pair in list(book.pairs.get(instance.episode or "", {}).values()):
            if pair.tier == "red" and pair.end_notification is None:
                book.put(pair._replace(tier=instance.tier, wanted=instance.tier))
    incidents: Mapping[str, str] = {}
    if routing.incidents and due:
        incidents = assign_incidents(connection, rows.firing(connection), cards, now=tick.now)
    destinations = _Destinations(routing, cards, tick.now)
    for instance in due:
        _to_receivers(book, instance, destinations.of(instance), incidents)
    rows.save_pairs(connection, book.changed.values())
    groups = {pair.group_key for some in book.pairs.values() for pair in some.values() if pair.end_notification is None}
    _open_groups(connection, groups, book.labels, now=tick.now)
    rows.delete_marks(connection, tick.closed)  # an acknowledgement dies with its episode
    if tick.closed:
        close_incidents(connection, tick.closed, now=tick.now)
    rows.delete_flapping(connection, [one.key for one in tick.instances.values() if not one.is_flapping])
    return Addressed(frozenset(groups), eased)


@dataclass
class _Book:
    """The pairs of a tick, and those that change."""

    now: datetime
    pairs: dict[str, dict[str, Pair]] = field(default_factory=dict)
    changed: dict[tuple[str, str], Pair] = field(default_factory=dict)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Group → its labels."""

    def put(self, pair: Pair) -> None:
        self.pairs.setdefault(pair.episode, {})[pair.receiver] = pair
        self.changed[pair.episode, pair.receiver] = pair


class _Destinations:
    """Where alerts go; those that the routes cannot tell apart are looked up once."""

    def __init__(self, routing: Routing, cards: Mapping[str, RuleCard], now: datetime) -> None:
        self._routing = routing
        self._labeller = Labeller(cards, routing)
        self._names = routing.routing_labels
        self._now = now
        self._known: dict[Any, list[Destination]] = {}

    def of(self, instance: Instance) -> list[Destination]:
        labels = self._labeller.labels(
            instance.rule, instance.grain, instance.dimension, instance.member, instance.tier
        )
        if self._names is None:
            return self._routing.decide(labels, self._now)
        key = tuple((name, labels[name]) for name in labels if name in self._names)
        if key not in self._known:
            self._known[key] = self._routing.decide(labels, self._now)
        return self._known[key]


def _to_receivers(
    book: _Book, instance: Instance, destinations: Iterable[Destination], incidents: Mapping[str, str]
) -> None:
    episode = instance.episode
    assert episode is not None
    mine = book.pairs.get(episode, {})
    incident = incidents.get(episode)
    wanted: set[str] = set()
    for one in destinations:
        group = f"{GROUP}{incident}" if incident is not None else one.group_key
        book.labels.setdefault(group, one.group_labels if incident is None else {"incident": incident})
        for recipient in one.recipients:
            if recipient.key in wanted:
                continue
            wanted.add(recipient.key)
            before = mine.get(recipient.key)
            pair = Pair(
                episode=episode,
                receiver=recipient.key,
                tier="none",
                notification="",
                end_notification=None,
                group_key=group,
                route=one.route,
                receiver_name=one.receiver,
                wanted=instance.tier,
                held="",
                held_until=None,
            )
            if before is not None:
                pair = before._replace(
                    route=one.route,
                    receiver_name=one.receiver,
                    wanted=instance.tier,
                    group_key=group if before.tier == "none" else before.group_key,
                    end_notification=None if before.end_notification == NEVER_TOLD else before.end_notification,
                )
            if pair != before:
                book.put(pair)
    for receiver, pair in list(mine.items()):
        if receiver in wanted or pair.end_notification is not None:
            continue
        if pair.tier == "none":  # the routes lead elsewhere before anything was said
            book.put(pair._replace(end_notification=NEVER_TOLD))
        elif pair.wanted != pair.tier:
            book.put(pair._replace(wanted=pair.tier))


def _open_groups(
    connection: Connection, keys: set[str], labels: Mapping[str, Mapping[str, str]], *, now: datetime
) -> None:
    known = rows.groups_by_key(connection, keys)
    rows.save_groups(connection, [new_group(key, labels.get(key, {}), now) for key in sorted(keys) if key not in known])


def new_group(key: str, labels: Mapping[str, str], now: datetime) -> Group:
    """A group that nobody was told of yet."""
    return Group(
        key=key,
        labels=json.dumps({name: value for name, value in labels.items() if name != SEVERITY}, ensure_ascii=False),
        opened_at=now,
        sent_at=None,
        repeat_at=None,
        red_since=None,
        escalated=0,
        is_inhibited=False,
        wake_at=None,
    )
