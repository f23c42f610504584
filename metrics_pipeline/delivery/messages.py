"""A notice in words: title, plain text and HTML, in the reader's language first and the other one after it.

The reader has one minute at night: what broke, where, how bad, since when, who owns it, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from metrics_pipeline.advice.text import order_text
from metrics_pipeline.advice.told import NOTHING, Told
from metrics_pipeline.alerts.notice import CHANCES, Notice, Slice, check_page, is_drill
from metrics_pipeline.alerts.words import Locale, number, period_name, slice_name
from metrics_pipeline.delivery.words import hours, word
from metrics_pipeline.diagnosis.attached import UNEXPLAINED, Explained

if TYPE_CHECKING:
    from jinja2 import Environment

    from metrics_pipeline.delivery.cause_plot import CausePlot
    from metrics_pipeline.delivery.plots import Plot

BEYOND = ("new", "escalated", "ongoing")
TITLE_LENGTH = 160
MOST_FURTHER = 5
"""Shelves of other slices whose orders are told."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Wording:
    """How an installation words its messages."""

    locale: Literal["zh", "en"] | str = "zh"
    """The language that comes first; anything but `en` is Chinese."""
    ui_url: str = "http://127.0.0.1:3000"
    zone: tzinfo = field(default_factory=lambda: ZoneInfo("Asia/Shanghai"))

    @property
    def locales(self) -> tuple[Locale, Locale]:
        return ("en", "zh") if self.locale == "en" else ("zh", "en")


@dataclass(frozen=True)
class Row:
    """One slice in the table: its cells, and the tier that colours it (`none` when it ended)."""

    cells: tuple[str, ...]
    tier: str


