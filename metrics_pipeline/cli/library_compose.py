"""`metrics library compose` and `remove`: new metrics out of old ones, and what would break without one.

Beside `cli_library`, on whose app it hangs. Both show first and change the library only with `--save`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door, require_authors
from metrics_pipeline.cli.library import watched_metrics
from metrics_pipeline.cli.output import (
    JsonOption,
    fail,
    nearest,
    print_json,
    print_table,
    say,
    steps,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.compose import Composition, Request

SHOWN_DAYS = 14
"""Days of the total in the table; the plot and the figures are of all days of the preview."""
_BARS = "▁▂▃▄▅▆▇█"


def add_to_library(app: typer.Typer) -> None:
    """Hang the commands on `metrics library`."""
    app.command(
        "compose",
        epilog='Examples: [bold]metrics library compose service_score --expr "0.6*payment_conversion_rate + 0.4*(1-complaint_rate)" '
        '--label "Service score" --name-zh 服务得分 --layer operational[/bold] · '
        "[bold]metrics library compose gmv_7d --cumulative gmv --days 7 --label … --name-zh … --save[/bold]",
    )(library_compose)
    app.command(
        "remove",
        epilog="Examples: [bold]metrics library remove ad_clicks[/bold] · [bold]metrics library remove ad_clicks --save[/bold]",
    )(library_remove)


def library_compose(  # noqa: PLR0917 - options of a command
    metric: Annotated[str, typer.Argument(help="Id of the new metric.")],
    label: Annotated[str, typer.Option(help="Its English name.")],
    name_zh: Annotated[str, typer.Option(help="Its Chinese name.")],
    expr: Annotated[str | None, typer.Option(help="Numbers, metric ids, + - * / and parentheses.")] = None,
    ratio: Annotated[str | None, typer.Option(metavar="A/B", help="One metric per another.")] = None,
    cumulative: Annotated[str | None, typer.Option(metavar="METRIC", help="Sum over the last --days days.")] = None,
    average: Annotated[str | None, typer.Option(metavar="METRIC", help="Daily average of the last --days days.")] = None,
    growth: Annotated[str | None, typer.Option(metavar="METRIC", help="Relative change against --days days before.")] = None,
    change: Annotated[str | None, typer.Option(metavar="METRIC", help="Difference to --days days before.")] = None,
    conversion: Annotated[
        str | None, typer.Option(metavar="BASE/THEN", help="Measure THEN within --days days of measure BASE, of one --entity.")
    ] = None,
    entity: Annotated[str, typer.Option(help="Of --conversion: what both events belong to.")] = "",
    days: Annotated[int, typer.Option(min=1, max=366, help="Length of the window, or how long before.")] = 7,
    layer: Annotated[str | None, typer.Option(help="base, operational, strategic; default: the highest of its inputs.")] = None,
    unit: Annotated[str | None, typer.Option(help="Default: what follows from the formula.")] = None,
    direction: Annotated[str | None, typer.Option(help="higher_is_better, lower_is_better, neutral.")] = None,
    definition: Annotated[str | None, typer.Option(help="Definition in English; default: the formula in words.")] = None,
    definition_zh: Annotated[str | None, typer.Option(help="The same in Chinese.")] = None,
    stage: Annotated[str | None, typer.Option(help="Default: that of the first input, as of the next four.")] = None,
    category: Annotated[str | None, typer.Option()] = None,
    owner: Annotated[str | None, typer.Option()] = None,
    business_line: Annotated[str | None, typer.Option("--line")] = None,
    sensitivity: Annotated[str | None, typer.Option(help="Default: that of the most sensitive input.")] = None,
    slices: Annotated[str | None, typer.Option(metavar="A,B", help="Keep only these; default: all that the inputs share.")] = None,
    grain: Annotated[str, typer.Option(help="hour: values by hour, too, where all inputs have them.")] = "day",
    save: Annotated[bool, typer.Option("--save", help="Write definition and model; without it only show.")] = False,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Compose a metric from others: check it, show it on history, and with --save make it part of the library."""
    from metrics_pipeline.library.catalogue import Grain
    from metrics_pipeline.library.compose import Request, saved

    settings = load_settings()
    if grain not in get_args(Grain):
        usage(f"--grain {grain!r} is not known; write {' or '.join(get_args(Grain))}")
    form, expression, inputs = _form(
        {
            "expr": expr,
            "ratio": ratio,
            "cumulative": cumulative,
            "average": average,
            "growth": growth,
            "change": change,
            "conversion": conversion,
        }
    )
    request = Request(
        id=metric,
        form=form,
        label=label,
        name_zh=name_zh,
        expression=expression,
        inputs=inputs,
        days=days,
        entity=entity,
        layer=layer,
        unit=unit,
        direction=direction,
        description=definition,
        definition_zh=definition_zh,
        stage=stage,
        category=category,
        owner=owner,
        business_line=business_line,
        sensitivity=sensitivity,
        slices=tuple(name.strip() for name in slices.split(",")) if slices else None,
        grain="hour" if grain == "hour" else "day",
    )
    library = _whole_library(settings)
    with opened_door(settings) as door, _told(door):
        _may_use(door, library, request)
        composition = _composed(door, library, request, watched_metrics(settings))
        values, reason = _preview(door, library, composition)
        answer = _answer(composition, values, door.words(reason)) | {
            "warnings": [door.words(str(one.problem)) for one in composition.warnings]
        }
        if not as_json:
            _show(answer, values, composition)
        if save:
            with steps("Writing the definition") as (tell, _), saved(composition) as paths:
                tell("Reading the project with dbt")
                check_project(settings)
                _note(door, "metric.compose", composition.id, {"formula": composition.metric.formula})
            answer["saved"] = [str(path) for path in paths]
    if as_json:
        print_json(answer)
    elif save:
        for path in answer["saved"]:
            typer.echo(path)
        say(f"{', '.join(composition.ids)}: values come with the next night ([bold]metrics nightly[/bold]).")
    else:
        say("Nothing was written; add [bold]--save[/bold].")


