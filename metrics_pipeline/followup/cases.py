"""Cases: episodes as people look back on them, with whom they were told to, what was done, what came of it, and a picture.

Episodes of one incident are one case, at the worst of them. Everything is read for all episodes at once; what the viewer may not see is left out (slices)
or None (numbers).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.access.model import Level
from metrics_pipeline.advice.told import NOTHING as NO_ADVICE
from metrics_pipeline.advice.told import Told, told_of
from metrics_pipeline.alerts.notice import Notice, RuleCard, Series
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.delivery.guard import masked as masked_notice
from metrics_pipeline.delivery.standing import masked
from metrics_pipeline.diagnosis.attached import UNEXPLAINED, Explained, explained_of
from metrics_pipeline.store import dispatch
from metrics_pipeline.store import work_orders as order_rows
from metrics_pipeline.store.bulk import among, chunks
from metrics_pipeline.store.records import WorkOrder
from metrics_pipeline.store.tables import episode_receivers, outbox

if TYPE_CHECKING:
    import pandas as pd

PICTURES = 12
"""Cases of a page that have a picture."""


@dataclass(frozen=True)
class Notified:
    """Who was told, and when a channel took it (UTC); None: not sent."""

    receiver: str
    """A person by id where the address is somebody's; else masked."""
    at: datetime | None


@dataclass(frozen=True)
class Case:
    """One alert, or one incident at the worst of its alerts. Periods are shop-local, instants UTC (aware)."""

    key: str
    """Of the episode."""
    rule: str
    card: RuleCard
    dimension: str
    member: str
    grain: str
    tier: str
    first_period: datetime
    last_period: datetime
    value: float | None
    opened_at: datetime
    told_at: datetime | None
    acted_at: datetime | None
    closed_at: datetime | None
    close_reason: str
    outcome: str
    said: str
    said_by: str
    told: tuple[Notified, ...] = ()
    order: WorkOrder | None = None
    incident: str = ""
    others: tuple[tuple[str, str, str], ...] = ()
    """Further alerts of the incident: rule, dimension, member."""
    advice: Told = NO_ADVICE
    """What was advised, and how similar alerts were handled."""
    cause: Explained = UNEXPLAINED
    """Why its value was what it was, by the diagnosis kept with it."""
    series: Series | None = field(default=None, repr=False)

    @property
    def end(self) -> datetime:
        return self.closed_at or self.opened_at

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        order = self.order
        return {
            "episode": self.key,
            "rule": self.rule,
            "metric": self.card.metric,
            "dimension": self.dimension,
            "member": self.member,
            "tier": self.tier,
            "first_period": self.first_period.isoformat(),
            "last_period": self.last_period.isoformat(),
            "value": self.value,
            "opened_at": self.opened_at.isoformat(),
            "told": [{"receiver": one.receiver, "at": _iso(one.at)} for one in self.told],
            "acted_at": _iso(self.acted_at),
            "closed_at": _iso(self.closed_at),
            "close_reason": self.close_reason,
            "outcome": self.outcome,
            "said": self.said,
            "said_by": self.said_by,
            "incident": self.incident,
            "others": [list(one) for one in self.others],
            "cause": self.cause.as_json(),
            **self.advice.as_json(currency=self.card.currency),
            "order": None
            if order is None
            else {"number": order.id, "state": order.state, "assignee": order.assignee, "due_at": _iso(order.due_at),
                  "close_reason": order.close_reason, "note": order.close_note},
        }  # fmt: skip


def cases_of(
    connection: Connection,
    answers: pd.DataFrame,
    sight: Sight,
    *,
    people: Mapping[str, str],
    now: datetime,
    pictures: int = PICTURES,
) -> list[Case]:
    """The cases of these episodes (rows of `read_answers`), red and true ones first, then the oldest; the first ones with a picture."""
    keys = answers["key"].tolist()
    incidents = dispatch.incidents_of(connection, keys)
    orders = order_rows.by_episode(connection, keys)
    told = _told(connection, keys, people)
    cards = {name: RuleCard.from_json(card) for name, card in dispatch.cards(connection).items()}
    grouped: dict[str, list[Case]] = defaultdict(list)
    for row in answers.to_dict("records"):
        key = str(row["key"])
        found = _case(row, cards, sight, told.get(key, ()), orders.get(key), incidents.get(key, ""))
        grouped[found.incident or key].append(found)
    merged = [_merged(some) for some in grouped.values()]
    ordered = sorted(merged, key=lambda one: (one.tier != "red", one.outcome != "true", one.opened_at, one.key))
    series = _series(connection, [one.key for one in ordered[:pictures]], sight)
    advice = told_of(connection, [one.key for one in ordered], now=now)
    causes = explained_of(connection, [one.key for one in ordered])
    return [
        replace(
            one,
            series=series.get(one.key),
            advice=advice.get(one.key, NO_ADVICE).seen_by(sight),
            cause=causes.get(one.key, UNEXPLAINED).seen_by(sight),
        )
        for one in ordered
    ]


