"""`metrics rules`: check rule files, show a rule with where its keys come from, test rules, try them on history.

`app` hangs it up; nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metrics_pipeline.cli.door import CliDoor, opened_door, require_authors
from metrics_pipeline.cli.output import (
    PROBLEM,
    JsonOption,
    fail,
    in_order,
    nearest,
    parse_day,
    print_json,
    print_table,
    steps,
    usage,
)
from metrics_pipeline.settings import PROJECT_ROOT, Settings, load_settings

if TYPE_CHECKING:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.load import Problem, RuleSet
    from metrics_pipeline.rules.model import Rule
    from metrics_pipeline.rules.replay import Replay
    from metrics_pipeline.rules.seeds import Seeds

app = typer.Typer(
    no_args_is_help=True,
    help="Alert rules: check them, test them, try them on history.",
    epilog="Examples: [bold]metrics rules lint[/bold] · [bold]metrics rules replay --from 2026-06-01 --to 2026-11-20[/bold]",
)


@app.command("lint", epilog="Examples: [bold]metrics rules lint[/bold] · [bold]metrics rules lint my_rules/[/bold]")
def rules_lint(
    directory: Annotated[Path | None, typer.Argument(help="Folder of rule files; default: the installation's.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check every rule file and the tests beside it, the routes, the people, the playbook; print all problems at once."""
    from metrics_pipeline.advice.load import load_playbook
    from metrics_pipeline.routing.load import PEOPLE_FILE, routing_of
    from metrics_pipeline.rule_tests.load import find_test_files, load_tests
    from metrics_pipeline.rule_tests.night import STEPS

    settings = load_settings()
    require_authors(settings)
    folder = (directory or settings.rules_dir).resolve()
    found, catalogue, _ = _loaded(settings, folder)
    chosen = settings.model_copy(update={"rules_dir": folder})
    routing = routing_of(chosen, rules=found.rules, metrics=catalogue.metrics)
    playbook = load_playbook(
        folder,
        metrics=catalogue.metrics,
        directory=routing.directory if (folder / PEOPLE_FILE).exists() else None,
        root=PROJECT_ROOT,
    )
    problems = [*found.problems, *routing.problems, *playbook.problems]
    by_id = {rule.id: rule for rule in found.rules}
    for path in find_test_files(folder) if folder.is_dir() else ():
        problems += load_tests(path, by_id, tuple(STEPS)).problems
    if as_json:
        print_json({"rules": [*by_id], "problems": [_problem(one) for one in problems]})
    else:
        for problem in problems:
            typer.echo(str(problem))
        typer.echo(f"{len(by_id)} rules, {len(problems)} problems in {folder}")
    if problems:
        raise typer.Exit(PROBLEM)


@app.command(
    "schema",
    epilog="Examples: [bold]metrics rules schema > rules.schema.json[/bold] · [bold]metrics rules schema --of tests[/bold]",
)
def rules_schema(
    of: Annotated[str, typer.Option("--of", help="rules, or tests (files *.test.yml).")] = "rules",
) -> None:
    """Print the JSON Schema of a rule file or of a file of rule tests, for editors."""
    from metrics_pipeline.rule_tests.model import RuleTestFile
    from metrics_pipeline.rules.model import rule_schema

    match of:
        case "rules":
            print_json(rule_schema())
        case "tests":
            print_json(RuleTestFile.model_json_schema())
        case _:
            usage(f"--of {of!r} is not known; write rules or tests")


@app.command(
    "show",
    epilog="Examples: [bold]metrics rules show orders_anomaly[/bold] · [bold]metrics rules show orders_anomaly --json[/bold]",
)
def rules_show(
    rule: Annotated[str, typer.Argument(help="Rule id.")],
    as_json: JsonOption = False,
) -> None:
    """Show a rule as it is judged: every key, defaults included, and the file and line it comes from."""
    settings = load_settings()
    found, _, _ = _loaded(settings, settings.rules_dir)
    with opened_door(settings) as door:
        found = _seen(door, found)
        if not door.is_open and all(one.id != rule for one in found.rules):
            door.deny("read", rule)
    chosen = _named(found, rule)
    rows = []
    for key, value in chosen.model_dump(mode="json", by_alias=True).items():
        if isinstance(value, dict) and key in ("labels", "annotations"):
            for inner, text in value.items():
                rows.append(_row(f"{key}.{inner}", text, chosen.origins.get(f"{key}.{inner}")))
        else:
            rows.append(_row(key, value, chosen.origins.get(key)))
    if as_json:
        print_json({"rule": rule, "hash": chosen.rule_hash, "group": chosen.group, "keys": rows})
        return
    shown = [row for row in rows if row["value"] not in (None, [], {}, "")]
    print_table(
        f"{rule} ({chosen.group}, {chosen.rule_hash})", [{**row, "value": _text(row["value"])} for row in shown]
    )


