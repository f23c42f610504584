"""`metrics library site`: the catalogue as a folder of pages that opens without a server.

Hangs on the app of `library`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.library import whole_catalogue
from metrics_pipeline.cli.output import JsonOption, fail, nearest, print_json, say, steps, usage
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.access.reader import GuardedValues
    from metrics_pipeline.access.viewer import Viewer
    from metrics_pipeline.library.catalogue import Metric


def add_to_library(app: typer.Typer) -> None:
    """Hang the verb on `metrics library`."""
    app.command(
        "site",
        epilog="Examples: [bold]metrics library site[/bold] · [bold]metrics library site --out /srv/www/metrics[/bold] · "
        "[bold]metrics library site --person li --out li/[/bold]",
    )(library_site)


def library_site(
    out: Annotated[Path | None, typer.Option(help="Folder of the site; default: site/ in the installation.")] = None,
    person: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what this person may see; default: for everybody.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the catalogue as a searchable site in Chinese and English; open its index.html, no server is needed.

    The site for everybody has no values of confidential metrics. With --person it has what the grants of that person
    give, and nothing else is named in it.
    """
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of
    from metrics_pipeline.site.content import gather
    from metrics_pipeline.site.folder import NotOurFolder, check_ours, replace_folder
    from metrics_pipeline.site.pages import site_files
    from metrics_pipeline.store.audit import Event

    settings = load_settings()
    folder = (out or settings.home / "site").absolute()
    began = time.perf_counter()
    try:
        check_ours(folder)
    except NotOurFolder as error:
        usage(f"--out: {error}")
    with steps("Reading") as (tell, _), opened_door(settings) as door:
        viewer = _viewer(door, person)
        catalogue = whole_catalogue(settings)
        seeds = seeds_of(settings)
        exporting = door.viewer.rights("export")
        leaving = {name for name in catalogue.metrics if exporting.decide(name).is_allowed}
        shown, withheld = _split(catalogue.metrics, viewer, leaving, for_everybody=person is None)
        content = gather(
            catalogue,
            published=_published(settings.published_dir, viewer),
            rules=load_rules(settings.rules_dir, catalogue, seeds).rules,
            store=door.store,
            promotions=seeds.promotions,
            currency=settings.installation.currency,
            shown=shown,
            withheld=withheld,
            sliced=() if person is None else withheld & leaving,
            directory=door.directory,
        )
        door.record([Event("library.site", person or "everybody", details={"metrics": len(shown)})])
        tell(f"Writing {len(shown)} pages")
        try:
            count = replace_folder(folder, site_files(content, locale=settings.locale))
        except OSError as error:
            fail(f"{folder} cannot be written: {error.strerror}; free the disk or name another folder with --out")
    seconds = round(time.perf_counter() - began, 2)
    if as_json:
        print_json(
            {
                "folder": folder,
                "person": person,
                "files": count,
                "metrics": len(content.entries),
                "withheld": sorted(withheld),
                "data_version": content.data_version,
                "seconds": seconds,
            }
        )
        return
    say(f"{len(content.entries)} metrics in {seconds} s: {folder / 'index.html'}")
    if not content.entries:
        say(f"{person or settings.user} may read no metric; `metrics access grant` gives some")
    if withheld:
        say(f"Without totals: {', '.join(name for name in content.entries if name in withheld)}")
    if content.data_version is None:
        say(
            "Nothing is published yet, so there are definitions only; run [bold]metrics nightly[/bold] first for values."
        )


def _viewer(door: CliDoor, person: str | None) -> Viewer:
    """Through whose eyes the site is made. Ends with exit code 1 when the user of this process may not make it."""
    from metrics_pipeline.routing.members import sync_people
    from metrics_pipeline.store import access as rows

    door.require("export")
    if person is None:
        return door.viewer
    if person != door.settings.user:
        door.require("administer")
    sync_people(door.store, door.directory, now=door.now)
    with door.store.reading() as connection:
        known = [one.id for one in rows.people(connection)]
    if person not in known:
        usage(f"--person: there is no person {person!r}{nearest(person, known)}")
    return door.viewer_of(person, as_if_on=True)


def _split(
    metrics: Mapping[str, Metric], viewer: Viewer, leaving: Collection[str], *, for_everybody: bool
) -> tuple[set[str], set[str]]:
    """Metrics that are on the site, and those of them whose values are not. `leaving`: those that may be exported."""
    from metrics_pipeline.access.model import Level

    shown = {name for name in metrics if viewer.reading.knows(name)}
    return shown, {
        name
        for name in shown
        if name not in leaving
        or viewer.level(name) != Level.EXACT
        or (for_everybody and metrics[name].sensitivity == "confidential")
    }


def _published(directory: Path, viewer: Viewer) -> GuardedValues | None:
    from metrics_pipeline.access.reader import GuardedValues, NotPublished

    try:
        return GuardedValues.for_viewer(directory, viewer)
    except NotPublished:
        return None
