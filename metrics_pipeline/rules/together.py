"""A slice's metrics together: `completeness()` and `anomaly(together)` in rules, and the second opinion a person reads.

Published daily values of a dimension → metrics × members × days → `detection.completeness` and `detection.isolation`.
The forest of a tested day is that of the days before its month, so a replay makes one a month, and the verdict of a
day is the same whether one night or a year is judged. Values of another definition of their metric are no history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from metrics_pipeline.detection.completeness import VERDICTS, Completeness, Family, Observed, completeness
from metrics_pipeline.detection.interface import BoolArray, FloatArray, IntArray
from metrics_pipeline.detection.isolation import Forest, History, Opinion
from metrics_pipeline.detection.promotions import PromotionDay, calendar_days
from metrics_pipeline.detection.same_weekday import LEVEL_DAYS, WEEKS
from metrics_pipeline.rules.anomaly import EMPTY, Asked, rarity
from metrics_pipeline.warehouse.read import Published

TRAFFIC: Final = ("sessions", "page_views", "unique_visitors")
SALES: Final = ("orders_placed", "orders_paid", "units_sold")
AROUND: Final = ("paid_amount", "product_views", "refunded_orders", "complaints", "shipments_late")
"""Further metrics that the forest looks at where a slice has them."""
LEARNED_DAYS: Final = 150
"""Days before its month that a day is judged by, whether a night or a year is judged."""
HISTORY_DAYS: Final = LEARNED_DAYS + 31 + WEEKS * 7 + LEVEL_DAYS
"""Days that are read: those, the days of the month, and what the first of them are expected by."""
HOUR_DAYS: Final = 43
"""Days of hours that are read: six weeks and the day."""
SURE: Final = 1e-6
"""Chance from which a data problem is sure: the observed number is 2."""
_HOURLY: Final = ("sessions", "page_views", "orders_placed", "orders_paid")


@dataclass(frozen=True)
class Slices:
    """The daily values of several metrics by one dimension."""

    dimension: str
    metrics: tuple[str, ...]
    members: tuple[str, ...]
    first: date
    values: FloatArray
    """(n_metrics, n_members, n_days); NaN = no value."""
    hours: FloatArray | None
    """(n_metrics, n_members, n_days, 24); NaN = no row. None where nothing is hourly."""
    is_baseline: BoolArray
    """(n_days,): days of no main phase."""

    @property
    def observed(self) -> Observed:
        """Those metrics of which it is known whose they are."""
        rows = [n for n, name in enumerate(self.metrics) if name in TRAFFIC + SALES]
        families: tuple[Family, ...] = tuple("traffic" if self.metrics[n] in TRAFFIC else "sales" for n in rows)
        return Observed(
            tuple(self.metrics[n] for n in rows),
            families,
            self.values[rows],
            (True,) * len(rows),
            None if self.hours is None else self.hours[rows],
        )


@dataclass(frozen=True)
class Part:
    """What one metric says of a slice's day."""

    metric: str
    value: float | None
    expected: float | None
    distance: float | None
    """Standard deviations from what was expected."""
    share: float | None
    """Of what is odd about the day."""


@dataclass(frozen=True)
class SliceOpinion:
    """Whether the data of a slice's day are what they seem, and whether its metrics go together."""

    dimension: str
    member: str
    verdict: str
    """A word of `completeness.VERDICTS`."""
    reason_zh: str
    reason_en: str
    confidence: float
    p_value: float | None
    """How often a past day was at least as odd; None = no opinion (too little history)."""
    parts: tuple[Part, ...]
    """The metrics that contribute most first."""

    @property
    def is_data_problem(self) -> bool:
        """Whether something is wrong with the data."""
        return self.verdict not in ("complete", "unknown")


def second_opinion(
    published: Published, on: date, dimension: str, promotions: Sequence[PromotionDay]
) -> list[SliceOpinion]:
    """What is to be said of every slice of a dimension on a day, the oddest first; () where nothing is known of it."""
    slices = read_slices(published, dimension, on, on, promotions)
    if slices is None:
        return []
    now = (on - slices.first).days
    whole = completeness(slices.observed, now, is_baseline=slices.is_baseline)
    history = History.of(slices.values, slices.is_baseline)
    opinion = history.opinion(history.learned(_month_start(slices.first, now), days=LEARNED_DAYS), now)
    found = [_opinion(slices, whole, opinion, now, n) for n in range(len(slices.members))]
    return sorted(found, key=lambda one: (not one.is_data_problem, 1.0 if one.p_value is None else one.p_value))


