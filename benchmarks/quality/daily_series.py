"""A year of incidents in a shop that is not shaped like our model: daily series with their truth.

Two years of 1,000 series in 40 groups (a metric of one category over 25 slices): counts, amounts and ratios. The second
year is judged; the first has incidents, too, and nobody says where.

How it differs from what `detection/baseline.py` assumes: weekday and yearly season are *added* and do not grow with the
level; noise is overdispersed (negative binomial), autocorrelated within a week and has fat tails; the lift of an event
differs by year, group and series; some days are missing, some series begin late; prices move amounts; harmless
promotions, campaigns of one group and flash sales happen all year. Incidents are 1.75 a day per 1,000 series of 14
kinds, with effects from hardly visible to total.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt

from metrics_pipeline.detection.interface import NO_EVENT, PHASES, Calendar, FloatArray, IntArray, Panel

N_GROUPS, GROUP_SIZE, N_DAYS, FIRST_JUDGED = 40, 25, 730, 365
FIRST_DATE = date(2024, 1, 1)
INCIDENTS_PER_DAY = 1.75
"""Per 1,000 series."""

# event: month, day (None = of its own date each year), lift of the main days, main days, days of presale, days after
_EVENTS = {
    "women_day": (3, 8, 1.45, 1, 3, 2),
    "mid_year": (6, 18, 2.0, 2, 8, 5),
    "double_9": (9, 9, 1.35, 1, 2, 2),
    "double_11": (11, 11, 2.6, 2, 10, 6),
    "double_12": (12, 12, 1.6, 1, 3, 4),
}
_SPRING_FESTIVAL = {2024: date(2024, 2, 10), 2025: date(2025, 1, 29)}
_CODES = {name: n for n, name in enumerate((*_EVENTS, "spring_festival", "national_day", "campaign", "flash"))}
FLASH = _CODES["flash"]
_PRESALE, _MAIN, _AFTER, _HOLIDAY = (PHASES.index(name) for name in ("presale", "main", "after", "holiday"))

KINDS = (
    "outage", "drop", "spike", "level_up", "level_down", "drift_up", "drift_down", "duplicate_load", "partial_load",
    "tracking_loss", "promotion_weak", "promotion_not_started", "price_error", "shock",
)  # fmt: skip


@dataclass(frozen=True)
class Incident:
    """One labelled incident: days [start, end] of some series."""

    kind: str
    series: tuple[int, ...]
    """One, or all of a group (shock)."""
    start: int
    end: int
    """Last day, inclusive."""
    effect: float
    """Relative change of the value on its strongest day."""
    sigmas: float
    """The same in standard deviations of an ordinary day."""
    volume: float
    """Mean of the series' counts (exposure for ratios) on an ordinary day."""


@dataclass(frozen=True)
class World:
    """A panel with its calendar and its truth."""

    panel: Panel
    calendar: Calendar
    """As somebody entered all of it."""
    incidents: tuple[Incident, ...]
    """Those of the judged year; () of a null panel."""
    is_event: npt.NDArray[np.bool_]
    """(n_series, n_days): whether anything of the calendar touches the series that day."""
    dates: tuple[date, ...]

    def only(self, n_series: int) -> World:
        """The first series, and the incidents of these alone."""
        panel = Panel(
            self.panel.numerator[:n_series],
            self.panel.slot,
            self.panel.group[:n_series],
            None if self.panel.denominator is None else self.panel.denominator[:n_series],
        )
        calendar = replace(self.calendar, category=self.calendar.category[:n_series])
        kept = tuple(one for one in self.incidents if max(one.series) < n_series)
        return World(panel, calendar, kept, self.is_event[:n_series], self.dates)

    def without_flash_sales(self) -> Calendar:
        """The calendar in which nobody entered the flash sales."""
        return _without(self.calendar, self.calendar.event == FLASH)

    def without_calendar(self) -> Calendar:
        """No calendar at all."""
        return _without(self.calendar, np.ones_like(self.calendar.event, dtype=bool))


