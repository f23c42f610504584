"""Recording versions: what the files have against what the store knows. A second call adds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy.engine import Connection

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.versions import FIRST_SEEN, UNKNOWN_AUTHOR, UNPROPOSED, State, Targets, difference, states
from metrics_pipeline.store.metric_versions import (
    ProposalRow,
    Seen,
    VersionRow,
    add_versions,
    mark_applied,
    newest_definitions,
    proposals,
    seen,
)

IN_FILES = "in files"
"""What a proposal changes whose change is in the files already: a fact's SQL, a measure, a formula without a first day."""


@dataclass(frozen=True)
class Reason:
    """Why there are new versions."""

    who: str
    why: str
    proposal: int | None = None
    approved_by: str | None = None


def record(
    connection: Connection,
    states: Iterable[State],
    *,
    now: datetime,
    reason: Reason | None = None,
    reasons: Mapping[str, Reason] | None = None,
) -> list[VersionRow]:
    """Record every version that is not known yet, on the caller's transaction; returns what was added.

    Without a `reason` they came with the files: the first version of a metric is "first seen", others have the reason
    that `reasons` gives for their metric, or are changes without a proposal, whose author is in the history of the files.
    """
    known = seen(connection)
    fresh: dict[str, list[State]] = {}
    for state in states:
        if _is_new(state, known.get(state.metric, [])):
            fresh.setdefault(state.metric, []).append(state)
    before = newest_definitions(connection, sorted(fresh))
    rows: list[VersionRow] = []
    for metric, found in fresh.items():
        number = known[metric][-1].number if metric in known else 0
        former = before.get(metric)
        for state in found:
            number += 1
            why = (
                reason
                or (reasons or {}).get(metric)
                or Reason(UNKNOWN_AUTHOR, FIRST_SEEN if metric not in known else UNPROPOSED)
            )
            definition = {**state.definition, "effective_from": _text(state.effective_from)}
            rows.append(
                VersionRow(
                    metric=metric,
                    number=number,
                    version=state.version,
                    digest=state.digest,
                    effective_from=state.effective_from,
                    definition=definition,
                    diff=difference(former, definition),
                    who=why.who,
                    at=now,
                    why=why.why,
                    proposal=why.proposal,
                    approved_by=why.approved_by,
                )
            )
            former = definition
    add_versions(connection, rows)
    return rows


def record_files(connection: Connection, catalogue: Catalogue, targets: Targets, *, now: datetime) -> list[VersionRow]:
    """Record what the files have, on the caller's transaction; changes that were proposed in files, and approved, with who
    wanted them, why and by whose approval, and with them what follows from them. These proposals are applied then.
    """
    waiting = [one for one in proposals(connection, is_open=True) if _has_come(one, catalogue)]
    reasons: dict[str, Reason] = {}
    for one in waiting:
        reason = Reason(one.who, one.why, one.id, one.decided_by)
        for metric in (one.metric, *catalogue.users(one.metric)):
            reasons.setdefault(metric, reason)
    rows = record(connection, states(catalogue, targets), now=now, reasons=reasons)
    begun = {(row.metric, row.version) for row in rows}
    for one in waiting:
        if (one.metric, one.version) in begun:
            mark_applied(connection, one.id, who=one.who, at=now, effective_from=one.effective_from)
    return rows


def _has_come(row: ProposalRow, catalogue: Catalogue) -> bool:
    """Whether a proposal in files is approved, and the files are what was approved."""
    known = catalogue.metrics.get(row.metric)
    is_approved = row.state == "approved" and IN_FILES in row.changes
    return is_approved and known is not None and known.version == row.version


def _is_new(state: State, known: list[Seen]) -> bool:
    """The newest version must be the last one recorded; of former ones it is enough that they are known."""
    if state.is_newest:
        return not known or known[-1].digest != state.digest
    return all(one.version != state.version for one in known)


def _text(day: date | None) -> str:
    return "" if day is None else day.isoformat()
