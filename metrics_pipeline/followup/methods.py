"""Which change of a rule its answers suggest: seven methods, each explainable in a sentence, none of which applies anything.

Given are the answered alerts of one rule (`verdicts.judged_alerts`: what the rule says of each, period by period). No method
gives up an alert that was true. But the next true alert may be weaker than all that were answered: of k true ones, the next is weaker than the weakest with
probability 1 ÷ (k + 1). So a change that goes a share f of the way from where the rule is to the weakest true alert is expected to miss
f · (k + ½) ÷ (k + 1) true alerts in as many answers again, and a missed one counts as much as `MISSED` unneeded ones. Each method
takes the change with the best balance, and proposes none whose balance is not positive, or that does without fewer than two alerts or
less than a fifth of those nobody needed.

- **threshold**: each alert has a strength, the strictest yellow bound at which it would still have fired (with `for: n`
  the best run of n periods counts). The bound goes just beyond one of the unneeded alerts that are weaker than every true one.
- **budget**: the same for a rule with a budget of false alarms (`anomaly(budget=1/month)`): the next smaller one.
- **for**: when every true alert breached for more periods in a row than the rule asks, and unneeded ones did not.
- **min_sample**: when unneeded alerts had smaller samples than every true one.
- **mute**: slices with three or more unneeded alerts and no true one; true ones are taken to be as likely on every slice.
- **promotions**: unneeded alerts on days of the calendar, and no true one on such a day; true ones are taken to be as likely on every day.
- **tier**: three or more red alerts, none of them true, while yellow ones were: yellow only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from metrics_pipeline.followup.answers import WRONG
from metrics_pipeline.rules.expression import Threshold, per_day
from metrics_pipeline.rules.model import Rule

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

Kind = Literal["threshold", "budget", "for", "min_sample", "mute", "promotions", "tier", "calendar", "catch"]
LEAST_ANSWERS: Final = 5
"""Answers below which nothing is proposed."""
MISSED: Final = 20.0
"""How many unneeded alerts a missed true one is worth."""
GAIN: Final = 0.2
"""Share of the unneeded alerts that a change must do without."""
FEWEST: Final = 2
BUDGETS: Final = ("1/week", "2/month", "1/month", "2/quarter", "1/quarter", "2/year", "1/year")
"""Budgets of false alarms that are proposed, from large to small."""
LONGEST: Final = 3
"""`for` is raised by no more than this: each period is a period later."""
BEYOND: Final = 0.1
"""How far beyond the last unneeded alert a bound is put, as a share of the way to the next alert."""


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
    event_days: Mapping[str, float] = field(default_factory=dict)
    """Phase of the calendar → its share of the days that were looked at."""

    @property
    def wrong(self) -> pd.DataFrame:
        return self.alerts[self.alerts["outcome"].isin(WRONG)]

    @property
    def true(self) -> pd.DataFrame:
        return self.alerts[self.alerts["outcome"] == "true"]

    def missed(self, share: float) -> float:
        """True alerts that are expected to be missed in as many answers again, `share` of the way to the weakest one."""
        known = len(self.true)
        return share * (known + 0.5) / (known + 1)

    def spread(self, share: float) -> float:
        """The same of a change that does without a share of slices or days, if true alerts are as likely on each."""
        return share * (len(self.true) + 0.5)

    def balance(self, dropped: int, missed: float) -> float:
        """What a change is worth, in unneeded alerts; −inf for one that does without too few."""
        if dropped < max(FEWEST, GAIN * len(self.wrong)):
            return -math.inf
        return dropped - MISSED * missed

    @property
    def said(self) -> tuple[str, str]:
        """How many answers it rests on, English and Chinese."""
        return (
            f"{len(self.alerts)} answers, {len(self.true)} true",
            f"共 {len(self.alerts)} 条反馈，其中 {len(self.true)} 次真实",
        )


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
    true, wrong = (np.sort(one["strength"].dropna().to_numpy()) for one in (judged.true, judged.wrong))
    weakest = float(true[0]) if len(true) else math.inf
    goal = weakest if len(true) else float(wrong.max(initial=-math.inf))
    if goal <= scale.bound:
        return

    def balance(bound: float) -> float:
        way = (bound - scale.bound) / (goal - scale.bound)
        return judged.balance(int((wrong <= bound).sum()), judged.missed(way))

    weaker = wrong[wrong < weakest]
    best = max((float(one) for one in weaker), key=lambda one: (balance(one), -one), default=None)
    if best is None or balance(best) <= 0:
        return
    if rule.expr.family == "anomaly" and rule.expr.pattern != "completeness":
        yield from _budget(judged, best, weakest, goal)
        return
    next_one = min((float(one) for one in (*wrong, *true) if one > best), default=best + abs(best - scale.bound))
    room = next_one - best
    bound = rounded_between(best + BEYOND * room, best, best + 3 * BEYOND * room)
    if bound is None or bound <= scale.bound:
        return
    yellow = scale.threshold(bound)
    changes: dict[str, Any] = {"yellow_if": str(yellow)}
    if rule.red_if is not None and not rule.red_if.beyond(yellow):
        red = scale_of(rule.red_if)
        if red is None:
            return
        changes["red_if"] = str(red.threshold(_rounded(red.bound * bound / scale.bound, 3)))
    dropped, way = int((wrong <= bound).sum()), (bound - scale.bound) / (goal - scale.bound)
    missed = judged.missed(way)
    kept, kept_zh = "", ""
    if len(true):
        at = scale.threshold(_rounded(weakest, 3))
        kept, kept_zh = f"; the weakest true one fires up to {at}", f"；最弱的真实报警在 {at} 时仍会触发"
    en, zh = judged.said
    yield Suggestion(
        "threshold",
        changes,
        f"{dropped} of {len(wrong)} unneeded alerts lie within {yellow} instead of {rule.yellow_if}{kept} "
        f"({en}; {missed:.2f} true ones expected to be missed in as many again).",
        f"阈值由 {rule.yellow_if} 改为 {yellow}，{len(wrong)} 次不必要的报警中有 {dropped} 次不再触发{kept_zh}"
        f"（{zh}；预计同样数量的反馈中漏掉 {missed:.2f} 次真实报警）。",
        {"bound": scale.bound, "way": way, "missed": missed, "weakest_true": None if math.isinf(weakest) else weakest},
    )


def _budget(judged: Judged, best: float, weakest: float, goal: float) -> Iterator[Suggestion]:
    """Of a rule that has a budget of false alarms: the next smaller one that is beyond `best`.

    Its observed number is 1 where false alarms are as rare as the budget, 2 as red, and grows with their logarithm.
    """
    expr, wrong = judged.rule.expr, judged.wrong["strength"].dropna().to_numpy()
    now, red = per_day(expr.budget), per_day(expr.red_budget)
    for budget in BUDGETS:
        at = 1 + math.log(now / per_day(budget)) / math.log(now / red)
        dropped, missed = int((wrong <= at).sum()), judged.missed((at - 1) / max(goal - 1, 1e-9))
        if at < best or at >= weakest or per_day(budget) <= red or judged.balance(dropped, missed) <= 0:
            continue
        en, zh = judged.said
        yield Suggestion(
            "budget",
            {"expr": str(replace(expr, budget=budget))},
            f"{dropped} of {len(wrong)} unneeded alerts would be within a budget of {budget} instead of {expr.budget} "
            f"({en}; {missed:.2f} true ones expected to be missed in as many again).",
            f"误报预算由 {expr.budget} 改为 {budget}，{len(wrong)} 次不必要的报警中有 {dropped} 次不再触发"
            f"（{zh}；预计漏掉 {missed:.2f} 次）。",
            {"bound": 1.0, "at": at, "missed": missed},
        )
        return


def _for(judged: Judged) -> Iterator[Suggestion]:
    true, wrong, hold = judged.true["run"], judged.wrong["run"], judged.rule.hold
    if true.empty or int(true.min()) <= hold:
        return
    shortest = int(true.min())

    def missed(periods: int) -> float:
        return judged.missed((periods - hold) / (shortest + 1 - hold))

    def balance(periods: int) -> float:
        return judged.balance(int((wrong < periods).sum()), missed(periods))

    best = max(range(hold + 1, min(shortest, hold + LONGEST) + 1), key=lambda n: (balance(n), -n))
    if balance(best) <= 0:
        return
    dropped = int((wrong < best).sum())
    en, zh = judged.said
    yield Suggestion(
        "for",
        {"for": best},
        f"{dropped} of {len(wrong)} unneeded alerts ended before period {best}, and every true one lasted {shortest} or more; "
        f"true ones are told {best - hold} period(s) later ({en}; {missed(best):.2f} true ones expected to be missed in as many again).",
        f"{len(wrong)} 次不必要的报警中有 {dropped} 次不足 {best} 个周期，真实报警均持续 {shortest} 个周期以上；"
        f"真实报警将晚 {best - hold} 个周期通知（{zh}；预计漏掉 {missed(best):.2f} 次）。",
        {"shortest_true": shortest, "later_periods": best - hold, "missed": missed(best)},
    )


def _min_sample(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    true, wrong = judged.true["sample"].dropna().to_numpy(), np.sort(judged.wrong["sample"].dropna().to_numpy())
    if rule.min_sample is None or not len(true) or not len(wrong):
        return
    now, least = rule.min_sample.gte, float(true.min())

    def missed(sample: float) -> float:
        return judged.missed((sample - now) / (least - now))

    smaller = wrong[(wrong < least) & (wrong >= now)]
    best = max(
        (float(one) for one in smaller),
        key=lambda one: (judged.balance(int((wrong <= one).sum()), missed(one)), -one),
        default=None,
    )
    if best is None:
        return
    gte, dropped = math.floor(best) + 1, int((wrong <= best).sum())
    if gte > least or judged.balance(dropped, missed(gte)) <= 0:
        return
    en, zh = judged.said
    yield Suggestion(
        "min_sample",
        {"min_sample": {"metric": rule.min_sample.metric, "gte": gte}},
        f"{dropped} of {len(wrong)} unneeded alerts had fewer than {gte} {rule.min_sample.metric}; every true one had at least "
        f"{least:g} ({en}; {missed(gte):.2f} true ones expected to be missed in as many again).",
        f"{len(wrong)} 次不必要的报警中有 {dropped} 次样本少于 {gte}（{rule.min_sample.metric}），真实报警样本均不少于 {least:g}"
        f"（{zh}；预计漏掉 {missed(gte):.2f} 次）。",
        {"smallest_true": least, "missed": missed(gte)},
    )


def _mute(judged: Judged) -> Iterator[Suggestion]:
    rule = judged.rule
    if not rule.by or judged.true.empty:
        return
    counts = judged.alerts.assign(wrong=judged.alerts["outcome"].isin(WRONG)).groupby("member")["wrong"]
    table = counts.agg(["sum", "size"])
    always = table[(table["sum"] >= 3) & (table["sum"] == table["size"])]
    dropped, missed = int(always["sum"].sum()), judged.spread(len(always) / len(table))
    if always.empty or judged.balance(dropped, missed) <= 0:
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
        f"All {dropped} alerts on {', '.join(members)} were unneeded; elsewhere the rule was right {len(judged.true)} times.",
        f"{'、'.join(members)} 上的 {dropped} 次报警均不必要；其他切片上有 {len(judged.true)} 次真实报警。",
        {"members": members, "missed": missed},
    )


def _promotions(judged: Judged) -> Iterator[Suggestion]:
    rule, alerts = judged.rule, judged.alerts
    on_events = alerts[alerts["event"] != ""]
    for event, some in on_events.groupby("event"):
        wrong = some["outcome"].isin(WRONG)
        missed = judged.spread(judged.event_days.get(str(event), 0.0))
        if event in rule.promotions or not wrong.all() or judged.balance(int(wrong.sum()), missed) <= 0:
            continue
        kept = {name: one.model_dump(mode="json", exclude_unset=True) for name, one in rule.promotions.items()}
        yield Suggestion(
            "promotions",
            {"promotions": {str(event): {"mute": True}, **kept}},
            f"All {len(some)} answered alerts on days of kind {event} were unneeded.",
            f"日历中 {event} 类日期上的 {len(some)} 次报警均不必要。",
            {"event": str(event), "alerts": len(some), "missed": missed},
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


def rounded_between(wanted: float, above: float, below: float) -> float | None:
    """The shortest number near `wanted` that is at least `above` and less than `below`; None when there is none."""
    for digits in range(2, 9):
        found = _rounded(wanted, digits)
        if above <= found < below:
            return found
    return wanted if above <= wanted < below else None


def _rounded(number: float, digits: int = 6) -> float:
    return float(f"{number:.{digits}g}")
