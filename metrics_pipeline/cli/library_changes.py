"""`metrics library propose|proposals|review|approve|reject|apply|restate`: how a definition changes.

Hangs on the app of `library`; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door, require_operator
from metrics_pipeline.cli.library import changes_in_files, find_metric, open_catalogue, require_metric
from metrics_pipeline.cli.library_versions import MetricArgument, show_diff
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    fail,
    nearest,
    opened_store,
    parse_day,
    print_json,
    print_table,
    say,
    steps,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.cli.door import CliDoor
    from metrics_pipeline.library.changing import Change
    from metrics_pipeline.library.proposals import Actor, Applied
    from metrics_pipeline.orchestration.in_process import RunOutcome
    from metrics_pipeline.store.metric_versions import ProposalRow

FROM_THE_NIGHT = "from the next night on, for the days that it builds; days before keep what was shown"
NumberArgument = Annotated[int, typer.Argument(help="Number of the proposal.")]
WhyOption = Annotated[str, typer.Option("--why", help="Why, for whoever reads the history later.")]
EffectiveOption = Annotated[
    str | None, typer.Option("--effective", metavar="YYYY-MM-DD", help="First day of the new definition.")
]


def add_to_library(app: typer.Typer) -> None:
    """Hang the commands on `metrics library`."""
    app.command(
        "propose",
        epilog="Examples: [bold]metrics library propose refund_rate --set 'formula=refunded_orders / orders_placed' "
        "--effective 2026-12-01 --why 'cash on delivery has no payment'[/bold] · "
        "[bold]metrics library propose refund_rate --set owner=finance --why 'moved team'[/bold] · "
        "[bold]metrics library propose units_sold --set 'expr=case when quantity > 0 then quantity else 0 end' --why 'returns'[/bold] · "
        "[bold]metrics library propose refund_rate --set target=0.04 --effective 2027-01-01 --why 'new year'[/bold]",
    )(library_propose)
    app.command("proposals", epilog="Examples: [bold]metrics library proposals[/bold] · [bold]… --all --json[/bold]")(
        library_proposals
    )
    app.command("approve", epilog="Example: [bold]metrics library approve 3 --note 'agreed with finance'[/bold]")(
        library_approve
    )
    app.command("reject", epilog="Example: [bold]metrics library reject 3 --note 'first see what returns do'[/bold]")(
        library_reject
    )
    app.command("apply", epilog="Example: [bold]metrics library apply 3[/bold]")(library_apply)
    app.command(
        "restate",
        epilog="Examples: [bold]metrics library restate refund_rate --from 2026-10-01 --why 'one year in one unit'[/bold] · "
        "[bold]… --run[/bold] computes these days anew as well",
    )(library_restate)


def library_propose(  # noqa: PLR0917 - options of a command
    metric: MetricArgument,
    why: WhyOption,
    given: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="What is to change; may be repeated.")
    ] = None,
    in_files: Annotated[
        bool, typer.Option("--in-files", help="What was changed in files: a fact, a measure, a formula.")
    ] = False,
    effective: EffectiveOption = None,
    as_json: JsonOption = False,
) -> None:
    """Propose to change a metric from a day on; earlier days keep their definition. Shows what would change.

    With --in-files, what is changed already: it begins with the next night, with who, why and approval on record.
    """
    from metrics_pipeline.library.proposals import propose

    settings = load_settings()
    find_metric(open_catalogue(settings), metric)
    require_metric(settings, metric, "compose")
    if in_files:
        if given or effective:
            usage("--in-files proposes what the files say, from the next night on: leave --set and --effective out")
        _propose_in_files(settings, metric, why, as_json=as_json)
        return
    if not given:
        usage("say what is to change with --set FIELD=VALUE, or --in-files for what was changed in files")
    changes = dict(_pair(one) for one in given)
    _may_name(settings, changes)
    shown = _shown_until(settings, metric)
    day = parse_day(effective, "--effective") or shown or datetime.now(settings.zone).date() + timedelta(days=1)
    with told(), opened_store(settings) as store:
        number, found = propose(
            store,
            _actor(settings),
            settings.dbt_project_dir,
            metric,
            changes,
            effective=day,
            why=why,
            shown_until=shown,
        )
    if as_json:
        print_json({"proposal": number, "metric": metric, "effective_from": day.isoformat(), **_change_json(found)})
        return
    typer.echo(f"proposal {number}: {metric} from {day} on")
    show_diff("What changes", _diff(found))
    with opened_door(settings) as door:
        for one in changes_in_files(settings) if door.is_open else ():
            typer.echo(f"warning: {one.problem}", err=True)
    say(f"Next: [bold]metrics library review {number}[/bold] shows it on history; its owner approves it.")


def _propose_in_files(settings: Settings, metric: str, why: str, *, as_json: bool) -> None:
    from metrics_pipeline.library.file_changes import propose_in_files

    expected = _shown_until(settings, metric) or datetime.now(settings.zone).date() + timedelta(days=1)
    with told(), opened_store(settings) as store:
        number, found = propose_in_files(
            store, _actor(settings), settings.dbt_project_dir, metric, why=why, expected=expected
        )
    if as_json:
        print_json({"proposal": number, "metric": metric, "effective_from": None, "diff": found.diff,
                    "changes_values": True, "affected": found.affected})  # fmt: skip
        return
    typer.echo(f"proposal {number}: {metric}, {FROM_THE_NIGHT}")
    show_diff("What changes", dict(found.diff))
    say(
        f"Next: [bold]metrics library review {number}[/bold] shows it on history; its owner approves it before that night."
    )


def library_proposals(
    metric: Annotated[str | None, typer.Option(help="Only of this metric.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Those that are applied or rejected, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Proposals that wait for a decision or to be applied, the newest first."""
    from metrics_pipeline.store.metric_versions import proposals

    settings = load_settings()
    with opened_door(settings) as door, door.store.reading() as connection:
        rows = [one for one in proposals(connection, metric=metric, is_open=not everything) if _knows(door, one)]
    if as_json:
        print_json([row._asdict() for row in rows])
        return
    shown = [
        {
            "proposal": str(row.id),
            "metric": row.metric,
            "state": row.state,
            "from": "next night" if is_in_files(row) and row.state != "applied" else str(row.effective_from),
            "changes": "as in files"
            if is_in_files(row)
            else ", ".join(f"{name}={value}" for name, value in row.changes.items()),
            "by": row.who,
            "why": row.why,
            "decided by": row.decided_by,
            "note": row.note,
        }
        for row in rows
    ]
    print_table("Proposals", shown)


