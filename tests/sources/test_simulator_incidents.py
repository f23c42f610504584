"""Every label of the simulator is really in its data, and nothing is reported before it arrived."""

import json
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from ruamel.yaml import YAML

import metrics_pipeline.sources as sources
from metrics_pipeline.sources.simulator import SimulatorSource, simulate
from metrics_pipeline.sources.simulator.run import CLOCKS, DIMENSIONS
from metrics_pipeline.sources.source import SourceError, Span

CONTRACT = YAML(typ="safe").load((Path(sources.__file__).parent / "contract.yml").read_text("utf-8"))["tables"]
UNTIL = date(2026, 11, 21)
DAYS = 150
Con = duckdb.DuckDBPyConnection
Label = dict[str, Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shop")
    simulate(directory, seed=5, scale=0.2, days=DAYS, until=UNTIL)
    return directory


@pytest.fixture(scope="module")
def con(shop: Path) -> Con:
    connection = duckdb.connect()
    for table in (*CLOCKS, *DIMENSIONS):
        once = f"QUALIFY row_number() OVER (PARTITION BY {', '.join(CONTRACT[table]['key'])}) = 1"
        shift = "" if table in DIMENSIONS or CLOCKS[table].endswith("_on") else " + INTERVAL 8 HOUR"
        day = "" if table in DIMENSIONS else f", CAST({CLOCKS[table]}{shift} AS DATE) AS day"
        connection.execute(
            f"CREATE TABLE {table} AS SELECT *{day} FROM read_parquet('{shop / table}/*.parquet') {once}"
        )
    return connection


@pytest.fixture(scope="module")
def labels(shop: Path) -> list[Label]:
    return [json.loads(line) for line in (shop / "labels.jsonl").read_text("utf-8").splitlines()]


def number(con: Con, sql: str) -> float:
    row = con.execute(sql).fetchone()
    assert row is not None
    return float(row[0] or 0)


def inside(label: Label) -> str:
    return f"day BETWEEN '{label['starts_on']}' AND '{label['ends_on']}'"


def around(label: Label) -> str:
    """The same weekdays of the three weeks before, without other promises."""
    days = ", ".join(
        f"DATE '{date.fromisoformat(label['starts_on']) + timedelta(days=n) - timedelta(weeks=w)}'"
        for w in (1, 2, 3)
        for n in range((date.fromisoformat(label["ends_on"]) - date.fromisoformat(label["starts_on"])).days + 1)
    )
    return f"day IN ({days})"


def change(con: Con, label: Label, value: str, table: str, where: str = "true") -> float:
    """The value during the label relative to the same weekdays before; `value` is a per-day aggregate."""
    daily = f"SELECT day, {value} AS v FROM {table} WHERE {where} GROUP BY day"
    now = number(con, f"SELECT avg(v) FROM ({daily}) WHERE {inside(label)}")
    return now / number(con, f"SELECT avg(v) FROM ({daily}) WHERE {around(label)}")


def is_member(label: Label) -> str:
    columns, members = label["dimension"].split("|"), label["member"].split("|")
    return " AND ".join(f"{column} = '{member}'" for column, member in zip(columns, members, strict=True))


def stock_out(con: Con, label: Label) -> None:
    where = f"product_id = '{label['member']}' AND {inside(label)}"
    assert number(con, f"SELECT max(on_hand) FROM inventory_snapshots WHERE {where}") == 0
    assert number(con, f"SELECT count(*) FROM order_items WHERE {where}") == 0
    before = f"product_id = '{label['member']}' AND day = DATE '{label['starts_on']}' - 1"
    assert number(con, f"SELECT count(*) FROM order_items WHERE {before}") > 0


def payment_outage(con: Con, label: Label) -> None:
    begin, end = label.get("hours", (0, 24))
    hours = (
        f"{is_member(label)} AND hour(paid_at + INTERVAL 8 HOUR) >= {begin} AND hour(paid_at + INTERVAL 8 HOUR) < {end}"
    )
    during = number(con, f"SELECT avg(CAST(is_successful AS INTEGER)) FROM payments WHERE {hours} AND {inside(label)}")
    attempts = number(con, f"SELECT count(*) FROM payments WHERE {hours} AND {inside(label)}")
    assert during < 1 - label["magnitude"] + 3 * (0.25 / attempts) ** 0.5
    assert (
        number(con, f"SELECT avg(CAST(is_successful AS INTEGER)) FROM payments WHERE {hours} AND {around(label)}")
        > 0.75
    )


def warehouse_delay(con: Con, label: Label) -> None:
    late = f"SELECT avg(CAST(delivered_at > promised_at AS INTEGER)) FROM shipments WHERE {is_member(label)}"
    assert number(con, f"{late} AND {inside(label)}") > 0.75 * label["magnitude"]
    assert number(con, f"{late} AND NOT {inside(label)}") < 0.2


def refund_surge(con: Con, label: Label) -> None:
    paid = f"""
        SELECT {{}}
        FROM payments p JOIN order_items i ON i.order_id = p.order_id AND i.line_no = 1 JOIN products USING (product_id)
        LEFT JOIN refunds r ON r.order_id = p.order_id
        WHERE p.is_successful AND category = '{label["member"]}' AND p.{{}}"""
    rate = "avg(CAST(r.order_id IS NOT NULL AS INTEGER))"
    expected = label["magnitude"] * number(con, paid.format(rate, f"day < '{label['starts_on']}'"))
    noise = (expected * (1 - expected) / number(con, paid.format("count(*)", inside(label)))) ** 0.5
    assert number(con, paid.format(rate, inside(label))) == pytest.approx(expected, abs=4 * noise)


def complaint_surge(con: Con, label: Label) -> None:
    mine = f"SELECT count(*) FROM complaints WHERE product_id = '{label['member']}' AND "
    days = (date.fromisoformat(label["ends_on"]) - date.fromisoformat(label["starts_on"])).days + 1
    assert number(con, mine + inside(label)) / days > 10 * number(con, f"{mine} NOT {inside(label)}") / DAYS


def ad_burn(con: Con, label: Label) -> None:
    assert change(con, label, "sum(spend_amount)", "ad_spend", is_member(label)) > 0.6 * label["magnitude"]
    roi = "sum(attributed_amount) / sum(spend_amount)"
    assert change(con, label, roi, "ad_spend", is_member(label)) < 1.7 / label["magnitude"]


def bot_traffic(con: Con, label: Label) -> None:
    assert change(con, label, "count(*)", "sessions", is_member(label)) > 1 + 0.6 * label["magnitude"]
    assert change(con, label, "avg(CAST(is_bounced AS INTEGER))", "sessions", is_member(label)) > 1.1
    assert change(con, label, "count(*)", "orders", is_member(label)) < 1.5


def tracking_loss(con: Con, label: Label) -> None:
    assert change(con, label, "count(*)", "sessions", is_member(label)) < 1.4 * (1 - label["magnitude"]) + 0.05
    assert change(con, label, "count(*)", "orders", is_member(label)) > 0.6
    assert (
        number(con, f"SELECT count(*) FROM orders WHERE session_id IS NULL AND {is_member(label)} AND {inside(label)}")
        > 0
    )


def double_tracking(con: Con, label: Label) -> None:
    assert change(con, label, "count(*)", "sessions", is_member(label)) > 1.5
    pairs = "count(*) / count(DISTINCT (visitor_id, started_at))"
    assert number(con, f"SELECT {pairs} FROM sessions WHERE {is_member(label)} AND {inside(label)}") == pytest.approx(
        2, abs=0.02
    )


def sales_drop(con: Con, label: Label) -> None:
    assert change(con, label, "count(*)", "orders", is_member(label)) < 1.35 * (1 - label["magnitude"])


def late_load(con: Con, label: Label) -> None:
    rows = f"SELECT avg(CAST(_arrived_at IS NOT NULL AS INTEGER)) FROM {label['tables'][0]} WHERE "
    assert number(con, rows + inside(label)) == pytest.approx(label["magnitude"], abs=0.1)
    assert (
        number(
            con,
            f"SELECT count(*) FROM {label['tables'][0]} WHERE _arrived_at <= CAST(day AS TIMESTAMP) AND {inside(label)}",
        )
        == 0
    )


def promotion(con: Con, label: Label) -> None:
    if label["dimension"] != "all":
        assert change(con, label, "count(*)", "sessions", is_member(label)) > 1.05


CHECKS: dict[str, Callable[[Con, Label], None]] = {
    check.__name__: check
    for check in (
        stock_out, payment_outage, warehouse_delay, refund_surge, complaint_surge, ad_burn, bot_traffic,
        tracking_loss, double_tracking, sales_drop, late_load, promotion,
    )
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(CHECKS))
def test_label_is_in_the_data(con: Con, labels: list[Label], kind: str) -> None:
    mine = [label for label in labels if label["kind"] == kind]
    assert mine
    for label in mine:
        try:
            CHECKS[kind](con, label)
        except AssertionError as error:
            raise AssertionError(f"{label['id']} ({label['member']}): {error}") from error


def test_best_sellers_that_ran_out_on_their_own_are_labelled(tmp_path: Path) -> None:
    days = 130
    simulate(tmp_path, seed=5, scale=0.6, days=days, until=UNTIL)
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text("utf-8").splitlines()]
    first = UNTIL - timedelta(days=days - 60 - 1)
    rows = duckdb.sql(
        f"""
        WITH sold AS (SELECT product_id, CAST(ordered_at + INTERVAL 8 HOUR AS DATE) AS day, sum(quantity) AS units
            FROM (SELECT DISTINCT * EXCLUDE (_arrived_at) FROM '{tmp_path}/order_items/*.parquet') GROUP BY ALL),
        stock AS (SELECT s.product_id, s.snapshot_on AS day, s.on_hand, coalesce(sold.units, 0) AS units
            FROM '{tmp_path}/inventory_snapshots/*.parquet' s
            LEFT JOIN sold ON sold.product_id = s.product_id AND sold.day = s.snapshot_on),
        known AS (SELECT *, sum(units) OVER before AS lately, lag(on_hand) OVER one AS earlier FROM stock
            WINDOW one AS (PARTITION BY product_id ORDER BY day),
            before AS (PARTITION BY product_id ORDER BY day ROWS BETWEEN 28 PRECEDING AND 1 PRECEDING))
        SELECT product_id, day FROM known WHERE on_hand = 0 AND earlier > 0 AND lately >= 560 AND day >= '{first}'
        """
    ).fetchall()
    planned = [label for label in labels if label["kind"] == "stock_out"]
    natural = [label for label in labels if label["kind"] == "natural_stock_out"]
    assert natural
    assert all(label["natural"] and not label["is_harmless"] for label in natural)
    emptied = {
        (sku, str(day))
        for sku, day in rows
        if not any(
            one["member"] == sku and one["starts_on"] <= str(day + timedelta(days=1)) and str(day) <= one["ends_on"]
            for one in planned
        )
    }
    assert {(label["member"], label["starts_on"]) for label in natural} == emptied


