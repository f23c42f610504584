"""Who stands in for a receiver that a message did not reach hears of the end, however the beginning and the end are told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from metrics_pipeline.alerts import retire_rules
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.store import outbox as rows
from tests.alerts.desk import Desk
from tests.delivery.builders import PERMANENT, Recorder

ROUTES = """
route: {receiver: room, group_by: [GROUP], group_wait: 0s, group_interval: 0s, repeat_interval: 0s}
receivers: [{name: room, channels: [ops]}]
limits: {per_channel: {count: 1, per: 2h}, red: {count: 9, per: 1h}}
digest: {every: 1h}
incidents: false
flapping: false
"""


class Room:
    """A room that may refuse for good, and the file that stands in for it."""

    def __init__(self, store, folder, group="region"):
        self.desk = Desk(store, folder / "rules", ROUTES.replace("GROUP", group))
        self.refuses = False
        self.ops, self.file = Recorder(name="ops"), Recorder()

    def tick(self, *tiers, hours=0, period=0):
        self.desk.at(hours=hours).tick(*tiers, period=period)
        self.send()

    def send(self, *, passed: float = 0):
        end = self.desk.now + timedelta(hours=passed)
        while True:
            self.desk.due()
            ops = Recorder(*[PERMANENT] * 9, name="ops") if self.refuses else self.ops
            deliver_due(self.desk.store, {"ops": ops, "file": self.file}, now=self.desk.now, fallback=lambda: ["file"])
            if self.desk.now >= end:
                return
            self.desk.now += timedelta(minutes=30)

    def told(self, channel: Recorder) -> list[str]:
        return [
            " ".join([message.notice.reason, *sorted(f"{one.change} {one.member}" for one in message.notice.slices)])
            for _, message in channel.sent
        ]


@pytest.fixture
def room(store, tmp_path):
    return Room(store, tmp_path)


def test_a_digest_that_did_not_arrive_is_followed_by_the_ends_of_what_it_told(room):
    room.tick("yellow", "yellow")
    room.refuses = True
    room.send(passed=2)
    assert room.told(room.file) == ["digest new 华北"]
    room.refuses = False
    room.tick("yellow", "ok", hours=5, period=1)
    room.send(passed=2)
    assert room.told(room.file) == ["digest new 华北"], "the other one never came to the file"
    room.tick("ok", "ok", hours=9, period=2)
    room.send(passed=3)
    assert room.told(room.file) == ["digest new 华北", "all_resolved resolved 华北"]
    assert room.told(room.ops)[-1] == "all_resolved resolved 华北"


def test_an_end_in_a_digest_reaches_who_stood_in_for_the_beginning(room):
    room.refuses = True
    room.tick("yellow")
    room.refuses = False
    room.tick("ok", hours=1, period=1)
    room.send(passed=3)
    assert room.told(room.ops) == ["digest resolved 华北"]
    assert room.told(room.file) == ["first new 华北", "digest resolved 华北"]


def test_the_end_of_one_of_several_reaches_who_stood_in_for_it(store, tmp_path):
    room = Room(store, tmp_path, group="alertname")
    room.refuses = True
    room.tick("red", "ok")
    room.refuses = False
    room.tick("red", "red", hours=1, period=1)
    room.tick("ok", "red", hours=2, period=2)
    room.tick("ok", "ok", hours=3, period=3)
    room.send(passed=3)
    ends = ["some_resolved ongoing 华东 resolved 华北", "all_resolved resolved 华东"]
    assert room.told(room.ops)[1:] == ends
    assert room.told(room.file) == ["first new 华北", *ends], "the first end told it of the other one, too"


def test_a_rule_that_is_gone_is_taken_back_there_too(room):
    room.refuses = True
    room.tick("red")
    room.refuses = False
    retire_rules(room.desk.store, set(), now=room.desk.now, receivers=room.desk.routing)
    room.send(passed=3)
    assert room.told(room.file) == ["first new 华北", "cancelled cancelled 华北"]


def test_a_message_that_is_tried_again_and_fails_again_is_forwarded_once(room):
    room.refuses = True
    room.tick("red")
    with room.desk.store.reading() as connection:
        [key] = [row.key for row in connection.exec_driver_sql("SELECT key FROM outbox WHERE state = 'dead'")]
    for refuses in (True, False):
        with room.desk.store.writing() as connection:
            assert rows.revive(connection, key, now=room.desk.now)
        room.refuses = refuses
        room.send()
    assert (room.told(room.file), room.told(room.ops)) == (["first new 华北"], ["first new 华北"])
    room.tick("ok", hours=1, period=1)
    assert room.told(room.file)[1:] == room.told(room.ops)[1:] == ["all_resolved resolved 华北"]


def test_what_stands_in_is_not_taken_back_by_a_silence(room):
    room.refuses = True
    room.desk.tick("red")
    deliver_due(room.desk.store, {"ops": Recorder(PERMANENT, name="ops")}, now=room.desk.now, fallback=lambda: ["file"])
    room.desk.silence("region=华北", hours=1)
    room.send()
    assert room.told(room.file) == ["first new 华北"]
