"""The command line: every verb is one call into the packages below, and its answer as a table or as JSON.

Exit codes: 0 all is well · 1 a problem was found or something failed · 2 wrong usage. Nothing heavy is imported before
a verb needs it, so that `metrics --help` answers at once. Results go to standard output, progress to standard error.
"""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

import typer
from rich.table import Table
from rich.text import Text

from metrics_pipeline.cli import (
    access,
    alerts,
    api,
    audit,
    calendar,
    channels,
    diagnose,
    followup,
    forecast,
    library,
    library_changes,
    library_compose,
    library_exchange,
    library_lineage,
    library_review,
    library_site,
    library_versions,
    missed,
    opinion,
    playbook,
    rehearse,
    retrospective,
    routes,
    rules,
    silences,
)
from metrics_pipeline.cli.alerts import alert_row, message_row
from metrics_pipeline.cli.door import opened_door, require_authors, require_operator
from metrics_pipeline.cli.output import PROBLEM, JsonOption, in_order
from metrics_pipeline.cli.output import console as _console
from metrics_pipeline.cli.output import fail as _fail
from metrics_pipeline.cli.output import nearest as _nearest
from metrics_pipeline.cli.output import parse_day as _day
from metrics_pipeline.cli.output import parse_moment as _moment
from metrics_pipeline.cli.output import print_json as _json
from metrics_pipeline.cli.output import print_table as _table
from metrics_pipeline.cli.output import say as _say
from metrics_pipeline.cli.output import show_value as _shown
from metrics_pipeline.cli.output import steps as _steps
from metrics_pipeline.cli.output import usage as _usage
from metrics_pipeline.settings import (
    PROJECT_ROOT,
    Settings,
    SettingsError,
    home_folder,
    load_settings,
    write_installation,
)

if TYPE_CHECKING:
    from metrics_pipeline.access.reader import GuardedValues
    from metrics_pipeline.cli.door import CliDoor
    from metrics_pipeline.library.catalogue import Metric
    from metrics_pipeline.orchestration.operations import NightReport
    from metrics_pipeline.sources.source import Source
    from metrics_pipeline.warehouse.load import LoadReport

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Metric alerting for e-commerce: a governed metric pyramid, judged every night.",
    epilog="Start with: [bold]metrics demo[/bold]",
)
app.add_typer(library.app, name="library")
library_compose.add_to_library(library.app)
library_site.add_to_library(library.app)
library_exchange.add_to_library(library.app)
app.add_typer(rules.app, name="rules")
app.add_typer(playbook.app, name="playbook")
app.add_typer(alerts.app, name="alerts")
app.add_typer(alerts.orders_app, name="orders")
app.add_typer(followup.app, name="proposals")
app.add_typer(channels.app, name="channels")
app.add_typer(routes.app, name="routes")
app.add_typer(silences.app, name="silences")
app.add_typer(access.app, name="access")
app.add_typer(audit.app, name="audit")
app.add_typer(calendar.app, name="calendar")
app.add_typer(api.app, name="api")
diagnose.add_to(app)
library_versions.add_to_library(library.app)
library_changes.add_to_library(library.app)
library_review.add_to_library(library.app)
library_lineage.add_to_library(library.app)
forecast.add_to(app)
silences.add_to_alerts(alerts.app)
rehearse.add_to_alerts(alerts.app)
missed.add_to_alerts(alerts.app)
opinion.add_to_rules(rules.app)
followup.add_to_rules(rules.app)
retrospective.add_to(app)

