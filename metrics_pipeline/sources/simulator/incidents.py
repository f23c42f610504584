"""What goes wrong in the simulated shop, when, where and how badly — and the labels that say so, kept apart from the data.

The schedule is made of eras: the first ends on the anchor, the last day of the first simulation of a folder, and has
two incidents active on that day, so that a fresh demo has something true to report. Later eras of 60 days follow, so
that a shop that is simulated further keeps having incidents and its past stays as it was. The first 60 days of a
shop are quiet, but for the two of a fresh demo: detectors may learn from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

from metrics_pipeline.sources.simulator.calendar import Year
from metrics_pipeline.sources.simulator.catalogue import SKUS_AT_SCALE_ONE, Catalogue
from metrics_pipeline.sources.simulator.market import (
    AD_CHANNEL_ZH,
    AD_CHANNELS,
    CATEGORY_NAMES,
    CHANNELS,
    PAYMENT_METHODS,
    REGION_SHARE,
    REGIONS,
    WAREHOUSE_OF_REGION,
    WAREHOUSES,
)
from metrics_pipeline.sources.simulator.rows import stream

QUIET_DAYS = 60
ERA_DAYS = 60
FINALE_DAYS = 49
"""Days of history from which on the two incidents of the anchor are there: seasonal bands know each weekday six times."""
_DAYS_PER_INCIDENT_OF_A_KIND = 85
_DEMAND_OF_A_NORMAL_DAY = (0.72, 1.55)
"""Incidents keep away from days whose expected demand, relative to their neighbours, is outside: there the calendar speaks."""
_TRIES = 60


@dataclass(frozen=True)
class Incident:
    """One planned disturbance; `first` and `last` are day numbers (inclusive), members are coded positions."""

    id: str
    kind: str
    first: int
    last: int
    magnitude: float
    dimension: str
    member: str
    members: tuple[int, ...]
    """Positions of the member(s) in the lists of `market`, or SKU numbers."""
    hours: tuple[int, int] | None = None
    """Shop-local hours [from, until) within each day; None = all day."""
    table: str = ""
    """The table whose delivery is disturbed, for loading incidents."""

    def covers(self, day: int) -> bool:
        """Whether the incident is active on a day number."""
        return self.first <= day <= self.last


@dataclass(frozen=True)
class _Kind:
    """What a label of this kind says."""

    scenario: str
    tables: tuple[str, ...]
    metrics: tuple[str, ...]
    direction: str
    en: str
    zh: str
    is_harmless: bool = False


_KINDS: dict[str, _Kind] = {
    "stock_out": _Kind(
        "stock", ("inventory_snapshots", "orders", "order_items"),
        ("stock_on_hand", "stock_cover_days", "out_of_stock_skus", "out_of_stock_rate", "units_sold", "hot_product_conversion_rate"), "down",
        "Best seller {member} is sold out: the supplier does not deliver.", "爆品 {member} 断货:供应商未按时到货。",
    ),
    "natural_stock_out": _Kind(
        "stock", ("inventory_snapshots", "orders", "order_items"), ("stock_cover_days", "units_sold"), "down",
        "Best seller {member} is sold out: it sold faster, or its delivery came later, than planned.",
        "爆品 {member} 断货:销售快于计划或到货晚于计划。",
    ),
    "payment_outage": _Kind(
        "payment_conversion", ("payments",), ("payment_conversion_rate", "orders_paid", "paid_amount", "gmv", "order_health"), "down",
        "Payments by {member} fail{when}.", "{member} 支付失败{when_zh}。",
    ),
    "warehouse_delay": _Kind(
        "fulfilment", ("shipments", "complaints"), ("shipments_late", "late_delivery_rate"), "up",
        "{warehouse} delivers the parcels of {region} late.", "{warehouse}发往{region}的包裹延迟。",
    ),
    "refund_surge": _Kind(
        "refund_surge", ("refunds",), ("refunded_orders", "refund_amount", "refund_rate", "order_health"), "up",
        "Many more refunds than usual in category {member}.", "{member} 类目退款激增。",
    ),
    "complaint_surge": _Kind(
        "complaint_rate", ("complaints",), ("complaints", "complaint_rate"), "up",
        "Complaints about the quality of {member} surge.", "商品 {member} 质量客诉激增。",
    ),
    "ad_burn": _Kind(
        "campaign_roi", ("ad_spend",), ("ad_spend", "campaign_roi"), "up",
        "Spend on {ad_channel} multiplies and sells nothing more.", "{ad_channel_zh}花费激增但未带来成交。",
    ),
    "bot_traffic": _Kind(
        "traffic_pressure", ("sessions",), ("sessions", "unique_visitors", "page_views", "bounced_sessions", "bounce_rate", "order_conversion_rate"), "up",
        "Bots flood channel {member}: visits bounce and buy nothing.", "{member} 渠道出现机器流量:访问跳出、不下单。",
    ),
    "tracking_loss": _Kind(
        "traffic_pressure", ("sessions", "product_views"), ("sessions", "unique_visitors", "page_views", "product_views", "order_conversion_rate"), "down",
        "Tracking of {member} breaks: visits are missing, orders are not.", "{member} 埋点丢失:会话缺失,订单正常。",
    ),
    "double_tracking": _Kind(
        "traffic_pressure", ("sessions",), ("sessions", "page_views", "bounced_sessions", "order_conversion_rate"), "up",
        "Tracking of {member} fires twice: each visit counts double under a new id.", "{member} 埋点重复触发:每次会话以新编号重复计数。",
    ),
    "sales_drop": _Kind(
        "sales_drop", ("sessions", "orders", "order_items", "payments"), ("orders_placed", "orders_paid", "paid_amount", "buyers", "order_conversion_rate", "gmv"), "down",
        "Orders from {member} collapse.", "{member} 大区销量骤降。",
    ),
    "late_load": _Kind(
        "data_freshness", (), (), "down",
        "Rows of {table} are delivered two days late.", "{table} 数据晚到两天。",
    ),
    "duplicate_load": _Kind(
        "data_freshness", (), (), "none",
        "Rows of {table} are delivered twice with the same keys; no metric may change.", "{table} 数据重复投递(主键相同),指标不应变化。",
        is_harmless=True,
    ),
    "promotion": _Kind(
        "promotion", ("sessions", "orders"), (), "up",
        "Promotion: {name}. Expected, no alert.", "促销:{name_zh}。属预期,不应报警。", is_harmless=True,
    ),
    "holiday": _Kind(
        "holiday", ("sessions", "orders"), (), "down",
        "Holiday: {name}. Expected, no alert.", "节假日:{name_zh}。属预期,不应报警。", is_harmless=True,
    ),
}  # fmt: skip

_METRICS_OF_TABLE = {
    "orders": ("orders_placed", "buyers", "order_conversion_rate"),
    "payments": ("orders_paid", "paid_amount", "payment_conversion_rate", "gmv"),
    "sessions": ("sessions", "unique_visitors", "page_views", "bounced_sessions"),
    "product_views": ("product_views", "hot_product_conversion_rate"),
    "shipments": ("shipments_due", "shipments_late"),
    "refunds": ("refunded_orders", "refund_amount"),
}

_ERA_KINDS = (
    "stock_out", "payment_outage", "warehouse_delay", "refund_surge", "complaint_surge", "ad_burn", "bot_traffic",
    "tracking_loss", "sales_drop", "late_load", "duplicate_load", "promotion",
)  # fmt: skip


def _one(rng: np.random.Generator, count: int) -> int:
    return int(rng.integers(0, count))


def _span(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 2)


def _sku(rng: np.random.Generator, catalogue: Catalogue, best: int, worst: int) -> int:
    # In a small shop only the very first sell enough for anything to be seen.
    worst = max(min(worst, worst * catalogue.size // SKUS_AT_SCALE_ONE), best + 3)
    return int(catalogue.ranking[int(rng.integers(best, worst))])


_Draft = dict[str, Any]


def _stock_out(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    sku = _sku(rng, catalogue, 0, 18)
    return {
        "days": 2 + _one(rng, 4),
        "magnitude": 1.0,
        "dimension": "sku",
        "member": catalogue.code(sku),
        "members": (sku,),
    }


def _payment_outage(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    method = int(rng.choice(len(PAYMENT_METHODS), p=[0.28, 0.28, 0.12, 0.12, 0.20]))
    draft: _Draft = {
        "days": 1,
        "magnitude": _span(rng, 0.7, 0.98),
        "dimension": "payment_method",
        "member": PAYMENT_METHODS[method],
        "members": (method,),
    }
    if rng.random() < 0.6:
        start = 9 + _one(rng, 9)
        draft["hours"] = (start, start + 3 + _one(rng, 4))
    return draft


def _warehouse_delay(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    region = int(rng.choice(len(REGIONS), p=REGION_SHARE))
    warehouse = int(WAREHOUSE_OF_REGION[region])
    return {
        "days": 3 + _one(rng, 4),
        "magnitude": _span(rng, 0.45, 0.85),
        "dimension": "warehouse|region",
        "member": f"{WAREHOUSES[warehouse]}|{REGIONS[region]}",
        "members": (warehouse, region),
    }


def _refund_surge(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    category = _one(rng, 7)
    return {
        "days": 2 + _one(rng, 3),
        "magnitude": _span(rng, 2.5, 6.0),
        "dimension": "category",
        "member": CATEGORY_NAMES[category],
        "members": (category,),
    }


def _complaint_surge(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    sku = _sku(rng, catalogue, 2, 24)
    return {
        "days": 2 + _one(rng, 4),
        "magnitude": _span(rng, 0.2, 0.4),
        "dimension": "sku",
        "member": catalogue.code(sku),
        "members": (sku,),
    }


def _ad_burn(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    channel = _one(rng, len(AD_CHANNELS))
    return {
        "days": 2 + _one(rng, 4),
        "magnitude": _span(rng, 2.2, 4.5),
        "dimension": "ad_channel",
        "member": AD_CHANNELS[channel],
        "members": (channel,),
    }


def _bot_traffic(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    channel = _one(rng, len(CHANNELS))
    return {
        "days": 1 + _one(rng, 3),
        "magnitude": _span(rng, 0.6, 2.5),
        "dimension": "channel",
        "member": CHANNELS[channel],
        "members": (channel,),
    }


def _tracking_loss(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    names = CHANNELS if rng.random() < 0.6 else REGIONS
    member = _one(rng, len(names))
    return {
        "days": 1 + _one(rng, 2),
        "magnitude": _span(rng, 0.5, 0.98),
        "dimension": "channel" if names is CHANNELS else "region",
        "member": names[member],
        "members": (member,),
    }


def _double_tracking(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    channel = _one(rng, 3)
    return {"days": 1, "magnitude": 1.0, "dimension": "channel", "member": CHANNELS[channel], "members": (channel,)}


def _sales_drop(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    region = int(rng.choice(len(REGIONS), p=REGION_SHARE))
    return {
        "days": 2 + _one(rng, 3),
        "magnitude": _span(rng, 0.35, 0.65),
        "dimension": "region",
        "member": REGIONS[region],
        "members": (region,),
    }


def _late_load(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    table = ("orders", "payments", "sessions", "shipments", "product_views")[_one(rng, 5)]
    return {
        "days": 1,
        "magnitude": _span(rng, 0.5, 1.0),
        "dimension": "all",
        "member": "all",
        "members": (),
        "table": table,
    }


def _duplicate_load(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    table = ("orders", "payments", "sessions", "order_items", "refunds")[_one(rng, 5)]
    return {"days": 1, "magnitude": 1.0, "dimension": "all", "member": "all", "members": (), "table": table}


def _promotion(rng: np.random.Generator, catalogue: Catalogue) -> _Draft:
    channel = rng.random() < 0.6
    names = CHANNELS if channel else REGIONS
    member = CHANNELS.index("live_stream") if channel and rng.random() < 0.5 else _one(rng, len(names))
    return {
        "days": 1 + _one(rng, 3),
        "magnitude": _span(rng, 0.25, 0.6),
        "dimension": "channel" if channel else "region",
        "member": names[member],
        "members": (member,),
    }


_DRAFTS: dict[str, Callable[[np.random.Generator, Catalogue], _Draft]] = {
    "stock_out": _stock_out,
    "payment_outage": _payment_outage,
    "warehouse_delay": _warehouse_delay,
    "refund_surge": _refund_surge,
    "complaint_surge": _complaint_surge,
    "ad_burn": _ad_burn,
    "bot_traffic": _bot_traffic,
    "tracking_loss": _tracking_loss,
    "double_tracking": _double_tracking,
    "sales_drop": _sales_drop,
    "late_load": _late_load,
    "duplicate_load": _duplicate_load,
    "promotion": _promotion,
}


class _Planner:
    """Places incidents so that two of them never disturb the same slice within a week of each other."""

    def __init__(self, year: Year, catalogue: Catalogue) -> None:
        demand = year.demand
        low, high = _DEMAND_OF_A_NORMAL_DAY
        self._ordinary = np.ones(len(demand), bool)
        # Against two weeks for single days of a promotion, against a quarter for a festival of weeks.
        for reach in (7, 45):
            padded = np.pad(demand, reach, mode="edge")
            usual = np.convolve(padded, np.full(2 * reach + 1, 1 / (2 * reach + 1)), "valid")
            self._ordinary &= (demand / usual > low) & (demand / usual < high)
        self._year = year
        self._catalogue = catalogue
        self.planned: list[Incident] = []

    def place(self, kind: str, low: int, high: int, rng: np.random.Generator, **fixed: Any) -> None:
        """Put one incident of `kind` within days `low`…`high`; when no free stretch is found, none is put."""
        for _ in range(_TRIES):
            draft = {**_DRAFTS[kind](rng, self._catalogue), **fixed}
            days = draft.pop("days")
            latest = high - days + 1
            if latest < low:
                return
            first = int(rng.integers(low, latest + 1))
            if self._is_free(kind, first, first + days - 1, draft["dimension"], draft["members"]):
                self.put(kind, first, first + days - 1, **draft)
                return

    def put(self, kind: str, first: int, last: int, **draft: Any) -> None:
        """Put one incident on exactly these days."""
        on = self._year.first + timedelta(days=first)
        self.planned.append(Incident(f"{kind}_{on:%Y%m%d}", kind, first, last, **draft))

    def _is_free(self, kind: str, first: int, last: int, dimension: str, members: tuple[int, ...]) -> bool:
        if last >= len(self._ordinary) or not self._ordinary[first : last + 1].all():
            return False
        for other in self.planned:
            margin = 7 if other.kind == kind or (other.dimension, other.members) == (dimension, members) else 0
            traffic = {"bot_traffic", "tracking_loss", "double_tracking", "late_load", "promotion", "sales_drop"}
            if kind in traffic and other.kind in traffic:
                margin = max(margin, 2)
            if margin and first <= other.last + margin and last >= other.first - margin:
                return False
        return True


def plan(seed: int, year: Year, catalogue: Catalogue, anchor: int, eras: int) -> tuple[Incident, ...]:
    """All incidents of the shop, by first day: of the era that ends on the anchor and of `eras` more.

    `anchor`: day number on which the first era ends and on which a payment outage and a stock-out are active.
    """
    planner = _Planner(year, catalogue)
    rng = stream(seed, "incidents")
    if anchor >= FINALE_DAYS:
        sku = int(catalogue.ranking[1])
        planner.put(
            "stock_out", anchor - 2, anchor, magnitude=1.0, dimension="sku", member=catalogue.code(sku), members=(sku,)
        )
        method = PAYMENT_METHODS.index("alipay")
        planner.put(
            "payment_outage",
            anchor,
            anchor,
            magnitude=0.92,
            dimension="payment_method",
            member="alipay",
            members=(method,),
        )
        _fill(planner, QUIET_DAYS, anchor - 4, rng)
    for era in range(1, eras + 1):
        first = anchor + 1 + (era - 1) * ERA_DAYS
        _fill(planner, max(first, QUIET_DAYS), first + ERA_DAYS - 1, stream(seed, "incidents", era))
    return tuple(sorted(planner.planned, key=lambda incident: (incident.first, incident.id)))


def _fill(planner: _Planner, low: int, high: int, rng: np.random.Generator) -> None:
    """Spread incidents of every kind over days `low`…`high`, in as many equal parts as there is room for."""
    room = high - low + 1
    if room < 7:
        return
    parts = max(1, round(room / _DAYS_PER_INCIDENT_OF_A_KIND))
    edges = np.linspace(low, high + 1, parts + 1).astype(int)
    for kind in _ERA_KINDS:
        for part in range(parts):
            planner.place(kind, int(edges[part]), int(edges[part + 1]) - 1, rng)
    for part in range(max(1, parts // 2)):
        planner.place("double_tracking", low + part * room // 2, high, rng)
    if room > 120:
        planner.place("payment_outage", low, high, rng, hours=None, magnitude=0.95)
        planner.place("payment_outage", low, high, rng, hours=(19, 23), magnitude=0.9)


def labels(
    incidents: tuple[Incident, ...],
    year: Year,
    until: int,
    sold_out: Iterable[tuple[str, int, int]] = (),
) -> list[dict[str, Any]]:
    """The labels of everything that began by day number `until`, by first day: incidents, promotions, holidays.

    `sold_out`: (SKU, first day, last day) of best sellers that ran out although nobody planned it. They become labels of
    the kind `natural_stock_out` with `natural: true`, so that an alert on a true stock-out is no false alarm.

    Fields: id, kind, scenario, tables (disturbed), metrics (ids expected to move), direction (up | down | none),
    dimension and member (as in metric tables; `all` = the shop), starts_on and ends_on (shop days, inclusive), magnitude,
    is_harmless, description {en, zh}; for some: hours ([from, until) of each day, shop-local), arrives_on (of late rows),
    natural.
    Magnitude is the share that fails, is late, lost or missing (payment_outage, warehouse_delay, tracking_loss, late_load,
    sales_drop, stock_out), the share of buyers who complain (complaint_surge), the factor on the usual level (refund_surge,
    ad_burn), or the addition to it (bot_traffic, double_tracking, promotion, holiday).
    """
    found = [_label(incident, year) for incident in incidents if incident.first <= until]
    for occasion in year.occasions:
        if not QUIET_DAYS <= (occasion.starts_on - year.first).days <= until:
            continue
        lifts = [s.traffic * s.conversion - 1 for s in occasion.stretches]
        found.append(
            _row(
                f"{'promotion' if occasion.is_promotion else 'holiday'}_{occasion.id}",
                "promotion" if occasion.is_promotion else "holiday",
                where=("all", "all"),
                days=(occasion.starts_on, occasion.ends_on),
                magnitude=round(max(lifts) if occasion.is_promotion else min(lifts), 2),
                words={"name": occasion.en, "name_zh": occasion.zh},
            )
        )
    for sku, first, last in sold_out:
        if not QUIET_DAYS <= first <= until:
            continue
        on, kind = _day(year, first), "natural_stock_out"
        row = _row(
            f"{kind}_{on:%Y%m%d}_{sku}",
            kind,
            where=("sku", sku),
            days=(on, _day(year, last)),
            magnitude=1.0,
            words={"member": sku},
        )
        found.append({**row, "natural": True})
    return sorted(found, key=lambda label: (label["starts_on"], label["id"]))


def _label(incident: Incident, year: Year) -> dict[str, Any]:
    words = {
        "member": incident.member,
        "table": incident.table,
        "name": f"special on {incident.member}",
        "name_zh": f"{incident.member} 专场",
    }
    if incident.kind == "warehouse_delay":
        words |= {"warehouse": WAREHOUSES[incident.members[0]], "region": REGIONS[incident.members[1]]}
    if incident.kind == "ad_burn":
        words |= {"ad_channel": incident.member, "ad_channel_zh": AD_CHANNEL_ZH[incident.members[0]]}
    if incident.hours:
        begin, end = incident.hours
        words |= {"when": f" from {begin}:00 to {end}:00", "when_zh": f"({begin}:00–{end}:00)"}
    else:
        words |= {"when": " all day", "when_zh": "(全天)"}
    row = _row(
        incident.id,
        incident.kind,
        where=(incident.dimension, incident.member),
        days=(_day(year, incident.first), _day(year, incident.last)),
        magnitude=incident.magnitude,
        words=words,
    )
    if incident.hours:
        row["hours"] = list(incident.hours)
    if incident.table:
        row["tables"] = [incident.table]
        if incident.kind == "late_load":
            row["metrics"] = list(_METRICS_OF_TABLE[incident.table])
            row["arrives_on"] = str(_day(year, incident.last + 2))
    return row


def _row(
    name: str, kind: str, *, where: tuple[str, str], days: tuple[date, date], magnitude: float, words: dict[str, str]
) -> dict[str, Any]:
    about = _KINDS[kind]
    return {
        "id": name,
        "kind": kind,
        "scenario": about.scenario,
        "tables": list(about.tables),
        "metrics": list(about.metrics),
        "direction": about.direction,
        "dimension": where[0],
        "member": where[1],
        "starts_on": str(days[0]),
        "ends_on": str(days[1]),
        "magnitude": magnitude,
        "is_harmless": about.is_harmless,
        "description": {"en": about.en.format_map(words), "zh": about.zh.format_map(words)},
    }


def _day(year: Year, day: int) -> date:
    return year.first + timedelta(days=day)
