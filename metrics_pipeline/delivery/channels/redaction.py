"""Secrets stay out of errors and logs: tokens of bots are part of their URLs, and HTTP libraries tell URLs.

Every secret that is read is registered here; the log filter covers the libraries that talk to vendors.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import parse_qsl, quote, urlsplit

LOGGERS = ("httpx", "httpcore", "urllib3", "urllib3.connectionpool", "apprise", "tencentcloud_sdk_common")
SHORTEST = 6
"""Characters; replacing shorter texts would garble messages and hide nothing."""
_URL = re.compile(r"(?P<origin>[a-zA-Z][\w+.-]*://[^\s/?#'\"<>]+)[/?#][^\s'\"<>]*")
_secrets: set[str] = set()


def keep_secret(secret: str) -> str:
    """Register a secret, a URL with its telling parts; returns it."""
    parts = {secret}
    if "://" in secret:
        url = urlsplit(secret)
        parts |= {value for _, value in parse_qsl(url.query)} | {url.username or "", url.password or ""}
        parts |= {segment for segment in url.path.split("/") if len(segment) >= 16}
        if url.scheme not in ("http", "https"):  # Apprise: the token may stand where the host stands
            parts |= {url.netloc, *(segment for segment in url.path.split("/"))}
    _secrets.update(part for part in parts if len(part) >= SHORTEST)
    _secrets.update(quote(part, safe="") for part in parts if len(part) >= SHORTEST)
    _watch()
    return secret


def redacted(text: str) -> str:
    """The text with `***` for every registered secret and `/***` for what follows the host of a URL."""
    text = _URL.sub(lambda match: f"{_hostless(match['origin'])}/***", text)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _hostless(origin: str) -> str:
    scheme, _, host = origin.partition("://")
    return f"{scheme}://{host.rpartition('@')[2]}"


class _Filter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


_filter = _Filter()


def _watch() -> None:
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # a filter is added once
