"""Publishing: the metric tables of the build file → a new immutable version that everybody else reads.

The months that meet the run's window are written anew, one statement per month and part over all metrics; all other
files are shared with the version before, so a night costs the same after ten years as after ten days. Readers change
over when `CURRENT` is replaced, the last step. Killed before it, a publish has published nothing; what it left
behind is removed by the next one. Publishing the same values again makes no new version.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from metrics_pipeline.warehouse import history, manifest
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.manifest import (
    KEY,
    PARTS,
    DamagedManifest,
    HistoryFile,
    MetricState,
    Part,
    ValuesFile,
    Version,
)
from metrics_pipeline.warehouse.quoting import identifier, literal, parquet
from metrics_pipeline.warehouse.window import Window, next_month

KEEP_VERSIONS = 14
GRACE_SECONDS = 3600.0
"""How long a reader may go on with a version that is no longer kept."""

METRIC_TABLE_COLUMNS = {
    "period_start": "TIMESTAMP",
    "grain": "VARCHAR",
    "dimension": "VARCHAR",
    "member": "VARCHAR",
    "numerator": "DOUBLE",
    "denominator": "DOUBLE",
    "value": "DOUBLE",
    "definition_version": "VARCHAR",
}
"""The contract of every metric table (docs/architecture.md, dbt)."""

_IS_SKU = "list_contains(string_split(dimension, '|'), 'sku')"
_WRITE = "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720)"
_STAGING = ".staging"


class PublishError(RuntimeError):
    """Nothing was published; the message says what is wrong with which table or file."""


@dataclass(frozen=True)
class MetricTables:
    """Where the values of one metric are in the build file, and its state."""

    tables: tuple[str, ...]
    """`schema.table` of each grain, e.g. `("base.orders_paid", "hourly.orders_paid_hourly")`; () when absent."""
    state: MetricState
    dimensions: tuple[str, ...] | None = None
    """Slices to publish, e.g. `("all", "region")`; None = all that the tables hold. A source that does not say the
    channel must not get a channel slice that repeats the total as `unknown`."""


@dataclass(frozen=True)
class _Month:
    """One part of one month as this run left it."""

    values: ValuesFile | None
    change: HistoryFile | None


def publish(
    build: Path | duckdb.DuckDBPyConnection,
    published_dir: Path,
    *,
    tables: Mapping[str, MetricTables],
    window: Window,
    run_id: str,
    now: datetime,
    keep_versions: int = KEEP_VERSIONS,
) -> Version:
    """Publish the metric tables of `build` for the months of `window`.

    `build` is the build file (opened read-only) or a connection to it (its committed rows are read). `tables` names
    every metric of the library: one that is missing here, or absent, loses its values in these months. Months are
    taken whole from the build file, so a part of the window is never a part of a month. `now` is the moment at which
    the values count as known (aware, or naive UTC); it never runs backwards from version to version.

    Returns the version that is current afterwards: the former one when neither a value nor a state has changed.
    Raises `PublishError`, or `BuildError` when the build file cannot be opened; then nothing has changed for readers.
    """
    with _sole_writer(published_dir) as staging, _connection(build) as con:
        former = _former(published_dir)
        _remove_uncommitted(published_dir, former)
        union = _checked_union(con, tables)
        known_at = manifest.utc(now)
        if former is not None and known_at <= former.created_at:
            known_at = former.created_at + timedelta(microseconds=1)
        writer = _Writer(
            con, published_dir, staging=staging, former=former, union=union, known_at=known_at, run_id=run_id
        )
        values, changes = writer.months(window)
        states = {metric: tables[metric].state for metric in sorted(tables)}
        if former is not None and values == former.values and states == former.metrics:
            return former
        recorded = writer.merged((*(former.history if former else ()), *changes))
        version = Version(
            id=manifest.new_version_id(known_at, former.id if former else None, states, values),
            previous=former.id if former else None,
            run_id=run_id,
            created_at=known_at,
            window=window,
            changed_rows=sum(change.rows for change in changes),
            metrics=states,
            values=values,
            history=recorded,
        )
        manifest.write_version(published_dir, version)
        manifest.point_to(published_dir, version)
        collect_garbage(published_dir, keep_versions=keep_versions)
        return version


def collect_garbage(
    published_dir: Path, *, keep_versions: int = KEEP_VERSIONS, clock: float | None = None
) -> list[Path]:
    """Delete manifests beyond the last `keep_versions` and the files no manifest needs; returns what was deleted.

    A version stays for an hour after it was replaced, and a file for an hour after it was written, because a reader
    may hold it. `clock` is the time of the file system in seconds (default: now).
    """
    clock = time.time() if clock is None else clock
    versions = _committed(published_dir)
    kept: list[Version] = []
    retired: list[Path] = []
    replaced_at = clock
    for index, version in enumerate(versions):
        path = manifest.version_path(published_dir, version.id)
        if index < max(keep_versions, 1) or clock - replaced_at < GRACE_SECONDS:
            kept.append(version)
        else:
            retired.append(path)
        replaced_at = path.stat().st_mtime
    needed = {path for version in kept for path in version.paths()}
    for folder in ("values", "history"):
        for path in (published_dir / folder).glob("month=*/*.parquet"):
            is_needed = path.relative_to(published_dir).as_posix() in needed
            if not is_needed and clock - path.stat().st_mtime >= GRACE_SECONDS:
                retired.insert(0, path)
    retired.reverse()  # oldest manifest first: the chain of versions never has a gap
    for path in retired:
        path.unlink(missing_ok=True)
    return retired


class _Writer:
    """The files of one publish: staged, compared with the former version, named by their content."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        published_dir: Path,
        *,
        staging: Path,
        former: Version | None,
        union: str | None,
        known_at: datetime,
        run_id: str,
    ) -> None:
        self._con = con
        self._root = published_dir
        self._staging = staging
        self._union = union
        self._known_at = known_at
        self._run_id = run_id
        self._former = {(file.month, file.part): file for file in former.values} if former else {}
        self._touched: set[Path] = set()

    def months(self, window: Window) -> tuple[tuple[ValuesFile, ...], list[HistoryFile]]:
        """Write the months of the window; returns the values files of all months, and the changes."""
        result = dict(self._former)
        changes: list[HistoryFile] = []
        for month in sorted(self._months_with_rows(window) | {m for m, _ in self._former if _meets(m, window)}):
            for part in PARTS:
                written = self._month(month, part)
                if written.change is not None:
                    changes.append(written.change)
                if written.values is not None:
                    result[month, part] = written.values
                else:
                    result.pop((month, part), None)
        self._sync()
        return tuple(result[key] for key in sorted(result)), changes

    def merged(self, files: Sequence[HistoryFile]) -> tuple[HistoryFile, ...]:
        """The history with the small files of a month merged where there are too many of them."""
        small: dict[tuple[date, Part], list[HistoryFile]] = {}
        for file in files:
            if file.computed_at is None:
                small.setdefault((file.month, file.part), []).append(file)
        result = list(files)
        for (month, part), group in small.items():
            if len(group) <= history.MERGE_ABOVE:
                continue
            staged = self._staging / "merged.parquet"
            rows = history.merge(self._con, [self._root / file.path for file in group], staged)
            path, size = self._settle(staged, "history", month, part)
            result = [file for file in result if file not in group]
            result.append(HistoryFile(path, month, part, rows, size))
        self._sync()
        return tuple(sorted(result, key=lambda file: (file.month, file.part, file.computed_at or datetime.max)))

    def _month(self, month: date, part: Part) -> _Month:
        former = self._former.get((month, part))
        former_path = self._root / former.path if former else None
        new = self._staging / "values.parquet"
        rows = self._write_values(month, part, new)
        if former is None:
            if not rows:
                return _Month(None, None)
            path, size = self._settle(new, "values", month, part)
            return _Month(
                ValuesFile(path, month, part, rows, size),
                HistoryFile(path, month, part, rows, size, self._known_at, self._run_id),
            )
        if rows and _content(new) in former.path:
            return _Month(former, None)
        delta = self._staging / "changes.parquet"
        changed = history.write_changes(
            self._con,
            former_path,
            new if rows else None,
            delta,
            computed_at=self._known_at,
            run_id=self._run_id,
        )
        if not changed:
            return _Month(former, None)
        path, size = self._settle(delta, "history", month, part)
        change = HistoryFile(path, month, part, changed, size)
        if not rows:
            return _Month(None, change)
        path, size = self._settle(new, "values", month, part)
        return _Month(ValuesFile(path, month, part, rows, size), change)

    def _months_with_rows(self, window: Window) -> set[date]:
        if self._union is None:
            return set()
        found = self._con.execute(
            f"SELECT DISTINCT date_trunc('month', period_start)::DATE FROM ({self._union}) "
            f"WHERE {_within(window.first_month, window.month_end)}"
        ).fetchall()
        return {row[0] for row in found}

    def _write_values(self, month: date, part: Part, target: Path) -> int:
        """All rows of one part of one month, sorted, checked to have one row per key; returns how many."""
        if self._union is None:
            return 0
        part_filter = _IS_SKU if part == "sku" else f"NOT {_IS_SKU}"
        row = self._con.execute(
            f"COPY (SELECT * FROM ({self._union}) WHERE {_within(month, next_month(month))} AND {part_filter} "
            f"ORDER BY {', '.join(KEY)}) TO {literal(str(target))} {_WRITE}"
        ).fetchone()
        assert row is not None
        duplicate = self._con.execute(
            f"SELECT {', '.join(KEY)}, count(*) FROM {parquet([target])} GROUP BY ALL HAVING count(*) > 1 LIMIT 1"
        ).fetchone()
        if duplicate is not None:
            metric, grain, dimension, member, period_start, count = duplicate
            raise PublishError(
                f"metric {metric}: {count} rows for {dimension} = {member}, {grain} {period_start}; "
                "a metric table has one row per period, grain, dimension and member"
            )
        return int(row[0])

    def _settle(self, staged: Path, folder: str, month: date, part: Part) -> tuple[str, int]:
        """Move a staged file to its name; returns path relative to the published directory and size in bytes."""
        size = staged.stat().st_size
        relative = Path(folder) / f"month={month:%Y-%m}" / f"{part}-{_content(staged)}.parquet"
        target = self._root / relative
        if not target.parent.exists():
            target.parent.mkdir(parents=True)
            self._touched |= {target.parent.parent, self._root}
        with staged.open("rb") as stream:
            os.fsync(stream.fileno())
        staged.replace(target)
        self._touched.add(target.parent)
        return relative.as_posix(), size

    def _sync(self) -> None:
        for directory in self._touched:
            manifest.sync_directory(directory)
        self._touched.clear()


