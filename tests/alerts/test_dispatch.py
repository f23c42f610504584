"""Who is told what and when; the mistakes made elsewhere; and that whoever was told a beginning gets exactly one end."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts.listing import current_alerts, episode_history
from metrics_pipeline.alerts.silencing import SilencingError, preview_silence, read_matchers
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.store.tables import dispatch_groups, episode_marks, incidents
from tests.alerts.builders import day, make_verdict
from tests.alerts.crash import crash_at, dump, killed_at, wipe
from tests.alerts.desk import START, Desk
from tests.store.databases import postgres_store, sqlite_store

RULE = "refund_rate_surge"


@pytest.fixture
def desk(store, tmp_path):
    return Desk(store, tmp_path / "rules")


def routes(route: str = "", more: str = "", receivers: str = "") -> str:
    """One receiver `room` at the root, grouped by rule, told at once; with these additions."""
    head = "receiver: room, group_by: [alertname], group_wait: 0s, group_interval: 0s, repeat_interval: 0s"
    return (
        f"route: {{{head}}}\n".replace("}", f", {route}}}") if route else f"route: {{{head}}}\n"
    ) + f"receivers:\n  - {{name: room, channels: [file]}}\n{receivers}incidents: false\n{more}"


# -- groups --------------------------------------------------------------------------------------------------------


TIMED = """
route: {receiver: room, group_by: [alertname], group_wait: 10m, group_interval: 1h, repeat_interval: 4h}
receivers: [{name: room, channels: [file]}]
incidents: false
"""


def test_a_group_waits_for_its_first_message_and_collects_meanwhile(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.at(minutes=5).tick("yellow", "yellow")
    assert desk.notices() == []
    desk.wait(minutes=30)
    assert desk.times() == [(10, "first")]
    assert desk.notices()[0].counts.new == 2


def test_who_was_not_told_of_a_red_is_not_told_that_it_eased(desk):
    desk.judge(make_verdict("red", 0, member="华北"), make_verdict("red", 0, member="华东"), silent=True)
    desk.tick("red", "yellow", period=1)
    assert (desk.notices()[0].counts.new, desk.notices()[0].counts.eased) == (2, 0)
    desk.tick("yellow", "yellow", "red", period=2, members=("华北", "华东", "西北"))
    assert (desk.notices()[1].counts.new, desk.notices()[1].counts.eased) == (1, 1)


def test_what_ends_while_its_group_waits_is_not_told(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.at(minutes=5).tick("ok")
    desk.wait(hours=9)
    assert desk.notices() == []
    assert len(episode_history(desk.store)) == 1


def test_news_of_a_group_wait_for_its_interval(desk):
    desk.route(TIMED)
    desk.tick("yellow", "ok")
    desk.wait(minutes=15)
    desk.tick("yellow", "yellow", period=1)
    desk.wait(hours=3)
    assert desk.times() == [(10, "first"), (70, "new_alerts")]


def test_red_does_not_wait_for_the_interval(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.wait(minutes=15)
    desk.tick("red", period=1)
    assert desk.times() == [(10, "first"), (15, "escalated")]


def test_an_end_waits_for_the_interval_and_comes_once(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.wait(minutes=15)
    desk.tick("ok", period=1)
    desk.wait(hours=9)
    assert desk.times() == [(10, "first"), (70, "all_resolved")]


def test_what_still_fires_is_repeated_and_news_put_the_repeat_off(desk):
    desk.route(TIMED)
    desk.tick("yellow", "ok")
    desk.wait(hours=3)
    desk.tick("yellow", "yellow", period=1)
    desk.wait(hours=12)
    assert desk.times() == [(10, "first"), (180, "new_alerts"), (420, "repeat"), (660, "repeat")]
    assert desk.said()[-1] == "repeat ongoing,ongoing"


def test_a_group_that_is_over_begins_anew(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.wait(minutes=15)
    desk.at(hours=24).tick("ok", period=1)
    desk.at(hours=48).tick("yellow", period=2)
    desk.wait(hours=49)
    assert [reason for _, reason in desk.times() if reason != "repeat"] == ["first", "all_resolved", "first"]


def test_groups_are_made_of_the_labels_of_the_route(desk):
    desk.route(routes().replace("[alertname]", "[region]"))
    desk.tick("red", "yellow")
    assert [(one.counts.firing, one.group) for one in desk.notices()] == [
        (1, '{}:{region="华东"}'),
        (1, '{}:{region="华北"}'),
    ]


def test_a_group_of_several_rules_names_the_metric_of_each_slice(desk):
    desk.route(routes().replace("[alertname]", "[scenario]"))
    desk.judge(
        make_verdict("red", rule="gmv_drop", dimension="all", member="all"),
        make_verdict("yellow", rule="orders_drop", dimension="all", member="all"),
    )
    [notice] = desk.notices()
    assert (notice.rule.id, notice.counts.rules) == ("gmv_drop", 2)
    assert [one.rule for one in notice.slices] == ["", "orders_drop"]
    assert [(one.kind, one.grain) for one in notice.slices] == [("", "day"), ("metric", "day")]
    assert "退款率 · 全部" in compose(notice).text


# -- the mistakes made elsewhere (docs/design: alert semantics, 8) ---------------------------------------------------


def test_a_rerun_says_nothing(desk):
    verdict = make_verdict("red")
    desk.judge(verdict)
    before = desk.said()
    desk.judge(verdict)
    desk.wait(hours=1)
    assert desk.said() == before == ["first new"]


def test_a_yellow_that_is_held_back_does_not_hide_a_later_red(desk):
    desk.silence("severity=yellow", hours=9)
    desk.tick("yellow")
    assert desk.said() == []
    desk.tick("red", period=1)
    assert desk.said() == ["first new"]
    assert desk.notices()[0].tier == "red"


def test_a_suppressed_alert_is_not_skipped_for_ever(desk):
    desk.silence(f"alertname={RULE}", hours=2)
    desk.tick("red")
    desk.wait(hours=1)
    assert desk.said() == []
    desk.wait(hours=3)
    assert desk.times() == [(120, "first")]


def test_limits_count_messages_and_not_slices(desk):
    desk.route(routes(more="limits: {per_channel: {count: 1, per: 1h}}\n"))
    members = tuple(f"m{number}" for number in range(50))
    desk.tick(*["yellow"] * 50, members=members)
    assert [one.counts.firing for one in desk.notices()] == [50]


def test_a_storm_does_not_silence_the_one_that_matters(desk):
    desk.route(routes(more="limits: {per_channel: {count: 2, per: 1h}}\n").replace("[alertname]", "['...']"))
    members = tuple(f"m{number:02}" for number in range(40))
    desk.tick(*["yellow"] * 39, "red", members=members)
    told = [one.slices[0].member for one in desk.notices() if one.tier == "red"]
    assert told == ["m39"]
    assert len(desk.notices()) == 3


def test_a_vanished_slice_is_not_resolved(desk):
    desk.tick("red")
    desk.tick("no_data", period=1)
    desk.wait(hours=48)
    assert desk.said() == ["first new"]


def test_nothing_depends_on_what_a_process_remembers(desk, tmp_path):
    desk.route(TIMED)
    desk.tick("yellow")
    again = Desk(desk.store, tmp_path / "again", TIMED, now=desk.now)
    again.wait(minutes=30)
    again.tick("ok", period=1)
    third = Desk(desk.store, tmp_path / "third", TIMED, now=again.now)
    third.wait(hours=9)
    assert third.times() == [(10, "first"), (70, "all_resolved")]


# -- silences, snoozes, acknowledgements -----------------------------------------------------------------------------


def test_the_end_comes_through_a_silence_a_snooze_and_an_acknowledgement(desk):
    desk.tick("red", "yellow")
    desk.silence("region=华北", hours=9)
    desk.snooze(f"{RULE}{{region=华东}}", hours=9)
    desk.ack()
    desk.tick("ok", "ok", period=1)
    assert desk.said() == ["first new,new", "all_resolved resolved,resolved"]


def test_what_began_under_a_silence_ends_without_a_word(desk):
    number = desk.silence("region=华北", hours=9)
    desk.tick("red")
    desk.tick("ok", period=1)
    desk.unsilence(number)
    desk.wait(hours=9)
    assert desk.said() == []


def test_a_silence_that_is_ended_lets_go_at_once(desk):
    number = desk.silence("region=华北", hours=9)
    desk.tick("red", "yellow")
    assert [one.slices[0].member for one in desk.notices()] == ["华东"]
    assert desk.unsilence(number)
    assert not desk.unsilence(number)
    desk.due()
    assert [one.slices[0].member for one in desk.notices()] == ["华东", "华北"]


def test_a_silence_says_what_it_mutes_before_it_does(desk):
    desk.tick("red", "yellow")
    muted = preview_silence(desk.store, desk.routing, read_matchers(["region=华北"]))
    assert [(one.instance, one.tier) for one in muted] == [(f"{RULE}{{region=华北}}", "red")]
    assert preview_silence(desk.store, desk.routing, read_matchers(["owner=after-sales", "severity=yellow"]))
    with pytest.raises(SilencingError, match="not every alert"):
        read_matchers(['region=~".*"'])
    with pytest.raises(SilencingError, match="later end"):
        desk.silence("region=华北", hours=-1)


def test_an_acknowledged_alert_is_not_repeated_until_the_acknowledgement_is_over(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.wait(minutes=15)
    assert desk.ack(hours=10) == [f"{RULE}{{region=华北}}@2025-11-11T00:00"]
    desk.wait(hours=15)
    assert desk.times() == [(10, "first"), (730, "repeat")]


def test_an_acknowledgement_dies_with_its_episode(desk):
    desk.route(TIMED)
    desk.tick("yellow")
    desk.wait(minutes=15)
    desk.ack(hours=1000)
    desk.at(hours=24).tick("ok", period=1)
    with desk.store.reading() as connection:
        assert connection.execute(sa.select(episode_marks)).all() == []
    desk.at(hours=48).tick("yellow", period=2)
    desk.wait(hours=53)
    assert [reason for _, reason in desk.times()] == ["first", "all_resolved", "first", "repeat"]


def test_a_snoozed_alert_is_quiet_until_it_turns_up_again(desk):
    desk.tick("yellow", "yellow")
    desk.snooze(f"{RULE}{{region=华北}}", hours=2)
    desk.tick("red", "red", period=1)
    assert [one.counts.escalated for one in desk.notices()] == [0, 1]
    desk.wait(hours=3)
    assert desk.times() == [(0, "first"), (0, "escalated"), (120, "escalated")]


def test_nothing_open_cannot_be_acknowledged(desk):
    assert desk.ack() == []
    with pytest.raises(SilencingError, match="later time"):
        desk.ack(hours=-1)


# -- inhibition ------------------------------------------------------------------------------------------------------


INHIBITED = routes(
    more="inhibit_rules: [{source_matchers: [alertname=gmv_drop], target_matchers: [alertname=orders_drop], equal: [region]}]\n"
)


def region(tier: str, rule: str, period: int = 0, member: str = "华北"):
    return make_verdict(tier, period, rule=rule, metric="x", member=member)


def test_an_alert_is_held_back_while_another_explains_it_and_told_when_that_ends(desk):
    desk.route(INHIBITED)
    desk.judge(region("red", "gmv_drop"), region("red", "orders_drop"), region("yellow", "orders_drop", member="华东"))
    assert sorted((one.rule.id, one.counts.firing) for one in desk.notices()) == [("gmv_drop", 1), ("orders_drop", 1)]
    desk.judge(region("ok", "gmv_drop", 1))
    assert desk.said()[-2:] == ["all_resolved resolved", "new_alerts new,ongoing"]


def test_yellow_never_mutes_red(desk):
    desk.route(INHIBITED)
    desk.judge(region("yellow", "gmv_drop"), region("red", "orders_drop"))
    assert sorted(one.rule.id for one in desk.notices()) == ["gmv_drop", "orders_drop"]


def test_the_end_comes_through_inhibition(desk):
    desk.route(INHIBITED)
    desk.judge(region("red", "orders_drop"))
    desk.judge(region("red", "gmv_drop", 1), region("red", "orders_drop", 1))
    desk.judge(region("red", "gmv_drop", 2), region("ok", "orders_drop", 2))
    assert [(one.rule.id, one.reason) for one in desk.notices()] == [
        ("orders_drop", "first"),
        ("gmv_drop", "first"),
        ("orders_drop", "all_resolved"),
    ]


# -- the time of day -------------------------------------------------------------------------------------------------

NIGHT = routes(more='quiet_hours: {times: [{start_time: "22:00", end_time: "08:00"}]}\n')


def test_yellow_waits_for_the_morning_and_red_does_not(desk):
    desk.route(NIGHT)
    desk.at(hours=13).tick("yellow", "red")
    assert [one.counts.firing for one in desk.notices()] == [1]
    assert desk.notices()[0].tier == "red"
    desk.wait(hours=24)
    assert desk.times() == [(780, "first"), (1320, "new_alerts")]


def test_a_yellow_that_ends_before_the_morning_is_not_told(desk):
    desk.route(NIGHT)
    desk.at(hours=13).tick("yellow")
    desk.at(hours=14).tick("ok", period=1)
    desk.wait(hours=30)
    assert desk.said() == []


def test_the_end_of_a_yellow_waits_for_the_morning_and_comes_once(desk):
    desk.route(NIGHT)
    desk.tick("yellow", "red")
    desk.at(hours=13).tick("ok", "ok", period=1)
    desk.wait(hours=30)
    assert desk.times() == [(0, "first"), (780, "some_resolved"), (1320, "all_resolved")]


def test_yellow_that_turns_red_in_the_night_is_told_at_once(desk):
    desk.route(NIGHT)
    desk.at(hours=13).tick("yellow")
    desk.at(hours=14).tick("red", period=1)
    assert desk.times() == [(840, "first")]


def test_a_route_is_mute_in_its_times(desk):
    desk.route(
        """
