"""What came of an accepted proposal: the days since, beside as many days before, and beside what the former rule would have said.

Two comparisons, because neither is enough alone. What people got and said before and after is what really happened, but the
days differ. The former rule replayed over the days since is the same days, but its alerts were told to nobody: those the new
rule raised as well have answers, the others are known only where incidents are labelled.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.followup.answers import read_answers
from metrics_pipeline.followup.edits import EditError, edit_rule
from metrics_pipeline.followup.impact import compare
from metrics_pipeline.followup.proposals import DAYS, PURPOSE, Ground, rule_of_now
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.store import Store
from metrics_pipeline.store import rule_proposals as rows
from metrics_pipeline.store.rule_proposals import ProposalRow

if TYPE_CHECKING:
    import pandas as pd

LEAST_DAYS: Final = 7
"""Days that must have been judged before anything is said."""


def measure(connection: Connection, ground: Ground, sight: Sight, row: ProposalRow) -> dict[str, Any] | None:
    """The effect of an accepted proposal as plain values.

    None while fewer than seven days were judged, and when the rule has been changed again since: then what was measured last stands.
    Keys: `first, last, days`; `before, after`: alerts by their answers in as many days; `former, present`: both forms of
    the rule replayed over the days since (`impact.Outcome`), and `weeks`, `dropped`, `added` between them.
    """
    if row.state != "accepted" or row.decided_at is None:
        return None
    present = rule_of_now(ground, row.rule)
    if present.rule_hash != row.after:
        return None
    first = row.decided_at.astimezone(ground.zone).date()
    last = min(ground.last_day(row.metric), first + timedelta(days=DAYS - 1))
    days = (last - first).days + 1
    if days < LEAST_DAYS:
        return None
    try:
        former = edit_rule(ground.rules_dir, ground.catalogue, ground.seeds, row.rule, row.evidence["base_keys"]).after
    except EditError:
        return None
    answers = read_answers(connection, sight)
    answers = answers[answers["rule"] == row.rule]
    found = compare(
        ground.published, former, present, answers, first=first, last=last,
        rules=load_rules(ground.rules_dir, ground.catalogue, ground.seeds).rules,
        promotions=ground.seeds.promotions, references=ground.seeds.references, labels=ground.labels,
    ).as_json()  # fmt: skip
    return {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "days": days,
        "before": _counts(answers, first - timedelta(days=days), first),
        "after": _counts(answers, first, last + timedelta(days=1)),
        "former": found["before"],
        "present": found["after"],
        "weeks": found["weeks"],
        "dropped": found["dropped"],
        "added": found["added"],
    }


def measure_all(store: Store, ground: Ground, sight: Sight) -> dict[int, dict[str, Any]]:
    """Measure every accepted proposal and keep it; number → effect of those that could be measured."""
    with store.reading() as connection:
        accepted = rows.read(connection, states=["accepted"])
        found = {row.id: measure(connection, ground, sight, row) for row in accepted}
    measured = {number: effect for number, effect in found.items() if effect is not None}
    with store.writing(PURPOSE) as connection:
        for number, effect in measured.items():
            rows.change(connection, number, expected="accepted", effect=effect)
    return measured


def _counts(answers: pd.DataFrame, first: date, until: date) -> dict[str, int]:
    import pandas as pd

    within = (answers["first_period"] >= pd.Timestamp(first)) & (answers["first_period"] < pd.Timestamp(until))
    counts = answers.loc[within, "outcome"].value_counts()
    return {
        "episodes": int(counts.sum()),
        **{name: int(counts.get(name, 0)) for name in ("true", "false", "expected", "aside", "unanswered")},
    }
