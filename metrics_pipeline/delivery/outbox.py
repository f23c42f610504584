"""Sending what waits in the outbox: lease, look again, send, record; retry or give up.

At least once: a crash between sending and recording sends again (the message carries a stable id), a lease keeps two
senders from sending the same row at once, and ends with the process that holds it, or by its time where that cannot be
seen. Nothing leaves the outbox without a record of what the channel answered; what people silenced while it waited is taken
back (`alerts.recall`).
"""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.access.model import SENSITIVE
from metrics_pipeline.advice.phrase import Words
from metrics_pipeline.advice.told import NOTHING, Told, told_of
from metrics_pipeline.alerts.notice import Notice
from metrics_pipeline.alerts.recall import is_muted, recall
from metrics_pipeline.delivery.channels.channel import Channel, PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.guard import MessageGuard, on_record
from metrics_pipeline.delivery.guard import masked as masked_notice
from metrics_pipeline.delivery.messages import Message, Wording, compose
from metrics_pipeline.delivery.standing import masked
from metrics_pipeline.diagnosis.attached import UNEXPLAINED, Explained, explained_of
from metrics_pipeline.routing.decide import Routing, direct
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store
from metrics_pipeline.store import alerts as alert_rows
from metrics_pipeline.store import outbox as rows
from metrics_pipeline.store.audit import Caller, record
from metrics_pipeline.store.processes import is_gone, process_name
from metrics_pipeline.store.records import Instance, OutboxRow

log = logging.getLogger(__name__)

LEASE = timedelta(minutes=5)
"""Longer than any channel takes for one message (SMTP: a few steps of 20 s each)."""
SENDER = Caller("service.delivery", "message")
"""Who sends, in the audit log."""
_ROUND = "/"
"""Between the process and the round of sending in the name of a lease's owner."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait before the next attempt: doubling from `first` up to `longest`, plus up to `jitter()` of it."""

    first: timedelta = timedelta(seconds=30)
    longest: timedelta = timedelta(hours=1)
    give_up_after: timedelta = timedelta(days=2)
    """Age of the notification at which a temporary failure is taken as permanent."""
    jitter: Callable[[], float] = field(default=lambda: 0.0)
    """A share between 0 and 1, drawn anew for each wait, e.g. `random.random`."""

    def wait(self, attempt: int) -> timedelta:
        """The wait after the given attempt (1 = the first)."""
        base = min(self.longest, self.first * float(2 ** min(attempt - 1, 30)))
        return base * (1 + self.jitter() / 2)


@dataclass(frozen=True)
class Delivery:
    """One attempt: which notification, to whom, how it ended and what was answered."""

    key: str
    receiver: str
    title: str
    outcome: str
    """sent, retry or dead"""
    answer: str


@dataclass(frozen=True)
class DeliveryReport:
    """What one round of sending did."""

    attempts: tuple[Delivery, ...]
    waiting: int
    """Rows that still have to be sent: later, by a channel that is not here, or by another sender."""
    recalled: tuple[str, ...] = ()
    """Keys of what was taken back unsent, because it was silenced meanwhile."""
    refused: str = ""
    """Why nothing more was sent although something is due: the grant of the sender was revoked."""

    @property
    def sent(self) -> int:
        return self.count("sent")

    @property
    def retried(self) -> int:
        return self.count("retry")

    @property
    def dead(self) -> tuple[Delivery, ...]:
        """What was given up; each needs a person (`revive` queues it again)."""
        return tuple(one for one in self.attempts if one.outcome == "dead")

    def count(self, outcome: str) -> int:
        """Attempts with this outcome."""
        return Counter(one.outcome for one in self.attempts)[outcome]


