"""A batch of verdicts, applied: read → advance → write, then `dispatch` what people are told, in one transaction.

Set-based: instances are columns from the store and back (`store.instances`, `arrays`), and the number of queries does not
grow with the number of slices. An object is made only for what people may be told of: transitions and open episodes.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.announcing import is_announced
from metrics_pipeline.alerts.arrays import REASONS, Changes, Policies, advance_all, rounds
from metrics_pipeline.alerts.batch import RED, Batch
from metrics_pipeline.alerts.dispatch import dispatch
from metrics_pipeline.alerts.episodes import Episodes, PastVerdict, episodes_of_the_past, touched_of
from metrics_pipeline.alerts.ledger import Ledger
from metrics_pipeline.alerts.notice import RuleCard, SeriesSource
from metrics_pipeline.alerts.tick import Tick
from metrics_pipeline.alerts.verdict import Verdict
from metrics_pipeline.alerts.work_orders import open_orders
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.model import Limits
from metrics_pipeline.store import Store
from metrics_pipeline.store import alerts as repository
from metrics_pipeline.store.instances import (
    STATES,
    TIERS,
    Flags,
    Indices,
    InstanceColumns,
    datetimes,
    episode_keys,
    load_instances,
    save_instances,
)
from metrics_pipeline.store.records import TransitionRow

if TYPE_CHECKING:
    import pandas as pd

_FIRING, _NO_DATA = STATES.index("firing"), STATES.index("no_data")
_YELLOW = 1


@dataclass(frozen=True)
class AppliedReport:
    """What a batch did. Counts are of verdicts unless said otherwise."""

    verdicts: int
    applied: int
    """Moved the facts or the state of their instance."""
    repeated: int
    """Were applied before: a re-run is a no-op."""
    past: int
    """Of periods older than what was judged: history only."""
    frozen: int
    """Could not judge (error, upstream failure, not due)."""
    transitions: Mapping[str, int]
    """Transitions by reason."""
    opened: int
    """Episodes begun."""
    closed: int
    """Episodes ended."""
    firing: Mapping[str, int]
    """Instances firing after the batch, by tier, among its rules."""
    notifications: tuple[str, ...]
    """Keys of the outbox rows written."""
    orders: tuple[str, ...] = ()
    """Episodes that a work order was opened for; of many that share one, the worst."""


@dataclass
class _Work:
    """The working set of one batch."""

    now: datetime
    run_id: str
    instances: InstanceColumns
    episodes: Episodes
    changed: Flags
    """Slots to be written."""
    due: Flags
    """Slots that were judged in the newest due period, in a run that is not silent."""
    transitions: list[tuple[int, TransitionRow]] = field(default_factory=list)
    """With the verdict that made it, for the order."""
    past: list[int] = field(default_factory=list)
    """Verdicts of the past."""
    moved: list[int] = field(default_factory=list)
    """Slots that have a transition."""
    outcome: Counter[str] = field(default_factory=Counter)


def apply_verdicts(
    store: Store,
    verdicts: pa.Table | pd.DataFrame | Iterable[Verdict],
    cards: Mapping[str, RuleCard],
    *,
    receivers: Sequence[str] | Routing,
    now: datetime,
    newest_due: Mapping[str, datetime] | datetime | None = None,
    silent: bool = False,
    series: SeriesSource | None = None,
    beside: Callable[[Connection], object] | None = None,
) -> AppliedReport:
    """Bring states, episodes, history and outbox to what the verdicts say, all or nothing.

    `verdicts`: an Arrow table or a frame with the columns of the evaluations, or single ones. `cards`: one per rule in
    the batch (`ValueError` when one is missing). `receivers`: the routes, or a list of
    `<channel>[:<address>]` who are told of everything at once. `now`:
    aware. `newest_due`: the newest period (shop-local start) that is due, for all rules or per rule; default the newest
    of each rule in the batch that has a verdict other than not_due; verdicts of older periods are never told as new.
    `silent`: a backfill, told to nobody (but the end of what was told before is). `series`: where plots get their points;
    when it fails the notice goes out without a plot. `beside`: writes what messages of these alerts tell as well (causes,
    advice), on the same transaction, so that no sender sees the one without the other; an error of it undoes everything.
    """
    batch = Batch.of(verdicts)
    rules = set(batch.rule.texts)
    if missing := sorted(rules - cards.keys()):
        raise ValueError(f"no rule card for {', '.join(missing)}; give one for every rule of the batch")
    loud = ~_is_old(batch, newest_due) & (not silent)
    run_id = str(batch.run_id.texts[-1]) if len(batch) else ""
    with _collector_paused(), store.writing("alerts") as connection:
        work, slots = _open(connection, batch, rules, now=now, run_id=run_id)
        ledger = Ledger.read(connection, batch, work.instances.key[slots])
        fresh = ledger.fresh()
        work.outcome["repeated"] += int((~fresh).sum())
        policies = Policies.of(batch, {rule: cards[rule].policy for rule in rules})
        for rows in rounds(slots):
            _advance(work, batch, rows[fresh[rows]], slots, policies, loud=loud)
        work.episodes.join_reopened(connection)
        past = episodes_of_the_past(connection, _past(work, batch, slots), work.episodes.by_key, now)
        tick = _told_of(work, rules)
        save_instances(connection, work.instances, np.flatnonzero(work.changed))
        repository.save_episodes(connection, [*touched_of(work.episodes), *past])
        repository.append_transitions(connection, tick.transitions)
        limits = receivers.limits if isinstance(receivers, Routing) else Limits()
        orders = open_orders(connection, tick, cards, most=limits.work_orders)
        notifications = dispatch(connection, tick, cards, receivers=receivers, series=series)
        if beside is not None:
            beside(connection)
        repository.mark_processed(connection, ledger.applied(), run_id=run_id, now=now)
    firing = work.instances.tier[work.instances.state == _FIRING]
    return AppliedReport(
        verdicts=len(batch),
        applied=work.outcome["applied"],
        repeated=work.outcome["repeated"],
        past=work.outcome["past"],
        frozen=work.outcome["frozen"],
        transitions=dict(Counter(row.reason for row in tick.transitions)),
        opened=len(tick.opened),
        closed=len(tick.closed),
        firing={TIERS[rank]: int(number) for rank, number in enumerate(np.bincount(firing)) if number},
        notifications=notifications,
        orders=orders,
    )


def retire_rules(
    store: Store,
    active: Collection[str],
    *,
    now: datetime,
    run_id: str = "",
    receivers: Sequence[str] | Routing = (),
) -> AppliedReport:
    """End the alerts of rules that are no longer in the rule files: closed as `manual`, the end told as `cancelled`.

    `receivers`: the routes, for the times at which they send; the end goes to whoever was told.
    """
    with _collector_paused(), store.writing("alerts") as connection:
        gone = {rule for rule in repository.firing_rules(connection) - set(active) if not is_announced(rule)}
        instances = {one.key: one for one in repository.open_instances(connection, gone)}
        episodes = Episodes(now, repository.open_episodes(connection, gone))
        transitions = []
        for before in instances.values():
            period = before.last_period or before.since_period
            if before.episode is None or period is None:
                raise ValueError(f"{before.key} has an episode without ever having been judged")
            episodes.close(before.episode, "manual")
            transitions.append(
                TransitionRow(
                    instance=before.key,
                    episode=before.episode,
                    rule=before.rule,
                    at=now,
                    period=period,
                    from_state=before.state,
                    from_tier=before.tier,
                    to_state="ok",
                    to_tier="none",
                    reason="manual",
                    value=before.value,
                    observed=before.observed,
                    rule_hash=before.rule_hash,
                    previous_rule_hash=None,
                    metric_version=before.metric_version,
                    data_version=before.data_version,
                    run_id=run_id,
                    silent=False,
                )
            )
        ended = {
            key: one._replace(
                state="ok", tier="none", episode=None, breaches=0, reds=0, breach_period=None, is_corrected=False
            )
            for key, one in instances.items()
        }
        tick = Tick(
            now=now,
            run_id=run_id,
            rules=frozenset(gone),
            instances=ended,
            episodes=episodes.by_key,
            closed=frozenset(episodes.closed),
            transitions=transitions,
        )
        repository.save_instances(connection, ended.values())
        repository.save_episodes(connection, touched_of(episodes))
        repository.append_transitions(connection, transitions)
        notifications = dispatch(connection, tick, {rule: RuleCard(rule, "") for rule in gone}, receivers=receivers)
    return AppliedReport(
        verdicts=0,
        applied=0,
        repeated=0,
        past=0,
        frozen=0,
        transitions=dict(Counter(row.reason for row in transitions)),
        opened=0,
        closed=len(tick.closed),
        firing={},
        notifications=notifications,
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No search for cycles while a tick makes rows by the hundred thousand: none is one, and it costs a quarter of the CPU."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_old(batch: Batch, given: Mapping[str, datetime] | datetime | None) -> Flags:
    """Whether a verdict is of a period before the newest due one of its rule."""
    codes, periods = batch.rule.codes, batch.period.astype(np.int64)
    never = np.iinfo(np.int64).min
    newest, newest_due = (np.full(len(batch.rule.words), never) for _ in range(2))
    np.maximum.at(newest, codes, periods)
    np.maximum.at(newest_due, codes[~batch.waiting], periods[~batch.waiting])
    limit = np.where(newest_due == never, newest, newest_due)
    for code, rule in enumerate(batch.rule.words):
        period = given.get(rule) if isinstance(given, Mapping) else given
        if period is not None:
            limit[code] = np.datetime64(period, "us").astype(np.int64)
    found: Flags = periods < limit[codes]
    return found


def _open(
    connection: Connection, batch: Batch, rules: Collection[str], *, now: datetime, run_id: str
) -> tuple[_Work, Indices]:
    """The working set, and the slot of the instance of each verdict; instances that are new have one, too."""
    instances = load_instances(connection, rules)
    first, place, keys = batch.instances()
    known = {key: slot for slot, key in enumerate(instances.key)}
    new = [number for number, key in enumerate(keys) if key not in known]
    slots = np.fromiter((known.get(key, -1) for key in keys), dtype=np.intp, count=len(keys))
    slots[new] = np.arange(len(new)) + len(instances)
    at = first[new]
    names = np.array([keys[number] for number in new], dtype=object)
    texts = (column.texts[at] for column in (batch.rule, batch.dimension, batch.member, batch.grain))
    instances = instances.extended(InstanceColumns.empty(names, *texts))
    work = _Work(
        now=now,
        run_id=run_id,
        instances=instances,
        episodes=Episodes(now, repository.open_episodes(connection, rules)),
        changed=np.zeros(len(instances), dtype=bool),
        due=np.zeros(len(instances), dtype=bool),
    )
    return work, slots[place]


def _advance(work: _Work, batch: Batch, rows: Indices, slots: Indices, policies: Policies, *, loud: Flags) -> None:
    """One verdict for each of some instances; what follows for their episodes and the history."""
    instances, here = work.instances, slots[rows]
    step = advance_all(instances, here, batch, rows, policies)
    work.outcome["applied"] += int(step.applied.sum())
    work.outcome["frozen"] += int(step.frozen.sum())
    work.outcome["repeated"] += int(step.known.sum())
    work.outcome["past"] += int((~step.applied & ~step.frozen & ~step.known).sum())
    work.changed[here[step.applied | step.noted]] = True
    work.due[here[step.applied & loud[rows]]] = True
    work.past += rows[step.past & (batch.tier[rows] <= RED)].tolist()
    breaching = (batch.tier[rows] >= _YELLOW) & (batch.tier[rows] <= RED)
    worse = step.applied & breaching & (instances.state[here] == _FIRING)
    work.episodes.worsen(instances, here[worse], again=step.again[worse])
    rows_of = _transition_rows(work, batch, step.changes, loud)
    for row, before in zip(rows_of, step.changes.from_episode, strict=True):
        if not np.isnat(before) and row.to_tier == "none" and row.episode is not None:
            work.episodes.close(row.episode, row.reason)
    work.moved += step.changes.slot.tolist()
    work.transitions += zip(step.changes.row.tolist(), rows_of, strict=True)


def _transition_rows(work: _Work, batch: Batch, changes: Changes, loud: Flags) -> list[TransitionRow]:
    instances, slots, rows = work.instances, changes.slot, changes.row
    count = len(rows)
    after, before = changes.facts["rule_hash"], changes.from_rule_hash
    rehashed = (before != "") & (before != after)
    episode = np.where(np.isnat(changes.to_episode), changes.from_episode, changes.to_episode)
    columns = {
        "instance": instances.key[slots],
        "episode": episode_keys(instances.key[slots], episode),
        "rule": instances.rule[slots],
        "at": [work.now] * count,
        "period": datetimes(batch.period[rows]),
        "from_state": _words(STATES, changes.from_state),
        "from_tier": _words(TIERS, changes.from_tier),
        "to_state": _words(STATES, changes.to_state),
        "to_tier": _words(TIERS, changes.to_tier),
        "reason": _words(REASONS, changes.reason),
        "value": _numbers(changes.facts["value"]),
        "observed": _numbers(changes.facts["observed"]),
        "rule_hash": after,
        "previous_rule_hash": [word if new else None for word, new in zip(before, rehashed, strict=True)],
        "metric_version": changes.facts["metric_version"],
        "data_version": changes.facts["data_version"],
        "run_id": [work.run_id] * count,
        "silent": (~loud[rows]).tolist(),
        "verdict_reason": batch.reason.texts[rows],
    }
    return [TransitionRow._make(row) for row in zip(*(columns[name] for name in TransitionRow._fields), strict=True)]


def _words(words: Sequence[str], codes: NDArray[np.int8]) -> list[str]:
    return [words[code] for code in codes.tolist()]


def _numbers(column: NDArray[np.float64]) -> list[float | None]:
    return [None if number != number else number for number in column.tolist()]  # noqa: PLR0124


def _past(work: _Work, batch: Batch, slots: Indices) -> list[PastVerdict]:
    """The verdicts of the past, in order, of instances that have a breaching one among them."""
    rows = np.sort(np.array(work.past, dtype=np.intp))
    breaching = np.unique(slots[rows[batch.tier[rows] >= _YELLOW]])
    rows = rows[np.isin(slots[rows], breaching)]
    columns = (
        work.instances.key[slots[rows]],
        batch.rule.texts[rows],
        datetimes(batch.period[rows]),
        _words(TIERS, batch.tier[rows]),
        _numbers(batch.numbers["value"][rows]),
    )
    return [PastVerdict._make(row) for row in zip(*columns, strict=True)]


def _told_of(work: _Work, rules: Collection[str]) -> Tick:
    """The tick as those see it who tell people."""
    instances = work.instances
    transitions = [row for _, row in sorted(work.transitions, key=lambda pair: pair[0])]
    shown = ~np.isnat(instances.episode_period)
    shown[work.moved] = True
    slots = np.flatnonzero(shown)
    rows = instances.rows(slots)
    return Tick(
        now=work.now,
        run_id=work.run_id,
        rules=frozenset(rules),
        instances={one.key: one for one in rows},
        episodes=work.episodes.by_key,
        opened=frozenset(work.episodes.opened),
        closed=frozenset(work.episodes.closed),
        due=frozenset(one.key for one, due in zip(rows, work.due[slots].tolist(), strict=True) if due),
        no_data=Counter(instances.rule[instances.state == _NO_DATA].tolist()),
        transitions=transitions,
    )
