"""What was done about an episode and whether it helped.

A person may say so when they record the action. Otherwise: it helped when the alert recovered by itself of bounds within
`DAYS` days of the action and did not come back for as long; it did not when it fired on, or came back. Nothing can be said
before the days are over, when people called the alert false or expected, and when it ended for another reason than recovery
(the data were corrected, the rule was retired).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy.engine import Connection

from metrics_pipeline.advice.recommend import Record
from metrics_pipeline.alerts.work_orders import USEFUL
from metrics_pipeline.store import advice as rows
from metrics_pipeline.store import alerts as alert_rows
from metrics_pipeline.store import work_orders as order_rows
from metrics_pipeline.store.advice import ActionRow
from metrics_pipeline.store.records import Episode, WorkOrder

DAYS: Final = timedelta(days=3)
"""How long an action has to show, and how long the alert must stay away."""


@dataclass(frozen=True)
class Done:
    """One action and whether it helped; None: not known (yet)."""

    action: str
    who: str
    at: datetime
    note: str
    helped: bool | None
    said: bool
    """Whether a person said so; else it follows from what became of the alert."""


@dataclass(frozen=True)
class Handling:
    """How an episode was handled."""

    episode: Episode
    order: WorkOrder | None = None
    done: tuple[Done, ...] = ()
    is_useful: bool | None = None
    """What people said of the alert."""

    @property
    def helped(self) -> bool | None:
        """Whether any action helped; None when nothing is known of any."""
        known = [one.helped for one in self.done if one.helped is not None]
        return any(known) if known else None

    def as_json(self) -> dict[str, Any]:
        """Plain values, instants as ISO text."""
        order, episode = self.order, self.episode
        return {
            "episode": episode.key,
            "first_period": episode.first_period.isoformat(),
            "last_period": episode.last_period.isoformat(),
            "ended": episode.close_reason or "open",
            "order": None
            if order is None
            else {"id": order.id, "state": order.state, "reason": order.close_reason, "note": order.close_note},
            "done": [{**vars(one), "at": one.at.isoformat()} for one in self.done],
            "helped": self.helped,
            "useful": self.is_useful,
        }


class Became(NamedTuple):
    """What became of the alert of an action."""

    episode: Episode
    order: WorkOrder | None
    is_useful: bool | None
    starts: Sequence[datetime]
    """When episodes of the alert were opened."""


def helped(action: ActionRow, became: Became, *, now: datetime) -> bool | None:
    """Whether an action helped; the rule is in the module's docstring."""
    if action.helped is not None:
        return action.helped
    reason = None if became.order is None else became.order.close_reason
    if became.is_useful is False or (reason is not None and USEFUL.get(reason) is not True):
        return None
    closed = became.episode.closed_at
    if closed is None or closed > action.at + DAYS:
        return False if now >= action.at + DAYS else None
    if became.episode.close_reason != "recover":
        return None
    if any(closed < start <= closed + DAYS for start in became.starts):
        return False
    return True if now >= closed + DAYS else None


@dataclass(frozen=True)
class Handlings:
    """How many episodes were handled, by episode."""

    by_episode: Mapping[str, Handling] = field(default_factory=dict)

    @classmethod
    def read(cls, connection: Connection, keys: Collection[str], *, now: datetime) -> Handlings:
        """From the store; five queries however many episodes there are. `now`: aware."""
        found = alert_rows.episodes_by_key(connection, keys)
        actions: dict[str, list[ActionRow]] = {}
        for row in rows.actions_of(connection, found):
            actions.setdefault(row.episode, []).append(row)
        orders = order_rows.by_episode(connection, found)
        words = rows.words_on(connection, found)
        starts = rows.starts_of(connection, {found[key].instance for key in actions})
        handlings = {}
        for key, one in found.items():
            became = Became(one, orders.get(key), words.get(key), starts.get(one.instance, ()))
            done = tuple(_done(action, became, now=now) for action in actions.get(key, ()))
            handlings[key] = Handling(one, became.order, done, became.is_useful)
        return cls(handlings)

    def records(self, similarities: Mapping[str, float]) -> dict[str, Record]:
        """Action → how often it was taken and helped, in these episodes (key → similarity, the weight)."""
        found: dict[str, Record] = {}
        for key, weight in similarities.items():
            handling = self.by_episode.get(key)
            for one in _once(handling.done if handling is not None else ()):
                before = found.get(one.action, Record())
                found[one.action] = Record(
                    taken=round(before.taken + weight, 4),
                    helped=round(before.helped + (weight if one.helped else 0.0), 4),
                    cases=before.cases + 1,
                    cases_helped=before.cases_helped + bool(one.helped),
                )
        return found


def _done(action: ActionRow, became: Became, *, now: datetime) -> Done:
    outcome = helped(action, became, now=now)
    return Done(action.action, action.who, action.at, action.note, outcome, action.helped is not None)


def _once(done: Iterable[Done]) -> Iterable[Done]:
    """Actions with a known outcome, each once per episode: when two people say otherwise, it helped."""
    known = sorted((one for one in done if one.helped is not None), key=lambda one: bool(one.helped))
    return {one.action: one for one in known}.values()
