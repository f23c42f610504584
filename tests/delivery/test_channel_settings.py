"""`channels.yml`: what it may say, where secrets come from, and what a person is told."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from metrics_pipeline.delivery.channels import PermanentFailure, channels_from, read_channels
from metrics_pipeline.delivery.channels.configuration import Mentions
from metrics_pipeline.delivery.channels.redaction import keep_secret, redacted
from metrics_pipeline.delivery.channels.settings import KINDS, UnusableChannel, kind_of
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.settings import Settings
from tests.delivery.builders import make_notice

ALL = """
channels:
  ops_dingtalk:
    kind: dingtalk
    url_env: DT_URL
    secret_file: secrets/dingtalk
    keyword: 报警
    mention: {phones: ["13800001111"], users: [manager7]}
  night_dingtalk: {kind: dingtalk, url_env: DT_URL, limit: 5}
  ops_wecom: {kind: wecom, url_env: WC_URL, base_url: "http://gate.shop:8080"}
  ops_feishu: {kind: feishu, url_env: FS_URL, app_id: cli_1, app_secret_env: FS_APP}
  mail: {kind: smtp, url_env: MAIL_URL, sender: "Metrics <m@shop.example>"}
  sms: {kind: sms_aliyun, key_id_env: KEY, key_secret_env: SECRET, sign_name: 指标台, template: SMS_1, params: {text: text}}
  sms_backup: {kind: sms_tencent, key_id_env: KEY, key_secret_env: SECRET, sign_name: 指标台, template: "1", app_id: "14", params: [text]}
  erp: {kind: webhook, url_env: HOOK_URL, secret_env: HOOK_SECRET}
  slack: {kind: apprise, url_env: SLACK}
