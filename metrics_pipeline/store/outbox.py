"""The outbox: notifications wait here, in the same transaction as the decision, until a channel took them.

A sender leases one row, sends, then records. Rows of one receiver and group leave in their sequence, so the end of an
alert never overtakes its beginning; a dead row does not block those behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.records import DeliveryRow, NewNotification, OutboxRow
from metrics_pipeline.store.tables import deliveries, outbox

WAITING = ("queued", "leased")
FORWARDED = " → "
"""In keys and groups of what was forwarded: between the one who did not get it and the one who stands in."""


def enqueue(connection: Connection, rows: Iterable[NewNotification]) -> None:
    """Queue notifications. Their keys must be new: a key that exists is an error of the caller."""
    values = [{**row._asdict(), "state": "queued", "next_attempt_at": row.created_at} for row in rows]
    if values:
        connection.execute(sa.insert(outbox), values)


def last_sequences(connection: Connection, groups: Collection[str]) -> dict[tuple[str, str], int]:
    """The highest sequence number so far, by (receiver, group)."""
    query = (
        sa.select(outbox.c.receiver, outbox.c.group_key, sa.func.max(outbox.c.sequence))
        .where(outbox.c.group_key.in_(list(groups)))
        .group_by(outbox.c.receiver, outbox.c.group_key)
    )
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def lease_next(
    connection: Connection, *, channels: Collection[str], owner: str, now: datetime, until: datetime
) -> OutboxRow | None:
    """Take the most urgent due row of these channels (red first, then the oldest), or None.

    Due: queued and its time has come, or leased by a sender that did not come back; and first of its receiver and group.
    """
    earlier = outbox.alias("earlier")
    due = sa.or_(
        sa.and_(outbox.c.state == "queued", outbox.c.next_attempt_at <= now),
        sa.and_(outbox.c.state == "leased", outbox.c.lease_until <= now),
    )
    overtakes = sa.exists().where(
        earlier.c.receiver == outbox.c.receiver,
        earlier.c.group_key == outbox.c.group_key,
        earlier.c.sequence < outbox.c.sequence,
        earlier.c.state.in_(WAITING),
    )
    first = (
        sa.select(outbox.c.id)
        .where(due, ~overtakes, _of_channels(channels))
        .order_by(sa.case((outbox.c.tier == "red", 0), else_=1), outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == first.scalar_subquery())
        .values(state="leased", lease_owner=owner, lease_until=until, attempts=outbox.c.attempts + 1)
        .returning(outbox)
    ).one_or_none()
    return None if row is None else OutboxRow._make(row)


def lease_owners(connection: Connection) -> set[str]:
    """Who holds leases."""
    return set(connection.execute(sa.select(outbox.c.lease_owner).where(outbox.c.state == "leased")).scalars())


def release(connection: Connection, owners: Collection[str]) -> None:
    """Put back what these senders had leased, to be sent again."""
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.state == "leased", outbox.c.lease_owner.in_(list(owners)))
        .values(state="queued", lease_owner=None, lease_until=None)
    )


def record_sent(connection: Connection, row: OutboxRow, *, answer: str, now: datetime) -> bool:
    """Mark a leased row as sent and record the channel's answer; False when the lease was lost meanwhile."""
    values = {"state": "sent", "sent_at": now, "last_error": None}
    return _record(connection, row, values, outcome="sent", answer=answer, now=now)


def record_retry(connection: Connection, row: OutboxRow, *, error: str, at: datetime, now: datetime) -> bool:
    """Put a leased row back, to be tried again from `at`; False when the lease was lost meanwhile."""
    values = {"state": "queued", "next_attempt_at": at, "last_error": error}
    return _record(connection, row, values, outcome="retry", answer=error, now=now)


def record_dead(connection: Connection, row: OutboxRow, *, error: str, now: datetime) -> bool:
    """Give a leased row up for good; False when the lease was lost meanwhile."""
    return _record(connection, row, {"state": "dead", "last_error": error}, outcome="dead", answer=error, now=now)


