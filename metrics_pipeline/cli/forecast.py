"""`metrics forecast` and `metrics stockout`: what comes next, computed from the values the asker may see."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import JsonOption, fail, nearest, parse_day, print_json, print_table, say, usage
from metrics_pipeline.settings import load_settings

if TYPE_CHECKING:
    from metrics_pipeline.access.reader import GuardedValues
    from metrics_pipeline.forecasting.nightly import Made
    from metrics_pipeline.forecasting.replenish import Replenishment
    from metrics_pipeline.forecasting.stockout import Risk
    from metrics_pipeline.forecasting.supply import Shelf

Actual = dict[tuple[str, date], float]
"""(member, day) → value."""

_SHOWN_MEMBERS = 12
_PLOT_DAYS = 60
_SHOWN_SKUS = 25
_COLUMNS = ("sku", "on_hand", "on_order", "per_day", "chance_3d", "chance", "quantity", "order_by", "sold_out_on")
_LIKELY = 0.2
"""Chance from which a SKU is listed when none is asked for."""


def add_to(app: typer.Typer) -> None:
    """The two verbs."""
    app.command(
        epilog="Examples: [bold]metrics forecast gmv[/bold] · [bold]metrics forecast gmv --by region --days 7 --json[/bold] · "
        "[bold]metrics forecast orders_paid --plot orders.svg[/bold] · [bold]metrics forecast gmv --origin 2026-11-01[/bold]"
    )(forecast)
    app.command(
        epilog="Examples: [bold]metrics stockout[/bold] · [bold]metrics stockout --days 7 --service-level 0.98 --json[/bold] · "
        '[bold]metrics stockout --sku "$SKU"[/bold]'
    )(stockout)


def forecast(  # noqa: PLR0917 - options of a command
    metric: Annotated[str, typer.Argument(help="Metric id, e.g. gmv.")],
    by: Annotated[str, typer.Option("--by", help="Dimension, or a pair such as 'region|channel'.")] = "all",
    member: Annotated[str | None, typer.Option(help="One member of the dimension; default: all of them.")] = None,
    days: Annotated[int, typer.Option(min=1, max=28, help="Days ahead.")] = 14,
    origin: Annotated[
        str | None,
        typer.Option("--origin", metavar="YYYY-MM-DD", help="As it was foreseen after this day; with what came."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="ets or boosted; default: the installation's.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw it to this .svg or .png file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is to be expected of a metric: mean, median and 80 % interval of each day ahead."""
    from metrics_pipeline.forecasting.nightly import Model

    settings = load_settings()
    after = parse_day(origin, "--origin")
    if plot is not None and plot.suffix not in (".svg", ".png"):
        usage(f"--plot {plot} is neither .svg nor .png")
    chosen = model or settings.installation.forecast_model
    if chosen not in get_args(Model):
        usage(f"--model {model!r} is not known; write {' or '.join(get_args(Model))}")
    with opened_door(settings) as door:
        made, actual = _make(door, metric, by, member, days=days, origin=after, model=chosen)
        rows = _rows(made, by, member, actual)
        door.read(metric, by, member, rows=len(rows))
        if not rows:
            fail(
                f"{metric} by {by} has no series with 28 values and one in its last two weeks, so nothing can be foreseen; "
                "choose a wider slice"
            )
        if plot is not None:
            door.require_export(f"forecast of {metric}", plot)
            _draw(door, made, member, plot)
        score = made.stored.score
        if as_json:
            print_json(
                {
                    "metric": metric, "by": by, "origin": made.panel.last, "model": made.forecast.model,
                    "backtest": None if score is None else {name: _plain(one) for name, one in vars(score).items()},
                    "days": rows,
                }
            )  # fmt: skip
            return
        shown = rows[: _SHOWN_MEMBERS * days]
        print_table(
            f"{metric} after {made.panel.last}, {days} days ahead",
            shown,
            numbers=("mean", "median", "low", "high", "actual"),
        )
        if len(shown) < len(rows):
            say(f"… and {(len(rows) - len(shown)) // days} members more; see --member or --json")
        if score is not None:
            say(
                f"[dim]Backtest: MASE {score.mase:.2f}, the 80 % interval held {score.coverage:.0%} of "
                f"{score.values:,} values.[/dim]"
            )


