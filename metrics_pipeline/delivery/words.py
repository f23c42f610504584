"""The words of messages, Chinese and English."""

from __future__ import annotations

from typing import Final

from metrics_pipeline.alerts.words import Locale

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
    "cause": {"zh": "可能原因", "en": "Likely cause"},
    "advice": {"zh": "建议", "en": "Advice"},
    "advice_else": {"zh": "也可以", "en": "Or"},
    "further": {"zh": "其他切片", "en": "Other slices"},
    "before": {"zh": "上次类似", "en": "Last time"},
    "late": {"zh": "注意", "en": "Note"},
    "drill": {"zh": "演练", "en": "DRILL"},
    "parts": {"zh": "组成规则", "en": "Made of"},
    "quiet": {"zh": "正常", "en": "quiet"},
    "slice": {"zh": "切片", "en": "Slice"},
    "change": {"zh": "状态", "en": "Status"},
    "value": {"zh": "当前值", "en": "Value"},
    "bound": {"zh": "阈值", "en": "Threshold"},
    "band": {"zh": "正常范围", "en": "Expected"},
    "foresees.stockout": {"zh": "断货概率", "en": "chance of a stock-out"},
    "foresees.below": {"zh": "低于目标的概率", "en": "chance to fall short"},
    "foresees.above": {"zh": "超出的概率", "en": "chance to exceed it"},
    "foresees.mean": {"zh": "预计日均", "en": "expected per day"},
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
    "missing": {"zh": "无", "en": "none"},
    "truncated": {"zh": "……（已截断）", "en": "… (cut)"},
}


def word(name: str, locale: Locale) -> str:
    """The word of this name."""
    return WORDS[name][locale]


def hours(value: float | None, locale: Locale) -> str:
    """`38.5 小时`, `3 days 2 h`: an age, in days from two days on; a dash when it is unknown."""
    if value is None:
        return "–"
    days, rest = divmod(value, 24)
    if days >= 2:
        return f"{days:.0f} 天 {rest:.0f} 小时" if locale == "zh" else f"{days:.0f} days {rest:.0f} h"
    return f"{value:.3g} 小时" if locale == "zh" else f"{value:.3g} h"
