"""Two homes with real data, built once per worker by the calls of `metrics load` and `metrics backfill`.

Tests carry `xdist_group` with the home's name, so that one worker builds it. Slices by SKU are built for the last
weeks only, and the run is not recorded in Dagster: neither is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path

import pytest

from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.orchestration.publish_asset import metric_tables
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.rehearsal import Rehearsal, rehearse
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import Episode, Replay, replay
from metrics_pipeline.rules.seeds import seeds_of
from metrics_pipeline.settings import Installation, Settings, write_installation
from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.registry import open_source
from metrics_pipeline.sources.source import Span
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.extent import covered_until
from metrics_pipeline.warehouse.load import load
from metrics_pipeline.warehouse.publish import publish
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.transform import run_dbt
from metrics_pipeline.warehouse.window import Window


@dataclass(frozen=True)
class Home:
    """A built installation."""

    settings: Settings

    @cached_property
    def published(self) -> Published:
        return Published.open(self.settings.published_dir)

    @cached_property
    def rules(self) -> Sequence[Rule]:
        """The shipped rules."""
        return load_rules(self.settings.rules_dir, Catalogue.read(self.settings.dbt_project_dir)).rules

    @cached_property
    def promotions(self) -> Sequence[PromotionDay]:
        return seeds_of(self.settings).promotions

    def replay(self, first: date, last: date, *, promotions: Sequence[PromotionDay] | None = None) -> Replay:
        """What the shipped rules would have said from `first` to `last`, both included; default: with the calendar."""
        until = last + timedelta(days=1)
        days = self.promotions if promotions is None else promotions
        return replay(self.published, self.rules, first, until, promotions=days)

    def rehearse(self, first: date, last: date, *, hours: bool = True) -> Rehearsal:
        """What people would have received from the shipped rules and routes, `first` to `last`, both included."""
        catalogue = Catalogue.read(self.settings.dbt_project_dir)
        rules = [rule for rule in self.rules if hours or rule.grain == "day"]
        return rehearse(
            self.published,
            rules,
            first,
            last,
            cards=cards_of(rules, catalogue.metrics),
            routing=routing_of(self.settings),
            zone=self.settings.zone,
            promotions=self.promotions,
        )

    def values(self, metric: str, dimension: str = "all") -> Mapping[tuple[date, str], float]:
        """(Day, member) → published value, without days that have none."""
        member = "all" if dimension == "all" else None
        frame = self.published.series(metric, dimension=dimension, member=member)
        known = frame[frame["value"].notna()]
        days = [moment.date() for moment in known["period_start"]]
        return dict(zip(zip(days, known["member"], strict=True), known["value"], strict=True))


@pytest.fixture(scope="session")
def olist(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The marketplace: 20 months of orders, items, payments, parcels and reviews."""
    return _build("olist", real_data / "olist", tmp_path_factory.mktemp("olist"))


@pytest.fixture(scope="session")
def merch_store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """The merchandise shop: three months of visits with purchases."""
    return _build("merch_store", real_data / "ga360_merch_store", tmp_path_factory.mktemp("merch_store"))


@pytest.fixture(scope="session")
def olist_replay(olist: Home) -> Replay:
    """All rules over all complete days of the marketplace."""
    return olist.replay(date(2017, 1, 5), date(2018, 8, 22))


@pytest.fixture(scope="session")
def merch_store_replay(merch_store: Home) -> Replay:
    """All rules over the three months of the shop."""
    return merch_store.replay(date(2017, 1, 1), date(2017, 3, 31))


@pytest.fixture(scope="session")
def olist_messages(olist: Home) -> Rehearsal:
    """All nights of the marketplace, and the nine after its data ended."""
    return olist.rehearse(date(2017, 1, 5), date(2018, 8, 31), hours=False)


@pytest.fixture(scope="session")
def merch_store_messages(merch_store: Home) -> Rehearsal:
    """All nights and hours of the shop."""
    return merch_store.rehearse(date(2017, 1, 1), date(2017, 3, 31))


@pytest.fixture(scope="session")
def fired_on() -> Callable[[Replay, date], Mapping[tuple[str, str], Episode]]:
    """(Rule, member) → alert, of those that began to fire on a day."""

    def on_day(found: Replay, day: date) -> Mapping[tuple[str, str], Episode]:
        return {(one.rule, one.member): one for one in found.episodes if one.fired_at.date() == day}

    return on_day


def _build(source: str, path: Path, home: Path) -> Home:
    if not path.is_dir():
        pytest.skip(f"no real data at {path} (set METRICS_REAL_DATA)")
    installation = Installation(source=source, path=path)
    opened = open_source(Settings(home=home, installation=installation))
    names = load_contract().table_names
    spans = [span for name in names for span in opened.coverage(name)]
    covered = Span(min(span.start for span in spans), max(span.until for span in spans))
    zone = opened.info.timezone
    installation = installation.model_copy(update={"timezone": zone, "currency": opened.info.currency})
    first = covered.start.replace(tzinfo=UTC).astimezone(Settings(home=home, installation=installation).zone).date()
    installation = installation.model_copy(update={"first_day": first})
    write_installation(home, installation)
    settings = Settings(home=home, installation=installation, sku_days=35)
    now = datetime.now(UTC)
    load(settings.build_path, opened, names, covered, now=now, timezone=zone)
    project = Project.open(settings)
    window = Window(project.oldest_day(), project.newest_day() + timedelta(days=1))
    run_dbt(settings, window)
    with connect_build(settings.build_path) as con:
        tables = metric_tables(project, covered_until(con), window, None)
        publish(con, settings.published_dir, tables=tables, window=window, run_id="real", now=now)
    return Home(settings)
