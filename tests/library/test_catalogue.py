"""The catalogue: what the definitions mean together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import generated_files, stale_files, write_files
from metrics_pipeline.library.definitions import DefinitionError
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.sources.source import Absence, SourceInfo

DBT = PROJECT_ROOT / "dbt_project"

STARTERS = """
page_views unique_visitors sessions bounced_sessions orders_placed orders_paid units_sold paid_amount refunded_orders
refund_amount cost_of_goods active_skus stock_on_hand out_of_stock_skus buyers new_buyers returning_buyers complaints
shipments_due shipments_late ad_spend ad_revenue product_views
bounce_rate order_conversion_rate payment_conversion_rate refund_rate average_order_value hot_product_conversion_rate
inventory_turnover_days stock_cover_days out_of_stock_rate new_customer_share repurchase_rate complaint_rate
late_delivery_rate campaign_roi order_health gmv profit_margin arpu
""".split()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.read(DBT)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the dbt project that a test may change."""
    shutil.copytree(DBT / "models", tmp_path / "dbt" / "models")
    return tmp_path / "dbt"


def edit(project: Path, metric: str, old: str, new: str) -> None:
    (path,) = project.glob(f"models/*/{metric}.yml")
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def test_every_starter_metric_is_defined(catalogue: Catalogue) -> None:
    assert not [name for name in STARTERS if name not in catalogue.metrics]


def test_inputs_come_before_what_uses_them(catalogue: Catalogue) -> None:
    order = list(catalogue.metrics)
    for metric in catalogue.metrics.values():
        for name in metric.inputs:
            assert order.index(name) < order.index(metric.id)


def test_names_and_definitions_are_unique(catalogue: Catalogue) -> None:
    for attribute in ("name_en", "name_zh", "definition_en", "definition_zh", "formula"):
        texts = [getattr(metric, attribute) for metric in catalogue.metrics.values()]
        assert len(set(texts)) == len(texts), attribute


def test_a_ratio_has_only_the_slices_of_both_sides(catalogue: Catalogue) -> None:
    margin = catalogue.metrics["profit_margin"]
    assert margin.slices == ("all", "region", "channel", "segment")
    assert catalogue.metrics["stock_cover_days"].slices == ("all", "category", "sku")


def test_additivity(catalogue: Catalogue) -> None:
    additive = {name: metric.is_additive for name, metric in catalogue.metrics.items()}
    assert additive["paid_amount"]
    assert additive["gmv"]
    assert additive["gross_profit"]
    assert not additive["unique_visitors"]
    assert not additive["refund_rate"]
    assert not additive["order_health"]


def test_dimensions_come_from_columns_of_the_contract(catalogue: Catalogue) -> None:
    tables = {table.name: table for table in load_contract().tables}
    for metric in catalogue.metrics.values():
        for column in [c for columns in metric.dimension_columns.values() for c in columns] + list(metric.requires):
            table, _, name = column.partition(".")
            assert table in tables, column
            assert not name or name in {c.name for c in tables[table].columns}, column


def test_a_source_without_sessions_has_no_conversion_and_says_why(catalogue: Catalogue) -> None:
    info = SourceInfo(
        "shop",
        "Asia/Shanghai",
        "CNY",
        {
            "sessions": Absence("the export has no visits", "导出中没有会话"),
            "orders.channel": Absence("one channel only", "只有一个渠道"),
        },
    )
    narrowed = catalogue.for_source(info).metrics
    absent = narrowed["order_conversion_rate"].absent
    assert absent is not None
    assert absent.reason_en == "source shop has no sessions: the export has no visits"
    assert narrowed["arpu"].absent is not None
    assert narrowed["gmv"].absent is None
    assert "channel" not in narrowed["gmv"].slices
    assert "region|channel" not in narrowed["gmv"].slices
    assert "region" in narrowed["gmv"].slices


def test_a_changed_input_changes_the_version_of_all_that_use_it(catalogue: Catalogue, project: Path) -> None:
    semantic = project / "models/facts/_semantic.yml"
    semantic.write_text(semantic.read_text("utf-8").replace("agg: sum, expr: amount}", "agg: sum, expr: amount * 2}"))
    changed = Catalogue.read(project).metrics
    moved = {name for name in changed if changed[name].version != catalogue.metrics[name].version}
    assert moved == {
        *("paid_amount", "refund_amount", "average_order_value", "gross_profit", "profit_margin", "arpu"),
    }


