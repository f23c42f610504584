"""The state machine of an alert: one table, and `advance` which reads a verdict into it.

Pure: no clock, no store. What follows from a state (episodes, messages) is decided elsewhere. Words are those of
Prometheus: an instance is *pending* while a breach has not lasted `hold` periods, *firing* at a tier, *recovering* while
`keep_firing_for` runs; `no_data` keeps the tier of its open episode, because a slice that vanishes is not resolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from metrics_pipeline.alerts.verdict import Verdict
from metrics_pipeline.store.records import Instance, Reason, State, Tier

Event = Literal["clear", "clearing", "waiting", "yellow", "red", "missing"]
"""clear: within bounds, long enough · clearing: within bounds, `keep_firing_for` not over · waiting: beyond a bound, `hold`
not over · yellow, red: beyond that bound, long enough · missing: there should be a value and there is none."""


class Next(NamedTuple):
    """Where an event leads. `tier` None keeps the tier; `reason` None is no transition (nothing changes)."""

    state: State
    tier: Tier | None
    reason: Reason | None


_STAY_OK = Next("ok", "none", None)

TABLE: Final[dict[tuple[State, Tier], dict[Event, Next]]] = {
    ("ok", "none"): {
        "clear": _STAY_OK,
        "clearing": _STAY_OK,
        "waiting": Next("pending", "none", "breach"),
        "yellow": Next("firing", "yellow", "breach"),
        "red": Next("firing", "red", "breach"),
        "missing": Next("no_data", "none", "no_data"),
    },
    ("pending", "none"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("ok", "none", "recover"),
        "waiting": Next("pending", "none", None),
        "yellow": Next("firing", "yellow", "breach"),
        "red": Next("firing", "red", "breach"),
        "missing": Next("pending", "none", None),
    },
    ("firing", "yellow"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "yellow", "recover"),
        "waiting": Next("firing", "yellow", None),
        "yellow": Next("firing", "yellow", None),
        "red": Next("firing", "red", "escalate"),
        "missing": Next("no_data", "yellow", "no_data"),
    },
    ("firing", "red"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "red", "recover"),
        "waiting": Next("firing", "red", None),
        "yellow": Next("firing", "yellow", "de_escalate"),
        "red": Next("firing", "red", None),
        "missing": Next("no_data", "red", "no_data"),
    },
    ("recovering", "yellow"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "yellow", None),
        "waiting": Next("firing", "yellow", "breach"),
        "yellow": Next("firing", "yellow", "breach"),
        "red": Next("firing", "red", "escalate"),
        "missing": Next("no_data", "yellow", "no_data"),
    },
    ("recovering", "red"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "red", None),
        "waiting": Next("firing", "red", "breach"),
        "yellow": Next("firing", "yellow", "de_escalate"),
        "red": Next("firing", "red", "breach"),
        "missing": Next("no_data", "red", "no_data"),
    },
    ("no_data", "none"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("ok", "none", "recover"),
        "waiting": Next("pending", "none", "breach"),
        "yellow": Next("firing", "yellow", "breach"),
        "red": Next("firing", "red", "breach"),
        "missing": Next("no_data", "none", None),
    },
    ("no_data", "yellow"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "yellow", "recover"),
        "waiting": Next("firing", "yellow", "breach"),
        "yellow": Next("firing", "yellow", "breach"),
        "red": Next("firing", "red", "escalate"),
        "missing": Next("no_data", "yellow", None),
    },
    ("no_data", "red"): {
        "clear": Next("ok", "none", "recover"),
        "clearing": Next("recovering", "red", "recover"),
        "waiting": Next("firing", "red", "breach"),
        "yellow": Next("firing", "yellow", "de_escalate"),
        "red": Next("firing", "red", "breach"),
        "missing": Next("no_data", "red", None),
    },
}
"""(state, tier of the open episode) × event → next. Every pair that can exist has every event."""

RANK: Final[dict[str, int]] = {"none": 0, "yellow": 1, "red": 2}

FREEZES: Final = frozenset({"not_due", "error", "absent"})
"""Reasons that say nothing about the slice, whatever the tier: the state is kept."""
UNJUDGED: Final = frozenset({"min_sample", "no_baseline"})
"""Reasons of a value that could not be judged: no evidence of a breach, nor of its end."""
VALUELESS: Final = frozenset({"late", "missing_slice", "null_value"})
"""Reasons of a period without a value. With the tier `ok` (the rule's `no_data: then: ok`) they end no alert either."""


@dataclass(frozen=True)
class Policy:
    """How patient a rule is, in periods with data."""

    hold: int = 1
    """Breaching periods in a row until it fires (the rule's `for`)."""
    keep_firing_for: int = 0
    """Further quiet periods after the first one until it ends."""

    def __post_init__(self) -> None:
        if self.hold < 1 or self.keep_firing_for < 0:
            raise ValueError(f"expected hold >= 1 and keep_firing_for >= 0, got {self}")


class Transition(NamedTuple):
    """A change of state, tier or both, and why."""

    before: Instance
    after: Instance
    reason: Reason


IMPATIENT: Final = Policy()


def new_instance(verdict: Verdict) -> Instance:
    """The instance of a slice that was never judged: ok, with no history."""
    return Instance(
        key=verdict.instance,
        rule=verdict.rule,
        dimension=verdict.dimension,
        member=verdict.member,
        grain=verdict.grain,
        state="ok",
        tier="none",
        episode=None,
        since_period=None,
        breach_period=None,
        last_period=None,
        data_period=None,
        breaches=0,
        reds=0,
        clears=0,
        breaches_before=0,
        reds_before=0,
        clears_before=0,
        value=None,
        observed=None,
        baseline=None,
        lower=None,
        upper=None,
        yellow_bound=None,
        red_bound=None,
        sample=None,
        reason="",
        rule_hash="",
        metric_version="",
        data_version="",
        evaluated_at=verdict.evaluated_at,
    )


def is_known(previous: Instance, verdict: Verdict) -> bool:
    """Whether this evaluation (period, rule hash, metric version, data version) is the last one applied."""
    return (
        previous.last_period == verdict.period_start
        and previous.data_version == verdict.data_version
        and previous.rule_hash == verdict.rule_hash
        and previous.metric_version == verdict.metric_version
    )


def is_past(previous: Instance, verdict: Verdict) -> bool:
    """Whether a newer period was judged already, or the same one later: history, which does not move the state."""
    newest = previous.last_period
    if newest is None:
        return False
    if verdict.period_start in (newest, previous.data_period):
        return verdict.evaluated_at < previous.evaluated_at
    return verdict.period_start < newest


def is_silent_on_state(verdict: Verdict) -> bool:
    """Whether the verdict says nothing about the slice (an error, an upstream failure, not due yet)."""
    return verdict.tier == "unknown" or verdict.reason in FREEZES


def advance(
    previous: Instance | None, verdict: Verdict, policy: Policy = IMPATIENT
) -> tuple[Instance, Transition | None]:
    """The instance after one more verdict, and the transition if its state or tier changed.

    The same evaluation again, an evaluation of the past, and one that could not judge return `previous` itself (or a
    new `ok` instance). Verdicts of one instance are to be given in the order of their periods.
    """
    before = new_instance(verdict) if previous is None else previous
    if is_silent_on_state(verdict) or is_known(before, verdict) or is_past(before, verdict):
        return before, None
    restated = before.data_period == verdict.period_start
    if restated and verdict.tier == "no_data":
        return before, None  # a value that was seen and then vanished is no evidence of either
    if restated and before.last_period != before.data_period and verdict.tier != "ok":
        return before, None  # periods without data came after it: such a restatement can only end the alert
    if _is_unjudged(before, verdict):
        return _facts(before, verdict), None
    judged = _count(before, verdict)
    event = event_of(before, judged, verdict, policy)
    following = TABLE[before.state, before.tier][event]
    if following.reason is None:
        return judged, None
    tier = before.tier if following.tier is None else following.tier
    reason = _reason(following.reason, before, verdict)
    after = judged._replace(
        state=following.state,
        tier=tier,
        since_period=verdict.period_start,
        episode=_episode(before, judged, tier),
    )
    return after, Transition(before, after, reason)


def event_of(before: Instance, judged: Instance, verdict: Verdict, policy: Policy) -> Event:
    """Which event of the table a verdict is, given the counts of `judged`. `hold` delays only what makes it worse."""
    if verdict.tier == "no_data":
        return "missing"
    if verdict.tier == "ok":
        return "clear" if judged.clears > policy.keep_firing_for else "clearing"
    if verdict.tier == "red" and (before.tier == "red" or judged.reds >= policy.hold):
        return "red"
    if before.tier != "none":
        return "yellow"
    return "yellow" if judged.breaches >= policy.hold else "waiting"


def _is_unjudged(before: Instance, verdict: Verdict) -> bool:
    """Whether the verdict is recorded but moves nothing. From rest, an `ok` for lack of evidence is simply ok."""
    if verdict.reason in UNJUDGED:
        return verdict.tier != "ok" or before.tier != "none" or before.state == "pending"
    return verdict.tier == "ok" and verdict.reason in VALUELESS


def _facts(before: Instance, verdict: Verdict) -> Instance:
    """`before` with what the verdict measured."""
    period = verdict.period_start
    return before._replace(
        last_period=period if before.last_period is None else max(period, before.last_period),
        value=verdict.value,
        observed=verdict.observed,
        baseline=verdict.baseline,
        lower=verdict.lower,
        upper=verdict.upper,
        yellow_bound=verdict.yellow_bound,
        red_bound=verdict.red_bound,
        sample=verdict.sample,
        reason=verdict.reason,
        rule_hash=verdict.rule_hash,
        metric_version=verdict.metric_version,
        data_version=verdict.data_version,
        evaluated_at=verdict.evaluated_at,
    )


def _count(before: Instance, verdict: Verdict) -> Instance:
    """`_facts`, and the runs of periods with data; a period counts once however often it is judged."""
    facts = _facts(before, verdict)
    if verdict.tier == "no_data":
        return facts
    breaches, reds, clears = (
        (before.breaches_before, before.reds_before, before.clears_before)
        if before.data_period == verdict.period_start
        else (before.breaches, before.reds, before.clears)
    )
    breaching = verdict.tier != "ok"
    return facts._replace(
        data_period=verdict.period_start,
        breach_period=_breach_period(before, verdict, breaches) if breaching else None,
        breaches_before=breaches,
        reds_before=reds,
        clears_before=clears,
        breaches=breaches + 1 if breaching else 0,
        reds=reds + 1 if verdict.tier == "red" else 0,
        clears=0 if breaching else clears + 1,
    )


def _breach_period(before: Instance, verdict: Verdict, breaches: int) -> datetime:
    return before.breach_period if breaches and before.breach_period is not None else verdict.period_start


def _reason(reason: Reason, before: Instance, verdict: Verdict) -> Reason:
    if reason == "no_data":
        return "missing_slice" if verdict.reason == "missing_slice" else "no_data"
    if before.data_period != verdict.period_start:
        return reason
    if before.rule_hash != verdict.rule_hash and before.data_version == verdict.data_version:
        return "rule_changed"
    if reason == "recover" and verdict.period_start in (before.since_period, before.breach_period):
        return "backfill_corrected"
    return reason


def _episode(before: Instance, judged: Instance, tier: Tier) -> str | None:
    if tier == "none":
        return None
    if before.episode is not None:
        return before.episode
    return episode_key(judged.key, judged)


def episode_key(instance: str, judged: Instance) -> str:
    """`rule{dimension=member}@first breaching period`."""
    first = judged.breach_period
    if first is None:
        raise ValueError(f"{instance} has no breach to begin an episode with")
    return f"{instance}@{first.isoformat(timespec='minutes')}"
