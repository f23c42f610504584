"""Named times: when a route is mute or active, and quiet hours.

The keys and their meaning are those of Alertmanager's `time_interval` (docs/configuration, `<time_interval>`): all keys
that are given must match, one entry of each is enough, times include their start and not their end, everything is read
on the wall clock of `location`, by default UTC. One thing is added: a time range may cross midnight (22:00 to 08:00);
its date conditions are then those of the day on which it begins.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, Final, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

DAY_MINUTES: Final = 24 * 60
HORIZON: Final = timedelta(days=400)
"""How far `clear_from` looks; what is mute for longer is mute without an end."""
WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS: Final = tuple("january february march april may june july august september october november december".split())
LOCAL: Final = "Local"
"""The shop's own time zone."""


class Span(NamedTuple):
    """Both ends are included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}:{self.last}"


def _wrong(text: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError("interval", "{text} is not {expected}", {"text": repr(text), "expected": expected})


def _ends(value: object) -> tuple[str, str]:
    first, _, last = str(value).strip().lower().partition(":")
    return first.strip(), (last or first).strip()


def _weekdays(value: object) -> object:
    if isinstance(value, Span):
        return value
    expected = "a weekday such as 'monday' or a range such as 'monday:friday'"
    try:
        first, last = (WEEKDAYS.index(name) for name in _ends(value))
    except ValueError:
        raise _wrong(str(value), expected) from None
    if first > last:
        raise _wrong(str(value), "a range: the week begins on sunday; write two entries")
    return Span(first, last)


def _month_number(name: str) -> int:
    return int(name) if name.isdigit() else MONTHS.index(name) + 1


def _months(value: object) -> object:
    if isinstance(value, Span):
        return value
    try:
        first, last = (_month_number(name) for name in _ends(value))
    except ValueError:
        raise _wrong(str(value), "a month such as 'november', '11' or a range such as 'november:december'") from None
    if not 1 <= first <= last <= 12:
        raise _wrong(str(value), "a range of months in the order of the year")
    return Span(first, last)


def _days(value: object) -> object:
    if isinstance(value, Span):
        return value
    try:
        first, last = (int(number) for number in _ends(value))
    except ValueError:
        raise _wrong(str(value), "a day of the month such as '1', '-1' or a range such as '1:5'") from None
    if 0 in (first, last) or max(abs(first), abs(last)) > 31:
        raise _wrong(str(value), "a day of the month: 1 to 31, or -31 to -1 from its end")
    if first < 0 < last:
        raise _wrong(str(value), "a range: the end must be negative when the start is")
    if (first > 0) == (last > 0) and first > last:
        raise _wrong(str(value), "a range: it ends before it begins")
    if first > 0 > last and 31 + last + 1 < first:
        raise _wrong(str(value), "a range: it ends before it begins in every month")
    return Span(first, last)


def _years(value: object) -> object:
    if isinstance(value, Span):
        return value
    try:
        first, last = (int(number) for number in _ends(value))
    except ValueError:
        raise _wrong(str(value), "a year such as '2026' or a range such as '2026:2028'") from None
    if first > last:
        raise _wrong(str(value), "a range: it ends before it begins")
    return Span(first, last)


def _minute(value: object) -> object:
    if isinstance(value, int):
        return value
    if not (found := re.fullmatch(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00", str(value).strip())):
        raise _wrong(str(value), "a time of day; write HH:MM in quotes, 00:00 to 24:00")
    return DAY_MINUTES if found[1] is None else int(found[1]) * 60 + int(found[2])


def _zone(value: object) -> object:
    if value in (LOCAL, "local"):
        return LOCAL
    try:
        ZoneInfo(str(value))
    except (KeyError, ValueError, OSError):
        raise _wrong(
            str(value), "a time zone; write an IANA name such as Asia/Shanghai, or Local for the shop's"
        ) from None
    return str(value)


Text = WithJsonSchema({"type": "string"})
Weekdays = Annotated[Span, BeforeValidator(_weekdays), Text]
Months = Annotated[Span, BeforeValidator(_months), Text]
Days = Annotated[Span, BeforeValidator(_days), Text]
Years = Annotated[Span, BeforeValidator(_years), Text]
Minute = Annotated[int, BeforeValidator(_minute), Text]
Location = Annotated[str, BeforeValidator(_zone)]


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeRange(_Keys):
    """From `start_time` up to, not including, `end_time`; over midnight when the start is the later."""

    start_time: Minute = Field(description="HH:MM")
    end_time: Minute = Field(description="HH:MM; 24:00 is the end of the day.")

    @model_validator(mode="after")
    def _something(self) -> TimeRange:
        if self.start_time in (self.end_time, DAY_MINUTES) or self.end_time == 0:
            raise PydanticCustomError(
                "interval", "a range of times needs a start and a later end, or an end next morning"
            )
        return self

    @property
    def crosses_midnight(self) -> bool:
        return self.start_time > self.end_time


class TimeIntervalSpec(_Keys):
    """One stretch of time that comes again; what is left out matches always."""

    times: tuple[TimeRange, ...] = Field((), description="Times of day.")
    weekdays: tuple[Weekdays, ...] = Field((), description="Names or ranges such as 'monday:friday'; sunday is first.")
    days_of_month: tuple[Days, ...] = Field((), description="Numbers or ranges such as '1:5', '-3:-1' from the end.")
    months: tuple[Months, ...] = Field((), description="Names or numbers or ranges of them.")
    years: tuple[Years, ...] = Field((), description="Numbers or ranges of them.")
    location: Location = Field("UTC", description="IANA time zone, UTC (default), or Local for the shop's.")

    def contains(self, at: datetime, local: tzinfo = UTC) -> bool:
        """Whether an instant lies inside. `at`: aware; `local`: the zone that `Local` stands for."""
        clock = at.astimezone(self.zone(local))
        minute = clock.hour * 60 + clock.minute
        today = clock.date()
        if not self.times:
            return self._on(today)
        for some in self.times:
            if not some.crosses_midnight:
                if some.start_time <= minute < some.end_time and self._on(today):
                    return True
            elif minute >= some.start_time:
                if self._on(today):
                    return True
            elif minute < some.end_time and self._on(today - timedelta(days=1)):
                return True
        return False

    def zone(self, local: tzinfo) -> tzinfo:
        """The zone its clock is in."""
        return local if self.location == LOCAL else ZoneInfo(self.location)

    def _on(self, day: date) -> bool:
        return (
            _any(self.weekdays, day.isoweekday() % 7)
            and _any(self.months, day.month)
            and _any(self.years, day.year)
            and (not self.days_of_month or any(_in_month(span, day) for span in self.days_of_month))
        )

    def edges(self, day: date, local: tzinfo) -> set[datetime]:
        """Instants of a local day at which it may begin or end."""
        zone = self.zone(local)
        minutes = {0, *(edge for some in self.times for edge in (some.start_time, some.end_time))}
        found = set()
        for minute in minutes:
            wall = datetime.combine(day, time()) + timedelta(minutes=minute)
            for fold in (0, 1):  # an hour that comes twice, or not at all
                found.add(replace_zone(wall, zone, fold).astimezone(UTC))
        return found


class TimeInterval(_Keys):
    """A name for stretches of time; it holds while one of them does."""

    name: str = Field(min_length=1)
    time_intervals: tuple[TimeIntervalSpec, ...] = Field(description="The stretches.")

    def contains(self, at: datetime, local: tzinfo = UTC) -> bool:
        """Whether an instant lies inside. `at`: aware; `local`: the zone that `Local` stands for."""
        return any(spec.contains(at, local) for spec in self.time_intervals)


def replace_zone(wall: datetime, zone: tzinfo, fold: int = 0) -> datetime:
    """The instant at which a clock of the zone shows `wall`; `fold` 1: the second time it does."""
    return wall.replace(tzinfo=zone, fold=fold)


def clear_from(
    specs: Iterable[TimeIntervalSpec], at: datetime, local: tzinfo = UTC, *, outside: bool = False
) -> datetime | None:
    """The first instant not before `at` (aware) at which no spec holds, in UTC; None when there is none within 400 days.

    `outside`: the first at which one does hold instead, for intervals that say when a route is active.
    """
    all_specs = tuple(specs)

    def is_free(instant: datetime) -> bool:
        return any(spec.contains(instant, local) for spec in all_specs) == outside

    start = at.astimezone(UTC)
    if is_free(start):
        return start
    for offset in range(-1, HORIZON.days):
        day = (start + timedelta(days=offset)).date()
        quarters = datetime.combine(day, time(), UTC)  # clocks are put forward and back on the quarter hour
        edges = {quarters + timedelta(minutes=15 * number) for number in range(96)}
        for spec in all_specs:
            edges |= {edge for shift in (-1, 0, 1) for edge in spec.edges(day + timedelta(days=shift), local)}
        for edge in sorted(edges):
            if edge > start and edge.date() == day and is_free(edge):
                return edge
    return None


def _any(spans: tuple[Span, ...], number: int) -> bool:
    return not spans or any(span.first <= number <= span.last for span in spans)


def _in_month(span: Span, day: date) -> bool:
    length = monthrange(day.year, day.month)[1]
    first, last = (number if number > 0 else length + number + 1 for number in span)
    if first > length or last < 1:  # the 30th of February is no day, not the last one
        return False
    return max(first, 1) <= day.day <= min(last, length)
