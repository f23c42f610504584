"""Thresholds for a rule that is not there yet: from the history of the metric, from its target, from the benchmark.

Each draft is a whole rule that lint accepts, with the replay that says when it would have fired. From history: the
distance to the seasonal expectation (`band(seasonal)`) of every slice on every day is ranked; yellow is the bound that alerts
beyond which come about as often a month as was asked for, red the bound for a quarter as often. The bound is found by replay: it is moved until the replay has that many
alerts. Target and benchmark (`vs_target()`, `vs_benchmark()`): the same over the distance to it, and never
so near that the metric is beyond it on more than a tenth of its days. Worse is the side the metric's direction says; a neutral metric
is judged on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from metrics_pipeline.followup.edits import dumped, flow, yaml_of_files
from metrics_pipeline.followup.methods import _rounded
from metrics_pipeline.followup.proposals import Ground
from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.rules.lint import findings
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import Replay, replay, verdict_pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROUNDS: Final = 6
"""Replays by which the bound is moved towards what was asked for."""
NEAREST: Final = {"history": 2.0, "target": 0.01, "benchmark": 0.01}
"""Bounds nearer than these are not drafted: two robust standard deviations, a hundredth off the target."""


@dataclass(frozen=True)
class Draft:
    """A rule that could be added, and what it would have done."""

    source: str
    """history, target or benchmark."""
    rule: Rule
    text: str
    """As it stands in a rule file."""
    replay: Replay
    a_month: float
    """Alerts a month in the replay."""


class DraftError(ValueError):
    """No rule can be drafted; the message says why and what to do."""


def drafts(
    ground: Ground, metric: str, *, by: Sequence[str] = (), a_month: float = 1.0, days: int = 180, name: str = ""
) -> list[Draft]:
    """Drafts for a metric (by a dimension), each with about `a_month` alerts a month over the last `days`.

    Raises `DraftError` when the metric is unknown or has no values for it.
    """
    known = ground.catalogue.metrics.get(metric)
    if known is None:
        raise DraftError(f"there is no metric {metric!r}; `metrics library list` shows them")
    last = ground.last_day(metric)
    first = ground.days_before(last, days)
    found = []
    expressions = (("history", "band(seasonal)"), ("target", "vs_target()"), ("benchmark", "vs_benchmark()"))
    for source, expression in expressions:
        if (draft := _draft(ground, known, tuple(by), source, expression, first, last, a_month, name)) is not None:
            found.append(draft)
    if not found:
        raise DraftError(
            f"{metric} has no values {f'by {chr(124).join(by)} ' if by else ''}from {first} to {last} that a rule could judge; "
            "choose another dimension, or run `metrics backfill` first"
        )
    return found


def _draft(  # noqa: PLR0917
    ground: Ground, metric: Metric, by: tuple[str, ...], source: str, expression: str, first: date, last: date, a_month: float, name: str
) -> Draft | None:  # fmt: skip
    trial = _rule(ground, metric, by, source, expression, _bounds(metric, 1e6, 2e6), name)
    seen = _observed(ground, trial, first, last)
    if len(seen) < 28:
        return None
    ranked = np.sort(_beyond(metric, seen))[::-1]
    months = ((last - first).days + 1) / 30.4
    wanted = a_month * months
    share = 0.1 * len(ranked) if source != "history" else float(len(ranked))
    yellow = _found(ground, metric, by, (source, expression, name), ranked, min(wanted, share), (first, last))
    yellow = max(yellow, NEAREST[source])
    red = max(_at(ranked, wanted / 4), 1.3 * yellow)
    rule = _rule(ground, metric, by, source, expression, _bounds(metric, yellow, _rounded(red, 2)), name)
    if findings(rule, ground.catalogue, ground.seeds):
        return None
    shown = _replayed(ground, rule, first, last)
    return Draft(source, rule, _text(rule), shown, len(shown.episodes) / months)


def _found(  # noqa: PLR0917
    ground: Ground, metric: Metric, by: tuple[str, ...], what: tuple[str, str, str], ranked: NDArray[np.float64], wanted: float,
    span: tuple[date, date],
) -> float:  # fmt: skip
    """The yellow bound with about so many alerts: days that follow each other are one alert, so that ranks alone are too strict."""
    source, expression, name = what
    rank, best = wanted, _at(ranked, wanted)
    for _ in range(ROUNDS):
        bounds = _bounds(metric, best, 1e9)
        count = len(_replayed(ground, _rule(ground, metric, by, source, expression, bounds, name), *span).episodes)
        if count >= wanted * 0.8 or rank >= len(ranked):
            break
        rank = min(rank * max(wanted / max(count, 1), 1.3), len(ranked))
        best = _at(ranked, rank)
    return best


def _at(ranked: NDArray[np.float64], rank: float) -> float:
    """The number that about `rank` of the ranked ones exceed, with two digits."""
    place = min(max(round(rank), 0), len(ranked) - 1)
    return _rounded(max(float(ranked[place]), 0.01), 2)


def _beyond(metric: Metric, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far to the bad side each number is."""
    if metric.direction == "higher_is_better":
        return -seen
    return seen if metric.direction == "lower_is_better" else np.abs(seen)


