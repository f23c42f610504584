"""A tiny simulated shop with its history built, copied for each test that changes something."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from metrics_pipeline.orchestration.operations import NightReport, run_backfill
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import PROJECT_ROOT, Installation, Settings, write_installation
from metrics_pipeline.sources.simulator import simulate

NIGHT = date(2025, 12, 14)
DAYS = 45
SEED = 11
SCALE = 0.02
TOLD = """groups:
  - name: night
    rules:
      - alert: orders_there_are
        why: A night that has nothing to tell tests no message.
        why_zh: 没有消息的夜晚无法检验消息。
        metric: orders_paid
        expr: value
        yellow_if: "> 0"
        owner: sales
        labels: {scenario: test}
        annotations: {summary: There are orders, summary_zh: 有订单}
"""
"""A rule that is added after the history, so that the night tells of it: in a shop this small no starter rule breaches."""


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
    rules = home.with_name("rules")
    shutil.copytree(PROJECT_ROOT / "alert_rules", rules)
    settings = Settings(home=home, installation=installation, late_days=1, rules_dir=rules)
    simulate(settings.source_dir, seed=SEED, scale=SCALE, days=DAYS, until=NIGHT)
    project = Project.open(settings, clock)
    history = run_backfill(settings, first, NIGHT - timedelta(days=1), project=project)
    (rules / "night.yml").write_text(TOLD, "utf-8")
    return Shop(settings, project, history)
