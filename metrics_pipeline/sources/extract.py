"""What the sources of fixed Parquet extracts share: named files, one SELECT per table, completeness by day.

A subclass says which SELECT makes which contract table; `{orders}` in it stands for the file `orders.parquet`. An
extract has no arrival times: a window gets the rows whose clock lies in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.coverage import Days, daily_volumes, infer_days, spans_of, told_days
from metrics_pipeline.sources.source import Batch, SourceError, SourceInfo, Span


class Extract:
    """A folder of Parquet files in a known format; base of a `sources.source.Source`."""

    info: SourceInfo
    files: tuple[str, ...]
    """Names of the files, without `.parquet`."""
    selects: Mapping[str, str]
    """Contract table → SELECT over `{file}` placeholders, columns by contract name, clocks in UTC."""

    def __init__(self, folder: Path, *, complete_from: date | None = None, complete_until: date | None = None) -> None:
        """`complete_from` and `complete_until` (first and last complete shop day) win over what the volumes say.

        Raises `SourceError` when the folder or one of its files is not there.
        """
        self.folder = folder
        self.complete_from = complete_from
        self.complete_until = complete_until
        missing = [f"{name}.parquet" for name in self.files if not (folder / f"{name}.parquet").is_file()]
        if missing:
            raise SourceError(
                f"{folder}: not a complete {self.info.name} extract: {', '.join(missing)} not found. "
                f"Expected {', '.join(f'{name}.parquet' for name in self.files)}; point `path` at the folder that has them."
            )
        self._days: dict[str, tuple[Days, ...]] = {}

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.info.timezone)

    def complete_days(self, table: str) -> tuple[Days, ...]:
        """Inferred shop days for which an event table is complete; each source has its own evidence."""
        raise NotImplementedError

    def coverage(self, table: str) -> tuple[Span, ...]:
        """Spans of complete shop days; a dimension is complete wherever the extract has rows; () when absent."""
        if table not in self.selects:
            return ()
        if table not in self._days:
            self._days[table] = told_days(self.complete_days(table), self.complete_from, self.complete_until)
        return spans_of(self._days[table], self.zone)

    def batches(self, table: str, window: Span) -> Iterator[Batch]:
        """One batch of the rows whose clock lies in `window`, and of those without a clock (they go to quarantine)."""
        if table not in self.selects:
            return
        query, parameters = self.bound(self.selects[table])
        contract = load_contract().table(table)
        name = f"{self.info.name}/{table}"
        if contract.clock is not None:
            count = len(parameters)
            clock = contract.clock
            query = (
                f"SELECT * FROM ({query}) AS mapped WHERE {clock} IS NULL OR ({clock} >= CAST(${count + 1} AS TIMESTAMP)"
                f" AND {clock} < CAST(${count + 2} AS TIMESTAMP)) ORDER BY {clock}"
            )
            parameters += (window.start, window.until)
            name += f"/{_stamp(window.start)}..{_stamp(window.until)}"
        yield Batch(table, name, query, parameters)

    def bound(self, select: str) -> tuple[str, tuple[object, ...]]:
        """Replace `{file}` placeholders by numbered parameters; returns the query and the paths."""
        paths: list[object] = []

        def placeholder(match: re.Match[str]) -> str:
            path = str(self.folder / f"{match[1]}.parquet")
            if path not in paths:
                paths.append(path)
            return f"read_parquet(${paths.index(path) + 1})"

        return re.sub(r"\{(\w+)\}", placeholder, select), tuple(paths)

    def volume_days(self, select: str) -> tuple[Days, ...]:
        """Complete days inferred from a SELECT of `day, rows` over `{file}` placeholders."""
        return infer_days(daily_volumes(*self.bound(select)))


def since(days: tuple[Days, ...], first: date) -> tuple[Days, ...]:
    """The days not before `first`."""
    return tuple(Days(max(item.first, first), item.last) for item in days if item.last >= first)


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H%M")
