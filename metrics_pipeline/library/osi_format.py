"""Open Semantic Interchange (core specification 0.1.1, github.com/open-semantic-interchange/OSI), as far as it reaches.

OSI knows datasets with fields, and metrics as one aggregate SQL expression over fields. It knows no clock of a metric,
no windows, no earlier periods and no conversions: metrics that need these are left out, each with the reason. What it
has no word for but lets vendors add (`custom_extensions`) carries our definition, so that a file of ours read back gives
the same definitions; an expression that was changed in between is noticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from metrics_pipeline.library.catalogue import Catalogue, formula_of
from metrics_pipeline.library.dbt_format import load_document
from metrics_pipeline.library.definitions import LAYERS, Measure, MetricDefinition, Problem, SemanticModel
from metrics_pipeline.library.formula import FormulaError, formula_text
from metrics_pipeline.library.interchange import (
    LAYER_KEY,
    Incoming,
    Reading,
    with_inputs,
    written_entries,
    written_models,
    yaml_text,
)
from metrics_pipeline.yaml_values import plain

VERSION = "0.1.1"
DIALECT = "ANSI_SQL"
VENDOR = "METRICS_PIPELINE"
MODEL_NAME = "ecommerce_metrics"
_COLUMN = re.compile(r"[a-zA-Z_]\w*")


class _Element(BaseModel):
    model_config = ConfigDict(extra="ignore")


Kind = TypeVar("Kind", bound=_Element)


class DialectExpression(_Element):
    dialect: str
    expression: str


class Expression(_Element):
    dialects: list[DialectExpression] = Field(min_length=1)

    @property
    def ansi(self) -> str | None:
        """The expression in standard SQL."""
        return next((one.expression for one in self.dialects if one.dialect == DIALECT), None)


class Extension(_Element):
    vendor_name: str
    data: str


class OsiField(_Element):
    name: str
    expression: Expression


class Dataset(_Element):
    name: str
    source: str
    fields: list[OsiField] = []


class OsiMetric(_Element):
    name: str
    expression: Expression
    description: str | None = None
    custom_extensions: list[Extension] = []


@dataclass(frozen=True)
class OsiExport:
    """A file, and what of the library it does not say."""

    text: str
    left_out: Mapping[str, str]
    """Metric → why OSI cannot express it."""
    notes: Mapping[str, tuple[str, ...]]
    """Metric that is in the file → what of it only our extension says."""


class NotExpressible(ValueError):
    """A metric that OSI has no words for; the message says what is missing."""


def export_osi(catalogue: Catalogue, metrics: Collection[str] = ()) -> OsiExport:
    """The metrics (default: all), with all they are made of, as an OSI document."""
    names = with_inputs(catalogue, metrics or tuple(catalogue.metrics))
    unfolding = _Unfolding(catalogue)
    left_out: dict[str, str] = {}
    written = []
    for entry in written_entries(catalogue, names):
        name = entry["name"]
        try:
            expression = unfolding.expression(name)
        except NotExpressible as error:
            left_out[name] = str(error)
            continue
        written.append(_metric(entry, expression, catalogue))
    kept = [metric["name"] for metric in written]
    document = {
        "version": VERSION,
        "semantic_model": [
            {
                "name": MODEL_NAME,
                "description": "Metrics of a shop, by the time at which their events happened, in shop time.",
                "datasets": _datasets(catalogue, {name for metric in kept for name in unfolding.measures(metric)}),
                "metrics": written,
            }
        ],
    }
    header = "Open Semantic Interchange, written by `metrics library export --format osi`."
    notes = {name: found for name in kept if (found := tuple(_notes(catalogue, name)))}
    return OsiExport(yaml_text(document, header), left_out, notes)


def read_osi(path: Path, catalogue: Catalogue) -> Reading:
    """The metrics of an OSI document in the library's words, with every problem by file, line and mend."""
    problems: list[Problem] = []
    notes: list[str] = []
    document = load_document(path, problems)
    if document is None:
        return Reading((), tuple(problems))
    version = str(document.get("version", ""))
    if not version.startswith("0.1"):
        problems.append(Problem(path, 1, f"OSI version {version or 'unknown'}", f"This reads version {VERSION}"))
        return Reading((), tuple(problems))
    incoming: list[Incoming] = []
    given: dict[str, tuple[str, int]] = {}
    for model in document.get("semantic_model") or ():
        if not isinstance(model, Mapping):
            problems.append(Problem(path, 1, "`semantic_model` holds no mappings", "Write `- name: …` with datasets"))
            continue
        reader = _ModelReader(path, catalogue, model, problems, notes)
        incoming += reader.read(given)
    if not incoming and not problems:
        problems.append(Problem(path, 1, "there are no metrics in it", "Give a document whose model has `metrics:`"))

    def check(merged: Catalogue) -> Iterator[Problem]:
        """Whether each expression is what its definition means."""
        unfolding = _Unfolding(merged)
        for name, (expression, line) in given.items():
            try:
                meant = unfolding.expression(name)
            except NotExpressible as error:
                meant = f"not expressible ({error})"
            if _plain_sql(meant) != _plain_sql(expression):
                yield Problem(
                    path,
                    line,
                    f"{name}: its expression is {expression!r}, but its definition means {meant!r}",
                    f"Change the definition in the {VENDOR} extension as well, or take the extension away",
                )

    return Reading(tuple(incoming), tuple(problems), tuple(notes), check)


