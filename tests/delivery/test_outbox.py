"""Sending what is due: nothing lost, nothing sent twice by two senders, every answer recorded."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.delivery.channels import RateLimited, TemporaryFailure
from metrics_pipeline.delivery.outbox import LEASE, Backoff, deliver_due
from metrics_pipeline.store import outbox as rows
from metrics_pipeline.store.tables import deliveries
from tests.alerts.builders import NOW, make_card, make_verdict
from tests.alerts.crash import wipe
from tests.delivery.builders import PERMANENT, TEMPORARY, Recorder
from tests.store.databases import sqlite_store

CARDS = {name: make_card(name) for name in ("refund_rate_surge", "b", "c")}


def breach(store, tier="red", period=0, *, rules=("refund_rate_surge",), receivers=("file",), now=NOW):
    verdicts = [make_verdict(tier, period, rule=rule) for rule in rules]
    return apply_verdicts(store, verdicts, CARDS, receivers=receivers, now=now)


def outcomes(store) -> list[tuple[str, str]]:
    with store.reading() as connection:
        query = sa.select(deliveries.c.outcome, deliveries.c.answer).order_by(deliveries.c.id)
        return [(row[0], row[1]) for row in connection.execute(query)]


def test_what_is_due_is_sent_once_and_recorded(store):
    breach(store)
    channel = Recorder("250 taken")
    report = deliver_due(store, {"file": channel}, now=NOW)
    assert (report.sent, report.waiting, len(channel.sent)) == (1, 0, 1)
    assert deliver_due(store, {"file": channel}, now=NOW).attempts == ()
    [view] = notifications(store)
    assert (view.state, view.attempts, view.answer, view.sent_at) == ("sent", 1, "250 taken", NOW)


def test_a_failed_send_keeps_the_row_and_is_tried_again_later(store):
    breach(store)
    channel = Recorder(TEMPORARY, TEMPORARY)
    assert deliver_due(store, {"file": channel}, now=NOW).retried == 1
    assert deliver_due(store, {"file": channel}, now=NOW + timedelta(seconds=29)).attempts == ()
    assert deliver_due(store, {"file": channel}, now=NOW + timedelta(seconds=30)).retried == 1
    [view] = notifications(store, states=["queued"])
    assert view.next_attempt_at == NOW + timedelta(seconds=90)
    assert deliver_due(store, {"file": channel}, now=NOW + timedelta(seconds=90)).sent == 1
    assert [outcome for outcome, _ in outcomes(store)] == ["retry", "retry", "sent"]


def test_what_a_killed_sender_had_taken_is_sent_at_once(store):
    breach(store, rules=("refund_rate_surge", "b"))
    with store.writing("outbox") as connection:
        for owner in (f"{socket.gethostname()}:{2**22 - 1}:5", "elsewhere:7:5"):
            rows.lease_next(connection, channels=["file"], owner=owner, now=NOW, until=NOW + LEASE)
    channel = Recorder()
    report = deliver_due(store, {"file": channel}, now=NOW + timedelta(seconds=1))
    assert (report.sent, report.waiting) == (1, 1)
    assert deliver_due(store, {"file": channel}, now=NOW + LEASE).sent == 1
    assert len(channel.sent) == len({message.id for _, message in channel.sent}) == 2


def test_a_channel_that_works_does_not_count_for_one_that_does_not(store):
    breach(store, receivers=("file", "smtp:a@shop"))
    channels = {"file": Recorder(), "smtp": Recorder(TEMPORARY, name="smtp")}
    report = deliver_due(store, channels, now=NOW)
    assert (report.sent, report.retried, report.waiting) == (1, 1, 1)
    deliver_due(store, channels, now=NOW + timedelta(minutes=1))
    assert channels["smtp"].sent[0][0] == "a@shop"
    assert len(channels["file"].sent) == 1


def test_a_permanent_error_is_a_dead_letter_with_its_answer(store):
    breach(store)
    report = deliver_due(store, {"file": Recorder(PERMANENT)}, now=NOW)
    assert [one.answer for one in report.dead] == ["550 no such user"]
    assert notifications(store, states=["dead"])[0].answer == "550 no such user"
    with store.writing() as connection:
        assert rows.revive(connection, report.dead[0].key, now=NOW)
    assert deliver_due(store, {"file": Recorder()}, now=NOW).sent == 1


def test_a_dead_letter_goes_to_those_who_stand_in_and_so_does_its_end(store):
    breach(store, receivers=("bot:13800001111",))
    channels = {"file": Recorder(), "bot": Recorder(PERMANENT, name="bot")}
    report = deliver_due(store, channels, now=NOW, fallback=lambda: ["file", "bot:13800001111"])
    assert [one.outcome for one in report.attempts] == ["dead", "sent"]
    [(_, message)] = channels["file"].sent
    assert "bot did not take this message" in message.text
    assert "13800001111" not in message.text
    later = NOW + timedelta(days=1)
    apply_verdicts(store, [make_verdict("ok", 1)], CARDS, receivers=("bot:13800001111",), now=later)
    deliver_due(store, channels, now=later, fallback=lambda: ["file"])
    assert [one.notice.reason for _, one in channels["bot"].sent] == ["all_resolved"]
    assert [one.notice.reason for _, one in channels["file"].sent] == ["first", "all_resolved"]
    assert deliver_due(store, channels, now=later).attempts == ()


def test_what_was_forwarded_is_not_forwarded_again(store):
    breach(store, receivers=("bot",))
    channels = {"bot": Recorder(PERMANENT, name="bot"), "other": Recorder(PERMANENT, name="other")}
    report = deliver_due(store, channels, now=NOW, fallback=lambda: ["other"])
    assert [one.outcome for one in report.attempts] == ["dead", "dead"]


def test_temporary_errors_for_two_days_become_a_dead_letter(store):
    breach(store)
    now = NOW + timedelta(days=2)
    report = deliver_due(store, {"file": Recorder(TEMPORARY)}, now=now)
    assert "given up after 1 attempts since 2025-11-12" in report.dead[0].answer


def test_the_other_side_may_ask_for_a_longer_wait(store):
    breach(store)
    failure = TemporaryFailure("rate limited", retry_after=timedelta(minutes=20))
    deliver_due(store, {"file": Recorder(failure)}, now=NOW)
    assert notifications(store)[0].next_attempt_at == NOW + timedelta(minutes=20)


def test_a_rate_limit_silences_the_channel_and_nobody_else(store):
    breach(store, rules=("refund_rate_surge", "b"), receivers=("bot", "bot:ann", "file"))
    limit = RateLimited("130101 send too fast", retry_after=timedelta(minutes=10))
    channels = {"bot": Recorder(limit, name="bot"), "file": Recorder()}
    report = deliver_due(store, channels, now=NOW)
    assert (report.sent, report.retried, report.waiting) == (2, 1, 4)
    assert deliver_due(store, channels, now=NOW + timedelta(minutes=9)).attempts == ()
    assert deliver_due(store, channels, now=NOW + timedelta(minutes=10)).sent == 4


def test_a_limit_of_one_phone_silences_that_phone_only(store):
    breach(store, rules=("refund_rate_surge", "b"), receivers=("sms:1", "sms:2"))
    limit = RateLimited("one message in 30 s", retry_after=timedelta(seconds=30), only_address=True)
    report = deliver_due(store, {"sms": Recorder(limit, name="sms")}, now=NOW)
    assert (report.sent, report.retried, report.waiting) == (2, 1, 2)


def test_a_rate_limit_never_waits_longer_than_it_asks(store):
    breach(store)
    channel = Recorder(*[RateLimited("slow down", retry_after=timedelta(minutes=1)) for _ in range(8)])
    for minute in range(8):
        assert deliver_due(store, {"file": channel}, now=NOW + timedelta(minutes=minute)).retried == 1


def test_a_defect_in_a_channel_stops_nobody_else(store, caplog):
    breach(store, rules=("b", "c"))
    report = deliver_due(store, {"file": Recorder(ZeroDivisionError("secret"))}, now=NOW)
    assert (report.retried, report.sent) == (1, 1)
    assert report.attempts[0].answer == "unexpected ZeroDivisionError; see the log of this run"


def test_a_crash_between_send_and_record_sends_again_with_the_same_id(store):
    breach(store)
    channel = Recorder()

    class Dies(Recorder):
        def send(self, message, address):
            channel.send(message, address)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deliver_due(store, {"file": Dies()}, now=NOW)
    assert deliver_due(store, {"file": channel}, now=NOW + LEASE / 2).attempts == ()
    assert deliver_due(store, {"file": channel}, now=NOW + LEASE).sent == 1
    assert len(set(channel.keys)) == 1
    assert len(channel.keys) == 2


def test_the_end_never_overtakes_the_beginning(store):
    breach(store, "red", 0)
    channel = Recorder(TEMPORARY)
    deliver_due(store, {"file": channel}, now=NOW)
    breach(store, "ok", 1, now=NOW)
    assert deliver_due(store, {"file": channel}, now=NOW).attempts == ()
    deliver_due(store, {"file": channel}, now=NOW + timedelta(minutes=1))
    assert [message.notice.reason for _, message in channel.sent] == ["first", "all_resolved"]
    assert len(channel.sent[0][1].over) == 1
    assert "结束" in channel.sent[0][1].text


def test_rows_of_an_absent_channel_keep_waiting(store):
    breach(store, receivers=("smtp:a@shop",))
    report = deliver_due(store, {"file": Recorder()}, now=NOW)
    assert (report.attempts, report.waiting) == ((), 1)


def test_the_limit_bounds_a_round(store):
    breach(store, rules=("refund_rate_surge", "b", "c"))
    assert deliver_due(store, {"file": Recorder()}, now=NOW, limit=2).waiting == 1


def test_two_senders_at_once_never_send_the_same_row(store):
    breach(store, rules=tuple(CARDS), receivers=tuple(f"file:{n}" for n in range(8)))
    channel = Recorder()
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: deliver_due(store, {"file": channel}, now=NOW), range(2)))
    assert sum(report.sent for report in reports) == 24
    assert len(set(channel.keys)) == len(channel.keys) == 24


def test_back_off_doubles_up_to_its_longest_and_spreads():
    pace = Backoff(jitter=lambda: 1.0)
    assert pace.wait(1) == timedelta(seconds=45)
    assert pace.wait(3) == timedelta(seconds=180)
    assert pace.wait(500) == timedelta(minutes=90)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    with sqlite_store(tmp_path_factory.mktemp("scratch")) as store:
        yield store


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tiers=st.lists(st.sampled_from(["ok", "yellow", "red", "no_data"]), max_size=6),
    faults=st.lists(st.sampled_from(["ok", "retry", "crash before", "crash after"]), max_size=12),
)
def test_whatever_fails_every_notification_arrives_in_order(scratch, tiers, faults):
    wipe(scratch)
    arrived = Recorder()
    left = list(faults)

    class Faulty(Recorder):
        def send(self, message, address):
            fault = left.pop() if left else "ok"
            if fault == "retry":
                raise TEMPORARY
            if fault == "crash before":
                raise KeyboardInterrupt
            arrived.send(message, address)
            if fault == "crash after":
                raise KeyboardInterrupt
            return "ok"

    now = NOW
    for number, tier in enumerate([*tiers, "ok"]):
        breach(scratch, tier, number, now=now)
        for _ in range(20):
            now += timedelta(hours=1)
            try:
                if deliver_due(scratch, {"file": Faulty()}, now=now).waiting == 0:
                    break
            except KeyboardInterrupt:
                continue
    queued = [view.key for view in reversed(notifications(scratch))]
    assert list(dict.fromkeys(arrived.keys)) == queued
    assert {view.state for view in notifications(scratch)} <= {"sent"}
