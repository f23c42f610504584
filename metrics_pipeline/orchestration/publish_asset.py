"""Publishing as assets: `published/metric_values` for the days, `published/hourly_values` for the hours.

Here: which tables are published with which state, and the lineage from every metric. Not here: how a version is made
(`warehouse.publish`).
"""

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from typing import Any

import dagster as dg

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.recording import record_files
from metrics_pipeline.library.versions import read_targets
from metrics_pipeline.orchestration.instance import WRITER_POOL
from metrics_pipeline.orchestration.keys import PUBLISHED_HOURLY_KEY, PUBLISHED_KEY
from metrics_pipeline.orchestration.partitions import daily_partitions, hourly_partitions, window_of
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.services import require_nightly
from metrics_pipeline.store import open_store
from metrics_pipeline.warehouse.attributes import publish_products
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.campaigns import write_campaigns
from metrics_pipeline.warehouse.extent import complete_until, covered_until
from metrics_pipeline.warehouse.manifest import FormerVersion, MetricState, Version, read_current
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.window import Window


def build_publish_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The two publish assets; both make a version of the same published directory."""
    metrics = project.catalogue.metrics.values()

    @dg.asset(
        key=PUBLISHED_KEY,
        group_name="published",
        description="Every metric table as immutable Parquet behind one pointer: what checks, messages and people read.",
        deps=[dg.AssetKey([metric.layer, metric.id]) for metric in metrics],
        partitions_def=daily_partitions(project.settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
        pool=WRITER_POOL,
        tags={"layer": "published"},
        kinds={"duckdb", "parquet"},
    )
    def metric_values(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        record_versions(project)
        with connect_build(project.settings.build_path) as con:
            publish_products(con, project.settings.published_dir)
        return _publish(
            project, project.window(window_of(context.partition_key_range, context.run.tags)), context.run_id
        )

    @dg.asset(
        key=PUBLISHED_HOURLY_KEY,
        group_name="published",
        description="The hourly tables, published with the same pointer as the daily ones.",
        deps=[dg.AssetKey(["hourly", metric.id]) for metric in metrics if metric.hour_slices],
        partitions_def=hourly_partitions(project.settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
        pool=WRITER_POOL,
        tags={"layer": "published"},
        kinds={"duckdb", "parquet"},
    )
    def hourly_values(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return _publish(project, window_of(context.partition_key_range, context.run.tags), context.run_id)

    return [metric_values, hourly_values]


def _publish(project: Project, window: Window, run_id: str) -> dg.MaterializeResult[None]:
    settings = project.settings
    require_nightly(settings)
    with connect_build(settings.build_path) as con:
        tables = metric_tables(project, covered_until(con), window, read_current(settings.published_dir))
        version = publish(con, settings.published_dir, tables=tables, window=window, run_id=run_id, now=project.now())
        write_campaigns(con, settings.warehouse_dir)
    return _result(version, window)


def record_versions(project: Project) -> int:
    """Record the versions of metrics that came with the files; returns how many were not known."""
    whole, targets = Catalogue.of(project.catalogue.definitions), read_targets(project.settings.dbt_project_dir)
    store = open_store(project.settings)
    try:
        with store.writing("versions") as connection:
            return len(record_files(connection, whole, targets, now=project.now()))
    finally:
        store.close()


def metric_tables(
    project: Project, covered: dict[str, datetime], window: Window, former: Version | None
) -> dict[str, MetricTables]:
    """Where each metric's values are and how far they reach; absent ones with their reason."""
    built_until = datetime.combine(window.until, time())
    found = {}
    for metric in project.catalogue.metrics.values():
        if metric.absent is not None:
            state = MetricState(metric.version, absent_en=metric.absent.reason_en, absent_zh=metric.absent.reason_zh)
            found[metric.id] = MetricTables((), state)
            continue
        before = former.metrics[metric.id].complete_until if former and metric.id in former.metrics else None
        settle = timedelta(days=metric.settle_days)
        reach = max(built_until, before + settle) if before is not None else built_until
        until = complete_until(covered, metric.tables, project.settings.zone, not_after=reach)
        until = until - settle if until is not None else None
        former_versions = tuple(
            FormerVersion(datetime.combine(span.until, time()), span.version)
            for span in metric.spans
            if span.until is not None
        )
        found[metric.id] = MetricTables(
            tuple(metric.relations.values()),
            MetricState(metric.version, until, former=former_versions, settle_days=metric.settle_days),
            dimensions=metric.all_slices,
        )
    return found


def _result(version: Version, window: Window) -> dg.MaterializeResult[None]:
    absent = [(name, state) for name, state in version.metrics.items() if state.is_absent]
    metadata: dict[str, Any] = {
        "version": version.id,
        "changed_values": version.changed_rows,
        "metrics": len(version.metrics) - len(absent),
        "window": f"{window.start} … {window.until} (exclusive)",
        "values": sum(file.rows for file in version.values),
        "bytes": sum(file.bytes for file in version.values),
    }
    if absent:
        metadata["absent"] = _table((name, state.absent_en or "") for name, state in absent)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version.id))


def _table(rows: Iterable[tuple[str, str]]) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.table(
        [dg.TableRecord({"metric": name, "reason": reason}) for name, reason in rows],
        schema=dg.TableSchema([dg.TableColumn("metric", "string"), dg.TableColumn("reason", "string")]),
    )
