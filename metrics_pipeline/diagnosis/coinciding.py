"""What else is known of the day: promotions and holidays, SKUs that sold out, campaigns that began or ended, notes.

Coinciding is not causing; a diagnosis lists it and says so. But what cannot have to do with the change is not listed: it
must be about the slice that is asked about, touch the causes that were found, and, where it can be measured, be large
enough to make at least a tenth of the change. Values come through the reader's eyes: what somebody may not see is no
evidence for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.model import Cause, Coinciding
from metrics_pipeline.warehouse.quoting import literal

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue, Metric
    from metrics_pipeline.warehouse.read import Published

MOST_SKUS, MOST_CAMPAIGNS, MOST_ELSEWHERE = 3, 3, 2
LEAST_PART = 0.1
"""Of a change: what a sold-out SKU or a campaign must be able to make, by its usual share, to be worth a word."""
LEAST_SHARE = 0.01
"""Of all units or visits, however small the change is."""
EXPLAINED = 0.6
"""Share of the change from which causes leave no room for what is elsewhere."""
JUST_BEFORE = timedelta(days=3)
"""A shelf may be empty so long before the first day of the change."""
NOTE_DAYS = 2
"""A note of the days before counts, too: what is deployed in the evening shows the next day."""


@dataclass(frozen=True)
class Happening:
    """The change that something may coincide with."""

    on: date
    began: date
    """First day of the change; `on` when it is not known."""
    slice: Mapping[str, str]
    """Dimension → member that was asked about; {} = the total."""
    causes: Sequence[Cause]
    size: float
    """|change ÷ expected|."""

    def touches(self, elements: Mapping[str, str]) -> bool:
        """Whether it lies where the change is: in the slice, and in a cause where causes explain most of it; what is about everything
        ({}) does."""
        if not _agree(elements, self.slice):
            return False
        if not elements or sum(one.share for one in self.causes) < EXPLAINED:
            return True
        return any(
            _agree(elements, one.elements) and not elements.keys().isdisjoint(one.elements) for one in self.causes
        )

    def is_large_enough(self, share: float) -> bool:
        """Whether what is usually this share of the whole can be a notable part of the change."""
        return share >= max(LEAST_SHARE, LEAST_PART * self.size)


def _agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    return all(other.get(name, member) == member for name, member in one.items())


@dataclass(frozen=True)
class Note:
    """Something a person or a deployment wrote down."""

    id: int
    kind: str
    """deploy_note | campaign | data_problem"""
    text: str
    starts_on: date
    ends_on: date
    elements: Mapping[str, str]


def promotions_on(days: Iterable[PromotionDay], change: Happening) -> list[Coinciding]:
    """The promotions and holidays of the calendar that this day belongs to, one each; not those of other slices. Of events of some
    slices that neither the slice nor a cause names, two at most, and none beside an event of the whole shop."""
    on = change.on
    known = {name for one in (change.slice, *(cause.elements for cause in change.causes)) for name in one}
    by_event: dict[str, list[PromotionDay]] = {}
    for one in days:
        if abs((one.date - on).days) <= 60 and _is_about(one, change):
            by_event.setdefault(one.event, []).append(one)
    found: list[Coinciding] = []
    elsewhere: list[Coinciding] = []
    for event, all_days in sorted(by_event.items()):
        if any(one.date == on for one in all_days):
            first = next(one for one in all_days if one.date == on)
            is_near = not first.affects or any(name in known for name, _ in first.affects)
            (found if is_near else elsewhere).append(
                Coinciding(
                    "holiday" if first.kind == "holiday" else "promotion",
                    event,
                    first.name_zh,
                    first.name_en,
                    min(one.date for one in all_days),
                    max(one.date for one in all_days),
                    {},
                )
            )
    return found or elsewhere[:MOST_ELSEWHERE]


def _is_about(day: PromotionDay, change: Happening) -> bool:
    """Whether some member that the event affects contradicts neither the slice nor every cause."""
    places = [change.slice] if not change.causes else [{**one.elements, **change.slice} for one in change.causes]
    return any(all(place.get(name, members[0]) in members for name, members in day.affects) for place in places)


def noted_on(notes: Iterable[Note], change: Happening) -> list[Coinciding]:
    """Notes whose days contain this one, or that are at most two days older; not those about other slices."""
    on = change.on
    return [
        Coinciding(
            one.kind if one.kind in ("campaign", "data_problem") else "deploy_note",  # type: ignore[arg-type]
            f"note:{one.id}",
            one.text,
            one.text,
            one.starts_on,
            one.ends_on,
            dict(one.elements),
        )
        for one in notes
        if one.starts_on <= on <= one.ends_on + timedelta(days=NOTE_DAYS) and change.touches(one.elements)
    ]


def sells(metric: Metric, catalogue: Catalogue) -> bool:
    """Whether an empty shelf can lower it: what is ordered, bought and earned, also by visit or visitor, but no rate of payment,
    of refunds or of buyers."""
    if metric.stage != "conversion" or metric.unit == "score":
        return False
    below = catalogue.metrics.get(metric.denominator) if metric.denominator else None
    return not metric.denominator or (below is not None and below.category == "traffic")


def sold_out_on(published: Published, change: Happening) -> list[Coinciding]:
    """The best sellers whose shelf emptied when the change began and is empty on the day: at most three, each of a share of the
    units sold (of the category, when one is asked about) that can make a notable part of the change."""
    on, start = change.on, change.on - timedelta(days=14)
    day, first = literal(_midnight(on)), literal(_midnight(start))
    category = change.slice.get("category")
    whole = ("category", category) if category is not None else ("all", "all")
    rows = _rows(
        published,
        f"""
        WITH stock AS (
            SELECT member AS sku,
                max(CASE WHEN period_start = {day} THEN value END) AS now,
                max(CASE WHEN value > 0 THEN period_start END) AS last_seen,
                count(CASE WHEN value > 0 AND period_start < {day} THEN 1 END) AS days
            FROM metric_values
            WHERE metric = 'stock_on_hand' AND dimension = 'sku' AND grain = 'day'
                AND period_start BETWEEN {first} AND {day}
            GROUP BY member
        ),
        sold AS (
            SELECT dimension, member, sum(value) AS units, count(DISTINCT period_start) AS days FROM metric_values
            WHERE metric = 'units_sold' AND grain = 'day' AND period_start < {day} AND period_start >= {first}
                AND (dimension = 'sku' OR (dimension = {literal(whole[0])} AND member = {literal(whole[1])}))
            GROUP BY dimension, member
        ),
        shop AS (SELECT units / days AS a_day FROM sold WHERE dimension <> 'sku')
        SELECT sku, last_seen, sold.units / stock.days / (SELECT a_day FROM shop) AS share
        FROM stock JOIN sold ON sold.dimension = 'sku' AND sold.member = sku
        WHERE now = 0 AND stock.days > 0 AND last_seen >= {literal(_midnight(change.began) - JUST_BEFORE)}
        ORDER BY share DESC, sku LIMIT 20
        """,
        start,
        on,
    )
    large = [
        (str(sku), seen, share) for sku, seen, share in rows if share is not None and change.is_large_enough(share)
    ]
    names_category = any("category" in one for one in (change.slice, *(cause.elements for cause in change.causes)))
    categories = _categories(published, [sku for sku, _, _ in large]) if large and names_category else {}
    return [
        Coinciding(
            "stock_out",
            sku,
            f"{sku} 缺货(平时占销量 {share:.0%})",
            f"{sku} is out of stock ({share:.0%} of units sold as a rule)",
            seen.date() + timedelta(days=1),
            on,
            {"sku": sku},
        )
        for sku, seen, share in large
        if change.touches({"sku": sku, **categories.get(sku, {})})
    ][:MOST_SKUS]


def _categories(published: Published, skus: Sequence[str]) -> dict[str, dict[str, str]]:
    """SKU → {"category": its category}, of those whose category is known."""
    from metrics_pipeline.warehouse.attributes import (
        read_products,
    )  # DuckDB, which whoever sends messages has no use for

    products = read_products(published.directory)
    if products is None:
        return {}
    wanted = set(skus)
    pairs = zip(products["sku"].to_pylist(), products["category"].to_pylist(), strict=True)
    return {sku: {"category": category} for sku, category in pairs if sku in wanted and category is not None}


def campaigns_on(published: Published, metric: Metric, change: Happening) -> list[Coinciding]:
    """Campaigns whose spending began on the day or the day before, or ended the day before, by their share: of the metric itself
    (of a ratio: of what it is divided by) where it is known by campaign, else of all that is spent."""
    on, start = change.on, change.on - timedelta(days=8)
    has_own = "campaign" in metric.slices
    if not has_own and metric.stage not in ("traffic", "conversion"):
        return []
    weighed = metric.id if has_own else "ad_spend"
    weight = "abs(coalesce(denominator, numerator, value))"
    rows = _rows(
        published,
        f"""
        WITH spent AS (
            SELECT member, min(period_start) AS began, max(period_start) AS ended FROM metric_values
            WHERE metric = 'ad_spend' AND dimension = 'campaign' AND grain = 'day' AND member <> 'none' AND value > 0
                AND period_start BETWEEN {literal(_midnight(start))} AND {literal(_midnight(on))}
            GROUP BY member
        ),
        weights AS (
            SELECT dimension, member,
                coalesce(sum({weight}) FILTER (WHERE period_start = {literal(_midnight(on))}), 0) AS now,
                coalesce(avg({weight}) FILTER (WHERE period_start < {literal(_midnight(on - timedelta(days=1)))}), 0) AS before
            FROM metric_values
            WHERE metric = {literal(weighed)} AND dimension IN ('campaign', 'all') AND grain = 'day'
                AND period_start BETWEEN {literal(_midnight(start))} AND {literal(_midnight(on))}
            GROUP BY dimension, member
        ),
        whole AS (SELECT greatest(now, before) AS all_of_it FROM weights WHERE dimension = 'all')
        SELECT member, began, ended, abs(now - before) / nullif((SELECT all_of_it FROM whole), 0) AS share
        FROM spent JOIN weights USING (member)
        WHERE weights.dimension = 'campaign'
        ORDER BY share DESC, member
        """,
        start,
        on,
    )
    found = []
    for member, first, last, share in rows:
        began, ended = first.date(), last.date()
        if began >= on - timedelta(days=1):
            zh, en = f"活动 {member} 开始投放", f"campaign {member} began"
        elif ended == on - timedelta(days=1):
            zh, en = f"活动 {member} 结束投放", f"campaign {member} ended"
        else:
            continue
        elements = {"campaign": str(member)}
        if share is not None and change.is_large_enough(share) and change.touches(elements):
            found.append(Coinciding("campaign", str(member), zh, en, began, ended, elements))
    return found[:MOST_CAMPAIGNS]


def _rows(published: Published, query: str, start: date, on: date) -> Sequence[tuple[Any, ...]]:
    with published.connect(start, on + timedelta(days=1)) as con:
        return con.execute(query).fetchall()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
