"""Forecasts as assets: `forecasts/values` for metrics, `forecasts/stockout_risk` for the shelves.

Here: what is asked, and what the pages show. Not here: how it is foreseen (`forecasting`), what rules make of it: a rule
with `forecast(...)` computes the same numbers from the same values, so it does not wait for these assets.
"""

import math
from collections.abc import Callable
from typing import Any

import dagster as dg

from metrics_pipeline.orchestration.instance import WRITER_POOL
from metrics_pipeline.orchestration.judging import CONFIDENTIAL
from metrics_pipeline.orchestration.keys import FORECASTS_KEY, PUBLISHED_KEY, STOCKOUT_KEY
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.rules.seeds import seeds_of
from metrics_pipeline.warehouse.read import Published

_PLOT_DAYS = 60
_SHOWN_SKUS = 20


def _foreseen(key: dg.AssetKey, description: str) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """An asset of forecasts, made from what is published."""
    return dg.asset(
        key=key,
        description=description,
        group_name="forecasts",
        deps=[PUBLISHED_KEY],
        tags={"layer": "forecasts"},
        kinds={"numpy", "parquet"},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
        pool=WRITER_POOL,
    )


def build_forecast_assets(project: Project) -> list[dg.AssetsDefinition]:
    """The two assets of a night's forecasts; neither stops the rest of the night."""

    @_foreseen(
        FORECASTS_KEY,
        "The next four weeks of the metrics that rules or `forecasts:` of the installation ask for, with intervals.",
    )
    def values(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from metrics_pipeline.forecasting import nightly, stored

        published = Published.open(project.settings.published_dir)
        seeds = seeds_of(project.settings)
        asked = [
            (rule.metric, rule.dimension)
            for rule in project.ruleset.rules
            if rule.expr.family == "forecast" and rule.condition is None
        ]
        questions = nightly.questions(project.settings.installation.forecasts, asked, published)
        model = project.settings.installation.forecast_model
        found = [nightly.make(published, question, seeds.promotions, model=model) for question in questions]
        made = [one for one in found if one is not None]
        if not made:
            return dg.MaterializeResult(metadata={"forecasts": 0, "why": "no metric that is asked for has values"})
        version = stored.store(
            project.settings.forecasts_dir,
            "values",
            nightly.table_of(made),
            made_at=project.now(),
            data_version=published.version,
            model=made[0].forecast.model,
            horizon=nightly.HORIZON,
            run_id=context.run_id,
            panels=[one.stored for one in made],
        )
        return dg.MaterializeResult(
            metadata={
                "version": version.id,
                "model": version.model,
                "published_version": published.version,
                "metrics": len(made),
                "series": sum(one.stored.series for one in made),
                "values": version.rows,
                "backtest": _backtest(made),
                **_plot(project, made[0]),
            },
            data_version=dg.DataVersion(version.id),
        )

    @_foreseen(STOCKOUT_KEY, "The chance of each SKU to be sold out, day by day, and what should be ordered by when.")
    def stockout_risk(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from metrics_pipeline.forecasting import nightly, outlook, stored
        from metrics_pipeline.forecasting.replenish import propose
        from metrics_pipeline.forecasting.stockout import HORIZON, MODEL, risk

        published = Published.open(project.settings.published_dir)
        shelf = nightly.read_shelf(published)
        if not shelf.skus:
            return dg.MaterializeResult(metadata={"skus": 0, "why": "this source has no stock"})
        seeds = seeds_of(project.settings)
        found = risk(shelf, seeds.promotions)
        orders = propose(found, shelf)
        version = stored.store(
            project.settings.forecasts_dir,
            "stockout",
            stored.risk_rows(found),
            made_at=project.now(),
            data_version=published.version,
            model=MODEL,
            horizon=HORIZON,
            run_id=context.run_id,
            outlook=outlook.table_of(outlook.outlooks(found, orders)),
        )
        return dg.MaterializeResult(
            metadata={
                "version": version.id,
                "model": version.model,
                "published_version": published.version,
                "skus": len(shelf.skus),
                "likely_within_3_days": int((found.within(3) > 0.5).sum()),
                "likely_within_lead_time": int((found.within(0) > 0.5).sum()),
                "deliveries_on_time": float(found.on_time),
                "to_order": len(orders),
                "orders": dg.MetadataValue.table(
                    [
                        dg.TableRecord(
                            {
                                "sku": one.sku,
                                "supplier": one.supplier or "",
                                "quantity": one.quantity,
                                "order_by": one.order_by.isoformat(),
                                "chance": round(one.chance, 3),
                            }
                        )
                        for one in orders[:_SHOWN_SKUS]
                    ],
                    schema=dg.TableSchema(
                        [
                            dg.TableColumn("sku", "string"),
                            dg.TableColumn("supplier", "string"),
                            dg.TableColumn("quantity", "int"),
                            dg.TableColumn("order_by", "string"),
                            dg.TableColumn("chance", "float"),
                        ]
                    ),
                ),
            },
            data_version=dg.DataVersion(version.id),
        )

    return [values, stockout_risk]


def _backtest(made: list[Any]) -> dg.MetadataValue[Any]:
    """How each forecast did at the last origins; numbers without a unit, so also of confidential metrics."""
    records = [
        dg.TableRecord(
            {
                "metric": one.question.metric,
                "dimension": one.question.dimension,
                "series": one.stored.series,
                **{
                    name: _plain(getattr(one.stored.score, name, math.nan))
                    for name in ("mase", "pinball", "coverage", "coverage_events")
                },
            }
        )
        for one in made
    ]
    columns = [
        dg.TableColumn("metric", "string"),
        dg.TableColumn("dimension", "string"),
        dg.TableColumn("series", "int"),
        *(dg.TableColumn(name, "float") for name in ("mase", "pinball", "coverage", "coverage_events")),
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _plain(value: float) -> float | str:
    return round(value, 3) if math.isfinite(value) else ""


def _plot(project: Project, made: Any) -> dict[str, Any]:
    """The first forecast's first series with its past; nothing of a confidential metric."""
    metric = project.catalogue.metrics[made.question.metric]
    if metric.sensitivity == CONFIDENTIAL:
        return {}
    from metrics_pipeline.delivery.forecast_plot import forecast_plot

    row = made.panel.members.index("all") if "all" in made.panel.members else 0
    unit = project.settings.installation.currency if metric.unit == "currency" else metric.unit
    plot = forecast_plot(
        made.panel.values[row, -_PLOT_DAYS:],
        made.forecast.quantiles[row],
        made.panel.last,
        title=f"{metric.name_zh} {metric.name_en}",
        ascii_title=metric.id,
        unit=unit,
    )
    return {"plot": dg.MetadataValue.md(plot.markdown())}
