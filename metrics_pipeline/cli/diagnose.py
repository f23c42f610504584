"""`metrics diagnose`: why a value is what it is, as far as whoever asks may see the values that say so.

`metrics notes`: what people or deployments write down, to be seen beside a change.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import (
    JsonOption,
    console,
    fail,
    nearest,
    parse_day,
    print_json,
    print_table,
    say,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metrics_pipeline.advice.told import Told
    from metrics_pipeline.cli.door import CliDoor
    from metrics_pipeline.diagnosis.model import Diagnosis
    from metrics_pipeline.diagnosis.words import Named
    from metrics_pipeline.forecasting.outlook import Outlook

notes_app = typer.Typer(
    no_args_is_help=True, help="What was deployed or happened: shown beside changes of the same days."
)
NOTE_KINDS = ("deploy_note", "campaign", "data_problem")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(
        epilog="Examples: [bold]metrics diagnose gmv[/bold] · [bold]metrics diagnose refund_rate --date 2026-11-03 "
        "--slice region=华东[/bold] · [bold]metrics diagnose late_delivery_rate --week --plot why.png[/bold]"
    )(diagnose)
    app.add_typer(notes_app, name="notes")


def diagnose(  # noqa: PLR0917 - options of a command
    metric: Annotated[str, typer.Argument(help="Metric id, e.g. gmv.")],
    on: Annotated[str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="Default: the newest day.")] = None,
    hour: Annotated[
        int | None, typer.Option(min=0, max=23, help="An hour of the day instead of the whole day.")
    ] = None,
    week: Annotated[
        bool, typer.Option("--week", help="The seven days that end with the day, against earlier weeks.")
    ] = False,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="DIM=MEMBER", help="Look inside a slice; repeatable.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--lang", "--language", help="zh or en; default: the installation's.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the picture to a .png or .svg file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which members of which dimensions explain a change, what is below it, what coincides, what did not move."""
    with opened_door() as door:
        library = door.known(door.library)
        if metric not in library:
            if not door.is_open:
                door.deny("read", metric)
            usage(f"there is no metric {metric!r}{nearest(metric, library)}; `metrics value` lists them")
        if plot is not None and plot.suffix not in (".png", ".svg"):
            usage(f"--plot {plot}: write a file that ends in .png or .svg")
        if language not in (None, "zh", "en"):
            usage(f"--lang {language!r} is not known; write zh or en")
        if week and hour is not None:
            usage("--week and --hour exclude each other")
        asked = asked_slice(door, metric, slices or [])
        found = _diagnosed(door, metric, asked, parse_day(on, "--date"), hour, week=week)
        door.read(metric, "|".join(asked) or "all", "|".join(asked.values()) or None, rows=1)
        locale: Literal["zh", "en"] = "en" if (language or door.settings.locale) == "en" else "zh"
        _show(door, found, locale, plot, as_json=as_json)


def _diagnosed(
    door: CliDoor, metric: str, asked: dict[str, str], day: Any, hour: int | None, *, week: bool
) -> Diagnosis:
    from metrics_pipeline.diagnosis.attached import context_of
    from metrics_pipeline.diagnosis.diagnose import NothingToDiagnose
    from metrics_pipeline.diagnosis.diagnose import diagnose as diagnose_one
    from metrics_pipeline.library.catalogue import Catalogue

    published = door.published()
    state = published.metrics.get(metric)
    if state is not None and state.is_absent:
        fail(f"{metric} is absent: {state.absent_en}")
    if day is None:
        if state is None or state.complete_until is None:
            fail(f"nothing of {metric} is published; `metrics nightly` builds it")
        day = (state.complete_until - timedelta(days=1)).date()
    period = datetime(day.year, day.month, day.day, hour or 0)
    try:
        with door.store.reading() as connection:
            context = context_of(door.settings, connection, catalogue=Catalogue.read(door.settings.dbt_project_dir))
        return diagnose_one(
            published,
            context,
            metric,
            asked,
            period,
            grain="day" if hour is None else "hour",
            span=7 if week else 1,
            now=door.now,
        )
    except NothingToDiagnose as error:
        fail(str(error))


def asked_slice(door: CliDoor, metric: str, given: list[str]) -> dict[str, str]:
    """The slice that is asked about; of somebody who may see one slice only, that one."""
    asked: dict[str, str] = {}
    for text in given:
        dimension, equals, member = text.partition("=")
        if not equals or not dimension or not member:
            usage(f"--slice {text!r}: write DIMENSION=MEMBER, e.g. region=华东")
        asked[dimension] = member
    known = {name for slice_ in door.library[metric].slices for name in slice_.split("|")}
    for dimension in asked:
        if dimension not in known:
            usage(f"{metric} has no dimension {dimension!r}; it has: {', '.join(sorted(known - {'all'})) or 'none'}")
    names = [name for name in door.library[metric].slices if set(name.split("|")) == set(asked)]
    by = names[0] if names else "all"
    member = "|".join(asked[name] for name in by.split("|")) if names else "all"
    if asked and not names:
        usage(f"{metric} has no slices by {'|'.join(asked)}; it has: {', '.join(door.library[metric].slices)}")
    if door.viewer.decide("read", metric, by, member).is_allowed:
        return asked
    if not asked:
        rights = door.viewer.reading.slices_of(metric)
        single = [
            {name: next(iter(members)) for name, members in one.items()}
            for one in rights
            if one and all(len(members) == 1 for members in one.values())
        ]
        if len(rights) == 1 and len(single) == 1:
            return single[0]
    door.deny("read", metric, by, member)
    return fail(f"{door.viewer.person} may not see this of {metric}; name a slice that is given with --slice (无权限)")


