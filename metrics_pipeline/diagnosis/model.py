"""A diagnosis as data: what changed, what explains it, what coincides with it, what did not move.

Amounts are in the metric's own unit (a ratio as a share of 1). Contributions of causes and `unexplained` add up to
`change` exactly, and so do their shares to 1. Effects: a ratio's rate effect is what the members' own rates did, its
mix effect what their weight among all members did; for counts and amounts both are None.

Words of evidence, stable, that a playbook may match (`Diagnosis.evidence()` gives each with its values):

    metric                the metric that was diagnosed
    grain                 day | hour
    direction             up | down | none (no change, or one that ordinary days do)
    verdict               single_cause | several_causes | mix_shift | site_wide | none_found
    slice.dimension       dimensions of the slice that was asked about (absent for the total)
    slice.member          its members
    cause.dimension       dimensions of every cause
    cause.member          members of every cause
    cause.element         `dimension=member`, joined by `|` within one cause
    cause.top             the element of the first cause
    cause.effect          rate | mix: which of the two is larger in the first cause of a ratio
    pyramid.top           the metric below that contributes most in the direction of the change
    pyramid.metric        every metric below that carries at least a tenth of the change in its direction
    pyramid.direction     `metric:up` or `metric:down` of the same
    coinciding.kind       promotion | holiday | stock_out | data_problem | deploy_note | campaign
    coinciding.id         id of what coincides
    control.metric        metrics that had the power to move and did not
    control.member        `dimension=member` that had the power to move and did not
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final, Literal, Self, get_args

Direction = Literal["up", "down", "none"]
Verdict = Literal["single_cause", "several_causes", "mix_shift", "site_wide", "none_found"]
CoincidingKind = Literal["promotion", "holiday", "stock_out", "data_problem", "deploy_note", "campaign"]
Expectation = Literal["same_weekday", "earlier_weeks", "none"]
NOTABLE_SHARE: Final = 0.1
"""Of the change: what a metric below must carry to be evidence."""


class UnreadableDiagnosis(ValueError):
    """JSON that is no diagnosis; the message names the field and what was expected."""


@dataclass(frozen=True)
class Cause:
    """One element: members of one to three dimensions that moved together."""

    elements: Mapping[str, str]
    """Dimension → member."""
    layer: int
    """How many dimensions it names."""
    observed: float
    """Of the element itself, in the metric's unit."""
    expected: float
    contribution: float
    """To the change of the slice that was asked about, in its unit."""
    share: float
    """contribution ÷ change."""
    rate_effect: float | None
    """Of a ratio: the part of the contribution that the members' own rate made; None for counts and amounts."""
    mix_effect: float | None
    """Of a ratio: the part that their changed weight made. rate + mix = contribution."""
    gain: float
    """Log-likelihood ratio (twice the log) over what was known before, less the price of choosing it."""
    confidence: float
    """0 … 1: how much more likely this element is than the next best one of another kind."""

    @property
    def element(self) -> str:
        """`region=华东|channel=app`"""
        return "|".join(f"{dimension}={member}" for dimension, member in self.elements.items())


@dataclass(frozen=True)
class PyramidStep:
    """One metric of the formula and what its own change made of the change above."""

    metric: str
    observed: float
    expected: float
    contribution: float
    """In the unit of the metric that was diagnosed."""
    share: float
    direction: Direction
    """Of this metric's own change."""


@dataclass(frozen=True)
class Pyramid:
    """The walk down the formula; contributions and the residual add up to the change exactly."""

    steps: tuple[PyramidStep, ...]
    residual: float
    """What the formula over the steps' expectations leaves of the change, in the metric's unit."""
    method: Literal["log_change", "difference", "none"]
    """How it was divided: by log-change (LMDI) for products and quotients, by difference for sums."""


@dataclass(frozen=True)
class Coinciding:
    """Something known that happened at the same time; that it is the reason is for a person to say."""

    kind: CoincidingKind
    id: str
    """Stable id of the evidence: the promotion, SKU, table, note or campaign."""
    what_zh: str
    what_en: str
    starts_on: date
    ends_on: date
    elements: Mapping[str, str]
    """Dimension → member it concerns; empty = everything."""


@dataclass(frozen=True)
class Since:
    """The first day of the change as far as it can be seen."""

    day: date
    confidence: float
    """0 … 1"""


