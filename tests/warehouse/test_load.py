from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import Contract, load_contract
from metrics_pipeline.sources.source import Batch, SourceError, Span
from metrics_pipeline.warehouse import load as load_module
from metrics_pipeline.warehouse.build import BuildError, connect_build
from metrics_pipeline.warehouse.load import (
    LoadReport,
    TableLoad,
    forget_touched,
    intersect_spans,
    load,
    merge_spans,
    oldest_touched_day,
    withdraw,
)
from tests.warehouse.raw_source import NOW, WINDOW, LiteralSource, orders_query


@pytest.fixture
def con(tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    with connect_build(tmp_path / "build.duckdb") as connection:
        yield connection


def run(con: DuckDBPyConnection, source: LiteralSource, *, window: Span = WINDOW, now: datetime = NOW) -> LoadReport:
    return load(con, source, list(source.queries), window, now=now, timezone="Asia/Shanghai")


def load_orders(con: DuckDBPyConnection, *rows: str) -> TableLoad:
    return run(con, LiteralSource({"orders": orders_query(*rows)})).table("orders")


def quarantine(con: DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return con.execute("SELECT row_key, reason FROM raw._quarantine ORDER BY ALL").fetchall()


def test_rows_arrive_with_contract_types_and_load_columns(con: DuckDBPyConnection) -> None:
    report = load_orders(con, "'a', '2025-11-11 16:00:01', 12.34")
    assert (report.rows_read, report.rows_accepted, report.rows_quarantined) == (1, 1, 0)
    assert con.execute("SELECT order_id, ordered_at, items_amount, region, _batch_id, _loaded_at FROM raw.orders").fetchone() == (
        "a", datetime(2025, 11, 11, 16, 0, 1), Decimal("12.34"), None, "literal/orders", NOW,
    )  # fmt: skip
    assert report.missing_columns[:2] == ("session_id", "region")


def test_a_written_offset_counts(con: DuckDBPyConnection) -> None:
    load_orders(con, "'a', '2025-11-12T00:30:00+08:00', 1")
    assert con.execute("SELECT ordered_at FROM raw.orders").fetchone() == (datetime(2025, 11, 11, 16, 30),)


def test_touched_days_are_days_of_the_shop(con: DuckDBPyConnection) -> None:
    report = load_orders(con, "'a', '2025-11-11 15:59:59', 1", "'b', '2025-11-11 16:00:00', 1")
    assert report.touched_days == (date(2025, 11, 11), date(2025, 11, 12))
    assert oldest_touched_day(con) == date(2025, 11, 11)
    forget_touched(con, NOW)
    assert oldest_touched_day(con) is None


def test_loading_the_same_window_twice_changes_nothing(con: DuckDBPyConnection) -> None:
    rows = ("'a', '2025-11-11 15:00:00', 1", "'b', '2025-11-12 16:00:00', 2", "'c', '2025-11-12 16:00:00', -2")
    load_orders(con, *rows)
    before = con.execute("SELECT * FROM raw.orders ORDER BY order_id").fetchall()
    forget_touched(con, NOW)
    again = run(con, LiteralSource({"orders": orders_query(*rows)}), now=NOW + timedelta(days=1)).table("orders")
    assert (again.rows_accepted, again.rows_unchanged, again.rows_quarantined) == (0, 2, 1)
    assert again.touched_days == ()
    assert oldest_touched_day(con) is None
    assert con.execute("SELECT * FROM raw.orders ORDER BY order_id").fetchall() == before
    assert len(quarantine(con)) == 1
    assert con.execute("SELECT quarantined_at FROM raw._quarantine").fetchone() == (NOW + timedelta(days=1),)


def test_a_changed_row_replaces_the_old_one_and_touches_only_its_day(con: DuckDBPyConnection) -> None:
    load_orders(con, "'a', '2025-11-11 01:00:00', 1", "'b', '2025-11-20 01:00:00', 2")
    report = load_orders(con, "'a', '2025-11-11 01:00:00', 5", "'b', '2025-11-20 01:00:00', 2")
    assert (report.rows_accepted, report.rows_unchanged) == (1, 1)
    assert report.touched_days == (date(2025, 11, 11),)
    assert con.execute("SELECT order_id, CAST(items_amount AS INTEGER) FROM raw.orders ORDER BY 1").fetchall() == [
        ("a", 5),
        ("b", 2),
    ]


def test_a_late_row_lands_in_its_own_day(con: DuckDBPyConnection) -> None:
    load_orders(con, "'a', '2025-11-11 01:00:00', 1")
    report = load_orders(con, "'late', '2025-03-05 01:00:00', 1", "'b', '2025-11-30 01:00:00', 2")
    assert report.touched_days == (date(2025, 3, 5), date(2025, 11, 30))
    assert con.execute("SELECT count(*) FROM raw.orders").fetchone() == (3,)


def test_many_scattered_days_still_meet_their_old_rows(con: DuckDBPyConnection) -> None:
    rows = [f"'{n}', '{datetime(2023, 1, 1) + timedelta(days=9 * n)}', 1" for n in range(60)]
    load_orders(con, *rows)
    assert load_orders(con, *rows).rows_unchanged == 60


def test_a_dimension_is_replaced_by_key_and_touches_no_day(con: DuckDBPyConnection) -> None:
    first = LiteralSource({"products": "SELECT 'p' || n AS product_id, 1.5 AS unit_cost FROM range(3) AS r(n)"})
    second = LiteralSource(
        {"products": "SELECT 'p' || n AS product_id, if(n = 3, 2, 1.5) AS unit_cost FROM range(2, 4) AS r(n)"}
    )
    assert run(con, first).table("products").rows_accepted == 3
    report = run(con, second).table("products")
    assert (report.rows_accepted, report.rows_unchanged, report.touched_days) == (1, 1, ())
    assert con.execute("SELECT count(*) FROM raw.products").fetchone() == (4,)


def products(*rows: str) -> LiteralSource:
    return LiteralSource(
        {"products": f"SELECT * FROM (VALUES {', '.join(rows)}) AS given(product_id, name, unit_cost)"}
    )


def test_a_row_of_a_dimension_that_is_known_in_the_same_words_is_not_judged_again(con: DuckDBPyConnection) -> None:
    run(con, products("('p1', 'Tea', 1.5)", "('p2', NULL, 2)"))
    con.execute("UPDATE raw.products SET name = 'Coffee'")  # would be seen by who compares the values
    report = run(con, products("('p1', 'Tea', 1.5)", "('p2', NULL, 2)", "('p3', 'Rice', 3)")).table("products")
    assert (report.rows_read, report.rows_unchanged, report.rows_accepted) == (3, 2, 1)
    assert con.execute("SELECT name FROM raw.products ORDER BY ALL").fetchall() == [("Coffee",), ("Coffee",), ("Rice",)]


def test_a_dimension_goes_back_to_an_earlier_word(con: DuckDBPyConnection) -> None:
    for name in ("Tea", "Coffee", "Tea"):
        assert run(con, products(f"('p1', '{name}', 1.5)")).table("products").rows_accepted == 1
    assert con.execute("SELECT name FROM raw.products").fetchall() == [("Tea",)]


def test_known_rows_that_repeat_are_duplicates_and_those_with_another_value_beside_them_are_a_conflict(
    con: DuckDBPyConnection,
) -> None:
    run(con, products("('p1', 'Tea', 1.5)", "('p2', 'Rice', 2)"))
    report = run(
        con, products("('p1', 'Tea', 1.5)", "('p1', 'Tea', 1.5)", "('p2', 'Rice', 2)", "('p2', 'Rice', 9)")
    ).table("products")
    assert (report.rows_unchanged, report.rows_duplicate, report.rows_quarantined) == (1, 1, 2)
    assert quarantine(con) == [("p2", "key product_id: delivered more than once with different values")] * 2
    assert con.execute("SELECT unit_cost FROM raw.products ORDER BY ALL").fetchall() == [(Decimal("1.50"),), (2,)]


def test_known_rows_do_not_hide_a_row_without_a_key(con: DuckDBPyConnection) -> None:
    run(con, products("('p1', 'Tea', 1.5)"))
    report = run(con, products("('p1', 'Tea', 1.5)", "(NULL, 'Rice', 1)")).table("products")
    assert (report.rows_unchanged, report.rows_quarantined) == (1, 1)


def test_a_changed_contract_judges_known_rows_again_and_then_knows_them(
    con: DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = products("('p1', 'Tea', 1.5)", "('p2', 'Rice', 200)")
    run(con, source)
    contract = load_contract()
    dearest = contract.table("products").column("unit_cost").model_copy(update={"minimum": 2})
    columns = tuple(dearest if one.name == "unit_cost" else one for one in contract.table("products").columns)
    stricter = contract.table("products").model_copy(update={"columns": columns})
    monkeypatch.setattr(load_module, "load_contract", lambda: Contract(tables=(stricter,)))
    report = run(con, source).table("products")
    assert (report.rows_unchanged, report.rows_quarantined) == (1, 1)
    assert con.execute("SELECT count(DISTINCT _fingerprint), count(*) FROM raw.products").fetchone() == (2, 2)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("'a', '2025-11-11', 'twelve'", "items_amount: not a number"),
        ("'a', '2025-11-11', '-0.01'", "items_amount: below 0"),
        ("'a', '2025-12-01 02:00:01', '1'", "ordered_at: in the future"),
        ("'a', '11/11/2025', '1'", "ordered_at: not a timestamp"),
        ("'a', '1970-01-01', '1'", "ordered_at: before 2000-01-01"),
        ("NULL, '2025-11-11', '1'", "order_id: missing"),
        ("'', '2025-11-11', '1'", "order_id: missing"),
        ("'a', NULL, '-1'", "ordered_at: missing; items_amount: below 0"),
    ],
)  # fmt: skip
def test_a_bad_row_is_quarantined_with_its_reasons_and_the_others_arrive(
    con: DuckDBPyConnection, row: str, reason: str
) -> None:
    report = load_orders(con, row, "'good', '2025-11-11', '1'")
    assert (report.rows_accepted, report.rows_quarantined) == (1, 1)
    assert quarantine(con)[0][1] == reason


def test_a_broken_whole_number_is_not_rounded(con: DuckDBPyConnection) -> None:
    query = "SELECT 'o' AS order_id, n AS line_no, '2025-11-11' AS ordered_at, 'p' AS product_id, q AS quantity, 1 AS unit_price FROM (VALUES (1, {}), (2, {})) AS r(n, q)"
    for good, bad in (("'2'", "'1.5'"), ("2.0", "1.5"), ("CAST(2 AS DOUBLE)", "CAST(1.5 AS DOUBLE)")):
        con.execute("DROP SCHEMA IF EXISTS raw CASCADE")
        report = run(con, LiteralSource({"order_items": query.format(good, bad)}))
        assert report.table("order_items").rows_accepted == 1
        assert quarantine(con) == [("o|2", "quantity: not a whole number")]


def test_identical_duplicates_are_dropped_and_conflicting_ones_quarantined(con: DuckDBPyConnection) -> None:
    report = load_orders(
        con,
        "'same', '2025-11-11', 1", "'same', '2025-11-11', 1", "'same', '2025-11-11', 1",
        "'clash', '2025-11-11', 1", "'clash', '2025-11-11', 2", "'clash', '2025-11-11', 2",
        "'lone', '2025-11-11', 1",
    )  # fmt: skip
    assert (report.rows_read, report.rows_accepted, report.rows_duplicate, report.rows_quarantined) == (7, 2, 2, 3)
    assert con.execute("SELECT order_id FROM raw.orders ORDER BY 1").fetchall() == [("lone",), ("same",)]
    assert set(quarantine(con)) == {("clash", "key order_id: delivered more than once with different values")}


def test_personal_data_is_masked_in_quarantine(con: DuckDBPyConnection) -> None:
    query = "SELECT 'c' AS customer_id, 'next year' AS registered_at, 'a@b.cn' AS email, NULL AS phone, '13800000000' AS note"
    run(con, LiteralSource({"customers": query}))
    (text,) = con.execute("SELECT row_json FROM raw._quarantine").fetchone() or ("",)
    assert json.loads(text) == {"customer_id": "c", "registered_at": "next year", "email": "***", "phone": None}


def test_extra_columns_are_ignored_and_reported(con: DuckDBPyConnection) -> None:
    report = run(con, LiteralSource({"products": "SELECT 'p' AS product_id, 1 AS colour"})).table("products")
    assert report.ignored_columns == ("colour",)
    assert report.rows_accepted == 1


def test_missing_required_columns_stop_the_load_before_any_table_is_written(con: DuckDBPyConnection) -> None:
    source = LiteralSource({"products": "SELECT 'p' AS product_id", "orders": "SELECT 'a' AS order_id, 1 AS x"})
    with pytest.raises(
        SourceError,
        match=r"table orders, batch literal/orders: missing required columns ordered_at, customer_id; found order_id, x",
    ):
        run(con, source)
    assert con.execute("SELECT count(*) FROM raw.products").fetchone() == (0,)


def parquet_batches(folder: Path, *names: str) -> list[Batch]:
    return [Batch("orders", f"files/{name}", "SELECT * FROM read_parquet(?)", (str(folder / name),)) for name in names]


def write_orders(path: Path, first: int, count: int) -> None:
    duckdb.execute(
        f"COPY (SELECT 'o' || n AS order_id, TIMESTAMP '2025-11-02' + to_minutes(n::BIGINT) AS ordered_at, md5(n::VARCHAR) AS customer_id"
        f" FROM range({first}, {first + count}) AS r(n)) TO '{path}' (FORMAT parquet)"
    )


@pytest.mark.parametrize("damage", ["empty", "truncated", "garbled", "absent"])
def test_a_damaged_parquet_file_is_named_and_nothing_is_half_written(
    con: DuckDBPyConnection, tmp_path: Path, damage: str
) -> None:
    write_orders(tmp_path / "one.parquet", 0, 100)
    write_orders(tmp_path / "two.parquet", 100, 20_000)
    path = tmp_path / "two.parquet"
    content = bytearray(path.read_bytes())
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "garbled":
        content[2000:60_000] = bytes(58_000)
        path.write_bytes(content)
    else:
        path.unlink()
    source = LiteralSource({"orders": parquet_batches(tmp_path, "one.parquet", "two.parquet")})
    with pytest.raises(SourceError, match=r"batch files/two\.parquet .*two\.parquet.*Deliver the file again in full"):
        run(con, source)
    assert con.execute("SELECT count(*) FROM raw.orders").fetchone() == (0,)
    assert con.execute("SELECT count(*) FROM raw._loads").fetchone() == (0,)
    write_orders(path, 100, 20_000)
    assert run(con, source).table("orders").rows_accepted == 20_100


def test_a_file_without_rows_is_no_error(con: DuckDBPyConnection, tmp_path: Path) -> None:
    write_orders(tmp_path / "none.parquet", 0, 0)
    report = run(con, LiteralSource({"orders": parquet_batches(tmp_path, "none.parquet")})).table("orders")
    assert (report.rows_read, report.rows_accepted, report.touched_days) == (0, 0, ())


def test_dates_of_today_in_the_shop_are_not_in_the_future(con: DuckDBPyConnection) -> None:
    query = "SELECT CAST(d AS DATE) AS snapshot_on, 'p' AS product_id, 'w' AS warehouse, 1 AS on_hand FROM (VALUES ('2025-12-01'), ('2025-12-02')) AS r(d)"
    run(con, LiteralSource({"inventory_snapshots": query}), now=datetime(2025, 11, 30, 17, 0, tzinfo=UTC))
    assert quarantine(con) == [("2025-12-02|p|w", "snapshot_on: in the future")]


def test_what_is_withdrawn_is_not_complete_until_it_is_loaded_again(con: DuckDBPyConnection) -> None:
    source = LiteralSource({"orders": orders_query("'a', '2025-11-11', 1")})
    night = Span(datetime(2025, 11, 29), datetime(2025, 11, 30))
    assert run(con, source).table("orders").coverage == (WINDOW,)
    withdraw(con, "orders", night)
    assert con.execute("SELECT covered_from, covered_until FROM raw._coverage ORDER BY 1").fetchall() == [
        (WINDOW.start, night.start),
        (night.until, WINDOW.until),
    ]
    assert run(con, source, window=night).table("orders").coverage == (WINDOW,)


def test_every_batch_is_logged_and_reported(con: DuckDBPyConnection) -> None:
    calls: list[tuple[str, str, int, int]] = []
    source = LiteralSource({"orders": orders_query("'a', '2025-11-11', 1")})
    load(con, source, ["orders"], WINDOW, now=NOW, timezone="UTC", progress=lambda *call: calls.append(call))
    assert calls == [("orders", "literal/orders", 1, 1)]
    assert con.execute(
        "SELECT batch_id, source, rows_read, rows_accepted, clock_min, loaded_at FROM raw._loads"
    ).fetchall() == [("literal/orders", "literal", 1, 1, datetime(2025, 11, 11), NOW)]


def test_a_table_is_complete_only_as_far_as_it_was_loaded(con: DuckDBPyConnection) -> None:
    whole = Span(datetime(2025, 1, 1), datetime(2026, 1, 1))
    source = LiteralSource({"orders": orders_query("'a', '2025-11-11', 1")}, spans=(whole,))
    assert run(con, source).table("orders").coverage == (WINDOW,)
    next_night = Span(datetime(2025, 11, 29), datetime(2025, 12, 3))
    assert run(con, source, window=next_night).table("orders").coverage == (Span(WINDOW.start, next_night.until),)
    assert con.execute("SELECT * FROM raw._coverage").fetchall() == [("orders", WINDOW.start, next_night.until)]


def test_a_path_is_opened_and_closed_again(tmp_path: Path) -> None:
    path = tmp_path / "build.duckdb"
    load(
        path,
        LiteralSource({"orders": orders_query("'a', '2025-11-11', 1")}),
        ["orders"],
        WINDOW,
        now=NOW,
        timezone="UTC",
    )
    with connect_build(path, read_only=True) as con:
        assert con.execute("SELECT count(*) FROM raw.orders").fetchone() == (1,)


def test_spans_merge_and_intersect() -> None:
    def span(first: int, last: int) -> Span:
        return Span(datetime(2025, 1, first), datetime(2025, 1, last))

    assert merge_spans([span(5, 8), span(1, 3), span(3, 4)]) == [span(1, 4), span(5, 8)]
    assert intersect_spans([span(1, 4), span(6, 9)], [span(2, 7)]) == [span(2, 4), span(6, 7)]


def test_a_build_file_that_cannot_be_written_says_so_and_keeps_the_table(con: DuckDBPyConnection) -> None:
    load_orders(con, "'a', '2025-11-11', 1")
    con.execute("ALTER TABLE raw._loads DROP COLUMN rows_duplicate")
    with pytest.raises(BuildError, match=r"raw\.orders: could not be written: .* Check free disk space"):
        load_orders(con, "'b', '2025-11-11', 1")
    assert con.execute("SELECT order_id FROM raw.orders").fetchall() == [("a",)]
