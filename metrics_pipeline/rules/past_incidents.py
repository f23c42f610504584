"""Past incidents: periods nobody learns from, because people said that what the alert told was true.

An episode that ended and was answered as true (an order closed as fixed, or feedback) is no ordinary past: its periods,
from the first to the last breach of that metric and slice, are left out of every baseline that is learned. Whether an
episode counts is asked once a week: what was known before a Monday counts for all periods of the week that begins with
it. So the verdict of a period is the same in its night, in a re-run and in a replay, whatever was said later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from typing import TYPE_CHECKING

from metrics_pipeline.settings import Settings
from metrics_pipeline.store import open_store
from metrics_pipeline.store.past_incidents import AnsweredRow, answered_episodes

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

MEMORY = timedelta(days=15 * 31)
"""How long before a tested period an incident may have ended: longer than any baseline looks back."""


@dataclass(frozen=True)
class PastIncident:
    """What was wrong with one series, and in which weeks that was known. All moments are shop-local."""

    metric: str
    grain: str
    dimension: str
    member: str
    first_period: datetime
    last_period: datetime
    known_from: datetime
    """The Monday from which on it counts."""
    known_until: datetime = datetime.max
    """The Monday from which on it does not, because somebody changed their mind."""

    def is_known(self, at: datetime) -> bool:
        """Whether a period that begins then is judged without it."""
        return self.known_from <= at < self.known_until


def past_incidents(connection: Connection, zone: tzinfo, *, first: date) -> tuple[PastIncident, ...]:
    """What may be left out of the baselines of periods from the day `first` on. `zone`: the shop's."""
    since = datetime.combine(first, time()) - MEMORY
    return incidents_of(answered_episodes(connection, since=since), zone)


def known_incidents(settings: Settings, first: date) -> tuple[PastIncident, ...]:
    """The same, of an installation."""
    store = open_store(settings)
    try:
        with store.reading() as connection:
            return past_incidents(connection, settings.zone, first=first)
    finally:
        store.close()


def incidents_of(rows: Iterable[AnsweredRow], zone: tzinfo) -> tuple[PastIncident, ...]:
    """Words on episodes, in the order in which they were said → incidents; one that was taken back for some weeks is two.

    The newest word counts; a word on an order that is about many slices counts for those nobody spoke of by themselves.
    """
    said: dict[str, list[AnsweredRow]] = {}
    for row in rows:
        of = said.setdefault(row.episode, [])
        if row.is_own or not any(one.is_own for one in of):
            of.append(row)
    found: list[PastIncident] = []
    for of in said.values():
        mondays = [_monday_after(max(row.at, row.closed_at), zone) for row in of]
        for row, known, changed in zip(of, mondays, [*mondays[1:], datetime.max], strict=True):
            if row.is_useful and known < changed:
                found.append(
                    PastIncident(
                        row.metric, row.grain, row.dimension, row.member, row.first_period, row.last_period, known, changed
                    )
                )  # fmt: skip
    return tuple(found)


def changes(incidents: Sequence[PastIncident]) -> set[datetime]:
    """The Mondays at which what is known changes."""
    return {moment for one in incidents for moment in (one.known_from, one.known_until)}


def _monday_after(at: datetime, zone: tzinfo) -> datetime:
    day = at.astimezone(zone).date()
    return datetime.combine(day + timedelta(days=7 - day.weekday()), time())
