"""`metrics library review`: a proposal on history, before anybody approves it.

Hangs on the app of `library`; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.library_changes import (
    FROM_THE_NIGHT,
    NumberArgument,
    affected_by,
    find_proposal,
    is_in_files,
    told,
)
from metrics_pipeline.cli.library_versions import show_diff
from metrics_pipeline.cli.output import JsonOption, opened_store, print_json, print_table, say
from metrics_pipeline.settings import Settings, load_settings

if TYPE_CHECKING:
    import pandas as pd

    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.library.preview import Preview
    from metrics_pipeline.rules.what_if import Firing
    from metrics_pipeline.store.metric_versions import ProposalRow

BARS = "▁▂▃▄▅▆▇█"


def add_to_library(app: typer.Typer) -> None:
    """Hang the command on `metrics library`."""
    app.command("review", epilog="Example: [bold]metrics library review 3[/bold]")(library_review)


@dataclass
class _Looked:
    """What history says of a proposal."""

    affected: list[str]
    """Metrics that change with it."""
    preview: Preview | None = None
    fired: list[Firing] | None = None
    unseen: str = ""
    """Why there is no preview."""


def library_review(
    number: NumberArgument,
    days: Annotated[int, typer.Option(help="Days of history that are computed anew.")] = 90,
    as_json: JsonOption = False,
) -> None:
    """Show a proposal: what changes, the last 90 days old against new, what depends on it, what its rules would have fired."""
    settings = load_settings()
    row = find_proposal(settings, number)
    looked = _look(settings, row, days)
    if as_json:
        print_json(
            {
                **row._asdict(),
                "affected": looked.affected,
                "preview": None if looked.preview is None else _preview_json(looked.preview),
                "no_preview": looked.unseen or None,
                "alerts": [
                    {"rule": one.rule, "before": _counts(one.before), "after": _counts(one.after)}
                    for one in looked.fired or ()
                ],
            }
        )
        return
    since = FROM_THE_NIGHT if is_in_files(row) else f"from {row.effective_from} on"
    say(f"[bold]Proposal {row.id}[/bold]: {row.metric}, {since}, {row.state}")
    say(f"by {row.who} on {row.at.astimezone(settings.zone):%Y-%m-%d %H:%M}: {row.why}")
    if row.decided_by:
        say(f"{row.state} after a decision of {row.decided_by}{f': {row.note}' if row.note else ''}")
    show_diff("What changes", {name: list(pair) for name, pair in row.diff.items()})
    if looked.affected:
        say(f"Changes with it: {', '.join(looked.affected)}")
    if looked.unseen:
        say(f"No preview: {looked.unseen}")
    if looked.preview is not None:
        _show_preview(looked.preview)
    if looked.fired:
        rows = [
            {"rule": one.rule, **{f"{when} {name}": value for when, of in (("before", one.before), ("after", one.after))
             for name, value in _counts(of).items()}}
            for one in looked.fired or ()
        ]  # fmt: skip
        print_table("What its rules would have fired in these days", rows, numbers=[*rows[0]][1:])


def _look(settings: Settings, row: ProposalRow, days: int) -> _Looked:
    """What it would have given on the last days, unless it is decided and done, or changes no value."""
    from metrics_pipeline.library.facts import PreviewError
    from metrics_pipeline.library.file_changes import reviewed_in_files
    from metrics_pipeline.library.preview import preview
    from metrics_pipeline.library.proposals import reviewed
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of
    from metrics_pipeline.rules.what_if import firings

    if row.state in {"applied", "rejected"}:
        return _Looked([])
    before: Catalogue
    with told(), opened_store(settings) as store, store.reading() as connection:
        if is_in_files(row):
            changed = reviewed_in_files(connection, settings.dbt_project_dir, row)
            before = after = changed.catalogue
            looked = _Looked(changed.affected)
        else:
            found = reviewed(settings.dbt_project_dir, row)
            before, after = found.before, found.after
            looked = _Looked(affected_by(found))
            if not found.changes_values:
                return looked
    try:
        with opened_door(settings) as door:
            published, counted = door.published(), replace(door.counted(before), is_fresh=is_in_files(row))
            looked.preview = preview(published, after, row.metric, days=days, facts=counted)
            door.read_inputs(row.metric, after, rows=looked.preview.compared + looked.preview.only_new)
        seeds = seeds_of(settings)
        looked.fired = firings(
            published, after, row.metric, load_rules(settings.rules_dir, before, seeds).rules,
            start=looked.preview.start, until=looked.preview.until,
            promotions=seeds.promotions, references=seeds.references, facts=counted,
        )  # fmt: skip
    except PreviewError as error:
        looked.unseen = str(error)
    return looked


def _show_preview(found: Preview) -> None:
    say(
        f"{found.metric}, {found.start} to {found.until - timedelta(days=1)}: {found.different:,} of {found.compared:,} values differ"
        f"{f', {found.only_old:,} have no new one' if found.only_old else ''}"
        f"{f', {found.only_new:,} are new' if found.only_new else ''}"
    )
    low, high = _range(found.daily)
    for name in ("old", "new"):
        typer.echo(f"  {name} {_plot(found.daily[name], low, high)}")
    newest = found.daily.tail(7)
    days = [
        {"day": f"{row.period_start:%Y-%m-%d}", "old": _number(row.old), "new": _number(row.new)}
        for row in newest.itertuples()
    ]
    print_table("The total of the last days", days, numbers=("old", "new"))
    rows = [
        {"slice": "all" if row.dimension == "all" else f"{row.dimension}={row.member}", "days": row.days,
         "old mean": _number(row.old), "new mean": _number(row.new), "difference": _number(row.difference)}
        for row in found.slices.itertuples()
    ]  # fmt: skip
    if rows:
        print_table("Slices that differ most", rows, numbers=("days", "old mean", "new mean", "difference"))


def _range(daily: pd.DataFrame) -> tuple[float, float]:
    both = daily[["old", "new"]]
    return float(both.min().min()), float(both.max().max())


def _plot(values: pd.Series[Any], low: float, high: float) -> str:
    """A value a character, on a common scale; a gap is a blank."""
    span = (high - low) or 1.0
    return "".join(
        " " if value != value else BARS[min(int((value - low) / span * len(BARS)), len(BARS) - 1)]  # noqa: PLR0124
        for value in values.astype(float)
    )


def _preview_json(found: Preview) -> dict[str, Any]:
    return {
        "from": found.start.isoformat(),
        "until": found.until.isoformat(),
        "compared": found.compared,
        "different": found.different,
        "only_old": found.only_old,
        "only_new": found.only_new,
        "daily": [
            {"day": f"{row.period_start:%Y-%m-%d}", "old": _number(row.old), "new": _number(row.new)}
            for row in found.daily.itertuples()
        ],
        "slices": [
            {"dimension": row.dimension, "member": row.member, "days": row.days, "old": _number(row.old),
             "new": _number(row.new)}
            for row in found.slices.itertuples()
        ],
    }  # fmt: skip


def _counts(found: Any) -> dict[str, int]:
    return {"yellow": found.yellow, "red": found.red, "episodes": found.episodes}


def _number(value: Any) -> float | None:
    return None if value is None or value != value else float(value)  # noqa: PLR0124
