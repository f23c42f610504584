"""`alerts/outbox`: verdicts → alert states and messages to send, in one transaction.

Here: which verdicts are applied, and what the run shows of it. Not here: states and notices (`alerts`), sending
(`notify`). The last step of a night: only then are the touched days forgotten, so that a night that was killed anywhere
rebuilds and judges the same days again.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg
from sqlalchemy.engine import Connection

from metrics_pipeline.alerts.apply import AppliedReport, apply_verdicts, retire_rules
from metrics_pipeline.delivery.standing import Standing, masked, receivers_of
from metrics_pipeline.orchestration.advising import Advised, advise
from metrics_pipeline.orchestration.diagnosing import diagnosed, keep_diagnoses
from metrics_pipeline.orchestration.instance import WRITER_POOL
from metrics_pipeline.orchestration.judging import Judgement, cards, judge, series_of
from metrics_pipeline.orchestration.keys import EVALUATIONS_KEY, HOURLY, OUTBOX_KEY, SILENT_TAG
from metrics_pipeline.orchestration.outbox_check import DELIVERIES, check_result, look, standing_metadata
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.rules.load import RuleSet
from metrics_pipeline.store import open_store
from metrics_pipeline.warehouse.build import connect_build
from metrics_pipeline.warehouse.extent import forget_touched_before

DAGSTER_BACKFILL_TAG = "dagster/backfill"


def build_outbox_asset(project: Project) -> dg.AssetsDefinition:
    """The asset `alerts/outbox`."""

    @dg.asset(
        key=OUTBOX_KEY,
        group_name="alerts",
        description="Alert states, episodes and the messages to send; written in one transaction, told by the outbox.",
        deps=[EVALUATIONS_KEY],
        tags={"layer": "alerts"},
        check_specs=[DELIVERIES],
        pool=WRITER_POOL,
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
    )
    def outbox(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster refuses [None] beside checks
        tags = context.run.tags
        judgement = judge(project, tags, run_id=context.run_id)
        is_hourly = tags.get("metrics/kind") == HOURLY
        silent = tags.get(SILENT_TAG) == "true" or DAGSTER_BACKFILL_TAG in tags
        explaining = Explaining(project, judgement)
        report = apply_judgement(
            project, judgement, silent=silent, run_id=context.run_id, beside=None if silent else explaining.prepared()
        )
        if not is_hourly:  # an hourly run leaves the daily tables as they were
            forget_published(project, judgement)
        found, addressed = _deliveries(project, report.notifications)
        context.instance.add_run_tags(context.run_id, {"metrics/messages": str(len(report.notifications))})
        return dg.MaterializeResult(
            metadata={
                **_metadata(report, silent=silent),
                **_advice_metadata(explaining.advised),
                **_diagnosis_metadata(project, judgement, silent=silent),
                **addressed,
                **standing_metadata(found),
            },
            check_results=[check_result(found)],
        )

    return outbox


class Explaining:
    """Causes of and advice on the alerts of a run, written with them: a message sent at once tells them already."""

    def __init__(self, project: Project, judgement: Judgement) -> None:
        self.advised = Advised()
        self._project = project
        self._judgement = judgement

    def prepared(self) -> Callable[[Connection], None]:
        """What writes them. The search for causes is done here, before a transaction begins."""
        diagnosed(self._project, self._judgement)
        return self._write

    def _write(self, connection: Connection) -> None:
        causes = keep_diagnoses(connection, self._project, self._judgement, cards(self._project))
        self.advised = advise(connection, self._project, causes)


def apply_judgement(
    project: Project,
    judgement: Judgement,
    *,
    silent: bool,
    run_id: str = "",
    beside: Callable[[Connection], object] | None = None,
) -> AppliedReport:
    """Apply the verdicts of a run to the alerts; a second time changes nothing. `beside`: as of `apply_verdicts`."""
    now = project.now()
    routing = routing_of(project.settings)
    store = open_store(project.settings)
    try:
        if (rules := rules_there_are(project.ruleset)) is not None:
            retire_rules(store, rules, now=now, run_id=run_id, receivers=routing)
        return apply_verdicts(
            store,
            judgement.evaluations.table,
            cards(project),
            receivers=routing,
            now=now,
            silent=silent,
            series=lambda keys: series_of(project, judgement, keys),
            beside=beside,
        )
    finally:
        store.close()


def rules_there_are(ruleset: RuleSet) -> set[str] | None:
    """Ids of all rules, those with a problem included: a typo ends no alert. None when a file cannot be read."""
    if any(problem.rule is None for problem in ruleset.problems):
        return None
    return {rule.id for rule in ruleset.rules} | {problem.rule for problem in ruleset.problems if problem.rule}


def forget_published(project: Project, judgement: Judgement) -> None:
    """Forget the touched days that this run published and judged."""
    with connect_build(project.settings.build_path) as con:
        forget_touched_before(con, judgement.window.until, judgement.published.created_at)


def _deliveries(project: Project, keys: Sequence[str]) -> tuple[Standing, dict[str, Any]]:
    """How deliveries stand before these messages are sent, and for whom they are, as metadata."""
    store = open_store(project.settings)
    try:
        with store.reading() as connection:
            receivers = receivers_of(connection, keys)
        found = look(store, now=project.now())
    finally:
        store.close()
    by_channel = Counter(receiver.partition(":")[0] for receiver in receivers)
    by_receiver = Counter(masked(receiver) for receiver in receivers)
    return found, {
        "messages_by_channel": dg.MetadataValue.json(dict(sorted(by_channel.items()))),
        "messages_by_receiver": dg.MetadataValue.json(dict(sorted(by_receiver.items()))),
    }


def _diagnosis_metadata(project: Project, judgement: Judgement, *, silent: bool) -> dict[str, Any]:
    if silent:
        return {}
    found = diagnosed(project, judgement)
    reasons = Counter(found.reasons.values())
    told = "\n".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
    return {
        "diagnoses": len(found.diagnoses),
        "diagnoses_cpu_seconds": found.cpu_seconds,
        **({"without_diagnosis": told} if told else {}),
    }


def _advice_metadata(advised: Advised) -> dict[str, Any]:
    wrong = {"advice_problems": "\n".join(advised.problems)} if advised.problems else {}
    return {"advised": len(advised.episodes), **wrong}


def _metadata(report: AppliedReport, *, silent: bool) -> dict[str, Any]:
    return {
        "verdicts": report.verdicts,
        "applied": report.applied,
        "repeated": report.repeated,
        "opened": report.opened,
        "closed": report.closed,
        "work_orders": len(report.orders),
        "firing_red": report.firing.get("red", 0),
        "firing_yellow": report.firing.get("yellow", 0),
        "messages": len(report.notifications),
        "silent": silent,
        "transitions": dg.MetadataValue.json(dict(report.transitions)),
    }
