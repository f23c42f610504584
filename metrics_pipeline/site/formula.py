"""A metric's formula as HTML that reads like mathematics: fractions stand as fractions, inputs are links."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup

from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.library.definitions import MetricDefinition, Term
from metrics_pipeline.library.formula import FormulaError, Input, Negative, Node, Number, Operation, parse_formula

Link = Callable[[str], Markup]
"""Metric id → how it stands in a formula."""
_SIGNS = {"+": "+", "-": "−", "*": "×"}
_SUM, _PRODUCT, _ATOM = 1, 2, 3


def formula_html(metric: Metric, definition: MetricDefinition, link: Link) -> Markup:
    """The right-hand side of the metric's formula."""
    match definition.kind:
        case "ratio":
            return _fraction(link(definition.numerator or ""), link(definition.denominator or ""))
        case "derived":
            try:
                tree = parse_formula(definition.expression or "")
            except FormulaError:
                return _as_written(metric.formula)
            return _node(tree, {term.column: term for term in definition.terms}, link)[0]
        case "cumulative" if metric.inputs:
            return Markup('<span class="op">Σ<sub>{}</sub></span><span class="sr">{}</span>{}').format(
                f"{definition.window_days} d", "累计 sum of", link(metric.inputs[0])
            )
        case _:
            return _as_written(metric.formula)


def _as_written(formula: str) -> Markup:
    return Markup('<code class="sql">{}</code>').format(formula)


def _node(node: Node, terms: Mapping[str, Term], link: Link) -> tuple[Markup, int]:
    """A part of the formula and how strongly it binds."""
    match node:
        case Number(text):
            return Markup('<span class="num">{}</span>').format(text), _ATOM
        case Input(column):
            return _input(terms.get(column, Term(name=column)), link), _ATOM
        case Negative(of):
            return Markup("−{}").format(_grouped(of, _PRODUCT, terms, link)), _PRODUCT
        case Operation("/", left, right):
            return _fraction(_node(left, terms, link)[0], _node(right, terms, link)[0]), _ATOM
        case Operation(sign, left, right):
            level = _PRODUCT if sign == "*" else _SUM
            # What is subtracted keeps its parentheses: a − (b + c).
            after = level + 1 if sign == "-" else level
            both = (_grouped(left, level, terms, link), _grouped(right, after, terms, link))
            return Markup('{}<span class="op">{}</span>{}').format(both[0], _SIGNS[sign], both[1]), level


def _input(term: Term, link: Link) -> Markup:
    if not term.days_before:
        return link(term.name)
    return Markup(
        '{}<sub><span class="zh" lang="zh">{} 天前</span><span class="en" lang="en">{} d before</span></sub>'
    ).format(link(term.name), term.days_before, term.days_before)


def _grouped(node: Node, level: int, terms: Mapping[str, Term], link: Link) -> Markup:
    inner, binds = _node(node, terms, link)
    return Markup('<span class="paren">({})</span>').format(inner) if binds < level else inner


def _fraction(above: Markup, below: Markup) -> Markup:
    return Markup(
        '<span class="frac"><span>{}</span><span class="over" aria-hidden="true"></span>'
        '<span class="sr"> / </span><span>{}</span></span>'
    ).format(above, below)
