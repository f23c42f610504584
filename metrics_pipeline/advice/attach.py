"""The advice of what fires, kept with its episodes: computed once a night, read by every door.

For the worst alerts of a tick: evidence from the alert, its diagnosis and what fires beside it; similar past episodes; the
playbook. Re-run safe: an episode has one row, and one that would say the same is left alone. The work order of an episode
gets the first advice as an event.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import combinations
from types import SimpleNamespace
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.advice.evidence import AlertFacts, Evidence, Firing, Named, evidence_of, with_names
from metrics_pipeline.advice.memory import Case, Similar, similar
from metrics_pipeline.advice.outcome import Handlings
from metrics_pipeline.advice.playbook import Entry
from metrics_pipeline.advice.recommend import Advice, Record, recommend
from metrics_pipeline.advice.text import Remembered, order_text
from metrics_pipeline.advice.told import NOTHING, Told
from metrics_pipeline.alerts.notice import CHANCES, RuleCard, severity
from metrics_pipeline.alerts.state import RANK, episode_key
from metrics_pipeline.alerts.words import Locale
from metrics_pipeline.alerts.work_orders import SYSTEM
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.forecasting.outlook import Outlook
from metrics_pipeline.store import advice as rows
from metrics_pipeline.store import work_orders as order_rows
from metrics_pipeline.store.advice import AdviceRow, PastRow
from metrics_pipeline.store.bulk import read_rows
from metrics_pipeline.store.records import Instance, OrderEvent
from metrics_pipeline.store.tables import alert_instances

MOST_ALERTS: Final = 500
"""Alerts of one night that are advised on, the worst first: who gets more has no use for advice on each."""
COMPARED: Final = 40
"""Similar past episodes that count for what helped before."""
PARTS: Final = 20
"""Other slices of an alert's metric that are looked at."""
TOLD: Final = 3
"""Of them, those that are kept to be told."""
LOCALES: Final[tuple[Locale, Locale]] = ("zh", "en")
_EXPECTING: Final = ("band", "anomaly", "pct_change", "forecast")
"""Families of expressions whose baseline is what the value is expected to be."""


def attach(
    connection: Connection,
    entries: Iterable[Entry],
    metrics: Mapping[str, Named],
    cards: Mapping[str, RuleCard],
    *,
    diagnoses: Mapping[str, Diagnosis] | None = None,
    outlooks: Mapping[str, Outlook] | None = None,
    now: datetime,
    most: int = MOST_ALERTS,
) -> tuple[str, ...]:
    """Advise on what fires now, on the caller's transaction; returns the episodes whose advice is new or has changed.

    `diagnoses`: by episode; `outlooks`: by SKU. `cards`: of every rule that can fire; alerts that no rule computes get no advice.
    """
    book = list(entries)
    known = diagnoses or {}
    firing = [one for one in _firing(connection) if one.rule in cards and cards[one.rule].metric]
    worst = sorted(firing, key=severity)[:most]
    if not worst:
        return ()
    facts = {str(one.episode): facts_of(one, cards[one.rule]) for one in worst}
    beside = Beside.of(facts_of(one, cards[one.rule]) for one in firing)
    found = advise_on(
        connection, facts, book, metrics, cards, beside=beside, diagnoses=known, outlooks=outlooks, now=now
    )
    before = rows.advice_of(connection, facts)
    changed: list[AdviceRow] = []
    for key, one in facts.items():
        row = _row(one, found.cases[key], found.advice[key], found.past, known.get(key), now=now)
        old = before.get(key)
        if old is None or old._replace(at=now) != row:
            changed.append(row)
    rows.save_advice(connection, changed)
    _note_orders(connection, changed, before, now=now)
    return tuple(row.episode for row in changed)


class Advised(NamedTuple):
    """Advice on some alerts, by episode, and what it was found with."""

    advice: Mapping[str, tuple[Advice, ...]]
    cases: Mapping[str, Case]
    past: Past


