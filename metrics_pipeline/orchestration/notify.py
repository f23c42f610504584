"""The light code location: sensors, the delivery job and the weekly retrospective.

It imports Dagster, the settings, the store and delivery; no dbt and no DuckDB, so that a message starts within seconds
(2–7 s after the event from here, 37 s from a location that imports everything).
"""

from __future__ import annotations

import dagster as dg

from metrics_pipeline.orchestration.delivery_job import build_delivery_job
from metrics_pipeline.orchestration.follow_up import build_retrospective_asset, build_retrospective_schedule
from metrics_pipeline.orchestration.sensors import build_sensors
from metrics_pipeline.settings import Settings, load_settings


def build_notify_definitions(settings: Settings) -> dg.Definitions:
    """The definitions of the light location for one installation."""
    deliver = build_delivery_job(settings)
    return dg.Definitions(
        assets=[build_retrospective_asset(settings)],
        jobs=[deliver],
        schedules=build_retrospective_schedule(settings),
        sensors=build_sensors(settings, deliver),
    )


@dg.definitions
def notify() -> dg.Definitions:
    """What `workspace.yaml` loads."""
    return build_notify_definitions(load_settings())
