"""Days off work in a country, from libraries: `chinesecalendar` for the days the State Council announced, `holidays` elsewhere.

China: `chinesecalendar` knows each year once its days are announced (in the November before), days off (phase holiday)
and weekend days that are worked for them (调休, phase workday). For later years there are the statutory days by rule
(`holidays`), and no worked weekends, because nobody knows them yet. Other countries: the nationwide public holidays.
Everything that follows a lunar or church calendar is computed by the library, without a table of ours.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from types import MappingProxyType

from metrics_pipeline.detection.promotions import GLOBAL, YEARS, CalendarError, PromotionDay
from metrics_pipeline.nearest import nearest

_SAME_RUN = timedelta(days=3)
"""Days off that lie so near belong to one event: another festival may lie between them."""
_CHINA = frozenset({"Asia/Chongqing", "Asia/Harbin", "PRC"})
"""Old names of zones that the table of zones no longer has."""
_CHINESE = MappingProxyType(
    {
        "New Year's Day": ("new_years_day", "元旦"),
        "Spring Festival": ("spring_festival", "春节"),
        "Tomb-sweeping Day": ("tomb_sweeping_day", "清明节"),
        "Labour Day": ("labour_day", "劳动节"),
        "Dragon Boat Festival": ("dragon_boat_festival", "端午节"),
        "Mid-autumn Festival": ("mid_autumn_festival", "中秋节"),
        "National Day": ("national_day", "国庆节"),
        "Anti-Fascist 70th Day": ("victory_day", "抗战胜利日"),
    }
)
CHINESE_EVENTS = frozenset(event for event, _ in _CHINESE.values()) | frozenset(
    f"{event}_workday" for event, _ in _CHINESE.values()
)
"""Ids of the events of China, which rules name in every shop."""
_STATUTORY = MappingProxyType({"Chinese New Year": "Spring Festival", "Labor Day": "Labour Day", "Tomb-Sweeping": "Tomb-sweeping Day", "Mid-Autumn": "Mid-autumn Festival"})  # fmt: skip
"""How `holidays` begins the names that `chinesecalendar` writes otherwise."""


@cache
def country_of(timezone: str) -> str | None:
    """ISO code of the country a time zone lies in; None when it lies in none (UTC) or in several."""
    if timezone in _CHINA:
        return "CN"
    table = (files("tzdata") / "zoneinfo" / "zone.tab").read_text("utf-8")
    rows = (line.split("\t") for line in table.splitlines() if line and not line.startswith("#"))
    return next((row[0] for row in rows if row[2] == timezone), None)


def markets_of(timezone: str) -> tuple[str, ...]:
    """Which events a shop in this time zone takes part in: those of its country, and the global ones."""
    country = country_of(timezone)
    return (country, GLOBAL) if country else (GLOBAL,)


def public_holidays(country: str, years: Iterable[int] = YEARS) -> tuple[PromotionDay, ...]:
    """Days off (and worked weekends) of a country, by date. Raises `CalendarError` for a country nobody knows."""
    require_country(country)
    chosen = sorted(set(years))
    found = _chinese(chosen) if country == "CN" else _of_library(country, chosen)
    return tuple(found)


def announced_until() -> int:
    """The last year whose days off and worked weekends in China are known."""
    from chinese_calendar.constants import holidays as off

    return int(max(day.year for day in off))


@cache
def _known_countries() -> tuple[str, ...]:
    """Asked once: the library imports every country to list them."""
    import holidays

    return tuple(holidays.list_supported_countries())


def require_country(country: str) -> None:
    """Raises `CalendarError` for a country whose public holidays nobody knows."""
    known = _known_countries()
    if country not in known:
        raise CalendarError(
            f"there are no public holidays for {country!r}{nearest(country, known)}; write the ISO code of a country, or none"
        )


def _chinese(years: list[int]) -> list[PromotionDay]:
    from chinese_calendar.constants import holidays as off
    from chinese_calendar.constants import workdays as worked

    announced = {day.year for day in off}
    days = {day: ("holiday", _word(name), "chinesecalendar") for day, name in off.items() if day.year in years}
    days |= {day: ("workday", _word(name), "chinesecalendar") for day, name in worked.items() if day.year in years}
    later = [year for year in years if year not in announced]
    days |= {day: ("holiday", _chinese_name(name), "holidays") for day, name in _library_days("CN", later)}
    found: list[PromotionDay] = []
    for day in sorted(days):
        kind, name, source = days[day]
        event, zh = _CHINESE.get(name, (_slug(name), name))
        if kind == "workday":
            found.append(
                PromotionDay(
                    day, f"{event}_workday", f"{zh}调休上班", f"{name}: working day", 0, kind, "CN", (), source
                )
            )
        else:
            found.append(_next(found, PromotionDay(day, event, zh, name, 0, kind, "CN", (), source)))
    return found


def _of_library(country: str, years: list[int]) -> list[PromotionDay]:
    found: list[PromotionDay] = []
    for day, name in _library_days(country, years):
        found.append(
            _next(
                found, PromotionDay(day, _slug(name), f"公共假日 {name}", name, 0, "holiday", country, (), "holidays")
            )
        )
    return found


def _next(found: list[PromotionDay], day: PromotionDay) -> PromotionDay:
    """The day with its position in a run of days of the same event."""
    before = next((one for one in reversed(found[-3:]) if one.event == day.event), None)
    if before is None or day.date - before.date > _SAME_RUN:
        return day
    return replace(day, day_in_event=before.day_in_event + (day.date - before.date).days)


@cache
def _days_of(country: str, year: int) -> tuple[tuple[date, str], ...]:
    import holidays

    languages = getattr(holidays.country_holidays(country), "supported_languages", ())
    language = next((one for one in ("en_US", "en") if one in languages), None)
    days = holidays.country_holidays(country, years=year, language=language)
    return tuple(sorted((day, name.split("; ")[0]) for day, name in days.items() if day.year == year))


def _library_days(country: str, years: Iterable[int]) -> list[tuple[date, str]]:
    return [one for year in years for one in _days_of(country, year)]


def _word(name: object) -> str:
    return str(getattr(name, "value", name))


def _chinese_name(name: str) -> str:
    return next((ours for start, ours in _STATUTORY.items() if name.startswith(start)), name.replace(" (observed)", ""))


def _slug(name: str) -> str:
    """Id of an event from its name: `Our Lady of Aparecida (observed)` → `our_lady_of_aparecida`."""
    plain = unicodedata.normalize("NFKD", re.sub(r"\(.*?\)", "", name)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "_", plain.lower().replace("'", "")).strip("_") or "public_holiday"
