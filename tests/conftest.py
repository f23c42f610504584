"""Fixtures that many packages share."""

from __future__ import annotations

import os
import shutil
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from metrics_pipeline.settings import PROJECT_ROOT, Installation, Settings, write_installation


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep `xdist_group` working: since pytest 9.2 xdist 3.8 cannot put a test's group into its id any more, and every
    worker would build every session fixture (https://github.com/pytest-dev/pytest-xdist/issues/1386).
    """
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        groups = sorted({str(mark.args[0]) for mark in item.iter_markers("xdist_group")})
        if groups and not item.nodeid.endswith(f"@{'_'.join(groups)}") and hasattr(item, "_id"):
            item._id = type(item._id).parse(f"{item.nodeid}@{'_'.join(groups)}")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("METRICS_REAL_DATA") or PROJECT_ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set METRICS_REAL_DATA)")
    return folder


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A simulated shop of four months, loaded and built: tests read it and never change it.

    Tests that use it carry `xdist_group("small_shop")`, so that one worker builds it once.
    """
    return build_small_shop(tmp_path_factory.mktemp("small_shop"))


SMALL_SHOP_UNTIL = date(2025, 12, 14)
SMALL_SHOP_DAYS = 120


def build_small_shop(home: Path) -> Settings:
    """Simulate, load and build by the same calls that the product makes, with composed metrics beside our own."""
    sys.path.insert(0, str(Path(__file__).parent / "dbt"))
    from composed import compose_all

    from metrics_pipeline.sources.contract import load_contract
    from metrics_pipeline.sources.registry import open_source
    from metrics_pipeline.sources.simulator import simulate
    from metrics_pipeline.sources.source import Span
    from metrics_pipeline.warehouse.load import load
    from metrics_pipeline.warehouse.transform import run_dbt
    from metrics_pipeline.warehouse.window import Window

    installation = Installation(seed=7, scale=0.04)
    write_installation(home, installation)
    project = home / "dbt"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    compose_all(project)
    # The oracle knows no limit for slices by SKU.
    settings = Settings(home=home, installation=installation, sku_days=SMALL_SHOP_DAYS + 1, dbt_project_dir=project)
    simulate(settings.source_dir, seed=7, scale=0.04, days=SMALL_SHOP_DAYS, until=SMALL_SHOP_UNTIL)
    first = SMALL_SHOP_UNTIL - timedelta(days=SMALL_SHOP_DAYS - 1)
    now = datetime.combine(SMALL_SHOP_UNTIL, datetime.min.time()) + timedelta(hours=18)
    load(
        settings.build_path,
        open_source(settings),
        [table.name for table in load_contract().tables],
        Span(datetime.combine(first, datetime.min.time()) - timedelta(days=1), now),
        now=now,
        timezone=installation.timezone,
    )
    run_dbt(settings, Window(first, SMALL_SHOP_UNTIL + timedelta(days=1)))
    return settings
