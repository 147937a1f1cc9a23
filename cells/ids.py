"""Making ids, from a clock and a source of random bytes that are both given: tests and simulations replay them."""

import threading
from collections.abc import Callable

from cells.names import Instant


class Ids:
    """Makes UUIDv7 ids from a given clock and source of random bytes. Safe in threads; one object's ids only grow."""

    def __init__(self, clock: Callable[[], Instant], random_bytes: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._random_bytes = random_bytes
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        millis = (self._clock() // 1000) & ((1 << 48) - 1)
        tail = int.from_bytes(self._random_bytes(10), "big")
        value = (millis << 80) | tail
        value = (value & ~(0xF << 76)) | (0x7 << 76)
        value = (value & ~(0x3 << 62)) | (0x2 << 62)
        with self._lock:
            self._last = value = max(value, self._last + 1)
        return value.to_bytes(16, "big")
