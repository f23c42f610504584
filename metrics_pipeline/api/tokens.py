"""Tokens: `metrics_<id>_<secret>`. The id is public and stands in lists and in the audit log, the secret is shown once.

The secret is 32 random bytes, so a plain SHA-256 of it is enough: there is nothing to guess that a slow hash would
make dearer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.engine import Connection

from metrics_pipeline.store import tokens as rows
from metrics_pipeline.store.tokens import TokenRow

_TOKEN = re.compile(r"metrics_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY = hashlib.sha256(b"").hexdigest()


class NewToken(NamedTuple):
    """A token just made: what is kept, and the text that its holder gets."""

    row: TokenRow
    text: str


def new_token(
    person: str, name: str = "", *, created_by: str, now: datetime, expires_at: datetime | None = None
) -> NewToken:
    """A token that acts as a person; times are aware."""
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = TokenRow(number, person, name, _digest(secret), created_by, now, expires_at, None, None)
    return NewToken(row, f"metrics_{number}_{secret}")


def find_token(connection: Connection, text: str) -> TokenRow | None:
    """The token that this is the text of, whether it still holds or not; None when it is none."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    row = rows.token(connection, match[1])
    is_right = hmac.compare_digest(_digest(match[2]), _NOBODY if row is None else row.digest)
    return row if is_right else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
