"""What somebody probably meant who wrote a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """` — did you mean 'x' or 'y'?`, at most so many, the likeliest first; or an empty text."""
    close = get_close_matches(word, list(known), n=most)
    return f" — did you mean {' or '.join(map(repr, close))}?" if close else ""
