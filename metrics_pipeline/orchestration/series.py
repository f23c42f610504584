"""Where plots get their points: the recent past of a slice, with the band and the bounds by which it was judged.

The only place that knows both what is published and what was judged; the nightly run and the delivery job, which makes
reminders, escalations and digests as time passes, read it alike. DuckDB is imported when a plot is wanted, not before: the
light code location starts without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.alerts.notice import Point, Series, SeriesKey
from metrics_pipeline.settings import Settings

if TYPE_CHECKING:
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
    return {} if published is None else {key: _series(settings, published, key) for key in wanted}


def _current(settings: Settings) -> Published | None:
    from metrics_pipeline.warehouse.read import NotPublished, Published

    try:
        return Published.open(settings.published_dir)
    except NotPublished:
        return None


def _series(settings: Settings, published: Published, key: SeriesKey) -> Series:
    from metrics_pipeline.rules.evaluate import latest_verdicts

    is_daily = key.grain == "day"
    start = (key.until - timedelta(days=PLOT_DAYS if is_daily else PLOT_HOURS // 24)).date()
    frame = published.series(
        key.metric,
        dimension=key.dimension,
        member=key.member,
        grain=key.grain,
        start=start,
        until=key.until + (timedelta(days=1) if is_daily else timedelta(hours=1)),
    )
    verdicts = latest_verdicts(settings.evaluations_dir, key.rule, key.dimension, key.member, start=start)
    judged: dict[datetime, Any] = {row["period_start"].to_pydatetime(): row for row in verdicts.to_dict("records")}
    points = []
    for row in frame.to_dict("records"):
        period = row["period_start"].to_pydatetime()
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