class _Unfolding:
    """Metrics as aggregates over fields."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._definitions = {one.id: one for one in catalogue.definitions.metrics}
        self._measures = {
            measure.name: (model, measure)
            for model in catalogue.definitions.semantic_models
            for measure in model.measures
        }

    def expression(self, name: str) -> str:
        """The whole metric as one SQL expression. Raises `NotExpressible`."""
        definition = self._definitions[name]
        if definition.kind == "simple":
            return aggregate_sql(*self._measures[definition.measure or ""])
        return self._composite(definition)

    def measures(self, name: str) -> set[str]:
        """The measures it comes down to."""
        definition = self._definitions[name]
        inputs = (definition.numerator, definition.denominator, *definition.inputs)
        below = [self.measures(one) for one in inputs if one]
        return {one for one in (definition.measure,) if one}.union(*below)

    def _composite(self, definition: MetricDefinition) -> str:
        match definition.kind:
            case "cumulative":
                raise NotExpressible(f"a moving window of {definition.window_days} days")
            case "conversion":
                raise NotExpressible("a conversion between events of two facts")
        earlier = [term.name for term in definition.terms if term.days_before]
        if earlier:
            raise NotExpressible(f"a value of earlier days ({', '.join(earlier)})")
        names = {term.column: term.name for term in definition.terms}
        try:
            node = formula_of(definition)
        except FormulaError as error:
            raise NotExpressible(str(error)) from None
        if node is None:
            raise NotExpressible(f"a metric of type {definition.kind}")
        return formula_text(node, lambda column: self._part(names.get(column, column)))

    def _part(self, name: str) -> str:
        """An input within a formula; as a floating-point number, since counts are divided."""
        definition = self._definitions[name]
        if definition.kind == "simple":
            return f"CAST({self.expression(name)} AS DOUBLE PRECISION)"
        try:
            return f"({self.expression(name)})"
        except NotExpressible as error:
            reason = str(error)
            raise NotExpressible(reason if ", by way of " in reason else f"{reason}, by way of {name}") from None


def aggregate_sql(model: SemanticModel, measure: Measure) -> str:
    """A measure over the fields of its dataset."""
    field = f"{model.name}.{_field_name(model, measure)}"
    match measure.agg:
        case "count":
            return f"COUNT({field})"
        case "count_distinct":
            return f"COUNT(DISTINCT {field})"
        case "sum_boolean":
            return f"SUM(CASE WHEN {field} THEN 1 ELSE 0 END)"
        case _:
            return f"SUM({field})"


def _field_name(model: SemanticModel, measure: Measure) -> str:
    """A column is a field of its own name; an expression one named after the measure."""
    if _COLUMN.fullmatch(measure.expr):
        return measure.expr
    columns = {one.expr for one in model.measures}
    return f"{measure.name}_of_row" if measure.name in columns else measure.name


def _metric(entry: Mapping[str, Any], expression: str, catalogue: Catalogue) -> dict[str, Any]:
    metric = catalogue.metrics[entry["name"]]
    definition = {**entry, "config": {**entry["config"], "meta": {LAYER_KEY: metric.layer, **entry["config"]["meta"]}}}
    data = json.dumps({"definition": definition, "version": metric.version}, ensure_ascii=False, default=str)
    return {
        "name": metric.id,
        "expression": _expression(expression),
        "description": metric.definition_en,
        "ai_context": {"synonyms": [metric.name_en, metric.name_zh], "instructions": metric.definition_zh},
        "custom_extensions": [{"vendor_name": VENDOR, "data": data}],
    }


def _expression(sql: str) -> dict[str, Any]:
    return {"dialects": [{"dialect": DIALECT, "expression": sql}]}


def _datasets(catalogue: Catalogue, measures: Collection[str]) -> list[dict[str, Any]]:
    written = {model["name"]: model for model in written_models(catalogue)}
    found = []
    for model in catalogue.definitions.semantic_models:
        used = [measure for measure in model.measures if measure.name in measures]
        if not used:
            continue
        fields: dict[str, dict[str, Any]] = {}
        for dimension in written[model.name].get("dimensions") or ():
            fields[dimension["name"]] = {
                "name": dimension["name"],
                "expression": _expression(dimension.get("expr") or dimension["name"]),
                "dimension": {"is_time": dimension["type"] == "time"},
            }
        for measure in used:
            name = _field_name(model, measure)
            fields.setdefault(name, {"name": name, "expression": _expression(measure.expr)})
        dataset: dict[str, Any] = {"name": model.name, "source": f"facts.{model.fact}"}
        if model.key and _COLUMN.fullmatch(model.key):
            dataset["primary_key"] = [model.key]
        found.append({**dataset, "description": model.description, "fields": list(fields.values())})
    return found


def _notes(catalogue: Catalogue, name: str) -> Iterator[str]:
    metric = catalogue.metrics[name]
    if len(metric.clocks) > 1:
        clocks = ", ".join(clock.en for clock in metric.clocks)
        yield f"its parts go by different times ({clocks})"
    if metric.former:
        yield f"it was defined otherwise before {metric.former[-1][0]}"


class _ModelReader:
    """The metrics of one semantic model of a document."""

    def __init__(
        self, path: Path, catalogue: Catalogue, model: Mapping[str, Any], problems: list[Problem], notes: list[str]
    ) -> None:
        self._path, self._catalogue, self._model = path, catalogue, model
        self._problems, self._notes = problems, notes
        self._fields: dict[tuple[str, str], str] = {}
        for entry in model.get("datasets") or ():
            dataset = self._valid(Dataset, entry)
            if dataset is None:
                continue
            fact = dataset.source.rpartition(".")[2]
            for field in dataset.fields:
                self._fields[dataset.name, field.name] = f"{fact}.({field.expression.ansi or field.name})"
            if isinstance(entry, Mapping) and entry.get("metrics"):
                self._notes.append(
                    f"dataset {dataset.name}: its own `metrics` are not part of {VERSION} and were left out"
                )
        simple = {one.measure: one.id for one in catalogue.definitions.metrics if one.kind == "simple" and one.measure}
        self._measures = {
            _plain_sql(_over_fact(model, measure)): (measure.name, simple.get(measure.name))
            for model in catalogue.definitions.semantic_models
            for measure in model.measures
        }

    def read(self, given: dict[str, tuple[str, int]]) -> Iterator[Incoming]:
        """The metrics that can be tried; `given` gets each one's expression and line where it must be compared."""
        for entry in self._model.get("metrics") or ():
            metric = self._valid(OsiMetric, entry)
            if metric is None:
                continue
            line = _line(entry)
            sql = metric.expression.ansi
            if sql is None:
                self._problem(line, f"{metric.name}: no expression in {DIALECT}", f"Add one in {DIALECT}")
                continue
            ours = self._ours(metric, line)
            if ours is None:
                continue
            if "type" in ours:
                given[metric.name] = (sql, line)
            else:
                formula = self._formula(metric.name, sql, line)
                if formula is None:
                    continue
                ours = {"name": metric.name, "description": metric.description, **ours, **formula}
            config = dict(ours.get("config") or {})
            meta = dict(config.get("meta") or {})
            layer = meta.pop(LAYER_KEY, None) or ("base" if ours["type"] == "simple" else "operational")
            if layer not in LAYERS:
                self._problem(line, f"{metric.name}: unknown layer {layer!r}", f"Write one of: {', '.join(LAYERS)}")
                continue
            yield Incoming(
                metric.name, layer, {**ours, "name": metric.name, "config": {**config, "meta": meta}}, self._path, line
            )

    def _ours(self, metric: OsiMetric, line: int) -> dict[str, Any] | None:
        """The definition in our extension, {} where there is none; None with a problem when it cannot be read."""
        for extension in metric.custom_extensions:
            if extension.vendor_name != VENDOR:
                continue
            try:
                data = json.loads(extension.data)
            except ValueError:
                data = None
            definition = data.get("definition") if isinstance(data, dict) else None
            if not isinstance(definition, dict):
                self._problem(
                    line,
                    f"{metric.name}: the {VENDOR} extension is no JSON object with a `definition`",
                    "Take the extension away, or export the metric anew",
                )
                return None
            return definition
        return {}

    def _formula(self, name: str, sql: str, line: int) -> dict[str, Any] | None:
        """What an expression of others is in our words: one of our measures, or a ratio of two of our metrics."""
        found = self._measures.get(self._resolved(sql))
        if found is not None:
            return {"type": "simple", "type_params": {"measure": found[0]}}
        parts = _at_top_level(sql, "/")
        if len(parts) == 2:
            sides = [self._measures.get(self._resolved(_bare(part)), (None, None))[1] for part in parts]
            if all(sides):
                return {"type": "ratio", "type_params": {"numerator": sides[0], "denominator": sides[1]}}
        self._problem(
            line,
            f"{name}: {sql!r} is neither a measure of ours nor a ratio of two of our metrics",
            "Write it as an aggregate of a field of one of our facts (`metrics library export --format osi` shows them), "
            "or compose it from our metrics with `metrics library compose`",
        )
        return None

    def _resolved(self, sql: str) -> str:
        def replaced(match: re.Match[str]) -> str:
            return self._fields.get((match.group(1), match.group(2)), match.group(0))

        return _plain_sql(re.sub(r"\b([a-zA-Z_]\w*)\.([a-zA-Z_]\w*)\b", replaced, sql))

    def _valid(self, kind: type[Kind], entry: Any) -> Kind | None:
        try:
            return kind.model_validate(plain(entry))
        except ValidationError as error:
            name = entry.get("name", "?") if isinstance(entry, Mapping) else "?"
            for detail in error.errors():
                place = ".".join(str(part) for part in detail["loc"])
                self._problem(
                    _line(entry), f"{name}: `{place}`: {detail['msg']}", f"See the core specification of OSI {VERSION}"
                )
            return None

    def _problem(self, line: int, message: str, mend: str) -> None:
        self._problems.append(Problem(self._path, line, message, mend))


