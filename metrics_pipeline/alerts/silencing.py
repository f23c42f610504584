"""What people do about messages: silence alerts, acknowledge or snooze an episode. None of it changes a state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from metrics_pipeline.alerts.holds import Labeller
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.matchers import Matcher, match_all, parse_matchers, show_matchers
from metrics_pipeline.store import Store
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import MarkKind, MarkRow, SilenceRow
from metrics_pipeline.store.records import Tier


class SilencingError(ValueError):
    """Something that cannot be silenced, acknowledged or snoozed; the message says why and what to do."""


@dataclass(frozen=True)
class Muted:
    """An alert that fires now and that a silence would mute."""

    instance: str
    rule: str
    dimension: str
    member: str
    tier: Tier


def read_matchers(texts: Sequence[str]) -> tuple[Matcher, ...]:
    """The matchers of a silence. Raises `SilencingError` when there are none, `MatcherError` for what is none."""
    found = tuple(matcher for text in texts for matcher in parse_matchers(text))
    if all(matcher.accepts("") for matcher in found):
        raise SilencingError(
            'a silence needs a matcher that not every alert fulfils; write e.g. alertname="refund_rate_surge"'
        )
    return found


def preview_silence(store: Store, routing: Routing, matchers: Sequence[Matcher]) -> list[Muted]:
    """The alerts that fire now and that a silence with these matchers would mute, red first."""
    with store.reading() as connection:
        cards = {rule: RuleCard.from_json(card) for rule, card in rows.cards(connection).items()}
        labeller = Labeller(cards, routing)
        found = [
            Muted(one.instance, one.rule, one.dimension, one.member, one.tier)
            for one in rows.firing(connection)
            if match_all(matchers, labeller.labels(one.rule, one.grain, one.dimension, one.member, one.tier))
        ]
    return sorted(found, key=lambda one: (-RANK[one.tier], one.instance))


def add_silence(
    store: Store,
    matchers: Sequence[Matcher],
    *,
    author: str,
    reason: str,
    starts_at: datetime,
    expires_at: datetime,
    now: datetime,
) -> int:
    """Write a silence; returns its number. Times: aware. Raises `SilencingError` when it would never hold.

    It also counts for what is queued and not sent yet: senders take that back (`recall`).
    """
    if expires_at <= max(starts_at, now):
        raise SilencingError(f"the silence would be over at {expires_at.isoformat()}; give it a later end")
    if not author or not reason:
        raise SilencingError("a silence needs an author and a reason; whoever finds it at night wants to know")
    row = SilenceRow(0, show_matchers(matchers), author, reason, now, starts_at, expires_at, None)
    with store.writing("alerts") as connection:
        return rows.add_silence(connection, row)


def expire_silence(store: Store, number: int, *, who: str, now: datetime) -> bool:
    """End a silence now; what it held back is told in the next round. False when it does not hold (any more)."""
    with store.writing("alerts") as connection:
        done = rows.expire_silence(connection, number, who=who, now=now)
        if done:
            rows.wake_groups(connection, now)
    return done


def list_silences(store: Store, *, now: datetime | None = None) -> list[SilenceRow]:
    """Silences, the newest first; with `now` only those that hold or are to come."""
    with store.reading() as connection:
        return rows.all_silences(connection, since=now)


def acknowledge(
    store: Store,
    subject: str,
    *,
    who: str,
    note: str = "",
    now: datetime,
    until: datetime,
    is_meant: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """Take on the open episodes of a subject (an episode, an alert or a rule); returns their keys, [] when there is none.

    Until it ends (or the episode does) nothing is repeated and nobody else is told. `is_meant`: of these keys only those.
    """
    return _mark(store, subject, "ack", who=who, note=note, now=now, until=until, is_meant=is_meant)


def snooze(
    store: Store,
    subject: str,
    *,
    who: str,
    note: str = "",
    now: datetime,
    until: datetime,
    is_meant: Callable[[str], bool] = lambda _: True,
) -> list[str]:
    """Hold back news of the open episodes of a subject until a time; their end is still told. Returns their keys."""
    return _mark(store, subject, "snooze", who=who, note=note, now=now, until=until, is_meant=is_meant)


@dataclass(frozen=True)
class HeldBack:
    """Something that fires and that a receiver has not been told (at this tier), and why."""

    instance: str
    receiver: str
    tier: Tier
    reason: str
    """silence, inhibited, snooze, mute (time of day), upstream (data missing), limit or flapping (in a digest), wait."""
    until: datetime | None


def held_back(store: Store) -> list[HeldBack]:
    """What fires and waits to be told, red first. `wait`: for its group."""
    with store.reading() as connection:
        pairs = rows.untold_pairs(connection)
        members = rows.members(connection, {pair.episode for pair in pairs})
    found = [
        HeldBack(one.instance, pair.receiver, pair.wanted, pair.held or "wait", pair.held_until)
        for pair in pairs
        if (one := members.get(pair.episode)) is not None and one.fires and RANK[pair.wanted] > RANK[pair.tier]
    ]
    return sorted(found, key=lambda one: (-RANK[one.tier], one.instance, one.receiver))


def _mark(
    store: Store,
    subject: str,
    kind: MarkKind,
    *,
    who: str,
    note: str,
    now: datetime,
    until: datetime,
    is_meant: Callable[[str], bool],
) -> list[str]:
    if until <= now:
        raise SilencingError(f"{until.isoformat()} is over; give a later time")
    if not who:
        raise SilencingError("somebody has to be named")
    with store.writing("alerts") as connection:
        keys = [key for key in rows.open_episode_keys(connection, subject) if is_meant(key)]
        rows.save_marks(connection, [MarkRow(key, kind, who, note, now, until) for key in keys])
        rows.wake_groups(connection, now, rows.groups_of_episodes(connection, keys))
    return keys
