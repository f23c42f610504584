"""The job that empties the outbox.

Here: one op around `delivery.outbox.deliver_due`, its record in the run and on the page of the outbox. Not here: what is in the outbox (`alerts`), how
a channel speaks (`delivery.channels`), when the job starts (`sensors`). Light: no dbt, no DuckDB.
"""

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from metrics_pipeline.alerts.notice import Series, SeriesKey
from metrics_pipeline.orchestration.keys import DELIVER, OUTBOX_KEY
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store
from metrics_pipeline.store.dispatch import next_wake

if TYPE_CHECKING:
    from metrics_pipeline.routing.model import ScheduledDrill

LIMIT = 500
"""Messages of one run; what is left keeps its place in the outbox for the next one."""


def build_delivery_job(settings: Settings) -> dg.JobDefinition:
    """The job `deliver_messages` of an installation."""

    @dg.op(
        name="deliver",
        retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL),
        description="Queue what has become due, send what is queued; each attempt is recorded in the store.",
        out=dg.Out(dg.Nothing),
    )
    def deliver(context: dg.OpExecutionContext) -> None:
        from metrics_pipeline.advice.phrase import words_of
        from metrics_pipeline.delivery.channels import channels_from
        from metrics_pipeline.delivery.guard import MessageGuard
        from metrics_pipeline.delivery.outbox import Backoff, deliver_due, wording_from
        from metrics_pipeline.delivery.standing import masked, shown
        from metrics_pipeline.orchestration.outbox_check import check_evaluation, look, standing_metadata
        from metrics_pipeline.store import open_store

        store = open_store(settings)
        now = datetime.now(UTC)
        try:
            due = queue_due(settings, store, now=now)
            report = deliver_due(
                store,
                channels_from(settings),
                now=now,
                wording=wording_from(settings),
                limit=LIMIT,
                backoff=Backoff(jitter=random.random),
                fallback=lambda: fallback_receivers(settings, now=now),
                routing=lambda: _routing(settings),
                guard=MessageGuard(store, lambda: _routing(settings)),
                worded=words_of(settings, store),
            )
            found = look(store, now=now)
        finally:
            store.close()
        if report.refused:
            context.log.error(report.refused)
        for attempt in report.attempts:
            receiver, answer = masked(attempt.receiver), shown(attempt.answer, attempt.receiver)
            line = f"{attempt.outcome}: {attempt.title} → {receiver}: {answer}"
            (context.log.info if attempt.outcome == "sent" else context.log.warning)(line)
        context.instance.add_run_tags(
            context.run_id,
            {
                "metrics/due": str(len(due)),
                "metrics/delivered": str(report.sent),
                "metrics/failed": str(report.retried + len(report.dead)),
                "metrics/dead": str(len(report.dead)),
                "metrics/recalled": str(len(report.recalled)),
            },
        )
        context.add_output_metadata(_metadata(report))
        context.log_event(dg.AssetObservation(OUTBOX_KEY, metadata=standing_metadata(found)))
        context.log_event(check_evaluation(found))  # type: ignore[arg-type]  # it takes them, its signature does not say so

    @dg.job(
        name=DELIVER,
        executor_def=dg.in_process_executor,
        description="Deliver the messages that wait in the outbox.",
        tags={"metrics/kind": DELIVER},
    )
    def deliver_messages() -> None:
        deliver()

    return deliver_messages


def queue_due(settings: Settings, store: Store, *, now: datetime) -> tuple[str, ...]:
    """Queue what time has made due: groups that waited, reminders, escalations, the ends of silences, drills, digests.

    Their messages show the same plots as first ones.

    The routing is only read when there is something: it takes a second to import.
    """
    if not is_time_due(store, settings, now=now):
        return ()
    from metrics_pipeline.alerts.dispatch import dispatch_due
    from metrics_pipeline.alerts.drills import end_drills, start_scheduled
    from metrics_pipeline.routing.load import routing_of

    routing = routing_of(settings)

    def series(keys: Sequence[SeriesKey]) -> Mapping[SeriesKey, Series]:
        from metrics_pipeline.orchestration.series import recent_series

        return recent_series(settings, keys)

    end_drills(store, routing, now=now, series=series)
    begun = start_scheduled(store, routing, now=now, series=series)
    return (*(key for drill in begun for key in drill.queued), *dispatch_due(store, routing, now=now, series=series))


def is_time_due(store: Store, settings: Settings, *, now: datetime) -> bool:
    """Whether time has made something due: a group, a reminder, an escalation, a digest, the beginning or end of a drill."""
    from metrics_pipeline.alerts.drills import is_drill_over, is_drill_scheduled

    plans = _scheduled_drills(settings.rules_dir)
    with store.reading() as connection:
        wake_at = next_wake(connection)
        if (wake_at is not None and wake_at <= now) or is_drill_over(connection, now):
            return True
        return bool(plans) and is_drill_scheduled(connection, plans, now, settings.zone)


def _scheduled_drills(rules_dir: Path) -> "tuple[ScheduledDrill, ...]":
    """The drills of the routes file, which is read again only when it has changed; () when it cannot be used."""
    from metrics_pipeline.routing.load import ROUTES_FILE

    file = rules_dir / ROUTES_FILE
    try:
        return _drills_of(file, file.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=4)
def _drills_of(file: Path, _changed: int) -> "tuple[ScheduledDrill, ...]":
    from metrics_pipeline.routing.document import Document
    from metrics_pipeline.routing.model import RoutesFile

    found = Document(file).read(RoutesFile)
    return () if found is None else found.drills


def fallback_receivers(settings: Settings, *, now: datetime) -> list[str]:
    """Who stands in for a channel that gave a message up: the fallback of the routes, and the folder, which never fails."""
    from metrics_pipeline.routing.load import routing_of

    routing = routing_of(settings)
    found = routing.recipients_of(routing.fallback, {"severity": "red"}, now) if routing.fallback else ()
    return list(dict.fromkeys([*(recipient.key for recipient in found), "file"]))


def _routing(settings: Settings) -> Any:
    from metrics_pipeline.routing.load import routing_of

    return routing_of(settings)


def _metadata(report: Any) -> dict[str, Any]:
    from metrics_pipeline.delivery.standing import masked, shown

    columns = ("outcome", "receiver", "title", "answer")
    return {
        "sent": report.sent,
        "retry": report.retried,
        "dead": len(report.dead),
        "recalled": len(report.recalled),
        "waiting": report.waiting,
        **({"refused": report.refused} if report.refused else {}),
        "deliveries": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "outcome": attempt.outcome,
                        "receiver": masked(attempt.receiver),
                        "title": attempt.title,
                        "answer": shown(attempt.answer, attempt.receiver),
                    }
                )
                for attempt in report.attempts[:100]
            ],
            schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns]),
        ),
    }
