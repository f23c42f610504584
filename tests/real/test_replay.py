"""The shipped rules on real data: known events are found, controls are silent, and people are left in peace.

What each of the other alerts is about is in `docs/real-data.md`.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from metrics_pipeline.cli.calendar import METRICS
from metrics_pipeline.detection.inferred import infer
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.peers import daily_series

pytestmark = [pytest.mark.real_data, pytest.mark.slow]
on_olist = pytest.mark.xdist_group("olist")
on_merch_store = pytest.mark.xdist_group("merch_store")


@on_olist
def test_black_friday_is_quiet_because_it_is_in_the_calendar(olist, olist_replay):
    around = [
        one for one in olist_replay.episodes if datetime(2017, 11, 20) <= one.first_breach <= datetime(2017, 12, 1)
    ]
    assert not around
    days = {day.date for day in olist.promotions if day.event == "black_friday" and day.kind == "main"}
    assert days >= {date(2016, 11, 25), date(2017, 11, 24)}


@on_olist
def test_a_black_friday_that_nobody_entered_is_seen_in_orders_and_turnover_and_not_in_order_value(olist, fired_on):
    others = [day for day in olist.promotions if day.event != "black_friday"]
    replayed = olist.replay(date(2017, 11, 20), date(2017, 11, 30), promotions=others)
    found = fired_on(replayed, date(2017, 11, 24))
    for rule in ("orders_anomaly", "gmv_anomaly"):
        alert = found[rule, "all"]
        assert (alert.tier, alert.worst_observed > 0) == ("red", True)
    assert found["orders_anomaly", "all"].worst_value == 1176
    assert "order_value_anomaly" not in {one.rule for one in replayed.episodes}


@on_olist
def test_a_black_friday_that_nobody_entered_is_proposed_for_entry(olist):
    first, last = date(2017, 8, 1), date(2018, 2, 28)
    series = daily_series(olist.published, METRICS, first, last)
    known = np.array(
        [
            any(day.date == first + timedelta(days=n) and day.event != "black_friday" for day in olist.promotions)
            for n in range(series.values.shape[1])
        ]
    )
    whole = [one for one in infer(series.values, first, known, series.groups) if not one.affects]
    assert [(one.first, one.peak) for one in whole] == [(date(2017, 11, 24), date(2017, 11, 24))]
    assert whole[0].last >= date(2017, 11, 27)


@on_olist
def test_the_weeks_of_late_parcels_are_one_alert(olist_replay):
    alerts = [one for one in olist_replay.episodes if one.rule == "late_delivery_rate_high"]
    crisis = next(one for one in alerts if one.fired_at <= datetime(2018, 3, 20) and one.last_breach.month == 4)
    assert crisis.tier == "red"
    assert crisis.last_breach >= datetime(2018, 4, 8), "until the end of the week of 2018-04-02"
    between = [one for one in alerts if crisis.fired_at < one.fired_at <= crisis.last_breach]
    assert not between


@on_olist
@pytest.mark.parametrize(
    ("day", "rule"),
    [
        (date(2017, 12, 13), "late_delivery_rate_high"),
        (date(2018, 3, 8), "orders_drop_hourly"),
        (date(2018, 4, 20), "payment_conversion_drop"),
        (date(2018, 7, 3), "payment_conversion_drop"),
        (date(2018, 8, 19), "payment_conversion_drop"),
    ],
)
def test_events_that_nobody_wrote_down_are_found(olist_replay, fired_on, day, rule):
    """Late parcels after Black Friday, two hours without orders, and stops of the approval of payments."""
    assert (rule, "all") in fired_on(olist_replay, day)


@on_olist
def test_the_end_of_the_extract_is_missing_data_and_no_alert(olist):
    first, until = date(2018, 8, 23), date(2018, 9, 1)
    assert not olist.replay(first, until - timedelta(days=1)).episodes
    now = datetime(2018, 9, 1, 12, tzinfo=UTC)
    judged = evaluate(
        olist.published, olist.rules, first, until, evaluated_at=now, run_id="end", zone=olist.settings.zone
    )
    assert judged.breaches().empty
    frame = judged.frame()
    assert set(frame[frame.rule == "orders_anomaly"].reason) == {"late"}
    assert set(frame[frame.rule == "sessions_anomaly"].reason) == {"absent"}


@on_olist
def test_the_gap_and_the_first_weeks_after_it_are_silent(olist):
    assert not olist.replay(date(2016, 10, 1), date(2017, 1, 31)).episodes


@on_olist
def test_a_person_of_the_marketplace_gets_a_message_on_one_day_of_twenty(olist_replay):
    messages = list(olist_replay.messages_per_day.values())
    assert olist_replay.median_messages_per_day == 0
    assert sum(messages) < 0.12 * len(messages)
    assert sum(1 for number in messages if number) < 0.07 * len(messages)
    assert max(messages) <= 5
    assert not olist_replay.errors


@on_merch_store
def test_a_day_of_strange_visits_is_seen_in_total_and_in_its_channel(merch_store_replay, fired_on):
    found = fired_on(merch_store_replay, date(2017, 1, 24))
    total, direct = found["sessions_anomaly", "all"], found["sessions_anomaly_by_channel", "Direct"]
    assert (total.worst_value, direct.worst_value) == (3618, 1659)
    assert total.worst_observed > 0
    assert direct.tier == "red"
    others = [member for rule, member in found if rule == "sessions_anomaly_by_channel" and member != "Direct"]
    assert not others, "the other channels were as ever"


@on_merch_store
def test_order_conversion_of_that_day(merch_store):
    values = merch_store.values("order_conversion_rate")
    assert values[date(2017, 1, 24), "all"] == pytest.approx(28 / 3618)
    assert round(values[date(2017, 1, 24), "all"], 4) == 0.0077


@on_merch_store
def test_a_person_of_the_shop_gets_a_message_on_one_day_of_eight(merch_store_replay):
    messages = list(merch_store_replay.messages_per_day.values())
    assert merch_store_replay.median_messages_per_day == 0
    assert sum(messages) <= 0.27 * len(messages)
    assert sum(1 for number in messages if number) <= 0.15 * len(messages)
    assert not merch_store_replay.errors
