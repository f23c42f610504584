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
HELD = {"ok~yellow": ("ok", "yellow"), "ok~red": ("ok", "red"), "yellow~red": ("yellow", "red")}
"""Observed ~ the tier that a firing alert would keep."""


def walk(tiers, policy=IMPATIENT, start=None, first=0):
    """States, tiers and reasons after each daily verdict."""
    instance, told = start, []
    for number, tier in enumerate(tiers, start=first):
        observed, holds = HELD.get(tier, (tier, None))
        verdict = make_verdict(observed, number, holds=holds) if isinstance(tier, str) else tier
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
        (["yellow", "unknown", "yellow"], Policy(hold=2), ["pending breach", "pending error", "firing yellow breach"]),
        (["red", "no_data", "no_data", "red"], Policy(), ["firing red breach", "no_data red missing_slice", "no_data red", "firing red breach"]),
        (["red", "no_data", "ok"], Policy(), ["firing red breach", "no_data red missing_slice", "ok recover"]),
        (["yellow", "no_data", "red"], Policy(), ["firing yellow breach", "no_data yellow missing_slice", "firing red escalate"]),
        (["no_data", "ok"], Policy(), ["no_data missing_slice", "ok recover"]),
        (["red", "unknown", "red"], Policy(), ["firing red breach", "firing red error", "firing red"]),
        (["red", "ok", "ok"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "ok recover"]),
        (["red", "ok", "red", "ok", "ok"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "firing red breach", "recovering red recover", "ok recover"]),
    ],
)  # fmt: skip
def test_a_sequence_of_verdicts_leads_to(tiers, policy, expected):
    _, told = walk(tiers, policy)
    assert [" ".join(word for word in step if word not in (None, "none")) for step in told] == expected


@pytest.mark.parametrize(
    ("tiers", "policy", "expected"),
    [
        (["red", "yellow~red", "ok~red", "ok"], Policy(), ["firing red breach", "firing red", "firing red", "ok recover"]),
        (["red", "ok~yellow", "ok~yellow", "ok"], Policy(), ["firing red breach", "firing yellow de_escalate", "firing yellow", "ok recover"]),
        (["red", "yellow~red", "yellow", "yellow~red"], Policy(), ["firing red breach", "firing red", "firing yellow de_escalate", "firing yellow"]),
        (["yellow", "ok~red", "red"], Policy(), ["firing yellow breach", "firing yellow", "firing red escalate"]),
        (["ok~red", "yellow~red"], Policy(), ["ok", "firing yellow breach"]),
        (["yellow", "ok~yellow", "yellow"], Policy(hold=2), ["pending breach", "ok recover", "pending breach"]),
        (["red", "ok", "ok~red", "ok", "ok"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "recovering red", "recovering red", "ok recover"]),
        (["red", "ok", "ok~yellow", "yellow~red"], Policy(keep_firing_for=1), ["firing red breach", "recovering red recover", "recovering yellow de_escalate", "firing yellow breach"]),
        (["red", "no_data", "ok~red"], Policy(), ["firing red breach", "no_data red missing_slice", "firing red breach"]),
    ],
)  # fmt: skip
def test_an_alert_ends_only_beyond_its_recovery_threshold(tiers, policy, expected):
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


@pytest.mark.parametrize("policy", [Policy(), Policy(keep_firing_for=2)])
def test_a_corrected_breach_ends_at_once_whatever_patience_and_hysteresis_say(policy):
    for restated in (make_verdict("ok", v=2), make_verdict("ok", v=2, holds="red")):
        fired, _ = advance(None, make_verdict("red"), policy)
        ended, transition = advance(fired, restated, policy)
        assert (ended.state, ended.episode, transition.reason) == ("ok", None, "backfill_corrected")


def test_a_restatement_after_a_true_breach_is_a_recovery():
    fired, _ = walk(["red", "red"])
    ended, transition = advance(fired, make_verdict("ok", 1, v=3000))
    assert (ended.state, transition.reason) == ("ok", "recover")


def test_a_restatement_of_all_breaching_periods_is_a_correction():
    instance, _ = walk(["red", "red", "red"])
    for number in range(3):
        instance, transition = advance(instance, make_verdict("ok", number, v=9000))
    assert (instance.state, transition.reason) == ("ok", "backfill_corrected")
    instance, _ = walk(["red", "red", "red"])
    for number, tier in enumerate(["ok", "ok", "red"]):
        instance, transition = advance(instance, make_verdict(tier, number, v=9000))
    assert (instance.state, transition, instance.is_corrected) == ("firing", None, True)


