"""Where metrics come from and who uses them; the same texts in dbt's docs and in Dagster."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise

import pytest
from ruamel.yaml import YAML

from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.columns import Columns
from metrics_pipeline.library.lineage import Edge, lineage_of
from metrics_pipeline.library.usage import Use, reuse, usage_of
from metrics_pipeline.orchestration.dbt_assets import PyramidTranslator
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.sources.contract import load_contract

DBT = PROJECT_ROOT / "dbt_project"


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.read(DBT)


@pytest.fixture(scope="module")
def columns() -> Columns:
    return Columns(DBT)


def test_the_lineage_of_a_ratio_goes_from_its_columns_to_what_is_made_of_it(catalogue: Catalogue, columns: Columns):
    found = lineage_of(catalogue, "refund_rate", columns)
    edges = set(found.edges)
    for path in (
        ["raw.refunds.order_id", "stg_raw__refunds", "fct_refunds", "cube_refunds", "refunded_orders", "refund_rate"],
        ["raw.payments.paid_at", "stg_raw__payments", "fct_payments", "cube_payments", "orders_paid", "refund_rate"],
        ["refund_rate", "order_health"],
    ):
        assert {Edge(*pair) for pair in pairwise(path)} <= edges
    assert {node.kind for node in found.nodes} == {
        "source_column", "staging", "fact", "cube", "base", "operational",
    }  # fmt: skip
    known = {node.id for node in found.nodes}
    assert {end for edge in edges for end in edge} <= known
    assert "gmv" not in known


def test_a_column_that_comes_through_a_join_is_followed(columns: Columns):
    tables = {(one.table, one.column): one.through for one in columns.origins("fct_order_items", "cost_amount")}
    assert tables["products", "unit_cost"] == ("stg_raw__products", "dim_products")
    assert tables["order_items", "quantity"] == ("stg_raw__order_items",)
    assert columns.origins("fct_order_items", "no_such_column") == ()


def test_every_metric_comes_from_columns_of_the_raw_contract(catalogue: Catalogue, columns: Columns):
    contract = {(table.name, column.name) for table in load_contract().tables for column in table.columns}
    for metric in catalogue.metrics:
        found = lineage_of(catalogue, metric, columns)
        sources = {tuple(node.id.split(".")[1:]) for node in found.nodes if node.kind == "source_column"}
        assert sources, metric
        assert sources <= contract, metric
        assert {table for table, _ in sources} <= set(catalogue.metrics[metric].tables) | {
            "products", "customers", "campaigns", "payments", "orders",
        }  # fmt: skip


def test_a_graph_is_written_for_graphviz_and_for_markdown(catalogue: Catalogue, columns: Columns):
    found = lineage_of(catalogue, "gmv", columns)
    dot, mermaid = found.as_dot(), found.as_mermaid()
    assert dot.startswith('digraph "gmv" {')
    assert dot.count(" -> ") == mermaid.count(" --> ") == len(found.edges)
    assert "成交总额 gmv" in mermaid


def test_use_counts_rules_and_formulas_and_finds_what_is_stale_or_unused(catalogue: Catalogue):
    now = datetime(2026, 1, 10, 12)
    uses = [
        Use("refund_rate", "rule", "a"), Use("refund_rate", "rule", "b"), Use("refund_rate", "rule", "a"),
        Use("refund_rate", "report", "retrospective 2026-W01"), Use("gone", "rule", "c"), Use("page_views", "question", "q"),
    ]  # fmt: skip
    found = usage_of(catalogue, uses, {"refund_rate": 3}, {"refund_rate": datetime(2026, 1, 8)}, now=now)
    by_metric = {one.metric: one for one in found}
    rate = by_metric["refund_rate"]
    assert rate.by_kind == {
        "rule": ("a", "b"), "report": ("retrospective 2026-W01",), "formula": ("order_health",),
    }  # fmt: skip
    assert (rate.targets, rate.uses) == (3, 4)
    assert not by_metric["page_views"].is_unused, "a kind of use that nobody knows yet counts like others"
    assert rate.stale_hours == pytest.approx(60 - catalogue.metrics["refund_rate"].freshness_hours)
    assert by_metric["order_health"].is_unused
    assert not by_metric["gmv"].is_unused
    assert by_metric["gmv"].stale_hours is None
    total = reuse(found)
    assert total.metrics == len(catalogue.metrics)
    assert total.uses == sum(one.uses for one in found)
    assert total.rate == total.reused / total.metrics


def test_dbt_docs_and_dagster_say_the_same_of_a_metric(catalogue: Catalogue):
    translator = PyramidTranslator(catalogue)
    seen = set()
    for path in DBT.glob("models/*/_models.yml"):
        for model in YAML(typ="safe").load(path.read_text("utf-8"))["models"]:
            props = {
                "name": model["name"], "resource_type": "model", "description": model["description"],
                "config": {"meta": model["config"]["meta"]}, "meta": model["config"]["meta"],
                "fqn": ["metrics_pyramid", path.parent.name, model["name"]], "schema": path.parent.name,
                "original_file_path": f"models/{path.parent.name}/{model['name']}.sql",
            }  # fmt: skip
            # Dagster shows the first line of it in lists, where Markdown is not read.
            assert translator.get_description(props) == model["description"].replace("**", "")
            metric = catalogue.metrics[model["config"]["meta"]["metric"]]
            for text in (metric.definition_zh, metric.definition_en, metric.name_zh, metric.name_en, metric.formula):
                assert text in model["description"]
            seen.add(metric.id)
    assert seen == set(catalogue.metrics)
