"""What was changed in files (the SQL of a fact, a measure, a formula) as a proposal: who, why and approval on record.

Such a change has no first day of its own: the version begins with the night that finds it in the files, on the days
which that night builds, and `recording.record_files` gives it the reason of the approved proposal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.proposals import PURPOSE, Actor, ProposalError, act_on_record
from metrics_pipeline.library.recording import IN_FILES
from metrics_pipeline.library.versions import difference, read_targets, states
from metrics_pipeline.store.database import Store
from metrics_pipeline.store.metric_versions import ProposalRow, add_proposal, newest_definitions, seen


@dataclass(frozen=True)
class FileChange:
    """A metric whose newest definition in the files is not the one that was recorded last."""

    metric: str
    catalogue: Catalogue
    """The library as the files have it."""
    recorded: Mapping[str, str]
    """Metric → the version that was recorded last."""
    definition: Mapping[str, Any]
    diff: Mapping[str, list[Any]]

    @property
    def version(self) -> str:
        """What the values of the days carry that are built from the next night on."""
        return self.catalogue.metrics[self.metric].version

    @property
    def affected(self) -> list[str]:
        """What is made of the metric and begins a new version with it."""
        users, metrics = self.catalogue.users(self.metric), self.catalogue.metrics
        return [name for name in metrics if name in users and self.recorded.get(name) != metrics[name].version]


def file_change(connection: Connection, project_dir: Path, metric: str) -> FileChange:
    """What the files change of a metric. Raises `ProposalError` when they change nothing, or something it is made of."""
    catalogue = Catalogue.read(project_dir)
    known = catalogue.metrics[metric]
    recorded = {name: versions[-1].version for name, versions in seen(connection).items()}
    if metric not in recorded:
        raise ProposalError(
            f"no version of {metric} is recorded yet: the first night does it, and nothing has changed since"
        )
    changed = [name for name in known.inputs if recorded.get(name, "") != catalogue.metrics[name].version]
    if changed:
        raise ProposalError(f"{metric} changes with {', '.join(changed)}: propose that, and {metric} follows")
    if recorded[metric] == known.version:
        raise ProposalError(
            f"the files define {metric} as it was recorded last ({known.version}); change it with --set, or change the "
            "files first"
        )
    [newest] = [one for one in states(catalogue, read_targets(project_dir)) if one.metric == metric and one.is_newest]
    before = newest_definitions(connection, [metric])[metric]
    after = {**newest.definition, "effective_from": str(newest.effective_from or "")}
    return FileChange(metric, catalogue, recorded, after, difference(before, after))


def propose_in_files(
    store: Store, actor: Actor, project_dir: Path, metric: str, *, why: str, expected: date
) -> tuple[int, FileChange]:
    """Write down a proposal for what the files change of a metric; returns its number and the change.

    `expected`: first day that the next night builds and nobody was shown. Raises `ProposalError`, `DefinitionError`.
    """
    if not why.strip():
        raise ProposalError("say why, for whoever reads the history of the metric later")
    with store.writing(PURPOSE) as connection:
        found = file_change(connection, project_dir, metric)
        number = add_proposal(
            connection,
            metric=metric,
            changes={IN_FILES: found.version},
            base=found.recorded[metric],
            definition=found.definition,
            diff=found.diff,
            version=found.version,
            effective_from=expected,
            who=actor.name,
            at=actor.now,
            why=why.strip(),
        )
        act_on_record(connection, actor, "metric.propose", metric, proposal=number, changes={IN_FILES: found.version})
    return number, found


def reviewed_in_files(connection: Connection, project_dir: Path, row: ProposalRow) -> FileChange:
    """The change of a proposal in files against the files of today. Raises `ProposalError` when they have moved on."""
    found = file_change(connection, project_dir, row.metric)
    if (found.version, found.recorded[row.metric]) != (row.version, row.base):
        raise ProposalError(
            f"the files have changed since proposal {row.id} was made; propose it again with what they say now"
        )
    return found
