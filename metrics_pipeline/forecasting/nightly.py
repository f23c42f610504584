"""The forecasts of a night: only what a rule, or the installation's `forecasts:`, asks for; and the shelves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from metrics_pipeline.detection.promotions import PromotionDay
from metrics_pipeline.forecasting import boosting, ets
from metrics_pipeline.forecasting.backtest import backtest, origins_of
from metrics_pipeline.forecasting.days import Days
from metrics_pipeline.forecasting.ets import Forecast
from metrics_pipeline.forecasting.panel import Panel, empty_panel, read_panel
from metrics_pipeline.forecasting.stored import Question, StoredPanel, rows_of
from metrics_pipeline.forecasting.supply import (
    ON_ORDER,
    SKU_HISTORY_DAYS,
    SOLD,
    STOCK,
    Shelf,
    empty_shelf,
    shelf_of,
    terms_of,
)
from metrics_pipeline.warehouse.attributes import read_products
from metrics_pipeline.warehouse.read import Published

HORIZON = 28
Model = Literal["ets", "boosted"]


@dataclass(frozen=True)
class Made:
    """The forecast of one question."""

    question: Question
    panel: Panel
    forecast: Forecast
    stored: StoredPanel


def questions(
    settings: Mapping[str, Sequence[str]], asked: Iterable[tuple[str, str]], published: Published
) -> list[Question]:
    """What is to be forecast, each once: (metric, dimension) of the settings and of rules, of metrics that have values."""
    wanted = dict.fromkeys([(metric, dimension) for metric, dimensions in settings.items() for dimension in dimensions])
    wanted |= dict.fromkeys(asked)
    states = published.metrics
    return [
        Question(metric, dimension)
        for metric, dimension in wanted
        if metric in states and not states[metric].is_absent and states[metric].complete_until is not None
    ]


def make(
    published: Published,
    question: Question,
    promotions: Sequence[PromotionDay],
    *,
    horizon: int = HORIZON,
    with_score: bool = True,
    until: datetime | None = None,
    model: Model = "ets",
) -> Made | None:
    """The forecast of one metric and dimension, and its backtest; None = it has no values (for this reader)."""
    forecast = boosting.forecast if model == "boosted" else ets.forecast
    panel = read_panel(published, question.metric, question.dimension, until=until)
    if not panel.members:
        return None
    days = panel.values.shape[1]
    calendar = Days.of(promotions, panel.first, days + horizon)
    made = forecast(panel.values, calendar, horizon)
    origins = origins_of(days, min(horizon, 14)) if with_score else []
    scored = (
        backtest(
            panel.values,
            calendar,
            min(horizon, 14),
            origins,
            lambda one, days, ahead: forecast(one, days, ahead).quantiles,
        )
        if origins
        else None
    )
    return Made(question, panel, made, StoredPanel(question, panel.last, int((made.error == made.error).sum()), scored))


def table_of(made: Sequence[Made]) -> pa.Table:
    """All rows of a night."""
    return pa.concat_tables([rows_of(one.question, one.panel, one.forecast) for one in made])


def read_shelf(published: Published, *, until: datetime | None = None) -> Shelf:
    """Stock, orders and sales of every SKU that the reader may see, up to `until` (default: all that is complete)."""
    states = published.metrics
    if STOCK not in states or states[STOCK].complete_until is None or SOLD not in states:
        return empty_shelf(until or datetime(1970, 1, 2))
    ends = [until, states[STOCK].complete_until, states[SOLD].complete_until]
    end = min(one for one in ends if one is not None)
    stock, ordered, sold = (
        read_panel(published, name, "sku", until=end, days=SKU_HISTORY_DAYS)
        if name in states
        else empty_panel(end.date())
        for name in (STOCK, ON_ORDER, SOLD)
    )
    if not stock.members:
        return empty_shelf(end)
    demand = read_panel(published, SOLD, "category", until=end)
    if not demand.members:
        demand = read_panel(published, SOLD, "all", until=end)
    return shelf_of(stock, ordered, sold, demand, terms_of(read_products(published.directory)))
