"""How deliveries stand: what every receiver got, waits for and will never get, and what the channels last said.

For pages that many people see: addresses of people are masked, and secrets are left out of errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.delivery.channels.redaction import redacted
from metrics_pipeline.store.bulk import chunks
from metrics_pipeline.store.outbox import WAITING
from metrics_pipeline.store.tables import outbox

WITHIN = timedelta(days=1)
"""How far back what was sent or given up counts; what waits counts however old it is."""
ERROR_CHARACTERS = 200


@dataclass(frozen=True)
class ReceiverStanding:
    """One receiver's messages."""

    receiver: str
    """Masked: `smtp:l***@shop.example`."""
    sent: int = 0
    waiting: int = 0
    """All that wait, those to be tried again included."""
    retrying: int = 0
    """That were tried and not taken."""
    dead: int = 0
    """Given up."""
    error: str = ""
    """What the channel said last of a message that it did not take."""

    @property
    def channel(self) -> str:
        return self.receiver.partition(":")[0]


@dataclass(frozen=True)
class Standing:
    """All receivers, those that something is wrong with first."""

    receivers: tuple[ReceiverStanding, ...]

    @property
    def severity(self) -> Literal["ok", "warn", "error"]:
        """error: something was given up, and a person has to act; warn: something is tried again; ok."""
        if any(one.dead for one in self.receivers):
            return "error"
        return "warn" if any(one.retrying for one in self.receivers) else "ok"

    @property
    def summary(self) -> tuple[str, str]:
        """One sentence, Chinese and English."""
        failing = [one for one in self.receivers if one.dead or one.retrying]
        if not failing:
            return "所有消息均已送达或等待首次发送。", "Every message was delivered, or waits for its first attempt."
        dead, retrying = sum(one.dead for one in failing), sum(one.retrying for one in failing)
        names = ", ".join(dict.fromkeys(one.channel for one in failing))
        mend = "metrics channels test"
        return (
            f"渠道 {names}：{dead:,} 条消息已放弃，{retrying:,} 条正在重试；运行 {mend} 可查看平台返回。",
            f"Channels {names}: {dead:,} messages given up, {retrying:,} tried again; {mend} shows the vendor's answer.",
        )

    def by_channel(self) -> dict[str, dict[str, int]]:
        """Channel → sent, waiting, retrying, dead."""
        found: dict[str, Counter[str]] = {}
        for one in self.receivers:
            counts = found.setdefault(one.channel, Counter())
            counts.update(sent=one.sent, waiting=one.waiting, retrying=one.retrying, dead=one.dead)
        return {channel: dict(counts) for channel, counts in sorted(found.items())}

    def markdown(self) -> str:
        """A table for the Dagster UI; one line for each receiver."""
        if not self.receivers:
            return "–"
        head = (
            "接收方 Receiver",
            "已送达 Sent",
            "等待 Waiting",
            "重试 Retrying",
            "放弃 Given up",
            "最近错误 Last error",
        )
        lines = [_line(head), _line(["---", *["---:"] * 4, "---"])]
        for one in self.receivers:
            counts = (one.sent, one.waiting, one.retrying, one.dead)
            lines.append(_line([one.receiver, *(f"{count:,}" for count in counts), one.error or "–"]))
        return "\n".join(lines)


def standing(connection: Connection, *, now: datetime, within: timedelta = WITHIN) -> Standing:
    """How deliveries stand at `now` (aware): what waits, and what was queued `within` that time and sent or given up."""
    counts: dict[str, Counter[str]] = {}
    query = (
        sa.select(outbox.c.receiver, outbox.c.state, outbox.c.last_error.is_not(None), sa.func.count())
        .where(sa.or_(outbox.c.state.in_(WAITING), outbox.c.created_at > now - within))
        .group_by(outbox.c.receiver, outbox.c.state, outbox.c.last_error.is_not(None))
    )
    for row in connection.execute(query).all():
        receiver, state, has_error, count = str(row[0]), str(row[1]), bool(row[2]), int(row[3])
        found = counts.setdefault(receiver, Counter())
        if state in WAITING:
            found["waiting"] += count
            found["retrying"] += count if has_error else 0
        else:
            found[state] += count
    errors = _last_errors(connection, now - within)
    rows = [
        ReceiverStanding(
            receiver=masked(receiver),
            sent=found["sent"],
            waiting=found["waiting"],
            retrying=found["retrying"],
            dead=found["dead"],
            error=shown(errors.get(receiver, ""), receiver)[:ERROR_CHARACTERS],
        )
        for receiver, found in counts.items()
    ]
    return Standing(tuple(sorted(rows, key=lambda one: (-one.dead, -one.retrying, one.receiver))))


def _last_errors(connection: Connection, since: datetime) -> Mapping[str, str]:
    """Receiver → what its channel said last of something it did not take."""
    query = (
        sa.select(outbox.c.receiver, outbox.c.last_error)
        .where(
            outbox.c.last_error.is_not(None),
            sa.or_(outbox.c.state.in_(WAITING), sa.and_(outbox.c.state == "dead", outbox.c.created_at > since)),
        )
        .order_by(outbox.c.id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def receivers_of(connection: Connection, keys: Collection[str]) -> list[str]:
    """The receiver of each of these notifications."""
    query = sa.select(outbox.c.receiver)
    return [row[0] for some in chunks(keys) for row in connection.execute(query.where(outbox.c.key.in_(some)))]


def masked(receiver: str) -> str:
    """A receiver with enough of its address to recognise it: `smtp:l***@shop.example`, `sms:138***11`."""
    channel, colon, address = receiver.partition(":")
    if not address:
        return channel
    name, at, host = address.partition("@")
    hidden = f"{name[:1]}***@{host}" if at else f"{address[:3]}***{address[-2:]}" if len(address) > 6 else "***"
    return f"{channel}{colon}{hidden}"


def shown(text: str, receiver: str) -> str:
    """What a channel said, for a page: one line without secrets, and without the address of the receiver."""
    address = receiver.partition(":")[2]
    line = redacted(" ".join(text.split()))
    return line.replace(address, masked(receiver).partition(":")[2]) if address else line


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(0xFF5C)) for cell in cells)} |"
