"""Questions to the store: what fires now, what happened, what was sent. Answers are plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from metrics_pipeline.store import Store
from metrics_pipeline.store.tables import alert_instances, deliveries, episodes, outbox, transitions

ACTIVE = ("pending", "firing", "recovering", "no_data")


class _Json:
    def as_json(self) -> dict[str, Any]:
        """The fields with times as ISO text."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()  # type: ignore[call-overload]
        }


@dataclass(frozen=True)
class AlertView(_Json):
    """One alert as it stands. Periods are shop-local, instants UTC."""

    instance: str
    rule: str
    dimension: str
    member: str
    grain: str
    state: str
    tier: str
    """Of the open episode; none when there is none."""
    since_period: datetime | None
    """First breaching period of the episode, else the period in which the state was entered."""
    last_period: datetime | None
    value: float | None
    observed: float | None
    baseline: float | None
    lower: float | None
    upper: float | None
    yellow_bound: float | None
    red_bound: float | None
    reason: str
    episode: str | None
    opened_at: datetime | None


@dataclass(frozen=True)
class TransitionView(_Json):
    """One change of state."""

    instance: str
    rule: str
    at: datetime
    period: datetime
    from_state: str
    from_tier: str
    to_state: str
    to_tier: str
    reason: str
    value: float | None
    observed: float | None
    episode: str | None
    run_id: str
    silent: bool


@dataclass(frozen=True)
class EpisodeView(_Json):
    """One episode, open or closed."""

    key: str
    instance: str
    rule: str
    first_period: datetime
    last_period: datetime
    opened_at: datetime
    closed_at: datetime | None
    close_reason: str | None
    worst_tier: str
    worst_value: float | None


@dataclass(frozen=True)
class NotificationView(_Json):
    """One notification and how its delivery stands."""

    key: str
    rule: str
    receiver: str
    reason: str
    tier: str
    state: str
    attempts: int
    created_at: datetime
    next_attempt_at: datetime
    sent_at: datetime | None
    answer: str | None
    """What the channel answered last."""


def current_alerts(
    store: Store,
    *,
    states: Sequence[str] = ("firing", "recovering"),
    rule: str | None = None,
    tier: str | None = None,
    dimension: str | None = None,
    member: str | None = None,
    limit: int = 200,
) -> list[AlertView]:
    """Alerts in these states (`ACTIVE` for all but ok), red first, then the longest standing."""
    table = alert_instances
    query = (
        sa.select(table, episodes.c.first_period, episodes.c.opened_at)
        .outerjoin(episodes, episodes.c.key == table.c.episode)
        .where(table.c.state.in_(states), *_equal(table, rule=rule, tier=tier, dimension=dimension, member=member))
        .order_by(sa.case({"red": 0, "yellow": 1}, value=table.c.tier, else_=2), episodes.c.first_period, table.c.key)
        .limit(limit)
    )
    with store.reading() as connection:
        return [
            AlertView(
                instance=row.key,
                rule=row.rule,
                dimension=row.dimension,
                member=row.member,
                grain=row.grain,
                state=row.state,
                tier=row.tier,
                since_period=row.first_period or row.since_period,
                last_period=row.last_period,
                value=row.value,
                observed=row.observed,
                baseline=row.baseline,
                lower=row.lower,
                upper=row.upper,
                yellow_bound=row.yellow_bound,
                red_bound=row.red_bound,
                reason=row.reason,
                episode=row.episode,
                opened_at=row.opened_at,
            )
            for row in connection.execute(query)
        ]


def alert_history(
    store: Store,
    *,
    rule: str | None = None,
    instance: str | None = None,
    since: datetime | None = None,
    limit: int = 200,
) -> list[TransitionView]:
    """Changes of state, the newest first. `since`: aware."""
    table = transitions
    query = sa.select(*(table.c[name] for name in TransitionView.__dataclass_fields__)).where(
        *_equal(table, rule=rule, instance=instance)
    )
    if since is not None:
        query = query.where(table.c.at >= since)
    with store.reading() as connection:
        rows = connection.execute(query.order_by(table.c.id.desc()).limit(limit))
        return [TransitionView(**row._mapping) for row in rows]


def episode_history(
    store: Store, *, rule: str | None = None, instance: str | None = None, is_open: bool | None = None, limit: int = 200
) -> list[EpisodeView]:
    """Episodes, the newest first."""
    table = episodes
    query = sa.select(*(table.c[name] for name in EpisodeView.__dataclass_fields__)).where(
        *_equal(table, rule=rule, instance=instance)
    )
    if is_open is not None:
        query = query.where(table.c.closed_at.is_(None) if is_open else table.c.closed_at.is_not(None))
    with store.reading() as connection:
        rows = connection.execute(query.order_by(table.c.first_period.desc(), table.c.key).limit(limit))
        return [EpisodeView(**row._mapping) for row in rows]


def notifications(
    store: Store, *, rule: str | None = None, states: Sequence[str] | None = None, limit: int = 200
) -> list[NotificationView]:
    """Notifications, the newest first; `states`: queued, leased, sent, dead, recalled (default all)."""
    last = (
        sa.select(deliveries.c.answer)
        .where(deliveries.c.notification == outbox.c.key)
        .order_by(deliveries.c.id.desc())
        .limit(1)
        .scalar_subquery()
        .label("answer")
    )
    query = sa.select(
        outbox.c.key,
        outbox.c.rule,
        outbox.c.receiver,
        outbox.c.reason,
        outbox.c.tier,
        outbox.c.state,
        outbox.c.attempts,
        outbox.c.created_at,
        outbox.c.next_attempt_at,
        outbox.c.sent_at,
        last,
    ).where(*_equal(outbox, rule=rule))
    if states is not None:
        query = query.where(outbox.c.state.in_(states))
    with store.reading() as connection:
        return [
            NotificationView(**row._mapping)
            for row in connection.execute(query.order_by(outbox.c.id.desc()).limit(limit))
        ]


def _equal(table: sa.Table, **wanted: str | None) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == value for name, value in wanted.items() if value is not None]
