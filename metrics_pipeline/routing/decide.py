"""Whom an alert goes to, in which group, how soon, and why: pure, the clock an argument."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from metrics_pipeline.routing.channels import ChannelCard
from metrics_pipeline.routing.intervals import TimeInterval, TimeIntervalSpec, clear_from
from metrics_pipeline.routing.labels import DRILL, SEVERITY
from metrics_pipeline.routing.matchers import match_all
from metrics_pipeline.routing.model import (
    ALL_LABELS,
    Digest,
    EscalationStep,
    InhibitRule,
    Limits,
    QuietHours,
    Receiver,
    ScheduledDrill,
)
from metrics_pipeline.routing.people import Directory, Person
from metrics_pipeline.routing.tree import Node, Step, Timing, group_key, group_labels, match, trace
from metrics_pipeline.rules.load import Problem


@dataclass(frozen=True)
class Recipient:
    """One place a message goes to."""

    channel: str
    address: str = ""
    """Mail address or phone; '' for a room or a folder."""
    people: tuple[str, ...] = ()
    """Ids of the people it is for."""
    mentions: tuple[str, ...] = ()
    """In a room: whom to call, as the channel's kind names them."""
    language: str = ""
    """Of its people, where they agree; '' = the installation's."""

    @property
    def key(self) -> str:
        """`<channel>` or `<channel>:<address>`, as in the outbox; who is mentioned is no part of it."""
        return f"{self.channel}:{self.address}" if self.address else self.channel


@dataclass(frozen=True)
class Mute:
    """Why nothing is sent now, and until when (UTC); None = no end in sight."""

    until: datetime | None
    reason: str
    reason_zh: str


@dataclass(frozen=True)
class Destination:
    """One route an alert ended in."""

    route: str
    receiver: str
    recipients: tuple[Recipient, ...]
    group_key: str
    group_labels: Mapping[str, str]
    timing: Timing
    mute: Mute | None
    send_resolved: bool
    escalation: tuple[EscalationStep, ...]
    fell_back: bool
    """Whether the receiver reaches nobody, so that the fallback stands in."""

    @property
    def muted_until(self) -> datetime | None:
        return None if self.mute is None else self.mute.until


@dataclass(frozen=True)
class Decision:
    """Where an alert goes, and the way there."""

    destinations: tuple[Destination, ...]
    trace: tuple[Step, ...]


