"""`metrics calendar` as a person uses it."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.detection.own_calendar import NAME
from metrics_pipeline.rules.seeds import seeds_of
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.store import open_store
from metrics_pipeline.store.audit import entries
from metrics_pipeline.warehouse.campaigns import read_campaigns, write_campaigns
from tests.rules.shop import Shop
from tests.store.databases import new_home

FIRST = date(2025, 1, 6)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(PROJECT_ROOT / "alert_rules", tmp_path / "rules")
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path / "home")))
    monkeypatch.setenv("METRICS_RULES_DIR", str(tmp_path / "rules"))
    return tmp_path


def run(*arguments: object):
    return CliRunner().invoke(app, ["calendar", *map(str, arguments)])


def test_the_calendar_is_shown_with_its_sources(folder):
    rows = json.loads(run("show", "--from", "2025-09-25", "--to", "2025-11-20", "--json").stdout)
    by_event = {(row["event"], row["phase"]): row for row in rows}
    assert by_event["national_day_workday", "workday"]["source"] == "chinesecalendar"
    assert by_event["double_11", "presale"]["from"] == "2025-10-20"
    assert by_event["national_day", "holiday"]["name_zh"] == "国庆节"
    shown = run("show", "--from", "2028-01-20", "--to", "2028-01-31")
    assert "spring_festival" in shown.stdout and "2028-01-31" in shown.stdout
    assert run("show", "--event", "double_111").exit_code == 2
    assert run("show", "--from", "2025-02-02", "--to", "2025-02-01").exit_code == 2


def test_lint_names_file_and_line(folder):
    result = run("lint")
    assert (result.exit_code, "in order" in result.stdout, "announced up to" in result.stdout) == (0, True, True)
    path = folder / "rules" / NAME
    path.write_text(
        "without: [doble_11]\nevents:\n"
        "  - {event: a, name_zh: 甲, name_en: A, falls_on: 11-31}\n"
        "  - {event: b, name_zh: 乙, name_en: B, falls_on: 2026-01-01, affects: {categry: 服饰}}\n",
        "utf-8",
    )
    result = run("lint")
    assert result.exit_code == 1
    assert f"{path}:3: falls_on '11-31'" in result.stdout
    assert f"{path}:4: affects: no metric has the dimension 'categry' — did you mean 'category'" in result.stdout
    assert "there is no event 'doble_11' — did you mean 'double_11'" in result.stdout
    assert len(json.loads(run("lint", "--json").stdout)["problems"]) == 3


def test_an_added_event_is_in_the_calendar_and_in_the_audit_log(folder):
    options = ("--name-zh", "品牌日", "--name-en", "Brand day", "--phase", "main=0", "--phase", "after=1..2")
    result = run(
        "add", "brand_day", "--on", "2026-05-08", *options, "--affects", "category=美妆,个护", "--because", "x"
    )
    assert result.exit_code == 0, result.output
    [main, after] = json.loads(
        run("show", "--from", "2026-05-01", "--to", "2026-06-01", "--event", "brand_day", "--json").stdout
    )
    assert (main["affects"], main["source"], after["to"]) == ("category=美妆,个护", NAME, "2026-05-10")
    store = open_store(load_settings())
    with store.reading() as connection:
        found = [one for one in entries(connection) if one.action == "calendar.add"]
    store.close()
    assert [one.subject for one in found] == ["brand_day"]
    assert run("add", "brand_day", "--on", "soon", *options).exit_code == 1
    assert run("add", "b", "--on", "11-11", *options, "--phase", "main").exit_code == 2
    assert run("add", "b", "--on", "11-11", *options, "--affects", "美妆").exit_code == 2


def publish(folder: Path) -> None:
    """A shop in which every channel has a sale on the 26th of three months."""
    rng, shop, days = np.random.default_rng(4), Shop(), 200
    sale = {(FIRST + timedelta(days=n)).isoformat()[5:]: n for n in range(days)}
    for metric, level in (("orders_placed", 300), ("sessions", 4000)):
        for member in ("app", "web", "mini_program", "live_stream"):
            values = rng.poisson(level * (1 + 0.2 * np.sin(np.arange(days) * 2 * np.pi / 7))).astype(float)
            for on in ("02-26", "03-26", "04-26"):
                values[sale[on]] *= 1.7
            shop.add(metric, values.tolist(), dimension="channel", member=member)
    shop.publish(folder / "home" / "warehouse" / "published")


def test_an_event_of_slices_that_no_metric_has_is_not_written(folder):
    before = (folder / "rules" / NAME).read_text("utf-8")
    result = run(
        "add", "brand_day", "--on", "11-18", "--name-zh", "品牌日", "--name-en", "Brand day", "--affects", "regon=华东"
    )
    assert result.exit_code == 1
    assert "did you mean 'region'?" in result.output
    assert (folder / "rules" / NAME).read_text("utf-8") == before


def test_promotions_nobody_entered_are_proposed_and_accepted(folder):
    publish(folder)
    rows = json.loads(run("infer", "--json").stdout)
    assert [row["peak"] for row in rows] == ["2025-02-26", "2025-03-26", "2025-04-26"]
    assert all(row["agreeing"] == row["series"] == 8 for row in rows)
    [proposal] = json.loads(run("propose", "--json").stdout)
    assert (proposal["proposal"], proposal["entry"]["falls_on"]) == ("monthly_26", "monthly 26")
    assert run("propose", "--accept", "monthly_27").exit_code == 2
    names = ("--event", "member_day", "--name-zh", "会员日", "--name-en", "Members' day")
    result = run("propose", "--accept", "monthly_26", *names)
    assert result.exit_code == 0, result.output
    assert "8 of 8 series rose together" in (folder / "rules" / NAME).read_text("utf-8")
    assert json.loads(run("infer", "--json").stdout) == []
    assert "member_day" in seeds_of(load_settings()).events


def test_without_published_values_there_is_nothing_to_infer(folder):
    assert run("infer").exit_code == 1


def test_campaigns_of_the_raw_data_are_in_the_calendar_of_their_channel(folder):
    settings = load_settings()
    with duckdb.connect() as con:
        assert write_campaigns(con, settings.warehouse_dir) == 0
        con.execute("CREATE SCHEMA raw")
        con.execute(
            "CREATE TABLE raw.campaigns AS SELECT * FROM (VALUES "
            "('C1', '春季上新', 'feed_ads', DATE '2026-03-02', DATE '2026-03-20'), "
            "('C2', 'always on', 'search_ads', DATE '2026-01-01', DATE '2026-12-31'), "
            "('C3', NULL, 'search_ads', DATE '2026-05-01', DATE '2026-05-01'), "
            "('C4', 'no end', 'search_ads', DATE '2026-05-01', NULL)) AS t(campaign_id, name, ad_channel, starts_on, ends_on)"
        )
        assert write_campaigns(con, settings.warehouse_dir) == 3
    assert [one.id for one in read_campaigns(settings.warehouse_dir)] == ["C2", "C1", "C3"]
    rows = json.loads(run("show", "--from", "2026-02-15", "--to", "2026-06-01", "--json").stdout)
    own = [(row["event"], row["from"], row["to"], row["affects"]) for row in rows if row["phase"] == "campaign"]
    assert own == [
        ("campaign_C1", "2026-03-02", "2026-03-04", "ad_channel=feed_ads"),
        ("campaign_C1", "2026-03-21", "2026-03-22", "ad_channel=feed_ads"),
        ("campaign_C3", "2026-05-01", "2026-05-03", "ad_channel=search_ads"),
    ]  # fmt: skip