def deliver_due(
    store: Store,
    channels: Mapping[str, Channel],
    *,
    now: datetime,
    wording: Wording | None = None,
    limit: int = 100,
    backoff: Backoff | None = None,
    sender: str | None = None,
    fallback: Callable[[], Sequence[str]] = tuple,
    routing: Callable[[], Routing] = lambda: direct(()),
    guard: MessageGuard | None = None,
    worded: Words | None = None,
) -> DeliveryReport:
    """Send up to `limit` due notifications through the channels given, the most urgent first.

    `now`: aware; the clock of all records of this round. Rows of channels that are not given keep waiting. A channel's
    failure is recorded and never raised; `sender` names this sender (default: the process and a random part).
    `fallback`: receivers of what is given up, asked for only then; they also get the end of what they were told.
    `routing`: where the labels of alerts come from that silences match, asked for only when something is silenced.
    `guard`: what each receiver may see; every sender of real messages has one. `worded`: what puts the advice each receiver
    may see into words; default: the template.
    """
    owner = sender or f"{process_name()}{_ROUND}{uuid.uuid4().hex[:8]}"
    pace = backoff or Backoff()
    words = wording or Wording()
    attempts: list[Delivery] = []
    with store.writing("outbox") as connection:
        rows.release(connection, [one for one in rows.lease_owners(connection) if is_gone(one.partition(_ROUND)[0])])
    recalled: list[str] = []
    refused = ""
    while len(attempts) < limit:
        if guard is not None and (refused := guard.refusal(now=now)):
            break
        with store.writing("outbox") as connection:
            row = rows.lease_next(connection, channels=channels.keys(), owner=owner, now=now, until=now + LEASE)
            is_stale = (
                row is not None
                and not row.maybe_sent
                and not row.is_forwarded
                and is_muted(connection, row.reason, row.told, routing, now=now)
            )
            if row is not None and is_stale:
                rows.put_back(connection, row)
        if row is None:
            break
        if is_stale:
            with store.writing("alerts") as connection:
                recalled += recall(connection, routing, now=now)
            continue
        attempts.append(
            _attempt(
                store, channels, row, now=now, words=words, pace=pace, fallback=fallback, guard=guard, worded=worded
            )
        )
    with store.reading() as connection:
        return DeliveryReport(tuple(attempts), rows.waiting_count(connection), tuple(recalled), refused)


def wording_from(settings: Settings) -> Wording:
    """How this installation words its messages."""
    return Wording(locale=settings.locale, ui_url=settings.ui_url, zone=settings.zone)


def _attempt(
    store: Store,
    channels: Mapping[str, Channel],
    row: OutboxRow,
    *,
    now: datetime,
    words: Wording,
    pace: Backoff,
    fallback: Callable[[], Sequence[str]],
    guard: MessageGuard | None,
    worded: Words | None,
) -> Delivery:
    channel, _, address = row.receiver.partition(":")
    title = row.group_key
    silent: str | None = None
    refused = False
    try:
        message = _message(store, row, words, guard, worded, now=now)
        address = address or ",".join(message.notice.mentions)
        title = replace(message, notice=on_record(message.notice)).title
        answer = channels[channel].send(message, address)
        outcome = "sent"
    except TemporaryFailure as failure:
        outcome, answer, refused = "retry", str(failure), failure.refused
        if isinstance(failure, RateLimited):
            wait = failure.wait  # however often it was tried: nothing is wrong with the message
            silent = row.receiver if failure.only_address else channel
        else:
            wait = max(pace.wait(row.attempts), failure.retry_after or timedelta())
        if now - row.created_at >= pace.give_up_after:
            outcome = "dead"
            answer = f"given up after {row.attempts} attempts since {row.created_at.isoformat()}: {answer}"
    except PermanentFailure as failure:
        outcome, answer = "dead", str(failure)
    except Exception as error:  # a defect must neither lose the row nor stop those behind it
        log.exception("notification %s to channel %s failed", row.key, channel)
        outcome, answer = "retry", f"unexpected {type(error).__name__}; see the log of this run"
        wait = pace.wait(row.attempts)
        if now - row.created_at >= pace.give_up_after:
            outcome = "dead"
    told = _told_sensitive(message.notice) if outcome == "sent" else None
    stand_ins = tuple(fallback()) if outcome == "dead" else ()
    with store.writing("outbox") as connection:
        if outcome == "retry":
            rows.record_retry(connection, row, error=answer, at=now + wait, now=now, refused=refused)
        else:
            _record(connection, row, outcome, answer, stand_ins, now=now)
        if told is not None:
            details = {"to": masked(row.receiver), "notification": row.key}
            record(connection, SENDER, "metric.sent", told.rule.metric, now=now, details=details)
        if silent is not None:
            rows.postpone(connection, silent, until=now + wait)
    if outcome != "sent":
        log.warning("notification %s to channel %s: %s: %s", row.key, channel, outcome, answer)
    return Delivery(row.key, row.receiver, title, outcome, answer)


