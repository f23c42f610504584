"""The shopping year: weekday and hour rhythm, season, growth, promotions and holidays of a Chinese shop.

A promotion is a profile of days around its date (pre-sale, dip of those who wait, peak, dip after), so a year looks
as it does in a shop: 双十一 starts on 20 October with the pre-sale and ends with the lull of 18 November.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.sources.simulator.market import CATEGORIES, CHANNELS
from metrics_pipeline.sources.simulator.rows import Array
from metrics_pipeline.sources.source import SourceError

LUNAR_NEW_YEAR = {
    2022: date(2022, 2, 1),
    2023: date(2023, 1, 22),
    2024: date(2024, 2, 10),
    2025: date(2025, 1, 29),
    2026: date(2026, 2, 17),
    2027: date(2027, 2, 6),
    2028: date(2028, 1, 26),
    2029: date(2029, 2, 13),
    2030: date(2030, 2, 3),
}
YEARLY_GROWTH = 0.16
WEEKDAY_TRAFFIC = np.array([0.95, 0.94, 0.95, 0.97, 1.01, 1.10, 1.08])
"""Monday first."""

_HOURS = np.array(
    [
        1.9,
        1.0,
        0.6,
        0.4,
        0.3,
        0.4,
        0.9,
        2.0,
        3.4,
        4.5,
        5.0,
        5.1,
        5.7,
        5.2,
        4.6,
        4.6,
        4.7,
        4.7,
        4.9,
        6.2,
        7.8,
        8.3,
        7.0,
        4.0,
    ]
)
_WEEKEND_HOURS = np.array(
    [
        2.4,
        1.4,
        0.8,
        0.5,
        0.3,
        0.3,
        0.6,
        1.3,
        2.6,
        4.2,
        5.3,
        5.6,
        5.5,
        5.2,
        5.2,
        5.3,
        5.2,
        5.0,
        4.9,
        5.7,
        6.9,
        7.5,
        6.6,
        4.2,
    ]
)
_LIVE_HOURS = np.array(
    [
        2.2,
        1.0,
        0.5,
        0.3,
        0.2,
        0.2,
        0.4,
        0.9,
        1.8,
        2.8,
        3.5,
        3.6,
        4.2,
        3.8,
        3.6,
        3.6,
        3.6,
        3.9,
        5.2,
        9.5,
        13.5,
        13.0,
        9.0,
        4.6,
    ]
)


@dataclass(frozen=True)
class Stretch:
    """Days `first`…`last` relative to an occasion's date, with the factors of each of them."""

    first: int
    last: int
    traffic: float
    conversion: float
    discount: float = 0.0
    """Typical extra discount on list price, 0–1."""
    lateness: float = 1.0
    """Factor on the share of late parcels."""


@dataclass(frozen=True)
class Occasion:
    """A promotion or holiday of one year."""

    id: str
    zh: str
    en: str
    on: date
    stretches: tuple[Stretch, ...]
    is_promotion: bool
    rush_offsets: tuple[tuple[int, int], ...] = ()
    """(day offset, hour) at which the gates open and people rush in."""

    @property
    def starts_on(self) -> date:
        return self.on + timedelta(days=self.stretches[0].first)

    @property
    def ends_on(self) -> date:
        return self.on + timedelta(days=self.stretches[-1].last)


_DOUBLE_ELEVEN = (
    Stretch(-22, -12, 1.12, 0.82, 0.02),
    Stretch(-11, -11, 1.65, 1.28, 0.12, 1.2),
    Stretch(-10, -8, 1.32, 1.18, 0.10, 1.3),
    Stretch(-7, -2, 1.10, 0.95, 0.05, 1.2),
    Stretch(-1, -1, 1.45, 0.98, 0.06, 1.2),
    Stretch(0, 0, 2.35, 1.55, 0.16, 1.7),
    Stretch(1, 1, 1.15, 1.02, 0.06, 1.7),
    Stretch(2, 7, 0.86, 0.83, 0.0, 1.3),
)
_MID_YEAR = (
    Stretch(-23, -19, 1.08, 0.88, 0.02),
    Stretch(-18, -16, 1.40, 1.16, 0.10, 1.1),
    Stretch(-15, -3, 1.08, 1.00, 0.05, 1.1),
    Stretch(-2, -1, 1.32, 1.08, 0.08, 1.2),
    Stretch(0, 0, 1.90, 1.42, 0.14, 1.5),
    Stretch(1, 1, 1.05, 0.98, 0.04, 1.4),
    Stretch(2, 6, 0.88, 0.87, 0.0, 1.1),
)
_DOUBLE_TWELVE = (
    Stretch(-4, -2, 1.00, 0.92, 0.01),
    Stretch(-1, -1, 1.18, 1.02, 0.06),
    Stretch(0, 0, 1.55, 1.22, 0.11, 1.2),
    Stretch(1, 4, 0.93, 0.92),
)
_NEW_YEAR_GOODS = (Stretch(-30, -21, 1.14, 1.04, 0.05), Stretch(-20, -9, 1.22, 1.08, 0.06, 1.2))
_SPRING_FESTIVAL = (
    Stretch(-8, -5, 0.92, 0.90, 0.0, 1.8),
    Stretch(-4, -2, 0.72, 0.78, 0.0, 2.2),
    Stretch(-1, -1, 0.58, 0.72, 0.0, 2.2),
    Stretch(0, 2, 0.55, 0.68, 0.0, 2.0),
    Stretch(3, 6, 0.68, 0.78, 0.0, 1.8),
    Stretch(7, 14, 0.90, 0.94, 0.0, 1.2),
)
_NATIONAL_DAY = (Stretch(0, 0, 0.90, 0.94), Stretch(1, 5, 0.86, 0.93, 0.0, 1.3), Stretch(6, 6, 0.96, 0.97, 0.0, 1.2))
_LABOUR_DAY = (Stretch(0, 4, 0.90, 0.95, 0.0, 1.2),)
_SMALL = (Stretch(-2, -1, 0.98, 0.94, 0.0), Stretch(0, 0, 1.28, 1.14, 0.07), Stretch(1, 2, 0.95, 0.94))
_MEMBER_DAY = (Stretch(-1, -1, 0.98, 0.96), Stretch(0, 0, 1.12, 1.07, 0.04), Stretch(1, 1, 0.97, 0.97))


