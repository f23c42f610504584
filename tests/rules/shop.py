"""Builders for rule tests: a published version from a few series, a catalogue, and rules with boring defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import pyarrow as pa

from metrics_pipeline.rule_tests.world import VALUES_SCHEMA
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.warehouse import manifest
from metrics_pipeline.warehouse.manifest import PARTS, FormerVersion, MetricState, ValuesFile, Version, part_of
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import Window

FIRST = date(2025, 1, 6)
"""A Monday."""
NOW = datetime(2025, 12, 1, 1, 0)

Value = float | tuple[float, float] | None
"""A value, a (numerator, denominator), or None = a row whose value is NULL."""


@dataclass
class Shop:
    """Series to be published; `missing` in a series is a period without a row."""

    rows: list[dict[str, object]] = field(default_factory=list)
    versions: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)
    """Metric → first moment and name of each of its definition versions, in the order in which they were added."""
    complete_until: dict[str, datetime] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def add(
        self,
        metric: str,
        values: Iterable[Value | str],
        *,
        dimension: str = "all",
        member: str = "all",
        grain: str = "day",
        first: date = FIRST,
        version: str = "v1",
    ) -> Shop:
        step = timedelta(days=1) if grain == "day" else timedelta(hours=1)
        at = datetime(first.year, first.month, first.day)
        for value in values:
            if value != "missing":
                numerator, denominator = value if isinstance(value, tuple) else (value, None)
                result = value
                if isinstance(value, tuple):
                    result = value[0] / value[1] if value[1] else None
                self.rows.append(
                    {
                        "metric": metric, "period_start": at, "grain": grain, "dimension": dimension, "member": member,
                        "numerator": numerator, "denominator": denominator, "value": result, "definition_version": version,
                    }
                )  # fmt: skip
            at += step
        known = self.versions.setdefault(metric, [])
        if version not in [name for _, name in known]:
            known.append((datetime(first.year, first.month, first.day), version))
        self.complete_until[metric] = max(at, self.complete_until.get(metric, at))
        return self

    def publish(self, directory: Path, created_at: datetime = NOW) -> Published:
        states = {
            metric: MetricState(
                versions[-1][1],
                self.complete_until[metric],
                former=tuple(FormerVersion(since, former) for (_, former), (since, _) in pairwise(versions)),
            )
            for metric, versions in self.versions.items()
        } | {metric: MetricState("v1", None, "no such table", "没有该表") for metric in self.absent}
        publish_rows(directory, pa.Table.from_pylist(self.rows, schema=VALUES_SCHEMA), states, created_at)
        return Published.open(directory)


def publish_rows(
    directory: Path, rows: pa.Table, states: Mapping[str, MetricState], created_at: datetime = NOW
) -> None:
    """Write rows in the published layout and make them current."""
    files: list[ValuesFile] = []
    with duckdb.connect() as con:
        con.register("rows", rows)
        months = con.execute("SELECT DISTINCT date_trunc('month', period_start)::DATE FROM rows ORDER BY 1").fetchall()
        dimensions = [row[0] for row in con.execute("SELECT DISTINCT dimension FROM rows").fetchall()]
        for (month,) in months:
            for part in PARTS:
                names = [name for name in dimensions if part_of(name) == part]
                path = Path("values") / f"month={month:%Y-%m}" / f"{part}-{created_at:%H%M%S}.parquet"
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                count = con.execute(
                    f"COPY (SELECT * FROM rows WHERE date_trunc('month', period_start)::DATE = '{month}' "
                    f"AND list_contains({names!r}::VARCHAR[], dimension) "
                    "ORDER BY metric, grain, dimension, member, period_start) "
                    f"TO '{directory / path}' (FORMAT parquet)"
                ).fetchone()
                assert count is not None
                files.append(ValuesFile(path.as_posix(), month, part, count[0], (directory / path).stat().st_size))
    values = tuple(files)
    first = min((file.month for file in files), default=FIRST)
    version = Version(
        id=manifest.new_version_id(created_at, None, states, values),
        previous=None,
        run_id="run",
        created_at=created_at,
        window=Window(first, first + timedelta(days=1)),
        changed_rows=rows.num_rows,
        metrics=dict(states),
        values=values,
        history=(),
    )
    manifest.write_version(directory, version)
    manifest.point_to(directory, version)


@dataclass(frozen=True)
class FakeMetric:
    id: str
    slices: tuple[str, ...] = ("all", "region", "channel", "region|channel")
    hour_slices: tuple[str, ...] = ("all", "channel")
    grains: tuple[str, ...] = ("day", "hour")
    direction: str = "higher_is_better"
    unit: str = "count"


@dataclass(frozen=True)
class FakeCatalogue:
    metrics: Mapping[str, FakeMetric]


def make_catalogue(**units: str) -> FakeCatalogue:
    """orders_paid, refund_rate and gmv, and one metric for each keyword (its unit)."""
    known = {"orders_paid": "count", "refund_rate": "ratio", "gmv": "currency", **units}
    return FakeCatalogue({name: FakeMetric(name, unit=unit) for name, unit in known.items()})


def make_rule(**keys: object) -> Rule:
    """A valid rule; any key of a rule file replaces the default."""
    defaults: dict[str, object] = {
        "alert": "orders_low",
        "why": "Orders pay the bills.",
        "why_zh": "订单是收入来源。",
        "metric": "orders_paid",
        "expr": "value",
        "owner": "sales",
        "labels": {"scenario": "sales_drop"},
        "annotations": {"summary": "Few orders.", "summary_zh": "订单过少。"},
    }
    if not {"yellow_if", "red_if"} & keys.keys():
        defaults["yellow_if"] = "< 50"
    return Rule.model_validate({**defaults, **keys})


def weekly_wave(days: int, level: float = 200.0, *, growth: float = 0.0, wobble: float = 0.03) -> list[Value]:
    """Whole numbers with a weekly rhythm, growth per day and a small deterministic wobble."""
    rhythm = (0.9, 0.92, 0.95, 1.0, 1.05, 1.2, 1.1)
    return [
        float(round(level * rhythm[n % 7] * (1 + growth) ** n * (1 + wobble * ((n * 7919) % 13 - 6) / 6)))
        for n in range(days)
    ]


def day(n: int) -> date:
    """The n-th day of a shop."""
    return FIRST + timedelta(days=n)
