"""A retrospective for people: a stand-alone HTML page with pictures, or Markdown; in Chinese or English."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from metrics_pipeline.alerts.words import Locale, number, period_name, slice_name
from metrics_pipeline.alerts.work_orders import CLOSE_WORDS, SYSTEM
from metrics_pipeline.delivery.plots import Plot
from metrics_pipeline.followup.cases import Case
from metrics_pipeline.followup.charts import days_svg, weeks_svg
from metrics_pipeline.followup.quality import Quality, RuleQuality
from metrics_pipeline.followup.retrospective import EpisodeLook, Figures, WeekLook
from metrics_pipeline.followup.words import word
from metrics_pipeline.store.records import OrderEvent
from metrics_pipeline.store.rule_proposals import ProposalRow

LISTED = 60
"""Cases on a page."""
CARDS = 8
"""Of these, the ones that are shown at length."""
RULES = 25


@dataclass(frozen=True)
class Paper:
    """In which language and on whose clock a page is written."""

    locale: Locale
    zone: tzinfo
    currency: str = ""

    def __call__(self, key: str, **facts: object) -> str:
        return word(key, self.locale, **facts)

    def at(self, moment: datetime | None) -> str:
        """An instant on the shop's clock."""
        return "–" if moment is None else f"{moment.astimezone(self.zone):%m-%d %H:%M}"

    def length(self, hours: float | None) -> str:
        """`12 min`, `3.5 h`, `2.1 d`."""
        if hours is None:
            return "–"
        if hours < 1:
            return f"{hours * 60:.0f} {self('minutes')}"
        return f"{hours:.1f} {self('hours')}" if hours < 48 else f"{hours / 24:.1f} {self('days')}"

    def share(self, part: int, whole: int) -> str:
        return f"{part / whole:.0%}" if whole else "–"


def week_html(look: WeekLook, paper: Paper) -> str:
    """The page of a week."""
    return _render(
        "week.html",
        paper,
        title=f"{paper('title.week')} {look.week.name}",
        span=f"{look.week.first:%Y-%m-%d} – {look.week.last:%Y-%m-%d}",
        figures=_figures(look, paper),
        days=days_svg(look.days, paper.locale),
        cases=[case_view(one, paper) for one in look.cases[:CARDS]],
        further=[case_view(one, paper) for one in look.cases[CARDS:LISTED]],
        hidden=max(len(look.cases) - LISTED, 0),
        missed=missed_lines(look, paper),
        rules=[_rule_view(one, paper) for one in look.quality.rules[:RULES]],
        loads=_loads(look),
        waiting=[proposal_view(one, paper) for one in look.proposals if one.state == "proposed"],
        decided=[proposal_view(one, paper) for one in look.proposals if one.state != "proposed"],
    )


def episode_html(look: EpisodeLook, paper: Paper) -> str:
    """The page of one alert."""
    return _render(
        "episode.html",
        paper,
        title=f"{paper('title')}: {_name(look.case, paper)}",
        span=look.case.key,
        case=case_view(look.case, paper),
        story=story_lines(look, paper),
        rules=[_rule_view(one, paper) for one in look.quality.rules],
        earlier=[case_view(one, paper) for one in look.earlier],
        proposals=[proposal_view(one, paper) for one in look.proposals if one.state != "superseded"],
    )


