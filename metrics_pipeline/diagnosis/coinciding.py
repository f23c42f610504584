"""What else is known of the day: promotions and holidays, SKUs that sold out, campaigns that began or ended, notes.

Coinciding is not causing; a diagnosis lists it and says so. Values come through the reader's eyes: what somebody may not
see is no evidence for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.diagnosis.model import Coinciding
from metrics_pipeline.warehouse.quoting import literal

if TYPE_CHECKING:
    from metrics_pipeline.warehouse.read import Published

MOST_SKUS, MOST_CAMPAIGNS = 3, 3
LEAST_SOLD = 0.01
"""Of all units of the fortnight before: what a SKU must have sold to be worth a word."""
NOTE_DAYS = 2
"""A note of the days before counts, too: what is deployed in the evening shows the next day."""
SELLING = frozenset({"order", "product", "finance", "user"})
"""Categories of metrics that an empty shelf can lower."""


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


def promotions_on(days: Iterable[PromotionDay], on: date) -> list[Coinciding]:
    """The promotions and holidays of the calendar that this day belongs to, one each."""
    by_event: dict[str, list[PromotionDay]] = {}
    for one in days:
        if abs((one.date - on).days) <= 60:
            by_event.setdefault(one.event, []).append(one)
    found = []
    for event, all_days in sorted(by_event.items()):
        if any(one.date == on for one in all_days):
            first = next(one for one in all_days if one.date == on)
            found.append(
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
    return found


def noted_on(notes: Iterable[Note], on: date) -> list[Coinciding]:
    """Notes whose days contain this one, or that are at most two days older."""
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
        if one.starts_on <= on <= one.ends_on + timedelta(days=NOTE_DAYS)
    ]


def sold_out_on(published: Published, on: date) -> list[Coinciding]:
    """The best sellers without stock on the day that had some in the fortnight before: at most three."""
    start = on - timedelta(days=14)
    rows = _rows(
        published,
        f"""
        WITH stock AS (
            SELECT member AS sku,
                max(CASE WHEN period_start = {literal(_midnight(on))} THEN value END) AS now,
                max(CASE WHEN value > 0 THEN period_start END) AS last_seen
            FROM metric_values
            WHERE metric = 'stock_on_hand' AND dimension = 'sku' AND grain = 'day' AND period_start <= {literal(_midnight(on))}
                AND period_start >= {literal(_midnight(start))}
            GROUP BY member
        ),
        sold AS (
            SELECT member AS sku, sum(value) AS units FROM metric_values
            WHERE metric = 'units_sold' AND dimension = 'sku' AND grain = 'day' AND period_start < {literal(_midnight(on))}
                AND period_start >= {literal(_midnight(start))}
            GROUP BY member
        )
        SELECT sku, last_seen, units FROM stock JOIN sold USING (sku)
        WHERE now = 0 AND last_seen IS NOT NULL AND units >= {LEAST_SOLD} * (SELECT sum(units) FROM sold)
        ORDER BY units DESC, sku LIMIT {MOST_SKUS}
        """,
        start,
        on,
    )
    return [
        Coinciding(
            "stock_out",
            str(sku),
            f"{sku} 缺货(此前 14 天售出 {units:,.0f} 件)",
            f"{sku} is out of stock ({units:,.0f} sold in the 14 days before)",
            last_seen.date() + timedelta(days=1),
            on,
            {"sku": str(sku)},
        )
        for sku, last_seen, units in rows
    ]


def campaigns_on(published: Published, on: date) -> list[Coinciding]:
    """Campaigns whose spending began on the day or the day before, or ended the day before."""
    start = on - timedelta(days=8)
    rows = _rows(
        published,
        f"""
        SELECT member, min(period_start) FILTER (WHERE value > 0), max(period_start) FILTER (WHERE value > 0)
        FROM metric_values
        WHERE metric = 'ad_spend' AND dimension = 'campaign' AND grain = 'day' AND member <> 'none'
            AND period_start BETWEEN {literal(_midnight(start))} AND {literal(_midnight(on))}
        GROUP BY member ORDER BY member
        """,
        start,
        on,
    )
    found = []
    for member, first, last in rows:
        if first is None:
            continue
        began, ended = first.date(), last.date()
        if began >= on - timedelta(days=1):
            zh, en = f"活动 {member} 开始投放", f"campaign {member} began"
        elif ended == on - timedelta(days=1):
            zh, en = f"活动 {member} 结束投放", f"campaign {member} ended"
        else:
            continue
        found.append(Coinciding("campaign", str(member), zh, en, began, ended, {"campaign": str(member)}))
    return found[:MOST_CAMPAIGNS]


def _rows(published: Published, query: str, start: date, on: date) -> Sequence[tuple[Any, ...]]:
    with published.connect(start, on + timedelta(days=1)) as con:
        return con.execute(query).fetchall()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)
