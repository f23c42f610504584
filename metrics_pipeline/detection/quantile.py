"""Distance to a quantile of the series' own history (for hours: of the same hour of the day).

`scale` is the quantile's size, so an observed 0.2 is 20 % above it. Promotion days are not part of the history.
"""

from __future__ import annotations

from collections.abc import Iterable

MIN_VALUES = 28
"""Four weeks: with fewer values an outer quantile is the largest value and little more."""


def ctes(probabilities: Iterable[float]) -> str:
    """SQL that yields `quantile_judged`.

    `probabilities`: every quantile that any spec asks for; an ordered-set aggregate takes its fraction as a literal only.
    """
    known = sorted(set(probabilities)) or [0.5]
    if len(known) == 1:
        baseline = f"percentile_cont({known[0]!r}) WITHIN GROUP (ORDER BY h.value)"
    else:
        cases = "\n            ".join(
            f"WHEN {p!r} THEN percentile_cont({p!r}) WITHIN GROUP (ORDER BY h.value) FILTER (WHERE w.probability = {p!r})"
            for p in known
        )
        baseline = f"CASE min(w.probability)\n            {cases}\n        END"
    return f"""
-- quantile: of the last `window_days` days without promotions; interpolated between neighbours.
quantile_windows AS MATERIALIZED (
    SELECT
        s.spec_no, s.key_no, s.probability, p.period_start, p.slot_hour, p.day_no - s.window_days AS since_day_no,
        p.day_no
    FROM specs AS s
    JOIN periods AS p ON p.grain = s.grain
    WHERE s.family = 'quantile'
),
quantile_baseline AS (
    SELECT
        w.spec_no, h.series_no, w.period_start,
        {baseline} AS baseline,
        count(*) AS history
    FROM known AS h
    JOIN quantile_windows AS w
        ON w.key_no = h.key_no AND w.slot_hour = h.slot_hour
        AND h.day_no >= w.since_day_no AND h.day_no < w.day_no
    WHERE h.value IS NOT NULL AND NOT h.is_event
    GROUP BY w.spec_no, h.series_no, w.period_start
),
quantile_judged AS (
    SELECT t.ask_no, b.baseline, abs(b.baseline) AS scale
    FROM quantile_baseline AS b
    JOIN tested AS t ON t.spec_no = b.spec_no AND t.series_no = b.series_no AND t.period_start = b.period_start
    WHERE b.history >= {MIN_VALUES} AND b.baseline <> 0
)"""
