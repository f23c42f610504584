"""Ended episodes that people have answered, with every word said of them: read on the caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store import dispatch
from metrics_pipeline.store.tables import alert_instances, episode_feedback, episodes, work_order_episodes


class AnsweredRow(NamedTuple):
    """One word on one ended episode."""

    episode: str
    metric: str
    grain: str
    dimension: str
    member: str
    first_period: datetime
    last_period: datetime
    closed_at: datetime
    at: datetime
    """When it was said."""
    is_useful: bool
    """Whether the alert told the truth."""
    is_own: bool
    """Said of this episode, and not of the order it shares with others."""


def answered_episodes(connection: Connection, *, since: datetime) -> list[AnsweredRow]:
    """Every word on ended episodes of metrics whose last breaching period is not before `since` (shop-local), in the order in
    which it was said."""
    said, joined = episode_feedback.c, work_order_episodes.c
    words = sa.union_all(
        sa.select(said.episode, said.id, said.at, said.is_useful, sa.true().label("is_own")),
        sa.select(joined.episode, said.id, said.at, said.is_useful, sa.false()).join_from(
            episode_feedback, work_order_episodes, joined.work_order == said.episode
        ),
    ).subquery()
    of, instance, word = episodes.c, alert_instances.c, words.c
    query = (
        sa.select(
            of.key, of.rule, instance.grain, instance.dimension, instance.member, of.first_period, of.last_period,
            of.closed_at, word.at, word.is_useful, word.is_own,
        )
        .join_from(episodes, alert_instances, instance.key == of.instance)
        .join(words, word.episode == of.key)
        .where(of.closed_at.is_not(None), of.last_period >= since, ~of.rule.contains(":"))
        .order_by(word.at, word.id)
    )  # fmt: skip
    rows = connection.execute(query).all()
    metrics = {rule: str(card["metric"]) for rule, card in dispatch.cards(connection, {row[1] for row in rows}).items()}
    return [AnsweredRow._make([row[0], metrics[row[1]], *row[2:]]) for row in rows if metrics.get(row[1])]
