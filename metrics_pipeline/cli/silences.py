"""`metrics silences`, and `metrics alerts ack|snooze`: what people do about messages.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.drills import EPILOG, alerts_drill
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    parse_moment,
    print_json,
    print_table,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.alerts.silencing import Muted
    from metrics_pipeline.store.dispatch import SilenceRow

SHOWN = 20

app = typer.Typer(no_args_is_help=True, help="Silences: what is not told for a while, by whom and why.")
ByOption = Annotated[str, typer.Option("--by", metavar="NAME", help="Who says so.")]
ForOption = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long: 2h, 1d, 1h30m.")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Until when instead, shop time.")]
SubjectArgument = Annotated[str, typer.Argument(help="A rule, an alert (rule{dimension=member}) or an episode key.")]


@app.command(
    "add",
    epilog="Examples: [bold]metrics silences add 'alertname=\"refund_rate_surge\"' 'region=\"华东\"' --for 2h --by li "
    "--reason '退货潮，已知'[/bold] · [bold]metrics silences add 'scenario=stock' --for 1d --by li --reason x --preview[/bold]",
)
def silences_add(  # noqa: PLR0917 - options of a command
    matchers: Annotated[list[str], typer.Argument(metavar="MATCHER...", help="Labels as in routes; all must match.")],
    by: ByOption,
    reason: Annotated[str, typer.Option("--reason", help="Why, for whoever finds it at night.")],
    lasts: ForOption = None,
    until: UntilOption = None,
    start: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Since when; default: now.")] = None,
    preview: Annotated[bool, typer.Option("--preview", help="Only show what it would mute.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Silence alerts; shows which of those that fire now it mutes. The end of what was told before is still told."""
    from metrics_pipeline.alerts.silencing import SilencingError, add_silence, preview_silence, read_matchers
    from metrics_pipeline.routing.load import routing_of
    from metrics_pipeline.routing.matchers import MatcherError

    settings = load_settings()
    now = datetime.now(UTC)
    starts_at = now if start is None else parse_moment(start, "--from", settings.zone)
    expires_at = _end(lasts, until, starts_at, settings)
    number: int | None = None
    try:
        wanted = read_matchers(matchers)
        with opened_door(settings) as door:
            door.require_general("silence")
            muted = door.sight.seen(preview_silence(door.store, routing_of(settings), wanted))
            door.read_alerts(muted)
            if not preview:
                number = add_silence(
                    door.store,
                    wanted,
                    author=door.acts_as(by, "--by"),
                    reason=reason,
                    starts_at=starts_at,
                    expires_at=expires_at,
                    now=now,
                )
    except (MatcherError, SilencingError) as error:
        usage(str(error))
    if as_json:
        print_json(
            {
                "silence": number,
                "starts_at": starts_at.isoformat(),
                "expires_at": expires_at.isoformat(),
                "mutes": [one.__dict__ for one in muted],
            }
        )
        return
    if number is not None:
        typer.echo(f"silence {number} until {expires_at.astimezone(settings.zone):%Y-%m-%d %H:%M}")
    _show_muted(muted)


