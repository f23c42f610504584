"""Shelves with a known past: orders, late deliveries and demand that could not be served."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest

from metrics_pipeline.forecasting.outlook import Outlook, of_table, outlooks, table_of
from metrics_pipeline.forecasting.panel import Panel
from metrics_pipeline.forecasting.replenish import propose
from metrics_pipeline.forecasting.stockout import _sold_out, risk
from metrics_pipeline.forecasting.supply import (
    MOST_LATE,
    Lateness,
    Term,
    demand_of,
    flows,
    lateness,
    shelf_of,
    under_way,
)

FIRST = date(2025, 3, 3)


def warehouse(skus=80, days=150, lead=6, late=0.3, late_days=5, rate=6.0, seed=4, target=14.0):
    """Reorder when stock and orders fall below `target` days; some deliveries are `late_days` late. Returns what is seen and demand."""
    rng = np.random.default_rng(seed)
    wanted = rng.poisson(rate, (skus, days))
    hand, ordered = np.full(skus, rate * target), np.zeros(skus)
    coming = np.zeros((days + 60, skus))
    on_hand, on_order, sold = (np.zeros((skus, days)) for _ in range(3))
    for day in range(days):
        hand += coming[day]
        ordered -= coming[day]
        sold[:, day] = np.minimum(wanted[:, day], hand)
        hand = hand - sold[:, day]
        for sku in np.flatnonzero(hand + ordered < rate * (lead + 3)):
            size = rate * target
            coming[day + lead + (late_days if rng.random() < late else 0), sku] += size
            ordered[sku] += size
        on_hand[:, day], on_order[:, day] = hand, ordered
    names = tuple(f"S{number:03d}" for number in range(skus))
    terms = {name: Term("toys", "supplier", float(lead), 5.0, 12) for name in names}
    panel = [Panel(names, FIRST, values) for values in (on_hand, on_order, sold)]
    return shelf_of(*panel, Panel(("toys",), FIRST, sold.sum(axis=0, keepdims=True)), terms), wanted, coming


def test_lateness_is_learned_from_what_came():
    shelf, _, _ = warehouse(late=0.3, late_days=5)
    found = lateness(shelf, flows(shelf))
    assert found.matched > 400
    assert found.on_time == pytest.approx(0.7, abs=0.07)
    assert found.chance[5] == pytest.approx(0.3, abs=0.07)


def test_what_is_under_way_is_what_was_ordered_and_has_not_come():
    shelf, _, _ = warehouse(late=0.0)
    pieces, age = under_way(shelf, flows(shelf))
    assert np.allclose(pieces.sum(axis=1), shelf.on_order[:, -1])
    assert (age[pieces > 0] < 6).all()


def test_a_delivery_that_is_overdue_is_waited_for_by_what_is_left_of_the_delays():
    chance = np.zeros(MOST_LATE + 1)
    chance[[0, 4]] = 0.8, 0.2
    late = Lateness(chance, 100)
    draws = np.linspace(0.001, 0.999, 1000)
    due_in_three = late.arrival(np.array(-3), draws)
    assert (due_in_three == 3).mean() == pytest.approx(0.8, abs=0.01) and set(due_in_three) == {3, 7}
    assert set(late.arrival(np.array(1), draws)) == {3}  # a day overdue: it comes on the fourth


def test_sold_out_days_do_not_hide_demand():
    shelf, wanted, _ = warehouse(late=0.5, late_days=9, target=8.0)
    out = (shelf.on_hand == 0).mean()
    assert out > 0.1
    demand = demand_of(shelf)
    rate = demand.share * shelf.demand.values[0, -28:].mean()
    counted = shelf.sold[:, -28:].mean()
    assert abs(rate.mean() - wanted.mean()) < abs(counted - wanted.mean())


def test_chances_are_calibrated_and_an_order_decides():
    shelf, wanted, coming = warehouse(skus=150, late=0.4, late_days=6, rate=8.0, target=11.0, seed=9)
    chances, outcomes = [], []
    for days in range(80, 136, 11):
        now = risk(shelf.until(days), horizon=6, draws=120)
        stock = shelf.on_hand[:, days - 1].copy()
        out = np.zeros(len(stock), bool)
        for day in range(days, days + 6):
            stock = np.maximum(stock + coming[day] - wanted[:, day], 0)
            out |= stock < 1
        in_stock = shelf.on_hand[:, days - 1] > 0
        chances.append(now.within(6)[in_stock])
        outcomes.append(out[in_stock])
    chance, outcome = np.concatenate(chances), np.concatenate(outcomes)
    assert 0.02 < outcome.mean() < 0.9
    for low, high in ((0.0, 0.1), (0.1, 0.5), (0.5, 0.9), (0.9, 1.01)):
        here = (chance >= low) & (chance < high)
        if here.sum() > 30:
            assert outcome[here].mean() == pytest.approx(chance[here].mean(), abs=0.15)
    assert outcome[chance > 0.5].mean() > outcome.mean() + 0.2


def test_a_replenishment_comes_in_whole_packs_and_in_time():
    shelf, _, _ = warehouse(late=0.0, target=20.0)
    cut = shelf.until(140)
    found = risk(cut, horizon=21)
    orders = propose(found, cut)
    assert orders
    for one in orders:
        assert one.quantity % 12 == 0 and one.quantity > 0
        assert one.order_by > found.origin
        assert one.is_late or one.arrives_on - one.order_by == timedelta(days=6)
        row = found.skus.index(one.sku)
        by_arrival = (one.arrives_on - found.origin).days
        if not one.is_late and by_arrival >= 2:
            assert found.chance[row, by_arrival - 2] <= 0.05
    most_sure = {one.sku: one.quantity for one in propose(found, cut, service_level=0.99)}
    assert all(most_sure[one.sku] >= one.quantity for one in orders if one.sku in most_sure)


def test_what_is_told_of_a_shelf_is_what_is_foreseen_and_proposed():
    shelf, _, _ = warehouse(skus=30, target=8.0)
    found = risk(shelf)
    orders = {one.sku: one for one in propose(found, shelf)}
    told = of_table(table_of(outlooks(found, orders.values())))
    assert set(orders) <= set(told) and told
    chance = dict(zip(found.skus, found.within(0), strict=True))
    for sku, one in told.items():
        assert one.chance == pytest.approx(chance[sku], abs=1e-4) and (sku in orders or one.chance >= 0.05)
        order = orders.get(sku)
        assert (one.quantity, one.order_by) == ((order.quantity, order.order_by) if order else (0, None))
        assert one.need == ("" if order is None and not one.on_order else "waiting" if order is None
                            else "late" if order.is_late else "order")  # fmt: skip
        assert Outlook.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_promotions_ahead_count():
    from metrics_pipeline.detection.promotions import PromotionDay

    shelf, _, _ = warehouse(late=0.0)
    ahead = [
        PromotionDay(shelf.last + timedelta(days=step), "sale", "促销", "sale", step, "main", "global")
        for step in (1, 2)
    ]
    past = [
        PromotionDay(FIRST + timedelta(days=60 + step), "sale", "促销", "sale", step, "main", "global")
        for step in (1, 2)
    ]
    demand = shelf.demand.values.copy()
    demand[0, 61:63] *= 3
    boosted = type(shelf)(
        shelf.skus, shelf.first, shelf.on_hand, shelf.on_order, shelf.sold, shelf.lead_days, shelf.terms,
        Panel(("toys",), FIRST, demand), shelf.group,
    )  # fmt: skip
    quiet, busy = risk(boosted, past, horizon=4), risk(boosted, [*past, *ahead], horizon=4)
    assert busy.expected[:, :2].sum() > 2 * quiet.expected[:, :2].sum()
    assert busy.chance[:, 1].mean() > quiet.chance[:, 1].mean()


def followed(stock, rate, course, pieces, comes, rng):
    """The plain way: every shelf from day to day."""
    left, is_out, chance = np.repeat(stock[:, None], rate.shape[1], axis=1), np.zeros(rate.shape, bool), []
    for step, sales in enumerate(course.T):
        left = left + (pieces[:, None, :] * (comes == step + 1)).sum(axis=2)
        left = np.maximum(left - rng.poisson(rate * sales), 0.0)
        is_out |= left < 1
        chance.append(is_out.mean(axis=1))
    return np.stack(chance, axis=1)


@pytest.mark.parametrize("deliveries", [0, 1, 3])
def test_the_time_of_the_last_piece_says_the_same_as_following_the_shelf_day_by_day(deliveries):
    rng = np.random.default_rng(4)
    draws, horizon = 20_000, 6
    course = rng.gamma(4.0, 1.0, (draws, horizon)).astype(np.float32)
    stock = np.array([0.0, 1.0, 2.5, 6.0, 14.0, 40.0])
    rate = np.repeat(np.array([0.3, 0.1, 0.2, 0.4, 0.5, 1.0])[:, None], draws, axis=1).astype(np.float32)
    pieces = rng.integers(1, 9, (len(stock), deliveries)).astype(float)
    comes = rng.integers(1, horizon + 3, (len(stock), draws, deliveries))
    at_once = _sold_out(stock, rate, np.cumsum(course, axis=1), pieces, comes, rng=rng)
    assert np.abs(at_once - followed(stock, rate, course, pieces, comes, rng)).max() < 0.015
    assert (np.diff(at_once, axis=1) >= 0).all()
    assert at_once[0, 0] > 0.7


def test_a_shelf_that_is_empty_and_waits_for_nothing_is_sold_out():
    nothing, none = np.zeros((1, 0)), np.zeros((1, 100, 0), np.int64)
    still = np.zeros((1, 100), np.float32)
    chance = _sold_out(np.zeros(1), still, np.ones((100, 3), np.float32), nothing, none, rng=np.random.default_rng(1))
    assert (chance == 1).all()
