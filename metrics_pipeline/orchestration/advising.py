"""Advice of a night: what fires → what to do, kept with the episodes.

Here: playbook, metrics and cards of the project put together, and that advice which fails stops no alert. Not here: how
advice is found (`advice`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc
from sqlalchemy.engine import Connection

from metrics_pipeline.advice.attach import Beside, advise_on, attach, facts_of_verdict
from metrics_pipeline.advice.evidence import AlertFacts
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.text import advice_text, for_everybody
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.diagnosis.attach import Red
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.forecasting.outlook import Outlook
from metrics_pipeline.orchestration.judging import CONFIDENTIAL, cards
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.rules.evaluate import Evaluations
from metrics_pipeline.store import open_store
from metrics_pipeline.warehouse.read import Published

MOST = 5_000
"""Breaching verdicts that are looked at."""
BREACHES = ("red", "yellow")
_COLUMNS = ["rule", "dimension", "member", "grain", "period_start", "tier", "value", "observed", "baseline"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advised:
    """What a run did: episodes whose advice is new, and what is wrong."""

    episodes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def advice_on_rules(
    project: Project, evaluations: Iterable[Evaluations], diagnoses: Mapping[Red, Diagnosis] | None = None
) -> dict[str, list[tuple[str, str]]]:
    """Rule → the advice on its worst slice, Chinese and English, the best first; {} when it cannot be found. Of a confidential metric: on the first slice
    by name, without values and causes.

    By the verdicts of a run and not by the alerts, which are written by another step; what is known of the past is used.
    """
    sensitivity = {name: metric.sensitivity for name, metric in project.catalogue.metrics.items()}
    hidden = {name for name, one in sensitivity.items() if one == CONFIDENTIAL}
    try:
        known = cards(project)
        breaching = [one for table in evaluations for one in _breaching(table, known)]
        worst: dict[str, AlertFacts] = {}
        # The worst of a rule comes first; which slice that is, and which part is behind it, is not told of a confidential metric.
        for one in sorted(breaching, key=lambda one: _by_name(one) if one.metric in hidden else ()):
            worst.setdefault(one.rule, one)
        if not worst:
            return {}
        entries = load_playbook(project.settings.rules_dir, metrics=project.catalogue.metrics).entries.values()
        store = open_store(project.settings)
        try:
            with store.reading() as connection:
                found = advise_on(
                    connection,
                    {one.episode: one for one in worst.values()},
                    entries,
                    project.catalogue.metrics,
                    known,
                    beside=Beside.of(breaching),
                    diagnoses=_of_episodes(
                        (one for one in worst.values() if one.metric not in hidden), diagnoses or {}
                    ),
                    outlooks=_outlooks(project),
                    now=project.now(),
                )
        finally:
            store.close()
    except Exception:
        log.exception("no advice on the checks of this run")
        return {}
    currency = project.settings.installation.currency
    return {
        one.rule: [
            (advice_text(shown, "zh", currency=currency), advice_text(shown, "en", currency=currency))
            for shown in (for_everybody(advice, sensitivity) for advice in found.advice[one.episode][:3])
        ]
        for one in worst.values()
        if found.advice[one.episode]
    }


def _outlooks(project: Project) -> dict[str, Outlook]:
    """SKU → what the night foresees of its shelf, of the newest day with stock; {} when it did not."""
    from metrics_pipeline.forecasting.stored import read_outlooks

    published = Published.open(project.settings.published_dir)
    return read_outlooks(project.settings.forecasts_dir, published)


def _by_name(alert: AlertFacts) -> tuple[bool, str, str]:
    return alert.tier != "red", alert.dimension, alert.member


def _of_episodes(alerts: Iterable[AlertFacts], diagnoses: Mapping[Red, Diagnosis]) -> dict[str, Diagnosis]:
    places = {one.episode: Red(one.metric, one.dimension, one.member, one.grain, one.period) for one in alerts}
    return {key: diagnoses[place] for key, place in places.items() if place in diagnoses}


def _breaching(evaluations: Evaluations, known: Mapping[str, RuleCard]) -> list[AlertFacts]:
    """The breaching verdicts of some periods, red first, at most `MOST` of them."""
    table = evaluations.table
    rows = table.filter(pc.field("tier").isin(BREACHES))
    red = pc.equal(rows["tier"].cast("string"), "red")
    ranked = rows.append_column("is_red", red).sort_by([("is_red", "descending"), ("severity", "descending")])
    return [
        facts_of_verdict(row, known[row["rule"]])
        for row in ranked.slice(0, MOST).select(_COLUMNS).to_pylist()
        if row["rule"] in known and known[row["rule"]].metric
    ]


def advise(connection: Connection, project: Project, diagnoses: Mapping[str, Diagnosis] | None = None) -> Advised:
    """Advise on what fires now, on the caller's transaction; a second time changes nothing.

    Never raises: what fails is undone alone, and an alert without advice is still an alert.
    """
    try:
        playbook = load_playbook(project.settings.rules_dir, metrics=project.catalogue.metrics)
        with connection.begin_nested():
            found = attach(
                connection,
                playbook.entries.values(),
                project.catalogue.metrics,
                cards(project),
                diagnoses=diagnoses,
                outlooks=_outlooks(project),
                now=project.now(),
            )
    except Exception as error:
        log.exception("no advice on the alerts of this run")
        return Advised(problems=(f"{type(error).__name__}: {error}",))
    return Advised(found, tuple(map(str, playbook.problems)))
