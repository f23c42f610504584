"""WeCom group bots (企业微信群机器人): Markdown, people called by user id or phone, the plot as an image message.

Rules of the vendor (developer.work.weixin.qq.com, group bot): the key in the address is the only secret; Markdown of 4,096
bytes, text of 2,048, an image of 2 MB with its MD5; 20 messages a minute. `<@user>` works in Markdown, phones only in a
text message: so up to three messages leave for one notification, and `limit` counts notifications.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from metrics_pipeline.delivery.channels.bots import BotSettings, judged, rebased
from metrics_pipeline.delivery.channels.channel import BOT_LIMIT, Failure
from metrics_pipeline.delivery.channels.configuration import NOBODY, Mentions, Vault
from metrics_pipeline.delivery.channels.posting import post_json
from metrics_pipeline.delivery.forms import WeComMarkdown, cut, harmless, markdown
from metrics_pipeline.delivery.messages import Message

MARKDOWN_BYTES = 4096
TEXT_BYTES = 2048
IMAGE_BYTES = 2 << 20
LIMITED = {"45009": timedelta(minutes=1), "45033": timedelta(minutes=1)}
MENDS = {
    "93000": "the key of the address is not known, or the bot was removed; copy the bot's address again",
    "40058": "the vendor calls the message malformed or too long: tell the maintainers",
}


class WeComSettings(BotSettings):
    """A WeCom bot in `channels.yml`. It has no signature and asks for no key word."""

    kind: Literal["wecom"] = "wecom"
    plot: bool = True
    """Whether the plot follows as an image; it counts as a message of its own."""

    def open(self, name: str, vault: Vault) -> WeComChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        return WeComChannel(
            name=name,
            url=rebased(vault.url(self), self.base_url),
            mention=self.mention,
            plot=self.plot,
            messages_a_minute=self.limit,
        )


@dataclass(frozen=True)
class WeComChannel:
    """One bot. Addresses are people to call: phones, user ids, `@all`, separated by commas."""

    name: str
    url: str = field(repr=False)
    mention: Mentions = NOBODY
    plot: bool = True
    messages_a_minute: int | None = BOT_LIMIT

    @property
    def limit(self) -> int | None:
        """Notifications a minute: the bot's messages shared by those that one notification may need."""
        if self.messages_a_minute is None:
            return None
        return max(1, self.messages_a_minute // (1 + self.plot + bool(self.mention.phones)))

    def send(self, message: Message, address: str) -> str:
        """Send and return `<code> <text>` of WeCom. Raises a `Failure`.

        The Markdown and the call by phone must arrive; a plot that does not is told in the answer, and never sends the
        alert a second time.
        """
        called = self.mention.of(message, address)
        tail = " ".join(
            f"<@{name}>" for name in (*called.users, *(["all"] if called.all and not called.phones else []))
        )
        text = markdown(message, WeComMarkdown(), MARKDOWN_BYTES, tail=tail)
        answer = self._post({"msgtype": "markdown", "markdown": {"content": text}})
        if called.phones:
            phones = [*called.phones, *(["@all"] if called.all else [])]
            content = {"content": cut(harmless(message.title), TEXT_BYTES), "mentioned_mobile_list": phones}
            answer = self._post({"msgtype": "text", "text": content})
        return f"{answer}{self._plot(message)}"

    def _plot(self, message: Message) -> str:
        if not self.plot or message.plot is None or message.is_over:
            return ""
        image = message.plot.png()
        if len(image) > IMAGE_BYTES:
            return "; the plot is larger than WeCom takes"
        body = {
            "base64": base64.b64encode(image).decode("ascii"),
            "md5": hashlib.md5(image, usedforsecurity=False).hexdigest(),
        }
        try:
            self._post({"msgtype": "image", "image": body})
        except Failure as failure:
            return f"; without the plot: {failure.answer}"
        return ""

    def _post(self, body: Mapping[str, Any]) -> str:
        return judged(post_json(self.url, body), limited=LIMITED, mends=MENDS)
