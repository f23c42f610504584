"""Events that return by rule: from a line of the seed to the days of every year.

The dbt seed `promotion_calendar.csv` has one row per stretch of an event (event, name_zh, name_en, market, falls_on,
first_day, last_day, phase, from_year, until_year): on the days `first_day`…`last_day` after the date (before it, when
negative) the event is in this phase. `falls_on` is one of

    11-11                   that day of every year
    2026-05-08              that day only
    lunar 01-01             a day of the Chinese calendar: of the months 01, 05, 08 and 09, which all festivals but 七夕 are in
    thu 4 of 11 + 1         the day after the fourth Thursday of November; `mon -1 of 05` is the last Monday of May
    monthly 26              that day of every month (not of months that are too short)

The seed is optional and meant to be edited. A seed of the former shape, one row per day with its `date`, is read too.
"""

from __future__ import annotations

import calendar
import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path

from metrics_pipeline.detection.promotions import GLOBAL, PHASES, YEARS, Affects, CalendarError, PromotionDay
from metrics_pipeline.nearest import nearest

COLUMNS = ("event", "name_zh", "name_en", "market", "falls_on", "first_day", "last_day", "phase", "from_year", "until_year")  # fmt: skip
DAY_COLUMNS = ("date", "event", "name_zh", "name_en", "day_in_event", "kind", "market")
LUNAR_YEARS = range(1901, 2100)
"""Years of which the dates of the Chinese calendar are known."""
LONGEST = 60
"""Days before or after its date that an event can reach."""
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LUNAR = {1: ("lunar_new_year", 1), 5: ("dragon_boat", 5), 8: ("mid_autumn", 15), 9: ("double_ninth", 9)}
"""Month of the Chinese calendar → the festival in it whose date is known, and its day."""
_EXPECTED = "write 11-11, 2026-05-08, lunar 01-01, thu 4 of 11 + 1 or monthly 26"

Dates = Callable[[int], Iterable[date]]
"""The dates of an event in a year."""


@dataclass(frozen=True)
class Stretch:
    """Days `first`…`last` after the date, in one phase."""

    first: int
    last: int
    phase: str


@dataclass(frozen=True)
class Occasion:
    """An event and the years in which it takes place."""

    event: str
    name_zh: str
    name_en: str
    market: str
    falls_on: tuple[str, ...]
    stretches: tuple[Stretch, ...]
    from_year: int = YEARS[0]
    until_year: int = YEARS[-1]
    affects: Affects = ()
    source: str = "seed"

    def days(self, years: Iterable[int] = YEARS) -> Iterator[PromotionDay]:
        """Its days, those of each date together; of dates so near that days meet, the later one has them.

        Raises `CalendarError` for a `falls_on` that is none.
        """
        dates = sorted(
            {on for text in self.falls_on for year in years for on in dates_of(text)(year) if self._takes_place(year)}
        )
        found: dict[date, PromotionDay] = {}
        for on in dates:
            for stretch in self.stretches:
                for position in range(stretch.first, stretch.last + 1):
                    day = on + timedelta(days=position)
                    if day not in found or abs(position) < abs(found[day].day_in_event):
                        found[day] = PromotionDay(
                            day, self.event, self.name_zh, self.name_en, position, stretch.phase, self.market,
                            self.affects, self.source,
                        )  # fmt: skip
        yield from found.values()

    def _takes_place(self, year: int) -> bool:
        return self.from_year <= year <= self.until_year


@cache
def dates_of(text: str) -> Dates:
    """What a `falls_on` means. Raises `CalendarError` saying what was expected."""
    words = text.strip().lower()
    if match := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", words):
        once = _a_date(*map(int, match.groups()), text=text)
        return lambda year: (once,) if year == once.year else ()
    if match := re.fullmatch(r"(\d\d)-(\d\d)", words):
        month, day = map(int, match.groups())
        _a_date(2024, month, day, text=text)  # a leap year, so that 02-29 is a date
        return lambda year: (date(year, month, day),) if day <= calendar.monthrange(year, month)[1] else ()
    if match := re.fullmatch(r"lunar (\d\d)-(\d\d)", words):
        return _lunar(*map(int, match.groups()), text=text)
    if match := re.fullmatch(r"monthly (\d\d?)", words):
        day = int(match[1])
        if not 1 <= day <= 31:
            raise CalendarError(f"{text!r}: a month has days 1 to 31; {_EXPECTED}")
        return lambda year: (
            date(year, month, day) for month in range(1, 13) if day <= calendar.monthrange(year, month)[1]
        )
    if match := re.fullmatch(r"([a-z]{3}) (-?[1-5]) of (\d\d?)(?: ?([+-]) ?(\d\d?))?", words):
        return _weekday(match, text)
    raise CalendarError(f"{text!r} is no date that returns; {_EXPECTED}")


def load_promotions(
    path: Path, markets: Iterable[str] = ("CN", GLOBAL), years: Iterable[int] = YEARS
) -> tuple[PromotionDay, ...]:
    """The days of these markets in these years, by date; () when there is no file. Raises `CalendarError`."""
    wanted, chosen = set(markets), tuple(years)
    return in_order(day for one in load_occasions(path) if one.market in wanted for day in one.days(chosen))


