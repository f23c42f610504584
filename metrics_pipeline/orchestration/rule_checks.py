"""Alert rules as asset checks: `rules/evaluations` judges, then every rule is one check on its metric.

Here: the evaluations asset, the checks and what their pages show. Not here: how a rule is judged (`rules.evaluate`), what
follows from a breach (`alert_assets`). A rule check never blocks: a breached metric is still a right metric.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import dagster as dg

from metrics_pipeline.alerts.notice import Series, SeriesKey, check_page
from metrics_pipeline.alerts.words import Locale
from metrics_pipeline.diagnosis.attach import Red
from metrics_pipeline.diagnosis.pyramid import NONE as NO_PYRAMID
from metrics_pipeline.diagnosis.words import Wording
from metrics_pipeline.orchestration.advising import advice_on_rules
from metrics_pipeline.orchestration.diagnosing import diagnosed, names
from metrics_pipeline.orchestration.judging import (
    CONFIDENTIAL,
    Judgement,
    asset_key_of,
    judge,
    metric_of,
    rule_text,
    rules_by_asset,
    series_of,
    thresholds_text,
)
from metrics_pipeline.orchestration.keys import EVALUATIONS_KEY, PUBLISHED_HOURLY_KEY, PUBLISHED_KEY
from metrics_pipeline.orchestration.resources import Project
from metrics_pipeline.rules.evaluate import Evaluations, RuleSummary
from metrics_pipeline.rules.model import Grain, Rule
from metrics_pipeline.store import open_store
from metrics_pipeline.store.metric_versions import version_names

CHECK_PER_RULE_LIMIT = 200
"""More rules than this share checks, one per metric and tier: a check costs 20 ms and 10 KiB of event log."""
LOCALES: tuple[Locale, ...] = ("zh", "en")
WORST_SLICES = 20
BREACHES = ("yellow", "red")


def build_evaluations_asset(project: Project) -> dg.AssetsDefinition:
    """`rules/evaluations`: every verdict of every rule on every slice, kept as Parquet."""

    @dg.asset(
        key=EVALUATIONS_KEY,
        group_name="rules",
        description="Every verdict of every rule on every slice: one SQL statement over the published values.",
        deps=[PUBLISHED_KEY, PUBLISHED_HOURLY_KEY],
        tags={"layer": "rules"},
        kinds={"duckdb", "parquet"},
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5),
    )
    def evaluations(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        judgement = judge(project, context.run.tags, run_id=context.run_id)
        summaries = judgement.evaluations.summary()
        for problem in project.ruleset.problems:
            context.log.warning(f"rule left out: {problem}")
        tiers = [summary.tier for summary in summaries]
        return dg.MaterializeResult(
            metadata={
                "rules": len(summaries),
                "verdicts": judgement.evaluations.rows,
                "rules_red": tiers.count("red"),
                "rules_yellow": tiers.count("yellow"),
                "rules_left_out": len(project.ruleset.problems),
                "left_out": "\n".join(str(problem) for problem in project.ruleset.problems) or "none",
                "window": f"{judgement.window.start} … {judgement.window.until} (exclusive)",
                "published_version": judgement.published.version,
                "errors": len(judgement.evaluations.errors),
                "sql": dg.MetadataValue.md(f"```sql\n{judgement.evaluations.sql}\n```"),
            }
        )

    return evaluations


def build_rule_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """One check per rule, or per metric and tier past `CHECK_PER_RULE_LIMIT`; () when there are no rules."""
    rules = project.ruleset.rules
    if not rules:
        return []
    grouped = check_groups(project, rules)

    @dg.multi_asset_check(
        name="rule_checks",
        specs=[_spec(project, key, group) for key, group in grouped.items()],
        can_subset=True,
    )
    def rule_checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        run = context.run
        judgement = judge(project, run.tags, run_id=run.run_id)
        newest = {grain: judgement.newest(grain) for grain in {rule.grain for rule in rules}}
        judged_by = _judged_by(project, newest.values())
        advice = advice_on_rules(project, newest.values(), diagnosed(project, judgement).diagnoses)
        summaries = {(grain, summary.rule): summary for grain, found in newest.items() for summary in found.summary()}
        keys = sorted(context.selected_asset_check_keys, key=lambda one: (one.asset_key.path, one.name))
        shown = {key: max(grouped[key], key=lambda rule: _rank(summaries[rule.grain, rule.id])) for key in keys}
        plotted = _plotted(
            project, judgement, [(rule, summaries[rule.grain, rule.id]) for rule in shown.values()], newest
        )
        for key, rule in shown.items():
            found = _Found(
                project,
                rule,
                grouped[key],
                summaries[rule.grain, rule.id],
                newest[rule.grain],
                judgement,
                judged_by,
                advice.get(rule.id, ()),
                plotted.get(rule.id),
            )
            yield _result(key, found)

    return [rule_checks]


def check_groups(project: Project, rules: Sequence[Rule]) -> dict[dg.AssetCheckKey, tuple[Rule, ...]]:
    """Check → the rules it stands for."""
    if len(rules) <= CHECK_PER_RULE_LIMIT:
        return {dg.AssetCheckKey(asset_key_of(project, rule), rule.id): (rule,) for rule in rules}
    found = {}
    for asset_key, of_metric in rules_by_asset(project, rules).items():
        for tier in BREACHES:
            with_tier = tuple(rule for rule in of_metric if getattr(rule, f"{tier}_if") is not None)
            if with_tier:
                found[dg.AssetCheckKey(asset_key, f"rules_{tier}")] = with_tier
    return found


def _spec(project: Project, key: dg.AssetCheckKey, group: Sequence[Rule]) -> dg.AssetCheckSpec:
    first = group[0]
    if len(group) == 1:
        description = f"{first.annotations.summary_zh} {first.annotations.summary} — {first.why}"
        metadata = {
            "rule": rule_text(first),
            "thresholds": thresholds_text(first),
            "owner": first.owner,
            "scenario": first.scenario,
        }
    else:
        description = f"{len(group)} rules on {first.metric}."
        metadata = {"rules": ", ".join(rule.id for rule in group)}
    return dg.AssetCheckSpec(
        key.name,
        asset=key.asset_key,
        description=description,
        additional_deps=[EVALUATIONS_KEY],
        metadata=metadata,
    )


def _rank(summary: RuleSummary) -> tuple[int, int]:
    order = {"red": 3, "yellow": 2, "no_data": 1}
    return order.get(summary.tier, 0), summary.red + summary.yellow


class _Plotted(NamedTuple):
    """A slice as a plot shows it."""

    key: SeriesKey
    tier: str
    series: Series


@dataclass(frozen=True)
class _Found:
    """What one check shows: its worst rule, and what the run says of it."""

    project: Project
    rule: Rule
    group: Sequence[Rule]
    """All rules the check stands for."""
    summary: RuleSummary
    newest: Evaluations
    """Verdicts of the newest period only."""
    judgement: Judgement
    judged_by: Mapping[str, str]
    """Rule → the versions of its metric that it judged by."""
    advice: Sequence[tuple[str, str]] = ()
    """On its worst slice, Chinese and English, the best first."""
    plotted: _Plotted | None = None
    """Its worst slice; None = nothing breached, or nobody may see it."""


def _plotted(
    project: Project,
    judgement: Judgement,
    shown: Iterable[tuple[Rule, RuleSummary]],
    newest: Mapping[Grain, Evaluations],
) -> dict[str, _Plotted]:
    """Rule → its worst slice, of the rules that breached; all of them read at once."""
    worst: dict[str, tuple[SeriesKey, str]] = {}
    for rule, summary in shown:
        if not summary.yellow + summary.red or _is_hidden(project, rule):
            continue
        row = newest[rule.grain].worst(rule.id, 1).iloc[0]
        period = row["period_start"].to_pydatetime()
        key = SeriesKey(rule.id, rule.metric, str(row["dimension"]), str(row["member"]), rule.grain, period)
        worst[rule.id] = key, str(row["tier"])
    series = series_of(project, judgement, [key for key, _ in worst.values()])
    return {rule: _Plotted(key, tier, series[key]) for rule, (key, tier) in worst.items() if key in series}


def _judged_by(project: Project, newest: Iterable[Evaluations]) -> dict[str, str]:
    """Rule → the versions of its metric by which it judged these periods: `v2 (e671cb775810)`."""
    pairs = [
        (str(row["rule"]), str(row["metric_version"]))
        for one in newest
        for row in one.table.group_by(["rule", "metric_version"]).aggregate([]).to_pylist()
        if row["metric_version"]
    ]
    store = open_store(project.settings)
    try:
        with store.reading() as connection:
            names = version_names(connection, {version for _, version in pairs})
    finally:
        store.close()
    found: dict[str, list[str]] = {}
    for rule, version in pairs:
        found.setdefault(rule, []).append(names[version])
    return {rule: ", ".join(versions) for rule, versions in found.items()}


def _result(key: dg.AssetCheckKey, found: _Found) -> dg.AssetCheckResult:
    rule, summary = found.rule, found.summary
    tier = summary.tier
    if key.name == "rules_yellow" and tier == "red":
        tier = "yellow"
    if key.name == "rules_red" and tier == "yellow":
        tier = "ok"
    is_error = summary.error is not None
    return dg.AssetCheckResult(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=tier in ("ok", "unknown") and not is_error,
        severity=dg.AssetCheckSeverity.ERROR if tier == "red" else dg.AssetCheckSeverity.WARN,
        description=_sentence(rule, summary, tier, is_hidden=_is_hidden(found.project, rule)),
        metadata=_metadata(found),
    )


def _is_hidden(project: Project, rule: Rule) -> bool:
    """Whether a page that everybody sees may not tell the values of a rule's metric, nor which of them is worse."""
    return metric_of(project, rule).sensitivity == CONFIDENTIAL