def advise_on(
    connection: Connection,
    alerts: Mapping[str, AlertFacts],
    entries: Iterable[Entry],
    metrics: Mapping[str, Named],
    cards: Mapping[str, RuleCard],
    *,
    beside: Beside,
    diagnoses: Mapping[str, Diagnosis],
    outlooks: Mapping[str, Outlook] | None = None,
    now: datetime,
) -> Advised:
    """The advice on alerts by their episode; writes nothing. `beside`: everything that fires."""
    book = list(entries)
    judged = {one.member: one.chance for one in alerts.values() if one.chance is not None and one.dimension == "sku"}
    shelves = {sku: one._replace(chance=judged.get(sku, one.chance)) for sku, one in (outlooks or {}).items()}
    evidence = {
        key: with_names(evidence_of(one, diagnoses.get(key), beside.of_slice(one), shelves), metrics)
        for key, one in alerts.items()
    }
    cases = {key: case_of(one, evidence[key], diagnoses.get(key)) for key, one in alerts.items()}
    past = Past.read(connection, alerts, cases, cards, now=now)
    advice = {key: recommend(evidence[key], book, records=past.records(key)) for key in alerts}
    return Advised(advice, cases, past)


def advise_on_diagnosis(
    connection: Connection,
    diagnosis: Diagnosis,
    entries: Iterable[Entry],
    metrics: Mapping[str, Named],
    cards: Mapping[str, RuleCard],
    *,
    outlooks: Mapping[str, Outlook] | None = None,
    now: datetime,
) -> Told:
    """The advice on what was diagnosed, whether it has an alert or not, with similar past episodes; writes nothing."""
    if diagnosis.direction == "none":
        return NOTHING
    dimension, member = "|".join(diagnosis.slice) or "all", "|".join(diagnosis.slice.values()) or "all"
    key = episode_key(f"diagnosis{{{dimension}={member}}}", diagnosis.period)
    alert = AlertFacts(
        episode=key,
        rule="",
        metric=diagnosis.metric,
        dimension=dimension,
        member=member,
        grain=diagnosis.grain,
        tier="none",
        direction=diagnosis.direction,
        period=diagnosis.period,
        observed=diagnosis.observed,
        expected=diagnosis.expected,
    )
    firing = [facts_of(one, cards[one.rule]) for one in _firing(connection) if one.rule in cards]
    found = advise_on(
        connection,
        {key: alert},
        entries,
        metrics,
        cards,
        beside=Beside.of(one for one in firing if one.metric),
        diagnoses={key: diagnosis},
        outlooks=outlooks,
        now=now,
    )
    similar_ones = tuple(
        Remembered(episode, one.similarity, one.parts, handling)
        for one in found.past.likes[key][:TOLD]
        if (handling := found.past.handlings.by_episode.get(episode := found.past.episodes[one.position].episode))
    )
    return Told(found.advice[key], similar_ones)


def facts_of(one: Instance, card: RuleCard) -> AlertFacts:
    """The alert of an instance with an open episode."""
    period = one.data_period or one.last_period or one.since_period
    assert one.episode is not None
    assert period is not None
    return _facts(one.episode, card, one, period)


def facts_of_verdict(row: Mapping[str, Any], card: RuleCard) -> AlertFacts:
    """The alert that a breaching verdict begins or carries on; `row`: its columns, as in the evaluations."""
    key = episode_key(f"{card.id}{{{row['dimension']}={row['member']}}}", row["period_start"])
    return _facts(key, card, SimpleNamespace(**row), row["period_start"])


def _facts(episode: str, card: RuleCard, one: Any, period: datetime) -> AlertFacts:
    expected = one.baseline if card.expression.partition("(")[0] in _EXPECTING else None
    is_known = expected is not None and one.value is not None and one.value != expected
    return AlertFacts(
        episode=episode,
        rule=card.id,
        metric=card.metric,
        dimension=one.dimension,
        member=one.member,
        grain=one.grain,
        tier=one.tier,
        direction=("up" if one.value > expected else "down") if is_known else _by_threshold(card),
        period=period,
        observed=one.value,
        expected=expected,
        chance=one.observed if card.foresees == "stockout" else None,
    )


def case_of(alert: AlertFacts, evidence: Iterable[Evidence], diagnosis: Diagnosis | None) -> Case:
    """What an episode is compared by."""
    found = list(evidence)
    onset = None
    if diagnosis is not None and diagnosis.since is not None:
        onset = float(max((alert.period.date() - diagnosis.since.day).days, 0))
    return Case(
        metric=alert.metric,
        direction=found[0].direction if found else alert.direction,
        change=found[0].change if found else None,
        onset_days=onset,
        elements=frozenset(
            f"{name}={member}" for one in found if one.kind in ("slice", "cause") for name, member in one.elements
        ),
    )


