"""From answers to a proposal, to a reviewed change of the rule file."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest

from metrics_pipeline.detection.own_calendar import load_own_calendar
from metrics_pipeline.followup.answers import read_answers
from metrics_pipeline.followup.occasions import Occasion, expected_occasions
from metrics_pipeline.followup.proposals import (
    ProposalError,
    _calendar_row,
    accept,
    accept_entry,
    find,
    make,
    reject,
    rule_of_now,
)
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rule_tests.night import fresh_store
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store import audit
from metrics_pipeline.store import rule_proposals as rows
from tests.followup.history import OPEN, Shop, actor, alerts, answer, day, ground, live, rules_folder

DAYS = 130
SMALL = {45: 141, 52: 144, 60: 139, 71: 146, 83: 142, 95: 148}
LARGE = {56: 88, 77: 95, 101: 70}
WORDS = {**dict.fromkeys(SMALL, "false"), **dict.fromkeys(LARGE, "true")}


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two hundred orders a day, six small dips that mean nothing and three real ones."""
    values = [200.0 + n % 7 for n in range(DAYS)]
    for at, value in {**SMALL, **LARGE}.items():
        values[at] = float(value)
    return Shop().add("orders_placed", values).publish(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def lived(published, catalogue, tmp_path_factory):
    """The bytes of a store in which the history was judged and answered."""
    folder = tmp_path_factory.mktemp("lived")
    here = ground(rules_folder(folder / "rules", 'yellow_if: "< 150"', 'red_if: "< 60"'), catalogue, published)
    with fresh_store(folder, "lived") as store:
        live(store, here, 40, DAYS - 1)
        answer(store, alerts(store), WORDS)
        return copy_of(store, folder / "lived.db"), copy_of(
            store, folder / "lived.db", lambda: make(store, here, OPEN, actor("li"))
        )


def copy_of(store, path: Path, then=lambda: None) -> bytes:
    """What a store holds, after something was done."""
    then()
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


@pytest.fixture
def here(published, catalogue, tmp_path):
    return ground(rules_folder(tmp_path / "rules", 'yellow_if: "< 150"', 'red_if: "< 60"'), catalogue, published)


@pytest.fixture
def store(lived, tmp_path):
    """The history, and nothing made of it."""
    with store_with(lived[0], tmp_path) as store:
        yield store


@pytest.fixture
def proposed(lived, tmp_path):
    """The history, and proposal 1 that the answers suggest."""
    with store_with(lived[1], tmp_path) as store:
        yield store


@contextmanager
def store_with(content: bytes, folder: Path):
    with fresh_store(folder, "store") as store:
        store.close()
        (folder / "store.db").write_bytes(content)
        yield store


def no_tests(_folder, _file):
    return ()


def proposal(store, number):
    with store.reading() as connection:
        return find(connection, number)


def test_the_bound_moves_between_what_was_needed_and_what_was_not(proposed):
    row = proposal(proposed, 1)
    # between the strongest unneeded (139) and the weakest true one (95): 117; nine answers go 9/13 of the way from 150
    assert (row.kind, row.changes) == ("threshold", {"yellow_if": "< 130"})
    before, after = row.evidence["impact"]["before"], row.evidence["impact"]["after"]
    assert [before[name] for name in ("episodes", "true", "false")] == [9, 3, 6]
    assert [after[name] for name in ("episodes", "true", "false")] == [3, 3, 0]
    assert {one["outcome"] for one in row.evidence["impact"]["dropped"]} == {"false"}
    assert sum(week[1] for week in row.evidence["impact"]["weeks"]) == 9
    assert "6 of 6" in row.why and "6" in row.why_zh


def test_making_again_makes_nothing_new(proposed, here):
    again = make(proposed, here, OPEN, actor())
    assert (again.looked_at, again.fresh, again.superseded) == (1, (), ())


def test_accepting_writes_the_rule_and_keeps_its_comments(proposed, here):
    store, number = proposed, 1
    edit = accept(store, here, actor("wang"), number, why="six quiet weeks", owners=(), tests=no_tests)
    text = (here.rules_dir / "orders.yml").read_text("utf-8")
    assert 'yellow_if: "< 130"' in text and "# they do" in text and "# Rules of a test." in text
    row = proposal(store, number)
    assert (row.state, row.decided_by, row.note, row.after) == (
        "accepted",
        "wang",
        "six quiet weeks",
        edit.after.rule_hash,
    )
    with store.reading() as connection:
        entries = audit.entries(connection, action="rule.accept")
    assert [(one.actor, one.subject, one.details["why"]) for one in entries] == [
        ("wang", "few_orders", "six quiet weeks")
    ]
    again = accept(store, here, actor("wang"), number, why="again", owners=(), tests=no_tests)
    assert again.is_written and proposal(store, number).note == "six quiet weeks"


def test_a_failing_test_of_the_rule_stops_the_acceptance(proposed, here):
    store, number = proposed, 1
    before = (here.rules_dir / "orders.yml").read_text("utf-8")

    def tests(folder, file):
        assert 'yellow_if: "< 130"' in file.read_text("utf-8") and folder != here.rules_dir
        return ["orders.test.yml:3: small dips are told"]

    with pytest.raises(ProposalError, match=r"no longer hold.*\n.*small dips are told"):
        accept(store, here, actor("wang"), number, why="w", owners=(), tests=tests)
    assert (here.rules_dir / "orders.yml").read_text("utf-8") == before
    assert proposal(store, number).state == "proposed"


def test_only_who_answers_for_the_rule_accepts_and_never_the_proposer_alone(proposed, here):
    store, number = proposed, 1
    with pytest.raises(ProposalError, match="chen does not own it: sales is li, wang"):
        accept(store, here, actor("chen"), number, why="w", owners=("li", "wang"), tests=no_tests)
    with pytest.raises(ProposalError, match="another owner must approve: wang"):
        accept(store, here, actor("li"), number, why="w", owners=("li", "wang"), tests=no_tests)
    accept(store, here, actor("wang"), number, why="w", owners=("li", "wang"), tests=no_tests)


def test_a_rule_that_changed_meanwhile_supersedes_its_proposals(proposed, here):
    store, number = proposed, 1
    rules_folder(here.rules_dir, 'yellow_if: "< 149"')
    with pytest.raises(ProposalError, match="has changed since"):
        accept(store, here, actor("wang"), number, why="w", owners=(), tests=no_tests)
    made = make(store, here, OPEN, actor())
    assert made.superseded == (number,) and len(made.fresh) == 1
    rules_folder(here.rules_dir, 'yellow_if: "< 150"', 'red_if: "< 60"')
    assert make(store, here, OPEN, actor()).fresh == (number,)


def test_a_rejected_proposal_is_not_made_again(proposed, here):
    store, number = proposed, 1
    with pytest.raises(ProposalError, match="say why"):
        reject(store, actor(), number, why=" ")
    assert reject(store, actor(), number, why="we want to see small dips").state == "rejected"
    with pytest.raises(ProposalError, match="is rejected by li already"):
        accept(store, here, actor("wang"), number, why="w", owners=(), tests=no_tests)
    answer(store, [one for one in alerts(store) if one.day == 45], {45: "expected"})
    assert make(store, here, OPEN, actor()).fresh == ()


def test_a_killed_acceptance_is_finished_by_the_next(proposed, here, monkeypatch):
    """The file was written and the row was not: what a crash between the two leaves."""
    store, number = proposed, 1
    from metrics_pipeline.followup import proposals

    real = proposals.write

    def write_and_die(edit):
        real(edit)
        raise KeyboardInterrupt

    monkeypatch.setattr(proposals, "write", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        accept(store, here, actor("wang"), number, why="w", owners=(), tests=no_tests)
    assert proposal(store, number).state == "proposed"
    monkeypatch.undo()
    accept(store, here, actor("wang"), number, why="w", owners=(), tests=no_tests)
    assert proposal(store, number).state == "accepted"
    assert str(load_rules(here.rules_dir, here.catalogue)["few_orders"].yellow_if) == "< 130"


def test_few_answers_suggest_nothing(store, here):
    assert make(store, here, OPEN, actor(), least=10).fresh == ()
    with store.reading() as connection:
        assert rows.read(connection) == []


@pytest.fixture(scope="module")
def festive(published, catalogue, tmp_path_factory):
    """A shop that sells little on three days in a row of its own members' days; people expected that."""
    values = [200.0 + n % 7 for n in range(DAYS)]
    for at in (60, 61, 62):
        values[at] = 100.0
    for at in (80, 100):
        values[at] = 90.0
    shop = Shop().add("orders_placed", values)
    for member in ("华北", "华东"):
        shop.add("orders_placed", [value / 4 for value in values], dimension="region", member=member)
    return shop.publish(tmp_path_factory.mktemp("festive"))


def test_days_that_people_expected_become_an_entry_of_the_calendar(festive, catalogue, tmp_path):
    rules = rules_folder(tmp_path / "rules", "by: [region]", "expr: band(seasonal)", 'yellow_if: "< -5"')
    here = ground(rules, catalogue, festive)
    with fresh_store(tmp_path, "store") as store:
        live(store, here, 57, DAYS - 1)
        told = alerts(store)
        assert {one.day for one in told} == {60, 80, 100}
        answer(store, told, {60: "expected", 80: "true", 100: "true"})
        assert make(store, here, OPEN, actor()).fresh == ()  # two alerts of one rule are no event of the shop
        assert [one.first for one in expected_occasions(read(store), ())] == []
        both = read(store)
        both = both.assign(rule=["a" if n % 2 else "b" for n in range(len(both))])
        [found] = expected_occasions(both, ())
        assert (found.first, found.rules, found.alerts) == (day(60), ("a", "b"), 2)


def test_an_accepted_entry_is_in_the_calendar_once(proposed, here):
    """Three expected alerts of one day, as people would have answered them."""
    words = dict.fromkeys(SMALL, "false")
    with proposed.reading() as connection:
        answers = read_answers(connection, OPEN)
    occasion = Occasion(day(45), day(46), ("few_orders",), 3)
    row = {
        **_calendar_row(here, {"few_orders": rule_of_now(here, "few_orders")}, occasion, answers, actor(), 90),
        "key": "x",
    }
    assert row["evidence"]["impact"]["before"]["episodes"] == 9 and words
    with proposed.writing("proposals") as connection:
        number = rows.add(connection, row)
    path = accept_entry(proposed, here.rules_dir, actor("wang"), number, why="members' days")
    text = path.read_text("utf-8")
    assert "event: expected_20250220" in text and "falls_on: '2025-02-20'" in text.replace('"', "'")
    assert accept_entry(proposed, here.rules_dir, actor("wang"), number, why="again") == path
    assert path.read_text("utf-8") == text
    [one] = load_own_calendar(here.rules_dir).occasions
    assert [d.date for d in one.days([2025])] == [day(45), day(46)]
    assert proposal(proposed, number).state == "accepted"


def read(store):
    with store.reading() as connection:
        return read_answers(connection, OPEN)
