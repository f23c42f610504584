"""Alerts that no rule computes: alarms about the pipeline itself, and drills. They begin and end because somebody says so.

From there on they are alerts like the others: an instance, an episode, routes, groups, acknowledgement, reminders,
escalation, one end. A colon in the id of their rule, which no id of a rule file has, keeps them apart; they have no period with
data, so they join no incident, and they open no work order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.addressing import address
from metrics_pipeline.alerts.flush import Round
from metrics_pipeline.alerts.notice import RuleCard, SeriesSource
from metrics_pipeline.alerts.state import blank_instance, episode_key
from metrics_pipeline.alerts.tick import Tick
from metrics_pipeline.alerts.verdict import instance_key
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.store import Store
from metrics_pipeline.store import alerts as repository
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import MarkKind, MarkRow
from metrics_pipeline.store.records import Episode, Instance, Reason, Tier, TransitionRow
from metrics_pipeline.store.tables import alert_instances, rule_cards

SEPARATOR = ":"


@dataclass(frozen=True)
class Announcement:
    """One alert that is said to fire."""

    card: RuleCard
    """Its id has a `SEPARATOR`; `alert` is its name for the routes."""
    dimension: str
    member: str
    tier: Tier = "red"
    grain: str = "hour"
    """How its period is written; with hours, to the minute."""

    @property
    def instance(self) -> str:
        """`pipeline_failed:nightly{job=nightly}`"""
        return instance_key(self.card.id, self.dimension, self.member)


def is_announced(rule: str) -> bool:
    """Whether alerts of this id come from here and not from a rule file."""
    return SEPARATOR in rule


def announced(connection: Connection, prefix: str = "") -> list[Instance]:
    """The announced alerts that fire, whose rule begins so. There are few cards, and many alerts: cards are asked first."""
    of_rules = sa.select(rule_cards.c.rule).where(
        rule_cards.c.rule.contains(SEPARATOR, autoescape=True), rule_cards.c.rule.startswith(prefix, autoescape=True)
    )
    rules: list[str] = list(connection.execute(of_rules).scalars())
    if not rules:
        return []
    query = sa.select(alert_instances).where(alert_instances.c.episode.is_not(None), alert_instances.c.rule.in_(rules))
    return [Instance._make(row) for row in connection.execute(query.order_by(alert_instances.c.key))]


def announce(
    store: Store,
    wanted: Announcement,
    routing: Routing,
    *,
    now: datetime,
    marks: Sequence[tuple[MarkKind, str, datetime]] = (),
    series: SeriesSource | None = None,
) -> tuple[str, ...]:
    """Begin an alert, in one transaction with what is told of it; returns the keys of the outbox rows.

    Nothing happens while it fires already. What a group has to wait for comes with `dispatch_due`. `now`: aware.
    `marks`: kind, by whom and until when, of marks that its episode has from the beginning.
    """
    period = now.astimezone(routing.local).replace(second=0, microsecond=0, tzinfo=None)
    key = wanted.instance
    with store.writing("alerts") as connection:
        before = repository.instances_by_key(connection, [key]).get(key)
        if before is not None and before.episode is not None:
            return ()
        episode = episode_key(key, period)
        blank = blank_instance(wanted.card.id, wanted.dimension, wanted.member, wanted.grain, at=now)
        instance = blank._replace(
            state="firing",
            tier=wanted.tier,
            episode=episode,
            since_period=period,
            breach_period=period,
            last_period=period,
            breaches=1,
            reds=int(wanted.tier == "red"),
            reason="breach",
        )
        begun = Episode(
            key=episode,
            instance=key,
            rule=wanted.card.id,
            first_period=period,
            last_period=period,
            opened_at=now,
            closed_at=None,
            close_reason=None,
            worst_tier=wanted.tier,
            worst_value=None,
            worst_excess=None,
        )
        rows.save_cards(connection, {wanted.card.id: wanted.card.to_json()}, now=now)
        rows.save_marks(connection, [MarkRow(episode, kind, who, "", now, until) for kind, who, until in marks])
        return _tell(connection, before, instance, begun, routing, reason="breach", now=now, series=series)


def withdraw(
    store: Store,
    instance: str,
    routing: Routing,
    *,
    now: datetime,
    texts: Mapping[str, str] | None = None,
    series: SeriesSource | None = None,
) -> tuple[str, ...]:
    """End an announced alert; returns the keys of the outbox rows. Nothing happens when it does not fire.

    `texts`: annotations that are told from now on, such as another `summary`; while other alerts of this rule fire, only now.
    """
    with store.writing("alerts") as connection:
        before = repository.instances_by_key(connection, [instance]).get(instance)
        if before is None or before.episode is None:
            return ()
        episode = repository.episodes_by_key(connection, [before.episode])[before.episode]
        period = now.astimezone(routing.local).replace(second=0, microsecond=0, tzinfo=None)
        ended = episode._replace(last_period=max(period, episode.first_period), closed_at=now, close_reason="recover")
        after = before._replace(
            state="ok", tier="none", episode=None, since_period=period, last_period=period, breaches=0, reds=0, clears=1
        )
        [card] = rows.cards(connection, [before.rule]).values()
        if texts:
            stored = {**card, "annotations": {**card["annotations"], **texts}}
            rows.save_cards(connection, {before.rule: stored}, now=now)
        queued = _tell(connection, before, after, ended, routing, reason="recover", now=now, series=series)
        if texts and any(one.rule == before.rule for one in announced(connection, before.rule)):
            rows.save_cards(connection, {before.rule: card}, now=now)
        return queued


def _tell(
    connection: Connection,
    before: Instance | None,
    after: Instance,
    episode: Episode,
    routing: Routing,
    *,
    reason: Reason,
    now: datetime,
    series: SeriesSource | None,
) -> tuple[str, ...]:
    """Write a change and tell its group; other groups wait for their own time."""
    cards = {rule: RuleCard.from_json(card) for rule, card in rows.cards(connection).items()}
    is_over = episode.closed_at is not None
    tick = Tick(
        now=now,
        run_id="",
        rules=frozenset({after.rule}),
        instances={after.key: after},
        episodes={episode.key: episode},
        opened=frozenset() if is_over else frozenset({episode.key}),
        closed=frozenset({episode.key}) if is_over else frozenset(),
        due=frozenset() if is_over else frozenset({after.key}),
        transitions=[] if cards[after.rule].is_drill else [_transition(before, after, episode, reason, now)],
    )
    repository.save_instances(connection, [after])
    repository.save_episodes(connection, [episode])
    repository.append_transitions(connection, tick.transitions)
    addressed = address(connection, tick, routing, cards)
    return Round(connection, routing, cards, now=now, local=routing.local, series=series).run(addressed.groups)


def _transition(
    before: Instance | None, after: Instance, episode: Episode, reason: Reason, now: datetime
) -> TransitionRow:
    return TransitionRow(
        instance=after.key,
        episode=episode.key,
        rule=after.rule,
        at=now,
        period=episode.last_period,
        from_state="ok" if before is None else before.state,
        from_tier="none" if before is None else before.tier,
        to_state=after.state,
        to_tier=after.tier,
        reason=reason,
        value=None,
        observed=None,
        rule_hash="",
        previous_rule_hash=None,
        metric_version="",
        data_version="",
        run_id="",
        silent=False,
    )
