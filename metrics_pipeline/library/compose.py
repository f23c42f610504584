"""New metrics out of old ones by configuration: a request becomes YAML, is checked as if it were there, then written.

A request says how (an expression, a ratio, a moving sum or average, growth or change against days before, a conversion)
and what the library wants to know; what follows from the inputs need not be said. Nothing is written before everything
is known to be right, and the definitions themselves are written last: who is interrupted has a project that still parses.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from metrics_pipeline.library.catalogue import Catalogue, Grain, Metric
from metrics_pipeline.library.compile import generated_files, stale_files
from metrics_pipeline.library.definitions import LAYERS, DefinitionError, Problem
from metrics_pipeline.library.formula import (
    FormulaError,
    Input,
    Node,
    Operation,
    formula_text,
    input_names,
    linear_parts,
    parse_formula,
    readable_text,
)
from metrics_pipeline.library.lint import Finding, computed_unit, new_findings, units_of
from metrics_pipeline.library.units import UnitClash

Form = Literal["expr", "ratio", "cumulative", "average", "growth", "change", "conversion"]
_BY_DAY_ONLY = {"cumulative": "a moving sum", "average": "a moving average", "conversion": "a conversion"}
_SENSITIVITY = ("public", "internal", "confidential")
_TAKEN = frozenset(
    "all and as between by case cast cross desc distinct else end except exists false filter from full group having in "
    "inner intersect into is join left like limit metric member nullif not null numerator denominator dimension on or "
    "order outer over partition period_start qualify right select table then true union using value values when where "
    "window with".split()
)
"""Words of SQL and columns of metric tables: as the id of a metric they would be read as something else."""


class ComposeError(ValueError):
    """A request that cannot become a metric; the message says why and what to do."""


@dataclass(frozen=True)
class Request:
    """What is asked for. Fields that are None follow from the inputs."""

    id: str
    form: Form
    label: str
    name_zh: str
    expression: str = ""
    """expr: the formula."""
    inputs: tuple[str, ...] = ()
    """ratio: numerator and denominator; conversion: measure of the base, measure of what follows; else one metric."""
    days: int = 0
    """Length of the window, or how many days before."""
    entity: str = ""
    """conversion: what both events belong to."""
    layer: str | None = None
    unit: str | None = None
    direction: str | None = None
    description: str | None = None
    definition_zh: str | None = None
    stage: str | None = None
    category: str | None = None
    owner: str | None = None
    business_line: str | None = None
    sensitivity: str | None = None
    slices: tuple[str, ...] | None = None
    grain: Grain = "day"
    """hour: values by hour as well as by day."""


@dataclass(frozen=True)
class Composition:
    """What a request would become."""

    id: str
    drafts: Mapping[Path, str]
    """The YAML files that are new, those of helper metrics first."""
    catalogue: Catalogue
    """The library as it would be."""
    warnings: tuple[Finding, ...]
    """What lint says of it; what `compose` made has no errors."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All metrics that are new, helpers first."""
        return tuple(path.stem for path in self.drafts)

    @property
    def metric(self) -> Metric:
        return self.catalogue.metrics[self.id]


def compose(catalogue: Catalogue, request: Request, used: Collection[str] = ()) -> Composition:
    """Check a request against the library (not narrowed to a source) and work out its definitions. Writes nothing.

    Raises `ComposeError` when it cannot be a metric, `DefinitionError` with all problems when its definition would be
    wrong: grammar, cycles, units, names, equal formulas, slices.
    """
    _check_name(catalogue, request.id)
    try:
        drafts = dict(_Writer(catalogue, request).drafts())
    except FormulaError as error:
        raise ComposeError(f"--expr: {error}") from None
    if request.grain == "hour":
        _check_hours(catalogue, request)
    project = catalogue.definitions.project_dir
    after = Catalogue.read(project, drafts)
    found = new_findings(catalogue, after, {*used, *drafts_ids(drafts)})
    if errors := [one.problem for one in found if one.severity == "error"]:
        raise DefinitionError(errors)
    return Composition(request.id, drafts, after, found)


