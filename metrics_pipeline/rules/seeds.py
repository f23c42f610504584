"""What rules are compared with besides values: the promotion calendar, targets and benchmarks, all dbt seeds.

Read from the CSV files themselves, as the calendar always was: they are small, validated here with file and line, their
rows carry the days they are valid on, and dbt loads the same files, so they have their place in the lineage
(docs/decisions/0006-targets-from-seeds.md).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.detection.promotions import PromotionDay, load_promotions, markets_of
from metrics_pipeline.detection.references import Reference, load_references

CALENDAR = "promotion_calendar.csv"


@dataclass(frozen=True)
class Seeds:
    """What the seeds of a project say to a shop."""

    promotions: tuple[PromotionDay, ...]
    """Days of the markets this shop is in."""
    references: tuple[Reference, ...]
    events: Collection[str]
    """Ids of the events of all markets, so that a rule is right in every shop."""


def read_seeds(dbt_project_dir: Path, timezone: str) -> Seeds:
    """The seeds of a dbt project for a shop in this time zone. Raises `CalendarError`, `ReferenceFileError`."""
    folder = dbt_project_dir / "seeds"
    markets = markets_of(timezone)
    days = load_promotions(folder / CALENDAR)
    return Seeds(
        promotions=tuple(day for day in days if day.market in markets),
        references=load_references(folder),
        events=frozenset(day.event for day in days),
    )
