"""From a proposal to a changed definition: propose → review → approve or reject → apply; and restating the past.

Who acts, when, and who owns a metric are arguments; every act is a row of the store and of the audit log. Files are
written last, within the transaction that records them, and are put back when it fails.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.changing import Change, change, restatement
from metrics_pipeline.library.compile import generated_files, stale_files
from metrics_pipeline.library.recording import IN_FILES, Reason, record, record_files
from metrics_pipeline.library.versions import TARGETS_FILE, State, Targets, difference, states
from metrics_pipeline.store import audit
from metrics_pipeline.store.database import Store
from metrics_pipeline.store.metric_versions import (
    ProposalRow,
    VersionRow,
    add_proposal,
    decide,
    mark_applied,
    proposal,
)

PURPOSE = "versions"


class ProposalError(ValueError):
    """What cannot be done with a proposal; the message says why and what to do."""


@dataclass(frozen=True)
class Actor:
    """Who acts and when, and where that is written down."""

    caller: audit.Caller
    now: datetime
    """Aware."""

    @property
    def name(self) -> str:
        return self.caller.actor


@dataclass(frozen=True)
class Standing:
    """Whether somebody may decide on a change of a metric."""

    is_allowed: bool
    remark: str
    """Why not; or what about the decision should be known later, "" when it is an ordinary one."""


@dataclass(frozen=True)
class Applied:
    """What an applied change or a restatement did."""

    versions: tuple[VersionRow, ...]
    files: tuple[Path, ...]
    """The files that were written."""
    rebuild_from: date | None
    """First published day that must be rebuilt for the change to show; None = none is."""


def standing(owner: str, owners: Collection[str], *, proposer: str, actor: str) -> Standing:
    """Whether `actor` may approve what `proposer` proposed for a metric of `owner`, who are the people `owners`.

    An owner approves, and not what they proposed themselves unless nobody else could. Where nobody is known behind the
    owner, anyone may, and that is said.
    """
    if not owners:
        return Standing(True, f"nobody is known behind the owner {owner}: name its people in _people.yml")
    if actor not in owners:
        return Standing(False, f"{actor} does not own it: {owner} is {', '.join(sorted(owners))}")
    if actor != proposer:
        return Standing(True, "")
    if set(owners) == {actor}:
        return Standing(True, f"{actor} approved their own proposal, being the only one behind the owner {owner}")
    others = ", ".join(sorted(set(owners) - {actor}))
    return Standing(False, f"{actor} proposed it; another owner must approve: {others}")


def propose(
    store: Store,
    actor: Actor,
    project_dir: Path,
    metric: str,
    given: Mapping[str, str],
    *,
    effective: date,
    why: str,
    shown_until: date | None,
) -> tuple[int, Change]:
    """Write down a proposal; returns its number and the change.

    `shown_until`: first day of which nothing is published. Raises `ProposalError`, `ChangeError`, `DefinitionError`.
    """
    if not why.strip():
        raise ProposalError("say why, for whoever reads the history of the metric later")
    found = change(project_dir, metric, given, effective)
    _begins_after(found, effective, shown_until, "--effective")
    before, after = _definitions_of(found)
    with store.writing(PURPOSE) as connection:
        number = add_proposal(
            connection,
            metric=metric,
            changes=given,
            base=_base(found),
            definition=after,
            diff=difference(before, after),
            version=found.after.metrics[metric].version,
            effective_from=effective,
            who=actor.name,
            at=actor.now,
            why=why.strip(),
        )
        act_on_record(
            connection, actor, "metric.propose", metric, proposal=number, changes=dict(given), effective=effective
        )
    return number, found


def reviewed(project_dir: Path, row: ProposalRow) -> Change:
    """The change of a proposal against the files of today. Raises `ProposalError` when they have moved on since."""
    found = change(project_dir, row.metric, row.changes, row.effective_from)
    if _base(found) != row.base:
        files = " or ".join(path.name for path in (found.path, *found.others))
        raise ProposalError(
            f"{files} has changed since proposal {row.id} was made; propose it again with what it says now"
        )
    return found


def find(connection: Connection, number: int) -> ProposalRow:
    """A proposal. Raises `ProposalError` when there is none of this number."""
    row = proposal(connection, number)
    if row is None:
        raise ProposalError(f"there is no proposal {number}; `metrics library proposals` lists them")
    return row


def approve(store: Store, actor: Actor, number: int, *, owner: str, owners: Collection[str], note: str = "") -> str:
    """Approve a proposal; returns what should be known about the decision. Raises `ProposalError`."""
    return _decide(store, actor, number, owner=owner, owners=owners, note=note, is_approved=True)


def reject(store: Store, actor: Actor, number: int, *, owner: str, owners: Collection[str], note: str) -> str:
    """Reject a proposal, or take back one's own. Raises `ProposalError`."""
    return _decide(store, actor, number, owner=owner, owners=owners, note=note, is_approved=False)


