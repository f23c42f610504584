"""The seasonal band: what this weekday (and hour) should bring, and how far a value may honestly be from it.

Expectation = level × index. The level is the rate of the latest week with at least three ordinary days before the
tested one; the index is how the same weekday (and hour) of the last `weeks` weeks compared with the week before it.
So growth moves the expectation, and after a level shift the band follows within the week. Both are medians; where
there are fewer than ten events to a day a median of counts is a lottery, and sums are used instead.

Scale, in the metric's unit, is the larger of
- 1.4826 × the median absolute relative residual of all weekdays of these weeks (a robust standard deviation), widened
  by 1/n of the same weekdays for what the index itself does not know, and
- half of what the level moved since the week before: after a week that was itself unusual, the return is no surge, and
- a noise floor: Poisson for counts and for counts per exposure (complaints per order), binomial for shares,
  1/√denominator for averages such as order value, one event in any case, plus the uncertainty of the expectation; so a
  small slice is quiet, and
- 3 % of the expectation: the rule for a history that never moves (its median residual is 0). On a promotion day
  `widening` (`promotions.py`) takes the place of the 3 %. Of a share above one half both are taken of its complement.

A young series, with fewer than four weeks that follow a week with a level, cannot tell growth from noise: its level is
taken as constant, so the expectation is the median of at least three same weekdays, and each residual is that of a value
against the mean of the *other* same weekdays, which is how wrong such an expectation has been. A shop that grows fast
has a wide band then.

Method: seasonal median/MAD (Leys et al., 2013, for MAD against standard deviation) on multiplicatively level-adjusted
values; the floor is the variance of the count models themselves. Residuals are within-sample for the index and
out-of-sample for the level. The model is multiplicative: a level of 0 or below (a margin that turned negative) has no
expectation, and such a period has no row.
"""

from __future__ import annotations

MIN_SAME_SLOT = 4
"""Same weekdays (and hours) that must have a value."""
MIN_SAME_SLOT_YOUNG = 3
"""The same of a young series."""
MIN_RESIDUALS = 14
"""Values of any weekday behind the scale."""
MIN_LEVEL_DAYS = 3
"""Ordinary days of a week without which it has no level."""
THICK = 10
"""Events per day (for the index: expected events per slot) from which medians of counts are trusted."""
RELATIVE_FLOOR = 0.03
LAST_EVENT_SPREAD = 0.25
"""How well last year's promotion predicts this year's: relative, at least."""


def lookback_days(weeks: int) -> int:
    """Days before the tested day that are read: `weeks` of history and the week before them."""
    return 7 * (weeks + 1)