@dataclass(frozen=True)
class Routing:
    """Everything that decides who is told: routes, people, limits. Build it with `load_routing` or `direct`."""

    root: Node
    receivers: Mapping[str, Receiver]
    directory: Directory = field(default_factory=Directory)
    channels: Mapping[str, ChannelCard] = field(default_factory=dict)
    intervals: Mapping[str, TimeInterval] = field(default_factory=dict)
    inhibit_rules: tuple[InhibitRule, ...] = ()
    limits: Limits = field(default_factory=Limits)
    quiet_hours: QuietHours | None = None
    fallback: str | None = None
    digest: Digest = field(default_factory=Digest)
    flapping: bool = True
    ack_timeout: timedelta = timedelta(hours=8)
    incidents: bool = True
    drills: tuple[ScheduledDrill, ...] = ()
    local: tzinfo = UTC
    problems: tuple[Problem, ...] = ()
    stands_in: bool = False
    """Whether the routes file could not be used, so that this is not what somebody wrote."""

    @property
    def nodes(self) -> dict[str, Node]:
        """Every route by its id."""
        return {node.id: node for node in self.root.walk()}

    @property
    def routing_labels(self) -> frozenset[str] | None:
        """Names of the labels a decision depends on; None = all of them (a route groups by `...`)."""
        names = {SEVERITY, DRILL, "owner", "metric_owner", "business_line"}
        for node in self.root.walk():
            if ALL_LABELS in node.group_by:
                return None
            names |= {matcher.name for matcher in node.matchers} | set(node.group_by)
        return frozenset(names)

    def without(self, channel: str) -> Routing:
        """The same without one channel: whom only this one reaches, the fallback stands in for."""
        return replace(self, channels={name: card for name, card in self.channels.items() if name != channel})

    def only(self, receiver: str) -> Routing:
        """Everything to one receiver, with the times and the escalation of the root. Raises `KeyError` for an unknown one."""
        return replace(self, root=replace(self.root, receiver=self.receivers[receiver].name, children=()))

    def decide(self, labels: Mapping[str, str], at: datetime) -> list[Destination]:
        """The destinations of an alert with these labels at an instant (aware), in the order of the routes."""
        return [self._destination(node, labels, at) for node in match(self.root, labels)]

    def explain(self, labels: Mapping[str, str], at: datetime) -> Decision:
        """The same with the way through the tree."""
        return Decision(tuple(self.decide(labels, at)), tuple(trace(self.root, labels)))

    def recipients_of(self, receiver: str, labels: Mapping[str, str], at: datetime) -> tuple[Recipient, ...]:
        """Whom a receiver reaches at an instant, without the fallback; () when nobody."""
        found = self.receivers.get(receiver)
        return () if found is None else self._recipients(found, labels, at)

    def mute_of(self, node: Node, severity: str, at: datetime, *, heeds_quiet_hours: bool = True) -> Mute | None:
        """Whether a route sends nothing at an instant, why and until when."""
        quiet: tuple[TimeIntervalSpec, ...] = ()
        if self.quiet_hours is not None and heeds_quiet_hours and severity != "red":
            quiet = (self.quiet_hours,)
        muted = self._specs(node.mute_time_intervals)
        active = self._specs(node.active_time_intervals)
        has_active = bool(node.active_time_intervals)
        if not muted and not quiet and not has_active:
            return None
        reason, reason_zh = "", ""
        if name := self._holding(node.mute_time_intervals, at):
            reason, reason_zh = f"the route is mute in {name}", f"路由在 {name} 期间静默"
        elif has_active and not any(spec.contains(at, self.local) for spec in active):
            names = ", ".join(node.active_time_intervals)
            reason, reason_zh = f"the route is only active in {names}", f"路由仅在 {names} 期间启用"
        elif any(spec.contains(at, self.local) for spec in quiet):
            reason, reason_zh = "quiet hours", "免打扰时段"
        else:
            return None
        until: datetime | None = at.astimezone(UTC)
        while until is not None:
            before = until
            until = clear_from((*muted, *quiet), until, self.local)
            if until is not None and has_active:
                until = clear_from(active, until, self.local, outside=True)
            if until == before:
                break
        return Mute(until, reason, reason_zh)

    def _destination(self, node: Node, labels: Mapping[str, str], at: datetime) -> Destination:
        receiver = self.receivers.get(node.receiver, Receiver(name=node.receiver))
        recipients = self._recipients(receiver, labels, at)
        fell_back = not recipients
        if fell_back:
            recipients = self._fallback(labels, at)
        return Destination(
            route=node.id,
            receiver=node.receiver,
            recipients=recipients,
            group_key=group_key(node, labels),
            group_labels=group_labels(node, labels),
            timing=node.timing,
            mute=self.mute_of(node, labels.get(SEVERITY, ""), at, heeds_quiet_hours=receiver.quiet_hours),
            send_resolved=receiver.send_resolved,
            escalation=node.escalation,
            fell_back=fell_back,
        )

    def _fallback(self, labels: Mapping[str, str], at: datetime) -> tuple[Recipient, ...]:
        """Who stands in when a receiver reaches nobody: the fallback, the root's, and last the folder."""
        for name in (self.fallback, self.root.receiver):
            if name is not None and (found := self.recipients_of(name, labels, at)):
                return found
        return (Recipient("file"),) if "file" in self.channels else ()

    def _recipients(self, receiver: Receiver, labels: Mapping[str, str], at: datetime) -> tuple[Recipient, ...]:
        named: list[str] = [*receiver.people, *receiver.teams, *receiver.rotations]
        if receiver.owner and (owner := self.owner_of(labels)) is not None:
            named.append(owner)
        people = list(dict.fromkeys(person for one in named for person in self.directory.who(one, at)))
        rooms = [room for one in named for room in self.directory.rooms(one)]
        channels = list(dict.fromkeys((*receiver.channels, *rooms)))
        cards = [self.channels[name] for name in channels if name in self.channels]
        if people and not any(card.contact or card.is_room for card in cards):
            cards += [card for card in self.channels.values() if card.contact and card.name not in channels]
        found: dict[str, Recipient] = {}
        for card in cards:
            for recipient in self._through(card, people):
                found.setdefault(recipient.key, recipient)
        return tuple(found.values())

    def _through(self, card: ChannelCard, people: list[Person]) -> Iterable[Recipient]:
        ids = tuple(person.id for person in people)
        if card.contact is not None:
            reached = [(person, self.directory.contact(person, card.contact)) for person in people]
            direct = [
                Recipient(card.name, address, (person.id,), language=person.language or "")
                for person, address in reached
                if address
            ]
            return direct or [Recipient(card.name, address, ids) for address in card.addresses if address]
        mentions: tuple[str, ...] = ()
        if card.is_room:
            called = (self.directory.contact(one, card.kind) or self.directory.contact(one, "phone") for one in people)
            mentions = tuple(dict.fromkeys(one for one in called if one))
        languages = {person.language or "" for person in people}
        language = languages.pop() if len(languages) == 1 else ""
        return [Recipient(card.name, address, ids, mentions, language) for address in card.addresses]

    def owner_of(self, labels: Mapping[str, str]) -> str | None:
        """Id of the owner: of the rule, else of its metric, else of its business line; only who is in the directory."""
        line = self.directory.lines.get(labels.get("business_line", ""))
        for name in (labels.get("owner"), labels.get("metric_owner"), line.owner if line is not None else None):
            if name and name in self.directory:
                return name
        return None

    def _specs(self, names: Iterable[str]) -> tuple[TimeIntervalSpec, ...]:
        return tuple(spec for name in names if name in self.intervals for spec in self.intervals[name].time_intervals)

    def _holding(self, names: Iterable[str], at: datetime) -> str | None:
        return next(
            (name for name in names if name in self.intervals and self.intervals[name].contains(at, self.local)), None
        )


