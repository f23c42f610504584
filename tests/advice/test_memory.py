"""Similar past episodes: a distance that can be read out, over many episodes at once."""

from __future__ import annotations

import random
import time

import pytest

from metrics_pipeline.advice.memory import LEAST, WEIGHTS, Case, similar

NOW = Case("refund_rate", "up", 0.8, 1.0, frozenset({"region=华北", "category=美妆"}))
RELATED = {"order_health": frozenset({"refund_rate", "payment_conversion_rate"})}


def likeness(past: Case, now: Case = NOW) -> float:
    [[found]] = similar([now], [past], RELATED, least=-1.0)
    return found.similarity


def test_the_same_again_is_wholly_alike():
    assert likeness(NOW) == pytest.approx(1.0)


def test_weights_add_up_to_one():
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("past", "part", "distance"),
    [
        (Case("gmv", "up", 0.8, 1.0, NOW.elements), "metric", 1.0),
        (Case("order_health", "up", 0.8, 1.0, NOW.elements), "metric", 0.5),
        (Case("refund_rate", "down", 0.8, 1.0, NOW.elements), "direction", 1.0),
        (Case("refund_rate", "", 0.8, 1.0, NOW.elements), "direction", 0.5),
        (Case("refund_rate", "up", 6.2, 1.0, NOW.elements), "size", 1.0),
        (Case("refund_rate", "up", None, 1.0, NOW.elements), "size", 0.5),
        (Case("refund_rate", "up", 0.8, 8.0, NOW.elements), "onset", 1.0),
        (Case("refund_rate", "up", 0.8, 4.5, NOW.elements), "onset", 0.5),
        (Case("refund_rate", "up", 0.8, 1.0, frozenset({"region=华东", "category=食品"})), "place", 0.5),
        (Case("refund_rate", "up", 0.8, 1.0, frozenset({"region=华北"})), "place", 0.5),
        (Case("refund_rate", "up", 0.8, 1.0, frozenset({"warehouse=华北仓"})), "place", 1.0),
    ],
)
def test_each_part_of_the_distance_is_told(past, part, distance):
    [[found]] = similar([NOW], [past], RELATED, least=-1.0)
    assert found.parts[part] == pytest.approx(distance, abs=1e-3)
    assert [name for name, value in found.parts.items() if value] == [part]
    assert found.similarity == pytest.approx(1 - WEIGHTS[part] * distance, abs=1e-3)


def test_two_totals_are_in_the_same_place():
    total = Case("gmv", "down", 0.2, 0.0)
    assert likeness(total, total) == pytest.approx(1.0)


def test_likeness_is_the_same_both_ways():
    rng = random.Random(3)
    for _ in range(50):
        one, other = (
            Case(
                rng.choice(["refund_rate", "order_health", "gmv"]),
                rng.choice(["up", "down", ""]),
                rng.choice([None, rng.uniform(-0.9, 5)]),
                rng.choice([None, rng.uniform(0, 9)]),
                frozenset(rng.sample(["region=华北", "region=华东", "sku=1", "channel=app"], rng.randint(0, 3))),
            )
            for _ in range(2)
        )
        assert likeness(one, other) == pytest.approx(likeness(other, one), abs=1e-4)
        assert 0 <= likeness(one, other) <= 1


def test_only_what_is_alike_enough_is_found_the_most_alike_first_and_of_equals_the_first_given():
    past = [
        Case("gmv", "down", 0.1, 0.0, frozenset({"sku=1"})),
        Case("refund_rate", "up", 0.7, 1.0, NOW.elements),
        NOW,
        NOW,
    ]
    [found] = similar([NOW], past, RELATED)
    assert [one.position for one in found] == [2, 3, 1]
    assert all(one.similarity >= LEAST for one in found)
    assert similar([NOW], [], RELATED) == [[]]
    assert similar([], past, RELATED) == []


def test_parts_of_the_past_give_what_the_whole_gives(monkeypatch):
    rng = random.Random(4)
    past = [
        Case("refund_rate", "up", rng.uniform(0, 3), rng.uniform(0, 9), frozenset({f"region={rng.randint(1, 5)}"}))
        for _ in range(300)
    ]
    whole = similar([NOW, past[7]], past, RELATED, most=10)
    monkeypatch.setattr("metrics_pipeline.advice.memory.CELLS", 64)
    assert similar([NOW, past[7]], past, RELATED, most=10) == whole


def test_ten_thousand_past_episodes_cost_little():
    rng = random.Random(5)
    past = [
        Case("refund_rate", "up", rng.uniform(0, 3), 1.0, frozenset({f"region={rng.randint(1, 30)}"}))
        for _ in range(10_000)
    ]
    start = time.process_time()
    found = similar(past[:20], past, RELATED)
    assert time.process_time() - start < 2.0
    assert all(some[0].similarity == pytest.approx(1.0) for some in found)
