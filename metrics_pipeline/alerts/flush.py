"""One round of telling: what is news to whom in these groups, what waits and until when, and the rows of the outbox.

The order of the stages: what ended without a word is closed → what holds is held → a group waits for its time → limits →
the message. Whoever was told a beginning gets exactly one end: nothing but the time of day delays it, and nothing loses it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.addressing import new_group
from metrics_pipeline.alerts.holds import IN_DIGEST, Hold, Holds
from metrics_pipeline.alerts.incidents import GROUP
from metrics_pipeline.alerts.limits import Purse, all_bucket_keys, bucket_keys
from metrics_pipeline.alerts.notice import POINTS, Change, Notice, RuleCard, Series, SeriesKey, SeriesSource
from metrics_pipeline.alerts.parts import parts_of
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.alerts.telling import DIGEST, Telling, compose_notice, headline, severity
from metrics_pipeline.routing.decide import Recipient, Routing
from metrics_pipeline.routing.model import EscalationStep
from metrics_pipeline.routing.tree import Timing
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store import outbox as outbox_rows
from metrics_pipeline.store.bulk import chunks
from metrics_pipeline.store.dispatch import NEVER_TOLD, DigestRow, FlappingRow, Group, Member, Pair
from metrics_pipeline.store.metric_versions import version_names
from metrics_pipeline.store.records import NewNotification, Tier, Told

log = logging.getLogger(__name__)

SOON = timedelta(seconds=1)


@dataclass
class _Plan:
    """What one receiver may be told of one group."""

    receiver: str
    news: list[tuple[Pair, Member, Change]] = field(default_factory=list)
    ends: list[tuple[Pair, Member]] = field(default_factory=list)
    known: list[tuple[Pair, Member]] = field(default_factory=list)
    """Told, and not over; what is in `news` as escalated too."""
    flaps: bool = False

    @property
    def has_content(self) -> bool:
        return bool(self.news or self.ends)


class Round:
    """One look at some groups, at one instant, in the transaction of the caller."""

    def __init__(
        self,
        connection: Connection,
        routing: Routing,
        cards: Mapping[str, RuleCard],
        *,
        now: datetime,
        local: tzinfo,
        series: SeriesSource | None = None,
        eased: frozenset[str] = frozenset(),
        lost: Mapping[str, int] | None = None,
    ) -> None:
        self._connection = connection
        self._routing = routing
        self._cards = cards
        self._now = now
        self._local = local
        self._series = series
        self._eased = eased
        self._lost = lost or {}
        self._nodes = routing.nodes
        self._pairs: dict[tuple[str, str], Pair] = {}
        self._members: dict[str, Member] = {}
        self._groups: dict[str, Group] = {}
        self._changed_pairs: dict[tuple[str, str], Pair] = {}
        self._changed_groups: dict[str, Group] = {}
        self._added: dict[str, list[Pair]] = defaultdict(list)
        """Group → pairs that escalation made."""
        self._flapped: dict[tuple[str, str], FlappingRow] = {}
        self._digests: dict[str, DigestRow] = {}
        self._changed_digests: dict[str, DigestRow] = {}
        self._notices: list[tuple[Notice, SeriesKey, str]] = []
        self._about: dict[str, list[list[str]]] = {}
        """Notification → what it tells of which episode."""
        self._sequences: dict[tuple[str, str], int] = {}
        self._recipients: dict[tuple[str, str, str], Recipient] = {}

    # -- the round -------------------------------------------------------------------------------------------------

    def run(self, keys: Collection[str]) -> tuple[str, ...]:
        """Look at these groups and at the digests that are due; returns the keys of the outbox rows written."""
        digests = rows.due_digests(self._connection, self._now)
        self._read(keys, digests)
        by_group: dict[str, list[Pair]] = defaultdict(list)
        for pair in self._pairs.values():
            by_group[pair.group_key].append(pair)
        gone = []
        for key in sorted(self._groups):
            if not self._group(self._groups[key], by_group.get(key, [])):
                gone.append(key)
        for receiver in sorted(digests):
            self._digest(receiver)
        self._write(gone)
        return tuple(notice.key for notice, _, _ in self._notices)

    def _read(self, keys: Collection[str], digests: Collection[str]) -> None:
        connection = self._connection
        pairs = [*rows.open_pairs(connection, keys), *rows.held_pairs(connection, digests, IN_DIGEST)]
        self._pairs = {(pair.episode, pair.receiver): pair for pair in pairs}
        self._members = rows.members(connection, {pair.episode for pair in pairs})
        self._groups = rows.groups_by_key(connection, keys)
        for key in {pair.group_key for pair in pairs} - self._groups.keys():
            if key in keys:  # told by a release that had no groups
                self._groups[key] = new_group(key, {}, self._now)
        for some in chunks([*keys, DIGEST], 1_000):
            self._sequences |= outbox_rows.last_sequences(connection, some)
        self._holds = Holds(connection, self._routing, self._cards, self._members, now=self._now)
        flapping = {one.instance for one in self._members.values() if one.is_flapping}
        self._flapped = rows.flapping(connection, flapping) if self._routing.flapping else {}
        receivers = {pair.receiver for pair in pairs} | set(digests)
        self._digests = rows.digests(connection, receivers)
        self._contributors = self._read_contributors(keys)
        people = {self._recipient(pair) for pair in pairs}
        self._purse = Purse(rows.buckets(connection, all_bucket_keys(self._routing.limits, people)), self._now)
        self._often = self._read_often()

    def _read_contributors(self, keys: Collection[str]) -> dict[str, list[Member]]:
        """Incident → its episodes that fire, of everybody."""
        ids = [key.removeprefix(GROUP) for key in keys if key.startswith(GROUP)]
        if not ids:
            return {}
        episodes = rows.episodes_of_incidents(self._connection, ids)
        missing = {one for some in episodes.values() for one in some} - self._members.keys()
        everyone = self._members | rows.members(self._connection, missing)
        return {
            one: [everyone[key] for key in some if key in everyone and everyone[key].fires]
            for one, some in episodes.items()
        }

    def _read_often(self) -> frozenset[str]:
        """Alerts that began to fire more often today than news of one alert may be told."""
        limit = self._routing.limits.per_alert_day
        if limit is None:
            return frozenset()
        suspects = [one.instance for one in self._members.values() if one.changes.bit_count() > limit]
        if not suspects:
            return frozenset()
        day = self._now.astimezone(self._local).replace(hour=0, minute=0, second=0, microsecond=0)
        found = rows.firings_since(self._connection, suspects, day)
        return frozenset(instance for instance, count in found.items() if count > limit)

    def _write(self, gone: Collection[str]) -> None:
        connection = self._connection
        notices = self._with_series()
        rows.save_pairs(connection, self._changed_pairs.values())
        rows.save_groups(connection, [one for key, one in self._changed_groups.items() if key not in set(gone)])
        rows.delete_groups(connection, gone)
        rows.save_digests(connection, self._changed_digests.values())
        rows.save_buckets(connection, self._purse.changed.values())
        outbox_rows.enqueue(
            connection,
            [
                NewNotification(
                    key=notice.key,
                    receiver=notice.receiver,
                    group_key=group,
                    sequence=notice.sequence,
                    reason=notice.reason,
                    tier=notice.tier,
                    payload=notice.to_json(),
                    created_at=notice.created_at,
                    rule=notice.rule.id,
                    about=self._about[notice.key],
                )
                for notice, group in notices
            ],
        )

    # -- one group -------------------------------------------------------------------------------------------------

    def _group(self, group: Group, pairs: Sequence[Pair]) -> bool:
        """Tell what is to be told of a group; whether anything of it is left."""
        plans = self._plans(pairs)
        timing = self._timing(pairs)
        before = group.opened_at + timing.group_wait
        due_at = before if group.sent_at is None else group.sent_at + timing.group_interval
        content = [plan for plan in plans.values() if plan.has_content]
        is_due = self._now >= due_at or (group.sent_at is not None and any(map(_turns_red, content)))
        told: set[str] = set()
        for plan in content if is_due else ():
            if self._tell(group, plan):
                told.add(plan.receiver)
        if told:
            group = group._replace(sent_at=self._now, repeat_at=_after(self._now, timing.repeat_interval))
        elif group.repeat_at is not None and self._now >= group.repeat_at:
            for plan in plans.values():
                self._remind(group, plan)
            group = group._replace(repeat_at=_after(self._now, timing.repeat_interval))
        group, next_step = self._escalate(group, plans)
        here = [*pairs, *self._added.pop(group.key, ())]
        open_pairs = [one for one in map(self._current, here) if one.end_notification is None]
        waits = not is_due and bool(content)
        group = group._replace(
            is_inhibited=any(one.held in ("inhibited", "upstream") for one in open_pairs),
            wake_at=self._wake_at(group, plans, open_pairs, [due_at if waits else None, next_step]),
        )
        if group != self._groups[group.key]:
            self._changed_groups[group.key] = group
        return bool(open_pairs)

    def _plans(self, pairs: Iterable[Pair]) -> dict[str, _Plan]:
        plans: dict[str, _Plan] = {}
        for pair in pairs:
            member = self._members.get(pair.episode)
            if member is None:
                self._put(pair._replace(end_notification=NEVER_TOLD))
                continue
            plan = plans.setdefault(pair.receiver, _Plan(pair.receiver))
            if member.is_open:
                self._plan_open(plan, pair, member)
            else:
                self._plan_end(plan, pair, member)
        return plans

    def _plan_open(self, plan: _Plan, pair: Pair, member: Member) -> None:
        if pair.tier != "none" and pair.held not in IN_DIGEST:
            plan.known.append((pair, member))
        tier = _lesser(pair.wanted, member.tier)
        if not member.fires or RANK[tier] <= RANK[pair.tier]:
            if pair.held and pair.held not in IN_DIGEST:
                self._put(pair._replace(held="", held_until=None))
            return
        hold = self._hold(pair, member, tier)
        if hold is not None:
            if hold.reason in IN_DIGEST:
                self._defer(pair, hold.reason, red=tier == "red")
            elif (pair.held, pair.held_until) != hold:
                self._put(pair._replace(held=hold.reason, held_until=hold.until))
            return
        if pair.held == "limit" and tier != "red":
            return  # waits for its digest
        plan.flaps |= self._routing.flapping and member.is_flapping
        plan.news.append((pair, member._replace(tier=tier), "new" if pair.tier == "none" else "escalated"))

    def _plan_end(self, plan: _Plan, pair: Pair, member: Member) -> None:
        receiver = self._routing.receivers.get(pair.receiver_name)
        if pair.held in IN_DIGEST:
            return  # the digest tells it, or counts it
        if pair.tier == "none" or (receiver is not None and not receiver.send_resolved):
            self._put(pair._replace(end_notification=NEVER_TOLD, held="", held_until=None))
            return
        if self._is_flapping(pair, member):
            self._defer(pair, "flapping", red=False)
            return
        mute = self._holds.mute(pair, pair.tier)
        if mute is not None and mute.until is not None:
            self._put(pair._replace(held="mute", held_until=mute.until))
            plan.known.append((pair, member))
            return
        plan.ends.append((pair, member))

    def _hold(self, pair: Pair, member: Member, tier: Tier) -> Hold | None:
        if (hold := self._holds.of(pair, member)) is not None:
            return hold
        if tier != "red" and member.instance in self._often:
            return Hold("limit", None)
        told = self._flapped.get((member.instance, pair.receiver))
        if self._is_flapping(pair, member) and told is not None and RANK[tier] <= RANK[told.tier]:
            return Hold("flapping", None)
        return None

    def _is_flapping(self, pair: Pair, member: Member) -> bool:
        """Whether this receiver was told that the alert comes and goes, and it still does."""
        return self._routing.flapping and member.is_flapping and (member.instance, pair.receiver) in self._flapped

    def _timing(self, pairs: Iterable[Pair]) -> Timing:
        """The shortest times of the routes that lead here; a repeat of 0 is none."""
        found = {node.timing for route in {pair.route for pair in pairs} if (node := self._nodes.get(route))}
        if not found:
            return Timing(timedelta(), timedelta(), timedelta())
        repeats = [one.repeat_interval for one in found if one.repeat_interval]
        return Timing(
            min(one.group_wait for one in found),
            min(one.group_interval for one in found),
            min(repeats, default=timedelta()),
        )

    def _wake_at(
        self, group: Group, plans: Mapping[str, _Plan], pairs: Sequence[Pair], others: Sequence[datetime | None]
    ) -> datetime | None:
        """When the group has to be looked at again."""
        times = [*others, *(pair.held_until for pair in pairs)]
        fires = [(pair, one) for plan in plans.values() for pair, one in plan.known if one.fires]
        fires += [(pair, one) for plan in plans.values() for pair, one, _ in plan.news]
        if fires and group.repeat_at is not None:
            times.append(group.repeat_at)
        times += [self._holds.acknowledged_until(one.episode) for _, one in fires]
        later = [max(one, self._now + SOON) for one in times if one is not None]
        return min(later, default=None)

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, group: Group, plan: _Plan) -> bool:
        """The message of a plan, or its place in the digest when there are too many."""
        first = min((one for _, one, _ in plan.news), key=severity, default=plan.ends[0][1] if plan.ends else None)
        assert first is not None
        pair = (plan.news[0] if plan.news else plan.ends[0])[0]
        recipient = self._recipient(pair, first)
        is_red = any(one.tier == "red" for _, one, _ in plan.news) or any(one.tier == "red" for one, _ in plan.ends)
        wait = self._purse.take(bucket_keys(self._routing.limits, recipient, red=is_red))
        if wait is not None:
            for held in (*(one for one, _, _ in plan.news), *(one for one, _ in plan.ends)):
                self._defer(held, "limit", red=is_red, wait=wait)
            return False
        news = {one.episode for _, one, _ in plan.news}
        telling = Telling(
            group=group.key,
            recipient=recipient,
            news=[(one, change) for _, one, change in plan.news],
            ongoing=[one for _, one in plan.known if one.fires and one.episode not in news],
            ends=[one for _, one in plan.ends],
            known=len(plan.known) + len(plan.ends),
            reason="flapping" if plan.flaps else None,
        )
        self._notify(telling, plan.news, plan.ends)
        return True

    def _remind(self, group: Group, plan: _Plan) -> None:
        """Say again what still fires and nobody took on; a reminder that is over the limit is left out."""
        fires = [
            (pair, one)
            for pair, one in plan.known
            if one.fires
            and self._holds.acknowledged_until(one.episode) is None
            and self._hold(pair, one, one.tier) is None
        ]
        if not fires:
            return
        recipient = self._recipient(*fires[0])
        is_red = any(one.tier == "red" for _, one in fires)
        if self._purse.take(bucket_keys(self._routing.limits, recipient, red=is_red)) is not None:
            return
        members = [one for _, one in fires]
        self._notify(
            Telling(group=group.key, recipient=recipient, ongoing=members, known=len(members), reason="repeat")
        )

    def _notify(
        self,
        telling: Telling,
        news: Iterable[tuple[Pair, Member, Change]] = (),
        ends: Iterable[tuple[Pair, Member]] = (),
    ) -> None:
        """Queue a notice, and note who knows what by it."""
        place = (telling.recipient.key, telling.group)
        sequence = self._sequences[place] = self._sequences.get(place, 0) + 1
        incident = telling.group.removeprefix(GROUP) if telling.group.startswith(GROUP) else ""
        rules = {one.rule for one in (*telling.firing, *telling.ends, *telling.passed)}
        telling = replace(
            telling,
            eased=self._eased,
            lost=sum(self._lost.get(rule, 0) for rule in rules),
            incident=incident,
            contributors=self._below(telling, incident),
        )
        notice, key = compose_notice(telling, self._cards, sequence=sequence, now=self._now)
        notice = replace(notice, parts=parts_of(self._connection, notice, self._cards))
        self._notices.append((notice, key, telling.group))
        news, ends = list(news), list(ends)
        told = [Told(one.episode, "news", one.tier, pair.tier, pair.held) for pair, one, _ in news]
        told += [Told(one.episode, "ongoing", one.tier, one.tier, "") for one in telling.ongoing]
        told += [Told(one.episode, "end", pair.tier, pair.tier, pair.held) for pair, one in ends]
        self._about[notice.key] = [list(one) for one in sorted(told)]
        for pair, member, _ in news:
            self._put(
                pair._replace(tier=member.tier, notification=pair.notification or notice.key, held="", held_until=None)
            )
            if self._routing.flapping and member.is_flapping:
                self._flap(pair, member)
        for pair, _ in ends:
            self._put(pair._replace(end_notification=notice.key, held="", held_until=None))

    def _below(self, telling: Telling, incident: str) -> list[Member]:
        """The contributors of an incident: all that fires but the headline."""
        everyone = self._contributors.get(incident, []) if incident and telling.firing else []
        if not everyone:
            return []
        first = headline(telling.firing, self._cards)
        return [one for one in everyone if one.rule != first.rule]

    def _flap(self, pair: Pair, member: Member) -> None:
        row = FlappingRow(member.instance, pair.receiver, member.tier, self._now)
        self._flapped[member.instance, pair.receiver] = row
        rows.save_flapping(self._connection, [row])

    # -- digests ---------------------------------------------------------------------------------------------------

    def _defer(self, pair: Pair, reason: str, *, red: bool, wait: timedelta | None = None) -> None:
        """Leave it to the receiver's digest; red as soon as its lane is free again."""
        if pair.held != reason:
            self._put(pair._replace(held=reason, held_until=None))
        row = self._digests.get(pair.receiver) or DigestRow(pair.receiver, None, None)
        every = self._routing.digest.every
        after = self._now + (wait or every)
        if not red:
            after = max(after, row.sent_at + every) if row.sent_at is not None else max(after, self._now)
        if row.due_at is None or after < row.due_at:
            row = row._replace(due_at=after)
            self._digests[pair.receiver] = self._changed_digests[pair.receiver] = row

    def _digest(self, receiver: str) -> None:
        """Everything that was held back from a receiver by limits or flapping, in one message with counts."""
        row = self._digests[receiver]
        news: list[tuple[Pair, Member, Change]] = []
        ends: list[tuple[Pair, Member]] = []
        passed: list[tuple[Pair, Member]] = []
        for key in list(self._pairs):
            pair = self._pairs[key]
            member = self._members.get(pair.episode)
            if pair.receiver != receiver or pair.held not in IN_DIGEST or member is None or pair.end_notification:
                continue
            if not member.is_open:
                (ends if pair.tier != "none" else passed).append((pair, member))
            elif member.fires and RANK[_lesser(pair.wanted, member.tier)] > RANK[pair.tier]:
                hold = self._holds.of(pair, member)
                if hold is None:
                    news.append((pair, member, "new" if pair.tier == "none" else "escalated"))
                else:
                    self._put(pair._replace(held=hold.reason, held_until=hold.until))
                    self._wake(pair.group_key, hold.until)
            else:
                self._put(pair._replace(held="", held_until=None))
        if news or ends or passed:
            told = [*((pair, one) for pair, one, _ in news), *ends, *passed]
            telling = Telling(
                group=DIGEST,
                recipient=self._recipient(*told[0]),
                news=[(one, change) for _, one, change in news],
                ends=[one for _, one in ends],
                passed=[one for _, one in passed],
                known=len(ends),
                reason="digest",
                worst=self._routing.digest.worst,
            )
            self._notify(telling, news, [*ends, *passed])
            for pair, _, _ in news:  # what is told goes on as told, in its own group
                self._start_group(pair)
        self._changed_digests[receiver] = row._replace(due_at=None, sent_at=self._now)

    def _start_group(self, pair: Pair) -> None:
        """A group whose first message was the digest's: news of it wait, and it is repeated, as after its own."""
        group = self._changed_groups.get(pair.group_key) or self._groups.get(pair.group_key)
        if group is None:
            group = rows.groups_by_key(self._connection, [pair.group_key]).get(pair.group_key)
        if group is None or group.sent_at == self._now:
            return
        timing = self._timing([pair])
        repeat_at = _after(self._now, timing.repeat_interval)
        wake = min((one for one in (group.wake_at, repeat_at) if one is not None), default=None)
        self._changed_groups[pair.group_key] = group._replace(sent_at=self._now, repeat_at=repeat_at, wake_at=wake)

    def _wake(self, key: str, until: datetime | None) -> None:
        group = self._changed_groups.get(key) or self._groups.get(key)
        if group is None:
            group = rows.groups_by_key(self._connection, [key]).get(key)
        if group is not None and until is not None and (group.wake_at is None or until < group.wake_at):
            self._changed_groups[key] = group._replace(wake_at=until)

    # -- escalation ------------------------------------------------------------------------------------------------

    def _escalate(self, group: Group, plans: Mapping[str, _Plan]) -> tuple[Group, datetime | None]:
        """Tell the next person of red alerts that were told and that nobody acknowledged in time; and when the next step is."""
        open_reds: dict[str, tuple[Pair, Member]] = {}
        for plan in plans.values():
            told = [(pair, one) for pair, one in plan.known] + [(pair, one) for pair, one, _ in plan.news]
            for pair, one in told:
                current = self._current(pair)
                if current.tier == "red" and one.fires and one.tier == "red":
                    open_reds.setdefault(one.episode, (current, one))
        waiting = {
            key: (pair, one)
            for key, (pair, one) in open_reds.items()
            if self._holds.acknowledged_until(key) is None and self._holds.of(pair, one) is None
        }
        if not waiting:
            return group._replace(red_since=None, escalated=0), None
        since = group.red_since or self._now
        steps = self._steps(pair for pair, _ in waiting.values())
        taken = group.escalated if group.red_since is not None else 0
        while taken < len(steps) and self._now >= since + steps[taken].after:
            self._take_step(group, steps[taken], list(waiting.values()))
            taken += 1
        next_step = since + steps[taken].after if taken < len(steps) else None
        return group._replace(red_since=since, escalated=taken), next_step

    def _steps(self, pairs: Iterable[Pair]) -> tuple[EscalationStep, ...]:
        """The steps of the first route that has some."""
        routes = dict.fromkeys(pair.route for pair in pairs)
        return next((node.escalation for one in routes if (node := self._nodes.get(one)) and node.escalation), ())

    def _take_step(self, group: Group, step: EscalationStep, waiting: Sequence[tuple[Pair, Member]]) -> None:
        first = min((one for _, one in waiting), key=severity)
        labels = self._holds.labeller.of(first)
        for recipient in self._routing.recipients_of(step.receiver, labels, self._now):
            added: list[tuple[Pair, Member, Change]] = []
            ongoing: list[Member] = []
            for origin, one in waiting:
                known = self._current_of(one.episode, recipient.key)
                if known is not None and known.tier == "red":
                    ongoing.append(one)
                    continue
                base = known or origin._replace(
                    receiver=recipient.key, tier="none", notification="", held="", held_until=None
                )
                new = base._replace(wanted="red", receiver_name=step.receiver)
                added.append((new, one, "new" if new.tier == "none" else "escalated"))
                self._put(new)
                self._added[group.key].append(new)
            if not added and not recipient.mentions:
                continue  # they know, and there is nobody to call: `repeat_interval` says it again
            wait = self._purse.take(bucket_keys(self._routing.limits, recipient, red=True))
            if wait is not None:
                for new, _, _ in added:
                    self._defer(new, "limit", red=True, wait=wait)
                continue
            telling = Telling(
                group=group.key,
                recipient=recipient,
                news=[(one, change) for _, one, change in added],
                ongoing=ongoing,
                known=len(ongoing),
                reason="unacknowledged",
            )
            self._notify(telling, added)

    # -- small things ----------------------------------------------------------------------------------------------

    def _put(self, pair: Pair) -> None:
        key = pair.episode, pair.receiver
        if self._pairs.get(key) != pair:
            self._pairs[key] = self._changed_pairs[key] = pair

    def _current(self, pair: Pair) -> Pair:
        return self._pairs[pair.episode, pair.receiver]

    def _current_of(self, episode: str, receiver: str) -> Pair | None:
        return self._pairs.get((episode, receiver))

    def _recipient(self, pair: Pair, member: Member | None = None) -> Recipient:
        """The receiver of a pair with the people it is for, as the routes say now."""
        member = member or self._members.get(pair.episode)
        place = pair.receiver, pair.receiver_name, member.rule if member is not None else ""
        if place not in self._recipients:
            channel, _, address = pair.receiver.partition(":")
            found = Recipient(channel, address)
            if member is not None and pair.receiver_name in self._routing.receivers:
                labels = self._holds.labeller.of(member)
                known = self._routing.recipients_of(pair.receiver_name, labels, self._now)
                found = next((one for one in known if one.key == pair.receiver), found)
            self._recipients[place] = found
        return self._recipients[place]

    def _with_series(self) -> list[tuple[Notice, str]]:
        """The notices with the series of their first slice."""
        names = version_names(self._connection, {one for notice, _, _ in self._notices for one in notice.versions})
        self._notices = [
            (replace(notice, versions=tuple(names[one] for one in notice.versions)), key, group)
            for notice, key, group in self._notices
        ]
        plain = [(notice, group) for notice, _, group in self._notices]
        if self._series is None or not plain:
            return plain
        try:
            found = self._series(list(dict.fromkeys(key for _, key, _ in self._notices)))
        except Exception:  # whatever ails the warehouse, the alert must go out
            log.exception("the series of %d notices cannot be read; they are sent without a plot", len(plain))
            return plain
        return [(replace(notice, series=_trimmed(found.get(key))), group) for notice, key, group in self._notices]


def _turns_red(plan: _Plan) -> bool:
    """Whether the plan holds something that is new at red: that does not wait for the interval of its group."""
    return any(one.tier == "red" for _, one, _ in plan.news)


def _lesser(wanted: Tier, present: Tier) -> Tier:
    return wanted if RANK[wanted] <= RANK[present] else present


def _after(now: datetime, interval: timedelta) -> datetime | None:
    return now + interval if interval else None


def _trimmed(series: Series | None) -> Series | None:
    return None if series is None or not series.points else replace(series, points=series.points[-POINTS:])
