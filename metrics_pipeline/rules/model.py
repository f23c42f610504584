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
COMPOSITE = ("all_of", "any_of", "not")
"""Keys that make a rule a composite one."""
COMPOSITE_THRESHOLDS = {"yellow_if": ">= 1", "red_if": ">= 2"}
ANOMALY_THRESHOLDS = {"yellow_if": "outside 1", "red_if": "outside 2"}
"""Thresholds of an anomaly rule that gives none: its two budgets."""
_WHERE_GIVEN = ("all_of", "any_of", "none_of", "overrides", "promotions", "keep_firing_for")
"""Keys that are part of the hash only where a rule has them."""
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


class Variant(_Keys):
    """Keys of a rule that are others for some slices or days; a key that is given replaces the rule's, null takes it away."""

    yellow_if: ThresholdText | None = Field(None, description="As of the rule.")
    red_if: ThresholdText | None = Field(None, description="As of the rule.")
    recover_if: RecoverIf = Field(RecoverIf(), description="As of the rule; not kept when a threshold is another one.")
    min_change: MinChange | None = Field(None, description="As of the rule.")
    mute: bool = Field(False, description="Nothing is judged here: tier ok, reason muted; an alert that fires stays.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.changes and not self.mute:
            raise PydanticCustomError("variant", "give yellow_if, red_if, recover_if, min_change or mute")
        return self

    @property
    def changes(self) -> dict[str, Any]:
        """The rule's fields that are given here, and what they are."""
        names = ("yellow_if", "red_if", "recover_if", "min_change")
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}


def _members(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): (one,) if isinstance(one, str | int) else one for key, one in value.items()}
    return value


class Override(Variant):
    """Other thresholds for some members; of several that match a slice the first one counts."""

    where: Annotated[
        dict[str, Annotated[tuple[Annotated[str, Field(coerce_numbers_to_str=True)], ...], Field(min_length=1)]],
        BeforeValidator(_members),
        Field(min_length=1),
        WithJsonSchema(
            {
                "type": "object",
                "minProperties": 1,
                "additionalProperties": {
                    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
                },
            }
        ),
    ] = Field(description="Dimension of the rule → member, or members any of which will do; all must match.")


def _promotion(value: object) -> object:
    return {"mute": True} if value == "mute" else value


def _promotions(value: object) -> object:
    """`618:` is a number to YAML."""
    return {str(key): one for key, one in value.items()} if isinstance(value, dict) else value


PromotionVariant = Annotated[Variant, BeforeValidator(_promotion)]


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str | dict) else value


