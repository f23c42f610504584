"""The catalogue: every metric resolved — inputs, slices, grains, formula, version, raw tables, and what is absent.

`Catalogue.read(dbt_project_dir)` is what everyone else asks; `.for_source(info)` narrows it to an installation, where a
source may lack tables or columns: such metrics stay in the catalogue with the reason, and have no values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from metrics_pipeline.library.definitions import (
    SEMANTIC_FILE,
    DefinitionError,
    Definitions,
    Measure,
    MetricDefinition,
    Problem,
    SemanticModel,
    dimensions_of,
    read_definitions,
)
from metrics_pipeline.sources.source import Absence, SourceInfo

Grain = Literal["day", "hour"]
_LAYER_ORDER = {"base": 0, "operational": 1, "strategic": 2}
_ROLES = {"base": "PI", "operational": "KPI", "strategic": "KGI"}


@dataclass(frozen=True)
class Metric:
    """One metric, resolved. Names and texts come in English (`*_en`) and Chinese (`*_zh`)."""

    id: str
    layer: str
    kind: str
    name_en: str
    name_zh: str
    definition_en: str
    definition_zh: str
    formula: str
    """The formula in metric ids or, for a leaf, the aggregate and its fact."""
    inputs: tuple[str, ...]
    unit: str
    direction: str
    stage: str
    category: str
    owner: str
    business_line: str
    sensitivity: str
    refresh: tuple[str, ...]
    freshness_hours: int
    slices: tuple[str, ...]
    """Slices by day, `all` first."""
    hour_slices: tuple[str, ...]
    """Slices by hour; () = no hourly table."""
    is_counted: bool
    """A count or an amount: where a complete period has no row for a slice, it was 0."""
    is_additive: bool
    """May be summed over slices of one dimension (a distinct count, a ratio or a stock level over days may not)."""
    tables: tuple[str, ...]
    """Raw tables whose completeness it needs."""
    requires: tuple[str, ...]
    """Raw tables and columns without which it is absent."""
    dimension_columns: Mapping[str, tuple[str, ...]]
    """Dimension → raw columns it comes from."""
    version: str
    """Hash over the definition and its inputs; values carry it."""
    file: Path
    line: int
    absent: Absence | None = None
    """Why the installation's source cannot give it; None = present."""

    @property
    def role(self) -> str:
        """PI, KPI or KGI."""
        return _ROLES[self.layer]

    @property
    def grains(self) -> tuple[Grain, ...]:
        return ("day", "hour") if self.hour_slices else ("day",)

    @property
    def relations(self) -> Mapping[Grain, str]:
        """Grain → table in the build file (`schema.table`)."""
        relations: dict[Grain, str] = {"day": f"{self.layer}.{self.id}"}
        if self.hour_slices:
            relations["hour"] = f"hourly.{self.id}_hourly"
        return relations


@dataclass(frozen=True)
class Catalogue:
    """All metrics in pyramid order (base before operational before strategic; inputs before what uses them)."""

    metrics: Mapping[str, Metric]
    definitions: Definitions

    @classmethod
    def read(cls, project_dir: Path) -> Catalogue:
        """Read and resolve the definitions of a dbt project. Raises `DefinitionError` with all problems."""
        definitions = read_definitions(project_dir)
        return cls(_Resolver(definitions).resolve(), definitions)

    def for_source(self, info: SourceInfo) -> Catalogue:
        """The catalogue of an installation: metrics and slices its source cannot give are marked or dropped."""
        narrowed: dict[str, Metric] = {}
        for metric in self.metrics.values():
            absent = _absence(metric, info) or next(
                (narrowed[name].absent for name in metric.inputs if narrowed[name].absent), None
            )
            missing = {
                dimension
                for dimension, columns in metric.dimension_columns.items()
                if any(_is_absent(column, info) for column in columns)
            }
            narrowed[metric.id] = replace(
                metric,
                absent=absent,
                slices=_without(metric.slices, missing),
                hour_slices=_without(metric.hour_slices, missing),
            )
        return Catalogue(narrowed, self.definitions)

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """Metric → the metrics whose formula uses it."""
        users: dict[str, list[str]] = {name: [] for name in self.metrics}
        for metric in self.metrics.values():
            for name in metric.inputs:
                users[name].append(metric.id)
        return {name: tuple(found) for name, found in users.items()}


def _without(slices: tuple[str, ...], missing: set[str]) -> tuple[str, ...]:
    return tuple(name for name in slices if not missing.intersection(dimensions_of(name)))