def _show(door: CliDoor, found: Diagnosis, locale: Literal["zh", "en"], plot: Path | None, *, as_json: bool) -> None:
    from metrics_pipeline.diagnosis.words import Wording

    wording = Wording(found, _names(door), locale)
    if plot is not None:
        from metrics_pipeline.delivery.cause_plot import CausePlot

        door.require_export(f"diagnosis of {found.metric}", plot)
        drawn = CausePlot(wording)
        if plot.suffix == ".svg":
            plot.write_text(drawn.svg(), encoding="utf-8")
        else:
            plot.write_bytes(drawn.png())
    told, currency = _advice(door, found), door.settings.installation.currency
    if as_json:
        evidence = {name: list(values) for name, values in found.evidence().items()}
        print_json({**found.to_json(), "evidence": evidence, **told.as_json(currency=currency)})
        return
    screen = console()
    screen.print(Text(wording.title(), style="bold"))
    table = Table(pad_edge=False, box=None, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in wording.rows():
        table.add_row(label, Text(text))
    screen.print(table)
    titles = {"zh": ("建议", "类似报警"), "en": ("What to do", "Similar before")}[locale]
    for title, lines in zip(titles, (told.lines(locale, currency=currency), told.memory(locale)), strict=True):
        if lines:
            screen.print(Text(title, style="bold"))
            for number, line in enumerate(lines, 1):
                typer.echo(f"{number}. {line}")
    if plot is not None:
        say(f"Picture: {plot}")


def _advice(door: CliDoor, found: Diagnosis) -> Told:
    """What to do about what was found, and how similar alerts were handled, as whoever asks may see it."""
    from metrics_pipeline.advice.attach import advise_on_diagnosis
    from metrics_pipeline.advice.load import load_playbook
    from metrics_pipeline.alerts.notice import RuleCard
    from metrics_pipeline.store import dispatch

    entries = load_playbook(door.settings.rules_dir).entries.values()
    with door.store.reading() as connection:
        cards = {rule: RuleCard.from_json(card) for rule, card in dispatch.cards(connection).items()}
        told = advise_on_diagnosis(
            connection, found, entries, door.library, cards, outlooks=_outlooks(door, found), now=door.now
        )
    return told.seen_by(door.sight)


def _outlooks(door: CliDoor, found: Diagnosis) -> Mapping[str, Outlook]:
    """What the last night foresaw of the shelves, for a diagnosis of its day."""
    from metrics_pipeline.forecasting.stored import NoForecast, read_outlooks

    try:
        outlooks = read_outlooks(door.settings.forecasts_dir, door.published())
    except NoForecast:
        return {}
    return {sku: one for sku, one in outlooks.items() if one.origin == found.period.date()}


def _names(door: CliDoor) -> dict[str, Named]:
    from metrics_pipeline.diagnosis.words import Named

    currency = door.settings.installation.currency
    return {one.id: Named(one.name_zh, one.name_en, one.unit, currency) for one in door.known(door.library).values()}


@notes_app.command(
    "add", epilog='Example: [bold]metrics notes add "Payment gateway 4.2 rolled out" --on 2026-11-22[/bold]'
)
def add_note(  # noqa: PLR0917 - options of a command
    text: Annotated[str, typer.Argument(help="What was done or happened.")],
    on: Annotated[str | None, typer.Option("--on", metavar="YYYY-MM-DD", help="First day; default: today.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="Last day; default: the first.")
    ] = None,
    kind: Annotated[str, typer.Option(help="deploy_note, campaign or data_problem")] = "deploy_note",
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="DIM=MEMBER", help="What it concerns; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write down something that may explain a change later."""
    from metrics_pipeline.store import diagnoses

    if kind not in NOTE_KINDS:
        usage(f"--kind {kind!r} is not known; write {', '.join(NOTE_KINDS)}")
    if not text.strip():
        usage("the note is empty; write what was done or happened")
    with opened_door() as door:
        first = parse_day(on, "--on") or door.now.astimezone(door.settings.zone).date()
        last = parse_day(until, "--until") or first
        if last < first:
            usage(f"--until {last} is before --on {first}")
        elements = dict(one.partition("=")[::2] for one in slices or [])
        if any(not name or not member for name, member in elements.items()):
            usage("--slice: write DIMENSION=MEMBER, e.g. region=华东")
        with door.store.writing("notes") as connection:
            number = diagnoses.add_note(
                connection,
                diagnoses.NoteRow(0, kind, text.strip(), first, last, elements, door.settings.user, datetime.now(UTC)),
            )
        if as_json:
            print_json({"id": number})
        else:
            say(f"Note {number}: {first}{'' if last == first else f' … {last}'} {text.strip()}")


@notes_app.command("list", epilog="Example: [bold]metrics notes list[/bold]")
def list_notes(as_json: JsonOption = False) -> None:
    """All notes, the newest first."""
    from metrics_pipeline.store import diagnoses

    with opened_door() as door:
        with door.store.reading() as connection:
            found = diagnoses.notes(connection)
        rows = [
            {
                "id": one.id,
                "kind": one.kind,
                "from": str(one.starts_on),
                "until": str(one.ends_on),
                "text": one.text,
                "slice": "|".join(f"{name}={member}" for name, member in one.elements.items()),
                "by": one.who,
            }
            for one in found
        ]
        if as_json:
            print_json({"notes": rows})
        else:
            print_table("Notes", rows)
