"""Coded rows → Parquet: one file per table and shop-local month, sorted by clock, replaced atomically.

Row groups are small, so that a window of days reads little. Beside the contract's columns the event files have
`_arrived_at`: when a row reached us if that was not the usual night, else empty. `SimulatorSource` reads it, nobody else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metrics_pipeline.sources.simulator.rows import NEVER, NONE, Array, Rows, size

ARRIVED = "_arrived_at"
_SLICE_ROWS = 1_000_000
_SMALLEST_GROUP, _LARGEST_GROUP = 8_192, 122_880
_MICROSECONDS = 1_000_000
_FOUR_DIGITS = np.array([f"{n:04d}" for n in range(10_000)], "S4")


@dataclass(frozen=True)
class Code:
    """A number as text: prefix and zero-padded digits (a multiple of four). Negative = empty."""

    prefix: str
    digits: int = 12
    suffix: str = ""

    type = pa.string()

    def array(self, values: Array) -> pa.Array:
        """Fixed-width text without a loop over rows."""
        groups = self.digits // 4
        fields = [("prefix", f"S{len(self.prefix)}")] if self.prefix else []
        fields += [(f"g{k}", "S4") for k in range(groups)]
        fields += [("suffix", f"S{len(self.suffix)}")] if self.suffix else []
        out = np.empty(len(values), fields)
        if self.prefix:
            out["prefix"] = self.prefix.encode()
        if self.suffix:
            out["suffix"] = self.suffix.encode()
        absent = values < 0
        rest = np.where(absent, 0, values).astype(np.int64)
        for k in reversed(range(groups)):
            higher = rest // 10_000
            out[f"g{k}"] = _FOUR_DIGITS[rest - higher * 10_000]
            rest = higher
        offsets = np.arange(len(values) + 1, dtype=np.int32) * out.dtype.itemsize
        validity = pa.py_buffer(np.packbits(~absent, bitorder="little")) if absent.any() else None
        return pa.Array.from_buffers(self.type, len(values), [validity, pa.py_buffer(offsets), pa.py_buffer(out)])


@dataclass(frozen=True)
class Member:
    """A position in a list of names. Negative = empty."""

    names: tuple[str, ...]

    type = pa.dictionary(pa.int32(), pa.string())

    def array(self, values: Array) -> pa.Array:
        """Dictionary-encoded names."""
        absent = values == NONE
        indices = pa.array(values.astype(np.int32), mask=absent if absent.any() else None)
        return pa.DictionaryArray.from_arrays(indices, pa.array(self.names, pa.string()))


@dataclass(frozen=True)
class Moment:
    """UTC seconds since 1970. `NEVER` = empty."""

    type = pa.timestamp("us")

    def array(self, values: Array) -> pa.Array:
        """Timestamps without zone, UTC."""
        absent = values == NEVER
        if not absent.any():
            return pa.array(values * _MICROSECONDS).view(self.type)
        return pa.array(np.where(absent, 0, values) * _MICROSECONDS, mask=absent).view(self.type)


@dataclass(frozen=True)
class Day:
    """Day number relative to `epoch_day`, which counts days since 1970."""

    epoch_day: int

    type = pa.date32()

    def array(self, values: Array) -> pa.Array:
        """Dates of the shop's calendar."""
        return pa.array((values + self.epoch_day).astype(np.int32)).view(self.type)


@dataclass(frozen=True)
class Money:
    """Cents → decimal major units."""

    type = pa.decimal128(14, 2)

    def array(self, values: Array) -> pa.Array:
        """Exact decimals; values are not negative."""
        wide = np.zeros((len(values), 2), np.int64)
        wide[:, 0] = values
        return pa.Array.from_buffers(self.type, len(values), [None, pa.py_buffer(wide)])


@dataclass(frozen=True)
class Count:
    """A whole number."""

    type = pa.int32()

    def array(self, values: Array) -> pa.Array:
        """int32."""
        return pa.array(values.astype(np.int32))


@dataclass(frozen=True)
class Flag:
    """True or false."""

    type = pa.bool_()

    def array(self, values: Array) -> pa.Array:
        """Booleans."""
        return pa.array(values.astype(bool))


@dataclass(frozen=True)
class Text:
    """Text that is text already (dimension tables)."""

    type = pa.string()

    def array(self, values: Array) -> pa.Array:
        """Strings."""
        return pa.array(values.tolist(), self.type)


Column = Code | Member | Moment | Day | Money | Count | Flag | Text
Layout = dict[str, Column]
"""Columns of one table in the order of the contract."""


def write_rows(path: Path, layout: Layout, rows: Rows, clock: str | None, rows_per_day: float) -> int:
    """Write all rows of one file and return their number; the file appears whole or not at all.

    `clock`: column with statistics, by which row groups are skipped; None for dimension tables.
    `rows_per_day`: sets the size of a row group to about two days.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([pa.field(name, column.type) for name, column in layout.items()])
    members = [name for name, column in layout.items() if isinstance(column, Member)]
    group = int(min(max(2 * rows_per_day, _SMALLEST_GROUP), _LARGEST_GROUP))
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    total = size(rows)
    try:
        with pq.ParquetWriter(
            part,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=members,
            write_statistics=[clock] if clock else False,
            store_decimal_as_integer=True,
        ) as writer:
            step = max(_SLICE_ROWS // group, 1) * group
            for begin in range(0, total, step):
                piece = slice(begin, min(begin + step, total))
                arrays = [column.array(rows[name][piece]) for name, column in layout.items()]
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=group)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return total


def write_text(path: Path, text: str) -> None:
    """Replace a small text file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, "utf-8")
    part.replace(path)
