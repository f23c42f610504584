"""The job that empties the outbox.

Here: one op around `delivery.outbox.deliver_due`, its record in the run. Not here: what is in the outbox (`alerts`), how
a channel speaks (`delivery.channels`), when the job starts (`sensors`). Light: no dbt, no DuckDB.
"""

import random
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.keys import DELIVER
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store
from metrics_pipeline.store.dispatch import next_wake

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
        from metrics_pipeline.delivery.channels import channels_from
        from metrics_pipeline.delivery.outbox import Backoff, deliver_due, wording_from
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
            )
        finally:
            store.close()
        for attempt in report.attempts:
            line = f"{attempt.outcome}: {attempt.title} → {attempt.receiver}: {attempt.answer}"
            (context.log.info if attempt.outcome == "sent" else context.log.warning)(line)
        context.instance.add_run_tags(
            context.run_id,
            {
                "metrics/due": str(len(due)),
                "metrics/sent": str(report.sent),
                "metrics/retry": str(report.retried),
                "metrics/dead": str(len(report.dead)),
                "metrics/recalled": str(len(report.recalled)),
            },
        )
        context.add_output_metadata(_metadata(report))

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
    """Queue what time has made due: groups that waited, reminders, escalations, the ends of silences, digests.

    The routing is only read when there is something: it takes a second to import.
    """
    with store.reading() as connection:
        wake_at = next_wake(connection)
    if wake_at is None or wake_at > now:
        return ()
    from metrics_pipeline.alerts.dispatch import dispatch_due
    from metrics_pipeline.routing.load import routing_of

    return dispatch_due(store, routing_of(settings), now=now)


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
    columns = ("outcome", "receiver", "title", "answer")
    return {
        "sent": report.sent,
        "retry": report.retried,
        "dead": len(report.dead),
        "recalled": len(report.recalled),
        "waiting": report.waiting,
        "deliveries": dg.MetadataValue.table(
            [
                dg.TableRecord({name: str(getattr(attempt, name)) for name in columns})
                for attempt in report.attempts[:100]
            ],
            schema=dg.TableSchema([dg.TableColumn(name, "string") for name in columns]),
        ),
    }
