"""What one person may see of alerts: rows of slices they may not know of are left out, numbers they may not see are masked.

An alert is about its rule's metric on its slice, and as visible as that. A composite rule also tells of the rules it
looks at, on other slices, too: it is seen by who sees all their metrics on the slice and in total. A share tells, with the
value, what it is a share of: its numbers are shown to who sees the total. Alarms about the pipeline may name anything
and are for who sees all metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, TypeVar

from metrics_pipeline.access.bands import band
from metrics_pipeline.access.model import Level
from metrics_pipeline.access.policy import Rights
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.alerts.notice import RuleCard

NUMBERS = (
    "value",
    "observed",
    "baseline",
    "lower",
    "upper",
    "yellow_bound",
    "red_bound",
    "sample",
    "worst_value",
    "worst_excess",
)
"""Fields that hold a value of the metric, or something from which it follows."""
_KEY = re.compile(r"^(?P<rule>[^{]*)\{(?P<dimension>[^=]*)=(?P<member>.*)\}(@[^@]*)?$", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True)
class Sight:
    """A viewer, and what each rule is about (`cards`: rule → card)."""

    viewer: Viewer
    cards: Mapping[str, RuleCard]

    @property
    def is_open(self) -> bool:
        return self.viewer.is_open

    def level(self, rule: str, dimension: str, member: str, *, action: str = "read") -> Level:
        """How much of an alert of a rule on a slice may be seen (or what `action` may be done with it)."""
        if self.viewer.is_open:
            return Level.EXACT
        rights = self.viewer.rights(action)
        card = self.cards.get(rule) or self.cards.get(rule.partition(":")[2])
        if card is None or not card.metric:
            return Level.EXACT if is_general(rights) else Level.DENIED
        level = rights.decide(card.metric, dimension, member).level
        for part in card.parts:
            other = self.cards.get(part)
            if other is None:
                return Level.DENIED
            for slice_ in ((dimension, member), ("all", "all")):
                level = min(level, rights.decide(other.metric, *slice_).level)
        return level

    def level_of(self, key: str, *, action: str = "read") -> Level:
        """The same of an instance or an episode by its key."""
        if self.viewer.is_open:
            return Level.EXACT
        found = _KEY.match(key)
        return Level.DENIED if found is None else self.level(*found.group("rule", "dimension", "member"), action=action)

    def sees(self, key: str) -> bool:
        """Whether there is an instance or episode of this key as far as the viewer may know."""
        return self.level_of(key) > Level.DENIED

    def seen(self, rows: Iterable[T]) -> list[T]:
        """The rows (dataclasses or named tuples with an `instance`, `episode` or `key`) as the viewer may see them."""
        if self.viewer.is_open:
            return list(rows)
        found = []
        for row in rows:
            key = str(getattr(row, "instance", None) or getattr(row, "episode", None) or getattr(row, "key", ""))
            level = self.level_of(key)
            if level > Level.DENIED:
                found.append(row if level == Level.EXACT and self.shows_shares(key) else without_numbers(row))
        return found

    def shows_shares(self, key: str) -> bool:
        """Whether the numbers of an alert tell nothing of a total that the viewer may not see."""
        card = self.cards.get(key.partition("{")[0])
        if card is None or "share" not in card.expression:
            return True
        return self.viewer.reading.decide(card.metric).level == Level.EXACT

    def band_of(self, rule: str, value: float | None) -> str:
        """The range shown instead of a value."""
        card = self.cards.get(rule)
        found = None if card is None else band(value, card.unit)
        return "" if found is None else str(found)

    def rules(self, rules: Iterable[str]) -> list[str]:
        """Of some rules those of which any slice may be known."""
        if self.viewer.is_open:
            return list(rules)
        reading = self.viewer.reading
        return [
            one
            for one in rules
            if (card := self.cards.get(one)) is not None
            and all(reading.knows(metric) for metric in self._metrics(card))
        ]

    def _metrics(self, card: RuleCard) -> Sequence[str]:
        parts = (self.cards[part].metric if part in self.cards else "" for part in card.parts)
        return (card.metric, *parts)


def known_card(card: RuleCard, reading: Rights) -> RuleCard:
    """The card without the names of metrics that may not be known, of which its metric is made."""
    return replace(card, upstream=tuple(filter(reading.knows, card.upstream)))


def is_general(rights: Rights) -> bool:
    """Whether the rights are on all metrics and slices, those nobody has defined included."""
    return rights.is_open or any(not right.slices and right.is_general for right in rights.rights)


def without_numbers(row: T) -> T:
    """The row with nothing in its `NUMBERS`."""
    blank: dict[str, Any] = {name: None for name in NUMBERS if getattr(row, name, None) is not None}
    if not blank:
        return row
    if is_dataclass(row) and not isinstance(row, type):
        return replace(row, **blank)
    return row._replace(**blank)  # type: ignore[attr-defined,no-any-return]
