"""A message in the form a channel takes: one line, the fields of a text message, a bot's Markdown, a card.

Each form fits a number of bytes: what goes first is what a reader misses least (the other language, then the slices at
the end of the list), and the title, the figure, the owner and the links stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from metrics_pipeline.alerts.words import Locale, period_name, slice_name
from metrics_pipeline.delivery.messages import Message, Row, rendered
from metrics_pipeline.delivery.words import word

PLANS = ((2, 10), (2, 5), (1, 10), (1, 5), (1, 3), (1, 1), (1, 0))
"""Languages and listed slices, the richest form first."""
LONGEST, BRIEF = 600, 120
"""Bytes of each fact, and in the shortest form."""
FACTS = (
    "drill",
    "worst",
    "parts",
    "band",
    "since",
    "cause",
    "advice",
    "before",
    "where",
    "rule",
    "notified",
    "late",
    "owner",
)
END_FACTS = ("drill", "where", "parts", "rule", "period", "notified", "owner")
TONES = {"red": "red", "yellow": "yellow", "none": "green"}


def cut(text: str, limit: int, mark: str = "…") -> str:
    """The text in at most `limit` bytes of UTF-8; no character is split, and a mark says that something is missing."""
    data = text.encode("utf-8")
    if len(data) <= limit:
        return text
    room = limit - len(mark.encode("utf-8"))
    if room < 0:
        return ""
    return data[:room].decode("utf-8", "ignore").rstrip().rstrip("\u200d\ufe0f") + mark


def size(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode("utf-8"))


def tone(message: Message) -> str:
    """`red`, `yellow`, or `green` for an end."""
    return "green" if message.is_over else TONES[message.notice.tier]


def line(message: Message, locale: Locale | None = None, limit: int = 500) -> str:
    """One line for a text message: the title, the band, since when, who owns it; no link, carriers refuse them."""
    chosen = locale or message.wording.locales[0]
    parts = [message.title_in(chosen)]
    if not message.is_over and message.notice.slices:
        worst = message.notice.slices[0]
        if worst.lower is not None:
            parts.append(f"{word('band', chosen)} {message.band(worst)}")
        parts.append(f"{word('since', chosen)} {period_name(worst.since, message.notice.grain)}")
    owner = message.notice.rule.owner
    if owner:
        parts.append(f"{word('owner', chosen)} {owner}")
    return cut(("；" if chosen == "zh" else "; ").join(parts), limit)


FIELDS = (
    "status",
    "metric",
    "where",
    "value",
    "bound",
    "band",
    "since",
    "period",
    "count",
    "owner",
    "rule",
    "title",
    "text",
)
"""What a template of a text message can be filled with."""


def fields(message: Message, locale: Locale | None = None) -> dict[str, str]:
    """The fields of a text message by name (`FIELDS`), each one line; a dash where nothing is known."""
    chosen = locale or message.wording.locales[0]
    notice = message.notice
    worst = notice.slices[0] if notice.slices else None
    count = notice.counts.ended if message.is_over else notice.counts.firing
    values = {
        "status": message.status_in(chosen),
        "metric": message.metric_name(chosen),
        "where": slice_name(worst.dimension, worst.member, chosen) if worst else "",
        "value": message.figure(worst, chosen) if worst else "",
        "bound": message.judged(worst, message.bound(worst)) if worst else "",
        "band": message.band(worst) if worst else "",
        "since": period_name(worst.since, notice.grain) if worst else "",
        "period": period_name(notice.period, notice.grain),
        "count": f"{count:,}",
        "owner": notice.rule.owner,
        "rule": notice.rule.id,
        "title": message.title_in(chosen),
        "text": line(message, chosen),
    }
    return {name: " ".join(value.split()) or "–" for name, value in values.items()}


def harmless(text: str) -> str:
    """One line in which nothing calls a person or is a tag, for texts that know no escapes."""
    return " ".join(text.split()).replace("<", "＜").replace(">", "＞")


class Dialect(Protocol):
    """A vendor's Markdown. Methods take plain text and escape it; `bold` takes what is escaped already."""

    rule: str

    def text(self, text: str) -> str: ...
    def bold(self, text: str) -> str: ...
    def heading(self, text: str, tone: str) -> str: ...
    def fact(self, label: str, value: str, tone: str) -> str: ...
    def item(self, cells: Sequence[str], tier: str) -> str:
        """A slice: its name, its value, and what else is said of it."""
        ...

    def links(self, links: Sequence[tuple[str, str]]) -> str: ...
    def line(self, text: str) -> str: ...


class _Plain:
    """What the dialects share. Names come from data: one that looks like a mention or a link must not become one."""

    rule = "---"
    colours: ClassVar[dict[str, str]] = {}
    end = ""
    """What makes a line end where it ends."""
    _swaps = str.maketrans({"<": "＜", ">": "＞", "[": "【", "]": "】", "`": "'", "*": "∗"})

    def text(self, text: str) -> str:
        return " ".join(text.split()).translate(self._swaps)

    def bold(self, text: str) -> str:
        return f"**{text}**"

    def coloured(self, text: str, tone: str) -> str:
        colour = self.colours.get(tone)
        return f'<font color="{colour}">{text}</font>' if colour else text

    def heading(self, text: str, tone: str) -> str:
        return f"### {self.coloured(self.text(text), tone)}"

    def fact(self, label: str, value: str, tone: str) -> str:
        return f"{self.bold(self.text(label))}: {self.coloured(self.text(value), tone)}{self.end}"

    def item(self, cells: Sequence[str], tier: str) -> str:
        where, value, *rest = map(self.text, cells)
        return " · ".join((f"- {where} {self.bold(self.coloured(value, TONES.get(tier, '')))}", *rest))

    def links(self, links: Sequence[tuple[str, str]]) -> str:
        return " · ".join(f"[{self.text(label)}]({_address(url)})" for label, url in links) + self.end

    def line(self, text: str) -> str:
        return f"{self.text(text)}{self.end}"


