"""The audit log: who did what to what, by which door, from where; on the caller's transaction.

Append-only: triggers of the database refuse changed and removed rows. Tamper-evident: each row carries a SHA-256 over
itself and the hash of the row before, so a row that was edited, removed or put in between breaks the chain from there
on; the newest number and hash are also kept outside the database (`anchor`), so a log that was cut off or written anew
is found as well. Whoever can write both the database and that file can forge both: note a head elsewhere now and then
(`metrics audit verify` prints it) and verify against it. What was never recorded cannot be missed.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.settings import system_user
from metrics_pipeline.store.anchor import Anchor, Head
from metrics_pipeline.store.database import Store, advisory_lock
from metrics_pipeline.store.tables import audit_checkpoints, audit_log

Door = Literal["cli", "api", "dagster", "message", "console"]
Outcome = Literal["done", "denied"]
START = Head(0, "0" * 64)
"""What the first row of a log follows."""
PART = 5_000
"""Rows that are verified at a time."""


class AuditError(ValueError):
    """What cannot be done with the audit log; the message says why and what to do."""


def this_process() -> str:
    """From where this process acts: `user@host:pid`; the user is the operating system's."""
    return f"{system_user()}@{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True)
class Caller:
    """Who acts (an id of a person or of a service), by which door, from where."""

    actor: str
    door: Door
    origin: str = field(default_factory=this_process)


class Event(NamedTuple):
    """Something that was done, or denied. `action` is `noun.verb` (`grant.add`, `metric.read`); `details` is JSON."""

    action: str
    subject: str
    slice: str = ""
    outcome: Outcome = "done"
    details: Mapping[str, Any] = {}


class Entry(NamedTuple):
    """A row of the log."""

    sequence: int
    at: datetime
    actor: str
    action: str
    subject: str
    slice: str
    door: str
    origin: str
    outcome: str
    details: Mapping[str, Any]
    previous: str
    hash: str

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "at": self.at.isoformat()}


class Break(NamedTuple):
    """The first row at which the log is not what was written, and how."""

    sequence: int
    problem: str


class Verdict(NamedTuple):
    """What a verification found: how many rows, up to which head, and the first break."""

    rows: int
    head: Head
    checkpoint: Head
    broken: Break | None


