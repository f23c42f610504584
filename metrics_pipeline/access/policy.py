"""What follows from grants: `decide` for one slice, `level_sql` for whole tables. Both read the same `Rights`.

Which slices a grant on slices gives: a published slice is a set of dimensions with one member each (region=华北,
region|channel=华北|app; the total has none). A grant on region ∈ {华北} gives the slices that *have* a region and whose
region is 华北, whatever else they have. So it gives no total, no channel over all regions, no other region: those contain
what is not granted, and their difference to what is granted would show it. A grant on two dimensions gives the slices
that have both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from metrics_pipeline.access.model import GENERAL, Decision, Facts, Grant, Level, Subjects, parts_of
from metrics_pipeline.warehouse.quoting import literal

OPEN = Decision(Level.EXACT, "the installation is open: no policy is enabled", "安装未启用权限策略:全部可见")
_NOBODY = Decision(Level.DENIED, "no grant allows it", "没有授权")


@dataclass(frozen=True)
class Right:
    """One grant, resolved: the level of each metric it covers, and its slices."""

    grant: int
    levels: Mapping[str, Level]
    slices: Mapping[str, frozenset[str]]
    because_en: str = ""
    because_zh: str = ""
    is_general: bool = False
    """Whether it is on all metrics, those nobody has defined included."""

    def meets(self, dimension: str, member: str) -> bool:
        """Whether a published slice is among its slices."""
        if not self.slices:
            return True
        parts = parts_of(dimension, member)
        return parts is not None and all(parts.get(name) in members for name, members in self.slices.items())


@dataclass(frozen=True)
class Rights:
    """All that one person may do by one action. `is_open`: no policy is enabled, everything is allowed."""

    rights: tuple[Right, ...] = ()
    is_open: bool = False

    @classmethod
    def of(
        cls, subjects: Subjects, action: str, grants: Iterable[Grant], metrics: Mapping[str, Facts], *, now: datetime
    ) -> Rights:
        """What the grants that hold at `now` (aware) give these subjects. A metric nobody defines is covered by none."""
        held = [grant for grant in grants if action in grant.actions and grant.holds(now) and subjects.has(grant)]
        return cls(tuple(_right(grant, action, metrics) for grant in held))

    def decide(self, metric: str | None = None, dimension: str = "all", member: str = "all") -> Decision:
        """The most that a right gives of this slice; without a metric: whether the action is allowed at all."""
        if self.is_open:
            return OPEN
        best = _NOBODY
        for right in self.rights:
            level = Level.EXACT if metric is None else right.levels.get(metric, Level.DENIED)
            if level > best.level and (metric is None or right.meets(dimension, member)):
                best = Decision(level, right.because_en, right.because_zh, right.grant)
        return best

    def knows(self, metric: str) -> bool:
        """Whether any slice of the metric may be known of."""
        return self.is_open or any(metric in right.levels for right in self.rights)

    def slices_of(self, metric: str) -> tuple[Mapping[str, frozenset[str]], ...]:
        """The constraints under which slices of a metric are given; ({},) when all are."""
        found = tuple(right.slices for right in self.rights if metric in right.levels)
        return ({},) if self.is_open or {} in found else found

    def level_sql(self, metric: str = "metric", dimension: str = "dimension", member: str = "member") -> str:
        """A DuckDB expression over columns: the level of each row, as `Level`'s numbers."""
        if self.is_open:
            return str(int(Level.EXACT))
        cases = []
        for right in self.rights:
            where = _slices_sql(right.slices, dimension, member)
            for level in (Level.EXACT, Level.BANDED, Level.HIDDEN):
                if ids := sorted(name for name, given in right.levels.items() if given == level):
                    named = ", ".join(literal(name) for name in ids)
                    cases.append(f"CASE WHEN {metric} IN ({named}) AND {where} THEN {int(level)} ELSE -1 END")
        return f"greatest(-1, {', '.join(cases)})" if cases else "-1"


def decide(
    subjects: Subjects,
    action: str,
    metric: str | None,
    grants: Iterable[Grant],
    metrics: Mapping[str, Facts],
    *,
    now: datetime,
    dimension: str = "all",
    member: str = "all",
) -> Decision:
    """Whether a person may do this with a metric on a slice, how exactly, and by which grant. Default: no."""
    return Rights.of(subjects, action, grants, metrics, now=now).decide(metric, dimension, member)


def derivable(rights: Rights, metrics: Mapping[str, Facts]) -> list[tuple[str, str]]:
    """(metric, from what) of values that are not given exactly and yet follow from exact ones by a ratio's formula.

    Whoever sees a ratio and one of its parts on the same slices can compute the other part. Only what is given on all
    slices is looked at; the reader of a grant is told, because only they know whether it is meant.
    """

    def exact(name: str) -> bool:
        return rights.decide(name).level == Level.EXACT

    found = []
    for one in metrics.values():
        if len(one.inputs) != 2 or not exact(one.id):
            continue
        for hidden, known in (one.inputs, one.inputs[::-1]):
            if exact(known) and not exact(hidden):
                found.append((hidden, f"{one.id}, {known}"))
    return found


def _right(grant: Grant, action: str, metrics: Mapping[str, Facts]) -> Right:
    covered = [one for one in metrics.values() if grant.covers(one)]
    levels = {one.id: grant.level if one.is_sensitive and action not in GENERAL else Level.EXACT for one in covered}
    to = f"{grant.subject_kind} {grant.subject}"
    return Right(
        grant.id,
        levels,
        grant.slices,
        f"grant {grant.id} to {to}, by {grant.granted_by}: {grant.reason}",
        f"授权 {grant.id}({to},{grant.granted_by} 授予):{grant.reason}",
        any(one.kind == "all" for one in grant.selectors),
    )


def _slices_sql(slices: Mapping[str, frozenset[str]], dimension: str, member: str) -> str:
    if not slices:
        return "true"
    names, members = f"string_split({dimension}, '|')", f"string_split({member}, '|')"
    conditions = []
    for name, wanted in sorted(slices.items()):
        listed = _in(sorted(wanted))
        alone = f"{dimension} = {literal(name)} AND {member} {listed}"
        among = (
            f"len({names}) > 1 AND len({names}) = len({members}) "
            f"AND list_extract({members}, CAST(list_position({names}, {literal(name)}) AS BIGINT)) {listed}"
        )
        conditions.append(f"coalesce(({alone}) OR ({among}), false)")
    return f"({' AND '.join(conditions)})"


def _in(values: Sequence[str]) -> str:
    return f"IN ({', '.join(literal(one) for one in values)})" if values else "IN (NULL)"
