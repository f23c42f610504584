"""Everything else through Apprise: Slack, Teams, Telegram, PagerDuty, ntfy and a hundred more, each by its Apprise URL.

Apprise says only whether it worked; what the service answered is in its log, and the HTTP status there decides whether
another try makes sense. Not for DingTalk, WeCom and Feishu: Apprise takes their HTTP 200 for success. Optional.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Literal

from metrics_pipeline.delivery.channels.channel import Failure, PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.configuration import ChannelSettings, EnvName, Vault
from metrics_pipeline.delivery.channels.redaction import redacted
from metrics_pipeline.delivery.forms import CommonMarkdown, markdown
from metrics_pipeline.delivery.messages import Message

LIMIT_BYTES = 8_000
"""Of the Markdown; Apprise cuts or splits what is longer than a service takes."""
OWN = ("dingtalk", "wecom", "wecombot", "feishu", "lark")
"""Schemas that have channels of their own here."""


class AppriseSettings(ChannelSettings):
    """An Apprise URL in `channels.yml`."""

    required_secrets: ClassVar[tuple[str, ...]] = ("url",)

    kind: Literal["apprise"] = "apprise"
    url_env: EnvName | None = None
    url_file: Path | None = None
    plot: bool = True
    """Whether the plot goes along as a file, where the service takes one."""

    def open(self, name: str, vault: Vault) -> AppriseChannel:
        """The channel. Raises `SettingsError` when the secret cannot be read."""
        return AppriseChannel(name=name, url=vault.secret(self, "url"), plot=self.plot, limit=self.limit)


@dataclass(frozen=True)
class AppriseChannel:
    """One Apprise URL. The address is not used: the URL says to whom."""

    name: str
    url: str = field(repr=False)
    plot: bool = True
    limit: int | None = None

    def send(self, message: Message, address: str) -> str:
        """Send and return the name of the service. Raises a `Failure`."""
        try:
            from apprise import Apprise, LogCapture, NotifyFormat, NotifyType
        except ImportError:
            raise PermanentFailure(
                "Apprise is not installed", mend="install it: pip install 'metrics-pipeline[apprise]'"
            ) from None
        if self.url.partition("://")[0].lower() in OWN:
            raise PermanentFailure(
                "Apprise does not see what this vendor refuses", mend="use kind: dingtalk, wecom or feishu"
            )
        service = Apprise.instantiate(self.url, suppress_exceptions=True)
        if service is None:
            raise PermanentFailure(
                "the URL is not one that Apprise knows",
                mend="write it as the Apprise documentation of the service shows",
            )
        if getattr(service, "dedup", "given") is None:  # PagerDuty: the end closes the incident of its beginning
            service.dedup = (message.notice.group or message.notice.rule.id)[:255]
        kind = NotifyType.SUCCESS if message.is_over else KINDS[message.notice.tier]
        with tempfile.TemporaryDirectory() as folder, LogCapture(level=30, fmt="%(message)s") as log:
            attached = None
            if self.plot and message.plot is not None and not message.is_over and service.attachment_support:
                path = Path(folder) / "plot.png"
                path.write_bytes(message.plot.png())
                attached = str(path)
            try:
                sender = Apprise()
                sender.add(service)
                went = sender.notify(
                    title=message.title,
                    body=markdown(message, CommonMarkdown(), LIMIT_BYTES, heading=False),
                    body_format=NotifyFormat.MARKDOWN,
                    notify_type=NotifyType(kind),
                    attach=attached,
                )
            except Exception as error:
                raise TemporaryFailure(f"Apprise: {redacted(str(error)) or type(error).__name__}") from None
            said = redacted(" ".join(log.getvalue().split()))
        if went:
            return f"taken by {service.service_name}"
        raise failure(said or f"{service.service_name} did not take the message")


KINDS = {"red": "failure", "yellow": "warning", "none": "info"}


def failure(said: str) -> Failure:
    """The failure that Apprise's log tells: by the HTTP status it names, else temporary."""
    found = re.search(r"error=(\d{3})\b|\b(?:HTTP|status)[ :=]+(\d{3})\b", said)
    status = int(found[1] or found[2]) if found else 0
    if status == 429:
        return RateLimited(said, code="429", retry_after=timedelta(minutes=1))
    if 400 <= status < 500 and status != 408:
        return PermanentFailure(said, code=str(status), mend="check the URL of the channel")
    return TemporaryFailure(said, code=str(status) if status else "")
