"""The people of `_people.yml` in the store, under the same ids: teams are positions, who answers for a line is in it."""

from __future__ import annotations

from datetime import datetime

from metrics_pipeline.routing.people import Directory
from metrics_pipeline.store import Store
from metrics_pipeline.store import access as rows


def members_of(directory: Directory, *, now: datetime) -> list[rows.MembershipRow]:
    """Who is in which position and line as the file says now.

    A line has the people its owner stands for at `now` (of a rotation: who is on call).
    """
    found = [
        rows.MembershipRow(person, "position", team.id, rows.FILE)
        for team in directory.teams.values()
        for person in team.members
        if person in directory.people
    ]
    found += [
        rows.MembershipRow(person.id, "line", line.id, rows.FILE)
        for line in directory.lines.values()
        for person in (directory.who(line.owner, now) if line.owner else ())
    ]
    return list(dict.fromkeys(found))


def sync_people(store: Store, directory: Directory, *, now: datetime) -> bool:
    """Make the store know who the file names now; False when nothing changed."""
    people = [rows.PersonRow(one.id, one.name_zh, one.name_en, rows.FILE) for one in directory.people.values()]
    with store.writing("access") as connection:
        return rows.sync(connection, people, members_of(directory, now=now))
