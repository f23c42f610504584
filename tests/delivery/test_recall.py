"""A silence also counts for what is queued and not sent; whoever was told a beginning still gets exactly one end."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.delivery.channels import TemporaryFailure
from metrics_pipeline.delivery.outbox import deliver_due
from tests.alerts.builders import make_verdict
from tests.alerts.crash import crash_at, wipe
from tests.alerts.desk import BEGINS, ENDS, Desk
from tests.delivery.builders import Recorder
from tests.store.databases import sqlite_store

RULE = "refund_rate_surge"
PLAIN = """
route: {receiver: room, group_by: [alertname], group_wait: 0s, group_interval: 0s, repeat_interval: 0s}
receivers: [{name: room, channels: [file]}]
incidents: false
"""
REFUSED = TemporaryFailure("503 busy", code="503")
OPEN = TemporaryFailure("no answer within 10 s")


class Shop:
    """A desk with a channel that is up or down, and what really arrived."""

    def __init__(self, store, folder, routes=PLAIN):
        self.desk = Desk(store, folder / "rules", routes)
        self.channel = Recorder()
        self.failure: Exception | None = None

    def send(self, **options):
        channel = self.channel

        class Line(Recorder):
            def send(_, message, address):
                if self.failure is not None:
                    raise self.failure
                return channel.send(message, address)

        routing = self.desk.routing
        return deliver_due(self.desk.store, {"file": Line()}, now=self.desk.now, routing=lambda: routing, **options)

    def pass_time(self, hours: float = 2) -> None:
        """The sensor's round every ten minutes: what became due, then what is to be sent."""
        for _ in range(int(hours * 6)):
            self.desk.now += timedelta(minutes=10)
            self.desk.due()
            self.send()

    def said(self) -> list[str]:
        """`first new 华北`: reason, change and member of each slice of what arrived."""
        return [
            " ".join([message.notice.reason, *(f"{one.change} {one.member}" for one in message.notice.slices)])
            for _, message in self.channel.sent
        ]

    def contract(self) -> dict[tuple[str, object], tuple[int, int]]:
        """Episode → how often its beginning and its end arrived."""
        seen = defaultdict(list)
        for _, message in self.channel.sent:
            for one in message.notice.slices:
                seen[one.instance, one.since].append(one.change)
        return {
            key: (sum(one in BEGINS for one in some), sum(one in ENDS for one in some)) for key, some in seen.items()
        }


@pytest.fixture
def shop(store, tmp_path):
    made = Shop(store, tmp_path)
    made.failure = REFUSED
    return made


def test_a_silence_takes_back_what_is_queued_and_lets_the_rest_go(shop):
    shop.desk.tick("red", "red")
    assert shop.send().retried == 1
    shop.desk.silence("region=华北", hours=9)
    shop.failure = None
    shop.pass_time()
    assert shop.said() == ["first new 华东"]
    assert sorted(view.state for view in notifications(shop.desk.store)) == ["recalled", "sent"]
    shop.desk.tick("ok", "ok", period=1)
    shop.pass_time()
    assert shop.said()[1:] == ["all_resolved resolved 华东"], "who was never told gets no end"


def test_what_began_and_ended_in_the_queue_is_not_told_when_it_was_silenced(shop):
    shop.desk.tick("red")
    shop.send()
    shop.desk.at(hours=1).tick("ok", period=1)
    shop.desk.silence("region=华北", hours=9)
    shop.failure = None
    shop.pass_time(12)
    assert shop.said() == []
    assert {view.state for view in notifications(shop.desk.store)} == {"recalled"}


def test_who_was_told_gets_the_end_although_what_was_worse_was_taken_back(shop):
    shop.failure = None
    shop.desk.tick("yellow")
    shop.send()
    shop.failure = REFUSED
    shop.desk.tick("red", period=1)
    shop.send()
    shop.desk.silence("severity=red", hours=9)
    shop.failure = None
    shop.pass_time()
    shop.desk.tick("ok", period=2)
    shop.pass_time()
    assert shop.said() == ["first new 华北", "all_resolved resolved 华北"]


def test_what_still_fires_when_the_silence_is_over_is_told_once(shop):
    shop.desk.tick("red")
    shop.send()
    shop.desk.silence("region=华北", hours=3)
    shop.failure = None
    shop.pass_time(2)
    assert shop.said() == []
    shop.pass_time(2)
    assert shop.said() == ["first new 华北"]


def test_a_message_that_may_have_arrived_is_not_taken_back_and_neither_is_its_end(shop):
    shop.failure = OPEN
    shop.desk.tick("red")
    shop.send()
    shop.desk.silence("region=华北", hours=9)
    shop.desk.tick("ok", period=1)
    shop.failure = None
    shop.pass_time()
    assert shop.said() == ["first new 华北", "all_resolved resolved 华北"]


def test_an_end_is_never_silenced(shop):
    shop.failure = None
    shop.desk.tick("red")
    shop.send()
    shop.failure = REFUSED
    shop.desk.tick("ok", period=1)
    shop.send()
    shop.desk.silence("region=华北", hours=9)
    shop.failure = None
    shop.pass_time()
    assert shop.said() == ["first new 华北", "all_resolved resolved 华北"]


def test_a_snooze_takes_back_like_a_silence_and_the_alert_turns_up_again(shop):
    shop.desk.tick("red")
    shop.send()
    shop.desk.snooze(hours=3)
    shop.failure = None
    shop.pass_time(2)
    assert shop.said() == []
    shop.pass_time(2)
    assert shop.said() == ["first new 华北"]


