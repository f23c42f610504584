"""`metrics library` as a person uses it."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.recording import record
from metrics_pipeline.library.versions import read_targets, states
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.store import open_store
from tests.store.databases import new_home


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["library", *arguments])


def test_the_metrics_are_listed_by_layer_and_owner() -> None:
    found = json.loads(run("list", "--layer", "strategic", "--json").stdout)
    assert {"gmv", "arpu", "profit_margin"} <= {row["metric"] for row in found}
    assert {row["role"] for row in found} == {"KGI"}
    assert json.loads(run("list", "--owner", "finance", "--layer", "strategic", "--json").stdout)
    unknown = run("list", "--owner", "financ")
    assert unknown.exit_code == 2
    assert "after-sales" in unknown.stderr


def test_a_hundred_columns_hold_a_metric_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics_pipeline.cli.output._has_terminal", lambda: True)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((100, 40)))
    lines = run("list").stdout.splitlines()
    rows = json.loads(run("list", "--json").stdout)
    assert [line.split()[0] for line in lines[2:]] == [row["metric"] for row in rows]
    assert max(cell_len(line) for line in lines) <= 100
    assert sum("…" in line for line in lines) > len(rows) / 2
    assert any("GMV" in line for line in lines)


def test_a_metric_is_shown_with_its_whole_formula_and_who_uses_it() -> None:
    card = json.loads(run("show", "refund_rate", "--json").stdout)
    assert card["formula"] == "refunded_orders / orders_paid"
    assert card["inputs"]["orders_paid"].endswith("of fct_payments by paid_local_at")
    assert "order_health" in card["downstream"]
    assert "refund_rate_surge" in card["rules"]
    shown = run("show", "refund_rate").stdout
    assert "退款率 Refund rate" in shown
    assert "after-sales" in shown


def test_what_a_composite_is_made_of_reaches_down_to_the_facts() -> None:
    card = json.loads(run("show", "order_health", "--json").stdout)
    assert card["upstream"][:2] == ["payment_conversion_rate", "refund_rate"]
    assert {"orders_paid", "orders_placed", "refunded_orders"} <= set(card["upstream"])


def test_lint_ends_with_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("lint")
    assert result.exit_code == 0
    assert "0 errors" in result.stdout
    project = tmp_path / "dbt"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    path = project / "models" / "strategic" / "gmv.yml"
    path.write_text(path.read_text("utf-8").replace("unit: currency", "unit: orders"), "utf-8")
    monkeypatch.setenv("METRICS_DBT_PROJECT", str(project))
    found = run("lint", "--json")
    assert found.exit_code == 1
    worst = json.loads(found.stdout)[0]
    assert (worst["severity"], worst["file"], worst["line"]) == ("error", str(path), 2)
    assert "Declare currency" in worst["mend"]


def test_a_changed_fact_is_told_before_the_night_with_all_that_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "dbt"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setenv("METRICS_DBT_PROJECT", str(project))
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "a_store")))
    catalogue = Catalogue.read(project)
    store = open_store(load_settings())
    with store.writing("versions") as connection:
        record(connection, states(catalogue, read_targets(project)), now=datetime.now(UTC))
    store.close()
    assert "was changed in files" not in run("lint").stdout

    fact = project / "models" / "facts" / "fct_refunds.sql"
    fact.write_text(fact.read_text("utf-8") + "where 1 = 1\n", "utf-8")
    found = [one for one in json.loads(run("lint", "--json").stdout) if "was changed in files" in one["message"]]
    assert {one["message"].partition(":")[0] for one in found} == {"refund_amount", "refunded_orders"}
    assert {one["severity"] for one in found} == {"warning"}
    (orders,) = (one for one in found if one["message"].startswith("refunded_orders"))
    assert "and so do refund_rate, order_health" in orders["message"]
    assert "propose refunded_orders --in-files" in orders["mend"] and "--set expr=" in orders["mend"]
    proposed = run("propose", "gmv", "--set", "owner=finance", "--why", "moved")
    assert proposed.exit_code == 0 and "refund_rate, order_health" in proposed.stderr


def test_composing_shows_and_writes_nothing_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        "compose",
        "basket",
        "--ratio",
        "units_sold/orders_paid",
        "--label",
        "Basket size",
        "--name-zh",
        "连带率",
    )
    shown = run(*arguments)
    assert shown.exit_code == 0, shown.output
    assert "No preview: nothing is published" in shown.stdout
    assert "Nothing was written" in shown.stdout
    assert not list(PROJECT_ROOT.glob("dbt_project/models/*/basket*"))
    found = json.loads(run(*arguments, "--json").stdout)
    assert (found["unit"], found["layer"], found["saved"]) == ("ratio", "operational", [])
    assert found["lost_slices"]["category"] == ["orders_paid"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--expr", "gmv + refund_rate"), 1, "adds gmv (currency) and refund_rate"),
        (("--expr", "gmv)"), 2, "column 4"),
        (("--expr", "gmw"), 2, "there is no metric 'gmw'"),
        (("--ratio", "gmv"), 2, "is not A/B"),
        ((), 2, "say how it is made with one of --expr"),
        (("--expr", "2*gmv", "--growth", "gmv"), 2, "one of --expr"),
    ],
)
def test_what_cannot_be_composed_is_told_in_one_line(arguments: tuple[str, ...], code: int, message: str) -> None:
    result = run("compose", "made_up", "--label", "Made up", "--name-zh", "虚构", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_removing_names_what_would_break() -> None:
    result = run("remove", "refund_rate", "--save", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["breaks"]["metrics"] == ["order_health"]
    assert "refund_rate_surge" in found["breaks"]["rules"]
    assert found["removed"] == []
    assert "Nothing uses ad_clicks" in run("remove", "ad_clicks").stdout
    assert run("remove", "refund_rat").exit_code == 2


def test_an_unknown_metric_gets_the_nearest_names() -> None:
    result = run("show", "refund_rat")
    assert result.exit_code == 2
    assert "did you mean 'refund_rate'" in result.stderr
