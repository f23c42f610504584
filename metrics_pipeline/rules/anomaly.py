"""`anomaly(...)` in rules: published values → panels → detectors → what the statement joins to its tested periods.

All series of all such rules of a grain are one panel, so that a night follows them in one walk; the members of a metric by
one dimension are peers. The walk begins on the first of a month, a fixed time before the month of the tested period: the
verdict of a period is the same whether one night or a year of replay is judged, and whichever rules there are beside it.

Learned is nothing that is kept: the same published version and calendar give the same verdict. A value of another
definition of its metric is no history (`anomaly_wanted` has only the current one).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from metrics_pipeline.detection.baseline import JUDGED, Surprise, point_surprise
from metrics_pipeline.detection.drift import drift_surprise
from metrics_pipeline.detection.interface import PHASES, BoolArray, Calendar, FloatArray, IntArray, Panel
from metrics_pipeline.detection.promotions import PHASES as CALENDAR_PHASES
from metrics_pipeline.detection.promotions import PromotionDay, calendar_days
from metrics_pipeline.detection.tracking import walk
from metrics_pipeline.rules.expression import Expression, per_day

HISTORY_MONTHS = {"day": 13, "hour": 2}
"""Whole months before the month of the tested period: for days last year's events are among them."""
LOOKBACK_DAYS = {"day": 13 * 31 + 31, "hour": 2 * 31 + 31}
"""Days before a tested period that are read at most."""
_ORDINARY = "season"
"""A long mild season is no event here: the level follows it."""
_PHASE_CODES = np.array([PHASES.index(name) for name in (*CALENDAR_PHASES, "none")], dtype=np.int64)
"""Number of a phase in the calendar (-1 = none, the last) → its code for detectors."""
COLUMNS = ("observed", "baseline", "low", "high", "low_red", "high_red")
_HOURS = {"day": 24, "hour": 1}


class Asked(NamedTuple):
    """One spec of the statement that asks for anomalies."""

    spec_no: int
    key_no: int
    grain: str
    dimension: str
    expression: Expression
    metric: str = ""


@dataclass(frozen=True)
class _Values:
    """Published values of a grain in long form, in the order of key, member and period."""

    series: IntArray
    """Number of the series of each value."""
    hours: IntArray
    """Hours from 1970-01-01 to the start of its period, shop-local."""
    numerator: FloatArray
    denominator: FloatArray
    is_incident: BoolArray
    """Whether it is of a past incident: learned from by nobody."""
    key_of: IntArray
    """(n_series,)"""
    members: tuple[str, ...]
    """(n_series,)"""


def found(
    con: duckdb.DuckDBPyConnection,
    values: str,
    asked: Sequence[Asked],
    promotions: Sequence[PromotionDay],
    span: tuple[datetime, datetime],
) -> pa.Table:
    """`spec_no, member, period_start` and `COLUMNS` of every tested period in the span [start, until) that can be judged.

    `values`: a table expression with the published columns; the relations `anomaly_wanted` and `incident_periods` are on the
    connection.
    """
    tables = [EMPTY]
    for grain in ("day", "hour"):
        of_grain = [one for one in asked if one.grain == grain]
        long = _read(con, values, sorted({one.key_no for one in of_grain})) if of_grain else None
        if long is not None and long.members:
            for months in _months(*span, HISTORY_MONTHS[grain]):
                tables += _judge(long, of_grain, promotions, months)
    return pa.concat_tables(tables)


class _Month(NamedTuple):
    """The part of a span in one calendar month, and when the history for it begins."""

    first: datetime
    start: datetime
    until: datetime


