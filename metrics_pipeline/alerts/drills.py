"""Drills: an alert that is made up to see whether the right people hear of it, and act.

It goes the way of a real one (routes, groups, limits, silences, outbox, channels), is acknowledged and escalates like one, and
is marked as a drill wherever it is seen. It ends when it was acknowledged or when its time is over. Nothing real knows of it:
it has a rule and an instance of its own (`drill:<rule>`), opens no work order, mutes nothing, joins no incident, leaves no
transition, and takes no feedback. `_routes.yml` may say that some begin by themselves (`drills`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.announcing import Announcement, announce, announced, withdraw
from metrics_pipeline.alerts.holds import IN_DIGEST
from metrics_pipeline.alerts.notice import DRILL_PREFIX, RuleCard, SeriesSource
from metrics_pipeline.alerts.silencing import HeldBack, held_back
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.labels import DRILL, NAMELESS_DRILL
from metrics_pipeline.routing.model import ScheduledDrill
from metrics_pipeline.store import Store
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import MarkRow
from metrics_pipeline.store.records import Instance, Tier
from metrics_pipeline.store.tables import episodes

LASTS = timedelta(hours=2)
"""Longer than the usual first step of an escalation."""
GRACE = timedelta(hours=1)
"""So late a scheduled drill still begins, where nothing ran at its time; later it waits for its next time, because nobody expects
it at another hour."""
SCHEDULE = "schedule"
"""Who began a drill that began by itself."""
NAMELESS = RuleCard(
    id=NAMELESS_DRILL["alertname"],
    metric="",
    name_zh="报警演练",
    name_en="Alert drill",
    why="Whoever is on call should see it and acknowledge it.",
    why_zh="值班人员应当看到并确认。",
    labels={"scenario": NAMELESS_DRILL["scenario"]},
    kind="alarm",
)
"""What a drill is about that is of no rule."""


@dataclass(frozen=True)
class Drill:
    """A drill that was begun."""

    instance: str
    """`drill:refund_rate_surge{region=华北}`: what is acknowledged."""
    until: datetime
    """When it ends by itself (aware)."""
    queued: tuple[str, ...]
    """Keys of the messages queued now."""
    held: tuple[HeldBack, ...]
    """Who is to hear of it later, and what holds it back."""


@dataclass(frozen=True)
class WaitingEnd:
    """The end of a drill that somebody is yet to be told."""

    instance: str
    receiver: str
    reason: str
    """wait (for the interval of its group), mute (time of day), limit or flapping (in a digest)."""
    until: datetime | None


class DrillError(ValueError):
    """A drill that cannot be begun; the message says why and what to do."""


def start_drill(
    store: Store,
    card: RuleCard,
    routing: Routing,
    *,
    now: datetime,
    dimension: str = "all",
    member: str = "all",
    tier: Tier = "red",
    grain: str = "day",
    lasts: timedelta = LASTS,
    who: str = "",
    series: SeriesSource | None = None,
) -> Drill:
    """Begin a drill of a rule on a slice. `card`: of the rule, or `NAMELESS`; `grain`: of the rule; `who` begins it; `now`: aware.

    Raises `DrillError` when one of this rule and slice goes on, or when it would not last.
    """
    if lasts <= timedelta():
        raise DrillError("a drill has to last for a while; give a longer time")
    until = now + lasts
    wanted = Announcement(_drill_card(card), dimension, member, tier, grain)
    with store.reading() as connection:
        if any(one.key == wanted.instance for one in announced(connection, wanted.card.id)):
            raise DrillError(f"{wanted.instance} goes on; acknowledge it, or end it with `metrics alerts drill --end`")
    queued = announce(store, wanted, routing, now=now, marks=[("drill", who, until)], series=series)
    held = tuple(one for one in held_back(store) if one.instance == wanted.instance)
    return Drill(wanted.instance, until, queued, held)


def end_drills(
    store: Store, routing: Routing, *, now: datetime, at_once: bool = False, series: SeriesSource | None = None
) -> list[str]:
    """End the drills that were acknowledged or whose time is over (`at_once`: all); returns their instances.

    Whoever was told the beginning is told who took it on, and after how long.
    """
    ended = []
    with store.reading() as connection:
        found = _running(connection)
    for one, lasts, ack in found:
        if at_once or _is_over(lasts, ack, now):
            texts = _end_texts(ack, one.evaluated_at, routing.local)
            withdraw(store, one.key, routing, now=now, texts=texts, series=series)
            ended.append(one.key)
    return ended


def waiting_ends(store: Store, instances: Collection[str]) -> list[WaitingEnd]:
    """Of these drills, who was told the beginning and is yet to be told the end, and when that is."""
    with store.reading() as connection:
        query = sa.select(episodes.c.key, episodes.c.instance).where(
            episodes.c.instance.in_(list(instances)), episodes.c.closed_at.is_not(None)
        )
        closed = {row.key: row.instance for row in connection.execute(query)}
        pairs = [
            one
            for one in rows.pairs_of_episodes(connection, closed.keys())
            if one.end_notification is None and one.tier != "none"
        ]
        groups = rows.groups_by_key(connection, {one.group_key for one in pairs})
        digests = rows.digests(connection, {one.receiver for one in pairs})
    found = []
    for one in pairs:
        until = one.held_until
        if one.held in IN_DIGEST:
            until = digests[one.receiver].due_at if one.receiver in digests else None
        elif until is None and one.group_key in groups:
            until = groups[one.group_key].wake_at
        found.append(WaitingEnd(closed[one.episode], one.receiver, one.held or "wait", until))
    return sorted(found, key=lambda one: (one.instance, one.receiver))


def is_drill_over(connection: Connection, now: datetime) -> bool:
    """Whether a drill has to be ended. Costs one small query when none goes on."""
    return any(_is_over(lasts, ack, now) for _, lasts, ack in _running(connection))


def start_scheduled(
    store: Store, routing: Routing, *, now: datetime, series: SeriesSource | None = None
) -> list[Drill]:
    """Begin the drills of the routes whose time has come and that have not begun since. `now`: aware."""
    with store.reading() as connection:
        due = list(_scheduled(connection, routing.drills, now, routing.local))
    return [
        start_drill(
            store,
            card,
            routing.only(plan.receiver) if plan.receiver and plan.receiver in routing.receivers else routing,
            now=now,
            dimension=plan.dimension,
            member=plan.member,
            tier=plan.severity,
            grain="hour" if card.kind == "alarm" or card.asset_key[:1] == ("hourly",) else "day",
            lasts=plan.lasts,
            who=SCHEDULE,
            series=series,
        )
        for plan, card in due
    ]


def is_drill_scheduled(connection: Connection, plans: Iterable[ScheduledDrill], now: datetime, local: tzinfo) -> bool:
    """Whether a drill has to begin by itself. `local`: the shop's time zone, on whose clock the plans are."""
    return any(True for _ in _scheduled(connection, plans, now, local))


