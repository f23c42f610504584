"""A change of a definition as text: the metric's file, and its target, as they would be; nothing is written here.

Where the change gives values another meaning, the former definition stays in the file under `config.meta.former` with
the day on which it ends, so that earlier periods keep it (docs/versions.md).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.definitions import (
    SEMANTIC_FILE,
    Definitions,
    MetricDefinition,
    read_metric,
    read_semantic_models,
)
from metrics_pipeline.library.formula import FormulaError, input_names, parse_formula
from metrics_pipeline.library.measures import ChangeError, with_measure
from metrics_pipeline.library.versions import TARGETS_FILE, Targets, read_targets, targets_of

TEXT_FIELDS = ("label", "description")
META_FIELDS = (
    "name_zh", "definition_zh", "unit", "direction", "stage", "category", "owner", "business_line", "sensitivity",
    "freshness_hours",
)  # fmt: skip
FORMULA_FIELDS = ("formula", "numerator", "denominator", "measure", "expr", "days")
TARGET = "target"
FIELDS = (*FORMULA_FIELDS, *TEXT_FIELDS, *META_FIELDS, TARGET)
_ID = r"[a-z][a-z0-9_]*"


@dataclass(frozen=True)
class Change:
    """A metric as it is and as it would be."""

    metric: str
    path: Path
    text: str
    """The file of the metric as it would be."""
    targets_text: str | None
    """The seed of targets as it would be; None = as it is."""
    before: Catalogue
    after: Catalogue
    targets_before: Targets
    targets: Targets
    others: Mapping[Path, str] = field(default_factory=dict)
    """Other definitions that change with it, as they would be: the measures, and moving sums over the metric."""

    @property
    def changes_values(self) -> bool:
        """Whether values get another meaning, and another version."""
        return self.before.metrics[self.metric].version != self.after.metrics[self.metric].version


def change(project_dir: Path, metric: str, given: Mapping[str, str], effective: date) -> Change:
    """What the files would be with these fields changed from the day `effective` on.

    Raises `ChangeError`, or `DefinitionError` when the outcome is no usable definition.
    """
    if wrong := [name for name in given if name not in FIELDS]:
        raise ChangeError(f"{', '.join(wrong)} cannot be set; there are: {', '.join(FIELDS)}")
    before = Catalogue.read(project_dir)
    targets = read_targets(project_dir)
    known = before.metrics[metric]
    written = known.file.read_text("utf-8")
    fields = {name: value for name, value in given.items() if name != TARGET}
    others: dict[Path, str] = {}
    if "expr" in fields:
        others[project_dir / SEMANTIC_FILE], fields["measure"] = _new_measure(before, metric, fields.pop("expr"))
    text = _edited(written, metric, lambda entry: _set(entry, fields, before)) if fields else written
    if "measure" in fields and before.written[metric].kind == "simple":
        others |= _moving_sums(before, before.written[metric].measure or "", fields["measure"].strip())
    after = _with(before, metric, text, others)
    if after.metrics[metric].version != known.version:
        if known.former and known.former[-1][0] >= effective:
            raise ChangeError(
                f"{metric} changes on {known.former[-1][0]} already; let this change begin on a later day than that"
            )
        text = _edited(text, metric, lambda entry: _keep_former(entry, _entry(written, metric), effective))
        after = _with(before, metric, text, others)
    targets_text = None
    if TARGET in given:
        targets_text = _with_target(project_dir / TARGETS_FILE, metric, given[TARGET], effective)
    same = text == written and targets_text is None
    if same:
        raise ChangeError(f"that is how {metric} is defined already; nothing would change")
    return Change(
        metric, known.file, text, targets_text, before, after, targets,
        targets if targets_text is None else targets_of(targets_text), others,
    )  # fmt: skip


def restatement(project_dir: Path, metric: str, first: date) -> Change:
    """What the files would be if the newest definition of a metric were also that of the days from `first` on.

    Raises `ChangeError` when it is that of these days already.
    """
    before = Catalogue.read(project_dir)
    known = before.metrics[metric]
    if not known.former:
        raise ChangeError(f"{metric} has one definition for all days; there is nothing to restate")
    if first >= known.former[-1][0]:
        raise ChangeError(
            f"days from {known.former[-1][0]} on have the newest definition of {metric} already; "
            "give --from a day before that"
        )
    text = _edited(known.file.read_text("utf-8"), metric, lambda entry: _move(entry, first))
    targets = read_targets(project_dir)
    return Change(metric, known.file, text, None, before, _with(before, metric, text, {}), targets, targets)


def _with(catalogue: Catalogue, metric: str, text: str, others: Mapping[Path, str]) -> Catalogue:
    """The catalogue with a metric's file, and others, replaced. Raises `DefinitionError`."""
    definitions = catalogue.definitions
    drafts = {**others, catalogue.metrics[metric].file: text}
    semantic = drafts.get(definitions.project_dir / SEMANTIC_FILE)

    def now(one: MetricDefinition) -> MetricDefinition:
        draft = drafts.get(one.file)
        return one if draft is None else read_metric(one.file, one.layer, draft)

    models = definitions.semantic_models
    return Catalogue.of(
        Definitions(
            definitions.project_dir,
            models if semantic is None else read_semantic_models(definitions.project_dir, semantic),
            tuple(map(now, definitions.metrics)),
        )
    )


