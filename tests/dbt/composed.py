"""One metric of every form that `metrics library compose` knows, for the small shop: the oracle compares them like all others."""

from __future__ import annotations

from pathlib import Path

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compose import Form, Request, compose, saved


def _asked(form: Form, id: str, name_zh: str, **fields: object) -> Request:
    return Request(form=form, id=id, label=id.replace("_", " ").capitalize(), name_zh=name_zh, **fields)  # type: ignore[arg-type]


REQUESTS = (
    _asked("expr", "net_paid_amount", "退款后支付额", expression="paid_amount - refund_amount"),
    _asked(
        "expr", "service_score", "服务得分", unit="score",
        expression="0.6 * payment_conversion_rate + 0.4 * (1 - complaint_rate)",
    ),
    _asked("ratio", "refunds_per_placed", "下单退款率", inputs=("refunded_orders", "orders_placed")),
    _asked("cumulative", "orders_placed_14d", "近14日下单量", inputs=("orders_placed",), days=14),
    _asked("cumulative", "gmv_7d", "近7日成交额", inputs=("gmv",), days=7),
    _asked("average", "daily_page_views", "近7日日均浏览量", inputs=("page_views",), days=7),
    _asked("growth", "orders_paid_growth_7d", "支付单量周同比", inputs=("orders_paid",), days=7, grain="hour"),
    _asked("ratio", "views_per_visit", "单次访问浏览量", inputs=("page_views", "sessions"), grain="hour"),
    _asked("growth", "arpu_growth_28d", "客均收入环比", inputs=("arpu",), days=28),
    _asked("change", "refund_rate_change_7d", "退款率周变动", inputs=("refund_rate",), days=7),
    _asked(
        "conversion", "orders_paid_within_2d", "两日内支付订单数",
        inputs=("orders_placed", "orders_with_payment"), entity="order", days=2,
    ),
    _asked(
        "ratio", "payment_within_2d_rate", "两日内支付率", inputs=("orders_paid_within_2d", "orders_placed"),
    ),
    _asked("ratio", "net_paid_per_gmv", "净支付占比", inputs=("net_paid_amount", "gmv_7d")),
)  # fmt: skip
"""In the order in which they are composed: the last ones are made of composed ones."""


def compose_all(project: Path) -> None:
    """Compose and save them, one after the other, as the command does."""
    for request in REQUESTS:
        with saved(compose(Catalogue.read(project), request)):
            pass
