"""Taking back what is queued: a silence or a snooze that is newer than a notification counts for it, too.

While a channel is down, notifications wait; what people silence meanwhile would still be told once the channel is up. So a
sender has what it is about to send looked at again (`is_muted`), and what is muted is taken back (`recall`): its row is not
sent, and what its receiver knows is as it was before. The round that follows decides anew, by level, as always: what is
muted is held until the mute ends, whatever else was in the message is told, and what ended in between, without a word to
anybody, has no end to tell. A row that may have arrived (an attempt without an answer) is never taken back: whoever may
have been told a beginning gets its end.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.addressing import new_group
from metrics_pipeline.alerts.holds import IN_DIGEST, Labeller
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.matchers import match_all, parse_matchers
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store import outbox as outbox_rows
from metrics_pipeline.store.dispatch import DigestRow, Pair
from metrics_pipeline.store.outbox import QueuedRow
from metrics_pipeline.store.records import Told


def is_muted(
    connection: Connection, reason: str, told: Collection[Told], routing: Callable[[], Routing], *, now: datetime
) -> bool:
    """Whether somebody has silenced or snoozed, by now, an alert that a queued notification would tell of.

    `reason`: why the notification is sent. `routing` is only asked for when something is silenced. Costs one small query when
    nothing is.
    """
    if not told or not rows.is_anything_muted(connection, now):
        return False
    return _Mutes(connection, routing(), told, now).any_of(reason, told)


def recall(connection: Connection, routing: Callable[[], Routing], *, now: datetime) -> tuple[str, ...]:
    """Take back every queued notification that is muted by now, and those behind it that build on it; returns their keys.

    The caller holds the transaction for `alerts`. The groups they came from are woken: the next round tells what is left.
    """
    if not rows.is_anything_muted(connection, now):
        return ()
    queued = outbox_rows.recallable(connection)
    if not queued:
        return ()
    mutes = _Mutes(connection, routing(), (one for row in queued for one in row.told), now)
    chosen = _chosen(queued, mutes)
    taken = [row for row in reversed(chosen) if outbox_rows.recall(connection, row.key)]
    if taken:
        _undo(connection, taken, now)
    return tuple(row.key for row in reversed(taken))


class _Mutes:
    """The silences and snoozes of an instant, asked about episodes."""

    def __init__(self, connection: Connection, routing: Routing, told: Iterable[Told], now: datetime) -> None:
        keys = {one.episode for one in told}
        cards: Mapping[str, RuleCard] = {
            rule: RuleCard.from_json(card) for rule, card in rows.cards(connection).items()
        }
        self._now = now
        self._labeller = Labeller(cards, routing)
        self._members = rows.members(connection, keys)
        self._marks = rows.marks(connection, keys)
        self._silences = [parse_matchers(one.matchers) for one in rows.active_silences(connection, now)]

    def any_of(self, reason: str, told: Iterable[Told]) -> bool:
        """Whether a notification says something that is muted. What goes on counts where it is all there is to say."""
        changes = ("news", "ongoing") if reason == "repeat" else ("news",)
        return any(one.change in changes and self._holds(one) for one in told)

    def _holds(self, told: Told) -> bool:
        member = self._members.get(told.episode)
        if member is None:
            return False
        snooze = self._marks.get((told.episode, "snooze"))
        if snooze is not None and snooze.until > self._now:
            return True
        labels = self._labeller.labels(member.rule, member.grain, member.dimension, member.member, told.tier)
        return any(match_all(matchers, labels) for matchers in self._silences)


def _chosen(queued: Sequence[QueuedRow], mutes: _Mutes) -> list[QueuedRow]:
    """What is muted, and what tells the same receiver more of an episode whose telling is taken back; oldest first."""
    undone: dict[str, set[str]] = {}
    chosen = []
    for row in queued:
        mine = undone.setdefault(row.receiver, set())
        if mutes.any_of(row.reason, row.told) or any(one.episode in mine for one in row.told):
            chosen.append(row)
            mine.update(one.episode for one in row.told if one.change != "ongoing")
    return chosen


def _undo(connection: Connection, taken: Sequence[QueuedRow], now: datetime) -> None:
    """Make what receivers know what it was before these rows, given newest first, and have it looked at."""
    known = rows.pairs_of_episodes(connection, {one.episode for row in taken for one in row.told})
    pairs = {(pair.episode, pair.receiver): pair for pair in known}
    before = dict(pairs)
    for row in taken:
        for one in row.told:
            place = one.episode, row.receiver
            if place in pairs:
                pairs[place] = _undone(pairs[place], row.key, one)
    changed = [pair for place, pair in pairs.items() if pair != before[place]]
    rows.save_pairs(connection, changed)
    repeats = {row.group_key for row in taken if row.reason == "repeat"}
    wanted = {pair.group_key for pair in changed} | repeats
    groups = rows.groups_by_key(connection, wanted)
    found = [groups.get(key) or new_group(key, {}, now) for key in sorted(wanted)]
    rows.save_groups(
        connection,
        [one._replace(wake_at=now, repeat_at=now if one.key in repeats else one.repeat_at) for one in found],
    )
    receivers = {pair.receiver for pair in changed if pair.held in IN_DIGEST}
    digests = rows.digests(connection, receivers)
    rows.save_digests(
        connection, [(digests.get(one) or DigestRow(one, None, None))._replace(due_at=now) for one in sorted(receivers)]
    )


def _undone(pair: Pair, key: str, told: Told) -> Pair:
    if told.change == "end" and pair.end_notification == key:
        return pair._replace(end_notification=None, held=told.held, held_until=None)
    if told.change == "news" and pair.end_notification is None:
        tier = told.before if RANK[told.before] < RANK[pair.tier] else pair.tier
        first = "" if pair.notification == key else pair.notification
        return pair._replace(tier=tier, notification=first, held=told.held, held_until=None)
    return pair