def forward(
    connection: Connection, row: OutboxRow, payload: dict[str, Any], receivers: Collection[str], *, now: datetime
) -> None:
    """Queue a notification that did not get through, for those who stand in; what was forwarded is not forwarded again."""
    if FORWARDED in row.group_key:
        return
    enqueue(
        connection,
        [
            NewNotification(
                key=f"{row.key}{FORWARDED}{receiver}",
                receiver=receiver,
                group_key=forwarded_group(row),
                sequence=row.sequence,
                reason=row.reason,
                tier=row.tier,
                payload=payload,
                created_at=now,
                rule=row.rule,
            )
            for receiver in receivers
            if receiver != row.receiver
        ],
    )


def forwarded_group(row: OutboxRow) -> str:
    """The group in which those who stand in for this row's receiver are told."""
    return f"{row.group_key}{FORWARDED}{row.receiver}"


def forwarded_to(connection: Connection, row: OutboxRow) -> set[str]:
    """Who stands in for this row's receiver and was told of a beginning that has no end yet."""
    group = forwarded_group(row)
    newest = sa.select(sa.func.max(outbox.c.id)).where(outbox.c.group_key == group).group_by(outbox.c.receiver)
    query = sa.select(outbox.c.receiver).where(outbox.c.id.in_(newest), outbox.c.reason != "all_resolved")
    return set(connection.execute(query).scalars())


def postpone(connection: Connection, receivers: str, *, until: datetime) -> None:
    """Let nothing queued for a channel (its name) or a receiver leave before `until`: the other side takes nothing sooner."""
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.state == "queued", outbox.c.next_attempt_at < until, _of_channels([receivers]))
        .values(next_attempt_at=until)
    )


def revive(connection: Connection, key: str, *, now: datetime) -> bool:
    """Queue a dead row again (after the cause was mended); False when there is no such dead row."""
    changed = connection.execute(
        sa.update(outbox)
        .where(outbox.c.key == key, outbox.c.state == "dead")
        .values(state="queued", next_attempt_at=now, attempts=0)
        .returning(outbox.c.id)
    )
    return changed.one_or_none() is not None


def waiting_count(connection: Connection, *, now: datetime | None = None) -> int:
    """Rows that still have to be sent; with `now`, those whose time has come."""
    query = sa.select(sa.func.count()).select_from(outbox).where(outbox.c.state.in_(WAITING))
    if now is not None:
        query = query.where(
            sa.or_(
                sa.and_(outbox.c.state == "queued", outbox.c.next_attempt_at <= now),
                sa.and_(outbox.c.state == "leased", outbox.c.lease_until <= now),
            )
        )
    return connection.execute(query).scalar_one()


def _of_channels(channels: Collection[str]) -> sa.ColumnElement[bool]:
    terms = [
        term
        for name in channels
        for term in (outbox.c.receiver == name, outbox.c.receiver.startswith(f"{name}:", autoescape=True))
    ]
    return sa.or_(sa.false(), *terms)


def _record(
    connection: Connection, row: OutboxRow, values: dict[str, object], *, outcome: str, answer: str, now: datetime
) -> bool:
    mine = connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == row.id, outbox.c.state == "leased", outbox.c.lease_owner == row.lease_owner)
        .values(**values, lease_owner=None, lease_until=None)
        .returning(outbox.c.id)
    ).one_or_none()
    attempt = DeliveryRow(row.key, row.receiver, row.attempts, now, outcome, answer)
    connection.execute(sa.insert(deliveries).values(**attempt._asdict()))
    return mine is not None


def open_groups(connection: Connection, *, prefix: str) -> set[str]:
    """Groups with this prefix whose newest row begins something that has no end yet."""
    newest = sa.select(sa.func.max(outbox.c.id)).where(outbox.c.group_key.startswith(prefix, autoescape=True))
    newest = newest.group_by(outbox.c.receiver, outbox.c.group_key)
    rows = connection.execute(
        sa.select(outbox.c.group_key).where(outbox.c.id.in_(newest), outbox.c.reason != "all_resolved")
    )
    return set(rows.scalars())
