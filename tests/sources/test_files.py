from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.sources.files import FilesSource, read_mapping
from metrics_pipeline.sources.source import SourceError, Span
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.load import LoadReport, load

EVER = Span(datetime(2025, 1, 1), datetime(2026, 1, 1))
NOW = datetime(2025, 12, 31)

HEAD = "timezone: Asia/Shanghai\ncurrency: CNY\ntables:\n"
ORDERS = """  orders:
    files: orders*.csv
    columns:
      order_id: id
      ordered_at: {from: at, timezone: Asia/Shanghai}
      customer_id: who
"""
PAYMENTS = """  payments:
    files: payments*.csv
    columns:
      payment_id: {from: [order, n]}
      order_id: order
      paid_at: {from: ms, format: epoch_milliseconds}
      ordered_at: {from: s, format: epoch_seconds}
      is_successful: {from: state, true_values: [OK, 1], false_values: [NO]}
      amount: {from: fen, unit: fen}
      payment_method: {from: way, split: "/", part: 2}
"""
ORDERS_CSV = "id,at,who\na,2025-11-11 00:30:00,u1\n"


def write_mapping(folder: Path, text: str, **files: str) -> Path:
    path = folder / "mapping.yml"
    path.write_text(text, encoding="utf-8")
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
    return path


def run(
    path: Path, tmp_path: Path, *queries: str, window: Span = EVER
) -> tuple[LoadReport, list[list[tuple[object, ...]]]]:
    source = FilesSource(path)
    with connect_build(tmp_path / "build.duckdb") as con:
        report = load(con, source, list(source.mapping.tables), window, now=NOW, timezone=source.info.timezone)
        return report, [con.execute(query).fetchall() for query in queries]


def example() -> dict[str, str]:
    text = (PROJECT_ROOT / "docs" / "sources.md").read_text("utf-8")
    return dict(re.findall(r"```(csv|yaml)\n(.*?)```", text, re.DOTALL))


def test_the_example_of_the_documentation_works(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, example()["yaml"], **{"orders_2025-11": example()["csv"]})
    _, (rows,) = run(
        path,
        tmp_path,
        "SELECT order_id, ordered_at, customer_id, channel, items_amount, freight_amount, payment_method FROM raw.orders ORDER BY 1",
    )
    assert rows == [
        ("A-1001", datetime(2025, 11, 10, 16, 0, 3), "u81", "app", Decimal("1299"), Decimal("0"), "alipay"),
        ("A-1002", datetime(2025, 11, 10, 16, 0, 4), "u17", "web", Decimal("59.9"), Decimal("8"), "alipay"),
    ]
    source = FilesSource(path)
    assert source.info.absent["refunds"].reason_en == "Refunds are kept in the ERP."
    assert "orders.region" in source.info.absent
    assert "orders.channel" not in source.info.absent
    assert source.coverage("orders") == (Span(datetime(2024, 12, 31, 16), datetime(2025, 11, 30, 16)),)
    assert source.coverage("refunds") == ()


def test_conversions(tmp_path: Path) -> None:
    csv = "order,n,ms,s,state,fen,way\no1,1,1762790400500,1762790400,OK,990,app/alipay\no1,2,1762790401000,1762790400,NO,10,app\n"
    path = write_mapping(tmp_path, HEAD + PAYMENTS, payments=csv)
    report, (rows,) = run(path, tmp_path, "SELECT * EXCLUDE (_batch_id, _loaded_at) FROM raw.payments ORDER BY 1")
    assert report.rows_quarantined == 0
    paid = datetime(2025, 11, 10, 16)
    assert rows == [
        ("o1-1", "o1", paid.replace(microsecond=500_000), paid, "alipay", True, Decimal("9.9")),
        ("o1-2", "o1", paid.replace(second=1), paid, None, False, Decimal("0.1")),
    ]


def test_what_a_conversion_cannot_read_goes_to_quarantine_with_its_value(tmp_path: Path) -> None:
    csv = "order,n,ms,s,state,fen,way\no1,1,soon,1762790400,OK,990,\no1,2,1762790401000,1762790400,MAYBE,10,\no1,3,1762790401000,1762790400,OK,ten,\n"
    path = write_mapping(tmp_path, HEAD + PAYMENTS, payments=csv)
    _, (rows,) = run(
        path,
        tmp_path,
        "SELECT row_key, reason, coalesce(row_json ->> 'paid_at', ''), row_json ->> 'amount' FROM raw._quarantine ORDER BY 1",
    )
    assert [row[:2] for row in rows] == [
        ("o1-1", "paid_at: not a timestamp"),
        ("o1-2", "is_successful: not true or false"),
        ("o1-3", "amount: not a number"),
    ]
    assert rows[0][2] == "unreadable: soon"
    assert rows[2][3] == "unreadable: ten"


