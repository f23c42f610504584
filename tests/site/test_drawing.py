"""Formula, chart and lineage on their own."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from metrics_pipeline.library.definitions import Term
from metrics_pipeline.site.chart import chart_svg, line_path, nice_ticks, spark_svg
from metrics_pipeline.site.formula import formula_html
from metrics_pipeline.site.graph import MOST, NODE_HEIGHT, Node, lineage_svg, shortened

pytestmark = pytest.mark.xdist_group("site")
DAY = date(2025, 1, 1)


def words(html: str) -> str:
    """The text that is left without tags."""
    return re.sub(r"<[^>]*>", "", html)


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("a - (b + c)", "a−(b+c)"),
        ("(a - b) + c", "a−b+c"),
        ("a - b - c", "a−b−c"),
        ("0.6 * a + 0.4 * (1 - b)", "0.6×a+0.4×(1−b)"),
        ("-(a + b) * c", "−(a+b)×c"),
        ("(a - b) / nullif(b, 0)", "a−b / b"),
        ("a / b / c", "a / b / c"),
        ("a - before", "a−b7 天前7 d before"),
        ("load('x')", "load(&#39;x&#39;)"),
    ],
)
def test_expressions_read_like_mathematics(catalogue, expression, shown):
    terms = (Term(name="a"), Term(name="b"), Term(name="c"), Term(name="b", alias="before", days_before=7))
    written = next(one for one in catalogue.definitions.metrics if one.kind == "derived")
    definition = written.model_copy(update={"expression": expression, "terms": terms})
    metric = replace(catalogue.metrics[written.id], formula=expression)
    assert words(formula_html(metric, definition, lambda name: Markup("<a>{}</a>").format(name))) == shown


@given(low=st.floats(-1e9, 1e9, allow_nan=False), size=st.floats(1e-6, 1e9, allow_nan=False))
@settings(max_examples=200, deadline=None)
def test_ticks_enclose_what_is_drawn_with_few_round_steps(low, size):
    ticks = nice_ticks(low, low + size)
    tolerance = abs(low) * 1e-9 + size * 1e-6
    assert ticks[0] <= low + tolerance and ticks[-1] >= low + size - tolerance
    assert 2 <= len(ticks) <= 8


def test_a_constant_has_ticks_around_it():
    assert nice_ticks(5.0, 5.0)[0] < 5 < nice_ticks(5.0, 5.0)[-1]
    assert nice_ticks(0.0, 0.0)[0] < 0 < nice_ticks(0.0, 0.0)[-1]


def test_a_missing_day_interrupts_the_line():
    days = [0, 1, 3, 4, 5]
    points = [(DAY + timedelta(days=n), None if n == 4 else float(n)) for n in days]
    assert line_path(points, lambda day: (day - DAY).days, float) == "M0.0 0.0L1.0 1.0M3.0 3.0M5.0 5.0"


def test_nothing_is_drawn_of_nothing():
    assert chart_svg([(DAY, None)], (), str, "x") == ""
    assert chart_svg([], (), str, "x") == ""
    assert spark_svg([(DAY, 1.0)]) == ""
    assert "<svg" in chart_svg([(DAY, 1.0)], (), str, "x")


def node(name: str, rank: int) -> Node:
    return Node(name, (rank, 0), {"zh": name, "en": name}, name, "base", f"{name}.html")


HEADS = {rank: {"zh": "层", "en": "layer"} for rank in range(4)}


def test_boxes_of_a_lineage_do_not_overlap_and_stand_in_their_columns():
    nodes = [*(node(f"s{n}", 0) for n in range(5)), *(node(f"m{n}", 1) for n in range(7)), node("top", 3)]
    edges = [(f"s{n % 5}", f"m{n}") for n in range(7)] + [(f"m{n}", "top") for n in range(7)] + [("s0", "top")]
    drawn = lineage_svg(nodes, edges, HEADS, "x", "top")
    boxes = [(float(x), float(y)) for x, y in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"', drawn)]
    assert len(boxes) == len(nodes)
    assert len({x for x, _ in boxes}) == 3
    for column in {x for x, _ in boxes}:
        places = sorted(y for x, y in boxes if x == column)
        assert all(below - above >= NODE_HEIGHT for above, below in pairwise(places))
    assert drawn.count('class="edge"') == len(edges)
    assert 'class="node base centre"' in drawn


def test_a_wide_layer_is_folded_and_keeps_the_metric_itself():
    nodes = [node("hub", 0), *(node(f"user{n:03}", 1) for n in range(200)), node("zenith", 1)]
    edges = [("hub", f"user{n:03}") for n in range(200)] + [("hub", "zenith")]
    drawn = lineage_svg(nodes, edges, HEADS, "x", "zenith")
    assert drawn.count("<rect") == 1 + MOST
    assert f"{201 - (MOST - 1)} more" in drawn
    assert 'href="zenith.html"' in drawn


def test_texts_are_cut_to_their_room():
    assert shortened("short", 10) == "short"
    assert shortened("订单支付转化率", 10) == "订单支付…"
    assert shortened("abcdefghijk", 10) == "abcdefghi…"
