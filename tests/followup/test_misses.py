"""Incidents that people report because nobody was told: why the rules were silent, and what would have caught them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from metrics_pipeline.followup.effect import measure_all
from metrics_pipeline.followup.misses import ask, labels_of, why
from metrics_pipeline.followup.proposals import accept, find, make
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.rule_tests.night import fresh_store
from metrics_pipeline.rules.load import load_rules
from metrics_pipeline.settings import PROJECT_ROOT, load_settings
from metrics_pipeline.store import audit, missed, open_store
from metrics_pipeline.store.missed import MissedRow
from tests.followup.history import OPEN, Shop, actor, alerts, answer, day, ground, live, rules_folder

DAYS = 130
HIT, LONG, DEEP = 110, 80, 60
"""A day with 130 orders; three days at 85, 85 and 85; a day with 40."""
DIPS = {HIT: 130, LONG: 85, LONG + 1: 85, LONG + 2: 85, DEEP: 40}


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue.read(PROJECT_ROOT / "dbt_project")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Two hundred orders a day; in the north half of them, of which few are visited."""
    values = [200.0 + n % 7 for n in range(DAYS)]
    for at, value in DIPS.items():
        values[at] = float(value)
    shop = Shop().add("orders_placed", values)
    shop.add("orders_placed", [value / 2 for value in values], dimension="region", member="北")
    shop.add("sessions", [900.0] * DAYS)
    return shop.publish(tmp_path_factory.mktemp("shop"))


def report(at: int, *, days: int = 1, number: int = 1, metric: str = "orders_placed", **changes) -> MissedRow:
    fields = {"dimension": "all", "member": "all", "text": "the checkout was down", "who": "li"}
    return MissedRow(
        number, metric, starts_on=day(at), ends_on=day(at + days - 1), at=actor().now, **{**fields, **changes}
    )


def said(published, catalogue, folder, *keys: str, row: MissedRow):
    rules = load_rules(rules_folder(folder, *keys), catalogue).rules
    [found] = ask(published, rules, [row])
    return found


@pytest.mark.parametrize(
    ("keys", "row", "answer", "words"),
    [
        (['yellow_if: "< 150"'], report(HIT), "told", "alerts with"),
        (['yellow_if: "< 100"'], report(HIT), "weak", "130 at most, the threshold is < 100"),
        (['yellow_if: "< 100"', "for: 3"], report(LONG, days=3), "told", "alerts with"),
        (['yellow_if: "< 100"', "for: 3"], report(LONG, days=2), "short", "beyond them for 2 period(s), the rule asks for 3"),
        (['yellow_if: "< 50"', "for: 1"], report(HIT, days=10), "weak", "within its bounds"),
        (['yellow_if: "< 100"'], report(LONG - 1, days=3), "late", "alerts only with"),
        (['yellow_if: "< 150"', "min_sample: {metric: sessions, gte: 1000}"], report(HIT), "sample", "too small a sample: 900"),
        (['yellow_if: "< 150"', "overrides: [{where: {region: [北]}, mute: true}]", "by: [region]"],
         report(HIT, dimension="region", member="北"), "muted", "muted"),
        (['yellow_if: "< 150"'], report(DAYS + 5), "unjudged", "no value"),
    ],
)  # fmt: skip
def test_a_rule_says_why_it_was_silent(published, catalogue, tmp_path, keys, row, answer, words):
    found = said(published, catalogue, tmp_path, *keys, row=row)
    assert found.answer == answer, found
    assert words in why(found, "en")
    assert why(found, "zh") != why(found, "en")


def test_only_rules_on_the_very_slice_are_asked(published, catalogue, tmp_path):
    rules = load_rules(rules_folder(tmp_path, 'yellow_if: "< 150"'), catalogue).rules
    assert ask(published, rules, [report(HIT, dimension="region", member="北")]) == []
    assert ask(published, rules, [report(HIT, metric="sessions")]) == []


def kept(store, *misses: MissedRow) -> None:
    with store.writing("missed") as connection:
        for one in misses:
            missed.add(connection, one)


