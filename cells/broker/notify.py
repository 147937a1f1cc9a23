"""Notifications (the usual compute.instance.* events) for billing and telemetry, as OpenStack programs expect them.

`emit` never waits: a thread sends what is queued, and what finds no room is dropped and counted. They may be lost or
come late; who needs the truth reads the API.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from cells.broker.memory import SCHEME, MemoryExchange, MemoryExchanges, exchange_name
from cells.broker.options import AmqpOptions
from cells.errors import BadInput
from cells.names import CellName

log = logging.getLogger(__name__)

ROOM = 1000
CLOSE_SECONDS = 2.0
DRIVERS = ("messagingv2", "noop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One event: its type, like compute.instance.create.end, what it is about, and the request that caused it."""

    event_type: str
    payload: Mapping[str, Any]
    request: str = ""


class Notifications(Protocol):
    """Where a cell's events go. `dropped` counts those that found no room."""

    dropped: int

    def emit(self, notification: Notification) -> None: ...

    def close(self) -> None: ...


def notifications(
    url: str,
    cell: CellName,
    *,
    driver: str = "messagingv2",
    exchanges: MemoryExchanges | None = None,
    options: AmqpOptions | None = None,
) -> Notifications:
    """An emitter for a cell with this broker: `messagingv2` to the topic notifications.info, `noop` to nowhere."""
    if driver not in DRIVERS:
        raise BadInput(f"notification driver {driver!r} is not known: use one of {', '.join(DRIVERS)}")
    if driver == "noop":
        return NoNotifications()
    if urlsplit(url).scheme == SCHEME:
        if exchanges is None:
            raise BadInput("memory:// notifications stay in one process: give the house's MemoryExchanges")
        return MemoryNotifications(exchanges.exchange(exchange_name(url)))
    return OsloNotifications(url, cell, options or AmqpOptions())


class NoNotifications:
    """Nobody listens."""

    dropped = 0

    def emit(self, notification: Notification) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryNotifications:
    """The embedded shape keeps its newest events at the exchange, to be looked at."""

    dropped = 0

    def __init__(self, exchange: MemoryExchange) -> None:
        self._exchange = exchange

    def emit(self, notification: Notification) -> None:
        self._exchange.notifications.append(notification)

    def close(self) -> None:
        """Nothing to let go of."""


class OsloNotifications:
    """Sends through oslo.messaging from a thread of its own, which may block for as long as the broker is away."""

    def __init__(self, url: str, cell: CellName, options: AmqpOptions, room: int = ROOM) -> None:
        # Not in our thread: a thread that loads eventlet, as this import does, can never be joined.
        from cells.broker.oslo import OsloNotifier

        self.dropped = 0
        self._cell = cell
        self._notifier = OsloNotifier(url, cell, f"compute.{cell}", options)
        self._queue: queue.Queue[Notification | None] = queue.Queue(room)
        self._thread = threading.Thread(target=self._run, name=f"celltree {cell} notifications", daemon=True)
        self._thread.start()

    def emit(self, notification: Notification) -> None:
        try:
            self._queue.put_nowait(notification)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Gives what is queued a moment to leave; the rest is dropped."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
            self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Empty):
            while self._queue.get_nowait() is not None:
                self.dropped += 1
        self._queue.put(None)

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end, after `close`; whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (one := self._queue.get()) is not None:
            try:
                self._notifier.send(one.request, one.event_type, one.payload)
            except Exception:
                # A payload that is not JSON, a broker that refuses: one event less, the next ones still go.
                self.dropped += 1
                log.exception("cell %s: notification %s was not sent", self._cell, one.event_type)
        self._notifier.close()
