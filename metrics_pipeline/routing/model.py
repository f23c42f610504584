"""The routes file (`alert_rules/_routes.yml`): the one documentation of its keys.

`route`, `receivers`, `inhibit_rules` and `time_intervals` are Alertmanager's, with Alertmanager's meaning; what is added
stands in keys of its own (docs/routing.md lists the differences).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from metrics_pipeline.routing.durations import format_duration, parse_duration
from metrics_pipeline.routing.intervals import LOCAL, Location, TimeInterval, TimeIntervalSpec
from metrics_pipeline.routing.matchers import EXAMPLE, Matcher, MatcherError, parse_matchers
from metrics_pipeline.routing.people import LocalTime, PeriodDays

ALL_LABELS = "..."


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value))
    except ValueError as error:
        raise PydanticCustomError("duration", "{problem}", {"problem": str(error)}) from None


def _matchers(value: object) -> object:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        raise PydanticCustomError("matcher", "matchers are a list of texts such as {example}", {"example": EXAMPLE})
    found: list[Matcher] = []
    for text in texts:
        if isinstance(text, Matcher):
            found.append(text)
            continue
        try:
            found.extend(parse_matchers(str(text)))
        except MatcherError as error:
            raise PydanticCustomError("matcher", "{problem}", {"problem": str(error)}) from None
    return tuple(found)


def _texts(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _pattern(value: object) -> object:
    try:
        Matcher("label", "=~", str(value))
    except MatcherError as error:
        raise PydanticCustomError("matcher", "{problem}", {"problem": str(error)}) from None
    return str(value)


def _label_value(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["30s", "5m", "4h", "7d"]}),
]
Matchers = Annotated[
    tuple[Matcher, ...],
    BeforeValidator(_matchers),
    PlainSerializer(lambda found: [str(one) for one in found], return_type=list[str]),
    WithJsonSchema({"type": "array", "items": {"type": "string", "examples": [EXAMPLE]}}),
]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
Pattern = Annotated[str, BeforeValidator(_pattern)]
Value = Annotated[str, BeforeValidator(_label_value)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def all_matchers(
    matchers: tuple[Matcher, ...], equal: Mapping[str, str], regex: Mapping[str, str]
) -> tuple[Matcher, ...]:
    """Matchers in the new and in the old spelling together."""
    return (
        *matchers,
        *(Matcher(name, "=", value) for name, value in equal.items()),
        *(Matcher(name, "=~", value) for name, value in regex.items()),
    )


class EscalationStep(_Keys):
    """Who is told next of a red alert that nobody acknowledged."""

    after: Duration = Field(description="Since the alert was first told at red.")
    receiver: str = Field(description="Name of a receiver, e.g. one with a rotation or a manager.")


class Route(_Keys):
    """One node of the tree. What is left out is inherited from the parent."""

    receiver: str | None = Field(None, description="Name of a receiver; the root must have one.")
    group_by: Texts | None = Field(None, description="Labels whose values make a group; ['...'] = every alert alone.")
    matchers: Matchers = Field((), description=f"All must match, e.g. {EXAMPLE}.")
    match: dict[str, Value] = Field({}, description="Old spelling of matchers: label: value.")
    match_re: dict[str, Pattern] = Field({}, description="Old spelling of matchers: label: regular expression.")
    continues: bool = Field(False, alias="continue", description="Go on with the siblings after a match.")
    routes: tuple[Route, ...] = Field((), description="Children, tried in order.")
    group_wait: Duration | None = Field(None, description="Wait before the first message of a group (default 30s).")
    group_interval: Duration | None = Field(None, description="Wait before news of a group (default 5m).")
    repeat_interval: Duration | None = Field(None, description="Remind after so long (default 4h).")
    mute_time_intervals: Texts = Field((), description="Names of time intervals in which nothing is sent.")
    active_time_intervals: Texts = Field((), description="Names of time intervals outside which nothing is sent.")
    escalation: tuple[EscalationStep, ...] | None = Field(
        None, description="Own steps instead of the common ones; [] for none. Not in Alertmanager."
    )

    @property
    def conditions(self) -> tuple[Matcher, ...]:
        """Its matchers in both spellings."""
        return all_matchers(self.matchers, self.match, self.match_re)


class Receiver(_Keys):
    """Whom to tell. People are reached through the channels that write to each person, or mentioned in rooms."""

    name: str = Field(min_length=1)
    channels: Texts = Field((), description="Channels by name: file, smtp, or one of <home>/channels.yml.")
    people: Texts = Field((), description="Ids of people.")
    teams: Texts = Field((), description="Ids of teams.")
    rotations: Texts = Field((), description="Ids of rotations: who is on call when the message is made.")
    owner: bool = Field(False, description="The owner of the rule, else of its metric, else of its business line.")
    send_resolved: bool = Field(True, description="Tell the end as well.")
    quiet_hours: bool = Field(True, description="Heed the quiet hours; false for channels that wake nobody.")


class InhibitRule(_Keys):
    """While an alert matches the source, those that match the target with equal labels are not sent."""

    name: str = Field("", description="For people.")
    source_matchers: Matchers = Field((), description="The alert that explains the others.")
    target_matchers: Matchers = Field((), description="What it mutes. A yellow alert never mutes a red one.")
    source_match: dict[str, Value] = Field({}, description="Old spelling.")
    source_match_re: dict[str, Pattern] = Field({}, description="Old spelling.")
    target_match: dict[str, Value] = Field({}, description="Old spelling.")
    target_match_re: dict[str, Pattern] = Field({}, description="Old spelling.")
    equal: Texts = Field((), description="Labels that both must have, with one value.")

    @property
    def source(self) -> tuple[Matcher, ...]:
        return all_matchers(self.source_matchers, self.source_match, self.source_match_re)

    @property
    def target(self) -> tuple[Matcher, ...]:
        return all_matchers(self.target_matchers, self.target_match, self.target_match_re)


class Bucket(_Keys):
    """So many messages in so long; what is saved up is at most `count`."""

    count: int = Field(ge=1, description="Messages.")
    per: Duration = Field(description="Time in which they come back.")


class Limits(_Keys):
    """How much is sent at most; the rest is counted in a digest, never dropped."""

    per_channel: Bucket | None = Field(None, description="For each channel; a bot takes about 18 a minute.")
    channels: dict[str, Bucket] = Field({}, description="For single channels, by name.")
    per_person: Bucket | None = Field(None, description="For each person.")
    per_alert_day: int | None = Field(None, ge=1, description="News of one alert in one shop day.")
    work_orders: int = Field(
        20,
        ge=1,
        description="Slices of one rule that begin in one tick, in one period; when there are more, they share one work order.",
    )
    red: Bucket | None = Field(None, description="The lane of red messages, for each receiver; none = without a limit.")


class QuietHours(TimeIntervalSpec):
    """When yellow alerts wait. Red ones do not."""

    location: Location = Field(LOCAL, description="IANA time zone; default Local, the shop's.")


class Digest(_Keys):
    """What was held back by limits or flapping, in one message."""

    every: Duration = Field(timedelta(hours=1), description="Time between two digests to one receiver.")
    worst: int = Field(20, ge=1, le=100, description="Slices listed; the others are counted.")


class ScheduledDrill(_Keys):
    """A drill that begins by itself, so that whoever is on call is tried without anybody having to think of it."""

    start: LocalTime = Field(alias="from", description="First time, on the shop's clock: 2026-01-07T10:30.")
    every: PeriodDays = Field(ge=1, description="Whole days between two times: 7d, 4w.")
    rule: str | None = Field(None, description="Drill an alert of this rule; without: one of no rule.")
    slice: dict[str, Value] = Field({}, description="Which slice of the rule: dimension: member, as its by says.")
    severity: Literal["yellow", "red"] = Field("red", description="Only red escalates.")
    receiver: str | None = Field(None, description="To this receiver, whatever the routes say.")
    lasts: Duration = Field(timedelta(hours=2), alias="for", description="Ends by itself after so long.")

    @field_validator("start")
    @classmethod
    def _on_the_shops_clock(cls, value: datetime) -> datetime:
        if value.tzinfo is not None:
            raise PydanticCustomError("time", "the time is on the shop's clock; leave the offset away")
        return value

    @field_validator("lasts")
    @classmethod
    def _lasts_for_a_while(cls, value: timedelta) -> timedelta:
        if not value:
            raise PydanticCustomError("duration", "a drill has to last for a while; write 30m or 2h")
        return value

    @property
    def dimension(self) -> str:
        return "|".join(self.slice) or "all"

    @property
    def member(self) -> str:
        return "|".join(self.slice.values()) or "all"

    def last_time(self, clock: datetime) -> datetime | None:
        """The newest of its times up to a moment, both on the shop's clock (naive); None before the first."""
        turns = (clock - self.start) // timedelta(days=self.every)
        return None if turns < 0 else self.start + turns * timedelta(days=self.every)

    def next_time(self, clock: datetime) -> datetime:
        """The first of its times after a moment, both on the shop's clock (naive)."""
        last = self.last_time(clock)
        return self.start if last is None else last + timedelta(days=self.every)


class RoutesFile(_Keys):
    """`alert_rules/_routes.yml`."""

    route: Route
    receivers: tuple[Receiver, ...] = ()
    inhibit_rules: tuple[InhibitRule, ...] = ()
    time_intervals: tuple[TimeInterval, ...] = Field(
        (), validation_alias=AliasChoices("time_intervals", "mute_time_intervals")
    )
    limits: Limits = Limits()
    quiet_hours: QuietHours | None = None
    escalation: tuple[EscalationStep, ...] = ()
    fallback: str | None = Field(None, description="Receiver of what reaches nobody; default: the root's.")
    digest: Digest = Digest()
    flapping: bool = Field(
        True, description="Tell an alert that comes and goes once, then in digests until it is stable."
    )
    drills: tuple[ScheduledDrill, ...] = Field((), description="Drills that begin by themselves.")
    ack_timeout: Duration = Field(timedelta(hours=8), description="How long an acknowledgement holds.")
    incidents: bool = Field(True, description="Alerts on a metric and on what it is made of become one incident.")


def routes_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a routes file, for editors."""
    return RoutesFile.model_json_schema(by_alias=True)
