"""Since when: known changes, quiet series, and what one-by-one `ruptures` says."""

from __future__ import annotations

import time

import numpy as np
import pytest

from metrics_pipeline.detection.change_point import since

DAYS = 91
NOW = DAYS - 1
WEEK = 1 + 0.25 * np.sin(np.arange(DAYS) * 2 * np.pi / 7)


def counts(level: float, *, n: int = 400, seed: int = 1, **changes: float) -> np.ndarray:
    """(n, 91) overdispersed counts in a weekly wave; `at_60=0.7` multiplies the level from column 60 on."""
    mean = level * WEEK
    for name, factor in changes.items():
        mean[int(name.removeprefix("at_")) :] *= factor
    return np.random.default_rng(seed).negative_binomial(50, 50 / (50 + mean), (n, DAYS)).astype(float)


@pytest.mark.parametrize(("day", "factor"), [(60, 0.7), (75, 1.4), (85, 0.6), (NOW, 0.3)])
def test_a_level_shift_is_dated_to_the_day(day, factor):
    found = since(counts(300, **{f"at_{day}": factor}), NOW)
    assert (found.index >= 0).mean() > 0.85
    assert (np.abs(found.index - day) <= 2).mean() > 0.8
    inside = (found.earliest <= day) & (day <= found.latest)
    assert inside[found.index >= 0].mean() > 0.9
    assert np.nanmedian(found.after / found.before) == pytest.approx(factor, rel=0.3)


def test_the_last_of_several_changes_is_the_answer():
    found = since(counts(300, at_30=0.5, at_70=2.0), NOW)
    assert (np.abs(found.index - 70) <= 1).mean() > 0.9


def test_only_what_is_known_now_counts():
    values = counts(300, at_60=0.4)
    assert (since(values, 59).index < 0).mean() > 0.95
    assert (since(values, 62).index == 60).mean() > 0.9


@pytest.mark.parametrize("level", [0.1, 2, 30, 1000])
def test_a_series_without_a_change_is_left_alone(level):
    found = since(counts(level, seed=3), NOW)
    assert (found.index >= 0).mean() < 0.05
    assert (found.confidence[found.index < 0] == 0).all()
    assert np.isnan(found.before[found.index < 0]).all()


def test_neighbours_that_resemble_each_other_are_no_change():
    noise = np.random.default_rng(4).normal(size=(400, DAYS))
    for day in range(1, DAYS):
        noise[:, day] += 0.5 * noise[:, day - 1]
    assert (since(100 + 5 * noise, NOW).index >= 0).mean() < 0.15


def test_a_single_odd_day_is_no_level_but_the_newest_day_may_be():
    values = counts(300)
    values[:, 70] *= 4
    assert (since(values, NOW).index >= 0).mean() < 0.05
    values[:, NOW] *= 4
    assert (since(values, NOW).index == NOW).mean() > 0.9


def test_what_was_expected_is_no_change():
    level = np.where(np.arange(DAYS) < 50, 200.0, 400.0)
    values = np.random.default_rng(5).poisson(level, (300, DAYS)).astype(float)
    assert (np.abs(since(values, NOW).index - 50) <= 1).mean() > 0.9
    expected = np.broadcast_to(level, values.shape)
    assert (since(values, NOW, expected=expected).index >= 0).mean() < 0.05
    assert (since(values * np.where(np.arange(DAYS) < 80, 1, 0.5), NOW, expected=expected).index == 80).mean() > 0.9


def test_missing_days_short_flat_negative_and_empty_series_have_stated_answers():
    values = np.vstack([counts(300, n=1, at_60=0.4)] * 6)
    values[0, np.arange(DAYS) % 3 == 1] = np.nan
    values[1] = np.nan
    values[2, :-5] = np.nan
    values[3] = 7.0
    values[4] = np.where(np.arange(DAYS) < 60, 7.0, 3.0)
    values[5] = np.where(np.arange(DAYS) < 60, 50.0, -50.0) + np.random.default_rng(1).normal(size=DAYS)
    found = since(values, NOW)
    assert abs(found.index[0] - 60) <= 2
    assert found.index[1:4].tolist() == [-1, -1, -1]
    assert found.index[4:].tolist() == [60, 60]
    with pytest.raises(ValueError, match="column 91"):
        since(values, DAYS)
    assert since(np.empty((0, DAYS)), NOW).index.shape == (0,)
    assert since(values[:, :3], 2).index.tolist() == [-1] * 6


def test_it_is_no_worse_than_ruptures_on_the_values_as_they_are_and_much_faster():
    ruptures = pytest.importorskip("ruptures")
    rng = np.random.default_rng(9)
    truth, rows = [], []
    for _ in range(400):
        mean = np.exp(rng.normal(5, 0.8)) * WEEK
        days = np.sort(rng.choice(np.arange(10, 84), 2, replace=False))
        for day in days:
            mean[day:] *= np.exp(rng.choice([-1, 1]) * rng.uniform(0.3, 0.9))
        truth.append(days[-1])
        rows.append(rng.negative_binomial(40, 40 / (40 + mean)).astype(float))
    values, last = np.array(rows), np.array(truth)
    assert (np.abs(since(values, NOW).index - last) <= 2).mean() > 0.75
    values, last = values[:16], last[:16]  # of the others it is no less slow
    clock = time.process_time()
    ours = since(values, NOW).index
    ours_took = time.process_time() - clock
    clock = time.process_time()
    theirs = []
    for row in values:
        penalty = 3 * np.log(DAYS) * np.median(np.abs(np.diff(row))) ** 2
        ends = ruptures.Pelt(model="l2", min_size=2, jump=1).fit(row).predict(pen=penalty)
        theirs.append(ends[-2] if len(ends) > 1 else -1)
    theirs_took = time.process_time() - clock
    right = [(np.abs(np.array(found) - last) <= 2).mean() for found in (ours, theirs)]
    assert right[0] >= right[1]
    assert ours_took * 5 < theirs_took
