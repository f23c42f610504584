"""Judging: rules × slices × periods of published values → evaluations, in one SQL statement.

Reads only the months that the baselines need, writes only what is new, and holds the verdicts of the run for the
checks, messages and tables that are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.statement import COLUMNS, KEY, Relations, Span, relations, statement
from metrics_pipeline.warehouse.history import EMPTY_VALUES
from metrics_pipeline.warehouse.quoting import literal, parquet
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {
    "period_start": "TIMESTAMP",
    "evaluated_at": "TIMESTAMP",
    **dict.fromkeys(
        (
            "value",
            "numerator",
            "denominator",
            "sample",
            "observed",
            "baseline",
            "lower",
            "upper",
            "yellow_bound",
            "red_bound",
        ),
        "DOUBLE",
    ),
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
    """All verdicts of the run, new or known: `COLUMNS` and `severity`."""
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
        return _frame(self.table.filter(pc.field("tier").isin(["yellow", "red"])))

    def frame(self) -> pd.DataFrame:
        """All verdicts; for small runs and tests. `COLUMNS`."""
        return _frame(self.table)

    def _worst_of_each(self) -> dict[str, dict[str, Any]]:
        judged = self.table.filter(pc.field("severity").is_valid()).select(
            ["rule", "member", "period_start", "value", "observed", "severity"]
        )
        best = judged.group_by("rule").aggregate([("severity", "max")])
        found: dict[str, dict[str, Any]] = {}
        joined = judged.join(best, ["rule"])
        for row in joined.filter(pc.field("severity") == pc.field("severity_max")).to_pylist():
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
    evaluations_dir: Path | None = None,
) -> Evaluations:
    """Judge every rule on every slice for the periods that begin in [start, until), shop-local.

    `evaluated_at` is now: aware, or naive UTC; with `zone`, the shop's, it decides whether a value is late.
    `promotions` are the days of the calendar that this shop takes part in. With `evaluations_dir` the verdicts that
    are not there yet are added below it, one file for each month; a second run adds nothing.

    A rule that the database cannot evaluate gets the verdict `unknown` with the reason `error`, and stops only itself.
    """
    span = Span(moment(start), moment(until))
    now = evaluated_at if evaluated_at.tzinfo else evaluated_at.replace(tzinfo=UTC)
    with published.connect(span.start, span.until) as con:
        judged = Judging(con, published, now.astimezone(zone).replace(tzinfo=None), promotions)
        judged.run("verdicts", rules, span)
        con.execute(
            f"""CREATE TEMP TABLE evaluations AS
            SELECT {", ".join(f"{name}::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)}, severity
            FROM (SELECT *, $data_version AS data_version, $at AS evaluated_at, $run_id AS run_id FROM verdicts)
            ORDER BY rule, member, period_start""",
            {"data_version": published.version, "at": now.astimezone(UTC).replace(tzinfo=None), "run_id": run_id},
        )
        paths = _write(con, evaluations_dir, now, run_id) if evaluations_dir is not None else ()
        table = con.sql("SELECT * FROM evaluations").to_arrow_table()
    return Evaluations(table, judged.sql, evaluations_dir, paths, tuple(rule.id for rule in rules), judged.errors)


class Judging:
    """The statement on a connection; `evaluate` and `replay` run it."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        published: Published,
        local_now: datetime,
        promotions: Sequence[PromotionDay],
    ) -> None:
        self._con = con
        self._published = published
        self._now = local_now
        self._promotions = promotions
        self.sql = ""
        self.errors: dict[str, str] = {}

    def run(self, table: str, rules: Sequence[Rule], span: Span) -> None:
        """Put the verdicts of these rules and periods into a temporary table."""
        self._con.execute(f"DROP TABLE IF EXISTS {table}")
        try:
            self._create(table, rules, span)
        except duckdb.Error:
            self._one_by_one(table, rules, span)

    def _create(self, table: str, rules: Sequence[Rule], span: Span) -> None:
        needed = relations(rules, self._published.metrics, self._promotions, span)
        for name, relation in needed.tables.items():
            self._con.register(name, relation)
        self.sql = statement(self._values(needed), needed.families, needed.probabilities)
        self._con.execute(f"CREATE TEMP TABLE {table} AS {self.sql}", {"evaluated_at": self._now})

    def _one_by_one(self, table: str, rules: Sequence[Rule], span: Span) -> None:
        whole = ""
        for rule in rules:
            part = f"{table}_of_one"
            self._con.execute(f"DROP TABLE IF EXISTS {part}")
            try:
                self._create(part, [rule], span)
                whole = self.sql
            except duckdb.Error as error:
                self.errors[rule.id] = str(error).strip().splitlines()[0]
                self._create_error(part, rule, span)
            exists = self._con.execute(
                "SELECT 1 FROM duckdb_tables() WHERE table_name = $name", {"name": table}
            ).fetchone()
            self._con.execute(
                f"INSERT INTO {table} FROM {part}" if exists else f"CREATE TEMP TABLE {table} AS FROM {part}"
            )
        self.sql = whole

    def _create_error(self, table: str, rule: Rule, span: Span) -> None:
        """The verdicts of a rule without values: its thresholds are taken away and its metric is not read."""
        plain = rule.model_copy(update={"expr": type(rule.expr)("value"), "min_sample": None})
        needed = relations([plain], {}, (), span)
        for name, relation in needed.tables.items():
            self._con.register(name, relation)
        state = self._published.metrics.get(rule.metric)
        self._con.execute(
            f"CREATE TEMP TABLE {table} AS SELECT * REPLACE ('error' AS reason, $hash AS rule_hash, $version AS metric_version) "
            f"FROM ({statement(f'({EMPTY_VALUES})', needed.families)})",
            {
                "evaluated_at": self._now,
                "hash": rule.rule_hash,
                "version": state.definition_version if state is not None else "",
            },
        )

    def _values(self, needed: Relations) -> str:
        """The files that hold what is needed, as a table expression."""
        samples = {
            path
            for read in needed.reads
            for dimension in needed.dimensions
            for path in self._published.files(read.start, read.until, dimension=dimension)
        }
        return parquet(sorted(samples)) if samples else f"({EMPTY_VALUES})"


def moment(day: date | datetime) -> datetime:
    """A day as its first moment."""
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.select(list(COLUMNS)).to_pandas()
    return frame


def _write(con: duckdb.DuckDBPyConnection, directory: Path, now: datetime, run_id: str) -> tuple[Path, ...]:
    """Add what is not there yet, one file for each month, each put in its place whole."""
    months = [
        row[0]
        for row in con.execute("SELECT DISTINCT strftime(period_start, '%Y-%m') FROM evaluations ORDER BY 1").fetchall()
    ]
    written: list[Path] = []
    for month in months:
        folder = directory / f"month={month}"
        known = sorted(folder.glob("*.parquet"))
        # `reason` too: a value that was not due and is late now is news under the same data version.
        same = " AND ".join(f"k.{name} = e.{name}" for name in (*KEY, "reason"))
        fresh = f"SELECT {', '.join(COLUMNS)} FROM evaluations AS e WHERE strftime(period_start, '%Y-%m') = {literal(month)}"
        if known:
            fresh += f" AND NOT EXISTS (SELECT 1 FROM {parquet(known)} AS k WHERE {same})"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{now.astimezone(UTC):%Y%m%dT%H%M%S%f}-{re.sub('[^0-9A-Za-z]+', '-', run_id)[:36]}"
        part = folder / f".{name}.part"
        count = con.execute(f"COPY ({fresh}) TO {literal(str(part))} (FORMAT parquet, COMPRESSION zstd)").fetchone()
        if count is None or count[0] == 0:
            part.unlink(missing_ok=True)
            continue
        target = folder / f"{name}.parquet"
        part.replace(target)
        written.append(target)
    return tuple(written)


def read_evaluations(con: duckdb.DuckDBPyConnection, directory: Path) -> None:
    """Make the view `evaluations` over everything that was ever evaluated; `COLUMNS`, empty when nothing was."""
    files = sorted(directory.glob("month=*/*.parquet"))
    columns = ", ".join(f"NULL::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)
    source = f"SELECT * FROM {parquet(files)}" if files else f"SELECT {columns} WHERE FALSE"
    con.execute(f"CREATE OR REPLACE VIEW evaluations AS {source}")


def latest_verdicts(directory: Path, rule: str, dimension: str, member: str, *, start: date) -> pd.DataFrame:
    """The last verdict of each period of one slice from the day `start` on, oldest first; `COLUMNS`, for plots."""
    months = sorted(folder for folder in directory.glob("month=*") if folder.name >= f"month={start:%Y-%m}")
    files = [file for folder in months for file in sorted(folder.glob("*.parquet"))]
    if not files:
        return _frame(pa.table({name: pa.array([], pa.null()) for name in COLUMNS}))
    with duckdb.connect() as con:
        return con.execute(
            f"""SELECT {", ".join(f"{name}::{_TYPES.get(name, 'VARCHAR')} AS {name}" for name in COLUMNS)} FROM {parquet(files)}
            WHERE rule = $rule AND dimension = $dimension AND member = $member AND period_start >= $start
            QUALIFY row_number() OVER (PARTITION BY period_start ORDER BY evaluated_at DESC) = 1
            ORDER BY period_start""",
            {"rule": rule, "dimension": dimension, "member": member, "start": start},
        ).df()