def test_spacing_and_comments_in_a_fact_do_not_change_a_version(catalogue: Catalogue, project: Path) -> None:
    fact = project / "models/facts/fct_orders.sql"
    fact.write_text("-- a note\n" + fact.read_text("utf-8").replace("    ", "  "))
    assert Catalogue.read(project).metrics["gmv"].version == catalogue.metrics["gmv"].version


def test_a_missing_field_is_named_with_file_and_line(project: Path) -> None:
    edit(project, "gmv", "        owner: sales\n", "")
    with pytest.raises(DefinitionError) as caught:
        Catalogue.read(project)
    (problem,) = caught.value.problems
    assert problem.file.name == "gmv.yml"
    assert problem.line == 2
    assert "meta.owner" in problem.message


def test_all_problems_are_returned_at_once(project: Path) -> None:
    edit(project, "gmv", "- name: new_buyer_amount", "- name: newbuyer_amount")
    edit(project, "refund_rate", "denominator: orders_paid", "denominator: order_health")
    with pytest.raises(DefinitionError) as caught:
        Catalogue.read(project)
    text = str(caught.value)
    assert "unknown metric 'newbuyer_amount'" in text
    assert "is defined by itself" in text


def test_a_metric_may_not_use_a_higher_layer(project: Path) -> None:
    edit(project, "order_conversion_rate", "denominator: sessions", "denominator: gmv")
    with pytest.raises(DefinitionError, match="higher layer strategic"):
        Catalogue.read(project)


def test_broken_yaml_is_a_problem_with_its_line(project: Path) -> None:
    (project / "models/base/sessions.yml").write_text("metrics:\n  - name: [sessions\n")
    with pytest.raises(DefinitionError, match=r"sessions.yml:\d+: not valid YAML"):
        Catalogue.read(project)


def test_the_committed_models_follow_from_the_definitions(catalogue: Catalogue) -> None:
    assert stale_files(catalogue) == []


def test_compile_writes_what_changed_and_removes_what_is_gone(project: Path) -> None:
    assert stale_files(Catalogue.read(project)) == []
    (project / "models/strategic/arpu.yml").unlink()
    changed = {path.name for path in write_files(Catalogue.read(project))}
    assert changed == {"arpu.sql", "_models.yml"}
    assert not (project / "models/strategic/arpu.sql").exists()


def test_a_new_composite_is_one_yaml_file(project: Path) -> None:
    text = (project / "models/operational/order_health.yml").read_text("utf-8")
    path = project / "models/operational/service_score.yml"
    path.write_text(
        text.replace("name: order_health", "name: service_score")
        .replace("refund_rate", "complaint_rate")
        .replace("Order health", "Service score")
    )
    catalogue = Catalogue.read(project)
    assert catalogue.metrics["service_score"].inputs == ("payment_conversion_rate", "complaint_rate")
    sql = generated_files(catalogue)[project / "models/operational/service_score.sql"]
    assert "ref('complaint_rate')" in sql
    assert catalogue.downstream["complaint_rate"] == ("service_score",)


def test_what_may_be_summed_is_derived_from_the_measures(catalogue: Catalogue) -> None:
    metrics = catalogue.metrics
    days = {name for name, metric in metrics.items() if metric.sums_over_days}
    assert {"paid_amount", "gmv", "orders_paid", "gross_profit", "orders_paid_within_day"} <= days
    assert not days & {"stock_on_hand", "buyers", "units_sold_28d", "refund_rate", "order_health", "gmv_growth_7d"}
    assert metrics["stock_on_hand"].sums_over == ("category", "warehouse", "sku")
    assert metrics["active_skus"].sums_over == ("category",)
    assert metrics["buyers"].sums_over == ()
    assert "region" in metrics["units_sold_28d"].sums_over
    assert not metrics["arpu"].sums_over


