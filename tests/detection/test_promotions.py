from __future__ import annotations

from datetime import date

import pytest

from metrics_pipeline.detection.promotions import CalendarError, former_days, load_promotions, markets_of
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
    zero = {day.date for day in days if day.event == "spring_festival" and day.day_in_event == 0}
    assert zero == {date(2023, 1, 22), date(2024, 2, 10), date(2025, 1, 29), date(2026, 2, 17), date(2027, 2, 6)}
    assert {day.kind for day in days if day.event == "double_11"} == {"presale", "main", "season", "after"}
    assert len({(day.date, day.event) for day in days}) == len(days)


def test_events_are_aligned_by_day_in_event_not_by_date():
    former = former_days([day for day in load_promotions(SEED) if day.event == "spring_festival"])
    assert former[date(2026, 2, 17)] == date(2025, 1, 29)
    assert date(2023, 1, 22) not in former


def test_a_shop_abroad_takes_part_in_global_events_only():
    assert markets_of("Asia/Shanghai") == ("CN", "global")
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
