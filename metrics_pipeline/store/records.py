"""The rows of the store that other packages hold, as named tuples in the order of the table's columns.

Named tuples, because one tick may read and write a hundred thousand of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

State = Literal["ok", "pending", "firing", "recovering", "no_data"]
Tier = Literal["none", "yellow", "red"]
Reason = Literal[
    "breach",
    "escalate",
    "de_escalate",
    "recover",
    "no_data",
    "missing_slice",
    "error",
    "rule_changed",
    "backfill_corrected",
    "manual",
]
OutboxState = Literal["queued", "leased", "sent", "dead"]


class Instance(NamedTuple):
    """One rule on one slice. `tier` is the tier of the open episode, kept while data is missing."""

    key: str
    """`rule{dimension=member}`"""
    rule: str
    dimension: str
    member: str
    grain: str
    state: State
    tier: Tier
    episode: str | None
    since_period: datetime | None
    """The period in which the state was entered."""
    breach_period: datetime | None
    """The first period of the present run of breaches."""
    last_period: datetime | None
    """The newest period judged, with or without data."""
    data_period: datetime | None
    """The newest period judged that had data."""
    breaches: int
    """Periods with data in a row, up to `data_period`, that lay beyond yellow or red."""
    reds: int
    clears: int
    breaches_before: int
    """The same count without `data_period`, so that a restated period counts once."""
    reds_before: int
    clears_before: int
    value: float | None
    observed: float | None
    baseline: float | None
    lower: float | None
    upper: float | None
    yellow_bound: float | None
    red_bound: float | None
    sample: float | None
    reason: str
    """The reason word of the last verdict."""
    rule_hash: str
    metric_version: str
    data_version: str
    evaluated_at: datetime


class Episode(NamedTuple):
    """From the first breaching period to the end of the alert."""

    key: str
    """`rule{dimension=member}@first period`"""
    instance: str
    rule: str
    first_period: datetime
    last_period: datetime
    opened_at: datetime
    closed_at: datetime | None
    close_reason: str | None
    worst_tier: Tier
    worst_value: float | None
    worst_excess: float | None
    """How far beyond its yellow bound the worst period was, as a share of the bound; orders slices of one rule."""


class Told(NamedTuple):
    """What one receiver knows of one episode."""

    episode: str
    receiver: str
    tier: Tier
    notification: str
    end_notification: str | None


class TransitionRow(NamedTuple):
    """One change of state of one instance, append-only."""

    instance: str
    episode: str | None
    rule: str
    at: datetime
    period: datetime
    from_state: State
    from_tier: Tier
    to_state: State
    to_tier: Tier
    reason: Reason
    value: float | None
    observed: float | None
    rule_hash: str
    previous_rule_hash: str | None
    metric_version: str
    data_version: str
    run_id: str
    silent: bool


class ProcessedKey(NamedTuple):
    """One rule on one period, judged under one definition on one data version."""

    rule: str
    period: datetime
    rule_hash: str
    metric_version: str
    data_version: str


class OutboxRow(NamedTuple):
    """One notification to one receiver."""

    id: int
    key: str
    receiver: str
    """`<channel>` or `<channel>:<address>`"""
    group_key: str
    sequence: int
    reason: str
    tier: Tier
    payload: dict[str, Any]
    state: OutboxState
    created_at: datetime
    next_attempt_at: datetime
    lease_owner: str | None
    lease_until: datetime | None
    attempts: int
    last_error: str | None
    sent_at: datetime | None


class NewNotification(NamedTuple):
    """A notification to be queued."""

    key: str
    receiver: str
    group_key: str
    sequence: int
    reason: str
    tier: Tier
    payload: dict[str, Any]
    created_at: datetime


class DeliveryRow(NamedTuple):
    """One attempt to deliver one notification and what the channel answered."""

    notification: str
    receiver: str
    attempt: int
    at: datetime
    outcome: str
    """sent, retry or dead"""
    answer: str