def _checked_union(con: duckdb.DuckDBPyConnection, tables: Mapping[str, MetricTables]) -> str | None:
    """One query over all metric tables with the published columns; None when there is no table.

    Raises `PublishError` with everything that is wrong with any table.
    """
    found: dict[str, set[str]] = {}
    for schema, table, column in con.execute(
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
    ).fetchall():
        found.setdefault(f"{schema}.{table}", set()).add(column)
    problems: list[str] = []
    selects: list[str] = []
    columns = ", ".join(f"{name}::{kind} AS {name}" for name, kind in METRIC_TABLE_COLUMNS.items())
    for metric, source in sorted(tables.items()):
        if source.state.is_absent:
            continue
        if not source.tables:
            problems.append(f"metric {metric} names no table; give its tables or the reason why it is absent")
        kept = ""
        if source.dimensions is not None:
            kept = f" WHERE dimension IN ({', '.join(literal(dimension) for dimension in source.dimensions)})"
        for table in source.tables:
            if table not in found:
                problems.append(f"metric {metric}: the build file has no table {table}; build it with dbt first")
            elif missing := [name for name in METRIC_TABLE_COLUMNS if name not in found[table]]:
                problems.append(f"metric {metric}: table {table} lacks {', '.join(missing)}")
            else:
                schema, name = table.split(".", 1)
                selects.append(
                    f"SELECT {literal(metric)} AS metric, {columns} FROM {identifier(schema)}.{identifier(name)}{kept}"
                )
    if problems:
        raise PublishError("; ".join(problems))
    return "\nUNION ALL\n".join(selects) or None


