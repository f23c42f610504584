"""The machine over arrays does what `advance` does, verdict by verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.alerts.arrays import (
    EVENTS,
    NEXT_REASON,
    NEXT_STATE,
    NEXT_TIER,
    REASONS,
    STAYS,
    Policies,
    advance_all,
    rounds,
)
from metrics_pipeline.alerts.batch import Batch
from metrics_pipeline.alerts.ladder import LADDER
from metrics_pipeline.alerts.state import TABLE, Policy, advance, is_known, is_past, is_silent_on_state, new_instance
from metrics_pipeline.store.instances import STATES, TIERS, InstanceColumns, episode_keys
from tests.alerts.builders import DAY, day, make_verdict

REASON_OF = {
    "ok": ["ok", "min_sample", "min_change", "missing_slice", "late"],
    "yellow": ["breach", "late", "no_baseline"],
    "red": ["breach", "missing_slice"],
    "no_data": ["late", "empty", "null_value", "missing_slice", "no_baseline", "not_due"],
    "unknown": ["error", "upstream_failed", "absent", "not_due"],
}
POLICIES = st.builds(
    Policy,
    hold=st.integers(1, 3),
    keep_firing_for=st.integers(0, 2),
    flap_changes=st.integers(2, 4),
    flap_periods=st.integers(4, 30),
)


@st.composite
def verdicts(draw, *, slices: int = 3):
    """Verdicts of some slices in any order of arrival: periods again, of other data, by other rules, stale ones."""
    found = []
    for _ in range(draw(st.integers(0, 14))):
        tier = draw(st.sampled_from(["ok", "ok", "yellow", "red", "red", "no_data", "unknown"]))
        period, version = draw(st.integers(0, 6)), draw(st.integers(1, 3))
        reason = draw(st.sampled_from([REASON_OF[tier][0], *REASON_OF[tier]]))
        found.append(
            make_verdict(
                tier,
                period,
                v=version,
                member=f"m{draw(st.integers(0, slices - 1))}",
                reason=reason,
                holds=draw(st.sampled_from([None, None, "none", "yellow", "red"])),
                rule_hash=draw(st.sampled_from(["r1", "r1", "r1", "r2"])),
                evaluated_at=datetime(2025, 11, 20, tzinfo=UTC) + timedelta(hours=draw(st.integers(0, 9))),
                value=draw(st.sampled_from([None, 0.05, 0.5])),
            )
        )
    return found


@st.composite
def lives(draw):
    """The long life of one slice: its periods in order, some again on newer data, some unknown, by a rule that changes."""
    found, hash_, tier = [], "r1", "red"
    for number in range(draw(st.integers(10, 25))):
        kind = draw(st.sampled_from(["next", "next", "next", "next", "again", "again", "before"]))
        newest = max((one.period_start for one in found), default=day(0))
        period = {"next": newest + timedelta(days=1), "again": newest, "before": newest - timedelta(days=1)}[kind]
        tier = draw(st.sampled_from([tier, tier, tier, "ok", "ok", "red", "yellow", "no_data", "unknown"]))
        hash_ = draw(st.sampled_from([hash_] * 9 + ["r1", "r2"]))
        found.append(
            make_verdict(
                tier,
                period,
                reason=draw(st.sampled_from([REASON_OF[tier][0]] * 3 + REASON_OF[tier])),
                holds=draw(st.sampled_from([None, None, "none", "yellow", "red"])),
                rule_hash=hash_,
                data_version=f"v{number}" if draw(st.integers(0, 3)) else "v0",
                evaluated_at=datetime(2025, 11, 20, tzinfo=UTC) + timedelta(hours=number),
            )
        )
    return found


def walk_arrays(verdicts, policy, batches):
    """Rows of the instances, and the transitions, after these verdicts in so many ticks."""
    states = InstanceColumns.of_values({})
    told = []
    for part in batches:
        batch = Batch.of([verdicts[number] for number in part])
        if not len(batch):
            continue
        first, place, keys = batch.instances()
        known = {key: slot for slot, key in enumerate(states.key.tolist())}
        fresh = [number for number, key in enumerate(keys) if key not in known]
        texts = [getattr(batch, name).texts[first[fresh]] for name in ("rule", "dimension", "member", "grain")]
        names = np.array([keys[number] for number in fresh], dtype=object)
        states = states.extended(InstanceColumns.empty(names, *texts))
        known = {key: slot for slot, key in enumerate(states.key.tolist())}
        slots = np.array([known[key] for key in keys])[place]
        policies = Policies.of(batch, {"refund_rate_surge": policy})
        for rows in rounds(place):
            step = advance_all(states, slots[rows], batch, rows, policies)
            told += transitions_of(states, batch, step)
    return states, told


def transitions_of(states, batch, step):
    changes = step.changes
    keys = states.key[changes.slot]
    before, after = episode_keys(keys, changes.from_episode), episode_keys(keys, changes.to_episode)
    for n in range(len(changes.row)):
        yield (
            keys[n],
            batch.period[changes.row[n]].item(),
            (STATES[changes.from_state[n]], TIERS[changes.from_tier[n]], before[n], changes.from_rule_hash[n]),
            (STATES[changes.to_state[n]], TIERS[changes.to_tier[n]], after[n], changes.facts["rule_hash"][n]),
            REASONS[changes.reason[n]],
        )


def walk_reference(verdicts, policy, batches):
    instances, told = {}, []
    for part in batches:
        for verdict in sorted((verdicts[n] for n in part), key=lambda one: (one.period_start, one.evaluated_at)):
            after, transition = advance(instances.get(verdict.instance), verdict, policy)
            if verdict.instance in instances or not is_silent_on_state(verdict):
                instances[verdict.instance] = after
            if transition:
                sides = [
                    (one.state, one.tier, one.episode, one.rule_hash) for one in (transition.before, transition.after)
                ]
                told.append((verdict.instance, verdict.period_start, *sides, transition.reason))
    return instances, told


@settings(max_examples=150, deadline=None)
@given(verdicts(), POLICIES, st.data())
def test_arrays_and_reference_agree(found, policy, data):
    cut = data.draw(st.integers(0, len(found)))
    batches = [range(cut), range(cut, len(found))]
    states, told = walk_arrays(found, policy, batches)
    instances, expected = walk_reference(found, policy, batches)
    rows = {one.key: one for one in states.rows(np.arange(len(states))) if one.last_period is not None}
    assert rows == {key: one for key, one in instances.items() if one.last_period is not None}
    assert sorted(map(str, told)) == sorted(map(str, expected))


@settings(max_examples=80, deadline=None)
@given(lives(), POLICIES)
def test_arrays_and_reference_agree_over_a_long_life(found, policy):
    batches = [[number] for number in range(len(found))]  # in the order of their arrival
    states, told = walk_arrays(found, policy, batches)
    instances, expected = walk_reference(found, policy, batches)
    rows = {one.key: one for one in states.rows(np.arange(len(states))) if one.last_period is not None}
    assert rows == {key: one for key, one in instances.items() if one.last_period is not None}
    assert told == expected


def test_arrays_and_reference_flap_alike():
    found = [make_verdict(tier, number) for number, tier in enumerate(["red", "ok", "red", "ok", *["ok"] * 5])]
    policy = Policy(flap_changes=4, flap_periods=6)
    for length in range(1, len(found) + 1):
        batches = [range(length)]
        states, _ = walk_arrays(found, policy, batches)
        instances, _ = walk_reference(found, policy, batches)
        assert states.rows(np.arange(1)) == list(instances.values())


@settings(max_examples=60, deadline=None)
@given(verdicts(slices=1), POLICIES)
def test_a_step_says_of_each_verdict_what_it_did(found, policy):
    instance = None
    states = InstanceColumns.empty(
        *(
            np.array([text], dtype=object)
            for text in ("refund_rate_surge{region=m0}", "refund_rate_surge", "region", "m0", "day")
        )
    )
    for verdict in found:
        batch = Batch.of([verdict])
        nothing = np.zeros(1, dtype=np.intp)
        step = advance_all(states, nothing, batch, nothing, Policies.of(batch, {"refund_rate_surge": policy}))
        before = instance or new_instance(verdict)
        silent = is_silent_on_state(verdict)
        assert bool(step.frozen[0]) == silent
        assert bool(step.known[0]) == (not silent and is_known(before, verdict))
        if step.past[0]:
            assert is_past(before, verdict)
        instance, _ = advance(instance, verdict, policy)
        moved = instance.evaluated_at != before.evaluated_at or instance.last_period != before.last_period
        assert not moved or step.applied[0]


def test_the_compiled_table_is_the_table():
    for (state, tier), events in TABLE.items():
        for event, following in events.items():
            at = (STATES.index(state), TIERS.index(tier), EVENTS.index(event))
            assert (STATES[NEXT_STATE[at]], TIERS[NEXT_TIER[at]]) == (following.state, following.tier)
            assert (NEXT_REASON[at] == STAYS) == (following.reason is None)
            assert following.reason is None or REASONS[NEXT_REASON[at]] == following.reason


def test_rounds_hold_each_instance_once_and_in_order():
    instance = np.array([2, 0, 2, 1, 2, 0])
    assert [rows.tolist() for rows in rounds(instance)] == [[0, 1, 3], [2, 5], [4]]
    assert [rows.tolist() for rows in rounds(np.array([1, 0]))] == [[0, 1]]
    assert rounds(np.array([], dtype=np.intp)) == []


def test_every_word_of_the_ladder_is_of_the_batch():
    batch = Batch.of([make_verdict("no_data", member=word, reason=word) for word in LADDER])
    assert batch.on_ladder.all()
    assert not batch.unjudged.any()


def test_an_unknown_word_is_named():
    with pytest.raises(ValueError, match="unknown tier 'purple'; expected one of no_data, ok"):
        Batch.of([make_verdict(tier="purple")])
    with pytest.raises(ValueError, match="unknown holds 'green'; expected one of none, red, yellow"):
        Batch.of([make_verdict(holds="green")])


def test_columns_and_rows_are_the_same_instances():
    rows = [advance(None, make_verdict("red", member=name))[0] for name in ("a", "b")]
    rows.append(new_instance(make_verdict(member="c"))._replace(evaluated_at=datetime(2025, 1, 1, tzinfo=UTC)))
    columns = InstanceColumns.of_rows(rows)
    assert columns.rows(np.arange(3)) == rows
    assert columns.episode_period[0].item() == DAY
