"""Advice as one person may see it: nothing of what the policy denies, by any grants."""

from __future__ import annotations

from hypothesis import given, settings

from metrics_pipeline.access.model import Level, Subjects
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.advice.evidence import Firing, evidence_of, with_names
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.recommend import recommend
from metrics_pipeline.advice.text import advice_text
from metrics_pipeline.advice.told import Told
from metrics_pipeline.alerts.notice import RuleCard
from metrics_pipeline.alerts.sight import Sight
from metrics_pipeline.settings import PROJECT_ROOT
from tests.access.test_policy import METRICS, NOW, grants_of_anybody
from tests.advice.builders import make_cause, make_coinciding, make_control, make_diagnosis, make_step, make_total

ENTRIES = load_playbook(PROJECT_ROOT / "alert_rules").entries
DIAGNOSIS = make_diagnosis(
    "gmv",
    causes=(
        make_cause({"region": "华北"}, observed=1111.0),
        make_cause({"region": "华东", "channel": "web"}, observed=2222.0),
        make_cause({"channel": "app"}, observed=3333.0),
    ),
    steps=(make_step("orders_paid"),),
    controls=(make_control("sessions"),),
    coinciding=(
        make_coinciding("stock_out", elements={"category": "食品"}, what_zh="食品断货", what_en="食品 is sold out"),
    ),
)
ALSO = [Firing("refund_rate", "region", "华北", "red", "up", 0.4444, 0.05)]
EVIDENCE = with_names(evidence_of(make_total("gmv", "down", observed=5555.0), DIAGNOSIS, ALSO), {})
TOLD = Told(recommend(EVIDENCE, ENTRIES.values(), most=100))
CARDS = {name: RuleCard(name, name) for name in METRICS}
NUMBERS = {
    ("gmv", "region", "华北"): "1,111",
    ("gmv", "region|channel", "华东|web"): "2,222",
    ("gmv", "channel", "app"): "3,333",
}


def test_the_advice_is_rich_enough_to_be_hidden():
    text = " ".join(advice_text(one, "zh") for one in TOLD.advice)
    assert len(TOLD.advice) > 5
    assert all(word in text for word in ("华北", "app", "食品", "1,111", "3,333"))


@settings(max_examples=80, deadline=None)
@given(grants=grants_of_anybody)
def test_no_advice_names_or_measures_what_the_policy_denies(grants):
    viewer = Viewer(Subjects("li", frozenset({"sales"}), frozenset({"trade"})), METRICS, NOW, tuple(grants))
    seen = TOLD.seen_by(Sight(viewer, CARDS))
    text = " ".join(advice_text(one, locale) for one in seen.advice for locale in ("zh", "en"))
    for one in seen.advice:
        for piece in one.evidence:
            assert viewer.level(piece.metric or "gmv", piece.dimension, piece.member) > Level.DENIED
    for (metric, dimension, member), shown in NUMBERS.items():
        level = viewer.level(metric, dimension, member)
        if level == Level.DENIED:
            for part in {"华北", "app", "web"} & set(member.split("|")):
                others = [slice_ for slice_ in NUMBERS if part in slice_[2] and viewer.level(*slice_) > Level.DENIED]
                assert part not in text or others
        if level < Level.EXACT:
            assert shown not in text
    if viewer.level("gmv", "category", "食品") == Level.DENIED:
        assert "食品" not in text
