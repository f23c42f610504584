"""`metrics diagnose` says what to do about what it found, and who may see that."""

from __future__ import annotations

import json
from datetime import date

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import load_settings
from tests.rules.shop import Shop
from tests.store.databases import new_home

DAYS = 63
METHODS = {"alipay": 300.0, "wechat_pay": 250.0, "unionpay": 80.0}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Nine weeks of payments; on the last day one method takes next to nothing."""
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("COLUMNS", "200")
    shop = Shop()
    paid = {
        name: [(0.93 * placed + day % 5, placed + day % 7) for day in range(DAYS - 1)]
        + [(0.05 * placed if name == "alipay" else 0.93 * placed, placed)]
        for name, placed in METHODS.items()
    }
    for name, days in paid.items():
        shop.add("payment_conversion_rate", days, dimension="payment_method", member=name)
    total = [tuple(sum(parts) for parts in zip(*day, strict=True)) for day in zip(*paid.values(), strict=True)]
    shop.add("payment_conversion_rate", total)
    shop.publish(load_settings().published_dir)
    return tmp_path


def test_the_advice_follows_the_cause_in_text_and_data(home):
    day = str(date.fromordinal(date(2025, 1, 6).toordinal() + DAYS - 1))
    result = CliRunner().invoke(app, ["diagnose", "payment_conversion_rate", "--date", day])
    assert result.exit_code == 0, result.stderr
    assert "1. 联系 alipay 支付服务商" in result.stdout
    found = json.loads(CliRunner().invoke(app, ["diagnose", "payment_conversion_rate", "--date", day, "--json"]).stdout)
    first = found["advice"][0]
    assert (first["entry"], first["owner"]) == ("switch_payment_method", "sales")
    assert "alipay" in first["text_en"]
    [cause] = [one for one in first["evidence"] if one["kind"] == "cause"]
    assert cause["share"] == pytest.approx(found["causes"][0]["share"])
    assert found["similar"] == []
