"""Proposed changes of rules: read and written on the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.tables import rule_proposals

ProposalState = Literal["proposed", "accepted", "rejected", "superseded"]


class ProposalRow(NamedTuple):
    """One proposal, in the order of the columns."""

    id: int
    key: str
    """What makes it the same one: rule, kind, changes and the rule they are made to."""
    rule: str
    """Id of the rule; "" of an entry of the calendar."""
    metric: str
    kind: str
    state: ProposalState
    base: str
    """Hash of the rule it was made for; "" of an entry of the calendar."""
    changes: dict[str, Any]
    """Key of the rule file → its value; null takes the key away."""
    evidence: dict[str, Any]
    why: str
    why_zh: str
    who: str
    at: datetime
    decided_by: str | None
    decided_at: datetime | None
    note: str
    after: str | None
    """Hash of the rule as it was accepted."""
    effect: dict[str, Any] | None


def add(connection: Connection, values: Mapping[str, Any]) -> int | None:
    """Write down a proposal; its number, or None when one of this key is there already. One that was superseded is open again."""
    table = rule_proposals
    known = connection.execute(sa.select(table.c.id, table.c.state).where(table.c.key == values["key"])).one_or_none()
    if known is None:
        return int(connection.execute(sa.insert(table).values(**values).returning(table.c.id)).scalar_one())
    if known.state != "superseded":
        return None
    connection.execute(sa.update(table).where(table.c.id == known.id).values(**values, decided_at=None))
    return int(known.id)


def find(connection: Connection, number: int) -> ProposalRow | None:
    """A proposal by its number."""
    row = connection.execute(sa.select(rule_proposals).where(rule_proposals.c.id == number)).one_or_none()
    return None if row is None else ProposalRow._make(row)


def read(
    connection: Connection, *, states: Sequence[ProposalState] | None = None, rule: str | None = None
) -> list[ProposalRow]:
    """Proposals, the newest first."""
    query = sa.select(rule_proposals).order_by(rule_proposals.c.id.desc())
    if states is not None:
        query = query.where(rule_proposals.c.state.in_(states))
    if rule is not None:
        query = query.where(rule_proposals.c.rule == rule)
    return [ProposalRow._make(row) for row in connection.execute(query)]


def change(connection: Connection, number: int, *, expected: ProposalState, **values: Any) -> bool:
    """Change a proposal that is in this state; False when it is not."""
    table = rule_proposals
    query = sa.update(table).where(table.c.id == number, table.c.state == expected).values(**values)
    return connection.execute(query).rowcount == 1
