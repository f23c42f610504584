"""Which change of a rule its answers suggest: five methods, each explainable in a sentence, none of which applies anything.

Given are the answered alerts of one rule (`judged.Judged`: the verdicts of each, period by period). What is never given up
is an alert that was true: a method proposes nothing rather than lose one. At least `least` answers are needed, and a change
must do without at least two alerts and a fifth of those nobody needed.

- **threshold**: each alert has a strength, the strictest yellow bound at which it would still have fired (with `for: n`
  the best run of n periods counts). The bound moves towards the middle between the strongest unneeded alert that is weaker
  than every true one and the weakest true one; with m answers it goes m ÷ (m + 4) of the way (shrinkage towards the bound
  that people chose). Without any true alert the goal is the strength that four in five unneeded ones do not pass.
- **for**: when every true alert breached for more periods in a row than the rule asks, and unneeded ones did not.
- **min_sample**: when unneeded alerts had smaller samples than every true one; the same way towards the middle.
- **mute**: slices with three or more unneeded alerts and no true one, while the rule was right elsewhere.
- **promotions**: two or more unneeded alerts on days of the calendar, and no true one on such a day.
- **tier**: three or more red alerts, none of them true, while yellow ones were: yellow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from metrics_pipeline.followup.answers import WRONG
from metrics_pipeline.rules.expression import Threshold
from metrics_pipeline.rules.model import Rule

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Kind = Literal["threshold", "for", "min_sample", "mute", "promotions", "tier", "calendar"]
LEAST_ANSWERS: Final = 5
"""Answers below which nothing is proposed."""
PRIOR: Final = 4.0
"""How many answers the present bound is worth."""
GAIN: Final = 0.2
"""Share of the unneeded alerts that a change must do without."""
FEWEST: Final = 2
LONGEST: Final = 3
"""`for` is raised by no more than this: each period is a period later."""


@dataclass(frozen=True)
class Suggestion:
    """A change of one rule, and why."""

    kind: Kind
    changes: Mapping[str, Any]
    """Key of the rule file → its value; None takes it away."""
    why: str
    why_zh: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The numbers it was made from."""


@dataclass(frozen=True)
class Judged:
    """The answered alerts of one rule.

    `alerts`: one row each, with `key, dimension, member, outcome, worst_tier, strength, run, sample, event`; `strength` is in the
    terms of `scale_of`, `run` the most breaching periods in a row, `sample` the smallest sample of a breach, `event` the kind of day in the
    calendar of its first period ("" = an ordinary day).
    """

    rule: Rule
    alerts: pd.DataFrame

    @property
    def wrong(self) -> pd.DataFrame:
        return self.alerts[self.alerts["outcome"].isin(WRONG)]

    @property
    def true(self) -> pd.DataFrame:
        return self.alerts[self.alerts["outcome"] == "true"]

    def is_worth(self, dropped: int) -> bool:
        """Whether doing without so many unneeded alerts is worth a change."""
        return dropped >= max(FEWEST, GAIN * len(self.wrong))


@dataclass(frozen=True)
class Scale:
    """How far beyond a threshold a number is, as one growing number, and the threshold at such a number."""

    bound: float
    """Of the threshold itself."""
    strength: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    threshold: Callable[[float], Threshold]


def scale_of(threshold: Threshold) -> Scale | None:
    """The scale of a threshold; None for one that has none (a range that does not enclose zero)."""
    op, low, high = threshold.operator, threshold.low, threshold.high
    match threshold.side:
        case "up":
            return Scale(high, lambda seen: seen, lambda at: Threshold(op, at, at))
        case "down":
            return Scale(-low, lambda seen: -seen, lambda at: Threshold(op, -at, -at))
        case "both" if low < 0 < high:
            return Scale(
                1.0,
                lambda seen: np.maximum(seen / high, seen / low),
                lambda at: Threshold(op, _rounded(low * at), _rounded(high * at)),
            )
    return None


def suggestions(judged: Judged, *, least: int = LEAST_ANSWERS) -> list[Suggestion]:
    """All changes that the answers suggest, in the order of the methods; () with fewer than `least` answers."""
    if len(judged.alerts) < least or judged.wrong.empty:
        return []
    return [found for method in METHODS for found in method(judged)]


