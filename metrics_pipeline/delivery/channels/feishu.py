"""Feishu and Lark group bots (飞书自定义机器人): a card, signed in the body, people called by id or email.

Rules of the vendor (open.feishu.cn, custom bot): sign = base64(HMAC-SHA256(key="<s>\\n<secret>", "")), at most an hour old;
a body of 20 KB; 100 messages a minute and 5 a second. A bot cannot upload an image nor find a person by phone; with the
credentials of an app (`app_id`, `app_secret_env`) both go through the app's API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import model_validator

from metrics_pipeline.delivery.channels.bots import SignedBotSettings, judged, rebased, with_keyword
from metrics_pipeline.delivery.channels.channel import BOT_LIMIT, Failure
from metrics_pipeline.delivery.channels.configuration import NOBODY, EnvName, Mentions, Vault
from metrics_pipeline.delivery.channels.posting import fitted, post, post_json
from metrics_pipeline.delivery.channels.redaction import keep_secret
from metrics_pipeline.delivery.forms import Card, FeishuMarkdown, card
from metrics_pipeline.delivery.messages import Message

LIMIT_BYTES = 20_000
A_MINUTE = timedelta(minutes=1)
LIMITED = {"11232": A_MINUTE, "11233": A_MINUTE, "99991400": A_MINUTE, "230020": A_MINUTE}
PASSING = ("-1", "19099", "1500")
MENDS = {
    "19001": "the token of the address is not known; copy the bot's address again",
    "19021": "check the bot's signature key (secret_env:) and this machine's clock",
    "19022": "this machine's address is not among those the bot takes; add it in the bot's security settings",
    "19024": "the bot asks for a key word; write it as keyword:",
    "19036": "the bot was removed or switched off; add one and copy its address",
    "9499": "the vendor calls the message malformed: tell the maintainers",
}


class FeishuSettings(SignedBotSettings):
    """A Feishu or Lark bot in `channels.yml`."""

    kind: Literal["feishu"] = "feishu"
    optional_secrets: ClassVar[tuple[str, ...]] = ("secret", "app_secret")
    app_id: str | None = None
    """An app of the same tenant, for plots and for calling people by phone."""
    app_secret_env: EnvName | None = None
    app_secret_file: Path | None = None

    @model_validator(mode="after")
    def _app_is_whole(self) -> FeishuSettings:
        has_secret = self.app_secret_env is not None or self.app_secret_file is not None
        if (self.app_id is not None) != has_secret:
            raise ValueError("app_id and its secret belong together; write both app_id and app_secret_env, or none")
        if self.mention.phones and self.app_id is None:
            raise ValueError(
                "a Feishu bot cannot call people by phone; write their ids or emails as mention.users, or add app_id and app_secret_env"
            )
        return self

    def open(self, name: str, vault: Vault) -> FeishuChannel:
        """The channel. Raises `SettingsError` when a secret cannot be read."""
        return FeishuChannel(
            name=name,
            url=rebased(vault.url(self), self.base_url),
            secret=vault.optional(self, "secret") or "",
            keyword=self.keyword,
            mention=self.mention,
            limit=self.limit,
            app_id=self.app_id or "",
            app_secret=vault.optional(self, "app_secret") or "",
        )


@dataclass(frozen=True)
class FeishuChannel:
    """One bot. Addresses are people to call: ids, emails, `@all`, with an app also phones, separated by commas."""

    name: str
    url: str = field(repr=False)
    secret: str = field(default="", repr=False)
    keyword: str = ""
    mention: Mentions = NOBODY
    limit: int | None = BOT_LIMIT
    app_id: str = ""
    app_secret: str = field(default="", repr=False)
    clock: Callable[[], float] = time.time

    def send(self, message: Message, address: str) -> str:
        """Send and return `<code> <text>` of Feishu. Raises a `Failure`.

        What needs the app and does not work is told in the answer; the card is sent without it.
        """
        called = self.mention.of(message, address)
        image, people, notes = self._through_the_app(message, called)
        tail = "".join(people)
        if called.all:
            tail += "<at id=all></at>"
        tail += with_keyword(message.title, self.keyword)
        body = fitted(lambda room: self._body(card(message, FeishuMarkdown(), room, tail=tail), image), LIMIT_BYTES)
        answer = _judged(post_json(self.url, body))
        return "; ".join((answer, *notes))

    def _body(self, shown: Card, image: str) -> Mapping[str, Any]:
        body: dict[str, Any] = {"msg_type": "interactive", "card": card_json(shown, image)}
        if self.secret:
            timestamp = str(int(self.clock()))
            body |= {"timestamp": timestamp, "sign": sign(self.secret, timestamp)}
        return body

    def _through_the_app(self, message: Message, called: Mentions) -> tuple[str, list[str], list[str]]:
        """The key of the uploaded plot, the calls, and what did not work."""
        people = [_at(user) for user in called.users]
        plot = message.plot if self.app_id and not message.is_over else None
        if plot is None and not (called.phones and self.app_id):
            return "", [*people, *(f" @{phone} " for phone in called.phones)], []
        image, ids, notes = "", dict.fromkeys(called.phones, ""), []
        try:
            app = _App.signed_in(_origin(self.url), self.app_id, self.app_secret)
            if called.phones:
                ids |= app.ids_of(called.phones)
            if plot is not None:
                image = app.upload(plot.png())
        except Failure as failure:
            notes.append(f"without the app's part: {failure.answer}")
        people += [_at(found) if found else f" @{phone} " for phone, found in ids.items()]
        return image, people, notes


@dataclass(frozen=True)
class _App:
    """The API of an app: `tenant_access_token`, image upload, ids of people."""

    origin: str
    token: str = field(repr=False)

    @classmethod
    def signed_in(cls, origin: str, app_id: str, secret: str) -> _App:
        body = {"app_id": app_id, "app_secret": secret}
        reply = post_json(f"{origin}/open-apis/auth/v3/tenant_access_token/internal", body)
        _judged(reply)
        return cls(origin, keep_secret(str(reply.json().get("tenant_access_token", ""))))

    def upload(self, image: bytes) -> str:
        reply = post(
            f"{self.origin}/open-apis/im/v1/images",
            form={"image_type": "message"},
            files={"image": ("plot.png", image, "image/png")},
            headers=self._headers,
        )
        _judged(reply)
        return str(_data(reply.json()).get("image_key", ""))

    def ids_of(self, phones: Sequence[str]) -> dict[str, str]:
        url = f"{self.origin}/open-apis/contact/v3/users/batch_get_id?user_id_type=open_id"
        reply = post_json(url, {"mobiles": list(phones)}, headers=self._headers)
        _judged(reply)
        users = _data(reply.json()).get("user_list", [])
        return {str(one["mobile"]): str(one["user_id"]) for one in users if one.get("user_id")}

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def card_json(shown: Card, image: str = "") -> dict[str, Any]:
    """A card of the form 1.0, which Feishu and Lark of every age show. `image`: key of an uploaded image."""
    elements: list[dict[str, Any]] = [{"tag": "markdown", "content": shown.body}]
    if image:
        elements.append({"tag": "img", "img_key": image, "alt": {"tag": "plain_text", "content": shown.alt}})
    buttons = [
        {
            "tag": "button",
            "text": {"tag": "plain_text", "content": label},
            "type": "primary" if number == 0 else "default",
            "url": url,
        }
        for number, (label, url) in enumerate(shown.links)
    ]
    elements.append({"tag": "action", "actions": buttons})
    return {
        "config": {"wide_screen_mode": True},
        "header": {"template": shown.tone, "title": {"tag": "plain_text", "content": shown.title}},
        "elements": elements,
    }


def sign(secret: str, timestamp: str) -> str:
    """The signature of a moment (seconds)."""
    digest = hmac.new(f"{timestamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


def _judged(reply: Any) -> str:
    return judged(reply, code_key="code", text_key="msg", passing=PASSING, limited=LIMITED, mends=MENDS)


def _data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    data = body.get("data")
    return data if isinstance(data, Mapping) else {}


def _at(user: str) -> str:
    key = "email" if "@" in user else "id"
    return f"<at {key}={html.escape(user)}></at>"


def _origin(url: str) -> str:
    """What comes before `/open-apis`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path.partition('/open-apis')[0]}"
