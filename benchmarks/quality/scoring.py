"""Scores of days → alerts → precision and recall at an alert budget.

The same for every detector: a higher score is a worse day. Days of a series beyond the threshold are one alert while no
more than `GAP` quiet days lie between them. When half of a group's series begin an alert on the same day it is one
alert of the group: the product groups them, too. An alert belongs to an incident when it begins within it (or
`GRACE` days after); only the first alert of an incident is right, every further one and every other one is false. No
point adjustment: a long incident is worth as much as a short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from benchmarks.quality.daily_series import FIRST_JUDGED, Incident, World
from metrics_pipeline.detection.interface import FloatArray, IntArray

GAP = 7
GRACE = 1


@dataclass(frozen=True)
class Found:
    """What a detector found at one threshold."""

    alerts: int
    right: int
    incidents: int
    delays: tuple[int, ...]
    """Days from the first day of each found incident to its alert."""
    false_on_events: int
    found: frozenset[int]
    """Indices of the incidents that were found."""

    @property
    def precision(self) -> float:
        """Alerts that are the first of an incident."""
        return self.right / self.alerts if self.alerts else 0.0

    @property
    def recall(self) -> float:
        """Incidents with an alert."""
        return self.right / self.incidents if self.incidents else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / (self.alerts + self.incidents) if self.alerts + self.incidents else 0.0

    @property
    def event_share(self) -> float:
        """False alarms on days of some event, of all false alarms."""
        false = self.alerts - self.right
        return self.false_on_events / false if false else 0.0

    @property
    def delay(self) -> float:
        """Median, in days."""
        return float(median(self.delays)) if self.delays else float("nan")


def alerts_of(scores: FloatArray, group: IntArray, threshold: float) -> tuple[IntArray, IntArray, IntArray]:
    """Series, judged day and (−1 = of one series) group of every alert; `scores` (n_series, n_days), NaN = not judged."""
    breached = np.nan_to_num(scores, nan=-np.inf) > threshold
    days = np.arange(scores.shape[1])
    last = np.maximum.accumulate(np.where(breached, days, -GAP - 2), axis=1)
    before = np.concatenate([np.full((len(scores), 1), -GAP - 2), last[:, :-1]], axis=1)
    begins = breached & (days - before > GAP + 1)
    n_groups = int(group.max()) + 1
    sizes = np.bincount(group, minlength=n_groups)
    together = np.zeros((n_groups, scores.shape[1]))
    np.add.at(together, group, begins)
    of_group = together >= np.maximum(sizes / 2, 2)[:, None]
    series, day = np.nonzero(begins & ~of_group[group])
    groups, group_day = np.nonzero(of_group)
    return (
        np.concatenate([series, np.full(len(groups), -1)]),
        np.concatenate([day, group_day]),
        np.concatenate([np.full(len(series), -1), groups]),
    )


def judge_at(world: World, scores: FloatArray, threshold: float) -> Found:
    """Compare the alerts at this threshold with the truth of the judged year."""
    group = world.panel.group
    series, days, groups = alerts_of(scores, group, threshold)
    owner = _owner(world)
    seen: dict[int, int] = {}
    right = false_on_events = 0
    for row, day, of_group in sorted(
        zip(series.tolist(), days.tolist(), groups.tolist(), strict=True), key=lambda a: a[1]
    ):
        rows = [row] if of_group < 0 else np.flatnonzero(group == of_group)
        candidates = owner[rows, day]
        number = int(candidates.max())
        if number >= 0 and number not in seen:
            seen[number] = max(day + FIRST_JUDGED - world.incidents[number].start, 0)
            right += 1
        elif world.is_event[rows[0], day + FIRST_JUDGED]:
            false_on_events += 1
    return Found(len(days), right, len(world.incidents), tuple(seen.values()), false_on_events, frozenset(seen))


def threshold_at(world: World, scores: FloatArray, budget: float) -> float:
    """The lowest threshold with at most `budget` alerts a day per 1,000 series."""
    most = budget * scores.shape[1] * len(scores) / 1000
    levels = np.unique(scores[np.isfinite(scores)])
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        count = len(alerts_of(scores, world.panel.group, float(levels[middle]))[0])
        # far below the budget runs grow together and their number falls again: that side is too low as well
        flagged = float(np.mean(scores > levels[middle]))
        if count > most or flagged > 0.05:
            low = middle + 1
        else:
            high = middle
    return float(levels[low])


def at_budget(world: World, scores: FloatArray, budget: float) -> Found:
    """What is found when the detector may send `budget` alerts a day per 1,000 series."""
    return judge_at(world, scores, threshold_at(world, scores, budget))


def strata(world: World, found: Found, key: npt.ArrayLike, edges: Sequence[float]) -> list[tuple[int, int]]:
    """(found, incidents) of each stratum of the incidents' `key`, cut at `edges`."""
    of = np.digitize(np.asarray(key, dtype=float), list(edges))
    hits = np.isin(np.arange(len(world.incidents)), list(found.found))
    return [(int((hits & (of == n)).sum()), int((of == n).sum())) for n in range(len(edges) + 1)]


def _owner(world: World) -> IntArray:
    """(n_series, judged days): number of the incident an alert there belongs to, −1 = none."""
    owner = np.full((world.panel.n_series, world.panel.n_periods - FIRST_JUDGED), -1, dtype=np.int64)
    incident: Incident
    for number, incident in enumerate(world.incidents):
        owner[list(incident.series), incident.start - FIRST_JUDGED : incident.end + GRACE + 1 - FIRST_JUDGED] = number
    return owner
