"""The instance of an installation, its event log and partitions: without a built shop."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance

from metrics_pipeline.orchestration.instance import PROCESS_TAG, end_dead_runs, open_instance, process_tag
from metrics_pipeline.orchestration.operations import record_partitions
from metrics_pipeline.orchestration.partitions import daily_partitions, day_span, hour_span, window_of
from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.warehouse.window import Window

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, installation=Installation(timezone="Europe/Berlin", first_day=date(2025, 10, 1)))


@dg.op
def _nothing() -> None: ...


@dg.job
def _job() -> None:
    _nothing()


def test_the_instance_keeps_one_event_log_and_sends_no_telemetry(settings: Settings) -> None:
    with open_instance(settings) as instance:
        assert type(instance.event_log_storage).__name__ == "PooledSqliteEventLogStorage"
        assert not instance.telemetry_enabled
        assert instance.run_retries_enabled
        assert (settings.dagster_home / "history" / "event_log.db").exists()


def test_recorded_partitions_are_materialized_partitions(settings: Settings) -> None:
    key = dg.AssetKey(["base", "orders_paid"])
    days = [date(2025, 10, number) for number in range(1, 31)]
    with open_instance(settings) as instance:
        assert record_partitions(instance, "run", [key], days) == 30
        assert instance.get_materialized_partitions(key) == {day.isoformat() for day in days}
        latest = instance.get_latest_materialization_event(key)
        assert latest is not None
        assert latest.asset_materialization is not None
        assert latest.asset_materialization.partition == "2025-10-30"


def test_a_run_whose_process_is_gone_is_ended(settings: Settings) -> None:
    with open_instance(settings) as instance:
        gone = _started(instance, {PROCESS_TAG: f"{os.uname().nodename}:{2**22 - 1}"})
        alive = _started(instance, process_tag())
        elsewhere = _started(instance, {PROCESS_TAG: "another-host:1"})
        assert end_dead_runs(instance) == [gone]
        assert _status(instance, gone) == dg.DagsterRunStatus.FAILURE
        assert _status(instance, alive) == _status(instance, elsewhere) == dg.DagsterRunStatus.STARTED


def test_partitions_follow_the_shops_clock_through_daylight_saving(settings: Settings) -> None:
    with dg.partition_loading_context(datetime(2025, 10, 28, 12, tzinfo=UTC)):
        keys = daily_partitions(settings).get_partition_keys()
    assert keys[0] == "2025-10-01"
    assert keys[-1] == "2025-10-27"
    day = day_span(Window(date(2025, 10, 26), date(2025, 10, 27)), settings)
    assert (day.until - day.start).total_seconds() == 25 * 3600
    hour = hour_span(dg.PartitionKeyRange("2025-10-01-10:00", "2025-10-01-11:00"), settings)
    assert hour.start == datetime(2025, 10, 1, 8)
    assert (hour.until - hour.start).total_seconds() == 2 * 3600


def test_a_backfill_is_one_run_on_its_last_day() -> None:
    keys = dg.PartitionKeyRange("2025-10-20", "2025-10-20")
    assert window_of(keys, {}) == Window(date(2025, 10, 20), date(2025, 10, 21))
    assert window_of(keys, {"metrics/from": "2025-10-01"}) == Window(date(2025, 10, 1), date(2025, 10, 21))


def _started(instance: DagsterInstance, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(_job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run.run_id


def _status(instance: DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status
