from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))
from shop import NOW, Shop, day, make_rule, weekly_wave

from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.replay import Label, LabelError, compatible, read_labels, replay, slice_of
from metrics_pipeline.rules.replay_page import replay_page, timeline_svg, weekly_svg
from metrics_pipeline.rules.report import replay_tables, summary_table


def label(first: int, last: int, **keys: object) -> Label:
    values = {
        "id": f"incident_{first}", "kind": "sales_drop", "scenario": "sales_drop", "metrics": ["orders_paid"],
        "direction": "down", "dimension": "region", "member": "a", "starts_on": day(first), "ends_on": day(last),
    }  # fmt: skip
    return Label.model_validate({**values, **keys})


def published(tmp_path, low: dict[int, float], days: int = 60, member: str = "a"):
    values = [low.get(n, 100.0) for n in range(days)]
    shop = Shop().add("orders_paid", values, dimension="region", member=member)
    return shop.add("orders_paid", [100.0] * days, dimension="region", member="b").publish(tmp_path / "published")


RULE = make_rule(by=["region"], yellow_if="< 50", red_if="< 25")


def test_breaches_that_follow_each_other_are_one_episode(tmp_path):
    found = replay(published(tmp_path, {10: 40.0, 11: 20.0, 13: 30.0, 20: 45.0}), [RULE], day(0), day(60))
    first, second = found.episodes
    assert (first.fired_at, first.last_breach, first.breaches, first.reds) == (dt(10), dt(13), 3, 1)
    assert (first.worst_period, first.worst_value, first.tier, first.red_at) == (dt(11), 20.0, "red", dt(11))
    assert (second.fired_at, second.tier) == (dt(20), "yellow")
    assert found.rules[0].firings_per_week == pytest.approx(2 / (60 / 7))
    told = {n: found.messages_per_day[day(n)] for n in (10, 11, 12, 20)}
    assert told == {10: 1, 11: 1, 12: 0, 20: 1}
    assert found.median_messages_per_day == 0


def dt(n: int) -> datetime:
    return datetime.combine(day(n), datetime.min.time())


def test_for_needs_periods_in_a_row(tmp_path):
    rule = RULE.model_copy(update={"hold": 2})
    found = replay(published(tmp_path, {10: 40.0, 12: 40.0, 20: 40.0, 21: 40.0, 22: 40.0}), [rule], day(0), day(60))
    assert [episode.fired_at for episode in found.episodes] == [dt(21)]


@pytest.mark.parametrize(("patience", "episodes"), [(0, [10, 14]), (2, [10, 14]), (3, [10])])
def test_a_rule_that_keeps_firing_has_one_episode_through_quiet_periods(tmp_path, patience, episodes):
    rule = RULE.model_copy(update={"keep_firing_for": patience})
    found = replay(published(tmp_path, {10: 40.0, 14: 40.0}), [rule], day(0), day(60))
    assert [episode.fired_at for episode in found.episodes] == [dt(n) for n in episodes]


def test_replay_says_what_the_nights_said(tmp_path):
    values = weekly_wave(120)
    for n in (70, 71, 90, 110):
        values[n] *= 3
    shop = Shop().add("orders_paid", values).publish(tmp_path / "published")
    rules = [
        make_rule(alert=f"rule_{n}", expr=e, yellow_if=t)
        for n, (e, t) in enumerate(
            (("band(seasonal)", "outside 5"), ("pct_change(7d)", "> 1"), ("quantile(60d, 0.9)", "> 0.5"))
        )
    ]
    nightly = set()
    for n in range(60, 120, 2):
        frame = evaluate(shop, rules, day(n), day(n + 2), evaluated_at=NOW, run_id="x").breaches()
        nightly |= set(zip(frame.rule, frame.period_start, strict=True))
    whole = evaluate(shop, rules, day(60), day(120), evaluated_at=NOW, run_id="x").breaches()
    assert set(zip(whole.rule, whole.period_start, strict=True)) == nightly
    found = replay(shop, rules, day(60), day(120))
    assert sum(rule.yellow for rule in found.rules) == len(nightly)


