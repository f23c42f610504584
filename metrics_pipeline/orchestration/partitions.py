"""Partitions: days and hours of the shop's own clock, and the windows that stand for them elsewhere.

Here: partition key ↔ day, hour, window, UTC span. Not here: which assets are partitioned (`raw_assets`, `dbt_assets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta

from dagster import DailyPartitionsDefinition, HourlyPartitionsDefinition, PartitionKeyRange

from metrics_pipeline.orchestration.keys import FROM_TAG
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.source import Span
from metrics_pipeline.warehouse.window import Window

DAY_FORMAT = "%Y-%m-%d"
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
FIRST_DAY = date(2024, 1, 1)
"""Start of the partitions while nothing is loaded yet; `metrics load|demo` set the real one from the source."""


def first_day(settings: Settings) -> date:
    """The first day that has a partition."""
    return settings.installation.first_day or FIRST_DAY


def daily_partitions(settings: Settings) -> DailyPartitionsDefinition:
    """One partition a shop-local day, from the first day the source covers to yesterday."""
    return DailyPartitionsDefinition(
        start_date=first_day(settings).isoformat(), timezone=settings.installation.timezone, fmt=DAY_FORMAT
    )


def hourly_partitions(settings: Settings) -> HourlyPartitionsDefinition:
    """One partition a shop-local hour, to the hour that ended last."""
    return HourlyPartitionsDefinition(
        start_date=datetime.combine(first_day(settings), time()).strftime(HOUR_FORMAT),
        timezone=settings.installation.timezone,
        fmt=HOUR_FORMAT,
    )


def day_of(key: str) -> date:
    """The day of a daily or hourly partition key."""
    return date.fromisoformat(key[:10])


def window_of(keys: PartitionKeyRange, tags: Mapping[str, str]) -> Window:
    """The whole days that a run is for: its range of daily or hourly partitions, and the days from its `FROM_TAG`."""
    start = day_of(keys.start)
    if (first := tags.get(FROM_TAG)) is not None:
        start = min(start, day_of(first))
    return Window(start, day_of(keys.end) + timedelta(days=1))


def last_day(window: Window) -> date:
    """The day a window ends with."""
    return window.until - timedelta(days=1)


def day_span(window: Window, settings: Settings) -> Span:
    """Shop-local days as a UTC span."""
    return Span(
        _utc(datetime.combine(window.start, time()), settings), _utc(datetime.combine(window.until, time()), settings)
    )


def hour_span(keys: PartitionKeyRange, settings: Settings) -> Span:
    """A range of hourly partitions as a UTC span."""
    last = datetime.strptime(keys.end, HOUR_FORMAT)
    return Span(_utc(datetime.strptime(keys.start, HOUR_FORMAT), settings), _utc(last, settings) + timedelta(hours=1))


def yesterday(settings: Settings, now: datetime) -> date:
    """The last whole day of the shop before the instant `now`."""
    return now.astimezone(settings.zone).date() - timedelta(days=1)


def _utc(local: datetime, settings: Settings) -> datetime:
    return local.replace(tzinfo=settings.zone).astimezone(UTC).replace(tzinfo=None)
