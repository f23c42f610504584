"""Daily values as an SVG that takes its colours from the page: a line with its gaps, days of promotions shaded."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from html import escape

WIDTH, HEIGHT = 760, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 12, 14, 30
Point = tuple[date, float | None]


@dataclass(frozen=True)
class Shade:
    """A stretch of days to be shaded, both ends included."""

    first: date
    last: date
    name_zh: str
    name_en: str


def chart_svg(points: Sequence[Point], shades: Sequence[Shade], number: Callable[[float], str], label: str) -> str:
    """The chart; "" when no point has a value. `number` writes a value for the axis, `label` is read aloud."""
    values = [value for _, value in points if value is not None]
    if not values:
        return ""
    first, last = points[0][0], points[-1][0]
    days = max((last - first).days, 1)
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def x(day: date) -> float:
        return _LEFT + (day - first).days / days * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [_shade(shade, first, last, x) for shade in shades if shade.first <= last and shade.last >= first]
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y(tick):.1f}" x2="{WIDTH - _RIGHT}" y2="{y(tick):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{escape(number(tick))}</text>'
        )
    for place, day in enumerate(_day_ticks(first, last)):
        parts.append(
            f'<text class="tick{" odd" if place % 2 else ""}" x="{x(day):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{day.month}-{day.day:02d}</text>'
        )
    parts.append(f'<path class="line" d="{line_path(points, x, y)}"/>')
    end_day, end = next((day, value) for day, value in reversed(points) if value is not None)
    parts.append(f'<circle class="dot" cx="{x(end_day):.1f}" cy="{y(end):.1f}" r="3.5"/>')
    step = (WIDTH - _LEFT - _RIGHT) / days
    parts += [
        f'<rect class="hit" x="{x(day) - step / 2:.1f}" y="{_TOP}" width="{step:.1f}" height="{HEIGHT - _TOP - _BOTTOM}">'
        f"<title>{day} · {escape(number(value))}</title></rect>"
        for day, value in points
        if value is not None
    ]
    return _svg("chart", WIDTH, HEIGHT, label, parts)


def spark_svg(points: Sequence[Point]) -> str:
    """A line without axes, for the list; "" when there is none to draw."""
    values = [value for _, value in points if value is not None]
    if len(values) < 2:
        return ""
    first, days = points[0][0], max((points[-1][0] - points[0][0]).days, 1)
    low, spread = min(values), (max(values) - min(values)) or 1.0
    path = line_path(
        points, lambda day: (day - first).days / days * 96 + 2, lambda value: 22 - (value - low) / spread * 20
    )
    return f'<svg class="spark" viewBox="0 0 100 24" aria-hidden="true"><path class="line" d="{path}"/></svg>'


def line_path(points: Sequence[Point], x: Callable[[date], float], y: Callable[[float], float]) -> str:
    """SVG path data; a day that is missing or has no value interrupts the line."""
    parts: list[str] = []
    before: date | None = None
    for day, value in points:
        if value is None:
            before = None
            continue
        joins = before is not None and day - before == timedelta(days=1)
        parts.append(f"{'L' if joins else 'M'}{x(day):.1f} {y(value):.1f}")
        before = day
    return "".join(parts)


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers (steps of 1, 2 or 5) that enclose [low, high]; 0 is among them when it is near."""
    if low > 0 and low < high / 2:
        low = 0.0
    if high == low:
        low, high = low - abs(low) * 0.1 - (low == 0), high + abs(high) * 0.1 + (high == 0)
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [step * n for n in range(first, last + 1)]


def _day_ticks(first: date, last: date) -> list[date]:
    every = max(round((last - first).days / 7), 1)
    return [first + timedelta(days=n) for n in range(every // 2, (last - first).days + 1, every)]


def _shade(shade: Shade, first: date, last: date, x: Callable[[date], float]) -> str:
    half = (WIDTH - _LEFT - _RIGHT) / max((last - first).days, 1) / 2
    left = max(x(max(shade.first, first)) - half, _LEFT)
    right = min(x(min(shade.last, last)) + half, WIDTH - _RIGHT)
    title = escape(f"{shade.name_zh} {shade.name_en}")
    return (
        f'<rect class="shade" x="{left:.1f}" y="{_TOP}" width="{max(right - left, 1):.1f}" '
        f'height="{HEIGHT - _TOP - _BOTTOM}"><title>{title}</title></rect>'
    )


def _svg(name: str, width: float, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="{name}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
