"""Instances, episodes and transitions: read and written in bulk, on the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import chunks, insert_rows, read_rows
from metrics_pipeline.store.records import Episode, Instance, ProcessedKey, ProcessedRow, TransitionRow
from metrics_pipeline.store.tables import (
    alert_instances,
    episodes,
    processed_evaluations,
    transitions,
)


def open_instances(connection: Connection, rules: Collection[str]) -> list[Instance]:
    """The instances of these rules that have an open episode."""
    found: list[Instance] = []
    for some in chunks(rules):
        query = sa.select(alert_instances).where(
            alert_instances.c.rule.in_(some), alert_instances.c.episode.is_not(None)
        )
        found += read_rows(connection, query, Instance._make)
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
        query = sa.select(episodes).where(episodes.c.key.in_(some))
        found.update((row.key, row) for row in read_rows(connection, query, Episode._make))
    return found


def open_episodes(connection: Connection, rules: Collection[str]) -> dict[str, Episode]:
    """The open episodes of these rules by key."""
    found: dict[str, Episode] = {}
    for some in chunks(rules):
        query = sa.select(episodes).where(episodes.c.rule.in_(some), episodes.c.closed_at.is_(None))
        found.update((row.key, row) for row in read_rows(connection, query, Episode._make))
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


def append_transitions(connection: Connection, rows: Iterable[TransitionRow]) -> None:
    """Append to the history of states."""
    insert_rows(connection, transitions, rows)


def already_processed(connection: Connection, keys: Collection[ProcessedKey]) -> dict[ProcessedKey, frozenset[str]]:
    """Those of the keys whose verdicts were applied before, and the instances that could not be judged then."""
    table = processed_evaluations
    wanted = set(keys)
    found: dict[ProcessedKey, frozenset[str]] = {}
    columns = [table.c[name] for name in (*ProcessedKey._fields, "unjudged")]
    versions = sorted({key.data_version for key in wanted})
    rules = sorted({key.rule for key in wanted})
    for some in chunks(rules):
        query = sa.select(*columns).where(table.c.rule.in_(some), table.c.data_version.in_(versions))
        for row in connection.execute(query):
            key = ProcessedKey._make(row[:-1])
            if key in wanted:
                found[key] = frozenset(json.loads(row.unjudged)) if row.unjudged else frozenset()
    return found


def mark_processed(
    connection: Connection, applied: Mapping[ProcessedKey, tuple[int, Collection[str]]], *, run_id: str, now: datetime
) -> None:
    """Record that the verdicts of these keys are applied: how many there were, and the instances still to be judged."""
    rows = [
        ProcessedRow(*key, run_id, count, now, json.dumps(sorted(unjudged), ensure_ascii=False) if unjudged else "")
        for key, (count, unjudged) in applied.items()
    ]
    insert_rows(connection, processed_evaluations, rows, replace=True)
