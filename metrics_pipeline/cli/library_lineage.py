"""`metrics library lineage|usage`: what a metric comes from, and who uses it.

Hangs on the app of `library`; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.library import find_metric, open_catalogue
from metrics_pipeline.cli.output import JsonOption, print_json, print_table, say, usage
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.lineage import Lineage
    from metrics_pipeline.library.usage import Usage, Use
    from metrics_pipeline.rules.seeds import Seeds


def add_to_library(app: typer.Typer) -> None:
    """Hang the commands on `metrics library`."""
    app.command(
        "lineage",
        epilog="Examples: [bold]metrics library lineage gmv[/bold] · [bold]metrics library lineage refund_rate --mermaid[/bold] · "
        "[bold]metrics library lineage gmv --dot | dot -Tsvg > gmv.svg[/bold]",
    )(library_lineage)
    app.command(
        "usage",
        epilog="Examples: [bold]metrics library usage[/bold] · [bold]metrics library usage refund_rate --json[/bold]",
    )(library_usage)


def library_lineage(
    metric: Annotated[str, typer.Argument(help="Metric id, e.g. gmv.")],
    as_dot: Annotated[bool, typer.Option("--dot", help="Print a graph for Graphviz.")] = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a graph for Markdown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """From source columns through staging, facts and cubes to a metric, and on to what is made of it."""
    from metrics_pipeline.library.lineage import lineage_of

    if sum((as_dot, as_mermaid, as_json)) > 1:
        usage("choose one of --json, --dot and --mermaid")
    catalogue = open_catalogue(load_settings())
    find_metric(catalogue, metric)
    found = lineage_of(catalogue, metric)
    if as_json:
        print_json(found.as_json())
    elif as_dot:
        typer.echo(found.as_dot(), nl=False)
    elif as_mermaid:
        typer.echo(found.as_mermaid(), nl=False)
    else:
        _show(found)


def library_usage(
    metric: Annotated[str | None, typer.Argument(help="Metric id; default: all of them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Who uses each metric (rules, formulas, forecasts, reports), how often one is used again, what is stale or used by nobody."""
    from metrics_pipeline.library.usage import reuse, usage_of
    from metrics_pipeline.rules.seeds import seeds_of

    settings = load_settings()
    catalogue = open_catalogue(settings)
    if metric is not None:
        find_metric(catalogue, metric)
    seeds = seeds_of(settings)
    targets: dict[str, int] = {}
    for one in seeds.references:
        targets[one.metric] = targets.get(one.metric, 0) + 1
    now = datetime.now(settings.zone).replace(tzinfo=None)
    uses = [*_of_rules(settings, catalogue, seeds), *_of_forecasts(settings), *_of_reports(settings)]
    everything = usage_of(catalogue, uses, targets, _reach(settings), now=now)
    total = reuse(everything)
    found = [one for one in everything if metric in (None, one.metric)]
    if as_json:
        print_json(
            {
                "metrics": [one.as_json() for one in found],
                "reuse": {"rate": total.rate, "reused": total.reused, "unused": total.unused, "uses": total.uses},
            }
        )
        return

    if metric is None:
        _show_usage(everything)
    else:
        _show_users(found[0])
    say(
        f"{total.reused} of {total.metrics} metrics ({total.rate:.0%}) are used twice or more; "
        f"{total.unused} by nobody; {total.uses} uses in all."
    )
    say(
        "Counted are rules, formulas, forecasts and the retrospectives that are kept; not the catalogue, which has every "
        "metric, and not who reads one in messages, the API or the Dagster UI."
    )


def _show_usage(found: Sequence[Usage]) -> None:
    """One line a metric, with counts."""
    kinds = dict.fromkeys(("rule", "formula", "forecast", "report", *(kind for one in found for kind in one.by_kind)))
    rows = [
        {
            "metric": one.metric,
            "uses": one.uses,
            **{f"{kind}s": len(one.names(kind)) for kind in kinds},
            "downstream": len(one.downstream),
            "targets": one.targets,
            "remark": ", ".join(_remarks(one)),
        }
        for one in found
    ]
    print_table("Use of the metrics", rows, numbers=[name for name in rows[0] if name not in {"metric", "remark"}])


def _show_users(one: Usage) -> None:
    """One line a use."""
    rows = [{"used by": kind, "name": name} for kind, names in one.by_kind.items() for name in names]
    rows += [{"used by": "made of it", "name": name} for name in one.downstream if name not in one.names("formula")]
    print_table(f"Use of {one.metric}", rows)
    remarks = [*([f"{one.targets} targets and benchmarks"] if one.targets else []), *_remarks(one)]
    if remarks:
        say(f"{one.metric}: {', '.join(remarks)}.")


def _remarks(one: Usage) -> list[str]:
    unused = ["unused"] if one.is_unused else []
    return [*unused, *([f"stale by {one.stale_hours:,.0f} h"] if one.stale_hours else [])]


def _of_rules(settings: Settings, catalogue: Catalogue, seeds: Seeds) -> Iterator[Use]:
    """Rules by the metrics they judge, look at as a sample, or judge by their parts."""
    from metrics_pipeline.cli.door import metrics_of
    from metrics_pipeline.library.usage import RULE, Use
    from metrics_pipeline.rules.load import load_rules

    rules = {rule.id: rule for rule in load_rules(settings.rules_dir, catalogue, seeds).rules}
    for rule in rules.values():
        for name in metrics_of(rule, rules):
            yield Use(name, RULE, rule.id)


def _of_forecasts(settings: Settings) -> Iterator[Use]:
    """What the night forecasts because the installation says so."""
    from metrics_pipeline.library.usage import FORECAST, Use

    for name, dimensions in settings.installation.forecasts.items():
        for dimension in dimensions:
            yield Use(name, FORECAST, dimension)


def _of_reports(settings: Settings) -> list[Use]:
    """Pages of weekly retrospectives that are kept, by the metrics of the alerts they tell of."""
    from metrics_pipeline.followup.retrospective import UnknownWeek, Week, metrics_looked_back_on, parse_week
    from metrics_pipeline.library.usage import REPORT, Use

    weeks: list[Week] = []
    for page in sorted((settings.home / "retrospectives").glob("*.html")):
        with suppress(UnknownWeek):
            weeks.append(parse_week(page.stem))
    with opened_door(settings) as door, door.store.reading() as connection:
        sight = door.sight
        found = metrics_looked_back_on(connection, sight, weeks, zone=settings.zone)
    return [Use(name, REPORT, f"retrospective {week}") for name, week in found]


def _reach(settings: Settings) -> dict[str, datetime | None]:
    """Metric → end of its published values, shop-local; {} when nothing is published."""
    from metrics_pipeline.access.reader import NotPublished

    try:
        with opened_door(settings) as door:
            return {name: state.complete_until for name, state in door.published().metrics.items()}
    except NotPublished:
        return {}


def _show(found: Lineage) -> None:
    from metrics_pipeline.library.lineage import KINDS

    comes_from: dict[str, list[str]] = {}
    for edge in found.edges:
        comes_from.setdefault(edge.target, []).append(edge.source)
    rows = [
        {"layer": node.kind.replace("_", " "), "what": f"{'→ ' if node.id == found.metric else ''}{node.id}",
         "comes from": ", ".join(comes_from.get(node.id, []))}
        for kind in KINDS
        for node in found.nodes
        if node.kind == kind
    ]  # fmt: skip
    print_table(f"Lineage of {found.metric}", rows)
