"""One person as of one transaction of the store: what they may see and do. Nothing is remembered longer, so that a
revoked grant counts from the next look on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from metrics_pipeline.access.model import LEVELS, Decision, Facts, Grant, Level, Selector, Subjects
from metrics_pipeline.access.policy import Rights
from metrics_pipeline.store import access as rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


class Denied(PermissionError):
    """What somebody may not do or see; the message names nothing that they do not know already."""


@dataclass(frozen=True)
class Viewer:
    """Somebody with their grants. Build it with `viewer_of`, or `everybody` for an open installation."""

    subjects: Subjects
    metrics: Mapping[str, Facts]
    now: datetime
    grants: tuple[Grant, ...] = ()
    is_open: bool = False

    @property
    def person(self) -> str:
        return self.subjects.person

    def rights(self, action: str) -> Rights:
        """All they may do by an action."""
        if self.is_open:
            return Rights(is_open=True)
        return Rights.of(self.subjects, action, self.grants, self.metrics, now=self.now)

    @cached_property
    def reading(self) -> Rights:
        """What they may read."""
        return self.rights("read")

    def decide(self, action: str, metric: str | None = None, dimension: str = "all", member: str = "all") -> Decision:
        """Whether they may do this, on this slice, how exactly and why."""
        return self.rights(action).decide(metric, dimension, member)

    def level(self, metric: str, dimension: str = "all", member: str = "all") -> Level:
        """How much of the value of a slice they may see."""
        return self.reading.decide(metric, dimension, member).level

    def require(self, action: str, metric: str | None = None, dimension: str = "all", member: str = "all") -> None:
        """Raise `Denied` when they may not do this."""
        if not self.decide(action, metric, dimension, member).is_allowed:
            what = action if metric is None or not self.reading.knows(metric) else f"{action} {metric}"
            raise Denied(
                f"{self.person} may not {what}: no grant allows it; ask who administers the installation "
                f"(无权限:{what})"
            )


def viewer_of(
    connection: Connection,
    person: str,
    metrics: Mapping[str, Facts],
    members: Iterable[rows.MembershipRow],
    *,
    now: datetime,
    kind: str = "person",
) -> Viewer:
    """Somebody (`kind`: person, position or channel) with the grants the store has now.

    `members`: who is in which position and line by the file as it is now (`routing.members.members_of`), so that whoever
    left a team there has lost its grants at once. `now`: aware.
    """
    if rows.enabled(connection) is None:
        return everybody(person, metrics, now=now)
    return closed_viewer(connection, person, metrics, members, now=now, kind=kind)


def closed_viewer(
    connection: Connection,
    person: str,
    metrics: Mapping[str, Facts],
    members: Iterable[rows.MembershipRow],
    *,
    now: datetime,
    kind: str = "person",
) -> Viewer:
    """`viewer_of` as if the policy were on, also while it is off."""
    by_hand = rows.memberships(connection, source=rows.MANUAL)
    held = {(one.kind, one.of) for one in (*members, *by_hand) if kind == "person" and one.person == person}
    if kind in ("position", "line"):
        held.add((kind, person))
    subjects = Subjects(
        person,
        positions=frozenset(of for one, of in held if one == "position"),
        lines=frozenset(of for one, of in held if one == "line"),
        kind=kind,
    )
    found = rows.grants(connection, subjects=[(kind, person), *sorted(held)])
    return Viewer(subjects, metrics, now, tuple(grant_of(row) for row in found))


def everybody(person: str, metrics: Mapping[str, Facts], *, now: datetime) -> Viewer:
    """Anybody while no policy is on: everything is allowed."""
    return Viewer(Subjects(person), metrics, now, is_open=True)


def grant_of(row: rows.GrantRow) -> Grant:
    """The grant in a row of the store."""
    return Grant(
        id=row.id,
        subject_kind=row.subject_kind,
        subject=row.subject,
        actions=frozenset(row.actions),
        selectors=tuple(Selector(*one) for one in row.selectors),
        slices={name: frozenset(members) for name, members in row.slices.items()},
        level=LEVELS[row.level],
        starts_at=row.starts_at,
        expires_at=row.expires_at,
        granted_by=row.granted_by,
        reason=row.reason,
        revoked_at=row.revoked_at,
    )
