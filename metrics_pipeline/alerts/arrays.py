"""The state machine over arrays: `state.TABLE` compiled, and one verdict for each of many instances at once.

The same as `state.advance`, line by line, for a hundred thousand slices in a few milliseconds; a property test holds the
two together. Nothing here decides: what an event leads to is read from the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.alerts.batch import NO_DATA, OK, RED, UNKNOWN, Batch
from metrics_pipeline.alerts.state import CHANGE_BITS, TABLE, Event, Policy
from metrics_pipeline.alerts.verdict import NUMBERS
from metrics_pipeline.store.instances import (
    NEVER,
    STATES,
    TIERS,
    Codes,
    Flags,
    Indices,
    InstanceColumns,
    Times,
)
from metrics_pipeline.store.records import Reason

EVENTS: Final[tuple[Event, ...]] = get_args(Event)
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
STAYS: Final = -1
"""Code of the reason where nothing changes."""

_SHAPE = (len(STATES), len(TIERS), len(EVENTS))
NEXT_STATE: Final = np.zeros(_SHAPE, dtype=np.int8)
NEXT_TIER: Final = np.zeros(_SHAPE, dtype=np.int8)
NEXT_REASON: Final = np.full(_SHAPE, STAYS, dtype=np.int8)
for (_state, _tier), _row in TABLE.items():
    for _event, _next in _row.items():
        _at = (STATES.index(_state), TIERS.index(_tier), EVENTS.index(_event))
        NEXT_STATE[_at] = STATES.index(_next.state)
        NEXT_TIER[_at] = TIERS.index(_next.tier)
        NEXT_REASON[_at] = STAYS if _next.reason is None else REASONS.index(_next.reason)


@dataclass(frozen=True)
class Policies:
    """The policy of each verdict of a batch, as columns."""

    hold: NDArray[np.int32]
    keep_firing_for: NDArray[np.int32]
    flap_changes: NDArray[np.int32]
    flap_periods: NDArray[np.int32]

    @classmethod
    def of(cls, batch: Batch, policies: Mapping[str, Policy]) -> Policies:
        """By the rule of each verdict."""
        of_rule = [policies.get(rule, Policy()) for rule in batch.rule.words]
        return cls(
            **{
                name: np.array([getattr(policy, name) for policy in of_rule], dtype=np.int32)[batch.rule.codes]
                for name in ("hold", "keep_firing_for", "flap_changes", "flap_periods")
            }
        )


@dataclass(frozen=True)
class Changes:
    """Transitions as columns: `state.Transition` of many instances."""

    row: Indices
    """The verdict that made it."""
    slot: Indices
    from_state: Codes
    from_tier: Codes
    from_episode: Times
    """First period of the episode that was open."""
    from_rule_hash: NDArray[np.object_]
    to_state: Codes
    to_tier: Codes
    to_episode: Times
    reason: Codes
    """Of `REASONS`."""
    facts: Mapping[str, NDArray[Any]] = field(repr=False)
    """What the instance held afterwards: value, observed and versions."""


@dataclass(frozen=True)
class Step:
    """What one verdict for each of some instances did; flags are by position among the given."""

    applied: Flags
    """Moved the facts or the state."""
    known: Flags
    frozen: Flags
    """Could not judge."""
    noted: Flags
    """Moved nothing but a remark of the instance (unknown from here on; began with what is corrected now)."""
    past: Flags
    """Of a period older than what was judged."""
    again: Flags
    """Of the newest period with data, which was judged before."""
    changes: Changes


def advance_all(states: InstanceColumns, slots: Indices, batch: Batch, rows: Indices, policies: Policies) -> Step:
    """Bring the instances at `slots` (each at most once) through the verdicts at `rows`, in place."""
    before = _Before.of(states, slots)
    verdict = _Verdicts.of(batch, rows, policies)
    sifted = _sift(before, verdict)
    notes = _notes(before, verdict, sifted)
    counts = _count(before, verdict, sifted)
    after = _follow(before, verdict, sifted, counts)
    reason = np.where(notes.errs, _ERROR, after.reason)

    states.is_corrected[slots[notes.corrects]] = (verdict.tier == OK)[notes.corrects]
    states.unknown_reason[slots[notes.freezes]] = batch.reason.texts[rows[notes.freezes]]
    states.unknown_period[slots[notes.freezes]] = verdict.period[notes.freezes]
    _write_facts(_At(states, slots, batch, rows), before, verdict, sifted.taken)
    some = slots[sifted.counted]
    states.data_period[some] = verdict.period[sifted.counted]
    for name in _COUNTS:
        getattr(states, name)[some] = getattr(counts, name)[sifted.counted]
    some = slots[sifted.judged]
    states.changes[some] = after.changes[sifted.judged]
    states.is_flapping[some] = after.is_flapping[sifted.judged]
    some = slots[after.moves]
    states.state[some] = after.state[after.moves]
    states.tier[some] = after.tier[after.moves]
    states.since_period[some] = verdict.period[after.moves]
    states.episode_period[some] = after.episode[after.moves]
    states.is_corrected[slots[after.moves & np.isnat(after.episode)]] = False

    told = np.flatnonzero(reason != STAYS)
    return Step(
        applied=sifted.taken,
        known=sifted.known,
        frozen=verdict.silent,
        noted=notes.corrects | notes.freezes,
        past=sifted.past,
        again=sifted.restated,
        changes=Changes(
            row=rows[told],
            slot=slots[told],
            from_state=before.state[told],
            from_tier=before.tier[told],
            from_episode=before.episode_period[told],
            from_rule_hash=before.rule_hash[told],
            to_state=after.state[told],
            to_tier=after.tier[told],
            to_episode=after.episode[told],
            reason=reason[told].astype(np.int8),
            facts={name: getattr(states, name)[slots[told]] for name in FACTS},
        ),
    )


def rounds(instance: Indices) -> Sequence[Indices]:
    """Row numbers in rounds, so that no instance is twice in one and each has its rows in order."""
    count = len(instance)
    if not count:
        return []
    order = np.argsort(instance, kind="stable")
    of = instance[order]
    starts = np.flatnonzero(np.r_[True, of[1:] != of[:-1]])
    lengths = np.diff(np.r_[starts, count])
    turn = np.arange(count) - np.repeat(starts, lengths)
    if int(turn.max(initial=0)) == 0:
        return [np.arange(count)]
    by_turn = np.argsort(turn, kind="stable")
    cuts = np.cumsum(np.bincount(turn))[:-1]
    return [np.sort(order[part]) for part in np.split(by_turn, cuts)]


FACTS: Final = ("value", "observed", "rule_hash", "metric_version", "data_version")
_CLEAR, _CLEARING, _CORRECTED, _HELD_YELLOW, _HELD_RED, _WAITING, _YELLOW, _RED, _MISSING = range(len(EVENTS))
assert EVENTS[_CORRECTED] == "corrected" and EVENTS[_MISSING] == "missing"
_PENDING: Final = STATES.index("pending")
_NO_DATA, _MISSING_SLICE, _RULE_CHANGED, _ERROR = (
    REASONS.index(word) for word in ("no_data", "missing_slice", "rule_changed", "error")
)


_COUNTS: Final = (
    "breach_period",
    "breach_period_before",
    "breaches",
    "reds",
    "clears",
    "breaches_before",
    "reds_before",
    "clears_before",
)


@dataclass(frozen=True)
class _Before:
    """What is read of the instances, by position."""

    state: Codes
    tier: Codes
    episode_period: Times
    breach_period: Times
    breach_period_before: Times
    last_period: Times
    data_period: Times
    unknown_period: Times
    breaches: Any
    reds: Any
    clears: Any
    breaches_before: Any
    reds_before: Any
    clears_before: Any
    rule_hash: Any
    metric_version: Any
    data_version: Any
    evaluated_at: Times
    is_corrected: Flags
    changes: Any
    is_flapping: Flags

    @classmethod
    def of(cls, states: InstanceColumns, slots: Indices) -> _Before:
        return cls(**{name: getattr(states, name)[slots] for name in cls.__dataclass_fields__})

    @cached_property
    def active(self) -> Flags:
        """`state.is_active`"""
        found: Flags = (self.tier > 0) | (self.state == _PENDING)
        return found

    @cached_property
    def judged(self) -> Flags:
        return ~np.isnat(self.last_period)

    @cached_property
    def opened(self) -> Flags:
        """Whether an episode is open."""
        return ~np.isnat(self.episode_period)

    @cached_property
    def first(self) -> Times:
        """`state.first_period_of`"""
        return np.where(self.opened, self.episode_period, self.breach_period)


@dataclass(frozen=True)
class _Verdicts:
    """What is read of the verdicts, by position."""

    period: Times
    tier: Codes
    holds: Codes
    evaluated_at: Times
    rule_hash: Any
    metric_version: Any
    data_version: Any
    silent: Flags
    waiting: Flags
    missing: Flags
    missing_slice: Flags
    on_ladder: Flags
    unjudged: Flags
    hold: Any
    keep_firing_for: Any
    flap_changes: Any
    flap_periods: Any

    @cached_property
    def is_data(self) -> Flags:
        return self.tier <= RED

    @classmethod
    def of(cls, batch: Batch, rows: Indices, policies: Policies) -> _Verdicts:
        return cls(
            period=batch.period[rows],
            tier=batch.tier[rows],
            holds=batch.holds[rows],
            evaluated_at=batch.evaluated_at[rows],
            rule_hash=batch.rule_hash.texts[rows],
            metric_version=batch.metric_version.texts[rows],
            data_version=batch.data_version.texts[rows],
            silent=batch.silent[rows],
            waiting=batch.waiting[rows],
            missing=batch.missing[rows],
            missing_slice=batch.reason.where(["missing_slice"])[rows],
            on_ladder=batch.on_ladder[rows],
            unjudged=batch.unjudged[rows],
            hold=policies.hold[rows],
            keep_firing_for=policies.keep_firing_for[rows],
            flap_changes=policies.flap_changes[rows],
            flap_periods=policies.flap_periods[rows],
        )


@dataclass(frozen=True)
class _Sifted:
    """Which verdicts move what (`state.advance`, its first half)."""

    known: Flags
    past: Flags
    taken: Flags
    unjudged: Flags
    """Taken, but moves nothing but the facts."""
    judged: Flags
    counted: Flags
    """Judged, and had data."""
    restated: Flags
    """Of the newest period with data."""
    beginning: Flags
    """Restated, and with it how the alert began."""
    same_data: Flags
    same_hash: Flags


def _sift(before: _Before, verdict: _Verdicts) -> _Sifted:
    restated = before.data_period == verdict.period
    newest = before.last_period == verdict.period
    same_hash = before.rule_hash == verdict.rule_hash
    same_data = before.data_version == verdict.data_version
    speaks = ~verdict.silent
    quiet = verdict.tier == OK
    known = speaks & newest & same_hash & same_data & (before.metric_version == verdict.metric_version)
    behind = before.last_period != before.data_period
    no_evidence = speaks & restated & ((verdict.tier == NO_DATA) | (behind & (~quiet | (before.tier == 0))))
    stale = np.where(newest | restated, verdict.evaluated_at < before.evaluated_at, verdict.period < before.last_period)
    past = speaks & ~known & ~no_evidence & before.judged & stale
    taken = speaks & ~known & ~no_evidence & ~past
    unjudged = taken & ((verdict.unjudged & (~quiet | before.active)) | (verdict.missing & quiet))
    judged = taken & ~unjudged
    return _Sifted(
        known=known,
        past=past,
        taken=taken,
        unjudged=unjudged,
        judged=judged,
        counted=judged & verdict.is_data,
        restated=restated,
        beginning=restated & (before.is_corrected | (verdict.period == before.first)),
        same_data=same_data,
        same_hash=same_hash,
    )


@dataclass(frozen=True)
class _Notes:
    """What is remembered of verdicts that move nothing."""

    corrects: Flags
    """`state._correct`"""
    freezes: Flags
    """`state._freeze`"""
    errs: Flags
    """Freezes an alert that is open."""


def _notes(before: _Before, verdict: _Verdicts, sifted: _Sifted) -> _Notes:
    begins = before.opened & (verdict.period == before.first) & ~sifted.restated
    again = sifted.past & begins & verdict.is_data & ~verdict.unjudged & ~verdict.on_ladder
    seen = np.fmax(before.last_period, before.unknown_period)
    freezes = (verdict.tier == UNKNOWN) & ~verdict.waiting & before.judged & (verdict.period > seen)
    return _Notes(
        corrects=again & (before.is_corrected != (verdict.tier == OK)),
        freezes=freezes,
        errs=freezes & before.active & np.isnat(before.unknown_period),
    )


@dataclass(frozen=True)
class _Counts:
    """Runs of periods with data after the verdicts, and the tier they give (`state._count`, `state.held_tier`)."""

    tier: Codes
    breach_period: Times
    breach_period_before: Times
    breaches: Any
    reds: Any
    clears: Any
    breaches_before: Any
    reds_before: Any
    clears_before: Any


def _count(before: _Before, verdict: _Verdicts, sifted: _Sifted) -> _Counts:
    own = np.where(verdict.is_data, verdict.tier, 0)
    unsaid = (verdict.holds < 0) | sifted.beginning
    tier = np.maximum(own, np.where(unsaid, own, np.minimum(verdict.holds, before.tier)))
    breaches = np.where(sifted.restated, before.breaches_before, before.breaches)
    reds = np.where(sifted.restated, before.reds_before, before.reds)
    clears = np.where(sifted.restated, before.clears_before, before.clears)
    first = np.where(sifted.restated, before.breach_period_before, before.breach_period)
    begun = np.where((breaches > 0) & ~np.isnat(first), first, verdict.period)
    return _Counts(
        tier=tier,
        breach_period=np.where(own > 0, begun, NEVER),
        breach_period_before=first,
        breaches=np.where(own > 0, breaches + 1, 0),
        reds=np.where(own == RED, reds + 1, 0),
        clears=np.where(tier == 0, clears + 1, 0),
        breaches_before=breaches,
        reds_before=reds,
        clears_before=clears,
    )


def _events(before: _Before, verdict: _Verdicts, sifted: _Sifted, counts: _Counts) -> Codes:
    """`state.event_of`."""
    quiet = verdict.tier == OK
    red = counts.tier == RED
    codes = np.select(
        [
            verdict.tier == NO_DATA,
            quiet & red,
            quiet & (counts.tier > 0),
            quiet & (before.clears == 0) & sifted.beginning,
            quiet & (counts.clears > verdict.keep_firing_for),
            quiet,
            red & ((before.tier == RED) | (counts.reds >= verdict.hold)),
            (before.tier > 0) | (counts.breaches >= verdict.hold),
        ],
        [_MISSING, _HELD_RED, _HELD_YELLOW, _CORRECTED, _CLEAR, _CLEARING, _RED, _YELLOW],
        default=_WAITING,
    )
    return codes.astype(np.int8)


@dataclass(frozen=True)
class _After:
    """Where the table leads to."""

    moves: Flags
    state: Codes
    tier: Codes
    episode: Times
    reason: Codes
    """Of the transition, `rule_changed` without a move included; STAYS: none."""
    changes: Any
    is_flapping: Flags


def _follow(before: _Before, verdict: _Verdicts, sifted: _Sifted, counts: _Counts) -> _After:
    at = (before.state, before.tier, _events(before, verdict, sifted, counts))
    reason = np.where(sifted.judged, NEXT_REASON[at], STAYS)
    moves = reason != STAYS
    state, tier = np.where(moves, NEXT_STATE[at], before.state), np.where(moves, NEXT_TIER[at], before.tier)
    lost = reason == _NO_DATA
    rejudged = moves & ~lost & sifted.restated & sifted.same_data & ~sifted.same_hash
    rehashed = sifted.taken & ~moves & ~sifted.same_hash & (before.rule_hash != "") & before.active
    reason = np.where(lost & verdict.missing_slice, _MISSING_SLICE, reason)
    reason = np.where(rejudged | rehashed, _RULE_CHANGED, reason)
    begun = np.where(sifted.counted, counts.breach_period, before.breach_period)
    episode = np.where(tier == 0, NEVER, np.where(before.opened, before.episode_period, begun))
    shifted = np.where(sifted.restated, before.changes, (before.changes << 1) & ((1 << CHANGE_BITS) - 1))
    worsened = (before.tier == TIERS.index("yellow")) & (tier == TIERS.index("red"))
    changes = np.where(sifted.counted, shifted, before.changes) | ((tier != before.tier) & ~worsened)
    recent = np.bitwise_count(changes & ((1 << verdict.flap_periods) - 1))
    return _After(
        moves=moves,
        state=state,
        tier=tier,
        episode=np.where(moves, episode, before.episode_period),
        reason=reason,
        changes=changes,
        is_flapping=np.where(before.is_flapping, recent > verdict.flap_changes // 2, recent >= verdict.flap_changes),
    )


class _At(NamedTuple):
    """Which verdict goes to which instance."""

    states: InstanceColumns
    slots: Indices
    batch: Batch
    rows: Indices


def _write_facts(at: _At, before: _Before, verdict: _Verdicts, taken: Flags) -> None:
    """What the verdicts measured (`state._facts`)."""
    states, slots, rows = at.states, at.slots[taken], at.rows[taken]
    states.last_period[slots] = np.fmax(before.last_period, verdict.period)[taken]
    for name in NUMBERS:
        getattr(states, name)[slots] = at.batch.numbers[name][rows]
    states.reason[slots] = at.batch.reason.texts[rows]
    for name in ("rule_hash", "metric_version", "data_version", "evaluated_at"):
        getattr(states, name)[slots] = getattr(verdict, name)[taken]
    known = taken & (before.unknown_period <= verdict.period)
    states.unknown_reason[at.slots[known]] = ""
    states.unknown_period[at.slots[known]] = NEVER
