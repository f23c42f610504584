"""Verdicts as columns: what `arrays` reads, from Arrow, pandas or single verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from metrics_pipeline.alerts.ladder import LADDER
from metrics_pipeline.alerts.state import UNJUDGED
from metrics_pipeline.alerts.verdict import HOLDS, NUMBERS, REQUIRED, TIERS, VERSIONS, Verdict, instance_key
from metrics_pipeline.store.instances import Codes, Flags, Indices, Numbers, Texts, Times
from metrics_pipeline.store.records import ProcessedKey

if TYPE_CHECKING:
    import pandas as pd

VERDICT_TIERS: Final = ("ok", "yellow", "red", "no_data", "unknown")
"""Tiers of a verdict by their code; the first three are ranks."""
OK, YELLOW, RED, NO_DATA, UNKNOWN = range(5)
HELD: Final = ("none", "yellow", "red")
UNSAID: Final = -1
"""Code of `holds` where the verdict does not say."""


@dataclass(frozen=True)
class Texted:
    """A text column: each distinct text once, and which of them a row has."""

    words: Texts
    codes: NDArray[np.int64]

    @cached_property
    def texts(self) -> Texts:
        """The text of each row."""
        found: Texts = self.words[self.codes]
        return found

    def where(self, wanted: Iterable[str]) -> Flags:
        """Whether a row's text is one of these."""
        known = set(wanted)
        found: Flags = np.array([word in known for word in self.words], dtype=bool)[self.codes]
        return found

    def take(self, rows: Any) -> Texted:
        """These rows."""
        return Texted(self.words, self.codes[rows])