@dataclass(frozen=True)
class Message:
    """A notice ready to be sent. Texts are plain; `html_with` gives HTML."""

    notice: Notice
    wording: Wording
    over: frozenset[str] = frozenset()
    """Listed instances that ended between the decision and the sending."""
    mentions: tuple[str, ...] = ()
    """People to call by name where the channel is a room: phones, ids of the vendor, `@all`."""
    told: Told = NOTHING
    """Advice on the first slice, and how similar alerts were handled, as the receiver may see it."""
    phrased: Mapping[Locale, str] = field(default_factory=dict)
    """The first advice in other words than the template's."""
    explained: Explained = UNEXPLAINED
    """Why the first slice is what it is, as the receiver may see it."""

    @property
    def id(self) -> str:
        """Stable over attempts: the notification's key."""
        return self.notice.key

    @property
    def is_over(self) -> bool:
        """Whether the message brings an end and nothing else."""
        notice = self.notice
        if notice.reason == "digest":
            return not notice.counts.firing
        return notice.reason in ("some_resolved", "all_resolved", "cancelled")

    @cached_property
    def is_drill(self) -> bool:
        """Whether nothing in it is real. In a digest drills may stand beside alerts."""
        notice = self.notice
        return notice.rule.is_drill and not any(one.rule and not is_drill(one.rule) for one in notice.slices)

    @cached_property
    def title(self) -> str:
        """One line, in the first language."""
        return self.title_in(self.wording.locales[0])

    @cached_property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Label and value pairs, in the first language."""
        return self.facts_in(self.wording.locales[0])

    @property
    def table_head(self) -> tuple[str, ...]:
        return self.table_head_in(self.wording.locales[0])

    @property
    def table_rows(self) -> tuple[Row, ...]:
        return self.table_rows_in(self.wording.locales[0])

    @property
    def link(self) -> str:
        """The page of the asset check in the Dagster UI."""
        rule = self.notice.rule
        return check_page(self.wording.ui_url, rule.asset_key, rule.alert or rule.id)

    def link_label_in(self, locale: Locale) -> str:
        """What the link opens."""
        return word("link" if self.notice.rule.asset_key else "ui", locale)

    @property
    def runbook(self) -> str:
        return self.notice.rule.annotations.get("runbook", "")

    @cached_property
    def text(self) -> str:
        """Plain text, both languages."""
        return rendered("message.txt", message=self, blocks=self._blocks())

    @cached_property
    def plot(self) -> Plot | None:
        """The series of the worst slice with its band and bounds; None when the notice has none."""
        series = self.notice.series
        if series is None or self.notice.rule.kind == "freshness":  # an age is no point of the metric's series
            return None
        from metrics_pipeline.delivery.plots import Plot

        first, rule = self.wording.locales[0], self.notice.rule
        where = slice_name(series.dimension, series.member, first)
        mark = f"{word('drill', first)} · " if self.is_drill else ""
        return Plot(
            series=series,
            title=f"{mark}{self.metric_name(first)} · {where}",
            ascii_title=f"{rule.metric} {series.member if series.member.isascii() else ''}".strip(),
            unit=rule.unit,
            tier="none" if self.is_over or self.is_drill else self.notice.tier,
            alt=self.title,
        )

    @cached_property
    def cause_plot(self) -> CausePlot | None:
        """From expected to observed, cause by cause; None when no cause was found or the receiver may not see it."""
        found = self.explained.diagnosis
        if found is None or not found.causes:
            return None
        from metrics_pipeline.delivery.cause_plot import CausePlot
        from metrics_pipeline.diagnosis.words import Named
        from metrics_pipeline.diagnosis.words import Wording as CauseWording

        rule = self.notice.rule
        named = {rule.metric: Named(rule.name_zh, rule.name_en, rule.unit)}
        return CausePlot(CauseWording(found, named, self.wording.locales[0]))

    def html_with(self, plot_source: str | None, cause_source: str | None) -> str:
        """A complete HTML page whose pictures are at these sources (`cid:…`, `data:…`); without one where None."""
        return rendered(
            "message.html", message=self, blocks=self._blocks(), plot_source=plot_source, cause_source=cause_source
        )

    def html_page(self) -> str:
        """A stand-alone HTML page with the pictures inside."""
        return self.html_with(*(None if one is None else one.data_uri() for one in (self.plot, self.cause_plot)))

    def metric_name(self, locale: Locale) -> str:
        """The metric's name in this language, else in the other, else its id."""
        rule = self.notice.rule
        names = (rule.name_zh, rule.name_en) if locale == "zh" else (rule.name_en, rule.name_zh)
        return names[0] or names[1] or rule.metric

    def title_in(self, locale: Locale) -> str:
        """`[红色报警] 退款率：地区=华北 13.2%（阈值 8.0%），共 5 个切片`"""
        notice = self.notice
        head = f"[{self.status_in(locale)}] {self.metric_name(locale)}"
        if notice.reason == "digest":
            head = f"[{self._marked(word('digest', locale), locale)}]"
            body = self._where(locale)
        elif notice.rule.kind == "alarm":
            body = self._count_sentence(locale)
        elif notice.rule.kind == "freshness":
            body = self._age_sentence(notice.slices[0], locale)
        elif self.is_over:
            body = self._end_sentence(locale)
        else:
            worst = notice.slices[0]
            bound = self.bound(worst)
            body = slice_name(worst.dimension, worst.member, locale)
            if self._is_known(worst):
                body += f" {self.figure(worst, locale)}"
            if bound is not None and self._is_judged(worst):
                told = self.judged(worst, bound)
                body += f"（阈值 {told}）" if locale == "zh" else f" (threshold {told})"
            if breaching := [one for one in notice.parts if one.tier != "none"]:
                named = "、".join if locale == "zh" else ", ".join
                body += ("，" if locale == "zh" else ", ") + named(self._figure(one, locale) for one in breaching[:2])
            if notice.counts.firing > 1:
                body += (
                    f"，共 {notice.counts.firing:,} 个切片" if locale == "zh" else f", {_slices(notice.counts.firing)}"
                )
        colon = "：" if locale == "zh" else ": "
        title = f"{head}{colon}{body}" if body else head
        title = re.sub(r"\s+", " ", title)
        return title if len(title) <= TITLE_LENGTH else f"{title[: TITLE_LENGTH - 1]}…"

    def facts_in(self, locale: Locale) -> tuple[tuple[str, str], ...]:
        """Label and value pairs."""
        return tuple((word(name, locale), value) for name, value in self.named_facts_in(locale).items())

    def named_facts_in(self, locale: Locale) -> dict[str, str]:
        """The values by the name of their label (`words.WORDS`), in the order they are told."""
        notice, rule = self.notice, self.notice.rule
        facts = {"drill": self._drill_sentence(locale)} if self.is_drill else {}
        facts |= (
            {"problem": self.metric_name(locale)}
            if rule.kind == "alarm"
            else {"what": f"{self.metric_name(locale)} ({rule.metric})"}
        )
        summary = rule.annotations.get("summary_zh" if locale == "zh" else "summary")
        name = rule.alert or rule.id
        facts["rule"] = f"{name}: {summary}" if summary else name
        if rule.kind != "alarm":
            facts["bound"] = self._condition(locale)
            facts["period"] = period_name(notice.period, notice.grain)
            if notice.versions and rule.kind == "metric":
                facts["definition"] = ", ".join(notice.versions)
            facts["where"] = self._where(locale)
        if not self.is_over:
            worst = notice.slices[0]
            if rule.kind == "freshness":
                facts["worst"] = self._age_sentence(worst, locale)
            elif rule.kind != "alarm":
                facts["worst"] = self._how_bad(worst, locale)
            facts["since"] = self._since(worst)
            if cause := self.explained.line(locale):
                facts["cause"] = cause
            facts |= self._advice(locale)
        if notice.parts:
            facts["parts"] = self._parts_sentence(locale)
        facts["notified"] = word(f"reason.{notice.reason}", locale)
        if notice.contributing:
            facts["incident"] = self._incident_sentence(locale)
        if self.over:
            facts["late"] = self._over_sentence(locale)
        if why := (rule.why_zh or rule.why) if locale == "zh" else (rule.why or rule.why_zh):
            facts["why"] = why
        facts["owner"] = rule.owner or word("missing", locale)
        return facts

    def _advice(self, locale: Locale) -> dict[str, str]:
        """What to do first, what else, and what came of it the last time."""
        currency = self.notice.rule.currency
        facts = dict(zip(("advice",), self.told.lines(locale, currency=currency, most=1), strict=False))
        if facts and locale in self.phrased:
            facts["advice"] = self.phrased[locale] + order_text(self.told.advice[0], locale)
        others = [f"{one.action(locale)}{order_text(one, locale)}" for one in self.told.advice[1:3]]
        if others:
            facts["advice_else"] = ("；" if locale == "zh" else "; ").join(others)
        further = [f"{one.action(locale)}{order_text(one, locale)}" for one in self.told.further]
        if further:
            left = len(further) - MOST_FURTHER
            facts["further"] = ("；" if locale == "zh" else "; ").join(further[:MOST_FURTHER])
            if left > 0:
                facts["further"] += f"；另有 {left} 项" if locale == "zh" else f"; and {left} more"
        return facts | dict(zip(("before",), self.told.memory(locale, most=1), strict=False))

    def table_head_in(self, locale: Locale) -> tuple[str, ...]:
        """The heads of the table of slices."""
        return tuple(word(name, locale) for name in ("slice", "change", "value", "bound", "band", "since"))

    def table_rows_in(self, locale: Locale) -> tuple[Row, ...]:
        """One row per listed slice, the worst of the news first."""
        return tuple(self._row(one, locale) for one in self.notice.slices)

    def number(self, value: float | None) -> str:
        """A value of the metric as people write it."""
        return number(value, self.notice.rule.unit, currency=self.notice.rule.currency)

    def _cell(self, one: Slice, locale: Locale) -> str:
        """The number of a slice in the table: of a rule on the future also what is now."""
        told = self.figure(one, locale)
        is_both = one.foresees and one.observed is not None and one.value is not None
        return f"{self._number_of(one, one.value)} · {told}" if is_both else told

    def band(self, one: Slice) -> str:
        """The expected band of a slice, `3.2% – 7.2%`, or a dash."""
        if one.lower is None:
            return "–"
        return f"{self._number_of(one, one.lower)} – {self._number_of(one, one.upper)}"

    def unlisted_in(self, locale: Locale, listed: int | None = None) -> str:
        """How many slices are left out by a list of so many (default: all of the notice), or nothing."""
        counts = self.notice.counts
        hidden = counts.firing + counts.ended + counts.passed - (len(self.notice.slices) if listed is None else listed)
        if hidden <= 0:
            return ""
        if locale == "zh":
            return f"另有 {hidden:,} 个切片未列出，见检查页面。"
        return f"Not listed: {_slices(hidden)}; see the check's page."

    def _blocks(self) -> list[dict[str, Any]]:
        return [
            {
                "locale": locale,
                "title": self.title_in(locale),
                "facts": self.facts_in(locale),
                "head": self.table_head_in(locale),
                "rows": self.table_rows_in(locale),
                "unlisted": self.unlisted_in(locale),
                "link_label": self.link_label_in(locale),
                "runbook_label": word("runbook", locale),
            }
            for locale in self.wording.locales
        ]

    def status_in(self, locale: Locale) -> str:
        """`红色报警`, `RESOLVED`, `演练 · 红色报警`: the message in a word or two."""
        return self._marked(self._status(locale), locale)

    def _marked(self, text: str, locale: Locale) -> str:
        return f"{word('drill', locale)} · {text}" if self.is_drill else text

    def _status(self, locale: Locale) -> str:
        if not self.is_over:
            return word(self.notice.tier if self.notice.tier != "none" else "yellow", locale)
        changes = {one.change for one in self.notice.slices if one.change not in BEYOND}
        if self.notice.reason == "some_resolved":
            return word("fewer", locale)
        if changes == {"corrected"}:
            return word("corrected", locale)
        return word("cancelled" if changes == {"cancelled"} else "over", locale)

    def _count_sentence(self, locale: Locale) -> str:
        """Of alarms, whose names say what is wrong: how many there are, when it is not the one."""
        counts = self.notice.counts
        count = counts.ended if self.is_over else counts.firing
        if count < 2:
            return ""
        return f"共 {count:,} 项" if locale == "zh" else f"{count:,} in all"

    def _end_sentence(self, locale: Locale) -> str:
        ended, left = self.notice.counts.ended, self.notice.counts.firing
        ends = [one for one in self.notice.slices if one.change not in BEYOND]
        if ended == 1 and ends:
            what = slice_name(ends[0].dimension, ends[0].member, locale)
            what += f" {self.number(ends[0].value)}" if ends[0].value is not None else ""
        else:
            what = f"{ended:,} 个切片结束" if locale == "zh" else f"{_slices(ended)} ended"
        if not left:
            return what
        return f"{what}，仍有 {left:,} 个报警" if locale == "zh" else f"{what}, {left:,} still firing"

    def _over_sentence(self, locale: Locale) -> str:
        if locale == "zh":
            return f"发送前已有 {len(self.over)} 个所列切片结束，随后会有结束通知。"
        return f"Of the slices listed, {len(self.over)} ended before this was sent; a message about the end follows."

    def _age_sentence(self, one: Slice, locale: Locale) -> str:
        """How old the data of a freshness rule are, and how old they may be."""
        age = hours(one.observed, locale)
        if one.change not in BEYOND:
            return f"数据已恢复更新（距今 {age}）" if locale == "zh" else f"the data came (now {age} old)"
        rule = self.notice.rule
        limit = _limit(rule.red_if if one.tier == "red" and rule.red_if else rule.yellow_if or rule.red_if)
        if limit is None:
            return f"数据已 {age}未更新" if locale == "zh" else f"the data are {age} old"
        allowed = hours(limit, locale)
        if locale == "zh":
            return f"数据已 {age}未更新（应在 {allowed}内）"
        return f"the data are {age} old (expected within {allowed})"

    def _figure(self, one: Slice, locale: Locale) -> str:
        """A slice of another rule with its number: `退款率 · 地区=华北 13.2%`."""
        return f"{self._slice_name(one, locale)} {self.figure(one, locale)}"

    def _parts_sentence(self, locale: Locale) -> str:
        """The rules a composite looks at, each with its figure, its threshold and its tier."""
        said = []
        for one in self.notice.parts:
            notes = [word("quiet" if one.tier == "none" else f"tier.{one.tier}", locale)]
            if (bound := self.bound(one)) is not None:
                notes.insert(0, f"{word('bound', locale).lower()} {self.judged(one, bound)}")
            inner = "，".join(notes) if locale == "zh" else ", ".join(notes)
            figure = f"{one.rule}: {self._figure(one, locale)}"
            said.append(f"{figure}（{inner}）" if locale == "zh" else f"{figure} ({inner})")
        return "；".join(said) if locale == "zh" else "; ".join(said)

    def figure(self, one: Slice, locale: Locale) -> str:
        """The number of a slice: its value; of a freshness rule the age of its data, of a rule on the future what is foreseen."""
        kind = one.kind if one.rule else self.notice.rule.kind
        if kind == "freshness":
            return hours(one.observed, locale)
        if one.foresees and one.observed is not None:
            return f"{word(f'foresees.{one.foresees}', locale)} {self.judged(one, one.observed)}"
        return self._number_of(one, one.value)

    def _is_known(self, one: Slice) -> bool:
        """Whether there is a number to tell of a slice."""
        return one.value is not None or (bool(one.foresees) and one.observed is not None)

    def _is_judged(self, one: Slice) -> bool:
        """Whether its number is what thresholds judge: a chance that is not known leaves the value of today."""
        return not one.foresees or one.observed is not None

    def judged(self, one: Slice, value: float | None) -> str:
        """What thresholds judge, and the thresholds themselves: in the metric's unit, but of a chance in percent."""
        if one.foresees in CHANCES and value is not None:
            return f"{value:.0%}"
        return self._number_of(one, value)

    def _drill_sentence(self, locale: Locale) -> str:
        if self.is_over:
            return "演练已结束，没有真实报警。" if locale == "zh" else "The drill is over; nothing real had happened."
        ack = f"metrics alerts ack {self.notice.rule.id}"
        if locale == "zh":
            return f"这是演练，不是真实报警。请像真实报警一样确认：{ack} --by <姓名>"
        return f"This is a drill, no real alert. Acknowledge it as if it were one: {ack} --by <name>"

    def _incident_sentence(self, locale: Locale) -> str:
        """What else breaches below the headline."""
        notice = self.notice
        named = [self._figure(one, locale) for one in notice.contributors[:5]]
        more = notice.contributing - len(named)
        if locale == "zh":
            return f"下层 {notice.contributing:,} 项同时异常：{'；'.join(named)}" + (
                f"；另有 {more:,} 项" if more else ""
            )
        text = f"{notice.contributing:,} more below it: {'; '.join(named)}"
        return text + (f"; and {more:,} more" if more else "")

    def _slice_name(self, one: Slice, locale: Locale) -> str:
        """The slice, with its metric where that is not the message's own, and its grain where a table holds both."""
        where = slice_name(one.dimension, one.member, locale)
        if self._has_both_grains:
            grain = word(f"grain.{self._grain(one)}", locale)
            where += f"（{grain}）" if locale == "zh" else f" ({grain})"
        if not self.is_drill and is_drill(one.rule or self.notice.rule.id):
            where = f"{word('drill', locale)} · {where}"
        if not one.rule:
            return where
        names = (one.name_zh, one.name_en) if locale == "zh" else (one.name_en, one.name_zh)
        return f"{names[0] or names[1] or one.rule} · {where}"

    @cached_property
    def _has_both_grains(self) -> bool:
        return len({self._grain(one) for one in (*self.notice.slices, *self.notice.contributors)}) > 1

    def _grain(self, one: Slice) -> str:
        return one.grain or self.notice.grain

    def _since(self, one: Slice) -> str:
        return period_name(one.since, self._grain(one))

    def _number_of(self, one: Slice, value: float | None) -> str:
        rule = self.notice.rule
        return number(value, one.unit if one.rule else rule.unit, currency=rule.currency)

    def _condition(self, locale: Locale) -> str:
        rule = self.notice.rule
        parts = [
            f"{word(tier, locale)} {condition}"
            for tier, condition in (("yellow", rule.yellow_if), ("red", rule.red_if))
            if condition
        ]
        if rule.kind == "composite":  # its thresholds are ranks of the parts, which say nothing to a reader
            return rule.expression
        if rule.foresees in CHANCES:
            parts = [_NUMBER.sub(lambda found: f"{float(found[0]):.0%}", one) for one in parts]
        subject = "" if rule.expression == "value" else f"{rule.expression}: "
        if rule.foresees:
            subject = f"{word(f'foresees.{rule.foresees}', locale)} {subject}"
        return subject + (" · ".join(parts) or word("missing", locale))

    def _where(self, locale: Locale) -> str:
        counts = self.notice.counts
        parts = [
            (counts.new, "新", "new"),
            (counts.escalated, "升级", "escalated"),
            (counts.eased, "缓和", "eased"),
            (counts.ended, "结束", "ended"),
            (counts.passed, "来去", "came and went"),
            (counts.no_data, "缺数据", "without data"),
        ]
        if locale == "zh":
            said = [f"{counts.firing:,} 个切片报警（红 {counts.red:,}）"]
            said += [f"{zh} {count:,}" for count, zh, _ in parts if count]
            return "，".join(said)
        said = [f"{_slices(counts.firing)} firing ({counts.red:,} red)"]
        said += [f"{count:,} {en}" for count, _, en in parts if count]
        return ", ".join(said)

    def _how_bad(self, one: Slice, locale: Locale) -> str:
        text = slice_name(one.dimension, one.member, locale)
        if self._is_known(one):
            text += f" {self.figure(one, locale)}"
        if (bound := self.bound(one)) is not None and self._is_judged(one):
            told = self.judged(one, bound)
            text += f"，阈值 {told}" if locale == "zh" else f", threshold {told}"
        if one.foresees and one.value is not None and one.observed is not None:
            name, now = self.metric_name(locale), self.number(one.value)
            text += f"，当前{name} {now}" if locale == "zh" else f", {name} now {now}"
        if one.baseline is not None and self.notice.rule.expression != "value" and one.foresees != "stockout":
            text += (
                f"，基线 {self.number(one.baseline)}" if locale == "zh" else f", baseline {self.number(one.baseline)}"
            )
        return text

    def bound(self, one: Slice) -> float | None:
        """The threshold the slice is beyond: red's when it is red, else yellow's, else the one there is."""
        bound = one.red_bound if one.tier == "red" else one.yellow_bound
        if bound is not None:
            return bound
        return one.yellow_bound if one.yellow_bound is not None else one.red_bound

    def _row(self, one: Slice, locale: Locale) -> Row:
        ended = one.change not in BEYOND
        status = word(f"change.{one.change}", locale)
        if not ended and one.tier != "none":
            status = f"{word(f'tier.{one.tier}', locale)} · {status}"
        cells = (
            self._slice_name(one, locale),
            status,
            self._cell(one, locale),
            self.judged(one, self.bound(one)),
            self.band(one),
            self._since(one),
        )
        return Row(cells, "none" if ended else one.tier)


def _limit(threshold: str) -> float | None:
    """The number of a threshold such as `> 36`; None when it has none or several."""
    numbers = _NUMBER.findall(threshold)
    return float(numbers[0]) if len(numbers) == 1 else None


def _slices(count: int) -> str:
    return "1 slice" if count == 1 else f"{count:,} slices"


def compose(
    notice: Notice,
    wording: Wording | None = None,
    *,
    over: Collection[str] = (),
    mentions: Collection[str] = (),
    told: Told = NOTHING,
    phrased: Mapping[Locale, str] | None = None,
    explained: Explained = UNEXPLAINED,
) -> Message:
    """The message of a notice. `over`: listed instances that have ended by the time of sending; `mentions`: whom a room calls;
    `told`: the advice on it, as the receiver may see it; `phrased`: the first one in other words, by language; `explained`: why the first slice is what it is."""
    return Message(notice, wording or Wording(), frozenset(over), tuple(mentions), told, phrased or {}, explained)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader("metrics_pipeline.delivery", "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def rendered(template: str, **values: Any) -> str:
    """A template of `templates/`, filled; an undefined name is an error."""
    return str(_environment().get_template(template).render(**values))
