"""Incidents that people reported because nobody was told of them, or too late: what each rule said then, and what would have caught them.

A report names a metric, a slice and days. Each rule on that metric and dimension is asked again for these days, and says why it was
silent: the value was within its bounds, did not stay beyond them long enough (`for`), had too small a sample, or was muted. From
that follow changes that *catch more*, one kind (`catch`) beside those of `methods`, which only make rules quieter:

- the value was within bounds, or beyond them too late: a bound just within what was seen, or a larger budget of false alarms;
- it breached for fewer periods than `for` asks: a smaller `for`;
- its sample was too small: a smaller `min_sample`.

A looser rule tells more. Every day on which some slice would have been beyond its bounds for the first time, over the days of the
replay and outside the reports, is taken to be unneeded (days and not alerts: a rule that always fires has one alert); a caught
incident is worth `MISSED` of them, as a missed one costs elsewhere. The change with the best balance is proposed, none when
the balance is not positive. Later proposals that make the rule quieter give up no reported incident.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.followup.methods import MISSED, Suggestion, rounded_between, scale_of
from metrics_pipeline.followup.verdicts import plain, strengths
from metrics_pipeline.rules.expression import Threshold, per_day
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import Label, verdict_pieces
from metrics_pipeline.store.missed import MissedRow
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd

Answer = Literal["told", "late", "weak", "short", "sample", "muted", "unjudged"]
"""What the rule, as it is now, says of the days: told = it alerts on the first day; late = on a later one; weak = within its bounds;
short = beyond them, but not for long enough; sample, muted = beyond them, but not to be told; unjudged = it had no value to judge."""
LARGER_BUDGETS = ("1/year", "2/year", "1/quarter", "2/quarter", "1/month", "2/month", "1/week", "2/week")
MOST_TRIED = 5
"""Changes of one rule that are replayed."""
_COLUMNS = ("rule", "dimension", "member", "period_start", "tier", "observed", "sample", "reason")


@dataclass(frozen=True)
class Asked:
    """What one rule says of one reported incident."""

    rule: Rule
    miss: MissedRow
    answer: Answer
    observed: float | None = None
    """What thresholds judged, at its strongest (of a late one: when it should have been told)."""
    strength: float | None = None
    """The strictest yellow bound at which it would have been told in time, in the terms of `scale_of`."""
    run: int = 0
    """Most breaching periods in a row."""
    sample: float | None = None
    told_at: datetime | None = None
    """The period with which its alert opens, shop-local."""

    def is_caught_by(self, changed: Asked) -> bool:
        """Whether the rule in another form does better: it tells at all, or earlier."""
        if self.answer == "late" and self.told_at is not None:
            return changed.told_at is not None and changed.told_at < self.told_at
        return changed.told_at is not None


def watches(rule: Rule, miss: MissedRow) -> bool:
    """Whether a rule judges the slice of a report by itself."""
    return (
        rule.condition is None
        and rule.expr.family != "freshness"
        and rule.metric == miss.metric
        and rule.dimension == miss.dimension
    )


def ask(
    published: Published,
    rules: Iterable[Rule],
    misses: Sequence[MissedRow],
    *,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
) -> list[Asked]:
    """What the rules that watch these slices say of the days, each as it is now; in the order of the reports."""
    known = [rule for rule in rules if any(watches(rule, miss) for miss in misses)]
    if not known:
        return []

    def verdicts(some: Sequence[Rule]) -> pd.DataFrame:
        return _verdicts(published, some, misses, promotions, references)

    said = verdicts(known)
    found = [_asked(rule, miss, _of(said, rule, miss)) for miss in misses for rule in known if watches(rule, miss)]
    small = {one.rule.id: one.rule for one in found if one.answer == "sample"}
    if not small:
        return found
    # a slice with too small a sample is not judged: the same rule without that condition says whether it would have told
    anyway = verdicts([rule.model_copy(update={"min_sample": None}) for rule in small.values()])
    return [
        _with_sample(one, _of(anyway, one.rule, one.miss), _largest_sample(published, one))
        if one.answer == "sample"
        else one
        for one in found
    ]


def _largest_sample(published: Published, one: Asked) -> float | None:
    assert one.rule.min_sample is not None
    days = [
        datetime(day.year, day.month, day.day) for day in (one.miss.starts_on, one.miss.ends_on + timedelta(days=1))
    ]
    seen = published.series(
        one.rule.min_sample.metric,
        one.miss.dimension,
        one.miss.member,
        grain=one.rule.grain,
        start=days[0],
        until=days[1],
    )
    return _number(seen["value"].max()) if len(seen) else None


def _verdicts(
    published: Published,
    rules: Sequence[Rule],
    misses: Sequence[MissedRow],
    promotions: Sequence[PromotionDay],
    references: Sequence[Reference],
) -> pd.DataFrame:
    """All verdicts of the days of all reports, oldest first."""
    import pandas as pd

    start, until = min(one.starts_on for one in misses), max(one.ends_on for one in misses) + timedelta(days=1)
    pieces = verdict_pieces(published, rules, start, until, errors={}, promotions=promotions, references=references)
    tables = [plain(table.select(_COLUMNS)).to_pandas() for _, table in pieces]
    found: pd.DataFrame = pd.concat(tables, ignore_index=True).sort_values("period_start")
    return found


def _of(said: pd.DataFrame, rule: Rule, miss: MissedRow) -> pd.DataFrame:
    import pandas as pd

    days = pd.Timestamp(miss.starts_on), pd.Timestamp(miss.ends_on) + pd.Timedelta(days=1)
    within = (said["period_start"] >= days[0]) & (said["period_start"] < days[1])
    return said[(said["rule"] == rule.id) & (said["member"] == miss.member) & within]


def _with_sample(one: Asked, rows: pd.DataFrame, sample: float | None) -> Asked:
    """A report whose sample was too small: what the rule would have said otherwise, and how small it was."""
    found = _asked(one.rule, one.miss, rows)
    if found.answer != "told":
        return found
    return replace(found, answer="unjudged" if sample is None else "sample", sample=sample, told_at=None)


def _asked(rule: Rule, miss: MissedRow, rows: pd.DataFrame) -> Asked:
    """`rows`: its verdicts of the slice on the days, oldest first."""
    is_small = (rows["reason"] == "min_sample").to_numpy()
    if is_small.any() and not rows["tier"].isin(("yellow", "red")).any():
        return Asked(rule, miss, "sample")
    judged = rows[rows["observed"].notna()]
    if judged.empty:
        return Asked(rule, miss, "unjudged")
    breaching = judged["tier"].isin(("yellow", "red")).to_numpy()
    strength = strengths(rule, judged).to_numpy(dtype=float)
    runs = _runs(breaching)
    held = np.flatnonzero(runs >= rule.hold)
    periods = judged["period_start"]
    best = int(np.nanargmax(strength)) if np.isfinite(strength).any() else 0
    facts: dict[str, Any] = {
        "observed": float(judged["observed"].iloc[best]),
        "strength": _least_of_best(strength, rule.hold),
        "run": int(runs.max(initial=0)),
    }
    if held.size:
        told = periods.iloc[int(held[0])].to_pydatetime()
        in_time = miss.starts_on + timedelta(days=rule.hold - 1 if rule.grain == "day" else 0)
        if told.date() <= in_time:
            return Asked(rule, miss, "told", told_at=told, **facts)
        early = (periods.dt.date <= in_time).to_numpy()
        facts |= {
            "observed": float(judged["observed"].iloc[0]),
            "strength": _least_of_best(strength[early], rule.hold) if early.any() else None,
        }
        return Asked(rule, miss, "late", told_at=told, **facts)
    return Asked(rule, miss, _silent(rule, judged, facts["run"]), **facts)


def _silent(rule: Rule, judged: pd.DataFrame, run: int) -> Answer:
    """Why a rule that judged the days opened no alert."""
    if run:
        return "short"
    scale = None if rule.yellow_if is None else scale_of(rule.yellow_if)
    raw = None if scale is None else scale.strength(judged["observed"].to_numpy(dtype=float))
    is_muted = scale is not None and raw is not None and float(raw.max()) > scale.bound
    return "muted" if is_muted else "weak"


def _runs(breaching: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Breaching periods in a row that end with each period."""
    runs = np.zeros(len(breaching), dtype=int)
    for at, one in enumerate(breaching):
        runs[at] = (runs[at - 1] if at else 0) + 1 if one else 0
    return runs


