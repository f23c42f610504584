"""What a metric without inputs (a measure, a conversion) gives when it is counted from the facts of the build file now.

The SQL is that of its generated cube and model, so the values are those of the next night. The build file is one
writer's: it is read for as long as one query takes, and not waited for while a run has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from metrics_pipeline.library.catalogue import Catalogue, Metric
from metrics_pipeline.library.compile import cube_call, metric_call
from metrics_pipeline.library.definitions import SEMANTIC_FILE, dimensions_of
from metrics_pipeline.library.rendering import render, render_model
from metrics_pipeline.warehouse.build import BuildError, BuildLocked, connect_build
from metrics_pipeline.warehouse.quoting import literal

if TYPE_CHECKING:
    import pyarrow as pa

_FILL_DAYS = 28
"""So long before its days a metric table looks for members that had a row: `simple_metric` fills gaps with 0."""
_WAIT_SECONDS = 2.0


class PreviewError(ValueError):
    """What cannot be computed before it is built; the message says why."""


@dataclass(frozen=True)
class FactsReader:
    """The facts as somebody may see them counted."""

    path: Path
    """The build file."""
    shown: Callable[[Sequence[str]], str] = lambda _measures: "true"
    """Measures → an SQL condition over `dimension` and `member`: the slices of counts of them that may be shown."""
    distinct: str = "exact"
    is_fresh: bool = False
    """Facts are computed by their SQL as the files have it, instead of read as the last night built them."""

    def values(self, catalogue: Catalogue, metric_id: str, start: date, until: date) -> pa.Table:
        """Day values for [start, until), without slices by SKU.

        Columns: period_start, grain, dimension, member, numerator, denominator, value. Raises `PreviewError`.
        """
        metric = catalogue.metrics[metric_id]
        project = catalogue.definitions.project_dir
        slices = tuple(name for name in metric.slices if "sku" not in dimensions_of(name))
        first = start - timedelta(days=_FILL_DAYS)
        # What follows an event of the last days lies after them.
        made = self._made(catalogue, metric_id, first, until + timedelta(days=metric.settle_days + 1))
        cube = render(
            project, cube_call(catalogue, metric_id, slices), ref=lambda name: made.get(name) or _table(name),
            start=first, until=until, distinct=self.distinct,
        )  # fmt: skip
        sql = render(
            project, metric_call(catalogue, metric_id, slices=slices),
            ref=lambda name: f"({cube})" if name.startswith("cube_") else _table(name), start=start, until=until,
        )  # fmt: skip
        return self._asked(
            metric,
            "SELECT period_start, grain, dimension, member, numerator, denominator, value "
            f"FROM ({sql}) WHERE {self.shown(measures_of(catalogue, metric_id))}",
        )

    def _made(self, catalogue: Catalogue, metric_id: str, start: date, until: date) -> dict[str, str]:
        """The facts behind a metric, computed anew; {} when they are read as they were built."""
        measures = measures_of(catalogue, metric_id)
        models = catalogue.definitions.semantic_models
        facts = {model.fact for model in models for one in model.measures if one.name in measures}
        folder = catalogue.definitions.project_dir / SEMANTIC_FILE.parent
        return {
            fact: "("
            + render_model(
                catalogue.definitions.project_dir, (folder / f"{fact}.sql").read_text("utf-8"), ref=_table, start=start,
                until=until, distinct=self.distinct,
            )
            + ")"
            for fact in (facts if self.is_fresh else ())
        }  # fmt: skip

    def reach(self, metric: Metric) -> date:
        """The first day for which not all raw tables of a metric are complete. Raises `PreviewError`."""
        tables = ", ".join(literal(name) for name in metric.tables)
        [newest] = self._asked(
            metric,
            f"""SELECT max(period_start) AS newest FROM (
                SELECT period_start FROM {_table("dim_complete_periods")}
                WHERE grain = 'day' AND table_name IN ({tables})
                GROUP BY period_start HAVING count(DISTINCT table_name) = {len(metric.tables)})""",
        )["newest"].to_pylist()
        if newest is None:
            raise PreviewError(f"no day of {', '.join(metric.tables)} is complete yet; run `metrics nightly`")
        day: date = newest.date()
        return day + timedelta(days=1)

    def _asked(self, metric: Metric, query: str) -> pa.Table:
        try:
            with connect_build(self.path, read_only=True, wait_seconds=_WAIT_SECONDS) as con:
                return con.sql(query).to_arrow_table()
        except BuildLocked:
            raise PreviewError(
                f"{metric.id} is counted from facts, and a run has the build file open; ask again when it is done"
            ) from None
        except duckdb.BinderException as error:
            raise PreviewError(
                f"{metric.id} is counted from a column that its facts get with the next night "
                f"({str(error).splitlines()[0]})"
            ) from None
        except (BuildError, duckdb.CatalogException):
            raise PreviewError(
                f"{metric.id} is counted from facts, and there are none yet; run `metrics nightly`"
            ) from None


def measures_of(catalogue: Catalogue, metric_id: str) -> tuple[str, ...]:
    """The measures that a metric without inputs counts."""
    definition = catalogue.written[metric_id]
    if definition.conversion is not None:
        return definition.conversion.base_measure, definition.conversion.conversion_measure
    return (definition.measure or "",)


def _table(model: str) -> str:
    return f"{'staging' if model.startswith('stg_') else 'facts'}.{model}"