class DingTalkMarkdown(_Plain):
    """DingTalk: a line ends with two spaces or an empty line; colours as HTML (custom bot documentation)."""

    colours: ClassVar[dict[str, str]] = {"red": "#c81e1e", "yellow": "#b7791f", "green": "#2f855a"}
    end = "  "

    def coloured(self, text: str, tone: str) -> str:
        colour = self.colours.get(tone)
        return f"<font color={colour}>{text}</font>" if colour else text


class WeComMarkdown(_Plain):
    """WeCom: three named colours, quotes, no lists and no rules (group bot documentation)."""

    rule = ""
    colours: ClassVar[dict[str, str]] = {"red": "warning", "yellow": "warning", "green": "info"}

    def fact(self, label: str, value: str, tone: str) -> str:
        return f"> {self.text(label)}: {self.coloured(self.text(value), tone)}"

    def item(self, cells: Sequence[str], tier: str) -> str:
        return super().item(cells, tier).removeprefix("- ")

    def links(self, links: Sequence[tuple[str, str]]) -> str:
        return f"\n{super().links(links)}"  # an empty line ends the quote


class FeishuMarkdown(_Plain):
    """Feishu and Lark cards: special characters as HTML entities (card Markdown documentation)."""

    colours: ClassVar[dict[str, str]] = {"red": "red", "yellow": "orange", "green": "green"}
    _swaps = str.maketrans(
        {
            "<": "&#60;",
            ">": "&#62;",
            "[": "&#91;",
            "]": "&#93;",
            "`": "&#96;",
            "*": "&#42;",
            "~": "&#126;",
            "_": "&#95;",
        }
    )

    def coloured(self, text: str, tone: str) -> str:
        colour = self.colours.get(tone)
        return f"<font color='{colour}'>{text}</font>" if colour else text


class CommonMarkdown(_Plain):
    """What most services read: no colours, lines end with two spaces."""

    end = "  "


def markdown(
    message: Message, dialect: Dialect, limit: int, *, tail: str = "", heading: bool = True, linked: bool = True
) -> str:
    """The message in a vendor's Markdown, in at most `limit` bytes. `tail` (mentions, a key word) is always there, at the end.

    `heading`, `linked`: whether the title and the links are in it; a card has places of its own for them.
    """
    room = limit - (size(tail) + 2 if tail else 0)
    locales = message.wording.locales

    def text_of(languages: int, rows: int, longest: int = LONGEST) -> str:
        blocks = [
            _block(message, locale, rows if number == 0 else 0, longest=longest, is_first=number == 0)
            for number, locale in enumerate(locales[:languages])
        ]
        text = rendered("markdown.txt", d=dialect, blocks=blocks, heading=heading, linked=linked)
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    texts = (text_of(*plan) for plan in PLANS)
    text = next((text for text in texts if size(text) <= room), None)
    if text is None:
        text = cut(text_of(1, 0, BRIEF), room, word("truncated", locales[0]))
    return f"{text}\n\n{tail}" if tail else text


def _block(message: Message, locale: Locale, rows: int, *, longest: int, is_first: bool) -> dict[str, Any]:
    values = message.named_facts_in(locale)
    if not message.is_over and message.notice.slices[0].lower is not None:
        values["band"] = message.band(message.notice.slices[0])
    names = [name for name in (END_FACTS if message.is_over else FACTS) if name in values]
    listed = [(_item(row, locale), row.tier) for row in message.table_rows_in(locale)[:rows]]
    if len(message.notice.slices) == 1 and not message.is_over:
        listed = []  # the worst one is told already
    told = len(listed) or (0 if message.is_over else 1)
    return {
        "title": message.title_in(locale),
        "tone": tone(message),
        "facts": [
            (
                word(name, locale),
                cut(values[name], longest),
                tone(message) if name == "worst" else "",
            )
            for name in names
        ],
        "links": links(message, locale) if is_first else (),
        "rows": listed,
        "unlisted": message.unlisted_in(locale, told) if is_first else "",
    }


def _item(row: Row, locale: Locale) -> tuple[str, ...]:
    where, status, value, bound, band, since = row.cells
    labelled = [(word(name, locale), cell) for name, cell in (("bound", bound), ("band", band), ("since", since))]
    return (where, value, status, *(f"{label} {cell}" for label, cell in labelled if cell != "–"))


def links(message: Message, locale: Locale) -> tuple[tuple[str, str], ...]:
    """Label and address: the check's page, and the runbook when it is on the web."""
    found = [(message.link_label_in(locale), message.link)]
    if message.runbook.startswith(("http://", "https://")):
        found.append((word("runbook", locale), message.runbook))
    return tuple(found)


@dataclass(frozen=True)
class Card:
    """A message as a card: header, body, plot, buttons; vendors write it in their own JSON."""

    title: str
    tone: str
    body: str
    """In the dialect it was made for."""
    links: tuple[tuple[str, str], ...]
    alt: str


def card(message: Message, dialect: Dialect, limit: int, *, tail: str = "") -> Card:
    """The card of a message; its body has at most `limit` bytes."""
    locale = message.wording.locales[0]
    return Card(
        title=message.title_in(locale),
        tone=tone(message),
        body=markdown(message, dialect, limit, tail=tail, heading=False, linked=False),
        links=links(message, locale),
        alt=message.plot.alt if message.plot is not None else "",
    )


def _address(url: str) -> str:
    return url.replace(" ", "%20").replace("(", "%28").replace(")", "%29").replace("<", "%3C").replace(">", "%3E")
