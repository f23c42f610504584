"""The past of many slices is read at once, and is what each would have by itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from metrics_pipeline.alerts.notice import SeriesKey
from metrics_pipeline.orchestration.series import PLOT_DAYS, recent_series
from metrics_pipeline.rules.evaluate import evaluate, moment
from metrics_pipeline.settings import Settings
from metrics_pipeline.warehouse.read import Published
from tests.rules.shop import NOW, Shop, day, make_rule

DAYS = 80


@pytest.fixture
def settings(tmp_path) -> Settings:
    settings = Settings(home=tmp_path)
    shop = Shop().add("orders_paid", [100.0 + at for at in range(DAYS)])
    for number, member in enumerate(("华东", "华北")):
        shop.add("orders_paid", [10.0 * number + at for at in range(DAYS)], dimension="region", member=member)
    shop.add("sessions", [1000.0 + at for at in range(DAYS)])
    published = shop.publish(settings.published_dir)
    rules = [make_rule(yellow_if="< 200"), make_rule(alert="by_region", by=["region"], yellow_if="< 5")]
    evaluate(
        published, rules, day(0), day(DAYS), evaluated_at=NOW, run_id="one", evaluations_dir=settings.evaluations_dir
    )
    return settings


def key(rule: str, metric: str, dimension: str, member: str, until: int) -> SeriesKey:
    return SeriesKey(rule, metric, dimension, member, "day", moment(day(until)))


def test_many_slices_are_what_each_is_alone(settings, monkeypatch):
    keys = [
        key("orders_low", "orders_paid", "all", "all", DAYS - 1),
        key("orders_low", "orders_paid", "all", "all", 60),
        key("by_region", "orders_paid", "region", "华东", DAYS - 1),
        key("by_region", "orders_paid", "region", "华北", DAYS - 9),
        key("nobody_judged", "sessions", "all", "all", DAYS - 1),
    ]
    alone = {one: recent_series(settings, [one])[one] for one in keys}
    reads = []
    slices = Published.slices
    monkeypatch.setattr(Published, "slices", lambda *args, **named: reads.append(1) or slices(*args, **named))
    assert recent_series(settings, keys) == alone
    assert reads == [1]


def test_a_series_ends_with_its_period_and_begins_eight_weeks_before(settings):
    one = key("orders_low", "orders_paid", "all", "all", 70)
    series = recent_series(settings, [one])[one]
    assert [point.period for point in series.points] == [
        one.until - timedelta(days=back) for back in range(PLOT_DAYS, -1, -1)
    ]
    assert [point.value for point in series.points] == [100.0 + at for at in range(70 - PLOT_DAYS, 71)]
    assert series.yellow_bound == 200.0


def test_what_has_no_metric_has_no_series(settings):
    assert recent_series(settings, [key("run_failed", "", "all", "all", 3)]) == {}
