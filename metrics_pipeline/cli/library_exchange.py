"""`metrics library export` and `import`: definitions in the words of dbt's semantic layer and of OSI.

Hangs on the app of `library`; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.library import whole_catalogue
from metrics_pipeline.cli.output import PROBLEM, JsonOption, fail, nearest, print_json, print_table, say, steps, usage
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.interchange import Plan
    from metrics_pipeline.library.lint import Finding

FORMATS = ("dbt", "osi")


def add_to_library(app: typer.Typer) -> None:
    """Hang the verbs on `metrics library`."""
    app.command(
        "export",
        epilog="Examples: [bold]metrics library export > metrics.yml[/bold] · "
        "[bold]metrics library export refund_rate order_health --out shared.yml[/bold] · "
        "[bold]metrics library export --format osi --out metrics.osi.yml[/bold]",
    )(library_export)
    app.command(
        "import",
        epilog="Examples: [bold]metrics library import their_metrics.yml[/bold] · "
        "[bold]metrics library import their_metrics.yml --save[/bold]",
    )(library_import)


def library_export(
    metrics: Annotated[list[str] | None, typer.Argument(help="Metric ids; default: all. Inputs come along.")] = None,
    to: Annotated[
        str, typer.Option("--format", help="dbt (semantic layer) or osi (Open Semantic Interchange).")
    ] = "dbt",
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
) -> None:
    """Write definitions as one portable file; what a format cannot express is said on standard error."""
    from metrics_pipeline.library.dbt_format import export_dbt
    from metrics_pipeline.library.interchange import with_inputs
    from metrics_pipeline.library.osi_format import export_osi
    from metrics_pipeline.store.audit import Event

    if to not in FORMATS:
        usage(f"--format {to!r} is not known; write {' or '.join(FORMATS)}")
    settings = load_settings()
    left_out: dict[str, str] = {}
    with opened_door(settings) as door:
        catalogue = whole_catalogue(settings)
        names = _exported(door, catalogue, metrics or ())
        if to == "osi":
            exported = export_osi(catalogue, names)
            text = exported.text
            left_out = dict(exported.left_out)
            for name, reasons in exported.notes.items():
                typer.echo(f"{name}: only the extension says that {'; '.join(reasons)}", err=True)
            for name, reason in left_out.items():
                typer.echo(f"{name}: left out, OSI has no words for {reason}", err=True)
        else:
            text = export_dbt(catalogue, names)
        count = len(with_inputs(catalogue, names)) - len(left_out)
        subject = ",".join(metrics) if metrics else "all"
        door.record([Event("library.export", subject, details={"format": to, "metrics": count})])
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(f".{out.name}.part")
        part.write_text(text, "utf-8")
        part.replace(out)
    except OSError as error:
        fail(f"--out {out} cannot be written: {error.strerror}")
    typer.echo(f"{count} metrics in {out}", err=True)


def library_import(
    file: Annotated[Path, typer.Argument(help="A file of dbt metrics, or an OSI document (YAML or JSON).")],
    save: Annotated[bool, typer.Option("--save", help="Write the new definitions and their models.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take metrics of others whose measures are ours: first a look at what they would be, written only with --save."""
    from metrics_pipeline.cli.library_compose import check_project
    from metrics_pipeline.library.compose import ComposeError, saved
    from metrics_pipeline.library.dbt_format import read_dbt
    from metrics_pipeline.library.interchange import plan_import
    from metrics_pipeline.library.osi_format import format_of, read_osi
    from metrics_pipeline.store.audit import Event

    if not file.is_file():
        usage(f"there is no file {file}")
    settings = load_settings()
    written: list[Path] = []
    with opened_door(settings) as door:
        # What an import says of the library (what is there, what is defined otherwise) is for those who may change it.
        door.require_general("compose")
        door.require_general("read")
        catalogue = whole_catalogue(settings)
        reading = read_osi(file, catalogue) if format_of(file) == "osi" else read_dbt(file, catalogue)
        plan = plan_import(catalogue, reading)
        rows = _rows(plan, door)
        if save and plan.composition is not None and not plan.refusals:
            names = plan.composition.ids
            event = Event("library.import", ",".join(names), details={"file": str(file), "metrics": len(names)})
            try:
                with steps("Writing the definitions") as (tell, _), saved(plan.composition) as written:
                    tell("Reading the project with dbt")
                    check_project(settings)
                    door.record([event])
            except ComposeError as error:
                fail(str(error))
    if as_json:
        print_json(
            {
                "new": rows,
                "same": list(plan.same),
                "notes": list(plan.notes),
                "warnings": [str(one.problem) for one in _warnings(plan)],
                "problems": [
                    {"file": one.file, "line": one.line, "message": one.message, "mend": one.mend}
                    for one in plan.refusals
                ],
                "written": written,
            }
        )
    else:
        _tell(plan, rows, written)
    if plan.refusals:
        raise typer.Exit(PROBLEM)


