"""The simulator: the same seed gives the same shop, its tables agree with each other, its year looks like a year."""

import json
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest
from ruamel.yaml import YAML

import metrics_pipeline.sources as sources
from metrics_pipeline.sources.simulator import SimulatorSource, simulate
from metrics_pipeline.sources.simulator.run import CLOCKS, DIMENSIONS
from metrics_pipeline.sources.source import SourceError

CONTRACT = YAML(typ="safe").load((Path(sources.__file__).parent / "contract.yml").read_text("utf-8"))["tables"]
UNTIL = date(2026, 11, 21)


def make_small(directory: Path, *, seed: int = 7, days: int = 66, until: date = UNTIL) -> Path:
    simulate(directory, seed=seed, scale=0.02, days=days, until=until)
    return directory


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    directory = tmp_path_factory.mktemp("year")
    simulate(directory, seed=11, scale=0.08, days=400, until=UNTIL)
    con = duckdb.connect()
    for table in (*CLOCKS, *DIMENSIONS):
        once = f"QUALIFY row_number() OVER (PARTITION BY {', '.join(CONTRACT[table]['key'])}) = 1"
        con.execute(f"CREATE TABLE {table} AS SELECT * FROM read_parquet('{directory / table}/*.parquet') {once}")
    con.execute(
        "CREATE TABLE daily AS SELECT CAST(ordered_at + INTERVAL 8 HOUR AS DATE) AS day, count(*) AS orders FROM orders GROUP BY 1"
    )
    return con


def scalar(con: duckdb.DuckDBPyConnection, sql: str) -> float:
    row = con.execute(sql).fetchone()
    assert row is not None
    return float(row[0])


def orders_between(con: duckdb.DuckDBPyConnection, first: str, last: str) -> float:
    return scalar(con, f"SELECT avg(orders) FROM daily WHERE day BETWEEN '{first}' AND '{last}'")


# --- the same again -------------------------------------------------------------------------------------------------


def test_same_arguments_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    assert files_of(make_small(tmp_path)) == files_of(small)


def test_another_seed_gives_another_shop(small: Path, tmp_path: Path) -> None:
    again = files_of(make_small(tmp_path, seed=8))
    assert again["orders/2026-11.parquet"] != files_of(small)["orders/2026-11.parquet"]


def test_second_call_writes_nothing(small: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in small.rglob("*")}
    report = simulate(small, seed=7, scale=0.02, days=66, until=UNTIL)
    assert not report.is_fresh
    assert report.rows["orders"] > 1000
    assert {p: p.stat().st_mtime_ns for p in small.rglob("*")} == before


def test_killed_run_restarts_to_the_same_files(small: Path, tmp_path: Path) -> None:
    def kill(stage: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, seed=7, scale=0.02, days=66, until=UNTIL, progress=kill)
    with pytest.raises(SourceError, match="no completed simulation"):
        SimulatorSource(tmp_path).coverage("orders")
    assert files_of(make_small(tmp_path)) == files_of(small)


def test_another_period_leaves_no_old_files(tmp_path: Path) -> None:
    make_small(tmp_path, days=40)
    make_small(tmp_path, days=10, until=date(2026, 3, 20))
    assert [p.name for p in (tmp_path / "orders").iterdir()] == ["2026-03.parquet"]


def test_continued_shop_keeps_its_past(small: Path, tmp_path: Path) -> None:
    make_small(tmp_path)
    later = UNTIL + timedelta(days=25)
    report = simulate(tmp_path, seed=7, scale=0.02, days=66, until=later)
    assert (report.start, report.until) == (UNTIL - timedelta(days=65), later)
    con = duckdb.connect()
    for table, clock in CLOCKS.items():
        end = f"DATE '{UNTIL}' + 1 - INTERVAL {0 if clock.endswith('_on') else 8} HOUR"
        old = f"SELECT * FROM read_parquet('{small / table}/*.parquet')"
        new = f"SELECT * FROM read_parquet('{tmp_path / table}/*.parquet') WHERE {clock} < {end}"
        assert scalar(con, f"SELECT count(*) FROM ({old} EXCEPT ALL {new})") == 0, table
        assert scalar(con, f"SELECT count(*) FROM ({new} EXCEPT ALL {old})") == 0, table
    labels = (tmp_path / "labels.jsonl").read_text("utf-8").splitlines()
    assert set((small / "labels.jsonl").read_text("utf-8").splitlines()) < set(labels)