def _new_measure(catalogue: Catalogue, metric: str, expression: str) -> tuple[str, str]:
    """The file of measures with one more beside that of a metric, and its name."""
    definition = catalogue.written[metric]
    if definition.kind != "simple" or definition.measure is None:
        raise ChangeError(f"{metric} is {definition.kind}: it counts no column itself; set formula")
    return with_measure(catalogue, definition.measure, expression)


def _moving_sums(catalogue: Catalogue, former: str, measure: str) -> dict[Path, str]:
    """The files of what sums or follows a measure when its metric has another one; it stays the sum of the metric."""
    found = {}
    for one in catalogue.definitions.metrics:
        if one.conversion is not None and one.conversion.base_measure == former:
            raise ChangeError(
                f"{one.id} is a conversion that begins with {former}, and the definition of a conversion cannot change on "
                "a day; compose a new metric instead"
            )
        pieces = (one, *(piece for _, piece in one.former))
        if any(piece.kind == "cumulative" and piece.measure == former for piece in pieces):
            found[one.file] = _edited(
                one.file.read_text("utf-8"), one.id, lambda entry: _rename(entry, former, measure)
            )
    return found


def _rename(entry: Any, former: str, measure: str) -> None:
    for one in (entry, *entry["config"]["meta"].get("former", ())):
        if one["type"] == "cumulative" and one["type_params"]["measure"] == former:
            one["type_params"]["measure"] = measure


def _edited(text: str, metric: str, edit: Callable[[Any], None]) -> str:
    yaml = _yaml()
    document = yaml.load(text)
    edit(_named(document, metric))
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _entry(text: str, metric: str) -> Any:
    return _named(_yaml().load(text), metric)


def _named(document: Any, metric: str) -> Any:
    return next(entry for entry in document["metrics"] if entry["name"] == metric)


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _set(entry: Any, given: Mapping[str, str], catalogue: Catalogue) -> None:
    meta = entry["config"]["meta"]
    for name, value in given.items():
        if name in TEXT_FIELDS:
            entry[name] = value
        elif name == "freshness_hours":
            meta[name] = _whole(value, name)
        elif name in META_FIELDS:
            meta[name] = value
        else:
            _set_formula(entry, name, value, catalogue)


