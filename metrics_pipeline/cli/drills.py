"""`metrics alerts drill`: an alert that is made up, to see whether the right people hear of it and act.

Beside `cli_silences`, which hangs it up; nothing of it is imported before the verb runs but the settings.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import JsonOption, nearest, print_json, print_table, say, usage
from metrics_pipeline.cli.routes import open_routing
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from datetime import timedelta

    from metrics_pipeline.alerts.drills import Drill, WaitingEnd
    from metrics_pipeline.alerts.silencing import HeldBack
    from metrics_pipeline.cli.door import CliDoor
    from metrics_pipeline.routing.decide import Routing
    from metrics_pipeline.rules.model import Rule
    from metrics_pipeline.store import Store

EPILOG = (
    "Examples: [bold]metrics alerts drill --rule refund_rate_surge --slice region=华北[/bold] · "
    "[bold]metrics alerts drill --receiver on-call --for 30m[/bold] · [bold]metrics alerts drill --end[/bold]"
)


def alerts_drill(  # noqa: PLR0917 - options of a command
    rule: Annotated[str | None, typer.Option(help="Drill an alert of this rule; without: one of no rule.")] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="NAME=VALUE", help="Which slice of the rule; repeat it for pairs."),
    ] = None,
    severity: Annotated[str, typer.Option(help="red or yellow.")] = "red",
    receiver: Annotated[str | None, typer.Option(help="To this receiver, whatever the routes say.")] = None,
    lasts: Annotated[str, typer.Option("--for", metavar="DURATION", help="Ends by itself after so long.")] = "2h",
    end: Annotated[bool, typer.Option("--end", help="End the drills that go on.")] = False,
    send: Annotated[bool, typer.Option("--send", help="Send what is due from here, where no daemon runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Raise a made-up alert that goes the whole way of a real one, is marked as a drill, and ends once it is acknowledged."""
    settings = load_settings()
    now = datetime.now(UTC)
    routing, ruleset = open_routing(settings)
    with opened_door(settings) as door:
        door.require_general("silence")
        store = door.store
        if end:
            _end(door, routing, now=now, as_json=as_json)
        else:
            if receiver is not None and receiver not in routing.receivers:
                usage(f"there is no receiver {receiver!r}{nearest(receiver, routing.receivers)}")
            if severity not in ("red", "yellow"):
                usage(f"--severity {severity!r}: it is red or yellow")
            found = None
            if rule is not None:
                by_id = {one.id: one for one in ruleset.rules}
                known = {name: one for name, one in by_id.items() if door.sees_rule(one, by_id)}
                if rule not in known:
                    usage(f"there is no rule {rule!r}{nearest(rule, known)}")
                found = known[rule]
            elif slices:
                usage("--slice needs the --rule whose slice it is")
            chosen = routing if receiver is None else routing.only(receiver)
            drill = _start(
                store, settings, chosen, found, slices or [], severity=severity, lasts=_duration(lasts), now=now
            )
            _tell(store, drill, settings, as_json=as_json)
        if send:
            _send(store, settings, now=now)


def _start(
    store: Store,
    settings: Settings,
    routing: Routing,
    rule: Rule | None,
    slices: list[str],
    *,
    severity: str,
    lasts: timedelta,
    now: datetime,
) -> Drill:
    from metrics_pipeline.alerts.cards import cards_of
    from metrics_pipeline.alerts.drills import NAMELESS, DrillError, start_drill
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.orchestration.series import recent_series

    card, dimension, member, grain = NAMELESS, "all", "all", "hour"
    if rule is not None:
        metrics = Catalogue.read(settings.dbt_project_dir).metrics
        card = cards_of([rule], metrics, currency=settings.installation.currency)[rule.id]
        dimension, member, grain = rule.dimension, _member(rule, slices), rule.grain
    try:
        return start_drill(
            store,
            card,
            routing,
            now=now,
            dimension=dimension,
            member=member,
            tier="red" if severity == "red" else "yellow",
            grain=grain,
            lasts=lasts,
            series=lambda keys: recent_series(settings, keys),
        )
    except DrillError as error:
        usage(str(error))


def _member(rule: Rule, slices: list[str]) -> str:
    """The member that the options name: one value for each dimension of the rule, in its order."""
    given: dict[str, str] = {}
    for text in slices:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            usage(f"--slice {text!r} is not NAME=VALUE; write --slice region=华北")
        given[name.strip()] = value.strip()
    if given.keys() != set(rule.by):
        wanted = " ".join(f"--slice {name}=…" for name in rule.by) or "no --slice"
        usage(f"rule {rule.id} has {'slices by ' + ', '.join(rule.by) if rule.by else 'no slices'}; give {wanted}")
    return "|".join(given[name] for name in rule.by) or "all"


def _duration(text: str) -> timedelta:
    from metrics_pipeline.routing.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        usage(f"--for {error}")


def _end(door: CliDoor, routing: Routing, *, now: datetime, as_json: bool) -> None:
    from metrics_pipeline.alerts.drills import end_drills, waiting_ends

    ended = [one for one in end_drills(door.store, routing, now=now, at_once=True) if door.sight.sees(one)]
    waiting = waiting_ends(door.store, ended)
    if as_json:
        later = [{"drill": one.instance, **_held(one)} for one in waiting]
        print_json({"ended": ended, "later": later})
        return
    say(f"Ended: {', '.join(ended)}." if ended else "No drill goes on.")
    if waiting:
        print_table(
            "Told of the end later", [{"drill": one.instance, **_held_row(one, door.settings)} for one in waiting]
        )


def _held(one: HeldBack | WaitingEnd) -> dict[str, Any]:
    return {"to": one.receiver, "why": one.reason, "until": one.until}


def _held_row(one: HeldBack | WaitingEnd, settings: Settings) -> dict[str, str]:
    until = f"{one.until.astimezone(settings.zone):%Y-%m-%d %H:%M}" if one.until else ""
    return {"to": one.receiver, "why": one.reason, "until": until}


def _tell(store: Store, drill: Drill, settings: Settings, *, as_json: bool) -> None:
    from metrics_pipeline.alerts.listing import notifications

    told = [one.receiver for one in notifications(store) if one.key in drill.queued]
    if as_json:
        held = [_held(one) for one in drill.held]
        print_json({"drill": drill.instance, "until": drill.until.isoformat(), "told": told, "held": held})
        return
    say(f"[bold]{drill.instance}[/bold] until {drill.until.astimezone(settings.zone):%Y-%m-%d %H:%M}")
    print_table("Told", [{"to": one} for one in told])
    if drill.held:
        print_table("Held back", [_held_row(one, settings) for one in drill.held])
    rule = drill.instance.partition("{")[0]
    say(f"Acknowledge it: metrics alerts ack {rule} --by <name> · see it: metrics alerts show '{drill.instance}'")


def _send(store: Store, settings: Settings, *, now: datetime) -> None:
    from metrics_pipeline.delivery.channels import channels_from
    from metrics_pipeline.delivery.guard import MessageGuard
    from metrics_pipeline.delivery.outbox import deliver_due, wording_from
    from metrics_pipeline.routing.load import routing_of

    guard = MessageGuard(store, lambda: routing_of(settings))
    report = deliver_due(store, channels_from(settings), now=now, wording=wording_from(settings), guard=guard)
    rows = [
        {"to": one.receiver, "title": one.title, "how": one.outcome, "answer": one.answer} for one in report.attempts
    ]
    if rows:
        print_table("Sent", rows)
