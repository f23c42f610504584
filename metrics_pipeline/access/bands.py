"""Ranges shown instead of values: 1–2–5 steps of each power of ten.

A band depends on the value alone, so reading it again or beside others of its kind tells nothing more; noise could be
averaged away. What it does tell: the order of magnitude, and when a value crosses from one band to the next.
"""

from __future__ import annotations

import math
from typing import NamedTuple

RATIO_LEAST = 0.01
LEAST = 10.0
"""Below these nothing is told apart, so that zero is not shown."""


class Band(NamedTuple):
    """low ≤ value < high (of a negative value: low < value ≤ high)."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{_text(self.low)} – {_text(self.high)}"


def least_of(unit: str) -> float:
    """The width of the band around zero, by the metric's unit."""
    return RATIO_LEAST if unit == "ratio" else LEAST


def band(value: float | None, unit: str) -> Band | None:
    """The band of a value; None of none."""
    if value is None or not math.isfinite(value):
        return None
    size, least = abs(value), least_of(unit)
    if size < least:
        return Band(-least, least)
    power = 10.0 ** math.floor(math.log10(size))
    low = power * max(step for step in (1, 2, 5) if step <= max(1.0, size / power))
    high = low * (2.5 if low / power == 2 else 2)
    return Band(low, high) if value > 0 else Band(-high, -low)


def bounds_sql(value: str, least: str) -> tuple[str, str]:
    """DuckDB expressions of the two ends of a band; NULL where there is no finite value."""
    size = f"abs({value})"
    power = f"pow(10.0, floor(log10({size})))"
    low = f"{power} * (CASE WHEN {size} / {power} >= 5 THEN 5 WHEN {size} / {power} >= 2 THEN 2 ELSE 1 END)"
    high = f"{power} * (CASE WHEN {size} / {power} >= 5 THEN 10 WHEN {size} / {power} >= 2 THEN 5 ELSE 2 END)"

    def end(positive: str, negative: str, around: str) -> str:
        return (
            f"CASE WHEN {value} IS NULL OR NOT isfinite({value}) THEN NULL WHEN {size} < {least} THEN {around} "
            f"WHEN {value} > 0 THEN {positive} ELSE {negative} END"
        )

    return end(low, f"-({high})", f"-({least})"), end(high, f"-({low})", least)


def _text(bound: float) -> str:
    return f"{bound:,.0f}" if abs(bound) >= 1000 else f"{bound:.4g}"
