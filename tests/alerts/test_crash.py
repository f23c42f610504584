"""Properties of alerting.md §9: a crash at every step, evaluations twice and in any order lead to the same end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts import apply_verdicts, retire_rules
from metrics_pipeline.alerts.state import Policy
from metrics_pipeline.store import bulk
from tests.alerts.builders import NOW, make_card, make_verdict
from tests.alerts.crash import crash_at, dump, wipe
from tests.store.databases import postgres_store, sqlite_store

RECEIVERS = ("file", "smtp:a@b")
TIERS = ["ok", "yellow", "red", "no_data", "unknown"]
STATES = {"alert_instances", "episodes", "transitions", "work_orders", "work_order_episodes", "processed_evaluations"}


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def scratch(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch")
    with sqlite_store(folder) if request.param == "sqlite" else postgres_store() as store:
        yield store


def tick(store, batch, night, *, policy=None, **options):
    cards = {"refund_rate_surge": make_card(policy=policy or Policy())}
    return apply_verdicts(store, batch, cards, receivers=RECEIVERS, now=NOW + timedelta(days=night), **options)


@st.composite
def nights(draw, *, longest=5, slices=2):
    """Some nights; each judges its own day and perhaps the day before again, on newer data."""
    found = []
    for night in range(draw(st.integers(0, longest))):
        batch = []
        for day in range(night - draw(st.integers(0, 1)), night + 1):
            for slot in range(slices):
                if day >= 0:
                    tier = draw(st.sampled_from(TIERS))
                    batch.append(
                        make_verdict(
                            tier,
                            day,
                            member=f"m{slot}",
                            data_version=f"v{night}",
                            holds=draw(st.sampled_from([None, "none", "red"])),
                            evaluated_at=datetime(2025, 11, 12, 2, tzinfo=UTC) + timedelta(days=night),
                            run_id=f"run-{night}",
                        )
                    )
        found.append(batch)
    return found


POLICIES = st.builds(Policy, hold=st.integers(1, 2), keep_firing_for=st.integers(0, 1))
relaxed = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@relaxed
@given(plan=nights(), crashes=st.lists(st.integers(1, 24), max_size=5), policy=POLICIES)
def test_a_crash_between_any_two_steps_changes_nothing_in_the_end(scratch, plan, crashes, policy):
    def run(*, disturbed: bool) -> dict[str, list[str]]:
        wipe(scratch)
        left = list(crashes) if disturbed else []
        for night, batch in enumerate(plan):
            if left:
                crash_at(scratch, left.pop(), lambda: tick(scratch, batch, night, policy=policy))  # noqa: B023
            tick(scratch, batch, night, policy=policy)
        return dump(scratch)

    assert run(disturbed=True) == run(disturbed=False)


STORY = [
    [make_verdict("yellow", 0, member="a"), make_verdict("ok", 0, member="b"), make_verdict("red", 0, member="c")],
    [make_verdict("red", 1, member="a"), make_verdict("red", 1, member="b"), make_verdict("no_data", 1, member="c")],
    [make_verdict("red", 0, member="b", v=3000), make_verdict("ok", 1, member="b", v=3000), make_verdict("red", 2, member="a")],
    [make_verdict("ok", 3, member=name) for name in "abc"],
]  # fmt: skip
"""Begins, escalates, vanishes, is corrected, breaches in the past, and ends."""


@pytest.mark.parametrize("copies", [False, True], ids=["rows", "in bulk"])
def test_a_crash_at_every_single_step_of_a_story_is_mended_by_the_next_run(scratch, monkeypatch, copies):
    if copies:
        monkeypatch.setattr(bulk, "FEW", 0)

    wipe(scratch)
    for night, batch in enumerate(STORY):
        tick(scratch, batch, night)
    undisturbed = dump(scratch)
    wipe(scratch)
    steps = 0
    for night, batch in enumerate(STORY):
        before, step = dump(scratch), 1
        while crash_at(scratch, step, lambda: tick(scratch, batch, night)):  # noqa: B023
            assert dump(scratch) == before, (night, step)
            step, steps = step + 1, steps + 1
    assert dump(scratch) == undisturbed
    assert steps > 40


def test_retiring_a_rule_survives_a_crash_at_every_step(scratch):
    def run(step: int) -> tuple[dict[str, list[str]], bool]:
        wipe(scratch)
        tick(scratch, STORY[0], 0)
        crashed = crash_at(scratch, step, lambda: retire_rules(scratch, set(), now=NOW))
        retire_rules(scratch, set(), now=NOW)
        return dump(scratch), crashed

    undisturbed, _ = run(0)
    step, crashed = 1, True
    while crashed:
        left, crashed = run(step)
        assert left == undisturbed, step
        step += 1
    assert step > 8


@relaxed
@given(plan=nights(), policy=POLICIES, data=st.data())
def test_evaluations_in_any_order_and_any_number_of_times_lead_to_the_same_end(scratch, plan, policy, data):
    def run(*, disturbed: bool) -> dict[str, list[str]]:
        wipe(scratch)
        for night, batch in enumerate(plan):
            if disturbed:
                shuffled = data.draw(st.permutations(batch))
                again = data.draw(st.lists(st.sampled_from(shuffled), max_size=3)) if shuffled else []
                tick(scratch, [*shuffled, *again], night, policy=policy)
                repeated = data.draw(st.integers(0, night))
                report = tick(scratch, plan[repeated], night, policy=policy)
                assert (report.notifications, report.orders, report.transitions) == ((), (), {})
            else:
                tick(scratch, batch, night, policy=policy)
        return dump(scratch, tables=STATES - {"processed_evaluations"})

    assert run(disturbed=True) == run(disturbed=False)


@relaxed
@given(tiers=st.lists(st.sampled_from(["ok", "yellow", "red"]), min_size=2, max_size=3))
def test_restatements_that_arrive_in_the_wrong_order_lead_to_the_newest(scratch, tiers):
    """The same period on data v1, v2, …: whoever comes last, the evaluation that was made last counts."""
    versions = [make_verdict(tier, v=number) for number, tier in enumerate(tiers, start=1)]

    def run(order) -> list[tuple[str, ...]]:
        wipe(scratch)
        for verdict in order:
            tick(scratch, [verdict], 0)
        with scratch.reading() as connection:
            rows = connection.exec_driver_sql(
                "SELECT state, tier, episode, breaches, reds, clears, data_version, value FROM alert_instances"
            )
            return [tuple(row) for row in rows]

    assert run(versions) == run(versions[::-1])


@relaxed
@given(plan=nights(), policy=POLICIES)
def test_a_rerun_of_everything_writes_and_says_nothing(scratch, plan, policy):
    wipe(scratch)
    for night, batch in enumerate(plan):
        tick(scratch, batch, night, policy=policy)
    before = dump(scratch)
    for batch in plan:
        report = tick(scratch, batch, len(plan), policy=policy)
        assert (report.notifications, report.orders, report.transitions, report.applied) == ((), (), {}, 0)
    after = dump(scratch)
    assert {name: rows for name, rows in after.items() if name != "alert_instances"} == {
        name: rows for name, rows in before.items() if name != "alert_instances"
    }
    assert after == before


def test_two_ticks_at_once_are_one_after_the_other(store):
    batch = [make_verdict("red", member=f"m{number}") for number in range(30)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: tick(store, batch, 0), range(4)))
    assert sorted(report.applied for report in reports) == [0, 0, 0, 30]
    assert sorted(len(report.notifications) for report in reports) == [0, 0, 0, 2]
    assert sum(len(report.orders) for report in reports) == 1, "30 slices that begin together share an order"
