"""Advice of a night: what fires → what to do, kept with the episodes.

Here: playbook, metrics and cards of the project put together, and that advice which fails stops no alert. Not here: how
advice is found (`advice`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from metrics_pipeline.advice.attach import attach
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.orchestration.judging import cards
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.store import open_store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Advised:
    """What a run did: episodes whose advice is new, and what is wrong."""

    episodes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def advise(project: Project, diagnoses: Mapping[str, Diagnosis] | None = None) -> Advised:
    """Advise on what fires now; a second time changes nothing. Never raises: an alert without advice is still an alert."""
    try:
        playbook = load_playbook(project.settings.rules_dir, metrics=project.catalogue.metrics)
        store = open_store(project.settings)
        try:
            found = attach(
                store,
                playbook.entries.values(),
                project.catalogue.metrics,
                cards(project),
                diagnoses=diagnoses,
                now=project.now(),
            )
        finally:
            store.close()
    except Exception as error:
        log.exception("no advice on the alerts of this run")
        return Advised(problems=(f"{type(error).__name__}: {error}",))
    return Advised(found, tuple(map(str, playbook.problems)))
