"""`metrics alerts` and `metrics orders`: what fires, its whole story, and what people do about it.

`app` hangs both up; nothing but the settings is imported before a verb runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import (
    JsonOption,
    fail,
    nearest,
    parse_moment,
    print_json,
    print_table,
    say,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.advice.told import Told
    from metrics_pipeline.alerts.story import Story
    from metrics_pipeline.alerts.work_orders import OrderView
    from metrics_pipeline.diagnosis.attached import Explained
    from metrics_pipeline.store.records import TransitionRow

app = typer.Typer(invoke_without_command=True, help="Alerts: what fires, what happened, what was sent.")
orders_app = typer.Typer(no_args_is_help=True, help="Work orders: who does what about an alert, and what came of it.")

ADVISED = "advised"
"""What the event of an order says that holds its first advice."""
OTHER = "other"
"""An action that is in no playbook."""

RuleOption = Annotated[str | None, typer.Option(help="Only of this rule.")]
LimitOption = Annotated[int, typer.Option(min=1)]
WhoOption = Annotated[
    str | None, typer.Option("--who", help="Who acts; default: METRICS_USER, else the user of this system.")
]
HelpedOption = Annotated[
    bool | None,
    typer.Option("--helped/--not-helped", help="Whether it helped; default: seen from what becomes of the alert."),
]
OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="Its number, or the episode.")]


# -- alerts --------------------------------------------------------------------------------------------------------


@app.callback(
    epilog="Examples: [bold]metrics alerts[/bold] · [bold]metrics alerts --json[/bold] · "
    "[bold]metrics alerts show 'refund_rate_surge{region=华北}'[/bold]"
)
def alerts(context: typer.Context, as_json: JsonOption = False) -> None:
    """Alerts: what fires, what happened, what was sent. Without a verb: list."""
    if context.invoked_subcommand is None:
        alerts_list(as_json=as_json)


@app.command("list", epilog="Example: [bold]metrics alerts list --json[/bold]")
def alerts_list(rule: RuleOption = None, as_json: JsonOption = False) -> None:
    """What fires now, red first."""
    from metrics_pipeline.alerts.listing import current_alerts

    with opened_door() as door:
        found = door.sight.seen(current_alerts(door.store, rule=rule, limit=_reach(door, 200)))
        door.read_alerts(found)
        if not found:
            _is_known(rule, door)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    print_table("Firing now", [alert_row(one) for one in found], numbers=("value",))


@app.command("history", epilog="Example: [bold]metrics alerts history --rule refund_rate_surge[/bold]")
def alerts_history(rule: RuleOption = None, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Changes of state, the newest first."""
    from metrics_pipeline.alerts.listing import alert_history

    with opened_door() as door:
        found = door.sight.seen(alert_history(door.store, rule=rule, limit=_reach(door, limit)))
        if not door.is_open:  # rows of one night follow each other as all rules do, those that are not seen as well
            found.sort(key=lambda one: one.instance)
            found.sort(key=lambda one: (one.at, one.period), reverse=True)
        found = found[:limit]
        door.read_alerts(found)
        if not found:
            _is_known(rule, door)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    print_table(
        "Changes of state",
        [
            {
                "period": f"{one.period:%Y-%m-%d %H:%M}",
                "alert": one.instance,
                "from": _state(one.from_state, one.from_tier),
                "to": _state(one.to_state, one.to_tier),
                "reason": one.reason,
            }
            for one in found
        ],
    )