def _decide(
    store: Store, actor: Actor, number: int, *, owner: str, owners: Collection[str], note: str, is_approved: bool
) -> str:
    state, action = ("approved", "metric.approve") if is_approved else ("rejected", "metric.reject")
    with store.writing(PURPOSE) as connection:
        row = find(connection, number)
        found = standing(owner, owners, proposer=row.who, actor=actor.name)
        if not is_approved and actor.name == row.who:
            found = Standing(True, f"{actor.name} took it back")
        if not found.is_allowed:
            act_on_record(connection, actor, action, row.metric, outcome="denied", proposal=number, reason=found.remark)
        else:
            text = "; ".join(part for part in (note.strip(), found.remark) if part)
            decided = decide(
                connection, number, "approved" if is_approved else "rejected", who=actor.name, at=actor.now, note=text
            )
            if not decided:
                raise ProposalError(f"proposal {number} is {row.state} already, by {row.decided_by}")
            act_on_record(connection, actor, action, row.metric, proposal=number, note=text)
    if not found.is_allowed:
        raise ProposalError(f"proposal {number} cannot be {state}: {found.remark}")
    return found.remark


def apply(
    store: Store, actor: Actor, project_dir: Path, number: int, *, effective: date | None, shown_until: date | None
) -> Applied:
    """Put an approved proposal into the files and record its versions. `effective`: another first day than proposed.

    Raises `ProposalError`, `ChangeError`, `DefinitionError`; then nothing has changed.
    """
    with store.writing(PURPOSE) as connection:
        row = find(connection, number)
        if row.state != "approved":
            said = f"{row.state} by {row.decided_by or row.who}" if row.state != "proposed" else "not approved yet"
            raise ProposalError(f"proposal {number} is {said}; only an approved one can be applied")
        if IN_FILES in row.changes:
            raise ProposalError(f"proposal {number} is in the files already; the next night begins its version")
        row = row._replace(effective_from=effective or row.effective_from)
        found = reviewed(project_dir, row)
        _begins_after(found, row.effective_from, shown_until, "`metrics library apply --effective`")
        reason = Reason(row.who, row.why, row.id, row.decided_by)
        versions, files = _carry_out(connection, found, reason, actor.now)
        mark_applied(connection, number, who=actor.name, at=actor.now, effective_from=row.effective_from)
        act_on_record(
            connection, actor, "metric.apply", row.metric, proposal=number, effective=row.effective_from,
            version=found.after.metrics[row.metric].version,
        )  # fmt: skip
        _write(files)
    return Applied(versions, tuple(files), _rebuild_from(row.effective_from, shown_until))


