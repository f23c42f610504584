"""The merchandise shop: an export of web analytics sessions with their purchases (`sessions.parquet`).

`date` is the day of the shop (Los Angeles) and authoritative: analytics cuts a visit at midnight, and the second half
keeps the start of the first, so such a session starts at midnight of its own day. A visitor without an id is one per
visit. Purchases have no ids and no lines: a session with n purchases becomes n orders of an equal share of its revenue.
"""

from __future__ import annotations

from metrics_pipeline.sources.coverage import Days
from metrics_pipeline.sources.extract import Extract
from metrics_pipeline.sources.source import Absence, SourceInfo

TIMEZONE = "America/Los_Angeles"
_NOT_EXPORTED = Absence("The export does not contain it.", "导出数据不包含该字段。")

_VISITS = f"""
    SELECT
      visitor_id || '-' || visitId || '-' || strftime(date, '%Y%m%d')
        || CASE WHEN repetition > 1 THEN '-' || repetition ELSE '' END AS session_id,
      greatest(
        timezone('UTC', visit_start_utc),
        timezone('UTC', timezone('{TIMEZONE}', CAST(date AS TIMESTAMP)))
      ) AS started_at,
      *
    FROM (
      SELECT
        coalesce(CAST(fullVisitorId AS VARCHAR), 's' || visitId) AS visitor_id,
        row_number() OVER (
          PARTITION BY coalesce(CAST(fullVisitorId AS VARCHAR), 's' || visitId), visitId, date
          ORDER BY visit_start_utc, visitNumber, hits, channelGrouping, source, country, deviceCategory,
            pageviews, timeOnSite, totalTransactionRevenue
        ) AS repetition,
        *
      FROM {{sessions}}
    ) AS visits
"""
_PURCHASES = f"""
    SELECT *, session_id || '-o' || purchase_no AS order_id
    FROM (
      SELECT *, unnest(range(1, CAST(transactions AS BIGINT) + 1)) AS purchase_no
      FROM ({_VISITS}) AS visits
      WHERE transactions > 0
    ) AS purchases
"""

_SELECTS = {
    "customers": f"SELECT visitor_id AS customer_id, arg_max(country, started_at) AS region FROM ({_PURCHASES}) AS p GROUP BY 1",
    "sessions": f"""
        SELECT
          session_id,
          started_at,
          visitor_id,
          country AS region,
          channelGrouping AS channel,
          CASE WHEN visitNumber = 1 THEN 'new' ELSE 'returning' END AS segment,
          coalesce(pageviews, 0) AS page_views,
          coalesce(bounces, 0) = 1 AS is_bounced
        FROM ({_VISITS}) AS visits
    """,
    "orders": f"""
        SELECT
          order_id,
          started_at AS ordered_at,
          visitor_id AS customer_id,
          session_id,
          country AS region,
          channelGrouping AS channel,
          CASE WHEN visitNumber = 1 THEN 'new' ELSE 'returning' END AS segment,
          totalTransactionRevenue / transactions AS items_amount
        FROM ({_PURCHASES}) AS purchases
    """,
    "payments": f"""
        SELECT
          order_id || '-p' AS payment_id,
          order_id,
          started_at AS paid_at,
          started_at AS ordered_at,
          true AS is_successful,
          totalTransactionRevenue / transactions AS amount
        FROM ({_PURCHASES}) AS purchases
    """,
}


class MerchStoreSource(Extract):
    """Reads a folder with `sessions.parquet`; implements `sources.source.Source`."""

    files = ("sessions",)
    selects = _SELECTS
    info = SourceInfo(
        "merch_store",
        TIMEZONE,
        "USD",
        {
            "products": Absence("The export has no products.", "导出数据没有商品。"),
            "campaigns": Absence("The export has no campaigns.", "导出数据没有营销活动。"),
            "product_views": Absence("The export has sessions, not page hits.", "导出数据只有会话,没有页面明细。"),
            "order_items": Absence("Purchases have a total and no lines.", "交易只有总额,没有明细行。"),
            "refunds": Absence("The export has no refunds.", "导出数据没有退款。"),
            "shipments": Absence("The export has no deliveries.", "导出数据没有履约信息。"),
            "complaints": Absence("The export has no complaints.", "导出数据没有客诉。"),
            "inventory_snapshots": Absence("The export has no stock.", "导出数据没有库存。"),
            "ad_spend": Absence("The export has no advertising cost.", "导出数据没有广告花费。"),
            "customers.registered_at": _NOT_EXPORTED,
            "customers.city": _NOT_EXPORTED,
            "customers.segment": _NOT_EXPORTED,
            "customers.email": _NOT_EXPORTED,
            "customers.phone": _NOT_EXPORTED,
            "sessions.customer_id": _NOT_EXPORTED,
            "sessions.campaign_id": _NOT_EXPORTED,
            "orders.campaign_id": _NOT_EXPORTED,
            "orders.payment_method": _NOT_EXPORTED,
            "orders.discount_amount": _NOT_EXPORTED,
            "orders.freight_amount": _NOT_EXPORTED,
            "payments.payment_method": _NOT_EXPORTED,
        },
    )

    def complete_days(self, table: str) -> tuple[Days, ...]:
        """All tables come from the sessions and are complete for the same days."""
        return self.volume_days("SELECT date AS day, count(*) FROM {sessions} GROUP BY date")
