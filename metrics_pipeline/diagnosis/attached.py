"""Diagnoses and episodes: what is kept with an episode, what of it somebody may see, what a diagnosis may look at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metrics_pipeline.access.model import Level
from metrics_pipeline.alerts.sight import is_general
from metrics_pipeline.diagnosis.coinciding import Note
from metrics_pipeline.diagnosis.model import Diagnosis
from metrics_pipeline.store import diagnoses as rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from metrics_pipeline.alerts.sight import Sight
    from metrics_pipeline.alerts.words import Locale
    from metrics_pipeline.diagnosis.diagnose import Context
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.settings import Settings


@dataclass(frozen=True)
class Explained:
    """The diagnosis kept with an episode, with its line in both languages; without a diagnosis the reason."""

    diagnosis: Diagnosis | None = None
    line_zh: str = ""
    line_en: str = ""
    reason: str = ""

    def line(self, locale: Locale) -> str:
        """For a message; empty when there is nothing to tell."""
        return self.line_zh if locale == "zh" else self.line_en

    def seen_by(self, sight: Sight) -> Explained:
        """The same for somebody who may see every value it names exactly; nothing for anybody else: what is left out
        of shares of one whole could be told from the rest."""
        if sight.is_open or self.diagnosis is None or is_general(sight.viewer.reading):
            return self
        exact = all(
            sight.viewer.reading.decide(metric, *slice_).level == Level.EXACT
            for metric, slice_ in named_values(self.diagnosis)
        )
        return self if exact else UNEXPLAINED

    def as_json(self) -> dict[str, Any]:
        """Plain values with both lines."""
        return {
            "diagnosis": None if self.diagnosis is None else self.diagnosis.to_json(),
            "text_zh": self.line_zh,
            "text_en": self.line_en,
            "reason": self.reason,
        }


UNEXPLAINED = Explained()


def named_values(found: Diagnosis) -> Iterator[tuple[str, tuple[str, str]]]:
    """Every metric and slice of which a diagnosis tells a value."""

    def slice_(elements: Mapping[str, str]) -> tuple[str, str]:
        return ("|".join(elements) or "all", "|".join(elements.values()) or "all")

    own = dict(found.slice)
    yield found.metric, slice_(own)
    for cause in found.causes:
        yield found.metric, slice_({**own, **cause.elements})
    for step in found.pyramid.steps:
        for metric in step.metric.split("/"):
            yield metric, slice_(own)
    for control in found.controls:
        yield control.metric, slice_({**own, **control.elements})
    for one in found.coinciding:
        if one.kind == "stock_out":
            yield "stock_on_hand", slice_(one.elements)
            yield "units_sold", slice_(one.elements)
            yield "units_sold", slice_({name: member for name, member in own.items() if name == "category"})
        elif one.kind == "campaign" and "campaign" in one.elements:
            yield "ad_spend", slice_(one.elements)


def explained_of(connection: Connection, episodes: Collection[str]) -> dict[str, Explained]:
    """Episode → the newest that is kept of it."""
    return {
        key: Explained(
            None if row.document is None else Diagnosis.from_json(row.document), row.line_zh, row.line_en, row.reason
        )
        for key, row in rows.newest(connection, episodes).items()
    }


def context_of(settings: Settings, connection: Connection, *, catalogue: Catalogue) -> Context:
    """What a diagnosis looks at besides values: the calendar of the shop and the notes."""
    from metrics_pipeline.diagnosis.diagnose import Context
    from metrics_pipeline.rules.seeds import seeds_of

    seeds = seeds_of(settings)
    notes = [
        Note(one.id, one.kind, one.text, one.starts_on, one.ends_on, one.elements) for one in rows.notes(connection)
    ]
    return Context(catalogue, seeds.promotions, notes)
