"""A channel that is down for two hours, while the shop goes on: nothing lost, nothing twice, everything in order."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.channels.webhook import WebhookChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.store.tables import outbox, outbox_follows
from tests.alerts.desk import BEGINS, ENDS, Desk
from tests.delivery.vendor_stub import Answer

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
ROUTES = """
route: {receiver: room, group_by: [region], group_wait: 0s, group_interval: 0s, repeat_interval: 50m}
receivers: [{name: room, channels: [file, ops]}]
limits: {per_channel: {count: 1, per: 1h}, red: {count: 1, per: 20m}}
digest: {every: 20m}
incidents: false
flapping: false
"""
SHOP = {
    0: ["yellow", "yellow", "ok"],
    30: ["red", "ok", "red"],
    60: ["red", "yellow", "red"],
    90: ["ok", "yellow", "ok"],
    100: ["red", "ok", "ok"],
    180: ["ok", "ok", "ok"],
}
"""Minute → verdicts of three regions; the channel is down from minute 0 to minute 120."""
DOWN, UP, END = 0, 120, 310
STEP = 10


@pytest.fixture
def shop(store, stub, tmp_path):
    stub.webhook_secret = SECRET
    desk = Desk(store, tmp_path / "rules", ROUTES)
    channels = {
        "ops": WebhookChannel(name="ops", url=f"{stub.url}/webhook", secret=SECRET),
        "file": FileChannel(tmp_path / "messages"),
    }
    return desk, channels


def two_senders_at_once(desk, channels):
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: deliver_due(desk.store, channels, now=desk.now), range(2)))
    return [attempt for report in reports for attempt in report.attempts]


def play(desk, channels, stub, *, down: Answer) -> None:
    """Hours of the shop in steps of ten minutes, with two senders at each."""
    for period, (minute, tiers) in enumerate(SHOP.items()):
        desk.at(minutes=minute).tick(*tiers, period=period, members=("华北", "华东", "西北"))
        until = ([*SHOP, END])[period + 1]
        for now in range(minute, until, STEP):
            stub.down = down if DOWN <= now < UP else None
            desk.at(minutes=now).due()
            two_senders_at_once(desk, channels)
            if now < UP:
                assert stub.events == []


def told_of(store, receiver: str) -> dict[tuple[str, str], list[str]]:
    """Episode → notifications to a receiver that begin or end it, as they were queued."""
    with store.reading() as connection:
        rows = connection.execute(
            sa.select(outbox.c.key, outbox.c.payload).where(outbox.c.receiver == receiver).order_by(outbox.c.id)
        )
        return by_episode((row[0], row[1]) for row in rows)


def by_episode(notices) -> dict[tuple[str, str], list[str]]:
    found = defaultdict(list)
    for key, notice in notices:
        for one in notice["slices"]:
            found[one["instance"], one["since"]].append(key)
    return dict(found)


@pytest.mark.parametrize("down", [Answer("busy", 503), Answer(status=0)], ids=["it refuses", "it hangs up"])
def test_a_channel_that_is_down_for_two_hours(shop, stub, down):
    desk, channels = shop
    play(desk, channels, stub, down=down)

    views = notifications(desk.store)
    assert {view.state for view in views} == {"sent"}, "nothing is lost"
    of_ops = [view for view in views if view.receiver == "ops"]
    late = [view for view in of_ops if view.sent_at - view.created_at > timedelta(minutes=STEP)]
    assert len(late) >= 4, "the channel was down while there was something to tell"
    assert any(view.reason == "digest" for view in late)

    ids = Counter(event["id"] for event in stub.events)
    assert ids == Counter(view.key for view in of_ops), "each exactly once"
    arrived = by_episode((event["id"], event["data"]["notice"]) for event in stub.events)
    assert arrived == told_of(desk.store, "ops"), "of each alert in the order of the decisions"

    changes = defaultdict(list)
    for event in stub.events:
        for one in event["data"]["notice"]["slices"]:
            changes[one["instance"], one["since"]].append(one["change"])
    for episode, seen in changes.items():
        begun, ended = (sum(change in kinds for change in seen) for kinds in (BEGINS, ENDS))
        assert (begun, ended) == (1, 1), (episode, seen)
        assert seen[0] in BEGINS
        assert seen[-1] in ENDS

    of_file = [view for view in views if view.receiver == "file"]
    assert {view.attempts for view in of_file} == {1}, "the other channel does not wait"
    assert all(view.sent_at - view.created_at < timedelta(minutes=STEP) for view in of_file)
    with desk.store.reading() as connection:
        assert connection.execute(sa.select(outbox_follows)).all() == [], "nothing is left to wait for"


def test_an_answer_that_is_lost_gives_the_same_message_again_and_nothing_else(shop, stub):
    desk, channels = shop
    stub.lost_answers = 1
    play(desk, channels, stub, down=Answer("busy", 503))
    ids = Counter(event["id"] for event in stub.events)
    assert sorted(ids.values(), reverse=True)[:2] == [2, 1]
    arrived = by_episode((event["id"], event["data"]["notice"]) for event in stub.events)
    assert {key: list(dict.fromkeys(some)) for key, some in arrived.items()} == told_of(desk.store, "ops")