def _make(
    door: CliDoor, metric: str, by: str, member: str | None, *, days: int, origin: date | None, model: Any
) -> tuple[Made, Actual]:
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.forecasting import nightly
    from metrics_pipeline.forecasting.stored import Question
    from metrics_pipeline.rules.seeds import seeds_of

    library = door.known(door.library)
    if metric not in library:
        if not door.is_open:
            door.deny("read", metric)
        usage(f"there is no metric {metric!r}{nearest(metric, library)}; `metrics value` lists them")
    entry = library[metric]
    if by not in entry.slices:
        usage(f"{metric} has no day values by {by!r}; it has: {', '.join(entry.slices) or 'none'}")
    wanted = member or ("all" if by == "all" else None)
    if wanted is not None and not door.viewer.decide("read", metric, by, wanted).is_allowed:
        door.deny("read", metric, by, wanted)
        fail(
            f"{door.viewer.person} may not see {metric} {'' if by == 'all' else f'{by}={wanted}'}: no grant allows it (无权限)"
        )
    try:
        published = door.published()
    except NotPublished as error:
        fail(str(error))
    state = published.metrics.get(metric)
    if state is None or state.is_absent:
        fail(f"{metric} is absent: {state.absent_en if state else 'it was never published'}")
    seeds = seeds_of(door.settings)
    until = None if origin is None else datetime.combine(origin + timedelta(days=1), time())
    made = nightly.make(published, Question(metric, by), seeds.promotions, horizon=days, until=until, model=model)
    if made is None:
        fail(f"there is no value of {metric} by {by} to make a forecast of{' at that day' if origin else ''}")
    if member is not None and member not in made.panel.members:
        some = ", ".join(made.panel.members[:5])
        usage(f"{metric} has no {by} {member!r}{nearest(member, made.panel.members)}; there are {some}")
    return made, {} if origin is None else _actual(published, made, days)


def _actual(published: GuardedValues, made: Made, days: int) -> Actual:
    """What came on the days ahead of a former origin."""
    from metrics_pipeline.forecasting.panel import read_panel

    until = datetime.combine(made.panel.last + timedelta(days=days + 1), time())
    seen = read_panel(published, made.question.metric, made.question.dimension, until=until)
    return {
        (member, seen.first + timedelta(days=number)): float(seen.values[row, number])
        for row, member in enumerate(seen.members)
        for number in range((made.panel.last - seen.first).days + 1, seen.values.shape[1])
    }


def _rows(made: Made, by: str, member: str | None, actual: Actual) -> list[dict[str, Any]]:
    from metrics_pipeline.forecasting.ets import LEVELS

    low, middle, high = (LEVELS.index(level) for level in (0.1, 0.5, 0.9))
    rows = []
    for number, name in enumerate(made.panel.members):
        if (member is not None and name != member) or not math.isfinite(made.forecast.error[number]):
            continue
        for step in range(made.forecast.horizon):
            day = made.panel.last + timedelta(days=step + 1)
            at = made.forecast.quantiles[number, step]
            rows.append(
                {
                    **({} if by == "all" else {by: name}),
                    "day": day.isoformat(),
                    "mean": float(made.forecast.mean[number, step]),
                    "median": float(at[middle]),
                    "low": float(at[low]),
                    "high": float(at[high]),
                    **({"actual": _plain(actual.get((name, day), math.nan))} if actual else {}),
                }
            )
    return rows


def _draw(door: CliDoor, made: Made, member: str | None, target: Path) -> None:
    from metrics_pipeline.delivery.forecast_plot import forecast_plot

    row = made.panel.members.index(member) if member else 0
    entry = door.library[made.question.metric]
    where = "" if made.question.dimension == "all" else f" · {made.panel.members[row]}"
    picture = forecast_plot(
        made.panel.values[row, -_PLOT_DAYS:],
        made.forecast.quantiles[row],
        made.panel.last,
        title=f"{entry.name_zh} {entry.name_en}{where}",
        ascii_title=entry.id,
        unit=door.settings.installation.currency if entry.unit == "currency" else entry.unit,
    )
    try:
        if target.suffix == ".png":
            target.write_bytes(picture.png())
        else:
            target.write_text(picture.svg(), "utf-8")
    except OSError as error:
        fail(f"{target}: {error.strerror}; choose a folder that exists and may be written")


