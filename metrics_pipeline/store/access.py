"""People, positions, lines and grants: read and written on the caller's transaction. What they mean is `access.policy`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import insert_rows
from metrics_pipeline.store.tables import access_grants, access_memberships, access_people, access_policy

FILE = "file"
"""Source of what comes from `_people.yml`; what was said on the command line is `manual`."""
MANUAL = "manual"


class PersonRow(NamedTuple):
    """Somebody who can be given something. `source`: file or manual."""

    id: str
    name_zh: str
    name_en: str
    source: str


class MembershipRow(NamedTuple):
    """A person in a position (a team) or a business line."""

    person: str
    kind: str
    of: str
    source: str


class GrantRow(NamedTuple):
    """A grant as it is kept; lists are JSON."""

    id: int
    subject_kind: str
    subject: str
    actions: list[str]
    selectors: list[list[str]]
    slices: dict[str, list[str]]
    level: str
    starts_at: datetime | None
    expires_at: datetime | None
    granted_by: str
    granted_at: datetime
    reason: str
    revoked_at: datetime | None
    revoked_by: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in self._asdict().items()
        }


def enabled(connection: Connection) -> tuple[str, datetime] | None:
    """By whom and when the policy was turned on; None while the installation is open."""
    row = connection.execute(sa.select(access_policy.c.enabled_by, access_policy.c.enabled_at)).one_or_none()
    return None if row is None else (row[0], row[1])


def enable(connection: Connection, who: str, *, now: datetime) -> None:
    """Turn the policy on. It must be off."""
    connection.execute(sa.insert(access_policy).values(id=1, enabled_by=who, enabled_at=now))


def disable(connection: Connection) -> bool:
    """Turn the policy off; False when it was."""
    return connection.execute(sa.delete(access_policy)).rowcount > 0


def people(connection: Connection) -> list[PersonRow]:
    """Everybody, by id."""
    return [PersonRow._make(row) for row in connection.execute(sa.select(access_people).order_by(access_people.c.id))]


def memberships(connection: Connection, person: str | None = None, *, source: str | None = None) -> list[MembershipRow]:
    """Who is in which position and line; of one person or all, from one source or both."""
    table = access_memberships.c
    query = sa.select(access_memberships).order_by(table.person, table.kind, table.of)
    for column, wanted in ((table.person, person), (table.source, source)):
        if wanted is not None:
            query = query.where(column == wanted)
    return [MembershipRow._make(row) for row in connection.execute(query)]


def sync(connection: Connection, people_: Collection[PersonRow], members: Collection[MembershipRow]) -> bool:
    """Make what comes from the file what it says now; what was said by hand stays. False when nothing had changed."""
    found = [one for one in people(connection) if one.source == FILE]
    manual = {one.id for one in people(connection) if one.source == MANUAL}
    wanted = sorted({one for one in people_ if one.id not in manual})
    held = [one for one in memberships(connection) if one.source == FILE]
    by_hand = {one[:3] for one in memberships(connection) if one.source == MANUAL}
    given = sorted({one for one in members if one[:3] not in by_hand})
    if sorted(found) == wanted and sorted(held) == given:
        return False
    connection.execute(sa.delete(access_people).where(access_people.c.source == FILE))
    connection.execute(sa.delete(access_memberships).where(access_memberships.c.source == FILE))
    insert_rows(connection, access_people, wanted)
    insert_rows(connection, access_memberships, given)
    return True


def add_person(connection: Connection, person: PersonRow, members: Iterable[MembershipRow]) -> None:
    """Add somebody by hand, or more positions and lines to somebody."""
    known = {one.id for one in people(connection)}
    if person.id not in known:
        insert_rows(connection, access_people, [person])
    held = {one[:3] for one in memberships(connection, person.id)}
    insert_rows(connection, access_memberships, [one for one in members if one[:3] not in held])


def remove_person(connection: Connection, person: str) -> bool:
    """Remove what was said of somebody by hand; False when there is nothing."""
    gone = 0
    for table, column in ((access_people, access_people.c.id), (access_memberships, access_memberships.c.person)):
        where = sa.and_(column == person, table.c.source == MANUAL)
        gone += connection.execute(sa.delete(table).where(where)).rowcount
    return gone > 0


def grants(connection: Connection, *, subjects: Collection[tuple[str, str]] | None = None) -> list[GrantRow]:
    """All grants ever given, revoked ones too, by number; `subjects`: only to these (kind, id)."""
    query = sa.select(access_grants).order_by(access_grants.c.id)
    if subjects is not None:
        pairs = sa.tuple_(access_grants.c.subject_kind, access_grants.c.subject)
        query = query.where(pairs.in_(list(subjects)))
    return [_grant(row._mapping) for row in connection.execute(query)]


def grant(connection: Connection, number: int) -> GrantRow | None:
    """One grant, or None."""
    row = connection.execute(sa.select(access_grants).where(access_grants.c.id == number)).one_or_none()
    return None if row is None else _grant(row._mapping)


def add_grant(connection: Connection, values: Mapping[str, Any]) -> GrantRow:
    """Keep a grant; `values` as the fields of `GrantRow` without id and revocation."""
    texts = {name: _json(values[name]) for name in ("actions", "selectors", "slices")}
    query = sa.insert(access_grants).values({**values, **texts}).returning(access_grants.c.id)
    number: int = connection.execute(query).scalar_one()
    found = grant(connection, number)
    assert found is not None
    return found


def revoke_grant(connection: Connection, number: int, who: str, *, now: datetime) -> bool:
    """End a grant; False when there is none of this number that is not revoked."""
    table = access_grants.c
    query = sa.update(access_grants).where(table.id == number, table.revoked_at.is_(None))
    return connection.execute(query.values(revoked_at=now, revoked_by=who)).rowcount > 0


def _grant(row: Mapping[Any, Any]) -> GrantRow:
    texts = {name: json.loads(row[name]) for name in ("actions", "selectors", "slices")}
    return GrantRow(**{**row, **texts})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
