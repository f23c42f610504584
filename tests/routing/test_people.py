"""Who is on call, who owns what, how a person is reached."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.routing.people import Directory, PeopleFile

BERLIN = ZoneInfo("Europe/Berlin")


def directory(**rotation) -> Directory:
    given = {"id": "duty", "start": "2026-03-02", "members": ["a", "b", "c"], "timezone": "Europe/Berlin", **rotation}
    file = PeopleFile.model_validate({"people": [{"id": one} for one in "abc"], "rotations": [given]})
    return Directory.of(file)


def on_call(book: Directory, text: str) -> str | None:
    moment = datetime.fromisoformat(text)
    person = book.on_call("duty", moment if moment.tzinfo else moment.replace(tzinfo=BERLIN))
    return person.id if person else None


def test_turns_change_at_the_handover():
    weekly = directory()
    assert on_call(weekly, "2026-03-02T08:59") is None
    assert [on_call(weekly, f"2026-03-{day:02}T09:00") for day in (2, 8, 9, 16, 23)] == ["a", "a", "b", "c", "a"]
    assert on_call(weekly, "2026-03-09T08:59") == "a"
    daily = directory(period="1d", handover="20:30")
    assert [on_call(daily, f"2026-03-0{day}T20:30") for day in (2, 3, 4, 5)] == ["a", "b", "c", "a"]


def test_a_handover_stays_at_its_hour_where_clocks_are_put_forward():
    daily = directory(period="1d")
    before, after = "2026-03-29T06:59+00:00", "2026-03-29T07:00+00:00"  # 09:00 in Berlin is 07:00 UTC from this day on
    assert on_call(daily, before) != on_call(daily, after)


def test_an_override_takes_a_turn_and_the_last_one_wins():
    book = directory(
        overrides=[
            {"from": "2026-03-03T00:00", "until": "2026-03-05T00:00", "person": "c"},
            {"from": "2026-03-04T00:00", "until": "2026-03-04T12:00", "person": "b"},
        ]
    )
    at = [on_call(book, f"2026-03-{text}") for text in ("02T23:59", "03T00:00", "04T11:59", "04T12:00", "05T00:00")]
    assert at == ["a", "c", "b", "c", "a"]


def test_a_rotation_without_known_members_is_nobodys_turn():
    assert on_call(directory(members=[]), "2026-03-10T12:00") is None
    assert on_call(directory(members=["x", "b"]), "2026-03-10T12:00") == "b"


@given(st.integers(0, 2000), st.integers(1, 14), st.integers(0, 23))
def test_somebody_is_always_on_call_and_turns_come_in_order(hours, days, handover):
    book = directory(period=f"{days}d", handover=f"{handover:02}:00")
    start = datetime(2026, 3, 2, handover, tzinfo=BERLIN).astimezone(UTC)
    moment = start + timedelta(hours=hours)
    now = book.on_call("duty", moment)
    following = book.on_call("duty", moment + timedelta(days=days, hours=2))
    assert now is not None
    assert following is not None
    assert following.id != now.id


def test_contacts_may_name_environment_variables():
    file = PeopleFile.model_validate(
        {"people": [{"id": "a", "contacts": {"email": "${WHO}@shop.example", "phone": "${NOBODY}", "dingtalk": "x"}}]}
    )
    book = Directory.of(file, variable={"WHO": "li"}.get)
    person = book.people["a"]
    contacts = [book.contact(person, kind) for kind in ("email", "phone", "dingtalk", "feishu", "pigeon")]
    assert contacts == ["li@shop.example", None, "x", None, None]


@pytest.mark.parametrize("period", ["12h", "0", "90m", "x"])
def test_a_rotation_changes_after_whole_days(period):
    with pytest.raises(ValueError, match=r"whole days|not a duration"):
        directory(period=period)


def test_a_metric_belongs_to_the_line_that_lists_it_then_to_its_categorys():
    file = PeopleFile.model_validate(
        {"business_lines": [{"id": "one", "metrics": ["gmv"]}, {"id": "two", "categories": ["order"]}]}
    )
    book = Directory.of(file)
    found = [
        book.line_of(*facts) for facts in (("gmv", "order", "x"), ("orders", "order", "x"), ("visits", "traffic", "x"))
    ]
    assert found == ["one", "two", "x"]
