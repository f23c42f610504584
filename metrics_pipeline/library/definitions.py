"""Metric definitions as they are written: the semantic-layer YAML of the dbt project, read and checked.

A definition is the only place of a formula. This module knows the shape of the files and says which file and line is
wrong; what the definitions mean together is `catalogue`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from metrics_pipeline.yaml_values import MarkedYAMLError, read_yaml

MAX_CONVERSION_DAYS = 3
"""Longest window of a conversion: as many days as every night rebuilds, so that the day it waits for is built again."""
LAYERS = ("base", "operational", "strategic")
SEMANTIC_FILE = Path("models/facts/_semantic.yml")

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Slice = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*(\|[a-z][a-z0-9_]*)?$")]


@dataclass(frozen=True)
class Problem:
    """Something in a definition that must be mended, and where."""

    file: Path
    line: int
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}. {self.mend}"


class DefinitionError(ValueError):
    """Definitions that cannot be used; `problems` lists all of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measure(_Part):
    """A column aggregated once: the leaf of every formula."""

    name: Identifier
    agg: Literal["count", "sum", "sum_boolean", "count_distinct"]
    expr: str
    non_additive_dimension: Mapping[str, str] | None = None
    """dbt's words for a level: it may not be summed over the time dimension that is named here."""

    @property
    def sql(self) -> str:
        """The aggregate as SQL; for a distinct count the expression that is counted."""
        match self.agg:
            case "count":
                return f"count({self.expr})"
            case "sum":
                return f"sum({self.expr})"
            case "sum_boolean":
                return f"sum(case when {self.expr} then 1 else 0 end)"
            case _:
                return self.expr


class Words(_Part):
    """The same in both languages."""

    en: str = Field(min_length=1)
    zh: str = Field(min_length=1)


class Cube(_Part):
    """How a semantic model is summed once (the keys are explained in `models/facts/_semantic.yml`)."""

    clock: Identifier
    clock_name: Words
    tables: tuple[Identifier, ...] = Field(min_length=1)
    columns: Mapping[Identifier, str]
    slices: tuple[Slice, ...] = Field(min_length=1)
    hour_slices: tuple[Slice, ...] = ()
    distinct_slices: tuple[Slice, ...] | None = None
    sparse: tuple[Identifier, ...] = ()
    requires: Mapping[Identifier, tuple[str, ...]] = {}
    disjoint: Mapping[Identifier, tuple[Identifier, ...]] = {}

    @model_validator(mode="after")
    def _slices_have_columns(self) -> Cube:
        for name in (*self.slices, *self.hour_slices, *(self.distinct_slices or ())):
            for dimension in dimensions_of(name):
                if dimension not in self.columns:
                    raise ValueError(f"slice {name!r}: `columns` does not say where {dimension!r} comes from")
        for measure, dimensions in self.disjoint.items():
            if unknown := sorted(set(dimensions) - set(self.columns)):
                raise ValueError(f"disjoint: {measure}: unknown dimension {', '.join(unknown)}")
        if "all" not in self.slices:
            raise ValueError("`slices` must contain all")
        return self


class SemanticModel(_Part):
    """One business process: its fact, its clock, its measures."""

    name: Identifier
    description: str
    fact: Identifier
    local_clock: Identifier
    entities: Mapping[str, str] = {}
    """Entity → the expression that is its key; what a conversion joins two facts by."""
    key: str | None = None
    """The expression of the primary entity: one row of the fact; None = the fact has none."""
    measures: tuple[Measure, ...]
    cube: Cube


class FormerFormula(_Part):
    """How a metric was defined before a day: periods before it are computed so for ever (docs/versions.md)."""

    until: date
    """First day of the definition that came after it."""
    type: str
    type_params: Mapping[str, Any]
    description: str | None = None
    definition_zh: str | None = None
    """The texts of that time; None = they were as they are."""


