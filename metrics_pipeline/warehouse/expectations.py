"""The raw contract as Great Expectations suites, judged on facts that one SQL statement gathers per table.

Loading already rejects bad rows one by one; this is the independent look at what is now in the table, and the verdict
on the load as a whole: too much in quarantine, lines without their order. The rows stay in DuckDB: a suite sees a
frame of one row, whose columns are counts and shares (`amount__below_minimum`, `key__duplicates`, `quarantined__share`).

Great Expectations costs almost 2 CPU seconds to import, so it is imported on first use; `warm_up` starts that in the
background while DuckDB (which releases the interpreter) still loads.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import Table, load_contract
from metrics_pipeline.sources.source import Span

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite
    from great_expectations.core.batch_definition import BatchDefinition

QUARANTINE_SHARE_LIMIT = 0.05
"""More of the delivered rows rejected than this: the delivery is wrong, not a few rows of it."""
ORPHAN_SHARE_LIMIT = 0.02
"""Lines whose order is not there: a few can be under way, more means that a file of orders is missing."""
ORPHANS_OF_ORDERS = ("order_items", "payments", "refunds")
"""Tables that carry the order's id and clock, so that the search for the order is bounded."""


@dataclass(frozen=True)
class ContractVerdict:
    """What the suite of one table says about the window just loaded."""

    success: bool
    """No critical expectation failed."""
    failures: tuple[str, ...]
    """One sentence per failed critical expectation: what was expected, what was found."""
    statistics: Mapping[str, float]
    """The facts, by name (counts and shares 0–1); facts that do not apply are left out."""
    metadata: Mapping[str, str | int | float]
    """For the check's page: rows, share in quarantine, the most frequent reasons, expectations evaluated and failed."""
    warnings: tuple[str, ...] = ()
    """Failed expectations that do not block."""


@dataclass(frozen=True)
class _Fact:
    """One column of the frame of facts: how it is computed, and what is expected of it."""

    name: str
    expression: str
    sentence: str
    maximum: float | None = 0
    minimum: float | None = None
    is_blocking: bool = True


def warm_up() -> threading.Thread:
    """Import Great Expectations in the background; `validate_tables` waits for it by itself."""
    thread = threading.Thread(target=_batch_definition, name="import great_expectations", daemon=True)
    thread.start()
    return thread


def validate_table(
    con: DuckDBPyConnection, table: str, window: Span, *, quarantine_limit: float = QUARANTINE_SHARE_LIMIT
) -> ContractVerdict:
    """`validate_tables` for one table."""
    return validate_tables(con, [table], window, quarantine_limit=quarantine_limit)[table]


def validate_tables(
    con: DuckDBPyConnection, tables: Sequence[str], window: Span, *, quarantine_limit: float = QUARANTINE_SHARE_LIMIT
) -> dict[str, ContractVerdict]:
    """Judge of each raw table the rows whose clock lies in `window` (a dimension: all rows), and its last load.

    `con` is a connection to the build file (reading is enough). The moment of the last load is "now" for clocks that
    may not lie in the future. All suites are one validation: Great Expectations costs a tenth of a second for each.
    Raises `KeyError` when the contract has no such table.
    """
    entries = [load_contract().table(table) for table in tables]
    facts = {entry.name: gather_facts(con, entry, window, quarantine_limit) for entry in entries}
    frame = pd.concat([facts[entry.name].add_prefix(f"{entry.name}{_OF}") for entry in entries], axis=1)
    outcomes: dict[str, list[Any]] = {entry.name: [] for entry in entries}
    for outcome in (
        _batch_definition()
        .get_batch(batch_parameters={"dataframe": frame})
        .validate(_suite_of_all(entries, frame, quarantine_limit))
        .results
    ):
        table, _, _ = outcome.expectation_config.kwargs["column"].partition(_OF)
        outcomes[table].append(outcome)
    return {table: _verdict(con, table, facts[table], found) for table, found in outcomes.items()}


_OF = "____"
"""Between table and fact in the names of the common frame."""


def _suite_of_all(entries: Sequence[Table], frame: pd.DataFrame, quarantine_limit: float) -> ExpectationSuite:
    """The suites of these tables over the common frame; a fact that is null does not apply and is not expected."""
    from great_expectations.core import ExpectationSuite

    expectations = [
        expectation.copy(update={"column": f"{entry.name}{_OF}{expectation.column}", "id": None})
        for entry in entries
        for expectation in suite_of(entry, quarantine_limit).expectations
    ]
    applies = frame.notna().iloc[0]
    return ExpectationSuite(name="raw", expectations=[one for one in expectations if applies[one.column]])


