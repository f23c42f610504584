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


def test_a_real_drop_of_a_large_share_is_seen(tmp_path):
    rng = np.random.default_rng(3)
    sizes = rng.poisson(300, DAYS) + 1
    hits = rng.binomial(sizes, 0.95).astype(float)
    hits[-1] = sizes[-1] * 0.8
    pairs = [(float(hit), float(size)) for hit, size in zip(hits, sizes, strict=True)]
    found = scores(Shop().add("refund_rate", pairs, dimension="region", member="a"), tmp_path, "refund_rate")
    assert found[-1] < -5
    assert np.abs(found[:-1]).max() < 4
