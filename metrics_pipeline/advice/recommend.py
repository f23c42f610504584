"""Evidence × playbook → ranked advice. Pure.

An entry fits when each part of its `when` finds a piece of evidence; of several the strongest is taken, and for a cause
each that fits gives an advice of its own ("pause channel A", "pause channel B"). So every advice names the evidence it
rests on, one piece per part, and falls with any of them.

Rank = evidence × record × priority.
- evidence: 1 − Π (1 − strength/2) over its pieces: each piece takes away half its strength of the doubt that is left.
- record: what is to be expected of the action after what was seen: (helped + 2) ÷ (taken + 4), counted over similar past
  episodes and weighted by their similarity. The four imagined cases keep one lucky case from ruling the list; an action
  that was never taken has 1/2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from typing import Any

from metrics_pipeline.advice.evidence import Evidence
from metrics_pipeline.advice.playbook import PLACEHOLDER, WHERE, CauseCondition, Entry, Signal, When

PRIOR_HELPED, PRIOR_TAKEN = 2.0, 4.0
MOST = 5
"""Pieces of advice kept for one alert."""


@dataclass(frozen=True)
class Record:
    """How often an action was taken in similar cases, and how often it helped; weighted by similarity."""

    taken: float = 0.0
    helped: float = 0.0
    cases: int = 0
    """Past cases with a known outcome, not weighted."""
    cases_helped: int = 0

    @property
    def expectation(self) -> float:
        """Share of cases in which it is expected to help, shrunk towards one half."""
        return (self.helped + PRIOR_HELPED) / (self.taken + PRIOR_TAKEN)


NO_RECORD = Record()


@dataclass(frozen=True)
class Advice:
    """One thing to do, and why."""

    entry: str
    action_zh: str
    action_en: str
    owner: str
    effect_zh: str
    effect_en: str
    evidence: tuple[Evidence, ...]
    score: float
    kind: str
    """Of its work order."""
    link: str = ""
    record: Record = field(default=NO_RECORD)

    def action(self, locale: str) -> str:
        """What to do, in a language."""
        return self.action_en if locale == "en" else self.action_zh

    def effect(self, locale: str) -> str:
        """What to expect of it, in a language."""
        return self.effect_en if locale == "en" else self.effect_zh

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives it back."""
        return {
            **vars(self),
            "evidence": [one.to_json() for one in self.evidence],
            "record": dict(vars(self.record)),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Advice:
        """The reverse of `to_json`. Raises `KeyError` or `TypeError` when it is none."""
        return cls(
            **{
                **data,
                "evidence": tuple(Evidence.from_json(one) for one in data["evidence"]),
                "record": Record(**data["record"]),
            }
        )


def recommend(
    evidence: Sequence[Evidence],
    entries: Iterable[Entry],
    *,
    records: Mapping[str, Record] | None = None,
    most: int = MOST,
) -> tuple[Advice, ...]:
    """The advice that this evidence speaks for, the best first. `records`: entry → what is known of its action."""
    known = records or {}
    found = [
        _advice(entry, pieces, known.get(entry.id, NO_RECORD))
        for entry in entries
        for pieces in supporting(entry.when, evidence)
    ]
    found.sort(key=lambda one: (-one.score, one.entry, one.evidence[0].member, one.action_en))
    kept: dict[str, Advice] = {}
    for one in found:  # the same words from weaker evidence, or of another entry, say nothing more
        kept.setdefault(one.action_en, one)
    return tuple(kept.values())[:most]


def supporting(when: When, evidence: Sequence[Evidence]) -> list[tuple[Evidence, ...]]:
    """The pieces of evidence an entry rests on, one per part of its condition: one tuple for each cause; [] = it does not fit."""
    alerts = [one for one in evidence if one.kind == "alert" and _moved(one, when.alert)]
    if when.change:
        alerts = [one for one in alerts if one.change is not None and abs(one.change) >= when.change]
    parts: list[list[Evidence]] = [alerts[:1]]
    if when.cause is not None:
        parts.append(_causes(when.cause, evidence, alerts[:1]))
    if when.pyramid is not None:
        share = when.pyramid.share
        steps = [
            one
            for one in evidence
            if one.kind == "pyramid" and (one.share or 0.0) >= share and _moved(one, when.pyramid.metric)
        ]
        parts.append(_strongest(steps))
    if when.also:
        parts.append(_strongest(one for one in evidence if one.kind == "also" and _moved(one, when.also)))
    if when.still:
        parts.append(_strongest(one for one in evidence if one.kind == "still" and one.metric in when.still))
    if when.verdict:
        parts.append(_strongest(one for one in evidence if one.kind == "verdict" and one.word in when.verdict))
    if when.supply:  # each shelf an advice of its own
        parts.append([one for one in evidence if one.kind == "supply" and one.word in when.supply])
    if when.coinciding:
        parts.append(_strongest(one for one in evidence if one.kind == "coinciding" and one.word in when.coinciding))
    return [tuple(pieces) for pieces in product(*parts)]


def strength(pieces: Iterable[Evidence]) -> float:
    """What several pieces of evidence weigh together, 0 to 1: each takes away half its strength of the doubt left."""
    doubt = 1.0
    for one in pieces:
        doubt *= 1.0 - one.strength / 2.0
    return 1.0 - doubt


def _causes(condition: CauseCondition, evidence: Iterable[Evidence], alert: Iterable[Evidence]) -> list[Evidence]:
    """The strongest evidence for each place. A cause inside the alert's slice speaks for what lies inside: that the alert is
    on the slice is evidence of its own."""
    given = {name for one in alert for name, _ in one.elements}
    found: dict[tuple[str, ...], Evidence] = {}
    for one in evidence:
        members = dict(one.elements)
        if (
            (one.kind in ("slice", "part") or (one.kind == "cause" and not given.issuperset(condition.dimension)))
            and (one.kind == "part" or (one.share or 0.0) >= condition.share)  # what a part explains is not known
            and all(name in members for name in condition.dimension)
            and (
                not condition.member
                or any(fnmatchcase(members[condition.dimension[0]], some) for some in condition.member)
            )
        ):
            place = tuple(members[name] for name in condition.dimension)
            before = found.get(place)
            if before is None or one.strength > before.strength:
                found[place] = one
    return list(found.values())


def _moved(one: Evidence, signals: Iterable[Signal]) -> bool:
    return any(one.metric == name and (not way or one.direction == way) for name, way in signals)


def _strongest(found: Iterable[Evidence]) -> list[Evidence]:
    best = max(found, key=lambda one: one.strength, default=None)
    return [] if best is None else [best]


def _advice(entry: Entry, pieces: tuple[Evidence, ...], record: Record) -> Advice:
    alert = pieces[0]
    place = next((one for one in pieces if one.kind in ("slice", "cause", "part", "supply")), alert)
    values = {**dict(alert.elements), **dict(place.elements)}

    def filled(text: str, total: str) -> str:
        where = total if place.member == "all" else place.member
        return PLACEHOLDER.sub(lambda found: where if found[1] == WHERE else values.get(found[1], found[0]), text)

    return Advice(
        entry=entry.id,
        action_zh=filled(entry.action_zh, "全部"),
        action_en=filled(entry.action_en, "the total"),
        owner=entry.owner,
        effect_zh=filled(entry.effect_zh, "全部"),
        effect_en=filled(entry.effect_en, "the total"),
        evidence=pieces,
        score=round(strength(pieces) * record.expectation * entry.priority, 4),
        kind=entry.kind,
        link=entry.link,
        record=record,
    )
