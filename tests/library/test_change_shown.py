"""A change of the refund rate's formula, from the proposal to the alerts after it: what was shown when, to the digit."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import make_rule

from metrics_pipeline.alerts.apply import apply_verdicts
from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.orchestration.publish_asset import metric_tables
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.settings import PROJECT_ROOT, Settings, write_installation
from metrics_pipeline.store import open_store
from metrics_pipeline.store.tables import outbox
from metrics_pipeline.warehouse.extent import covered_until
from metrics_pipeline.warehouse.publish import publish
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.transform import run_dbt
from metrics_pipeline.warehouse.window import Window

pytestmark = pytest.mark.xdist_group("small_shop")

FIRST, CHANGED, UNTIL = date(2025, 9, 1), date(2025, 12, 9), date(2025, 12, 15)
METRICS = (
    "refunded_orders", "orders_paid", "orders_placed", "payment_conversion_rate", "refund_rate", "order_health",
)  # fmt: skip
PEOPLE = """
people:
  - {id: li, name_en: Li}
  - {id: wang, name_en: Wang}
teams:
  - {id: after-sales, name_en: After-sales, members: [wang]}
"""


@pytest.fixture(scope="module")
def shop(small_shop: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The small shop with definitions of its own, on the evening before the change: later days are not built yet."""
    home = tmp_path_factory.mktemp("changed_shop")
    (home / "warehouse").mkdir()
    shutil.copy(small_shop.build_path, home / "warehouse" / small_shop.build_path.name)
    shutil.copytree(PROJECT_ROOT / "dbt_project", home / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    (home / "rules").mkdir()
    (home / "rules" / "_people.yml").write_text(PEOPLE, "utf-8")
    write_installation(home, small_shop.installation)
    settings = replace_settings(small_shop, home)
    with duckdb.connect(str(settings.build_path)) as con:
        for metric in METRICS:
            schema = "base" if metric in METRICS[:3] else "operational"
            con.execute(f"DELETE FROM {schema}.{metric} WHERE period_start >= DATE '{CHANGED}'")
    return settings


def replace_settings(settings: Settings, home: Path) -> Settings:
    return settings.model_copy(
        update={"home": home, "dbt_project_dir": home / "dbt", "rules_dir": home / "rules", "user": "li"}
    )


def publish_until(settings: Settings, until: date) -> Published:
    """What a night publishes of these metrics, at two o'clock of the next day."""
    catalogue = Catalogue.read(settings.dbt_project_dir)
    project = SimpleNamespace(settings=settings, catalogue=catalogue)
    window = Window(FIRST, until)
    with duckdb.connect(str(settings.build_path)) as con:
        tables = metric_tables(project, covered_until(con), window, None)  # type: ignore[arg-type]
        chosen = {name: replace(tables[name], tables=tables[name].tables[:1]) for name in METRICS}
        now = datetime(until.year, until.month, until.day, 2, tzinfo=settings.zone)
        publish(con, settings.published_dir, tables=chosen, window=window, run_id=f"night-{until}", now=now)
    return Published.open(settings.published_dir)


def judge(settings: Settings, published: Published, start: date, until: date) -> None:
    """Judge a rule that breaches on every day, and tell its owner."""
    rule = make_rule(
        alert="refunds", metric="refund_rate", yellow_if="> 0", owner="after-sales", annotations={"summary": "x", "summary_zh": "某"},
    )  # fmt: skip
    now = datetime(until.year, until.month, until.day, 3, tzinfo=settings.zone)
    found = evaluate(published, [rule], start, until, evaluated_at=now, run_id="run", zone=settings.zone)
    assert set(found.frame().reason) == {"breach"}
    store = open_store(settings)
    cards = cards_of([rule], Catalogue.read(settings.dbt_project_dir).metrics)
    apply_verdicts(store, found.table, cards, receivers=routing_of(settings), now=now.astimezone(UTC))
    store.close()


def test_a_change_of_the_refund_rate_from_proposal_to_alerts(shop: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOME", shop.home), ("DBT_PROJECT", shop.dbt_project_dir), ("RULES_DIR", shop.rules_dir)):
        monkeypatch.setenv(f"METRICS_{name}", str(value))

    def library(*arguments: str, user: str = "li") -> Result:
        monkeypatch.setenv("METRICS_USER", user)
        return CliRunner().invoke(app, ["library", *arguments])

    def answer(*arguments: str, user: str = "li") -> dict:
        result = library(*arguments, "--json", user=user)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    before = publish_until(shop, CHANGED)
    old = before.metrics["refund_rate"].definition_version
    shown = before.series("refund_rate")
    judge(shop, before, date(2025, 12, 8), CHANGED)

    # proposal and review
    asked = answer(
        "propose", "refund_rate", "--set", "formula=refunded_orders / orders_placed", "--why", "cash on delivery",
        "--effective", str(CHANGED),
    )  # fmt: skip
    assert asked["affected"] == ["order_health"]
    assert library("propose", "refund_rate", "--set", "owner=x", "--why", "y", "--effective", "soon").exit_code == 2
    review = answer("review", "1")
    looked = review["preview"]
    assert len(looked["daily"]) == 90
    assert (looked["from"], looked["until"]) == ("2025-09-10", str(CHANGED))
    inputs = {name: before.series(name).set_index("period_start").value for name in METRICS[:3]}
    for row in looked["daily"]:
        day = datetime.fromisoformat(row["day"])
        assert row["new"] == inputs["refunded_orders"][day] / inputs["orders_placed"][day]
        assert row["old"] == inputs["refunded_orders"][day] / inputs["orders_paid"][day]
    assert looked["different"] > 0
    assert looked["slices"]
    assert "▁" in library("review", "1").stdout

    # approval by the owner, and the day from which it is so
    assert "does not own it" in library("approve", "1").stderr
    assert answer("approve", "1", user="wang")["remark"] == ""
    applied = answer("apply", "1")
    new = Catalogue.read(shop.dbt_project_dir).metrics["refund_rate"].version
    assert {(one["metric"], one["number"]) for one in applied["versions"]} == {("refund_rate", 2), ("order_health", 2)}
    assert applied["rebuild"] is None

    # the nights after it rebuild days of both definitions
    run_dbt(shop, Window(date(2025, 12, 5), UNTIL), list(METRICS))
    after = publish_until(shop, UNTIL)
    values = after.series("refund_rate")
    is_new = values.period_start >= datetime.combine(CHANGED, datetime.min.time())
    assert values[~is_new].reset_index(drop=True).equals(shown)
    assert set(values[is_new].definition_version) == {new}
    assert new != old
    placed = after.series("orders_placed").set_index("period_start").value
    refunded = after.series("refunded_orders").set_index("period_start").value
    for row in values[is_new].itertuples():
        assert row.value == refunded[row.period_start] / placed[row.period_start]
    health = after.series("order_health").set_index("period_start").definition_version
    assert health[datetime(2025, 12, 8)] != health[datetime(2025, 12, 9)]

    # the past restated is an act of its own, after which what was shown is still known
    restated = answer("restate", "refund_rate", "--from", "2025-12-06", "--why", "one week", user="wang")
    assert restated["rebuild"] == "metrics backfill --from 2025-12-06 --to 2025-12-14"
    judge(shop, after, date(2025, 12, 10), date(2025, 12, 11))
    run_dbt(shop, Window(date(2025, 12, 5), UNTIL), ["refund_rate"])
    publish_until(shop, date(2025, 12, 16))

    def as_of(moment: str, day: str) -> tuple[float, str, str]:
        (row,) = answer("asof", "refund_rate", "--at", moment, "--day", day)["values"]
        return row["value"], row["version"], row["definition"]["formula"]

    was, now = "refunded_orders / orders_paid", "refunded_orders / orders_placed"
    value = shown.set_index("period_start").value
    assert as_of("2025-12-15T12:00", "2025-12-08") == (value[datetime(2025, 12, 8)], old, was)
    assert as_of("2025-12-17", "2025-12-08") == (
        refunded[datetime(2025, 12, 8)] / placed[datetime(2025, 12, 8)], new, now,
    )  # fmt: skip
    assert as_of("2025-12-17", "2025-12-05") == (value[datetime(2025, 12, 5)], old, was)
    assert as_of("2025-12-17", "2025-12-11")[1:] == (new, now)
    assert library("asof", "refund_rate", "--at", "2025-01-01").exit_code == 1
    assert [row["number"] for row in answer("history", "refund_rate")] == [1, 2, 3]
    assert set(answer("diff", "refund_rate", "1", "v2")["diff"]) >= {"formula", "inputs", "effective_from"}

    # alerts before and after name their version
    story = json.loads(CliRunner().invoke(app, ["alerts", "show", "refunds", "--json"]).stdout)
    names = {row["period"][:10]: row["definition"] for row in story["transitions"]}
    assert names["2025-12-08"] == f"v1 ({old})"
    assert story["instance"]["metric_version"] == new
    store = open_store(shop)
    with store.reading() as connection:
        told = connection.execute(sa.select(outbox.c.payload)).scalars().all()
    store.close()
    assert [payload["versions"] for payload in told] == [[old]]  # nothing was recorded yet when it was told
    text = CliRunner().invoke(app, ["alerts", "show", "refunds"]).stdout
    assert f"v1 ({old})" in text
