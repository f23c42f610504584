"""Processes by name, so that what a killed one left held can be told from what a living one holds."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def process_name() -> str:
    """`host:pid:start` of this process; the start tells it from a later one of the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start(os.getpid()) or ''}"


def is_gone(name: str) -> bool:
    """Whether `name` (or `host:pid`) is a process of this host that no longer runs. Other hosts cannot be seen: False."""
    host, _, rest = name.partition(":")
    pid, _, start = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    found = _start(int(pid))
    return found == _ENDED or bool(start and found and found != start)


_ENDED = "ended"


def _start(pid: int) -> str | None:
    """When a process began, in ticks since the machine did; `_ENDED` when nobody has asked for its end yet (a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:  # no such process, or not Linux
        return None
    return _ENDED if fields[0] == "Z" else fields[19]
