"""`metrics channels`: which channels there are, and what the other side says to a test message.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

import json
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metrics_pipeline.cli.door import require_operator
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.delivery.channels.channel import Channel

PROBLEM = 1
USAGE = 2
STYLES = {"ready": "green", "unusable": "bold red"}

app = typer.Typer(no_args_is_help=True, help="Channels: how messages leave, and whether they arrive.")
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command("list", epilog="Example: [bold]metrics channels list --json[/bold]")
def channels_list(as_json: JsonOption = False) -> None:
    """The channels of this installation and what is wrong with them. Exit code 1 when one cannot be used."""
    from metrics_pipeline.delivery.channels.settings import open_channels, read_channels

    settings = load_settings()
    require_operator(settings)
    found = read_channels(settings.channels_file)
    rows = [_row(channel) for channel in open_channels(settings, found).values()]
    problems = [str(problem) for problem in found.problems]
    if as_json:
        typer.echo(json.dumps({"channels": rows, "problems": problems}, ensure_ascii=False, indent=2))
    else:
        table = Table(title="Channels", title_justify="left", title_style="bold", pad_edge=False, box=None)
        for head in ("name", "kind", "a minute", "status", "problem"):
            table.add_column(head, overflow="fold", header_style="dim")
        for row in rows:
            cells = (row["name"], row["kind"], row["limit"] or "any", row["status"], row["problem"])
            table.add_row(*(Text(str(cell), style=STYLES.get(str(cell), "")) for cell in cells))
        _console().print(table)
        for problem in problems:
            if not any(problem in row["problem"] for row in rows):
                typer.echo(problem, err=True)
        if len(rows) <= 2 and not problems:
            typer.echo(f"More channels are set up in {settings.channels_file} (docs/channels.md).")
    if problems or any(row["status"] != "ready" for row in rows):
        raise typer.Exit(PROBLEM)


@app.command(
    "test",
    epilog="Examples: [bold]metrics channels test ops_dingtalk[/bold] · "
    "[bold]metrics channels test sms --to +8613800001111[/bold]",
)
def channels_test(
    name: Annotated[str, typer.Argument(help="A channel of `metrics channels list`.")],
    to: Annotated[str, typer.Option(help="Address: a phone number, an email address, people a bot calls.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Send a test message now and show what the other side answers. Exit code 0 when it took the message, else 1."""
    from metrics_pipeline.delivery.channels import Failure, PermanentFailure, RateLimited
    from metrics_pipeline.delivery.channels.settings import open_channels, read_channels
    from metrics_pipeline.delivery.messages import compose
    from metrics_pipeline.delivery.outbox import wording_from
    from metrics_pipeline.delivery.sample import make_test_notice

    settings = load_settings()
    require_operator(settings)
    channels = open_channels(settings, read_channels(settings.channels_file))
    if name not in channels:
        typer.echo(f"There is no channel {name!r}; the channels are {', '.join(channels)}.", err=True)
        raise typer.Exit(USAGE)
    now = datetime.now(UTC)
    yesterday = now.astimezone(settings.zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    notice = make_test_notice(name, key=uuid.uuid4().hex, now=now, period=yesterday - timedelta(days=1))
    message = compose(notice, wording_from(settings))
    result: dict[str, Any] = {"channel": name, "to": to, "outcome": "sent", "code": "", "mend": "", "retry_after": None}
    try:
        result["answer"] = channels[name].send(message, to)
    except Failure as failure:
        result |= {"answer": failure.answer, "code": failure.code, "mend": failure.mend}
        wait: timedelta | None = getattr(failure, "retry_after", None)
        result["retry_after"] = None if wait is None else wait.total_seconds()
        result["outcome"] = (
            "permanent"
            if isinstance(failure, PermanentFailure)
            else "rate-limited"
            if isinstance(failure, RateLimited)
            else "temporary"
        )
    _tell(result, as_json=as_json)
    if result["outcome"] != "sent":
        raise typer.Exit(PROBLEM)


def _tell(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False, indent=2))
        return
    where = f"{result['channel']}:{result['to']}" if result["to"] else result["channel"]
    if result["outcome"] == "sent":
        _console().print(Text.assemble((f"{where} took the message: ", "green"), str(result["answer"])))
        return
    text = f"{where} did not take the message ({result['outcome']}): {result['answer']}"
    if result["mend"]:
        text += f" → {result['mend']}"
    if result["retry_after"]:
        text += f" (again in {result['retry_after']:.0f} s)"
    typer.echo(text, err=True)


def _row(channel: Channel) -> dict[str, Any]:
    from metrics_pipeline.delivery.channels.settings import UnusableChannel, kind_of

    problem = channel.problem if isinstance(channel, UnusableChannel) else ""
    return {
        "name": channel.name,
        "kind": kind_of(channel),
        "limit": channel.limit,
        "status": "unusable" if problem else "ready",
        "problem": problem,
    }


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 110, highlight=False, soft_wrap=False)
