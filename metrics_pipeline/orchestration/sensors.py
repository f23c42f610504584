"""Sensors of the light location: from a written alert to its delivery, and alarms about the pipeline itself.

Here: what starts the delivery job, and what a failed run writes into the outbox. Not here: any decision about alerts.
Light: no dbt, no DuckDB, so that the daemon's evaluation takes no time.
"""

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.keys import ALERTS_SENSOR, DELIVER, OUTBOX_KEY, delivery_run_key
from metrics_pipeline.orchestration.watchdog import build_watchdog
from metrics_pipeline.settings import Settings

EVENTS_PER_TICK = 50
DUE_SECONDS = 60
"""Rows that became due without an event (a retry, a delivery run that was killed) wait at most this long."""


def build_sensors(settings: Settings, deliver: dg.JobDefinition) -> list[Any]:
    """The sensors of an installation."""

    @dg.sensor(
        name=ALERTS_SENSOR,
        job=deliver,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the delivery when a run has written alerts, whatever became of the run, and for retries.",
    )
    def alerts_written(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = int(context.cursor) if context.cursor else None
        events = context.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=OUTBOX_KEY, after_storage_id=seen),
            limit=EVENTS_PER_TICK,
            ascending=True,
        )
        runs = dict.fromkeys(record.run_id for record in events.records if _has_messages(record))
        requests = [dg.RunRequest(run_key=delivery_run_key(run_id), tags={"metrics/after": run_id}) for run_id in runs]
        if not requests and _is_something_due(settings):
            requests = [dg.RunRequest(run_key=f"due:{int(datetime.now(UTC).timestamp()) // DUE_SECONDS}")]
        cursor = str(events.records[-1].storage_id) if events.records else context.cursor
        if not requests:
            return dg.SensorResult(
                skip_reason="No alerts were written and nothing in the outbox is due.", cursor=cursor
            )
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    @dg.run_failure_sensor(
        name="pipeline_failed",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5,
        description="Writes an alarm about the pipeline itself into the outbox.",
    )
    def pipeline_failed(context: dg.RunFailureSensorContext) -> None:
        run = context.dagster_run
        if run.job_name == DELIVER:
            return  # its messages stay in the outbox and are retried; an alarm would wait behind them
        from metrics_pipeline.orchestration.alarms import failed_job, raise_alarm

        reason = context.failure_event.message or "the run failed"
        alarm = failed_job(settings, job=run.job_name, run_id=run.run_id, reason=reason)
        raise_alarm(settings, alarm, now=datetime.now(UTC))

    @dg.run_status_sensor(
        name="pipeline_recovered",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=5,
        description="Tells those who got the alarm that the job works again.",
    )
    def pipeline_recovered(context: dg.RunStatusSensorContext) -> None:
        run = context.dagster_run
        if run.job_name != DELIVER:
            from metrics_pipeline.orchestration.alarms import clear_alarm, failed_job

            clear_alarm(settings, failed_job(settings, job=run.job_name), now=datetime.now(UTC))

    return [alerts_written, pipeline_failed, pipeline_recovered, build_watchdog(settings)]


def _has_messages(record: dg.EventLogRecord) -> bool:
    """Whether the run wrote messages; what it does not say is taken as yes."""
    found = record.asset_materialization
    messages = found.metadata.get("messages") if found is not None else None
    return messages is None or messages.value != 0


def _is_something_due(settings: Settings) -> bool:
    """Whether a row of the outbox has to be sent, or time has made something due, and the sender may send."""
    from metrics_pipeline.access.services import DELIVERY, may_work
    from metrics_pipeline.orchestration.delivery_job import is_time_due
    from metrics_pipeline.store import open_store
    from metrics_pipeline.store.outbox import waiting_count

    store = open_store(settings)
    now = datetime.now(UTC)
    try:
        with store.reading() as connection:
            if not may_work(connection, DELIVERY, now=now):
                return False
            is_waiting = waiting_count(connection, now=now) > 0
        return is_waiting or is_time_due(store, settings, now=now)
    finally:
        store.close()
