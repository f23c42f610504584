"""Changes of rules are on record: which, since when, from what to what."""

from __future__ import annotations

from dataclasses import replace

from metrics_pipeline.store import audit
from tests.alerts.desk import Desk


def test_a_rule_that_is_judged_otherwise_than_before_is_on_record(store, tmp_path):
    desk = Desk(store, tmp_path)
    desk.tick("ok")
    with store.reading() as connection:
        added = audit.entries(connection, action="rule.add")
    assert {entry.subject for entry in added} == set(desk.cards)
    desk.at(hours=1).tick("ok")
    desk.cards["gmv_drop"] = replace(desk.cards["gmv_drop"], red_if="< -0.7", owner="sales")
    desk.at(hours=2).tick("ok")
    with store.reading() as connection:
        assert len(audit.entries(connection, action="rule.add")) == len(added)
        (changed,) = audit.entries(connection, action="rule.change")
    assert (changed.actor, changed.subject, changed.at) == ("service.nightly", "gmv_drop", desk.now)
    former = Desk(store, tmp_path).cards["gmv_drop"]
    assert changed.details == {"red_if": [former.red_if, "< -0.7"], "owner": [former.owner, "sales"]}
    assert audit.verify(store).broken is None
