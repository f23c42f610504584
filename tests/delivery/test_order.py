"""What a receiver is told of one alert arrives in the order in which it was decided, whatever message it is in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.store import outbox
from metrics_pipeline.store.records import NewNotification
from tests.alerts.builders import make_verdict
from tests.alerts.desk import Desk
from tests.delivery.builders import TEMPORARY, Recorder

NOW = datetime(2025, 11, 12, 2, 40, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
LIMITED = """
route: {receiver: room, group_by: [region], group_wait: 0s, group_interval: 0s, repeat_interval: 0s}
receivers: [{name: room, channels: [file]}]
limits: {per_channel: {count: 1, per: 2h}}
digest: {every: 1h}
incidents: false
"""


@pytest.fixture
def desk(store, tmp_path):
    return Desk(store, tmp_path / "rules", LIMITED)


def reasons(channel: Recorder) -> list[str]:
    return [message.notice.reason for _, message in channel.sent]


def test_an_end_does_not_overtake_a_beginning_that_was_told_in_a_digest(desk):
    channel = Recorder()
    desk.tick("yellow", "yellow")
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    desk.wait(hours=2)
    channel.answers = [TEMPORARY]
    assert deliver_due(desk.store, {"file": channel}, now=desk.now).retried == 1, "the digest, with the second region"
    desk.at(hours=4)
    desk.tick("ok", "yellow", period=1)
    assert [one.reason for one in desk.notices()] == ["first", "digest", "all_resolved"]
    channel.answers = [TEMPORARY]
    assert deliver_due(desk.store, {"file": channel}, now=desk.now, limit=1).retried == 1
    assert deliver_due(desk.store, {"file": channel}, now=desk.now).attempts == ()
    desk.at(hours=6)
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    assert reasons(channel) == ["first", "digest", "all_resolved"]


def test_a_digest_does_not_overtake_what_was_told_before_of_its_alerts(desk):
    channel = Recorder(TEMPORARY)
    desk.tick("yellow")
    assert deliver_due(desk.store, {"file": channel}, now=desk.now).retried == 1
    desk.at(minutes=10).tick("ok", period=1)  # over the limit: the end is left to the digest
    desk.wait(hours=3)
    assert [one.reason for one in desk.notices()] == ["first", "digest"]
    channel.answers = [TEMPORARY]
    assert deliver_due(desk.store, {"file": channel}, now=desk.now).retried == 1
    assert channel.sent == []
    desk.at(hours=5)
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    assert reasons(channel) == ["first", "digest"]


def test_a_red_alert_does_not_wait_for_a_message_about_others(desk):
    channel = Recorder(TEMPORARY)
    desk.tick("yellow")
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    desk.tick("yellow", "red", period=1)
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    assert [message.notice.tier for _, message in channel.sent] == ["red"]


def test_the_next_beginning_of_an_alert_does_not_overtake_its_last_end(desk):
    """Each incident is a group of its own, so both are first of their group."""
    desk.route(LIMITED.replace("incidents: false", "incidents: true").replace("limits: {", "# "))
    channel = Recorder()

    def night(period: int, tier: str) -> None:
        rules = ("gmv_drop", "orders_drop")
        desk.at(hours=24 * period)
        desk.judge(*(make_verdict(tier, period, rule=rule, dimension="all", member="all") for rule in rules))

    night(0, "red")
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    channel.answers = [TEMPORARY]
    night(1, "ok")
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    night(2, "red")
    assert [(one.reason, one.group) for one in desk.notices()] == [
        ("first", "incident:gmv_drop{all=all}@2025-11-11T00:00"),
        ("all_resolved", "incident:gmv_drop{all=all}@2025-11-11T00:00"),
        ("first", "incident:gmv_drop{all=all}@2025-11-13T00:00"),
    ]
    channel.answers = [TEMPORARY]
    deliver_due(desk.store, {"file": channel}, now=desk.now)
    assert reasons(channel) == ["first"]
    deliver_due(desk.store, {"file": channel}, now=desk.now + timedelta(hours=1))
    assert reasons(channel) == ["first", "all_resolved", "first"]


# -- the store -----------------------------------------------------------------------------------------------------


def row(key: str, group: str, *episodes: str, sequence: int = 1, receiver: str = "file") -> NewNotification:
    about = [[episode, "news", "red", "none", ""] for episode in episodes]
    return NewNotification(key, receiver, group, sequence, "first", "red", {}, NOW, about=about)


def queue(store, *rows: NewNotification) -> None:
    for one in rows:
        with store.writing("alerts") as connection:
            outbox.enqueue(connection, [one])


def lease(store) -> str | None:
    with store.writing("outbox") as connection:
        found = outbox.lease_next(connection, channels=["file", "smtp"], owner="me", now=NOW, until=LATER)
    return found and found.key


def test_rows_about_one_alert_wait_for_each_other_and_others_do_not(store):
    queue(store, row("1", "a", "x@1"), row("2", "b", "x@1", "y@1"), row("3", "c", "y@2"), row("4", "d", "z@1"))
    queue(store, row("5", "a", "x@1", receiver="smtp:li"))
    assert [lease(store) for _ in range(4)] == ["1", "4", "5", None]


def test_rows_that_are_queued_together_wait_for_each_other_too(store):
    with store.writing("alerts") as connection:
        outbox.enqueue(connection, [row("1", "a", "x@1"), row("2", "b", "x@1")])
    assert [lease(store), lease(store)] == ["1", None]


def test_what_waits_for_a_row_that_is_taken_back_waits_for_what_that_waited_for(store):
    queue(
        store, row("1", "a", "x@1"), row("2", "a", "y@1", sequence=2), row("3", "b", "y@1"), row("4", "c", "w@1", "y@1")
    )
    with store.writing("alerts") as connection:
        assert outbox.recall(connection, "2")
        assert outbox.recall(connection, "3")
        assert not outbox.recall(connection, "2")
    assert [lease(store), lease(store)] == ["1", None]


def test_a_row_that_was_given_up_blocks_nobody(store):
    queue(store, row("1", "a", "x@1"), row("2", "b", "x@1"))
    with store.writing("outbox") as connection:
        first = outbox.lease_next(connection, channels=["file"], owner="me", now=NOW, until=LATER)
        outbox.record_dead(connection, first, error="550", now=NOW)
    assert lease(store) == "2"


def test_a_row_that_a_sender_may_have_sent_is_not_taken_back(store):
    queue(store, row("1", "a", "x@1"))
    assert lease(store) == "1"
    with store.writing("alerts") as connection:
        assert outbox.recallable(connection) == []
        outbox.release(connection, ["me"])
        assert outbox.recallable(connection) == []
        assert not outbox.recall(connection, "1")
    assert lease(store) == "1"