@dataclass(frozen=True)
class Source:
    """A firing alert that may mute others: its labels, and the groups of equal labels it was found by."""

    alert: str
    labels: Mapping[str, str]


class Inhibitor:
    """The inhibition rules over the alerts that fire: asks in constant time for each target."""

    def __init__(self, rules: Iterable[InhibitRule], firing: Iterable[Source]) -> None:
        self._rules = tuple(rules)
        self._sources: list[dict[tuple[str, ...], list[Source]]] = [{} for _ in self._rules]
        for source in firing:
            for rule, found in zip(self._rules, self._sources, strict=True):
                if not match_all(rule.source, source.labels):
                    continue
                if (values := _equal_values(rule, source.labels)) is not None:
                    found.setdefault(values, []).append(source)

    def by_whom(self, alert: str, labels: Mapping[str, str]) -> str | None:
        """The alert that mutes this one, or None.

        As in Alertmanager an alert that matches both sides of a rule is not muted by another that does. Unlike there, a
        label that is absent equals nothing, and a yellow alert never mutes a red one.
        """
        for rule, sources in zip(self._rules, self._sources, strict=True):
            if not sources or not match_all(rule.target, labels):
                continue
            values = _equal_values(rule, labels)
            if values is None:
                continue
            two_sided = match_all(rule.source, labels)
            for source in sources.get(values, ()):
                if source.alert == alert or (two_sided and match_all(rule.target, source.labels)):
                    continue
                if labels.get(SEVERITY) == "red" and source.labels.get(SEVERITY) != "red":
                    continue
                return source.alert
        return None


def _equal_values(rule: InhibitRule, labels: Mapping[str, str]) -> tuple[str, ...] | None:
    """The values of the labels that must be equal; None when one is absent."""
    values = tuple(labels.get(name, "") for name in rule.equal)
    return None if not all(values) else values


def direct(receivers: Iterable[str], **changes: Any) -> Routing:
    """A routing without files: each rule a group, told at once to these `<channel>[:<address>]`, all with their end.

    Without incidents, limits, flapping and reminders: what is left when nobody configured anything.
    """
    by_channel: dict[str, list[str]] = {}
    for receiver in receivers:
        channel, _, address = receiver.partition(":")
        by_channel.setdefault(channel, []).append(address)
    plain = Routing(
        root=Node(
            id="{}",
            path=(),
            receiver="everybody",
            group_by=("alertname",),
            matchers=(),
            continues=False,
            timing=Timing(timedelta(), timedelta(), timedelta()),
            mute_time_intervals=(),
            active_time_intervals=(),
            escalation=(),
            children=(),
        ),
        receivers={"everybody": Receiver(name="everybody", channels=tuple(by_channel))},
        channels={name: ChannelCard(name, "", tuple(addresses)) for name, addresses in by_channel.items()},
        flapping=False,
        incidents=False,
    )
    return replace(plain, **changes)
