"""Known events of the real shops, with the place that explains them."""

from __future__ import annotations

from datetime import datetime

import pytest

from metrics_pipeline.diagnosis.diagnose import Context, diagnose
from metrics_pipeline.library.catalogue import Catalogue

pytestmark = [pytest.mark.real_data, pytest.mark.slow]


def context(home) -> Context:
    return Context(Catalogue.read(home.settings.dbt_project_dir), home.promotions)


@pytest.mark.xdist_group("olist")
def test_the_lateness_crisis_was_everywhere_and_rio_beyond_its_weight(olist):
    found = diagnose(olist.published, context(olist), "late_delivery_rate", {}, datetime(2018, 3, 25), span=7)
    assert found.observed == pytest.approx(0.251, abs=0.002)
    assert found.verdict == "site_wide"
    assert [one.element for one in found.causes] == ["region=RJ"]
    assert found.causes[0].share == pytest.approx(0.33, abs=0.03)
    assert found.causes[0].contribution + found.unexplained == pytest.approx(found.change)


@pytest.mark.xdist_group("merch_store")
def test_the_visits_of_24_january_came_directly(merch_store):
    found = diagnose(merch_store.published, context(merch_store), "sessions", {}, datetime(2017, 1, 24))
    assert found.observed == 3618
    assert found.direction == "up"
    assert found.top is not None
    assert found.top.element == "channel=Direct"
    assert found.top.share > 0.8


@pytest.mark.xdist_group("merch_store")
def test_conversion_of_that_day_fell_by_the_mix(merch_store):
    found = diagnose(merch_store.published, context(merch_store), "order_conversion_rate", {}, datetime(2017, 1, 24))
    assert found.observed == pytest.approx(0.0077, abs=0.0001)
    assert found.verdict == "mix_shift"
    assert [one.element for one in found.causes] == ["channel=Direct"]
    assert found.evidence()["cause.effect"] == ("mix",)
