"""The search on small generated shops: 4 regions x 3 channels x 6 categories, counts with Poisson noise."""

import numpy as np
import pytest

from metrics_pipeline.diagnosis.expectation import expected_counts, expected_rates, ordinary_days
from metrics_pipeline.diagnosis.search import Leaves, Noise, fit_noise, search

MEMBERS = (("华北", "华东", "华南", "西部"), ("app", "web", "store"), tuple(f"c{at}" for at in range(6)))
NAMES = ("region", "channel", "category")
SIZES = tuple(map(len, MEMBERS))
CODES = np.indices(SIZES).reshape(3, -1).T.astype(np.int64)


def make_shop(seed: int = 0, total: float = 20_000.0) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    share = np.ones(len(CODES))
    for at, size in enumerate(SIZES):
        share *= rng.dirichlet(np.full(size, 4.0))[CODES[:, at]]
    return rng, total * share / share.sum()


def make_leaves(observed, expected, exposure=None) -> Leaves:
    return Leaves(NAMES, MEMBERS, CODES, np.asarray(observed, dtype=float), expected, exposure)


def inside(**element: str) -> np.ndarray:
    rows = np.ones(len(CODES), dtype=bool)
    for name, member in element.items():
        at = NAMES.index(name)
        rows &= CODES[:, at] == MEMBERS[at].index(member)
    return rows


def elements(found) -> set:
    return {one.element for one in found}


@pytest.mark.parametrize(
    "element",
    [{"region": "华东"}, {"region": "华东", "channel": "app"}, {"region": "华北", "channel": "app", "category": "c2"}],
)
def test_one_cause_of_each_layer_is_found_and_nothing_else(element):
    rng, expected = make_shop(3, 100_000.0)
    observed = rng.poisson(np.where(inside(**element), expected * 0.4, expected))
    assert elements(search([make_leaves(observed, expected)])) == {tuple(element.items())}


def test_two_children_of_one_parent_are_told_apart_from_the_parent():
    rng, expected = make_shop(1)
    moved = inside(region="华东", channel="app") | inside(region="华东", channel="web")
    observed = rng.poisson(np.where(moved, expected * 0.5, expected))
    assert elements(search([make_leaves(observed, expected)])) == {
        (("region", "华东"), ("channel", "app")),
        (("region", "华东"), ("channel", "web")),
    }


def test_a_quiet_day_has_no_cause():
    for seed in range(10):
        rng, expected = make_shop(seed)
        assert search([make_leaves(rng.poisson(expected), expected)]) == ()


def test_contributions_and_the_rest_are_the_change():
    rng, expected = make_shop(2)
    factor = np.where(inside(region="华东"), 0.5, 1.0) * np.where(inside(channel="app"), 0.7, 1.0)
    observed = rng.poisson(expected * factor)
    found = search([make_leaves(observed, expected)])
    assert elements(found) == {(("region", "华东"),), (("channel", "app"),)}
    covered = inside(region="华东") | inside(channel="app")
    assert sum(one.contribution for one in found) == pytest.approx((observed - expected)[covered].sum())


def test_what_falls_against_the_change_is_no_cause_of_it():
    rng, expected = make_shop(4)
    factor = np.where(inside(region="华东"), 0.4, np.where(inside(channel="web", region="西部"), 1.5, 1.0))
    found = search([make_leaves(rng.poisson(expected * factor), expected)])
    assert elements(found) == {(("region", "华东"),)}


def test_views_of_two_dimensions_each_name_the_cause_once():
    rng, expected = make_shop(5, 60_000.0)
    observed = rng.poisson(np.where(inside(region="华东"), expected * 0.5, expected))
    views = []
    for chosen in ((0, 1), (2, 0)):
        number = CODES[:, chosen[0]] * SIZES[chosen[1]] + CODES[:, chosen[1]]
        size = SIZES[chosen[0]] * SIZES[chosen[1]]
        views.append(
            Leaves(
                tuple(NAMES[at] for at in chosen),
                tuple(MEMBERS[at] for at in chosen),
                np.stack(np.divmod(np.arange(size), SIZES[chosen[1]]), axis=1),
                np.bincount(number, observed, size),
                np.bincount(number, expected, size),
            )
        )
    assert elements(search(views)) == {(("region", "华东"),)}


