"""The catalogue as one person may know it: metrics they may not know of stand in no list, formula or lineage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from metrics_pipeline.access.model import Level
from metrics_pipeline.access.policy import Rights
from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.definitions import Definitions
from metrics_pipeline.warehouse.quoting import literal


def known_formula(formula: str, metric: Metric, rights: Rights) -> str:
    """A formula of a metric without the names of those inputs, or measures of metrics, that may not be known."""
    for name, counted_by in (*((one, one) for one in metric.inputs), *metric.begins_with):
        if not rights.knows(counted_by):
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
            formula=known_formula(one.formula, one, rights),
            denominator=known_formula(one.denominator, one, rights),
        )

    return replace(whole, metrics={name: seen(one) for name, one in whole.metrics.items() if rights.knows(name)})


def known_words(text: str, metrics: Mapping[str, Metric], rights: Rights) -> str:
    """A text about definitions (an error, a warning) without ids and names of metrics that may not be known."""
    if rights.is_open:
        return text
    for one in metrics.values():
        if not rights.knows(one.id):
            names = "|".join(re.escape(name) for name in (one.id, one.name_zh, one.name_en) if name)
            text = re.sub(rf"(?<!\w)(?:{names})(?!\w)", "(…)", text, flags=re.IGNORECASE)
    return text


def metrics_named(text: str, metrics: Mapping[str, Metric]) -> list[str]:
    """Ids of the metrics that a text names."""
    return [word for word in dict.fromkeys(re.findall(r"\w+", text)) if word in metrics]


def known_measures(definitions: Definitions, rights: Rights) -> list[str]:
    """The measures that may be known: those of a metric that may be, and those of which there is no metric."""
    users: dict[str, list[str]] = {}
    for one in definitions.metrics:
        if one.kind == "simple" and one.measure:
            users.setdefault(one.measure, []).append(one.id)
    return [
        measure.name
        for model in definitions.semantic_models
        for measure in model.measures
        if measure.name not in users or any(map(rights.knows, users[measure.name]))
    ]


def counts_sql(definitions: Definitions, measures: Sequence[str], rights: Rights) -> str:
    """An SQL condition over `dimension` and `member`: where counts of these measures may be shown exactly.

    That is where every metric that counts them is given exactly; for a measure that no metric counts, where all are.
    """
    if rights.is_open:
        return "true"
    asked: dict[str, None] = {}
    for measure in measures:
        found = [one.id for one in definitions.metrics if one.kind == "simple" and one.measure == measure]
        found = found or [
            one.id for one in definitions.metrics if one.conversion and one.conversion.conversion_measure == measure
        ]
        asked.update(dict.fromkeys(found or [one.id for one in definitions.metrics]))
    return " AND ".join(f"{rights.level_sql(literal(name))} = {int(Level.EXACT)}" for name in asked) or "true"
