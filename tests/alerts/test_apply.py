"""Verdicts over the store: episodes, who is told what, and what must never happen (the mistakes made elsewhere)."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts import Notice, Series, apply_verdicts, retire_rules
from metrics_pipeline.alerts.listing import alert_history, current_alerts, episode_history, notifications
from metrics_pipeline.alerts.notice import Point
from metrics_pipeline.alerts.state import Policy
from metrics_pipeline.store.tables import outbox
from tests.alerts.builders import NOW, RECEIVERS, day, make_card, make_verdict
from tests.alerts.crash import dump, wipe
from tests.store.databases import sqlite_store

CARDS = {"refund_rate_surge": make_card()}


def tick(store, *verdicts, cards=CARDS, receivers=RECEIVERS, **options):
    return apply_verdicts(store, verdicts, cards, receivers=receivers, now=options.pop("now", NOW), **options)


def notices(store) -> list[Notice]:
    with store.reading() as connection:
        payloads = connection.execute(sa.select(outbox.c.payload).order_by(outbox.c.id)).scalars()
        return [Notice.from_json(payload) for payload in payloads]


def said(store) -> list[str]:
    """Reason and changes of every notice: `first new`, `escalated escalated,ongoing`."""
    return [f"{one.reason} {','.join(slice_.change for slice_ in one.slices)}" for one in notices(store)]


def test_a_breach_is_told_once_and_ends_once(store):
    for number, tier in enumerate(["ok", "yellow", "yellow", "ok", "ok"]):
        tick(store, make_verdict(tier, number))
    assert said(store) == ["first new", "all_resolved resolved"]
    [episode] = episode_history(store)
    assert (episode.first_period, episode.last_period) == (day(1), day(2))
    assert (episode.close_reason, episode.worst_tier) == ("recover", "yellow")
    assert [one.reason for one in alert_history(store)] == ["recover", "breach"]


def test_yellow_does_not_hide_a_later_red(store):
    for number, tier in enumerate(["yellow", "red", "yellow", "red", "ok"]):
        tick(store, make_verdict(tier, number))
    assert said(store) == ["first new", "escalated escalated", "escalated escalated", "all_resolved resolved"]
    assert len(episode_history(store)) == 1


def test_a_rerun_says_nothing_and_writes_nothing(store):
    verdicts = [make_verdict("red"), make_verdict("yellow", member="华东")]
    tick(store, *verdicts)
    before = dump(store)
    report = tick(store, *verdicts, now=NOW + timedelta(hours=1))
    assert (report.repeated, report.applied, report.notifications) == (2, 0, ())
    assert dump(store) == before


def test_new_data_with_the_same_breach_says_nothing(store):
    tick(store, make_verdict("red", v=1))
    report = tick(store, make_verdict("red", v=2, value=0.14))
    assert (report.applied, report.notifications) == (1, ())
    assert current_alerts(store)[0].value == 0.14


def test_a_slice_that_vanishes_is_not_resolved(store):
    tick(store, make_verdict("red", 0))
    report = tick(store, make_verdict("no_data", 1))
    assert (report.closed, report.notifications) == (0, ())
    [alert] = current_alerts(store, states=["no_data"])
    assert (alert.tier, alert.since_period) == ("red", day(0))
    tick(store, make_verdict("red", 2))
    assert said(store) == ["first new"]
    tick(store, make_verdict("ok", 3))
    assert said(store) == ["first new", "all_resolved resolved"]


def test_a_null_never_fires_and_an_error_never_resolves(store):
    tick(store, make_verdict("no_data", 0, reason="null_value"), make_verdict("red", 0, member="华东"))
    tick(store, make_verdict("no_data", 1, reason="null_value"), make_verdict("unknown", 1, member="华东"))
    assert [(one.member, one.state) for one in current_alerts(store)] == [("华东", "firing")]
    assert said(store) == ["first new"]


def test_an_error_does_not_hide_its_own_mended_run(store):
    tick(store, make_verdict("unknown"))
    report = tick(store, make_verdict("red"))
    assert report.applied == 1
    assert said(store) == ["first new"]


def test_many_slices_give_one_message_with_counts_and_the_worst(store):
    verdicts = [
        make_verdict("yellow", member=f"sku-{n:04}", dimension="sku", value=0.09 + n / 10_000) for n in range(300)
    ]
    verdicts += [make_verdict("red", member="sku-red", dimension="sku")]
    tick(store, *verdicts)
    [notice] = notices(store)
    assert (notice.counts.new, notice.counts.firing, notice.counts.red, notice.tier) == (301, 301, 1, "red")
    assert [one.member for one in notice.slices][:3] == ["sku-red", "sku-0299", "sku-0298"]
    assert len(notice.slices) == 20


def test_a_second_slice_is_new_alerts_and_the_first_end_is_partial(store):
    tick(store, make_verdict("red", 0), make_verdict("ok", 0, member="华东"))
    tick(store, make_verdict("red", 1), make_verdict("yellow", 1, member="华东"))
    tick(store, make_verdict("ok", 2), make_verdict("yellow", 2, member="华东"))
    tick(store, make_verdict("ok", 3), make_verdict("ok", 3, member="华东"))
    assert said(store) == [
        "first new",
        "new_alerts new,ongoing",
        "some_resolved resolved,ongoing",
        "all_resolved resolved",
    ]
    assert [one.sequence for one in notices(store)] == [1, 2, 3, 4]


def test_every_receiver_gets_their_own_row(store):
    tick(store, make_verdict("red"), receivers=("file", "smtp:a@shop", "smtp:b@shop"))
    assert sorted(one.receiver for one in notifications(store)) == ["file", "smtp:a@shop", "smtp:b@shop"]


def test_the_end_goes_to_those_who_were_told_and_to_nobody_else(store):
    tick(store, make_verdict("red", 0), receivers=("file", "smtp:old@shop"))
    tick(store, make_verdict("ok", 1), receivers=("file", "smtp:new@shop"))
    ends = [one.receiver for one in notices(store) if one.reason == "all_resolved"]
    assert sorted(ends) == ["file", "smtp:old@shop"]


def test_a_new_receiver_is_told_of_what_still_fires(store):
    tick(store, make_verdict("red", 0), receivers=("file",))
    tick(store, make_verdict("red", 1), receivers=("file", "smtp:new@shop"))
    assert [(one.receiver, one.reason) for one in notices(store)] == [("file", "first"), ("smtp:new@shop", "first")]


def test_a_silent_backfill_is_told_to_nobody_but_the_next_night_is(store):
    report = tick(store, *(make_verdict("red", n) for n in range(5)), silent=True)
    assert (report.opened, report.notifications) == (1, ())
    tick(store, make_verdict("red", 5))
    [notice] = notices(store)
    assert (notice.reason, notice.slices[0].since) == ("first", day(0))


def test_a_silent_run_still_tells_the_end_of_what_was_told(store):
    tick(store, make_verdict("red", 0))
    tick(store, make_verdict("ok", 0, v=2), silent=True)
    assert said(store) == ["first new", "all_resolved corrected"]


def test_only_the_newest_due_period_is_news(store):
    report = tick(store, make_verdict("red", 0), newest_due=day(1))
    assert (report.opened, report.notifications) == (1, ())
    tick(store, make_verdict("red", 0, member="华东"), newest_due={"refund_rate_surge": day(1)})
    assert notices(store) == []
    tick(store, make_verdict("red", 1), make_verdict("ok", 1, member="华东"), newest_due=day(1))
    assert said(store) == ["first new"]


def test_a_period_that_is_not_due_yet_does_not_make_the_last_one_old(store):
    tick(store, make_verdict("red", 0), make_verdict("no_data", 1, reason="not_due"))
    assert said(store) == ["first new"]


def test_an_old_period_that_newly_breaches_goes_to_history(store):
    tick(store, *(make_verdict("ok", n) for n in range(5)))
    report = tick(
        store, *(make_verdict(tier, n, v=2) for n, tier in enumerate(["red", "yellow", "ok", "yellow", "ok"]))
    )
    assert (report.past, report.notifications) == (4, ())
    old = [(one.first_period, one.last_period, one.worst_tier, one.close_reason) for one in episode_history(store)]
    assert old == [(day(3), day(3), "yellow", "history"), (day(0), day(1), "red", "history")]
    tick(store, *(make_verdict(tier, n, v=3) for n, tier in enumerate(["red", "yellow", "ok", "yellow", "ok"])))
    assert len(episode_history(store)) == 2
    assert current_alerts(store) == []


def test_a_restated_period_can_end_and_begin_the_same_episode(store):
    tick(store, make_verdict("red", 0, v=1))
    tick(store, make_verdict("ok", 0, v=2))
    tick(store, make_verdict("red", 0, v=3))
    tick(store, make_verdict("ok", 1, v=3))
    assert said(store) == ["first new", "all_resolved corrected", "first new", "all_resolved resolved"]
    [episode] = episode_history(store)
    assert (episode.close_reason, episode.first_period) == ("recover", day(0))


def test_hold_counts_periods_over_runs(store):
    cards = {"refund_rate_surge": make_card(policy=Policy(hold=3))}
    for number, tier in enumerate(["yellow", "yellow", "ok", "yellow", "yellow", "yellow"]):
        tick(store, make_verdict(tier, number), cards=cards)
    assert said(store) == ["first new"]
    assert notices(store)[0].slices[0].since == day(3)


def test_two_rules_are_two_messages(store):
    cards = {**CARDS, "other": make_card("other")}
    tick(store, make_verdict("red"), make_verdict("yellow", rule="other"), cards=cards)
    assert sorted(one.rule.id for one in notices(store)) == ["other", "refund_rate_surge"]


def test_a_retired_rule_cancels_what_it_told(store):
    tick(store, make_verdict("red"))
    report = retire_rules(store, {"another_rule"}, now=NOW)
    assert (report.closed, len(report.notifications)) == (1, 1)
    assert said(store) == ["first new", "cancelled cancelled"]
    assert notices(store)[-1].rule.name_zh == "退款率"
    assert retire_rules(store, {"another_rule"}, now=NOW).closed == 0


def test_notices_carry_the_series_of_their_worst_slice(store):
    asked = []

    def series(keys):
        asked.append(list(keys))
        return {key: Series(tuple(Point(day(n), n / 100) for n in range(-200, 1)), 0.08, 0.12) for key in keys}

    tick(
        store, make_verdict("yellow"), make_verdict("red", member="华东"), receivers=("file", "smtp:a@b"), series=series
    )
    [[key]] = asked
    assert (key.member, key.until, key.metric) == ("华东", day(0), "refund_rate")
    assert [len(one.series.points) for one in notices(store)] == [120, 120]
    assert notices(store)[0].series.points[-1] == Point(day(0), 0.0)


def test_a_warehouse_that_cannot_answer_does_not_stop_the_alert(store, caplog):
    def series(keys):
        raise OSError("disk on fire")

    assert len(tick(store, make_verdict("red"), series=series).notifications) == 1
    assert notices(store)[0].series is None
    assert "without a plot" in caplog.text


def test_a_rule_without_a_card_is_refused_before_anything_is_written(store):
    with pytest.raises(ValueError, match=r"no rule card for mystery"):
        tick(store, make_verdict("red", rule="mystery"))
    assert current_alerts(store) == []


def test_an_empty_batch_is_fine(store):
    assert tick(store).verdicts == 0


def test_filters_of_the_listing(store):
    tick(store, make_verdict("red"), make_verdict("yellow", member="华东"), make_verdict("no_data", member="华南"))
    assert [one.member for one in current_alerts(store)] == ["华北", "华东"]
    assert [one.member for one in current_alerts(store, tier="yellow")] == ["华东"]
    assert [one.member for one in current_alerts(store, member="华北", rule="refund_rate_surge")] == ["华北"]
    assert current_alerts(store, rule="nothing") == []
    assert current_alerts(store, limit=1)[0].as_json()["since_period"] == "2025-11-11T00:00:00"
    assert [one.state for one in notifications(store)] == ["queued"]
    assert notifications(store, states=["dead"]) == []
    assert len(alert_history(store, since=NOW)) == 3
    assert alert_history(store, since=NOW + timedelta(seconds=1)) == []
    assert len(episode_history(store, is_open=True)) == 2


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with sqlite_store(tmp_path_factory.mktemp("scratch")) as store:
        yield store


NIGHTS = st.lists(
    st.lists(st.sampled_from(["ok", "yellow", "red", "no_data", "unknown"]), min_size=2, max_size=2), max_size=6
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=NIGHTS, silent=st.sets(st.integers(0, 5)), restated=st.sets(st.integers(0, 5)))
def test_whoever_was_told_gets_exactly_one_end(scratch, nights, silent, restated):
    wipe(scratch)
    for number, tiers in enumerate(nights):
        batch = [make_verdict(tier, number, member=f"m{slot}") for slot, tier in enumerate(tiers)]
        tick(scratch, *batch, silent=number in silent, receivers=("file", "smtp:a@b"))
        if number in restated:
            tick(scratch, *(make_verdict("ok", number, member=f"m{slot}", v=2) for slot in range(2)))
    last = len(nights)
    tick(scratch, *(make_verdict("ok", last, member=f"m{slot}") for slot in range(2)))
    begun, ended = Counter(), Counter()
    for notice in notices(scratch):
        for one in notice.slices:
            key = (notice.receiver, one.instance, one.since)
            begun[key] += one.change == "new"
            ended[key] += one.change in ("resolved", "corrected", "cancelled")
    assert +begun == +ended
    assert not current_alerts(scratch)
