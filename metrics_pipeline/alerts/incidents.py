"""Incidents in the store: what fires together along the pyramid is kept together until all of it has ended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.lineage import Firing, headlines
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.state import period_of_key
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.dispatch import FiringRow, IncidentEpisode, IncidentRow

GROUP = "incident:"
"""Before the id of an incident in the key of its group."""


def assign_incidents(
    connection: Connection, firing: Iterable[FiringRow], cards: Mapping[str, RuleCard], *, now: datetime
) -> dict[str, str]:
    """Episode → incident of everything that fires; writes what is new.

    An incident keeps its id when a higher metric joins it; where one joins two, the older incident takes over.
    """
    facts = [
        Firing(
            one.episode,
            one.rule,
            card.metric,
            card.layer,
            one.dimension,
            one.member,
            one.grain,
            one.data_period,
            one.tier,
            period_of_key(one.episode),
        )
        for one in firing
        if one.data_period is not None and (card := cards.get(one.rule)) is not None
    ]
    upstream = {card.metric: frozenset(card.upstream) for card in cards.values() if card.upstream}
    tops = headlines(facts, upstream)
    known = rows.incidents_of(connection, {one.episode for one in facts})
    open_rows = rows.incident_rows(connection, set(known.values()))
    together: dict[str, list[str]] = {}
    for episode, top in tops.items():
        together.setdefault(top, []).append(episode)
    changed: dict[str, IncidentRow] = {}
    moved: list[IncidentEpisode] = []
    for top, episodes in sorted(together.items()):
        ids = {known[episode] for episode in episodes if episode in known}
        incident = min(ids, key=lambda one: (open_rows[one].opened_at, one)) if ids else top
        before = open_rows.get(incident)
        row = IncidentRow(incident, top, now if before is None else before.opened_at, None)
        if row != before:
            changed[incident] = row
        for other in ids - {incident}:
            changed[other] = open_rows[other]._replace(closed_at=now)
        for episode in episodes:
            if known.get(episode) != incident:
                known[episode] = incident
                moved.append(IncidentEpisode(episode, incident))
    rows.save_incidents(connection, changed.values())
    rows.save_incident_episodes(connection, moved)
    return known


def close_incidents(connection: Connection, ended: Collection[str], *, now: datetime) -> None:
    """Close the incidents of which nothing is open any more. `ended`: episodes that ended."""
    ids = set(rows.incidents_of(connection, ended).values())
    if not ids:
        return
    episodes = rows.episodes_of_incidents(connection, ids)
    facts = rows.members(connection, {episode for some in episodes.values() for episode in some})
    is_over = {one for one, some in episodes.items() if not any(facts[key].is_open for key in some if key in facts)}
    closing = [row for row in rows.incident_rows(connection, is_over).values() if row.closed_at is None]
    rows.save_incidents(connection, [row._replace(closed_at=now) for row in closing])