def _is_absent(column: str, info: SourceInfo) -> bool:
    return column in info.absent or column.split(".", maxsplit=1)[0] in info.absent


def _absence(metric: Metric, info: SourceInfo) -> Absence | None:
    for name in (*metric.tables, *metric.requires):
        for key in (name, name.split(".")[0]):
            if key in info.absent:
                reason = info.absent[key]
                return Absence(
                    f"source {info.name} has no {key}: {reason.reason_en}",
                    f"数据源 {info.name} 没有 {key}:{reason.reason_zh}",
                )
    return None


class _Resolver:
    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._by_id = {metric.id: metric for metric in definitions.metrics}
        self._measures = {
            measure.name: (model, measure) for model in definitions.semantic_models for measure in model.measures
        }
        self._simple_by_measure = {m.measure: m.id for m in definitions.metrics if m.kind == "simple"}
        self._fact_hashes: dict[str, str] = {}
        self._resolved: dict[str, Metric] = {}

    def resolve(self) -> dict[str, Metric]:
        problems = list(self._problems())
        if problems:
            raise DefinitionError(problems)
        for metric in sorted(self._definitions.metrics, key=lambda m: (_LAYER_ORDER[m.layer], m.id)):
            self._metric(metric.id)
        return dict(sorted(self._resolved.items(), key=lambda item: _LAYER_ORDER[item[1].layer]))

    def _problems(self) -> Iterable[Problem]:
        seen: dict[str, MetricDefinition] = {}
        for metric in self._definitions.metrics:
            if metric.id in seen:
                yield _problem(metric, f"metric {metric.id!r} is defined twice", "Keep one definition")
            seen[metric.id] = metric
            if metric.kind in {"simple", "cumulative"} and metric.measure not in self._measures:
                known = ", ".join(sorted(self._measures))
                yield _problem(metric, f"unknown measure {metric.measure!r}", f"Use one of: {known}")
                continue
            if metric.kind == "cumulative" and metric.measure not in self._simple_by_measure:
                yield _problem(metric, f"measure {metric.measure!r} has no simple metric", "Define the simple metric")
            for name in self._input_ids(metric):
                if name not in self._by_id:
                    yield _problem(metric, f"unknown metric {name!r}", "Name a metric of models/<layer>/")
                elif _LAYER_ORDER[self._by_id[name].layer] > _LAYER_ORDER[metric.layer]:
                    yield _problem(
                        metric,
                        f"uses {name!r} of the higher layer {self._by_id[name].layer}",
                        "Build only on the same or a lower layer",
                    )
        yield from self._cycles()

    def _cycles(self) -> Iterable[Problem]:
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> Iterable[Problem]:
            if name in path:
                yield _problem(
                    self._by_id[name], f"is defined by itself: {' → '.join((*path, name))}", "Break the cycle"
                )
                return
            if name in done or name not in self._by_id:
                return
            for source in self._input_ids(self._by_id[name]):
                yield from visit(source, (*path, name))
            done.add(name)

        for name in self._by_id:
            yield from visit(name, ())

    def _input_ids(self, metric: MetricDefinition) -> tuple[str, ...]:
        match metric.kind:
            case "ratio":
                return tuple(name for name in (metric.numerator, metric.denominator) if name)
            case "derived":
                return metric.inputs
            case "cumulative":
                source = self._simple_by_measure.get(metric.measure or "")
                return (source,) if source else ()
            case _:
                return ()

    def _metric(self, name: str) -> Metric:
        if name not in self._resolved:
            definition = self._by_id[name]
            self._resolved[name] = (
                self._leaf(definition) if definition.kind == "simple" else self._composite(definition)
            )
        return self._resolved[name]

    def _leaf(self, definition: MetricDefinition) -> Metric:
        model, measure = self._measures[definition.measure or ""]
        cube = model.cube
        is_distinct = measure.agg == "count_distinct"
        slices = (cube.distinct_slices or cube.slices) if is_distinct else cube.slices
        return _build(
            definition,
            formula=_leaf_formula(model, measure),
            inputs=(),
            slices=slices,
            hour_slices=() if is_distinct else cube.hour_slices,
            is_counted=True,
            is_additive=not is_distinct,
            tables=cube.tables,
            requires=cube.requires.get(measure.name, ()),
            dimension_columns={name: (column,) for name, column in cube.columns.items()},
            inputs_hash=(measure.model_dump(), model.fact, model.local_clock, self._fact_hash(model.fact)),
        )

    def _composite(self, definition: MetricDefinition) -> Metric:
        inputs = [self._metric(name) for name in self._input_ids(definition)]
        first, rest = inputs[0], inputs[1:]
        columns: dict[str, tuple[str, ...]] = {}
        for source in inputs:
            for dimension, found in source.dimension_columns.items():
                columns[dimension] = tuple(dict.fromkeys((*columns.get(dimension, ()), *found)))
        is_hourly = "hourly" in definition.meta.refresh
        return _build(
            definition,
            formula=_composite_formula(definition),
            inputs=tuple(source.id for source in inputs),
            slices=tuple(s for s in first.slices if all(s in other.slices for other in rest)),
            hour_slices=tuple(s for s in first.hour_slices if all(s in other.hour_slices for other in rest))
            if is_hourly
            else (),
            is_counted=definition.kind == "cumulative",
            is_additive=all(source.is_additive for source in inputs) and _is_sum(definition),
            tables=tuple(dict.fromkeys(table for source in inputs for table in source.tables)),
            requires=tuple(dict.fromkeys(column for source in inputs for column in source.requires)),
            dimension_columns=columns,
            inputs_hash=[(source.id, source.version) for source in inputs],
        )

    def _fact_hash(self, fact: str) -> str:
        """The fact's SQL without comments and spacing: a changed fact is a changed definition."""
        if fact not in self._fact_hashes:
            path = self._definitions.project_dir / SEMANTIC_FILE.parent / f"{fact}.sql"
            text = re.sub(r"\{#.*?#\}|--[^\n]*", "", path.read_text("utf-8"), flags=re.DOTALL)
            self._fact_hashes[fact] = _digest("".join(text.split()))
        return self._fact_hashes[fact]


