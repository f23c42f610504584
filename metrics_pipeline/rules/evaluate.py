"""Judging: rules × slices × periods of published values → evaluations, in one SQL statement.

Reads only the months that the baselines need, writes only what is new, and holds the verdicts of the run for the
checks, messages and tables that are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.forecasting import judged as foreseen
from metrics_pipeline.forecasting.panel import HISTORY_DAYS, Panel, empty_panel, query_panel
from metrics_pipeline.forecasting.supply import SKU_HISTORY_DAYS, terms_of
from metrics_pipeline.rules import anomaly, composite, freshness, together
from metrics_pipeline.rules.expression import TOGETHER
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.past_incidents import PastIncident, changes
from metrics_pipeline.rules.statement import (
    COLUMNS,
    KEY,
    NUMBERS,
    OF_RULE,
    TYPES,
    Relations,
    Span,
    relations,
    ruleset,
    statement,
)
from metrics_pipeline.warehouse.attributes import read_products
from metrics_pipeline.warehouse.history import EMPTY_VALUES
from metrics_pipeline.warehouse.quoting import is_one_of, literal
from metrics_pipeline.warehouse.read import MetricState, Published
from metrics_pipeline.warehouse.window import next_month

if TYPE_CHECKING:
    import pandas as pd

ROW_GROUP = 122_880
"""Rows of a row group of the files of evaluations: what DuckDB reads at a time."""
_TYPES = {
    "period_start": "TIMESTAMP",
    "evaluated_at": "TIMESTAMP",
    **dict.fromkeys(NUMBERS, "DOUBLE"),
}


@dataclass(frozen=True)
class RuleSummary:
    """What a run says of one rule, over all its slices and periods."""

    rule: str
    evaluated: int
    """Slices × periods with a verdict of ok, yellow or red."""
    yellow: int
    red: int
    no_data: int
    unknown: int
    worst_member: str | None
    """Slice that lies furthest beyond (or nearest to) the first threshold; None when nothing could be judged."""
    worst_period: datetime | None
    worst_value: float | None
    worst_observed: float | None
    error: str | None = None
    """Why the rule could not be evaluated."""

    @property
    def tier(self) -> str:
        """red, yellow, ok, no_data or unknown: the worst verdict there is; no_data only when nothing could be judged."""
        if self.red:
            return "red"
        if self.yellow:
            return "yellow"
        if self.evaluated:
            return "ok"
        return "no_data" if self.no_data else "unknown"


@dataclass(frozen=True)
class Evaluations:
    """The verdicts of one run, and where the new ones were written."""

    table: pa.Table = field(repr=False)
    """All verdicts of the run, new or known, in no order: `COLUMNS` and `severity`. Texts that are the same for a rule or
    the run are dictionary-encoded."""
    sql: str = field(repr=False)
    """The statement that made them."""
    directory: Path | None
    paths: tuple[Path, ...]
    """The files this run added, one for each month; () when there was nothing new."""
    rules: tuple[str, ...]
    """Ids of the rules that were evaluated, in their order."""
    errors: dict[str, str]
    """Rule → why the database could not evaluate it."""

    @property
    def path(self) -> Path | None:
        """The folder of all evaluations; None when nothing was to be written."""
        return self.directory

    @property
    def rows(self) -> int:
        """Number of verdicts."""
        return int(self.table.num_rows)

    def summary(self) -> list[RuleSummary]:
        """One entry for each rule that was evaluated, in the order of the rules."""
        counts: dict[tuple[str, str], int] = {}
        grouped = self.table.group_by(["rule", "tier"]).aggregate([("member", "count")])
        for row in grouped.to_pylist():
            counts[row["rule"], row["tier"]] = row["member_count"]
        worst = self._worst_of_each()
        found = []
        for rule in self.rules:
            of = {tier: counts.get((rule, tier), 0) for tier in ("ok", "yellow", "red", "no_data", "unknown")}
            row = worst.get(rule, {})
            found.append(
                RuleSummary(
                    rule=rule,
                    evaluated=of["ok"] + of["yellow"] + of["red"],
                    yellow=of["yellow"],
                    red=of["red"],
                    no_data=of["no_data"],
                    unknown=of["unknown"],
                    worst_member=row.get("member"),
                    worst_period=row.get("period_start"),
                    worst_value=row.get("value"),
                    worst_observed=row.get("observed"),
                    error=self.errors.get(rule),
                )
            )
        return found

    def worst(self, rule: str, n: int = 20) -> pd.DataFrame:
        """The `n` slices of a rule that are worst: red before yellow before ok, then by distance; `COLUMNS`."""
        judged = self.table.filter((pc.field("rule") == rule) & pc.field("severity").is_valid())
        order = pc.replace_with_mask(
            pa.array([2] * judged.num_rows, pa.int8()),
            pc.equal(judged["tier"], "red").combine_chunks(),
            pa.scalar(0, pa.int8()),
        )
        order = pc.if_else(pc.equal(judged["tier"], "yellow"), pa.scalar(1, pa.int8()), order)
        ordered = judged.append_column("order", order).sort_by([("order", "ascending"), ("severity", "descending")])
        return _frame(ordered.slice(0, n))

    def breaches(self) -> pd.DataFrame:
        """All yellow and red verdicts, by rule, member and period; `COLUMNS`."""
        return _frame(_sorted(self.table.filter(pc.field("tier").isin(["yellow", "red"]))))

    def frame(self) -> pd.DataFrame:
        """All verdicts; for small runs and tests. `COLUMNS`."""
        return _frame(_sorted(self.table))

    def _worst_of_each(self) -> dict[str, dict[str, Any]]:
        judged = self.table.filter(pc.field("severity").is_valid()).select(
            ["rule", "member", "period_start", "value", "observed", "severity"]
        )
        best = judged.group_by("rule").aggregate([("severity", "max")])
        greatest = dict(zip(best["rule"].to_pylist(), best["severity_max"].to_pylist(), strict=True))
        rules = judged["rule"].unify_dictionaries().combine_chunks()
        of_rule = pa.array([greatest.get(rule) for rule in rules.dictionary.to_pylist()], pa.float64())
        is_worst = pc.equal(judged["severity"], of_rule.take(rules.indices))
        found: dict[str, dict[str, Any]] = {}
        for row in _sorted(judged.filter(is_worst)).to_pylist():
            found.setdefault(row["rule"], row)
        return found


def evaluate(
    published: Published,
    rules: Sequence[Rule],
    start: date | datetime,
    until: date | datetime,
    *,
    evaluated_at: datetime,
    run_id: str,
    zone: tzinfo = UTC,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
    incidents: Sequence[PastIncident] = (),
    evaluations_dir: Path | None = None,
) -> Evaluations:
    """Judge every rule on every slice for the periods that begin in [start, until), shop-local.

    `evaluated_at` is now: aware, or naive UTC; with `zone`, the shop's, it decides whether a value is late.
    `promotions` are the days of the calendar that this shop takes part in, `references` its targets and benchmarks,
    `incidents` what no baseline is learned from. With `evaluations_dir` the verdicts that
    are not there yet are added below it, one file for each month; a second run adds nothing.

    A rule that the database cannot evaluate gets the verdict `unknown` with the reason `error`, and stops only itself.
    """
    span = Span(moment(start), moment(until))
    now = evaluated_at if evaluated_at.tzinfo else evaluated_at.replace(tzinfo=UTC)
    with published.connect(span.start, span.until) as con:
        judged = Judging(
            con, published, now.astimezone(zone).replace(tzinfo=None), promotions, references, incidents=incidents
        )
        judged.run("verdicts", rules, span)
        stamp = Stamp(published.version, now.astimezone(UTC).replace(tzinfo=None), run_id)
        table = verdict_table(con.sql("SELECT * FROM found").to_arrow_table(), judged.ruleset, stamp)
        paths = _write(con, table, evaluations_dir, stamp) if evaluations_dir is not None else ()
    return Evaluations(table, judged.sql, evaluations_dir, paths, tuple(rule.id for rule in rules), judged.errors)


@dataclass(frozen=True)
class Stamp:
    """What all verdicts of a run share."""

    data_version: str
    evaluated_at: datetime
    """Naive UTC."""
    run_id: str


class Judging:
    """The statement on a connection; `evaluate` and `replay` run it."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        published: Published,
        local_now: datetime,
        promotions: Sequence[PromotionDay],
        references: Sequence[Reference] = (),
        *,
        incidents: Sequence[PastIncident] = (),
    ) -> None:
        self._con = con
        self._published = published
        self._metrics = published.metrics
        self._now = local_now
        self._promotions = promotions
        self._references = references
        self._incidents = incidents
        self._known: Sequence[PastIncident] = ()
        """Incidents that are known throughout the part of the span that is judged now."""
        self._exists = False
        self.sql = ""
        """The statement of all rules but the composite ones, which come after it in the same form."""
        self.errors: dict[str, str] = {}
        con.execute(TYPES)
        self.ruleset = ruleset((), {})
        """Number, id and versions of each rule; on the connection, too."""

    def run(self, view: str, rules: Sequence[Rule], span: Span) -> None:
        """Judge these rules and periods: the temporary table `found` (`rule_no` and what the statement selects), and
        the view of this name, which has the columns `OF_RULE` instead of the number.

        First every rule on values, then the facts about metrics, then composite rules over what was found. Where a
        metric's definition changes within the span, or what is known of past incidents, the days before and after are
        judged each by themselves: each value is compared with history of its own definition only.
        """
        read = {rule.metric for rule in rules}
        incidents = [one for one in self._incidents if one.metric in read]
        spans = span.split(_changes(rules, self._published.metrics) | changes(incidents))
        sets: list[pa.Table] = []
        self._con.execute(f"DROP VIEW IF EXISTS {view}; DROP TABLE IF EXISTS found")
        self._exists = False
        for piece in spans:
            self._metrics = {name: state.at(piece.start) for name, state in self._published.metrics.items()}
            self._known = [one for one in incidents if one.is_known(piece.start)]
            first = len(sets) * len(rules)
            sets.append(ruleset(rules, self._metrics, self._references, first=first))
            facts_since = span.start if piece.until == span.until else None
            self._judge(list(enumerate(rules, start=first)), piece, facts_since)
        self.ruleset = pa.concat_tables(sets)
        self._con.register("ruleset", self.ruleset)
        self._con.execute(
            f"""CREATE TEMP VIEW {view} AS
            SELECT {", ".join(f"r.{name}" for name in OF_RULE)}, f.* EXCLUDE (rule_no)
            FROM found AS f
            JOIN ruleset AS r ON r.rule_no = f.rule_no"""
        )

    def _judge(self, numbered: Sequence[composite.Numbered], span: Span, facts_since: datetime | None) -> None:
        """Add the verdicts of a span in which every metric has one definition, and facts about metrics (None = no)."""
        fresh = [(n, rule) for n, rule in numbered if rule.expr.family == "freshness"]
        plain = [(n, rule) for n, rule in numbered if rule.expr.family != "freshness" and rule.condition is None]
        self._stage(plain, numbered, span)
        if fresh and facts_since is not None:
            rows = freshness.verdicts(fresh, self._metrics, self._now, facts_since, span.until)
            self._add_rows(rows)
        for stage in composite.stages(numbered):
            self._stage(stage, numbered, span)

    def _stage(self, rules: Sequence[composite.Numbered], run: Sequence[composite.Numbered], span: Span) -> None:
        """Judge rules that do not look at each other; one that the database cannot judge stops only itself."""
        try:
            self._add(rules, run, span)
        except duckdb.Error:
            for one in rules:
                try:
                    self._add([one], run, span)
                except duckdb.Error as error:
                    self.errors[one[1].id] = str(error).strip().splitlines()[0]
                    self._add_error(one, span)

    def _add(self, rules: Sequence[composite.Numbered], run: Sequence[composite.Numbered], span: Span) -> None:
        needed = self._relations(rules, span)
        if needed.forecasts:
            self._con.register("forecasts", self._foreseen(needed.forecasts, span))
        composed = ""
        if "composite" in needed.features:
            self._con.register("leaves", composite.leaves(rules, run))
            composed = composite.ctes(rules)
        values = self._values(needed)
        if needed.anomalies:
            self._con.register("anomaly_found", self._learned(values, needed.anomalies, (span.start, span.until)))
        sql = statement(values, needed, composed)
        if not composed:
            self.sql = sql
        self._put(sql, {"evaluated_at": self._now})

    def _learned(self, values: str, asked: Sequence[anomaly.Asked], span: tuple[datetime, datetime]) -> pa.Table:
        """What is said of the series each by itself, and of the metrics of a slice together."""
        whole = [one for one in asked if one.expression.pattern in TOGETHER]
        alone = [one for one in asked if one.expression.pattern not in TOGETHER]
        parts = [anomaly.found(self._con, values, alone, self._promotions, span)] if alone else []
        parts += [together.found(self._published, whole, self._promotions, span)] if whole else []
        return pa.concat_tables(parts)

    def _put(self, sql: str, parameters: dict[str, Any]) -> None:
        into = "INSERT INTO found BY NAME" if self._exists else "CREATE TEMP TABLE found AS"
        self._con.execute(f"{into} {sql}", parameters)
        self._exists = True

    def _add_rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            schema = (
                self._con.sql(
                    "SELECT * REPLACE (tier::VARCHAR AS tier, reason::VARCHAR AS reason, "
                    "holds::VARCHAR AS holds) FROM found LIMIT 0"
                )
                .to_arrow_table()
                .schema
            )
            self._con.register(
                "given", pa.Table.from_pylist([{**dict.fromkeys(schema.names), **row} for row in rows], schema)
            )
            self._put("FROM given", {})

    def _relations(self, rules: Sequence[composite.Numbered], span: Span) -> Relations:
        needed = relations(
            [rule for _, rule in rules],
            self._metrics,
            self._promotions,
            span,
            numbers=[number for number, _ in rules],
            set_numbers=self._references,
            incidents=self._known,
        )
        for name, relation in needed.tables.items():
            self._con.register(name, relation)
        return needed

    def _add_error(self, one: composite.Numbered, span: Span) -> None:
        """The verdicts of a rule without values: its thresholds are taken away and its metric is not read."""
        number, rule = one
        nothing = dict.fromkeys(("overrides", "all_of", "any_of", "none_of"), ())
        without = rule.model_copy(
            update={"expr": type(rule.expr)("value"), "min_sample": None, "promotions": {}, **nothing}
        )
        needed = relations([without], {}, (), span, numbers=[number])
        for name, relation in needed.tables.items():
            self._con.register(name, relation)
        self._put(
            f"SELECT * REPLACE ('error'::reason_word AS reason) FROM ({statement(f'({EMPTY_VALUES})', needed)})",
            {"evaluated_at": self._now},
        )

    def _foreseen(self, asks: Sequence[foreseen.Ask], span: Span) -> pa.Table:
        """What these rules ask of the future, at the end of every day of the span that is complete."""
        first = span.start.date()
        days = [first + timedelta(days=number) for number in range((span.until.date() - first).days + 1)]
        origins = [day for day in days if span.start <= moment(day) < span.until]
        return foreseen.answer(
            asks,
            lambda metric, dimension: self._panel(metric, dimension, span),
            origins,
            self._promotions,
            references=self._references,
            terms=lambda: terms_of(read_products(self._published.directory)),
        )

    def _panel(self, metric: str, dimension: str, span: Span) -> Panel:
        """The daily history of a metric up to the end of the span."""
        state = self._metrics.get(metric)
        if state is None or state.complete_until is None:
            return empty_panel(span.start.date())
        until = min(span.until, state.complete_until)
        days = SKU_HISTORY_DAYS + (span.until - span.start).days if "sku" in dimension.split("|") else HISTORY_DAYS
        files = self._published.files(until - timedelta(days=days), until, dimension=dimension)
        return query_panel(self._con, self._published.relation(files), state, metric, dimension, until=until, days=days)

    def _values(self, needed: Relations) -> str:
        """The files that hold what is needed, as a table expression."""
        samples = {
            path
            for read in needed.reads
            for dimension in needed.dimensions
            for path in self._published.files(read.start, read.until, dimension=dimension)
        }
        return self._published.relation(sorted(samples))


