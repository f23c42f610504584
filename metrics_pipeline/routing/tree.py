"""The tree of routes: what each inherits, which of them an alert ends in, and why.

As Alertmanager walks it: into the first child that matches, into its later siblings too where it says `continue`; an
alert that no child takes stays with the node itself. Everything is inherited but the times and the matchers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from metrics_pipeline.routing.labels import DRILL
from metrics_pipeline.routing.matchers import Matcher, show_matchers
from metrics_pipeline.routing.model import ALL_LABELS, EscalationStep, Route

GROUP_WAIT: Final = timedelta(seconds=30)
GROUP_INTERVAL: Final = timedelta(minutes=5)
REPEAT_INTERVAL: Final = timedelta(hours=4)


@dataclass(frozen=True)
class Timing:
    """How long a group waits: before its first message, before news, before a reminder."""

    group_wait: timedelta = GROUP_WAIT
    group_interval: timedelta = GROUP_INTERVAL
    repeat_interval: timedelta = REPEAT_INTERVAL


@dataclass(frozen=True)
class Node:
    """A route with everything it inherits."""

    id: str
    """The matchers from the root down, `{}/{owner="growth"}`; a number is added where siblings have the same."""
    path: tuple[int, ...]
    """Where it stands: index among its siblings at each level; () is the root."""
    receiver: str
    group_by: tuple[str, ...]
    matchers: tuple[Matcher, ...]
    continues: bool
    timing: Timing
    mute_time_intervals: tuple[str, ...]
    active_time_intervals: tuple[str, ...]
    escalation: tuple[EscalationStep, ...]
    children: tuple[Node, ...]

    @property
    def depth(self) -> int:
        return len(self.path)

    def walk(self) -> Iterator[Node]:
        """Itself and everything below it, in the order of the file."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Step:
    """One node that was looked at on the way of an alert."""

    route: str
    depth: int
    receiver: str
    matched: bool
    failed: str | None
    """The first matcher that did not match."""
    chosen: bool
    """Whether the alert ends here."""


def build_tree(root: Route, *, escalation: tuple[EscalationStep, ...] = ()) -> Node:
    """The tree of a routes file. `escalation`: the common steps."""
    return _node(root, None, (), "", escalation)


def _node(
    route: Route, parent: Node | None, path: tuple[int, ...], suffix: str, common: tuple[EscalationStep, ...]
) -> Node:
    shown = show_matchers(route.conditions) + suffix
    inherited = parent.timing if parent is not None else Timing()
    own = Node(
        id=shown if parent is None else f"{parent.id}/{shown}",
        path=path,
        receiver=route.receiver or (parent.receiver if parent is not None else ""),
        group_by=route.group_by if route.group_by is not None else (parent.group_by if parent is not None else ()),
        matchers=route.conditions,
        continues=route.continues,
        timing=Timing(
            _first(route.group_wait, inherited.group_wait),
            _first(route.group_interval, inherited.group_interval),
            _first(route.repeat_interval, inherited.repeat_interval),
        ),
        mute_time_intervals=route.mute_time_intervals,
        active_time_intervals=route.active_time_intervals,
        escalation=_steps(route.escalation, parent.escalation if parent is not None else common),
        children=(),
    )
    seen: dict[str, int] = {}
    children = []
    for index, child in enumerate(route.routes):
        key = show_matchers(child.conditions)
        seen[key] = seen.get(key, 0) + 1
        number = f"#{seen[key]}" if seen[key] > 1 else ""
        children.append(_node(child, own, (*path, index), number, common))
    return Node(**{**own.__dict__, "children": tuple(children)})


def _first(given: timedelta | None, inherited: timedelta) -> timedelta:
    return inherited if given is None else given


def _steps(
    given: tuple[EscalationStep, ...] | None, inherited: tuple[EscalationStep, ...]
) -> tuple[EscalationStep, ...]:
    return tuple(sorted(inherited if given is None else given, key=lambda step: step.after))


def match(node: Node, labels: Mapping[str, str]) -> list[Node]:
    """The nodes an alert ends in, in the order of the file; [] when even this one does not match."""
    if not all(matcher.matches(labels) for matcher in node.matchers):
        return []
    found: list[Node] = []
    for child in node.children:
        some = match(child, labels)
        found += some
        if some and not child.continues:
            break
    return found or [node]


def trace(node: Node, labels: Mapping[str, str]) -> list[Step]:
    """Every node that was looked at, in order, and why the alert did or did not go in."""
    chosen = {one.id for one in match(node, labels)}
    steps: list[Step] = []

    def look(one: Node) -> bool:
        failed = next((str(matcher) for matcher in one.matchers if not matcher.matches(labels)), None)
        steps.append(Step(one.id, one.depth, one.receiver, failed is None, failed, one.id in chosen))
        if failed is not None:
            return False
        for child in one.children:
            if look(child) and not child.continues:
                break
        return True

    look(node)
    return steps


def group_labels(node: Node, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that make the group of an alert in this route.

    With `...` all but the severity, which is no part of what an alert is: yellow that turns red stays one alert.
    """
    if ALL_LABELS in node.group_by:
        return {name: labels[name] for name in sorted(labels) if name != "severity"}
    return {name: labels[name] for name in sorted({*node.group_by, DRILL}) if name in labels}


def group_key(node: Node, labels: Mapping[str, str]) -> str:
    """`{}/{owner="growth"}:{alertname="traffic_drop"}`: route and labels."""
    shown = ",".join(str(Matcher(name, "=", value)) for name, value in group_labels(node, labels).items())
    return f"{node.id}:{{{shown}}}"
