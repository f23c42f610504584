"""The command line as a door: who stands in it, what they may see, and the record of what they did.

Every verb that shows something of a metric opens it here. While no policy is on, everything is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metrics_pipeline.cli.output import fail, opened_store, usage
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.access.model import Facts
    from metrics_pipeline.access.reader import GuardedValues
    from metrics_pipeline.access.viewer import Viewer
    from metrics_pipeline.alerts.listing import NotificationView
    from metrics_pipeline.alerts.sight import Sight
    from metrics_pipeline.library.catalogue import Catalogue, Metric
    from metrics_pipeline.library.facts import FactsReader
    from metrics_pipeline.routing.people import Directory
    from metrics_pipeline.rules.model import Rule
    from metrics_pipeline.store import Store
    from metrics_pipeline.store.access import MembershipRow
    from metrics_pipeline.store.audit import Caller, Event


@dataclass(frozen=True)
class CliDoor:
    """Who uses the command line, as of one transaction of the store."""

    settings: Settings
    store: Store
    now: datetime
    is_open: bool

    @property
    def caller(self) -> Caller:
        from metrics_pipeline.store.audit import Caller

        return Caller(self.settings.user, "cli")

    @cached_property
    def library(self) -> Mapping[str, Metric]:
        """All metrics of the library; what may be shown of them is `known`."""
        from metrics_pipeline.library.catalogue import Catalogue

        return Catalogue.read(self.settings.dbt_project_dir).metrics

    @cached_property
    def facts(self) -> Mapping[str, Facts]:
        """What the policy knows of the metrics of the library."""
        from metrics_pipeline.access.model import facts_of

        return facts_of(self.library)

    @cached_property
    def directory(self) -> Directory:
        """The people of the installation."""
        from metrics_pipeline.routing.load import routing_of

        return routing_of(self.settings).directory

    @cached_property
    def viewer(self) -> Viewer:
        """Who stands in the door."""
        return self.viewer_of(self.settings.user)

    @cached_property
    def members(self) -> Sequence[MembershipRow]:
        """Who is in which position and line by `_people.yml`."""
        from metrics_pipeline.routing.members import members_of

        return members_of(self.directory, now=self.now)

    def viewer_of(self, person: str, kind: str = "person", *, as_if_on: bool = False) -> Viewer:
        """Anybody, with the grants the store has now; `as_if_on`: also while the policy is off."""
        from metrics_pipeline.access.viewer import closed_viewer, everybody

        if self.is_open and not as_if_on:
            return everybody(person, {}, now=self.now)
        with self.store.reading() as connection:
            return closed_viewer(connection, person, self.facts, self.members, now=self.now, kind=kind)

    @cached_property
    def sight(self) -> Sight:
        """What they may see of alerts."""
        from metrics_pipeline.alerts.notice import RuleCard
        from metrics_pipeline.alerts.sight import Sight
        from metrics_pipeline.store import dispatch

        if self.is_open:
            return Sight(self.viewer, {})
        with self.store.reading() as connection:
            cards = dispatch.cards(connection)
        return Sight(self.viewer, {rule: RuleCard.from_json(card) for rule, card in cards.items()})

    def is_general(self, action: str) -> bool:
        """Whether they may do this with all metrics and slices."""
        from metrics_pipeline.alerts.sight import is_general

        return is_general(self.viewer.rights(action))

    def require_general(self, action: str) -> None:
        """`require`, for what is about all metrics and slices at once."""
        if not self.is_general(action):
            self.deny(action, "installation")
            fail(f"{self.viewer.person} may not {action} on all metrics and slices: no grant allows it (无权限)")

    def require_alerts(self, action: str, keys: Iterable[str]) -> None:
        """`require`, for instances or episodes by their keys."""
        from metrics_pipeline.access.model import Level

        for key in keys:
            if self.sight.level_of(key, action=action) == Level.DENIED:
                self.deny(action, key if self.sight.sees(key) else "alert")
                what = f"{action} {key}" if self.sight.sees(key) else f"{action} all of that"
                fail(f"{self.viewer.person} may not {what}: no grant allows it (无权限)")

    def acts_as(self, who: str | None, option: str) -> str:
        """Who acts; while a policy is on nobody acts in another one's name."""
        if who is not None and not self.is_open and who != self.viewer.person:
            usage(f"{option} {who!r} is not you ({self.viewer.person}); while a policy is on you act as yourself")
        return who or self.settings.user

    def sees_rule(self, rule: Rule, known: Mapping[str, Rule]) -> bool:
        """Whether they may know of every metric that a rule looks at."""
        return self.is_open or all(self.viewer.reading.knows(name) for name in metrics_of(rule, known))

    def published(self) -> GuardedValues:
        """The published values as they may see them. Raises `NotPublished`."""
        from metrics_pipeline.access.reader import GuardedValues

        return GuardedValues.for_viewer(self.settings.published_dir, self.viewer)

    def counted(self, whole: Catalogue) -> FactsReader:
        """What can be counted from facts, as they may see it; `whole`: all definitions."""
        from metrics_pipeline.access.library import counts_sql
        from metrics_pipeline.library.facts import FactsReader

        definitions, rights = whole.definitions, self.viewer.reading
        return FactsReader(
            self.settings.build_path, lambda measures: counts_sql(definitions, measures, rights),
            self.settings.distinct_counts,
        )  # fmt: skip

    def known(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """Of things by metric id those whose metric they may know of."""
        return {name: one for name, one in metrics.items() if self.viewer.reading.knows(name)}

    def formula(self, metric: Metric) -> str:
        """A metric's formula without the names of metrics they may not know of."""
        from metrics_pipeline.access.library import known_formula

        return known_formula(metric.formula, metric, self.viewer.reading)

    def read(self, metric: str, by: str, member: str | None, *, rows: int) -> None:
        """Record a read of a sensitive metric; of others nothing is kept."""
        from metrics_pipeline.store.audit import Event

        if rows and metric in self.facts and self.facts[metric].is_sensitive:
            where = "" if by == "all" else f"{by}={member or '*'}"
            self.record([Event("metric.read", metric, where, "done", {"rows": rows})])

    def read_alerts(self, rows: Iterable[Any]) -> None:
        """`read`, of alerts that are shown: rows with an `instance` or `key` and numbers that were not taken away."""
        from metrics_pipeline.access.model import SENSITIVE
        from metrics_pipeline.alerts.notice import RuleCard
        from metrics_pipeline.alerts.sight import NUMBERS
        from metrics_pipeline.store import dispatch
        from metrics_pipeline.store.audit import Event

        told = [row for row in rows if any(getattr(row, name, None) is not None for name in NUMBERS)]
        if not told:
            return
        with self.store.reading() as connection:
            cards = {rule: RuleCard.from_json(card) for rule, card in dispatch.cards(connection).items()}
        rules = Counter(
            str(getattr(row, "instance", None) or getattr(row, "key", "")).partition("{")[0] for row in told
        )
        counts: Counter[str] = Counter()
        for rule, count in rules.items():
            if rule in cards and cards[rule].sensitivity == SENSITIVE:
                counts[cards[rule].metric] += count
        self.record([Event("metric.read", metric, "", "done", {"alerts": count}) for metric, count in counts.items()])

    def read_inputs(self, metric: str, library: Catalogue, *, rows: int) -> None:
        """`read`, of a metric tried on history: with its inputs, which it is computed from."""
        for name in (metric, *library.upstream(metric)):
            self.read(name, "all", None, rows=rows)

    def require_export(self, what: str, target: Path | None) -> None:
        """`require("export")` when something is to be written to a file, and its record; nothing is kept in the open."""
        from metrics_pipeline.store.audit import Event

        if target is not None and not self.is_open:
            self.require("export")
            self.record([Event("export", what, details={"to": str(target)})])

    def catalogue(self, whole: Catalogue) -> Catalogue:
        """The part of a catalogue they may know of: other metrics stand in no formula and no lineage."""
        from metrics_pipeline.access.library import known_catalogue

        return known_catalogue(whole, self.viewer.reading)

    def messages(self, rows: Iterable[NotificationView]) -> list[NotificationView]:
        """Notifications all of whose alerts they may know of."""
        from metrics_pipeline.store.outbox import instances_told

        found = list(rows)
        if self.is_open:
            return found
        with self.store.reading() as connection:
            told = instances_told(connection, [one.key for one in found])
        return [one for one in found if told.get(one.key) and all(map(self.sight.sees, told[one.key]))]

    def words(self, text: str) -> str:
        """A text about definitions without the metrics they may not know of."""
        from metrics_pipeline.access.library import known_words

        return text if self.is_open else known_words(text, self.library, self.viewer.reading)

    def knows_named(self, *texts: object) -> bool:
        """Whether they may know of every metric that these texts name."""
        from metrics_pipeline.access.library import metrics_named

        return self.is_open or all(map(self.viewer.reading.knows, metrics_named(f"{texts}", self.library)))

    def knows_whole(self, metric: str) -> bool:
        """Whether they may know of a metric and of what it is made of."""
        found = None if self.is_open else self.facts.get(metric)
        return all(map(self.viewer.reading.knows, (metric, *(() if found is None else found.inputs))))

    def require(self, action: str, metric: str | None = None, dimension: str = "all", member: str = "all") -> None:
        """End with exit code 1, and a row in the audit log, when they may not do this."""
        from metrics_pipeline.access.viewer import Denied

        try:
            self.viewer.require(action, metric, dimension, member)
        except Denied as error:
            self.deny(action, metric or "installation", dimension, member)
            fail(str(error))

    def deny(self, action: str, subject: str, dimension: str = "all", member: str = "all") -> None:
        """Record that something was asked for and not given."""
        from metrics_pipeline.store.audit import Event

        where = "" if dimension == "all" else f"{dimension}={member}"
        self.record([Event(f"denied.{action}", subject, where, "denied")])

    def record(self, events: Sequence[Event]) -> None:
        """Write to the audit log."""
        from metrics_pipeline.store import audit

        if events:
            with self.store.writing("audit") as connection:
                audit.record_all(connection, self.caller, events, now=self.now)


def metrics_of(rule: Rule, known: Mapping[str, Rule]) -> set[str]:
    """The metrics a rule looks at, for its sample and by its parts, too."""
    found, waiting = {rule.metric, *_sample_of(rule)}, list(rule.references)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            part = known.get(name)
            found |= {""} if part is None else {part.metric, *_sample_of(part)}
            waiting += () if part is None else part.references
    return found


def _sample_of(rule: Rule) -> set[str]:
    return {rule.min_sample.metric} if rule.min_sample is not None and rule.min_sample.metric else set()


def require_authors(settings: Settings) -> None:
    """Files of definitions and rules name any metric and slice: with a policy on they are for who may compose and see all.

    An installation without a store yet is open.
    """
    if not has_store(settings):
        return
    with opened_door(settings) as door:
        door.require_general("compose")
        door.require_general("read")


def require_operator(settings: Settings) -> None:
    """End with exit code 1 unless the user may run and look after the installation; one without a store yet is open."""
    if not has_store(settings):
        return
    with opened_door(settings) as door:
        if not door.is_open:
            door.require("operate")


def has_store(settings: Settings) -> bool:
    """Whether there may be a policy; looking makes no store."""
    return settings.store_url is not None or (settings.home / "store.db").exists()


@contextmanager
def opened_door(settings: Settings | None = None) -> Iterator[CliDoor]:
    """The door of the user of this process, as the store stands now."""
    from metrics_pipeline.store import access as rows

    chosen = settings or load_settings()
    now = datetime.now(UTC)
    with opened_store(chosen) as store:
        with store.reading() as connection:
            is_open = rows.enabled(connection) is None
        yield CliDoor(chosen, store, now, is_open)
