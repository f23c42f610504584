"""What people said of each episode, when they were told of it and when somebody acted: one row per episode, from the store.

An episode has one outcome. `true`, `false`, `expected`: the newest word of anybody, as feedback or as the reason an order
was closed for (a closed order speaks for all slices it is about, unless somebody spoke of one of them). `aside`: the order was closed as
a duplicate or a data problem, which says nothing of the rule. `unanswered`: nobody said anything. Drills and alarms
about the pipeline are no episodes of a rule and are left out, and so are alerts of the past that a backfill recorded, that were
told to nobody and that nobody spoke of: they were never anybody's.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.access.model import Level
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.work_orders import SYSTEM
from metrics_pipeline.store import missed
from metrics_pipeline.store.missed import MissedRow
from metrics_pipeline.store.tables import (
    alert_instances,
    episode_acknowledgements,
    episode_feedback,
    episode_receivers,
    episodes,
    outbox,
    transitions,
    work_order_episodes,
    work_order_events,
    work_orders,
)

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["true", "false", "expected", "aside", "unanswered"]
ANSWERED: Final[tuple[Outcome, ...]] = ("true", "false", "expected")
WRONG: Final[tuple[Outcome, ...]] = ("false", "expected")
"""Outcomes of alerts that nobody needed."""
EXPECTED: Final = "expected"
"""The reason word of feedback on an alert that was right and no news (a promotion, a price test)."""
SPOKEN_BY_NOBODY: Final = ("duplicate", "data_problem")


def read_answers(
    connection: Connection, sight: Sight, *, since: datetime | None = None, until: datetime | None = None
) -> pd.DataFrame:
    """The episodes that opened in [since, until) (aware) and that the viewer may know of, oldest first.

    Columns: `key, instance, rule, dimension, member, first_period, last_period, opened_at, closed_at, close_reason, worst_tier,
    worst_value, grain, outcome, said_by, said, told_at, acted_at`. Periods are shop-local; instants are UTC without a zone; `told_at` is when the first
    message was taken by a channel, `acted_at` when somebody first acknowledged it, or was given or closed its order.
    """
    import pandas as pd

    query = sa.select(
        *(episodes.c[name] for name in ("key", "instance", "rule", "first_period", "last_period", "opened_at")),
        *(episodes.c[name] for name in ("closed_at", "close_reason", "worst_tier", "worst_value")),
        sa.func.coalesce(alert_instances.c.grain, "day").label("grain"),
        _is_history().label("is_history"),
    )
    query = query.join_from(episodes, alert_instances, alert_instances.c.key == episodes.c.instance, isouter=True)
    query = query.where(~episodes.c.rule.contains(":"))
    if since is not None:
        query = query.where(episodes.c.opened_at >= since)
    if until is not None:
        query = query.where(episodes.c.opened_at < until)
    found = _frame(connection, query.order_by(episodes.c.opened_at, episodes.c.key))
    if not sight.is_open:
        instances = {key for key in found["instance"].unique() if sight.sees(key)}
        found = found[found["instance"].isin(instances)].reset_index(drop=True)
    slices = found["instance"].str.extract(r"(?s)^[^{]*\{(?P<dimension>[^=]*)=(?P<member>.*)\}$")
    found = pd.concat([found, slices], axis=1)
    for columns in (_words(connection), _told(connection), _acted(connection)):
        found = found.merge(columns, how="left", on="key")
    found["outcome"] = found["outcome"].fillna("unanswered")
    is_history = found["is_history"].astype(bool) & (found["outcome"] == "unanswered")
    found = found[~is_history].drop(columns="is_history").reset_index(drop=True)
    for name in ("said_by", "said"):
        found[name] = found[name].fillna("")
    for name in ("opened_at", "closed_at", "told_at", "acted_at"):
        found[name] = pd.to_datetime(found[name], utc=True).dt.tz_localize(None).astype("datetime64[us]")
    for name in ("first_period", "last_period"):
        found[name] = pd.to_datetime(found[name]).astype("datetime64[us]")
    return found


def reported_misses(connection: Connection, sight: Sight, *, since: date | None = None) -> list[MissedRow]:
    """The incidents that people reported because nobody was told of them, as far as the viewer sees their slices exactly."""
    return [
        one
        for one in missed.read(connection, since=since)
        if sight.is_open or sight.viewer.level(one.metric, one.dimension, one.member) == Level.EXACT
    ]


def _is_history() -> sa.ColumnElement[bool]:
    """Whether an episode was recorded in silence and told to nobody."""
    told = sa.exists().where(episode_receivers.c.episode == episodes.c.key)
    loud = sa.exists().where(transitions.c.episode == episodes.c.key, ~transitions.c.silent)
    return ~told & ~loud


def _words(connection: Connection) -> pd.DataFrame:
    """Episode → outcome, who said it and what: the newest word on it, else what its order says."""
    import numpy as np
    import pandas as pd

    table, joined = episode_feedback.c, work_order_episodes.c
    said = (table.id, table.is_useful, table.reason, table.who)
    own = _frame(connection, sa.select(table.episode.label("key"), *said, sa.literal(1).label("own")))
    shared = _frame(
        connection,
        sa.select(joined.episode.label("key"), *said, sa.literal(0).label("own")).join_from(
            episode_feedback, work_order_episodes, joined.work_order == table.episode
        ),
    )
    words = pd.concat([own, shared], ignore_index=True).sort_values(["own", "id"], kind="stable")
    words = words.drop_duplicates("key", keep="last")
    useful = words["is_useful"].astype(bool)
    words["outcome"] = np.select([useful, words["reason"] == EXPECTED], ["true", "expected"], "false")
    words = words.rename(columns={"who": "said_by", "reason": "said"})[["key", "outcome", "said_by", "said"]]
    aside = _set_aside(connection)
    return pd.concat([words, aside[~aside["key"].isin(words["key"])]], ignore_index=True)


def _set_aside(connection: Connection) -> pd.DataFrame:
    import pandas as pd

    orders, joined = work_orders.c, work_order_episodes.c
    closed = orders.close_reason.in_(SPOKEN_BY_NOBODY)
    facts = (orders.closed_by.label("said_by"), orders.close_reason.label("said"))
    own = _frame(connection, sa.select(orders.episode.label("key"), *facts).where(closed))
    shared = _frame(
        connection,
        sa.select(joined.episode.label("key"), *facts)
        .join_from(work_orders, work_order_episodes, joined.work_order == orders.episode)
        .where(closed),
    )
    return pd.concat([own, shared], ignore_index=True).assign(outcome="aside")


def _told(connection: Connection) -> pd.DataFrame:
    """Episode → when the first message on it was taken."""
    first = sa.func.min(outbox.c.sent_at).label("told_at")
    query = (
        sa.select(episode_receivers.c.episode.label("key"), first)
        .join_from(episode_receivers, outbox, outbox.c.key == episode_receivers.c.notification)
        .where(outbox.c.sent_at.is_not(None))
        .group_by(episode_receivers.c.episode)
    )
    return _frame(connection, query)


def _acted(connection: Connection) -> pd.DataFrame:
    """Episode → when a person first did something about it."""
    import pandas as pd

    marks, events, joined = episode_acknowledgements.c, work_order_events.c, work_order_episodes.c
    by_person = sa.and_(events.who != SYSTEM, events.what.in_(("assigned", "closed")))
    parts = [
        _frame(connection, sa.select(marks.episode.label("key"), marks.at.label("acted_at"))),
        _frame(connection, sa.select(events.episode.label("key"), events.at.label("acted_at")).where(by_person)),
        _frame(
            connection,
            sa.select(joined.episode.label("key"), events.at.label("acted_at"))
            .join_from(work_order_events, work_order_episodes, joined.work_order == events.episode)
            .where(by_person),
        ),
    ]
    both = pd.concat(parts, ignore_index=True)
    both["acted_at"] = pd.to_datetime(both["acted_at"], utc=True)
    return both.groupby("key")["acted_at"].min().reset_index()


def _frame(connection: Connection, query: sa.Select[tuple[object, ...]]) -> pd.DataFrame:
    import pandas as pd

    rows = connection.execute(query)
    return pd.DataFrame([tuple(row) for row in rows], columns=list(rows.keys()))
