"""What rules are compared with besides values: the calendar of the shop, targets and benchmarks.

Targets, benchmarks and the events that return are dbt seeds: small files, validated here with file and line, whose rows
carry the days they are valid on; dbt loads the same files, so they have their place in the lineage
(docs/decisions/0006-targets-from-seeds.md). The calendar is put together from four places (docs/calendar.md): the seed,
the public holidays of the shop's country, the shop's own `_calendar.yml`, and its campaigns as of the last publish.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from metrics_pipeline.detection.campaign_days import campaign_days
from metrics_pipeline.detection.occasions import in_order, load_occasions
from metrics_pipeline.detection.own_calendar import CalendarProblem, OwnCalendar, load_own_calendar
from metrics_pipeline.detection.promotions import GLOBAL, YEARS, PromotionDay
from metrics_pipeline.detection.public_holidays import CHINESE_EVENTS, country_of, public_holidays
from metrics_pipeline.detection.references import Reference, load_references
from metrics_pipeline.settings import Settings
from metrics_pipeline.warehouse.campaigns import Campaign, read_campaigns

CALENDAR = "promotion_calendar.csv"


@dataclass(frozen=True)
class Seeds:
    """What the seeds of a project say to a shop."""

    promotions: tuple[PromotionDay, ...]
    """Days of the markets this shop is in: shipped events, public holidays, its own events, its campaigns."""
    references: tuple[Reference, ...]
    events: Collection[str]
    """Ids of the events of all markets, so that a rule is right in every shop."""
    problems: tuple[CalendarProblem, ...] = ()
    """Entries of the shop's own calendar that are left out."""


def seeds_of(settings: Settings) -> Seeds:
    """The seeds of an installation, with the shop's own calendar and campaigns. Raises as `read_seeds`."""
    return read_seeds(
        settings.dbt_project_dir,
        settings.installation.timezone,
        own=load_own_calendar(settings.rules_dir),
        campaigns=read_campaigns(settings.warehouse_dir),
    )


def read_seeds(
    dbt_project_dir: Path,
    timezone: str,
    years: Iterable[int] = YEARS,
    *,
    own: OwnCalendar | None = None,
    campaigns: Iterable[Campaign] = (),
) -> Seeds:
    """The seeds of a dbt project for a shop in this time zone. Raises `CalendarError`, `ReferenceFileError`."""
    folder, chosen, shop = dbt_project_dir / "seeds", tuple(years), own or OwnCalendar()
    country = shop.country or country_of(timezone)
    markets = {GLOBAL, country}
    shipped = load_occasions(folder / CALENDAR)
    holidays = public_holidays(country, chosen) if country and country != "none" else ()
    laid_out = [day for one in shipped if one.market in markets for day in one.days(chosen)]
    days = shop.applied(in_order([*laid_out, *holidays]), chosen)
    return Seeds(
        promotions=in_order([*days, *campaign_days(campaigns)]),
        references=load_references(folder),
        events=frozenset(one.event for one in (*shipped, *shop.occasions))
        | {day.event for day in holidays}
        | CHINESE_EVENTS,
        problems=shop.problems,
    )
