"""What the group bots of DingTalk, WeCom and Feishu have in common: a webhook with a token, and an answer whose code decides.

All three answer HTTP 200 to what they refuse. A code that the vendor does not call passing is final: the same message
sent again gets the same answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from metrics_pipeline.delivery.channels.channel import (
    BOT_LIMIT,
    Failure,
    PermanentFailure,
    RateLimited,
    TemporaryFailure,
)
from metrics_pipeline.delivery.channels.configuration import BaseUrl, ChannelSettings, EnvName, Mentions
from metrics_pipeline.delivery.channels.posting import Reply
from metrics_pipeline.delivery.channels.redaction import redacted


class BotSettings(ChannelSettings):
    """A group bot in `channels.yml`."""

    required_secrets: ClassVar[tuple[str, ...]] = ("url",)

    url_env: EnvName | None = None
    """The whole address of the webhook, as the vendor shows it: its token is in it."""
    url_file: Path | None = None
    base_url: BaseUrl | None = None
    """Scheme and host (and a path before the vendor's) to use instead of those of the address: a gateway."""
    mention: Mentions = Mentions()
    limit: int | None = Field(default=BOT_LIMIT, ge=1)


class SignedBotSettings(BotSettings):
    """A group bot that can ask for a signature and for a key word."""

    optional_secrets: ClassVar[tuple[str, ...]] = ("secret",)

    secret_env: EnvName | None = None
    """The key of the signature, where the bot has one."""
    secret_file: Path | None = None
    keyword: str = ""
    """A word the bot asks for; it is added where a message lacks it."""


def rebased(url: str, base_url: str | None) -> str:
    """The URL with another scheme and host, the base's path before its own."""
    if base_url is None:
        return url
    base, own = urlsplit(base_url), urlsplit(url)
    return urlunsplit((base.scheme, base.netloc, base.path.rstrip("/") + own.path, own.query, ""))


def judged(
    reply: Reply,
    *,
    code_key: str = "errcode",
    text_key: str = "errmsg",
    passing: Collection[str] = ("-1",),
    limited: Mapping[str, timedelta] | None = None,
    mends: Mapping[str, str] | None = None,
) -> str:
    """`<code> <text>` of an answer whose code is 0. Raises the `Failure` of any other code, or of the HTTP status.

    `passing`: codes the vendor calls temporary; `limited`: waits by code of too many messages; `mends`: what to do, by code.
    """
    body = reply.json()
    raw = next((body[key] for key in (code_key, "code", "StatusCode") if key in body), None)
    if raw is None:
        reply.check()
        raise TemporaryFailure(f"{reply.where} answered without {code_key}: {reply.shown}")
    code = str(raw)
    text = body.get(text_key) or body.get("msg") or body.get("StatusMessage") or ""
    answer = redacted(f"{code} {' '.join(str(text).split())}".strip())
    if code == "0":
        reply.check()
        return answer
    raise _refusal(code, answer, reply, passing=passing, limited=limited or {}, mend=(mends or {}).get(code, ""))


def _refusal(
    code: str, answer: str, reply: Reply, *, passing: Collection[str], limited: Mapping[str, timedelta], mend: str
) -> Failure:
    if code in limited:
        wait = max(limited[code], reply.retry_after or timedelta())
        return RateLimited(answer, code=code, retry_after=wait, mend=mend)
    if reply.status == 429:
        return reply.failure()
    if code in passing or reply.status >= 500:
        return TemporaryFailure(answer, code=code, mend=mend, retry_after=reply.retry_after)
    return PermanentFailure(answer, code=code, mend=mend)


def with_keyword(text: str, keyword: str) -> str:
    """What has to be added to a text for a bot that asks for a word: the word, or nothing."""
    return keyword if keyword and keyword not in text else ""
