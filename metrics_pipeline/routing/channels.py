"""What routing knows of a channel: its name, its kind, and whom it reaches when nobody is named.

How a channel speaks, and its secrets, are not known here (`delivery.channels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from metrics_pipeline.settings import Settings
from metrics_pipeline.yaml_values import YAMLError, read_yaml

CONTACTS: Final[Mapping[str, str]] = {
    "smtp": "email",
    "sms_aliyun": "phone",
    "sms_tencent": "phone",
}
"""Kind of a channel that writes to each person → the contact it writes to."""
ROOMS: Final = frozenset({"dingtalk", "wecom", "feishu"})
"""Kinds that speak into a room, where people are mentioned by a contact of the kind's own name, else by phone."""
BUILT_IN: Final = ("file", "smtp", "console")


@dataclass(frozen=True)
class ChannelCard:
    """One channel, as far as routing is concerned."""

    name: str
    kind: str
    addresses: tuple[str, ...] = ("",)
    """Whom it reaches when nobody is named; '' is the channel as such (a room, a folder); () is nobody."""

    @property
    def contact(self) -> str | None:
        """The contact it writes to, when it writes to each person."""
        return CONTACTS.get(self.kind)

    @property
    def is_room(self) -> bool:
        return self.kind in ROOMS


def channel_cards(settings: Settings) -> dict[str, ChannelCard]:
    """The channels of an installation by name: the built-in ones, and those of `<home>/channels.yml`.

    `smtp` reaches the addresses of METRICS_EMAIL_TO, and nobody where METRICS_SMTP_URL is not set. What is wrong with
    `channels.yml` is told where channels are opened, not here.
    """
    addresses = settings.email_to if settings.smtp_url is not None else ()
    cards = {
        "file": ChannelCard("file", "file"),
        "console": ChannelCard("console", "console", addresses=()),
        "smtp": ChannelCard("smtp", "smtp", addresses=tuple(addresses)),
    }
    path = settings.channels_file
    try:
        content = read_yaml(path.read_text("utf-8")) if path.exists() else None
    except (YAMLError, OSError, UnicodeDecodeError):
        return cards
    listed = content.get("channels") if isinstance(content, dict) else None
    for name, options in listed.items() if isinstance(listed, dict) else ():
        if isinstance(options, dict) and "kind" in options:
            kind = str(options["kind"])
            cards[str(name)] = ChannelCard(str(name), kind, addresses=() if kind in CONTACTS else ("",))
    return cards
