from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from metrics_pipeline.forecasting import boosting
from metrics_pipeline.forecasting.days import KINDS, Days
from metrics_pipeline.forecasting.ets import LEVELS, forecast
from metrics_pipeline.forecasting.smoothing import smooth

sys.path.insert(0, str(Path(__file__).parent))
from series import FIRST, sale_days, wandering_shop

LOW, MIDDLE, HIGH = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))
AHEAD = 14


@pytest.fixture(scope="module")
def shop():
    return wandering_shop()


def inside(made, actual):
    made = made.quantiles[:, : actual.shape[1]]
    held = (actual >= made[:, :, LOW]) & (actual <= made[:, :, HIGH])
    return held[np.isfinite(actual)].mean()


def test_the_interval_holds_about_as_often_as_it_says(shop):
    found = []
    for days in range(380, 451, 14):
        made = forecast(shop.values[:, :days], shop.calendar.until(days + AHEAD), AHEAD)
        found.append(inside(made, shop.values[:, days : days + AHEAD]))
    assert 0.72 <= np.mean(found) <= 0.88


def test_a_sale_seen_last_year_is_expected_this_year_and_the_dip_after_it(shop):
    days = int(np.flatnonzero(shop.calendar.kind == 0)[-2])  # the evening before the second 11-10
    made = forecast(shop.values[:, :days], shop.calendar.until(days + 9), 9)
    without = forecast(shop.values[:, :days], Days.ordinary(FIRST, days + 9), 9)
    actual = shop.values[:, days : days + 9]
    of_day = np.nansum(made.median, axis=0) / np.nansum(actual, axis=0)
    assert np.all(np.abs(of_day - 1) < 0.25)
    assert np.nanmean(np.abs(actual - made.median)) < 0.5 * np.nanmean(np.abs(actual - without.median))
    assert inside(made, actual[:, :2]) > 0.6


def test_a_sale_that_doubles_everything_is_less_certain_than_one_that_adds_a_tenth():
    days = 830
    calendar = Days.of(sale_days(FIRST, days), FIRST, days)
    is_main = calendar.kind == KINDS.index("main")
    last = int(np.flatnonzero(is_main)[-1])

    def width(lift):
        mean = np.broadcast_to(400 * np.where(is_main, lift, 1.0), (40, days))
        values = np.random.default_rng(2).poisson(mean).astype(float)
        made = forecast(values[:, : last - 3], calendar, AHEAD).quantiles[:, 3]
        return float(np.median(np.log(made[:, HIGH] / made[:, LOW])))

    assert width(2.5) > 2 * width(1.1)


def test_the_future_is_not_looked_at(shop):
    days = 400
    changed = shop.values.copy()
    changed[:, days:] *= 100
    one, other = (forecast(values[:, :days], shop.calendar.until(days + 7), 7) for values in (shop.values, changed))
    assert np.array_equal(one.quantiles, other.quantiles, equal_nan=True)


def test_quantiles_rise_and_counts_are_not_negative(shop):
    made = forecast(shop.values[:, :300], shop.calendar.until(314), AHEAD)
    assert (np.diff(made.quantiles, axis=2) >= 0).all()
    assert (made.quantiles >= 0).all()


def test_paths_agree_with_the_quantiles(shop):
    made = forecast(shop.values[:, :340], shop.calendar.until(347), 7)
    drawn = np.quantile(made.paths(count=2000), [0.1, 0.9], axis=1)
    thick = made.median[:, 0] > 20
    assert np.median(drawn[0, thick] / made.quantiles[thick, :, LOW]) == pytest.approx(1, abs=0.06)
    assert np.median(drawn[1, thick] / made.quantiles[thick, :, HIGH]) == pytest.approx(1, abs=0.06)


def test_a_series_without_enough_or_recent_values_has_no_forecast(shop):
    values = shop.values[:3, :200].copy()
    values[0, :-20] = np.nan
    values[1, -20:] = np.nan
    made = forecast(values, shop.calendar.until(207), 7)
    assert np.isnan(made.quantiles[:2]).all() and np.isfinite(made.quantiles[2]).all()