def data_problems(published: Published, on: date, promotions: Sequence[PromotionDay]) -> list[SliceOpinion]:
    """Slices of a day whose data are not what they seem: the total, else the channels and regions that are."""
    for dimension in ("all", "channel", "region"):
        slices = read_slices(published, dimension, on, on, promotions)
        if slices is None:
            continue
        now = (on - slices.first).days
        whole = completeness(slices.observed, now, is_baseline=slices.is_baseline)
        wrong = np.flatnonzero((whole.verdict > 0) & (whole.verdict < VERDICTS.index("unknown")))
        if wrong.size:
            return [_opinion(slices, whole, None, now, n) for n in wrong.tolist()]
    return []


def found(
    published: Published, asked: Sequence[Asked], promotions: Sequence[PromotionDay], span: tuple[datetime, datetime]
) -> pa.Table:
    """The rows of `anomaly.found` for specs that look at metrics together, of the days in the span [start, until)."""
    tables = [EMPTY]
    start, last = span[0].date(), (span[1] - timedelta(microseconds=1)).date()
    for dimension in sorted({one.dimension for one in asked}):
        slices = read_slices(published, dimension, start, last, promotions)
        if slices is None:
            continue
        of_dimension = [one for one in asked if one.dimension == dimension]
        history = History.of(slices.values, slices.is_baseline)
        for pattern in sorted({one.expression.pattern for one in of_dimension}):
            specs = [one for one in of_dimension if one.expression.pattern == pattern]
            forests: dict[int, Forest] = {}
            for now in range((start - slices.first).days, slices.values.shape[2]):
                if pattern == "completeness":
                    tables += _complete_rows(slices, history, specs, now)
                    continue
                month = _month_start(slices.first, now)
                if month not in forests:
                    forests[month] = history.learned(month, days=LEARNED_DAYS)
                tables += _together_rows(slices, history, specs, now, forests[month])
    return pa.concat_tables(tables)


def read_slices(
    published: Published, dimension: str, first: date, last: date, promotions: Sequence[PromotionDay]
) -> Slices | None:
    """The values that the days `first` to `last` are judged by; None when there is no metric by this dimension."""
    names = [n for n in (*TRAFFIC, *SALES, *AROUND) if (state := published.metrics.get(n)) and state.complete_until]
    since, until = first - timedelta(days=HISTORY_DAYS), last + timedelta(days=1)
    states = [published.metrics[name] for name in names]
    with published.connect(since, until) as con:
        con.register(
            "asked",
            pa.table(
                {
                    "metric": pa.array(names, pa.string()),
                    "version": pa.array([one.definition_version for one in states], pa.string()),
                    "complete_until": pa.array([one.complete_until for one in states], pa.timestamp("us")),
                }
            ),
        )
        rows = con.sql(
            """
            SELECT v.metric, v.member, v.grain = 'hour' AS is_hourly, date_diff('day', $since::DATE, v.period_start::DATE) AS day,
                extract(hour FROM v.period_start) AS hour, v.value
            FROM metric_values AS v
            JOIN asked AS a ON a.metric = v.metric AND a.version = v.definition_version AND v.period_start < a.complete_until
            WHERE v.dimension = $dimension AND isfinite(v.value) AND v.period_start >= $since AND v.period_start < $until
                AND (v.grain = 'day' OR (list_contains($hourly, v.metric) AND v.period_start >= $hours_since))
            """,
            params={
                "since": since, "until": until, "dimension": dimension, "hourly": list(_HOURLY),
                "hours_since": first - timedelta(days=HOUR_DAYS),
            },
        ).to_arrow_table()  # fmt: skip
    if not rows.num_rows:
        return None
    (metrics, of_metric), (members, of_member) = (_numbered(rows[name]) for name in ("metric", "member"))
    at = (of_metric, of_member)
    day, hour = (rows[name].to_numpy().astype(np.int64) for name in ("day", "hour"))
    is_hourly, value = rows["is_hourly"].to_numpy(), rows["value"].to_numpy()
    shape = (len(metrics), len(members), (until - since).days)
    values = np.full(shape, np.nan)
    daily = ~is_hourly
    values[at[0][daily], at[1][daily], day[daily]] = value[daily]
    hours = None
    if is_hourly.any():
        hours = np.full((*shape, 24), np.nan)
        hours[at[0][is_hourly], at[1][is_hourly], day[is_hourly], hour[is_hourly]] = value[is_hourly]
    calendar = calendar_days(promotions, since, last)
    return Slices(dimension, tuple(metrics), tuple(members), since, values, hours, calendar.is_baseline)


