"""Judging a run: the evaluations of its window, once per process, however many assets and checks ask.

Here: which periods a run judges, rule → check, card and series for messages. Not here: how a rule is judged (`rules`),
what the verdicts do (`alerts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, time, timedelta

import pyarrow.compute as pc
from dagster import AssetKey, PartitionKeyRange
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.alerts.notice import RuleCard, Series, SeriesKey
from metrics_pipeline.library.catalogue import Metric
from metrics_pipeline.orchestration.partitions import window_of
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.orchestration.series import recent_series
from metrics_pipeline.orchestration.services import require_nightly
from metrics_pipeline.rules.evaluate import Evaluations, evaluate
from metrics_pipeline.rules.model import Rule
from metrics_pipeline.rules.past_incidents import known_incidents
from metrics_pipeline.rules.seeds import seeds_of
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import Window

JUDGED_DAYS = 35
"""The newest days of a window that are judged. Alerts need the recent past; older days are for `metrics rules replay`."""
CONFIDENTIAL = "confidential"


@dataclass(frozen=True)
class Judgement:
    """The verdicts of one run on one published version."""

    published: Published
    window: Window
    evaluations: Evaluations

    def newest(self, grain: str, until: datetime | None = None) -> Evaluations:
        """The verdicts of the last period of the window only, of rules of one grain."""
        step = timedelta(days=1) if grain == "day" else timedelta(hours=1)
        last = (until or datetime.combine(self.window.until, time())) - step
        table = self.evaluations.table
        rows = table.filter((pc.field("grain") == grain) & (pc.field("period_start") == last))
        if rows.num_rows == 0:  # hours: the newest one that is there
            of_grain = table.filter(pc.field("grain") == grain)
            if of_grain.num_rows:
                rows = of_grain.filter(pc.field("period_start") == pc.max(of_grain["period_start"]))
        return replace(self.evaluations, table=rows)


def asked_window(tags: Mapping[str, str], published: Published) -> Window:
    """The days a run was started for; without partitions the last day of the published window."""
    if (key := tags.get(PARTITION_NAME_TAG)) is not None:
        return window_of(PartitionKeyRange(key, key), tags)
    if (first := tags.get(ASSET_PARTITION_RANGE_START_TAG)) is not None:
        return window_of(PartitionKeyRange(first, tags[ASSET_PARTITION_RANGE_END_TAG]), tags)
    until = published.manifest.window.until
    return Window(until - timedelta(days=1), until)


def judge(project: Project, tags: Mapping[str, str], *, run_id: str) -> Judgement:
    """Judge all rules on the window of a run and keep the verdicts; the second call of a process costs nothing."""
    require_nightly(project.settings)
    published = Published.open(project.settings.published_dir)
    window = judged_window(project, asked_window(tags, published), published)
    key = (published.version, window, run_id)
    if project.judgements.get(key) is None:
        seeds = seeds_of(project.settings)
        evaluations = evaluate(
            published,
            project.ruleset.rules,
            window.start,
            window.until,
            evaluated_at=project.now(),
            run_id=run_id,
            zone=project.settings.zone,
            promotions=seeds.promotions,
            references=seeds.references,
            incidents=known_incidents(project.settings, window.start),
            evaluations_dir=project.settings.evaluations_dir,
        )
        project.judgements.clear()
        project.judgements[key] = Judgement(published, window, evaluations)
    found: Judgement = project.judgements[key]
    return found


def judged_window(project: Project, asked: Window, published: Published) -> Window:
    """What a run judges: the window it rebuilt, of which at most the newest `JUDGED_DAYS`."""
    rebuilt = project.window(asked)
    start = rebuilt.start
    if published.manifest.window.until == asked.until:
        start = min(start, published.manifest.window.start)
    return Window(max(start, asked.until - timedelta(days=JUDGED_DAYS)), asked.until)


def metric_of(project: Project, rule: Rule) -> Metric:
    """The metric of a rule; lint made sure that there is one."""
    return project.catalogue.metrics[rule.metric]


def asset_key_of(project: Project, rule: Rule) -> AssetKey:
    """The asset a rule's check stands on: the metric's table of the rule's grain."""
    return AssetKey(["hourly" if rule.grain == "hour" else metric_of(project, rule).layer, rule.metric])


def rule_text(rule: Rule) -> str:
    """What a rule judges, in one line."""
    return f"{rule.metric} by {'|'.join(rule.by) or 'total'}: {rule.observes}"


def thresholds_text(rule: Rule) -> str:
    """When a rule breaches, in one line."""
    parts = [f"{tier} if {bound}" for tier, bound in (("yellow", rule.yellow_if), ("red", rule.red_if)) if bound]
    if rule.hold > 1:
        parts.append(f"for {rule.hold} periods")
    if rule.min_sample is not None:
        parts.append(f"where {rule.min_sample.metric} >= {rule.min_sample.gte:g}")
    return ", ".join(parts)


def cards(project: Project) -> dict[str, RuleCard]:
    """What people are told about each rule."""
    currency = project.settings.installation.currency
    return cards_of(project.ruleset.rules, project.catalogue.metrics, currency=currency)


def series_of(project: Project, judgement: Judgement, keys: Sequence[SeriesKey]) -> dict[SeriesKey, Series]:
    """The recent past of these slices with the band and the bounds by which they were judged, night by night."""
    return recent_series(project.settings, keys, judgement.published)


def rules_by_asset(project: Project, rules: Iterable[Rule]) -> dict[AssetKey, list[Rule]]:
    """Rules by the asset their checks stand on."""
    found: dict[AssetKey, list[Rule]] = {}
    for rule in rules:
        found.setdefault(asset_key_of(project, rule), []).append(rule)
    return found
