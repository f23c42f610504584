"""What a file says, without where it says it: values of round-trip YAML, which know their lines, as plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def plain(value: Any, key: Callable[[Any], Any] = str) -> Any:
    """Mappings, lists, numbers and texts of round-trip YAML as plain ones. `key`: what becomes of keys; default text."""
    if isinstance(value, dict):
        return {key(name): plain(inner, key) for name, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner, key) for inner in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
