"""The catalogue as one person may know it: metrics they may not know of stand in no list, formula or lineage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from metrics_pipeline.access.policy import Rights
from metrics_pipeline.library.catalogue import Catalogue, Metric


def known_formula(formula: str, inputs: Sequence[str], rights: Rights) -> str:
    """A formula without the names of those inputs that may not be known."""
    for name in inputs:
        if not rights.knows(name):
            formula = re.sub(rf"\b{re.escape(name)}\b", "(…)", formula)
    return formula


def known_catalogue(whole: Catalogue, rights: Rights) -> Catalogue:
    """The part of a catalogue that may be known; former definitions as well."""
    if rights.is_open:
        return whole

    def seen(one: Metric) -> Metric:
        return replace(
            one,
            inputs=tuple(name for name in one.inputs if rights.knows(name)),
            former=tuple((until, seen(before)) for until, before in one.former),
            formula=known_formula(one.formula, one.inputs, rights),
            denominator=known_formula(one.denominator, one.inputs, rights),
        )

    return replace(whole, metrics={name: seen(one) for name, one in whole.metrics.items() if rights.knows(name)})
