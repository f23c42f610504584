"""`metrics library history|diff|asof`: how a metric was defined when, and what was shown under which definition.

Hangs on the app of `library`; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from math import isnan
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.library import find_metric, open_catalogue, require_metric
from metrics_pipeline.cli.output import (
    JsonOption,
    fail,
    opened_store,
    parse_day,
    parse_moment,
    print_json,
    print_table,
    say,
    show_value,
    usage,
)
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.store.metric_versions import VersionRow

ASOF_DAYS = 400
"""How far back the newest day known at a moment is looked for."""
LEAST_HASH = 6
"""Digits of a hash that are enough to name a version."""
MetricArgument = Annotated[str, typer.Argument(help="Metric id, e.g. refund_rate.")]


def add_to_library(app: typer.Typer) -> None:
    """Hang the commands on `metrics library`."""
    app.command(
        "history",
        epilog="Examples: [bold]metrics library history refund_rate[/bold] · [bold]metrics library history gmv --json[/bold]",
    )(library_history)
    app.command(
        "diff",
        epilog="Examples: [bold]metrics library diff refund_rate 1 2[/bold] · "
        "[bold]metrics library diff refund_rate e671cb775810 v3[/bold]",
    )(library_diff)
    app.command(
        "asof",
        epilog="Examples: [bold]metrics library asof refund_rate --at 2026-11-12T09:00 --day 2026-11-11[/bold] · "
        "[bold]metrics library asof refund_rate --at 2026-11-12 --by region --member 华北 --json[/bold]",
    )(library_asof)


def library_history(metric: MetricArgument, as_json: JsonOption = False) -> None:
    """Every recorded version of a metric: what changed, since which day, who, why, approved by whom."""
    from metrics_pipeline.library.versions import what_changed

    settings = load_settings()
    rows = _versions(settings, metric)
    if as_json:
        print_json([{**row._asdict(), "what": list(what_changed(row.diff))} for row in rows])
        return
    shown = [
        {
            "v": f"v{row.number}",
            "version": row.version,
            "days": f"from {row.effective_from}" if row.effective_from else "all",
            "changed": ", ".join(what_changed(row.diff)),
            "recorded": f"{row.at.astimezone(settings.zone):%Y-%m-%d %H:%M}",
            "by": row.who,
            "approved by": row.approved_by,
            "proposal": None if row.proposal is None else str(row.proposal),
            "why": row.why,
        }
        for row in rows
    ]
    print_table(f"Versions of {metric}", shown)


def library_diff(
    metric: MetricArgument,
    first: Annotated[str, typer.Argument(metavar="V1", help="Number (2, v2) or hash of a version.")],
    second: Annotated[str, typer.Argument(metavar="V2", help="Number or hash of the other one.")],
    as_json: JsonOption = False,
) -> None:
    """What differs between two versions of a metric, field by field."""
    from metrics_pipeline.library.versions import difference

    rows = _versions(load_settings(), metric)
    before, after = _chosen(rows, first, metric), _chosen(rows, second, metric)
    diff = difference(before.definition, after.definition)
    if as_json:
        print_json({"metric": metric, "from": before.number, "to": after.number, "diff": diff})
        return
    show_diff(f"{metric}: v{before.number} ({before.version}) → v{after.number} ({after.version})", diff)


def library_asof(  # noqa: PLR0917 - options of a command
    metric: MetricArgument,
    at: Annotated[str, typer.Option("--at", metavar="TIME", help="What was known then, shop time.")],
    day: Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Day asked for; default: the newest.")] = None,
    by: Annotated[str, typer.Option(help="Slices: all, region, region|channel.")] = "all",
    member: Annotated[str | None, typer.Option(help="One member of the slice; default: all of them.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What was shown at a moment, to the digit, and under which definition. Exit code 1 when nothing was."""
    from metrics_pipeline.store.metric_versions import version_name

    settings = load_settings()
    moment = _moment(at, settings)
    find_metric(open_catalogue(settings), metric)
    require_metric(settings, metric)
    rows = known_at(settings, metric, moment, day=parse_day(day, "--day"), by=by, member=member)
    if not rows:
        what = f"{metric} on {day}" if day else metric
        fail(f"nothing was known of {what} by {by} at {moment:%Y-%m-%d %H:%M}; `metrics value {metric}` shows what is")
    if as_json:
        print_json({"metric": metric, "as_of": moment.isoformat(), "values": rows})
        return
    print_table(
        f"{metric}, as it was known at {moment:%Y-%m-%d %H:%M}",
        [
            {
                "day": row["day"],
                **({} if by == "all" else {by: row["member"]}),
                "value": repr(row["value"]),
                "numerator": None if row["denominator"] is None else repr(row["numerator"]),
                "denominator": None if row["denominator"] is None else repr(row["denominator"]),
                "version": version_name(row["number"], row["version"]),
                "computed": row["computed_at"],
            }
            for row in rows
        ],
        numbers=("value", "numerator", "denominator"),
    )
    for version in dict.fromkeys(row["version"] for row in rows):
        text = next(row["definition"] for row in rows if row["version"] == version)
        if text is None:
            say(f"{version} was not recorded: it is older than the record of versions")
            continue
        say(f"\n[bold]{version}[/bold] said then:")
        for name in ("formula", "description", "definition_zh", "owner", "unit"):
            typer.echo(f"  {name}: {text.get(name, '')}")


