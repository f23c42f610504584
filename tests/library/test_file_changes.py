"""What was changed in files becomes a proposal: who, why and approval are on record with the version that the night begins."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from projects import edit, small_project

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import write_files
from metrics_pipeline.library.file_changes import propose_in_files, reviewed_in_files
from metrics_pipeline.library.proposals import Actor, ProposalError, apply, approve, find, propose
from metrics_pipeline.library.recording import record_files
from metrics_pipeline.library.versions import UNPROPOSED, read_targets
from metrics_pipeline.store.audit import Caller, entries
from metrics_pipeline.store.database import Store, open_url
from metrics_pipeline.store.metric_versions import VersionRow, versions_of

DAY = date(2025, 12, 10)
NIGHT = datetime(2025, 12, 10, 1, tzinfo=UTC)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = small_project(tmp_path)
    write_files(Catalogue.read(project))
    return project


@pytest.fixture
def store(tmp_path: Path, project: Path) -> Iterator[Store]:
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    night(store, project)
    yield store
    store.close()


def night(store: Store, project: Path) -> None:
    with store.writing() as connection:
        record_files(connection, Catalogue.read(project), read_targets(project), now=NIGHT)


def newest(store: Store, metric: str) -> VersionRow:
    with store.reading() as connection:
        return versions_of(connection, metric)[-1]


def state(store: Store, number: int) -> str:
    with store.reading() as connection:
        return find(connection, number).state


def change_fact(project: Path, text: str = "where refunds.amount > 0 and ") -> None:
    path = project / "models/facts/fct_refunds.sql"
    path.write_text(path.read_text("utf-8").replace("\nwhere {{ in_batch", f"\n{text}{{{{ in_batch"), "utf-8")


def who(name: str) -> Actor:
    return Actor(Caller(name, "cli"), NIGHT)


def proposed(store: Store, project: Path, metric: str = "refunded_orders") -> int:
    number, _ = propose_in_files(store, who("li"), project, metric, why="cancelled ones have no amount", expected=DAY)
    return number


def approved(store: Store, number: int) -> None:
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])


def test_a_changed_fact_begins_a_version_with_who_why_and_approval(store: Store, project: Path) -> None:
    change_fact(project)
    number, found = propose_in_files(
        store, who("li"), project, "refunded_orders", why="cancelled ones have no amount", expected=DAY
    )
    assert found.affected == ["refund_rate", "order_health"]
    assert set(found.diff) == {"made_of"}
    approved(store, number)
    night(store, project)
    for metric in ("refunded_orders", "refund_rate", "order_health"):
        row = newest(store, metric)
        assert (row.number, row.who, row.why, row.proposal, row.approved_by) == (
            2, "li", "cancelled ones have no amount", number, "wang",
        )  # fmt: skip
        assert row.effective_from is None, "no day is named: the days that are rebuilt get it"
    assert (newest(store, "refund_amount").why, newest(store, "refund_amount").approved_by) == (UNPROPOSED, None)
    assert state(store, number) == "applied"
    with store.reading() as connection:
        acts = [one.action for one in reversed(entries(connection, subject="refunded_orders"))]
    assert acts == ["metric.propose", "metric.approve"]
    night(store, project)
    assert newest(store, "refund_rate").number == 2


def test_what_nobody_approved_before_the_night_is_recorded_as_not_proposed(store: Store, project: Path) -> None:
    change_fact(project)
    number = proposed(store, project)
    night(store, project)
    assert (newest(store, "refund_rate").why, state(store, number)) == (UNPROPOSED, "proposed")


def test_what_was_approved_is_what_the_night_finds_or_not_it(store: Store, project: Path) -> None:
    change_fact(project)
    number = proposed(store, project)
    with store.reading() as connection:
        assert reviewed_in_files(connection, project, find(connection, number)).metric == "refunded_orders"
    approved(store, number)
    path = project / "models/facts/fct_refunds.sql"
    path.write_text(path.read_text("utf-8").replace("amount > 0", "amount > 7"), "utf-8")
    with store.reading() as connection:
        row = find(connection, number)
        with pytest.raises(ProposalError, match="the files have changed since proposal 1"):
            reviewed_in_files(connection, project, row)
    night(store, project)
    assert newest(store, "refunded_orders").why == UNPROPOSED


def test_there_is_nothing_to_apply_and_another_proposal_takes_it_along(store: Store, project: Path) -> None:
    change_fact(project)
    number = proposed(store, project)
    approved(store, number)
    with pytest.raises(ProposalError, match="in the files already; the next night begins its version"):
        apply(store, who("li"), project, number, effective=None, shown_until=DAY)
    write_files(Catalogue.read(project))
    other, _ = propose(
        store, who("li"), project, "order_health", {"owner": "x"}, effective=DAY, why="y", shown_until=DAY
    )
    approved(store, other)
    apply(store, who("li"), project, other, effective=None, shown_until=DAY)
    assert (newest(store, "refunded_orders").proposal, newest(store, "order_health").proposal) == (number, other)


def test_what_is_not_changed_or_follows_from_something_else_is_no_proposal(store: Store, project: Path) -> None:
    with pytest.raises(ProposalError, match="as it was recorded last"):
        proposed(store, project)
    change_fact(project)
    with pytest.raises(ProposalError, match="refund_rate changes with refunded_orders: propose that"):
        proposed(store, project, "refund_rate")
    with pytest.raises(ProposalError, match="say why"):
        propose_in_files(store, who("li"), project, "refunded_orders", why=" ", expected=DAY)


def test_a_formula_changed_in_files_is_one_as_well(store: Store, project: Path) -> None:
    edit(project, "refund_rate", "denominator: orders_paid", "denominator: orders_placed")
    number = proposed(store, project, "refund_rate")
    with store.reading() as connection:
        row = find(connection, number)
    assert json.dumps(row.diff["formula"]) == '["refunded_orders / orders_paid", "refunded_orders / orders_placed"]'
