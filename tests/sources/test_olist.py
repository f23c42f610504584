from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.olist import OlistSource
from metrics_pipeline.sources.source import SourceError, Span
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.load import load
from tests.sources.real_data import folder

EVER = Span(datetime(2016, 1, 1), datetime(2019, 1, 1))
NOW = datetime(2019, 1, 1)
LOCAL = "timezone('America/Sao_Paulo', timezone('UTC', {}))"

ORDERS = """
    ('o1', 'k1', 'delivered', '2017-10-15 00:30:00', '2017-10-15 09:00:00', '2017-10-16 09:00:00', '2017-10-21 00:10:00', '2017-10-20'),
    ('o2', 'k2', 'delivered', '2018-02-17 23:30:00', '2018-02-18 09:00:00', '2018-02-19 09:00:00', '2018-03-02 23:00:00', '2018-03-02'),
    ('o3', 'k3', 'canceled', '2018-02-17 10:00:00', NULL, NULL, NULL, '2018-03-02')
"""


def write(path: Path, columns: str, values: str) -> None:
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {values}) AS given({columns})) TO '{path}' (FORMAT parquet)")


@pytest.fixture
def extract(tmp_path: Path) -> Path:
    """Three orders: one in the hour that never was, one in the hour that was twice, one canceled without items."""
    times = ", ".join(
        f"CAST({name} AS TIMESTAMP) AS {name}"
        for name in (
            "order_purchase_timestamp",
            "order_approved_at",
            "order_delivered_carrier_date",
            "order_delivered_customer_date",
            "order_estimated_delivery_date",
        )
    )
    duckdb.execute(
        f"COPY (SELECT order_id, customer_id, order_status, {times} FROM (VALUES {ORDERS}) AS g(order_id, customer_id, order_status,"
        " order_purchase_timestamp, order_approved_at, order_delivered_carrier_date, order_delivered_customer_date, order_estimated_delivery_date))"
        f" TO '{tmp_path / 'orders.parquet'}' (FORMAT parquet)"
    )
    write(tmp_path / "order_items.parquet", "order_id, order_item_id, product_id, seller_id, price, freight_value",
          "('o1', 1, 'p1', 's1', 10.5, 2.0), ('o1', 2, 'p1', 's1', 10.5, 2.0), ('o2', 1, 'p2', 's1', 7.25, 1.0)")  # fmt: skip
    write(tmp_path / "order_payments.parquet", "order_id, payment_sequential, payment_type, payment_value",
          "('o1', 1, 'voucher', 5.0), ('o1', 2, 'credit_card', 20.0), ('o2', 1, 'boleto', 8.25), ('o3', 1, 'boleto', 9.0)")  # fmt: skip
    write(tmp_path / "order_reviews.parquet", "review_id, order_id, review_score, review_creation_date",
          "('r1', 'o1', 1, TIMESTAMP '2017-10-22'), ('r1', 'o2', 2, TIMESTAMP '2018-03-04'), ('r2', 'o2', 5, TIMESTAMP '2018-03-04'), ('r3', 'o3', 1, NULL)")  # fmt: skip
    write(tmp_path / "customers.parquet", "customer_id, customer_unique_id, customer_city, customer_state",
          "('k1', 'u1', 'rio', 'RJ'), ('k2', 'u1', 'sao paulo', 'SP'), ('k3', 'u2', 'rio', 'RJ')")  # fmt: skip
    write(tmp_path / "products.parquet", "product_id, product_category_name, product_category_name_english",
          "('p1', 'cama', 'bed'), ('p2', 'novo', NULL)")  # fmt: skip
    write(tmp_path / "sellers.parquet", "seller_id, seller_state", "('s1', 'SP')")
    return tmp_path


@pytest.fixture
def con(extract: Path, tmp_path: Path) -> Iterator[DuckDBPyConnection]:
    with connect_build(tmp_path / "build.duckdb") as connection:
        load(connection, OlistSource(extract), load_contract().table_names, EVER, now=NOW, timezone="America/Sao_Paulo")
        yield connection


def test_local_times_become_utc_and_stay_in_their_day(con: DuckDBPyConnection) -> None:
    assert con.execute(
        f"SELECT order_id, ordered_at, CAST({LOCAL.format('ordered_at')} AS DATE) FROM raw.orders ORDER BY order_id"
    ).fetchall() == [
        ("o1", datetime(2017, 10, 15, 3, 30), date(2017, 10, 15)),
        ("o2", datetime(2018, 2, 18, 2, 30), date(2018, 2, 17)),
        ("o3", datetime(2018, 2, 17, 12, 0), date(2018, 2, 17)),
    ]


def test_amounts_are_sums_of_items_and_absent_without_items(con: DuckDBPyConnection) -> None:
    assert con.execute(
        "SELECT customer_id, region, payment_method, items_amount, freight_amount FROM raw.orders ORDER BY order_id"
    ).fetchall() == [
        ("u1", "RJ", "credit_card", Decimal("21"), Decimal("4")),
        ("u1", "SP", "boleto", Decimal("7.25"), Decimal("1")),
        ("u2", "RJ", "boleto", None, None),
    ]


def test_only_approved_orders_are_paid(con: DuckDBPyConnection) -> None:
    assert con.execute("SELECT payment_id, amount FROM raw.payments ORDER BY 1").fetchall() == [
        ("o1-1", Decimal("5")), ("o1-2", Decimal("20")), ("o2-1", Decimal("8.25")),
    ]  # fmt: skip


