"""`metrics retrospective`: looking back on a week, or on one alert; as a table, HTML, Markdown or JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import JsonOption, fail, print_json, usage
from metrics_pipeline.settings import load_settings


def add_to(app: typer.Typer) -> None:
    """Hang the command up."""
    app.command(
        "retrospective",
        epilog="Examples: [bold]metrics retrospective[/bold] · [bold]metrics retrospective --week 2026-W46 --html week.html[/bold] · "
        "[bold]metrics retrospective --episode 'refund_rate_surge{region=华北}@2026-11-11T00:00' --html episode.html[/bold]",
    )(retrospective)


def retrospective(
    week: Annotated[
        str | None,
        typer.Option(
            "--week", metavar="2026-W46", help="Default: the week before this; this one if only it has alerts."
        ),
    ] = None,
    episode: Annotated[str | None, typer.Option("--episode", help="One alert instead of a week.")] = None,
    *,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    lang: Annotated[str, typer.Option("--lang", "--language", help="zh or en; default: the installation's.")] = "",
    as_json: JsonOption = False,
) -> None:
    """What happened, detected when, told whom, what was done, what came of it; rule quality, proposals and measured effects."""
    from metrics_pipeline.alerts.story import UnknownAlert
    from metrics_pipeline.followup import page
    from metrics_pipeline.followup.quality import addresses
    from metrics_pipeline.followup.retrospective import (
        UnknownWeek,
        look_at_episode,
        look_at_week,
        newest_week,
        parse_week,
    )
    from metrics_pipeline.routing.load import routing_of

    settings = load_settings()
    if week is not None and episode is not None:
        usage("give --week or --episode, not both")
    locale = lang or settings.locale
    if locale not in ("zh", "en"):
        usage(f"--lang {lang!r} is not known; write zh or en")
    paper = page.Paper("zh" if locale == "zh" else "en", settings.zone, settings.installation.currency)
    with opened_door(settings) as door:
        door.require_export("retrospective", html)
        people = addresses(routing_of(settings))
        if episode is not None:
            try:
                found = look_at_episode(
                    door.store, door.sight, episode, zone=settings.zone, people=people, now=door.now
                )
            except UnknownAlert as error:
                fail(str(error))
            data = found.as_json(settings.ui_url)
            text = page.episode_html(found, paper) if html else "" if as_json else page.episode_markdown(found, paper)
        else:
            try:
                chosen = (
                    parse_week(week) if week else newest_week(door.store, door.sight, zone=settings.zone, now=door.now)
                )
            except UnknownWeek as error:
                usage(str(error))
            look = look_at_week(door.store, door.sight, chosen, zone=settings.zone, people=people, now=door.now)
            data = look.as_json()
            text = page.week_html(look, paper) if html else "" if as_json else page.week_markdown(look, paper)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(text, "utf-8")
        if not as_json:
            typer.echo(f"Page: {html}")
    if as_json:
        print_json(data)
    elif html is None:
        typer.echo(text)
