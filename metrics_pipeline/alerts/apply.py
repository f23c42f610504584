"""A batch of verdicts, applied: read → advance → write with the notices, in one transaction.

A number of queries that does not grow with the number of slices. What is told is decided by level, not by edge: a due
slice that fires is told to every receiver who does not know it at that tier, so nothing that was once suppressed stays
so. An end is told to all who were told the beginning, and to nobody else, silent runs included.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.notice import (
    POINTS,
    WORST,
    Change,
    Counts,
    Notice,
    RuleCard,
    Series,
    SeriesKey,
    SeriesSource,
    Slice,
    excess,
    notification_key,
    reason_of,
    severity,
)
from metrics_pipeline.alerts.state import (
    RANK,
    Transition,
    advance,
    is_known,
    is_past,
    is_silent_on_state,
)
from metrics_pipeline.alerts.verdict import Verdict
from metrics_pipeline.store import Store
from metrics_pipeline.store import alerts as repository
from metrics_pipeline.store import outbox as outbox_repository
from metrics_pipeline.store.records import (
    Episode,
    Instance,
    NewNotification,
    ProcessedKey,
    Tier,
    Told,
    TransitionRow,
)

log = logging.getLogger(__name__)

BREACHING = ("yellow", "red")
NOT_DUE = "not_due"
HISTORY = "history"
"""Close reason of an episode that was only found later, in a period that was no longer the newest."""


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


@dataclass
class _Tick:
    """The working set of one batch."""

    now: datetime
    run_id: str
    instances: dict[str, Instance]
    episodes: dict[str, Episode]
    told: dict[tuple[str, str], Told]
    changed: dict[str, Instance] = field(default_factory=dict)
    due: set[str] = field(default_factory=set)
    eased: set[str] = field(default_factory=set)
    touched_episodes: set[str] = field(default_factory=set)
    transitions: list[TransitionRow] = field(default_factory=list)
    old_breaches: dict[str, list[Verdict]] = field(default_factory=lambda: defaultdict(list))
    outcome: Counter[str] = field(default_factory=Counter)
    opened: set[str] = field(default_factory=set)
    told_changed: set[tuple[str, str]] = field(default_factory=set)


def apply_verdicts(
    store: Store,
    verdicts: Iterable[Verdict],
    cards: Mapping[str, RuleCard],
    *,
    receivers: Sequence[str],
    now: datetime,
    newest_due: Mapping[str, datetime] | datetime | None = None,
    silent: bool = False,
    series: SeriesSource | None = None,
) -> AppliedReport:
    """Bring states, episodes, history and outbox to what the verdicts say, all or nothing.

    `cards`: one per rule in the batch (`ValueError` when one is missing). `receivers`: `<channel>[:<address>]`, who is
    told of new alerts. `now`: aware. `newest_due`: the newest period (shop-local start) that is due, for all rules or per
    rule; default the newest of each rule in the batch that has a verdict other than not_due; verdicts of older periods are never told as new. `silent`: a
    backfill, told to nobody (but the end of what was told before is). `series`: where plots get their points; when it
    fails the notice goes out without a plot.
    """
    batch = sorted(verdicts, key=lambda verdict: (verdict.period_start, verdict.evaluated_at))
    rules = {verdict.rule for verdict in batch}
    if missing := sorted(rules - cards.keys()):
        raise ValueError(f"no rule card for {', '.join(missing)}; give one for every rule of the batch")
    due = _newest_due(batch, newest_due)
    run_id = batch[-1].run_id if batch else ""
    with store.writing("alerts") as connection:
        groups = _groups(batch)
        done = repository.already_processed(connection, groups.keys())
        tick = _Tick(
            now=now,
            run_id=run_id,
            instances=repository.instances_of(connection, rules),
            episodes=repository.open_episodes(connection, rules),
            told=repository.told_open(connection, rules),
        )
        for verdict in batch:
            if _group(verdict) in done:
                tick.outcome["repeated"] += 1
            else:
                _step(tick, verdict, cards[verdict.rule], silent=silent or verdict.period_start < due[verdict.rule])
        _join_reopened(connection, tick)
        history = _history_episodes(connection, tick)
        ended = {key for key in tick.touched_episodes if tick.episodes[key].closed_at is not None}
        notices = _notices(connection, tick, cards, receivers=receivers, ended=ended, series=series)
        _save(connection, tick, notices, history)
        judged = {key: count for key, (count, complete) in groups.items() if complete and key not in done}
        repository.mark_processed(connection, judged, run_id=run_id, now=now)
    return AppliedReport(
        verdicts=len(batch),
        applied=tick.outcome["applied"],
        repeated=tick.outcome["repeated"],
        past=tick.outcome["past"],
        frozen=tick.outcome["frozen"],
        transitions=dict(Counter(row.reason for row in tick.transitions)),
        opened=len(tick.opened),
        closed=len(ended),
        firing=dict(Counter(one.tier for one in tick.instances.values() if one.state == "firing")),
        notifications=tuple(notice.key for notice in notices),
    )


def retire_rules(store: Store, active: Collection[str], *, now: datetime) -> AppliedReport:
    """End the alerts of rules that are no longer in the rule files: closed as `manual`, the end told as `cancelled`."""
    with store.writing("alerts") as connection:
        gone = repository.firing_rules(connection) - set(active)
        tick = _Tick(
            now=now,
            run_id="",
            instances=repository.instances_of(connection, gone),
            episodes=repository.open_episodes(connection, gone),
            told=repository.told_open(connection, gone),
        )
        payloads = outbox_repository.last_payloads(connection, gone)
        cards = {
            rule: Notice.from_json(payloads[rule]).rule if rule in payloads else RuleCard(rule, "") for rule in gone
        }
        for before in list(tick.instances.values()):
            if before.episode is None:
                continue
            after = before._replace(state="ok", tier="none", episode=None, breaches=0, reds=0, breach_period=None)
            _record(tick, Transition(before, after, "manual"), before.last_period or before.since_period, silent=False)
        notices = _notices(connection, tick, cards, receivers=(), ended=tick.touched_episodes)
        _save(connection, tick, notices)
    return AppliedReport(
        verdicts=0,
        applied=0,
        repeated=0,
        past=0,
        frozen=0,
        transitions=dict(Counter(row.reason for row in tick.transitions)),
        opened=0,
        closed=len(tick.touched_episodes),
        firing={},
        notifications=tuple(notice.key for notice in notices),
    )


def _newest_due(batch: Sequence[Verdict], given: Mapping[str, datetime] | datetime | None) -> dict[str, datetime]:
    newest = {verdict.rule: verdict.period_start for verdict in batch}  # the batch is in the order of periods
    newest |= {verdict.rule: verdict.period_start for verdict in batch if verdict.reason != NOT_DUE}
    if isinstance(given, datetime):
        return dict.fromkeys(newest, given)
    return newest if given is None else {rule: given.get(rule, period) for rule, period in newest.items()}


def _group(verdict: Verdict) -> ProcessedKey:
    return ProcessedKey(
        verdict.rule, verdict.period_start, verdict.rule_hash, verdict.metric_version, verdict.data_version
    )


def _groups(batch: Iterable[Verdict]) -> dict[ProcessedKey, tuple[int, bool]]:
    """Verdicts per key, and whether all of them could judge: an error must not hide its own mended re-run."""
    counts: Counter[ProcessedKey] = Counter()
    incomplete: set[ProcessedKey] = set()
    for verdict in batch:
        key = _group(verdict)
        counts[key] += 1
        if is_silent_on_state(verdict):
            incomplete.add(key)
    return {key: (count, key not in incomplete) for key, count in counts.items()}


def _step(tick: _Tick, verdict: Verdict, card: RuleCard, *, silent: bool) -> None:
    key = verdict.instance
    before = tick.instances.get(key)
    after, transition = advance(before, verdict, card.policy)
    if is_silent_on_state(verdict):
        tick.outcome["frozen"] += 1
        return
    if before is not None and after is before:
        if is_known(before, verdict):
            tick.outcome["repeated"] += 1
        else:
            tick.outcome["past"] += 1
            if is_past(before, verdict) and verdict.tier in (*BREACHING, "ok"):
                tick.old_breaches[key].append(verdict)
        return
    tick.outcome["applied"] += 1
    tick.instances[key] = tick.changed[key] = after
    if not silent:
        tick.due.add(key)
    if after.state == "firing" and verdict.tier in BREACHING:
        _worsen(tick, after)
    if transition is not None:
        _record(tick, transition, verdict.period_start, silent=silent)


def _record(tick: _Tick, transition: Transition, period: datetime | None, *, silent: bool) -> None:
    before, after, reason = transition
    if period is None:
        raise ValueError(f"{before.key} changes state without ever having been judged")
    tick.instances[after.key] = tick.changed[after.key] = after
    if before.episode is not None and after.episode is None:
        _close(tick, before.episode, reason)
    if reason == "de_escalate":
        tick.eased.add(after.key)
    tick.transitions.append(
        TransitionRow(
            instance=after.key,
            episode=after.episode or before.episode,
            rule=after.rule,
            at=tick.now,
            period=period,
            from_state=before.state,
            from_tier=before.tier,
            to_state=after.state,
            to_tier=after.tier,
            reason=reason,
            value=after.value,
            observed=after.observed,
            rule_hash=after.rule_hash,
            previous_rule_hash=before.rule_hash if before.rule_hash not in ("", after.rule_hash) else None,
            metric_version=after.metric_version,
            data_version=after.data_version,
            run_id=tick.run_id,
            silent=silent,
        )
    )


def _worsen(tick: _Tick, instance: Instance) -> None:
    """Open the episode of a firing instance, or carry it on."""
    key, period = instance.episode, instance.data_period
    if key is None or period is None:
        raise ValueError(f"{instance.key} fires without an episode")
    beyond = excess(instance)
    episode = tick.episodes.get(key)
    if episode is None:
        tick.opened.add(key)
        episode = Episode(
            key=key,
            instance=instance.key,
            rule=instance.rule,
            first_period=instance.breach_period or period,
            last_period=period,
            opened_at=tick.now,
            closed_at=None,
            close_reason=None,
            worst_tier=instance.tier,
            worst_value=instance.value,
            worst_excess=beyond,
        )
    worse = (RANK[instance.tier], beyond) >= (RANK[episode.worst_tier], episode.worst_excess or 0.0)
    tick.episodes[key] = episode._replace(
        last_period=max(period, episode.last_period),
        closed_at=None,
        close_reason=None,
        worst_tier=instance.tier if worse else episode.worst_tier,
        worst_value=instance.value if worse else episode.worst_value,
        worst_excess=beyond if worse else episode.worst_excess,
    )
    tick.touched_episodes.add(key)


def _close(tick: _Tick, key: str, reason: str) -> None:
    tick.episodes[key] = tick.episodes[key]._replace(closed_at=tick.now, close_reason=reason)
    tick.touched_episodes.add(key)


def _join_reopened(connection: Connection, tick: _Tick) -> None:
    """An episode that a restatement closed and another one opens again keeps its beginning; it is told anew."""
    for key, old in repository.episodes_by_key(connection, tick.opened).items():
        new = tick.episodes[key]
        tick.episodes[key] = new._replace(opened_at=old.opened_at, first_period=min(old.first_period, new.first_period))


def _history_episodes(connection: Connection, tick: _Tick) -> list[Episode]:
    """Old periods that newly breach: closed episodes, told to nobody."""
    breaching = {
        key: verdicts
        for key, verdicts in tick.old_breaches.items()
        if any(verdict.tier != "ok" for verdict in verdicts)
    }
    if not breaching:
        return []
    spans = repository.episode_spans(connection, breaching.keys())
    for episode in tick.episodes.values():
        if episode.instance in breaching:
            spans.setdefault(episode.instance, []).append((episode.first_period, episode.last_period))
    found: dict[str, Episode] = {}
    for instance, verdicts in breaching.items():
        run: Episode | None = None
        for verdict in verdicts:
            period = verdict.period_start
            if verdict.tier == "ok":
                run = None
                continue
            if any(first <= period <= last for first, last in spans.get(instance, ())):
                continue
            tier: Tier = "red" if verdict.tier == "red" else "yellow"
            if run is None:
                run = Episode(
                    key=f"{instance}@{period.isoformat(timespec='minutes')}",
                    instance=instance,
                    rule=verdict.rule,
                    first_period=period,
                    last_period=period,
                    opened_at=tick.now,
                    closed_at=tick.now,
                    close_reason=HISTORY,
                    worst_tier=tier,
                    worst_value=verdict.value,
                    worst_excess=None,
                )
            worse = RANK[tier] > RANK[run.worst_tier]
            run = run._replace(
                last_period=period,
                worst_tier=tier if worse else run.worst_tier,
                worst_value=verdict.value if worse else run.worst_value,
            )
            found[run.key] = run
    return list(found.values())


def _notices(
    connection: Connection,
    tick: _Tick,
    cards: Mapping[str, RuleCard],
    *,
    receivers: Sequence[str],
    ended: Collection[str],
    series: SeriesSource | None = None,
) -> list[Notice]:
    """What is new to each receiver, one notice per group; notes in `tick.told` that they were told."""
    firing: dict[str, list[Instance]] = defaultdict(list)
    lost: Counter[str] = Counter()
    for instance in tick.instances.values():
        if instance.state == "firing":
            firing[instance.rule].append(instance)
        elif instance.state == "no_data":
            lost[instance.rule] += 1
    for some in firing.values():
        some.sort(key=severity)
    ends: dict[tuple[str, str], list[Episode]] = defaultdict(list)
    known: Counter[tuple[str, str]] = Counter()
    for (key, receiver), told in tick.told.items():
        episode = tick.episodes[key]
        known[episode.rule, receiver] += 1
        if key in ended and told.end_notification is None:
            ends[episode.rule, receiver].append(episode)
    wanted = sorted(
        {(rule, receiver) for rule in firing for receiver in receivers} | ends.keys(),
        key=lambda pair: (pair[0], receivers.index(pair[1]) if pair[1] in receivers else len(receivers), pair[1]),
    )
    sequences = outbox_repository.last_sequences(connection, {cards[rule].group for rule, _ in wanted})
    notices: list[Notice] = []
    for rule, receiver in wanted:
        notice = _notice(
            tick,
            cards[rule],
            receiver,
            firing=firing[rule],
            may_begin=receiver in receivers,
            ends=ends.get((rule, receiver), []),
            known=known[rule, receiver],
            lost=lost[rule],
            sequence=sequences.get((receiver, cards[rule].group), 0) + 1,
        )
        if notice is not None:
            notices.append(notice)
    for key in tick.eased:  # told at red, now yellow: the next red is news again
        for receiver in receivers:
            instance = tick.instances[key]
            if instance.episode and (told_row := tick.told.get((instance.episode, receiver))):
                tick.told[instance.episode, receiver] = told_row._replace(tier=instance.tier)
                tick.told_changed.add((instance.episode, receiver))
    return _with_series(tick, notices, series)


def _notice(
    tick: _Tick,
    card: RuleCard,
    receiver: str,
    *,
    firing: Sequence[Instance],
    may_begin: bool,
    ends: Sequence[Episode],
    known: int,
    lost: int,
    sequence: int,
) -> Notice | None:
    changes: dict[str, Change] = {}
    for instance in firing if may_begin else ():
        if instance.episode is None or instance.key not in tick.due:
            continue
        told = tick.told.get((instance.episode, receiver))
        if told is None:
            changes[instance.key] = "new"
        elif RANK[told.tier] < RANK[instance.tier]:
            changes[instance.key] = "escalated"
    if not changes and not ends:
        return None
    counts = Counter(changes.values())
    audience = [one for one in firing if one.key in changes or (one.episode and (one.episode, receiver) in tick.told)]
    reason = (
        "cancelled"
        if not changes and all(episode.close_reason == "manual" for episode in ends)
        else reason_of(
            new=counts["new"],
            escalated=counts["escalated"],
            known=known,
            still_known=known - len(ends),
        )
    )
    ends = sorted(ends, key=lambda one: (-RANK[one.worst_tier], -(one.worst_excess or 0.0), one.key))
    worst: Tier = audience[0].tier if audience else ends[0].worst_tier
    key = notification_key(
        receiver,
        card.group,
        firing=[f"{one.episode}:{one.tier}" for one in audience],
        ended=[one.key for one in ends],
        reason=reason,
        sequence=sequence,
    )
    listed = sorted(audience, key=lambda one: one.key not in changes)[:WORST]  # stable: the worst of the news first
    slices = [_firing_slice(one, tick.episodes[one.episode or ""], changes.get(one.key, "ongoing")) for one in listed]
    over = [_ended_slice(tick.instances[one.instance], one) for one in ends[:WORST]]
    slices = [*slices, *over] if changes else [*over, *slices]  # the news comes first
    about = [one for one in audience if one.key in changes] or [tick.instances[one.instance] for one in ends]
    for one in audience:
        if one.episode and one.key in changes:
            before = tick.told.get((one.episode, receiver))
            tick.told[one.episode, receiver] = Told(
                one.episode, receiver, one.tier, before.notification if before else key, None
            )
            tick.told_changed.add((one.episode, receiver))
    for episode in ends:
        pair = (episode.key, receiver)
        tick.told[pair] = tick.told[pair]._replace(end_notification=key)
        tick.told_changed.add(pair)
    return Notice(
        key=key,
        receiver=receiver,
        sequence=sequence,
        reason=reason,
        tier=worst,
        created_at=tick.now,
        period=max(one.data_period for one in about if one.data_period is not None),
        grain=about[0].grain,
        rule=card,
        counts=Counts(
            new=counts["new"],
            escalated=counts["escalated"],
            eased=sum(1 for one in audience if one.key in tick.eased),
            ended=len(ends),
            firing=len(audience),
            red=sum(1 for one in audience if one.tier == "red"),
            no_data=lost,
        ),
        slices=tuple(slices),
    )


def _firing_slice(instance: Instance, episode: Episode, change: Change) -> Slice:
    return _slice(instance, change, instance.tier, episode.first_period)


def _ended_slice(instance: Instance, episode: Episode) -> Slice:
    changes: dict[str | None, Change] = {
        "backfill_corrected": "corrected",
        "rule_changed": "corrected",
        "manual": "cancelled",
    }
    return _slice(instance, changes.get(episode.close_reason, "resolved"), episode.worst_tier, episode.first_period)


def _slice(instance: Instance, change: Change, tier: Tier, since: datetime) -> Slice:
    return Slice(
        instance=instance.key,
        dimension=instance.dimension,
        member=instance.member,
        change=change,
        tier=tier,
        since=since,
        value=instance.value,
        observed=instance.observed,
        baseline=instance.baseline,
        lower=instance.lower,
        upper=instance.upper,
        yellow_bound=instance.yellow_bound,
        red_bound=instance.red_bound,
    )


def _with_series(tick: _Tick, notices: Sequence[Notice], source: SeriesSource | None) -> list[Notice]:
    """The notices with the series of their first (worst) slice."""
    if source is None or not notices:
        return list(notices)
    keys: dict[str, SeriesKey] = {}
    for notice in notices:
        first = notice.slices[0]
        instance = tick.instances[first.instance]
        keys[notice.key] = SeriesKey(
            rule=notice.rule.id,
            metric=notice.rule.metric,
            dimension=first.dimension,
            member=first.member,
            grain=notice.grain,
            until=instance.data_period or notice.period,
        )
    try:
        found = source(list(dict.fromkeys(keys.values())))
    except Exception:  # whatever ails the warehouse, the alert must go out
        log.exception("the series of %d notices cannot be read; they are sent without a plot", len(notices))
        return list(notices)
    return [replace(notice, series=_trimmed(found.get(keys[notice.key]))) for notice in notices]


def _trimmed(series: Series | None) -> Series | None:
    return None if series is None or not series.points else replace(series, points=series.points[-POINTS:])


def _save(connection: Connection, tick: _Tick, notices: Sequence[Notice], history: Sequence[Episode] = ()) -> None:
    repository.save_instances(connection, tick.changed.values())
    repository.save_episodes(connection, [*(tick.episodes[key] for key in tick.touched_episodes), *history])
    repository.append_transitions(connection, tick.transitions)
    repository.save_told(connection, [tick.told[pair] for pair in tick.told_changed])
    outbox_repository.enqueue(
        connection,
        [
            NewNotification(
                key=notice.key,
                receiver=notice.receiver,
                group_key=notice.rule.group,
                sequence=notice.sequence,
                reason=notice.reason,
                tier=notice.tier,
                payload=notice.to_json(),
                created_at=notice.created_at,
            )
            for notice in notices
        ],
    )