@app.command(
    "test",
    epilog="Examples: [bold]metrics rules test[/bold] · [bold]metrics rules test alert_rules/orders.test.yml[/bold]",
)
def rules_test(
    files: Annotated[
        list[Path] | None, typer.Argument(help="Test files; default: all beside the installation's rules.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only tests whose name contains this.")] = None,
    every_night: Annotated[
        bool, typer.Option("--every-night", help="Publish and judge each night on its own; slower, and the same.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the tests beside rules: from metric values to messages, night by night. Exit code 1 when one fails."""
    from metrics_pipeline.rule_tests import find_test_files, run_file

    settings = load_settings()
    require_authors(settings)
    chosen = [path.resolve() for path in files or ()] or find_test_files(settings.rules_dir)
    if missing := [path for path in chosen if not path.is_file()]:
        usage(f"there is no file {missing[0]}; give files that end in .test.yml")
    if not chosen:
        typer.echo(f"There are no tests in {settings.rules_dir}; write some beside the rules (docs/rules.md).")
        return
    results, broken = [], []
    with steps("Testing rules") as (_, total):
        for number, path in enumerate(chosen):
            total(number / len(chosen), f"Testing {path.name}")
            ruleset, catalogue, _ = _loaded(settings, path.parent)
            broken += [problem for problem in ruleset.problems if problem not in broken]
            rules = {rule.id: rule for rule in ruleset.rules}
            results.append(run_file(path, rules, catalogue.metrics, only=name, every_night=every_night))
    outcomes = [outcome for result in results for outcome in result.outcomes]
    failed = [outcome for outcome in outcomes if not outcome.passed]
    problems = [*broken, *(problem for result in results for problem in result.problems)]
    if as_json:
        print_json(
            {
                "passed": len(outcomes) - len(failed),
                "failed": len(failed),
                "problems": [_problem(one) for one in problems],
                "tests": [outcome.as_json() for outcome in outcomes],
            }
        )
    else:
        for problem in problems:
            typer.echo(str(problem))
        for outcome in failed:
            typer.echo(outcome.report())
        typer.echo(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed, {len(problems)} problems")
    if failed or problems:
        raise typer.Exit(PROBLEM)


@app.command(
    "replay",
    epilog="Examples: [bold]metrics rules replay --from 2026-06-01 --to 2026-11-20[/bold] · [bold]metrics rules replay "
    "--from 2026-01-01 --to 2026-11-20 --rule gmv_anomaly --labels labels.jsonl --html replay.html[/bold]",
)
def rules_replay(  # noqa: PLR0917 - options of a command
    first: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.")],
    last: Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, inclusive.")],
    rule: Annotated[list[str] | None, typer.Option("--rule", help="Only this rule; may be given again.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Known incidents (JSON Lines), to score precision and recall.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with plots to this file.")] = None,
    list_alerts: Annotated[bool, typer.Option("--alerts", help="Also list every alert.")] = False,
    by_week: Annotated[bool, typer.Option("--weeks", help="Also list the firings of every week.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run rules over published history: when would they have fired, how often a week, how well."""
    from metrics_pipeline.rules.composite import with_parts
    from metrics_pipeline.rules.past_incidents import known_incidents
    from metrics_pipeline.rules.replay import read_labels, replay
    from metrics_pipeline.rules.replay_page import replay_page

    settings = load_settings()
    start, end = parse_day(first, "--from"), parse_day(last, "--to")
    assert start is not None
    assert end is not None
    in_order(start, end)
    ruleset, _, seeds = _loaded(settings, settings.rules_dir)
    with opened_door(settings) as door:
        door.require_export("rules.replay", html)
        ruleset, published = _seen(door, ruleset), door.published()
    chosen = with_parts([_named(ruleset, name) for name in rule], ruleset.rules) if rule else list(ruleset.rules)
    if not chosen:
        problems = "".join(f"{problem}\n" for problem in ruleset.problems)
        fail(f"{problems}there is no usable rule in {settings.rules_dir}; `metrics rules lint` lists every problem")
    incidents = read_labels(labels) if labels else ()
    title = f"Replaying {len(chosen)} rule{'s' if len(chosen) != 1 else ''}"
    with steps(title) as (_, total):
        result = replay(
            published,
            chosen,
            start,
            end + timedelta(days=1),
            promotions=seeds.promotions,
            references=seeds.references,
            incidents=known_incidents(settings, start),
            labels=incidents,
            progress=lambda share: total(share, title),
        )
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(replay_page(result, incidents), "utf-8")
    rows, scores, alerts = _replay_rows(result), _score_rows(result), _alert_rows(result)
    if as_json or list_alerts or html is not None:
        _record_read(settings, chosen, result)
    weeks = [{"week of": f"{monday}", "firings": sum(of_week.values())} for monday, of_week in result.weeks]
    if as_json:
        print_json(
            {
                "from": start,
                "to": end,
                "rules": rows,
                "weeks": [{"week": monday, "firings": dict(of_week)} for monday, of_week in result.weeks],
                "scores": scores,
                "missed": [label.id for label in result.missed],
                "unasked": [label.id for label in result.unasked],
                "alerts": alerts,
                "messages_per_day": result.median_messages_per_day,
                "errors": dict(result.errors),
                "problems": [_problem(one) for one in ruleset.problems],
                **({"html": str(html)} if html else {}),
            }
        )
    else:
        _print_judged(f"{start} to {end}, median {result.median_messages_per_day:g} messages a day", rows)
        if by_week:
            print_table("Firings per week", weeks, numbers=("firings",))
        if list_alerts:
            print_table("Alerts", alerts, numbers=("worst", "expected"))
        if scores:
            figures = ("incidents", "found", "recall", "episodes", "precision", "delay days")
            print_table("Against the labels", scores, numbers=figures)
        for name, error in result.errors.items():
            typer.echo(f"{name}: {error}", err=True)
        for problem in ruleset.problems:
            typer.echo(str(problem), err=True)
        if html is not None:
            typer.echo(f"Plots: {html}")
    if result.errors:
        raise typer.Exit(PROBLEM)


def _seen(door: CliDoor, found: RuleSet) -> RuleSet:
    """The rules whose metrics whoever asks may know of; problems name anything and are for an open installation."""
    if door.is_open:
        return found
    by_id = {one.id: one for one in found.rules}
    return replace(found, rules=tuple(one for one in found.rules if door.sees_rule(one, by_id)), problems=())


def _loaded(settings: Settings, folder: Path) -> tuple[RuleSet, Catalogue, Seeds]:
    from metrics_pipeline.library.catalogue import Catalogue
    from metrics_pipeline.rules.load import load_rules
    from metrics_pipeline.rules.seeds import seeds_of

    catalogue = Catalogue.read(settings.dbt_project_dir)
    seeds = seeds_of(settings)
    return load_rules(folder, catalogue, seeds), catalogue, seeds


def _named(found: RuleSet, name: str) -> Rule:
    """The rule of this id; ends the program when there is none, with its problems when it cannot be used."""
    known = {one.id: one for one in found.rules}
    if name not in known:
        if own := [str(problem) for problem in found.problems if problem.rule == name]:
            fail("\n".join(own))
        usage(f"there is no rule {name!r}{nearest(name, known)}")
    return known[name]


def _problem(one: Problem) -> dict[str, Any]:
    return {"file": str(one.file), "line": one.line, "rule": one.rule, "message": one.message, "mend": one.mend}


def _row(key: str, value: Any, origin: str | None) -> dict[str, Any]:
    return {"key": key, "value": value, "from": _relative(origin) if origin else "default"}


def _relative(origin: str) -> str:
    path, _, line = origin.rpartition(":")
    try:
        return f"{Path(path).relative_to(Path.cwd())}:{line}"
    except ValueError:
        return origin


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items() if one is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_text(one) for one in value)
    return str(value)


def _replay_rows(result: Replay) -> list[dict[str, Any]]:
    return [
        {
            "rule": one.rule,
            "judged": one.judged,
            "yellow": one.yellow,
            "red": one.red,
            "episodes": one.episodes,
            "per week": round(one.firings_per_week, 2),
            "worst": f"{one.worst.member} {one.worst.worst_period:%Y-%m-%d}" if one.worst else "",
        }
        for one in result.rules
    ]


def _print_judged(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rules that had something to judge; the others by name only, because a row of zeros reads like peace."""
    judged = [row for row in rows if row["judged"]]
    print_table(title, judged, numbers=("judged", "yellow", "red", "episodes", "per week"))
    if silent := [str(row["rule"]) for row in rows if not row["judged"]]:
        typer.echo(f"Not judged, for want of values in these days: {', '.join(silent)}")


def _score_rows(result: Replay) -> list[dict[str, Any]]:
    def share(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return [
        {
            "by": one.by,
            "name": one.name,
            "incidents": one.incidents,
            "found": one.found,
            "recall": share(one.recall),
            "episodes": one.episodes,
            "precision": share(one.precision),
            "delay days": one.median_delay_days,
        }
        for one in result.scores
    ]


def _record_read(settings: Settings, chosen: Sequence[Rule], result: Replay) -> None:
    """Alerts on history show values as others do."""
    metric_of = {one.id: one.metric for one in chosen}
    counts = Counter(metric_of[one.rule] for one in result.episodes)
    with opened_door(settings) as door:
        for metric, count in counts.items():
            door.read(metric, "all", None, rows=count)


def _alert_rows(result: Replay) -> list[dict[str, Any]]:
    return [
        {
            "fired": f"{one.fired_at:%Y-%m-%d %H:%M}".removesuffix(" 00:00"),
            "tier": one.tier,
            "rule": one.rule,
            "slice": one.member,
            "until": f"{one.last_breach:%Y-%m-%d %H:%M}".removesuffix(" 00:00"),
            "worst": one.worst_value,
            "expected": one.worst_baseline,
        }
        for one in result.episodes
    ]
