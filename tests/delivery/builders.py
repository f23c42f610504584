"""Notices and channels with boring defaults."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

from metrics_pipeline.advice.evidence import Evidence, evidence_of, with_names
from metrics_pipeline.advice.load import load_playbook
from metrics_pipeline.advice.outcome import Done, Handling
from metrics_pipeline.advice.recommend import Advice, Record, recommend
from metrics_pipeline.advice.text import Remembered
from metrics_pipeline.advice.told import Told
from metrics_pipeline.alerts.notice import Counts, Notice, Point, RuleCard, Series, Slice
from metrics_pipeline.delivery.channels import PermanentFailure, TemporaryFailure
from metrics_pipeline.delivery.messages import Message
from metrics_pipeline.diagnosis.attached import Explained
from metrics_pipeline.settings import PROJECT_ROOT
from metrics_pipeline.store.records import Episode
from tests.advice.builders import make_alert, make_outlook
from tests.alerts.builders import DAY, NOW, make_card


def weekly_wave(days: int = 60, last: float | None = 0.132) -> Series:
    """A weekly wave around 5 % with its band, ending with a breach."""
    points = []
    for number in range(days):
        middle = 0.05 + 0.01 * math.sin(number / 7 * 2 * math.pi)
        value = last if number == days - 1 else middle
        points.append(Point(DAY - timedelta(days=days - 1 - number), value, middle - 0.02, middle + 0.02))
    return Series(tuple(points), 0.08, 0.12, "region", "华北")


def make_slice(member: str = "华北", **changes) -> Slice:
    fields = {
        "instance": f"refund_rate_surge{{region={member}}}",
        "dimension": "region",
        "member": member,
        "change": "new",
        "tier": "red",
        "since": DAY,
        "value": 0.132,
        "observed": 0.132,
        "baseline": 0.052,
        "lower": 0.032,
        "upper": 0.072,
        "yellow_bound": 0.08,
        "red_bound": 0.12,
    }
    return Slice(**{**fields, **changes})


def make_notice(**changes) -> Notice:
    fields = {
        "key": "0123456789abcdef0123456789abcdef",
        "receiver": "file",
        "sequence": 1,
        "reason": "first",
        "tier": "red",
        "created_at": NOW,
        "period": DAY,
        "grain": "day",
        "rule": make_card(),
        "counts": Counts(new=2, firing=2, red=1),
        "slices": (make_slice(), make_slice("华东", tier="yellow", value=0.09, observed=0.09)),
        "series": weekly_wave(),
    }
    return Notice(**{**fields, **changes})


def make_end(**changes) -> Notice:
    ended = make_slice(change="resolved", value=0.051, observed=0.051)
    return make_notice(
        **{
            "reason": "all_resolved",
            "sequence": 2,
            "counts": Counts(ended=1),
            "slices": (ended,),
            "series": None,
            **changes,
        }
    )


def make_drill_card(**changes) -> RuleCard:
    """The card of a drill of the rule of `make_card`."""
    fields = {"alert": "refund_rate_surge", **changes}
    return make_card("drill:refund_rate_surge", **fields)


def make_drill(**changes) -> Notice:
    """A drill: no numbers, because nothing was measured."""
    one = make_slice(**{**BLANK, "instance": "drill:refund_rate_surge{region=华北}"})
    return make_notice(
        **{"rule": make_drill_card(), "slices": (one,), "counts": Counts(new=1, firing=1, red=1), **changes}
    )


BLANK = dict.fromkeys(("value", "observed", "baseline", "lower", "upper", "yellow_bound", "red_bound"))


def make_composite() -> Notice:
    """A composite rule with two parts: one beyond its threshold, one quiet."""
    card = make_card(
        kind="composite", expression="any of few_orders, late_parcels", parts=("few_orders", "late_parcels")
    )
    orders = make_slice(
        "all", dimension="all", rule="few_orders", name_zh="支付订单数", name_en="Paid orders", unit="orders", value=12.0,
        red_bound=20.0, change="ongoing",
    )  # fmt: skip
    late = make_slice(
        rule="late_parcels", name_zh="延迟发货率", name_en="Late delivery rate", unit="ratio", tier="none", value=0.02
    )
    return make_notice(
        rule=card,
        slices=(make_slice(**{**BLANK, "observed": 2.0}),),
        counts=Counts(new=1, firing=1, red=1),
        parts=(orders, late),
    )


def make_stale() -> Notice:
    """A freshness rule whose data are 38.5 hours old."""
    one = make_slice("all", dimension="all", **{**BLANK, "observed": 38.5})
    card = make_card(kind="freshness", expression="freshness()", yellow_if="> 30", red_if="> 36")
    return make_notice(rule=card, slices=(one,), counts=Counts(new=1, firing=1, red=1), series=None)


def make_alarm() -> Notice:
    """An alarm about the pipeline itself."""
    one = make_slice("nightly", dimension="job", instance="pipeline_failed:nightly{job=nightly}", **BLANK)
    card = make_card(
        "pipeline_failed:nightly", metric="", name_zh="任务 nightly 运行失败", name_en="job nightly failed", owner="data",
        asset_key=(), kind="alarm", alert="pipeline_failed", yellow_if="", red_if="",
        annotations={"summary": "No space left.", "summary_zh": "磁盘已满。", "runbook": "http://127.0.0.1:3000/runs/r1"},
    )  # fmt: skip
    return make_notice(rule=card, grain="hour", slices=(one,), counts=Counts(new=1, firing=1, red=1), series=None)


def make_told() -> Told:
    """Two pieces of advice on the slice of `make_slice`, and one similar alert of the past."""
    region = (("region", "华北"),)
    names = {"name_zh": "退款率", "name_en": "Refund rate", "unit": "ratio"}
    alert = Evidence("alert", 1.0, "refund_rate", region, "up", observed=0.132, expected=0.052, **names)
    cause = Evidence("cause", 0.7, "refund_rate", (*region, ("category", "美妆")), "up", 0.82, 0.4, 0.05, **names)
    first = Advice(
        "review_category_refunds", "核查 美妆 类目的退款原因", "Read the refund reasons of category 美妆", "after-sales",
        "一周内回落", "They fall within a week", (alert, cause), 0.4, "product_quality", record=Record(2.0, 2.0, 3, 2),
    )  # fmt: skip
    second = replace(first, entry="call", action_zh="联系大区", action_en="Call the region", evidence=(alert,))
    day = DAY - timedelta(days=30)
    key = f"refund_rate_surge{{region=华北}}@{day.isoformat(timespec='minutes')}"
    opened = NOW - timedelta(days=30)
    past = Episode(
        key, key.partition("@")[0], "refund_rate_surge", day, day, opened, opened, "recover", "red", 0.2, 1.0
    )
    done = Done("review_category_refunds", "li", opened, "", True, False)
    return Told((first, second), (Remembered(key, 0.91, {}, Handling(past, None, (done,))),))


def make_stockout() -> Notice:
    """A rule on stock-outs: what it judges is a chance, beside it the stock that is left."""
    card = make_card(
        "stock_out_soon_by_sku", metric="stock_on_hand", name_zh="库存量", name_en="Stock on hand", unit="pieces",
        expression="stockout(lead)", yellow_if="> 0.3", red_if="> 0.7", owner="supply-chain",
    )  # fmt: skip
    shelf = {"dimension": "sku", "foresees": "stockout", "baseline": 0.0, "lower": None, "upper": None,
             "yellow_bound": 0.3, "red_bound": 0.7}  # fmt: skip
    first = make_slice("SKU-7", instance="stock_out_soon_by_sku{sku=SKU-7}", value=34.0, observed=0.82, **shelf)
    second = make_slice(
        "SKU-9", instance="stock_out_soon_by_sku{sku=SKU-9}", value=1200.0, observed=0.345, tier="yellow", **shelf
    )
    return make_notice(rule=card, slices=(first, second), series=None)


def make_shelf_told() -> Told:
    """The advice on the first slice of `make_stockout`, by the starter playbook."""
    alert = make_alert(
        "stock_on_hand", "down", dimension="sku", member="SKU-7", observed=34.0, expected=None, chance=0.82
    )
    evidence = with_names(
        evidence_of(alert, None, (), {"SKU-7": make_outlook()}), {"stock_on_hand": make_stockout().rule}
    )
    return Told(recommend(evidence, load_playbook(PROJECT_ROOT / "alert_rules").entries.values()))


class Recorder:
    """A channel that keeps what it was given, and fails as told: each answer is text or a failure to raise."""

    def __init__(self, *answers: str | Exception, name: str = "file") -> None:
        self.name = name
        self.limit: int | None = None
        self.answers = list(answers)
        self.sent: list[tuple[str, Message]] = []

    def send(self, message: Message, address: str) -> str:
        answer = self.answers.pop(0) if self.answers else "ok"
        if isinstance(answer, Exception):
            raise answer
        self.sent.append((address, message))
        return answer

    @property
    def keys(self) -> list[str]:
        return [message.id for _, message in self.sent]


TEMPORARY = TemporaryFailure("451 try later")
PERMANENT = PermanentFailure("550 no such user")


def make_explained() -> Explained:
    """Why the slice of `make_slice` is what it is."""
    return Explained(
        line_zh="地区=华北 · 品类=美妆 占变化 70%(13.2%, 预期 5.2%)；退款订单数 +140%；同期:变更记录 网关 4.2；开始于 2025-11-11",
        line_en="region=华北 · category=美妆 70% of the change (13.2%, expected 5.2%); Refunded orders +140%; "
        "same time: note 网关 4.2; since 2025-11-11",
    )
