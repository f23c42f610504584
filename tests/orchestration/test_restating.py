"""The past restated and computed anew in one act, by the person who owns the metric."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from orchestration_shop import NIGHT, Shop
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.store import audit, open_store
from metrics_pipeline.warehouse.read import Published
from tests.commands import run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("orchestration_shop")]


def test_restating_runs_the_backfill_it_names_and_what_was_shown_stays_readable(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shop.copy(tmp_path / "home")
    project = tmp_path / "library"
    shutil.copytree(PROJECT_ROOT / "dbt_project", project, ignore=shutil.ignore_patterns("target", "logs"))
    rules = tmp_path / "rules"
    rules.mkdir()
    for name, value in (
        ("HOME", copy.settings.home), ("DBT_PROJECT", project), ("RULES_DIR", rules), ("USER", "wang"), ("LATE_DAYS", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(f"METRICS_{name}", str(value))

    def library(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["library", *arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    day = NIGHT - timedelta(days=1)
    before = Published.open(copy.settings.published_dir)
    shown = before.series("refund_rate", start=day, until=NIGHT)["value"].tolist()
    moment = datetime.now(load_settings().zone).isoformat(timespec="microseconds")
    library("propose", "refund_rate", "--set", "formula=refunded_orders / orders_placed", "--why", "cash on delivery")
    library("approve", "1")
    library("apply", "1")

    act = ("restate", "refund_rate", "--from", str(day), "--why", "one week in one unit", "--run", "--json")
    answer = run("library", *act, environment=os.environ)
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert told["rebuild"] == f"metrics backfill --from {day} --to {day}"
    assert told["rebuilt"]["success"], told["rebuilt"]

    after = Published.open(copy.settings.published_dir)
    (refunded,), (placed,) = (
        after.series(name, start=day, until=NIGHT)["value"].tolist() for name in ("refunded_orders", "orders_placed")
    )
    now = after.series("refund_rate", start=day, until=NIGHT)
    assert now["value"].tolist() == [refunded / placed] != shown
    assert now["definition_version"].tolist() == [Catalogue.read(project).metrics["refund_rate"].version]
    assert after.series("refund_rate", until=day).equals(before.series("refund_rate", until=day)), "earlier days stay"

    (was,) = library("asof", "refund_rate", "--at", moment, "--day", str(day))["values"]
    assert [was["value"]] == shown
    store = open_store(load_settings())
    with store.reading() as connection:
        done = [one for one in audit.entries(connection) if one.action in {"metric.restate", "metric.rebuild"}]
    store.close()
    assert {(one.action, one.actor, one.subject, one.details["why"]) for one in done} == {
        (action, "wang", "refund_rate", "one week in one unit") for action in ("metric.restate", "metric.rebuild")
    }
    (rebuilt,) = (one.details for one in done if one.action == "metric.rebuild")
    assert (rebuilt["first"], rebuilt["last"], rebuilt["run"]) == (str(day), str(day), told["rebuilt"]["run_id"])
