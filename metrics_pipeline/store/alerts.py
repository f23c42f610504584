"""Instances, episodes and transitions: read and written in bulk, on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import chunks, insert_rows
from metrics_pipeline.store.records import Episode, Instance, ProcessedKey, Told, TransitionRow
from metrics_pipeline.store.tables import (
    alert_instances,
    episode_receivers,
    episodes,
    processed_evaluations,
    transitions,
)


def instances_of(connection: Connection, rules: Collection[str]) -> dict[str, Instance]:
    """All instances of these rules by key."""
    found: dict[str, Instance] = {}
    for some in chunks(rules):
        rows = connection.execute(sa.select(alert_instances).where(alert_instances.c.rule.in_(some)))
        found.update((row[0], Instance._make(row)) for row in rows)
    return found


def instances_by_key(connection: Connection, keys: Collection[str]) -> dict[str, Instance]:
    """The instances with these keys; absent ones are left out."""
    found: dict[str, Instance] = {}
    for some in chunks(keys):
        rows = connection.execute(sa.select(alert_instances).where(alert_instances.c.key.in_(some)))
        found.update((row[0], Instance._make(row)) for row in rows)
    return found


def firing_rules(connection: Connection) -> set[str]:
    """Rules that have an open episode."""
    query = sa.select(alert_instances.c.rule).where(alert_instances.c.episode.is_not(None)).distinct()
    return set(connection.execute(query).scalars())


def save_instances(connection: Connection, changed: Iterable[Instance]) -> None:
    """Insert or replace instances by key."""
    insert_rows(connection, alert_instances, changed, replace=True)


def episodes_by_key(connection: Connection, keys: Collection[str]) -> dict[str, Episode]:
    """The episodes with these keys; absent ones are left out."""
    found: dict[str, Episode] = {}
    for some in chunks(keys):
        rows = connection.execute(sa.select(episodes).where(episodes.c.key.in_(some)))
        found.update((row[0], Episode._make(row)) for row in rows)
    return found


def open_episodes(connection: Connection, rules: Collection[str]) -> dict[str, Episode]:
    """The open episodes of these rules by key."""
    found: dict[str, Episode] = {}
    for some in chunks(rules):
        query = sa.select(episodes).where(episodes.c.rule.in_(some), episodes.c.closed_at.is_(None))
        found.update((row[0], Episode._make(row)) for row in connection.execute(query))
    return found


def episode_spans(connection: Connection, instances: Collection[str]) -> dict[str, list[tuple[datetime, datetime]]]:
    """First and last breaching period of every episode of these instances."""
    spans: dict[str, list[tuple[datetime, datetime]]] = {}
    columns = (episodes.c.instance, episodes.c.first_period, episodes.c.last_period)
    for some in chunks(instances):
        for row in connection.execute(sa.select(*columns).where(episodes.c.instance.in_(some))):
            spans.setdefault(row[0], []).append((row[1], row[2]))
    return spans


def save_episodes(connection: Connection, changed: Iterable[Episode]) -> None:
    """Insert or replace episodes by key."""
    insert_rows(connection, episodes, changed, replace=True)


def told_of(connection: Connection, episode_keys: Collection[str]) -> dict[tuple[str, str], Told]:
    """What receivers know of these episodes, by (episode, receiver)."""
    found: dict[tuple[str, str], Told] = {}
    for some in chunks(episode_keys):
        rows = connection.execute(sa.select(episode_receivers).where(episode_receivers.c.episode.in_(some)))
        found.update(((row[0], row[1]), Told._make(row)) for row in rows)
    return found


def told_open(connection: Connection, rules: Collection[str]) -> dict[tuple[str, str], Told]:
    """What receivers know of the open episodes of these rules, by (episode, receiver)."""
    found: dict[tuple[str, str], Told] = {}
    for some in chunks(rules):
        query = (
            sa.select(episode_receivers)
            .join(episodes, episodes.c.key == episode_receivers.c.episode)
            .where(episodes.c.rule.in_(some), episodes.c.closed_at.is_(None))
        )
        found.update(((row[0], row[1]), Told._make(row)) for row in connection.execute(query))
    return found


def save_told(connection: Connection, changed: Iterable[Told]) -> None:
    """Insert or replace what receivers know, by episode and receiver."""
    insert_rows(connection, episode_receivers, changed, replace=True)


def append_transitions(connection: Connection, rows: Iterable[TransitionRow]) -> None:
    """Append to the history of states."""
    insert_rows(connection, transitions, rows)


def already_processed(connection: Connection, keys: Collection[ProcessedKey]) -> set[ProcessedKey]:
    """Those of the keys whose verdicts were applied before."""
    table = processed_evaluations
    wanted = set(keys)
    found: set[ProcessedKey] = set()
    columns = [table.c[name] for name in ProcessedKey._fields]
    versions = sorted({key.data_version for key in wanted})
    rules = sorted({key.rule for key in wanted})
    for some in chunks(rules):
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
