"""What people were told and what they wait for: read and written in bulk, on the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import among, chunks, insert_rows, read_rows, write_columns
from metrics_pipeline.store.records import State, Tier
from metrics_pipeline.store.tables import (
    alert_instances,
    dispatch_buckets,
    dispatch_digests,
    dispatch_groups,
    episode_acknowledgements,
    episode_marks,
    episode_receivers,
    episodes,
    flapping_receivers,
    incident_episodes,
    incidents,
    rule_cards,
    silences,
    transitions,
)

NEVER_TOLD: Final = "-"
"""`end_notification` of what ended without a word, because its beginning was not told (or its end was not wanted)."""

MarkKind = Literal["ack", "snooze", "drill"]


class Pair(NamedTuple):
    """One episode and one receiver: what they are to know of it, and what they were told."""

    episode: str
    receiver: str
    """`<channel>` or `<channel>:<address>`"""
    tier: Tier
    """Told at this tier; none: not told yet."""
    notification: str
    end_notification: str | None
    """The notification that brought the end; None: not told yet."""
    group_key: str
    route: str
    """Id of the route that led here."""
    receiver_name: str
    """Name of the receiver in the routes file."""
    wanted: Tier
    """To be told at this tier."""
    held: str
    """Why it is held back: '', or silence, inhibited, snooze, mute, upstream, flapping, limit."""
    held_until: datetime | None


class Member(NamedTuple):
    """An episode with the present facts of its alert."""

    episode: str
    instance: str
    rule: str
    first_period: datetime
    closed_at: datetime | None
    close_reason: str | None
    worst_tier: Tier
    worst_excess: float | None
    dimension: str
    member: str
    grain: str
    state: State
    tier: Tier
    data_period: datetime | None
    last_period: datetime | None
    value: float | None
    observed: float | None
    baseline: float | None
    lower: float | None
    upper: float | None
    yellow_bound: float | None
    red_bound: float | None
    changes: int
    is_flapping: bool
    unknown_reason: str
    metric_version: str
    current: str | None
    """Episode that is open on the alert now."""

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def fires(self) -> bool:
        """Whether this episode fires now."""
        return self.closed_at is None and self.state == "firing" and self.current == self.episode


class Group(NamedTuple):
    """Alerts that people are told of together."""

    key: str
    labels: str
    """JSON"""
    opened_at: datetime
    sent_at: datetime | None
    repeat_at: datetime | None
    red_since: datetime | None
    """Since when a red alert is told and not acknowledged."""
    escalated: int
    """Steps of escalation that were taken since."""
    is_inhibited: bool
    wake_at: datetime | None


class BucketRow(NamedTuple):
    """A token bucket as it was when it was last used."""

    key: str
    tokens: float
    filled_at: datetime


class DigestRow(NamedTuple):
    """The digests of a receiver."""

    receiver: str
    due_at: datetime | None
    sent_at: datetime | None


class FlappingRow(NamedTuple):
    """A receiver who was told that an alert comes and goes."""

    instance: str
    receiver: str
    tier: Tier
    since: datetime


class SilenceRow(NamedTuple):
    """Alerts that match are not told while it holds."""

    id: int
    matchers: str
    author: str
    reason: str
    created_at: datetime
    starts_at: datetime
    expires_at: datetime
    expired_by: str | None


class MarkRow(NamedTuple):
    """An acknowledgement or a snooze of an episode, or how long a drill lasts."""

    episode: str
    kind: MarkKind
    who: str
    note: str
    at: datetime
    until: datetime


class FiringRow(NamedTuple):
    """An alert that fires, as far as its labels go."""

    instance: str
    rule: str
    dimension: str
    member: str
    grain: str
    tier: Tier
    episode: str
    data_period: datetime | None


class LostRow(NamedTuple):
    """A slice whose data is missing."""

    rule: str
    dimension: str
    member: str
    grain: str
    period: datetime | None
    reason: str


# -- pairs ---------------------------------------------------------------------------------------------------------


def pairs_of_episodes(connection: Connection, keys: Collection[str]) -> list[Pair]:
    """All pairs of these episodes, ended ones too."""
    return _all(connection, Pair, sa.select(episode_receivers), episode_receivers.c.episode, keys)


def open_pairs(connection: Connection, groups: Collection[str]) -> list[Pair]:
    """The pairs of these groups whose end has not been told."""
    query = sa.select(episode_receivers).where(episode_receivers.c.end_notification.is_(None))
    return _all(connection, Pair, query, episode_receivers.c.group_key, groups)


def held_pairs(connection: Connection, receivers: Collection[str], held: Collection[str]) -> list[Pair]:
    """The pairs of these receivers that are held back for one of these reasons."""
    query = sa.select(episode_receivers).where(
        episode_receivers.c.end_notification.is_(None), episode_receivers.c.held.in_(list(held))
    )
    return _all(connection, Pair, query, episode_receivers.c.receiver, receivers)


def untold_pairs(connection: Connection) -> list[Pair]:
    """The pairs that are to be told at another tier than they were."""
    query = sa.select(episode_receivers).where(
        episode_receivers.c.end_notification.is_(None), episode_receivers.c.wanted != episode_receivers.c.tier
    )
    return [Pair._make(row) for row in connection.execute(query)]


def save_pairs(connection: Connection, changed: Iterable[Pair]) -> None:
    """Insert or replace pairs by episode and receiver."""
    insert_rows(connection, episode_receivers, changed, replace=True)


def groups_of_rules(connection: Connection, rules: Collection[str]) -> set[str]:
    """Groups that hold an episode of these rules whose end somebody has not been told."""
    query = (
        sa.select(episode_receivers.c.group_key)
        .distinct()
        .join(episodes, episodes.c.key == episode_receivers.c.episode)
        .where(episode_receivers.c.end_notification.is_(None))
    )
    found: set[str] = set()
    for some in chunks(rules):
        found.update(connection.execute(query.where(episodes.c.rule.in_(some))).scalars())
    return found


def groups_of_episodes(connection: Connection, keys: Collection[str]) -> set[str]:
    """Groups of these episodes where somebody has not been told the end."""
    return {pair.group_key for pair in pairs_of_episodes(connection, keys) if pair.end_notification is None}


def members(connection: Connection, keys: Collection[str]) -> dict[str, Member]:
    """Episodes with the facts of their alerts, by episode."""
    instance = alert_instances.c
    columns = [
        episodes.c.key.label("episode"),
        *(episodes.c[name] for name in Member._fields[1:8]),
        *(instance[name] for name in Member._fields[8:26]),
        instance.episode.label("current"),
    ]
    query = sa.select(*columns).join(alert_instances, instance.key == episodes.c.instance)
    return {one.episode: one for one in _all(connection, Member, query, episodes.c.key, keys)}


# -- groups --------------------------------------------------------------------------------------------------------


def groups_by_key(connection: Connection, keys: Collection[str]) -> dict[str, Group]:
    """The groups with these keys; absent ones are left out."""
    return {one.key: one for one in _all(connection, Group, sa.select(dispatch_groups), dispatch_groups.c.key, keys)}


def save_groups(connection: Connection, changed: Iterable[Group]) -> None:
    """Insert or replace groups by key."""
    insert_rows(connection, dispatch_groups, changed, replace=True)


def delete_groups(connection: Connection, keys: Collection[str]) -> None:
    """Forget groups in which nothing is left to tell."""
    for some in chunks(keys):
        connection.execute(sa.delete(dispatch_groups).where(dispatch_groups.c.key.in_(some)))


def due_groups(connection: Connection, now: datetime) -> set[str]:
    """Groups that have to be looked at."""
    return set(connection.execute(sa.select(dispatch_groups.c.key).where(dispatch_groups.c.wake_at <= now)).scalars())


def inhibited_groups(connection: Connection) -> set[str]:
    """Groups that hold something back because another alert fires."""
    return set(connection.execute(sa.select(dispatch_groups.c.key).where(dispatch_groups.c.is_inhibited)).scalars())


def wake_groups(connection: Connection, now: datetime, keys: Collection[str] | None = None) -> None:
    """Have groups (default: all) looked at as soon as possible."""
    if keys is None:
        connection.execute(sa.update(dispatch_groups).values(wake_at=now))
        return
    for some in chunks(keys):
        connection.execute(sa.update(dispatch_groups).where(dispatch_groups.c.key.in_(some)).values(wake_at=now))


def next_wake(connection: Connection) -> datetime | None:
    """When the next group or digest has to be looked at; None when none waits."""
    times: list[datetime | None] = [
        connection.execute(sa.select(sa.func.min(column))).scalar_one()
        for column in (dispatch_groups.c.wake_at, dispatch_digests.c.due_at)
    ]
    return min((one for one in times if one is not None), default=None)


# -- limits and digests --------------------------------------------------------------------------------------------


def buckets(connection: Connection, keys: Collection[str]) -> dict[str, BucketRow]:
    """Buckets by key; those never used are left out."""
    found = _all(connection, BucketRow, sa.select(dispatch_buckets), dispatch_buckets.c.key, keys)
    return {one.key: one for one in found}


def save_buckets(connection: Connection, changed: Iterable[BucketRow]) -> None:
    """Insert or replace buckets by key."""
    insert_rows(connection, dispatch_buckets, changed, replace=True)


def digests(connection: Connection, receivers: Collection[str]) -> dict[str, DigestRow]:
    """The digests of these receivers."""
    found = _all(connection, DigestRow, sa.select(dispatch_digests), dispatch_digests.c.receiver, receivers)
    return {one.receiver: one for one in found}


def due_digests(connection: Connection, now: datetime) -> set[str]:
    """Receivers whose digest is due."""
    return set(
        connection.execute(sa.select(dispatch_digests.c.receiver).where(dispatch_digests.c.due_at <= now)).scalars()
    )


def save_digests(connection: Connection, changed: Iterable[DigestRow]) -> None:
    """Insert or replace digests by receiver."""
    insert_rows(connection, dispatch_digests, changed, replace=True)


def firings_since(connection: Connection, instances: Collection[str], since: datetime) -> dict[str, int]:
    """How often each of these alerts began to fire, or turned red, since an instant."""
    query = (
        sa.select(transitions.c.instance, sa.func.count())
        .where(transitions.c.at >= since, transitions.c.to_state == "firing", ~transitions.c.silent)
        .where(transitions.c.reason.in_(("breach", "escalate")))
        .group_by(transitions.c.instance)
    )
    found: dict[str, int] = {}
    for some in chunks(instances):
        rows = connection.execute(query.where(transitions.c.instance.in_(some)))
        found.update((row[0], row[1]) for row in rows)
    return found


def flapping(connection: Connection, instances: Collection[str]) -> dict[tuple[str, str], FlappingRow]:
    """Who was told of these alerts that they come and go, by (instance, receiver)."""
    found = _all(connection, FlappingRow, sa.select(flapping_receivers), flapping_receivers.c.instance, instances)
    return {(one.instance, one.receiver): one for one in found}


def save_flapping(connection: Connection, changed: Iterable[FlappingRow]) -> None:
    """Insert or replace by instance and receiver."""
    insert_rows(connection, flapping_receivers, changed, replace=True)


def delete_flapping(connection: Connection, instances: Collection[str]) -> None:
    """Forget alerts that are stable again."""
    for some in chunks(instances):
        connection.execute(sa.delete(flapping_receivers).where(among(connection, flapping_receivers.c.instance, some)))


# -- what mutes ----------------------------------------------------------------------------------------------------


def firing(connection: Connection, rules: Collection[str] | None = None) -> list[FiringRow]:
    """Every alert that fires, of these rules (default: of all)."""
    table = alert_instances.c
    query = sa.select(
        table.key, table.rule, table.dimension, table.member, table.grain, table.tier, table.episode, table.data_period
    ).where(table.state == "firing", table.episode.is_not(None))
    if rules is None:
        return [FiringRow._make(row) for row in connection.execute(query)]
    return _all(connection, FiringRow, query, table.rule, rules)


def lost(connection: Connection, rules: Collection[str]) -> list[LostRow]:
    """Slices of these rules whose data is missing, or could not be judged, in their newest period."""
    table = alert_instances.c
    missing = sa.select(table.rule, table.dimension, table.member, table.grain, table.last_period, table.reason).where(
        table.state == "no_data"
    )
    unknown = sa.select(
        table.rule, table.dimension, table.member, table.grain, table.unknown_period, table.unknown_reason
    ).where(table.unknown_reason != "")
    return [row for query in (missing, unknown) for row in _all(connection, LostRow, query, table.rule, rules)]


def active_silences(connection: Connection, now: datetime) -> list[SilenceRow]:
    """Silences that hold at an instant."""
    query = sa.select(silences).where(silences.c.starts_at <= now, silences.c.expires_at > now)
    return [SilenceRow._make(row) for row in connection.execute(query.order_by(silences.c.id))]


def all_silences(connection: Connection, *, since: datetime | None = None) -> list[SilenceRow]:
    """Silences, the newest first; with `since`, without those that were over by then."""
    query = sa.select(silences).order_by(silences.c.id.desc())
    if since is not None:
        query = query.where(silences.c.expires_at > since)
    return [SilenceRow._make(row) for row in connection.execute(query)]


def add_silence(connection: Connection, row: SilenceRow) -> int:
    """Write a silence; returns its number (the row's own is not used)."""
    values = {name: value for name, value in row._asdict().items() if name != "id"}
    return int(connection.execute(sa.insert(silences).values(**values).returning(silences.c.id)).scalar_one())


def expire_silence(connection: Connection, number: int, *, who: str, now: datetime) -> bool:
    """End a silence before its time; False when there is none that holds or is to come."""
    changed = connection.execute(
        sa.update(silences)
        .where(silences.c.id == number, silences.c.expires_at > now)
        .values(expires_at=now, expired_by=who)
        .returning(silences.c.id)
    )
    return changed.one_or_none() is not None


def is_anything_muted(connection: Connection, now: datetime) -> bool:
    """Whether a silence or a snooze holds at an instant."""
    silence = sa.exists().where(silences.c.starts_at <= now, silences.c.expires_at > now)
    snooze = sa.exists().where(episode_marks.c.kind == "snooze", episode_marks.c.until > now)
    return bool(connection.execute(sa.select(sa.or_(silence, snooze))).scalar_one())


def marks(connection: Connection, keys: Collection[str]) -> dict[tuple[str, str], MarkRow]:
    """Acknowledgements and snoozes of these episodes, by (episode, kind)."""
    found = _all(connection, MarkRow, sa.select(episode_marks), episode_marks.c.episode, keys)
    return {(one.episode, one.kind): one for one in found}


def save_marks(connection: Connection, changed: Iterable[MarkRow]) -> None:
    """Insert or replace marks by episode and kind; who acknowledged an episode first is kept for good."""
    marked = list(changed)
    insert_rows(connection, episode_marks, marked, replace=True)
    first = [one for one in marked if one.kind == "ack"]
    columns = {name: [getattr(one, name) for one in first] for name in ("episode", "who", "at")}
    write_columns(connection, episode_acknowledgements, columns, ignore=True)


def delete_marks(connection: Connection, keys: Collection[str]) -> None:
    """Forget the marks of episodes that ended."""
    for some in chunks(keys):
        connection.execute(sa.delete(episode_marks).where(among(connection, episode_marks.c.episode, some)))


def open_episode_keys(connection: Connection, subject: str) -> list[str]:
    """The open episodes of a subject: an episode, an alert (instance key) or a rule."""
    query = sa.select(episodes.c.key).where(
        episodes.c.closed_at.is_(None),
        sa.or_(episodes.c.key == subject, episodes.c.instance == subject, episodes.c.rule == subject),
    )
    return list(connection.execute(query.order_by(episodes.c.key)).scalars())


# -- rules and incidents -------------------------------------------------------------------------------------------


def cards(connection: Connection, rules: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """The cards of these rules (default: of all) as they were last judged, as plain JSON values."""
    query = sa.select(rule_cards.c.rule, rule_cards.c.card)
    if rules is None:
        rows: Iterable[Any] = connection.execute(query)
    else:
        rows = [row for some in chunks(rules) for row in connection.execute(query.where(rule_cards.c.rule.in_(some)))]
    return {row[0]: json.loads(row[1]) for row in rows}


def save_cards(connection: Connection, changed: Mapping[str, dict[str, Any]], *, now: datetime) -> None:
    """Insert or replace cards by rule."""
    for rule, card in changed.items():
        text = json.dumps(card, ensure_ascii=False, sort_keys=True)
        done = connection.execute(
            sa.update(rule_cards)
            .where(rule_cards.c.rule == rule)
            .values(card=text, updated_at=now)
            .returning(rule_cards.c.rule)
        ).one_or_none()
        if done is None:
            connection.execute(sa.insert(rule_cards).values(rule=rule, card=text, updated_at=now))


class IncidentRow(NamedTuple):
    """Episodes that belong together."""

    id: str
    headline: str
    """Its episode of the highest metric."""
    opened_at: datetime
    closed_at: datetime | None


class IncidentEpisode(NamedTuple):
    """An episode of an incident."""

    episode: str
    incident: str


def incidents_of(connection: Connection, keys: Collection[str]) -> dict[str, str]:
    """Episode → its incident."""
    found = _all(connection, IncidentEpisode, sa.select(incident_episodes), incident_episodes.c.episode, keys)
    return {one.episode: one.incident for one in found}


def episodes_of_incidents(connection: Connection, ids: Collection[str]) -> dict[str, list[str]]:
    """Incident → its episodes, open and ended."""
    found: dict[str, list[str]] = {}
    for one in _all(connection, IncidentEpisode, sa.select(incident_episodes), incident_episodes.c.incident, ids):
        found.setdefault(one.incident, []).append(one.episode)
    return found


def incident_rows(connection: Connection, ids: Collection[str]) -> dict[str, IncidentRow]:
    """Incidents by id."""
    return {one.id: one for one in _all(connection, IncidentRow, sa.select(incidents), incidents.c.id, ids)}


def save_incidents(connection: Connection, changed: Iterable[IncidentRow]) -> None:
    """Insert or replace incidents by id."""
    insert_rows(connection, incidents, changed, replace=True)


def save_incident_episodes(connection: Connection, changed: Iterable[IncidentEpisode]) -> None:
    """Insert or replace what belongs to incidents, by episode."""
    insert_rows(connection, incident_episodes, changed, replace=True)


def _all(
    connection: Connection, kind: Any, query: sa.Select[Any], column: sa.ColumnElement[Any], values: Collection[Any]
) -> list[Any]:
    """The rows whose column has one of the values, as named tuples."""
    return [
        row
        for some in chunks(values)
        for row in read_rows(connection, query.where(among(connection, column, some)), kind._make)
    ]
