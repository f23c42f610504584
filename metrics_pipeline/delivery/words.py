"""The words of messages, Chinese and English, and how numbers, times and slices are written."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

Locale = Literal["zh", "en"]

WORDS: Final[dict[str, dict[Locale, str]]] = {
    "red": {"zh": "红色报警", "en": "RED"},
    "yellow": {"zh": "黄色提醒", "en": "YELLOW"},
    "over": {"zh": "已恢复", "en": "RESOLVED"},
    "corrected": {"zh": "已更正", "en": "CORRECTED"},
    "cancelled": {"zh": "已取消", "en": "CANCELLED"},
    "fewer": {"zh": "部分恢复", "en": "PARTLY RESOLVED"},
    "reason.first": {"zh": "新报警", "en": "new alert"},
    "reason.new_alerts": {"zh": "有新的切片", "en": "new slices"},
    "reason.escalated": {"zh": "升级为红色", "en": "escalated to red"},
    "reason.some_resolved": {"zh": "部分切片恢复", "en": "some slices resolved"},
    "reason.all_resolved": {"zh": "全部恢复", "en": "all resolved"},
    "reason.cancelled": {"zh": "规则已停用", "en": "the rule was retired"},
    "reason.repeat": {"zh": "重复提醒", "en": "reminder"},
    "reason.unacknowledged": {"zh": "无人确认，升级通知", "en": "nobody acknowledged it"},
    "reason.flapping": {"zh": "报警反复，此后仅见汇总", "en": "comes and goes; further changes in digests"},
    "reason.digest": {"zh": "汇总：因限流或反复而暂缓的报警", "en": "digest of what was held back"},
    "digest": {"zh": "汇总", "en": "DIGEST"},
    "incident": {"zh": "同一事件", "en": "One incident"},
    "what": {"zh": "指标", "en": "Metric"},
    "problem": {"zh": "问题", "en": "Problem"},
    "rule": {"zh": "规则", "en": "Rule"},
    "period": {"zh": "时段", "en": "Period"},
    "definition": {"zh": "口径版本", "en": "Definition"},
    "worst": {"zh": "最严重", "en": "Worst"},
    "since": {"zh": "开始于", "en": "Since"},
    "where": {"zh": "范围", "en": "Where"},
    "owner": {"zh": "负责人", "en": "Owner"},
    "why": {"zh": "为何重要", "en": "Why it matters"},
    "runbook": {"zh": "处理手册", "en": "What to do"},
    "link": {"zh": "查看检查", "en": "Open the check"},
    "ui": {"zh": "打开 Dagster", "en": "Open Dagster"},
    "notified": {"zh": "通知原因", "en": "Why now"},
    "late": {"zh": "注意", "en": "Note"},
    "drill": {"zh": "演练", "en": "DRILL"},
    "parts": {"zh": "组成规则", "en": "Made of"},
    "quiet": {"zh": "正常", "en": "quiet"},
    "slice": {"zh": "切片", "en": "Slice"},
    "change": {"zh": "状态", "en": "Status"},
    "value": {"zh": "当前值", "en": "Value"},
    "bound": {"zh": "阈值", "en": "Threshold"},
    "band": {"zh": "正常范围", "en": "Expected"},
    "change.new": {"zh": "新", "en": "new"},
    "change.escalated": {"zh": "升级", "en": "escalated"},
    "change.ongoing": {"zh": "持续", "en": "ongoing"},
    "change.resolved": {"zh": "恢复", "en": "resolved"},
    "change.corrected": {"zh": "数据更正", "en": "data corrected"},
    "change.cancelled": {"zh": "取消", "en": "cancelled"},
    "tier.red": {"zh": "红", "en": "red"},
    "tier.yellow": {"zh": "黄", "en": "yellow"},
    "grain.day": {"zh": "日", "en": "daily"},
    "grain.hour": {"zh": "小时", "en": "hourly"},
    "all": {"zh": "全部", "en": "total"},
    "missing": {"zh": "无", "en": "none"},
    "truncated": {"zh": "……（已截断）", "en": "… (cut)"},
}

DIMENSIONS: Final[dict[str, dict[Locale, str]]] = {
    "region": {"zh": "地区", "en": "region"},
    "channel": {"zh": "渠道", "en": "channel"},
    "segment": {"zh": "客群", "en": "segment"},
    "payment_method": {"zh": "支付方式", "en": "payment method"},
    "category": {"zh": "品类", "en": "category"},
    "sku": {"zh": "SKU", "en": "SKU"},
    "warehouse": {"zh": "仓库", "en": "warehouse"},
    "campaign": {"zh": "活动", "en": "campaign"},
    "ad_channel": {"zh": "广告渠道", "en": "ad channel"},
    "job": {"zh": "任务", "en": "job"},
    "part": {"zh": "部分", "en": "part"},
}


def word(name: str, locale: Locale) -> str:
    """The word of this name."""
    return WORDS[name][locale]


def slice_name(dimension: str, member: str, locale: Locale) -> str:
    """`地区=华北 · 渠道=app`, or the word for the total."""
    if dimension in ("all", ""):
        return word("all", locale)
    names = dimension.split("|")
    members = member.split("|") if len(names) > 1 else [member]
    if len(members) != len(names):
        return f"{dimension}={member}"
    labels = [DIMENSIONS[name][locale] if name in DIMENSIONS else name for name in names]
    return " · ".join(f"{label}={value}" for label, value in zip(labels, members, strict=True))


def period_name(period: datetime, grain: str) -> str:
    """`2025-11-11`, or `2025-11-11 14:00` for hours; shop-local."""
    return f"{period:%Y-%m-%d %H:%M}" if grain == "hour" else f"{period:%Y-%m-%d}"


def hours(value: float | None, locale: Locale) -> str:
    """`38.5 小时`, `3 days 2 h`: an age, in days from two days on; a dash when it is unknown."""
    if value is None:
        return "–"
    days, rest = divmod(value, 24)
    if days >= 2:
        return f"{days:.0f} 天 {rest:.0f} 小时" if locale == "zh" else f"{days:.0f} days {rest:.0f} h"
    return f"{value:.3g} 小时" if locale == "zh" else f"{value:.3g} h"


def number(value: float | None, unit: str, *, currency: str = "", short: bool = False) -> str:
    """A number as people write it: ratios in percent, amounts and counts with thousands. `short`: for an axis."""
    if value is None:
        return "–"
    if unit == "ratio":
        percent = value * 100
        return f"{percent:.3g}%" if short or abs(percent) < 1 else f"{percent:,.1f}%"
    if short and abs(value) >= 10_000:
        for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= size:
                return f"{value / size:.3g}{suffix}"
    if unit == "currency":
        amount = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:,.2f}"
        return f"{amount} {currency}".rstrip() if not short else amount
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
