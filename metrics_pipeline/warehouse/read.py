"""Reading published values: the door for checks, messages, console, CLI and replay. Nobody else needs the build file.

A `Published` holds one version and goes on reading it while newer ones are published. Periods and bounds are the
shop's clock; moments (`created_at`, `as_of`) are UTC.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import duckdb

from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.history import EMPTY_VALUES, history_sql, known_as_of_sql
from metrics_pipeline.warehouse.manifest import DamagedManifest, MetricState, Version, part_of
from metrics_pipeline.warehouse.quoting import is_one_of, literal, parquet
from metrics_pipeline.warehouse.window import next_month

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["MetricState", "NotPublished", "Published", "UnknownMetric", "VersionGone", "open_reader"]

_SERIES = "member, period_start, numerator, denominator, value, definition_version"


class NotPublished(RuntimeError):
    """There are no published values to read; the message says what to do."""


class VersionGone(NotPublished):
    """A version that was published once, or never, and is not kept."""


class UnknownMetric(LookupError):
    """A metric that the version does not have; the message names the ones it has."""


VERSION_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")
_PAGE: Final = {
    "metric": "metric = $metric",
    "grain": "grain = $grain",
    "dimension": "dimension = $dimension",
    "member": "member = $member",
    "start": "period_start >= $start",
    "until": "period_start < $until",
    "after_member": "(member, period_start) > ($after_member, $after_period)",
}
"""The conditions of a page, by the parameters they need."""


def open_reader() -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB for many small reads: each thread takes a `cursor()`. It remembers the heads of files."""
    con = duckdb.connect(config={"threads": 1})
    con.execute("SET parquet_metadata_cache = true")
    return con


