"""A message tells its receiver what the policy gives them at the moment of sending, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings

from metrics_pipeline.access.model import Level, Subjects
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.advice.evidence import Evidence
from metrics_pipeline.advice.told import Told
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.notice import Counts
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.delivery.guard import MessageGuard, facts_of_cards, masked, on_record
from metrics_pipeline.delivery.messages import Wording, compose
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.routing.channels import ChannelCard
from metrics_pipeline.routing.decide import direct
from metrics_pipeline.routing.people import Directory, PeopleFile
from metrics_pipeline.store import access, audit
from metrics_pipeline.store.advice import AdviceRow, save_advice
from tests.access.test_policy import NORTH, grants_of_anybody, make_grant
from tests.access.test_policy import NOW as GRANTED
from tests.alerts.builders import NOW, make_card, make_verdict
from tests.delivery.builders import Recorder, make_notice, make_slice, make_told
from tests.store.databases import sqlite_store

CARD = replace(make_card(), business_line="service", layer="operational", category="order")
SECRET = replace(CARD, sensitivity="confidential")
PEOPLE = PeopleFile.model_validate(
    {"people": [{"id": "li", "contacts": {"email": "li@shop"}}, {"id": "wang", "contacts": {"email": "wang@shop"}}]}
)


def sight_of(*grants, card=CARD) -> Sight:
    cards = {card.id: card}
    return Sight(Viewer(Subjects("li"), facts_of_cards(cards), GRANTED, grants), cards)


def all_text(notice) -> str:
    message = compose(notice, Wording())
    return " ".join((message.title, message.text, message.html_page()))


def test_a_regional_manager_is_told_of_their_region_only():
    notice = make_notice(rule=CARD, counts=Counts(new=41, firing=41, red=40))
    seen = masked(notice, sight_of(make_grant(slices=NORTH)))
    assert [one.member for one in seen.slices] == ["华北"] and seen.slices[0].value == 0.132
    assert (seen.counts.firing, seen.counts.red) == (1, 1)
    assert "华东" not in all_text(seen) and "41" not in compose(seen, Wording()).title


@pytest.mark.parametrize(("level", "said"), [(Level.BANDED, "0.1 – 0.2"), (Level.HIDDEN, "no grant")])
def test_a_confidential_value_is_told_as_its_band_or_not_at_all(level, said):
    seen = masked(make_notice(rule=SECRET), sight_of(make_grant(level=level), card=SECRET))
    text = all_text(seen)
    assert said in text and "13.2" not in text and "0.132" not in text and seen.series is None


def test_who_may_not_know_of_the_metric_is_told_that_there_is_something_and_that_it_ends():
    seen = masked(make_notice(rule=CARD), sight_of())
    text = all_text(seen)
    for name in (CARD.id, CARD.metric, CARD.name_zh, CARD.name_en, "华北", "13.2"):
        assert name not in text
    assert "您无权查看的报警" in text
    over = make_notice(
        rule=CARD, reason="all_resolved", slices=(make_slice(change="resolved"),), counts=Counts(ended=1)
    )
    assert masked(over, sight_of()).counts.ended == 1


@settings(max_examples=30, deadline=None)
@given(grants=grants_of_anybody)
def test_no_message_holds_what_the_policy_denies(grants):
    sight = sight_of(*grants, card=SECRET)
    seen = masked(make_notice(rule=SECRET), sight)
    levels = {one.member: sight.level(SECRET.id, "region", one.member) for one in make_notice().slices}
    told = {one.member: one for one in seen.slices if one.instance != "restricted{all=all}"}
    assert set(told) == {member for member, level in levels.items() if level > Level.DENIED}
    for member, one in told.items():
        if levels[member] < Level.EXACT:
            assert one.value is None and one.baseline is None and one.red_bound is None
    if levels["华北"] < Level.EXACT:
        assert seen.series is None


def test_logs_and_pages_of_dagster_hold_no_confidential_value():
    assert "13.2" in compose(on_record(make_notice(rule=CARD)), Wording()).title
    assert "13.2" not in compose(on_record(make_notice(rule=SECRET)), Wording()).title


def test_a_grant_revoked_after_queueing_counts_when_the_message_is_sent(tmp_path):
    routing = direct(
        ["smtp:li@shop"], directory=Directory.of(PEOPLE), channels={"smtp": ChannelCard("smtp", "smtp", ("li@shop",))}
    )
    with sqlite_store(tmp_path) as store:
        guard = MessageGuard(store, lambda: routing)
        with store.writing("access") as connection:
            access.enable(connection, "wang", now=NOW)
            given = access.add_grant(
                connection,
                {
                    "subject_kind": "person", "subject": "li", "actions": ["read"], "selectors": [["all", ""]],
                    "slices": {}, "level": "exact", "starts_at": None, "expires_at": None,
                    "granted_by": "wang", "granted_at": NOW, "reason": "x",
                },
            )  # fmt: skip
        told = []
        for period, is_revoked in ((0, False), (1, True)):
            rule = f"{SECRET.id}_{period}"
            card = replace(SECRET, id=rule)
            apply_verdicts(
                store, [make_verdict("red", 0, rule=rule)], {rule: card}, receivers=("smtp:li@shop",), now=NOW
            )
            if is_revoked:
                with store.writing("access") as connection:
                    access.revoke_grant(connection, given.id, "wang", now=NOW + timedelta(minutes=1))
            channel = Recorder("250 taken")
            deliver_due(store, {"smtp": channel}, now=NOW + timedelta(minutes=1), guard=guard)
            told += channel.sent
        first, second = (message.title for _, message in told)
        assert SECRET.name_zh in first and "您无权查看的报警" in second
        with store.reading() as connection:
            [sent] = audit.entries(connection, action="metric.sent")
        assert (sent.actor, sent.action, sent.subject) == ("service.delivery", "metric.sent", SECRET.metric)
        assert "li@shop" not in str(sent)


def test_advice_that_rests_on_what_somebody_may_not_see_is_not_told_to_them():
    told = make_told()
    assert told.seen_by(sight_of(make_grant(slices=NORTH))).advice[0].entry == "review_category_refunds"
    south = sight_of(make_grant(slices={"region": frozenset({"华南"})}))
    assert told.seen_by(south) == Told()
    hidden = Evidence("also", 0.8, "gmv", (), "down", observed=123_456.0)  # no grant is on gmv
    first = replace(told.advice[0], evidence=(*told.advice[0].evidence, hidden))
    left = replace(told, advice=(first, told.advice[1])).seen_by(sight_of(make_grant(slices=NORTH)))
    assert [one.entry for one in left.advice] == ["call"]
    regional = told.seen_by(sight_of(make_grant(slices=NORTH))).advice[0]
    assert regional.record.cases == 0  # it counts episodes of other regions too
    secret = told.seen_by(sight_of(make_grant(level=Level.HIDDEN), card=SECRET)).advice[0]
    assert all((one.observed, one.expected, one.share) == (None, None, None) for one in secret.evidence)
    text = " ".join(told.seen_by(sight_of(make_grant(level=Level.HIDDEN), card=SECRET)).lines("zh"))
    assert "13.2" not in text and "82%" not in text


def test_a_message_brings_the_advice_its_receiver_may_see(tmp_path):
    routing = direct(
        ["smtp:li@shop"], directory=Directory.of(PEOPLE), channels={"smtp": ChannelCard("smtp", "smtp", ("li@shop",))}
    )
    grant = {
        "subject_kind": "person", "subject": "li", "actions": ["read"], "selectors": [["all", ""]], "level": "exact",
        "starts_at": None, "expires_at": None, "granted_by": "wang", "granted_at": NOW, "reason": "x",
    }  # fmt: skip
    for members, is_told in ((["华北"], True), (["华南"], False)):
        with sqlite_store(tmp_path / members[0]) as store:
            apply_verdicts(store, [make_verdict("red", 0)], {CARD.id: CARD}, receivers=("smtp:li@shop",), now=NOW)
            row = AdviceRow(
                "refund_rate_surge{region=华北}@2025-11-11T00:00", CARD.id, CARD.metric, "day", "up", None, None, [],
                [one.to_json() for one in make_told().advice], [], "", NOW,
            )  # fmt: skip
            with store.writing("access") as connection:
                save_advice(connection, [row])
                access.enable(connection, "wang", now=NOW)
                access.add_grant(connection, {**grant, "slices": {"region": members}})
            channel = Recorder("250 taken")
            guard = MessageGuard(store, lambda: routing)
            deliver_due(store, {"smtp": channel}, now=NOW + timedelta(minutes=1), guard=guard)
            [(_, message)] = channel.sent
            assert ("核查 美妆 类目" in message.text) is is_told
            assert ("美妆" in message.html_page()) is is_told
