"""Where each metric is used: other metrics, rules, targets; what is used again and again, and what nobody uses. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from metrics_pipeline.library.catalogue import Catalogue


@dataclass(frozen=True)
class Usage:
    """Who uses one metric."""

    metric: str
    rules: tuple[str, ...]
    """Rules that judge it, or look at it as a sample."""
    direct: tuple[str, ...]
    """Metrics whose formula names it."""
    downstream: tuple[str, ...]
    """Every metric made of it, directly or not."""
    targets: int
    """Rows of targets and benchmarks."""
    is_unused: bool
    """No rule, no metric and no report needs it: it is not strategic either."""
    stale_hours: float | None
    """Hours since it was due with new values; None = fresh, absent or never published."""

    @property
    def uses(self) -> int:
        """Rules and formulas that use it."""
        return len(self.rules) + len(self.direct)

    def as_json(self) -> dict[str, Any]:
        return {**self.__dict__, "uses": self.uses}


@dataclass(frozen=True)
class Reuse:
    """How far one definition serves many."""

    metrics: int
    reused: int
    """Used by two or more rules and formulas."""
    unused: int
    uses: int

    @property
    def rate(self) -> float:
        """Share of the metrics that are used twice or more; 0–1."""
        return self.reused / self.metrics if self.metrics else 0.0


def usage_of(
    catalogue: Catalogue,
    rules: Mapping[str, Sequence[str]],
    targets: Mapping[str, int],
    reach: Mapping[str, datetime | None],
    *,
    now: datetime,
) -> list[Usage]:
    """One entry for each metric, in the order of the pyramid.

    `rules`: metric → ids of the rules that look at it. `targets`: metric → rows of targets and benchmarks. `reach`:
    metric → end of its published values, shop-local, and `now` on the same clock; absent metrics have none.
    """
    return [
        Usage(
            metric=metric.id,
            rules=tuple(rules.get(metric.id, ())),
            direct=catalogue.downstream[metric.id],
            downstream=tuple(catalogue.users(metric.id)),
            targets=targets.get(metric.id, 0),
            is_unused=not (rules.get(metric.id) or catalogue.downstream[metric.id] or metric.layer == "strategic"),
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
