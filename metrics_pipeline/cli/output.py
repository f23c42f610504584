"""What every verb of the command line shares: answers as tables or JSON, ends with a word of what to do, the store.

Exit codes: 0 all is well · 1 a problem was found or something failed · 2 wrong usage.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.store import Store

PROBLEM = 1
USAGE = 2
_GAP = 2
"""Cells between two columns."""
_LEAST_CUT = 12
"""Cells that a shortened column keeps."""
LAST_WORDS = {"red": "bold red", "yellow": "yellow", "ok": "green"}

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def console() -> Console:
    """Standard output, as wide as the terminal, at least 80 and without one 110."""
    width = (
        None
        if sys.stdout.isatty()
        else max(80, min(120, int(os.get_terminal_size(0).columns) if _has_terminal() else 110))
    )
    return Console(width=width, highlight=False, soft_wrap=False)


def say(text: str) -> None:
    """A line of rich markup."""
    console().print(text)


def print_json(data: Any) -> None:
    """Plain values as JSON; what JSON does not know, as text."""
    typer.echo(json.dumps(data, ensure_ascii=False, indent=2, default=str))


def print_table(
    title: str, rows: Sequence[Mapping[str, Any]], *, numbers: Iterable[str] = (), cut: Sequence[str] = ()
) -> None:
    """Rows under the names of the first one; columns without any value are left out.

    On a screen too narrow for a line a row, the columns of `cut` are shortened, the first one first.
    """
    if not rows:
        say(f"{title}: nothing.")
        return
    table = Table(pad_edge=False, box=None)
    shown = [name for name in rows[0] if any(row.get(name) not in (None, "") for row in rows)]
    right = set(numbers)
    screen = console()
    widths = _cut_widths(rows, shown, cut, screen.width)
    for name in shown:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="ellipsis" if name in widths else "fold",
            no_wrap=name in widths,
            max_width=widths.get(name),
            header_style="dim",
        )
    for row in rows:
        table.add_row(
            *(Text(show_value(row.get(name)), style=LAST_WORDS.get(str(row.get(name)), "")) for name in shown)
        )
    screen.print(Text(title, style="bold"))  # the table's own title would be wrapped to the width of its columns
    screen.print(table)


def _cut_widths(
    rows: Sequence[Mapping[str, Any]], shown: Sequence[str], cut: Sequence[str], width: int
) -> dict[str, int]:
    """Column → cells it may have, for those that must give way so that a row fits into `width`."""
    needed = {name: max(cell_len(name), *(cell_len(show_value(row.get(name))) for row in rows)) for name in shown}
    excess = sum(needed.values()) + _GAP * (len(shown) - 1) - width
    widths: dict[str, int] = {}
    for name in cut:
        if excess > 0 and name in needed:
            widths[name] = max(needed[name] - excess, min(needed[name], _LEAST_CUT))
            excess -= needed[name] - widths[name]
    return widths


def show_value(item: Any) -> str:
    """A value for people: numbers with four digits or with thousands, nothing for None."""
    if item is None:
        return ""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, int):
        return f"{item:,}"
    if isinstance(item, float):
        return f"{item:,.0f}" if abs(item) >= 1000 else f"{item:.4g}"
    return str(item)


@contextmanager
def opened_store(settings: Settings | None = None) -> Iterator[Store]:
    """The store of this installation, closed at the end."""
    from metrics_pipeline.store import open_store

    store = open_store(settings or load_settings())
    try:
        yield store
    finally:
        store.close()


def usage(message: str) -> NoReturn:
    """Wrong usage: the message on standard error, exit code 2."""
    typer.echo(message, err=True)
    raise typer.Exit(USAGE)


def fail(message: str) -> NoReturn:
    """A problem: the message on standard error, exit code 1."""
    typer.echo(message, err=True)
    raise typer.Exit(PROBLEM)


@contextmanager
def steps(title: str) -> Iterator[tuple[Callable[[str], None], Callable[[float, str], None]]]:
    """A progress line on standard error: `tell` names the step, `total` sets the share done."""
    # A descriptor of its own: runs silence 1 and 2 while they execute.
    with os.fdopen(os.dup(2), "w") as stream:
        console = Console(file=stream, force_terminal=None)
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as progress:
            task = progress.add_task(title, total=None)
            yield (
                lambda text: progress.update(task, description=text, total=None),
                lambda share, text: progress.update(task, description=text, total=1.0, completed=share),
            )


def parse_day(text: str | None, option: str) -> date | None:
    """A day of an option; None when it was not given. Ends with wrong usage when it is none."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        usage(f"{option} {text!r} is not a day; write it as 2026-11-11")


def parse_moment(text: str, option: str, zone: tzinfo, *, like: str = "2026-11-11T18:00") -> datetime:
    """The moment of an option, aware: of `zone` unless it says its own. Ends with wrong usage when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        usage(f"{option} {text!r} is not a time; write it as {like}")
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def in_order(start: date | None, end: date | None, *, mend: str = "") -> None:
    """End with wrong usage when the days end before they begin."""
    if start is not None and end is not None and end < start:
        usage(f"the days end ({end}) before they begin ({start}){mend}")


def nearest(name: str, known: Iterable[str]) -> str:
    """` — did you mean 'x' or 'y'?`, up to three of them, or nothing."""
    from metrics_pipeline.nearest import nearest as guess

    return guess(name, known, most=3)


def _has_terminal() -> bool:
    try:
        os.get_terminal_size(0)
    except OSError:
        return False
    return True
