"""Evidence: an alert and its diagnosis as single facts with figures, which a playbook is matched with. Pure.

Words (`kind`) and what they rest on:

    alert       the metric that the alert is about moved, on its slice
    slice       the alert is on this slice, so the change is there by definition (all of it: share 1)
    cause       the diagnosis found these members to explain a share of the change
    pyramid     a metric below explains a share of the change, and moved up or down itself
    part        the same metric has an alert on another, compatible slice in the same period: where the change sits
    also        another metric has an alert on a compatible slice in the same period
    still       a metric was looked at, could have moved, and did not
    verdict     what kind of cause the diagnosis found
    coinciding  something known happened at the same time
    supply      the shelf of a SKU of the alert, of a cause or of what coincides will be sold out, or has to be filled

`strength` is between 0 and 1: the share that is explained times the confidence in it; 1 for what is simply so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, Protocol

from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.forecasting.outlook import Outlook

Kind = Literal["alert", "slice", "cause", "part", "pyramid", "also", "still", "verdict", "coinciding", "supply"]
ALSO_STRENGTH = {"red": 0.8, "yellow": 0.5}
"""Of an alert that fires at the same time: it is seen, but what it has to do with this one is not measured."""
SLICE_STRENGTH = 0.4
"""Of the slice an alert is on: it says where somebody looked, not that it is the only place."""
DEEPER_STRENGTH, PART_STRENGTH = 0.6, 0.3
"""Of the same metric's alert on another slice: a cause is where the change is deeper than it is here."""
STILL_STRENGTH = 0.6
"""Of a control: that it could have moved is known from its past spread only."""
COINCIDING_STRENGTH = 0.6
"""Of what happened at the same time: the diagnosis does not say that it is the reason."""


@dataclass(frozen=True)
class Evidence:
    """One fact."""

    kind: Kind
    strength: float
    metric: str = ""
    elements: tuple[tuple[str, str], ...] = ()
    """(dimension, member) it is about; () = the total."""
    direction: str = ""
    """up, down or '' (unknown, or of no matter)."""
    share: float | None = None
    """Of the change that it explains."""
    observed: float | None = None
    expected: float | None = None
    word: str = ""
    """Of a verdict or of what coincides: its kind."""
    text_zh: str = ""
    """Of what coincides: what it is."""
    text_en: str = ""
    name_zh: str = ""
    """Of the metric, like the next two."""
    name_en: str = ""
    unit: str = ""
    supply: Outlook | None = None
    """Of a shelf: when it is empty and what to order; None also where the figures are not to be told."""

    @property
    def change(self) -> float | None:
        """Relative to what was expected, 0.2 = 20 % more; None when either is not known."""
        if self.observed is None or not self.expected:
            return None
        return (self.observed - self.expected) / abs(self.expected)

    @property
    def dimension(self) -> str:
        """`region|channel`, or `all`."""
        return "|".join(name for name, _ in self.elements) or "all"

    @property
    def member(self) -> str:
        return "|".join(member for _, member in self.elements) or "all"

    def to_json(self) -> dict[str, Any]:
        """Plain values without what is empty."""
        data = {**vars(self), "elements": [list(one) for one in self.elements]}
        data["supply"] = None if self.supply is None else self.supply.to_json()
        return {name: value for name, value in data.items() if value not in (None, "", [])}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """The reverse of `to_json`. Raises `KeyError` or `TypeError` when it is none."""
        elements = tuple((str(name), str(member)) for name, member in data.get("elements", ()))
        supply = data.get("supply")
        return cls(**{**data, "elements": elements, "supply": None if supply is None else Outlook.from_json(supply)})


@dataclass(frozen=True)
class AlertFacts:
    """The alert that advice is wanted for, with its figures."""

    episode: str
    rule: str
    metric: str
    dimension: str
    member: str
    grain: str
    tier: str
    direction: str
    """up, down or '' when it is not known."""
    period: datetime
    """Shop-local."""
    observed: float | None = None
    """The metric's value, not what the rule made of it."""
    expected: float | None = None
    chance: float | None = None
    """Of a rule on stock-outs: the chance it judged."""

    @property
    def elements(self) -> tuple[tuple[str, str], ...]:
        """(dimension, member) pairs; () for the total."""
        return elements_of(self.dimension, self.member)


@dataclass(frozen=True)
class Firing:
    """Another alert that fires at the same time."""

    metric: str
    dimension: str
    member: str
    tier: str
    direction: str
    observed: float | None = None
    expected: float | None = None


class Named(Protocol):
    """A metric as far as texts need it."""

    @property
    def name_zh(self) -> str: ...
    @property
    def name_en(self) -> str: ...
    @property
    def unit(self) -> str: ...


def with_names(evidence: Iterable[Evidence], metrics: Mapping[str, Named]) -> tuple[Evidence, ...]:
    """The evidence with the names and units of its metrics, so that whoever words it needs no library."""
    return tuple(
        replace(one, name_zh=found.name_zh, name_en=found.name_en, unit=found.unit)
        if (found := metrics.get(one.metric)) is not None
        else one
        for one in evidence
    )


