"""One night of one test: verdicts → alert states → outbox → channel, in a store of its own; and the steps in between.

The only place that knows how alerts are applied and told. A new kind of step is a function in `STEPS` and the keys of
its details in `model.STEP_KEYS`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.alerts.apply import apply_verdicts
from metrics_pipeline.alerts.dispatch import dispatch_due
from metrics_pipeline.alerts.notice import Notice, RuleCard
from metrics_pipeline.alerts.silencing import acknowledge
from metrics_pipeline.alerts.verdict import verdicts_of_columns
from metrics_pipeline.delivery.channels.channel import TemporaryFailure
from metrics_pipeline.delivery.messages import Message
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.routing.decide import Routing, direct
from metrics_pipeline.rule_tests.model import Acknowledgement, ChannelDown
from metrics_pipeline.store import Store
from metrics_pipeline.store.database import open_url
from metrics_pipeline.store.outbox import waiting_count
from metrics_pipeline.store.tables import alert_instances, episodes

RECEIVER = "test"
ENDS = ("some_resolved", "all_resolved", "cancelled")


@dataclass(frozen=True)
class SentMessage:
    """A message that the channel took."""

    rule: str
    reason: str
    tier: str
    slices: tuple[str, ...]
    """Members that are news in it."""

    def __str__(self) -> str:
        members = ",".join(member for member in self.slices if member != "all")
        return f"{self.rule}: {self.reason} {self.tier}{f' ({members})' if members else ''}"


@dataclass
class Line:
    """The channel of a test: it takes what it is given, or nothing in a night in which it is down."""

    name: str = RECEIVER
    limit: int | None = None
    is_down: bool = False
    sent: list[SentMessage] = field(default_factory=list)
    """In this night."""

    def send(self, message: Message, address: str) -> str:
        """Keep the message. Raises `TemporaryFailure` while it is down."""
        if self.is_down:
            raise TemporaryFailure("the channel is down in this night", code="down")
        notice = message.notice
        self.sent.append(SentMessage(notice.rule.id, notice.reason, notice.tier, _news(notice)))
        return "taken"


@dataclass
class Night:
    """What a step may touch."""

    store: Store
    number: int
    now: datetime
    cards: Mapping[str, RuleCard]
    rule: str
    """The rule the test is about."""
    line: Line
    routing: Routing


Step = Callable[[Night, Any], None]


def _acknowledge(night: Night, given: Acknowledgement) -> None:
    rule = given.rule or night.rule
    query = sa.select(episodes.c.key).join(alert_instances, alert_instances.c.episode == episodes.c.key)
    query = query.where(episodes.c.rule == rule, episodes.c.closed_at.is_(None))
    if given.member is not None:
        query = query.where(alert_instances.c.member == given.member)
    with night.store.reading() as connection:
        keys: list[str] = list(connection.execute(query.order_by(episodes.c.key)).scalars())
    for key in keys:
        acknowledge(night.store, key, who=given.by, now=night.now, until=night.now + given.hold)


def _take_down(night: Night, _: ChannelDown) -> None:
    night.line.is_down = True


STEPS: dict[str, Step] = {"ack": _acknowledge, "channel_down": _take_down}
"""Name in the test file → what it does before the night's verdicts are applied."""


def run_night(
    night: Night, verdicts: Sequence[Mapping[str, Any]], steps: Iterable[Mapping[str, Any]]
) -> list[SentMessage]:
    """Apply a night; returns what the channel took in it, in order. What it did not take waits for a later night."""
    night.line.is_down = False
    night.line.sent.clear()
    for step in steps:
        for name, details in step.items():
            STEPS[name](night, details)
    if verdicts:
        columns = {name: [row[name] for row in verdicts] for name in verdicts[0]}
        apply_verdicts(night.store, verdicts_of_columns(columns), night.cards, receivers=night.routing, now=night.now)
    dispatch_due(night.store, night.routing, now=night.now)
    if _has_waiting(night.store):
        deliver_due(night.store, {RECEIVER: night.line}, now=night.now, routing=lambda: night.routing)
    return list(night.line.sent)


def routing_with(repeat: timedelta | None) -> Routing:
    """Everything at once to the one receiver; what fires is said again after `repeat`."""
    plain = direct((RECEIVER,))
    if repeat is None:
        return plain
    return replace(plain, root=replace(plain.root, timing=replace(plain.root.timing, repeat_interval=repeat)))


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


def _has_waiting(store: Store) -> bool:
    with store.reading() as connection:
        return waiting_count(connection) > 0


def _news(notice: Notice) -> tuple[str, ...]:
    kinds = ("resolved", "corrected", "cancelled") if notice.reason in ENDS else ("new", "escalated")
    return tuple(sorted(one.member for one in notice.slices if one.change in kinds))
