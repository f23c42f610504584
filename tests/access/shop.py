"""A small published pyramid for the tests of doors: two regions, two channels, one confidential ratio."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb

from metrics_pipeline.access.model import Facts, Grant, Level, Selector, Subjects
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.warehouse.publish import MetricTables, publish
from tests.access.test_policy import METRICS, NOW
from tests.warehouse.metric_tables import ALL_TIME, Row, night, state, write_metric

FIRST = date(2025, 11, 8)
SLICES = {
    ("all", "all"): 1.0,
    ("region", "华北"): 0.6,
    ("region", "华东"): 0.4,
    ("channel", "app"): 0.7,
    ("channel", "web"): 0.3,
    ("region|channel", "华北|app"): 0.5,
    ("region|channel", "华东|app"): 0.2,
}
TOTALS = {"orders_paid": 300.0, "refunded_orders": 30.0, "gmv": 12_000.0, "gross_profit": 3_600.0}


def numbers_of(metric: Facts, share: float) -> tuple[float, float | None, float]:
    """Numerator, denominator and value of a metric on a slice."""
    if len(metric.inputs) == 2:
        above, below = (TOTALS[name] * share for name in metric.inputs)
        return above, below, above / below
    return TOTALS[metric.id] * share, None, TOTALS[metric.id] * share


def publish_shop(folder: Path) -> Path:
    """Four days of all of `METRICS` by all of `SLICES`; the folder of the published versions."""
    with duckdb.connect() as con:
        tables = {}
        for metric in METRICS.values():
            rows = []
            for (dimension, member), share in SLICES.items():
                above, below, value = numbers_of(metric, share)
                rows += [
                    Row(night(day).replace(hour=0, minute=0), value, dimension, member, "day", above, below)
                    for day in range(-4, 0)
                ]
            write_metric(con, f"base.{metric.id}", rows)
            tables[metric.id] = MetricTables((f"base.{metric.id}",), state())
        publish(con, folder, tables=tables, window=ALL_TIME, run_id="load", now=night(0))
    return folder


def make_viewer(*grants: Grant) -> Viewer:
    """Li, of sales and of the line trade, with these grants."""
    return Viewer(Subjects("li", frozenset({"sales"}), frozenset({"trade"})), METRICS, NOW, grants)


__all__ = ["FIRST", "METRICS", "NOW", "Level", "Selector", "make_viewer", "publish_shop"]