@dataclass(frozen=True)
class Published:
    """One published version. `Published.open` takes the current one."""

    directory: Path
    manifest: Version
    _columns: ClassVar[str] = _SERIES
    """Columns of a series."""

    @classmethod
    def open(cls, directory: Path) -> Published:
        """The current version. Raises `NotPublished` when there is none that can be read."""
        for attempt in range(3):
            try:
                version = manifest.read_current(directory)
            except FileNotFoundError:
                # `CURRENT` was replaced and its former version removed between the two reads.
                time.sleep(0.05 * attempt)
            except DamagedManifest as error:
                raise NotPublished(f"{error}; publish again with `metrics nightly`") from None
            else:
                if version is None:
                    raise NotPublished(
                        f"nothing is published in {directory}; run `metrics demo`, or `metrics load` and then `metrics nightly`"
                    )
                return cls(directory, version)
        raise NotPublished(
            f"{manifest.current_path(directory)} names a version whose manifest is gone; publish again with `metrics nightly`"
        )

    @classmethod
    def open_version(cls, directory: Path, version: str) -> Published:
        """A version by its id, the current one or one before. Raises `VersionGone` when it is not kept any more."""
        if VERSION_ID.fullmatch(version) is not None:
            try:
                return cls(directory, manifest.read_version(manifest.version_path(directory, version)))
            except (FileNotFoundError, DamagedManifest):
                pass
        raise VersionGone(f"version {version!r} is not kept any more; begin again with the current one")

    @property
    def version(self) -> str:
        """The version's id, which is the `data_version` of what is computed from it."""
        return self.manifest.id

    @property
    def created_at(self) -> datetime:
        """When it was published, naive UTC."""
        return self.manifest.created_at

    @property
    def metrics(self) -> Mapping[str, MetricState]:
        """Metric id → state, absent metrics included."""
        return self.manifest.metrics

    def files(
        self,
        start: date | datetime | None = None,
        until: date | datetime | None = None,
        *,
        dimension: str | None = None,
    ) -> list[Path]:
        """Parquet files of the months that meet [start, until); None = no bound.

        Without `dimension` the files of all dimensions; with it (`'region'`, `'category|sku'`) only those that hold it.
        """
        return [
            self.directory / file.path
            for file in self.manifest.values
            if _month_meets(file.month, start, until) and (dimension is None or file.part == part_of(dimension))
        ]

    def connect(
        self, start: date | datetime | None = None, until: date | datetime | None = None
    ) -> duckdb.DuckDBPyConnection:
        """An in-memory DuckDB with two views over this version and nothing else; use it in a `with` statement.

        `metric_values`: the published columns (docs/architecture.md, Published values), of the months that meet
        [start, until). `metric_history`: every recorded change in these months, with `computed_at` (UTC) and `run_id`.
        """
        con = duckdb.connect()
        con.execute(f"CREATE VIEW metric_values AS {self._shown(self._values_sql(self.files(start, until)))}")
        con.execute(
            f"CREATE VIEW metric_history AS {self._shown(self._history_sql(start, until, None), is_history=True)}"
        )
        return con

    def series(
        self,
        metric: str,
        dimension: str = "all",
        member: str | None = "all",
        grain: str = "day",
        *,
        start: date | datetime | None = None,
        until: date | datetime | None = None,
        as_of: datetime | None = None,
    ) -> pd.DataFrame:
        """Values of one metric in [start, until), sorted by member and period; no rows = nothing is known there.

        Columns: member, period_start (shop-local), numerator, denominator, value (the metric's unit),
        definition_version. `member=None` gives all members of the dimension. With `as_of` (aware, or naive UTC) the
        values are those known at that moment, with the definition that made them, and two columns say when and by
        which run they were recorded: computed_at, run_id.

        Raises `UnknownMetric` (an absent or, with `as_of`, a former metric is known).
        """
        self._require(metric, as_of)
        where = _where(metric, dimension, member, grain, start=start, until=until)
        if as_of is None:
            source = self._values_sql(self.files(start, until, dimension=dimension))
            found = self._shown(f"SELECT * FROM ({source}) WHERE {where}")
            query = f"SELECT {self._columns} FROM ({found}) ORDER BY member, period_start"
        else:
            known = known_as_of_sql(self._history_sql(start, until, dimension), where, manifest.utc(as_of))
            found = self._shown(known, is_history=True)
            query = f"SELECT {self._columns}, computed_at, run_id FROM ({found}) ORDER BY member, period_start"
        with duckdb.connect() as con:
            return con.execute(query).df()

    def slices(
        self,
        wanted: Collection[tuple[str, str, str]],
        grain: str = "day",
        *,
        start: date | datetime | None = None,
        until: date | datetime | None = None,
    ) -> pd.DataFrame:
        """Values of many slices (metric, dimension, member) in [start, until), read once: metric, dimension and the columns of `series`.

        Raises `UnknownMetric`.
        """
        for metric in {metric for metric, _, _ in wanted}:
            self._require(metric, None)
        files = {
            file
            for dimension in {one for _, one, _ in wanted}
            for file in self.files(start, until, dimension=dimension)
        }
        where = f"{is_one_of('metric, dimension, member', wanted)} AND {_when(grain, start, until)}"
        found = self._shown(f"SELECT * FROM ({self._values_sql(sorted(files))}) WHERE {where}")
        with duckdb.connect() as con:
            return con.execute(
                f"SELECT metric, dimension, {self._columns} FROM ({found}) ORDER BY metric, dimension, member, period_start"
            ).df()

    def changes(
        self,
        metric: str,
        dimension: str = "all",
        member: str | None = "all",
        grain: str = "day",
        *,
        start: date | datetime | None = None,
        until: date | datetime | None = None,
    ) -> pd.DataFrame:
        """Every recorded change of the values of one metric in [start, until), oldest first for each period.

        Columns as of `series` with `as_of`. A vanished value is a row whose numerator, denominator and value are NULL.
        """
        where = _where(metric, dimension, member, grain, start=start, until=until)
        source = self._history_sql(start, until, dimension)
        found = self._shown(f"SELECT * FROM ({source}) WHERE {where}", is_history=True)
        with duckdb.connect() as con:
            return con.execute(
                f"SELECT {self._columns}, computed_at, run_id FROM ({found}) ORDER BY member, period_start, computed_at"
            ).df()

    def page(
        self,
        con: duckdb.DuckDBPyConnection,
        metric: str,
        dimension: str = "all",
        member: str | None = None,
        grain: str = "day",
        *,
        start: date | datetime | None = None,
        until: date | datetime | None = None,
        as_of: datetime | None = None,
        after: tuple[str, datetime] | None = None,
        limit: int = 1000,
    ) -> pa.Table:
        """At most `limit` of the rows that `series` gives, in its order, from the first one after (member, period) on.

        `con` is a connection of its own thread, such as a cursor of `open_reader()`. Whatever is given here reaches
        DuckDB as bound parameters. Raises `UnknownMetric`, and `VersionGone` when the files were removed meanwhile.
        """
        self._require(metric, as_of)
        values: dict[str, Any] = {"metric": metric, "dimension": dimension, "grain": grain}
        given = {"member": member, "start": _as_moment(start), "until": _as_moment(until)}
        values |= {name: value for name, value in given.items() if value is not None}
        if after is not None:
            values |= {"after_member": after[0], "after_period": after[1]}
        where = " AND ".join(condition for name, condition in _PAGE.items() if name in values)
        if as_of is None:
            source = self._values_sql(self.files(start, until, dimension=dimension))
            found, stamp = self._shown(f"SELECT * FROM ({source}) WHERE {where}"), ""
        else:
            known = known_as_of_sql(self._history_sql(start, until, dimension), where, manifest.utc(as_of))
            found, stamp = self._shown(known, is_history=True), ", computed_at, run_id"
        query = f"SELECT {self._columns}{stamp} FROM ({found}) ORDER BY member, period_start LIMIT $limit"
        try:
            return con.sql(query, params={**values, "limit": limit}).to_arrow_table()
        except duckdb.IOException:
            if all((self.directory / path).exists() for path in self.manifest.paths()):
                raise
            raise VersionGone(f"version {self.version!r} is not kept any more; begin again") from None

    def relation(self, files: Sequence[Path]) -> str:
        """A table expression over the published columns of some of `files`."""
        return parquet(files) if files else f"({EMPTY_VALUES})"

    def _shown(self, query: str, *, is_history: bool = False) -> str:
        """What of the rows of a query is shown: all of it. A reader with a policy shows less."""
        return query

    def _require(self, metric: str, as_of: datetime | None) -> None:
        if as_of is None and metric not in self.metrics:
            known = ", ".join(self.metrics) or "none"
            raise UnknownMetric(f"metric {metric!r} is not published; published metrics: {known}")

    def _values_sql(self, files: list[Path]) -> str:
        return f"SELECT * FROM {parquet(files)}" if files else EMPTY_VALUES

    def _history_sql(self, start: date | datetime | None, until: date | datetime | None, dimension: str | None) -> str:
        return history_sql(
            self.directory,
            (
                file
                for file in self.manifest.history
                if _month_meets(file.month, start, until) and (dimension is None or file.part == part_of(dimension))
            ),
        )


def _where(
    metric: str,
    dimension: str,
    member: str | None,
    grain: str,
    *,
    start: date | datetime | None,
    until: date | datetime | None,
) -> str:
    conditions = [f"metric = {literal(metric)}", f"dimension = {literal(dimension)}", _when(grain, start, until)]
    if member is not None:
        conditions.append(f"member = {literal(member)}")
    return " AND ".join(conditions)


def _when(grain: str, start: date | datetime | None, until: date | datetime | None) -> str:
    conditions = [f"grain = {literal(grain)}"]
    if start is not None:
        conditions.append(f"period_start >= {literal(start)}")
    if until is not None:
        conditions.append(f"period_start < {literal(until)}")
    return " AND ".join(conditions)


def _month_meets(month: date, start: date | datetime | None, until: date | datetime | None) -> bool:
    if start is not None and _moment(start) >= _moment(next_month(month)):
        return False
    return until is None or _moment(month) < _moment(until)


def _moment(day: date | datetime) -> datetime:
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)


def _as_moment(day: date | datetime | None) -> datetime | None:
    return None if day is None else _moment(day)
