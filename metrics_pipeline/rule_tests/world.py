"""The worlds of a file's tests side by side: their values published, their rules judged, in as few steps as possible.

Every test has metrics and rules of its own, the same ones under a name that begins with its number; so one published
version holds the series of all tests, and one statement judges all of them, and no test can see another.

A version says the same of an old period as the version before it, unless something was restated or came late. So nights
are joined: an epoch is a stretch of nights in which no test restates, lacks or completes anything, and is published
once and judged once, with its last night's knowledge. (`every_night` makes each night an epoch; a test of the tests
holds that it changes nothing.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.rule_tests.model import InputSeries, RuleTest
from metrics_pipeline.rule_tests.notation import Sample
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.model import Condition, Part, Rule
from metrics_pipeline.warehouse.manifest import MetricState
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.quoting import identifier, literal
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import Window

VERSION = "test"
_STEP = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
VALUES_SCHEMA = pa.schema(
    [
        ("metric", pa.string()),
        ("period_start", pa.timestamp("us")),
        ("grain", pa.string()),
        ("dimension", pa.string()),
        ("member", pa.string()),
        ("numerator", pa.float64()),
        ("denominator", pa.float64()),
        ("value", pa.float64()),
        ("definition_version", pa.string()),
    ]
)
"""Rows of published values (docs/architecture.md, Published values)."""


@dataclass(frozen=True)
class Clock:
    """What tests must share to live in one version: the grain, the first night, when nights run, and the calendar."""

    grain: str
    first: datetime
    after: timedelta
    promotions: tuple[PromotionDay, ...]

    def period(self, night: int) -> datetime:
        """Start of the period of a night, shop-local."""
        return self.first + (night - 1) * _STEP[self.grain]

    def now(self, night: int) -> datetime:
        """When the night runs: after the end of its period. The shop's clock is UTC."""
        return (self.period(night + 1) + self.after).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Epoch:
    """Nights whose verdicts come from one version."""

    first: int
    last: int
    rows: Mapping[int, list[dict[str, Any]]]
    """Number of the test → its verdicts, with the rules' and metrics' own names, by rule, member and period."""


def clock_of(test: RuleTest, rules: Mapping[str, Rule]) -> Clock:
    """What a test must share with the others of its world."""
    grain = rules[test.rule].grain
    first = datetime.combine(test.first_night, time())
    days = [
        PromotionDay(
            (first + (night - 1) * _STEP[grain]).date(),
            day.event,
            day.event,
            day.event,
            day.day_in_event,
            day.kind,
            "CN",
        )
        for night, day in sorted(test.promotions.items())
    ]
    return Clock(grain, first, test.after(grain), tuple(days))


def epochs(
    clock: Clock, tests: Sequence[RuleTest], rules: Mapping[str, Rule], folder: Path, *, every_night: bool = False
) -> Iterator[Epoch]:
    """The nights of these tests in order. Writes published versions below `folder`."""
    worlds = [_World(number, test, [rules[name] for name in test.rule_ids], clock) for number, test in enumerate(tests)]
    last = max(test.nights for test in tests)
    starts = _starts(worlds, last, every_night=every_night)
    with duckdb.connect() as con:
        con.execute("CREATE SCHEMA base")
        for start, until in zip(starts, [*starts[1:], last + 1], strict=True):
            night = until - 1
            present = [world for world in worlds if world.test.nights >= start]
            published = _publish(con, folder, present, clock, night)
            begin = min([start, *(world.restated_from(start) for world in present)])
            result = evaluate(
                published,
                [rule for world in present for rule in world.rules],
                clock.period(begin),
                clock.period(until),
                evaluated_at=clock.now(night),
                run_id=f"night-{night}",
                promotions=clock.promotions,
                references=[reference for world in present for reference in world.references],
            )
            if result.errors:
                raise RuntimeError(f"the evaluation failed: {result.errors}")
            yield Epoch(start, night, _by_test(result.table, present))


