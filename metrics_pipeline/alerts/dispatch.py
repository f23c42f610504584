"""What people are told, and when: of one tick, in its transaction, and later as time passes.

`dispatch` is called by the tick: who is to know of what (`addressing`), then one round of telling (`flush`). What has to
wait (for its group, for the morning, for a silence to end, for an acknowledgement) is found again by `dispatch_due`. Both write
to the outbox only; a message that is written will be sent (`delivery.outbox`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.addressing import address
from metrics_pipeline.alerts.flush import Round
from metrics_pipeline.alerts.notice import RuleCard, SeriesSource, is_drill
from metrics_pipeline.alerts.tick import Tick
from metrics_pipeline.routing.decide import Routing, direct
from metrics_pipeline.store import Store
from metrics_pipeline.store import dispatch as rows
from metrics_pipeline.store.audit import Caller, Event, record_all

JUDGE = Caller("service.nightly", "dagster")
"""Who takes note of rules in the audit log: rule files change by git, and count from the first tick that has them."""
_CONDITIONS = ("expression", "yellow_if", "red_if", "owner")


def dispatch(
    connection: Connection,
    tick: Tick,
    cards: Mapping[str, RuleCard],
    *,
    receivers: Sequence[str] | Routing,
    series: SeriesSource | None = None,
) -> tuple[str, ...]:
    """Queue what is to be told of this tick, and what has become due; returns the keys of the outbox rows.

    `cards`: one per rule of the tick. `receivers`: a routing, or a list of `<channel>[:<address>]` who are told of
    everything at once. `series`: where plots get their points; when it fails the notices go out without a plot.
    """
    routing = receivers if isinstance(receivers, Routing) else direct(receivers)
    known = _remember(connection, cards, now=tick.now)
    addressed = address(connection, tick, routing, known)
    groups = addressed.groups | rows.due_groups(connection, tick.now) | rows.inhibited_groups(connection)
    return Round(
        connection,
        routing,
        known,
        now=tick.now,
        local=routing.local,
        series=series,
        eased=addressed.eased,
        lost=tick.no_data,
    ).run(groups)


def dispatch_due(
    store: Store, routing: Routing, *, now: datetime, series: SeriesSource | None = None
) -> tuple[str, ...]:
    """Queue what has become due by time: groups, reminders, escalations, ends of silences and quiet hours, digests.

    Returns the keys of the outbox rows. Costs one small query when nothing is due. `now`: aware.
    """
    with store.reading() as connection:
        wake_at = rows.next_wake(connection)
    if wake_at is None or wake_at > now:
        return ()
    with store.writing("alerts") as connection:
        groups = rows.due_groups(connection, now)
        known = _cards(connection)
        return Round(connection, routing, known, now=now, local=routing.local, series=series).run(groups)


def _remember(connection: Connection, cards: Mapping[str, RuleCard], *, now: datetime) -> dict[str, RuleCard]:
    """The cards of all rules; those of the tick are kept for later rounds, and for the end of a rule that is gone."""
    stored = rows.cards(connection)
    fresh = {rule: card.to_json() for rule, card in cards.items() if card.metric}
    changed = {rule: card for rule, card in fresh.items() if stored.get(rule) != card}
    rows.save_cards(connection, changed, now=now)
    events = [_change(rule, stored.get(rule), card) for rule, card in sorted(changed.items()) if not is_drill(rule)]
    record_all(connection, JUDGE, events, now=now)
    found = {rule: RuleCard.from_json(card) for rule, card in stored.items() if rule not in fresh}
    return {**cards, **found, **{rule: cards[rule] for rule in fresh}}


def _change(rule: str, former: Mapping[str, Any] | None, card: Mapping[str, Any]) -> Event:
    """What the audit log says of a rule that is judged for the first time, or not as it was."""
    if former is None:
        return Event("rule.add", rule, details={name: card[name] for name in ("metric", *_CONDITIONS)})
    names = sorted(name for name in {*former, *card} if former.get(name) != card.get(name))
    return Event("rule.change", rule, details={name: [former.get(name), card.get(name)] for name in names})


def _cards(connection: Connection) -> dict[str, RuleCard]:
    return {rule: RuleCard.from_json(card) for rule, card in rows.cards(connection).items()}