def restate(
    store: Store,
    actor: Actor,
    project_dir: Path,
    metric: str,
    *,
    first: date,
    why: str,
    owner: str,
    owners: Collection[str],
    shown_until: date | None,
) -> Applied:
    """Let the newest definition also be that of the days from `first` on: a deliberate act, for the metric's owner.

    What was shown before stays in the history of values. Raises `ProposalError`, `ChangeError`.
    """
    if not why.strip():
        raise ProposalError("say why the past is restated, for whoever compares old reports with new ones")
    found = restatement(project_dir, metric, first)
    allowed = standing(owner, owners, proposer="", actor=actor.name)
    with store.writing(PURPOSE) as connection:
        if not allowed.is_allowed:
            act_on_record(connection, actor, "metric.restate", metric, outcome="denied", reason=allowed.remark)
        else:
            reason = Reason(actor.name, f"restated from {first}: {why.strip()}", approved_by=actor.name)
            versions, files = _carry_out(connection, found, reason, actor.now)
            act_on_record(
                connection, actor, "metric.restate", metric, first=first, why=why.strip(), remark=allowed.remark
            )
            _write(files)
    if not allowed.is_allowed:
        raise ProposalError(f"{metric} cannot be restated: {allowed.remark}")
    return Applied(versions, tuple(files), _rebuild_from(first, shown_until))


def _carry_out(
    connection: Connection, found: Change, reason: Reason, now: datetime
) -> tuple[tuple[VersionRow, ...], dict[Path, str]]:
    """Record what was there and what comes; returns the new versions and the files to be written."""
    if stale := stale_files(found.before):
        raise ProposalError(f"{stale[0].name} does not follow from the definitions; run `metrics compile` first")
    record_files(connection, found.before, found.targets_before, now=now)
    versions = record(connection, states(found.after, found.targets), now=now, reason=reason)
    files = {path: text for path, text in generated_files(found.after).items() if _differs(path, text)}
    for path, text in {**found.others, found.path: found.text}.items():
        if _differs(path, text):
            files[path] = text
    if found.targets_text is not None:
        files[found.after.definitions.project_dir / TARGETS_FILE] = found.targets_text
    return tuple(versions), files


def _write(files: Mapping[Path, str]) -> None:
    """Write all files or, when one cannot be written, none."""
    before = {path: path.read_text("utf-8") if path.exists() else None for path in files}
    try:
        for path, text in files.items():
            part = path.with_name(f".{path.name}.part")
            part.write_text(text, "utf-8")
            part.replace(path)
    except OSError as error:
        for path, former in before.items():
            if former is None:
                path.unlink(missing_ok=True)
            elif path.read_text("utf-8") != former:
                path.write_text(former, "utf-8")
        raise ProposalError(
            f"{error.filename or 'a file'} cannot be written ({error.strerror}); nothing was changed"
        ) from None


def _differs(path: Path, text: str) -> bool:
    return not path.exists() or path.read_text("utf-8") != text


def _begins_after(found: Change, effective: date, shown_until: date | None, option: str) -> None:
    if found.changes_values and shown_until is not None and effective < shown_until:
        raise ProposalError(
            f"values of {found.metric} were shown up to {shown_until} (exclusive) under the former definition; give "
            f"{option} {shown_until} or later, and `metrics library restate` for the days before if they shall change"
        )


def _rebuild_from(first: date, shown_until: date | None) -> date | None:
    return first if shown_until is not None and first < shown_until else None


def difference_of(found: Change) -> dict[str, list[Any]]:
    """Field → [before, after] of what a change changes in the metric itself."""
    return difference(*_definitions_of(found))


def _definitions_of(found: Change) -> tuple[dict[str, Any], dict[str, Any]]:
    """The newest definition before and after, as plain values."""
    before = _newest(found.before, found.targets_before, found.metric)
    after = _newest(found.after, found.targets, found.metric)
    return (
        {**before.definition, "effective_from": str(before.effective_from or "")},
        {**after.definition, "effective_from": str(after.effective_from or "")},
    )


def _newest(catalogue: Catalogue, targets: Targets, metric: str) -> State:
    return next(one for one in states(catalogue, targets) if one.metric == metric and one.is_newest)


def _base(found: Change) -> str:
    """What the files that it changes said."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in (found.path, *found.others))).hexdigest()[:12]


def act_on_record(
    connection: Connection, actor: Actor, action: str, metric: str, *, outcome: audit.Outcome = "done", **details: Any
) -> None:
    """A row of the audit log on the caller's transaction."""
    plain = {name: str(value) if isinstance(value, date) else value for name, value in details.items()}
    audit.record(connection, actor.caller, action, metric, now=actor.now, outcome=outcome, details=plain)
