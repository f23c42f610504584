"""The rule model: the one documentation of every key of a rule file, and the JSON Schema that editors use.

A rule file is `groups:`, each with `name`, optional `defaults` and `rules`. Text becomes values here (pydantic); what
needs the metric library or two rules at once is checked in `lint.py`.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from metrics_pipeline.rules.expression import (
    GRAMMAR,
    Expression,
    ExpressionError,
    Threshold,
    parse_expression,
    parse_threshold,
)

Grain = Literal["day", "hour"]
Direction = Literal["rise", "fall", "both"]
_DEFAULT_DUE = {"day": "09:00", "hour": "01:00"}


def _expression(value: object) -> Expression:
    if isinstance(value, Expression):
        return value
    try:
        return parse_expression(str(value))
    except ExpressionError as error:
        raise PydanticCustomError("expression", "{problem}", {"problem": str(error)}) from None


def _threshold(value: object) -> Threshold:
    if isinstance(value, Threshold):
        return value
    try:
        return parse_threshold(str(value))
    except ExpressionError as error:
        raise PydanticCustomError("threshold", "{problem}", {"problem": str(error)}) from None


def _dimensions(value: object) -> object:
    return (value,) if isinstance(value, str) else value


ExpressionText = Annotated[
    Expression,
    BeforeValidator(_expression),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "description": GRAMMAR}),
]
ThresholdText = Annotated[
    Threshold,
    BeforeValidator(_threshold),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["> 0.08", "<= -0.3", "outside 4", "outside -3..5"]}),
]
RuleId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{2,79}$")]
NonEmpty = Annotated[str, Field(min_length=1)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class MinSample(_Keys):
    """A slice is judged only where another metric of the same slice and period is large enough."""

    metric: NonEmpty = Field(
        description="Metric id of the sample, e.g. orders_paid; it must have the rule's dimension."
    )
    gte: float = Field(gt=0, description="Smallest sample, in that metric's unit.")


class MinChange(_Keys):
    """How far the value must be from its baseline before a breach counts; what is given must all be met."""

    absolute: float | None = Field(None, gt=0, description="In the metric's own unit.")
    relative: float | None = Field(None, gt=0, description="Share of the baseline: 0.2 = a fifth.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.absolute is None and self.relative is None:
            raise PydanticCustomError("min_change", "give absolute, relative or both")
        return self


class NoData(_Keys):
    """What a period without a usable value means."""

    due: str | None = Field(
        None,
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$",
        description=(
            "HH:MM after the end of the period when the value must be there. For days this is the clock of the next "
            "morning (default 09:00); for hours a distance (default 01:00). Before it: not_due, after it: late."
        ),
    )
    then: Literal["no_data", "ok", "yellow", "red", "zero"] = Field(
        "no_data",
        description=(
            "Tier of a period that is late, missing or null; never applied before it is due or without history. zero: "
            "no row in a complete period is a 0, for counts of rare things whose table has no row where nothing "
            "happened (complaints by SKU); only with expr: value, and late or null stay no_data."
        ),
    )


class RecoverIf(_Keys):
    """Own thresholds for getting better, on the healthy side of the tier's threshold (hysteresis)."""

    yellow: ThresholdText | None = Field(None, description="The alert ends when this holds.")
    red: ThresholdText | None = Field(None, description="Red becomes yellow when this holds.")


class Annotations(_Keys):
    """What a person reads."""

    summary: NonEmpty = Field(description="One English sentence: what is wrong.")
    summary_zh: NonEmpty = Field(description="The same in Chinese.")
    runbook: str | None = Field(None, description="Path or URL of what to do.")


