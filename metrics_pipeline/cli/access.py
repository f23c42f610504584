"""`metrics access`: who may see and do what, and why.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import (
    JsonOption,
    fail,
    nearest,
    parse_moment,
    print_json,
    print_table,
    usage,
)
from metrics_pipeline.settings import Settings

if TYPE_CHECKING:
    from metrics_pipeline.access.model import Grant, Selector, SubjectName
    from metrics_pipeline.access.viewer import Viewer
    from metrics_pipeline.store.access import GrantRow

app = typer.Typer(
    no_args_is_help=True,
    help="Permissions: people, positions, business lines, grants. Off until `metrics access enable`; then nothing is "
    "allowed that no grant allows.",
)
people_app = typer.Typer(invoke_without_command=True, help="Who can be given something.")
app.add_typer(people_app, name="people")

SUBJECT_HELP = "A person's id, or position:ID, line:ID, channel:NAME, service:NAME."
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the grant and in the audit log.")]
Many = list[str] | None


# -- the policy ----------------------------------------------------------------------------------------------------


@app.command("enable", epilog="Example: [bold]metrics access enable --admin li[/bold]")
def access_enable(
    admin: Annotated[str, typer.Option("--admin", metavar="ID", help="A person who then administers it.")],
    as_json: JsonOption = False,
) -> None:
    """Turn the policy on: from then on nothing is allowed that no grant allows, for METRICS_USER and everybody."""
    from metrics_pipeline.access.model import ACTIONS
    from metrics_pipeline.routing.members import sync_people
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    with opened_door() as door:
        if not door.is_open:
            fail("the policy is on already; `metrics access show ID` says what somebody may do")
        sync_people(door.store, door.directory, now=door.now)
        _require_subject(door, _subject(admin))
        with door.store.writing("access") as connection:
            given = rows.add_grant(
                connection,
                {
                    "subject_kind": "person",
                    "subject": admin,
                    "actions": sorted(ACTIONS),
                    "selectors": [["all", ""]],
                    "slices": {},
                    "level": "hidden",
                    "starts_at": None,
                    "expires_at": None,
                    "granted_by": door.settings.user,
                    "granted_at": door.now,
                    "reason": "first administrator",
                },
            )
            rows.enable(connection, door.settings.user, now=door.now)
            audit.record(
                connection, door.caller, "access.enable", "installation", now=door.now, details=given.as_json()
            )
        if as_json:
            print_json({"enabled": True, "admin": admin, "grant": given.as_json()})
            return
        typer.echo(f"the policy is on; {admin} administers it (grant {given.id}) and sees no confidential value")
        if door.settings.user != admin:
            typer.echo(f"you are {door.settings.user}: set METRICS_USER={admin} to act as {admin}", err=True)


@app.command("disable", epilog="Example: [bold]metrics access disable --reason 'test installation'[/bold]")
def access_disable(reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Turn the policy off again: everything is shown to everybody. Grants stay for the next time."""
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    with opened_door() as door:
        door.require("administer")
        with door.store.writing("access") as connection:
            was_on = rows.disable(connection)
            if was_on:
                details = {"reason": reason}
                audit.record(connection, door.caller, "access.disable", "installation", now=door.now, details=details)
    if as_json:
        print_json({"enabled": False, "changed": was_on})
    else:
        typer.echo("the policy is off: everything is shown to everybody" if was_on else "the policy was off")


