"""The promotion calendar: days on which an ordinary expectation does not hold, and what is known of each of them.

A `PromotionDay` is one day of one event for the whole shop or for some slices. Where the days come from: `occasions`
(the rules of the dbt seed, every year again), `public_holidays` (libraries) and `own_calendar` (the shop's own YAML);
`rules.seeds.read_seeds` puts them together for a shop. Main days, holidays and the days after are never part of a
baseline; a tested event day is judged with a wider band, or against the same day of the last such event.

Whoever works on arrays takes `calendar_days`: one entry per day of a stretch, for one slice or the whole shop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

WIDENING: Mapping[str, float] = MappingProxyType(
    {
        "main": 1.5, "holiday": 0.2, "presale": 0.2, "season": 0.2, "campaign": 0.2, "before": 0.2, "after": 0.2,
        "workday": 0.15,
    }
)  # fmt: skip
"""Phase of a day → least standard deviation as a share of the expectation. A main day may well bring six times as much;
on other days a standstill must still be seen: at 0.2 a value of 0 is five deviations away. Of several events on a day
the phase that stands first here is the day's."""
PHASES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "main": ("爆发", "main days of a promotion"),
        "holiday": ("假期", "days off work, or a festival"),
        "presale": ("预售", "deposits are taken, orders are paid later"),
        "season": ("促销季", "long or mild promotion"),
        "campaign": ("店铺活动", "a campaign of the shop's own"),
        "before": ("促前回落", "people wait for the main days"),
        "after": ("促后回落", "people have bought"),
        "workday": ("调休上班", "a weekend day that is worked"),
    }
)
"""Phase → its name in Chinese, what it is in English."""
NO_BASELINE = frozenset({"main", "holiday", "after"})
"""Phases that are left out of baselines. The others stay in: without pre-sales and long mild seasons weeks would have no past."""
ANY_PROMOTION = "any"
"""Name of whatever day of the calendar, where a rule names events or phases."""
GLOBAL = "global"
"""Market of events that every shop takes part in."""
YEARS = range(2010, 2041)
"""Years for which events that return are laid out."""

Affects = tuple[tuple[str, tuple[str, ...]], ...]
"""((dimension, its members), …): the slices that an event is about; () = the whole shop."""


class CalendarError(ValueError):
    """A calendar that cannot be used; names file, line, what was expected and what to do."""


@dataclass(frozen=True)
class PromotionDay:
    """One day of one event."""

    date: date
    event: str
    """Stable id of the event over the years, e.g. `double_11`."""
    name_zh: str
    name_en: str
    day_in_event: int
    """0 = the event's main date, negative before it: what aligns years."""
    kind: str
    """The phase: a key of `WIDENING`."""
    market: str
    """Country code (`CN`), `global`, or `own` for the shop's own events."""
    affects: Affects = ()
    source: str = "seed"
    """Who says so: seed, chinesecalendar, holidays, or the file of the shop."""

    def is_about(self, dimension: str, member: str) -> bool:
        """Whether a slice is among those affected (`region|channel`, `华北|app`: some part is named by every key)."""
        parts = dict(zip(dimension.split("|"), member.split("|"), strict=False))
        return all(parts.get(name) in members for name, members in self.affects)


def former_days(days: Sequence[PromotionDay]) -> dict[date, date]:
    """Day of an event of the whole shop → the same day of the last time the same event took place."""
    former: dict[date, date] = {}
    last: dict[tuple[str, int], date] = {}
    for day in sorted((day for day in days if not day.affects), key=_by_rank):
        key = (day.event, day.day_in_event)
        if key in last and day.date not in former:
            former[day.date] = last[key]
        last[key] = day.date
    return former


@dataclass(frozen=True)
class CalendarDays:
    """The calendar over a stretch of n days, as arrays of n: of several events on a day the one of the first phase."""

    first: date
    event_no: NDArray[np.int32]
    """Index into `events`; -1 = an ordinary day."""
    events: tuple[str, ...]
    phase_no: NDArray[np.int8]
    """Index into the keys of `PHASES`; -1 = an ordinary day."""
    day_in_event: NDArray[np.int32]
    """0 on ordinary days and on main dates."""
    widening: NDArray[np.float64]
    """Least relative standard deviation of the day; 0 = ordinary."""
    is_baseline: NDArray[np.bool_]
    """Whether the day may be part of an ordinary baseline."""
    former_no: NDArray[np.int32]
    """Days since `first` of the same day of the event before (it may be negative); `NO_DAY` = there was none."""

    def __len__(self) -> int:
        return len(self.event_no)

    @cached_property
    def slot_no(self) -> NDArray[np.int32]:
        """Number of event × day-in-event: equal for the days that correspond over the years; -1 = an ordinary day."""
        keys = np.stack([self.event_no, self.day_in_event], axis=1)
        _, slots = np.unique(keys, axis=0, return_inverse=True)
        return np.where(self.event_no < 0, -1, slots.reshape(-1)).astype(np.int32)


NO_DAY = np.iinfo(np.int32).min


def calendar_days(
    promotions: Iterable[PromotionDay], first: date, last: date, *, dimension: str = "all", member: str = "all"
) -> CalendarDays:
    """The calendar from `first` to `last`, inclusive, as a slice sees it: events of the whole shop and its own.

    Raises `ValueError` when the days end before they begin.
    """
    n = (last - first).days + 1
    if n < 1:
        raise ValueError(f"the days end ({last}) before they begin ({first})")
    seen = sorted((day for day in promotions if day.is_about(dimension, member)), key=_by_rank)
    events = tuple(sorted({day.event for day in seen}))
    numbers, phases = {event: no for no, event in enumerate(events)}, list(PHASES)
    event_no, phase_no = np.full(n, -1, np.int32), np.full(n, -1, np.int8)
    position, widening = np.zeros(n, np.int32), np.zeros(n)
    is_baseline, former_no = np.ones(n, bool), np.full(n, NO_DAY, np.int32)
    last_seen: dict[tuple[str, int], date] = {}
    for day in seen:
        at, key = (day.date - first).days, (day.event, day.day_in_event)
        if 0 <= at < n:
            widening[at] = max(widening[at], WIDENING[day.kind])
            is_baseline[at] &= day.kind not in NO_BASELINE
            if event_no[at] < 0:
                event_no[at], phase_no[at] = numbers[day.event], phases.index(day.kind)
                position[at] = day.day_in_event
            if key in last_seen and former_no[at] == NO_DAY:
                former_no[at] = (last_seen[key] - first).days
        last_seen[key] = day.date
    return CalendarDays(first, event_no, events, phase_no, position, widening, is_baseline, former_no)


def stretches(days: Iterable[PromotionDay]) -> list[tuple[PromotionDay, date]]:
    """Runs of days of one event and phase: (first of them, last date), by date."""
    runs: list[tuple[PromotionDay, date]] = []
    for day in sorted(days, key=lambda day: (day.event, day.affects, day.date)):
        if runs:
            head, until = runs[-1]
            same = (head.event, head.kind, head.affects, head.source) == (day.event, day.kind, day.affects, day.source)
            if same and day.date == until + timedelta(days=1):
                runs[-1] = (head, day.date)
                continue
        runs.append((day, day.date))
    return sorted(runs, key=lambda run: (run[0].date, run[0].event))


_RANK = {kind: rank for rank, kind in enumerate(WIDENING)}


def _by_rank(day: PromotionDay) -> tuple[date, int, str]:
    return day.date, _RANK[day.kind], day.event
