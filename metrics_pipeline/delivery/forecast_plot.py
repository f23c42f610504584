"""A forecast as a picture: the past, then the median and the 80 % interval of each day ahead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, time, timedelta

import numpy as np
from numpy.typing import NDArray

from metrics_pipeline.alerts.notice import Point, Series
from metrics_pipeline.delivery.plots import Plot
from metrics_pipeline.forecasting.ets import LEVELS

_LOW, _MIDDLE, _HIGH = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))


def forecast_plot(
    history: Sequence[float] | NDArray[np.float64],
    quantiles: NDArray[np.float64],
    last: date,
    *,
    title: str = "",
    ascii_title: str = "",
    unit: str = "",
) -> Plot:
    """`history`: daily values up to `last`, NaN = missing. `quantiles`: (days ahead, levels of the model)."""
    points = []
    for number, value in enumerate(history):
        at = last - timedelta(days=len(history) - 1 - number)
        known = float(value) if np.isfinite(value) else None
        points.append(Point(datetime.combine(at, time()), known, None, None))
    if points and points[-1].value is not None:  # the interval opens where the past ends
        points[-1] = Point(points[-1].period, points[-1].value, points[-1].value, points[-1].value)
    for step, row in enumerate(quantiles, start=1):
        day = datetime.combine(last + timedelta(days=step), time())
        points.append(Point(day, float(row[_MIDDLE]), float(row[_LOW]), float(row[_HIGH])))
    return Plot(
        series=Series(tuple(points), None, None),
        title=title,
        ascii_title=ascii_title,
        unit=unit,
        tier="",
        foreseen=len(quantiles),
        alt=f"{ascii_title}: {len(history)} days up to {last} and {len(quantiles)} days ahead with their 80 % interval",
    )
