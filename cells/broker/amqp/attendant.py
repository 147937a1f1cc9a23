"""The life of a thread that keeps one connection: connect, serve, and when it is lost try again, for ever."""

import logging
import random
import threading
from collections.abc import Callable

from cells.broker.amqp.connection import AmqpConnection, Lost
from cells.broker.amqp.wake import Wake
from cells.broker.options import AmqpOptions

log = logging.getLogger(__name__)

Serve = Callable[[AmqpConnection, Callable[[], None]], None]


class Attendant:
    """A thread with a connection of its own. `serve(connection, proven)` returns only when `is_stopping()`, and calls
    `proven` when the broker has done something for us: then the next loss is answered by a quick attempt again.
    `lost` is told why each time."""

    def __init__(self, *, url: str, name: str, options: AmqpOptions, serve: Serve, lost: Callable[[str], None]) -> None:
        self.wake = Wake()
        self._url = url
        self._name = name
        self._options = options
        self._serve = serve
        self._lost = lost
        self._stopping = threading.Event()
        self._delay = options.retry_first
        self._last_reason = ""
        # A daemon thread: a broker that hangs must not keep a process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; does not wait."""
        self._stopping.set()
        self.wake.ring()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self.is_stopping():
            try:
                self._attend()
            except Lost as error:
                if self.is_stopping():
                    break
                self._lost(str(error))
                self._report(str(error))
                self._stopping.wait(self._delay * random.uniform(0.5, 1.0))
                self._delay = min(self._delay * 2, self._options.retry_most)
        self.wake.close()

    def _attend(self) -> None:
        connection = AmqpConnection(self._url, self._options, self._name, self.wake)
        try:
            log.info("%s: connected", self._name)
            self._serve(connection, self._proven)
            connection.close()
        finally:
            connection.abort()

    def _proven(self) -> None:
        self._delay = self._options.retry_first
        self._last_reason = ""

    def _report(self, reason: str) -> None:
        again = "" if reason != self._last_reason else " (still)"
        level = logging.DEBUG if again else logging.WARNING
        log.log(level, "%s: lost: %s%s; trying again in about %.1f s", self._name, reason, again, self._delay)
        self._last_reason = reason
