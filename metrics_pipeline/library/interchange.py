"""Definitions as files for others, and files of others as definitions: what the formats have in common.

A format (`dbt_format`, `osi_format`) turns a file into `Incoming` entries in our own words. Whether they can be used is
not judged here a second time: the library reads itself as if they stood among its files. What it says of them is told
with the place in the file they came from. They are written as composed metrics are (`compose.saved`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.compose import Composition
from metrics_pipeline.library.definitions import (
    LAYERS,
    SEMANTIC_FILE,
    DefinitionError,
    MetricDefinition,
    Problem,
)
from metrics_pipeline.library.lint import Finding, new_findings
from metrics_pipeline.yaml_values import plain, read_yaml

LAYER_KEY = "layer"
"""Where a file for others says the layer: `config.meta.layer`. In the library it is the folder."""
_ORDER = ("name", "label", "description", "type", "type_params", "config")


@dataclass(frozen=True)
class Incoming:
    """One metric of a file, in the library's words, and where it stands in it."""

    id: str
    layer: str
    entry: Mapping[str, Any]
    """As an entry of `metrics:` in `models/<layer>/<id>.yml`."""
    file: Path
    line: int


@dataclass(frozen=True)
class Reading:
    """What a file holds: entries that can be tried, what is wrong with the others, what was left out on purpose."""

    incoming: tuple[Incoming, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    check: Callable[[Catalogue], Iterable[Problem]] | None = None
    """What is still to be asked of the library as it would be with the entries."""


@dataclass(frozen=True)
class Plan:
    """What an import would do. With any problem nothing of it is done."""

    new: tuple[Incoming, ...]
    same: tuple[str, ...]
    """Metrics of the file that the library has already, word for word."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    composition: Composition | None = None
    """What would be written; None when there are problems or nothing is new."""

    @property
    def refusals(self) -> tuple[Problem, ...]:
        """Why nothing may be written: the problems, and what lint would call an error of the library as it would be."""
        found = self.composition.warnings if self.composition is not None else ()
        return (*self.problems, *(one.problem for one in found if one.severity == "error"))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The new metrics as the library would have them."""
        made = self.composition
        return {} if made is None else {name: made.catalogue.metrics[name] for name in made.ids}


def named_with(catalogue: Catalogue, metrics: Collection[str]) -> tuple[str, ...]:
    """The metrics that an export of these names: all they are made of, and those whose measures conversions begin with."""
    found = with_inputs(catalogue, metrics)
    counted = (
        metric for name in found for _, metric in catalogue.metrics[name].begins_with if metric in catalogue.metrics
    )
    return tuple(dict.fromkeys((*found, *counted)))


def with_inputs(catalogue: Catalogue, metrics: Collection[str]) -> tuple[str, ...]:
    """The metrics and all they are made of, in pyramid order."""
    wanted = {
        name for metric in metrics for name in (metric, *catalogue.upstream(metric), *_formerly(catalogue, metric))
    }
    return tuple(name for name in catalogue.metrics if name in wanted)


def written_entries(catalogue: Catalogue, metrics: Collection[str]) -> Iterator[dict[str, Any]]:
    """The metrics' entries as they stand in their files, as plain values."""
    for name in metrics:
        for entry in _load(catalogue.metrics[name].file).get("metrics") or ():
            if entry.get("name") == name:
                yield plain(entry)


def written_models(catalogue: Catalogue) -> list[dict[str, Any]]:
    """The semantic models as they stand in their file, as plain values."""
    return [plain(entry) for entry in _load(catalogue.definitions.project_dir / SEMANTIC_FILE)["semantic_models"]]


def measures_in(value: Any) -> set[str]:
    """Every measure that an entry names, wherever."""
    if isinstance(value, Mapping):
        here = {str(value[key]) for key in ("measure", "base_measure", "conversion_measure") if value.get(key)}
        return here.union(*(measures_in(one) for one in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(measures_in(one) for one in value))
    return set()


def yaml_text(document: Mapping[str, Any], header: str = "") -> str:
    """A document as YAML, keys in their order; `header` as comment lines above it."""
    stream = io.StringIO()
    dumper = YAML()
    dumper.allow_unicode = True
    dumper.width = 4096
    dumper.indent(mapping=2, sequence=4, offset=2)
    dumper.dump(dict(document), stream)
    comment = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
    return f"{comment}{stream.getvalue()}"


def plan_import(catalogue: Catalogue, reading: Reading) -> Plan:
    """Try the entries beside the library: what is new, what is there already, everything that is wrong."""
    problems = [*reading.problems, *_twice(reading.incoming)]
    if not reading.incoming:
        return Plan((), (), tuple(problems), reading.notes)
    if problems:
        # What is wrong in the file may be why others in it cannot be used.
        return Plan((), (), tuple(problems), reading.notes)
    project = catalogue.definitions.project_dir
    drafts = {_path(project, one.layer, one.id): _text(one) for one in reading.incoming}
    elsewhere = {_path(project, layer, one.id): None for one in reading.incoming for layer in LAYERS}
    places = {one.id: one for one in reading.incoming}
    try:
        merged = Catalogue.read(project, {**elsewhere, **drafts})
    except DefinitionError as error:
        moved = [_placed(problem, places.get(problem.file.stem)) for problem in error.problems]
        return Plan((), (), tuple(moved), reading.notes)
    problems += reading.check(merged) if reading.check else ()
    former = {one.id: one for one in catalogue.definitions.metrics}
    after = {one.id: one for one in merged.definitions.metrics}
    models = _model_names(catalogue)
    new, same = [], []
    for one in reading.incoming:
        if one.id not in former:
            new.append(one)
            problems += _taken(one, merged.metrics[one.id], models)
            continue
        differing = _differing(former[one.id], after[one.id])
        if merged.metrics[one.id].version != catalogue.metrics[one.id].version and not differing:
            differing = ["its inputs"]
        if differing:
            problems.append(
                Problem(
                    one.file,
                    one.line,
                    f"{one.id}: is defined otherwise here ({', '.join(differing)})",
                    "An import only adds: propose the change with `metrics library propose`, or give it another name",
                )
            )
        else:
            same.append(one.id)
    if problems:
        return Plan((), (), tuple(problems), reading.notes)
    if not new:
        return Plan((), tuple(same), (), reading.notes)
    added = {path: drafts[path] for one in new for path in (_path(project, one.layer, one.id),)}
    found = tuple(
        Finding(one.severity, _placed(one.problem, places.get(one.problem.file.stem)))
        for one in new_findings(Catalogue.of(catalogue.definitions), merged, {one.id for one in new})
    )
    return Plan(tuple(new), tuple(same), (), reading.notes, Composition(new[-1].id, added, merged, found))


def _formerly(catalogue: Catalogue, metric: str) -> Iterator[str]:
    """Inputs of former definitions and what they are made of."""
    for _, former in catalogue.metrics[metric].former:
        for name in former.inputs:
            yield name
            yield from catalogue.upstream(name)


def _load(path: Path) -> Any:
    return read_yaml(path.read_text("utf-8"))


def _path(project: Path, layer: str, metric: str) -> Path:
    return project / "models" / layer / f"{metric}.yml"


def _text(one: Incoming) -> str:
    return yaml_text({"metrics": [{key: one.entry[key] for key in _ORDER if key in one.entry}]})


def _twice(incoming: Sequence[Incoming]) -> Iterator[Problem]:
    seen: set[str] = set()
    for one in incoming:
        if one.id in seen:
            yield Problem(one.file, one.line, f"{one.id}: stands twice in this file", "Keep one of them")
        seen.add(one.id)


def _model_names(catalogue: Catalogue) -> set[str]:
    """Models that are there: of the metrics, and whatever those are built on."""
    models = catalogue.definitions.project_dir / "models"
    below = (path for folder in ("staging", "facts", "cubes") for path in (models / folder).rglob("*.sql"))
    relations = (name for metric in catalogue.metrics.values() for name in metric.relations.values())
    return {*(path.stem for path in below), *(name.rpartition(".")[2] for name in relations)}


def _taken(one: Incoming, metric: Metric, models: Collection[str]) -> Iterator[Problem]:
    for relation in metric.relations.values():
        name = relation.rpartition(".")[2]
        if name in models:
            yield Problem(
                one.file, one.line, f"{one.id}: there is a dbt model {name!r} already", "Give it another name"
            )


def _placed(problem: Problem, place: Incoming | None) -> Problem:
    """A problem with the place in the file that came in, if it is one of that."""
    return problem if place is None else Problem(place.file, place.line, problem.message, problem.mend)


def _differing(one: MetricDefinition, other: MetricDefinition) -> list[str]:
    """Fields in which two definitions differ, places aside."""
    left, right = (_placeless(definition.model_dump()) for definition in (one, other))
    return [name.replace("_", " ") for name in left if left[name] != right[name]]


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _placeless(inner) for key, inner in value.items() if key not in ("file", "line")}
    if isinstance(value, list | tuple):
        return [_placeless(inner) for inner in value]
    return value
