"""`metrics playbook`: the advice there is, what is wrong with its files, and their keys.

`app` hangs it up; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door, require_authors
from metrics_pipeline.cli.output import PROBLEM, JsonOption, print_json, print_table
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.advice.load import Playbook
    from metrics_pipeline.advice.playbook import Entry
    from metrics_pipeline.rules.load import Problem

app = typer.Typer(
    no_args_is_help=True,
    help="The playbook: what to do about an alert, and the evidence each advice needs.",
    epilog="Examples: [bold]metrics playbook list[/bold] · [bold]metrics playbook lint[/bold]",
)


@app.command("lint", epilog="Example: [bold]metrics playbook lint my_rules/[/bold]")
def playbook_lint(
    directory: Annotated[Path | None, typer.Argument(help="Folder of rule files; default: the installation's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every playbook file; print all problems at once, each with file, line and mend. Exit code 1 when there is one."""
    settings = load_settings()
    require_authors(settings)
    folder = (directory or settings.rules_dir).resolve()
    found = read_playbook(settings, folder)
    if as_json:
        print_json({"entries": [*found.entries], "problems": [_problem(one) for one in found.problems]})
    else:
        for problem in found.problems:
            typer.echo(str(problem))
        typer.echo(f"{len(found.entries)} entries, {len(found.problems)} problems in {folder}")
    if found.problems:
        raise typer.Exit(PROBLEM)


@app.command("list", epilog="Example: [bold]metrics playbook list --json[/bold]")
def playbook_list(as_json: JsonOption = False) -> None:
    """The advice there is, by id: the words of `metrics orders close --action`."""
    settings = load_settings()
    found = read_playbook(settings, settings.rules_dir)
    with opened_door(settings) as door:
        entries = [
            one for one in found.entries.values() if door.is_open or all(map(door.viewer.reading.knows, _metrics(one)))
        ]
    if as_json:
        print_json([{**one.model_dump(mode="json"), "from": found.places[one.id]} for one in entries])
        return
    print_table(
        "Playbook",
        [
            {
                "action": one.id,
                "of": ", ".join(map(str, one.when.alert)),
                "do": one.action_en,
                "做什么": one.action_zh,
                "owner": one.owner,
            }
            for one in entries
        ],
    )


@app.command("schema", epilog="Example: [bold]metrics playbook schema > playbook.schema.json[/bold]")
def playbook_keys() -> None:
    """Print the JSON Schema of a playbook file, for editors."""
    from metrics_pipeline.advice.playbook import playbook_schema

    print_json(playbook_schema())


def read_playbook(settings: Settings, folder: Path) -> Playbook:
    """The playbook of a folder, checked against the library, the people and the pages of the project."""
    from metrics_pipeline.advice.load import load_playbook
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.routing.load import load_directory
    from metrics_pipeline.settings import PROJECT_ROOT

    metrics = Catalogue.read(settings.dbt_project_dir).metrics
    return load_playbook(folder, metrics=metrics, directory=load_directory(folder), root=PROJECT_ROOT)


def _metrics(entry: Entry) -> set[str]:
    when = entry.when
    below = () if when.pyramid is None else when.pyramid.metric
    return {one.metric for one in (*when.alert, *when.also, *below)} | set(when.still)


def _problem(one: Problem) -> dict[str, Any]:
    return {"file": str(one.file), "line": one.line, "message": one.message, "mend": one.mend}
