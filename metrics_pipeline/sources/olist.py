"""Olist: the public extract of a Brazilian marketplace (orders, items, payments, reviews, customers, products, sellers).

Its clocks are naive local time of São Paulo, where clocks went forward at midnight: a time that never was is read as
the hour after, so that it stays in its day. Only the final status of an order is known, so everything is replayed from
timestamps: a payment is the approval of an order, a parcel is any order that was not canceled or unavailable, promised
for the end of its estimated day, and a complaint is a review with one or two stars, by the day it was asked for.
"""

from __future__ import annotations

from metrics_pipeline.sources.coverage import Days, common_days
from metrics_pipeline.sources.extract import Extract, since
from metrics_pipeline.sources.source import Absence, SourceInfo

TIMEZONE = "America/Sao_Paulo"
_NOT_RECORDED = Absence("The extract does not record it.", "数据集未记录。")


def _utc(local: str) -> str:
    return f"timezone('UTC', timezone('{TIMEZONE}', {local}))"


_SELECTS = {
    "customers": """
        SELECT
          c.customer_unique_id AS customer_id,
          arg_max(c.customer_state, o.order_purchase_timestamp) AS region,
          arg_max(c.customer_city, o.order_purchase_timestamp) AS city
        FROM {customers} AS c JOIN {orders} AS o USING (customer_id)
        GROUP BY c.customer_unique_id
    """,
    "products": """
        SELECT product_id, coalesce(product_category_name_english, product_category_name) AS category
        FROM {products}
    """,
    "orders": f"""
        WITH items AS (
          SELECT order_id, CAST(sum(CAST(price AS DECIMAL(18,4))) AS DECIMAL(18,4)) AS items_amount,
            CAST(sum(CAST(freight_value AS DECIMAL(18,4))) AS DECIMAL(18,4)) AS freight_amount
          FROM {{order_items}} GROUP BY order_id
        ),
        methods AS (
          SELECT order_id, first(payment_type ORDER BY payment_value DESC, payment_sequential) AS payment_method
          FROM {{order_payments}} GROUP BY order_id
        )
        SELECT
          o.order_id,
          {_utc("o.order_purchase_timestamp")} AS ordered_at,
          c.customer_unique_id AS customer_id,
          c.customer_state AS region,
          methods.payment_method,
          items.items_amount,
          items.freight_amount
        FROM {{orders}} AS o
        LEFT JOIN {{customers}} AS c USING (customer_id)
        LEFT JOIN items USING (order_id)
        LEFT JOIN methods USING (order_id)
    """,
    "order_items": f"""
        SELECT
          i.order_id,
          i.order_item_id AS line_no,
          {_utc("o.order_purchase_timestamp")} AS ordered_at,
          i.product_id,
          1 AS quantity,
          i.price AS unit_price
        FROM {{order_items}} AS i LEFT JOIN {{orders}} AS o USING (order_id)
    """,
    "payments": f"""
        SELECT
          p.order_id || '-' || p.payment_sequential AS payment_id,
          p.order_id,
          {_utc("o.order_approved_at")} AS paid_at,
          {_utc("o.order_purchase_timestamp")} AS ordered_at,
          p.payment_type AS payment_method,
          true AS is_successful,
          p.payment_value AS amount
        FROM {{order_payments}} AS p JOIN {{orders}} AS o USING (order_id)
        WHERE o.order_approved_at IS NOT NULL
    """,
    "shipments": f"""
        WITH senders AS (
          SELECT i.order_id, first(s.seller_state ORDER BY i.order_item_id) AS seller_state
          FROM {{order_items}} AS i JOIN {{sellers}} AS s USING (seller_id)
          GROUP BY i.order_id
        )
        SELECT
          o.order_id AS shipment_id,
          o.order_id,
          {_utc("date_trunc('day', o.order_estimated_delivery_date) + INTERVAL 86399 SECOND")} AS promised_at,
          {_utc("o.order_delivered_carrier_date")} AS shipped_at,
          {_utc("o.order_delivered_customer_date")} AS delivered_at,
          senders.seller_state AS warehouse,
          c.customer_state AS region
        FROM {{orders}} AS o
        LEFT JOIN {{customers}} AS c USING (customer_id)
        LEFT JOIN senders USING (order_id)
        WHERE o.order_status NOT IN ('canceled', 'unavailable')
    """,
    "complaints": f"""
        WITH single AS (
          SELECT order_id, min(product_id) AS product_id
          FROM {{order_items}} GROUP BY order_id HAVING count(DISTINCT product_id) = 1
        )
        SELECT
          r.review_id || '-' || r.order_id AS complaint_id,
          {_utc("r.review_creation_date")} AS complained_at,
          r.order_id,
          single.product_id,
          c.customer_state AS region,
          CASE r.review_score WHEN 1 THEN 'one star' ELSE 'two stars' END AS topic
        FROM {{order_reviews}} AS r
        JOIN {{orders}} AS o USING (order_id)
        LEFT JOIN {{customers}} AS c USING (customer_id)
        LEFT JOIN single USING (order_id)
        WHERE r.review_score <= 2
    """,
}
_ORDERED_DAYS = "SELECT CAST(order_purchase_timestamp AS DATE) AS day, count(*) FROM {orders} GROUP BY day"
_APPROVED_DAYS = "SELECT CAST(order_approved_at AS DATE) AS day, count(*) FROM {orders} GROUP BY day"
_DUE_DAYS = "SELECT CAST(order_estimated_delivery_date AS DATE) AS day, count(*) FROM {orders} GROUP BY day"
_DELIVERED_DAYS = "SELECT CAST(order_delivered_customer_date AS DATE) AS day, count(*) FROM {orders} GROUP BY day"
_REVIEWED_DAYS = "SELECT CAST(review_creation_date AS DATE) AS day, count(*) FROM {order_reviews} GROUP BY day"


