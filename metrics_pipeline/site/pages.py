"""The content as files: path below the site's folder → text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metrics_pipeline.alerts.words import Locale, number, period_name, slice_name
from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.site import words
from metrics_pipeline.site.chart import chart_svg, spark_svg
from metrics_pipeline.site.content import Content, Entry, SliceValue
from metrics_pipeline.site.formula import formula_html
from metrics_pipeline.site.graph import Node, lineage_svg
from metrics_pipeline.site.words import Text, text

_HERE = Path(__file__).parent
ASSETS = ("site.css", "site.js")
ROWS = 14
"""Newest days that are listed."""
_LAYER_RANK = {"base": 2, "operational": 3, "strategic": 4}
_HEADS: dict[int, Text] = {
    0: text("源数据表", "source tables"),
    1: text("事实表", "facts"),
    **{rank: words.LAYERS[layer] for layer, rank in _LAYER_RANK.items()},
}


def site_files(content: Content, *, locale: Locale = "zh") -> Iterator[tuple[str, str]]:
    """Every file of the site. `locale` is the language in which it opens."""
    environment = _environment()
    site = _Site(content)
    shared: dict[str, Any] = {
        "locale": locale,
        "content": content,
        "words": words,
        "number": site.number,
        "unit": site.unit,
        "slice_text": words.slice_text,
        "named": words.named,
        "slice_name": slice_name,
        "period_name": period_name,
    }
    entries = sorted(content.entries.values(), key=lambda entry: (-_LAYER_RANK[entry.metric.layer], entry.metric.id))
    yield (
        "index.html",
        environment.get_template("index.html").render(
            shared, root="", entries=entries, filters=_filters(entries, content), site=site
        ),
    )
    page = environment.get_template("metric.html")
    for entry in entries:
        yield f"metrics/{entry.metric.id}.html", page.render(shared, root="../", entry=entry, site=site)
    for name in ASSETS:
        yield f"assets/{name}", (_HERE / "assets" / name).read_text("utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def _filters(entries: list[Entry], content: Content) -> list[tuple[str, Text, list[tuple[str, Text, int]]]]:
    """(field, its name, its members with how many metrics they have) for every filter of the list."""

    def options(field: str, known: Mapping[str, Text]) -> list[tuple[str, Text, int]]:
        found = [getattr(entry.metric, field) for entry in entries]
        order = [*known, *sorted(set(found) - set(known))]
        return [(name, words.named(known, name), found.count(name)) for name in order if name in found]

    return [
        ("layer", text("层级", "layer"), options("layer", words.LAYERS)),
        ("stage", text("环节", "stage"), options("stage", words.STAGES)),
        ("category", text("分类", "category"), options("category", words.CATEGORIES)),
        ("business_line", text("业务线", "business line"), options("business_line", content.lines)),
        ("sensitivity", text("密级", "sensitivity"), options("sensitivity", words.SENSITIVITIES)),
    ]


class _Site:
    """What templates ask about one entry in the light of all."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._depths: dict[str, int] = {}

    def number(self, value: float | None, entry: Entry, *, short: bool = False) -> str:
        """A value in the metric's unit."""
        return number(value, entry.metric.unit, currency="" if short else self._content.currency, short=short)

    def unit(self, entry: Entry) -> Text:
        """The unit in words; the currency of the installation for amounts."""
        if entry.metric.unit == "currency" and self._content.currency:
            return text(self._content.currency, self._content.currency)
        return words.named(words.UNITS, entry.metric.unit)

    def formula(self, entry: Entry) -> Markup | None:
        """None when it names a metric that is not on this site."""
        named = (*entry.metric.inputs, *(metric for _, metric in entry.metric.begins_with))
        if any(name not in self._content.entries for name in named):
            return None
        return formula_html(entry.metric, entry.definition, self.link)

    def link(self, metric_id: str) -> Markup:
        """A metric's name in both languages, leading to its page."""
        entry = self._content.entries[metric_id]
        return Markup(
            '<a class="metric" href="{0}.html" title="{0}"><span class="zh" lang="zh">{1}</span>'
            '<span class="en" lang="en">{2}</span></a>'
        ).format(metric_id, entry.metric.name_zh, entry.metric.name_en)

    def chart(self, entry: Entry) -> Markup:
        metric = entry.metric
        return Markup(  # noqa: S704 - drawn here, every text in it escaped
            chart_svg(
                [(value.day, value.value) for value in entry.values],
                self._content.shades,
                lambda value: self.number(value, entry, short=True),
                f"{metric.name_zh} {metric.name_en}",
            )
        )

    def has_shades(self, entry: Entry) -> bool:
        """Whether a promotion lies within the chart."""
        if not entry.values:
            return False
        first, last = entry.values[0].day, entry.values[-1].day
        return any(shade.first <= last and shade.last >= first for shade in self._content.shades)

    def spark(self, entry: Entry) -> Markup:
        return Markup(spark_svg([(value.day, value.value) for value in entry.values[-30:]]))  # noqa: S704 - numbers

    def newest(self, entry: Entry) -> list[Any]:
        """The newest days, newest first."""
        return list(reversed(entry.values[-ROWS:]))

    def by_dimension(self, entry: Entry) -> list[tuple[str, list[SliceValue]]]:
        """Slices of the newest day: dimension → its members."""
        found: dict[str, list[SliceValue]] = {}
        for one in entry.slices:
            found.setdefault(one.dimension, []).append(one)
        return list(found.items())

    def shows_parts(self, entry: Entry) -> bool:
        """Whether numerator and denominator may stand beside the ratio: only if both inputs show their values."""
        inputs = [self._content.entries.get(name) for name in entry.metric.inputs]
        return entry.metric.kind == "ratio" and all(one is not None and not one.is_withheld for one in inputs)

    def former(self, entry: Entry) -> list[tuple[date, Metric | None]]:
        """Former definitions, newest first, each with the first day that it no longer is for; None where one names a
        metric that is not on this site.
        """
        return [
            (until, one if all(name in self._content.entries for name in one.inputs) else None)
            for until, one in reversed(entry.metric.former)
        ]

    def inputs(self, entry: Entry) -> list[Entry]:
        return [self._content.entries[name] for name in entry.metric.inputs if name in self._content.entries]

    def users(self, entry: Entry) -> list[Entry]:
        return [
            self._content.entries[name]
            for name in self._content.users[entry.metric.id]
            if name in self._content.entries
        ]

    def lineage(self, entry: Entry) -> Markup:
        """The drawing of everything above and below the metric."""
        above, below = self._reach(entry.metric.id, up=True), self._reach(entry.metric.id, up=False)
        ids = [*dict.fromkeys([*above, entry.metric.id, *below])]
        nodes = [self._node(name) for name in ids]
        edges = [
            (source, name)
            for name in ids
            for source in self._content.entries[name].metric.inputs
            if source in self._content.entries and ((name in above or name == entry.metric.id) or source not in above)
            if source in ids
        ]
        for name in (*above, entry.metric.id):
            leaf = self._content.entries[name]
            if leaf.metric.inputs:
                continue
            for fact in leaf.facts:
                edges += [(f"raw.{table}", fact) for table in leaf.metric.tables]
                edges.append((fact, name))
        for source, target in list(dict.fromkeys(edges)):
            if source.startswith("raw."):
                nodes.append(Node(source, (0, 0), text(source[4:], source[4:]), source, "raw"))
                nodes.append(
                    Node(target, (1, 0), text(target.removeprefix("fct_"), target.removeprefix("fct_")), target, "fact")
                )
        unique = list({node.id: node for node in nodes}.values())
        metric = entry.metric
        return Markup(  # noqa: S704 - drawn here, every text in it escaped
            lineage_svg(
                unique, dict.fromkeys(edges), _HEADS, f"{metric.name_zh} 的血缘, lineage of {metric.name_en}", metric.id
            )
        )

    def _node(self, name: str) -> Node:
        metric = self._content.entries[name].metric
        css = f"{metric.layer}{' absent' if metric.absent else ''}"
        rank = (_LAYER_RANK[metric.layer], self._depth(name))
        return Node(name, rank, text(metric.name_zh, metric.name_en), name, css, f"{name}.html")

    def _depth(self, name: str) -> int:
        """How many metrics of its own layer lie below it, in a row."""
        if name not in self._depths:
            metric = self._content.entries[name].metric
            beside = [
                self._depth(source) + 1
                for source in metric.inputs
                if source in self._content.entries and self._content.entries[source].metric.layer == metric.layer
            ]
            self._depths[name] = max(beside, default=0)
        return self._depths[name]

    def _reach(self, name: str, *, up: bool) -> list[str]:
        """All metrics it is made of, or that are made of it; nearest first."""
        entries = self._content.entries
        found: dict[str, None] = {}
        todo = [name]
        while todo:
            here = todo.pop(0)
            for one in entries[here].metric.inputs if up else self._content.users[here]:
                if one in entries and one not in found:
                    found[one] = None
                    todo.append(one)
        return list(found)