@dataclass(frozen=True)
class Batch:
    """The verdicts of one tick, in the order of their periods, then of their evaluation."""

    rule: Texted
    dimension: Texted
    member: Texted
    grain: Texted
    period: Times
    """Shop-local."""
    tier: Codes
    reason: Texted
    rule_hash: Texted
    metric_version: Texted
    data_version: Texted
    evaluated_at: Times
    """UTC."""
    run_id: Texted
    holds: Codes
    numbers: Mapping[str, Numbers]
    """`verdict.NUMBERS`; NaN where there is none."""

    def __len__(self) -> int:
        return len(self.period)

    @classmethod
    def of(cls, verdicts: pa.Table | pd.DataFrame | Iterable[Verdict]) -> Batch:
        """From an Arrow table or a frame with the columns of the evaluations, or from single verdicts.

        Raises `ValueError` naming the missing columns, or the first unknown tier.
        """
        if isinstance(verdicts, pa.Table):
            return cls._of_arrow(verdicts)
        if hasattr(verdicts, "columns"):
            return cls._of_arrow(pa.Table.from_pandas(verdicts, preserve_index=False))
        listed = list(verdicts)
        columns = dict(zip(Verdict._fields, zip(*listed, strict=True), strict=True)) if listed else {}
        schema = {**_SCHEMA, "evaluated_at": pa.timestamp("us", "UTC")}
        return cls._of_arrow(pa.table({name: pa.array(columns.get(name, []), kind) for name, kind in schema.items()}))

    @classmethod
    def _of_arrow(cls, table: pa.Table) -> Batch:
        if missing := [name for name in (*REQUIRED, *VERSIONS) if name not in table.column_names]:
            raise ValueError(f"verdicts lack the columns {', '.join(missing)}; expected those of docs/architecture.md")
        texts = {name: _texted(table, name) for name in _TEXTS}
        period, evaluated_at = _times(table["period_start"]), _times(table["evaluated_at"])
        batch = cls(
            rule=texts["rule"],
            dimension=texts["dimension"],
            member=texts["member"],
            grain=texts["grain"],
            period=period,
            tier=_coded(texts["tier"], VERDICT_TIERS, TIERS, "tier"),
            reason=texts["reason"],
            rule_hash=texts["rule_hash"],
            metric_version=texts["metric_version"],
            data_version=texts["data_version"],
            evaluated_at=evaluated_at,
            run_id=texts["run_id"],
            holds=_coded(texts["holds"], HELD, HOLDS | {""}, "holds"),
            numbers={name: _numbers(table, name) for name in NUMBERS},
        )
        order = np.lexsort((evaluated_at, period))
        return batch if bool((order[1:] > order[:-1]).all()) else batch.take(order)

    def take(self, rows: Any) -> Batch:
        """These verdicts, in this order."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        taken: dict[str, Any] = {
            name: one.take(rows) if isinstance(one, Texted) else one[rows] for name, one in columns.items()
        }
        return Batch(**taken, numbers={name: column[rows] for name, column in self.numbers.items()})

    @cached_property
    def silent(self) -> Flags:
        """Whether a verdict says nothing about its slice (`state.is_silent_on_state`)."""
        found: Flags = (self.tier == UNKNOWN) | self.waiting | self._with_effect("freeze")
        return found

    @cached_property
    def waiting(self) -> Flags:
        """Not due yet."""
        return self._with_effect("wait")

    @cached_property
    def missing(self) -> Flags:
        """Whether the reason is that of a period without a value."""
        return self._with_effect("missing")

    @cached_property
    def on_ladder(self) -> Flags:
        """Whether the reason is a kind of missing."""
        return self.reason.where(LADDER)

    @cached_property
    def unjudged(self) -> Flags:
        """Whether there is a value that could not be judged."""
        return self.reason.where(UNJUDGED)

    def _with_effect(self, effect: str) -> Flags:
        return self.reason.where(word for word, rung in LADDER.items() if rung.effect == effect)

    def instances(self) -> tuple[Indices, Indices, list[str]]:
        """Where each distinct instance occurs first, which of them a row is of, and their keys."""
        first, place = distinct(self.rule.codes, self.dimension.codes, self.member.codes)
        keys = [
            instance_key(rule, dimension, member)
            for rule, dimension, member in zip(
                self.rule.texts[first], self.dimension.texts[first], self.member.texts[first], strict=True
            )
        ]
        return first, place, keys

    def groups(self) -> tuple[list[ProcessedKey], Indices]:
        """The distinct (rule, period, rule hash, metric version, data version), and which of them a row is of."""
        first, place = distinct(
            self.rule.codes,
            self.period.astype(np.int64),
            self.rule_hash.codes,
            self.metric_version.codes,
            self.data_version.codes,
        )
        keys = [
            ProcessedKey(*row)
            for row in zip(
                self.rule.texts[first],
                self.period[first].tolist(),
                self.rule_hash.texts[first],
                self.metric_version.texts[first],
                self.data_version.texts[first],
                strict=True,
            )
        ]
        return keys, place


_TEXTS: Final = (
    "rule",
    "dimension",
    "member",
    "grain",
    "tier",
    "reason",
    "rule_hash",
    "metric_version",
    "data_version",
    "run_id",
    "holds",
)
_FIELDS: Final = frozenset(Batch.__dataclass_fields__) - {"numbers"}
_SCHEMA: Final[dict[str, Any]] = {
    "metric": pa.string(),
    **dict.fromkeys(_TEXTS, pa.string()),
    "period_start": pa.timestamp("us"),
    **dict.fromkeys(NUMBERS, pa.float64()),
}


def distinct(*columns: NDArray[np.int64]) -> tuple[Indices, Indices]:
    """Rows that are the first with their combination of codes, and for each row which combination it has."""
    place = np.zeros(len(columns[0]), dtype=np.int64)
    first = np.zeros(0, dtype=np.intp)
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        _, first, place = np.unique(place * max(len(values), 1) + codes, return_index=True, return_inverse=True)
    return first, place


def _texted(table: pa.Table, name: str) -> Texted:
    if name not in table.column_names:
        return Texted(np.array([""], dtype=object), np.zeros(table.num_rows, dtype=np.int64))
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no chunk at all
        column = pa.array([], pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()) if column.null_count else column
    elif not pa.types.is_string(column.type):
        column = column.cast(pa.string())
    encoded = column if pa.types.is_dictionary(column.type) else column.fill_null("").dictionary_encode()
    words = np.empty(len(encoded.dictionary), dtype=object)
    words[:] = encoded.dictionary.to_pylist()
    return Texted(words, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64))


def _coded(column: Texted, words: tuple[str, ...], known: frozenset[str], name: str) -> Codes:
    used = column.words[np.unique(column.codes)].tolist()
    if unknown := sorted(repr(word) for word in used if word not in known):
        raise ValueError(f"unknown {name} {unknown[0]}; expected one of {', '.join(sorted(known - {''}))}")
    codes = np.array([words.index(word) if word in words else UNSAID for word in column.words], dtype=np.int8)
    return codes[column.codes]


def _times(column: pa.ChunkedArray) -> Times:
    zone = getattr(column.type, "tz", None)
    kind = pa.timestamp("us", zone) if zone else pa.timestamp("us")
    found: Times = column.cast(kind).cast(pa.int64()).to_numpy().astype("datetime64[us]")
    return found


def _numbers(table: pa.Table, name: str) -> Numbers:
    if name not in table.column_names:
        return np.full(table.num_rows, np.nan)
    column = pc.cast(table[name], pa.float64()).to_numpy()
    return np.where(np.isfinite(column), column, np.nan)
