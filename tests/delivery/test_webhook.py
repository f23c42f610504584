"""Signed CloudEvents and Apprise over HTTP."""

from __future__ import annotations

import base64
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from metrics_pipeline.alerts.notice import Notice
from metrics_pipeline.delivery.channels import PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.apprise import AppriseChannel
from metrics_pipeline.delivery.channels.posting import parse_retry_after
from metrics_pipeline.delivery.channels.redaction import keep_secret
from metrics_pipeline.delivery.channels.webhook import WebhookChannel
from metrics_pipeline.delivery.messages import compose
from tests.delivery.builders import make_drill, make_end, make_notice
from tests.delivery.vendor_stub import Answer

MESSAGE, END = compose(make_notice()), compose(make_end())
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def webhook(stub, **options) -> WebhookChannel:
    return WebhookChannel("erp", f"{stub.url}/webhook", options.pop("secret", SECRET), **options)


def test_the_receiver_verifies_the_signature_and_gets_a_cloud_event(stub):
    stub.webhook_secret = SECRET
    assert webhook(stub).send(MESSAGE, "team-7") == "202 thanks"
    [event] = stub.events
    post = stub.posts[0]
    assert post.headers["content-type"].startswith("application/cloudevents+json")
    assert post.headers["webhook-id"] == event["id"] == MESSAGE.id
    assert (event["specversion"], event["type"], event["subject"]) == (
        "1.0",
        "metrics_pipeline.alert.firing",
        "refund_rate_surge",
    )
    assert event["time"] == "2025-11-12T02:40:00Z"
    assert (event["data"]["severity"], event["data"]["address"]) == ("red", "team-7")
    assert Notice.from_json(event["data"]["notice"]) == MESSAGE.notice
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(post.body.replace(b"red", b"low"), post.headers)


def test_an_end_is_a_type_of_its_own(stub):
    stub.webhook_secret = SECRET
    webhook(stub).send(END, "")
    assert (stub.events[0]["type"], stub.events[0]["data"]["severity"]) == ("metrics_pipeline.alert.resolved", "none")


def test_a_drill_is_no_alert_for_whoever_acts_on_the_type(stub):
    stub.webhook_secret = SECRET
    webhook(stub).send(compose(make_drill()), "")
    assert (stub.events[0]["type"], stub.events[0]["subject"]) == (
        "metrics_pipeline.drill.firing",
        "drill:refund_rate_surge",
    )
    assert stub.events[0]["data"]["title"].startswith("[演练 · ")


def test_another_secret_and_an_old_signature_are_refused(stub):
    stub.webhook_secret = SECRET
    other = "whsec_" + base64.b64encode(b"another-secret-of-32-bytes-long!").decode()
    for options in ({"secret": other}, {"clock": lambda: 1_700_000_000.0}):
        with pytest.raises(PermanentFailure, match="same secret") as caught:
            webhook(stub, **options).send(MESSAGE, "")
        assert caught.value.code == "401"


@pytest.mark.parametrize(
    ("answer", "kind", "wait"),
    [
        (Answer("slow", 429, {"Retry-After": "120"}), RateLimited, timedelta(minutes=2)),
        (Answer("slow", 429), RateLimited, timedelta(minutes=1)),
        (Answer("", 503, {"Retry-After": "9"}), TemporaryFailure, timedelta(seconds=9)),
        (Answer("", 500), TemporaryFailure, None),
        (Answer("", 408), TemporaryFailure, None),
        (Answer("", 410), PermanentFailure, None),
        (Answer("", 400), PermanentFailure, None),
        (Answer("", 301, {"Location": "/elsewhere"}), PermanentFailure, None),
    ],
)
def test_a_status_decides(stub, answer, kind, wait):
    stub.scripted.append(answer)
    with pytest.raises(kind) as caught:
        webhook(stub).send(MESSAGE, "")
    assert type(caught.value) is kind
    assert caught.value.code == str(answer.status)
    assert getattr(caught.value, "retry_after", None) == wait


