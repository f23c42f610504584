"""One slice's metrics together: known combinations, their contributions, and when there is no opinion."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from metrics_pipeline.detection.isolation import Opinion, isolation
from metrics_pipeline.detection.same_weekday import HISTORY_DAYS, expected

DAYS = 126
NOW = DAYS - 1
SLICES = 8
METRICS = ("sessions", "page_views", "orders", "refunds", "complaints")


def shop(seed: int = 1, slices: int = SLICES, days: int = DAYS) -> np.ndarray:
    """(5, slices, days): counts that move together with the traffic of the day."""
    rng = np.random.default_rng(seed)
    week = 1 + 0.25 * np.sin(np.arange(days) * 2 * np.pi / 7)
    traffic = 5000 * np.linspace(0.5, 3, slices)[:, None] * week * np.exp(rng.normal(0, 0.15, (slices, days)))
    means = [traffic, 4 * traffic, 0.05 * traffic, 0.006 * traffic, 0.004 * traffic]
    return np.stack([rng.poisson(mean) for mean in means]).astype(float)


def moved(values: np.ndarray, at: int, **factors: float) -> np.ndarray:
    values = values.copy()
    for name, factor in factors.items():
        values[METRICS.index(name), at, NOW] *= factor
    return values


@pytest.fixture(scope="module")
def opinions() -> dict[str, Opinion]:
    """Slice 3 is odd in a different way in each; the forests are made once."""
    ordinary = shop()
    return {
        "ordinary": isolation(ordinary, NOW),
        "apart": isolation(moved(ordinary, 3, sessions=1.4, page_views=1.4, orders=0.6), NOW),
        "alone": isolation(moved(ordinary, 3, refunds=3.0), NOW),
    }


def test_metrics_that_do_not_go_together_are_rare_and_named(opinions):
    found = opinions["apart"]
    assert found.p_value[3] < 0.01
    assert found.p_value.argmin() == 3
    assert found.contribution[:, 3].argmax() == METRICS.index("orders")
    assert found.contribution[:, 3].sum() == pytest.approx(1)
    assert found.distance[2, 3] < -1 and found.distance[0, 3] > 0.8


def test_one_odd_metric_carries_it_alone(opinions):
    found = opinions["alone"]
    assert found.p_value[3] < 0.01
    assert found.contribution[:, 3].argmax() == METRICS.index("refunds")
    assert found.contribution[METRICS.index("refunds"), 3] > 0.5


def test_ordinary_days_are_as_rare_as_they_should_be(opinions):
    assert opinions["ordinary"].p_value.min() > 0.01
    many = isolation(shop(seed=5, slices=150), NOW).p_value
    assert 0.02 < (many < 0.05).mean() < 0.12
    assert (many < 0.001).mean() < 0.02


def test_the_same_input_gives_the_same_opinion(opinions):
    again = isolation(shop(), NOW)
    assert np.array_equal(again.p_value, opinions["ordinary"].p_value)


def test_few_days_few_rows_or_one_metric_are_no_opinion():
    assert np.isnan(isolation(shop(days=45), 44).p_value).all()
    assert np.isnan(isolation(shop(slices=1, days=80), 79).p_value).all()
    values = shop()
    values[1:, 2, NOW] = np.nan
    values[:, 4, : NOW - 40] = np.nan
    values[:, 5] = 0.0
    found = isolation(values, NOW)
    assert np.isnan(found.p_value[[2, 4, 5]]).all() and np.isnan(found.contribution[:, 2]).all()
    assert np.isfinite(found.p_value[[0, 1, 3, 6, 7]]).all()
    with pytest.raises(ValueError, match="column 126"):
        isolation(values, DAYS)


def test_a_metric_that_is_mostly_zero_contributes_nothing():
    values = shop()
    values[4] = np.random.default_rng(3).poisson(0.3, values[4].shape)
    values[4, 3, NOW] = 6
    found = isolation(values, NOW)
    assert (found.contribution[4] == 0).all() and np.isfinite(found.p_value).all()


def test_promotions_are_not_learned_from():
    values, ordinary = shop(), np.ones(DAYS, dtype=bool)
    ordinary[90:97] = False
    values[:, :, 90:97] *= np.array([3, 3, 6, 1, 1])[:, None, None]
    values[:, :, NOW] *= np.array([3, 3, 6, 1, 1])[:, None]
    assert isolation(values, NOW, is_baseline=ordinary).p_value.max() < 0.02


def test_scikit_learn_is_not_needed_to_import_it():
    import subprocess

    code = "import sys, metrics_pipeline.detection.isolation; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_expectation_follows_weekday_and_level():
    week = np.array([100.0, 110, 120, 130, 150, 200, 180])
    values = np.tile(week, 20)
    assert expected(values)[-7:] == pytest.approx(week)
    grown = values.copy()
    grown[-21:] *= 1.5
    assert expected(grown)[-1] == pytest.approx(180 * 1.5, rel=0.01)
    assert np.isnan(expected(values[:20])).all()
    holes = values.copy()
    holes[-8] = holes[-15] = np.nan
    assert expected(holes)[-1] == pytest.approx(180)
    assert HISTORY_DAYS == 56