def _told_sensitive(notice: Notice) -> Notice | None:
    """The notice, when it tells a value of a confidential metric."""
    is_told = any(one.value is not None for one in notice.slices) or notice.series is not None
    return notice if notice.rule.sensitivity == SENSITIVE and is_told else None


def _record(
    connection: Connection, row: OutboxRow, outcome: str, answer: str, stand_ins: Sequence[str], *, now: datetime
) -> None:
    """Close a row that was sent or given up, and tell those who stand in for its receiver."""
    if outcome == "sent":
        if rows.record_sent(connection, row, answer=answer, now=now):
            rows.forward(connection, row, row.payload, rows.forwarded_to(connection, row), now=now)
    elif rows.record_dead(connection, row, error=answer, now=now):
        told = rows.forwarded_to(connection, row).union(stand_ins)
        rows.forward(connection, row, _undelivered(row, row.receiver.partition(":")[0]), told, now=now)


def _undelivered(row: OutboxRow, channel: str) -> dict[str, Any]:
    """The payload with a word for those who stand in. The address stays out: it may be a phone number."""
    notice = Notice.from_json(row.payload)
    texts = dict(notice.rule.annotations)
    texts["summary"] = f"[{channel} did not take this message] {texts.get('summary', '')}".strip()
    texts["summary_zh"] = f"【渠道 {channel} 未能送达,转发】{texts.get('summary_zh', '')}"
    return replace(notice, rule=replace(notice.rule, annotations=texts), mentions=()).to_json()


def _message(
    store: Store, row: OutboxRow, words: Wording, guard: MessageGuard | None, worded: Words | None, *, now: datetime
) -> Message:
    """The message, with what has changed since it was queued: a late message must not read like news."""
    notice = Notice.from_json(row.payload)
    sights = [] if guard is None else guard.sights(row.receiver, notice.rule, now=now)
    for sight in sights:
        notice = masked_notice(notice, sight)
    words = replace(words, locale=notice.language) if notice.language else words
    firing = [one for one in notice.slices if one.change in ("new", "escalated", "ongoing")]
    with store.reading() as connection:
        current = alert_rows.instances_by_key(connection, [one.instance for one in firing])
        told = _advice(connection, notice, current, now=now)
        explained = _cause(connection, notice, current)
    for sight in sights:
        told = told.seen_by(sight)
        explained = explained.seen_by(sight)
    over = [one.instance for one in firing if one.instance in current and current[one.instance].tier == "none"]
    phrased = worded(told, notice.rule.currency) if worded is not None and told.advice else {}
    return compose(notice, words, over=over, told=told, phrased=phrased, explained=explained)


def _advice(connection: Connection, notice: Notice, current: Mapping[str, Instance], *, now: datetime) -> Told:
    """The advice on the first slice listed that has some, and what to order for the others; none for what ended, a drill or a digest
    of many things."""
    if notice.reason == "digest" or notice.rule.is_drill:
        return NOTHING
    keys = [str(is_now.episode) for one in notice.slices if (is_now := current.get(one.instance)) and is_now.episode]
    found = told_of(connection, keys, now=now)
    advised = [found[key] for key in keys if key in found and found[key].advice]
    if not advised:
        return NOTHING
    further = [
        one.advice[0] for one in advised[1:] if any(piece.supply is not None for piece in one.advice[0].evidence)
    ]
    return replace(advised[0], further=tuple(further))


def _cause(connection: Connection, notice: Notice, current: Mapping[str, Instance]) -> Explained:
    """Why the first slice that has a diagnosis is what it is; nothing for what ended, a drill or a digest."""
    if notice.reason == "digest" or notice.rule.is_drill:
        return UNEXPLAINED
    keys = [str(is_now.episode) for one in notice.slices if (is_now := current.get(one.instance)) and is_now.episode]
    found = explained_of(connection, keys)
    return next((found[key] for key in keys if key in found and found[key].diagnosis is not None), UNEXPLAINED)
