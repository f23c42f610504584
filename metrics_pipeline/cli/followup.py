"""`metrics rules quality`, `metrics rules propose`, `metrics proposals`: how good rules are, and changes that answers suggest.

`app` hangs them up; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import JsonOption, fail, parse_day, print_json, print_table, say, steps
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.followup.new_rules import Draft
    from metrics_pipeline.followup.proposals import Ground
    from metrics_pipeline.followup.quality import RuleQuality
    from metrics_pipeline.library.proposals import Actor
    from metrics_pipeline.store.rule_proposals import ProposalRow

QUALITY_DAYS = 90
BARS = " ▁▂▃▄▅▆▇█"

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="YYYY-MM-DD", help=f"First day; default: {QUALITY_DAYS} days ago.")
]
NumberArgument = Annotated[int, typer.Argument(metavar="NUMBER", help="Of the proposal.")]
DaysOption = Annotated[int, typer.Option("--days", min=14, max=730, help="Days of answers and of the replay.")]

app = typer.Typer(
    invoke_without_command=True,
    help="Changes of rules that answers suggest: look, accept, reject; and what came of them.",
    epilog="Examples: [bold]metrics proposals make[/bold] · [bold]metrics proposals show 3[/bold] · "
    "[bold]metrics proposals accept 3 --why 'six quiet weeks'[/bold]",
)


def add_to_rules(rules: typer.Typer) -> None:
    """Hang up the verbs of `metrics rules`."""
    rules.command(
        "quality",
        epilog="Examples: [bold]metrics rules quality[/bold] · [bold]metrics rules quality --since 2026-09-01 --json[/bold]",
    )(rules_quality)
    rules.command(
        "propose",
        epilog="Examples: [bold]metrics rules propose gmv[/bold] · "
        "[bold]metrics rules propose refund_rate --by region --a-month 2[/bold]",
    )(rules_propose)


# -- quality -------------------------------------------------------------------------------------------------------


def rules_quality(since: SinceOption = None, as_json: JsonOption = False) -> None:
    """How good each rule was, by what people said: precision, delays, noise; and how many messages each person got a week."""
    from metrics_pipeline.followup.quality import addresses, read_quality
    from metrics_pipeline.routing.load import routing_of

    settings = load_settings()
    day = parse_day(since, "--since")
    with opened_door(settings) as door:
        start = door.now - timedelta(days=QUALITY_DAYS)
        if day is not None:
            start = datetime.combine(day, time(), settings.zone)
        sight, people = door.sight, addresses(routing_of(settings))
        with door.store.reading() as connection:
            found = read_quality(connection, sight, since=start, until=door.now, zone=settings.zone, people=people)
    if as_json:
        print_json(found.as_json())
        return
    numbers = ("alerts", "red", "true", "false", "expected", "unsaid", "sent", "told h", "acted h")
    print_table(f"Rules since {start:%Y-%m-%d}", [_quality_row(one) for one in found.rules], numbers=numbers)
    if found.rules and not any(one.answered for one in found.rules):
        say("Nobody answered yet: [bold]metrics alerts feedback EPISODE --useful[/bold] or close the work order.")
    loads = [{"who": one.receiver, "week": one.week, "messages": one.messages, "red": one.red} for one in found.loads]
    if loads:
        print_table("Messages a week", loads, numbers=("messages", "red"))


def _quality_row(one: RuleQuality) -> dict[str, Any]:
    precision = ""
    if one.precision is not None:
        precision = f"{one.precision:.0%} ({one.precision_low:.0%}–{one.precision_high:.0%})"
    return {
        "rule": one.rule,
        "alerts": one.episodes,
        "red": one.red,
        "true": one.true,
        "false": one.false,
        "expected": one.expected,
        "unsaid": one.unanswered + one.aside,
        "precision": precision,
        "sent": one.messages,
        "told h": _hours(one.hours_to_tell),
        "acted h": _hours(one.hours_to_act),
    }


def _hours(hours: float | None) -> float | None:
    return None if hours is None else round(hours, 1)


# -- new rules -----------------------------------------------------------------------------------------------------


def rules_propose(  # noqa: PLR0917 - options of a command
    metric: Annotated[str, typer.Argument(help="Metric id.")],
    by: Annotated[str, typer.Option("--by", metavar="DIMENSION", help="One alert per member; a|b for a pair.")] = "",
    a_month: Annotated[float, typer.Option("--a-month", min=0.1, help="Alerts a month that are wanted.")] = 1.0,
    days: DaysOption = 180,
    name: Annotated[str, typer.Option("--name", help="Id of the rule.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Thresholds for a rule that is not there yet, from history, target and benchmark, each with its replay. Writes nothing."""
    from metrics_pipeline.followup.new_rules import DraftError, drafts

    settings = load_settings()
    with opened_door(settings) as door, steps(f"Trying rules on {metric}"):
        door.require("read", metric)
        door.require("compose", metric)
        try:
            found = drafts(_ground(door), metric, by=by.split("|") if by else (), a_month=a_month, days=days, name=name)
        except DraftError as error:
            fail(str(error))
    if as_json:
        print_json([_draft_json(one) for one in found])
        return
    for one in found:
        say(
            f"[bold]From {one.source}[/bold]: {len(one.replay.episodes)} alerts in {days} days, {one.a_month:.1f} a month"
        )
        typer.echo(_bars([sum(of_week.values()) for _, of_week in one.replay.weeks]))
        typer.echo(one.text)
    say(
        "Put one below [bold]rules:[/bold] of a file of alert rules, write its tests beside it, then [bold]metrics rules lint[/bold]."
    )