def _bounds(metric: Metric, yellow: float, red: float) -> tuple[str, str]:
    """Thresholds at these distances to the bad side."""
    word = {"higher_is_better": "< -{:g}", "lower_is_better": "> {:g}"}.get(metric.direction, "outside {:g}")
    return word.format(yellow), word.format(red)


def _rule(  # noqa: PLR0917
    ground: Ground, metric: Metric, by: tuple[str, ...], source: str, expression: str, bounds: tuple[str, str], name: str
) -> Rule:  # fmt: skip
    of = {
        "history": ("what is usual", "正常水平"),
        "target": ("its target", "目标"),
        "benchmark": ("the benchmark", "行业基准"),
    }
    where = f" by {' and '.join(by)}" if by else ""
    en, zh = of[source]
    keys: dict[str, Any] = {
        "alert": name or "_".join([metric.id, "off", source, *(("by", *by) if by else ())]),
        "why": f"{metric.name_en} far from {en} deserves a look.",
        "why_zh": f"{metric.name_zh}明显偏离{zh}，需要关注。",
        "metric": metric.id,
        **({"by": list(by)} if by else {}),
        "expr": expression,
        "yellow_if": bounds[0],
        "red_if": bounds[1],
        "owner": metric.owner,
        "labels": {"scenario": metric.category or metric.id},
        "annotations": {
            "summary": f"{metric.name_en}{where} is far from {en}.",
            "summary_zh": f"{metric.name_zh}明显偏离{zh}。",
        },
    }
    return Rule.model_validate(keys)


def _text(rule: Rule) -> str:
    """The rule as it stands in a file, to be put below `rules:`."""
    keys = rule.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if "expr" in keys:
        keys["expr"] = str(rule.expr).replace("weeks=8, promotions=widen", "").replace("seasonal, )", "seasonal)")
    entry = {
        name: value if name in ("why", "why_zh", "alert", "metric", "expr", "owner", "annotations") else flow(value)
        for name, value in keys.items()
    }
    return dumped(yaml_of_files(), {"rules": [entry]}).removeprefix("rules:\n")


def _observed(ground: Ground, rule: Rule, first: date, last: date) -> NDArray[np.float64]:
    """What the rule observes, of all slices and days; promotion days are judged on their own and are left out."""
    errors: dict[str, str] = {}
    pieces = verdict_pieces(
        ground.published, [rule], first, last + timedelta(days=1), errors=errors,
        promotions=ground.seeds.promotions, references=ground.seeds.references,
    )  # fmt: skip
    parts = [
        np.asarray(table["observed"].to_numpy(zero_copy_only=False), dtype=float)
        for _, table in pieces
        if table.num_rows
    ]
    seen = np.concatenate(parts) if parts else np.empty(0)
    return seen[np.isfinite(seen)]


def _replayed(ground: Ground, rule: Rule, first: date, last: date) -> Replay:
    return replay(
        ground.published, [rule], first, last + timedelta(days=1), promotions=ground.seeds.promotions,
        references=ground.seeds.references, labels=ground.labels,
    )  # fmt: skip
