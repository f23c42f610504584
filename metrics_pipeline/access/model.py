"""What a grant says: who may do what with which metrics and slices, how exactly sensitive ones are shown, since when.

Nothing is allowed that no grant allows. There are no grants that forbid: what somebody may do is the union of their
grants, so that giving one never takes anything away and revoking one never gives anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Metric

SubjectKind = Literal["person", "position", "line", "channel", "service"]
SUBJECT_KINDS: Final = ("person", "position", "line", "channel", "service")
Action = Literal[
    "read", "compose", "approve", "acknowledge", "silence", "export", "operate", "deliver", "audit", "administer"
]
ACTIONS: Final = (
    "read", "compose", "approve", "acknowledge", "silence", "export", "operate", "deliver", "audit", "administer"
)  # fmt: skip
GENERAL: Final = ("operate", "deliver", "audit", "administer")
"""Actions that are about the installation and not about metrics."""
SELECTOR_KINDS: Final = ("all", "metric", "line", "layer", "category", "sensitivity")
SENSITIVE: Final = "confidential"


class Level(IntEnum):
    """How much of a value is shown; each includes what the one before shows."""

    DENIED = -1
    """Nothing, not even that there is such a metric or slice."""
    HIDDEN = 0
    """That it exists, and its definition."""
    BANDED = 1
    """A range in which the value lies."""
    EXACT = 2

    @property
    def word(self) -> str:
        return self.name.lower()


LEVELS: Final = {level.word: level for level in Level if level is not Level.DENIED}


class Selector(NamedTuple):
    """Which metrics: all of them, one by id, or those of a line, layer, category or sensitivity."""

    kind: str
    value: str = ""

    def __str__(self) -> str:
        return self.kind if self.kind == "all" else f"{self.kind}:{self.value}"


class Facts(NamedTuple):
    """What the policy knows of a metric."""

    id: str
    layer: str = "base"
    category: str = ""
    business_line: str = ""
    sensitivity: str = "internal"
    unit: str = "ratio"
    inputs: tuple[str, ...] = ()
    """Metrics whose values stand in its rows as numerator and denominator, now or under a former definition."""

    @property
    def is_sensitive(self) -> bool:
        return self.sensitivity == SENSITIVE


def facts_of(metrics: Mapping[str, Metric]) -> dict[str, Facts]:
    """The facts of a catalogue's metrics."""
    return {
        one.id: Facts(
            one.id,
            one.layer,
            one.category,
            one.business_line,
            one.sensitivity,
            one.unit,
            tuple(dict.fromkeys((*one.inputs, *(name for _, former in one.former for name in former.inputs)))),
        )
        for one in metrics.values()
    }


@dataclass(frozen=True)
class Grant:
    """One grant. `slices`: dimension → members; all of them must be met, () of dimensions = every slice."""

    id: int
    subject_kind: str
    subject: str
    actions: frozenset[str]
    selectors: tuple[Selector, ...]
    slices: Mapping[str, frozenset[str]] = field(default_factory=dict)
    level: Level = Level.HIDDEN
    """How sensitive metrics are shown; others are exact."""
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    granted_by: str = ""
    reason: str = ""
    revoked_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it counts at an instant (aware)."""
        begun = self.starts_at is None or self.starts_at <= now
        over = any(end is not None and end <= now for end in (self.expires_at, self.revoked_at))
        return begun and not over

    def covers(self, metric: Facts) -> bool:
        """Whether its selectors name the metric."""
        named = {
            "all": "",
            "metric": metric.id,
            "line": metric.business_line,
            "layer": metric.layer,
            "category": metric.category,
            "sensitivity": metric.sensitivity,
        }
        return any(named.get(kind) == value for kind, value in self.selectors)


@dataclass(frozen=True)
class Subjects:
    """What one person stands for: themselves, their positions, their lines. A channel or a service stands for itself."""

    person: str
    positions: frozenset[str] = frozenset()
    lines: frozenset[str] = frozenset()
    kind: str = "person"

    def has(self, grant: Grant) -> bool:
        """Whether a grant is given to them."""
        match grant.subject_kind:
            case "position":
                return grant.subject in self.positions
            case "line":
                return grant.subject in self.lines
            case kind:
                return kind == self.kind and grant.subject == self.person


class Decision(NamedTuple):
    """What the policy says of one person, action, metric and slice, and why."""

    level: Level
    reason_en: str
    reason_zh: str
    grant: int | None = None

    @property
    def is_allowed(self) -> bool:
        return self.level > Level.DENIED


@dataclass(frozen=True)
class SubjectName:
    """Whom a grant is given to, as people write it: `li`, `position:sales`, `line:trade`, `channel:smtp`."""

    kind: str
    id: str

    @classmethod
    def read(cls, text: str) -> SubjectName:
        """Raises `ValueError` when the kind is not known."""
        kind, separator, name = text.partition(":")
        if not separator:
            return cls("person", text)
        if kind not in SUBJECT_KINDS or not name:
            raise ValueError(
                f"{text!r} is nobody; write a person's id, or {', '.join(f'{k}:ID' for k in SUBJECT_KINDS)}"
            )
        return cls(kind, name)

    def __str__(self) -> str:
        return self.id if self.kind == "person" else f"{self.kind}:{self.id}"


def parts_of(dimension: str, member: str) -> Mapping[str, str] | None:
    """Dimension → member of a published slice: {} of the total; None when it cannot be told, which allows nothing."""
    names = () if dimension in ("all", "") else tuple(dimension.split("|"))
    if len(names) < 2:
        return dict.fromkeys(names, member)
    members = member.split("|")
    return dict(zip(names, members, strict=True)) if len(members) == len(names) else None


def union(of: Iterable[Level]) -> Level:
    """What several grants show together: the most that one of them shows."""
    return max(of, default=Level.DENIED)
