"""What a changed rule would have said: both rules over the same days by the replay of `metrics rules replay`, compared.

An alert of the replay has the answer of the alert that was told on the same slice at the same time, if there was one: of several,
a true one counts before one that was not needed. Alerts of the replay that nobody was told (or answered) have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.followup.answers import ANSWERED
from metrics_pipeline.rules.composite import with_parts
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import Label, Replay, replay
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd

MOST_LISTED = 50
_ORDER = ("true", "expected", "false", "unanswered")


@dataclass(frozen=True)
class Outcome:
    """What one form of a rule would have done. `true`, `false`, `expected`, `unanswered`: alerts by what people said."""

    episodes: int
    red: int
    messages: int
    episodes_a_week: float
    true: int
    false: int
    expected: int
    unanswered: int
    incidents: int | None = None
    """Labelled incidents it was asked for; None without labels."""
    found: int | None = None
    true_episodes: int | None = None
    """Episodes that belong to a labelled incident."""
    delay_days: float | None = None
    """Median from the first day of a labelled incident to its alert."""

    @property
    def unneeded(self) -> int:
        """Alerts that people said they did not need."""
        return self.false + self.expected

    @property
    def recall(self) -> float | None:
        return None if not self.incidents or self.found is None else self.found / self.incidents


@dataclass(frozen=True)
class Impact:
    """Before and after over [first, last], shop-local."""

    first: date
    last: date
    before: Outcome
    after: Outcome
    weeks: tuple[tuple[str, int, int], ...]
    """Monday, episodes before, episodes after."""
    dropped: tuple[dict[str, Any], ...] = field(default=())
    """Alerts that would not have been: fired, member, tier, outcome; at most 50, the newest."""
    added: tuple[dict[str, Any], ...] = field(default=())
    """Alerts that were not, and would have been."""

    def as_json(self) -> dict[str, Any]:
        """Plain values; days as ISO text."""
        return {
            "first": self.first.isoformat(),
            "last": self.last.isoformat(),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "weeks": [list(one) for one in self.weeks],
            "dropped": list(self.dropped),
            "added": list(self.added),
        }


def compare(
    published: Published,
    pairs: Sequence[tuple[Rule, Rule]],
    answers: pd.DataFrame,
    *,
    first: date,
    last: date,
    rules: Sequence[Rule] = (),
    promotions: Sequence[PromotionDay] = (),
    promotions_after: Sequence[PromotionDay] | None = None,
    references: Sequence[Reference] = (),
    labels: Sequence[Label] = (),
) -> list[Impact]:
    """Replay both forms of each rule (before, after) over the days `first` to `last`; one impact per pair, in their order.

    All rules are replayed together: once as they are, and as often again as there are changes of one and the same rule.
    `answers`: of `read_answers`; `rules`: where composite rules find their parts; `promotions_after`: the calendar as it would be.
    """

    def run(some: Sequence[Rule], calendar: Sequence[PromotionDay]) -> Replay:
        own = {one.id for one in some}
        chosen = with_parts(some, [*some, *(one for one in rules if one.id not in own)])
        return replay(
            published,
            chosen,
            first,
            last + timedelta(days=1),
            promotions=calendar,
            references=references,
            labels=labels,
        )

    if not pairs:
        return []
    old = run([*{before.id: before for before, _ in pairs}.values()], promotions)
    found: dict[int, Impact] = {}
    for some in _rounds([before.id for before, _ in pairs]):
        new = run([pairs[n][1] for n in some], promotions if promotions_after is None else promotions_after)
        found |= {n: _impact(old, new, pairs[n][0].id, answers, (first, last)) for n in some}
    return [found[n] for n in range(len(pairs))]


def _rounds(ids: Sequence[str]) -> list[list[int]]:
    """Positions in as few groups as it takes for no id to be twice in one."""
    rounds: list[list[int]] = []
    for n, name in enumerate(ids):
        place = sum(other == name for other in ids[:n])
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(n)
    return rounds


def _impact(old: Replay, new: Replay, rule: str, answers: pd.DataFrame, span: tuple[date, date]) -> Impact:
    frames = [_answered(one, rule, answers) for one in (old, new)]
    weeks = {f"{monday}": [of_week.get(rule, 0), 0] for monday, of_week in old.weeks}
    for monday, of_week in new.weeks:
        weeks[f"{monday}"][1] = of_week.get(rule, 0)
    return Impact(
        *span,
        _outcome(old, rule, frames[0]),
        _outcome(new, rule, frames[1]),
        tuple((monday, counts[0], counts[1]) for monday, counts in weeks.items()),
        _missing(frames[0], frames[1]),
        _missing(frames[1], frames[0]),
    )


def _answered(found: Replay, rule: str, answers: pd.DataFrame) -> pd.DataFrame:
    """The replay's alerts of a rule, with what was said of them."""
    import pandas as pd

    columns = ["dimension", "member", "fired_at", "first_breach", "last_breach", "tier"]
    alerts = found.episode_frame()
    if alerts.empty or not (alerts["rule"] == rule).any():
        return pd.DataFrame({name: pd.Series(dtype=object) for name in [*columns, "outcome"]})
    alerts = alerts.loc[alerts["rule"] == rule, columns].reset_index(drop=True)
    alerts["number"] = alerts.index
    said = answers.loc[
        (answers["rule"] == rule) & answers["outcome"].isin(ANSWERED),
        ["dimension", "member", "first_period", "last_period", "outcome"],
    ]
    met = alerts.merge(said, on=["dimension", "member"])
    met = met[(met["first_period"] <= met["last_breach"]) & (met["last_period"] >= met["first_breach"])]
    rank = met["outcome"].map({name: n for n, name in enumerate(_ORDER)})
    best = met.assign(rank=rank).sort_values("rank").drop_duplicates("number").set_index("number")["outcome"]
    return alerts.assign(outcome=alerts["number"].map(best).fillna("unanswered")).drop(columns="number")


def _outcome(found: Replay, rule: str, alerts: pd.DataFrame) -> Outcome:
    of_rule = next(one for one in found.rules if one.rule == rule)
    score = next((one for one in found.scores if one.by == "rule" and one.name == rule), None)
    counts = alerts["outcome"].value_counts()
    return Outcome(
        episodes=of_rule.episodes,
        red=int((alerts["tier"] == "red").sum()),
        messages=of_rule.messages,
        episodes_a_week=round(of_rule.firings_per_week, 3),
        **{name: int(counts.get(name, 0)) for name in ("true", "false", "expected", "unanswered")},
        incidents=None if score is None else score.incidents,
        found=None if score is None else score.found,
        true_episodes=None if score is None else score.true_episodes,
        delay_days=None if score is None else score.median_delay_days,
    )


def _missing(own: pd.DataFrame, other: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    """Alerts of one replay that meet none of the other, the newest first."""
    if own.empty:
        return ()
    numbered = own.reset_index(drop=True).assign(number=range(len(own)))
    met = numbered.merge(other, on=["dimension", "member"], suffixes=("", "_other"))
    if not met.empty:
        met = met[(met["first_breach_other"] <= met["last_breach"]) & (met["last_breach_other"] >= met["first_breach"])]
    rest = numbered[~numbered["number"].isin(met["number"])].sort_values("fired_at", ascending=False)
    return tuple(
        {"fired": f"{fired:%Y-%m-%dT%H:%M}", "dimension": dimension, "member": member, "tier": tier, "outcome": outcome}
        for fired, dimension, member, tier, outcome in rest.head(MOST_LISTED)[
            ["fired_at", "dimension", "member", "tier", "outcome"]
        ].itertuples(index=False, name=None)
    )
