"""Days off work and worked weekends, from the libraries."""

from __future__ import annotations

from datetime import date

import chinese_calendar
import pytest

from metrics_pipeline.detection.promotions import CalendarError
from metrics_pipeline.detection.public_holidays import country_of, public_holidays


def test_worked_weekends_and_days_off_are_those_the_state_council_announced():
    days = {day.date: day for day in public_holidays("CN", (2024, 2025)) if day.date.year == 2025}
    assert {on for on, day in days.items() if day.kind == "workday"} == {
        date(2025, 1, 26), date(2025, 2, 8), date(2025, 4, 27), date(2025, 9, 28), date(2025, 10, 11),
    }  # fmt: skip
    for on, day in days.items():
        assert chinese_calendar.is_workday(on) == (day.kind == "workday")
    assert (days[date(2025, 10, 8)].event, days[date(2025, 10, 8)].day_in_event) == ("national_day", 7)
    assert days[date(2025, 10, 6)].name_zh == "中秋节"


def test_years_not_announced_have_the_statutory_days_and_no_worked_weekends():
    last = max(on.year for on in chinese_calendar.constants.holidays)
    days = public_holidays("CN", (last + 1,))
    assert {day.source for day in days} == {"holidays"}
    assert {day.kind for day in days} == {"holiday"}
    assert {day.event for day in days} >= {"new_years_day", "spring_festival", "tomb_sweeping_day", "national_day"}


def test_other_countries_have_their_own():
    days = {day.date: day for day in public_holidays("BR", (2017,))}
    assert days[date(2017, 5, 1)].event == "workers_day"
    assert days[date(2017, 4, 14)].name_en == "Good Friday"
    assert days[date(2017, 4, 14)].market == "BR"
    assert date(2017, 1, 16) in {day.date for day in public_holidays("US", (2017,))}  # Martin Luther King Jr. Day


def test_the_time_zone_says_the_country():
    assert country_of("America/Los_Angeles") == "US"
    assert country_of("Asia/Urumqi") == country_of("PRC") == "CN"
    assert country_of("UTC") is None
    with pytest.raises(CalendarError, match="ISO code"):
        public_holidays("XQ")
