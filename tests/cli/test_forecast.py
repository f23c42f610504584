"""`metrics forecast` and `metrics stockout` on a published version, and what is said when there is nothing to foresee."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import Installation, write_installation

sys.path.insert(0, str(Path(__file__).parent.parent / "rules"))
from shop import FIRST, Shop

DAYS = 100


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    write_installation(folder, Installation(timezone="UTC"))
    rng = np.random.default_rng(3)
    shop = Shop()
    for region, level in (("华北", 900.0), ("华南", 300.0)):
        values = level * (1 + 0.2 * (np.arange(DAYS) % 7 == 5)) * rng.normal(1, 0.04, DAYS)
        shop.add("gmv", values.tolist(), dimension="region", member=region)
    shop.add("gmv", (rng.normal(1, 0.03, DAYS) * 1250).tolist())
    shop.add("refund_rate", [(5, 100)] * 10)
    sold = rng.poisson(8, DAYS).astype(float)
    shop.add("units_sold", sold.tolist(), dimension="sku", member="SKU-1")
    shop.add("stock_on_hand", (20 + np.cumsum(sold[::-1])[::-1] - sold).tolist(), dimension="sku", member="SKU-1")
    shop.publish(folder / "warehouse" / "published")
    return folder


@pytest.fixture
def run(home, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(home))
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_a_forecast_is_a_row_for_each_slice_and_day_ahead(run):
    found = json.loads(run("forecast", "gmv", "--by", "region", "--days", "5", "--json").stdout)
    assert len(found["days"]) == 10
    first = found["days"][0]
    assert first["region"] == "华北" and first["day"] == str(FIRST + timedelta(days=DAYS))
    assert first["low"] < first["median"] < first["high"] and first["mean"] == pytest.approx(900, rel=0.3)
    assert 0.5 < found["backtest"]["coverage"] <= 1


def test_a_former_origin_stands_beside_what_came(run):
    origin = FIRST + timedelta(days=80)
    found = json.loads(run("forecast", "gmv", "--origin", str(origin), "--days", "4", "--json").stdout)
    assert found["origin"] == str(origin)
    assert all(row["actual"] == pytest.approx(1250, rel=0.2) for row in found["days"])


def test_the_shops_own_calendar_is_foreseen(run, home, tmp_path, monkeypatch):
    days = [FIRST + timedelta(days=day) for day in (40, 70, DAYS + 2)]
    shop, target = Shop(), tmp_path / "home"
    shop.add("gmv", [1000.0 * (3 if FIRST + timedelta(days=day) in days else 1) for day in range(DAYS)])
    write_installation(target, Installation(timezone="UTC"))
    shop.publish(target / "warehouse" / "published")
    (tmp_path / "_calendar.yml").write_text(
        "events:\n  - {event: member_day, name_zh: 会员日, name_en: Members' day, affects: {}, phases: {main: 0}, "
        f"falls_on: [{', '.join(map(str, days))}]}}\n",
        "utf-8",
    )
    monkeypatch.setenv("METRICS_RULES_DIR", str(tmp_path))
    monkeypatch.setenv("METRICS_HOME", str(target))
    found = json.loads(CliRunner().invoke(app, ["forecast", "gmv", "--days", "5", "--json"]).stdout)
    means = [row["mean"] for row in found["days"]]
    assert means[2] > 1.8 * max(means[:2] + means[3:])


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_it_is_drawn_to_a_file(run, tmp_path, suffix):
    target = tmp_path / f"gmv.{suffix}"
    assert run("forecast", "gmv", "--plot", str(target)).exit_code == 0
    assert target.read_bytes()[:4] in (b"<?xm", b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("forecast", "gmvv"), 2, "did you mean"),
        (("forecast", "gmv", "--by", "moon"), 2, "region"),
        (("forecast", "gmv", "--by", "region", "--member", "华比"), 2, "华北"),
        (("forecast", "gmv", "--plot", "x.pdf"), 2, ".svg"),
        (("forecast", "gmv", "--plot", "/no/such/folder/x.svg"), 1, "choose a folder"),
        (("forecast", "gmv", "--model", "magic"), 2, "boosted"),
        (("forecast", "gmv", "--origin", "2020-01-01"), 1, "no value"),
        (("forecast", "refund_rate"), 1, "28 values"),
        (("forecast", "sessions"), 1, "absent"),
        (("stockout", "--sku", "SKU-9"), 2, "no stock of SKU"),
    ],
)
def test_what_cannot_be_foreseen_is_said(run, arguments, code, word):
    result = run(*arguments)
    assert (result.exit_code, word in result.stderr) == (code, True), result.output


def test_a_sku_in_danger_is_listed_with_its_order(run):
    found = json.loads(run("stockout", "--json").stdout)
    (row,) = found["skus"]
    assert row["sku"] == "SKU-1" and row["on_hand"] == 20
    assert row["chance"] > 0.9 > row["chance_3d"]
    assert row["quantity"] > 40 and row["order_by"] == str(FIRST + timedelta(days=DAYS))
    assert "SKU-1" in run("stockout").stdout