def test_an_offset_written_in_the_value_wins(tmp_path: Path) -> None:
    path = write_mapping(
        tmp_path, HEAD + ORDERS, orders="id,at,who\na,2025-11-11T00:30:00Z,u\nb,2025-11-11 00:30:00,u\n"
    )
    _, (rows,) = run(path, tmp_path, "SELECT order_id, ordered_at FROM raw.orders ORDER BY 1")
    assert rows == [("a", datetime(2025, 11, 11, 0, 30)), ("b", datetime(2025, 11, 10, 16, 30))]


def test_only_rows_of_the_window_are_loaded(tmp_path: Path) -> None:
    path = write_mapping(
        tmp_path, HEAD + ORDERS, orders="id,at,who\na,2025-11-11 00:30:00,u\nb,2025-11-12 00:30:00,u\nbad,someday,u\n"
    )
    window = Span(datetime(2025, 11, 10, 16), datetime(2025, 11, 11, 16))
    report, (rows,) = run(path, tmp_path, "SELECT order_id FROM raw.orders", window=window)
    assert rows == [("a",)]
    assert report.rows_quarantined == 1


def test_a_clock_that_cannot_be_is_quarantined_whatever_the_window(tmp_path: Path) -> None:
    path = write_mapping(
        tmp_path,
        HEAD + ORDERS,
        orders="id,at,who\na,2025-11-11 00:30:00,u\nahead,2999-11-11 00:30:00,u\nzero,1970-01-01 08:00:00,u\n",
    )
    window = Span(datetime(2025, 11, 10, 16), datetime(2025, 11, 11, 16))
    report, (rows,) = run(path, tmp_path, "SELECT row_key, reason FROM raw._quarantine ORDER BY row_key", window=window)
    assert (report.rows_accepted, report.rows_quarantined) == (1, 2)
    assert rows == [("ahead", "ordered_at: in the future"), ("zero", "ordered_at: before 2000-01-01")]


def test_parquet_keeps_its_types_and_odd_column_names_are_quoted(tmp_path: Path) -> None:
    duckdb.execute(
        'COPY (SELECT \'p\' AS "sku ""x""", DATE \'2025-11-11\' AS "日期", \'w\' AS w, 5 AS n)'
        f" TO '{tmp_path / 'stock.parquet'}' (FORMAT parquet)"
    )
    text = """  inventory_snapshots:
    files: stock.parquet
    columns: {product_id: 'sku "x"', snapshot_on: 日期, warehouse: w, on_hand: n}
"""
    _, (rows,) = run(
        write_mapping(tmp_path, HEAD + text),
        tmp_path,
        "SELECT * EXCLUDE (_batch_id, _loaded_at) FROM raw.inventory_snapshots",
    )
    assert rows == [(date(2025, 11, 11), "p", "w", 5, None)]


