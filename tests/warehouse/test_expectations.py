from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.warehouse.build import connect_build, ensure_raw_schema
from metrics_pipeline.warehouse.expectations import gather_facts, suite_of, validate_table, warm_up
from metrics_pipeline.warehouse.load import load
from tests.warehouse.raw_source import NOW, WINDOW, LiteralSource, orders_query

pytestmark = pytest.mark.slow
"""Great Expectations takes seconds to import."""


@pytest.fixture
def con(tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    with connect_build(tmp_path / "build.duckdb") as connection:
        yield connection


def run(con: DuckDBPyConnection, queries: dict[str, str], now: datetime = NOW) -> None:
    load(con, LiteralSource(queries), list(queries), WINDOW, now=now, timezone="Asia/Shanghai")


def lines(count: int, order: str = "'o' || n") -> str:
    return (
        f"SELECT {order} AS order_id, 1 AS line_no, TIMESTAMP '2025-11-11' + to_minutes(n::BIGINT) AS ordered_at, 'p' AS product_id,"
        f" 1 AS quantity, 9.5 AS unit_price FROM range({count}) AS r(n)"
    )


def orders(count: int) -> str:
    return f"SELECT 'o' || n AS order_id, TIMESTAMP '2025-11-11' + to_minutes(n::BIGINT) AS ordered_at, 'c' AS customer_id FROM range({count}) AS r(n)"


@pytest.mark.parametrize("table", load_contract().tables, ids=lambda table: table.name)
def test_every_table_has_a_suite_whose_columns_are_facts(con: DuckDBPyConnection, table) -> None:  # type: ignore[no-untyped-def]
    ensure_raw_schema(con)
    facts = gather_facts(con, table, WINDOW)
    assert len(facts) == 1
    suite = suite_of(table)
    assert {expectation.column for expectation in suite.expectations} <= set(facts.columns)
    assert len(suite.expectations) >= len(table.required_columns) + 3


def test_a_good_load_passes_and_shows_its_facts(con: DuckDBPyConnection) -> None:
    warm_up().join()
    run(con, {"orders": orders(100), "order_items": lines(100)})
    verdict = validate_table(con, "order_items", WINDOW)
    assert verdict.success
    assert verdict.failures == ()
    assert verdict.metadata["rows"] == 100
    assert verdict.statistics["order__orphan_share"] == 0
    assert verdict.metadata["quarantine_reasons"] == "none"


def test_too_much_in_quarantine_fails_and_names_the_reasons(con: DuckDBPyConnection) -> None:
    good = [f"'g{n}', '2025-11-11', 1" for n in range(90)]
    run(con, {"orders": orders_query(*good, *[f"'b{n}', '2025-11-11', -1" for n in range(10)])})
    verdict = validate_table(con, "orders", WINDOW)
    assert verdict.failures == ("orders: expected at most 5.0% of the delivered rows in quarantine; found 0.1",)
    assert verdict.metadata["quarantine_reasons"] == "literal/orders: items_amount: below 0 (10 rows, e.g. b0)"
    assert validate_table(con, "orders", WINDOW, quarantine_limit=0.1).success


def test_rows_without_a_usable_clock_are_judged_by_all_of_the_table(con: DuckDBPyConnection) -> None:
    """They come with every window, because they belong to none: a night must not fail for the old ones of a year."""

    def delivery(good: int, bad: int) -> dict[str, str]:
        clockless = (
            f"SELECT 'x' || n, CASE n % 2 WHEN 0 THEN 'soon' ELSE '1970-01-01' END, 'c' FROM range({bad}) AS r(n)"
        )
        return {
            "orders": f"SELECT order_id, ordered_at::VARCHAR AS ordered_at, customer_id FROM ({orders(good)}) UNION ALL {clockless}"
        }

    run(con, delivery(1000, 10))
    assert validate_table(con, "orders", WINDOW).success
    run(con, delivery(20, 10), NOW + timedelta(days=1))
    verdict = validate_table(con, "orders", WINDOW)
    assert verdict.success
    assert verdict.metadata["quarantined_rows"] == 10
    for day in (2, 3):  # a second attempt at the same delivery is no better than the first
        run(con, delivery(20, 100), NOW + timedelta(days=day))
        assert validate_table(con, "orders", WINDOW).failures == (
            "orders: expected at most 5.0% of all rows without a usable ordered_at; found 0.0909091",
        )


def test_lines_without_their_order_fail(con: DuckDBPyConnection) -> None:
    run(con, {"orders": orders(90), "order_items": lines(100)})
    assert validate_table(con, "order_items", WINDOW).failures == (
        "order_items: expected at most 2.0% of the rows without their order; found 0.1",
    )


def test_lines_are_not_orphans_of_a_source_without_orders(con: DuckDBPyConnection) -> None:
    run(con, {"order_items": lines(10)})
    assert validate_table(con, "order_items", WINDOW).success


def test_rows_that_came_past_the_loader_are_still_caught(con: DuckDBPyConnection) -> None:
    run(con, {"orders": orders_query("'a', '2025-11-11', 1")})
    con.execute(
        "INSERT INTO raw.orders (order_id, ordered_at, customer_id, items_amount) VALUES"
        " ('a', '2025-11-11', 'c', 1), ('x', '2025-11-12', NULL, -4)"
    )
    assert validate_table(con, "orders", WINDOW).failures == (
        "orders: expected no two rows with the same key (order_id); found 1",
        "orders: expected customer_id in every row; found 1",
        "orders: expected items_amount never below 0; found 1",
    )


def test_an_empty_window_warns_and_does_not_block(con: DuckDBPyConnection) -> None:
    run(con, {"orders": orders_query("'a', '2025-12-01', 1")})
    verdict = validate_table(con, "orders", WINDOW)
    assert verdict.success
    assert verdict.warnings == ("orders: expected at least one row in the window; found 0",)


def test_a_shop_day_ahead_of_utc_is_not_in_the_future(con: DuckDBPyConnection) -> None:
    query = "SELECT DATE '2025-12-01' AS snapshot_on, 'p' AS product_id, 'w' AS warehouse, 1 AS on_hand"
    load(
        con, LiteralSource({"inventory_snapshots": query}), ["inventory_snapshots"], WINDOW,
        now=datetime(2025, 11, 30, 17), timezone="Asia/Shanghai",
    )  # fmt: skip
    verdict = validate_table(con, "inventory_snapshots", WINDOW)
    assert verdict.metadata["rows"] == 1
    assert verdict.metadata["quarantined_rows"] == 0
    assert verdict.success


def test_a_table_the_source_does_not_have_is_not_missed(con: DuckDBPyConnection) -> None:
    run(con, {"orders": orders(3)})
    verdict = validate_table(con, "refunds", WINDOW)
    assert verdict.success
    assert verdict.warnings == ()


def test_what_great_expectations_imports_in_vain_is_loaded_when_it_is_used() -> None:
    script = """
import sys
from metrics_pipeline.warehouse.expectations import warm_up
warm_up().join()
assert "scipy.stats._stats_py" not in sys.modules
from scipy import stats
assert round(stats.norm.cdf(1.96), 3) == 0.975
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
