"""Schedules: when the jobs run, in the shop's time zone.

Here: cron lines. Not here: what the jobs do (`jobs`).
"""

from datetime import timedelta
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.keys import HOURLY, NIGHTLY
from metrics_pipeline.orchestration.partitions import DAY_FORMAT, HOUR_FORMAT
from metrics_pipeline.settings import Settings

NIGHTLY_CRON = "30 2 * * *"
"""After midnight's late arrivals, before the people of the morning."""
HOURLY_CRON = "10 * * * *"


def build_schedules(settings: Settings) -> list[Any]:
    """The nightly schedule (running) and the hourly one (stopped until a source delivers by the hour)."""
    timezone = settings.installation.timezone

    @dg.schedule(
        cron_schedule=NIGHTLY_CRON,
        job_name=NIGHTLY,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Last night's day, at 02:30 shop time.",
    )
    def every_night(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        day = (context.scheduled_execution_time.astimezone(settings.zone) - timedelta(days=1)).strftime(DAY_FORMAT)
        return dg.RunRequest(run_key=day, partition_key=day)

    @dg.schedule(
        cron_schedule=HOURLY_CRON,
        job_name=HOURLY,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="The hour that ended, ten minutes later.",
    )
    def every_hour(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        moment = context.scheduled_execution_time.astimezone(settings.zone) - timedelta(hours=1)
        hour = moment.replace(minute=0).strftime(HOUR_FORMAT)
        return dg.RunRequest(run_key=hour, partition_key=hour)

    return [every_night, every_hour]