def test_a_silence_of_other_alerts_takes_nothing_back(shop):
    shop.desk.tick("red")
    shop.send()
    shop.desk.silence("region=华东", hours=9)
    shop.failure = None
    report = shop.send()
    shop.pass_time(1)
    assert (shop.said(), report.recalled) == (["first new 华北"], ())


def test_a_reminder_of_what_is_silenced_meanwhile_is_not_sent(shop):
    shop.desk.route(PLAIN.replace("repeat_interval: 0s", "repeat_interval: 4h"))
    shop.failure = None
    shop.desk.tick("red", "red")
    shop.send()
    shop.desk.at(hours=4)
    shop.failure = REFUSED
    shop.desk.due()
    shop.send()
    shop.desk.silence("region=华北", hours=9)
    shop.failure = None
    shop.pass_time(1)
    assert shop.said()[1:] == ["repeat ongoing 华东"]


def test_a_digest_that_is_taken_back_is_told_again_without_what_is_silenced(shop):
    shop.desk.route(
        PLAIN.replace("[alertname]", "[region]") + "limits: {per_channel: {count: 1, per: 2h}}\ndigest: {every: 1h}\n"
    )
    shop.desk.tick("yellow", "yellow", "yellow", members=("华北", "华东", "西北"))
    shop.desk.wait(hours=2)
    shop.send()
    shop.desk.silence("region=华北", hours=3)
    shop.failure = None
    shop.pass_time(2)
    assert shop.said() == ["first new 华东", "digest new 西北"]
    shop.pass_time(4)
    assert shop.said()[2:] == ["first new 华北"]
    shop.desk.tick("ok", "ok", "ok", period=1, members=("华北", "华东", "西北"))
    shop.pass_time(9)
    assert set(shop.contract().values()) == {(1, 1)}


def test_a_crash_while_taking_back_leaves_nothing_half_done(shop, tmp_path):
    step, crashed = 1, True
    while crashed:
        wipe(shop.desk.store)
        shop.desk.at(hours=0)
        shop.channel.sent.clear()
        shop.failure = REFUSED
        shop.desk.tick("red", "red")
        shop.send()
        shop.desk.silence("region=华北", hours=90)
        shop.failure = None
        shop.desk.now += timedelta(minutes=10)
        crashed = crash_at(shop.desk.store, step, lambda: shop.send(limit=1))
        shop.pass_time(0.4)
        assert shop.said() == ["first new 华东"], step
        step += 1
    assert step > 10


# -- properties ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with sqlite_store(tmp_path_factory.mktemp("recall")) as store:
        yield store


TIER = st.sampled_from(["ok", "yellow", "red", "no_data"])
ACT = st.one_of(
    st.tuples(st.just("tick"), st.lists(TIER, min_size=3, max_size=3)),
    st.tuples(st.just("wait"), st.sampled_from([10, 40, 180])),
    st.tuples(st.just("silence"), st.sampled_from(["region=a", "severity=yellow", "alertname=gmv_drop"])),
    st.tuples(st.just("snooze"), st.just(RULE)),
    st.tuples(st.just("line"), st.sampled_from(["up", "refuses", "hangs up"])),
)
ROUTES = """
route:
  {receiver: room, group_by: [region], group_wait: 10m, group_interval: 20m, repeat_interval: 2h}
receivers: [{name: room, channels: [file]}]
limits: {per_channel: {count: 2, per: 1h}, red: {count: 2, per: 1h}}
digest: {every: 30m, worst: 100}
flapping: false
incidents: false
"""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts=st.lists(ACT, max_size=14))
def test_whoever_got_a_beginning_gets_exactly_one_end_and_in_order_whatever_is_silenced(scratch, tmp_path, acts):
    wipe(scratch)
    shop = Shop(scratch, tmp_path, ROUTES)
    lines = {"up": None, "refuses": REFUSED, "hangs up": OPEN}
    slices = [(RULE, "a"), (RULE, "b"), ("gmv_drop", "a")]
    period = 0
    for act, argument in acts:
        if act == "tick":
            shop.desk.judge(
                *(
                    make_verdict(tier, period, rule=rule, member=member)
                    for tier, (rule, member) in zip(argument, slices, strict=True)
                )
            )
            period += 1
        elif act == "wait":
            shop.pass_time(argument / 60)
        elif act == "silence":
            shop.desk.silence(argument, hours=2)
        elif act == "snooze":
            shop.desk.snooze(argument, hours=2)
        else:
            shop.failure = lines[argument]
        shop.send()
    shop.failure = None
    shop.desk.judge(*(make_verdict("ok", period, rule=rule, member=member) for rule, member in slices))
    for _ in range(24):
        shop.desk.now += timedelta(hours=2)
        shop.desk.due()
        shop.send()
    assert {view.state for view in notifications(scratch)} <= {"sent", "recalled"}
    seen = defaultdict(list)
    for _, message in shop.channel.sent:
        for one in message.notice.slices:
            seen[one.instance, one.since].append(one.change)
    for episode, changes in seen.items():
        begun = [place for place, change in enumerate(changes) if change in BEGINS]
        ended = [place for place, change in enumerate(changes) if change in ENDS]
        assert len(ended) == 1, (episode, changes)
        assert len(begun) <= 1, (episode, changes)
        assert ended == [len(changes) - 1], (episode, changes)
        if not begun:  # came and went while it was held back: a digest counts it
            assert changes in (["resolved"], ["corrected"]), (episode, changes)
    assert len(set(shop.channel.keys)) == len(shop.channel.keys)