def _least_of_best(strength: np.ndarray[Any, Any], hold: int) -> float | None:
    """The strictest bound at which `hold` periods in a row would have breached."""
    windows = [strength[at : at + hold].min() for at in range(len(strength) - hold + 1)]
    known = [float(one) for one in windows if math.isfinite(one)]
    return max(known, default=None)


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)  # noqa: PLR0124


def labels_of(misses: Iterable[MissedRow]) -> tuple[Label, ...]:
    """The reports as known incidents, for replays that count what was found."""
    return tuple(
        Label(
            id=f"reported-{one.id}", kind="reported", scenario="", metrics=(one.metric,), dimension=one.dimension,
            member=one.member, starts_on=one.starts_on, ends_on=one.ends_on,
        )
        for one in misses
    )  # fmt: skip


def as_answers(answers: pd.DataFrame, rules: Iterable[Rule], misses: Sequence[MissedRow]) -> pd.DataFrame:
    """The answers with the reports as true alerts of the rules that watch their slices, so that no method gives them up."""
    import pandas as pd

    rows = [
        {
            "key": f"reported-{miss.id}/{rule.id}",
            "instance": f"{rule.id}{{{miss.dimension}={miss.member}}}",
            "rule": rule.id,
            "dimension": miss.dimension,
            "member": miss.member,
            "first_period": pd.Timestamp(miss.starts_on),
            "last_period": pd.Timestamp(miss.ends_on) + pd.Timedelta(hours=23 if rule.grain == "hour" else 0),
            "worst_tier": "red",
            "outcome": "true",
        }
        for rule in rules
        for miss in misses
        if watches(rule, miss)
    ]
    return pd.concat([answers, pd.DataFrame(rows)], ignore_index=True) if rows else answers


