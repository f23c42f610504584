"""Cursors: where the next page begins, in which version and of which question; opaque to whoever holds one.

They are not signed: a cursor made by hand leads to nothing that its maker could not ask for, since every page passes
the policy.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from datetime import datetime
from typing import NamedTuple

from metrics_pipeline.api.problems import Problem, bad_parameter


class Cursor(NamedTuple):
    """The version and question of a walk, and the keys of the last row that was given."""

    version: str
    question: str
    after: tuple[str, ...]

    def __str__(self) -> str:
        text = json.dumps([self.version, self.question, *self.after], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def question_of(*parts: object) -> str:
    """A digest over everything that must stay the same from page to page."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def read_cursor(text: str, question: str, keys: int) -> Cursor:
    """The cursor in a parameter, with so many keys. Raises `Problem` when it is none, or belongs to another question."""
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode())
    except (ValueError, binascii.Error, RecursionError):
        raise _unusable() from None
    if not isinstance(found, list) or len(found) != 2 + keys or not all(isinstance(one, str) for one in found):
        raise _unusable()
    if found[1] != question:
        raise bad_parameter(
            "cursor",
            "belongs to a question with other parameters; repeat those of the first page",
            "属于参数不同的查询;请沿用第一页的参数",
        )
    return Cursor(found[0], found[1], tuple(found[2:]))


def period_of(text: str) -> datetime:
    """The period in a cursor. Raises `Problem`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise _unusable() from None
    if moment.tzinfo is not None:
        raise _unusable()
    return moment


def _unusable() -> Problem:
    return bad_parameter("cursor", "is not one that a page gave as `next`", "不是某一页 `next` 给出的游标")
