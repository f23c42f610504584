"""Alarms about the pipeline itself: by the routes, to the end, and out of the house when the routes are broken."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from metrics_pipeline.alerts.apply import retire_rules
from metrics_pipeline.alerts.dispatch import dispatch_due
from metrics_pipeline.alerts.listing import current_alerts, notifications
from metrics_pipeline.alerts.silencing import acknowledge
from metrics_pipeline.delivery.channels import channels_from
from metrics_pipeline.delivery.messages import Wording
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.orchestration.alarms import Alarm, alarm_routing, clear_alarm, failed_job, raise_alarm
from metrics_pipeline.settings import Installation, Settings
from metrics_pipeline.store import Store, open_store
from metrics_pipeline.store.tables import outbox, work_orders

NOW = datetime(2026, 1, 5, 3, tzinfo=UTC)
ROUTES = """
route:
  receiver: everybody
  group_by: [alertname]
  group_wait: 0s
  repeat_interval: 4h
  routes:
    - matchers: ['scenario="pipeline"', 'job="nightly"']
      receiver: engineers
    - matchers: ['alertname="alerting_down"']
      receiver: ops
receivers:
  - {name: everybody, channels: [file]}
  - {name: engineers, channels: [engineers_room]}
  - {name: ops, channels: [ops_room]}
  - {name: manager, channels: [manager_room]}
escalation:
  - {after: 30m, receiver: manager}
fallback: engineers
"""
CHANNELS = "channels:\n" + "".join(
    f"  {name}_room: {{kind: feishu, url_env: {name.upper()}_URL}}\n" for name in ("engineers", "ops", "manager")
)
Route = Callable[[str], Settings]


@pytest.fixture
def route(tmp_path: Path) -> Route:
    """An installation with these routes, and three rooms."""

    def build(routes: str) -> Settings:
        home, rules = tmp_path / "home", tmp_path / "rules"
        home.mkdir()
        rules.mkdir()
        (home / "channels.yml").write_text(CHANNELS, "utf-8")
        (rules / "_routes.yml").write_text(routes, "utf-8")
        installation = Installation(timezone="Asia/Shanghai", first_day=date(2025, 10, 1))
        return Settings(home=home, rules_dir=rules, installation=installation)

    return build


def failure(settings: Settings, job: str = "nightly", *, now: datetime = NOW) -> tuple[str, ...]:
    return raise_alarm(settings, failed_job(settings, job=job, run_id="r1", reason="no space left on device"), now=now)


def told(settings: Settings) -> list[tuple[str, str]]:
    """Receiver and reason of every message, oldest first."""
    with_store = open_store(settings)
    try:
        return [(one.receiver, one.reason) for one in reversed(notifications(with_store))]
    finally:
        with_store.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An installation with the routes of the project."""
    return Settings(home=tmp_path, installation=Installation(timezone="Asia/Shanghai", first_day=date(2025, 10, 1)))


@pytest.fixture
def store(settings: Settings) -> Store:
    return open_store(settings)


def test_a_failing_job_is_told_once_and_its_recovery_once(settings: Settings, store: Store) -> None:
    def recovery(now: datetime) -> tuple[str, ...]:
        return clear_alarm(settings, failed_job(settings, job="nightly"), now=now)

    later = NOW + timedelta(minutes=10)
    assert recovery(NOW) == ()
    assert len(failure(settings)) == 1
    assert failure(settings, now=later) == ()
    assert len(recovery(later)) == 1
    assert recovery(later) == ()
    assert len(failure(settings, now=later + timedelta(minutes=10))) == 1
    assert [one.reason for one in reversed(notifications(store))] == ["first", "all_resolved", "first"]


def test_a_job_whose_name_begins_like_another_has_an_alarm_of_its_own(settings: Settings) -> None:
    assert failure(settings, "nightly_too") != ()
    assert failure(settings, "nightly") != ()
    assert clear_alarm(settings, failed_job(settings, job="night"), now=NOW) == ()


