"""A tiny simulated shop with its history built, copied for each test that changes something."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from metrics_pipeline.orchestration.operations import NightReport, run_backfill
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import Installation, Settings, write_installation
from metrics_pipeline.sources.simulator import simulate

NIGHT = date(2025, 12, 14)
DAYS = 45
SEED = 11
SCALE = 0.02


def clock() -> datetime:
    """03:00 shop time after the night's day."""
    return datetime(2025, 12, 14, 19, tzinfo=UTC)


@dataclass(frozen=True)
class Shop:
    """A home whose history is built up to the day before `NIGHT`."""

    settings: Settings
    project: Project
    history: NightReport

    def copy(self, home: Path) -> Shop:
        """The same shop somewhere else, to be changed."""
        shutil.copytree(self.settings.home, home)
        settings = self.settings.model_copy(update={"home": home})
        return Shop(settings, Project.open(settings, clock), self.history)


def build_shop(home: Path) -> Shop:
    """Simulate, then build the history as one silent run."""
    first = NIGHT - timedelta(days=DAYS - 1)
    installation = Installation(seed=SEED, scale=SCALE, first_day=first)
    write_installation(home, installation)
    settings = Settings(home=home, installation=installation, late_days=1)
    simulate(settings.source_dir, seed=SEED, scale=SCALE, days=DAYS, until=NIGHT)
    project = Project.open(settings, clock)
    return Shop(settings, project, run_backfill(settings, first, NIGHT - timedelta(days=1), project=project))
