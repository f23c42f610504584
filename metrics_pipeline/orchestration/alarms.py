"""Alarms about the pipeline itself: a job that failed is told like an alert, and so is its end.

Here: the notices. Not here: when (`sensors`). One open alarm a job: a second failure of the same job says nothing new.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from metrics_pipeline.alerts.notice import Counts, Notice, RuleCard, Slice, notification_key
from metrics_pipeline.delivery.channels import receivers_from
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store, open_store
from metrics_pipeline.store import outbox as rows
from metrics_pipeline.store.records import NewNotification

ALARM_RULE = "pipeline_failed"
REASON_CHARACTERS = 600


def raise_alarm(settings: Settings, *, job: str, run_id: str, reason: str, now: datetime) -> tuple[str, ...]:
    """Queue "this job failed" to everybody, unless the job's alarm is open already; returns the keys queued."""
    return _queue(settings, job=job, run_id=run_id, kind="first", reason=reason, now=now)


def clear_alarm(settings: Settings, *, job: str, run_id: str, now: datetime) -> tuple[str, ...]:
    """Queue the end of an open alarm to everybody; returns the keys queued (none when no alarm is open)."""
    return _queue(settings, job=job, run_id=run_id, kind="all_resolved", reason="", now=now)


def _queue(
    settings: Settings,
    *,
    job: str,
    run_id: str,
    kind: Literal["first", "all_resolved"],
    reason: str,
    now: datetime,
) -> tuple[str, ...]:
    store = open_store(settings)
    try:
        return _write(store, settings, job=job, run_id=run_id, kind=kind, reason=reason, now=now)
    finally:
        store.close()


def _write(
    store: Store,
    settings: Settings,
    *,
    job: str,
    run_id: str,
    kind: Literal["first", "all_resolved"],
    reason: str,
    now: datetime,
) -> tuple[str, ...]:
    group = f"{ALARM_RULE}:{job}"
    queued = []
    with store.writing("alerts") as connection:
        sequences = rows.last_sequences(connection, [group])
        for receiver in receivers_from(settings):
            sequence = sequences.get((receiver, group), 0)
            is_open = sequence % 2 == 1  # alarms and their ends alternate
            if is_open == (kind == "first"):
                continue
            notice = _notice(settings, receiver, group, sequence + 1, job, run_id, kind, reason, now)
            queued.append(
                NewNotification(
                    key=notice.key,
                    receiver=receiver,
                    group_key=group,
                    sequence=notice.sequence,
                    reason=notice.reason,
                    tier=notice.tier,
                    payload=notice.to_json(),
                    created_at=now,
                )
            )
        rows.enqueue(connection, queued)
    return tuple(row.key for row in queued)


def _notice(
    settings: Settings,
    receiver: str,
    group: str,
    sequence: int,
    job: str,
    run_id: str,
    kind: Literal["first", "all_resolved"],
    reason: str,
    now: datetime,
) -> Notice:
    instance = f"{ALARM_RULE}{{job={job}}}"
    is_failure = kind == "first"
    period = (now.astimezone(settings.zone) - timedelta(days=1)).replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    )
    detail = " ".join(reason.split())[:REASON_CHARACTERS]
    card = RuleCard(
        id=group,
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
        key=notification_key(receiver, group, [run_id] if is_failure else [], [] if is_failure else [run_id], kind, sequence),
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
                instance=instance,
                dimension="job",
                member=job,
                change="new" if is_failure else "resolved",
                tier="red",
                since=period,
            ),
        ),
    )
