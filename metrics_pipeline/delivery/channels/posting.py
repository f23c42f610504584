"""One HTTP request to a vendor, and what its status means. httpx is imported when first needed.

No redirects of messages: a webhook that moves is not the one that was configured. Errors never repeat the URL.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ssl import SSLContext
from typing import Any
from urllib.parse import urlsplit

from metrics_pipeline.delivery.channels.channel import Failure, PermanentFailure, RateLimited, TemporaryFailure
from metrics_pipeline.delivery.channels.redaction import redacted

TIMEOUT = 10.0
"""Seconds for each step of a request: connecting, sending, reading."""
A_MINUTE = timedelta(minutes=1)
LONGEST_WAIT = timedelta(days=1)
ANSWER_CHARACTERS = 500
_PASSING = (408, 409, 425)
_OPEN = (408, 502, 504)
"""Whoever answered does not know whether the message was taken."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    text: str
    where: str
    """The host that answered."""

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises the failure of the status, or `TemporaryFailure` when it is not one."""
        try:
            body = json.loads(self.text)
        except ValueError:
            body = None
        if isinstance(body, dict):
            return body
        self.check()
        raise TemporaryFailure(f"{self.where} answered HTTP {self.status} without JSON: {self.shown}")

    @property
    def shown(self) -> str:
        """The body as one line for a person, cut and without secrets."""
        return redacted(" ".join(self.text.split()))[:ANSWER_CHARACTERS]

    def check(self) -> None:
        """Raises the failure of a status that is not 2xx (RFC 9110)."""
        if not 200 <= self.status < 300:
            raise self.failure()

    def failure(self) -> Failure:
        """429 is rate-limited; 408, 409, 425 and 5xx are temporary; all others are permanent."""
        code, answer = str(self.status), f"{self.where} answered HTTP {self.status} {self.shown}".rstrip()
        wait = self.retry_after
        if self.status == 429:
            return RateLimited(answer, code=code, retry_after=wait or A_MINUTE)
        if self.status in _PASSING or self.status >= 500:
            return TemporaryFailure(answer, code=code, retry_after=wait, refused=self.status not in _OPEN)
        return PermanentFailure(answer, code=code)

    @property
    def retry_after(self) -> timedelta | None:
        """The wait of the `Retry-After` header, at most a day; None without it."""
        return parse_retry_after(self.headers.get("retry-after"), date=self.headers.get("date"))


def parse_retry_after(value: str | None, *, date: str | None = None) -> timedelta | None:
    """`Retry-After` as seconds or as a date (RFC 9110, 10.2.3), between 0 and a day. `date`: the other side's clock."""
    if not value:
        return None
    try:
        wait = timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        try:
            now = parsedate_to_datetime(date) if date else datetime.now(UTC)
            wait = parsedate_to_datetime(value) - now
        except (ValueError, TypeError):
            return None
    return min(max(wait, timedelta()), LONGEST_WAIT)


def post(
    url: str,
    *,
    body: bytes | None = None,
    form: Mapping[str, str] | None = None,
    files: Mapping[str, tuple[str, bytes, str]] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> Reply:
    """POST bytes, or a multipart form. Raises `TemporaryFailure` when no answer came."""
    return _request("POST", url, timeout=timeout, content=body, data=form, files=files, headers=headers)


def get(url: str, *, timeout: float = TIMEOUT) -> Reply:
    """GET a page, wherever it moved: for a dead man's switch. Raises `TemporaryFailure` when no answer came."""
    return _request("GET", url, timeout=timeout, follow_redirects=True)


def _request(method: str, url: str, *, timeout: float, follow_redirects: bool = False, **options: Any) -> Reply:
    import httpx

    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        with httpx.Client(timeout=timeout, follow_redirects=follow_redirects, verify=_certificates()) as client:
            answer = client.request(method, url, **options)
            text = answer.text
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise TemporaryFailure(f"{where}: {redacted(str(error)) or type(error).__name__}", refused=True) from None
    except httpx.TimeoutException:
        raise TemporaryFailure(f"{where} did not answer within {timeout:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise TemporaryFailure(f"{where}: {redacted(str(error)) or type(error).__name__}") from None
    return Reply(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, text, where)


@lru_cache(maxsize=1)
def _certificates() -> SSLContext:
    """Whom to trust, read once: reading the authorities costs 40 ms, several times as much as a request."""
    import httpx

    return httpx.create_ssl_context()


def post_json(
    url: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None, timeout: float = TIMEOUT
) -> Reply:
    """POST an object as JSON. Raises `TemporaryFailure` when no answer came."""
    return post(
        url,
        body=as_json(body),
        headers={"Content-Type": "application/json; charset=utf-8", **(headers or {})},
        timeout=timeout,
    )


def as_json(body: Mapping[str, Any]) -> bytes:
    """Compact JSON in UTF-8: Chinese takes 3 bytes a character, not the 6 of an escape."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def fitted(build: Callable[[int], Mapping[str, Any]], limit: int) -> Mapping[str, Any]:
    """The body of the largest text that fits: `build(n)` makes one whose text has at most n bytes, `limit` is the vendor's.

    Escaping makes a body longer than its text, by how much depends on the text.
    """
    room = limit
    body = build(room)
    while (excess := len(as_json(body)) - limit) > 0 and room > 0:
        room = max(0, min(room, limit) - max(excess, 64))
        body = build(room)
    return body