GRAINS = ("day", "hour")
SHOWS_FROM_SCALE = 0.2
"""From this size of the simulated shop on, the payment outage of its last day has orders enough to be judged."""
_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors of the disk that name no file."""

DayOption = Annotated[str | None, typer.Option("--day", metavar="YYYY-MM-DD", help="Default: the newest whole day.")]
FromOption = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.")]
ToOption = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, inclusive.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"metrics-pipeline {version('metrics-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    pass


# -- start ---------------------------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: [bold]metrics demo[/bold] · [bold]metrics demo --no-ui --scale 2[/bold] · "
    "[bold]METRICS_HOME=/tmp/shop metrics demo[/bold]"
)
def demo(
    days: Annotated[int, typer.Option(min=40, max=3000, help="Days of history, the last one is yesterday.")] = 400,
    scale: Annotated[float, typer.Option(help="1 is about 1,250 orders a day.")] = 0.5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same shop.")] = 20251111,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Open the Dagster UI afterwards.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Simulate a shop, run last night's job, show what fired and where each message went."""
    began = time.perf_counter()
    settings = load_settings()
    require_operator(settings)
    _not_over_another(settings, "simulator")
    yesterday = datetime.now(settings.zone).date() - timedelta(days=1)
    first = yesterday - timedelta(days=days - 1)
    installation = settings.installation.model_copy(
        update={"source": "simulator", "path": None, "seed": seed, "scale": scale, "first_day": first}
    )
    write_installation(settings.home, installation)
    settings = load_settings()
    times: dict[str, float] = {}
    with _steps("Simulating a shop") as (tell, total):
        with _timed(times, "simulate"):
            from metrics_pipeline.sources.simulator import simulate
            from metrics_pipeline.warehouse.transform import ensure_manifest

            pool = ThreadPoolExecutor(1)
            preparing = pool.submit(ensure_manifest, settings)  # does not need the data
            pool.shutdown(wait=False)  # its thread ends with that
            simulate(
                settings.source_dir,
                seed=seed,
                scale=scale,
                days=days,
                until=yesterday,
                progress=lambda stage, share: total(share, f"Simulating a shop: {stage}"),
            )
        tell("Opening the project")
        with _timed(times, "open"):
            from metrics_pipeline.orchestration.instance import open_instance
            from metrics_pipeline.orchestration.operations import run_backfill, run_nightly
            from metrics_pipeline.orchestration.resources import Project

            preparing.result()
            project = Project.open(settings)
        with open_instance(settings) as instance:
            with _timed(times, "history"):
                history = run_backfill(
                    settings,
                    first,
                    yesterday - timedelta(days=1),
                    instance,
                    project=project,
                    progress=_telling(tell, f"{days - 1} days of history"),
                )
            night = None
            if history.success:
                with _timed(times, "night"):
                    night = run_nightly(
                        settings, yesterday, instance, project=project, progress=_telling(tell, "last night")
                    )
    times["total"] = time.perf_counter() - began
    report = night or history
    _print_night(settings, report, as_json=as_json, times=times)
    if not report.success:
        raise typer.Exit(PROBLEM)
    if not as_json:
        _tell_truth(settings, yesterday, scale)
    if ui and not as_json:
        _serve(settings, 3000)


