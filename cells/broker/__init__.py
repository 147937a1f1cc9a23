"""A cell's message brokers: memory (embedded), RabbitMQ (lab, production). The URL chooses; see README.md."""

from collections.abc import Callable
from urllib.parse import urlsplit

from cells.broker.memory import MemoryBroker, MemoryExchange, MemoryExchanges, exchange_name
from cells.broker.options import AmqpOptions, Tls
from cells.errors import BadInput
from cells.names import CellName
from cells.ports import Broker

__all__ = ["AmqpOptions", "MemoryBroker", "MemoryExchange", "MemoryExchanges", "Tls", "open_broker"]


def open_broker(
    url: str,
    cell: CellName,
    bell: Callable[[], None],
    *,
    exchanges: MemoryExchanges | None = None,
    options: AmqpOptions | None = None,
) -> Broker:
    """The broker at this URL. `bell` is rung, from any thread, when a delivery or an outcome has come. `exchanges` is
    where memory:// names are looked up; of `options` it heeds those it has. BadInput for a URL of no known kind."""
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        if exchanges is None:
            raise BadInput("a memory:// broker lives in one process: give open_broker the house's MemoryExchanges")
        limits = options or AmqpOptions()
        exchange = exchanges.exchange(exchange_name(url), limits.max_length)
        return MemoryBroker(exchange, cell, bell, prefetch=limits.prefetch, window=limits.window + limits.backlog)
    if scheme in ("amqp", "amqps"):
        # Here, so that the embedded shape does not load kombu (15 MiB and 0.2 s).
        from cells.broker.amqp import AmqpBroker

        return AmqpBroker(url, cell, bell, options)
    raise BadInput(f"broker URL of kind {scheme!r} is not known: use memory://, amqp:// or amqps://")
