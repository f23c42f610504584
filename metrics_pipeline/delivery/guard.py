"""What of a message its receiver may see, asked when it is sent: who lost a grant since it was queued gets none of it.

A receiver is a person where the address is a person's contact, else the channel itself with the teams whose room it is.
Slices that are not given are left out with their number, values that are not given are not told. Who may not even know of
the alert is told that there is one (and that it ended), by whoever can say more: nobody waits for a message that never comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from metrics_pipeline.access.model import SENSITIVE, Facts, Level, Subjects
from metrics_pipeline.access.services import DELIVERY, may_work, why_not
from metrics_pipeline.access.viewer import Viewer, closed_viewer
from metrics_pipeline.alerts.notice import DRILL_PREFIX, Counts, Notice, RuleCard, Slice
from metrics_pipeline.alerts.sight import NUMBERS, Sight, known_card, without_numbers
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.members import members_of
from metrics_pipeline.store import Store, dispatch
from metrics_pipeline.store import access as rows

RESTRICTED = RuleCard(
    "restricted",
    "",
    name_zh="您无权查看的报警",
    name_en="an alert that you may not see",
    kind="alarm",
    annotations={
        "summary": "Somebody who administers the installation can give access (metrics access grant).",
        "summary_zh": "如需查看,请联系管理员授权(metrics access grant)。",
    },
)
"""Stands for a rule of whose metric a receiver may not know."""
_FIRING = ("new", "escalated", "ongoing")


@dataclass(frozen=True)
class MessageGuard:
    """Masks notices by the policy of a store. `routing` is asked for only while a policy is on."""

    store: Store
    routing: Callable[[], Routing]

    def refusal(self, *, now: datetime) -> str:
        """Why nothing may be sent at `now` (aware): an administrator revoked the sender's grant; "" when it may be."""
        with self.store.reading() as connection:
            return "" if may_work(connection, DELIVERY, now=now) else why_not(DELIVERY)

    def shown_to(self, receiver: str, notice: Notice, *, now: datetime) -> Notice:
        """The notice as `<channel>[:<address>]` may see it at `now` (aware)."""
        for sight in self.sights(receiver, notice.rule, now=now):
            notice = masked(notice, sight)
        return notice

    def sights(self, receiver: str, rule: RuleCard, *, now: datetime) -> list[Sight]:
        """What `<channel>[:<address>]` may see of a rule's alerts; [] while no policy is on.

        An address of several people has one for each: it shows what all of them may see.
        """
        with self.store.reading() as connection:
            if rows.enabled(connection) is None:
                return []
            cards = {name: RuleCard.from_json(card) for name, card in dispatch.cards(connection).items()}
            cards[rule.id] = rule
            facts = facts_of_cards(cards)
            routing = self.routing()
            members = members_of(routing.directory, now=now)
            people, teams = _behind(receiver, routing)
            channel = receiver.partition(":")[0]
            viewers = [closed_viewer(connection, one, facts, members, now=now) for one in people] or [
                _of_channel(
                    closed_viewer(connection, channel, facts, members, now=now, kind="channel"),
                    [closed_viewer(connection, team, facts, members, now=now, kind="position") for team in teams],
                )
            ]
        return [Sight(viewer, cards) for viewer in viewers]


def on_record(notice: Notice) -> Notice:
    """The notice for logs and pages that every user of Dagster reads: no value of a confidential metric, policy or not."""
    is_sensitive = notice.rule.sensitivity == SENSITIVE
    first = tuple(without_numbers(one) if is_sensitive or one.rule else one for one in notice.slices)
    if is_sensitive:
        first = _by_name(first)
    return replace(notice, slices=first, parts=tuple(map(without_numbers, notice.parts)))


