"""What people read. Golden files: `METRICS_UPDATE_GOLDEN=1 pytest tests/delivery/test_messages.py` rewrites them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from metrics_pipeline.advice.told import NOTHING
from metrics_pipeline.alerts.notice import Counts, Notice
from metrics_pipeline.alerts.words import number, slice_name
from metrics_pipeline.delivery.forms import fields
from metrics_pipeline.delivery.messages import Message, Wording, compose
from metrics_pipeline.diagnosis.attached import UNEXPLAINED
from tests.alerts.builders import make_card
from tests.delivery.builders import (
    BLANK,
    make_alarm,
    make_composite,
    make_drill,
    make_drill_card,
    make_end,
    make_explained,
    make_notice,
    make_shelf_told,
    make_slice,
    make_stale,
    make_stockout,
    make_told,
)

GOLDEN = Path(__file__).parent / "golden"

STORM = make_notice(
    reason="new_alerts",
    counts=Counts(new=4_990, firing=5_000, red=120, no_data=7),
    slices=tuple(make_slice(f"sku-{n:02}", dimension="sku", instance=f"stock{{sku=sku-{n:02}}}") for n in range(20)),
)
CASES = {
    "first_zh": (make_notice(), Wording("zh")),
    "first_en": (make_notice(), Wording("en", ui_url="https://dagster.shop/")),
    "escalated_zh": (
        make_notice(
            reason="escalated", counts=Counts(escalated=1, firing=1, red=1), slices=(make_slice(change="escalated"),)
        ),
        Wording("zh"),
    ),
    "resolved_zh": (make_end(), Wording("zh")),
    "some_resolved_en": (
        make_end(
            reason="some_resolved",
            tier="yellow",
            counts=Counts(ended=1, firing=1),
            slices=(*make_end().slices, make_slice("华东", tier="yellow", change="ongoing", value=0.09)),
        ),
        Wording("en"),
    ),
    "corrected_en": (make_end(slices=(make_slice(change="corrected", value=0.051),)), Wording("en")),
    "storm_zh": (STORM, Wording("zh")),
    "drill_zh": (make_drill(), Wording("zh")),
}
GOLDENS = {
    **CASES,
    "composite_zh": (make_composite(), Wording("zh")),
    "freshness_en": (make_stale(), Wording("en")),
    "alarm_zh": (make_alarm(), Wording("zh")),
    "advised_zh": (make_notice(), Wording("zh")),
    "advised_en": (make_notice(), Wording("en")),
    "stockout_zh": (make_stockout(), Wording("zh")),
    "stockout_en": (make_stockout(), Wording("en")),
    "explained_zh": (make_notice(), Wording("zh")),
    "explained_en": (make_notice(), Wording("en")),
}
"""The message of `advised_*` comes with advice, that of `stockout_*` with an order to place, that of `explained_*` with a diagnosis."""


def golden(name: str) -> Message:
    return compose(
        *GOLDENS[name],
        told=make_told()
        if name.startswith("advised")
        else make_shelf_told()
        if name.startswith("stockout")
        else NOTHING,
        explained=make_explained() if name.startswith("explained") else UNEXPLAINED,
    )


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("kind", ["txt", "html"])
def test_messages_are_as_agreed(name, kind):
    message = golden(name)
    text = message.text if kind == "txt" else message.html_with("cid:plot" if message.notice.series else None, None)
    path = GOLDEN / f"{name}.{kind}"
    if os.environ.get("METRICS_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_every_message_says_both_languages_who_where_and_the_link(name):
    notice, wording = CASES[name]
    text = compose(notice, wording).text
    for said in (
        "Refund rate",
        "退款率",
        "after-sales",
        "checkDetail=refund_rate_surge",
        "https://wiki.example/refunds",
    ):
        assert said in text
    assert "/assets/operational/refund_rate?view=checks" in text


def test_a_stock_out_alert_says_how_likely_when_and_what_to_order():
    message = compose(make_stockout(), Wording("zh"), told=make_shelf_told())
    assert message.title == "[红色报警] 库存量：SKU=SKU-7 断货概率 82%（阈值 70%），共 2 个切片"
    facts = message.named_facts_in("zh")
    assert facts["worst"] == "SKU=SKU-7 断货概率 82%，阈值 70%，当前库存量 34"
    for said in ("最迟 2025-11-21 向 Acme 订 240 件（整箱 24 件），约 2025-11-26 到货", "预计 2025-11-23 断货"):
        assert said in facts["advice"]
    assert message.table_rows[1].cells[2:4] == ("1,200 · 断货概率 34%", "30%")
    assert facts["bound"] == "断货概率 stockout(lead): 黄色提醒 > 30% · 红色报警 > 70%"
    unknown = replace(make_stockout().slices[0], observed=None)
    unjudged = compose(replace(make_stockout(), slices=(unknown,)))
    assert unjudged.table_rows[0].cells[2] == "34"
    assert unjudged.title == "[红色报警] 库存量：SKU=SKU-7 34，共 2 个切片"
    said = fields(message, "en")
    assert (said["value"], said["bound"]) == ("chance of a stock-out 82%", "70%")


def test_orders_of_the_other_shelves_are_told_too_five_at_most():
    told = make_shelf_told()
    message = compose(make_stockout(), told=replace(told, further=told.advice[:1] * 7))
    facts = message.named_facts_in("zh")
    assert facts["further"].count("补货 SKU-7：最迟 2025-11-21 向 Acme 订 240 件") == 5
    assert facts["further"].endswith("另有 2 项")
    assert message.named_facts_in("en")["further"].endswith("and 2 more")
    assert "further" not in compose(make_stockout(), told=told).named_facts_in("zh")


@pytest.mark.parametrize(
    ("expression", "foresees"),
    [
        ("value", ""), ("stockout(3d)", "stockout"), ("forecast(7d, below=target)", "below"),
        ("forecast(7d, above=1000)", "above"), ("forecast(7d)", "mean"), ("band(forecast)", ""),
    ],
)  # fmt: skip
def test_what_a_rule_foresees_follows_from_its_expression(expression, foresees):
    card = make_card(expression=expression, yellow_if="> 0.3", red_if="> 0.7")
    assert card.foresees == foresees
    is_chance = foresees in ("stockout", "below", "above")
    assert (card.chance_bound("yellow"), card.chance_bound("red")) == ((0.3, 0.7) if is_chance else (None, None))


def test_a_storm_says_how_many_it_does_not_list():
    assert "另有 4,980 个切片未列出" in compose(STORM).text
    assert "Not listed: 4,980 slices" in compose(STORM, Wording("en")).text


def test_a_late_message_says_that_it_is_over_already():
    notice = make_notice()
    message = compose(notice, Wording("en"), over=[notice.slices[0].instance])
    assert "Of the slices listed, 1 ended before this was sent" in message.text


def test_a_drill_says_so_first_in_both_languages():
    message = compose(make_drill(), Wording("en"))
    assert message.title == "[DRILL · RED] Refund rate: region=华北"
    assert message.title_in("zh") == "[演练 · 红色报警] 退款率：地区=华北"
    for locale in ("zh", "en"):
        name, sentence = next(iter(message.named_facts_in(locale).items()))
        assert (name, "metrics alerts ack drill:refund_rate_surge --by" in sentence) == ("drill", True)
    assert message.plot.tier == "none"
    end = compose(
        make_drill(reason="all_resolved", counts=Counts(ended=1), slices=(make_slice(change="resolved", value=None),))
    )
    assert end.title == "[演练 · 已恢复] 退款率：地区=华北"


def test_a_digest_with_a_drill_in_it_is_no_drill_but_names_it():
    drill = make_slice("华东", rule="drill:refund_rate_surge", name_en="Refund rate")
    digest = compose(make_notice(reason="digest", slices=(make_slice(), drill)), Wording("en"))
    assert digest.title.startswith("[DIGEST]: 2 slices")
    assert [row.cells[0] for row in digest.table_rows] == ["region=华北", "Refund rate · DRILL · region=华东"]
    turned = make_notice(
        reason="digest", rule=make_drill_card(), slices=(make_slice(), make_slice("华东", rule="refund_rate_surge"))
    )
    assert not compose(turned).is_drill
    assert [row.cells[0] for row in compose(turned).table_rows] == ["演练 · 地区=华北", "refund_rate_surge · 地区=华东"]


def test_a_freshness_slice_in_a_digest_of_others_says_how_old_its_data_are():
    stale = make_slice(
        "all", dimension="all", rule="gmv_stale", name_zh="成交总额", name_en="GMV", unit="currency", kind="freshness",
        **{**BLANK, "observed": 38.5},
    )  # fmt: skip
    digest = compose(make_notice(reason="digest", slices=(make_slice(), stale), contributors=(stale,), contributing=1))
    assert digest.table_rows[1].cells[:4] == ("成交总额 · 全部", "红 · 新", "38.5 小时", "–")
    assert digest.named_facts_in("en")["incident"] == "1 more below it: GMV · total 38.5 h"
    among_fresh = compose(
        make_notice(rule=make_stale().rule, slices=(*make_stale().slices, make_slice(rule="x", unit="ratio")))
    )
    assert [row.cells[2] for row in among_fresh.table_rows] == ["38.5 小时", "13.2%"]


def test_hours_and_days_in_one_table_can_be_told_apart():
    at_two = datetime(2025, 11, 11, 14)
    both = compose(
        make_notice(
            slices=(make_slice(grain="day"), make_slice(grain="hour", since=at_two, rule="x", name_en="Refund rate"))
        )
    )
    assert [(row.cells[0], row.cells[5]) for row in both.table_rows_in("zh")] == [
        ("地区=华北（日）", "2025-11-11"),
        ("Refund rate · 地区=华北（小时）", "2025-11-11 14:00"),
    ]
    assert both.table_rows_in("en")[1].cells[0] == "Refund rate · region=华北 (hourly)"
    assert (
        compose(make_notice(slices=(make_slice(grain="day"), make_slice("华东")))).table_rows[0].cells[0] == "地区=华北"
    )


def test_names_are_escaped_in_html_and_kept_in_text():
    evil = "<script>alert(1)</script>"
    notice = make_notice(
        slices=(make_slice(evil),), rule=make_card(owner=evil, annotations={"runbook": "javascript:x"})
    )
    html = compose(notice).html_with('"><script>', '"><script>')
    assert "<script>" not in html
    assert 'href="javascript' not in html
    assert evil in compose(notice).text


def test_a_title_is_one_short_line():
    notice = make_notice(slices=(make_slice("很长的名字\n" * 60),))
    assert "\n" not in compose(notice).title
    assert len(compose(notice).title) <= 160


def test_a_notice_survives_json():
    for notice, _ in GOLDENS.values():
        assert Notice.from_json(json.loads(json.dumps(notice.to_json()))) == notice


def test_what_is_unknown_is_not_shown_as_zero():
    bare = make_slice(
        value=None, observed=None, lower=None, upper=None, yellow_bound=None, red_bound=None, baseline=None
    )
    notice = make_notice(
        slices=(bare,), counts=Counts(new=1, firing=1), rule=make_card(why="", owner="", annotations={}), series=None
    )
    text = compose(notice, Wording("en")).text
    assert not re.search(r"\b0(\.0+)?%", text)
    assert "None" not in text


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.132, "ratio", "13.2%"),
        (0.00123, "ratio", "0.123%"),
        (-0.3, "ratio", "-30.0%"),
        (1234567.8, "currency", "1,234,568 CNY"),
        (12.5, "currency", "12.50 CNY"),
        (2.5, "days", "2.50"),
        (12345.0, "orders", "12,345"),
        (None, "ratio", "–"),
    ],
)
def test_numbers_are_written_as_people_do(value, unit, expected):
    assert number(value, unit, currency="CNY") == expected


def test_slices_are_named_in_the_readers_language():
    assert slice_name("region|channel", "华北|app", "zh") == "地区=华北 · 渠道=app"
    assert slice_name("region|channel", "华北|app", "en") == "region=华北 · channel=app"
    assert slice_name("all", "all", "en") == "total"
    assert slice_name("sku", "A|B", "en") == "SKU=A|B"
