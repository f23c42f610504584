"""The audit log: append-only, and whatever is done to it by hand is found."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from metrics_pipeline.store import Store, audit
from metrics_pipeline.store.anchor import Head
from metrics_pipeline.store.tables import audit_checkpoints, audit_log

NOW = datetime(2026, 11, 11, 8, tzinfo=UTC)
LI = audit.Caller("li", "cli", "li@shop:1")


@pytest.fixture
def log(store, tmp_path):
    """A log of ten rows, one a day, whose head is kept."""
    kept = Store(store.engine, tmp_path / "audit.head")
    for number in range(10):
        with kept.writing() as connection:
            at = NOW + timedelta(days=number)
            audit.record(connection, LI, "metric.read", f"metric_{number}", now=at, details={"rows": number})
    return kept


def test_a_row_says_who_did_what_to_what_by_which_door_from_where(store):
    with store.writing() as connection:
        audit.record(
            connection,
            LI,
            "grant.revoke",
            "wang",
            slice="region=华北",
            outcome="denied",
            now=NOW,
            details={"why": "left"},
        )
    with store.reading() as connection:
        [row] = audit.entries(connection)
    assert row[:10] == (
        1, NOW, "li", "grant.revoke", "wang", "region=华北", "cli", "li@shop:1", "denied", {"why": "left"},
    )  # fmt: skip


def test_a_written_log_verifies_and_its_head_is_kept_outside(log):
    found = audit.verify(log)
    assert (found.rows, found.broken, found.head.sequence) == (10, None, 10)
    assert json.loads(log.audit_head.read_text()) == found.head._asdict()


def test_what_is_rolled_back_leaves_neither_row_nor_head(log):
    def die() -> None:
        with log.writing() as connection:
            audit.record(connection, LI, "metric.read", "gmv", now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        die()
    assert audit.verify(log).broken is None and audit.verify(log).rows == 10


@pytest.mark.parametrize(
    "statement",
    [
        sa.update(audit_log).values(actor="wang"),
        sa.delete(audit_log).where(audit_log.c.sequence == 4),
        sa.delete(audit_log).where(audit_log.c.sequence == 10),
        sa.delete(audit_checkpoints),
    ],
)
def test_the_database_refuses_to_change_or_remove_rows(log, statement):
    audit.prune(log, LI, NOW + timedelta(days=2), now=NOW + timedelta(days=11))
    with log.writing() as connection, pytest.raises(sa.exc.DBAPIError, match="append-only"):
        connection.execute(statement)


def _edit(connection):
    connection.execute(sa.update(audit_log).where(audit_log.c.sequence == 4).values(actor="wang"))


def _remove(connection):
    connection.execute(sa.delete(audit_log).where(audit_log.c.sequence.in_([4, 5])))


def _cut_off(connection):
    connection.execute(sa.delete(audit_log).where(audit_log.c.sequence >= 8))


def _cut_the_beginning(connection):
    last = connection.execute(sa.select(audit_log.c.hash).where(audit_log.c.sequence == 3)).scalar_one()
    connection.execute(sa.insert(audit_checkpoints).values(sequence=3, hash=last, at=NOW))
    connection.execute(sa.delete(audit_log).where(audit_log.c.sequence <= 3))


def _put_in(connection):
    """Row 4 becomes row 5, and another one stands before it."""
    rows = [row._asdict() for row in connection.execute(sa.select(audit_log).order_by(audit_log.c.sequence))]
    connection.execute(sa.delete(audit_log))
    forged = {**rows[3], "subject": "gmv", "hash": "f" * 64}
    later = [{**row, "sequence": row["sequence"] + 1} for row in rows[3:]]
    connection.execute(sa.insert(audit_log), [*rows[:3], forged, *later])


def _write_anew(connection):
    """Somebody who knows how the hashes are made leaves out row 4 and chains the rest again."""
    rows = [audit.Entry._make(row) for row in connection.execute(sa.select(audit_log).order_by(audit_log.c.sequence))]
    connection.execute(sa.delete(audit_log))
    for row in rows[:3] + rows[4:]:
        event = audit.Event(row.action, row.subject, row.slice, "done", row.details)
        audit.record_all(connection, audit.Caller(row.actor, "cli", row.origin), [event], now=row.at)


@pytest.mark.parametrize(
    ("tamper", "row", "said"),
    [
        (_edit, 4, "was edited"),
        (_remove, 6, "2 rows before it are missing"),
        (_put_in, 4, "was edited"),
        (_cut_off, 10, "the end was cut off"),
        (_cut_the_beginning, 3, "no row of the log says who did it"),
        (_write_anew, 10, "the end was cut off"),
    ],
)
def test_a_log_changed_by_hand_is_found_also_after_more_was_recorded(log, tamper, row, said):
    _by_hand(log, tamper)
    first = audit.verify(log)
    assert first.broken is not None and first.broken.sequence == row and said in first.broken.problem
    for number in range(3):  # the log goes on, past the former head
        with log.writing() as connection:
            audit.record(connection, LI, "metric.read", f"later_{number}", now=NOW + timedelta(days=20))
    again = audit.verify(log)
    assert again.broken is not None and again.broken.sequence == row


def _by_hand(log, tamper):
    """As somebody who owns the database can: the triggers are taken away first."""
    with log.engine.connect() as connection, connection.begin():
        if log.is_sqlite:
            names = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
            for name in names:
                connection.execute(sa.text(f"DROP TRIGGER {name}"))
        else:
            for table in ("audit_log", "audit_checkpoints"):
                connection.execute(sa.text(f"ALTER TABLE {table} DISABLE TRIGGER ALL"))
        tamper(connection)


def test_a_forgery_that_also_changes_the_kept_head_is_found_by_a_noted_one(log):
    noted = audit.verify(log).head
    _by_hand(log, _write_anew)
    log.audit_head.unlink()
    assert audit.verify(log).broken is None
    assert audit.verify(log, noted=noted).broken is not None


def test_retention_leaves_a_checkpoint_from_which_the_rest_verifies(log):
    assert audit.prune(log, LI, NOW + timedelta(days=4), now=NOW + timedelta(days=11)) == 4
    found = audit.verify(log)
    assert (found.rows, found.checkpoint.sequence, found.broken) == (7, 4, None)
    with log.reading() as connection:
        [act] = audit.entries(connection, action="audit.prune")
    assert (act.details["until"], act.details["rows"], act.actor) == (4, 4, "li")
    assert audit.prune(log, LI, NOW + timedelta(days=30), now=NOW + timedelta(days=31)) == 7
    assert audit.verify(log).broken is None
    with pytest.raises(audit.AuditError, match="removed by retention"):
        audit.verify(log, noted=Head(2, "0" * 64))


def test_a_broken_log_is_not_pruned(log):
    _by_hand(log, _edit)
    with pytest.raises(audit.AuditError, match="broken at row 4"):
        audit.prune(log, LI, NOW + timedelta(days=9), now=NOW + timedelta(days=11))


def test_a_restored_database_is_accepted_with_a_reason_that_stays(log):
    _by_hand(log, _cut_off)
    audit.accept(log, LI, "restored", now=NOW + timedelta(days=12))
    assert audit.verify(log).broken is None
    with log.reading() as connection:
        [act] = audit.entries(connection, action="audit.accept")
    assert act.details["kept"]["sequence"] == 10 and "cut off" in act.details["broken"]["problem"]


def test_writers_at_once_make_one_chain(log):
    def write(name: str) -> None:
        for _ in range(5):
            with log.writing(name) as connection:
                audit.record(connection, audit.Caller(name, "api", "x"), "metric.read", "gmv", now=NOW)

    threads = [threading.Thread(target=write, args=(f"writer_{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = audit.verify(log)
    assert (found.rows, found.broken) == (30, None)


def test_rows_are_found_by_actor_action_subject_and_time_page_by_page(log):
    with log.writing() as connection:
        audit.record(connection, audit.Caller("wang", "api", "x"), "grant.add", "li", now=NOW + timedelta(days=3))
        audit.record(connection, LI, "grant.remove", "li", now=NOW + timedelta(days=3))
    with log.reading() as connection:
        assert [one.sequence for one in audit.entries(connection, actor="wang")] == [11]
        assert [one.sequence for one in audit.entries(connection, action="grant.")] == [12, 11]
        assert [one.sequence for one in audit.entries(connection, subject="metric_3")] == [4]
        since, until = NOW + timedelta(days=2), NOW + timedelta(days=4)
        assert [one.sequence for one in audit.entries(connection, since=since, until=until)] == [12, 11, 4, 3]
        page = audit.entries(connection, limit=5)
        assert [one.sequence for one in page + audit.entries(connection, limit=5, before=page[-1].sequence)] == [
            *range(12, 2, -1)
        ]