def _threshold(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    scale = None if rule.yellow_if is None else scale_of(rule.yellow_if)
    if scale is None:
        return
    true = judged.true["strength"].dropna().to_numpy()
    wrong = np.sort(judged.wrong["strength"].dropna().to_numpy())
    goal = _goal(wrong, true, scale.bound)
    if goal is None:
        return
    weight = len(judged.alerts) / (len(judged.alerts) + PRIOR)
    bound = scale.bound + weight * (goal - scale.bound)
    weakest = float(true.min()) if len(true) else math.inf
    dropped = int((wrong <= bound).sum())
    if not judged.is_worth(dropped):
        return
    passed = float(wrong[wrong <= bound].max())
    short = _between(bound, passed, weakest)
    if short is None or short <= scale.bound:
        return
    bound = short
    yellow = scale.threshold(bound)
    changes: dict[str, Any] = {"yellow_if": str(yellow)}
    if rule.red_if is not None and not rule.red_if.beyond(yellow):
        red = scale_of(rule.red_if)
        if red is None:
            return
        changes["red_if"] = str(red.threshold(_rounded(red.bound * bound / scale.bound, 3)))
    kept = (
        ""
        if math.isinf(weakest)
        else f"; the weakest true one would still fire up to {scale.threshold(_rounded(weakest, 3))}"
    )
    kept_zh = "" if math.isinf(weakest) else f"；最弱的真实报警在 {scale.threshold(_rounded(weakest, 3))} 时仍会触发"
    yield Suggestion(
        "threshold",
        changes,
        f"{dropped} of {len(wrong)} unneeded alerts lie within {yellow} instead of {rule.yellow_if}{kept} "
        f"({len(judged.alerts)} answers move the bound {weight:.0%} of the way).",
        f"阈值由 {rule.yellow_if} 改为 {yellow}，{len(wrong)} 次不必要的报警中有 {dropped} 次不再触发{kept_zh}"
        f"（{len(judged.alerts)} 条反馈，按 {weight:.0%} 的幅度移动）。",
        {"bound": scale.bound, "goal": goal, "weight": weight, "weakest_true": None if math.isinf(weakest) else weakest},
    )  # fmt: skip


def _goal(wrong: NDArray[np.float64], true: NDArray[np.float64], bound: float) -> float | None:
    """Where the bound should go if the answers were all there is; None when they tell nothing apart."""
    if not len(wrong):
        return None
    if not len(true):
        return float(np.quantile(wrong, 0.8, method="lower")) + 0.05 * abs(bound)
    weakest = float(true.min())
    weaker = wrong[wrong < weakest]
    return None if not len(weaker) else (float(weaker.max()) + weakest) / 2


def _for(judged: Judged) -> Iterator[Suggestion]:
    true, wrong, hold = judged.true["run"], judged.wrong["run"], judged.rule.hold
    if true.empty or int(true.min()) <= hold:
        return
    longest = min(int(true.min()), hold + LONGEST)
    fits = [n for n in range(hold + 1, longest + 1) if judged.is_worth(int((wrong < n).sum()))]
    if not fits:
        return
    best = min(fits, key=lambda n: (-int((wrong < n).sum()), n))
    dropped = int((wrong < best).sum())
    yield Suggestion(
        "for",
        {"for": best},
        f"{dropped} of {len(wrong)} unneeded alerts ended before period {best}, and every true one lasted {int(true.min())} or more; "
        f"true ones are told {best - hold} period(s) later.",
        f"{len(wrong)} 次不必要的报警中有 {dropped} 次不足 {best} 个周期，真实报警均持续 {int(true.min())} 个周期以上；"
        f"真实报警将晚 {best - hold} 个周期通知。",
        {"shortest_true": int(true.min()), "later_periods": best - hold},
    )


def _min_sample(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    true, wrong = judged.true["sample"].dropna().to_numpy(), judged.wrong["sample"].dropna().to_numpy()
    if rule.min_sample is None or not len(true) or not len(wrong):
        return
    now, least = rule.min_sample.gte, float(true.min())
    smaller = wrong[wrong < least]
    if not len(smaller):
        return
    weight = len(judged.alerts) / (len(judged.alerts) + PRIOR)
    goal = (float(smaller.max()) + least) / 2
    gte = math.ceil(now + weight * (goal - now))
    dropped = int((wrong < gte).sum())
    if gte <= now or gte > least or not judged.is_worth(dropped):
        return
    yield Suggestion(
        "min_sample",
        {"min_sample": {"metric": rule.min_sample.metric, "gte": gte}},
        f"{dropped} of {len(wrong)} unneeded alerts had fewer than {gte} {rule.min_sample.metric}; every true one had at least {least:g}.",
        f"{len(wrong)} 次不必要的报警中有 {dropped} 次样本少于 {gte}（{rule.min_sample.metric}），真实报警样本均不少于 {least:g}。",
        {"smallest_true": least, "goal": goal, "weight": weight},
    )


def _mute(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    if not rule.by or judged.true.empty:
        return
    counts = judged.alerts.assign(wrong=judged.alerts["outcome"].isin(WRONG)).groupby("member")["wrong"]
    table = counts.agg(["sum", "size"])
    always = table[(table["sum"] >= 3) & (table["sum"] == table["size"])]
    if always.empty or len(always) == len(table) or not judged.is_worth(int(always["sum"].sum())):
        return
    members = sorted(str(one) for one in always.index)
    muted = [
        {"where": dict(zip(rule.by, one.split("|") if len(rule.by) > 1 else [one], strict=True)), "mute": True}
        for one in members
    ]
    kept = [one.model_dump(mode="json", exclude_unset=True) for one in rule.overrides]
    yield Suggestion(
        "mute",
        {"overrides": [*muted, *kept]},
        f"All {int(always['sum'].sum())} alerts on {', '.join(members)} were unneeded; elsewhere the rule was right {len(judged.true)} times.",
        f"{'、'.join(members)} 上的 {int(always['sum'].sum())} 次报警均不必要；其他切片上有 {len(judged.true)} 次真实报警。",
        {"members": members},
    )


def _promotions(judged: Judged) -> Iterator[Suggestion]:
    rule, alerts = judged.rule, judged.alerts
    on_events = alerts[alerts["event"] != ""]
    for event, some in on_events.groupby("event"):
        wrong = some["outcome"].isin(WRONG)
        if event in rule.promotions or not wrong.all() or not judged.is_worth(int(wrong.sum())):
            continue
        kept = {name: one.model_dump(mode="json", exclude_unset=True) for name, one in rule.promotions.items()}
        yield Suggestion(
            "promotions",
            {"promotions": {str(event): {"mute": True}, **kept}},
            f"All {len(some)} answered alerts on days of kind {event} were unneeded.",
            f"日历中 {event} 类日期上的 {len(some)} 次报警均不必要。",
            {"event": str(event), "alerts": len(some)},
        )


def _tier(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    if rule.red_if is None or rule.yellow_if is None:
        return
    red = judged.alerts[judged.alerts["worst_tier"] == "red"]
    if len(red) < 3 or (red["outcome"] == "true").any() or judged.true.empty:
        return
    yield Suggestion(
        "tier",
        {"red_if": None, **({"recover_if": _yellow_only(rule)} if rule.recover_if.red is not None else {})},
        f"None of {len(red)} red alerts was true: nobody needs to be woken by this rule.",
        f"{len(red)} 次红色报警无一真实，该规则无需升级为红色。",
        {"reds": len(red)},
    )


def _yellow_only(rule: Rule) -> dict[str, str] | None:
    return None if rule.recover_if.yellow is None else {"yellow": str(rule.recover_if.yellow)}


METHODS: Final[tuple[Callable[[Judged], Iterator[Suggestion]], ...]] = (
    _threshold, _for, _min_sample, _mute, _promotions, _tier,
)  # fmt: skip


def _between(wanted: float, above: float, below: float) -> float | None:
    """The shortest number near `wanted` that is at least `above` and less than `below`; None when there is none."""
    for digits in range(2, 9):
        found = _rounded(wanted, digits)
        if above <= found < below:
            return found
    return wanted if above <= wanted < below else None


def _rounded(number: float, digits: int = 6) -> float:
    return float(f"{number:.{digits}g}")
