"""What the pages say, gathered in bulk: one query for the values of all metrics, one for their versions, two for alerts.

Who may see what is decided before anything is read: values of a metric that is withheld are never asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import duckdb
import sqlalchemy as sa

from metrics_pipeline.access.reader import GuardedValues
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.definitions import MetricDefinition
from metrics_pipeline.library.versions import what_changed
from metrics_pipeline.routing.people import Directory
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.site.chart import Shade
from metrics_pipeline.site.words import Text, text
from metrics_pipeline.store import Store
from metrics_pipeline.store.tables import alert_instances, episodes, metric_versions

DAYS = 90
"""Days of the chart."""
MEMBERS = 12
"""Members listed of a dimension, the largest first."""
EPISODES = 8
"""Newest episodes listed for a metric."""


@dataclass(frozen=True)
class Value:
    """One published day of the total."""

    day: date
    value: float | None
    numerator: float | None
    denominator: float | None
    version: str


@dataclass(frozen=True)
class SliceValue:
    """One slice on the newest day."""

    dimension: str
    member: str
    value: float | None


@dataclass(frozen=True)
class VersionSpan:
    """Which definition made the published values of which days."""

    version: str
    first: date
    last: date
    days: int


@dataclass(frozen=True)
class VersionNote:
    """One recorded version: what kinds of things changed, by whom and why. What they were stands in none of it."""

    number: int
    version: str
    effective_from: date | None
    """None = all days."""
    changed: tuple[str, ...]
    who: str
    at: datetime
    why: str
    approved_by: str | None


@dataclass(frozen=True)
class EpisodeLine:
    """One episode of a rule on one slice; periods are shop-local."""

    rule: str
    dimension: str
    member: str
    grain: str
    first_period: datetime
    last_period: datetime
    is_open: bool
    tier: str
    worst_value: float | None


@dataclass(frozen=True)
class Entry:
    """One metric with all that its page shows."""

    metric: Metric
    definition: MetricDefinition
    """As it is written."""
    facts: tuple[str, ...]
    """Facts it comes from."""
    is_withheld: bool
    values: tuple[Value, ...] = ()
    slices: tuple[SliceValue, ...] = ()
    """Slices by one dimension on the newest complete day, the largest of each first."""
    versions: tuple[VersionSpan, ...] = ()
    notes: tuple[VersionNote, ...] = ()
    """Recorded versions, newest first."""
    rules: tuple[Rule, ...] = ()
    episodes: tuple[EpisodeLine, ...] = ()
    firing: Mapping[str, int] = field(default_factory=dict)
    """Tier → slices that fire now."""
    complete_until: datetime | None = None


@dataclass(frozen=True)
class Content:
    """The whole site, in pyramid order."""

    entries: Mapping[str, Entry]
    users: Mapping[str, tuple[str, ...]]
    """Metric → metrics that use it directly."""
    shades: tuple[Shade, ...]
    currency: str
    owners: Mapping[str, Text]
    """Owner → the name people know."""
    lines: Mapping[str, Text]
    """Business line → the name people know."""
    data_version: str | None
    published_at: datetime | None
    """Naive UTC."""


def gather(
    catalogue: Catalogue,
    *,
    published: GuardedValues | None,
    rules: Sequence[Rule] = (),
    store: Store | None = None,
    promotions: Sequence[PromotionDay] = (),
    currency: str = "",
    shown: Collection[str] | None = None,
    withheld: Collection[str] = (),
    sliced: Collection[str] = (),
    directory: Directory | None = None,
) -> Content:
    """All that the site says.

    `shown`: ids of the metrics that are on it (default all). `withheld`: those of them without values. `sliced`: those
    of the withheld ones whose slices are asked for all the same, because `published` gives its reader some of them.
    """
    metrics = {name: metric for name, metric in catalogue.metrics.items() if shown is None or name in shown}
    open_ones = [name for name in metrics if name not in withheld]
    states = published.metrics if published is not None else {}
    values = _values(published, open_ones) if published is not None else {}
    slices = _slices(published, [*open_ones, *(name for name in metrics if name in sliced)]) if published else {}
    versions = _versions(published, open_ones) if published is not None else {}
    rules_of: dict[str, list[Rule]] = {}
    told_of = {rule.id for rule in rules if rule.metric in metrics}
    for rule in rules:
        if told_of.issuperset({rule.id, *rule.references}):
            rules_of.setdefault(rule.metric, []).append(rule)
    visible_rules = {rule.id: rule.metric for name in open_ones for rule in rules_of.get(name, ())}
    lines = _episodes(store, visible_rules) if store is not None else {}
    firing = _firing(store, visible_rules) if store is not None else {}
    notes = _notes(store) if store is not None else {}
    facts = _facts(catalogue)
    definitions = {one.id: one for one in catalogue.definitions.metrics}
    return Content(
        entries={
            name: Entry(
                metric,
                definition=definitions[name],
                facts=facts[name],
                is_withheld=name in withheld,
                values=values.get(name, ()),
                slices=slices.get(name, ()),
                versions=versions.get(name, ()),
                notes=notes.get(name, ()),
                rules=tuple(rules_of.get(name, ())),
                episodes=lines.get(name, ()),
                firing=firing.get(name, {}),
                complete_until=states[name].complete_until if name in states and name not in withheld else None,
            )
            for name, metric in metrics.items()
        },
        users={name: tuple(user for user in users if user in metrics) for name, users in catalogue.downstream.items()},
        shades=shades_of(promotions),
        currency=currency,
        owners=_names(directory, ("people", "teams", "rotations")),
        lines=_names(directory, ("lines",)),
        data_version=published.version if published is not None else None,
        published_at=published.created_at if published is not None else None,
    )


def shades_of(promotions: Iterable[PromotionDay]) -> tuple[Shade, ...]:
    """Runs of consecutive days of one event; long mild seasons are left out, because they would shade everything."""
    runs: dict[str, Shade] = {}
    done: list[Shade] = []
    for day in sorted(promotions, key=lambda one: one.date):
        if day.kind in ("season", "after"):
            continue
        run = runs.get(day.event)
        if run is not None and day.date <= run.last + timedelta(days=1):
            runs[day.event] = Shade(run.first, max(run.last, day.date), run.name_zh, run.name_en)
            continue
        if run is not None:
            done.append(run)
        runs[day.event] = Shade(day.date, day.date, day.name_zh, day.name_en)
    return tuple(sorted([*done, *runs.values()], key=lambda run: (run.first, run.name_en)))


def _values(published: GuardedValues, metrics: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Daily totals of the last `DAYS` complete days of each metric, oldest first."""
    spans = [
        (name, until.date() - timedelta(days=DAYS), until.date())
        for name in metrics
        if (state := published.metrics.get(name)) and (until := state.complete_until) and not state.is_absent
    ]
    if not spans:
        return {}
    found: dict[str, list[Value]] = {}
    with published.connect(min(start for _, start, _ in spans), max(until for _, _, until in spans)) as con:
        _wanted(con, spans)
        for name, *row in con.execute(
            "SELECT metric, period_start::DATE, value, numerator, denominator, definition_version FROM metric_values "
            "JOIN wanted USING (metric) WHERE grain = 'day' AND dimension = 'all' AND member = 'all' "
            "AND period_start >= wanted.start AND period_start < wanted.until ORDER BY metric, period_start"
        ).fetchall():
            found.setdefault(name, []).append(Value(*row))
    return {name: tuple(rows) for name, rows in found.items()}


