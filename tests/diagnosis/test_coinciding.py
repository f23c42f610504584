"""What stands beside a change: only what is about the same slice, touches its causes, and is large enough to matter."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.coinciding import (
    Happening,
    Note,
    campaigns_on,
    noted_on,
    promotions_on,
    sells,
    sold_out_on,
)
from metrics_pipeline.diagnosis.diagnose import Context, diagnose
from metrics_pipeline.diagnosis.model import Cause
from metrics_pipeline.warehouse.attributes import PRODUCTS
from metrics_pipeline.warehouse.read import Published
from tests.rules.shop import Shop

FIRST = date(2025, 3, 3)
DAYS = 43
LAST = FIRST + timedelta(days=DAYS - 1)
FALL = Happening(LAST, LAST, {}, (), 0.3)
"""A fall by 30 % on the last day, of which nothing more is known."""


def cause(share: float = 0.9, **elements: str) -> Cause:
    return Cause(elements, len(elements), 10.0, 50.0, -40.0, share, None, None, 30.0, 0.99)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """100 pieces a day. SKU `big` sells 30 of them (category 鞋), `small` 2, `old` 30 (empty for ten days). `big` and `small`
    are sold out on the last day. Campaign `new` begins on it with a third of the visits, `tiny` with a hundredth."""
    usual = DAYS - 1
    shop = Shop()
    shop.add("units_sold", [100.0] * usual + [70.0], first=FIRST)
    shop.add("units_sold", [40.0] * usual + [10.0], dimension="category", member="鞋", first=FIRST)
    shop.add("units_sold", [60.0] * DAYS, dimension="category", member="包", first=FIRST)
    for sku, units, days in (("big", 30.0, 1), ("small", 2.0, 1), ("old", 30.0, 10)):
        kept = DAYS - days
        shop.add("units_sold", [units] * kept + [0.0] * days, dimension="sku", member=sku, first=FIRST)
        shop.add("stock_on_hand", [500.0] * kept + [0.0] * days, dimension="sku", member=sku, first=FIRST)
    shop.add("sessions", [1000.0] * usual + [1350.0], first=FIRST)
    for campaign, visits in (("new", 340.0), ("tiny", 10.0)):
        shop.add("sessions", [0.0] * usual + [visits], dimension="campaign", member=campaign, first=FIRST)
        shop.add("ad_spend", [0.0] * usual + [9.0], dimension="campaign", member=campaign, first=FIRST)
    shop.add("ad_spend", [0.0] * usual + [18.0], first=FIRST)
    shop.add("orders_placed", [100.0] * DAYS, first=FIRST)
    shop.add("payment_conversion_rate", [(90.0, 100.0)] * usual + [(60.0, 100.0)], first=FIRST)
    published = shop.publish(tmp_path_factory.mktemp("coinciding"))
    (published.directory / PRODUCTS).parent.mkdir(parents=True, exist_ok=True)
    products = pa.table({"sku": ["big", "small", "old"], "category": ["鞋", "鞋", "包"]})
    pq.write_table(products, published.directory / PRODUCTS)
    return published


def test_a_best_seller_that_sold_out_stands_beside_the_fall_with_its_usual_share(shop):
    [one] = sold_out_on(shop, FALL)
    assert (one.kind, one.id, one.starts_on, one.what_zh) == ("stock_out", "big", LAST, "big 缺货(平时占销量 30%)")


def test_what_is_too_small_for_the_change_is_not_listed_but_beside_a_small_change_it_is(shop):
    assert [one.id for one in sold_out_on(shop, replace(FALL, size=0.02))] == ["big", "small"]


def test_a_shelf_that_was_empty_long_before_the_change_is_not_listed(shop):
    assert "old" not in {one.id for one in sold_out_on(shop, replace(FALL, size=0.0))}
    began = replace(FALL, began=LAST - timedelta(days=9))
    assert "old" in {one.id for one in sold_out_on(shop, began)}


@pytest.mark.parametrize(
    ("elements", "share", "listed"),
    [
        ({"payment_method": "alipay"}, 1.0, False),
        ({"payment_method": "alipay"}, 0.4, True),
        ({"category": "鞋"}, 1.0, True),
        ({"category": "包"}, 1.0, False),
        ({"sku": "big"}, 1.0, True),
        ({"sku": "small"}, 1.0, False),
    ],
)
def test_a_stock_out_is_listed_where_it_touches_a_cause_or_causes_leave_room(shop, elements, share, listed):
    found = sold_out_on(shop, replace(FALL, causes=(cause(share, **elements),)))
    assert [one.id for one in found] == (["big"] if listed else [])


def test_inside_a_category_only_its_own_shelves_count_by_their_share_of_it(shop):
    [one] = sold_out_on(shop, replace(FALL, slice={"category": "鞋"}, size=0.75))
    assert (one.id, one.what_en) == ("big", "big is out of stock (75% of units sold as a rule)")
    assert sold_out_on(shop, replace(FALL, slice={"category": "包"})) == []


def test_an_empty_shelf_lowers_sales_and_no_rate_of_payment_or_stock(catalogue):
    selling = {name for name, one in catalogue.metrics.items() if sells(one, catalogue)}
    assert {"gmv", "units_sold", "orders_paid", "order_conversion_rate", "arpu"} <= selling
    assert selling.isdisjoint(
        {
            "payment_conversion_rate",
            "average_order_value",
            "stock_on_hand",
            "stock_cover_days",
            "refund_rate",
            "sessions",
        }
    )


def test_a_payment_failure_is_not_explained_by_an_empty_shelf(shop, catalogue):
    found = diagnose(shop, Context(catalogue), "payment_conversion_rate", {}, datetime(LAST.year, LAST.month, LAST.day))
    assert found.change < 0 and not any(one.kind == "stock_out" for one in found.coinciding)
    sold = diagnose(shop, Context(catalogue), "units_sold", {}, datetime(LAST.year, LAST.month, LAST.day))
    assert [one.id for one in sold.coinciding if one.kind == "stock_out"] == ["big"]


def test_a_campaign_counts_by_its_share_of_the_metric_and_only_where_it_touches_a_cause(shop, catalogue):
    sessions = catalogue.metrics["sessions"]
    rise = replace(FALL, size=0.35)
    assert [one.id for one in campaigns_on(shop, sessions, rise)] == ["new"]
    assert [one.id for one in campaigns_on(shop, sessions, replace(rise, causes=(cause(campaign="new"),)))] == ["new"]
    assert campaigns_on(shop, sessions, replace(rise, causes=(cause(campaign="other"),))) == []
    assert campaigns_on(shop, catalogue.metrics["stock_on_hand"], rise) == []


def test_notes_and_promotions_of_other_slices_are_not_listed():
    notes = [Note(1, "deploy_note", "app 4.2", LAST, LAST, {"channel": "app"})]
    days = [PromotionDay(LAST, "shoes", "鞋节", "Shoes", 0, "main", "own", affects=(("category", ("鞋",)),))]
    for one, seen in (
        (FALL, True),
        (replace(FALL, slice={"channel": "app"}), True),
        (replace(FALL, slice={"channel": "web"}), False),
        (replace(FALL, causes=(cause(channel="web"),)), False),
        (replace(FALL, causes=(cause(channel="web"), cause(channel="app"))), True),
        (replace(FALL, causes=(cause(region="华东"),)), False),
        (replace(FALL, causes=(cause(0.4, region="华东"),)), True),
    ):
        assert bool(noted_on(notes, one)) is seen
        assert noted_on([replace(notes[0], elements={})], one)  # a release of everything
    assert promotions_on(days, FALL) and promotions_on(days, replace(FALL, slice={"category": "鞋"}))
    assert not promotions_on(days, replace(FALL, slice={"category": "包"}))
    assert not promotions_on(days, replace(FALL, causes=(cause(category="包"),)))


def test_events_of_other_slices_make_no_list_beside_an_event_of_the_shop():
    own = [
        PromotionDay(LAST, f"ads_{n}", "投放", "Ads", 0, "campaign", "own", affects=(("ad_channel", (f"c{n}",)),))
        for n in range(4)
    ]
    shop_day = PromotionDay(LAST, "shop_day", "店庆", "Shop day", 0, "season", "CN")
    assert [one.id for one in promotions_on([*own, shop_day], FALL)] == ["shop_day"]
    assert [one.id for one in promotions_on(own, FALL)] == ["ads_0", "ads_1"]
    inside = replace(FALL, causes=(cause(ad_channel="c3"),))
    assert [one.id for one in promotions_on([*own, shop_day], inside)] == ["ads_3", "shop_day"]
