"""What every channel is: a name, and `send`, which returns the answer of the other side or raises a failure.

A failure says whether another try makes sense: `TemporaryFailure` yes, `RateLimited` yes but not before its time,
`PermanentFailure` no. It keeps the vendor's own code; its text is the vendor's own answer and, where known, the mend.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from metrics_pipeline.delivery.messages import Message

BOT_LIMIT = 18
"""Messages a minute for a bot: DingTalk and WeCom refuse the 21st, and DingTalk then stays silent for ten minutes."""


class Failure(Exception):
    """The other side did not take the message. `code`: its own; `mend`: what a person can do, or nothing."""

    def __init__(self, answer: str, *, code: str = "", mend: str = "") -> None:
        super().__init__(f"{answer}; {mend}" if mend else answer)
        self.answer = answer
        self.code = code
        self.mend = mend


class TemporaryFailure(Failure):
    """The other side did not take the message now; the same message may be sent again.

    `refused`: whether that is certain. Default: yes when the other side gave a code; a connection that broke while
    the message was under way leaves it open.
    """

    def __init__(
        self,
        answer: str,
        *,
        code: str = "",
        mend: str = "",
        retry_after: timedelta | None = None,
        refused: bool | None = None,
    ) -> None:
        super().__init__(answer, code=code, mend=mend)
        self.retry_after = retry_after
        """How long the other side asked to wait."""
        self.refused = bool(code) if refused is None else refused


class RateLimited(TemporaryFailure):
    """Too many messages: nothing will be taken before `retry_after` is over, of the whole channel or for this address only."""

    def __init__(
        self, answer: str, *, retry_after: timedelta, code: str = "", mend: str = "", only_address: bool = False
    ) -> None:
        super().__init__(answer, code=code, mend=mend, retry_after=retry_after, refused=True)
        self.wait = retry_after
        self.only_address = only_address


class PermanentFailure(Failure):
    """The other side will never take this message as the channel is set up now."""


class Channel(Protocol):
    """A way to deliver messages. Receivers are `<name>` or `<name>:<address>`."""

    @property
    def name(self) -> str: ...

    @property
    def limit(self) -> int | None:
        """How many messages a minute may be sent through the channel; None: as many as there are."""
        ...

    def send(self, message: Message, address: str) -> str:
        """Deliver and return the other side's answer, as `<code> <text>` where it has a code. Raises a `Failure`.

        A repeated send of one message must be recognisable as such where the other side allows it: same file name,
        same Message-ID.
        """
        ...