def make_world(seed: int, *, null: bool = False) -> World:
    """The panel of this seed; `null` = the same shop without incidents in either year."""
    random = np.random.default_rng(seed)
    dates = tuple(FIRST_DATE + timedelta(days=n) for n in range(N_DAYS))
    weekday = np.array([day.weekday() for day in dates])
    n_series = N_GROUPS * GROUP_SIZE
    group = np.repeat(np.arange(N_GROUPS), GROUP_SIZE)
    calendar, log_lift = _events(random, dates, group)
    is_event = calendar.event[calendar.category] != NO_EVENT

    metric = random.choice(3, N_GROUPS, p=[0.6, 0.2, 0.2])[group]  # 0 = count, 1 = amount, 2 = ratio
    base = np.exp(random.normal(np.log(300), 1.3, n_series))
    base[metric == 2] *= 12
    days = np.arange(N_DAYS)
    shape = random.normal(0, 0.12, (N_GROUPS, 7))[group] + random.normal(0, 0.04, (n_series, 7))
    season = shape[:, weekday] + (
        random.uniform(0, 0.15, n_series)[:, None]
        * np.sin(2 * np.pi * (days / 365.25 + random.uniform(0, 1, N_GROUPS)[group][:, None]))
    )
    growth = np.exp(
        np.cumsum(random.normal(0, 0.0035, (n_series, N_DAYS)), axis=1) + days * random.normal(0, 2e-4, (n_series, 1))
    )
    wobble = _autocorrelated(random, n_series, 0.5, random.uniform(0.01, 0.03, n_series))
    common = _autocorrelated(random, N_GROUPS, 0.6, np.full(N_GROUPS, 0.02))[group]
    mean = base[:, None] * np.maximum(growth + season + wobble + common, 0.05) * np.exp(log_lift)

    effects, incidents = (np.ones_like(mean), ()) if null else _incidents(random, mean, calendar, log_lift, group)
    dispersion = random.uniform(0.02, 0.07, n_series)[:, None]
    fat = np.exp(dispersion * random.standard_t(5, mean.shape) / np.sqrt(5 / 3))
    counts = random.poisson(np.minimum(mean * effects * fat, 1e9)).astype(float)
    numerator, denominator = counts.copy(), np.full_like(mean, np.nan)

    price = random.uniform(20, 400, n_series)[:, None] * np.exp(
        random.normal(0, 0.6, mean.shape) / np.sqrt(np.maximum(counts, 1))
    )
    amounts = metric == 1
    numerator[amounts] = (counts * price)[amounts]

    ratios = metric == 2
    rate = random.uniform(0.02, 0.3, n_series)[:, None] * np.exp(
        0.3 * shape[:, weekday] + 0.3 * np.maximum(log_lift, -0.5)
    )
    noisy = np.clip(rate * np.exp(0.6 * dispersion * random.standard_t(5, mean.shape)) * effects, 1e-4, 0.95)
    exposure = random.poisson(mean * fat).astype(float)
    numerator[ratios] = random.binomial(exposure.astype(int), noisy)[ratios].astype(float)
    denominator[ratios] = exposure[ratios]
    denominator[~ratios] = 1.0

    missing = random.random(mean.shape) < 0.008
    for row, start, length in zip(
        random.integers(0, n_series, n_series // 3),
        random.integers(0, N_DAYS - 6, n_series // 3),
        random.integers(2, 6, n_series // 3),
        strict=True,
    ):
        missing[row, start : start + length] = True
    late = random.choice(n_series, n_series // 20, replace=False)
    for row, start in zip(late, random.integers(60, 330, len(late)), strict=True):
        missing[row, :start] = True
    numerator[missing] = np.nan
    denominator[missing] = np.nan

    volume = np.where(ratios, mean[:, :FIRST_JUDGED].mean(axis=1), base)
    rate_of = np.where(ratios, rate.mean(axis=1), 1.0)
    noise = np.sqrt(1 / np.maximum(volume * rate_of, 0.1) + dispersion[:, 0] ** 2 + 0.05**2)
    labelled = tuple(
        Incident(kind, rows, start, end, effect, abs(effect) / float(noise[rows[0]]), float(volume[rows[0]]))
        for kind, rows, start, end, effect in incidents
        if start >= FIRST_JUDGED and np.isfinite(numerator[list(rows), start : end + 1]).any()
    )
    panel = Panel(numerator, weekday.astype(np.int64), group.astype(np.int64), denominator)
    return World(panel, calendar, labelled, is_event, dates)


def _without(calendar: Calendar, gone: npt.NDArray[np.bool_]) -> Calendar:
    return Calendar(
        np.where(gone, NO_EVENT, calendar.event),
        np.where(gone, 0, calendar.day_in_event),
        np.where(gone, 0, calendar.phase),
        calendar.category,
    )


def _autocorrelated(random: np.random.Generator, n: int, memory: float, spread: FloatArray) -> FloatArray:
    shocks = random.normal(0, 1, (n, N_DAYS)) * (spread * np.sqrt(1 - memory**2))[:, None]
    for day in range(1, N_DAYS):
        shocks[:, day] += memory * shocks[:, day - 1]
    return shocks


def _events(random: np.random.Generator, dates: tuple[date, ...], group: IntArray) -> tuple[Calendar, FloatArray]:
    """The calendar by group, and the log of what events do to each series."""
    position = {day: n for n, day in enumerate(dates)}
    event = np.full((N_GROUPS, N_DAYS), NO_EVENT)
    inside, phase = np.zeros_like(event), np.zeros_like(event)
    lift = np.zeros((N_GROUPS, N_DAYS))
    taste = np.exp(random.normal(0, 0.3, N_GROUPS))  # how much a group lives on promotions

    def place(  # noqa: PLR0917
        rows: IntArray, code: int, on: date, offset: int, kind: int, log_lift: FloatArray
    ) -> None:
        at = position.get(on + timedelta(days=offset))
        if at is None:
            return
        free = rows[(event[rows, at] == NO_EVENT) | (kind == _MAIN)]
        event[free, at], inside[free, at], phase[free, at] = code, offset, kind
        lift[free, at] = log_lift[np.isin(rows, free)]

    every = np.arange(N_GROUPS)
    for year in (2024, 2025):
        for name, (month, day, size, mains, before, after) in _EVENTS.items():
            of_year = np.log(size) * np.exp(random.normal(0, 0.22)) * taste * np.exp(random.normal(0, 0.18, N_GROUPS))
            on = date(year, month, day)
            for n in range(-before, 0):
                place(every, _CODES[name], on, n, _PRESALE, of_year * random.uniform(0.08, 0.2))
            for n in range(mains):
                place(every, _CODES[name], on, n, _MAIN, of_year * (1.0 if n == 0 else 0.55))
            for n in range(mains, mains + after):
                place(every, _CODES[name], on, n, _AFTER, -of_year * 0.3 * 0.75 ** (n - mains))
        rest = random.normal(-0.45, 0.2, N_GROUPS)
        for n in range(-4, 8):
            deep = 1 - abs(n - 1.5) / 8
            place(
                every,
                _CODES["spring_festival"],
                _SPRING_FESTIVAL[year],
                n,
                _HOLIDAY,
                rest * deep * random.uniform(0.85, 1.15),
            )
        for n in range(7):
            place(every, _CODES["national_day"], date(year, 10, 1), n, _HOLIDAY, random.normal(0.12, 0.1, N_GROUPS))
    for row in range(N_GROUPS):
        one = np.array([row])
        for code, times, length, low, high in ((_CODES["campaign"], 8, 3, 1.25, 1.7), (FLASH, 10, 1, 1.3, 2.2)):
            for start in random.integers(20, N_DAYS - 5, times):
                on, size = dates[int(start)], np.log(random.uniform(low, high))
                if event[row, start : start + length + 1].max() != NO_EVENT:
                    continue
                for n in range(length):
                    place(one, code, on, n, _MAIN, np.array([size * (1 - 0.2 * n)]))
                place(one, code, on, length, _AFTER, np.array([-0.15 * size]))
    own = np.exp(random.normal(0, 0.25, len(group)))[:, None]
    of_series = lift[group] * own * np.exp(random.normal(0, 0.12, (len(group), N_DAYS)))
    return Calendar(event, inside, phase, group.astype(np.int64)), of_series


_Raw = tuple[str, tuple[int, ...], int, int, float]


def _incidents(
    random: np.random.Generator, mean: FloatArray, calendar: Calendar, log_lift: FloatArray, group: IntArray
) -> tuple[FloatArray, tuple[_Raw, ...]]:
    """Factors on every value, and (kind, series, first day, last day, effect)."""
    n_series = len(mean)
    factor = np.ones_like(mean)
    taken = np.zeros(mean.shape, dtype=bool)
    found: list[_Raw] = []
    singles = [kind for kind in KINDS if kind != "shock"]
    per_year = round(INCIDENTS_PER_DAY * 365 * n_series / 1000)
    sign_of = {"drift_up": 1, "drift_down": -1, "level_up": 1, "level_down": -1}
    for year in (0, 1):
        made = 0
        while made < per_year:
            shock = made < per_year // 50
            kind = "shock" if shock else singles[made % len(singles)]
            row, start = int(random.integers(n_series)), int(365 * year + random.integers(30 if year == 0 else 0, 364))
            rows = tuple(np.flatnonzero(group == group[row]).tolist()) if shock else (row,)
            length, effect = _shape(random, kind)
            if kind.startswith("promotion"):
                mains = np.flatnonzero((calendar.phase[group[row]] == _MAIN) & (log_lift[row] > 0.2))
                mains = mains[(mains >= 365 * year) & (mains < 365 * (year + 1))]
                if not len(mains):
                    continue
                start = int(random.choice(mains))
                length = 1
                while start + length < N_DAYS and calendar.phase[group[row], start + length] == _MAIN:
                    length += 1
            end = min(start + length - 1, N_DAYS - 1)
            clear = slice(max(start - 10, 0), end + 11)
            if taken[list(rows), clear].mean() > (0.05 if shock else 0) or start >= N_DAYS - 1:
                continue
            span = np.arange(start, end + 1)
            if kind.startswith("promotion"):
                of_days = np.exp(effect * log_lift[row, span])
                effect = float(of_days.min() - 1)
            elif kind.startswith("drift"):
                of_days = np.exp(sign_of[kind] * abs(effect) * np.arange(1, len(span) + 1))
                effect = float(of_days[-1] - 1)
            else:
                of_days = np.full(len(span), 1 + effect)
            for one in rows:
                own = of_days ** float(np.exp(random.normal(0, 0.25))) if shock else of_days
                factor[one, span] *= own
            taken[list(rows), start : end + 1] = True
            found.append((kind, rows, start, end, effect))
            made += 1
    return factor, tuple(found)


_SHAPES: dict[str, tuple[int, int, float, float]] = {
    "outage": (1, 2, -0.85, -1.0),
    "drop": (1, 4, -0.2, -0.7),
    "spike": (1, 3, 0.25, 1.5),
    "level_up": (14, 28, 0.15, 0.5),
    "level_down": (14, 28, -0.15, -0.5),
    "drift_up": (20, 30, 0.01, 0.025),
    "drift_down": (20, 30, 0.01, 0.025),
    "duplicate_load": (1, 1, 0.5, 1.0),
    "partial_load": (1, 1, -0.25, -0.8),
    "tracking_loss": (3, 10, -0.15, -0.5),
    "promotion_weak": (1, 1, -0.5, -0.85),
    "promotion_not_started": (1, 1, -1.0, -1.0),
    "price_error": (1, 2, 0.4, 2.0),
    "shock": (1, 2, -0.15, -0.45),
}
"""Kind → least and most days, least and most effect: relative; of drifts log change a day; of promotions share of the lift
that is lost, negative."""


def _shape(random: np.random.Generator, kind: str) -> tuple[int, float]:
    """Days and effect of one incident."""
    shortest, longest, least, most = _SHAPES[kind]
    return int(random.integers(shortest, longest + 1)), least + (most - least) * float(random.random())