@app.command("messages", epilog="Example: [bold]metrics alerts messages --rule gmv_drop[/bold]")
def alerts_messages(rule: RuleOption = None, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Notifications and how their delivery stands, the newest first."""
    from metrics_pipeline.alerts.listing import notifications

    with opened_door() as door:
        found = door.messages(notifications(door.store, rule=rule, limit=_reach(door, limit)))
        if not door.is_open:
            found.sort(key=lambda one: one.key)
            found.sort(key=lambda one: one.created_at, reverse=True)
        found = found[:limit]
        if not found:
            _is_known(rule, door)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    print_table("Messages", [message_row(one) for one in found])


@app.command(
    "show",
    epilog="Examples: [bold]metrics alerts show 'refund_rate_surge{region=华北}'[/bold] · "
    "[bold]metrics alerts show 'refund_rate_surge{region=华北}@2026-11-11T00:00' --json[/bold]",
)
def alerts_show(
    key: Annotated[
        str,
        typer.Argument(
            metavar="EPISODE|INSTANCE|RULE",
            help="As `metrics alerts history` names them; a rule, if it has one slice only.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """The whole story of an alert: every change with its reason, who was told what and when, orders, feedback."""
    from metrics_pipeline.alerts.story import UnknownAlert, story_of

    settings = load_settings()
    told: dict[str, Told] = {}
    with opened_door(settings) as door:
        try:
            story = story_of(door.store, key, now=door.now)
            if not door.is_open:
                story = _story_seen(door, story)
        except UnknownAlert as error:
            if not door.is_open:
                door.deny("read", key.partition("@")[0])
                fail(f"there is no alert {key!r} that {door.viewer.person} may see")
            fail(str(error))
        told = _told(door, [one.key for one in story.episodes])
        causes = _causes(door, [one.key for one in story.episodes])
    if as_json:
        found = story.as_json(settings.ui_url)
        currency = settings.installation.currency
        for row in found["episodes"]:
            row.update(
                told[row["key"]].as_json(currency=currency) if row["key"] in told else {"advice": [], "similar": []}
            )
        for row in found["episodes"]:
            row["cause"] = causes[row["key"]].as_json() if row["key"] in causes else None
        for row in found["transitions"]:
            row["run_url"] = _run_link(row["run_id"], settings) if row["run_id"] else None
        print_json(found)
    else:
        _tell(story, settings)
        _tell_causes(causes, settings)
        _tell_advice(told, settings)


@app.command(
    "feedback",
    epilog="Examples: [bold]metrics alerts feedback[/bold] · [bold]metrics alerts feedback "
    "'refund_rate_surge{region=华北}@2026-11-11T00:00' --not-useful --reason 'price test'[/bold]",
)
def alerts_feedback(
    episode: Annotated[str | None, typer.Argument(help="The episode to speak of; without: what was said.")] = None,
    useful: Annotated[bool | None, typer.Option("--useful/--not-useful", help="Was the alert worth it?")] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why, in a few words.")] = "",
    who: WhoOption = None,
    rule: RuleOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say whether an alert was useful, or see what was said of each rule."""
    from metrics_pipeline.alerts.work_orders import count_feedback, give_feedback, list_feedback

    if episode is not None and useful is None:
        usage("say --useful or --not-useful")
    with opened_door() as door, _told_plainly():
        if episode is not None:
            door.require_alerts("acknowledge", [episode])
            said = give_feedback(
                door.store, episode, is_useful=bool(useful), reason=reason, who=door.acts_as(who, "--who"), now=door.now
            )
            if as_json:
                print_json(said._asdict())
            else:
                say(f"Kept: {said.who} finds {said.episode} {'useful' if said.is_useful else 'not useful'}.")
            return
        counts = [one for one in count_feedback(door.store, rule=rule) if _sees_all_of(door, one.rule)]
        if as_json:
            print_json(
                {
                    "rules": [one.as_json() for one in counts],
                    "feedback": [one._asdict() for one in door.sight.seen(list_feedback(door.store, rule=rule))],
                }
            )
            return
    rows = [
        {
            "rule": one.rule,
            "useful": one.useful,
            "not useful": one.not_useful,
            "reasons": ", ".join(f"{reason} ×{number}" for reason, number in one.reasons.items()),
        }
        for one in counts
    ]
    print_table("Feedback", rows, numbers=("useful", "not useful"))


@app.command(
    "did",
    epilog="Example: [bold]metrics alerts did 'refund_rate_surge{region=华北}@2026-11-11T00:00' review_category_refunds "
    "--helped --note 'batch stopped'[/bold]",
)
def alerts_did(
    episode: Annotated[str, typer.Argument(help="The episode, as `metrics alerts show` names it.")],
    action: Annotated[str, typer.Argument(help="What was done: an id of `metrics playbook list`, or other.")],
    helped: HelpedOption = None,
    *,
    note: Annotated[str, typer.Option(help="In a few words.")] = "",
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what was done about an alert; advice on similar ones learns from whether it helped."""
    from metrics_pipeline.alerts.work_orders import record_action

    settings = load_settings()
    _known_action(settings, action)
    with opened_door(settings) as door, _told_plainly():
        door.require_alerts("acknowledge", [episode])
        who = door.acts_as(who, "--who")
        kept = record_action(door.store, episode, action, who=who, now=door.now, note=note, helped=helped)
    if as_json:
        print_json(kept._asdict())
    else:
        said = {True: ", it helped", False: ", it did not help", None: ""}[kept.helped]
        say(f"Kept: {kept.who} did {kept.action} about {kept.episode}{said}.")


def _reach(door: CliDoor, limit: int) -> int:
    """How many rows are read so that `limit` are left of what the policy takes out."""
    return limit if door.is_open else max(limit, 100_000)


def _sees_all_of(door: CliDoor, rule: str) -> bool:
    """Whether they see every slice of a rule, so that a count over all of them is theirs."""
    card = door.sight.cards.get(rule)
    return door.is_open or (card is not None and {} in door.viewer.reading.slices_of(card.metric))


def _story_seen(door: CliDoor, story: Story) -> Story:
    """The story as whoever asks may see it. Raises `UnknownAlert` when they may not know of it."""
    from metrics_pipeline.access.model import Level
    from metrics_pipeline.alerts.sight import without_numbers
    from metrics_pipeline.alerts.story import UnknownAlert

    level = door.sight.level_of(story.key)
    if level == Level.DENIED:
        raise UnknownAlert(story.key)
    orders = tuple(_order_seen(door, one) for one in story.orders)
    if level == Level.EXACT and door.sight.shows_shares(story.key):
        door.read_alerts((*((story.instance,) if story.instance else ()), *story.episodes, *story.transitions))
        return replace(story, orders=orders)
    return replace(
        story,
        instance=None if story.instance is None else without_numbers(story.instance),
        episodes=tuple(map(without_numbers, story.episodes)),
        transitions=tuple(map(without_numbers, story.transitions)),
        orders=orders,
    )


def _told(door: CliDoor, episodes: Sequence[str]) -> dict[str, Told]:
    """The advice on episodes and what is remembered of similar ones, as whoever asks may see it."""
    from metrics_pipeline.advice.told import told_of

    with door.store.reading() as connection:
        found = told_of(connection, episodes, now=door.now)
    return {key: one.seen_by(door.sight) for key, one in found.items()}


def _causes(door: CliDoor, episodes: Sequence[str]) -> dict[str, Explained]:
    """Why the values of episodes were what they were, as whoever asks may see it."""
    from metrics_pipeline.diagnosis.attached import explained_of

    with door.store.reading() as connection:
        found = explained_of(connection, episodes)
    return {key: one.seen_by(door.sight) for key, one in found.items()}


def _order_seen(door: CliDoor, view: OrderView) -> OrderView:
    """An order without the slices that whoever asks may not know of, nor their number, nor advice that rests on such."""
    if door.is_open:
        return view
    from metrics_pipeline.advice.text import order_text

    if any(one.what == ADVISED for one in view.events):
        told = _told(door, [view.order.episode]).get(view.order.episode)
        known = [
            f"{one.action('en')}{order_text(one, 'en')} ({one.owner}; {one.entry})"
            for one in (told.advice if told is not None else ())
        ]
        view = replace(
            view,
            events=tuple(
                one for one in view.events if one.what != ADVISED or any(text in one.detail for text in known)
            ),
        )
    if view.order.slices == 1:
        return view
    from metrics_pipeline.alerts.work_orders import show_order

    every = view.episodes or show_order(door.store, view.order.episode, now=door.now).episodes
    seen = tuple(one for one in every if door.sight.sees(one))
    return replace(view, order=view.order._replace(slices=max(len(seen), 1)), episodes=seen if view.episodes else ())


def _is_known(rule: str | None, door: CliDoor) -> None:
    """End with wrong usage when nothing was found because there is no such rule; alarms and drills are made as they come."""
    if rule is None or ":" in rule:
        return
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.load import load_rules

    settings = door.settings
    ruleset = load_rules(settings.rules_dir, Catalogue.read(settings.dbt_project_dir))
    by_id = {one.id: one for one in ruleset.rules}
    known = {one.id for one in ruleset.rules if door.sees_rule(one, by_id)}
    if door.is_open:
        known |= {one.rule for one in ruleset.problems if one.rule}
    if rule not in known:
        usage(f"there is no rule {rule!r}{nearest(rule, known)}")


# -- orders --------------------------------------------------------------------------------------------------------


@orders_app.command("list", epilog="Example: [bold]metrics orders list --assignee warehouse[/bold]")
def orders_list(
    all_: Annotated[bool, typer.Option("--all", help="Closed ones, too.")] = False,
    rule: RuleOption = None,
    assignee: Annotated[str | None, typer.Option(help="Only theirs.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Open work orders, the one that is due first at the top."""
    from metrics_pipeline.alerts.work_orders import list_orders

    settings = load_settings()
    with opened_door(settings) as door:
        found = list_orders(
            door.store,
            now=door.now,
            states=("open", "assigned", "closed") if all_ else ("open", "assigned"),
            rule=rule,
            assignee=assignee,
            limit=_reach(door, limit),
        )
        found = [_order_seen(door, one) for one in found if door.sight.sees(one.order.episode)][:limit]
    if as_json:
        print_json([one.as_json(settings.ui_url) for one in found])
        return
    print_table("Work orders", [_order_row(one, settings) for one in found])


@orders_app.command("show", epilog="Example: [bold]metrics orders show 12[/bold]")
def orders_show(order: OrderArgument, as_json: JsonOption = False) -> None:
    """One order and what happened to it."""

    settings = load_settings()
    with opened_door(settings) as door, _told_plainly():
        found = _order_seen(door, _order(door, order))
    _show_order(found, settings, as_json=as_json)


@orders_app.command(
    "assign",
    epilog="Example: [bold]metrics orders assign 12 --to 王芳 --due 2026-11-12T18:00[/bold]",
)
def orders_assign(
    order: OrderArgument,
    to: Annotated[str, typer.Option("--to", help="Who does it.")],
    due: Annotated[str | None, typer.Option(metavar="TIME", help="Until when, shop time.")] = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an order to somebody."""
    from metrics_pipeline.alerts.work_orders import assign_order

    settings = load_settings()
    due_at = None if due is None else parse_moment(due, "--due", settings.zone, like="2026-11-12T18:00")
    with opened_door(settings) as door, _told_plainly():
        door.require_alerts("acknowledge", [_order(door, order).order.episode])
        found = assign_order(door.store, order, to, who=door.acts_as(who, "--who"), now=door.now, due_at=due_at)
        found = _order_seen(door, found)
    _show_order(found, settings, as_json=as_json)


@orders_app.command(
    "close",
    epilog="Examples: [bold]metrics orders close 12 --reason fixed --note 'carrier changed'[/bold] · [bold]metrics orders "
    "close 12 --reason fixed --note 'order 4711 placed' --action restock --helped[/bold]",
)
def orders_close(
    order: OrderArgument,
    reason: Annotated[str, typer.Option(help="fixed, false_alarm, expected, duplicate or data_problem.")],
    note: Annotated[str, typer.Option(help="What was found, what was done.")],
    *,
    action: Annotated[
        str | None, typer.Option(help="The advice that was followed: an id of `metrics playbook list`, or other.")
    ] = None,
    helped: HelpedOption = None,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Close an order with what came of it."""
    from metrics_pipeline.alerts.work_orders import close_order

    settings = load_settings()
    if action is not None:
        _known_action(settings, action)
    elif helped is not None:
        usage("say with --action what helped, or did not")
    with opened_door(settings) as door, _told_plainly():
        door.require_alerts("acknowledge", [_order(door, order).order.episode])
        who = door.acts_as(who, "--who")
        found = close_order(door.store, order, reason, note, who=who, now=door.now, action=action, helped=helped)
        found = _order_seen(door, found)
    _show_order(found, settings, as_json=as_json)


def _order(door: CliDoor, order: str) -> OrderView:
    """An order; one that whoever asks may not know of is as unknown to them as one that is not there."""
    from metrics_pipeline.alerts.work_orders import WorkOrderError, show_order

    if door.is_open:
        return show_order(door.store, order, now=door.now)
    try:
        found = show_order(door.store, order, now=door.now)
    except WorkOrderError:
        found = None
    if found is None or not door.sight.sees(found.order.episode):
        door.deny("read", f"order {order}")
        fail(f"there is no work order {order!r} that {door.viewer.person} may see")
    return found


# -- output --------------------------------------------------------------------------------------------------------


def alert_row(one: Any) -> dict[str, Any]:
    """An alert of `listing.current_alerts` as a line."""
    has_bounds = (
        one.yellow_bound is not None or one.red_bound is not None
    )  # a chance is judged by no value of the metric
    return {
        "tier": one.tier,
        "rule": one.rule,
        "slice": "total" if one.dimension == "all" else f"{one.dimension}={one.member}",
        "since": f"{one.since_period:%Y-%m-%d}" if one.since_period else "",
        "value": one.value,
        "expected": one.baseline if has_bounds else None,
        "state": one.state,
    }


def message_row(one: Any) -> dict[str, Any]:
    """A notification of `listing.notifications` as a line."""
    return {
        "tier": one.tier,
        "rule": one.rule,
        "why": one.reason,
        "to": one.receiver,
        "state": one.state,
        "where": _relative(one.answer or ""),
    }


def _tell(story: Story, settings: Settings) -> None:
    one = story.instance
    if one is not None:
        value = "" if one.value is None else f", value {one.value:.4g}"
        since = f" since {one.since_period:%Y-%m-%d %H:%M}" if one.since_period else ""
        say(f"[bold]{one.key}[/bold]: {_state(one.state, one.tier)}{since}{value}")
        if one.unknown_period is not None:
            say(f"Unknown since {one.unknown_period:%Y-%m-%d %H:%M}: {_reason_words(one.unknown_reason)}")
        if one.is_flapping:
            say("It comes and goes (flapping).")
    print_table(
        "Episodes",
        [
            {
                "episode": episode.key,
                "until": f"{episode.last_period:%Y-%m-%d %H:%M}",
                "worst": episode.worst_tier,
                "value": episode.worst_value,
                "ended": episode.close_reason or "open",
                "definition": ", ".join(story.judged_by(episode.key)),
            }
            for episode in story.episodes
        ],
        numbers=("value",),
    )
    say("[bold]Transitions[/bold]")
    for row in story.transitions:
        for line in _transition_lines(row, story, settings):
            typer.echo(line)
    print_table(
        "Messages",
        [
            {
                "at": _local(message.created_at, settings),
                "why": message.reason,
                "tier": message.tier,
                "to": message.receiver,
                "state": message.state,
                "sent": "" if message.sent_at is None else _local(message.sent_at, settings),
                "answer": _relative(message.attempts[-1].answer) if message.attempts else "",
            }
            for message in story.messages
        ],
    )
    if story.orders:
        print_table("Work orders", [_order_row(order, settings) for order in story.orders])
    if story.feedback:
        print_table(
            "Feedback",
            [
                {
                    "at": _local(said.at, settings),
                    "who": said.who,
                    "useful": said.is_useful,
                    "reason": said.reason,
                }
                for said in story.feedback
            ],
        )


def _tell_causes(causes: Mapping[str, Explained], settings: Settings) -> None:
    """The line of each diagnosis, or why there is none, in the installation's language."""
    for key, one in causes.items():
        if text := one.line(settings.locale) or one.reason:
            say("[bold]Likely cause[/bold]" + (f" ({key.rpartition('@')[2]})" if len(causes) > 1 else ""))
            typer.echo(text)


def _tell_advice(told: Mapping[str, Told], settings: Settings) -> None:
    """What to do about each episode, and what was done about similar ones, in the installation's language."""
    locale, currency = settings.locale, settings.installation.currency
    for key, one in told.items():
        for title, lines in (
            ("What to do", one.lines(locale, currency=currency)),
            ("Similar before", one.memory(locale)),
        ):
            if lines:
                say(f"[bold]{title}[/bold]" + (f" ({key.rpartition('@')[2]})" if len(told) > 1 else ""))
                for number, line in enumerate(lines, 1):
                    typer.echo(f"{number}. {line}")


def _known_action(settings: Settings, action: str) -> None:
    """End with wrong usage when the playbook has no such entry."""
    from metrics_pipeline.advice.load import load_playbook

    entries = load_playbook(settings.rules_dir).entries
    if action != OTHER and action not in entries:
        usage(
            f"there is no advice {action!r}{nearest(action, entries)}; `metrics playbook list` has them, or write {OTHER}"
        )


def _transition_lines(row: TransitionRow, story: Story, settings: Settings) -> tuple[str, str]:
    before, after = _state(row.from_state, row.from_tier), _state(row.to_state, row.to_tier)
    change = after if before == after else f"{before} → {after}"
    is_plain = row.verdict_reason in ("", "ok", "breach")
    why = row.reason if is_plain else f"{row.reason} ({_reason_words(row.verdict_reason)})"
    value = "" if row.value is None else f", value {row.value:.4g}"
    rule = f"{row.previous_rule_hash} → {row.rule_hash}" if row.previous_rule_hash else row.rule_hash
    facts = {
        "rule": rule,
        "metric": story.versions.get(row.metric_version, row.metric_version),
        "data": row.data_version,
        "run": _run_link(row.run_id, settings) if row.run_id else "",
    }
    known = [f"{name} {fact}" for name, fact in facts.items() if fact]  # nothing computes what somebody announced
    return (
        f"{row.period:%Y-%m-%d %H:%M}  {change}: {why}{value}",
        "    " + ", ".join([*known, _local(row.at, settings), *(["silent"] if row.silent else [])]),
    )


def _run_link(run_id: str, settings: Settings) -> str:
    """Where the run is in the Dagster UI."""
    return f"{settings.ui_url.rstrip('/')}/runs/{run_id}"


def _order_row(view: OrderView, settings: Settings) -> dict[str, Any]:
    order = view.order
    return {
        "order": str(order.id),
        "tier": order.tier,
        "state": "overdue" if view.is_overdue else order.state,
        "assignee": order.assignee,
        "due": _local(order.due_at, settings),
        "episode": order.episode if order.slices == 1 else f"{order.episode} and {order.slices - 1:,} more",
        "reason": "" if order.close_reason is None else _close_words(order.close_reason),
        "note": order.close_note,
    }


def _show_order(view: OrderView, settings: Settings, *, as_json: bool) -> None:
    if as_json:
        print_json(view.as_json(settings.ui_url))
        return
    print_table("Work order", [_order_row(view, settings)])
    for name, link in view.links(settings.ui_url).items():
        typer.echo(f"{name}: {link}")  # in one line, however long, to be copied
    print_table(
        "What happened",
        [
            {"at": _local(event.at, settings), "who": event.who, "what": event.what, "detail": event.detail}
            for event in view.events
        ],
    )


def _state(state: str, tier: str) -> str:
    return f"{state} {tier}".removesuffix(" none")


def _reason_words(reason: str) -> str:
    from metrics_pipeline.alerts.ladder import LADDER, UNJUDGED_WORDS

    if reason in UNJUDGED_WORDS:
        zh, en = UNJUDGED_WORDS[reason]
        return f"{en} {zh}"
    rung = LADDER.get(reason)
    return reason if rung is None else f"{rung.en} {rung.zh}"


def _close_words(reason: str) -> str:
    from metrics_pipeline.alerts.work_orders import CLOSE_WORDS

    zh, en = CLOSE_WORDS.get(reason, ("", reason))
    return f"{en} {zh}".strip()


def _local(moment: datetime, settings: Settings) -> str:
    return f"{moment.astimezone(settings.zone):%Y-%m-%d %H:%M}"


def _relative(text: str) -> str:
    return text.removeprefix(str(Path.cwd()) + os.sep)


@contextmanager
def _told_plainly() -> Iterator[None]:
    """What cannot be done ends the program with its message."""
    from metrics_pipeline.alerts.work_orders import WorkOrderError

    try:
        yield
    except WorkOrderError as error:
        fail(str(error))