def _draft_json(one: Draft) -> dict[str, Any]:
    return {
        "source": one.source,
        "yaml": one.text,
        "alerts": len(one.replay.episodes),
        "a_month": round(one.a_month, 2),
        "weeks": [[f"{monday}", sum(of_week.values())] for monday, of_week in one.replay.weeks],
    }


# -- proposals -----------------------------------------------------------------------------------------------------


@app.callback()
def proposals(context: typer.Context, as_json: JsonOption = False) -> None:
    """Changes of rules that answers suggest. Without a verb: list."""
    if context.invoked_subcommand is None:
        proposals_list(as_json=as_json)


@app.command("list", epilog="Example: [bold]metrics proposals list --all --json[/bold]")
def proposals_list(
    all_: Annotated[bool, typer.Option("--all", help="Decided ones, too.")] = False,
    rule: Annotated[str | None, typer.Option(help="Only of this rule.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Proposals that wait for a decision, the newest first."""
    from metrics_pipeline.followup.retrospective import proposal_json as plain
    from metrics_pipeline.followup.retrospective import sees_proposal
    from metrics_pipeline.store import rule_proposals as rows

    with opened_door() as door:
        with door.store.reading() as connection:
            found = rows.read(connection, states=None if all_ else ["proposed"], rule=rule)
        found = [row for row in found if sees_proposal(door.sight, row)]
    if as_json:
        print_json([plain(row) for row in found])
        return
    print_table("Proposals", [_proposal_row(row) for row in found], numbers=("number",))
    if not found:
        say("[bold]metrics proposals make[/bold] looks at the answers.")


@app.command("make", epilog="Example: [bold]metrics proposals make --days 90[/bold]")
def proposals_make(
    days: DaysOption = 90,
    answers: Annotated[int, typer.Option("--answers", min=3, help="Answers a rule must have.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Look at what people said and write down what it suggests, with what it would have changed; measure what was accepted."""
    from metrics_pipeline.followup.effect import measure_all
    from metrics_pipeline.followup.proposals import make

    with opened_door() as door, steps("Looking at answers"):
        door.require_general("compose")
        ground = _ground(door)
        made = make(door.store, ground, door.sight, _actor(door), days=days, least=answers)
        measured = measure_all(door.store, ground, door.sight)
    if as_json:
        print_json(
            {
                "proposed": made.fresh,
                "superseded": made.superseded,
                "rules": made.looked_at,
                "reported": made.reported,
                "measured": [*measured],
            }
        )
        return
    say(
        f"{made.looked_at} rules with {answers} answers or more, {made.reported} missed incidents reported; "
        f"{len(made.fresh)} new proposals, {len(measured)} accepted ones measured."
    )
    if made.fresh:
        proposals_list()


@app.command("show", epilog="Example: [bold]metrics proposals show 3[/bold]")
def proposals_show(number: NumberArgument, as_json: JsonOption = False) -> None:
    """One proposal: what changes, why, what it would have changed in the last 90 days, and, once accepted, what came of it."""
    from metrics_pipeline.followup.retrospective import proposal_json as plain

    with opened_door() as door, _told():
        row = _seen(door, number)
    if as_json:
        print_json(plain(row))
        return
    say(f"[bold]Proposal {row.id}[/bold]: {row.kind} of {row.rule or 'the calendar'}, {row.state}")
    typer.echo(row.why)
    typer.echo(row.why_zh)
    if row.decided_by:
        say(f"{row.state} by {row.decided_by}: {row.note}")
    if event := row.changes.get("event"):
        typer.echo("\n".join(f"  {name}: {value}" for name, value in event.items()))
    typer.echo(row.evidence.get("diff") or row.evidence.get("problem", ""))
    if impact := row.evidence.get("impact"):
        _print_two(
            f"What it would have changed, {impact['first']} to {impact['last']}", impact["before"], impact["after"]
        )
        typer.echo(f"a week before {_bars([week[1] for week in impact['weeks']])}")
        typer.echo(
            f"a week after  {_bars([week[2] for week in impact['weeks']], [week[1] for week in impact['weeks']])}"
        )
        _print_alerts("Alerts that would not have been", impact["dropped"])
        _print_alerts("Alerts that would have been added", impact["added"])
    if looked := row.evidence.get("looked_at_by"):
        say(f"Composite rules that look at it: {', '.join(looked)}")
    if row.effect is not None:
        effect = row.effect
        title = f"What came of it, {effect['first']} to {effect['last']} ({effect['days']} days)"
        print_table(
            f"{title}: told to people",
            [{"": name, **effect[name]} for name in ("before", "after")],
            numbers=("episodes", "true", "false", "expected", "aside", "unanswered"),
        )
        _print_two(f"{title}: the same days under both forms", effect["former"], effect["present"])
    elif row.state == "accepted":
        say("Its effect is measured when seven days were judged with it (metrics proposals make).")
    if row.state == "proposed":
        say(f"Next: [bold]metrics proposals accept {row.id} --why …[/bold] or [bold]reject[/bold]")


@app.command("accept", epilog="Example: [bold]metrics proposals accept 3 --why 'six quiet weeks'[/bold]")
def proposals_accept(
    number: NumberArgument,
    why: Annotated[str, typer.Option("--why", help="Why; it is kept with the rule's history.")],
    as_json: JsonOption = False,
) -> None:
    """Make the change to the rule file, after lint and the tests beside the rule: for who answers for the rule."""
    from metrics_pipeline.followup.proposals import CALENDAR, accept, accept_entry, rule_of_now

    with opened_door() as door, _told(), steps("Testing the rule"):
        row = _seen(door, number)
        if row.kind == CALENDAR:
            door.require_general("compose")
            path = accept_entry(door.store, door.settings.rules_dir, _actor(door), number, why=why)
            _print_accepted(number, path, "", as_json=as_json)
            return
        door.require("approve", row.metric)
        ground = _ground(door)
        owner = rule_of_now(ground, row.rule).owner
        owners = [person.id for person in door.directory.who(owner, door.now)]
        edit = accept(
            door.store, ground, _actor(door), number, why=why, owners=owners, tests=_tests(door.settings, ground)
        )
    _print_accepted(number, edit.path, edit.diff(), as_json=as_json)


def _print_accepted(number: int, path: Path, diff: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"proposal": number, "state": "accepted", "file": str(path)})
        return
    typer.echo(f"proposal {number} is accepted: {path.name} is written")
    typer.echo(diff, nl=False)
    say("The next night judges with it; commit the file.")


@app.command("reject", epilog="Example: [bold]metrics proposals reject 3 --why 'small dips matter to us'[/bold]")
def proposals_reject(
    number: NumberArgument,
    why: Annotated[str, typer.Option("--why", help="Why not.")],
    as_json: JsonOption = False,
) -> None:
    """Reject a proposal; one of its kind is not made again for this rule as it is."""
    from metrics_pipeline.followup.proposals import reject
    from metrics_pipeline.followup.retrospective import proposal_json as plain

    with opened_door() as door, _told():
        seen = _seen(door, number)
        if seen.metric:
            door.require("approve", seen.metric)
        else:
            door.require_general("compose")
        row = reject(door.store, _actor(door), number, why=why)
    if as_json:
        print_json(plain(row))
    else:
        typer.echo(f"proposal {number} is rejected")


# -- parts ---------------------------------------------------------------------------------------------------------


def _ground(door: CliDoor) -> Ground:
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.followup.proposals import Ground
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.replay import read_labels
    from metrics_pipeline.rules.seeds import seeds_of

    settings = door.settings
    try:
        published = door.published()
    except NotPublished as error:
        fail(str(error))
    known = settings.source_dir / "labels.jsonl"
    is_simulated = settings.installation.source == "simulator" and known.exists()
    return Ground(
        settings.rules_dir,
        Catalogue.read(settings.dbt_project_dir),
        seeds_of(settings),
        published,
        settings.zone,
        read_labels(known) if is_simulated else (),
    )


def _actor(door: CliDoor) -> Actor:
    from metrics_pipeline.library.proposals import Actor

    return Actor(door.caller, datetime.now(UTC))


def _tests(settings: Settings, ground: Ground) -> Any:
    """What runs the tests beside a rule file in a copy of the folder."""
    from metrics_pipeline.rule_tests import run_file
    from metrics_pipeline.rules.load import load_rules

    def run(folder: Path, file: Path) -> Sequence[str]:
        beside = file.with_name(f"{file.stem}.test{file.suffix}")
        if not beside.exists():
            return ()
        rules = {rule.id: rule for rule in load_rules(folder, ground.catalogue, ground.seeds).rules}
        found = run_file(beside, rules, ground.catalogue.metrics)
        told = [str(problem) for problem in found.problems]
        told += [outcome.report() for outcome in found.outcomes if not outcome.passed]
        return [one.replace(str(folder), str(settings.rules_dir)) for one in told]

    return run


def _seen(door: CliDoor, number: int) -> ProposalRow:
    """A proposal; one that whoever asks may not know of is as unknown as one that is not there."""
    from metrics_pipeline.followup.proposals import ProposalError, find
    from metrics_pipeline.followup.retrospective import sees_proposal

    with door.store.reading() as connection:
        row = find(connection, number)
    if not sees_proposal(door.sight, row):
        door.deny("read", f"proposal {number}")
        raise ProposalError(f"there is no proposal {number} that {door.viewer.person} may see")
    return row


def _proposal_row(row: ProposalRow) -> dict[str, Any]:
    impact = row.evidence.get("impact")
    effect = "" if impact is None else f"{impact['before']['episodes']} → {impact['after']['episodes']}"
    return {
        "number": row.id,
        "rule": row.rule or "(calendar)",
        "kind": row.kind,
        "state": row.state,
        "change": ", ".join(f"{name}: {_value(value)}" for name, value in row.changes.items()),
        "alerts in 90 days": effect,
        "why": row.why,
    }


def _value(value: Any) -> str:
    return "(none)" if value is None else str(value)


def _print_two(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    names = (
        "episodes",
        "red",
        "messages",
        "true",
        "false",
        "expected",
        "unanswered",
        "incidents",
        "found",
        "delay_days",
    )
    shown = [name for name in names if before.get(name) is not None]
    rows = [{"": when, **{name: one[name] for name in shown}} for when, one in (("before", before), ("after", after))]
    print_table(title, rows, numbers=shown)


def _print_alerts(title: str, alerts: Sequence[Mapping[str, Any]]) -> None:
    if alerts:
        rows = [
            {"fired": one["fired"], "slice": one["member"], "tier": one["tier"], "answer": one["outcome"]}
            for one in alerts[:10]
        ]
        print_table(f"{title} ({len(alerts)})", rows)


def _bars(counts: Sequence[int], scale: Sequence[int] | None = None) -> str:
    """A bar a week; `scale`: counts whose largest is the full height."""
    most = max([*counts, *(scale or ())], default=0) or 1
    return "".join(BARS[-(-count * (len(BARS) - 1) // most)] for count in counts)


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be done ends the program with its message."""
    from metrics_pipeline.followup.proposals import ProposalError

    try:
        yield
    except ProposalError as error:
        fail(str(error))
