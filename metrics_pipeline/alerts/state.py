"""The state machine of an alert: one table, and `advance` which reads a verdict into it.

Pure: no clock, no store. What follows from a state (episodes, messages) is decided elsewhere. Words are those of
Prometheus: an instance is *pending* while a breach has not lasted `hold` periods, *firing* at a tier, *recovering* while
`keep_firing_for` runs; `no_data` keeps the tier of its open episode, because a slice that vanishes is not resolved.
What is neither a value nor its absence (`ladder`) moves no state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from metrics_pipeline.alerts.ladder import effect_of
from metrics_pipeline.alerts.verdict import Verdict, instance_key
from metrics_pipeline.store.records import Instance, Reason, State, Tier

Event = Literal["clear", "clearing", "corrected", "held_yellow", "held_red", "waiting", "yellow", "red", "missing"]
"""What a verdict means to an alert in its present state, see `event_of`:

clear: within bounds, long enough · clearing: within bounds, `keep_firing_for` not over · corrected: the breach the alert
began with was restated and there is none · held_yellow, held_red: within bounds, but not so far that an alert of that tier
would end (`recover_if`) · waiting: beyond a bound, `hold` not over · yellow, red: beyond that bound, long enough ·
missing: there should be a value and there is none."""


class Next(NamedTuple):
    """Where an event leads. `reason` None is no transition (nothing changes)."""

    state: State
    tier: Tier
    reason: Reason | None


# fmt: off
TABLE: Final[dict[tuple[State, Tier], dict[Event, Next]]] = {
    ("ok", "none"): {
        "clear":       Next("ok", "none", None),
        "clearing":    Next("ok", "none", None),
        "corrected":   Next("ok", "none", None),
        "held_yellow": Next("ok", "none", None),
        "held_red":    Next("ok", "none", None),
        "waiting":     Next("pending", "none", "breach"),
        "yellow":      Next("firing", "yellow", "breach"),
        "red":         Next("firing", "red", "breach"),
        "missing":     Next("no_data", "none", "no_data"),
    },
    ("pending", "none"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("ok", "none", "recover"),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("ok", "none", "recover"),
        "held_red":    Next("ok", "none", "recover"),
        "waiting":     Next("pending", "none", None),
        "yellow":      Next("firing", "yellow", "breach"),
        "red":         Next("firing", "red", "breach"),
        "missing":     Next("pending", "none", None),
    },
    ("firing", "yellow"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "yellow", "recover"),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("firing", "yellow", None),
        "held_red":    Next("firing", "yellow", None),
        "waiting":     Next("firing", "yellow", None),
        "yellow":      Next("firing", "yellow", None),
        "red":         Next("firing", "red", "escalate"),
        "missing":     Next("no_data", "yellow", "no_data"),
    },
    ("firing", "red"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "red", "recover"),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("firing", "yellow", "de_escalate"),
        "held_red":    Next("firing", "red", None),
        "waiting":     Next("firing", "red", None),
        "yellow":      Next("firing", "yellow", "de_escalate"),
        "red":         Next("firing", "red", None),
        "missing":     Next("no_data", "red", "no_data"),
    },
    ("recovering", "yellow"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "yellow", None),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("recovering", "yellow", None),
        "held_red":    Next("recovering", "yellow", None),
        "waiting":     Next("firing", "yellow", "breach"),
        "yellow":      Next("firing", "yellow", "breach"),
        "red":         Next("firing", "red", "escalate"),
        "missing":     Next("no_data", "yellow", "no_data"),
    },
    ("recovering", "red"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "red", None),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("recovering", "yellow", "de_escalate"),
        "held_red":    Next("recovering", "red", None),
        "waiting":     Next("firing", "red", "breach"),
        "yellow":      Next("firing", "yellow", "de_escalate"),
        "red":         Next("firing", "red", "breach"),
        "missing":     Next("no_data", "red", "no_data"),
    },
    ("no_data", "none"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("ok", "none", "recover"),
        "corrected":   Next("ok", "none", "recover"),
        "held_yellow": Next("ok", "none", "recover"),
        "held_red":    Next("ok", "none", "recover"),
        "waiting":     Next("pending", "none", "breach"),
        "yellow":      Next("firing", "yellow", "breach"),
        "red":         Next("firing", "red", "breach"),
        "missing":     Next("no_data", "none", None),
    },
    ("no_data", "yellow"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "yellow", "recover"),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("firing", "yellow", "breach"),
        "held_red":    Next("firing", "yellow", "breach"),
        "waiting":     Next("firing", "yellow", "breach"),
        "yellow":      Next("firing", "yellow", "breach"),
        "red":         Next("firing", "red", "escalate"),
        "missing":     Next("no_data", "yellow", None),
    },
    ("no_data", "red"): {
        "clear":       Next("ok", "none", "recover"),
        "clearing":    Next("recovering", "red", "recover"),
        "corrected":   Next("ok", "none", "backfill_corrected"),
        "held_yellow": Next("firing", "yellow", "de_escalate"),
        "held_red":    Next("firing", "red", "breach"),
        "waiting":     Next("firing", "red", "breach"),
        "yellow":      Next("firing", "yellow", "de_escalate"),
        "red":         Next("firing", "red", "breach"),
        "missing":     Next("no_data", "red", None),
    },
}
# fmt: on
"""(state, tier of the open episode) × event → next. Every pair that can exist has every event. `arrays` compiles it."""

RANK: Final[dict[str, int]] = {"none": 0, "yellow": 1, "red": 2}

UNJUDGED: Final = frozenset({"min_sample", "no_baseline", "new_definition", "muted"})
"""Reasons of a value that could not be judged: no evidence of a breach, nor of its end."""
CHANGE_BITS: Final = 30
"""Periods with data whose changes an instance remembers."""


@dataclass(frozen=True)
class Policy:
    """How patient a rule is, in periods with data."""

    hold: int = 1
    """Breaching periods in a row until it fires (the rule's `for`)."""
    keep_firing_for: int = 0
    """Further quiet periods after the first one until it ends."""
    flap_changes: int = 5
    """So many periods in which the tier changed make the alert flapping; half as many end that. Yellow that turns red does not
    count: it gets worse, it does not come and go."""
    flap_periods: int = 14
    """The window of `flap_changes`, the newest period included."""

    def __post_init__(self) -> None:
        if self.hold < 1 or self.keep_firing_for < 0:
            raise ValueError(f"expected hold >= 1 and keep_firing_for >= 0, got {self}")
        if not 2 <= self.flap_changes <= self.flap_periods <= CHANGE_BITS:
            raise ValueError(f"expected 2 <= flap_changes <= flap_periods <= {CHANGE_BITS}, got {self}")


class Transition(NamedTuple):
    """A change of state, tier or both, and why.

    Two reasons may leave both as they were, and are recorded only where an alert is open or pending: `error` (it is
    frozen from here on) and `rule_changed` (it goes on under another rule hash).
    """

    before: Instance
    after: Instance
    reason: Reason


IMPATIENT: Final = Policy()


def new_instance(verdict: Verdict) -> Instance:
    """The instance of a slice that was never judged."""
    return blank_instance(verdict.rule, verdict.dimension, verdict.member, verdict.grain, at=verdict.evaluated_at)


def blank_instance(rule: str, dimension: str, member: str, grain: str, *, at: datetime) -> Instance:
    """An instance without history: ok, with no values. `at`: aware."""
    return Instance(
        key=instance_key(rule, dimension, member),
        rule=rule,
        dimension=dimension,
        member=member,
        grain=grain,
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
        evaluated_at=at,
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
    """Whether the verdict says nothing about the slice: not due yet, or unknown (an error, a failed upstream)."""
    return verdict.tier == "unknown" or effect_of(verdict.reason) in ("wait", "freeze")


def is_active(instance: Instance) -> bool:
    """Whether something of it is open: an episode, or a breach that has not lasted `hold` yet."""
    return instance.tier != "none" or instance.state == "pending"


def advance(
    previous: Instance | None, verdict: Verdict, policy: Policy = IMPATIENT
) -> tuple[Instance, Transition | None]:
    """The instance after one more verdict, and the transition if there is one.

    The same evaluation again, a stale one and one that is not due return `previous` itself (or a new `ok` instance).
    Verdicts of one instance are to be given in the order of their periods. `arrays.advance_all` does the same to many
    instances at once; this is the reference it is tested against.
    """
    before = new_instance(verdict) if previous is None else previous
    if is_silent_on_state(verdict):
        return _freeze(before, verdict)
    if is_known(before, verdict) or _is_no_evidence(before, verdict):
        return before, None
    if is_past(before, verdict):
        return _correct(before, verdict), None
    if _is_unjudged(before, verdict):
        return _going_on(before, _facts(before, verdict))
    judged = _count(before, verdict)
    following = TABLE[before.state, before.tier][event_of(before, judged, verdict, policy)]
    if following.reason is None:
        return _going_on(before, _flapping(before, judged, policy))
    tier = following.tier
    episode = _episode(before, judged, tier)
    after = judged._replace(
        state=following.state,
        tier=tier,
        since_period=verdict.period_start,
        episode=episode,
        is_corrected=judged.is_corrected and episode is not None,
        changes=judged.changes | (tier != before.tier and (before.tier, tier) != ("yellow", "red")),
    )
    return _flapping(before, after, policy), Transition(before, after, _reason(following.reason, before, verdict))


def held_tier(before: Instance, verdict: Verdict) -> Tier:
    """The tier the verdict gives to an alert in this state: its own, or the one that `holds` keeps of the present one.

    An alert that began with the very period that is judged again has nothing to keep.
    """
    own: Tier = "red" if verdict.tier == "red" else "yellow" if verdict.tier == "yellow" else "none"
    if verdict.holds is None or _is_beginning_again(before, verdict):
        return own
    kept = min(verdict.holds, before.tier, key=RANK.__getitem__)
    return max(own, kept, key=RANK.__getitem__)


def event_of(before: Instance, judged: Instance, verdict: Verdict, policy: Policy) -> Event:
    """Which event of the table a verdict is, given the counts of `judged`. `hold` delays only what makes it worse."""
    if verdict.tier == "no_data":
        return "missing"
    tier = held_tier(before, verdict)
    if verdict.tier == "ok":
        if tier != "none":
            return "held_red" if tier == "red" else "held_yellow"
        return _event_of_quiet(before, judged, verdict, policy)
    if tier == "red" and (before.tier == "red" or judged.reds >= policy.hold):
        return "red"
    return "yellow" if before.tier != "none" or judged.breaches >= policy.hold else "waiting"


def _event_of_quiet(before: Instance, judged: Instance, verdict: Verdict, policy: Policy) -> Event:
    if before.clears == 0 and _is_beginning_again(before, verdict):
        return "corrected"
    return "clear" if judged.clears > policy.keep_firing_for else "clearing"


def _is_beginning_again(before: Instance, verdict: Verdict) -> bool:
    """Whether the newest period is judged again, and with it how the alert began."""
    if before.data_period != verdict.period_start:
        return False
    return before.is_corrected or verdict.period_start == first_period_of(before)


def first_period_of(instance: Instance) -> datetime | None:
    """The first breaching period of the open episode, else of the present run of breaches."""
    if instance.episode is None:
        return instance.breach_period
    return period_of_key(instance.episode)


def _freeze(before: Instance, verdict: Verdict) -> tuple[Instance, Transition | None]:
    """An alert that was judged before notes the newest period that cannot be; its state stays."""
    if verdict.tier != "unknown" or effect_of(verdict.reason) == "wait":
        return before, None
    newest = max(filter(None, (before.last_period, before.unknown_period)), default=None)
    if before.last_period is None or newest is None or verdict.period_start <= newest:
        return before, None
    after = before._replace(unknown_reason=verdict.reason, unknown_period=verdict.period_start)
    is_news = is_active(before) and before.unknown_period is None
    return after, Transition(before, after, "error") if is_news else None


def _correct(before: Instance, verdict: Verdict) -> Instance:
    """A period of the past moves nothing, but that the alert should never have begun is remembered."""
    if before.episode is None or verdict.tier == "no_data" or verdict.period_start != first_period_of(before):
        return before
    if verdict.period_start == before.data_period or verdict.reason in UNJUDGED or effect_of(verdict.reason):
        return before
    is_corrected = verdict.tier == "ok"
    return before if is_corrected == before.is_corrected else before._replace(is_corrected=is_corrected)


def _going_on(before: Instance, after: Instance) -> tuple[Instance, Transition | None]:
    """No change of state; another rule hash is recorded where an alert goes on under it."""
    changed = before.rule_hash not in ("", after.rule_hash) and is_active(before)
    return after, Transition(before, after, "rule_changed") if changed else None


def _flapping(before: Instance, after: Instance, policy: Policy) -> Instance:
    """`after` with its flag: set at `flap_changes` changes within the window, taken away at half as many."""
    changes = (after.changes & ((1 << policy.flap_periods) - 1)).bit_count()
    is_flapping = changes > policy.flap_changes // 2 if before.is_flapping else changes >= policy.flap_changes
    return after if is_flapping == after.is_flapping else after._replace(is_flapping=is_flapping)


def _is_no_evidence(before: Instance, verdict: Verdict) -> bool:
    """Whether a restatement of the newest value tells nothing: a value that vanished, a breach before missing periods.

    With periods without data after it a restatement can only end an alert.
    """
    if before.data_period != verdict.period_start:
        return False
    if before.last_period != before.data_period and (verdict.tier != "ok" or before.tier == "none"):
        return True
    return verdict.tier == "no_data"


def _is_unjudged(before: Instance, verdict: Verdict) -> bool:
    """Whether the verdict is recorded but moves nothing. From rest, an `ok` for lack of evidence is simply ok."""
    if verdict.reason in UNJUDGED:
        return verdict.tier != "ok" or is_active(before)
    return verdict.tier == "ok" and effect_of(verdict.reason) == "missing"


def _facts(before: Instance, verdict: Verdict) -> Instance:
    """`before` with what the verdict measured."""
    period = verdict.period_start
    still_unknown = before.unknown_period is not None and before.unknown_period > period
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
        unknown_reason=before.unknown_reason if still_unknown else "",
        unknown_period=before.unknown_period if still_unknown else None,
    )


def _count(before: Instance, verdict: Verdict) -> Instance:
    """`_facts`, and the runs of periods with data; a period counts once however often it is judged."""
    facts = _facts(before, verdict)
    if verdict.tier == "no_data":
        return facts
    restated = before.data_period == verdict.period_start
    breaches, reds, clears, breach_period, changes = (
        (
            before.breaches_before,
            before.reds_before,
            before.clears_before,
            before.breach_period_before,
            before.changes,
        )
        if restated
        else (
            before.breaches,
            before.reds,
            before.clears,
            before.breach_period,
            before.changes << 1 & ((1 << CHANGE_BITS) - 1),
        )
    )
    breaching = verdict.tier != "ok"
    quiet = not breaching and held_tier(before, verdict) == "none"
    return facts._replace(
        data_period=verdict.period_start,
        breach_period=(breach_period if breaches and breach_period is not None else verdict.period_start)
        if breaching
        else None,
        breach_period_before=breach_period,
        breaches_before=breaches,
        reds_before=reds,
        clears_before=clears,
        breaches=breaches + 1 if breaching else 0,
        reds=reds + 1 if verdict.tier == "red" else 0,
        clears=clears + 1 if quiet else 0,
        changes=changes,
    )


def _reason(reason: Reason, before: Instance, verdict: Verdict) -> Reason:
    if reason == "no_data":
        return "missing_slice" if verdict.reason == "missing_slice" else "no_data"
    same_data = before.data_period == verdict.period_start and before.data_version == verdict.data_version
    return "rule_changed" if same_data and before.rule_hash != verdict.rule_hash else reason


def _episode(before: Instance, judged: Instance, tier: Tier) -> str | None:
    if tier == "none":
        return None
    if before.episode is not None:
        return before.episode
    if judged.breach_period is None:
        raise ValueError(f"{judged.key} has no breach to begin an episode with")
    return episode_key(judged.key, judged.breach_period)


def episode_key(instance: str, first: datetime) -> str:
    """`rule{dimension=member}@first breaching period`, to the minute."""
    return f"{instance}@{first.isoformat(timespec='minutes')}"


def period_of_key(episode: str) -> datetime:
    """The first breaching period, as the key of an episode has it."""
    return datetime.fromisoformat(episode.rpartition("@")[2])
