"""One night of one test: verdicts → alert states → outbox, in a store of its own; and the steps in between.

The only place that knows how alerts are applied and told. A new kind of step — somebody acknowledges, a channel is
down — is a function in `STEPS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.alerts.apply import apply_verdicts
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.verdict import verdicts_of_columns
from metrics_pipeline.store import Store
from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.tables import alert_instances, outbox

RECEIVER = "test"
ENDS = ("some_resolved", "all_resolved", "cancelled")


@dataclass(frozen=True)
class SentMessage:
    """A message of the outbox."""

    rule: str
    reason: str
    tier: str
    slices: tuple[str, ...]
    """Members that are news in it."""

    def __str__(self) -> str:
        members = ",".join(member for member in self.slices if member != "all")
        return f"{self.rule}: {self.reason} {self.tier}{f' ({members})' if members else ''}"


@dataclass
class Night:
    """What a step may touch."""

    store: Store
    number: int
    now: datetime
    cards: Mapping[str, RuleCard]


Step = Callable[[Night, Any], None]
STEPS: dict[str, Step] = {}
"""Name in the test file → what it does before the night's verdicts are applied."""


def run_night(
    night: Night, verdicts: Sequence[Mapping[str, Any]], steps: Iterable[Mapping[str, Any]]
) -> list[SentMessage]:
    """Apply a night; returns what it put into the outbox, in order."""
    before = _newest(night.store)
    for step in steps:
        for name, details in step.items():
            STEPS[name](night, details)
    if verdicts:
        columns = {name: [row[name] for row in verdicts] for name in verdicts[0]}
        apply_verdicts(night.store, verdicts_of_columns(columns), night.cards, receivers=(RECEIVER,), now=night.now)
    return _messages(night.store, before)


def states(store: Store) -> dict[tuple[str, str], str]:
    """(rule, member) → state; a firing alert by its tier."""
    columns = (alert_instances.c.rule, alert_instances.c.member, alert_instances.c.state, alert_instances.c.tier)
    found: dict[tuple[str, str], str] = {}
    with store.reading() as connection:
        for row in connection.execute(sa.select(*columns)):
            rule, member, state, tier = map(str, row)
            found[rule, member] = tier if state == "firing" else state
    return found


@contextmanager
def fresh_store(folder: Path, name: str) -> Iterator[Store]:
    """An empty store of its own: a copy of one that was migrated once."""
    path = folder / f"{name}.db"
    path.write_bytes(_template())
    store = open_url(f"sqlite:///{path}")
    try:
        yield store
    finally:
        store.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


@cache
def _template() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        open_url(f"sqlite:///{path}").close()
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        return path.read_bytes()


def _newest(store: Store) -> int:
    with store.reading() as connection:
        return connection.execute(sa.select(sa.func.coalesce(sa.func.max(outbox.c.id), 0))).scalar_one()


def _messages(store: Store, after: int) -> list[SentMessage]:
    query = sa.select(outbox.c.reason, outbox.c.tier, outbox.c.payload).where(outbox.c.id > after).order_by(outbox.c.id)
    with store.reading() as connection:
        rows: list[tuple[str, str, dict[str, Any]]] = [row._tuple() for row in connection.execute(query)]
    return [SentMessage(payload["rule"]["id"], reason, tier, _news(payload, reason)) for reason, tier, payload in rows]


def _news(payload: Mapping[str, Any], reason: str) -> tuple[str, ...]:
    kinds = ("resolved", "corrected", "cancelled") if reason in ENDS else ("new", "escalated")
    return tuple(sorted(one["member"] for one in payload["slices"] if one["change"] in kinds))
