"""Alert instances as columns: a hundred thousand of them read, held and written without an object for each.

Texts are object arrays, periods and instants `datetime64[us]` (NaT: none; instants in UTC), numbers `float64` (NaN: none).
The order of the fields is that of `records.Instance`, but that an episode is held as its first period: its key is
`<instance>@<first period>`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, Final, get_args

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from metrics_pipeline.store.bulk import chunks, read_columns, write_columns
from metrics_pipeline.store.records import Instance, State, Tier
from metrics_pipeline.store.tables import alert_instances

Texts = NDArray[np.object_]
Times = NDArray[np.datetime64]
Numbers = NDArray[np.float64]
Counts = NDArray[np.int32]
Codes = NDArray[np.int8]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

STATES: Final[tuple[State, ...]] = get_args(State)
"""States by their code."""
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)
"""Tiers by their code, which is their rank."""
NEVER: Final = np.datetime64("NaT", "us")
_CODED: Final[dict[str, tuple[str, ...]]] = {"state": STATES, "tier": TIERS}


@dataclass
class InstanceColumns:
    """Instances by slot: one array of equal length for each field. Arrays are changed in place."""

    key: Texts
    rule: Texts
    dimension: Texts
    member: Texts
    grain: Texts
    state: Codes
    tier: Codes
    episode_period: Times
    """First period of the open episode; NaT: none is open."""
    since_period: Times
    breach_period: Times
    last_period: Times
    data_period: Times
    breaches: Counts
    reds: Counts
    clears: Counts
    breaches_before: Counts
    reds_before: Counts
    clears_before: Counts
    value: Numbers
    observed: Numbers
    baseline: Numbers
    lower: Numbers
    upper: Numbers
    yellow_bound: Numbers
    red_bound: Numbers
    sample: Numbers
    reason: Texts
    rule_hash: Texts
    metric_version: Texts
    data_version: Texts
    evaluated_at: Times
    breach_period_before: Times
    is_corrected: Flags
    changes: Counts
    is_flapping: Flags
    unknown_reason: Texts
    unknown_period: Times

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def empty(cls, key: Texts, rule: Texts, dimension: Texts, member: Texts, grain: Texts) -> InstanceColumns:
        """Instances that were never judged: ok, with no history."""
        count = len(key)
        given: dict[str, Any] = {"key": key, "rule": rule, "dimension": dimension, "member": member, "grain": grain}
        return cls(**given, **{name: _blank(name, count) for name in NAMES if name not in given})

    @classmethod
    def of_rows(cls, rows: Iterable[Instance]) -> InstanceColumns:
        """The columns of these instances."""
        return cls.of_values(dict(zip(COLUMNS, zip(*rows, strict=True), strict=False)))

    @classmethod
    def of_values(cls, values: dict[str, Any]) -> InstanceColumns:
        """From a sequence or an array for each column of the table, times as datetimes or as text."""
        if not values:
            return cls.empty(*(np.array([], dtype=object) for _ in range(5)))
        arrays = {name: _array(name, values[name]) for name in NAMES if name != "episode_period"}
        return cls(**arrays, episode_period=_first_periods(values["episode"]))

    def extended(self, more: InstanceColumns) -> InstanceColumns:
        """These, then those of `more`."""
        return joined([self, more]) if len(more) else self

    def episode_keys(self, slots: Indices) -> list[str | None]:
        """Keys of the open episodes; None where none is open."""
        return episode_keys(self.key[slots], self.episode_period[slots])

    def rows(self, slots: Indices) -> list[Instance]:
        """These instances as rows."""
        columns: list[list[Any]] = []
        for name in COLUMNS:
            if name == "episode":
                columns.append([*self.episode_keys(slots)])
                continue
            column = getattr(self, name)[slots]
            if name in _CODED:
                columns.append([_CODED[name][code] for code in column.tolist()])
            elif column.dtype.kind == "M":
                columns.append(datetimes(column, UTC if name == "evaluated_at" else None))
            elif column.dtype.kind == "f":
                columns.append([None if number != number else number for number in column.tolist()])  # noqa: PLR0124
            else:
                columns.append(column.tolist())
        return [Instance._make(row) for row in zip(*columns, strict=True)]


def joined(parts: Sequence[InstanceColumns]) -> InstanceColumns:
    """All of them, in their order."""
    if not parts:
        return InstanceColumns.of_values({})
    return InstanceColumns(**{name: np.concatenate([getattr(one, name) for one in parts]) for name in NAMES})


NAMES: Final = tuple(field.name for field in fields(InstanceColumns))
COLUMNS: Final = Instance._fields


def load_instances(connection: Connection, rules: Collection[str]) -> InstanceColumns:
    """All instances of these rules."""
    parts: list[InstanceColumns] = []
    for some in chunks(rules):
        query = sa.select(alert_instances).where(alert_instances.c.rule.in_(some))
        parts += map(InstanceColumns.of_values, read_columns(connection, query))
    return joined(parts)


def save_instances(connection: Connection, instances: InstanceColumns, slots: Indices) -> None:
    """Insert or replace these instances by key."""
    if not len(slots):
        return
    columns: dict[str, Any] = {}
    for name in COLUMNS:
        if name == "episode":
            columns[name] = instances.episode_keys(slots)
        elif name in _CODED:
            columns[name] = np.array(_CODED[name], dtype=object)[getattr(instances, name)[slots]]
        else:
            columns[name] = getattr(instances, name)[slots]
    write_columns(connection, alert_instances, columns, replace=True, fixed=("rule", "dimension", "member", "grain"))


def episode_keys(keys: Texts, periods: Times) -> list[str | None]:
    """`<instance>@<first period>` to the minute; None where the period is NaT."""
    ends = [None if one is None else one.isoformat(timespec="minutes") for one in datetimes(periods)]
    return [None if end is None else f"{key}@{end}" for key, end in zip(keys, ends, strict=True)]


def datetimes(column: Times, zone: Any = None) -> list[datetime | None]:
    """Times as datetimes, NaT as None. There are few different ones in a tick, so each is made once."""
    distinct, place = np.unique(column, return_inverse=True)
    made = [None if one is None else one.replace(tzinfo=zone) for one in distinct.astype("datetime64[us]").tolist()]
    return [made[position] for position in place.tolist()]


def _blank(name: str, count: int) -> Any:
    kind = _KINDS[name]
    if kind == "datetime64[us]":
        return np.full(count, NEVER)
    if kind is np.float64:
        return np.full(count, np.nan)
    if kind is object:
        return np.full(count, "", dtype=object)
    return np.zeros(count, dtype=kind)


def _array(name: str, values: Any) -> Any:
    """A column of the table as an array of its kind."""
    kind = _KINDS[name]
    if name in _CODED:
        codes = {word: code for code, word in enumerate(_CODED[name])}
        return np.fromiter(map(codes.__getitem__, values), dtype=kind, count=len(values))
    if kind == "datetime64[us]":
        return times(values)
    if kind is object:
        column = np.empty(len(values), dtype=object)
        column[:] = values
        return column
    return np.array(values, dtype=kind)  # None becomes NaN


def times(values: Any) -> Times:
    """Datetimes, ISO texts or None as `datetime64[us]`; what has a zone is taken to UTC."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    made: dict[Any, np.datetime64] = {}
    for value in set(values):
        plain = datetime.fromisoformat(value) if isinstance(value, str) else value
        if plain is not None and plain.tzinfo is not None:
            plain = plain.astimezone(UTC).replace(tzinfo=None)
        made[value] = NEVER if plain is None else np.datetime64(plain, "us")
    return np.fromiter(map(made.__getitem__, values), dtype="datetime64[us]", count=len(values))


def _first_periods(episodes: Sequence[str | None]) -> Times:
    found = np.full(len(episodes), NEVER)
    known: dict[str, np.datetime64] = {}
    for position, key in enumerate(episodes):
        if key is not None:
            period = key.rpartition("@")[2]
            if period not in known:
                known[period] = np.datetime64(period, "us")
            found[position] = known[period]
    return found


def _kind(name: str) -> Any:
    if name in {"episode_period", "evaluated_at"} or name.endswith("_period") or "_period_" in name:
        return "datetime64[us]"
    if name in _CODED:
        return np.int8
    kinds: dict[type, Any] = {sa.Double: np.float64, sa.Integer: np.int32, sa.Boolean: np.bool_, sa.Text: object}
    return next(kind for cls, kind in kinds.items() if isinstance(alert_instances.c[name].type, cls))


_KINDS: Final[dict[str, Any]] = {name: _kind(name) for name in NAMES}
