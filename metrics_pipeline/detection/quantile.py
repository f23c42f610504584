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
    cases = "\n            ".join(
        f"WHEN {p!r} THEN percentile_cont({p!r}) WITHIN GROUP (ORDER BY h.value) FILTER (WHERE s.probability = {p!r})"
        for p in known
    )
    return f"""
-- quantile: of the last `window_days` days without promotions; interpolated between neighbours.
quantile_baseline AS (
    SELECT
        t.spec_no, t.series_no, t.period_start,
        CASE min(s.probability)
            {cases}
        END AS baseline,
        count(*) AS history
    FROM tested AS t
    JOIN specs AS s ON s.spec_no = t.spec_no AND s.family = 'quantile'
    JOIN points AS h
        ON h.series_no = t.series_no
        AND h.slot_hour = t.slot_hour
        AND h.day_no BETWEEN t.day_no - s.window_days AND t.day_no - 1
    WHERE h.value IS NOT NULL AND NOT h.is_event
    GROUP BY t.spec_no, t.series_no, t.period_start
),
quantile_judged AS (
    SELECT spec_no, series_no, period_start, baseline, abs(baseline) AS scale
    FROM quantile_baseline
    WHERE history >= {MIN_VALUES} AND baseline <> 0
)"""
