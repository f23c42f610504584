"""Reading published values: the door for checks, messages, console, CLI and replay. Nobody else needs the build file.

A `Published` holds one version and goes on reading it while newer ones are published. Periods and bounds are the
shop's clock; moments (`created_at`, `as_of`) are UTC.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.history import EMPTY_VALUES, history_sql, known_as_of_sql
from metrics_pipeline.warehouse.manifest import DamagedManifest, MetricState, Version, part_of
from metrics_pipeline.warehouse.quoting import literal, parquet
from metrics_pipeline.warehouse.window import next_month

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MetricState", "NotPublished", "Published", "UnknownMetric"]

_SERIES = "member, period_start, numerator, denominator, value, definition_version"


class NotPublished(RuntimeError):
    """There are no published values to read; the message says what to do."""


class UnknownMetric(LookupError):
    """A metric that the version does not have; the message names the ones it has."""


@dataclass(frozen=True)
class Published:
    """One published version. `Published.open` takes the current one."""

    directory: Path
    manifest: Version

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
        con.execute(f"CREATE VIEW metric_values AS {self._values_sql(self.files(start, until))}")
        con.execute(f"CREATE VIEW metric_history AS {self._history_sql(start, until, None)}")
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
            query = f"SELECT {_SERIES} FROM ({source}) WHERE {where} ORDER BY member, period_start"
        else:
            known = known_as_of_sql(self._history_sql(start, until, dimension), where, manifest.utc(as_of))
            query = f"SELECT {_SERIES}, computed_at, run_id FROM ({known}) ORDER BY member, period_start"
        with duckdb.connect() as con:
            return con.execute(query).df()

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
        with duckdb.connect() as con:
            return con.execute(
                f"SELECT {_SERIES}, computed_at, run_id FROM ({source}) WHERE {where} "
                "ORDER BY member, period_start, computed_at"
            ).df()

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
    conditions = [f"metric = {literal(metric)}", f"grain = {literal(grain)}", f"dimension = {literal(dimension)}"]
    if member is not None:
        conditions.append(f"member = {literal(member)}")
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
