"""The outbox: notifications wait here, in the same transaction as the decision, until a channel took them.

A sender leases one row, sends, then records. Rows of one receiver and group leave in their sequence, and rows that tell a
receiver of the same alert leave in the order in which they were queued, whatever their groups (a digest has its own), so
the end of an alert never overtakes its beginning. A dead row does not block those behind it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import chunks, write_columns
from metrics_pipeline.store.records import FORWARDED, DeliveryRow, NewNotification, OutboxRow, Told
from metrics_pipeline.store.tables import deliveries, outbox, outbox_follows

WAITING = ("queued", "leased")


def enqueue(connection: Connection, rows: Iterable[NewNotification]) -> None:
    """Queue notifications. Their keys must be new: a key that exists is an error of the caller."""
    listed = list(rows)
    values = [{**row._asdict(), "state": "queued", "next_attempt_at": row.created_at} for row in listed]
    if values:
        waits = _waits(connection, listed)
        connection.execute(sa.insert(outbox), values)
        _save_waits(connection, waits)


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

    Due: queued and its time has come, or leased by a sender that did not come back; and nothing waits that its receiver
    has to be told before it.
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
    before = outbox.alias("before")
    follows = sa.exists().where(
        outbox_follows.c.notification == outbox.c.key,
        before.c.key == outbox_follows.c.follows,
        before.c.state.in_(WAITING),
    )
    first = (
        sa.select(outbox.c.id)
        .where(due, ~overtakes, ~follows, _of_channels(channels))
        .order_by(sa.case((outbox.c.tier == "red", 0), else_=1), outbox.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == first.scalar_subquery())
        .values(
            state="leased",
            lease_owner=owner,
            lease_until=until,
            attempts=outbox.c.attempts + 1,
            maybe_sent=sa.or_(outbox.c.maybe_sent, outbox.c.state == "leased"),
        )
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
        .values(state="queued", lease_owner=None, lease_until=None, maybe_sent=True)
    )


def record_sent(connection: Connection, row: OutboxRow, *, answer: str, now: datetime) -> bool:
    """Mark a leased row as sent and record the channel's answer; False when the lease was lost meanwhile."""
    values: dict[str, object] = {"state": "sent", "sent_at": now, "last_error": None}
    if not row.is_forwarded:
        values["about"] = sa.null()  # what stands in for another keeps it until the end: `forwarded_to`
    return _record(connection, row, values, outcome="sent", answer=answer, now=now)


def record_retry(
    connection: Connection, row: OutboxRow, *, error: str, at: datetime, now: datetime, refused: bool = False
) -> bool:
    """Put a leased row back, to be tried again from `at`; False when the lease was lost meanwhile.

    `refused`: the other side said, or never heard, enough to be sure that it has not got the message.
    """
    values = {
        "state": "queued",
        "next_attempt_at": at,
        "last_error": error,
        "maybe_sent": row.maybe_sent or not refused,
    }
    return _record(connection, row, values, outcome="retry", answer=error, now=now)


def record_dead(connection: Connection, row: OutboxRow, *, error: str, now: datetime) -> bool:
    """Give a leased row up for good; False when the lease was lost meanwhile."""
    return _record(connection, row, {"state": "dead", "last_error": error}, outcome="dead", answer=error, now=now)


def forward(
    connection: Connection, row: OutboxRow, payload: dict[str, Any], receivers: Collection[str], *, now: datetime
) -> None:
    """Queue a notification that did not get through, for those who stand in; nothing is forwarded twice, or again."""
    if row.is_forwarded:
        return
    keys = {f"{row.key}{FORWARDED}{receiver}": receiver for receiver in receivers if receiver != row.receiver}
    known: set[str] = set(connection.execute(sa.select(outbox.c.key).where(outbox.c.key.in_(list(keys)))).scalars())
    enqueue(
        connection,
        [
            NewNotification(
                key=key,
                receiver=receiver,
                group_key=f"{row.group_key}{FORWARDED}{row.receiver}",
                sequence=row.sequence,
                reason=row.reason,
                tier=row.tier,
                payload=payload,
                created_at=now,
                rule=row.rule,
                about=row.about,
            )
            for key, receiver in keys.items()
            if key not in known
        ],
    )


def forwarded_to(connection: Connection, row: OutboxRow) -> set[str]:
    """Who stood in for this row's receiver when that was to be told of an alert which ends in this row."""
    ended = {one.episode for one in row.told if one.change == "end"}
    if not ended or row.is_forwarded:
        return set()
    stand_in = outbox.c.group_key.endswith(f"{FORWARDED}{row.receiver}", autoescape=True)
    query = sa.select(outbox.c.receiver, outbox.c.about).where(stand_in, outbox.c.about.is_not(sa.null()))
    found: set[str] = set()
    for other in connection.execute(query):
        told = [Told._make(one) for one in other.about]
        if any(one.change != "end" and one.episode in ended for one in told):
            found.add(other.receiver)
    return found


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
        .values(state="queued", next_attempt_at=now, attempts=0, maybe_sent=True)
        .returning(outbox.c.id)
    )
    return changed.one_or_none() is not None


