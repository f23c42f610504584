"""Who there is: people, teams, rotations and business lines (`alert_rules/_people.yml`), and who is on call when."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from metrics_pipeline.routing.durations import parse_duration
from metrics_pipeline.routing.intervals import LOCAL, Location, Minute

Id = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=80)]
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _whole_days(value: object) -> object:
    if isinstance(value, int):
        return value
    try:
        period = parse_duration(str(value))
    except ValueError as error:
        raise PydanticCustomError("duration", "{problem}", {"problem": str(error)}) from None
    if period % timedelta(days=1) or not period:
        raise PydanticCustomError("duration", "it is whole days (1d, 1w, 2w), not {text}", {"text": repr(str(value))})
    return period // timedelta(days=1)


def _local_time(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise PydanticCustomError(
            "time", "{text} is not a time; write 2026-02-16T09:00", {"text": repr(str(value))}
        ) from None


PeriodDays = Annotated[int, BeforeValidator(_whole_days), WithJsonSchema({"type": "string", "examples": ["1d", "1w"]})]
LocalTime = Annotated[datetime, BeforeValidator(_local_time)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Contacts(_Keys):
    """How a person is reached. A value may name environment variables: `${LI_PHONE}`."""

    email: str | None = Field(None, description="Mail address.")
    phone: str | None = Field(None, description="For text messages, and to be mentioned where no user id is given.")
    dingtalk: str | None = Field(None, description="User id in DingTalk.")
    wecom: str | None = Field(None, description="User id in WeCom.")
    feishu: str | None = Field(None, description="Open id in Feishu.")


class Person(_Keys):
    """One person."""

    id: Id
    name_zh: str = Field("", description="Name in Chinese.")
    name_en: str = Field("", description="Name in English.")
    language: Literal["zh", "en"] | None = Field(None, description="Language of messages; default: the installation's.")
    contacts: Contacts = Contacts()


class Team(_Keys):
    """People who answer together; may own rules and metrics."""

    id: Id
    name_zh: str = Field("", description="Name in Chinese.")
    name_en: str = Field("", description="Name in English.")
    members: tuple[str, ...] = Field((), description="Ids of people.")
    channels: tuple[str, ...] = Field((), description="Channels that are the team's own rooms.")


class Override(_Keys):
    """Somebody else's turn, from one time to another, on the clock of the rotation."""

    start: LocalTime = Field(alias="from", description="2026-02-16T09:00")
    until: LocalTime = Field(description="2026-02-17T09:00; not included.")
    person: str = Field(description="Id of the person.")


class Rotation(_Keys):
    """Who is on call in turn."""

    id: Id
    name_zh: str = Field("", description="Name in Chinese.")
    name_en: str = Field("", description="Name in English.")
    start: date = Field(description="First day of the first member.")
    period: PeriodDays = Field(7, validate_default=True, description="Length of a turn in whole days: 1d, 1w.")
    handover: Minute = Field(9 * 60, validate_default=True, description="Time of day at which turns change, HH:MM.")
    timezone: Location = Field(LOCAL, description="IANA time zone of the clock; default Local, the shop's.")
    members: tuple[str, ...] = Field((), description="Ids of people in the order of their turns.")
    overrides: tuple[Override, ...] = Field((), description="Exceptions; the last one that applies wins.")


class BusinessLine(_Keys):
    """A line of business, what belongs to it, and who answers for it when nobody nearer does."""

    id: Id
    name_zh: str = Field("", description="Name in Chinese.")
    name_en: str = Field("", description="Name in English.")
    owner: str | None = Field(None, description="Id of a person, team or rotation.")
    metrics: tuple[str, ...] = Field((), description="Metrics that belong to it whatever their own business_line says.")
    categories: tuple[str, ...] = Field((), description="Metric categories that belong to it.")