route:
  receiver: room
  group_wait: 0s
  routes:
    - matchers: [severity=~"red|yellow"]
      group_by: [alertname]
      mute_time_intervals: [morning]
receivers: [{name: room, channels: [file]}]
time_intervals: [{name: morning, time_intervals: [{times: [{start_time: "08:00", end_time: "12:00"}], location: Local}]}]
"""
    )
    desk.tick("red")
    desk.wait(hours=3)
    assert desk.times() == [(120, "first")]


# -- incidents -------------------------------------------------------------------------------------------------------

INCIDENTS = routes().replace("incidents: false", "incidents: true")


def pyramid(period: int = 0, **tiers: str):
    """gmv in total, orders by region, visits by region and channel."""
    slices = {
        "gmv_drop": ("all", "all"),
        "orders_drop": ("region", "华北"),
        "visits_drop": ("region|channel", "华北|app"),
    }
    return [
        make_verdict(tier, period, rule=f"{name}_drop", dimension=slices[f"{name}_drop"][0], member=slices[f"{name}_drop"][1])
        for name, tier in tiers.items()
    ]  # fmt: skip


def test_a_metric_and_what_it_is_made_of_are_one_incident_with_the_highest_as_headline(desk):
    desk.route(INCIDENTS)
    desk.judge(*pyramid(gmv="yellow", orders="red", visits="red"))
    [notice] = desk.notices()
    assert (notice.rule.id, notice.tier, notice.counts.firing, notice.counts.red) == ("gmv_drop", "red", 3, 2)
    assert [one.rule for one in notice.slices] == ["", "orders_drop", "visits_drop"]
    assert sorted(one.rule for one in notice.contributors) == ["orders_drop", "visits_drop"]
    assert "同一事件" in compose(notice).text
    desk.judge(*pyramid(1, gmv="ok", orders="ok", visits="ok"))
    assert desk.said()[1:] == ["all_resolved resolved,resolved,resolved"]
    with desk.store.reading() as connection:
        [row] = connection.execute(sa.select(incidents)).all()
    assert row.closed_at is not None


def test_slices_that_do_not_meet_are_two_incidents(desk):
    desk.route(INCIDENTS)
    desk.judge(
        make_verdict("red", rule="orders_drop", member="华北"),
        make_verdict("red", rule="visits_drop", member="华东"),
        make_verdict("red", rule="visits_drop", dimension="channel", member="app"),
    )
    assert sorted((one.rule.id, one.counts.firing) for one in desk.notices()) == [
        ("orders_drop", 2),
        ("visits_drop", 1),
    ]


def test_other_periods_are_other_incidents(desk):
    desk.route(INCIDENTS)
    desk.judge(*pyramid(0, visits="red"))
    desk.judge(*pyramid(1, gmv="red"))
    assert [one.rule.id for one in desk.notices()] == ["visits_drop", "gmv_drop"]
    assert [one.contributing for one in desk.notices()] == [0, 0]


def test_an_outage_by_the_hour_over_midnight_and_its_day_are_one_incident(desk):
    desk.route(INCIDENTS)
    hourly = {"rule": "visits_drop", "dimension": "all", "member": "all", "grain": "hour"}
    for hour in (22, 23, 24, 25):
        desk.at(hours=hour).judge(make_verdict("red", day(0) + timedelta(hours=hour), **hourly))
    desk.at(hours=26).judge(*pyramid(0, gmv="red"))
    assert [(one.rule.id, one.contributing) for one in desk.notices()] == [("visits_drop", 0), ("gmv_drop", 1)]
    desk.at(hours=27).judge(make_verdict("ok", day(1) + timedelta(hours=2), **hourly))
    desk.at(hours=50).judge(*pyramid(1, gmv="ok"))
    assert all(begun == ended for begun, ended in desk.contract().values())


def test_a_headline_that_comes_later_takes_over_and_names_what_was_told_before(desk):
    desk.route(INCIDENTS)
    desk.judge(*pyramid(orders="red"))
    desk.judge(*pyramid(gmv="red"))
    first, second = desk.notices()
    assert (first.rule.id, second.rule.id) == ("orders_drop", "gmv_drop")
    assert [one.rule for one in second.contributors] == ["orders_drop"]
    desk.judge(*pyramid(1, gmv="ok", orders="ok"))
    assert all(begun == ended for begun, ended in desk.contract().values())


def test_each_owner_gets_the_incident_with_their_own_part_and_nothing_is_hidden(desk):
    desk.route(
        INCIDENTS.replace("receiver: room,", "receiver: owner,").replace(
            "{name: room, channels: [file]}", "{name: owner, owner: true, channels: [file, smtp, sms]}"
        )
    )
    desk.cards = {rule: card.__class__(**{**card.__dict__, "owner": owner}) for (rule, card), owner in zip(
        desk.cards.items(), ("han", "wang", "wang", "li"), strict=True)}  # fmt: skip
    desk.judge(*pyramid(gmv="red", orders="red"))
    told = {one.receiver: (one.rule.id, one.contributing) for one in desk.notices()}
    assert told["smtp:han@shop.example"] == ("gmv_drop", 1)
    assert told["sms:13800000003"] == ("orders_drop", 1)


def test_a_failed_source_mutes_what_is_computed_from_it_until_its_data_are_there(desk):
    desk.judge(
        make_verdict("no_data", rule="orders_drop", dimension="all", member="all", reason="late"),
        *pyramid(gmv="red"),
    )
    assert desk.said() == []
    desk.judge(make_verdict("ok", rule="orders_drop", dimension="all", member="all", v=2), *pyramid(gmv="red"))
    assert [one.rule.id for one in desk.notices()] == ["gmv_drop"]


def test_a_single_slice_without_data_mutes_nothing(desk):
    desk.judge(make_verdict("no_data", rule="orders_drop", reason="missing_slice"), *pyramid(gmv="red"))
    assert [one.rule.id for one in desk.notices()] == ["gmv_drop"]


# -- limits and digests ----------------------------------------------------------------------------------------------

LIMITED = routes(more="limits: {per_channel: {count: 1, per: 2h}}\ndigest: {every: 1h}\n").replace(
    "[alertname]", "[region]"
)


def test_what_is_over_the_limit_comes_in_one_digest_with_counts(desk):
    desk.route(LIMITED)
    members = tuple("ABCDE")
    desk.tick(*["yellow"] * 5, members=members)
    assert len(desk.notices()) == 1
    desk.wait(hours=4)
    assert desk.times() == [(0, "first"), (120, "digest")]
    digest = desk.notices()[-1]
    assert (digest.counts.new, digest.counts.firing, len(digest.slices)) == (4, 4, 4)
    assert "汇总" in compose(digest).title
    desk.tick(*["ok"] * 5, period=1, members=members)
    desk.wait(hours=9)
    assert all(begun == ended for begun, ended in desk.contract().values())


def test_what_came_and_went_between_two_digests_is_counted(desk):
    desk.route(LIMITED)
    desk.tick("yellow", "yellow", "yellow", members=tuple("ABC"))
    desk.at(minutes=30).tick("yellow", "ok", "yellow", period=1, members=tuple("ABC"))
    desk.wait(hours=4)
    digest = desk.notices()[-1]
    assert (digest.reason, digest.counts.new, digest.counts.passed) == ("digest", 1, 1)


def test_red_has_a_lane_of_its_own_and_what_is_over_it_comes_as_soon_as_it_is_free(desk):
    desk.route(
        routes(
            more="limits: {per_channel: {count: 1, per: 9h}, red: {count: 2, per: 1h}}\ndigest: {every: 9h}\n"
        ).replace("[alertname]", "[region]")
    )
    desk.tick("yellow", "yellow", "red", "red", "red", members=tuple("ABCDE"))
    assert sorted(one.tier for one in desk.notices()) == ["red", "red", "yellow"]
    desk.wait(hours=1)
    [digest] = [one for one in desk.notices() if one.reason == "digest"]
    assert (digest.tier, digest.counts.red) == ("red", 1)
    assert desk.times()[-1][0] == 30


def test_a_yellow_in_the_digest_that_turns_red_is_told_at_once(desk):
    desk.route(LIMITED)
    desk.tick("yellow", "yellow", members=tuple("AB"))
    desk.at(minutes=5).tick("yellow", "red", period=1, members=tuple("AB"))
    assert desk.times() == [(0, "first"), (5, "first")]
    assert desk.notices()[-1].tier == "red"


def test_one_alert_is_news_so_often_a_day_and_then_in_the_digest(desk):
    desk.route(routes(more="limits: {per_alert_day: 2}\ndigest: {every: 6h}\nflapping: false\n"))
    for number in range(5):
        desk.at(minutes=number * 20).tick("yellow", period=2 * number)
        desk.at(minutes=number * 20 + 10).tick("ok", period=2 * number + 1)
    assert [reason for _, reason in desk.times()] == ["first", "all_resolved"] * 2
    desk.wait(hours=12)
    assert desk.notices()[-1].counts.passed == 3


def test_people_have_limits_too(desk):
    desk.route(
        routes(more="limits: {per_person: {count: 1, per: 1h}}\n", receivers="")
        .replace("channels: [file]", "people: [li], channels: [smtp]")
        .replace("[alertname]", "[region]")
    )
    desk.tick("yellow", "yellow")
    assert [one.receiver for one in desk.notices()] == ["smtp:li@shop.example"]
    desk.wait(hours=1, minutes=5)
    assert [one.reason for one in desk.notices()] == ["first", "digest"]


def test_an_alert_that_comes_and_goes_is_told_once_then_in_digests_until_it_is_stable(desk):
    desk.route(routes(more="digest: {every: 12h}\n"))
    for number in range(12):
        desk.at(hours=24 * number).tick("yellow" if number % 2 else "ok", period=number)
        desk.wait(hours=24 * number + 20)
    reasons = [one.reason for one in desk.notices()]
    first_flap = reasons.index("flapping")
    assert reasons[:first_flap] == ["first", "all_resolved"] * (first_flap // 2)
    assert set(reasons[first_flap + 1 :]) == {"digest"}
    for number in range(12, 40):
        desk.at(hours=24 * number).tick("ok", period=number)
        desk.wait(hours=24 * number + 20)
    desk.at(hours=24 * 40).tick("yellow", period=40)
    assert desk.notices()[-1].reason == "first"
    desk.at(hours=24 * 41).tick("ok", period=41)
    desk.wait(hours=24 * 42)
    assert all(begun == ended for begun, ended in desk.contract().values())


# -- escalation ------------------------------------------------------------------------------------------------------

ESCALATING = """
route: {receiver: room, group_by: [alertname], group_wait: 0s, group_interval: 5m, repeat_interval: 0s}
receivers:
  - {name: room, channels: [file]}
  - {name: duty, rotations: [duty], channels: [smtp]}
  - {name: boss, people: [wang], channels: [sms]}
