"""Forecasts as tables: Parquet files behind one pointer, as published values are.

    forecasts/CURRENT                 id of the newest version
    forecasts/versions/<id>.json      what it is: made when, from which published version, by which model, how good
    forecasts/values/<id>.parquet     metric, dimension, member, origin, day, ahead, mean, q05 … q95
    forecasts/stockout/<id>.parquet   sku, origin, day, ahead, chance, expected_demand
    forecasts/stockout/<id>.outlook.parquet   of each SKU in danger when, how sure, what to order by when (`outlook.py`)

A version is written whole and then pointed to; the last `KEPT` stay, so that what was foreseen can be compared with
what came. The same forecast again (same published version, model, calendar and questions) is no new version.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from metrics_pipeline.forecasting.backtest import Score
from metrics_pipeline.forecasting.ets import LEVELS, Forecast
from metrics_pipeline.forecasting.outlook import Outlook, of_table
from metrics_pipeline.forecasting.panel import Panel
from metrics_pipeline.forecasting.stockout import Risk
from metrics_pipeline.forecasting.supply import SOLD, STOCK
from metrics_pipeline.warehouse.read import Published

KEPT = 60
Kind = Literal["values", "stockout"]
QUANTILES = tuple(f"q{round(level * 100):02d}" for level in LEVELS)


class NoForecast(RuntimeError):
    """There is no stored forecast to read; the message says what to do."""


@dataclass(frozen=True)
class Question:
    """Metric and dimension that are forecast."""

    metric: str
    dimension: str


@dataclass(frozen=True)
class StoredPanel:
    """What a version says of one metric and dimension."""

    question: Question
    origin: date
    """Last day that was known."""
    series: int
    score: Score | None
    """Of the backtest; None = the history is too short for one."""


@dataclass(frozen=True)
class ForecastVersion:
    """The manifest of a version."""

    id: str
    kind: Kind
    made_at: datetime
    """Naive UTC."""
    data_version: str
    """The published version it was made from."""
    model: str
    horizon: int
    run_id: str
    path: str
    rows: int
    panels: tuple[StoredPanel, ...] = ()
    format: Literal[1] = 1


_VERSION = TypeAdapter(ForecastVersion)


def rows_of(question: Question, panel: Panel, made: Forecast) -> pa.Table:
    """The rows of one panel: series with a forecast × days ahead."""
    series = np.flatnonzero(np.isfinite(made.error))
    horizon = made.horizon
    members = [panel.members[row] for row in series]
    days = [panel.last + timedelta(days=step) for step in range(1, horizon + 1)]
    count = len(series) * horizon
    return pa.table(
        {
            "metric": pa.array([question.metric] * count, pa.string()),
            "dimension": pa.array([question.dimension] * count, pa.string()),
            "member": pa.array(np.repeat(np.array(members, object), horizon), pa.string()),
            "origin": pa.array([panel.last] * count, pa.date32()),
            "day": pa.array(days * len(series), pa.date32()),
            "ahead": pa.array(np.tile(np.arange(1, horizon + 1), len(series)), pa.int32()),
            "mean": made.mean[series].ravel(),
            **{name: made.quantiles[series, :, number].ravel() for number, name in enumerate(QUANTILES)},
        }
    )


def risk_rows(risk: Risk) -> pa.Table:
    """The rows of a stock-out forecast: SKUs × days ahead; the dimension and metric by which a policy reads them."""
    known = np.flatnonzero(np.isfinite(risk.chance[:, 0]))
    horizon, count = risk.horizon, len(known) * risk.horizon
    days = [risk.origin + timedelta(days=step) for step in range(1, horizon + 1)]
    return pa.table(
        {
            "sku": pa.array(np.repeat(np.array([risk.skus[row] for row in known], object), horizon), pa.string()),
            "origin": pa.array([risk.origin] * count, pa.date32()),
            "day": pa.array(days * len(known), pa.date32()),
            "ahead": pa.array(np.tile(np.arange(1, horizon + 1), len(known)), pa.int32()),
            "chance": risk.chance[known].ravel(),
            "expected_demand": risk.expected[known].ravel(),
        }
    )


def store(
    directory: Path,
    kind: Kind,
    table: pa.Table,
    *,
    made_at: datetime,
    data_version: str,
    model: str,
    horizon: int,
    run_id: str,
    panels: Sequence[StoredPanel] = (),
    outlook: pa.Table | None = None,
) -> ForecastVersion:
    """Write a version and point to it. Returns the current one where it says the same. `outlook`: of a stock-out forecast, the
    SKUs in danger (`outlook.table_of`)."""
    moment = made_at.astimezone(UTC).replace(tzinfo=None) if made_at.tzinfo else made_at
    content = hashlib.sha256(f"{kind} {data_version} {model} {horizon}".encode())
    for column in table.itercolumns():
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                content.update(memoryview(buffer) if buffer is not None else b"")
    digest = content.hexdigest()[:10]
    current = read_current(directory, kind)
    if current is not None and current.id.endswith(digest):
        return current
    identity = f"{moment:%Y%m%dT%H%M%S}-{digest}"
    path = Path(kind) / f"{identity}.parquet"
    version = ForecastVersion(
        identity, kind, moment, data_version, model, horizon, run_id, path.as_posix(), table.num_rows, tuple(panels)
    )
    (directory / kind).mkdir(parents=True, exist_ok=True)
    (directory / "versions").mkdir(parents=True, exist_ok=True)
    part = (directory / path).with_suffix(".part")
    pq.write_table(table, part, compression="zstd")
    part.replace(directory / path)
    if outlook is not None:
        pq.write_table(outlook, part, compression="zstd")
        part.replace(_beside(directory / path))
    _replace(directory / "versions" / f"{kind}-{identity}.json", _VERSION.dump_json(version))
    _replace(directory / _pointer(kind), identity.encode() + b"\n")
    _forget(directory, kind)
    return version


def read_current(directory: Path, kind: Kind) -> ForecastVersion | None:
    """The newest version of a kind; None = there is none."""
    try:
        identity = (directory / _pointer(kind)).read_text("utf-8").strip()
        return _VERSION.validate_json((directory / "versions" / f"{kind}-{identity}.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        raise NoForecast(
            f"the forecast in {directory} cannot be read ({first['msg']}); make it again with `metrics nightly`"
        ) from None


def read_outlooks(directory: Path, published: Published) -> dict[str, Outlook]:
    """SKU → when it will be sold out and what to order, as foreseen after the newest day with stock and sales; {} when the newest
    forecast is of another day."""
    ends = [published.metrics[name].complete_until for name in (STOCK, SOLD) if name in published.metrics]
    known = [one for one in ends if one is not None]
    if len(known) < 2:
        return {}
    after = min(known).date() - timedelta(days=1)
    version = read_current(directory, "stockout")
    path = None if version is None else _beside(directory / version.path)
    if path is None or not path.exists():
        return {}
    return {sku: one for sku, one in of_table(pq.read_table(path)).items() if one.origin == after}


def _beside(path: Path) -> Path:
    return path.with_suffix(".outlook.parquet")


def versions(directory: Path, kind: Kind) -> list[ForecastVersion]:
    """All versions that are kept, the oldest first."""
    return [_VERSION.validate_json(path.read_bytes()) for path in sorted(directory.glob(f"versions/{kind}-*.json"))]


def _pointer(kind: Kind) -> str:
    return "CURRENT" if kind == "values" else f"CURRENT-{kind}"


def _forget(directory: Path, kind: Kind) -> None:
    for path in sorted(directory.glob(f"versions/{kind}-*.json"))[:-KEPT]:
        identity = path.stem.removeprefix(f"{kind}-")
        for suffix in (".parquet", ".outlook.parquet"):
            (directory / kind / f"{identity}{suffix}").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def scores_of(version: ForecastVersion) -> Mapping[Question, Score]:
    """Question → how its backtest did."""
    return {panel.question: panel.score for panel in version.panels if panel.score is not None}
