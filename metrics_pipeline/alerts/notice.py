"""What is said to one receiver about one rule: facts only, as JSON in the outbox; words are put to it when it is sent.

A notice carries everything a message needs, its small series included, so that sending opens no warehouse.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from metrics_pipeline.alerts.state import IMPATIENT, RANK, Policy
from metrics_pipeline.store.records import Instance, Tier

WORST = 20
"""Slices listed in one notice; the counts cover all."""
POINTS = 120
"""Points of the series in one notice."""

NotifyReason = Literal[
    "first",
    "new_alerts",
    "escalated",
    "some_resolved",
    "all_resolved",
    "cancelled",
    "repeat",
    "unacknowledged",
    "flapping",
    "digest",
]
Change = Literal["new", "escalated", "ongoing", "resolved", "corrected", "cancelled"]


DRILL_PREFIX = "drill:"
"""Before the id of a rule in the id of its drills."""


Foreseen = Literal["stockout", "below", "above", "mean", ""]
"""What a rule on the future judges: the chance to be sold out, to lie below or above a bound, or the mean that is expected;
'' = a rule on what is."""
CHANCES: Final[frozenset[str]] = frozenset({"stockout", "below", "above"})


def is_drill(rule: str) -> bool:
    """Whether alerts of a rule of this id are drills: `drill:<rule>`."""
    return rule.startswith(DRILL_PREFIX)


def check_page(ui_url: str, asset_key: Sequence[str], check: str) -> str:
    """The page of an asset check in the Dagster UI; its first page where there is no asset."""
    base = ui_url.rstrip("/")
    if not asset_key:
        return base
    path = "/".join(quote(part, safe="") for part in asset_key)
    return f"{base}/assets/{path}?view=checks&checkDetail={quote(check, safe='')}"


@dataclass(frozen=True)
class RuleCard:
    """What people are told about a rule. Build it from the rule and its metric."""

    id: str
    metric: str
    name_zh: str = ""
    """The metric's names."""
    name_en: str = ""
    unit: str = ""
    """Of the metric: ratio, currency, days, orders, …"""
    currency: str = "CNY"
    why: str = ""
    why_zh: str = ""
    owner: str = ""
    expression: str = "value"
    yellow_if: str = ""
    red_if: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    asset_key: tuple[str, ...] = ()
    """Dagster key of the metric's asset, on whose checks page the link leads; the check is named like the rule."""
    policy: Policy = IMPATIENT
    layer: str = ""
    """Of the metric: base, operational, strategic."""
    category: str = ""
    business_line: str = ""
    metric_owner: str = ""
    upstream: tuple[str, ...] = ()
    """Every metric it is made of, directly or not."""
    kind: Literal["metric", "composite", "freshness", "alarm"] = "metric"
    """What it is about, which decides its words: a metric's value, other rules, the age of data, the pipeline itself."""
    parts: tuple[str, ...] = ()
    """Of a composite rule: ids of the rules it looks at."""
    sensitivity: str = ""
    """Of the metric: public, internal, confidential."""
    alert: str = ""
    """Its name in routes (`alertname`) where that is not its id."""

    @property
    def is_drill(self) -> bool:
        return is_drill(self.id)

    @property
    def foresees(self) -> Foreseen:
        """What it judges of the future, by its expression."""
        family, _, inner = self.expression.partition("(")
        if family == "stockout":
            return "stockout"
        if family != "forecast":
            return ""
        return "below" if "below=" in inner else "above" if "above=" in inner else "mean"

    def chance_bound(self, tier: str) -> float | None:
        """Of a rule that judges a chance: the threshold of a tier, which no value of the metric stands for."""
        threshold = self.red_if if tier == "red" else self.yellow_if
        numbers = re.findall(r"-?\d+(?:\.\d+)?", threshold)
        return float(numbers[0]) if self.foresees in CHANCES and len(numbers) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives it back."""
        lists = {"asset_key": self.asset_key, "upstream": self.upstream, "parts": self.parts}
        texts = {"labels": self.labels, "annotations": self.annotations, "policy": vars(self.policy)}
        return {  # every rule's at each tick: `asdict` takes ten times as long
            **vars(self),
            **{name: list(items) for name, items in lists.items()},
            **{name: dict(items) for name, items in texts.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RuleCard:
        """The card in a payload, without what this release does not know. Raises `KeyError` or `TypeError` when it is not one."""
        known = {field.name for field in fields(cls)}
        return cls(
            **{
                **{name: value for name, value in data.items() if name in known},
                "policy": Policy(**data["policy"]),
                "asset_key": tuple(data["asset_key"]),
                "upstream": tuple(data.get("upstream", ())),
                "parts": tuple(data.get("parts", ())),
            }
        )


class SeriesKey(NamedTuple):
    """Which series a plot shows: it ends with the breached period."""

    rule: str
    metric: str
    dimension: str
    member: str
    grain: str
    until: datetime


class Point(NamedTuple):
    """One period of a series; `lower` and `upper` are the expected band."""

    period: datetime
    value: float | None
    lower: float | None = None
    upper: float | None = None


@dataclass(frozen=True)
class Series:
    """The recent past of one slice, oldest first, and the bounds it is judged by."""

    points: tuple[Point, ...]
    yellow_bound: float | None = None
    red_bound: float | None = None
    dimension: str = "all"
    member: str = "all"


SeriesSource = Callable[[Sequence[SeriesKey]], Mapping[SeriesKey, Series]]
"""All series of one tick at once, so that a source can answer with one query. An absent key gives no plot."""


@dataclass(frozen=True)
class Slice:
    """One slice in a notice."""

    instance: str
    dimension: str
    member: str
    change: Change
    tier: Tier
    """While it fires: its tier. When it ended: the worst it had."""
    since: datetime
    """First breaching period, shop-local."""
    value: float | None = None
    observed: float | None = None
    baseline: float | None = None
    lower: float | None = None
    upper: float | None = None
    yellow_bound: float | None = None
    red_bound: float | None = None
    rule: str = ""
    """Where a notice holds several rules: this slice's, when it is not the notice's first."""
    name_zh: str = ""
    """Of that rule's metric, like the next ones."""
    name_en: str = ""
    unit: str = ""
    kind: str = ""
    """Of that rule, as `RuleCard.kind`; '' = as the notice's first."""
    grain: str = ""
    """day or hour; '' = as the notice's."""
    foresees: Foreseen = ""
    """Of its rule: `observed` is a chance or a mean to come, and of a chance so are the bounds."""


