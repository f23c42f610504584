"""What is wrong with routes and people beyond the shape of single keys: one check per function, all problems at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from metrics_pipeline.nearest import nearest
from metrics_pipeline.routing.channels import BUILT_IN, ChannelCard
from metrics_pipeline.routing.document import Document
from metrics_pipeline.routing.labels import SEVERITIES, SEVERITY
from metrics_pipeline.routing.matchers import Matcher
from metrics_pipeline.routing.model import ALL_LABELS, Route, RoutesFile
from metrics_pipeline.routing.people import Directory, PeopleFile
from metrics_pipeline.routing.tree import Node
from metrics_pipeline.rules.load import Problem

if TYPE_CHECKING:
    from metrics_pipeline.rules.model import Rule

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Universe:
    """Every label an alert of these rules can have, and the values of those whose values are known from the rules."""

    values: Mapping[str, frozenset[str]]
    """Label → its values; with '' where an alert may lack it."""
    open_labels: frozenset[str] = field(default_factory=frozenset)
    """Labels of slices, whose values only the data knows."""

    @classmethod
    def of(cls, alerts: Iterable[tuple[Mapping[str, str], Collection[str]]]) -> Universe:
        """From each rule's shared labels and its dimensions."""
        found: dict[str, set[str]] = {}
        dimensions: set[str] = set()
        every = [(dict(labels), by) for labels, by in alerts]
        for labels, by in every:
            dimensions |= set(by)
            for name, value in labels.items():
                found.setdefault(name, set()).add(value)
        for name, values in found.items():
            if any(name not in labels for labels, _ in every):
                values.add("")
        found[SEVERITY] = set(SEVERITIES)
        return cls(
            {name: frozenset(values) for name, values in found.items() if name not in dimensions}, frozenset(dimensions)
        )

    def has(self, label: str) -> bool:
        """Whether any alert can have this label."""
        return label in self.values or label in self.open_labels

    @property
    def names(self) -> list[str]:
        return sorted({*self.values, *self.open_labels})