escalation: [{after: 30m, receiver: duty}, {after: 2h, receiver: boss}]
incidents: false
"""


def test_a_red_that_nobody_takes_on_goes_to_the_next_person(desk):
    desk.route(ESCALATING.replace("[duty]", "[duty]"))
    desk.tick("red", "yellow")
    desk.wait(hours=5)
    assert [(minutes, one.receiver) for (minutes, _), one in zip(desk.times(), desk.notices(), strict=True)] == [
        (0, "file"),
        (30, "smtp:everybody@shop.example"),
        (120, "sms:13800000003"),
    ]
    assert [one.reason for one in desk.notices()] == ["first", "unacknowledged", "unacknowledged"]
    assert [one.counts.firing for one in desk.notices()] == [2, 1, 1]
    desk.tick("ok", "ok", period=1)
    desk.wait(hours=9)
    assert all(begun == ended for begun, ended in desk.contract().values())
    assert len(desk.contract()) == 3


def test_who_knows_of_a_red_already_is_not_the_next_person(desk):
    desk.route(ESCALATING.replace("{name: boss, people: [wang], channels: [sms]}", "{name: boss, channels: [file]}"))
    desk.tick("red")
    desk.wait(hours=5)
    assert [(one.receiver, one.reason) for one in desk.notices()] == [
        ("file", "first"),
        ("smtp:everybody@shop.example", "unacknowledged"),
    ]


def test_an_acknowledged_red_goes_no_further_and_goes_on_when_that_is_over(desk):
    desk.route(ESCALATING)
    desk.tick("red")
    desk.at(minutes=20).ack(hours=3)
    desk.wait(hours=3)
    assert len(desk.notices()) == 1
    desk.wait(hours=4)
    assert [one.reason for one in desk.notices()] == ["first", "unacknowledged"]


def test_yellow_is_not_escalated_and_a_red_that_eases_no_more(desk):
    desk.route(ESCALATING)
    desk.tick("yellow")
    desk.wait(hours=3)
    desk.tick("red", period=1)
    desk.wait(hours=3, minutes=10)
    desk.tick("yellow", period=2)
    desk.wait(hours=9)
    assert [one.reason for one in desk.notices()] == ["first", "escalated"]


# -- routes that change ----------------------------------------------------------------------------------------------


def test_who_is_no_longer_in_the_routes_still_gets_the_end(desk):
    desk.tick("red")
    desk.route(routes().replace("[file]", "[ops]"))
    desk.tick("red", period=1)
    desk.tick("ok", period=2)
    told = [(one.receiver, one.reason) for one in desk.notices()]
    assert told[:2] == [("file", "first"), ("ops", "first")]
    assert sorted(told[2:]) == [("file", "all_resolved"), ("ops", "all_resolved")]  # of one moment, in any order


def test_a_red_goes_where_red_goes_and_both_get_their_end(desk):
    desk.route(
        """
