"""What of the files is remembered between requests: the definitions, and who is in which team.

Definitions are looked at again every two seconds, people at every request (by date and size of their file), so that
whoever left a team has lost its grants at once. Grants and tokens are in the store and never remembered.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Final

from metrics_pipeline.access.model import Facts, facts_of
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.routing.load import PEOPLE_FILE, routing_of
from metrics_pipeline.routing.members import members_of
from metrics_pipeline.routing.people import Directory
from metrics_pipeline.settings import Settings
from metrics_pipeline.store.access import MembershipRow

LOOK_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Definitions:
    """The whole library, and what the policy knows of it."""

    catalogue: Catalogue
    facts: Mapping[str, Facts]
    fingerprint: str
    """Of the files; another one after any change."""


class Library:
    """The files of an installation, read when they have changed."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock, self._lock = settings, clock, Lock()
        self._definitions: Definitions | None = None
        self._looked_at = 0.0
        self._directory: tuple[str, Directory] | None = None

    def definitions(self) -> Definitions:
        """The definitions as they are in the files. Raises `DefinitionError` when they cannot be used."""
        with self._lock:
            now, known = self._clock(), self._definitions
            if known is not None and now - self._looked_at < LOOK_SECONDS:
                return known
            fingerprint = _fingerprint(sorted((self._settings.dbt_project_dir / "models").rglob("*.yml")))
            if known is None or known.fingerprint != fingerprint:
                catalogue = Catalogue.read(self._settings.dbt_project_dir)
                known = Definitions(catalogue, facts_of(catalogue.metrics), fingerprint)
            self._definitions, self._looked_at = known, now
            return known

    def members(self, now: datetime) -> list[MembershipRow]:
        """Who is in which position and line as the file says now (aware)."""
        with self._lock:
            fingerprint = _fingerprint([self._settings.rules_dir / PEOPLE_FILE])
            if self._directory is None or self._directory[0] != fingerprint:
                self._directory = (fingerprint, routing_of(self._settings).directory)
            return members_of(self._directory[1], now=now)


def _fingerprint(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        digest.update(f"{path}\0{found.st_mtime_ns}\0{found.st_size}\0{found.st_ino}\n".encode())
    return digest.hexdigest()[:16]
