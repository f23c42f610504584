"""`_calendar.yml`: what it may say, what is wrong with it, and how it is written."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.detection.occasions import load_promotions
from metrics_pipeline.detection.own_calendar import NAME, add_event, entry_of, load_own_calendar, read_own_calendar
from metrics_pipeline.detection.promotions import PHASES, CalendarError
from metrics_pipeline.rules.seeds import read_seeds
from metrics_pipeline.settings import PROJECT_ROOT

SEED = PROJECT_ROOT / "dbt_project" / "seeds" / "promotion_calendar.csv"
GOOD = """country: BR
without: [black_friday]
events:
  - event: member_day   # every month
    name_zh: 会员日
    name_en: Members' day
    falls_on: monthly 26
    phases: {before: -1, main: 0, after: [1, 2]}
    affects: {category: [服饰, 美妆]}
    years: 2025-2026
"""


def read(text: str):
    return read_own_calendar(Path("rules") / NAME, text)


def test_an_event_of_a_category_returns_every_month_of_its_years():
    own = read(GOOD)
    assert own.problems == ()
    days = [day for day in own.days() if day.date.month == 6]
    assert [(day.date, day.kind, day.day_in_event) for day in days if day.date.year == 2025] == [
        (date(2025, 6, 25), "before", -1), (date(2025, 6, 26), "main", 0),
        (date(2025, 6, 27), "after", 1), (date(2025, 6, 28), "after", 2),
    ]  # fmt: skip
    assert {day.date.year for day in days} == {2025, 2026}
    assert days[0].affects == (("category", ("服饰", "美妆")),)
    assert days[0].is_about("category|region", "美妆|华北") and not days[0].is_about("category", "家电")


def test_the_shop_takes_no_part_in_what_it_says():
    seeds = read_seeds(
        PROJECT_ROOT / "dbt_project", "America/Sao_Paulo", own=read(GOOD.replace("country: BR", "country: none"))
    )
    assert {day.event for day in seeds.promotions} == {"member_day"}
    assert "member_day" in seeds.events
    with_country = read_seeds(PROJECT_ROOT / "dbt_project", "UTC", own=read("country: BR\n"))
    assert {"black_friday", "workers_day"} <= {day.event for day in with_country.promotions}


def test_an_event_that_is_shipped_too_is_moved_in_the_years_it_is_written_for():
    text = (
        GOOD.replace("member_day ", "double_11 ")
        .replace("monthly 26", "2026-11-05")
        .replace("country: BR", "country: CN")
    )
    own = read(text)
    days = [day for day in own.applied(load_promotions(SEED)) if day.event == "double_11" and day.kind == "main"]
    assert [day.date for day in days if day.date.year == 2026] == [date(2026, 11, 5)]
    assert date(2027, 11, 11) in {day.date for day in days}


@pytest.mark.parametrize(
    ("before", "after", "line", "part"),
    [
        ("country: BR", "country: XX", 1, "no public holidays for 'XX'"),
        ("country: BR", "contry: BR", 1, "key 'contry' is not known — did you mean 'country'"),
        ("monthly 26", "monthly 32", 7, "falls_on 'monthly 32'"),
        ("main: 0", "mian: 0", 8, "phase 'mian' is not known"),
        ("[1, 2]", "[2, 1]", 8, "days of phase after are [2, 1]"),
        ("[服饰, 美妆]", "[]", 9, "affects 'category'"),
        ("2025-2026", "2027-2026", 10, "years '2027-2026' are none"),
        ("    name_en: Members' day\n", "", 4, "name_en is missing"),
        ("event: member_day", "event: Member Day", 4, "is no id"),
        ("without: [black_friday]", "without: black_friday", 2, "no list of events"),
        ("country: BR", "country: BR\n  x: 1", 2, "not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(before, after, line, part):
    own = read(GOOD.replace(before, after))
    assert [one.line for one in own.problems] == [line]
    assert part in own.problems[0].message
    assert str(own.problems[0]).startswith(f"rules/{NAME}:{line}: ")


def test_a_bad_event_never_stops_the_others():
    own = read(GOOD + GOOD[GOOD.index("  - event") :].replace("member_day", "other").replace("monthly 26", "weekly"))
    assert [one.event for one in own.occasions] == ["member_day"]
    assert len(own.problems) == 1


@pytest.mark.parametrize("text", ["", "[]", "x", "events: 3", "events: [3]", "events:\n  - event: a\n"])
def test_whatever_stands_in_the_file_is_read_or_a_problem(text):
    own = read(text)
    assert own.days() == []
    assert bool(own.problems) == bool(text)


def test_an_entry_is_written_among_comments_and_read_back(tmp_path):
    (tmp_path / NAME).write_text(GOOD, "utf-8")
    entry = entry_of(
        "brand_day", "品牌日", "Brand day", ["2026-05-08", "2026-09-10"],
        phases={"main": (0, 0), "after": (1, 2)}, affects={"category": ["美妆"]}, because="agreed",
    )  # fmt: skip
    path = add_event(tmp_path, entry)
    text = path.read_text("utf-8")
    assert text.startswith(GOOD.splitlines()[0]) and "# every month" in text
    found = load_own_calendar(tmp_path).occasions[-1]
    assert (found.event, found.falls_on, found.affects) == (
        "brand_day",
        ("2026-05-08", "2026-09-10"),
        (("category", ("美妆",)),),
    )
    assert list(tmp_path.iterdir()) == [path]


def test_a_first_entry_makes_the_file_and_a_bad_one_leaves_it_alone(tmp_path):
    with pytest.raises(CalendarError, match="write 11-11"):
        add_event(tmp_path, entry_of("a", "甲", "A", ["yesterday"]))
    assert list(tmp_path.iterdir()) == []
    add_event(tmp_path, entry_of("a", "甲", "A", ["11-11"]))
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(CalendarError, match="no id"):
        add_event(tmp_path, entry_of("A b", "甲", "A", ["11-11"]))
    assert (tmp_path / NAME).read_bytes() == before
    (tmp_path / NAME).write_text("events: 3\n", "utf-8")
    with pytest.raises(CalendarError, match="1: events is no list"):
        add_event(tmp_path, entry_of("a", "甲", "A", ["11-11"]))


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=12
).filter(str.strip)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=names,
    on=st.dates(date(2011, 1, 1), date(2039, 12, 31)),
    phase=st.sampled_from(sorted(PHASES)),
    span=st.tuples(st.integers(-60, 60), st.integers(-60, 60)).map(sorted).map(tuple),
    member=names,
)
def test_whatever_is_written_is_read_back(tmp_path, name, on, phase, span, member):
    (tmp_path / NAME).unlink(missing_ok=True)
    add_event(tmp_path, entry_of("a", name, name, [on.isoformat()], phases={phase: span}, affects={"region": [member]}))
    own = load_own_calendar(tmp_path)
    assert own.problems == ()
    (one,) = own.occasions
    assert (one.name_en, one.affects) == (name.strip(), (("region", (member,)),))
    assert [(s.first, s.last, s.phase) for s in one.stretches] == [(*span, phase)]