class MetricMeta(_Part):
    """What the library wants to know of a metric beside its formula (F2)."""

    name_zh: str = Field(min_length=1)
    definition_zh: str = Field(min_length=1)
    unit: str = Field(min_length=1)
    direction: Literal["higher_is_better", "lower_is_better", "neutral"]
    stage: Literal["traffic", "conversion", "fulfilment", "after_sales"]
    category: Literal["traffic", "product", "order", "user", "finance"]
    owner: str = Field(min_length=1)
    business_line: Identifier
    sensitivity: Literal["public", "internal", "confidential"]
    refresh: tuple[Literal["nightly", "hourly"], ...] = Field(min_length=1)
    freshness_hours: int = Field(gt=0)
    slices: tuple[Slice, ...] | None = None
    """Keep only these slices; default: all that the inputs have."""
    former: tuple[FormerFormula, ...] = ()
    """Former definitions, the oldest first."""

    @model_validator(mode="after")
    def _former_days_ascend(self) -> MetricMeta:
        days = [one.until for one in self.former]
        if days != sorted(set(days)):
            raise ValueError("`former`: each `until` must be after the one before it")
        return self


class Term(_Part):
    """An input of a derived metric: a metric, maybe of some days before, under the name it has in the formula."""

    name: Identifier
    alias: Identifier | None = None
    days_before: int = Field(0, ge=0, le=800)

    @property
    def column(self) -> str:
        """Its name in the formula."""
        return self.alias or self.name


class Conversion(_Part):
    """Events of one fact that followed an event of another, of the same entity, within a window."""

    base_measure: Identifier
    conversion_measure: Identifier
    entity: Identifier
    window_days: int = Field(ge=1, le=MAX_CONVERSION_DAYS)
    calculation: Literal["conversions"]
    """Their count, by the clock and the dimensions of the base; a rate is a ratio metric of it."""


class MetricDefinition(_Part):
    """One metric as written in `models/<layer>/<id>.yml`."""

    id: Identifier
    layer: Literal["base", "operational", "strategic"]
    label: str = Field(min_length=1)
    description: str = Field(min_length=1)
    kind: Literal["simple", "ratio", "derived", "cumulative", "conversion"]
    measure: Identifier | None = None
    numerator: Identifier | None = None
    denominator: Identifier | None = None
    expression: str | None = None
    terms: tuple[Term, ...] = ()
    """The inputs of a derived metric."""
    window_days: int | None = None
    conversion: Conversion | None = None
    meta: MetricMeta
    file: Path
    line: int
    former: tuple[tuple[date, MetricDefinition], ...] = ()
    """Former definitions, the oldest first, each with the first day that it no longer is for."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Ids of the inputs of a derived metric, each once."""
        return tuple(dict.fromkeys(term.name for term in self.terms))

    @model_validator(mode="after")
    def _kind_has_its_parameters(self) -> MetricDefinition:
        wanted = {
            "simple": ("measure",),
            "cumulative": ("measure", "window_days"),
            "ratio": ("numerator", "denominator"),
            "derived": ("expression", "terms"),
            "conversion": ("conversion",),
        }[self.kind]
        if missing := [name for name in wanted if not getattr(self, name)]:
            raise ValueError(f"a {self.kind} metric needs {' and '.join(_YAML_NAMES[name] for name in missing)}")
        return self


_YAML_NAMES = {
    "measure": "`measure`",
    "window_days": "`cumulative_type_params: {window: N days}`",
    "numerator": "`numerator`",
    "denominator": "`denominator`",
    "expression": "`expr`",
    "terms": "`metrics`, the list of its inputs",
    "conversion": "`conversion_type_params`",
}


@dataclass(frozen=True)
class Definitions:
    """All definitions of a project, in file order."""

    project_dir: Path
    semantic_models: tuple[SemanticModel, ...]
    metrics: tuple[MetricDefinition, ...]


def dimensions_of(slice_: str) -> tuple[str, ...]:
    """The dimensions of a slice: `all` → (), `region` → (region,), `region|channel` → (region, channel)."""
    return () if slice_ == "all" else tuple(slice_.split("|"))