def _verdict(con: DuckDBPyConnection, table: str, facts: pd.DataFrame, outcomes: Sequence[Any]) -> ContractVerdict:
    statistics = {str(name): value for name, value in facts.iloc[0].items() if not pd.isna(value)}
    failures: list[str] = []
    warnings: list[str] = []
    for outcome in outcomes:
        if not outcome.success:
            config = outcome.expectation_config
            found = statistics.get(config.kwargs["column"].partition(_OF)[2])
            (failures if config.severity == "critical" else warnings).append(
                f"{table}: expected {config.notes}; found {_plain(found)}"
            )
    metadata: dict[str, str | int | float] = {
        "rows": int(statistics["row__count"]),
        "quarantined_rows": int(statistics["quarantined__count"]),
        "quarantined_share": float(statistics["quarantined__share"]),
        "expectations_evaluated": len(outcomes),
        "expectations_failed": len(failures) + len(warnings),
        "failures": "\n".join((*failures, *warnings)) or "none",
        "quarantine_reasons": "\n".join(quarantine_reasons(con, table)) or "none",
    }
    return ContractVerdict(not failures, tuple(failures), statistics, metadata, tuple(warnings))


def gather_facts(
    con: DuckDBPyConnection, table: Table, window: Span, quarantine_limit: float = QUARANTINE_SHARE_LIMIT
) -> pd.DataFrame:
    """One row of facts about the window, one column per expectation of `suite_of`, plus counts that only inform."""
    last_load = con.execute("SELECT max(loaded_at) FROM raw._loads WHERE table_name = ?", [table.name]).fetchone()
    loaded_at = (last_load and last_load[0]) or datetime.max
    columns = ", ".join(f"{fact.expression} AS {fact.name}" for fact in _facts(table, quarantine_limit))
    where = ""
    bounds: dict[str, object] = {}
    if table.clock_column is not None:
        where = f"WHERE {table.clock} >= $start AND {table.clock} < $until"
        bounds = {"start": window.start, "until": window.until}
        if table.clock_column.type == "date":
            # Days of the shop, whose zone may be up to 14 hours ahead of UTC and 12 behind.
            first, last_day = window.start - timedelta(hours=12), window.until + timedelta(hours=14)
            bounds = {"start": first.date(), "until": last_day.date() + timedelta(days=1)}
    return con.execute(
        f"""
        WITH rows_in_window AS (SELECT * FROM raw.{table.name} {where}),
        last_load AS (
          SELECT
            coalesce(sum(rows_read), 0) AS rows_read,
            coalesce(sum(rows_quarantined), 0) AS rows_quarantined,
            coalesce(sum(rows_clockless), 0) AS rows_clockless
          FROM raw._loads WHERE table_name = $table_name AND loaded_at = $loaded_at
        )
        SELECT
          {columns},
          count(*) AS row__count,
          (SELECT CAST(rows_quarantined AS BIGINT) FROM last_load) AS quarantined__count
        FROM rows_in_window AS t
        """,
        {"table_name": table.name, "loaded_at": loaded_at, **bounds},
    ).df()


@cache
def suite_of(table: Table, quarantine_limit: float = QUARANTINE_SHARE_LIMIT) -> ExpectationSuite:
    """The suite of one raw table, generated from the contract: one expectation per fact."""
    import great_expectations.expectations as gxe
    from great_expectations.core import ExpectationSuite

    return ExpectationSuite(
        name=f"raw.{table.name}",
        expectations=[
            # One row: its greatest value is the fact. Aggregates take a fifth of what expectations on values take.
            gxe.ExpectColumnMaxToBeBetween(
                column=fact.name,
                min_value=fact.minimum,
                max_value=fact.maximum,
                notes=fact.sentence,
                severity="critical" if fact.is_blocking else "warning",
            )
            for fact in _facts(table, quarantine_limit)
        ],
    )


