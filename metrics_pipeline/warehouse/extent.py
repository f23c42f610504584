"""How far the build file reaches: what is loaded, what changed since the last publish, up to when a day is complete."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection


def covered_until(con: DuckDBPyConnection) -> dict[str, datetime]:
    """Raw table → end (naive UTC) of what is complete; tables without coverage are left out."""
    rows = con.execute("SELECT table_name, max(covered_until) FROM raw._coverage GROUP BY table_name").fetchall()
    return dict(rows)


def covered_from(con: DuckDBPyConnection) -> datetime | None:
    """The earliest moment (naive UTC) from which some table is complete; None when nothing is loaded."""
    row = con.execute("SELECT min(covered_from) FROM raw._coverage").fetchone()
    return row[0] if row else None


def complete_until(
    covered: dict[str, datetime], tables: Iterable[str], zone: ZoneInfo, *, not_after: datetime | None = None
) -> datetime | None:
    """Shop-local end of the last whole hour for which all `tables` are complete; None when one has no coverage."""
    ends = [covered.get(table) for table in tables]
    known = [end for end in ends if end is not None]
    if not known or len(known) < len(ends):
        return None
    local = min(known).replace(tzinfo=UTC).astimezone(zone).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    return local if not_after is None else min(local, not_after)


def forget_touched_before(con: DuckDBPyConnection, day: date, loaded_until: datetime) -> None:
    """Drop the touched days before `day` that were loaded at or before `loaded_until` (naive UTC): they are published.

    Later days stay: a run that rebuilt an old window has not rebuilt them.
    """
    con.execute("DELETE FROM raw._touched WHERE day < ? AND loaded_at <= ?", [day, loaded_until])