def read_definitions(project_dir: Path, drafts: Mapping[Path, str | None] | None = None) -> Definitions:
    """Read every semantic model and metric below `project_dir`.

    `drafts` are files as they would be: path → text, None = removed. Raises `DefinitionError` with all problems (file,
    line, what to do) when any definition cannot be used.
    """
    problems: list[Problem] = []
    semantic_models = list(_semantic_models(project_dir, problems))
    metrics: list[MetricDefinition] = []
    for layer in LAYERS:
        folder = project_dir / "models" / layer
        drafted = {path: text for path, text in (drafts or {}).items() if path.parent == folder}
        for path in sorted({*folder.glob("[!_]*.yml"), *drafted}):
            if path not in drafted or drafted[path] is not None:
                metrics += _metrics(path, layer, problems, drafted.get(path))
    if problems:
        raise DefinitionError(problems)
    return Definitions(project_dir, tuple(semantic_models), tuple(metrics))


def read_semantic_models(project_dir: Path, text: str) -> tuple[SemanticModel, ...]:
    """The semantic models as they would be with this text. Raises `DefinitionError`."""
    problems: list[Problem] = []
    found = tuple(_semantic_models(project_dir, problems, text))
    if problems:
        raise DefinitionError(problems)
    return found


def _semantic_models(project_dir: Path, problems: list[Problem], text: str | None = None) -> Iterator[SemanticModel]:
    path = project_dir / SEMANTIC_FILE
    for entry in _entries(path, "semantic_models", problems, text):
        try:
            entities = {one.get("name"): one.get("expr") or one.get("name") for one in entry.get("entities") or ()}
            keys = [entities[one["name"]] for one in entry.get("entities") or () if one.get("type") == "primary"]
            fact = re.fullmatch(r"ref\('(\w+)'\)", str(entry.get("model", "")))
            if fact is None:
                raise ValueError("`model` must be ref('<fact>')")
            yield SemanticModel.model_validate(
                {
                    "name": entry.get("name"),
                    "description": entry.get("description", ""),
                    "fact": fact.group(1),
                    "local_clock": (entry.get("defaults") or {}).get("agg_time_dimension"),
                    "entities": entities,
                    "key": keys[0] if keys else None,
                    "measures": [dict(measure) for measure in entry.get("measures") or ()],
                    "cube": (((entry.get("config") or {}).get("meta")) or {}).get("cube"),
                }
            )
        except ValueError as error:
            problems += _as_problems(error, path, entry)


def read_metric(path: Path, layer: str, text: str) -> MetricDefinition:
    """The one metric of a file as it would read with this text. Raises `DefinitionError`."""
    problems: list[Problem] = []
    found = list(_metrics(path, layer, problems, text))
    if problems:
        raise DefinitionError(problems)
    return found[0]


def _metrics(path: Path, layer: str, problems: list[Problem], text: str | None = None) -> Iterator[MetricDefinition]:
    for entry in _entries(path, "metrics", problems, text):
        common = {
            "id": entry.get("name"),
            "layer": layer,
            "label": entry.get("label"),
            "meta": (entry.get("config") or {}).get("meta"),
            "file": path,
            "line": entry.lc.line + 1,
        }
        try:
            _refuse_unknown(entry, _METRIC_KEYS)
            _refuse_unknown(entry.get("type_params") or {}, _PARAMETERS)
            definition = MetricDefinition.model_validate(
                {
                    **common,
                    "description": entry.get("description"),
                    **_formula(entry.get("type"), entry.get("type_params") or {}),
                }
            )
            if definition.meta.former:
                definition = definition.model_copy(update={"former": tuple(_former(definition))})
            if path.stem != definition.id:
                raise ValueError(f"metric {definition.id!r} must stand in a file named {definition.id}.yml")
            yield definition
        except ValueError as error:
            problems += _as_problems(error, path, entry)


