"""What came of an accepted proposal: the days since, beside as many days before, and beside what the former rule would have said.

Two comparisons, because neither is enough alone. What people got and said before and after is what really happened, but the
days differ. The former rule replayed over the days since is the same days, but its alerts were told to nobody: those the new
rule raised as well have answers, the others are known only where incidents are labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.followup.answers import read_answers, reported_misses
from metrics_pipeline.followup.edits import EditError, edit_rule
from metrics_pipeline.followup.impact import Impact, compare
from metrics_pipeline.followup.misses import labels_of
from metrics_pipeline.followup.proposals import DAYS, PURPOSE, Ground
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.store import Store
from metrics_pipeline.store import rule_proposals as rows
from metrics_pipeline.store.rule_proposals import ProposalRow

if TYPE_CHECKING:
    import pandas as pd

LEAST_DAYS: Final = 7
"""Days that must have been judged before anything is said."""


@dataclass(frozen=True)
class _Judged:
    """An accepted proposal that can be measured: both forms of its rule, and the days since."""

    row: ProposalRow
    former: Rule
    present: Rule
    first: date
    last: date


def measure_all(store: Store, ground: Ground, sight: Sight) -> dict[int, dict[str, Any]]:
    """Measure every accepted proposal and keep it; number → effect of those that could be measured.

    None is while fewer than seven days were judged, and when the rule has been changed again since: then what was measured last
    stands. Keys: `first, last, days`; `before, after`: alerts by their answers in as many days; `former, present`: both
    forms of the rule replayed over the days since (`impact.Outcome`), and `weeks`, `dropped`, `added` between them.
    """
    rules = load_rules(ground.rules_dir, ground.catalogue, ground.seeds).rules
    with store.reading() as connection:
        judged = [one for row in rows.read(connection, states=["accepted"]) if (one := _judged(ground, rules, row))]
        answers = read_answers(connection, sight)
        labels = (*ground.labels, *labels_of(reported_misses(connection, sight)))
    spans: dict[tuple[date, date], list[_Judged]] = {}
    for one in judged:
        spans.setdefault((one.first, one.last), []).append(one)
    measured: dict[int, dict[str, Any]] = {}
    for (first, last), some in spans.items():
        impacts = compare(
            ground.published, [(one.former, one.present) for one in some], answers, first=first, last=last, rules=rules,
            promotions=ground.seeds.promotions, references=ground.seeds.references, labels=labels,
        )  # fmt: skip
        measured |= {one.row.id: _effect(one, impact, answers) for one, impact in zip(some, impacts, strict=True)}
    with store.writing(PURPOSE) as connection:
        for number, effect in measured.items():
            rows.change(connection, number, expected="accepted", effect=effect)
    return measured


def _judged(ground: Ground, rules: Sequence[Rule], row: ProposalRow) -> _Judged | None:
    present = next((rule for rule in rules if rule.id == row.rule), None)
    if row.decided_at is None or present is None or present.rule_hash != row.after:
        return None
    first = row.decided_at.astimezone(ground.zone).date()
    last = min(ground.last_day(row.metric), first + timedelta(days=DAYS - 1))
    if (last - first).days + 1 < LEAST_DAYS:
        return None
    try:
        edit = edit_rule(ground.rules_dir, ground.catalogue, ground.seeds, row.rule, row.evidence["base_keys"])
    except EditError:
        return None
    return _Judged(row, edit.after, present, first, last)


def _effect(one: _Judged, impact: Impact, answers: pd.DataFrame) -> dict[str, Any]:
    own, found = answers[answers["rule"] == one.row.rule], impact.as_json()
    days = (one.last - one.first).days + 1
    return {
        "first": one.first.isoformat(),
        "last": one.last.isoformat(),
        "days": days,
        "before": _counts(own, one.first - timedelta(days=days), one.first),
        "after": _counts(own, one.first, one.last + timedelta(days=1)),
        "former": found["before"],
        "present": found["after"],
        "weeks": found["weeks"],
        "dropped": found["dropped"],
        "added": found["added"],
    }


def _counts(answers: pd.DataFrame, first: date, until: date) -> dict[str, int]:
    import pandas as pd

    within = (answers["first_period"] >= pd.Timestamp(first)) & (answers["first_period"] < pd.Timestamp(until))
    counts = answers.loc[within, "outcome"].value_counts()
    return {
        "episodes": int(counts.sum()),
        **{name: int(counts.get(name, 0)) for name in ("true", "false", "expected", "aside", "unanswered")},
    }
