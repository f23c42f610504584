"""What a metric that nobody has built yet would show: its own model over published values of its inputs.

Inputs that are new with it are computed first, in the same way; what is counted from facts is counted from those there are.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pandas as pd
from duckdb import DuckDBPyConnection

from metrics_pipeline.library.catalogue import Catalogue, Metric, reach_days
from metrics_pipeline.library.facts import FactsReader, PreviewError, measures_of
from metrics_pipeline.library.preview import PREVIEW_DAYS, rendered
from metrics_pipeline.warehouse.read import Published


def trial(
    published: Published,
    catalogue: Catalogue,
    metric_id: str,
    *,
    days: int = PREVIEW_DAYS,
    facts: FactsReader | None = None,
) -> pd.DataFrame:
    """Values of the metric for the newest `days` days that its inputs are published for, by day, without slices by SKU.

    Columns: dimension, member, period_start (shop-local), value (the metric's unit, never NULL), sorted by them. Nothing
    is read that `published` and `facts` do not show. Raises `PreviewError` when an input has no values.
    """
    metric = catalogue.metrics[metric_id]
    leaves, counted = _leaves(published, catalogue, metric, facts)
    ends = [published.metrics[name].complete_until for name in leaves]
    known = [end.date() for end in ends if end is not None]
    if len(known) < len(ends):
        raise PreviewError(f"{', '.join(leaves)}: some of them have no published day yet; run `metrics nightly`")
    if facts is not None:
        known += [facts.reach(catalogue.metrics[name]) for name in counted]
    until = min(known)
    start = until - timedelta(days=days)
    with published.connect(start - timedelta(days=_look_back(published, catalogue, metric)), until) as con:
        con.execute(
            "CREATE TEMP TABLE published_values AS SELECT metric, period_start, grain, dimension, member, numerator, "
            "denominator, value FROM metric_values "
            "WHERE list_contains(?, metric) AND grain = 'day' AND NOT list_contains(string_split(dimension, '|'), 'sku')",
            [list(leaves)],
        )
        _compute(con, catalogue, metric, facts, start=start, until=until, known=set(published.metrics))
        return con.execute(
            "SELECT dimension, member, period_start, value FROM published_values "
            "WHERE metric = ? AND period_start >= ? AND period_start < ? AND value IS NOT NULL ORDER BY ALL",
            [metric_id, _midnight(start), _midnight(until)],
        ).df()


def _compute(
    con: DuckDBPyConnection,
    catalogue: Catalogue,
    metric: Metric,
    facts: FactsReader | None,
    *,
    start: date,
    until: date,
    known: set[str],
) -> None:
    """Add the values of a metric for [start, until), after those of its inputs that are not `known` yet."""
    first = start - timedelta(days=reach_days(catalogue.written[metric.id]))
    for name in dict.fromkeys(metric.inputs):
        if name not in known:
            _compute(con, catalogue, catalogue.metrics[name], facts, start=first, until=until, known=known)
    if metric.inputs or facts is None:
        source = f"({rendered(catalogue, metric, start, until)})"
    else:
        counted = facts.values(catalogue, metric.id, start, until)  # noqa: F841 - the query reads it by its name
        source = "counted"
    con.execute(
        "INSERT INTO published_values SELECT ?, period_start, 'day', dimension, member, numerator, denominator, value "
        f"FROM {source}",
        [metric.id],
    )
    known.add(metric.id)


def _leaves(
    published: Published, catalogue: Catalogue, metric: Metric, facts: FactsReader | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The nearest metrics below that are published, and those that are not and are counted from facts."""
    if not metric.inputs:
        if facts is None:
            raise PreviewError(f"{metric.id} has no published values yet; run `metrics nightly`")
        for one in catalogue.definitions.metrics:
            if one.kind == "simple" and one.measure in measures_of(catalogue, metric.id):
                _require_present(published, one.id)
        return (), (metric.id,)
    leaves: dict[str, None] = {}
    counted: dict[str, None] = {}
    for name in metric.inputs:
        _require_present(published, name)
        below, from_facts = (
            ((name,), ())
            if name in published.metrics
            else _leaves(published, catalogue, catalogue.metrics[name], facts)
        )
        leaves.update(dict.fromkeys(below))
        counted.update(dict.fromkeys(from_facts))
    return tuple(leaves), tuple(counted)


def _require_present(published: Published, name: str) -> None:
    state = published.metrics.get(name)
    if state is not None and state.is_absent:
        raise PreviewError(f"{name} is absent: {state.absent_en}")


def _look_back(published: Published, catalogue: Catalogue, metric: Metric) -> int:
    """How many days before its own the published values must reach."""
    new = [catalogue.metrics[name] for name in metric.inputs if name not in published.metrics]
    own = reach_days(catalogue.written[metric.id])
    return own + max((_look_back(published, catalogue, one) for one in new), default=0)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
