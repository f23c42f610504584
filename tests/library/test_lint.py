"""What lint finds in definitions, and that it finds nothing wrong in ours."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.lint import Finding, lint, slices_lost, units_of
from metrics_pipeline.settings import PROJECT_ROOT

DBT = PROJECT_ROOT / "dbt_project"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the definitions that a test may change."""
    shutil.copytree(DBT / "models", tmp_path / "dbt" / "models", ignore=shutil.ignore_patterns("stg_*"))
    return tmp_path / "dbt"


def edit(project: Path, metric: str, old: str, new: str) -> None:
    (path,) = project.glob(f"models/*/{metric}.yml")
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def copy_of(project: Path, metric: str, name: str, *changes: tuple[str, str]) -> None:
    """Another metric, with names and texts of its own and whatever else is changed."""
    (path,) = project.glob(f"models/*/{metric}.yml")
    text = path.read_text("utf-8").replace(f"name: {metric}\n", f"name: {name}\n", 1)
    text = re.sub(r'label: ".*"', f'label: "{name}"', text)
    text = re.sub(r'description: "(.*)"', rf'description: "{name}: \1"', text)
    text = re.sub(r"name_zh: (.*)", r"name_zh: 另一个\1", text)
    text = re.sub(r'definition_zh: "(.*)"', r'definition_zh: "另一个:\1"', text)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.with_name(f"{name}.yml").write_text(text, "utf-8")


def errors(found: list[Finding]) -> list[str]:
    return [f"{one.problem.file.stem}: {one.problem.message}" for one in found if one.severity == "error"]


def warnings(found: list[Finding]) -> list[str]:
    return [one.problem.message for one in found if one.severity == "warning"]


def test_our_own_definitions_have_no_errors() -> None:
    assert errors(lint(DBT)) == []


def test_a_metric_is_unused_until_a_metric_or_a_rule_uses_it(project: Path) -> None:
    assert "page_views: nobody uses it: no metric is made of it and no rule watches it" in warnings(lint(project))
    assert not [text for text in warnings(lint(project, {"page_views"})) if text.startswith("page_views: nobody")]
    assert not [text for text in warnings(lint(project)) if text.startswith(("gmv: nobody", "orders_paid: nobody"))]


@pytest.mark.parametrize(
    "formula",
    [
        "0.40 * (1 - refund_rate) + payment_conversion_rate * .6",
        "0.6*payment_conversion_rate-0.4*refund_rate+0.4",
        "(6 * payment_conversion_rate + 4 * (1 - refund_rate)) / 10",
    ],
)
def test_the_same_formula_under_two_names_is_found_however_it_is_written(project: Path, formula: str) -> None:
    old = "0.6 * payment_conversion_rate + 0.4 * (1 - refund_rate)"
    copy_of(project, "order_health", "service_score", (old, formula))
    (found,) = errors(lint(project))
    assert "means the same as that of order_health (order_health.yml:2)" in found


def test_the_same_formula_is_found_through_other_metrics(project: Path) -> None:
    copy_of(
        project,
        "gross_profit",
        "kept_amount",
        ("paid_amount - refund_amount - cost_of_goods", "gross_profit * 2 - gross_profit"),
        (
            "        - name: paid_amount\n        - name: refund_amount\n        - name: cost_of_goods\n",
            "        - name: gross_profit\n",
        ),
    )
    (found,) = errors(lint(project))
    assert found.startswith("kept_amount: kept_amount: its formula")
    assert "gross_profit" in found


def test_one_measure_under_two_names_is_found(project: Path) -> None:
    copy_of(project, "units_sold", "pieces_sold")
    assert any("pieces_sold" in text and "means the same as that of" in text for text in errors(lint(project)))


def test_one_name_with_two_meanings_is_found_in_both_languages(project: Path) -> None:
    edit(project, "complaint_rate", "label: ", "label: Refund-rate #")
    edit(project, "new_buyers", "name_zh: 新客数", "name_zh: 购买人数")
    found = errors(lint(project))
    assert any("is called 'refund rate', and so is" in text for text in found)
    assert any("is called '购买人数', and so is" in text for text in found)


