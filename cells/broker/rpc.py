"""The posting endpoint inside a cell: other programs post a build, or ask something, and wait for the answer.

Loss is a time-out here, never a silence: whoever posts chooses the request id, and asks again with the same one. On
RabbitMQ it is an oslo.messaging RPC server, so that any OpenStack program can call it (exchange celltree, topic
celltree.posting); with memory:// the call is made in place.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from cells.broker.memory import SCHEME, MemoryExchange, MemoryExchanges, exchange_name
from cells.broker.options import AmqpOptions
from cells.errors import BadInput, Temporary
from cells.names import CellName

Endpoint = Mapping[str, Callable[..., Any]]


class Server(Protocol):
    """Serves from `start` to `stop`. Neither waits for a broker that is away."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Client(Protocol):
    """Thread safe. Arguments and answers are what JSON can carry."""

    def call(self, method: str, timeout: float, **arguments: Any) -> Any:
        """The endpoint's answer, within so many seconds. Its own errors are raised here again; Temporary when there
        was no answer, then it may or may not have been done."""

    def close(self) -> None: ...


def serve(
    url: str,
    cell: CellName,
    endpoint: Endpoint,
    *,
    exchanges: MemoryExchanges | None = None,
    options: AmqpOptions | None = None,
) -> Server:
    """Offer these methods, by name, to the programs around a cell. Not started yet."""
    if urlsplit(url).scheme == SCHEME:
        return MemoryServer(_exchange(url, exchanges), endpoint)
    from cells.broker.oslo import OsloServer

    return OsloServer(url, cell, endpoint, options or AmqpOptions())


def client(
    url: str, cell: CellName, *, exchanges: MemoryExchanges | None = None, options: AmqpOptions | None = None
) -> Client:
    """A way to call the endpoint of the cell whose broker this is."""
    if urlsplit(url).scheme == SCHEME:
        return MemoryClient(_exchange(url, exchanges), cell)
    from cells.broker.oslo import OsloClient

    return OsloClient(url, cell, options or AmqpOptions())


def _exchange(url: str, exchanges: MemoryExchanges | None) -> MemoryExchange:
    if exchanges is None:
        raise BadInput("a memory:// endpoint lives in one process: give the house's MemoryExchanges")
    return exchanges.exchange(exchange_name(url))


class MemoryServer:
    """The endpoint of an embedded cell, found through its exchange."""

    def __init__(self, exchange: MemoryExchange, endpoint: Endpoint) -> None:
        self._exchange = exchange
        self._endpoint = endpoint

    def start(self) -> None:
        self._exchange.endpoint = self._endpoint

    def stop(self) -> None:
        self._exchange.endpoint = {}


class MemoryClient:
    """Calls in place, in the caller's thread."""

    def __init__(self, exchange: MemoryExchange, cell: CellName) -> None:
        self._exchange = exchange
        self._cell = cell

    def call(self, method: str, timeout: float, **arguments: Any) -> Any:
        found = self._exchange.endpoint.get(method) if self._exchange.running else None
        if found is None:
            raise Temporary(f"cell {self._cell} did not answer {method} within {timeout:g} s; ask again, same id")
        return found(**arguments)

    def close(self) -> None:
        """Nothing to let go of."""
