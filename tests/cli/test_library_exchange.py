"""`metrics library export` and `import` as a person uses them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import stale_files
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store import audit
from metrics_pipeline.store.database import open_url
from tests.store.databases import new_home

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import Shop


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    monkeypatch.setenv("METRICS_USER", "li")
    return tmp_path / "home"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["library", *arguments])


def recorded(home: Path) -> list[tuple[str, str, str]]:
    store = open_url(f"sqlite:///{home / 'store.db'}")
    try:
        with store.reading() as connection:
            return [(one.actor, one.action, one.subject) for one in audit.entries(connection)]
    finally:
        store.close()


def content(project: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}


def test_a_metric_leaves_is_recognised_and_comes_in_under_another_name(home, tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    monkeypatch.setenv("METRICS_DBT_PROJECT", str(project))
    shop = Shop().add("refunded_orders", [6.0] * 20).add("orders_placed", [100.0 + n for n in range(20)])
    shop.publish(home / "warehouse" / "published")
    out = tmp_path / "out" / "shared.yml"
    assert run("export", "refund_rate", "--out", str(out)).exit_code == 0
    text = out.read_text("utf-8").replace("name: refund_rate\n", "name: return_rate\n")
    out.write_text(text, "utf-8")
    twin = run("import", str(out), "--save")
    assert twin.exit_code == 1
    assert f"{out}:" in twin.stdout and "means the same as" in twin.stdout and "nothing was written" in twin.stderr

    names = {
        "Refund rate": "Return rate",
        "退款率": "退货率",
        "Orders first refunded": "Orders that first came back",
        "首次退款": "首次退货",
    }
    head, mark, metric = text.rpartition("  - name: return_rate")
    for old, new in {**names, "denominator: orders_paid": "denominator: orders_placed"}.items():
        metric = metric.replace(old, new)
    out.write_text(f"{head}{mark}{metric}", "utf-8")
    shown = run("import", str(out))
    assert shown.exit_code == 0, shown.output
    assert "2 metrics are here already" in shown.stdout
    assert "return_rate" in shown.stdout and "Nothing was written" in shown.stdout
    assert not (project / "models" / "operational" / "return_rate.yml").exists()

    broken = project / "models" / "facts" / "fct_broken.sql"
    broken.write_text("select * from {{ ref('nothing_such') }}", "utf-8")
    before = content(project)
    failed = run("import", str(out), "--save")
    assert failed.exit_code == 1 and "nothing_such" in str(failed.exception)
    assert content(project) == before, "what dbt cannot read is not kept"
    assert recorded(home) == [("li", "library.export", "refund_rate")]
    broken.unlink()

    saved = run("import", str(out), "--save", "--json")
    assert saved.exit_code == 0, saved.output
    told = json.loads(saved.stdout)
    assert told["same"] == ["orders_paid", "refunded_orders"]
    assert [one["formula"] for one in told["new"]] == ["refunded_orders / orders_placed"]
    assert told["new"][0]["newest"] == pytest.approx(6 / 119)
    assert len(told["new"][0]["history"]) == 20
    assert str(project / "models" / "operational" / "return_rate.sql") in told["written"]
    assert not stale_files(Catalogue.read(project))
    assert recorded(home)[::-1] == [
        ("li", "library.export", "refund_rate"),
        ("li", "library.import", "return_rate"),
    ]


def test_wrong_usage_is_told(home, tmp_path):
    assert run("export", "refund_rat").exit_code == 2
    assert run("export", "--format", "xml").exit_code == 2
    assert run("import", str(tmp_path / "nowhere.yml")).exit_code == 2


def test_problems_are_exit_code_one_and_stop_everything(home, tmp_path):
    theirs = tmp_path / "theirs.yml"
    theirs.write_text("metrics:\n  - {name: a, type: simple, type_params: {measure: nothing_such}}\n", "utf-8")
    found = run("import", str(theirs), "--save")
    assert found.exit_code == 1
    assert f"{theirs}:2: a: measure 'nothing_such' is none of ours" in found.stdout


def test_osi_says_what_it_leaves_out(home):
    found = run("export", "stock_cover_days", "refund_rate", "--format", "osi")
    assert found.exit_code == 0, found.output
    assert "version: 0.1.1" in found.stdout
    assert "stock_cover_days: left out, OSI has no words for a moving window of 28 days" in found.stderr
