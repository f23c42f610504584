"""Versions of definitions: what is recorded, once, and what changed between two of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from projects import add_former, edit, small_project

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.recording import Reason, record
from metrics_pipeline.library.versions import FIRST_SEEN, UNPROPOSED, as_lines, read_targets, states, what_changed
from metrics_pipeline.store.database import Store, open_url
from metrics_pipeline.store.metric_versions import version_names, versions_of

NOW = datetime(2025, 12, 1, 2, tzinfo=UTC)
FORMER = """
        former:
          - {until: "2025-11-01", type: ratio, type_params: {numerator: refund_amount, denominator: paid_amount}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def recorded(store: Store, project: Path, *, days: int = 0, reason: Reason | None = None):
    found = states(Catalogue.read(project), read_targets(project))
    with store.writing() as connection:
        return record(connection, found, now=NOW + timedelta(days=days), reason=reason)


def history(store: Store, metric: str):
    with store.reading() as connection:
        return versions_of(connection, metric)


def test_every_metric_is_first_seen_and_then_known(store: Store, project: Path):
    first = recorded(store, project)
    assert {row.metric for row in first} == set(Catalogue.read(project).metrics)
    assert {(row.number, row.why) for row in first} == {(1, FIRST_SEEN)}
    assert recorded(store, project, days=1) == []


def test_a_change_in_the_files_is_a_version_of_the_metric_and_of_what_is_made_of_it(store: Store, project: Path):
    recorded(store, project)
    edit(project, "refund_rate", "denominator: orders_paid", "denominator: orders_placed")
    found = {row.metric: row for row in recorded(store, project, days=1)}
    assert set(found) == {"refund_rate", "order_health"}
    rate, health = found["refund_rate"], found["order_health"]
    assert (rate.number, rate.who, rate.why) == (2, "git", UNPROPOSED)
    assert rate.diff["formula"] == ["refunded_orders / orders_paid", "refunded_orders / orders_placed"]
    assert what_changed(rate.diff) == ("formula", "inputs")
    assert what_changed(health.diff) == ("inputs",)
    assert health.version != history(store, "order_health")[0].version


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("owner: after-sales", "owner: finance", ("owner",)), ("name_zh: 退款率", "name_zh: 退单率", ("text",))],
)
def test_a_change_of_owner_or_text_is_a_version_of_the_same_values(store: Store, project: Path, old, new, what):
    recorded(store, project)
    edit(project, "refund_rate", old, new)
    (row,) = recorded(store, project, days=1)
    assert what_changed(row.diff) == what
    first, second = history(store, "refund_rate")
    assert first.version == second.version
    with store.reading() as connection:
        assert version_names(connection, [row.version]) == {row.version: f"v1 ({row.version})"}


def test_a_change_of_target_is_a_version(store: Store, project: Path):
    recorded(store, project)
    path = project / "seeds/metric_targets.csv"
    path.write_text(path.read_text("utf-8").replace("refund_rate,all,all,0.05", "refund_rate,all,all,0.04"), "utf-8")
    (row,) = recorded(store, project, days=1)
    assert (row.metric, what_changed(row.diff)) == ("refund_rate", ("targets",))


def test_going_back_is_a_version_too(store: Store, project: Path):
    recorded(store, project)
    edit(project, "refund_rate", "denominator: orders_paid", "denominator: orders_placed")
    recorded(store, project, days=1)
    edit(project, "refund_rate", "denominator: orders_placed", "denominator: orders_paid")
    recorded(store, project, days=2)
    first, second, third = history(store, "refund_rate")
    assert first.version == third.version != second.version


def test_a_change_with_an_effective_date_keeps_the_number_of_the_former_version(store: Store, project: Path):
    edit(project, "refund_rate", "refunded_orders", "refund_amount")
    edit(project, "refund_rate", "orders_paid", "paid_amount")
    recorded(store, project)
    edit(project, "refund_rate", "refund_amount", "refunded_orders")
    edit(project, "refund_rate", "paid_amount", "orders_paid")
    add_former(project, "refund_rate", FORMER)
    reason = Reason("li", "count orders", proposal=7, approved_by="wang")
    found = {row.metric: row for row in recorded(store, project, days=1, reason=reason)}
    assert set(found) == {"refund_rate", "order_health"}
    row = found["refund_rate"]
    assert (row.number, row.who, row.proposal, row.approved_by) == (2, "li", 7, "wang")
    assert str(row.effective_from) == "2025-11-01"
    assert recorded(store, project, days=2) == []


def test_spans_that_were_never_recorded_are_recorded_in_their_order(store: Store, project: Path):
    add_former(project, "refund_rate", FORMER)
    recorded(store, project)
    first, second = history(store, "refund_rate")
    assert (first.definition["formula"], second.definition["formula"]) == (
        "refund_amount / paid_amount", "refunded_orders / orders_paid",
    )  # fmt: skip
    assert first.effective_from is None
    assert recorded(store, project) == []


def test_a_definition_reads_as_lines(store: Store, project: Path):
    recorded(store, project)
    lines = as_lines(history(store, "refund_rate")[0].definition)
    assert "formula: refunded_orders / orders_paid" in lines
    assert "owner: after-sales" in lines
    assert all(line.count("\n") == 0 for line in lines)