def _case(  # noqa: PLR0917
    row: Mapping[Any, Any],
    cards: Mapping[str, RuleCard],
    sight: Sight,
    told: Sequence[Notified],
    order: WorkOrder | None,
    incident: str,
) -> Case:
    key, rule = str(row["key"]), str(row["rule"])
    shows = sight.level_of(key) == Level.EXACT and sight.shows_shares(key)
    return Case(
        key=key,
        rule=rule,
        card=cards.get(rule) or RuleCard(rule, ""),
        dimension=row["dimension"],
        member=row["member"],
        grain=row["grain"],
        tier=row["worst_tier"],
        first_period=row["first_period"].to_pydatetime(),
        last_period=row["last_period"].to_pydatetime(),
        value=_number(row["worst_value"]) if shows else None,
        opened_at=_instant(row["opened_at"]) or row["opened_at"],
        told_at=_instant(row["told_at"]),
        acted_at=_instant(row["acted_at"]),
        closed_at=_instant(row["closed_at"]),
        close_reason=row["close_reason"] or "",
        outcome=row["outcome"],
        said=row["said"],
        said_by=row["said_by"],
        told=tuple(told),
        order=order,
        incident=incident,
    )


def _merged(some: Sequence[Case]) -> Case:
    """One case of the alerts of an incident: the worst, of equals the coarsest slice, with what is known of any of them."""
    first = min(some, key=_standing)
    if len(some) == 1:
        return first
    told: dict[str, Notified] = {}
    for one in (told for case in some for told in case.told):
        if one.receiver not in told or (one.at is not None and one.at < (told[one.receiver].at or one.at)):
            told[one.receiver] = one
    times = [one.told_at for one in some if one.told_at is not None]
    acts = [one.acted_at for one in some if one.acted_at is not None]
    ends = [one.closed_at for one in some]
    return replace(
        first,
        told=tuple(told.values()),
        told_at=min(times, default=None),
        acted_at=min(acts, default=None),
        closed_at=None if None in ends else max(one for one in ends if one is not None),
        first_period=min(one.first_period for one in some),
        last_period=max(one.last_period for one in some),
        order=first.order or next((one.order for one in some if one.order is not None), None),
        others=tuple((one.rule, one.dimension, one.member) for one in some if one is not first),
    )


def _standing(one: Case) -> tuple[bool, bool, int, datetime, str]:
    parts = 0 if one.dimension == "all" else len(one.dimension.split("|"))
    return one.tier != "red", one.outcome == "unanswered", parts, one.opened_at, one.key


def _told(connection: Connection, keys: Collection[str], people: Mapping[str, str]) -> dict[str, tuple[Notified, ...]]:
    """Episode → who was told of it first, and when."""
    found: dict[str, list[Notified]] = defaultdict(list)
    pairs = episode_receivers.c
    for some in chunks(keys):
        query = (
            sa.select(pairs.episode, pairs.receiver, outbox.c.sent_at)
            .join_from(episode_receivers, outbox, outbox.c.key == pairs.notification)
            .where(among(connection, pairs.episode, some))
            .order_by(pairs.episode, outbox.c.sent_at)
        )
        for row in connection.execute(query):
            address = row.receiver.partition(":")[2]
            found[row.episode].append(Notified(people.get(address) or masked(row.receiver), row.sent_at))
    return {key: tuple(rows) for key, rows in found.items()}


def _series(connection: Connection, keys: Sequence[str], sight: Sight) -> dict[str, Series]:
    """Episode → the picture of its slice in the newest message on it, as far as the viewer may see it."""
    pairs = episode_receivers.c
    query = (
        sa.select(pairs.episode, outbox.c.payload)
        .join_from(
            episode_receivers,
            outbox,
            sa.or_(outbox.c.key == pairs.notification, outbox.c.key == pairs.end_notification),
        )
        .where(pairs.episode.in_(keys))
        .order_by(outbox.c.id)
    )
    found: dict[str, Series] = {}
    for row in connection.execute(query):
        try:
            notice = masked_notice(Notice.from_json(row.payload), sight)
        except (KeyError, TypeError):  # of another release
            continue
        series = notice.series
        if series is not None and row.episode.startswith(f"{notice.rule.id}{{{series.dimension}={series.member}}}@"):
            found[row.episode] = series
    return found


def _instant(moment: Any) -> datetime | None:
    """A column's UTC time, aware; None for a gap."""
    return None if moment != moment or moment is None else moment.to_pydatetime().replace(tzinfo=UTC)  # noqa: PLR0124


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)  # noqa: PLR0124


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
