from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from metrics_pipeline.sources.coverage import (
    Days,
    common_days,
    daily_volumes,
    infer_days,
    local_midnight,
    spans_of,
    told_days,
)
from metrics_pipeline.sources.source import SourceError, Span

START = date(2025, 1, 6)


def volumes(counts: list[int], start: date = START) -> dict[date, int]:
    return {start + timedelta(days=index): count for index, count in enumerate(counts) if count}


def weekly_wave(days: int, level: int = 100) -> list[int]:
    return [level + 20 * (index % 7 < 5) - index % 3 for index in range(days)]


def days(first: int, last: int) -> Days:
    return Days(START + timedelta(days=first), START + timedelta(days=last))


def test_a_steady_extract_is_complete_throughout() -> None:
    assert infer_days(volumes(weekly_wave(90))) == (days(0, 89),)


def test_no_rows_are_no_days() -> None:
    assert infer_days({}) == ()


def test_a_fading_tail_is_set_aside() -> None:
    assert infer_days(volumes([*weekly_wave(90), 50, 40, 30, 22, 9, 2])) == (days(0, 89),)


def test_stray_rows_long_after_the_tail_do_not_count() -> None:
    assert infer_days(volumes([*weekly_wave(90), 40, 20, 4, *[0, 0, 1, 0, 0, 0, 1] * 8])) == (days(0, 89),)


def test_stray_rows_long_before_the_start_do_not_count() -> None:
    assert infer_days(volumes([1, 0, 1, *[0] * 40, *weekly_wave(90)])) == (days(43, 132),)


def test_a_hole_separates_two_stretches() -> None:
    assert infer_days(volumes([*weekly_wave(60), *[0] * 20, *weekly_wave(60)])) == (days(0, 59), days(80, 139))


def test_a_week_without_rows_is_a_holiday() -> None:
    assert infer_days(volumes([*weekly_wave(60), *[0] * 8, *weekly_wave(60)])) == (days(0, 127),)


def test_a_short_trial_before_the_history_is_a_fragment() -> None:
    assert infer_days(volumes([60, 50, 45, 50, 40, *[0] * 60, *weekly_wave(200)])) == (days(65, 264),)


def test_a_short_extract_is_not_a_fragment_of_itself() -> None:
    assert infer_days(volumes(weekly_wave(6))) == (days(0, 5),)


def test_a_last_day_cut_short_is_set_aside() -> None:
    assert infer_days(volumes([*weekly_wave(90), 41])) == (days(0, 89),)


def test_a_drop_to_half_that_goes_on_is_business() -> None:
    assert infer_days(volumes([*weekly_wave(90), *weekly_wave(40, 45)])) == (days(0, 129),)


def test_a_bad_week_followed_by_a_usual_day_is_business() -> None:
    assert infer_days(volumes([*weekly_wave(90), 10, 5, 3, 2, 9, *weekly_wave(7)])) == (days(0, 101),)


def test_closed_weekends_are_not_low() -> None:
    assert infer_days(volumes([0 if index % 7 > 4 else 80 for index in range(96)])) == (days(0, 95),)


def test_noise_of_small_counts_is_not_a_tail() -> None:
    assert infer_days(volumes([*[4, 6, 5, 3, 7, 2, 4] * 10, 2])) == (days(0, 70),)


def test_growth_from_a_small_start_is_kept() -> None:
    assert infer_days(volumes([3 + index * index // 40 for index in range(200)])) == (days(0, 199),)


def test_told_days_win_and_holes_stay() -> None:
    found = (days(0, 59), days(80, 139))
    assert told_days(found, None, None) == found
    assert told_days(found, START + timedelta(days=10), START + timedelta(days=145)) == (days(10, 59), days(80, 145))
    assert told_days(found, START + timedelta(days=90), None) == (days(90, 139),)
    assert told_days((), START, START + timedelta(days=3)) == (days(0, 3),)
    with pytest.raises(SourceError, match="is after complete until"):
        told_days(found, START + timedelta(days=1), START)


def test_common_days() -> None:
    assert common_days((days(0, 10), days(20, 30)), (days(5, 25),)) == (days(5, 10), days(20, 25))


def test_a_day_begins_at_one_where_clocks_go_forward_at_midnight() -> None:
    zone = ZoneInfo("America/Sao_Paulo")
    assert local_midnight(date(2017, 10, 15), zone) == datetime(2017, 10, 15, 3)
    assert spans_of((Days(date(2017, 10, 14), date(2017, 10, 15)),), zone) == (
        Span(datetime(2017, 10, 14, 3), datetime(2017, 10, 16, 2)),
    )


def test_volumes_of_an_unreadable_file_name_it(tmp_path: Path) -> None:
    path = tmp_path / "orders.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"orders\.parquet: cannot be read: .*Deliver the file again"):
        daily_volumes("SELECT 1, count(*) FROM read_parquet(?)", [str(path)])
