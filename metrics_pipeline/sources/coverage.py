"""For which days is an extract complete? Inferred from how many rows each day has, or told.

A database knows when it was read; a folder of files does not. An extract typically begins with stray rows, has holes,
and fades out, because the newest orders were still on their way when it was taken. Such days are not low, they are
unknown: no baseline may be learnt from them and no alert raised. The rule, on the daily row counts of one table:

1. *Holes.* A day is empty when it has at most one row, or at most 2 % of what days of the four weeks before or after it
   usually have. Fourteen empty days in a row are a hole (a week without rows is a holiday), and end a stretch.
2. *Fragments.* A stretch of less than four weeks with less than 5 % of all rows is a trial or a leftover.
3. *Fading out.* Day by day, a day's usual level is the median of the last eight same weekdays before the run of low
   days it may belong to; it is low when it has less than 60 % of that, by more than noise explains (2 √level). Low
   days at the very end of a stretch, at most four weeks of them, are a fade when the last one is below 25 %; otherwise
   only the last day is set aside, which may be cut short. Low days that last longer, or are followed by a usual day,
   are business, not the end of the file, and stay.

A real collapse to almost nothing on the last days therefore looks like the end of the file. Whoever knows better says
so: `complete_from` and `complete_until` win over the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from statistics import median
from zoneinfo import ZoneInfo

import duckdb

from metrics_pipeline.sources.source import SourceError, Span, words_of

HOLE_DAYS = 14
EMPTY_SHARE = 0.02
FRAGMENT_DAYS = 28
FRAGMENT_SHARE = 0.05
LOW_SHARE = 0.6
FADED_SHARE = 0.25
LONGEST_FADE_DAYS = 28
USUAL_WEEKS = 8

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Days:
    """Shop-local days, first and last both included."""

    first: date
    last: date

    @property
    def count(self) -> int:
        return (self.last - self.first).days + 1


def infer_days(volumes: Mapping[date, int]) -> tuple[Days, ...]:
    """The complete stretches of an extract, ascending, from its rows per shop-local day (days without rows left out).

    See the rule above. () when there are no rows.
    """
    if not volumes:
        return ()
    total = sum(volumes.values())
    complete = []
    for stretch in _stretches(volumes):
        rows = sum(volumes.get(day, 0) for day in _each(stretch))
        if stretch.count < FRAGMENT_DAYS and rows < FRAGMENT_SHARE * total:
            continue
        if (kept := _without_fade(stretch, volumes)) is not None:
            complete.append(kept)
    return tuple(complete)


def told_days(days: Sequence[Days], complete_from: date | None, complete_until: date | None) -> tuple[Days, ...]:
    """The same days with the first and the last complete day as told (None = as inferred); holes in between stay."""
    if complete_from is not None and complete_until is not None and complete_from > complete_until:
        raise SourceError(
            f"complete from {complete_from} is after complete until {complete_until}; give the first and the last complete day"
        )
    kept = [
        Days(max(item.first, complete_from or item.first), min(item.last, complete_until or item.last))
        for item in days
        if (complete_from is None or item.last >= complete_from)
        and (complete_until is None or item.first <= complete_until)
    ]
    if kept and complete_from is not None:
        kept[0] = Days(complete_from, kept[0].last)
    if kept and complete_until is not None:
        kept[-1] = Days(kept[-1].first, complete_until)
    if not kept and complete_from is not None and complete_until is not None:
        kept = [Days(complete_from, complete_until)]
    return tuple(kept)


def common_days(left: Iterable[Days], right: Iterable[Days]) -> tuple[Days, ...]:
    """The days that are complete in both, ascending."""
    others = list(right)
    return tuple(
        sorted(
            (
                Days(max(a.first, b.first), min(a.last, b.last))
                for a in left
                for b in others
                if max(a.first, b.first) <= min(a.last, b.last)
            ),
            key=lambda item: item.first,
        )
    )


def spans_of(days: Iterable[Days], zone: ZoneInfo) -> tuple[Span, ...]:
    """Shop-local days as UTC spans: from the first instant of the first day to the first instant after the last."""
    return tuple(Span(local_midnight(item.first, zone), local_midnight(item.last + _DAY, zone)) for item in days)


def local_midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a shop-local day, naive UTC; also where clocks go forward at midnight."""
    return datetime.combine(day, time.min, tzinfo=zone).astimezone(UTC).replace(tzinfo=None)


def daily_volumes(query: str, parameters: Sequence[object] = ()) -> dict[date, int]:
    """Run a query of `day, rows` over files; days that are null are left out.

    Raises `SourceError` naming the files when one cannot be read.
    """
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        try:
            rows = con.execute(query, list(parameters)).fetchall()
        except duckdb.Error as error:
            raise unreadable(error, parameters) from None
    return {day: int(count) for day, count in rows if day is not None}


def unreadable(error: duckdb.Error, parameters: Sequence[object]) -> SourceError:
    """The error for files that DuckDB cannot read, with DuckDB's own words and the mend."""
    files = ", ".join(str(value) for value in parameters if isinstance(value, str | Path) and "/" in str(value))
    return SourceError(
        f"{files}: cannot be read: {words_of(error)} Deliver the file again in full, with the columns it had."
    )


def _each(days: Days) -> list[date]:
    return [days.first + timedelta(days=offset) for offset in range(days.count)]


def _stretches(volumes: Mapping[date, int]) -> list[Days]:
    """What is left between holes, without empty days at either end."""
    ordered = _each(Days(min(volumes), max(volumes)))
    counts = [volumes.get(day, 0) for day in ordered]
    filled = [index for index in range(len(ordered)) if not _is_empty(counts, index)]
    stretches: list[Days] = []
    for index in filled:
        if stretches and (ordered[index] - stretches[-1].last).days <= HOLE_DAYS:
            stretches[-1] = Days(stretches[-1].first, ordered[index])
        else:
            stretches.append(Days(ordered[index], ordered[index]))
    return stretches or [Days(ordered[0], ordered[-1])]


def _is_empty(counts: Sequence[int], index: int) -> bool:
    if counts[index] <= 1:
        return True
    before = [count for count in counts[max(index - 28, 0) : index] if count > 0]
    after = [count for count in counts[index + 1 : index + 29] if count > 0]
    usual = max((median(side) for side in (before, after) if side), default=0)
    return counts[index] <= EMPTY_SHARE * usual


def _without_fade(stretch: Days, volumes: Mapping[date, int]) -> Days | None:
    usual: dict[int, list[int]] = {weekday: [] for weekday in range(7)}
    low: list[tuple[date, float]] = []
    """The run of low days that is open at the end, each with its share of the usual level."""
    for day in _each(stretch):
        count = volumes.get(day, 0)
        seen = usual[day.weekday()][-USUAL_WEEKS:]
        level = median(seen) if len(seen) >= 3 else 0.0
        if count < LOW_SHARE * level and count < level - 2 * math.sqrt(level):
            low.append((day, count / level))
            if len(low) <= LONGEST_FADE_DAYS:
                continue
        else:
            low.append((day, 1.0))
        # The run ended, or has become the new usual: either way it is business, and the level learns from it.
        for earlier, _ in low:
            usual[earlier.weekday()].append(volumes.get(earlier, 0))
        low = []
    if not low:
        return stretch
    faded = len(low) if low[-1][1] < FADED_SHARE else 1
    last = stretch.last - timedelta(days=faded)
    return Days(stretch.first, last) if last >= stretch.first else None
