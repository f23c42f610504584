"""A night does not build models that no longer follow from the definitions."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from orchestration_shop import NIGHT, Shop, clock

from metrics_pipeline.orchestration.operations import run_nightly
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.warehouse.read import Published

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("orchestration_shop")]


def test_a_night_stops_when_a_fact_changed_and_nobody_compiled(shop: Shop, tmp_path: Path) -> None:
    copy = shop.copy(tmp_path / "home")
    shutil.copytree(PROJECT_ROOT / "dbt_project", tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    fact = tmp_path / "dbt" / "models" / "facts" / "fct_refunds.sql"
    fact.write_text(fact.read_text("utf-8").replace("\nwhere ", "\nwhere refunds.amount > 0 and "), "utf-8")
    settings = copy.settings.model_copy(update={"dbt_project_dir": tmp_path / "dbt"})
    before = Published.open(settings.published_dir).version
    report = run_nightly(settings, NIGHT, project=Project.open(settings, clock))
    assert not report.success
    assert any("refund_amount.sql" in one and "Run `metrics compile`" in one for one in report.run.failures)
    assert Published.open(settings.published_dir).version == before