def _slices(published: GuardedValues, metrics: Sequence[str]) -> dict[str, tuple[SliceValue, ...]]:
    """Slices by one dimension on the newest complete day of each metric, of each dimension the `MEMBERS` largest."""
    days = [
        (name, until.date() - timedelta(days=1), until.date())
        for name in dict.fromkeys(metrics)
        if (state := published.metrics.get(name)) and (until := state.complete_until) and not state.is_absent
    ]
    if not days:
        return {}
    found: dict[str, list[SliceValue]] = {}
    with published.connect(min(day for _, day, _ in days), max(until for _, _, until in days)) as con:
        _wanted(con, days)
        for name, *row in con.execute(
            "SELECT metric, dimension, member, value FROM metric_values JOIN wanted USING (metric) "
            "WHERE grain = 'day' AND dimension NOT IN ('all', 'sku') AND NOT contains(dimension, '|') "
            "AND period_start >= wanted.start AND period_start < wanted.until "
            "QUALIFY row_number() OVER (PARTITION BY metric, dimension ORDER BY value DESC NULLS LAST, member) <= $1 "
            "ORDER BY metric, dimension, value DESC NULLS LAST, member",
            [MEMBERS],
        ).fetchall():
            found.setdefault(name, []).append(SliceValue(*row))
    return {name: tuple(rows) for name, rows in found.items()}


def _names(directory: Directory | None, kinds: Sequence[str]) -> dict[str, Text]:
    """Ids of a directory → their names; the id where a language has none."""
    found = [one for kind in kinds for one in getattr(directory, kind, {}).values()]
    return {one.id: text(one.name_zh or one.id, one.name_en or one.id) for one in found}


