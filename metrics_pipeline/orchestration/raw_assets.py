"""Raw tables as assets: load the window of the run, then the contract as a blocking check on each table.

Here: `raw/<table>` (days) and `raw/hourly_arrivals` (hours). Not here: how rows are judged (`warehouse.load`), what a
source is (`sources`).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.instance import WRITER_POOL
from metrics_pipeline.orchestration.keys import ARRIVALS_KEY, COVERAGE_KEY
from metrics_pipeline.orchestration.partitions import (
    daily_partitions,
    day_span,
    hour_span,
    hourly_partitions,
    last_day,
    window_of,
)
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.services import require_nightly
from metrics_pipeline.sources.contract import Table, load_contract
from metrics_pipeline.sources.source import SourceError, Span
from metrics_pipeline.warehouse.build import BuildError, BuildLocked, connect_build
from metrics_pipeline.warehouse.expectations import ContractVerdict, validate_tables, warm_up
from metrics_pipeline.warehouse.load import LoadReport, TableLoad, load, withdraw
from metrics_pipeline.warehouse.personal import personal_data_of

CONTRACT_CHECK = "raw_contract"
RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def raw_key(table: str) -> dg.AssetKey:
    """The asset key of a raw table."""
    return dg.AssetKey(["raw", table])


def build_raw_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The raw tables with their contract checks, and the hourly arrivals."""
    tables = load_contract().tables

    @dg.multi_asset(
        name="raw_tables",
        specs=[
            *(_spec(table, project) for table in tables),
            dg.AssetSpec(
                COVERAGE_KEY,
                description="For which spans each raw table is complete.",
                group_name="raw",
                tags={"layer": "raw"},
                skippable=True,
            ),
        ],
        check_specs=[
            dg.AssetCheckSpec(
                CONTRACT_CHECK,
                asset=raw_key(table.name),
                blocking=True,
                description="The raw contract (docs/raw-contract.md) as a Great Expectations suite.",
            )
            for table in tables
        ],
        partitions_def=daily_partitions(project.settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRY,
        pool=WRITER_POOL,
        can_subset=True,
    )
    def raw_tables(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        warming = warm_up()
        selected = context.selected_asset_keys
        names = [table.name for table in tables if raw_key(table.name) in selected]
        window = window_of(context.partition_key_range, context.run.tags)
        project.advance(last_day(window))
        asked = day_span(window, project.settings)
        span = Span(project.load_start(asked.start, names), asked.until)
        try:
            report = load_span(project, names, span)
        finally:
            warming.join()  # a process that ends while a thread imports ends with a page of complaints
        verdicts = _verdicts(project, names, span)
        for name in names:
            yield dg.MaterializeResult(
                asset_key=raw_key(name),
                metadata=_load_metadata(report, report.table(name), verdicts[name]),
                check_results=[_check_result(name, verdicts[name])],
            )
        if COVERAGE_KEY in selected:
            yield dg.MaterializeResult(asset_key=COVERAGE_KEY, metadata={"until": str(span.until)})

    @dg.asset(
        key=ARRIVALS_KEY,
        group_name="raw",
        description="Every row that arrived within the hour, in all raw tables.",
        partitions_def=hourly_partitions(project.settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRY,
        pool=WRITER_POOL,
        tags={"layer": "raw"},
    )
    def hourly_arrivals(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        names = [table.name for table in tables]
        asked = hour_span(context.partition_key_range, project.settings)
        report = load_span(project, names, Span(project.load_start(asked.start, names), asked.until))
        return dg.MaterializeResult(
            metadata={
                "rows_accepted": report.rows_accepted,
                "rows_quarantined": report.rows_quarantined,
                "window_utc": f"{report.window.start} … {report.window.until}",
            }
        )

    return [raw_tables, hourly_arrivals]


def load_span(project: Project, tables: Sequence[str], span: Span, progress: Any = None) -> LoadReport:
    """Load a UTC span of these tables; what a person has to mend becomes a `Failure` without a traceback."""
    require_nightly(project.settings)
    try:
        return load(
            project.settings.build_path,
            project.source,
            tables,
            span,
            now=project.now(),
            timezone=project.settings.installation.timezone,
            progress=progress,
            personal=personal_data_of(project.settings),
        )
    except BuildLocked:
        raise
    except (SourceError, BuildError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _spec(table: Table, project: Project) -> dg.AssetSpec:
    absence = project.source.info.absent.get(table.name)
    description = f"{table.description.en} {table.description.zh}"
    if absence is not None:
        description += f"\n\nEmpty: {absence.reason_en} {absence.reason_zh}"
    return dg.AssetSpec(
        raw_key(table.name),
        description=description,
        group_name="raw",
        tags={"layer": "raw", "kind": table.kind},
        kinds={"duckdb"},
        metadata={
            "key": ", ".join(table.key),
            "clock": table.clock or "none",
            "personal data": ", ".join(table.pii_columns) or "none",
            "source": project.source.info.name,
        },
    )


def _verdicts(project: Project, tables: Sequence[str], span: Span) -> dict[str, ContractVerdict]:
    """The contract's verdict on each table; what failed is not complete, so that the next run loads it again."""
    with connect_build(project.settings.build_path, read_only=True) as con:
        verdicts = validate_tables(con, tables, span)
    failed = [name for name, verdict in verdicts.items() if not verdict.success]
    if failed:
        with connect_build(project.settings.build_path) as con:
            for name in failed:
                withdraw(con, name, span)
    return verdicts


def _load_metadata(report: LoadReport, loaded: TableLoad, verdict: ContractVerdict) -> dict[str, Any]:
    days = loaded.touched_days
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": loaded.rows_accepted + loaded.rows_unchanged,
        "rows_read": loaded.rows_read,
        "rows_accepted": loaded.rows_accepted,
        "rows_unchanged": loaded.rows_unchanged,
        "rows_quarantined": loaded.rows_quarantined,
        "window_utc": f"{report.window.start} … {report.window.until}",
        "seconds": round(loaded.seconds, 3),
    }
    if days:
        metadata["touched_days"] = f"{days[0]} … {days[-1]} ({len(days)})"
    if loaded.coverage:
        metadata["complete_until_utc"] = str(loaded.coverage[-1].until)
    if loaded.rows_quarantined:
        metadata["quarantine"] = verdict.metadata["quarantine_reasons"]
    if loaded.missing_columns:
        metadata["missing_columns"] = ", ".join(loaded.missing_columns)
    if loaded.ignored_columns:
        metadata["ignored_columns"] = ", ".join(loaded.ignored_columns)
    return metadata


def _check_result(table: str, verdict: ContractVerdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=raw_key(table),
        check_name=CONTRACT_CHECK,
        passed=verdict.success,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_described(verdict),
        metadata={**verdict.metadata, "statistics": dg.MetadataValue.json(dict(verdict.statistics))},
    )


def _described(verdict: ContractVerdict) -> str | None:
    """What is wrong, which rows, and what to do."""
    lines = [*verdict.failures, *verdict.warnings]
    if verdict.failures and verdict.metadata["quarantined_rows"]:
        lines.append(f"rejected: {verdict.metadata['quarantine_reasons']}")
    if verdict.failures:
        lines.append(
            "Nothing was built or published. Deliver these rows again and start the run again (docs/raw-contract.md)."
        )
    return "\n".join(lines) or None
