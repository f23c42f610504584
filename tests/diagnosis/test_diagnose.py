"""From published values to a diagnosis, and what of it somebody may see."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest

from metrics_pipeline.access.model import Facts, Grant, Selector, Subjects
from metrics_pipeline.access.reader import GuardedValues
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.coinciding import Note
from metrics_pipeline.diagnosis.diagnose import Context, NothingToDiagnose, diagnose
from metrics_pipeline.diagnosis.model import Coinciding, Diagnosis
from metrics_pipeline.diagnosis.pyramid import NONE as NO_PYRAMID
from metrics_pipeline.diagnosis.words import Named, Wording
from tests.diagnosis.conftest import LAST
from tests.rules.shop import FIRST as SHOP_FIRST
from tests.rules.shop import Shop

NAMES = {
    "orders_paid": Named("支付订单数", "Orders paid", "orders"),
    "payment_conversion_rate": Named("支付转化率", "Payment conversion rate", "ratio"),
    "order_conversion_rate": Named("下单转化率", "Order conversion rate", "ratio"),
    "sessions": Named("会话数", "Sessions", "visits"),
    "orders_placed": Named("下单数", "Orders placed", "orders"),
}


@pytest.fixture(scope="module")
def paid(world) -> Diagnosis:
    return diagnose(world.published, world.context, "orders_paid", {}, LAST)


def test_the_place_is_named_and_everything_adds_up(paid):
    assert [one.element for one in paid.causes] == ["region=华东|channel=app"]
    assert paid.verdict == "single_cause"
    assert paid.direction == "down"
    assert sum(one.contribution for one in paid.causes) + paid.unexplained == pytest.approx(paid.change)
    assert paid.observed - paid.expected == pytest.approx(paid.change)


def test_the_pyramid_names_the_rate_that_fell_and_adds_up(paid):
    steps = {one.metric: one for one in paid.pyramid.steps}
    assert set(steps) == {"sessions", "order_conversion_rate", "payment_conversion_rate"}
    assert paid.pyramid.steps[0].metric == "payment_conversion_rate"
    total = sum(one.contribution for one in paid.pyramid.steps) + paid.pyramid.residual
    assert total == pytest.approx(paid.change)


def test_what_did_not_move_is_said(paid):
    still = {tuple(one.elements.items()) for one in paid.controls if one.metric == "orders_paid"}
    assert (("region", "华北"),) in still
    assert (("channel", "web"),) in still
    assert "orders_placed" in {one.metric for one in paid.controls}


def test_since_when_is_the_day_itself(paid):
    assert paid.since is None or paid.since.day == LAST.date()


def test_a_ratio_has_a_rate_effect_and_hardly_a_mix_effect(world):
    found = diagnose(world.published, world.context, "payment_conversion_rate", {}, LAST)
    [cause] = found.causes
    assert cause.element == "region=华东|channel=app"
    assert cause.rate_effect + cause.mix_effect == pytest.approx(cause.contribution)
    assert abs(cause.mix_effect) < 0.1 * abs(cause.rate_effect)
    assert cause.observed == pytest.approx(0.3, abs=0.05)
    assert found.evidence()["cause.effect"] == ("rate",)


def test_inside_a_slice_only_its_own_members_are_looked_at(world):
    found = diagnose(world.published, world.context, "orders_paid", {"region": "华东"}, LAST)
    assert found.searched == ("channel",)
    assert [one.element for one in found.causes] == ["channel=app"]


def test_an_ordinary_day_has_no_cause(world):
    found = diagnose(world.published, world.context, "orders_paid", {}, LAST - timedelta(days=1))
    assert found.causes == ()
    assert found.verdict == "none_found"
    assert found.direction == "none" and found.change
    assert "within what ordinary days do" in found.reason_en and "平日波动" in found.reason_zh


def test_promotions_and_notes_of_the_day_stand_beside_the_change(world):
    day = LAST.date()
    context = replace(
        world.context,
        promotions=(PromotionDay(day, "shop_day", "店庆", "Shop day", 0, "season", "CN"),),
        notes=(
            Note(7, "deploy_note", "网关 4.2", day - timedelta(days=1), day - timedelta(days=1), {}),
            Note(8, "deploy_note", "old", date(2025, 3, 3), date(2025, 3, 3), {}),
        ),
    )
    found = diagnose(world.published, context, "orders_paid", {}, LAST)
    assert [(one.kind, one.id) for one in found.coinciding] == [("promotion", "shop_day"), ("deploy_note", "note:7")]


def test_a_day_without_a_value_and_a_first_week_are_told_in_a_line(world):
    with pytest.raises(NothingToDiagnose, match="metrics value orders_paid"):
        diagnose(world.published, world.context, "orders_paid", {}, LAST + timedelta(days=1))
    early = diagnose(world.published, world.context, "orders_paid", {}, LAST - timedelta(days=54))
    assert early.expected is None
    assert "too little history" in early.reason_en
    assert early.causes == ()


def test_the_words_are_in_both_languages(paid):
    zh, en = (Wording(paid, NAMES, locale) for locale in ("zh", "en"))
    assert zh.line().startswith("地区=华东 · 渠道=app 占变化 ")
    assert "region=华东 · channel=app" in en.line()
    assert "支付转化率 -" in zh.line()
    labels = [label for label, _ in en.rows() if label]
    assert labels[:4] == ["Change", "Verdict", "Causes", "unexplained"]


def make_viewer(**slices: frozenset) -> Viewer:
    facts = {name: Facts(name) for name in NAMES}
    grant = Grant(
        id=1,
        subject_kind="person",
        subject="li",
        actions=frozenset({"read"}),
        selectors=(Selector("all"),),
        slices=slices,
    )
    return Viewer(Subjects("li"), facts, datetime(2025, 12, 1, tzinfo=UTC), (grant,))


def guarded(world, viewer: Viewer) -> GuardedValues:
    return GuardedValues(world.published.directory, world.published.manifest, viewer)


def test_who_may_see_one_region_gets_the_search_inside_it_and_no_other_name(world):
    published = guarded(world, make_viewer(region=frozenset({"华北"})))
    with pytest.raises(NothingToDiagnose):
        diagnose(published, world.context, "orders_paid", {}, LAST)
    inside = diagnose(published, world.context, "orders_paid", {"region": "华北"}, LAST)
    assert "华东" not in str(inside.to_json())
    other = make_viewer(region=frozenset({"华东"}))
    found = diagnose(guarded(world, other), world.context, "orders_paid", {"region": "华东"}, LAST)
    assert [one.element for one in found.causes] == ["channel=app"]
    assert "华北" not in str(found.to_json())


def test_return_on_spend_is_taken_apart_as_a_ratio_to_spend_though_it_may_be_negative(tmp_path, catalogue):
    rng = np.random.default_rng(11)
    days, shares = 57, {"douyin": 0.3, "search": 0.4, "feed": 0.3}
    spend = {name: rng.normal(10_000 * share, 300 * share, days) for name, share in shares.items()}
    revenue = {name: one * rng.normal(1.4 if name == "feed" else 3.0, 0.1, days) for name, one in spend.items()}
    revenue["feed"][3] = 0.8 * spend["feed"][3]  # money was lost there before
    spend["douyin"][-1] *= 3.0
    shop = Shop()

    def put(dimension: str, member: str, spent: np.ndarray, earned: np.ndarray) -> None:
        shop.add("ad_spend", map(float, spent), dimension=dimension, member=member)
        shop.add("campaign_roi", map(float, (earned - spent) / spent), dimension=dimension, member=member)
        shop.add("ad_revenue", map(float, earned), dimension=dimension, member=member)

    put("all", "all", sum(spend.values()), sum(revenue.values()))
    for name in shares:
        put("ad_channel", name, spend[name], revenue[name])
    last = datetime.combine(SHOP_FIRST, datetime.min.time()) + timedelta(days=days - 1)
    found = diagnose(shop.publish(tmp_path), Context(catalogue, problems=()), "campaign_roi", {}, last)
    assert [one.element for one in found.causes] == ["ad_channel=douyin"]
    [cause] = found.causes
    assert (cause.observed, cause.expected) == (pytest.approx(0.0, abs=0.2), pytest.approx(2.0, abs=0.2))
    assert cause.contribution + found.unexplained == pytest.approx(found.change)
    assert all(-1.0 <= one.observed <= 3.0 for one in found.controls if one.metric == "campaign_roi")


def test_a_line_says_nothing_where_nothing_could_be_searched_and_only_the_calendar_is_known(paid):
    day = LAST.date()
    feast = Coinciding("holiday", "mid_autumn", "中秋节", "Mid-Autumn", day, day, {})
    note = replace(feast, kind="deploy_note", what_zh="网关升级")
    bare = replace(
        paid, causes=(), verdict="none_found", searched=(), since=None, coinciding=(feast,), pyramid=NO_PYRAMID
    )
    assert Wording(bare, NAMES, "zh").line() == ""
    assert "网关升级" in Wording(replace(bare, coinciding=(feast, note)), NAMES, "zh").line()
    assert Wording(replace(bare, searched=("region",)), NAMES, "zh").line().startswith("未找到集中的原因")
    inside = replace(bare, searched=("region",), verdict="site_wide", slice={"channel": "web"}, coinciding=())
    assert Wording(inside, NAMES, "en").line() == "everything within the slice moved, no single place in it"
