"""The catalogue: every metric resolved — inputs, slices, grains, formula, version, raw tables, and what is absent.

`Catalogue.read(dbt_project_dir)` is what everyone else asks; `.for_source(info)` narrows it to an installation, where a
source may lack tables or columns: such metrics stay in the catalogue with the reason, and have no values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal

from metrics_pipeline.library.definitions import (
    SEMANTIC_FILE,
    Conversion,
    DefinitionError,
    Definitions,
    Measure,
    MetricDefinition,
    Problem,
    SemanticModel,
    Words,
    dimensions_of,
    read_definitions,
)
from metrics_pipeline.library.formula import (
    FormulaError,
    Input,
    Node,
    Operation,
    Polynomial,
    atom,
    divisors,
    formula_text,
    input_names,
    linear_parts,
    parse_formula,
    polynomial,
)
from metrics_pipeline.library.spans import VersionSpan, boundaries, joined, version_on, versions_within
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
    denominator: str
    """What is divided by, in metric ids; empty = nothing is."""
    clocks: tuple[Words, ...]
    """By which times its events are put into periods, in the order of its inputs."""
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
    sums_over_days: bool
    """Its days may be added up (those of a distinct count, a ratio, a level or a moving sum may not)."""
    sums_over: tuple[str, ...]
    """Dimensions whose members may be added up to the total."""
    settle_days: int
    """So many days after a period it has its value: a conversion waits for its window."""
    tables: tuple[str, ...]
    """Raw tables whose completeness it needs."""
    requires: tuple[str, ...]
    """Raw tables and columns without which it is absent."""
    dimension_columns: Mapping[str, tuple[str, ...]]
    """Dimension → raw columns it comes from."""
    version: str
    """Hash over the definition and its inputs; values of the newest periods carry it."""
    file: Path
    line: int
    absent: Absence | None = None
    """Why the installation's source cannot give it; None = present."""
    spans: tuple[VersionSpan, ...] = ()
    """Which version the values of which days carry, the oldest first; the last span is open and its version `version`."""
    begins_with: tuple[tuple[str, str], ...] = ()
    """Of a conversion: the measures that its formula names, with the metrics that count them."""
    former: tuple[tuple[date, Metric], ...] = ()
    """How it was defined before, the oldest first, each with the first day that it no longer is for."""

    def version_on(self, day: date) -> str:
        """The version of the values of a day."""
        return version_on(self.spans, day)

    def defined_on(self, day: date) -> Metric:
        """The metric as it was defined for a day: formula, inputs and texts."""
        return next((metric for until, metric in self.former if day < until), self)

    @property
    def text(self) -> str:
        """Names, definition and formula in both languages as Markdown: what dbt's docs and Dagster's pages say of it."""
        return "\n\n".join(
            [
                f"**{self.name_zh} · {self.name_en}** ({self.role})",
                self.definition_zh,
                self.definition_en,
                f"`{self.id} = {self.formula}`",
            ]
        )

    @property
    def all_slices(self) -> tuple[str, ...]:
        """Slices by day that some period has: those of former definitions, too."""
        return tuple(
            dict.fromkeys(name for one in (self, *(metric for _, metric in self.former)) for name in one.slices)
        )

    @property
    def role(self) -> str:
        """PI, KPI or KGI."""
        return _ROLES[self.layer]

    @property
    def is_additive(self) -> bool:
        """May be summed over the members of each of its dimensions."""
        return set(self.sums_over) == {name for slice_ in self.slices for name in dimensions_of(slice_)}

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
    def read(cls, project_dir: Path, drafts: Mapping[Path, str | None] | None = None) -> Catalogue:
        """Read and resolve the definitions of a dbt project, `drafts` (path → text, None = removed) in their place.

        Raises `DefinitionError` with all problems.
        """
        return cls.of(read_definitions(project_dir, drafts))

    @classmethod
    def of(cls, definitions: Definitions) -> Catalogue:
        """Resolve definitions, of whatever source. Raises `DefinitionError` with all problems."""
        return cls(_Resolver(definitions).resolve(), definitions)

    def for_source(self, info: SourceInfo) -> Catalogue:
        """The catalogue of an installation: metrics and slices its source cannot give are marked or dropped."""
        narrowed: dict[str, Metric] = {}
        for metric in self.metrics.values():
            absent = _absence(metric, info) or next(
                (narrowed[name].absent for name in metric.inputs if narrowed[name].absent), None
            )
            narrowed[metric.id] = replace(
                _narrowed(metric, info),
                absent=absent,
                former=tuple((until, _narrowed(one, info)) for until, one in metric.former),
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

    @cached_property
    def written(self) -> Mapping[str, MetricDefinition]:
        """Metric → its definition as it is written."""
        return {definition.id: definition for definition in self.definitions.metrics}

    @cached_property
    def polynomials(self) -> Mapping[str, Polynomial]:
        """Metric → its formula multiplied out down to leaves: equal for two metrics that mean the same."""
        found: dict[str, Polynomial] = {}
        for name in self.metrics:
            found[name] = _unfolded(self.written[name], found)
        return found

    def upstream(self, metric_id: str) -> tuple[str, ...]:
        """All metrics that a metric is made of, nearest first."""
        return _reach(metric_id, {name: metric.inputs for name, metric in self.metrics.items()})

    def users(self, metric_id: str) -> tuple[str, ...]:
        """All metrics that would change with a metric, nearest first."""
        return _reach(metric_id, self.downstream)


def formula_of(definition: MetricDefinition) -> Node | None:
    """The formula of a ratio or a derived metric, over the columns of its terms; None for other kinds.

    Raises `FormulaError`.
    """
    match definition.kind:
        case "ratio":
            return Operation("/", Input(definition.numerator or ""), Input(definition.denominator or ""))
        case "derived":
            return parse_formula(definition.expression or "")
        case _:
            return None


def _unfolded(definition: MetricDefinition, known: Mapping[str, Polynomial]) -> Polynomial:
    match definition.kind:
        case "simple":
            return atom(definition.id)
        case "conversion":
            return atom(definition.id)
        case "cumulative":
            return atom(f"{definition.measure}[{definition.window_days} days]")
        case "derived":
            columns = {term.column: _earlier(known[term.name], term.days_before) for term in definition.terms}
        case _:
            columns = {name: known[name] for name in (definition.numerator, definition.denominator) if name}
    node = formula_of(definition)
    try:
        return polynomial(node, columns) if node else atom(definition.id)
    except FormulaError:
        return atom(definition.id)  # too large to be compared: equal to nothing else


def _earlier(terms: Polynomial, days: int) -> Polynomial:
    """The same, of so many days before."""
    if not days:
        return terms
    return {tuple((f"{name}@-{days}d", power) for name, power in key): value for key, value in terms.items()}


def _reach(start: str, edges: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """What can be reached from `start`, breadth first, without `start`."""
    found: dict[str, None] = {}
    ring = list(edges[start])
    while ring:
        found.update(dict.fromkeys(ring))
        ring = [name for known in ring for name in edges[known] if name not in found]
    return tuple(found)


def _narrowed(metric: Metric, info: SourceInfo) -> Metric:
    """Without the slices that the source does not know."""
    missing = {
        dimension
        for dimension, columns in metric.dimension_columns.items()
        if any(_is_absent(column, info) for column in columns)
    }
    return replace(metric, slices=_without(metric.slices, missing), hour_slices=_without(metric.hour_slices, missing))


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
            for one in _definitions(metric):
                yield from self._problems_of(one)
        yield from self._cycles()

    def _problems_of(self, metric: MetricDefinition) -> Iterable[Problem]:
        unknown = [name for name in _measures_of(metric) if name not in self._measures]
        for name in unknown:
            known = ", ".join(sorted(self._measures))
            yield _problem(metric, f"unknown measure {name!r}", f"Use one of: {known}")
        if unknown:
            return
        if metric.kind == "cumulative":
            yield from self._cumulative_problems(metric)
        if metric.kind == "conversion":
            yield from self._conversion_problems(metric)
        if metric.kind == "derived":
            yield from _formula_problems(metric)
        for name in self._input_ids(metric):
            if name not in self._by_id:
                yield _problem(metric, f"unknown metric {name!r}", "Name a metric of models/<layer>/")
            elif _LAYER_ORDER[self._by_id[name].layer] > _LAYER_ORDER[metric.layer]:
                yield _problem(
                    metric,
                    f"uses {name!r} of the higher layer {self._by_id[name].layer}",
                    "Build only on the same or a lower layer",
                )

    def _cumulative_problems(self, metric: MetricDefinition) -> Iterable[Problem]:
        _, measure = self._measures[metric.measure or ""]
        if metric.measure not in self._simple_by_measure:
            yield _problem(metric, f"measure {metric.measure!r} has no simple metric", "Define the simple metric")
        if measure.agg == "count_distinct" or measure.non_additive_dimension:
            what = "a distinct count" if measure.agg == "count_distinct" else "a level at the end of a day"
            yield _problem(metric, f"{measure.name!r} is {what}, its days cannot be summed", "Sum a count or an amount")

    def _conversion_problems(self, metric: MetricDefinition) -> Iterable[Problem]:
        conversion = metric.conversion
        if conversion is None:
            return
        if self._by_id[metric.id].former:
            yield _problem(metric, "the definition of a conversion cannot change on a day", "Define a new metric")
        if metric.layer != "base":
            yield _problem(
                metric, "a conversion is counted from facts", "Put it into base, and a ratio of it higher up"
            )
        (base, first), (other, second) = (
            self._measures[name] for name in (conversion.base_measure, conversion.conversion_measure)
        )
        for model in (base, other):
            if conversion.entity not in model.entities:
                yield _problem(
                    metric,
                    f"semantic model {model.name!r} has no entity {conversion.entity!r}",
                    f"Use one that both have, or add it to {SEMANTIC_FILE}",
                )
            if model.key is None:
                yield _problem(metric, f"semantic model {model.name!r} has no key", "Give it a primary entity")
        for measure in (first, second):
            if measure.agg not in {"count", "count_distinct"}:
                yield _problem(metric, f"measure {measure.name!r} is a {measure.agg}", "Convert what is counted")
        if conversion.base_measure not in self._simple_by_measure:
            yield _problem(
                metric, f"measure {conversion.base_measure!r} has no simple metric", "Define the simple metric"
            )

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
            for definition in _definitions(self._by_id[name]):
                for source in self._input_ids(definition):
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
            pieces: list[tuple[date | None, Metric]] = []
            start = date.min
            for until, one in (*definition.former, (None, definition)):
                pieces.append((until, self._defined(one, start, until)))
                start = until or date.max
            metric = pieces[-1][1]
            self._resolved[name] = replace(
                metric,
                spans=joined(span for _, piece in pieces for span in piece.spans),
                former=tuple((until, piece) for until, piece in pieces if until is not None),
            )
        return self._resolved[name]

    def _defined(self, definition: MetricDefinition, start: date, until: date | None) -> Metric:
        """The metric as this definition has it for the days [start, until), with the versions of these days."""
        if definition.kind in {"simple", "conversion"}:
            metric, of_fact = (
                self._conversion(definition, definition.conversion) if definition.conversion else self._leaf(definition)
            )
            version = _version(definition, metric.formula, of_fact)
            return replace(metric, version=version, spans=(VersionSpan(until, version),))
        metric = self._composite(definition)
        inputs = [self._resolved[name] for name in metric.inputs]
        reach = reach_days(definition)
        cuts = {day for source in inputs for day in boundaries(source.spans, reach)}
        starts = [start, *sorted(day for day in cuts if start < day and (until is None or day < until))]
        spans = []
        for first, end in zip(starts, [*starts[1:], until], strict=True):
            seen = date.fromordinal(max(first.toordinal() - reach, 1))
            of_inputs = [(source.id, *versions_within(source.spans, seen, first)) for source in inputs]
            spans.append(VersionSpan(end, _version(definition, metric.formula, of_inputs)))
        return replace(metric, version=spans[-1].version, spans=joined(spans))

    def _leaf(self, definition: MetricDefinition) -> tuple[Metric, object]:
        """The metric, and what else than its formula makes its version."""
        model, measure = self._measures[definition.measure or ""]
        cube = model.cube
        is_distinct = measure.agg == "count_distinct"
        slices = (cube.distinct_slices or cube.slices) if is_distinct else cube.slices
        metric = _build(
            definition,
            formula=_leaf_formula(model, measure),
            inputs=(),
            slices=slices,
            hour_slices=() if is_distinct else cube.hour_slices,
            is_counted=True,
            sums_over_days=not is_distinct and measure.non_additive_dimension is None,
            sums_over=cube.disjoint.get(measure.name, ()) if is_distinct else tuple(cube.columns),
            tables=cube.tables,
            requires=cube.requires.get(measure.name, ()),
            dimension_columns={name: (column,) for name, column in cube.columns.items()},
            clocks=(cube.clock_name,),
        )
        return metric, (_computed(measure), model.fact, model.local_clock, self._fact_hash(model.fact))

    def _conversion(self, definition: MetricDefinition, conversion: Conversion) -> tuple[Metric, object]:
        """A leaf as well: it belongs to the base event, by its clock and its dimensions."""
        (base, first), (other, second) = (
            self._measures[name] for name in (conversion.base_measure, conversion.conversion_measure)
        )
        requires = (*base.cube.requires.get(first.name, ()), *other.cube.requires.get(second.name, ()))
        is_each_once = second.agg == "count" or second.expr == base.key
        metric = _build(
            definition,
            formula=f"{_leaf_formula(other, second)} within {conversion.window_days} days of {first.name}, "
            f"by {conversion.entity} and {base.local_clock}",
            inputs=(),
            slices=base.cube.slices,
            hour_slices=(),
            is_counted=True,
            sums_over_days=is_each_once,
            sums_over=tuple(base.cube.columns) if is_each_once else (),
            tables=tuple(dict.fromkeys((*base.cube.tables, *other.cube.tables))),
            requires=tuple(dict.fromkeys(requires)),
            dimension_columns={name: (column,) for name, column in base.cube.columns.items()},
            clocks=(base.cube.clock_name,),
            settle_days=conversion.window_days,
        )
        made_of = [(m.fact, m.local_clock, self._fact_hash(m.fact)) for m in (base, other)]
        counted = [
            (one.name, self._simple_by_measure[one.name])
            for one in (first, second)
            if one.name in self._simple_by_measure
        ]
        metric = replace(metric, begins_with=tuple(counted))
        return metric, (conversion.model_dump(), _computed(first), _computed(second), made_of)

    def _composite(self, definition: MetricDefinition) -> Metric:
        inputs = [self._metric(name) for name in self._input_ids(definition)]
        first, rest = inputs[0], inputs[1:]
        columns: dict[str, tuple[str, ...]] = {}
        for source in inputs:
            for dimension, found in source.dimension_columns.items():
                columns[dimension] = tuple(dict.fromkeys((*columns.get(dimension, ()), *found)))
        is_hourly = "hourly" in definition.meta.refresh and definition.kind != "cumulative"
        node = formula_of(definition)
        is_sum = node is None or _is_sum(node)
        return _build(
            definition,
            formula=_composite_formula(definition, node, inputs[0].id),
            denominator=", ".join(formula_text(one, _dated(definition)) for one in divisors(node)) if node else "",
            inputs=tuple(source.id for source in inputs),
            slices=tuple(s for s in first.slices if all(s in other.slices for other in rest)),
            hour_slices=tuple(s for s in first.hour_slices if all(s in other.hour_slices for other in rest))
            if is_hourly
            else (),
            is_counted=definition.kind == "cumulative",
            sums_over_days=is_sum and definition.kind != "cumulative" and all(one.sums_over_days for one in inputs),
            sums_over=tuple(d for d in first.sums_over if is_sum and all(d in one.sums_over for one in rest)),
            tables=tuple(dict.fromkeys(table for source in inputs for table in source.tables)),
            requires=tuple(dict.fromkeys(column for source in inputs for column in source.requires)),
            dimension_columns=columns,
            clocks=tuple(dict.fromkeys(clock for source in inputs for clock in source.clocks)),
            settle_days=max(source.settle_days for source in inputs),
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
    sums_over_days: bool,
    sums_over: tuple[str, ...],
    tables: tuple[str, ...],
    requires: tuple[str, ...],
    dimension_columns: Mapping[str, tuple[str, ...]],
    clocks: tuple[Words, ...],
    denominator: str = "",
    settle_days: int = 0,
) -> Metric:
    """Without its version, which follows from its inputs."""
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
        denominator=denominator,
        clocks=clocks,
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
        sums_over_days=sums_over_days,
        sums_over=tuple(name for name in sums_over if name in used),
        settle_days=settle_days,
        tables=tables,
        requires=requires,
        dimension_columns={name: columns for name, columns in dimension_columns.items() if name in used},
        version="",
        file=definition.file,
        line=definition.line,
    )


def _version(definition: MetricDefinition, formula: str, made_of: object) -> str:
    return _digest([definition.kind, formula, definition.window_days, made_of])[:12]


def reach_days(definition: MetricDefinition) -> int:
    """How many days before its own a value looks at."""
    return max((definition.window_days or 1) - 1, *(term.days_before for term in definition.terms), 0)


def _definitions(metric: MetricDefinition) -> tuple[MetricDefinition, ...]:
    """What it was and what it is."""
    return (*(former for _, former in metric.former), metric)


def _computed(measure: Measure) -> dict[str, str]:
    """What of a measure makes its values."""
    return measure.model_dump(include={"name", "agg", "expr"})


def _leaf_formula(model: SemanticModel, measure: Measure) -> str:
    aggregate = f"count(distinct {measure.expr})" if measure.agg == "count_distinct" else measure.sql
    return f"{aggregate} of {model.fact} by {model.local_clock}"


def _composite_formula(definition: MetricDefinition, node: Node | None, first: str) -> str:
    if node is None:  # by the metric and not its measure, which may be another one from a day on
        return f"sum of {first} over {definition.window_days} days"
    if definition.kind == "ratio":
        return f"{definition.numerator} / {definition.denominator}"
    return formula_text(node, _dated(definition))


def _dated(definition: MetricDefinition) -> Callable[[str], str]:
    """Column of a formula → what it is: a metric's id, and of how many days before."""
    names = {
        term.column: f"{term.name}[{term.days_before} days before]" if term.days_before else term.name
        for term in definition.terms
    }
    return lambda column: names.get(column, column)


def _is_sum(node: Node) -> bool:
    """Whether it is a weighted sum of its inputs: then it may be summed wherever all of them may."""
    columns = {name: atom(name) for name in input_names(node)}
    try:
        return linear_parts(polynomial(node, columns)) is not None
    except FormulaError:
        return False


def _measures_of(metric: MetricDefinition) -> tuple[str, ...]:
    """The measures that a definition names."""
    if metric.conversion is not None:
        return metric.conversion.base_measure, metric.conversion.conversion_measure
    return (metric.measure,) if metric.measure is not None else ()


def _formula_problems(metric: MetricDefinition) -> Iterable[Problem]:
    try:
        used = input_names(parse_formula(metric.expression or ""))
    except FormulaError as error:
        yield _problem(metric, f"`expr`: {error}", "Mend the formula")
        return
    columns = [term.column for term in metric.terms]
    for name in sorted({name for name in columns if columns.count(name) > 1}):
        yield _problem(metric, f"two inputs are called {name!r}", "Give one of them an `alias`")
    for name in used:
        if name not in columns:
            yield _problem(metric, f"`expr` uses {name!r}, which `metrics` does not list", "Add it there")
    for name in columns:
        if name not in used:
            yield _problem(metric, f"`metrics` lists {name!r}, which `expr` does not use", "Take it out")


def _problem(metric: MetricDefinition, message: str, mend: str) -> Problem:
    return Problem(metric.file, metric.line, f"{metric.id}: {message}", mend)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
