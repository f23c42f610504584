"""`_playbook*.yml` → `Playbook`, with everything that is wrong with them at once.

A bad entry is a `Problem` with file, line and mend, and is left out; the others stay. Files are read in the order of their
names, `_playbook.yml` first; an entry of a later file with the id of an earlier one stands in its place, so that an
installation can change a starter entry without touching the starter file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from metrics_pipeline.advice.playbook import PLACEHOLDER, WHERE, Entry, PlaybookFile
from metrics_pipeline.nearest import nearest
from metrics_pipeline.routing.document import Document
from metrics_pipeline.rules.load import Problem

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Metric
    from metrics_pipeline.routing.people import Directory

PLAYBOOK_FILE: Final = "_playbook.yml"
GUIDE: Final = "docs/advice.md"


@dataclass(frozen=True)
class Playbook:
    """The entries that can be used, by id, in the order of the files; and what is wrong with the others."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    """Entry → the file and line it stands in."""


def playbook_files(folder: Path) -> list[Path]:
    """The playbook files of a folder of rules, the starter file first."""
    found = {*folder.glob("_playbook*.yml"), *folder.glob("_playbook*.yaml")}
    return sorted(found, key=lambda path: (path.name != PLAYBOOK_FILE, path.name))


def load_playbook(
    folder: Path, *, metrics: Mapping[str, Metric] | None = None, directory: Directory | None = None,
    root: Path | None = None,
) -> Playbook:  # fmt: skip
    """Read and lint the playbook of a folder of rules. Never raises for what is in the files; without files it is empty.

    `metrics` and `directory`: the library and the people, for the checks that need to know them; `root`: where links to
    pages of the project begin. What is not given is not checked.
    """
    entries: dict[str, Entry] = {}
    places: dict[str, str] = {}
    problems: list[Problem] = []
    for path in playbook_files(folder):
        document = Document(path, guide=GUIDE)
        for index, entry in _entries(document):
            before = len(document.problems)
            _lint(entry, index, document, metrics=metrics, directory=directory, root=root)
            if entry.id in entries and places[entry.id].startswith(f"{path}:"):
                document.report(
                    ("entries", index, "id"), f"two entries of this file are named {entry.id!r}", "rename one"
                )
            if len(document.problems) == before:
                entries[entry.id] = entry
                places[entry.id] = f"{path}:{document.line(('entries', index, 'id'))}"
        problems += document.problems
    return Playbook(entries, tuple(sorted(problems)), places)


def _entries(document: Document) -> list[tuple[int, Entry]]:
    """The entries of a file that have the right shape, with their places."""
    file = document.read(PlaybookFile)
    if file is not None:
        return list(enumerate(file.entries))
    content = document.content
    listed = content.get("entries") if isinstance(content, dict) else None
    found = []
    for index, one in enumerate(listed if isinstance(listed, list) else ()):
        try:
            found.append((index, Entry.model_validate(one)))
        except ValidationError:
            continue  # `read` said what is wrong with it
    return found


def _lint(
    entry: Entry,
    index: int,
    document: Document,
    *,
    metrics: Mapping[str, Metric] | None,
    directory: Directory | None,
    root: Path | None,
) -> None:
    place = ("entries", index)
    if metrics is not None:
        _metrics(entry, (*place, "when"), document, metrics)
    if directory is not None and entry.owner not in directory:
        guess = nearest(entry.owner, directory.ids)
        document.report(
            (*place, "owner"), f"{entry.id}: nobody is named {entry.owner!r}{guess}", "name somebody of _people.yml"
        )
    allowed = {WHERE, *(entry.when.cause.dimension if entry.when.cause is not None else ())}
    allowed |= {"sku"} if entry.when.supply else set()
    for key in ("action_zh", "action_en", "effect_zh", "effect_en"):
        for name in PLACEHOLDER.findall(getattr(entry, key)):
            if name not in allowed:
                document.report(
                    (*place, key),
                    f"{entry.id}: nothing fills {{{name}}}",
                    f"use {', '.join(f'{{{one}}}' for one in sorted(allowed))}, or name the dimension in when.cause",
                )
    if (
        root is not None
        and entry.link
        and "://" not in entry.link
        and not (root / entry.link.partition("#")[0]).exists()
    ):
        document.report(
            (*place, "link"), f"{entry.id}: there is no page {entry.link}", "correct the path, or write a URL"
        )


def _metrics(entry: Entry, place: tuple[str | int, ...], document: Document, metrics: Mapping[str, Metric]) -> None:
    when = entry.when
    signals = {"alert": when.alert, "also": when.also}
    named: list[tuple[tuple[str | int, ...], Iterable[str]]] = [
        ((key,), (one.metric for one in found)) for key, found in signals.items()
    ]
    named.append((("still",), when.still))
    if when.pyramid is not None:
        named.append((("pyramid", "metric"), (one.metric for one in when.pyramid.metric)))
    for key, names in named:
        for number, name in enumerate(names):
            if name not in metrics:
                document.report(
                    (*place, *key, number),
                    f"{entry.id}: the library has no metric {name!r}{nearest(name, metrics)}",
                    "name a metric of `metrics library list`",
                )
    if when.cause is None:
        return
    known = {part for metric in metrics.values() for slices in metric.slices for part in slices.split("|")} - {"all"}
    for name in when.cause.dimension:
        if name not in known:
            document.report(
                (*place, "cause", "dimension"),
                f"{entry.id}: no metric has the dimension {name!r}{nearest(name, known)}",
                f"use one of {', '.join(sorted(known))}",
            )