def _tell(plan: Plan, rows: list[dict[str, Any]], written: list[Path]) -> None:
    for problem in plan.refusals:
        typer.echo(str(problem))
    for note in plan.notes:
        typer.echo(f"note: {note}")
    if plan.refusals:
        count = len(plan.refusals)
        typer.echo(f"{count} {'problem' if count == 1 else 'problems'}; nothing was written", err=True)
        return
    for warning in _warnings(plan):
        typer.echo(f"warning: {warning.problem}")
    if plan.same:
        typer.echo(f"{len(plan.same)} metrics are here already, word for word")
    if rows:
        shown = ("metric", "name", "layer", "formula", "unit", "newest")
        print_table(
            f"{len(rows)} new {'metric' if len(rows) == 1 else 'metrics'}",
            [{name: row[name] for name in shown} for row in rows],
            numbers=("newest",),
        )
        for row in rows:
            typer.echo(f"{row['metric']} {row['history']}")
        if written:
            say(
                f"{len(written)} files written; the next night builds them ([bold]metrics backfill[/bold]: the past, too)"
            )
        else:
            say("Nothing was written; [bold]--save[/bold] does")


def _warnings(plan: Plan) -> Sequence[Finding]:
    """What `metrics library lint` would warn of with the new metrics, and does not now."""
    found = plan.composition.warnings if plan.composition is not None else ()
    return [one for one in found if one.severity == "warning"]


def _rows(plan: Plan, door: CliDoor) -> list[dict[str, Any]]:
    return [
        {
            "metric": metric.id,
            "name": f"{metric.name_zh} {metric.name_en}",
            "layer": metric.layer,
            "formula": metric.formula,
            "unit": metric.unit,
            "slices": ", ".join(metric.slices),
            "version": metric.version,
            **_history(plan, metric.id, door),
        }
        for metric in plan.metrics.values()
    ]


def _history(plan: Plan, metric: str, door: CliDoor) -> dict[str, Any]:
    """What the metric would have been on published days, in total; or why nobody can say."""
    from metrics_pipeline.cli.library_compose import plot_line
    from metrics_pipeline.library.facts import PreviewError
    from metrics_pipeline.library.trial import trial
    from metrics_pipeline.warehouse.read import NotPublished

    assert plan.composition is not None
    try:
        composed = plan.composition.catalogue
        values = trial(door.published(), composed, metric, facts=door.counted(composed))
    except (PreviewError, NotPublished) as error:
        return {"newest": None, "history": f"no preview: {error}"}
    total = values[values["dimension"] == "all"]
    if total.empty:
        return {"newest": None, "history": "no preview: its inputs have no common day"}
    return {"newest": float(total["value"].iloc[-1]), "history": plot_line(total["value"].tolist())}


def _exported(door: CliDoor, catalogue: Catalogue, wanted: Sequence[str]) -> list[str]:
    """The metrics to be written. Ends in words when one is unknown, or they or their inputs may not be exported."""
    from metrics_pipeline.library.interchange import named_with, with_inputs

    known = door.known(catalogue.metrics)
    for name in wanted:
        if name not in known:
            usage(f"there is no metric {name!r}{nearest(name, known)}; `metrics library list`")
        parts = with_inputs(catalogue, [name])
        for one in parts:
            door.require("export", one)
        if not all(map(door.viewer.reading.knows, named_with(catalogue, parts))):
            door.deny("export", name)
            fail(f"{name} is made of something that {door.viewer.person} may not see (无权限)")
    if wanted:
        return list(wanted)
    door.require("export")
    rights = door.viewer.rights("export")
    given = {name for name in known if rights.decide(name).is_allowed}
    names = [
        name
        for name in catalogue.metrics
        if given.issuperset(with_inputs(catalogue, [name]))
        and all(map(door.viewer.reading.knows, named_with(catalogue, [name])))
    ]
    if not names:
        fail(f"{door.viewer.person} may export no metric with all that it is made of (无权限)")
    return names