def put_back(connection: Connection, row: OutboxRow) -> None:
    """Give up the lease of a row that was not sent after all; it counts as not tried."""
    connection.execute(
        sa.update(outbox)
        .where(outbox.c.id == row.id, outbox.c.state == "leased", outbox.c.lease_owner == row.lease_owner)
        .values(state="queued", lease_owner=None, lease_until=None, attempts=row.attempts - 1)
    )


class QueuedRow(NamedTuple):
    """A notification that no receiver has got, and what it is about."""

    key: str
    receiver: str
    group_key: str
    reason: str
    told: list[Told]


def recallable(connection: Connection) -> list[QueuedRow]:
    """What is queued about alerts and certainly has not arrived, oldest first; what was forwarded stays."""
    columns = (outbox.c.key, outbox.c.receiver, outbox.c.group_key, outbox.c.reason, outbox.c.about)
    query = sa.select(*columns).where(
        outbox.c.state == "queued",
        outbox.c.about.is_not(sa.null()),
        ~outbox.c.maybe_sent,
        ~outbox.c.group_key.contains(FORWARDED),
    )
    rows = connection.execute(query.order_by(outbox.c.id))
    return [QueuedRow(row[0], row[1], row[2], row[3], [Told._make(one) for one in row[4]]) for row in rows]


def recall(connection: Connection, key: str) -> bool:
    """Take a queued row back; False when a sender has it. What waited for it now waits for what it waited for."""
    mine = connection.execute(
        sa.update(outbox)
        .where(outbox.c.key == key, outbox.c.state == "queued", ~outbox.c.maybe_sent)
        .values(state="recalled", about=None)
        .returning(outbox.c.receiver, outbox.c.group_key, outbox.c.sequence)
    ).one_or_none()
    if mine is None:
        return False
    table = outbox_follows.c
    before: set[str] = set(connection.execute(sa.select(table.follows).where(table.notification == key)).scalars())
    earlier = sa.select(outbox.c.key).where(
        outbox.c.receiver == mine[0],
        outbox.c.group_key == mine[1],
        outbox.c.sequence < mine[2],
        outbox.c.state.in_(WAITING),
    )
    before |= set(connection.execute(earlier.order_by(outbox.c.sequence.desc()).limit(1)).scalars())
    after: list[str] = list(connection.execute(sa.select(table.notification).where(table.follows == key)).scalars())
    connection.execute(sa.delete(outbox_follows).where(sa.or_(table.notification == key, table.follows == key)))
    _save_waits(connection, [_Wait(one, other) for one in after for other in sorted(before)])
    return True


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


class _Wait(NamedTuple):
    notification: str
    follows: str


def _save_waits(connection: Connection, waits: Collection[_Wait]) -> None:
    if waits:
        columns = {"notification": [one.notification for one in waits], "follows": [one.follows for one in waits]}
        write_columns(connection, outbox_follows, columns, ignore=True)


def _waits(connection: Connection, rows: Collection[NewNotification]) -> list[_Wait]:
    """What each new row has to wait for beyond its own group: the newest row that tells the same receiver of the same alert."""
    newest: dict[tuple[str, str], tuple[str, str]] = {}
    query = sa.select(outbox.c.receiver, outbox.c.key, outbox.c.group_key, outbox.c.about).where(
        outbox.c.state.in_(WAITING), outbox.c.about.is_not(sa.null())
    )
    for some in chunks({row.receiver for row in rows if row.about}):
        for row in connection.execute(query.where(outbox.c.receiver.in_(some)).order_by(outbox.c.id)):
            about: list[list[str]] = row.about
            places = [(row.receiver, Told._make(one).instance) for one in about]
            newest.update(dict.fromkeys(places, (row.key, row.group_key)))
    found: list[_Wait] = []
    for new in rows:
        places = [(new.receiver, Told._make(one).instance) for one in new.about or ()]
        before = dict.fromkeys(known for place in places if (known := newest.get(place)) is not None)
        found += [_Wait(new.key, key) for key, group in before if group != new.group_key]
        newest.update(dict.fromkeys(places, (new.key, new.group_key)))
    return found


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
    if mine is not None and outcome != "retry":
        connection.execute(sa.delete(outbox_follows).where(outbox_follows.c.notification == row.key))
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


def instances_told(connection: Connection, keys: Collection[str]) -> dict[str, list[str]]:
    """Notification → the instances it lists, contributors and parts included."""
    found: dict[str, list[str]] = {}
    for some in chunks(keys):
        rows = connection.execute(sa.select(outbox.c.key, outbox.c.payload).where(outbox.c.key.in_(some)))
        for row in rows:
            payload: dict[str, Any] = row.payload
            lists = (payload.get(name) or () for name in ("slices", "contributors", "parts"))
            found[row.key] = [one["instance"] for listed in lists for one in listed]
    return found
