"""The hot products of a week stand once, whatever part of a week is built anew."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.settings import Settings
from metrics_pipeline.warehouse.transform import run_dbt
from metrics_pipeline.warehouse.window import Window

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("small_shop")]


def test_building_the_end_of_a_week_anew_leaves_the_week_before_alone(small_shop: Settings, tmp_path: Path) -> None:
    settings = small_shop.model_copy(update={"home": tmp_path / "home"})
    settings.warehouse_dir.mkdir(parents=True)
    shutil.copy(small_shop.build_path, settings.build_path)
    shutil.copytree(small_shop.dbt_target_dir, settings.dbt_target_dir)

    def hot() -> list[tuple[object, ...]]:
        with duckdb.connect(str(settings.build_path), read_only=True) as con:
            return con.execute("SELECT * FROM facts.dim_hot_products ORDER BY ALL").fetchall()

    before = hot()
    friday, monday = date(2025, 12, 5), date(2025, 12, 8)
    run_dbt(settings, Window(friday, monday), select="dim_hot_products")
    assert hot() == before
