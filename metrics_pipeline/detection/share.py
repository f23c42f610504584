"""The part a slice has of its parent, and how that part changed.

The parent is the total, or the slice of one of the rule's own dimensions (an app's orders in 华北 of all orders in 华北).
Without a lag the observed number is value / parent. With a lag it is the relative change of that share against the
period `lag_hours` before; the baseline is then what the slice would have at its former share of today's parent. A
parent of 0 or below has no shares.
"""

from __future__ import annotations

CTES = """
-- share: every tested slice with the series of its parent.
share_parents AS MATERIALIZED (
    SELECT
        t.ask_no, t.series_no, t.period_start, s.lag_hours, s.parent_key_no * {series} + pm.member_no AS parent_no
    FROM tested AS t
    JOIN specs AS s ON s.spec_no = t.spec_no AND s.family = 'share'
    JOIN members AS m ON m.member_no = t.series_no % {series}
    JOIN members AS pm
        ON pm.member = CASE WHEN s.parent_part = 0 THEN 'all' ELSE string_split(m.member, '|')[s.parent_part] END
),
share_now AS (
    SELECT p.*, parent.value AS parent
    FROM share_parents AS p
    JOIN current_values AS parent ON parent.series_no = p.parent_no AND parent.period_start = p.period_start
    WHERE parent.value > 0
),
share_judged AS (
    SELECT ask_no, NULL::DOUBLE AS baseline, parent AS scale
    FROM share_now
    WHERE lag_hours = 0
    UNION ALL
    SELECT n.ask_no, n.parent * own.value / parent.value AS baseline, abs(n.parent * own.value / parent.value) AS scale
    FROM share_now AS n
    JOIN known AS own
        ON own.series_no = n.series_no AND own.period_start = n.period_start - n.lag_hours * INTERVAL '1 hour'
    JOIN known AS parent ON parent.series_no = n.parent_no AND parent.period_start = own.period_start
    WHERE n.lag_hours > 0 AND NOT own.is_event AND own.value <> 0 AND parent.value > 0
)"""
"""Yields `share_judged`; reads `current_values` and `known` and, of `specs`, lag_hours, parent_key_no and parent_part."""