def test_two_metrics_with_one_definition_are_found(project: Path) -> None:
    text = "Share of the buyers of the day who had bought on an earlier day."
    edit(project, "new_customer_share", 'description: "', f'description: "{text}" # "')
    assert any("has the definition of" in one for one in errors(lint(project)))


@pytest.mark.parametrize(
    ("metric", "old", "new", "message"),
    [
        ("order_health", "0.4 * (1 - refund_rate)", "0.4 * (refund_rate - 1) * 0", ""),
        ("order_health", "unit: score", "unit: currency", "`unit` is 'currency', but"),
        ("average_order_value", "unit: currency", "unit: ratio", "is in currency per orders"),
        ("gmv", "unit: currency", "unit: orders", "`unit` is 'orders', but"),
        ("gross_profit", "- cost_of_goods\n", "- cost_of_goods / 2 + 1\n", "adds (paid_amount"),
        ("gross_profit", "expr: paid_amount -", "expr: paid_amount * paid_amount -", "subtracts"),
        ("refund_rate", "name_zh: 退款率", "name_zh: refunds", "`name_zh` 'refunds' is not Chinese"),
        ("refund_rate", "label: \"Refund rate\"", "label: 退款", "`label` '退款' is not English"),
        ("refund_rate", "freshness_hours: 30", "freshness_hours: 12", "cannot be kept: a new value comes every night"),
        ("payment_within_day_rate", "freshness_hours: 54", "freshness_hours: 30", "waits 1 days for its window"),
        ("refund_rate", "refresh: [nightly]", "refresh: [nightly, hourly]", "refunded_orders has no hourly values"),
        ("arpu", "        unit:", "        slices: [all, payment_method]\n        unit:", "'payment_method', which unique_visitors"),
    ],
)  # fmt: skip
def test_an_error_names_the_metric_and_what_is_wrong(
    project: Path, metric: str, old: str, new: str, message: str
) -> None:
    edit(project, metric, old, new)
    found = errors(lint(project))
    if not message:
        assert found == []
        return
    assert any(text.startswith(f"{metric}: ") and message in text for text in found), found


def test_things_of_two_sorts_added_and_unguarded_divisions_are_worth_a_look(project: Path) -> None:
    edit(project, "campaign_roi", "/ nullif(ad_spend, 0)", "/ ad_spend")
    copy_of(
        project,
        "gross_profit",
        "events",
        ("paid_amount - refund_amount - cost_of_goods", "complaints + refunded_orders"),
        (
            "        - name: paid_amount\n        - name: refund_amount\n        - name: cost_of_goods\n",
            "        - name: complaints\n        - name: refunded_orders\n",
        ),
        ("unit: currency", "unit: complaints"),
    )
    found = lint(project)
    assert errors(found) == []
    assert any("campaign_roi: `expr` divides by what may be 0" in text for text in warnings(found))
    assert any("events: adds complaints and orders" in text for text in warnings(found))


def test_definitions_that_cannot_be_read_are_findings_too(project: Path) -> None:
    edit(project, "gmv", "        owner: sales\n", "")
    edit(project, "refund_rate", "denominator: orders_paid", "denominator: order_health")
    found = lint(project)
    assert [one.problem.file.name for one in found] == ["gmv.yml"]
    edit(project, "gmv", "        unit: currency\n", "        unit: currency\n        owner: sales\n")
    assert any("is defined by itself" in text for text in errors(lint(project)))


def test_units_follow_from_the_formula_through_the_pyramid() -> None:
    units = units_of(Catalogue.read(DBT))
    assert str(units["average_order_value"]) == "currency per orders"
    assert str(units["profit_margin"]) == "a pure number"
    assert str(units["units_sold_28d"]) == "pieces"


def test_slices_that_get_lost_are_told_with_the_input_that_lacks_them() -> None:
    catalogue = Catalogue.read(DBT)
    lost = slices_lost(catalogue, catalogue.metrics["arpu"])
    assert lost["payment_method"] == ("unique_visitors",)
    assert "region" not in lost
