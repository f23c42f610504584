"""What a rehearsal has to show: the messages, who was told of what from when to when, and how many a day that is."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any

from metrics_pipeline.alerts.notice import Notice

ENDS = ("some_resolved", "all_resolved", "cancelled")
"""Reasons of messages that bring ends and nothing else."""
NEWS = ("new", "escalated")
OVER = ("resolved", "corrected", "cancelled")


@dataclass(frozen=True)
class Message:
    """One message to one receiver."""

    at: datetime
    """Shop-local, when the channel took it."""
    receiver: str
    """`<channel>` or `<channel>:<address>`"""
    reason: str
    tier: str
    title: str
    notice: Notice = field(repr=False)

    @property
    def rule(self) -> str:
        """The rule it is headed by."""
        return self.notice.rule.id

    @property
    def is_end(self) -> bool:
        return self.reason in ENDS

    def slices(self, *changes: str) -> list[tuple[str, str]]:
        """(Rule, member) of the listed slices with one of these changes; of all without."""
        return [
            (one.rule or self.rule, one.member) for one in self.notice.slices if not changes or one.change in changes
        ]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "at": self.at,
            "receiver": self.receiver,
            "reason": self.reason,
            "tier": self.tier,
            "rule": self.rule,
            "period": self.notice.period,
            "incident": self.notice.incident,
            "title": self.title,
            "slices": [
                {
                    "rule": one.rule or self.rule,
                    "member": one.member,
                    "change": one.change,
                    "tier": one.tier,
                    "since": one.since,
                    "value": one.value,
                    "baseline": one.baseline,
                    "observed": one.observed,
                }
                for one in self.notice.slices
            ],
        }


@dataclass(frozen=True)
class Told:
    """One alert, and one receiver who was told of it (or was to be)."""

    rule: str
    dimension: str
    member: str
    receiver: str
    first_period: datetime
    """First breaching period."""
    last_period: datetime
    """Last breaching period."""
    tier: str
    """The worst it reached."""
    is_open: bool
    """Whether it fires still when the rehearsal is over."""
    began_at: datetime | None
    """When the receiver was told, shop-local; None: never."""
    ended_at: datetime | None
    """When the receiver was told the end."""
    held: str
    """Why it is held back still: '', silence, inhibited, limit, …"""


@dataclass(frozen=True)
class Rehearsal:
    """Everything people would have received from one day to another."""

    first: date
    """First day that was judged."""
    last: date
    messages: tuple[Message, ...] = field(repr=False)
    """In the order in which they were sent."""
    told: tuple[Told, ...] = field(repr=False)
    """By first period."""
    runs: int
    """Nights and hours that were judged."""
    errors: Mapping[str, str]
    """Rule → why the database could not judge it."""

    @property
    def days(self) -> list[date]:
        """The days on which messages of these nights are read: each the day after the one judged."""
        return [self.first + timedelta(days=number) for number in range((self.last - self.first).days + 2)]

    @cached_property
    def per_day(self) -> Mapping[date, int]:
        """Messages by the day they were sent, of all receivers; every day has a number."""
        return self._per_day(self.messages)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many messages were sent for each reason, the most frequent first."""
        return dict(Counter(one.reason for one in self.messages).most_common())

    @property
    def receivers(self) -> Mapping[str, Mapping[str, float]]:
        """Receiver → messages, days with one, and messages a day: median, mean, max."""
        by_receiver: dict[str, list[Message]] = {}
        for one in self.messages:
            by_receiver.setdefault(one.receiver, []).append(one)
        return {name: summary(self._per_day(some)) for name, some in sorted(by_receiver.items())}

    @property
    def untold(self) -> Sequence[Told]:
        """What fired and somebody was never told, although the routes lead there."""
        return [one for one in self.told if one.began_at is None]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "from": self.first,
            "to": self.last,
            "runs": self.runs,
            "summary": summary(self.per_day),
            "reasons": self.reasons,
            "receivers": self.receivers,
            "messages": [one.as_json() for one in self.messages],
            "told": [vars(one) for one in self.told],
            "errors": dict(self.errors),
        }

    def _per_day(self, messages: Sequence[Message]) -> dict[date, int]:
        counts = dict.fromkeys(self.days, 0)
        for one in messages:
            counts[one.at.date()] = counts.get(one.at.date(), 0) + 1
        return counts


def summary(per_day: Mapping[date, int]) -> dict[str, float]:
    """Messages, days with one, and messages a day: median, mean, max."""
    counts = list(per_day.values()) or [0]
    return {
        "messages": sum(counts),
        "days": sum(1 for count in counts if count),
        "median": float(statistics.median(counts)),
        "mean": round(statistics.fmean(counts), 3),
        "max": max(counts),
    }