def _set_formula(entry: Any, name: str, value: str, catalogue: Catalogue) -> None:
    params, kind = entry["type_params"], entry["type"]
    if name == "formula":
        ratio = re.fullmatch(rf"\s*({_ID})\s*/\s*({_ID})\s*", value)
        if ratio is not None:
            entry["type"], entry["type_params"] = "ratio", {"numerator": ratio[1], "denominator": ratio[2]}
        else:
            inputs = [{"name": one} for one in _inputs(value, catalogue)]
            entry["type"], entry["type_params"] = "derived", {"expr": value.strip(), "metrics": inputs}
        return
    fits = {
        "numerator": ("ratio",),
        "denominator": ("ratio",),
        "measure": ("simple", "cumulative"),
        "days": ("cumulative",),
    }
    if kind not in fits[name]:
        raise ChangeError(f"{entry['name']} is {kind}: it has no {name}; set formula")
    if name == "days":
        params["cumulative_type_params"]["window"] = f"{_whole(value, name)} days"
    else:
        params[name] = value.strip()


def _inputs(expression: str, catalogue: Catalogue) -> tuple[str, ...]:
    """The metrics of a formula."""
    try:
        names = input_names(parse_formula(expression))
    except FormulaError as error:
        raise ChangeError(f"formula {expression!r}: {error}") from None
    if unknown := [name for name in names if name not in catalogue.metrics]:
        raise ChangeError(f"formula {expression!r}: there is no metric {', '.join(unknown)}; `metrics library list`")
    if not names:
        raise ChangeError(f"formula {expression!r} names no metric")
    return names


def _keep_former(entry: Any, former: Any, until: date) -> None:
    """Put the definition that ends on a day beside the new one."""
    kept: dict[str, Any] = {
        "until": until.isoformat(),
        "type": former["type"],
        "type_params": deepcopy(former["type_params"]),
    }
    if former["description"] != entry["description"]:
        kept["description"] = former["description"]
    if former["config"]["meta"]["definition_zh"] != entry["config"]["meta"]["definition_zh"]:
        kept["definition_zh"] = former["config"]["meta"]["definition_zh"]
    entry["config"]["meta"].setdefault("former", []).append(kept)


def _move(entry: Any, first: date) -> None:
    """Let the former definitions end at a day at the latest."""
    kept = []
    for one in entry["config"]["meta"]["former"]:
        ends = date.fromisoformat(str(one["until"]))
        one["until"] = min(ends, first).isoformat()
        kept.append(one)
        if ends >= first:
            break
    entry["config"]["meta"]["former"] = kept


def _with_target(path: Path, metric: str, value: str, effective: date) -> str:
    """The seed of targets with another target of a metric's total from a day on; other lines stay as they are."""
    try:
        number = float(value)
    except ValueError:
        raise ChangeError(f"target {value!r} is not a number") from None
    lines = path.read_text("utf-8").splitlines()
    header = next(csv.reader([lines[0]]))
    place = {name: position for position, name in enumerate(header)}
    last = len(lines) - 1
    for position, line in enumerate(lines[1:], start=1):
        row = next(csv.reader([line]), [])
        if len(row) != len(header) or row[place["metric"]] != metric:
            continue
        last = position
        if (row[place["dimension"]], row[place["member"]]) != ("all", "all") or row[place["valid_to"]]:
            continue
        if row[place["valid_from"]] >= effective.isoformat():
            raise ChangeError(
                f"{path.name}:{position + 1}: {metric} has a target from {row[place['valid_from']]} on already; "
                "choose a later day"
            )
        row[place["valid_to"]] = (effective - timedelta(days=1)).isoformat()
        lines[position] = _csv(row)
    fresh = {
        "metric": metric,
        "dimension": "all",
        "member": "all",
        "target": f"{number:g}",
        "valid_from": effective.isoformat(),
    }
    lines.insert(last + 1, _csv([fresh.get(name, "") for name in header]))
    return "\n".join(lines) + "\n"


def _csv(row: Sequence[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(row)
    return stream.getvalue()


def _whole(value: str, name: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]*", value.strip()):
        raise ChangeError(f"{name} {value!r} is not a whole number above 0")
    return int(value)