def _scheduled(
    connection: Connection, plans: Iterable[ScheduledDrill], now: datetime, local: tzinfo
) -> Iterator[tuple[ScheduledDrill, RuleCard]]:
    """What has to begin, with its card. A rule that was never judged has none, so there is nothing to drill yet."""
    clock = now.astimezone(local).replace(tzinfo=None)
    seen: set[str] = set()
    for plan in plans:
        time = plan.last_time(clock)
        if time is None or clock - time > GRACE:
            continue
        cards = {NAMELESS.id: NAMELESS} if plan.rule is None else _cards(connection, [plan.rule])
        for card in cards.values():
            wanted = Announcement(_drill_card(card), plan.dimension, plan.member)
            begun = sa.select(sa.func.max(episodes.c.first_period)).where(
                episodes.c.rule == wanted.card.id, episodes.c.instance == wanted.instance
            )
            last = connection.execute(begun).scalar()
            goes_on = any(one.key == wanted.instance for one in announced(connection, wanted.card.id))
            if (last is None or last < time) and not goes_on and wanted.instance not in seen:
                seen.add(wanted.instance)
                yield plan, card


def _running(connection: Connection) -> list[tuple[Instance, MarkRow | None, MarkRow | None]]:
    """The drills that go on, how long each lasts, and who took it on."""
    found = announced(connection, DRILL_PREFIX)
    if not found:
        return []
    marks = rows.marks(connection, {one.episode for one in found if one.episode})
    return [(one, marks.get((one.episode or "", "drill")), marks.get((one.episode or "", "ack"))) for one in found]


def _cards(connection: Connection, rules: Iterable[str]) -> dict[str, RuleCard]:
    return {rule: RuleCard.from_json(card) for rule, card in rows.cards(connection, list(rules)).items()}


def _is_over(lasts: MarkRow | None, ack: MarkRow | None, now: datetime) -> bool:
    return ack is not None or lasts is None or now >= lasts.until


def _drill_card(card: RuleCard) -> RuleCard:
    return replace(
        card,
        id=f"{DRILL_PREFIX}{card.id}",
        alert=card.id,
        labels={**card.labels, DRILL: card.id},
        upstream=(),
        parts=(),
    )


def _end_texts(ack: MarkRow | None, begun: datetime, local: tzinfo) -> dict[str, str]:
    """What the end says: who acknowledged the drill, when, and how long that took."""
    if ack is None:
        return {
            "summary": "The drill is over; nobody acknowledged it.",
            "summary_zh": "演练结束，无人确认。",
        }
    minutes = max(0, round((ack.at - begun) / timedelta(minutes=1)))
    clock = ack.at.astimezone(local).strftime("%H:%M")
    return {
        "summary": f"The drill is over: {ack.who} acknowledged it at {clock}, {minutes} min after it began.",
        "summary_zh": f"演练结束：{ack.who} 于 {clock} 确认，用时 {minutes} 分钟。",
    }
