"""A catalogue site of the starter metrics over a published version made of a few series."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.site.content import MEMBERS, Content
from metrics_pipeline.sources.source import Absence

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
sys.path.insert(0, str(Path(__file__).parent))
from catalogue_site import SECRET, site_content
from shop import Shop

FIRST = date(2025, 9, 1)
DAYS = 100


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    found = Catalogue.read(PROJECT_ROOT / "dbt_project")
    gone = replace(found.metrics["ad_clicks"], absent=Absence("source test has no ad_spend.clicks", "数据源没有点击"))
    return replace(found, metrics={**found.metrics, "ad_clicks": gone})


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, catalogue: Catalogue):
    built = Shop(absent={"ad_clicks"})
    built.add("gmv", [1000.0 + n for n in range(DAYS)], first=FIRST)
    built.add("refund_rate", [(n % 9, 120.0) for n in range(DAYS)], first=FIRST)
    built.add("stock_cover_days", [float(n) for n in range(60)] + ["missing"] * 5 + [4.0, None, 5.5], first=FIRST)
    for number in range(MEMBERS + 3):
        built.add("gmv", [100.0 + number] * DAYS, dimension="channel", member=f"channel {number:02}", first=FIRST)
    built.add("orders_paid", [120.0] * 50, first=FIRST, version="old")
    built.add("orders_paid", [121.0] * 50, first=date(2025, 10, 21), version="new")
    for metric in catalogue.metrics.values():
        if metric.sensitivity == "confidential":
            built.add(metric.id, [SECRET] * 20, first=FIRST)
    return built.publish(tmp_path_factory.mktemp("site") / "published")


@pytest.fixture(scope="session")
def content(catalogue: Catalogue, shop) -> Content:
    return site_content(catalogue, shop)


@pytest.fixture
def make_episode():
    """Rows of an instance that fires and of its episode, the higher the number the newer."""

    def make(rule: str, member: str, number: int) -> tuple[dict[str, object], dict[str, object]]:
        at = datetime(2025, 11, 1) + timedelta(days=number)
        key = f"{rule}/{member}"
        instance = {
            "key": key, "rule": rule, "dimension": "region", "member": member, "grain": "day", "state": "firing",
            "tier": "red", "episode": f"{key}/1", "reason": "breach", "rule_hash": "h", "metric_version": "v",
            "data_version": "d", "evaluated_at": at.replace(tzinfo=UTC), "value": 0.42,
        }  # fmt: skip
        episode = {
            "key": f"{key}/1", "instance": key, "rule": rule, "first_period": at, "last_period": at,
            "opened_at": at.replace(tzinfo=UTC), "worst_tier": "red", "worst_value": 0.42,
        }  # fmt: skip
        return instance, episode

    return make
