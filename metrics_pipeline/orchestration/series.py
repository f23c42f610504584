"""Where plots get their points: the recent past of a slice, with the band and the bounds by which it was judged.

The only place that knows both what is published and what was judged; the nightly run and the delivery job, which makes
reminders, escalations and digests as time passes, read it alike. DuckDB is imported when a plot is wanted, not before: the
light code location starts without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.alerts.notice import Point, Series, SeriesKey
from metrics_pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from metrics_pipeline.warehouse.read import Published

PLOT_DAYS = 56
PLOT_HOURS = 24 * 7


def recent_series(
    settings: Settings, keys: Iterable[SeriesKey], published: Published | None = None
) -> dict[SeriesKey, Series]:
    """The series of these slices, `PLOT_DAYS` (or `PLOT_HOURS`) long, each with its bands, night by night.

    `published`: the version that was judged; default the current one. Without one, and for what has no metric, there is none.
    """
    wanted = [key for key in keys if key.metric]
    if published is None and wanted:
        published = _current(settings)
    if published is None:
        return {}
    found: dict[SeriesKey, Series] = {}
    for grain in sorted({key.grain for key in wanted}):
        found |= _series(settings, published, grain, [key for key in wanted if key.grain == grain])
    return found


def _current(settings: Settings) -> Published | None:
    from metrics_pipeline.warehouse.read import NotPublished, Published

    try:
        return Published.open(settings.published_dir)
    except NotPublished:
        return None


def _series(settings: Settings, published: Published, grain: str, keys: Sequence[SeriesKey]) -> dict[SeriesKey, Series]:
    """All slices of a grain with one read of the values and one of the verdicts."""
    from metrics_pipeline.rules.evaluate import latest_verdicts

    back = timedelta(days=PLOT_DAYS if grain == "day" else PLOT_HOURS // 24)
    step = timedelta(days=1) if grain == "day" else timedelta(hours=1)
    start, until = (min(key.until for key in keys) - back).date(), max(key.until for key in keys) + step
    slices = {(key.metric, key.dimension, key.member) for key in keys}
    values = _rows(published.slices(slices, grain, start=start, until=until), "metric")
    of_rules = {(key.rule, key.dimension, key.member) for key in keys}
    verdicts = _rows(latest_verdicts(settings.evaluations_dir, of_rules, start=start), "rule")
    return {
        key: _joined(
            key,
            (key.until - back).date(),
            values.get((key.metric, key.dimension, key.member), []),
            verdicts.get((key.rule, key.dimension, key.member), []),
        )
        for key in keys
    }


def _rows(frame: pd.DataFrame, name: str) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """The rows of each slice; `name`: what it is a slice of."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in frame.to_dict("records"):
        of_slice = found.setdefault((row[name], row["dimension"], row["member"]), [])
        of_slice.append(
            {str(column): value for column, value in row.items()}
            | {"period_start": row["period_start"].to_pydatetime()}
        )
    return found


def _joined(
    key: SeriesKey, start: date, values: Sequence[Mapping[str, Any]], verdicts: Sequence[Mapping[str, Any]]
) -> Series:
    judged = {row["period_start"]: row for row in verdicts if row["period_start"].date() >= start}
    points = []
    for row in values:
        period = row["period_start"]
        if start <= period.date() and period <= key.until:
            band = judged.get(period, {})
            points.append(Point(period, _number(row["value"]), _number(band.get("lower")), _number(band.get("upper"))))
    last = judged.get(max((period for period in judged if period <= key.until), default=key.until), {})
    return Series(
        tuple(points),
        yellow_bound=_number(last.get("yellow_bound")),
        red_bound=_number(last.get("red_bound")),
        dimension=key.dimension,
        member=key.member,
    )


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
