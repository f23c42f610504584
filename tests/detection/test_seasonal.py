"""The band on noise alone: whatever the volume, a score is a score."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import NOW, Shop, day, make_rule

from metrics_pipeline.rules.evaluate import evaluate

DAYS, SLICES = 120, 40
RHYTHM = np.array([0.9, 0.92, 0.95, 1.0, 1.05, 1.2, 1.1])


def scores(shop: Shop, folder: Path, metric: str) -> np.ndarray:
    rule = make_rule(metric=metric, by=["region"], expr="band(seasonal)", yellow_if="outside 4")
    published = shop.publish(folder)
    frame = evaluate(published, [rule], day(70), day(0) + timedelta(days=DAYS), evaluated_at=NOW, run_id="null").frame()
    return frame["observed"].dropna().to_numpy()


@pytest.mark.parametrize("mean", [0.5, 5.0, 50.0, 2000.0])
def test_counts_without_incidents_stay_in_the_band(tmp_path, mean):
    rng = np.random.default_rng(int(mean * 10))
    shop = Shop()
    for n in range(SLICES):
        counts = rng.poisson(mean * RHYTHM[np.arange(DAYS) % 7]).astype(float)
        shop.add("orders_paid", counts.tolist(), dimension="region", member=f"r{n}")
    found = scores(shop, tmp_path, "orders_paid")
    assert len(found) == SLICES * (DAYS - 70)
    assert np.mean(np.abs(found) > 4) <= 0.002
    assert 0.4 < np.std(found) < 1.4


@pytest.mark.parametrize(("rate", "orders"), [(0.05, 20), (0.05, 1000), (0.95, 30), (0.95, 1000)])
def test_shares_without_incidents_stay_in_the_band(tmp_path, rate, orders):
    rng = np.random.default_rng(orders)
    shop = Shop()
    for n in range(SLICES):
        sizes = rng.poisson(orders, DAYS) + 1
        hits = rng.binomial(sizes, rate)
        pairs = [(float(hit), float(size)) for hit, size in zip(hits, sizes, strict=True)]
        shop.add("refund_rate", pairs, dimension="region", member=f"r{n}")
    found = scores(shop, tmp_path, "refund_rate")
    assert np.mean(np.abs(found) > 4) <= 0.002
    assert 0.3 < np.std(found) < 1.5


def test_rare_events_per_exposure_have_the_noise_of_counts(tmp_path):
    """Complaints per order: not a share (a day may have more complaints than orders), and on some weekdays almost none."""
    rng = np.random.default_rng(4)
    shop = Shop()
    for n in range(SLICES):
        orders = rng.poisson(90, DAYS) + 1
        orders[40] = 2
        complaints = rng.poisson(orders * np.where(np.arange(DAYS) % 7 == 0, 0.004, 0.12))
        complaints[40] = 9
        pairs = [(float(number), float(size)) for number, size in zip(complaints, orders, strict=True)]
        shop.add("complaint_rate", pairs, dimension="region", member=f"r{n}")
    assert np.mean(scores(shop, tmp_path, "complaint_rate") > 4) <= 0.003


def test_the_return_from_an_unusual_week_is_no_surge(tmp_path):
    rng = np.random.default_rng(5)
    counts = rng.poisson(400 * RHYTHM[np.arange(DAYS) % 7]).astype(float)
    counts[90:97] = counts[90:97] * 0.1
    found = scores(Shop().add("orders_paid", counts.tolist(), dimension="region", member="a"), tmp_path, "orders_paid")
    judged = found[-(DAYS - 70) :]
    assert judged[20:24].max() < -4, "the dip itself is seen"
    assert judged[27:].max() < 4


@pytest.mark.parametrize("mean", [5.0, 50.0, 2000.0])
def test_three_weeks_of_history_are_enough_for_a_wide_band(tmp_path, mean):
    rng = np.random.default_rng(int(mean) + 1)
    days, shop = 35, Shop()
    for n in range(200):
        wave = mean * RHYTHM[np.arange(days) % 7] * np.exp(rng.normal(0, 0.06, days))
        shop.add("orders_paid", rng.poisson(wave).astype(float).tolist(), dimension="region", member=f"r{n}")
    published = shop.publish(tmp_path)
    rule = make_rule(metric="orders_paid", by=["region"], expr="band(seasonal)", yellow_if="outside 4")
    frame = evaluate(published, [rule], day(0), day(days), evaluated_at=NOW, run_id="young").frame()
    judged = frame[frame["observed"].notna()]
    assert judged["period_start"].min().date() == day(21)
    assert len(judged) == 200 * (days - 21)
    assert (judged["observed"].abs() > 4).mean() <= 0.005


def test_a_surge_in_the_fourth_week_is_seen_and_steep_growth_is_not(tmp_path):
    rng = np.random.default_rng(6)
    surge = rng.poisson(2300 * RHYTHM[np.arange(24) % 7]).astype(float)
    surge[-1] *= 1.55
    growth = rng.poisson(30 * 1.07 ** np.arange(24)).astype(float)
    shop = Shop().add("orders_paid", surge.tolist(), dimension="region", member="surge")
    published = shop.add("orders_paid", growth.tolist(), dimension="region", member="growth").publish(tmp_path)
    rule = make_rule(metric="orders_paid", by=["region"], expr="band(seasonal)", yellow_if="outside 5")
    frame = evaluate(published, [rule], day(23), day(24), evaluated_at=NOW, run_id="young").frame().set_index("member")
    assert frame.loc["surge", "observed"] > 5
    assert abs(frame.loc["growth", "observed"]) < 5


def test_a_real_drop_of_a_large_share_is_seen(tmp_path):
    rng = np.random.default_rng(3)
    sizes = rng.poisson(300, DAYS) + 1
    hits = rng.binomial(sizes, 0.95).astype(float)
    hits[-1] = sizes[-1] * 0.8
    pairs = [(float(hit), float(size)) for hit, size in zip(hits, sizes, strict=True)]
    found = scores(Shop().add("refund_rate", pairs, dimension="region", member="a"), tmp_path, "refund_rate")
    assert found[-1] < -5
    assert np.abs(found[:-1]).max() < 4
