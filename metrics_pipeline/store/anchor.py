"""How far the audit log reached, kept in a file apart from the database.

The hashes of the log show what was changed inside it. Its end shows nothing: rows cut off there, or a log written anew
from some row on, are a valid chain too. So the number and hash of the newest row are also kept here, after each commit.
A head that the log does not bear out is never replaced, so that it still shows what was lost.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Head(NamedTuple):
    """A row of the audit log, by its number and hash."""

    sequence: int
    hash: str


@dataclass
class Anchor:
    """The head of a log and what one transaction adds to it. `path` None: nothing is kept."""

    path: Path | None
    pending: Head | None = field(default=None)

    def read(self) -> Head | None:
        """The kept head; None when there is none. Raises `ValueError` naming the file when it cannot be read."""
        if self.path is None or not self.path.exists():
            return None
        try:
            found = json.loads(self.path.read_text("utf-8"))
            return Head(int(found["sequence"]), str(found["hash"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f'{self.path} is damaged; expected {{"sequence": …, "hash": …}}') from None

    def keep(self, *, over: bool = False) -> None:
        """Write what was added; an earlier head never replaces a later one, unless `over`."""
        if self.path is None or self.pending is None:
            return
        try:
            kept = self.read()
        except ValueError:
            if not over:
                return
            kept = None
        if kept is not None and kept.sequence >= self.pending.sequence and not over:
            return
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(json.dumps(self.pending._asdict()) + "\n", "utf-8")
        part.replace(self.path)