def _months(start: datetime, until: datetime, history: int) -> Iterator[_Month]:
    while start < until:
        month = start.year * 12 + start.month - 1
        first, following = (datetime(n // 12, n % 12 + 1, 1) for n in (month - history, month + 1))
        yield _Month(first, start, min(following, until))
        start = min(following, until)


def _read(con: duckdb.DuckDBPyConnection, values: str, keys: Sequence[int]) -> _Values:
    table = con.sql(
        f"""SELECT
            w.key_no, v.member, date_diff('hour', TIMESTAMP '1970-01-01', v.period_start) AS hours,
            CASE WHEN v.denominator > 0 AND v.numerator IS NOT NULL THEN v.numerator ELSE v.value END AS n,
            CASE WHEN v.denominator > 0 AND v.numerator IS NOT NULL THEN v.denominator ELSE 1 END AS d,
            i.key_no IS NOT NULL AS is_incident
        FROM {values} AS v
        JOIN anomaly_wanted AS w
            ON w.metric = v.metric AND w.grain = v.grain AND w.dimension = v.dimension
            AND w.metric_version = v.definition_version
            AND v.period_start >= w.since AND v.period_start < w.until AND v.period_start <= w.last_start
        LEFT JOIN incident_periods AS i
            ON i.key_no = w.key_no AND i.member = v.member AND i.period_start = v.period_start
        WHERE list_contains($keys, w.key_no) AND isfinite(v.value)
        ORDER BY w.key_no, v.member, v.period_start""",
        params={"keys": list(keys)},
    ).to_arrow_table()
    key = table["key_no"].to_numpy().astype(np.int64)
    member = table["member"].combine_chunks().dictionary_encode()
    number = member.indices.to_numpy().astype(np.int64)
    names = member.dictionary.to_pylist()
    is_first = np.ones(len(key), dtype=bool)
    is_first[1:] = (key[1:] != key[:-1]) | (number[1:] != number[:-1])
    return _Values(
        np.cumsum(is_first) - 1,
        table["hours"].to_numpy().astype(np.int64),
        table["n"].to_numpy().astype(np.float64),
        table["d"].to_numpy().astype(np.float64),
        table["is_incident"].to_numpy(),
        key[is_first],
        tuple(names[n] for n in number[is_first].tolist()),
    )


def _judge(long: _Values, asked: Sequence[Asked], promotions: Sequence[PromotionDay], month: _Month) -> list[pa.Table]:
    """The judgements of one month, for rules of one grain."""
    grain = asked[0].grain
    first, start, until = month
    step = _HOURS[grain]
    origin = _hours(first)
    shape = (len(long.members), -(-(_hours(until) - origin) // step))
    column = (long.hours - origin) // step
    inside = (column >= 0) & (column < shape[1])
    numerator, denominator = np.full(shape, np.nan), np.full(shape, np.nan)
    numerator[long.series[inside], column[inside]] = long.numerator[inside]
    denominator[long.series[inside], column[inside]] = long.denominator[inside]
    excluded = None
    if (inside & long.is_incident).any():
        excluded = np.zeros(shape, dtype=bool)
        excluded[long.series[inside], column[inside]] = long.is_incident[inside]
    tested = slice(-(-(_hours(start) - origin) // step), shape[1])
    if tested.start >= tested.stop or not np.isfinite(numerator[:, tested]).any():
        return []
    moments = (origin + np.arange(shape[1]) * step).astype("datetime64[h]")
    days = moments.astype("datetime64[D]")
    weekday = (days.astype(np.int64) + 3) % 7
    slot = weekday if grain == "day" else weekday * 24 + (origin + np.arange(shape[1])) % 24
    calendar = _calendar(long, {one.key_no: one.dimension for one in asked}, promotions, days)
    group = long.key_of * (int(calendar.category.max(initial=0)) + 1) + calendar.category
    is_ratio = bool(np.nanmax(np.where(denominator == 1, 0, np.nan_to_num(denominator)), initial=0) > 0)
    panel = Panel(numerator, slot.astype(np.int64), group, denominator if is_ratio else None, excluded)
    patterns = {one.expression.pattern for one in asked}
    seen = walk(panel, calendar, tested, with_means="drift" in patterns)
    surprises: dict[str, Surprise] = {}
    if "point" in patterns:
        surprises["point"] = point_surprise(panel, seen)
    if "drift" in patterns:
        surprises["drift"] = drift_surprise(panel, seen)
    starts = moments[tested].astype("datetime64[us]")
    return [_table(one, surprises[one.expression.pattern], long, starts, 24 // step) for one in asked]


def _calendar(long: _Values, dimensions: Mapping[int, str], promotions: Sequence[PromotionDay], days: Any) -> Calendar:
    """The calendar of every series: row 0 is the whole shop's, and each slice with events of its own has another."""
    known = [day for day in promotions if day.kind != _ORDINARY]
    own = [day for day in known if day.affects]
    first, last = days[0].item(), days[-1].item()
    offset = (days - days[0]).astype(np.int64)
    rows: dict[frozenset[PromotionDay], int] = {frozenset(): 0}
    category = np.zeros(len(long.members), dtype=np.int64)
    slices: list[tuple[str, str]] = [("", "")]
    if own:
        own = [day for day in own if first <= day.date <= last]
        named = {name for day in own for name, _ in day.affects}
        concerned = [key for key, dimension in dimensions.items() if named.intersection(dimension.split("|"))]
        row_of: dict[tuple[str, ...], int] = {}
        for n in np.flatnonzero(np.isin(long.key_of, concerned)).tolist():
            dimension, member = dimensions[int(long.key_of[n])], long.members[n]
            parts = zip(dimension.split("|"), member.split("|"), strict=False)
            place = tuple(part for pair in parts if pair[0] in named for part in pair)
            if place not in row_of:  # what no event names tells no slice from another
                affected = frozenset(day for day in own if day.is_about(dimension, member))
                if affected not in rows:
                    rows[affected] = len(rows)
                    slices.append((dimension, member))
                row_of[place] = rows[affected]
            category[n] = row_of[place]
    numbers = {event: n for n, event in enumerate(sorted({day.event for day in known}))}
    event, inside, phase = [], [], []
    whole = [day for day in known if not day.affects]
    for dimension, member in slices:
        of_slice = calendar_days(whole if not dimension else known, first, last, dimension=dimension, member=member)
        number = np.array([numbers[name] for name in of_slice.events] + [-1], dtype=np.int64)
        event.append(number[of_slice.event_no][offset])
        inside.append(of_slice.day_in_event[offset].astype(np.int64))
        phase.append(_PHASE_CODES[of_slice.phase_no[offset]])
    return Calendar(np.array(event), np.array(inside), np.array(phase), category)


def _table(asked: Asked, of: Surprise, long: _Values, starts: Any, per_day_periods: int) -> pa.Table:
    rows, columns = np.nonzero((of.reason == JUDGED) & (long.key_of == asked.key_no)[:, None])
    yellow, red = _levels(asked.expression, per_day_periods)
    observed = rarity(of.value[rows, columns], asked.expression, per_day_periods)
    data = {
        "spec_no": np.full(len(rows), asked.spec_no, dtype=np.int64),
        "member": [long.members[row] for row in rows.tolist()],
        "period_start": starts[columns],
        "observed": observed * np.where(of.is_above[rows, columns], 1.0, -1.0),
        "baseline": of.expected[rows, columns],
    }
    for level, low, high in ((yellow, "low", "high"), (red, "low_red", "high_red")):
        below, above = of.bounds(level)
        data[low], data[high] = below[rows, columns], above[rows, columns]
    return pa.table(data, schema=EMPTY.schema) if len(rows) else EMPTY


def rarity(surprise: FloatArray, asked: Expression, per_day_periods: int = 1) -> FloatArray:
    """-log of a p-value in budgets: 1 = as rare as a false alarm may be by the yellow one, 2 = by the red one."""
    yellow, red = _levels(asked, per_day_periods)
    return np.where(surprise <= yellow, surprise / yellow, 1 + (surprise - yellow) / (red - yellow))


def _levels(asked: Expression, per_day_periods: int) -> tuple[float, float]:
    yellow, red = (float(-np.log(per_day(text) / per_day_periods)) for text in (asked.budget, asked.red_budget))
    return yellow, red


EMPTY = pa.table(
    {
        "spec_no": pa.array([], pa.int64()),
        "member": pa.array([], pa.string()),
        "period_start": pa.array([], pa.timestamp("us")),
        **{name: pa.array([], pa.float64()) for name in COLUMNS},
    }
)


def _hours(moment: datetime) -> int:
    return int((moment - datetime(1970, 1, 1)) / timedelta(hours=1))