@pytest.mark.parametrize("shape", ["constant", "zeros", "negative", "sparse", "short", "one_value"])
def test_strange_series_have_finite_forecasts_or_none(shape):
    rng = np.random.default_rng(3)
    count = {"short": 30, "one_value": 1}.get(shape, 120)
    series = {
        "constant": np.full(count, 100.0),
        "zeros": np.zeros(count),
        "negative": rng.normal(-20, 30, count),
        "sparse": (rng.random(count) < 0.1).astype(float),
        "short": rng.poisson(30, count).astype(float),
        "one_value": np.array([5.0]),
    }[shape]
    made = forecast(series[None, :], Days.ordinary(FIRST, count + 7), 7)
    if shape == "one_value":
        assert np.isnan(made.quantiles).all()
        return
    assert np.isfinite(made.quantiles).all() and np.isfinite(made.mean).all()
    if shape in ("constant", "zeros"):
        assert made.median == pytest.approx(series[0])
    if shape == "negative":
        assert made.quantiles[0, 0, LOW] < -20 < made.quantiles[0, 0, HIGH]


def test_smoothing_of_many_series_is_smoothing_of_each(shop):
    scaled = np.log(shop.values[:8, :200] + 0.5)
    together = smooth(scaled)
    one = 3
    alpha, gamma = together.alpha[one], together.gamma[one]
    for day in range(7, 200):
        level_now = together.level[one, day - 1]
        expected = level_now + together.season[one, day - 7]
        error = scaled[one, day] - expected if np.isfinite(scaled[one, day]) else 0.0
        step = together.level[one, day] - level_now
        assert abs(step) <= abs(alpha * error) + 1e-9
        assert together.season[one, day] - together.season[one, day - 7] == pytest.approx(
            gamma * step / alpha if alpha else 0, abs=1e-9
        )


def test_it_is_as_good_as_the_reference_of_its_kind(shop):
    """statsforecast's AutoETS(model="ANA") fits the same model one series at a time."""
    reference = pytest.importorskip("statsforecast.models")
    days, series = 260, np.flatnonzero(np.nanmean(shop.values, axis=1) > 30)[:6]
    values = shop.values[series]
    calendar = Days.ordinary(FIRST, days + AHEAD)
    made = forecast(values[:, :days], calendar, AHEAD).median
    ours, theirs = [], []
    for row, one in enumerate(values):
        known = np.log(np.where(np.isfinite(one[:days]), one[:days], np.nanmedian(one[:days])) + 0.5)
        expected = np.exp(reference.AutoETS(season_length=7, model="ANA").forecast(known, h=AHEAD)["mean"]) - 0.5
        actual = one[days : days + AHEAD]
        ours.append(np.nanmean(np.abs(actual - made[row])) / np.nanmean(actual))
        theirs.append(np.nanmean(np.abs(actual - expected)) / np.nanmean(actual))
    assert np.mean(ours) <= 1.15 * np.mean(theirs)


def test_the_global_model_learns_what_series_have_in_common():
    """After a bad week the next one stays bad, in every series: a single one cannot tell that from noise."""
    rng = np.random.default_rng(8)
    series, days = 60, 260
    slow = np.zeros((series, days + 7))
    for day in range(1, days + 7):
        slow[:, day] = 0.9 * slow[:, day - 1] + rng.normal(0, 0.12, series)
    values = np.exp(5 + slow + rng.normal(0, 0.1, slow.shape))
    calendar = Days.ordinary(FIRST, days + 7)
    errors = {}
    for name, model in (("ets", forecast), ("boosted", boosting.forecast)):
        gaps, held = [], []
        for cut in (days - 21, days - 10, days):
            made = model(values[:, :cut], calendar.until(cut + 7), 7)
            gaps.append(np.abs(np.log(values[:, cut : cut + 7] / made.median)).mean())
            held.append(inside(made, values[:, cut : cut + 7]))
        errors[name] = np.mean(gaps)
        assert 0.7 <= np.mean(held) <= 0.9
    assert errors["boosted"] < 0.98 * errors["ets"]


def test_two_spikes_of_a_series_that_never_moved_do_not_become_its_mean():
    values = np.full((1, 100), 1000.0)
    values[0, [40, 70]] = 3000.0
    made = forecast(values, Days.ordinary(FIRST, 107), 7)
    assert np.abs(made.mean / 1000.0 - 1.0).max() < 0.2
