"""Services work by grants of their own, and stop at once when one is revoked."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest
from typer.testing import CliRunner

from metrics_pipeline.access.services import DELIVERY, NEEDS, NIGHTLY, may_work
from metrics_pipeline.cli.app import app
from metrics_pipeline.delivery.guard import MessageGuard
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.orchestration.services import require_nightly
from metrics_pipeline.routing.decide import direct
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import access, open_store
from tests.alerts.builders import NOW as NIGHT
from tests.alerts.builders import make_card, make_verdict
from tests.delivery.builders import Recorder


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """A closed installation that `boss` administers; `li` may read everything and nothing else."""
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text("people: [{id: boss}, {id: li}]\n", "utf-8")
    for name, value in {"HOME": tmp_path / "home", "RULES_DIR": rules, "USER": "boss"}.items():
        monkeypatch.setenv(f"METRICS_{name}", str(value))
    assert run("access", "enable", "--admin", "boss").exit_code == 0
    assert run("access", "grant", "li", "--all", "--reason", "reads").exit_code == 0
    return Settings(home=tmp_path / "home", rules_dir=rules)


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def grant_number(settings: Settings, service: str) -> str:
    store = open_store(settings)
    with store.reading() as connection:
        [given] = access.grants(connection, subjects=[("service", service)])
    store.close()
    return str(given.id)


def test_a_home_has_the_grants_of_its_services_and_each_only_what_it_needs(settings):
    store = open_store(settings)
    with store.reading() as connection:
        given = {row.subject: row.actions for row in access.grants(connection) if row.subject_kind == "service"}
        assert all(may_work(connection, service, now=datetime.now(UTC)) for service in NEEDS)
    store.close()
    assert given == {service: [action] for service, action in NEEDS.items()}


def test_a_night_stops_when_its_grant_is_revoked_and_goes_on_when_it_is_given_again(settings):
    require_nightly(settings)
    assert run("access", "revoke", grant_number(settings, NIGHTLY), "--reason", "maintenance").exit_code == 0
    with pytest.raises(dg.Failure, match=r"service\.nightly may not operate") as failed:
        require_nightly(settings)
    assert not failed.value.allow_retries
    again = ("access", "grant", "service:nightly", "--action", "operate", "--all", "--reason", "done")
    assert run(*again).exit_code == 0
    require_nightly(settings)


def test_messages_wait_while_the_sender_may_not_send(settings):
    from metrics_pipeline.alerts import apply_verdicts

    store = open_store(settings)
    apply_verdicts(store, [make_verdict("red")], {"refund_rate_surge": make_card()}, receivers=("file",), now=NIGHT)
    guard, channel = MessageGuard(store, lambda: direct(("file",))), Recorder()
    number = grant_number(settings, DELIVERY)
    assert run("access", "revoke", number, "--reason", "wrong address").exit_code == 0
    report = deliver_due(store, {"file": channel}, now=datetime.now(UTC), guard=guard)
    assert (report.sent, report.waiting) == (0, 1) and "service.delivery may not deliver" in report.refused
    run("access", "grant", "service:delivery", "--action", "deliver", "--all", "--reason", "mended")
    assert deliver_due(store, {"file": channel}, now=datetime.now(UTC), guard=guard).sent == 1
    store.close()


@pytest.mark.parametrize(
    "command",
    ["nightly", "backfill", "demo --no-ui", "load simulator", "ui", "doctor", "compile", "api serve", "routes show", "channels list"],
)  # fmt: skip
def test_who_may_only_read_runs_and_looks_after_nothing(settings, monkeypatch, command):
    monkeypatch.setenv("METRICS_USER", "li")
    result = run(*command.split())
    assert result.exit_code == 1 and "li may not" in result.output
