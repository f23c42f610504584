"""The words of the site, Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from metrics_pipeline.alerts.words import DIMENSIONS, Locale
from metrics_pipeline.library.versions import FIRST_SEEN, UNPROPOSED

Text = dict[Locale, str]
LOCALES: Final[tuple[Locale, ...]] = ("zh", "en")


def text(zh: str, en: str) -> Text:
    """The same in both languages."""
    return {"zh": zh, "en": en}


LAYERS: Final[dict[str, Text]] = {
    "strategic": text("战略层 KGI", "strategic KGI"),
    "operational": text("运营层 KPI", "operational KPI"),
    "base": text("基础层 PI", "base PI"),
}
STAGES: Final[dict[str, Text]] = {
    "traffic": text("流量", "traffic"),
    "conversion": text("转化", "conversion"),
    "fulfilment": text("履约", "fulfilment"),
    "after_sales": text("售后", "after-sales"),
}
CATEGORIES: Final[dict[str, Text]] = {
    "traffic": text("流量", "traffic"),
    "product": text("商品", "product"),
    "order": text("订单", "order"),
    "user": text("用户", "user"),
    "finance": text("财务", "finance"),
}
SENSITIVITIES: Final[dict[str, Text]] = {
    "public": text("公开", "public"),
    "internal": text("内部", "internal"),
    "confidential": text("机密", "confidential"),
}
DIRECTIONS: Final[dict[str, Text]] = {
    "higher_is_better": text("越高越好", "higher is better"),
    "lower_is_better": text("越低越好", "lower is better"),
    "neutral": text("无好坏之分", "neither is better"),
}
KINDS: Final[dict[str, Text]] = {
    "simple": text("汇总", "simple"),
    "ratio": text("比率", "ratio"),
    "derived": text("组合", "derived"),
    "cumulative": text("滚动累计", "moving window"),
    "conversion": text("转化", "conversion"),
}
REFRESHES: Final[dict[str, Text]] = {
    "nightly": text("每晚", "nightly"),
    "hourly": text("每小时", "hourly"),
}
UNITS: Final[dict[str, Text]] = {
    "ratio": text("比率", "ratio"),
    "score": text("得分", "score"),
    "orders": text("单", "orders"),
    "order lines": text("订单行", "order lines"),
    "visits": text("次访问", "visits"),
    "views": text("次浏览", "views"),
    "pages": text("页", "pages"),
    "people": text("人", "people"),
    "pieces": text("件", "pieces"),
    "parcels": text("包裹", "parcels"),
    "clicks": text("次点击", "clicks"),
    "complaints": text("件投诉", "complaints"),
    "days": text("天", "days"),
    "skus": text("个 SKU", "SKUs"),
}
CHANGES: Final[dict[str, Text]] = {
    "formula": text("公式", "formula"),
    "inputs": text("输入", "inputs"),
    "targets": text("目标", "targets"),
    "owner": text("负责人", "owner"),
    "effective": text("生效日期", "effective date"),
    "text": text("文字", "text"),
}
TIERS: Final[dict[str, Text]] = {"red": text("红色", "red"), "yellow": text("黄色", "yellow")}
WITHHELD: Final = text(
    "此指标为机密:本站不含其数值、图表与告警记录。",
    "This metric is confidential: its values, chart and alerts are not on this site.",
)
NOT_GIVEN: Final = text(
    "您无权查看此指标的合计:此处不含其数值、图表与告警记录。",
    "You may not see the totals of this metric: its values, chart and alerts are not here.",
)
NOTHING: Final = text("尚无已发布的数值。", "No values are published yet.")


def named(words: Mapping[str, Text], name: str) -> Text:
    """The word for a name, or the name itself."""
    return words.get(name) or text(name, name)


def slice_text(slice_: str) -> Text:
    """`地区 × 渠道` for `region|channel`."""
    if slice_ == "all":
        return text("全部", "total")
    parts = [named(DIMENSIONS, name) for name in slice_.split("|")]
    return text(" × ".join(part["zh"] for part in parts), " × ".join(part["en"] for part in parts))


REASONS: Final[dict[str, Text]] = {
    FIRST_SEEN: text("首次记录", FIRST_SEEN),
    UNPROPOSED: text("直接改了文件，没有提案", UNPROPOSED),
}
"""Reasons of versions that nobody wrote; those of people are shown as they are."""
