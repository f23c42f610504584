"""Published daily series side by side, with who is whose peer: what inference and multivariate detectors read.

Only through a reader that the caller is allowed (`Published`, or `GuardedValues` in a door).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.detection.interface import FloatArray
from metrics_pipeline.detection.promotions import Affects
from metrics_pipeline.warehouse.read import Published

CATEGORY = "category"


@dataclass(frozen=True)
class Peers:
    """Series of several metrics and slices over the same days."""

    names: tuple[tuple[str, str, str], ...]
    """(metric, dimension, member) of each row."""
    values: FloatArray
    """(n_series, n_days); NaN where there is no value."""
    groups: Mapping[Affects, Sequence[int]]
    """`()` = the slices of one dimension, of the whole shop; and the rows of each category."""


def daily_series(published: Published, metrics: Sequence[str], first: date, last: date) -> Peers:
    """The daily values of these metrics (those that exist) by one dimension, and by category with another.

    SKU slices are left out: they are many, thin, and follow their category.
    """
    days = (last - first).days + 1
    wanted = [name for name in metrics if name in published.metrics and not published.metrics[name].is_absent]
    with published.connect(first, last + timedelta(days=1)) as con:
        rows = con.execute(
            """
            SELECT metric, dimension, member, list(date_diff('day', $first::DATE, period_start::DATE)), list(value)
            FROM metric_values
            WHERE list_contains($metrics, metric) AND grain = 'day' AND dimension <> 'all' AND value IS NOT NULL
                AND period_start >= $first AND period_start < $until
                AND NOT list_contains(string_split(dimension, '|'), 'sku')
                AND (NOT contains(dimension, '|') OR list_contains(string_split(dimension, '|'), $category))
            GROUP BY metric, dimension, member
            ORDER BY metric, dimension, member
            """,
            {"metrics": wanted, "first": first, "until": last + timedelta(days=1), "category": CATEGORY},
        ).fetchall()
    values = np.full((len(rows), days), np.nan)
    for number, (*_, at, found) in enumerate(rows):
        values[number, at] = found
    names = tuple((str(metric), str(dimension), str(member)) for metric, dimension, member, *_ in rows)
    groups: dict[Affects, list[int]] = {(): []}
    for number, (_, dimension, member) in enumerate(names):
        parts = dict(zip(dimension.split("|"), member.split("|"), strict=False))
        if len(parts) == 1:
            groups[()].append(number)
        if CATEGORY in parts:
            groups.setdefault(((CATEGORY, (parts[CATEGORY],)),), []).append(number)
    return Peers(names, values, groups)
