"""What there is to tell of an episode: its advice, and how similar ones were handled. Read by every door."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.advice.outcome import Handlings
from metrics_pipeline.advice.recommend import Advice
from metrics_pipeline.advice.text import Remembered, advice_text, remembered_text, seen, seen_memory
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.words import Locale
from metrics_pipeline.store import advice as rows


@dataclass(frozen=True)
class Told:
    """The advice of one episode, the best first, and similar past ones, the most similar first."""

    advice: tuple[Advice, ...] = ()
    similar: tuple[Remembered, ...] = ()
    further: tuple[Advice, ...] = ()
    """Of other alerts in the same message: what to do about their shelves."""

    def seen_by(self, sight: Sight) -> Told:
        """What of it a viewer may see."""
        if sight.is_open:
            return self
        return Told(
            tuple(seen(self.advice, sight)), tuple(seen_memory(self.similar, sight)), tuple(seen(self.further, sight))
        )

    def lines(self, locale: Locale, *, currency: str = "", most: int = 3) -> list[str]:
        """The advice in words, a line each."""
        return [advice_text(one, locale, currency=currency) for one in self.advice[:most]]

    def memory(self, locale: Locale, *, most: int = 3) -> list[str]:
        """Similar past episodes in words, a line each."""
        return [remembered_text(one, locale) for one in self.similar[:most]]

    def as_json(self, *, currency: str = "") -> dict[str, Any]:
        """Plain values, with the words of both languages."""
        return {
            "advice": [
                {
                    **one.to_json(),
                    "text_zh": advice_text(one, "zh", currency=currency),
                    "text_en": advice_text(one, "en", currency=currency),
                }
                for one in self.advice
            ],
            "similar": [
                {**one.as_json(), "text_zh": remembered_text(one, "zh"), "text_en": remembered_text(one, "en")}
                for one in self.similar
            ],
        }


NOTHING = Told()


def told_of(connection: Connection, keys: Collection[str], *, now: datetime) -> dict[str, Told]:
    """What was advised about these episodes, with what has become of similar ones by now; those without are left out."""
    found = rows.advice_of(connection, keys)
    past = {one["episode"] for row in found.values() for one in row.similar}
    handlings = Handlings.read(connection, past, now=now).by_episode
    return {
        key: Told(
            tuple(Advice.from_json(one) for one in row.advice),
            tuple(
                Remembered(one["episode"], one["similarity"], one["parts"], handlings[one["episode"]])
                for one in row.similar
                if one["episode"] in handlings
            ),
        )
        for key, row in found.items()
    }
