"""Mistakes that other alerting systems made with their state (alerting.md §8), each as a test that it is not made here."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd
import pytest
import sqlalchemy as sa

from metrics_pipeline.alerts import apply, apply_verdicts
from metrics_pipeline.alerts.listing import alert_history, current_alerts, episode_history
from metrics_pipeline.alerts.state import Policy
from metrics_pipeline.store.tables import alert_instances, episodes, outbox
from tests.alerts.builders import NOW, day, make_card, make_verdict
from tests.alerts.crash import dump

INSTANCE = "refund_rate_surge{region=华北}"


def tick(store, *verdicts, policy=None, night=0, frame=None, **options):
    cards = {"refund_rate_surge": make_card(policy=policy or Policy())}
    given = verdicts if frame is None else frame
    return apply_verdicts(store, given, cards, receivers=("file",), now=NOW + timedelta(days=night), **options)


def count(store, table) -> int:
    with store.reading() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_the_state_is_advanced_although_nobody_can_be_told(store, monkeypatch):
    """Elsewhere: the state or a watermark is advanced before the send; when that fails the alert is lost."""
    before = dump(store)

    def die(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(apply, "dispatch", die)
    with pytest.raises(OSError, match="disk is full"):
        tick(store, make_verdict("red"))
    assert dump(store) == before
    monkeypatch.undo()
    assert len(tick(store, make_verdict("red")).notifications) == 1


@pytest.mark.parametrize("reason", ["null_value", "empty", "late", "missing_slice"])
def test_an_empty_result_or_a_null_becomes_zero(store, reason):
    """Elsewhere: an empty result or NULL becomes 0.0, and fires or hides an alert."""
    tick(store, make_verdict("red", 0))
    tick(store, make_verdict("no_data", 1, reason=reason), night=1)
    [alert] = current_alerts(store, states=["no_data"])
    assert (alert.value, alert.tier, alert.reason) == (None, "red", reason)
    assert [one.close_reason for one in episode_history(store)] == [None]


def test_a_nan_in_a_frame_becomes_zero(store):
    """Elsewhere: an empty result or NULL becomes 0.0; a frame's NaN is the same absence."""
    frame = pd.DataFrame([make_verdict("ok", value=None, observed=None)._asdict()])
    frame["value"] = frame["value"].astype(float)
    tick(store, frame=frame)
    with store.reading() as connection:
        assert connection.execute(sa.select(alert_instances.c.value, alert_instances.c.observed)).one() == (None, None)


def test_the_key_of_an_alert_has_its_severity(store):
    """Elsewhere: yellow and red are two alerts, and a resolved yellow or a suppressed one hides the red."""
    for night, tier in enumerate(["yellow", "red", "yellow"]):
        tick(store, make_verdict(tier, night), night=night)
    assert (count(store, alert_instances), count(store, episodes)) == (1, 1)
    assert [one.reason for one in alert_history(store)] == ["de_escalate", "escalate", "breach"]


def test_a_window_looks_at_the_future(store):
    """Elsewhere: a smoothing window ordered the wrong way looks at the future, or does nothing."""
    tiers = ["yellow", "yellow", "ok", "yellow"]
    verdicts = [make_verdict(tier, number) for number, tier in enumerate(tiers)]
    tick(store, *reversed(verdicts), policy=Policy(hold=2))
    [episode] = episode_history(store)
    assert (episode.first_period, episode.last_period) == (day(0), day(1))
    assert [alert.state for alert in current_alerts(store, states=["pending"])] == ["pending"]


def test_a_rerun_alerts_again(store):
    """Elsewhere: a re-run alerts again, and a re-score doubles the table."""
    night = [make_verdict("red"), make_verdict("unknown", member="华东"), make_verdict("ok", member="华南")]
    tick(store, *night)
    before = dump(store)
    for _ in range(3):
        report = tick(store, *night, night=1)
        assert (report.applied, report.notifications, report.orders) == (0, (), ())
    assert dump(store) == before


def test_a_rerun_after_an_error_judges_the_rest_twice(store):
    """Elsewhere: one slice fails, the whole batch is applied again; here only the slice that could not be judged."""
    failed = [make_verdict("yellow"), make_verdict("unknown", member="华东")]
    tick(store, *failed, policy=Policy(hold=2))
    tick(store, make_verdict("ok", 1), make_verdict("ok", 1, member="华东"), policy=Policy(hold=2), night=1)
    mended = [make_verdict("yellow"), make_verdict("yellow", member="华东")]
    report = tick(store, *mended, policy=Policy(hold=2), night=2)
    assert (report.repeated, report.past) == (1, 1)
    assert [one.instance for one in episode_history(store)] == ["refund_rate_surge{region=华东}"]
    assert tick(store, *mended, policy=Policy(hold=2), night=3).repeated == 2


def test_a_restated_value_is_averaged_with_the_old_one(store):
    """Elsewhere: a restated value is averaged with the old one; a period counts once for each time it is judged."""
    for version, value in enumerate([0.09, 0.10, 0.11], start=1):
        tick(store, make_verdict("yellow", v=version, value=value), policy=Policy(hold=2))
    [alert] = current_alerts(store, states=["pending"])
    assert (alert.value, alert.state) == (0.11, "pending")
    assert count(store, outbox) == 0


def test_a_slice_that_vanishes_is_resolved(store):
    """Elsewhere: "resolved" is sent because a series vanished, or because its check failed."""
    tick(store, make_verdict("red", 0), make_verdict("red", 0, member="华东"))
    tick(store, make_verdict("no_data", 1), night=1)
    tick(store, make_verdict("unknown", 2, reason="upstream_failed"), night=2)
    tick(store, make_verdict("ok", 3, member="华东"), night=3)
    open_ones = episode_history(store, is_open=True)
    assert [one.instance for one in open_ones] == [INSTANCE]
    assert [one.reason for one in alert_history(store, instance=INSTANCE)] == ["error", "missing_slice", "breach"]


def test_a_refired_alert_keeps_its_old_start(store):
    """Elsewhere: a re-fired alert keeps its old start, so `for` is skipped."""
    for night, tier in enumerate(["red", "red", "ok", "red"]):
        tick(store, make_verdict(tier, night), policy=Policy(hold=2), night=night)
    [alert] = current_alerts(store, states=["pending", "firing"])
    assert (alert.state, alert.since_period) == ("pending", day(3))
    tick(store, make_verdict("red", 4), policy=Policy(hold=2), night=4)
    [alert] = current_alerts(store)
    assert (alert.state, alert.since_period) == ("firing", day(3))


def test_a_changed_rule_forgets_what_fires(store):
    """Elsewhere: editing a rule resets its alerts: "resolved", then "firing" again."""
    tick(store, make_verdict("red", 0))
    report = tick(store, make_verdict("red", 1, rule_hash="r2"), night=1)
    assert (report.closed, report.notifications, report.transitions) == (0, (), {"rule_changed": 1})
    assert [one.reason for one in alert_history(store)] == ["rule_changed", "breach"]


def test_a_backfill_pages_people_with_the_past(store):
    """Elsewhere: a backfill sends a hundred old alerts, or opens tickets for them."""
    report = tick(store, *(make_verdict("red" if n % 3 else "ok", n) for n in range(40)), silent=True)
    assert (report.notifications, report.orders) == ((), ())
    assert report.opened == 13
