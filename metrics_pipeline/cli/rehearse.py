"""`metrics alerts rehearse`: the messages people would have received in the past.

It is a verb of `alerts` and not an option of `rules replay`: a replay asks when rules fire and how well, this asks what reaches
whom, so it has a clock, routes and people for arguments and shares none of the replay's listings.
"""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    fail,
    in_order,
    nearest,
    parse_day,
    print_json,
    print_table,
    say,
    show_value,
    steps,
    usage,
)
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.rehearsal import Message, Rehearsal

TITLE = "Rehearsing"
SLICES = 4
"""Slices named in a line of the table; more are counted."""


def add_to_alerts(app: typer.Typer) -> None:
    """Hang the verb up."""
    app.command(
        "rehearse",
        epilog="Examples: [bold]metrics alerts rehearse --from 2026-06-01 --to 2026-11-20[/bold] · [bold]metrics alerts rehearse "
        "--from 2026-06-01 --to 2026-11-20 --rule gmv_anomaly --ack 09:30 --out rehearsed/[/bold]",
    )(alerts_rehearse)


def alerts_rehearse(  # noqa: PLR0917 - options of a command
    first: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day that is judged.")],
    last: Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, inclusive.")],
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Only this rule; may be given again.")] = None,
    night: Annotated[str, typer.Option("--at", metavar="HH:MM", help="When a day is judged, the next day.")] = "03:00",
    ack: Annotated[
        str | None,
        typer.Option(
            "--ack", metavar="HH:MM", help="Somebody acknowledges what fires every day at this time; default: nobody."
        ),
    ] = None,
    hours: Annotated[
        bool, typer.Option("--hours/--no-hours", help="Judge hourly rules, hour by hour, as the hourly schedule does.")
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", help="Keep the messages in this folder.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What people would have received between two days with today's rules and routes. Sends nothing, changes nothing."""
    from metrics_pipeline.alerts.cards import cards_of
    from metrics_pipeline.alerts.sight import known_card
    from metrics_pipeline.delivery.outbox import wording_from
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rehearsal import Schedule, rehearse
    from metrics_pipeline.routing.load import routing_of
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of

    settings = load_settings()
    start, end = parse_day(first, "--from"), parse_day(last, "--to")
    assert start is not None
    assert end is not None
    in_order(start, end)
    schedule = Schedule(night=_time(night, "--at"), acknowledged=_time(ack, "--ack") if ack else None)
    catalogue = Catalogue.read(settings.dbt_project_dir)
    seeds = seeds_of(settings)
    ruleset = load_rules(settings.rules_dir, catalogue, seeds)
    with opened_door(settings) as door:
        door.require_export("alerts.rehearse", out)
        by_id = {one.id: one for one in ruleset.rules}
        known = {name: one for name, one in by_id.items() if door.sees_rule(one, by_id)}
        published, reading = door.published(), door.viewer.reading
    for name in rule or ():
        if name not in known:
            usage(f"there is no rule {name!r}{nearest(name, known)}")
    chosen = [one for one in known.values() if (not rule or one.id in rule) and (hours or one.grain != "hour")]
    if not chosen:
        told = "".join(f"{problem}\n" for problem in ruleset.problems) if reading.is_open else ""
        fail(f"{told}there is no usable rule in {settings.rules_dir}; `metrics rules lint` lists every problem")
    routing = routing_of(settings, rules=ruleset.rules, metrics=catalogue.metrics)
    title = f"{TITLE} {len(chosen)} rule{'s' if len(chosen) != 1 else ''}"
    with steps(title) as (_, total):
        found = rehearse(
            published,
            chosen,
            start,
            end,
            cards={
                name: known_card(card, reading)
                for name, card in cards_of(chosen, catalogue.metrics, currency=settings.installation.currency).items()
            },
            routing=routing,
            zone=settings.zone,
            schedule=schedule,
            known_rules=ruleset.rules,
            promotions=seeds.promotions,
            references=seeds.references,
            wording=wording_from(settings),
            folder=out,
            progress=lambda share: total(share, title),
        )
    problems = [*ruleset.problems, *routing.problems] if reading.is_open else []  # they name anything
    if as_json:
        print_json(
            {**found.as_json(), "problems": [str(one) for one in problems], **({"out": str(out)} if out else {})}
        )
    else:
        _print(found)
        for problem in problems:
            typer.echo(str(problem), err=True)
        if out is not None:
            typer.echo(f"Messages: {out}")
    for name, error in found.errors.items():
        typer.echo(f"{name}: {error}", err=True)
    if found.errors:
        raise typer.Exit(PROBLEM)


def _print(found: Rehearsal) -> None:
    print_table(f"Messages, {found.first} to {found.last}", [_row(one) for one in found.messages])
    numbers = ("messages", "days", "median", "mean", "max")
    print_table(
        "A day, by receiver",
        [{"receiver": name, **figures} for name, figures in found.receivers.items()],
        numbers=numbers,
    )
    print_table(
        "Why they were sent",
        [{"reason": name, "messages": count} for name, count in found.reasons.items()],
        numbers=numbers,
    )
    if never := found.untold:
        kinds = sorted({(one.rule, one.held) for one in never})
        say(
            f"{len(never)} times a receiver was not told of what fired: {', '.join(f'{name} {why}'.strip() for name, why in kinds)}"
        )
    say(f"{found.runs:,} nights and hours judged.")


def _row(one: Message) -> dict[str, Any]:
    shown = [
        f"{'' if rule == one.rule else f'{rule} '}{'' if member == 'all' else member}".strip() or "total"
        for rule, member in (one.slices("resolved", "corrected", "cancelled") if one.is_end else one.slices())
    ]
    more = len(shown) - SLICES
    worst = one.notice.slices[0] if one.notice.slices else None
    return {
        "sent": f"{one.at:%Y-%m-%d %H:%M}",
        "reason": one.reason,
        "tier": one.tier,
        "rule": one.rule,
        "slices": ", ".join(shown[:SLICES]) + (f" and {more} more" if more > 0 else ""),
        "value / expected": "" if worst is None or one.is_end else _figures(worst.value, worst.baseline),
        "to": one.receiver,
    }


def _figures(value: float | None, baseline: float | None) -> str:
    """A value beside its expectation; a rule over plain values expects none."""
    return show_value(value) if baseline is None else f"{show_value(value)} / {show_value(baseline)}"


def _time(text: str, option: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError:
        usage(f"{option} {text!r} is not a time; write it as 09:30")
