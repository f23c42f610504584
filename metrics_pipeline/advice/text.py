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
        case "supply":
            said = _shelf(one, locale)
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
    order = order_text(advice, locale)
    if locale == "zh":
        return f"{advice.action_zh}{order}（{advice.owner}）。依据：{why}。" + (f"{before}。" if before else "")
    return f"{advice.action_en}{order} ({advice.owner}). Because {why}." + (f" It was {before}." if before else "")


def order_text(advice: Advice, locale: Locale) -> str:
    """What to order by when, after the words of the action, where the advice rests on a shelf: `：最迟 11-24 向 … 订 240 件`; else ''.

    An order that is late by the certainty that is wanted comes after the shelf is empty, or may.
    """
    shelf = next((one.supply for one in advice.evidence if one.supply is not None), None)
    if shelf is None:
        return ""
    zh = locale == "zh"
    if shelf.need == "waiting":
        told = (
            f"在途 {shelf.on_order:,} 件够用，无需再订，盯紧到货"
            if zh
            else f"the {shelf.on_order:,} under way will do, see that they come"
        )
        return f"：{told}" if zh else f": {told}"
    comes = shelf.arrives_on
    is_sure = shelf.on_hand <= 0 or (shelf.sold_out_on is not None and comes is not None and shelf.sold_out_on <= comes)
    packs = ""
    if shelf.pack_size > 1:
        packs = f"（整箱 {shelf.pack_size:,} 件）" if zh else f" (packs of {shelf.pack_size:,})"
    if zh:
        when = "立即" if shelf.is_late else f"最迟 {shelf.order_by} "
        whom = f"向 {shelf.supplier} " if shelf.supplier else ""
        late = f"，{'晚于断货' if is_sure else '到货前可能断货'}：同时催在途、调拨" if shelf.is_late else ""
        return f"：{when}{whom}订 {shelf.quantity:,} 件{packs}，约 {shelf.arrives_on} 到货{late}"
    when = "at once" if shelf.is_late else f"by {shelf.order_by}"
    whom = f" from {shelf.supplier}" if shelf.supplier else ""
    when_late = "after it is sold out" if is_sure else "by when it may be sold out"
    late = f", {when_late}: expedite what is under way and transfer meanwhile" if shelf.is_late else ""
    return f": order {shelf.quantity:,}{packs}{whom} {when}, arriving about {shelf.arrives_on}{late}"


def _shelf(one: Evidence, locale: Locale) -> str:
    """A shelf in figures: what is there, what is under way, how fast it goes, how likely it is empty and when."""
    zh, shelf = locale == "zh", one.supply
    if shelf is None:
        return f"{one.member} 有断货风险" if zh else f"{one.member} may be sold out"
    per_day = f"{shelf.per_day:,.0f}" if shelf.per_day >= 10 else f"{shelf.per_day:.1f}"
    if zh:
        parts = [
            "已断货" if shelf.on_hand <= 0 else f"现有 {shelf.on_hand:,} 件",
            f"在途 {shelf.on_order:,} 件",
            f"日销约 {per_day} 件",
            f"新单到货前断货概率 {shelf.chance:.0%}",
        ]
        if shelf.on_hand > 0 and shelf.sold_out_on is not None:
            parts.append(f"预计 {shelf.sold_out_on} 断货")
        return f"{shelf.sku} {'，'.join(parts)}"
    parts = [
        "is sold out" if shelf.on_hand <= 0 else f"has {shelf.on_hand:,} left",
        f"{shelf.on_order:,} under way",
        f"about {per_day} sold a day",
        f"{shelf.chance:.0%} likely to be empty before a new order comes",
    ]
    if shelf.on_hand > 0 and shelf.sold_out_on is not None:
        parts.append(f"sold out about {shelf.sold_out_on}")
    return f"{shelf.sku} {', '.join(parts)}"


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
        replace(one, observed=None, expected=None, share=None, supply=None)
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
        if one.supply is not None:  # its figures are also made of these
            others = (sight.viewer.level(name, one.dimension, one.member) for name in ("stock_on_order", "units_sold"))
            is_whole = is_whole and all(other == Level.EXACT for other in others)
        pieces.append(one if is_whole else replace(one, share=None, observed=None, expected=None, supply=None))
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
