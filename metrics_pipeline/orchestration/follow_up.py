"""What follows alerts, once a week: `followup/proposals` (heavy: it replays rules) and `followup/retrospective` (light: the store alone).

Here: two assets, their jobs and schedules. Not here: how a proposal is made or a retrospective written (`followup`). Nothing
heavy is imported before an asset runs.
"""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from metrics_pipeline.orchestration.keys import PROPOSALS, PROPOSALS_KEY, RETROSPECTIVE, RETROSPECTIVE_KEY, WEEK_TAG
from metrics_pipeline.settings import Settings

if TYPE_CHECKING:
    from metrics_pipeline.orchestration.resources import Project

PROPOSALS_CRON = "30 7 * * 1"
RETROSPECTIVE_CRON = "0 8 * * 1"
"""Monday mornings, after the night of Sunday: first what the answers suggest, then the page that shows it."""
SERVICE = "metrics"
"""Who proposes when nobody does."""


def build_proposals_asset(project: "Project") -> dg.AssetsDefinition:
    """The asset `followup/proposals`: changes of rules that answers suggest, and effects of accepted ones, in the store."""

    @dg.asset(
        key=PROPOSALS_KEY,
        group_name="followup",
        description="反馈得出的规则修改建议与已采纳修改的效果。Changes of rules that answers suggest, each with what it would have "
        "changed; effects of accepted ones. A person decides: metrics proposals.",
        tags={"layer": "followup"},
    )
    def proposals(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from metrics_pipeline.followup.effect import measure_all
        from metrics_pipeline.followup.proposals import make
        from metrics_pipeline.followup.retrospective import sight_of_records
        from metrics_pipeline.library.proposals import Actor
        from metrics_pipeline.store import open_store
        from metrics_pipeline.store import rule_proposals as rows
        from metrics_pipeline.store.audit import Caller

        store, now = open_store(project.settings), project.now()
        try:
            ground = _ground(project)
            with store.reading() as connection:
                sight = sight_of_records(connection, now=now)
            made = make(store, ground, sight, Actor(Caller(SERVICE, "dagster"), now))
            measured = measure_all(store, ground, sight)
            with store.reading() as connection:
                waiting = rows.read(connection, states=["proposed"])
        finally:
            store.close()
        table = dg.MetadataValue.table(
            [
                dg.TableRecord({"number": row.id, "rule": row.rule, "kind": row.kind, "since": f"{row.at:%Y-%m-%d}"})
                for row in waiting
            ],
            schema=dg.TableSchema(
                [
                    dg.TableColumn("number", "int"),
                    *(dg.TableColumn(name, "string") for name in ("rule", "kind", "since")),
                ]
            ),
        )
        return dg.MaterializeResult(
            metadata={
                "proposed": len(made.fresh),
                "superseded": len(made.superseded),
                "rules_with_answers": made.looked_at,
                "measured": len(measured),
                "waiting": table,
            }
        )

    return proposals


def build_proposals_schedule(settings: Settings) -> list[Any]:
    """The job of `followup/proposals` and its schedule."""
    return _every_week(
        settings,
        PROPOSALS,
        PROPOSALS_KEY,
        PROPOSALS_CRON,
        "Look at what people said of alerts, and write down which changes of rules that suggests.",
        "Monday 07:30 shop time.",
        lambda at: dg.RunRequest(run_key=f"{at:%Y-%m-%d}"),
    )


def build_retrospective_asset(settings: Settings) -> dg.AssetsDefinition:
    """The asset `followup/retrospective`: last week's page, in `<home>/retrospectives`."""

    @dg.asset(
        key=RETROSPECTIVE_KEY,
        group_name="followup",
        deps=[PROPOSALS_KEY],
        description="每周报警复盘页面。The weekly retrospective: what happened, who was told, what came of it, how good the rules are.",
        tags={"layer": "followup"},
    )
    def retrospective(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        from metrics_pipeline.followup.page import Paper, week_html, week_markdown
        from metrics_pipeline.followup.retrospective import parse_week

        now = datetime.now(settings.zone)
        week = parse_week(context.run.tags[WEEK_TAG]) if WEEK_TAG in context.run.tags else last_week(now.date())
        look = _look(settings, week, now)
        paper = Paper(settings.locale, settings.zone, settings.installation.currency)
        folder = settings.home / "retrospectives"
        page, text = folder / f"{week.name}.html", week_markdown(look, paper)
        _write(page, week_html(look, paper))
        _write(page.with_suffix(".md"), text)
        return dg.MaterializeResult(
            metadata={
                "week": week.name,
                "alerts": look.figures.alerts,
                "incidents": look.figures.cases,
                "answered": look.figures.answered,
                "unneeded": look.figures.unneeded,
                "proposals_waiting": sum(row.state == "proposed" for row in look.proposals),
                "page": dg.MetadataValue.path(page),
                "retrospective": dg.MetadataValue.md(text),
            }
        )

    return retrospective


def build_retrospective_schedule(settings: Settings) -> list[Any]:
    """The job of `followup/retrospective` and its schedule."""

    def request(at: datetime) -> dg.RunRequest:
        week = last_week(at.astimezone(settings.zone).date())
        return dg.RunRequest(run_key=week.name, tags={WEEK_TAG: week.name})

    return _every_week(
        settings,
        RETROSPECTIVE,
        RETROSPECTIVE_KEY,
        RETROSPECTIVE_CRON,
        "Write last week's retrospective.",
        "Monday 08:00 shop time: the week that ended.",
        request,
    )


def _every_week(  # noqa: PLR0917
    settings: Settings,
    name: str,
    key: dg.AssetKey,
    cron: str,
    description: str,
    when: str,
    request: Callable[[datetime], dg.RunRequest],
) -> list[Any]:
    """A job over one asset, and the schedule that runs it once a week. `request`: the run of a scheduled time."""
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(key),
        executor_def=dg.in_process_executor,
        description=description,
        tags={"metrics/kind": name},
    )

    @dg.schedule(
        name=f"{key.path[-1]}_every_week",
        cron_schedule=cron,
        job=job,
        execution_timezone=settings.installation.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=when,
    )
    def every_week(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return request(context.scheduled_execution_time)

    return [every_week]


def last_week(day: date) -> Any:
    """The ISO week before the one a day lies in."""
    from metrics_pipeline.followup.retrospective import week_of

    return week_of(day - timedelta(days=7))


def _look(settings: Settings, week: Any, now: datetime) -> Any:
    from metrics_pipeline.followup.quality import addresses
    from metrics_pipeline.followup.retrospective import look_at_week, sight_of_records
    from metrics_pipeline.routing.load import routing_of
    from metrics_pipeline.store import open_store

    store = open_store(settings)
    try:
        with store.reading() as connection:
            sight = sight_of_records(connection, now=now)
        people = addresses(routing_of(settings))
        return look_at_week(store, sight, week, zone=settings.zone, people=people, now=now)
    finally:
        store.close()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, "utf-8")
    part.replace(path)


def _ground(project: "Project") -> Any:
    from metrics_pipeline.followup.proposals import Ground
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.replay import read_labels
    from metrics_pipeline.rules.seeds import seeds_of
    from metrics_pipeline.warehouse.read import Published

    settings = project.settings
    known = settings.source_dir / "labels.jsonl"
    is_simulated = settings.installation.source == "simulator" and known.exists()
    return Ground(
        settings.rules_dir,
        Catalogue.read(settings.dbt_project_dir),
        seeds_of(settings),
        Published.open(settings.published_dir),
        settings.zone,
        read_labels(known) if is_simulated else (),
    )