@contextmanager
def _connection(build: Path | duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    if isinstance(build, duckdb.DuckDBPyConnection):
        with build.cursor() as cursor:
            yield cursor
        return
    with connect_build(build, read_only=True) as con:
        yield con


@contextmanager
def _sole_writer(published_dir: Path) -> Iterator[Path]:
    """Hold the writer's lock; yields an empty staging folder, which is gone afterwards.

    The lock is the operating system's: it ends with the process that holds it.
    """
    published_dir.mkdir(parents=True, exist_ok=True)
    staging = published_dir / _STAGING
    with (published_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PublishError(f"another publish into {published_dir} is running; let it end") from None
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _former(published_dir: Path) -> Version | None:
    try:
        return manifest.read_current(published_dir)
    except (FileNotFoundError, DamagedManifest) as error:
        raise PublishError(
            f"the current version cannot be read ({error}). Write the id of a version whose manifest is in "
            f"{published_dir / 'versions'} into {manifest.current_path(published_dir)}, or remove that file and "
            "publish all of history anew"
        ) from None


def _committed(published_dir: Path) -> list[Version]:
    """Versions that were current once and are still there, newest first."""
    versions: list[Version] = []
    version = manifest.read_current(published_dir)
    while version is not None:
        versions.append(version)
        if version.previous is None:
            break
        try:
            version = manifest.read_version(manifest.version_path(published_dir, version.previous))
        except FileNotFoundError:
            break
    return versions


def _remove_uncommitted(published_dir: Path, former: Version | None) -> None:
    """Remove the manifests of publishes that were killed before `CURRENT` named them: no reader ever saw them."""
    if not (published_dir / "versions").exists():
        return
    known = {version.id for version in _committed(published_dir)} if former else set()
    for path in (published_dir / "versions").iterdir():
        if path.name.removesuffix(".json") not in known:
            path.unlink(missing_ok=True)


def _content(path: Path) -> str:
    """Sixteen hexadecimal digits over the bytes of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _within(start: date, until: date) -> str:
    return f"period_start >= {literal(start)} AND period_start < {literal(until)}"


def _meets(month: date, window: Window) -> bool:
    return month < window.until and next_month(month) > window.start
