"""What rules are compared with besides values: the promotion calendar, targets and benchmarks, all dbt seeds.

Read from the CSV files themselves, as the calendar always was: they are small, validated here with file and line, their
rows carry the days they are valid on, and dbt loads the same files, so they have their place in the lineage
(docs/decisions/0006-targets-from-seeds.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.detection.occasions import in_order, load_occasions
from metrics_pipeline.detection.promotions import YEARS, PromotionDay
from metrics_pipeline.detection.public_holidays import CHINESE_EVENTS, country_of, markets_of, public_holidays
from metrics_pipeline.detection.references import Reference, load_references

CALENDAR = "promotion_calendar.csv"


@dataclass(frozen=True)
class Seeds:
    """What the seeds of a project say to a shop."""

    promotions: tuple[PromotionDay, ...]
    """Days of the markets this shop is in, public holidays included."""
    references: tuple[Reference, ...]
    events: Collection[str]
    """Ids of the events of all markets, so that a rule is right in every shop."""


def read_seeds(dbt_project_dir: Path, timezone: str, years: Iterable[int] = YEARS) -> Seeds:
    """The seeds of a dbt project for a shop in this time zone. Raises `CalendarError`, `ReferenceFileError`."""
    folder = dbt_project_dir / "seeds"
    markets, country, chosen = markets_of(timezone), country_of(timezone), tuple(years)
    shipped = load_occasions(folder / CALENDAR)
    holidays = public_holidays(country, chosen) if country else ()
    return Seeds(
        promotions=in_order(
            [*(day for one in shipped if one.market in markets for day in one.days(chosen)), *holidays]
        ),
        references=load_references(folder),
        events=frozenset(one.event for one in shipped) | {day.event for day in holidays} | CHINESE_EVENTS,
    )
