"""The virtual clock: runs in order, what time makes due between them, and the people who acknowledge.

Quiet stretches (no slice breaches, and no alert of that grain is on its way) are applied in one go: their verdicts move
no alert. (`each_run` applies every one; a test holds that it changes nothing.)
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from metrics_pipeline.alerts.apply import apply_verdicts
from metrics_pipeline.alerts.dispatch import dispatch_due
from metrics_pipeline.alerts.notice import Notice, RuleCard
from metrics_pipeline.alerts.silencing import acknowledge
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.messages import Wording, compose
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.rehearsal.clock import Schedule, Tick, ticks
from metrics_pipeline.rehearsal.record import Message, Rehearsal, Told
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.rule_tests.night import fresh_store
from metrics_pipeline.rules.composite import with_parts
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import verdict_pieces
from metrics_pipeline.store import Store
from metrics_pipeline.store.dispatch import next_wake
from metrics_pipeline.store.tables import alert_instances, episode_receivers, episodes, outbox
from metrics_pipeline.warehouse.read import Published

DELIVERED_AT_ONCE = 10_000


def rehearse(
    published: Published,
    rules: Sequence[Rule],
    first: date,
    last: date,
    *,
    cards: Mapping[str, RuleCard],
    routing: Routing,
    zone: tzinfo,
    schedule: Schedule | None = None,
    known_rules: Sequence[Rule] = (),
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
    wording: Wording | None = None,
    folder: Path | None = None,
    progress: Callable[[float], None] | None = None,
    each_run: bool = False,
    store: Store | None = None,
) -> Rehearsal:
    """What people would have received if these rules had judged the days `first` to `last`, each in its own night.

    `cards`: one per rule; `routing`: whom alerts go to; `zone`: the shop's. `known_rules`: where composite rules find those they
    look at, when these are not among `rules`. `folder`: keeps the messages as files, by channel; default: a temporary one.
    Values are those of the published version: what was restated later is judged as it is known now. Rules on freshness are left
    out, because history does not say when data came. `progress` is told the share that is done.
    """
    plan = schedule or Schedule()
    judged = with_parts(rules, [*rules, *(one for one in known_rules if one.id not in {rule.id for rule in rules})])
    own = pa.array([rule.id for rule in rules], pa.string())
    until = last + timedelta(days=1)
    errors: dict[str, str] = {}
    pieces = verdict_pieces(
        published, judged, first, until, promotions=promotions, references=references, errors=errors
    )
    of_own = ((end, _of_rules(table, own)) for end, table in pieces)
    start = datetime(first.year, first.month, first.day)
    length = timedelta(days=(until - first).days + 1)
    with tempfile.TemporaryDirectory() as scratch, _place(store, Path(scratch)) as place:
        stage = _Stage(
            place,
            folder or Path(scratch),
            cards=cards,
            routing=routing,
            schedule=plan,
            zone=zone,
            wording=wording or Wording(zone=zone),
        )
        runs = 0
        for tick in ticks(of_own, plan):
            stage.judge(tick, each_run=each_run)
            runs += 1
            if progress is not None:
                progress(min((tick.at - start) / length, 1.0))
        stage.finish()
        return Rehearsal(first, last, stage.messages(), stage.told(), runs, errors)


@contextmanager
def _place(store: Store | None, scratch: Path) -> Iterator[Store]:
    """The store that was given, else a fresh one."""
    if store is not None:
        yield store
    else:
        with fresh_store(scratch, "rehearsal") as own:
            yield own


class _Stage:
    """A store, and the hands of its clock."""

    def __init__(
        self,
        store: Store,
        folder: Path,
        *,
        cards: Mapping[str, RuleCard],
        routing: Routing,
        schedule: Schedule,
        zone: tzinfo,
        wording: Wording,
    ) -> None:
        self._store = store
        self._cards = cards
        self._routing = routing
        self._schedule = schedule
        self._zone = zone
        self._wording = wording
        self._channels = {name: FileChannel(folder / name) for name in {*routing.channels, "file"}}
        self._now = datetime.min.replace(tzinfo=UTC)
        self._quiet: list[Tick] = []
        self._busy: frozenset[str] = frozenset()
        """Grains of which an alert is on its way."""
        self._wake: datetime | None = None
        self._acknowledged: date | None = None

    def judge(self, tick: Tick, *, each_run: bool) -> None:
        """One run, after everything that became due before it."""
        now = self._instant(tick.at)
        self._pass_time(now)
        if each_run or tick.breaches or tick.grains & self._busy:
            self._apply_quiet()
            self._apply(tick.verdicts, now)
        else:
            self._quiet.append(tick)

    def finish(self) -> None:
        """The rest of the day after the last run."""
        self._apply_quiet()
        self._pass_time(self._now + timedelta(hours=12))

    def messages(self) -> tuple[Message, ...]:
        """Everything that was sent."""
        query = sa.select(
            outbox.c.sent_at, outbox.c.receiver, outbox.c.reason, outbox.c.tier, outbox.c.payload
        ).order_by(outbox.c.sent_at, outbox.c.id)
        found = []
        with self._store.reading() as connection:
            rows: list[tuple[Any, ...]] = [row._tuple() for row in connection.execute(query)]
        for sent_at, receiver, reason, tier, payload in rows:
            if sent_at is not None:
                notice = Notice.from_json(payload)
                title = compose(notice, self._wording).title
                found.append(Message(self._local(sent_at), receiver, reason, tier, title, notice))
        return tuple(found)

    def told(self) -> tuple[Told, ...]:
        """Every alert and every receiver the routes led to."""
        pairs, alerts = episode_receivers, alert_instances
        first, last = outbox.alias(), outbox.alias()
        query = (
            sa.select(
                episodes.c.rule,
                alerts.c.dimension,
                alerts.c.member,
                pairs.c.receiver,
                episodes.c.first_period,
                episodes.c.last_period,
                episodes.c.worst_tier,
                episodes.c.closed_at.is_(None),
                first.c.sent_at,
                last.c.sent_at,
                pairs.c.held,
            )
            .select_from(pairs)
            .join(episodes, episodes.c.key == pairs.c.episode)
            .join(alerts, alerts.c.key == episodes.c.instance)
            .join(first, first.c.key == pairs.c.notification, isouter=True)
            .join(last, last.c.key == pairs.c.end_notification, isouter=True)
            .order_by(episodes.c.first_period, episodes.c.key, pairs.c.receiver)
        )
        found = []
        with self._store.reading() as connection:
            rows: list[tuple[Any, ...]] = [row._tuple() for row in connection.execute(query)]
        names = [one.name for one in fields(Told)]
        for row in rows:
            facts = dict(zip(names, row, strict=True))
            times = {name: self._local(facts[name]) for name in ("began_at", "ended_at") if facts[name] is not None}
            found.append(Told(**{**facts, **times, "is_open": bool(facts["is_open"])}))
        return tuple(found)

    # -- time ------------------------------------------------------------------------------------------------------

    def _pass_time(self, until: datetime) -> None:
        """Everything that time brings before an instant: acknowledgements, and what has become due."""
        while True:
            at_desk = self._next_acknowledgement()
            times = [one for one in (self._wake, at_desk) if one is not None]
            if not times or min(times) >= until:
                return
            at = max(min(times), self._now)
            self._apply_quiet()
            self._now = at
            if at_desk is not None and at_desk <= at:
                self._acknowledge(at)
            keys = dispatch_due(self._store, self._routing, now=at)
            self._after(keys)

    def _next_acknowledgement(self) -> datetime | None:
        """When somebody looks next; None while there is nothing to look at."""
        if self._schedule.acknowledged is None or not self._busy:
            return None
        day = self._local(self._now).date()
        if self._acknowledged is None or day > self._acknowledged:
            at = self._instant(datetime.combine(day, self._schedule.acknowledged))
            if at >= self._now:
                return at
        return self._instant(datetime.combine(day + timedelta(days=1), self._schedule.acknowledged))

    def _acknowledge(self, now: datetime) -> None:
        self._acknowledged = self._local(now).date()
        pairs = episode_receivers
        query = sa.select(pairs.c.episode).where(pairs.c.notification != "", pairs.c.end_notification.is_(None))
        with self._store.reading() as connection:
            open_episodes: list[str] = sorted(set(connection.execute(query).scalars()))
        for episode in open_episodes:
            until = now + self._routing.ack_timeout
            acknowledge(self._store, episode, who="rehearsal", now=now, until=until)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _apply_quiet(self) -> None:
        if self._quiet:
            waiting, self._quiet = self._quiet, []
            table = pa.concat_tables([one.verdicts for one in waiting])
            self._apply(table, self._instant(waiting[-1].at))

    def _apply(self, verdicts: pa.Table, now: datetime) -> None:
        self._now = max(now, self._now)  # a clock that is put back repeats an hour
        place = verdicts.column_names.index("evaluated_at")
        at = pa.scalar(self._now.astimezone(UTC).replace(tzinfo=None), pa.timestamp("us"))
        stamped = verdicts.set_column(place, "evaluated_at", pa.repeat(at, verdicts.num_rows))
        judged = {rule: self._cards[rule] for rule in pc.unique(stamped["rule"].cast(pa.string())).to_pylist()}
        report = apply_verdicts(self._store, stamped, judged, receivers=self._routing, now=self._now)
        self._after(report.notifications)
        moving = sa.or_(
            alert_instances.c.state.in_(("pending", "firing", "recovering")), alert_instances.c.episode.is_not(None)
        )
        with self._store.reading() as connection:
            found = connection.execute(sa.select(alert_instances.c.grain).where(moving).distinct())
            self._busy = frozenset(found.scalars())

    def _after(self, queued: Sequence[str]) -> None:
        if queued:
            deliver_due(self._store, self._channels, now=self._now, wording=self._wording, limit=DELIVERED_AT_ONCE)
        with self._store.reading() as connection:
            self._wake = next_wake(connection)

    def _instant(self, local: datetime) -> datetime:
        return local.replace(tzinfo=self._zone).astimezone(UTC)

    def _local(self, instant: datetime) -> datetime:
        return instant.astimezone(self._zone).replace(tzinfo=None)


def _of_rules(table: pa.Table, rules: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(table["rule"].cast(pa.string()), rules))
