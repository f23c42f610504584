"""The heavy code location: raw tables, the dbt project, publishing, rules and alerts of one installation.

Here: the parts put together. Not here: any of them.
"""

from __future__ import annotations

import dagster as dg
from dagster._utils.warnings import disable_dagster_warnings

from metrics_pipeline.orchestration.alert_assets import build_outbox_asset
from metrics_pipeline.orchestration.dbt_assets import build_dbt_assets
from metrics_pipeline.orchestration.follow_up import build_proposals_asset, build_proposals_schedule
from metrics_pipeline.orchestration.forecast_assets import build_forecast_assets
from metrics_pipeline.orchestration.jobs import build_jobs
from metrics_pipeline.orchestration.publish_asset import build_publish_assets
from metrics_pipeline.orchestration.raw_assets import build_raw_assets
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.rule_checks import build_evaluations_asset, build_rule_checks
from metrics_pipeline.orchestration.schedules import build_schedules
from metrics_pipeline.settings import load_settings


def build_pipeline_definitions(project: Project) -> dg.Definitions:
    """The definitions of the heavy location for one installation."""
    with disable_dagster_warnings():  # "beta" on parameters that the pinned version has
        return _definitions(project)


def _definitions(project: Project) -> dg.Definitions:
    assets = [
        *build_raw_assets(project),
        *build_dbt_assets(project),
        *build_publish_assets(project),
        *build_forecast_assets(project),
        build_evaluations_asset(project),
        build_outbox_asset(project),
        build_proposals_asset(project),
    ]
    hourly = [
        key
        for asset in assets
        for key in asset.keys
        if isinstance(asset.specs_by_key[key].partitions_def, dg.HourlyPartitionsDefinition)
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=build_rule_checks(project),
        jobs=build_jobs(hourly),
        schedules=[*build_schedules(project.settings), *build_proposals_schedule(project.settings)],
        executor=dg.in_process_executor,
    )


@dg.definitions
def pipeline() -> dg.Definitions:
    """What `workspace.yaml` loads."""
    return build_pipeline_definitions(Project.open(load_settings()))
