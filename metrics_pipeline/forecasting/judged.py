"""`forecast(...)` in rules: what was to be expected at the end of each judged day, from the days up to it alone.

A judged period is the origin: the panel of its metric and dimension is cut after it and forecast from there, so a
replay over last spring knows no more than one knew last spring (values that were restated since are the restated
ones, as for every other expression). The statement joins the rows by spec, member and day.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.detection.references import ANY_MEMBER, Reference
from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.ets import Forecast, forecast
from metrics_pipeline.forecasting.panel import Panel
from metrics_pipeline.forecasting.stockout import HORIZON, risk
from metrics_pipeline.forecasting.supply import ON_ORDER, SOLD, STOCK, Term, shelf_of

Floats = NDArray[np.float64]

SCHEMA = pa.schema(
    {
        "spec_no": pa.int64(), "member": pa.string(), "day": pa.date32(), "observed": pa.float64(),
        "expected": pa.float64(),
    }
)  # fmt: skip
"""observed: what thresholds judge; expected: mean per day ahead, in the metric's unit (of a stock-out: 0 pieces), NULL
where `observed` is it."""


@dataclass(frozen=True)
class Ask:
    """What rules that agree in their `forecast(...)` ask of one metric and dimension."""

    spec_no: int
    metric: str
    dimension: str
    ahead: int
    """Days ahead."""
    side: str
    """below, above, or '' = the expected value itself; stockout = the chance to be sold out."""
    bound: float | None
    """Of the mean per day; None = the target of the seed."""
    sample: tuple[str, float] | None = None
    """Sample metric and least value: other slices are not looked at."""

    @property
    def is_stockout(self) -> bool:
        return self.side == "stockout"


PanelFor = Callable[[str, str], Panel]
"""(metric, dimension) → its history up to the last origin; without series where there is none."""


def answer(
    asks: Sequence[Ask],
    panel_for: PanelFor,
    origins: Sequence[date],
    promotions: Sequence[PromotionDay],
    *,
    references: Sequence[Reference],
    terms: Callable[[], Mapping[str, Term]] = dict,
) -> pa.Table:
    """Rows of `SCHEMA` for every ask, series and origin with a forecast. `terms`: what is agreed for SKUs."""
    found = [SCHEMA.empty_table()]
    shops: dict[str, list[Ask]] = {}
    for ask in (ask for ask in asks if ask.is_stockout):
        shops.setdefault(ask.metric, []).append(ask)
    for of_shop in shops.values():
        found += _shelves(of_shop, panel_for, origins, promotions, terms())
    grouped: dict[tuple[str, str], list[Ask]] = {}
    for ask in (ask for ask in asks if not ask.is_stockout):
        grouped.setdefault((ask.metric, ask.dimension), []).append(ask)
    for (metric, dimension), of_panel in grouped.items():
        panel = panel_for(metric, dimension)
        if not panel.members:
            continue
        horizon = max(ask.ahead for ask in of_panel)
        calendar = Days.of(promotions, panel.first, panel.values.shape[1] + horizon)
        for origin in origins:
            days = (origin - panel.first).days + 1
            if not 0 < days <= panel.values.shape[1]:
                continue
            made = forecast(panel.values[:, :days], calendar.until(days + horizon), horizon)
            found += [_rows(ask, panel, made, origin, references) for ask in of_panel]
    return pa.concat_tables(found)


def _shelves(
    asks: Sequence[Ask],
    panel_for: PanelFor,
    origins: Sequence[date],
    promotions: Sequence[PromotionDay],
    terms: Mapping[str, Term],
) -> list[pa.Table]:
    """Chances to be sold out, of the SKUs that have the sample some ask wants.

    The asks are of one shop: tests of rules put several beside each other, each with a prefix before its metrics.
    """
    prefix = asks[0].metric.removesuffix(STOCK)
    stock, ordered, sold = (panel_for(f"{prefix}{name}", "sku") for name in (STOCK, ON_ORDER, SOLD))
    demand = panel_for(f"{prefix}{SOLD}", "category")
    if not stock.members or not sold.members:
        return []
    if not demand.members:
        demand = panel_for(f"{prefix}{SOLD}", "all")
    shelf = shelf_of(stock, ordered, sold, demand, terms)
    samples = {ask.sample: panel_for(ask.sample[0], "sku") for ask in asks if ask.sample is not None}
    found = []
    for origin in origins:
        days = (origin - shelf.first).days + 1
        if not 0 < days <= shelf.on_hand.shape[1]:
            continue
        now = shelf.until(days)
        for ask in asks:
            wanted = set(now.skus)
            if ask.sample is not None:
                panel, least = samples[ask.sample], ask.sample[1]
                at = (origin - panel.first).days
                today = panel.values[:, at] if 0 <= at < panel.values.shape[1] else np.full(len(panel.members), np.nan)
                wanted &= {panel.members[row] for row in np.flatnonzero(today >= least)}
            skus = [sku for sku in now.skus if sku in wanted]
            if not skus:
                continue
            at_most = ask.ahead or int(now.lead_days.max())
            risk_now = risk(now, promotions, horizon=min(at_most, HORIZON), skus=skus)
            chance = risk_now.within(ask.ahead)
            known = np.flatnonzero(np.isfinite(chance))
            found.append(
                pa.table(
                    [
                        pa.array(np.full(len(known), ask.spec_no)),
                        pa.array([skus[row] for row in known], pa.string()),
                        pa.array([origin] * len(known), pa.date32()),
                        pa.array(chance[known]),
                        pa.array(np.zeros(len(known))),
                    ],
                    schema=SCHEMA,
                )
            )
    return found


def _rows(ask: Ask, panel: Panel, made: Forecast, origin: date, references: Sequence[Reference]) -> pa.Table:
    rows = np.flatnonzero(np.isfinite(made.error))
    expected = made.mean[rows, : ask.ahead].mean(axis=1)
    if ask.side:
        bounds = (
            np.full(len(rows), ask.bound)
            if ask.bound is not None
            else targets(references, ask, [panel.members[row] for row in rows], origin)
        )
        known = np.isfinite(bounds)
        rows, expected, bounds = rows[known], expected[known], bounds[known]
        observed = made.chance_below(rows, ask.ahead, bounds)
        observed = 1 - observed if ask.side == "above" else observed
        shown = pa.array(expected)
    else:
        observed, shown = expected, pa.nulls(len(rows), pa.float64())
    return pa.table(
        [
            pa.array(np.full(len(rows), ask.spec_no)),
            pa.array([panel.members[row] for row in rows], pa.string()),
            pa.array([origin] * len(rows), pa.date32()),
            pa.array(observed, pa.float64()),
            shown,
        ],
        schema=SCHEMA,
    )


def targets(references: Sequence[Reference], ask: Ask, members: Sequence[str], origin: date) -> Floats:
    """Mean target per day of each member over the days ahead, NaN where a day has none."""
    ahead = [origin + timedelta(days=step) for step in range(1, ask.ahead + 1)]
    amounts: dict[str, list[float]] = {}
    for one in references:
        if (one.kind, one.metric, one.dimension) == ("target", ask.metric, ask.dimension):
            of_member = amounts.setdefault(one.member, [np.nan] * len(ahead))
            for number, day in enumerate(ahead):
                if one.valid_from <= day <= one.valid_to:
                    of_member[number] = one.amount
    common = amounts.get(ANY_MEMBER, [np.nan] * len(ahead))
    found = []
    for member in members:
        own = amounts.get(member, common)
        found.append(
            np.mean([theirs if np.isfinite(theirs) else all_ for theirs, all_ in zip(own, common, strict=True)])
        )
    return np.asarray(found, float)


CTES = """
-- forecast: made at the end of the tested day, see metrics_pipeline/forecasting/judged.py.
forecast_judged AS (
    SELECT
        t.ask_no, f.expected AS baseline, CASE WHEN f.expected IS NULL THEN 1.0 END AS scale, f.observed AS foreseen
    FROM tested AS t
    JOIN members AS m ON m.member_no = t.series_no % {series}
    JOIN forecasts AS f
        ON f.spec_no = t.spec_no AND f.member = m.member AND f.day = CAST(t.period_start AS DATE)
)"""
"""Yields `forecast_judged`; also reads `forecasts` (`SCHEMA`), and has the observed number itself."""
