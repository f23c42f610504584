"""`metrics calendar`: promotions and holidays as this shop has them, what is wrong with them, and what is missing.

`app` hangs it up; nothing of it is imported before a verb runs but the settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    fail,
    in_order,
    nearest,
    parse_day,
    print_json,
    print_table,
    say,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.detection.inferred import Inferred, Proposal
    from metrics_pipeline.detection.promotions import Affects, PromotionDay

AHEAD = timedelta(days=120)
LOOKED_AT = 540
"""Days of history that are looked at for promotions nobody entered, unless said otherwise."""
METRICS = (
    "sessions", "unique_visitors", "product_views", "orders_placed", "orders_paid", "units_sold", "paid_amount", "buyers",
)  # fmt: skip
"""What a promotion moves: counts and amounts of traffic and sales."""

app = typer.Typer(
    no_args_is_help=True, help="Promotions and holidays: seed, public holidays, the shop's own, campaigns."
)
FromOption = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.")]
ToOption = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, inclusive.")]


@app.command(
    "show",
    epilog="Examples: [bold]metrics calendar show --from 2026-10-01 --to 2026-11-30[/bold] · "
    "[bold]metrics calendar show --event double_11 --json[/bold]",
)
def calendar_show(
    first: FromOption = None,
    last: ToOption = None,
    event: Annotated[str | None, typer.Option("--event", help="Only this event.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The calendar of this shop: each stretch with its phase, what it affects, and who says so. Default: from today on."""
    from metrics_pipeline.detection.promotions import WIDENING, YEARS, stretches
    from metrics_pipeline.rules.seeds import seeds_of

    settings = load_settings()
    start = parse_day(first, "--from") or _today(settings)
    end = parse_day(last, "--to") or start + AHEAD
    in_order(start, end)
    seeds = seeds_of(settings)
    if event is not None and event not in seeds.events:
        usage(f"there is no event {event!r}{nearest(event, sorted(seeds.events))}")
    shown = [day for day in seeds.promotions if start <= day.date <= end and event in (None, day.event)]
    rows = [
        {
            "from": head.date.isoformat(),
            "to": until.isoformat(),
            "event": head.event,
            "name_zh": head.name_zh,
            "name_en": head.name_en,
            "phase": head.kind,
            "day": head.day_in_event,
            "affects": _affects(head.affects),
            "market": head.market,
            "source": head.source,
        }
        for head, until in stretches(shown)
    ]
    if as_json:
        print_json([{**row, "widening": WIDENING[str(row["phase"])]} for row in rows])
        return
    print_table(f"Calendar {start} to {end}", rows, numbers=("day",))
    if end.year > YEARS[-1] or start.year < YEARS[0]:
        say(f"Events are laid out for the years {YEARS[0]} to {YEARS[-1]}.")


@app.command("lint", epilog="Example: [bold]metrics calendar lint[/bold]")
def calendar_lint(as_json: JsonOption = False) -> None:
    """Everything that is wrong with the seed and the shop's own calendar, with file and line. Exit code 1 when something is."""
    from metrics_pipeline.detection.own_calendar import NAME, load_own_calendar
    from metrics_pipeline.detection.promotions import CalendarError
    from metrics_pipeline.rules.seeds import read_seeds

    settings = load_settings()
    own = load_own_calendar(settings.rules_dir)
    found = [
        {"file": str(one.file), "line": one.line, "message": one.message, "mend": one.mend} for one in own.problems
    ]
    try:
        seeds = read_seeds(settings.dbt_project_dir, settings.installation.timezone, own=own)
    except CalendarError as error:
        place, _, message = str(error).partition(": ")
        file, _, line = place.rpartition(":")
        found.append(
            {"file": file, "line": int(line) if line.isdigit() else 1, "message": message, "mend": "correct it"}
        )
        seeds = None
    path = settings.rules_dir / NAME
    if seeds is not None:
        for name in sorted(own.without - set(seeds.events)):
            found.append(
                {"file": str(path), "line": 1, "message": f"without: there is no event {name!r}{nearest(name, sorted(seeds.events))}",
                 "mend": "correct or remove it"}
            )  # fmt: skip
    found += _unknown_dimensions(settings, path)
    found += [
        {"file": str(path), "line": (own.lines or {}).get(one.event, 1),
         "message": f"{one.event} has no day in any year", "mend": "correct its dates or years"}
        for one in own.occasions
        if not any(True for _ in one.days())
    ]  # fmt: skip
    if as_json:
        print_json({"problems": found, "announced_until": _announced_until(settings)})
    else:
        for one in found:
            typer.echo(f"{one['file']}:{one['line']}: {one['message']}; {one['mend']}")
        if not found:
            say("The calendar is in order.")
        if (year := _announced_until(settings)) is not None:
            say(f"Days off and worked weekends are announced up to {year}; later years have the statutory days only.")
    if found:
        raise typer.Exit(PROBLEM)


