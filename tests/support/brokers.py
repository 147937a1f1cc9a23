"""Cells joined by brokers, for the tests of the brokers: the same few calls over memory and over RabbitMQ."""

import secrets
import socket
import threading
from collections.abc import Callable
from typing import Protocol

from cells.broker import AmqpOptions, MemoryExchanges, open_broker
from cells.lab.rabbitmq import Grant, RabbitNode
from cells.ports import Broker, Delivery, Inbox, Link, Outcome

PATIENCE = 20.0
WRITE_ONLY = {"configure": "^$", "write": r"^celltree\.inbox$", "read": "^$"}


class Bell:
    """What a node's loop waits on. A wait fails when it is not rung, so forgetting to ring it is found."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def __call__(self) -> None:
        self._rung.set()

    def wait(self) -> None:
        assert self._rung.wait(PATIENCE), "the bell was not rung"
        self._rung.clear()


def deliveries(inbox: Inbox, bell: Bell, count: int) -> list[Delivery]:
    """So many deliveries, as soon as they are there."""
    found = inbox.poll(count)
    while len(found) < count:
        bell.wait()
        found += inbox.poll(count - len(found))
    return found


def outcomes(link: Link, bell: Bell, count: int) -> list[Outcome]:
    """So many outcomes, as soon as they are there."""
    found = link.outcomes()
    while len(found) < count:
        bell.wait()
        found += link.outcomes()
    return found


def offer(link: Link, bell: Bell, ref: object, data: bytes) -> None:
    """Offer until the link takes it: it refuses while it has no connection, and rings when it has one."""
    while not link.offer(ref, data):
        bell.wait()


def publish(link: Link, bell: Bell, *bodies: bytes) -> list[Outcome]:
    """Offer these messages and wait for what becomes of them."""
    for number, body in enumerate(bodies):
        offer(link, bell, number, body)
    return outcomes(link, bell, len(bodies))


class Wires(Protocol):
    """Brokers of cells named by the test. Everything opened is closed at the end."""

    def open(self, cell: str, bell: Callable[[], None], *, max_length: int = 1000, prefetch: int = 200) -> Broker: ...

    def url(self, publisher: str, neighbour: str) -> str:
        """How the publisher reaches the neighbour's inbox."""

    def user(self, publisher: str) -> str:
        """What the neighbour's broker calls the publisher."""

    def nowhere(self) -> str:
        """Where no broker is."""

    def close(self) -> None: ...


class MemoryWires:
    def __init__(self) -> None:
        self._exchanges = MemoryExchanges()
        self._brokers: list[Broker] = []

    def open(self, cell: str, bell: Callable[[], None], *, max_length: int = 1000, prefetch: int = 200) -> Broker:
        options = AmqpOptions(max_length=max_length, prefetch=prefetch)
        broker = open_broker(f"memory://{cell}", cell, bell, exchanges=self._exchanges, options=options)
        self._brokers.append(broker)
        return broker

    def url(self, publisher: str, neighbour: str) -> str:
        return f"memory://{neighbour}"

    def user(self, publisher: str) -> str:
        return publisher

    def nowhere(self) -> str:
        return "memory://nowhere"

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()


class RabbitWires:
    """A virtual host per cell; per edge a user that may only write to the neighbour's inbox."""

    def __init__(self, node: RabbitNode, **options: float) -> None:
        self._node = node
        self._mark = secrets.token_hex(4)
        self._options = options
        self._brokers: list[Broker] = []
        self._vhosts: set[str] = set()
        self._users: set[str] = set()

    def owner_url(self, cell: str) -> str:
        """How a cell reaches its own broker: everything is allowed."""
        name = f"{self._mark}-{cell}"
        self._grant(Grant(vhost=name, user=name, password=self._mark))
        return self._node.amqp_url(name, name, self._mark)

    def open(self, cell: str, bell: Callable[[], None], *, max_length: int = 1000, prefetch: int = 200) -> Broker:
        options = AmqpOptions(max_length=max_length, prefetch=prefetch, retry_most=0.5, **self._options)  # type: ignore[arg-type]
        broker = open_broker(self.owner_url(cell), cell, bell, options=options)
        self._brokers.append(broker)
        return broker

    def url(self, publisher: str, neighbour: str) -> str:
        vhost, user = f"{self._mark}-{neighbour}", self.user(publisher)
        self._grant(Grant(vhost=vhost, user=user, password=self._mark, **WRITE_ONLY))
        return self._node.amqp_url(vhost, user, self._mark)

    def user(self, publisher: str) -> str:
        return f"{self._mark}-edge-{publisher}"

    def nowhere(self) -> str:
        with socket.create_server(("127.0.0.1", 0)) as once:
            port = once.getsockname()[1]
        return f"amqp://user:password@127.0.0.1:{port}/nowhere"

    def close(self) -> None:
        for broker in self._brokers:
            broker.close()
        if self._node.running:
            for vhost in self._vhosts:
                self._node.delete_vhost(vhost)
            for user in self._users:
                self._node.delete_user(user)

    def _grant(self, grant: Grant) -> None:
        self._node.add_grants([grant])
        self._vhosts.add(grant.vhost)
        self._users.add(grant.user)