def _facts(table: Table, quarantine_limit: float) -> list[_Fact]:
    facts = [
        _Fact(
            "quarantined__share",
            "(SELECT coalesce((rows_quarantined - rows_clockless) / nullif(rows_read - rows_clockless, 0), 0.0)"
            " FROM last_load)",
            f"at most {quarantine_limit:.1%} of the delivered rows in quarantine",
            quarantine_limit,
        ),
        _Fact(
            "row__presence",
            "CASE WHEN EXISTS (SELECT 1 FROM raw._coverage WHERE table_name = $table_name) THEN least(count(*), 1) END",
            "at least one row in the window",
            maximum=None,
            minimum=1,
            is_blocking=False,
        ),
        _Fact(
            "key__duplicates",
            f"count(*) - count(DISTINCT hash({', '.join(table.key)}))",
            f"no two rows with the same key ({', '.join(table.key)})",
        ),
    ]
    if table.clock is not None:
        facts.append(
            _Fact(
                # Rows that belong to no window come with each of them.
                "clockless__share",
                "(SELECT coalesce(rows_clockless"
                f" / nullif(rows_clockless + (SELECT count(*) FROM raw.{table.name}), 0), 0.0) FROM last_load)",
                f"at most {quarantine_limit:.1%} of all rows without a usable {table.clock}",
                quarantine_limit,
            )
        )
    for column in table.columns:
        if column.required:
            facts.append(
                _Fact(f"{column.name}__missing", f"count(*) - count({column.name})", f"{column.name} in every row")
            )
        if column.minimum is not None:
            facts.append(
                _Fact(
                    f"{column.name}__below_minimum",
                    f"count(*) FILTER ({column.name} < {column.minimum})",
                    f"{column.name} never below {column.minimum}",
                )
            )
        if column.not_future:
            facts.append(
                _Fact(
                    f"{column.name}__in_future",
                    # A day of the shop may be one ahead of the UTC day of loading.
                    f"count(*) FILTER ({column.name} > $loaded_at + INTERVAL 14 HOUR)"
                    if column.type == "date"
                    else f"count(*) FILTER ({column.name} > $loaded_at)",
                    f"{column.name} never later than the load",
                )
            )
    if table.name in ORPHANS_OF_ORDERS:
        facts.append(
            _Fact(
                "order__orphan_share",
                """(
                  SELECT CASE WHEN EXISTS (SELECT 1 FROM raw.orders) THEN count(*) FILTER (o.order_id IS NULL) / nullif(count(*), 0) END
                  FROM rows_in_window AS line
                  LEFT JOIN (
                    SELECT order_id FROM raw.orders
                    WHERE ordered_at BETWEEN (SELECT min(ordered_at) FROM rows_in_window)
                      AND (SELECT max(ordered_at) FROM rows_in_window)
                  ) AS o ON o.order_id = line.order_id
                )""",
                f"at most {ORPHAN_SHARE_LIMIT:.1%} of the rows without their order",
                ORPHAN_SHARE_LIMIT,
            )
        )
    return facts


@cache
def _batch_definition() -> BatchDefinition:
    """A throw-away context around in-memory frames: nothing is read from or written to disk."""
    with _IMPORTING:
        for name in _NOT_NEEDED:
            _import_when_used(name)
        import great_expectations as gx

    context: Any = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("facts")
    return source.add_dataframe_asset("one_row").add_batch_definition_whole_dataframe("window")


_IMPORTING = threading.Lock()
_NOT_NEEDED = ("scipy", "scipy.stats")
"""What Great Expectations imports for expectations about distributions, which no suite here has: a CPU second."""


def _import_when_used(name: str) -> None:
    """Let `import name` cost nothing until something of it is used; a name that is imported already stays as it is."""
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    package, _, child = name.rpartition(".")
    if package:
        setattr(sys.modules[package], child, module)


def quarantine_reasons(con: DuckDBPyConnection, table: str, limit: int = 10) -> list[str]:
    """What the last load of a table rejected and why, most frequent first: `batch: reason (rows, an example's key)`."""
    rows = con.execute(
        """
        SELECT batch_id, reason, count(*) AS rejected, min(row_key) FROM raw._quarantine
        WHERE table_name = $table_name
          AND quarantined_at = (SELECT max(loaded_at) FROM raw._loads WHERE table_name = $table_name)
        GROUP BY batch_id, reason ORDER BY rejected DESC, batch_id, reason LIMIT $limit
        """,
        {"table_name": table, "limit": limit},
    ).fetchall()
    return [
        f"{batch}: {reason} ({count} row{'s' if count > 1 else ''}, e.g. {key})" for batch, reason, count, key in rows
    ]


def _plain(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"