def test_killed_while_it_continues_a_shop_is_the_shop_it_was(small: Path, tmp_path: Path) -> None:
    def kill(stage: str, share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    make_small(tmp_path)
    later = UNTIL + timedelta(days=25)
    span = SimulatorSource(tmp_path).coverage("orders")
    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, seed=7, scale=0.02, days=66, until=later, progress=kill)
    assert SimulatorSource(tmp_path).coverage("orders") == span
    assert simulate(tmp_path, seed=7, scale=0.02, days=66, until=later).start == UNTIL - timedelta(days=65)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"days": 0}, "days"),
        ({"seed": -1}, "seed"),
        ({"until": date(2040, 1, 1)}, "calendar"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, wrong: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"seed": 1, "scale": 0.02, "days": 5, "until": UNTIL} | wrong
    with pytest.raises(SourceError, match=message):
        simulate(tmp_path, **arguments)  # type: ignore[arg-type]
    assert not list(tmp_path.rglob("*.parquet"))


def test_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}", "utf-8")
    with pytest.raises(SourceError, match="delete the folder"):
        SimulatorSource(tmp_path).coverage("orders")


# --- the tables agree ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", sorted(CONTRACT))
def test_required_columns_are_filled(year: duckdb.DuckDBPyConnection, table: str) -> None:
    required = [name for name, column in CONTRACT[table]["columns"].items() if column.get("required")]
    for name in required:
        assert scalar(year, f"SELECT count(*) FROM {table} WHERE {name} IS NULL") == 0, name


def test_lines_add_up_to_their_order(year: duckdb.DuckDBPyConnection) -> None:
    lines = "SELECT order_id, sum(quantity * unit_price) AS amount FROM order_items GROUP BY 1"
    assert (
        scalar(
            year,
            f"SELECT count(*) FROM orders o LEFT JOIN ({lines}) l USING (order_id) WHERE l.amount IS DISTINCT FROM o.items_amount",
        )
        == 0
    )
    assert scalar(year, "SELECT count(*) FROM order_items ANTI JOIN orders USING (order_id)") == 0


def test_payments_are_for_the_payable_amount_and_succeed_once(year: duckdb.DuckDBPyConnection) -> None:
    assert (
        scalar(
            year,
            "SELECT count(*) FROM payments p JOIN orders o USING (order_id) WHERE p.amount <> o.items_amount - o.discount_amount + o.freight_amount",
        )
        == 0
    )
    assert (
        scalar(year, "SELECT max(n) FROM (SELECT count(*) FILTER (is_successful) AS n FROM payments GROUP BY order_id)")
        == 1
    )
    assert (
        scalar(
            year,
            "SELECT count(*) FROM payments p ANTI JOIN orders o ON p.order_id = o.order_id AND p.ordered_at = o.ordered_at",
        )
        == 0
    )


def test_what_follows_belongs_to_a_paid_order(year: duckdb.DuckDBPyConnection) -> None:
    paid = (
        "SELECT order_id, min(paid_at) AS paid_at, max(amount) AS amount FROM payments WHERE is_successful GROUP BY 1"
    )
    assert (
        scalar(
            year,
            f"SELECT count(*) FROM refunds r ANTI JOIN ({paid}) p ON r.order_id = p.order_id AND r.refunded_at > p.paid_at AND r.amount <= p.amount",
        )
        == 0
    )
    assert (
        scalar(
            year,
            f"SELECT count(*) FROM shipments s ANTI JOIN ({paid}) p ON s.order_id = p.order_id AND s.shipped_at > p.paid_at",
        )
        == 0
    )
    assert (
        scalar(year, "SELECT count(*) FROM shipments WHERE delivered_at <= shipped_at OR promised_at <= shipped_at")
        == 0
    )
    assert (
        scalar(
            year,
            "SELECT count(*) FROM complaints c ANTI JOIN orders o ON c.order_id = o.order_id AND c.complained_at > o.ordered_at",
        )
        == 0
    )


