"""What people would have received in 20 months of real orders and three months of real visits, with what is shipped.

Every message, with a verdict, is in `docs/real-data.md`.
"""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime

import pytest

from metrics_pipeline.rehearsal.record import NEWS, OVER

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
on_olist = pytest.mark.xdist_group("olist")
on_merch_store = pytest.mark.xdist_group("merch_store")


def on(found, day: date):
    """Messages of one day."""
    return [one for one in found.messages if one.at.date() == day]


def of(found, rule: str, first: date, last: date) -> list[tuple[date, str, str]]:
    """Day, reason and tier of the messages that a rule heads, from one day to another."""
    return [
        (one.at.date(), one.reason, one.tier)
        for one in found.messages
        if one.rule == rule and first <= one.at.date() <= last
    ]


def assert_each_beginning_has_one_end(found) -> None:
    assert found.told
    for one in found.told:
        assert (one.ended_at is None) == (one.began_at is None or one.is_open), one
        assert one.ended_at is None or one.began_at < one.ended_at, one
    begun, ended = Counter(), Counter()
    for message in found.messages:
        for one in message.notice.slices:
            key = (message.receiver, one.instance, one.since)
            begun[key] += one.change == "new"
            ended[key] += one.change in OVER
    told = Counter(
        (one.receiver, f"{one.rule}{{{one.dimension}={one.member}}}", one.first_period)
        for one in found.told
        if one.began_at is not None
    )
    over = Counter(
        (one.receiver, f"{one.rule}{{{one.dimension}={one.member}}}", one.first_period)
        for one in found.told
        if one.ended_at is not None
    )
    assert +begun == told, "each beginning is in one message"
    assert +ended == over, "each end is in one message"


def assert_nothing_is_said_twice(found) -> None:
    said = [(one.at, one.receiver, one.notice.group) for one in found.messages]
    assert len(said) == len(set(said))
    news = Counter(
        (message.receiver, one.instance, one.since, one.tier)
        for message in found.messages
        for one in message.notice.slices
        if one.change in NEWS
    )
    assert max(news.values()) == 1


@on_olist
def test_the_known_events_of_the_marketplace_are_told_the_next_morning(olist_messages):
    assert not on(olist_messages, date(2017, 11, 25)), "Black Friday is in the calendar"
    late = of(olist_messages, "late_delivery_rate_high", date(2018, 3, 1), date(2018, 4, 30))
    assert (late[0], late[1]) == ((date(2018, 3, 20), "first", "yellow"), (date(2018, 3, 23), "escalated", "red"))
    assert late[-1][:2] == (date(2018, 4, 11), "all_resolved"), "one alert, told until the week after the crisis"
    assert len(late) <= 6


@on_olist
@pytest.mark.parametrize(
    ("told", "ended"),
    [
        (date(2018, 1, 22), date(2018, 1, 23)),
        (date(2018, 4, 21), date(2018, 4, 25)),
        (date(2018, 7, 4), date(2018, 7, 6)),
        (date(2018, 7, 23), date(2018, 7, 24)),
        (date(2018, 8, 20), date(2018, 8, 21)),
    ],
)
def test_a_stop_of_approvals_is_one_incident_with_one_end(olist_messages, told, ended):
    days = [one for one in olist_messages.messages if told <= one.at.date() <= ended]
    assert {one.rule for one in days} == {"payment_conversion_drop"}
    assert (days[0].at.date(), days[0].reason) == (told, "first")
    assert (days[-1].at.date(), days[-1].reason) == (ended, "all_resolved")
    assert {one.notice.group for one in days} == {days[0].notice.group}
    assert days[0].notice.incident


@on_olist
def test_the_controls_are_silent(olist_messages):
    around = [one for one in olist_messages.messages if date(2017, 11, 20) <= one.at.date() <= date(2017, 12, 1)]
    assert "average_order_value" not in {one.notice.rule.metric for one in around}
    assert olist_messages.messages[0].at >= datetime(2017, 2, 1), "the first weeks after the gap"
    assert olist_messages.messages[-1].at < datetime(2018, 8, 23), "the extract ends, which is no business alert"


@on_olist
def test_a_rate_per_paid_order_is_not_told_while_payments_stop(olist_messages):
    stops = [one for one in olist_messages.told if one.rule == "payment_conversion_drop" and one.began_at is not None]
    assert len(stops) > 5
    for stop in stops:
        during = [one for one in olist_messages.messages if stop.began_at <= one.at <= stop.ended_at]
        begun = {one.rule for one in during if one.reason == "first"}
        assert not begun & {"complaint_rate_high", "refund_rate_surge"}, stop


@on_olist
def test_a_person_of_the_marketplace_gets_no_more_than_what_the_document_lists(olist_messages):
    assert not olist_messages.errors
    counts = list(olist_messages.per_day.values())
    assert olist_messages.receivers["file"]["median"] == 0
    assert len(olist_messages.messages) <= 62
    assert max(counts) <= 2
    assert sum(1 for count in counts if count) <= 59
    assert set(olist_messages.reasons) <= {"first", "all_resolved", "repeat", "escalated", "new_alerts"}
    assert_each_beginning_has_one_end(olist_messages)
    assert_nothing_is_said_twice(olist_messages)


@on_olist
def test_by_the_hour_a_stop_begins_once_and_ends_when_approvals_are_back(olist):
    found = olist.rehearse(date(2018, 4, 19), date(2018, 4, 25))
    hourly = [one for one in found.messages if one.notice.grain == "hour"]
    assert [(one.at, one.reason) for one in hourly] == [
        (datetime(2018, 4, 20, 18, 10), "first"),
        (datetime(2018, 4, 23, 22, 10), "repeat"),
        (datetime(2018, 4, 24, 18, 10), "all_resolved"),
    ]
    assert_each_beginning_has_one_end(found)


@on_merch_store
def test_the_day_of_strange_visits_is_told_in_the_same_hour_and_the_next_morning(merch_store_messages):
    said = [(one.at, one.rule, one.reason) for one in merch_store_messages.messages]
    assert (datetime(2017, 1, 24, 15, 10), "traffic_pressure_hourly", "first") in said
    first = next(one for one in on(merch_store_messages, date(2017, 1, 25)) if one.rule == "sessions_anomaly")
    assert (first.reason, first.tier) == ("new_alerts", "red"), (
        "the hours, which go on over midnight, are of the same incident"
    )
    assert ("traffic_pressure_hourly_by_channel", "Direct") in first.slices("ongoing")
    assert first.slices("new") == [
        ("sessions_anomaly", "all"),
        ("sessions_anomaly_by_channel", "Direct"),
        ("sessions_anomaly_by_region", "France"),
    ]


@on_merch_store
def test_a_person_of_the_shop_gets_no_more_than_what_the_document_lists(merch_store_messages):
    assert not merch_store_messages.errors
    counts = list(merch_store_messages.per_day.values())
    assert merch_store_messages.receivers["file"]["median"] == 0
    assert len(merch_store_messages.messages) <= 29
    assert max(counts) <= 3
    assert sum(1 for count in counts if count) <= 20
    assert_each_beginning_has_one_end(merch_store_messages)
    assert_nothing_is_said_twice(merch_store_messages)
