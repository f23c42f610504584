"""Are the data what they seem: traffic that was not counted, rows that came twice, hours that did not come.

Asked of one slice's metrics together, because one metric alone cannot tell a bad day from bad data. `Observed` holds, for
every metric and slice, the daily values; metrics are of two families that are measured by different systems: traffic
(sessions, page views, visitors: the tracker) and sales (orders, units, amounts: the shop itself). Verdicts:

- `tracking_loss`: traffic falls and sales do not. The sign is sales per traffic, against its own history; customers who
  still buy have visited.
- `double_tracking`: all of traffic at a ratio of about 2, sales as ever.
- `duplicate_load`: all of a family at a ratio of about 2, and every count even: n counts are even by chance once in
  2ⁿ. A sale that doubles orders does not double each count exactly.
- `partial_load`: hours that always have rows have none, of all of a family, and the day lacks about what these hours bring.
  An hour with a value of 0 is not missing: a shop that sells nothing for an hour is no data problem.

What is expected is `same_weekday`; days of the calendar's main phases are no baseline. Slices with fewer than `LEAST_EVENTS` expected events are not judged
(`unknown`), and neither is a history of fewer than `LEAST_WEEKS` same weekdays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metrics_pipeline.detection.interface import BoolArray, FloatArray, IntArray
from metrics_pipeline.detection.medians import TO_DEVIATION, nanmedian
from metrics_pipeline.detection.same_weekday import HISTORY_DAYS, LEAST_WEEKS, WEEKS, expected

Family = Literal["traffic", "sales"]
VERDICTS = ("complete", "tracking_loss", "double_tracking", "duplicate_load", "partial_load", "unknown")
"""By the codes of `Completeness.verdict`."""
WORDS: dict[str, tuple[str, str]] = {
    "complete": ("数据完整", "the data are complete"),
    "tracking_loss": (
        "埋点丢失：流量为预期的 {ratio:.0%}，而销售为 {other:.0%}",
        "tracking loss: traffic is {ratio:.0%} of what was expected while sales are {other:.0%}",
    ),
    "double_tracking": (
        "重复埋点：流量为预期的 {ratio:.2f} 倍，而销售为 {other:.0%}",
        "double tracking: traffic is {ratio:.2f} times what was expected while sales are {other:.0%}",
    ),
    "duplicate_load": (
        "重复入库：各指标均为预期的约 {ratio:.2f} 倍，且 {counts} 个计数全部为偶数",
        "loaded twice: everything is about {ratio:.2f} times what was expected, and all of {counts} counts are even",
    ),
    "partial_load": (
        "入库不全：缺 {hours} 个小时的数据，当日为预期的 {ratio:.0%}",
        "partly loaded: {hours} hours have no rows, the day is {ratio:.0%} of what was expected",
    ),
    "unknown": ("无法判断：历史不足或数量太少", "cannot be judged: too little history, or too few events"),
}
LEAST_EVENTS = 20.0
FAR = 4.5
"""Standard deviations of sales per traffic from which it is no chance."""
FALLEN, STILL, TWICE = 0.85, 0.85, (1.75, 2.25)
"""Ratio below which traffic has fallen, above which sales have not, and between which something is twice as much."""
LEAST_COUNTS = 7
"""Counts that must all be even: by chance once in 128."""
LEAST_HOURS = 2
HOUR_SEEN = 0.9
"""Share of days on which an hour must have a row to be missed."""
LEAST_NOISE = 0.03


@dataclass(frozen=True)
class Observed:
    """What is known of slices; the arrays share their order of slices."""

    metrics: tuple[str, ...]
    families: tuple[Family, ...]
    """Of each metric."""
    values: FloatArray
    """(n_metrics, n_slices, n_days); NaN = no value."""
    is_count: tuple[bool, ...]
    """Of each metric: whole numbers of events, not amounts."""
    hours: FloatArray | None = None
    """(n_metrics, n_slices, n_days, 24): whether and how much came in each hour; None = nothing hourly is known."""


@dataclass(frozen=True)
class Completeness:
    """The verdict on one day for each slice."""

    verdict: IntArray
    """Index into `VERDICTS`."""
    ratio: FloatArray
    """Value / expected of the family that is wrong (median of its metrics); NaN where nothing is."""
    other: FloatArray
    """The same of the other family."""
    confidence: FloatArray
    """1 - how often this would be seen by chance; 0 where nothing is wrong."""
    counts: IntArray
    """How many counts were looked at for evenness."""
    hours: IntArray
    """How many hours are missing."""
    is_wrong: BoolArray
    """(2, n_slices): whether traffic, and sales, are what is wrong."""

    def reason(self, number: int, locale: str = "en") -> str:
        """What a person reads of one slice."""
        text = WORDS[VERDICTS[int(self.verdict[number])]][0 if locale == "zh" else 1]
        return text.format(
            ratio=self.ratio[number], other=self.other[number], counts=self.counts[number], hours=self.hours[number]
        )


def completeness(observed: Observed, now: int, *, is_baseline: BoolArray | None = None) -> Completeness:
    """The verdict on the day of column `now` for each slice, by the days before it.

    `is_baseline`: (n_days,) days that may be learned from; default all. Raises `ValueError` for shapes that do not fit.
    """
    values = observed.values
    n_metrics, n_slices, n_days = values.shape
    if len(observed.metrics) != n_metrics or len(observed.families) != n_metrics or not 0 <= now < n_days:
        raise ValueError(f"{len(observed.metrics)} metrics and column {now} do not fit values of {values.shape}")
    past = values[:, :, :now]
    ordinary = past if is_baseline is None else np.where(is_baseline[:now], past, np.nan)
    until = np.concatenate([ordinary, np.full((n_metrics, n_slices, 1), np.nan)], axis=2)
    usual = expected(until[:, :, -HISTORY_DAYS - 1 :])[:, :, -1]
    known = np.isfinite(values[:, :, now]) & (usual >= LEAST_EVENTS)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(known, values[:, :, now] / usual, np.nan)
    of = {family: np.array([one == family for one in observed.families]) for family in ("traffic", "sales")}
    traffic, sales = (nanmedian(ratios[of[family]], 0) for family in ("traffic", "sales"))
    twice = _duplicates(observed, ratios, known, of, now)
    hours, arrived = _missing_hours(observed, of, now)
    distance = _sales_per_traffic(ordinary, values[:, :, now], of)

    verdict = np.where(np.isfinite(traffic) | np.isfinite(sales), 0, VERDICTS.index("unknown"))
    wrong = np.zeros((2, n_slices), dtype=bool)
    with np.errstate(invalid="ignore"):
        loss = (distance > FAR) & (traffic < FALLEN) & (sales > STILL)
        double = (-distance > FAR) & (traffic > TWICE[0]) & (traffic < TWICE[1]) & (sales > STILL) & (sales < 1 / STILL)
    partial = hours >= LEAST_HOURS
    # the strongest evidence last: it stands
    for is_it, name, family in (
        (loss, "tracking_loss", 0),
        (double, "double_tracking", 0),
        (partial[0], "partial_load", 0),
        (partial[1], "partial_load", 1),
        (twice[0] > 0, "duplicate_load", 0),
        (twice[1] > 0, "duplicate_load", 1),
    ):
        also = is_it & (verdict == VERDICTS.index(name))
        wrong[:, is_it & ~also] = False
        verdict = np.where(is_it, VERDICTS.index(name), verdict)
        wrong[family, is_it] = True
    is_any = (verdict > 0) & (verdict < VERDICTS.index("unknown"))
    first, chosen = np.where(wrong[0] | ~wrong[1], 0, 1), np.arange(n_slices)
    both = np.stack([traffic, sales])
    own, missed, counts = both[first, chosen], hours[first, chosen], twice.max(axis=0)
    chance = np.select(
        [verdict == VERDICTS.index(name) for name in ("duplicate_load", "partial_load")],
        [2.0 ** -np.minimum(counts, 60.0), (1 - HOUR_SEEN) ** np.minimum(missed, 12.0)],
        np.exp(-(np.minimum(np.abs(np.nan_to_num(distance)), 30) ** 2) / 2),
    )
    return Completeness(
        verdict=verdict.astype(np.int64),
        ratio=np.where(is_any, np.where(np.isfinite(own), own, arrived[first, chosen]), np.nan),
        other=np.where(is_any, both[1 - first, chosen], np.nan),
        confidence=np.where(is_any, 1 - chance, 0.0),
        counts=counts.astype(np.int64),
        hours=np.where(verdict == VERDICTS.index("partial_load"), missed, 0).astype(np.int64),
        is_wrong=wrong,
    )


def _sales_per_traffic(past: FloatArray, today: FloatArray, of: dict[str, BoolArray]) -> FloatArray:
    """(n_slices,): standard deviations by which sales per traffic are above their median of six weeks."""
    recent = past[:, :, -7 * WEEKS :]
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log(np.where(recent > 0, recent, np.nan))
        log_today = np.log(np.where(today > 0, today, np.nan))
    centre = nanmedian(logs)
    history = nanmedian((logs - centre[:, :, None])[of["sales"]], 0) - nanmedian(
        (logs - centre[:, :, None])[of["traffic"]], 0
    )
    there = nanmedian((log_today - centre)[of["sales"]], 0) - nanmedian((log_today - centre)[of["traffic"]], 0)
    median = nanmedian(history)
    spread = TO_DEVIATION * nanmedian(np.abs(history - median[:, None]))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        counted = np.sqrt(sum(1 / np.exp(nanmedian(centre[of[family]], 0)) for family in ("sales", "traffic")))
        enough = np.isfinite(history).sum(axis=1) >= 7 * LEAST_WEEKS
        return np.where(enough, (there - median) / np.fmax(np.fmax(spread, counted), LEAST_NOISE), np.nan)


def _duplicates(
    observed: Observed, ratios: FloatArray, known: BoolArray, of: dict[str, BoolArray], now: int
) -> FloatArray:
    """(2, n_slices): number of counts behind a duplicate load of traffic, and of sales; 0 = it is none.

    Evenness is asked of all slices of a family together: what is loaded twice is so everywhere.
    """
    found = np.zeros((2, observed.values.shape[1]))
    today = observed.values[:, :, now]
    for number, family in enumerate(("traffic", "sales")):
        counts = of[family] & np.array(observed.is_count)
        asked = counts[:, None] & known & (today > 0)
        even = asked & (np.mod(today, 2) == 0)
        own = nanmedian(ratios[of[family]], 0)
        with np.errstate(invalid="ignore"):
            about_two = (own > TWICE[0]) & (own < TWICE[1])
        n = int((asked & about_two).sum())
        if n >= LEAST_COUNTS and bool((even | ~(asked & about_two)).all()):
            found[number] = np.where(about_two, n, 0)
    return found


def _missing_hours(observed: Observed, of: dict[str, BoolArray], now: int) -> tuple[IntArray, FloatArray]:
    """(2, n_slices): hours of the day without any row of a family though they always have some, and what came."""
    n_slices = observed.values.shape[1]
    missing, arrived = np.zeros((2, n_slices), np.int64), np.ones((2, n_slices))
    if observed.hours is None:
        return missing, arrived
    for number, family in enumerate(("traffic", "sales")):
        hours = observed.hours[of[family]]
        if not hours.shape[0]:
            continue
        there: BoolArray = np.asarray(np.isfinite(hours).any(axis=0))  # (n_slices, n_days, 24)
        history = there[:, max(0, now - 7 * WEEKS) : now]
        if history.shape[1] < 7 * LEAST_WEEKS:
            continue
        always = history.mean(axis=1) >= HOUR_SEEN
        gone = always & ~there[:, now] & np.any(there[:, now], axis=1, keepdims=True)
        usual = np.nan_to_num(nanmedian(np.nansum(hours[:, :, max(0, now - 7 * WEEKS) : now], axis=0), 1))
        missing[number] = gone.sum(axis=1)
        total = np.maximum(usual.sum(axis=1), 1e-12)
        arrived[number] = 1 - np.where(gone, usual, 0).sum(axis=1) / total
    return missing, arrived