def _check_hours(catalogue: Catalogue, request: Request) -> None:
    """Raises `ComposeError` unless the request can have values by hour; its inputs are there."""
    if what := _BY_DAY_ONLY.get(request.form):
        raise ComposeError(f"--grain hour: {what} has values by day only; leave --grain out")
    lacking = [name for name in asked_metrics(catalogue, request) if not catalogue.metrics[name].hour_slices]
    if lacking:
        have = ", ".join(one.id for one in catalogue.metrics.values() if one.hour_slices)
        raise ComposeError(
            f"--grain hour: {', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no values by hour; "
            f"leave --grain out, or make it of these: {have}"
        )


def asked_metrics(catalogue: Catalogue, request: Request) -> tuple[str, ...]:
    """The metrics that a request names, whether or not they exist. Raises `ComposeError` when it cannot be read."""
    if request.form == "conversion":
        simple = {one.measure: one.id for one in catalogue.definitions.metrics if one.kind == "simple"}
        return tuple(simple[name] for name in request.inputs[:1] if name in simple)
    if request.form != "expr":
        return request.inputs
    try:
        return input_names(parse_formula(request.expression))
    except FormulaError as error:
        raise ComposeError(f"--expr: {error}") from None


def drafts_ids(drafts: Mapping[Path, str]) -> set[str]:
    """Ids of the metrics in drafts."""
    return {path.stem for path in drafts}


@contextmanager
def saved(composition: Composition) -> Iterator[list[Path]]:
    """Write the definitions and the models that follow from them; gives the paths that changed.

    When the block raises, every file is as it was. Raises `ComposeError` when somebody changes the project meanwhile.
    """
    project = composition.catalogue.definitions.project_dir
    with _only_writer(project):
        for path in composition.drafts:
            if path.exists():
                raise ComposeError(f"{path} was written meanwhile; look at `metrics library show {path.stem}`")
        if now := _others(Catalogue.read(project), composition):
            raise ComposeError(f"{', '.join(sorted(now))} changed meanwhile; compose again")
        changes: dict[Path, str | None] = {}
        wanted = generated_files(composition.catalogue)
        for path in stale_files(composition.catalogue):
            changes[path] = wanted.get(path)
        with _replaced({**changes, **composition.drafts}):
            yield [*changes, *composition.drafts]


@contextmanager
def removed(catalogue: Catalogue, metric_id: str) -> Iterator[list[Path]]:
    """Remove the definition of a metric and the models made of it; undone when the block raises."""
    project = catalogue.definitions.project_dir
    with _only_writer(project):
        path = catalogue.metrics[metric_id].file
        after = Catalogue.read(project, {path: None})
        wanted = generated_files(after)
        changes: dict[Path, str | None] = {path: None}
        for stale in stale_files(after):
            changes[stale] = wanted.get(stale)
        with _replaced(changes):
            yield list(changes)


def _others(now: Catalogue, composition: Composition) -> set[str]:
    """Metrics whose definition is not what the composition was checked against."""
    before = {name: one.version for name, one in composition.catalogue.metrics.items() if name not in composition.ids}
    after = {name: one.version for name, one in now.metrics.items()}
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


@contextmanager
def _only_writer(project: Path) -> Iterator[None]:
    with (project / "dbt_project.yml").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ComposeError(f"{project}: somebody else changes the library right now; try again") from None
        yield


@contextmanager
def _replaced(changes: Mapping[Path, str | None]) -> Iterator[None]:
    """Write all, each file at once, in this order; put everything back when writing or the block fails."""
    before = {path: path.read_bytes() if path.exists() else None for path in changes}
    parts = {path: path.with_name(f".{path.name}.part") for path, text in changes.items() if text is not None}
    try:
        for path, part in parts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(changes[path] or "", "utf-8")
        for path in changes:
            if path in parts:
                parts[path].replace(path)
            else:
                path.unlink(missing_ok=True)
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)
        raise
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


