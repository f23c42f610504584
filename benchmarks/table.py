"""A benchmark's result as a Markdown table, and its place in `docs/performance.md`.

A section lies between `<!-- benchmark: name -->` and `<!-- end: name -->`; running the benchmark again replaces it and
leaves all other text alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

INTRODUCTION = """# Performance

What things cost, measured. Every table says the command that makes it anew; run it on your own machine before you
compare. CPU is user and system time of all processes; each figure is the least of the repetitions, since noise only adds.
"""


@dataclass(frozen=True)
class Table:
    """Rows of text under columns, and what to read in them."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    reading: str = ""
    """What the figures say, in a sentence or two."""

    def markdown(self) -> str:
        """A Markdown table; all columns but the first are right-aligned."""
        lines = [self.columns, ("---", *("--:" for _ in self.columns[1:])), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its name on the command line, and the function that runs its cases."""

    name: str
    title: str
    description: str
    """What is measured, on which data."""
    run: Callable[[Path, int], Table]
    """(empty working folder, repetitions) → table."""
    on_request: str = ""
    """What it needs that not every machine has: it only runs when it is named."""


def write_section(path: Path, benchmark: Benchmark, table: Table, *, machine: str, command: str) -> None:
    """Put the benchmark's section into the document, in the place of its former one or at the end."""
    text = path.read_text("utf-8") if path.exists() else INTRODUCTION
    begin, end = f"<!-- benchmark: {benchmark.name} -->", f"<!-- end: {benchmark.name} -->"
    section = "\n\n".join(
        part
        for part in (
            begin,
            f"## {benchmark.title}",
            benchmark.description,
            table.markdown(),
            table.reading,
            f"`{command}` ({machine})",
            end,
        )
        if part
    )
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text, replaced = pattern.subn(lambda _: section, text, count=1)
    path.write_text(text if replaced else f"{text.rstrip()}\n\n{section}\n", "utf-8")


def seconds(value: float) -> str:
    """Seconds with two significant digits below ten, e.g. `0.031`, `4.2`, `38`."""
    if value >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}" if value >= 0.1 else f"{value:.3f}"


def milliseconds(value: float) -> str:
    """Seconds as milliseconds, e.g. `0.4`, `31`, `120`."""
    return f"{value * 1000:.0f}" if value >= 0.01 else f"{value * 1000:.1f}"


def count(value: float) -> str:
    """A count with its order of magnitude, e.g. `850`, `1.5 M`."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"
