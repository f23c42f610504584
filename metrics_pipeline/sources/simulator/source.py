"""The simulator's files as a source: month files → batches, with rows arriving when they arrived.

A window sees what was known at its end. A row that came late is not in the window of its clock but in the one of its
arrival; a parcel that was delivered after the window's end has no delivery time yet and is delivered again when it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

from metrics_pipeline.sources.simulator.market import CURRENCY, TIMEZONE, UTC_OFFSET
from metrics_pipeline.sources.simulator.run import CLOCKS, DATE_CLOCKS, DIMENSIONS, Manifest, months, read_manifest
from metrics_pipeline.sources.simulator.write import ARRIVED
from metrics_pipeline.sources.source import Batch, SourceError, SourceInfo, Span

_OFFSET = timedelta(seconds=UTC_OFFSET)
_LONGEST_WAIT = timedelta(days=45)
"""No row arrives or changes later than this after its clock."""


class SimulatorSource:
    """Reads a folder filled by `simulate`; implements `sources.source.Source`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def info(self) -> SourceInfo:
        """Name, clock and currency; the simulator provides every table and column of the contract."""
        return SourceInfo("simulator", TIMEZONE, CURRENCY)

    def coverage(self, table: str) -> tuple[Span, ...]:
        """From shop-local midnight of the first day to shop-local midnight after the last; UTC."""
        self._known(table)
        manifest = self._manifest()
        return (Span(_midnight(manifest.start), _midnight(manifest.until + timedelta(days=1))),)

    def batches(self, table: str, window: Span) -> Iterator[Batch]:
        """One batch per month of the window, then one with older rows that arrived or changed within it.

        Dimension tables are one batch, whole, as known at the window's end.
        """
        self._known(table)
        manifest = self._manifest()
        if table in DIMENSIONS:
            yield self._dimension(table, manifest, window)
            return
        start = max(window.start, _midnight(manifest.start))
        until = min(window.until, _midnight(manifest.until + timedelta(days=1)))
        for _, first, last in months(manifest.start, manifest.until):
            begin, end = _midnight(first), _midnight(last + timedelta(days=1))
            piece = Span(max(start, begin), min(until, end))
            path = self._path(table, first)
            if piece.start < piece.until and path.exists():
                is_whole = (begin, end) == (piece.start, piece.until)
                yield self._on_time(table, manifest, path, piece, known_at=window.until, is_whole=is_whole)
        if table in DATE_CLOCKS:
            return
        older = [
            self._path(table, first)
            for _, first, last in months(manifest.start, manifest.until)
            if _midnight(first) < start and _midnight(last + timedelta(days=1)) > start - _LONGEST_WAIT
        ]
        older = [path for path in older if path.exists()]
        if older and start < until:
            yield self._belated(table, manifest, older, Span(start, window.until))

    def _on_time(
        self, table: str, manifest: Manifest, path: Path, piece: Span, *, known_at: datetime, is_whole: bool
    ) -> Batch:
        clock = CLOCKS[table]
        settled = is_whole and known_at >= piece.until + _LONGEST_WAIT
        if table in DATE_CLOCKS:
            # A day's row exists when the day is over.
            where = f"({clock} + INTERVAL 1 DAY) > CAST(? AS TIMESTAMP) AND ({clock} + INTERVAL 1 DAY) <= CAST(? AS TIMESTAMP)"
            where += f" AND {clock} >= CAST(? AS DATE) AND {clock} <= CAST(? AS DATE)"
            begin, end = piece.start + _OFFSET, piece.until + _OFFSET
            parameters: tuple[object, ...] = (str(path), begin, end, (begin - timedelta(days=1)).date(), end.date())
        else:
            where = f"{clock} >= CAST(? AS TIMESTAMP) AND {clock} < CAST(? AS TIMESTAMP)"
            where += f" AND ({ARRIVED} IS NULL OR {ARRIVED} < CAST(? AS TIMESTAMP))"
            parameters = (str(path), piece.start, piece.until, known_at)
        query = f"SELECT {_columns(table, known_at)} FROM read_parquet(?) WHERE {where}"
        name = f"{path.stem}" if settled else f"{_stamp(piece.start)}..{_stamp(piece.until)}@{_stamp(known_at)}"
        return Batch(table, f"simulator/{table}/{name}/{manifest.fingerprint}", query, parameters)

    def _belated(self, table: str, manifest: Manifest, paths: list[Path], window: Span) -> Batch:
        clock = CLOCKS[table]
        happened = f"({ARRIVED} >= CAST(? AS TIMESTAMP) AND {ARRIVED} < CAST(? AS TIMESTAMP))"
        parameters: list[object] = [
            [str(path) for path in paths],
            window.start - _LONGEST_WAIT,
            window.start,
            window.start,
            window.until,
        ]
        if table == "shipments":
            happened += " OR (delivered_at >= CAST(? AS TIMESTAMP) AND delivered_at < CAST(? AS TIMESTAMP))"
            parameters += [window.start, window.until]
        parameters.append(window.until)
        query = (
            f"SELECT {_columns(table, window.until)} FROM read_parquet(?)"
            f" WHERE {clock} >= CAST(? AS TIMESTAMP) AND {clock} < CAST(? AS TIMESTAMP) AND ({happened})"
            f" AND ({ARRIVED} IS NULL OR {ARRIVED} < CAST(? AS TIMESTAMP))"
        )
        name = f"belated/{_stamp(window.start)}..{_stamp(window.until)}"
        return Batch(table, f"simulator/{table}/{name}/{manifest.fingerprint}", query, tuple(parameters))

    def _dimension(self, table: str, manifest: Manifest, window: Span) -> Batch:
        path = self._directory / table / "all.parquet"
        if table == "customers":
            where, parameters = "registered_at < CAST(? AS TIMESTAMP)", (str(path), window.until)
        else:
            column = "listed_on" if table == "products" else "starts_on"
            where, parameters = f"{column} < CAST(? AS TIMESTAMP)", (str(path), window.until + _OFFSET)
        batch_id = f"simulator/{table}/{_stamp(window.until)}/{manifest.fingerprint}-{manifest.until:%Y%m%d}"
        return Batch(table, batch_id, f"SELECT * FROM read_parquet(?) WHERE {where}", parameters)

    def _path(self, table: str, first: date) -> Path:
        return self._directory / table / f"{first:%Y-%m}.parquet"

    def _manifest(self) -> Manifest:
        manifest = read_manifest(self._directory)
        if manifest is None:
            raise SourceError(
                f"{self._directory}: no completed simulation here; run `metrics demo`, or load a source: `metrics load --help`"
            )
        return manifest

    def _known(self, table: str) -> None:
        if table not in CLOCKS and table not in DIMENSIONS:
            raise SourceError(f"simulator: there is no table {table!r}; it has {', '.join((*CLOCKS, *DIMENSIONS))}")


def _columns(table: str, known_at: datetime) -> str:
    """The contract's columns of an event table, as known at a time."""
    if table != "shipments":
        return f"* EXCLUDE ({ARRIVED})"
    moment = f"TIMESTAMP '{known_at:%Y-%m-%d %H:%M:%S}'"
    return f"* EXCLUDE ({ARRIVED}) REPLACE (CASE WHEN delivered_at < {moment} THEN delivered_at END AS delivered_at)"


def _midnight(day: date) -> datetime:
    """Start of a shop day in UTC."""
    return datetime(day.year, day.month, day.day) - _OFFSET


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%S}"
