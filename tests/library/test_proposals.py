"""From a proposal to a changed definition, and the past that stays or is restated."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from projects import edit, metric_file, small_project

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.changing import ChangeError, change
from metrics_pipeline.library.compile import stale_files, write_files
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.library.proposals import (
    Actor,
    ProposalError,
    apply,
    approve,
    propose,
    reject,
    restate,
    reviewed,
    standing,
)
from metrics_pipeline.store.audit import Caller, entries
from metrics_pipeline.store.database import Store, open_url
from metrics_pipeline.store.metric_versions import proposal, proposals, versions_of

SHOWN = date(2025, 12, 9)
NEW = {"formula": "refunded_orders / orders_placed"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = small_project(tmp_path)
    write_files(Catalogue.read(project))
    return project


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def who(name: str, hour: int = 1) -> Actor:
    return Actor(Caller(name, "cli"), datetime(2025, 12, 9, hour, tzinfo=UTC))


def proposed(store: Store, project: Path, given=NEW, effective: date = SHOWN, *, by: str = "li") -> int:
    number, _ = propose(
        store, who(by), project, "refund_rate", given, effective=effective, why="cash on delivery", shown_until=SHOWN
    )
    return number


def history(store: Store, metric: str):
    with store.reading() as connection:
        return versions_of(connection, metric)


def test_an_approved_proposal_changes_the_files_and_keeps_the_past(store: Store, project: Path):
    before = Catalogue.read(project).metrics["refund_rate"]
    number = proposed(store, project)
    assert Catalogue.read(project).metrics["refund_rate"] == before
    assert approve(store, who("wang"), number, owner="after-sales", owners=["wang"]) == ""
    done = apply(store, who("li", 2), project, number, effective=None, shown_until=SHOWN)
    catalogue = Catalogue.read(project)
    metric = catalogue.metrics["refund_rate"]
    assert (metric.formula, metric.version_on(date(2025, 12, 8))) == ("refunded_orders / orders_placed", before.version)
    assert metric.defined_on(date(2025, 12, 8)).formula == before.formula
    assert stale_files(catalogue) == []
    assert {path.name for path in done.files} == {
        "refund_rate.yml",
        "_models.yml",
        "refund_rate.sql",
        "order_health.sql",
    }
    assert done.rebuild_from is None
    first, second = history(store, "refund_rate")
    assert (second.who, second.why, second.proposal, second.approved_by) == ("li", "cash on delivery", number, "wang")
    assert (first.version, second.version) == (before.version, metric.version)
    assert [row.number for row in history(store, "order_health")] == [1, 2]
    with store.reading() as connection:
        row = proposal(connection, number)
        acts = [(one.actor, one.action) for one in reversed(entries(connection, subject="refund_rate"))]
    assert row is not None
    assert (row.state, row.applied_by) == ("applied", "li")
    assert acts == [("li", "metric.propose"), ("wang", "metric.approve"), ("li", "metric.apply")]


def test_nothing_is_applied_that_nobody_approved_and_nothing_twice(store: Store, project: Path):
    number = proposed(store, project)
    with pytest.raises(ProposalError, match="not approved yet"):
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    with pytest.raises(ProposalError, match="is applied"):
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    with pytest.raises(ProposalError, match="applied already, by wang"):
        reject(store, who("wang"), number, owner="after-sales", owners=["wang"], note="")


def test_a_proposal_may_be_rejected_by_its_owner_and_taken_back_by_its_author(store: Store, project: Path):
    first, second = proposed(store, project), proposed(store, project)
    reject(store, who("wang"), first, owner="after-sales", owners=["wang"], note="no")
    assert reject(store, who("li"), second, owner="after-sales", owners=["wang"], note="") == "li took it back"
    with store.reading() as connection:
        assert [row.state for row in proposals(connection)] == ["rejected", "rejected"]
        assert proposals(connection, is_open=True) == []


@pytest.mark.parametrize(
    ("owners", "proposer", "actor", "allowed", "said"),
    [
        (["wang"], "li", "wang", True, ""),
        (["wang"], "li", "li", False, "does not own it"),
        (["li", "wang"], "li", "li", False, "another owner must approve: wang"),
        (["li"], "li", "li", True, "being the only one"),
        ([], "li", "zhao", True, "nobody is known behind"),
    ],
)
def test_who_may_approve(owners, proposer, actor, allowed, said):
    found = standing("after-sales", owners, proposer=proposer, actor=actor)
    assert found.is_allowed is allowed
    assert said in found.remark


def test_a_denied_approval_is_on_record(store: Store, project: Path):
    number = proposed(store, project)
    with pytest.raises(ProposalError, match="does not own it"):
        approve(store, who("li"), number, owner="after-sales", owners=["wang"])
    with store.reading() as connection:
        (denied,) = entries(connection, action="metric.approve")
        row = proposal(connection, number)
    assert (denied.actor, denied.outcome) == ("li", "denied")
    assert row is not None
    assert row.state == "proposed"


def test_a_proposal_never_reaches_into_days_that_were_shown(store: Store, project: Path):
    with pytest.raises(ProposalError, match="metrics library restate"):
        proposed(store, project, effective=date(2025, 12, 8))
    number = proposed(store, project)
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    later = date(2025, 12, 12)
    with pytest.raises(ProposalError, match="apply --effective"):
        apply(store, who("li"), project, number, effective=None, shown_until=later)
    apply(store, who("li"), project, number, effective=later, shown_until=later)
    assert Catalogue.read(project).metrics["refund_rate"].former[0][0] == later


def test_files_that_moved_on_since_are_not_overwritten(store: Store, project: Path):
    number = proposed(store, project)
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    edit(project, "refund_rate", "freshness_hours: 30", "freshness_hours: 31")
    text = metric_file(project, "refund_rate").read_text("utf-8")
    with pytest.raises(ProposalError, match="has changed since"):
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    assert metric_file(project, "refund_rate").read_text("utf-8") == text
    assert history(store, "refund_rate") == []


def test_files_that_cannot_be_written_leave_everything_as_it_was(store: Store, project: Path, monkeypatch):
    number = proposed(store, project)
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    before = {path: path.read_text("utf-8") for path in project.rglob("*.*") if path.is_file()}
    target = project / "models/operational/.refund_rate.yml.part"
    target.mkdir()
    with pytest.raises(ProposalError, match="nothing was changed"):
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    target.rmdir()
    after = {path: path.read_text("utf-8") for path in project.rglob("*.*") if path.is_file()}
    assert {path: text for path, text in after.items() if not path.name.endswith(".part")} == before
    assert history(store, "refund_rate") == []


def test_a_new_owner_or_target_is_no_new_version_of_values(store: Store, project: Path):
    for given in ({"owner": "finance"}, {"target": "0.04"}):
        number = proposed(store, project, given, by="li")
        approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    rows = history(store, "refund_rate")
    assert len({row.version for row in rows}) == 1
    assert [sorted(row.diff) for row in rows] == [[], ["owner"], ["targets"]]
    seed = (project / "seeds/metric_targets.csv").read_text("utf-8").splitlines()
    assert "refund_rate,all,all,0.05,2025-01-01,2025-12-08" in seed
    assert "refund_rate,all,all,0.04,2025-12-09," in seed


def test_restating_moves_the_day_and_is_recorded(store: Store, project: Path):
    number = proposed(store, project)
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    keys = {"owner": "after-sales", "owners": ["wang"], "shown_until": date(2025, 12, 15)}
    with pytest.raises(ProposalError, match="does not own it"):
        restate(store, who("li"), project, "refund_rate", first=date(2025, 11, 1), why="one unit", **keys)
    done = restate(store, who("wang"), project, "refund_rate", first=date(2025, 11, 1), why="one unit", **keys)
    metric = Catalogue.read(project).metrics["refund_rate"]
    assert [until for until, _ in metric.former] == [date(2025, 11, 1)]
    assert done.rebuild_from == date(2025, 11, 1)
    newest = history(store, "refund_rate")[-1]
    assert (newest.number, newest.version, newest.why) == (3, metric.version, "restated from 2025-11-01: one unit")
    with pytest.raises(ChangeError, match="have the newest definition"):
        restate(store, who("wang"), project, "refund_rate", first=date(2025, 11, 5), why="again", **keys)
    with pytest.raises(ChangeError, match="nothing to restate"):
        restate(store, who("wang"), project, "buyers", first=date(2025, 11, 5), why="again", **keys)


def test_a_second_change_keeps_both_former_definitions(store: Store, project: Path):
    for given, day in ((NEW, date(2025, 12, 9)), ({"formula": "refunded_orders / buyers"}, date(2025, 12, 20))):
        number = proposed(store, project, given, day)
        approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
        apply(store, who("li"), project, number, effective=None, shown_until=SHOWN)
    metric = Catalogue.read(project).metrics["refund_rate"]
    assert [metric.defined_on(date(2025, 12, day)).formula.split(" / ")[1] for day in (8, 9, 19, 20)] == [
        "orders_paid", "orders_placed", "orders_placed", "buyers",
    ]  # fmt: skip
    assert len({span.version for span in metric.spans}) == 3
    with pytest.raises(ChangeError, match="changes on 2025-12-20 already"):
        proposed(store, project, NEW, date(2025, 12, 15))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"colour": "red"}, ChangeError, "cannot be set; there are: formula"),
        ({"formula": "refunded_orders / (select 1)"}, ChangeError, "formula"),
        ({"formula": "refunded_orders / nobody"}, DefinitionError, "unknown metric .nobody"),
        ({"measure": "buyers"}, ChangeError, "is ratio: it has no measure"),
        ({"target": "much"}, ChangeError, "is not a number"),
        ({"freshness_hours": "-1"}, ChangeError, "not a whole number"),
        ({"sensitivity": "secret"}, DefinitionError, "sensitivity"),
        ({"formula": "order_health / orders_paid"}, DefinitionError, "defined by itself"),
        ({"formula": "refunded_orders / orders_paid"}, ChangeError, "nothing would change"),
    ],
)
def test_a_change_that_cannot_be_is_told_so(project: Path, given, error, said):
    with pytest.raises(error, match=said):
        change(project, "refund_rate", given, SHOWN)


def test_a_change_leaves_the_rest_of_the_file_alone(project: Path):
    found = change(project, "refund_rate", NEW, SHOWN)
    before = metric_file(project, "refund_rate").read_text("utf-8").splitlines()
    after = found.text.splitlines()
    assert [line.strip() for line in before if line not in after] == ["denominator: orders_paid"]
    assert [line.strip() for line in after if line not in before] == [
        "denominator: orders_placed", "former:", "- until: '2025-12-09'", "type: ratio", "type_params:",
        "numerator: refunded_orders", "denominator: orders_paid",
    ]  # fmt: skip


def test_a_review_shows_the_change_of_today(store: Store, project: Path):
    number = proposed(store, project)
    with store.reading() as connection:
        row = proposal(connection, number)
    assert row is not None
    found = reviewed(project, row)
    assert found.changes_values
    assert row.version == found.after.metrics["refund_rate"].version
    assert row.diff["formula"] == ["refunded_orders / orders_paid", "refunded_orders / orders_placed"]