@dataclass(frozen=True)
class Candidate:
    """A change of a rule that would have caught some reports."""

    changes: Mapping[str, Any]
    caught: tuple[Asked, ...]

    @property
    def rule(self) -> Rule:
        return self.caught[0].rule


Tried = Callable[[Candidate], int | None]
"""Days of slices beyond their bounds that a change adds over the replay (`days_added`); None when it cannot be made, or when the
rule with it would have done no better on every report."""


def days_added(
    published: Published,
    before: Rule,
    after: Rule,
    misses: Iterable[MissedRow],
    *,
    first: date,
    last: date,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
) -> int:
    """Days of slices that breach by the one form of a rule and not by the other, outside the reports on its slices."""

    def breaching(rule: Rule) -> set[tuple[str, date]]:
        until = last + timedelta(days=1)
        pieces = verdict_pieces(
            published, [rule], first, until, errors={}, promotions=promotions, references=references
        )
        tables = [plain(table.select(_COLUMNS)).to_pandas() for _, table in pieces]
        found: set[tuple[str, date]] = set()
        for table in tables:
            beyond = table[table["tier"].isin(("yellow", "red"))]
            found |= set(zip(beyond["member"], beyond["period_start"].dt.date, strict=True))
        return found

    reported = {
        (one.member, one.starts_on + timedelta(days=n))
        for one in misses
        if watches(before, one)
        for n in range((one.ends_on - one.starts_on).days + 1)
    }
    return len(breaching(after) - breaching(before) - reported)


def catching(asked: Sequence[Asked], tried: Tried) -> dict[str, list[Suggestion]]:
    """Rule → the change that catches reported incidents at the best balance, when that is positive."""
    by_rule: dict[str, list[Asked]] = {}
    for one in asked:
        by_rule.setdefault(one.rule.id, []).append(one)
    found: dict[str, list[Suggestion]] = {}
    for name, some in by_rule.items():
        if any(one.answer == "told" for one in some) and all(
            one.answer in ("told", "muted", "unjudged") for one in some
        ):
            continue
        best: tuple[float, Suggestion] | None = None
        for candidate in candidates(some)[:MOST_TRIED]:
            added = tried(candidate)
            if added is None:
                continue
            balance = MISSED * len(candidate.caught) - added
            if balance > 0 and (best is None or balance > best[0]):
                best = balance, _suggestion(some[0].rule, candidate, added)
        if best is not None:
            found[name] = [best[1]]
    return found


def candidates(asked: Sequence[Asked]) -> list[Candidate]:
    """Changes of one rule, those that catch the most first."""
    rule = asked[0].rule
    found = [*_bounds(rule, asked), *_shorter(rule, asked), *_samples(rule, asked)]
    return sorted(found, key=lambda one: -len(one.caught))


def _bounds(rule: Rule, asked: Sequence[Asked]) -> list[Candidate]:
    scale = None if rule.yellow_if is None else scale_of(rule.yellow_if)
    known = [one for one in asked if one.answer in ("weak", "late") and one.strength is not None]
    if scale is None or rule.yellow_if is None:
        return []
    if rule.expr.family == "anomaly" and rule.expr.pattern != "completeness":
        return _budgets(rule, known)
    found = []
    for at in sorted({float(one.strength or 0.0) for one in known}):
        room = scale.bound - at
        is_reached = rule.yellow_if.operator in (">=", "<=")  # the bound itself breaches
        bound = at if is_reached and at == _short(at) else rounded_between(at - 0.1 * room, at - 0.3 * room, at)
        if room <= 0 or bound is None or (scale.bound > 0 >= bound):
            continue
        yellow = scale.threshold(bound)
        changes: dict[str, Any] = {"yellow_if": str(yellow)}
        recovery = rule.recover_if.yellow
        if recovery is not None and not recovery.recovers(yellow):
            changes["recover_if"] = _recovery(rule, recovery, bound / scale.bound)
        found.append(Candidate(changes, tuple(one for one in known if (one.strength or 0.0) >= at)))
    return found