def test_completeness_is_inferred_from_all_files_when_it_is_not_told(tmp_path: Path) -> None:
    duckdb.execute(
        f"""COPY (SELECT 'o' || d || '-' || n AS id, TIMESTAMP '2025-01-01 12:00' + to_days(d::INTEGER) AS at, 'u' AS who, d // 31 AS part
          FROM range(100) AS r(d), range(20) AS s(n) WHERE d < 97 OR n < 2)
        TO '{tmp_path}' (FORMAT csv, PARTITION_BY part, OVERWRITE_OR_IGNORE)"""
    )
    path = write_mapping(tmp_path, HEAD + ORDERS.replace("orders*.csv", "'part=*/*.csv'"))
    assert len(FilesSource(path).files("orders")) == 4
    assert FilesSource(path).coverage("orders") == (Span(datetime(2024, 12, 31, 16), datetime(2025, 4, 7, 16)),)
    told = FilesSource(path, complete_from=date(2025, 2, 1), complete_until=date(2025, 4, 9))
    assert told.coverage("orders") == (Span(datetime(2025, 1, 31, 16), datetime(2025, 4, 9, 16)),)


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        (HEAD + ORDERS.replace("customer_id: who", "customer: who"), 9, "table orders has no column 'customer'; it has order_id"),
        (HEAD + ORDERS.replace("      customer_id: who\n", ""), 6, "table orders needs customer_id; map each to an input column"),
        (HEAD + ORDERS.replace("orders:", "order:"), 4, "unknown table 'order'; the contract has customers"),
        (HEAD + ORDERS.replace("Asia/Shanghai}", "Asia/Shangai}"), 8, "unknown time zone 'Asia/Shangai'"),
        (HEAD + ORDERS.replace("order_id: id", "order_id: {from: id, unit: cents}"), 7, "`unit: cents` is for amounts; order_id is text"),
        (HEAD + ORDERS.replace("order_id: id", "order_id: {form: id}"), 7, "unknown key tables.orders.columns.order_id.form"),
        (HEAD + ORDERS.replace("order_id: id", "order_id: {from: id, constant: 1}"), 7, "give either `from` (an input column) or `constant`"),
        (HEAD + ORDERS.replace("    files: orders*.csv\n", ""), 4, "tables.orders.files is missing"),
        ("timezone: UTC\ncurrency: yuan\ntables: {}\n", 2, "currency: String should match pattern"),
        ("timezone: UTC\ncurrency: [\n", 2, "not valid YAML"),
        (HEAD + ORDERS + "absent:\n  order: {en: a, zh: b}\n", 11, "'order' is neither a table nor a table.column"),
        ("just words", 1, "the file: Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_mapping_error_names_file_line_and_mend(tmp_path: Path, text: str, line: int, part: str) -> None:
    path = write_mapping(tmp_path, text)
    with pytest.raises(SourceError) as caught:
        read_mapping(path)
    assert f"{path}:{line}: " in str(caught.value)
    assert part in str(caught.value)


def test_a_column_that_is_not_in_the_file_is_found_before_loading(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS, orders="id,at\na,2025-11-11\n")
    with pytest.raises(
        SourceError, match=r"mapping\.yml:9: .*orders\.csv has no column 'who'; it has id, at\. Correct `from`"
    ):
        run(path, tmp_path)


def test_no_file_for_a_glob_is_an_error(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS)
    with pytest.raises(SourceError, match=r"mapping\.yml:5: no file matches 'orders\*\.csv'"):
        run(path, tmp_path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS, orders="")
    with pytest.raises(SourceError, match=r"orders\.csv: the file is empty"):
        run(path, tmp_path)


def test_a_header_without_rows_is_no_error(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS, orders="id,at,who\n")
    report, _ = run(path, tmp_path)
    assert report.table("orders").rows_read == 0
    assert report.table("orders").coverage == ()


def test_a_line_with_too_few_values_is_named_and_not_shown(tmp_path: Path) -> None:
    lines = [f"o{n},2025-11-11 00:30:00,u1" for n in range(30_000)]
    path = write_mapping(
        tmp_path, HEAD + ORDERS, orders="\n".join(["id,at,who", *lines, "x,someone@example.com", *lines[:10]]) + "\n"
    )
    with pytest.raises(
        SourceError,
        match=r"orders\.csv\): cannot be read: .*CSV Error on Line: 30002 Expected Number of Columns: 3 Found: 2",
    ) as caught:
        run(path, tmp_path)
    assert "someone@example.com" not in str(caught.value)


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS.replace("orders*.csv", "orders.parquet"))
    (tmp_path / "orders.parquet").write_bytes(b"PAR1" + bytes(200))
    with pytest.raises(SourceError, match=r"orders\.parquet: cannot be read: .*Deliver it again"):
        run(path, tmp_path)


def test_text_of_another_encoding_is_named(tmp_path: Path) -> None:
    path = write_mapping(tmp_path, HEAD + ORDERS)
    (tmp_path / "orders.csv").write_bytes(b"id,at,who\n" + "a,2025-11-11,张三\n".encode("gbk") * 20)
    with pytest.raises(
        SourceError, match=r"orders\.csv: cannot be read: .*not utf-8 encoded.*UTF-8 text with one header line"
    ):
        run(path, tmp_path)


def test_an_sql_name_cannot_break_out(tmp_path: Path) -> None:
    evil = 'id" FROM range(1); DROP TABLE raw.orders; --'
    path = write_mapping(tmp_path, HEAD + ORDERS.replace("order_id: id", f"order_id: '{evil}'"), orders=ORDERS_CSV)
    with pytest.raises(SourceError, match="has no column"):
        run(path, tmp_path)
