"""A diagnosis as a picture: on the left the way from expected to observed, on the right the members that moved.

The waterfall adds up: expected, one step per cause, what is unexplained, observed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metrics_pipeline.alerts.words import number, slice_name
from metrics_pipeline.delivery.plots import chinese_font
from metrics_pipeline.diagnosis.words import LABELS, Wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LESS, MORE, WHOLE, REST = "#c0392b", "#2471a3", "#7f8c8d", "#bdc3c7"


@dataclass(frozen=True)
class CausePlot:
    """Draws the diagnosis of a wording, in its language where there is a font for it, else with ids."""

    wording: Wording

    def png(self) -> bytes:
        """About 1100 x 420 pixels."""
        return self._drawn("png")

    def svg(self) -> str:
        """The same as SVG; its texts are texts."""
        return self._drawn("svg").decode("utf-8")

    def data_uri(self) -> str:
        """The PNG as a `data:` URI, for HTML files and for Markdown."""
        import base64

        return f"data:image/png;base64,{base64.b64encode(self.png()).decode()}"

    def markdown(self) -> str:
        """An image for Markdown, the picture inside."""
        return f"![{self.wording.title()}]({self.data_uri()})"

    def _drawn(self, kind: str) -> bytes:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        font = chinese_font()
        settings: dict[str, Any] = {"font.size": 9, "axes.unicode_minus": False}
        if font is not None:
            settings["font.family"] = [font, "DejaVu Sans"]
        with mpl.rc_context(settings):
            figure = Figure(figsize=(11, 4.2), dpi=100, layout="constrained")
            left, right = figure.subplots(1, 2, width_ratios=(3, 2))
            figure.suptitle(self.wording.title() if font else self.wording.diagnosis.metric, fontsize=11)
            self._waterfall(left)
            self._members(right)
            target = io.BytesIO()
            figure.savefig(target, format=kind)
        return target.getvalue()

    def _waterfall(self, axes: Axes) -> None:
        found, locale = self.wording.diagnosis, self.wording.locale
        if found.expected is None or found.observed is None or found.change is None:
            axes.set_axis_off()
            return
        names = [LABELS["expected"][locale]]
        starts, heights, colours = [0.0], [found.expected], [WHOLE]
        level = found.expected
        steps = [(self._name(one.elements), one.contribution) for one in found.causes]
        for name, part in [*steps, (LABELS["unexplained"][locale], found.unexplained)]:
            names.append(name)
            starts.append(level)
            heights.append(part)
            colours.append(REST if name == LABELS["unexplained"][locale] else LESS if part < 0 else MORE)
            level += part
        names.append(LABELS["observed"][locale])
        starts.append(0.0)
        heights.append(found.observed)
        colours.append(WHOLE)
        places = range(len(names))
        axes.bar(places, heights, bottom=starts, color=colours, width=0.62)
        for at, (start, height) in enumerate(zip(starts, heights, strict=True)):
            whole = at in (0, len(names) - 1)
            text = self._number(height) if whole else f"{'+' if height > 0 else ''}{self._number(height)}"
            axes.annotate(
                text,
                (at, max(start, start + height)),
                ha="center",
                va="bottom",
                fontsize=8,
                xytext=(0, 2),
                textcoords="offset points",
            )
        axes.set_xticks(list(places), names, rotation=18, ha="right")
        axes.margins(y=0.15)
        axes.axhline(0.0, color=WHOLE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.set_major_formatter(lambda value, _: self._number(value))

    def _members(self, axes: Axes) -> None:
        found = self.wording.diagnosis
        rows = [(self._name(one.elements), one.observed, one.expected) for one in found.causes]
        rows += [
            (self._name(one.elements), one.observed, one.expected)
            for one in found.controls
            if one.elements and one.metric == found.metric
        ]
        rows = [row for row in rows if row[2]][:9]
        if not rows:
            axes.set_axis_off()
            return
        changes = [observed / expected - 1.0 for _, observed, expected in rows]
        places = list(range(len(rows)))[::-1]
        axes.barh(places, changes, color=[LESS if one < 0 else MORE for one in changes], height=0.6)
        axes.set_yticks(places, [name for name, _, _ in rows])
        axes.axvline(0.0, color=WHOLE, linewidth=0.8)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:+.0%}")
        for place, change in zip(places, changes, strict=True):
            axes.annotate(
                f"{change:+.0%}", (change, place), va="center", ha="left" if change >= 0 else "right",
                fontsize=8, xytext=(3 if change >= 0 else -3, 0), textcoords="offset points",
            )  # fmt: skip
        axes.margins(x=0.2)
        axes.set_ylim(min(len(rows), 4) - 4.6, len(rows) - 0.4)
        axes.spines[["top", "right"]].set_visible(False)

    def _name(self, elements: Any) -> str:
        return slice_name("|".join(elements), "|".join(elements.values()), self.wording.locale)

    def _number(self, value: float) -> str:
        named = self.wording.metrics.get(self.wording.diagnosis.metric)
        return number(value, "" if named is None else named.unit, short=True)
