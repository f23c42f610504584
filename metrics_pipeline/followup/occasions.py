"""Days on which people said of several alerts that they were expected: entries of the shop's own calendar, proposed.

A day counts when alerts of two rules or three alerts of one were expected, none was true, and the calendar does not know it; days
that follow each other are one event. What the entry would have changed: the same rules replayed with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.detection.own_calendar import OWN, entry_of
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.followup.answers import EXPECTED
from metrics_pipeline.followup.impact import Impact, Outcome
from metrics_pipeline.followup.verdicts import phases

if TYPE_CHECKING:
    import pandas as pd

LEAST_RULES, LEAST_ALERTS = 2, 3


@dataclass(frozen=True)
class Occasion:
    """Days that people expected, and the rules whose alerts they said it of."""

    first: date
    last: date
    rules: tuple[str, ...]
    alerts: int

    @property
    def event(self) -> str:
        return f"expected_{self.first:%Y%m%d}"

    @property
    def days(self) -> tuple[PromotionDay, ...]:
        """The days as the calendar would have them."""
        length = (self.last - self.first).days + 1
        zh, en = self._names
        return tuple(
            PromotionDay(self.first + timedelta(days=n), self.event, zh, en, n, "main", OWN) for n in range(length)
        )

    @property
    def entry(self) -> dict[str, Any]:
        """As it is written in `_calendar.yml`."""
        zh, en = self._names
        because = f"{self.alerts} alerts of {', '.join(self.rules)} were expected"
        phase = {"main": (0, (self.last - self.first).days)}
        entry = entry_of(self.event, zh, en, [self.first.isoformat()], phases=phase, because=because)
        return {name: value for name, value in entry.items() if value not in ("", {}, [])}

    @property
    def _names(self) -> tuple[str, str]:
        return f"店铺活动 {self.first}", f"Shop event {self.first}"


def expected_occasions(answers: pd.DataFrame, promotions: Sequence[PromotionDay]) -> list[Occasion]:
    """The days that should be in the calendar, oldest first. `answers`: of `read_answers`."""
    if answers.empty:
        return []
    known = phases(promotions)
    day = answers["first_period"].dt.date
    expected = answers[answers["outcome"] == EXPECTED].groupby(day)["rule"].agg(["size", "nunique"])
    true = set(day[answers["outcome"] == "true"])
    enough = expected[(expected["nunique"] >= LEAST_RULES) | (expected["size"] >= LEAST_ALERTS)]
    found: list[Occasion] = []
    for one in sorted(one for one in enough.index if one not in true and one not in known):
        some = answers[(day == one) & (answers["outcome"] == EXPECTED)]
        rules = tuple(sorted(some["rule"].unique()))
        if found and found[-1].last == one - timedelta(days=1):
            former = found[-1]
            both = tuple(sorted({*former.rules, *rules}))
            found[-1] = replace(former, last=one, rules=both, alerts=former.alerts + len(some))
        else:
            found.append(Occasion(one, one, rules, len(some)))
    return found


def together(impacts: Sequence[Impact]) -> Impact:
    """The impacts of one change on several rules as one. `impacts`: over the same days, at least one."""
    weeks: Counter[tuple[str, int]] = Counter()
    for impact in impacts:
        for monday, before, after in impact.weeks:
            weeks[monday, 0] += before
            weeks[monday, 1] += after
    return Impact(
        impacts[0].first,
        impacts[0].last,
        _sum([one.before for one in impacts]),
        _sum([one.after for one in impacts]),
        tuple((monday, weeks[monday, 0], weeks[monday, 1]) for monday in sorted({monday for monday, _ in weeks})),
        tuple(one for impact in impacts for one in impact.dropped),
        tuple(one for impact in impacts for one in impact.added),
    )


def _sum(some: Sequence[Outcome]) -> Outcome:
    names = ("episodes", "red", "messages", "true", "false", "expected", "unanswered")
    totals: Mapping[str, int] = {name: sum(getattr(one, name) for one in some) for name in names}
    return Outcome(**totals, episodes_a_week=round(sum(one.episodes_a_week for one in some), 3))