def stockout(  # noqa: PLR0917 - options of a command
    days: Annotated[int, typer.Option(min=1, max=21, help="Days ahead that are looked at.")] = 14,
    sku: Annotated[str | None, typer.Option("--sku", help="One SKU; default: those that are in danger.")] = None,
    chance: Annotated[float, typer.Option(min=0, max=1, help="Least chance of a SKU that is listed.")] = _LIKELY,
    service_level: Annotated[
        float, typer.Option("--service-level", min=0.5, max=0.999, help="How sure it should be that stock lasts.")
    ] = 0.95,
    origin: Annotated[
        str | None, typer.Option("--origin", metavar="YYYY-MM-DD", help="As it was foreseen after this day.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which SKUs will be sold out, how sure that is, and what to order by when."""
    after = parse_day(origin, "--origin")
    with opened_door(load_settings()) as door:
        risk, orders = _risk(door, after, service_level)
        if sku is not None and sku not in risk.skus:
            usage(f"there is no stock of SKU {sku!r}{nearest(sku, risk.skus)}, or it is not yours to see")
        rows = _risk_rows(risk, orders, days=days, sku=sku, least=chance)
        door.read("stock_on_hand", "sku", sku, rows=len(rows))
    if as_json:
        print_json({"origin": risk.origin, "deliveries_on_time": risk.on_time, "skus": rows})
        return
    shown = [{name: row[name] for name in _COLUMNS} for row in rows[:_SHOWN_SKUS]]
    print_table(f"Stock after {risk.origin}: chance to be sold out within {days} days", shown, numbers=_COLUMNS[1:7])
    if len(rows) > _SHOWN_SKUS:
        say(f"… and {len(rows) - _SHOWN_SKUS} SKUs more; see --chance, --sku or --json")
    if rows:
        say(
            f"[dim]{risk.on_time:.0%} of deliveries come in time. Quantities last with {service_level:.0%} certainty.[/dim]"
        )


def _risk(door: CliDoor, origin: date | None, service_level: float) -> tuple[Risk, dict[str, Replenishment]]:
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.forecasting.nightly import read_shelf
    from metrics_pipeline.forecasting.replenish import propose
    from metrics_pipeline.forecasting.stockout import risk
    from metrics_pipeline.forecasting.supply import STOCK
    from metrics_pipeline.rules.seeds import seeds_of

    try:
        published = door.published()
    except NotPublished as error:
        fail(str(error))
    until = None if origin is None else datetime.combine(origin + timedelta(days=1), time())
    shelf: Shelf = read_shelf(published, until=until)
    if not shelf.skus:
        if not door.is_open:
            door.deny("read", STOCK, "sku", "*")
        fail("there is no stock by SKU to look at: the source has none, or nothing of it is given to you (无权限)")
    seeds = seeds_of(door.settings)
    found = risk(shelf, seeds.promotions)
    return found, {one.sku: one for one in propose(found, shelf, service_level=service_level)}


def _risk_rows(
    risk: Risk, orders: dict[str, Replenishment], *, days: int, sku: str | None, least: float
) -> list[dict[str, Any]]:
    within, soon, lead = risk.within(days), risk.within(3), risk.within(0)
    out = risk.sold_out_on()
    rows = []
    for number, name in enumerate(risk.skus):
        if (sku is None and not within[number] >= least) or (sku is not None and name != sku):
            continue
        order, empty_on = orders.get(name), out[number]
        rows.append(
            {
                "sku": name,
                "on_hand": int(risk.on_hand[number]),
                "on_order": int(risk.on_order[number]),
                "per_day": _plain(float(risk.expected[number, :7].mean())),
                "lead_days": int(risk.lead_days[number]),
                "chance_3d": _plain(float(soon[number])),
                "chance": _plain(float(within[number])),
                "chance_before_delivery": _plain(float(lead[number])),
                "sold_out_on": empty_on.isoformat() if empty_on is not None else None,
                "order_by": order.order_by.isoformat() if order else None,
                "quantity": order.quantity if order else None,
                "supplier": order.supplier if order else None,
            }
        )
    return sorted(rows, key=lambda row: (-(row["chance"] or 0.0), -(row["per_day"] or 0.0), row["sku"]))


def _plain(number: float) -> float | None:
    return round(float(number), 6) if math.isfinite(number) else None
