"""Metrics that wait for their window: what a night builds again for them, and up to which day they are final."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.orchestration.publish_asset import metric_tables
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.rules.load import RuleSet
from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.sources.simulator.source import SimulatorSource
from metrics_pipeline.warehouse.window import Window

NIGHT = Window(date(2025, 11, 11), date(2025, 11, 12))
COVERED = dict.fromkeys(("orders", "payments", "sessions"), datetime(2025, 11, 11, 16, tzinfo=UTC).replace(tzinfo=None))
"""Midnight of the shop after the night's day."""


def make_project(home: Path, **settings: Any) -> Project:
    return Project(
        settings=Settings(home=home, **settings),
        source=SimulatorSource(home),
        catalogue=Catalogue.read(PROJECT_ROOT / "dbt_project"),
        ruleset=RuleSet((), ()),
        manifest_path=home / "manifest.json",
    )


@pytest.mark.parametrize(("late_days", "first"), [(0, date(2025, 11, 10)), (3, date(2025, 11, 8))])
def test_a_night_builds_the_day_before_again_whose_conversions_have_ended_now(
    tmp_path: Path, late_days: int, first: date
) -> None:
    assert make_project(tmp_path, late_days=late_days).window(NIGHT) == Window(first, NIGHT.until)


def test_a_conversion_and_its_rate_are_final_a_day_later_than_what_they_are_made_of(tmp_path: Path) -> None:
    tables = metric_tables(make_project(tmp_path), COVERED, NIGHT, None)
    until = {name: tables[name].state.complete_until for name in ("orders_placed", "payment_within_day_rate")}
    assert until == {"orders_placed": datetime(2025, 11, 12), "payment_within_day_rate": datetime(2025, 11, 11)}
