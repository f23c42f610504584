"""`metrics routes`: whom an alert would go to, and why.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from metrics_pipeline.cli.door import require_operator
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    console,
    parse_moment,
    print_json,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.routing.decide import Decision, Destination, Recipient, Routing
    from metrics_pipeline.routing.tree import Node
    from metrics_pipeline.rules.load import RuleSet

app = typer.Typer(no_args_is_help=True, help="Routes: whom an alert goes to, and why.")


@app.command(
    "test",
    epilog="Examples: [bold]metrics routes test --label severity=red --label region=华东[/bold] · "
    "[bold]metrics routes test --rule refund_rate_surge --label severity=red --at 2026-11-11T23:30[/bold] · "
    "[bold]metrics routes test --rule pipeline_failed --label job=nightly[/bold]",
)
def routes_test(
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label of the alert; repeat it.")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="Take the labels of this rule, or alarm about the pipeline; --label adds to them."),
    ] = None,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="Shop time; default: now.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show where an alert with these labels would go, by which way, and whether it would wait. Exit code 1 when nobody gets it."""
    settings = load_settings()
    require_operator(settings)
    routing, ruleset = open_routing(settings)
    moment = datetime.now(UTC) if at is None else parse_moment(at, "--at", settings.zone, like="2026-11-11T23:30")
    labels: dict[str, str] = {}
    if rule is not None:
        labels |= _labels_of(rule, ruleset, settings, routing)
    for text in label or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            usage(f"--label {text!r} is not NAME=VALUE; write --label severity=red")
        labels[name.strip()] = value.strip().strip('"')
    labels.setdefault("severity", "yellow")
    decision = routing.explain(labels, moment)
    if as_json:
        print_json({"at": moment.isoformat(), "labels": labels, **decision_json(decision)})
    else:
        _tell(decision, labels, moment, settings)
    if not any(one.recipients for one in decision.destinations):
        raise typer.Exit(PROBLEM)


@app.command("show", epilog="Examples: [bold]metrics routes show[/bold] · [bold]metrics routes show --json[/bold]")
def routes_show(as_json: JsonOption = False) -> None:
    """Show the tree of routes, the receivers, and what is wrong with the files. Exit code 1 when something is."""
    settings = load_settings()
    require_operator(settings)
    routing, _ = open_routing(settings)
    now = datetime.now(UTC)
    if as_json:
        print_json(
            {
                "routes": _node_json(routing.root),
                "receivers": {
                    name: receiver.model_dump(mode="json") for name, receiver in sorted(routing.receivers.items())
                },
                "on_call": _on_call(routing, now),
                "drills": _drills(routing, now),
                "problems": [str(problem) for problem in routing.problems],
            }
        )
    else:
        out = console()
        tree = Tree(_node_text(routing.root))
        _grow(tree, routing.root)
        out.print(tree)
        for rotation, person in _on_call(routing, now).items():
            out.print(f"on call in {rotation}: {person or 'nobody'}")
        for drill in _drills(routing, now):
            out.print(f"next drill of {drill['of']}: {drill['next']}, {drill['severity']}", markup=False)
    for problem in routing.problems:
        typer.echo(str(problem), err=True)
    if routing.problems:
        raise typer.Exit(PROBLEM)


@app.command("schema", epilog="Example: [bold]metrics routes schema > routes.schema.json[/bold]")
def routes_schema() -> None:
    """Print the JSON Schema of a routes file, for editors."""
    from metrics_pipeline.routing.model import routes_schema

    print_json(routes_schema())