@pytest.mark.parametrize(
    ("child", "column", "parent"),
    [
        ("orders", "customer_id", "customers"),
        ("orders", "session_id", "sessions"),
        ("orders", "campaign_id", "campaigns"),
        ("order_items", "product_id", "products"),
        ("product_views", "session_id", "sessions"),
        ("sessions", "customer_id", "customers"),
        ("inventory_snapshots", "product_id", "products"),
        ("ad_spend", "campaign_id", "campaigns"),
    ],
)
def test_every_reference_leads_somewhere(year: duckdb.DuckDBPyConnection, child: str, column: str, parent: str) -> None:
    missing = f"SELECT count(*) FROM {child} c ANTI JOIN {parent} p USING ({column}) WHERE c.{column} IS NOT NULL"
    assert scalar(year, missing) == 0


def test_first_order_of_a_customer_is_as_new(year: duckdb.DuckDBPyConnection) -> None:
    ranked = (
        "SELECT segment, row_number() OVER (PARTITION BY customer_id ORDER BY ordered_at, order_id) AS n FROM orders"
    )
    assert scalar(year, f"SELECT count(*) FROM ({ranked}) WHERE n > 1 AND segment = 'new'") == 0


def test_sold_out_skus_do_not_sell(year: duckdb.DuckDBPyConnection) -> None:
    sold = "SELECT product_id, CAST(ordered_at + INTERVAL 8 HOUR AS DATE) AS day, sum(quantity) AS sold FROM order_items GROUP BY 1, 2"
    flow = f"""
        SELECT s.on_hand, coalesce(d.sold, 0) AS sold,
               lag(s.on_hand + s.on_order) OVER (PARTITION BY s.product_id ORDER BY s.snapshot_on) AS most,
               lag(s.on_hand) OVER (PARTITION BY s.product_id ORDER BY s.snapshot_on) AS before
        FROM (SELECT * FROM inventory_snapshots WHERE warehouse = '广州仓') s LEFT JOIN ({sold}) d ON d.product_id = s.product_id AND d.day = s.snapshot_on
    """
    assert scalar(year, f"SELECT count(*) FROM ({flow}) WHERE sold > most") == 0
    assert scalar(year, f"SELECT count(*) FROM ({flow}) WHERE before = 0 AND on_hand = 0 AND sold = 0") > 100


def test_personal_data_is_obviously_made_up(year: duckdb.DuckDBPyConnection) -> None:
    assert (
        scalar(
            year,
            "SELECT count(*) FROM customers WHERE email NOT LIKE '%@example.invalid' OR phone NOT LIKE '100________'",
        )
        == 0
    )


