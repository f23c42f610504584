"""Plots: small, with real text, drawn without a display."""

from __future__ import annotations

import base64
import sys
from datetime import timedelta
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from metrics_pipeline.alerts.notice import Point, Series
from metrics_pipeline.delivery import plots
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.delivery.plots import Plot, series_plot
from tests.alerts.builders import DAY
from tests.delivery.builders import make_notice, weekly_wave


def test_svg_is_small_valid_and_keeps_its_text():
    plot = Plot(series=weekly_wave(120), title="退款率 · 地区=华北", unit="ratio")
    svg = plot.svg()
    assert len(svg.encode()) < 40_000
    texts = ["".join(node.itertext()) for node in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"退款率 · 地区=华北", "13.2%", "12.0%", "8.0%", "11-11"} <= set(texts)
    assert "sans-serif" in svg


def test_the_same_plot_is_drawn_the_same():
    plot = Plot(series=weekly_wave(), title="t", unit="ratio")
    assert plot.svg() == plot.svg()
    assert plot.png() == plot.png()


def test_png_is_an_image_and_the_markdown_holds_the_svg():
    plot = Plot(series=weekly_wave(), title="退款率", unit="ratio", alt="a [b]\nc")
    assert plot.png().startswith(b"\x89PNG")
    head, data = plot.markdown().split(",", 1)
    assert head == "![a  b  c](data:image/svg+xml;base64"
    assert base64.b64decode(data.rstrip(")")).startswith(b"<?xml")


def test_without_a_chinese_font_the_png_has_a_plain_title(monkeypatch):
    monkeypatch.setattr(plots, "chinese_font", lambda: None)
    drawn = []
    monkeypatch.setattr(plots, "_fill", lambda _axes, _plot, title: drawn.append(title))
    Plot(series=weekly_wave(), title="退款率", ascii_title="refund_rate").png()
    Plot(series=weekly_wave(), title="退款率", ascii_title="华北").png()
    assert drawn == ["refund_rate", ""]


def test_a_frame_with_gaps_and_without_a_band_is_drawn():
    frame = pd.DataFrame(
        {"period_start": pd.date_range("2025-11-01", periods=5)[::-1], "value": [1.0, None, 3.0, 4.0, 9.0]}
    )
    plot = series_plot(frame, title="t", red_bound=8.0)
    assert plot.series.points[0] == Point(DAY - timedelta(days=10), 9.0)
    assert [point.value for point in plot.series.points][3] is None
    assert plot.svg()


def test_one_point_an_empty_series_and_a_last_gap_are_drawn():
    for points in ((Point(DAY, 1.0),), (), (Point(DAY, 1.0), Point(DAY + timedelta(days=1), None))):
        assert Plot(series=Series(points, 2.0, None)).svg()


def test_a_frame_without_values_is_refused():
    with pytest.raises(ValueError, match="lacks value; expected period_start, value"):
        series_plot(pd.DataFrame({"period_start": []}))


def test_a_message_needs_no_matplotlib_until_its_plot_is_drawn():
    import subprocess

    code = "import sys; import metrics_pipeline.delivery.outbox, metrics_pipeline.delivery.channels; "
    code += "print([m for m in ('matplotlib', 'pandas', 'duckdb', 'dagster', 'alembic') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_a_message_draws_the_slice_it_is_about():
    plot = compose(make_notice()).plot
    assert (plot.title, plot.ascii_title, plot.tier) == ("退款率 · 地区=华北", "refund_rate", "red")
