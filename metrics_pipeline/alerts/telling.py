"""What one notice says: members of a group → `Notice`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from metrics_pipeline.access.model import SENSITIVE
from metrics_pipeline.alerts.lineage import LAYERS
from metrics_pipeline.alerts.notice import (
    WORST,
    Change,
    Counts,
    Notice,
    NotifyReason,
    RuleCard,
    SeriesKey,
    Slice,
    notification_key,
    reason_of,
)
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.routing.decide import Recipient
from metrics_pipeline.store.dispatch import Member
from metrics_pipeline.store.records import Tier

CONTRIBUTORS = 10
"""Contributors of an incident listed in one notice; the count covers all."""
DIGEST = "digest"
"""Group of the digests of a receiver."""

_ENDS: Mapping[str | None, Change] = {
    "backfill_corrected": "corrected",
    "rule_changed": "corrected",
    "manual": "cancelled",
}


@dataclass(frozen=True)
class Telling:
    """Everything one notice is made of: what is news, what goes on, what ended."""

    group: str
    recipient: Recipient
    news: Sequence[tuple[Member, Change]] = ()
    ongoing: Sequence[Member] = ()
    ends: Sequence[Member] = ()
    passed: Sequence[Member] = ()
    """Began and ended while they were held back."""
    known: int = 0
    """Open episodes the receiver was told of before, those that ended now included."""
    reason: NotifyReason | None = None
    """Instead of the reason that follows from the rest."""
    eased: frozenset[str] = frozenset()
    """Alerts that went from red to yellow."""
    lost: int = 0
    """Slices without data."""
    worst: int = WORST
    incident: str = ""
    contributors: Sequence[Member] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def tier(self) -> Tier:
        """The worst tier that fires; the worst it was when all has ended."""
        return worst_tier([one.tier for one in self.firing] or [one.worst_tier for one in (*self.ends, *self.passed)])

    @property
    def firing(self) -> list[Member]:
        return [*(one for one, _ in self.news), *self.ongoing]


def worst_tier(tiers: Iterable[Tier]) -> Tier:
    """The worst of them; none when there is none."""
    return max(tiers, key=lambda tier: RANK[tier], default="none")


def excess(member: Member) -> float:
    """How far beyond its yellow (else red) bound the slice lies, as a share of the bound: orders slices of one rule."""
    bound = member.yellow_bound if member.yellow_bound is not None else member.red_bound
    if member.value is None or bound is None:
        return 0.0
    return abs(member.value - bound) / (abs(bound) or 1.0)


def severity(member: Member) -> tuple[int, float, str]:
    """Sort key, worst first: red before yellow, then the larger excess, then the name."""
    return -RANK[member.tier], -excess(member), member.instance


def compose_notice(
    telling: Telling, cards: Mapping[str, RuleCard], *, sequence: int, now: datetime
) -> tuple[Notice, SeriesKey]:
    """The notice, and the series its plot would show. `cards`: of every rule in it."""
    changes: dict[str, Change] = {one.episode: change for one, change in telling.news}
    counts = Counter(changes.values())
    firing = sorted(telling.firing, key=severity)
    ends = sorted((*telling.ends, *telling.passed), key=_ended_order)
    reason = telling.reason or _reason(telling, counts)
    about = [one for one in firing if one.episode in changes] or firing or ends
    first = headline(firing or ends, cards) if telling.incident else about[0]
    card = cards.get(first.rule, RuleCard(first.rule, ""))
    recipient = telling.recipient
    key = notification_key(
        recipient.key,
        telling.group,
        firing=[f"{one.episode}:{one.tier}" for one in firing],
        ended=[one.episode for one in ends],
        reason=reason,
        sequence=sequence,
    )
    listed = sorted(firing, key=lambda one: (one.episode != first.episode, one.episode not in changes))[: telling.worst]
    slices = [_slice(one, changes.get(one.episode, "ongoing"), one.tier, cards, card) for one in listed]
    over = [
        _slice(one, _ENDS.get(one.close_reason, "resolved"), one.worst_tier, cards, card)
        for one in ends[: telling.worst]
    ]
    notice = Notice(
        key=key,
        receiver=recipient.key,
        sequence=sequence,
        reason=reason,
        tier=telling.tier,
        created_at=now,
        period=max((one.data_period for one in about if one.data_period is not None), default=first.first_period),
        grain=first.grain,
        rule=card,
        counts=Counts(
            new=counts["new"],
            escalated=counts["escalated"],
            eased=sum(1 for one in firing if one.instance in telling.eased and changes.get(one.episode) != "new"),
            ended=len(telling.ends),
            firing=len(firing),
            red=sum(1 for one in firing if one.tier == "red"),
            no_data=telling.lost,
            passed=len(telling.passed),
            rules=len({one.rule for one in (*firing, *ends)}),
        ),
        slices=tuple([*slices, *over] if changes or telling.reason else [*over, *slices]),  # the news comes first
        group=telling.group,
        mentions=recipient.mentions,
        language=recipient.language,
        incident=telling.incident,
        contributors=tuple(
            _slice(one, "ongoing", one.tier, cards, card)
            for one in sorted(telling.contributors, key=lambda one: _weight(one, cards))[:CONTRIBUTORS]
        ),
        contributing=len(telling.contributors),
        versions=tuple(
            dict.fromkeys(
                one.metric_version
                for one in (*listed, *ends[: telling.worst])
                if one.rule == first.rule and one.metric_version
            )
        ),
    )
    return notice, SeriesKey(
        rule=card.alert or first.rule,
        metric=card.metric,
        dimension=first.dimension,
        member=first.member,
        grain=first.grain,
        until=first.data_period or notice.period,
    )


def _reason(telling: Telling, counts: Mapping[Change, int]) -> NotifyReason:
    if not telling.news and telling.ends and all(one.close_reason == "manual" for one in telling.ends):
        return "cancelled"
    return reason_of(
        new=counts["new"],
        escalated=counts["escalated"],
        known=telling.known,
        still_known=telling.known - len(telling.ends),
    )


def headline(members: Iterable[Member], cards: Mapping[str, RuleCard]) -> Member:
    """The member an incident is named after: of the highest metric, then of the coarsest slice, then the worst."""
    return min(members, key=lambda one: _height(one, cards))


def _height(member: Member, cards: Mapping[str, RuleCard]) -> tuple[int, int, tuple[int, float, str]]:
    card = cards.get(member.rule)
    dimensions = 0 if member.dimension in ("all", "") else len(member.dimension.split("|"))
    return -LAYERS.get(card.layer if card is not None else "", 0), dimensions, severity(member)


def _weight(member: Member, cards: Mapping[str, RuleCard]) -> tuple[int, bool, float, str]:
    """The worst first; of confidential metrics by name, since which ones are listed is told to people who see no numbers."""
    tier, excess, name = severity(member)
    is_sensitive = member.rule in cards and cards[member.rule].sensitivity == SENSITIVE
    return tier, is_sensitive, 0.0 if is_sensitive else excess, name


def _ended_order(member: Member) -> tuple[int, float, str]:
    return -RANK[member.worst_tier], -(member.worst_excess or 0.0), member.episode


def _slice(member: Member, change: Change, tier: Tier, cards: Mapping[str, RuleCard], first: RuleCard) -> Slice:
    own = cards.get(member.rule, first)
    other = cards.get(member.rule) if member.rule != first.id else None
    return Slice(
        instance=member.instance,
        dimension=member.dimension,
        member=member.member,
        change=change,
        tier=tier,
        since=member.first_period,
        value=member.value,
        observed=member.observed,
        baseline=member.baseline,
        lower=member.lower,
        upper=member.upper,
        yellow_bound=member.yellow_bound if member.yellow_bound is not None else own.chance_bound("yellow"),
        red_bound=member.red_bound if member.red_bound is not None else own.chance_bound("red"),
        rule=member.rule if member.rule != first.id else "",
        name_zh=other.name_zh if other else "",
        name_en=other.name_en if other else "",
        unit=other.unit if other else "",
        kind=other.kind if other else "",
        grain=member.grain,
        foresees=own.foresees,
    )
