"""`metrics library`: the metric library on the command line — what is in it, what a metric means, where it comes from.

`app` is what other modules hang their commands on; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import has_store, opened_door, require_authors
from metrics_pipeline.cli.output import PROBLEM, JsonOption, nearest, opened_store, print_json, print_table, say, usage
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue, Metric
    from metrics_pipeline.library.lint import Finding
    from metrics_pipeline.rules.load import RuleSet
    from metrics_pipeline.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The metric library: definitions, what they are made of, who uses them.",
    epilog="Examples: [bold]metrics library list[/bold] · [bold]metrics library show gmv[/bold]",
)


@app.command(
    "list",
    epilog="Examples: [bold]metrics library list[/bold] · [bold]metrics library list --owner sales --json[/bold]",
)
def library_list(
    layer: Annotated[str | None, typer.Option(help="base, operational or strategic.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only metrics of this owner.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the metrics: names, role in the pyramid, unit, owner, formula."""
    catalogue = open_catalogue(load_settings())
    for option, value, known in (
        ("--layer", layer, {metric.layer for metric in catalogue.metrics.values()}),
        ("--owner", owner, {metric.owner for metric in catalogue.metrics.values()}),
    ):
        if value is not None and value not in known:
            usage(f"{option} {value!r} is of no metric; there are: {', '.join(sorted(known))}")
    rows = [
        {
            "metric": metric.id,
            "name": f"{metric.name_zh} {metric.name_en}",
            "role": metric.role,
            "unit": metric.unit,
            "owner": metric.owner,
            "formula": metric.formula,
            "used_by": len(catalogue.downstream[metric.id]),
        }
        for metric in catalogue.metrics.values()
        if layer in (None, metric.layer) and owner in (None, metric.owner)
    ]
    if as_json:
        print_json(rows)
        return
    print_table(f"{len(rows)} metrics", rows, numbers=("used_by",), cut=("formula", "name"))


@app.command(
    "show",
    epilog="Examples: [bold]metrics library show refund_rate[/bold] · [bold]metrics library show gmv --json[/bold]",
)
def library_show(
    metric: Annotated[str, typer.Argument(help="Metric id, e.g. gmv.")],
    as_json: JsonOption = False,
) -> None:
    """Show one metric: definition, formula down to the facts, slices, owner, version, upstream, downstream, rules."""
    from metrics_pipeline.rules.load import load_rules

    settings = load_settings()
    catalogue = open_catalogue(settings)
    found = find_metric(catalogue, metric)
    card = metric_card(catalogue, found, load_rules(settings.rules_dir, catalogue))
    if as_json:
        print_json(card)
        return
    say(f"[bold]{found.name_zh} {found.name_en}[/bold] ({found.id})")
    rows = [{"field": name.replace("_", " "), "value": _text(value)} for name, value in card.items()]
    print_table("", [row for row in rows if row["value"]])


@app.command(
    "lint",
    epilog="Examples: [bold]metrics library lint[/bold] · [bold]metrics library lint --json[/bold]",
)
def library_lint(as_json: JsonOption = False) -> None:
    """Check the definitions: fields, names, equal formulas, units, slices, unused metrics. Exit 1 on errors."""
    from metrics_pipeline.library.lint import lint

    settings = load_settings()
    require_authors(settings)
    found = [*lint(settings.dbt_project_dir, watched_metrics(settings)), *changes_in_files(settings)]
    if as_json:
        print_json(
            [
                {
                    "severity": one.severity,
                    "file": str(one.problem.file),
                    "line": one.problem.line,
                    "message": one.problem.message,
                    "mend": one.problem.mend,
                }
                for one in found
            ]
        )
    else:
        for one in found:
            typer.echo(one)
    errors = sum(one.severity == "error" for one in found)
    if not as_json:
        typer.echo(f"{errors} errors, {len(found) - errors} warnings")
    if errors:
        raise typer.Exit(PROBLEM)


