"""The watchdog: alerting that is down alarms, too, and a heartbeat that stops tells somebody outside.

Here: one sensor of the light location. Not here: what counts as wrong (`alerts.watchdog`), the alarm's text and its
one end (`alarms`). A daemon that is dead cannot speak; that is what the heartbeat is for: any dead man's switch that
is called by GET (healthchecks.io, Better Stack, Uptime Kuma, a cron of your own) alarms when the calls stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from metrics_pipeline.settings import Settings

if TYPE_CHECKING:
    from metrics_pipeline.alerts.watchdog import Finding
    from metrics_pipeline.orchestration.alarms import Alarm

WATCHDOG = "alerting_watchdog"
RULE = "alerting_down"
LOOK_SECONDS = 60
HEARTBEAT_TIMEOUT = 10.0
"""Seconds."""
FAILED_TICKS = 3
"""One failed tick of a sensor is a hiccup, and its next one tries again within seconds."""
ERROR_CHARACTERS = 300


def build_watchdog(settings: Settings) -> dg.SensorDefinition:
    """The sensor that looks after alerting itself."""

    @dg.sensor(
        name=WATCHDOG,
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alarms when no rule is evaluated, data is stale, a channel delivers nothing or a sensor keeps failing; "
        "sends the heartbeat.",
    )
    def alerting_watchdog(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(watch(settings, now=datetime.now(UTC), log=context.log, instance=context.instance))

    return alerting_watchdog


def watch(settings: Settings, *, now: datetime, log: Any = None, instance: dg.DagsterInstance | None = None) -> str:
    """Look once: raise what is new, clear what is over, send the heartbeat when all is well; says what was found.

    `instance`: where sensors and schedules leave their ticks; without it these are not looked at.
    """
    from metrics_pipeline.alerts import watchdog as dog
    from metrics_pipeline.alerts.announcing import announced
    from metrics_pipeline.store import open_store
    from metrics_pipeline.warehouse.manifest import read_current

    version = read_current(settings.published_dir)
    ends = [state.complete_until for state in version.metrics.values() if state.complete_until] if version else []
    store = open_store(settings)
    try:
        with store.reading() as connection:
            findings = dog.look(connection, now=now, complete_until=max(ends, default=None), zone=settings.zone)
            told = {one.member for one in announced(connection, f"{RULE}:")}
    finally:
        store.close()
    if instance is not None:
        findings += failing_instigators(instance, settings)
    if findings or told:
        from metrics_pipeline.orchestration.alarms import clear_alarm, raise_alarm

        for finding in findings:
            raise_alarm(settings, _alarm(settings, finding.subject, finding.summary_en, finding.summary_zh), now=now)
        for subject in sorted(told - dog.subjects_of(findings)):
            clear_alarm(settings, _alarm(settings, subject), now=now)
    if findings:
        return "; ".join(finding.summary_en for finding in findings)
    return _heartbeat(settings, log)


def failing_instigators(instance: dg.DagsterInstance, settings: Settings) -> list[Finding]:
    """Sensors whose last `FAILED_TICKS` ticks failed, and schedules whose last one did; nobody else tells of those.

    The watchdog itself is not among them: when it fails, the heartbeat stops.
    """
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import TickStatus

    from metrics_pipeline.alerts.watchdog import failing

    findings = []
    for state in instance.all_instigator_state():
        if state.instigator_name == WATCHDOG or not state.is_running:
            continue
        count = 1 if state.instigator_type == InstigatorType.SCHEDULE else FAILED_TICKS
        finished = [TickStatus.FAILURE, TickStatus.SUCCESS, TickStatus.SKIPPED]
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=count, statuses=finished)
        if len(ticks) < count or any(tick.status != TickStatus.FAILURE for tick in ticks):
            continue
        since = datetime.fromtimestamp(ticks[-1].timestamp, UTC)
        error = _last_line(ticks[0].error.to_string() if ticks[0].error is not None else "")
        findings.append(failing(state.instigator_name, ticks=count, since=since, error=error, zone=settings.zone))
    return findings


def _last_line(text: str) -> str:
    """What an error says, without its way: the first line that is no frame of a stack; secrets are left out."""
    from metrics_pipeline.delivery.channels.redaction import redacted

    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if not line.startswith(("File ", "Stack Trace", "The above"))), "")
    return redacted(said)[:ERROR_CHARACTERS]


NAMES: Final[Mapping[str, tuple[str, str]]] = {
    "evaluation": ("no rule is evaluated", "没有规则被评估"),
    "data": ("the data is stale", "数据陈旧"),
    "channel": ("channel {} delivers nothing", "渠道 {} 无法送达"),
    "sensor": ("{} keeps failing", "{} 连续失败"),
}
"""Kind of a subject → what is wrong, English and Chinese."""


def _alarm(settings: Settings, subject: str, summary_en: str = "", summary_zh: str = "") -> Alarm:
    from metrics_pipeline.orchestration.alarms import Alarm

    kind, _, name = subject.partition(":")
    name_en, name_zh = NAMES[kind]
    return Alarm(
        rule=RULE,
        subject=subject,
        name_en=f"alerting: {name_en.format(name)}",
        name_zh=f"告警系统：{name_zh.format(name)}",
        why="Silence must mean peace, not a broken alarm.",
        why_zh="没有报警应当意味着一切正常，而不是报警系统失灵。",
        summary_en=summary_en,
        summary_zh=summary_zh,
        link=settings.ui_url,
        around=name if kind == "channel" else "",
    )


def _heartbeat(settings: Settings, log: Any) -> str:
    if settings.heartbeat_url is None:
        return "All is well."
    from metrics_pipeline.delivery.channels import Failure
    from metrics_pipeline.delivery.channels.posting import get
    from metrics_pipeline.delivery.channels.redaction import keep_secret

    try:
        get(keep_secret(settings.heartbeat_url.get_secret_value()), timeout=HEARTBEAT_TIMEOUT).check()
    except Failure as failure:  # says host and answer; the address is a secret
        if log is not None:
            log.warning(f"the heartbeat was not taken: {failure}")
        return "All is well, but the heartbeat was not taken."
    return "All is well, and the heartbeat was taken."
