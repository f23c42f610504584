"""Times: Alertmanager's rules, over midnight, and where clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from metrics_pipeline.routing.intervals import TimeIntervalSpec, clear_from

SYDNEY = ZoneInfo("Australia/Sydney")


def spec(**keys) -> TimeIntervalSpec:
    return TimeIntervalSpec.model_validate(keys)


def times(*pairs: str) -> list[dict[str, str]]:
    return [dict(zip(("start_time", "end_time"), pair.split("-"), strict=True)) for pair in pairs]


def at(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


OFFICE = spec(times=times("09:00-17:00"), weekdays=["monday:friday"])
LAST_DAYS = spec(days_of_month=["-3:-1"])
SYDNEY_OFFICE = spec(times=times("09:00-17:00"), weekdays=["monday:friday"], location="Australia/Sydney")


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        (spec(), ["2006-01-02T15:04", "2024-02-29T00:00"], []),
        (OFFICE, ["2026-11-11T09:00", "2026-11-11T16:59"], ["2026-11-11T08:59", "2026-11-11T17:00", "2026-11-14T12:00"]),
        (LAST_DAYS, ["2026-01-31T00:00", "2026-01-29T23:59", "2024-02-27T12:00"], ["2026-01-28T12:00", "2026-03-01T00:00"]),
        (spec(days_of_month=["1:31"], months=["february"]), ["2026-02-28T12:00"], ["2026-03-01T00:00"]),
        (spec(days_of_month=["30:31"], months=["2"]), [], ["2026-02-28T12:00"]),
        (spec(days_of_month=["1:-1"]), ["2026-02-01T00:00", "2026-02-28T00:00"], []),
        (spec(months=["November:december"], years=["2026", "2030:2031"]), ["2026-11-01T00:00", "2031-12-31T23:59"],
         ["2027-11-01T00:00", "2026-10-31T23:59"]),
        (SYDNEY_OFFICE, ["2021-04-06T13:00+10:00"], ["2021-04-06T13:00+00:00"]),
        (spec(times=times("00:00-24:00")), ["2026-01-01T23:59"], []),
        (spec(weekdays=["sunday"]), ["2026-11-15T12:00"], ["2026-11-16T12:00"]),
    ],
)  # fmt: skip
def test_an_instant_lies_inside_as_alertmanager_says(interval, inside, outside):
    assert [text for text in inside if not interval.contains(at(text))] == []
    assert [text for text in outside if interval.contains(at(text))] == []


def test_a_range_over_midnight_belongs_to_the_day_it_begins_on():
    friday_night = spec(times=times("22:00-08:00"), weekdays=["friday"])
    assert friday_night.contains(at("2026-11-13T22:00"))
    assert friday_night.contains(at("2026-11-14T07:59"))
    assert not friday_night.contains(at("2026-11-14T08:00"))
    assert not friday_night.contains(at("2026-11-13T07:00"))
    assert clear_from([friday_night], at("2026-11-13T23:30")) == at("2026-11-14T08:00")


def test_local_is_the_zone_that_is_given():
    night = spec(times=times("22:00-08:00"), location="Local")
    assert night.contains(at("2026-11-11T15:00"), ZoneInfo("Asia/Shanghai"))
    assert not night.contains(at("2026-11-11T15:00"), ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    "keys",
    [
        {"times": times("17:31-17:31")},
        {"times": times("12:30-24:01")},
        {"times": times("24:00-08:00")},
        {"times": times("01:99-02:00")},
        {"times": [{"start_time": "14:03"}]},
        {"weekdays": ["friday:monday"]},
        {"weekdays": ["1:3"]},
        {"weekdays": ["blursday"]},
        {"days_of_month": ["0"]},
        {"days_of_month": ["-50:-20"]},
        {"days_of_month": ["1:50"]},
        {"days_of_month": ["-15:5"]},
        {"days_of_month": ["10:-25"]},
        {"months": ["martius:june"]},
        {"months": ["december:january"]},
        {"months": ["13"]},
        {"years": ["2022:2020"]},
        {"location": "Moon/Base"},
        {"hours": ["1"]},
    ],
)
def test_what_alertmanager_refuses_is_refused(keys):
    with pytest.raises(ValidationError):
        spec(**keys)


def test_an_hour_that_does_not_exist_and_one_that_comes_twice():
    # Sydney: 2026-10-04 02:00 → 03:00, and 2026-04-05 03:00 → 02:00
    gap = spec(times=times("02:15-02:45"), location="Australia/Sydney")
    day = at("2026-10-04T00:00+10:00")
    assert not any(gap.contains(day + timedelta(minutes=number)) for number in range(24 * 60))
    twice = at("2026-04-04T23:00+11:00")
    assert sum(gap.contains(twice + timedelta(minutes=number)) for number in range(8 * 60)) == 60
    assert clear_from([gap], at("2026-04-05T02:20+11:00")) == at("2026-04-05T02:45+11:00")
    over_gap = spec(times=times("01:30-02:30"), location="Australia/Sydney")
    assert clear_from([over_gap], at("2026-10-04T01:40+10:00")) == at("2026-10-04T03:00+11:00")


def test_what_never_ends_has_no_end():
    assert clear_from([spec()], at("2026-11-11T12:00")) is None
    assert clear_from([spec(years=["2026"])], at("2026-11-11T12:00")) == at("2027-01-01T00:00")
    assert clear_from([], at("2026-11-11T12:00")) == at("2026-11-11T12:00")


ZONES = st.sampled_from(["UTC", "Asia/Shanghai", "Australia/Sydney", "America/New_York", "Australia/Lord_Howe"])
CLOCKS = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30, 59])).map(lambda hm: f"{hm[0]:02}:{hm[1]:02}")
RANGES = st.tuples(CLOCKS, CLOCKS).filter(lambda pair: pair[0] != pair[1] and pair[1] != "00:00").map("-".join)
DAYS = st.lists(st.sampled_from(["monday:friday", "saturday", "sunday"]), max_size=2)
SPECS = st.builds(
    lambda some, days, zone: spec(times=times(*some), weekdays=days, location=zone),
    st.lists(RANGES, min_size=1, max_size=2),
    DAYS,
    ZONES,
)
MOMENTS = st.datetimes(datetime(2026, 3, 1), datetime(2026, 11, 30)).map(lambda one: one.replace(tzinfo=UTC))


@settings(max_examples=60, deadline=None)
@given(st.lists(SPECS, min_size=1, max_size=2), MOMENTS)
def test_the_end_of_a_mute_is_the_first_free_minute(specs, moment):
    end = clear_from(specs, moment)
    if end is None:
        return
    assert not any(one.contains(end) for one in specs)
    step = moment
    while step < end:
        assert any(one.contains(step) for one in specs), step
        step += max(timedelta(minutes=1), (end - moment) / 400)


@settings(max_examples=60, deadline=None)
@given(SPECS, MOMENTS)
def test_the_start_of_an_active_time_is_the_first_minute_of_it(one, moment):
    start = clear_from([one], moment, outside=True)
    assert start is None or one.contains(start)
    assert start is None or start == moment or not one.contains(start - timedelta(minutes=1))


@given(SPECS, MOMENTS)
def test_a_range_and_its_two_halves_round_midnight_agree(one, moment):
    [first, *_] = one.times
    if not first.crosses_midnight or one.weekdays:
        return
    split = one.model_copy(
        update={"times": (*one.times[1:], *spec(times=times(f"{_clock(first.start_time)}-24:00", f"00:00-{_clock(first.end_time)}")).times)}
    )  # fmt: skip
    assert one.contains(moment) == split.contains(moment)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
