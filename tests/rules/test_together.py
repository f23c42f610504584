"""`completeness()` and `anomaly(together)` in rules, the second opinion, and what a diagnosis hears of data problems."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from shop import FIRST, NOW, Shop, day, make_rule

from metrics_pipeline.cli.app import app
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.data_problems import data_problems_on
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.together import _numbered, data_problems, second_opinion
from metrics_pipeline.settings import PROJECT_ROOT

DAYS = 130
LAST = DAYS - 1
CHANNELS = ("app", "web", "mini_program", "live_stream")
METRICS = {"sessions": 4000, "page_views": 16000, "orders_placed": 300, "orders_paid": 260, "complaints": 20}


def rule(alert: str, metric: str, expr: str, **keys):
    thresholds = {"yellow_if": ">= 1", "red_if": ">= 2"}
    return make_rule(alert=alert, metric=metric, by=["channel"], expr=expr, **{**thresholds, **keys})


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Four channels; on the last day `web` loses half its tracking, the day before `app` sells little of much traffic."""
    rng, shop = np.random.default_rng(8), Shop()
    week = 1 + 0.2 * np.sin(np.arange(DAYS) * 2 * np.pi / 7)
    for size, channel in enumerate(CHANNELS, start=1):
        shared = week * np.exp(rng.normal(0, 0.05, DAYS)) * size
        for metric, level in METRICS.items():
            values = rng.poisson(level * shared).astype(float)
            if channel == "web" and metric in ("sessions", "page_views"):
                values[LAST] = round(values[LAST] * 0.5)
            if channel == "app" and metric in ("sessions", "page_views"):
                values[LAST - 1] = round(values[LAST - 1] * 1.5)
            if channel == "app" and metric.startswith("orders"):
                values[LAST - 1] = round(values[LAST - 1] * 0.6)
            shop.add(metric, values.tolist(), dimension="channel", member=channel)
    return shop.publish(tmp_path_factory.mktemp("shop") / "published")


def verdicts(published, *rules, start=LAST, until=DAYS, promotions=()):
    frame = evaluate(
        published, rules, day(start), day(until), evaluated_at=NOW, run_id="r", promotions=promotions
    ).frame()
    return frame.set_index(["rule", "member"])


def test_a_rule_says_whose_data_are_not_what_they_seem(published):
    found = verdicts(
        published, rule("traffic", "sessions", "completeness()"), rule("orders", "orders_placed", "completeness()")
    )
    assert found.tier["traffic"].to_dict() == {"app": "ok", "live_stream": "ok", "mini_program": "ok", "web": "red"}
    assert set(found.tier["orders"]) == {"ok"}
    assert found.observed["traffic", "web"] >= 2
    assert found.baseline["traffic", "web"] == pytest.approx(2 * found.value["traffic", "web"], rel=0.2)


def test_metrics_that_do_not_go_together_fire_without_a_band_of_their_own(published):
    found = verdicts(published, rule("odd", "orders_placed", "anomaly(together)"), start=LAST - 1, until=LAST)
    assert found.observed["odd"].idxmax() == "app"
    assert found.tier["odd", "app"] in ("yellow", "red")
    assert set(found.tier["odd"].drop("app")) == {"ok"}


def test_a_replay_says_what_each_night_said(published):
    both = (rule("odd", "orders_placed", "anomaly(together)"), rule("traffic", "sessions", "completeness()"))
    whole = (
        verdicts(published, *both, start=LAST - 3, until=DAYS)
        .reset_index()
        .set_index(["rule", "member", "period_start"])
    )
    for n in range(LAST - 1, DAYS):
        night = (
            verdicts(published, *both, start=n, until=n + 1).reset_index().set_index(["rule", "member", "period_start"])
        )
        assert (whole.observed.loc[night.index] == night.observed).all()


def shop_of(channels, folder, days=320):
    """A shop of ordinary days whose values are written in the order of these channels."""
    shop = Shop()
    for channel in channels:
        rng = np.random.default_rng(sum(map(ord, channel)))
        for metric, level in METRICS.items():
            shop.add(metric, rng.poisson(level, days).astype(float).tolist(), dimension="channel", member=channel)
    return shop.publish(folder / "published")


def test_a_long_replay_has_no_more_history_than_a_night(tmp_path):
    shop = shop_of(CHANNELS, tmp_path)
    odd = rule("odd", "orders_placed", "anomaly(together)")
    whole = verdicts(shop, odd, start=260, until=310).reset_index().set_index(["member", "period_start"])
    for n in (270, 309):
        night = verdicts(shop, odd, start=n, until=n + 1).reset_index().set_index(["member", "period_start"])
        assert night.observed.notna().all()
        assert (whole.observed.loc[night.index] == night.observed).all()


