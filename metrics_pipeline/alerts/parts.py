"""The figures of the rules that a composite rule looks at, for its message: a rank of 2 tells nobody anything.

Read from the alerts of those rules, as they were last judged: of each rule the worst slice that does not contradict the
composite's own, in the same period.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.notice import Notice, RuleCard, Slice, excess
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.routing.labels import slice_labels
from metrics_pipeline.store.records import Instance, Tier
from metrics_pipeline.store.tables import alert_instances

PARTS = 8
"""Rules named in one message."""
LOOKED_AT = 1_000
"""Breaching slices of one rule that are looked at, the reddest first."""


def parts_of(connection: Connection, notice: Notice, cards: Mapping[str, RuleCard]) -> tuple[Slice, ...]:
    """One slice for each rule that the headline of a notice looks at, in the rule's order; () when it looks at none."""
    if notice.rule.kind != "composite" or not notice.slices:
        return ()
    first = notice.slices[0]
    found = []
    for rule in _leaves(notice.rule, cards)[:PARTS]:
        worst = _worst(connection, rule, first, notice)
        if worst is not None:
            found.append(_slice(worst, cards.get(rule, RuleCard(rule, ""))))
    return tuple(found)


def _leaves(card: RuleCard, cards: Mapping[str, RuleCard]) -> list[str]:
    """The rules with figures that a composite looks at, those of composites in it included, each once."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(card.parts)
    while waiting:
        rule = waiting.pop(0)
        if rule in seen:
            continue
        seen.add(rule)
        if rule in cards and cards[rule].kind == "composite":
            waiting = [*cards[rule].parts, *waiting]
        else:
            found[rule] = None
    return list(found)


def _worst(connection: Connection, rule: str, of: Slice, notice: Notice) -> Instance | None:
    table = alert_instances.c
    query = (
        sa.select(alert_instances)
        .where(
            table.rule == rule,
            table.data_period == notice.period,
            sa.or_(table.breaches > 0, table.dimension == "all", table.member == of.member),
        )
        .order_by(table.reds.desc(), table.breaches.desc(), table.key)
        .limit(LOOKED_AT)
    )
    labels = slice_labels(of.dimension, of.member)
    fitting = [one for one in map(Instance._make, connection.execute(query)) if _fits(one, labels)]
    return min(fitting, key=lambda one: (-RANK[_tier(one)], -excess(one), one.key), default=None)


def _fits(one: Instance, labels: Mapping[str, str]) -> bool:
    """Whether a slice can be meant by a slice with these labels: what both name is the same."""
    own = slice_labels(one.dimension, one.member)
    return all(labels.get(name, value) == value for name, value in own.items())


def _tier(one: Instance) -> Tier:
    """Of its last verdict; the alert itself may still wait for more periods."""
    return "red" if one.reds else "yellow" if one.breaches else "none"


def _slice(one: Instance, card: RuleCard) -> Slice:
    return Slice(
        instance=one.key,
        dimension=one.dimension,
        member=one.member,
        change="ongoing",
        tier=_tier(one),
        since=one.breach_period or one.data_period or one.since_period or one.evaluated_at.replace(tzinfo=None),
        value=one.value,
        observed=one.observed,
        baseline=one.baseline,
        lower=one.lower,
        upper=one.upper,
        yellow_bound=one.yellow_bound if one.yellow_bound is not None else card.chance_bound("yellow"),
        red_bound=one.red_bound if one.red_bound is not None else card.chance_bound("red"),
        rule=one.rule,
        name_zh=card.name_zh,
        name_en=card.name_en,
        unit=card.unit,
        kind=card.kind,
        grain=one.grain,
        foresees=card.foresees,
    )
