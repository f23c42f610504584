"""A metric's recent past, drawn: the series, its expected band, its thresholds, and the breach marked.

Drawn with matplotlib's `Figure` (no pyplot, no global state), imported when first needed. SVG keeps its text as text, so a
browser uses its own fonts; PNG is for mail and uses an installed Chinese font, or plain labels where there is none.
"""

from __future__ import annotations

import base64
import io
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from metrics_pipeline.alerts.notice import Point, Series
from metrics_pipeline.alerts.words import number

if TYPE_CHECKING:
    import pandas as pd

CJK_FONTS = (
    "Noto Sans CJK SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "Noto Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "SimHei",
    "Noto Sans CJK JP",
    "Arial Unicode MS",
)
"""Fonts with Chinese glyphs, the best first."""
INK, MUTED, BAND, YELLOW, RED, BLUE = "#1f2933", "#6b7785", "#dbe7f3", "#b7791f", "#c81e1e", "#1d5fa8"
_SVG_FONTS = "'Noto Sans SC','PingFang SC','Microsoft YaHei',sans-serif"
_PLACE = (0.085, 0.125, 0.825, 0.76)
"""Left, bottom, width, height of the axes, as shares of the figure: room for a short number on either side. Fixed,
because finding the places anew (`layout="constrained"`) costs as much as drawing."""
_LONG_NUMBER = 1e6
"""From here on a label beside the axes is written short (`8.6M`)."""
_POINTS_PER_INCH = 72
_LABEL_POINTS = 10.0
"""Height of a label with the space above it."""
_lock = threading.Lock()  # matplotlib's rc settings and font cache are shared by all threads


@dataclass(frozen=True)
class Plot:
    """A plot that is drawn when asked for. `alt` says in words what it shows."""

    series: Series
    title: str = ""
    ascii_title: str = ""
    """Used in PNG where no Chinese font is installed."""
    unit: str = ""
    tier: str = "red"
    alt: str = ""
    foreseen: int = 0
    """So many of the last points have not happened: their line is dotted."""
    width: float = 7.2
    """Inches; 100 pixels an inch in SVG, 144 in PNG."""
    height: float = 2.7

    def svg(self) -> str:
        """A stand-alone SVG document, text as text; under 40 KB for a notice's series."""
        drawn = self._draw("svg", self.title).decode("utf-8")
        drawn = re.sub(r"font-family: [^;\"]*", f"font-family: {_SVG_FONTS}", drawn)
        drawn = re.sub(r"(\d\.\d{2})\d+", r"\1", drawn)
        return re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)

    def png(self) -> bytes:
        """A PNG image."""
        title = self.title
        if not title.isascii() and chinese_font() is None:
            title = self.ascii_title if self.ascii_title.isascii() else ""
        return self._draw("png", title)

    def data_uri(self) -> str:
        """The SVG as a `data:` URI, for HTML files and for Markdown in the Dagster UI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg().encode("utf-8")).decode("ascii")

    def markdown(self) -> str:
        """`![alt](data:…)`"""
        alt = re.sub(r"[\[\]\n]", " ", self.alt or self.title)
        return f"![{alt}]({self.data_uri()})"

    def _draw(self, kind: str, title: str) -> bytes:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        family = chinese_font()
        settings: dict[str, Any] = {
            "font.family": [family] if family else ["DejaVu Sans"],
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": "metrics",
            "axes.unicode_minus": False,
            "path.simplify": True,
        }
        buffer = io.BytesIO()
        with _lock, mpl.rc_context(settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure = Figure(figsize=(self.width, self.height), dpi=100)
            _fill(figure.add_axes(_PLACE), self, title)
            if kind == "svg":
                figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            else:
                figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
        return buffer.getvalue()


def series_plot(
    frame: pd.DataFrame,
    *,
    title: str = "",
    ascii_title: str = "",
    unit: str = "",
    yellow_bound: float | None = None,
    red_bound: float | None = None,
    tier: str = "red",
    alt: str = "",
) -> Plot:
    """A plot of a small frame with the columns `period_start`, `value` and, where known, `lower` and `upper` (the band).

    Rows in any order; the last period is the one that is judged, marked when `tier` is yellow or red. Raises `ValueError`
    when a column is missing.
    """
    if missing := [name for name in ("period_start", "value") if name not in frame.columns]:
        raise ValueError(f"the frame to plot lacks {', '.join(missing)}; expected period_start, value[, lower, upper]")
    ordered = frame.sort_values("period_start")
    columns: Mapping[str, Sequence[Any]] = {
        name: ordered[name].tolist() if name in ordered.columns else [None] * len(ordered)
        for name in ("period_start", "value", "lower", "upper")
    }
    points = tuple(
        Point(_plain(period), _finite(value), _finite(lower), _finite(upper))
        for period, value, lower, upper in zip(*columns.values(), strict=True)
    )
    series = Series(points, yellow_bound, red_bound)
    return Plot(series=series, title=title, ascii_title=ascii_title, unit=unit, tier=tier, alt=alt)


def chinese_font() -> str | None:
    """An installed font that has Chinese glyphs, or None."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in CJK_FONTS if name in installed), None)