def test_recall_precision_and_delay(tmp_path):
    labels = [
        label(10, 12),
        label(30, 31),
        label(40, 41, member="b"),
        label(50, 51, is_harmless=True, metrics=[], kind="promotion", scenario="promotion"),
        label(5, 6, metrics=["sessions"], scenario="traffic_pressure", kind="bots"),
    ]
    low = {11: 40.0, 12: 40.0, 50: 40.0, 20: 40.0}
    found = replay(published(tmp_path, low), [RULE], day(0), day(60), labels=labels)
    scores = {(score.by, score.name): score for score in found.scores}
    whole = scores["all", "all"]
    assert (whole.incidents, whole.found, whole.episodes, whole.true_episodes, whole.harmless_episodes) == (
        3,
        1,
        3,
        1,
        1,
    )
    assert (whole.recall, whole.precision, whole.median_delay_days) == (pytest.approx(1 / 3), pytest.approx(1 / 3), 1.0)
    assert scores["rule", "orders_low"].recall == pytest.approx(1 / 3)
    assert scores["scenario", "traffic_pressure"].recall is None
    assert [missed.id for missed in found.missed] == ["incident_30", "incident_40"]
    assert [other.id for other in found.unasked] == ["incident_5"]


def test_slices_contradict_only_in_what_both_name():
    whole, north, app = slice_of("all", "all"), slice_of("region", "华北"), slice_of("channel", "app")
    both = slice_of("region|channel", "华北|web")
    assert compatible(whole, north)
    assert compatible(north, app)
    assert compatible(north, both)
    assert not compatible(app, both)
    assert not compatible(north, slice_of("region", "华南"))


def test_labels_are_read_with_line_numbers(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(label(3, 4).model_dump_json() + "\n\n" + json.dumps({"id": "x"}) + "\n", "utf-8")
    with pytest.raises(LabelError, match=r"labels\.jsonl:3: "):
        read_labels(path)
    path.write_text(label(3, 4).model_dump_json() + "\n", "utf-8")
    assert read_labels(path) == (label(3, 4),)
    with pytest.raises(LabelError, match="give the file"):
        read_labels(tmp_path / "nothing")


def test_weeks_begin_on_monday_and_count_firings(tmp_path):
    found = replay(published(tmp_path, {0: 40.0, 10: 40.0, 13: 20.0, 59: 40.0}), [RULE], day(0), day(60))
    assert len(found.weeks) == 9
    assert {str(monday): dict(of_week) for monday, of_week in found.weeks if of_week} == {
        "2025-01-06": {"orders_low": 1}, "2025-01-13": {"orders_low": 2}, "2025-03-03": {"orders_low": 1},
    }  # fmt: skip
    late = replay(published(tmp_path / "b", {9: 40.0}), [RULE], day(8), day(10))
    assert [str(monday) for monday, _ in late.weeks] == ["2025-01-13"]


def test_progress_ends_at_one(tmp_path):
    told: list[float] = []
    replay(published(tmp_path, {}), [RULE], day(0), day(60), progress=told.append)
    assert told == sorted(told)
    assert len(told) == 3
    assert told[-1] == 1.0


def test_the_page_shows_episodes_and_labels(tmp_path):
    labels = [
        label(10, 12),
        label(30, 31),
        label(50, 51, is_harmless=True, metrics=[], kind="sale", scenario="promotion"),
    ]
    shop = published(tmp_path, {11: 40.0, 12: 20.0, 50: 40.0}, member="<a&b>")
    found = replay(shop, [RULE], day(0), day(60), labels=labels)
    page = replay_page(found, labels)
    assert page.startswith("<!doctype html>")
    assert "&lt;a&amp;b&gt;" in page
    assert "<a&b>" not in page
    for text in ("orders_low", "incident_30", "每周触发次数", "Firings per week"):
        assert text in page
    for drawing in (weekly_svg(found), timeline_svg(found, labels)):
        ElementTree.fromstring(drawing)
    assert weekly_svg(found).count("<rect") == 2
    nothing = replay(published(tmp_path / "quiet", {}), [RULE], day(0), day(60))
    assert "nothing fired" in replay_page(nothing)


def test_the_tables_are_printed(tmp_path):
    shop = published(tmp_path, {10: 20.0})
    found = replay(shop, [RULE], day(0), day(60), labels=[label(10, 10)])
    console = Console(record=True, width=160)
    for table in (
        *replay_tables(found),
        summary_table(evaluate(shop, [RULE], day(10), day(11), evaluated_at=NOW, run_id="x").summary()),
    ):
        console.print(table)
    text = console.export_text()
    assert "orders_low" in text
    assert "100%" in text
    assert len(found.frame()) == 1
    assert list(found.episode_frame().tier) == ["red"]
