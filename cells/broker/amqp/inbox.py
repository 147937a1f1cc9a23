"""Our own queue on our own RabbitMQ: a thread and a connection that receive ahead, and acknowledge what the node is
done with.

A tag is (connection, delivery): one of an earlier connection means nothing any more, its message comes again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from cells.broker.amqp.attendant import Attendant
from cells.broker.amqp.connection import AmqpConnection
from cells.broker.amqp.frames import BASIC_DELIVER, BODY, HEADER, METHOD, ack, content, delivered
from cells.broker.options import AmqpOptions
from cells.names import CellName
from cells.ports import Delivery
from cells.record import MAX_BUNDLE

log = logging.getLogger(__name__)


class AmqpInbox:
    """Thread safe; see cells.ports.Inbox."""

    def __init__(self, *, cell: CellName, url: str, bell: Callable[[], None], options: AmqpOptions) -> None:
        self._cell = cell
        self._bell = bell
        self._lock = threading.Lock()
        self._ready: deque[Delivery] = deque()
        self._done: list[int] = []
        self._asleep = False
        self._connection = 0
        self._attendant = Attendant(
            url=url, name=f"celltree {cell} inbox", options=options, serve=self._serve, lost=self._forget
        )
        self._attendant.start()

    def poll(self, most: int) -> list[Delivery]:
        with self._lock:
            deliveries = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            more = bool(self._ready)
        if more:
            self._bell()
        return deliveries

    def ack(self, tags: Iterable[Any]) -> None:
        with self._lock:
            self._done.extend(number for connection, number in tags if connection == self._connection)
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._attendant.wake.ring()

    def close(self) -> None:
        """Returns at once; acknowledgements given before are still sent."""
        self._attendant.stop()

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, after `close`."""
        self._attendant.join(seconds)

    # --- in the thread ---

    def _serve(self, connection: AmqpConnection, proven: Callable[[], None]) -> None:
        if note := connection.declare_inbox():
            log.warning("cell %s: %s; delete it while it is empty to have the new settings", self._cell, note)
        connection.consume()
        proven()
        incoming = _Incoming(self._connection)
        acks = Acknowledgements(connection.channel)
        while not self._attendant.is_stopping():
            self._acknowledge(connection, acks)
            if connection.wait(connection.tick()):
                self._receive(connection, incoming)
        with self._lock:
            self._ready.clear()
        self._acknowledge(connection, acks)

    def _acknowledge(self, connection: AmqpConnection, acks: "Acknowledgements") -> None:
        with self._lock:
            done, self._done = self._done, []
            self._asleep = True
        if done:
            connection.send(acks.frames(done))

    def _receive(self, connection: AmqpConnection, incoming: "_Incoming") -> None:
        deliveries: list[Delivery] = []
        for received in connection.receive():
            kind, _, payload = received
            if (kind == METHOD and payload[:4] == BASIC_DELIVER) or (kind in (HEADER, BODY)):
                if delivery := incoming.take(kind, payload):
                    deliveries.append(delivery)
            else:
                connection.pass_on(received)
        if deliveries:
            with self._lock:
                self._ready.extend(deliveries)
            self._bell()

    def _forget(self, reason: str) -> None:
        """The broker will deliver all of it again: to us, when connected, or to another daemon of the cell."""
        with self._lock:
            self._connection += 1
            self._ready.clear()
            self._done.clear()


class _Incoming:
    """Puts deliveries together from their frames. Of a body over the limit only enough is kept to see that it is."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._tag, self._redelivered, self._user = 0, False, ""
        self._left = self._kept = 0
        self._parts: list[bytes] = []

    def take(self, kind: int, payload: bytes) -> Delivery | None:
        if kind == METHOD:
            self._tag, self._redelivered = delivered(payload)
            return None
        if kind == HEADER:
            self._left, _, self._user = content(payload)
            self._parts, self._kept = [], 0
        else:
            self._left -= len(payload)
            part = payload[: max(0, MAX_BUNDLE + 1 - self._kept)]
            self._parts.append(part)
            self._kept += len(part)
        if self._left > 0:
            return None
        return Delivery(
            tag=(self._connection, self._tag),
            data=self._parts[0] if len(self._parts) == 1 else b"".join(self._parts),
            user=self._user,
            redelivered=self._redelivered,
        )


class Acknowledgements:
    """Writes acknowledgements: one for a run of deliveries without a gap, one each beyond a gap, so that a delivery
    that takes long does not hold back the others."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._next = 1
        self._beyond: set[int] = set()

    def frames(self, done: Iterable[int]) -> bytes:
        fresh = {number for number in done if number >= self._next and number not in self._beyond}
        last = 0
        while self._next in fresh or self._next in self._beyond:
            if self._next in fresh:
                # RabbitMQ refuses a multiple acknowledgement that ends in one it has had: end in a fresh one.
                last = self._next
                fresh.discard(last)
            self._beyond.discard(self._next)
            self._next += 1
        self._beyond |= fresh
        run = ack(self._channel, last, multiple=True) if last else b""
        return run + b"".join(ack(self._channel, number, multiple=False) for number in sorted(fresh))