# --- the year looks like a year ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "sql", "low", "high"),
    [
        ("orders per visit", "SELECT (SELECT count(*) FROM orders) / (SELECT count(*) FROM sessions)", 0.11, 0.13),
        ("views per visit", "SELECT (SELECT count(*) FROM product_views) / (SELECT count(*) FROM sessions)", 0.9, 1.1),
        ("payment conversion", "SELECT count(*) FILTER (is_successful) / (SELECT count(*) FROM orders) FROM payments", 0.91, 0.95),
        ("refund rate", "SELECT (SELECT count(*) FROM refunds) / count(*) FROM payments WHERE is_successful", 0.05, 0.06),
        ("complaint rate", "SELECT (SELECT count(*) FROM complaints) / count(*) FROM orders", 0.010, 0.015),
        ("late parcels", "SELECT avg(CAST(delivered_at > promised_at AS INTEGER)) FROM shipments", 0.04, 0.065),
        ("repeat orders", "SELECT avg(CAST(segment <> 'new' AS INTEGER)) FROM orders", 0.40, 0.50),
        ("repeat buyers", "SELECT avg(CAST(n > 1 AS INTEGER)) FROM (SELECT count(*) AS n FROM orders GROUP BY customer_id)", 0.35, 0.50),
        ("sold-out share", "SELECT avg(CAST(on_hand = 0 AS INTEGER)) FROM inventory_snapshots", 0.005, 0.05),
        ("best tenth of SKUs", "SELECT sum(n) FILTER (r <= 0.1) / sum(n) FROM (SELECT count(*) AS n, percent_rank() OVER (ORDER BY count(*) DESC) AS r FROM order_items GROUP BY product_id)", 0.4, 0.8),
        ("evening share", "SELECT avg(CAST(hour(started_at + INTERVAL 8 HOUR) BETWEEN 19 AND 22 AS INTEGER)) FROM sessions", 0.25, 0.40),
        ("night share", "SELECT avg(CAST(hour(started_at + INTERVAL 8 HOUR) BETWEEN 2 AND 5 AS INTEGER)) FROM sessions", 0.005, 0.04),
    ],
)  # fmt: skip
def test_level_is_believable(year: duckdb.DuckDBPyConnection, what: str, sql: str, low: float, high: float) -> None:
    assert low < scalar(year, sql) < high, what


def test_weekends_are_busier(year: duckdb.DuckDBPyConnection) -> None:
    rhythm = "SELECT avg(orders) FILTER (dayofweek(day) IN (0, 6)) / avg(orders) FILTER (dayofweek(day) NOT IN (0, 6)) FROM daily"
    assert 1.05 < scalar(year, f"{rhythm} WHERE day BETWEEN '2026-03-12' AND '2026-04-24'") < 1.25


def test_double_eleven_towers_and_is_followed_by_a_lull(year: duckdb.DuckDBPyConnection) -> None:
    usual = orders_between(year, "2026-09-14", "2026-09-24")
    assert orders_between(year, "2026-11-11", "2026-11-11") > 2.7 * usual
    assert orders_between(year, "2026-11-13", "2026-11-18") < 0.85 * usual
    assert orders_between(year, "2026-10-20", "2026-10-30") < usual * 1.05


def test_mid_year_sale_and_double_twelve_stand_out(year: duckdb.DuckDBPyConnection) -> None:
    assert orders_between(year, "2026-06-18", "2026-06-18") > 1.8 * orders_between(year, "2026-05-08", "2026-05-15")
    assert orders_between(year, "2025-12-12", "2025-12-12") > 1.4 * orders_between(year, "2025-12-17", "2025-12-23")


def test_spring_festival_is_quiet_after_the_new_year_goods(year: duckdb.DuckDBPyConnection) -> None:
    usual = orders_between(year, "2026-03-12", "2026-03-22")
    assert orders_between(year, "2026-02-16", "2026-02-19") < 0.55 * usual
    assert orders_between(year, "2026-01-29", "2026-02-08") > 1.15 * usual


def test_months_grow_slowly_over_the_year(year: duckdb.DuckDBPyConnection) -> None:
    sessions = "SELECT count(*) FROM sessions WHERE started_at >= '{}' AND started_at < '{}'"
    before = scalar(year, sessions.format("2025-11-20", "2025-12-08"))
    after = scalar(year, sessions.format("2026-09-12", "2026-09-30"))
    assert 1.05 < after / before < 1.35


def test_labels_are_complete_and_leave_the_first_sixty_days_alone(small: Path) -> None:
    labels = [json.loads(line) for line in (small / "labels.jsonl").read_text("utf-8").splitlines()]
    first = UNTIL - timedelta(days=65)
    assert labels
    assert len({label["id"] for label in labels}) == len(labels)
    for label in labels:
        assert date.fromisoformat(label["starts_on"]) >= first + timedelta(days=60)
        assert label["description"]["en"]
        assert label["description"]["zh"]
        assert set(label["tables"]) <= set(CONTRACT)
