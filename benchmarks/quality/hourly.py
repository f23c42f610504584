"""Hourly series: what is found of incidents that last hours, at a budget of alerts.

200 series in 8 groups × 10 weeks; the last two weeks are judged. Hours of a day differ by an order of magnitude, nights have few
events; the day's total wanders, sales nobody entered raise a group for three hours. Beside the detectors stands what the same
rule finds that is told the true mean and noise of every hour, which nobody knows: what is left is in the noise.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metrics_pipeline.detection.baseline import point_surprise
from metrics_pipeline.detection.calibration import tails
from metrics_pipeline.detection.drift import drift_surprise
from metrics_pipeline.detection.interface import Calendar, FloatArray, Panel
from metrics_pipeline.detection.tracking import Tuning, Walk, walk

DEVELOPMENT_SEEDS = (21, 22, 23, 24, 25, 26, 27)
JUDGING_SEEDS = (9201, 9202, 9203)
N_GROUPS, GROUP_SIZE, N_HOURS = 8, 25, 24 * 70
FIRST_JUDGED = 24 * 56
GAP, GRACE = 6, 1
INCIDENTS = 60
_KINDS = (("outage", -0.9, 1, 4), ("drop", -0.5, 2, 8), ("spike", 0.9, 1, 5), ("duplicate_load", 1.0, 1, 2), ("partial_load", -0.6, 1, 2))  # fmt: skip


Truth = tuple[str, int, int, int]
"""Kind, series, first hour and last hour of an incident."""


@dataclass(frozen=True)
class World:
    """A panel and its truth."""

    panel: Panel
    truth: tuple[Truth, ...]
    """The incidents of the judged weeks."""
    mean: FloatArray
    """(n_series, n_hours): what is to be expected of every hour without incidents."""
    noise: FloatArray
    """(n_series, 1): standard deviation beyond that of counts, log."""


def make_world(seed: int, *, null: bool = False) -> World:
    """The panel of this seed."""
    random = np.random.default_rng(seed)
    n, hours = N_GROUPS * GROUP_SIZE, np.arange(N_HOURS)
    group = np.repeat(np.arange(N_GROUPS), GROUP_SIZE)
    base = np.exp(random.normal(np.log(60), 1.0, n))[:, None]
    phase = random.uniform(-2, 2, N_GROUPS)[group][:, None]
    daily = 1.05 + np.sin(2 * np.pi * (hours % 24 - 9 - phase) / 24) + 0.25 * np.sin(4 * np.pi * (hours % 24) / 24)
    weekend = 1 + random.normal(0.1, 0.1, n)[:, None] * (hours // 24 % 7 >= 5)
    of_day = np.repeat(np.exp(random.normal(0, 0.05, (N_GROUPS, N_HOURS // 24))), 24, axis=1)[group]
    mean = base * np.maximum(daily, 0.04) * weekend * of_day
    for _ in range(4 * N_GROUPS):
        start = random.integers(0, N_HOURS - 3)
        mean[group == random.integers(N_GROUPS), start : start + 3] *= random.uniform(1.3, 2.2)
    usual = mean.copy()
    found: list[Truth] = []
    taken = np.zeros(mean.shape, dtype=bool)
    while not null and len(found) < INCIDENTS * 5:
        kind, effect, shortest, longest = _KINDS[len(found) % len(_KINDS)]
        row, start = int(random.integers(n)), int(random.integers(48, N_HOURS - 9))
        end = start + int(random.integers(shortest, longest + 1)) - 1
        if taken[row, max(start - 24, 0) : end + 24].any():
            continue
        taken[row, start : end + 1] = True
        mean[row, start : end + 1] *= 1 + effect * random.uniform(0.6, 1.0)
        found.append((kind, row, start, end))
    fat = random.uniform(0.03, 0.1, n)[:, None]
    noisy = mean * np.exp(fat * random.standard_t(5, mean.shape))
    values = random.poisson(noisy).astype(float)
    values[random.random(values.shape) < 0.004] = np.nan
    judged = tuple(one for one in found if one[2] >= FIRST_JUDGED)
    return World(Panel(values, hours % 168, group), judged, usual, fat * (5 / 3) ** 0.5)


def same_hour(world: World) -> FloatArray:
    """The reference: distance to the median of the same hour of the week of eight weeks in MADs (at least √median)."""
    panel = world.panel
    scores = np.full((panel.n_series, N_HOURS - FIRST_JUDGED), np.nan)
    for hour in range(FIRST_JUDGED, N_HOURS):
        same = panel.numerator[:, hour - 168 * 8 : hour : 168]
        middle = np.nanmedian(same, axis=1)
        spread = 1.4826 * np.nanmedian(np.abs(same - middle[:, None]), axis=1)
        scores[:, hour - FIRST_JUDGED] = np.abs(panel.numerator[:, hour] - middle) / np.maximum(
            spread, np.sqrt(middle + 1)
        )
    return scores


def _walked(panel: Panel) -> Walk:
    return walk(panel, Calendar.empty(panel.n_series, N_HOURS), slice(FIRST_JUDGED, N_HOURS))


def point_only(world: World) -> FloatArray:
    """`anomaly()` per hour."""
    return point_surprise(world.panel, _walked(world.panel)).value


def shipped(world: World) -> FloatArray:
    """What `anomaly()` and `anomaly(drift)` per hour say, side by side."""
    seen = _walked(world.panel)
    return np.fmax(point_surprise(world.panel, seen).value, drift_surprise(world.panel, seen).value)


def told_the_truth(world: World) -> FloatArray:
    """The same of deviations from the true mean in units of the true noise: no detector has these."""
    values, mean = world.panel.numerator, world.mean
    z = 2 * (np.sqrt(values + 0.5) - np.sqrt(mean + 0.5)) / np.sqrt(1 + mean * world.noise**2)
    memory = Tuning().streak_memory
    streak = np.zeros_like(z)
    for hour in range(1, N_HOURS):
        step = np.nan_to_num(np.clip(z[:, hour], -4, 4) - streak[:, hour - 1])
        streak[:, hour] = streak[:, hour - 1] + memory * step
    scores = np.full((len(z), N_HOURS - FIRST_JUDGED), np.nan)
    for hour in range(FIRST_JUDGED, N_HOURS):
        both = [tails(one[:, 168:hour], world.panel.group).surprise(one[:, hour]) for one in (z, streak)]
        scores[:, hour - FIRST_JUDGED] = np.maximum(*both)
    return np.where(np.isfinite(values[:, FIRST_JUDGED:]), scores, np.nan)


def begins(scores: FloatArray, threshold: float) -> list[tuple[int, int]]:
    """(series, judged hour) of every alert: hours beyond the threshold with at most `GAP` quiet ones between are one."""
    breached = np.nan_to_num(scores, nan=-1) > threshold
    hours = np.arange(scores.shape[1])
    last = np.maximum.accumulate(np.where(breached, hours, -GAP - 2), axis=1)
    before = np.concatenate([np.full((len(scores), 1), -GAP - 2), last[:, :-1]], axis=1)
    rows, at = np.nonzero(breached & (hours - before > GAP + 1))
    return list(zip(rows.tolist(), at.tolist(), strict=True))


@dataclass(frozen=True)
class Found:
    """What a threshold found."""

    alerts: int
    incidents: int
    found: frozenset[int]
    """Numbers of the incidents that were found."""

    @property
    def figures(self) -> tuple[float, float, float]:
        """Precision, recall and F1."""
        right = len(self.found)
        return right / max(self.alerts, 1), right / self.incidents, 2 * right / (self.alerts + self.incidents)


def judge(scores: FloatArray, truth: Sequence[Truth], alerts: int) -> Found:
    """What is found with the threshold that gives at most so many alerts."""
    levels = np.unique(scores[np.isfinite(scores)])
    low, high = int(0.9 * len(levels)), len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if len(begins(scores, float(levels[middle]))) > alerts else (low, middle)
    made = begins(scores, float(levels[low]))
    found = {
        number
        for row, hour in made
        for number, (_, series, start, end) in enumerate(truth)
        if series == row and start <= hour + FIRST_JUDGED <= end + GRACE
    }
    return Found(len(made), len(truth), frozenset(found))


DETECTORS = {
    "same hour of the week, median/MAD": same_hour,
    "`anomaly()`, per hour": point_only,
    "**`anomaly()` and `anomaly(drift)`, per hour**": shipped,
    "*told the true mean and noise of every hour*": told_the_truth,
}


def run(options: Sequence[str] = ()) -> str:
    """The section of the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality hourly", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(JUDGING_SEEDS))
    given = parser.parse_args(list(options))
    worlds = [make_world(seed) for seed in given.seeds]
    lines = ["| detector | as many alerts as incidents | twice as many |", "| --- | --: | --: |"]
    recall: dict[str, str] = {}
    for name, scores in DETECTORS.items():
        of = [scores(world) for world in worlds]
        cells = []
        for times in (1, 2):
            found = [judge(one, world.truth, times * len(world.truth)) for one, world in zip(of, worlds, strict=True)]
            cells.append(" / ".join(f"{value:.2f}" for value in np.mean([one.figures for one in found], axis=0)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
        recall[name] = _by_kind(worlds, found)
    quiet = [make_world(seed, null=True) for seed in given.seeds]
    threshold = float(np.log(24 * 30.4375))
    months = sum(one.panel.n_series for one in quiet) * 14 / 30.4375
    point, both = (
        sum(len(begins(scores(one), threshold)) for one in quiet) / months for scores in (point_only, shipped)
    )
    counts = [len(world.truth) for world in worlds]
    shown, truth = list(recall)[-2:]
    return "\n\n".join(
        [
            "## Hourly panel",
            (
                f"{len(worlds)} panels (seeds {', '.join(map(str, given.seeds))}; developed on "
                f"{', '.join(map(str, DEVELOPMENT_SEEDS))}) of {worlds[0].panel.n_series} hourly series × 10 weeks, the last two judged, "
                f"{min(counts)}–{max(counts)} labelled incidents each (outage, drop, spike, duplicate and partial load of 1–8 hours, "
                "at any hour of the night); precision / recall / F1. `benchmarks/quality/hourly.py` makes them. The last row is no "
                "detector: it is told the true mean and noise of every hour, and what it does not find is hidden in the noise."
            ),
            "\n".join(lines),
            f"Recall at twice as many, by kind: {recall[shown]}. Told the truth: {recall[truth]}.",
            (
                f"On the panels without incidents `anomaly(budget=1/month)` raised {point:.2f} alerts per series and month, with "
                f"`anomaly(drift, budget=1/month)` beside it {both:.2f}. Nights with a handful of events hide short incidents from everybody."
            ),
            f"`python -m benchmarks.quality hourly --seeds {' '.join(map(str, given.seeds))}`",
        ]
    )


def _by_kind(worlds: Sequence[World], found: Sequence[Found]) -> str:
    all_of = Counter(one[0] for world in worlds for one in world.truth)
    hits = Counter(world.truth[n][0] for world, of in zip(worlds, found, strict=True) for n in of.found)
    share = {kind: hits[kind] / count for kind, count in all_of.items()}
    return ", ".join(f"{kind.replace('_', ' ')} {share[kind]:.2f}" for kind in sorted(share, key=lambda k: -share[k]))
