"""Advice of a run: on the checks, with the alerts; a playbook that cannot be used stops nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from metrics_pipeline.advice.told import told_of
from metrics_pipeline.alerts import apply_verdicts
from metrics_pipeline.alerts.listing import current_alerts
from metrics_pipeline.alerts.work_orders import show_order
from metrics_pipeline.delivery.channels.file import FileChannel
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.library.catalogue import Catalogue
from metrics_pipeline.orchestration.advising import advice_on_rules, advise
from metrics_pipeline.orchestration.alert_assets import Explaining, apply_judgement
from metrics_pipeline.orchestration.judging import Judgement, cards
from metrics_pipeline.rules.evaluate import evaluate
from metrics_pipeline.rules.load import RuleSet, load_rules
from metrics_pipeline.settings import PROJECT_ROOT, Settings
from metrics_pipeline.store import open_store, outbox
from metrics_pipeline.store.diagnoses import NoteRow, add_note
from metrics_pipeline.warehouse.read import Published
from metrics_pipeline.warehouse.window import Window
from tests.rules.shop import Shop

LAST = date(2025, 3, 30)
DAYS = 84
EVALUATED_AT = datetime(2025, 3, 30, 19, tzinfo=UTC)
RULES = ("ad_spend_surge_by_ad_channel", "profit_margin_low")
MARGIN = """entries:
  - id: review_discounts
    when: {alert: [profit_margin down]}
    action_zh: 复核折扣
    action_en: Review discounts
    owner: finance
    effect_zh: 回升
    effect_en: It rises
