"""Diagnoses of episodes and notes: read and written on the caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import among, write_columns
from metrics_pipeline.store.tables import episode_diagnoses
from metrics_pipeline.store.tables import notes as notes_table


class DiagnosisRow(NamedTuple):
    """Why an episode's value was what it was, by one version of the data."""

    episode: str
    data_version: str
    period: datetime
    document: dict[str, Any] | None
    """As `Diagnosis.to_json` gives it; None: there is none, and `reason` says why."""
    line_zh: str
    line_en: str
    reason: str
    cpu_seconds: float
    at: datetime


class NoteRow(NamedTuple):
    """Something a person or a deployment wrote down."""

    id: int
    kind: str
    text: str
    starts_on: date
    ends_on: date
    elements: Mapping[str, str]
    who: str
    at: datetime


def save(connection: Connection, rows: Iterable[DiagnosisRow]) -> None:
    """Keep diagnoses; of an episode and data version the first one stays."""
    found = list(rows)
    if found:
        columns = dict(zip(DiagnosisRow._fields, map(list, zip(*found, strict=True)), strict=True))
        write_columns(connection, episode_diagnoses, columns, ignore=True)


def newest(connection: Connection, episodes: Collection[str]) -> dict[str, DiagnosisRow]:
    """Episode → its newest row, one with a document before one without; those without any are left out."""
    if not episodes:
        return {}
    table = episode_diagnoses
    query = (
        sa.select(table).where(among(connection, table.c.episode, episodes)).order_by(table.c.at, table.c.data_version)
    )
    found: dict[str, DiagnosisRow] = {}
    for row in map(DiagnosisRow._make, connection.execute(query)):
        if row.document is not None or row.episode not in found:
            found[row.episode] = row
    return found


def add_note(connection: Connection, note: NoteRow) -> int:
    """Write a note down; returns its number. Its `id` is not looked at."""
    values = note._asdict()
    del values["id"]
    found: Any = connection.execute(sa.insert(notes_table).values(**values).returning(notes_table.c.id)).scalar_one()
    return int(found)


def notes(connection: Connection, *, since: date | None = None) -> list[NoteRow]:
    """Notes whose last day is not before `since`, the newest first."""
    query = sa.select(notes_table).order_by(notes_table.c.starts_on.desc(), notes_table.c.id.desc())
    if since is not None:
        query = query.where(notes_table.c.ends_on >= since)
    return [NoteRow._make(row) for row in connection.execute(query)]
