"""Work orders, their events, and feedback: read and written on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import among, chunks, write_columns
from metrics_pipeline.store.records import Feedback, OrderEvent, WorkOrder
from metrics_pipeline.store.tables import episode_feedback, work_order_episodes, work_order_events, work_orders

_NEW = ("episode", "instance", "rule", "tier", "state", "assignee", "opened_at", "due_at", "links", "slices")


def by_episode(connection: Connection, episode_keys: Collection[str]) -> dict[str, WorkOrder]:
    """The orders of these episodes, own and joint ones; those without are left out."""
    links: dict[str, str] = {}
    table = work_order_episodes.c
    is_any_joint = connection.execute(sa.select(table.episode).limit(1)).one_or_none() is not None
    for some in chunks(episode_keys) if is_any_joint else ():
        rows = connection.execute(
            sa.select(table.episode, table.work_order).where(among(connection, table.episode, some))
        )
        links.update((row[0], row[1]) for row in rows)
    own = _own(connection, {*(key for key in episode_keys if key not in links), *links.values()})
    orders = ((episode, own.get(links.get(episode, episode))) for episode in episode_keys)
    return {episode: order for episode, order in orders if order is not None}


def _own(connection: Connection, episode_keys: Collection[str]) -> dict[str, WorkOrder]:
    found: dict[str, WorkOrder] = {}
    for some in chunks(episode_keys):
        rows = connection.execute(sa.select(work_orders).where(among(connection, work_orders.c.episode, some)))
        found.update((row.episode, WorkOrder._make(row)) for row in rows)
    return found


def open_joint(connection: Connection, rules: Collection[str]) -> list[WorkOrder]:
    """The orders of these rules that are about many episodes and not closed."""
    found: list[WorkOrder] = []
    for some in chunks(rules):
        query = sa.select(work_orders).where(work_orders.c.rule.in_(some), work_orders.c.slices > 1)
        rows = connection.execute(query.where(work_orders.c.state != "closed").order_by(work_orders.c.id))
        found += [WorkOrder._make(row) for row in rows]
    return found


def join(connection: Connection, links: Mapping[str, str]) -> None:
    """Link episodes to orders: episode → the order's own episode."""
    if links:
        columns = {"episode": list(links), "work_order": list(links.values())}
        write_columns(connection, work_order_episodes, columns, ignore=True)


def joined(connection: Connection, order: str) -> list[str]:
    """The other episodes of an order, by name."""
    table = work_order_episodes.c
    query = sa.select(table.episode).where(table.work_order == order).order_by(table.episode)
    return list(connection.execute(query).scalars())


def one(connection: Connection, where: sa.ColumnElement[bool]) -> WorkOrder | None:
    """The order for which this holds, or None."""
    row = connection.execute(sa.select(work_orders).where(where)).one_or_none()
    return None if row is None else WorkOrder._make(row)


def orders(
    connection: Connection, *, states: Sequence[str], rule: str | None, assignee: str | None, limit: int
) -> list[WorkOrder]:
    """Orders in these states, the one that is due first at the top."""
    query = sa.select(work_orders).where(work_orders.c.state.in_(states))
    for column, wanted in ((work_orders.c.rule, rule), (work_orders.c.assignee, assignee)):
        if wanted is not None:
            query = query.where(column == wanted)
    rows = connection.execute(query.order_by(work_orders.c.due_at, work_orders.c.id).limit(limit))
    return [WorkOrder._make(row) for row in rows]


def insert(connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Open orders: values of episode, instance, rule, tier, state, assignee, opened_at, due_at, links, slices. Known ones stay."""
    if rows:
        columns = dict(zip(_NEW, map(list, zip(*rows, strict=True)), strict=True))
        write_columns(connection, work_orders, columns, ignore=True)


def update(connection: Connection, episode: str, values: Mapping[str, Any]) -> None:
    """Change the order of an episode."""
    connection.execute(sa.update(work_orders).where(work_orders.c.episode == episode).values(**values))


def add_event(connection: Connection, event: OrderEvent) -> None:
    """Append to what happened to an order."""
    connection.execute(sa.insert(work_order_events).values(**event._asdict()))


def events_of(connection: Connection, episode: str) -> list[OrderEvent]:
    """What happened to the order of an episode, oldest first."""
    table = work_order_events
    columns = [table.c[name] for name in OrderEvent._fields]
    rows = connection.execute(sa.select(*columns).where(table.c.episode == episode).order_by(table.c.id))
    return [OrderEvent._make(row) for row in rows]


def add_feedback(connection: Connection, given: Feedback) -> None:
    """Append what somebody thinks of an alert."""
    connection.execute(sa.insert(episode_feedback).values(**given._asdict()))


def feedback(connection: Connection, *, rule: str | None = None, episode: str | None = None) -> list[Feedback]:
    """What people said, oldest first."""
    table = episode_feedback
    query = sa.select(*(table.c[name] for name in Feedback._fields)).order_by(table.c.id)
    for column, wanted in ((table.c.rule, rule), (table.c.episode, episode)):
        if wanted is not None:
            query = query.where(column == wanted)
    return [Feedback._make(row) for row in connection.execute(query)]
