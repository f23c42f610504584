"""The calendar-aware baseline and drift, on series whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metrics_pipeline.detection.baseline import Baseline, point_surprise
from metrics_pipeline.detection.calibration import tails
from metrics_pipeline.detection.counts import relative_noise
from metrics_pipeline.detection.drift import Drift
from metrics_pipeline.detection.interface import NO_GROUP, PHASES, REASONS, Calendar, Panel
from metrics_pipeline.detection.tracking import walk

WEEK = np.array([1.0, 0.95, 0.9, 1.0, 1.1, 1.3, 1.2])
MAIN = PHASES.index("main")


def make_panel(n=30, days=200, mean=300.0, seed=0, peers=True):
    random = np.random.default_rng(seed)
    values = random.poisson(mean * WEEK[np.arange(days) % 7], (n, days)).astype(float)
    return Panel(values, np.arange(days) % 7, np.full(n, 0 if peers else NO_GROUP))


def changed(panel, rows, columns, factor):
    values = panel.numerator.copy()
    values[rows, columns] = np.round(values[rows, columns] * factor)
    return replace(panel, numerator=values)


def judge(panel, column=None, calendar=None, detector=None):
    column = panel.n_periods - 1 if column is None else column
    calendar = calendar or Calendar.empty(panel.n_series, panel.n_periods)
    return (detector or Baseline()).judge(panel, calendar, slice(column, column + 1))


def test_a_fall_of_one_series_is_rare_and_its_peers_are_not():
    found = judge(changed(make_panel(), [3], [-1], 0.6))
    assert found.p_value[3, 0] < 1e-4
    assert found.p_value[[0, 1, 2, 4, 5], 0].min() > 0.01
    assert found.expected[3, 0] == pytest.approx(300 * WEEK[199 % 7], rel=0.06)


def test_the_band_is_where_the_p_value_is_its_level():
    panel = make_panel(seed=4)
    first = judge(panel)
    at_upper = panel.numerator.copy()
    at_upper[7, -1] = first.upper[7, 0]
    again = judge(replace(panel, numerator=at_upper))
    assert again.p_value[7, 0] == pytest.approx(1 / 30, rel=0.05)


def test_a_sale_that_nobody_entered_is_forgiven_by_the_peers():
    column = 150
    together = judge(changed(make_panel(), slice(None), [column], 1.8), column)
    assert (together.p_value < 1e-3).mean() < 0.1
    alone = judge(changed(make_panel(peers=False), slice(None), [column], 1.8), column)
    assert (alone.p_value < 1e-3).all()


def test_a_group_that_falls_together_is_not_forgiven():
    found = judge(changed(make_panel(), slice(None), [-1], 0.6))
    assert (found.p_value < 1e-3).mean() > 0.9


def make_hours(n=20, weeks=8, mean=60.0, seed=1, fat=0.0):
    random = np.random.default_rng(seed)
    hours = np.arange(24 * 7 * weeks)
    expected = mean * np.maximum(1.05 + np.sin(2 * np.pi * (hours % 24 - 9) / 24), 0.05)
    values = random.poisson(expected * np.exp(fat * random.standard_t(5, (n, len(hours))))).astype(float)
    return Panel(values, hours % 168, np.zeros(n, dtype=np.int64)), expected


def test_the_hours_of_a_day_are_learned_and_not_forgiven_so_a_group_that_falls_for_an_hour_is_seen():
    panel, expected = make_hours()
    column = panel.n_periods - 10
    assert judge(panel, column).expected.mean() == pytest.approx(expected[column], rel=0.05)
    assert (judge(changed(panel, slice(None), [column], 0.5), column).p_value < 1e-4).all()


def test_an_hour_that_began_within_a_sale_is_known_some_weeks_later():
    panel, _ = make_hours()
    noon = 24 * 3 + 12
    busy = changed(panel, slice(None), [noon, noon + 1], 3.0)
    later = noon + 168 * 5
    assert (judge(busy, later).p_value < 1e-3).mean() < 0.05


def test_a_moderate_fall_of_some_hours_is_seen_as_a_drift_while_it_lasts():
    panel, _ = make_hours(mean=40.0)
    begin = panel.n_periods - 16
    fallen = changed(panel, [3], slice(begin, begin + 6), 0.6)
    assert judge(fallen, begin + 5, detector=Drift()).p_value[3, 0] < 1e-3
    assert (judge(fallen, begin + 5, detector=Drift()).p_value[4:] > 1e-3).all()


@pytest.mark.parametrize("seed", range(4))
def test_a_small_group_of_rare_shares_that_stands_still_at_times_is_never_expected_beyond_all_bounds(seed):
    random, hours = np.random.default_rng(seed), np.arange(24 * 7 * 12)
    day = np.maximum(1.05 + np.sin(2 * np.pi * (hours % 24 - 9) / 24), 0.05)
    placed = random.poisson(np.array([6.0, 0.4, 0.5, 0.3])[:, None] * day).astype(float)
    approved = random.poisson(np.roll(placed, 1, axis=1) * 0.8).astype(float)
    approved[:, hours // 24 % 17 == 5] = 0
    approved[placed == 0] = np.nan
    panel = Panel(approved, hours % 168, np.zeros(4, dtype=np.int64), np.where(placed > 0, placed, np.nan))
    seen = walk(panel, Calendar.empty(4, len(hours)), slice(1500, len(hours)))
    assert np.nanmax(seen.expected) < 2 * np.nanmax(panel.value)


def test_an_event_is_judged_by_its_last_time():
    panel, nothing = make_panel(n=1, days=420, peers=False), np.zeros((1, 420), dtype=np.int64)
    event, phase = nothing - 1, nothing.copy()
    event[0, [50, 410]], phase[0, [50, 410]] = 7, MAIN
    calendar = Calendar(event, nothing, phase, np.zeros(1, dtype=np.int64))
    as_last_time = changed(panel, [0], [50, 410], 2.0)
    assert judge(as_last_time, 410, calendar).p_value[0, 0] > 0.05
    assert judge(as_last_time, 410).p_value[0, 0] < 1e-3


def test_an_event_before_the_first_value_teaches_nothing_and_a_first_one_is_judged_with_doubt():
    panel, nothing = make_panel(n=1, days=420, peers=False), np.zeros((1, 420), dtype=np.int64)
    event, phase = nothing - 1, nothing.copy()
    event[0, [50, 410]], phase[0, [50, 410]] = 7, MAIN
    calendar = Calendar(event, nothing, phase, np.zeros(1, dtype=np.int64))
    values = changed(panel, [0], [410], 2.5).numerator
    values[0, :200] = np.nan
    found = judge(replace(panel, numerator=values), 410, calendar)
    assert found.p_value[0, 0] > 0.01
    assert found.upper[0, 0] > 2 * found.expected[0, 0]


def test_one_slice_whose_promotion_does_not_start_stands_out_of_its_group():
    panel, nothing = make_panel(days=420), np.zeros((1, 420), dtype=np.int64)
    event, phase = nothing - 1, nothing.copy()
    sales = [*range(50, 400, 25), 410]
    event[0, sales], phase[0, sales] = 7, MAIN
    calendar = Calendar(event, nothing, phase, np.zeros(30, dtype=np.int64))
    values = changed(panel, slice(None), sales, 2.0).numerator
    values[5, 410] = panel.numerator[5, 410]
    found = judge(replace(panel, numerator=values), 410, calendar)
    assert int(np.argmin(found.p_value)) == 5
    assert found.p_value[5, 0] < 1e-3


def test_nothing_later_changes_a_judgement():
    panel = changed(make_panel(days=160), [2], [140], 0.5)
    early = judge(replace(panel, numerator=panel.numerator[:, :150], slot=panel.slot[:150]), 149)
    late = judge(panel, 149)
    assert np.allclose(early.p_value, late.p_value, rtol=1e-4)
    seen = point_surprise(panel, walk(panel, Calendar.empty(30, 160), slice(120, 160)))
    assert np.allclose(np.exp(-seen.value[:, 29]), late.p_value[:, 0], rtol=1e-3)


def test_a_series_does_not_depend_on_other_groups():
    one, other = make_panel(seed=1), make_panel(seed=2, mean=20)
    both = Panel(np.vstack([one.numerator, other.numerator]), one.slot, np.concatenate([one.group, other.group + 1]))
    assert np.allclose(judge(both).p_value[:30], judge(one).p_value, rtol=1e-3)


def test_what_is_excluded_teaches_nothing():
    calm = make_panel(days=120)
    broken = changed(calm, [0], slice(90, 119), 0.3)
    excluded = np.zeros(calm.numerator.shape, dtype=bool)
    excluded[0, 90:119] = True
    masked = judge(replace(broken, excluded=excluded))
    assert masked.expected[0, 0] == pytest.approx(judge(calm).expected[0, 0], rel=0.03)
    assert judge(broken).expected[0, 0] < 0.8 * masked.expected[0, 0]


def test_one_incident_hardly_moves_the_expectation():
    calm = make_panel(days=120, peers=False)
    found = judge(changed(calm, [0], [117], 0.1))
    assert found.expected[0, 0] == pytest.approx(judge(calm).expected[0, 0], rel=0.03)


def test_cold_start_pause_and_missing_have_their_reasons():
    values = make_panel(n=4, days=120).numerator
    values[0, :100] = np.nan
    values[1, 80:118] = np.nan
    values[2, -1] = np.nan
    panel = Panel(values, np.arange(120) % 7, np.zeros(4, dtype=np.int64))
    words = [REASONS[code] for code in judge(panel).reason[:, 0]]
    assert words == ["no_baseline", "paused", "no_value", "judged"]
    assert np.isnan(judge(panel).p_value[:3]).all()


def test_a_series_that_never_moves_is_not_surprised_by_a_hundredth():
    panel = make_panel(n=3, peers=False)
    still = replace(panel, numerator=np.full(panel.numerator.shape, 10_000.0))
    still.numerator[:, -1] = [10_100.0, 9_950.0, 7_000.0]
    found = judge(still)
    assert np.isfinite(found.p_value).all()
    assert found.p_value[:2, 0].min() > 0.05
    assert found.p_value[2, 0] < 1e-4


def test_a_new_level_is_alarming_for_some_days_and_ordinary_after_some_weeks():
    shifted = changed(make_panel(days=240), [3], slice(190, 240), 0.6)
    p = np.array([judge(shifted, day).p_value[3, 0] for day in range(190, 235)])
    assert (p[:5] < 1e-3).all()
    assert np.median(p[-14:]) > 0.05
    assert (p[-14:] > 1e-3).all()


def test_a_new_slice_beside_old_ones_is_judged_after_four_weeks_and_not_before():
    panel = make_panel(days=120)
    panel.numerator[5, :80] = np.nan
    assert REASONS[judge(panel, 80 + 27).reason[5, 0]] == "no_baseline"
    fallen = changed(panel, [5], [80 + 30], 0.3)
    assert judge(fallen, 80 + 30).p_value[5, 0] < 1e-3


def test_a_series_that_was_negative_has_no_baseline():
    values = make_panel(n=2, days=100).numerator
    values[0, 40] = -5.0
    found = judge(Panel(values, np.arange(100) % 7, np.zeros(2, dtype=np.int64)))
    assert [REASONS[code] for code in found.reason[:, 0]] == ["no_baseline", "judged"]


def test_zeros_of_a_rare_count_are_no_alarm_but_a_burst_is():
    panel = make_panel(n=20, days=300, mean=0.2, peers=False)
    quiet = replace(panel, numerator=np.concatenate([panel.numerator[:, :-1], np.zeros((20, 1))], axis=1))
    assert judge(quiet).p_value.min() > 0.05
    burst = changed(replace(quiet, numerator=quiet.numerator + 0.0), [0], [-1], 1)
    burst.numerator[0, -1] = 12
    assert judge(burst).p_value[0, 0] < 1e-3


def test_a_ratio_is_judged_with_its_denominator():
    random = np.random.default_rng(3)
    exposure = np.vstack([np.full((10, 200), 40.0), np.full((10, 200), 20_000.0)])
    events = random.binomial(exposure.astype(int), 0.1).astype(float)
    events[:, -1] = np.round(exposure[:, -1] * 0.14)
    panel = Panel(events, np.arange(200) % 7, np.full(20, NO_GROUP), exposure)
    p = judge(panel).p_value[:, 0]
    assert p[:10].min() > 0.01
    assert p[10:].max() < 1e-3


def test_drift_is_seen_both_ways_before_any_day_stands_out():
    panel = make_panel(days=200, mean=400)
    slope = np.exp(np.arange(21) * 0.012)
    values = panel.numerator.copy()
    values[0, -21:] = np.round(values[0, -21:] * slope)
    values[1, -21:] = np.round(values[1, -21:] / slope)
    found = Drift().judge(replace(panel, numerator=values), Calendar.empty(30, 200), slice(185, 200))
    assert found.p_value[[0, 1]].min(axis=1).max() < 1e-3
    assert np.median(found.p_value[2:]) > 0.05
    assert np.isnan(found.upper).all()


def test_a_budget_is_kept_where_nothing_is_wrong():
    panel = make_panel(n=150, days=260, seed=8)
    seen = walk(panel, Calendar.empty(150, 260), slice(140, 260))
    rate = np.mean(np.exp(-point_surprise(panel, seen).value) < 1 / 30)
    assert 0.2 / 30 < rate < 1.1 / 30


def test_surprise_and_size_are_inverse():
    random = np.random.default_rng(0)
    tail = tails(random.standard_t(5, (40, 300)), np.zeros(40, dtype=np.int64))
    for wanted in (0.5, 1.5, 3.4, 8.0):
        assert tail.surprise(tail.size_at(wanted)) == pytest.approx(np.full(40, wanted), rel=1e-6)


def test_past_incidents_do_not_make_the_tail_fat():
    random = np.random.default_rng(1)
    past = random.normal(0, 1, (50, 300))
    hurt = past.copy()
    hurt[:, ::60] = 15
    group = np.full(50, NO_GROUP)
    ratio = tails(hurt, group).size_at(8.0) / tails(past, group).size_at(8.0)
    assert ratio.max() < 1.6


def test_small_counts_are_noisier_than_large_ones_and_shares_less():
    whole, no = np.ones(3, dtype=bool), np.zeros(3, dtype=bool)
    noise = relative_noise(
        np.array([1.0, 100.0, 0.5]), np.array([1.0, 1.0, 100.0]), whole, np.array([False, False, True])
    )
    assert noise.tolist() == pytest.approx([1.0, 0.01, 0.01])
    assert relative_noise(np.array([5.0]), np.array([25.0]), no[:1], no[:1])[0] == pytest.approx(0.04)