_METRIC_KEYS = ("name", "label", "description", "type", "type_params", "config")
_PARAMETERS = (
    "measure",
    "numerator",
    "denominator",
    "expr",
    "metrics",
    "cumulative_type_params",
    "conversion_type_params",
)


def _refuse_unknown(content: Mapping[str, Any], known: Sequence[str]) -> None:
    """A key that means something elsewhere must not be passed over: with a `filter` the numbers would be others."""
    for key in content:
        if key not in known:
            mend = "; a condition belongs into a measure's `expr`" if key == "filter" else ""
            raise ValueError(f"key {key!r} is not read here; the keys are {', '.join(known)}{mend}")


def _former(definition: MetricDefinition) -> Iterator[tuple[date, MetricDefinition]]:
    """The definitions of a metric before it became what it is."""
    for one in definition.meta.former:
        texts = {"definition_zh": one.definition_zh} if one.definition_zh is not None else {}
        given = {
            **definition.model_dump(exclude={"former", "meta"}),
            "description": one.description or definition.description,
            "meta": definition.meta.model_copy(update={"former": (), **texts}),
            **_formula(one.type, one.type_params),
        }
        yield one.until, MetricDefinition.model_validate(given)


def _formula(kind: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """`type` and `type_params` of an entry as the fields of a definition."""
    return {
        "kind": kind,
        "measure": params.get("measure"),
        "numerator": params.get("numerator"),
        "denominator": params.get("denominator"),
        "expression": params.get("expr"),
        "terms": [_term(item) for item in params.get("metrics") or ()],
        "window_days": _window_days(params),
        "conversion": _conversion(params.get("conversion_type_params")),
    }


def _term(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return {"name": item}
    term = {key: value for key, value in item.items() if key != "offset_window"}
    if "offset_window" in item:
        term["days_before"] = _days(item["offset_window"], "offset_window")
    return term


def _window_days(params: Mapping[str, Any]) -> int | None:
    window = (params.get("cumulative_type_params") or {}).get("window")
    return None if window is None else _days(window, "cumulative window")


def _conversion(params: Mapping[str, Any] | None) -> Any:
    if params is None:
        return None
    found = {key: value for key, value in params.items() if key != "window"}
    if found.get("calculation", "conversion_rate") != "conversions":
        raise ValueError("`calculation` must be conversions; the rate is a ratio metric of it and its base")
    return {**found, "window_days": _days(params.get("window"), "conversion window")}


def _days(text: Any, what: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,3}) days?", str(text))
    if match is None:
        raise ValueError(f"{what} {text!r} must be a number of days, such as `28 days`")
    return int(match.group(1))


@lru_cache(maxsize=4096)
def _document(text: str) -> Any:
    """Parsed once per process and text, since a library is read many times; nobody changes what comes out."""
    return read_yaml(text)


def _entries(path: Path, key: str, problems: list[Problem], text: str | None = None) -> list[Any]:
    """The entries of a file; with `text` of what it would say."""
    try:
        document = _document(path.read_text("utf-8") if text is None else text)
    except FileNotFoundError:
        problems.append(Problem(path, 1, "the file is missing", f"Write it with a `{key}:` list"))
        return []
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(Problem(path, line, f"not valid YAML: {error.problem}", "Mend the indentation or quoting"))
        return []
    entries = document.get(key) if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        problems.append(Problem(path, 1, f"expected a list of mappings under `{key}:`", "Add it"))
        return []
    return entries


def _as_problems(error: ValueError, path: Path, entry: Any) -> list[Problem]:
    line = entry.lc.line + 1
    name = entry.get("name", "?")
    if isinstance(error, ValidationError):
        return [
            Problem(
                path,
                line,
                f"{name}: `{'.'.join(str(part) for part in detail['loc'])}`: {detail['msg']}",
                "Every metric needs the fields listed in CONTRIBUTING.md",
            )
            for detail in error.errors()
        ]
    return [Problem(path, line, f"{name}: {error}", "Mend this entry")]
