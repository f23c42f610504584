"""`_routes.yml` and `_people.yml` → `Routing`, with everything that is wrong with them at once.

A file that cannot be used never loses an alert: without usable routes everything goes to the built-in channels, as if
there were no file, and the problems say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from metrics_pipeline.routing.channels import ChannelCard, channel_cards
from metrics_pipeline.routing.decide import Routing
from metrics_pipeline.routing.document import Document
from metrics_pipeline.routing.labels import DRILL, NAMELESS_DRILL, PIPELINE, pipeline_labels, rule_labels
from metrics_pipeline.routing.lint import Universe, lint_people, lint_routes, lint_rules
from metrics_pipeline.routing.model import Receiver, Route, RoutesFile
from metrics_pipeline.routing.people import Directory, PeopleFile, no_environment
from metrics_pipeline.routing.tree import build_tree
from metrics_pipeline.settings import Settings, SettingsError, read_secret

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Metric
    from metrics_pipeline.rules.model import Rule

ROUTES_FILE: Final = "_routes.yml"
PEOPLE_FILE: Final = "_people.yml"
DEFAULT: Final = RoutesFile(
    route=Route.model_validate(
        {"receiver": "everybody", "group_by": ["alertname"], "group_wait": "0s", "repeat_interval": "76h"}
    ),
    receivers=(Receiver(name="everybody", channels=("file", "smtp")),),
)
"""What counts without a routes file: every rule to the built-in channels, with the times of the starter file."""


def load_routing(
    folder: Path,
    *,
    channels: Mapping[str, ChannelCard],
    rules: Iterable[Rule] | None = None,
    metrics: Mapping[str, Metric] | None = None,
    local: tzinfo = UTC,
    variable: Callable[[str], str | None] = no_environment,
) -> Routing:
    """Read and lint the routes and people of a folder of rules. Never raises for what is in the files.

    `channels`: those of the installation. `rules` and `metrics`: what alerts there can be, for the checks that need to
    know; without them those are left out. `local`: the shop's time zone. `variable`: environment variable → value.
    """
    people_document = Document(folder / PEOPLE_FILE)
    people = people_document.read(PeopleFile) if people_document.path.exists() else PeopleFile()
    directory = Directory.of(people or PeopleFile(), variable=variable, local=local)
    document = Document(folder / ROUTES_FILE)
    given = document.read(RoutesFile) if document.path.exists() else DEFAULT
    file = given or DEFAULT
    universe, slices = None, None
    if rules is not None and metrics is not None:
        all_rules = [rule for rule in rules if rule.metric in metrics]
        slices = {rule.id: rule.by for rule in all_rules}
        of_rules = [(rule_labels(rule, metrics[rule.metric], directory), rule.by) for rule in all_rules]
        of_pipeline = [(pipeline_labels(name), (label, DRILL)) for name, label in PIPELINE.items()]
        universe = Universe.of([*of_rules, *of_pipeline, (NAMELESS_DRILL, (DRILL,))])
        if people is not None and people_document.path.exists():
            people_document.problems += lint_rules(all_rules, directory)
    if people is not None:
        lint_people(people, people_document, channels, metrics)
    root = build_tree(file.route, escalation=file.escalation)
    if given is not None and document.path.exists():
        lint_routes(file, root, document, directory=directory, channels=channels, universe=universe, slices=slices)
    drills = file.drills
    if not any(receiver.name == root.receiver for receiver in file.receivers):
        root = build_tree(DEFAULT.route)
        given, file = None, DEFAULT
    problems = sorted(
        {*document.problems, *people_document.problems}, key=lambda one: (str(one.file), one.line, one.message)
    )
    return Routing(
        root=root,
        receivers=_by_name(file.receivers),
        directory=directory,
        channels=channels,
        intervals={one.name: one for one in reversed(file.time_intervals)},
        inhibit_rules=file.inhibit_rules,
        limits=file.limits,
        quiet_hours=file.quiet_hours,
        fallback=file.fallback,
        digest=file.digest,
        flapping=file.flapping,
        ack_timeout=file.ack_timeout,
        incidents=file.incidents,
        drills=drills,
        local=local,
        problems=tuple(problems),
        stands_in=given is None,
    )


def load_directory(folder: Path) -> Directory | None:
    """The people of a folder of rules alone; None when there is no such file, or none that can be used."""
    path = folder / PEOPLE_FILE
    people = Document(path).read(PeopleFile) if path.exists() else None
    return None if people is None else Directory.of(people)


def routing_of(
    settings: Settings, *, rules: Iterable[Rule] | None = None, metrics: Mapping[str, Metric] | None = None
) -> Routing:
    """The routing of an installation."""
    return load_routing(
        settings.rules_dir,
        channels=channel_cards(settings),
        rules=rules,
        metrics=metrics,
        local=settings.zone,
        variable=_variable,
    )


def _variable(name: str) -> str | None:
    try:
        return read_secret(env=name)
    except SettingsError:
        return None


def _by_name(receivers: Iterable[Receiver]) -> dict[str, Receiver]:
    found: dict[str, Receiver] = {}
    for receiver in receivers:
        found.setdefault(receiver.name, receiver)
    return found
