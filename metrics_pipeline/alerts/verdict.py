"""What a rule said about one slice in one period: a row of the evaluations (docs/architecture.md, Evaluations)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from metrics_pipeline.store.records import Tier

if TYPE_CHECKING:
    import pandas as pd

VerdictTier = Literal["ok", "yellow", "red", "no_data", "unknown"]
TIERS = frozenset(get_args(VerdictTier))
HOLDS = frozenset(get_args(Tier))

REQUIRED = ("rule", "metric", "dimension", "member", "grain", "period_start", "tier", "reason")
VERSIONS = ("rule_hash", "metric_version", "data_version", "evaluated_at")
NUMBERS = ("value", "observed", "baseline", "lower", "upper", "yellow_bound", "red_bound", "sample")


class Verdict(NamedTuple):
    """One rule × slice × period. `period_start` is shop-local without a zone, `evaluated_at` is UTC."""

    rule: str
    metric: str
    dimension: str
    member: str
    grain: str
    period_start: datetime
    tier: VerdictTier
    reason: str
    rule_hash: str
    metric_version: str
    data_version: str
    evaluated_at: datetime
    value: float | None = None
    observed: float | None = None
    baseline: float | None = None
    lower: float | None = None
    upper: float | None = None
    yellow_bound: float | None = None
    red_bound: float | None = None
    sample: float | None = None
    run_id: str = ""
    holds: Tier | None = None
    """The tier that an alert which fires already would keep, because its `recover_if` is not met; None: `tier`."""

    @property
    def instance(self) -> str:
        """The key of the alert instance: `rule{dimension=member}`."""
        return instance_key(self.rule, self.dimension, self.member)


def instance_key(rule: str, dimension: str, member: str) -> str:
    """`rule{dimension=member}`: no severity, value or version in it, so yellow → red is one alert."""
    return f"{rule}{{{dimension}={member}}}"


def verdicts_of_frame(frame: pd.DataFrame) -> list[Verdict]:
    """The verdicts in a frame with the columns of the evaluations. Raises `ValueError` as `verdicts_of_columns` does."""
    return verdicts_of_columns({str(name): frame[name].tolist() for name in frame.columns})


def verdicts_of_columns(columns: Mapping[str, Sequence[Any]]) -> list[Verdict]:
    """The verdicts in columns of equal length, e.g. of an Arrow table's `to_pydict()`.

    NaN, NaT and None are the same absence. Raises `ValueError` naming the missing columns or the first tier that is
    not one of ok, yellow, red, no_data, unknown.
    """
    if missing := [name for name in (*REQUIRED, *VERSIONS) if name not in columns]:
        raise ValueError(f"verdicts lack the columns {', '.join(missing)}; expected those of docs/architecture.md")
    count = len(columns["rule"])
    data: dict[str, Iterable[Any]] = {name: columns[name] for name in REQUIRED}
    if unknown := set(columns["tier"]) - TIERS:
        raise ValueError(f"unknown tier {sorted(map(repr, unknown))[0]}; expected one of {', '.join(sorted(TIERS))}")
    data["period_start"] = [_period(value) for value in columns["period_start"]]
    data["evaluated_at"] = [_instant(value) for value in columns["evaluated_at"]]
    for name in ("rule_hash", "metric_version", "data_version", "run_id"):
        data[name] = ["" if _absent(value) else str(value) for value in columns.get(name, [""] * count)]
    data["holds"] = [None if _absent(value) else value for value in columns.get("holds", [None] * count)]
    if unknown := set(data["holds"]) - HOLDS - {None}:
        raise ValueError(f"unknown holds {sorted(map(repr, unknown))[0]}; expected one of {', '.join(sorted(HOLDS))}")
    for name in NUMBERS:
        data[name] = [_number(value) for value in columns.get(name, [None] * count)]
    return [Verdict._make(row) for row in zip(*(data[name] for name in Verdict._fields), strict=True)]


def _absent(value: Any) -> bool:
    return value is None or str(value) in ("nan", "NaT", "<NA>")


def _number(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def _period(value: Any) -> datetime:
    if isinstance(value, datetime):
        plain = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
        return plain.replace(tzinfo=None)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    return datetime.fromisoformat(str(value)).replace(tzinfo=None)


def _instant(value: Any) -> datetime:
    if not isinstance(value, datetime):
        value = datetime.fromisoformat(str(value))
    plain: datetime = value.to_pydatetime() if hasattr(value, "to_pydatetime") else value
    return plain.replace(tzinfo=UTC) if plain.tzinfo is None else plain.astimezone(UTC)
