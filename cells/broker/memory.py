"""The broker of the embedded shape: one MemoryExchange per cell, all in this process, named in one MemoryExchanges.

It behaves as RabbitMQ does for us (tests/contracts/test_broker.py holds both to it): a bounded queue that refuses what
it has no room for, deliveries that come back flagged when their consumer goes away, several daemons sharing one queue.
It has no threads, no clock and no randomness, so a house built on it can be replayed; outcomes are there at once.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from cells.broker.limits import INBOX, QUEUE_FULL, redacted, refuse_oversized
from cells.errors import BadInput
from cells.names import CellName
from cells.ports import Delivery, Outcome

SCHEME = "memory"


def exchange_name(url: str) -> str:
    """The name in memory://name; BadInput for any other URL."""
    parts = urlsplit(url)
    if parts.scheme != SCHEME or not parts.netloc:
        raise BadInput(f"{redacted(url)!r} is not the URL of a memory exchange: write memory://NAME")
    return parts.netloc


class MemoryExchanges:
    """The exchanges of one house, by name: what the network is to real brokers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_name: dict[str, MemoryExchange] = {}

    def exchange(self, name: str, max_length: int = 50_000) -> "MemoryExchange":
        """The exchange of this name, made when it is asked for first."""
        with self._lock:
            found = self._by_name.get(name)
            if found is None:
                found = self._by_name[name] = MemoryExchange(name, self, max_length)
            return found

    def find(self, name: str) -> "MemoryExchange | None":
        with self._lock:
            return self._by_name.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    data: bytes
    user: str
    redelivered: bool = False


class MemoryExchange:
    """One cell's broker: its inbox queue, and who consumes it. `stop` and `start` are its death and return (messages
    are durable), `wipe` empties it."""

    def __init__(self, name: str, exchanges: MemoryExchanges, max_length: int = 50_000) -> None:
        self.name = name
        self.exchanges = exchanges
        self.max_length = max_length
        self.running = True
        # What other programs may call (rpc), and what they may have heard (notify): the newest events.
        self.endpoint: Mapping[str, Callable[..., Any]] = {}
        self.notifications: deque[Any] = deque(maxlen=1000)
        self._lock = threading.Lock()
        self._declared = False
        self._ready: deque[_Message] = deque()
        self._inboxes: list[MemoryInbox] = []
        self._last_tag = 0

    def depth(self) -> int:
        """How many messages wait to be delivered; those delivered and not acknowledged are not counted."""
        return len(self._ready)

    def stop(self) -> None:
        """The broker dies: it takes and gives nothing; what was not acknowledged will be delivered again."""
        with self._lock:
            self.running = False
            for inbox in reversed(self._inboxes):
                self._take_back(inbox)

    def start(self) -> None:
        """The broker is back, with its durable messages; its consumers and publishers find it again by themselves."""
        with self._lock:
            self.running = True
            inboxes = list(self._inboxes)
        for inbox in inboxes:
            inbox.bell()

    def wipe(self) -> None:
        """Every message is gone, as from a disk."""
        with self._lock:
            self._ready.clear()
            for inbox in self._inboxes:
                inbox.unacked.clear()

    def publish(self, data: bytes, user: str) -> str:
        """Put a message into the inbox queue; gives the reason why not, or the empty string."""
        with self._lock:
            if not self.running:
                return f"broker {self.name!r} is down"
            if not self._declared:
                return f"unroutable: broker {self.name!r} has no queue {INBOX}, its cell has never been started"
            if len(self._ready) >= self.max_length:
                return QUEUE_FULL
            self._ready.append(_Message(data=data, user=user))
            inboxes = list(self._inboxes)
        for inbox in inboxes:
            inbox.bell()
        return ""

    def attach(self, inbox: "MemoryInbox") -> None:
        with self._lock:
            self._declared = True
            self._inboxes.append(inbox)
            waiting = bool(self._ready)
        if waiting:
            inbox.bell()

    def detach(self, inbox: "MemoryInbox") -> None:
        with self._lock:
            if inbox not in self._inboxes:
                return
            self._inboxes.remove(inbox)
            self._take_back(inbox)
            others = list(self._inboxes) if self._ready else []
        for other in others:
            other.bell()

    def deliver(self, inbox: "MemoryInbox", most: int) -> list[Delivery]:
        deliveries: list[Delivery] = []
        with self._lock:
            if not self.running or inbox not in self._inboxes:
                return deliveries
            room = min(most, inbox.prefetch - len(inbox.unacked))
            while self._ready and len(deliveries) < room:
                message = self._ready.popleft()
                self._last_tag += 1
                inbox.unacked[self._last_tag] = message
                deliveries.append(
                    Delivery(tag=self._last_tag, data=message.data, user=message.user, redelivered=message.redelivered)
                )
            more = bool(self._ready) and len(inbox.unacked) < inbox.prefetch
        if more:
            inbox.bell()
        return deliveries

    def settle(self, inbox: "MemoryInbox", tags: Iterable[Any]) -> None:
        with self._lock:
            for tag in tags:
                inbox.unacked.pop(tag, None)
            more = bool(self._ready) and self.running
        if more:
            inbox.bell()

    def _take_back(self, inbox: "MemoryInbox") -> None:
        back = [replace(message, redelivered=True) for message in inbox.unacked.values()]
        inbox.unacked.clear()
        self._ready.extendleft(reversed(back))


class MemoryInbox:
    """A daemon's share of its cell's queue. `unacked` belongs to the exchange and is touched under its lock only."""

    def __init__(self, exchange: MemoryExchange, bell: Callable[[], None], prefetch: int) -> None:
        self.bell = bell
        self.prefetch = prefetch
        self.unacked: dict[int, _Message] = {}
        self._exchange = exchange

    def poll(self, most: int) -> list[Delivery]:
        return self._exchange.deliver(self, most)

    def ack(self, tags: Iterable[Any]) -> None:
        self._exchange.settle(self, tags)


class MemoryLink:
    """The way to a neighbour's exchange, which is looked up for every message: it may be made later than the link."""

    def __init__(
        self, exchanges: MemoryExchanges, target: str, user: str, bell: Callable[[], None], window: int
    ) -> None:
        self._exchanges = exchanges
        self._target = target
        self._user = user
        self._bell = bell
        self._window = window
        self._outcomes: deque[Outcome] = deque()
        self._closed = False

    def offer(self, ref: Any, data: bytes) -> bool:
        refuse_oversized(data)
        if self._closed or len(self._outcomes) >= self._window:
            return False
        exchange = self._exchanges.find(self._target)
        reason = exchange.publish(data, self._user) if exchange else f"unreachable: no broker {self._target!r}"
        self._outcomes.append(Outcome(ref=ref, ok=not reason, reason=reason))
        self._bell()
        return True

    def outcomes(self) -> list[Outcome]:
        return [self._outcomes.popleft() for _ in range(len(self._outcomes))]

    def close(self) -> None:
        self._closed = True


class MemoryBroker:
    """A cell's side of the exchanges. To close it is to kill its daemon: what is unacknowledged goes back."""

    def __init__(
        self,
        exchange: MemoryExchange,
        cell: CellName,
        bell: Callable[[], None],
        *,
        prefetch: int = 200,
        window: int = 256,
    ) -> None:
        self._exchange = exchange
        self._cell = cell
        self._bell = bell
        self._prefetch = prefetch
        self._window = window
        self._inbox: MemoryInbox | None = None
        self._links: list[MemoryLink] = []

    def inbox(self) -> MemoryInbox:
        if self._inbox is None:
            self._inbox = MemoryInbox(self._exchange, self._bell, self._prefetch)
            self._exchange.attach(self._inbox)
        return self._inbox

    def link(self, neighbour: CellName, url: str) -> MemoryLink:
        link = MemoryLink(self._exchange.exchanges, exchange_name(url), self._cell, self._bell, self._window)
        self._links.append(link)
        return link

    def close(self) -> None:
        for link in self._links:
            link.close()
        if self._inbox is not None:
            self._exchange.detach(self._inbox)
