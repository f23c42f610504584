"""What every channel is: a name, and `send`, which returns the answer of the other side or raises one of two failures."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from metrics_pipeline.delivery.messages import Message


class TemporaryFailure(Exception):
    """The other side did not take the message now; the same message may be sent again."""

    def __init__(self, answer: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(answer)
        self.retry_after = retry_after
        """How long the other side asked to wait."""


class PermanentFailure(Exception):
    """The other side will never take this message; the text is its own answer."""


class Channel(Protocol):
    """A way to deliver messages. Receivers are `<name>` or `<name>:<address>`."""

    @property
    def name(self) -> str: ...

    def send(self, message: Message, address: str) -> str:
        """Deliver and return the other side's answer. Raises `TemporaryFailure` or `PermanentFailure`.

        A repeated send of one message must be recognisable as such: same file name, same Message-ID.
        """
        ...