def elements_of(dimension: str, member: str) -> tuple[tuple[str, str], ...]:
    """The pairs of a slice as metric tables name it; () for the total."""
    if dimension in ("all", ""):
        return ()
    names = dimension.split("|")
    members = member.split("|") if len(names) > 1 else [member]
    return tuple(zip(names, members, strict=True)) if len(names) == len(members) else ((dimension, member),)


def evidence_of(
    alert: AlertFacts,
    diagnosis: Diagnosis | None,
    also: Iterable[Firing] = (),
    outlooks: Mapping[str, Outlook] | None = None,
) -> tuple[Evidence, ...]:
    """Everything that is known about an alert, the alert itself first. `also`: what else fires in the same period; `outlooks`: of
    SKUs in danger of being sold out.

    Without a diagnosis only the alert, its slice and what fires beside it are evidence.
    """
    direction = alert.direction
    observed, expected = alert.observed, alert.expected
    if diagnosis is not None and diagnosis.direction != "none":  # its figures are what the shares are of
        direction = diagnosis.direction
        observed, expected = diagnosis.observed, diagnosis.expected
    found = [
        Evidence("alert", 1.0, alert.metric, alert.elements, direction=direction, observed=observed, expected=expected)
    ]
    if alert.elements:
        found.append(
            Evidence(
                "slice",
                SLICE_STRENGTH,
                alert.metric,
                alert.elements,
                direction,
                1.0,
                observed=observed,
                expected=expected,
            )
        )
    found += [
        _beside(found[0], one)
        for one in also
        if compatible(alert.elements, elements_of(one.dimension, one.member))
        and (one.metric != alert.metric or one.direction == direction)
    ]
    found += [] if diagnosis is None else _of_diagnosis(alert, diagnosis)
    return (*found, *_of_shelves(found, outlooks or {}))


def _of_shelves(found: Iterable[Evidence], outlooks: Mapping[str, Outlook]) -> list[Evidence]:
    """The shelves of the SKUs that the alert, a cause or what coincides names."""
    named = [
        sku for one in found if one.kind in ("alert", "cause", "coinciding") if (sku := dict(one.elements).get("sku"))
    ]
    shelves = [outlooks[sku] for sku in dict.fromkeys(named) if sku in outlooks]
    return [
        Evidence(
            "supply", max(0.0, min(1.0, one.chance)), "stock_on_hand", (("sku", one.sku),), word=one.need, supply=one
        )
        for one in shelves
        if one.need
    ]


def _beside(alert: Evidence, one: Firing) -> Evidence:
    found = Evidence(
        "also",
        ALSO_STRENGTH.get(one.tier, 0.0),
        one.metric,
        elements_of(one.dimension, one.member),
        one.direction,
        observed=one.observed,
        expected=one.expected,
        word=one.tier,
    )
    if one.metric != alert.metric:
        return found
    is_deeper = abs(found.change or 0.0) > abs(alert.change or 0.0)
    return replace(found, kind="part", strength=DEEPER_STRENGTH if is_deeper else PART_STRENGTH)


def compatible(one: Sequence[tuple[str, str]], other: Sequence[tuple[str, str]]) -> bool:
    """Whether two slices may be about the same thing: they disagree on no dimension that both name."""
    known = dict(one)
    return all(known.get(name, member) == member for name, member in other)


def _of_diagnosis(alert: AlertFacts, diagnosis: Diagnosis) -> list[Evidence]:
    where = tuple(diagnosis.slice.items())
    found = [
        Evidence(
            "cause",
            max(0.0, min(1.0, one.share)) * max(0.0, min(1.0, one.confidence)),
            diagnosis.metric,
            (*where, *(item for item in one.elements.items() if item not in where)),
            direction="" if one.contribution == 0 else "up" if one.contribution > 0 else "down",
            share=one.share,
            observed=one.observed,
            expected=one.expected,
            word=""
            if one.rate_effect is None
            else "mix"
            if abs(one.mix_effect or 0) > abs(one.rate_effect)
            else "rate",
        )
        for one in diagnosis.causes
    ]
    found += [
        Evidence(
            "pyramid",
            max(0.0, min(1.0, one.share)),
            one.metric,
            where,
            one.direction if one.direction != "none" else "",
            one.share,
            one.observed,
            one.expected,
        )
        for one in diagnosis.pyramid.steps
        if one.share > 0
    ]
    found += [
        Evidence(
            "still",
            STILL_STRENGTH,
            one.metric,
            (*where, *(item for item in one.elements.items() if item not in where)),
            observed=one.observed,
            expected=one.expected,
        )
        for one in diagnosis.controls
        if not one.elements and one.metric != alert.metric
    ]
    if diagnosis.verdict != "none_found":
        found.append(Evidence("verdict", 0.5, diagnosis.metric, where, word=diagnosis.verdict))
    found += [
        Evidence(
            "coinciding",
            COINCIDING_STRENGTH,
            "",
            tuple(one.elements.items()),
            word=one.kind,
            text_zh=one.what_zh,
            text_en=one.what_en,
        )
        for one in diagnosis.coinciding
    ]
    return found