def record(
    connection: Connection,
    caller: Caller,
    action: str,
    subject: str,
    *,
    now: datetime,
    slice: str = "",
    outcome: Outcome = "done",
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Write one row on the caller's transaction (`Store.writing`), best as its last act: other writers wait from here on.

    `now` is aware. `details` must be JSON without secrets and without exact values of sensitive metrics.
    """
    return record_all(connection, caller, [Event(action, subject, slice, outcome, details or {})], now=now)[0]


def record_all(connection: Connection, caller: Caller, events: Sequence[Event], *, now: datetime) -> list[Entry]:
    """`record` for several events of one caller, in their order."""
    if not events:
        return []
    if connection.dialect.name != "sqlite":  # SQLite has one writer anyhow
        advisory_lock(connection, "audit")
    newest = head(connection)
    last, entries = newest, []
    for event in events:
        entry = _chained(last, caller, event, now.astimezone(UTC))
        last = Head(entry.sequence, entry.hash)
        entries.append(entry)
    connection.execute(sa.insert(audit_log), [entry._asdict() for entry in entries])
    _anchor(connection, last)
    return entries


def head(connection: Connection) -> Head:
    """The newest row, or the checkpoint when retention removed all; `START` of an empty log."""
    query = sa.select(audit_log.c.sequence, audit_log.c.hash).order_by(audit_log.c.sequence.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return _checkpoint(connection) if row is None else Head._make(row)


def entries(
    connection: Connection,
    *,
    actor: str | None = None,
    action: str | None = None,
    subject: str | None = None,
    outcome: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Entry]:
    """Rows with these properties in [since, until), the newest first; `before` a number gives the next page.

    `action` is a whole one or the beginning of some, as in `grant.`.
    """
    table = audit_log.c
    query = sa.select(audit_log).order_by(table.sequence.desc()).limit(limit)
    for column, wanted in ((table.actor, actor), (table.subject, subject), (table.outcome, outcome)):
        if wanted is not None:
            query = query.where(column == wanted)
    if action is not None:
        is_part = action.endswith(".")
        query = query.where(table.action.startswith(action, autoescape=True) if is_part else table.action == action)
    if since is not None:
        query = query.where(table.at >= since)
    if until is not None:
        query = query.where(table.at < until)
    if before is not None:
        query = query.where(table.sequence < before)
    return [Entry._make(row) for row in connection.execute(query)]


def verify(store: Store, *, noted: Head | None = None) -> Verdict:
    """Follow the chain from its checkpoint to its end, then the kept head and, if given, one noted elsewhere.

    A `noted` head that retention has removed since cannot be judged and raises `AuditError`.
    """
    with store.reading() as connection:
        checkpoint = _checkpoint(connection)
        if noted is not None and 0 < noted.sequence < checkpoint.sequence:
            raise AuditError(
                f"row {noted.sequence} was removed by retention up to {checkpoint.sequence}; give a newer head"
            )
        last, count, broken = checkpoint, 0, None
        for entry in _all_after(connection, checkpoint.sequence):
            if (problem := _problem(last, entry)) is not None:
                broken = Break(entry.sequence, problem)
                break
            last, count = Head(entry.sequence, entry.hash), count + 1
        if broken is None:
            broken = _unvouched(connection, checkpoint)
        try:
            kept = Anchor(store.audit_head).read()
        except ValueError as error:
            return Verdict(count, last, checkpoint, broken or Break(last.sequence, str(error)))
        for one, where in ((kept, f"kept in {store.audit_head}"), (noted, "noted")):
            if broken is None and one is not None:
                broken = _missing(connection, checkpoint, one, where)
        return Verdict(count, last, checkpoint, broken)


def prune(store: Store, caller: Caller, before: datetime, *, now: datetime) -> int:
    """Remove the rows older than `before` and leave a checkpoint from which the rest verifies; says how many.

    The act is itself a row of the log, and vouches for the checkpoint. Raises `AuditError` when the log is broken:
    what shows it must not be removed.
    """
    if (found := verify(store).broken) is not None:
        raise AuditError(f"the audit log is broken at row {found.sequence} ({found.problem}); nothing was removed")
    with store.writing("audit") as connection:
        table = audit_log.c
        # A clock may have gone back: what is removed is the rows up to the first one that stays.
        stays = sa.select(sa.func.min(table.sequence)).where(table.at >= before)
        first = connection.execute(stays).scalar_one_or_none()
        query = sa.select(table.sequence, table.hash).order_by(table.sequence.desc()).limit(1)
        row = connection.execute(query if first is None else query.where(table.sequence < first)).one_or_none()
        if row is None:
            return 0
        last = Head._make(row)
        count = connection.execute(
            sa.select(sa.func.count()).select_from(audit_log).where(table.sequence <= last.sequence)
        ).scalar_one()
        details = {"until": last.sequence, "hash": last.hash, "rows": count, "before": before.isoformat()}
        record(connection, caller, "audit.prune", "audit_log", now=now, details=details)
        connection.execute(sa.insert(audit_checkpoints).values(sequence=last.sequence, hash=last.hash, at=now))
        connection.execute(sa.delete(audit_log).where(table.sequence <= last.sequence))
        return count


def accept(store: Store, caller: Caller, reason: str, *, now: datetime) -> Entry:
    """Go on from a log that its kept head does not bear out (a restored database): recorded, and the head kept anew."""
    broken = verify(store).broken
    anchor = Anchor(store.audit_head)
    try:
        kept = anchor.read()
    except ValueError:
        kept = None
    details = {
        "reason": reason,
        "broken": None if broken is None else broken._asdict(),
        "kept": None if kept is None else kept._asdict(),
    }
    with store.writing("audit") as connection:
        entry = record(connection, caller, "audit.accept", "audit_log", now=now, details=details)
    anchor.pending = Head(entry.sequence, entry.hash)
    anchor.keep(over=True)
    return entry


def _chained(last: Head, caller: Caller, event: Event, at: datetime) -> Entry:
    details = json.loads(_canonical(dict(event.details)))  # what a database gives back: lists for tuples, text keys
    entry = Entry(
        sequence=last.sequence + 1,
        at=at,
        actor=caller.actor,
        action=event.action,
        subject=event.subject,
        slice=event.slice,
        door=caller.door,
        origin=caller.origin,
        outcome=event.outcome,
        details=details,
        previous=last.hash,
        hash="",
    )
    return entry._replace(hash=_hash(entry))


def _hash(entry: Entry) -> str:
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    fields = [at if name == "at" else value for name, value in entry._asdict().items() if name != "hash"]
    return hashlib.sha256(_canonical(fields).encode()).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _anchor(connection: Connection, newest: Head) -> None:
    """Have the new head kept after the commit, unless the kept one shows that the log was tampered with."""
    anchor: Anchor | None = connection.get_execution_options().get("metrics_anchor")
    if anchor is None:
        return
    try:
        kept = anchor.read()
    except ValueError:
        return
    if kept is None or _missing(connection, _checkpoint(connection), kept, "kept") is None:
        anchor.pending = newest


def _checkpoint(connection: Connection) -> Head:
    table = audit_checkpoints.c
    query = sa.select(table.sequence, table.hash).order_by(table.sequence.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return START if row is None else Head._make(row)


def _all_after(connection: Connection, sequence: int) -> Iterator[Entry]:
    query = sa.select(audit_log).order_by(audit_log.c.sequence).limit(PART)
    while rows := connection.execute(query.where(audit_log.c.sequence > sequence)).all():
        yield from (Entry._make(row) for row in rows)
        sequence = rows[-1].sequence


def _problem(last: Head, entry: Entry) -> str | None:
    if entry.sequence != last.sequence + 1:
        missing = entry.sequence - last.sequence - 1
        return f"{missing} row{'s' if missing != 1 else ''} before it {'are' if missing != 1 else 'is'} missing"
    if entry.previous != last.hash:
        return f"it does not follow row {last.sequence}: one of them was put in or replaced"
    return None if entry.hash == _hash(entry) else "it was edited: its content does not fit its hash"


def _unvouched(connection: Connection, checkpoint: Head) -> Break | None:
    if checkpoint == START:
        return None
    query = sa.select(audit_log.c.details).where(audit_log.c.action == "audit.prune")
    acts: Sequence[Mapping[str, Any]] = connection.execute(query).scalars().all()
    if any((act.get("until"), act.get("hash")) == checkpoint for act in acts):
        return None
    return Break(checkpoint.sequence, "rows up to here were removed, and no row of the log says who did it")


def _missing(connection: Connection, checkpoint: Head, one: Head, where: str) -> Break | None:
    if one.sequence == START.sequence or 0 < one.sequence < checkpoint.sequence:
        return None
    if one.sequence == checkpoint.sequence:
        found: str | None = checkpoint.hash
    else:
        query = sa.select(audit_log.c.hash).where(audit_log.c.sequence == one.sequence)
        found = connection.execute(query).scalar_one_or_none()
    if found is None:
        return Break(one.sequence, f"the head {where} is row {one.sequence}, which is gone: the end was cut off")
    if found != one.hash:
        return Break(one.sequence, f"row {one.sequence} is not the one of the head {where}: the log was written anew")
    return None
