"""Tokens of the HTTP API, on the caller's transaction: whom they act as, until when, and a hash of their secret."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.tables import api_tokens


class TokenRow(NamedTuple):
    """A token as it is kept. `digest` is a hash; the secret is nowhere."""

    id: str
    person: str
    name: str
    digest: str
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None

    def holds(self, now: datetime) -> bool:
        """Whether it counts at an instant (aware)."""
        return not any(end is not None and end <= now for end in (self.expires_at, self.revoked_at))

    def as_json(self) -> dict[str, Any]:
        """Everything but the hash."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in self._asdict().items()
            if name != "digest"
        }


def add_token(connection: Connection, row: TokenRow) -> None:
    """Keep a token. Its id must be new."""
    connection.execute(sa.insert(api_tokens).values(row._asdict()))


def token(connection: Connection, number: str) -> TokenRow | None:
    """A token by its id, or None."""
    row = connection.execute(sa.select(api_tokens).where(api_tokens.c.id == number)).one_or_none()
    return None if row is None else TokenRow._make(row)


def tokens(connection: Connection, person: str | None = None) -> list[TokenRow]:
    """All tokens ever made, of one person or of all, the oldest first."""
    query = sa.select(api_tokens).order_by(api_tokens.c.created_at, api_tokens.c.id)
    if person is not None:
        query = query.where(api_tokens.c.person == person)
    return [TokenRow._make(row) for row in connection.execute(query)]


def revoke_token(connection: Connection, number: str, who: str, *, now: datetime) -> bool:
    """End a token; False when there is none of this id that is not revoked."""
    table = api_tokens.c
    query = sa.update(api_tokens).where(table.id == number, table.revoked_at.is_(None))
    return connection.execute(query.values(revoked_at=now, revoked_by=who)).rowcount > 0