def _check_name(catalogue: Catalogue, name: str) -> None:
    if re.fullmatch(r"[a-z][a-z0-9_]{1,59}", name) is None:
        raise ComposeError(f"{name!r} is no id: write 2 to 60 small letters, digits and underscores, a letter first")
    if name in catalogue.metrics:
        raise ComposeError(f"there is a metric {name!r} already; choose another id or change its definition")
    folder = catalogue.definitions.project_dir
    if name in _TAKEN or name.endswith("_hourly") or any((folder / "models").rglob(f"{name}.sql")):
        raise ComposeError(f"{name!r} already means something else in the tables; choose another id")
    if (folder / "seeds" / f"{name}.csv").exists():
        raise ComposeError(f"{name!r} is a seed; choose another id")


class _Writer:
    """A request as YAML."""

    def __init__(self, catalogue: Catalogue, request: Request) -> None:
        self._catalogue = catalogue
        self._request = request

    def drafts(self) -> Iterator[tuple[Path, str]]:
        request = self._request
        match request.form:
            case "expr":
                node = parse_formula(request.expression)
                yield self._derived(node, {name: (name, 0) for name in input_names(node)}, {})
            case "ratio":
                numerator, denominator = (self._metric(name) for name in request.inputs)
                params = [f"      numerator: {numerator.id}", f"      denominator: {denominator.id}"]
                node = Operation("/", Input(numerator.id), Input(denominator.id))
                yield self._file("ratio", params, [numerator, denominator], self._texts(node, {}), unit=None)
            case "growth" | "change":
                yield self._against_before(self._metric(request.inputs[0]))
            case "conversion":
                yield self._conversion()
            case _:
                yield from self._window(self._metric(request.inputs[0]))

    def _metric(self, name: str) -> Metric:
        if name not in self._catalogue.metrics:
            from difflib import get_close_matches

            near = get_close_matches(name, self._catalogue.metrics, n=3)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise ComposeError(f"there is no metric {name!r}{hint}")
        return self._catalogue.metrics[name]

    def _derived(
        self, node: Node, columns: Mapping[str, tuple[str, int]], phrases: Mapping[str, tuple[str, str]]
    ) -> tuple[Path, str]:
        metrics = [self._metric(name) for name, _ in columns.values()]
        if not metrics:
            raise ComposeError("the expression names no metric, so it would always be the same number")
        lines = [f"      expr: {formula_text(node)}", "      metrics:"]
        for column, (name, days) in columns.items():
            lines.append(
                f"        - {{name: {name}, offset_window: {days} days, alias: {column}}}"
                if days
                else f"        - name: {name}"
            )
        return self._file("derived", lines, metrics, self._texts(node, phrases), unit=None)

    def _against_before(self, metric: Metric) -> tuple[Path, str]:
        days = self._days()
        before = f"{metric.id}_{days}d_before"
        difference = Operation("-", Input(metric.id), Input(before))
        node: Node = Operation("/", difference, Input(before)) if self._request.form == "growth" else difference
        phrases = {before: (f"{metric.name_en} of {days} days before", f"{days} 天前的{metric.name_zh}")}
        return self._derived(node, {metric.id: (metric.id, 0), before: (metric.id, days)}, phrases)

    def _window(self, metric: Metric) -> Iterator[tuple[Path, str]]:
        """A moving sum of a measure, or the same sum of moving sums for a weighted sum of measures."""
        days = self._days()
        parts = linear_parts(self._catalogue.polynomials[metric.id])
        leaves = [name for name in parts or () if name in self._catalogue.metrics]
        if not metric.sums_over_days or parts is None or len(leaves) != len(parts):
            raise ComposeError(
                f"the days of {metric.id} cannot be summed: it is a rate, a level, a distinct count or a moving sum; "
                "sum what it is made of, and divide the sums"
            )
        written = self._catalogue.written
        if any(written[name].kind != "simple" for name in leaves):
            raise ComposeError(f"{metric.id} is made of conversions, which have no moving sum yet")
        is_average = self._request.form == "average"
        if not is_average and metric.kind == "simple":
            yield self._cumulative(self._request, metric)
            return
        sums = {name: self._sum_of(self._catalogue.metrics[name], days) for name in leaves}
        for _, draft in sums.values():
            if draft is not None:
                yield draft
        node: Node | None = None
        for name, weight in parts.items():
            one: Node = Input(sums[name][0])
            if abs(weight) != 1:
                one = Operation("*", parse_formula(f"{float(abs(weight)):.12f}".rstrip("0").rstrip(".")), one)
            if node is None:
                node = one if weight > 0 else Operation("-", parse_formula("0"), one)
            else:
                node = Operation("+" if weight > 0 else "-", node, one)
        assert node is not None
        if is_average:
            node = Operation("/", node, parse_formula(str(days)))
        phrase = (
            (f"Daily average of {metric.name_en} over the {days} days that end with the period.", f"截至当日近 {days} 日{metric.name_zh}的日均值。")
            if is_average
            else (f"{metric.name_en} of the {days} days that end with the period.", f"截至当日近 {days} 日的{metric.name_zh}。")
        )  # fmt: skip
        columns = {helper: (helper, 0) for helper, _ in sums.values()}
        lines = [f"      expr: {formula_text(node)}", "      metrics:", *(f"        - name: {one}" for one in columns)]
        yield self._file("derived", lines, [metric], phrase, unit=metric.unit)

    def _sum_of(self, leaf: Metric, days: int) -> tuple[str, tuple[Path, str] | None]:
        """The moving sum of a leaf: the one there is, or a new one beside it."""
        measure = self._catalogue.written[leaf.id].measure
        for known in self._catalogue.definitions.metrics:
            if known.kind == "cumulative" and known.measure == measure and known.window_days == days:
                return known.id, None
        helper = Request(
            id=f"{leaf.id}_{days}d",
            form="cumulative",
            label=f"{leaf.name_en}, {days} days",
            name_zh=f"近{days}日{leaf.name_zh}",
            inputs=(leaf.id,),
            days=days,
            layer=leaf.layer,
        )
        _check_name(self._catalogue, helper.id)
        return helper.id, self._cumulative(helper, leaf)

    def _cumulative(self, request: Request, metric: Metric) -> tuple[Path, str]:
        measure = self._catalogue.written[metric.id].measure
        params = [
            f"      measure: {measure}",
            "      cumulative_type_params:",
            f"        window: {request.days} days",
        ]
        texts = (
            f"{metric.name_en} of the {request.days} days that end with the period.",
            f"截至当日近 {request.days} 日的{metric.name_zh}。",
        )
        return self._file("cumulative", params, [metric], texts, unit=metric.unit, request=request)

    def _conversion(self) -> tuple[Path, str]:
        request = self._request
        base_measure, measure = request.inputs
        simple = {one.measure: one.id for one in self._catalogue.definitions.metrics if one.kind == "simple"}
        if base_measure not in simple:
            raise ComposeError(
                f"{base_measure!r} is no measure with a metric; there are: {', '.join(sorted(filter(None, simple)))}"
            )
        base = self._catalogue.metrics[simple[base_measure]]
        then = self._catalogue.metrics[simple[measure]] if measure in simple else None
        then_en, then_zh = (measure, measure) if then is None else (then.name_en, then.name_zh)
        params = [
            "      conversion_type_params:",
            f"        base_measure: {base_measure}",
            f"        conversion_measure: {measure}",
            f"        entity: {request.entity}",
            "        calculation: conversions",
            f"        window: {self._days()} days",
        ]
        texts = (
            f"{then_en} within {request.days} days of {base.name_en}, by the time of the latter; final when the window has passed.",
            f"{base.name_zh}之后 {request.days} 天内的 {then_zh},按前者时间统计;窗口期结束后即为终值。",
        )
        return self._file("conversion", params, [base, *([then] if then else [])], texts, unit=(then or base).unit)

    def _days(self) -> int:
        if not 1 <= self._request.days <= 366:
            raise ComposeError("--days must be between 1 and 366")
        return self._request.days

    def _texts(self, node: Node, phrases: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
        """The formula in words, English and Chinese."""

        def name(language: int) -> dict[str, str]:
            known = {one.id: (one.name_en, one.name_zh)[language] for one in self._catalogue.metrics.values()}
            return {**known, **{column: texts[language] for column, texts in phrases.items()}}

        english, chinese = name(0), name(1)
        for one in input_names(node):
            if one not in phrases:
                self._metric(one)
        return f"{readable_text(node, english.__getitem__)}.", f"{readable_text(node, chinese.__getitem__)}。"

    def _file(
        self,
        kind: str,
        params: Sequence[str],
        inputs: Sequence[Metric],
        texts: tuple[str, str],
        *,
        unit: str | None,
        request: Request | None = None,
    ) -> tuple[Path, str]:
        request = request or self._request
        first = inputs[0]
        lowest = "base" if kind in {"cumulative", "conversion"} else "operational"
        layer = request.layer or max((lowest, *(one.layer for one in inputs)), key=LAYERS.index)
        if layer not in LAYERS:
            raise ComposeError(f"--layer {layer!r} is not known; write {', '.join(LAYERS)}")
        settle = max(one.settle_days for one in inputs) + (request.days if kind == "conversion" else 0)
        directions = {one.direction for one in inputs}
        follows = kind == "cumulative" or request.form in {"average", "growth", "change"}
        meta: dict[str, str] = {
            "name_zh": _quoted(request.name_zh),
            "definition_zh": _quoted(request.definition_zh or texts[1]),
            "unit": request.unit or unit or "",
            "direction": request.direction or (first.direction if follows and len(directions) == 1 else "neutral"),
            "stage": request.stage or first.stage,
            "category": request.category or first.category,
            "owner": _quoted(request.owner or first.owner),
            "business_line": request.business_line or first.business_line,
            "sensitivity": request.sensitivity or max((one.sensitivity for one in inputs), key=_SENSITIVITY.index),
            "refresh": "[nightly, hourly]" if request.grain == "hour" else "[nightly]",
            "freshness_hours": str(max(*(one.freshness_hours for one in inputs), 30 + 24 * settle)),
        }
        if request.slices is not None:
            meta["slices"] = f"[{', '.join(_quoted(name) for name in request.slices)}]"
        path = self._catalogue.definitions.project_dir / "models" / layer / f"{request.id}.yml"

        def text(unit: str) -> str:
            lines = [
                "metrics:",
                f"  - name: {request.id}",
                f"    label: {_quoted(request.label)}",
                f"    description: {_quoted(request.description or texts[0])}",
                f"    type: {kind}",
                "    type_params:",
                *params,
                "    config:",
                "      meta:",
                *(f"        {name}: {value}" for name, value in {**meta, "unit": _quoted(unit)}.items()),
            ]
            return "\n".join(lines) + "\n"

        if not meta["unit"]:
            meta["unit"] = self._unit(path, text("ratio"))
        return path, text(meta["unit"])

    def _unit(self, path: Path, draft: str) -> str:
        """The unit that follows from the formula. Raises `ComposeError` when none or several do."""
        after = Catalogue.read(self._catalogue.definitions.project_dir, {path: draft})
        metric = after.metrics[path.stem]
        try:
            unit = computed_unit(after, metric, units_of(after))
        except UnitClash as clash:
            raise DefinitionError(
                [Problem(path, 2, f"{metric.id}: its formula {clash}", "Add and subtract only what has one unit")]
            ) from None
        assert unit is not None  # conversions say what they count
        nouns = [name for name, power in unit.powers if power > 0]
        fitting = [name for name in ("ratio", "currency", *nouns) if unit.fits(name)]
        if not fitting:
            raise ComposeError(f"{metric.formula} is in {unit}, which is no unit of a metric; mend the formula")
        return fitting[0]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def dependents(catalogue: Catalogue, metric_id: str) -> tuple[str, ...]:
    """Metrics that would break without this one, nearest first; those of former definitions included."""
    former = [
        one.id
        for one in catalogue.metrics.values()
        if any(metric_id in piece.inputs for _, piece in one.former) and one.id != metric_id
    ]
    return tuple(dict.fromkeys((*catalogue.users(metric_id), *former)))
