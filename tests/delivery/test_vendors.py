"""From the outbox through `channels.yml` to the vendors: limits, dead letters, secrets that come later."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest

from metrics_pipeline.alerts.listing import notifications
from metrics_pipeline.delivery.channels import PermanentFailure, channels_from
from metrics_pipeline.delivery.messages import compose
from metrics_pipeline.delivery.outbox import deliver_due
from metrics_pipeline.settings import Settings
from metrics_pipeline.store import outbox as rows
from metrics_pipeline.store.records import NewNotification
from tests.delivery.builders import make_notice
from tests.delivery.vendor_stub import Bot

TOKEN = "abcdef0123456789abcdef0123456789"
NOW = datetime(2025, 11, 12, 2, 40, tzinfo=UTC)
FILE = """
channels:
  ops: {kind: dingtalk, url_env: OPS_URL, secret_env: OPS_SECRET}
  erp: {kind: wecom, url_env: WECOM_URL, plot: false}
"""


@pytest.fixture
def channels(stub, tmp_path):
    stub.dingtalk[TOKEN] = Bot(secret="SECabcdef")
    stub.wecom[TOKEN] = Bot()
    (tmp_path / "channels.yml").write_text(FILE)

    def opened(**environ):
        known = {
            "OPS_URL": f"{stub.url}/robot/send?access_token={TOKEN}",
            "OPS_SECRET": "SECabcdef",
            "WECOM_URL": f"{stub.url}/cgi-bin/webhook/send?key={TOKEN}",
        }
        return channels_from(Settings(home=tmp_path), environ=known | environ)

    return opened


def queue(store, *receivers: str) -> None:
    with store.writing("outbox") as connection:
        rows.enqueue(
            connection,
            [
                NewNotification(
                    key=f"{number:032x}",
                    receiver=receiver,
                    group_key=f"rule_{number}",
                    sequence=1,
                    reason="first",
                    tier="red",
                    payload=make_notice(key=f"{number:032x}", receiver=receiver, series=None).to_json(),
                    created_at=NOW,
                )
                for number, receiver in enumerate(receivers)
            ],
        )


def test_the_twenty_first_message_waits_ten_minutes_and_none_is_lost(store, stub, channels):
    stub.clock = NOW.timestamp
    bots = {
        name: channel if name != "ops" else type(channel)("ops", channel.url, channel.secret, clock=stub.clock)
        for name, channel in channels().items()
    }
    queue(store, *["ops"] * 25, "erp")
    report = deliver_due(store, bots, now=NOW)
    assert (report.sent, report.retried, report.waiting) == (21, 1, 5)
    assert len(stub.posts) == 22  # those behind the limit were not even tried
    again = NOW + timedelta(minutes=10)
    assert deliver_due(store, bots, now=again - timedelta(seconds=1)).attempts == ()
    stub.clock = again.timestamp
    bots["ops"] = type(bots["ops"])("ops", bots["ops"].url, bots["ops"].secret, clock=stub.clock)
    assert deliver_due(store, bots, now=again).sent == 5
    assert len(stub.dingtalk[TOKEN].messages) == 25


def test_a_wrong_key_is_a_dead_letter_that_says_what_to_do_and_comes_back(store, stub, channels):
    queue(store, "ops:13800001111")
    [dead] = deliver_due(store, channels(OPS_SECRET="SECwrong"), now=NOW).dead
    assert dead.answer.startswith("310000 sign not match")
    assert "check the bot's security settings" in dead.answer
    with store.writing("outbox") as connection:
        assert rows.revive(connection, dead.key, now=NOW)
    assert deliver_due(store, channels(), now=NOW).sent == 1
    assert notifications(store)[0].answer == "0 ok"
    assert stub.dingtalk[TOKEN].messages[0]["at"]["atMobiles"] == ["13800001111"]


def test_a_secret_that_is_not_set_is_told_and_stops_nobody_else(store, stub, channels):
    queue(store, "ops", "erp")
    report = deliver_due(store, channels(OPS_SECRET=""), now=NOW)
    assert report.sent == 1
    assert [one.answer for one in report.dead] == [
        "the environment variable OPS_SECRET is not set; set it where the pipeline is started"
    ]


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("apprise", "{kind: apprise, url_env: A}", r"metrics-pipeline\[apprise\]"),
        (
            "alibabacloud_dysmsapi20170525",
            "{kind: sms_aliyun, key_id_env: A, key_secret_env: A, sign_name: x, template: y}",
            r"metrics-pipeline\[sms\]",
        ),
        (
            "tencentcloud",
            "{kind: sms_tencent, key_id_env: A, key_secret_env: A, sign_name: x, template: y, app_id: z}",
            r"metrics-pipeline\[sms\]",
        ),
    ],
)
def test_a_library_that_is_not_installed_is_told_with_the_command(tmp_path, monkeypatch, module, text, says):
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "channels.yml").write_text(f"channels:\n  a: {text}\n")
    channel = channels_from(Settings(home=tmp_path), environ={"A": "json://x"})["a"]
    with pytest.raises(PermanentFailure, match=says):
        channel.send(compose(make_notice()), "13800001111")