def _sentence(rule: Rule, summary: RuleSummary, tier: str, *, is_hidden: bool) -> str:
    if summary.error is not None:
        return f"could not be judged: {summary.error}"
    match tier:
        case "red" | "yellow":
            breached = summary.red + summary.yellow
            worst = "" if is_hidden else f"; worst {summary.worst_member}"
            return (
                f"{tier}: {breached} of {summary.evaluated} slices{worst}. "
                f"{rule.annotations.summary_zh} {rule.annotations.summary}"
            )
        case "no_data":
            return f"no data: {summary.no_data} slices without a value that was due"
        case "unknown":
            return "not judged: the metric is absent here, or nothing is due yet"
        case _:
            return f"ok: {summary.evaluated} slices"


def _metadata(found: _Found) -> dict[str, Any]:
    project, rule, group, summary = found.project, found.rule, found.group, found.summary
    newest, judgement = found.newest, found.judgement
    is_hidden = _is_hidden(project, rule)
    breached = summary.yellow + summary.red
    metadata: dict[str, Any] = {}
    if found.plotted is not None and found.plotted.series.points:
        metadata["plot"] = dg.MetadataValue.md(_plot(project, rule, found.plotted))
    metadata |= {
        "evaluated": summary.evaluated,
        "breached": breached,
        "red": summary.red,
        "yellow": summary.yellow,
        "no_data": summary.no_data,
    }
    if summary.worst_value is not None and not is_hidden and math.isfinite(summary.worst_value):
        metadata["worst_value"] = float(summary.worst_value)
    if summary.worst_member is not None and not is_hidden:
        metadata["worst_slice"] = f"{rule.dimension}={summary.worst_member}"
    if breached:
        name = "breached_slices" if is_hidden else "worst_slices"
        metadata[name] = _breached_table(rule, newest, is_hidden=is_hidden)
    if breached and found.advice:  # as text, which the page shows at once; Markdown is a click away
        metadata["advice"], metadata["advice_en"] = found.advice[0]
        if len(found.advice) > 1:
            listed = "\n".join(f"{number}. {zh}<br>{en}" for number, (zh, en) in enumerate(found.advice, 1))
            metadata["advice_more"] = dg.MetadataValue.md(listed)
    if breached and not is_hidden and summary.tier == "red":
        metadata |= _cause_metadata(project, rule, newest, judgement)
    metadata["rule"] = rule_text(rule)
    metadata["thresholds"] = thresholds_text(rule)
    metadata["link"] = dg.MetadataValue.url(check_url(project, rule))
    metadata["owner"] = rule.owner
    if rule.annotations.runbook:
        metadata["runbook"] = rule.annotations.runbook
    if rule.file is not None:
        metadata["rule_file"] = f"{rule.file.name}:{rule.line}"
    if len(group) > 1:
        metadata["rules"] = ", ".join(one.id for one in group)
    if rule.id in found.judged_by:
        metadata["definition_version"] = found.judged_by[rule.id]
    metadata["published_version"] = judgement.published.version
    metadata["sql"] = dg.MetadataValue.md(f"```sql\n{_sql(project, rule, judgement)}\n```")
    return metadata


