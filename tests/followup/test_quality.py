"""What people said of alerts, and how good that makes each rule."""

from __future__ import annotations

from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

import pytest

from metrics_pipeline.access.model import Facts, Grant, Level, Selector, Subjects
from metrics_pipeline.access.viewer import Viewer, everybody
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.alerts.silencing import acknowledge
from metrics_pipeline.alerts.work_orders import close_order, give_feedback
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.followup.answers import read_answers
from metrics_pipeline.followup.quality import interval, read_quality
from metrics_pipeline.rule_tests.night import fresh_store
from tests.alerts.builders import NOW, RECEIVERS, make_card, make_verdict

ZONE = ZoneInfo("Asia/Shanghai")
MEMBERS = ("华北", "华东", "华南", "西北")
CARDS = {"refund_rate_surge": make_card()}
OPEN = Sight(everybody("li", {}, now=NOW), {})
SPAN = {"since": NOW - timedelta(days=1), "until": NOW + timedelta(days=30)}


@pytest.fixture
def store(tmp_path):
    """Four regions fire on one night and end on the next; 华北 is acknowledged after two hours."""
    with fresh_store(tmp_path, "store") as store:
        first = [make_verdict("red", 0, member=one) for one in MEMBERS]
        apply_verdicts(store, first, CARDS, receivers=RECEIVERS, now=NOW)
        deliver_due(store, {"file": FileChannel(tmp_path / "file")}, now=NOW + timedelta(minutes=6))
        acknowledge(
            store, key("华北"), who="li", now=NOW + timedelta(hours=2, minutes=6), until=NOW + timedelta(days=2)
        )
        last = [make_verdict("ok", 1, member=one) for one in MEMBERS]
        apply_verdicts(store, last, CARDS, receivers=RECEIVERS, now=NOW + timedelta(days=1))
        yield store


def key(member: str) -> str:
    return f"refund_rate_surge{{region={member}}}@2025-11-11T00:00"


def answers(store, sight=OPEN):
    with store.reading() as connection:
        return read_answers(connection, sight, **SPAN).set_index("member")


def quality(store, sight=OPEN, **options):
    with store.reading() as connection:
        return read_quality(connection, sight, zone=ZONE, **{**SPAN, **options})


def say(store, member: str, is_useful: bool, reason: str = "", who: str = "li", hours: int = 5) -> None:
    at = NOW + timedelta(hours=hours)
    give_feedback(store, key(member), is_useful=is_useful, reason=reason, who=who, now=at)


def test_an_episode_nobody_spoke_of_is_unanswered_and_in_no_share(store):
    assert set(answers(store)["outcome"]) == {"unanswered"}
    [rule] = quality(store).rules
    assert (rule.episodes, rule.unanswered, rule.answered, rule.precision) == (4, 4, 0, None)


def test_the_newest_word_counts_whoever_said_it(store):
    say(store, "华北", True)
    say(store, "华北", False, "price test", who="wang", hours=6)
    row = answers(store).loc["华北"]
    assert (row["outcome"], row["said_by"], row["said"]) == ("false", "wang", "price test")


def test_a_closed_order_answers_and_a_data_problem_is_set_aside(store):
    close_order(store, key("华东"), "expected", "大促", who="li", now=NOW + timedelta(hours=8))
    close_order(store, key("华南"), "data_problem", "丢数", who="li", now=NOW + timedelta(hours=8))
    found = answers(store)["outcome"]
    assert (found["华东"], found["华南"], found["西北"]) == ("expected", "aside", "unanswered")


def test_precision_counts_only_answers_and_says_how_sure_it_is(store):
    say(store, "华北", True)
    say(store, "华东", False)
    say(store, "华南", False, "expected")
    [rule] = quality(store).rules
    assert (rule.true, rule.false, rule.expected, rule.unanswered) == (1, 1, 1, 1)
    assert rule.precision == pytest.approx(1 / 3)
    assert rule.precision_low < 0.12 and rule.precision_high > 0.65
    assert interval(30, 90)[0] > rule.precision_low


def test_delays_are_from_the_end_of_the_period_to_the_night_to_the_message_to_a_person(store):
    [rule] = quality(store).rules
    # the period of 2025-11-11 ended at 2025-11-12 00:00 in Shanghai, the night was at 02:40 UTC = 10:40
    assert rule.hours_to_open == pytest.approx(10 + 40 / 60)
    assert rule.hours_to_tell == pytest.approx(0.1)
    assert rule.hours_to_act == pytest.approx(
        2.0
    )  # the acknowledgement ended with its episode, and is known all the same


def test_messages_are_counted_by_rule_and_by_person_and_week(store):
    found = quality(store)
    assert found.rules[0].messages == 1
    assert [(one.receiver, one.week, one.messages, one.red) for one in found.loads] == [("file", "2025-W46", 1, 1)]


def test_who_may_see_one_region_gets_the_figures_of_that_region_only(store):
    say(store, "华北", True)
    say(store, "华东", False)
    facts = {"refund_rate": Facts("refund_rate")}
    grant = Grant(
        1, "person", "chen", frozenset({"read"}), (Selector("metric", "refund_rate"),),
        {"region": frozenset({"华北"})}, Level.EXACT,
    )  # fmt: skip
    chen = Sight(Viewer(Subjects("chen"), facts, NOW.astimezone(UTC), (grant,)), CARDS)
    found = quality(store, chen)
    assert [(one.rule, one.episodes, one.true, one.false, one.messages) for one in found.rules] == [
        ("refund_rate_surge", 1, 1, 0, 0)
    ]
    assert found.loads == ()
    nobody = Sight(Viewer(Subjects("chen"), facts, NOW.astimezone(UTC)), CARDS)
    assert quality(store, nobody).rules == ()