@app.command(
    epilog="Examples: [bold]metrics load olist data/olist[/bold] · [bold]metrics load files shop/mapping.yml "
    "--timezone Europe/Berlin[/bold]"
)
def load(
    source: Annotated[str, typer.Argument(help="simulator, olist, merch_store, files, or auto to look at the path.")],
    path: Annotated[Path | None, typer.Argument(help="Folder or mapping file that the source reads.")] = None,
    timezone: Annotated[str | None, typer.Option(help="The shop's time zone; default: the source's own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Point the installation at a source and load everything it covers into the raw tables."""
    from metrics_pipeline.sources.contract import load_contract
    from metrics_pipeline.sources.registry import SOURCE_NAMES, detect, open_source
    from metrics_pipeline.sources.source import Span
    from metrics_pipeline.warehouse.load import load as load_raw
    from metrics_pipeline.warehouse.personal import personal_data_of

    settings = load_settings()
    require_operator(settings)
    if source not in (*SOURCE_NAMES, "auto"):
        _usage(f"there is no source {source!r}; use {', '.join(SOURCE_NAMES)} or auto")
    if path is None and source != "simulator":
        _usage(f"{source} needs the folder or mapping file to read: metrics load {source} PATH")
    if timezone is not None:
        _check_timezone(timezone)
    if source == "auto" and path is not None:
        source = detect(path)
    _not_over_another(settings, source)
    installation = settings.installation.model_copy(
        update={"source": source, "path": path.resolve() if path is not None else None}
    )
    chosen = settings.model_copy(update={"installation": installation})
    opened = open_source(chosen)
    zone = timezone or opened.info.timezone
    installation = installation.model_copy(update={"timezone": zone, "currency": opened.info.currency})
    names = load_contract().table_names
    spans = [span for name in names for span in opened.coverage(name)]
    if not spans:
        _fail(f"source {source} covers no day; is {path or chosen.source_dir} the right folder?")
    span = Span(min(one.start for one in spans), max(one.until for one in spans))
    chosen = chosen.model_copy(update={"installation": installation})
    first = span.start.replace(tzinfo=UTC).astimezone(chosen.zone).date()
    write_installation(
        settings.home, type(installation).model_validate({**installation.model_dump(), "first_day": first})
    )
    settings = load_settings()
    with _steps("Loading") as (_, total):
        report = load_raw(
            settings.build_path,
            opened,
            names,
            span,
            now=datetime.now(UTC),
            timezone=zone,
            personal=personal_data_of(settings),
            progress=lambda table, _batch, number, count: total(
                (names.index(table) + number / max(count, 1)) / len(names), f"Loading {table}"
            ),
        )
    rows = [
        {
            "table": one.table,
            "accepted": one.rows_accepted,
            "unchanged": one.rows_unchanged,
            "quarantined": one.rows_quarantined,
            "from": _local(one.coverage[0].start, settings) if one.coverage else None,
            "until": _local(one.coverage[-1].until, settings) if one.coverage else None,
            "note": _absence(opened, one.table),
        }
        for one in report.tables
    ]
    rejected, complaints = _rejected(settings, report)
    if as_json:
        _json({"source": source, "timezone": zone, "tables": rows, "quarantine": rejected})
    else:
        _table(f"Source {source}, time zone {zone}", rows, numbers=("accepted", "unchanged", "quarantined"))
    _tell_rejected(rejected)
    if complaints:
        _fail("\n".join(complaints))
    if not as_json:
        _say(f"Next: [bold]metrics backfill[/bold] builds every metric from {first} on.")


# -- runs ----------------------------------------------------------------------------------------------------------


@app.command(epilog="Examples: [bold]metrics nightly[/bold] · [bold]metrics nightly --day 2026-11-11[/bold]")
def nightly(day: DayOption = None, as_json: JsonOption = False) -> None:
    """Run last night's job: load, rebuild, publish, judge every rule, deliver the messages."""
    chosen = _day(day, "--day")
    settings = load_settings()
    require_operator(settings)
    with _steps("Opening the project") as (tell, _):
        from metrics_pipeline.orchestration.operations import DaysOutside, run_nightly

        try:
            report = run_nightly(settings, chosen, progress=_telling(tell, "nightly"))
        except DaysOutside as error:
            _usage(f"--day: {error}")
    _print_night(settings, report, as_json=as_json)
    if not report.success:
        raise typer.Exit(PROBLEM)


@app.command(
    epilog="Examples: [bold]metrics backfill[/bold] · [bold]metrics backfill --from 2026-10-01 --to 2026-10-31[/bold]"
)
def backfill(first: FromOption = None, last: ToOption = None, as_json: JsonOption = False) -> None:
    """Rebuild a stretch of days in one run, told to nobody. Default: everything the source covers."""
    start, end = _day(first, "--from"), _day(last, "--to")
    _in_order(start, end)
    settings = load_settings()
    require_operator(settings)
    with _steps("Opening the project") as (tell, _):
        from metrics_pipeline.orchestration.operations import DaysOutside, run_backfill
        from metrics_pipeline.orchestration.resources import Project

        project = Project.open(settings)
        start, end = start or project.oldest_day(), end or project.newest_day()
        _in_order(start, end)
        try:
            report = run_backfill(settings, start, end, project=project, progress=_telling(tell, "backfill"))
        except DaysOutside as error:
            _usage(str(error))
    _print_night(settings, report, as_json=as_json)
    if not report.success:
        raise typer.Exit(PROBLEM)


@app.command(epilog="Example: [bold]metrics ui --port 3001[/bold]")
def ui(port: Annotated[int, typer.Option(min=1, max=65535)] = 3000) -> None:
    """Serve the Dagster UI with its daemon (schedules, sensors) until interrupted."""
    settings = load_settings()
    require_operator(settings)
    _serve(settings, port)


@app.command(epilog="Example: [bold]metrics compile --check[/bold]")
def compile(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 when a file is stale.")] = False,
) -> None:
    """Write the dbt models that follow from the metric definitions."""
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.compile import stale_files, write_files

    settings = load_settings()
    require_authors(settings)
    catalogue = Catalogue.read(settings.dbt_project_dir)
    paths = stale_files(catalogue) if check else write_files(catalogue)
    for path in paths:
        typer.echo(path.relative_to(settings.dbt_project_dir))
    if check and paths:
        _fail(f"{len(paths)} generated files do not follow from the definitions; run `metrics compile` and commit")


# -- values --------------------------------------------------------------------------------------------------------


@app.command(
    epilog="Examples: [bold]metrics value[/bold] · [bold]metrics value gmv[/bold] · "
    "[bold]metrics value refund_rate --by region --from 2026-11-01[/bold] · "
    "[bold]metrics value gmv --as-of 2026-11-20T08:00[/bold]"
)
def value(  # noqa: PLR0917 - options of a command
    metric: Annotated[str | None, typer.Argument(help="Metric id, e.g. gmv; without it: all metrics.")] = None,
    by: Annotated[str, typer.Option("--by", help="Dimension, or a pair such as 'region|channel'.")] = "all",
    member: Annotated[str | None, typer.Option(help="One member of the dimension; default: all of them.")] = None,
    grain: Annotated[str, typer.Option(help="day or hour")] = "day",
    first: FromOption = None,
    last: ToOption = None,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="TIME", help="Values as they were known then (shop time).")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show published values of a metric: the last 14 days unless said otherwise. Without a metric: all of them."""
    settings = load_settings()
    start, end = _day(first, "--from"), _day(last, "--to")
    known_at = None if as_of is None else _moment(as_of, "--as-of", settings.zone, like="2026-11-11T08:00")
    _in_order(start, end)
    if grain not in GRAINS:
        _usage(f"--grain {grain!r} is not known; write {' or '.join(GRAINS)}")
    with opened_door(settings) as door:
        if metric is None:
            _list_metrics(door, as_json=as_json)
        else:
            asked = _Asked(metric, by, member, grain, start, end, known_at)
            _show_values(door, asked, as_json=as_json)


class _Asked(NamedTuple):
    """What `metrics value METRIC` is to show."""

    metric: str
    by: str
    member: str | None
    grain: str
    start: date | None
    end: date | None
    known_at: datetime | None


def _show_values(door: CliDoor, asked: _Asked, *, as_json: bool) -> None:
    """Values of one metric, as far as they are given to whoever asks."""
    settings, (metric, by, member, grain, start, end, known_at) = door.settings, asked
    library = door.known(door.library)
    if metric not in library:
        if not door.is_open:
            door.deny("read", metric)
        _usage(f"there is no metric {metric!r}{_nearest(metric, library)}; `metrics value` lists them")
    published = door.published()
    entry = library[metric]
    slices = entry.hour_slices if grain == "hour" else entry.slices
    if by not in slices:
        _usage(f"{metric} has no {grain} values by {by!r}; it has: {', '.join(slices) or 'none'}")
    state = published.metrics.get(metric)
    if state is not None and state.is_absent:
        _fail(f"{metric} is absent: {state.absent_en}")
    until = (
        end + timedelta(days=1) if end else (state.complete_until.date() if state and state.complete_until else None)
    )
    if start is None and until is not None:
        start = until - timedelta(days=14)
    wanted = member or ("all" if by == "all" else None)
    if wanted is not None and not door.viewer.decide("read", metric, by, wanted).is_allowed:
        door.deny("read", metric, by, wanted)
        if by == "all":
            _fail(f"{door.viewer.person} may not see the total of {metric}; {_given_words(door, metric)}")
    frame = published.series(metric, dimension=by, member=wanted, grain=grain, start=start, until=until, as_of=known_at)
    if frame.empty and member is not None:
        _check_member(published, entry, by, member, grain)
    if frame.empty and not door.is_open and published.series(metric, by, wanted, grain).empty:
        door.deny("read", metric, by, wanted or "*")
        _fail(f"nothing of {metric} by {by} is given to {door.viewer.person}; {_given_words(door, metric)}")
    rows = [
        {
            "period": f"{row.period_start:%Y-%m-%d}" if grain == "day" else f"{row.period_start:%Y-%m-%d %H:%M}",
            **({} if by == "all" else {by: row.member}),
            **_value_fields(row),
            **(
                {}
                if _float(row.denominator) is None
                else {"numerator": _float(row.numerator), "denominator": _float(row.denominator)}
            ),
            "definition": row.definition_version,
        }
        for row in frame.itertuples()
    ]
    door.read(metric, by, member, rows=len(rows))
    if as_json:
        _json(
            {"metric": metric, "unit": _unit(settings, entry), "by": by, "version": published.version, "values": rows}
        )
        return
    title = f"{entry.name_zh} {entry.name_en} ({_unit(settings, entry)}) — {door.formula(entry)}"
    _table(title, rows, numbers=("value", "numerator", "denominator"))
    if not rows:
        reach = f"whose values reach to {state.complete_until:%Y-%m-%d %H:%M}" if state and state.complete_until else ""
        _say(f"Nothing is known there of {metric}{', ' if reach else ''}{reach}.")


def _given_words(door: CliDoor, metric: str) -> str:
    slices = [
        " and ".join(f"{name}={'/'.join(sorted(members))}" for name, members in sorted(one.items()))
        for one in door.viewer.reading.slices_of(metric)
    ]
    return f"given is what has {' or '.join(slices)} (--by region --member …)"


def _value_fields(row: Any) -> dict[str, Any]:
    """A value; where only a band is given, the band, and where nothing is, a dash."""
    from metrics_pipeline.access.bands import Band
    from metrics_pipeline.access.model import Level

    if row.level == Level.EXACT:
        return {"value": _float(row.value)}
    is_known = _float(row.low) is not None
    return {"value": None, "shown": str(Band(row.low, row.high)) if is_known else "—"}


def _unit(settings: Settings, entry: Metric) -> str:
    return settings.installation.currency if entry.unit == "currency" else entry.unit


def _list_metrics(door: CliDoor, *, as_json: bool) -> None:
    """Every metric with its newest whole day's total, or why it is absent."""
    settings, published, rows, sensitive = door.settings, door.published(), [], []
    for entry in door.known(door.library).values():
        state = published.metrics.get(entry.id)
        reach = state.complete_until if state and not state.is_absent else None
        total: dict[str, Any] = {"value": None, "shown": None, "day": None}
        if reach is not None:
            newest = published.series(entry.id, start=reach.date() - timedelta(days=1), until=reach.date())
            for row in newest.itertuples():
                total |= {**_value_fields(row), "day": f"{row.period_start:%Y-%m-%d}"}
        if entry.sensitivity == "confidential" and total["day"] is not None:
            sensitive.append(entry.id)
        rows.append(
            {
                "metric": entry.id,
                "name": f"{entry.name_zh} {entry.name_en}",
                "layer": entry.layer,
                "unit": _unit(settings, entry),
                **total,
                "formula": door.formula(entry),
                "slices": list(entry.slices),
                "definition": entry.version,
                "absent": state.absent_en if state and state.is_absent else None,
            }
        )
    for metric in sensitive:
        door.read(metric, "all", None, rows=1)
    if as_json:
        _json({"version": published.version, "metrics": rows})
        return
    present, reasons = [row for row in rows if row["absent"] is None], Counter(row["absent"] for row in rows)
    shown = ("metric", "name", "layer", "unit", "value", "shown", "day")
    _table(f"{len(present)} metrics", [{name: row[name] for name in shown} for row in present], numbers=("value",))
    for reason in (one for one in reasons if one is not None):
        _say(f"absent: {', '.join(row['metric'] for row in rows if row['absent'] == reason)}: {reason}")


def _check_member(published: GuardedValues, entry: Metric, by: str, member: str, grain: str) -> None:
    """End with wrong usage when no value of the metric was ever of this member."""
    known = published.series(entry.id, dimension=by, member=None, grain=grain)["member"].unique().tolist()
    if known and member not in known:
        near = _nearest(member, known) or f"; there are {len(known)}, such as {', '.join(known[:3])}"
        _usage(f"{entry.id} by {by} has no member {member!r}{near}")


# -- doctor --------------------------------------------------------------------------------------------------------


@app.command(epilog="Example: [bold]metrics doctor --json[/bold]")
def doctor(as_json: JsonOption = False) -> None:
    """Check the installation: versions, folders, locks, source, store, published values, mail."""
    from metrics_pipeline.orchestration.doctor import examine
    from metrics_pipeline.store import StoreError

    settings = load_settings()
    with suppress(StoreError):  # that the store cannot be used is one of the findings
        require_operator(settings)
    findings = examine(settings)
    if as_json:
        _json([{"check": one.check, "status": one.status, "detail": one.detail, "mend": one.mend} for one in findings])
    else:
        styles = {"ok": "green", "note": "yellow", "problem": "bold red"}
        table = Table(pad_edge=False, box=None)
        for head in ("check", "", "detail"):
            table.add_column(head, overflow="fold", style="dim" if head == "check" else None)
        for one in findings:
            detail = one.detail if not one.mend else f"{one.detail} → {one.mend}"
            table.add_row(one.check, Text(one.status, style=styles[one.status]), Text(detail))
        _console().print(table)
    if any(one.status == "problem" for one in findings):
        raise typer.Exit(PROBLEM)


# -- progress ------------------------------------------------------------------------------------------------------


_STEP_NAMES = {
    "raw_tables": "loading and checking raw tables",
    "dbt_daily": "building the metrics (dbt)",
    "published__metric_values": "publishing",
    "rules__evaluations": "judging the rules",
    "rule_checks": "recording the checks",
    "alerts__outbox": "alert states and messages",
    "deliver": "delivering",
}


def _telling(tell: Callable[[str], None], title: str) -> Callable[[str, str], None]:
    def progress(step: str, word: str) -> None:
        if word == "started":
            tell(f"{title}: {_STEP_NAMES.get(step, step)}")

    return progress


def _tell_truth(settings: Settings, day: date, scale: float) -> None:
    """What really was wrong in the simulated shop on a day, beside what fired; and when a shop is too small to show it."""
    from metrics_pipeline.rules.replay import read_labels

    labels = read_labels(settings.source_dir / "labels.jsonl")
    rows = [
        {"incident": one.kind, "slice": f"{one.dimension}={one.member}", "since": f"{one.starts_on}"}
        for one in labels
        if one.starts_on <= day <= one.ends_on and not one.is_harmless
    ]
    _table(f"What was made to go wrong on {day} (labels of the simulator)", rows)
    if scale < SHOWS_FROM_SCALE:
        _say(
            f"About {1250 * scale:,.0f} orders a day are too few for most rules, which ask for a least sample; "
            f"--scale {SHOWS_FROM_SCALE} and more shows them at work."
        )


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    finally:
        times[name] = time.perf_counter() - began


def _print_night(
    settings: Settings, report: NightReport, *, as_json: bool, times: Mapping[str, float] | None = None
) -> None:
    from metrics_pipeline.alerts.listing import current_alerts, notifications

    with opened_door(settings) as door:
        firing = door.sight.seen(current_alerts(door.store))
        sent = door.messages(notifications(door.store, limit=500))
    began = report.run.started_at
    made = report.run.metadata
    quarantine = {
        asset.removeprefix("raw/"): str(facts["quarantine"]).splitlines()
        for asset, facts in made.items()
        if "quarantine" in facts
    }
    judged = made.get("rules/evaluations", {})
    left_out = str(judged["left_out"]).splitlines() if judged.get("rules_left_out") else []
    recent = [one for one in sent if report.delivery and one.sent_at is not None and one.sent_at >= began]
    if as_json:
        _json(
            {
                "day": report.day,
                "run_id": report.run.run_id,
                "success": report.success,
                "failures": report.run.failures,
                "quarantine": quarantine,
                "rules_left_out": left_out,
                "seconds": {**dict(report.run.step_seconds), **dict(times or {})},
                "failed_checks": [
                    {"asset": asset, "check": check, "severity": severity}
                    for asset, check, severity in report.run.failed_checks
                ],
                "firing": [one.as_json() for one in firing],
                "messages": [one.as_json() for one in recent],
            }
        )
        return
    if report.run.success:  # a failure names them itself
        _tell_rejected(quarantine)
    for problem in left_out:
        typer.echo(f"rule left out: {problem}", err=True)
    for failure in (*report.run.failures, *(report.delivery.failures if report.delivery else ())):
        typer.echo(f"failed: {failure}", err=True)
    if not report.run.success:
        typer.echo(f"The run {report.run.run_id} failed; start it again when it is mended: nothing is lost.", err=True)
        return
    if report.delivery is not None:
        _table(f"What fires after the night of {report.day}", [alert_row(one) for one in firing], numbers=("value",))
        _table("Messages of this night", [message_row(one) for one in recent])
    else:
        published = report.run.metadata.get("published/metric_values", {})
        _say(
            f"Built up to {report.day}: {_shown(published.get('values'))} values of {published.get('metrics')} metrics, "
            f"published as {published.get('version')}. {len(firing)} alerts are open; nobody was told."
        )
    steps = dict(times) if times else dict(report.run.step_seconds)
    _say("Seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.items()))


def _rejected(settings: Settings, report: LoadReport) -> tuple[dict[str, list[str]], list[str]]:
    """Table → what its load rejected and why; and what is to be done when that is more than a run accepts."""
    from metrics_pipeline.warehouse.build import connect_build
    from metrics_pipeline.warehouse.expectations import QUARANTINE_SHARE_LIMIT, quarantine_reasons

    found = [one for one in report.tables if one.rows_quarantined]
    if not found:
        return {}, []
    with connect_build(settings.build_path, read_only=True) as con:
        reasons = {one.table: quarantine_reasons(con, one.table) for one in found}
    complaints = [
        f"{one.table}: {one.rows_quarantined / one.rows_read:.0%} of the delivered rows were rejected; a run stops above "
        f"{QUARANTINE_SHARE_LIMIT:.0%}. Correct the rows or the mapping, then load again."
        for one in found
        if one.rows_quarantined > QUARANTINE_SHARE_LIMIT * one.rows_read
    ]
    return reasons, complaints


def _tell_rejected(rejected: Mapping[str, Sequence[str]]) -> None:
    for table, reasons in rejected.items():
        for reason in reasons:
            typer.echo(f"rejected: {table}: {reason}", err=True)


# -- input ---------------------------------------------------------------------------------------------------------


def _in_order(start: date | None, end: date | None) -> None:
    in_order(start, end, mend="; give --from a day not after --to")


def _check_timezone(name: str) -> None:
    """End with wrong usage when there is no such time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        _usage(f"--timezone {name!r} is not known; write an IANA name such as Asia/Shanghai")


def _float(item: Any) -> float | None:
    return None if item is None or math.isnan(item) else float(item)


def _local(moment: datetime, settings: Settings) -> str:
    return f"{moment.replace(tzinfo=UTC).astimezone(settings.zone):%Y-%m-%d}"


def _absence(source: Source, table: str) -> str:
    absence = source.info.absent.get(table)
    return absence.reason_en if absence else ""


def _not_over_another(settings: Settings, source: str) -> None:
    """A home belongs to one source: its build file would mix two shops."""
    if (settings.home / "installation.yml").exists() and settings.build_path.exists():
        former = settings.installation.source
        if former != source:
            _fail(
                f"{settings.home} already holds source {former}; choose another folder with METRICS_HOME, "
                "or remove this one"
            )


def _serve(settings: Settings, port: int) -> None:
    """`dagster dev` in the foreground until interrupted."""
    from metrics_pipeline.orchestration.instance import dagster_environment, write_dagster_yaml

    write_dagster_yaml(settings)
    _say(f"Dagster UI: [bold]http://127.0.0.1:{port}[/bold] (Ctrl-C ends it)")
    command = [
        str(Path(sys.executable).with_name("dagster")),
        "dev",
        "-w",
        str(PROJECT_ROOT / "workspace.yaml"),
        "-p",
        str(port),
    ]
    own_url = {"METRICS_UI_URL": f"http://127.0.0.1:{port}", **os.environ}  # links in messages lead to this UI
    environment = {**own_url, **dagster_environment(settings)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by a shell's background job, and by its children
    process = subprocess.Popen(command, env=environment, cwd=PROJECT_ROOT)
    for name in (signal.SIGTERM, signal.SIGHUP):  # a supervisor's word for Ctrl-C; else server and daemon would go on
        signal.signal(name, lambda *_: process.send_signal(signal.SIGINT))
    try:
        code = process.wait()
    except KeyboardInterrupt:
        code = process.wait()
    if code not in (0, -2, 130):
        raise typer.Exit(PROBLEM)


def _known_problems() -> tuple[type[Exception], ...]:
    """Errors whose message says what was expected and what to do; anything else is a defect and shows itself."""
    from metrics_pipeline.access.reader import NotPublished, UnknownMetric
    from metrics_pipeline.library.definitions import DefinitionError
    from metrics_pipeline.sources.source import SourceError
    from metrics_pipeline.store import StoreError
    from metrics_pipeline.warehouse.build import BuildError
    from metrics_pipeline.warehouse.publish import PublishError
    from metrics_pipeline.warehouse.transform import DbtError

    return (
        SettingsError,
        DefinitionError,
        SourceError,
        StoreError,
        BuildError,
        PublishError,
        NotPublished,
        UnknownMetric,
        DbtError,
    )


def main() -> None:
    """The `metrics` program."""
    try:
        app()
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(PROBLEM) from None
    except OSError as error:
        if (told := _storage_problem(error)) is None:
            raise
        typer.echo(told, err=True)
        raise SystemExit(PROBLEM) from None
    except Exception as error:
        if isinstance(error, _known_problems()) or _is_known_input(error):
            typer.echo(str(error), err=True)
            raise SystemExit(PROBLEM) from None
        raise


def _storage_problem(error: OSError) -> str | None:
    """What is wrong with a file, a folder or the disk, and the mend; None when the error is about something else."""
    if error.filename is None and error.errno not in _STORAGE_ERRORS:
        return None
    home = home_folder()
    path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else home
    reason = error.strerror or type(error).__name__
    if path == home or home in path.parents or path in home.parents:
        return f"{path}: {reason}. METRICS_HOME ({home}) must be a folder that can be written; choose another one, or change its owner or free some space"
    return f"{path}: {reason}; choose a file or folder that can be used"


def _is_known_input(error: Exception) -> bool:
    from metrics_pipeline.detection.promotions import CalendarError
    from metrics_pipeline.detection.references import ReferenceFileError
    from metrics_pipeline.rules.replay import LabelError
    from metrics_pipeline.sources.contract import ContractError

    return isinstance(error, CalendarError | ReferenceFileError | LabelError | ContractError)


if __name__ == "__main__":
    main()