@dataclass(frozen=True)
class Beside:
    """What fires, by slice; and the worst of each metric anywhere, for alerts on the total."""

    by_slice: Mapping[tuple[str, str, datetime], Sequence[Firing]] = field(default_factory=dict)
    worst: Mapping[datetime, Sequence[Firing]] = field(default_factory=dict)
    parts: Mapping[tuple[datetime, str], Sequence[Firing]] = field(default_factory=dict)
    """Slices on which a metric fires, those with the largest change first, at most `PARTS` of each metric."""

    @classmethod
    def of(cls, alerts: Iterable[AlertFacts]) -> Beside:
        by_slice: dict[tuple[str, str, datetime], list[Firing]] = defaultdict(list)
        worst: dict[tuple[datetime, str], Firing] = {}
        parts: dict[tuple[datetime, str], list[Firing]] = defaultdict(list)
        for one in alerts:
            day = _day(one.period)
            told = Firing(one.metric, one.dimension, one.member, one.tier, one.direction, one.observed, one.expected)
            by_slice[one.dimension, one.member, day].append(told)
            if one.elements:
                parts[day, one.metric].append(told)
            other = worst.get((day, one.metric))
            if other is None or RANK[told.tier] > RANK[other.tier]:
                worst[day, one.metric] = told
        by_day: dict[datetime, list[Firing]] = defaultdict(list)
        for (day, _), told in worst.items():
            by_day[day].append(told)
        ranked = {place: sorted(some, key=_depth)[:PARTS] for place, some in parts.items()}
        return cls(by_slice, by_day, ranked)

    def of_slice(self, alert: AlertFacts) -> list[Firing]:
        """What fires on the same day: other metrics on the alert's slice, a coarser one or, for the total, anywhere; and the
        alert's own metric on slices of other dimensions."""
        day = _day(alert.period)
        found = list(self.worst.get(day, ())) if not alert.elements else []
        for size in range(len(alert.elements) + 1):
            for some in combinations(alert.elements, size):
                slice_ = ("|".join(name for name, _ in some) or "all", "|".join(member for _, member in some) or "all")
                found += self.by_slice.get((*slice_, day), ())
        kept: dict[str, Firing] = {}
        for one in found:
            if one.metric != alert.metric:
                kept.setdefault(one.metric, one)
        own = {name for name, _ in alert.elements}
        parts = self.parts.get((day, alert.metric), ())
        return [*kept.values(), *(one for one in parts if own.isdisjoint(one.dimension.split("|")))]


@dataclass(frozen=True)
class Past:
    """What the past says about the episodes of now."""

    episodes: Sequence[PastRow] = ()
    likes: Mapping[str, Sequence[Similar]] = field(default_factory=dict)
    """Episode of now → positions of similar ones."""
    handlings: Handlings = field(default_factory=Handlings)

    @classmethod
    def read(
        cls,
        connection: Connection,
        alerts: Mapping[str, AlertFacts],
        cases: Mapping[str, Case],
        cards: Mapping[str, RuleCard],
        *,
        now: datetime,
    ) -> Past:
        """Past episodes of the same metrics and of those they are made of (or that are made of them)."""
        wanted = {one.metric for one in alerts.values()}
        related = {card.metric: frozenset(card.upstream) for card in cards.values()}
        rules = [
            card.id
            for card in cards.values()
            if card.metric in wanted
            or not wanted.isdisjoint(card.upstream)
            or any(card.metric in related.get(metric, ()) for metric in wanted)
        ]
        latest = max(one.period for one in alerts.values())
        found = rows.past_episodes(connection, rules, before=latest)
        past = [past_case(row, cards) for row in found]
        keys = list(alerts)
        likes = {}
        for key, some in zip(keys, similar([cases[key] for key in keys], past, related, most=COMPARED), strict=True):
            first = _first_period(key)
            likes[key] = [
                one for one in some if found[one.position].episode != key and found[one.position].first_period < first
            ]
        every = {found[one.position].episode for some in likes.values() for one in some}
        return cls(found, likes, Handlings.read(connection, every, now=now))

    def records(self, key: str) -> dict[str, Record]:
        """Action → what came of it in episodes like this one."""
        return self.handlings.records({self.episodes[one.position].episode: one.similarity for one in self.likes[key]})

    def told(self, key: str) -> list[dict[str, object]]:
        """The most similar episodes, of equals those of which something is known first."""

        def known(one: Similar) -> tuple[bool, float]:
            handling = self.handlings.by_episode.get(self.episodes[one.position].episode)
            return handling is None or not (
                handling.done or (handling.order and handling.order.close_note)
            ), -one.similarity

        return [
            {"episode": self.episodes[one.position].episode, "similarity": one.similarity, "parts": dict(one.parts)}
            for one in sorted(self.likes[key], key=known)[:TOLD]
        ]