def _over_fact(model: SemanticModel, measure: Measure) -> str:
    """The aggregate with its fact and expression written out, to be recognised by."""
    return aggregate_sql(model, measure).replace(
        f"{model.name}.{_field_name(model, measure)}", f"{model.fact}.({measure.expr})"
    )


def _bare(sql: str) -> str:
    """Without what only makes a division safe or exact: `1.0 *`, a cast to a number, NULLIF(…, 0), outer parentheses."""
    text = sql.strip()
    patterns = (
        r"1\.0\s*\*\s*(.*)",
        r"CAST\s*\((.*)\s+AS\s+(?:DOUBLE PRECISION|DOUBLE|FLOAT|NUMERIC|DECIMAL(?:\([\d, ]+\))?)\s*\)",
        r"NULLIF\s*\((.*),\s*0(?:\.0)?\s*\)",
        r"\((.*)\)",
    )
    while True:
        for pattern in patterns:
            match = re.fullmatch(pattern, text, re.IGNORECASE | re.DOTALL)
            if match and _is_balanced(match.group(1)):
                text = match.group(1).strip()
                break
        else:
            return text


def _is_balanced(sql: str) -> bool:
    depth = 0
    for letter in sql:
        depth += (letter == "(") - (letter == ")")
        if depth < 0:
            return False
    return depth == 0


def _at_top_level(sql: str, sign: str) -> list[str]:
    """The text cut at every `sign` that stands in no parentheses."""
    parts, depth = [""], 0
    for letter in sql:
        depth += (letter == "(") - (letter == ")")
        if letter == sign and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _plain_sql(sql: str) -> str:
    """One writing for the same SQL: lower case and no spaces to spare, texts in quotes as they are."""
    pieces = re.split(r"('(?:[^']|'')*')", sql)
    return "".join(
        piece if number % 2 else re.sub(r"\s*([(),/*+<>=-])\s*", r"\1", re.sub(r"\s+", " ", piece)).lower()
        for number, piece in enumerate(pieces)
    ).strip()


def _line(entry: Any) -> int:
    return int(entry.lc.line) + 1 if hasattr(entry, "lc") else 1


Format = Literal["dbt", "osi"]


def format_of(path: Path) -> Format:
    """Which format a file is in, by its first words: OSI documents have `semantic_model:`, dbt's `semantic_models:`."""
    ignored: list[Problem] = []
    document = load_document(path, ignored)
    return "osi" if isinstance(document, Mapping) and "semantic_model" in document else "dbt"
