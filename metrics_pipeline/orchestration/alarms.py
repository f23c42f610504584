"""Alarms about the pipeline itself: alerts like others, told by the same routes, and so is their end.

Here: what they say, and by which routes. Not here: when (`sensors`, `watchdog`), how an alert goes on from there
(`alerts.announcing`). One open alarm a subject: a second failure says nothing new.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from metrics_pipeline.alerts.announcing import Announcement, announce, announced, withdraw
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.delivery.channels.redaction import redacted
from metrics_pipeline.routing.channels import channel_cards
from metrics_pipeline.routing.decide import Routing, direct
from metrics_pipeline.routing.labels import PIPELINE, pipeline_labels
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import Store, open_store

log = logging.getLogger(__name__)

REASON_CHARACTERS = 600
WORKS_AGAIN = {"summary": "It works again.", "summary_zh": "已恢复正常。"}


@dataclass(frozen=True)
class Alarm:
    """What is wrong with the pipeline. `rule` and `subject` are its identity, the rest is what people read."""

    rule: str
    """`pipeline_failed` or `alerting_down` (`routing.labels.PIPELINE`)."""
    subject: str
    name_en: str = ""
    name_zh: str = ""
    why: str = ""
    why_zh: str = ""
    summary_en: str = ""
    summary_zh: str = ""
    link: str = ""
    around: str = ""
    """A channel by which this must not be told, because it is what fails."""

    @property
    def announcement(self) -> Announcement:
        """The alert it is: `pipeline_failed:nightly{job=nightly}`."""
        labels = pipeline_labels(self.rule)
        card = RuleCard(
            id=f"{self.rule}:{self.subject}",
            metric="",
            name_zh=self.name_zh or self.subject,
            name_en=self.name_en or self.subject,
            why=self.why,
            why_zh=self.why_zh,
            owner=labels["owner"],
            labels={"scenario": labels["scenario"]},
            annotations={"summary": self.summary_en, "summary_zh": self.summary_zh, "runbook": self.link},
            business_line=labels["business_line"],
            kind="alarm",
            alert=self.rule,
        )
        return Announcement(card, PIPELINE[self.rule], self.subject)


def failed_job(settings: Settings, *, job: str, run_id: str = "", reason: str = "") -> Alarm:
    """The alarm of a job whose run failed."""
    detail = redacted(" ".join(reason.split()))[:REASON_CHARACTERS]
    return Alarm(
        rule="pipeline_failed",
        subject=job,
        name_en=f"job {job} failed",
        name_zh=f"任务 {job} 运行失败",
        why="Metrics and alerts are as old as the last run that worked.",
        why_zh="指标与报警停留在上一次成功运行时的状态。",
        summary_en=f"The job {job} failed; its run is {run_id}. {detail}",
        summary_zh=f"任务 {job} 运行失败，运行编号 {run_id}。{detail}",
        link=f"{settings.ui_url}/runs/{run_id}" if run_id else settings.ui_url,
    )


def raise_alarm(settings: Settings, alarm: Alarm, *, now: datetime) -> tuple[str, ...]:
    """Begin an alarm, unless it is open already; returns the keys of what is queued now (a group may wait for more).

    Told by the routes of its labels. Where these cannot be used, every channel there is gets it.
    """
    store = open_store(settings)
    try:
        if is_open(store, alarm):
            return ()
        try:
            return announce(store, alarm.announcement, _around(alarm_routing(settings), alarm), now=now)
        except Exception:  # whatever ails the routes, an alarm must go out
            log.exception("alarm %s cannot be routed; it goes to every channel", alarm.announcement.instance)
            return announce(store, alarm.announcement, _around(everybody(settings), alarm), now=now)
    finally:
        store.close()


def clear_alarm(settings: Settings, alarm: Alarm, *, now: datetime) -> tuple[str, ...]:
    """End an alarm: whoever was told its beginning is told; returns the keys of what is queued now."""
    store = open_store(settings)
    try:
        if not is_open(store, alarm):
            return ()
        return withdraw(store, alarm.announcement.instance, alarm_routing(settings), now=now, texts=WORKS_AGAIN)
    finally:
        store.close()


def is_open(store: Store, alarm: Alarm) -> bool:
    """Whether the alarm was raised and not cleared; costs one small query."""
    wanted = alarm.announcement
    with store.reading() as connection:
        return any(one.key == wanted.instance for one in announced(connection, wanted.card.id))


def alarm_routing(settings: Settings) -> Routing:
    """The routes of the installation; when they cannot be used, every channel there is."""
    try:
        routing = routing_of(settings)
    except Exception:
        log.exception("the routes cannot be read; alarms go to every channel")
        return everybody(settings)
    return everybody(settings) if routing.stands_in else routing


def everybody(settings: Settings) -> Routing:
    """Every channel that reaches somebody without being told whom."""
    cards = channel_cards(settings).values()
    return direct(f"{card.name}:{address}".rstrip(":") for card in cards for address in card.addresses)


def _around(routing: Routing, alarm: Alarm) -> Routing:
    return routing.without(alarm.around) if alarm.around else routing