def test_events_added_evenly_are_the_parents_not_the_child_with_the_smallest_rate():
    rng, requests = make_shop(6, 400_000.0)
    rate = np.where(inside(channel="app"), 0.001, 0.02)
    now = np.where(inside(category="c1"), rate + 0.1, rate)
    observed = rng.binomial(requests.astype(int), now)
    found = search([make_leaves(observed, requests * rate, exposure=requests)])
    assert elements(found) == {(("category", "c1"),)}


def test_more_traffic_at_the_usual_rates_has_no_cause_in_the_rates():
    rng, sessions = make_shop(7, 400_000.0)
    rate = np.where(inside(channel="app"), 0.01, 0.05)
    now = np.where(inside(channel="app"), sessions * 3, sessions)
    observed = rng.binomial(now.astype(int), rate)
    assert search([make_leaves(observed, now * rate, exposure=now)]) == ()


def test_a_shop_that_moves_as_one_has_no_cause():
    rng, expected = make_shop(11, 60_000.0)
    assert search([make_leaves(rng.poisson(expected * 0.7), expected)]) == ()


def test_an_unmoved_metric_and_empty_leaves_have_no_cause():
    _, expected = make_shop()
    assert search([make_leaves(expected, expected)]) == ()
    empty = np.zeros(0)
    assert search([Leaves(("region",), (("a",),), np.zeros((0, 1), dtype=np.int64), empty, empty)]) == ()


def test_the_noise_of_sparse_and_of_overdispersed_counts_is_seen():
    rng = np.random.default_rng(8)
    sparse = np.full(20_000, 0.05)
    assert fit_noise(rng.poisson(sparse).astype(float), sparse).phi == pytest.approx(1.0, rel=0.15)
    large = rng.uniform(20, 400, 20_000)
    noise = fit_noise(rng.poisson(large * rng.gamma(25, 1 / 25, len(large))).astype(float), large)
    assert noise.tau2 == pytest.approx(0.04, rel=0.25)


def test_an_expectation_follows_the_weekday_of_members_and_leaves_incidents_out():
    rng, base = make_shop(9)
    days = np.arange(56)
    slots = days % 7
    weekend = np.where(inside(channel="store"), 2.0, 0.8)
    history = np.stack([rng.poisson(base * (weekend if day % 7 >= 5 else 1.0)) for day in days]).astype(float)
    history[40] *= 0.1
    ordinary = ordinary_days(history.sum(axis=1), slots)
    assert ordinary.tolist() == [day != 40 for day in days]
    expected = expected_counts(history[ordinary], CODES, SIZES, slots[ordinary], 5)
    truth = base * weekend
    assert expected.sum() == pytest.approx(truth.sum(), rel=0.03)
    store = inside(channel="store")
    assert expected[store].sum() == pytest.approx(truth[store].sum(), rel=0.05)


def test_small_leaves_take_the_rate_of_their_members():
    rng, exposure = make_shop(10, 30_000.0)
    rate = np.where(inside(channel="app"), 0.2, 0.05)
    found = expected_rates(rng.binomial(exposure.astype(int), rate).astype(float), exposure, CODES, SIZES)
    assert np.abs(found / rate - 1.0).max() < 0.35
    assert np.average(np.abs(found / rate - 1.0), weights=exposure) < 0.06


@pytest.mark.parametrize(("periods", "named"), [(None, 2), (56, 2), (14, 2), (13, 1)])
def test_with_a_short_history_a_second_cause_must_carry_a_fifth_of_what_is_explained(periods, named):
    rng = np.random.default_rng(5)
    codes = np.array([(one, other) for one in range(6) for other in range(6)])
    expected = np.full(36, 4_000.0)
    truth = expected * np.where(codes[:, 0] == 0, 0.4, 1.0) * np.where(codes[:, 1] == 1, 0.9, 1.0)
    members = tuple(tuple(f"{name}{at}" for at in range(6)) for name in "ab")
    leaves = Leaves(
        ("a", "b"), members, codes, rng.poisson(truth).astype(float), expected, None, Noise(1.0, 0.0, periods)
    )
    found = search([leaves])
    assert found[0].element == (("a", "a0"),)
    assert len(found) == named
