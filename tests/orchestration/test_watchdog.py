"""The watchdog on a real store and a real HTTP endpoint."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo
from pydantic import SecretStr

from metrics_pipeline.alerts.dispatch import dispatch_due
from metrics_pipeline.delivery.channels import channels_from
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.orchestration.alarms import alarm_routing
from metrics_pipeline.orchestration.instance import open_instance
from metrics_pipeline.orchestration.notify import build_notify_definitions
from metrics_pipeline.orchestration.watchdog import WATCHDOG, watch
from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.store import open_store
from metrics_pipeline.store.tables import outbox, processed_evaluations

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, installation=Installation(timezone="Asia/Shanghai", first_day=date(2025, 10, 1)))


def evaluated(settings: Settings, at: datetime) -> None:
    store = open_store(settings)
    with store.writing("alerts") as connection:
        connection.execute(
            sa.insert(processed_evaluations).values(
                rule="gmv_drop",
                period=at.replace(tzinfo=None),
                rule_hash="h",
                metric_version="v",
                data_version=at.isoformat(),
                run_id="r",
                verdicts=1,
                processed_at=at,
            )
        )
    store.close()


def told(settings: Settings) -> list[tuple[str, str]]:
    store = open_store(settings)
    try:
        with store.reading() as connection:
            query = sa.select(outbox.c.rule, outbox.c.reason).order_by(outbox.c.id)
            return [(row[0], row[1]) for row in connection.execute(query)]
    finally:
        store.close()


def test_an_installation_that_is_not_in_use_is_left_in_peace(settings: Settings) -> None:
    assert watch(settings, now=NOW) == "All is well."
    assert told(settings) == []


def test_silence_of_the_evaluation_is_told_once_and_its_end_once(settings: Settings) -> None:
    evaluated(settings, NOW - timedelta(hours=25))
    assert watch(settings, now=NOW) == "All is well."
    late = NOW + timedelta(hours=2)
    assert "No rule has been evaluated since 2026-01-04 10:00" in watch(settings, now=late)
    watch(settings, now=late + timedelta(minutes=1))
    assert told(settings) == [("alerting_down:evaluation", "first")]
    evaluated(settings, late + timedelta(minutes=5))
    for minute in (6, 7):
        assert watch(settings, now=late + timedelta(minutes=minute)) == "All is well."
    assert sorted(told(settings)) == [
        ("alerting_down:evaluation", "all_resolved"),
        ("alerting_down:evaluation", "first"),
    ]


def test_a_channel_that_delivers_nothing_is_told_through_the_others(settings: Settings) -> None:
    evaluated(settings, NOW)
    store = open_store(settings)
    with store.writing("alerts") as connection:
        connection.execute(
            sa.insert(outbox).values(
                key="k",
                receiver="ops_dingtalk:13800001111",
                group_key="g",
                sequence=1,
                reason="first",
                tier="red",
                payload={},
                state="queued",
                attempts=4,
                created_at=NOW - timedelta(minutes=31),
                next_attempt_at=NOW + timedelta(minutes=5),
            )
        )
    store.close()
    assert "Channel ops_dingtalk delivers nothing: 1 messages" in watch(settings, now=NOW)
    assert ("alerting_down:channel:ops_dingtalk", "first") in told(settings)
    store = open_store(settings)
    assert deliver_due(store, channels_from(settings), now=NOW).sent == 1
    store.close()
    [page] = settings.messages_dir.glob("*.html")
    assert "ops_dingtalk" in page.read_text("utf-8")
    assert "13800001111" not in page.read_text("utf-8")


class _Switch(HTTPServer):
    calls: int = 0
    status: int = 200


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Switch)
        self.server.calls += 1
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def switch() -> Iterator[_Switch]:
    """A dead man's switch."""
    server = _Switch(("127.0.0.1", 0), _Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_heartbeat_beats_only_while_alerting_works(settings: Settings, switch: _Switch) -> None:
    url = SecretStr(f"http://127.0.0.1:{switch.server_port}/ping/secret")
    settings = settings.model_copy(update={"heartbeat_url": url})
    evaluated(settings, NOW)
    assert watch(settings, now=NOW) == "All is well, and the heartbeat was taken."
    assert switch.calls == 1
    switch.status = 500
    words = watch(settings, now=NOW)
    assert words == "All is well, but the heartbeat was not taken."
    watch(settings, now=NOW + timedelta(days=2))
    assert switch.calls == 2


def test_the_address_of_the_heartbeat_reaches_no_log(
    settings: Settings, switch: _Switch, caplog: pytest.LogCaptureFixture
) -> None:
    url = SecretStr(f"http://127.0.0.1:{switch.server_port}/ping/0f3c-secret-token?key=another-secret")
    settings = settings.model_copy(update={"heartbeat_url": url})
    log = logging.getLogger("sensor")
    with caplog.at_level(logging.DEBUG):
        watch(settings, now=NOW, log=log)
        switch.status = 500
        watch(settings, now=NOW, log=log)
    assert [record for record in caplog.records if record.name == "httpx"]
    assert "the heartbeat was not taken: 127.0.0.1" in caplog.text
    assert "0f3c" not in caplog.text
    assert "another-secret" not in caplog.text


def test_the_light_location_has_the_sensor(settings: Settings) -> None:
    definitions = build_notify_definitions(settings)
    sensor = definitions.resolve_sensor_def(WATCHDOG)
    with open_instance(settings) as instance, dg.build_sensor_context(instance) as context:
        result = sensor.evaluate_tick(context)
    assert result.skip_message == "All is well."


def tick(instance: dg.DagsterInstance, name: str, status: TickStatus, at: datetime, kind=InstigatorType.SENSOR) -> None:
    """What the daemon leaves behind after a tick."""
    location = RegisteredCodeLocationOrigin("notify")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    if not any(one.instigator_name == name for one in instance.all_instigator_state()):
        data = SensorInstigatorData() if kind == InstigatorType.SENSOR else ScheduleInstigatorData("30 2 * * *")
        instance.add_instigator_state(InstigatorState(origin, kind, InstigatorStatus.RUNNING, data))
    error = None
    if status == TickStatus.FAILURE:
        error = SerializableErrorInfo("ConnectionError: the store is gone\n", ["  File x\n"], "ConnectionError")
    instance.create_tick(
        TickData(
            origin.get_id(),
            name,
            kind,
            status,
            at.timestamp(),
            run_ids=[],
            error=error,
            selector_id=origin.get_selector().get_id(),
        )
    )


def test_a_sensor_that_keeps_failing_is_told_and_so_is_its_end(settings: Settings) -> None:
    with open_instance(settings) as instance:
        for minute in range(2):
            tick(instance, "alerts_written", TickStatus.FAILURE, NOW + timedelta(minutes=minute))
        assert watch(settings, now=NOW, instance=instance) == "All is well."
        tick(instance, "alerts_written", TickStatus.FAILURE, NOW + timedelta(minutes=2))
        tick(instance, "every_night", TickStatus.FAILURE, NOW, InstigatorType.SCHEDULE)
        said = watch(settings, now=NOW + timedelta(minutes=2), instance=instance)
        assert "The last 3 ticks of alerts_written failed, since 2026-01-05 11:00" in said
        assert "ConnectionError: the store is gone" in said
        tick(instance, "alerts_written", TickStatus.SKIPPED, NOW + timedelta(minutes=20))
        tick(instance, "every_night", TickStatus.SUCCESS, NOW + timedelta(minutes=20), InstigatorType.SCHEDULE)
        assert watch(settings, now=NOW + timedelta(minutes=20), instance=instance) == "All is well."
    store = open_store(settings)
    routing = alarm_routing(settings)
    dispatch_due(store, routing, now=NOW + timedelta(minutes=40))
    store.close()
    rules = [rule for rule, reason in told(settings) if reason != "all_resolved"]
    assert sorted(set(rules)) == ["alerting_down:sensor:alerts_written", "alerting_down:sensor:every_night"]
    assert told(settings)[-1][1] == "all_resolved"
