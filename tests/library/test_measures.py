"""A metric counts something else from a day on: a measure beside the former one, and days before that keep what they were."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from projects import small_project

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.changing import Change, ChangeError, change
from metrics_pipeline.library.compile import write_files
from metrics_pipeline.library.facts import FactsReader
from metrics_pipeline.library.proposals import Actor, ProposalError, apply, approve, propose, reviewed
from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.store.audit import Caller
from metrics_pipeline.store.database import Store, open_url
from metrics_pipeline.store.metric_versions import proposal, versions_of
from metrics_pipeline.warehouse.transform import run_dbt
from metrics_pipeline.warehouse.window import Window

DBT = PROJECT_ROOT / "dbt_project"
DAY = date(2025, 12, 9)
LARGE = "is_first_refund and amount > 50"


def changed(metric: str, expression: str, project: Path = DBT) -> Change:
    return change(project, metric, {"expr": expression}, DAY)


def test_the_new_measure_stands_beside_the_former_one_and_all_else_is_as_it_was() -> None:
    found = changed("stock_on_order", "coalesce(on_order, 0)")
    (path,) = found.others
    before, after = (text.splitlines() for text in (path.read_text("utf-8"), found.others[path]))
    assert [line.strip() for line in after if line not in before] == [
        '- {name: stock_on_order_2, agg: sum, expr: "coalesce(on_order, 0)", '
        "non_additive_dimension: {name: snapshot_local_at, window_choice: max}}",
        "stock_on_order_2: [inventory_snapshots.on_order]",
    ]
    assert [line for line in before if line not in after] == []
    metric, former = found.after.metrics["stock_on_order"], found.before.metrics["stock_on_order"]
    assert metric.version_on(date(2025, 12, 8)) == former.version != metric.version
    assert metric.requires == former.requires
    assert changed("active_skus", "case when on_hand > 0 then sku end").after.metrics["active_skus"].sums_over == (
        "category",
    )


def test_a_moving_sum_goes_on_over_the_metric(tmp_path: Path) -> None:
    found = changed("units_sold", "case when quantity > 1 then quantity else 0 end")
    assert sorted(path.name for path in found.others) == ["_semantic.yml", "units_sold_28d.yml"]
    spans = found.after.metrics["units_sold_28d"].spans
    assert spans[0].version == found.before.metrics["units_sold_28d"].version
    assert [span.until for span in spans] == [DAY, date(2026, 1, 5), None], "28 days see both"


@pytest.mark.parametrize(
    ("metric", "expression", "message"),
    [
        ("refund_amount", "amout", "fct_refunds has no column 'amout'; it has refund_id, .*amount"),
        ("refund_amount", "(select max(amount) from raw.refunds)", "is not allowed"),
        ("refund_amount", "getenv('HOME')", "is not allowed"),
        ("refund_amount", "sum(amount)", "is not allowed"),
        ("refund_amount", "amount; drop table x", "is not allowed"),
        ("refund_amount", "amount +", "cannot be read"),
        ("refund_amount", "fct_orders.items_amount", "no column"),
        ("refund_amount", "amount", "nothing would change"),
        ("refund_rate", "amount", "counts no column itself; set formula"),
        ("orders_placed", "case when region <> 'x' then order_id end", "orders_paid_within_day is a conversion that begins with"),
    ],
)  # fmt: skip
def test_what_is_no_expression_over_the_fact_is_refused(metric: str, expression: str, message: str) -> None:
    with pytest.raises(ChangeError, match=message):
        changed(metric, expression)


def who(name: str) -> Actor:
    return Actor(Caller(name, "cli"), datetime(2025, 12, 9, 1, tzinfo=UTC))


def applied(store: Store, project: Path, metric: str, expression: str) -> int:
    number, _ = propose(
        store, who("li"), project, metric, {"expr": expression}, effective=DAY, why="small ones are goodwill", shown_until=DAY
    )  # fmt: skip
    approve(store, who("wang"), number, owner="after-sales", owners=["wang"])
    apply(store, who("li"), project, number, effective=None, shown_until=DAY)
    return number


def test_it_is_a_proposal_like_any_other_and_a_version_afterwards(tmp_path: Path) -> None:
    project = small_project(tmp_path)
    write_files(Catalogue.read(project))
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    number = applied(store, project, "refunded_orders", LARGE)
    with store.reading() as connection:
        first, second = versions_of(connection, "refunded_orders")
        assert versions_of(connection, "refund_rate")[-1].effective_from == DAY
    store.close()
    assert (second.who, second.why, second.proposal, second.approved_by) == (
        "li", "small ones are goodwill", number, "wang",
    )  # fmt: skip
    assert "amount > 50" in second.diff["formula"][1] and "amount" not in second.diff["formula"][0]
    assert Catalogue.read(project).metrics["refunded_orders"].version_on(date(2025, 12, 8)) == first.version


def test_a_measure_that_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    project = small_project(tmp_path)
    write_files(Catalogue.read(project))
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    number, _ = propose(
        store, who("li"), project, "refunded_orders", {"expr": LARGE}, effective=DAY, why="x", shown_until=DAY
    )
    semantic = project / "models/facts/_semantic.yml"
    semantic.write_text(semantic.read_text("utf-8") + "# somebody wrote this\n", "utf-8")
    with store.reading() as connection:
        row = proposal(connection, number)
    assert row is not None
    with pytest.raises(ProposalError, match=r"refunded_orders.yml or _semantic.yml has changed since"):
        reviewed(project, row)
    store.close()


@pytest.mark.slow
@pytest.mark.xdist_group("small_shop")
def test_the_night_builds_days_before_as_they_were_and_days_after_anew(small_shop: Settings, tmp_path: Path) -> None:
    """With the cubes of former nights, which have no column for the new measure."""
    (tmp_path / "warehouse").mkdir()
    shutil.copy(small_shop.build_path, tmp_path / "warehouse" / small_shop.build_path.name)
    shutil.copytree(DBT, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    settings = small_shop.model_copy(update={"home": tmp_path, "dbt_project_dir": tmp_path / "dbt"})
    store = open_url(f"sqlite:///{tmp_path / 'store.db'}")
    before, more = values(settings, "units_sold"), "quantity * 2"
    applied(store, settings.dbt_project_dir, "units_sold", more)
    store.close()
    catalogue = Catalogue.read(settings.dbt_project_dir)
    counted = FactsReader(settings.build_path).values(catalogue, "units_sold", date(2025, 12, 7), date(2025, 12, 15))
    run_dbt(settings, Window(date(2025, 12, 7), date(2025, 12, 15)), "cube_order_items units_sold units_sold_28d")
    after = values(settings, "units_sold")
    metric = catalogue.metrics["units_sold"]
    assert len(after) == len(before) == 120
    for day, (value, version) in after.items():
        assert (value, version) == (before[day][0] * (2 if day >= DAY else 1), metric.version_on(day)), day
    shown = {row["period_start"].date(): row["value"] for row in counted.to_pylist() if row["dimension"] == "all"}
    assert shown == {day: before[day][0] * 2 for day in shown} and len(shown) == 8, "the preview is of the new one"
    sums = values(settings, "units_sold_28d")
    last = date(2025, 12, 14)
    assert sums[last][0] == sum(after[date.fromordinal(last.toordinal() - back)][0] for back in range(28))


def values(settings: Settings, metric: str) -> dict[date, tuple[float, str]]:
    with duckdb.connect(str(settings.build_path), read_only=True) as con:
        rows = con.execute(
            f"SELECT CAST(period_start AS DATE), value, definition_version FROM base.{metric} WHERE dimension = 'all'"
        ).fetchall()
    return {day: (value, version) for day, value, version in rows}
