"""Incidents that people reported because nobody was told of them: read and written on the caller's transaction."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.tables import missed_incidents


class MissedRow(NamedTuple):
    """One report, in the order of the columns."""

    id: int
    metric: str
    dimension: str
    """`region|channel`, or `all`."""
    member: str
    starts_on: date
    """Shop-local, like the next one, which is inclusive."""
    ends_on: date
    text: str
    """What happened."""
    who: str
    at: datetime


def add(connection: Connection, row: MissedRow) -> int:
    """Write a report down; returns its number. Its `id` is not looked at."""
    values = row._asdict()
    del values["id"]
    query = sa.insert(missed_incidents).values(**values).returning(missed_incidents.c.id)
    found: Any = connection.execute(query).scalar_one()
    return int(found)


def remove(connection: Connection, number: int) -> bool:
    """Take a report back; False when there is none of this number."""
    return connection.execute(sa.delete(missed_incidents).where(missed_incidents.c.id == number)).rowcount == 1


def read(connection: Connection, *, since: date | None = None) -> list[MissedRow]:
    """Reports whose last day is not before `since`, the newest first."""
    query = sa.select(missed_incidents).order_by(missed_incidents.c.starts_on.desc(), missed_incidents.c.id.desc())
    if since is not None:
        query = query.where(missed_incidents.c.ends_on >= since)
    return [MissedRow._make(row) for row in connection.execute(query)]
