"""Why something is not told now: data that is missing, a silence, another alert, a snooze, the time of day.

None of it changes a state; what is held back stays wanted, and is told when nothing holds it any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Final, NamedTuple

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.lineage import is_coarser, period_key
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.routing.decide import Inhibitor, Mute, Routing, Source
from metrics_pipeline.routing.labels import SEVERITY, slice_labels
from metrics_pipeline.routing.matchers import Matcher, match_all, parse_matchers
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import LostRow, MarkRow, Member, Pair
from metrics_pipeline.store.records import Tier

IN_DIGEST: Final = ("limit", "flapping")
"""What is held back for these reasons is told in a digest."""
DATA_FAILURES: Final = frozenset({"late", "empty", "null_value", "upstream_failed"})
"""Kinds of missing that make what is computed from the data worthless; a single slice that had nothing does not."""


class Hold(NamedTuple):
    """Why, and until when at most; None: until something happens."""

    reason: str
    until: datetime | None


def card_labels(card: RuleCard, grain: str, routing: Routing) -> dict[str, str]:
    """The labels that all alerts of a rule share (`routing.labels`), from its card."""
    fixed = {
        "alertname": card.alert or card.id,
        "metric": card.metric,
        "layer": card.layer,
        "business_line": routing.directory.line_of(card.metric, card.category, card.business_line),
        "owner": card.owner,
        "metric_owner": card.metric_owner,
        "grain": grain,
    }
    return {name: value for name, value in {**card.labels, **fixed}.items() if value}


class Labeller:
    """Labels of alerts; what a rule shares is made once."""

    def __init__(self, cards: Mapping[str, RuleCard], routing: Routing) -> None:
        self._cards = cards
        self._routing = routing
        self._shared: dict[tuple[str, str], dict[str, str]] = {}

    def labels(self, rule: str, grain: str, dimension: str, member: str, tier: Tier) -> dict[str, str]:
        """The labels of one alert."""
        shared = self._shared.get((rule, grain))
        if shared is None:
            card = self._cards.get(rule, RuleCard(rule, ""))
            shared = self._shared[rule, grain] = card_labels(card, grain, self._routing)
        return {**shared, **slice_labels(dimension, member), SEVERITY: tier}

    def of(self, member: Member) -> dict[str, str]:
        """The labels of a member."""
        return self.labels(member.rule, member.grain, member.dimension, member.member, member.tier)


class Holds:
    """What holds at one instant for these members. Reads what it needs in a few queries, when it is first asked."""

    def __init__(
        self,
        connection: Connection,
        routing: Routing,
        cards: Mapping[str, RuleCard],
        members: Mapping[str, Member],
        *,
        now: datetime,
    ) -> None:
        self._connection = connection
        self._routing = routing
        self._cards = cards
        self._members = members
        self._now = now
        self._nodes = routing.nodes
        self._of_episode: dict[str, Hold | None] = {}
        self._mutes: dict[tuple[str, str, Tier], Mute | None] = {}
        self.labeller = Labeller(cards, routing)
        self.marks: dict[tuple[str, str], MarkRow] = rows.marks(connection, members.keys())

    def of(self, pair: Pair, member: Member) -> Hold | None:
        """Why news of this pair is not told now; None: nothing holds it."""
        if member.episode not in self._of_episode:
            self._of_episode[member.episode] = self._episode(member)
        held = self._of_episode[member.episode]
        if held is not None:
            return held
        mute = self.mute(pair, member.tier)
        return None if mute is None else Hold("mute", mute.until)

    def mute(self, pair: Pair, tier: Tier) -> Mute | None:
        """Whether the time of day holds messages of this pair."""
        key = pair.route, pair.receiver_name, tier
        if key not in self._mutes:
            node = self._nodes.get(pair.route)
            receiver = self._routing.receivers.get(pair.receiver_name)
            self._mutes[key] = (
                None
                if node is None
                else self._routing.mute_of(
                    node, tier, self._now, heeds_quiet_hours=receiver is None or receiver.quiet_hours
                )
            )
        return self._mutes[key]

    def acknowledged_until(self, episode: str) -> datetime | None:
        """Until when an acknowledgement of this episode holds; None when there is none."""
        mark = self.marks.get((episode, "ack"))
        return mark.until if mark is not None and mark.until > self._now else None

    def _episode(self, member: Member) -> Hold | None:
        if self._lacks_data(member):
            return Hold("upstream", None)
        snooze = self.marks.get((member.episode, "snooze"))
        if snooze is not None and snooze.until > self._now:
            return Hold("snooze", snooze.until)
        if self._silences or self._routing.inhibit_rules:
            labels = self.labeller.of(member)
            ends = [until for matchers, until in self._silences if match_all(matchers, labels)]
            if ends:
                return Hold("silence", max(ends))
            if self._inhibitor is not None and self._inhibitor.by_whom(member.instance, labels) is not None:
                return Hold("inhibited", None)
        return None

    def _lacks_data(self, member: Member) -> bool:
        """Whether this alert, or data it is made of, could not be judged in its period: then it says nothing now."""
        if member.unknown_reason in DATA_FAILURES:
            return True
        card = self._cards.get(member.rule)
        if card is None or not card.upstream or member.data_period is None:
            return False
        labels = slice_labels(member.dimension, member.member)
        return any(
            one.reason in DATA_FAILURES
            and one.period is not None
            and period_key(one.grain, one.period, member.grain)
            == period_key(member.grain, member.data_period, one.grain)
            and is_coarser(one.dimension, one.member, labels)
            for metric in card.upstream
            for one in self._lost.get(metric, ())
        )

    @cached_property
    def _lost(self) -> dict[str, list[LostRow]]:
        """Metric → its slices whose data is missing."""
        wanted = {
            metric
            for rule in {one.rule for one in self._members.values()}
            if (card := self._cards.get(rule)) is not None
            for metric in card.upstream
        }
        metric_of = {rule: card.metric for rule, card in self._cards.items() if card.metric in wanted}
        found: dict[str, list[LostRow]] = {}
        for one in rows.lost(self._connection, metric_of.keys()):
            found.setdefault(metric_of[one.rule], []).append(one)
        return found

    @cached_property
    def _silences(self) -> list[tuple[tuple[Matcher, ...], datetime]]:
        return [
            (parse_matchers(one.matchers), one.expires_at) for one in rows.active_silences(self._connection, self._now)
        ]

    @cached_property
    def _inhibitor(self) -> Inhibitor | None:
        rules = self._routing.inhibit_rules
        if not rules:
            return None
        may_be_source = {
            name
            for name, card in self._cards.items()
            if not card.is_drill and any(_may_match(card, rule.source, self._routing) for rule in rules)
        }
        return Inhibitor(rules, _sources(rows.firing(self._connection, may_be_source), self.labeller))


def _sources(firing: Iterable[rows.FiringRow], labeller: Labeller) -> list[Source]:
    return [
        Source(one.instance, labeller.labels(one.rule, one.grain, one.dimension, one.member, one.tier))
        for one in firing
    ]


def _may_match(card: RuleCard, matchers: Collection[Matcher], routing: Routing) -> bool:
    """Whether some alert of the rule may fulfil the matchers: those on labels it always has are asked."""
    labels = card_labels(card, "", routing)
    return all(one.matches(labels) for one in matchers if one.name in labels)
