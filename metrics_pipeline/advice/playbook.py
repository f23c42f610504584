"""The playbook: which evidence speaks for which action. Files `_playbook*.yml` beside the alert rules.

An entry is advised only when every part of its `when` finds evidence. There are no parts that ask for something to be
absent: what takes evidence away can therefore only take advice away.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from metrics_pipeline.diagnosis.model import CoincidingKind, Verdict

PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")
WHERE: Final = "where"
"""The placeholder that every action may use: the slice the advice is about; the others are dimensions of the cause."""


class Signal(NamedTuple):
    """A metric that moved; '' as direction: either way."""

    metric: str
    direction: str = ""

    def __str__(self) -> str:
        return f"{self.metric} {self.direction}".rstrip()


def _signal(value: object) -> object:
    if isinstance(value, Signal):
        return value
    parts = str(value).split()
    if isinstance(value, str) and 1 <= len(parts) <= 2 and (len(parts) == 1 or parts[1] in ("up", "down")):
        return Signal(*parts)
    raise PydanticCustomError(
        "signal", "{text} is no signal; write a metric, with up or down if it matters: refund_rate up",
        {"text": repr(value)},
    )  # fmt: skip


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


SignalText = Annotated[
    Signal,
    BeforeValidator(_signal),
    WithJsonSchema({"type": "string", "pattern": r"^\w+( (up|down))?$", "examples": ["refund_rate up"]}),
]
Signals = Annotated[tuple[SignalText, ...], BeforeValidator(_listed)]
SupplyNeed = Literal["order", "late", "waiting"]
Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CauseCondition(_Keys):
    """Where it comes from: a cause that the diagnosis found, the slice the alert is on, or another slice on which the same
    metric has an alert."""

    dimension: Texts = Field(description="Dimensions that the cause names, all of them: sku, or [warehouse, region].")
    member: Texts = Field((), description="Members of the first dimension; * stands for any text. Default: all.")
    share: Share = Field(0.2, description="The least part of the change that it explains, 0 to 1.")


class PartCondition(_Keys):
    """Which metric below it made it change, by the walk down the pyramid."""

    metric: Signals = Field(description="Metrics, one of which must have moved: [payment_conversion_rate down].")
    share: Share = Field(0.2, description="The least part of the change that it explains, 0 to 1.")


class When(_Keys):
    """The evidence an entry needs, all parts of it."""

    alert: Signals = Field(description="The metric of the alert, one of them: [campaign_roi down, ad_spend up].")
    change: float = Field(0.0, ge=0, description="The least change of it against what was expected, 0.2 = 20 %.")
    cause: CauseCondition | None = Field(None, description="Where it comes from.")
    pyramid: PartCondition | None = Field(None, description="Which metric below it made it change.")
    also: Signals = Field((), description="Metrics, one of which has an alert on a compatible slice at the same time.")
    still: Texts = Field((), description="Metrics, one of which was looked at and did not move.")
    verdict: Annotated[tuple[Verdict, ...], BeforeValidator(_listed)] = Field(
        (), description="What the diagnosis found, one of these words."
    )
    supply: Annotated[tuple[SupplyNeed, ...], BeforeValidator(_listed)] = Field(
        (),
        description="What the shelf of a SKU of the alert, of a cause or of what coincides needs: order (an order of today still "
        "comes in time), late (it does not), waiting (what is under way suffices). Fills {sku}; the text says how much by when.",
    )
    coinciding: Annotated[tuple[CoincidingKind, ...], BeforeValidator(_listed)] = Field(
        (), description="What happened at the same time, one of these kinds."
    )


class Entry(_Keys):
    """One piece of advice and what speaks for it."""

    id: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", max_length=60, description="What `metrics orders close --action` names."
    )
    when: When
    action_zh: str = Field(min_length=1, description="What to do, Chinese; {sku}, {where} are filled in.")
    action_en: str = Field(min_length=1, description="The same in English.")
    owner: str = Field(min_length=1, description="Who does it: an id of _people.yml.")
    effect_zh: str = Field(min_length=1, description="What to expect of it, Chinese.")
    effect_en: str = Field(min_length=1, description="The same in English.")
    link: str = Field("", description="Runbook or page: a path of this project, or a URL.")
    work_order: str = Field("", pattern=r"^[a-z0-9_]*$", description="Kind of the work order; default: the id.")
    priority: float = Field(
        1.0, gt=0, le=2, description="Weight among entries with equal evidence: 1 is usual, less is a second choice."
    )

    @property
    def kind(self) -> str:
        """The kind of its work order."""
        return self.work_order or self.id


class PlaybookFile(_Keys):
    """`alert_rules/_playbook.yml`, or a further file `_playbook*.yml` beside it."""

    entries: tuple[Entry, ...] = Field(description="The advice.")


def playbook_schema() -> dict[str, Any]:
    """The JSON Schema of a playbook file, for editors."""
    return PlaybookFile.model_json_schema()
