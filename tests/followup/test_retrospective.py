"""Looking back on a week and on one alert: what is in it, in both languages, and what a reader may not see."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from typer.testing import CliRunner

from metrics_pipeline.access.model import Facts, Grant, Level, Selector, Subjects
from metrics_pipeline.access.viewer import Viewer, everybody
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.notice import Point, Series
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.silencing import acknowledge
from metrics_pipeline.alerts.story import UnknownAlert
from metrics_pipeline.alerts.work_orders import close_order, give_feedback
from metrics_pipeline.cli.app import app
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.followup.page import Paper, episode_html, episode_markdown, week_html, week_markdown
from metrics_pipeline.followup.retrospective import (
    UnknownWeek,
    look_at_episode,
    look_at_week,
    metrics_looked_back_on,
    newest_week,
    parse_week,
    week_of,
)
from metrics_pipeline.orchestration.follow_up import build_retrospective_asset, build_retrospective_schedule
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import missed, open_store
from metrics_pipeline.store import rule_proposals as rows
from metrics_pipeline.store.missed import MissedRow
from tests.alerts.builders import DAY, NOW, RECEIVERS, make_card, make_verdict
from tests.store.databases import sqlite_store

WEEK = parse_week("2025-W46")
CARDS = {"refund_rate_surge": make_card(sensitivity="confidential")}
NORTH = "refund_rate_surge{region=华北}@2025-11-11T00:00"
EAST = "refund_rate_surge{region=华东}@2025-11-11T00:00"
OPEN = Sight(everybody("li", {}, now=NOW), {})
LATER = NOW + timedelta(days=6)


def series(keys):
    points = tuple(Point(DAY - timedelta(days=n), 0.03 + n % 3 / 100, 0.02, 0.06) for n in range(30, -1, -1))
    return {key: Series(points, 0.08, 0.12, key.dimension, key.member) for key in keys}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """In W46 two regions surge; 华北 is acknowledged and fixed, 华东 nobody answers; a proposal was accepted and measured, one waits."""
    home = tmp_path_factory.mktemp("home")
    store = open_store(load_settings({"METRICS_HOME": str(home)}))
    first = [make_verdict("red", 0, member="华北"), make_verdict("yellow", 0, member="华东")]
    apply_verdicts(store, first, CARDS, receivers=RECEIVERS, now=NOW, series=series)
    deliver_due(store, {"file": FileChannel(home / "messages")}, now=NOW + timedelta(minutes=6))
    acknowledge(store, NORTH, who="li", now=NOW + timedelta(hours=2), until=NOW + timedelta(days=2))
    last = [make_verdict("ok", 1, member=one) for one in ("华北", "华东")]
    apply_verdicts(store, last, CARDS, receivers=RECEIVERS, now=NOW + timedelta(days=1))
    deliver_due(store, {"file": FileChannel(home / "messages")}, now=NOW + timedelta(days=1))
    close_order(store, NORTH, "fixed", "换了承运商", who="li", now=NOW + timedelta(days=1, hours=3))
    counts = {"episodes": 9, "red": 0, "messages": 9, "true": 3, "false": 6, "expected": 0, "unanswered": 0}
    after = {**counts, "episodes": 3, "false": 0}
    weeks = [["2025-09-01", 4, 1], ["2025-09-08", 5, 2]]
    proposal = {
        "rule": "refund_rate_surge", "metric": "refund_rate", "kind": "threshold", "base": "r1", "who": "metrics",
        "changes": {"yellow_if": "> 0.09"}, "why": "six of six", "why_zh": "六次全部", "at": NOW - timedelta(days=3),
        "evidence": {"impact": {"before": counts, "after": after, "weeks": weeks, "dropped": [], "added": []}},
    }  # fmt: skip
    effect = {
        "first": "2025-11-03", "last": "2025-11-12", "days": 10, "weeks": weeks, "dropped": [], "added": [],
        "before": {"true": 3, "false": 6, "expected": 0}, "after": {"true": 3, "false": 1, "expected": 0},
        "former": {**counts, "incidents": 3, "found": 3}, "present": {**after, "incidents": 3, "found": 3},
    }  # fmt: skip
    with store.writing("proposals") as connection:
        rows.add(connection, {**proposal, "key": "a", "state": "proposed"})
        accepted = {
            "state": "accepted",
            "decided_by": "wang",
            "decided_at": NOW - timedelta(days=2),
            "note": "six quiet weeks",
        }
        rows.add(connection, {**proposal, **accepted, "key": "b", "effect": effect})
    store.close()
    return home


@pytest.fixture
def store(home):
    store = open_store(load_settings({"METRICS_HOME": str(home)}))
    yield store
    store.close()


def week(store, sight=OPEN, name=WEEK):
    return look_at_week(store, sight, name, zone=load_settings({}).zone, people={}, now=LATER)


def paper(locale="zh") -> Paper:
    return Paper(locale, load_settings({}).zone, "CNY")


def viewer(*, level=Level.EXACT, slices=None) -> Sight:
    facts = {"refund_rate": Facts("refund_rate", sensitivity="confidential")}
    grant = Grant(1, "person", "chen", frozenset({"read"}), (Selector("metric", "refund_rate"),), slices or {}, level)
    return Sight(Viewer(Subjects("chen"), facts, NOW.astimezone(UTC), (grant,)), CARDS)


def test_a_week_is_named_by_its_monday():
    assert (WEEK.first, WEEK.last, WEEK.before.name) == (date(2025, 11, 10), date(2025, 11, 16), "2025-W45")
    assert week_of(date(2026, 1, 1)).name == "2026-W01" and week_of(date(2027, 1, 1)).name == "2026-W53"
    for text in ("2025-46", "2025-W54", "now"):
        with pytest.raises(UnknownWeek, match="2025-W46"):
            parse_week(text)


def test_a_week_tells_what_happened_who_was_told_and_what_came_of_it(store):
    look = week(store)
    assert (look.figures.alerts, look.figures.red, look.figures.true, look.figures.open) == (2, 1, 1, 0)
    assert look.before.alerts == 0
    assert look.days[2] == (date(2025, 11, 12), 1, 1)
    case = look.cases[0]
    assert (case.key, case.outcome, case.told[0].receiver) == (NORTH, "true", "file")
    assert case.acted_at == NOW + timedelta(hours=2)
    assert case.order is not None and case.order.close_note == "换了承运商"
    assert case.series is not None and len(case.series.points) == 31
    assert json.loads(json.dumps(look.as_json(), default=str))["cases"][0]["order"]["close_reason"] == "fixed"


def test_pages_use_the_metrics_of_their_alerts_as_far_as_the_reader_sees_these(store):
    def used(sight, *weeks):
        with store.reading() as connection:
            return metrics_looked_back_on(connection, sight, weeks, zone=load_settings({}).zone)

    assert used(OPEN, WEEK.before, WEEK) == [("refund_rate", "2025-W46")]
    assert used(OPEN, WEEK.before) == used(viewer(slices={"region": frozenset({"华南"})}), WEEK) == []
    assert used(viewer(level=Level.HIDDEN, slices={"region": frozenset({"华东"})}), WEEK) == [
        ("refund_rate", "2025-W46")
    ]


def test_a_kept_page_is_a_use_of_its_metrics(home, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(home))
    runner = CliRunner()
    before = json.loads(runner.invoke(app, ["library", "usage", "refund_rate", "--json"]).stdout)["metrics"][0]
    page = home / "retrospectives" / "2025-W46.html"
    page.parent.mkdir(exist_ok=True)
    assert runner.invoke(app, ["retrospective", "--week", "2025-W46", "--html", str(page)]).exit_code == 0
    after = json.loads(runner.invoke(app, ["library", "usage", "refund_rate", "--json"]).stdout)["metrics"][0]
    assert after["by_kind"] == {**before["by_kind"], "report": ["retrospective 2025-W46"]}
    assert after["uses"] == before["uses"] + 1
    assert "retrospective 2025-W46" in runner.invoke(app, ["library", "usage", "refund_rate"]).stdout


def test_the_night_of_sunday_is_in_the_page_of_monday_and_what_only_this_week_has_is_shown_by_default(tmp_path):
    zone = load_settings({}).zone
    with sqlite_store(tmp_path) as store:
        monday = datetime(2025, 11, 17, 2, 40, tzinfo=zone)
        apply_verdicts(store, [make_verdict("red", 5)], CARDS, receivers=RECEIVERS, now=monday)
        assert week(store).figures.alerts == 1
        assert week(store).days[6] == (date(2025, 11, 16), 0, 1)
        for later, name in (
            (timedelta(hours=6), "2025-W46"),
            (timedelta(days=8), "2025-W47"),
            (timedelta(days=15), "2025-W48"),
        ):
            assert newest_week(store, OPEN, zone=zone, now=monday + later).name == name
        apply_verdicts(
            store,
            [make_verdict("red", 14, member="华南")],
            CARDS,
            receivers=RECEIVERS,
            now=monday + timedelta(days=14, hours=11),
        )
        assert newest_week(store, OPEN, zone=zone, now=monday + timedelta(days=15)).name == "2025-W49"


def test_what_a_backfill_recorded_and_told_nobody_is_nobodys_week_until_somebody_speaks_of_it(tmp_path):
    with sqlite_store(tmp_path) as store:
        apply_verdicts(store, [make_verdict("red", 0)], CARDS, receivers=RECEIVERS, now=NOW, silent=True)
        tomorrow = NOW + timedelta(days=1)
        apply_verdicts(store, [make_verdict("red", 1, member="华东")], CARDS, receivers=RECEIVERS, now=tomorrow)
        assert [one.member for one in week(store).cases] == ["华东"]
        give_feedback(store, NORTH, is_useful=False, reason="false alarm", who="li", now=NOW)
        assert {one.member for one in week(store).cases} == {"华东", "华北"}


def test_what_nobody_was_told_of_is_in_the_week_for_who_may_see_it(tmp_path):
    with sqlite_store(tmp_path) as store:
        with store.writing("missed") as connection:
            for day, member in ((12, "华北"), (19, "华东")):
                on = date(2025, 11, day)
                missed.add(connection, MissedRow(0, "refund_rate", "region", member, on, on, "价格写错", "li", NOW))
        look = week(store)
        assert [one.member for one in look.missed] == ["华北"]
        said = "2025-11-12 refund_rate (地区=华北): 价格写错 (li)"
        assert said in week_markdown(look, paper()) and said in week_html(look, paper())
        assert "nobody was told" in week_markdown(look, paper("en"))
        assert json.loads(json.dumps(look.as_json(), default=str))["missed"][0]["starts_on"] == "2025-11-12"
        hidden = week(store, viewer(slices={"region": frozenset({"华东"})}))
        assert hidden.missed == () and "价格写错" not in week_html(hidden, paper())


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (
            "zh",
            (
                "周报警复盘",
                "红色",
                "换了承运商",
                "首次响应",
                "六次全部",
                "采纳后 10 天：不必要的报警 6 → 1",
                "已标注事件发现 3/3 → 3/3",
            ),
        ),
        ("en", ("Weekly alert retrospective", "first acted on", "six of six", "10 days since: unneeded alerts 6 → 1")),
    ],
)
def test_the_page_of_a_week_stands_alone_in_both_languages(store, locale, words):
    text = week_html(week(store), paper(locale))
    for one in (*words, "data:image/svg+xml;base64,", "<svg", "six quiet weeks"):
        assert one in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text) and "<script" not in text
    assert "{{" not in text and "None" not in text


def test_markdown_says_the_same_without_pictures(store):
    text = week_markdown(week(store), paper("en"))
    assert "| alerts | 2 | 0 |" in text and "换了承运商" in text and "data:image" not in text
    assert "No alert opened" in week_markdown(week(store, name=parse_week("2025-W40")), paper("en"))


def test_one_alert_is_told_from_its_breach_to_its_outcome(store):
    look = look_at_episode(store, OPEN, NORTH, zone=load_settings({}).zone, people={}, now=LATER)
    text = episode_markdown(look, paper("en"))
    order = [text.index(one) for one in ("firing red", "first → file", "→ ok", "closed: fixed: 换了承运商")]
    assert order == sorted(order)
    zh = episode_markdown(look, paper("zh"))
    order = [zh.index(one) for one in ("报警 红色", "新报警 → file", "→ 正常", "关闭：已修复: 换了承运商")]
    assert order == sorted(order) and "firing" not in zh
    assert "how it went" in episode_html(look, paper("en")).lower()
    with pytest.raises(UnknownAlert, match="there is no alert"):
        look_at_episode(store, OPEN, NORTH.replace("11-11", "11-10"), zone=load_settings({}).zone, people={}, now=LATER)


def test_who_may_see_one_region_reads_of_that_region_only(store):
    look = week(store, viewer(slices={"region": frozenset({"华东"})}))
    text = week_html(look, paper())
    assert [one.key for one in look.cases] == [EAST]
    assert "华北" not in text and "换了承运商" not in text
    assert look.proposals == () and look.figures.alerts == 1
    with pytest.raises(UnknownAlert):
        look_at_episode(
            store,
            viewer(slices={"region": frozenset({"华东"})}),
            NORTH,
            zone=load_settings({}).zone,
            people={},
            now=LATER,
        )


def test_who_may_know_but_not_read_values_gets_neither_numbers_nor_pictures_nor_bounds(store):
    look = week(store, viewer(level=Level.HIDDEN))
    text = week_html(look, paper())
    assert len(look.cases) == 2 and all(one.value is None and one.series is None for one in look.cases)
    assert "13.2%" not in text and "受限" in text and "data:image" not in text
    assert look.proposals == ()


def test_the_command_writes_a_page_and_names_what_it_does_not_know(home, tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(home))

    def run(*arguments: str):
        found = CliRunner().invoke(app, ["retrospective", *arguments])
        return found.exit_code, found.stdout, found.stderr

    page = tmp_path / "out" / "week.html"
    assert run("--week", "2025-W46", "--html", str(page), "--lang", "en")[0] == 0
    assert "Weekly alert retrospective 2025-W46" in page.read_text("utf-8")
    assert json.loads(run("--week", "2025-W46", "--json")[1])["figures"]["alerts"] == 2
    assert "华北" in run("--episode", NORTH)[1]
    assert run("--week", "46")[0] == 2 and run("--week", "2025-W46", "--episode", NORTH)[0] == 2
    code, _, err = run("--episode", "nothing@2025")
    assert code == 1 and "nothing" in err


def test_the_asset_draws_the_week_that_ended_without_confidential_values(home):
    settings = load_settings({"METRICS_HOME": str(home)})
    asset = build_retrospective_asset(settings)
    [schedule] = build_retrospective_schedule(settings)
    monday = datetime(2025, 11, 17, 0, 0, tzinfo=UTC)
    asked = schedule(dg.build_schedule_context(scheduled_execution_time=monday))
    assert (asked.run_key, asked.tags["metrics/week"]) == ("2025-W46", "2025-W46")
    done = dg.materialize([asset], tags=asked.tags, instance=dg.DagsterInstance.ephemeral())
    metadata = done.asset_materializations_for_node("followup__retrospective")[0].metadata
    assert metadata["alerts"].value == 2
    assert "周报警复盘 2025-W46" in (home / "retrospectives" / "2025-W46.html").read_text("utf-8")
    assert "13.2%" not in metadata["retrospective"].value and "华北" in metadata["retrospective"].value