def _recovery(rule: Rule, recovery: Threshold, ratio: float) -> dict[str, str]:
    """Recovery as far within the new bound as it was within the former."""
    moved = replace(recovery, low=_short(recovery.low * ratio), high=_short(recovery.high * ratio))
    red = rule.recover_if.red
    return {"yellow": str(moved)} | ({} if red is None else {"red": str(red)})


def _short(number: float) -> float:
    return float(f"{number:.3g}")


def _budgets(rule: Rule, known: Sequence[Asked]) -> list[Candidate]:
    expr = rule.expr
    now, red = per_day(expr.budget), per_day(expr.red_budget)
    found: list[Candidate] = []
    for budget in LARGER_BUDGETS:
        if per_day(budget) <= now:
            continue
        at = 1 + math.log(now / per_day(budget)) / math.log(now / red)
        caught = tuple(one for one in known if (one.strength or 0.0) > at)
        if caught and (not found or len(caught) > len(found[-1].caught)):
            found.append(Candidate({"expr": str(replace(expr, budget=budget))}, caught))
    return found


def _shorter(rule: Rule, asked: Sequence[Asked]) -> list[Candidate]:
    short = [one for one in asked if one.answer == "short"]
    return [
        Candidate({"for": periods}, tuple(one for one in short if one.run >= periods))
        for periods in sorted({one.run for one in short if 1 <= one.run < rule.hold}, reverse=True)
    ]


def _samples(rule: Rule, asked: Sequence[Asked]) -> list[Candidate]:
    small = [one for one in asked if one.answer == "sample" and one.sample is not None]
    if rule.min_sample is None:
        return []
    return [
        Candidate(
            {"min_sample": {"metric": rule.min_sample.metric, "gte": math.floor(at)}},
            tuple(one for one in small if (one.sample or 0.0) >= at),
        )
        for at in sorted({float(one.sample or 0.0) for one in small}, reverse=True)
        if math.floor(at) < rule.min_sample.gte
    ]


def _suggestion(rule: Rule, candidate: Candidate, added: int) -> Suggestion:
    days = ", ".join(f"{one.miss.starts_on} ({one.miss.member})" for one in candidate.caught)
    late = sum(one.answer == "late" for one in candidate.caught)
    count = len(candidate.caught)
    what = ", ".join(f"{name}: {value}" for name, value in candidate.changes.items())
    return Suggestion(
        "catch",
        candidate.changes,
        f"{count} reported incident{'s' if count > 1 else ''} of which nobody was told{' in time' if late else ''} ({days}) would "
        f"have been told{', or earlier,' if late else ''} with {what}, and {added} more days on which a slice would have been beyond its bounds in the replay.",
        f"有人反馈的 {count} 次漏报{'或晚报' if late else ''}（{days}）在 {what} 时会{'更早' if late else ''}报警；回放期内另增 {added} 个超阈值的切片日。",
        {"reported": [one.miss.id for one in candidate.caught], "added": added, "rule": rule.id},
    )


def why(asked: Asked, locale: str) -> str:
    """Why a rule was silent, or when it told, in a sentence."""
    zh, en = _WHY[asked.answer]
    rule = asked.rule
    return (zh if locale == "zh" else en).format(
        at="" if asked.told_at is None else f"{asked.told_at:%Y-%m-%d %H:%M}",
        seen="–" if asked.observed is None else f"{asked.observed:.4g}",
        bound=rule.yellow_if or rule.red_if,
        run=asked.run,
        hold=rule.hold,
        sample="–" if asked.sample is None else f"{asked.sample:g}",
        least="–" if rule.min_sample is None else f"{rule.min_sample.gte:g}",
    )


_WHY: Mapping[Answer, tuple[str, str]] = {
    "told": ("当天会报警（{at}）", "alerts with {at}"),
    "late": (
        "{at} 才报警；首日为 {seen}，阈值 {bound}",
        "alerts only with {at}; the first day was {seen}, the threshold is {bound}",
    ),
    "weak": ("未过阈值：最强 {seen}，阈值 {bound}", "within its bounds: {seen} at most, the threshold is {bound}"),
    "short": (
        "过阈值 {run} 个周期，规则要求连续 {hold} 个",
        "beyond them for {run} period(s), the rule asks for {hold} in a row",
    ),
    "sample": ("样本过小：{sample}，至少 {least}", "too small a sample: {sample}, at least {least} is asked for"),
    "muted": ("过阈值，但当天被静音或变化量过小", "beyond them, but muted on the day, or the change was too small"),
    "unjudged": ("这些天没有可判断的值", "it had no value to judge on these days"),
}
