"""A channel that is down for two hours, while the shop goes on: nothing lost, nothing twice, everything in order."""

from __future__ import annotations

import base64
import email
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email import policy

import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller

from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.channels.smtp import SmtpChannel
from metrics_pipeline.delivery.channels.webhook import WebhookChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.store.tables import outbox, outbox_follows
from tests.alerts.desk import BEGINS, ENDS, Desk
from tests.delivery.test_smtp import free_port
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


def play(desk, channels, line, arrived) -> None:
    """Hours of the shop in steps of ten minutes, with two senders at each. `line(minute)` sets how the other side answers,
    `arrived` is what it has got."""
    for period, (minute, tiers) in enumerate(SHOP.items()):
        desk.at(minutes=minute).tick(*tiers, period=period, members=("华北", "华东", "西北"))
        until = ([*SHOP, END])[period + 1]
        for now in range(minute, until, STEP):
            line(now)
            desk.at(minutes=now).due()
            two_senders_at_once(desk, channels)
            if now < UP:
                assert arrived == []


def refusing(stub, answer: Answer):
    """The vendor answers so for two hours."""

    def line(minute: int) -> None:
        stub.down = answer if DOWN <= minute < UP else None

    return line


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
    play(desk, channels, refusing(stub, down), stub.events)
    assert_all_arrived(desk, "ops", [(event["id"], event["data"]["notice"]) for event in stub.events])


def assert_all_arrived(desk, receiver, arrived) -> None:
    """Nothing lost, nothing twice, all in order. `arrived`: key and notice of each message, as they came."""
    views = notifications(desk.store)
    assert {view.state for view in views} == {"sent"}, "nothing is lost"
    expected = [view for view in views if view.receiver == receiver]
    late = [view for view in expected if view.sent_at - view.created_at > timedelta(minutes=STEP)]
    assert len(late) >= 4, "the channel was down while there was something to tell"
    assert any(view.reason == "digest" for view in late)
    assert Counter(key for key, _ in arrived) == Counter(view.key for view in expected), "each exactly once"
    assert by_episode(arrived) == told_of(desk.store, receiver), "of each alert in the order of the decisions"

    changes = defaultdict(list)
    for _, notice in arrived:
        for one in notice["slices"]:
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


class MailServer:
    """A real server on a port of its own, which takes mail, puts it off, or is not there."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.controller: Controller | None = None
        self.port = free_port()
        self.puts_off = False

    async def handle_DATA(self, server, session, envelope):
        if self.puts_off:
            return "451 4.3.2 try again later"
        mail = email.message_from_bytes(envelope.content, policy=policy.default)
        self.ids.append(mail["Message-ID"].strip("<>").partition("@")[0])
        return "250 2.0.0 queued"

    def line(self, minute: int) -> None:
        """For an hour it puts everything off, for another one nobody answers."""
        self.puts_off = DOWN <= minute < UP // 2
        if UP // 2 <= minute < UP:
            self.stop()
        elif self.controller is None:
            self.controller = Controller(self, hostname="127.0.0.1", port=self.port)
            self.controller.start()

    def stop(self) -> None:
        if self.controller is not None:
            self.controller.stop()
            self.controller = None


@pytest.fixture
def mail_server():
    server = MailServer()
    yield server
    server.stop()


def test_a_mail_server_that_is_down_for_two_hours(store, mail_server, tmp_path):
    desk = Desk(
        store, tmp_path / "rules", ROUTES.replace("channels: [file, ops]", "people: [li], channels: [file, smtp]")
    )
    channels = {
        "smtp": SmtpChannel("127.0.0.1", mail_server.port, "Metrics <alerts@shop.example>", timeout=5),
        "file": FileChannel(tmp_path / "messages"),
    }
    play(desk, channels, mail_server.line, mail_server.ids)
    with desk.store.reading() as connection:
        notices = dict(tuple(row) for row in connection.execute(sa.select(outbox.c.key, outbox.c.payload)))
    assert_all_arrived(desk, "smtp:li@shop.example", [(key, notices[key]) for key in mail_server.ids])


def test_an_answer_that_is_lost_gives_the_same_message_again_and_nothing_else(shop, stub):
    desk, channels = shop
    stub.lost_answers = 1
    play(desk, channels, refusing(stub, Answer("busy", 503)), stub.events)
    ids = Counter(event["id"] for event in stub.events)
    assert sorted(ids.values(), reverse=True)[:2] == [2, 1]
    arrived = by_episode((event["id"], event["data"]["notice"]) for event in stub.events)
    assert {key: list(dict.fromkeys(some)) for key, some in arrived.items()} == told_of(desk.store, "ops")
