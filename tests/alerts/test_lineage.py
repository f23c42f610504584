"""Which alerts are one incident."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from metrics_pipeline.alerts.lineage import Firing, headlines, is_coarser

DAY = datetime(2025, 11, 11)
UPSTREAM = {"gmv": {"orders", "visits"}, "orders": {"visits"}}
LAYER = {"gmv": "strategic", "orders": "operational", "visits": "base"}


def fires(metric: str, dimension: str = "all", member: str = "all", **changes) -> Firing:
    facts = {
        "episode": f"{metric}{{{dimension}={member}}}",
        "rule": f"{metric}_by_{dimension}",
        "metric": metric,
        "layer": LAYER.get(metric, "base"),
        "dimension": dimension,
        "member": member,
        "grain": "day",
        "period": DAY,
        "tier": "red",
        "since": changes.get("period", DAY),
    }
    return Firing(**{**facts, **changes})


def tops(*firing: Firing) -> dict[str, str]:
    return headlines(firing, UPSTREAM)


def test_a_cause_hangs_on_the_highest_metric_above_it():
    found = tops(fires("visits"), fires("orders"), fires("gmv"))
    assert set(found.values()) == {"gmv{all=all}"}
    assert len(found) == 3


def test_what_stands_alone_is_no_incident():
    assert tops(fires("gmv"), fires("stock")) == {}
    assert tops() == {}


def test_slices_must_meet():
    assert tops(fires("orders", "region", "华北"), fires("visits", "region", "华东")) == {}
    assert tops(fires("orders", "region", "华北"), fires("visits", "region|channel", "华北|app"))
    assert tops(fires("orders", "region", "华北"), fires("visits", "channel", "app")), "neither excludes the other"
    assert tops(fires("gmv", "region", "华北"), fires("visits")), "the total meets every slice"


def test_periods_must_be_the_same_and_an_hour_is_of_its_day():
    assert tops(fires("gmv"), fires("orders", period=DAY + timedelta(days=1))) == {}
    hour = {"grain": "hour", "period": DAY + timedelta(hours=14)}
    assert tops(fires("gmv"), fires("orders", **hour))
    later = {"grain": "hour", "period": DAY + timedelta(hours=15)}
    assert tops(fires("orders", rule="a", **hour), fires("visits", **later)) == {}


def test_hours_that_go_on_over_midnight_are_of_each_of_their_days():
    night = {"grain": "hour", "since": DAY + timedelta(hours=22), "period": DAY + timedelta(days=1, hours=2)}
    for days in (0, 1):
        assert tops(fires("gmv", period=DAY + timedelta(days=days)), fires("orders", **night))
        assert tops(fires("gmv", **night), fires("orders", period=DAY + timedelta(days=days)))
    for days in (-1, 2):
        assert tops(fires("gmv", period=DAY + timedelta(days=days)), fires("orders", **night)) == {}
    other = {"grain": "hour", "since": DAY + timedelta(hours=23), "period": DAY + timedelta(days=1, hours=1)}
    assert tops(fires("gmv", **night), fires("orders", **other)) == {}, "between hours the newest one counts"


def test_a_day_is_the_headline_of_its_hours():
    hours = {"rule": "orders_hourly", "grain": "hour", "period": DAY + timedelta(hours=14)}
    app, day = fires("orders", "channel", "app", episode="by hour", **hours), fires("orders", "channel", "app")
    assert tops(app, day) == {"by hour": day.episode, day.episode: day.episode}
    assert tops(app, fires("orders", "channel", "web")) == {}


def test_a_total_is_the_headline_of_its_own_slices():
    found = tops(fires("orders", "region", "华北"), fires("orders"), fires("orders", "region", "华东"))
    assert set(found.values()) == {"orders{all=all}"}


def test_the_worse_of_two_possible_headlines_takes_it():
    red, yellow = fires("gmv", "region", "华北"), fires("gmv", "region", "华东", tier="yellow")
    assert tops(yellow, red, fires("visits"))["visits{all=all}"] == red.episode


def test_a_slice_contains_itself_and_what_is_finer():
    labels = {"region": "华北", "channel": "app"}
    assert is_coarser("all", "all", labels)
    assert is_coarser("region", "华北", labels)
    assert not is_coarser("region", "华东", labels)
    assert not is_coarser("sku", "1", labels)


ALERTS = st.lists(
    st.builds(
        lambda metric, slice_, tier, grain: fires(
            metric, *slice_, tier=tier, grain=grain, episode=f"{metric} {slice_} {grain}", rule=f"{metric} {slice_} {grain}"
        ),
        st.sampled_from(["gmv", "orders", "visits", "stock"]),
        st.sampled_from([("all", "all"), ("region", "a"), ("region", "b"), ("region|channel", "a|app"), ("channel", "app")]),
        st.sampled_from(["yellow", "red"]),
        st.sampled_from(["day", "day", "hour"]),
    ),
    max_size=12,
    unique_by=lambda one: one.episode,
)  # fmt: skip


@given(ALERTS)
def test_every_alert_has_one_headline_which_is_its_own_and_nothing_is_lost(firing):
    found = headlines(firing, UPSTREAM)
    assert found.keys() <= {one.episode for one in firing}
    assert all(found[top] == top for top in found.values())
    assert all(list(found.values()).count(top) >= 2 for top in found.values())
    assert found == headlines(reversed(firing), UPSTREAM)
