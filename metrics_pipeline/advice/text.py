"""Advice in words, Chinese and English: what to do, what speaks for it in figures, what came of it before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from metrics_pipeline.access.model import Level
from metrics_pipeline.advice.evidence import Evidence
from metrics_pipeline.advice.outcome import Handling
from metrics_pipeline.advice.recommend import NO_RECORD, Advice, Record
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.words import Locale, number, period_name, slice_name
from metrics_pipeline.alerts.work_orders import CLOSE_WORDS

_VERDICTS: Final[dict[str, dict[Locale, str]]] = {
    "single_cause": {"zh": "单一原因", "en": "a single cause"},
    "several_causes": {"zh": "多个原因", "en": "several causes"},
    "mix_shift": {"zh": "结构变化", "en": "a shift of the mix"},
    "site_wide": {"zh": "全站性变化", "en": "the whole site changed"},
}
_TIERS: Final[dict[str, dict[Locale, str]]] = {"red": {"zh": "红", "en": "red"}, "yellow": {"zh": "黄", "en": "yellow"}}


@dataclass(frozen=True)
class Remembered:
    """A similar past episode and how it was handled."""

    episode: str
    similarity: float
    parts: Mapping[str, float]
    handling: Handling

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"similarity": self.similarity, "distance": dict(self.parts), **self.handling.as_json()}


def evidence_text(one: Evidence, locale: Locale, *, currency: str = "") -> str:
    """One piece of evidence with its figures."""
    zh = locale == "zh"
    name = (one.name_zh if zh else one.name_en) or one.metric
    where = slice_name(one.dimension, one.member, locale)
    figures = _figures(one, locale, currency)
    inner = f"{'，' if zh else ', '}{figures}" if figures else ""
    match one.kind:
        case "alert":
            place = "" if not one.elements else f"（{where}）" if zh else f" ({where})"
            said = f"{name}{place}{'' if zh and place else ' '}{figures}".rstrip()
        case "slice":
            said = f"报警在 {where}" if zh else f"the alert is on {where}"
        case "cause":
            said = f"{where}{_share(one, locale, ' 解释变化的 {}', ' explains {} of the change')}{inner}"
        case "part":
            said = f"{where} 同样报警：{figures}" if zh else f"{where} has the same alert: {figures}"
        case "pyramid":
            said = f"{name}{_share(one, locale, ' 占变化的 {}', ' makes {} of the change')}{inner}"
        case "also":
            tier = _TIERS.get(one.word, {}).get(locale, one.word)
            fires = f"{name} 同时报警（{tier}，{where}）" if zh else f"{name} fires too ({tier}, {where})"
            said = f"{fires} {figures}".rstrip()
        case "still":
            said = f"{name}{' 没有变化' if zh else ' did not move'}{inner}"
        case "verdict":
            said = _VERDICTS.get(one.word, {}).get(locale, one.word)
        case "coinciding":
            said = f"同期：{one.text_zh or one.text_en}" if zh else f"at the same time: {one.text_en or one.text_zh}"
    return said


def reasons_text(advice: Advice, locale: Locale, *, currency: str = "") -> str:
    """The evidence of an advice in one sentence."""
    said = [evidence_text(one, locale, currency=currency) for one in advice.evidence if one.kind != "slice"]
    return ("；" if locale == "zh" else "; ").join(one for one in said if one)


def record_text(record: Record, locale: Locale) -> str:
    """What came of the action in similar cases; '' when it was never taken."""
    if not record.cases:
        return ""
    if locale == "zh":
        return f"相似情况用过 {record.cases} 次，{record.cases_helped} 次有效"
    return (
        f"taken in {record.cases} similar {'case' if record.cases == 1 else 'cases'}, helped in {record.cases_helped}"
    )


def advice_text(advice: Advice, locale: Locale, *, currency: str = "") -> str:
    """One line: what to do, why, who, what came of it before."""
    why = reasons_text(advice, locale, currency=currency)
    before = record_text(advice.record, locale)
    if locale == "zh":
        return f"{advice.action_zh}（{advice.owner}）。依据：{why}。" + (f"{before}。" if before else "")
    return f"{advice.action_en} ({advice.owner}). Because {why}." + (f" It was {before}." if before else "")


def remembered_text(one: Remembered, locale: Locale) -> str:
    """A similar past episode in one line: when, how alike, how it was closed, what was done, whether it helped."""
    handling = one.handling
    instance = handling.episode.instance
    rule, _, slice_ = instance.removesuffix("}").partition("{")
    where = slice_name(*slice_.partition("=")[::2], locale)
    day = period_name(handling.episode.first_period, "day")
    zh = locale == "zh"
    parts = [
        f"{day} {rule}（{where}，相似度 {one.similarity:.0%}）"
        if zh
        else f"{day} {rule} ({where}, {one.similarity:.0%} alike)"
    ]
    if handling.done:
        parts.append(
            ("处理：" if zh else "done: ") + ("、" if zh else ", ").join(done.action for done in handling.done)
        )
    if handling.order is not None and handling.order.close_reason:
        words = CLOSE_WORDS.get(handling.order.close_reason, (handling.order.close_reason,) * 2)
        note = handling.order.close_note or ""
        parts.append(
            f"{words[0] if zh else words[1]}{'：' if zh else ': '}{note}" if note else words[0] if zh else words[1]
        )
    if handling.helped is not None:
        helped, not_helped = ("有效", "无效") if zh else ("it helped", "it did not help")
        parts.append(helped if handling.helped else not_helped)
    if len(parts) == 1:
        parts.append("无处理记录" if zh else "nothing on record was done")
    return ("；" if zh else "; ").join(parts)


def seen(advice: Iterable[Advice], sight: Sight) -> list[Advice]:
    """The advice as a viewer may see it: none that names what they may not know of, no number they may not see."""
    if sight.is_open:
        return list(advice)
    return [found for one in advice if (found := _seen(one, sight)) is not None]


def seen_memory(found: Sequence[Remembered], sight: Sight) -> list[Remembered]:
    """Similar episodes of which the viewer may know."""
    return [one for one in found if sight.sees(one.episode)]


def for_everybody(advice: Advice, sensitivity: Mapping[str, str]) -> Advice:
    """The advice without the figures of confidential metrics and shares of them: for logs, pages of Dagster and a model.

    `sensitivity`: by metric; one that is not there is taken as confidential.
    """
    whole = advice.evidence[0].metric
    pieces: Sequence[Evidence] = [
        replace(one, observed=None, expected=None, share=None)
        if "confidential"
        in (sensitivity.get(one.metric or whole, "confidential"), sensitivity.get(whole, "confidential"))
        else one
        for one in advice.evidence
    ]
    return replace(advice, evidence=tuple(pieces))


def _seen(advice: Advice, sight: Sight) -> Advice | None:
    metric = advice.evidence[0].metric
    pieces = []
    for one in advice.evidence:
        level = sight.viewer.level(one.metric or metric, one.dimension, one.member)
        if level == Level.DENIED:
            return None
        is_whole = level == Level.EXACT and (one.share is None or sight.viewer.level(metric) == Level.EXACT)
        pieces.append(one if is_whole else replace(one, share=None, observed=None, expected=None))
    sees_all = {} in sight.viewer.reading.slices_of(metric)
    return replace(advice, evidence=tuple(pieces), record=advice.record if sees_all else NO_RECORD)


def _figures(one: Evidence, locale: Locale, currency: str) -> str:
    if one.observed is None:
        return ""
    text = number(one.observed, one.unit, currency=currency)
    if one.expected is None:
        return text
    expected = number(one.expected, one.unit, currency=currency)
    change = "" if one.change is None else f"{one.change:+.1%}"
    if locale == "zh":
        return f"{text}（预期 {expected}{f'，{change}' if change else ''}）"
    return f"{text} ({expected} expected{f', {change}' if change else ''})"


def _share(one: Evidence, locale: Locale, zh: str, en: str) -> str:
    return "" if one.share is None else (zh if locale == "zh" else en).format(f"{one.share:.0%}")
