"""Versions of metrics and proposals to change them: what was defined how since when, by whom, why, who approved.

Rows of versions are only added. A version's number counts per metric; values and alerts carry its hash (`version`),
and the number of a hash is that of the first row which has it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.store.tables import metric_proposals, metric_versions

ProposalState = Literal["proposed", "approved", "rejected", "applied"]
PART: Final = 500


class VersionRow(NamedTuple):
    """One version of a metric, as recorded."""

    metric: str
    number: int
    version: str
    digest: str
    effective_from: date | None
    definition: Mapping[str, Any]
    diff: Mapping[str, Any]
    who: str
    at: datetime
    why: str
    proposal: int | None
    approved_by: str | None


class Seen(NamedTuple):
    """What is known of a recorded version without its texts."""

    number: int
    version: str
    digest: str


class ProposalRow(NamedTuple):
    """A proposal to change a metric."""

    id: int
    metric: str
    state: ProposalState
    changes: Mapping[str, str]
    base: str
    definition: Mapping[str, Any]
    diff: Mapping[str, Any]
    version: str
    effective_from: date
    who: str
    at: datetime
    why: str
    decided_by: str | None
    decided_at: datetime | None
    note: str
    applied_by: str | None
    applied_at: datetime | None


def seen(connection: Connection) -> dict[str, list[Seen]]:
    """Metric → its recorded versions in their order, without definitions."""
    table = metric_versions.c
    found: dict[str, list[Seen]] = {}
    query = sa.select(table.metric, table.number, table.version, table.digest).order_by(table.metric, table.number)
    for row in connection.execute(query):
        found.setdefault(row.metric, []).append(Seen(row.number, row.version, row.digest))
    return found


def newest_definitions(connection: Connection, metrics: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Metric → the definition of its newest recorded version."""
    found: dict[str, Mapping[str, Any]] = {}
    table = metric_versions.c
    for start in range(0, len(metrics), PART):
        names = list(metrics[start : start + PART])
        query = sa.select(table.metric, table.definition).where(table.metric.in_(names)).order_by(table.number)
        for row in connection.execute(query):
            found[row.metric] = row.definition
    return found


def add_versions(connection: Connection, rows: Sequence[VersionRow]) -> None:
    """Record versions; numbers are the caller's."""
    if rows:
        connection.execute(sa.insert(metric_versions), [row._asdict() for row in rows])


def versions_of(connection: Connection, metric: str) -> list[VersionRow]:
    """The recorded versions of a metric, the oldest first."""
    query = sa.select(metric_versions).where(metric_versions.c.metric == metric).order_by(metric_versions.c.number)
    return [VersionRow._make(row) for row in connection.execute(query)]


def changed_because(connection: Connection, why: str, *, since: datetime) -> list[str]:
    """The metrics with a version that was recorded for this reason since then (aware), by name."""
    table = metric_versions.c
    query = sa.select(table.metric).where(table.why == why, table.at >= since).distinct().order_by(table.metric)
    return list(connection.execute(query).scalars())


def version_names(connection: Connection, versions: Collection[str]) -> dict[str, str]:
    """Hash → `v2 (e671cb775810)`, the number of the version that brought it; of one never recorded the hash alone.

    A hash is of one metric: two that mean the same under two names are refused by lint.
    """
    found = {version: version for version in versions if version}
    table = metric_versions.c
    wanted = sorted(found)
    for start in range(0, len(wanted), PART):
        query = (
            sa.select(table.version, sa.func.min(table.number).label("number"))
            .where(table.version.in_(wanted[start : start + PART]))
            .group_by(table.version)
        )
        for row in connection.execute(query):
            found[row.version] = version_name(row.number, row.version)
    return found


def version_name(number: int | None, version: str) -> str:
    """`v2 (e671cb775810)`; the hash alone when it was never recorded."""
    return version if number is None else f"v{number} ({version})"


def add_proposal(
    connection: Connection,
    *,
    metric: str,
    changes: Mapping[str, str],
    base: str,
    definition: Mapping[str, Any],
    diff: Mapping[str, Any],
    version: str,
    effective_from: date,
    who: str,
    at: datetime,
    why: str,
) -> int:
    """Write down a proposal; returns its number."""
    result = connection.execute(
        sa.insert(metric_proposals)
        .values(
            metric=metric,
            state="proposed",
            changes=dict(changes),
            base=base,
            definition=dict(definition),
            diff=dict(diff),
            version=version,
            effective_from=effective_from,
            who=who,
            at=at,
            why=why,
            note="",
        )
        .returning(metric_proposals.c.id)
    )
    return int(result.scalar_one())


def proposal(connection: Connection, number: int) -> ProposalRow | None:
    """A proposal; None when there is none of this number."""
    row = connection.execute(sa.select(metric_proposals).where(metric_proposals.c.id == number)).one_or_none()
    return None if row is None else ProposalRow._make(row)


def proposals(connection: Connection, *, metric: str | None = None, is_open: bool = False) -> list[ProposalRow]:
    """Proposals, the newest first; `is_open`: those that wait for a decision or to be applied."""
    query = sa.select(metric_proposals).order_by(metric_proposals.c.id.desc())
    if metric is not None:
        query = query.where(metric_proposals.c.metric == metric)
    if is_open:
        query = query.where(metric_proposals.c.state.in_(("proposed", "approved")))
    return [ProposalRow._make(row) for row in connection.execute(query)]


def decide(
    connection: Connection, number: int, state: Literal["approved", "rejected"], *, who: str, at: datetime, note: str
) -> bool:
    """Approve or reject a proposal that is open; False when somebody has decided already."""
    result = connection.execute(
        sa.update(metric_proposals)
        .where(metric_proposals.c.id == number, metric_proposals.c.state == "proposed")
        .values(state=state, decided_by=who, decided_at=at, note=note)
    )
    return result.rowcount == 1


def mark_applied(connection: Connection, number: int, *, who: str, at: datetime, effective_from: date) -> bool:
    """An approved proposal is in the files now; False when it was not approved, or is applied already."""
    result = connection.execute(
        sa.update(metric_proposals)
        .where(metric_proposals.c.id == number, metric_proposals.c.state == "approved")
        .values(state="applied", applied_by=who, applied_at=at, effective_from=effective_from)
    )
    return result.rowcount == 1
