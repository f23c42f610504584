"""The promotion calendar: days on which an ordinary expectation does not hold.

Read from the dbt seed `promotion_calendar.csv` (date, event, name_zh, name_en, day_in_event, kind, market). Main
days, holidays and the days after are never part of a baseline; a tested event day is judged with a wider band, or
against the same day of the last such event. The calendar is optional and meant to be edited: platforms move their dates every year.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import MappingProxyType

COLUMNS = ("date", "event", "name_zh", "name_en", "day_in_event", "kind", "market")
WIDENING: Mapping[str, float] = MappingProxyType(
    {"main": 1.0, "presale": 0.3, "season": 0.3, "holiday": 0.3, "after": 0.2}
)
"""Kind of day → least standard deviation as a share of the expectation: a main day may well bring three times as much."""
NO_BASELINE = frozenset({"main", "holiday", "after"})
"""Kinds that are left out of baselines. Pre-sales and long mild seasons stay in: without them weeks would have no past."""
ANY_PROMOTION = "any"
"""Name of whatever day of the calendar, where a rule names events or kinds."""
_CHINA = frozenset({"Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Harbin", "PRC"})


class CalendarError(ValueError):
    """A calendar file that cannot be used; names file, line, what was expected and what to do."""


@dataclass(frozen=True)
class PromotionDay:
    """One day of one event."""

    date: date
    event: str
    """Stable id of the event over the years, e.g. `double_11`."""
    name_zh: str
    name_en: str
    day_in_event: int
    """0 = the event's main date, negative before it: what aligns years."""
    kind: str
    """main, presale, season (long and mild), holiday or after."""
    market: str
    """`CN` or `global`."""


def load_promotions(path: Path, markets: Iterable[str] = ("CN", "global")) -> tuple[PromotionDay, ...]:
    """The days of these markets, by date; () when there is no file. Raises `CalendarError`."""
    if not path.exists():
        return ()
    wanted = set(markets)
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        if missing := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
            raise CalendarError(
                f"{path}:1: column {', '.join(missing)} is missing; the columns are {', '.join(COLUMNS)}"
            )
        days = [_day(path, reader.line_num, row) for row in reader]
    return tuple(sorted((day for day in days if day.market in wanted), key=lambda day: (day.date, day.event)))


def markets_of(timezone: str) -> tuple[str, ...]:
    """Which events a shop in this time zone takes part in: those of China only in China, the global ones everywhere."""
    return ("CN", "global") if timezone in _CHINA else ("global",)


def former_days(days: Sequence[PromotionDay]) -> dict[date, date]:
    """Event day → the same day of the last time the same event took place."""
    former: dict[date, date] = {}
    last: dict[tuple[str, int], date] = {}
    for day in sorted(days, key=lambda day: day.date):
        key = (day.event, day.day_in_event)
        if key in last and day.date not in former:
            former[day.date] = last[key]
        last[key] = day.date
    return former


def _day(path: Path, line: int, row: Mapping[str, str | None]) -> PromotionDay:
    texts = {name: (row.get(name) or "").strip() for name in COLUMNS}
    try:
        day, position = date.fromisoformat(texts["date"]), int(texts["day_in_event"])
    except ValueError as error:
        raise CalendarError(f"{path}:{line}: {error}; dates are YYYY-MM-DD, day_in_event is a whole number") from None
    if texts["kind"] not in WIDENING:
        raise CalendarError(f"{path}:{line}: kind {texts['kind']!r} is not known; use one of {', '.join(WIDENING)}")
    return PromotionDay(
        day, texts["event"], texts["name_zh"], texts["name_en"], position, texts["kind"], texts["market"]
    )
