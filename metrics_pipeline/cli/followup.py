"""`metrics rules quality`, `metrics rules propose`, `metrics proposals`: how good rules are, and changes that answers suggest.

`app` hangs them up; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import JsonOption, parse_day, print_json, print_table, say
from metrics_pipeline.settings import load_settings

QUALITY_DAYS = 90

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="YYYY-MM-DD", help=f"First day; default: {QUALITY_DAYS} days ago.")
]


def add_to_rules(app: typer.Typer) -> None:
    """Hang up the verbs of `metrics rules`."""
    app.command(
        "quality",
        epilog="Examples: [bold]metrics rules quality[/bold] · [bold]metrics rules quality --since 2026-09-01 --json[/bold]",
    )(rules_quality)


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
    numbers = ("alerts", "red", "true", "false", "expected", "no answer", "messages", "told after h", "acted after h")
    print_table(f"Rules since {start:%Y-%m-%d}", [_quality_row(one) for one in found.rules], numbers=numbers)
    if found.rules and not any(one.answered for one in found.rules):
        say("Nobody answered yet: [bold]metrics alerts feedback EPISODE --useful[/bold] or close the work order.")
    loads = [{"who": one.receiver, "week": one.week, "messages": one.messages, "red": one.red} for one in found.loads]
    if loads:
        print_table("Messages a week", loads, numbers=("messages", "red"))


def _quality_row(one: Any) -> dict[str, Any]:
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
        "no answer": one.unanswered + one.aside,
        "precision": precision,
        "messages": one.messages,
        "told after h": one.hours_to_tell,
        "acted after h": one.hours_to_act,
    }
