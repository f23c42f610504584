"""Relative change against the same day of the last time the same promotion took place (11-11 against last 11-11).

Days are matched by event and day-in-event, not by date (`promotions.former_days`): the lunar Spring Festival moves, and
so do the platforms' main days. A day of no event has nothing to be compared with.
"""

from __future__ import annotations

CTES = """
-- event: the same day (and hour) of the last such event.
event_judged AS (
    SELECT t.ask_no, h.value AS baseline, abs(h.value) AS scale
    FROM tested AS t
    JOIN specs AS s ON s.spec_no = t.spec_no AND s.family = 'event'
    JOIN former_events AS f ON f.day_no = t.day_no
    JOIN known AS h
        ON h.series_no = t.series_no AND h.day_no = f.former_day_no AND h.slot_hour = t.slot_hour
    WHERE h.value <> 0
)"""
"""Yields `event_judged`; also reads `former_events(day_no, former_day_no)`."""
