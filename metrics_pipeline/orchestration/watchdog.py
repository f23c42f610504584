"""The watchdog: alerting that is down alarms, too, and a heartbeat that stops tells somebody outside.

Here: one sensor of the light location. Not here: what counts as wrong (`alerts.watchdog`), the alarm's text and its
one end (`alarms`). A daemon that is dead cannot speak; that is what the heartbeat is for: any dead man's switch that
is called by GET (healthchecks.io, Better Stack, Uptime Kuma, a cron of your own) alarms when the calls stop.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg

from metrics_pipeline.settings import Settings

WATCHDOG = "alerting_watchdog"
RULE = "alerting_down"
LOOK_SECONDS = 60
HEARTBEAT_TIMEOUT = 10.0
"""Seconds."""


def build_watchdog(settings: Settings) -> dg.SensorDefinition:
    """The sensor that looks after alerting itself."""

    @dg.sensor(
        name=WATCHDOG,
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alarms when no rule is evaluated, data is stale or a channel delivers nothing; sends the heartbeat.",
    )
    def alerting_watchdog(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(watch(settings, now=datetime.now(UTC), log=context.log))

    return alerting_watchdog


def watch(settings: Settings, *, now: datetime, log: Any = None) -> str:
    """Look once: raise what is new, clear what is over, send the heartbeat when all is well; says what was found."""
    from metrics_pipeline.alerts import watchdog as dog
    from metrics_pipeline.orchestration.alarms import Alarm, clear_alarm, raise_alarm
    from metrics_pipeline.store import open_store
    from metrics_pipeline.store.outbox import open_groups
    from metrics_pipeline.warehouse.manifest import read_current

    def alarm(subject: str, summary_en: str, summary_zh: str) -> Alarm:
        return Alarm(
            rule=RULE,
            dimension="part",
            subject=subject,
            name_en=f"alerting: {subject}",
            name_zh=f"告警系统:{subject}",
            why="Silence must mean peace, not a broken alarm.",
            summary_en=summary_en,
            summary_zh=summary_zh,
            link=settings.ui_url,
        )

    version = read_current(settings.published_dir)
    ends = [state.complete_until for state in version.metrics.values() if state.complete_until] if version else []
    store = open_store(settings)
    try:
        with store.reading() as connection:
            findings = dog.look(connection, now=now, complete_until=max(ends, default=None), zone=settings.zone)
            told = open_groups(connection, prefix=f"{RULE}:")
    finally:
        store.close()
    for finding in findings:
        raise_alarm(settings, alarm(finding.subject, finding.summary_en, finding.summary_zh), now=now)
    for subject in sorted({group.removeprefix(f"{RULE}:") for group in told} - dog.subjects_of(findings)):
        clear_alarm(settings, alarm(subject, "Alerting works again.", "告警已恢复正常。"), now=now)
    if findings:
        return "; ".join(finding.summary_en for finding in findings)
    return _heartbeat(settings, log)


def _heartbeat(settings: Settings, log: Any) -> str:
    if settings.heartbeat_url is None:
        return "All is well."
    import httpx

    try:
        answer = httpx.get(settings.heartbeat_url.get_secret_value(), timeout=HEARTBEAT_TIMEOUT, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPError as error:  # its text may hold the address, which is a secret
        if log is not None:
            log.warning(f"the heartbeat was not taken: {type(error).__name__}")
        return "All is well, but the heartbeat was not taken."
    return "All is well, and the heartbeat was taken."