route:
  receiver: room
  group_wait: 0s
  group_interval: 0s
  group_by: [alertname]
  routes: [{matchers: [severity=red], receiver: ops}]
receivers: [{name: room, channels: [file]}, {name: ops, channels: [ops]}]
"""
    )
    for number, tier in enumerate(["yellow", "red", "yellow", "ok"]):
        desk.tick(tier, period=number)
    assert desk.said("file") == ["first new", "all_resolved resolved"]
    assert desk.said("ops") == ["first new", "all_resolved resolved"]


def test_who_does_not_want_the_end_is_not_told_it(desk):
    desk.route(routes().replace("channels: [file]", "channels: [file], send_resolved: false"))
    desk.tick("red")
    desk.tick("ok", period=1)
    desk.tick("red", period=2)
    assert desk.said() == ["first new", "first new"]


def test_a_room_is_told_whom_to_call(desk):
    desk.route(routes().replace("channels: [file]", "channels: [ops], people: [li]"))
    desk.tick("red")
    [notice] = desk.notices()
    assert (notice.receiver, notice.mentions, notice.language) == ("ops", ("dt-li",), "zh")


def test_a_group_of_a_told_alert_is_forgotten_when_it_is_over(desk):
    desk.route(TIMED)
    desk.tick("red")
    desk.wait(hours=1)
    desk.tick("ok", period=1)
    desk.wait(hours=9)
    with desk.store.reading() as connection:
        assert connection.execute(sa.select(dispatch_groups)).all() == []


def test_nothing_due_costs_no_writing_and_says_nothing(desk):
    desk.tick("red")
    assert desk.due() == ()
    assert Desk(desk.store, desk.folder).due() == ()


# -- properties ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with sqlite_store(tmp_path_factory.mktemp("dispatch")) as store:
        yield store


STORM = """
route:
  receiver: room
  group_by: [alertname]
  group_wait: 10m
  group_interval: 20m
  repeat_interval: 2h
  routes:
    - {matchers: [severity=red], receiver: duty, group_by: [region], continue: true}
    - {matchers: [region=~".+"], receiver: room}
