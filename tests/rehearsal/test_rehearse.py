"""What people would have received: history through the whole engine, on a virtual clock."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rehearsal import Schedule, rehearse
from metrics_pipeline.routing.channels import ChannelCard
from metrics_pipeline.routing.load import load_routing
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import FIRST, Shop, day

ROUTES = """
route: {receiver: owner, group_by: [alertname], group_wait: 0s, group_interval: 5m, repeat_interval: 2d}
receivers: [{name: owner, channels: [file]}, {name: boss, channels: [room]}]
escalation: [{after: 6h, receiver: boss}]
ack_timeout: 24h
"""
CARDS = {name: ChannelCard(name, "file") for name in ("file", "room")}
DAYS = 77


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@pytest.fixture(scope="module")
def rules(catalogue):
    return load_rules(PROJECT_ROOT / "alert_rules", catalogue).rules


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Orders by day that fall on day 60, and for four days from day 66 on; by hour they fall for four hours of day 63."""
    daily = [200.0] * DAYS
    daily[60] = 60.0
    daily[66:70] = [60.0] * 4
    hourly = [200.0] * (DAYS * 24)
    hourly[63 * 24 + 10 : 63 * 24 + 14] = [10.0] * 4
    shop = Shop().add("orders_placed", daily).add("orders_placed", hourly, grain="hour")
    return shop.publish(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def rehearsal(published, rules, catalogue, tmp_path):
    (tmp_path / "_routes.yml").write_text(ROUTES, "utf-8")
    routing = load_routing(tmp_path, channels=CARDS)
    assert not routing.problems

    def run(*names: str, first: int = 55, last: int = DAYS - 1, **options):
        chosen = [rule for rule in rules if rule.id in names]
        cards = cards_of(chosen, catalogue.metrics)
        return rehearse(
            published,
            chosen,
            day(first),
            day(last),
            cards=cards,
            routing=routing,
            zone=UTC,
            folder=tmp_path / "sent",
            **options,
        )

    return run


def at(number: int, hour: int, minute: int = 0) -> datetime:
    """A time on the day after so many days."""
    return datetime.combine(day(number), time(hour, minute))


def said(found) -> list[tuple[datetime, str, str, str]]:
    return [(one.at, one.receiver, one.reason, one.tier) for one in found.messages]


def test_every_night_is_told_as_it_would_have_been(rehearsal, tmp_path):
    found = rehearsal("orders_anomaly")
    assert said(found) == [
        (at(61, 3), "file", "first", "red"),
        (at(61, 9), "room", "unacknowledged", "red"),
        (at(62, 3), "file", "all_resolved", "red"),
        (at(62, 3), "room", "all_resolved", "red"),
        (at(67, 3), "file", "first", "red"),
        (at(67, 9), "room", "unacknowledged", "red"),
        (at(69, 3), "file", "repeat", "red"),
        (at(69, 3), "room", "repeat", "red"),
        (at(71, 3), "file", "all_resolved", "red"),
        (at(71, 3), "room", "all_resolved", "red"),
    ]
    files = {one.parent.name for one in (tmp_path / "sent").rglob("*.html")}
    assert files == {"file", "room"}
    assert found.per_day[day(61)] == 2
    assert found.receivers["file"] == {"messages": 5, "days": 5, "median": 0.0, "mean": round(5 / 23, 3), "max": 1}
    assert [(one.receiver, one.began_at, one.ended_at) for one in found.told if one.first_period == at(60, 0)] == [
        ("file", at(61, 3), at(62, 3)),
        ("room", at(61, 9), at(62, 3)),
    ]


def test_who_acknowledges_in_the_morning_hears_the_end_only(rehearsal):
    found = rehearsal("orders_anomaly", schedule=Schedule(acknowledged=time(8, 30)))
    assert [(one.at, one.reason) for one in found.messages if one.at < at(66, 0)] == [
        (at(61, 3), "first"),
        (at(62, 3), "all_resolved"),
    ]
    assert {one.receiver for one in found.messages} == {"file"}


def test_an_hour_is_judged_ten_minutes_after_its_end(rehearsal):
    found = rehearsal("orders_drop_hourly")
    assert said(found) == [
        (at(63, 12, 10), "file", "first", "red"),
        (at(63, 15, 10), "file", "all_resolved", "red"),
    ]


def test_quiet_runs_can_be_applied_together(rehearsal):
    names = ("orders_anomaly", "orders_drop_hourly")
    days = {"first": 59, "last": 66}
    together, one_by_one = rehearsal(*names, **days), rehearsal(*names, **days, each_run=True)
    assert len(together.messages) == 8
    assert said(together) == said(one_by_one)
    assert together.told == one_by_one.told
    assert together.runs == one_by_one.runs == 8 * 25


def test_an_alert_that_still_fires_at_the_end_is_open(published, rules, catalogue, rehearsal):
    cards = cards_of(rules, catalogue.metrics)
    chosen = [rule for rule in rules if rule.id == "orders_anomaly"]
    routing = load_routing(Path("nowhere"), channels=CARDS)
    found = rehearse(published, chosen, day(55), day(68), cards=cards, routing=routing, zone=UTC)
    assert [(one.is_open, one.ended_at is None) for one in found.told] == [(False, False), (True, True)]


def test_days_without_values_have_no_messages(rehearsal, published, rules, catalogue):
    routing = load_routing(Path("nowhere"), channels=CARDS)
    chosen = [rule for rule in rules if rule.id == "orders_anomaly"]
    cards = cards_of(chosen, catalogue.metrics)
    before = FIRST - timedelta(days=10)
    found = rehearse(published, chosen, before, before + timedelta(days=5), cards=cards, routing=routing, zone=UTC)
    assert (found.messages, found.told, set(found.per_day.values())) == ((), (), {0})