@contextmanager
def _told(door: CliDoor) -> Iterator[None]:
    """What is wrong with a request, in words that name nothing its user may not know of."""
    from metrics_pipeline.library.compose import ComposeError
    from metrics_pipeline.library.definitions import DefinitionError

    try:
        yield
    except DefinitionError as error:
        fail(door.words("\n".join(f"{problem.message}. {problem.mend}" for problem in error.problems)))
    except ComposeError as error:
        usage(door.words(str(error)))


def library_remove(
    metric: Annotated[str, typer.Argument(help="Metric id.")],
    save: Annotated[bool, typer.Option("--save", help="Remove it; without it only show what would break.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what would break without a metric; remove it when nothing would. Exit 1 when something would."""
    from metrics_pipeline.library.compose import ComposeError, removed

    settings = load_settings()
    require_authors(settings)
    library = _whole_library(settings)
    paths: list[str] = []
    with opened_door(settings) as door:
        if metric not in library.metrics or not door.viewer.reading.knows(metric):
            usage(
                f"there is no metric {metric!r}{nearest(metric, door.known(library.metrics))}; `metrics library list`"
            )
        door.require("compose", metric)
        broken = _breaks(settings, library, metric)
        if save and not any(broken.values()):
            try:
                with removed(library, metric) as changed:
                    check_project(settings)
                    _note(door, "metric.remove", metric, {})
                paths = [str(path) for path in changed]
            except ComposeError as error:
                fail(str(error))
    if as_json:
        print_json({"metric": metric, "breaks": broken, "removed": paths})
    else:
        _tell_removal(metric, broken, paths)
    if any(broken.values()):
        raise typer.Exit(1)


def _whole_library(settings: Settings) -> Catalogue:
    """All definitions, also of metrics that this installation's source cannot give."""
    from metrics_pipeline.library.catalogue import Catalogue

    return Catalogue.read(settings.dbt_project_dir)


def _form(options: Mapping[str, str | None]) -> tuple[Any, str, tuple[str, ...]]:
    """The one form that was asked for, its expression, its inputs. Ends with wrong usage when it is not one."""
    given = {name: text for name, text in options.items() if text is not None}
    if len(given) != 1:
        usage(f"say how it is made with one of --{', --'.join(options)}")
    ((name, text),) = given.items()
    if name == "expr":
        return name, text, ()
    if name in {"ratio", "conversion"}:
        first, slash, second = (part.strip() for part in text.partition("/"))
        if not (first and slash and second):
            usage(
                f"--{name} {text!r} is not A/B; write --{name} {'orders_paid/orders_placed' if name == 'ratio' else 'orders_placed/orders_with_payment'}"
            )
        return name, "", (first, second)
    return name, "", (text.strip(),)


def _may_use(door: CliDoor, library: Catalogue, request: Request) -> None:
    """End when the request names a metric that the user must not know or compose from."""
    from metrics_pipeline.access.library import known_measures
    from metrics_pipeline.library.compose import asked_metrics

    if request.id in library.metrics and not door.viewer.reading.knows(request.id):
        usage(f"{request.id!r} already means something else in the tables; choose another id")
    measures = known_measures(library.definitions, door.viewer.reading)
    for name in request.inputs if request.form == "conversion" and not door.is_open else ():
        if name not in measures:
            usage(f"{name!r} is no measure; there are: {', '.join(sorted(measures))}")
    for name in asked_metrics(library, request):
        if name not in library.metrics or not door.viewer.reading.knows(name):
            usage(f"there is no metric {name!r}{nearest(name, door.known(library.metrics))}; `metrics library list`")
        door.require("compose", name)


def _composed(door: CliDoor, library: Catalogue, request: Request, used: Collection[str]) -> Composition:
    """What the request would become; ends when it would be made of a metric that the user may not know of."""
    from metrics_pipeline.library.compose import compose

    found = compose(library, request, used)
    inputs = {name for one in found.ids for name in found.catalogue.metrics[one].inputs} - {*found.ids}
    if not all(map(door.viewer.reading.knows, inputs)):
        door.deny("compose", request.id)
        fail(f"{request.id} would be made of something that {door.viewer.person} may not see (无权限)")
    return found


def _preview(door: CliDoor, library: Catalogue, composition: Composition) -> tuple[pd.DataFrame | None, str]:
    """Values on published history, or why there are none."""
    from metrics_pipeline.library.facts import PreviewError
    from metrics_pipeline.library.trial import trial
    from metrics_pipeline.warehouse.read import NotPublished

    try:
        values = trial(door.published(), composition.catalogue, composition.id, facts=door.counted(library))
    except (PreviewError, NotPublished) as error:
        return None, str(error)
    for name in composition.metric.inputs:
        if name in library.metrics:
            door.read_inputs(name, library, rows=len(values))
    return values, ""


def _answer(composition: Composition, values: pd.DataFrame | None, reason: str) -> dict[str, Any]:
    from metrics_pipeline.library.lint import slices_lost

    metric = composition.metric
    return {
        "metric": metric.id,
        "new": list(composition.ids),
        "kind": metric.kind,
        "formula": metric.formula,
        "unit": metric.unit,
        "layer": metric.layer,
        "definition_en": metric.definition_en,
        "definition_zh": metric.definition_zh,
        "slices": list(metric.slices),
        "hour_slices": list(metric.hour_slices),
        "lost_slices": {name: list(inputs) for name, inputs in slices_lost(composition.catalogue, metric).items()},
        "files": {str(path): text for path, text in composition.drafts.items()},
        "warnings": [],
        "no_preview": reason,
        "preview": [] if values is None else values.to_dict("records"),
        "saved": [],
    }


def _show(answer: Mapping[str, Any], values: pd.DataFrame | None, composition: Composition) -> None:
    metric = composition.metric
    say(f"[bold]{metric.name_zh} {metric.name_en}[/bold] ({metric.id}, {metric.unit}) = {metric.formula}")
    for text in answer["files"].values():
        typer.echo(text)
    for name, inputs in answer["lost_slices"].items():
        say(f"not by {name}: {', '.join(inputs)} {'has' if len(inputs) == 1 else 'have'} no such slice")
    for text in answer["warnings"]:
        say(f"[yellow]warning[/yellow] {text}")
    if metric.hour_slices:
        say(f"by hour, too: {', '.join(metric.hour_slices)} (the preview is by day)")
    if values is None or values.empty:
        say(f"No preview: {answer['no_preview'] or 'the inputs have no common day'}.")
        return
    total = values[values["dimension"] == "all"]
    typer.echo(plot_line(total["value"].tolist()))
    say(f"{len(total)} days, {total['value'].min():.6g} … {total['value'].max():.6g}")
    newest = total.tail(SHOWN_DAYS)
    days = zip(newest["period_start"].tolist(), newest["value"].tolist(), strict=True)
    print_table(
        "all, newest days", [{"day": f"{day:%Y-%m-%d}", "value": value} for day, value in days], numbers=("value",)
    )
    last = values["period_start"].max()
    rows = _slice_rows(values, last)
    if rows:
        print_table(f"slices, newest day {last:%Y-%m-%d}", rows[:40], numbers=("newest", "least", "mean", "most"))
    if len(rows) > 40:
        say(f"and {len(rows) - 40} slices more (--json has all)")


def _slice_rows(values: pd.DataFrame, last: Any) -> list[dict[str, Any]]:
    """By member of each single dimension: the newest value and what the others lie between."""
    single = values[(values["dimension"] != "all") & ~values["dimension"].str.contains("|", regex=False)]
    figures = single.groupby(["dimension", "member"])["value"].agg(["min", "mean", "max"])
    newest = single[single["period_start"] == last].set_index(["dimension", "member"])["value"].to_dict()
    return [
        {"by": by, "member": member, "newest": newest.get((by, member)), "least": least, "mean": mean, "most": most}
        for (by, member), (least, mean, most) in zip(figures.index.tolist(), figures.values.tolist(), strict=True)
    ]


def plot_line(values: list[float]) -> str:
    """One block a value, between the least and the most: a plot for a terminal."""
    if not values:
        return ""
    least, most = min(values), max(values)
    width = (most - least) or 1.0
    return "".join(_BARS[min(int((value - least) / width * len(_BARS)), len(_BARS) - 1)] for value in values)


def check_project(settings: Settings) -> None:
    """dbt reads the changed project: its manifest is then ready for Dagster. Raises, so that the change is undone."""
    from metrics_pipeline.warehouse.transform import ensure_manifest

    ensure_manifest(settings)


def _note(door: CliDoor, action: str, metric: str, details: Mapping[str, Any]) -> None:
    """Write the change of the library into the audit log."""
    from metrics_pipeline.store.audit import Event

    door.record([Event(action, metric, details=details)])


def _breaks(settings: Settings, library: Catalogue, metric: str) -> dict[str, list[str]]:
    """What uses a metric: metrics, rules (and those that look at them), targets."""
    from metrics_pipeline.library.compose import dependents
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of

    rules = load_rules(settings.rules_dir, library).rules
    seeds = seeds_of(settings)
    direct = [
        rule.id
        for rule in rules
        if rule.metric == metric or (rule.min_sample is not None and rule.min_sample.metric == metric)
    ]
    above = [rule.id for rule in rules if set(rule.references) & set(direct) and rule.id not in direct]
    return {
        "metrics": list(dependents(library, metric)),
        "rules": [*direct, *above],
        "targets": sorted(
            {f"{one.kind} {one.dimension}={one.member}" for one in seeds.references if one.metric == metric}
        ),
    }


def _tell_removal(metric: str, broken: Mapping[str, list[str]], paths: list[str]) -> None:
    for what, names in broken.items():
        if names:
            say(f"[red]{what}[/red] that would break: {', '.join(names)}")
    if any(broken.values()):
        say(f"{metric} stays: change or remove these first.")
    elif paths:
        for path in paths:
            typer.echo(path)
        say(f"{metric} is gone from the library; what was published stays readable.")
    else:
        say(f"Nothing uses {metric}; add [bold]--save[/bold] to remove it.")