def past_case(row: PastRow, cards: Mapping[str, RuleCard]) -> Case:
    """A past episode as it is compared; one that was never advised on is known by its rule and slice."""
    slice_ = row.instance.partition("{")[2].removesuffix("}")
    dimension, _, member = slice_.partition("=")
    names, members = dimension.split("|"), member.split("|")
    own = (
        []
        if dimension == "all" or len(names) != len(members)
        else [f"{n}={m}" for n, m in zip(names, members, strict=True)]
    )
    card = cards.get(row.rule)
    return Case(
        metric=row.metric or (card.metric if card is not None else ""),
        direction=row.direction or (_by_threshold(card) if card is not None else ""),
        change=row.change,
        onset_days=row.onset_days,
        elements=frozenset(own if row.elements is None else row.elements),
    )


def _row(
    alert: AlertFacts, case: Case, advice: Sequence[Advice], past: Past, diagnosis: Diagnosis | None, *, now: datetime
) -> AdviceRow:
    return AdviceRow(
        episode=alert.episode,
        rule=alert.rule,
        metric=alert.metric,
        grain=alert.grain,
        direction=case.direction,
        change=case.change,
        onset_days=case.onset_days,
        elements=sorted(case.elements),
        advice=[one.to_json() for one in advice],
        similar=past.told(alert.episode),
        data_version="" if diagnosis is None else diagnosis.data_version,
        at=now,
    )


def _note_orders(
    connection: Connection, changed: Iterable[AdviceRow], before: Mapping[str, AdviceRow], *, now: datetime
) -> None:
    """The first advice as an event of the order that is about the episode, when it is new."""
    told = {row.episode: Advice.from_json(row.advice[0]) for row in changed if row.advice}
    orders = order_rows.by_episode(connection, told)
    for key, first in told.items():
        order, old = orders.get(key), before.get(key)
        is_new = old is None or not old.advice or old.advice[0]["action_en"] != first.action_en
        if order is not None and order.episode == key and order.state != "closed" and is_new:
            said = (f"{first.action(one)}{order_text(first, one)}" for one in LOCALES)
            detail = f"{' · '.join(said)} ({first.owner}; {first.entry})"
            order_rows.add_event(connection, OrderEvent(key, now, SYSTEM, "advised", detail))


def _firing(connection: Connection) -> list[Instance]:
    table = alert_instances.c
    query = sa.select(alert_instances).where(table.state == "firing", table.episode.is_not(None))
    return [one for one in read_rows(connection, query, Instance._make) if one.data_period or one.last_period]


def _depth(one: Firing) -> float:
    if one.observed is None or not one.expected:
        return 0.0
    return -abs(one.observed - one.expected) / abs(one.expected)


def _by_threshold(card: RuleCard) -> str:
    """The way a metric moves when its rule fires; a likely stock-out is a high chance and a low stock."""
    if card.foresees in CHANCES:
        return "up" if card.foresees == "above" else "down"
    signs = {text.strip()[:1] for text in (card.yellow_if, card.red_if) if text.strip()}
    return "up" if signs == {">"} else "down" if signs == {"<"} else ""


def _day(period: datetime) -> datetime:
    return period.replace(hour=0, minute=0, second=0, microsecond=0)


def _first_period(episode: str) -> datetime:
    return datetime.fromisoformat(episode.rpartition("@")[2])
