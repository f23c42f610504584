"""Messages on the terminal, for the command line: a headline and a table that fits the width."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from metrics_pipeline.delivery.messages import Message

WIDE = 72
"""Columns of a terminal that show the whole table; a narrower one gets slice, status and value."""
NARROW_COLUMNS = 3
COLOURS = {"red": "bold red", "yellow": "bold yellow", "none": "bold green"}


@dataclass(frozen=True)
class ConsoleChannel:
    """Prints messages."""

    console: Console = field(default_factory=Console)
    name: str = "console"
    limit: int | None = None

    def send(self, message: Message, address: str) -> str:
        """Print the headline, the facts and the worst slices. `address` is not used."""
        colour = "bold green" if message.is_over else COLOURS[message.notice.tier]
        self.console.print(Text(message.title, style=colour))
        facts = Table(box=None, show_header=False, pad_edge=False)
        facts.add_column(style="dim", no_wrap=True)
        facts.add_column(overflow="fold")
        for label, value in message.facts:
            facts.add_row(Text(label), Text(value))
        self.console.print(facts)
        columns = len(message.table_head) if self.console.width >= WIDE else NARROW_COLUMNS
        table = Table(*(escape(head) for head in message.table_head[:columns]), pad_edge=False)
        for row in message.table_rows:
            table.add_row(*(Text(cell) for cell in row.cells[:columns]))
        self.console.print(table)
        return f"printed {self.console.width} columns wide"
