"""The shop's campaigns, from the raw data into a small file that every reader of the calendar may open.

The build file has them, and only its writer opens that; so each publish writes `campaigns.parquet` beside the published
versions: campaign_id, name, ad_channel, starts_on, ends_on. Written as a whole and put in place at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final

from metrics_pipeline.warehouse.quoting import literal

if TYPE_CHECKING:
    import duckdb

NAME: Final = "campaigns.parquet"
COLUMNS: Final = ("campaign_id", "name", "ad_channel", "starts_on", "ends_on")


@dataclass(frozen=True)
class Campaign:
    """One campaign of the shop."""

    id: str
    name: str
    ad_channel: str
    starts_on: date
    ends_on: date


def write_campaigns(con: duckdb.DuckDBPyConnection, folder: Path) -> int:
    """Write the dated campaigns of an open build file to `folder`; returns how many. 0 and no file when it has none."""
    known = {
        row[0]
        for row in con.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'raw' AND table_name = 'campaigns'"
        ).fetchall()
    }
    if not known.issuperset(COLUMNS):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{NAME}"
    con.execute(
        f"""COPY (
            SELECT campaign_id::VARCHAR AS campaign_id, coalesce(name, campaign_id)::VARCHAR AS name,
                ad_channel::VARCHAR AS ad_channel, starts_on::DATE AS starts_on, ends_on::DATE AS ends_on
            FROM raw.campaigns
            WHERE starts_on IS NOT NULL AND ends_on >= starts_on AND ad_channel IS NOT NULL
            ORDER BY starts_on, campaign_id
        ) TO {literal(str(part))} (FORMAT parquet)"""
    )
    part.replace(folder / NAME)
    return len(read_campaigns(folder))


def read_campaigns(folder: Path) -> tuple[Campaign, ...]:
    """The campaigns that were written, by first day; () when none were."""
    path = folder / NAME
    if not path.exists():
        return ()
    import duckdb

    with duckdb.connect() as con:
        rows = con.execute(
            f"SELECT {', '.join(COLUMNS)} FROM read_parquet({literal(str(path))}) ORDER BY 4, 1"
        ).fetchall()
    return tuple(Campaign(*row) for row in rows)
