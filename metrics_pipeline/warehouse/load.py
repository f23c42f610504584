"""Sources → schema `raw`: cast and check in SQL, quarantine | accept, replace by key, remember what was touched.

A batch is read once into a temporary table, where every rule of the contract is one SQL expression; a rejected row
goes to `raw._quarantine` with all its reasons and masked personal data. Accepted rows replace rows of the same key,
searched only within the clock ranges of the batch, so that a nightly load costs the same in the tenth year as in the
first. Rows that are already there in the same words are left alone: loading a window twice changes nothing.

A dimension is delivered whole every time. Each of its rows keeps a fingerprint of what was delivered and of the contract
that judged it; a row delivered with the same fingerprint again is passed over before it is cast, checked or hashed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import Column, Table, load_contract
from metrics_pipeline.sources.source import EARLIEST_CLOCK, Batch, Source, SourceError, Span, words_of
from metrics_pipeline.warehouse.build import BuildError, connect_build, ensure_raw_schema
from metrics_pipeline.warehouse.personal import PersonalData

MASK = "***"
NOTHING_PERSONAL = PersonalData("drop")
TABLES_AT_ONCE = 2
_MOST_RANGES = 16
_FILE_ENDINGS = (".parquet", ".csv", ".csv.gz", ".tsv", ".json")
_TYPE_WORDS = {
    "text": "a text",
    "integer": "a whole number",
    "decimal": "a number",
    "boolean": "true or false",
    "timestamp": "a timestamp",
    "date": "a date",
}

Progress = Callable[[str, str, int, int], None]
"""Called after each batch with table, batch id, number of the batch (from 1) and number of batches of the table; two
tables may be told of at once, from threads of their own."""


@dataclass(frozen=True)
class TableLoad:
    """What happened to one table. Rows: read = accepted + unchanged + duplicate + quarantined."""

    table: str
    batches: int = 0
    rows_read: int = 0
    rows_accepted: int = 0
    """New rows, and rows that replaced one of the same key."""
    rows_unchanged: int = 0
    rows_duplicate: int = 0
    """Identical repetitions within a batch, dropped."""
    rows_quarantined: int = 0
    ignored_columns: tuple[str, ...] = ()
    """Columns that were delivered and are not in the contract."""
    missing_columns: tuple[str, ...] = ()
    """Optional columns that were not delivered (loaded as null)."""
    touched_days: tuple[date, ...] = ()
    """Shop-local days of new, changed and replaced rows, ascending."""
    coverage: tuple[Span, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class LoadReport:
    """What one load did, table by table."""

    source: str
    window: Span
    loaded_at: datetime
    tables: tuple[TableLoad, ...]

    def table(self, name: str) -> TableLoad:
        """The report of that table; `KeyError` when it was not loaded."""
        for entry in self.tables:
            if entry.table == name:
                return entry
        raise KeyError(name)

    @property
    def rows_accepted(self) -> int:
        return sum(entry.rows_accepted for entry in self.tables)

    @property
    def rows_quarantined(self) -> int:
        return sum(entry.rows_quarantined for entry in self.tables)

    @property
    def oldest_touched_day(self) -> date | None:
        return min((day for entry in self.tables for day in entry.touched_days), default=None)


@dataclass(frozen=True)
class _Delivery:
    """A batch that was bound: which contract columns it brings, and of which DuckDB type."""

    batch: Batch
    types: dict[str, str]
    ignored: tuple[str, ...]


def load(
    target: DuckDBPyConnection | Path,
    source: Source,
    tables: Iterable[str],
    window: Span,
    *,
    now: datetime,
    timezone: str,
    progress: Progress | None = None,
    personal: PersonalData = NOTHING_PERSONAL,
) -> LoadReport:
    """Bring `window` of the named contract tables from `source` into schema `raw`; one transaction per table.

    `target` is an open read-write connection or the path of the build file; `now` (naive = UTC) judges future clocks
    and stamps `_loaded_at`; `timezone` is the shop's (days of `raw._touched`, today for date columns).
    `personal`: what is kept of personal data, by default nothing.
    Raises `SourceError` naming batch, file or column and the mend; a table is then as it was before. Missing required
    columns and unreadable files of any table are found before the first one is written. `BuildError` when the build
    file itself cannot be written.
    """
    opened: AbstractContextManager[DuckDBPyConnection] = (
        connect_build(target) if isinstance(target, Path) else nullcontext(target)
    )
    moment = now.astimezone(UTC).replace(tzinfo=None) if now.tzinfo else now
    contract = load_contract()
    chosen = [contract.table(name) for name in tables]
    with opened as con:
        con.execute("SET TimeZone = 'UTC'")
        ensure_raw_schema(con, contract)
        deliveries = {table.name: _bind(con, source, table, window) for table in chosen}

        def load_table(table: Table) -> TableLoad:
            with con.cursor() as own:
                own.execute("SET TimeZone = 'UTC'")
                personal.prepare(own)
                loader = _TableLoader(own, source, table, window, moment, ZoneInfo(timezone), personal)
                return loader.load(deliveries[table.name], progress)

        loads = _in_parallel(load_table, chosen)
    return LoadReport(source.info.name, window, moment, loads)


def _in_parallel(load_table: Callable[[Table], TableLoad], tables: Sequence[Table]) -> tuple[TableLoad, ...]:
    """Two tables at a time: a batch is mostly one thread's work, compressing what it inserts.

    After an error no further table is begun; the error of the first table in order is raised.
    """
    with ThreadPoolExecutor(max_workers=TABLES_AT_ONCE, thread_name_prefix="load") as pool:
        futures = [pool.submit(load_table, table) for table in tables]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
    for future in futures:
        if not future.cancelled():
            future.result()
    return tuple(future.result() for future in futures)


def oldest_touched_day(con: DuckDBPyConnection) -> date | None:
    """The oldest shop-local day whose rows changed since `forget_touched`; None when nothing changed."""
    row = con.execute("SELECT min(day) FROM raw._touched").fetchone()
    return row[0] if row else None


def forget_touched(con: DuckDBPyConnection, until: datetime) -> None:
    """Drop the days loaded at or before `until` (naive UTC), after they were published."""
    con.execute("DELETE FROM raw._touched WHERE loaded_at <= ?", [until])


def withdraw(con: DuckDBPyConnection, table: str, window: Span) -> None:
    """Take back that `window` of a table is loaded, after its contract failed.

    No day of it is complete, and every run loads it again, until it is delivered well: the next night must not pass over
    what stopped this one.
    """
    for name, start, until in (
        ("_windows", "loaded_from", "loaded_until"),
        ("_coverage", "covered_from", "covered_until"),
    ):
        rows = con.execute(f"SELECT {start}, {until} FROM raw.{name} WHERE table_name = ?", [table]).fetchall()
        con.execute(f"DELETE FROM raw.{name} WHERE table_name = ?", [table])
        for first, last in rows:
            for left in (Span(first, min(last, window.start)), Span(max(first, window.until), last)):
                if left.start < left.until:
                    con.execute(f"INSERT INTO raw.{name} VALUES (?, ?, ?)", [table, left.start, left.until])


def _bind(con: DuckDBPyConnection, source: Source, table: Table, window: Span) -> list[_Delivery]:
    deliveries = []
    for batch in source.batches(table.name, window):
        try:
            cursor = con.execute(f"SELECT * FROM ({batch.query}) AS batch LIMIT 0", list(batch.parameters))
        except duckdb.Error as error:
            raise _unreadable(source, table, batch, error) from None
        delivered = {str(name).lower(): str(data_type) for name, data_type, *_ in cursor.description or ()}
        missing = [name for name in table.required_columns if name not in delivered]
        if missing:
            raise SourceError(
                f"{_named(source, table, batch)}: missing required column{'s' if len(missing) > 1 else ''} "
                f"{', '.join(missing)}; found {', '.join(delivered) or 'no columns'}. "
                "Deliver them, or map them to other columns (docs/raw-contract.md says what each one means)."
            )
        types = {name: delivered[name] for name in table.column_names if name in delivered}
        deliveries.append(_Delivery(batch, types, tuple(name for name in delivered if name not in types)))
    return deliveries


def _named(source: Source, table: Table, batch: Batch) -> str:
    files = [str(value) for value in batch.parameters if str(value).endswith(_FILE_ENDINGS)]
    return f"{source.info.name}: table {table.name}, batch {batch.batch_id}" + (
        f" ({', '.join(files)})" if files else ""
    )


def _unreadable(source: Source, table: Table, batch: Batch, error: duckdb.Error) -> SourceError:
    if isinstance(error, duckdb.OutOfMemoryException):
        mend = "It does not fit into memory: deliver it in smaller files, such as one per month."
    elif isinstance(error, duckdb.BinderException | duckdb.ParserException | duckdb.CatalogException):
        mend = "The columns of the input are not those the source expects: compare them with docs/raw-contract.md."
    else:
        mend = "Deliver the file again in full, or remove it, then load again."
    return SourceError(
        f"{_named(source, table, batch)}: cannot be read: {words_of(error)} Nothing of it was loaded. {mend}"
    )


@dataclass(frozen=True)
class _TableLoader:
    """One table of one load."""

    con: DuckDBPyConnection
    source: Source
    table: Table
    window: Span
    now: datetime
    zone: ZoneInfo
    personal: PersonalData

    @property
    def key(self) -> str:
        return ", ".join(self.table.key)

    @property
    def columns(self) -> str:
        return ", ".join(self.table.column_names)

    @property
    def today(self) -> date:
        """The shop's day of `now`."""
        return self.now.replace(tzinfo=UTC).astimezone(self.zone).date()

    def load(self, deliveries: Sequence[_Delivery], progress: Progress | None) -> TableLoad:
        started = time.perf_counter()
        counts = {"read": 0, "accepted": 0, "unchanged": 0, "duplicate": 0, "quarantined": 0}
        days: set[date] = set()
        self.con.execute("BEGIN TRANSACTION")
        try:
            written = "true" if self.table.clock else "_fingerprint IS NULL"
            self.personal.cover(self.con, f"raw.{self.table.name}", self._personal_texts(), written=written)
            for number, delivery in enumerate(deliveries, 1):
                try:
                    known = self._pass_over_known(delivery)
                    self._cast_and_check(delivery)
                except duckdb.Error as error:
                    raise _unreadable(self.source, self.table, delivery.batch, error) from None
                batch_counts, batch_days = self._take(delivery.batch, known)
                for name, count in batch_counts.items():
                    counts[name] += count
                days |= batch_days
                if progress is not None:
                    progress(self.table.name, delivery.batch.batch_id, number, len(deliveries))
            self._remember_touched(days)
            coverage = self._remember_coverage()
            self.con.execute("DROP TABLE IF EXISTS temp._checked")
            self.con.execute("DROP TABLE IF EXISTS temp._delivered")
            self.con.execute("COMMIT")
        except BaseException as error:
            with suppress(duckdb.Error):
                self.con.execute("ROLLBACK")
            if isinstance(error, duckdb.Error):
                raise BuildError(
                    f"raw.{self.table.name}: could not be written: {words_of(error)} Nothing of it was loaded. "
                    "Check free disk space and memory, then load again."
                ) from None
            raise
        return TableLoad(
            self.table.name,
            batches=len(deliveries),
            rows_read=counts["read"],
            rows_accepted=counts["accepted"],
            rows_unchanged=counts["unchanged"],
            rows_duplicate=counts["duplicate"],
            rows_quarantined=counts["quarantined"],
            ignored_columns=tuple(sorted({name for delivery in deliveries for name in delivery.ignored})),
            missing_columns=tuple(
                name for name in self.table.column_names if any(name not in delivery.types for delivery in deliveries)
            ),
            touched_days=tuple(sorted(days)),
            coverage=coverage,
            seconds=time.perf_counter() - started,
        )

    # -- what is known in the same words ---------------------------------------------------------------------------

    def _pass_over_known(self, delivery: _Delivery) -> tuple[int, int]:
        """Find the rows of a dimension that are there as delivered; returns how many rows and how many keys.

        A key that also came in other words is not among them: its rows are judged together. Leaves `temp._delivered`.
        """
        if self.table.clock:
            return 0, 0
        keys = ", ".join(f"{_cast(self.table.column(name), delivery.types[name])} AS {name}" for name in self.table.key)
        self.con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE _delivered AS
            WITH given AS (SELECT {_originals(self._given(delivery))} FROM ({delivery.batch.query}) AS batch),
            new AS (SELECT {keys}, {self._fingerprint(delivery)} AS _fingerprint FROM given)
            SELECT {self.key}, old.rowid AS row_id, new._fingerprint IS NOT DISTINCT FROM old._fingerprint AS is_known
            FROM new LEFT JOIN raw.{self.table.name} AS old USING ({self.key})
            """,
            list(delivery.batch.parameters),
        )
        rows, distinct = self._row(
            "SELECT count(*), count(DISTINCT row_id) FROM temp._delivered"
            f" WHERE is_known AND ({self.key}) NOT IN ({self._fresh_keys()})"
        )
        return rows, distinct

    def _fresh_keys(self) -> str:
        given = " AND ".join(f"{name} IS NOT NULL" for name in self.table.key)
        return f"SELECT {self.key} FROM temp._delivered WHERE NOT is_known AND {given}"

    def _fingerprint(self, delivery: _Delivery) -> str:
        """A SQL expression over what was delivered: a number for its words, their types, the contract and the treatment."""
        if self.table.clock:
            return "NULL"
        judged_by = hashlib.sha256(repr((self.table, sorted(delivery.types.items()))).encode()).hexdigest()
        words = ", ".join(
            f"coalesce(CAST(r_{column.name} AS VARCHAR), chr(30))"
            for column in self._given(delivery)
            if not column.pii or self.personal.treatment != "drop"
        )
        return self.personal.fingerprint(f"concat_ws(chr(31), '{judged_by}', {words})")

    def _given(self, delivery: _Delivery) -> list[Column]:
        return [column for column in self.table.columns if column.name in delivery.types]

    # -- cast and check: one pass over the batch -------------------------------------------------------------------

    def _cast_and_check(self, delivery: _Delivery) -> None:
        rules = [rule for column in self.table.columns for rule in self._rules(column, delivery.types)]
        broken = " OR ".join(f"({condition})" for condition, _ in rules)
        reasons = ", ".join(f"CASE WHEN {condition} THEN '{reason}' END" for condition, reason in rules)
        given = self._given(delivery)
        original = ", ".join(f"r_{column.name} := {_shown(column, f'r_{column.name}')}" for column in given)
        casts = ", ".join(
            f"{_cast(column, delivery.types[column.name])} AS {column.name}"
            if column.name in delivery.types
            else f"CAST(NULL AS {column.duckdb_type}) AS {column.name}"
            for column in self.table.columns
        )
        kept = ", ".join(
            f"{self._kept_of(column)} AS {column.name}" if column.pii else column.name for column in self.table.columns
        )
        unknown = "true"
        if not self.table.clock:
            keyless = " OR ".join(f"{name} IS NULL" for name in self.table.key)
            unknown = f"({self.key}) IN ({self._fresh_keys()}) OR {keyless}"
        self.con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE _checked AS
            WITH given AS (SELECT {_originals(given)} FROM ({delivery.batch.query}) AS batch),
            typed AS (SELECT * FROM (SELECT *, {casts} FROM given) AS cast_row WHERE {unknown}),
            judged AS (SELECT *, ({broken}) IS TRUE AS is_broken FROM typed)
            SELECT
              {kept},
              {self._fingerprint(delivery)} AS _fingerprint,
              CASE WHEN is_broken THEN concat_ws('; ', {reasons}) END AS _reason,
              CASE WHEN is_broken
                THEN regexp_replace(CAST(to_json(struct_pack({original})) AS VARCHAR), '"r_([a-z0-9_]+)":', '"\\1":', 'g')
              END AS _row_json
            FROM judged
            """,
            list(delivery.batch.parameters),
        )

    def _personal_texts(self) -> list[str]:
        return [column.name for column in self.table.columns if column.pii and column.type == "text"]

    def _kept_of(self, column: Column) -> str:
        """What is kept of a column of personal data: a hash is a text, so nothing of any other type."""
        is_text = column.type == "text"
        return self.personal.value(column.name) if is_text else f"CAST(NULL AS {column.duckdb_type})"

    def _rules(self, column: Column, types: dict[str, str]) -> list[tuple[str, str]]:
        """Conditions that are true (never merely not-false) for a bad value of the column, with their reasons."""
        name, raw = column.name, f"r_{column.name}"
        rules = []
        given = types.get(name)
        if given is None:
            return []
        if column.required:
            missing = f"{raw} IS NULL OR {raw} = ''" if given == "VARCHAR" else f"{raw} IS NULL"
            rules.append((missing, f"{name}: missing"))
        if given != column.duckdb_type and column.type != "text":
            wrong = f"{raw} IS NOT NULL AND {name} IS NULL"
            if given == "VARCHAR":
                wrong += f" AND {raw} <> ''"
            if column.type == "integer" and not given.endswith("INT") and not given.endswith("INTEGER"):
                wrong = f"({wrong}) OR TRY_CAST({raw} AS DOUBLE) <> {name}"
            if column.type == "date":
                wrong = f"({wrong}) OR TRY_CAST({raw} AS TIMESTAMP) <> {name}"
            rules.append((wrong, f"{name}: not {_TYPE_WORDS[column.type]}"))
        if column.minimum is not None:
            rules.append((f"{name} < {column.minimum}", f"{name}: below {column.minimum}"))
        if column.not_future:
            rules.append((f"{name} > {self._latest(column)}", f"{name}: in the future"))
        if name == self.table.clock:
            rules.append((f"{name} < DATE '{EARLIEST_CLOCK}'", f"{name}: before {EARLIEST_CLOCK}"))
        return rules

    def _latest(self, column: Column) -> str:
        return f"DATE '{self.today}'" if column.type == "date" else f"TIMESTAMP '{self.now}'"

    # -- quarantine | accept ---------------------------------------------------------------------------------------

    def _take(self, batch: Batch, known: tuple[int, int]) -> tuple[dict[str, int], set[date]]:
        clock = self.table.clock
        read, good, distinct = self._row(
            f"SELECT count(*), count(*) FILTER (_reason IS NULL),"
            f" count(DISTINCT hash({self.key})) FILTER (_reason IS NULL) FROM temp._checked"
        )
        duplicate = 0
        if distinct != good:
            duplicate = self._resolve_repeated_keys()
        column = self.table.clock_column
        clockless = "false"
        if column is not None:
            clockless = f"{clock} IS NULL OR {clock} < DATE '{EARLIEST_CLOCK}'"
            clockless += f" OR {clock} > {self._latest(column)}" if column.not_future else ""
        quarantined, clockless_rows = self._row(
            f"SELECT count(*), count(*) FILTER ({clockless}) FROM temp._checked WHERE _reason IS NOT NULL"
        )
        if quarantined:
            self._quarantine(batch)
        bounds = f"min({clock}), max({clock})" if clock else "min(NULL), max(NULL)"
        clock_min, clock_max = self._row(f"SELECT {bounds} FROM temp._checked WHERE _reason IS NULL")
        accepted, days = self._upsert(batch)
        read += known[0]
        duplicate += known[0] - known[1]
        counts = {
            "read": read,
            "accepted": accepted,
            "unchanged": read - quarantined - duplicate - accepted,
            "duplicate": duplicate,
            "quarantined": quarantined,
        }
        self.con.execute(
            "INSERT INTO raw._loads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                batch.batch_id,
                self.table.name,
                self.source.info.name,
                *(counts[name] for name in ("read", "accepted", "unchanged", "duplicate", "quarantined")),
                clock_min,
                clock_max,
                self.now,
                clockless_rows,
            ],
        )
        return counts, days

    def _resolve_repeated_keys(self) -> int:
        """Drop identical repetitions (returns how many), reject every row of a key that came with different values."""
        line = (
            f"CAST(to_json(struct_pack({', '.join(f'{c.name} := {c.name}' for c in self.table.columns)})) AS VARCHAR)"
        )
        shown = ", ".join(f"{column.name} := {_shown(column, column.name)}" for column in self.table.columns)
        self.con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE _repeated AS
            WITH lines AS (
              SELECT rowid AS row_id, {self.key}, {line} AS line
              FROM temp._checked
              WHERE _reason IS NULL
                AND hash({self.key}) IN (
                  SELECT hash({self.key}) FROM temp._checked WHERE _reason IS NULL GROUP BY 1 HAVING count(*) > 1
                )
            )
            SELECT
              row_id,
              min(line) OVER same_key <> max(line) OVER same_key AS is_conflict,
              row_number() OVER (PARTITION BY {self.key} ORDER BY row_id) > 1 AS is_repetition
            FROM lines
            WINDOW same_key AS (PARTITION BY {self.key})
            """
        )
        self.con.execute(
            f"UPDATE temp._checked SET _reason = 'key {self.key}: delivered more than once with different values',"
            f" _row_json = CAST(to_json(struct_pack({shown})) AS VARCHAR)"
            " WHERE rowid IN (SELECT row_id FROM temp._repeated WHERE is_conflict)"
        )
        (dropped,) = self._row(
            "DELETE FROM temp._checked"
            " WHERE rowid IN (SELECT row_id FROM temp._repeated WHERE is_repetition AND NOT is_conflict)"
        )
        self.con.execute("DROP TABLE temp._repeated")
        return int(dropped)

    def _quarantine(self, batch: Batch) -> None:
        """Keep the rejected rows; one that is there already from the same batch only gets the new moment."""
        row_key = " || '|' || ".join(
            f"coalesce(CAST({name} AS VARCHAR), '?')" if not self.table.column(name).pii else f"'{MASK}'"
            for name in self.table.key
        )
        self.con.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE _rejected AS
            SELECT ? AS table_name, ? AS batch_id, {row_key} AS row_key, _reason AS reason, _row_json AS row_json
            FROM temp._checked WHERE _reason IS NOT NULL
            """,
            [self.table.name, batch.batch_id],
        )
        self.con.execute(
            "DELETE FROM raw._quarantine WHERE (table_name, batch_id, row_key, reason, row_json) IN (FROM temp._rejected)"
        )
        self.con.execute("INSERT INTO raw._quarantine SELECT *, ? FROM temp._rejected", [self.now])
        self.con.execute("DROP TABLE temp._rejected")

    # -- replace by key --------------------------------------------------------------------------------------------

    def _upsert(self, batch: Batch) -> tuple[int, set[date]]:
        """Insert new rows, replace changed ones; returns how many, and the shop days of both."""
        table, clock = self.table, self.table.clock
        ranges = self._clock_ranges()
        scans = [
            f"SELECT rowid AS row_id, {self.columns} FROM raw.{table.name}" + (f" WHERE {where}" if where else "")
            for where in ranges
        ]
        is_fresh = not any(self.con.execute(f"{scan} LIMIT 1").fetchone() for scan in scans)
        kept = "_reason IS NULL"
        if not is_fresh:
            same = " AND ".join(
                f"new.{name} IS NOT DISTINCT FROM old.{name}" for name in table.column_names if name not in table.key
            )
            self.con.execute(
                f"""
                CREATE OR REPLACE TEMP TABLE _matched AS
                WITH old AS ({" UNION ALL ".join(scans)})
                SELECT new.rowid AS new_id, old.row_id AS old_id, {same or "true"} AS is_same
                  {f", old.{clock} AS old_clock" if clock else ""}
                FROM temp._checked AS new JOIN old USING ({self.key})
                WHERE new._reason IS NULL
                """
            )
            kept += " AND rowid NOT IN (SELECT new_id FROM temp._matched WHERE is_same)"
        days = set()
        if clock:
            clocks = f"SELECT {clock} AS clock FROM temp._checked WHERE {kept}"
            if not is_fresh:
                clocks += " UNION ALL SELECT old_clock FROM temp._matched WHERE NOT is_same"
            days = self._days(clocks)
        if not is_fresh:
            changed = "SELECT old_id FROM temp._matched WHERE NOT is_same"
            if self.con.execute(f"{changed} LIMIT 1").fetchone():
                within = " OR ".join(f"({where})" for where in ranges if where)
                self.con.execute(
                    f"DELETE FROM raw.{table.name} WHERE rowid IN ({changed})" + (f" AND ({within})" if within else "")
                )
        # The contract may have changed since, or the fingerprint is the first of its row.
        if not clock and not is_fresh:
            self.con.execute(
                f"UPDATE raw.{table.name} AS old SET _fingerprint = new._fingerprint"
                " FROM temp._matched AS matched JOIN temp._checked AS new ON new.rowid = matched.new_id"
                " WHERE old.rowid = matched.old_id AND matched.is_same"
            )
        written = f"{self.columns}, " + ("" if clock else "_fingerprint, ")
        (inserted,) = self._row(
            f"INSERT INTO raw.{table.name} ({written}_batch_id, _loaded_at)"
            f" SELECT {written}?, ? FROM temp._checked WHERE {kept}",
            [batch.batch_id, self.now],
        )
        if not is_fresh:
            self.con.execute("DROP TABLE temp._matched")
        return int(inserted), days

    def _clock_ranges(self) -> list[str]:
        """Predicates, at most `_MOST_RANGES`, that together hold every clock of the batch; [''] for a dimension."""
        clock = self.table.clock
        if clock is None:
            return [""]
        days = [
            row[0]
            for row in self.con.execute(
                f"SELECT DISTINCT CAST({clock} AS DATE) AS day FROM temp._checked WHERE _reason IS NULL ORDER BY day"
            ).fetchall()
        ]
        ranges: list[list[date]] = []
        for day in days:
            if ranges and (day - ranges[-1][1]).days <= 1:
                ranges[-1][1] = day
            else:
                ranges.append([day, day])
        while len(ranges) > _MOST_RANGES:
            gaps = [(ranges[i + 1][0] - ranges[i][1], i) for i in range(len(ranges) - 1)]
            _, narrowest = min(gaps)
            ranges[narrowest][1] = ranges.pop(narrowest + 1)[1]
        return [f"{clock} >= DATE '{first}' AND {clock} < DATE '{last + timedelta(days=1)}'" for first, last in ranges]

    def _days(self, clocks: str) -> set[date]:
        """Shop-local days of a query of clocks. Offsets are whole quarter hours, so quarters stand for their clocks."""
        column = self.table.clock_column
        if column is not None and column.type == "date":
            rows = self.con.execute(f"SELECT DISTINCT clock FROM ({clocks})").fetchall()
            return {row[0] for row in rows}
        rows = self.con.execute(
            f"WITH quarters AS (SELECT DISTINCT epoch_us(clock) // 900000000 AS quarter FROM ({clocks})) "
            "SELECT DISTINCT CAST(timezone(?, timezone('UTC', make_timestamp(quarter * 900000000))) AS DATE)"
            " FROM quarters",
            [self.zone.key],
        ).fetchall()
        return {row[0] for row in rows}

    # -- bookkeeping -----------------------------------------------------------------------------------------------

    def _remember_touched(self, days: set[date]) -> None:
        if not days:
            return
        self.con.execute(
            "DELETE FROM raw._touched WHERE table_name = ? AND day IN (SELECT unnest(?))",
            [self.table.name, sorted(days)],
        )
        self.con.execute("INSERT INTO raw._touched SELECT ?, unnest(?), ?", [self.table.name, sorted(days), self.now])

    def _remember_coverage(self) -> tuple[Span, ...]:
        """Complete = what the source calls complete, as far as it was ever loaded (dimensions: always whole)."""
        name = self.table.name
        spans = list(self.source.coverage(name))
        if self.table.clock is not None:
            rows = self.con.execute(
                "SELECT loaded_from, loaded_until FROM raw._windows WHERE table_name = ?", [name]
            ).fetchall()
            loaded = merge_spans([*(Span(start, until) for start, until in rows), self.window])
            self.con.execute("DELETE FROM raw._windows WHERE table_name = ?", [name])
            for span in loaded:
                self.con.execute("INSERT INTO raw._windows VALUES (?, ?, ?)", [name, span.start, span.until])
            spans = intersect_spans(spans, loaded)
        self.con.execute("DELETE FROM raw._coverage WHERE table_name = ?", [name])
        for span in spans:
            self.con.execute("INSERT INTO raw._coverage VALUES (?, ?, ?)", [name, span.start, span.until])
        return tuple(spans)

    def _row(self, query: str, parameters: Sequence[object] = ()) -> tuple[int, ...]:
        row = self.con.execute(query, list(parameters)).fetchone()
        return () if row is None else tuple(row)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """The same stretches of time, ascending, touching and overlapping ones joined."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda item: (item.start, item.until)):
        if merged and span.start <= merged[-1].until:
            merged[-1] = Span(merged[-1].start, max(merged[-1].until, span.until))
        else:
            merged.append(span)
    return merged


def intersect_spans(left: Iterable[Span], right: Iterable[Span]) -> list[Span]:
    """The stretches that lie in a span of both, ascending."""
    others = list(right)
    return sorted(
        (
            Span(max(a.start, b.start), min(a.until, b.until))
            for a in left
            for b in others
            if max(a.start, b.start) < min(a.until, b.until)
        ),
        key=lambda item: item.start,
    )


def _originals(given: Iterable[Column]) -> str:
    return ", ".join(f"{column.name} AS r_{column.name}" for column in given)


def _cast(column: Column, given: str) -> str:
    raw = f"r_{column.name}"
    if given == column.duckdb_type:
        return raw
    if column.type == "timestamp" and given == "VARCHAR":
        # A cast of text to TIMESTAMP drops a written offset without a word; by way of TIMESTAMPTZ it counts.
        return f"TRY_CAST(TRY_CAST({raw} AS TIMESTAMPTZ) AS TIMESTAMP)"
    return f"TRY_CAST({raw} AS {column.duckdb_type})"


def _shown(column: Column, expression: str) -> str:
    return f"CASE WHEN {expression} IS NOT NULL THEN '{MASK}' END" if column.pii else expression
