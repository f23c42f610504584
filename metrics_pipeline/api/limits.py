"""Token buckets: so many requests at once, then so many in a minute.

They are in the memory of the one process that serves; two processes would each allow the whole of it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock


class Buckets:
    """A bucket of `burst` for each key, filled again with `per_minute`; the `most` keys seen last are remembered."""

    def __init__(
        self, per_minute: float, burst: float, *, clock: Callable[[], float] = time.monotonic, most: int = 10_000
    ) -> None:
        self._rate, self._burst, self._clock, self._most = per_minute / 60, float(burst), clock, most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, key: str) -> float:
        """Take one; 0.0, or the seconds until there is one again (then nothing was taken)."""
        with self._lock:
            now = self._clock()
            left, at = self._buckets.get(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            wait = 0.0 if left >= 1 else (1 - left) / self._rate
            self._buckets[key] = (left if wait else left - 1, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
            return wait
