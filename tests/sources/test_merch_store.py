from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
from duckdb import DuckDBPyConnection

from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.merch_store import MerchStoreSource
from metrics_pipeline.sources.source import Span
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.load import LoadReport, load
from tests.sources.real_data import folder

EVER = Span(datetime(2016, 12, 1), datetime(2017, 5, 1))
LOCAL_DAY = "CAST(timezone('America/Los_Angeles', timezone('UTC', started_at)) AS DATE)"


def run(con: DuckDBPyConnection, path: Path) -> LoadReport:
    source = MerchStoreSource(path)
    return load(
        con, source, load_contract().table_names, EVER, now=datetime(2018, 1, 1), timezone="America/Los_Angeles"
    )


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A bounce without visitor id, a visit cut at midnight, a visit with two purchases."""
    duckdb.execute(
        f"""COPY (SELECT CAST(fullVisitorId AS UBIGINT) AS fullVisitorId, CAST(visitId AS BIGINT) AS visitId,
          CAST(visit_start_utc AS TIMESTAMPTZ) AS visit_start_utc, CAST(date AS DATE) AS date,
          visitNumber, hits, pageviews, timeOnSite, bounces, transactions, totalTransactionRevenue, deviceCategory, country, source, channelGrouping
        FROM (VALUES
          (NULL, 1, '2017-01-02 12:00:00+00', '2017-01-02', 1, 1, 1, NULL, 1, NULL, NULL, 'mobile', 'India', 'google', 'Organic Search'),
          (7, 2, '2017-01-03 07:50:00+00', '2017-01-02', 1, 5, 5, 600, NULL, NULL, NULL, 'desktop', 'Canada', '(direct)', 'Direct'),
          (7, 2, '2017-01-03 07:50:00+00', '2017-01-03', 1, 3, NULL, 100, NULL, NULL, NULL, 'desktop', 'Canada', '(direct)', 'Direct'),
          (8, 3, '2017-01-03 18:00:00+00', '2017-01-03', 4, 40, 30, 900, NULL, 2, 50.0, 'desktop', 'Canada', '(direct)', 'Referral')
        ) AS g(fullVisitorId, visitId, visit_start_utc, date, visitNumber, hits, pageviews, timeOnSite, bounces, transactions,
          totalTransactionRevenue, deviceCategory, country, source, channelGrouping)) TO '{tmp_path / "sessions.parquet"}' (FORMAT parquet)"""
    )
    return tmp_path


def test_sessions_keep_the_day_of_the_shop(export: Path, tmp_path: Path) -> None:
    with connect_build(tmp_path / "build.duckdb") as con:
        assert run(con, export).rows_quarantined == 0
        assert con.execute(
            f"SELECT session_id, visitor_id, started_at, {LOCAL_DAY} = strptime(split_part(session_id, '-', 3), '%Y%m%d'), segment, page_views, is_bounced"
            " FROM raw.sessions ORDER BY 1"
        ).fetchall() == [
            ("7-2-20170102", "7", datetime(2017, 1, 3, 7, 50), True, "new", 5, False),
            ("7-2-20170103", "7", datetime(2017, 1, 3, 8, 0), True, "new", 0, False),
            ("8-3-20170103", "8", datetime(2017, 1, 3, 18, 0), True, "returning", 30, False),
            ("s1-1-20170102", "s1", datetime(2017, 1, 2, 12, 0), True, "new", 1, True),
        ]


def test_a_visit_with_two_purchases_is_two_orders_and_two_payments(export: Path, tmp_path: Path) -> None:
    with connect_build(tmp_path / "build.duckdb") as con:
        run(con, export)
        assert con.execute(
            "SELECT order_id, session_id, channel, items_amount FROM raw.orders ORDER BY 1"
        ).fetchall() == [
            ("8-3-20170103-o1", "8-3-20170103", "Referral", Decimal("25")),
            ("8-3-20170103-o2", "8-3-20170103", "Referral", Decimal("25")),
        ]
        assert con.execute("SELECT count(*), sum(amount) FROM raw.payments").fetchone() == (2, Decimal("50"))
        assert con.execute("SELECT * EXCLUDE (_batch_id, _loaded_at, _fingerprint) FROM raw.customers").fetchall() == [
            ("8", None, "Canada", None, None, None, None)
        ]


def test_what_the_export_lacks_has_a_reason(export: Path) -> None:
    source = MerchStoreSource(export)
    for table in load_contract().table_names:
        has_rows = bool(list(source.batches(table, EVER)))
        assert has_rows != (table in source.info.absent)
        assert bool(source.coverage(table)) == has_rows


@pytest.mark.real_data
def test_the_real_export_gives_the_known_figures(tmp_path: Path) -> None:
    with connect_build(tmp_path / "build.duckdb") as con:
        report = run(con, folder("ga360_merch_store"))
        assert report.rows_quarantined == 0
        assert con.execute("SELECT count(*), count(*) FILTER (is_bounced) FROM raw.sessions").fetchone() == (
            196_817,
            98_521,
        )
        assert con.execute(f"SELECT count(*) FROM raw.sessions WHERE {LOCAL_DAY} = '2017-01-24'").fetchone() == (3618,)
        assert con.execute("SELECT count(*), sum(items_amount) FROM raw.orders").fetchone() == (
            2439,
            Decimal("372584.4496"),
        )
        assert con.execute(
            "SELECT covered_from, covered_until FROM raw._coverage WHERE table_name = 'sessions'"
        ).fetchall() == [(datetime(2017, 1, 1, 8), datetime(2017, 4, 1, 7))]