def _fill(axes: Any, plot: Plot, title: str) -> None:
    points = plot.series.points
    periods = [point.period for point in points]
    values = [math.nan if point.value is None else point.value for point in points]
    lower = [math.nan if point.lower is None else point.lower for point in points]
    upper = [math.nan if point.upper is None else point.upper for point in points]
    if any(map(math.isfinite, lower)) and any(map(math.isfinite, upper)):
        axes.fill_between(periods, lower, upper, color=BAND, linewidth=0, zorder=1)
    dots = "o" if len(points) < 3 else None
    seen = len(points) - plot.foreseen
    axes.plot(periods[:seen], values[:seen], color=BLUE, linewidth=1.4, marker=dots, markersize=4, zorder=3)
    if plot.foreseen:
        ahead = slice(max(seen - 1, 0), None)
        axes.plot(periods[ahead], values[ahead], color=BLUE, linewidth=1.2, linestyle=(0, (2, 2)), zorder=3)
    for bound, colour in ((plot.series.yellow_bound, YELLOW), (plot.series.red_bound, RED)):
        if bound is not None:
            axes.axhline(bound, color=colour, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    _mark(axes, plot, periods, values)
    _dress(axes, plot, periods, title)


def _mark(axes: Any, plot: Plot, periods: Sequence[datetime], values: Sequence[float]) -> None:
    if plot.tier not in ("yellow", "red") or not values or not math.isfinite(values[-1]):
        return
    colour = RED if plot.tier == "red" else YELLOW
    axes.plot([periods[-1]], [values[-1]], marker="o", markersize=7, color=colour, zorder=5)
    axes.annotate(
        number(values[-1], plot.unit),
        (periods[-1], values[-1]),
        xytext=(-9, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=colour,
        fontweight="bold",
        bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        zorder=6,
    )


def _dress(axes: Any, plot: Plot, periods: Sequence[datetime], title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if title:
        axes.set_title(title, loc="left", fontsize=10, color=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c3ccd6")
    axes.tick_params(colors=MUTED, labelsize=8, length=3)
    axes.grid(axis="y", color="#eef1f5", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, plot.unit, short=True)))
    axes.margins(x=0.02, y=0.15)
    if periods:
        step = max(1, math.ceil(len(periods) / 7))
        ticks = list(periods)[::-1][::step][::-1]
        hourly = any(period.hour or period.minute for period in periods)
        axes.set_xticks(ticks, [f"{tick:%m-%d %H:%M}" if hourly else f"{tick:%m-%d}" for tick in ticks])
    for bound, colour, shift in _bound_labels(axes, plot.series):
        axes.annotate(
            number(bound, plot.unit, short=abs(bound) >= _LONG_NUMBER),
            (1.0, bound),
            xycoords=("axes fraction", "data"),
            xytext=(4, shift),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=8,
        )


def _bound_labels(axes: Any, series: Series) -> Iterator[tuple[float, str, float]]:
    """Bound, colour and shift in points of each label beside the axes: two that are near each other move apart."""
    yellow, red = series.yellow_bound, series.red_bound
    apart = 0.0
    if yellow is not None and red is not None:
        bottom, top = axes.get_ylim()
        height = axes.get_figure().get_size_inches()[1] * _PLACE[3] * _POINTS_PER_INCH
        distance = abs(yellow - red) / (top - bottom) * height
        apart = max(0.0, _LABEL_POINTS - distance) / 2
    if yellow is not None:
        yield yellow, YELLOW, apart if red is None or yellow >= red else -apart
    if red is not None:
        yield red, RED, apart if yellow is None or red > yellow else -apart


def _plain(value: Any) -> datetime:
    if isinstance(value, datetime):
        plain: datetime = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
        return plain.replace(tzinfo=None)
    return datetime.fromisoformat(str(value))


def _finite(value: Any) -> float | None:
    if value is None:
        return None
    number_ = float(value)
    return number_ if math.isfinite(number_) else None
