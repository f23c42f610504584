"""dbt's semantic layer: the library's definitions as one portable file, and metrics of other projects as ours.

The library's own files are this format already. A file for others holds the metrics, all they are made of, and the
semantic models with the measures they need; the layer, which is a folder here, stands in `config.meta`. Of a file of
others, measures are recognised by what they are (fact, clock, aggregate, expression) and not by what they are called.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.definitions import LAYERS, SEMANTIC_FILE, Problem
from metrics_pipeline.library.interchange import (
    LAYER_KEY,
    Incoming,
    Reading,
    measures_in,
    with_inputs,
    written_entries,
    written_models,
    yaml_text,
)
from metrics_pipeline.yaml_values import MarkedYAMLError, plain, read_yaml

_READ_HERE = ("version", "semantic_models", "metrics")
_METRIC_KEYS = ("name", "label", "description", "type", "type_params", "config", "meta")
_MEASURE_KEYS = ("measure", "base_measure", "conversion_measure")
_BASE_KINDS = ("simple", "cumulative", "conversion")


class _Identity(NamedTuple):
    """What a measure is."""

    fact: str
    clock: str
    agg: str
    expr: str

    def __str__(self) -> str:
        return f"{self.agg} of {self.expr} in {self.fact} by {self.clock}"


def export_dbt(catalogue: Catalogue, metrics: Collection[str] = ()) -> str:
    """The metrics (default: all), with all they are made of, as one file for the `models/` folder of a dbt project."""
    names = with_inputs(catalogue, metrics or tuple(catalogue.metrics))
    entries = [_with_layer(entry, catalogue) for entry in written_entries(catalogue, names)]
    wanted = measures_in(entries)
    models = []
    for model in written_models(catalogue):
        kept = [measure for measure in model["measures"] if measure["name"] in wanted]
        if kept:
            models.append({**model, "measures": kept})
    facts = ", ".join(re.sub(r"\W*ref\W*(\w+)\W*", r"\1", str(model["model"])) for model in models)
    header = (
        "Metric definitions in the words of dbt's semantic layer, written by `metrics library export --format dbt`.\n"
        f"The project that takes them needs these models, and a time spine by day: {facts}."
    )
    return yaml_text({"version": 2, "semantic_models": models, "metrics": entries}, header)


def read_dbt(path: Path, catalogue: Catalogue) -> Reading:
    """The metrics of a file in the library's words. What cannot be said in them is a problem with file, line and mend."""
    return _Reader(path, catalogue).read()


