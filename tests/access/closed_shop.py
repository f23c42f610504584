"""A small installation whose names and numbers are found in nothing else, so that a leak of any of them is recognised.

Thirteen metrics under invented names, rules and alerts on all of them, messages, orders, proposals, versions; and the same
installation with something changed that some people must not know (`VARIANTS`): what they are told must not change.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from metrics_pipeline.access.model import Facts, facts_of
from metrics_pipeline.access.viewer import Viewer
from metrics_pipeline.alerts.apply import apply_verdicts
from metrics_pipeline.alerts.cards import cards_of
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.library.compile import write_files
from metrics_pipeline.library.dbt_format import export_dbt
from metrics_pipeline.library.recording import record
from metrics_pipeline.library.versions import read_targets, states
from metrics_pipeline.orchestration.series import recent_series
from metrics_pipeline.routing.load import routing_of
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT, Installation, Settings, write_installation
from metrics_pipeline.store import access, open_store

sys.path.insert(0, str(Path(__file__).parents[1] / "rules"))
from shop import Shop

from tests.library.projects import small_project

NAMES = {
    "refunded_orders": "quollback", "refund_amount": "quollsum", "orders_placed": "wombatin", "orders_paid": "wombatpay",
    "paid_amount": "numbatsum", "units_sold": "bilbyout", "units_sold_28d": "bilbyout_28d",
    "payment_conversion_rate": "wombatshare", "refund_rate": "quollshare", "average_order_value": "numbatmean",
    "order_health": "potoroo", "buyers": "dunnarts", "orders_paid_within_day": "thylacine",
}  # fmt: skip
"""Metrics of the starter project → what they are called here; measures are called so, too."""
CONFIDENTIAL = ("numbatsum", "numbatmean", "quollsum")
LINES = {
    "quollback": "service",
    "quollsum": "service",
    "quollshare": "service",
    "numbatsum": "finance",
    "numbatmean": "finance",
}
ADDED, ADDED_SHARE = "kowari", "kowari_share"
"""Metrics that only one variant has: one with rules of its own, one that is made of known ones."""
REGIONS, CHANNELS = ("塔城区", "漠河区", "额敏区"), ("驿站", "商队")
"""Members with names that are in no text of the product; the third region is in one variant only."""
DAYS = 30
FIRST = date(2026, 3, 2)
LAST = FIRST + timedelta(days=DAYS - 1)
NOW = datetime(2026, 4, 1, 1, 0, tzinfo=UTC)
VARIANTS = ("metric", "region", "numbers")


@dataclass(frozen=True, repr=False)
class Home:
    """One built installation."""

    settings: Settings
    catalogue: Catalogue
    facts: Mapping[str, Facts]
    numbers: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(metric, dimension, member) → the four digits with which all its values begin."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.settings.home.parent.name

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # what hypothesis prints of an example stays readable

    def viewer(self, person: str, grants: Iterable[Any]) -> Viewer:
        from metrics_pipeline.access.model import Subjects

        return Viewer(Subjects(person), self.facts, NOW, tuple(grants))

    def texts(self, metric: str) -> tuple[str, ...]:
        """What nobody may be told who may not know of a metric: its id, its names."""
        one = self.catalogue.metrics[metric]
        return (one.id, one.name_zh, one.name_en)


def build(folder: Path, variant: str = "") -> Home:
    """Make the installation below a folder; the policy is off."""
    project = _project(folder, variant)
    rules = _rules(folder, variant)
    write_installation(folder / "home", Installation(source="simulator", first_day=FIRST))
    environment = {
        "METRICS_HOME": str(folder / "home"),
        "METRICS_DBT_PROJECT": str(project),
        "METRICS_RULES_DIR": str(rules),
    }
    settings = Settings(
        home=folder / "home", rules_dir=rules, dbt_project_dir=project, user="ops",
        installation=Installation(source="simulator", first_day=FIRST),
    )  # fmt: skip
    catalogue = Catalogue.read(project)
    write_files(catalogue)
    shop, numbers = _shop(catalogue, variant)
    published = shop.publish(settings.published_dir, NOW.replace(tzinfo=None))
    ruleset = load_rules(rules, catalogue)
    assert not ruleset.problems, ruleset.problems
    store = open_store(settings)
    with store.writing() as connection:
        record(connection, states(catalogue, read_targets(project)), now=NOW)
    judged = evaluate(
        published, ruleset.rules, LAST, LAST + timedelta(days=1), evaluated_at=NOW.replace(tzinfo=None), run_id="night",
        evaluations_dir=settings.evaluations_dir,
    )  # fmt: skip
    apply_verdicts(
        store, judged.table, cards_of(ruleset.rules, catalogue.metrics, currency="CNY"),
        receivers=routing_of(settings, rules=ruleset.rules, metrics=catalogue.metrics), now=NOW,
        series=lambda keys: recent_series(settings, keys, published),
    )  # fmt: skip
    store.close()
    home = Home(settings, catalogue, facts_of(catalogue.metrics), numbers, environment)
    _said(home)
    foreign = export_dbt(catalogue, ["numbatmean", "quollshare"]).replace("name: numbatmean", "name: foreign")
    (folder / "foreign.yml").write_text(foreign, "utf-8")
    store = open_store(settings)
    with store.writing() as connection:
        access.enable(connection, "ops", now=NOW)
    store.close()
    return home


def _project(folder: Path, variant: str) -> Path:
    project = small_project(folder)
    shutil.copy(PROJECT_ROOT / "dbt_project/models/base/orders_paid_within_day.yml", project / "models/base")
    (project / "dbt_project.yml").write_bytes((PROJECT_ROOT / "dbt_project" / "dbt_project.yml").read_bytes())
    yaml = YAML()
    for path in sorted(project.glob("models/*/[!_]*.sql")):
        if path.parent.name in ("base", "operational"):
            path.unlink()
    for path in sorted(project.glob("models/*/[!_]*.yml")):
        document = yaml.load(_renamed(path.read_text("utf-8")))
        for one in document["metrics"]:
            name, meta = one["name"], one["config"]["meta"]
            one["label"], one["description"] = name.capitalize(), f"What {name} is."
            meta |= {
                "name_zh": f"袋{_zh(name)}",
                "definition_zh": f"袋{_zh(name)}的定义。",
                "owner": f"team-{LINES.get(name, 'trade')}",
            }
            meta["sensitivity"] = "confidential" if name in CONFIDENTIAL else "internal"
            meta["business_line"] = LINES.get(name, "trade")
            meta.pop("former", None)
        path.unlink()
        with path.with_name(f"{document['metrics'][0]['name']}.yml").open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)
    semantic = project / "models/facts/_semantic.yml"
    semantic.write_text(_renamed(semantic.read_text("utf-8")), "utf-8")
    if variant == "metric":
        text = (project / "models/operational/quollshare.yml").read_text("utf-8").replace("wombatpay", "wombatin")
        _write(project, "operational", ADDED_SHARE, text, "quollshare")
        text = (
            (project / "models/base/quollback.yml")
            .read_text("utf-8")
            .replace("measure: quollback", f"measure: {ADDED}")
        )
        _write(project, "base", ADDED, text, "quollback")
        text = semantic.read_text("utf-8")
        line = next(one for one in text.splitlines() if "{name: quollback," in one)
        semantic.write_text(
            text.replace(line, f"{line}\n{line.replace('quollback', ADDED).replace('expr: ', 'expr: not ')}"), "utf-8"
        )
    for name in ("metric_targets.csv", "industry_benchmarks.csv"):
        seed = project / "seeds" / name
        lines = _renamed(seed.read_text("utf-8")).splitlines()
        kept = [one for one in lines[1:] if one.partition(",")[0] in NAMES.values()]
        added = [f"{ADDED},all,all,0.9,2023-01-01,"] if variant == "metric" and name.startswith("metric") else []
        seed.write_text("\n".join([lines[0], *kept, *added]) + "\n", "utf-8")
    return project


def _write(project: Path, layer: str, name: str, text: str, like: str) -> None:
    """A metric that only one variant has, made after another one."""
    for before, after in (
        (like, name),
        (like.capitalize(), name.capitalize()),
        (_zh(like), _zh(name)),
        (f"line: {LINES[like]}", "line: finance"),
    ):
        text = text.replace(before, after)
    (project / f"models/{layer}/{name}.yml").write_text(text, "utf-8")


def _renamed(text: str) -> str:
    return re.sub(r"\b(" + "|".join(sorted(NAMES, key=len, reverse=True)) + r")\b", lambda m: NAMES[m[1]], text)


def _zh(name: str) -> str:
    """A Chinese name of two rare signs for each metric."""
    place = [*NAMES.values(), ADDED, ADDED_SHARE].index(name)
    return chr(0x9F60 + place) + chr(0x9EE0 + place)


def _rules(folder: Path, variant: str) -> Path:
    rules = folder / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text(
        "people:\n  - {id: boss}\n  - {id: asker, contacts: {email: asker@shop}}\n"
        "teams:\n" + "".join(f"  - {{id: team-{one}, members: [boss]}}\n" for one in ("trade", "service", "finance"))
        + "business_lines:\n" + "".join(f"  - {{id: {one}, owner: team-{one}}}\n" for one in ("trade", "service", "finance")),
        "utf-8",
    )  # fmt: skip
    made = [
        _rule(f"{metric}_low{suffix}", metric, by)
        for metric in (*NAMES.values(), *([ADDED] if variant == "metric" else []))
        for suffix, by in (("", ""), ("_by_region", "region"), ("_by_channel", "channel"))
    ]
    # Red ones are diagnosed and advised on.
    made += [_rule(f"{metric}_red", metric, "region", more='red_if: "> 1"') for metric in ("numbatsum", "quollshare")]
    made.append(_rule("wombatpay_sampled", "wombatpay", "", more="min_sample: {metric: quollback, gte: 1}"))
    made.append(_rule("wombatin_part", "wombatin", "region", expr="share_of_parent()"))
    made.append(
        "      - alert: potoroo_both\n        why: Two at once.\n        why_zh: 两者同时。\n        metric: potoroo\n"
        "        all_of: [wombatpay_low, quollback_low]\n        annotations: {summary: Both, summary_zh: 同时}\n"
    )
    (rules / "all.test.yml").write_text(
        "tests:\n  - name: it fires\n    rule: numbatsum_low\n    series:\n      - {metric: numbatsum, history: 0x3, values: 0 5}\n"
        "    tiers: ok yellow\n    messages: {2: first yellow}\n", "utf-8"
    )  # fmt: skip
    (rules / "all.yml").write_text(
        "groups:\n  - name: all\n    defaults: {owner: team-trade, labels: {scenario: test}}\n    rules:\n"
        + "".join(made),
        "utf-8",
    )
    return rules


def _rule(name: str, metric: str, by: str, *, expr: str = "value", more: str = "") -> str:
    lines = [
        f"- alert: {name}", "  why: It matters.", "  why_zh: 很重要。", f"  metric: {metric}", f"  expr: {expr}",
        '  yellow_if: "> 0"', "  annotations: {summary: Low, summary_zh: 偏低}",
        *([f"  by: [{by}]"] if by else []), *([f"  {more}"] if more else []),
    ]  # fmt: skip
    return "".join(f"      {line}\n" for line in lines)


def _shop(catalogue: Catalogue, variant: str) -> tuple[Shop, dict[tuple[str, str, str], int]]:
    shop, numbers = Shop(), {}
    known = [*NAMES.values(), ADDED, ADDED_SHARE]
    slices = [("all", "all"), *(("region", one) for one in REGIONS), *(("channel", one) for one in CHANNELS)]
    slices += [("region|channel", f"{one}|{two}") for one in REGIONS for two in CHANNELS]
    for metric in catalogue.metrics.values():
        for place, (dimension, member) in enumerate(slices):
            if dimension not in metric.slices or (REGIONS[2] in member and variant != "region"):
                continue
            # Four digits of its own, so that it is known in whatever way it is written.
            start = 3011 + 367 * known.index(metric.id) + 29 * place
            if variant == "region" and REGIONS[0] not in member:
                start += 13
            if variant == "numbers" and metric.id in CONFIDENTIAL:
                start += 13 - 2 * 29 * place  # the worst slice is the best one now
            numbers[metric.id, dimension, member] = start
            values = [start * 1000.0 + day for day in range(DAYS)]
            shop.add(metric.id, values, dimension=dimension, member=member, first=FIRST, version=metric.version)
    by_key = {(row["metric"], row["period_start"], row["dimension"], row["member"]): row for row in shop.rows}
    for row in shop.rows:
        one = catalogue.metrics[str(row["metric"])]
        if one.kind == "ratio":
            for part, source in zip(("numerator", "denominator"), one.inputs, strict=True):
                of = by_key.get((source, row["period_start"], row["dimension"], row["member"]))
                row[part] = None if of is None else of["value"]
    return shop, numbers


def _said(home: Home) -> None:
    """What people did while the installation was open."""
    from typer.testing import CliRunner

    from metrics_pipeline.cli.app import app

    def run(*arguments: str) -> None:
        done = CliRunner().invoke(app, arguments, env={**home.environment, "METRICS_USER": "ops"})
        assert done.exit_code == 0, (arguments, done.output, done.exception)

    for metric in [name for name in ("wombatpay", "numbatsum", ADDED) if name in home.catalogue.metrics]:
        episode = f"{metric}_low{{all=all}}@{LAST}T00:00"
        run(
            "library",
            "propose",
            metric,
            "--set",
            f"owner=team-{LINES.get(metric, 'trade')}x",
            "--why",
            f"as {metric} wants",
            "--effective",
            "2026-09-01",
        )
        run("alerts", "feedback", episode, "--useful", "--reason", "seen")
        run("alerts", "ack", episode, "--by", "ops")
        run(
            "silences",
            "add",
            f'alertname="{metric}_low_by_region"',
            "--until",
            "2030-01-01T00:00",
            "--by",
            "ops",
            "--reason",
            f"of {metric}",
        )
        run("alerts", "drill", "--rule", f"{metric}_low", "--for", "9d")
    kept = home.settings.home / "retrospectives" / "2026-W14.html"
    kept.parent.mkdir()
    run("retrospective", "--week", kept.stem, "--html", str(kept))