def test_slices_are_numbered_by_name_in_whatever_order_their_rows_come():
    names, numbers = _numbered(pa.chunked_array([["web", "app"], ["web", "mini"]]))
    assert (names, numbers.tolist()) == (["app", "mini", "web"], [2, 0, 2, 1])


def test_a_young_shop_has_no_opinion(published):
    found = verdicts(published, rule("odd", "orders_placed", "anomaly(together)"), start=30, until=31)
    assert set(found.reason) == {"no_baseline"}
    found = verdicts(published, rule("traffic", "sessions", "completeness()"), start=10, until=11)
    assert set(found.reason) == {"no_baseline"}


def test_the_second_opinion_names_the_metrics(published):
    web, *others = second_opinion(published, day(LAST), "channel", ())
    assert (web.member, web.verdict) == ("web", "tracking_loss")
    assert "埋点丢失" in web.reason_zh and "tracking loss" in web.reason_en
    assert {one.verdict for one in others} == {"complete"}
    app = next(one for one in second_opinion(published, day(LAST - 1), "channel", ()) if one.member == "app")
    assert app.p_value is not None and app.p_value < 0.02
    assert {part.metric for part in app.parts[:4]} == {"sessions", "page_views", "orders_placed", "orders_paid"}
    assert sum(part.share for part in app.parts) == pytest.approx(1)
    assert second_opinion(published, day(LAST), "region", ()) == []


def test_a_diagnosis_hears_of_data_problems_only(published):
    assert [one.member for one in data_problems(published, day(LAST), ())] == ["web"]
    assert data_problems(published, day(LAST - 2), ()) == []
    (evidence,) = data_problems_on(published, day(LAST), ())
    assert (evidence.kind, evidence.id, evidence.elements) == (
        "data_problem", "tracking_loss:channel=web", {"channel": "web"},
    )  # fmt: skip
    assert "埋点丢失" in evidence.what_zh


def test_main_days_of_the_calendar_are_not_learned_from(published):
    sale = [PromotionDay(day(n), "sale", "促销", "Sale", n - 60, "main", "own") for n in range(60, DAYS - 1)]
    found = verdicts(published, rule("odd", "orders_placed", "anomaly(together)"), promotions=sale)
    assert set(found.reason) == {"no_baseline"}


def test_together_is_by_days_and_its_thresholds_default(tmp_path):
    shutil.copytree(PROJECT_ROOT / "alert_rules", tmp_path / "rules")
    path = tmp_path / "rules" / "own.yml"
    path.write_text(
        """groups:
  - name: data
    defaults: {owner: growth, labels: {scenario: traffic_pressure}}
    rules:
      - {alert: traffic_complete, metric: sessions, by: [channel], expr: completeness(), why: x, why_zh: 甲,
         annotations: {summary: a, summary_zh: 甲}}
      - {alert: hourly_complete, metric: sessions, grain: hour, expr: completeness(), why: x, why_zh: 甲,
         annotations: {summary: a, summary_zh: 甲}}
""",
        "utf-8",
    )
    loaded = load_rules(tmp_path / "rules", Catalogue.read(PROJECT_ROOT / "dbt_project"))
    own = {one.id: one for one in loaded.rules}["traffic_complete"]
    assert (str(own.yellow_if), str(own.red_if), str(own.expr)) == (">= 1", ">= 2", "completeness()")
    assert ["looks at whole days" in one.message for one in loaded.problems if one.file == path] == [True]


def test_the_command_shows_it(published, tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(tmp_path / "home"))
    shutil.copytree(published.directory, tmp_path / "home" / "warehouse" / "published")
    options = ["rules", "opinion", "--by", "channel"]
    shown = CliRunner().invoke(app, options)
    assert shown.exit_code == 0, shown.output
    assert "埋点丢失" in shown.stdout and f"{FIRST + timedelta(days=LAST)} 按 channel" in shown.stdout
    monkeypatch.setenv("METRICS_LOCALE", "en")
    shown = CliRunner().invoke(app, options)
    assert "tracking loss" in shown.stdout and f"{FIRST + timedelta(days=LAST)} by channel" in shown.stdout
    rows = json.loads(CliRunner().invoke(app, [*options, "--date", str(day(LAST - 1)), "--json"]).stdout)
    assert rows[0]["member"] == "app" and rows[0]["metrics"][0]["share"] > 0
    assert CliRunner().invoke(app, [*options, "--date", "soon"]).exit_code == 2
