"""`metrics alerts missed`: what happened and nobody was told of, or too late; why each rule was silent.

`app` hangs it up beside the other verbs; nothing heavy is imported before it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.diagnose import asked_slice
from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import JsonOption, fail, nearest, parse_day, print_json, print_table, say, usage

if TYPE_CHECKING:
    from metrics_pipeline.cli.door import CliDoor
    from metrics_pipeline.followup.misses import Asked
    from metrics_pipeline.store.missed import MissedRow

EPILOG = (
    "Examples: [bold]metrics alerts missed refund_rate --on 2026-11-03 --slice region=华东 --text 'wrong price for a day'[/bold] · "
    "[bold]metrics alerts missed[/bold] · [bold]metrics alerts missed --remove 3[/bold]"
)


def add_to_alerts(app: typer.Typer) -> None:
    """Hang the verb up below `metrics alerts`."""
    app.command("missed", epilog=EPILOG)(alerts_missed)


def alerts_missed(  # noqa: PLR0917 - options of a command
    metric: Annotated[str | None, typer.Argument(help="Metric in which it showed; without: what was reported.")] = None,
    on: Annotated[str | None, typer.Option("--on", metavar="YYYY-MM-DD", help="First day.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="YYYY-MM-DD", help="Last day; default: the first.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", metavar="DIM=MEMBER", help="Where; repeatable. Default: the total.")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="What happened, in a few words.")] = "",
    remove: Annotated[int | None, typer.Option("--remove", metavar="NUMBER", help="Take a report back.")] = None,
    lang: Annotated[str, typer.Option("--lang", help="zh or en; default: the installation's.")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Report an incident that nobody was told of, or too late, and see why the rules were silent. Proposals learn from it."""
    if lang not in ("", "zh", "en"):
        usage(f"--lang {lang!r} is not known; write zh or en")
    with opened_door() as door:
        if remove is not None:
            _remove(door, remove)
            return
        if metric is None:
            _list(door, as_json=as_json)
            return
        row = _row(door, metric, (on, until), slices or [], text)
        row = row._replace(id=_keep(door, row))
        asked = _asked(door, row)
        door.read(row.metric, row.dimension, None if row.dimension == "all" else row.member, rows=len(asked))
        locale = lang or door.settings.locale
    _show(row, asked, locale, as_json=as_json)


def _row(door: CliDoor, metric: str, days: tuple[str | None, str | None], slices: list[str], text: str) -> MissedRow:
    from metrics_pipeline.access.model import Level
    from metrics_pipeline.store.missed import MissedRow

    library = door.known(door.library)
    if metric not in library:
        if not door.is_open:
            door.deny("read", metric)
        usage(f"there is no metric {metric!r}{nearest(metric, library)}; `metrics value` lists them")
    first = parse_day(days[0], "--on")
    if first is None:
        usage("say when it began: --on YYYY-MM-DD")
    last = parse_day(days[1], "--until") or first
    if last < first:
        usage(f"--until {last} is before --on {first}")
    if not text.strip():
        usage("say what happened: --text '…'; whoever decides on a proposal reads it")
    asked = asked_slice(door, metric, slices)
    names = [name for name in library[metric].slices if set(name.split("|")) == set(asked)]
    dimension = names[0] if asked and names else "all"
    member = "|".join(asked[name] for name in dimension.split("|")) if dimension != "all" else "all"
    if door.viewer.level(metric, dimension, member) != Level.EXACT:
        door.deny("read", metric, dimension, member)
        fail(f"{door.viewer.person} may not see the values of {metric} there, so they cannot be asked about (无权限)")
    return MissedRow(0, metric, dimension, member, first, last, text.strip(), door.settings.user, door.now)


def _keep(door: CliDoor, row: MissedRow) -> int:
    from metrics_pipeline.store import audit, missed

    with door.store.writing("missed") as connection:
        number = missed.add(connection, row)
        where = {"dimension": row.dimension, "member": row.member, "on": str(row.starts_on), "until": str(row.ends_on)}
        audit.record(
            connection, door.caller, "incident.report", row.metric, now=door.now, details={"number": number, **where}
        )
    return number


def _remove(door: CliDoor, number: int) -> None:
    from metrics_pipeline.followup.answers import reported_misses
    from metrics_pipeline.store import audit, missed

    with door.store.writing("missed") as connection:
        known = {one.id: one for one in reported_misses(connection, door.sight)}
        if number not in known:
            fail(f"there is no report {number}; `metrics alerts missed` lists them")
        missed.remove(connection, number)
        audit.record(
            connection, door.caller, "incident.withdraw", known[number].metric, now=door.now, details={"number": number}
        )
    say(f"Report {number} is taken back.")


def _list(door: CliDoor, *, as_json: bool) -> None:
    from metrics_pipeline.followup.answers import reported_misses

    with door.store.reading() as connection:
        found = reported_misses(connection, door.sight)
    if as_json:
        print_json({"reported": [_plain(one) for one in found]})
        return
    rows = [
        {
            "number": one.id,
            "metric": one.metric,
            "slice": "total" if one.dimension == "all" else f"{one.dimension}={one.member}",
            "from": f"{one.starts_on}",
            "until": f"{one.ends_on}",
            "what": one.text,
            "by": one.who,
        }
        for one in found
    ]
    print_table("Reported: nobody was told", rows, numbers=("number",))


def _asked(door: CliDoor, row: MissedRow) -> list[Asked]:
    """What the rules that watch the slice say of the days."""
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.followup.misses import ask
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of

    settings = door.settings
    seeds = seeds_of(settings)
    rules = load_rules(settings.rules_dir, Catalogue.read(settings.dbt_project_dir), seeds).rules
    try:
        published = door.published()
    except NotPublished:
        return []
    return ask(published, rules, [row], promotions=seeds.promotions, references=seeds.references)


def _show(row: MissedRow, asked: list[Asked], locale: str, *, as_json: bool) -> None:
    from metrics_pipeline.followup.misses import why

    if as_json:
        said = [
            {"rule": one.rule.id, "answer": one.answer, "why_zh": why(one, "zh"), "why_en": why(one, "en")}
            for one in asked
        ]
        print_json({**_plain(row), "rules": said})
        return
    zh = locale == "zh"
    where = "" if row.dimension == "all" else f" {row.dimension}={row.member}"
    days = f"{row.starts_on}" if row.starts_on == row.ends_on else f"{row.starts_on} – {row.ends_on}"
    say(f"{'已记录漏报' if zh else 'Report'} {row.id}: {row.metric}{where} {days}")
    if not asked:
        by = "" if row.dimension == "all" else f" --by {row.dimension!r}"
        say(
            f"没有规则盯着这个切片。用 [bold]metrics rules propose {row.metric}{by}[/bold] 起草一条。"
            if zh
            else f"No rule watches this slice. [bold]metrics rules propose {row.metric}{by}[/bold] drafts one."
        )
        return
    title = "各规则当时的判断（按现行规则）" if zh else "What the rules, as they are now, say of these days"
    names = ("规则", "为何未报") if zh else ("rule", "why")
    print_table(title, [dict(zip(names, (one.rule.id, why(one, locale)), strict=True)) for one in asked])
    say(
        "[bold]metrics proposals make[/bold] 据此提出能抓住它的修改，并说明会多报多少。"
        if zh
        else "[bold]metrics proposals make[/bold] proposes what would have caught it, and says what else that would tell."
    )


def _plain(row: MissedRow) -> dict[str, Any]:
    return {name: value if isinstance(value, int | str) else value.isoformat() for name, value in row._asdict().items()}
