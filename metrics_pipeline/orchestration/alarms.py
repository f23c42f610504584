"""Alarms about the pipeline itself: a job that failed is told like an alert, and so is its end.

Here: the notices. Not here: when (`sensors`). One open alarm a job: a second failure of the same job says nothing new.
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

ALARM_RULE = "pipeline_failed"
REASON_CHARACTERS = 600


@dataclass(frozen=True)
class _Event:
    """A run that failed, or the first one that works again."""

    job: str
    run_id: str
    kind: Literal["first", "all_resolved"]
    reason: str
    now: datetime

    @property
    def group(self) -> str:
        return f"{ALARM_RULE}:{self.job}"


def raise_alarm(settings: Settings, *, job: str, run_id: str, reason: str, now: datetime) -> tuple[str, ...]:
    """Queue "this job failed" to everybody, unless the job's alarm is open already; returns the keys queued."""
    return _queue(settings, _Event(job, run_id, "first", reason, now))


def clear_alarm(settings: Settings, *, job: str, run_id: str, now: datetime) -> tuple[str, ...]:
    """Queue the end of an open alarm to everybody; returns the keys queued (none when no alarm is open)."""
    return _queue(settings, _Event(job, run_id, "all_resolved", "", now))


def _queue(settings: Settings, event: _Event) -> tuple[str, ...]:
    store = open_store(settings)
    try:
        with store.writing("alerts") as connection:
            sequences = rows.last_sequences(connection, [event.group])
            queued = []
            for receiver in receivers_from(settings):
                sequence = sequences.get((receiver, event.group), 0)
                is_open = sequence % 2 == 1  # alarms and their ends alternate
                if is_open != (event.kind == "first"):
                    queued.append(_row(_notice(settings, receiver, sequence + 1, event), event))
            rows.enqueue(connection, queued)
    finally:
        store.close()
    return tuple(row.key for row in queued)


def _row(notice: Notice, event: _Event) -> NewNotification:
    return NewNotification(
        key=notice.key,
        receiver=notice.receiver,
        group_key=event.group,
        sequence=notice.sequence,
        reason=notice.reason,
        tier=notice.tier,
        payload=notice.to_json(),
        created_at=event.now,
    )


def _notice(settings: Settings, receiver: str, sequence: int, event: _Event) -> Notice:
    job, run_id, now = event.job, event.run_id, event.now
    instance = f"{ALARM_RULE}{{job={job}}}"
    is_failure = event.kind == "first"
    period = (now.astimezone(settings.zone) - timedelta(days=1)).replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    )
    detail = " ".join(event.reason.split())[:REASON_CHARACTERS]
    card = RuleCard(
        id=event.group,
        metric=job,
        name_zh=f"任务 {job}",
        name_en=f"job {job}",
        why="Metrics and alerts are as old as the last run that worked.",
        owner="data",
        expression="run status",
        labels={"scenario": "pipeline"},
        annotations={
            "summary": f"The job {job} failed; its run is {run_id}. {detail}",
            "summary_zh": f"任务 {job} 运行失败,运行编号 {run_id}。{detail}",
            "runbook": f"{settings.ui_url}/runs/{run_id}",
        },
    )
    return Notice(
        key=notification_key(
            receiver,
            event.group,
            firing=[run_id] if is_failure else [],
            ended=[] if is_failure else [run_id],
            reason=event.kind,
            sequence=sequence,
        ),
        receiver=receiver,
        sequence=sequence,
        reason=event.kind,
        tier="red",
        created_at=now,
        period=period,
        grain="day",
        rule=card,
        counts=Counts(new=int(is_failure), ended=int(not is_failure), firing=int(is_failure), red=int(is_failure)),
        slices=(
            Slice(
                instance=instance,
                dimension="job",
                member=job,
                change="new" if is_failure else "resolved",
                tier="red",
                since=period,
            ),
        ),
    )
