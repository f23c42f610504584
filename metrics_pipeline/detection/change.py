"""Relative change against earlier periods: yesterday, the same weekday, or the median of the last few same weekdays."""

from __future__ import annotations


def least_values(over: int) -> int:
    """How many of the `over` earlier periods must have a value: three quarters of them, rounded up."""
    return -(-over * 3 // 4)


CTES = """
-- change: the median of the periods `offset_hours` before; promotion days are no baseline.
change_periods AS MATERIALIZED (
    SELECT t.ask_no, t.series_no, s.least_values, t.period_start - o.offset_hours * INTERVAL '1 hour' AS earlier
    FROM tested AS t
    JOIN change_offsets AS o ON o.spec_no = t.spec_no
    JOIN specs AS s ON s.spec_no = t.spec_no
),
change_points AS MATERIALIZED (
    SELECT series_no, period_start, value
    FROM known
    WHERE value IS NOT NULL AND NOT is_event AND period_start IN (SELECT earlier FROM change_periods)
),
change_history AS MATERIALIZED (
    SELECT t.ask_no, t.least_values, h.value
    FROM change_periods AS t
    JOIN change_points AS h ON h.series_no = t.series_no AND h.period_start = t.earlier
),
change_baseline AS (
    SELECT ask_no, value AS baseline
    FROM change_history
    WHERE least_values = 1
    UNION ALL
    SELECT ask_no, median(value) AS baseline
    FROM change_history
    WHERE least_values > 1
    GROUP BY ask_no
    HAVING count(*) >= min(least_values)
),
change_judged AS (
    SELECT ask_no, baseline, abs(baseline) AS scale
    FROM change_baseline
    WHERE baseline <> 0
)"""
"""Yields `change_judged`. Materialized on the way, or DuckDB aggregates all of `known` before it joins (four times the
cost of the whole). A baseline of 0 has no relative change: such a period has no row."""
