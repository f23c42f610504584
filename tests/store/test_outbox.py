"""The outbox: who may take which row, and when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from metrics_pipeline.store import outbox
from metrics_pipeline.store.records import NewNotification
from metrics_pipeline.store.tables import deliveries
from metrics_pipeline.store.tables import outbox as table

NOW = datetime(2025, 11, 12, 2, 40, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def queue(store, *rows: NewNotification) -> None:
    with store.writing() as connection:
        outbox.enqueue(connection, rows)


def make_row(key: str, *, receiver="file", group="rule", sequence=1, tier="yellow") -> NewNotification:
    return NewNotification(key, receiver, group, sequence, "first", tier, {"文": "字"}, NOW)


def lease(store, *, channels=("file", "smtp"), owner="me", now=NOW, until=LATER):
    with store.writing("outbox") as connection:
        return outbox.lease_next(connection, channels=channels, owner=owner, now=now, until=until)


def test_red_leaves_before_yellow_and_the_older_before_the_newer(store):
    queue(store, make_row("a", group="1"), make_row("b", group="2"), make_row("c", group="3", tier="red"))
    assert [lease(store).key for _ in range(3)] == ["c", "a", "b"]
    assert lease(store) is None


def test_a_leased_row_carries_its_payload_and_counts_the_attempt(store):
    queue(store, make_row("a"))
    row = lease(store)
    assert (row.payload, row.attempts, row.lease_until, row.state) == ({"文": "字"}, 1, LATER, "leased")


def test_the_second_of_a_group_waits_for_the_first_even_when_it_is_red(store):
    queue(store, make_row("start"), make_row("end", sequence=2, tier="red"), make_row("other", receiver="smtp:a@b"))
    first = lease(store)
    assert first.key == "start"
    assert lease(store).key == "other"
    assert lease(store) is None
    with store.writing("outbox") as connection:
        assert outbox.record_sent(connection, first, answer="ok", now=NOW)
    assert lease(store).key == "end"


def test_a_dead_row_does_not_block_those_behind_it(store):
    queue(store, make_row("start"), make_row("end", sequence=2))
    with store.writing("outbox") as connection:
        row = outbox.lease_next(connection, channels=["file"], owner="me", now=NOW, until=LATER)
        outbox.record_dead(connection, row, error="550 no such user", now=NOW)
    assert lease(store).key == "end"
    with store.writing("outbox") as connection:
        assert outbox.revive(connection, "start", now=NOW)
        assert not outbox.revive(connection, "start", now=NOW)


def test_the_lease_of_a_sender_that_never_came_back_expires(store):
    queue(store, make_row("a"))
    gone = lease(store, owner="gone")
    assert lease(store, now=LATER - timedelta(seconds=1)) is None
    mine = lease(store, owner="me", now=LATER, until=LATER + timedelta(minutes=5))
    assert (mine.key, mine.attempts) == ("a", 2)
    with store.writing("outbox") as connection:
        assert not outbox.record_retry(connection, gone, error="late", at=LATER, now=LATER)
        assert outbox.record_sent(connection, mine, answer="ok", now=LATER)
    with store.reading() as connection:
        assert connection.execute(sa.select(table.c.state)).scalars().all() == ["sent"]
        assert connection.execute(sa.select(sa.func.count()).select_from(deliveries)).scalar_one() == 2


def test_a_retry_waits_for_its_time(store):
    queue(store, make_row("a"))
    row = lease(store)
    with store.writing("outbox") as connection:
        outbox.record_retry(connection, row, error="451 later", at=LATER, now=NOW)
        assert outbox.waiting_count(connection) == 1
        assert outbox.waiting_count(connection, now=NOW) == 0
        assert outbox.waiting_count(connection, now=LATER) == 1
    assert lease(store) is None
    assert lease(store, now=LATER, until=LATER + timedelta(minutes=5)).last_error == "451 later"


def test_only_rows_of_the_given_channels_are_taken(store):
    queue(store, make_row("mail", receiver="smtp:a@b"), make_row("odd", receiver="smtpx:a@b", group="2"))
    assert lease(store, channels=["file"]) is None
    assert lease(store, channels=["smtp"]).key == "mail"
    assert lease(store, channels=["smtp"]) is None


@pytest.mark.parametrize("second", [make_row("a", group="2"), make_row("b")], ids=["key", "sequence"])
def test_a_notification_exists_once(store, second):
    queue(store, make_row("a"))
    with pytest.raises(sa.exc.IntegrityError):
        queue(store, second)


def test_no_row_is_leased_twice_by_senders_at_once(store):
    queue(store, *(make_row(f"k{number}", group=f"g{number % 7}", sequence=number) for number in range(40)))

    def drain(owner: str) -> list[str]:
        taken = []
        while (row := lease(store, owner=owner)) is not None:
            taken.append(row.key)
            with store.writing("outbox") as connection:
                assert outbox.record_sent(connection, row, answer="ok", now=NOW)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [key for keys in pool.map(drain, ["a", "b", "c", "d"]) for key in keys]
    while (row := lease(store)) is not None:  # a sender may have stopped while another held the first of a group
        taken.append(row.key)
        with store.writing("outbox") as connection:
            outbox.record_sent(connection, row, answer="ok", now=NOW)
    assert sorted(taken) == sorted(f"k{number}" for number in range(40))


def test_a_silent_channel_is_not_tried_before_its_time(store):
    queue(
        store,
        make_row("a", receiver="bot"),
        make_row("b", receiver="bot:ann", group="2"),
        make_row("c", receiver="botx"),
    )
    with store.writing("outbox") as connection:
        outbox.postpone(connection, "bot", until=LATER)
    assert lease(store, channels=["bot", "botx"]).key == "c"
    assert lease(store, channels=["bot"]) is None
    assert lease(store, channels=["bot"], now=LATER, until=LATER + timedelta(minutes=5)).key == "a"
