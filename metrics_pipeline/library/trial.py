"""What a metric that nobody has built yet would show: its own model over published values of its inputs.

Inputs that are new with it are computed first, in the same way. What is counted from facts, a conversion, cannot be tried.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pandas as pd
from duckdb import DuckDBPyConnection

from metrics_pipeline.library.catalogue import Catalogue, Metric, reach_days
from metrics_pipeline.library.preview import PREVIEW_DAYS, PreviewError, rendered
from metrics_pipeline.warehouse.read import Published


def trial(published: Published, catalogue: Catalogue, metric_id: str, *, days: int = PREVIEW_DAYS) -> pd.DataFrame:
    """Values of the metric for the newest `days` days that its inputs are published for, by day, without slices by SKU.

    Columns: dimension, member, period_start (shop-local), value (the metric's unit, never NULL), sorted by them. Nothing
    is read that `published` does not show. Raises `PreviewError` when an input has no published values.
    """
    metric = catalogue.metrics[metric_id]
    leaves = _published_inputs(published, catalogue, metric)
    ends = [published.metrics[name].complete_until for name in leaves]
    known = [end.date() for end in ends if end is not None]
    if len(known) < len(ends):
        raise PreviewError(f"{', '.join(leaves)}: some of them have no published day yet; run `metrics nightly`")
    until = min(known)
    start = until - timedelta(days=days)
    with published.connect(start - timedelta(days=_look_back(published, catalogue, metric)), until) as con:
        con.execute(
            "CREATE TEMP TABLE published_values AS SELECT metric, period_start, grain, dimension, member, numerator, "
            "denominator, value FROM metric_values "
            "WHERE list_contains(?, metric) AND grain = 'day' AND NOT list_contains(string_split(dimension, '|'), 'sku')",
            [list(leaves)],
        )
        _compute(con, catalogue, metric, start=start, until=until, known=set(published.metrics))
        return con.execute(
            "SELECT dimension, member, period_start, value FROM published_values "
            "WHERE metric = ? AND period_start >= ? AND period_start < ? AND value IS NOT NULL ORDER BY ALL",
            [metric_id, _midnight(start), _midnight(until)],
        ).df()


def _compute(
    con: DuckDBPyConnection, catalogue: Catalogue, metric: Metric, *, start: date, until: date, known: set[str]
) -> None:
    """Add the values of a metric for [start, until), after those of its inputs that are not `known` yet."""
    first = start - timedelta(days=reach_days(catalogue.written[metric.id]))
    for name in dict.fromkeys(metric.inputs):
        if name not in known:
            _compute(con, catalogue, catalogue.metrics[name], start=first, until=until, known=known)
    con.execute(
        "INSERT INTO published_values SELECT ?, period_start, 'day', dimension, member, numerator, denominator, value "
        f"FROM ({rendered(catalogue, metric, start, until)})",
        [metric.id],
    )
    known.add(metric.id)


def _published_inputs(published: Published, catalogue: Catalogue, metric: Metric) -> tuple[str, ...]:
    """The nearest metrics below that are published."""
    if metric.kind == "conversion":
        raise PreviewError(f"{metric.id} is counted from facts, so its first values come with the next night")
    found: dict[str, None] = {}
    for name in metric.inputs:
        state = published.metrics.get(name)
        if state is not None and state.is_absent:
            raise PreviewError(f"{name} is absent: {state.absent_en}")
        if state is None and not catalogue.metrics[name].inputs:
            raise PreviewError(f"{name} has no published values yet; run `metrics nightly`")
        below = (name,) if state else _published_inputs(published, catalogue, catalogue.metrics[name])
        found.update(dict.fromkeys(below))
    return tuple(found)


def _look_back(published: Published, catalogue: Catalogue, metric: Metric) -> int:
    """How many days before its own the published values must reach."""
    new = [catalogue.metrics[name] for name in metric.inputs if name not in published.metrics]
    own = reach_days(catalogue.written[metric.id])
    return own + max((_look_back(published, catalogue, one) for one in new), default=0)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
