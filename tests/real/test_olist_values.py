"""The pipeline's values on real orders, against SQL of our own on the same files: every day, in total and by region."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import duckdb
import pytest

pytestmark = [pytest.mark.real_data, pytest.mark.slow, pytest.mark.xdist_group("olist")]

FIRST, LAST = date(2017, 1, 5), date(2018, 8, 22)
BY_DAY = {
    "orders_placed": "SELECT order_purchase_timestamp::DATE AS day, customer_state AS region, 1 AS n FROM o",
    "gmv": """
        SELECT order_purchase_timestamp::DATE AS day, customer_state AS region, price AS n
        FROM o LEFT JOIN order_items USING (order_id)""",
    "orders_paid": "SELECT order_approved_at::DATE AS day, customer_state AS region, 1 AS n FROM o",
    "units_sold": """
        SELECT order_approved_at::DATE AS day, customer_state AS region, 1 AS n FROM o JOIN order_items USING (order_id)""",
    "shipments_due": "SELECT order_estimated_delivery_date::DATE AS day, customer_state AS region, 1 AS n FROM parcels",
    "shipments_late": """
        SELECT order_estimated_delivery_date::DATE AS day, customer_state AS region,
            coalesce(order_delivered_customer_date::DATE > order_estimated_delivery_date::DATE, TRUE)::INTEGER AS n
        FROM parcels""",
    "complaints": """
        SELECT review_creation_date::DATE AS day, customer_state AS region, 1 AS n
        FROM (SELECT DISTINCT review_id, order_id, review_creation_date, review_score FROM order_reviews)
        JOIN o USING (order_id) WHERE review_score <= 2""",
}
RATIOS = {
    "late_delivery_rate": ("shipments_late", "shipments_due"),
    "complaint_rate": ("complaints", "orders_paid"),
    "payment_conversion_rate": ("orders_paid", "orders_placed"),
}
"""Of the totals of a day."""


@pytest.fixture(scope="module")
def files(real_data: Path):
    with duckdb.connect() as con:
        for name in ("orders", "order_items", "order_payments", "order_reviews", "customers"):
            con.execute(f"CREATE VIEW {name} AS SELECT * FROM '{real_data / 'olist' / name}.parquet'")
        # One order of the gap was approved half a year later; orders before the complete days are not loaded.
        con.execute(
            f"""CREATE VIEW o AS SELECT * FROM orders JOIN customers USING (customer_id)
            WHERE order_purchase_timestamp >= '{FIRST}' OR order_approved_at < '{FIRST}'"""
        )
        con.execute("CREATE VIEW parcels AS SELECT * FROM o WHERE order_status NOT IN ('canceled', 'unavailable')")
        yield con


def by_hand(con, metric, dimension="all"):
    member = "'all'" if dimension == "all" else dimension
    rows = con.execute(
        f"""SELECT day, {member} AS member, sum(n) FROM ({BY_DAY[metric]})
        WHERE day BETWEEN '{FIRST}' AND '{LAST}' GROUP BY ALL HAVING sum(n) IS NOT NULL"""
    ).fetchall()
    return {(day, name): float(value) for day, name, value in rows}


def published(home, metric, dimension="all"):
    found = home.values(metric, dimension)
    return {key: value for key, value in found.items() if FIRST <= key[0] <= LAST}


@pytest.mark.parametrize("dimension", ["all", "region"])
@pytest.mark.parametrize("metric", BY_DAY)
def test_each_day_is_the_sum_of_the_rows(olist, files, metric, dimension):
    ours, expected = published(olist, metric, dimension), by_hand(files, metric, dimension)
    begin = min(day for day, _ in ours)
    expected = {key: value for key, value in expected.items() if key[0] >= begin}
    zeros = {key: value for key, value in ours.items() if key not in expected}
    assert not any(zeros.values()), "a day without rows is 0 or has no value"
    assert {key: value for key, value in ours.items() if key in expected} == pytest.approx(expected, rel=1e-9)
    assert len({day for day, _ in expected}) > 350


@pytest.mark.parametrize("metric", RATIOS)
def test_each_ratio_is_the_one_of_its_day(olist, files, metric):
    above, below = (by_hand(files, name) for name in RATIOS[metric])
    ours = published(olist, metric)
    expected = {key: above.get(key, 0.0) / below[key] for key in ours}
    assert len(ours) > 350
    assert ours == pytest.approx(expected, rel=1e-9)


def test_average_order_value_is_what_was_paid_per_paid_order(olist, files):
    rows = files.execute(
        """SELECT order_approved_at::DATE AS day, sum(payment_value) / count(DISTINCT order_id)
        FROM o JOIN order_payments USING (order_id) WHERE order_approved_at IS NOT NULL GROUP BY day"""
    ).fetchall()
    expected = {(day, "all"): float(value) for day, value in rows}
    ours = published(olist, "average_order_value")
    assert len(ours) > 500
    assert ours == pytest.approx({key: expected[key] for key in ours}, rel=1e-9)


def test_known_days(olist):
    assert published(olist, "orders_placed")[date(2017, 11, 24), "all"] == 1176
    assert published(olist, "gmv")[date(2017, 11, 24), "all"] == pytest.approx(152_653.74)
    due, late = published(olist, "shipments_due"), published(olist, "shipments_late")
    weeks = {date(2018, 3, 19): 0.251, date(2018, 3, 26): 0.262, date(2018, 4, 2): 0.227}
    for monday, share in weeks.items():
        days = [key for key in due if 0 <= (key[0] - monday).days < 7]
        assert sum(late[key] for key in days) / sum(due[key] for key in days) == pytest.approx(share, abs=0.0005)


@pytest.mark.parametrize("metric", ["sessions", "refund_rate", "stock_cover_days", "campaign_roi", "bounce_rate"])
def test_what_the_marketplace_does_not_record_has_no_value(olist, metric):
    assert not olist.values(metric)


def test_no_value_lies_in_the_gap_or_after_the_end(olist):
    days = {day for day, _ in olist.values("orders_placed")}
    assert (min(days), max(days)) == (FIRST, LAST)
    assert len(days) == (LAST - FIRST).days + 1
