"""Bad input, by the commands that people use: a clear message, nothing half-published; good rows are not lost with bad.

A small shop of CSV and Parquet files with a mapping. What is refused leaves the published version as it was, and is
refused again by the next night; single bad rows are quarantined, counted and shown.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.read import Published
from tests.commands import Answer, run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bad_input")]

FIRST, LAST, NIGHT = "2025-10-01", "2025-11-29", "2025-11-30"
DAYS, ORDERS_A_DAY = 61, 400
RULE = """groups:
  - name: shop
    defaults:
      why: To see alerts.
      why_zh: 用于测试。
      owner: test
      labels: {scenario: test}
      annotations: {summary: Test., summary_zh: 测试。}
    rules:
      - alert: always_firing
        metric: orders_placed
        yellow_if: "> 1"
      - alert: never_firing
        metric: gmv
        red_if: "< 0"
"""
MAPPING = """name: small_shop
timezone: Asia/Shanghai
currency: CNY
tables:
  orders:
    files: orders_*.csv
    complete: {from: 2025-10-01, until: 2025-11-30}
    columns:
      order_id: number
      ordered_at: {from: created, timezone: Asia/Shanghai}
      customer_id: buyer
      region: region
      items_amount: total
  payments:
    files: payments_*.parquet
    complete: {from: 2025-10-01, until: 2025-11-30}
    columns:
      payment_id: payment
      order_id: number
      paid_at: {from: paid, timezone: Asia/Shanghai}
      ordered_at: {from: created, timezone: Asia/Shanghai}
      is_successful: ok
      amount: total
