"""The whole story of an alert: every transition, who was told what and when, what was done about it, what people think.

Of one episode, or of an instance with all its episodes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.work_orders import OrderView, list_feedback, show_order
from metrics_pipeline.store import Store
from metrics_pipeline.store import work_orders as order_rows
from metrics_pipeline.store.alerts import instances_by_key
from metrics_pipeline.store.metric_versions import version_names
from metrics_pipeline.store.records import DeliveryRow, Episode, Feedback, Instance, TransitionRow
from metrics_pipeline.store.tables import (
    alert_instances,
    deliveries,
    episode_receivers,
    episodes,
    outbox,
    transitions,
)


class UnknownAlert(LookupError):
    """There is no such instance or episode; the message names near ones."""


@dataclass(frozen=True)
class Message:
    """One notification that was about the alert, and every attempt to deliver it."""

    key: str
    receiver: str
    reason: str
    tier: str
    state: str
    created_at: datetime
    sent_at: datetime | None
    attempts: tuple[DeliveryRow, ...]


@dataclass(frozen=True)
class Story:
    """What there is to know of an alert. All lists are oldest first."""

    key: str
    instance: Instance | None
    """As it stands now; None when only its history is left."""
    episodes: tuple[Episode, ...]
    transitions: tuple[TransitionRow, ...]
    messages: tuple[Message, ...]
    orders: tuple[OrderView, ...]
    feedback: tuple[Feedback, ...]
    versions: Mapping[str, str]
    """Hash → name of every version of the metric by which it was judged: `v2 (e671cb775810)`."""

    def judged_by(self, episode: str) -> tuple[str, ...]:
        """The versions by which an episode was judged, in their order."""
        found = (row.metric_version for row in self.transitions if row.episode == episode and row.metric_version)
        return tuple(self.versions[one] for one in dict.fromkeys(found))

    def as_json(self, ui_url: str) -> dict[str, Any]:
        """Plain values: periods as shop-local ISO text, instants with their zone. `ui_url`: of the Dagster UI, for links."""
        return {
            "key": self.key,
            "instance": None if self.instance is None else _plain(self.instance._asdict()),
            "episodes": [_plain({**one._asdict(), "definitions": self.judged_by(one.key)}) for one in self.episodes],
            "transitions": [
                _plain({**one._asdict(), "definition": self.versions.get(one.metric_version, "")})
                for one in self.transitions
            ],
            "messages": [
                _plain({**vars(one), "attempts": [_plain(attempt._asdict()) for attempt in one.attempts]})
                for one in self.messages
            ],
            "orders": [one.as_json(ui_url) for one in self.orders],
            "feedback": [_plain(one._asdict()) for one in self.feedback],
        }


def story_of(store: Store, key: str, *, now: datetime) -> Story:
    """The story of an episode (`rule{dimension=member}@period`), an instance (`rule{dimension=member}`), or of a rule that has
    only one instance.

    Raises `UnknownAlert`.
    """
    with store.reading() as connection:
        key = _only_one(connection, key) or key
        found = _episodes(connection, episodes.c.key == key)
        instance = found[0].instance if found else key
        known = instances_by_key(connection, [instance])
        if not found:
            found = _episodes(connection, episodes.c.instance == key)
            told = _transitions(connection, transitions.c.instance == key)
            if not known and not told:
                raise UnknownAlert(_nearest(connection, key))
        else:
            told = _transitions(connection, transitions.c.episode == key)
        keys = [one.key for one in found]
        messages = _messages(connection, instance, found)
        by_episode = order_rows.by_episode(connection, keys)
        ordered = dict.fromkeys(by_episode[one].episode for one in keys if one in by_episode)
        judged_by = {row.metric_version for row in told} | {one.metric_version for one in known.values()}
        versions = version_names(connection, judged_by)
    return Story(
        key=key,
        instance=known.get(instance),
        episodes=tuple(found),
        transitions=tuple(told),
        messages=tuple(messages),
        orders=tuple(show_order(store, one, now=now) for one in ordered),
        feedback=tuple(one for episode in keys for one in list_feedback(store, episode=episode)),
        versions=versions,
    )


def _episodes(connection: Connection, where: sa.ColumnElement[bool]) -> list[Episode]:
    rows = connection.execute(sa.select(episodes).where(where).order_by(episodes.c.first_period))
    return [Episode._make(row) for row in rows]


def _transitions(connection: Connection, where: sa.ColumnElement[bool]) -> list[TransitionRow]:
    columns = [transitions.c[name] for name in TransitionRow._fields]
    rows = connection.execute(sa.select(*columns).where(where).order_by(transitions.c.id))
    return [TransitionRow._make(row) for row in rows]


def _messages(connection: Connection, instance: str, found: Sequence[Episode]) -> list[Message]:
    """Notifications that began or ended one of the episodes for somebody, or that list the slice while one was open."""
    if not found:
        return []
    told = sa.select(episode_receivers).where(episode_receivers.c.episode.in_([one.key for one in found]))
    noted = {key for row in connection.execute(told) for key in (row.notification, row.end_notification) if key}
    written = json.dumps(instance, ensure_ascii=False)
    within = [
        sa.and_(outbox.c.created_at >= one.opened_at, outbox.c.created_at <= one.closed_at)
        if one.closed_at is not None
        else outbox.c.created_at >= one.opened_at
        for one in found
    ]
    listed = sa.and_(sa.or_(*within), sa.cast(outbox.c.payload, sa.Text).contains(written, autoescape=True))
    rows = connection.execute(
        sa.select(outbox).where(sa.or_(outbox.c.key.in_(noted), listed)).order_by(outbox.c.id)
    ).all()
    attempts = _attempts(connection, [row.key for row in rows])
    return [
        Message(
            key=row.key,
            receiver=row.receiver,
            reason=row.reason,
            tier=row.tier,
            state=row.state,
            created_at=row.created_at,
            sent_at=row.sent_at,
            attempts=tuple(one for one in attempts if one.notification == row.key),
        )
        for row in rows
    ]


def _attempts(connection: Connection, keys: Collection[str]) -> list[DeliveryRow]:
    columns = [deliveries.c[name] for name in DeliveryRow._fields]
    rows = connection.execute(sa.select(*columns).where(deliveries.c.notification.in_(keys)).order_by(deliveries.c.id))
    return [DeliveryRow._make(row) for row in rows]


def _only_one(connection: Connection, rule: str) -> str | None:
    """The instance of a rule that has just one."""
    query = sa.select(alert_instances.c.key).where(alert_instances.c.rule == rule).limit(2)
    found: list[str] = list(connection.execute(query).scalars())
    return found[0] if len(found) == 1 else None


def _nearest(connection: Connection, key: str) -> str:
    rule = key.partition("{")[0]
    near: list[str] = list(
        connection.execute(
            sa.select(alert_instances.c.key)
            .where(alert_instances.c.rule == rule)
            .order_by(sa.case((alert_instances.c.state == "ok", 1), else_=0), alert_instances.c.key)
            .limit(3)
        ).scalars()
    )
    listed = ", ".join(near)
    hint = f"of this rule there are e.g. {listed}" if listed else "`metrics alerts list` shows what fires"
    return f"there is no alert {key!r}; write rule{{dimension=member}}, an episode of it, or a rule with one slice only; {hint}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
