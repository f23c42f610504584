"""What a person may see of alerts, over generated grants; and every door of the command line reads through the policy."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given, settings

from metrics_pipeline.access.model import Level, Selector
from metrics_pipeline.access.viewer import everybody
from metrics_pipeline.alerts.listing import TransitionView
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.sight import NUMBERS, Sight
from metrics_pipeline.alerts.verdict import instance_key
from metrics_pipeline.settings import PROJECT_ROOT
from tests.access.shop import METRICS, NOW, SLICES, make_viewer
from tests.access.test_policy import NORTH, grants_of_anybody, make_grant

CARDS = {
    **{f"{name}_high": RuleCard(f"{name}_high", name) for name in METRICS},
    "share_drop": RuleCard("share_drop", "gmv", expression="share(region)"),
    "both": RuleCard("both", "gmv", kind="composite", parts=("gmv_high", "gross_profit_high")),
    "drill:gmv_high": RuleCard("drill:gmv_high", "gmv"),
    "pipeline_failed:nightly": RuleCard("pipeline_failed:nightly", "", kind="alarm"),
}


def make_change(rule: str, dimension: str, member: str) -> TransitionView:
    return TransitionView(
        instance_key(rule, dimension, member), rule, NOW, datetime(2025, 11, 11), "ok", "none", "firing", "red",
        "breach", 1.0, 2.0, None, "run", False,
    )  # fmt: skip


CHANGES = [make_change(rule, *one) for rule in CARDS for one in SLICES]


@settings(max_examples=30, deadline=None)
@given(grants=grants_of_anybody)
def test_no_alert_is_shown_that_the_policy_denies_and_no_number_that_it_does_not_give(grants):
    viewer = make_viewer(*grants)
    sight = Sight(viewer, CARDS)
    seen = {one.instance: one for one in sight.seen(CHANGES)}
    for change in CHANGES:
        rule, slice_ = change.rule, next(s for s in SLICES if change.instance.endswith(f"{{{s[0]}={s[1]}}}"))
        metrics = [CARDS[one].metric for one in CARDS[rule].parts] or [CARDS[rule].metric]
        levels = [viewer.decide("read", one, *slice_).level for one in metrics if one]
        if min(levels, default=Level.DENIED) == Level.DENIED and rule != "pipeline_failed:nightly":
            assert change.instance not in seen
        shown = seen.get(change.instance)
        if shown is not None and min(levels, default=Level.EXACT) < Level.EXACT:
            assert all(getattr(shown, name, None) is None for name in NUMBERS)
    assert {CARDS[one].metric for one in sight.rules(CARDS)} <= {"", *filter(viewer.reading.knows, METRICS)}


def test_a_share_with_its_value_would_tell_the_total_so_its_numbers_are_not_shown():
    sight = Sight(make_viewer(make_grant(slices=NORTH)), CARDS)
    [share, plain] = sight.seen(
        [make_change("share_drop", "region", "华北"), make_change("gmv_high", "region", "华北")]
    )
    assert (share.value, share.observed) == (None, None) and plain.value == 1.0


def test_a_composite_is_seen_by_who_sees_all_it_looks_at():
    change = make_change("both", "region", "华北")
    assert Sight(make_viewer(make_grant(slices=NORTH, level=Level.EXACT)), CARDS).seen([change]) == []
    assert Sight(make_viewer(make_grant(selectors=(Selector("metric", "gmv"),))), CARDS).seen([change]) == []
    [masked] = Sight(make_viewer(make_grant()), CARDS).seen([change])
    assert masked.value is None
    assert Sight(make_viewer(make_grant(level=Level.EXACT)), CARDS).seen([change]) == [change]


def test_alarms_and_alerts_of_unknown_rules_are_for_who_sees_all_metrics():
    alarm, unknown = make_change("pipeline_failed:nightly", "all", "all"), make_change("gone", "all", "all")
    some = Sight(make_viewer(make_grant(slices=NORTH), make_grant(selectors=(Selector("layer", "base"),))), CARDS)
    assert some.seen([alarm, unknown]) == []
    assert Sight(make_viewer(make_grant()), CARDS).seen([alarm, unknown]) == [alarm, unknown]


def test_in_an_open_installation_everything_is_shown_as_it_is():
    assert Sight(everybody("li", {}, now=NOW), {}).seen(CHANGES) == CHANGES


def test_keys_of_members_with_odd_signs_are_read_as_they_were_written():
    for member in ("a=b", "x}y", "it's", "a@b"):
        key = f"{instance_key('gmv_high', 'region', member)}@2025-11-11T00:00"
        sight = Sight(make_viewer(make_grant(slices={"region": frozenset({member})})), CARDS)
        assert sight.sees(key) and not sight.sees(key.replace("gmv_high", "gone"))


DOORS = sorted(
    path for kind in ("cli/*.py", "api/*.py", "site/*.py") for path in (PROJECT_ROOT / "metrics_pipeline").glob(kind)
)


@pytest.mark.parametrize("path", DOORS, ids=lambda path: path.name)
def test_no_door_reads_values_but_through_the_policy(path):
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom | ast.Import) for name in node.names}
    assert "Published" not in imported and "metrics_pipeline.warehouse.read" not in imported


def test_every_field_of_an_alert_that_holds_a_number_is_masked():
    from metrics_pipeline.alerts.listing import AlertView, EpisodeView
    from metrics_pipeline.store.records import Instance, TransitionRow

    for view in (AlertView, EpisodeView, TransitionView):
        numbers = {name for name, one in view.__dataclass_fields__.items() if "float" in str(one.type)}
        assert numbers <= set(NUMBERS)
    for record in (Instance, TransitionRow):
        assert {name for name, kind in record.__annotations__.items() if "float" in str(kind)} <= set(NUMBERS)
    assert replace(CHANGES[0], value=None) != CHANGES[0]
