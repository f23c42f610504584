"""`metrics rules opinion`: are the data of a day what they seem, and do a slice's metrics go together.

The second opinion on what a rule said of one metric; `app` hangs it up.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import opened_door
from metrics_pipeline.cli.output import JsonOption, fail, parse_day, print_json, print_table, say

if TYPE_CHECKING:
    from metrics_pipeline.rules.together import Part, SliceOpinion

SHOWN = 20
PARTS = 3


def add_to_rules(rules: typer.Typer) -> None:
    """Hang `opinion` up below `metrics rules`."""
    rules.command(
        "opinion",
        epilog="Examples: [bold]metrics rules opinion --date 2026-11-20 --by channel[/bold] · "
        "[bold]metrics rules opinion --json[/bold]",
    )(rules_opinion)


def rules_opinion(
    on: Annotated[
        str | None, typer.Option("--date", metavar="YYYY-MM-DD", help="The day; default: the newest.")
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="DIMENSION", help="Its slices: channel, region|channel; all.")
    ] = "all",
    as_json: JsonOption = False,
) -> None:
    """Whether a day's data are what they seem, and the slices whose metrics do not go together, with each metric's share."""
    from metrics_pipeline.access.reader import NotPublished
    from metrics_pipeline.rules.seeds import seeds_of
    from metrics_pipeline.rules.together import SALES, TRAFFIC, second_opinion

    with opened_door() as door:
        try:
            published = door.published()
        except NotPublished as error:
            fail(str(error))
        ends = [
            state.complete_until.date() - timedelta(days=1)
            for name in (*TRAFFIC, *SALES)
            if (state := published.metrics.get(name)) is not None and state.complete_until is not None
        ]
        if not ends:
            fail("no metric of traffic or sales is complete up to any day; run `metrics backfill`")
        day = parse_day(on, "--date") or min(ends)
        found = second_opinion(published, day, by, seeds_of(door.settings).promotions)
    if as_json:
        print_json([_json(one) for one in found])
        return
    chinese = door.settings.locale == "zh"
    names = ("切片", "数据", "这样少见", "主要因为（值/预期）") if chinese else (
        "slice", "data", "as odd as this", "because of (value / expected)"
    )  # fmt: skip
    rows = [
        dict(
            zip(
                names,
                (
                    one.member,
                    one.reason_zh if chinese else one.reason_en,
                    "" if one.p_value is None else _often(one.p_value, chinese=chinese),
                    "; ".join(_part(part) for part in one.parts[:PARTS] if part.share),
                ),
                strict=True,
            )
        )
        for one in found[:SHOWN]
    ]
    print_table(f"{day} 按 {by}" if chinese else f"{day} by {by}", rows)
    if len(found) > SHOWN:
        more = len(found) - SHOWN
        say(f"另有 {more:,} 个；--json 列出全部。" if chinese else f"{more:,} more; --json shows all.")


def _often(p_value: float, *, chinese: bool) -> str:
    days = max(round(1 / p_value), 1)
    if chinese:
        return f"约每 {days:,} 天一次" if days > 1 else "平常"
    return f"about one day in {days:,}" if days > 1 else "ordinary"


def _part(part: Part) -> str:
    share = f"{part.metric} {part.share or 0:.0%}"
    if part.value is None or part.expected is None:
        return share
    return f"{share} ({part.value:,.4g} / {part.expected:,.4g})"


def _json(one: SliceOpinion) -> dict[str, Any]:
    return {
        "dimension": one.dimension,
        "member": one.member,
        "verdict": one.verdict,
        "reason_zh": one.reason_zh,
        "reason_en": one.reason_en,
        "confidence": one.confidence,
        "p_value": one.p_value,
        "metrics": [part.__dict__ for part in one.parts],
    }