def week_markdown(look: WeekLook, paper: Paper) -> str:
    """A week as Markdown, without pictures: for the Dagster UI, a chat, a wiki."""
    lines = [f"# {paper('title.week')} {look.week.name}", "", f"{look.week.first} – {look.week.last}", ""]
    lines += _table(["", look.week.name, paper("before")], [list(row) for row in _figures(look, paper)])
    lines += ["", f"## {paper('what_happened')}", ""]
    if not look.cases:
        lines.append(paper("nothing"))
    for one in look.cases[:LISTED]:
        view = case_view(one, paper)
        facts = "; ".join(f"{name} {value}" for name, value in view["facts"])
        advice = "".join(f"\n  - {paper('advice')}: {_cell(line)}" for line in view["advice"][:1])
        lines.append(f"- **{view['tier']} · {_cell(view['name'])}** ({_cell(view['slice'])}): {_cell(facts)}{advice}")
    if look.missed:
        lines += ["", f"## {paper('missed')}", "", *(f"- {_cell(one)}" for one in missed_lines(look, paper))]
    lines += ["", f"## {paper('rules')}", ""]
    head = [
        paper(one) for one in ("rule", "alerts", "precision", "interval", "true", "false", "expected", "unanswered")
    ]
    views = [_rule_view(one, paper) for one in look.quality.rules[:RULES]]
    lines += _table(head, [[one[key] for key in _RULE_KEYS] for one in views])
    for title, none, states in (
        ("proposals", "no_proposals", ("proposed",)),
        ("decided", "no_decided", ("accepted", "rejected")),
    ):
        lines += ["", f"## {paper(title)}", ""]
        found = [proposal_view(one, paper) for one in look.proposals if one.state in states]
        lines += [
            f"- #{one['number']} **{one['rule']}** {one['change']}: {one['why']} {one['said']}" for one in found
        ] or [paper(none)]
    return "\n".join(lines) + "\n"


def episode_markdown(look: EpisodeLook, paper: Paper) -> str:
    """One alert as Markdown."""
    view = case_view(look.case, paper)
    lines = [f"# {paper('title')}: {_cell(view['name'])}", "", f"`{look.case.key}`", ""]
    lines += [f"- {name}: {_cell(value)}" for name, value in view["facts"]]
    for title, key in (("advice", "advice"), ("similar", "memory")):
        if view[key]:
            lines += ["", f"## {paper(title)}", "", *(f"- {_cell(line)}" for line in view[key])]
    lines += ["", f"## {paper('story')}", ""]
    lines += [f"- {at} {kind}: {_cell(text)}" for at, kind, text in story_lines(look, paper)]
    lines += ["", f"## {paper('earlier')}", ""]
    earlier = [case_view(one, paper) for one in look.earlier]
    lines += [f"- {one['opened']}: {one['outcome']}; {one['ended']}" for one in earlier] or [paper("no_earlier")]
    return "\n".join(lines) + "\n"


def case_view(case: Case, paper: Paper) -> dict[str, Any]:
    """A case as the texts a page shows."""
    zh = paper.locale == "zh"
    told = ", ".join(f"{one.receiver} {paper.at(one.at)}" for one in case.told) or paper("nobody")
    facts = [
        (paper("period"), _periods(case)),
        (paper("value"), _value(case, paper)),
        (paper("detected"), paper.at(case.opened_at)),
        (paper("told"), told),
        (paper("acted"), paper.at(case.acted_at)),
        (paper("ended"), _ended(case, paper)),
        (paper("order"), _order(case, paper)),
        (paper("outcome"), _outcome(case, paper)),
    ]
    others = [f"{rule} ({slice_name(dimension, member, paper.locale)})" for rule, dimension, member in case.others[:8]]
    more = len(case.others) - len(others)
    if others:
        facts.append((paper("others"), ", ".join(others) + (f" +{more}" if more else "")))
    if cause := case.cause.line(paper.locale):
        facts.append((paper("cause"), cause))
    summary = case.card.annotations.get("summary_zh" if zh else "summary", "")
    return {
        "key": case.key,
        "name": _name(case, paper),
        "rule": case.rule,
        "slice": slice_name(case.dimension, case.member, paper.locale),
        "tier": paper(case.tier),
        "colour": case.tier,
        "summary": summary,
        "facts": facts,
        "outcome": paper(f"outcome.{case.outcome}"),
        "outcome_kind": case.outcome,
        "value": _value(case, paper),
        "opened": period_name(case.first_period, case.grain),
        "ended": _ended(case, paper),
        "picture": _picture(case, paper),
        "advice": case.advice.lines(paper.locale, currency=paper.currency),
        "memory": case.advice.memory(paper.locale),
    }


def missed_lines(look: WeekLook, paper: Paper) -> list[str]:
    """What people reported because nobody was told: when, where, what, by whom."""
    return [
        f"{one.starts_on}{'' if one.starts_on == one.ends_on else f' – {one.ends_on}'} {one.metric} "
        f"({slice_name(one.dimension, one.member, paper.locale)}): {one.text} ({one.who})"
        for one in look.missed
    ]


