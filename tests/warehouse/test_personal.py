"""Personal data: kept as keyed hashes that can be joined on, or not at all; in clear nowhere but at the source."""

from __future__ import annotations

import hashlib
import hmac
import re

import duckdb
import pytest

from metrics_pipeline.settings import PROJECT_ROOT, Settings, SettingsError
from metrics_pipeline.sources.contract import load_contract
from metrics_pipeline.warehouse.load import load
from metrics_pipeline.warehouse.personal import KEY_VARIABLE, PersonalData, personal_data_of
from metrics_pipeline.warehouse.quoting import literal
from tests.warehouse.raw_source import NOW, WINDOW, LiteralSource

KEY = b"k" * 32


def hashed(text: str) -> str:
    return hmac.new(KEY, text.encode(), hashlib.sha256).hexdigest()


def customers(con: duckdb.DuckDBPyConnection, rows: list[tuple[str, ...]], personal: PersonalData) -> list[tuple]:
    values = ", ".join("(" + ", ".join(literal(one) for one in row) + ")" for row in rows)
    query = f"SELECT * FROM (VALUES {values}) AS given(customer_id, registered_at, email, phone)"
    load(
        con,
        LiteralSource({"customers": query}),
        ["customers"],
        WINDOW,
        now=NOW,
        timezone="Asia/Shanghai",
        personal=personal,
    )
    return con.execute("SELECT customer_id, email, phone FROM raw.customers ORDER BY 1").fetchall()


ROWS = [("C1", "2025-11-02 08:00:00", " Li@Shop.CN ", "138 0000"), ("C2", "2025-11-02 08:00:00", "li@shop.cn", "")]


def test_a_hash_is_that_of_rfc_2104_and_equal_addresses_stay_equal():
    with duckdb.connect() as con:
        [first, second] = customers(con, ROWS, PersonalData("hash", KEY))
    assert first == ("C1", hashed("li@shop.cn"), hashed("138 0000"))
    assert second == ("C2", hashed("li@shop.cn"), None)


def test_dropped_is_not_there():
    with duckdb.connect() as con:
        assert customers(con, ROWS, PersonalData("drop")) == [("C1", None, None), ("C2", None, None)]


def test_what_was_written_in_clear_before_is_treated_by_the_next_load_and_no_row_counts_as_changed():
    with duckdb.connect() as con:
        customers(con, ROWS, PersonalData("hash", KEY))
        con.execute("UPDATE raw.customers SET email = 'li@shop.cn', _fingerprint = NULL WHERE customer_id = 'C2'")
        assert customers(con, ROWS, PersonalData("hash", KEY))[1][1] == hashed("li@shop.cn")
        accepted = con.execute("SELECT rows_accepted FROM raw._loads ORDER BY loaded_at").fetchall()
    assert sorted(accepted) == [(0,), (2,)]


def test_clear_text_is_in_no_table_of_the_build_file_not_even_of_rejected_rows(tmp_path):
    bad = [*ROWS, ("C3", "not a time", "wang@shop.cn", "139"), ("C1", "2025-11-03 08:00:00", "other@shop.cn", "1")]
    with duckdb.connect(str(tmp_path / "build.duckdb")) as con:
        customers(con, bad, PersonalData("hash", KEY))
        tables = con.execute("SELECT table_schema, table_name FROM information_schema.tables").fetchall()
        text = " ".join(str(con.execute(f'SELECT * FROM "{schema}"."{name}"').fetchall()) for schema, name in tables)
    assert "C3" in text
    assert not re.search(r"shop\.cn|138 0000|'139'", text, re.IGNORECASE)
    content = (tmp_path / "build.duckdb").read_bytes().lower()
    assert b"shop.cn" not in content


def test_no_column_of_personal_data_is_read_by_any_model():
    columns = {name for table in load_contract().tables for name in table.pii_columns}
    models = list((PROJECT_ROOT / "dbt_project").glob("*/**/*.sql"))
    assert columns and models
    for path in models:
        if "target" not in path.parts:
            assert not columns.intersection(re.findall(r"\w+", path.read_text("utf-8"))), path


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    settings = Settings(home=tmp_path)
    first = personal_data_of(settings)
    assert first == personal_data_of(settings) and first.treatment == "hash"
    assert (tmp_path / "personal.key").stat().st_mode & 0o777 == 0o600
    assert first.key.decode() not in repr(first)
    assert [path.name for path in tmp_path.iterdir()] == ["personal.key"]
    monkeypatch.setenv(KEY_VARIABLE, "from-the-environment-1")
    assert personal_data_of(settings).key == b"from-the-environment-1"
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(SettingsError, match="fewer than 16") as failure:
        personal_data_of(settings)
    assert "short;" not in str(failure.value)
    assert personal_data_of(Settings(home=tmp_path, personal_data="drop")).treatment == "drop"