def known_at(
    settings: Settings, metric: str, moment: datetime, *, day: date | None, by: str = "all", member: str | None = None
) -> list[dict[str, Any]]:
    """The values of one day as known at a moment, each with the version that made it and its definition of that time.

    `day` None = the newest day then known. Values are exact; `definition` is None for a version that was never recorded.
    """
    from metrics_pipeline.store.metric_versions import versions_of

    start = day or moment.date() - timedelta(days=ASOF_DAYS)
    until = (day or moment.date()) + timedelta(days=1)
    wanted = member or ("all" if by == "all" else None)
    with opened_door(settings) as door:
        frame = door.published().series(metric, by, wanted, start=start, until=until, as_of=moment)
        door.read(metric, by, member, rows=len(frame))
        with door.store.reading() as connection:
            versions = versions_of(connection, metric)
        versions = [row if door.knows_named(row.definition, row.diff) else _bare(row) for row in versions]
    frame = frame[frame.period_start == frame.period_start.max()]
    found = []
    for row in frame.itertuples():
        same = [one for one in versions if one.version == row.definition_version]
        texts = [one for one in same if one.at <= moment.astimezone(UTC)] or same[:1]
        found.append(
            {
                "day": f"{row.period_start:%Y-%m-%d}",
                "member": row.member,
                "value": _exact(row.value),
                "numerator": _exact(row.numerator),
                "denominator": _exact(row.denominator),
                "version": row.definition_version,
                "number": same[0].number if same else None,
                "computed_at": f"{row.computed_at.replace(tzinfo=UTC).astimezone(settings.zone):%Y-%m-%d %H:%M:%S}",
                "run": row.run_id,
                "definition": dict(texts[-1].definition) if texts and texts[-1].definition else None,
            }
        )
    return found


def show_diff(title: str, diff: dict[str, list[Any]]) -> None:
    """A difference as a table."""
    rows = [{"field": name, "before": _text(pair[0]), "after": _text(pair[1])} for name, pair in diff.items()]
    if not rows:
        say(f"{title}: they are the same.")
        return
    print_table(title, rows)


def _versions(settings: Settings, metric: str) -> list[VersionRow]:
    """The recorded versions of a metric that is or was in the library; ends when there are none."""
    from metrics_pipeline.store.metric_versions import versions_of

    require_metric(settings, metric)
    with opened_store(settings) as store, store.reading() as connection:
        rows = versions_of(connection, metric)
    with opened_door(settings) as door:
        rows = [row if door.knows_named(row.definition, row.diff) else _bare(row) for row in rows]
    if not rows:
        find_metric(open_catalogue(settings), metric)
        fail(f"no version of {metric} is recorded yet; the next `metrics nightly` records all that the files have")
    return rows


def _bare(row: VersionRow) -> VersionRow:
    """A version that names a metric its reader may not know of: that there was one, and since when."""
    return row._replace(definition={}, diff={}, who="", why="", approved_by=None)


def _chosen(rows: Sequence[VersionRow], text: str, metric: str) -> VersionRow:
    same = [row for row in rows if text.removeprefix("v") == str(row.number)]
    same += [row for row in rows if len(text) >= LEAST_HASH and row.version.startswith(text)]
    if not same:
        known = ", ".join(f"v{row.number} ({row.version})" for row in rows)
        usage(f"{metric} has no version {text!r}; it has: {known}")
    return same[0]


def _moment(text: str, settings: Settings) -> datetime:
    moment = parse_moment(text, "--at", settings.zone, like="2026-11-12T09:00")
    if "T" not in text and ":" not in text:  # a day is known once it is over
        moment += timedelta(days=1)
    return moment


def _exact(value: Any) -> float | None:
    return None if value is None or isnan(value) else float(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return "\n".join(_text(one) for one in value)
    return show_value(value) if not isinstance(value, float) else repr(value)