def masked(notice: Notice, sight: Sight) -> Notice:
    """The notice as somebody may see it."""
    if sight.is_open:
        return notice

    def level(one: Slice) -> Level:
        return sight.level(one.rule or notice.rule.id, one.dimension, one.member)

    def shown(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
        known = [one for one in slices if level(one) > Level.DENIED]
        exact = [one for one in known if level(one) == Level.EXACT and sight.shows_shares(one.instance)]
        if len(exact) == len(known):
            return tuple(known)
        # Also where there is no number to take away: their order came of numbers.
        return _by_name(one if one in exact else without_numbers(one) for one in known)

    slices, parts, contributors = map(shown, (notice.slices, notice.parts, notice.contributors))
    own = [one for one in slices if not one.rule]
    if not own:
        return _restricted(notice)
    is_whole = (slices, parts, contributors) == (notice.slices, notice.parts, notice.contributors)
    if is_whole and _sees_every_slice(sight, notice.rule):
        return replace(notice, rule=known_card(notice.rule, sight.viewer.reading))
    return replace(
        notice,
        rule=known_card(_noted(notice, slices, sight), sight.viewer.reading),
        slices=tuple(sorted(slices, key=lambda one: bool(one.rule))),
        parts=parts,
        contributors=contributors,
        contributing=len(contributors),
        incident=notice.incident if len(contributors) == len(notice.contributors) else "",
        counts=_counts(slices),
        series=notice.series if _sees_series(notice, sight) else None,
    )


def _by_name(slices: Iterable[Slice]) -> tuple[Slice, ...]:
    """What fires first, red first, then by name: an order by badness tells which value is worse."""
    return tuple(
        sorted(
            slices, key=lambda one: (one.change not in _FIRING, -RANK[one.tier], one.dimension, one.member, one.rule)
        )
    )


def facts_of_cards(cards: Mapping[str, RuleCard]) -> dict[str, Facts]:
    """What the policy knows of the metrics of rules, without the library: the sender is light."""
    return {
        one.metric: Facts(one.metric, one.layer, one.category, one.business_line, one.sensitivity, one.unit)
        for one in cards.values()
        if one.metric
    }


def _behind(receiver: str, routing: Routing) -> tuple[list[str], list[str]]:
    """The people whose contact an address is, and the teams whose room a channel is."""
    channel, _, address = receiver.partition(":")
    card = routing.channels.get(channel)
    contact = None if card is None else card.contact
    directory = routing.directory
    people = [
        person.id
        for person in directory.people.values()
        if address and contact is not None and directory.contact(person, contact) == address
    ]
    return people, [team.id for team in directory.teams.values() if channel in team.channels]


def _of_channel(channel: Viewer, teams: list[Viewer]) -> Viewer:
    """A room shows what it is given and what its team is given."""
    held = {grant.id: grant for one in (channel, *teams) for grant in one.grants}
    names = frozenset(one.person for one in teams)
    return replace(channel, subjects=Subjects(channel.person, names, kind="channel"), grants=tuple(held.values()))


def _sees_every_slice(sight: Sight, rule: RuleCard) -> bool:
    return not rule.metric or {} in sight.viewer.reading.slices_of(rule.metric)


def _sees_series(notice: Notice, sight: Sight) -> bool:
    series = notice.series
    if series is None:
        return False
    return sight.level(notice.rule.id, series.dimension, series.member) == Level.EXACT and sight.shows_shares(
        f"{notice.rule.id}{{{series.dimension}={series.member}}}"
    )


def _noted(notice: Notice, slices: tuple[Slice, ...], sight: Sight) -> RuleCard:
    """The card with a word for numbers that are not told; a band where one is given."""
    own = [one for one in slices if not one.rule]
    before = {one.instance: one for one in notice.slices}
    hidden = [one for one in own if any(getattr(before[one.instance], name, None) is not None for name in NUMBERS)
              and before[one.instance] != one]  # fmt: skip
    if not hidden:
        return notice.rule
    first = hidden[0]
    texts = dict(notice.rule.annotations)
    if sight.level(notice.rule.id, first.dimension, first.member) == Level.BANDED:
        band = sight.band_of(notice.rule.id, before[first.instance].value)
        zh, en = f"数值区间 {band}", f"value within {band}"
    else:
        zh, en = "数值未授权显示", "values are not shown: no grant"
    texts["summary_zh"] = f"{texts.get('summary_zh', '')}【{zh}】"
    texts["summary"] = f"{texts.get('summary', '')} [{en}]".strip()
    return replace(notice.rule, annotations=texts)


def _counts(slices: tuple[Slice, ...]) -> Counts:
    """Counts over the slices that are shown."""
    firing = [one for one in slices if one.change in _FIRING]
    return Counts(
        new=sum(one.change == "new" for one in slices),
        escalated=sum(one.change == "escalated" for one in slices),
        ended=len(slices) - len(firing),
        firing=len(firing),
        red=sum(one.tier == "red" for one in firing),
        rules=len({one.rule for one in slices}),
    )


def _restricted(notice: Notice) -> Notice:
    """That there is something, and whether it goes on; not what."""
    first = notice.slices[0]
    one = Slice("restricted{all=all}", "all", "all", first.change, first.tier, first.since)
    return replace(
        notice,
        rule=replace(RESTRICTED, id=f"{DRILL_PREFIX}{RESTRICTED.id}") if notice.rule.is_drill else RESTRICTED,
        counts=_counts((one,)),
        slices=(one,),
        series=None,
        incident="",
        contributors=(),
        contributing=0,
        parts=(),
        versions=(),
    )
