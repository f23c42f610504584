"""A night from raw rows to delivered messages, run for real, and what a crash in any phase leaves behind."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from orchestration_shop import NIGHT, Shop, clock

from metrics_pipeline.alerts.listing import current_alerts, notifications
from metrics_pipeline.alerts.notice import Notice
from metrics_pipeline.forecasting.stored import read_current
from metrics_pipeline.orchestration import alert_assets, publish_asset
from metrics_pipeline.orchestration.in_process import partition_tags, run_in_process
from metrics_pipeline.orchestration.instance import open_instance
from metrics_pipeline.orchestration.keys import DELIVERIES_CHECK, FORECASTS_KEY, OUTBOX_KEY, delivery_run_key
from metrics_pipeline.orchestration.notify import build_notify_definitions
from metrics_pipeline.orchestration.operations import NightReport, _definitions, run_nightly
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import open_store
from metrics_pipeline.store.metric_versions import seen
from metrics_pipeline.store.tables import outbox
from metrics_pipeline.warehouse.read import Published

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("orchestration_shop")]


@pytest.fixture(scope="module")
def night(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shop, NightReport]:
    """A copy of the shop after an undisturbed night."""
    copy = shop.copy(tmp_path_factory.mktemp("night") / "home")
    report = run_nightly(copy.settings, NIGHT, project=copy.project)
    assert report.success, report.run.failures
    return copy, report


def outcome(settings: Settings) -> dict[str, Any]:
    """What a night leaves: values, alerts, messages; without run ids and moments."""
    published = Published.open(settings.published_dir)
    with published.connect() as con:
        values = con.execute(
            "SELECT count(*), sum(hash(metric, period_start, grain, dimension, member, round(value, 4), definition_version))"
            " FROM metric_values"
        ).fetchone()
    store = open_store(settings)
    try:
        alerts = [(a.instance, a.state, a.tier, a.since_period) for a in current_alerts(store)]
        messages = sorted((m.rule, m.receiver, m.reason, m.tier, m.state) for m in notifications(store))
    finally:
        store.close()
    files = sorted(path.name.split("-")[1] for path in settings.messages_dir.glob("*.html"))
    return {"values": values, "alerts": alerts, "messages": messages, "files": files}


def test_the_night_leaves_forecasts_with_their_backtest(night: tuple[Shop, NightReport]) -> None:
    shop, report = night
    folder = shop.settings.forecasts_dir
    values, stock = read_current(folder, "values"), read_current(folder, "stockout")
    assert values is not None and stock is not None
    assert {(one.question.metric, one.question.dimension) for one in values.panels} >= {
        ("gmv", "all"),
        ("gmv", "region"),
    }
    assert {one.origin for one in values.panels} == {NIGHT}
    rows = duckdb.sql(
        f"SELECT min(day), count(*), bool_and(q10 <= q50 AND q50 <= q90) FROM '{folder / values.path}'"
    ).fetchall()
    assert rows == [(NIGHT + timedelta(days=1), values.rows, True)]
    assert values.data_version == Published.open(shop.settings.published_dir).version
    with open_instance(shop.settings) as instance:
        event = instance.get_latest_materialization_event(FORECASTS_KEY)
    assert event is not None and event.run_id == report.run.run_id
    assert event.asset_materialization is not None
    assert {"plot", "backtest", "model"} <= event.asset_materialization.metadata.keys()


def test_the_night_yields_every_check(night: tuple[Shop, NightReport]) -> None:
    shop, report = night
    with open_instance(shop.settings) as instance:
        events = instance.all_logs(report.run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluated = {
        (
            event.dagster_event.asset_check_evaluation_data.asset_key.to_user_string(),
            event.dagster_event.asset_check_evaluation_data.check_name,
        )
        for event in events
        if event.dagster_event is not None
    }
    daily = {rule.id for rule in shop.project.ruleset.rules if rule.grain == "day"}
    assert {name for _, name in evaluated} >= daily
    assert len([key for key, name in evaluated if name == "raw_contract"]) == 13


def test_the_night_is_told_once_and_its_run_is_in_the_instance(night: tuple[Shop, NightReport]) -> None:
    shop, report = night
    assert report.delivery is not None
    with open_instance(shop.settings) as instance:
        run = instance.get_run_by_id(report.run.run_id)
        delivery = instance.get_run_by_id(report.delivery.run_id)
    assert run is not None
    assert delivery is not None
    assert run.remote_job_origin is not None
    assert run.tags["dagster/partition"] == NIGHT.isoformat()
    assert delivery.tags["dagster/run_key"] == delivery_run_key(run.run_id)
    left = outcome(shop.settings)
    assert all(state == "sent" for *_, state in left["messages"])
    assert len(left["files"]) == len(left["messages"])


def test_the_outbox_says_for_whom_its_messages_are_and_that_they_arrived(night: tuple[Shop, NightReport]) -> None:
    shop, report = night
    metadata = report.run.metadata["alerts/outbox"]
    assert sum(metadata["messages_by_channel"].values()) == metadata["messages"]
    key = dg.AssetCheckKey(OUTBOX_KEY, DELIVERIES_CHECK)
    with open_instance(shop.settings) as instance:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert report.delivery is not None
    assert record.run_id == report.delivery.run_id
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert (evaluation.passed, evaluation.metadata["delivered"].value) == (True, metadata["messages"])


def test_the_versions_of_all_metrics_are_recorded_and_checks_name_theirs(night: tuple[Shop, NightReport]) -> None:
    shop, _ = night
    store = open_store(shop.settings)
    with store.reading() as connection:
        recorded = seen(connection)
    store.close()
    metrics = shop.project.catalogue.metrics
    assert {name: [row.version for row in rows] for name, rows in recorded.items()} == {
        metric.id: [metric.version] for metric in metrics.values()
    }
    key = dg.AssetCheckKey(dg.AssetKey(["operational", "refund_rate"]), "refund_rate_surge")
    with open_instance(shop.settings) as instance:
        record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    found = record.event.dagster_event.asset_check_evaluation_data.metadata["definition_version"].value
    assert found == f"v1 ({metrics['refund_rate'].version})"


def test_a_message_names_the_version_of_the_definition_it_was_judged_by(night: tuple[Shop, NightReport]) -> None:
    shop, _ = night
    store = open_store(shop.settings)
    with store.reading() as connection:
        told = [Notice.from_json(row.payload) for row in connection.execute(outbox.select())]
    store.close()
    metric = shop.project.catalogue.metrics["orders_paid"]
    assert {one.versions for one in told if one.rule.id == "orders_there_are"} == {(f"v1 ({metric.version})",)}


def test_the_history_was_told_to_nobody(shop: Shop) -> None:
    assert outcome(shop.settings)["messages"] == []
    assert shop.history.delivery is None


def test_the_days_of_the_history_are_recorded_as_partitions(shop: Shop) -> None:
    with open_instance(shop.settings) as instance:
        days = instance.get_materialized_partitions(dg.AssetKey(["strategic", "gmv"]))
    assert len(days) == 44


def test_a_second_night_changes_nothing(night: tuple[Shop, NightReport]) -> None:
    shop, _ = night
    before = outcome(shop.settings)
    again = run_nightly(shop.settings, NIGHT, project=Project.open(shop.settings, clock))
    assert again.success, again.run.failures
    assert outcome(shop.settings) == before


def test_a_night_that_breaks_before_and_after_its_alerts_ends_as_an_undisturbed_one(
    shop: Shop, night: tuple[Shop, NightReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a real kill does in each phase is in `tests/nightly/test_kill.py`; here each step fails by itself."""
    broken = shop.copy(tmp_path / "home")
    for module, name in (
        (publish_asset, "publish"),
        (alert_assets, "forget_published"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, _raise)
            report = run_nightly(broken.settings, NIGHT, project=Project.open(broken.settings, clock))
        assert not report.run.success, name
        assert report.delivery is None
    last = run_nightly(broken.settings, NIGHT, project=Project.open(broken.settings, clock))
    assert last.success, last.run.failures
    assert outcome(broken.settings) == outcome(night[0].settings)


def test_the_sensor_starts_one_delivery_per_run_and_remembers(night: tuple[Shop, NightReport]) -> None:
    shop, report = night
    definitions = build_notify_definitions(shop.settings)
    sensor = definitions.resolve_sensor_def("alerts_written")
    with open_instance(shop.settings) as instance:
        result = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult)
        keys = [request.run_key for request in result.run_requests or []]
        told = bool(outcome(shop.settings)["messages"])
        assert keys == ([delivery_run_key(report.run.run_id)] if told else [])
        skipped = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
        assert isinstance(skipped, dg.SensorResult)
        assert not skipped.run_requests


