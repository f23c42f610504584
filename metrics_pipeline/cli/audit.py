"""`metrics audit`: who did what, whether that record is whole, and how long it is kept.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    fail,
    parse_moment,
    print_json,
    print_table,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True, help="The audit log: who did what, when, from where; append-only.")

_LIKE = "2026-11-11 or 2026-11-11T08:00"


@app.command(
    "list",
    epilog="Examples: [bold]metrics audit list --actor li --from 2026-11-01[/bold] · "
    "[bold]metrics audit list --action grant. --json[/bold] · [bold]metrics audit list --outcome denied[/bold]",
)
def audit_list(  # noqa: PLR0917 - options of a command
    actor: Annotated[str | None, typer.Option(help="Only what this person or service did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this action; `grant.` means all of grants.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this metric, rule or person.")] = None,
    outcome: Annotated[str | None, typer.Option(help="done or denied")] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Since this day or time.")] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before this day or time.")] = None,
    before: Annotated[int | None, typer.Option(metavar="ROW", help="The page before this row.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows of a page.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Rows of the audit log, the newest first."""
    from metrics_pipeline.store import audit

    settings = load_settings()
    if outcome not in (None, "done", "denied"):
        usage(f"--outcome {outcome!r} is not known; write done or denied")
    since = None if first is None else parse_moment(first, "--from", settings.zone, like=_LIKE)
    until = None if last is None else parse_moment(last, "--to", settings.zone, like=_LIKE)
    with opened_door(settings) as door, door.store.reading() as connection:
        door.require("audit")
        found = audit.entries(
            connection,
            actor=actor,
            action=action,
            subject=subject,
            outcome=outcome,
            since=since,
            until=until,
            before=before,
            limit=limit,
        )
    following = found[-1].sequence if len(found) == limit else None
    if as_json:
        print_json({"entries": [one.as_json() for one in found], "next": following})
        return
    print_table("Audit log", [_row(one, settings) for one in found])
    if following is not None:
        typer.echo(f"older ones: --before {following}")


@app.command(
    "verify",
    epilog="Examples: [bold]metrics audit verify[/bold] · [bold]metrics audit verify --head 1204:9f86d081…[/bold]",
)
def audit_verify(
    noted: Annotated[
        str | None, typer.Option("--head", metavar="ROW:HASH", help="A head printed earlier and kept elsewhere.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Follow the chain of hashes; names the first row that was edited, removed, put in or cut off. Exit code 1 then."""
    from metrics_pipeline.store import audit
    from metrics_pipeline.store.anchor import Head

    wanted: Head | None = None
    if noted is not None:
        number, _, digest = noted.partition(":")
        if not number.isdigit() or not digest:
            usage(f"--head {noted!r} is not a head; write it as `metrics audit verify` printed it: ROW:HASH")
        wanted = Head(int(number), digest)
    with opened_door() as door, _told():
        door.require("audit")
        found = audit.verify(door.store, noted=wanted)
    if as_json:
        print_json(
            {
                "rows": found.rows,
                "head": found.head._asdict(),
                "checkpoint": found.checkpoint._asdict(),
                "broken": None if found.broken is None else found.broken._asdict(),
            }
        )
    elif found.broken is None:
        typer.echo(f"{found.rows:,} rows, unbroken. Head: {found.head.sequence}:{found.head.hash}")
    if found.broken is not None:
        if not as_json:
            typer.echo(f"broken at row {found.broken.sequence}: {found.broken.problem}", err=True)
        raise typer.Exit(PROBLEM)


@app.command("prune", epilog="Example: [bold]metrics audit prune --before 2024-01-01[/bold]")
def audit_prune(
    before: Annotated[str, typer.Option("--before", metavar="TIME", help="Rows older than this day or time.")],
    as_json: JsonOption = False,
) -> None:
    """Remove old rows; a checkpoint stays from which the rest verifies, and a row that says who did it."""
    from metrics_pipeline.store import audit

    settings = load_settings()
    now = datetime.now(UTC)
    moment = parse_moment(before, "--before", settings.zone, like=_LIKE)
    if moment > now:
        usage(f"--before {before!r} is to come")
    with opened_door(settings) as door, _told():
        door.require("administer")
        count = audit.prune(door.store, door.caller, moment, now=now)
    if as_json:
        print_json({"removed": count})
    else:
        typer.echo(f"{count:,} rows removed")


@app.command("accept", epilog="Example: [bold]metrics audit accept --reason 'database restored from 03:00'[/bold]")
def audit_accept(
    reason: Annotated[str, typer.Option("--reason", help="Why the log is not the one it was.")],
    as_json: JsonOption = False,
) -> None:
    """After a database was restored: go on from its log. What was broken is recorded with the reason."""
    from metrics_pipeline.store import audit

    settings = load_settings()
    if not reason.strip():
        usage("--reason is empty; say why the log is not the one it was")
    with opened_door(settings) as door:
        door.require("administer")
        entry = audit.accept(door.store, door.caller, reason, now=door.now)
    if as_json:
        print_json(entry.as_json())
    else:
        typer.echo(f"recorded as row {entry.sequence}; the log goes on from it")


def _row(one: Any, settings: Settings) -> dict[str, Any]:
    return {
        "row": str(one.sequence),
        "at": f"{one.at.astimezone(settings.zone):%Y-%m-%d %H:%M:%S}",
        "actor": one.actor,
        "action": one.action,
        "subject": one.subject,
        "slice": one.slice,
        "outcome": one.outcome,
        "door": one.door,
        "from": one.origin,
        "details": ", ".join(f"{name}: {value}" for name, value in one.details.items() if value not in (None, [], {})),
    }


@contextmanager
def _told() -> Iterator[None]:
    from metrics_pipeline.store.audit import AuditError

    try:
        yield
    except AuditError as error:
        fail(str(error))
