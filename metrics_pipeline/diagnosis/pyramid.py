"""Down the formula: what each metric below made of the change.

Products and quotients are divided by log-change (LMDI-I: Ang, "LMDI decomposition approach", Energy Policy 86, 2015): with
M = prod x_i ^ p_i, the part of x_i is L(M1, M0) p_i ln(x1_i / x0_i), L the logarithmic mean. Sums are divided by
difference. Which products there are is read from the library: a count that is the numerator of a rate is the rate times
its denominator, so that orders paid = sessions x order conversion x payment conversion without anybody writing it.
Expectations of the parts need not multiply to the expectation of the whole; what that leaves is the residual, stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metrics_pipeline.diagnosis.model import Pyramid, PyramidStep, direction_of
from metrics_pipeline.library.catalogue import Metric, formula_of
from metrics_pipeline.library.definitions import MetricDefinition
from metrics_pipeline.library.formula import FormulaError, Polynomial, atom, polynomial

NONE = Pyramid((), 0.0, "none")
Pair = tuple[float, float]
"""Observed and expected."""


@dataclass(frozen=True)
class Walk:
    """A metric as a polynomial over metrics below it."""

    terms: Polynomial
    metrics: tuple[str, ...]
    """The published metrics it needs."""
    implied: tuple[str, str] | None = None
    """A factor nobody defined: numerator and denominator, `gmv` per `orders_placed`."""


def walk_of(metric: Metric, metrics: Mapping[str, Metric], written: Mapping[str, MetricDefinition]) -> Walk | None:
    """How a metric is made of others; None for a leaf that is in no rate, and for formulas over other days."""
    chain = _chain(metric.id, metrics, frozenset())
    if chain:
        return Walk(_product(chain), tuple(chain))
    if metric.unit == "currency" and metric.is_additive and metric.kind in ("simple", "derived"):
        for name in ("orders_placed", "orders_paid"):  # amounts per order are what a shop speaks of
            base = metrics.get(name)
            if base is not None and not base.absent and _clock(base, metrics) & _clock(metric, metrics):
                chain = _chain(name, metrics, frozenset()) or {name: 1}
                return Walk(_product({**chain, f"{metric.id}/{name}": 1}), (*chain, name), (metric.id, name))
    definition = written.get(metric.id)
    if definition is None or any(term.days_before for term in definition.terms):
        return None
    try:
        node = formula_of(definition)
        if node is None:
            return None
        columns = {term.column: atom(term.name) for term in definition.terms}
        columns |= {name: atom(name) for name in (definition.numerator, definition.denominator) if name}
        terms = polynomial(node, columns)
    except FormulaError:
        return None
    names = tuple(dict.fromkeys(name for key in terms for name, _ in key))
    return None if any(name not in metrics for name in names) else Walk(terms, names)


def divided(walk: Walk, change: float, pairs: Mapping[str, Pair]) -> Pyramid:
    """The change over the parts. `pairs`: observed and expected of every metric of the walk; without one of them nothing
    is divided."""
    known = dict(pairs)
    if walk.implied is not None:
        above, below = (known.get(name) for name in walk.implied)
        if above is None or below is None or not all(below):
            return NONE
        known["/".join(walk.implied)] = (above[0] / below[0], above[1] / below[1])
    names = tuple(dict.fromkeys(name for key in walk.terms for name, _ in key))
    if any(name not in known for name in names) or change == 0:
        return NONE
    parts = dict.fromkeys(names, 0.0)
    for key, factor in walk.terms.items():
        if not key:
            continue
        now, before = (_value(key, float(factor), known, at) for at in (0, 1))
        if now is None or before is None:
            return NONE
        if len(key) == 1 and key[0][1] == 1:
            parts[key[0][0]] += now - before
        elif now * before <= 0 or any(min(known[name]) <= 0 for name, _ in key):
            return NONE
        else:
            mean = math.copysign(_logarithmic_mean(abs(now), abs(before)), now)
            for name, power in key:
                parts[name] += mean * power * math.log(known[name][0] / known[name][1])
    steps = tuple(
        PyramidStep(
            name, known[name][0], known[name][1], part, part / change, direction_of(known[name][0] - known[name][1])
        )
        for name, part in sorted(parts.items(), key=lambda one: -one[1] / change)
    )
    is_sum = all(len(key) <= 1 and all(power == 1 for _, power in key) for key in walk.terms)
    return Pyramid(steps, change - sum(parts.values()), "difference" if is_sum else "log_change")


def _chain(name: str, metrics: Mapping[str, Metric], seen: frozenset[str]) -> dict[str, int]:
    """The longest product of rates over a count that a count is: {sessions: 1, order_conversion_rate: 1}; {} = none."""
    best: dict[str, int] = {}
    for rate in metrics.values():
        if rate.kind != "ratio" or len(rate.inputs) != 2 or rate.inputs[0] != name or rate.absent:
            continue
        below = rate.inputs[1]
        if (
            below in seen
            or below == name
            or below not in metrics
            or not metrics[below].is_additive
            or metrics[below].absent
        ):
            continue
        chain = {**(_chain(below, metrics, seen | {name}) or {below: 1}), rate.id: 1}
        if len(chain) > len(best):
            best = chain
    return best


def _product(powers: Mapping[str, int]) -> Polynomial:
    from fractions import Fraction

    return {tuple(sorted(powers.items())): Fraction(1)}


def _clock(metric: Metric, metrics: Mapping[str, Metric]) -> set[str]:
    """The clocks of the leaves it is made of, in words."""
    below: Sequence[Metric] = [metrics[name] for name in metric.inputs if name in metrics]
    own = {str(one) for one in metric.clocks}
    return set().union(own, *(_clock(one, metrics) for one in below))


def _value(key: tuple[tuple[str, int], ...], factor: float, known: Mapping[str, Pair], at: int) -> float | None:
    value = factor
    for name, power in key:
        if power < 0 and known[name][at] == 0:
            return None
        value *= known[name][at] ** power
    return value


def _logarithmic_mean(a: float, b: float) -> float:
    return a if math.isclose(a, b, rel_tol=1e-12) else (a - b) / math.log(a / b)
