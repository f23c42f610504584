"""The shipped rules on real orders of a marketplace: what they must find there, and how quiet they are otherwise."""

from __future__ import annotations

import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from shop import publish_rows

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.replay import replay
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.warehouse.manifest import MetricState
from metrics_pipeline.warehouse.read import Published

OLIST = Path(os.environ.get("METRICS_REAL_DATA", PROJECT_ROOT.parent / "shared" / "data")) / "olist"
FIRST, END = date(2017, 1, 5), date(2018, 8, 23)
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.slow,
    pytest.mark.skipif(not OLIST.is_dir(), reason=f"no real data in {OLIST}"),
]
_ROWS = """
WITH orders AS (
    SELECT o.*, c.customer_state AS region
    FROM '{olist}/orders.parquet' AS o JOIN '{olist}/customers.parquet' AS c USING (customer_id)
),
items AS (SELECT order_id, sum(price) AS price FROM '{olist}/order_items.parquet' GROUP BY order_id),
payments AS (SELECT order_id, sum(payment_value) AS paid FROM '{olist}/order_payments.parquet' GROUP BY order_id),
measures AS (
    SELECT 'orders_placed' AS metric, order_purchase_timestamp AS happened_at, region, 1.0 AS n, NULL::DOUBLE AS d FROM orders
    UNION ALL
    SELECT 'gmv', order_purchase_timestamp, region, price, NULL FROM orders JOIN items USING (order_id)
    UNION ALL
    SELECT 'orders_paid', order_approved_at, region, 1.0, NULL FROM orders
    UNION ALL
    SELECT 'average_order_value', order_approved_at, region, paid, 1.0 FROM orders JOIN payments USING (order_id)
    UNION ALL
    SELECT 'shipments_due', order_estimated_delivery_date, region, 1.0, NULL FROM orders
    UNION ALL
    SELECT 'late_delivery_rate', order_estimated_delivery_date, region,
        coalesce(CAST(order_delivered_customer_date AS DATE) > order_estimated_delivery_date, TRUE)::INTEGER::DOUBLE, 1.0
    FROM orders WHERE order_status NOT IN ('canceled', 'unavailable')
)
SELECT
    metric, date_trunc('day', happened_at)::TIMESTAMP AS period_start, 'day' AS grain, dimension,
    CASE dimension WHEN 'all' THEN 'all' ELSE region END AS member, sum(n) AS numerator, sum(d) AS denominator,
    sum(n) / coalesce(sum(d), 1) AS value, 'v1' AS definition_version
FROM measures, (VALUES ('all'), ('region')) AS dimensions (dimension)
WHERE happened_at >= '{first}'
GROUP BY ALL
"""


@pytest.fixture(scope="module")
def rules():
    loaded = load_rules(PROJECT_ROOT / "alert_rules", Catalogue.read(PROJECT_ROOT / "dbt_project"))
    return [rule for rule in loaded.rules if rule.grain == "day"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("olist")
    with duckdb.connect() as con:
        rows = con.sql(_ROWS.format(olist=OLIST, first=FIRST)).to_arrow_table()
    until = datetime(END.year, END.month, END.day)
    metrics = ("orders_placed", "gmv", "orders_paid", "average_order_value", "shipments_due", "late_delivery_rate")
    publish_rows(folder, rows, {name: MetricState("v1", until) for name in metrics})
    return Published.open(folder)


@pytest.fixture(scope="module")
def replayed(published, rules):
    return replay(published, rules, FIRST, END)


def test_black_friday_is_seen_in_orders_and_turnover_but_not_in_order_value(replayed):
    on_the_day = {
        episode.rule: episode for episode in replayed.episodes if episode.fired_at.date() == date(2017, 11, 24)
    }
    assert {"orders_anomaly", "gmv_anomaly"} <= set(on_the_day)
    assert on_the_day["orders_anomaly"].worst_observed > 0
    assert on_the_day["orders_anomaly"].worst_value == 1176
    assert "order_value_anomaly" not in on_the_day


def test_the_lateness_crisis_is_a_sustained_alert(replayed):
    crisis = [e for e in replayed.episodes if e.rule == "late_delivery_rate_high" and e.first_breach.year == 2018]
    assert any(e.first_breach.date() <= date(2018, 3, 21) and e.last_breach.date() >= date(2018, 4, 2) for e in crisis)


def test_a_person_gets_less_than_one_message_a_day(replayed):
    assert replayed.median_messages_per_day < 1
    assert sum(replayed.messages_per_day.values()) < 0.2 * len(replayed.messages_per_day)


def test_the_end_of_the_extract_is_late_data_not_an_alert(published, rules):
    now = datetime(2018, 9, 1, 12, tzinfo=UTC)
    result = evaluate(published, rules, END, date(2018, 9, 1), evaluated_at=now, run_id="end")
    assert result.breaches().empty
    frame = result.frame()
    assert set(frame[frame.rule == "orders_anomaly"].reason) == {"late"}
