"""From a line of the calendar to the days of every year."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime, time, timedelta
from functools import cache

import chinese_calendar
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.detection.occasions import LUNAR_YEARS, Occasion, Stretch, dates_of, load_promotions
from metrics_pipeline.detection.promotions import PHASES, CalendarError
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.sources.simulator.calendar import LUNAR_NEW_YEAR

SEED = PROJECT_ROOT / "dbt_project" / "seeds" / "promotion_calendar.csv"
HEADER = "event,name_zh,name_en,market,falls_on,first_day,last_day,phase,from_year,until_year\n"
years = st.integers(2000, 2099)
SYNODIC_MONTH = 29.530588861
BEIJING_NEW_MOON = datetime(2000, 1, 7, 2, 14)
"""The first new moon of 2000, in Beijing."""


@given(st.dates(date(1990, 1, 1), date(2090, 12, 31)), years)
def test_a_date_returns_every_year_or_is_once(on, year):
    assert tuple(dates_of(on.isoformat())(year)) == ((on,) if on.year == year else ())
    if (on.month, on.day) != (2, 29):
        assert tuple(dates_of(f"{on:%m-%d}")(year)) == (on.replace(year=year),)


@given(st.integers(0, 6), st.integers(1, 4), st.integers(1, 12), st.integers(-30, 30), years)
def test_the_nth_weekday_of_a_month(weekday, nth, month, shift, year):
    name = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[weekday]
    (on,) = dates_of(f"{name} {nth} of {month:02} {shift:+d}")(year)
    zero = on - timedelta(days=shift)
    assert (zero.weekday(), zero.month, (zero.day - 1) // 7 + 1) == (weekday, month, nth)
    (last,) = dates_of(f"{name} -1 of {month}")(year)
    assert (last + timedelta(days=7)).month != month and last.weekday() == weekday


@given(st.integers(1, 31), years)
def test_a_day_of_every_month_that_has_it(day, year):
    found = list(dates_of(f"monthly {day}")(year))
    assert {on.day for on in found} == {day}
    assert len(found) == sum(day <= (date(year + m // 12, m % 12 + 1, 1) - timedelta(days=1)).day for m in range(1, 13))


@given(st.sampled_from(LUNAR_YEARS))
def test_the_lunar_new_year_is_a_new_moon_between_21_january_and_21_february(year):
    (on,) = dates_of("lunar 01-01")(year)
    assert (1, 20) <= (on.month, on.day) <= (2, 21)
    since = (datetime.combine(on, time(12)) - BEIJING_NEW_MOON) / timedelta(days=1)
    assert abs((since + SYNODIC_MONTH / 2) % SYNODIC_MONTH - SYNODIC_MONTH / 2) < 1.3  # the true moon is up to 0.6 off


def test_the_lunar_new_year_is_that_of_every_table_there_is():
    announced = {day for day, name in chinese_calendar.constants.holidays.items() if name == "Spring Festival"}
    for year in {day.year for day in announced}:
        assert set(dates_of("lunar 01-01")(year)) <= announced
    for year, on in LUNAR_NEW_YEAR.items():
        assert tuple(dates_of("lunar 01-01")(year)) == (on,)
    midautumn = {day for day, name in chinese_calendar.constants.holidays.items() if name == "Mid-autumn Festival"}
    for year in {day.year for day in midautumn}:
        assert set(dates_of("lunar 08-15")(year)) <= announced_near(midautumn)


def announced_near(days):
    """A festival that falls on a day off of another event is named by that one."""
    return {day + timedelta(days=n) for day in days for n in (-1, 0, 1)} | {date(2020, 10, 1)}


@given(st.integers(1950, 2099))
def test_lunar_months_have_29_or_30_days(year):
    fifth, eighth, ninth = (next(iter(dates_of(f"lunar {month:02}-01")(year))) for month in (5, 8, 9))
    assert (ninth - eighth).days in (29, 30, 58, 59, 60)  # with a leap eighth month between
    assert 87 <= (eighth - fifth).days <= 119


def test_years_beyond_the_lunar_calendar_have_no_date():
    assert tuple(dates_of("lunar 01-01")(LUNAR_YEARS[-1] + 1)) == ()
    assert tuple(dates_of("02-29")(2023)) == ()
    assert tuple(dates_of("sun 5 of 2")(2023)) == ()


@pytest.mark.parametrize(
    "text",
    ["", "11-31", "13-01", "2025-02-29", "lunar 07-07", "lunar 01-30", "thu 6 of 11", "thu 0 of 11", "foo 1 of 11", "thu 1 of 13", "monthly 0", "monthly 32", "easter"],
)  # fmt: skip
def test_what_is_no_date_says_how_to_write_one(text):
    with pytest.raises(CalendarError, match="thu 4 of 11"):
        dates_of(text)


@settings(max_examples=50)
@given(st.text(max_size=20))
def test_any_text_is_a_date_or_a_calendar_error(text):
    with suppress(CalendarError):
        assert all(isinstance(on, date) for on in dates_of(text)(2024))


def test_of_dates_so_near_that_days_meet_the_nearer_has_them():
    weekly = Occasion(
        "m", "会员日", "Members", "own", ("2025-03-01", "2025-03-04"), (Stretch(0, 0, "main"), Stretch(1, 5, "after"))
    )
    found = {day.date.day: (day.kind, day.day_in_event) for day in weekly.days()}
    assert found[4] == ("main", 0)
    assert found[3] == ("after", 2)
    assert max(found) == 9


@cache
def shapes() -> dict[tuple[str, int], list[tuple[int, str]]]:
    found: dict[tuple[str, int], list[tuple[int, str]]] = {}
    for day in load_promotions(SEED):
        zero = day.date - timedelta(days=day.day_in_event)
        found.setdefault((day.event, zero.year), []).append((day.day_in_event, day.kind))
    return found


@pytest.mark.parametrize("year", range(2011, 2041))
def test_every_shipped_event_returns_every_year_in_the_same_shape(year):
    events = {event for event, _ in shapes()}
    for event in events:
        assert shapes()[event, year] == shapes()[event, 2024]
    assert {kind for days in shapes().values() for _, kind in days} <= set(PHASES)


def test_a_line_that_cannot_be_used_is_named(tmp_path):
    path = tmp_path / "calendar.csv"
    for row, part in (
        ("a,甲,A,CN,11-31,0,0,main,,", r"calendar.csv:2: falls_on '11-31'"),
        ("a,甲,A,CN,11-11,0,0,feast,,", r"calendar.csv:2: phase 'feast' is not known.*before"),
        ("a,甲,A,CN,11-11,0,0,befor,,", "did you mean 'before'"),
        ("a,甲,A,CN,11-11,2,1,main,,", "days 2 to 1; write them in order"),
        ("a,甲,A,CN,11-11,0,99,main,,", "within 60 days"),
        ("a,甲,A,CN,11-11,x,1,main,,", "whole numbers"),
        (",甲,A,CN,11-11,0,1,main,,", "event is empty"),
    ):
        path.write_text(HEADER + row + "\n", "utf-8")
        with pytest.raises(CalendarError, match=part):
            load_promotions(path)
