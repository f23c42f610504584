"""Work orders: what is done about an alert, by whom, until when, and how it ended. One episode, one order.

When many slices of a rule begin in one tick (`limits: {work_orders: 20}`), they are one piece of work for one person, and
share one order per rule and first period: it stands at its worst episode, and every other one is linked to it.

Orders are opened by the tick, in its transaction; people assign and close them. An order stays open when its alert ends: only
a person says what came of it. Rules choose with the label `work_order`: red (default), yellow or never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.notice import RuleCard, check_page, is_drill, severity
from metrics_pipeline.alerts.state import RANK
from metrics_pipeline.alerts.tick import Tick
from metrics_pipeline.routing.model import Limits
from metrics_pipeline.store import Store
from metrics_pipeline.store import work_orders as repository
from metrics_pipeline.store.advice import ActionRow, add_action
from metrics_pipeline.store.records import Feedback, Instance, OrderEvent, OrderState, WorkOrder
from metrics_pipeline.store.tables import episodes, work_orders

CloseReason = Literal["fixed", "false_alarm", "expected", "duplicate", "data_problem"]
CLOSE_REASONS: Final[tuple[CloseReason, ...]] = get_args(CloseReason)
CLOSE_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "fixed": ("已修复", "fixed"),
    "false_alarm": ("误报", "false alarm"),
    "expected": ("预期之内", "expected"),
    "duplicate": ("重复", "duplicate"),
    "data_problem": ("数据问题", "data problem"),
}
"""Close reasons for people, Chinese and English."""
USEFUL: Final[Mapping[str, bool]] = {"fixed": True, "false_alarm": False, "expected": False}
"""What a close reason says of the alert; a duplicate and a data problem say nothing of the rule."""

DUE_AFTER: Final[Mapping[str, timedelta]] = {"red": timedelta(hours=24), "yellow": timedelta(hours=72)}
"""A red alert is a matter of the day, a yellow one of the week."""
LABEL: Final = "work_order"
SYSTEM: Final = "system"
"""Who acts when it is no person."""


class WorkOrderError(ValueError):
    """What was asked cannot be done to this order; the message says what to do."""


@dataclass(frozen=True)
class OrderView:
    """One order and what happened to it, oldest first."""

    order: WorkOrder
    events: tuple[OrderEvent, ...] = ()
    is_overdue: bool = False
    episodes: tuple[str, ...] = ()
    """Of `show_order`: all episodes it is about, its own first."""

    def links(self, ui_url: str) -> dict[str, str]:
        """Where to look, by name: the rule's runbook, its metric's asset and, in the Dagster UI at `ui_url`, its check."""
        asset = self.order.links.get("asset", "")
        page = {"check": check_page(ui_url, asset.split("/"), self.order.rule)} if asset else {}
        return {**self.order.links, **page}

    def as_json(self, ui_url: str) -> dict[str, Any]:
        """Plain values; instants as ISO text in UTC. `ui_url`: of the Dagster UI, for the links."""
        data = {**self.order._asdict(), "links": self.links(ui_url), "is_overdue": self.is_overdue}
        data["events"] = [event._asdict() for event in self.events]
        if self.episodes:
            data["episodes"] = list(self.episodes)
        plain: dict[str, Any] = _plain(data)
        return plain


@dataclass(frozen=True)
class FeedbackCount:
    """What people said of a rule's alerts; each person's newest word on each episode."""

    rule: str
    useful: int
    not_useful: int
    reasons: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def open_orders(
    connection: Connection, tick: Tick, cards: Mapping[str, RuleCard], *, most: int = Limits().work_orders
) -> tuple[str, ...]:
    """Open the orders that the due firing alerts of a tick still lack; returns their episodes.

    Decided by level, so a silent run opens none and the next night does. More than `most` of one rule and first period share
    one order, and so do those that come to them while it is open. An order of which an episode turned red becomes red; one of
    which an episode begins again after a restatement is opened again.
    """
    wanted = {
        one.episode: one
        for one in tick.instances.values()
        if one.episode is not None
        and one.state == "firing"
        and one.key in tick.due
        and RANK[one.tier] >= _threshold(cards[one.rule])
    }
    known = repository.by_episode(connection, wanted.keys())
    together: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for key, one in wanted.items():
        if key not in known:
            together[one.rule, _period(key)].append(one)
    open_joint = repository.open_joint(connection, {rule for rule, _ in together}) if together else []
    joint = {(order.rule, _period(order.episode)): order for order in open_joint}
    new: list[tuple[Any, ...]] = []
    links: dict[str, str] = {}
    for place, some in together.items():
        if place in joint:
            links |= dict.fromkeys((str(one.episode) for one in some), joint[place].episode)
            _join(connection, joint[place], some, tick)
        elif len(some) > most:
            worst = min(some, key=severity)
            new.append(_opened(worst, cards, tick, slices=len(some)))
            links |= dict.fromkeys((str(one.episode) for one in some if one is not worst), str(worst.episode))
        else:
            new += [_opened(one, cards, tick) for one in some]
    repository.insert(connection, new)
    repository.join(connection, links)
    _follow_up(connection, known, wanted, tick)
    return tuple(row[0] for row in new)


def _opened(one: Instance, cards: Mapping[str, RuleCard], tick: Tick, *, slices: int = 1) -> tuple[Any, ...]:
    card = cards[one.rule]
    due = tick.now + DUE_AFTER[one.tier]
    return one.episode, one.key, one.rule, one.tier, "open", card.owner, tick.now, due, _links(card), slices


def _join(connection: Connection, order: WorkOrder, some: Sequence[Instance], tick: Tick) -> None:
    _change(
        connection,
        order,
        "joined",
        f"{len(some)} more",
        who=SYSTEM,
        now=tick.now,
        slices=order.slices + len(some),
    )
    if order.tier != "red" and any(one.tier == "red" for one in some):
        _turn_red(connection, order, tick)


def _follow_up(
    connection: Connection, known: Mapping[str, WorkOrder], wanted: Mapping[str, Instance], tick: Tick
) -> None:
    """What became of episodes that have an order, each order once."""
    of_order: dict[str, list[str]] = defaultdict(list)
    for key, order in known.items():
        of_order[order.episode].append(key)
    for keys in of_order.values():
        order = known[keys[0]]
        if order.state == "closed":
            if any(key in tick.opened for key in keys):
                _change(connection, order, "reopened", "", who=SYSTEM, now=tick.now, state="open", closed_at=None)
        elif any(RANK[order.tier] < RANK[wanted[key].tier] for key in keys):
            _turn_red(connection, order, tick)


def _turn_red(connection: Connection, order: WorkOrder, tick: Tick) -> None:
    due = min(order.due_at, tick.now + DUE_AFTER["red"])
    _change(connection, order, "escalated", "red", who=SYSTEM, now=tick.now, tier="red", due_at=due)


def _period(episode: str) -> str:
    return episode.rpartition("@")[2]


def list_orders(
    store: Store,
    *,
    now: datetime,
    states: Sequence[OrderState] = ("open", "assigned"),
    rule: str | None = None,
    assignee: str | None = None,
    limit: int = 200,
) -> list[OrderView]:
    """Orders in these states, the one that is due first at the top."""
    with store.reading() as connection:
        found = repository.orders(connection, states=states, rule=rule, assignee=assignee, limit=limit)
    return [_view(order, (), now) for order in found]


def show_order(store: Store, reference: str, *, now: datetime) -> OrderView:
    """One order by its number or an episode it is about. Raises `WorkOrderError` when there is none."""
    with store.reading() as connection:
        order = _find(connection, reference)
        view = _view(order, repository.events_of(connection, order.episode), now)
        return replace(view, episodes=(order.episode, *repository.joined(connection, order.episode)))


def assign_order(
    store: Store, reference: str, assignee: str, *, who: str, now: datetime, due_at: datetime | None = None
) -> OrderView:
    """Give an order to somebody, with another due time if one is given. Raises `WorkOrderError`."""
    if not assignee.strip():
        raise WorkOrderError("an order needs somebody who does it; give a name")
    with store.writing("alerts") as connection:
        order = _find(connection, reference)
        if order.state == "closed":
            raise WorkOrderError(f"order {order.id} is closed ({order.close_reason}); nobody can be assigned to it")
        due = order.due_at if due_at is None else due_at
        detail = assignee if due == order.due_at else f"{assignee}, due {due.isoformat(timespec='minutes')}"
        if (assignee, due, "assigned") != (order.assignee, order.due_at, order.state):
            _change(
                connection, order, "assigned", detail, who=who, now=now, state="assigned", assignee=assignee, due_at=due
            )
    return show_order(store, reference, now=now)


def close_order(
    store: Store,
    reference: str,
    reason: str,
    note: str,
    *,
    who: str,
    now: datetime,
    action: str | None = None,
    helped: bool | None = None,
) -> OrderView:
    """Close an order with what came of it. `reason`: one of `CLOSE_REASONS`; `note`: what was found or done; `action`: the
    advice that was followed, by its id, and whether it helped as far as that is known already.

    The reason counts as feedback on the alert where it says something of the rule (`USEFUL`). The same close again changes
    nothing. Raises `WorkOrderError` for an unknown reason, an empty note, and an order that was closed otherwise.
    """
    if reason not in CLOSE_REASONS:
        raise WorkOrderError(f"unknown reason {reason!r}; use one of {', '.join(CLOSE_REASONS)}")
    if not note.strip():
        raise WorkOrderError("a closed order needs a note: what was found, what was done")
    with store.writing("alerts") as connection:
        order = _find(connection, reference)
        if order.state == "closed" and (order.close_reason, order.close_note) != (reason, note):
            raise WorkOrderError(f"order {order.id} was closed by {order.closed_by} as {order.close_reason} already")
        if order.state != "closed":
            done = {"state": "closed", "closed_at": now, "closed_by": who, "close_reason": reason, "close_note": note}
            _change(connection, order, "closed", f"{reason}: {note}", who=who, now=now, **done)
            if reason in USEFUL:
                repository.add_feedback(
                    connection, Feedback(order.episode, order.rule, USEFUL[reason], reason, who, now)
                )
        if action is not None:
            add_action(connection, ActionRow(order.episode, order.rule, action, who, now, note, helped))
    return show_order(store, reference, now=now)


def record_action(
    store: Store, episode: str, action: str, *, who: str, now: datetime, note: str = "", helped: bool | None = None
) -> ActionRow:
    """Keep that somebody did something about an alert; said again, the newest word counts. Raises `WorkOrderError`."""
    with store.writing("alerts") as connection:
        taken = ActionRow(episode, _rule_of(connection, episode), action, who, now, note, helped)
        add_action(connection, taken)
    return taken


def give_feedback(store: Store, episode: str, *, is_useful: bool, reason: str, who: str, now: datetime) -> Feedback:
    """Keep what somebody thinks of an alert. Raises `WorkOrderError` when there is no such episode."""
    with store.writing("alerts") as connection:
        rule = _rule_of(connection, episode)
        if is_drill(rule):
            raise WorkOrderError(f"{episode!r} is a drill: it says nothing of a rule, so it takes no feedback")
        given = Feedback(episode, rule, is_useful, reason, who, now)
        repository.add_feedback(connection, given)
    return given


def _rule_of(connection: Connection, episode: str) -> str:
    rule: str | None = connection.execute(
        sa.select(episodes.c.rule).where(episodes.c.key == episode)
    ).scalar_one_or_none()
    if rule is None:
        raise WorkOrderError(f"there is no episode {episode!r}; `metrics alerts show` lists those of an alert")
    return rule


def list_feedback(store: Store, *, rule: str | None = None, episode: str | None = None) -> list[Feedback]:
    """What people said, oldest first."""
    with store.reading() as connection:
        return repository.feedback(connection, rule=rule, episode=episode)


def count_feedback(store: Store, *, rule: str | None = None) -> list[FeedbackCount]:
    """What people said of each rule that was spoken of, by rule; a later word replaces an earlier one."""
    newest = {(one.episode, one.who): one for one in list_feedback(store, rule=rule)}
    counts = []
    for name in sorted({one.rule for one in newest.values()}):
        said = [one for one in newest.values() if one.rule == name]
        reasons = sorted(one.reason for one in said if one.reason)
        counts.append(
            FeedbackCount(
                rule=name,
                useful=sum(one.is_useful for one in said),
                not_useful=sum(not one.is_useful for one in said),
                reasons={reason: reasons.count(reason) for reason in reasons},
            )
        )
    return counts


def _threshold(card: RuleCard) -> int:
    """The rank from which an episode opens an order."""
    return {"yellow": RANK["yellow"], "never": max(RANK.values()) + 1}.get(card.labels.get(LABEL, ""), RANK["red"])


def _links(card: RuleCard) -> dict[str, str]:
    found = {"runbook": card.annotations.get("runbook", ""), "asset": "/".join(card.asset_key)}
    return {name: link for name, link in found.items() if link}


def _find(connection: Connection, reference: str) -> WorkOrder:
    if reference.isdigit():
        found = repository.one(connection, work_orders.c.id == int(reference))
    else:
        found = repository.by_episode(connection, [reference]).get(reference)
    if found is None:
        raise WorkOrderError(f"there is no order {reference!r}; `metrics orders list` shows the open ones")
    return found


def _change(
    connection: Connection, order: WorkOrder, what: str, detail: str, *, who: str, now: datetime, **values: Any
) -> None:
    repository.update(connection, order.episode, values)
    repository.add_event(connection, OrderEvent(order.episode, now, who, what, detail))


def _view(order: WorkOrder, events: Sequence[OrderEvent], now: datetime) -> OrderView:
    opened = OrderEvent(order.episode, order.opened_at, SYSTEM, "opened", "")
    return OrderView(order, (opened, *events), is_overdue=order.state != "closed" and order.due_at < now)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