def test_a_parcel_is_due_at_the_end_of_its_local_day_and_canceled_orders_have_none(con: DuckDBPyConnection) -> None:
    assert con.execute(
        f"SELECT order_id, {LOCAL.format('promised_at')}, delivered_at > promised_at, warehouse, region FROM raw.shipments ORDER BY 1"
    ).fetchall() == [
        ("o1", datetime(2017, 10, 20, 23, 59, 59), True, "SP", "RJ"),
        ("o2", datetime(2018, 3, 2, 23, 59, 59), False, "SP", "SP"),
    ]


def test_a_complaint_is_a_review_of_one_or_two_stars_with_a_date(con: DuckDBPyConnection) -> None:
    assert con.execute("SELECT complaint_id, order_id, product_id FROM raw.complaints ORDER BY 1").fetchall() == [
        ("r1-o1", "o1", "p1"), ("r1-o2", "o2", "p2"),
    ]  # fmt: skip
    assert con.execute("SELECT table_name, row_key, reason FROM raw._quarantine").fetchall() == [
        ("complaints", "r3-o3", "complained_at: missing")
    ]


def test_dimensions_have_the_latest_state(con: DuckDBPyConnection) -> None:
    assert con.execute("SELECT customer_id, region FROM raw.customers ORDER BY 1").fetchall() == [
        ("u1", "SP"),
        ("u2", "RJ"),
    ]
    assert con.execute("SELECT product_id, category FROM raw.products ORDER BY 1").fetchall() == [
        ("p1", "bed"),
        ("p2", "novo"),
    ]


def test_every_contract_table_and_column_is_delivered_or_absent_with_a_reason(extract: Path) -> None:
    source = OlistSource(extract)
    with duckdb.connect() as con:
        for table in load_contract().tables:
            (batch,) = list(source.batches(table.name, EVER)) or [None]
            if batch is None:
                assert source.info.absent[table.name].reason_zh
                assert source.coverage(table.name) == ()
                continue
            cursor = con.execute(f"SELECT * FROM ({batch.query}) LIMIT 0", list(batch.parameters))
            delivered = {name for name, *_ in cursor.description or ()}
            lacking = {f"{table.name}.{name}" for name in table.column_names if name not in delivered}
            assert lacking == {name for name in source.info.absent if name.startswith(f"{table.name}.")}


def test_a_folder_without_the_files_names_them(extract: Path) -> None:
    (extract / "sellers.parquet").unlink()
    with pytest.raises(SourceError, match=r"not a complete olist extract: sellers\.parquet not found"):
        OlistSource(extract)


def test_told_days_win(extract: Path) -> None:
    source = OlistSource(extract, complete_from=date(2017, 10, 15), complete_until=date(2018, 2, 17))
    assert source.coverage("orders") == (Span(datetime(2017, 10, 15, 3), datetime(2018, 2, 18, 3)),)


@pytest.mark.real_data
def test_the_real_extract_is_complete_where_its_readme_says() -> None:
    source = OlistSource(folder("olist"))
    orders = Span(datetime(2017, 1, 5, 2), datetime(2018, 8, 23, 3))
    assert source.coverage("orders") == source.coverage("order_items") == source.coverage("payments") == (orders,)
    assert source.coverage("shipments") == (Span(datetime(2017, 2, 1, 2), datetime(2018, 8, 31, 3)),)
    assert source.coverage("complaints") == (Span(datetime(2017, 1, 13, 2), datetime(2018, 9, 1, 3)),)
    assert source.coverage("refunds") == ()


@pytest.mark.real_data
@pytest.mark.slow
def test_the_real_extract_gives_the_known_figures(tmp_path: Path) -> None:
    source = OlistSource(folder("olist"))
    tables = [table.name for table in load_contract().tables if table.name not in source.info.absent]
    with connect_build(tmp_path / "build.duckdb") as con:
        report = load(con, source, tables, EVER, now=NOW, timezone="America/Sao_Paulo")
        assert report.table("orders").rows_accepted == 99_441
        assert report.table("order_items").rows_accepted == 112_650
        assert report.table("payments").rows_accepted == 103_886 - 175
        assert (report.table("complaints").rows_accepted, report.rows_quarantined) == (14_565, 10)
        assert con.execute(
            f"SELECT count(*), sum(items_amount) FROM raw.orders WHERE CAST({LOCAL.format('ordered_at')} AS DATE) = '2017-11-24'"
        ).fetchone() == (1176, Decimal("152653.74"))
        late = con.execute(
            f"""
            SELECT CAST(date_trunc('week', {LOCAL.format("promised_at")}) AS DATE) AS week,
              round(100 * avg(CAST(coalesce(delivered_at, '2100-01-01') > promised_at AS INTEGER)), 1)
            FROM raw.shipments GROUP BY week
            """
        ).fetchall()
        share = dict(late)
        assert [share[date(2018, 3, 19)], share[date(2018, 3, 26)], share[date(2018, 4, 2)]] == [25.1, 26.2, 22.7]
        usual = sorted(value for week, value in share.items() if date(2017, 2, 6) <= week <= date(2018, 3, 5))
        assert usual[len(usual) // 2] == pytest.approx(6.1, abs=0.1)
        again = load(con, source, tables, EVER, now=NOW, timezone="America/Sao_Paulo")
        assert (again.rows_accepted, again.oldest_touched_day) == (0, None)