def _cause_metadata(project: Project, rule: Rule, newest: Evaluations, judgement: Judgement) -> dict[str, Any]:
    """Why the worst diagnosed red slice of the rule is what it is: text, picture, table of causes; or why that is not known."""
    from metrics_pipeline.delivery.cause_plot import CausePlot

    found = diagnosed(project, judgement)
    for row in newest.worst(rule.id, WORST_SLICES).to_dict("records"):
        if str(row["tier"]) != "red":
            continue
        red = Red(
            rule.metric, str(row["dimension"]), str(row["member"]), rule.grain, row["period_start"].to_pydatetime()
        )
        diagnosis = found.diagnoses.get(red)
        if diagnosis is None:
            continue
        known = {
            name: one
            for name, one in names(project).items()
            if project.catalogue.metrics[name].sensitivity != CONFIDENTIAL
        }
        if any(name not in known for step in diagnosis.pyramid.steps for name in step.metric.split("/")):
            diagnosis = replace(diagnosis, pyramid=NO_PYRAMID)
        diagnosis = replace(diagnosis, controls=tuple(one for one in diagnosis.controls if one.metric in known))
        told = {locale: Wording(diagnosis, known, locale) for locale in LOCALES}
        rows = [dg.TableRecord({"cause": one.element, "share": round(one.share, 4), "observed": _plain(one.observed),
                                "expected": _plain(one.expected)}) for one in diagnosis.causes]  # fmt: skip
        columns = [
            dg.TableColumn("cause", "string"),
            *(dg.TableColumn(name, "float") for name in ("share", "observed", "expected")),
        ]
        lines = {"cause": told["zh"].line(), "cause_en": told["en"].line()}
        return {
            **{name: line for name, line in lines.items() if line},
            **(
                {
                    "cause_plot": dg.MetadataValue.md(CausePlot(told["zh"]).markdown()),
                    "causes": dg.MetadataValue.table(rows, schema=dg.TableSchema(columns)),
                }
                if rows
                else {}
            ),
            "cause_details": dg.MetadataValue.md("\n\n---\n\n".join(map(_listed, told.values()))),
        }
    reasons = [reason for red, reason in found.reasons.items() if red.metric == rule.metric]
    return {"cause": reasons[0]} if reasons else {}


