"""Promotions nobody entered, found in series of known make-up."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from metrics_pipeline.detection.inferred import infer, recurring

FIRST = date(2025, 1, 1)
DAYS = 400
CATEGORY = (("category", ("a",)),)


def series(n: int = 24, seed: int = 1) -> np.ndarray:
    """(n, 400) counts of different size in a weekly wave, with a day that all share."""
    rng = np.random.default_rng(seed)
    week = 1 + 0.3 * np.sin(np.arange(DAYS) * 2 * np.pi / 7)
    shared = np.exp(rng.normal(0, 0.04, DAYS))
    level = np.exp(rng.uniform(4, 7, (n, 1)))
    return rng.poisson(level * week * shared * np.exp(rng.normal(0, 0.08, (n, DAYS)))).astype(float)


def column(on: date) -> int:
    return (on - FIRST).days


def looked(values, known=(), groups=None):
    days = np.zeros(DAYS, dtype=bool)
    for on in known:
        days[column(on)] = True
    return infer(values, FIRST, days, groups or {(): range(len(values))})


def test_quiet_series_have_no_promotion():
    assert looked(series()) == []


def test_a_promotion_is_found_with_its_dips_unless_the_calendar_has_it():
    values, on = series(), date(2025, 9, 16)
    at = column(on)
    values[:, at - 1] *= 0.85
    values[:, at] *= 2.2
    values[:, at + 1] *= 1.5
    values[:, at + 2 : at + 5] *= 0.85
    (found,) = looked(values)
    assert (found.first, found.peak, found.last) == (on, on, on + timedelta(days=1))
    assert found.agreeing > 0.9 * found.series == 0.9 * 24
    assert 1.9 < found.lift < 2.5
    assert found.phases == {"before": (-1, -1), "main": (0, 1), "after": (2, 4)}
    assert looked(values, known=[on, on + timedelta(days=1)]) == []


def test_what_stays_or_hits_few_or_is_loaded_twice_is_no_promotion():
    shift, few, twice, outage = (series() for _ in range(4))
    shift[:, 250:] *= 1.5
    few[:8, 250] *= 3
    twice[:, 250] *= 2
    twice[:, 250] = twice[:, 243] * 2
    exact = (
        np.tile(np.tile([100.0, 120, 90, 80, 100, 140, 150], DAYS // 7 + 1)[:DAYS], (24, 1)) * np.arange(1, 25)[:, None]
    )
    exact[:, 250] *= 2
    outage[:, 250] *= 0.1
    for values in (shift, few, exact, outage):
        assert looked(values) == []


def test_what_had_been_held_up_the_day_before_is_no_promotion_and_thin_series_say_nothing():
    values = series()
    values[:, 249] *= 0.3
    values[:, 250] *= 1.8
    assert looked(values) == []
    rng = np.random.default_rng(6)
    thin = rng.poisson(2.0, (200, DAYS)).astype(float)
    thick = series()
    thick[:, 250] *= 1.8
    (found,) = looked(np.vstack([thick, thin]), groups={(): range(224)})
    assert (found.peak, found.series) == (FIRST + timedelta(days=250), 24)


def test_payments_that_had_been_held_up_are_no_promotion_though_other_series_went_on():
    values, on = series(), date(2025, 9, 16)
    at = column(on)
    values[:11, at - 1] *= 0.45
    values[:15, at] *= 2.3
    assert looked(values) == []


def test_a_promotion_of_one_category_is_of_that_category():
    values = series(30)
    values[:6, 250] *= 2
    (found,) = looked(values, groups={(): range(30), CATEGORY: range(6), (("category", ("b",)),): range(6, 12)})
    assert (found.affects, found.series) == (CATEGORY, 6)
    values[:, 300] *= 2
    both = looked(values, groups={(): range(30), CATEGORY: range(6)})
    assert [one.affects for one in both] == [CATEGORY, ()]


def test_days_that_return_become_one_proposal():
    values = series()
    monthly = [date(2025, month, 26) for month in (3, 4, 5, 6, 7)]
    for on in [*monthly, date(2025, 2, 9), date(2026, 1, 14)]:
        values[:, column(on)] *= 1.8
    proposals = {one.event: one for one in recurring(looked(values))}
    assert proposals["monthly_26"].falls_on == ("monthly 26",)
    assert [one.peak for one in proposals["monthly_26"].seen] == monthly
    assert set(proposals) == {"monthly_26", "sale_2025_02_09", "sale_2026_01_14"}
    assert "24 个序列中" in proposals["monthly_26"].evidence[0]
    assert "of 24 series rose together" in proposals["monthly_26"].evidence[1]
    assert proposals["monthly_26"].evidence[1].startswith("5 times (")
    assert proposals["sale_2025_02_09"].evidence[1].startswith("once (")


def test_a_day_of_every_year_and_months_with_gaps():
    values = np.hstack([series(seed=2), series(seed=2)])
    first = date(2024, 1, 1)
    for on in (date(2024, 3, 8), date(2025, 3, 8), date(2024, 3, 26), date(2024, 6, 26), date(2024, 11, 26)):
        values[:, (on - first).days] *= 2
    found = infer(values, first, np.zeros(values.shape[1], dtype=bool), {(): range(len(values))})
    proposals = {one.event: one.falls_on for one in recurring(found)}
    assert proposals == {"yearly_03_08": ("03-08",), "monthly_26": ("03-26", "06-26", "11-26")}


def test_holes_zeros_and_few_series_are_no_error():
    values = series(4)
    values[:, 250] *= 3
    assert looked(values) == []  # four series are no peers
    values = series()
    values[:, 250] *= 2
    values[3] = np.nan
    values[4] = 0.0
    values[:, 100:110] = np.nan
    assert [one.peak for one in looked(values)] == [FIRST + timedelta(days=250)]
    assert infer(np.empty((0, 0)), FIRST, np.zeros(0, dtype=bool), {(): []}) == []