class Condition(_Keys):
    """What must be true of other rules' verdicts; of several keys all must hold."""

    all_of: tuple[Part, ...] = Field((), description="Each of these breaches; the tier is the lowest of theirs.")
    any_of: tuple[Part, ...] = Field((), description="One of these breaches; the tier is the highest of theirs.")
    none_of: Annotated[tuple[Part, ...], BeforeValidator(_one_or_more)] = Field(
        (), alias="not", description="None of these breaches, neither yellow nor red."
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.all_of or self.any_of or self.none_of):
            raise PydanticCustomError("condition", "give all_of, any_of or not, each with rule ids")
        return self

    def __str__(self) -> str:
        named = (("all of", self.all_of), ("any of", self.any_of), ("none of", self.none_of))
        texts = [
            f"{name} {', '.join(part if isinstance(part, str) else f'({part})' for part in parts)}"
            for name, parts in named
            if parts
        ]
        return " and ".join(texts)

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of all rules it names, each once, in their order."""
        found: dict[str, None] = {}
        for part in (*self.all_of, *self.any_of, *self.none_of):
            found.update(dict.fromkeys((part,) if isinstance(part, str) else part.references))
        return tuple(found)


Part = RuleId | Condition
Condition.model_rebuild()


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
            "last_event = compare with the same day of the last such event, ordinary = judge as any other day. "
            "pct_change(last_event): relative change against the same day of the last such promotion; quiet on other "
            "days. vs_target(), vs_benchmark(): relative distance to the number in the seeds metric_targets and "
            "industry_benchmarks that is valid on the day. share_of_parent(): part of the total, share_of_parent(region): "
            "of that region; with a distance, share_of_parent(7d), the relative change of that part. "
            "anomaly(budget=1/month, red=1/year): how rare the value is for its own series, given weekday, promotions and what "
            "the other slices do; 1 (−1 for a fall) is as rare as a false alarm may be by the budget, 2 as by red; "
            "anomaly(drift): the same of a slow movement; thresholds default to outside 1 and outside 2. anomaly(together): the same "
            "of all metrics of the slice together (isolation forest). completeness(): 0 = the data are what they seem, from 1 on "
            "traffic was not counted, rows came twice or hours are missing, 2 = surely; thresholds default to >= 1 and >= 2. forecast(7d): mean "
            "per day that is expected of the next 7 days, in the metric's unit; forecast(7d, below=target), forecast(7d, "
            "above=1000): the chance (0-1) that the mean of those days lies below the target of the seed, or above a number. "
            "stockout(3d), stockout(lead): the chance that a SKU is sold out within 3 days, or before an order placed now "
            "would arrive; of stock_on_hand by sku. freshness(): hours "
            "since the moment up to which the metric is complete, judged once, for the newest period that has ended."
        ),
    )
    all_of: tuple[Part, ...] = Field(
        (),
        description=(
            "A composite rule: in place of expr it looks at the verdicts of other rules for the same period and every slice "
            "that does not contradict its own. observed is 0 = quiet, 1 = yellow, 2 = red (all_of: the lowest, any_of: the "
            "highest, not: 2 when none breaches, else 0; the keys together: the lowest), yellow_if defaults to >= 1 and "
            "red_if to >= 2. An entry is a rule id or again {all_of, any_of, not}. A part that could not be judged leaves "
            "open what depends on it. metric and by say whose slices it is about."
        ),
    )
    any_of: tuple[Part, ...] = Field((), description="See all_of.")
    none_of: Annotated[tuple[Part, ...], BeforeValidator(_one_or_more)] = Field(
        (), alias="not", description="See all_of; one or more rules of which none breaches."
    )
    yellow_if: ThresholdText | None = Field(None, description="Warning, of the observed number.")
    red_if: ThresholdText | None = Field(None, description="Alarm; must lie beyond yellow in the same direction.")
    recover_if: RecoverIf = Field(RecoverIf(), description="Own thresholds for recovery; default: the tier's own.")
    hold: int = Field(1, alias="for", ge=1, le=90, description="Periods with data in a row that must breach first.")
    keep_firing_for: int = Field(
        0,
        ge=0,
        le=90,
        description=(
            "Further quiet periods with data in a row, after the first one, until an alert that fires ends; until then it is "
            "recovering, and a breach goes on with the same alert. For what comes and goes."
        ),
    )
    min_sample: MinSample | None = Field(None, description="Quiet where the sample is small.")
    min_change: MinChange | None = Field(None, description="Quiet where the change is small, however significant.")
    direction: Direction = Field(
        "both", description="Only a rise (or only a fall) is bad; narrows a threshold that has two sides."
    )
    overrides: tuple[Override, ...] = Field(
        (),
        description="Other thresholds for some members: [{where: {region: 西北}, yellow_if: …}]; the first that matches.",
    )
    promotions: Annotated[dict[str, PromotionVariant], BeforeValidator(_promotions)] = Field(
        {},
        description=(
            "Other thresholds, or mute, on days of the promotion calendar: event id (618, double_11), kind of day (main, "
            "presale, season, holiday, after) or any; the first that matches, on top of overrides."
        ),
    )
    no_data: NoData = Field(NoData(), description="When a value is due and what its absence means.")
    owner: NonEmpty = Field(description="Person or team who gets the alert.")
    labels: dict[str, str] = Field(
        description=(
            "At least `scenario`; routes match labels. `work_order` says from which tier an alert opens a work order: red "
            "(default), yellow or never."
        )
    )
    annotations: Annotations

    group: str = Field("", exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader.")
    file: Path | None = Field(
        None, exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader."
    )
    line: int = Field(0, exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader.")
    origins: dict[str, str] = Field(
        {}, exclude=True, json_schema_extra={"readOnly": True}, description="Set by the loader: key → file:line."
    )

    @model_validator(mode="before")
    @classmethod
    def _composite_thresholds(cls, data: Any) -> Any:
        if isinstance(data, dict) and any(data.get(key) for key in COMPOSITE) and not {*data} & {"yellow_if", "red_if"}:
            return {**data, **COMPOSITE_THRESHOLDS}
        return data

    @model_validator(mode="before")
    @classmethod
    def _anomaly_thresholds(cls, data: Any) -> Any:
        if isinstance(data, dict) and str(data.get("expr", "")).strip().startswith("anomaly"):
            return data if {*data} & {"yellow_if", "red_if"} else {**data, **ANOMALY_THRESHOLDS}
        if isinstance(data, dict) and str(data.get("expr", "")).strip().startswith("completeness"):
            return data if {*data} & {"yellow_if", "red_if"} else {**data, **COMPOSITE_THRESHOLDS}
        return data

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
    def condition(self) -> Condition | None:
        """Of a composite rule: what it asks of other rules."""
        if not (self.all_of or self.any_of or self.none_of):
            return None
        return Condition(all_of=self.all_of, any_of=self.any_of, none_of=self.none_of)

    @property
    def observes(self) -> str:
        """What the thresholds judge, in one line: `expr`, or the condition of a composite rule."""
        return str(self.expr) if self.condition is None else str(self.condition)

    @property
    def references(self) -> tuple[str, ...]:
        """Ids of the rules a composite rule looks at; () for any other rule."""
        return () if self.condition is None else self.condition.references

    def varied(self, *variants: Variant | None) -> Rule:
        """The rule as these variants make it, one on top of the other."""
        changes: dict[str, Any] = {}
        for variant in variants:
            if variant is not None:
                replaced = variant.changes
                if {"yellow_if", "red_if"} & replaced.keys():
                    replaced.setdefault("recover_if", RecoverIf())
                changes |= replaced
        return self.model_copy(update=changes)

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
            mode="json",
            by_alias=True,
            exclude={"alert", "why", "why_zh", "owner", "labels", "annotations"}
            | {name for name in _WHERE_GIVEN if not getattr(self, name)},
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


class DefaultsFile(_Keys):
    """`alert_rules/_defaults.yml`."""

    defaults: dict[str, Any] = Field(
        description="Keys every rule has unless its group or the rule itself says otherwise; labels and annotations are merged."
    )


def rule_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a rule file, for editors and the rule builder.

    Only the id is required of a rule: all else may come from the defaults of its group or of `_defaults.yml`.
    """
    schema = RuleFile.model_json_schema(by_alias=True)
    rule = schema["$defs"]["Rule"]
    for key in [key for key, value in rule["properties"].items() if value.get("readOnly")]:
        del rule["properties"][key]
    rule["required"] = ["alert"]
    inherited = {key: value for key, value in rule["properties"].items() if key != "alert"}
    schema["$defs"]["Group"]["properties"]["defaults"] |= {"properties": inherited, "additionalProperties": False}
    variant = rule["properties"]["promotions"]["additionalProperties"]
    rule["properties"]["promotions"]["additionalProperties"] = {"anyOf": [{"const": "mute"}, variant]}
    return schema


def yaml_keys() -> tuple[str, ...]:
    """The keys a rule may have in a file, in the order of the model."""
    return tuple(
        field.alias or name
        for name, field in Rule.model_fields.items()
        if not re.fullmatch("group|file|line|origins", name)
    )
