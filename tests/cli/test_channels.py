"""`metrics channels`: what there is, and what the other side says to a test message."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from metrics_pipeline.cli.app import app
from tests.delivery.vendor_stub import Bot, VendorStub
from tests.store.databases import new_home

TOKEN = "abcdef0123456789abcdef0123456789"


@pytest.fixture
def stub():
    with VendorStub() as vendors:
        vendors.dingtalk[TOKEN] = Bot(secret="SECabcdef")
        vendors.keys["LTAI-key-id"] = "key-secret-1"
        yield vendors


@pytest.fixture
def home(tmp_path, monkeypatch, stub):
    monkeypatch.setenv("METRICS_HOME", str(new_home(tmp_path)))
    monkeypatch.setenv("OPS_URL", f"{stub.url}/robot/send?access_token={TOKEN}")
    monkeypatch.setenv("OPS_SECRET", "SECabcdef")
    monkeypatch.setenv("SMS_KEY", "LTAI-key-id")
    monkeypatch.setenv("SMS_SECRET", "key-secret-1")
    (tmp_path / "channels.yml").write_text(
        "channels:\n"
        "  ops: {kind: dingtalk, url_env: OPS_URL, secret_env: OPS_SECRET}\n"
        "  unsigned: {kind: dingtalk, url_env: OPS_URL}\n"
        "  sms: {kind: sms_aliyun, key_id_env: SMS_KEY, key_secret_env: SMS_SECRET, sign_name: x, template: SMS_1,"
        f" params: {{text: text}}, base_url: '{stub.url}'}}\n"
    )
    return tmp_path


def run(*arguments: str):
    return CliRunner().invoke(app, ["channels", *arguments])


def test_the_list_has_every_channel_and_its_limit(home):
    result = run("list", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)["channels"]
    assert [(row["name"], row["kind"], row["limit"], row["status"]) for row in rows] == [
        ("file", "file", None, "ready"),
        ("ops", "dingtalk", 18, "ready"),
        ("unsigned", "dingtalk", 18, "ready"),
        ("sms", "sms_aliyun", None, "ready"),
    ]
    assert "dingtalk" in run("list").stdout


def test_the_list_says_what_is_wrong_and_exits_1(home, monkeypatch):
    monkeypatch.delenv("OPS_SECRET")
    (home / "channels.yml").write_text((home / "channels.yml").read_text() + "  bad: {kind: dingding}\n")
    result = run("list", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    wrong = {row["name"]: row["problem"] for row in found["channels"] if row["status"] == "unusable"}
    assert "OPS_SECRET is not set" in wrong["ops"]
    assert "channels.yml:5: bad: this kind is not known" in wrong["bad"]
    table = run("list")
    assert table.exit_code == 1
    assert "unusable" in table.stdout


def test_a_file_that_is_not_yaml_is_told_once(home):
    (home / "channels.yml").write_text("channels: [")
    result = run("list")
    assert result.exit_code == 1
    assert "channels.yml:1: this is not valid YAML" in result.stderr


def test_a_test_message_shows_the_vendors_own_answer(home, stub):
    result = run("test", "ops", "--to", "13800001111")
    assert result.exit_code == 0
    assert "took the message: 0 ok" in result.stdout
    [message] = stub.dingtalk[TOKEN].messages
    assert "测试消息，不是报警" in message["markdown"]["title"]
    assert message["at"]["atMobiles"] == ["13800001111"]


def test_a_refusal_shows_code_text_and_mend_and_exits_1(home, stub):
    result = run("test", "unsigned")
    assert result.exit_code == 1
    for said in ("permanent", "310000 sign not match", "check the bot's security settings"):
        assert said in result.stderr
    assert TOKEN not in result.output
    found = json.loads(run("test", "unsigned", "--json").stdout)
    assert (found["outcome"], found["code"]) == ("permanent", "310000")


def test_a_rate_limit_says_when_again(home, stub):
    stub.dingtalk[TOKEN].silent_until = stub.clock() + 60
    found = json.loads(run("test", "ops", "--json").stdout)
    assert (found["outcome"], found["code"], found["retry_after"]) == ("rate-limited", "130101", 600.0)


def test_a_text_message_needs_a_number(home, stub):
    assert run("test", "sms", "--to", "13800001111").exit_code == 0
    assert len(stub.sms) == 1
    result = run("test", "sms")
    assert result.exit_code == 1
    assert "no phone number" in result.stderr


def test_an_unknown_channel_is_wrong_usage_and_names_those_there_are(home):
    result = run("test", "nobody")
    assert result.exit_code == 2
    assert "file, ops, unsigned, sms" in result.stderr


def test_the_program_shows_no_traceback_and_no_token(home):
    done = subprocess.run(
        [sys.executable, "-m", "metrics_pipeline.cli", "channels", "test", "unsigned"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr + done.stdout