def _with_layer(entry: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    meta = {LAYER_KEY: catalogue.metrics[entry["name"]].layer, **entry["config"]["meta"]}
    return {**entry, "config": {**entry["config"], "meta": meta}}


class _Reader:
    def __init__(self, path: Path, catalogue: Catalogue) -> None:
        self._path = path
        self._catalogue = catalogue
        self._problems: list[Problem] = []
        self._notes: list[str] = []
        self._ours = {
            _Identity(model.fact, model.local_clock, measure.agg, _spaced(measure.expr)): measure.name
            for model in catalogue.definitions.semantic_models
            for measure in model.measures
        }
        self._theirs: dict[str, _Identity] = {}

    def read(self) -> Reading:
        document = load_document(self._path, self._problems)
        if document is None:
            return Reading((), tuple(self._problems))
        for key in document:
            if key not in _READ_HERE:
                self._notes.append(f"`{key}` is not part of a metric definition and was left out")
        for model in self._list(document, "semantic_models"):
            self._theirs |= self._measures(model)
        if not document.get("metrics"):
            self._problem(document, 0, "there are no metrics in it", "Give a file with a `metrics:` list")
        incoming = [one for entry in self._list(document, "metrics") if (one := self._incoming(entry)) is not None]
        return Reading(tuple(incoming), tuple(self._problems), tuple(self._notes))

    def _list(self, document: Mapping[str, Any], key: str) -> Iterator[Any]:
        found = document.get(key)
        if found is None:
            return
        if not isinstance(found, list):
            self._problem(document, 0, f"`{key}` is no list", "Write a list of mappings under it")
            return
        for entry in found:
            if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                yield entry
            else:
                self._problem(found, 0, f"an entry of `{key}` is no mapping with a name", "Write `- name: …`")

    def _measures(self, model: Mapping[str, Any]) -> dict[str, _Identity]:
        fact = re.fullmatch(r"\s*ref\(\s*['\"](\w+)['\"]\s*\)\s*", str(model.get("model", "")))
        default = (model.get("defaults") or {}).get("agg_time_dimension")
        found = {}
        for measure in model.get("measures") or ():
            if isinstance(measure, Mapping) and isinstance(measure.get("name"), str):
                found[str(measure["name"])] = _Identity(
                    fact.group(1) if fact else str(model.get("model")),
                    str(measure.get("agg_time_dimension") or default),
                    str(measure.get("agg")),
                    _spaced(str(measure.get("expr") or measure["name"])),
                )
        return found

    def _incoming(self, entry: Any) -> Incoming | None:
        name = str(entry["name"])
        before = len(self._problems)
        for key, value in entry.items():
            if key not in _METRIC_KEYS and value not in (None, [], {}):
                self._refuse(entry, name, key, "take it away, or define a measure or metric that has it inside")
        kind = str(entry.get("type"))
        params = plain(entry.get("type_params") or {})
        params = self._translated(entry, name, kind, params) if isinstance(params, dict) else {}
        config = plain(entry.get("config") or {})
        meta = dict((config.get("meta") if isinstance(config, dict) else None) or plain(entry.get("meta") or {}))
        layer = meta.pop(LAYER_KEY, None)
        if layer is None:
            known = self._catalogue.metrics.get(name)
            layer = known.layer if known else "base" if kind in _BASE_KINDS else "operational"
            self._notes.append(f"{name}: no `config.meta.{LAYER_KEY}`; taken as {layer}")
        if layer not in LAYERS:
            self._problem(entry, 0, f"{name}: unknown layer {layer!r}", f"Write one of: {', '.join(LAYERS)}")
        if len(self._problems) > before:
            return None
        ours = {
            "name": name,
            "label": entry.get("label") and str(entry["label"]),
            "description": entry.get("description") and str(entry["description"]),
            "type": kind,
            "type_params": params,
            "config": {"meta": meta},
        }
        return Incoming(name, str(layer), plain(ours), self._path, _line(entry))

    def _translated(self, entry: Any, name: str, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        """`type_params` with our measures in place of theirs, and nothing the library cannot do."""
        found = {key: value for key, value in params.items() if value not in (None, [], {})}
        if "window" in found:  # where dbt had it before cumulative_type_params
            found.setdefault("cumulative_type_params", {})["window"] = found.pop("window")
        for key in ("numerator", "denominator"):
            if key in found:
                found[key] = self._named(entry, name, key, found[key])
        if "measure" in found:
            found["measure"] = self._measure(entry, name, found["measure"])
        for part in ("cumulative_type_params", "conversion_type_params"):
            inner = found.get(part)
            if isinstance(inner, dict):
                inner = {key: value for key, value in inner.items() if value not in (None, [], {})}
                for key in _MEASURE_KEYS:
                    if key in inner:
                        inner[key] = self._measure(entry, name, inner[key])
                for key in ("grain_to_date", "period_agg", "constant_properties"):
                    if key in inner:
                        self._refuse(entry, name, f"{part}.{key}", "use a window of days instead")
                found[part] = inner
        if isinstance(found.get("metrics"), list):
            found["metrics"] = [self._term(entry, name, term) for term in found["metrics"]]
        for key in found.keys() - {
            "measure", "numerator", "denominator", "expr", "metrics", "cumulative_type_params", "conversion_type_params",
        }:  # fmt: skip
            self._refuse(entry, name, f"type_params.{key}", "take it away")
        return found

    def _term(self, entry: Any, name: str, term: Any) -> Any:
        if not isinstance(term, dict):
            return {"name": str(term)}
        kept = {key: value for key, value in term.items() if value not in (None, [], {})}
        for key in kept.keys() - {"name", "alias", "offset_window"}:
            self._refuse(entry, name, f"metrics.{key}", "define a metric that has it inside, and use that one")
        return kept

    def _named(self, entry: Any, name: str, key: str, value: Any) -> Any:
        """A metric or measure given by name, or as a mapping with a name and nothing else."""
        if not isinstance(value, dict):
            return value
        for extra, given in value.items():
            if extra != "name" and given not in (None, False, [], {}):
                self._refuse(entry, name, f"{key}.{extra}", "define a measure or metric that has it inside")
        return value.get("name")

    def _measure(self, entry: Any, name: str, value: Any) -> Any:
        theirs = self._named(entry, name, "measure", value)
        identity = self._theirs.get(str(theirs))
        own = {measure: one for one, measure in self._ours.items()}
        if identity is None:
            if theirs not in own:
                self._unknown_measure(entry, name, f"measure {theirs!r}", str(theirs))
            return theirs
        ours = self._ours.get(identity)
        if ours is None:
            differs = f", and {theirs} here is the {own[str(theirs)]}" if theirs in own else ""
            self._unknown_measure(entry, name, f"its measure {theirs!r} ({identity}){differs}", str(theirs))
        elif ours != theirs:
            self._notes.append(f"{name}: measure {theirs} is our {ours} ({identity})")
        return ours or theirs

    def _unknown_measure(self, entry: Any, name: str, what: str, nearest: str) -> None:
        near = get_close_matches(nearest, list(self._ours.values()), n=3)
        hint = f" (perhaps {' or '.join(near)})" if near else ""
        self._problem(
            entry,
            0,
            f"{name}: {what} is none of ours",
            f"Use one of ours{hint}, or add it to {SEMANTIC_FILE.as_posix()}",
        )

    def _refuse(self, entry: Any, name: str, key: str, mend: str) -> None:
        self._problem(entry, 0, f"{name}: `{key}` cannot be kept: the library has no such thing", mend.capitalize())

    def _problem(self, at: Any, offset: int, message: str, mend: str) -> None:
        self._problems.append(Problem(self._path, _line(at) + offset, message, mend))


def load_document(path: Path, problems: list[Problem]) -> Any:
    """A YAML (or JSON) file as a mapping that knows its lines; None with a problem when it is none."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problems.append(Problem(path, 1, f"cannot be read: {reason}", "Name a YAML file"))
        return None
    try:
        document = read_yaml(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problems.append(Problem(path, line, f"not valid YAML: {error.problem}", "Mend the indentation or quoting"))
        return None
    if not isinstance(document, Mapping):
        problems.append(Problem(path, 1, "expected a mapping with `metrics:`", "Give a file with a `metrics:` list"))
        return None
    return document


def _line(entry: Any) -> int:
    return int(entry.lc.line) + 1 if hasattr(entry, "lc") else 1


def _spaced(expr: str) -> str:
    """An expression without its line breaks and double spaces."""
    return " ".join(expr.split())
