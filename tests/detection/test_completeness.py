"""Data problems of known make-up, and days that are bad but true."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from metrics_pipeline.detection.completeness import VERDICTS, WORDS, Observed, completeness

DAYS, NOW = 70, 69
METRICS = ("sessions", "page_views", "unique_visitors", "orders_placed", "units_sold", "paid_amount")
FAMILIES = ("traffic", "traffic", "traffic", "sales", "sales", "sales")
SLICES = 6


def shop(seed: int = 1, level: float = 4000.0, hourly: bool = False) -> Observed:
    """Six slices of different size in a weekly wave; sales follow traffic."""
    rng = np.random.default_rng(seed)
    week = 1 + 0.25 * np.sin(np.arange(DAYS) * 2 * np.pi / 7)
    size = level * np.linspace(0.5, 2, SLICES)[:, None] * week * np.exp(rng.normal(0, 0.05, (SLICES, DAYS)))
    rate = 0.05 * np.exp(rng.normal(0, 0.03, (SLICES, DAYS)))
    sessions = rng.poisson(size)
    orders = rng.poisson(size * rate)
    values = np.stack(
        [
            sessions,
            rng.poisson(4.1 * sessions),
            rng.poisson(0.8 * sessions),
            orders,
            rng.poisson(1.6 * orders),
            87.5 * orders,
        ]
    ).astype(float)
    hours = None
    if hourly:
        hours = rng.poisson(np.repeat(values[..., None] / 24, 24, axis=3)).astype(float)
    return Observed(METRICS, FAMILIES, values, (True,) * 5 + (False,), hours)  # type: ignore[arg-type]


def verdicts(observed: Observed, **extra) -> list[str]:
    return [VERDICTS[code] for code in completeness(observed, NOW, **extra).verdict]


def changed(observed: Observed, metrics=slice(None), slices=slice(None), factor=1.0) -> Observed:
    values = observed.values.copy()
    values[metrics, slices, NOW] = np.round(values[metrics, slices, NOW] * factor)
    return replace(observed, values=values)


@pytest.mark.parametrize("seed", range(20))
def test_ordinary_days_are_complete(seed):
    assert verdicts(shop(seed)) == ["complete"] * SLICES


@pytest.mark.parametrize("factor", [0.6, 1.9, 3.0])
def test_a_bad_or_busy_day_is_no_data_problem(factor):
    assert verdicts(changed(shop(), factor=factor)) == ["complete"] * SLICES


def test_traffic_that_falls_while_orders_do_not_was_not_counted():
    lost = changed(shop(), slice(0, 3), slice(1, 3), 0.5)
    found = completeness(lost, NOW)
    assert [VERDICTS[code] for code in found.verdict] == ["complete"] + ["tracking_loss"] * 2 + ["complete"] * 3
    assert found.ratio[1] == pytest.approx(0.5, abs=0.1) and found.other[1] == pytest.approx(1, abs=0.2)
    assert found.confidence[1] > 0.99 and found.confidence[0] == 0
    assert found.is_wrong[:, 1].tolist() == [True, False]
    assert "埋点丢失" in found.reason(1, "zh") and "tracking loss: traffic is" in found.reason(1)
    assert verdicts(changed(shop(), slice(3, 6), factor=0.5)) == ["complete"] * SLICES  # orders fall alone: business


def test_traffic_at_twice_its_size_while_orders_are_as_ever_was_counted_twice():
    assert verdicts(changed(shop(), slice(0, 3), slice(1, 2), 2.06))[1] == "double_tracking"
    assert verdicts(changed(shop(), slice(0, 3), slice(1, 2), 1.4))[1] == "complete"


def test_what_is_twice_as_much_and_even_everywhere_was_loaded_twice():
    found = completeness(changed(shop(), slice(3, 6), factor=2.0), NOW)
    assert {VERDICTS[code] for code in found.verdict} == {"duplicate_load"}
    assert (found.counts == 12).all()
    assert found.confidence.min() == pytest.approx(1 - 2**-12)
    assert found.is_wrong[:, 0].tolist() == [False, True]
    sale = changed(shop(), factor=1.0)
    sale.values[:, :, NOW] = np.random.default_rng(2).poisson(sale.values[:, :, NOW] * 2)
    assert set(verdicts(sale)) == {"complete"}


def test_both_families_loaded_twice_are_both_named():
    found = completeness(changed(shop(), factor=2.0), NOW)
    assert {VERDICTS[code] for code in found.verdict} == {"duplicate_load"}
    assert found.is_wrong.all()


def test_hours_without_rows_are_a_partial_load_and_hours_with_zero_are_not():
    observed = shop(hourly=True)
    assert verdicts(observed) == ["complete"] * SLICES
    hours = observed.hours.copy()
    hours[3:, :, NOW, 18:] = np.nan
    values = observed.values.copy()
    values[3:, :, NOW] *= 0.75
    found = completeness(replace(observed, values=values, hours=hours), NOW)
    assert {VERDICTS[code] for code in found.verdict} == {"partial_load"}
    assert found.hours.tolist() == [6] * SLICES
    assert found.ratio[0] == pytest.approx(0.75, abs=0.15)
    assert "6 hours have no rows" in found.reason(0)
    hours[3:, :, NOW, 18:] = 0
    assert set(verdicts(replace(observed, values=values, hours=hours))) == {"complete"}


def test_hours_that_never_have_rows_are_not_missed():
    observed = shop(hourly=True)
    observed.hours[:, :, :, 2:6] = np.nan
    assert verdicts(observed) == ["complete"] * SLICES
    observed.hours[:, 0, NOW] = np.nan  # a day without any row is missing as a whole: no_data says so
    assert verdicts(observed)[0] == "complete"


def test_cold_start_thin_slices_zeros_and_holes_are_unknown_not_wrong():
    young = shop()
    young.values[:, :, : NOW - 20] = np.nan
    assert set(verdicts(young)) == {"unknown"}
    thin = shop(level=1.0)
    assert set(verdicts(thin)) == {"unknown"}
    holes = shop()
    holes.values[:, 0] = 0.0
    holes.values[:, 1] = np.nan
    holes.values[0, 2, NOW] = np.nan
    assert verdicts(holes) == ["unknown", "unknown", *["complete"] * 4]
    only_sales = shop()
    only_sales.values[:3] = np.nan
    assert set(verdicts(only_sales)) == {"complete"}
    with pytest.raises(ValueError, match="do not fit"):
        completeness(shop(), DAYS)


def test_promotion_days_in_the_history_do_not_raise_what_is_expected():
    observed = shop()
    days = [NOW - 7, NOW - 14, NOW - 21, NOW - 28]
    observed.values[:3, :, days] *= 2.5
    observed.values[3:, :, days] *= 2.5
    ordinary = np.ones(DAYS, dtype=bool)
    ordinary[days] = False
    assert verdicts(observed, is_baseline=ordinary) == ["unknown"] * SLICES  # two same weekdays are left
    ordinary[days[2:]] = True
    assert verdicts(observed, is_baseline=ordinary) == ["complete"] * SLICES


def test_many_slices_cost_little():
    observed = shop()
    many = replace(observed, values=np.tile(observed.values, (1, 100, 1)))
    clock = time.process_time()
    completeness(many, NOW)
    assert time.process_time() - clock < 4


def test_every_verdict_has_its_words_in_both_languages():
    assert set(WORDS) == set(VERDICTS)
    assert all(zh and en for zh, en in WORDS.values())