def _versions(published: GuardedValues, metrics: Sequence[str]) -> dict[str, tuple[VersionSpan, ...]]:
    """Versions of the published daily totals of each metric, newest first."""
    found: dict[str, list[VersionSpan]] = {}
    with published.connect() as con:
        _wanted(con, [(name, None, None) for name in metrics])
        for name, *row in con.execute(
            "SELECT metric, definition_version, min(period_start)::DATE, max(period_start)::DATE, count(*) "
            "FROM metric_values JOIN wanted USING (metric) "
            "WHERE grain = 'day' AND dimension = 'all' AND member = 'all' GROUP BY ALL "
            "ORDER BY metric, max(period_start) DESC, min(period_start) DESC"
        ).fetchall():
            found.setdefault(name, []).append(VersionSpan(*row))
    return {name: tuple(rows) for name, rows in found.items()}


def _notes(store: Store) -> dict[str, tuple[VersionNote, ...]]:
    """Recorded versions of every metric, newest first."""
    table = metric_versions.c
    query = sa.select(
        table.metric, table.number, table.version, table.effective_from, table.diff, table.who, table.at, table.why,
        table.approved_by,
    ).order_by(table.metric, table.number.desc())  # fmt: skip
    found: dict[str, list[VersionNote]] = {}
    with store.reading() as connection:
        for row in connection.execute(query):
            note = VersionNote(
                row.number, row.version, row.effective_from, what_changed(row.diff), row.who, row.at, row.why,
                row.approved_by,
            )  # fmt: skip
            found.setdefault(row.metric, []).append(note)
    return {name: tuple(rows) for name, rows in found.items()}


def _wanted(con: duckdb.DuckDBPyConnection, spans: Sequence[tuple[str, date | None, date | None]]) -> None:
    names, starts, untils = (list(column) for column in zip(*spans, strict=True)) if spans else ([], [], [])
    con.execute(
        "CREATE TABLE wanted AS SELECT unnest($1::VARCHAR[]) AS metric, unnest($2::DATE[]) AS start, "
        "unnest($3::DATE[]) AS until",
        [names, starts, untils],
    )


def _episodes(store: Store, rules: Mapping[str, str]) -> dict[str, tuple[EpisodeLine, ...]]:
    """The newest episodes of every metric. `rules`: rule → its metric."""
    newest = sa.func.row_number().over(
        partition_by=episodes.c.rule, order_by=(episodes.c.first_period.desc(), episodes.c.key)
    )
    ranked = (
        sa.select(
            episodes.c.rule,
            alert_instances.c.dimension,
            alert_instances.c.member,
            alert_instances.c.grain,
            episodes.c.first_period,
            episodes.c.last_period,
            episodes.c.closed_at.is_(None).label("is_open"),
            episodes.c.worst_tier,
            episodes.c.worst_value,
            newest.label("place"),
        )
        .join(alert_instances, alert_instances.c.key == episodes.c.instance)
        .subquery()
    )
    found: dict[str, list[EpisodeLine]] = {}
    with store.reading() as connection:
        for row in connection.execute(sa.select(ranked).where(ranked.c.place <= EPISODES)):
            if row.rule in rules:
                found.setdefault(rules[row.rule], []).append(EpisodeLine(*row[:-1]))
    for lines in found.values():
        lines.sort(key=lambda line: (line.dimension, line.member, line.rule))
        lines.sort(key=lambda line: line.first_period, reverse=True)
        lines.sort(key=lambda line: not line.is_open)
    return {name: tuple(lines[:EPISODES]) for name, lines in found.items()}


def _firing(store: Store, rules: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Metric → tier → slices that fire now."""
    table = alert_instances
    query = (
        sa.select(table.c.rule, table.c.tier, sa.func.count().label("slices"))
        .where(table.c.state.in_(("firing", "recovering")))
        .group_by(table.c.rule, table.c.tier)
    )
    found: dict[str, Counter[str]] = {}
    with store.reading() as connection:
        for row in connection.execute(query):
            if row.rule in rules:
                found.setdefault(rules[row.rule], Counter())[row.tier] += row.slices
    return found


def _facts(catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    """Metric → facts of every measure below it. Inputs come before what uses them."""
    fact_of = {
        measure.name: model.fact for model in catalogue.definitions.semantic_models for measure in model.measures
    }
    own: dict[str, list[str]] = {}
    for one in catalogue.definitions.metrics:
        pair = one.conversion and (one.conversion.base_measure, one.conversion.conversion_measure)
        measures = pair or ((one.measure,) if one.measure else ())
        own[one.id] = [fact_of[name] for name in measures]
    found: dict[str, tuple[str, ...]] = {}

    def of(name: str) -> tuple[str, ...]:
        if name not in found:
            below = [fact for source in catalogue.metrics[name].inputs for fact in of(source)]
            found[name] = tuple(dict.fromkeys([*own.get(name, []), *below]))
        return found[name]

    for name in catalogue.metrics:
        of(name)
    return found
