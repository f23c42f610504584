"""The Dagster instance of an installation: `<home>/dagster/dagster.yaml`, and opening it.

Here: storage, retention, concurrency, monitoring. Not here: which code is loaded (`workspace.yaml`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from ruamel.yaml import YAML

from metrics_pipeline.settings import Settings
from metrics_pipeline.store.processes import is_gone, process_name

WRITER_POOL = "build_file"
"""The pool of every step that opens the build file: DuckDB has one writer (docs/architecture.md, Storage)."""
EVENT_BATCH_SIZE = "1000"
"""Materializations of a range of partitions written at once; 0 would be one transaction each."""
PROCESS_TAG = "metrics/process"
"""`host:pid:start` of a run that executes inside the process that started it, so that a dead one can be told."""

_RETENTION_DAYS = {"skipped": 7, "started": 30, "success": 90, "failure": 90}


def dagster_config(settings: Settings) -> dict[str, object]:
    """The content of `dagster.yaml` for this installation."""
    return {
        "event_log_storage": {
            "module": "metrics_pipeline.orchestration.event_log",
            "class": "PooledSqliteEventLogStorage",
            "config": {"base_dir": str(settings.dagster_home / "history")},
        },
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "concurrency": {
            "pools": {"default_limit": 1, "granularity": "op"},
            "runs": {"max_concurrent_runs": 4},
        },
        "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
        "run_monitoring": {
            "enabled": True,
            "start_timeout_seconds": 180,
            "max_runtime_seconds": 6 * 3600,
            "free_slots_after_run_end_seconds": 60,
        },
        "retention": {
            "schedule": {"purge_after_days": _RETENTION_DAYS},
            "sensor": {"purge_after_days": _RETENTION_DAYS},
        },
        "code_servers": {"local_startup_timeout": 180},
    }


def write_dagster_yaml(settings: Settings) -> Path:
    """Write (or renew) `<home>/dagster/dagster.yaml`; returns its path."""
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    path = settings.dagster_home / "dagster.yaml"
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("w", encoding="utf-8") as stream:
        YAML().dump(dagster_config(settings), stream)
    part.replace(path)
    return path


@contextmanager
def open_instance(settings: Settings) -> Iterator[DagsterInstance]:
    """The persistent instance of the installation; runs left behind by killed processes are ended first."""
    write_dagster_yaml(settings)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENT_BATCH_SIZE)
    with DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        end_dead_runs(instance)
        yield instance


def dagster_environment(settings: Settings) -> Mapping[str, str]:
    """Variables that a Dagster process (webserver, daemon, code server) of this installation needs."""
    return {
        "METRICS_HOME": str(settings.home),
        "DAGSTER_HOME": str(settings.dagster_home),
        "DAGSTER_EVENT_BATCH_SIZE": EVENT_BATCH_SIZE,
    }


def process_tag() -> dict[str, str]:
    """The tag by which `end_dead_runs` recognises runs of this process."""
    return {PROCESS_TAG: process_name()}


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark in-process runs whose process is gone as failed and free their pool slots; returns their ids.

    Without it the run after a kill would wait for ever for the writer's slot.
    """
    ended = []
    unfinished = RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
    for run in instance.get_runs(filters=unfinished):
        if not is_gone(run.tags.get(PROCESS_TAG, "")):
            continue
        instance.report_run_failed(run, "The process that executed this run is gone. Start it again: nothing is lost.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended
