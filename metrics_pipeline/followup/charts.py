"""Small charts of a retrospective as SVG: alerts by day, and a rule's weeks before and after a change. Pure text, no library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from html import escape

from metrics_pipeline.alerts.words import Locale

WIDTH = 720
COLOURS = {"red": "#c0362c", "yellow": "#e0a526", "before": "#b7bcc4", "after": "#2f6f9f"}
_INK = "#5b6470"
_WEEKDAYS: dict[Locale, Sequence[str]] = {
    "zh": "一二三四五六日",
    "en": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
}


def days_svg(days: Sequence[tuple[date, int, int]], locale: Locale) -> str:
    """A bar a day: red below, yellow above it."""
    height, base, left = 150, 112, 28
    most = max((yellow + red for _, yellow, red in days), default=0) or 1
    step = (WIDTH - left) / max(len(days), 1)
    parts = _axis(left, base, 20, most)
    for n, (day, yellow, red) in enumerate(days):
        x, bottom = left + n * step + step * 0.2, float(base)
        for count, tier in ((red, "red"), (yellow, "yellow")):
            size = count / most * (base - 20)
            bottom -= size
            if count:
                parts.append(_bar(x, bottom, step * 0.6, size, COLOURS[tier], f"{day}: {count} {tier}"))
        if yellow + red:
            parts.append(_text(x + step * 0.3, bottom - 5, str(yellow + red), "middle"))
        weekday = _WEEKDAYS[locale][day.weekday()]
        parts.append(_text(x + step * 0.3, base + 17, f"{day:%m-%d}", "middle"))
        parts.append(_text(x + step * 0.3, base + 32, weekday, "middle"))
    return _svg(height, parts)


def weeks_svg(weeks: Sequence[Sequence[object]], before: str, after: str) -> str:
    """Two bars a week (Monday, before, after): how often a rule would have fired under both forms."""
    height, base, left = 140, 96, 28
    counts = [(str(one[0]), int(str(one[1])), int(str(one[2]))) for one in weeks]
    most = max((max(old, new) for _, old, new in counts), default=0) or 1
    step = (WIDTH - left) / max(len(counts), 1)
    parts = _axis(left, base, 16, most)
    for n, (monday, old, new) in enumerate(counts):
        x = left + n * step
        for place, count, kind, word in ((0.12, old, "before", before), (0.52, new, "after", after)):
            size = count / most * (base - 16)
            if count:
                title = f"{monday}: {count} · {word}"
                parts.append(_bar(x + step * place, base - size, step * 0.36, size, COLOURS[kind], title))
        if n % max(len(counts) // 10, 1) == 0:
            parts.append(_text(x + step / 2, base + 16, monday[5:], "middle"))
    for place, kind, word in ((left, "before", before), (left + 150, "after", after)):
        parts.append(_bar(place, height - 14, 10, 10, COLOURS[kind], word))
        parts.append(_text(place + 15, height - 5, word, "start"))
    return _svg(height, parts)


def _axis(left: float, base: float, top: float, most: int) -> list[str]:
    lines = [
        f'<line x1="{left}" y1="{y}" x2="{WIDTH}" y2="{y}" stroke="{colour}"/>'
        for y, colour in ((base, "#c8cdd4"), (top, "#eceef1"))
    ]
    return [*lines, _text(left - 6, base + 4, "0", "end"), _text(left - 6, top + 4, str(most), "end")]


def _bar(x: float, y: float, width: float, height: float, /, colour: str, title: str) -> str:  # noqa: PLR0917
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5" fill="{colour}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" font-size="11" font-family="inherit" '
        f'role="img">{"".join(parts)}</svg>'
    )
