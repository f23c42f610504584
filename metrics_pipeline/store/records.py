"""The rows of the store that other packages hold, as named tuples in the order of the table's columns.

Named tuples, because one tick may read and write a hundred thousand of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

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
OutboxState = Literal["queued", "leased", "sent", "dead", "recalled"]


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
    breach_period_before: datetime | None = None
    """`breach_period` without `data_period`, so that a restated period begins the same episode again."""
    is_corrected: bool = False
    """The first breaching period of the open episode was judged again, and lies within bounds now."""
    changes: int = 0
    """One bit for each of the last 30 periods with data, the newest lowest: the tier of the alert changed in it."""
    is_flapping: bool = False
    """The tier changes too often (`state.Policy`); changes no state, whoever tells people may say so."""
    unknown_reason: str = ""
    """Why a period newer than `last_period` could not be judged (error, upstream_failed, …); empty: it could."""
    unknown_period: datetime | None = None
    """The newest period that could not be judged."""


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
    verdict_reason: str = ""
    """The reason word of the verdict, e.g. which kind of missing it was."""


class ProcessedKey(NamedTuple):
    """One rule on one period, judged under one definition on one data version."""

    rule: str
    period: datetime
    rule_hash: str
    metric_version: str
    data_version: str


class ProcessedRow(NamedTuple):
    """That the verdicts of a key are applied, but for those slices that could not be judged."""

    rule: str
    period: datetime
    rule_hash: str
    metric_version: str
    data_version: str
    run_id: str
    verdicts: int
    processed_at: datetime
    unjudged: str
    """JSON list of the keys of these instances; empty: none."""


OrderState = Literal["open", "assigned", "closed"]


class WorkOrder(NamedTuple):
    """What is to be done about an episode, or about many of one rule that began together; in the order of the columns."""

    id: int
    episode: str
    """Of many: the worst one."""
    instance: str
    rule: str
    tier: Tier
    state: OrderState
    assignee: str
    opened_at: datetime
    due_at: datetime
    links: dict[str, str]
    closed_at: datetime | None
    closed_by: str | None
    close_reason: str | None
    close_note: str | None
    slices: int = 1
    """Episodes it is about."""


class OrderEvent(NamedTuple):
    """One thing that happened to an order."""

    episode: str
    at: datetime
    who: str
    what: str
    """assigned, closed, reopened, escalated, joined (further slices)"""
    detail: str


class Feedback(NamedTuple):
    """What one person thinks of one alert."""

    episode: str
    rule: str
    is_useful: bool
    reason: str
    who: str
    at: datetime


class Told(NamedTuple):
    """What a notification tells of one episode, and what was so before: enough to take it back."""

    episode: str
    change: Literal["news", "ongoing", "end"]
    tier: Tier
    """News and what goes on: told at this tier. An end: it had been told at this tier."""
    before: Tier
    """Told before at this tier; none: not told."""
    held: str
    """Why it had been held back; '': it had not."""

    @property
    def instance(self) -> str:
        """The alert of the episode."""
        return self.episode.rpartition("@")[0]


FORWARDED: Final = " → "
"""In keys and groups of what was forwarded: before the one who stands in, and before the one who did not get it."""


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
    rule: str = ""
    about: list[list[str]] | None = None
    """The fields of a `Told` for each alert it tells of; None: of no alert, or sent (what was forwarded keeps them)."""
    maybe_sent: bool = False
    """An attempt ended without the other side's word: it may have got the message."""

    @property
    def is_forwarded(self) -> bool:
        """Whether it goes to somebody who stands in for another."""
        return FORWARDED in self.group_key

    @property
    def told(self) -> list[Told]:
        """What it tells of each alert."""
        return [Told._make(one) for one in self.about or ()]


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
    rule: str = ""
    """The rule it is about first; a group or a digest may hold several."""
    about: list[list[str]] | None = None
    """The fields of a `Told` for each alert it tells of; None: of no alert."""


class DeliveryRow(NamedTuple):
    """One attempt to deliver one notification and what the channel answered."""

    notification: str
    receiver: str
    attempt: int
    at: datetime
    outcome: str
    """sent, retry or dead"""
    answer: str