class Rule(_Keys):
    """One alert rule: one metric, judged on the total or on every member of a dimension."""

    alert: RuleId = Field(
        description="Id of the rule: also check name, alert key, command-line argument and runbook file."
    )
    why: NonEmpty = Field(description="Why anybody should care, in English.")
    why_zh: NonEmpty = Field(description="The same in Chinese.")
    metric: NonEmpty = Field(description="Metric id of the library.")
    by: Annotated[tuple[NonEmpty, ...], BeforeValidator(_dimensions)] = Field(
        (), max_length=2, description="One instance per member of this dimension, or of this pair; omit for the total."
    )
    grain: Grain = Field("day", description="day or hour; hours are compared with the same hour of the same weekday.")
    expr: ExpressionText = Field(
        Expression("value"),
        validate_default=True,
        description=(
            "What the thresholds judge. value: the value itself. pct_change(7d, over=4): relative change against the "
            "median of the last 4 periods 7 days apart (-0.3 = 30 % lower). quantile(90d, 0.99): relative distance to "
            "that quantile of the last 90 days (0 = at it). band(seasonal, weeks=8, k=4, promotions=widen): distance "
            "to the seasonal expectation in robust standard deviations; on promotion days widen = be tolerant, "
            "last_event = compare with the same day of the last such event, ordinary = judge as any other day."
        ),
    )
    yellow_if: ThresholdText | None = Field(None, description="Warning, of the observed number.")
    red_if: ThresholdText | None = Field(None, description="Alarm; must lie beyond yellow in the same direction.")
    recover_if: RecoverIf = Field(RecoverIf(), description="Own thresholds for recovery; default: the tier's own.")
    hold: int = Field(1, alias="for", ge=1, le=90, description="Periods with data in a row that must breach first.")
    min_sample: MinSample | None = Field(None, description="Quiet where the sample is small.")
    min_change: MinChange | None = Field(None, description="Quiet where the change is small, however significant.")
    direction: Direction = Field(
        "both", description="Only a rise (or only a fall) is bad; narrows a threshold that has two sides."
    )
    no_data: NoData = Field(NoData(), description="When a value is due and what its absence means.")
    owner: NonEmpty = Field(description="Person or team who gets the alert.")
    labels: dict[str, str] = Field(description="At least `scenario`; routes match labels.")
    annotations: Annotations

    group: str = Field("", exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader.")
    file: Path | None = Field(
        None, exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader."
    )
    line: int = Field(0, exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.yellow_if is None and self.red_if is None:
            raise PydanticCustomError("threshold", "give yellow_if, red_if or both")
        if not self.labels.get("scenario"):
            raise PydanticCustomError("labels", "labels need a scenario, e.g. scenario: refund_surge")
        return self

    @property
    def id(self) -> str:
        return self.alert

    @property
    def dimension(self) -> str:
        """'all', 'region' or 'region|channel', as in metric tables."""
        return "|".join(self.by) or "all"

    @property
    def scenario(self) -> str:
        return self.labels["scenario"]

    @property
    def due_after(self) -> timedelta:
        """How long after the end of a period its value is due."""
        hours, minutes = (self.no_data.due or _DEFAULT_DUE[self.grain]).split(":")
        return timedelta(hours=int(hours), minutes=int(minutes))

    @property
    def rule_hash(self) -> str:
        """12 hex digits over everything that decides a verdict; texts, owner and labels are not in it."""
        verdict = self.model_dump(
            mode="json", by_alias=True, exclude={"alert", "why", "why_zh", "owner", "labels", "annotations"}
        )
        return hashlib.sha256(json.dumps(verdict, sort_keys=True).encode()).hexdigest()[:12]


class Group(_Keys):
    """Rules that belong together in a file."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = Field(description="Name of the group.")
    defaults: dict[str, Any] = Field(
        {}, description="Keys every rule of the group has unless it says otherwise; labels and annotations are merged."
    )
    rules: list[Rule] = Field(description="The rules.")


class RuleFile(_Keys):
    """A file of `alert_rules/`."""

    groups: list[Group]


def rule_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a rule file, for editors and the rule builder.

    Keys that a group's `defaults` may supply are still listed as required: the schema describes the complete rule.
    """
    schema = RuleFile.model_json_schema(by_alias=True)
    properties = schema["$defs"]["Rule"]["properties"]
    for key in [key for key, value in properties.items() if value.get("readOnly")]:
        del properties[key]
    return schema


def yaml_keys() -> tuple[str, ...]:
    """The keys a rule may have in a file, in the order of the model."""
    return tuple(
        field.alias or name for name, field in Rule.model_fields.items() if not re.fullmatch("group|file|line", name)
    )