def test_a_constant_in_a_sum_is_not_additive(project: Path) -> None:
    edit(project, "gross_profit", "- cost_of_goods\n", "- cost_of_goods - 5\n")
    assert not Catalogue.read(project).metrics["gross_profit"].sums_over
    edit(project, "gross_profit", "- cost_of_goods - 5", "- 0.5 * cost_of_goods")
    assert Catalogue.read(project).metrics["gross_profit"].sums_over == ("region", "channel", "segment")


def test_clock_and_denominator_follow_from_the_formula(catalogue: Catalogue) -> None:
    rate = catalogue.metrics["refund_rate"]
    assert rate.denominator == "orders_paid"
    assert [(clock.en, clock.zh) for clock in rate.clocks] == [
        ("refund time", "退款时间"),
        ("payment time", "支付时间"),
    ]
    assert catalogue.metrics["stock_cover_days"].denominator == "units_sold_28d / 28.0"
    assert catalogue.metrics["gmv_growth_7d"].denominator == "gmv[7 days before]"
    assert not catalogue.metrics["gmv"].denominator


def test_a_conversion_waits_for_its_window_and_so_does_what_is_made_of_it(catalogue: Catalogue) -> None:
    assert catalogue.metrics["orders_paid_within_day"].settle_days == 1
    assert catalogue.metrics["payment_within_day_rate"].settle_days == 1
    assert catalogue.metrics["payment_conversion_rate"].settle_days == 0


def test_another_offset_is_another_version(catalogue: Catalogue, project: Path) -> None:
    edit(project, "gmv_growth_7d", "offset_window: 7 days", "offset_window: 14 days")
    assert Catalogue.read(project).metrics["gmv_growth_7d"].version != catalogue.metrics["gmv_growth_7d"].version


@pytest.mark.parametrize(
    ("metric", "old", "new", "message"),
    [
        ("order_health", "refund_rate)", "refund_rate) -- all", "begins a comment in SQL"),
        ("order_health", "0.6 *", "(select 1) *", "expected an operator"),
        ("order_health", "0.4 * (1 - refund_rate)", "0.4", "lists 'refund_rate', which `expr` does not use"),
        (
            "order_health",
            "(1 - refund_rate)",
            "(1 - complaint_rate)",
            "'complaint_rate', which `metrics` does not list",
        ),
        ("units_sold_28d", "measure: units_sold", "measure: buyers", "a distinct count, its days cannot be summed"),
        ("units_sold_28d", "measure: units_sold", "measure: stock_on_hand", "a level at the end of a day"),
        ("gmv_growth_7d", "7 days", "a week", "must be a number of days"),
        ("gmv_growth_7d", ", alias: gmv_7d_before", "", "two inputs are called 'gmv'"),
        ("orders_paid_within_day", "entity: order", "entity: session", "has no entity 'session'"),
        ("orders_paid_within_day", "window: 1 day", "window: 9 days", "less than or equal to 3"),
        ("orders_paid_within_day", "calculation: conversions", "calculation: conversion_rate", "must be conversions"),
        (
            "orders_paid_within_day",
            "conversion_measure: orders_with_payment",
            "conversion_measure: paid_amount",
            "a sum",
        ),
        ("refund_rate", "      denominator: orders_paid\n", "", "a ratio metric needs `denominator`"),
        (
            "refund_rate",
            "    type: ratio\n",
            "    type: ratio\n    filter: region = '华北'\n",
            "key 'filter' is not read",
        ),
        ("gmv", "type_params:\n", "type_params:\n      fill_nulls_with: 0\n", "key 'fill_nulls_with' is not read"),
    ],
)
def test_a_definition_that_cannot_be_computed_is_refused(
    project: Path, metric: str, old: str, new: str, message: str
) -> None:
    edit(project, metric, old, new)
    with pytest.raises(DefinitionError, match=message) as caught:
        Catalogue.read(project)
    assert caught.value.problems[0].file.stem == metric


def test_a_measure_that_only_conversions_use_is_in_no_cube(catalogue: Catalogue) -> None:
    files = {path.stem: text for path, text in generated_files(catalogue).items() if path.suffix == ".sql"}
    assert "orders_with_payment" not in files["cube_payments_distinct"]
    assert 'measure="order_id"' in files["cube_orders_paid_within_day"]
