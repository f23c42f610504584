"""When history is judged: verdicts of many periods → what each run, nightly or hourly, would have judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_DAY, _HOUR = timedelta(days=1), timedelta(hours=1)
_JUDGED_AT = "judged_at"


@dataclass(frozen=True)
class Schedule:
    """When runs judge, on the shop's clock."""

    night: time = time(3, 0)
    """A day is judged at this time of the next day."""
    after_hour: timedelta = timedelta(minutes=10)
    """An hour is judged so long after its end."""
    acknowledged: time | None = None
    """Every day at this time somebody acknowledges what was told and still fires; None: nobody ever does."""

    @property
    def after_day(self) -> timedelta:
        """From the end of a day to its night."""
        return timedelta(hours=self.night.hour, minutes=self.night.minute)


@dataclass(frozen=True)
class Tick:
    """One run: all verdicts on what ended last."""

    at: datetime
    """Shop-local."""
    verdicts: pa.Table
    grains: frozenset[str]
    breaches: bool
    """Whether any slice is yellow or red."""


def ticks(pieces: Iterable[tuple[datetime, pa.Table]], schedule: Schedule) -> Iterator[Tick]:
    """The runs in the order of their time.

    `pieces`: stretches of history in order, each as its end and its verdicts, which have the columns of the evaluations and are of
    periods that begin before that end.
    """
    rest: pa.Table | None = None
    for until, verdicts in pieces:
        table = _with_times(verdicts, schedule)
        if rest is not None and rest.num_rows:
            table = pa.concat_tables([rest, table])
        table, at = _sorted(table)
        known = int(np.searchsorted(at, np.datetime64(until, "us"), side="left"))
        yield from _cut(table.slice(0, known), at[:known])
        rest = table.slice(known)  # later than the next stretch begins: its first hours may come before
    if rest is not None and rest.num_rows:
        yield from _cut(*_sorted(rest))


def _with_times(table: pa.Table, schedule: Schedule) -> pa.Table:
    period = table["period_start"].to_numpy().astype("datetime64[us]")
    hourly = _texts(table, "grain") == "hour"
    delay = np.where(hourly, _us(_HOUR + schedule.after_hour), _us(_DAY + schedule.after_day))
    return table.append_column(_JUDGED_AT, pa.array(period + delay, pa.timestamp("us")))


def _us(length: timedelta) -> np.timedelta64:
    return np.timedelta64(length // timedelta(microseconds=1), "us")


def _sorted(table: pa.Table) -> tuple[pa.Table, NDArray[np.datetime64]]:
    at = table[_JUDGED_AT].to_numpy().astype("datetime64[us]")
    order = np.argsort(at, kind="stable")
    return table.unify_dictionaries().combine_chunks().take(pa.array(order)), at[order]


def _cut(table: pa.Table, at: NDArray[np.datetime64]) -> Iterator[Tick]:
    if not len(at):
        return
    starts = np.flatnonzero(np.concatenate([[True], at[1:] != at[:-1]]))
    breaching = np.logical_or.reduceat(np.isin(_texts(table, "tier"), ("yellow", "red")), starts)
    grains = _texts(table, "grain")
    plain = table.drop_columns([_JUDGED_AT])
    for start, end, breaches in zip(starts, [*starts[1:], len(at)], breaching, strict=True):
        yield Tick(
            at=at[start].astype(object),
            verdicts=plain.slice(start, end - start),
            grains=frozenset(grains[start:end].tolist()),
            breaches=bool(breaches),
        )


def _texts(table: pa.Table, name: str) -> NDArray[Any]:
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    found: NDArray[Any] = np.asarray(column.to_numpy(zero_copy_only=False), dtype=object)
    return found
