"""Diagnoses of the red slices of a night, within a time budget, and keeping them with their episodes.

Set-based over what is red: the values of all metrics that are looked at are read once per period. Coarser slices of
higher metrics come first; what is not reached in time, or fails, has the reason instead of a diagnosis, and its alert
goes out all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import sqlalchemy as sa

from metrics_pipeline.alerts.lineage import LAYERS
from metrics_pipeline.diagnosis.data_problems import data_problems_on
from metrics_pipeline.diagnosis.diagnose import Context, NothingToDiagnose, diagnose, read_values
from metrics_pipeline.diagnosis.leaves import Values
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.diagnosis.words import Named, Wording
from metrics_pipeline.store import diagnoses as rows
from metrics_pipeline.store.bulk import read_rows
from metrics_pipeline.store.records import Instance
from metrics_pipeline.store.tables import alert_instances

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from metrics_pipeline.warehouse.read import Published

log = logging.getLogger(__name__)

BUDGET_SECONDS: Final = 20.0
"""CPU seconds of one night for all diagnoses together."""
MOST_PER_METRIC: Final = 5
"""Slices of one metric and period that are diagnosed: a storm over a thousand slices has one cause, not a thousand."""


class Red(NamedTuple):
    """One slice that breaches in red."""

    metric: str
    dimension: str
    member: str
    grain: str
    period: datetime

    @property
    def slice(self) -> dict[str, str]:
        """Dimension → member; {} for the total."""
        if self.dimension in ("all", ""):
            return {}
        names = self.dimension.split("|")
        members = self.member.split("|") if len(names) > 1 else [self.member]
        return dict(zip(names, members, strict=True))


@dataclass(frozen=True)
class Findings:
    """What came of the red slices of a night."""

    diagnoses: Mapping[Red, Diagnosis]
    reasons: Mapping[Red, str]
    """Why a slice has none."""
    cpu_seconds: float = 0.0


NOTHING_RED: Final = Findings({}, {})


def diagnose_all(
    published: Published,
    context: Context,
    reds: Iterable[Red],
    *,
    now: datetime,
    budget: float = BUDGET_SECONDS,
    most: int = MOST_PER_METRIC,
) -> Findings:
    """Diagnose red slices, the coarsest of the highest metrics first. Never raises: the reason stands for a diagnosis."""
    began = time.process_time()
    found: dict[Red, Diagnosis] = {}
    reasons: dict[Red, str] = {}
    chosen = _chosen(reds, context, reasons, most)
    by_period: dict[tuple[str, datetime], list[Red]] = {}
    for one in chosen:
        by_period.setdefault((one.grain, one.period), []).append(one)
    for (grain, period), some in by_period.items():
        of_grain: Literal["day", "hour"] = "hour" if grain == "hour" else "day"
        try:
            values = read_values(published, context, [(one.metric, one.slice) for one in some], of_grain, period)
            problems = data_problems_on(published, period.date(), context.promotions)
        except Exception as error:
            log.exception("the values around %s cannot be read for diagnoses", period)
            reasons |= dict.fromkeys(some, f"{type(error).__name__}: {error}")
            continue
        for one in some:
            if time.process_time() - began > budget:
                reasons[one] = f"the {budget:g} CPU seconds for diagnoses were used up; `metrics diagnose` finds it"
                continue
            reasons |= _one(
                published, replace(context, problems=problems), one, values, found, of_grain=of_grain, now=now
            )
    return Findings(found, reasons, round(time.process_time() - began, 3))


def _one(
    published: Published,
    context: Context,
    one: Red,
    values: Values,
    found: dict[Red, Diagnosis],
    *,
    of_grain: Literal["day", "hour"],
    now: datetime,
) -> dict[Red, str]:
    try:
        found[one] = diagnose(
            published, context, one.metric, one.slice, one.period, grain=of_grain, now=now, values=values
        )
    except NothingToDiagnose as error:
        return {one: str(error)}
    except Exception as error:
        log.exception("no diagnosis of %s", one)
        return {one: f"{type(error).__name__}: {error}"}
    return {}


def _chosen(reds: Iterable[Red], context: Context, reasons: dict[Red, str], most: int) -> list[Red]:
    """Each metric's coarsest slices; of the others the reason."""

    def height(one: Red) -> tuple[int, int, str, str]:
        metric = context.catalogue.metrics[one.metric]
        return -LAYERS.get(metric.layer, 0), len(one.slice), one.metric, one.member

    known = {one for one in reds if one.metric in context.catalogue.metrics}
    taken: dict[tuple[str, datetime], int] = {}
    chosen = []
    for one in sorted(known, key=height):
        count = taken[one.metric, one.period] = taken.get((one.metric, one.period), 0) + 1
        if count <= most:
            chosen.append(one)
        else:
            reasons[one] = f"only the {most} coarsest red slices of a metric are diagnosed; `metrics diagnose` finds it"
    return chosen


def keep(
    connection: Connection,
    findings: Findings,
    metric_of: Mapping[str, str],
    metrics: Mapping[str, Named],
    *,
    data_version: str,
    now: datetime,
) -> dict[str, Diagnosis]:
    """Keep what was found with the episodes that are open and red now, on the caller's transaction; returns episode → diagnosis.

    `metric_of`: rule → metric. An episode has one row per data version: a re-run writes nothing new.
    """
    query = sa.select(alert_instances).where(alert_instances.c.tier == "red", alert_instances.c.episode.is_not(None))
    kept: list[rows.DiagnosisRow] = []
    attached: dict[str, Diagnosis] = {}
    for one in read_rows(connection, query, Instance._make):
        period = one.data_period or one.last_period
        if one.rule not in metric_of or period is None or one.episode is None:
            continue
        red = Red(metric_of[one.rule], one.dimension, one.member, one.grain, period)
        diagnosis, reason = findings.diagnoses.get(red), findings.reasons.get(red, "")
        if diagnosis is None and not reason:
            continue
        kept.append(_row(str(one.episode), period, diagnosis, reason, metrics, data_version=data_version, now=now))
        if diagnosis is not None:
            attached[one.episode] = diagnosis
    rows.save(connection, kept)
    return attached


def _row(
    episode: str,
    period: datetime,
    diagnosis: Diagnosis | None,
    reason: str,
    metrics: Mapping[str, Named],
    *,
    data_version: str,
    now: datetime,
) -> rows.DiagnosisRow:
    lines: Sequence[str] = ("", "")
    if diagnosis is not None:
        lines = [Wording(diagnosis, metrics, "zh").line(), Wording(diagnosis, metrics, "en").line()]
    return rows.DiagnosisRow(
        episode,
        data_version,
        period,
        None if diagnosis is None else diagnosis.to_json(),
        lines[0],
        lines[1],
        reason,
        0.0 if diagnosis is None else diagnosis.cpu_seconds,
        now,
    )
