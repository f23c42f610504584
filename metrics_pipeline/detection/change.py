"""Relative change against earlier periods: yesterday, the same weekday, or the median of the last few same weekdays."""

from __future__ import annotations


def least_values(over: int) -> int:
    """How many of the `over` earlier periods must have a value: three quarters of them, rounded up."""
    return -(-over * 3 // 4)


CTES = """
-- change: the median of the periods `offset_hours` before; promotion days are no baseline.
change_periods AS MATERIALIZED (
    SELECT t.spec_no, t.series_no, t.period_start, t.period_start - o.offset_hours * INTERVAL '1 hour' AS earlier
    FROM tested AS t
    JOIN change_offsets AS o ON o.spec_no = t.spec_no
),
change_history AS MATERIALIZED (
    SELECT t.spec_no, t.series_no, t.period_start, h.value
    FROM change_periods AS t
    JOIN points AS h ON h.series_no = t.series_no AND h.period_start = t.earlier
    WHERE h.value IS NOT NULL AND NOT h.is_event
),
change_baseline AS (
    SELECT spec_no, series_no, period_start, median(value) AS baseline, count(*) AS history
    FROM change_history
    GROUP BY spec_no, series_no, period_start
),
change_judged AS (
    SELECT b.spec_no, b.series_no, b.period_start, b.baseline, abs(b.baseline) AS scale
    FROM change_baseline AS b
    JOIN specs AS s ON s.spec_no = b.spec_no
    WHERE b.history >= s.least_values AND b.baseline <> 0
)"""
"""Yields `change_judged`. Materialized on the way, or DuckDB aggregates all of `points` before it joins (four times the
cost of the whole). A baseline of 0 has no relative change: such a period has no row."""