def proposals(store, here, days=90):
    made = make(store, here, OPEN, actor(), days=days)
    with store.reading() as connection:
        return [find(connection, number) for number in made.fresh]


def test_a_reported_incident_becomes_a_bound_that_catches_it_with_what_it_costs_and_is_accepted_and_measured(
    published, catalogue, tmp_path
):
    here = ground(
        rules_folder(tmp_path / "rules", 'yellow_if: "< 100"', 'red_if: "< 60"', 'recover_if: {yellow: "> 120"}'),
        catalogue,
        published,
    )
    with fresh_store(tmp_path, "store") as store:
        live(store, here, 40, DAYS - 1)
        assert proposals(store, here) == []
        kept(store, report(HIT))
        [row] = proposals(store, here)
        assert (row.kind, row.changes["yellow_if"][:2]) == ("catch", "< ")
        bound = float(row.changes["yellow_if"][2:])
        assert 130 < bound < 140
        assert row.changes["recover_if"] == {"yellow": f"> {float(f'{120 * bound / 100:.3g}'):g}"}
        impact = row.evidence["impact"]
        assert (impact["before"]["found"], impact["after"]["found"]) == (0, 1)
        assert [one["fired"][:10] for one in impact["added"]] == [f"{day(HIT)}"]
        assert impact["added"][0]["outcome"] == "true"  # somebody said that it was one
        assert "nobody was told" in row.why and "漏报" in row.why_zh
        edit = accept(store, here, actor("wang"), row.id, why="we lost a day", owners=["wang"], tests=lambda *_: ())
        assert f"yellow_if: {row.changes['yellow_if']!r}".replace("'", '"') in edit.path.read_text("utf-8")
        [again] = ask(published, load_rules(here.rules_dir, catalogue).rules, [report(HIT)])
        assert again.answer == "told"
        assert proposals(store, here) == []
        later = replace(here, zone=here.zone)
        with store.writing("proposals") as connection:
            from metrics_pipeline.store import rule_proposals as rows

            rows.change(connection, row.id, expected="accepted", decided_at=actor(at=day(HIT - 5)).now)
        [effect] = measure_all(store, later, OPEN).values()
        assert (effect["former"]["found"], effect["present"]["found"]) == (0, 1)


@pytest.mark.parametrize(
    ("keys", "row", "changes"),
    [
        (['yellow_if: "< 100"', "for: 4"], report(LONG, days=4), {"for": 3}),
        (['yellow_if: "< 150"', "min_sample: {metric: sessions, gte: 1000}"], report(HIT),
         {"min_sample": {"metric": "sessions", "gte": 900}}),
    ],
)  # fmt: skip
def test_what_was_too_short_or_too_small_is_caught_by_less_patience_or_a_smaller_sample(
    published, catalogue, tmp_path, keys, row, changes
):
    here = ground(rules_folder(tmp_path / "rules", *keys), catalogue, published)
    with fresh_store(tmp_path, "store") as store:
        kept(store, row)
        [found] = proposals(store, here)
        assert (found.kind, found.changes) == ("catch", changes)


def test_what_was_told_on_a_later_day_is_told_earlier_and_what_would_be_told_late_is_better_than_never(
    published, catalogue, tmp_path
):
    here = ground(rules_folder(tmp_path / "rules", 'yellow_if: "< 80"'), catalogue, published)
    with fresh_store(tmp_path, "store") as store:
        kept(store, report(LONG - 1, days=4))  # it begins a day before its values fall
        [found] = proposals(store, here)
        assert 85 < float(found.changes["yellow_if"][2:]) < 100
    here = ground(rules_folder(tmp_path / "later", 'yellow_if: "< 50"'), catalogue, published)
    with fresh_store(tmp_path, "later") as store:
        kept(store, report(HIT - 1, days=2, number=1), report(DEEP, number=2))
        [found] = proposals(store, here, days=120)
        assert 130 < float(found.changes["yellow_if"][2:]) < 150 and "would have been told" in found.why


