"""How fast a project may ask: a bucket of requests each, filled at a steady rate. Within one process; nothing waits."""

import threading
import time
from collections.abc import Callable

_MOST_KEPT = 10_000


class Rates:
    """Thread-safe. `burst` requests at once, then `rate` a second; a rate of 0 is no limit."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1, burst)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, project: str) -> float:
        """Take one request from the project's bucket. 0, or the seconds until there is one."""
        if not self._rate:
            return 0.0
        now = self._clock()
        with self._lock:
            left, at = self._buckets.get(project, (float(self._burst), now))
            left = min(self._burst, left + (now - at) * self._rate)
            if left < 1:
                self._buckets[project] = (left, now)
                return (1 - left) / self._rate
            if len(self._buckets) >= _MOST_KEPT and project not in self._buckets:
                self._forget(now)
            self._buckets[project] = (left - 1, now)
        return 0.0

    def _forget(self, now: float) -> None:
        """Drop the buckets that are full again."""
        full = [name for name, (left, at) in self._buckets.items() if left + (now - at) * self._rate >= self._burst]
        for name in full:
            del self._buckets[name]