def _build(
    definition: MetricDefinition,
    *,
    formula: str,
    inputs: tuple[str, ...],
    slices: tuple[str, ...],
    hour_slices: tuple[str, ...],
    is_counted: bool,
    is_additive: bool,
    tables: tuple[str, ...],
    requires: tuple[str, ...],
    dimension_columns: Mapping[str, tuple[str, ...]],
    inputs_hash: object,
) -> Metric:
    meta = definition.meta
    if meta.slices is not None:
        slices = tuple(name for name in slices if name in meta.slices)
        hour_slices = tuple(name for name in hour_slices if name in meta.slices)
    used = {dimension for name in slices for dimension in dimensions_of(name)}
    return Metric(
        id=definition.id,
        layer=definition.layer,
        kind=definition.kind,
        name_en=definition.label,
        name_zh=meta.name_zh,
        definition_en=definition.description,
        definition_zh=meta.definition_zh,
        formula=formula,
        inputs=inputs,
        unit=meta.unit,
        direction=meta.direction,
        stage=meta.stage,
        category=meta.category,
        owner=meta.owner,
        business_line=meta.business_line,
        sensitivity=meta.sensitivity,
        refresh=meta.refresh,
        freshness_hours=meta.freshness_hours,
        slices=slices,
        hour_slices=hour_slices if "hourly" in meta.refresh else (),
        is_counted=is_counted,
        is_additive=is_additive,
        tables=tables,
        requires=requires,
        dimension_columns={name: columns for name, columns in dimension_columns.items() if name in used},
        version=_digest([definition.kind, formula, definition.window_days, inputs_hash])[:12],
        file=definition.file,
        line=definition.line,
    )


def _leaf_formula(model: SemanticModel, measure: Measure) -> str:
    aggregate = f"count(distinct {measure.expr})" if measure.agg == "count_distinct" else measure.sql
    return f"{aggregate} of {model.fact} by {model.local_clock}"


def _composite_formula(definition: MetricDefinition) -> str:
    match definition.kind:
        case "ratio":
            return f"{definition.numerator} / {definition.denominator}"
        case "cumulative":
            return f"sum of {definition.measure} over {definition.window_days} days"
        case _:
            return definition.expression or ""


def _is_sum(definition: MetricDefinition) -> bool:
    """A cumulative metric, or a derived one that only adds and subtracts its inputs."""
    if definition.kind == "cumulative":
        return True
    return definition.kind == "derived" and re.fullmatch(r"[\w\s+-]+", definition.expression or "") is not None


def _problem(metric: MetricDefinition, message: str, mend: str) -> Problem:
    return Problem(metric.file, metric.line, f"{metric.id}: {message}", mend)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
