"""What a definition would have given on history: computed from published values of its inputs, compared with what was shown.

The SQL is that of the generated model, rendered from the same macros with published values in the place of the inputs'
tables, so a preview shows what dbt would build. Slices by SKU are left out: they are most of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import duckdb

from metrics_pipeline.library.catalogue import Catalogue, Metric, reach_days
from metrics_pipeline.library.compile import metric_call
from metrics_pipeline.library.facts import FactsReader, PreviewError
from metrics_pipeline.library.rendering import render
from metrics_pipeline.warehouse.history import EMPTY_VALUES
from metrics_pipeline.warehouse.manifest import part_of
from metrics_pipeline.warehouse.quoting import identifier, literal
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_DAYS = 90
LARGEST = 10
_COMPARED = "period_start, dimension, member"


@dataclass(frozen=True)
class Preview:
    """Old against new."""

    metric: str
    start: date
    until: date
    daily: pd.DataFrame
    """The total by day: period_start, old, new (each None where there is none)."""
    slices: pd.DataFrame
    """The slices that differ most: dimension, member, days, old, new (means over the days that have both), difference."""
    compared: int
    """Values of all slices that both have."""
    different: int
    """Of these, how many differ by more than a relative 1e-9."""
    only_old: int
    only_new: int


def preview(
    published: Published,
    catalogue: Catalogue,
    metric: str,
    *,
    days: int = PREVIEW_DAYS,
    until: date | None = None,
    facts: FactsReader | None = None,
) -> Preview:
    """Compare a metric of `catalogue`, which may not be that of the files, with what is published of it.

    The days are the last `days` before `until` (shop-local; default: those its published inputs reach to).
    `facts`: where a metric without inputs is counted; without it only what another published metric has is known.
    Raises `PreviewError` when its inputs are not published.
    """
    state = published.metrics.get(metric)
    inputs = catalogue.metrics[metric].inputs or (metric,)
    reach = [published.metrics[name].complete_until for name in inputs if name in published.metrics]
    ends = [moment.date() for moment in reach if moment is not None]
    if len(ends) < len(inputs):
        raise PreviewError(f"not all inputs of {metric} are published; `metrics nightly` publishes what the source has")
    until = until or min(ends)
    start = until - timedelta(days=days)
    with duckdb.connect() as con:
        compute(con, published, catalogue, metric, start=start, until=until, into="new_values", facts=facts)
        con.execute(
            f"""CREATE TEMP TABLE both_values AS
            SELECT {_COMPARED}, o.value AS old, n.value AS new, o.member IS NOT NULL AS has_old, n.member IS NOT NULL AS has_new
            FROM (
                SELECT * FROM published_values
                WHERE metric = {literal(metric)} AND grain = 'day' AND {_within(start, until)}
            ) AS o
            FULL JOIN new_values AS n USING ({_COMPARED})"""
            if state is not None and not state.is_absent
            else f"""CREATE TEMP TABLE both_values AS
            SELECT {_COMPARED}, NULL::DOUBLE AS old, value AS new, FALSE AS has_old, TRUE AS has_new FROM new_values"""
        )
        counts = con.execute(
            """SELECT
                count(*) FILTER (WHERE has_old AND has_new),
                count(*) FILTER (WHERE has_old AND has_new AND (
                    (old IS NULL) <> (new IS NULL) OR abs(old - new) > 1e-9 * greatest(abs(old), abs(new))
                )),
                count(*) FILTER (WHERE NOT has_new), count(*) FILTER (WHERE NOT has_old)
            FROM both_values"""
        ).fetchone()
        assert counts is not None
        daily = con.execute(
            "SELECT period_start, old, new FROM both_values WHERE dimension = 'all' ORDER BY period_start"
        ).df()
        slices = con.execute(
            f"""SELECT dimension, member, count(*) AS days, avg(old) AS old, avg(new) AS new, avg(new) - avg(old) AS difference
            FROM both_values WHERE old IS NOT NULL AND new IS NOT NULL
            GROUP BY dimension, member HAVING avg(new) <> avg(old)
            ORDER BY abs(avg(new) - avg(old)) DESC, dimension, member LIMIT {LARGEST}"""
        ).df()
    return Preview(metric, start, until, daily, slices, *counts)


def compute(
    con: duckdb.DuckDBPyConnection,
    published: Published,
    catalogue: Catalogue,
    metric: str,
    *,
    start: date,
    until: date,
    into: str,
    facts: FactsReader | None = None,
) -> None:
    """Make the table `into` on the connection: the day values of a metric, as its newest definition in `catalogue` gives
    them for [start, until) from published inputs. Columns: period_start, dimension, member, numerator, denominator, value.

    Also makes the view `published_values` over what was read.
    """
    found = catalogue.metrics[metric]
    lookback = reach_days(next(one for one in catalogue.definitions.metrics if one.id == metric))
    files = [
        path
        for path in published.files(start - timedelta(days=lookback), until)
        if path.name.startswith(f"{part_of('all')}-")
    ]
    source = f"SELECT * FROM {published.relation(files)}" if files else EMPTY_VALUES
    con.execute(f"CREATE OR REPLACE TEMP VIEW published_values AS {source}")
    if found.inputs:
        sql = rendered(catalogue, found, start, until)
    elif facts is not None:
        counted = facts.values(catalogue, metric, start, until)  # noqa: F841 - the query reads it by its name
        sql = "SELECT * FROM counted"
    else:
        sql = _same_measure(catalogue, found, published)
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE {identifier(into)} AS
        SELECT {_COMPARED}, numerator, denominator, value FROM ({sql}) WHERE {_within(start, until)}"""
    )


def published_reference(name: str) -> str:
    """The published day values of a metric, in the place of its table."""
    return (
        "(select period_start, grain, dimension, member, numerator, denominator, value from published_values "
        f"where metric = {literal(name)} and grain = 'day')"
    )


def rendered(catalogue: Catalogue, metric: Metric, start: date, until: date) -> str:
    """The SQL of the metric's model for these days, with published values in the place of tables."""
    call = metric_call(catalogue, metric.id)
    return render(catalogue.definitions.project_dir, call, ref=published_reference, start=start, until=until)


def _same_measure(catalogue: Catalogue, metric: Metric, published: Published) -> str:
    """A leaf is what another published leaf with the same measure is."""
    definitions = {one.id: one for one in catalogue.definitions.metrics}
    measure = definitions[metric.id].measure
    for other in catalogue.definitions.metrics:
        state = published.metrics.get(other.id)
        is_same = (
            other.kind == "simple"
            and other.measure == measure
            and catalogue.metrics[other.id].version == metric.version
        )
        if is_same and state is not None and not state.is_absent and state.definition_version == metric.version:
            return f"select * from {published_reference(other.id)}"
    raise PreviewError(
        f"{metric.id} is computed from facts, and no published metric has the same values; they begin with the next night"
    )


def _within(start: date, until: date) -> str:
    return f"period_start >= {literal(_moment(start))} AND period_start < {literal(_moment(until))}"


def _moment(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
