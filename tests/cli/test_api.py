"""`metrics api`: tokens on the command line, and the OpenAPI document."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from metrics_pipeline.api.tokens import find_token
from metrics_pipeline.cli.app import app
from metrics_pipeline.settings import load_settings
from metrics_pipeline.store import open_store
from tests.store.databases import new_home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("METRICS_USER", "li")
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "_people.yml").write_text("people:\n  - {id: li, name_zh: 李雷}\n  - {id: wang}\n", "utf-8")
    monkeypatch.setenv("METRICS_RULES_DIR", str(rules))
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["api", *arguments])


def answer(*arguments: str):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_token_is_shown_once_and_only_its_hash_is_kept(home):
    made = answer("token", "create", "li", "--name", "notebook", "--expires", "2199-12-31")
    secret = made["token"].split("_", 2)[2]
    store = open_store(load_settings())
    with store.reading() as connection:
        assert find_token(connection, made["token"]).person == "li"
        assert find_token(connection, made["token"][:-1] + "!") is None
        kept = str(connection.execute(sa.text("SELECT * FROM api_tokens")).all())
        kept += str(connection.execute(sa.text("SELECT * FROM audit_log")).all())
    store.close()
    assert made["id"] in kept and secret not in kept
    listed = run("token", "list", "--json").stdout
    assert secret not in listed and json.loads(listed)["tokens"][0]["holds"] is True
    assert made["expires_at"] == "2199-12-31T16:00:00+00:00"  # the end of the day in Shanghai


def test_a_revoked_token_is_listed_as_such_and_cannot_be_revoked_again(home):
    number = answer("token", "create", "wang", "--expires", "never")["id"]
    assert answer("token", "revoke", number)["revoked"] is True
    assert run("token", "revoke", number).exit_code == 1
    assert run("token", "revoke", "000000000000").exit_code == 2
    assert [one["revoked_by"] for one in answer("token", "list", "--person", "wang")["tokens"]] == ["li"]


def test_under_a_policy_tokens_of_others_are_the_administrators_business(home, monkeypatch):
    CliRunner().invoke(app, ["access", "enable", "--admin", "li"])
    mine = answer("token", "create", "li")["id"]
    assert (
        run("token", "create", "wnag").exit_code == 2 and "did you mean 'wang'" in run("token", "create", "wnag").output
    )
    monkeypatch.setenv("METRICS_USER", "wang")
    assert run("token", "create", "li").exit_code == 1 and run("token", "list", "--person", "li").exit_code == 1
    unknown, others = run("token", "revoke", "ffffffffffff"), run("token", "revoke", mine)
    assert others.exit_code == 2 and others.output.replace(mine, "x") == unknown.output.replace("ffffffffffff", "x")
    own = answer("token", "create", "wang")["id"]
    assert [one["id"] for one in answer("token", "list")["tokens"]] == [own]
    assert run("serve").exit_code == 1


@pytest.mark.parametrize("day", ["soon", "2020-01-01", "2026-02-30"])
def test_an_end_that_is_no_day_or_over_is_refused(home, day):
    assert run("token", "create", "li", "--expires", day).exit_code == 2


def test_the_openapi_document_is_written_without_anything_of_the_installation(home):
    result = run("openapi", "--out", str(home / "openapi.json"))
    assert result.exit_code == 0
    text = (home / "openapi.json").read_text("utf-8")
    assert json.loads(text)["openapi"].startswith("3.1") and str(home) not in text