def story_lines(look: EpisodeLook, paper: Paper) -> list[tuple[str, str, str]]:
    """Everything that happened, in its order: when, of what kind, what."""
    story = look.story
    moments: list[tuple[datetime, str, str]] = []
    for row in story.transitions:
        sides = ((row.from_state, row.from_tier), (row.to_state, row.to_tier))
        change = " → ".join(
            " ".join(paper(f"is.{one}") for one in (state, tier) if one and one != "none") for state, tier in sides
        )
        value = "" if row.value is None else f", {number(row.value, look.case.card.unit, currency=paper.currency)}"
        reason = paper(f"is.{row.reason}")
        moments.append((row.at, paper("state"), f"{row.period:%Y-%m-%d %H:%M} {change} ({reason}{value})"))
    names = {one.receiver for one in look.case.told}
    for message in story.messages:
        receiver = message.receiver.partition(":")[0] if message.receiver not in names else message.receiver
        why, state = paper(f"is.{message.reason}"), paper(f"is.{message.state}")
        moments.append((message.sent_at or message.created_at, paper("sent"), f"{why} → {receiver}: {state}"))
    for order in story.orders:
        for event in order.events:
            who = "" if event.who == SYSTEM else f"{event.who}: "
            told = f"{who}{paper(f'is.{event.what}')} {_event_detail(event, paper)}".replace("： ", "：").strip()
            moments.append((event.at, f"{paper('order')} {order.order.id}", told))
    for said in story.feedback:
        word_ = (
            paper("outcome.true")
            if said.is_useful
            else paper("outcome.expected" if said.reason == "expected" else "outcome.false")
        )
        moments.append((said.at, paper("said"), f"{said.who}: {word_} {said.reason}".strip()))
    for done in look.actions:
        moments.append((done.at, paper("action"), f"{done.who}: {done.action} {done.note}".strip()))
    return [(paper.at(at), kind, text) for at, kind, text in sorted(moments, key=lambda one: one[0])]


def _event_detail(event: OrderEvent, paper: Paper) -> str:
    """The detail of an event of an order in the reader's language: an advice is kept in both, a reason as its word."""
    zh, found, en = event.detail.partition(" · ")
    if event.what == "advised" and found:
        return zh if paper.locale == "zh" else en
    reason, colon, note = event.detail.partition(":")
    words = CLOSE_WORDS.get(reason)
    return event.detail if words is None else f"{words[0 if paper.locale == 'zh' else 1]}{colon}{note}"


def proposal_view(row: ProposalRow, paper: Paper) -> dict[str, Any]:
    """A proposal as the texts and the chart a page shows."""
    evidence, effect = row.evidence, row.effect
    impact = evidence.get("impact")
    said, chart = "", ""
    if row.state == "accepted":
        said, chart = _effect(effect, paper) if effect is not None else (paper("waiting_effect"), "")
    elif impact is not None:
        before, after = impact["before"], impact["after"]
        said = paper(
            "would", a=before["episodes"], b=after["episodes"], c=before["false"] + before["expected"],
            d=after["false"] + after["expected"], e=before["true"], f=after["true"],
        )  # fmt: skip
    if impact is not None and not chart:
        chart = weeks_svg(impact["weeks"], paper("former"), paper("present"))
    return {
        "number": row.id,
        "rule": row.rule or row.kind,
        "kind": row.kind,
        "state": paper(row.state),
        "change": ", ".join(f"{name}: {'–' if value is None else value}" for name, value in row.changes.items()),
        "why": row.why_zh if paper.locale == "zh" else row.why,
        "said": said,
        "by": "" if row.decided_by is None else f"{row.decided_by}, {paper.at(row.decided_at)}: {row.note}",
        "chart": chart,
    }


def _effect(effect: Mapping[str, Any], paper: Paper) -> tuple[str, str]:
    before, after, former, present = (effect[name] for name in ("before", "after", "former", "present"))
    said = paper(
        "came", days=effect["days"], a=before["false"] + before["expected"], b=after["false"] + after["expected"],
        c=before["true"], d=after["true"], e=former["episodes"], f=present["episodes"],
    )  # fmt: skip
    if former.get("incidents"):
        said += paper("recall", a=former["found"], b=present["found"], n=former["incidents"])
    return said, weeks_svg(effect["weeks"], paper("former"), paper("present"))


