"""Hourly series: what is found of incidents that last hours, at a budget of alerts.

200 series in 8 groups × 10 weeks; the last two weeks are judged. Hours of a day differ by an order of magnitude, nights have few
events; the day's total wanders, sales nobody entered raise a group for three hours.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from metrics_pipeline.detection.baseline import point_surprise
from metrics_pipeline.detection.interface import Calendar, FloatArray, Panel
from metrics_pipeline.detection.tracking import walk

DEVELOPMENT_SEEDS = (21,)
JUDGING_SEEDS = (9201, 9202, 9203)
N_GROUPS, GROUP_SIZE, N_HOURS = 8, 25, 24 * 70
FIRST_JUDGED = 24 * 56
GAP, GRACE = 6, 1
INCIDENTS = 60
_KINDS = (("outage", -0.9, 1, 4), ("drop", -0.5, 2, 8), ("spike", 0.9, 1, 5), ("duplicate_load", 1.0, 1, 2), ("partial_load", -0.6, 1, 2))  # fmt: skip


def make_panel(seed: int, *, null: bool = False) -> tuple[Panel, list[tuple[str, int, int, int]]]:
    """The panel, and (kind, series, first hour, last hour) of every incident of the judged weeks."""
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
    found: list[tuple[str, int, int, int]] = []
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
    noisy = mean * np.exp(random.uniform(0.03, 0.1, n)[:, None] * random.standard_t(5, mean.shape))
    values = random.poisson(noisy).astype(float)
    values[random.random(values.shape) < 0.004] = np.nan
    return Panel(values, hours % 168, group), [one for one in found if one[2] >= FIRST_JUDGED]


def same_hour(panel: Panel) -> FloatArray:
    """The reference: distance to the median of the same hour of the week of eight weeks in MADs (at least √median)."""
    scores = np.full((panel.n_series, N_HOURS - FIRST_JUDGED), np.nan)
    for hour in range(FIRST_JUDGED, N_HOURS):
        same = panel.numerator[:, hour - 168 * 8 : hour : 168]
        middle = np.nanmedian(same, axis=1)
        spread = 1.4826 * np.nanmedian(np.abs(same - middle[:, None]), axis=1)
        scores[:, hour - FIRST_JUDGED] = np.abs(panel.numerator[:, hour] - middle) / np.maximum(
            spread, np.sqrt(middle + 1)
        )
    return scores


def ours(panel: Panel) -> FloatArray:
    """`anomaly()` per hour."""
    return point_surprise(
        panel, walk(panel, Calendar.empty(panel.n_series, N_HOURS), slice(FIRST_JUDGED, N_HOURS))
    ).value


def begins(scores: FloatArray, threshold: float) -> list[tuple[int, int]]:
    """(series, judged hour) of every alert: hours beyond the threshold with at most `GAP` quiet ones between are one."""
    breached = np.nan_to_num(scores, nan=-1) > threshold
    hours = np.arange(scores.shape[1])
    last = np.maximum.accumulate(np.where(breached, hours, -GAP - 2), axis=1)
    before = np.concatenate([np.full((len(scores), 1), -GAP - 2), last[:, :-1]], axis=1)
    rows, at = np.nonzero(breached & (hours - before > GAP + 1))
    return list(zip(rows.tolist(), at.tolist(), strict=True))


def judge(scores: FloatArray, truth: Sequence[tuple[str, int, int, int]], alerts: int) -> tuple[float, float, float]:
    """Precision, recall and F1 with the threshold that gives at most so many alerts."""
    levels = np.unique(scores[np.isfinite(scores)])
    low, high = int(0.9 * len(levels)), len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if len(begins(scores, float(levels[middle]))) > alerts else (low, middle)
    found: set[int] = set()
    made = begins(scores, float(levels[low]))
    for row, hour in made:
        for number, (_, series, start, end) in enumerate(truth):
            if series == row and start <= hour + FIRST_JUDGED <= end + GRACE:
                found.add(number)
    right = len(found)
    return right / max(len(made), 1), right / len(truth), 2 * right / (len(made) + len(truth))


def run(options: Sequence[str] = ()) -> str:
    """The section of the document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality hourly", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(JUDGING_SEEDS))
    given = parser.parse_args(list(options))
    panels = [make_panel(seed) for seed in given.seeds]
    lines = ["| detector | as many alerts as incidents | twice as many |", "| --- | --: | --: |"]
    for name, scores in (("same hour of the week, median/MAD", same_hour), ("**`anomaly()`, per hour**", ours)):
        of = [scores(panel) for panel, _ in panels]
        cells = []
        for times in (1, 2):
            figures = [judge(one, truth, times * len(truth)) for one, (_, truth) in zip(of, panels, strict=True)]
            cells.append(" / ".join(f"{value:.2f}" for value in np.mean(figures, axis=0)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    quiet, _ = make_panel(given.seeds[0], null=True)
    false = len(begins(ours(quiet), float(np.log(24 * 30.4375)))) / quiet.n_series / (14 / 30.4375)
    counts = [len(truth) for _, truth in panels]
    return "\n\n".join(
        [
            "## Hourly panel",
            (
                f"{len(panels)} panels (seeds {', '.join(map(str, given.seeds))}; developed on "
                f"{', '.join(map(str, DEVELOPMENT_SEEDS))}) of {quiet.n_series} hourly series × 10 weeks, the last two judged, "
                f"{min(counts)}–{max(counts)} labelled incidents each (outage, drop, spike, duplicate and partial load of 1–8 hours, "
                "at any hour of the night); precision / recall / F1. `benchmarks/quality/hourly.py` makes them."
            ),
            "\n".join(lines),
            (
                f"On a panel without incidents `anomaly(budget=1/month)` raised {false:.2f} alerts per series and month. Nights with a "
                "handful of events hide short incidents from everybody."
            ),
            f"`python -m benchmarks.quality hourly --seeds {' '.join(map(str, given.seeds))}`",
        ]
    )
