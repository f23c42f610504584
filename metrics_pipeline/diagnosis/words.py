"""A diagnosis in words, Chinese and English: one line for a message, a few for a terminal or a page.

It says what was found and no more: a share of the change, not a proof; what coincides, not what did it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.alerts.words import Locale, number, period_name, slice_name
from metrics_pipeline.diagnosis.model import Cause, Coinciding, Control, Diagnosis

VERDICTS: Mapping[str, Mapping[Locale, str]] = {
    "single_cause": {"zh": "主要来自一处", "en": "one place explains most of it"},
    "several_causes": {"zh": "来自多处", "en": "several places explain it"},
    "mix_shift": {"zh": "结构变化(各成员比率未变,占比变了)", "en": "a shift of the mix (rates held, weights moved)"},
    "site_wide": {"zh": "整体变化,各维度普遍受影响", "en": "everything moved, no single place"},
    "none_found": {"zh": "未找到集中的原因", "en": "no concentrated cause found"},
}
WITHIN: Mapping[Locale, str] = {
    "zh": "该切片内普遍变化,没有更集中的一处",
    "en": "everything within the slice moved, no single place in it",
}
CALENDAR = frozenset({"promotion", "holiday"})
KINDS: Mapping[str, Mapping[Locale, str]] = {
    "promotion": {"zh": "促销", "en": "promotion"},
    "holiday": {"zh": "节假日", "en": "holiday"},
    "stock_out": {"zh": "缺货", "en": "stock-out"},
    "data_problem": {"zh": "数据问题", "en": "data problem"},
    "deploy_note": {"zh": "变更记录", "en": "note"},
    "campaign": {"zh": "投放", "en": "campaign"},
}
LABELS: Mapping[str, Mapping[Locale, str]] = {
    "change": {"zh": "变化", "en": "Change"},
    "verdict": {"zh": "结论", "en": "Verdict"},
    "causes": {"zh": "原因", "en": "Causes"},
    "cause": {"zh": "原因", "en": "cause"},
    "unexplained": {"zh": "未解释", "en": "unexplained"},
    "pyramid": {"zh": "指标分解", "en": "Down the pyramid"},
    "residual": {"zh": "残差", "en": "residual"},
    "coinciding": {"zh": "同期(不等于原因)", "en": "At the same time (not proof)"},
    "since": {"zh": "开始于", "en": "Since"},
    "controls": {"zh": "未变化", "en": "Did not move"},
    "searched": {"zh": "搜索范围", "en": "Searched"},
    "note": {"zh": "说明", "en": "Note"},
    "share": {"zh": "占变化", "en": "share"},
    "observed": {"zh": "实际", "en": "observed"},
    "expected": {"zh": "预期", "en": "expected"},
    "contribution": {"zh": "贡献", "en": "contribution"},
}
_MOST_CONTROLS = 4


@dataclass(frozen=True)
class Named:
    """How a metric is called and counted."""

    name_zh: str
    name_en: str
    unit: str
    currency: str = ""

    def name(self, locale: Locale) -> str:
        return (self.name_zh or self.name_en) if locale == "zh" else (self.name_en or self.name_zh)

    def number(self, value: float | None) -> str:
        return number(value, self.unit, currency=self.currency)


@dataclass(frozen=True)
class Wording:
    """The words of one diagnosis in one language."""

    diagnosis: Diagnosis
    metrics: Mapping[str, Named]
    locale: Locale

    def line(self) -> str:
        """For a message: the causes with their shares, else the verdict; what coincides; since when. Empty when nothing could be
        searched and nothing is known but the calendar."""
        zh = self.locale == "zh"
        parts = [self.cause(one) for one in self.diagnosis.causes[:2]]
        is_named = bool(self.diagnosis.causes) and self.diagnosis.verdict not in ("mix_shift", "site_wide")
        if self.diagnosis.searched and not is_named:
            parts.insert(0, self.verdict())
        if top := self._top_step():
            parts.append(top)
        if not parts and {one.kind for one in self.diagnosis.coinciding} <= CALENDAR:
            return ""
        if self.diagnosis.coinciding:
            kinds = [self.coinciding(one) for one in self.diagnosis.coinciding[:2]]
            parts.append(("同期:" if zh else "same time: ") + ("、" if zh else ", ").join(kinds))
        if self.diagnosis.since is not None:
            parts.append(
                f"{self._label('since')} {self.diagnosis.since.day}" if zh else f"since {self.diagnosis.since.day}"
            )
        return ("；" if zh else "; ").join(parts)

    def rows(self) -> list[tuple[str, str]]:
        """Label and text, for a terminal or a page."""
        found = self.diagnosis
        rows = [("change", self.change()), ("verdict", self.verdict())]
        rows += [("causes", self.cause(one)) for one in found.causes]
        if found.causes and found.change:
            rows.append(("unexplained", f"{self._own(found.unexplained)} ({found.unexplained / found.change:.0%})"))
        rows += [("pyramid", self.step(at)) for at in range(len(found.pyramid.steps))]
        if found.pyramid.steps and found.change:
            rows.append(
                ("residual", f"{self._own(found.pyramid.residual)} ({found.pyramid.residual / found.change:.0%})")
            )
        rows += [("coinciding", self.coinciding(one)) for one in found.coinciding]
        if found.since is not None:
            rows.append(("since", f"{found.since.day} ({found.since.confidence:.0%})"))
        rows += [("controls", self.control(one)) for one in found.controls[:_MOST_CONTROLS]]
        if found.searched:
            rows.append(("searched", ", ".join(found.searched)))
        if reason := found.reason_zh if self.locale == "zh" else found.reason_en:
            rows.append(("note", reason))
        last = ""
        told = []
        for label, text in rows:
            told.append(("" if label == last else self._label(label), text))
            last = label
        return told

    def verdict(self) -> str:
        """What kind of finding it is; everything that moved is, of a slice, everything within it."""
        if self.diagnosis.verdict == "site_wide" and self.diagnosis.slice:
            return WITHIN[self.locale]
        return VERDICTS[self.diagnosis.verdict][self.locale]

    def title(self) -> str:
        """`支付转化率 · 全部 · 2026-11-22`"""
        found = self.diagnosis
        where = slice_name("|".join(found.slice), "|".join(found.slice.values()), self.locale)
        return f"{self._named(found.metric).name(self.locale)} · {where} · {period_name(found.period, found.grain)}"

    def change(self) -> str:
        """`62.7%,预期 92.3%(−32.0%)`"""
        found, named = self.diagnosis, self._named(self.diagnosis.metric)
        if found.expected is None:
            return named.number(found.observed)
        relative = (
            f" ({found.change / abs(found.expected):+.1%})" if found.change is not None and found.expected else ""
        )
        return f"{named.number(found.observed)}, {self._label('expected')} {named.number(found.expected)}{relative}"

    def cause(self, one: Cause) -> str:
        """`支付方式=alipay 占 114%(10.5%,预期 93.1%)`"""
        where = slice_name("|".join(one.elements), "|".join(one.elements.values()), self.locale)
        effect = ""
        if one.mix_effect is not None and one.rate_effect is not None and abs(one.mix_effect) > abs(one.rate_effect):
            effect = "占比变化," if self.locale == "zh" else "by its weight, "
        figures = f"{self._own(one.observed)}, {self._label('expected')} {self._own(one.expected)}"
        if self.locale == "zh":
            return f"{where} 占变化 {one.share:.0%}({effect}{figures})"
        return f"{where} {one.share:.0%} of the change ({effect}{figures})"

    def step(self, at: int) -> str:
        """One metric below with its part."""
        one = self.diagnosis.pyramid.steps[at]
        moved = f"{one.observed / one.expected - 1:+.1%}" if one.expected else "–"
        return f"{self.step_name(one.metric)} {moved} → {self._own(one.contribution)} ({one.share:.0%})"

    def step_name(self, metric: str) -> str:
        """A metric's name; of an implied factor both names: `成交总额÷下单数`."""
        return "÷".join(self._named(name).name(self.locale) for name in metric.split("/"))

    def coinciding(self, one: Coinciding) -> str:
        """`缺货 SKU00003633…`"""
        what = one.what_zh if self.locale == "zh" else one.what_en
        kind = KINDS[one.kind][self.locale]
        return what if kind in what else f"{kind} {what}"

    def control(self, one: Control) -> str:
        """What did not move, and what would have been seen."""
        named = self._named(one.metric)
        name = (
            slice_name("|".join(one.elements), "|".join(one.elements.values()), self.locale)
            if one.elements
            else named.name(self.locale)
        )
        seen = "可察觉" if self.locale == "zh" else "would show"
        return f"{name} {named.number(one.observed)} ≈ {named.number(one.expected)} ({seen} ±{one.detectable:.0%})"

    def _top_step(self) -> str:
        steps = [one for one in self.diagnosis.pyramid.steps if one.share >= 0.5]
        if not steps or "/" in steps[0].metric or not steps[0].expected:
            return ""
        return f"{self.step_name(steps[0].metric)} {steps[0].observed / steps[0].expected - 1:+.0%}"

    def _own(self, value: float) -> str:
        return self._named(self.diagnosis.metric).number(value)

    def _named(self, metric: str) -> Named:
        return self.metrics.get(metric) or Named(metric, metric, "")

    def _label(self, name: str) -> str:
        return LABELS[name][self.locale]