def _changes(rules: Sequence[Rule], metrics: Mapping[str, MetricState]) -> set[datetime]:
    """The moments at which a metric that these rules read changes its definition."""
    read = {rule.metric for rule in rules} | {rule.min_sample.metric for rule in rules if rule.min_sample is not None}
    return {former.until for name in read if name in metrics for former in metrics[name].former}


def moment(day: date | datetime) -> datetime:
    """A day as its first moment."""
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)


def verdict_table(found: pa.Table, rules: pa.Table, stamp: Stamp) -> pa.Table:
    """What `Judging.run` found, with all `COLUMNS` and `severity`; what is the same for a rule or a run is text once and a number in each row."""
    number = found["rule_no"].combine_chunks()
    shared = {name: pa.DictionaryArray.from_arrays(number, rules[name].combine_chunks()) for name in OF_RULE}
    zeros = pc.multiply(number, 0)
    for name in ("data_version", "run_id"):
        shared[name] = pa.DictionaryArray.from_arrays(zeros, pa.array([getattr(stamp, name)]))
    shared["evaluated_at"] = pa.repeat(pa.scalar(stamp.evaluated_at, pa.timestamp("us")), found.num_rows)
    return pa.table({name: shared[name] if name in shared else found[name] for name in (*COLUMNS, "severity")})