def test_an_alarm_says_what_failed_in_both_languages(settings: Settings, store: Store) -> None:
    failure(settings)
    report = deliver_due(store, channels_from(settings), now=NOW, wording=Wording("zh"))
    assert [one.title for one in report.attempts] == ["[红色报警] 任务 nightly 运行失败"]
    clear_alarm(settings, failed_job(settings, job="nightly"), now=NOW + timedelta(minutes=10))
    report = deliver_due(store, channels_from(settings), now=NOW + timedelta(minutes=10), wording=Wording("en"))
    assert [one.title for one in report.attempts] == ["[RESOLVED] job nightly failed"]
    first, end = (path.read_text("utf-8") for path in sorted(settings.messages_dir.glob("*.html")))
    assert "no space left on device" in first
    assert "/runs/r1" in first
    assert "It works again." in end
    assert "–" not in "".join(line for line in first.splitlines() if "<h1" in line)


def test_an_alarm_goes_where_the_routes_lead(route: Route) -> None:
    settings = route(ROUTES)
    failure(settings)
    failure(settings, "hourly")
    assert told(settings) == [("engineers_room", "first"), ("file", "first")]


def test_nobody_acknowledged_an_alarm_so_the_next_one_is_told(route: Route) -> None:
    settings = route(ROUTES)
    failure(settings)
    store = open_store(settings)
    routing = alarm_routing(settings)
    dispatch_due(store, routing, now=NOW + timedelta(minutes=31))
    assert told(settings) == [("engineers_room", "first"), ("manager_room", "unacknowledged")]
    done = NOW + timedelta(minutes=40)
    assert acknowledge(store, "pipeline_failed:nightly", who="li", now=done, until=done + timedelta(hours=8))
    assert dispatch_due(store, routing, now=NOW + timedelta(hours=5)) == ()
    clear_alarm(settings, failed_job(settings, job="nightly"), now=NOW + timedelta(hours=6))
    assert sorted(told(settings)[2:]) == [("engineers_room", "all_resolved"), ("manager_room", "all_resolved")]


@pytest.mark.parametrize("broken", ["route: [", "route: {}\n", "route: {receiver: nobody}\nreceivers: []\n"])
def test_with_broken_routes_every_channel_gets_the_alarm(route: Route, broken: str) -> None:
    settings = route(broken)
    failure(settings)
    assert {receiver for receiver, _ in told(settings)} == {"file", "engineers_room", "ops_room", "manager_room"}


def test_a_receiver_who_reaches_nobody_is_replaced_by_the_fallback(route: Route) -> None:
    settings = route(ROUTES.replace("channels: [ops_room]", "channels: [gone_room]"))
    raise_alarm(settings, Alarm("alerting_down", "data"), now=NOW)
    assert told(settings) == [("engineers_room", "first")]


def test_routes_that_raise_do_not_keep_an_alarm_back(route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = route(ROUTES)
    monkeypatch.setattr("metrics_pipeline.orchestration.alarms.routing_of", lambda _: 1 / 0)
    failure(settings)
    assert len(told(settings)) == 4


def test_a_stuck_channel_is_not_told_through_itself(route: Route) -> None:
    settings = route(ROUTES)
    raise_alarm(settings, Alarm("alerting_down", "channel:ops_room", around="ops_room"), now=NOW)
    assert told(settings) == [("engineers_room", "first")]


def test_an_alarm_outlives_the_rules_and_opens_no_work_order(settings: Settings, store: Store) -> None:
    failure(settings)
    retire_rules(store, {"gmv_anomaly"}, now=NOW, receivers=alarm_routing(settings))
    assert [one.instance for one in current_alerts(store)] == ["pipeline_failed:nightly{job=nightly}"]
    with store.reading() as connection:
        assert connection.execute(select(work_orders)).all() == []
        assert connection.execute(select(outbox.c.reason)).scalars().all() == ["first"]
