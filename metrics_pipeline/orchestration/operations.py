"""What people start by hand: a night, a backfill, a delivery, each as a run of the installation's own instance.

Here: which job, which tags, what the caller is told. Not here: what the jobs do. The command line is one call to each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance, EventLogEntry
from dagster._core.events import DagsterEvent, StepMaterializationData

from metrics_pipeline.orchestration.in_process import Progress, RunOutcome, partition_tags, run_in_process
from metrics_pipeline.orchestration.instance import open_instance
from metrics_pipeline.orchestration.keys import (
    ALERTS_SENSOR,
    BACKFILL,
    FROM_TAG,
    NIGHTLY,
    OUTBOX_KEY,
    PUBLISHED_KEY,
    delivery_run_key,
)
from metrics_pipeline.orchestration.notify import build_notify_definitions
from metrics_pipeline.orchestration.partitions import first_day
from metrics_pipeline.orchestration.pipeline import build_pipeline_definitions
from metrics_pipeline.orchestration.resources import Project, utc_now
from metrics_pipeline.settings import Settings

RUN_KEY_TAG = "dagster/run_key"
SENSOR_TAG = "dagster/sensor_name"
EVENTS_PER_BATCH = 2000


class DaysOutside(ValueError):
    """Days that no run can build: not over yet, before the installation begins, or the last one before the first."""


@dataclass(frozen=True)
class NightReport:
    """A run over days, and the delivery after it."""

    day: date
    run: RunOutcome
    delivery: RunOutcome | None
    """None when nothing was to be told: a backfill, or a run that failed before its alerts were written."""

    @property
    def success(self) -> bool:
        return self.run.success and (self.delivery is None or self.delivery.success)


def run_nightly(
    settings: Settings,
    day: date | None = None,
    instance: DagsterInstance | None = None,
    *,
    project: Project | None = None,
    now: Callable[[], datetime] = utc_now,
    progress: Progress | None = None,
) -> NightReport:
    """Run the night of `day` (default: the newest whole day of the source) and deliver its messages.

    `instance`: default the persistent one of the installation. A failed step is in the report, never raised.
    Raises `DaysOutside` when the day is not over on the shop's clock, or is before the installation's first one.
    """
    if day is not None:
        check_days(settings, day, day, now=(project.now if project else now)())
    project = project or Project.open(settings, now)
    chosen = day or project.newest_day()
    if instance is None:
        with open_instance(settings) as opened:
            return run_nightly(settings, chosen, opened, project=project, progress=progress)
    job = _definitions(project).resolve_job_def(NIGHTLY)
    outcome = run_in_process(job, instance, location="pipeline", tags=partition_tags(chosen), progress=progress)
    delivery = None
    if OUTBOX_KEY.to_user_string() in outcome.metadata:
        delivery = run_delivery(settings, instance, after=outcome.run_id, progress=progress)
    return NightReport(chosen, outcome, delivery)


def run_backfill(
    settings: Settings,
    first: date,
    last: date,
    instance: DagsterInstance | None = None,
    *,
    project: Project | None = None,
    now: Callable[[], datetime] = utc_now,
    progress: Progress | None = None,
) -> NightReport:
    """Load and rebuild the days `first` to `last` in one run, told to nobody.

    The run is on the partition of `last`; the partitions before it are recorded afterwards in one go, because the
    framework writes one event per asset and day (400 days: 15 s and more). Raises `DaysOutside`.
    """
    check_days(settings, first, last, now=(project.now if project else now)())
    project = project or Project.open(settings, now)
    if instance is None:
        with open_instance(settings) as opened:
            return run_backfill(settings, first, last, opened, project=project, progress=progress)
    job = _definitions(project).resolve_job_def(BACKFILL)
    tags = {**partition_tags(last), FROM_TAG: first.isoformat()}
    outcome = run_in_process(job, instance, location="pipeline", tags=tags, progress=progress)
    if outcome.success:
        record_partitions(instance, outcome.run_id, _partitioned(project), _days(first, last - timedelta(days=1)))
    return NightReport(last, outcome, None)


def check_days(settings: Settings, first: date, last: date, *, now: datetime) -> None:
    """Raise `DaysOutside` unless the shop-local days `first` … `last` are over and have partitions (`now`: aware)."""
    today = now.astimezone(settings.zone).date()
    begin = first_day(settings)
    if last < first:
        raise DaysOutside(f"the days end ({last}) before they begin ({first}); give --from a day not after --to")
    if last >= today:
        raise DaysOutside(
            f"{last} is not over on the shop's clock ({settings.installation.timezone}); "
            f"the newest whole day is {today - timedelta(days=1)}"
        )
    if first < begin:
        raise DaysOutside(
            f"{first} is before the first day of this installation ({begin}); "
            "when its source reaches further back, run `metrics load` again"
        )


def run_delivery(
    settings: Settings, instance: DagsterInstance, *, after: str, progress: Progress | None = None
) -> RunOutcome:
    """Deliver what the run `after` wrote, under the run key of the sensor, so that the daemon does not start it again."""
    job = build_notify_definitions(settings).resolve_job_def("deliver_messages")
    tags = {RUN_KEY_TAG: delivery_run_key(after), SENSOR_TAG: ALERTS_SENSOR, "metrics/after": after}
    return run_in_process(job, instance, location="notify", tags=tags, progress=progress)


def record_partitions(instance: DagsterInstance, run_id: str, keys: Iterable[dg.AssetKey], days: Sequence[date]) -> int:
    """Record that a run has built these days of these assets; returns the number of events."""
    stamp = datetime.now(UTC).timestamp()
    count = 0
    for key in keys:
        events = [_materialization(run_id, key, day.isoformat(), stamp) for day in days]
        for start in range(0, len(events), EVENTS_PER_BATCH):
            instance.event_log_storage.store_event_batch(events[start : start + EVENTS_PER_BATCH])
        count += len(events)
    return count


def _materialization(run_id: str, key: dg.AssetKey, partition: str, stamp: float) -> EventLogEntry:
    event = DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_MATERIALIZATION.value,
        job_name=BACKFILL,
        event_specific_data=StepMaterializationData(
            materialization=dg.AssetMaterialization(asset_key=key, partition=partition), asset_lineage=[]
        ),
    )
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level="debug",
        user_message="",
        run_id=run_id,
        timestamp=stamp,
        job_name=BACKFILL,
        dagster_event=event,
    )


def _definitions(project: Project) -> dg.Definitions:
    if "pipeline" not in project.definitions:
        project.definitions["pipeline"] = build_pipeline_definitions(project)
    return project.definitions["pipeline"]


def _partitioned(project: Project) -> list[dg.AssetKey]:
    """The daily assets whose days people look at: the metrics and what is published of them."""
    return [*(dg.AssetKey([metric.layer, metric.id]) for metric in project.catalogue.metrics.values()), PUBLISHED_KEY]


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
