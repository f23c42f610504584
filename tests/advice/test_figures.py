"""A text may say only what its facts say, however it writes it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.advice.figures import why_not

FACTS = [
    "核查 美妆 类目的退款原因（after-sales）。依据：退款率（地区=华北）13.2%（预期 5.2%，+153.8%）；渠道=app 解释变化的 82%。",
    "Paid amount 1,234,567 CNY (2,000,000 expected, -38.3%) on 2025-11-11, SKU-7 of warehouse 华东仓; refund_rate 0.123.",
    "Taken in 3 similar cases, helped in 2. Units sold 30. The share is 50%. Since 2025-11-09 14:00.",
]
OTHERS = ["华北", "华南", "华东仓", "华东", "app", "web", "alipay", "美妆", "食品", "GMV", "成交总额", "SKU-7", "SKU-8"]


@pytest.mark.parametrize(
    "text",
    [
        "华北的退款率升至 13.2%，预期为 5.2%。",
        "华北退款率约 13%，较预期高 154%。",
        "Paid amount fell to 1.23 million CNY, 38% below the 2 million expected.",
        "支付金额 123.5万元，预期 200 万元。",
        "支付金额约 0.0123亿元。",
        "About 1,234,567 were paid; refund_rate is 12.3%.",
        "The refund rate was 0.132 in 华北.",
        "2025年11月11日，SKU-7 的销量下降。",
        "On Nov 11 the warehouse 华东仓 was late.",
        "11月9日 14:00 开始。",
        "It was taken three times and helped twice.",
        "Half of it is explained; 五成可解释。",
        "解释了变化的百分之八十二，类似情况用过三次。",
        "先核查“美妆”类目的退款原因。",
        "1. 核查美妆类目。\n2. 观察退款率。",
        "Read the refund reasons of category 美妆 first. Then look at the app.",
        "一个类目造成了这次变化。",
    ],
)
def test_what_the_facts_say_may_be_said_in_other_ways(text):
    assert why_not(text, FACTS, others=OTHERS) == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("华北的退款率升至 14.2%。", "14.2%"),
        ("华北的退款率升至 13.25%。", "13.25%"),
        ("Paid amount fell by 40%.", "40%"),
        ("支付金额 125万元。", "125万"),
        ("退款率是预期的四倍。", "四倍"),
        ("退款率上升了两成。", "两成"),
        ("Refunds quadrupled.", "quadrupled"),
        ("Dozens of orders and 17 refunds.", "17"),
        ("It began on 2025-11-10.", "2025-11-10"),
        ("It began on 2024-11-11.", "2024-11-11"),
        ("从 11月12日 开始。", "11月12日"),
        ("Since Nov 12 it is high.", "Nov 12"),
        ("It began at 15:00.", "15:00"),
        ("昨天开始上升。", "昨天"),
        ("It began on Monday.", "monday"),
        ("华南的退款率升至 13.2%。", "华南"),
        ("食品类目退款上升。", "食品"),
        ("SKU-8 was refunded most.", "SKU-8"),
        ("Call alipay about it.", "alipay"),
        ("GMV is hit too.", "GMV"),
        ("成交总额也受影响。", "成交总额"),
        ("请联系“顺丰”。", "顺丰"),
        ("Ask the people at Contoso about it.", "Contoso"),
        ("see https://evil.example/x", "https://"),
        ("Write to a@b.cn", "a@b."),
        ("<b>ok</b>", "<b"),
        ("", "empty"),
        ("长" * 2000, "2000"),
        ("refund_amount is high", "refund_amount"),
    ],
)
def test_what_the_facts_do_not_say_is_found(text, what):
    assert what.lower() in why_not(text, FACTS, others=OTHERS).lower()


def test_a_name_inside_a_longer_name_that_is_a_fact_is_none():
    assert why_not("华东仓 延迟。", FACTS, others=OTHERS) == ""
    assert "华东" in why_not("华东 延迟。", FACTS, others=OTHERS)


@settings(max_examples=120, deadline=None)
@given(st.floats(0.001, 9e8), st.integers(0, 2), st.sampled_from(["{:,.%df}", "{:.%df}"]))
def test_a_rounded_fact_is_a_fact_and_a_tenth_more_is_none(value, decimals, form):
    fact = f"the value is {value:.6f}"
    shown = (form % decimals).format(value)
    assert why_not(f"it is {shown}", [fact]) == ""
    wrong = (form % decimals).format(value * 1.1 + 2)
    assert "not in the facts" in why_not(f"it is {wrong}", [fact])


@settings(max_examples=60, deadline=None)
@given(st.floats(20_000, 9e8))
def test_ten_thousands_are_read(value):
    fact = f"金额 {value:,.0f} 元"
    assert why_not(f"金额约 {value / 1e4:.1f}万元", [fact]) == ""
    assert "not in the facts" in why_not(f"金额约 {value / 1e4 * 1.2 + 1:.1f}万元", [fact])