"""


@dataclass(frozen=True)
class Shop:
    """A folder of files and a home whose history is built; each test gets it anew at the same path."""

    root: Path
    pristine: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def orders(self) -> Path:
        """The newest file of orders."""
        return self.root / "files" / "orders_2025-11.csv"

    @property
    def payments(self) -> Path:
        return self.root / "files" / "payments_2025-11.parquet"

    @property
    def rules(self) -> Path:
        return self.root / "rules" / "shop.yml"

    def renew(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self.pristine, self.root)

    @property
    def current(self) -> str:
        return (self.home / "warehouse" / "published" / "CURRENT").read_text("utf-8")

    def rows(self, query: str) -> list[tuple[object, ...]]:
        """An answer of the build file."""
        with connect_build(self.home / "warehouse" / "build.duckdb", read_only=True) as con:
            return con.execute(query).fetchall()

    def edit(self, changes: dict[str, str | list[str]]) -> None:
        """Replace rows of the newest orders, by order number: other fields, or whole lines."""
        lines = []
        for line in self.orders.read_text("utf-8").splitlines():
            changed = changes.get(line.split(",")[0], line)
            lines += [changed] if isinstance(changed, str) else changed
        self.orders.write_text("\n".join([*lines, ""]), "utf-8")

    def line(self, number: str) -> str:
        """The row of an order."""
        return next(line for line in self.orders.read_text("utf-8").splitlines() if line.startswith(f"{number},"))


Command = Callable[..., Answer]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("bad_input")
    shop = Shop(folder / "shop", folder / "pristine")
    (shop.root / "files").mkdir(parents=True)
    (shop.root / "files" / "mapping.yml").write_text(MAPPING, "utf-8")
    shop.rules.parent.mkdir()
    shop.rules.write_text(RULE, "utf-8")
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE orders AS SELECT 'o' || d || '-' || n AS number,"
            f" TIMESTAMP '{FIRST} 08:00:00' + to_days(d::INTEGER) + to_minutes((n * 2)::INTEGER) AS created,"
            " 'u' || ((d * 7 + n * 13) % 300) AS buyer, ['华北', '华东', '华南'][1 + (d + n) % 3] AS region,"
            " (20 + (d * 31 + n * 17) % 400)::DECIMAL(18, 2) AS total"
            f" FROM range({DAYS}) AS days(d), range({ORDERS_A_DAY}) AS hours(n)"
        )
        for month in ("2025-10", "2025-11"):
            rows = f"FROM orders WHERE strftime(created, '%Y-%m') = '{month}' ORDER BY created, number"
            folder = shop.root / "files"
            con.execute(f"COPY (SELECT * {rows}) TO '{folder}/orders_{month}.csv' (HEADER)")
            con.execute(
                f"COPY (SELECT 'p' || number AS payment, number, created + INTERVAL 5 MINUTE AS paid, created,"
                f" true AS ok, total {rows}) TO '{folder}/payments_{month}.parquet' (FORMAT parquet)"
            )
    return shop


@pytest.fixture(scope="module")
def history(built: Shop, command: Command) -> Shop:
    """The shop with all days but the last one built, whose orders come afterwards."""
    whole = built.orders.read_text("utf-8")
    built.orders.write_text("".join(line for line in whole.splitlines(True) if NIGHT not in line), "utf-8")
    assert command("load", "files", str(built.root / "files")).code == 0
    answer = command("backfill", "--from", FIRST, "--to", LAST)
    assert answer.code == 0, answer.err
    built.orders.write_text(whole, "utf-8")
    built.root.rename(built.pristine)
    return built


@pytest.fixture
def shop(history: Shop) -> Shop:
    history.renew()
    return history


@pytest.fixture(scope="module")
def command(built: Shop) -> Command:
    """The program `metrics` as a process of its own: what it answers and its exit code."""
    environment = {**os.environ, "METRICS_HOME": str(built.home), "METRICS_RULES_DIR": str(built.rules.parent)}

    def call(*arguments: str) -> Answer:
        answer = run(*arguments, environment=environment)
        for noise in ("Traceback", "leaked", "dagster._core"):
            assert noise not in answer.out + answer.err
        return answer

    return call


def _empty(shop: Shop) -> None:
    shop.orders.write_bytes(b"")


def _without_a_column(shop: Shop) -> None:
    head, _, rows = shop.orders.read_text("utf-8").partition("\n")
    shop.orders.write_text(head.replace("buyer", "client") + "\n" + rows, "utf-8")


def _truncated(shop: Shop) -> None:
    shop.payments.write_bytes(shop.payments.read_bytes()[:4000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_empty, ("orders_2025-11.csv", "empty", "deliver it again")),
        (_without_a_column, ("mapping.yml:11", "orders_2025-11.csv has no column 'buyer'", "client", "Correct `from`")),
        (_truncated, ("payments_2025-11.parquet", "cannot be read", "Deliver it again")),
    ],
    ids=["empty", "missing column", "truncated"],
)
def test_a_file_that_cannot_be_used_stops_the_night(
    spoil: Callable[[Shop], None], words: tuple[str, ...], shop: Shop, command: Command
) -> None:
    version, loads = shop.current, shop.rows("SELECT count(*) FROM raw._loads")
    spoil(shop)
    answer = command("nightly")
    assert answer.code == 1
    for word in words:
        assert word in answer.err
    assert shop.current == version
    assert shop.rows("SELECT count(*) FROM raw._loads") == loads


def test_a_delivery_that_is_mostly_wrong_stops_this_night_and_the_next(shop: Shop, command: Command) -> None:
    version = shop.current
    shop.edit({f"o{DAYS - 1}-{n}": f"{shop.line(f'o{DAYS - 1}-{n}').rpartition(',')[0]},much" for n in range(100)})
    answer = command("nightly")
    assert answer.code == 1
    for word in (
        "orders: expected at most 5.0% of the delivered rows in quarantine; found 0.25",
        "orders_2025-11.csv: items_amount: not a number (100 rows, e.g. o60-0)",
        "Deliver these rows again",
    ):
        assert word in answer.err
    assert shop.current == version
    assert shop.rows("SELECT max(covered_until) FROM raw._coverage WHERE table_name = 'orders'") == [
        (datetime.fromisoformat(NIGHT) - timedelta(hours=8),)
    ]  # the night is not loaded as far as anybody is concerned: the next one loads it, and stops, again


def test_bad_rows_are_left_out_and_named_and_a_rule_with_a_typo_stops_only_itself(shop: Shop, command: Command) -> None:
    version = shop.current
    good = {number: shop.line(number) for number in (f"o60-{n}" for n in range(8))}
    shop.edit(
        {
            "o60-0": good["o60-0"].rpartition(",")[0] + ",ten",
            "o60-1": good["o60-1"].rpartition(",")[0] + ",-5.00",
            "o60-2": [good["o60-2"], good["o60-2"].replace("华", "西")],
            "o60-3": [good["o60-3"], good["o60-3"]],
            "o60-4": good["o60-4"].replace("2025-", "2999-"),
            "o60-5": good["o60-5"].replace("2025-11-30", "yesterday"),
            "o60-6": good["o60-6"].replace("2025-11-30", "1970-01-01"),
        }
    )
    shop.rules.write_text(RULE.replace("yellow_if:", "yellow_iff:"), "utf-8")
    answer = command("nightly")
    assert answer.code == 0, answer.err
    rejected = [
        ("orders", "o60-0", "items_amount: not a number"),
        ("orders", "o60-1", "items_amount: below 0"),
        ("orders", "o60-2", "key order_id: delivered more than once with different values"),
        ("orders", "o60-2", "key order_id: delivered more than once with different values"),
        ("orders", "o60-4", "ordered_at: in the future"),
        ("orders", "o60-5", "ordered_at: not a timestamp"),
        ("orders", "o60-6", "ordered_at: before 2000-01-01"),
    ]
    assert shop.rows("SELECT table_name, row_key, reason FROM raw._quarantine ORDER BY ALL") == rejected
    for _, number, reason in rejected:
        count = "2 rows" if number == "o60-2" else "1 row"
        assert (
            f"rejected: orders: small_shop/orders/orders_2025-11.csv: {reason} ({count}, e.g. {number})" in answer.err
        )
    assert shop.current != version
    values = Published.open(shop.home / "warehouse" / "published").series(
        "orders_placed", start=date.fromisoformat(NIGHT)
    )
    assert values["value"].tolist() == [ORDERS_A_DAY - 6]

    assert "shop.yml:12: always_firing: key 'yellow_iff' is not known — did you mean 'yellow_if'?" in answer.err
    with closing(sqlite3.connect(shop.home / "store.db")) as con:
        assert con.execute("SELECT state FROM alert_instances WHERE rule = 'always_firing'").fetchone() == ("firing",)
        assert con.execute("SELECT last_period FROM alert_instances WHERE rule = 'never_firing'").fetchone()[0] >= NIGHT


def test_loading_says_what_was_rejected_and_when_it_is_too_much(shop: Shop, command: Command) -> None:
    shop.edit({"o60-1": shop.line("o60-1").rpartition(",")[0] + ",-5.00"})
    answer = command("load", "files", str(shop.root / "files"))
    assert answer.code == 0
    assert "orders_2025-11.csv: items_amount: below 0 (1 row, e.g. o60-1)" in answer.err
    shop.edit({f"o{day}-{n}": f"o{day}-{n},soon,u1,华北,5" for day in range(31, 41) for n in range(ORDERS_A_DAY)})
    answer = command("load", "files", str(shop.root / "files"))
    assert answer.code == 1
    assert "ordered_at: not a timestamp (4000 rows" in answer.err
    assert "orders: 16% of the delivered rows were rejected" in answer.err
    assert "Correct the rows or the mapping" in answer.err


def test_lint_names_a_typo_with_file_line_and_what_was_meant(shop: Shop, command: Command) -> None:
    shop.rules.write_text(RULE.replace("metric: gmv\n", "metric: gmvv\n").replace("yellow_if:", "yellow_iff:"), "utf-8")
    answer = command("rules", "lint")
    assert answer.code == 1
    assert f"{shop.rules}:12: always_firing: key 'yellow_iff' is not known — did you mean 'yellow_if'?" in answer.out
    assert (
        f"{shop.rules}:14: never_firing: metric 'gmvv' is not in the metric library — did you mean 'gmv'?" in answer.out
    )
