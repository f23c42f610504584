"""DingTalk group bots (自定义机器人): Markdown, signed in the query string, people called by phone or user id.

Rules of the vendor (open.dingtalk.com, custom bot): sign = base64(HMAC-SHA256(key=secret, "<ms>\\n<secret>")), at most an
hour old; 20 messages a minute, then ten minutes of silence; 20,000 bytes a message; someone is called when named both in
`at` and in the text. A bot takes no image file, only the address of one on the public web: the link leads to the plot.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import quote

from metrics_pipeline.delivery.channels.bots import SignedBotSettings, judged, rebased, with_keyword
from metrics_pipeline.delivery.channels.channel import BOT_LIMIT
from metrics_pipeline.delivery.channels.configuration import NOBODY, Mentions, Vault
from metrics_pipeline.delivery.channels.posting import fitted, post_json
from metrics_pipeline.delivery.forms import DingTalkMarkdown, markdown
from metrics_pipeline.delivery.messages import Message

LIMIT_BYTES = 20_000
TEN_MINUTES = timedelta(minutes=10)
LIMITED = {"130101": TEN_MINUTES, "410100": TEN_MINUTES, "90030": timedelta(hours=1)}
PASSING = ("-1", "34015")
MENDS = {
    "310000": "check the bot's security settings: key word (keyword:), signature (secret_env:), addresses, and this machine's clock",
    "300001": "the token of the address is not known; copy the bot's address again",
    "300005": "the token of the address is not known; copy the bot's address again",
    "400101": "the token of the address is not known; copy the bot's address again",
    "400102": "the bot was switched off; switch it on in the group's settings",
    "400106": "the bot was removed; add one and copy its address",
    "400013": "the group was dissolved; use another group's bot",
}


class DingTalkSettings(SignedBotSettings):
    """A DingTalk bot in `channels.yml`."""

    kind: Literal["dingtalk"] = "dingtalk"

    def open(self, name: str, vault: Vault) -> DingTalkChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        return DingTalkChannel(
            name=name,
            url=rebased(vault.url(self), self.base_url),
            secret=vault.optional(self, "secret") or "",
            keyword=self.keyword,
            mention=self.mention,
            limit=self.limit,
        )


@dataclass(frozen=True)
class DingTalkChannel:
    """One bot. Addresses are people to call: phones, user ids, `@all`, separated by commas."""

    name: str
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    keyword: str = ""
    mention: Mentions = NOBODY
    limit: int | None = BOT_LIMIT
    clock: Callable[[], float] = time.time

    def send(self, message: Message, address: str) -> str:
        """Send and return `<code> <text>` of DingTalk. Raises a `Failure`."""
        called = self.mention.of(message, address)
        body = fitted(lambda room: self._body(message, called, room), LIMIT_BYTES)
        reply = post_json(self._signed(), body)
        return judged(reply, passing=PASSING, limited=LIMITED, mends=MENDS)

    def _body(self, message: Message, called: Mentions, room: int) -> Mapping[str, Any]:
        names = [f"@{name}" for name in (*called.phones, *called.users)]
        tail = " ".join(names)
        if word := with_keyword(message.title + tail, self.keyword):
            tail = f"{tail}\n\n{word}" if tail else word
        return {
            "msgtype": "markdown",
            "markdown": {"title": message.title, "text": markdown(message, DingTalkMarkdown(), room, tail=tail)},
            "at": {"atMobiles": list(called.phones), "atUserIds": list(called.users), "isAtAll": called.all},
        }

    def _signed(self) -> str:
        if not self.secret:
            return self.url
        timestamp = str(round(self.clock() * 1000))
        return f"{self.url}&timestamp={timestamp}&sign={quote(sign(self.secret, timestamp), safe='')}"


def sign(secret: str, timestamp: str) -> str:
    """The signature of a moment (milliseconds), not yet quoted for a URL."""
    digest = hmac.new(secret.encode(), f"{timestamp}\n{secret}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")