@dataclass(frozen=True)
class Control:
    """What had the power to show a change of this size and did not move."""

    metric: str
    elements: Mapping[str, str]
    """Empty: the metric itself, for the slice that was asked about."""
    observed: float
    expected: float
    detectable: float
    """The relative change that would have been seen."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that is known about why one metric's slice was what it was in one period."""

    metric: str
    slice: Mapping[str, str]
    """Dimension → member that was asked about; empty = the total."""
    grain: Literal["day", "hour"]
    period: datetime
    """Shop-local start of the period."""
    observed: float | None
    expected: float | None
    expectation: Expectation
    """Where `expected` comes from."""
    change: float | None
    direction: Direction
    verdict: Verdict
    causes: tuple[Cause, ...]
    """The largest contribution first."""
    unexplained: float
    """change − the causes' contributions."""
    pyramid: Pyramid
    coinciding: tuple[Coinciding, ...]
    since: Since | None
    controls: tuple[Control, ...]
    searched: tuple[str, ...]
    """The slice sets the causes were looked for in, `region|channel`."""
    reason_zh: str
    reason_en: str
    """Why there is less than one would expect, such as no history; empty when nothing is missing."""
    data_version: str
    computed_at: datetime
    """Naive UTC."""
    cpu_seconds: float

    @property
    def top(self) -> Cause | None:
        """The first cause."""
        return self.causes[0] if self.causes else None

    def evidence(self) -> Mapping[str, tuple[str, ...]]:
        """The words of the module's docstring → their values, without those that have none."""
        found: dict[str, list[str]] = {
            "metric": [self.metric],
            "grain": [self.grain],
            "direction": [self.direction],
            "verdict": [self.verdict],
            "slice.dimension": list(self.slice),
            "slice.member": list(self.slice.values()),
            "cause.dimension": [name for one in self.causes for name in one.elements],
            "cause.member": [member for one in self.causes for member in one.elements.values()],
            "cause.element": [one.element for one in self.causes],
            "cause.top": [self.causes[0].element] if self.causes else [],
            "cause.effect": [self._effect()] if self.causes and self.causes[0].rate_effect is not None else [],
            "coinciding.kind": [one.kind for one in self.coinciding],
            "coinciding.id": [one.id for one in self.coinciding],
            "control.metric": [one.metric for one in self.controls if not one.elements],
            "control.member": [
                "|".join(f"{name}={member}" for name, member in one.elements.items())
                for one in self.controls
                if one.elements
            ],
        }
        notable = sorted((one for one in self.pyramid.steps if one.share >= NOTABLE_SHARE), key=lambda one: -one.share)
        found["pyramid.top"] = [one.metric for one in notable[:1]]
        found["pyramid.metric"] = [one.metric for one in notable]
        found["pyramid.direction"] = [f"{one.metric}:{one.direction}" for one in notable]
        return MappingProxyType({name: tuple(dict.fromkeys(values)) for name, values in found.items() if values})

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: days and moments as ISO text, mappings as objects."""
        plain: dict[str, Any] = _plain(self)
        return plain

    @classmethod
    def from_json(cls, document: Mapping[str, Any] | str) -> Self:
        """The reverse of `to_json`, from the object or its text. Raises `UnreadableDiagnosis`."""
        try:
            values: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
            pyramid, since = values["pyramid"], values["since"]
            return cls(
                **{
                    **{one.name: values[one.name] for one in fields(cls)},
                    "period": datetime.fromisoformat(values["period"]),
                    "verdict": _one_of(values, "verdict", get_args(Verdict)),
                    "direction": _one_of(values, "direction", get_args(Direction)),
                    "slice": dict(values["slice"]),
                    "causes": tuple(Cause(**one) for one in values["causes"]),
                    "pyramid": Pyramid(**{**pyramid, "steps": tuple(PyramidStep(**one) for one in pyramid["steps"])}),
                    "coinciding": tuple(
                        Coinciding(**{**one, **{key: date.fromisoformat(one[key]) for key in ("starts_on", "ends_on")}})
                        for one in values["coinciding"]
                    ),
                    "since": None if since is None else Since(date.fromisoformat(since["day"]), since["confidence"]),
                    "controls": tuple(Control(**one) for one in values["controls"]),
                    "searched": tuple(values["searched"]),
                    "computed_at": datetime.fromisoformat(values["computed_at"]),
                }
            )
        except KeyError as error:
            raise UnreadableDiagnosis(f"field {error} is missing; write what `Diagnosis.to_json` gives") from None
        except (TypeError, ValueError) as error:
            raise UnreadableDiagnosis(f"{error}; write what `Diagnosis.to_json` gives") from None

    def _effect(self) -> str:
        first = self.causes[0]
        return "mix" if abs(first.mix_effect or 0.0) > abs(first.rate_effect or 0.0) else "rate"


def direction_of(change: float | None) -> Direction:
    """The direction of a change; none for 0 and for what has no value."""
    if change is None or math.isnan(change) or change == 0:
        return "none"
    return "up" if change > 0 else "down"


def _one_of(values: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = values[name]
    if value not in known:
        raise ValueError(f"{name} is {value!r}; one of {', '.join(known)} was expected")
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, date):  # a datetime, too
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return value
