"""The model of a test file: the one documentation of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from metrics_pipeline.routing.durations import parse_duration
from metrics_pipeline.rule_tests.notation import NotationError, Sample, parse_series, parse_words

TIERS = ("ok", "yellow", "red", "no_data", "unknown", "_", "*")
"""Of a verdict; `_` = there is none, `*` = whatever it is."""
STATES = ("ok", "pending", "yellow", "red", "recovering", "no_data", "_", "*")
"""Of an alert; yellow and red: firing at that tier; `_` = no alert was ever made of the slice."""
FIRST_NIGHT = date(2025, 3, 3)
"""A Monday that belongs to no promotion."""


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def _series(value: object) -> object:
    if isinstance(value, list | tuple):
        return value
    try:
        return tuple(parse_series(str(value)))
    except NotationError as error:
        raise PydanticCustomError("series", "{problem}", {"problem": str(error)}) from None


def _words(known: tuple[str, ...]) -> BeforeValidator:
    def read(value: object) -> object:
        if isinstance(value, list | tuple):
            return value
        try:
            return tuple(parse_words(str(value), known))
        except NotationError as error:
            raise PydanticCustomError("words", "{problem}", {"problem": str(error)}) from None

    return BeforeValidator(read)


def _sample(value: object) -> object:
    if isinstance(value, Sample):
        return value
    found = _series(value)
    if not isinstance(found, tuple) or len(found) != 1:
        raise PydanticCustomError("series", "write one value, e.g. 980, 5/100 or _")
    return found[0]


def _message(value: object) -> object:
    """`first red`, `orders_anomaly: first red`."""
    if not isinstance(value, str):
        return value
    rule, colon, rest = value.rpartition(":")
    words = rest.split()
    if not 1 <= len(words) <= 2:
        raise PydanticCustomError("message", 'write "reason", "reason tier" or "rule: reason tier", e.g. "first red"')
    found = {"reason": words[0], **({"tier": words[1]} if len(words) == 2 else {})}
    return {**found, "rule": rule.strip()} if colon else found


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str | dict) else value


def _by_slice(value: object) -> object:
    """One line of words is about the only slice."""
    return value if isinstance(value, dict) else {"": value}


_TEXT = WithJsonSchema({"type": ["string", "number"]})
SeriesText = Annotated[tuple[Sample, ...], BeforeValidator(_series), _TEXT]
SampleText = Annotated[Sample, BeforeValidator(_sample), _TEXT]
TierWords = Annotated[tuple[str, ...], _words(TIERS), _TEXT]
StateWords = Annotated[tuple[str, ...], _words(STATES), _TEXT]
Member = Annotated[str, Field(coerce_numbers_to_str=True)]


class InputSeries(_Keys):
    """The values of one slice of one metric."""

    metric: str = Field(description="Metric id.")
    slice: dict[str, Member] = Field({}, description="Dimension → member, in the metric's order; omit for the total.")
    history: SeriesText = Field((), description="Values of the nights before night 1, the last one is night 0.")
    values: SeriesText = Field(description="Values of night 1 and on, in promtool's notation.")
    restated: dict[int, dict[int, SampleText]] = Field(
        {}, description="Night → {earlier night: what its value is known to be from then on}."
    )

    @property
    def dimension(self) -> str:
        return "|".join(self.slice) or "all"

    @property
    def member(self) -> str:
        return "|".join(self.slice.values()) or "all"

    @model_validator(mode="after")
    def _restated_later(self) -> Self:
        for night, values in self.restated.items():
            for period in values:
                if not -len(self.history) < period < night <= len(self.values):
                    raise PydanticCustomError(
                        "restated",
                        "at night {night} the value of night {period} cannot be restated; take an earlier night of this series",
                        {"night": night, "period": period},
                    )
        return self


class PromotionDayOfTest(_Keys):
    """One day of the calendar."""

    event: Member = "double_11"
    kind: Literal["main", "presale", "season", "holiday", "after"] = "main"
    day_in_event: int = 0


class ReferenceOfTest(_Keys):
    """A target or a benchmark, valid on all days."""

    kind: Literal["target", "benchmark"] = "target"
    metric: str
    dimension: str = "all"
    member: Member = "all"
    amount: float


class ExpectedMessage(_Keys):
    """One message of a night."""

    reason: Literal["first", "new_alerts", "escalated", "some_resolved", "all_resolved", "cancelled", "repeat"]
    tier: Literal["yellow", "red"] | None = Field(None, description="Omit when it does not matter.")
    rule: str | None = Field(None, description="Omit when the test has one rule.")
    slices: tuple[Member, ...] | None = Field(None, description="All members that are news in it; omit if whatever.")

    def __str__(self) -> str:
        return " ".join(part for part in (self.reason, self.tier, ",".join(self.slices or ())) if part)


Messages = Annotated[tuple[Annotated[ExpectedMessage, BeforeValidator(_message)], ...], BeforeValidator(_one_or_more)]


def _as_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise PydanticCustomError("duration", "{problem}", {"problem": str(error)}) from None


Duration = Annotated[
    timedelta, BeforeValidator(_as_duration), WithJsonSchema({"type": "string", "examples": ["30m", "1d"]})
]


class Acknowledgement(_Keys):
    """Step `ack`: somebody takes on what fires (`metrics alerts ack`). Nothing of it is said again until that is over."""

    hold: Duration = Field(alias="for", description="How long it holds, e.g. 2d; it also ends with its alert.")
    by: str = Field("somebody", description="Who.")
    rule: str | None = Field(None, description="Whose alerts; the rule of the test by default.")
    member: Member | None = Field(None, description="One slice; all that fire by default.")


class ChannelDown(_Keys):
    """Step `channel_down`: the channel takes nothing in this night; what waits comes in the first night without this step."""


STEP_KEYS: Mapping[str, type[_Keys]] = {"ack": Acknowledgement, "channel_down": ChannelDown}
"""Steps of a test file and their details."""


def _steps(value: object) -> object:
    """Details of the steps that are known, as their models; unknown names are left for the loader."""
    if not isinstance(value, dict):
        return value
    return {
        night: [_step(night, one) for one in listed] if isinstance(listed, list | tuple) else listed
        for night, listed in value.items()
    }


def _step(night: object, step: object) -> object:
    if not isinstance(step, dict):
        return step
    found = {}
    for name, details in step.items():
        keys = STEP_KEYS.get(name)
        try:
            found[name] = details if keys is None else keys.model_validate({} if details in (None, True) else details)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in (name, *first["loc"]))
            problem = f"night {night}: {key}: {first['msg']}"
            raise PydanticCustomError("step", "{problem}", {"problem": problem}) from None
    return found


_STEPS_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "array",
        "items": {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: keys.model_json_schema(by_alias=True) for name, keys in STEP_KEYS.items()},
        },
    },
}


class Expectation(_Keys):
    """What one rule says, night after night from night 1 on; a key by member, or one line for the only slice."""

    rule: str
    tiers: Annotated[dict[Member, TierWords], BeforeValidator(_by_slice)] = {}
    states: Annotated[dict[Member, StateWords], BeforeValidator(_by_slice)] = {}


class RuleTest(_Keys):
    """One story: series, what happens to them, and what must follow."""

    name: str = Field(min_length=1, description="A fact, e.g. `a day without orders is told once and ends`.")
    rule: str = Field(description="The rule it is about.")
    rules: tuple[str, ...] = Field((), description="Further rules that run in it.")
    first_night: date = Field(FIRST_NIGHT, description="Day (of hourly rules: whose hour 0) is night 1.")
    clock: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] | None = Field(
        None, description="HH:MM after the end of the period when the night runs; default 02:00, of hourly rules 00:05."
    )
    promotions: dict[int, PromotionDayOfTest] = Field(
        {}, description="Night (0 and below: history) → day of the calendar."
    )
    references: tuple[ReferenceOfTest, ...] = Field((), description="Targets and benchmarks.")
    series: tuple[InputSeries, ...] = Field(min_length=1)
    tiers: Annotated[dict[Member, TierWords], BeforeValidator(_by_slice)] = Field(
        {}, description="Verdicts of the rule, night after night: `ok red ok`, or by member."
    )
    states: Annotated[dict[Member, StateWords], BeforeValidator(_by_slice)] = Field(
        {}, description="States of its alert after each night: `ok red red ok`, or by member."
    )
    also: tuple[Expectation, ...] = Field((), description="The same for further rules.")
    messages: dict[int, Messages] = Field({}, description="Night → what is sent. Any other message fails the test.")
    repeat: Duration | None = Field(
        None, description="What fires and nobody has acknowledged is said again after so long, e.g. 1d; default never."
    )
    steps: Annotated[dict[int, tuple[dict[str, Any], ...]], BeforeValidator(_steps), WithJsonSchema(_STEPS_SCHEMA)] = (
        Field({}, description="Night → what people and channels do before it is told, each {step: details}.")
    )

    @property
    def rule_ids(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.rule, *self.rules, *(one.rule for one in self.also))))

    @property
    def nights(self) -> int:
        return max(len(series.values) for series in self.series)

    def after(self, grain: str) -> timedelta:
        """How long after the end of its period a night runs."""
        at = time.fromisoformat(self.clock or ("02:00" if grain == "day" else "00:05"))
        return timedelta(hours=at.hour, minutes=at.minute)

    @model_validator(mode="after")
    def _within(self) -> Self:
        for key, lines in (("tiers", self.tiers), ("states", self.states)):
            for member, words in lines.items():
                if len(words) > self.nights:
                    raise PydanticCustomError(
                        "nights",
                        "{key}{member} has {words} nights, but the series have {nights}",
                        {
                            "key": key,
                            "member": f" of {member}" if member else "",
                            "words": len(words),
                            "nights": self.nights,
                        },
                    )
        for key, nights in (("messages", self.messages), ("steps", self.steps)):
            for night in nights:
                if not 1 <= night <= self.nights:
                    raise PydanticCustomError(
                        "nights", "{key}: there is no night {night}", {"key": key, "night": night}
                    )
        return self


class RuleTestFile(_Keys):
    """`alert_rules/<scenario>.test.yml`."""

    tests: tuple[RuleTest, ...]
