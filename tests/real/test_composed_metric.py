"""A metric composed on the command line, on the marketplace's data: an asset of the graph, a rule in YAML, a firing replay."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.orchestration.operations import _definitions
from metrics_pipeline.orchestration.publish_asset import metric_tables
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.extent import covered_until
from metrics_pipeline.warehouse.publish import publish
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.transform import run_dbt
from metrics_pipeline.warehouse.window import Window

if TYPE_CHECKING:
    from conftest import Home

pytestmark = [pytest.mark.slow, pytest.mark.real_data, pytest.mark.xdist_group("olist")]

RULE = """
groups:
  - name: delivery_promise
    rules:
      - alert: delivery_promise_broken
        why: Late parcels and complaints together are promises that were not kept.
        why_zh: 延迟与客诉叠加,说明承诺没有兑现。
        metric: delivery_promise
        owner: supply-chain
        labels: {scenario: fulfilment}
        expr: value
        yellow_if: "< 0.8"
        red_if: "< 0.7"
        for: 2
        min_sample: {metric: shipments_due, gte: 100}
        annotations:
          summary: Parcels are late and customers complain.
          summary_zh: 履约延迟且客诉增多。
"""
COMPOSE = (
    "compose",
    "delivery_promise",
    "--expr=1 - 0.5*late_delivery_rate - 0.5*complaint_rate",
    "--label=Delivery promise kept",
    "--name-zh=履约承诺得分",
    "--unit=score",
    "--direction=higher_is_better",
)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def build_one(metric: str, window: Window) -> Project:
    """The part of a night that a new metric needs: its own model, and a published version that has it."""
    settings = load_settings()
    project = Project.open(settings)
    assert run_dbt(settings, window, select=metric).built == 1
    with connect_build(settings.build_path) as con:
        tables = metric_tables(project, covered_until(con), window, None)
        publish(con, settings.published_dir, tables=tables, window=window, run_id="composed", now=datetime.now(UTC))
    return project


def test_a_composed_metric_is_in_the_graph_gets_a_rule_and_fires(
    olist: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(olist.settings.home, tmp_path / "home")
    shutil.copytree(PROJECT_ROOT / "dbt_project", tmp_path / "library", ignore=shutil.ignore_patterns("target", "logs"))
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "promise.yml").write_text(RULE, "utf-8")
    for variable, folder in (("HOME", "home"), ("DBT_PROJECT", "library"), ("RULES_DIR", "rules")):
        monkeypatch.setenv(f"METRICS_{variable}", str(tmp_path / folder))

    composed = run("library", *COMPOSE, "--save")
    previewed = {row["period_start"][:10]: row["value"] for row in composed["preview"] if row["dimension"] == "all"}
    assert len(previewed) > 40

    project = build_one("delivery_promise", Window(date(2018, 2, 1), date(2018, 9, 1)))
    graph = _definitions(project).resolve_asset_graph()
    node = graph.get(dg.AssetKey(["operational", "delivery_promise"]))
    assert {key.path[-1] for key in node.parent_keys} == {"late_delivery_rate", "complaint_rate"}
    assert "履约承诺得分" in (node.description or "")
    assert any(key.name == "delivery_promise_broken" for key in graph.asset_check_keys)

    shown = run("library", "show", "delivery_promise")
    assert (shown["role"], shown["rules"]) == ("KPI", ["delivery_promise_broken"])
    built = Published.open(load_settings().published_dir).series("delivery_promise", start=date(2018, 5, 1))
    values = {f"{row.period_start:%Y-%m-%d}": row.value for row in built.itertuples()}
    assert {day: values[day] for day in previewed} == pytest.approx(previewed, rel=1e-12)

    found = run("rules", "replay", "--from", "2018-02-01", "--to", "2018-08-22", "--alerts")
    (replayed,) = found["rules"]
    assert replayed["red"] >= 3
    fired = [date.fromisoformat(alert["fired"]) for alert in found["alerts"]]
    assert fired
    assert all(date(2018, 3, 10) <= day < date(2018, 4, 20) for day in fired), "the weeks in which carriers fell behind"
    assert min(fired) + timedelta(days=40) > max(fired)