class OlistSource(Extract):
    """Reads a folder of the Olist extract as Parquet; implements `sources.source.Source`."""

    files = ("orders", "order_items", "order_payments", "order_reviews", "customers", "products", "sellers")
    selects = _SELECTS
    info = SourceInfo(
        "olist",
        TIMEZONE,
        "BRL",
        {
            "campaigns": Absence("Olist has no marketing campaigns.", "Olist 没有营销活动数据。"),
            "sessions": Absence("Olist has no visits.", "Olist 没有访问会话数据。"),
            "product_views": Absence("Olist has no product page views.", "Olist 没有商品浏览数据。"),
            "refunds": Absence(
                "Olist has no refunds; canceled and unavailable orders are not refunds.",
                "Olist 没有退款数据;取消或缺货订单不等于退款。",
            ),
            "inventory_snapshots": Absence("Olist has no stock.", "Olist 没有库存数据。"),
            "ad_spend": Absence("Olist has no advertising.", "Olist 没有广告投放数据。"),
            "customers.registered_at": _NOT_RECORDED,
            "customers.segment": _NOT_RECORDED,
            "customers.email": _NOT_RECORDED,
            "customers.phone": _NOT_RECORDED,
            "products.name": _NOT_RECORDED,
            "products.supplier": _NOT_RECORDED,
            "products.unit_cost": _NOT_RECORDED,
            "products.list_price": _NOT_RECORDED,
            "products.safety_stock": _NOT_RECORDED,
            "products.lead_time_days": _NOT_RECORDED,
            "products.pack_size": _NOT_RECORDED,
            "products.listed_on": _NOT_RECORDED,
            "products.is_active": _NOT_RECORDED,
            "orders.session_id": _NOT_RECORDED,
            "orders.channel": _NOT_RECORDED,
            "orders.segment": _NOT_RECORDED,
            "orders.campaign_id": _NOT_RECORDED,
            "orders.discount_amount": _NOT_RECORDED,
            "shipments.carrier": _NOT_RECORDED,
            "complaints.channel": _NOT_RECORDED,
        },
    )

    def complete_days(self, table: str) -> tuple[Days, ...]:
        """Orders and items by purchases; payments also by approvals; parcels by due *and* delivered days; complaints by
        reviews of any score. The last two end after the orders do, and none begins before the orders.
        """
        ordered = self.volume_days(_ORDERED_DAYS)
        if not ordered:
            return ()
        if table == "payments":
            return common_days(ordered, self.volume_days(_APPROVED_DAYS))
        if table == "shipments":
            settled = common_days(self.volume_days(_DUE_DAYS), self.volume_days(_DELIVERED_DAYS))
            return since(settled, ordered[0].first)
        if table == "complaints":
            return since(self.volume_days(_REVIEWED_DAYS), ordered[0].first)
        return ordered
