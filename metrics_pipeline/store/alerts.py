"""Instances, episodes and transitions: read and written in bulk, on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from metrics_pipeline.store.records import Episode, Instance, ProcessedKey, Told, TransitionRow
from metrics_pipeline.store.tables import (
    alert_instances,
    episode_receivers,
    episodes,
    processed_evaluations,
    transitions,
)

KEYS_PER_QUERY = 5_000
"""Bound values of one IN list: below the limits of SQLite (32,766) and PostgreSQL (65,535)."""

T = TypeVar("T")


def instances_of(connection: Connection, rules: Collection[str]) -> dict[str, Instance]:
    """All instances of these rules by key."""
    found: dict[str, Instance] = {}
    for some in _chunks(rules):
        rows = connection.execute(sa.select(alert_instances).where(alert_instances.c.rule.in_(some)))
        found.update((row[0], Instance._make(row)) for row in rows)
    return found


def instances_by_key(connection: Connection, keys: Collection[str]) -> dict[str, Instance]:
    """The instances with these keys; absent ones are left out."""
    found: dict[str, Instance] = {}
    for some in _chunks(keys):
        rows = connection.execute(sa.select(alert_instances).where(alert_instances.c.key.in_(some)))
        found.update((row[0], Instance._make(row)) for row in rows)
    return found


def firing_rules(connection: Connection) -> set[str]:
    """Rules that have an open episode."""
    query = sa.select(alert_instances.c.rule).where(alert_instances.c.episode.is_not(None)).distinct()
    return set(connection.execute(query).scalars())


def save_instances(connection: Connection, changed: Iterable[Instance]) -> None:
    """Insert or replace instances by key."""
    _upsert(connection, alert_instances, changed)


def episodes_by_key(connection: Connection, keys: Collection[str]) -> dict[str, Episode]:
    """The episodes with these keys; absent ones are left out."""
    found: dict[str, Episode] = {}
    for some in _chunks(keys):
        rows = connection.execute(sa.select(episodes).where(episodes.c.key.in_(some)))
        found.update((row[0], Episode._make(row)) for row in rows)
    return found


def open_episodes(connection: Connection, rules: Collection[str]) -> dict[str, Episode]:
    """The open episodes of these rules by key."""
    found: dict[str, Episode] = {}
    for some in _chunks(rules):
        query = sa.select(episodes).where(episodes.c.rule.in_(some), episodes.c.closed_at.is_(None))
        found.update((row[0], Episode._make(row)) for row in connection.execute(query))
    return found


def episode_spans(connection: Connection, instances: Collection[str]) -> dict[str, list[tuple[datetime, datetime]]]:
    """First and last breaching period of every episode of these instances."""
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    columns = (episodes.c.instance, episodes.c.first_period, episodes.c.last_period)
    for some in _chunks(instances):
        for row in connection.execute(sa.select(*columns).where(episodes.c.instance.in_(some))):
            spans.setdefault(row[0], []).append((row[1], row[2]))
    return spans


def save_episodes(connection: Connection, changed: Iterable[Episode]) -> None:
    """Insert or replace episodes by key."""
    _upsert(connection, episodes, changed)


def told_of(connection: Connection, episode_keys: Collection[str]) -> dict[tuple[str, str], Told]:
    """What receivers know of these episodes, by (episode, receiver)."""
    found: dict[tuple[str, str], Told] = {}
    for some in _chunks(episode_keys):
        rows = connection.execute(sa.select(episode_receivers).where(episode_receivers.c.episode.in_(some)))
        found.update(((row[0], row[1]), Told._make(row)) for row in rows)
    return found


def told_open(connection: Connection, rules: Collection[str]) -> dict[tuple[str, str], Told]:
    """What receivers know of the open episodes of these rules, by (episode, receiver)."""
    found: dict[tuple[str, str], Told] = {}
    for some in _chunks(rules):
        query = (
            sa.select(episode_receivers)
            .join(episodes, episodes.c.key == episode_receivers.c.episode)
            .where(episodes.c.rule.in_(some), episodes.c.closed_at.is_(None))
        )
        found.update(((row[0], row[1]), Told._make(row)) for row in connection.execute(query))
    return found


def save_told(connection: Connection, changed: Iterable[Told]) -> None:
    """Insert or replace what receivers know, by episode and receiver."""
    _upsert(connection, episode_receivers, changed)


def append_transitions(connection: Connection, rows: Iterable[TransitionRow]) -> None:
    """Append to the history of states."""
    if values := [row._asdict() for row in rows]:
        connection.execute(sa.insert(transitions), values)


def already_processed(connection: Connection, keys: Collection[ProcessedKey]) -> set[ProcessedKey]:
    """Those of the keys whose verdicts were applied before."""
    table = processed_evaluations
    wanted = set(keys)
    found: set[ProcessedKey] = set()
    columns = [table.c[name] for name in ProcessedKey._fields]
    versions = sorted({key.data_version for key in wanted})
    rules = sorted({key.rule for key in wanted})
    for some in _chunks(rules):
        query = sa.select(*columns).where(table.c.rule.in_(some), table.c.data_version.in_(versions))
        found.update(key for row in connection.execute(query) if (key := ProcessedKey._make(row)) in wanted)
    return found


def mark_processed(connection: Connection, counts: Mapping[ProcessedKey, int], *, run_id: str, now: datetime) -> None:
    """Record that the verdicts of these keys are applied."""
    if counts:
        connection.execute(
            sa.insert(processed_evaluations),
            [
                {**key._asdict(), "run_id": run_id, "verdicts": count, "processed_at": now}
                for key, count in counts.items()
            ],
        )


def _upsert(connection: Connection, table: sa.Table, rows: Iterable[Any]) -> None:
    values = [row._asdict() for row in rows]
    if not values:
        return
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
    keys = [column.name for column in table.primary_key]
    replaced = {column.name: insert.excluded[column.name] for column in table.columns if column.name not in keys}
    connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=replaced), values)


def _chunks(items: Collection[T], size: int = KEYS_PER_QUERY) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
