"""Days that people expected, and what an entry of the calendar would have changed."""

from __future__ import annotations

from datetime import date, datetime

import pandas as pd
import pytest

from metrics_pipeline.detection.own_calendar import add_event, load_own_calendar
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.followup.occasions import expected_occasions

MAY_8 = date(2026, 5, 8)


def answers(*rows: tuple[int, str, str]) -> pd.DataFrame:
    """Alerts as (day of May, rule, outcome)."""
    return pd.DataFrame(
        [{"first_period": pd.Timestamp(datetime(2026, 5, n)), "rule": rule, "outcome": word} for n, rule, word in rows]
    )


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([(8, "a", "expected"), (8, "b", "expected")], [(8, 8)]),
        ([(8, "a", "expected")] * 3, [(8, 8)]),
        ([(8, "a", "expected")] * 2, []),
        ([(8, "a", "expected"), (8, "b", "expected"), (8, "c", "true")], []),
        ([(8, "a", "false"), (8, "b", "expected")], []),
        ([(n, rule, "expected") for n in (8, 9, 12) for rule in "ab"], [(8, 9), (12, 12)]),
    ],
)
def test_days_count_when_several_alerts_were_expected_and_none_was_true(said, found):
    occasions = expected_occasions(answers(*said), ())
    assert [(one.first.day, one.last.day) for one in occasions] == found


def test_a_day_that_the_calendar_knows_is_not_proposed():
    known = PromotionDay(MAY_8, "member_day", "会员日", "Members' day", 0, "main", "own")
    said = answers((8, "a", "expected"), (8, "b", "expected"))
    assert expected_occasions(said, ()) and expected_occasions(said, (known,)) == []


def test_the_entry_is_one_that_the_calendar_reads_back(tmp_path):
    said = answers(*[(n, rule, "expected") for n in (8, 9) for rule in "ab"])
    [occasion] = expected_occasions(said, ())
    add_event(tmp_path, occasion.entry)
    own = load_own_calendar(tmp_path)
    assert own.problems == ()
    assert [(day.date, day.kind) for day in own.occasions[0].days([2026])] == [
        (day.date, day.kind) for day in occasion.days
    ]
