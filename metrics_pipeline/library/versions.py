"""What a version of a metric is: its definition as plain values, what changed against the one before, and how it reads.

Pure. Every change of formula, inputs, targets, owner or texts is a version of the *definition*; only formula and inputs
change what a *value* means, and they alone make the hash that values carry (`Metric.version`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.definitions import MetricDefinition

Targets = Mapping[str, Sequence[Mapping[str, str]]]
"""Metric → its rows of the seed `metric_targets`, as they are written."""
TARGETS_FILE = Path("seeds/metric_targets.csv")
UNPROPOSED = "changed in files without a proposal"
FIRST_SEEN = "first seen"
UNKNOWN_AUTHOR = "git"

_WHAT = {
    "formula": ("type", "type_params", "formula"),
    "inputs": ("inputs", "made_of"),
    "targets": ("targets",),
    "owner": ("owner",),
    "effective": ("effective_from",),
}
"""Kinds of change, by the fields of a definition; everything else is text."""


@dataclass(frozen=True)
class State:
    """One version of a metric as the files have it."""

    metric: str
    version: str
    """What values of its periods carry."""
    effective_from: date | None
    """First day of its periods; None = all days before the next one."""
    is_newest: bool
    definition: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits over everything in it."""
        return _digest([self.version, self.effective_from, self.definition])


def read_targets(project_dir: Path) -> Targets:
    """The rows of the targets seed by metric; {} without the file. What they mean is checked where rules read them."""
    path = project_dir / TARGETS_FILE
    if not path.exists():
        return {}
    return targets_of(path.read_text("utf-8"))


def targets_of(text: str) -> Targets:
    """The rows of a targets seed by metric."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        found.setdefault(row.get("metric") or "", []).append(
            {name: value or "" for name, value in row.items() if name and name != "metric"}
        )
    return found


def states(catalogue: Catalogue, targets: Targets) -> Iterator[State]:
    """Every version that the files have, metric by metric, the oldest first."""
    definitions = {one.id: one for one in catalogue.definitions.metrics}
    for metric in catalogue.metrics.values():
        yield from metric_states(metric, definitions[metric.id], catalogue, targets.get(metric.id, ()))


def metric_states(
    metric: Metric, definition: MetricDefinition, catalogue: Catalogue, targets: Sequence[Mapping[str, str]]
) -> Iterator[State]:
    """The versions of one metric, the oldest first."""
    pieces = (*definition.former, (None, definition))
    start: date | None = None
    for span in metric.spans:
        first = start or date.min
        day = date.max if span.until is None else date.fromordinal(span.until.toordinal() - 1)
        written = next(one for until, one in pieces if until is None or first < until)
        yield State(
            metric.id,
            span.version,
            start,
            is_newest=span.until is None,
            definition=described(
                metric.defined_on(first), written, catalogue, targets if span.until is None else (), day
            ),
        )
        start = span.until


def described(
    metric: Metric,
    definition: MetricDefinition,
    catalogue: Catalogue,
    targets: Sequence[Mapping[str, str]],
    day: date,
) -> dict[str, Any]:
    """A definition as plain values for JSON: everything that a change of it would change; inputs as of `day`."""
    written = definition.model_dump(
        mode="json", exclude={"id", "file", "line", "former", "meta", "label", "description"}
    )
    meta = definition.meta.model_dump(mode="json", exclude={"former", "slices"})
    return {
        "type": definition.kind,
        "type_params": {
            name: value
            for name, value in written.items()
            if name not in {"kind", "layer"} and value not in (None, [], ())
        },
        "formula": metric.formula,
        "made_of": "" if metric.inputs else metric.version,
        "inputs": {name: catalogue.metrics[name].version_on(day) for name in metric.inputs},
        "layer": definition.layer,
        "label": definition.label,
        "description": definition.description,
        **meta,
        "slices": list(metric.slices),
        "hour_slices": list(metric.hour_slices),
        "targets": [dict(row) for row in targets],
    }


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Field → [before, after] of every field that differs; {} without a version before."""
    if before is None:
        return {}
    return {
        name: [before.get(name), after.get(name)]
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    }


def what_changed(diff: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of change in a difference: formula, inputs, targets, owner, effective, text."""
    found = [what for what, fields in _WHAT.items() if any(name in diff for name in fields)]
    known = {name for fields in _WHAT.values() for name in fields}
    return (*found, *(("text",) if any(name not in known for name in diff) else ()))


def as_lines(definition: Mapping[str, Any]) -> list[str]:
    """A definition as lines to be read and compared, one fact each."""
    return [f"{name}: {_plain(value)}" for name, value in definition.items() if value not in ("", None, [], {})]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