def test_a_receiver_that_takes_its_time_is_tried_again(stub):
    stub.webhook_secret, stub.delay = SECRET, 0.6
    with pytest.raises(TemporaryFailure, match=r"did not answer within 0\.2 s"):
        webhook(stub, timeout=0.2).send(MESSAGE, "")


def test_retry_after_is_seconds_or_a_date():
    date = "Wed, 12 Nov 2025 02:40:00 GMT"
    assert parse_retry_after("Wed, 12 Nov 2025 02:41:30 GMT", date=date) == timedelta(seconds=90)
    assert parse_retry_after("Wed, 12 Nov 2025 02:00:00 GMT", date=date) == timedelta()
    assert parse_retry_after("99999999999") == timedelta(days=1)
    assert parse_retry_after(datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")) == timedelta()
    assert parse_retry_after("soon") is parse_retry_after(None) is None


# -- Apprise -----------------------------------------------------------------------------------------------------------


def apprise(stub, path="json://{host}/a/apprise-token-1", **options) -> AppriseChannel:
    return AppriseChannel("slack", keep_secret(path.format(host=stub.host)), **options)


def test_apprise_sends_title_body_kind_and_plot(stub):
    stub.scripted.append(Answer("ok"))
    assert apprise(stub).send(MESSAGE, "") == "taken by JSON"
    said = stub.posts[0].json
    assert said["title"] == MESSAGE.title
    assert "after-sales" in said["message"]
    assert said["type"] == "failure"
    assert said["attachments"][0]["mimetype"] == "image/png"
    stub.scripted.append(Answer("ok"))
    apprise(stub, plot=False).send(END, "")
    assert (stub.posts[1].json["type"], stub.posts[1].json["attachments"]) == ("success", [])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, RateLimited), (500, TemporaryFailure), (403, PermanentFailure), (404, PermanentFailure)],
)
def test_apprise_failures_are_sorted_by_the_status_in_its_log(stub, status, kind, caplog):
    stub.scripted.append(Answer("no", status))
    with caplog.at_level(logging.DEBUG), pytest.raises(kind) as caught:
        apprise(stub).send(MESSAGE, "")
    assert type(caught.value) is kind
    assert caught.value.code == str(status)
    assert "apprise-token-1" not in str(caught.value)
    assert "apprise-token-1" not in caplog.text


def test_the_end_resolves_the_incident_of_its_beginning_in_pagerduty(stub, monkeypatch):
    from apprise.plugins import pagerduty

    monkeypatch.setitem(pagerduty.PAGERDUTY_API_LOOKUP, "us", f"{stub.url}/v2/enqueue")
    channel = apprise(stub, "pagerduty://integration-key@api-key-12?action=map")
    stub.scripted += [Answer({"status": "success"}, 202), Answer({"status": "success"}, 202)]
    channel.send(MESSAGE, "")
    channel.send(END, "")
    said = [(post.json["event_action"], post.json["dedup_key"]) for post in stub.posts]
    assert said == [("trigger", "refund_rate_surge"), ("resolve", "refund_rate_surge")]


def test_apprise_without_a_connection_is_temporary(stub):
    with pytest.raises(TemporaryFailure):
        AppriseChannel("slack", "json://127.0.0.1:9/x").send(MESSAGE, "")


@pytest.mark.parametrize(
    ("url", "says"), [("nothing://x", "not one that Apprise knows"), ("feishu://token", "kind: dingtalk")]
)
def test_a_url_that_cannot_work_is_final(url, says):
    with pytest.raises(PermanentFailure, match=says):
        AppriseChannel("slack", url).send(MESSAGE, "")


def test_what_is_posted_is_json_without_escapes(stub):
    stub.webhook_secret = SECRET
    webhook(stub).send(MESSAGE, "")
    assert "退款率".encode() in stub.posts[0].body
    assert json.loads(stub.posts[0].body)["data"]["title"] == MESSAGE.title