def _figures(look: WeekLook, paper: Paper) -> list[tuple[str, str, str]]:
    """Name, this week, the week before."""
    this, former = look.figures, look.before

    def both(name: str, text: Any) -> tuple[str, str, str]:
        return paper(name), text(this), text(former)

    return [
        both("cases", lambda one: f"{one.cases}"),
        both("alerts", lambda one: f"{one.alerts}"),
        both("red", lambda one: f"{one.red}"),
        both("messages", lambda one: f"{one.messages}"),
        both("precision", lambda one: paper.share(one.true, one.answered)),
        both("answered", _of),
        both("tell", lambda one: paper.length(one.hours_to_tell)),
        both("act", lambda one: paper.length(one.hours_to_act)),
    ]


def _of(figures: Figures) -> str:
    return f"{figures.answered}/{figures.alerts}"


_RULE_KEYS = ("rule", "alerts", "precision", "interval", "true", "false", "expected", "unanswered")


def _rule_view(one: RuleQuality, paper: Paper) -> dict[str, str]:
    known = one.precision is not None and one.precision_low is not None and one.precision_high is not None
    return {
        "rule": one.rule,
        "alerts": f"{one.episodes}",
        "precision": f"{one.precision:.0%}" if known else "–",
        "interval": f"{one.precision_low:.0%}–{one.precision_high:.0%}" if known else "",
        "true": f"{one.true}",
        "false": f"{one.false}",
        "expected": f"{one.expected}",
        "unanswered": f"{one.unanswered + one.aside}",
        "messages": f"{one.messages}",
        "tell": paper.length(one.hours_to_tell),
        "act": paper.length(one.hours_to_act),
        "width": f"{(one.precision or 0) * 100:.0f}",
    }


def _loads(look: WeekLook) -> list[tuple[str, int, int]]:
    """Who got how many messages in the week, and how many of them red."""
    return [(one.receiver, one.messages, one.red) for one in _of_week(look.quality, look.week.name)]


def _of_week(quality: Quality, week: str) -> Sequence[Any]:
    return sorted((one for one in quality.loads if one.week == week), key=lambda one: (-one.messages, one.receiver))


def _name(case: Case, paper: Paper) -> str:
    card = case.card
    return (card.name_zh if paper.locale == "zh" else card.name_en) or card.metric or case.rule


def _value(case: Case, paper: Paper) -> str:
    if case.value is None:
        return paper("hidden")
    return number(case.value, case.card.unit, currency=paper.currency or case.card.currency)


def _periods(case: Case) -> str:
    first, last = period_name(case.first_period, case.grain), period_name(case.last_period, case.grain)
    return first if first == last else f"{first} – {last}"


def _ended(case: Case, paper: Paper) -> str:
    if case.closed_at is None:
        return paper("end.")
    return f"{paper.at(case.closed_at)} ({paper(f'end.{case.close_reason}')})"


def _order(case: Case, paper: Paper) -> str:
    order = case.order
    if order is None:
        return "–"
    text = f"#{order.id} {paper(f'order.{order.state}')}, {order.assignee}"
    if order.close_reason:
        zh, en = CLOSE_WORDS.get(order.close_reason, (order.close_reason, order.close_reason))
        text += f", {zh if paper.locale == 'zh' else en}: {order.close_note}"
    return text


def _outcome(case: Case, paper: Paper) -> str:
    by = (
        f" ({case.said_by}{f': {case.said}' if case.said not in ('', 'fixed', 'false_alarm', 'expected') else ''})"
        if case.said_by
        else ""
    )
    return f"{paper(f'outcome.{case.outcome}')}{by}"


def _picture(case: Case, paper: Paper) -> str:
    """The series around the alert as a `data:` URI; "" where there is none to show."""
    if case.series is None or not case.series.points:
        return ""
    title = f"{_name(case, paper)} · {slice_name(case.dimension, case.member, paper.locale)}"
    plot = Plot(case.series, title=title, ascii_title=case.card.metric, unit=case.card.unit, tier=case.tier)
    return plot.data_uri()


def _render(template: str, paper: Paper, **facts: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(word=paper, lang=paper.locale, **facts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(map(_cell, row))} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\uff5c").split())
