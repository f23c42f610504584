from __future__ import annotations

import sys
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from metrics_pipeline.forecasting import stored
from metrics_pipeline.forecasting.backtest import backtest, origins_of
from metrics_pipeline.forecasting.ets import MODEL, forecast
from metrics_pipeline.forecasting.outlook import table_of
from metrics_pipeline.forecasting.panel import Panel
from metrics_pipeline.forecasting.stored import (
    NoForecast,
    Question,
    StoredPanel,
    read_current,
    read_outlooks,
    rows_of,
    store,
    versions,
)
from tests.advice.builders import PERIOD, make_outlook
from tests.rules.shop import Shop

sys.path.insert(0, str(Path(__file__).parent))
from series import FIRST, wandering_shop

NOW = datetime(2026, 1, 1, 2, 0)
GMV = Question("gmv", "region")


@pytest.fixture(scope="module")
def made():
    shop = wandering_shop(series=4, days=150)
    panel = Panel(("a", "b", "c", "d"), FIRST, shop.values[:, :150])
    panel.values[3, -30:] = np.nan
    return panel, forecast(panel.values, shop.calendar, 14)


def put(folder, made, at=NOW, data_version="v1"):
    panel, found = made
    return store(
        folder, "values", rows_of(GMV, panel, found), made_at=at, data_version=data_version, model=MODEL, horizon=14,
        run_id="run", panels=[StoredPanel(GMV, panel.last, 3, None)],
    )  # fmt: skip


def test_the_table_has_a_row_for_each_series_with_a_forecast_and_day_ahead(tmp_path, made):
    panel, found = made
    version = put(tmp_path, made)
    table = pq.read_table(tmp_path / version.path).to_pandas()
    assert set(table.member) == {"a", "b", "c"} and len(table) == 3 * 14
    row = table[(table.member == "b") & (table.ahead == 5)].iloc[0]
    assert row.day == panel.last + timedelta(days=5) and row.origin == panel.last
    assert row.q10 == pytest.approx(found.quantiles[1, 4, 1]) and row["mean"] == pytest.approx(found.mean[1, 4])
    assert read_current(tmp_path, "values") == version


def test_outlooks_are_those_of_the_newest_day_and_are_forgotten_with_their_version(tmp_path, made):
    shop = Shop()
    for metric in ("stock_on_hand", "units_sold"):
        shop.add(metric, [5.0] * 3, dimension="sku", member="SKU-7", first=PERIOD.date() - timedelta(days=2))
    published = shop.publish(tmp_path / "published")
    panel, found = made
    table = rows_of(GMV, panel, found)
    put_shelf = partial(
        store, tmp_path, "stockout", table, model=MODEL, horizon=14, run_id="run", outlook=table_of([make_outlook()])
    )
    assert read_outlooks(tmp_path, published) == {}
    for number in range(stored.KEPT + 1):
        put_shelf(made_at=NOW + timedelta(days=number), data_version=f"v{number}")
    assert read_outlooks(tmp_path, published) == {"SKU-7": make_outlook()}
    assert len(list(tmp_path.glob("stockout/*.outlook.parquet"))) == stored.KEPT
    shop.add("stock_on_hand", [5.0] * 4, dimension="sku", member="SKU-7", first=PERIOD.date() - timedelta(days=2))
    shop.add("units_sold", [5.0] * 4, dimension="sku", member="SKU-7", first=PERIOD.date() - timedelta(days=2))
    assert read_outlooks(tmp_path, shop.publish(tmp_path / "a_day_later")) == {}


def test_the_same_forecast_again_is_no_new_version(tmp_path, made):
    first = put(tmp_path, made)
    assert put(tmp_path, made, NOW + timedelta(hours=1)) == first
    assert put(tmp_path, made, NOW + timedelta(days=1), "v2").id != first.id
    assert len(versions(tmp_path, "values")) == 2


def test_the_oldest_are_forgotten_with_their_files(tmp_path, made, monkeypatch):
    monkeypatch.setattr(stored, "KEPT", 3)
    for night in range(5):
        put(tmp_path, made, NOW + timedelta(days=night), f"v{night}")
    kept = versions(tmp_path, "values")
    assert [one.data_version for one in kept] == ["v2", "v3", "v4"]
    assert sorted(path.name for path in (tmp_path / "values").iterdir()) == [Path(one.path).name for one in kept]


def test_before_the_first_there_is_none_and_a_damaged_one_is_named(tmp_path, made):
    assert read_current(tmp_path, "values") is None
    version = put(tmp_path, made)
    (tmp_path / "versions" / f"values-{version.id}.json").write_text("{}")
    with pytest.raises(NoForecast, match="metrics nightly"):
        read_current(tmp_path, "values")


def test_a_backtest_sees_a_model_that_lies():
    shop = wandering_shop(series=20, days=200)
    origins = origins_of(200, 14)
    assert origins == [144, 158, 172, 186]
    honest = backtest(shop.values[:, :200], shop.calendar, 14, origins)
    doubled = backtest(
        shop.values[:, :200],
        shop.calendar,
        14,
        origins,
        lambda values, days, ahead: 2 * forecast(values, days, ahead).quantiles,
    )
    assert honest.mase < 1.1 and doubled.mase > 2 * honest.mase
    assert honest.coverage > 0.65 > doubled.coverage
    assert honest.pinball < doubled.pinball
