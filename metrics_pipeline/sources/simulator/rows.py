"""The currency of the simulator: coded columns, their hand-over from month to month, and random streams.

All generation works on integers: a region is a position in `market.REGIONS`, a time is UTC seconds, money is in
cents, an id is its number. `write.py` alone turns them into text, timestamps and decimals.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = dict[str, Array]
"""One table: column name → coded values, all of one length."""

DAY = 86_400
NONE = -1
"""Coded absence of a text or a member."""
NEVER = np.iinfo(np.int64).min
"""Coded absence of a time."""


def stream(seed: int, topic: str, period: int = 0) -> np.random.Generator:
    """An independent random stream per seed, topic and period (a month number), so that a longer run repeats a shorter one."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([seed, period, *topic.encode()])))


def concatenate(parts: list[Rows]) -> Rows:
    """The rows of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def take(rows: Rows, which: Array) -> Rows:
    """The rows selected by a mask or by positions."""
    return {name: column[which] for name, column in rows.items()}


def size(rows: Rows) -> int:
    """Number of rows."""
    return len(next(iter(rows.values()))) if rows else 0


class Ledger:
    """Rows made but not yet written: a refund of March's order belongs to the file of April."""

    def __init__(self, clocks: dict[str, str]) -> None:
        self._clocks = clocks
        self._pending: dict[str, list[Rows]] = defaultdict(list)

    def add(self, table: str, rows: Rows) -> None:
        """Put rows of `table`, in any order of time."""
        if size(rows):
            self._pending[table].append(rows)

    def release(self, table: str, before: int) -> Rows | None:
        """Rows whose clock is before `before` (unit of the clock), sorted by it and removed from the ledger; None when there are none."""
        parts = self._pending.pop(table, [])
        if not parts:
            return None
        rows = concatenate(parts)
        parts.clear()
        clock = rows[self._clocks[table]]
        due = clock < before
        if not due.all():
            self._pending[table] = [take(rows, ~due)]
            rows = take(rows, due)
            clock = rows[self._clocks[table]]
        if not len(clock):
            return None
        if np.any(clock[1:] < clock[:-1]):
            rows = take(rows, np.argsort(clock, kind="stable"))
        return rows