def test_a_breached_contract_stops_what_is_downstream(shop: Shop, tmp_path: Path) -> None:
    copy = shop.copy(tmp_path / "home")
    with duckdb.connect() as con:  # nine of ten orders of the night lose their customer
        path = copy.settings.source_dir / "orders" / "2025-12.parquet"
        con.execute(
            f"COPY (SELECT * REPLACE (CASE WHEN hash(order_id) % 10 > 0 AND ordered_at >= '2025-12-13 16:00:00' THEN NULL"
            f" ELSE customer_id END AS customer_id) FROM read_parquet('{path}')) TO '{path}.new' (FORMAT parquet)"
        )
    Path(f"{path}.new").replace(path)
    report = run_nightly(copy.settings, NIGHT, project=copy.project)
    assert ("raw/order_items", "raw_contract", "ERROR") in report.run.failed_checks
    assert "dbt_daily" not in report.run.step_seconds
    assert OUTBOX_KEY.to_user_string() not in report.run.metadata
    assert report.delivery is None


def test_a_source_that_cannot_be_read_is_told_in_its_own_words(shop: Shop, tmp_path: Path) -> None:
    copy = shop.copy(tmp_path / "home")
    (copy.settings.source_dir / "orders" / "2025-12.parquet").write_text("no parquet")
    report = run_nightly(copy.settings, NIGHT, project=copy.project)
    assert not report.success
    assert any("2025-12.parquet" in failure and "Traceback" not in failure for failure in report.run.failures)


def test_an_hour_is_loaded_built_published_and_judged(shop: Shop, tmp_path: Path) -> None:
    copy = shop.copy(tmp_path / "home")
    job = _definitions(copy.project).resolve_job_def("hourly")
    with open_instance(copy.settings) as instance:
        outcome_ = run_in_process(job, instance, location="pipeline", tags={"dagster/partition": f"{NIGHT}-10:00"})
    assert outcome_.success, outcome_.failures
    frame = Published.open(copy.settings.published_dir).series("orders_placed", grain="hour", start=NIGHT)
    assert frame["period_start"].max().hour == 10


def test_tags_of_a_range_are_those_of_the_framework() -> None:
    assert partition_tags(NIGHT) == {"dagster/partition": "2025-12-14"}


def _raise(*_: object, **__: object) -> None:
    raise dg.Failure("stopped by the test", allow_retries=False)