@app.command(
    "grant",
    epilog="Examples: [bold]metrics access grant li --metric gmv --slice region=华北 --reason '华北区经理'[/bold] · "
    "[bold]metrics access grant position:finance --line finance --level exact --reason 'monthly closing'[/bold] · "
    "[bold]metrics access grant line:trade --action read --action export --all --reason 'own reports'[/bold]",
)
def access_grant(  # noqa: PLR0917 - options of a command
    subject: Annotated[str, typer.Argument(help=SUBJECT_HELP)],
    reason: ReasonOption,
    action: Annotated[
        Many, typer.Option("--action", help="read (the default), compose, approve, acknowledge, …")
    ] = None,
    metric: Annotated[
        Many, typer.Option("--metric", help="This metric; may be given again, like the next ones.")
    ] = None,
    line: Annotated[Many, typer.Option("--line", help="All metrics of a business line.")] = None,
    layer: Annotated[Many, typer.Option("--layer", help="base, operational or strategic.")] = None,
    category: Annotated[Many, typer.Option("--category", help="traffic, product, order, user or finance.")] = None,
    sensitivity: Annotated[Many, typer.Option("--sensitivity", help="public, internal or confidential.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All metrics.")] = False,
    slice_: Annotated[
        Many, typer.Option("--slice", metavar="DIMENSION=MEMBER,…", help="Only slices that have it; all must be met.")
    ] = None,
    level: Annotated[
        str, typer.Option("--level", help="How confidential metrics are shown: hidden, banded, exact.")
    ] = "hidden",
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Since when; default: now.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when; default: until revoked.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Give something to a person, a position, a business line or a channel. A confidential metric needs a level."""
    from metrics_pipeline.access.model import Selector
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    with opened_door() as door:
        door.require("administer")
        name = _subject(subject)
        _require_subject(door, name)
        chosen = [Selector("all")] if everything else []
        for kind, values in (
            ("metric", metric),
            ("line", line),
            ("layer", layer),
            ("category", category),
            ("sensitivity", sensitivity),
        ):
            chosen += [Selector(kind, value) for value in values or ()]
        _check_selectors(door, chosen)
        actions = _actions(action, chosen)
        if level not in ("hidden", "banded", "exact"):
            usage(f"--level {level!r} is not known; write hidden, banded or exact")
        if not reason.strip():
            usage("--reason is empty; say why")
        zone, like = door.settings.zone, "2026-11-11 or 2026-11-11T18:00"
        starts = None if start is None else parse_moment(start, "--from", zone, like=like)
        ends = None if until is None else parse_moment(until, "--until", zone, like=like)
        if ends is not None and ends <= (starts or door.now):
            usage(f"--until {until!r} is not after the grant begins")
        fields = {
            "subject_kind": name.kind,
            "subject": name.id,
            "actions": sorted(actions),
            "selectors": [list(one) for one in chosen],
            "slices": _slices(door, slice_ or ()),
            "level": level,
            "starts_at": starts,
            "expires_at": ends,
            "granted_by": door.settings.user,
            "granted_at": door.now,
            "reason": reason,
        }
        with door.store.writing("access") as connection:
            given = rows.add_grant(connection, fields)
            audit.record(connection, door.caller, "grant.add", str(name), now=door.now, details=given.as_json())
        follows = _follows(door, name)
    if as_json:
        print_json({**given.as_json(), "derivable": [{"metric": one, "from": what} for one, what in follows]})
        return
    typer.echo(f"grant {given.id}: {_words(given)}")
    for one, what in follows:
        typer.echo(f"note: {one} is not given, and can be computed from {what}", err=True)


@app.command("revoke", epilog="Example: [bold]metrics access revoke 12 --reason 'changed teams'[/bold]")
def access_revoke(
    number: Annotated[int, typer.Argument(help="Number of the grant.")],
    reason: ReasonOption,
    as_json: JsonOption = False,
) -> None:
    """End a grant now."""
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    with opened_door() as door:
        door.require("administer")
        with door.store.writing("access") as connection:
            known = rows.grant(connection, number)
            if known is None or known.revoked_at is not None:
                fail(f"there is no grant {number} that holds; `metrics access show ID` lists them")
            others = [one for one in rows.grants(connection) if one.id != number and _administers(one, door)]
            if not door.is_open and _administers(known, door) and not others:
                fail(f"grant {number} is the last one by which a person may administer; give another one first")
            rows.revoke_grant(connection, number, door.settings.user, now=door.now)
            subject = known.subject if known.subject_kind == "person" else f"{known.subject_kind}:{known.subject}"
            details = {"grant": number, "reason": reason}
            audit.record(connection, door.caller, "grant.revoke", subject, now=door.now, details=details)
    if as_json:
        print_json({"grant": number, "revoked": True})
    else:
        typer.echo(f"grant {number} is revoked: {_words(known)}")


@app.command(
    "show", epilog="Examples: [bold]metrics access show li[/bold] · [bold]metrics access show position:sales[/bold]"
)
def access_show(
    subject: Annotated[str, typer.Argument(help=SUBJECT_HELP)],
    everything: Annotated[bool, typer.Option("--history", help="Ended and revoked grants, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """What somebody may do, by which grants, and which metrics they see how."""
    from metrics_pipeline.access.viewer import grant_of
    from metrics_pipeline.store import access as rows

    with opened_door() as door:
        name = _subject(subject)
        _about(door, name)
        viewer = door.viewer_of(name.id, name.kind, as_if_on=True)
        of = {
            (name.kind, name.id),
            *(("position", one) for one in viewer.subjects.positions),
            *(("line", one) for one in viewer.subjects.lines),
        }
        with door.store.reading() as connection:
            found = rows.grants(connection, subjects=sorted(of))
        held = [one for one in found if everything or grant_of(one).holds(door.now)]
        metrics = [
            {"metric": one, "slices": _slice_words(viewer, one), "level": _best(viewer, one)}
            for one in viewer.metrics
            if viewer.reading.knows(one)
        ]
    if as_json:
        print_json(
            {
                "subject": str(name),
                "positions": sorted(viewer.subjects.positions),
                "lines": sorted(viewer.subjects.lines),
                "grants": [one.as_json() for one in held],
                "reads": metrics,
            }
        )
        return
    if others := sorted(of - {(name.kind, name.id)}):
        typer.echo(f"{name} is in {', '.join(' '.join(one) for one in others)}")
    print_table("Grants", [_grant_row(one, door.settings) for one in held])
    print_table("Reads", metrics)


@app.command(
    "why",
    epilog="Examples: [bold]metrics access why li gmv region=华北[/bold] · [bold]metrics access why li gmv --action export[/bold]",
)
def access_why(
    person: Annotated[str, typer.Argument(help=SUBJECT_HELP)],
    metric: Annotated[str, typer.Argument(help="Metric id.")],
    slice_: Annotated[
        str, typer.Argument(metavar="[SLICE]", help="region=华北, or region|channel=华北|app; default: the total.")
    ] = "all",
    action: Annotated[str, typer.Option("--action")] = "read",
    as_json: JsonOption = False,
) -> None:
    """Whether somebody may do something with a metric on a slice, how exactly, and by which grant. Exit code 1 if not."""
    from metrics_pipeline.access.model import ACTIONS

    if action not in ACTIONS:
        usage(f"--action {action!r} is not known; write {', '.join(ACTIONS)}")
    dimension, _, member = slice_.partition("=")
    if dimension != "all" and not member:
        usage(f"{slice_!r} is not a slice; write region=华北 or all")
    with opened_door() as door:
        name = _subject(person)
        _about(door, name)
        found = door.viewer_of(name.id, name.kind, as_if_on=True).decide(action, metric, dimension, member or "all")
        is_open = door.is_open
    answer = {
        "subject": str(name),
        "action": action,
        "metric": metric,
        "slice": slice_,
        "level": found.level.word,
        "grant": found.grant,
        "reason_en": found.reason_en,
        "reason_zh": found.reason_zh,
        "policy": "off" if is_open else "on",
    }
    if as_json:
        print_json(answer)
    else:
        typer.echo(f"{name}, {action} {metric} {slice_}: {found.level.word} — {found.reason_en} · {found.reason_zh}")
        if is_open:
            typer.echo("the policy is off: for now everybody may do everything", err=True)
    if not found.is_allowed:
        raise typer.Exit(1)


@app.command("database-roles", epilog="Example: [bold]metrics access database-roles | psql -d metrics[/bold]")
def access_database_roles(
    prefix: Annotated[str, typer.Option("--prefix", help="Before the names of the roles.")] = "metrics",
) -> None:
    """Print SQL that makes PostgreSQL roles for the services, each with what it needs and no more."""
    from metrics_pipeline.store.roles import role_statements

    try:
        statements = role_statements(prefix)
    except ValueError as error:
        usage(str(error))
    for statement in statements:
        typer.echo(f"{statement};")


# -- people --------------------------------------------------------------------------------------------------------


@people_app.callback(
    epilog="Examples: [bold]metrics access people[/bold] · [bold]metrics access people add wang --position sales[/bold]"
)
def people(context: typer.Context, as_json: JsonOption = False) -> None:
    """Who can be given something: the people of _people.yml with their teams and lines, and whoever was added."""
    if context.invoked_subcommand is not None:
        return
    from metrics_pipeline.routing.members import sync_people
    from metrics_pipeline.store import access as rows

    with opened_door() as door:
        if not door.is_open:
            door.require("administer")
        sync_people(door.store, door.directory, now=door.now)
        with door.store.reading() as connection:
            found, members = rows.people(connection), rows.memberships(connection)
    table = [
        {
            "person": one.id,
            "name": f"{one.name_zh} {one.name_en}".strip(),
            "positions": [it.of for it in members if it.person == one.id and it.kind == "position"],
            "lines": [it.of for it in members if it.person == one.id and it.kind == "line"],
            "from": "_people.yml" if one.source == rows.FILE else "added",
        }
        for one in found
    ]
    if as_json:
        print_json(table)
    else:
        print_table(
            "People",
            [{**row, "positions": ", ".join(row["positions"]), "lines": ", ".join(row["lines"])} for row in table],
        )


@people_app.command(
    "add", epilog="Example: [bold]metrics access people add wang --name-zh 王芳 --position finance[/bold]"
)
def people_add(  # noqa: PLR0917 - options of a command
    person: Annotated[str, typer.Argument(metavar="ID")],
    name_zh: Annotated[str, typer.Option("--name-zh")] = "",
    name_en: Annotated[str, typer.Option("--name-en")] = "",
    position: Annotated[Many, typer.Option("--position", help="A position; any word of letters.")] = None,
    line: Annotated[Many, typer.Option("--line", help="A business line.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add somebody who is not in _people.yml, or positions and lines to somebody who is."""
    from pydantic import TypeAdapter, ValidationError

    from metrics_pipeline.routing.people import Id
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    for text in (person, *(position or ()), *(line or ())):
        try:
            TypeAdapter(Id).validate_python(text)
        except ValidationError:
            usage(f"{text!r} is not an id; use letters, digits, dots, dashes and underscores")
    with opened_door() as door:
        door.require("administer")
        members = [
            rows.MembershipRow(person, kind, of, rows.MANUAL)
            for kind, names in (("position", position), ("line", line))
            for of in names or ()
        ]
        with door.store.writing("access") as connection:
            rows.add_person(connection, rows.PersonRow(person, name_zh, name_en, rows.MANUAL), members)
            details = {"positions": list(position or ()), "lines": list(line or ())}
            audit.record(connection, door.caller, "people.add", person, now=door.now, details=details)
    if as_json:
        print_json({"person": person, **details})
    else:
        typer.echo(f"{person} is known")


@people_app.command("remove", epilog="Example: [bold]metrics access people remove wang[/bold]")
def people_remove(person: Annotated[str, typer.Argument(metavar="ID")], as_json: JsonOption = False) -> None:
    """Take back what was added about somebody; who is in _people.yml stays until they leave it."""
    from metrics_pipeline.store import access as rows
    from metrics_pipeline.store import audit

    with opened_door() as door:
        door.require("administer")
        with door.store.writing("access") as connection:
            if not rows.remove_person(connection, person):
                fail(f"nothing was added about {person!r}; people of _people.yml are removed there")
            audit.record(connection, door.caller, "people.remove", person, now=door.now)
    if as_json:
        print_json({"person": person, "removed": True})
    else:
        typer.echo(f"what was added about {person} is gone")


# -- input ---------------------------------------------------------------------------------------------------------


def _subject(text: str) -> SubjectName:
    from metrics_pipeline.access.model import SubjectName

    try:
        return SubjectName.read(text)
    except ValueError as error:
        usage(str(error))


def _require_subject(door: CliDoor, name: SubjectName) -> None:
    """End with wrong usage when there is nobody of this name."""
    from metrics_pipeline.access.services import NEEDS
    from metrics_pipeline.routing.channels import channel_cards
    from metrics_pipeline.routing.members import sync_people
    from metrics_pipeline.store import access as rows

    sync_people(door.store, door.directory, now=door.now)
    with door.store.reading() as connection:
        members = rows.memberships(connection)
        known = {
            "person": {one.id for one in rows.people(connection)},
            "position": {*door.directory.teams, *(one.of for one in members if one.kind == "position")},
            "line": {*door.directory.lines, *(one.of for one in members if one.kind == "line")},
            "channel": set(channel_cards(door.settings)),
            "service": set(NEEDS),
        }[name.kind]
    if name.id not in known:
        usage(f"there is no {name.kind} {name.id!r}{nearest(name.id, known)}; write it into _people.yml, or use "
              "`metrics access people add`")  # fmt: skip


def _check_selectors(door: CliDoor, chosen: Sequence[Selector]) -> None:
    if not chosen:
        usage("say of which metrics: --metric, --line, --layer, --category, --sensitivity or --all")
    facts = door.facts.values()
    known = {
        "metric": {one.id for one in facts},
        "line": {one.business_line for one in facts},
        "layer": {one.layer for one in facts},
        "category": {one.category for one in facts},
        "sensitivity": {"public", "internal", "confidential"},
    }
    for one in chosen:
        if one.kind != "all" and one.value not in known[one.kind]:
            usage(f"--{one.kind} {one.value!r} is of no metric{nearest(one.value, known[one.kind])}")


def _actions(given: Many, chosen: Sequence[Selector]) -> set[str]:
    from metrics_pipeline.access.model import ACTIONS, GENERAL

    actions = set(given or ("read",))
    if unknown := sorted(actions - set(ACTIONS)):
        usage(f"--action {unknown[0]!r} is not known; write {', '.join(ACTIONS)}")
    if actions.intersection(GENERAL) and not any(one.kind == "all" for one in chosen):
        usage(f"{' and '.join(GENERAL)} are about the whole installation; give them with --all")
    return actions


def _slices(door: CliDoor, texts: Sequence[str]) -> dict[str, list[str]]:
    from metrics_pipeline.library.catalogue import Catalogue

    found: dict[str, list[str]] = {}
    metrics = Catalogue.read(door.settings.dbt_project_dir).metrics.values() if texts else ()
    dimensions = {part for one in metrics for slice_ in one.slices for part in slice_.split("|")} - {"all"}
    for text in texts:
        dimension, _, members = text.partition("=")
        if dimension not in dimensions:
            usage(f"--slice {text!r}: there is no dimension {dimension!r}{nearest(dimension, dimensions)}")
        wanted = [one for one in members.split(",") if one]
        if not wanted:
            usage(f"--slice {text!r} names no member; write {dimension}=MEMBER,MEMBER")
        found.setdefault(dimension, []).extend(one for one in wanted if one not in found.get(dimension, []))
    return found


def _about(door: CliDoor, name: SubjectName) -> None:
    """Everybody may ask about themselves; about others who administers or audits."""
    is_self = name.kind == "person" and name.id == door.settings.user
    if not is_self and not door.viewer.decide("audit").is_allowed:
        door.require("administer")


# -- output --------------------------------------------------------------------------------------------------------


def _follows(door: CliDoor, name: SubjectName) -> list[tuple[str, str]]:
    from metrics_pipeline.access.policy import derivable

    viewer = door.viewer_of(name.id, name.kind, as_if_on=True)
    return derivable(viewer.reading, viewer.metrics)


def _administers(row: GrantRow, door: CliDoor) -> bool:
    from metrics_pipeline.access.viewer import grant_of

    grant: Grant = grant_of(row)
    return (
        row.subject_kind == "person"
        and "administer" in grant.actions
        and grant.holds(door.now)
        and grant.expires_at is None
    )


def _words(row: GrantRow) -> str:
    from metrics_pipeline.access.model import Selector

    metrics = ", ".join(str(Selector(*one)) for one in row.selectors)
    slices = " and ".join(f"{name} in {{{', '.join(members)}}}" for name, members in sorted(row.slices.items()))
    to = row.subject if row.subject_kind == "person" else f"{row.subject_kind} {row.subject}"
    return f"{to} may {', '.join(row.actions)} {metrics} on {slices or 'every slice'}, confidential metrics {row.level}"


def _grant_row(row: GrantRow, settings: Settings) -> dict[str, Any]:
    def local(moment: datetime | None) -> str:
        return "" if moment is None else f"{moment.astimezone(settings.zone):%Y-%m-%d %H:%M}"

    return {
        "grant": str(row.id),
        "what": _words(row),
        "by": row.granted_by,
        "why": row.reason,
        "from": local(row.starts_at),
        "until": local(row.expires_at),
        "revoked": local(row.revoked_at),
    }


def _slice_words(viewer: Viewer, metric: str) -> str:
    given = [
        " and ".join(f"{name}={'/'.join(sorted(members))}" for name, members in sorted(one.items()))
        for one in viewer.reading.slices_of(metric)
    ]
    return "all" if "" in given else " or ".join(given)


def _best(viewer: Viewer, metric: str) -> str:
    levels = [right.levels[metric] for right in viewer.reading.rights if metric in right.levels]
    return max(levels).word