def open_routing(settings: Settings, folder: Path | None = None) -> tuple[Routing, RuleSet]:
    """The routing of an installation (or of another folder of rules) and its rules."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.routing.load import routing_of
    from metrics_pipeline.rules.load import load_rules

    catalogue = Catalogue.read(settings.dbt_project_dir)
    chosen = settings if folder is None else settings.model_copy(update={"rules_dir": folder})
    ruleset = load_rules(chosen.rules_dir, catalogue)
    return routing_of(chosen, rules=ruleset.rules, metrics=catalogue.metrics), ruleset


def _drills(routing: Routing, now: datetime) -> list[dict[str, str]]:
    """The scheduled drills with the next time of each, shop time."""
    clock = now.astimezone(routing.local).replace(tzinfo=None)
    return [
        {
            "of": " ".join([plan.rule or "no rule", *(f"{name}={value}" for name, value in plan.slice.items())]),
            "next": plan.next_time(clock).isoformat(" ", "minutes"),
            "severity": plan.severity,
            "receiver": plan.receiver or "",
        }
        for plan in routing.drills
    ]


def decision_json(decision: Decision) -> dict[str, Any]:
    """A decision as plain JSON values."""
    return {
        "destinations": [_destination_json(one) for one in decision.destinations],
        "trace": [
            {"route": step.route, "matched": step.matched, "failed": step.failed, "chosen": step.chosen}
            for step in decision.trace
        ],
    }


def _destination_json(one: Destination) -> dict[str, Any]:
    from metrics_pipeline.routing.durations import format_duration

    return {
        "route": one.route,
        "receiver": one.receiver,
        "recipients": [
            {
                "to": recipient.key,
                "people": list(recipient.people),
                "mentions": list(recipient.mentions),
                "language": recipient.language,
            }
            for recipient in one.recipients
        ],
        "group": one.group_key,
        "group_wait": format_duration(one.timing.group_wait),
        "group_interval": format_duration(one.timing.group_interval),
        "repeat_interval": format_duration(one.timing.repeat_interval),
        "muted": one.mute is not None,
        "muted_until": one.muted_until.isoformat() if one.muted_until else None,
        "muted_because": one.mute.reason if one.mute else None,
        "muted_because_zh": one.mute.reason_zh if one.mute else None,
        "send_resolved": one.send_resolved,
        "escalation": [{"after": format_duration(step.after), "receiver": step.receiver} for step in one.escalation],
        "fallback": one.fell_back,
    }


def _tell(decision: Decision, labels: dict[str, str], moment: datetime, settings: Settings) -> None:
    from metrics_pipeline.routing.durations import format_duration

    out = console()
    shown = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    out.print(Text(f"{{{shown}}} at {moment.astimezone(settings.zone):%Y-%m-%d %H:%M %Z}", style="bold"))
    for step in decision.trace:
        mark = "→" if step.chosen else "✓" if step.matched else "✗"
        why = f"  ({step.failed} does not match)" if step.failed else ""
        name = step.route.rpartition("/")[2]
        style = "green" if step.chosen else "" if step.matched else "dim"
        out.print(Text(f"{'  ' * step.depth}{mark} {name} {step.receiver}{why}", style=style))
    for one in decision.destinations:
        out.print()
        out.print(
            Text(f"receiver {one.receiver}{' (reaches nobody: fallback)' if one.fell_back else ''}", style="bold")
        )
        for recipient in one.recipients:
            out.print(Text(f"  to {_recipient(recipient)}"))
        out.print(Text(f"  group {one.group_key}"))
        timing = one.timing
        out.print(
            f"  first after {format_duration(timing.group_wait)}, news after {format_duration(timing.group_interval)}, "
            f"again after {format_duration(timing.repeat_interval)}"
        )
        for escalation in one.escalation if labels.get("severity") == "red" else ():
            out.print(f"  not acknowledged after {format_duration(escalation.after)}: {escalation.receiver}")
        if one.mute is not None:
            until = (
                f"{one.mute.until.astimezone(settings.zone):%Y-%m-%d %H:%M}" if one.mute.until else "no end in sight"
            )
            out.print(Text(f"  waits until {until}: {one.mute.reason} / {one.mute.reason_zh}", style="yellow"))
        if not one.send_resolved:
            out.print("  the end is not told")


def _recipient(one: Recipient) -> str:
    who = f" for {', '.join(one.people)}" if one.people else ""
    mentions = f", calling {', '.join(one.mentions)}" if one.mentions else ""
    return f"{one.key}{who}{mentions}"


def _node_text(node: Node) -> Text:
    name = node.id.rpartition("/")[2]
    text = Text.assemble((name, "bold"), f" {node.receiver}", (f"  by {', '.join(node.group_by) or 'nothing'}", "dim"))
    if node.continues:
        text.append("  continue", "dim")
    for names, word in ((node.mute_time_intervals, "mute in"), (node.active_time_intervals, "active in")):
        if names:
            text.append(f"  {word} {', '.join(names)}", "yellow")
    return text


def _grow(tree: Tree, node: Node) -> None:
    for child in node.children:
        _grow(tree.add(_node_text(child)), child)


def _node_json(node: Node) -> dict[str, Any]:
    from metrics_pipeline.routing.durations import format_duration

    return {
        "id": node.id,
        "receiver": node.receiver,
        "matchers": [str(matcher) for matcher in node.matchers],
        "group_by": list(node.group_by),
        "continue": node.continues,
        "group_wait": format_duration(node.timing.group_wait),
        "group_interval": format_duration(node.timing.group_interval),
        "repeat_interval": format_duration(node.timing.repeat_interval),
        "mute_time_intervals": list(node.mute_time_intervals),
        "active_time_intervals": list(node.active_time_intervals),
        "routes": [_node_json(child) for child in node.children],
    }


def _on_call(routing: Routing, now: datetime) -> dict[str, str | None]:
    directory = routing.directory
    found = {name: directory.on_call(name, now) for name in directory.rotations}
    return {name: person.id if person is not None else None for name, person in found.items()}


def _labels_of(rule_id: str, ruleset: RuleSet, settings: Settings, routing: Routing) -> dict[str, str]:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.routing.labels import PIPELINE, pipeline_labels, rule_labels

    if rule_id in PIPELINE:
        return {**pipeline_labels(rule_id), "severity": "red"}
    try:
        rule = ruleset[rule_id]
    except KeyError as error:
        usage(str(error.args[0]))
    return rule_labels(rule, Catalogue.read(settings.dbt_project_dir).metrics[rule.metric], routing.directory)
