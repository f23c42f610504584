"""What the assets need from outside: the resolved project of an installation.

Here: `Project` (settings, source, catalogue, rules, clock, windows). Not here: what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from dagster import Definitions

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import RuleSet, load_rules
from metrics_pipeline.settings import Settings
from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.registry import open_source
from metrics_pipeline.sources.source import Source, SourceError
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.extent import covered_until
from metrics_pipeline.warehouse.load import oldest_touched_day
from metrics_pipeline.warehouse.manifest import read_current
from metrics_pipeline.warehouse.transform import ensure_manifest
from metrics_pipeline.warehouse.window import Window


def utc_now() -> datetime:
    """The real clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Project:
    """One installation, opened once per process: settings, source, catalogue, rules."""

    settings: Settings
    source: Source
    catalogue: Catalogue
    """Narrowed to what the source can give."""
    ruleset: RuleSet
    manifest_path: Path
    """The dbt manifest, prepared only when stale."""
    now: Callable[[], datetime] = utc_now
    """The clock, aware."""
    judgements: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    diagnoses: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """The verdicts of the run in progress, so that checks and alerts do not judge again (`judging.judge`)."""
    definitions: dict[str, Definitions] = field(default_factory=dict, compare=False, repr=False)
    """Built once per process (`operations`)."""

    @classmethod
    def open(cls, settings: Settings, now: Callable[[], datetime] = utc_now) -> Project:
        """Resolve an installation. Raises the error of the part that cannot be used."""
        source = open_source(settings)
        library = Catalogue.read(settings.dbt_project_dir)
        return cls(
            settings=settings,
            source=source,
            catalogue=library.for_source(source.info),
            ruleset=load_rules(settings.rules_dir, library),
            manifest_path=ensure_manifest(settings),
            now=now,
        )

    def advance(self, day: date) -> None:
        """Make the simulated shop live on to `day`; other sources deliver by themselves."""
        settings = self.settings
        if settings.installation.source != "simulator" or settings.installation.path is not None:
            return
        from metrics_pipeline.sources.simulator.run import read_manifest, simulate

        known = read_manifest(settings.source_dir)
        if known is not None and known.until < day < self.now().astimezone(settings.zone).date():
            simulate(settings.source_dir, seed=known.seed, scale=known.scale, days=known.days, until=day)

    def newest_day(self) -> date:
        """The newest whole day this source can give: the last covered one, at most yesterday.

        Raises `SourceError` when the source covers no day.
        """
        settings = self.settings
        yesterday = self.now().astimezone(settings.zone).date() - timedelta(days=1)
        if settings.installation.source == "simulator" and settings.installation.path is None:
            return yesterday
        ends = [span.until for table in load_contract().table_names for span in self.source.coverage(table)]
        if not ends:
            raise SourceError(f"source {self.source.info.name} covers no day; check its path in installation.yml")
        local = max(ends).replace(tzinfo=UTC).astimezone(settings.zone)
        return min(yesterday, local.date() - timedelta(days=1))

    def oldest_day(self) -> date:
        """The first day this source covers. Raises `SourceError` when it covers none."""
        starts = [span.start for table in load_contract().table_names for span in self.source.coverage(table)]
        if not starts:
            raise SourceError(f"source {self.source.info.name} covers no day; check its path in installation.yml")
        return min(starts).replace(tzinfo=UTC).astimezone(self.settings.zone).date()

    def load_start(self, start: datetime, tables: Sequence[str]) -> datetime:
        """Where loading has to begin (naive UTC) so that no hole is left behind what is loaded already."""
        if not self.settings.build_path.exists():
            return start
        with connect_build(self.settings.build_path, read_only=True) as con:
            covered = covered_until(con)
        known = [covered[table] for table in tables if table in covered]
        return min([start, *known])

    def window(self, asked: Window) -> Window:
        """What a run that was asked for these days rebuilds: late days, touched days and days nobody built yet, too."""
        # A conversion's day is built again until its window has passed, and again when a row within its window came late.
        settle = timedelta(days=max(metric.settle_days for metric in self.catalogue.metrics.values()))
        late = max(timedelta(days=self.settings.late_days), settle)
        starts: list[date] = [asked.start, asked.until - timedelta(days=1) - late]
        if self.settings.build_path.exists():
            with connect_build(self.settings.build_path, read_only=True) as con:
                touched = oldest_touched_day(con)
            if touched is not None:
                starts.append(touched - settle)
        if (version := read_current(self.settings.published_dir)) is not None:
            starts.append(version.window.until - settle)
        return Window(min(starts), asked.until)