def changes_in_files(settings: Settings) -> list[Finding]:
    """What begins a new version with the next night because files were changed; [] before there is a store."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.definitions import DefinitionError
    from metrics_pipeline.library.lint import changed_in_files
    from metrics_pipeline.store.metric_versions import seen

    if not has_store(settings):
        return []
    try:
        catalogue = Catalogue.read(settings.dbt_project_dir)
    except DefinitionError:
        return []
    with opened_store(settings) as store, store.reading() as connection:
        recorded = {metric: versions[-1].version for metric, versions in seen(connection).items()}
    return changed_in_files(catalogue, recorded)


def watched_metrics(settings: Settings) -> set[str]:
    """Metrics that a rule watches or asks for its sample, or that have a target; () where definitions are broken."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.definitions import DefinitionError
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of

    try:
        catalogue = Catalogue.read(settings.dbt_project_dir)
    except DefinitionError:
        return set()
    rules = load_rules(settings.rules_dir, catalogue).rules
    seeds = seeds_of(settings)
    samples = {rule.min_sample.metric for rule in rules if rule.min_sample is not None and rule.min_sample.metric}
    return {rule.metric for rule in rules} | samples | {one.metric for one in seeds.references}


def open_catalogue(settings: Settings) -> Catalogue:
    """The library of this installation as its user may see it, with what its source cannot give marked as absent."""
    whole = whole_catalogue(settings)
    with opened_door(settings) as door:
        return door.catalogue(whole)


def whole_catalogue(settings: Settings) -> Catalogue:
    """The library of this installation for verbs that ask the policy themselves."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.sources.registry import open_source

    return Catalogue.read(settings.dbt_project_dir).for_source(open_source(settings).info)


def require_metric(settings: Settings, metric: str, action: str = "read") -> None:
    """End when the user may not do this with a metric, or may not know what it is made of; nobody is stopped in the open."""
    with opened_door(settings) as door:
        if door.is_open:
            return
        if not door.knows_whole(metric):
            door.deny(action, metric)
            usage(f"there is no metric {metric!r} that {door.viewer.person} may see in full; `metrics library list`")
        if action != "read":
            door.require(action, metric)


def find_metric(catalogue: Catalogue, metric_id: str) -> Metric:
    """The metric; ends with wrong usage, and the nearest names, when there is none."""
    if metric_id not in catalogue.metrics:
        usage(f"there is no metric {metric_id!r}{nearest(metric_id, catalogue.metrics)}; `metrics library list`")
    return catalogue.metrics[metric_id]


def metric_card(catalogue: Catalogue, metric: Metric, ruleset: RuleSet) -> dict[str, Any]:
    """Everything the library knows of a metric, as plain values: what `show` prints and others may build on."""
    return {
        "id": metric.id,
        "name_en": metric.name_en,
        "name_zh": metric.name_zh,
        "definition_en": metric.definition_en,
        "definition_zh": metric.definition_zh,
        "kind": metric.kind,
        "formula": metric.formula,
        "inputs": {name: catalogue.metrics[name].formula for name in catalogue.upstream(metric.id)},
        "denominator": metric.denominator,
        "clock_en": ", ".join(clock.en for clock in metric.clocks),
        "clock_zh": "、".join(clock.zh for clock in metric.clocks),
        "sums_over_days": metric.sums_over_days,
        "sums_over": list(metric.sums_over),
        "settle_days": metric.settle_days,
        "role": metric.role,
        "layer": metric.layer,
        "stage": metric.stage,
        "category": metric.category,
        "unit": metric.unit,
        "direction": metric.direction,
        "slices": list(metric.slices),
        "hour_slices": list(metric.hour_slices),
        "owner": metric.owner,
        "business_line": metric.business_line,
        "sensitivity": metric.sensitivity,
        "refresh": list(metric.refresh),
        "freshness_hours": metric.freshness_hours,
        "version": metric.version,
        "raw_tables": list(metric.tables),
        "upstream": list(catalogue.upstream(metric.id)),
        "downstream": list(catalogue.users(metric.id)),
        "rules": [rule.id for rule in ruleset.rules if rule.metric == metric.id],
        "absent": metric.absent.reason_en if metric.absent else None,
        "file": str(metric.file),
        "line": metric.line,
    }


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case dict():
            return "\n".join(f"{name} = {text}" for name, text in value.items())
        case list():
            return ", ".join(value)
        case _:
            return str(value)
