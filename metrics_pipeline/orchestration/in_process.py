"""Running a job inside the calling process, on the installation's own instance, so that the UI shows the run.

Here: the run record (with the origin by which the UI links it to the workspace), execution, progress, outcome. Not
here: what the jobs are. A run takes 5 s less this way than through the daemon and a process of its own.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, JobDefinition
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from metrics_pipeline.orchestration.instance import process_tag
from metrics_pipeline.settings import PROJECT_ROOT

Progress = Callable[[str, str], None]
"""Called with the step and `started`, `done` or `failed`."""

LOCATIONS = {
    "pipeline": "metrics_pipeline.orchestration.pipeline",
    "notify": "metrics_pipeline.orchestration.notify",
}
"""Code location → module, as in `workspace.yaml`."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    run_id: str
    job: str
    success: bool
    seconds: float
    started_at: datetime
    step_seconds: Mapping[str, float] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    """One text per failed step: what went wrong, without a traceback."""
    metadata: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Asset key (`a/b`) → metadata of its last materialization."""
    failed_checks: tuple[tuple[str, str, str], ...] = ()
    """Asset key, check, severity of every failed check."""


def run_in_process(
    job: JobDefinition,
    instance: DagsterInstance,
    *,
    location: str,
    tags: Mapping[str, str] | None = None,
    run_config: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> RunOutcome:
    """Execute a job to its end. A failed step is in the outcome, never raised."""
    config = {**(run_config or {}), "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    started, started_at = time.perf_counter(), datetime.now(UTC)
    run = _create_run(job, instance, location, {**(tags or {}), **process_tag()}, config)
    steps: dict[str, float] = {}
    failures: list[str] = []
    metadata: dict[str, Mapping[str, object]] = {}
    checks: list[tuple[str, str, str]] = []
    with _quiet_output():
        for event in execute_run_iterator(InMemoryJob(job), run, instance):
            _note(event, steps, failures, metadata, checks)
            if progress is not None:
                _tell(event, progress)
    finished = instance.get_run_by_id(run.run_id)
    success = finished is not None and finished.is_success
    return RunOutcome(
        run_id=run.run_id,
        job=job.name,
        success=success,
        seconds=time.perf_counter() - started,
        started_at=started_at,
        step_seconds=steps,
        failures=tuple(failures),
        metadata=metadata,
        failed_checks=tuple(checks),
    )


def partition_tags(first: date, last: date | None = None) -> dict[str, str]:
    """Run tags for one day, or for a range of days in one run."""
    if last is None or last == first:
        return {PARTITION_NAME_TAG: first.isoformat()}
    return {ASSET_PARTITION_RANGE_START_TAG: first.isoformat(), ASSET_PARTITION_RANGE_END_TAG: last.isoformat()}


def _create_run(
    job: JobDefinition,
    instance: DagsterInstance,
    location: str,
    tags: Mapping[str, str],
    config: Mapping[str, object],
) -> DagsterRun:
    plan = create_execution_plan(
        InMemoryJob(job), run_config=config, instance_ref=instance.get_ref() if instance.is_persistent else None
    )
    return instance.create_run_for_job(
        job_def=job,
        execution_plan=plan,
        run_config=config,
        tags={**job.run_tags, **tags},
        remote_job_origin=RemoteJobOrigin(
            repository_origin=RemoteRepositoryOrigin(
                code_location_origin=ManagedGrpcPythonEnvCodeLocationOrigin(
                    loadable_target_origin=LoadableTargetOrigin(
                        executable_path=sys.executable,
                        module_name=LOCATIONS[location],
                        working_directory=str(PROJECT_ROOT),
                    ),
                    location_name=location,
                ),
                repository_name="__repository__",
            ),
            job_name=job.name,
        ),
    )


def _note(
    event: DagsterEvent,
    steps: dict[str, float],
    failures: list[str],
    metadata: dict[str, Mapping[str, object]],
    checks: list[tuple[str, str, str]],
) -> None:
    match event.event_type:
        case DagsterEventType.STEP_SUCCESS:
            steps[event.step_key or ""] = event.step_success_data.duration_ms / 1000
        case DagsterEventType.STEP_FAILURE if not _is_told_by_its_check(event, failures):
            failures.append(f"{event.step_key}: {failure_text(event)}")
        case DagsterEventType.PIPELINE_FAILURE if not failures:
            failures.append(event.message or "the run failed")
        case DagsterEventType.ASSET_MATERIALIZATION:
            materialization = event.step_materialization_data.materialization
            metadata[materialization.asset_key.to_user_string()] = {
                name: value.value for name, value in materialization.metadata.items()
            }
        case DagsterEventType.ASSET_CHECK_EVALUATION:
            evaluation = event.asset_check_evaluation_data
            if not evaluation.passed:
                checks.append((evaluation.asset_key.to_user_string(), evaluation.check_name, evaluation.severity.value))
                if evaluation.blocking and evaluation.severity == AssetCheckSeverity.ERROR and evaluation.description:
                    failures.append(evaluation.description)


def _is_told_by_its_check(event: DagsterEvent, failures: Sequence[str]) -> bool:
    """Whether a step failed because of a blocking check that has said what is wrong, in better words."""
    error = event.step_failure_data.error
    return bool(failures) and error is not None and error.cls_name == DagsterAssetCheckFailedError.__name__


def failure_text(event: DagsterEvent) -> str:
    """What went wrong in a failed step, in one sentence: the cause's own words, without a traceback."""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return event.message or "failed"
    return error.message.strip()


def _tell(event: DagsterEvent, progress: Progress) -> None:
    words = {
        DagsterEventType.STEP_START: "started",
        DagsterEventType.STEP_SUCCESS: "done",
        DagsterEventType.STEP_FAILURE: "failed",
    }
    if event.step_key and (word := words.get(event.event_type)):
        progress(event.step_key, word)


@contextmanager
def _quiet_output() -> Iterator[None]:
    """Keep the log lines of the run, and of its child processes, off the terminal: they are on the run's page.

    File descriptors, not `sys.stdout`, because Dagster copies a step's output on that level.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    saved = [os.dup(1), os.dup(2)]
    silent = os.open(os.devnull, os.O_WRONLY)
    logger = logging.getLogger("dagster")
    former = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, silent):
            os.close(descriptor)
        logger.setLevel(former)