def lint_routes(
    file: RoutesFile,
    root: Node,
    document: Document,
    *,
    directory: Directory,
    channels: Mapping[str, ChannelCard],
    universe: Universe | None,
    slices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Every check of the routes file; problems go to the document. `slices`: rule → its dimensions."""
    _root(file, document)
    _names(file, document)
    _routes(file, document)
    _receivers(file, document, directory, channels)
    _unused(file, document)
    if slices is not None:
        _drills(file, document, slices)
    if universe is not None:
        _labels(file, document, universe)
    _unreachable(root, document, universe)


def _root(file: RoutesFile, document: Document) -> None:
    route = file.route
    if not route.receiver:
        document.report(
            ("route",), "the root route has no receiver", "give it receiver: <name>, for what nothing else matches"
        )
    if route.conditions:
        document.report(
            ("route",), "the root route has matchers, but every alert must enter it", "move them to a child"
        )
    if route.mute_time_intervals or route.active_time_intervals:
        document.report(("route",), "the root route cannot be mute or active by time", "move the times to a child")
    if route.continues:
        document.report(("route", "continue"), "the root route has no siblings to continue with", "remove continue")


def _names(file: RoutesFile, document: Document) -> None:
    for key, names in (
        ("receivers", [one.name for one in file.receivers]),
        ("time_intervals", [one.name for one in file.time_intervals]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                document.report((key, index), f"two of the {key} are named {name!r}", "rename one of them")


def _walk(route: Route, place: Place = ("route",)) -> Iterator[tuple[Route, Place]]:
    yield route, place
    for index, child in enumerate(route.routes):
        yield from _walk(child, (*place, "routes", index))


def _routes(file: RoutesFile, document: Document) -> None:
    receivers = [one.name for one in file.receivers]
    intervals = [one.name for one in file.time_intervals]
    named: list[tuple[str, Place]] = []
    for route, place in _walk(file.route):
        if route.receiver:
            named.append((route.receiver, (*place, "receiver")))
        named += [(step.receiver, (*place, "escalation", n)) for n, step in enumerate(route.escalation or ())]
        for key in ("mute_time_intervals", "active_time_intervals"):
            for index, name in enumerate(getattr(route, key)):
                if name not in intervals:
                    document.report(
                        (*place, key, index),
                        f"time interval {name!r} is not defined{nearest(name, intervals)}",
                        "define it under time_intervals",
                    )
        group_by = route.group_by or ()
        if ALL_LABELS in group_by and len(group_by) > 1:
            document.report((*place, "group_by"), "'...' stands for all labels", "write it alone")
        for name, count in Counter(group_by).items():
            if count > 1:
                document.report((*place, "group_by"), f"group_by names {name!r} twice", "remove one")
    named += [(step.receiver, ("escalation", n)) for n, step in enumerate(file.escalation)]
    named += [(drill.receiver, ("drills", n, "receiver")) for n, drill in enumerate(file.drills) if drill.receiver]
    if file.fallback is not None:
        named.append((file.fallback, ("fallback",)))
    for name, place in named:
        if name not in receivers:
            document.report(
                place, f"receiver {name!r} is not defined{nearest(name, receivers)}", "define it under receivers"
            )


def _receivers(file: RoutesFile, document: Document, directory: Directory, channels: Mapping[str, ChannelCard]) -> None:
    known = {"people": directory.people, "teams": directory.teams, "rotations": directory.rotations}
    for index, receiver in enumerate(file.receivers):
        for key, entries in known.items():
            for number, name in enumerate(getattr(receiver, key)):
                if name not in entries:
                    document.report(
                        ("receivers", index, key, number),
                        f"{key}: {name!r} is not in _people.yml{nearest(name, entries)}",
                        f"add it there under {key}",
                    )
        for number, name in enumerate(receiver.channels):
            if name not in channels and name not in BUILT_IN:
                document.report(("receivers", index, "channels", number), *_no_channel(name, channels))
        if not (receiver.channels or receiver.people or receiver.teams or receiver.rotations or receiver.owner):
            document.report(
                ("receivers", index),
                f"receiver {receiver.name!r} reaches nobody",
                "give it channels, people, teams, rotations or owner: true",
            )
    for name in file.limits.channels:
        if name not in channels and name not in BUILT_IN:
            document.report(("limits", "channels", name), *_no_channel(name, channels))


def _no_channel(name: str, channels: Mapping[str, ChannelCard]) -> tuple[str, str]:
    return (
        f"channel {name!r} is not configured{nearest(name, [*channels, *BUILT_IN])}",
        "configure it in <home>/channels.yml, or name one of: " + ", ".join(sorted({*channels, *BUILT_IN})),
    )


def _unused(file: RoutesFile, document: Document) -> None:
    used = {route.receiver for route, _ in _walk(file.route)}
    used |= {step.receiver for route, _ in _walk(file.route) for step in (route.escalation or ())}
    used |= {step.receiver for step in file.escalation} | {file.fallback} | {drill.receiver for drill in file.drills}
    intervals = {
        name for route, _ in _walk(file.route) for name in (*route.mute_time_intervals, *route.active_time_intervals)
    }
    for index, receiver in enumerate(file.receivers):
        if receiver.name not in used:
            document.report(
                ("receivers", index), f"nobody uses receiver {receiver.name!r}", "name it in a route or remove it"
            )
    for index, interval in enumerate(file.time_intervals):
        if interval.name not in intervals:
            document.report(
                ("time_intervals", index), f"no route uses time interval {interval.name!r}", "use it or remove it"
            )


def _drills(file: RoutesFile, document: Document, slices: Mapping[str, Sequence[str]]) -> None:
    """Scheduled drills of rules and slices that there are not."""
    for index, drill in enumerate(file.drills):
        if drill.rule is not None and drill.rule not in slices:
            document.report(
                ("drills", index, "rule"),
                f"there is no rule {drill.rule!r}{nearest(drill.rule, slices)}",
                "name a rule of the rule files, or leave it away",
            )
            continue
        by = slices[drill.rule] if drill.rule is not None else ()
        if list(drill.slice) != list(by):
            wanted = "slice: {" + ", ".join(f"{name}: …" for name in by) + "}" if by else "no slice"
            whose = f"rule {drill.rule} has" if drill.rule is not None else "a drill of no rule has"
            document.report(
                ("drills", index, "slice") if drill.slice else ("drills", index),
                f"{whose} {'slices by ' + ', '.join(by) if by else 'no slices'}",
                f"write {wanted}",
            )


def _labels(file: RoutesFile, document: Document, universe: Universe) -> None:
    """Matchers and groups on labels that no rule has, and on values that no rule gives."""
    places: list[tuple[Matcher, Place]] = []
    for route, place in _walk(file.route):
        places += [(one, _matcher_place(route, place, one)) for one in route.conditions]
        for index, name in enumerate(route.group_by or ()):
            if name != ALL_LABELS and not universe.has(name):
                document.report(
                    (*place, "group_by", index),
                    f"no rule has the label {name!r}{nearest(name, universe.names)}",
                    f"group by one of: {', '.join(universe.names)}",
                )
    for index, rule in enumerate(file.inhibit_rules):
        for side in ("source", "target"):
            for one in getattr(rule, side):
                places.append((one, ("inhibit_rules", index, f"{side}_matchers")))
        for name in rule.equal:
            if not universe.has(name):
                document.report(
                    ("inhibit_rules", index, "equal"),
                    f"no rule has the label {name!r}, so this rule never mutes anything{nearest(name, universe.names)}",
                    f"use one of: {', '.join(universe.names)}",
                )
    for matcher, place in places:
        if not universe.has(matcher.name):
            document.report(
                place,
                f"{matcher}: no rule has the label {matcher.name!r}{nearest(matcher.name, universe.names)}",
                f"match one of: {', '.join(universe.names)}; a rule gets a label under labels:",
            )
        elif matcher.name in universe.values and not any(map(matcher.accepts, universe.values[matcher.name])):
            values = sorted(value for value in universe.values[matcher.name] if value)
            shown = ", ".join(values[:12]) + (", …" if len(values) > 12 else "")
            document.report(
                place, f"{matcher} matches no rule{nearest(matcher.value, values)}", f"the values are: {shown}"
            )


def _matcher_place(route: Route, place: Place, matcher: Matcher) -> Place:
    if matcher in route.matchers:
        return (*place, "matchers")
    return (*place, "match" if matcher.operator == "=" else "match_re", matcher.name)


def _unreachable(root: Node, document: Document, universe: Universe | None) -> None:
    """Routes that no alert can enter: a sibling before takes everything, or their matchers exclude each other.

    Only what can be proved: over labels whose values are known, and over matchers that plainly imply one another.
    """
    for node, above in _with_ancestors(root, ()):
        conditions = (*above, *node.matchers)
        if node.path and _is_empty(conditions, universe):
            document.report(
                _place(node),
                f"no alert can enter this route: {', '.join(map(str, conditions))} exclude each other",
                "mend the matchers or remove the route",
            )
    for parent, above in _with_ancestors(root, ()):
        inside = (*above, *parent.matchers)
        for index, child in enumerate(parent.children):
            before = [one for one in parent.children[:index] if not one.continues]
            conditions = (*inside, *child.matchers)
            taker = _taken_by(conditions, before, universe)
            if taker and not _is_empty(conditions, universe):
                document.report(
                    _place(child),
                    f"no alert reaches this route: {taker} before it takes all that it matches",
                    "put it first, or give the earlier route continue: true",
                )


def _with_ancestors(node: Node, above: tuple[Matcher, ...]) -> Iterator[tuple[Node, tuple[Matcher, ...]]]:
    yield node, above
    for child in node.children:
        yield from _with_ancestors(child, (*above, *node.matchers))


def _place(node: Node) -> Place:
    return ("route", *(step for index in node.path for step in ("routes", index)))


def _taken_by(conditions: tuple[Matcher, ...], before: list[Node], universe: Universe | None) -> str | None:
    """The earlier siblings that together take every alert with these conditions, or None when that is not certain."""
    for one in before:
        if _implied(one.matchers, conditions, universe):
            return one.id.rpartition("/")[2]
    labels = {matcher.name for one in before for matcher in one.matchers}
    for label in sorted(labels):
        values = _values(label, conditions, universe)
        if values is None or not 1 < len(values) <= 200:
            continue
        takers = []
        for value in sorted(values):
            narrowed = (*conditions, Matcher(label, "=", value))
            taker = next((one for one in before if _implied(one.matchers, narrowed, universe)), None)
            if taker is None:
                break
            takers.append(taker.id.rpartition("/")[2])
        else:
            return " and ".join(dict.fromkeys(takers))
    return None


def _values(label: str, conditions: Iterable[Matcher], universe: Universe | None) -> frozenset[str] | None:
    """All values a label can have under these conditions; None when they cannot be listed."""
    about = [one for one in conditions if one.name == label]
    known = universe.values.get(label) if universe is not None else None
    fixed = next((one.value for one in about if one.operator == "="), None)
    if known is None:
        if fixed is None:
            return None
        known = frozenset([fixed])
    elif fixed is not None:
        known = known | {fixed}  # a value that no rule has is another finding
    return frozenset(value for value in known if all(one.accepts(value) for one in about))


def _implied(matchers: Iterable[Matcher], conditions: tuple[Matcher, ...], universe: Universe | None) -> bool:
    """Whether every alert that fulfils the conditions certainly fulfils the matchers."""
    return all(_one_implied(matcher, conditions, universe) for matcher in matchers)


def _one_implied(matcher: Matcher, conditions: tuple[Matcher, ...], universe: Universe | None) -> bool:
    if matcher in conditions or (matcher.operator == "=~" and matcher.value == ".*"):
        return True
    values = _values(matcher.name, conditions, universe)
    if values is not None:
        return bool(values) and all(map(matcher.accepts, values))
    if matcher == Matcher(matcher.name, "!=", ""):  # present, where something else than '' is asked for
        return any(one.name == matcher.name and not one.is_negative and not one.accepts("") for one in conditions)
    return False


def _is_empty(conditions: tuple[Matcher, ...], universe: Universe | None) -> bool:
    """Whether no alert can fulfil the conditions, by the matchers alone: a value no rule has is another finding."""
    for label in {one.name for one in conditions}:
        about = [one for one in conditions if one.name == label]
        if len(about) > 1 and (values := _values(label, about, universe)) is not None and not values:
            return True
    return False


def lint_people(
    file: PeopleFile,
    document: Document,
    channels: Mapping[str, ChannelCard],
    metrics: Mapping[str, object] | None,
) -> None:
    """Every check of the people file; problems go to the document."""
    _ids(file, document)
    _members(file, document, channels)
    _rotations(file, document)
    _lines(file, document, metrics)


def _ids(file: PeopleFile, document: Document) -> None:
    seen: set[str] = set()
    for key in ("people", "teams", "rotations"):
        for index, entry in enumerate(getattr(file, key)):
            if entry.id in seen:
                document.report((key, index), f"two entries have the id {entry.id!r}", "rename one of them")
            seen.add(entry.id)
    lines = [one.id for one in file.business_lines]
    for index, name in enumerate(lines):
        if name in lines[:index]:
            document.report(("business_lines", index), f"two business lines have the id {name!r}", "rename one of them")


def _members(file: PeopleFile, document: Document, channels: Mapping[str, ChannelCard]) -> None:
    people = [one.id for one in file.people]
    for key in ("teams", "rotations"):
        for index, entry in enumerate(getattr(file, key)):
            for number, name in enumerate(entry.members):
                if name not in people:
                    document.report(
                        (key, index, "members", number),
                        f"{entry.id}: {name!r} is no person of this file{nearest(name, people)}",
                        "add the person under people",
                    )
    for index, team in enumerate(file.teams):
        for number, name in enumerate(team.channels):
            if name not in channels and name not in BUILT_IN:
                document.report(("teams", index, "channels", number), *_no_channel(name, channels))


def _rotations(file: PeopleFile, document: Document) -> None:
    people = [one.id for one in file.people]
    for index, rotation in enumerate(file.rotations):
        if not rotation.members:
            document.report(
                ("rotations", index),
                f"rotation {rotation.id!r} has no members",
                "list people in the order of their turns",
            )
        for number, override in enumerate(rotation.overrides):
            place = ("rotations", index, "overrides", number)
            if override.person not in people:
                document.report(
                    place,
                    f"{rotation.id}: {override.person!r} is no person of this file{nearest(override.person, people)}",
                    "add the person under people",
                )
            if override.until.replace(tzinfo=None) <= override.start.replace(tzinfo=None):
                document.report(place, f"{rotation.id}: the override ends before it begins", "put until after from")


def _lines(file: PeopleFile, document: Document, metrics: Mapping[str, object] | None) -> None:
    owners = [*(one.id for one in file.people), *(one.id for one in file.teams), *(one.id for one in file.rotations)]
    for index, line in enumerate(file.business_lines):
        if line.owner is not None and line.owner not in owners:
            document.report(
                ("business_lines", index, "owner"),
                f"{line.id}: owner {line.owner!r} is not in this file{nearest(line.owner, owners)}",
                "add the person, team or rotation",
            )
        if metrics is None:
            continue
        for number, metric in enumerate(line.metrics):
            if metric not in metrics:
                document.report(
                    ("business_lines", index, "metrics", number),
                    f"{line.id}: metric {metric!r} is not in the metric library{nearest(metric, metrics)}",
                    "write a metric id of the library",
                )


def lint_rules(rules: Iterable[Rule], directory: Directory) -> list[Problem]:
    """Owners of rules that nobody knows."""
    return [
        Problem(
            rule.file or Path(),
            rule.line,
            rule.id,
            f"owner {rule.owner!r} is in no entry of _people.yml{nearest(rule.owner, directory.ids)}",
            "add a person, team or rotation of that id, or name another owner",
        )
        for rule in rules
        if rule.owner not in directory
    ]