"""
ENVIRON = {
    "DT_URL": "https://oapi.dingtalk.com/robot/send?access_token=dt-token-1",
    "WC_URL": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=wc-token-1",
    "FS_URL": "https://open.feishu.cn/open-apis/bot/v2/hook/fs-token-1",
    "FS_APP": "fs-app-secret",
    "MAIL_URL": "smtps://user:mail-password@mail.shop.example",
    "KEY": "LTAI-key-id",
    "SECRET": "key-secret-1",
    "HOOK_URL": "https://erp.shop.example/hook",
    "HOOK_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "SLACK": "slack://TokenA123/TokenB1234/TokenC12345/#ops",
}


def settings_with(home, text: str) -> Settings:
    (home / "channels.yml").write_text(text, encoding="utf-8")
    return Settings(home=home)


def problems(home, text: str) -> list[str]:
    settings = settings_with(home, text)
    return [
        str(one).removeprefix(f"{settings.channels_file}:") for one in read_channels(settings.channels_file).problems
    ]


def test_every_kind_opens_from_its_settings(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "dingtalk").write_text("SECfromfile\n")
    channels = channels_from(settings_with(tmp_path, ALL), environ=ENVIRON)
    assert {kind_of(channel) for channel in channels.values()} == {*KINDS, "file"}
    assert not [one.problem for one in channels.values() if isinstance(one, UnusableChannel)]
    assert {name: channel.limit for name, channel in channels.items()} == {
        "file": None,
        "ops_dingtalk": 18,
        "night_dingtalk": 5,
        "ops_wecom": 9,
        "ops_feishu": 18,
        "mail": None,
        "sms": None,
        "sms_backup": None,
        "erp": None,
        "slack": None,
    }
    assert channels["ops_dingtalk"].secret == "SECfromfile"
    assert channels["ops_wecom"].url == "http://gate.shop:8080/cgi-bin/webhook/send?key=wc-token-1"
    shown = repr(channels)
    for secret in (
        "dt-token-1",
        "SECfromfile",
        "wc-token-1",
        "fs-app-secret",
        "mail-password",
        "key-secret-1",
        "whsec_M",
        "TokenB",
    ):
        assert secret not in shown


def test_no_file_is_no_channels(tmp_path):
    assert read_channels(tmp_path / "channels.yml").settings == {}
    (tmp_path / "channels.yml").write_text("# nothing yet\n")
    assert read_channels(tmp_path / "channels.yml").problems == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("channels: [", ["1: this is not valid YAML; mend the YAML at this line"]),
        ("bots: {}", ["1: there is no mapping `channels:`; write channels: {ops_dingtalk:"]),
        ("channels: {}\nbots: {}", ["2: key 'bots' is not known; only channels: stands at the top"]),
        ("channels:\n  Ops: {kind: wecom}", ["2: Ops: this is not a name for a channel; use small letters"]),
        ("channels:\n  file: {kind: wecom}", ["2: file: this name is taken by a built-in channel"]),
        ("channels:\n  a: 7", ["2: a: a channel must be a mapping"]),
        ("channels:\n  a: {url_env: X}", ["2: a: kind is missing; the kinds are dingtalk, wecom, feishu, smtp"]),
        ("channels:\n  a:\n    kind: dingding", ["3: a: this kind is not known; the kinds are dingtalk"]),
        (
            "channels:\n  a: {kind: wecom}",
            ["2: a: url is not named; write url_env: <environment variable> or url_file"],
        ),
        (
            "channels:\n  a:\n    kind: wecom\n    url: https://qyapi/send?key=very-secret-1",
            [
                "4: a: url must not stand in this file; put it into an environment variable or a file and name it: url_env"
            ],
        ),
        (
            "channels:\n  a:\n    kind: wecom\n    url_env: https://qyapi/send?key=very-secret-1",
            ["4: a: url_env is not the name of an environment variable; write a name such as DINGTALK_OPS_URL"],
        ),
        (
            "channels:\n  a: {kind: wecom, url_env: X, url_file: y}",
            ["2: a: url is named twice; keep url_env or url_file"],
        ),
        (
            "channels:\n  a:\n    kind: wecom\n    url_env: X\n    limit: 0",
            ["5: a: limit: Input should be greater than"],
        ),
        (
            "channels:\n  a:\n    kind: wecom\n    url_env: X\n    keyword: y",
            ["5: a: key 'keyword' is not known; rename"],
        ),
        (
            "channels:\n  a:\n    kind: dingtalk\n    url_env: X\n    mention:\n      phones: [12]",
            ["6: a: "],
        ),
        (
            "channels:\n  a: {kind: feishu, url_env: X, mention: {phones: ['13800001111']}}",
            ["2: a: a Feishu bot cannot call people by phone; write their ids or emails as mention.users"],
        ),
        ("channels:\n  a: {kind: feishu, url_env: X, app_id: cli_1}", ["2: a: app_id and its secret belong together"]),
        (
            "channels:\n  a:\n    kind: sms_tencent\n    key_id_env: K\n    key_secret_env: S\n    sign_name: x\n"
            "    template: '1'\n    params: [txt]",
            ["2: a: app_id is missing; add it", "8: a: 0: field 'txt' is not known; the fields are status, metric"],
        ),
    ],
)
def test_everything_wrong_is_told_with_line_and_mend(tmp_path, text, says):
    told = problems(tmp_path, text)
    assert len(told) == len(says)
    for one, expected in zip(told, says, strict=True):
        assert one.startswith(expected), told
    assert "very-secret-1" not in str(told)


def test_a_broken_channel_stops_only_itself(tmp_path, caplog):
    text = "channels:\n  a: {kind: wecom}\n  b: {kind: wecom, url_env: WC_URL}\n  c: {kind: wecom, url_env: NOT_SET}\n"
    with caplog.at_level(logging.WARNING):
        channels = channels_from(settings_with(tmp_path, text), environ=ENVIRON)
    assert list(channels) == ["file", "a", "b", "c"]
    for name, says in (("a", "url is not named"), ("c", "the environment variable NOT_SET is not set; set it")):
        with pytest.raises(PermanentFailure, match=says):
            channels[name].send(compose(make_notice()), "")
        assert says in caplog.text
    assert not isinstance(channels["b"], UnusableChannel)


@pytest.mark.parametrize(
    ("kind", "variable", "value", "says"),
    [
        ("wecom, url_env: X", "X", "very-secret-1", "X: not a URL of http or https; copy the whole address"),
        ("webhook, url_env: HOOK_URL, secret_env: X", "X", "short-secret", "X: not a webhook secret; expected whsec_"),
        ("smtp, sender: a@b, url_env: X", "X", "very-secret-1", "X: not an SMTP URL"),
        ("wecom, url_file: none/here", "X", "", "this file of a secret cannot be read"),
    ],
)
def test_a_secret_of_the_wrong_form_is_told_without_it(tmp_path, kind, variable, value, says):
    settings = settings_with(tmp_path, f"channels:\n  a: {{kind: {kind}}}\n")
    channel = channels_from(settings, environ={**ENVIRON, variable: value})["a"]
    assert isinstance(channel, UnusableChannel)
    assert says in channel.problem
    assert value == "" or value not in channel.problem


@pytest.mark.parametrize(
    ("address", "phones", "users", "everybody"),
    [
        ("", (), (), False),
        ("13800001111, +8613900002222", ("13800001111", "+8613900002222"), (), False),
        ("manager7,@12345678901,@all", (), ("manager7", "12345678901"), True),
        ("ann@shop.example", (), ("ann@shop.example",), False),
    ],
)
def test_addresses_of_bots_are_people(address, phones, users, everybody):
    called = Mentions.of_address(address)
    assert (called.phones, called.users, called.all) == (phones, users, everybody)


def test_secrets_and_urls_are_redacted():
    keep_secret("https://user:pass-word@hooks.example/services/T0000000000000001?token=tiny-token")
    text = redacted("GET https://hooks.example/services/x?y=1 failed for tiny-token at T0000000000000001: pass-word")
    assert text == "GET https://hooks.example/*** failed for *** at ***: ***"
    assert redacted("no secret here, 12.3%") == "no secret here, 12.3%"


def test_channels_import_nothing_heavy_before_they_are_used(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "dingtalk").write_text("SECfromfile\n")
    settings_with(tmp_path, ALL)
    code = (
        "import sys, json; from pathlib import Path\n"
        "from metrics_pipeline.delivery.channels import channels_from\nfrom metrics_pipeline.settings import Settings\n"
        f"found = channels_from(Settings(home=Path({str(tmp_path)!r})), environ=json.loads({json.dumps(ENVIRON)!r}))\n"
        "assert len(found) == 10\n"
        "heavy = ('httpx', 'apprise', 'standardwebhooks', 'Tea', 'aiohttp', 'tencentcloud', 'requests', 'matplotlib', 'dagster')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