def occasions(first: date, last: date) -> tuple[Occasion, ...]:
    """All occasions that touch `first`…`last`, by date.

    Raises `SourceError` for years whose Spring Festival is not in `LUNAR_NEW_YEAR`.
    """
    known = sorted(LUNAR_NEW_YEAR)
    if first.year < known[0] or last.year > known[-1]:
        raise SourceError(
            f"the simulated calendar knows the years {known[0]} to {known[-1]}, not {first} to {last}; choose another end date"
        )
    found: list[Occasion] = []
    for year in range(max(first.year - 1, known[0]), min(last.year + 1, known[-1]) + 1):
        lunar = LUNAR_NEW_YEAR[year]
        found += [
            Occasion(f"new_year_goods_{year}", "年货节", "New Year goods festival", lunar, _NEW_YEAR_GOODS, True),
            Occasion(f"spring_festival_{year}", "春节", "Spring Festival", lunar, _SPRING_FESTIVAL, False),
            Occasion(f"womens_day_{year}", "三八节大促", "Women's Day sale", date(year, 3, 8), _SMALL, True),
            Occasion(f"labour_day_{year}", "劳动节", "Labour Day", date(year, 5, 1), _LABOUR_DAY, False),
            Occasion(f"may_20_{year}", "520礼遇季", "20 May gifts", date(year, 5, 20), _SMALL, True),
            Occasion(
                f"618_{year}",
                "618年中大促",
                "618 mid-year sale",
                date(year, 6, 18),
                _MID_YEAR,
                True,
                ((0, 0), (-18, 0)),
            ),
            Occasion(f"september_9_{year}", "99大促", "9.9 sale", date(year, 9, 9), _SMALL, True),
            Occasion(f"national_day_{year}", "国庆节", "National Day", date(year, 10, 1), _NATIONAL_DAY, False),
            Occasion(
                f"double_11_{year}",
                "双十一",
                "Double 11",
                date(year, 11, 11),
                _DOUBLE_ELEVEN,
                True,
                ((0, 0), (-11, 20)),
            ),
            Occasion(f"double_12_{year}", "双十二", "Double 12", date(year, 12, 12), _DOUBLE_TWELVE, True, ((0, 0),)),
        ]
        found += [
            Occasion(
                f"member_day_{year}_{month:02d}", "会员日", "Members' day", date(year, month, 26), _MEMBER_DAY, True
            )
            for month in (3, 4, 7, 8, 9)
        ]
    touching = (o for o in found if o.starts_on <= last and o.ends_on >= first)
    return tuple(sorted(touching, key=lambda o: (o.on, o.id)))


@dataclass(frozen=True)
class Year:
    """Factors per simulated day, all relative to an ordinary day of the first week.

    `traffic`, `conversion`, `discount`, `lateness`: shape (days,). `hours`: shape (days, channels, 24), each row sums
    to one. `season`: shape (categories, days). `demand`: expected orders, traffic × conversion.
    """

    first: date
    traffic: Array
    conversion: Array
    discount: Array
    lateness: Array
    hours: Array
    season: Array
    occasions: tuple[Occasion, ...]

    @property
    def demand(self) -> Array:
        return np.asarray(self.traffic * self.conversion)


def make_year(first: date, days: int) -> Year:
    """The calendar of `days` days from `first`."""
    dates = [first + timedelta(days=n) for n in range(days)]
    weekday = np.array([d.weekday() for d in dates])
    of_year = np.array([d.timetuple().tm_yday for d in dates]) / 365.25
    traffic = WEEKDAY_TRAFFIC[weekday] * (1 + YEARLY_GROWTH) ** (np.arange(days) / 365.25)
    traffic *= 1 + 0.03 * np.cos(2 * np.pi * (of_year - 0.88))
    conversion, discount, lateness = np.ones(days), np.zeros(days), np.ones(days)
    hours = np.empty((days, len(CHANNELS), 24))
    weekend = weekday >= 5
    hours[:] = np.where(weekend[:, None], _WEEKEND_HOURS, _HOURS)[:, None, :]
    hours[:, CHANNELS.index("live_stream")] = _LIVE_HOURS
    hours /= hours.sum(axis=2, keepdims=True)
    found = occasions(first, dates[-1])
    for occasion in found:
        zero = (occasion.on - first).days
        for stretch in occasion.stretches:
            span = slice(max(zero + stretch.first, 0), max(zero + stretch.last + 1, 0))
            traffic[span] *= stretch.traffic
            conversion[span] *= stretch.conversion
            discount[span] = np.maximum(discount[span], stretch.discount)
            lateness[span] = np.maximum(lateness[span], stretch.lateness)
        for offset, hour in occasion.rush_offsets:
            if 0 <= zero + offset < days:
                rush = hours[zero + offset]
                rush[:, hour] += 0.14
                rush[:, (hour + 1) % 24] += 0.06
                rush /= rush.sum(axis=1, keepdims=True)
    month = of_year * 12 + 0.5
    season = np.stack(
        [1 + c.season_height * np.cos(2 * np.pi * (month - c.season_peak_month) / 12) for c in CATEGORIES]
    )
    return Year(first, traffic, conversion, discount, lateness, hours, season, found)
