"""What the steps of a night write where every user of Dagster reads: nothing that depends on a confidential value.

Two nights of one shop, from raw rows to delivered messages, differ in what goods cost and in nothing else. All events,
their metadata and all log lines of both, those of the delivery job included, must be the same.
"""

from __future__ import annotations

import re
import shutil
from itertools import zip_longest
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from orchestration_shop import NIGHT, Shop, clock

from metrics_pipeline.orchestration.instance import open_instance
from metrics_pipeline.orchestration.operations import run_nightly
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.warehouse.read import Published

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("orchestration_shop")]

RULE = """groups:
  - name: confidential
    rules:
      - alert: profit_there_is
        why: So that a confidential metric has a check, an alert and a message.
        why_zh: 让机密指标有检查、报警和消息。
        metric: gross_profit
        by: [region]
        expr: value
        yellow_if: "> 0"
        owner: finance
        labels: {scenario: test}
        annotations: {summary: There is profit, summary_zh: 有利润}
"""
COSTS = (1.01, 1.02)
"""Near each other, so that rules say the same: tiers are shown to everybody (docs/access.md)."""


def night(shop: Shop, folder: Path, cost: float) -> tuple[dict[str, list[str]], dict[str, float]]:
    """Source of a text (step, or log) → what it wrote, sorted; and the gross profit of the night by slice."""
    copy = shop.copy(folder / "home")
    shutil.copytree(copy.settings.rules_dir, folder / "rules")
    (folder / "rules" / "confidential.yml").write_text(RULE, "utf-8")
    settings = copy.settings.model_copy(update={"rules_dir": folder / "rules"})
    products = settings.source_dir / "products" / "all.parquet"
    made = products.with_name("new.part")
    duckdb.sql(
        f"COPY (SELECT * REPLACE (unit_cost * {cost} AS unit_cost) FROM '{products}') TO '{made}' (FORMAT parquet)"
    )
    made.replace(products)
    report = run_nightly(settings, NIGHT, project=Project.open(settings, clock))
    assert report.success, report.run.failures
    assert report.delivery is not None
    with open_instance(settings) as instance:
        told = {}
        for name, run in (("night", report.run.run_id), ("delivery", report.delivery.run_id)):
            for entry in instance.all_logs(run):
                event = entry.dagster_event
                where = f"{name} {entry.step_key or ''} {event.event_type_value if event else 'log'}"
                told.setdefault(where, []).append(plain(f"{entry.user_message} {metadata(event)}", folder))
    published = Published.open(settings.published_dir)
    frame = published.series("gross_profit", dimension="region", member=None, start=NIGHT)
    return {where: sorted(lines) for where, lines in told.items()}, dict(
        zip(frame["member"], frame["value"], strict=True)
    )


def metadata(event: dg.DagsterEvent | None) -> str:
    if event is None or event.event_type_value in ("HANDLED_OUTPUT", "LOADED_INPUT", "RESOURCE_INIT_SUCCESS"):
        return ""
    data = event.event_specific_data
    found = getattr(data, "materialization", None) or getattr(data, "asset_observation", None) or data
    pairs = getattr(found, "metadata", None) or {}
    return " ".join(
        (getattr(found, "description", None) or "", *(f"{name}: {one.value}" for name, one in pairs.items()))
    )


def plain(text: str, folder: Path) -> str:
    """Without what is another one in every run: folders, ids, hashes, times, seconds, sizes of files."""
    text = text.replace(str(folder), "…")
    text = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b\d{8}T\d{6}\w*\b|\b[0-9a-f]{8,}\b", "#", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*([+-]\d\d:\d\d|Z)?", "time", text)
    return re.sub(r"\b[\d.]+ ?(s|ms|seconds)\b|(seconds|bytes|duration|Execution Duration)\w*: [\d.e-]+", "size", text)


def test_no_step_and_no_log_line_depends_on_a_confidential_value(shop: Shop, tmp_path: Path) -> None:
    (one, profit), (other, profit_too) = (night(shop, tmp_path / f"cost_{n}", cost) for n, cost in enumerate(COSTS))
    assert sum(profit[region] != profit_too[region] for region in profit) > 2, (
        "regions of so small a shop may sell nothing"
    )
    steps = {where.split()[1] for where in one if where.startswith("night ")}
    assert {"raw_tables", "dbt_daily", "published__metric_values", "rules__evaluations", "alerts__outbox"} <= steps
    assert any("profit_there_is" in line for lines in one.values() for line in lines)
    assert any(where.startswith("delivery") for where in one)
    assert one.keys() == other.keys()
    differing = {
        where: [pair for pair in zip_longest(lines, other[where]) if pair[0] != pair[1]] for where, lines in one.items()
    }
    assert {where: pairs for where, pairs in differing.items() if pairs} == {}
