"""What the UI shows of the project, without running anything."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from metrics_pipeline.orchestration.keys import EVALUATIONS_KEY, OUTBOX_KEY, PROPOSALS_KEY, PUBLISHED_KEY
from metrics_pipeline.orchestration.operations import _definitions
from metrics_pipeline.orchestration.rule_checks import check_groups

if TYPE_CHECKING:
    from orchestration_shop import Shop

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("orchestration_shop")]


def test_every_metric_is_one_asset_with_what_the_library_knows(shop: Shop) -> None:
    graph = _definitions(shop.project).resolve_asset_graph()
    for metric in shop.project.catalogue.metrics.values():
        node = graph.get(dg.AssetKey([metric.layer, metric.id]))
        assert node.group_name == metric.layer
        assert node.owners == [f"team:{metric.owner}"]
        assert node.tags["layer"] == metric.layer
        assert node.tags["category"] == metric.category
        assert node.tags["stage"] == metric.stage
        assert metric.name_zh in (node.description or "")
        assert metric.formula in (node.description or "")
        assert node.freshness_policy is not None
        assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)


def test_hourly_metrics_have_hourly_partitions(shop: Shop) -> None:
    graph = _definitions(shop.project).resolve_asset_graph()
    hourly = {key for key in graph.get_all_asset_keys() if key.path[0] == "hourly"}
    assert hourly == {
        dg.AssetKey(["hourly", metric.id]) for metric in shop.project.catalogue.metrics.values() if metric.hour_slices
    }
    for key in hourly:
        assert isinstance(graph.get(key).partitions_def, dg.HourlyPartitionsDefinition)


def test_lineage_goes_from_raw_to_the_outbox(shop: Shop) -> None:
    graph = _definitions(shop.project).resolve_asset_graph()
    assert dg.AssetKey(["raw", "orders"]) in graph.get_ancestor_asset_keys(dg.AssetKey(["strategic", "gmv"]))
    assert dg.AssetKey(["strategic", "gmv"]) in graph.get(PUBLISHED_KEY).parent_keys
    assert PUBLISHED_KEY in graph.get(EVALUATIONS_KEY).parent_keys
    assert EVALUATIONS_KEY in graph.get(OUTBOX_KEY).parent_keys


def test_checks_are_named_like_their_rules_and_never_block(shop: Shop) -> None:
    rules = shop.project.ruleset.rules
    assert rules
    groups = check_groups(shop.project, rules)
    assert {key.name for key in groups} == {rule.id for rule in rules}
    graph = _definitions(shop.project).resolve_asset_graph()
    for key in groups:
        assert not graph.get_check_spec(key).blocking


def test_many_rules_share_checks_by_metric_and_tier(shop: Shop) -> None:
    rule = shop.project.ruleset.rules[0]
    many = [rule.model_copy(update={"alert": f"rule_{number}"}) for number in range(201)]
    assert {key.name for key in check_groups(shop.project, many)} <= {"rules_yellow", "rules_red"}


def test_contract_checks_block(shop: Shop) -> None:
    graph = _definitions(shop.project).resolve_asset_graph()
    spec = graph.get_check_spec(dg.AssetCheckKey(dg.AssetKey(["raw", "orders"]), "raw_contract"))
    assert spec.blocking


def test_nightly_leaves_out_the_hours_and_hourly_the_days(shop: Shop) -> None:
    definitions = _definitions(shop.project)
    nightly = definitions.resolve_job_def("nightly").asset_layer.selected_asset_keys
    hourly = definitions.resolve_job_def("hourly").asset_layer.selected_asset_keys
    assert not {key for key in nightly if key.path[0] == "hourly"}
    assert nightly & hourly == {EVALUATIONS_KEY, OUTBOX_KEY}


def test_the_light_location_imports_neither_dbt_nor_duckdb() -> None:
    code = (
        "import sys; from metrics_pipeline.orchestration.notify import build_notify_definitions\n"
        "from metrics_pipeline.settings import load_settings\n"
        "build_notify_definitions(load_settings({}))\n"
        "print([name for name in ('dbt', 'dagster_dbt', 'duckdb', 'pandas', 'great_expectations') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_schedules_ask_for_what_ended_last_on_the_shops_clock(shop: Shop) -> None:
    definitions = _definitions(shop.project)
    night = definitions.resolve_schedule_def("every_night")
    assert night.execution_timezone == "Asia/Shanghai"
    asked = night(dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 21, 18, 30, tzinfo=UTC)))
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == "2026-11-21"
    hour = definitions.resolve_schedule_def("every_hour")
    asked = hour(dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 22, 4, 10, tzinfo=UTC)))
    assert isinstance(asked, dg.RunRequest)
    assert asked.partition_key == "2026-11-22-11:00"


def test_proposals_are_made_once_a_week_and_not_by_the_night(shop: Shop) -> None:
    definitions = _definitions(shop.project)
    assert PROPOSALS_KEY not in definitions.resolve_job_def("nightly").asset_layer.selected_asset_keys
    job = definitions.resolve_job_def("rule_proposals")
    assert job.asset_layer.selected_asset_keys == {PROPOSALS_KEY}
    done = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())
    metadata = done.asset_materializations_for_node("followup__proposals")[0].metadata
    assert (metadata["proposed"].value, metadata["measured"].value) == (0, 0)
    asked = definitions.resolve_schedule_def("proposals_every_week")(
        dg.build_schedule_context(scheduled_execution_time=datetime(2026, 11, 22, 23, 30, tzinfo=UTC))
    )
    assert isinstance(asked, dg.RunRequest)
