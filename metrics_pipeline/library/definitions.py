"""Metric definitions as they are written: the semantic-layer YAML of the dbt project, read and checked.

A definition is the only place of a formula. This module knows the shape of the files and says which file and line is
wrong; what the definitions mean together is `catalogue`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

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


class Cube(_Part):
    """How a semantic model is summed once (the keys are explained in `models/facts/_semantic.yml`)."""

    clock: Identifier
    tables: tuple[Identifier, ...] = Field(min_length=1)
    columns: Mapping[Identifier, str]
    slices: tuple[Slice, ...] = Field(min_length=1)
    hour_slices: tuple[Slice, ...] = ()
    distinct_slices: tuple[Slice, ...] | None = None
    sparse: tuple[Identifier, ...] = ()
    requires: Mapping[Identifier, tuple[str, ...]] = {}

    @model_validator(mode="after")
    def _slices_have_columns(self) -> Cube:
        for name in (*self.slices, *self.hour_slices, *(self.distinct_slices or ())):
            for dimension in dimensions_of(name):
                if dimension not in self.columns:
                    raise ValueError(f"slice {name!r}: `columns` does not say where {dimension!r} comes from")
        if "all" not in self.slices:
            raise ValueError("`slices` must contain all")
        return self


class SemanticModel(_Part):
    """One business process: its fact, its clock, its measures."""

    name: Identifier
    description: str
    fact: Identifier
    local_clock: Identifier
    measures: tuple[Measure, ...]
    cube: Cube


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


class MetricDefinition(_Part):
    """One metric as written in `models/<layer>/<id>.yml`."""

    id: Identifier
    layer: Literal["base", "operational", "strategic"]
    label: str = Field(min_length=1)
    description: str = Field(min_length=1)
    kind: Literal["simple", "ratio", "derived", "cumulative"]
    measure: Identifier | None = None
    numerator: Identifier | None = None
    denominator: Identifier | None = None
    expression: str | None = None
    inputs: tuple[Identifier, ...] = ()
    window_days: int | None = None
    meta: MetricMeta
    file: Path
    line: int


@dataclass(frozen=True)
class Definitions:
    """All definitions of a project, in file order."""

    project_dir: Path
    semantic_models: tuple[SemanticModel, ...]
    metrics: tuple[MetricDefinition, ...]


def dimensions_of(slice_: str) -> tuple[str, ...]:
    """The dimensions of a slice: `all` → (), `region` → (region,), `region|channel` → (region, channel)."""
    return () if slice_ == "all" else tuple(slice_.split("|"))


def read_definitions(project_dir: Path) -> Definitions:
    """Read every semantic model and metric below `project_dir`.

    Raises `DefinitionError` with all problems (file, line, what to do) when any definition cannot be used.
    """
    problems: list[Problem] = []
    semantic_models = list(_semantic_models(project_dir, problems))
    metrics: list[MetricDefinition] = []
    for layer in LAYERS:
        for path in sorted((project_dir / "models" / layer).glob("[!_]*.yml")):
            metrics += _metrics(path, layer, problems)
    if problems:
        raise DefinitionError(problems)
    return Definitions(project_dir, tuple(semantic_models), tuple(metrics))


def _semantic_models(project_dir: Path, problems: list[Problem]) -> Iterator[SemanticModel]:
    path = project_dir / SEMANTIC_FILE
    for entry in _entries(path, "semantic_models", problems):
        try:
            fact = re.fullmatch(r"ref\('(\w+)'\)", str(entry.get("model", "")))
            if fact is None:
                raise ValueError("`model` must be ref('<fact>')")
            yield SemanticModel.model_validate(
                {
                    "name": entry.get("name"),
                    "description": entry.get("description", ""),
                    "fact": fact.group(1),
                    "local_clock": (entry.get("defaults") or {}).get("agg_time_dimension"),
                    "measures": [dict(measure) for measure in entry.get("measures") or ()],
                    "cube": (((entry.get("config") or {}).get("meta")) or {}).get("cube"),
                }
            )
        except ValueError as error:
            problems += _as_problems(error, path, entry)


def _metrics(path: Path, layer: str, problems: list[Problem]) -> Iterator[MetricDefinition]:
    for entry in _entries(path, "metrics", problems):
        params = entry.get("type_params") or {}
        try:
            definition = MetricDefinition.model_validate(
                {
                    "id": entry.get("name"),
                    "layer": layer,
                    "label": entry.get("label"),
                    "description": entry.get("description"),
                    "kind": entry.get("type"),
                    "measure": params.get("measure"),
                    "numerator": params.get("numerator"),
                    "denominator": params.get("denominator"),
                    "expression": params.get("expr"),
                    "inputs": [_input_name(item) for item in params.get("metrics") or ()],
                    "window_days": _window_days(params),
                    "meta": (entry.get("config") or {}).get("meta"),
                    "file": path,
                    "line": entry.lc.line + 1,
                }
            )
            if path.stem != definition.id:
                raise ValueError(f"metric {definition.id!r} must stand in a file named {definition.id}.yml")
            yield definition
        except ValueError as error:
            problems += _as_problems(error, path, entry)


def _input_name(item: Any) -> Any:
    return item.get("name") if isinstance(item, Mapping) else item


def _window_days(params: Mapping[str, Any]) -> int | None:
    window = (params.get("cumulative_type_params") or {}).get("window")
    if window is None:
        return None
    match = re.fullmatch(r"(\d+) days?", str(window))
    if match is None:
        raise ValueError(f"cumulative window {window!r} must be a number of days, such as `28 days`")
    return int(match.group(1))


def _entries(path: Path, key: str, problems: list[Problem]) -> list[Any]:
    try:
        document = YAML(typ="rt").load(path.read_text("utf-8"))
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