class _World:
    """One test with names of its own."""

    def __init__(self, number: int, test: RuleTest, rules: Sequence[Rule], clock: Clock) -> None:
        self.number = number
        self.test = test
        self._clock = clock
        self._prefix = f"t{number}__"
        self._originals = {self.name(rule.id): rule for rule in rules}
        self.rules = [self._renamed(rule) for rule in rules]
        self.references = [
            Reference(one.kind, self.name(one.metric), one.dimension, one.member, date.min, date.max, one.amount)
            for one in test.references
        ]

    def name(self, text: str) -> str:
        return f"{self._prefix}{text}"

    def original(self, rule: str) -> Rule | None:
        """The rule of a verdict, when it is one of this test."""
        return self._originals.get(rule)

    @property
    def metrics(self) -> Sequence[str]:
        return sorted(
            {series.metric for series in self.test.series} | {rule.metric for rule in self._originals.values()}
        )

    @property
    def changes(self) -> set[int]:
        """Nights at which it is not enough to add the new periods."""
        found = {night for series in self.test.series for night in series.restated}
        for series in self.test.series:
            for night, sample in enumerate(series.values, start=1):
                if sample.absence == "stale":
                    found |= {night, night + 1}
        if any(rule.expr.family == "freshness" for rule in self.rules):
            found |= set(range(1, self.test.nights + 1))
        return found

    def restated_from(self, night: int) -> int:
        """The oldest period that is restated at this night; the night itself when none is."""
        return min([night, *(period for series in self.test.series for period in series.restated.get(night, ()))])

    def known(self, series: InputSeries, night: int) -> Iterator[tuple[int, Sample]]:
        """Night and value of every period as it is known after this night."""
        restated: dict[int, Sample] = {}
        for at in sorted(series.restated):
            if at <= night:
                restated |= series.restated[at]
        samples = (*series.history, *series.values)
        for period, sample in enumerate(samples, start=1 - len(series.history)):
            if period <= night:
                yield period, restated.get(period, sample)

    def complete_until(self, metric: str, night: int) -> datetime | None:
        """Up to where a metric is complete after this night: the end of the last period that no series of it lacks."""
        ends = []
        for series in self.test.series:
            if series.metric == metric:
                come = [period for period, sample in self.known(series, night) if sample.absence != "stale"]
                ends.append(max(come, default=None))
        if not ends or any(end is None for end in ends):
            return None
        latest = min(end for end in ends if end is not None)
        return self._clock.period(latest + 1)

    def _renamed(self, rule: Rule) -> Rule:
        sample = rule.min_sample and rule.min_sample.model_copy(update={"metric": self.name(rule.min_sample.metric)})
        parts = {key: self._parts(getattr(rule, key)) for key in ("all_of", "any_of", "none_of")}
        return rule.model_copy(
            update={"alert": self.name(rule.id), "metric": self.name(rule.metric), "min_sample": sample, **parts}
        )

    def _parts(self, parts: Iterable[Part]) -> tuple[Part, ...]:
        return tuple(
            self.name(part)
            if isinstance(part, str)
            else Condition(
                all_of=self._parts(part.all_of), any_of=self._parts(part.any_of), none_of=self._parts(part.none_of)
            )
            for part in parts
        )


def _starts(worlds: Sequence[_World], last: int, *, every_night: bool) -> list[int]:
    """The nights at which an epoch begins."""
    if every_night:
        return list(range(1, last + 1))
    return sorted({1} | {night for world in worlds for night in world.changes if night <= last})


def _publish(
    con: duckdb.DuckDBPyConnection, folder: Path, worlds: Sequence[_World], clock: Clock, night: int
) -> Published:
    """A version that knows what is known after this night."""
    rows = [row for world in worlds for row in _rows(world, clock, night)]
    values = pa.Table.from_pylist(rows, schema=VALUES_SCHEMA)
    con.register("given", values)
    con.execute("CREATE OR REPLACE TABLE base.worlds AS FROM given")
    con.unregister("given")
    tables = {}
    for world in worlds:
        for metric in world.metrics:
            name = world.name(metric)
            con.execute(
                f"CREATE OR REPLACE VIEW base.{identifier(name)} AS "
                f"SELECT * EXCLUDE (metric) FROM base.worlds WHERE metric = {literal(name)}"
            )
            until = world.complete_until(metric, night)
            tables[name] = MetricTables((f"base.{name}",), MetricState(VERSION, until))
    first = min((row["period_start"] for row in rows), default=clock.first)
    window = Window(first.date(), clock.period(night + 1).date() + timedelta(days=1))
    publish(con, folder, tables=tables, window=window, run_id=f"night-{night}", now=clock.now(night))
    return Published.open(folder)


def _rows(world: _World, clock: Clock, night: int) -> Iterator[dict[str, Any]]:
    for series in world.test.series:
        for period, sample in world.known(series, night):
            if sample.absence not in ("missing", "stale"):
                yield {
                    "metric": world.name(series.metric),
                    "period_start": clock.period(period),
                    "grain": clock.grain,
                    "dimension": series.dimension,
                    "member": series.member,
                    "numerator": sample.numerator,
                    "denominator": sample.denominator,
                    "value": sample.value,
                    "definition_version": VERSION,
                }


def _by_test(table: pa.Table, worlds: Sequence[_World]) -> dict[int, list[dict[str, Any]]]:
    """The verdicts of each test under the names of its rules."""
    owner = {rule.id: world for world in worlds for rule in world.rules}
    found: dict[int, list[dict[str, Any]]] = {world.number: [] for world in worlds}
    for row in table.drop_columns(["severity"]).to_pylist():
        world = owner[row["rule"]]
        rule = world.original(row["rule"])
        assert rule is not None
        found[world.number].append({**row, "rule": rule.id, "metric": rule.metric, "rule_hash": rule.rule_hash})
    for rows in found.values():
        rows.sort(key=lambda row: (row["rule"], row["member"], row["period_start"]))
    return found
