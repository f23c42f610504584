"""What a rule said of the alerts people answered: its verdicts on published history, period by period, as one row per alert."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from metrics_pipeline.detection.promotions import WIDENING, PromotionDay
from metrics_pipeline.detection.references import Reference
from metrics_pipeline.followup.answers import ANSWERED
from metrics_pipeline.followup.methods import Judged, scale_of
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.replay import verdict_pieces
from metrics_pipeline.warehouse.read import Published

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_COLUMNS = ("rule", "dimension", "member", "period_start", "tier", "observed", "sample")


def judged_alerts(
    published: Published,
    rules: Sequence[Rule],
    answers: pd.DataFrame,
    *,
    promotions: Sequence[PromotionDay] = (),
    references: Sequence[Reference] = (),
) -> dict[str, Judged]:
    """Rule → its answered alerts with what the rule, as it is now, says of their periods.

    `answers`: of `read_answers`. Alerts that the rule as it is now would not raise are left out: they tell nothing about its bounds.
    """
    import pandas as pd

    of_rules = answers[answers["rule"].isin([rule.id for rule in rules]) & answers["outcome"].isin(ANSWERED)]
    if of_rules.empty:
        return {}
    start, until = _span(of_rules)
    errors: dict[str, str] = {}
    pieces = verdict_pieces(published, rules, start, until, errors=errors, promotions=promotions, references=references)
    said = pd.concat([plain(table.select(_COLUMNS)).to_pandas() for _, table in pieces], ignore_index=True)
    alerts = of_rules[["key", "rule", "dimension", "member", "outcome", "worst_tier", "first_period", "last_period"]]
    periods = alerts.merge(said, on=["rule", "dimension", "member"])
    within = periods["period_start"].between(periods["first_period"], periods["last_period"])
    periods = periods[within & periods["observed"].notna()].sort_values(["key", "period_start"])
    kinds = phases(promotions)
    length = (until - start).days
    counts = Counter(phase for day, phase in kinds.items() if start.date() <= day < until.date())
    shares = {phase: count / length for phase, count in counts.items()}
    found = {}
    for rule in rules:
        own = periods[periods["rule"] == rule.id]
        if not own.empty and rule.condition is None:
            found[rule.id] = Judged(rule, _one_row_each(rule, own, kinds), shares)
    return found


def plain(table: pa.Table) -> pa.Table:
    """Texts as texts: dictionaries of verdicts may hold an entry twice, which pandas refuses."""
    import pyarrow as pa

    return table.cast(
        pa.schema(
            [one.with_type(one.type.value_type) if pa.types.is_dictionary(one.type) else one for one in table.schema]
        )
    )


def phases(promotions: Sequence[PromotionDay]) -> dict[date, str]:
    """Day of an event of the whole shop → its phase; of several the one that widens most."""
    ranks = {phase: n for n, phase in enumerate(WIDENING)}
    found: dict[date, str] = {}
    for day in promotions:
        if not day.affects and ranks[day.kind] < ranks.get(found.get(day.date, ""), len(ranks)):
            found[day.date] = day.kind
    return found


def _one_row_each(rule: Rule, periods: pd.DataFrame, kinds: Mapping[date, str]) -> pd.DataFrame:
    import pandas as pd

    breaching = periods["tier"].isin(("yellow", "red"))
    table = periods.assign(breaching=breaching, strength=strengths(rule, periods))
    table["run"] = breaching.groupby([table["key"], (~breaching).groupby(table["key"]).cumsum()]).cumsum()
    # the strictest bound at which n periods in a row still breach: the best of the least strengths of n in a row
    least = table.groupby("key")["strength"].rolling(rule.hold, min_periods=rule.hold).min()
    strength = least.groupby(level=0).max().rename("strength")
    one = table.groupby("key").agg(run=("run", "max"))
    sample = table[breaching].groupby("key")["sample"].min().rename("sample")
    facts = table.drop_duplicates("key").set_index("key")[
        ["dimension", "member", "outcome", "worst_tier", "first_period"]
    ]
    found = pd.concat([facts, one, strength, sample], axis=1).reset_index()
    found["event"] = found["first_period"].dt.date.map(kinds).fillna("")
    return found[found["run"] >= rule.hold].reset_index(drop=True)


def strengths(rule: Rule, periods: pd.DataFrame) -> pd.Series[float]:
    """How far beyond yellow each period was; NaN where an override has bounds of its own."""
    scale = None if rule.yellow_if is None else scale_of(rule.yellow_if)
    if scale is None:
        return periods["observed"] * np.nan
    strength = periods["observed"].copy()
    strength[:] = scale.strength(periods["observed"].to_numpy(dtype=float))
    for override in rule.overrides:
        parts = periods["member"].str.split("|", expand=True)
        mine = np.logical_and.reduce([parts[rule.by.index(name)].isin(some) for name, some in override.where.items()])
        strength = strength.mask(mine)
    return strength


def _span(answers: pd.DataFrame) -> tuple[datetime, datetime]:
    first, last = answers["first_period"].min().to_pydatetime(), answers["last_period"].max().to_pydatetime()
    start = datetime(first.year, first.month, first.day)
    return start, datetime(last.year, last.month, last.day) + timedelta(days=1)
