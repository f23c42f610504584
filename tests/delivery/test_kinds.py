"""From rules and values to words: composite rules name their parts, freshness says how old the data are."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import pytest
import sqlalchemy as sa

from metrics_pipeline.alerts import Notice, apply_verdicts
from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.delivery.messages import Message, Wording, compose
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.model import COMPOSITE_THRESHOLDS, Rule
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store.tables import outbox
from tests.rules.shop import Shop, make_rule

FIRST = date(2025, 1, 6)
NIGHT = datetime(2025, 1, 8, 1)
"""The night after the second day, shop-local."""
FEW = make_rule(alert="few_orders", metric="orders_paid", yellow_if="< 50", red_if="< 20", **{"for": 3})
REFUNDS = make_rule(alert="many_refunds", metric="refund_rate", by=["region"], yellow_if="> 0.08", red_if="> 0.12")
GMV = make_rule(alert="low_gmv", metric="gmv", yellow_if="< 1000")
TROUBLE = make_rule(
    alert="trouble", metric="order_health", by=["region"],
    all_of=["few_orders", {"any_of": ["many_refunds", "low_gmv"]}], **COMPOSITE_THRESHOLDS,
)  # fmt: skip
STALE = make_rule(alert="stale_orders", metric="orders_paid", expr="freshness()", yellow_if="> 30", red_if="> 48")


@lru_cache(maxsize=1)
def metrics():
    return Catalogue.read(PROJECT_ROOT / "dbt_project").metrics


@pytest.fixture
def told(store, tmp_path):
    """What one night says of these rules and values, in a language; nights are told apart by their clock."""

    def night(shop: Shop, *rules: Rule, locale: str = "zh", now: datetime = NIGHT) -> list[Message]:
        published = shop.publish(tmp_path / f"{now:%d%H}", created_at=now)
        found = evaluate(published, rules, FIRST, now.date(), evaluated_at=now, run_id="r")
        before = len(messages(locale))
        cards = cards_of(rules, metrics())
        apply_verdicts(store, found.table, cards, receivers=["file"], now=now.replace(tzinfo=UTC))
        return messages(locale)[before:]

    def messages(locale: str) -> list[Message]:
        with store.reading() as connection:
            payloads = connection.execute(sa.select(outbox.c.payload).order_by(outbox.c.id)).scalars()
            return [compose(Notice.from_json(payload), Wording(locale)) for payload in payloads]

    return night


def values(orders: float = 12.0, gmv: float = 5000.0) -> Shop:
    shop = Shop().add("orders_paid", [100.0, orders], first=FIRST).add("gmv", [5000.0, gmv], first=FIRST)
    for member, rate in (("华北", 0.132), ("华东", 0.03)):
        shop.add("refund_rate", [0.03, rate], dimension="region", member=member, first=FIRST)
        shop.add("order_health", [0.9, 0.9], dimension="region", member=member, first=FIRST)
    return shop


def test_a_composite_names_its_rules_with_their_figures_in_its_own_slice(told):
    [refunds, trouble] = sorted(
        told(values(), FEW, REFUNDS, GMV, TROUBLE), key=lambda one: one.notice.rule.id == "trouble"
    )
    assert refunds.notice.parts == ()
    assert trouble.notice.slices[0].member == "华北"
    assert trouble.named_facts_in("zh")["parts"] == (
        "few_orders: 支付订单数 · 全部 12（阈值 20，红）；"
        "many_refunds: 退款率 · 地区=华北 13.2%（阈值 12.0%，红）；"
        "low_gmv: 成交总额 · 全部 5,000 CNY（阈值 1,000 CNY，正常）"
    )
    assert "Refund rate · region=华北 13.2% (threshold 12.0%, red)" in trouble.named_facts_in("en")["parts"]
    assert "支付订单数 · 全部 12、退款率 · 地区=华北 13.2%" in trouble.title
    assert ">= 1" not in trouble.text
    assert Notice.from_json(trouble.notice.to_json()) == trouble.notice


def test_the_end_of_a_composite_says_what_its_rules_show_now(told):
    rules = (FEW, REFUNDS, GMV, TROUBLE)
    told(values(), *rules)
    shop = values()
    for metric in ("orders_paid", "gmv"):
        shop.add(metric, [9000.0], first=FIRST + timedelta(days=2))
    for member in ("华北", "华东"):
        shop.add("refund_rate", [0.02], dimension="region", member=member, first=FIRST + timedelta(days=2))
        shop.add("order_health", [0.9], dimension="region", member=member, first=FIRST + timedelta(days=2))
    ends = [one for one in told(shop, *rules, now=NIGHT + timedelta(days=1)) if one.notice.rule.id == "trouble"]
    assert [one.notice.reason for one in ends] == ["all_resolved"]
    assert "退款率 · 地区=华北 2.0%（阈值 8.0%，正常）" in ends[0].text
    assert "支付订单数 · 全部 9,000（阈值 50，正常）" in ends[0].text


def test_freshness_says_how_old_the_data_are_and_how_old_they_may_be(told):
    orders = Shop().add("orders_paid", [100.0], first=FIRST)
    [first] = told(orders, STALE, now=datetime(2025, 1, 8, 9))
    assert first.title == "[黄色提醒] 支付订单数：数据已 33 小时未更新（应在 30 小时内）"
    assert first.title_in("en") == "[YELLOW] Orders paid: the data are 33 h old (expected within 30 h)"
    assert first.named_facts_in("en")["worst"] == "the data are 33 h old (expected within 30 h)"
    assert first.table_rows_in("zh")[0].cells[2] == "33 小时"
    assert first.plot is None
    [red] = told(orders, STALE, now=datetime(2025, 1, 9, 9))
    assert red.title_in("en") == "[RED] Orders paid: the data are 2 days 9 h old (expected within 2 days 0 h)"
    orders.add("orders_paid", [100.0, 100.0, 100.0], first=FIRST + timedelta(days=1))
    [end] = told(orders, STALE, now=datetime(2025, 1, 10, 2, 30))
    assert end.title == "[已恢复] 支付订单数：数据已恢复更新（距今 2.5 小时）"
    assert end.title_in("en") == "[RESOLVED] Orders paid: the data came (now 2.5 h old)"