def load_occasions(path: Path) -> tuple[Occasion, ...]:
    """The events of a seed; () when there is no file. Raises `CalendarError`."""
    if not path.exists():
        return ()
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        names = reader.fieldnames or []
        by_day = "date" in names
        if missing := [name for name in (DAY_COLUMNS if by_day else COLUMNS) if name not in names]:
            raise CalendarError(
                f"{path}:1: column {', '.join(missing)} is missing; the columns are {', '.join(COLUMNS)}"
            )
        read = _single_day if by_day else _stretch_of_event
        return tuple(read(f"{path}:{reader.line_num}", _texts(row, names)) for row in reader)


def in_order(days: Iterable[PromotionDay]) -> tuple[PromotionDay, ...]:
    """By date and event; of the same event and slices each day once, the first that was given."""
    once = {(day.date, day.event, day.affects): day for day in reversed(list(days))}
    return tuple(sorted(once.values(), key=lambda day: (day.date, day.event, day.affects)))


def phase_of(text: str, place: str) -> str:
    """A phase. Raises `CalendarError` with the place."""
    if text not in PHASES:
        raise CalendarError(
            f"{place}: phase {text!r} is not known{nearest(text, PHASES)}; use one of {', '.join(PHASES)}"
        )
    return text


def _texts(row: Mapping[str, str | None], names: Iterable[str]) -> dict[str, str]:
    return {name: (row.get(name) or "").strip() for name in names}


def _stretch_of_event(place: str, row: Mapping[str, str]) -> Occasion:
    phase_of(row["phase"], place)
    try:
        first, last = int(row["first_day"]), int(row["last_day"])
        from_year, until_year = (
            int(row[name] or year) for name, year in (("from_year", YEARS[0]), ("until_year", YEARS[-1]))
        )
    except ValueError as error:
        raise CalendarError(f"{place}: {error}; first_day, last_day and years are whole numbers") from None
    if not -LONGEST <= first <= last <= LONGEST:
        raise CalendarError(f"{place}: days {first} to {last}; write them in order, within {LONGEST} days of the date")
    if not row["event"]:
        raise CalendarError(f"{place}: event is empty; write an id such as double_11")
    try:
        dates_of(row["falls_on"])
    except CalendarError as error:
        raise CalendarError(f"{place}: falls_on {error}") from None
    return Occasion(
        row["event"], row["name_zh"], row["name_en"], row["market"], (row["falls_on"],), (Stretch(first, last, row["phase"]),),
        from_year, until_year,
    )  # fmt: skip


def _single_day(place: str, row: Mapping[str, str]) -> Occasion:
    try:
        day, position = date.fromisoformat(row["date"]), int(row["day_in_event"])
    except ValueError as error:
        raise CalendarError(f"{place}: {error}; dates are YYYY-MM-DD, day_in_event is a whole number") from None
    if row["kind"] not in PHASES:
        raise CalendarError(f"{place}: kind {row['kind']!r} is not known; use one of {', '.join(PHASES)}")
    on = day - timedelta(days=position)
    return Occasion(
        row["event"], row["name_zh"], row["name_en"], row["market"], (on.isoformat(),),
        (Stretch(position, position, row["kind"]),), on.year, on.year,
    )  # fmt: skip


def _a_date(year: int, month: int, day: int, *, text: str) -> date:
    try:
        return date(year, month, day)
    except ValueError:
        raise CalendarError(f"{text!r} is no day of the calendar; {_EXPECTED}") from None


def _lunar(month: int, day: int, *, text: str) -> Dates:
    if month not in _LUNAR or not 1 <= day <= 29:
        known = ", ".join(f"{one:02}" for one in _LUNAR)
        raise CalendarError(
            f"{text!r}: of the Chinese calendar the months {known} are known, with days 01 to 29; {_EXPECTED}"
        )
    festival, on_day = _LUNAR[month]

    def dates(year: int) -> Iterable[date]:
        on = _festival(festival, year) if year in LUNAR_YEARS else None
        return () if on is None else (on + timedelta(days=day - on_day),)

    return dates


@cache
def _festival(name: str, year: int) -> date | None:
    from holidays.calendars.chinese import _ChineseLunisolar

    on: date | None = getattr(_ChineseLunisolar(), f"{name}_date")(year)[0]
    return on


def _weekday(match: re.Match[str], text: str) -> Dates:
    name, nth, month, sign, shift = match.groups()
    if name not in _WEEKDAYS or not 1 <= int(month) <= 12 or int(nth) == 0:
        raise CalendarError(f"{text!r}: weekdays are {', '.join(_WEEKDAYS)}, months 1 to 12; {_EXPECTED}")
    weekday, number, of_month = _WEEKDAYS.index(name), int(nth), int(month)
    later = timedelta(days=int(f"{sign or '+'}{shift or 0}"))

    def dates(year: int) -> Iterable[date]:
        length = calendar.monthrange(year, of_month)[1]
        days = [date(year, of_month, day) for day in range(1, length + 1)]
        same = [day for day in days if day.weekday() == weekday]
        index = number - 1 if number > 0 else number
        return (same[index] + later,) if -len(same) <= index < len(same) else ()

    return dates