def library_approve(
    number: NumberArgument,
    note: Annotated[str, typer.Option("--note", help="What should be known of the decision.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Approve a proposal: for the metric's owner, who is not the proposer unless there is no other owner."""
    _decide(number, note, is_approved=True, as_json=as_json)


def library_reject(
    number: NumberArgument,
    note: Annotated[str, typer.Option("--note", help="Why not.")],
    as_json: JsonOption = False,
) -> None:
    """Reject a proposal, or take back one's own."""
    _decide(number, note, is_approved=False, as_json=as_json)


def library_apply(number: NumberArgument, effective: EffectiveOption = None, as_json: JsonOption = False) -> None:
    """Put an approved proposal into the files: the YAML with the former definition beside the new one, and the models."""
    from metrics_pipeline.library.proposals import apply

    settings = load_settings()
    with told(), opened_store(settings) as store:
        row = find_proposal(settings, number, "approve")
        done = apply(
            store, _actor(settings), settings.dbt_project_dir, number,
            effective=parse_day(effective, "--effective"), shown_until=_shown_until(settings, row.metric),
        )  # fmt: skip
    _show_applied(
        f"proposal {number} is applied", done, _rebuilt_days(settings, row.metric, done), None, as_json=as_json
    )


def library_restate(
    metric: MetricArgument,
    first: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day that is computed anew.")],
    why: WhyOption,
    run: Annotated[bool, typer.Option("--run", help="Run the backfill, too; without it only name it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let the newest definition also be that of earlier days. What was shown before stays readable with `asof`."""
    from metrics_pipeline.library.proposals import restate

    settings = load_settings()
    found = find_metric(open_catalogue(settings), metric)
    require_metric(settings, metric, "approve")
    if run:
        require_operator(settings)
    day = parse_day(first, "--from")
    assert day is not None
    with told(), opened_store(settings) as store:
        done = restate(
            store, _actor(settings), settings.dbt_project_dir, metric, first=day, why=why, owner=found.owner,
            owners=_owners(settings, found.owner), shown_until=_shown_until(settings, metric),
        )  # fmt: skip
    days = _rebuilt_days(settings, metric, done)
    rebuilt = _rebuild(settings, metric, days, why) if run and days is not None else None
    _show_applied(f"{metric} is restated from {day} on", done, days, rebuilt, as_json=as_json)
    if rebuilt is not None and not rebuilt.success:
        raise typer.Exit(PROBLEM)


def _rebuilt_days(settings: Settings, metric: str, done: Applied) -> tuple[date, date] | None:
    """First and last published day that must be computed anew for a change to show; None when none must."""
    newest = None if done.rebuild_from is None else _shown_until(settings, metric)
    return None if done.rebuild_from is None or newest is None else (done.rebuild_from, newest - timedelta(days=1))


def _rebuild(settings: Settings, metric: str, days: tuple[date, date], why: str) -> RunOutcome:
    """Run the backfill of these days and record who had it run for what, whatever comes of it."""
    from metrics_pipeline.orchestration.operations import DaysOutside, run_backfill
    from metrics_pipeline.store.audit import Event

    first, last = days
    with steps(f"Computing {first} to {last} anew") as (tell, _):
        try:
            outcome = run_backfill(settings, first, last, progress=lambda step, word: tell(f"{step} {word}")).run
        except DaysOutside as error:
            fail(f"{metric} is restated, and its days are not computed anew: {error}")
    details = {"first": str(first), "last": str(last), "run": outcome.run_id, "success": outcome.success, "why": why}
    with opened_door(settings) as door:
        door.record([Event("metric.rebuild", metric, details=details)])
    return outcome


def find_proposal(settings: Settings, number: int, action: str = "read") -> ProposalRow:
    """A proposal; one about what the user may not know of is as unknown to them as one that is not there."""
    from metrics_pipeline.library.proposals import ProposalError
    from metrics_pipeline.store.metric_versions import proposal

    with told(), opened_door(settings) as door:
        with door.store.reading() as connection:
            row = proposal(connection, number)
        if row is not None and not _knows(door, row):
            door.deny(action, f"proposal {number}")
            row = None
        if row is None:
            raise ProposalError(f"there is no proposal {number}; `metrics library proposals` lists them")
        if action != "read" and not door.is_open:
            door.require(action, row.metric)
    return row


def _knows(door: CliDoor, row: ProposalRow) -> bool:
    """Whether they may know of all that a proposal is about."""
    return door.knows_whole(row.metric) and door.knows_named(row.changes, row.diff)


def _may_name(settings: Settings, changes: Mapping[str, str]) -> None:
    """End when a formula names a metric or a measure that is not there, or that the user may not know of."""
    from metrics_pipeline.access.library import known_measures
    from metrics_pipeline.library.catalogue import Catalogue

    with opened_door(settings) as door:
        if door.is_open:
            return
        known = door.known(door.library)
        for field in ("formula", "numerator", "denominator"):
            for name in re.findall(r"[A-Za-z_]\w*", changes.get(field, "")):
                if name not in known:
                    door.deny("compose", name)
                    usage(f"{field}: there is no metric {name!r}{nearest(name, known)}; `metrics library list`")
        measures = known_measures(Catalogue.read(settings.dbt_project_dir).definitions, door.viewer.reading)
        if (measure := changes.get("measure")) is not None and measure.strip() not in measures:
            usage(f"measure: there is no measure {measure!r}{nearest(measure, measures)}")


def _decide(number: int, note: str, *, is_approved: bool, as_json: bool) -> None:
    from metrics_pipeline.library.proposals import approve, reject

    settings = load_settings()
    with told(), opened_store(settings) as store:
        row = find_proposal(settings, number, "approve")
        owner = find_metric(open_catalogue(settings), row.metric).owner
        act = approve if is_approved else reject
        remark = act(store, _actor(settings), number, owner=owner, owners=_owners(settings, owner), note=note)
    word = "approved" if is_approved else "rejected"
    if as_json:
        print_json({"proposal": number, "state": word, "by": settings.user, "remark": remark})
        return
    typer.echo(f"proposal {number} is {word}{f' ({remark})' if remark else ''}")
    if is_approved and is_in_files(row):
        say("The next night begins the new version, with this approval on record; commit the files.")
    elif is_approved:
        say(f"Next: [bold]metrics library apply {number}[/bold]")


def _show_applied(
    said: str, done: Applied, days: tuple[date, date] | None, rebuilt: RunOutcome | None, *, as_json: bool
) -> None:
    rebuild = None if days is None else f"metrics backfill --from {days[0]} --to {days[1]}"
    if as_json:
        print_json(
            {
                "versions": [
                    {"metric": one.metric, "number": one.number, "version": one.version} for one in done.versions
                ],
                "files": [str(path) for path in done.files],
                "rebuild": rebuild,
                "rebuilt": None
                if rebuilt is None
                else {"run_id": rebuilt.run_id, "success": rebuilt.success, "failures": rebuilt.failures},
            }
        )
        return
    typer.echo(said)
    for one in done.versions:
        since = f"from {one.effective_from}" if one.effective_from else "all days"
        typer.echo(f"  {one.metric} v{one.number} ({one.version}), {since}")
    for path in done.files:
        typer.echo(f"  wrote {path.name}")
    if rebuild is None:
        say("The next night computes with it; commit the files.")
    elif rebuilt is None:
        say(f"Next: [bold]{rebuild}[/bold] computes these days anew; commit the files.")
    elif rebuilt.success:
        say(f"Run {rebuilt.run_id} computed these days anew, as {rebuild} does; commit the files.")
    else:
        typer.echo("\n".join(rebuilt.failures), err=True)
        say(f"These days are not computed anew, run {rebuilt.run_id} failed: mend it, then [bold]{rebuild}[/bold].")


def is_in_files(row: ProposalRow) -> bool:
    """Whether a proposal is about what is changed already."""
    from metrics_pipeline.library.recording import IN_FILES

    return IN_FILES in row.changes


def affected_by(found: Change) -> list[str]:
    """The metrics whose version changes with the change, in the order of the pyramid."""
    before, after = found.before.metrics, found.after.metrics
    return [name for name in after if name != found.metric and after[name].spans != before[name].spans]


def _change_json(found: Change) -> dict[str, Any]:
    return {"diff": _diff(found), "changes_values": found.changes_values, "affected": affected_by(found)}


def _diff(found: Change) -> dict[str, list[Any]]:
    from metrics_pipeline.library.proposals import difference_of

    return difference_of(found)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        usage(f"--set {text!r} is not FIELD=VALUE, such as owner=finance")
    return name.strip(), value.strip()


def _actor(settings: Settings) -> Actor:
    from metrics_pipeline.library.proposals import Actor
    from metrics_pipeline.store.audit import Caller

    return Actor(Caller(settings.user, "cli"), datetime.now(UTC))


def _owners(settings: Settings, owner: str) -> Sequence[str]:
    """Ids of the people an owner stands for now."""
    from metrics_pipeline.routing.load import routing_of

    return [person.id for person in routing_of(settings).directory.who(owner, datetime.now(UTC))]


def _shown_until(settings: Settings, metric: str) -> date | None:
    """First day of which nothing is published of a metric; None when nothing is."""
    from metrics_pipeline.access.reader import NotPublished

    try:
        with opened_door(settings) as door:
            state = door.published().metrics.get(metric)
    except NotPublished:
        return None
    return state.complete_until.date() if state is not None and state.complete_until is not None else None


@contextmanager
def told() -> Iterator[None]:
    """What cannot be done ends with its message and exit code 1; what is asked wrongly with 2. Nothing unknown is named."""
    from metrics_pipeline.library.definitions import DefinitionError
    from metrics_pipeline.library.measures import ChangeError
    from metrics_pipeline.library.proposals import ProposalError

    try:
        yield
    except (ChangeError, ProposalError, DefinitionError) as error:
        with opened_door() as door:
            text = door.words(str(error))
        (usage if isinstance(error, ChangeError) else fail)(text)
