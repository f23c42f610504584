"""Counting from facts before anything is built: the numbers are those that dbt builds, and only what may be shown is in them."""

from __future__ import annotations

import shutil
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from metrics_pipeline.access.library import counts_sql
from metrics_pipeline.access.model import Level, Selector, Subjects, facts_of
from metrics_pipeline.access.policy import Rights
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compose import Request, compose, saved
from metrics_pipeline.library.facts import FactsReader, PreviewError
from metrics_pipeline.library.trial import trial
from metrics_pipeline.settings import Settings
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.manifest import MetricState
from metrics_pipeline.warehouse.publish import MetricTables, publish
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import Window
from tests.access.test_policy import NOW, make_grant

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("small_shop")]

START, UNTIL = date(2025, 11, 1), date(2025, 12, 15)
COLUMNS = "period_start, dimension, member, numerator, denominator, value"


@pytest.fixture(scope="module")
def library(small_shop: Settings) -> Catalogue:
    return Catalogue.read(small_shop.dbt_project_dir)


@pytest.fixture(scope="module")
def published(small_shop: Settings, library: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Paid and placed orders, up to a day before the newest one."""
    reach = datetime(2025, 12, 14)
    with duckdb.connect() as con:
        con.execute(f"ATTACH '{small_shop.build_path}' AS build (READ_ONLY); CREATE SCHEMA base")
        tables = {}
        for name in ("orders_paid", "orders_placed"):
            con.execute(f"CREATE TABLE base.{name} AS SELECT * FROM build.base.{name}")
            tables[name] = MetricTables((f"base.{name}",), MetricState(library.metrics[name].version, reach))
        folder = tmp_path_factory.mktemp("published")
        publish(con, folder, tables=tables, window=Window(START, UNTIL), run_id="one", now=datetime(2025, 12, 14, 3))
    return Published.open(folder)


def ask(**fields: object) -> Request:
    names = {"label": "Paid soon", "name_zh": "即时支付", **fields}
    return Request(**names)  # type: ignore[arg-type]


def soon() -> Request:
    return ask(
        id="paid_soon", form="conversion", inputs=("orders_placed", "orders_with_payment"), entity="order", days=3
    )


def copied(shop: Settings, folder: Path) -> Path:
    """The shop's definitions, to be changed."""
    shutil.copytree(shop.dbt_project_dir, folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    return folder / "dbt"


@pytest.mark.parametrize("is_fresh", [False, True])
def test_every_metric_without_inputs_is_counted_as_dbt_builds_it(
    small_shop: Settings, library: Catalogue, is_fresh: bool
) -> None:
    """From the facts that dbt built, and from facts computed by their SQL as the files have it."""
    reader = FactsReader(small_shop.build_path, is_fresh=is_fresh)
    leaves = [one for one in library.metrics.values() if not one.inputs]
    assert {one.kind for one in leaves} == {"simple", "conversion"}
    for metric in leaves:
        counted = reader.values(library, metric.id, START, UNTIL)
        with duckdb.connect(str(small_shop.build_path), read_only=True) as con:
            built = (
                f"SELECT {COLUMNS} FROM {metric.relations['day']} WHERE dimension NOT LIKE '%sku%' "
                f"AND period_start >= '{START}' AND period_start < '{UNTIL}'"
            )
            # Sums of doubles depend on the order of rows in their last digit.
            rounded = COLUMNS.replace("value", "round(value, 6)").replace("numerator", "round(numerator, 6)")
            [(rows,)] = con.execute(f"SELECT count(*) FROM ({built})").fetchall()
            differing = con.execute(
                f"(SELECT {rounded} FROM ({built}) EXCEPT SELECT {rounded} FROM counted) UNION ALL "
                f"(SELECT {rounded} FROM counted EXCEPT SELECT {rounded} FROM ({built}))"
            ).fetchall()
        assert rows > 30 and counted.num_rows == rows and differing == [], metric.id


def test_a_conversion_that_nobody_has_built_is_shown_on_history(
    small_shop: Settings, library: Catalogue, published: Published
) -> None:
    made = compose(library, soon())
    frame = trial(published, made.catalogue, "paid_soon", facts=FactsReader(small_shop.build_path))
    total = frame[frame["dimension"] == "all"].set_index("period_start")["value"]
    with connect_build(small_shop.build_path, read_only=True) as con:
        expected = con.execute(
            """SELECT CAST(ordered_local_at AS DATE) AS day, count(DISTINCT p.order_id)
            FROM facts.fct_orders AS o JOIN facts.fct_payments AS p USING (order_id)
            WHERE date_trunc('hour', p.paid_local_at) >= date_trunc('hour', o.ordered_local_at)
                AND date_trunc('hour', p.paid_local_at) < date_trunc('hour', o.ordered_local_at) + INTERVAL 3 DAY
            GROUP BY day ORDER BY day DESC LIMIT 20 OFFSET 3"""
        ).fetchall()
    assert total.index.max().date() == date(2025, 12, 11), "later days wait for their window"
    assert {day: total[datetime(day.year, day.month, day.day)] for day, _ in expected[1:]} == dict(expected[1:])
    assert set(frame["dimension"]) >= {"region", "channel", "region|channel"}
    assert (made.metric.unit, made.metric.settle_days) == ("orders", 3)


def test_what_is_made_of_such_a_conversion_is_shown_as_well(
    tmp_path: Path, small_shop: Settings, published: Published
) -> None:
    project = copied(small_shop, tmp_path)
    with saved(compose(Catalogue.read(project), soon())):
        pass
    rate = compose(
        Catalogue.read(project),
        ask(
            id="soon_rate",
            form="ratio",
            inputs=("paid_soon", "orders_placed"),
            label="Soon rate",
            name_zh="即时支付占比",
        ),
    )
    values = trial(published, rate.catalogue, "soon_rate", days=20, facts=FactsReader(small_shop.build_path))
    assert values["period_start"].max().date() == date(2025, 12, 11)
    assert values["period_start"].min().date() == date(2025, 11, 24), "the published input reaches a day less far"
    assert values["value"].between(0, 1).all() and len(set(values["member"])) > 5


def test_only_slices_whose_counts_are_all_given_are_counted(small_shop: Settings, library: Catalogue) -> None:
    def shown(*grants: object) -> set[str]:
        rights = Rights.of(Subjects("li"), "read", grants, facts_of(library.metrics), now=NOW)  # type: ignore[arg-type]
        definitions = library.definitions
        reader = FactsReader(small_shop.build_path, lambda measures: counts_sql(definitions, measures, rights))
        made = compose(library, soon())
        return set(reader.values(made.catalogue, "paid_soon", START, UNTIL)["member"].to_pylist())

    placed = make_grant(selectors=(Selector("metric", "orders_placed"),))
    within = make_grant(
        selectors=tuple(Selector("metric", f"orders_paid_within_{one}") for one in ("day", "2d")),
        slices={"region": frozenset({"华北"})},
    )
    assert shown() == shown(placed) == set()
    assert shown(placed, within) == {member for member in shown(placed, within) if member.startswith("华北")} != set()
    assert "all" in shown(make_grant(level=Level.EXACT))


def test_where_there_are_no_facts_it_is_said_why(tmp_path: Path, small_shop: Settings, library: Catalogue) -> None:
    made = compose(library, soon())
    with pytest.raises(PreviewError, match=r"there are none yet; run `metrics nightly`"):
        FactsReader(tmp_path / "build.duckdb").values(made.catalogue, "paid_soon", START, UNTIL)
    with duckdb.connect(str(tmp_path / "empty.duckdb")) as con:
        con.execute("CREATE SCHEMA facts")
    with pytest.raises(PreviewError, match="there are none yet"):
        FactsReader(tmp_path / "empty.duckdb").reach(made.metric)
    copy = copied(small_shop, tmp_path)
    semantic = copy / "models/facts/_semantic.yml"
    semantic.write_text(
        semantic.read_text("utf-8").replace("agg: sum, expr: page_views", "agg: sum, expr: no_such"), "utf-8"
    )
    with pytest.raises(PreviewError, match=r"get with the next night .*no_such"):
        FactsReader(small_shop.build_path).values(Catalogue.read(copy), "page_views", START, START + timedelta(days=2))