"""
EPISODE = "ad_spend_surge_by_ad_channel{ad_channel=search}@2025-03-30T00:00"


@pytest.fixture(scope="module")
def library():
    catalogue = Catalogue.read(PROJECT_ROOT / "dbt_project")
    ruleset = load_rules(PROJECT_ROOT / "alert_rules", catalogue)
    return catalogue, RuleSet(tuple(rule for rule in ruleset.rules if rule.id in RULES), ())


@pytest.fixture
def project(tmp_path, library):
    """What advice needs of a project: a night on which spend on one ad channel multiplies and the margin falls."""
    catalogue, ruleset = library
    settings = Settings(home=tmp_path)
    return SimpleNamespace(
        settings=settings, catalogue=catalogue, ruleset=ruleset, now=lambda: EVALUATED_AT + timedelta(hours=1)
    )


@pytest.fixture
def evaluations(project):
    first = LAST - timedelta(days=DAYS - 1)
    usual = [1000.0 + 50 * (number % 7) for number in range(DAYS - 1)]
    shop = Shop()
    shop.add("ad_spend", [*usual, 9000.0], dimension="ad_channel", member="search", first=first)
    shop.add("ad_spend", [*usual, usual[-1]], dimension="ad_channel", member="social", first=first)
    shop.add("profit_margin", [*([0.3] * (DAYS - 1)), 0.011], first=first)
    published = shop.publish(project.settings.published_dir)
    return evaluate(
        published, project.ruleset.rules, LAST, LAST + timedelta(days=1), evaluated_at=EVALUATED_AT, run_id="r1"
    )


def alerted(project, evaluations):
    store = open_store(project.settings)
    apply_verdicts(store, evaluations.table, cards(project), receivers=("file",), now=EVALUATED_AT)
    return store


def advised(project, store):
    with store.writing("alerts") as connection:
        return advise(connection, project)


def test_the_check_says_what_to_do_and_an_episode_keeps_the_same(project, evaluations):
    on_checks = advice_on_rules(project, [evaluations])
    zh, en = on_checks["ad_spend_surge_by_ad_channel"][0]
    assert "暂停广告渠道 search" in zh
    assert "Pause ad channel search" in en
    store = alerted(project, evaluations)
    try:
        assert "ad_spend_surge_by_ad_channel" in {one.rule for one in current_alerts(store)}
        found = advised(project, store)
        assert EPISODE in found.episodes
        assert found.problems == ()
        assert advised(project, store).episodes == ()
        with store.reading() as connection:
            first = told_of(connection, [EPISODE], now=project.now())[EPISODE].advice[0]
        assert first.entry == "pause_ad_channel"
        assert "9,000 CNY" in en
        assert [one.what for one in show_order(store, EPISODE, now=project.now()).events] == ["opened", "advised"]
    finally:
        store.close()


def test_pages_show_no_figure_of_a_confidential_metric(project, evaluations, tmp_path):
    assert project.catalogue.metrics["profit_margin"].sensitivity == "confidential"
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "_playbook.yml").write_text(MARGIN, "utf-8")
    project.settings = project.settings.model_copy(update={"rules_dir": folder})
    [(text, _)] = advice_on_rules(project, [evaluations])["profit_margin_low"]
    assert "复核折扣" in text
    assert "利润率" in text
    assert "1.1%" not in text


def test_a_playbook_that_cannot_be_read_is_told_and_stops_nothing(project, evaluations, tmp_path):
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "_playbook.yml").write_text("entries: [\n", "utf-8")
    project.settings = project.settings.model_copy(update={"rules_dir": folder})
    store = alerted(project, evaluations)
    found = advised(project, store)
    store.close()
    assert "not valid YAML" in found.problems[0]
    assert advice_on_rules(project, [evaluations]) == {}


def test_what_fails_is_logged_and_stops_nothing(project, evaluations, monkeypatch):
    store = alerted(project, evaluations)
    monkeypatch.setattr(
        "metrics_pipeline.orchestration.advising.load_playbook", lambda *_, **__: Path("nowhere").stat()
    )
    assert advised(project, store).problems[0].startswith("FileNotFoundError")
    store.close()
    assert advice_on_rules(project, [evaluations]) == {}


@pytest.fixture
def night(project, evaluations):
    """The project with what the last step of a night needs besides: a deployment that coincides, and what was judged."""
    project.diagnoses = {}
    store = open_store(project.settings)
    with store.writing("notes") as connection:
        text, on = "bidding 2.0 goes live", {"ad_channel": "search"}
        add_note(connection, NoteRow(0, "deploy_note", text, LAST, LAST, on, "li", EVALUATED_AT))
    store.close()
    published = Published.open(project.settings.published_dir)
    return project, Judgement(published, Window(LAST, LAST + timedelta(days=1)), evaluations)


def sent(project):
    """What the folder of messages holds after a round of sending, as texts."""
    store = open_store(project.settings)
    try:
        channel = FileChannel(project.settings.messages_dir)
        deliver_due(store, {"file": channel}, now=project.now() + timedelta(hours=1))
    finally:
        store.close()
    return {path.name.split("-")[1]: path.read_text("utf-8") for path in project.settings.messages_dir.glob("*.html")}


def test_a_message_sent_as_soon_as_it_is_queued_tells_cause_and_advice(night, monkeypatch):
    project, judgement = night
    order = []

    def looked(self, connection):
        other = open_store(project.settings)
        with other.reading() as elsewhere:
            order.append(outbox.waiting_count(elsewhere))
        other.close()
        write(self, connection)

    write = Explaining._write
    monkeypatch.setattr(Explaining, "_write", looked)
    explaining = Explaining(project, judgement)
    report = apply_judgement(project, judgement, silent=False, beside=explaining.prepared())
    assert report.notifications
    assert order == [0]  # no sender sees a message before its cause and advice are kept
    assert EPISODE in explaining.advised.episodes
    message = sent(project)["ad_spend_surge_by_ad_channel"]
    assert "可能原因" in message
    assert "bidding 2.0 goes live" in message
    assert "Pause ad channel search" in message


@pytest.mark.parametrize("broken", ["diagnosing.keep", "advising.attach"])
def test_what_fails_while_it_is_kept_is_undone_alone_and_the_message_goes_out(night, monkeypatch, broken):
    def fails(connection, *_, **__):
        connection.execute(sa.text("DELETE FROM alert_instances"))
        connection.execute(sa.text("SELECT no_such_column FROM alert_instances"))

    monkeypatch.setattr(f"metrics_pipeline.orchestration.{broken}", fails)
    project, judgement = night
    explaining = Explaining(project, judgement)
    apply_judgement(project, judgement, silent=False, beside=explaining.prepared())
    message = sent(project)["ad_spend_surge_by_ad_channel"]
    assert ("可能原因" in message) == (broken != "diagnosing.keep")
    assert ("Pause ad channel search" in message) == (broken != "advising.attach")
    assert bool(explaining.advised.problems) == (broken == "advising.attach")