def test_what_cannot_be_caught_without_a_flood_is_not_proposed(published, catalogue, tmp_path):
    here = ground(rules_folder(tmp_path / "rules", 'yellow_if: "< 100"'), catalogue, published)
    with fresh_store(tmp_path, "store") as store:
        kept(store, report(105, number=2))  # an ordinary day, as low as every seventh one and above every other
        assert proposals(store, here) == []
        kept(store, report(HIT, number=3))
        [row] = proposals(store, here)  # the one that can be is caught
        assert float(row.changes["yellow_if"][2:]) < 140


def test_no_later_proposal_gives_up_a_reported_incident(published, catalogue, tmp_path):
    small = {45: 141.0, 52: 144.0, 64: 139.0, 71: 146.0, 88: 142.0, 95: 148.0}
    values = [200.0 + n % 7 for n in range(DAYS)]
    for at, value in {**small, **{at: float(value) for at, value in DIPS.items()}}.items():
        values[at] = value
    shop = Shop().add("orders_placed", values).publish(tmp_path / "shop")
    here = ground(rules_folder(tmp_path / "rules", 'yellow_if: "< 150"', 'red_if: "< 30"'), catalogue, shop)
    with fresh_store(tmp_path, "store") as store:
        live(store, here, 40, DAYS - 1)
        words = {**dict.fromkeys(small, "false"), LONG: "true", DEEP: "true"}
        answer(store, [one for one in alerts(store) if one.day in words], words)
        [before] = proposals(store, here)
        assert before.kind == "threshold" and float(before.changes["yellow_if"][2:]) < 139
        kept(store, report(64))  # what was called false on this day was an incident after all
        after = proposals(store, here)
        assert all(float(row.changes["yellow_if"][2:]) > 139 for row in after)


def test_reports_are_labels_for_replays():
    [label] = labels_of([report(HIT, days=2)])
    assert (label.metrics, label.starts_on, label.ends_on) == (
        ("orders_placed",),
        day(HIT),
        day(HIT) + timedelta(days=1),
    )
    assert not label.is_harmless


@pytest.fixture
def home(published, tmp_path, monkeypatch):
    """An installation with this shop and one rule."""
    home = tmp_path / "home"
    (home / "warehouse").mkdir(parents=True)
    (home / "warehouse" / "published").symlink_to(published.directory)
    monkeypatch.setenv("METRICS_HOME", str(home))
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules_folder(home / "rules", 'yellow_if: "< 100"')))
    monkeypatch.setenv("COLUMNS", "200")
    return home


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["alerts", "missed", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_person_reports_what_was_missed_and_sees_why(home):
    code, out, _ = run("orders_placed", "--on", day(HIT), "--text", "checkout down", "--lang", "en")
    assert code == 0 and "few_orders" in out and "130 at most" in out and "metrics proposals make" in out
    code, out, _ = run("orders_placed", "--on", day(HIT), "--slice", "region=北", "--text", "北方断网")
    assert code == 0 and "metrics rules propose orders_placed --by 'region'" in out and "没有规则" in out
    assert "checkout down" in run()[1]
    found = json.loads(run("--json")[1])["reported"]
    assert {(one["metric"], one["dimension"], one["member"]) for one in found} == {
        ("orders_placed", "all", "all"), ("orders_placed", "region", "北"),
    }  # fmt: skip
    assert run("--remove", found[0]["id"])[0] == 0
    assert len(json.loads(run("--json")[1])["reported"]) == 1
    store = open_store(load_settings({"METRICS_HOME": str(home)}))
    with store.reading() as connection:
        actions = [one.action for one in audit.entries(connection)]
    store.close()
    assert {"incident.report", "incident.withdraw"} <= set(actions)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("orders_plced", "--on", "2025-03-01", "--text", "x"), "orders_placed"),
        (("orders_placed", "--text", "x"), "--on"),
        (("orders_placed", "--on", "2025-03-01"), "--text"),
        (("orders_placed", "--on", "2025-03-02", "--until", "2025-03-01", "--text", "x"), "before"),
        (("orders_placed", "--on", "2025-03-02", "--slice", "moon=1", "--text", "x"), "no dimension 'moon'"),
    ],
)
def test_a_report_that_says_too_little_is_refused_in_a_line(home, arguments, words):
    code, _, err = run(*arguments)
    assert code == 2 and words in err