def _numbered(names: pa.ChunkedArray) -> tuple[list[str], IntArray]:
    """The names in their order, and the number of each row: rows come in any order, and what is learned must not hang on it."""
    encoded = names.combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    ordered = sorted(found)
    place = {name: number for number, name in enumerate(ordered)}
    return ordered, np.array([place[name] for name in found], dtype=np.int64)[encoded.indices.to_numpy()]


def _month_start(first: date, now: int) -> int:
    """Column of the first day of the month of column `now`: what is learned for it is older."""
    return max(now - ((first + timedelta(days=now)).day - 1), 0)


def _complete_rows(slices: Slices, history: History, asked: Sequence[Asked], now: int) -> list[pa.Table]:
    whole = completeness(slices.observed, now, is_baseline=slices.is_baseline)
    known = whole.verdict < VERDICTS.index("unknown")
    chance = np.maximum(1 - whole.confidence, 1e-12)
    tables = []
    for one in asked:
        family = 0 if one.metric in TRAFFIC else 1 if one.metric in SALES else None
        wrong = whole.is_wrong.any(axis=0) if family is None else whole.is_wrong[family]
        observed = np.where(wrong, 1 + np.minimum(np.log10(chance) / np.log10(SURE), 1), 0.0)
        tables.append(_rows(slices, history, one, now, np.where(known, observed, np.nan)))
    return tables


def _together_rows(
    slices: Slices, history: History, asked: Sequence[Asked], now: int, forest: Forest
) -> list[pa.Table]:
    opinion = history.opinion(forest, now)
    known = np.isfinite(opinion.p_value)
    surprise = -np.log(np.where(known, opinion.p_value, 1.0))
    return [
        _rows(slices, history, one, now, np.where(known, rarity(surprise, one.expression), np.nan)) for one in asked
    ]


def _rows(slices: Slices, history: History, one: Asked, now: int, observed: FloatArray) -> pa.Table:
    """The rows of one spec and day; a slice whose number is NaN has none."""
    baseline = np.full(len(slices.members), np.nan)
    if one.metric in slices.metrics:
        baseline = history.expected[slices.metrics.index(one.metric), :, now]
    rows = np.flatnonzero(np.isfinite(observed))
    nothing = pa.nulls(rows.size, pa.float64())
    return pa.table(
        {
            "spec_no": np.full(rows.size, one.spec_no, dtype=np.int64),
            "member": [slices.members[row] for row in rows.tolist()],
            "period_start": [datetime.combine(slices.first + timedelta(days=now), datetime.min.time())] * rows.size,
            "observed": observed[rows],
            "baseline": pa.array(baseline[rows], from_pandas=True),
            **dict.fromkeys(("low", "high", "low_red", "high_red"), nothing),
        },
        schema=EMPTY.schema,
    )


def _opinion(slices: Slices, whole: Completeness, opinion: Opinion | None, now: int, n: int) -> SliceOpinion:
    parts: list[Part] = []
    if opinion is not None:
        for row, metric in enumerate(slices.metrics):
            if np.isfinite(slices.values[row, n, now]):
                numbers = (slices.values[row, n, now], opinion.expected[row, n], opinion.distance[row, n])
                parts.append(Part(metric, *map(_number, (*numbers, opinion.contribution[row, n]))))
    return SliceOpinion(
        dimension=slices.dimension,
        member=slices.members[n],
        verdict=VERDICTS[int(whole.verdict[n])],
        reason_zh=whole.reason(n, "zh"),
        reason_en=whole.reason(n, "en"),
        confidence=float(whole.confidence[n]),
        p_value=None if opinion is None else _number(opinion.p_value[n]),
        parts=tuple(sorted(parts, key=lambda part: -(part.share or 0.0))),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