def _plain(table: pa.Table) -> pa.Table:
    """With text where there are numbers of texts."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = _plain(table.select(list(COLUMNS))).to_pandas()
    return frame


def _sorted(table: pa.Table) -> pa.Table:
    return _plain(table).sort_by([(name, "ascending") for name in ("rule", "member", "period_start")])


def _write(con: duckdb.DuckDBPyConnection, table: pa.Table, directory: Path, stamp: Stamp) -> tuple[Path, ...]:
    """Add what is not there yet, one file for each month, each put in its place whole."""
    written: list[Path] = []
    name = f"{stamp.evaluated_at:%Y%m%dT%H%M%S%f}-{re.sub('[^0-9A-Za-z]+', '-', stamp.run_id)[:36]}"
    for month, verdicts in _by_month(table.select(list(COLUMNS))):
        folder = directory / f"month={month:%Y-%m}"
        known = sorted(folder.glob("*.parquet"))
        fresh = _without(con, verdicts, known, stamp) if known else verdicts
        if fresh.num_rows == 0:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        part, target = folder / f".{name}.part", folder / f"{name}.parquet"
        pq.write_table(fresh, part, compression="zstd", row_group_size=ROW_GROUP, store_schema=False)
        part.replace(target)
        written.append(target)
    return tuple(written)


def _by_month(table: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """First day of each month with verdicts, and these."""
    if table.num_rows == 0:
        return
    bounds = pc.min_max(table["period_start"]).as_py()
    month, last = (bounds[side].date().replace(day=1) for side in ("min", "max"))
    if month == last:
        yield month, table
        return
    while month <= last:
        start, until = moment(month), moment(next_month(month))
        of_month = table.filter((pc.field("period_start") >= start) & (pc.field("period_start") < until))
        if of_month.num_rows:
            yield month, of_month
        month = next_month(month)


def _without(con: duckdb.DuckDBPyConnection, table: pa.Table, known: Sequence[Path], stamp: Stamp) -> pa.Table:
    """The verdicts that are not in these files."""
    # `reason` too: a value that was not due and is late now is news under the same data version.
    same = " AND ".join(f"k.{name} = e.{name}" for name in (*KEY, "reason"))
    con.register("fresh", table.append_column("number", pa.array(range(table.num_rows), pa.int64())))
    numbers = con.sql(
        f"""SELECT number FROM fresh AS e WHERE NOT EXISTS (
            SELECT 1 FROM {_stored(known)} AS k WHERE k.data_version = {literal(stamp.data_version)} AND {same}
        ) ORDER BY number"""
    ).to_arrow_table()
    return table if numbers.num_rows == table.num_rows else table.take(numbers["number"])


def read_evaluations(con: duckdb.DuckDBPyConnection, directory: Path, files: Sequence[Path] | None = None) -> None:
    """Make the view `evaluations` over everything that was ever evaluated, or over some of its files.

    `COLUMNS`, empty when nothing was.
    """
    files = sorted(directory.glob("month=*/*.parquet")) if files is None else files
    columns = ", ".join(f"NULL::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)
    empty = f"SELECT {columns} WHERE FALSE"
    # files of an earlier release lack columns that were added since
    source = f"{empty} UNION ALL BY NAME SELECT * FROM {_stored(files)}" if files else empty
    con.execute(f"CREATE OR REPLACE VIEW evaluations AS {source}")


def _stored(files: Sequence[Path]) -> str:
    """Files of evaluations as a table expression with every column that any of them has."""
    return f"read_parquet([{', '.join(literal(str(path)) for path in files)}], union_by_name = true)"


def latest_verdicts(directory: Path, slices: Collection[tuple[str, str, str]], *, start: date) -> pd.DataFrame:
    """The last verdict of each period of some slices (rule, dimension, member) from the day `start` on, oldest first; `COLUMNS`, for plots."""
    months = sorted(folder for folder in directory.glob("month=*") if folder.name >= f"month={start:%Y-%m}")
    files = [file for folder in months for file in sorted(folder.glob("*.parquet"))]
    if not files:
        return _frame(pa.table({name: pa.array([], pa.null()) for name in COLUMNS}))
    with duckdb.connect() as con:
        read_evaluations(con, directory, files)
        return con.execute(
            f"""SELECT {", ".join(f"{name}::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)} FROM evaluations
            WHERE {is_one_of("rule, dimension, member", slices)} AND period_start >= $start
            QUALIFY row_number() OVER (PARTITION BY rule, dimension, member, period_start ORDER BY evaluated_at DESC) = 1
            ORDER BY rule, dimension, member, period_start""",
            {"start": start},
        ).df()