class PeopleFile(_Keys):
    """`alert_rules/_people.yml`."""

    people: tuple[Person, ...] = ()
    teams: tuple[Team, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    business_lines: tuple[BusinessLine, ...] = ()


def no_environment(_name: str) -> str | None:
    """An environment without variables."""
    return None


@dataclass(frozen=True)
class Directory:
    """People and whatever stands for people, by id. Ids of people, teams and rotations share one name space."""

    people: Mapping[str, Person] = field(default_factory=dict)
    teams: Mapping[str, Team] = field(default_factory=dict)
    rotations: Mapping[str, Rotation] = field(default_factory=dict)
    lines: Mapping[str, BusinessLine] = field(default_factory=dict)
    variable: Callable[[str], str | None] = no_environment
    """Environment variable → its value; None when it is not set."""
    local: tzinfo = UTC
    """What the time zone `Local` stands for."""

    @classmethod
    def of(
        cls, file: PeopleFile, *, variable: Callable[[str], str | None] = no_environment, local: tzinfo = UTC
    ) -> Directory:
        """The directory of a file; of two entries of one id the first counts (lint tells)."""
        return cls(
            people=_by_id(file.people),
            teams=_by_id(file.teams),
            rotations=_by_id(file.rotations),
            lines=_by_id(file.business_lines),
            variable=variable,
            local=local,
        )

    def __contains__(self, some_id: str) -> bool:
        return some_id in self.people or some_id in self.teams or some_id in self.rotations

    @property
    def ids(self) -> Iterator[str]:
        """Ids that can own something."""
        yield from (*self.people, *self.teams, *self.rotations)

    def who(self, some_id: str, at: datetime) -> tuple[Person, ...]:
        """The people an id stands for at an instant (aware); () when there is none."""
        if some_id in self.people:
            return (self.people[some_id],)
        if some_id in self.teams:
            return tuple(self.people[one] for one in self.teams[some_id].members if one in self.people)
        if some_id in self.rotations:
            person = self.on_call(some_id, at)
            return () if person is None else (person,)
        return ()

    def rooms(self, some_id: str) -> tuple[str, ...]:
        """Channels that are an id's own."""
        return self.teams[some_id].channels if some_id in self.teams else ()

    def on_call(self, rotation_id: str, at: datetime) -> Person | None:
        """Whose turn it is at an instant (aware); None before the rotation begins, or when nobody is in it.

        Turns change on the wall clock, so that a handover at 09:00 stays one where clocks are put forward.
        """
        rotation = self.rotations[rotation_id]
        zone: tzinfo = self.local if rotation.timezone == LOCAL else ZoneInfo(rotation.timezone)
        clock = at.astimezone(zone).replace(tzinfo=None)
        for override in reversed(rotation.overrides):
            start, until = (_on_clock(moment, zone) for moment in (override.start, override.until))
            if start <= clock < until:
                return self.people.get(override.person)
        days = ((clock - timedelta(minutes=rotation.handover)).date() - rotation.start).days
        members = [one for one in rotation.members if one in self.people]
        if days < 0 or not members:
            return None
        return self.people[members[days // rotation.period % len(members)]]

    def contact(self, person: Person, kind: str) -> str | None:
        """A contact of a person with its environment variables filled in; None when there is none."""
        text: str | None = getattr(person.contacts, kind, None)
        if text is None:
            return None
        missing = False

        def fill(found: re.Match[str]) -> str:
            nonlocal missing
            value = self.variable(found[1])
            missing |= not value
            return value or ""

        filled = _REFERENCE.sub(fill, text).strip()
        return None if missing or not filled else filled

    def line_of(self, metric: str, category: str, business_line: str) -> str:
        """The business line of a metric: the one that lists it, else the one of its category, else its own word."""
        for line in self.lines.values():
            if metric in line.metrics:
                return line.id
        for line in self.lines.values():
            if category and category in line.categories:
                return line.id
        return business_line


def _by_id(entries: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in entries:
        found.setdefault(entry.id, entry)
    return found


def _on_clock(moment: datetime, zone: tzinfo) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(zone).replace(tzinfo=None)
