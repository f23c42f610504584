"""Alarms about the pipeline itself: told like an alert, and so is their end.

Here: the notices. Not here: when (`sensors`, `watchdog`). One open alarm a subject: a second failure says nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from metrics_pipeline.alerts.notice import Counts, Notice, RuleCard, Slice, notification_key
from metrics_pipeline.delivery.channels import receivers_from
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import open_store
from metrics_pipeline.store import outbox as rows
from metrics_pipeline.store.records import NewNotification

REASON_CHARACTERS = 600


@dataclass(frozen=True)
class Alarm:
    """What is wrong with the pipeline. `rule` and `subject` are its identity, the rest is what people read."""

    rule: str
    """`pipeline_failed` or `alerting_down`."""
    dimension: str
    """What the subject is: `job` or `part`."""
    subject: str
    name_en: str = ""
    name_zh: str = ""
    why: str = ""
    summary_en: str = ""
    summary_zh: str = ""
    link: str = ""

    @property
    def group(self) -> str:
        return f"{self.rule}:{self.subject}"


def failed_job(settings: Settings, *, job: str, run_id: str = "", reason: str = "") -> Alarm:
    """The alarm of a job whose run failed."""
    detail = " ".join(reason.split())[:REASON_CHARACTERS]
    return Alarm(
        rule="pipeline_failed",
        dimension="job",
        subject=job,
        name_en=f"job {job}",
        name_zh=f"任务 {job}",
        why="Metrics and alerts are as old as the last run that worked.",
        summary_en=f"The job {job} failed; its run is {run_id}. {detail}",
        summary_zh=f"任务 {job} 运行失败,运行编号 {run_id}。{detail}",
        link=f"{settings.ui_url}/runs/{run_id}" if run_id else settings.ui_url,
    )


def raise_alarm(settings: Settings, alarm: Alarm, *, now: datetime) -> tuple[str, ...]:
    """Queue the alarm to everybody, unless it is open already; returns the keys queued."""
    return _queue(settings, alarm, "first", now)


def clear_alarm(settings: Settings, alarm: Alarm, *, now: datetime) -> tuple[str, ...]:
    """Queue the end of an open alarm to everybody; returns the keys queued (none when it is not open)."""
    return _queue(settings, alarm, "all_resolved", now)


def _queue(settings: Settings, alarm: Alarm, kind: Literal["first", "all_resolved"], now: datetime) -> tuple[str, ...]:
    store = open_store(settings)
    try:
        with store.writing("alerts") as connection:
            sequences = rows.last_sequences(connection, [alarm.group])
            queued = []
            for receiver in receivers_from(settings):
                sequence = sequences.get((receiver, alarm.group), 0)
                is_open = sequence % 2 == 1  # alarms and their ends alternate
                if is_open != (kind == "first"):
                    queued.append(
                        _row(
                            _notice(settings, alarm, kind, receiver=receiver, sequence=sequence + 1, now=now),
                            alarm,
                            now,
                        )
                    )
            rows.enqueue(connection, queued)
    finally:
        store.close()
    return tuple(row.key for row in queued)


def _row(notice: Notice, alarm: Alarm, now: datetime) -> NewNotification:
    return NewNotification(
        key=notice.key,
        receiver=notice.receiver,
        group_key=alarm.group,
        sequence=notice.sequence,
        reason=notice.reason,
        tier=notice.tier,
        payload=notice.to_json(),
        created_at=now,
        rule=alarm.group,
    )


def _notice(
    settings: Settings,
    alarm: Alarm,
    kind: Literal["first", "all_resolved"],
    *,
    receiver: str,
    sequence: int,
    now: datetime,
) -> Notice:
    is_failure = kind == "first"
    period = (now.astimezone(settings.zone) - timedelta(days=1)).replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    )
    card = RuleCard(
        id=alarm.group,
        metric=alarm.subject,
        name_zh=alarm.name_zh or alarm.subject,
        name_en=alarm.name_en or alarm.subject,
        why=alarm.why,
        owner="data",
        expression="run status",
        labels={"scenario": "pipeline"},
        annotations={"summary": alarm.summary_en, "summary_zh": alarm.summary_zh, "runbook": alarm.link},
    )
    identity = f"{alarm.group}#{(sequence + 1) // 2}"
    return Notice(
        key=notification_key(
            receiver,
            alarm.group,
            firing=[identity] if is_failure else [],
            ended=[] if is_failure else [identity],
            reason=kind,
            sequence=sequence,
        ),
        receiver=receiver,
        sequence=sequence,
        reason=kind,
        tier="red",
        created_at=now,
        period=period,
        grain="day",
        rule=card,
        counts=Counts(new=int(is_failure), ended=int(not is_failure), firing=int(is_failure), red=int(is_failure)),
        slices=(
            Slice(
                instance=f"{alarm.rule}{{{alarm.dimension}={alarm.subject}}}",
                dimension=alarm.dimension,
                member=alarm.subject,
                change="new" if is_failure else "resolved",
                tier="red",
                since=period,
            ),
        ),
    )