receivers:
  - {name: room, channels: [file, sales_room]}
  - {name: duty, people: [li], channels: [smtp]}
inhibit_rules: [{source_matchers: [alertname=gmv_drop], target_matchers: [severity=yellow], equal: [region]}]
limits: {per_channel: {count: 2, per: 1h}, per_person: {count: 2, per: 1h}, per_alert_day: 3, red: {count: 2, per: 1h}}
quiet_hours: {times: [{start_time: "22:00", end_time: "08:00"}]}
escalation: [{after: 30m, receiver: duty}]
digest: {every: 30m, worst: 100}
"""
TIER = st.sampled_from(["ok", "yellow", "red", "no_data", "unknown"])
ACT = st.one_of(
    st.tuples(st.just("tick"), st.lists(TIER, min_size=4, max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 45, 180, 600])),
    st.tuples(st.just("silence"), st.sampled_from(["region=a", "severity=yellow", "alertname=gmv_drop"])),
    st.tuples(st.just("ack"), st.just(RULE)),
    st.tuples(st.just("snooze"), st.just("gmv_drop")),
    st.tuples(st.just("silent"), st.lists(TIER, min_size=4, max_size=4)),
    st.tuples(st.just("rerun"), st.none()),
)


def play(desk: Desk, acts, crashes=()) -> None:
    """What happens in a shop; with crashes before some statements, after which the same is done again."""
    period, passed, last, left = 0, 0, [], list(crashes)

    def do(act):
        if left:
            crash_at(desk.store, left.pop(), act)
        act()

    for act, argument in acts:
        if act in ("tick", "silent"):
            pairs = zip(argument, [(RULE, "a"), (RULE, "b"), ("gmv_drop", "a"), ("orders_drop", "b")], strict=True)
            last = [make_verdict(tier, period, rule=rule, member=member, v=period) for tier, (rule, member) in pairs]
            desk.version = 10 * period
            do(lambda: _judge(desk, last, silent=act == "silent"))  # noqa: B023
            period += 1
        elif act == "wait":
            passed += argument
            desk.now = START + timedelta(minutes=passed)
            do(desk.due)
        elif act == "silence":
            desk.silence(argument, hours=2)
        elif act == "ack":
            desk.ack(argument, hours=2)
        elif act == "snooze":
            desk.snooze(argument, hours=2)
        elif last:
            do(lambda: _judge(desk, last, silent=False))  # noqa: B023
    desk.calm_from = period


def _judge(desk: Desk, verdicts, *, silent: bool) -> None:
    from metrics_pipeline.alerts import apply_verdicts

    apply_verdicts(desk.store, verdicts, desk.cards, receivers=desk.routing, now=desk.now, silent=silent)


def calm(desk: Desk, tier: str = "ok") -> None:
    """Everything comes to rest (or fires for good), and so much time passes that nothing holds anything back."""
    for rule, member in [(RULE, "a"), (RULE, "b"), ("gmv_drop", "a"), ("orders_drop", "b")]:
        desk.judge(make_verdict(tier, desk.calm_from, rule=rule, member=member))
    for _ in range(60):
        desk.now += timedelta(hours=1)
        desk.due()


RELAXED = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


SOME_DAY = [("tick", ["red"] * 4), ("wait", 15), ("tick", ["ok", "red", "yellow", "red"]), ("wait", 45)]
ACTS, CRASHES = st.lists(ACT, max_size=14), st.lists(st.integers(1, 40), max_size=5)


def assert_one_end(store, folder, acts, crashes) -> None:
    """After all of it, everybody who was told a beginning was told one end."""
    wipe(store)
    desk = Desk(store, folder / "rules", STORM)
    play(desk, acts, crashes)
    calm(desk)
    for receiver, (begun, ended) in desk.contract().items():
        assert begun == ended, (receiver, desk.said(receiver))
    assert current_alerts(desk.store, states=["firing"]) == []


@RELAXED
@given(acts=ACTS, crashes=CRASHES)
@example(acts=SOME_DAY, crashes=[7, 19, 11, 23])
def test_whatever_happens_whoever_was_told_gets_exactly_one_end(scratch, tmp_path, acts, crashes):
    assert_one_end(scratch, tmp_path, acts, crashes)


@pytest.fixture(scope="module")
def scratch_server():
    with postgres_store() as store:
        yield store


@pytest.mark.services
@settings(RELAXED, max_examples=3)
@given(acts=ACTS, crashes=CRASHES)
@example(acts=SOME_DAY, crashes=[7, 19, 11, 23])
def test_whatever_happens_on_a_server_whoever_was_told_gets_exactly_one_end(scratch_server, tmp_path, acts, crashes):
    assert_one_end(scratch_server, tmp_path, acts, crashes)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def test_a_process_that_is_killed_between_two_statements_loses_and_doubles_nothing(kind, tmp_path):
    """Not an error that a block may catch, but the end of the process: what it had begun, the database alone undoes."""
    opened = sqlite_store(tmp_path) if kind == "sqlite" else postgres_store()
    with opened as store:
        desk, kills = Desk(store, tmp_path / "rules", STORM), 0
        desk.tick("ok", "ok", period=-1, members=("a", "b"))  # imports here what every process would import again
        for period, tier in enumerate(["red", "ok"]):
            verdicts = [make_verdict(tier, period, member=member) for member in "ab"]
            for minutes, act in ((0, lambda: _judge(desk, verdicts, silent=False)), (25, desk.due)):  # noqa: B023
                desk.at(hours=2 * period, minutes=minutes)
                before, step = dump(store), 1 + period
                while killed_at(store, step, act):
                    assert dump(store) == before, (period, minutes, step)
                    step, kills = step + 2, kills + 1
        assert kills > 20
        assert desk.said("file") == ["first new,new", "all_resolved resolved,resolved"]
        assert all(begun == ended for begun, ended in desk.contract().values())


@RELAXED
@given(acts=st.lists(ACT, max_size=10))
def test_whatever_was_held_back_is_told_in_the_end_when_it_still_fires(scratch, tmp_path, acts):
    wipe(scratch)
    desk = Desk(scratch, tmp_path / "rules", STORM)
    play(desk, acts)
    calm(desk, "red")
    told = {one.instance for notice in desk.notices("file") for one in notice.slices if one.tier == "red"}
    assert told >= {one.instance for one in current_alerts(desk.store, states=["firing"])}


@RELAXED
@given(acts=st.lists(ACT, max_size=8))
def test_nothing_is_said_twice_in_one_message_and_every_key_is_unique(scratch, tmp_path, acts):
    wipe(scratch)
    desk = Desk(scratch, tmp_path / "rules", STORM)
    play(desk, acts)
    calm(desk)
    for notice in desk.notices():
        keys = [(one.instance, one.since) for one in notice.slices]
        assert len(keys) == len(set(keys))
    assert len({one.key for one in desk.notices()}) == len(desk.notices())


@pytest.mark.slow
@pytest.mark.parametrize("group_by", ["[alertname]", "['...']"])
def test_a_storm_of_twenty_thousand_slices_gives_at_most_the_configured_messages(desk, group_by):
    # A message for each alert takes long; a part of it says the same.
    count = 4_000 if group_by == "['...']" else 20_000
    desk.route(
        routes(
            more="limits: {per_channel: {count: 5, per: 1h}, red: {count: 5, per: 1h}}\ndigest: {every: 1h}\n"
        ).replace("[alertname]", group_by)
    )
    members = [f"sku-{number:05}" for number in range(count)]
    tiers = ["red" if number % 100 == 0 else "yellow" for number in range(count)]
    begin = time.process_time()
    desk.judge(
        *(make_verdict(tier, dimension="sku", member=member) for tier, member in zip(tiers, members, strict=True))
    )
    desk.wait(timedelta(minutes=20), hours=3)
    assert len(desk.notices()) <= 12
    assert sum(one.counts.red for one in desk.notices()) == count // 100, "every red is counted"
    assert sum(one.counts.new for one in desk.notices()) == count
    assert all(len(one.slices) <= 20 for one in desk.notices())
    assert len(current_alerts(desk.store, limit=count + 1)) == count, "all of them are in the list"
    before = len(desk.notices())
    desk.judge(*(make_verdict("ok", 1, dimension="sku", member=member) for member in members))
    desk.wait(timedelta(minutes=20), hours=9)
    ends = desk.notices()[before:]
    assert sum(one.counts.ended for one in ends) == count
    assert len(ends) <= 12
    assert desk.due() == ()
    assert time.process_time() - begin < 120


def test_the_period_of_a_notice_is_that_of_its_news(desk):
    desk.tick("red", period=3)
    assert desk.notices()[0].period == day(3)