@app.command("infer", epilog="Example: [bold]metrics calendar infer --from 2025-01-01 --to 2026-06-30 --json[/bold]")
def calendar_infer(first: FromOption = None, last: ToOption = None, as_json: JsonOption = False) -> None:
    """Days on which most series rose together, like a promotion in shape, that are in no calendar."""
    with opened_door() as door:
        found = _inferred(door, first, last)
    rows = [
        {
            "from": one.first.isoformat(),
            "to": one.last.isoformat(),
            "peak": one.peak.isoformat(),
            "affects": _affects(one.affects),
            "lift": round(one.lift, 3),
            "agreeing": one.agreeing,
            "series": one.series,
            "before": round(one.before, 3),
            "after": round(one.after, 3),
        }
        for one in found
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        "Look like promotions and are in no calendar", rows, numbers=("lift", "agreeing", "series", "before", "after")
    )
    if rows:
        say("`metrics calendar propose` shows them as entries and writes those you accept.")


class Names(NamedTuple):
    """What a person calls an event."""

    event: str | None
    zh: str | None
    en: str | None


@app.command(
    "propose",
    epilog="Examples: [bold]metrics calendar propose[/bold] · [bold]metrics calendar propose --accept monthly_26 "
    '--event member_day --name-zh 会员日 --name-en "Members\' day"[/bold]',
)
def calendar_propose(  # noqa: PLR0917 - options of a command
    first: FromOption = None,
    last: ToOption = None,
    accept: Annotated[str | None, typer.Option("--accept", metavar="PROPOSAL", help="Write this one.")] = None,
    event: Annotated[str | None, typer.Option("--event", help="Id it gets; default: that of the proposal.")] = None,
    name_zh: Annotated[str | None, typer.Option("--name-zh", help="Chinese name.")] = None,
    name_en: Annotated[str | None, typer.Option("--name-en", help="English name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What `infer` finds as entries of the calendar, each with its evidence; `--accept` writes one."""
    from metrics_pipeline.detection.inferred import recurring

    with opened_door() as door:
        proposals = {one.event: one for one in recurring(_inferred(door, first, last))}
        if accept is not None:
            if accept not in proposals:
                usage(
                    f"there is no proposal {accept!r}{nearest(accept, proposals)}; `metrics calendar propose` lists them"
                )
            entry = _entry(proposals[accept], Names(event, name_zh, name_en))
            _write(door, entry, "calendar.accept", as_json=as_json)
            return
    if as_json:
        print_json(
            [
                {"proposal": name, "evidence_zh": one.evidence[0], "evidence_en": one.evidence[1],
                 "entry": _entry(one, Names(None, None, None))}
                for name, one in proposals.items()
            ]
        )  # fmt: skip
        return
    rows = [
        {
            "proposal": name,
            "falls_on": ", ".join(one.falls_on),
            "phases": "; ".join(f"{phase} {first}…{last}" for phase, (first, last) in one.phases.items()),
            "affects": _affects(one.affects),
            "evidence": one.evidence[0 if door.settings.locale == "zh" else 1],
        }
        for name, one in proposals.items()
    ]
    print_table("Proposed for the calendar", rows)
    if rows:
        say("Write one with `metrics calendar propose --accept PROPOSAL --name-zh … --name-en …`.")


@app.command(
    "add",
    epilog="Example: [bold]metrics calendar add brand_day --on 'thu 2 of 09' --name-zh 品牌日 --name-en 'Brand day' "
    "--phase before=-1 --phase main=0 --phase after=1..2 --affects category=美妆,个护 --because 'agreed with sales'[/bold]",
)
def calendar_add(  # noqa: PLR0917 - options of a command
    event: Annotated[str, typer.Argument(help="Id of the event; a shipped one is replaced in these years.")],
    falls_on: Annotated[
        list[str], typer.Option("--on", help="11-11, 2026-05-08, lunar 01-01, thu 4 of 11 + 1, monthly 26.")
    ],
    name_zh: Annotated[str, typer.Option("--name-zh", help="Chinese name.")],
    name_en: Annotated[str, typer.Option("--name-en", help="English name.")],
    phase: Annotated[
        list[str] | None, typer.Option("--phase", help="PHASE=DAY or PHASE=FIRST..LAST; default main=0.")
    ] = None,
    affects: Annotated[
        list[str] | None, typer.Option("--affects", help="DIMENSION=MEMBER,…; default: the whole shop.")
    ] = None,
    years: Annotated[str, typer.Option("--years", help="2026 or 2024-2026; default: always.")] = "",
    because: Annotated[str, typer.Option("--because", help="Why, for whoever reads it next year.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Write an event into the shop's own calendar."""
    from metrics_pipeline.detection.own_calendar import entry_of

    entry = entry_of(
        event, name_zh, name_en, falls_on,
        phases=dict(_phase(one) for one in phase or ()), affects=dict(_slices(one) for one in affects or ()),
        years=years, because=because,
    )  # fmt: skip
    with opened_door() as door:
        known = _dimensions(door.settings) if affects else set()
        for name in entry.get("affects", ()):
            if name not in known:
                fail(
                    f"--affects {name}=…: no metric has the dimension {name!r}{nearest(name, sorted(known))}; correct it"
                )
        _write(door, entry, "calendar.add", as_json=as_json)


def _write(door: CliDoor, entry: Mapping[str, Any], action: str, *, as_json: bool) -> None:
    """Write an entry and record who did; ends with 1 when it cannot be read back."""
    from metrics_pipeline.detection.own_calendar import add_event
    from metrics_pipeline.detection.promotions import CalendarError
    from metrics_pipeline.store.audit import Event

    door.require_general("compose")
    try:
        path = add_event(door.settings.rules_dir, entry)
    except CalendarError as error:
        fail(str(error))
    door.record([Event(action, str(entry["event"]), details={"entry": dict(entry), "file": path.name})])
    if as_json:
        print_json({"file": str(path), "entry": entry})
    else:
        say(f"{entry['event']} is in {path}; `metrics calendar show --event {entry['event']}` shows its days.")


def _entry(proposal: Proposal, names: Names) -> dict[str, Any]:
    from metrics_pipeline.detection.own_calendar import entry_of

    return entry_of(
        names.event or proposal.event,
        names.zh or f"店铺促销 {proposal.falls_on[0]}",
        names.en or f"Shop promotion {proposal.falls_on[0]}",
        proposal.falls_on,
        phases=proposal.phases,
        affects=dict(proposal.affects),
        because=" · ".join(proposal.evidence),
    )


def _inferred(door: CliDoor, first: str | None, last: str | None) -> list[Inferred]:
    """What looks like a promotion in the published values that the reader may see."""
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.detection.inferred import infer
    from metrics_pipeline.rules.peers import daily_series
    from metrics_pipeline.rules.seeds import seeds_of

    try:
        published = door.published()
    except NotPublished as error:
        fail(str(error))
    ends = [state.complete_until.date() for state in published.metrics.values() if state.complete_until is not None]
    if not ends:
        fail("no metric is complete up to any day; run `metrics backfill`")
    end = parse_day(last, "--to") or max(ends) - timedelta(days=1)
    start = parse_day(first, "--from") or end - timedelta(days=LOOKED_AT)
    in_order(start, end)
    series = daily_series(published, METRICS, start, end)
    days = seeds_of(door.settings).promotions
    return infer(
        series.values, start, _known(days, start, len(series.values[0]) if len(series.values) else 0), series.groups
    )


def _known(promotions: Sequence[PromotionDay], start: date, days: int) -> Any:
    import numpy as np

    known = np.zeros(days, dtype=bool)
    for day in promotions:
        at = (day.date - start).days
        if 0 <= at < days and day.kind != "workday" and not day.affects:
            known[at] = True
    return known


def _unknown_dimensions(settings: Settings, path: Any) -> list[dict[str, Any]]:
    """Events of slices that no metric has."""
    from metrics_pipeline.detection.own_calendar import load_own_calendar

    own = load_own_calendar(settings.rules_dir)
    asked = {name for one in own.occasions for name, _ in one.affects}
    if not asked:
        return []
    known = _dimensions(settings)
    return [
        {"file": str(path), "line": (own.lines or {}).get(one.event, 1),
         "message": f"affects: no metric has the dimension {name!r}{nearest(name, sorted(known))}", "mend": "correct it"}
        for one in own.occasions
        for name, _ in one.affects
        if name not in known
    ]  # fmt: skip


def _dimensions(settings: Settings) -> set[str]:
    from metrics_pipeline.library.catalogue import Catalogue

    metrics = Catalogue.read(settings.dbt_project_dir).metrics.values()
    return {part for metric in metrics for dimension in metric.all_slices for part in dimension.split("|")} - {"all"}


def _announced_until(settings: Settings) -> int | None:
    from metrics_pipeline.detection.public_holidays import announced_until, country_of

    return announced_until() if country_of(settings.installation.timezone) == "CN" else None


def _today(settings: Settings) -> date:
    from datetime import UTC, datetime

    return datetime.now(UTC).astimezone(settings.zone).date()


def _affects(affects: Affects) -> str:
    return "; ".join(f"{dimension}={','.join(members)}" for dimension, members in affects)


def _phase(text: str) -> tuple[str, tuple[int, int]]:
    match = re.fullmatch(r"([a-z]+)=(-?\d+)(?:\.\.(-?\d+))?", text)
    if match is None:
        usage(f"--phase {text!r}: write PHASE=DAY or PHASE=FIRST..LAST, e.g. after=1..2")
    return match[1], (int(match[2]), int(match[3] or match[2]))


def _slices(text: str) -> tuple[str, list[str]]:
    dimension, _, members = text.partition("=")
    if not dimension or not members:
        usage(f"--affects {text!r}: write DIMENSION=MEMBER,…, e.g. category=服饰,美妆")
    return dimension, members.split(",")