def test_a_breach_restated_away_and_back_is_the_same_episode():
    fired, _ = walk(["red", "red"])
    ended, _ = advance(fired, make_verdict("ok", 1, v=3000))
    again, _ = advance(ended, make_verdict("red", 1, v=6000))
    assert (again.episode, again.breaches) == (fired.episode, 2)


def test_an_unknown_period_is_a_flag_until_a_judged_one():
    instance, _ = walk(["red", "unknown", "unknown"])
    assert (instance.state, instance.unknown_reason, instance.unknown_period) == ("firing", "error", day(2))
    upstream, transition = advance(instance, make_verdict("unknown", 3, reason="upstream_failed"))
    assert (upstream.unknown_reason, upstream.unknown_period, transition) == ("upstream_failed", day(3), None)
    late, _ = advance(upstream, make_verdict("red", 2))
    assert (late.last_period, late.unknown_period) == (day(2), day(3))
    judged, _ = advance(upstream, make_verdict("red", 3))
    assert (judged.unknown_reason, judged.unknown_period) == ("", None)


def test_tiers_that_change_too_often_flag_the_alert_until_it_is_stable():
    policy = Policy(flap_changes=4, flap_periods=6)
    instance, flags = None, []
    for number, tier in enumerate(["red", "ok", "red", "ok", *["ok"] * 5]):
        instance, _ = advance(instance, make_verdict(tier, number), policy)
        flags.append(instance.is_flapping)
    assert flags == [False, False, False, True, True, True, True, False, False]
    again, _ = advance(instance, make_verdict("ok", 8, v=9000), policy)
    assert again.changes == instance.changes


def test_an_alert_that_gets_worse_does_not_come_and_go():
    policy = Policy(flap_changes=5, flap_periods=14)
    flags = {}
    for story in ("yellow red ok yellow red ok ok", "yellow red yellow red yellow red yellow red yellow red"):
        instance = None
        for number, tier in enumerate(story.split()):
            instance, _ = advance(instance, make_verdict(tier, number), policy)
        flags[story] = instance.is_flapping
    assert list(flags.values()) == [False, True], "two alerts in a week, and one that swings between two tiers"


def test_a_changed_rule_that_clears_the_same_data_is_called_so():
    instance, _ = advance(None, make_verdict("red"))
    later = make_verdict("ok", rule_hash="r2")
    instance, transition = advance(instance, later._replace(evaluated_at=later.evaluated_at.replace(hour=9)))
    assert (instance.state, transition.reason, instance.rule_hash) == ("ok", "rule_changed", "r2")


def test_a_changed_rule_does_not_reset_the_alert_and_both_hashes_are_recorded():
    instance, _ = walk(["yellow"])
    after, transition = advance(instance, make_verdict("yellow", 1, rule_hash="r2"))
    assert (after.state, after.episode) == ("firing", instance.episode)
    assert (transition.reason, transition.before.rule_hash, transition.after.rule_hash) == ("rule_changed", "r1", "r2")
    assert advance(after, make_verdict("yellow", 2, rule_hash="r2"))[1] is None
    rested, _ = walk(["ok"])
    assert advance(rested, make_verdict("ok", 1, rule_hash="r2"))[1] is None


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
        assert transition is None or (transition.reason, tier) == ("error", "unknown")


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
    for one, before, after in zip(transitions, states, ends, strict=True):
        assert (before == after) == (one.reason == "error")


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


SEVERITIES = [("ok", "none"), ("ok", "yellow"), ("ok", "red"), ("yellow", "yellow"), ("yellow", "red"), ("red", "red")]
"""Observed and held, the milder first; a higher threshold or recovery bound never gives a later one of both."""


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1)), max_size=20),
    POLICIES,
)
def test_raising_a_threshold_never_raises_more_alerts(pairs, policy):
    mild, hard = None, None
    for number, (one, other, kind) in enumerate(pairs):
        first, second = SEVERITIES[one], SEVERITIES[other]
        if any(RANK.get(x, 0) > RANK.get(y, 0) for x, y in zip(first, second, strict=True)):
            second = tuple(max(pair, key=lambda word: RANK.get(word, 0)) for pair in zip(first, second, strict=True))
        if kind:
            first = second = ("no_data", None)
        mild, _ = advance(mild, make_verdict(first[0], number, holds=first[1]), policy)
        hard, _ = advance(hard, make_verdict(second[0], number, holds=second[1]), policy)
        assert mild.tier == "none" or hard.tier != "none"
