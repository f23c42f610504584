"""Tables for the terminal: a run's summary, what is wrong with rule files, and what a replay says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from metrics_pipeline.rules.evaluate import RuleSummary
from metrics_pipeline.rules.load import Problem
from metrics_pipeline.rules.replay import Replay, RuleReplay, Score

_STYLE = {"red": "bold red", "yellow": "yellow", "ok": "green", "no_data": "dim", "unknown": "dim"}


def summary_table(summaries: Iterable[RuleSummary], title: str = "Rules") -> Table:
    """One row per rule: tier, slices by tier, the worst slice."""
    table = Table(title=title)
    for name in ("rule", "tier", "judged", "yellow", "red", "no data", "worst slice", "value", "observed"):
        table.add_column(name, justify="left" if name in ("rule", "tier", "worst slice") else "right")
    for summary in summaries:
        table.add_row(
            summary.rule,
            f"[{_STYLE[summary.tier]}]{summary.tier}[/]",
            str(summary.evaluated),
            str(summary.yellow),
            str(summary.red),
            str(summary.no_data),
            summary.worst_member or "",
            number(summary.worst_value),
            number(summary.worst_observed),
        )
    return table


def problem_table(problems: Sequence[Problem]) -> Table:
    """One row per problem: where, what, and what to do."""
    table = Table(title=f"{len(problems)} problem(s) in rule files")
    for name in ("where", "rule", "problem", "what to do"):
        table.add_column(name, overflow="fold")
    for problem in problems:
        table.add_row(f"{problem.file}:{problem.line}", problem.rule or "", problem.message, problem.mend)
    return table


def replay_tables(replay: Replay) -> list[Table]:
    """What each rule would have done; with labels also how well it was."""
    title = (
        f"Replay {replay.start:%Y-%m-%d} … {replay.until:%Y-%m-%d}: {len(replay.episodes)} episodes, "
        f"median {replay.median_messages_per_day:g} messages a day"
    )
    table = Table(title=title)
    for name in ("rule", "judged", "yellow", "red", "no data", "episodes", "a week", "messages", "worst"):
        table.add_column(name, justify="left" if name in ("rule", "worst") else "right")
    for rule in replay.rules:
        table.add_row(
            rule.rule,
            str(rule.judged),
            str(rule.yellow),
            str(rule.red),
            str(rule.no_data),
            str(rule.episodes),
            f"{rule.firings_per_week:.2f}",
            str(rule.messages),
            _worst(rule),
        )
    return [table, score_table(replay.scores)] if replay.scores else [table]


def score_table(scores: Iterable[Score]) -> Table:
    """Recall, precision and delay against labels."""
    table = Table(title="Against the labelled incidents")
    for name in ("by", "name", "found", "recall", "episodes", "precision", "on harmless events", "delay (days)"):
        table.add_column(name, justify="left" if name in ("by", "name") else "right")
    for score in scores:
        table.add_row(*score_row(score))
    return table


def score_row(score: Score) -> tuple[str, ...]:
    """By, name, found of incidents, recall, episodes, precision, those on harmless events, median delay in days."""
    return (
        score.by,
        score.name,
        f"{score.found}/{score.incidents}",
        _share(score.recall),
        str(score.episodes),
        _share(score.precision),
        str(score.harmless_episodes),
        number(score.median_delay_days),
    )


def number(value: float | None) -> str:
    """Four significant digits; empty for None."""
    return "" if value is None else f"{value:,.4g}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _worst(rule: RuleReplay) -> str:
    if rule.worst is None:
        return ""
    worst = rule.worst
    return f"{worst.worst_period:%Y-%m-%d} {worst.member} {number(worst.worst_value)}"
