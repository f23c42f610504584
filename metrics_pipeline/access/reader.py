"""Published values as one person may see them: the only way by which a door reads values.

It is a `Published` whose every query passes the policy: rows of slices that are not given are not there, values that
are given as a band or not at all are NULL. What is computed from it (a rule tried on history, a share of the total)
therefore cannot contain what its reader may not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from metrics_pipeline.access.bands import LEAST, RATIO_LEAST, bounds_sql
from metrics_pipeline.access.model import Level
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.warehouse.quoting import literal
from metrics_pipeline.warehouse.read import (
    MetricState,
    NotPublished,
    Published,
    UnknownMetric,
    VersionGone,
    open_reader,
)

__all__ = ["GuardedValues", "NotPublished", "Published", "UnknownMetric", "VersionGone", "open_reader"]

_PLAIN = "metric, period_start, grain, dimension, member, definition_version"


@dataclass(frozen=True)
class GuardedValues(Published):
    """One published version as its viewer may see it; build it with `for_viewer`.

    Its series have three columns more: `level` (`Level`'s numbers), `low` and `high` (the band where the level is
    BANDED). Where the level is not EXACT, `value`, `numerator` and `denominator` are NULL; the latter two also where
    the viewer may not see the metrics they are values of.
    """

    viewer: Viewer
    _columns: ClassVar[str] = f"{Published._columns}, level, low, high"

    @classmethod
    def for_viewer(cls, directory: Path, viewer: Viewer) -> GuardedValues:
        """The current version. Raises `NotPublished` when there is none that can be read."""
        opened = Published.open(directory)
        return cls(opened.directory, opened.manifest, viewer)

    @classmethod
    def version_for_viewer(cls, directory: Path, version: str, viewer: Viewer) -> GuardedValues:
        """A version by its id. Raises `VersionGone` when it is not kept any more."""
        opened = Published.open_version(directory, version)
        return cls(opened.directory, opened.manifest, viewer)

    @property
    def metrics(self) -> Mapping[str, MetricState]:
        """The metrics of which the viewer may know."""
        return {name: state for name, state in self.manifest.metrics.items() if self.viewer.reading.knows(name)}

    def relation(self, files: Sequence[Path]) -> str:
        """Exact values only: a rule that is judged takes NULL for a value that is missing."""
        rows = self._shown(f"SELECT * FROM {super().relation(files)}")
        return f"(SELECT * EXCLUDE (level, low, high) FROM ({rows}) WHERE level = {int(Level.EXACT)})"

    def _shown(self, query: str, *, is_history: bool = False) -> str:
        level, exact = self._level, int(Level.EXACT)
        low, high = bounds_sql("value", self._least)
        stamp = ", computed_at, run_id" if is_history else ""
        return f"""
            SELECT {_PLAIN}{stamp}, level,
                CASE WHEN level = {exact} AND parts = {exact} THEN numerator END AS numerator,
                CASE WHEN level = {exact} AND parts = {exact} THEN denominator END AS denominator,
                CASE WHEN level = {exact} THEN value END AS value,
                CASE WHEN level = {int(Level.BANDED)} THEN {low} END AS low,
                CASE WHEN level = {int(Level.BANDED)} THEN {high} END AS high
            FROM (SELECT *, {level} AS level, {self._parts} AS parts FROM ({query}))
            WHERE level > {int(Level.DENIED)}
            """

    @cached_property
    def _level(self) -> str:
        return self.viewer.reading.level_sql()

    @cached_property
    def _parts(self) -> str:
        """The least level of the metrics a row's numerator and denominator are values of."""
        if self.viewer.is_open:
            return str(int(Level.EXACT))
        rights, cases = self.viewer.reading, []
        for one in self.viewer.metrics.values():
            if one.inputs and rights.knows(one.id):
                levels = ", ".join(rights.level_sql(literal(name)) for name in one.inputs)
                cases.append(f"WHEN {literal(one.id)} THEN least({levels})")
        return f"CASE metric {' '.join(cases)} ELSE {int(Level.EXACT)} END" if cases else str(int(Level.EXACT))

    @cached_property
    def _least(self) -> str:
        ratios = sorted(one.id for one in self.viewer.metrics.values() if one.unit == "ratio")
        if not ratios:
            return str(LEAST)
        return (
            f"CASE WHEN metric IN ({', '.join(literal(name) for name in ratios)}) THEN {RATIO_LEAST} ELSE {LEAST} END"
        )
