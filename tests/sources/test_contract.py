from __future__ import annotations

from pathlib import Path

import pytest

from metrics_pipeline.sources.contract import (
    DBT_SOURCES_PATH,
    MARKDOWN_PATH,
    ContractError,
    contract_markdown,
    dbt_sources_yaml,
    load_contract,
    read_contract,
)

STALE = "stale: run `python -m metrics_pipeline.sources.contract` and commit the result"


def test_the_contract_has_the_tables_of_the_product() -> None:
    contract = load_contract()
    assert contract.table_names[:4] == ("customers", "products", "campaigns", "sessions")
    orders = contract.table("orders")
    assert orders.key == ("order_id",)
    assert orders.clock_column is not None
    assert orders.clock_column.duckdb_type == "TIMESTAMP"
    assert contract.table("customers").pii_columns == ("email", "phone")


def test_the_ddl_has_every_column_and_the_load_columns() -> None:
    ddl = load_contract().table("order_items").create_statement()
    assert ddl.startswith("CREATE TABLE IF NOT EXISTS raw.order_items (")
    assert "unit_price DECIMAL(18,4)" in ddl
    assert "_loaded_at TIMESTAMP" in ddl


def test_an_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match="no raw table 'order'; the contract has customers"):
        load_contract().table("order")


def test_the_committed_markdown_is_current() -> None:
    assert MARKDOWN_PATH.read_text("utf-8") == contract_markdown(), STALE


def test_the_committed_dbt_sources_are_current() -> None:
    assert DBT_SOURCES_PATH.read_text("utf-8") == dbt_sources_yaml(), STALE


def test_the_dbt_sources_describe_every_column_and_the_coverage() -> None:
    from ruamel.yaml import YAML

    (source,) = YAML(typ="safe").load(dbt_sources_yaml())["sources"]
    assert (source["name"], source["schema"]) == ("raw", "raw")
    tables = {table["name"]: table for table in source["tables"]}
    assert set(tables) == {*load_contract().table_names, "_coverage"}
    assert all(column["description"] for table in tables.values() for column in table["columns"])
    email = next(column for column in tables["customers"]["columns"] if column["name"] == "email")
    assert email["config"]["meta"]["pii"] is True


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tables: [", "not a usable contract"),
        (
            "tables: {a: {kind: event, key: [x], clock: c, description: {en: a, zh: a}, columns: {x: {type: text}}}}",
            "x",
        ),
        (
            "tables: {a: {kind: event, key: [x], clock: x, description: {en: a, zh: a}, "
            "columns: {x: {type: text, required: true, description: {en: a, zh: a}}}}}",
            "clock 'x' must be a required timestamp or date column",
        ),
    ],
)
def test_a_broken_contract_names_file_and_entry(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "contract.yml"
    path.write_text(text)
    with pytest.raises(ContractError, match=part) as caught:
        read_contract(path)
    assert str(path) in str(caught.value)
