"""How well the shipped rules serve a shop whose incidents are known: simulated years, built and replayed by the product.

Each year is simulated with a seed that no rule was tuned on, loaded, backfilled and replayed with its labels. What
belongs together is said in `metrics_pipeline/rules/replay.py`. A recall over few incidents is a rough figure, so the
years are pooled, and the counts stand beside it.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import Stopwatch, measure_call, measure_command
from benchmarks.table import Benchmark, Table
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.rules.replay import Replay, Score, read_labels, replay
from metrics_pipeline.rules.seeds import seeds_of
from metrics_pipeline.settings import Settings, load_settings
from metrics_pipeline.sources.simulator import simulate
from metrics_pipeline.warehouse.read import Published

SEEDS = (101, 202, 303)
SCALE = 0.5
DAYS = 400
UNTIL = date(2026, 11, 21)
QUIET_DAYS = 60
"""Days at the beginning without labels."""
NIGHTLY_ONLY = "late_load"
"""A replay sees what arrived in the end; that rows were late shows only in the night itself."""


def run(folder: Path, repeat: int) -> Table:
    """Simulate, build and replay every seed once (`repeat` is not used: the answer does not vary)."""
    del repeat
    years = [_year(folder / str(seed), seed) for seed in SEEDS]
    lines = [_line("all", "all", years)]
    lines += [_line("scenario", name, years) for name in _names("scenario", years)]
    lines += [_line("kind", name, years) for name in _names("kind", years)]
    per_day = [messages for year in years for messages in year["messages"]]
    quiet = [messages for year in years for messages in year["quiet"]]
    busy = sum(1 for messages in per_day if messages)
    whole = [_pooled("all", "all", [year]) for year in years]
    by_seed = ", ".join(
        f"{seed}: {_share(found, asked)} and {_share(true, episodes)}"
        for seed, (asked, found, episodes, true, _) in zip(SEEDS, whole, strict=True)
    )
    harmless = sum(int(year["harmless"]) for year in years)
    false = sum(int(year["false"]) for year in years)
    return Table(
        ("", "incidents", "found", "recall", "alerts", "precision", "median delay, days"),
        lines,
        f"Recall and precision by seed: {by_seed}. Messages: mean {statistics.mean(per_day):.2f} a day, median "
        f"{statistics.median(per_day):g}, at most {max(per_day)}; {busy / len(per_day):.0%} of the days have one. In the "
        f"{QUIET_DAYS} days without incidents at the beginning (a 双十一 among them) {statistics.mean(quiet):.2f} a day. "
        f"{harmless} of the {false} false alerts fall within a promotion or a holiday. `{NIGHTLY_ONLY}` is not counted: "
        "late rows show in nightly runs only, as data that is not there yet. A best seller that came close to nothing and "
        "got its delivery in time counts as false, and a planned `stock_out` of a SKU that sells less than the rule asks "
        "for (20 a day, twice as rare in a shop of half the size) as missed.",
    )


def build(watch: Stopwatch, home: str, seed: int) -> None:
    """Simulate one year into the home."""
    with watch:
        simulate(Path(home) / "sources" / "simulator", seed=seed, scale=SCALE, days=DAYS, until=UNTIL)


def score(watch: Stopwatch, home: str) -> dict[str, Any]:
    """Replay the home's rules with its labels."""
    os.environ["METRICS_HOME"] = home
    settings = load_settings()
    first = UNTIL - timedelta(days=DAYS - 1)
    with watch:
        quiet = _replay(settings, first, first + timedelta(days=QUIET_DAYS), ())
        labels = [
            label
            for label in read_labels(settings.source_dir / "labels.jsonl")
            if label.is_harmless or label.kind != NIGHTLY_ONLY
        ]
        result = _replay(settings, first + timedelta(days=QUIET_DAYS), UNTIL + timedelta(days=1), labels)
    whole = next(one for one in result.scores if one.by == "all")
    return {
        "scores": [_plain(one) for one in result.scores if one.by != "rule"],
        "messages": list(result.messages_per_day.values()),
        "quiet": list(quiet.messages_per_day.values()),
        "harmless": whole.harmless_episodes,
        "false": whole.episodes - whole.true_episodes,
    }


def _year(home: Path, seed: int) -> dict[str, Any]:
    print(f"seed {seed}: simulating, building, replaying", file=sys.stderr)
    environment = {"METRICS_HOME": str(home), "METRICS_SKU_DAYS": str(DAYS)}
    metrics = str(Path(sys.executable).parent / "metrics")
    measure_call("benchmarks.incidents:build", home=str(home), seed=seed)
    measure_command([metrics, "load", "simulator"], environment=environment)
    measure_command([metrics, "backfill"], environment=environment)
    return dict(measure_call("benchmarks.incidents:score", home=str(home)).figures)


def _replay(settings: Settings, start: date, until: date, labels: Sequence[Any]) -> Replay:
    ruleset = load_rules(settings.rules_dir, Catalogue.read(settings.dbt_project_dir))
    promotions = seeds_of(settings).promotions
    published = Published.open(settings.published_dir)
    return replay(published, ruleset.rules, start, until, promotions=promotions, labels=labels)


def _plain(one: Score) -> dict[str, Any]:
    return {
        "by": one.by,
        "name": one.name,
        "incidents": one.incidents,
        "found": one.found,
        "episodes": one.episodes,
        "true": one.true_episodes,
        "delays": list(one.delays),
    }


def _names(by: str, years: Iterable[dict[str, Any]]) -> list[str]:
    """What any year has a score for and was asked for, sorted."""
    return sorted(
        {
            score["name"]
            for year in years
            for score in year["scores"]
            if score["by"] == by and (score["incidents"] or score["episodes"])
        }
    )


def _pooled(by: str, name: str, years: Iterable[dict[str, Any]]) -> tuple[int, int, int, int, list[int]]:
    mine = [score for year in years for score in year["scores"] if (score["by"], score["name"]) == (by, name)]
    total = {key: sum(int(score[key]) for score in mine) for key in ("incidents", "found", "episodes", "true")}
    delays = [delay for score in mine for delay in score["delays"]]
    return total["incidents"], total["found"], total["episodes"], total["true"], delays


def _line(by: str, name: str, years: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    asked, found, episodes, true, delays = _pooled(by, name, years)
    label = f"**{name}**" if by == "all" else f"{by} {name}"
    return (
        label,
        str(asked) if asked else "–",
        str(found) if asked else "–",
        _share(found, asked),
        str(episodes) if by != "kind" else "–",
        _share(true, episodes),
        f"{statistics.median(delays):g}" if delays else "–",
    )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "–"


BENCHMARK = Benchmark(
    "incidents",
    "Finding known incidents",
    f"The shipped rules on {len(SEEDS)} simulated years (seeds {', '.join(map(str, SEEDS))}, 202 and 303 never looked at while rules were tuned; scale "
    f"{SCALE:g}, {DAYS} days), scored from day {QUIET_DAYS} on. Precision counts alerts, one slice from first breach to last; a scenario is "
    "served by its own rules, a kind by all of them.",
    run,
)