@dataclass(frozen=True)
class Counts:
    """Numbers over all slices of the notice, listed or not."""

    new: int = 0
    escalated: int = 0
    eased: int = 0
    ended: int = 0
    firing: int = 0
    red: int = 0
    no_data: int = 0
    passed: int = 0
    """In a digest: began and ended while they were held back."""
    rules: int = 1
    """Rules these slices are of."""


@dataclass(frozen=True)
class Notice:
    """One notification: one group, one receiver, all that is new to them."""

    key: str
    receiver: str
    sequence: int
    reason: NotifyReason
    tier: Tier
    """The worst tier that fires now; the worst it was when all has ended."""
    created_at: datetime
    period: datetime
    grain: str
    rule: RuleCard
    """The first one: of the headline, or of the worst slice."""
    counts: Counts
    slices: tuple[Slice, ...]
    series: Series | None = None
    group: str = ""
    """Key of the group; the end of what it tells comes in the same one."""
    mentions: tuple[str, ...] = ()
    """In a room: whom to call, as the channel names them."""
    language: str = ""
    """Of the reader; '' = the installation's."""
    incident: str = ""
    """Id of the incident it is about; '' = none."""
    contributors: tuple[Slice, ...] = ()
    """Of the incident: what else breaches below the headline, the worst first; some of it may be in `slices` too."""
    contributing: int = 0
    """How many contributors there are."""
    parts: tuple[Slice, ...] = ()
    """Of a composite rule: the slices of the rules it looks at, with their figures."""
    versions: tuple[str, ...] = ()
    """Versions of the rule's metric by which its listed slices were judged: `v2 (e671cb775810)`."""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_json` gives it back."""
        data = asdict(self)
        data["created_at"] = self.created_at.astimezone(UTC).isoformat()
        data["period"] = self.period.isoformat()
        data["rule"] = self.rule.to_json()
        for one in (*data["slices"], *data["contributors"], *data["parts"]):
            one["since"] = one["since"].isoformat()
        if self.series is not None:
            data["series"]["points"] = [[point.period.isoformat(), *point[1:]] for point in self.series.points]
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Notice:
        """The notice in an outbox payload. Raises `KeyError` or `TypeError` when it is not one."""
        series = data["series"]
        return cls(
            **{
                **data,
                "created_at": datetime.fromisoformat(data["created_at"]),
                "period": datetime.fromisoformat(data["period"]),
                "rule": RuleCard.from_json(data["rule"]),
                "counts": Counts(**data["counts"]),
                "slices": _slices(data["slices"]),
                "mentions": tuple(data.get("mentions", ())),
                "contributors": _slices(data.get("contributors", ())),
                "parts": _slices(data.get("parts", ())),
                "versions": tuple(data.get("versions", ())),
                "series": series
                and Series(
                    **{
                        **series,
                        "points": tuple(Point(datetime.fromisoformat(p[0]), *p[1:]) for p in series["points"]),
                    }
                ),
            }
        )


def _slices(rows: Sequence[Mapping[str, Any]]) -> tuple[Slice, ...]:
    return tuple(Slice(**{**one, "since": datetime.fromisoformat(one["since"])}) for one in rows)


def excess(instance: Instance) -> float:
    """How far beyond its yellow (else red) bound the slice lies, as a share of the bound: orders slices of one rule."""
    bound = instance.yellow_bound if instance.yellow_bound is not None else instance.red_bound
    if bound is None:  # a chance, a rank, an age: what is judged is no value of the metric
        return abs(instance.observed or 0.0)
    if instance.value is None:
        return 0.0
    return abs(instance.value - bound) / (abs(bound) or 1.0)


def severity(instance: Instance) -> tuple[int, float, str]:
    """Sort key, worst first: red before yellow, then the larger excess, then the name."""
    return (-RANK[instance.tier], -excess(instance), instance.key)


def notification_key(
    receiver: str, group: str, *, firing: Sequence[str], ended: Sequence[str], reason: str, sequence: int
) -> str:
    """The unique key of a notification: receiver, group, what fires and what ended, reason and sequence."""
    digest = hashlib.sha256()
    for part in (receiver, group, reason, str(sequence), *sorted(firing), "/", *sorted(ended)):
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def reason_of(*, new: int, escalated: int, known: int, still_known: int) -> NotifyReason:
    """Why a notice is sent: `known` open episodes the receiver was told of before, `still_known` those of them that stay open."""
    if escalated:
        return "escalated"
    if new:
        return "new_alerts" if known else "first"
    return "some_resolved" if still_known else "all_resolved"
