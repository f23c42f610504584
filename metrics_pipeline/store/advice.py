"""What was advised about episodes, what was done, and what episodes are compared by: on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import among, insert_rows
from metrics_pipeline.store.tables import episode_actions, episode_advice, episode_feedback, episodes


class AdviceRow(NamedTuple):
    """One episode: what it is compared by, and what was advised."""

    episode: str
    rule: str
    metric: str
    grain: str
    direction: str
    """up, down or ''."""
    change: float | None
    """Relative to what was expected."""
    onset_days: float | None
    """From the first day of the change to the first breaching period."""
    elements: list[str]
    """`dimension=member` of its slice and of its causes."""
    advice: list[dict[str, Any]]
    similar: list[dict[str, Any]]
    """Past episodes that resemble it, the most similar first: episode, similarity, parts of the distance."""
    data_version: str
    at: datetime


class ActionRow(NamedTuple):
    """That somebody did something about an episode."""

    episode: str
    rule: str
    action: str
    """Id of a playbook entry, or a word of the person's own."""
    who: str
    at: datetime
    note: str
    helped: bool | None
    """What the person said of it; None: they said nothing."""


class PastRow(NamedTuple):
    """A past episode as far as it can be compared, and how it ended."""

    episode: str
    rule: str
    instance: str
    first_period: datetime
    last_period: datetime
    closed_at: datetime | None
    close_reason: str | None
    metric: str | None
    direction: str | None
    change: float | None
    onset_days: float | None
    elements: list[str] | None


def save_advice(connection: Connection, rows: Iterable[AdviceRow]) -> None:
    """Insert or replace by episode."""
    insert_rows(connection, episode_advice, rows, replace=True)


def advice_of(connection: Connection, keys: Collection[str]) -> dict[str, AdviceRow]:
    """What was advised about these episodes; those without are left out."""
    if not keys:
        return {}
    query = sa.select(episode_advice).where(among(connection, episode_advice.c.episode, keys))
    return {row.episode: AdviceRow._make(row) for row in connection.execute(query)}


def add_action(connection: Connection, row: ActionRow) -> None:
    """Append what somebody did; the same action on the same episode is replaced by the newest word on it."""
    table = episode_actions
    connection.execute(
        sa.delete(table).where(table.c.episode == row.episode, table.c.action == row.action, table.c.who == row.who)
    )
    connection.execute(sa.insert(table).values(**row._asdict()))


def actions_of(connection: Connection, keys: Collection[str]) -> list[ActionRow]:
    """What was done about these episodes, oldest first."""
    if not keys:
        return []
    table = episode_actions
    columns = [table.c[name] for name in ActionRow._fields]
    query = sa.select(*columns).where(among(connection, table.c.episode, keys)).order_by(table.c.id)
    return [ActionRow._make(row) for row in connection.execute(query)]


def past_episodes(connection: Connection, rules: Collection[str], *, before: datetime) -> list[PastRow]:
    """The episodes of these rules that began in a period before this one (shop-local), the newest first."""
    if not rules:
        return []
    kept = episode_advice.c
    query = (
        sa.select(
            episodes.c.key,
            episodes.c.rule,
            episodes.c.instance,
            episodes.c.first_period,
            episodes.c.last_period,
            episodes.c.closed_at,
            episodes.c.close_reason,
            kept.metric,
            kept.direction,
            kept.change,
            kept.onset_days,
            kept.elements,
        )
        .select_from(episodes.outerjoin(episode_advice, kept.episode == episodes.c.key))
        .where(among(connection, episodes.c.rule, rules), episodes.c.first_period < before)
        .order_by(episodes.c.first_period.desc(), episodes.c.key)
    )
    return [PastRow._make(row) for row in connection.execute(query)]


def starts_of(connection: Connection, instances: Collection[str]) -> dict[str, list[datetime]]:
    """When episodes of these instances were opened, oldest first."""
    found: dict[str, list[datetime]] = {}
    if not instances:
        return found
    columns = (episodes.c.instance, episodes.c.opened_at)
    query = sa.select(*columns).where(among(connection, episodes.c.instance, instances))
    for row in connection.execute(query.order_by(episodes.c.opened_at)):
        found.setdefault(row[0], []).append(row[1])
    return found


def words_on(connection: Connection, keys: Collection[str]) -> dict[str, bool]:
    """Episode → whether people found its alert useful, by their newest word; those nobody spoke of are left out."""
    if not keys:
        return {}
    table = episode_feedback
    query = sa.select(table.c.episode, table.c.is_useful).where(among(connection, table.c.episode, keys))
    rows = connection.execute(query.order_by(table.c.id))
    return {row[0]: bool(row[1]) for row in rows}