def _listed(told: Wording) -> str:
    """The rows of a diagnosis as Markdown: a label with one text in a line, with several as a list below it."""
    groups: list[tuple[str, list[str]]] = []
    for label, text in told.rows():
        if label:
            groups.append((label, []))
        groups[-1][1].append(text)
    return "\n".join(
        f"- **{label}** {texts[0]}" + "".join(f"\n    - {text}" for text in texts[1:]) for label, texts in groups
    )


def check_url(project: Project, rule: Rule) -> str:
    """The page of a rule's check in the UI; one link beside the table, because a column of links is wider than a page."""
    return check_page(project.settings.ui_url, asset_key_of(project, rule).path, rule.id)


def _breached_table(rule: Rule, newest: Evaluations, *, is_hidden: bool) -> dg.MetadataValue[Any]:
    """The worst slices; of a confidential metric the first by tier and name, without numbers: an order tells which is worse."""
    numbers = () if is_hidden else ("value", "observed", "baseline", "yellow_bound", "red_bound")
    records = []
    worst = newest.worst(rule.id, max(newest.rows, 1) if is_hidden else WORST_SLICES)
    breached = worst[worst["tier"].isin(BREACHES)]
    if is_hidden:
        breached = breached.sort_values(["tier", "member"]).head(WORST_SLICES)
    for row in breached.to_dict("records"):
        records.append(
            dg.TableRecord(
                {
                    "slice": str(row["member"]),
                    "tier": str(row["tier"]),
                    **{name: _plain(row[name]) for name in numbers},
                    "owner": rule.owner,
                }
            )
        )
    columns = [
        dg.TableColumn("slice", "string"),
        dg.TableColumn("tier", "string"),
        *(dg.TableColumn(name, "float") for name in numbers),
        dg.TableColumn("owner", "string"),
    ]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def _plain(value: Any) -> float | str:
    """A number of five significant digits, or nothing: tables take no null."""
    if value is None or math.isnan(value):
        return ""
    return float(f"{float(value):.5g}")


def _plot(project: Project, rule: Rule, plotted: _Plotted) -> str:
    from metrics_pipeline.delivery.plots import Plot

    key, tier, series = plotted
    metric = metric_of(project, rule)
    slice_ = "" if rule.dimension == "all" else f" · {key.member}"
    unit = project.settings.installation.currency if metric.unit == "currency" else metric.unit
    return Plot(
        series=series,
        title=f"{metric.name_zh} {metric.name_en}{slice_}",
        ascii_title=metric.id,
        unit=unit,
        tier=tier,
        alt=f"{metric.id}{slice_}: {len(series.points)} periods up to {key.until:%Y-%m-%d %H:%M}",
    ).markdown()


def _sql(project: Project, rule: Rule, judgement: Judgement) -> str:
    """How to see every slice of this check again; the statement that judged is on `rules/evaluations`."""
    last = judgement.window.until
    return (
        f"SELECT member, period_start, value, observed, baseline, yellow_bound, red_bound, tier, reason\n"
        f"FROM read_parquet('{project.settings.evaluations_dir}/month=*/*.parquet')\n"
        f"WHERE rule = '{rule.id}' AND period_start < TIMESTAMP '{last} 00:00:00'\n"
        f"  AND data_version = '{judgement.published.version}'\n"
        f"ORDER BY period_start DESC, tier = 'red' DESC, tier = 'yellow' DESC, member"
    )
