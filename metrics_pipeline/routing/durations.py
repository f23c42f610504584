"""Durations as Alertmanager writes them: `30s`, `5m`, `1h30m`, `1d`, `2w`, `0`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = (
    ("y", timedelta(days=365)),
    ("w", timedelta(weeks=1)),
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)
_FORM = re.compile("".join(rf"(?:(?P<{name}>[0-9]+){name})?" for name, _ in _UNITS))
_LONGEST = 9
"""Digits of one number; more is a slip of the hand."""


def parse_duration(text: str) -> timedelta:
    """The duration a text stands for. Raises `ValueError` with what was expected."""
    text = text.strip()
    if text == "0":
        return timedelta()
    found = _FORM.fullmatch(text)
    if not text or found is None or any(len(number or "") > _LONGEST for number in found.groups()):
        raise ValueError(f"{text!r} is not a duration; write it as 30s, 5m, 1h30m or 7d")
    try:
        return sum((int(found[name]) * unit for name, unit in _UNITS if found[name]), timedelta())
    except OverflowError:
        raise ValueError(f"{text!r} is longer than can be counted; write at most 1000y") from None


def format_duration(duration: timedelta) -> str:
    """The shortest text of a duration, `1h30m`; `0s` for nothing."""
    left = duration
    text = ""
    for name, unit in _UNITS:
        if name in ("y", "w"):  # 7d reads better than 1w where both are said
            continue
        count, left = divmod(left, unit)
        if count:
            text += f"{count}{name}"
    return text or "0s"
