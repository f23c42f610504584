"""Panels that are not shaped like the model: a multiplicative week, counts wider than Poisson, levels that wander, promotions whose lift differs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.forecasting.days import Days

FIRST = date(2024, 9, 2)


@dataclass(frozen=True)
class Shop:
    values: np.ndarray
    calendar: Days
    promotions: tuple[PromotionDay, ...]


def sale_days(first: date, count: int) -> tuple[PromotionDay, ...]:
    """A sale on the 11th of November and the 18th of June, with a weak week after each."""
    days = [first + timedelta(days=number) for number in range(count)]
    found = []
    for day in days:
        for event, month, on in (("double_11", 11, 11), ("618", 6, 18)):
            position = (day - date(day.year, month, on)).days
            kind = "main" if -1 <= position <= 0 else "after" if 1 <= position <= 6 else None
            if kind:
                found.append(PromotionDay(day, event, event, event, position, kind, "global"))
    return tuple(found)


def wandering_shop(series: int = 60, days: int = 450, ahead: int = 14, seed: int = 5) -> Shop:
    rng = np.random.default_rng(seed)
    count = days + ahead
    promotions = sale_days(FIRST, count)
    calendar = Days.of(promotions, FIRST, count)
    level = np.exp(rng.normal(4.5, 1.0, (series, 1)) + np.cumsum(rng.normal(0, 0.008, (series, count)), axis=1))
    week = 1 + 0.35 * rng.random((series, 7)) * np.sin(np.arange(7) * 0.9)
    lift = np.ones(count)
    for number, kind in enumerate(calendar.kind):
        lift[number] = {0: 2.4, 2: 0.8}.get(int(kind), 1.0)
    mean = level * week[:, np.arange(count) % 7] * lift ** rng.normal(1, 0.12, (series, 1))
    values = rng.poisson(mean * rng.gamma(40, 1 / 40, mean.shape)).astype(float)
    values[rng.random(values.shape) < 0.01] = np.nan
    return Shop(values, calendar, promotions)
