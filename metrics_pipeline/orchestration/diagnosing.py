"""Diagnoses of a run: what is red in its newest periods, once per process, kept with the episodes.

Here: which slices are red, names of metrics, and that a diagnosis which fails stops no alert. Not here: how a cause is
found (`diagnosis`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pyarrow.compute as pc
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.diagnosis.attach import NOTHING_RED, Findings, Red, diagnose_all, keep
from metrics_pipeline.diagnosis.attached import context_of
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.diagnosis.words import Named
from metrics_pipeline.orchestration.judging import Judgement
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.store import open_store

log = logging.getLogger(__name__)


def diagnosed(project: Project, judgement: Judgement) -> Findings:
    """The diagnoses of what is red in the newest periods; the second call of a process costs nothing. Never raises."""
    key = ("diagnoses", judgement.published.version, judgement.window)
    if key not in project.diagnoses:
        project.diagnoses.clear()
        try:
            project.diagnoses[key] = _diagnosed(project, judgement)
        except Exception:
            log.exception("no diagnoses in this run")
            project.diagnoses[key] = NOTHING_RED
    found: Findings = project.diagnoses[key]
    return found


def keep_diagnoses(
    connection: Connection, project: Project, judgement: Judgement, cards: Mapping[str, RuleCard]
) -> dict[str, Diagnosis]:
    """Keep them with the open red episodes, on the caller's transaction; returns episode → diagnosis.

    Never raises: what fails is undone alone. Call `diagnosed` before the transaction, so that it waits for no search.
    """
    try:
        with connection.begin_nested():
            return keep(
                connection,
                diagnosed(project, judgement),
                {rule: card.metric for rule, card in cards.items() if card.kind == "metric" and card.metric},
                names(project),
                data_version=judgement.published.version,
                now=project.now(),
            )
    except Exception:
        log.exception("the diagnoses of this run are not kept")
        return {}


def names(project: Project) -> dict[str, Named]:
    """Metric → how it is called and counted."""
    currency = project.settings.installation.currency
    return {one.id: Named(one.name_zh, one.name_en, one.unit, currency) for one in project.catalogue.metrics.values()}


def _diagnosed(project: Project, judgement: Judgement) -> Findings:
    by_metric = {rule.id: rule.metric for rule in project.ruleset.rules}
    reds: set[Red] = set()
    for grain in ("day", "hour"):
        table = judgement.newest(grain).table
        for row in table.filter(pc.field("tier") == "red").to_pylist():
            if by_metric.get(row["rule"]) and row["period_start"] is not None and row["value"] is not None:
                reds.add(Red(by_metric[row["rule"]], row["dimension"], row["member"], grain, row["period_start"]))
    if not reds:
        return NOTHING_RED
    store = open_store(project.settings)
    try:
        with store.reading() as connection:
            context = context_of(project.settings, connection, catalogue=project.catalogue)
    finally:
        store.close()
    return diagnose_all(judgement.published, context, reds, now=project.now())