@app.command("list", epilog="Examples: [bold]metrics silences list[/bold] · [bold]metrics silences list --all[/bold]")
def silences_list(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Silences that hold or are to come, the newest first."""
    from metrics_pipeline.alerts.silencing import list_silences

    settings = load_settings()
    now = datetime.now(UTC)
    with opened_door(settings) as door:
        found = list_silences(door.store, now=None if everything else now)
        if not door.is_general("read"):  # matchers may name any metric and slice
            found = [one for one in found if one.author == door.viewer.person]
    if as_json:
        print_json([_silence_json(one, now) for one in found])
        return
    rows = [
        {
            "silence": str(one.id),
            "status": _status(one, now),
            "matchers": one.matchers,
            "until": f"{one.expires_at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
            "by": one.author,
            "reason": one.reason,
        }
        for one in found
    ]
    print_table("Silences", rows)


@app.command("expire", epilog="Example: [bold]metrics silences expire 3 --by li[/bold]")
def silences_expire(
    number: Annotated[int, typer.Argument(help="Number of the silence.")], by: ByOption, as_json: JsonOption = False
) -> None:
    """End a silence now; what it held back and still fires is told next. Exit code 1 when it does not hold."""
    from metrics_pipeline.alerts.silencing import expire_silence

    with opened_door() as door:
        door.require_general("silence")
        done = expire_silence(door.store, number, who=door.acts_as(by, "--by"), now=door.now)
    if as_json:
        print_json({"silence": number, "expired": done})
    if not done:
        typer.echo(f"there is no silence {number} that holds; `metrics silences list` shows them", err=True)
        raise typer.Exit(PROBLEM)
    if not as_json:
        typer.echo(f"silence {number} is over")


def alerts_ack(  # noqa: PLR0917 - options of a command
    subject: SubjectArgument,
    by: ByOption,
    note: Annotated[str, typer.Option("--note", help="What you do about it.")] = "",
    lasts: ForOption = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take on what fires: nothing is repeated and nobody else is told until the time is over, or the alert is."""
    from metrics_pipeline.alerts.silencing import acknowledge
    from metrics_pipeline.routing.load import routing_of

    settings = load_settings()
    now = datetime.now(UTC)
    if lasts is None and until is None:
        end = now + routing_of(settings).ack_timeout
    else:
        end = _end(lasts, until, now, settings)
    _mark(acknowledge, "acknowledged", subject, Mark(by, note, now, end), settings, as_json=as_json)


def alerts_snooze(  # noqa: PLR0917 - options of a command
    subject: SubjectArgument,
    by: ByOption,
    note: Annotated[str, typer.Option("--note", help="Why.")] = "",
    lasts: ForOption = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold back news of what fires until a time; its end is still told."""
    from metrics_pipeline.alerts.silencing import snooze

    settings = load_settings()
    now = datetime.now(UTC)
    _mark(snooze, "snoozed", subject, Mark(by, note, now, _end(lasts, until, now, settings)), settings, as_json=as_json)


def alerts_held(as_json: JsonOption = False) -> None:
    """What fires and has not been told to somebody yet, and why: a silence, the time of day, a limit, missing data."""
    from metrics_pipeline.alerts.silencing import held_back

    settings = load_settings()
    with opened_door(settings) as door:
        found = door.sight.seen(held_back(door.store))
        door.read_alerts(found)
    if as_json:
        print_json([one.__dict__ for one in found])
        return
    print_table(
        "Held back",
        [
            {
                "tier": one.tier,
                "alert": one.instance,
                "to": one.receiver,
                "why": one.reason,
                "until": f"{one.until.astimezone(settings.zone):%Y-%m-%d %H:%M}" if one.until else "",
            }
            for one in found
        ],
    )


def add_to_alerts(alerts: typer.Typer) -> None:
    """Hang `ack`, `snooze`, `held` and `drill` up below `metrics alerts`."""
    alerts.command("drill", epilog=EPILOG)(alerts_drill)
    alerts.command("held", epilog="Example: [bold]metrics alerts held --json[/bold]")(alerts_held)
    alerts.command(
        "ack",
        epilog="Examples: [bold]metrics alerts ack refund_rate_surge --by li --note '正在查'[/bold] · "
        "[bold]metrics alerts ack 'refund_rate_surge{region=华东}' --by li --for 4h[/bold]",
    )(alerts_ack)
    alerts.command("snooze", epilog="Example: [bold]metrics alerts snooze refund_rate_surge --by li --for 2h[/bold]")(
        alerts_snooze
    )


class Mark(NamedTuple):
    """What somebody says of open alerts."""

    who: str
    note: str
    now: datetime
    until: datetime


def _mark(
    act: Callable[..., list[str]], word: str, subject: str, mark: Mark, settings: Settings, *, as_json: bool
) -> None:
    """Mark the open episodes of a subject and say which. `act`: `silencing.acknowledge` or `snooze`."""
    from metrics_pipeline.store.dispatch import open_episode_keys

    with _told(), opened_door(settings) as door:
        mark = mark._replace(who=door.acts_as(mark.who, "--by"))
        sees = door.sight.sees
        if not door.is_open:
            with door.store.reading() as connection:
                found = open_episode_keys(connection, subject)
            door.require_alerts("acknowledge" if word == "acknowledged" else "silence", filter(sees, found))
            if found and not any(map(sees, found)):
                door.deny("read", "alert")
        keys = act(door.store, subject, **mark._asdict(), is_meant=sees)
    end = mark.until
    if as_json:
        print_json({"episodes": list(keys), "until": end.isoformat()})
    if not keys:
        typer.echo(f"nothing of {subject!r} is open; `metrics alerts list` shows what fires", err=True)
        raise typer.Exit(PROBLEM)
    if not as_json:
        for key in keys[:SHOWN]:
            typer.echo(key)
        more = f" (and {len(keys) - SHOWN:,} more)" if len(keys) > SHOWN else ""
        typer.echo(f"{len(keys):,} {word} until {end.astimezone(settings.zone):%Y-%m-%d %H:%M}{more}")


def _show_muted(muted: Sequence[Muted]) -> None:
    if not muted:
        typer.echo("nothing that fires now matches; it will mute what comes")
        return
    rows = [{"tier": one.tier, "rule": one.rule, "alert": one.instance} for one in muted[:SHOWN]]
    print_table(f"Mutes {len(muted):,} that fire now", rows)


def _silence_json(one: SilenceRow, now: datetime) -> dict[str, Any]:
    times = {name: getattr(one, name).isoformat() for name in ("created_at", "starts_at", "expires_at")}
    return {**one._asdict(), **times, "status": _status(one, now)}


def _status(one: SilenceRow, now: datetime) -> str:
    if one.expires_at <= now:
        return "expired"
    return "active" if one.starts_at <= now else "pending"


def _end(lasts: str | None, until: str | None, start: datetime, settings: Settings) -> datetime:
    from metrics_pipeline.routing.durations import parse_duration

    if (lasts is None) == (until is None):
        usage("say how long with --for 2h, or until when with --until 2026-11-11T18:00")
    if until is not None:
        return parse_moment(until, "--until", settings.zone)
    try:
        return start + parse_duration(str(lasts))
    except ValueError as error:
        usage(f"--for {error}")


@contextmanager
def _told() -> Iterator[None]:
    from metrics_pipeline.alerts.silencing import SilencingError

    try:
        yield
    except SilencingError as error:
        usage(str(error))
