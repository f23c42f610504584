"""A metric's lineage as a layered drawing: source tables on the left, strategic metrics on the right.

The layout is the usual one for layered graphs (Sugiyama, Tagawa and Toda 1981): nodes get a column, edges that span
several columns get waypoints, and sweeps over the columns put every node at the mean of its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

from metrics_pipeline.site.words import LOCALES, Text

NODE_WIDTH, NODE_HEIGHT = 158, 42
_GAP_X, _GAP_Y, _TOP, _MARGIN = 30, 12, 30, 6
_WAYPOINT = 10
_SWEEPS = 6
MOST = 14
"""Nodes drawn in one column; the others are one node that says how many they are."""


@dataclass(frozen=True)
class Node:
    """One thing in the lineage. `rank` orders columns: nodes of the same rank stand in the same one."""

    id: str
    rank: tuple[int, int]
    name: Text
    under: str
    """Second line: the id, as people type it."""
    css: str
    href: str | None = None


@dataclass
class _Slot:
    """A node or a waypoint in a column."""

    key: str
    height: float
    y: float = 0.0
    left: list[str] = field(default_factory=list)
    right: list[str] = field(default_factory=list)


def lineage_svg(
    nodes: Sequence[Node], edges: Iterable[tuple[str, str]], heads: Mapping[int, Text], label: str, centre: str
) -> str:
    """The drawing. `heads`: first number of a rank → the word above its columns; `centre` is never folded away."""
    nodes, edges = _folded(nodes, list(edges), centre)
    by_id = {node.id: node for node in nodes}
    ranks = sorted({node.rank for node in nodes})
    column_of = {node.id: ranks.index(node.rank) for node in nodes}
    columns, paths = _columns(nodes, edges, column_of, len(ranks))
    _order(columns)
    height = max(sum(slot.height + _GAP_Y for slot in column.values()) for column in columns) - _GAP_Y
    for column in columns:
        used = sum(slot.height + _GAP_Y for slot in column.values()) - _GAP_Y
        y = _TOP + (height - used) / 2
        for slot in column.values():
            slot.y = y
            y += slot.height + _GAP_Y
    parts = [_edge(path, columns) for path in paths]
    drawn: set[int] = set()
    for number, rank in enumerate(ranks):
        if rank[0] not in drawn:
            drawn.add(rank[0])
            parts.append(_words(heads[rank[0]], _x(number) + NODE_WIDTH / 2, 14, "head", "middle"))
    for number, column in enumerate(columns):
        parts += [_node(by_id[slot.key], _x(number), slot.y, centre) for slot in column.values() if slot.key in by_id]
    width, total = _x(len(ranks) - 1) + NODE_WIDTH + _MARGIN, _TOP + height + _MARGIN
    return (
        f'<svg class="lineage" viewBox="0 0 {width:.0f} {total:.0f}" width="{width:.0f}" height="{total:.0f}" '
        f'role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def _folded(
    nodes: Sequence[Node], edges: list[tuple[str, str]], centre: str
) -> tuple[list[Node], list[tuple[str, str]]]:
    """The same with at most `MOST` nodes of a rank; those next to the centre are kept before others."""
    near = {a for a, b in edges if b == centre} | {b for a, b in edges if a == centre} | {centre}
    kept: list[Node] = []
    stands_for: dict[str, str] = {}
    for rank in sorted({node.rank for node in nodes}):
        here = sorted((node for node in nodes if node.rank == rank), key=lambda node: (node.id not in near, node.id))
        if len(here) <= MOST:
            kept += here
            continue
        kept += here[: MOST - 1]
        rest = here[MOST - 1 :]
        fold = Node(
            f"more-{rank[0]}-{rank[1]}", rank, {"zh": f"另 {len(rest)} 个", "en": f"{len(rest)} more"}, "…", "more"
        )
        kept.append(fold)
        stands_for |= {node.id: fold.id for node in rest}
    merged = {(stands_for.get(a, a), stands_for.get(b, b)): None for a, b in edges}
    return kept, [(a, b) for a, b in merged if a != b]


def _columns(
    nodes: Sequence[Node], edges: Iterable[tuple[str, str]], column_of: Mapping[str, int], count: int
) -> tuple[list[dict[str, _Slot]], list[list[tuple[int, str]]]]:
    """Slots of every column, and each edge as the slots it passes."""
    columns: list[dict[str, _Slot]] = [{} for _ in range(count)]
    for node in nodes:
        columns[column_of[node.id]][node.id] = _Slot(node.id, NODE_HEIGHT)
    paths = []
    for a, b in edges:
        path = [(column_of[a], a)]
        for number in range(column_of[a] + 1, column_of[b]):
            # Edges that leave the same node share their waypoints, as one strand.
            key = f"{a} …"
            columns[number].setdefault(key, _Slot(key, _WAYPOINT))
            path.append((number, key))
        path.append((column_of[b], b))
        paths.append(path)
        for (left, one), (right, other) in pairwise(path):
            columns[left][one].right.append(other)
            columns[right][other].left.append(one)
    return columns, paths


def _order(columns: list[dict[str, _Slot]]) -> None:
    """Put the slots of every column near the mean place of their neighbours, sweeping to and fro."""
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        order = range(1, len(columns)) if forward else range(len(columns) - 2, -1, -1)
        for number in order:
            beside = {key: place for place, key in enumerate(columns[number + (-1 if forward else 1)])}
            size = max(len(beside), 1)
            own = {key: place / max(len(columns[number]), 1) for place, key in enumerate(columns[number])}

            def middle(
                slot: _Slot,
                beside: dict[str, int] = beside,
                size: int = size,
                own: dict[str, float] = own,
                forward: bool = forward,
            ) -> tuple[float, str]:
                places = [beside[key] for key in (slot.left if forward else slot.right) if key in beside]
                return ((sum(places) / len(places) + 0.5) / size if places else own[slot.key], slot.key)

            columns[number] = {slot.key: slot for slot in sorted(columns[number].values(), key=middle)}


def _x(column: int) -> float:
    return _MARGIN + column * (NODE_WIDTH + _GAP_X)


def _edge(path: Sequence[tuple[int, str]], columns: Sequence[Mapping[str, _Slot]]) -> str:
    data = ""
    for (left, one), (right, other) in pairwise(path):
        a, b = columns[left][one], columns[right][other]
        x1, y1 = _x(left) + NODE_WIDTH, a.y + a.height / 2
        x2, y2 = _x(right), b.y + b.height / 2
        start = f"M{x1:.0f} {y1:.1f}" if not data else f"L{x1:.0f} {y1:.1f}"
        bend = (x2 - x1) / 2
        data += f"{start}C{x1 + bend:.0f} {y1:.1f} {x2 - bend:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
    return f'<path class="edge" d="{data}"/>'


def _node(node: Node, x: float, y: float, centre: str) -> str:
    css = f"node {node.css}{' centre' if node.id == centre else ''}"
    inner = (
        f'<rect x="{x:.0f}" y="{y:.1f}" width="{NODE_WIDTH}" height="{NODE_HEIGHT}" rx="6"/>'
        f"{_words(node.name, x + 10, y + 17, 'name', 'start')}"
        f'<text class="under" x="{x + 10:.0f}" y="{y + 33:.1f}">{escape(shortened(node.under, 23))}</text>'
    )
    title = escape(f"{node.name['zh']} {node.name['en']} {node.under}")
    inner = f'<g class="{css}"><title>{title}</title>{inner}</g>'
    return f'<a href="{escape(node.href)}">{inner}</a>' if node.href else inner


def _words(words: Text, x: float, y: float, css: str, anchor: str) -> str:
    return "".join(
        f'<text class="{css} {locale}" x="{x:.0f}" y="{y:.1f}" text-anchor="{anchor}">'
        f"{escape(shortened(words[locale], 19))}</text>"
        for locale in LOCALES
    )


def shortened(text: str, room: int) -> str:
    """The text cut to `room` columns of a Latin letter; a Chinese character takes two."""
    used = 0
    for place, letter in enumerate(text):
        used += 2 if ord(letter) > 0x2E80 else 1
        if used > room:
            return text[: max(place - 1, 1)] + "…"
    return text
