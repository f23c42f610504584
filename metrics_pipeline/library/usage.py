"""Where each metric is used: rules, formulas, forecasts, reports; what is used again and again, and what nobody uses. Pure.

A use is a row of a kind and a name, so that who uses metrics in another way (questions, say) adds a kind and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from metrics_pipeline.library.catalogue import Catalogue

RULE, FORMULA, FORECAST, REPORT = "rule", "formula", "forecast", "report"


class Use(NamedTuple):
    """That something uses a metric."""

    metric: str
    kind: str
    name: str
    """Of the rule, of the metric whose formula names it, of the page."""


@dataclass(frozen=True)
class Usage:
    """Who uses one metric."""

    metric: str
    by_kind: Mapping[str, tuple[str, ...]]
    """Kind of use → names, in the order in which they were given; kinds without a use are left out."""
    downstream: tuple[str, ...]
    """Every metric made of it, directly or not."""
    targets: int
    """Rows of targets and benchmarks."""
    is_unused: bool
    """Nothing uses it, and it is not strategic either."""
    stale_hours: float | None
    """Hours since it was due with new values; None = fresh, absent or never published."""

    @property
    def uses(self) -> int:
        """Everything that uses it."""
        return sum(map(len, self.by_kind.values()))

    def names(self, kind: str) -> tuple[str, ...]:
        """What uses it in this way."""
        return self.by_kind.get(kind, ())

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "uses": self.uses}


@dataclass(frozen=True)
class Reuse:
    """How far one definition serves many."""

    metrics: int
    reused: int
    """Used twice or more."""
    unused: int
    uses: int

    @property
    def rate(self) -> float:
        """Share of the metrics that are used twice or more; 0–1."""
        return self.reused / self.metrics if self.metrics else 0.0


def usage_of(
    catalogue: Catalogue,
    uses: Iterable[Use],
    targets: Mapping[str, int],
    reach: Mapping[str, datetime | None],
    *,
    now: datetime,
) -> list[Usage]:
    """One entry for each metric, in the order of the pyramid.

    `uses`: of every kind but formulas, which the catalogue knows. `targets`: metric → rows of targets and benchmarks.
    `reach`: metric → end of its published values, shop-local, and `now` on the same clock; absent metrics have none.
    """
    found: dict[str, dict[str, dict[str, None]]] = {name: {} for name in catalogue.metrics}
    formulas = (Use(name, FORMULA, user) for name, users in catalogue.downstream.items() for user in users)
    for use in (*uses, *formulas):
        if use.metric in found:
            found[use.metric].setdefault(use.kind, {})[use.name] = None
    return [
        Usage(
            metric=metric.id,
            by_kind={kind: tuple(names) for kind, names in found[metric.id].items()},
            downstream=tuple(catalogue.users(metric.id)),
            targets=targets.get(metric.id, 0),
            is_unused=not (found[metric.id] or metric.layer == "strategic"),
            stale_hours=None if metric.absent else _stale(reach.get(metric.id), metric.freshness_hours, now),
        )
        for metric in catalogue.metrics.values()
    ]


def reuse(found: Sequence[Usage]) -> Reuse:
    """The numbers over all of them."""
    return Reuse(
        metrics=len(found),
        reused=sum(1 for one in found if one.uses > 1),
        unused=sum(1 for one in found if one.is_unused),
        uses=sum(one.uses for one in found),
    )


def _stale(reach: datetime | None, hours: int, now: datetime) -> float | None:
    if reach is None or now - reach <= timedelta(hours=hours):
        return None
    return (now - reach) / timedelta(hours=1) - hours
