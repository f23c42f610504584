"""Where the site stands: a new folder beside the old one, put in its place when it is whole.

A folder is only replaced when it bears the mark of this module, so that a mistyped path costs nobody their files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

MARK = ".metrics-site.json"
_MADE_BY = "metrics library site"


class NotOurFolder(ValueError):
    """The folder holds something else; the message says what to do."""


def replace_folder(folder: Path, files: Iterable[tuple[str, str]]) -> int:
    """Write the files (path below the folder, text) and put them in the folder's place; returns how many.

    What was there before and is not written again is gone. Readers see the old site or the new one; between the two
    renames, for an instant, none. Raises `NotOurFolder` before anything is written.
    """
    folder = folder.absolute()
    check_ours(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part, old = (folder.with_name(f".{folder.name}.{word}-{os.getpid()}") for word in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    try:
        count = 0
        for name, content in files:
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")
            count += 1
        (part / MARK).write_text(json.dumps({"made_by": _MADE_BY, "files": count}) + "\n", "utf-8")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    return count


def check_ours(folder: Path) -> None:
    """Raises `NotOurFolder` unless the folder is absent, empty, or was made by this module."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise NotOurFolder(f"{folder} is a file; name a folder for the site")
    if any(folder.iterdir()) and not _is_marked(folder):
        raise NotOurFolder(
            f"{folder} holds files that are no catalogue site; name an empty folder, or one made by `{_MADE_BY}`"
        )


def _is_marked(folder: Path) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("made_by") == _MADE_BY
