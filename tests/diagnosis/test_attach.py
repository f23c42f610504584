"""Diagnoses of what is red, kept with episodes: re-run safe, within a budget, and never in the way of an alert."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from metrics_pipeline.access.model import Facts, Grant, Selector, Subjects
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.diagnosis import attach as module
from metrics_pipeline.diagnosis.attach import Red, diagnose_all, keep
from metrics_pipeline.diagnosis.attached import UNEXPLAINED, explained_of
from metrics_pipeline.diagnosis.diagnose import diagnose
from metrics_pipeline.store import diagnoses as rows
from tests.alerts.builders import NOW, RECEIVERS, make_card, make_verdict
from tests.diagnosis.conftest import LAST
from tests.diagnosis.test_diagnose import NAMES
from tests.store.databases import sqlite_store

TOTAL = Red("orders_paid", "all", "all", "day", LAST)
CARD = make_card("orders_drop", metric="orders_paid")


@pytest.fixture(scope="module")
def findings(world):
    return diagnose_all(world.published, world.context, [TOTAL], now=NOW)


@pytest.fixture
def store(tmp_path):
    with sqlite_store(tmp_path) as opened:
        verdict = make_verdict("red", LAST, rule="orders_drop", metric="orders_paid", dimension="all", member="all")
        apply_verdicts(opened, [verdict], {CARD.id: CARD}, receivers=RECEIVERS, now=NOW)
        yield opened


def kept(store, findings, version="v1", now=NOW):
    with store.writing("alerts") as connection:
        return keep(connection, findings, {"orders_drop": "orders_paid"}, NAMES, data_version=version, now=now)


def told(store):
    with store.reading() as connection:
        return explained_of(connection, [f"orders_drop{{all=all}}@{LAST:%Y-%m-%dT%H:%M}"])


def test_an_open_red_episode_keeps_its_diagnosis_and_its_line(store, findings):
    [episode] = kept(store, findings)
    explained = told(store)[episode]
    assert explained.diagnosis == findings.diagnoses[TOTAL]
    assert "地区=华东 · 渠道=app" in explained.line("zh")
    assert explained.reason == ""


def test_a_second_run_on_the_same_data_writes_nothing_new(store, findings):
    kept(store, findings)
    with store.reading() as connection:
        before = rows.newest(connection, told(store))
    kept(store, findings, now=datetime(2030, 1, 1, tzinfo=UTC))
    with store.reading() as connection:
        assert rows.newest(connection, told(store)) == before


def test_no_time_left_is_a_reason_and_no_diagnosis(store, world):
    none = diagnose_all(world.published, world.context, [TOTAL], now=NOW, budget=-1.0)
    assert none.diagnoses == {}
    assert kept(store, none) == {}
    [explained] = told(store).values()
    assert explained.diagnosis is None
    assert "CPU seconds" in explained.reason


def test_a_failure_is_a_reason_and_stops_nothing(world, monkeypatch):
    def broken(*_args, **_options):
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr(module, "diagnose", broken)
    found = diagnose_all(world.published, world.context, [TOTAL], now=NOW)
    assert found.reasons == {TOTAL: "ZeroDivisionError: no such thing"}


def test_a_storm_diagnoses_the_coarsest_slices_only(world):
    reds = [TOTAL, *(Red("orders_paid", "region", one, "day", LAST) for one in ("华东", "华北", "华南"))]
    found = diagnose_all(world.published, world.context, reds, now=NOW, most=2)
    assert TOTAL in found.diagnoses
    assert len(found.diagnoses) == 2
    assert all("coarsest" in reason for reason in found.reasons.values())


def test_a_slice_is_explained_alike_alone_and_beside_others(world):
    reds = [
        TOTAL,
        Red("shipments_due", "all", "all", "day", LAST),
        Red("payment_conversion_rate", "region|channel", "华东|app", "day", LAST),
    ]
    together = diagnose_all(world.published, world.context, reds, now=NOW).diagnoses
    for one in reds:
        alone = diagnose(world.published, world.context, one.metric, one.slice, LAST, now=NOW)
        assert replace(together[one], cpu_seconds=0.0) == replace(alone, cpu_seconds=0.0), one


def test_who_may_not_see_all_it_names_sees_none_of_it(store, findings):
    [episode] = kept(store, findings)
    explained = told(store)[episode]

    def sight(**slices):
        grant = Grant(1, "person", "li", frozenset({"read"}), (Selector("metric", "orders_paid"),), slices)
        return Sight(Viewer(Subjects("li"), {"orders_paid": Facts("orders_paid")}, NOW, (grant,)), {CARD.id: CARD})

    assert explained.seen_by(sight(region=frozenset({"华东"}))) == UNEXPLAINED
    assert explained.seen_by(sight()) == UNEXPLAINED  # the pyramid names metrics that are not given
