"""Published values as one person may see them."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given, settings

from metrics_pipeline.access.bands import band
from metrics_pipeline.access.model import Level, Selector
from metrics_pipeline.access.reader import GuardedValues, Published, UnknownMetric
from metrics_pipeline.access.viewer import Viewer, everybody
from tests.access.shop import METRICS, NOW, SLICES, make_viewer, numbers_of, publish_shop
from tests.access.test_policy import NORTH, grants_of_anybody, make_grant
from tests.warehouse.metric_tables import night


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return publish_shop(tmp_path_factory.mktemp("guarded"))


def read(directory, viewer: Viewer) -> GuardedValues:
    return GuardedValues.for_viewer(directory, viewer)


def test_an_open_installation_reads_what_is_published(directory):
    plain = Published.open(directory).series("profit_margin", "region", None)
    seen = read(directory, everybody("li", {}, now=NOW)).series("profit_margin", "region", None)
    assert seen[list(plain.columns)].equals(plain)


def test_a_regional_manager_sees_neither_the_total_nor_another_region(directory):
    seen = read(directory, make_viewer(make_grant(slices=NORTH)))
    assert set(seen.series("gmv", "region", None)["member"]) == {"华北"}
    assert set(seen.series("gmv", "region|channel", None)["member"]) == {"华北|app"}
    assert seen.series("gmv").empty and seen.series("gmv", "channel", None).empty
    assert seen.series("gmv", as_of=night(1)).empty and seen.changes("gmv", "region", "华东").empty


def test_a_banded_metric_shows_its_range_and_a_hidden_one_nothing(directory):
    banded = read(directory, make_viewer(make_grant(level=Level.BANDED))).series("gross_profit")
    assert banded["value"].isna().all() and banded["numerator"].isna().all()
    assert set(zip(banded["low"], banded["high"], strict=True)) == {tuple(band(3600.0, "currency"))}
    hidden = read(directory, make_viewer(make_grant())).series("gross_profit", as_of=night(1))
    assert len(hidden) == 4 and hidden[["value", "low", "high", "numerator"]].isna().all(axis=None)


def test_a_ratio_does_not_show_the_values_it_is_made_of(directory):
    ratio = make_grant(selectors=(Selector("metric", "refund_rate"),))
    alone = read(directory, make_viewer(ratio)).series("refund_rate")
    assert alone["value"].notna().all() and alone[["numerator", "denominator"]].isna().all(axis=None)
    whole = read(directory, make_viewer(ratio, make_grant())).series("refund_rate")
    assert whole["denominator"].tolist() == [300.0] * 4


def test_an_unknown_metric_and_a_denied_one_are_the_same_to_who_asks(directory):
    seen = read(directory, make_viewer(make_grant(selectors=(Selector("metric", "gmv"),))))
    messages = []
    for name in ("gross_profit", "gross_profjt"):
        with pytest.raises(UnknownMetric) as failure:
            seen.series(name)
        messages.append(str(failure.value).replace(name, "x"))
    assert messages[0] == messages[1] and "refund_rate" not in messages[0]
    assert list(seen.metrics) == ["gmv"]


def test_rules_are_judged_on_exact_values_only(directory):
    seen = read(directory, make_viewer(make_grant(slices=NORTH, level=Level.BANDED)))
    import duckdb

    with duckdb.connect() as con:
        rows = con.execute(f"SELECT DISTINCT metric, dimension, member FROM {seen.relation(seen.files())}").fetchall()
    assert {row[1:] for row in rows} == {("region", "华北"), ("region|channel", "华北|app")}
    assert {row[0] for row in rows} == {"orders_paid", "refunded_orders", "refund_rate", "gmv"}


@settings(max_examples=25, deadline=None)
@given(grants=grants_of_anybody)
def test_no_query_returns_what_the_policy_denies(directory, grants):
    viewer = make_viewer(*grants)
    seen = read(directory, viewer)
    with seen.connect() as con:
        tables = [
            con.execute(
                "SELECT metric, dimension, member, numerator, denominator, value, low, high FROM metric_values"
            ),
        ]
        rows = [row for table in tables for row in table.fetchall()]
        history = con.execute("SELECT DISTINCT metric, dimension, member FROM metric_history").fetchall()
    for metric, dimension, member, above, below, value, low, high in rows:
        level = viewer.decide("read", metric, dimension, member).level
        real = numbers_of(METRICS[metric], SLICES[dimension, member])
        assert level > Level.DENIED
        assert (value is not None) == (level == Level.EXACT)
        assert (low is not None) == (level == Level.BANDED)
        if low is not None:
            assert low <= real[2] <= high and not math.isclose(high - low, 0)
        parts = [viewer.decide("read", name, dimension, member).level for name in METRICS[metric].inputs]
        if (above, below) != (None, None):
            assert level == Level.EXACT and all(one == Level.EXACT for one in parts)
    allowed = {(metric, *one) for metric in METRICS for one in SLICES if viewer.decide("read", metric, *one).is_allowed}
    assert {row[:3] for row in rows} == allowed == set(history)
    assert set(seen.metrics) == {name for name in METRICS if viewer.reading.knows(name)}


def test_a_revoked_grant_is_gone_at_the_next_look(directory):
    given = make_grant(revoked_at=NOW + timedelta(minutes=1))
    before, after = (Viewer(make_viewer().subjects, METRICS, NOW + timedelta(minutes=m), (given,)) for m in (0, 1))
    assert not read(directory, before).series("gmv").empty
    assert not read(directory, after).metrics