def test_duplicate_load_repeats_rows_exactly(shop: Path, labels: list[Label]) -> None:
    mine = [label for label in labels if label["kind"] == "duplicate_load"]
    assert mine
    for label in mine:
        table = label["tables"][0]
        rows = f"FROM read_parquet('{shop / table}/*.parquet') WHERE CAST({CLOCKS[table]} + INTERVAL 8 HOUR AS DATE) = '{label['starts_on']}'"
        with duckdb.connect() as con:
            columns = "SELECT * EXCLUDE (_arrived_at)"
            assert number(con, f"SELECT count(*) {rows}") == 2 * number(
                con, f"SELECT count(*) FROM (SELECT DISTINCT * FROM ({columns} {rows}))"
            )


def test_last_day_has_a_payment_outage_and_a_stock_out(labels: list[Label]) -> None:
    active = {
        label["kind"]
        for label in labels
        if label["starts_on"] <= str(UNTIL) <= label["ends_on"] and not label["is_harmless"]
    }
    assert {"payment_outage", "stock_out"} <= active


# --- what a window sees -------------------------------------------------------------------------------------------


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day) - timedelta(hours=8)


def night(day: date) -> Span:
    return Span(midnight(day), midnight(day + timedelta(days=1)))


def deliver(source: SimulatorSource, table: str, window: Span) -> list[dict[str, Any]]:
    found = []
    with duckdb.connect() as con:
        for batch in source.batches(table, window):
            cursor = con.execute(batch.query, list(batch.parameters))
            names = [column[0] for column in cursor.description or []]
            found += [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return found


@pytest.mark.parametrize("table", sorted(CONTRACT))
def test_batches_have_the_columns_of_the_contract(shop: Path, table: str) -> None:
    source = SimulatorSource(shop)
    with duckdb.connect() as con:
        for batch in source.batches(table, night(UNTIL)):
            cursor = con.execute(batch.query, list(batch.parameters))
            assert [column[0] for column in cursor.description or []] == list(CONTRACT[table]["columns"])


def test_coverage_ends_at_local_midnight_after_the_last_day(shop: Path) -> None:
    (span,) = SimulatorSource(shop).coverage("orders")
    assert span == Span(midnight(UNTIL - timedelta(days=DAYS - 1)), datetime(2026, 11, 21, 16))


@pytest.mark.parametrize("table", sorted(CLOCKS))
def test_whole_window_delivers_every_row_that_arrived(shop: Path, con: Con, table: str) -> None:
    source = SimulatorSource(shop)
    (span,) = source.coverage(table)
    total = 0.0
    with duckdb.connect() as other:
        keys = ", ".join(CONTRACT[table]["key"])
        parts = [(b.query, list(b.parameters)) for b in source.batches(table, span)]
        for query, parameters in parts:
            row = other.execute(f"SELECT count(DISTINCT ({keys})) FROM ({query})", parameters).fetchone()
            assert row is not None
            total += row[0]
    assert total == number(
        con, f"SELECT count(*) FROM {table} WHERE _arrived_at IS NULL OR _arrived_at < '{span.until}'"
    )


@pytest.mark.parametrize("table", ["payments", "shipments", "inventory_snapshots", "ad_spend"])
def test_nights_add_up_to_the_whole(shop: Path, table: str) -> None:
    source, first, nights = SimulatorSource(shop), date(2026, 10, 25), 12
    key = CONTRACT[table]["key"]
    by_night: dict[tuple[Any, ...], dict[str, Any]] = {}
    for n in range(nights):
        for row in deliver(source, table, night(first + timedelta(days=n))):
            by_night[tuple(row[k] for k in key)] = row
    whole = Span(night(first).start, night(first + timedelta(days=nights - 1)).until)
    at_once = {tuple(row[k] for k in key): row for row in deliver(source, table, whole)}
    assert by_night == at_once


def test_late_rows_come_with_the_night_of_their_arrival(shop: Path, labels: list[Label]) -> None:
    source = SimulatorSource(shop)
    mine = [label for label in labels if label["kind"] == "late_load"]
    assert mine
    for label in mine:
        table, day = label["tables"][0], date.fromisoformat(label["starts_on"])
        key, clock = CONTRACT[table]["key"][0], CLOCKS[table]
        first = {r[key] for r in deliver(source, table, night(day))}
        late = [
            r
            for r in deliver(source, table, night(date.fromisoformat(label["arrives_on"])))
            if r[clock] < night(day).until
        ]
        late = [r for r in late if r[clock] >= night(day).start]
        between = [r for r in deliver(source, table, night(day + timedelta(days=1))) if r[clock] < night(day).until]
        arrived = {r[key] for r in late} - first
        assert len(arrived) > 0.4 * len(first | arrived)
        assert not arrived & {r[key] for r in between}


def test_parcel_is_undelivered_until_it_is_delivered(shop: Path) -> None:
    source, day = SimulatorSource(shop), date(2026, 10, 30)
    open_parcels = {r["shipment_id"] for r in deliver(source, "shipments", night(day)) if r["delivered_at"] is None}
    assert open_parcels
    following = [r for n in range(1, 8) for r in deliver(source, "shipments", night(day + timedelta(days=n)))]
    closed = {r["shipment_id"] for r in following if r["delivered_at"] is not None}
    assert len(open_parcels & closed) > 0.8 * len(open_parcels)


def test_nothing_in_a_batch_is_later_than_its_window(shop: Path) -> None:
    source = SimulatorSource(shop)
    for table, clock in CLOCKS.items():
        window = night(date(2026, 11, 11))
        for row in deliver(source, table, window):
            moments = [v for v in row.values() if isinstance(v, datetime)]
            assert all(moment < window.until for moment in moments), table
            if clock.endswith("_on"):
                assert row[clock] == date(2026, 11, 11)


def test_snapshot_of_a_day_comes_when_the_day_is_over(shop: Path) -> None:
    source, day = SimulatorSource(shop), date(2026, 11, 10)
    noon = Span(night(day).start + timedelta(hours=11), night(day).start + timedelta(hours=12))
    last_hour = Span(night(day).until - timedelta(hours=1), night(day).until)
    assert deliver(source, "inventory_snapshots", noon) == []
    assert {r["snapshot_on"] for r in deliver(source, "inventory_snapshots", last_hour)} == {day}


def test_same_content_has_the_same_batch_id(shop: Path) -> None:
    source = SimulatorSource(shop)
    (span,) = source.coverage("orders")
    ids = [batch.batch_id for batch in source.batches("orders", span)]
    assert ids == [batch.batch_id for batch in source.batches("orders", span)]
    assert len(set(ids)) == len(ids)
    earlier = [
        batch.batch_id for batch in source.batches("orders", Span(span.start, night(UNTIL - timedelta(days=1)).until))
    ]
    assert ids[1] == earlier[1]
    assert ids[-1] != earlier[-1]


def test_unknown_table_is_named(shop: Path) -> None:
    with pytest.raises(SourceError, match="reviews"):
        list(SimulatorSource(shop).batches("reviews", night(UNTIL)))
