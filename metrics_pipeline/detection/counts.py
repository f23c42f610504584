"""How noisy a value is by its own nature: the least variance of counts, shares and averages.

A small slice moves a lot and nothing happened. The variance is relative, (standard deviation / expectation)², so that
it can be added to what a series shows beyond it (overdispersion): `1/mean + overdispersion²` is the negative binomial
model of counts, `(1 - p)/(d p) + overdispersion²` the beta-binomial one of shares.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from metrics_pipeline.detection.interface import BoolArray

Floats = npt.NDArray[np.floating[Any]]
"""Of either precision."""

LEAST_EVENTS = 0.05
"""Expected events below which the variance no longer grows."""


def relative_noise(expected: Floats, exposure: Floats, is_whole: BoolArray, is_share: BoolArray) -> Floats:
    """(standard deviation / expectation)² of one period, for each series.

    `expected`: of the value, n / d. `exposure`: d (1 for what is no ratio). Shares (n never above d) are binomial, other
    whole numbers Poisson; averages have the noise of d equal observations that vary as much as their mean; an amount
    has no noise of its own here, and its overdispersion is all there is.
    """
    events = np.maximum(expected * exposure, LEAST_EVENTS)
    poisson = np.where(is_share, np.maximum(1 - expected, 0.01), 1.0) / events
    averages = 1 / np.maximum(exposure, LEAST_EVENTS)
    return np.where(is_whole, poisson, np.where(exposure > 1, averages, 0.0))
