"""`metrics api`: the read-only HTTP API and its tokens.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import PROBLEM, JsonOption, fail, nearest, print_json, print_table, usage
from metrics_pipeline.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="The read-only HTTP API for definitions and values, and its tokens.")
token_app = typer.Typer(no_args_is_help=True, help="Tokens of the API; each acts as a person.")
app.add_typer(token_app, name="token")

DEFAULT_DAYS = 90
NEVER = "never"


@app.command("serve", epilog="Examples: [bold]metrics api serve[/bold] · [bold]metrics api serve --port 8080[/bold]")
def api_serve(
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine's own only behind TLS.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    proxy: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A proxy that is believed when it says who called.")
    ] = None,
) -> None:
    """Serve the API until interrupted."""
    from metrics_pipeline.api.serve import make_server

    settings = load_settings()
    with opened_door(settings) as door:
        door.library  # noqa: B018 - definitions that cannot be used are told before it starts
        if not door.is_open:
            door.require("operate")
    typer.echo(f"HTTP API: http://{host}:{port}/v1/metrics (Ctrl-C ends it)", err=True)
    server = make_server(settings, host=host, port=port, proxy=proxy)
    try:
        server.run()
    except KeyboardInterrupt:
        return
    except SystemExit:
        fail(f"the API cannot listen at {host}:{port}; is the port in use? Choose another one with --port")
    if not server.started:
        raise typer.Exit(PROBLEM)


@app.command("openapi", epilog="Example: [bold]metrics api openapi --out openapi.json[/bold]")
def api_openapi(
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default: standard output.")] = None,
) -> None:
    """The OpenAPI document."""
    from metrics_pipeline.api.app import openapi_document

    text = json.dumps(openapi_document(load_settings()), ensure_ascii=False, indent=2)
    if out is None:
        typer.echo(text)
        return
    out.write_text(text + "\n", "utf-8")
    typer.echo(str(out))


@token_app.command(
    "create",
    epilog="Examples: [bold]metrics api token create li[/bold] · "
    "[bold]metrics api token create li --name notebook --expires 2027-03-31[/bold]",
)
def token_create(
    person: Annotated[str, typer.Argument(help="Whom it acts as: an id of _people.yml or `metrics access people`.")],
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    expires: Annotated[
        str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day; default: in 90 days; never = until revoked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token. It is shown this once; the store keeps only a hash."""
    from metrics_pipeline.api.tokens import new_token
    from metrics_pipeline.store import audit
    from metrics_pipeline.store.tokens import add_token

    with opened_door() as door:
        _require_own(door, person)
        _require_person(door, person)
        ends = _end(expires, door.now, door.settings)
        made = new_token(person, name, created_by=door.settings.user, now=door.now, expires_at=ends)
        details = {"token": made.row.id, "name": name, "expires_at": None if ends is None else ends.isoformat()}
        with door.store.writing("access") as connection:
            add_token(connection, made.row)
            audit.record(connection, door.caller, "token.create", person, now=door.now, details=details)
    if as_json:
        print_json({**made.row.as_json(), "token": made.text})
        return
    typer.echo(made.text)
    until = "until it is revoked" if ends is None else f"until {ends.astimezone(door.settings.zone):%Y-%m-%d %H:%M}"
    typer.echo(f"token {made.row.id} acts as {person} {until}; it is not shown again", err=True)


@token_app.command("list", epilog="Example: [bold]metrics api token list --person li --json[/bold]")
def token_list(
    person: Annotated[str | None, typer.Option(help="Only those of this person.")] = None, as_json: JsonOption = False
) -> None:
    """Tokens, also those that are over. Without `administer` one's own."""
    from metrics_pipeline.store.tokens import tokens

    with opened_door() as door:
        if person is not None:
            _require_own(door, person)
        elif not door.viewer.decide("administer").is_allowed:
            person = door.settings.user
        with door.store.reading() as connection:
            found = tokens(connection, person)
        rows = [{**one.as_json(), "holds": one.holds(door.now)} for one in found]
    if as_json:
        print_json({"tokens": rows})
        return
    zone = door.settings.zone
    print_table(
        "Tokens of the API",
        [
            {
                "token": one.id,
                "acts as": one.person,
                "name": one.name,
                "created": f"{one.created_at.astimezone(zone):%Y-%m-%d %H:%M} by {one.created_by}",
                "until": "" if one.expires_at is None else f"{one.expires_at.astimezone(zone):%Y-%m-%d %H:%M}",
                "state": "holds"
                if one.holds(door.now)
                else f"revoked by {one.revoked_by}"
                if one.revoked_at
                else "over",
            }
            for one in found
        ],
    )


@token_app.command("revoke", epilog="Example: [bold]metrics api token revoke 3f2a91c07be4[/bold]")
def token_revoke(
    number: Annotated[str, typer.Argument(metavar="TOKEN", help="Id of the token, as `metrics api token list` shows.")],
    as_json: JsonOption = False,
) -> None:
    """End a token now: its next request is refused."""
    from metrics_pipeline.store import audit
    from metrics_pipeline.store.tokens import revoke_token, token, tokens

    with opened_door() as door:
        with door.store.reading() as connection:
            found = token(connection, number)
            mine = [one.id for one in tokens(connection, door.settings.user)]
        if found is None or not (found.person == door.settings.user or door.viewer.decide("administer").is_allowed):
            usage(f"there is no token {number!r} that you may revoke{nearest(number, mine)}; `metrics api token list`")
        with door.store.writing("access") as connection:
            if not revoke_token(connection, number, door.settings.user, now=door.now):
                fail(f"token {number} was revoked already")
            details = {"token": number}
            audit.record(connection, door.caller, "token.revoke", found.person, now=door.now, details=details)
    if as_json:
        print_json({"token": number, "revoked": True})
    else:
        typer.echo(f"token {number} of {found.person} is revoked")


def _require_own(door: CliDoor, person: str) -> None:
    """Tokens of others are the administrator's business while a policy is on."""
    if not door.is_open and person != door.settings.user:
        door.require("administer")


def _require_person(door: CliDoor, person: str) -> None:
    """End with wrong usage when a policy is on and there is nobody of this id: nobody would ever be given anything."""
    from metrics_pipeline.routing.members import sync_people
    from metrics_pipeline.store import access as rows

    if not person or not person.isprintable() or any(one.isspace() for one in person):
        usage(f"{person!r} is no id of a person; it has no spaces")
    if door.is_open:
        return
    sync_people(door.store, door.directory, now=door.now)
    with door.store.reading() as connection:
        known = [one.id for one in rows.people(connection)]
    if person not in known:
        usage(f"there is nobody {person!r}{nearest(person, known)}; `metrics access people` lists everybody")


def _end(text: str | None, now: datetime, settings: Settings) -> datetime | None:
    """The end of the last day, shop time; None = never."""
    if text is None:
        return now + timedelta(days=DEFAULT_DAYS)
    if text == NEVER:
        return None
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        usage(f"--expires {text!r} is not a day; write it as 2027-03-31, or never")
    end = day.replace(tzinfo=settings.zone) + timedelta(days=1) if len(text) == 10 else day
    end = (end if end.tzinfo else end.replace(tzinfo=settings.zone)).astimezone(UTC)
    if end <= now:
        usage(f"--expires {text!r} is in the past")
    return end
