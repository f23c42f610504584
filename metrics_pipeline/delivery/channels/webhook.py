"""Signed webhooks: a CloudEvents 1.0 event as structured JSON, signed as Standard Webhooks ask (`webhook-id`, `-timestamp`, `-signature`).

The event's id is the notification's key, so a receiver recognises what came twice. The receiver checks the signature with
any Standard Webhooks library and answers 2xx.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from metrics_pipeline.delivery.channels.bots import rebased
from metrics_pipeline.delivery.channels.channel import PermanentFailure
from metrics_pipeline.delivery.channels.configuration import BaseUrl, ChannelSettings, EnvName, Vault
from metrics_pipeline.delivery.channels.posting import TIMEOUT, as_json, post
from metrics_pipeline.delivery.messages import Message
from metrics_pipeline.settings import SettingsError

TYPE_PREFIX = "metrics_pipeline.alert"
DRILL_PREFIX = "metrics_pipeline.drill"
"""Of what is not real: a receiver that acts on alerts never sees a drill as one."""
STATES = {"some_resolved": "partly_resolved", "all_resolved": "resolved", "cancelled": "cancelled"}


class WebhookSettings(ChannelSettings):
    """A webhook in `channels.yml`."""

    required_secrets: ClassVar[tuple[str, ...]] = ("url", "secret")

    kind: Literal["webhook"] = "webhook"
    url_env: EnvName | None = None
    url_file: Path | None = None
    secret_env: EnvName | None = None
    """`whsec_` and at least 24 bytes in base64, shared with the receiver."""
    secret_file: Path | None = None
    base_url: BaseUrl | None = None
    timeout: float = TIMEOUT

    def open(self, name: str, vault: Vault) -> WebhookChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read or is not of the form."""
        secret = vault.secret(self, "secret")
        try:
            is_long = len(base64.b64decode(secret.removeprefix("whsec_") + "==", validate=False)) >= 24
        except (binascii.Error, ValueError):
            is_long = False
        if not is_long:
            raise SettingsError(
                f"{self.secret_env or self.secret_file}: not a webhook secret; expected whsec_ and base64 of at least 24 bytes, "
                "such as: echo whsec_$(openssl rand -base64 32)"
            )
        url = rebased(vault.url(self), self.base_url)
        return WebhookChannel(name=name, url=url, secret=secret, limit=self.limit, timeout=self.timeout)


@dataclass(frozen=True)
class WebhookChannel:
    """One receiver. The address is handed on as `data.address`."""

    name: str
    url: str = field(repr=False)
    secret: str = field(repr=False)
    limit: int | None = None
    timeout: float = TIMEOUT
    clock: Callable[[], float] = time.time

    def send(self, message: Message, address: str) -> str:
        """Post the event and return `<status> <body>`. Raises a `Failure`; 410 says that the receiver is gone."""
        from standardwebhooks import Webhook

        body = as_json(event(message, address))
        moment = datetime.fromtimestamp(int(self.clock()), UTC)
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": message.id,
            "webhook-timestamp": str(int(moment.timestamp())),
            "webhook-signature": Webhook(self.secret).sign(message.id, moment, body.decode("utf-8")),
        }
        reply = post(self.url, body=body, headers=headers, timeout=self.timeout)
        try:
            reply.check()
        except PermanentFailure as failure:
            mend = MENDS.get(reply.status, "")
            raise PermanentFailure(failure.answer, code=failure.code, mend=mend) from None
        return f"{reply.status} {reply.shown}".strip()


MENDS = {
    401: "the receiver refused the signature: check that both sides have the same secret",
    403: "the receiver refused the signature: check that both sides have the same secret",
    404: "check the address of the receiver",
    410: "the receiver is gone: remove the channel",
}


def event(message: Message, address: str = "") -> dict[str, Any]:
    """The CloudEvents 1.0 event of a message: `data` has the words and the whole notice as `docs/channels.md` says."""
    notice = message.notice
    return {
        "specversion": "1.0",
        "id": message.id,
        "source": message.wording.ui_url.rstrip("/") or "/",
        "type": f"{DRILL_PREFIX if message.is_drill else TYPE_PREFIX}.{STATES.get(notice.reason, 'firing')}",
        "subject": notice.rule.id,
        "time": notice.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": {
            "title": message.title,
            "text": message.text,
            "severity": "none" if message.is_over else notice.tier,
            "link": message.link,
            "runbook": message.runbook,
            "address": address,
            "notice": notice.to_json(),
        },
    }
