"""What the rules need to know of the metric library: which metrics there are and by what they can be sliced.

`metrics_pipeline.library.Catalogue` has this shape; tests and previews hand in smaller ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class MetricInfo(Protocol):
    """One metric, as far as a rule is concerned."""

    @property
    def id(self) -> str: ...

    @property
    def slices(self) -> Sequence[str]:
        """Dimensions its daily values exist for, 'all' included; pairs as 'region|channel'."""
        ...

    @property
    def hour_slices(self) -> Sequence[str]:
        """Dimensions its hourly values exist for; () = no hourly values."""
        ...

    @property
    def grains(self) -> Sequence[str]:
        """'day', 'hour'."""
        ...

    @property
    def direction(self) -> str:
        """Which way is better, in the library's words."""
        ...

    @property
    def unit(self) -> str: ...


class Catalogue(Protocol):
    """The metric library as rules see it."""

    @property
    def metrics(self) -> Mapping[str, MetricInfo]:
        """Metric id → metric; metrics that this installation lacks are in it too."""
        ...


def slices_of(metric: MetricInfo, grain: str) -> Sequence[str]:
    """Dimensions that the metric has values for at this grain."""
    return metric.hour_slices if grain == "hour" else metric.slices
