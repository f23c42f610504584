"""The state machine, as a table and as properties."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.alerts.state import IMPATIENT, RANK, TABLE, Event, Policy, advance
from tests.alerts.builders import day, make_verdict

VERDICTS = st.lists(st.sampled_from(["ok", "yellow", "red", "no_data", "unknown"]), max_size=20)
POLICIES = st.builds(Policy, hold=st.integers(1, 3), keep_firing_for=st.integers(0, 2))


def walk(tiers, policy=IMPATIENT, start=None, first=0):
    """States, tiers and reasons after each daily verdict."""
    instance, told = start, []
    for number, tier in enumerate(tiers, start=first):
        verdict = tier if not isinstance(tier, str) else make_verdict(tier, number)
        instance, transition = advance(instance, verdict, policy)
        told.append((instance.state, instance.tier, transition.reason if transition else None))
    return instance, told


def test_every_state_has_every_event_and_leads_to_a_state_of_the_table():
    for (state, tier), events in TABLE.items():
        assert set(events) == set(get_args(Event))
        for following in events.values():
            assert (following.state, following.tier) in TABLE
            assert (following.reason is None) == ((following.state, following.tier) == (state, tier))


def test_missing_never_ends_an_episode():
    for (_, tier), events in TABLE.items():
        assert events["missing"].tier == tier


@pytest.mark.parametrize(
    ("tiers", "policy", "expected"),
    [
        (["ok", "yellow", "ok"], Policy(), ["ok", "firing yellow breach", "ok recover"]),
        (["yellow", "red", "yellow", "ok"], Policy(), ["firing yellow breach", "firing red escalate", "firing yellow de_escalate", "ok recover"]),
        (["red", "red"], Policy(), ["firing red breach", "firing red"]),
        (["yellow", "yellow", "ok"], Policy(hold=2), ["pending breach", "firing yellow breach", "ok recover"]),
        (["yellow", "ok", "yellow", "yellow"], Policy(hold=2), ["pending breach", "ok recover", "pending breach", "firing yellow breach"]),
        (["yellow", "red", "red"], Policy(hold=2), ["pending breach", "firing yellow breach", "firing red escalate"]),
        (["yellow", "no_data", "yellow"], Policy(hold=2), ["pending breach", "pending", "firing yellow breach"]),
        (["yellow", "unknown", "yellow"], Policy(hold=2), ["pending breach", "pending", "firing yellow breach"]),
        (["red", "no_data", "no_data", "red"], Policy(), ["firing red breach", "no_data red missing_slice", "no_data red", "firing red breach"]),
        (["red", "no_data", "ok"], Policy(), ["firing red breach", "no_data red missing_slice", "ok recover"]),
        (["yellow", "no_data", "red"], Policy(), ["firing yellow breach", "no_data yellow missing_slice", "firing red escalate"]),
        (["no_data", "ok"], Policy(), ["no_data missing_slice", "ok recover"]),
        (["red", "unknown", "red"], Policy(), ["firing red breach", "firing red", "firing red"]),
        (["red", "ok", "ok"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "ok recover"]),
        (["red", "ok", "red", "ok", "ok"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "firing red breach", "recovering red recover", "ok recover"]),
    ],
)  # fmt: skip
def test_a_sequence_of_verdicts_leads_to(tiers, policy, expected):
    _, told = walk(tiers, policy)
    assert [" ".join(word for word in step if word not in (None, "none")) for step in told] == expected


def test_the_same_evaluation_again_changes_nothing():
    once, _ = advance(None, make_verdict("red"))
    again, transition = advance(once, make_verdict("red"))
    assert again is once
    assert transition is None


def test_a_period_judged_again_on_new_data_counts_once():
    policy = Policy(hold=2)
    instance, _ = advance(None, make_verdict("yellow", v=1), policy)
    for version in (2, 3, 4):
        instance, transition = advance(instance, make_verdict("yellow", v=version), policy)
        assert (instance.state, instance.breaches, transition) == ("pending", 1, None)
    instance, _ = advance(instance, make_verdict("yellow", 1), policy)
    assert instance.state == "firing"
    assert instance.breach_period == day(0)


def test_a_restatement_that_clears_the_breach_is_called_so():
    instance, _ = advance(None, make_verdict("red"))
    instance, transition = advance(instance, make_verdict("ok", v=2))
    assert (instance.state, transition.reason) == ("ok", "backfill_corrected")
    instance, transition = advance(instance, make_verdict("red", v=3))
    assert (instance.state, instance.breaches, transition.reason) == ("firing", 1, "breach")


def test_a_changed_rule_that_clears_the_same_data_is_called_so():
    instance, _ = advance(None, make_verdict("red"))
    later = make_verdict("ok", rule_hash="r2")
    instance, transition = advance(instance, later._replace(evaluated_at=later.evaluated_at.replace(hour=9)))
    assert (instance.state, transition.reason, instance.rule_hash) == ("ok", "rule_changed", "r2")


def test_a_changed_rule_does_not_reset_the_alert():
    instance, _ = walk(["yellow"])
    after, transition = advance(instance, make_verdict("yellow", 1, rule_hash="r2"))
    assert (after.state, after.episode, transition) == ("firing", instance.episode, None)


def test_an_older_period_and_an_older_evaluation_do_not_move_the_state():
    instance, _ = walk(["ok", "red"])
    for past in (make_verdict("ok", 0, v=5), make_verdict("ok", 1, v=0)):
        after, transition = advance(instance, past)
        assert after is instance
        assert transition is None


def test_a_restated_period_behind_missing_ones_can_only_end_the_alert():
    lost, _ = walk(["red", "no_data"])
    same, transition = advance(lost, make_verdict("red", 0, v=3000))
    assert same is lost
    assert transition is None
    ended, transition = advance(lost, make_verdict("ok", 0, v=3000))
    assert (ended.state, transition.reason, ended.last_period) == ("ok", "backfill_corrected", day(1))


@pytest.mark.parametrize(
    ("tier", "reason"),
    [
        ("ok", "min_sample"),
        ("no_data", "no_baseline"),
        ("ok", "missing_slice"),
        ("ok", "null_value"),
        ("no_data", "not_due"),
        ("unknown", "absent"),
        ("unknown", "error"),
    ],
)
def test_lack_of_evidence_neither_fires_nor_ends(tier, reason):
    for states in (["red"], ["yellow"], ["ok"], ["red", "no_data"]):
        before, _ = walk(states)
        after, transition = advance(before, make_verdict(tier, len(states), reason=reason))
        assert (after.state, after.tier, after.breaches) == (before.state, before.tier, before.breaches)
        assert transition is None


def test_a_quiet_period_because_of_a_small_sample_keeps_a_pending_breach_pending():
    policy = Policy(hold=2)
    before, _ = walk(["yellow"], policy)
    waiting, _ = advance(before, make_verdict("ok", 1, reason="min_sample"), policy)
    fired, _ = advance(waiting, make_verdict("yellow", 2), policy)
    assert (waiting.state, fired.state, fired.breach_period) == ("pending", "firing", day(0))


@given(VERDICTS, POLICIES)
def test_an_episode_is_open_exactly_while_there_is_a_tier(tiers, policy):
    instance = None
    for number, tier in enumerate(tiers):
        instance, _ = advance(instance, make_verdict(tier, number), policy)
        assert (instance.episode is None) == (instance.tier == "none")
        assert (instance.state in ("firing", "recovering")) <= (instance.tier != "none")
        assert (instance.state, instance.tier) in TABLE


@given(VERDICTS, POLICIES)
def test_transitions_form_a_chain_without_gaps(tiers, policy):
    instance, transitions = None, []
    for number, tier in enumerate(tiers):
        instance, transition = advance(instance, make_verdict(tier, number), policy)
        if transition:
            transitions.append(transition)
    states = [(one.before.state, one.before.tier) for one in transitions]
    ends = [(one.after.state, one.after.tier) for one in transitions]
    assert [*states[1:]] == ends[:-1]
    assert all(before != after for before, after in zip(states, ends, strict=True))


@given(VERDICTS, POLICIES, st.data())
def test_duplicated_evaluations_lead_to_the_same_state(tiers, policy, data):
    verdicts = [make_verdict(tier, number) for number, tier in enumerate(tiers)]
    doubled = [one for verdict in verdicts for one in [verdict] * data.draw(st.integers(1, 3))]
    assert walk(verdicts, policy)[0] == walk(doubled, policy)[0]


@given(VERDICTS, POLICIES)
def test_worse_verdicts_never_give_a_milder_alert(tiers, policy):
    """Lowering the thresholds (each yellow a red) never takes an alert away."""
    worse = ["red" if tier == "yellow" else tier for tier in tiers]
    for mild, hard in zip(walk(tiers, policy)[1], walk(worse, policy)[1], strict=True):
        assert RANK[hard[1]] >= RANK[mild[1]]


@given(VERDICTS, st.integers(2, 4))
def test_a_refire_waits_for_the_whole_hold_again(tiers, hold):
    policy = Policy(hold=hold)
    _, told = walk([*tiers, "ok", *["red"] * hold], policy)
    tail = [state for state, _, _ in told[-hold - 1 :]]
    assert tail == ["ok", *["pending"] * (hold - 1), "firing"]


@given(VERDICTS)
def test_hold_is_no_shorter_for_a_larger_hold(tiers):
    quick, slow = (sum(1 for state, _, _ in walk(tiers, Policy(hold=hold))[1] if state == "firing") for hold in (1, 2))
    assert slow <= quick


def test_reasons_name_the_direction_of_the_tier():
    for (state, tier), events in TABLE.items():
        for event, following in events.items():
            if following.reason == "escalate":
                assert RANK[following.tier] > RANK[tier], (state, event)
            if following.reason == "de_escalate":
                assert RANK[following.tier] < RANK[tier], (state, event)
