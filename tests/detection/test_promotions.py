from __future__ import annotations

from datetime import date, timedelta

import pytest

from metrics_pipeline.detection.occasions import load_promotions
from metrics_pipeline.detection.promotions import (
    NO_DAY,
    PHASES,
    CalendarError,
    PromotionDay,
    calendar_days,
    former_days,
    stretches,
)
from metrics_pipeline.detection.public_holidays import markets_of
from metrics_pipeline.settings import PROJECT_ROOT

SEED = PROJECT_ROOT / "dbt_project" / "seeds" / "promotion_calendar.csv"


def test_the_shipped_calendar_has_the_events_of_every_year():
    days = load_promotions(SEED)
    for year in range(2023, 2028):
        events = {day.event for day in days if day.date.year == year}
        assert events >= {
            "618",
            "double_11",
            "double_12",
            "new_year_goods",
            "spring_festival",
            "national_day",
            "black_friday",
        }
    zero = {
        day.date
        for day in days
        if day.event == "spring_festival" and day.day_in_event == 0 and 2023 <= day.date.year <= 2027
    }
    assert zero == {date(2023, 1, 22), date(2024, 2, 10), date(2025, 1, 29), date(2026, 2, 17), date(2027, 2, 6)}
    assert {day.kind for day in days if day.event == "double_11"} == {"before", "presale", "main", "season", "after"}
    assert len({(day.date, day.event) for day in days}) == len(days)


def test_events_are_aligned_by_day_in_event_not_by_date():
    former = former_days([day for day in load_promotions(SEED) if day.event == "spring_festival"])
    assert former[date(2026, 2, 17)] == date(2025, 1, 29)
    assert min(former) > date(2010, 3, 1)


def test_a_shop_abroad_takes_part_in_global_events_only():
    assert markets_of("Asia/Shanghai") == ("CN", "global")
    assert markets_of("America/Sao_Paulo") == ("BR", "global")
    assert markets_of("UTC") == ("global",)
    assert {day.event for day in load_promotions(SEED, markets_of("America/Sao_Paulo"))} == {"black_friday"}


def test_a_calendar_is_optional_and_its_errors_name_the_line(tmp_path):
    path = tmp_path / "calendar.csv"
    assert load_promotions(path) == ()
    header = "date,event,name_zh,name_en,day_in_event,kind,market\n"
    for row, part in (
        ("2025-13-01,a,甲,A,0,main,CN\n", "calendar.csv:2: "),
        ("2025-11-11,a,甲,A,0,feast,CN\n", "kind 'feast'"),
    ):
        path.write_text(header + row, "utf-8")
        with pytest.raises(CalendarError, match=part):
            load_promotions(path)
    path.write_text("date,event\n", "utf-8")
    with pytest.raises(CalendarError, match="column name_zh"):
        load_promotions(path)


def days_of(event: str, first: date, kinds: str, affects=()) -> list[PromotionDay]:
    """Consecutive days in the phases of the text; `main` on the first `main`."""
    words = kinds.split()
    zero = words.index("main")
    return [
        PromotionDay(first + timedelta(days=n), event, event, event, n - zero, kind, "own", affects)
        for n, kind in enumerate(words)
    ]


def test_a_stretch_of_the_calendar_is_arrays():
    sale = days_of("sale", date(2025, 3, 8), "before main after")
    again = days_of("sale", date(2026, 3, 8), "before main after")
    found = calendar_days([*again, *sale], date(2026, 3, 7), date(2026, 3, 11))
    assert [found.events[no] if no >= 0 else "" for no in found.event_no] == ["", "sale", "sale", "sale", ""]
    assert [list(PHASES)[no] if no >= 0 else "" for no in found.phase_no] == ["", "before", "main", "after", ""]
    assert found.day_in_event.tolist() == [0, -1, 0, 1, 0]
    assert found.widening.tolist() == [0, 0.2, 1.5, 0.2, 0]
    assert found.is_baseline.tolist() == [True, True, False, False, True]
    assert found.former_no.tolist() == [NO_DAY, 1 - 365, 2 - 365, 3 - 365, NO_DAY]
    with pytest.raises(ValueError, match="end"):
        calendar_days(sale, date(2026, 3, 7), date(2026, 3, 6))


def test_days_that_correspond_over_the_years_share_a_slot():
    days = [*days_of("sale", date(2025, 3, 8), "main after"), *days_of("sale", date(2025, 6, 1), "main after")]
    found = calendar_days(days, date(2025, 3, 1), date(2025, 6, 30))
    at = [(day.date - date(2025, 3, 1)).days for day in days]
    assert found.slot_no[at[0]] == found.slot_no[at[2]] != found.slot_no[at[1]] == found.slot_no[at[3]]
    assert (found.slot_no < 0).sum() == len(found) - 4


def test_the_day_belongs_to_the_strongest_of_its_events():
    on = date(2025, 10, 1)
    days = [*days_of("mild", on, "main"), *days_of("zz_main", on, "main")]
    days[0] = PromotionDay(on, "mild", "", "", 0, "season", "own")
    found = calendar_days(days, on, on)
    assert found.events[found.event_no[0]] == "zz_main"
    assert found.widening.tolist() == [1.5]


def test_an_event_of_some_slices_is_seen_by_those_only():
    on = date(2025, 5, 1)
    days = days_of("beauty", on, "main", affects=(("category", ("美妆", "个护")), ("channel", ("app",))))
    seen = {
        member: calendar_days(days, on, on, dimension="category|channel", member=member).event_no[0] >= 0
        for member in ("美妆|app", "个护|app", "美妆|web", "服饰|app")
    }
    assert seen == {"美妆|app": True, "个护|app": True, "美妆|web": False, "服饰|app": False}
    assert calendar_days(days, on, on).event_no.tolist() == [-1]
    assert calendar_days(days, on, on, dimension="category", member="美妆").event_no.tolist() == [-1]
    assert former_days([*days, *days_of("beauty", on + timedelta(days=365), "main")]) == {}


def test_stretches_are_runs_of_one_phase():
    runs = stretches(days_of("sale", date(2025, 3, 8), "before before main after"))
    assert [(head.kind, head.date.day, until.day) for head, until in runs] == [
        ("before", 8, 9), ("main", 10, 10), ("after", 11, 11),
    ]  # fmt: skip
