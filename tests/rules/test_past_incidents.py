"""Past incidents leave the baselines: from the Monday after it was known that they were, in the night and in a replay."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.work_orders import close_order, give_feedback
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.past_incidents import past_incidents
from metrics_pipeline.rules.replay import verdict_pieces
from tests.alerts.builders import RECEIVERS, make_card, make_verdict
from tests.rules.shop import FIRST, NOW, Shop, make_rule
from tests.store.databases import sqlite_store

DAYS, OUTAGE, LATER = 140, range(112, 119), 126
BAND = "band(seasonal, weeks=8, promotions=widen)"
ZONE = ZoneInfo("Asia/Shanghai")
CARD = make_card("orders_drop", metric="orders_paid")
WEEK = np.array([0.9, 0.95, 1, 1, 1.05, 1.2, 1.1])


def day(number: int) -> datetime:
    return datetime.combine(FIRST + timedelta(days=number), datetime.min.time())


def night(number: int) -> datetime:
    """The night that judges a day, three o'clock after it in the shop."""
    return (day(number + 1) + timedelta(hours=3)).replace(tzinfo=ZONE).astimezone(UTC)


def publish(folder, *, missing=False):
    """Four regions; in one of them nearly nothing for a week (or no values at all), four weeks before the end."""
    shop, random = Shop(), np.random.default_rng(4)
    for member in ("east", "north", "south", "west"):
        values = random.poisson(400 * WEEK[np.arange(DAYS) % 7]).astype(float).tolist()
        if member == "north":
            values[OUTAGE.start : OUTAGE.stop] = ["missing" if missing else 0.1 * values[n] for n in OUTAGE]
        shop.add("orders_paid", values, dimension="region", member=member)
    return shop.publish(folder)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return publish(tmp_path_factory.mktemp("outage"))


@pytest.fixture
def store(tmp_path):
    """Alerts on the outage and, in another region, on one day on which nothing was wrong; both are over."""
    with sqlite_store(tmp_path) as opened:
        for number in range(OUTAGE.start, OUTAGE.stop + 1):
            tier = "red" if number in OUTAGE else "ok"
            alert(opened, number, "north", tier)
        for number, tier in ((100, "red"), (101, "ok")):
            alert(opened, number, "east", tier)
        yield opened


def alert(store, number, member, tier):
    verdict = make_verdict(
        tier, day(number), rule=CARD.id, metric="orders_paid", dimension="region", member=member, value=40.0
    )
    apply_verdicts(store, [verdict], {CARD.id: CARD}, receivers=RECEIVERS, now=night(number))


def episode(member, number):
    return f"{CARD.id}{{region={member}}}@{day(number):%Y-%m-%dT%H:%M}"


def known(store, first=0):
    with store.reading() as connection:
        return past_incidents(connection, ZONE, first=day(first).date())


def judged(published, expr, number, incidents=()):
    rule = make_rule(by="region", expr=expr)
    found = evaluate(published, [rule], day(number), day(number + 1), evaluated_at=NOW, run_id="r", incidents=incidents)
    return found.frame().set_index("member")


def test_a_repaired_outage_of_last_month_does_not_lower_what_is_expected_now(published, store):
    close_order(store, episode("north", OUTAGE.start), reason="fixed", note="restarted", who="li", now=night(120))
    incidents = known(store)
    assert [(one.member, one.first_period, one.last_period) for one in incidents] == [("north", day(112), day(118))]
    before, after = judged(published, "anomaly()", LATER), judged(published, "anomaly()", LATER, incidents)
    expected = 400 * WEEK[LATER % 7]
    assert before.loc["north", "baseline"] < 0.95 * expected
    assert after.loc["north", "baseline"] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("expr", [BAND, "quantile(60d, 0.1)"])
def test_an_incident_is_as_if_its_days_were_missing(published, store, tmp_path, expr):
    close_order(store, episode("north", OUTAGE.start), reason="fixed", note="restarted", who="li", now=night(120))
    missing = publish(tmp_path / "missing", missing=True)
    before, after, none = (
        judged(*one)
        for one in ((published, expr, LATER), (published, expr, LATER, known(store)), (missing, expr, LATER))
    )
    columns = ["baseline", "lower" if expr == BAND else "yellow_bound"]
    assert after.loc["north", columns].to_list() == pytest.approx(none.loc["north", columns].to_list())
    assert before.loc["north", columns].to_list() != pytest.approx(none.loc["north", columns].to_list())


@pytest.mark.parametrize("reason", ["false_alarm", "expected", "data_problem"])
def test_what_was_no_incident_is_learned_from(store, reason):
    close_order(store, episode("north", OUTAGE.start), reason=reason, note="a test", who="li", now=night(120))
    assert known(store) == ()


def test_the_newest_word_counts_from_the_monday_after_it(store):
    key = episode("north", OUTAGE.start)
    give_feedback(store, key, is_useful=True, reason="seen", who="li", now=night(119))
    give_feedback(store, key, is_useful=False, reason="expected", who="wang", now=night(126))
    [one] = known(store)
    assert (one.known_from, one.known_until) == (day(126), day(133))  # days 0, 7, … are Mondays
    assert not one.is_known(day(125))
    assert one.is_known(day(132))


def test_an_open_episode_is_no_past_one(store):
    alert(store, 121, "west", "red")
    give_feedback(store, episode("west", 121), is_useful=True, reason="seen", who="li", now=night(121))
    assert known(store) == ()


@pytest.mark.parametrize("expr", ["anomaly()", BAND])
def test_a_replay_says_what_the_nights_said_with_what_they_knew(published, store, expr):
    """The night of a day knows nothing of what was said in its own week, neither does a later re-run, nor a replay."""
    close_order(store, episode("north", OUTAGE.start), reason="fixed", note="restarted", who="li", now=night(123))
    incidents = known(store)
    rule = make_rule(by="region", expr=expr)
    pieces = verdict_pieces(published, [rule], day(119), day(DAYS), errors={}, incidents=incidents)
    rows = [row for _, table in pieces for row in table.select(["member", "period_start", "baseline"]).to_pylist()]
    replayed = {(row["member"], row["period_start"]): row["baseline"] for row in rows}
    assert len(replayed) == 4 * (DAYS - 119)
    for number, knew in ((125, ()), (126, incidents), (133, incidents)):
        of_night = judged(published, expr, number, knew)
        for member in of_night.index:
            assert replayed[member, day(number)] == pytest.approx(of_night.loc[member, "baseline"], rel=1e-4)
