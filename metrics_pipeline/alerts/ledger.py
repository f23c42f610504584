"""Which verdicts were applied before: a re-run is a no-op, and an error does not hide its own mended re-run.

Kept for each (rule, period, rule hash, metric version, data version), with the slices that could not be judged then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.batch import Batch
from metrics_pipeline.store import alerts as repository
from metrics_pipeline.store.instances import Flags, Indices, Texts
from metrics_pipeline.store.records import ProcessedKey


@dataclass(frozen=True)
class Ledger:
    """What is known of the verdicts of a batch."""

    keys: Sequence[ProcessedKey]
    place: Indices
    """Which of the keys each verdict has."""
    silent: Flags
    """Whether each verdict says nothing about its slice."""
    instances: Texts
    """The instance of each verdict."""
    done: Mapping[ProcessedKey, frozenset[str]]
    """Keys that were applied before, and what could not be judged then."""

    @classmethod
    def read(cls, connection: Connection, batch: Batch, instances: Texts) -> Ledger:
        """`instances`: key of the instance of each verdict."""
        keys, place = batch.groups()
        return cls(keys, place, batch.silent, instances, repository.already_processed(connection, keys))

    def fresh(self) -> Flags:
        """Whether a verdict was not applied before."""
        found: Flags = ~np.array([key in self.done for key in self.keys], dtype=bool)[self.place]
        for number in self._open():
            rows = np.flatnonzero(self.place == number)
            waiting = self.done[self.keys[number]]
            found[rows] = [instance in waiting for instance in self.instances[rows]]
        return found

    def applied(self) -> dict[ProcessedKey, tuple[int, frozenset[str]]]:
        """What is to be recorded once all is applied: the number of verdicts, and the instances still to be judged.

        A key of which nothing could be judged is not recorded, nor one of which nothing new was.
        """
        counts = np.bincount(self.place, minlength=len(self.keys)).tolist()
        silent = np.bincount(self.place[self.silent], minlength=len(self.keys)).tolist()
        found: dict[ProcessedKey, tuple[int, frozenset[str]]] = {}
        for number, key in enumerate(self.keys):
            if key not in self.done and silent[number] < counts[number]:
                waiting = self._instances(number, self.silent) if silent[number] else frozenset()
                found[key] = (counts[number], waiting)
        for number in self._open():
            key = self.keys[number]
            waiting = self.done[key] - self._instances(number, ~self.silent)
            if waiting != self.done[key]:
                found[key] = (counts[number], waiting)
        return found

    def _open(self) -> list[int]:
        """Keys that were applied before, but not wholly."""
        return [number for number, key in enumerate(self.keys) if self.done.get(key)]

    def _instances(self, number: int, of: Flags) -> frozenset[str]:
        return frozenset(self.instances[(self.place == number) & of].tolist())
