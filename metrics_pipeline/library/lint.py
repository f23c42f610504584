"""What is wrong with the definitions beyond their shape: all of it at once, each with file, line and what to do.

One function a check. Errors are definitions that mislead (two meanings of one name, a unit that does not follow from the
formula); warnings are worth a look (metrics that nobody uses). Rules are judged elsewhere, so the ids they use are given.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metrics_pipeline.library.catalogue import Catalogue, Metric, formula_of
from metrics_pipeline.library.definitions import DefinitionError, MetricDefinition, Problem, dimensions_of
from metrics_pipeline.library.formula import formula_text, normal_text, parse_formula
from metrics_pipeline.library.units import Unit, UnitClash, mixed_nouns, unit_of

Severity = Literal["error", "warning"]
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SENSITIVITY = ("public", "internal", "confidential")
_NIGHT_HOURS = 24


@dataclass(frozen=True)
class Finding:
    """A problem and how bad it is."""

    severity: Severity
    problem: Problem

    def __str__(self) -> str:
        return f"{self.severity}: {self.problem}"


def lint(project_dir: Path, used: Collection[str] = ()) -> list[Finding]:
    """Everything that is wrong with the definitions of a dbt project, errors first.

    `used` are ids of metrics that somebody looks at although no metric is made of them: those of rules and targets.
    """
    try:
        catalogue = Catalogue.read(project_dir)
    except DefinitionError as error:
        return [Finding("error", problem) for problem in error.problems]
    return lint_catalogue(catalogue, used)


def lint_catalogue(catalogue: Catalogue, used: Collection[str] = ()) -> list[Finding]:
    """The same for definitions that are read already."""
    found = [finding for check in _CHECKS for finding in check(catalogue)]
    found += _unused(catalogue, used)
    return sorted(found, key=lambda one: (one.severity, str(one.problem.file), one.problem.line, one.problem.message))


def new_findings(before: Catalogue, after: Catalogue, used: Collection[str] = ()) -> tuple[Finding, ...]:
    """What lint says of a changed library and did not say of it before."""
    known = {str(finding) for finding in lint_catalogue(before, used)}
    return tuple(one for one in lint_catalogue(after, used) if str(one) not in known)


def changed_in_files(catalogue: Catalogue, recorded: Mapping[str, str]) -> list[Finding]:
    """Warnings for values that get another meaning with the next night and have no first day: a measure, the fact behind
    it or a formula was changed in files, without a proposal.

    `recorded`: metric → the version that was recorded last. One warning for each change, with all that follows from it.
    """
    changed = {name for name, one in catalogue.metrics.items() if recorded.get(name, one.version) != one.version}
    found = []
    for name in catalogue.metrics:
        metric = catalogue.metrics[name]
        if name not in changed or changed.intersection(metric.inputs):
            continue
        what = "its formula" if metric.inputs else "its measure or the fact behind it"
        follows = [one for one in catalogue.users(name) if one in changed]
        also = f", and so do {', '.join(follows)}" if follows else ""
        field = "formula" if metric.inputs else "expr"
        found.append(
            Finding(
                "warning",
                _problem(
                    metric,
                    f"{what} was changed in files, so it begins a new version ({recorded[name]} → {metric.version}) with "
                    f"the next night{also}; days that are rebuilt get it, and it has no first day",
                    f"If that is meant, `metrics library propose {name} --in-files --why …` puts who, why and approval on "
                    "record before that night; to keep the old formula for earlier days, undo it and "
                    f"`metrics library propose {name} --set {field}=…`",
                ),
            )
        )
    return found


def units_of(catalogue: Catalogue) -> dict[str, Unit]:
    """Metric → the unit that follows from its formula; where it clashes, or for a leaf, the declared one."""
    found: dict[str, Unit] = {}
    for metric in catalogue.metrics.values():
        try:
            found[metric.id] = computed_unit(catalogue, metric, found) or Unit.declared(metric.unit)
        except UnitClash:
            found[metric.id] = Unit.declared(metric.unit)
    return found


def computed_unit(catalogue: Catalogue, metric: Metric, units: dict[str, Unit]) -> Unit | None:
    """The unit of a formula over metrics with these units; None for a leaf. Raises `UnitClash`."""
    definition = catalogue.written[metric.id]
    if definition.kind == "cumulative":
        return units[metric.inputs[0]]
    node = formula_of(definition)
    return unit_of(node, _columns(definition, units)) if node else None


def _columns(definition: MetricDefinition, units: dict[str, Unit]) -> dict[str, Unit]:
    named = {name: units[name] for name in (definition.numerator, definition.denominator) if name}
    return {**named, **{term.column: units[term.name] for term in definition.terms}}


# -- names and texts -----------------------------------------------------------------------------------------------


def _texts(catalogue: Catalogue) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        for field, text in (("name_zh", metric.name_zh), ("definition_zh", metric.definition_zh)):
            if not _CHINESE.search(text):
                yield _error(metric, f"`{field}` {text!r} is not Chinese", "Write it in Chinese")
        for field, text in (("label", metric.name_en), ("description", metric.definition_en)):
            if _CHINESE.search(text):
                yield _error(metric, f"`{field}` {text!r} is not English", "Write it in English")
        if _plain(metric.definition_en) == _plain(metric.name_en) or metric.definition_zh == metric.name_zh:
            yield _error(
                metric, "the definition only repeats the name", "Say what is counted, of what, and by which time"
            )


def _one_name_one_meaning(catalogue: Catalogue) -> Iterator[Finding]:
    names: dict[str, dict[str, Metric]] = defaultdict(dict)
    for metric in catalogue.metrics.values():
        for name in (metric.id, metric.name_en, metric.name_zh):
            names[_plain(name)].setdefault(metric.id, metric)
    for name, metrics in names.items():
        first, *others = metrics.values()
        for other in others:
            yield _error(
                other,
                f"is called {name!r}, and so is {first.id} ({_place(first, other)})",
                "One name has one meaning: rename one of them",
            )


def _one_definition_one_name(catalogue: Catalogue) -> Iterator[Finding]:
    for field in ("definition_en", "definition_zh"):
        seen: dict[str, Metric] = {}
        for metric in catalogue.metrics.values():
            first = seen.setdefault(_plain(getattr(metric, field)), metric)
            if first is not metric:
                yield _error(
                    metric,
                    f"has the definition of {first.id} ({_place(first, metric)})",
                    "Say in what they differ, or keep one",
                )


# -- formulas ------------------------------------------------------------------------------------------------------


def _one_formula_one_name(catalogue: Catalogue) -> Iterator[Finding]:
    seen: dict[str, Metric] = {}
    for metric in catalogue.metrics.values():
        terms = catalogue.polynomials[metric.id]
        key = normal_text(terms)
        if not metric.inputs:
            key = f"leaf {''.join(metric.formula.split()).casefold()}"
            seen[normal_text(terms)] = metric
        elif not any(terms):
            yield _error(metric, f"its formula {metric.formula} is always the same number", "Mend the formula")
            continue
        same = {normal_text(catalogue.polynomials[name]): catalogue.metrics[name] for name in metric.inputs}
        first = same.get(key) or seen.setdefault(key, metric)
        if first is not metric:
            yield _error(
                metric,
                f"its formula {metric.formula} means the same as that of {first.id} ({_place(first, metric)})",
                f"Use {first.id} where it is needed, and keep one of them",
            )


def _guarded(catalogue: Catalogue) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        definition = catalogue.written[metric.id]
        if definition.kind != "derived" or definition.expression is None:
            continue
        text = formula_text(parse_formula(definition.expression))
        if text.count("nullif") != definition.expression.count("nullif"):
            yield Finding(
                "warning",
                _problem(
                    metric,
                    "`expr` divides by what may be 0, and other readers of the semantic layer do not see how",
                    f"Write it as: {text}",
                ),
            )


def _units(catalogue: Catalogue) -> Iterator[Finding]:
    units = units_of(catalogue)
    for metric in catalogue.metrics.values():
        try:
            unit = computed_unit(catalogue, metric, units)
        except UnitClash as clash:
            yield _error(metric, f"its formula {clash}", "Add and subtract only what has one unit")
            continue
        if unit is None:
            continue
        if not unit.fits(metric.unit):
            yield _error(
                metric, f"`unit` is {metric.unit!r}, but {metric.formula} is in {unit}", f"Declare {_advice(unit)}"
            )
        definition = catalogue.written[metric.id]
        node = formula_of(definition)
        if node and (mixed := mixed_nouns(node, _columns(definition, units))):
            yield Finding(
                "warning",
                _problem(
                    metric,
                    f"adds {mixed[0]} and {mixed[1]}",
                    "Add only what is counted alike, or say in the definition why",
                ),
            )


def _advice(unit: Unit) -> str:
    fitting = [name for name in ("ratio", "currency", "days", *(name for name, _ in unit.powers)) if unit.fits(name)]
    return " or ".join(dict.fromkeys(fitting)) or "nothing: no unit fits, so mend the formula"


# -- slices, freshness, sensitivity, use ---------------------------------------------------------------------------


def _slices(catalogue: Catalogue) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        definition = catalogue.written[metric.id]
        for name in definition.meta.slices or ():
            if name not in metric.slices:
                lacking = [one for one in metric.inputs if name not in catalogue.metrics[one].slices]
                yield _error(
                    metric,
                    f"`slices` asks for {name!r}, which {' and '.join(lacking) or 'its cube'} does not have",
                    f"It can have: {', '.join(metric.slices)}",
                )
        if "hourly" in metric.refresh and not metric.hour_slices:
            lacking = [one for one in metric.inputs if not catalogue.metrics[one].hour_slices]
            otherwise = "a moving sum" if metric.kind == "cumulative" else "its cube"
            yield _error(
                metric,
                f"`refresh` says hourly, but {' and '.join(lacking) or otherwise} has no hourly values",
                "Take hourly out of `refresh`, or give its inputs hours",
            )


def _freshness(catalogue: Catalogue) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        least = _NIGHT_HOURS * (1 + metric.settle_days)
        if metric.freshness_hours < least and "hourly" not in metric.refresh:
            why = f" and it waits {metric.settle_days} days for its window" if metric.settle_days else ""
            yield _error(
                metric,
                f"`freshness_hours: {metric.freshness_hours}` cannot be kept: a new value comes every night{why}",
                f"Write at least {least}",
            )


def _sensitivity(catalogue: Catalogue) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        own = _SENSITIVITY.index(metric.sensitivity)
        closer = [one for one in metric.inputs if _SENSITIVITY.index(catalogue.metrics[one].sensitivity) > own]
        if closer:
            yield Finding(
                "warning",
                _problem(
                    metric,
                    f"is {metric.sensitivity}, but made of {', '.join(closer)}, which is not",
                    f"Make it {max((catalogue.metrics[one].sensitivity for one in closer), key=_SENSITIVITY.index)}, "
                    "unless it tells nothing of them",
                ),
            )


def _unused(catalogue: Catalogue, used: Collection[str]) -> Iterator[Finding]:
    for metric in catalogue.metrics.values():
        if not catalogue.downstream[metric.id] and metric.role != "KGI" and metric.id not in used:
            yield Finding(
                "warning",
                _problem(
                    metric,
                    "nobody uses it: no metric is made of it and no rule watches it",
                    "Give it a rule, or see `metrics library remove`",
                ),
            )


_CHECKS: tuple[Callable[[Catalogue], Iterable[Finding]], ...] = (
    _texts,
    _one_name_one_meaning,
    _one_definition_one_name,
    _one_formula_one_name,
    _guarded,
    _units,
    _slices,
    _freshness,
    _sensitivity,
)


def _plain(text: str) -> str:
    """A name without case, spaces and punctuation: what people hear."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def _place(first: Metric, other: Metric) -> str:
    return f"line {first.line}" if first.file == other.file else f"{first.file.name}:{first.line}"


def _error(metric: Metric, message: str, mend: str) -> Finding:
    return Finding("error", _problem(metric, message, mend))


def _problem(metric: Metric, message: str, mend: str) -> Problem:
    return Problem(metric.file, metric.line, f"{metric.id}: {message}", mend)


def slices_lost(catalogue: Catalogue, metric: Metric) -> dict[str, tuple[str, ...]]:
    """Slice that some input has and the metric cannot have → the inputs that lack it. Empty for a leaf."""
    wanted = dict.fromkeys(name for one in metric.inputs for name in catalogue.metrics[one].slices)
    return {
        name: tuple(one for one in metric.inputs if name not in catalogue.metrics[one].slices)
        for name in wanted
        if name not in metric.slices and dimensions_of(name)
    }