CTES = f"""
-- band: the level of each week before the tested day; week 0 is the last seven days.
band_tested AS MATERIALIZED (
    SELECT t.*, s.weeks, s.promotions
    FROM tested AS t
    JOIN specs AS s ON s.spec_no = t.spec_no
    WHERE s.family = 'band'
),
band_days AS (
    SELECT DISTINCT spec_no, series_no, day_no, weeks FROM band_tested
    UNION
    SELECT DISTINCT t.spec_no, t.series_no, e.former_day_no AS day_no, 1 AS weeks
    FROM band_tested AS t
    JOIN former_events AS e ON e.day_no = t.day_no AND t.promotions = 'last_event'
),
band_daily AS (
    SELECT series_no, day_no, n, d
    FROM points
    WHERE grain = 'day' AND n IS NOT NULL AND NOT is_event
    UNION ALL
    SELECT series_no, day_no, sum(n) AS n, sum(d) AS d
    FROM points
    WHERE grain = 'hour' AND n IS NOT NULL AND NOT is_event AND series_no IN (SELECT series_no FROM band_tested)
    GROUP BY series_no, day_no
),
band_weeks AS MATERIALIZED (
    SELECT
        t.spec_no, t.series_no, t.day_no, (t.day_no - h.day_no - 1) // 7 AS week,
        CASE WHEN avg(h.n) >= {THICK} THEN median(h.n / h.d) ELSE sum(h.n) / sum(h.d) END AS level,
        sum(h.n) AS events, sum(h.d) AS exposure
    FROM band_days AS t
    JOIN band_daily AS h
        ON h.series_no = t.series_no AND h.day_no BETWEEN t.day_no - 7 * (t.weeks + 1) AND t.day_no - 1
    GROUP BY t.spec_no, t.series_no, t.day_no, week
    HAVING count(*) >= {MIN_LEVEL_DAYS}
),
band_level AS (
    SELECT
        spec_no, series_no, day_no,
        min_by(level, week) AS level, min_by(events, week) AS events, min_by(exposure, week) AS exposure,
        list(level ORDER BY week)[2] AS earlier_level, count(*) FILTER (WHERE week > 0) < {MIN_SAME_SLOT} AS is_young
    FROM band_weeks
    GROUP BY spec_no, series_no, day_no
    HAVING min(week) <= {MIN_SAME_SLOT}
),
-- history of the same hour, each value with what the level of the week before it let expect.
band_past AS MATERIALIZED (
    SELECT
        t.spec_no, t.series_no, t.period_start, t.day_no, (t.day_no - h.day_no) % 7 AS weekday_offset,
        (t.day_no - h.day_no - 1) // 7 + 1 AS week_before, h.n, h.d
    FROM band_tested AS t
    JOIN points AS h
        ON h.series_no = t.series_no
        AND h.slot_hour = t.slot_hour
        AND h.day_no BETWEEN t.day_no - 7 * t.weeks AND t.day_no - 1
    WHERE h.n IS NOT NULL AND NOT h.is_event
),
band_history AS MATERIALIZED (
    SELECT
        p.spec_no, p.series_no, p.period_start, p.weekday_offset, p.n, p.d, l.is_young,
        p.d * CASE WHEN l.is_young THEN l.level ELSE w.level END AS expected
    FROM band_past AS p
    JOIN band_level AS l ON l.spec_no = p.spec_no AND l.series_no = p.series_no AND l.day_no = p.day_no
    LEFT JOIN band_weeks AS w
        ON w.spec_no = p.spec_no AND w.series_no = p.series_no AND w.day_no = p.day_no AND w.week = p.week_before
    WHERE l.is_young OR w.level IS NOT NULL
),
band_index AS MATERIALIZED (
    SELECT
        spec_no, series_no, period_start, weekday_offset,
        CASE
            WHEN avg(expected) >= {THICK} THEN median(n / nullif(expected, 0))
            ELSE (sum(n) + 1) / (sum(expected) + 1)
        END AS slot_index,
        sum(n / nullif(expected, 0)) AS summed, sum(n) AS events, sum(d) AS exposure, count(*) AS history
    FROM band_history
    GROUP BY spec_no, series_no, period_start, weekday_offset
),
band_spread AS (
    SELECT
        h.spec_no, h.series_no, h.period_start, count(*) AS residuals,
        coalesce(
            median(
                abs(
                    h.n / nullif(
                        h.expected * CASE
                            WHEN h.is_young THEN (i.summed - h.n / nullif(h.expected, 0)) / nullif(i.history - 1, 0)
                            ELSE i.slot_index
                        END, 0
                    ) - 1
                )
            ), 0
        ) AS median_residual,
        bool_and(h.n = floor(h.n)) AS is_whole, bool_and(h.n <= h.d) AS is_share
    FROM band_history AS h
    JOIN band_index AS i
        ON i.spec_no = h.spec_no AND i.series_no = h.series_no AND i.period_start = h.period_start
        AND i.weekday_offset = h.weekday_offset
    GROUP BY h.spec_no, h.series_no, h.period_start
),
-- what the same day of the last such promotion made of its level.
band_lift AS (
    SELECT t.spec_no, t.series_no, t.period_start, f.n / nullif(f.d * l.level, 0) AS lift
    FROM band_tested AS t
    JOIN former_events AS e ON e.day_no = t.day_no AND t.promotions = 'last_event'
    JOIN points AS f ON f.series_no = t.series_no AND f.day_no = e.former_day_no AND f.slot_hour = t.slot_hour
    JOIN band_level AS l ON l.spec_no = t.spec_no AND l.series_no = t.series_no AND l.day_no = e.former_day_no
),
band_expected AS (
    SELECT
        t.spec_no, t.series_no, t.period_start, t.is_ratio, t.d,
        l.level * coalesce(f.lift, i.slot_index) AS expected,
        s.is_whole, s.is_share,
        greatest(
            1.4826 * s.median_residual * CASE WHEN l.is_young THEN 1 ELSE 1 + 1.0 / i.history END,
            CASE WHEN l.is_young THEN 0 ELSE 0.5 * abs(coalesce(l.earlier_level, l.level) / nullif(l.level, 0) - 1) END,
            CASE
                WHEN t.promotions = 'ordinary' THEN {RELATIVE_FLOOR}
                WHEN f.lift IS NOT NULL THEN {LAST_EVENT_SPREAD}
                ELSE coalesce(e.widening, {RELATIVE_FLOOR})
            END * CASE
                WHEN t.is_ratio AND s.is_share
                    THEN greatest(least(1, 1 / nullif(l.level * coalesce(f.lift, i.slot_index), 0) - 1), 0)
                ELSE 1
            END
        ) AS relative_spread,
        1 / (l.events + 1) + 1 / (i.events + 1) AS event_uncertainty,
        1 / l.exposure + 1 / i.exposure AS exposure_uncertainty
    FROM band_tested AS t
    JOIN band_level AS l ON l.spec_no = t.spec_no AND l.series_no = t.series_no AND l.day_no = t.day_no
    JOIN band_index AS i
        ON i.spec_no = t.spec_no AND i.series_no = t.series_no AND i.period_start = t.period_start
        AND i.weekday_offset = 0
    JOIN band_spread AS s
        ON s.spec_no = t.spec_no AND s.series_no = t.series_no AND s.period_start = t.period_start
    LEFT JOIN band_lift AS f
        ON f.spec_no = t.spec_no AND f.series_no = t.series_no AND f.period_start = t.period_start
    LEFT JOIN tested_events AS e ON e.spec_no = t.spec_no AND e.series_no = t.series_no AND e.day_no = t.day_no
    WHERE l.level >= 0 AND l.exposure > 0 AND i.exposure > 0
        AND i.history >= CASE WHEN l.is_young THEN {MIN_SAME_SLOT_YOUNG} ELSE {MIN_SAME_SLOT} END
        AND s.residuals >= {MIN_RESIDUALS}
),
band_judged AS (
    SELECT
        spec_no, series_no, period_start, expected AS baseline,
        greatest(
            relative_spread * expected,
            CASE
                WHEN is_ratio AND is_share
                    THEN sqrt(expected * greatest(1 - expected, 0) * (1 / d + exposure_uncertainty) + 1 / (d * d))
                WHEN is_ratio AND is_whole
                    THEN sqrt(greatest(expected, power(expected, 2)) * (1 / d + exposure_uncertainty) + 1 / (d * d))
                WHEN is_ratio THEN expected * sqrt(1 / d + exposure_uncertainty)
                WHEN is_whole THEN sqrt(expected + 1 + power(expected, 2) * event_uncertainty)
                ELSE 0
            END
        ) AS scale
    FROM band_expected
)"""
"""Yields `band_judged`; also reads `tested_events(spec_no, series_no, day_no, widening)` and `former_events(day_no, former_day_no)`."""
